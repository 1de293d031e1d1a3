package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// value is a journalled JSON value: what stood in the line, or the name of the
// blob that holds it.
type value struct {
	text    json.RawMessage
	spilled bool // text is the name of a blob
}

// valueOf is the value of a record's field, and of its blob if it has one.
func valueOf(raw json.RawMessage, blob string) value {
	if blob != "" {
		return value{text: json.RawMessage(blob), spilled: true}
	}
	return value{text: raw}
}

func (v value) none() bool { return v.text == nil }

func (v value) load(s store) (json.RawMessage, error) {
	if !v.spilled {
		return v.text, nil
	}
	return loadBlob(s, string(v.text))
}

// stepFold is what the journal says about one step. A run of many steps holds
// all of them in memory, so nothing is in it twice: the values stand in the
// fields of StepHistory, as they were journalled.
type stepFold struct {
	StepHistory
	lines   json.RawMessage
	spilled struct{ params, before, lines, result, evidence bool } // the field is the name of a blob

	asked   bool // the gate record of this round is written
	open    bool // the intent has no outcome: the effect may or may not have happened
	done    bool // done, and not undone since
	skipped bool
	effect  bool // Do returned or the effect was adopted
	undoing bool // an undo was begun: it is never decided anew

	form      int // Step.Version of the last intent
	approvers int // that the gate wants
	approvals []approval

	intentSeq int
	endSeq    int // of done or skipped
}

func (s *stepFold) params() value { return value{s.Params, s.spilled.params} }
func (s *stepFold) before() value { return value{s.Before, s.spilled.before} }
func (s *stepFold) result() value { return value{s.Result, s.spilled.result} }

func (s *stepFold) setParams(v value)   { s.Params, s.spilled.params = v.text, v.spilled }
func (s *stepFold) setBefore(v value)   { s.Before, s.spilled.before = v.text, v.spilled }
func (s *stepFold) setLines(v value)    { s.lines, s.spilled.lines = v.text, v.spilled }
func (s *stepFold) setResult(v value)   { s.Result, s.spilled.result = v.text, v.spilled }
func (s *stepFold) setEvidence(v value) { s.Evidence, s.spilled.evidence = v.text, v.spilled }

// history is the step with what is in blobs. With an error it holds what could
// be read.
func (s *stepFold) history(from store) (StepHistory, error) {
	h := s.StepHistory
	h.Approvers = s.approvers
	for _, a := range s.approvals {
		h.Approvals = append(h.Approvals, a.Approval)
	}
	var errs []error
	load := func(v value) json.RawMessage {
		raw, err := v.load(from)
		errs = append(errs, err)
		return raw
	}
	h.Params, h.Before = load(s.params()), load(s.before())
	h.Result, h.Evidence = load(s.result()), load(value{s.Evidence, s.spilled.evidence})
	if raw := load(value{s.lines, s.spilled.lines}); raw != nil && json.Unmarshal(raw, &h.Lines) != nil {
		errs = append(errs, &DamagedError{Reason: "the lines of step " + s.ID + " are no list of texts"})
	}
	return h, errors.Join(errs...)
}

// acted notes that the effect is there. A result that is known stays when
// there is no new one.
func (s *stepFold) acted(result value) {
	s.effect = true
	if !result.none() {
		s.setResult(result)
	}
}

// next is the number of the attempt that a new intent would have.
func (s *stepFold) next() int { return s.Attempt + 1 }

// fold is the state of a run as its records give it, and nothing else.
type fold struct {
	seq          int
	steps        map[string]*stepFold
	order        []string // of first appearance
	state        RunState
	step, reason string
	work         []string
	rollback     bool // a rollback was begun and is not finished
	started      bool
	pivotSeq     int    // of the last intent of a pivot step
	pivotStep    string // its ID
	irreversible string // ID of an irreversible step that has an intent

	created, last time.Time // of the first and the last record
	at            Origin    // of the last process, or of who unlocked the run
	clockBack     []int     // records that are older than the one before, by the clock
	notes         []Note
	operators     []string        // everybody who worked on it, by all names
	taken         map[string]bool // requests by the hash of their file
}

func newFold() *fold {
	return &fold{steps: map[string]*stepFold{}, state: Running, taken: map[string]bool{}}
}

// get returns the state of a step; a fresh one when the journal does not name
// it yet.
func (f *fold) get(id string) *stepFold {
	if s := f.steps[id]; s != nil {
		return s
	}
	return &stepFold{StepHistory: StepHistory{ID: id, State: StepPending}}
}

// known is e without memory of its own when it is one of the classes.
func known(e Effect) Effect {
	for _, k := range [...]Effect{ReadOnly, SetState, TokenCreate, OneShot, Irreversible} {
		if e == k {
			return k
		}
	}
	return e
}

// add takes in the next record.
func (f *fold) add(rec Record) error {
	if rec.Time.Before(f.last) {
		f.clockBack = append(f.clockBack, rec.Seq)
	}
	f.seq, f.last = rec.Seq, rec.Time
	if rec.Kind == kindOpened {
		if rec.Seq != 1 {
			return &DamagedError{Record: rec.Seq, Reason: "the journal is opened twice"}
		}
		f.created = rec.Time
		return nil
	}
	var b body
	if len(rec.Body) > 0 {
		if err := json.Unmarshal(rec.Body, &b); err != nil {
			return &DamagedError{Record: rec.Seq, Reason: err.Error()}
		}
	}
	val := func(raw json.RawMessage, name string) value { return valueOf(raw, b.Blobs[name]) }

	switch rec.Kind { // of the run
	case kindStarted:
		f.started, f.rollback = true, b.Mode == modeRollback
		f.state, f.step, f.reason, f.work = Running, "", "", nil
		if f.rollback {
			f.state = RollingBack
		}
		if b.Origin != nil {
			f.at = *b.Origin
			f.operators = append(f.operators, b.Origin.User)
		}
		f.operators = append(f.operators, b.Actor)
		slices.Sort(f.operators)
		f.operators = slices.Compact(f.operators)
		return nil
	case kindOperator:
		f.taken[b.Request] = true
		n := Note{Seq: rec.Seq, Time: rec.Time, Act: b.Act, Actor: b.Actor, Reason: b.Reason, Object: b.Object, Epoch: b.Epoch, Text: b.Text, Refused: b.Refused}
		if b.Origin != nil {
			n.Origin = *b.Origin
		}
		f.notes = append(f.notes, n)
		if b.Act == actUnlock && b.Object == "" {
			f.at = n.Origin
		}
		return nil
	case kindPaused, kindInterrupted, kindRollbackIncomplete:
		f.state, f.step, f.reason, f.work = RunState(rec.Kind), rec.Step, b.Reason, b.Work
		if s := f.steps[rec.Step]; s != nil && b.Acted {
			s.acted(val(b.Result, "result"))
		}
		return nil
	case kindParked, kindSucceeded, kindRolledBack:
		f.state, f.step, f.reason, f.rollback = RunState(rec.Kind), rec.Step, b.Reason, false
		return nil
	}

	switch rec.Kind { // of a step
	case kindGate, kindApproval, kindApproved, kindIntent, kindAdopted, kindDone, kindSkipped, kindFailed, kindUndoIntent, kindUndone, kindUndoFailed:
	default:
		return fmt.Errorf("%w: record %d is of the unknown kind %q", ErrVersion, rec.Seq, rec.Kind)
	}
	if rec.Step == "" {
		return &DamagedError{Record: rec.Seq, Reason: rec.Kind + " names no step"}
	}
	s := f.steps[rec.Step]
	if s == nil {
		s = f.get(rec.Step)
		f.steps[rec.Step] = s
		f.order = append(f.order, rec.Step)
	}
	if b.Title != "" && (b.Section != s.Section || b.Title != s.Title) {
		s.Section, s.Title = b.Section, b.Title
	}
	if b.Effect != "" {
		s.Effect = known(b.Effect)
	}

	switch rec.Kind {
	case kindGate:
		s.asked, s.Reason, s.approvers = true, b.Reason, b.Approvers
	case kindApproval:
		f.taken[b.Request] = true
		if b.Approval != nil {
			s.approvals = append(s.approvals, approval{Approval: *b.Approval, seq: rec.Seq})
		}
	case kindApproved:
		s.ApprovedBy = b.Actor
	case kindIntent:
		s.State, s.Attempt, s.Key, s.Pivot = StepRunning, rec.Attempt, rec.Key, b.Pivot
		s.setParams(val(b.Params, "params"))
		s.setBefore(val(b.Before, "before"))
		s.setLines(val(b.Lines, "lines"))
		s.setResult(value{})
		s.setEvidence(value{})
		s.Started, s.Ended, s.Reason, s.Adopted = rec.Time, time.Time{}, "", false
		s.open, s.done, s.skipped, s.effect, s.undoing = true, false, false, false, false
		s.intentSeq, s.form = rec.Seq, b.Form
		if b.Pivot {
			f.pivotSeq, f.pivotStep = rec.Seq, rec.Step
		}
		if b.Effect == Irreversible {
			f.irreversible = rec.Step
		}
	case kindAdopted:
		s.acted(val(b.Result, "result"))
		s.State, s.Adopted = StepRunning, true
	case kindDone:
		if b.Acted {
			s.acted(val(b.Result, "result"))
		}
		s.State, s.Ended, s.Reason = StepDone, rec.Time, ""
		s.setEvidence(val(b.Evidence, "evidence"))
		s.open, s.done, s.endSeq = false, true, rec.Seq
	case kindSkipped:
		s.State, s.Started, s.Ended, s.Reason = StepSkipped, rec.Time, rec.Time, b.Reason
		s.skipped, s.endSeq = true, rec.Seq
	case kindFailed:
		s.State, s.Ended, s.Reason = StepFailed, rec.Time, b.Error
		if b.Acted {
			s.acted(val(b.Result, "result"))
		}
		if b.Definitive != nil && *b.Definitive {
			s.open = false
		}
		f.state, f.step, f.reason = Failed, rec.Step, b.Error
	case kindUndoIntent:
		s.State, s.undoing = StepUndoing, true
	case kindUndone:
		s.State, s.Ended, s.Reason = StepUndone, rec.Time, b.Reason
		s.open, s.done, s.skipped, s.undoing = false, false, false, false
		// What was approved has been taken back; doing it again is a new question.
		s.ApprovedBy, s.asked, s.approvals = "", false, nil
	case kindUndoFailed:
		s.State, s.Ended, s.Reason = StepUndoFailed, rec.Time, b.Error
	}
	return nil
}
