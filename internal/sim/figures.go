package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// Run states that [Figures.CheckEnd] knows; they are the words that the
// engine uses for the outcome of a run.
const (
	succeeded  = "succeeded"
	rolledBack = "rolled-back"
	parked     = "parked"
)

// Figures is what a world has counted. It can be taken at any time; the final
// ones come from [World.Finish].
type Figures struct {
	Requests int64   `json:"requests"` // sent by the clients and answered or failed
	Failed   int64   `json:"failed"`   // not 2xx, transport error, short body, cut stream
	P50      float64 `json:"p50_ms"`   // latency of answered requests, milliseconds
	P99      float64 `json:"p99_ms"`

	MinHealthy        int            `json:"min_healthy"` // lowest number over all groups and the whole run
	MinHealthyByGroup map[string]int `json:"min_healthy_by_group"`

	Created         int      `json:"created"` // cloud resources made through the API
	Leaked          int      `json:"leaked"`  // of them, still there and not a snapshot
	LeakedResources []string `json:"leaked_resources,omitempty"`
	KeptSnapshots   int      `json:"kept_snapshots"` // kept until their retention ends

	WeightsBefore   map[string]int `json:"weights_before"` // "lb/group/server:port" → weight
	WeightsAfter    map[string]int `json:"weights_after"`
	WeightsRestored bool           `json:"weights_restored"`

	NginxRestored bool     `json:"nginx_restored"` // every file of every nginx host has its bytes of the beginning
	NginxChanged  []string `json:"nginx_changed,omitempty"`

	LeasedHosts []string `json:"leased_hosts,omitempty"` // addresses of hosts that a run holds a lease of

	KernelBefore string `json:"kernel_before"` // of the production host
	KernelAfter  string `json:"kernel_after"`
	KernelMeant  string `json:"kernel_meant"` // what an update brings
	ReleaseAfter string `json:"release_after"`

	Refused  []string          `json:"refused,omitempty"` // commands and API calls that the world does not know
	Backends []traffic.Backend `json:"backends"`          // who answered: the ground truth of arrival and silence
	Targets  []traffic.Target  `json:"targets"`
	Failures []traffic.Failure `json:"failures,omitempty"` // the first hundred
	Since    time.Time         `json:"since"`
	Duration time.Duration     `json:"duration"` // traffic, nanoseconds
}

// CheckEnd says what is wrong with a world in which a run ended as outcome
// ("succeeded", "rolled-back", "parked"; any other outcome only has its
// traffic and its refused commands checked). An empty list: all is well.
func (f Figures) CheckEnd(outcome string) []string {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if f.Failed > 0 {
		first := ""
		if len(f.Failures) > 0 {
			first = "; first: " + f.Failures[0].String()
		}
		add("%d of %d requests failed%s", f.Failed, f.Requests, first)
	}
	if f.Requests == 0 {
		add("no request was sent")
	}
	for _, g := range slices.Sorted(maps.Keys(f.MinHealthyByGroup)) {
		if f.MinHealthyByGroup[g] < 1 {
			add("%s was without a healthy backend", g)
		}
	}
	for _, r := range f.Refused {
		add("refused: %s", r)
	}
	if outcome == succeeded || outcome == rolledBack {
		if !f.WeightsRestored {
			add("weights are not as before: %s", diffWeights(f.WeightsBefore, f.WeightsAfter))
		}
		if !f.NginxRestored {
			add("nginx files are not as before: %s", strings.Join(f.NginxChanged, ", "))
		}
		if f.Leaked > 0 {
			add("left behind: %s", strings.Join(f.LeakedResources, ", "))
		}
		if len(f.LeasedHosts) > 0 {
			add("still leased: %s", strings.Join(f.LeasedHosts, ", "))
		}
	}
	switch outcome {
	case succeeded:
		if f.KernelAfter != f.KernelMeant {
			add("kernel is %s and not %s", f.KernelAfter, f.KernelMeant)
		}
	case rolledBack:
		if f.KernelAfter != f.KernelBefore {
			add("kernel is %s and was %s", f.KernelAfter, f.KernelBefore)
		}
	}
	return bad
}

// diffWeights shows what differs between two sets of weights.
func diffWeights(before, after map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(before)) {
		now, ok := after[k]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s %d → gone", k, before[k]))
		case now != before[k]:
			out = append(out, fmt.Sprintf("%s %d → %d", k, before[k], now))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[k]; !ok {
			out = append(out, fmt.Sprintf("%s new, %d", k, after[k]))
		}
	}
	return strings.Join(out, "; ")
}
