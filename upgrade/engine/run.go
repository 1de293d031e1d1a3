package engine

import (
	"context"
	"errors"
	"time"
)

// Header is the identity of a run, frozen in the first line of its journal.
type Header struct {
	Run       string `json:"run"`       // identifier of the run; part of every key
	Procedure string `json:"procedure"` // such as "transition"
	Host      string `json:"host"`      // the host the run is about
	PlanHash  string `json:"plan_hash"` // hex SHA-256 of plan.json; empty at Create: computed
	Version   string `json:"version"`   // of the program that created the run
}

// RunState is the state of a run; a word, because it is printed and stored.
type RunState string

// The states of a run.
const (
	Running            RunState = "running"
	Paused             RunState = "paused"              // waiting for a person; Apply goes on
	Succeeded          RunState = "succeeded"           // the end
	Failed             RunState = "failed"              // a step failed; Apply goes on, Rollback undoes
	RollingBack        RunState = "rolling-back"        //
	RolledBack         RunState = "rolled-back"         // the beginning
	RollbackIncomplete RunState = "rollback-incomplete" // Work is left; Rollback goes on
	Parked             RunState = "parked"              // back to just after the pivot; Apply goes on
	Interrupted        RunState = "interrupted"         // stopped from outside; Apply (or Rollback) goes on
)

// Outcome is how Apply or Rollback ended.
type Outcome struct {
	State  RunState
	Step   string   // the step it stopped at, if it stopped
	Reason string   // one line for a person
	Work   []string // for RollbackIncomplete: what is left, in the order in which it must be done
	Err    error    // why it failed or was interrupted; *ConflictError (errors.As) for a foreign change
}

// Options of Apply and Rollback. The zero value runs to the first gate.
type Options struct {
	Until      string   // last section to run, such as "3.11" or "3"; empty: to the end
	Approve    []string // step IDs or sections whose gates Actor approves now
	ApproveAll bool     // Actor approves every gate the run comes to
	Actor      string   // who is at work; empty: the user of the process
	// Observer is called synchronously for every event. While it runs the run
	// stands still, exactly at the named point.
	Observer func(Event)
}

// An Event tells an Observer what just happened. Kind is that of the journal
// record that was just written, or "progress" (a line from a step), or "effect":
// Do has returned and nothing about it is written yet.
type Event struct {
	Seq                              int // of the record; 0 when there is none
	Time                             time.Time
	Kind, Step, Section, Title, Text string
}

// A Run is an open run directory. It holds the lock of the directory until
// Close. Apply and Rollback must not run at the same time (ErrBusy).
type Run struct{ dir string }

// An Option adjusts Create and Open.
type Option func(*config)

type config struct{ actor, version string }

// WithActor sets who is named in the lock file; default the user of the process.
func WithActor(actor string) Option { return func(c *config) { c.actor = actor } }

// WithVersion sets the version of the program that is journalled at each start.
func WithVersion(v string) Option { return func(c *config) { c.version = v } }

var errNotYet = errors.New("internal error: engine is not there yet")

// Create makes the run directory.
func Create(dir string, h Header, plan []byte, o ...Option) (*Run, error) { return nil, errNotYet }

// Open opens a run directory.
func Open(dir string, o ...Option) (*Run, error) { return nil, errNotYet }

// Close releases the lock.
func (r *Run) Close() error { return nil }

// Apply runs or resumes.
func (r *Run) Apply(ctx context.Context, steps []Step, o Options) (Outcome, error) {
	return Outcome{}, errNotYet
}

// Rollback undoes.
func (r *Run) Rollback(ctx context.Context, steps []Step, o Options) (Outcome, error) {
	return Outcome{}, errNotYet
}

// Validate checks a procedure.
func Validate(steps []Step) error { return nil }

// PlanHash is the hex SHA-256 of a plan, as Header.PlanHash has it.
func PlanHash(plan []byte) string { return "" }

// Key is the idempotency key of an attempt of a step: ClientToken, tag value,
// unit name on a host and marker in a file at once. 41 lower-case letters and
// digits, the first a letter.
func Key(run, step string, attempt int) string { return "" }
