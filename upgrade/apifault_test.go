package upgrade_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// apiFaults are the ways in which one answer of the cloud goes wrong.
var apiFaults = map[string]cloud.Fault{
	"throttled":           {Code: "Throttling.User"},
	"lost after the fact": {Kind: cloud.FaultCut, Applied: true},
	"500":                 {Code: "InternalError"},
	"reset":               {Kind: cloud.FaultCut},
	"empty 200":           {Kind: cloud.FaultEmpty},
	"empty 200 after all": {Kind: cloud.FaultEmpty, Applied: true},
}

// Whichever single call of the cloud's API goes wrong, and however: the run
// reaches its end, nothing is made twice, nothing is left behind and no request
// fails. Every call that changes something takes its turn with every fault; of
// the calls that read, which are polled, the first and one in the middle stand
// for all.
func TestEveryAPICallFailsOnce(t *testing.T) {
	t.Parallel()
	// Access logs make a run several times as long and change nothing in what is
	// written: TestWideTransition has them.
	quietly := func(w *sim.World) {
		for _, id := range []string{"lb-shop", "alb-site"} {
			w.Cloud().SetAccessLog(id, "", "")
		}
	}
	newWide := func(t *testing.T) *stage { return newStageIn(t, sim.Config{Wide: true, Rate: 5}, quietly, nil) }
	var calls map[string]int // of each action, in a run without a fault
	var made, kept int
	synctest.Test(t, func(t *testing.T) {
		s := newWide(t)
		before := s.world.Cloud().Counts()
		require.Equal(t, "succeeded", s.apply(quiet).State)
		calls = s.world.Cloud().Counts()
		for a, n := range before {
			calls[a] -= n
		}
		f := s.end("succeeded")
		made, kept = f.Created, f.KeptSnapshots
	})
	schedules := 0
	for _, name := range slices.Sorted(maps.Keys(apiFaults)) {
		fault := apiFaults[name]
		for _, action := range slices.Sorted(maps.Keys(calls)) {
			n := calls[action]
			// Reads are polled: their first and one in the middle stand for all.
			nth := []int{0, n / 2}
			if !isRead(action) {
				nth = nil
				for i := range n {
					nth = append(nth, i)
				}
			}
			for _, skip := range nth {
				if schedules++; (schedules-1)%stride(13, 400) != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %d", name, action, skip), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						s := newWide(t)
						fault := fault
						fault.Action, fault.Skip = action, skip
						s.world.Cloud().InjectFault(fault)
						r := s.apply(quiet)
						for tries := 0; r.State == "failed" && tries < 3; tries++ {
							t.Logf("%s: %s", r.Step, r.Reason)
							r = s.resume(quiet)
						}
						require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
						f := s.end("succeeded")
						assert.Equal(t, made, f.Created, "resources made")
						assert.Equal(t, kept, f.KeptSnapshots)
					})
				})
			}
		}
	}
	t.Logf("%d schedules over %d actions", schedules, len(calls))
}
