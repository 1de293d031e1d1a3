package hostos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Strategy is a way to upgrade an operating system.
type Strategy string

// The strategies. docs/os.md says when to take which.
const (
	YumUpdate  Strategy = "yum-update" // everything, with yum 3 or dnf
	Security   Strategy = "security"   // what the repositories call a security update, with yum 3 or dnf
	KernelOnly Strategy = "kernel"     // the kernel and what it needs
	Apt        Strategy = "apt"        // apt-get dist-upgrade, nothing asked, settings kept
	Script     Strategy = "script"     // a script of the operator's
	External   Strategy = "external"   // done by somebody else; only the proof afterwards counts
)

// Strategies lists them all.
func Strategies() []Strategy {
	return []Strategy{YumUpdate, Security, KernelOnly, Apt, Script, External}
}

// StrategyConfig says how one host is upgraded.
type StrategyConfig struct {
	Strategy Strategy `json:"strategy"`
	Script   string   `json:"script,omitempty"` // of Script: what /bin/sh runs as root
	// Precheck, of Script, is run as root before Script and changes nothing; any
	// status but 0 means that Script would not do here.
	Precheck string `json:"precheck,omitempty"`
	// InReboot, of Script: Script only prepares, and the reboot after it upgrades,
	// as that of leapp does, in as many boots as it likes. Release says when it is
	// over.
	InReboot bool   `json:"in_reboot,omitempty"`
	From     string `json:"from,omitempty"` // text that the release must contain beforehand
	// Vault is the URL of a CentOS 7 tree that still exists, down to the release,
	// such as https://mirrors.aliyun.com/centos-vault/7.9.2009; "": repositories
	// stay as they are.
	Vault     string   `json:"vault,omitempty"`
	ExcludeOK []string `json:"exclude_ok,omitempty"` // excludes, locks and holds that are meant, as they are written on the host
	Accept    []string `json:"accept,omitempty"`     // findings that a person has judged harmless: ID, or ID:OBJECT for one alone
	Kernel    string   `json:"kernel,omitempty"`     // that must run afterwards; "": the transaction's
	UnitsOK   []string `json:"units_ok,omitempty"`   // units that may have failed afterwards
	Release   string   `json:"release,omitempty"`    // text that the release must contain afterwards
}

// resolves tells whether the strategy is a transaction that can be resolved
// beforehand and replayed.
func (s Strategy) resolves() bool {
	return s == YumUpdate || s == Security || s == KernelOnly || s == Apt
}

// Applies says why the strategy cannot be used on a host; an empty result
// means that it can.
func (c StrategyConfig) Applies(o *OS) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	rpm := o.Manager == "yum" || o.Manager == "dnf"
	is := strings.TrimSpace(cmp.Or(o.Boot.Release, o.ID+" "+o.VersionID))
	if !slices.Contains(Strategies(), c.Strategy) {
		say("there is no strategy %q", c.Strategy)
		return out
	}
	switch c.Strategy {
	case YumUpdate, Security:
		if !rpm {
			say("strategy %s needs yum or dnf and packages of RPM; this host (%s) has %s; strategy apt is for Debian and Ubuntu", c.Strategy, is, managerName(o))
		}
	case KernelOnly:
		if o.Manager == "" {
			say("strategy kernel needs yum, dnf or apt-get; this host (%s) has %s", is, managerName(o))
		} else if o.kernelPackage() == "" {
			say("strategy kernel: no installed package holds a kernel; who installs kernels on this host (%s)?", is)
		}
	case Apt:
		if o.Manager != "apt" {
			say("strategy apt needs apt-get and packages of dpkg; this host (%s) has %s; strategy yum-update is for RPM distributions", is, managerName(o))
		}
	case Script:
		if strings.TrimSpace(c.Script) == "" {
			say("strategy script has no script to run")
		}
		if c.InReboot && c.Release == "" {
			say("strategy script: when the reboot does the upgrade, only the release tells that it is over, and none is given")
		}
		if c.InReboot && c.Release != "" && strings.Contains(o.Boot.Release, c.Release) {
			say("strategy script: this host is %s already, so that nothing would tell that its reboot has upgraded it", is)
		}
	case External:
		if c.Kernel == "" && c.Release == "" {
			say("strategy external needs to know what must be there afterwards: a release or a kernel")
		}
	}
	if !strings.Contains(o.Boot.Release, c.From) && (c.Release == "" || !strings.Contains(o.Boot.Release, c.Release)) {
		say("the upgrade is meant for hosts of %q (os.from); this host is %s", c.From, is)
	}
	if c.Vault != "" && (o.ID != "centos" || o.VersionID != "7" || !rpm) {
		say("a vault mirror is for CentOS 7; this host is %s", is)
	}
	if c.Strategy != External && o.UID != 0 {
		say("upgrading needs root, and we are user %d on this host; log in as root, or with ssh.sudo", o.UID)
	}
	return out
}

func managerName(o *OS) string {
	return cmp.Or(o.Manager, "no package manager that is known here")
}

// kernelPackage names the package that stands for the host's kernels, which an
// upgrade of the kernel asks for; "" when there is none.
func (o *OS) kernelPackage() string {
	if o.Manager == "apt" {
		// A name without a number stands for the newest of its kind.
		for _, p := range o.Packages {
			if kind, ok := strings.CutPrefix(p.Name, "linux-image-"); ok && kind != "" && (kind[0] < '0' || kind[0] > '9') && !strings.Contains(kind, "unsigned") {
				return p.Name
			}
		}
		return ""
	}
	name := ""
	for _, p := range o.Packages {
		if p.KernelRelease() == o.Boot.Kernel || name == "" && p.KernelRelease() != "" {
			name = p.Name
			if p.KernelRelease() == o.Boot.Kernel {
				break
			}
		}
	}
	if meta := strings.TrimSuffix(name, "-core"); slices.ContainsFunc(o.Packages, func(p Package) bool { return p.Name == meta }) {
		return meta
	}
	return name
}

// verb gives what the package manager is asked for: the strategy's own, or with
// a replay exactly these packages. "" means nothing.
func (c StrategyConfig) verb(o *OS, replay []Package) string {
	if replay != nil {
		words := []string{"install"}
		if o.Manager == "dnf" {
			// What is not in the list is not wanted either.
			words = []string{"--setopt=install_weak_deps=False", "install"}
		}
		for _, p := range replay {
			words = append(words, shellq.Quote(p.String()))
		}
		return strings.Join(words, " ")
	}
	switch {
	case c.Strategy == KernelOnly && o.Manager == "apt":
		return "install --only-upgrade " + shellq.Quote(o.kernelPackage())
	case c.Strategy == KernelOnly:
		return "update " + shellq.Quote(o.kernelPackage())
	case c.Strategy == Security:
		return "update --security"
	case c.Strategy == Apt:
		return "dist-upgrade"
	}
	return "update"
}

// aptOptions make apt-get ask nothing: settings that were changed by hand stay
// (dpkg(1), --force-confdef, --force-confold), and a lock is waited for.
const aptOptions = "-y -q -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300"

// UpgradeScript gives the script of the transaction, to be run as root with
// StartJob. replay, when not nil, are the packages that another host got (the
// Incoming of its transaction): then exactly these are installed. The answer
// to whether it went well is CheckUpgraded's, not the exit status of the
// script: dnf leaves out what cannot be installed and is content.
// External has no script.
func UpgradeScript(c StrategyConfig, o *OS, replay []Package) (string, error) {
	switch {
	case c.Strategy == Script:
		return c.Script, nil
	case !c.Strategy.resolves():
		return "", fmt.Errorf("strategy %s has no script", c.Strategy)
	case replay != nil && len(replay) == 0:
		return "echo 'nothing to do: the transition host had nothing to do either'\n", nil
	case o.Manager == "apt":
		verb := c.verb(o, replay)
		if replay != nil {
			verb = "--no-install-recommends " + verb
		}
		return "DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1\nexport DEBIAN_FRONTEND NEEDRESTART_SUSPEND\n" +
			"apt-get -q update || exit 1\napt-get " + aptOptions + " " + verb + "\n", nil
	case o.Manager == "":
		return "", fmt.Errorf("strategy %s: the host has %s", c.Strategy, managerName(o))
	}
	return o.Manager + " -y " + c.verb(o, replay) + "\n", nil
}
