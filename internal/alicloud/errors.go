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

// ErrCredentials matches every error that other credentials would mend.
var ErrCredentials = errors.New("credentials")

// Codes of our own, where the cloud sent none.
const (
	CodeNoAnswer  = "NoAnswer"  // the connection failed or no answer came in time
	CodeBadAnswer = "BadAnswer" // an answer came that is none: HTML, empty, unreadable
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

	hint string
	err  error
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

// Is reports whether target is ErrCredentials and the cloud refused them.
func (e *Error) Is(target error) bool { return target == ErrCredentials && authCodes[e.Code] }

// authCodes are the answers to wrong, expired or unauthorised credentials.
var authCodes = map[string]bool{
	"InvalidAccessKeyId.NotFound": true, "InvalidAccessKeyId.Inactive": true, "InvalidAccessKeyId": true,
	"SignatureDoesNotMatch": true, "IncompleteSignature": true, "MissingAccessKeyId": true, "Forbidden.AccessKeyDisabled": true,
	"InvalidSecurityToken.Expired": true, "InvalidSecurityToken.Malformed": true, "InvalidSecurityToken.MismatchWithAccessKey": true,
	"MissingSecurityToken": true, "Forbidden.RAM": true, "Forbidden": true, "Forbidden.Unauthorized": true, "NoPermission": true,
}

// NotFound reports whether the cloud does not know the object asked for.
func (e *Error) NotFound() bool {
	switch e.Code {
	case "InvalidInstanceId.NotFound", "Forbidden.InstanceNotFound", "InvalidSnapshotId.NotFound", "InvalidImageId.NotFound",
		"InvalidDiskId.NotFound", "InvalidLoadBalancerId.NotFound", "InvalidServerId.NotFound", "InvalidSnapshot.NotFound":
		return true
	case "InvalidParameter":
		return e.HTTPStatus == 404 && strings.Contains(e.Message, "does not exist")
	}
	return false
}
