package nginx

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// A SyntaxError says where nginx's reader would stop and, in nginx's words, why.
type SyntaxError struct {
	File string
	// Line is the line nginx names: where its reader stood. Col and Offset
	// belong to the byte that it stopped at; Col counts bytes from 1.
	Line, Col, Offset int
	Msg               string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// An IncludeError says that an included file could not be read.
type IncludeError struct {
	File      string // that holds the include directive; "" for the main file
	Line, Col int
	Name      string // of the file that was to be read
	Err       error
}

func (e *IncludeError) Error() string {
	why := e.Err
	if p, ok := e.Err.(*fs.PathError); ok && p.Path == e.Name {
		why = p.Err // the name is said already
	}
	if e.File == "" {
		return fmt.Sprintf("cannot read %s: %v", e.Name, why)
	}
	return fmt.Sprintf("%s:%d:%d: cannot include %s: %v", e.File, e.Line, e.Col, e.Name, why)
}

// Unwrap returns the file system's error.
func (e *IncludeError) Unwrap() error { return e.Err }

// A CycleError says that a file includes itself. nginx does not notice that: it
// runs out of descriptors or of stack.
type CycleError struct {
	// Chain names the files from the first to its own second appearance.
	Chain []string
}

func (e *CycleError) Error() string {
	return "files include each other in a circle: " + strings.Join(e.Chain, " includes ")
}

// The reasons for which an edit is refused. Test for them with errors.Is on
// what an editing method returned, or read Refusal.Reason. Refusal.Effect says
// what nginx or its clients would suffer, Refusal.Offer what to do instead.
var (
	// ErrLastServer: an upstream without a server.
	ErrLastServer = errors.New("it is the last active server of the upstream")
	// ErrOnlyBackupLeft: an upstream with only backup servers.
	ErrOnlyBackupLeft = errors.New("only backup servers would be left in the upstream")
	// ErrOnlyDownLeft: an upstream with only servers marked down, which nginx -t
	// accepts.
	ErrOnlyDownLeft = errors.New("only servers marked down would be left in the upstream")
	// ErrTooLong: nginx refuses a comment of 4,096 bytes
	// (ngx_conf_read_token, NGX_CONF_BUFFER).
	ErrTooLong = errors.New("the comment would be longer than nginx reads (4,096 bytes)")
	// ErrDirectPass: a pass names the address.
	ErrDirectPass = errors.New("a pass names the address directly, without an upstream")
	// ErrDirectValue: a variable that reaches a pass holds the address.
	ErrDirectValue = errors.New("a variable holds the address, without an upstream")
	// ErrMapDefault: the default of a map, geo or split_clients holds the address.
	ErrMapDefault = errors.New("the address is the default value of a variable")
	// ErrNotSupportedByMethod: the load balancing method of the upstream does
	// not know the parameter. backup is one behind hash, ip_hash and random, and
	// accepted before them.
	ErrNotSupportedByMethod = errors.New("the load balancing method does not support the parameter")
	// ErrNotSupportedByVersion: this nginx does not know the parameter; see
	// Tree.ForVersion.
	ErrNotSupportedByVersion = errors.New("this version of nginx does not know the parameter")
	// ErrWeight: a weight of 0, which nginx refuses, or one that is no number.
	ErrWeight = errors.New("nginx knows weights from 1 on")
	// ErrMarkerDamaged: somebody changed the text of one of our markers.
	ErrMarkerDamaged = errors.New("the upgradectl marker is damaged")
	// ErrOtherTag: the address was disabled by another operation.
	ErrOtherTag = errors.New("another operation disabled it")
	// ErrExists: the server to add is there and was not added by us.
	ErrExists = errors.New("the upstream already has this server")
	// ErrEscaped: the address is written with backslashes, which an edit in
	// place cannot keep.
	ErrEscaped = errors.New("the address is written with escapes")
	// ErrPortElsewhere: a port was given, but the value has none, because what
	// uses it adds one.
	ErrPortElsewhere = errors.New("the port of this address is written elsewhere")
	// ErrSocket: a unix socket has no host that could be changed.
	ErrSocket = errors.New("the address is a unix socket")
	// ErrIsUpstream: the new name is that of an upstream.
	ErrIsUpstream = errors.New("the new name is that of an upstream")
	// ErrNoResolver: a name in a variable is looked up for each request, which
	// needs a resolver directive.
	ErrNoResolver = errors.New("a name in a variable needs a resolver directive")
)

// consequences says for each reason what it keeps from happening and what to
// use instead.
var consequences = map[error]struct{ effect, offer string }{
	ErrLastServer:            {`nginx would refuse the configuration: "no servers are inside upstream"`, "add a server first (AddServer), or move its traffic (Shift)"},
	ErrOnlyBackupLeft:        {`nginx would refuse the configuration: "no servers in upstream"`, "mark it down instead (SetDown): the backup servers serve then; or add a server first (AddServer)"},
	ErrOnlyDownLeft:          {`nginx -t would pass and every request get 502: "no live upstreams"`, "add a server first (AddServer), or move its traffic (Shift)"},
	ErrTooLong:               {`nginx would refuse the configuration: "too long parameter"`, "mark it down instead (SetDown), or break the line in two first"},
	ErrDirectPass:            {"without the pass nginx would serve files from its root directory", "move its traffic (Shift or Replace)"},
	ErrDirectValue:           {`without the value the variable would hold another one or none: 500, "invalid URL prefix"`, "move its traffic (Shift or Replace)"},
	ErrMapDefault:            {`without a default the variable would be empty: 500, "invalid URL prefix"`, "move its traffic (Shift or Replace)"},
	ErrNotSupportedByMethod:  {`nginx would refuse the configuration: "balancing method does not support parameter"`, "mark it down (SetDown), or give it a small weight (SetWeight)"},
	ErrNotSupportedByVersion: {`nginx would refuse the configuration: "invalid parameter"`, "take the parameter out of the line, or update nginx first"},
	ErrWeight:                {`nginx would refuse the configuration: "invalid parameter"`, "mark it down (SetDown)"},
	ErrMarkerDamaged:         {"what stood there cannot be given back byte for byte", "put the line right by hand"},
	ErrOtherTag:              {"its restore would bring the server back behind our back", "restore it under its own tag first"},
	ErrExists:                {"the server would get twice its share", "disable the old server alone (Disable)"},
	ErrEscaped:               {"an edit in place could not keep the escapes", "write the address without backslashes first"},
	ErrPortElsewhere:         {"the address would get two ports: 500 at each request", "give the new host without a port"},
	ErrSocket:                {"what follows the path of the socket belongs to it, and so would the new address", "write the new address by hand"},
	ErrIsUpstream:            {"the requests would go to the servers of that upstream, or nginx refuse its port", "use the address instead of the name"},
	ErrNoResolver:            {`nginx -t would pass and every request get 502: "no resolver defined to resolve"`, "use an address instead of the name"},
}

// An ArgumentError says that an address, a tag or a query cannot be one: what
// the configuration says does not matter.
type ArgumentError struct{ Msg string }

func (e *ArgumentError) Error() string { return e.Msg }

func badArgument(format string, args ...any) error {
	return &ArgumentError{fmt.Sprintf(format, args...)}
}

// A Refusal is one place that stands against an edit.
type Refusal struct {
	File      string
	Line, Col int
	Upstream  string // "" outside of upstreams
	Addr      string // as written
	Reason    error  // one of the errors of this package
	Detail    string // what the reason needs besides, or ""
	Effect    string // what nginx or its clients would suffer
	Offer     string // what to do instead
}

// refusal fills in why r is refused.
func refusal(r Refusal, reason error, detail string) Refusal {
	c := consequences[reason]
	r.Reason, r.Detail, r.Effect, r.Offer = reason, detail, c.effect, c.offer
	return r
}

func (r Refusal) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", r.File, r.Line, r.Col)
	if r.Addr != "" {
		b.WriteString(r.Addr)
		if r.Upstream != "" {
			b.WriteString(" in upstream " + r.Upstream)
		}
		b.WriteString(": ")
	}
	b.WriteString(r.Reason.Error())
	if r.Detail != "" {
		b.WriteString(" (" + r.Detail + ")")
	}
	if r.Effect != "" {
		b.WriteString("; " + r.Effect)
	}
	if r.Offer != "" {
		b.WriteString("; " + r.Offer)
	}
	return b.String()
}

// A RefusedError says that an edit was refused and nothing was changed. It
// holds every place that stands against it, in the order nginx reads them.
type RefusedError struct {
	Op       string // "disable 172.31.0.90"
	Refusals []Refusal
}

func (e *RefusedError) Error() string {
	list := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		list[i] = r.String()
	}
	return fmt.Sprintf("cannot %s: %s", e.Op, strings.Join(list, "; "))
}

// Unwrap gives errors.Is the reasons.
func (e *RefusedError) Unwrap() []error {
	out := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		out[i] = r.Reason
	}
	return out
}

// ErrNotRunning means that no nginx master process was found.
var ErrNotRunning = errors.New("nginx is not running")

// A TestError says that nginx -t refused the configuration.
type TestError struct {
	Conf   string
	Status int    // -1: a signal killed nginx, as an include circle does
	Output string // what nginx printed
	// BeforeEdit says that it was refused before anything was changed.
	BeforeEdit bool
}

func (e *TestError) Error() string {
	what := fmt.Sprintf("nginx -t refuses %s", e.Conf)
	if e.Status < 0 {
		what = fmt.Sprintf("nginx -t on %s was killed by a signal", e.Conf)
	}
	if e.BeforeEdit {
		what += " as it was before our edit; nothing was changed"
	}
	if e.Output == "" {
		return what
	}
	return what + ": " + e.Output
}

// A ReloadError says that nginx did not take a new configuration.
type ReloadError struct {
	Status int // of nginx -s reload
	// Output is that of nginx -s reload, or what the master wrote to its error
	// log at level emerg since the signal.
	Output      string
	Before, Now []Worker
	Waited      time.Duration // for new workers; 0 when the command itself failed
}

func (e *ReloadError) Error() string {
	if e.Waited == 0 {
		return fmt.Sprintf("cannot reload nginx: exit status %d: %s", e.Status, e.Output)
	}
	if e.Output != "" {
		return fmt.Sprintf("nginx could not use the configuration and serves with its old workers: %s", strings.ReplaceAll(e.Output, "\n", "; "))
	}
	return fmt.Sprintf("nginx took the reload signal but still serves with its old workers after %v: it could not use the configuration (a port taken by another program?); its error log says why", e.Waited)
}

// A DriftError says that a file on the host is not what the change was made
// from. It was not written.
type DriftError struct {
	Name       string
	Want, Have string // SHA-256 in hexadecimal; Have is "" when it changed during the write
}

func (e *DriftError) Error() string {
	return fmt.Sprintf("%s was changed by somebody else since it was read; load the configuration again", e.Name)
}

// An ApplyError says that a change could not be made live. PutBack is nil when
// all files have their old bytes again and nginx accepts and runs them.
type ApplyError struct {
	Err     error
	PutBack error
}

func (e *ApplyError) Error() string {
	if e.PutBack != nil {
		return fmt.Sprintf("the change failed: %v; and it could not be put back: %v", e.Err, e.PutBack)
	}
	return fmt.Sprintf("the change failed and was put back: %v", e.Err)
}

// Unwrap returns both errors.
func (e *ApplyError) Unwrap() []error {
	if e.PutBack == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.PutBack}
}
