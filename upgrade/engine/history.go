package engine

import (
	"encoding/json"
	"time"
)

// A Record is one line of the journal.
type Record struct {
	Seq     int             `json:"seq"`
	Time    time.Time       `json:"time"` // for people only; logic uses Seq
	Kind    string          `json:"kind"`
	Step    string          `json:"step,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Key     string          `json:"key,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	Torn    int             `json:"torn,omitempty"` // bytes of a torn line that were cut before this record
	Prev    string          `json:"prev"`           // hex SHA-256 of the previous line without its newline
	Sum     string          `json:"sum"`            // first 16 hex digits of the SHA-256 of this line up to the comma before "sum"
}

// StepState is what the journal says about a step.
type StepState string

// The states of a step.
const (
	StepPending    StepState = "pending"
	StepRunning    StepState = "running" // it has an intent and no outcome
	StepDone       StepState = "done"
	StepSkipped    StepState = "skipped"
	StepFailed     StepState = "failed"
	StepUndoing    StepState = "undoing"
	StepUndone     StepState = "undone"
	StepUndoFailed StepState = "undo-failed"
)

// StepHistory is the folded state of one step. Raw values are nil when there
// are none.
type StepHistory struct {
	ID         string
	State      StepState
	Effect     Effect
	Pivot      bool
	Attempt    int    // of the last intent; 0 when there was none
	Key        string // of the last intent
	Adopted    bool   // the effect was found after a crash, not made again
	Reason     string // why it was skipped or failed, or what its gate asks
	ApprovedBy string
	Started    time.Time // of the last intent, or of the skip
	Ended      time.Time // of the outcome; zero when there is none
	Params     json.RawMessage
	Before     json.RawMessage
	Result     json.RawMessage
	Evidence   json.RawMessage
}

// History is what the journal of a run says.
type History struct {
	Header
	Created     time.Time
	Plan        []byte // plan.json
	State       RunState
	Step        string // the step the run stands at
	Reason      string
	Work        []string // left by an incomplete rollback
	RollingBack bool     // a rollback was begun and is not finished
	Live        bool     // a process holds the lock now
	Holder      Holder   // the last known holder of the lock
	Torn        int      // bytes of a torn last line, not yet cut
	Head        string   // hex SHA-256 of the last line: names the whole history
	Steps       []StepHistory
	Records     []Record
}

// Read reads the run directory dir. It takes no lock and changes nothing.
func Read(dir string) (*History, error) { return nil, errNotYet }

// StepByID returns the history of a step; a step that the journal does not
// name is pending.
func (h *History) StepByID(id string) StepHistory { return StepHistory{ID: id, State: StepPending} }
