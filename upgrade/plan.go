package upgrade

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// planFormat names the form of plan.json.
const planFormat = "upgradectl-plan/1"

// Facts is what Discover read of the world: everything a plan rests on.
type Facts struct {
	Instance    ecs.Instance       `json:"instance"`
	Disks       []ecs.Disk         `json:"disks"`
	Boot        hostos.Boot        `json:"boot"`
	HasDocker   bool               `json:"has_docker"`
	Inventory   *hostinv.Inventory `json:"inventory"`
	Nginx       []NginxFacts       `json:"nginx"`
	Memberships []slb.Membership   `json:"memberships"`
	Direct      []string           `json:"direct"`            // peers that reach the host past nginx and the balancers
	Script      string             `json:"script,omitempty"`  // content of os.script
	Adopted     *ecs.Instance      `json:"adopted,omitempty"` // transition.instance

	// What is known of the copy before it is made; not of an adopted host.
	Blockers []ecs.Blocker `json:"blockers,omitempty"` // what a copy will not have, or why it cannot be made
	Stock    *ecs.Stock    `json:"stock,omitempty"`
	Price    *ecs.Price    `json:"price,omitempty"`
	NoClone  string        `json:"no_clone,omitempty"` // why the cloud would refuse to make it
	Unasked  []string      `json:"unasked,omitempty"`  // what could not be asked about it, and why

	Paths      []slb.PathFinding    `json:"paths,omitempty"`      // ways to the host past the balancers
	Forwarding []slb.ForwardingItem `json:"forwarding,omitempty"` // domains that have to be moved behind one

	Rebuild *RebuildFacts `json:"rebuild,omitempty"` // of a rebuild, and nothing else then

	AdoptedServes []string `json:"adopted_serves,omitempty"` // what leads to it already
	Unhealthy     string   `json:"unhealthy,omitempty"`      // which service does not answer, and to whom
	Elsewhere     string   `json:"elsewhere,omitempty"`      // why the SSH target is not the instance
}

// NginxFacts is what the nginx files of one host say about the production
// host.
type NginxFacts struct {
	Host  string            `json:"host"`
	Conf  string            `json:"conf"`
	Files map[string]string `json:"files"` // every file nginx reads: SHA-256, hex
	Refs  []nginx.Ref       `json:"refs"`  // references to the production host

	// The edits of 3.9 and 4.2, tried out with a name in the place of the
	// transition host's address, which is not known yet.
	Add     string `json:"add,omitempty"`     // unified diff
	Drain   string `json:"drain,omitempty"`   // unified diff, on top of Add
	Refusal string `json:"refusal,omitempty"` // why they cannot be made
}

// live counts those that nginx sends requests to in ordinary times.
func (n NginxFacts) live() (c int) {
	for _, r := range n.Refs {
		if r.Kind == nginx.KindServer && r.Certain && !r.Has("down") && !r.Has("backup") {
			c++
		}
	}
	return c
}

// A Plan says what a run will do, on which facts, step by step. It holds no
// secret. Its hash is that of its bytes: approvals and runs are bound to it.
type Plan struct {
	Format    string     `json:"format"`
	Procedure string     `json:"procedure"`
	Host      string     `json:"host"`
	Created   time.Time  `json:"created"`
	Version   string     `json:"version"` // of the tool that made it
	Config    Config     `json:"config"`
	Facts     Facts      `json:"facts"`
	Steps     []PlanStep `json:"steps"`
}

// A PlanStep is what a person reviews of one step.
type PlanStep struct {
	ID      string   `json:"id"`
	Section string   `json:"section"` // of docs/transition.md
	Title   string   `json:"title"`
	Effect  string   `json:"effect"`
	Gate    string   `json:"gate,omitempty"`
	Pivot   bool     `json:"pivot,omitempty"`
	Signed  int      `json:"signed,omitempty"` // how many signed approvals its gate needs
	Lines   []string `json:"lines,omitempty"`  // API calls, commands, diffs
}

// BuildPlan makes the plan for cfg from facts. It is pure. What speaks
// against the upgrade comes all at once as a *RefusedError.
func BuildPlan(cfg *Config, f *Facts, now time.Time, version string) (*Plan, error) {
	var reasons []string
	if cfg.Procedure == ProcedureRebuild {
		reasons = f.Rebuild.Problems
	} else {
		reasons = refusals(cfg, f)
	}
	if len(reasons) > 0 {
		return nil, &RefusedError{Host: cfg.Host, Reasons: reasons}
	}
	p := &Plan{
		Format:    planFormat,
		Procedure: cfg.Procedure,
		Host:      cfg.Host,
		Created:   now.UTC().Truncate(time.Second),
		Version:   version,
		Config:    *cfg,
		Facts:     *f,
	}
	for _, s := range p.steps(nil) {
		p.Steps = append(p.Steps, PlanStep{ID: s.ID, Section: s.Section, Title: s.Title, Effect: string(s.Effect), Gate: s.Gate, Pivot: s.Pivot, Signed: s.Approvers, Lines: s.Lines})
	}
	return p, nil
}

// JSON gives the plan as it is stored; its SHA-256 is the plan's hash.
func (p *Plan) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("internal error: plan of %s: %w", p.Host, err)
	}
	return append(b, '\n'), nil
}

// HasStep tells whether the plan has a step of that ID.
func (p *Plan) HasStep(id string) bool {
	return slices.ContainsFunc(p.Steps, func(s PlanStep) bool { return s.ID == id })
}

// PlanHash gives the hash of a stored plan, hex.
func PlanHash(stored []byte) string {
	h := sha256.Sum256(stored)
	return hex.EncodeToString(h[:])
}

// oldInventory names the host whose inventory in a stored plan has schema 1,
// which does not have the form of an Inventory; "" when there is none.
func oldInventory(stored []byte) string {
	type inventory struct {
		Schema int `json:"schema"`
	}
	var p struct {
		Host  string `json:"host"`
		Facts struct {
			Inventory inventory `json:"inventory"`
			Rebuild   struct {
				Nodes []struct {
					Name      string    `json:"name"`
					Inventory inventory `json:"inventory"`
				} `json:"nodes"`
			} `json:"rebuild"`
		} `json:"facts"`
	}
	if json.Unmarshal(stored, &p) != nil {
		return "" // ParsePlan says why
	}
	if p.Facts.Inventory.Schema == 1 {
		return p.Host
	}
	for _, n := range p.Facts.Rebuild.Nodes {
		if n.Inventory.Schema == 1 {
			return n.Name
		}
	}
	return ""
}

// ParsePlan reads a stored plan. It refuses one of another format.
func ParsePlan(stored []byte) (*Plan, error) {
	if name := oldInventory(stored); name != "" {
		return nil, fmt.Errorf("cannot read the plan: its inventory of %s was taken by an older version (schema 1), which recorded less; make a new plan", name)
	}
	var p Plan
	if err := json.Unmarshal(stored, &p); err != nil {
		return nil, fmt.Errorf("cannot read the plan: %w", err)
	}
	if p.Format != planFormat {
		return nil, fmt.Errorf("cannot read the plan: its format is %q, this program reads %q", p.Format, planFormat)
	}
	switch {
	case p.Procedure == ProcedureRebuild:
		if p.Config.Rebuild == nil || p.Facts.Rebuild == nil || len(p.Facts.Rebuild.Nodes) == 0 {
			return nil, errors.New("cannot read the plan: it names no nodes")
		}
	case p.Procedure != ProcedureTransition:
		return nil, fmt.Errorf("cannot read the plan: unknown procedure %q", p.Procedure)
	case p.Facts.Inventory == nil:
		return nil, errors.New("cannot read the plan: it holds no inventory")
	}
	return &p, nil
}

// Text prints the plan for review.
func (p *Plan) Text() string {
	var b strings.Builder
	if p.Procedure == ProcedureRebuild {
		fmt.Fprintf(&b, "Rebuild of %s from firstbox %s (installer %s)\n", strings.Join(newRebuild(p, nil).names(), ", "), p.Host, p.Facts.Rebuild.Installer)
	} else {
		fmt.Fprintf(&b, "Transition upgrade of %s (%s, %s, %s)\n", p.Host, p.Facts.Instance.ID, p.Facts.Boot.Release, p.Facts.Boot.Kernel)
	}
	pivot := false
	for _, s := range p.Steps {
		b.WriteByte('\n')
		if s.Gate != "" {
			signed := ""
			if s.Signed > 0 {
				signed = fmt.Sprintf(" (%d signed approvals)", s.Signed)
			}
			fmt.Fprintf(&b, "--- gate before %s%s: %s\n", s.Section, signed, s.Gate)
		}
		if s.Pivot && !pivot {
			pivot = true
			b.WriteString("=== pivot: from here on a run can be parked, not rolled back\n")
		}
		fmt.Fprintf(&b, "%-17s %s [%s]\n", s.ID, s.Title, s.Effect)
		for _, l := range s.Lines {
			for _, part := range strings.Split(strings.TrimRight(l, "\n"), "\n") {
				fmt.Fprintf(&b, "    %s\n", part)
			}
		}
	}
	return b.String()
}

// releaseTag on an instance, with the value yes, lets a run release an
// instance that it did not make.
const releaseTag = "upgradectl:release"

// refusals lists everything in the facts that the procedure cannot handle or
// that the configuration forgot.
func refusals(cfg *Config, f *Facts) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }

	if f.Instance.Status != "Running" {
		say("instance %s is %s, not Running", f.Instance.ID, f.Instance.Status)
	}
	for _, b := range f.Blockers {
		if b.Blocking {
			say("a copy of the host cannot be made: %s: %s; %s", b.Object, b.Reason, b.Remedy)
		}
	}
	if f.NoClone != "" {
		say("the cloud would not make the transition host: %s", f.NoClone)
	}
	if f.Stock != nil && !f.Stock.Available {
		say("zone %s has no %s left (%s); wait, or adopt a host of your own by transition.instance", f.Stock.Zone, f.Stock.Type, cmp.Or(f.Stock.Category, "not offered there"))
	}
	if f.Elsewhere != "" {
		say("%s", f.Elsewhere)
	}
	if f.Unhealthy != "" {
		say("before anything begins: %s", f.Unhealthy)
	}
	dirs := map[string]string{}
	for _, s := range cfg.Services {
		if s.Kind != KindJava {
			continue
		}
		if other := dirs[s.Dir]; other != "" {
			say("services %s and %s have the same directory %s; they could not be told apart", other, s.Name, s.Dir)
		}
		dirs[s.Dir] = s.Name
	}
	out = append(out, checkContainers(f.Inventory, cfg.Services)...)
	out = append(out, checkJava(f.Inventory, cfg.Services)...)
	out = append(out, checkPorts(f.Inventory, cfg.Services)...)

	// Past the pivot is too late to learn that 4.5-compare cannot compare: what
	// an inventory lacks, it lacks against itself too.
	for _, l := range hostinv.Diff(f.Inventory, f.Inventory, hostinv.Expect{}).Losses() {
		sec := f.Inventory.Sections[l.Area]
		say("the inventory of %s lacks %s (%s), so that a loss there would not be seen: %s", cfg.Host, l.Area, l.Before, cmp.Or(sec.Message, "log in as root, or see why with: upgradectl inventory collect"))
	}

	for _, n := range f.Nginx {
		if n.Refusal != "" {
			say("%s: %s", n.Host, n.Refusal)
		}
		for _, r := range n.Refs {
			switch {
			case r.Kind == nginx.KindOff || r.Tag != "":
				say("%s: %s:%d carries a mark of an earlier run (%s); restore it first", n.Host, r.File, r.Line, r.Tag)
			case r.Kind == nginx.KindComment || r.Kind == nginx.KindMention:
				// No traffic follows it; section 2.5 shows it.
			case r.Port == 0 || !servesPort(cfg, r.Port):
				say("%s: %s:%d leads to port %d of the host, which no service names; its health and silence could not be proved", n.Host, r.File, r.Line, r.Port)
			case !r.Certain:
				say("%s: %s:%d refers to %s in a way that cannot be decided (%s); move it by hand first", n.Host, r.File, r.Line, cfg.Address, r.Reason)
			}
		}
	}
	for _, p := range f.Paths {
		switch {
		case p.Severity != slb.SeverityBlock || slices.Contains(cfg.Paths.Accept, p.ID):
		case movable(f.Forwarding, p):
			// 2.7-domains waits for it to be moved.
		default:
			say("%s %s: %s; %s (or, when it does not matter, list it in paths.accept)", p.Kind, p.ID, p.Evidence, p.Remedy)
		}
	}
	if a := f.Adopted; a != nil {
		switch {
		case a.ID == f.Instance.ID:
			say("transition.instance %s is the production host itself", a.ID)
		case a.Status != "Running":
			say("transition.instance %s is %s, not Running", a.ID, a.Status)
		case !a.AutoReleaseTime.IsZero():
			say("transition.instance %s is released by itself at %s; take its release time away first", a.ID, a.AutoReleaseTime.Format(time.RFC3339))
		case len(f.AdoptedServes) > 0:
			say("transition.instance %s serves already, and upgrading it would be noticed: %s", a.ID, strings.Join(f.AdoptedServes, "; "))
		case cfg.Transition.ReleaseAdopted && a.Tags[releaseTag] != "yes":
			say("transition.release_adopted: instance %s may be released only if it carries the tag %s=yes", a.ID, releaseTag)
		}
	}
	for _, m := range f.Memberships {
		for _, f := range m.Findings() {
			if f.Blocking {
				say("%s: %s; %s", f.Where, f.Detail, f.Remedy)
			}
		}
		if m.Managed || m.MasterSlaveGroupID != "" {
			continue
		}
		for _, l := range m.Listeners {
			if port := cmp.Or(m.Backend.Port, l.BackendPort); !servesPort(cfg, port) {
				say("%s listener %d leads to port %d of the host, which no service names; its health and silence could not be proved", m.LoadBalancerID, l.Port, port)
			}
		}
	}
	return out
}

// checkContainers compares the running containers with the services.
func checkContainers(inv *hostinv.Inventory, services []Service) (out []string) {
	covered := map[string]bool{}
	for _, s := range services {
		found := false
		for _, c := range inv.Containers {
			if s.Kind == string(hostos.Container) && c.Name == s.Container || s.Kind == string(hostos.Compose) && c.Compose.Dir == s.Dir {
				found = true
				covered[c.Name] = true
			}
		}
		if !found && (s.Kind == string(hostos.Container) || s.Kind == string(hostos.Compose)) {
			out = append(out, fmt.Sprintf("service %s: no container of it is on the host", s.Name))
		}
	}
	for _, c := range inv.Containers {
		if c.State == "running" && !covered[c.Name] {
			out = append(out, fmt.Sprintf("container %s runs but no service names it; it would not be proved after the upgrade", c.Name))
		}
	}
	return out
}

// checkJava compares the Java processes of the host itself with the services.
func checkJava(inv *hostinv.Inventory, services []Service) (out []string) {
	for _, s := range services {
		if s.Kind == string(hostos.Java) && !slices.ContainsFunc(inv.Java, func(j hostinv.Java) bool { return j.Cwd == s.Dir }) {
			out = append(out, fmt.Sprintf("service %s: no java process runs in %s", s.Name, s.Dir))
		}
	}
	for _, j := range inv.Java {
		if j.Container != "" {
			continue
		}
		if !slices.ContainsFunc(services, func(s Service) bool {
			return s.Kind == string(hostos.Java) && s.Dir == j.Cwd || s.Kind == string(hostos.Unit)
		}) {
			out = append(out, fmt.Sprintf("a java process runs in %s but no service names that directory; it would not be started again", j.Cwd))
		}
	}
	return out
}

// checkPorts sees that every port of a service is served now: a port that is
// mute before the upgrade cannot prove anything after it.
func checkPorts(inv *hostinv.Inventory, services []Service) (out []string) {
	for _, s := range services {
		for _, port := range s.Ports {
			listens := slices.ContainsFunc(inv.Listeners, func(l hostinv.Listener) bool { return l.Port == port && strings.HasPrefix(l.Proto, "tcp") })
			published := slices.ContainsFunc(inv.Containers, func(c hostinv.Container) bool {
				return slices.ContainsFunc(c.Ports, func(p hostinv.Port) bool { return p.HostPort == port })
			})
			if !listens && !published {
				out = append(out, fmt.Sprintf("service %s: nothing listens on port %d", s.Name, port))
			}
		}
	}
	return out
}
