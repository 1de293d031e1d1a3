// Package poll waits for something to change by looking at it again and again.
//
// # Guarantees
//
//  1. A cancelled or timed-out wait returns an error that wraps the context's,
//     and says what was seen last (TestDeadline, TestCancel).
//  2. The first look happens at once; the interval then grows from 1x to 5x
//     (TestIntervals).
//  3. A few failed looks in a row are tolerated, but only those that the caller
//     calls retryable (TestErrors).
//  4. Waits of one Group share their looks, see each end in time, and leave no
//     goroutine behind (TestGroupShares, TestGroupEnds).
//
// # Limits
//
// It does not interrupt a look: check must honour its context.
//
// # Errors
//
// Every error of Until is an [*Error], except one that check returned together
// with Stop, which comes back as it is.
package poll

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Poller says how to wait. The zero value looks every 3 to 15 s and tolerates
// no failed look.
type Poller struct {
	Interval time.Duration // first interval; 0 means 3 s
	Max      time.Duration // longest interval; 0 means five times Interval
	// Steady turns jitter off. By default each interval is shortened by up to a
	// tenth, so that many waits begun together do not stay together.
	Steady bool
	// Retryable says whether a failed look may be followed by another. nil: none.
	Retryable func(error) bool
	// Tolerate is how many failed looks in a row are borne; 0 means 3.
	Tolerate int
}

// An Error reports a wait that did not reach its end.
type Error struct {
	What  string        // as "snapshot s-1"
	State string        // seen last; "" if nothing ever was
	After time.Duration // how long was waited
	Err   error         // the context's error, or that of a look
}

// Error says what was waited for, what was seen last, for how long, and why the
// wait ended.
func (e *Error) Error() string {
	after := e.After.Round(time.Second)
	if e.After < time.Second {
		after = e.After.Round(time.Millisecond)
	}
	ended := errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded)
	switch {
	case ended && e.State == "":
		return fmt.Sprintf("%s: nothing seen in %s: %v", e.What, after, e.Err)
	case ended:
		return fmt.Sprintf("%s still %q after %s: %v", e.What, e.State, after, e.Err)
	case e.State == "":
		return fmt.Sprintf("cannot follow %s: %v", e.What, e.Err)
	default:
		return fmt.Sprintf("cannot follow %s, last seen %q, after %s: %v", e.What, e.State, after, e.Err)
	}
}

// Unwrap returns the reason for which the wait ended.
func (e *Error) Unwrap() error { return e.Err }

type stop struct{ err error }

func (s stop) Error() string { return s.err.Error() }

// Stop marks an error of check as the end of the wait: Until returns err itself,
// at once.
func Stop(err error) error { return stop{err} }

// Until calls check until it reports done, ctx ends, or looking fails for good.
// check returns what it saw in words a person understands; it is kept for the
// error.
func (p Poller) Until(ctx context.Context, what string, check func(context.Context) (state string, done bool, err error)) error {
	interval := p.Interval
	if interval <= 0 {
		interval = 3 * time.Second
	}
	longest := p.Max
	if longest <= 0 {
		longest = 5 * interval
	}
	tolerate := p.Tolerate
	if tolerate <= 0 {
		tolerate = 3
	}

	start := time.Now()
	last, failed := "", 0
	fail := func(err error) error {
		return &Error{What: what, State: last, After: time.Since(start), Err: err}
	}
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		state, done, err := check(ctx)
		var s stop
		switch {
		case errors.As(err, &s):
			return s.err
		case err != nil && ctx.Err() != nil:
			// Whatever the look says, it failed because the wait is over.
			if !errors.Is(err, ctx.Err()) {
				err = ctx.Err()
			}
			return fail(err)
		case err != nil:
			failed++
			if p.Retryable == nil || !p.Retryable(err) || failed > tolerate {
				return fail(err)
			}
		case done:
			return nil
		default:
			last, failed = state, 0
		}

		pause := interval
		if !p.Steady {
			pause -= rand.N(pause/10 + 1)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fail(ctx.Err())
		case <-timer.C:
		}
		interval = min(interval+interval/2, longest)
	}
}
