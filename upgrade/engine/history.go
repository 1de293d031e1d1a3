package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A Record is one line of the journal.
type Record struct {
	Seq     int             `json:"seq"`
	Time    time.Time       `json:"time"` // for people only; logic uses Seq
	Kind    string          `json:"kind"`
	Step    string          `json:"step,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Key     string          `json:"key,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	Torn    int             `json:"torn,omitempty"` // bytes of a torn write that were cut before this record
	With    int             `json:"with,omitempty"` // how many records before this one became durable by the same fsync
	Prev    string          `json:"prev"`           // hex SHA-256 of the previous line without its newline
	Sum     string          `json:"sum"`            // first 16 hex digits of the SHA-256 of this line up to the comma before "sum"
}

// StepState is what the journal says about a step.
type StepState string

// The states of a step.
const (
	StepPending    StepState = "pending"
	StepRunning    StepState = "running" // it has an intent and no outcome
	StepDone       StepState = "done"
	StepSkipped    StepState = "skipped"
	StepFailed     StepState = "failed"
	StepUndoing    StepState = "undoing"
	StepUndone     StepState = "undone"
	StepUndoFailed StepState = "undo-failed"
)

// StepHistory is the folded state of one step. Raw values are nil when there
// are none.
type StepHistory struct {
	ID         string
	Section    string
	Title      string
	State      StepState
	Effect     Effect
	Pivot      bool
	Attempt    int    // of the last intent; 0 when there was none
	Key        string // of the last intent
	Adopted    bool   // the effect was found after a crash, not made again
	Reason     string // why it was skipped, failed or not undone, or what its gate asks
	ApprovedBy string
	Approvers  int        // that its gate wants, by signed approvals
	Approvals  []Approval // that were taken since it was last done or undone
	Started    time.Time  // of the last intent, or of the skip
	Ended      time.Time  // of the outcome; zero when there is none
	Params     json.RawMessage
	Before     json.RawMessage
	Result     json.RawMessage
	Evidence   json.RawMessage
	Lines      []string // exact commands and calls, as its Plan gave them
}

// History is what the journal of a run says.
type History struct {
	Header
	Created     time.Time
	Updated     time.Time // of the last record
	Plan        []byte    // plan.json
	State       RunState
	Step        string // the step the run stands at
	Reason      string
	Work        []string      // left by an incomplete rollback
	RollingBack bool          // a rollback was begun and is not finished
	Live        bool          // a process holds the lock now
	Holder      Holder        // the last known holder of the lock
	Torn        int           // bytes of a torn last write, not yet cut
	Count       int           // of the records; Records reads them
	Head        string        // hex SHA-256 of the last line: names the whole history
	PastReturn  string        // ID of an irreversible step that was begun: there is no rollback
	PastPivot   string        // ID of a pivot step that was begun: a rollback parks
	Origin      Origin        // of the last process
	ClockBack   []int         // records before which the clock was set back; only what people read is wrong
	Notes       []Note        // what people did and asked for
	Waiting     []Request     // not yet taken by a process
	Steps       []StepHistory // those the journal names, in order of first appearance
}

// Read reads the run in dir. It takes no lock and changes nothing. A run whose
// process is gone reads as interrupted, one that was never started as paused.
//
// With an error that is ErrDamaged, ErrVersion or ErrPlanChanged the history is
// not nil: it holds what could be read, for a person to look at, not to act on.
func Read(dir string) (*History, error) {
	live, holder := holderOf(dir) // before reading: who is gone by then writes nothing more
	f, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return nil, fmt.Errorf("%s is not a run: %w", dir, err)
	}
	defer f.Close() // only read
	plan, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read run %s: %w", dir, err)
	}
	h, err := history(f, plan, &dirStore{dir: dir})
	h.Live, h.Holder = live, holder
	if !h.Live && (h.State == Running || h.State == RollingBack) {
		if isHeld(dir) {
			return Read(dir) // a process has begun meanwhile
		}
		h.State, h.Reason = Interrupted, "the process that worked on it is gone"
		if h.Count == 1 {
			h.State, h.Reason = Paused, "created and not started yet"
		}
	}
	for _, w := range requests(dir, h.Header) {
		if w.refused == "" {
			h.Waiting = append(h.Waiting, w.q)
		}
	}
	if err != nil {
		return h, fmt.Errorf("cannot read run %s: %w", dir, err)
	}
	return h, nil
}

// history folds a journal; it always returns what could be read.
func history(journal io.Reader, plan []byte, s store) (*History, error) {
	h := &History{Plan: plan, State: Running}
	p, f := newParser(journal), newFold()
	var errs []error
	for {
		rec, err := p.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && rec.Seq == 1 {
			h.Header, err = headerOf(rec)
			if err == nil && h.PlanHash != PlanHash(plan) {
				errs = append(errs, ErrPlanChanged)
			}
		}
		if err == nil {
			err = f.add(rec)
		}
		if err != nil {
			errs = append(errs, err)
			break
		}
	}
	h.Count, h.Torn, h.Head = p.n, p.torn, p.head
	h.Created, h.Updated, h.PastReturn, h.PastPivot, h.Origin = f.created, f.last, f.irreversible, f.pivotStep, f.at
	h.Notes, h.ClockBack = f.notes, f.clockBack
	h.State, h.Step, h.Reason, h.Work, h.RollingBack = f.state, f.step, f.reason, f.work, f.rollback
	for _, id := range f.order {
		sh, err := f.steps[id].history(s)
		if err != nil {
			errs = append(errs, err)
		}
		h.Steps = append(h.Steps, sh)
	}
	return h, errors.Join(errs...)
}

// StepByID returns the history of a step; a step that the journal does not
// name is pending.
func (h *History) StepByID(id string) StepHistory {
	for _, s := range h.Steps {
		if s.ID == id {
			return s
		}
	}
	return StepHistory{ID: id, State: StepPending}
}

// A Way is something that can be done with a run, or why it cannot be done now.
type Way struct {
	Name  string `json:"name"` // stop, rollback, park or resume
	Legal bool   `json:"legal"`
	Why   string `json:"why"` // what it does, or why it is not legal now
}

// Ways says what is legal now.
func (h *History) Ways() []Way {
	no := func(why string, args ...any) Way { return Way{Why: fmt.Sprintf(why, args...)} }
	way := func(name string, w Way) Way {
		w.Name = name
		return w
	}
	stop := Way{Legal: true, Why: "the process at work detaches: what runs on a host goes on there, and resume or rollback goes on from here"}
	if !h.Live {
		stop = no("no process is at work")
	}
	var back, park Way
	switch {
	case h.State == RolledBack:
		back, park = no("the run is rolled back already"), no("the run is rolled back")
	case h.Live && h.RollingBack:
		back, park = no("the run is rolling back already"), no("the run is rolling back already")
	case h.PastReturn != "":
		back = no("%s has begun and cannot be taken back: resume is the only way on", h.PastReturn)
		park = back
	case h.PastPivot != "":
		back = no("the pivot %s has begun: the run can be parked", h.PastPivot)
		park = Way{Legal: true, Why: "everything after " + h.PastPivot + " is undone; traffic stays where it is safe, and resume goes on"}
		if h.State == Parked {
			park = no("the run is parked already")
		}
	default:
		back = Way{Legal: true, Why: "everything is undone, last step first"}
		park = no("the pivot is not reached: the run can be rolled back")
	}
	resume := Way{Legal: true, Why: "the run goes on where it stands"}
	switch {
	case h.Live:
		resume = no("a process is at work already")
	case h.RollingBack:
		resume = no("a rollback was begun and has to be finished first")
	case h.State == Succeeded || h.State == RolledBack:
		resume = no("the run is at its end")
	}
	return []Way{way("stop", stop), way("rollback", back), way("park", park), way("resume", resume)}
}
