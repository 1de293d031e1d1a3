package nginx

import (
	"errors"
	"fmt"
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
	if e.File == "" {
		return fmt.Sprintf("cannot read %s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: cannot include %s: %v", e.File, e.Line, e.Col, e.Name, e.Err)
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
// what an editing method returned, or read Refusal.Reason.
var (
	// ErrLastServer: nginx refuses an upstream without a server ("no servers
	// are inside upstream").
	ErrLastServer = errors.New("it is the last active server of the upstream")
	// ErrOnlyBackupLeft: nginx refuses an upstream with only backup servers
	// ("no servers in upstream").
	ErrOnlyBackupLeft = errors.New("only backup servers would be left in the upstream")
	// ErrOnlyDownLeft: nginx accepts it and answers every request with 502 ("no
	// live upstreams").
	ErrOnlyDownLeft = errors.New("only servers marked down would be left in the upstream")
	// ErrTooLong: nginx refuses a comment of 4,096 bytes.
	ErrTooLong = errors.New("the line would be longer than nginx reads (4,096 bytes)")
	// ErrDirectPass: a pass or a variable names the address; taken away, nginx
	// would serve files or answer 500. Replace moves it.
	ErrDirectPass = errors.New("the address stands in it directly, without an upstream; use Replace")
	// ErrMarkerDamaged: somebody changed the text of one of our markers.
	ErrMarkerDamaged = errors.New("the upgradectl marker is damaged; put the line right by hand")
	// ErrOtherTag: the address was disabled by another operation.
	ErrOtherTag = errors.New("another operation disabled it")
	// ErrExists: the server to add is there and was not added by us.
	ErrExists = errors.New("the upstream already has this server")
	// ErrEscaped: the address is written with backslashes, which an edit in
	// place cannot keep.
	ErrEscaped = errors.New("the address is written with escapes")
)

// A Refusal is one place that stands against an edit.
type Refusal struct {
	File      string
	Line, Col int
	Upstream  string // "" outside of upstreams
	Addr      string // as written
	Reason    error  // one of the errors of this package
	Detail    string // what the reason needs besides, or ""
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
		b.WriteString(": " + r.Detail)
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
	Status      int    // of nginx -s reload
	Output      string // of nginx -s reload
	Before, Now []Worker
	Waited      time.Duration // for new workers; 0 when the command itself failed
}

func (e *ReloadError) Error() string {
	if e.Waited == 0 {
		return fmt.Sprintf("cannot reload nginx: exit status %d: %s", e.Status, e.Output)
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
