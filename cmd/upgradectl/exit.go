package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
)

// The exit statuses, for people in docs/errors.md. They are the interface to
// scripts: a number never changes its meaning.
const (
	exitOK                 = 0
	exitFailure            = 1   // an error
	exitUsage              = 2   // the command line is wrong
	exitConfig             = 3   // a configuration file is wrong
	exitRefused            = 4   // refused with nothing changed, or a comparison found a loss
	exitPaused             = 5   // waits for a person
	exitFailed             = 6   // stopped, can be resumed
	exitRolledBack         = 7   // failed, everything is as before
	exitRollbackIncomplete = 8   // failed, the work that is left was printed
	exitLocked             = 9   // somebody else works on it
	exitDrift              = 10  // the world is not as it was read or planned
	exitParked             = 11  // traffic stays on the transition host
	exitDamaged            = 12  // the journal cannot be trusted or written
	exitInterrupted        = 130 // by a signal, can be resumed
)

// An exitError gives an error its exit status. Without err nothing is printed:
// the result was.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// A usageError says that the command line is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef formats a usageError. Texts come in two languages and so are seldom
// constants: without arguments the text is taken as it is.
func usagef(format string, args ...any) error {
	if len(args) == 0 {
		return &usageError{errors.New(format)}
	}
	return &usageError{errors.New(sprintf(format, args))}
}

// sprintf keeps vet from asking for a constant format of usagef's callers.
func sprintf(format string, args []any) string { return fmt.Sprintf(format, args...) }

// as says whether err is or wraps an error of type T.
func as[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

// isList says whether the error's text is a list of positions.
func isList(err error) bool {
	return as[*upgrade.ConfigError](err) || as[*hostinv.ConfigError](err) || as[pitrix.Problems](err)
}

// exitStatus is the one place that turns an error into a number.
func exitStatus(ctx context.Context, err error) int {
	var e *exitError
	var applied *nginx.ApplyError
	interrupted := ctx.Err() != nil && errors.Is(err, context.Canceled)
	switch {
	case err == nil:
		return exitOK
	// What was cut off while it asked was not refused, whatever it was doing.
	case errors.As(err, &e) && !(interrupted && (e.code == exitFailure || e.code == exitRefused)):
		return e.code
	case interrupted:
		return exitInterrupted
	case as[*usageError](err):
		return exitUsage
	case isList(err), errors.Is(err, pitrix.ErrBadValue), errors.Is(err, pitrix.ErrBadKey):
		return exitConfig
	case upgrade.ErrorStatus(err) != exitFailure:
		return upgrade.ErrorStatus(err) // of plans and runs; what somebody else changed as well
	case errors.As(err, &applied) && applied.PutBack != nil:
		return exitRollbackIncomplete
	case errors.As(err, &applied):
		return exitRolledBack
	case as[*nginx.RefusedError](err), as[*nginx.GuardError](err), as[*ecs.GuardError](err),
		as[*slb.RefusedError](err), as[*slb.RuleConflictError](err), errors.Is(err, slb.ErrManaged),
		as[*pitrix.ScopeError](err):
		return exitRefused
	case as[*pitrix.MarkedError](err), as[*pitrix.IdentityError](err), as[*pitrix.RunningError](err),
		as[*pitrix.MissingScriptError](err), as[*pitrix.LaunchedError](err), as[*pitrix.VIPError](err), as[*pitrix.HAProxyCheckError](err):
		return exitRefused
	case as[*pitrix.DriftError](err):
		return exitDrift
	// The weights, or the new workers, stay: the wait can be gone on with.
	case as[*slb.NotSilentError](err), as[*nginx.NotDrainedError](err):
		return exitFailed
	// Nobody let us in, so nothing was changed.
	case errors.Is(err, ecs.ErrCredentials), errors.Is(err, slb.ErrCredentials),
		errors.Is(err, ecs.ErrClock), errors.Is(err, ecs.ErrRegion), errors.Is(err, slb.ErrClock), errors.Is(err, slb.ErrRegion),
		as[*hostinv.UnknownHostKeyError](err), as[*hostinv.HostKeyChangedError](err),
		as[*hostinv.HostKeyRevokedError](err), as[*hostinv.AuthError](err), as[*hostinv.DialError](err):
		return exitRefused
	}
	return exitFailure
}
