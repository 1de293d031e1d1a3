package cloud

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// FaultKind says in which way an answer goes wrong.
type FaultKind string

// The kinds of faults. The zero value is FaultError.
const (
	FaultError       FaultKind = "error"        // an error envelope with Code, Message and Status
	FaultHTML        FaultKind = "html"         // an HTML page of a proxy, Status 502 unless given
	FaultNumericCode FaultKind = "numeric-code" // an error envelope whose Code is a number
	FaultEmpty       FaultKind = "empty"        // status 200 and no body at all
	FaultCut         FaultKind = "cut"          // the connection ends without an answer

	// The answer is good, but what it began comes to nothing: a snapshot ends
	// as failed, an image as CreateFailed, a new instance vanishes while it is
	// Pending, a start ends as Stopped, a stop as Running, a command as Failed.
	FaultFails FaultKind = "fails-later"
	// The answer is good, but what it began never ends: snapshots and images
	// stop at 37%, instances stay Pending, Starting or Stopping, commands
	// Running.
	FaultStuck FaultKind = "stuck"
)

// A Fault makes answers to one action go wrong.
type Fault struct {
	// Action is a name like RunInstances, with its product where ECS and CLB
	// are not meant (alb:ListServerGroups), or "" for every action.
	Action string
	Writes bool // only actions that change something: not Describe…, List…, Get…, Check…
	Skip   int  // how many requests that match pass unharmed before
	Kind   FaultKind
	Code   string // of FaultError; default InternalError
	// Message goes with Code; a default says that the fault was injected.
	Message string
	Status  int // HTTP status; default 500 (FaultHTML 502; codes containing Throttling 400)
	// Applied lets the action take effect before its answer is destroyed. An
	// action that the cloud refuses is answered as always and does not use the
	// fault up.
	Applied bool
	// Delay passes before the answer leaves (or the connection ends).
	Delay time.Duration
	Times int // how often; 0 means once, negative for ever
}

// InjectFault adds f. Faults that match one request are used in the order in
// which they were added. Requests must be properly signed and well-formed to
// meet a fault.
func (c *Cloud) InjectFault(f Fault) {
	if f.Kind == "" {
		f.Kind = FaultError
	}
	if f.Times == 0 {
		f.Times = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// late reports whether f spoils not the answer but what the action began.
func (f *Fault) late() bool { return f.Kind == FaultFails || f.Kind == FaultStuck }

// takeFate uses up a fault that spoils what the call begins, and returns its
// kind; "" for none. The call's handler asks for it when the call can no
// longer be refused. c.mu is held.
func (q *call) takeFate() FaultKind {
	if q.cloud == nil {
		return ""
	}
	for i, f := range q.cloud.faults {
		if !f.late() || !f.strikes(q.action) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		if f.Times == 0 {
			q.cloud.faults = slices.Delete(q.cloud.faults, i, i+1)
		}
		return f.Kind
	}
	return ""
}

// strikes reports whether f is for an action.
func (f *Fault) strikes(a *action) bool {
	return (f.Action == "" || f.Action == a.key() || f.Action == a.product+":"+a.name) && !(f.Writes && a.reads())
}

// reads reports whether an action changes nothing, by its name.
func (a *action) reads() bool {
	for _, verb := range []string{"Describe", "List", "Get", "Check"} {
		if strings.HasPrefix(a.name, verb) {
			return true
		}
	}
	return false
}

// takeFault uses up one fault for action, one that strikes before the action
// takes effect or (applied) after it.
func (c *Cloud) takeFault(a *action, applied bool) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.faults {
		if f.late() || f.Applied != applied || !f.strikes(a) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		copied := *f
		if f.Times > 0 {
			f.Times--
		}
		if f.Times == 0 {
			c.faults = slices.Delete(c.faults, i, i+1)
		}
		return &copied
	}
	return nil
}

// answerFault is the answer that f makes.
func (c *Cloud) answerFault(w http.ResponseWriter, r *http.Request, env envelope, f Fault) {
	c.wait(r.Context(), f.Delay)
	if f.Code == "" {
		f.Code = "InternalError"
	}
	if f.Message == "" {
		f.Message = "This fault was injected."
	}
	if f.Status == 0 {
		switch {
		case f.Kind == FaultHTML:
			f.Status = http.StatusBadGateway
		case f.Kind == FaultError && strings.Contains(f.Code, "Throttling"):
			f.Status = http.StatusBadRequest
		default:
			f.Status = http.StatusInternalServerError
		}
	}
	switch f.Kind {
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, "<html><head><title>"+http.StatusText(f.Status)+"</title></head><body><center><h1>"+http.StatusText(f.Status)+"</h1></center></body></html>\n")
	case FaultNumericCode:
		env.write(w, f.Status, obj{"RequestId": env.requestID, "Code": f.Status, "Message": f.Message})
	case FaultEmpty:
		w.WriteHeader(http.StatusOK)
	case FaultCut:
		panic(http.ErrAbortHandler) // net/http then drops the connection without an answer
	default:
		env.fail(w, fail(f.Status, f.Code, "%s", f.Message))
	}
}

// A Throttle is the flow control of one user: at most Calls requests for each
// action in every span of Per, further ones are Throttling.User. The zero value
// lets everything pass.
type Throttle struct {
	Calls int
	Per   time.Duration // not divided by Speed
}

// window counts the requests for one action since begun.
type window struct {
	begun time.Time
	calls int
}

// Deny takes away the permission for actions, named as in Fault.Action; calls
// of them are answered with Forbidden.RAM and an AccessDeniedDetail.
func (c *Cloud) Deny(actions ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range actions {
		c.denied[a] = true
	}
}

// Allow gives back what Deny took away; without actions, everything.
func (c *Cloud) Allow(actions ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(actions) == 0 {
		clear(c.denied)
	}
	for _, a := range actions {
		delete(c.denied, a)
	}
}

// admitted applies flow control and permissions.
func (c *Cloud) admitted(a *action) *apiError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.cfg.Throttle; t.Calls > 0 {
		w := c.windows[a]
		if now := time.Now(); w.begun.IsZero() || now.Sub(w.begun) >= t.Per {
			w = window{begun: now}
		}
		w.calls++
		c.windows[a] = w
		if w.calls > t.Calls {
			return fail(400, "Throttling.User", "Request was denied due to user flow control.")
		}
	}
	if full := a.product + ":" + a.name; c.denied[a.key()] || c.denied[full] {
		err := fail(403, "Forbidden.RAM", "User not authorized to operate on the specified resource, or this API doesn't support RAM.")
		err.denied = obj{
			"AuthAction": full, "AuthPrincipalType": "SubUser", "AuthPrincipalOwnerId": "1000000000000000",
			"AuthPrincipalDisplayName": "200000000000000000", "NoPermissionType": "ImplicitDeny",
			"PolicyType": "AccountLevelIdentityBasedPolicy", "EncodedDiagnosticMessage": "AQEAAAAAZW5jb2RlZA==",
		}
		return err
	}
	return nil
}
