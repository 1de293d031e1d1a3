package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// An Act is what a side of a step gets: the identity of the attempt and the
// journalled data. Its methods may be called from several goroutines, but only
// until the side returns.
type Act struct {
	l       *loop
	s       *Step
	attempt int
	key     string
	intent  bool  // false during Plan
	own     value // what Do returned a moment ago, not yet journalled
}

func (l *loop) act(s *Step) *Act {
	st := l.r.fold.get(s.ID)
	return &Act{l: l, s: s, attempt: st.Attempt, key: st.Key, intent: true}
}

// RunID is the identifier of the run.
func (a *Act) RunID() string { return a.l.r.header.Run }

// StepID is the ID of the step.
func (a *Act) StepID() string { return a.s.ID }

// Key is the idempotency key of this attempt; see the function Key. During
// Plan it is the key that the intent will have.
func (a *Act) Key() string { return a.key }

// Attempt counts from 1. It is raised after a definitive failure or an undo.
func (a *Act) Attempt() int { return a.attempt }

var errNoIntent = errors.New("there is no intent yet: Plan makes it")

// Params unmarshals the parameters in this step's intent. During Plan there is
// no intent: an error. Without parameters out stays as it is.
func (a *Act) Params(out any) error {
	if !a.intent {
		return errNoIntent
	}
	_, err := a.load("params", a.s.ID, a.l.r.fold.get(a.s.ID).params(), out)
	return err
}

// Before unmarshals the before-image in this step's intent. During Plan there
// is no intent: an error. Without a before-image out stays as it is.
func (a *Act) Before(out any) error {
	if !a.intent {
		return errNoIntent
	}
	_, err := a.load("before-image", a.s.ID, a.l.r.fold.get(a.s.ID).before(), out)
	return err
}

// Own unmarshals the result of this attempt's Do, if there is one.
func (a *Act) Own(out any) (bool, error) {
	if !a.intent {
		return false, nil
	}
	if !a.own.none() {
		return a.load("result", a.s.ID, a.own, out)
	}
	return a.load("result", a.s.ID, a.l.r.fold.get(a.s.ID).result(), out)
}

// Result unmarshals the result of another step that is done. It is false when
// that step has no result, was skipped or undone, or was never heard of.
func (a *Act) Result(stepID string, out any) (bool, error) {
	st := a.l.r.fold.get(stepID)
	if !st.done {
		return false, nil
	}
	return a.load("result", stepID, st.result(), out)
}

// ParamsOf unmarshals the parameters of another step's intent. It is false when
// there is none or the step was undone.
func (a *Act) ParamsOf(stepID string, out any) (bool, error) {
	st := a.l.r.fold.get(stepID)
	if !st.done && !st.open {
		return false, nil
	}
	return a.load("params", stepID, st.params(), out)
}

// BeforeOf unmarshals the before-image of another step's intent. It is false
// when there is none or the step was undone.
func (a *Act) BeforeOf(stepID string, out any) (bool, error) {
	st := a.l.r.fold.get(stepID)
	if !st.done && !st.open {
		return false, nil
	}
	return a.load("before-image", stepID, st.before(), out)
}

func (a *Act) load(what, step string, v value, out any) (bool, error) {
	if v.none() {
		return false, nil
	}
	raw, err := v.load(a.l.r.store)
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the %s of step %s: %w", what, step, err)
	}
	return true, nil
}

// Took is how long another step that is done took, from its last intent to its
// end, by the wall clock: good for an estimate, and for nothing else.
func (a *Act) Took(stepID string) (time.Duration, bool) {
	st := a.l.r.fold.get(stepID)
	if !st.done {
		return 0, false
	}
	return max(0, st.Ended.Sub(st.Started)), true
}

// Asked tells whether an operator's request waits to be taken. A Plan that waits
// returns then, with Proposal.Hold.
func (a *Act) Asked() bool {
	return len(a.l.o.Pause) > 0 || a.l.r.dir != "" && len(requests(a.l.r.dir, a.l.r.header)) > 0
}

// PutBlob stores data in the run directory, durably and readable by the owner
// alone, and returns its name: the hex SHA-256. Big values of a Proposal or a
// result go to blobs by themselves; this is for raw bytes.
func (a *Act) PutBlob(data []byte) (ref string, err error) {
	if ref, err = a.l.r.putBlob(data); err != nil {
		return "", fmt.Errorf("cannot store blob: %w", err)
	}
	return ref, nil
}

// Blob returns what PutBlob stored, and an ErrDamaged if it was altered since.
func (a *Act) Blob(ref string) ([]byte, error) { return loadBlob(a.l.r.store, ref) }

// Progress tells the observer something; it is not journalled.
func (a *Act) Progress(format string, args ...any) {
	if !a.intent && !a.l.flushEarly() {
		return
	}
	a.l.emit(0, kindProgress, a.s, fmt.Sprintf(format, args...))
}
