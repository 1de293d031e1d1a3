package upgrade

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// A Report is what a run directory tells: nothing else is asked. It holds no
// before-image and no content of a blob.
type Report struct {
	Run           string        `json:"run"`
	Host          string        `json:"host"`
	Procedure     string        `json:"procedure"`
	State         string        `json:"state"`
	Live          bool          `json:"live"` // a process works on it now
	Step          string        `json:"step,omitempty"`
	Reason        string        `json:"reason,omitempty"`
	Work          []string      `json:"work,omitempty"` // left by an incomplete rollback
	Created       time.Time     `json:"created"`
	Updated       time.Time     `json:"updated"`
	KernelBefore  string        `json:"kernel_before,omitempty"`
	KernelAfter   string        `json:"kernel_after,omitempty"`
	ReleaseBefore string        `json:"release_before,omitempty"`
	ReleaseAfter  string        `json:"release_after,omitempty"`
	Transition    string        `json:"transition,omitempty"` // instance and address of the transition host
	KeptSnapshots []string      `json:"kept_snapshots,omitempty"`
	Nodes         []RebuiltNode `json:"nodes,omitempty"`  // of a rebuild
	Health        []GateReport  `json:"health,omitempty"` // the automatic gates that have spoken
	PlanHash      string        `json:"plan_hash"`
	JournalHead   string        `json:"journal_head"`        // names the whole history
	Gate          bool          `json:"gate,omitempty"`      // paused for an approval
	Approvals     string        `json:"approvals,omitempty"` // at a gate that takes signatures
	Requests      []string      `json:"requests,omitempty"`  // of operators, not taken yet
	Notes         []string      `json:"notes,omitempty"`     // what operators did and asked for
	Warnings      []string      `json:"warnings,omitempty"`  // by the clock of whoever reads
	Ways          []engine.Way  `json:"ways"`                // what is legal now
	Findings      []Finding     `json:"findings,omitempty"`  // of the plan, those that were taken on among them
	Steps         []ReportStep  `json:"steps"`
}

// A ReportStep is one step of a run.
type ReportStep struct {
	ID       string        `json:"id"`
	Title    string        `json:"title"`
	State    string        `json:"state"`
	Reason   string        `json:"reason,omitempty"`
	Attempt  int           `json:"attempt,omitempty"`
	Adopted  bool          `json:"adopted,omitempty"`
	Approved string        `json:"approved_by,omitempty"`
	Started  time.Time     `json:"started,omitzero"`
	Took     time.Duration `json:"took_ns,omitempty"`
}

// A GateReport is what an automatic gate found when it let the run go on. What
// one found that did not is in the blob that the step's reason names.
type GateReport struct {
	Step     string    `json:"step"`
	Verdict  Verdict   `json:"verdict"`
	Readings []Reading `json:"readings"`
}

// ReadReport makes the report of the run in dir.
func ReadReport(dir string) (*Report, error) {
	h, err := engine.Read(dir)
	if err != nil {
		return nil, err
	}
	p, err := ParsePlan(h.Plan)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Run: h.Run, Host: h.Host, Procedure: h.Procedure, State: string(h.State), Live: h.Live, Step: h.Step, Reason: h.Reason, Work: h.Work,
		Created: h.Created, PlanHash: h.PlanHash, JournalHead: h.Head,
		KernelBefore: p.Facts.Boot.Kernel, ReleaseBefore: p.Facts.Boot.Release, Findings: p.Findings,
	}
	if f := p.Facts.Rebuild; f != nil {
		r.Nodes = reportNodes(p, f, h)
	}
	r.Updated = h.Updated
	r.Gate = atGate(h, h.State, h.Step, h.Reason)
	r.Approvals, r.Ways = gateWaits(h, h.Step), h.Ways()
	for _, q := range h.Waiting {
		r.Requests = append(r.Requests, strings.TrimSpace(fmt.Sprintf("%s by %s (%s) %s", q.Kind, q.Actor, q.Origin, q.Reason)))
	}
	if len(h.ClockBack) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("the clock was set back before record %v: times and durations around it are wrong, the order is not", h.ClockBack))
	}
	for _, n := range h.Notes {
		r.Notes = append(r.Notes, noteText(n))
	}
	if w := p.waiting(h, time.Now()); w != "" && r.Reason == "" {
		r.Reason = w
	}
	if w := p.renewal(h, time.Now()); w != "" {
		r.Warnings = append(r.Warnings, w)
	}
	for _, ps := range p.Steps {
		s := h.StepByID(ps.ID)
		rs := ReportStep{ID: ps.ID, Title: ps.Title, State: string(s.State), Reason: s.Reason, Attempt: s.Attempt, Adopted: s.Adopted, Approved: s.ApprovedBy, Started: s.Started}
		if !s.Ended.IsZero() && !s.Started.IsZero() {
			rs.Took = s.Ended.Sub(s.Started)
		}
		// A run that was killed, or is at work, has nobody who said where.
		if r.Step == "" && (s.State == engine.StepRunning || s.State == engine.StepUndoing) {
			r.Step = ps.ID
		}
		r.Steps = append(r.Steps, rs)
	}
	var cmp compareResult
	if decode(h.StepByID("4.5-compare"), &cmp) {
		r.KernelAfter, r.ReleaseAfter = cmp.Inventory.Boot.Kernel, cmp.Inventory.Boot.Release
	}
	var c cloneFacts
	if decode(h.StepByID("3.4-addresses"), &c) {
		r.Transition = c.InstanceID + " " + c.PrivateIP
	}
	for _, id := range []string{"3.11-health", "4.8-health"} {
		var g HealthResult
		if decode(h.StepByID(id), &g) {
			r.Health = append(r.Health, GateReport{id, g.Verdict, g.Readings})
		}
	}
	var end endResult
	if decode(h.StepByID("5.3-verify"), &end) {
		r.KeptSnapshots = end.KeptSnapshots
	}
	return r, nil
}

// noteText is an operator's act in one line.
func noteText(n engine.Note) string {
	text := fmt.Sprintf("%s %s by %s (%s)", n.Time.UTC().Format(time.RFC3339), n.Act, n.Actor, n.Origin)
	if n.Object != "" {
		text += " of " + n.Object
	}
	for _, s := range []string{n.Reason, n.Text} {
		if s != "" {
			text += ": " + s
		}
	}
	if n.Refused != "" {
		text += "; refused: " + n.Refused
	}
	return text
}

// reportNodes says of every node what it was and, once it is known, what it is.
func reportNodes(p *Plan, f *RebuildFacts, h *engine.History) []RebuiltNode {
	var end rebuiltResult
	if decode(h.StepByID("9.3-verify"), &end) {
		return end.Nodes
	}
	var out []RebuiltNode
	for i, n := range f.Nodes {
		node := RebuiltNode{Name: n.Name, Address: n.Final, Host: n.OldHost, OldHost: n.OldHost, KernelBefore: n.Old.Boot.Kernel, ReleaseBefore: n.Old.Boot.Release}
		if m, ok := newRebuild(p, nil).switched(h, i); ok {
			node.Host, node.KernelAfter, node.ReleaseAfter = n.PhysicalHost, m.Boot.Kernel, m.Boot.Release
		}
		out = append(out, node)
	}
	return out
}

func decode(s engine.StepHistory, out any) bool {
	return s.State == engine.StepDone && len(s.Result) > 0 && json.Unmarshal(s.Result, out) == nil
}

// Counts sums the steps up by their state.
func (r *Report) Counts() map[string]int {
	out := map[string]int{}
	for _, s := range r.Steps {
		out[s.State]++
	}
	return out
}

// Summary is the report's head: how the run stands.
func (r *Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "run %s: %s of %s: %s", r.Run, r.Procedure, r.Host, r.State)
	if r.Live {
		b.WriteString(" (a process is at work)")
	}
	if r.Step != "" {
		fmt.Fprintf(&b, " at %s", r.Step)
	}
	b.WriteByte('\n')
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s\n", r.Reason)
	}
	for _, w := range r.Work {
		fmt.Fprintf(&b, "  left to do: %s\n", w)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "  warning: %s\n", w)
	}
	if r.Approvals != "" {
		fmt.Fprintf(&b, "  %s\n", r.Approvals)
	}
	for _, q := range r.Requests {
		fmt.Fprintf(&b, "  asked, not taken yet: %s\n", q)
	}
	c := r.Counts()
	fmt.Fprintf(&b, "  steps: %d done, %d not applicable, %d of %d to go\n", c["done"], c["skipped"], len(r.Steps)-c["done"]-c["skipped"], len(r.Steps))
	return b.String()
}

// Text prints the whole report.
func (r *Report) Text() string {
	var b strings.Builder
	b.WriteString(r.Summary())
	fmt.Fprintf(&b, "  began %s, last record %s\n", r.Created.Format(time.RFC3339), r.Updated.Format(time.RFC3339))
	for _, n := range r.Nodes {
		fmt.Fprintf(&b, "  %s %s on %s (was on %s): kernel %s → %s, release %s → %s\n", n.Name, n.Address, n.Host, n.OldHost, n.KernelBefore, orNone(n.KernelAfter), n.ReleaseBefore, orNone(n.ReleaseAfter))
		for _, f := range n.Backups {
			fmt.Fprintf(&b, "    kept on %s: %s\n", n.OldHost, f)
		}
	}
	if len(r.Nodes) == 0 {
		fmt.Fprintf(&b, "  kernel %s → %s\n  release %s → %s\n", r.KernelBefore, orNone(r.KernelAfter), r.ReleaseBefore, orNone(r.ReleaseAfter))
	}
	if r.Transition != "" {
		fmt.Fprintf(&b, "  transition host %s\n", r.Transition)
	}
	if len(r.KeptSnapshots) > 0 {
		fmt.Fprintf(&b, "  kept until their retention ends: %s\n", strings.Join(r.KeptSnapshots, ", "))
	}
	for _, g := range r.Health {
		n := 0
		for _, x := range g.Readings {
			n += x.Samples
		}
		fmt.Fprintf(&b, "  automatic gate %s: %s by %d readings of %d samples\n", g.Step, g.Verdict, len(g.Readings), n)
	}
	fmt.Fprintf(&b, "  plan %s\n  journal head %s\n", r.PlanHash, r.JournalHead)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	if text := findingsText(r.Findings); text != "" {
		b.WriteString("\nFound before it began:\n" + text)
	}
	b.WriteByte('\n')
	for _, s := range r.Steps {
		note := s.Reason
		if s.Adopted {
			note = strings.TrimSpace("found done after an interruption " + note)
		}
		if s.Approved != "" {
			note = strings.TrimSpace("approved by " + s.Approved + " " + note)
		}
		fmt.Fprintf(&b, "  %-11s %-18s %8s  %s", s.State, s.ID, s.Took.Round(time.Millisecond), s.Title)
		if note != "" {
			fmt.Fprintf(&b, " (%s)", note)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "(not yet)"
	}
	return s
}
