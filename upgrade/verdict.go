package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Verdict is what an automatic gate says. Only a pass lets a run go on.
type Verdict string

// The verdicts, from best to worst.
const (
	VerdictPass         Verdict = "pass"
	VerdictInconclusive Verdict = "inconclusive" // too little was seen to tell
	VerdictNoData       Verdict = "no data"      // nothing was seen: idle, or the eye is shut
	VerdictFail         Verdict = "fail"
)

var verdicts = []Verdict{VerdictPass, VerdictInconclusive, VerdictNoData, VerdictFail}

func worse(a, b Verdict) Verdict {
	if slices.Index(verdicts, b) > slices.Index(verdicts, a) {
		return b
	}
	return a
}

// A Reading is one measurement of an automatic gate, with what it was compared
// with. Its samples are kept beside it.
type Reading struct {
	Metric   string  `json:"metric"` // "errors" (ratio), "p95" (milliseconds)
	Source   string  `json:"source"` // "probe" or "access log"
	Of       string  `json:"of"`     // service and place, or balancer and port
	Samples  int     `json:"samples"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"` // the same before anything was changed
	Limit    float64 `json:"limit"`    // the value that still passes
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why,omitempty"`
}

func (r Reading) String() string {
	s := fmt.Sprintf("%s: %s of %s by %s", r.Verdict, r.Metric, r.Of, r.Source)
	if r.Samples > 0 {
		s += fmt.Sprintf(": %.4g (before %.4g, limit %.4g, %d samples)", r.Value, r.Baseline, r.Limit, r.Samples)
	}
	if r.Why != "" {
		s += ": " + r.Why
	}
	return s
}

// counts are good and bad answers.
type counts struct {
	Total int `json:"total"`
	Bad   int `json:"bad"`
}

func (c counts) ratio() float64 {
	if c.Total == 0 {
		return 0
	}
	return float64(c.Bad) / float64(c.Total)
}

// judgeErrors compares the ratio of bad answers with what is allowed and with
// what it was before. Fewer than least answers never pass, but they fail when so
// many of them are bad that the rest could not make up for it.
func judgeErrors(now, before counts, h HealthConfig, least int) Reading {
	r := Reading{Metric: "errors", Samples: now.Total, Value: now.ratio(), Baseline: before.ratio()}
	r.Limit = max(float64(h.MaxErrorPercent)/100, float64(h.Factor)*r.Baseline)
	switch {
	case now.Total == 0:
		r.Verdict, r.Why = VerdictNoData, "nothing was answered"
	case now.Total < least && float64(now.Bad) > r.Limit*float64(least), now.Total >= least && r.Value > r.Limit:
		r.Verdict = VerdictFail
	case now.Total < least:
		r.Verdict, r.Why = VerdictInconclusive, fmt.Sprintf("%d answers, %d are needed", now.Total, least)
	default:
		r.Verdict = VerdictPass
	}
	return r
}

// judgeLatency compares the 95th percentile with that of before. What is faster
// than the floor passes whatever it was before: nobody notices it.
func judgeLatency(now, before []time.Duration, h HealthConfig, least int) Reading {
	r := Reading{Metric: "p95", Samples: len(now), Value: ms(p95(now)), Baseline: ms(p95(before))}
	r.Limit = max(ms(h.LatencyFloor), float64(h.Factor)*r.Baseline)
	switch {
	case len(now) == 0:
		r.Verdict, r.Why = VerdictNoData, "nothing was answered"
	case len(now) < least:
		r.Verdict, r.Why = VerdictInconclusive, fmt.Sprintf("%d answers, %d are needed", len(now), least)
	case r.Value > r.Limit && len(before) < least:
		r.Verdict, r.Why = VerdictInconclusive, "there are too few samples of before to compare with"
	case r.Value > r.Limit:
		r.Verdict = VerdictFail
	default:
		r.Verdict = VerdictPass
	}
	return r
}

// overall is the verdict of a gate: no better than its worst reading, and no
// data where there is none.
func overall(rs []Reading) Verdict {
	if len(rs) == 0 {
		return VerdictNoData
	}
	v := VerdictPass
	for _, r := range rs {
		v = worse(v, r.Verdict)
	}
	return v
}

func p95(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, (len(s)*95+99)/100-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// worst gives the readings that keep a gate from passing, worst first, and bad
// answers before slow ones.
func worst(rs []Reading) []Reading {
	bad := slices.DeleteFunc(slices.Clone(rs), func(r Reading) bool { return r.Verdict == VerdictPass })
	slices.SortStableFunc(bad, func(a, b Reading) int {
		return cmp.Or(cmp.Compare(slices.Index(verdicts, b.Verdict), slices.Index(verdicts, a.Verdict)), cmp.Compare(a.Metric, b.Metric))
	})
	return bad
}
