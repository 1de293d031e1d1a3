package upgrade

import (
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
	Direct      []string           `json:"direct"`             // peers that reach the host past nginx and the balancers
	Script      string             `json:"script,omitempty"`   // content of os.script
	Precheck    string             `json:"precheck,omitempty"` // content of os.precheck
	OS          *hostos.Assessment `json:"os,omitempty"`       // of production, by the strategy; nil in a plan of an older version

	Docker        *hostos.Docker `json:"docker,omitempty"`         // what production has of it, and runs in it
	DockerProfile string         `json:"docker_profile,omitempty"` // content of docker.profile, when that is a file

	Adopted *ecs.Instance `json:"adopted,omitempty"` // transition.instance

	// What is known of the copy before it is made; not of an adopted host.
	Blockers []ecs.Blocker `json:"blockers,omitempty"` // what a copy will not have, or why it cannot be made
	Stock    *ecs.Stock    `json:"stock,omitempty"`
	Price    *ecs.Price    `json:"price,omitempty"`
	NoClone  string        `json:"no_clone,omitempty"` // why the cloud would refuse to make it
	Unasked  []string      `json:"unasked,omitempty"`  // what could not be asked about it, and why

	Events  []ecs.SystemEvent  `json:"events,omitempty"`  // what the cloud has in store for the instance
	Quotas  []ecs.Quota        `json:"quotas,omitempty"`  // that the transition host has to fit into
	Trust   []ecs.TrustFinding `json:"trust,omitempty"`   // who lets production in by its address and not all of its vSwitch
	Sick    []SickMember       `json:"sick,omitempty"`    // other members that get no traffic although they should
	Restart []hostos.Kept      `json:"restart,omitempty"` // of services without a start command: what a restart would have

	Snapshotting []string   `json:"snapshotting,omitempty"` // snapshots of the disks that others are making
	Extra        *HostExtra `json:"extra,omitempty"`        // of the production host, besides its inventory

	Written []Written `json:"written,omitempty"` // to its system disk in the last day, where that is to be replaced
	Logs    int       `json:"logs,omitempty"`    // files of logs among that

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
	Findings  []Finding  `json:"findings,omitempty"` // of a transition; none of them is open
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
	var (
		reasons  []string
		findings []Finding
	)
	if cfg.Procedure == ProcedureRebuild {
		reasons = f.Rebuild.Problems
	} else {
		findings = Detect(cfg, f, now)
		reasons = blockers(findings)
	}
	if len(reasons) > 0 {
		return nil, &RefusedError{Host: cfg.Host, Reasons: reasons, Findings: findings}
	}
	p := &Plan{
		Format:    planFormat,
		Procedure: cfg.Procedure,
		Host:      cfg.Host,
		Created:   now.UTC().Truncate(time.Second),
		Version:   version,
		Config:    *cfg,
		Facts:     *f,
		Findings:  findings,
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
	if text := findingsText(p.Findings); text != "" {
		b.WriteString("\nFindings:\n" + text)
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
