package upgrade_test

import (
	"cmp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// replacing makes production's system disk be replaced.
func replacing(yaml string) string {
	return seldom(strings.Replace(yaml, "  strategy: yum-update\n", "  strategy: yum-update\n  production: replace-system-disk\n", 1))
}

// lived makes the world's hosts as old as hosts are: nothing on their disks was
// written in the last day.
func lived(w *sim.World) { w.Host(production).Age(100 * 24 * time.Hour) }

// A whole run with a new system disk: production is itself afterwards, with the
// transition host's packages, and nobody has noticed.
func TestReplaceSystemDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, lived, replacing)
		h := s.world.Host(production)
		read := func(name string) string {
			b, err := h.ReadFile(name)
			require.NoError(t, err, name)
			return string(b)
		}
		before := map[string]string{}
		for _, name := range []string{"/etc/machine-id", "/etc/hostname", hostKeyOfSSHD, hostKeyOfSSHD + ".pub"} {
			before[name] = read(name)
		}
		r := s.apply(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		for name, was := range before {
			assert.Equal(t, was, read(name), name)
		}
		for _, gone := range []string{"/etc/upgradectl", "/etc/systemd/system/crond.service.d"} {
			_, err := h.ReadDir(gone)
			assert.Error(t, err, gone)
		}
		entries, err := h.ReadDir("/var/lib/upgradectl")
		require.NoError(t, err)
		for _, e := range entries {
			assert.False(t, strings.HasPrefix(e.Name(), "identity-"), e.Name())
		}
		assert.True(t, h.UnitActive("crond.service"), "what was held back on the copy runs on production")
		assert.Equal(t, 1, s.world.Cloud().Counts()["ReplaceSystemDisk"])
		f := s.end("succeeded")
		assert.Equal(t, 8, f.Created, "two disks twice and one of the transition host's, two images, an instance")
	})
}

// Killed after any change on its way through the replacement, a run is resumed
// to its end and taken back: to the beginning before the new disk, parked with
// traffic safe after it.
func TestKilledAnywhereReplacingDisk(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	var points []point
	synctest.Test(t, func(t *testing.T) {
		for _, p := range replacedRun(t, point{}, nil) {
			if p.ours {
				points = append(points, p.point)
			}
		}
	})
	require.Greater(t, len(points), 12, "how many there are depends on what goes on at once")
	everyPoint(t, sampled(points, 6), max(1, len(points)/3), func(t *testing.T, at point, back bool) (met bool) {
		replacedRun(t, at, func(s *stage) string {
			met = true
			if back {
				return backed(s)
			}
			return resumed(s)
		})
		return met
	})
}

// A diskPoint is a point of a run, and whether it lies between the image and the
// reboot of production.
type diskPoint struct {
	point
	ours bool
}

// replacedRun is killedRun with a new system disk.
func replacedRun(t *testing.T, at point, after func(*stage) string) []diskPoint {
	s, end := killedStage(t, at, lived, replacing, after)
	f := s.end(end)
	assert.LessOrEqual(t, f.Created, 8)
	assert.LessOrEqual(t, s.world.Cloud().Counts()["ReplaceSystemDisk"], 2, "sent again at most once, with the same token")
	var out []diskPoint
	ours := false
	for _, p := range s.killer.notes {
		ours = ours && p.what != "journal done 4.5-reboot" || strings.HasPrefix(p.what, "journal intent 4.3-image") || strings.HasPrefix(p.what, "journal intent 4.5-stop-instance")
		if p.what == "journal done 4.3-image" {
			ours = false
		}
		out = append(out, diskPoint{p, ours})
	}
	return out
}

// What production writes to its system disk after the snapshots stops the run
// while everything can still be undone, unless it is given up in the plan.
func TestReplaceSystemDiskWouldLose(t *testing.T) {
	t.Parallel()
	for _, accepted := range []bool{false, true} {
		t.Run(map[bool]string{false: "refused", true: "accepted"}[accepted], func(t *testing.T) {
			t.Parallel()
			if accepted {
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, lived, func(yaml string) string {
					if accepted {
						yaml += "accept: [\"disk-written:/srv/order/data\"]\n"
					}
					return replacing(yaml)
				})
				h := s.world.Host(production)
				r := s.apply(when("done", "4.4-stop", func() {
					h.Mkdir("/srv/order/data")
					assert.NoError(t, h.WriteFile("/srv/order/data/orders.db", []byte("an order"), 0o644))
					assert.NoError(t, h.Append("/var/log/messages", []byte("a line\n")))
				}))
				if accepted {
					require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
					_, err := h.ReadFile("/srv/order/data/orders.db")
					require.Error(t, err, "it was given up")
					s.end("succeeded")
					return
				}
				require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
				assert.Equal(t, "4.5-stop-instance", r.Step)
				assert.Contains(t, r.Reason, "/srv/order/data (1 files, as /srv/order/data/orders.db)")
				assert.NotContains(t, r.Reason, "/var/log")
				s.carried()
				require.Equal(t, "rolled-back", s.rollback().State)
				_, err := h.ReadFile("/srv/order/data/orders.db")
				require.NoError(t, err)
				s.end("rolled-back")
			})
		})
	}
}

// The cloud's faults around the replacement: an answer that is lost is not a
// second disk, a refusal is another attempt, and traffic stays where it is.
func TestReplaceSystemDiskFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]cloud.Fault{
		"lost answer":   {Action: "ReplaceSystemDisk", Kind: cloud.FaultCut, Applied: true},
		"refused":       {Action: "ReplaceSystemDisk", Kind: cloud.FaultError, Code: "InvalidImageId.NotFound", Status: 404},
		"throttled":     {Action: "ReplaceSystemDisk", Kind: cloud.FaultError, Code: "Throttling", Status: 400},
		"does not boot": {Action: "StartInstance", Kind: cloud.FaultError, Code: "OperationDenied.NoStock", Status: 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "lost answer" {
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, lived, replacing)
				step := map[string]string{"does not boot": "4.5-start-instance"}[name]
				r := s.apply(when("intent", cmp.Or(step, "4.5-disk"), func() { s.world.Cloud().InjectFault(fault) }))
				if r.State == "failed" {
					s.carried()
					o := quiet
					require.Equal(t, "parked", s.rollback().State)
					s.carried()
					r = s.resume(o)
				}
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				assert.LessOrEqual(t, s.world.Cloud().Counts()["ReplaceSystemDisk"], 2)
				s.end("succeeded")
			})
		})
	}
}
