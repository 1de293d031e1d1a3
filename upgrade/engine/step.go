package engine

import (
	"context"
	"errors"
	"fmt"
)

// Effect is the class of what a step does to the world. It decides how the
// step is recovered after a crash.
type Effect string

// The effect classes. They are words in the journal and outlive the program.
const (
	// ReadOnly changes nothing: the step is simply run again.
	ReadOnly Effect = "read-only"
	// SetState is a conditional write of a value that can be read back; its
	// before-image is frozen in the intent.
	SetState Effect = "set-state"
	// TokenCreate creates something under an idempotency token: the key.
	TokenCreate Effect = "token-create"
	// OneShot starts something that must not run twice. It runs under a name
	// made from the key, so that Observe can find it again.
	OneShot Effect = "one-shot"
	// Irreversible cannot be taken back. From its intent on there is no
	// rollback, only resume.
	Irreversible Effect = "irreversible"
)

// A Step is one step of a procedure with its five sides next to each other.
//
// Every side may be called again at any time: in another process, after a
// crash, any number of times. All data a side needs comes from its Act, hence
// from the journal; nothing may be kept in memory between two sides.
type Step struct {
	// ID names the step in the journal for ever, such as "3.1-snapshot". It
	// consists of ASCII letters, digits and ". _ -" and is unique in a procedure.
	ID string
	// Section is the number of the step in the written procedure, such as
	// "3.11": decimal numbers joined by dots. Sections never decrease along a
	// procedure; several steps may share one.
	Section string
	// Title says to a person what the step does.
	Title string
	// Effect is the class of the step.
	Effect Effect
	// Pivot marks a step from whose intent on the run cannot be rolled back to
	// the beginning, only back to here (parked).
	Pivot bool
	// Gate, when not empty, is what a person is asked and must approve before
	// anything of this step happens.
	Gate string
	// Approvers is how many people must have approved the gate, each by an
	// approval that Options.CheckApproval accepts; 0: who runs it may say so
	// (Options.Approve). With FourEyes nobody counts who works on the run.
	Approvers int
	FourEyes  bool
	// Joined means that between the step before and this one the run is not
	// paused on request: that is no safe point.
	Joined bool
	// Version is the form of the step's journalled values. Raise it when this
	// program could not use values of the form before: a run whose journal has
	// another form of the step is refused (ErrVersion), never guessed at.
	Version int
	// NoUndo says why nothing needs undoing. It is required when Undo is nil
	// and the step is neither ReadOnly nor Irreversible.
	NoUndo string
	// Lines are what a plan shows. The engine does not use them.
	Lines []string

	// Plan only reads. It runs immediately before the intent is written; the
	// Params and Before of its Proposal are frozen in that intent. Nil means
	// that the step has neither. An error stops the run; nothing has happened.
	Plan func(ctx context.Context, a *Act) (Proposal, error)
	// Observe only reads: did the effect of this intent already happen? It is
	// called for an intent that has no outcome, before anything else is done
	// about it. Required unless the step is ReadOnly.
	Observe func(ctx context.Context, a *Act) (Sight, error)
	// Do makes one attempt, and goes on where a Sight of InProgress left off.
	// Its result is journalled. An error is taken as ambiguous (the effect may
	// have happened: same key next time, observed first) unless it is wrapped
	// by Definitive. Required, but a ReadOnly step may have Verify alone.
	Do func(ctx context.Context, a *Act) (any, error)
	// Verify proves the postcondition and returns evidence for the journal. It
	// also runs after an adoption. Its errors never say anything about the
	// effect: the step stays open, and the next Apply observes it first. Nil
	// means that Do is proof enough.
	Verify func(ctx context.Context, a *Act) (any, error)
	// Undo takes the effect back from the journalled intent and, if there is
	// one, the result. It must succeed when there is nothing left to take back:
	// it runs again after a crash in its middle.
	Undo func(ctx context.Context, a *Act) error
}

// A Proposal is what Plan found.
type Proposal struct {
	// NotApplicable, when not empty, is why this step has nothing to do here.
	// The step is then recorded as skipped.
	NotApplicable string
	// Hold, when not empty, is why the step does not begin yet. No intent is
	// written: the engine does what operators ask for meanwhile, and else calls
	// Plan again, at once. Waiting is Plan's business, until Act.Asked.
	Hold string
	// Params are everything Do needs, complete, serialisable as JSON, and
	// without secrets.
	Params any
	// Before is the state before the effect: what Undo restores.
	Before any
	// Lines are exact commands and calls for an observer.
	Lines []string
}

// SightState says what Observe saw of an effect.
type SightState string

// The states of a Sight.
const (
	// Absent: nothing of it happened.
	Absent SightState = "absent"
	// Ours: it happened completely, and we did it.
	Ours SightState = "ours"
	// InProgress: some of it happened or it runs. Do goes on, Undo takes back.
	InProgress SightState = "in-progress"
	// Foreign: the object is in a state neither before nor after our effect.
	// The run stops; nothing is ever overwritten.
	Foreign SightState = "foreign"
)

// A Sight is the answer of Observe.
type Sight struct {
	State SightState
	// Result is, for Ours, what Do would have returned. Nil keeps a result
	// that is already journalled.
	Result any
	// Detail is for people; with Foreign it says what is there now.
	Detail string
}

// Definitive marks err as proof that the effect did not happen and will not:
// the attempt is over, and the next one gets a new key and a new intent.
// Definitive(nil) is nil.
func Definitive(err error) error {
	if err == nil {
		return nil
	}
	return &definitiveError{err}
}

// IsDefinitive reports whether err or an error it wraps was marked by Definitive.
func IsDefinitive(err error) bool {
	var d *definitiveError
	return errors.As(err, &d)
}

type definitiveError struct{ err error }

func (e *definitiveError) Error() string { return e.err.Error() }
func (e *definitiveError) Unwrap() error { return e.err }

// A ConflictError reports that somebody else changed what a step is about. It
// shows the three-way picture. Sides may return one; the engine makes one of a
// Foreign sight.
type ConflictError struct {
	Object string `json:"object"` // what it is about
	Before string `json:"before"` // as it was when we planned
	Ours   string `json:"ours"`   // as we made it or wanted to make it
	Now    string `json:"now"`    // as it is
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s was changed by somebody else: before %s, ours %s, now %s: bring it back to one of the first two, then resume or roll back",
		e.Object, orDash(e.Before), orDash(e.Ours), orDash(e.Now))
}

func orDash(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}
