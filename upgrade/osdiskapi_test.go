package upgrade_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// diskStretches are the parts of a run in which production gets its new system
// disk: the event that begins each, and the one that ends it.
var diskStretches = [][2]string{{"intent 4.3-image", "done 4.3-image"}, {"intent 4.5-stop-instance", "done 4.5-start-instance"}}

// As TestEveryAPICallFailsOnce, for the calls by which production gets its new
// system disk: whichever goes wrong, there is one new disk, of one image.
func TestEveryAPICallFailsOnceReplacingDisk(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	type call struct {
		stretch int
		action  string
		nth     int
	}
	var all []call
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, lived, replacing)
		var before map[string]int
		o := quiet
		o.Observer = func(e upgrade.Event) {
			for i, at := range diskStretches {
				switch e.Kind + " " + e.Step {
				case at[0]:
					before = s.world.Cloud().Counts()
				case at[1]:
					now := s.world.Cloud().Counts()
					for _, action := range slices.Sorted(maps.Keys(now)) {
						n := now[action] - before[action]
						for nth := range n {
							// Reads are polled: the first and one in the middle stand for all.
							if !isRead(action) || nth == 0 || nth == n/2 {
								all = append(all, call{i, action, nth})
							}
						}
					}
				}
			}
		}
		r := s.apply(o)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	})
	var written []string
	for _, c := range all {
		if !isRead(c.action) {
			written = append(written, c.action)
		}
	}
	for _, action := range []string{"CreateSnapshot", "CreateImage", "StopInstance", "ReplaceSystemDisk", "StartInstance", "RunCommand"} {
		require.Contains(t, written, action)
	}
	schedules := 0
	for _, c := range all {
		for _, name := range slices.Sorted(maps.Keys(apiFaults)) {
			if schedules++; (schedules-1)%stride(23, 400) != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s %s %d %d", name, c.action, c.stretch, c.nth), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, lived, replacing)
					fault := apiFaults[name]
					fault.Action, fault.Skip = c.action, c.nth
					_, step, _ := strings.Cut(diskStretches[c.stretch][0], " ")
					r := s.apply(when("intent", step, func() { s.world.Cloud().InjectFault(fault) }))
					for tries := 0; r.State == "failed" && tries < 3; tries++ {
						t.Logf("%s: %s", r.Step, r.Reason)
						s.carried()
						r = s.resume(quiet)
					}
					require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
					assert.Equal(t, 8, s.end("succeeded").Created, "as without a fault")
				})
			})
		}
	}
	t.Logf("%d schedules over %d calls", schedules, len(all))
}
