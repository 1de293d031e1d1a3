package hostos

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DockerRepoURL is the package repository of section 3.5 of the runbook.
const DockerRepoURL = "https://mirrors.aliyun.com/docker-ce/linux/centos/docker-ce.repo"

// DockerOptions say how Docker is replaced. The zero value is the runbook's
// way: docker-ce of DockerRepoURL, its newest version, RunbookDaemonJSON.
type DockerOptions struct {
	RepoURL    string   // http or https; "" = DockerRepoURL where packages are RPMs, none where they are not; "none" = the repositories the host has
	RepoSHA256 string   // of the repository's file, hex; "" = what is served is believed if it is such a file
	Section    string   // section that the repository's file must have; "" = docker-ce-stable
	Package    string   // "" = docker-ce; of apt: the package that is there
	Version    string   // exact, as 20.10.24 or 20.10.24-3.el7; "" = the one that is installed, or else the newest
	Replay     []string // exact packages, DockerResult.Installed of another host; Version is not used then
	Profile    []byte   // settings added to daemon.json; nil = RunbookDaemonJSON, {} = none
	Uncapped   bool     // added limits are not capped at what the host allows

	ChmodSocket bool // chmod 666 on the daemon's socket: everybody on the host is root then
	Down        bool // Compose projects are taken down before they are brought up: their writable layers are lost
	// Dirs are the directories of Compose projects, for those that a Compose made
	// that does not say so in its labels. A project is called after the last
	// element of its directory.
	Dirs []string
}

// A DockerSeverity says what becomes of a finding.
type DockerSeverity string

// The severities of a DockerFinding.
const (
	DockerRefuse  DockerSeverity = "refuse"  // the upgrade is refused
	DockerWarning DockerSeverity = "warning" // a person should know
)

// A DockerFinding is something about a host's Docker that speaks against its
// upgrade, or that a person should know before.
type DockerFinding struct {
	Severity DockerSeverity `json:"severity"`
	Object   string         `json:"object"` // container, setting, package it is about
	Text     string         `json:"text"`   // what is so
	Remedy   string         `json:"remedy"` // what to do
}

func (f DockerFinding) String() string {
	s := f.Object + ": " + f.Text
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// A DockerPlan is what UpgradeDocker will do to one host.
type DockerPlan struct {
	Manager  string          `json:"manager"` // "rpm" or "apt"
	Package  string          `json:"package"`
	Repo     *DockerRepo     `json:"repo,omitempty"`    // nil: the repositories the host has
	Remove   []string        `json:"remove,omitempty"`  // names of packages
	Install  []string        `json:"install,omitempty"` // as the package manager takes them; empty: nothing
	Exact    bool            `json:"exact,omitempty"`   // Install is all of a recorded transaction
	Config   DockerConfig    `json:"config"`
	Findings []DockerFinding `json:"findings,omitempty"`

	ChmodSocket bool `json:"chmod_socket,omitempty"`
	Down        bool `json:"down,omitempty"`

	containers []string // lines about what comes back
}

// DockerRepo is a repository's file.
type DockerRepo struct {
	URL     string `json:"url"`
	SHA256  string `json:"sha256,omitempty"`
	File    string `json:"file"`
	Section string `json:"section,omitempty"`
}

// DockerConfig is what becomes of daemon.json. The contents are no part of its
// JSON: they may hold passwords.
type DockerConfig struct {
	Before  []byte   `json:"-"`                      // nil: there is none
	After   []byte   `json:"-"`                      // same as Before: nothing changes
	Newer   []byte   `json:"-"`                      // After for Docker 25 and later, where it differs; nil: it does not
	OldSum  string   `json:"old_sha256,omitempty"`   // "" = there is none
	NewSum  string   `json:"new_sha256,omitempty"`   // of After
	NextSum string   `json:"newer_sha256,omitempty"` // of Newer
	Changes []string `json:"changes,omitempty"`
}

// Refusals are the findings that forbid the upgrade, as texts.
func (p *DockerPlan) Refusals() []string {
	var out []string
	for _, f := range p.Findings {
		if f.Severity == DockerRefuse {
			out = append(out, f.String())
		}
	}
	return out
}

// Nothing tells that the host has all of it already.
func (p *DockerPlan) Nothing() bool {
	return len(p.Remove) == 0 && len(p.Install) == 0 && p.Config.OldSum == p.Config.NewSum
}

var (
	shaPattern     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	packagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+:~=-]*$`)
	sectionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// check refuses options that no package manager could mean.
func (o DockerOptions) check() error {
	bad := func(what, v string) error {
		return fmt.Errorf("cannot plan the upgrade of Docker: %q is no %s", v, what)
	}
	if o.RepoURL != "" && o.RepoURL != "none" {
		if u, err := url.Parse(o.RepoURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return bad("http or https address without a password", o.RepoURL)
		}
	}
	if o.RepoSHA256 != "" && !shaPattern.MatchString(o.RepoSHA256) {
		return bad("SHA-256 in hex", o.RepoSHA256)
	}
	if o.Section != "" && !sectionPattern.MatchString(o.Section) {
		return bad("section of a repository file", o.Section)
	}
	for _, v := range append([]string{o.Package, o.Version}, o.Replay...) {
		if v != "" && !packagePattern.MatchString(v) {
			return bad("package or version", v)
		}
	}
	if len(o.Profile) > 0 {
		if _, err := jsonObject("cannot read the profile of daemon.json", o.Profile); err != nil {
			return err
		}
	}
	return nil
}

// major is the major version of the daemon that will be installed; 0 = nobody
// can know yet.
func (o DockerOptions) major(pkg string) int {
	v := o.Version
	for _, r := range o.Replay {
		for _, sep := range []string{"-", "="} {
			if rest, ok := strings.CutPrefix(r, pkg+sep); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
				v = rest
			}
		}
	}
	if i := strings.IndexByte(v, ':'); i >= 0 {
		v = v[i+1:] // an epoch
	}
	v, _, _ = strings.Cut(v, ".")
	n, _ := strconv.Atoi(v) // "" and words are unknown
	return n
}

// replaced are the packages that make room for docker-ce; see
// docs.docker.com/engine/install. apt puts containerd.io in the place of
// containerd and runc.
var replaced = []string{
	"docker", "docker-client", "docker-client-latest", "docker-common", "docker-latest", "docker-latest-logrotate", "docker-logrotate",
	"docker-selinux", "docker-engine", "docker-engine-selinux", "docker.io", "docker-doc", "podman-docker", "moby-engine", "moby-cli",
	"containerd", "runc",
}

// PlanDocker says what UpgradeDocker would do to the host whose state is now.
// before is the state of the host that production was when everything ran, for
// a copy of it or for production itself once its services are stopped; nil =
// now. What speaks against it is among the findings (Refusals); an error means
// that the options make no sense, or that there is no Docker. It is pure.
func PlanDocker(now, before *Docker, o DockerOptions) (*DockerPlan, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if before == nil {
		before = now
	}
	if now.Command == "" && before.Command == "" {
		return nil, fmt.Errorf("cannot plan the upgrade of Docker: the host has no docker command")
	}
	p := &DockerPlan{Manager: now.Manager, Package: o.Package, ChmodSocket: o.ChmodSocket, Down: o.Down}
	p.packages(now, before, o)
	major := o.major(p.Package)
	p.config(now, before, o, major)
	p.judge(now, before, o, major)
	p.containers = comesBack(before, o)
	return p, nil
}

func (p *DockerPlan) find(s DockerSeverity, object, remedy, format string, a ...any) {
	p.Findings = append(p.Findings, DockerFinding{s, object, fmt.Sprintf(format, a...), remedy})
}

// packageName is the name in an item of Docker.Packages.
func packageName(p string) string {
	if name, _, ok := strings.Cut(p, "="); ok {
		return name
	}
	// NAME-EPOCH:VERSION-RELEASE.ARCH
	if i := strings.IndexByte(p, ':'); i >= 0 {
		if j := strings.LastIndexByte(p[:i], '-'); j >= 0 {
			return p[:j]
		}
	}
	return p
}

// specName is the name in an item of DockerPlan.Install.
func specName(x string) string {
	if name := packageName(x); name != x {
		return name
	}
	for i := 1; i < len(x); i++ {
		if x[i-1] == '-' && x[i] >= '0' && x[i] <= '9' {
			return x[:i-1]
		}
	}
	return x
}

// hasPackage tells whether an item of DockerPlan.Install is installed.
func hasPackage(d *Docker, x string) bool {
	return slices.ContainsFunc(d.Packages, func(p string) bool {
		name := packageName(p)
		if p == x || name == x {
			return true
		}
		// NAME-EPOCH:VERSION-RELEASE.ARCH against NAME-VERSION or NAME-VERSION-RELEASE
		_, v, _ := strings.Cut(p, ":")
		rest, ok := strings.CutPrefix(x, name+"-")
		return ok && v != "" && (rest == v || strings.HasPrefix(v, rest+"-") || strings.HasPrefix(v, rest+"."))
	})
}

func (p *DockerPlan) packages(now, before *Docker, o DockerOptions) {
	installed := map[string]bool{}
	for _, x := range now.Packages {
		installed[packageName(x)] = true
	}
	if p.Package == "" {
		p.Package = "docker-ce"
		if p.Manager == "apt" && o.RepoURL == "" {
			// Nothing offers docker-ce there before somebody says who does.
			for _, name := range []string{"docker-ce", "docker.io"} {
				if installed[name] {
					p.Package = name
					break
				}
			}
		}
	}
	for _, name := range replaced {
		if installed[name] && name != p.Package && !strings.HasPrefix(p.Package, "docker.io") {
			p.Remove = append(p.Remove, name)
		}
	}
	switch {
	case len(o.Replay) > 0:
		p.Install, p.Exact = slices.Clone(o.Replay), true
	case o.Version != "" && p.Manager == "apt":
		p.Install = []string{p.Package + "=" + o.Version}
	case o.Version != "" && p.Package == "docker-ce":
		p.Install = []string{"docker-ce-" + o.Version, "docker-ce-cli-" + o.Version}
	case o.Version != "":
		p.Install = []string{p.Package + "-" + o.Version}
	case !installed[p.Package]:
		p.Install = []string{p.Package}
	}
	// What is not one of the engine's packages was recorded along with them:
	// only the job can see whether it is there.
	if len(p.Remove) == 0 && !slices.ContainsFunc(p.Install, func(x string) bool {
		return slices.Contains(enginePackages, specName(x)) && !hasPackage(now, x)
	}) {
		p.Install, p.Exact = nil, false // all of it is there
	}
	if len(p.Install) == 0 {
		return
	}
	address := o.RepoURL
	if address == "" && p.Manager == "rpm" {
		address = DockerRepoURL
	}
	if address != "" && address != "none" {
		p.Repo = &DockerRepo{URL: address, SHA256: o.RepoSHA256, File: "/etc/yum.repos.d/docker-ce.repo", Section: o.Section}
		switch {
		case p.Manager == "apt" && strings.HasSuffix(address, ".sources"):
			p.Repo.File, p.Repo.Section = "/etc/apt/sources.list.d/docker-ce.sources", ""
		case p.Manager == "apt":
			p.Repo.File, p.Repo.Section = "/etc/apt/sources.list.d/docker-ce.list", ""
		case p.Repo.Section == "":
			p.Repo.Section = "docker-ce-stable"
		}
	}
}

// config computes daemon.json, for a daemon of a version that is known or of
// either kind. The profile was checked: what cannot be merged is the host's.
func (p *DockerPlan) config(now, before *Docker, o DockerOptions, major int) {
	if len(p.Install) == 0 && major == 0 {
		v, _, _ := strings.Cut(now.ServerVersion, ".")
		major, _ = strconv.Atoi(v) // unknown when it does not run
	}
	s := DaemonSettings{Profile: o.Profile, Limits: now.Limits, Kept: now.Kept, Root: before.DataRoot, Driver: before.StorageDriver, Major: major}
	if o.Uncapped {
		s.Limits = nil
	}
	if len(p.Install) > 0 && len(now.Kept) == 0 {
		s.Lost = before.Flags
	}
	p.Config = DockerConfig{Before: now.DaemonJSON, After: now.DaemonJSON, OldSum: sumOf(now.DaemonJSON), NewSum: sumOf(now.DaemonJSON)}
	m, err := MergeDaemonJSON(now.DaemonJSON, s)
	if err != nil {
		p.find(DockerRefuse, "daemon.json", "mend it by hand: the daemon would not start with it either", "%v", err)
		return
	}
	p.Config.After, p.Config.NewSum, p.Config.Changes = m.Bytes, sumOf(m.Bytes), m.Changes
	for _, w := range m.Warnings {
		p.find(DockerWarning, "daemon.json", "", "%s", w)
	}
	for _, r := range m.Refusals {
		p.find(DockerRefuse, "daemon.json", "", "%s", r)
	}
	if major != 0 {
		return
	}
	s.Major = goneKeys["oom-score-adjust"]
	if m, err = MergeDaemonJSON(now.DaemonJSON, s); err != nil {
		p.find(DockerRefuse, "daemon.json", "mend it by hand", "%v", err)
		return
	}
	if sum := sumOf(m.Bytes); sum != p.Config.NewSum {
		p.Config.Newer, p.Config.NextSum = m.Bytes, sum
	}
}

// sumOf is the SHA-256 of a file in hex; "" where there is none.
func sumOf(b []byte) string {
	if b == nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// removedDrivers are storage drivers that a major version no longer has: its
// daemon does not start on their images. Source: Docker's list of deprecated
// features.
var removedDrivers = map[string]int{"aufs": 24, "overlay": 24, "devicemapper": 25}

func (p *DockerPlan) judge(now, before *Docker, o DockerOptions, major int) {
	if p.Manager == "" {
		p.find(DockerRefuse, "packages", "upgrade Docker by hand, or set docker to keep", "the host has neither yum, dnf nor apt-get")
	}
	if before.Owner == "" && len(before.Packages) == 0 {
		p.find(DockerRefuse, before.Command, "remove it by hand first, or set docker to keep", "no package owns it: it would stay in the way of the new one")
	}
	if before.Owner == "podman-docker" {
		p.find(DockerRefuse, "podman-docker", "set docker to keep, or move the containers to Docker by hand", "the docker command is podman: its containers and images are not Docker's and would not come back")
	}
	if before.ServerVersion == "" {
		p.find(DockerRefuse, "dockerd", "start it and plan again", "the daemon cannot be asked, so nobody knows what has to come back: %s", before.Trouble)
	}
	if gone, ok := removedDrivers[before.StorageDriver]; ok {
		switch {
		case major >= gone:
			p.find(DockerRefuse, "storage driver "+before.StorageDriver, fmt.Sprintf("choose a version before %d with docker.version", gone), "Docker %d does not have it: every image and container would be hidden", major)
		case major == 0:
			p.find(DockerWarning, "storage driver "+before.StorageDriver, fmt.Sprintf("choose a version before %d with docker.version", gone), "Docker %d and later do not have it; a newer one does not start", gone)
		}
	}
	if kernelBefore(before.Kernel, 4, 0) && before.StorageDriver == "overlay" {
		p.find(DockerWarning, "storage driver overlay", "move to overlay2 on a file system with d_type", "on kernel %s it uses an inode for every file of every layer", before.Kernel)
	}
	if before.LiveRestore {
		p.find(DockerWarning, "live-restore", "", "containers would outlive the daemon, but not the change of its package nor a reboot: they are stopped with it here")
	}
	dirs := map[string]bool{}
	for _, d := range o.Dirs {
		dirs[composeName(d)] = true
	}
	for _, x := range before.Projects {
		if x.Dir == "" && !dirs[x.Name] && !o.Down {
			p.find(DockerWarning, "project "+x.Name, "name its directory as a service of kind compose", "the Compose that made it does not say where: its containers are started again one by one")
		}
	}
	for _, c := range before.Containers {
		if c.State != "running" {
			continue
		}
		switch {
		case c.Remove:
			p.find(DockerRefuse, "container "+c.Name, "make it a container that stays (without --rm)", "it was made with --rm: it is gone when it stops, and nobody knows how to make it again")
		case c.Restart == "no" && c.Project == "":
			p.find(DockerWarning, "container "+c.Name, "give it a restart policy (docker update --restart unless-stopped "+c.Name+")", "it has no restart policy and belongs to no Compose project: nothing but this tool would start it again")
		}
	}
	if major >= 29 && !before.ComposeV2 && before.ComposeV1 {
		p.find(DockerWarning, "docker-compose", "install docker-compose-plugin", "docker-compose 1 speaks versions of the API that Docker 29 no longer does")
	}
}

// kernelBefore compares the first two numbers of a kernel's release.
func kernelBefore(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a < major || a == major && b < minor
}

// composeName is the name that docker-compose gives to the project of a
// directory.
func composeName(dir string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, strings.ToLower(path.Base(dir)))
}

// Lines are the plan as a person reads it.
func (p *DockerPlan) Lines() []string {
	var out []string
	add := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	if p.Nothing() {
		add("%s is installed and daemon.json is complete: nothing to do", p.Package)
	}
	if p.Repo != nil {
		sum := "no checksum is configured"
		if p.Repo.SHA256 != "" {
			sum = "SHA-256 " + p.Repo.SHA256
		}
		add("download %s, check it (%s), keep the old file, move it to %s", p.Repo.URL, sum, p.Repo.File)
	}
	if len(p.Install) > 0 {
		add("see that %s is offered, before anything is removed", strings.Join(p.Install, " "))
	}
	if len(p.Remove) > 0 {
		add("see that nothing else goes along, then remove %s", strings.Join(p.Remove, " "))
	}
	if len(p.Install) > 0 {
		what := ""
		if p.Exact {
			what = " (the recorded transaction, exactly)"
		}
		add("stop docker, install %s%s", strings.Join(p.Install, " "), what)
	}
	for _, c := range p.Config.Changes {
		add("daemon.json: %s", c)
	}
	if len(p.Config.Changes) > 0 {
		add("dockerd --validate judges the file where it can; the old one is kept")
	}
	if p.Config.Newer != nil {
		add("daemon.json: without oom-score-adjust if what is installed is Docker 25 or later, which does not start with it")
	}
	out = append(out, p.containers...)
	if p.Down {
		add("down: docker-compose down before up: what containers wrote outside volumes is lost")
	}
	if p.ChmodSocket {
		add("chmod 666 /var/run/docker.sock: every user of the host has root's rights through it")
	}
	for _, f := range p.Findings {
		add("%s: %s", f.Severity, f)
	}
	return out
}
