package upgrade

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var gateConfig = HealthConfig{Probes: 10, MaxErrorPercent: 1, Factor: 3, LatencyFloor: 500 * time.Millisecond, MinRequests: 20, Window: time.Minute}

func TestJudgeErrors(t *testing.T) {
	for name, c := range map[string]struct {
		now, before counts
		want        Verdict
	}{
		"nothing seen":                          {counts{}, counts{1000, 0}, VerdictNoData},
		"nothing seen, nor before":              {counts{}, counts{}, VerdictNoData},
		"three requests (scenario 40)":          {counts{3, 0}, counts{1000, 0}, VerdictInconclusive},
		"one short":                             {counts{19, 0}, counts{1000, 0}, VerdictInconclusive},
		"enough":                                {counts{20, 0}, counts{1000, 0}, VerdictPass},
		"one in a hundred":                      {counts{100, 1}, counts{}, VerdictPass},
		"two in a hundred":                      {counts{100, 2}, counts{}, VerdictFail},
		"502s rise (scenario 37)":               {counts{200, 30}, counts{10000, 3}, VerdictFail},
		"as bad as ever":                        {counts{100, 10}, counts{1000, 100}, VerdictPass},
		"four times as bad":                     {counts{100, 41}, counts{1000, 100}, VerdictFail},
		"three of three bad":                    {counts{3, 3}, counts{1000, 0}, VerdictFail},
		"one bad of three, the rest could heal": {counts{3, 1}, counts{1000, 100}, VerdictInconclusive},
	} {
		r := judgeErrors(c.now, c.before, gateConfig, 20)
		assert.Equal(t, c.want, r.Verdict, "%s: %s", name, r)
	}
}

func TestJudgeLatency(t *testing.T) {
	of := func(n int, d time.Duration) []time.Duration {
		out := make([]time.Duration, n)
		for i := range out {
			out[i] = d
		}
		return out
	}
	for name, c := range map[string]struct {
		now, before []time.Duration
		want        Verdict
	}{
		"nothing":                 {nil, of(10, time.Millisecond), VerdictNoData},
		"too few":                 {of(4, time.Millisecond), of(10, time.Millisecond), VerdictInconclusive},
		"below the floor":         {of(10, 499*time.Millisecond), of(10, time.Millisecond), VerdictPass},
		"slow":                    {of(10, 600*time.Millisecond), of(10, time.Millisecond), VerdictFail},
		"slow as ever":            {of(10, 600*time.Millisecond), of(10, 300*time.Millisecond), VerdictPass},
		"slow, and before":        {of(10, 901*time.Millisecond), of(10, 300*time.Millisecond), VerdictFail},
		"slow, nothing of before": {of(10, 600*time.Millisecond), nil, VerdictInconclusive},
	} {
		r := judgeLatency(c.now, c.before, gateConfig, 5)
		assert.Equal(t, c.want, r.Verdict, "%s: %s", name, r)
	}
}

// Whatever was measured: a gate without data, or with too little, never passes;
// a bad answer more never makes a verdict better; one reading that does not pass
// keeps the whole from passing.
func TestVerdictsFailClosed(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 2))
	for range 20000 {
		least := 1 + r.IntN(50)
		now := counts{Total: r.IntN(100)}
		now.Bad = r.IntN(now.Total + 1)
		before := counts{Total: r.IntN(100)}
		before.Bad = r.IntN(before.Total + 1)
		got := judgeErrors(now, before, gateConfig, least)
		if now.Total < least {
			assert.NotEqual(t, VerdictPass, got.Verdict, "%+v %+v %d", now, before, least)
		}
		if now.Bad < now.Total && now.Total >= least {
			more := judgeErrors(counts{now.Total, now.Bad + 1}, before, gateConfig, least)
			assert.Equal(t, more.Verdict, worse(got.Verdict, more.Verdict), "%+v %+v %d", now, before, least)
		}
		assert.Equal(t, got.Verdict, overall([]Reading{{Verdict: VerdictPass}, got, {Verdict: VerdictPass}}))
	}
	assert.Equal(t, VerdictNoData, overall(nil))
	assert.Equal(t, VerdictFail, overall([]Reading{{Verdict: VerdictNoData}, {Verdict: VerdictFail}, {Verdict: VerdictInconclusive}}))
}

// An access log that is late, or that nobody writes any more, is no data. A
// listener that was idle before as well is no reason to wait.
func TestJudgeLogs(t *testing.T) {
	probes := []series{{Of: "shop:8081 from proxy", Took: make([]time.Duration, 10)}}
	judge := func(now, before counts) Verdict {
		return overall(gateConfig.judge(health{Probes: probes, Logs: []logged5xx{{"lb-1:80", now}}}, health{Probes: probes, Logs: []logged5xx{{"lb-1:80", before}}}))
	}
	assert.Equal(t, VerdictNoData, judge(counts{}, counts{300, 0}), "scenario 39: the log is late")
	assert.Equal(t, VerdictPass, judge(counts{30, 0}, counts{300, 0}))
	assert.Equal(t, VerdictFail, judge(counts{30, 3}, counts{300, 0}))
	assert.Equal(t, VerdictPass, judge(counts{3, 0}, counts{5, 0}), "as idle as before")
	assert.Equal(t, VerdictFail, judge(counts{3, 3}, counts{5, 0}), "few requests, all of them bad")
}

// A quiet listener, three requests in the window, all of them good: that is no
// reason to go on. The probes of the gate itself are counted apart, and one that
// is short of its number is no reason either.
func TestScenario40ThreeRequests(t *testing.T) {
	probes := func(n int) []series { return []series{{Of: "shop:8081 from proxy", Took: make([]time.Duration, n)}} }
	judge := func(n int, now counts) Verdict {
		return overall(gateConfig.judge(health{Probes: probes(n), Logs: []logged5xx{{"lb-1:80", now}}}, health{Probes: probes(10), Logs: []logged5xx{{"lb-1:80", counts{300, 0}}}}))
	}
	assert.Equal(t, VerdictInconclusive, judge(10, counts{3, 0}))
	assert.Equal(t, VerdictInconclusive, judge(10, counts{gateConfig.MinRequests - 1, 0}))
	assert.Equal(t, VerdictPass, judge(10, counts{gateConfig.MinRequests, 0}))
	assert.NotEqual(t, VerdictPass, judge(3, counts{gateConfig.MinRequests, 0}), "three probes of ten")
}
