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
	// stale is how old what a caller saw before a call may be when it leaves.
	stale = 10 * time.Second
	// A host that cannot be reached is tried a few times only: the cause is
	// mostly a wrong endpoint or a missing network, and somebody is waiting.
	maxDials = 4
)

// retry repeats try while that is safe and of use. A call that flow control
// refuses was not carried out and is no failure: it waits at the gate of its
// action, until ctx ends or the patience for one call is at its end. Other
// trouble is repeated within the budget, in which the time at the gate does not
// count.
func (c *Client) retry(ctx context.Context, o op, try func() *Error) error {
	g := c.gates.gate(o)
	pause := c.pause
	var spent, held time.Duration // on other trouble, and on flow control
	var last *Error
	open := false // an earlier attempt may have taken effect
	dials, refusals := 0, 0
	checked := time.Now()
	for n := 1; ; n++ {
		arrived := time.Now()
		sent, waited, err := c.await(ctx, o, g, held)
		held += waited
		spent += time.Since(arrived) - waited
		if err != nil {
			return c.unsent(o, g, last, err, held, refusals)
		}
		if check, ok := ctx.Value(checkKey{}).(func(context.Context) error); ok && time.Since(checked) > stale {
			if err := check(context.WithValue(ctx, checkKey{}, nil)); err != nil {
				return err
			}
			checked = time.Now()
		}
		e := try()
		throttled := e != nil && e.Class == Throttled
		switch {
		case throttled, e != nil && e.Code == "ServiceUnavailable":
			// The second is no refusal by flow control, and may have been carried
			// out; but who says it has too much to do, and gets fewer calls.
			g.refused(sent, e.Code, e.quota)
		case e == nil || e.HTTPStatus != 0:
			g.passed()
		}
		if e == nil {
			return nil
		}
		last = e
		// That this attempt was not executed says nothing about those before.
		if open = open || e.Class == Ambiguous; open && (throttled || e.Class == Transient) {
			e.Class = Ambiguous
		}
		if e.Class == Transient && e.Code == CodeNoAnswer {
			dials++
		}
		switch {
		case throttled:
			if refusals++; held >= c.patience {
				e.hint = join(e.hint, c.advice(o, e.quota, held, refusals))
				return e
			}
			continue
		case ctx.Err() != nil:
			return e
		case e.Class == Precondition || e.Class == Definitive,
			e.Class == Ambiguous && !o.repeat,
			e.Class == Transient && e.Code == CodeNoAnswer && dials >= maxDials:
			return e
		}
		// Full jitter: many clients that were refused together must not come
		// back together.
		wait := rand.N(pause) + time.Millisecond
		pause = min(2*pause, maxPause)
		spent += time.Since(sent)
		if e.Code == "ServiceUnavailable" {
			wait = max(wait, g.left()) // an outage is no flow control: its waits count
		}
		if spent+wait > c.budget {
			e.hint = join(e.hint, fmt.Sprintf("gave up after %d attempts in %s", n, spent.Round(time.Second)))
			return e
		}
		spent += wait
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return c.unsent(o, g, last, ctx.Err(), held, refusals)
		}
	}
}

type checkKey struct{}

// WithCheck returns a context under which a call that had to wait, for flow
// control or for an object that was busy, calls check immediately before it is
// sent: what its caller looked at before may have changed meanwhile. An error of
// check ends the call, and is its error.
func WithCheck(ctx context.Context, check func(context.Context) error) context.Context {
	return context.WithValue(ctx, checkKey{}, check)
}

// await waits for the caller's turn at a gate, and says for how long flow control
// was the reason for it: meanwhile the clocks of ctx stand still. Before it was
// held back for so long already.
func (c *Client) await(ctx context.Context, o op, g *gate, before time.Duration) (sent time.Time, held time.Duration, _ error) {
	if !g.throttled() {
		sent, err := g.enter(ctx)
		return sent, 0, err
	}
	defer hold(ctx)()
	begun := time.Now()
	if c.onHeld != nil {
		said := make(chan struct{})
		timer := time.AfterFunc(longHold*g.unit-before, func() {
			defer close(said)
			if code, now := g.tell(); now {
				c.onHeld(Held{Action: strings.TrimPrefix(o.product+":"+o.action, ":"), Code: code, Since: begun.Add(-before)})
			}
		})
		defer func() {
			if !timer.Stop() {
				<-said // nobody is told anything about a call that has returned
			}
		}()
	}
	sent, err := g.enter(ctx)
	return sent, time.Since(begun), err
}

// unsent is the error of a call whose context ended while it was not on its way.
// What the last attempt left open stays open.
func (c *Client) unsent(o op, g *gate, last *Error, ended error, held time.Duration, refusals int) *Error {
	switch {
	case last == nil && held > 0:
		// Others were refused, and this one waited behind them.
		e := &Error{Action: o.action, Code: CodeNoAnswer, Message: ended.Error() + " before the request was sent", Class: Definitive, err: ended}
		e.hint = c.advice(o, quota{}, held, 0)
		return e
	case last == nil:
		return &Error{Action: o.action, Code: CodeNoAnswer, Message: ended.Error() + " before the request was sent", Class: Definitive, err: ended}
	}
	e := *last
	e.Message, e.err = join(e.Message, ended.Error()+" while waiting to repeat the request"), ended
	if refusals > 0 {
		e.hint = join(e.hint, c.advice(o, e.quota, held, refusals))
	}
	return &e
}

// advice says for how long flow control has held a call back and what to do.
func (c *Client) advice(o op, q quota, held time.Duration, refusals int) string {
	times := ""
	if refusals > 0 {
		times = fmt.Sprintf(", refused %d times", refusals)
	}
	limit := "its quota of calls"
	if q.limit > 0 {
		limit = fmt.Sprintf("its quota of %d calls", q.limit)
	}
	return fmt.Sprintf("held back by the cloud's flow control for %s%s: everything in this account that calls %s in %s shares %s; work on fewer hosts at once, stop other tools, or ask for more (Quota Center, API Rate Limits)",
		held.Round(time.Second), times, strings.TrimPrefix(o.product+":"+o.action, ":"), c.region, limit)
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
	cr := c.current()
	secrets := append([]string{cr.AccessKeyID, cr.AccessKeySecret, cr.SecurityToken}, o.secrets...)
	switch {
	case w.answered && w.status/100 == 2 && w.code != CodeBadAnswer:
		e.Code, e.Class, e.Message = CodeBadAnswer, Ambiguous, "the answer cannot be decoded"
	case w.answered:
		e.Code, e.Class, e.Message = w.code, classify(w.status, w.code), mask(w.message, secrets...)
		e.hint, e.kind = c.hint(e, o, w)
		e.quota = w.quota
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
		e.Message += " (" + c.where(w) + ")"
		var dns *net.DNSError
		if errors.As(w.err, &dns) && dns.IsNotFound {
			e.kind = ErrRegion
		}
	}
	return e
}

// where names the region and the host for messages.
func (c *Client) where(w *wire) string { return "region " + c.region + ", endpoint " + w.host }

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

// hint says what to do about a refused request, where that is known, and which
// sentinel it matches besides ErrCredentials.
func (c *Client) hint(e *Error, o op, w *wire) (string, error) {
	switch {
	case permission(e.Code):
		return c.missing(e, o, w), ErrPermission
	case skewed(e.Code):
		if w.date.IsZero() {
			return "set the clock of this machine; the cloud accepts 15 minutes of difference", ErrClock
		}
		skew, side := time.Since(w.date).Round(time.Second), "ahead of"
		if skew < 0 {
			skew, side = -skew, "behind"
		}
		return fmt.Sprintf("the clock of this machine is %s %s the cloud's (%s); set it, as with `chronyc makestep`", skew, side, w.date.UTC().Format(time.RFC3339)), ErrClock
	case strings.HasPrefix(e.Code, "InvalidSecurityToken"):
		return "get fresh temporary credentials; these came from " + c.cred.Source, nil
	case strings.HasPrefix(e.Code, "InvalidRegionId"), e.Code == "InvalidRegion.NotFound":
		return "check the region and the endpoint (" + c.where(w) + ")", ErrRegion
	case authCodes[e.Code]:
		return "check the access key; it came from " + c.cred.Source, nil
	}
	return "", nil
}

// missing says which line of a RAM policy would have allowed an action.
func (c *Client) missing(e *Error, o op, w *wire) string {
	action := w.denied.AuthAction
	switch {
	case e.Code == "InvalidUser.PassRoleForbidden":
		action = "ram:PassRole"
	case !strings.Contains(action, ":"):
		service := o.product
		if service == "" {
			service = ramService(w.host)
		}
		action = service + ":" + e.Action
	}
	s := fmt.Sprintf("the account may not do this: add a statement with Action %q", action)
	if w.denied.NoPermissionType == "ExplicitDeny" {
		s = fmt.Sprintf("a policy denies this: take the Deny of Action %q away", action)
	}
	resource := "acs:" + strings.SplitN(action, ":", 2)[0] + ":*:*:*"
	return s + fmt.Sprintf(" on Resource %q to its RAM policy, or use another account; credentials came from %s", resource, c.cred.Source)
}

// ramNames are the products whose name in policies is not that of their host.
var ramNames = map[string]string{"r-kvstore": "kvstore", "mongodb": "dds", "metrics": "cms"}

// ramService is the name that policies have for the product at a public host;
// "ecs" where the host does not tell.
func ramService(host string) string {
	label, _, _ := strings.Cut(host, ".")
	switch {
	case !strings.HasSuffix(host, ".aliyuncs.com"), strings.HasPrefix(label, "ecs"):
		return "ecs"
	case ramNames[label] != "":
		return ramNames[label]
	}
	return label
}
