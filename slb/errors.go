package slb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// Sentinels that errors of this package match with errors.Is.
var (
	// ErrNotFound: there is no such balancer or group in the region.
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
	// ErrConflict: somebody else changed the member; see ConflictError.
	ErrConflict = errors.New("conflict")
	// ErrManaged: the balancer or group belongs to another service (as ACK),
	// which refuses changes and would undo them; change it there.
	ErrManaged = errors.New("managed by another service")
)

// An Error is what the cloud (or the way to it) answered to one call. It holds
// no key, signature, password, user data or query string, and neither does its
// text.
type Error struct {
	Action     string // API action, as SetBackendServers
	Code       string // the cloud's code, as ServiceIsConfiguring; ours when no code came: "NoAnswer", "BadAnswer"
	Message    string // the cloud's message, masked
	RequestID  string // for a support ticket; empty if there was no answer
	HTTPStatus int    // 0 if there was no answer
	// Ambiguous: the request may have taken effect although no success was
	// reported (broken connection, 5xx). Look before asking again.
	Ambiguous bool

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

// A ConflictError reports that a member is not as it was read: a person or
// another program changed it. Nothing was written. It matches ErrConflict.
type ConflictError struct {
	Group Group
	Was   Backend  // as the caller read it
	Want  int      // the weight that was to be set
	Now   *Backend // nil: no longer a member
}

// Error gives the three sides: before, wanted, now.
func (e *ConflictError) Error() string {
	where := fmt.Sprintf("member %s of %s", e.Was, e.Group)
	if e.Now == nil {
		return where + " is gone: somebody removed it; look at the balancer and decide again"
	}
	return fmt.Sprintf("%s has weight %d: read as %d, to be set to %d; somebody else changed it, look at the balancer and decide again",
		where, e.Now.Weight, e.Was.Weight, e.Want)
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// A JobError reports that ALB or NLB gave up on a write after it had accepted
// it: the group is as it was.
type JobError struct {
	Group         Group
	Job           string
	Code, Message string // of the cloud; "" if it gave none
}

// Error names the job, the group and the cloud's reason.
func (e *JobError) Error() string {
	s := fmt.Sprintf("job %s on %s failed", e.Job, e.Group)
	if e.Code != "" {
		s += ": " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s + "; nothing was changed by it"
}

// notFound is ErrNotFound with the object's name.
func (c *Client) notFound(object, id string) error {
	return fmt.Errorf("%s %s: %w in region %s", object, id, ErrNotFound, c.Region())
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
		Ambiguous: ae.Class == alicloud.Ambiguous,
		text:      err.Error(), err: ae.Unwrap(), class: ae.Class,
		again: ae.Class == alicloud.Transient, // flow control was waited out below, for as long as that is of use
	}
	switch {
	case strings.Contains(ae.Code, "ServiceManaged"):
		e.kind = ErrManaged
	case ae.NotFound(), strings.HasPrefix(ae.Code, "ResourceNotFound."):
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
