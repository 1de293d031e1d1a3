package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// Gap is a window in which nobody, or more than one, held a virtual address.
type Gap struct {
	VIP      string    `json:"vip"`
	From     string    `json:"from"` // machine that lost it
	To       string    `json:"to"`   // machine that announced it; empty: nobody yet
	Graceful bool      `json:"graceful"`
	Lost     time.Time `json:"lost"`
	MS       float64   `json:"ms"`
	Failed   int64     `json:"failed"` // requests that overlap it
}

// RebuildNode is a node before and after.
type RebuildNode struct {
	Before firstbox.State `json:"before"`
	After  firstbox.State `json:"after"`
}

// Replaced reports whether another machine answers as the node.
func (n RebuildNode) Replaced() bool { return n.After.Up && n.After.Machine != n.Before.Machine }

// RebuildFigures is what a world of procedure B has counted.
type RebuildFigures struct {
	Role      string  `json:"role"`     // of the nodes that are rebuilt
	VIP       string  `json:"vip"`      // theirs
	Strategy  string  `json:"strategy"` // side-by-side or in-place
	Requests  int64   `json:"requests"`
	Failed    int64   `json:"failed"`     // outside every window without a holder of the address
	GapMS     float64 `json:"gap_ms"`     // longest window from loss to announcement, milliseconds
	GapFailed int64   `json:"gap_failed"` // failed requests that overlap one
	Gaps      []Gap   `json:"gaps"`
	SlowestMS float64 `json:"slowest_connect_ms"` // of the connections that came about

	Holders []string      `json:"vip_holders"` // of the role's address: one
	Nodes   []RebuildNode `json:"nodes"`

	OldKept    []string `json:"old_kept"`              // images of old VMs
	LeftBehind []string `json:"left_behind,omitempty"` // what should not be there any more
	Duplicates []string `json:"duplicates,omitempty"`  // addresses that two machines had at once
	Damage     []string `json:"damage,omitempty"`      // what nobody can have wanted
	Refused    []string `json:"refused,omitempty"`     // commands that the world does not know

	Targets  []traffic.VIPTarget `json:"targets"`
	Servers  map[string]int64    `json:"servers"` // answered requests by machine
	Failures []traffic.Failure   `json:"failures,omitempty"`
	Since    time.Time           `json:"since"`
	Duration time.Duration       `json:"duration"` // traffic, nanoseconds
}

// Figures is what was counted up to now.
func (w *Rebuild) Figures() RebuildFigures {
	s := w.clients.Summary()
	left := w.site.Left()
	f := RebuildFigures{
		Role: w.cfg.Role, Strategy: w.cfg.Strategy, VIP: firstbox.VIP(w.cfg.Role), Requests: s.Requests, Failed: s.Failed, GapFailed: s.GapFailed, SlowestMS: ms(s.Slowest),
		OldKept: left.Kept, LeftBehind: left.Behind, Duplicates: w.site.Duplicates(), Damage: w.site.Damage(), Refused: w.site.Refused(),
		Targets: s.Targets, Servers: s.Servers, Failures: s.Failures, Since: s.Since, Duration: s.Elapsed,
	}
	for i, g := range w.site.Gaps() {
		if g.VIP != f.VIP {
			continue
		}
		f.Gaps = append(f.Gaps, Gap{VIP: g.VIP, From: g.From, To: g.To, Graceful: g.Graceful, Lost: g.Lost, MS: ms(g.Length), Failed: s.ByGap[i]})
		f.GapMS = max(f.GapMS, ms(g.Length))
	}
	for _, m := range w.site.Holders(f.VIP) {
		f.Holders = append(f.Holders, m.Label())
	}
	after := w.site.States()
	for _, name := range slices.Sorted(maps.Keys(w.before)) {
		f.Nodes = append(f.Nodes, RebuildNode{w.before[name], after[name]})
	}
	return f
}

// The bounds of a window: when the holder vanished, and when it said that it
// goes.
const (
	maxGap         = 4 * time.Second
	maxGracefulGap = time.Second
)

// CheckEnd says what is wrong with a world in which a rebuild ended as outcome ("succeeded", "rolled-back"; any other outcome only has its
// traffic, its damage and its refused commands checked). An empty list: all is
// well.
func (f RebuildFigures) CheckEnd(outcome string) []string {
	var bad []string
	add := func(format string, a ...any) { bad = append(bad, fmt.Sprintf(format, a...)) }
	if f.Failed > 0 {
		first := ""
		if len(f.Failures) > 0 {
			first = "; first: " + f.Failures[0].String()
		}
		add("%d of %d requests failed outside a change of the address's holder%s", f.Failed, f.Requests, first)
	}
	if f.Requests == 0 {
		add("no request was sent")
	}
	for _, g := range f.Gaps {
		limit := maxGap
		if g.Graceful {
			limit = maxGracefulGap
		}
		if g.MS > ms(limit) {
			add("%s was without a holder for %.0f ms, from %s to %s", g.VIP, g.MS, g.From, g.To)
		}
	}
	if len(f.Holders) != 1 {
		add("%s is held by %d machines: %s", f.VIP, len(f.Holders), strings.Join(f.Holders, ", "))
	}
	for _, list := range []struct {
		what  string
		lines []string
	}{{"refused", f.Refused}, {"damage", f.Damage}, {"duplicate address", f.Duplicates}} {
		for _, l := range list.lines {
			add("%s: %s", list.what, l)
		}
	}
	if outcome != succeeded && outcome != rolledBack {
		return bad
	}
	kept := 0
	for _, n := range f.Nodes {
		if n.Before.Role == f.Role && outcome == succeeded {
			kept++
			bad = append(bad, n.checkReplaced(f.Strategy == inPlace)...)
			continue
		}
		if !n.After.Up || n.Replaced() {
			add("%s is not the machine that it was: %s", n.Before.Name, n.After.Machine)
			continue
		}
		bad = append(bad, n.checkSame()...)
	}
	if outcome == succeeded && len(f.OldKept) != kept {
		add("%d images of old VMs are kept and not %d: %s", len(f.OldKept), kept, strings.Join(f.OldKept, ", "))
	}
	if outcome == rolledBack && len(f.OldKept) > 0 {
		add("images of VMs that serve are still called old: %s", strings.Join(f.OldKept, ", "))
	}
	for _, l := range f.LeftBehind {
		add("left behind: %s", l)
	}
	return bad
}

// checkReplaced looks at a node that is to have been replaced.
func (n RebuildNode) checkReplaced(inPlace bool) []string {
	var bad []string
	add := func(format string, a ...any) { bad = append(bad, n.Before.Name+": "+fmt.Sprintf(format, a...)) }
	switch {
	case !n.After.Up:
		add("nobody has the address %s", n.Before.Address)
		return bad
	case !n.Replaced() || n.After.ID == n.Before.ID:
		add("the old machine still answers on %s", n.Before.Address)
		return bad
	case n.After.OS != "16.04":
		add("runs %s", n.After.OS)
	case n.After.Host == n.Before.Host && !inPlace:
		add("runs on the old one's host %s", n.After.Host)
	}
	return append(bad, n.checkSame()...)
}

// checkSame holds what a node does against what it did.
func (n RebuildNode) checkSame() []string {
	var bad []string
	for _, c := range []struct {
		what        string
		before, now []string
	}{
		{"front end of haproxy", n.Before.Fronts, n.After.Fronts},
		{"route", n.Before.Routes, n.After.Routes},
		{"program", n.Before.Programs, n.After.Programs},
		{"service", n.Before.Serves, n.After.Serves},
	} {
		for _, line := range c.before {
			if !slices.Contains(c.now, line) && !strings.HasPrefix(line, "website ") {
				bad = append(bad, fmt.Sprintf("%s: %s is lost: %s", n.Before.Name, c.what, line))
			}
		}
	}
	return bad
}
