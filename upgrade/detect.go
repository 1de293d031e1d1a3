package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How much a Finding matters.
const (
	FindingBlocking = "blocking" // the plan is refused, unless a person accepts it
	FindingWarning  = "warning"  // somebody should look
	FindingInfo     = "info"     // to be known
)

// The values of Config.State.
const (
	// StateExternal: what the processes with state on the host write does not
	// count; its truth is elsewhere.
	StateExternal = "external"
	// StateAccepted: a person takes it on that writes to production and to the
	// transition host part from each other.
	StateAccepted = "accepted"
)

// A Finding is one thing about the host or its surroundings that speaks against
// the upgrade or has to be known before it. docs/preflight.md lists every ID.
type Finding struct {
	ID       string `json:"id"`                 // stable word, as "mount-network"
	Severity string `json:"severity"`           // FindingBlocking, FindingWarning or FindingInfo
	Object   string `json:"object"`             // what it was found on; with ID it names the finding
	Evidence string `json:"evidence"`           // what was seen, as a sentence
	Remedy   string `json:"remedy"`             // what to do; may be empty
	Accepted string `json:"accepted,omitempty"` // the entry of the configuration by which a person took it on
}

// Text is the finding in one line, with how to take it on if that can be done.
func (f Finding) Text() string {
	s := f.Evidence
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	if f.Severity == FindingBlocking && f.Accepted == "" && acceptable(f.ID) {
		s += fmt.Sprintf(" (or, when it does not matter, accept: [%s])", quoteYAML(f.entry()))
	}
	return s
}

// entry names exactly this finding in the list accept of the configuration.
func (f Finding) entry() string {
	if f.Object == "" {
		return f.ID
	}
	return f.ID + ":" + f.Object
}

// quoteYAML quotes what would not be plain text in a list of YAML.
func quoteYAML(s string) string {
	if strings.ContainsAny(s, " ,:#[]{}\"'") {
		return "\"" + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + "\""
	}
	return s
}

// open tells whether the finding keeps the plan from being made.
func (f Finding) open() bool { return f.Severity == FindingBlocking && f.Accepted == "" }

// A detector looks at the facts for one kind of trouble. It is pure; what it
// needs of the world stands in Facts.
type detector func(cfg *Config, f *Facts, now time.Time) []Finding

// found collects findings.
type found []Finding

func (l *found) add(severity, id, object, remedy, format string, args ...any) {
	*l = append(*l, Finding{ID: id, Severity: severity, Object: object, Evidence: fmt.Sprintf(format, args...), Remedy: remedy})
}

// detectors are all of them, in the order of the procedure.
func detectors() []detector {
	return []detector{
		detectInstance, detectEvents, detectClone, detectQuotas, detectAdopted, detectHost, detectServices, detectRestart, detectUnits, detectOrder, detectDocker, detectInventory, // what BuildPlan cannot do without
		detectNginx, detectBalancers, detectPaths, detectInbound, detectFloating, detectOutbound, detectTrust, // traffic
		detectDisks, detectMounts, detectCrypt, detectState, // disks
		detectTwice, detectDouble, detectCloudInit, detectNetwork, detectCertificates, detectTime, // the first boot of the copy
		detectListeners,
		detectOS, // the operating system
		detectWindow, detectSystemDisk,
	}
}

// Detect runs every detector on the facts, the blocking findings first. It is
// pure: now is the time of the plan. What the configuration accepts is marked.
func Detect(cfg *Config, f *Facts, now time.Time) []Finding {
	all := []Finding{}
	for _, d := range detectors() {
		for _, x := range d(cfg, f, now) {
			x.Accepted = cfg.accepts(x)
			if !slices.Contains(all, x) {
				all = append(all, x)
			}
		}
	}
	rank := func(f Finding) int {
		return slices.Index([]string{FindingBlocking, FindingWarning, FindingInfo}, f.Severity)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return rank(a) - rank(b) })
	return all
}

// accepts gives the entry of the configuration that takes the finding on, ""
// if there is none or it cannot be taken on.
func (c *Config) accepts(f Finding) string {
	if f.Severity != FindingBlocking || !acceptable(f.ID) {
		return ""
	}
	for _, a := range c.Accept {
		if a == f.ID || a == f.entry() {
			return a
		}
	}
	if (isPath(f.ID) || isTrust(f.ID)) && slices.Contains(c.Paths.Accept, f.Object) {
		return f.Object
	}
	if isState(f.ID) && c.State != "" {
		return "state: " + c.State
	}
	return ""
}

func isPath(id string) bool  { return strings.HasPrefix(id, "path-") }
func isTrust(id string) bool { return strings.HasPrefix(id, "trust-") }
func isState(id string) bool { return strings.HasPrefix(id, "state-") }

// A findingKind is an ID that a finding can have.
type findingKind struct {
	id string
	// hard: the procedure would not get to its end, so nobody can take it on.
	hard bool
}

// findingKinds are all IDs, in the order of docs/preflight.md. Never written to.
var findingKinds = []findingKind{
	// The host, the copy, the files.
	{"instance-status", true}, {"instance-expiry", false}, {"instance-release", false}, {"instance-event", false}, {"wrong-host", true},
	{"clone-refused", true}, {"clone-stock", true}, {"clone-unasked", false}, {"snapshot-running", false},
	{"clone-status", true}, {"clone-locked", true}, {"clone-windows", true}, {"clone-local-disk", true}, {"clone-multi-attach", true},
	{"clone-disk-status", true}, {"clone-system-disk", true}, {"clone-disks", true},
	{"clone-secondary-eni", false}, {"clone-secondary-ip", false}, {"clone-ipv6", false}, {"clone-hpc-cluster", false},
	{"clone-encrypted-disk", false}, {"clone-prepaid", false}, {"clone-spot", false}, {"clone-eip", false}, {"clone-public-ip", false},
	{"clone-user-data", false}, {"clone-dedicated-host", false}, {"clone-deployment-set", false}, {"clone-key-pair", false},
	{"quota-vcpu", false}, {"quota-security-group", false}, {"quota-address", false}, {"quota-snapshot", true},
	{"adopted-unfit", true},
	{"service-down", true}, {"service-missing", true}, {"service-twice", true}, {"service-unlisted", true}, {"service-unowned", true}, {"service-restart", true}, {"unit-disabled", false}, {"service-order", false}, {"docker-refused", true}, {"docker-warning", false}, {"inventory-gap", true},
	// Traffic.
	{"nginx-edit", true}, {"nginx-mark", true}, {"nginx-port", true}, {"nginx-uncertain", true},
	{"balancer-managed", true}, {"balancer-protected", true}, {"balancer-locked", true}, {"balancer-primary-secondary", true}, {"balancer-scheduler", true},
	{"balancer-sticky", false}, {"balancer-udp-lag", false}, {"balancer-no-health-check", false}, {"balancer-port", true}, {"balancer-alone", false}, {"balancer-full", true}, {"balancer-sick", false},
	{"path-public-ip", false}, {"path-eip", false}, {"path-dnat", false}, {"path-havip", false}, {"path-route", false},
	{"path-scaling-group", false}, {"path-cluster-node", false}, {"path-domain", false}, {"path-not-checked", false},
	{"inbound-direct", false}, {"inbound-other-port", false}, {"floating-daemon", false}, {"floating-address", false}, {"cluster-member", false},
	{"outbound-trust", false}, {"outbound-other", false},
	{"trust-allow-list", false}, {"trust-security-group", false}, {"trust-not-checked", false},
	// Disks.
	{"disk-spread", false}, {"disk-moments", false}, {"disk-crash-consistent", false},
	{"mount-network", false}, {"mount-device", false}, {"mount-no-fail", false}, {"swap-device", false}, {"disk-full", false}, {"disk-crypt", false},
	{"state-process", false}, {"state-volume", false}, {"state-file", false},
	// The first boot of the copy.
	{"twice-cron", false}, {"twice-timer", false}, {"twice-agent", false}, {"twice-consumer", false}, {"twice-registry", false}, {"twice-identity", false}, {"twice-executor", false}, {"quarantine-cloud-init", false},
	{"net-listen", false}, {"net-argument", false}, {"net-firewall", false}, {"net-hosts", false}, {"net-hwaddr", false}, {"net-static", false},
	{"certificate-address", false}, {"certificate-expiry", false}, {"time-sync", false}, {"time-skew", false},
	{"listener-unlisted", false},
	// The operating system: what hostos.Assess finds.
	{"os-strategy", true}, {"os-unfinished-transaction", true}, {"os-broken-dependency", true}, {"os-unavailable", true}, {"os-skipped-kernel", true},
	{"os-dead-mirror", true}, {"os-ignored-repository", false}, {"os-skipped-packages", false}, {"os-no-security-updates", false}, {"os-nothing-to-do", false}, {"os-no-kernel", false},
	{"os-exclude", false}, {"os-space", false}, {"os-grub-default", false}, {"os-module", false}, {"os-fstab", false},
	// When.
	{"window-none", true}, {"window-next", false},
	// The system disk, where production gets a new one.
	{"disk-replace", true}, {"disk-written", false}, {"disk-policy", false}, {"disk-logs", false},
}

// FindingIDs lists the IDs that findings can have.
func FindingIDs() []string {
	out := make([]string, len(findingKinds))
	for i, k := range findingKinds {
		out[i] = k.id
	}
	return out
}

func findKind(id string) (findingKind, bool) {
	i := slices.IndexFunc(findingKinds, func(k findingKind) bool { return k.id == id })
	if i < 0 {
		return findingKind{}, false
	}
	return findingKinds[i], true
}

// acceptable tells whether a person can take findings of this ID on.
func acceptable(id string) bool {
	k, ok := findKind(id)
	return ok && !k.hard
}

// acceptCheck says what is wrong with an entry of accept.
func acceptCheck(s string) string {
	id, _, _ := strings.Cut(s, ":")
	switch k, ok := findKind(id); {
	case !ok:
		return "begins with no ID of a finding" + cmp.Or(nearest(id, FindingIDs()), "; docs/preflight.md lists them")
	case k.hard:
		return "cannot be accepted: the procedure would not get to its end"
	}
	return ""
}

// blockers gives the text of every finding that keeps the plan from being made.
func blockers(all []Finding) (out []string) {
	for _, f := range all {
		if f.open() {
			out = append(out, f.Text())
		}
	}
	return out
}

// findingsText prints findings for people, one or two lines each; what is only
// to be known comes without its remedy.
func findingsText(all []Finding) string {
	var b strings.Builder
	for _, f := range all {
		mark := f.Severity
		if f.Accepted != "" {
			mark = "accepted"
		}
		fmt.Fprintf(&b, "%-9s %s: %s\n", mark, f.entry(), f.Evidence)
		if f.Accepted != "" {
			fmt.Fprintf(&b, "%-9s by %q\n", "", f.Accepted)
		} else if f.Remedy != "" && f.Severity != FindingInfo {
			fmt.Fprintf(&b, "%-9s %s\n", "", f.Remedy)
		}
	}
	return b.String()
}
