package alicloud

import (
	"context"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/poll"
)

// WithLimit is context.WithTimeout with a clock that stands still while calls
// under the context wait for the cloud's flow control. A limit says how long a
// thing in the cloud may take; that the account's other tools use up its quota
// of questions says nothing about the thing.
//
// Deadline is the parent's. Cancel the context when it is no longer needed.
func WithLimit(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	l := &limited{Context: parent, done: make(chan struct{}), left: d}
	if err := parent.Err(); err != nil {
		l.end(err)
		return l, func() {}
	}
	l.mu.Lock()
	l.run()
	l.mu.Unlock()
	stop := context.AfterFunc(parent, func() { l.end(parent.Err()) })
	return l, func() {
		stop()
		l.end(context.Canceled)
	}
}

// limited is a context with a limit.
type limited struct {
	context.Context
	done chan struct{}

	mu    sync.Mutex
	err   error
	left  time.Duration // at since
	since time.Time     // when the clock began to run
	held  int           // calls for which it stands still
	timer *time.Timer
}

type limitKey struct{}

// Value implements context.Context.
func (l *limited) Value(key any) any {
	if key == (limitKey{}) {
		return l
	}
	return l.Context.Value(key)
}

// Done implements context.Context.
func (l *limited) Done() <-chan struct{} { return l.done }

// Err implements context.Context.
func (l *limited) Err() error {
	if err := l.Context.Err(); err != nil {
		l.end(err) // the parent's end may still be on its way to us
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// end ends the context, unless it has ended before.
func (l *limited) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.err = err
	close(l.done)
}

// run starts the clock. l.mu is held.
func (l *limited) run() {
	l.since = time.Now()
	l.timer = time.AfterFunc(l.left, func() { l.end(context.DeadlineExceeded) })
}

// hold stops the clock and returns what lets it go on.
func (l *limited) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held++; l.held == 1 && l.err == nil && l.timer.Stop() {
		l.left -= time.Since(l.since)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held--; l.held == 0 && l.err == nil {
			l.run()
		}
	}
}

// hold stops the clocks of all limits that ctx has, and those of everybody who
// waits for a shared look of which ctx is, until release is called.
func hold(ctx context.Context) (release func()) {
	var all []func()
	for _, ctx := range append(poll.Waiters(ctx), ctx) {
		for {
			l, ok := ctx.Value(limitKey{}).(*limited)
			if !ok {
				break
			}
			all = append(all, l.hold())
			ctx = l.Context
		}
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}
