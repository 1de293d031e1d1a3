package alicloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

const (
	maxPause = 30 * time.Second
	// A host that cannot be reached is tried a few times only: the cause is
	// mostly a wrong endpoint or a missing network, and somebody is waiting.
	maxDials = 4
)

// retry repeats try while that is safe and of use.
func (c *Client) retry(ctx context.Context, o op, try func() *Error) error {
	start := time.Now()
	pause := c.pause
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return &Error{Action: o.action, Code: CodeNoAnswer, Message: err.Error() + " before the request was sent", Class: Definitive, err: err}
		}
		e := try()
		switch {
		case e == nil:
			return nil
		case ctx.Err() != nil:
			return e
		case e.Class == Precondition || e.Class == Definitive,
			e.Class == Ambiguous && !o.repeat,
			e.Class == Transient && e.Code == CodeNoAnswer && n >= maxDials:
			return e
		}
		// Full jitter: many clients that were throttled together must not come
		// back together.
		wait := rand.N(pause) + time.Millisecond
		pause = min(2*pause, maxPause)
		if time.Since(start)+wait > c.budget {
			e.hint = join(e.hint, fmt.Sprintf("gave up after %d attempts in %s", n, time.Since(start).Round(time.Second)))
			return e
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			// What the last attempt left open stays open.
			return &Error{Action: o.action, Code: e.Code, Message: ctx.Err().Error() + " while waiting to repeat the request", HTTPStatus: e.HTTPStatus, RequestID: e.RequestID, Class: e.Class, err: ctx.Err()}
		}
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// busy are the codes of requests that were refused because the object is
// occupied with an earlier one.
var busy = map[string]bool{
	"ServiceIsConfiguring": true, "VServerGroupProcessing": true, "BackendServer.configuring": true, "SystemBusy": true,
	"OperationBusy": true, "ServiceIsStopping": true, "ProcessingSameRequest": true, "OperationConflict": true,
	"Operation.Conflict": true, "IdempotentProcessing": true, "IdempotenceProcessing": true, "LastTokenProcessing": true,
	"TaskConflict": true, "Conflict.Lock": true, "DependencyViolation.SLBConfiguring": true,
}

// wrongState are prefixes of codes of requests that were refused because of the
// state an object is in; asking again helps once that has changed.
var wrongState = []string{
	"IncorrectInstanceStatus", "IncorrectDiskStatus", "IncorrectVSwitchStatus", "IncorrectStatus", "InvalidSnapshotId.NotReady",
	"InvalidOperation.Conflict", "SnapshotCreatedImage", "SnapshotCreatedDisk", "ImageUsingByInstance", "OperationDenied.ImageCopying",
	"ObtainIpFail",
}

// classify sorts the answer to a request by what it means for the caller.
func classify(status int, code string) Class {
	switch {
	case strings.HasPrefix(code, "Throttling"), code == "Rejected.Throttling", status == 429:
		return Throttled
	case busy[code]:
		return Transient
	case status >= 500, status/100 == 2, status == 408, code == "InternalError", code == "InternalInvokeError", code == "UnknownError", code == "ServiceUnavailable":
		return Ambiguous
	}
	for _, p := range wrongState {
		if code == p || strings.HasPrefix(code, p+".") {
			return Precondition
		}
	}
	return Definitive
}

// explain makes the error of a failed attempt, from what was seen on the wire.
// sdkErr is used for nothing but telling that there was an error: its text may
// hold the whole signed query.
func (c *Client) explain(ctx context.Context, o op, w *wire, sdkErr error) *Error {
	e := &Error{Action: o.action, HTTPStatus: w.status, RequestID: w.requestID}
	secrets := append([]string{c.cred.AccessKeyID, c.cred.AccessKeySecret, c.cred.SecurityToken}, o.secrets...)
	switch {
	case w.answered && w.status/100 == 2 && w.code != CodeBadAnswer:
		e.Code, e.Class, e.Message = CodeBadAnswer, Ambiguous, "the answer cannot be decoded"
	case w.answered:
		e.Code, e.Class, e.Message = w.code, classify(w.status, w.code), mask(w.message, secrets...)
		e.hint = c.hint(e, w)
	case ctx.Err() != nil:
		e.Code, e.Class, e.Message, e.err = CodeNoAnswer, Ambiguous, "given up before the answer came: "+ctx.Err().Error(), ctx.Err()
	case w.err == nil:
		// Nothing was sent: the SDK refused to build the request.
		e.Code, e.Class, e.Message = CodeNoAnswer, Definitive, "the request cannot be built"
		if sdkErr != nil {
			e.Message += ": " + mask(sdkErr.Error(), secrets...)
		}
	default:
		e.Code = CodeNoAnswer
		e.Class, e.hint, e.err = unreached(w.err)
		e.Message = mask(w.err.Error(), secrets...)
		if errors.Is(w.err, context.DeadlineExceeded) {
			e.Message = "no answer within " + o.timeout.String()
		}
		e.Message += " (" + c.where() + ")"
	}
	return e
}

// where names the host for messages.
func (c *Client) where() string {
	if c.host != "" {
		return "endpoint " + c.host
	}
	return "public endpoint of " + c.region
}

// unreached classifies an error of the transport. Only what can be shown
// without a secret is kept as the cause.
func unreached(err error) (Class, string, error) {
	var dns *net.DNSError
	var dial *net.OpError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return Definitive, "check the region and the endpoint", dns
		}
		return Transient, "", dns
	case errors.As(err, &cert), errors.As(err, &unknown):
		return Definitive, "the certificate is not trusted; is there a proxy in between?", nil
	case errors.As(err, &dial):
		if dial.Op == "dial" {
			return Transient, "check the network and the endpoint", dial
		}
		return Ambiguous, "", dial
	case errors.Is(err, context.DeadlineExceeded):
		return Ambiguous, "", nil
	}
	return Ambiguous, "", nil
}

// hint says what to do about a refused request, where that is known.
func (c *Client) hint(e *Error, w *wire) string {
	switch e.Code {
	case "Forbidden.RAM", "Forbidden", "Forbidden.Unauthorized", "NoPermission":
		return "the account may not do this: grant it " + e.Action + ", or use another account; credentials came from " + c.cred.Source
	case "InvalidTimeStamp.Expired", "IllegalTimestamp", "InvalidTimeStamp.Format":
		s := "set the clock of this machine"
		if !w.date.IsZero() {
			s += fmt.Sprintf(": it is %s off", time.Since(w.date).Round(time.Second))
		}
		return s
	case "InvalidSecurityToken.Expired":
		return "get fresh temporary credentials; these came from " + c.cred.Source
	}
	if authCodes[e.Code] {
		return "check the access key; it came from " + c.cred.Source
	}
	return ""
}
