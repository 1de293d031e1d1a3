package engine

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Approval is what Options.CheckApproval found in a signed approval.
type Approval struct {
	Run      string    `json:"run"`
	PlanHash string    `json:"plan_hash"`
	Step     string    `json:"step"`
	Attempt  int       `json:"attempt"` // that the intent behind the gate will have
	By       string    `json:"by"`      // who signed, as the list of approvers names him
	Key      string    `json:"key"`     // fingerprint of the key
	Head     string    `json:"head"`    // of the journal that the approver has seen
	Expires  time.Time `json:"expires"`
}

// approval is one that was taken, with what was signed.
type approval struct {
	Approval
	seq int
}

// takeApproval records a checked approval, or why it is refused.
func (l *loop) takeApproval(w waiting, b body) error {
	a, err := l.checkApproval(w.q.Approval)
	if err != nil {
		b.Refused = err.Error()
		return l.record(kindOperator, nil, b, "approval refused: "+b.Refused)
	}
	b.Approval, b.Signed = &a, w.q.Approval
	s := &l.steps[l.index(a.Step)]
	return l.record(kindApproval, s, b, fmt.Sprintf("by %s until %s", a.By, a.Expires.UTC().Format(time.RFC3339)))
}

// TakeApprovals makes records of the approvals that wait while no procedure
// runs, and says why others are refused.
func (r *Run) TakeApprovals(steps []Step, check func(signed json.RawMessage) (Approval, error)) (refused []string, err error) {
	if !r.busy.TryLock() {
		return nil, ErrBusy
	}
	defer r.busy.Unlock()
	if err := r.CheckMachine(); err != nil {
		return nil, err
	}
	l := &loop{r: r, steps: steps, o: Options{CheckApproval: check}}
	for _, w := range requests(r.dir, r.header) {
		if w.refused != "" || w.q.Kind != RequestApprove {
			continue // for the next process
		}
		before := len(r.fold.notes)
		if err := l.takeOne(w); err != nil {
			return refused, err
		}
		for _, n := range r.fold.notes[before:] {
			refused = append(refused, n.Refused)
		}
	}
	return refused, nil
}

// checkApproval tells whether an approval counts for the next attempt of its
// gate.
func (l *loop) checkApproval(signed json.RawMessage) (Approval, error) {
	if l.o.CheckApproval == nil {
		return Approval{}, errors.New("this run has no list of approvers")
	}
	a, err := l.o.CheckApproval(signed)
	if err != nil {
		return Approval{}, err
	}
	i := l.index(a.Step)
	switch {
	case a.Run != l.r.header.Run:
		return a, fmt.Errorf("it is for run %q", a.Run)
	case a.PlanHash != l.r.header.PlanHash:
		return a, fmt.Errorf("it is for another plan (%.12s…)", a.PlanHash)
	case i < 0 || l.steps[i].Gate == "" || l.steps[i].Approvers == 0:
		return a, fmt.Errorf("step %q has no gate that takes approvals", a.Step)
	}
	st := l.r.fold.get(a.Step)
	switch {
	case st.ApprovedBy != "" || st.done || st.open:
		return a, fmt.Errorf("the gate before %s is passed", a.Step)
	case a.Attempt != st.next():
		return a, fmt.Errorf("it is for attempt %d of %s, the next one is %d", a.Attempt, a.Step, st.next())
	case !time.Now().Before(a.Expires):
		return a, fmt.Errorf("it expired at %s", a.Expires.UTC().Format(time.RFC3339))
	}
	if known, err := hasHead(l.r.dir, a.Head); err != nil || !known {
		return a, errors.Join(errors.New("the journal that the approver has seen is not this one"), err)
	}
	if l.steps[i].FourEyes {
		if who, ok := l.operated(a.By); ok {
			return a, fmt.Errorf("%s approved and works on the run as %s: another person has to approve", a.By, who)
		}
	}
	return a, nil
}

// operated tells whether an approver is one of those who work or worked on the
// run, under the name they gave or under that of the operating system.
func (l *loop) operated(by string) (string, bool) {
	all := slices.Clone(l.r.fold.operators)
	if l.o.Actor != "" { // who only hands approvals in does not work on it
		all = append(all, l.o.Actor, l.r.origin.User)
	}
	i := slices.IndexFunc(all, func(who string) bool { return samePerson(by, who) })
	if i < 0 {
		return "", false
	}
	return all[i], true
}

// samePerson compares a name such as li@example.com with one such as li.
func samePerson(a, b string) bool {
	local := func(s string) string { s, _, _ = strings.Cut(s, "@"); return s }
	return a != "" && b != "" && (strings.EqualFold(a, b) || strings.EqualFold(local(a), local(b)))
}

// counted are the approvals of the gate of s that count now, one of a person.
func (l *loop) counted(s *Step) (by []string) {
	for _, a := range l.r.fold.get(s.ID).approvals {
		_, same := l.operated(a.By)
		if time.Now().Before(a.Expires) && !(s.FourEyes && same) &&
			!slices.ContainsFunc(by, func(who string) bool { return samePerson(who, a.By) }) {
			by = append(by, a.By)
		}
	}
	return by
}

// gate asks at the gate of a step. It returns how the run stands when it has
// to wait.
func (l *loop) gate(s *Step) (*Outcome, error) {
	st := l.r.fold.get(s.ID)
	if s.Gate == "" || st.ApprovedBy != "" {
		return nil, nil
	}
	if !st.asked {
		if err := l.record(kindGate, s, body{Section: s.Section, Title: s.Title, Reason: s.Gate, Approvers: s.Approvers}, s.Gate); err != nil {
			return nil, err
		}
	}
	if s.Approvers == 0 {
		return l.paused(s, waitingFor+s.Gate)
	}
	by := l.counted(s)
	names := strings.Join(by, ", ")
	if len(by) < s.Approvers {
		return l.paused(s, fmt.Sprintf("%s%s (%d of %d: %s)", waitingFor, s.Gate, len(by), s.Approvers, cmp.Or(names, "nobody yet")))
	}
	return nil, l.record(kindApproved, s, body{Section: s.Section, Title: s.Title, Actor: names}, "by "+names)
}

// waitingFor begins the reason of a run that is paused at a gate.
const waitingFor = "waiting for approval: "
