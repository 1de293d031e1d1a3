package hostinv

// Kind says what a finding is about.
type Kind string

// The kinds of a finding.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
	Unknown Kind = "unknown" // one side could not be read, so that nothing can be said
)

// Severity says how bad a finding is.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Warn     Severity = "warn"
	Info     Severity = "info"
)

// Expect names the differences that the work on the host was meant to make.
// They stay in the comparison, marked as expected.
type Expect struct {
	KernelChanged  bool // another kernel; an unchanged one is then a finding
	ReleaseChanged bool // another OS release, and units that came or went with it
	DockerChanged  bool // another Docker version
	Rebooted       bool // another boot; an unchanged one is then a finding
}

// A Finding is one difference between two inventories.
type Finding struct {
	Area     string   `json:"area"` // a section name
	Key      string   `json:"key"`  // what it is about, for instance "tcp *:8080"
	Kind     Kind     `json:"kind"`
	Field    string   `json:"field,omitempty"` // what of it changed
	Before   string   `json:"before,omitempty"`
	After    string   `json:"after,omitempty"`
	Severity Severity `json:"severity"`
	Expected bool     `json:"expected,omitempty"`
	Reason   string   `json:"reason,omitempty"` // why it matters
}

// A Comparison is the list of differences, in a stable order: worst first,
// then by area and key.
type Comparison struct {
	Findings []Finding `json:"findings"`
}
