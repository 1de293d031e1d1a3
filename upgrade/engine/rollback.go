package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rollback undoes what the journal says was done or begun, last completed
// first: to the beginning (rolled-back), or, once a pivot step has an intent,
// back to just after it (parked). It stops at the first undo that fails, since
// a later one could destroy what traffic needs by then, and lists the Work
// left; another Rollback goes on there. The error is not nil when nothing was
// begun (ErrPastReturn after an irreversible intent, ErrInvalid, ErrVersion,
// ErrBusy) or the journal could not be written (ErrUnwritable). A run that is
// rolled back or parked already is left as it is.
func (r *Run) Rollback(ctx context.Context, steps []Step, o Options) (Outcome, error) {
	if !r.busy.TryLock() {
		return Outcome{}, ErrBusy
	}
	defer r.busy.Unlock()
	o.Until, o.Approve, o.ApproveAll = "", nil, false // they are about going forward
	l, err := r.begin(steps, o)
	if err != nil {
		return Outcome{}, err
	}
	if r.fold.irreversible != "" {
		return Outcome{}, fmt.Errorf("cannot roll back after %s: %w", r.fold.irreversible, ErrPastReturn)
	}
	if r.fold.state == RolledBack || r.fold.state == Parked {
		return Outcome{State: r.fold.state, Reason: r.fold.reason}, nil
	}
	out, err := l.backWatched(ctx)
	return l.end(out, err)
}

func (l *loop) backWatched(ctx context.Context) (Outcome, error) {
	l.back, l.asked, l.askedWhy = true, "", ""
	watched, stop := l.watch(ctx)
	defer stop()
	return l.undoAll(watched)
}

// undoing is one step of a rollback.
type undoing struct {
	s     *Step
	order int  // its place in the journal: undone from high to low
	reset bool // nothing to undo, but it must run again after parking
}

// toUndo lists what a rollback has to do, in order.
func (l *loop) toUndo() []undoing {
	f := l.r.fold
	parking := f.pivotSeq > 0
	var todo []undoing
	for i := range l.steps {
		s := &l.steps[i]
		st := f.get(s.ID)
		switch {
		case st.skipped:
			// Why it was skipped may be different next time.
			if parking && st.endSeq > f.pivotSeq {
				todo = append(todo, undoing{s: s, order: st.endSeq, reset: true})
			}
		case !st.open && !st.done, st.intentSeq <= f.pivotSeq && parking:
			// Never begun, undone, surely without effect; or before the pivot or
			// the pivot itself.
		case s.Effect == ReadOnly:
			// What was seen before traffic moved back proves nothing after it.
			if parking {
				todo = append(todo, undoing{s: s, order: max(st.endSeq, st.intentSeq), reset: true})
			}
		case s.Undo != nil:
			todo = append(todo, undoing{s: s, order: max(st.endSeq, st.intentSeq)})
		}
	}
	slices.SortFunc(todo, func(a, b undoing) int { return cmp.Compare(b.order, a.order) })
	return todo
}

func (l *loop) undoAll(ctx context.Context) (Outcome, error) {
	if err := l.started(modeRollback); err != nil {
		return Outcome{}, err
	}
	todo := l.toUndo()
	for i, u := range todo {
		if !u.reset { // a side comes: see run
			if err := l.flush(); err != nil {
				return Outcome{}, err
			}
		}
		if err := l.take(); err != nil {
			return Outcome{}, err
		}
		var stop *Outcome
		var err error
		switch {
		case ctx.Err() != nil || l.asked == RequestStop:
			stop, err = l.interrupted(ctx, u.s)
		case l.asked == RequestPause && (i == 0 || !todo[i-1].s.Joined):
			stop, err = l.paused(u.s, l.askedWhy)
		default:
			uerr := l.undo(ctx, u)
			switch broken := l.r.failure(); {
			case uerr == nil:
			case broken != nil:
				return Outcome{}, broken
			case ctx.Err() != nil:
				stop, err = l.interrupted(ctx, u.s)
			default:
				return l.incomplete(todo[i:], uerr)
			}
		}
		if err != nil {
			return Outcome{}, err
		}
		if stop != nil {
			return *stop, nil
		}
	}
	if l.r.fold.pivotSeq > 0 {
		reason := "undone back to just after " + l.r.fold.pivotStep + ", which cannot be undone: resume goes on from there"
		return Outcome{State: Parked, Reason: reason}, l.record(kindParked, nil, body{Reason: reason}, reason)
	}
	return Outcome{State: RolledBack}, l.record(kindRolledBack, nil, body{}, "")
}

// undo takes one step back. Any error but that of a broken journal is the
// step's.
func (l *loop) undo(ctx context.Context, u undoing) error {
	s, st := u.s, l.r.fold.get(u.s.ID)
	if u.reset {
		return l.record(kindUndone, s, body{Reason: "runs again after resume"}, "")
	}
	if st.open && !st.undoing {
		sight, err := l.look(ctx, s)
		if err != nil {
			return fmt.Errorf("step %s: observe: %w", s.ID, err)
		}
		switch sight.State {
		case Ours, InProgress:
		case Absent:
			// With a journalled result it did happen: Undo has the last word.
			if !st.effect {
				return l.record(kindUndone, s, body{Reason: "nothing had happened"}, "nothing had happened")
			}
		case Foreign:
			return fmt.Errorf("step %s: observe: %w", s.ID, l.conflict(s, sight))
		default:
			return fmt.Errorf("step %s: internal error: Observe answered %q", s.ID, sight.State)
		}
	}
	if err := l.record(kindUndoIntent, s, body{}, ""); err != nil {
		return err
	}
	if err := s.Undo(ctx, l.act(s)); err != nil {
		return fmt.Errorf("step %s: undo: %w", s.ID, err)
	}
	return l.record(kindUndone, s, body{}, "")
}

// look observes an open intent before it is decided that there is nothing to
// undo.
func (l *loop) look(ctx context.Context, s *Step) (Sight, error) {
	for n := 1; ; n++ {
		sight, err := s.Observe(ctx, l.act(s))
		if err != nil || sight.State != Absent || s.Effect != TokenCreate || n == absentLooks {
			return sight, err
		}
		t := time.NewTimer(l.r.absentPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Sight{}, context.Cause(ctx)
		}
	}
}

// incomplete records that the first of left could not be undone.
func (l *loop) incomplete(left []undoing, err error) (Outcome, error) {
	s := left[0].s
	b := body{Error: clip(err.Error(), spill)}
	errors.As(err, &b.Conflict)
	if rerr := l.record(kindUndoFailed, s, b, err.Error()); rerr != nil {
		return Outcome{}, rerr
	}
	var work []string
	for i, u := range left {
		switch {
		case i == 0:
			work = append(work, fmt.Sprintf("undo %s (%s): %s", u.s.ID, u.s.Title, clip(err.Error(), spill)))
		case !u.reset:
			work = append(work, fmt.Sprintf("undo %s (%s)", u.s.ID, u.s.Title))
		}
	}
	rerr := l.record(kindRollbackIncomplete, s, body{Reason: clip(err.Error(), spill), Work: work}, err.Error())
	return Outcome{State: RollbackIncomplete, Step: s.ID, Reason: err.Error(), Work: work, Err: err}, rerr
}
