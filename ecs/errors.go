package ecs

import (
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// Sentinels that errors of this package match with errors.Is.
var (
	// ErrNotFound: there is no such instance, snapshot or image in the region.
	ErrNotFound = errors.New("not found")
	// ErrCredentials: there are no usable credentials, or the cloud refused the
	// ones it was given. Trying again does not help; the message says what does.
	ErrCredentials = errors.New("credentials")
	// ErrPermission: the account may not do this; the message names the policy
	// statement that is missing. Such errors match ErrCredentials as well.
	ErrPermission = errors.New("permission")
	// ErrClock: the clock of this machine is more than 15 minutes off; the
	// message says by how much.
	ErrClock = errors.New("clock")
	// ErrRegion: there is no such region, or nothing at its endpoint.
	ErrRegion = errors.New("region")
	// ErrGuard: a call that destroys something refused before asking the cloud,
	// because the object does not carry the mark that was asked for.
	ErrGuard = errors.New("guard")
)

// An Error is what the cloud (or the way to it) answered to one call. It holds
// no key, signature, password, user data or query string, and neither does its
// text.
type Error struct {
	Action     string // API action, as CreateSnapshot
	Code       string // the cloud's code, as IncorrectInstanceStatus; ours when no code came: "NoAnswer", "BadAnswer"
	Message    string // the cloud's message, masked
	RequestID  string // for a support ticket; empty if there was no answer
	HTTPStatus int    // 0 if there was no answer
	// Ambiguous: the request may have taken effect although no success was
	// reported (broken connection, 5xx). Look before asking again.
	Ambiguous bool
	// Definitive: the cloud refused, the request had no effect, and sending
	// it again as it is cannot help.
	Definitive bool

	text  string
	err   error
	kind  error
	class alicloud.Class
	again bool // asking again later may help
}

// Error says what was asked, what came back, and what to do if that is known.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause: the context's error if the call was cancelled, or
// the network error.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is a sentinel that fits e.
func (e *Error) Is(target error) bool {
	return e.kind != nil && (target == e.kind || target == ErrCredentials && e.kind == ErrPermission)
}

// A GuardError reports that a call that destroys something refused. It matches
// ErrGuard.
type GuardError struct {
	Object string // "instance" (also if empty), "image", "snapshot", "snapshot group" or "disk"
	ID     string
	Reason string // why it was refused
}

// Error names the object and the reason.
func (e *GuardError) Error() string {
	verb, object := "delete", e.Object
	switch object {
	case "", "instance":
		verb, object = "release", "instance"
	case "disk":
		verb = "overwrite"
	}
	return fmt.Sprintf("refusing to %s %s %s: %s", verb, object, e.ID, e.Reason)
}

// Is reports whether target is ErrGuard.
func (e *GuardError) Is(target error) bool { return target == ErrGuard }

// A StateError reports that something reached a state from which it cannot get
// where it was waited for, as a snapshot that is "failed" or an instance that
// vanished.
type StateError struct {
	Object string // "snapshot", "image", "instance", "disk" or "command"
	ID     string
	State  string // last state seen; "" if the object is gone
	Want   string // state waited for
	Detail string // what the cloud says about it; may be empty

	never string // the region in whose lists it never showed
}

// Error names the object, its state and the state that was waited for.
func (e *StateError) Error() string {
	s := fmt.Sprintf("%s %s is %q and will not become %q", e.Object, e.ID, e.State, e.Want)
	switch {
	case e.never != "":
		s = fmt.Sprintf("%s %s: not found in %s, so it will not become %q", e.Object, e.ID, e.never, e.Want)
	case e.State == "":
		s = fmt.Sprintf("%s %s is gone and will not become %q", e.Object, e.ID, e.Want)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Is reports whether target is ErrNotFound and the object is gone.
func (e *StateError) Is(target error) bool { return target == ErrNotFound && e.State == "" }

// notFound is ErrNotFound with the object's name.
func notFound(object, id string) error {
	return fmt.Errorf("%s %s: %w", object, id, ErrNotFound)
}

// wrap turns an error of the layer below into one of this package.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	var ae *alicloud.Error
	if !errors.As(err, &ae) {
		if errors.Is(err, alicloud.ErrCredentials) {
			return fmt.Errorf("%w: %w", ErrCredentials, err)
		}
		if errors.Is(err, alicloud.ErrRegion) {
			return &Error{text: err.Error(), err: err, kind: ErrRegion}
		}
		return err
	}
	e := &Error{
		Action: ae.Action, Code: ae.Code, Message: ae.Message, RequestID: ae.RequestID, HTTPStatus: ae.HTTPStatus,
		Ambiguous: ae.Class == alicloud.Ambiguous, Definitive: ae.Class == alicloud.Definitive,
		text: err.Error(), err: ae.Unwrap(), class: ae.Class,
		again: ae.Class == alicloud.Transient, // flow control was waited out below, for as long as that is of use
	}
	switch {
	case ae.NotFound():
		e.kind = ErrNotFound
	case errors.Is(ae, alicloud.ErrPermission):
		e.kind = ErrPermission
	case errors.Is(ae, alicloud.ErrClock):
		e.kind = ErrClock
	case errors.Is(ae, alicloud.ErrRegion):
		e.kind = ErrRegion
	case errors.Is(ae, alicloud.ErrCredentials):
		e.kind = ErrCredentials
	}
	return e
}
