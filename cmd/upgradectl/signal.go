package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// interruption is what signals mean to a command that moves a run.
type interruption struct {
	working atomic.Bool // a run is moved: a lost terminal pauses it
	pause   chan string
	quit    chan struct{}
}

// quitLimit is how long the second signal waits for the last record.
const quitLimit = 3 * time.Second

// signals makes the first SIGINT or SIGTERM end ctx: the command detaches from
// what runs on a host, records it, and ends with status 130. The second one
// ends the process at once, also with 130; a run gets its record first. SIGHUP,
// the lost terminal, lets a run go on to its next safe point; every other
// command ends as with SIGINT.
func (a *app) signals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.interruption = &interruption{pause: make(chan string, 1), quit: make(chan struct{})}
	got := make(chan os.Signal, 4)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for first := true; ; {
			var s os.Signal
			select {
			case <-stop:
				return
			case s = <-got:
			}
			switch {
			case s == syscall.SIGHUP && a.interruption.working.Load():
				select {
				case a.interruption.pause <- "the terminal was lost (SIGHUP)":
				default: // it is asked already
				}
			case first:
				first = false
				cancel(fmt.Errorf("a signal (%s)", s)) // in the journal: why the run was interrupted
			case s == syscall.SIGHUP:
			default:
				close(a.interruption.quit)
				if a.interruption.working.Load() {
					select {
					case <-stop:
						return
					case <-time.After(quitLimit):
					}
				}
				os.Exit(exitInterrupted)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		close(stop)
		<-ended
		cancel(nil)
	}
}

// moves tells that a run is moved until the returned function is called. The
// pipe behind standard output may break meanwhile, as with a lost terminal:
// that must not kill the run.
func (a *app) moves() func() {
	if a.interruption == nil {
		return func() {}
	}
	a.interruption.working.Store(true)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	return func() {
		a.interruption.working.Store(false)
		signal.Stop(pipe)
	}
}
