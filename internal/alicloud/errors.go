package alicloud

import (
	"errors"
	"fmt"
	"strings"
)

// A Class says what a failed call means for the one who made it.
type Class string

// The classes. Only Ambiguous leaves open whether the request took effect.
const (
	Throttled    Class = "throttled"    // too many requests; not executed
	Transient    Class = "transient"    // busy with something else or not reached; not executed
	Ambiguous    Class = "ambiguous"    // broken connection, 5xx, unreadable answer: may have been executed
	Precondition Class = "precondition" // the object is in the wrong state; not executed
	Definitive   Class = "definitive"   // wrong for good; not executed
)

// Sentinels that errors of this package match with errors.Is. An error that
// matches one of them had no effect in the cloud.
var (
	// ErrCredentials: other credentials would mend it.
	ErrCredentials = errors.New("credentials")
	// ErrPermission: the account may not do this. Such errors match
	// ErrCredentials as well.
	ErrPermission = errors.New("permission")
	// ErrClock: the clock of this machine is too far off for the cloud.
	ErrClock = errors.New("clock")
	// ErrRegion: there is no such region, or nothing at its endpoint.
	ErrRegion = errors.New("region")
)

// Codes of our own, where the cloud sent none.
const (
	CodeNoAnswer  = "NoAnswer"  // the connection failed or no answer came in time
	CodeBadAnswer = "BadAnswer" // an answer came that is none: HTML, empty, unreadable

	CodeNoCredentials = "NoCredentials" // the keys of a role cannot be got
)

// An Error is one failed API call. Neither its fields nor its text hold a key,
// a signature, a token, user data or a query string.
type Error struct {
	Action     string
	Code       string
	Message    string
	HTTPStatus int
	RequestID  string
	Class      Class

	hint  string
	kind  error // ErrPermission, ErrClock or ErrRegion
	err   error
	quota quota
}

// Error says what was asked, what came back and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Action, e.Code)
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	if e.hint != "" {
		fmt.Fprintf(&b, "; %s", e.hint)
	}
	return b.String()
}

// Unwrap returns the context's or the network's error, if that was the cause.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is the sentinel that fits e.
func (e *Error) Is(target error) bool {
	return e.kind != nil && target == e.kind || target == ErrCredentials && (authCodes[e.Code] || permission(e.Code))
}

// permission reports whether a code means that the account may not do this.
func permission(code string) bool {
	switch code {
	case "Forbidden", "Forbidden.Unauthorized", "NoPermission", "Forbidden.SubUser", "Forbidden.NoPermission", "Unauthorized", "InvalidUser.PassRoleForbidden":
		return true
	}
	return strings.HasPrefix(code, "Forbidden.RAM") || strings.HasPrefix(code, "NoPermission.")
}

// skewed reports whether a code means that the request's time is not the
// cloud's.
func skewed(code string) bool {
	return code == "IllegalTimestamp" || code == "RequestTimeTooSkewed" || strings.HasPrefix(code, "InvalidTimeStamp")
}

// authCodes are the answers to wrong or expired credentials.
var authCodes = map[string]bool{
	"InvalidAccessKeyId.NotFound": true, "InvalidAccessKeyId.Inactive": true, "InvalidAccessKeyId": true,
	"SignatureDoesNotMatch": true, "IncompleteSignature": true, "MissingAccessKeyId": true, "Forbidden.AccessKeyDisabled": true,
	"InvalidSecurityToken.Expired": true, "InvalidSecurityToken.Malformed": true, "InvalidSecurityToken.MismatchWithAccessKey": true,
	"MissingSecurityToken": true, "SignatureNotMatch": true, CodeNoCredentials: true,
}

// NotFound reports whether the cloud does not know the object asked for.
func (e *Error) NotFound() bool {
	switch e.Code {
	case "InvalidInstanceId.NotFound", "Forbidden.InstanceNotFound", "InvalidSnapshotId.NotFound", "InvalidImageId.NotFound",
		"InvalidDiskId.NotFound", "InvalidLoadBalancerId.NotFound", "InvalidServerId.NotFound", "InvalidSnapshot.NotFound",
		"InvalidSnapshotGroupId.NotFound", "InvalidSecurityGroupId.NotFound":
		return true
	case "InvalidParameter":
		return e.HTTPStatus == 404 && strings.Contains(e.Message, "does not exist")
	}
	return false
}
