package upgrade

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// An Event is what a run tells an observer; see engine.Event.
type Event = engine.Event

// RunOptions say how far a run goes and who answers its gates.
type RunOptions struct {
	Until      string   // last section, such as "3.11"; "" = to the end
	Approve    []string // sections or step IDs whose gates are approved now
	ApproveAll bool     // no gate is asked
	Actor      string   // who approves and acts; "" = the user of the process
	Version    string   // of the program
	Observer   func(Event)

	Pause   <-chan string   // asks, with its reason, to pause at the next safe point
	Quit    <-chan struct{} // when closed, the run is recorded as interrupted in the middle of whatever it does
	Quitted func(error)     // called then, from another goroutine, to end the process

	Access *Access // nil = as the configuration and the environment say
}

func (o RunOptions) engine(p *Plan) engine.Options {
	return engine.Options{Until: o.Until, Approve: o.Approve, ApproveAll: o.ApproveAll, Actor: o.Actor, Observer: o.Observer,
		CheckApproval: p.checkApproval, Pause: o.Pause, Quit: o.Quit, Quitted: o.Quitted}
}

// A Result is how a run stands after Apply, Resume, or Rollback.
type Result struct {
	Run    string   `json:"run"`
	Dir    string   `json:"dir"`
	State  string   `json:"outcome"` // a run state of design: running, paused, succeeded, …
	Step   string   `json:"step,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Work   []string `json:"work,omitempty"`
	Gate   bool     `json:"gate,omitempty"` // paused for an approval
	// Untouched tells that the run has changed nothing in the world.
	Untouched bool `json:"untouched"`
	// Head names the whole journal: kept elsewhere, it shows later whether the
	// end of it was cut off.
	Head      string `json:"journal_head"`
	Approvals string `json:"approvals,omitempty"` // at a gate that takes signatures: how many of how many

	Err error `json:"-"`
}

// Exit statuses of a run, as docs/errors.md lists them.
const (
	ExitDone       = 0
	ExitError      = 1
	ExitUsage      = 2
	ExitRefused    = 4
	ExitPaused     = 5
	ExitFailed     = 6
	ExitIncomplete = 8
	ExitLocked     = 9
	ExitDrift      = 10
	ExitParked     = 11
	ExitJournal    = 12
	ExitInterrupt  = 130
)

// ExitStatus is the exit status that a command ends with for r.
func (r *Result) ExitStatus() int {
	switch engine.RunState(r.State) {
	case engine.Succeeded, engine.RolledBack:
		return ExitDone
	case engine.Paused:
		return ExitPaused
	case engine.Parked:
		return ExitParked
	case engine.RollbackIncomplete:
		return ExitIncomplete
	case engine.Interrupted:
		if ErrorStatus(r.Err) == ExitLocked {
			return ExitLocked
		}
		return ExitInterrupt
	case engine.Failed:
		if status := ErrorStatus(r.Err); status == ExitDrift || status == ExitJournal || status == ExitLocked || status == ExitRefused && r.Untouched {
			return status
		}
		return ExitFailed
	}
	return ExitError
}

// ErrorStatus is the exit status for an error of this package's functions.
func ErrorStatus(err error) int {
	var (
		drift    *DriftError
		conflict *engine.ConflictError
		access   *AccessError
		refused  *RefusedError
		weights  *slb.ConflictError
		files    *nginx.DriftError
		held     *hostos.LeaseHeldError
	)
	switch {
	case errors.As(err, &drift), errors.As(err, &conflict), errors.As(err, &weights), errors.As(err, &files), errors.Is(err, engine.ErrPlanChanged):
		return ExitDrift
	case errors.Is(err, engine.ErrInvalid):
		return ExitUsage
	case errors.Is(err, engine.ErrLocked), errors.Is(err, engine.ErrElsewhere), errors.Is(err, hostos.ErrFenced), errors.As(err, &held):
		return ExitLocked
	case errors.Is(err, engine.ErrDamaged), errors.Is(err, engine.ErrUnwritable):
		return ExitJournal
	case errors.As(err, &access), errors.As(err, &refused), errors.Is(err, ErrRunExists), errors.Is(err, engine.ErrPastReturn), errors.Is(err, engine.ErrFinished),
		errors.Is(err, engine.ErrRollbackFirst), errors.Is(err, engine.ErrVersion), errors.Is(err, engine.ErrNotAtWork):
		return ExitRefused
	}
	return ExitError
}

// NewRunID makes the identifier of a new run.
func NewRunID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

// StateDir is where runs live by default: $XDG_STATE_HOME/upgradectl, or the
// place that stands for it.
func StateDir() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "upgradectl"), nil
	}
	if runtime.GOOS == "windows" {
		d, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a place for runs: %w; use --run DIR", err)
		}
		return filepath.Join(d, "upgradectl"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a place for runs: %w; use --run DIR", err)
	}
	return filepath.Join(home, ".local", "state", "upgradectl"), nil
}

// FindRun gives the run directory that name means: a directory, or the unique
// prefix of a run's ID below StateDir.
func FindRun(name string) (string, error) {
	if _, err := os.Stat(filepath.Join(name, "journal.jsonl")); err == nil {
		return filepath.Abs(name)
	}
	if name == "" || strings.ContainsAny(name, `/\`) {
		return "", fmt.Errorf("no run in %q: it has no journal.jsonl", name)
	}
	state, err := StateDir()
	if err != nil {
		return "", err
	}
	dirs, err := filepath.Glob(filepath.Join(state, "*", "journal.jsonl"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, d := range dirs {
		if id := filepath.Base(filepath.Dir(d)); strings.HasPrefix(id, name) {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no run %q in the working directory or in %s", name, state)
	case 1:
		return filepath.Join(state, found[0]), nil
	}
	return "", fmt.Errorf("run %q is not unique: %s", name, strings.Join(found, ", "))
}

// ErrRunExists is returned by Apply for a directory that holds a run already.
var ErrRunExists = errors.New("there is a run already: go on with it by resume or rollback, or name another directory")

// Apply begins the run of a stored plan in dir, which must not hold a run.
func Apply(ctx context.Context, dir, id string, stored []byte, o RunOptions) (*Result, error) {
	p, err := ParsePlan(stored)
	if err != nil {
		return nil, &RefusedError{What: "cannot apply the plan", Reasons: []string{err.Error()}}
	}
	// The result names it to somebody who may be elsewhere by then.
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// A mistyped option must not leave an empty run behind.
	if err := checkOptions(p.steps(nil), o); err != nil {
		return nil, err
	}
	e, err := NewEnv(&p.Config, o.Access)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	run, err := engine.Create(dir, engine.Header{Run: id, Procedure: p.Procedure, Host: p.Host, Version: o.Version}, stored, engine.WithActor(o.Actor), engine.WithVersion(o.Version))
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot begin a run in %s: %w", dir, ErrRunExists)
	}
	if err != nil {
		return nil, err
	}
	defer run.Close()
	steps := e.fenced(p.steps(e))
	return e.leased(ctx, p, nil, run, o.Actor, func(ctx context.Context) (*Result, error) {
		out, err := run.Apply(ctx, steps, o.engine(p))
		return result(dir, out, err)
	})
}

// steps is the procedure of the plan. With a nil Env the steps can be listed,
// not run.
func (p *Plan) steps(e *Env) []engine.Step {
	build := transitionSteps
	if p.Procedure == ProcedureRebuild {
		build = rebuildSteps
	}
	steps := build(p, e)
	p.askApprovals(steps)
	return steps
}

// readRun reads a run and its plan.
func readRun(dir string) (*engine.History, *Plan, error) {
	h, err := engine.Read(dir)
	if err != nil {
		return nil, nil, err
	}
	p, err := ParsePlan(h.Plan)
	return h, p, err
}

// checkOptions sees that the sections and gates of o exist in the procedure.
func checkOptions(steps []engine.Step, o RunOptions) error {
	if o.Until != "" && !slices.ContainsFunc(steps, func(s engine.Step) bool {
		return s.Section == o.Until || strings.HasPrefix(s.Section, o.Until+".")
	}) {
		return engine.Invalid("until %q: the procedure has no such section", o.Until)
	}
	for _, name := range o.Approve {
		if !slices.ContainsFunc(steps, func(s engine.Step) bool { return s.Gate != "" && (s.Section == name || s.ID == name) }) {
			return engine.Invalid("approve %q: no gate stands before such a section or step", name)
		}
	}
	return nil
}

// Resume goes on with a run: after a gate, a pause, a failure, a kill, or a
// rollback that parked it.
func Resume(ctx context.Context, dir string, o RunOptions) (*Result, error) {
	return reopen(ctx, dir, o, true, (*engine.Run).Apply)
}

// Rollback takes a run back to its beginning or, past the pivot, to where the
// transition host carries the traffic.
func Rollback(ctx context.Context, dir string, o RunOptions) (*Result, error) {
	return reopen(ctx, dir, o, false, (*engine.Run).Rollback)
}

// reopen works on a run that exists; onward tells that it goes on and not back.
func reopen(ctx context.Context, dir string, o RunOptions, onward bool, do func(*engine.Run, context.Context, []engine.Step, engine.Options) (engine.Outcome, error)) (*Result, error) {
	run, err := engine.Open(dir, engine.WithActor(o.Actor), engine.WithVersion(o.Version))
	if err != nil {
		return nil, err
	}
	defer run.Close()
	// Before any lease: the hosts are not taken away from a process that works.
	if err := run.CheckMachine(); err != nil {
		return nil, err
	}
	h, p, err := readRun(dir)
	if err != nil {
		return nil, err
	}
	e, err := NewEnv(&p.Config, o.Access)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	steps := e.fenced(p.steps(e))
	if err := checkOptions(steps, o); err != nil {
		return nil, err
	}
	// Neither are they leased to a run that this program will not go on with.
	if err := run.CheckSteps(steps); err != nil {
		return nil, err
	}
	return e.leased(ctx, p, h, run, o.Actor, func(ctx context.Context) (*Result, error) {
		if onward {
			if err := e.renew(ctx, p, h, run.Note); err != nil {
				return nil, err
			}
		}
		out, err := do(run, ctx, steps, o.engine(p))
		return result(dir, out, err)
	})
}

func result(dir string, out engine.Outcome, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	h, err := engine.Read(dir)
	if err != nil {
		return nil, err
	}
	return &Result{Run: h.Run, Dir: dir, State: string(out.State), Step: out.Step, Reason: out.Reason, Work: out.Work, Err: out.Err, Untouched: untouched(h), Head: h.Head, Approvals: gateWaits(h, out.Step),
		Gate: atGate(h, out.State, out.Step, out.Reason)}, nil
}

// atGate tells whether a run is paused for an approval.
func atGate(h *engine.History, state engine.RunState, step, reason string) bool {
	return state == engine.Paused && h.StepByID(step).State == engine.StepPending && strings.HasPrefix(reason, "waiting for approval")
}

// untouched tells whether no step that changes anything has ever begun.
func untouched(h *engine.History) bool {
	return !slices.ContainsFunc(h.Steps, func(s engine.StepHistory) bool { return s.Attempt > 0 && s.Effect != engine.ReadOnly })
}
