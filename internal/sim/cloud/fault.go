package cloud

import "time"

// FaultKind says in which way an answer goes wrong.
type FaultKind string

// The kinds of faults. The zero value is FaultError.
const (
	FaultError       FaultKind = "error"        // an error envelope with Code, Message and Status
	FaultHTML        FaultKind = "html"         // an HTML page of a proxy, Status 502 unless given
	FaultNumericCode FaultKind = "numeric-code" // an error envelope whose Code is a number
	FaultEmpty       FaultKind = "empty"        // status 200 and no body at all
	FaultCut         FaultKind = "cut"          // the connection ends without an answer
)

// A Fault makes answers to one action go wrong.
type Fault struct {
	Action string // "" matches every action
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
