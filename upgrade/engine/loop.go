package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// RunState is the state of a run; a word, because it is printed and stored.
type RunState string

// The states of a run.
const (
	Running            RunState = "running"             // at work
	Paused             RunState = "paused"              // waiting for a person; Apply goes on
	Succeeded          RunState = "succeeded"           // the end
	Failed             RunState = "failed"              // a step failed; Apply goes on, Rollback undoes
	RollingBack        RunState = "rolling-back"        // at work, backwards
	RolledBack         RunState = "rolled-back"         // the beginning
	RollbackIncomplete RunState = "rollback-incomplete" // Work is left; Rollback goes on
	Parked             RunState = "parked"              // back to just after the pivot; Apply goes on
	Interrupted        RunState = "interrupted"         // stopped from outside; Apply, or the begun Rollback, goes on
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
	Until      string   // last section to run, such as "3.11", or "3" for all of chapter 3; empty: to the end
	Approve    []string // step IDs whose gates Actor approves now, or sections: the first of its gates that is not passed
	ApproveAll bool     // Actor approves every gate of the run, also for later calls of Apply
	Actor      string   // who is at work; empty: who opened the run
	// CheckApproval tells who signed an approval and what it is for. It is
	// needed for steps with Approvers.
	CheckApproval func(signed json.RawMessage) (Approval, error)
	// Pause asks, with its reason, to pause at the next safe point; what a lost
	// terminal does.
	Pause <-chan string
	// Quit, when closed, records that the process ends at once, in the middle
	// of whatever it does; then Quitted is called, from another goroutine, to
	// end it.
	Quit    <-chan struct{}
	Quitted func(error)
	// Observer is called synchronously for every event, never twice at once.
	// While it runs the run stands still at the named point, or behind records
	// after which nothing has happened yet; calls of Progress wait for it.
	Observer func(Event)
}

// An Event tells an Observer what just happened. Kind is that of a journal
// record that is on disk now, or "progress" (a line from a step), or "effect":
// Do has returned without an error and nothing about it is written yet.
type Event struct {
	Seq                              int // of the record; 0 when there is none
	Time                             time.Time
	Kind, Step, Section, Title, Text string
}

// Modes of a started record.
const (
	modeApply    = "apply"
	modeResume   = "resume"
	modeRollback = "rollback"
)

// In a rollback a create that is not visible counts as absent only after this
// many looks with this pause between them: clouds show new things late, and an
// instance that is missed here costs money for ever. (Forward nothing waits,
// because the same token is used again.)
const (
	absentLooks = 3
	absentPause = 2 * time.Second
)

// loop is one call of Apply or Rollback.
type loop struct {
	r     *Run
	steps []Step
	o     Options
	until []int // nil: to the end

	back     bool        // it is a rollback
	asked    RequestKind // the strongest request that was taken
	askedWhy string

	first  int        // number of the record by which the run's first process began; 0: another one did
	untold []Event    // of records that are held
	early  sync.Mutex // guards untold while a side runs
	mu     sync.Mutex // one event at a time
}

// CheckSteps refuses a run whose journal names a step that is not among steps,
// or one that was begun in another form (ErrVersion). Apply and Rollback do so
// themselves; a caller may want to know before it touches anything.
func (r *Run) CheckSteps(steps []Step) error {
	for _, id := range r.fold.order {
		i, st := slices.IndexFunc(steps, func(s Step) bool { return s.ID == id }), r.fold.get(id)
		if i < 0 {
			return fmt.Errorf("%w: its journal names step %q, which this program does not have: use the version that made it (%q)", ErrVersion, id, r.header.Version)
		}
		if st.Attempt > 0 && st.form != steps[i].Version {
			return fmt.Errorf("%w: step %q was begun in form %d, this program knows form %d: use the version that began it (run made by %q)", ErrVersion, id, st.form, steps[i].Version, r.header.Version)
		}
	}
	return nil
}

// begin checks everything that can be checked before the first record.
func (r *Run) begin(steps []Step, o Options) (*loop, error) {
	if err := r.failure(); err != nil {
		return nil, err
	}
	if err := Validate(steps); err != nil {
		return nil, err
	}
	if err := r.CheckMachine(); err != nil {
		return nil, err
	}
	l := &loop{r: r, steps: steps, o: o}
	if l.o.Actor == "" {
		l.o.Actor = r.actor
	}
	if o.Until != "" {
		var err error
		if l.until, err = parseSection(o.Until); err != nil {
			return nil, Invalid("until: %w", err)
		}
	}
	if err := r.CheckSteps(steps); err != nil {
		return nil, err
	}
	for _, name := range o.Approve {
		i := slices.IndexFunc(steps, func(s Step) bool { return s.approvedBy(name) })
		if i < 0 {
			return nil, Invalid("cannot approve %q: no gate stands before such a step or section", name)
		}
		if n := steps[i].Approvers; n > 0 {
			return nil, Invalid("cannot approve the gate before %s by the word of who runs it: it takes %d signed approvals, by upgradectl approve", steps[i].ID, n)
		}
	}
	if err := r.store.reserve(); err != nil {
		return nil, fmt.Errorf("%w: %w: make room, then resume", ErrUnwritable, err)
	}
	if err := r.lock.note(l.o.Actor); err != nil {
		return nil, fmt.Errorf("cannot write the lock file: %w", err)
	}
	return l, nil
}

func (s *Step) approvedBy(name string) bool {
	return s.Gate != "" && (s.ID == name || s.Section == name)
}

func (l *loop) index(id string) int {
	return slices.IndexFunc(l.steps, func(s Step) bool { return s.ID == id })
}

// Apply runs the steps from where the journal stands: the first run and a
// resume are the same loop. It returns when the procedure is at its end, waits
// for a person, failed, or ctx is cancelled; how it ended is the Outcome and
// in the journal. The error is not nil when nothing was begun (ErrFinished,
// ErrRollbackFirst, ErrInvalid, ErrVersion, ErrBusy) or the journal could not
// be written (ErrUnwritable).
func (r *Run) Apply(ctx context.Context, steps []Step, o Options) (Outcome, error) {
	if !r.busy.TryLock() {
		return Outcome{}, ErrBusy
	}
	defer r.busy.Unlock()
	l, err := r.begin(steps, o)
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case r.fold.rollback:
		return Outcome{}, ErrRollbackFirst
	case r.fold.state == Succeeded, r.fold.state == RolledBack:
		return Outcome{}, fmt.Errorf("%w: it is %s; make a new plan", ErrFinished, r.fold.state)
	}
	watched, stop := l.watch(ctx)
	out, err := l.forward(watched)
	stop()
	if err == nil && l.asked == RequestRollback && out.State != Succeeded && ctx.Err() == nil && r.fold.irreversible == "" {
		out, err = l.backWatched(ctx)
	}
	return l.end(out, err)
}

// end makes an outcome of an engine error: the world may be ahead of the
// journal, and resume finds out.
func (l *loop) end(out Outcome, err error) (Outcome, error) {
	if err == nil {
		err = l.flush() // there is nothing: how a run stands is never held
	}
	if err != nil {
		return Outcome{State: Interrupted, Step: l.r.fold.step, Reason: err.Error(), Err: err}, err
	}
	return out, nil
}

// started is the first record of each call.
func (l *loop) started(mode string) error {
	b := body{Mode: mode, Actor: l.o.Actor, Version: l.r.version}
	if l.r.origin != (Origin{}) {
		b.Origin = &l.r.origin
	}
	return l.record(kindStarted, nil, b, mode+" by "+l.o.Actor)
}

func (l *loop) forward(ctx context.Context) (Outcome, error) {
	mode := modeApply
	if l.r.fold.started {
		mode = modeResume
	}
	if err := l.started(mode); err != nil {
		return Outcome{}, err
	}
	if mode == modeApply {
		l.first = l.r.fold.seq
	}
	// All approvals of this call are written before anything else happens, so
	// that a run which was begun unattended stays so when it is resumed.
	sections := map[string]bool{}
	for i := range l.steps {
		s := &l.steps[i]
		if st := l.r.fold.get(s.ID); st.ApprovedBy != "" || st.done || st.skipped || !l.approves(s) {
			continue
		}
		if !l.o.ApproveAll && !slices.Contains(l.o.Approve, s.ID) {
			if sections[s.Section] {
				continue // the next gate of the section is another question
			}
			sections[s.Section] = true
		}
		if err := l.record(kindApproved, s, body{Section: s.Section, Title: s.Title, Actor: l.o.Actor}, "by "+l.o.Actor); err != nil {
			return Outcome{}, err
		}
	}
	for i := range l.steps {
		stop, err := l.run(ctx, &l.steps[i])
		if err != nil {
			return Outcome{}, err
		}
		if stop != nil {
			return *stop, nil
		}
	}
	return Outcome{State: Succeeded}, l.record(kindSucceeded, nil, body{}, "")
}

// approves tells whether this call approves the gate of s.
func (l *loop) approves(s *Step) bool {
	return s.Gate != "" && s.Approvers == 0 && (l.o.ApproveAll || slices.ContainsFunc(l.o.Approve, s.approvedBy))
}

// run brings one step to its end. A nil Outcome means: go on with the next.
func (l *loop) run(ctx context.Context, s *Step) (*Outcome, error) {
	st := l.r.fold.get(s.ID)
	if st.done || st.skipped {
		return nil, nil
	}
	// Only a look may begin on what is held: an effect comes after everybody was
	// told of the step before it and could ask to stop, and a Plan can take long.
	if s.Effect != ReadOnly || s.Plan != nil || st.open {
		if err := l.flushForPlan(); err != nil {
			return nil, err
		}
	}
	if err := l.take(); err != nil {
		return nil, err
	}
	switch {
	case ctx.Err() != nil || l.asked == RequestStop || l.asked == RequestRollback:
		return l.interrupted(ctx, s)
	case l.asked == RequestPause && !s.Joined:
		return l.paused(s, l.askedWhy)
	}
	if l.until != nil {
		if sec, err := parseSection(s.Section); err != nil || !within(sec, l.until) {
			return l.paused(s, "stopped after section "+l.o.Until+", as asked")
		}
	}

	again := st.open
	if !again {
		stop, skipped, err := l.intend(ctx, s)
		if stop != nil || skipped || err != nil {
			return stop, err
		}
	}
	if again && s.Effect != ReadOnly {
		sight, err := s.Observe(ctx, l.act(s))
		if err != nil {
			return l.failed(ctx, s, "observe", err)
		}
		switch sight.State {
		case Ours:
			if err := l.adopt(s, sight); err != nil {
				return l.bad(ctx, s, "observe", err)
			}
			return l.finish(ctx, s, made{})
		case Absent, InProgress: // Do begins or goes on, under the same key
		case Foreign:
			return l.failed(ctx, s, "observe", l.conflict(s, sight))
		default:
			return l.failed(ctx, s, "observe", fmt.Errorf("internal error: Observe answered %q", sight.State))
		}
		if ctx.Err() != nil {
			return l.interrupted(ctx, s)
		}
	}
	if s.Do != nil {
		result, err := s.Do(ctx, l.act(s))
		if err != nil {
			return l.failed(ctx, s, "do", err)
		}
		l.emit(0, kindEffect, s, "")
		made := made{acted: true}
		if err := l.r.put(&made.b, &made.b.Result, "result", result); err != nil {
			return l.bad(ctx, s, "do", err)
		}
		return l.finish(ctx, s, made)
	}
	return l.finish(ctx, s, made{})
}

// made is what Do returned. It is written together with how the step ended:
// one write on disk for both, and whoever dies before it observes.
type made struct {
	acted bool
	b     body // with Result and its blob alone
}

// into adds what Do returned to a record.
func (m made) into(b *body) {
	b.Acted, b.Result = m.acted, m.b.Result
	if ref, ok := m.b.Blobs["result"]; ok {
		if b.Blobs == nil {
			b.Blobs = map[string]string{}
		}
		b.Blobs["result"] = ref
	}
}

// intend asks at the gate, plans, and makes the intent durable.
func (l *loop) intend(ctx context.Context, s *Step) (stop *Outcome, skipped bool, err error) {
	st := l.r.fold.get(s.ID)
	if stop, err := l.gate(s); stop != nil || err != nil {
		return stop, false, err
	}

	attempt := st.next()
	key := Key(l.r.header.Run, s.ID, attempt)
	var prop Proposal
	if s.Plan != nil {
		if err := l.flushForPlan(); err != nil {
			return nil, false, err
		}
		for {
			prop, err = s.Plan(ctx, &Act{l: l, s: s, attempt: attempt, key: key})
			if err != nil {
				stop, err = l.failed(ctx, s, "plan", err)
				return stop, false, err
			}
			if prop.Hold == "" {
				break
			}
			if err := l.take(); err != nil {
				return nil, false, err
			}
			switch {
			case ctx.Err() != nil || l.asked == RequestStop || l.asked == RequestRollback:
				stop, err = l.interrupted(ctx, s)
				return stop, false, err
			case l.asked == RequestPause && !s.Joined:
				stop, err = l.paused(s, l.askedWhy)
				return stop, false, err
			}
		}
		if prop.NotApplicable != "" {
			return nil, true, l.record(kindSkipped, s, body{Section: s.Section, Title: s.Title, Effect: s.Effect, Reason: prop.NotApplicable}, prop.NotApplicable)
		}
		if ctx.Err() != nil {
			stop, err = l.interrupted(ctx, s)
			return stop, false, err
		}
	}
	b := body{Section: s.Section, Title: s.Title, Effect: s.Effect, Pivot: s.Pivot, Form: s.Version}
	var lines any
	if len(prop.Lines) > 0 {
		lines = prop.Lines
	}
	err = errors.Join(
		l.r.put(&b, &b.Params, "params", prop.Params),
		l.r.put(&b, &b.Before, "before", prop.Before),
		l.r.put(&b, &b.Lines, "lines", lines))
	if err != nil {
		stop, err = l.bad(ctx, s, "plan", err)
		return stop, false, err
	}
	if err := l.r.append(Record{Kind: kindIntent, Step: s.ID, Attempt: attempt, Key: key}, b); err != nil {
		return nil, false, err
	}
	l.tell()
	l.emit(l.r.fold.seq, kindIntent, s, "")
	for _, line := range prop.Lines {
		l.emit(0, kindProgress, s, line)
	}
	return nil, false, nil
}

// adopt takes an effect that was seen as ours.
func (l *loop) adopt(s *Step, sight Sight) error {
	b := body{Reason: sight.Detail}
	if err := l.r.put(&b, &b.Result, "result", sight.Result); err != nil {
		return err
	}
	return l.record(kindAdopted, s, b, sight.Detail)
}

// finish proves the postcondition and closes the step.
func (l *loop) finish(ctx context.Context, s *Step, made made) (*Outcome, error) {
	var b body
	made.into(&b)
	if s.Verify != nil {
		if ctx.Err() != nil {
			return l.interruptedIn(ctx, s, made)
		}
		act := l.act(s)
		act.own = valueOf(made.b.Result, made.b.Blobs["result"])
		evidence, err := s.Verify(ctx, act)
		if err != nil {
			return l.failedIn(ctx, s, "verify", err, made)
		}
		if err := l.r.put(&b, &b.Evidence, "evidence", evidence); err != nil {
			if l.r.failure() != nil {
				return nil, err
			}
			return l.failedIn(ctx, s, "verify", err, made)
		}
	}
	return nil, l.record(kindDone, s, b, "")
}

// bad sorts an error of put: an unwritable store ends the run, a value that
// cannot be encoded is the step's fault.
func (l *loop) bad(ctx context.Context, s *Step, side string, err error) (*Outcome, error) {
	if broken := l.r.failure(); broken != nil {
		return nil, broken
	}
	return l.failed(ctx, s, side, err)
}

// failed stops the run at a step whose side returned err.
func (l *loop) failed(ctx context.Context, s *Step, side string, err error) (*Outcome, error) {
	return l.failedIn(ctx, s, side, err, made{})
}

// failedIn is failed with what Do had returned.
func (l *loop) failedIn(ctx context.Context, s *Step, side string, err error, made made) (*Outcome, error) {
	if broken := l.r.failure(); broken != nil {
		return nil, broken
	}
	// Only Plan and Do can say that nothing happened. A definitive answer is
	// kept even when ctx is cancelled by now.
	definitive := side == "plan" || side == "do" && IsDefinitive(err)
	if ctx.Err() != nil && (side == "plan" || !definitive) {
		return l.interruptedIn(ctx, s, made)
	}
	err = fmt.Errorf("step %s: %s: %w", s.ID, side, err)
	b := body{Section: s.Section, Title: s.Title, Side: side, Error: clip(err.Error(), spill), Definitive: &definitive}
	made.into(&b)
	errors.As(err, &b.Conflict)
	if err := l.record(kindFailed, s, b, err.Error()); err != nil {
		return nil, err
	}
	return &Outcome{State: Failed, Step: s.ID, Reason: err.Error(), Err: err}, nil
}

func (l *loop) conflict(s *Step, sight Sight) error {
	st := l.r.fold.get(s.ID)
	return &ConflictError{Object: s.Title, Before: l.show(st.before()), Ours: l.show(st.params()), Now: sight.Detail}
}

// show is a journalled value for one line of a message.
func (l *loop) show(v value) string {
	if v.spilled {
		return "(blob " + string(v.text) + ")"
	}
	return clip(string(v.text), 400)
}

// clip cuts an overlong text to about n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func (l *loop) interrupted(ctx context.Context, s *Step) (*Outcome, error) {
	return l.interruptedIn(ctx, s, made{})
}

// interruptedIn is interrupted with what Do had returned.
func (l *loop) interruptedIn(ctx context.Context, s *Step, made made) (*Outcome, error) {
	if l.asked != RequestStop && l.asked != RequestRollback { // else they are taken
		if err := l.take(); err != nil {
			return nil, err
		}
	}
	err := context.Cause(ctx)
	if (err == nil || errors.Is(err, errAsked)) && l.askedWhy != "" {
		err = errors.New(l.askedWhy)
	}
	b := body{Reason: err.Error()}
	made.into(&b)
	if rerr := l.record(kindInterrupted, s, b, err.Error()); rerr != nil {
		return nil, rerr
	}
	return &Outcome{State: Interrupted, Step: s.ID, Reason: err.Error(), Err: err}, nil
}

func (l *loop) paused(s *Step, reason string) (*Outcome, error) {
	if err := l.record(kindPaused, s, body{Reason: reason}, reason); err != nil {
		return nil, err
	}
	return &Outcome{State: Paused, Step: s.ID, Reason: reason}, nil
}

// held tells the kinds of records on which nothing rests when they are written:
// they become durable with the next one, or before a side of a step is called.
func held(kind string) bool {
	switch kind {
	case kindStarted, kindGate, kindApproved, kindDone, kindSkipped, kindUndone, kindUndoFailed:
		return true
	}
	return false
}

// record appends or holds a record, and tells the observer once it is durable.
// s is nil for the run itself.
func (l *loop) record(kind string, s *Step, b body, text string) error {
	rec := Record{Kind: kind}
	if s != nil {
		rec.Step = s.ID
		if st := l.r.fold.get(s.ID); kind != kindGate && kind != kindApproval && kind != kindApproved && kind != kindSkipped {
			rec.Attempt, rec.Key = st.Attempt, st.Key
		}
	}
	if held(kind) {
		if err := l.r.hold(rec, b); err != nil {
			return err
		}
		l.untold = append(l.untold, event(l.r.fold.seq, kind, s, text))
		return nil
	}
	if err := l.r.append(rec, b); err != nil {
		return err
	}
	l.tell()
	l.emit(l.r.fold.seq, kind, s, text)
	return nil
}

// flush makes what is held durable and tells the observer.
func (l *loop) flush() error {
	if err := l.r.flush(); err != nil {
		return err
	}
	l.tell()
	return nil
}

// flushForPlan is flush, but for the one word that a run's first process has
// begun: a journal that has just been opened says of itself that the run is at
// work, a Plan changes nothing, and the intent comes with it. What a Plan tells
// the observer makes it durable first.
func (l *loop) flushForPlan() error {
	if l.first > 0 && l.first == l.r.fold.seq {
		return nil
	}
	return l.flush()
}

// flushEarly is flush for a Plan that tells something, from any of its
// goroutines. It is false when the journal is broken: then nobody is told, and
// the loop finds out by itself.
func (l *loop) flushEarly() bool {
	l.early.Lock()
	defer l.early.Unlock()
	return l.flush() == nil
}

// tell gives the observer the events of records that were held and are durable
// now.
func (l *loop) tell() {
	untold := l.untold
	l.untold = nil
	for _, e := range untold {
		l.observe(e)
	}
}

func event(seq int, kind string, s *Step, text string) Event {
	e := Event{Seq: seq, Time: time.Now(), Kind: kind, Text: text}
	if s != nil {
		e.Step, e.Section, e.Title = s.ID, s.Section, s.Title
	}
	return e
}

func (l *loop) emit(seq int, kind string, s *Step, text string) {
	l.observe(event(seq, kind, s, text))
}

func (l *loop) observe(e Event) {
	if l.o.Observer == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o.Observer(e)
}
