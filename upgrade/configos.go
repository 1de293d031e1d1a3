package upgrade

import (
	"net/url"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The values of the enumerated settings of OSConfig and DockerConfig.
const (
	// The strategies of an OSConfig; docs/os.md describes them.
	StrategyYumUpdate = string(hostos.YumUpdate)
	StrategySecurity  = string(hostos.Security)
	StrategyKernel    = string(hostos.KernelOnly)
	StrategyApt       = string(hostos.Apt)
	StrategyScript    = string(hostos.Script)
	StrategyExternal  = string(hostos.External)

	// ProductionReplay upgrades production as it was tried on the transition host;
	// ProductionReplaceDisk gives it an image of that host's system disk.
	ProductionReplay      = "replay"
	ProductionReplaceDisk = "replace-system-disk"

	// DockerUpgrade replaces the distribution's Docker by docker-ce as
	// section 3.5 of the runbook does; DockerKeep leaves it alone.
	DockerUpgrade = "upgrade"
	DockerKeep    = "keep"

	// ProfileRunbook adds the runbook's settings to daemon.json; ProfileKeep
	// adds none.
	ProfileRunbook = "runbook"
	ProfileKeep    = "keep"
)

// OSConfig says how the operating system is upgraded.
type OSConfig struct {
	// Production says how production gets what was tried on the transition host:
	// ProductionReplay, the default, or ProductionReplaceDisk.
	Production string `json:"production,omitempty"`

	Strategy string `json:"strategy"`           // StrategyYumUpdate, …Security, …Kernel, …Apt, …Script or …External
	Script   string `json:"script,omitempty"`   // of StrategyScript: a file on this machine, run as root on the host
	Precheck string `json:"precheck,omitempty"` // of StrategyScript: a file on this machine, run as root before Script; it changes nothing
	// InReboot, of StrategyScript: Script only prepares, and the reboot upgrades, as
	// that of leapp does, in as many boots as it likes, until Release is there.
	InReboot bool          `json:"in_reboot,omitempty"`
	Blackout time.Duration `json:"blackout,omitempty"` // how long a host may be away in its reboot; 0: pace.timeout
	From     string        `json:"from,omitempty"`     // text that the release must contain beforehand
	// Instructions tell a person what to do, of StrategyExternal: the gate before
	// the step shows them.
	Instructions string   `json:"instructions,omitempty"`
	Vault        string   `json:"vault,omitempty"`       // URL of a tree of CentOS 7 that still exists, down to the release; empty: repositories stay as they are
	ExcludeOK    []string `json:"exclude_ok,omitempty"`  // excludes, locks and holds that are meant, as they are written on the host
	UnitsOK      []string `json:"units_ok,omitempty"`    // units that may have failed after the upgrade
	AllowDrift   bool     `json:"allow_drift,omitempty"` // production resolves its own transaction, and may end with other packages than the transition host
	Kernel       string   `json:"kernel,omitempty"`      // that must run afterwards; empty: the transaction's
	Release      string   `json:"release,omitempty"`     // text that the release must contain afterwards
	Docker       string   `json:"docker"`                // DockerUpgrade or DockerKeep
	Reboot       bool     `json:"reboot"`                // whether the host is rebooted afterwards
}

// DockerConfig says how Docker is replaced when OSConfig.Docker is
// DockerUpgrade.
type DockerConfig struct {
	RepoURL     string `json:"repo_url,omitempty"`    // of the package repository's file; "none": the host's own; empty: hostos.DockerRepoURL
	RepoSHA256  string `json:"repo_sha256,omitempty"` // of that file, hex; empty: not compared
	Package     string `json:"package,omitempty"`     // empty: docker-ce
	Version     string `json:"version,omitempty"`     // exact, such as 20.10.24; empty: the newest
	Profile     string `json:"profile"`               // ProfileRunbook, ProfileKeep, or a file with settings to add to daemon.json
	ChmodSocket bool   `json:"chmod_socket"`          // every user may use the daemon's socket, and is root through it
	Down        bool   `json:"down"`                  // Compose projects are taken down first; their writable layers are lost
}

// docker reads how Docker is replaced.
func (d *configDecoder) docker(m mapping, c *Config) {
	s := d.mapping(m.values["docker"], "docker", "repo_url", "repo_sha256", "package", "version", "profile", "chmod_socket", "down")
	c.Docker = DockerConfig{
		RepoURL: s.text("repo_url", "", func(v string) string {
			u, err := url.Parse(v)
			return pick(v != "none" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil), "is neither none nor an http or https address without a password")
		}),
		RepoSHA256:  s.text("repo_sha256", "", matches(`^[0-9a-f]{64}$`, "is not a SHA-256 in lower-case hex")),
		Package:     s.text("package", "", matches(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`, "is not the name of a package")),
		Version:     s.text("version", "", matches(`^[0-9][A-Za-z0-9._+:~-]*$`, "is not a version such as 20.10.24")),
		Profile:     s.text("profile", ProfileRunbook),
		ChmodSocket: s.boolean("chmod_socket", false),
		Down:        s.boolean("down", false),
	}
	if c.Docker.Profile == "" {
		c.Docker.Profile = ProfileRunbook
	}
}

// os reads how the operating system is upgraded.
func (d *configDecoder) os(m mapping, c *Config) {
	s := d.mapping(m.values["os"], "os", "strategy", "production", "script", "precheck", "in_reboot", "blackout", "from", "instructions", "vault", "exclude_ok", "units_ok", "allow_drift", "kernel", "release", "docker", "reboot")
	c.OS.Strategy = s.enum("strategy", StrategyYumUpdate, StrategyYumUpdate, StrategySecurity, StrategyKernel, StrategyApt, StrategyScript, StrategyExternal)
	c.OS.Script = s.text("script", "")
	switch {
	case c.OS.Strategy == StrategyScript && c.OS.Script == "":
		s.need(": strategy script needs the file to run", "script")
		if s.has("script") && !s.failed("script") {
			s.problem("script", "is empty: strategy script needs the file to run")
		}
	case c.OS.Strategy != StrategyScript && c.OS.Script != "" && !s.failed("strategy"):
		s.problem("script", "is used by strategy script only, not by %s", c.OS.Strategy)
	}
	c.OS.Precheck = s.text("precheck", "")
	c.OS.InReboot = s.boolean("in_reboot", false)
	c.OS.Blackout = s.duration("blackout", 0, time.Second, true)
	c.OS.From = s.text("from", "")
	for _, k := range []string{"precheck", "in_reboot"} {
		if c.OS.Strategy != StrategyScript && s.has(k) && !s.failed("strategy") {
			s.problem(k, "is used by strategy script only, not by %s", c.OS.Strategy)
		}
	}
	c.OS.Instructions = s.text("instructions", "")
	c.OS.Kernel = s.text("kernel", "", matches(`^[0-9][A-Za-z0-9._+~-]*$`, "is not a kernel's release as uname -r prints it"))
	c.OS.Release = s.text("release", "")
	switch {
	case c.OS.Strategy == StrategyExternal:
		s.need(": strategy external needs to tell a person what to do", "instructions")
		if c.OS.Kernel == "" && c.OS.Release == "" && !s.failed("kernel") && !s.failed("release") {
			s.problem("strategy", "external is proved by what is there afterwards: give release, kernel, or both")
		}
	case c.OS.Instructions != "" && !s.failed("strategy"):
		s.problem("instructions", "is used by strategy external only, not by %s", c.OS.Strategy)
	}
	c.OS.Vault = s.text("vault", "", matches(`^https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)+$`, "is not the URL of a tree such as https://mirrors.aliyun.com/centos-vault/7.9.2009, without a slash at its end"))
	word := func(w string) string { return pick(w == "" || strings.ContainsAny(w, " \t\n"), "is no single word") }
	d.words(s, "exclude_ok", word, &c.OS.ExcludeOK)
	d.words(s, "units_ok", word, &c.OS.UnitsOK)
	c.OS.AllowDrift = s.boolean("allow_drift", false)
	c.OS.Docker = s.enum("docker", DockerUpgrade, DockerUpgrade, DockerKeep)
	c.OS.Reboot = s.boolean("reboot", true)
	c.OS.Production = s.enum("production", ProductionReplay, ProductionReplay, ProductionReplaceDisk)
	if c.OS.Production == ProductionReplaceDisk && !s.failed("production") {
		if !c.OS.Reboot && !s.failed("reboot") {
			s.problem("reboot", "must be true with production: %s: the new disk becomes production itself by a reboot", c.OS.Production)
		}
		if c.OS.AllowDrift && !s.failed("allow_drift") {
			s.problem("allow_drift", "has no meaning with production: %s: production gets the transition host's packages", c.OS.Production)
		}
		if c.Transition.Instance != "" {
			s.problem("production", "%s needs a transition host that the run makes: transition.instance is no copy of production", c.OS.Production)
		}
	}
	if c.OS.InReboot && !s.failed("reboot") && !s.failed("release") {
		if !c.OS.Reboot {
			s.problem("in_reboot", "says that the reboot upgrades the host, and reboot is false")
		}
		if c.OS.Release == "" {
			s.problem("in_reboot", "needs release: nothing else tells that the upgrade is over")
		}
	}
}
