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

// takeFault uses up one fault for action, one that strikes before the action
// takes effect or (applied) after it.
func (c *Cloud) takeFault(action string, applied bool) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.faults {
		if f.Applied != applied || f.Action != "" && f.Action != action {
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
func (c *Cloud) answerFault(w http.ResponseWriter, r *http.Request, requestID string, f Fault) {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		case <-c.ctx.Done():
		}
	}
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
		writeJSON(w, requestID, f.Status, obj{"RequestId": requestID, "Code": f.Status, "Message": f.Message})
	case FaultEmpty:
		w.WriteHeader(http.StatusOK)
	case FaultCut:
		panic(http.ErrAbortHandler) // net/http then drops the connection without an answer
	default:
		writeError(w, r, requestID, fail(f.Status, f.Code, "%s", f.Message))
	}
}
