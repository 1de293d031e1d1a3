package upgrade_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// windowed gives a stage whose maintenance windows begin so long after now, each
// for a duration. A bubble's clock begins on Saturday, 1 January 2000, 00:00 UTC.
func windowed(t *testing.T, upgradeTakes string, opens ...[2]time.Duration) (s *stage, begin time.Time) {
	begin = time.Now().Truncate(time.Minute)
	var allow []string
	for _, o := range opens {
		from := begin.Add(o[0]).UTC()
		allow = append(allow, fmt.Sprintf("%q", from.Format("2006-01-02 15:04")+" to "+from.Add(o[1]).Format("2006-01-02 15:04")))
	}
	return newStageIn(t, sim.Config{Rate: 5, Speed: 240}, nil, func(yaml string) string {
		return seldom(yaml) + fmt.Sprintf("windows:\n  timezone: UTC\n  allow: [%s]\n  traffic: 2m\n  upgrade: %s\n", strings.Join(allow, ", "), upgradeTakes)
	}), begin
}

// intents are the times of the first intents of a run's steps.
func intents(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	out := map[string]time.Time{}
	for rec, err := range engine.Records(dir) {
		require.NoError(t, err)
		if rec.Kind == "intent" && out[rec.Step].IsZero() {
			out[rec.Step] = rec.Time
		}
	}
	return out
}

// The transition host is prepared at any time; production's traffic waits for a
// window, and for the next one where what is left does not do. What waits says so
// in its status.
func TestWaitsForWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The second window is long enough for 3.9 to 3.11, and for no more.
		s, begin := windowed(t, "6m", [2]time.Duration{0, 0 + time.Minute}, [2]time.Duration{20 * time.Minute, 9 * time.Minute}, [2]time.Duration{40 * time.Minute, time.Hour})
		var mu sync.Mutex
		var status []string
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind != "progress" || !strings.HasPrefix(e.Text, "waiting for the maintenance window") {
				return
			}
			time.AfterFunc(time.Minute, func() {
				r, err := upgrade.ReadReport(s.run)
				mu.Lock()
				defer mu.Unlock()
				if assert.NoError(t, err) {
					status = append(status, r.Summary())
				}
			})
		}
		o.Until = "4.1"
		r := s.apply(o)
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, status, 2)
		assert.Contains(t, status[0], "3.9-nginx waits for the maintenance window, until "+begin.Add(20*time.Minute).Format(time.RFC3339))
		assert.Contains(t, status[1], "4.1-slb waits for the maintenance window, until "+begin.Add(40*time.Minute).Format(time.RFC3339))
		at := intents(t, s.run)
		for id, want := range map[string]time.Duration{"3.9-nginx": 20 * time.Minute, "4.1-slb": 40 * time.Minute} {
			assert.WithinRange(t, at[id], begin.Add(want), begin.Add(want+time.Minute), id)
		}
		assert.True(t, at["3.8-services"].Before(begin.Add(20*time.Minute)), "the transition host does not wait")
		s.end("paused")
	})
}

// What waits can be paused, stopped and rolled back at once, and waits again when
// it is resumed; a rollback waits for nothing.
func TestWindowWaitIsCancellable(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"pause", "stop", "rollback"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			if way != "pause" {
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s, begin := windowed(t, "6m", [2]time.Duration{30 * time.Minute, time.Hour})
				var asked time.Time
				ask := func(e upgrade.Event) {
					if e.Kind == "progress" && strings.HasPrefix(e.Text, "waiting for the maintenance window") {
						time.AfterFunc(10*time.Second, func() {
							asked = time.Now()
							assert.NoError(t, engine.Ask(s.run, engine.Request{Kind: engine.RequestKind(way), Actor: "li", Reason: "lunch"}))
						})
					}
				}
				o := quiet
				o.Observer = ask
				r := s.apply(o)
				require.Equal(t, map[string]string{"pause": "paused", "stop": "interrupted", "rollback": "rolled-back"}[way], r.State, "%s: %s", r.Step, r.Reason)
				require.False(t, asked.IsZero())
				if way == "rollback" {
					assert.Less(t, time.Now(), begin.Add(30*time.Minute), "a rollback is not held")
					s.end("rolled-back")
					return
				}
				assert.Less(t, time.Since(asked), 5*time.Second)
				assert.Equal(t, "3.9-nginx", r.Step)
				o = quiet
				o.Until = "3.9"
				r = s.resume(o)
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				assert.False(t, intents(t, s.run)["3.9-nginx"].Before(begin.Add(30*time.Minute)))
			})
		})
	}
}
