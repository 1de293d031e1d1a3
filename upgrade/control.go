package upgrade

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Pause asks the process at work on the run in dir to stop before its next
// step that is a safe point. It does not wait.
func Pause(dir, actor, reason string) error {
	return engine.Ask(dir, engine.Request{Kind: engine.RequestPause, Actor: actor, Reason: reason})
}

// Abort does to the run in dir what way says: "stop", "rollback" or "park". What
// is not legal now is a *RefusedError that lists what is. A process at work is
// asked, and live is true; a run that no process works on is rolled back or
// parked here.
func Abort(ctx context.Context, dir, way, reason string, o RunOptions) (r *Result, live bool, err error) {
	h, err := engine.Read(dir)
	if err != nil {
		return nil, false, err
	}
	var others []string
	for _, w := range h.Ways() {
		switch {
		case w.Name == way && !w.Legal:
			defer func() {
				err = &RefusedError{What: fmt.Sprintf("cannot %s run %s", way, h.Run), Reasons: append([]string{w.Why}, others...)}
			}()
		case w.Name != way && w.Legal:
			others = append(others, "what is legal now: "+w.Name+": "+w.Why)
		case w.Name == way:
			kind := engine.RequestRollback
			if way == "stop" {
				kind = engine.RequestStop
			}
			if h.Live {
				return nil, true, engine.Ask(dir, engine.Request{Kind: kind, Actor: o.Actor, Reason: reason})
			}
			r, err = Rollback(ctx, dir, o)
			return r, false, err
		}
	}
	return nil, false, engine.Invalid("abort knows stop, rollback and park, not %q", way)
}

// WaitTaken waits until no request for the run in dir is left to take, and with
// stand until no process is at work any more.
func WaitTaken(ctx context.Context, dir string, stand bool) error {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		h, err := engine.Read(dir)
		if err != nil {
			return err
		}
		if !h.Live || !stand && len(h.Waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("run %s is still at work on %s, %d requests wait: %w", h.Run, h.Step, len(h.Waiting), context.Cause(ctx))
		case <-t.C:
		}
	}
}

// A Record is one line of the journal; see engine.Record.
type Record = engine.Record

// Events gives the records of the run in dir from number after+1 on. With follow
// it waits for more until no process is at work.
func Events(ctx context.Context, dir string, after int, follow bool) iter.Seq2[Record, error] {
	records := engine.Records(dir)
	if follow {
		records = engine.Follow(ctx, dir)
	}
	return func(yield func(Record, error) bool) {
		for rec, err := range records {
			if (err != nil || rec.Seq > after) && !yield(rec, err) {
				return
			}
		}
	}
}
