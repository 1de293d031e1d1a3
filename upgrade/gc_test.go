package upgrade_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/upgrade"
)

// collect lists what there is of run t1, and removes what may go.
func (s *stage) collect(o upgrade.GCOptions, remove bool) (list []upgrade.Leftover, did []string) {
	s.t.Helper()
	o.Run = "t1"
	cfg, err := upgrade.LoadConfig(s.op.Config)
	require.NoError(s.t, err)
	e, err := upgrade.NewEnv(cfg, s.access)
	require.NoError(s.t, err)
	defer e.Close()
	list, err = upgrade.ListLeftovers(s.t.Context(), cfg, e, o)
	require.NoError(s.t, err)
	if remove {
		require.NoError(s.t, upgrade.RemoveLeftovers(s.t.Context(), cfg, e, o, list, func(what string) {
			kind, _, _ := strings.Cut(what, " i-")
			did = append(did, kind)
		}))
	}
	return list, did
}

// kinds counts leftovers, those that are kept with why.
func kinds(list []upgrade.Leftover) map[string]int {
	n := map[string]int{}
	for _, l := range list {
		why := ""
		switch {
		case strings.Contains(l.Keep, "its run is paused"):
			why = " of a living run"
		case strings.Contains(l.Keep, "traffic"):
			why = " with traffic"
		case strings.Contains(l.Keep, "--snapshots"):
			why = " kept"
		case strings.Contains(l.Keep, "unlock"):
			why = " to unlock"
		case l.Keep != "":
			why = " " + l.Keep
		}
		n[l.Kind+why]++
	}
	return n
}

func TestLeftoversOfDeadRun(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		r := s.apply(upgrade.RunOptions{Until: "3.4"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)

		list, did := s.collect(upgrade.GCOptions{Dir: s.run}, true)
		assert.Equal(t, map[string]int{"instance of a living run": 1, "image of a living run": 1, "snapshot-group of a living run": 1, "snapshot of a living run": 2, "lease of a living run": 3}, kinds(list))
		assert.Empty(t, did)

		require.NoError(t, os.RemoveAll(s.run)) // nobody can go on with it
		list, did = s.collect(upgrade.GCOptions{}, true)
		assert.Equal(t, map[string]int{"instance": 1, "image": 1, "snapshot-group kept": 1, "snapshot kept": 2, "lease to unlock": 3}, kinds(list))
		assert.Len(t, did, 2)
		list, did = s.collect(upgrade.GCOptions{Snapshots: true}, true)
		assert.Equal(t, map[string]int{"snapshot-group": 1, "snapshot": 2, "lease to unlock": 3}, kinds(list))
		assert.NotEmpty(t, did)
		list, _ = s.collect(upgrade.GCOptions{Snapshots: true}, true)
		assert.Equal(t, map[string]int{"lease to unlock": 3}, kinds(list))
		f := s.end("")
		assert.Zero(t, f.Leaked, "%v", f.LeakedResources)
		assert.Zero(t, f.KeptSnapshots)
	})
}

// A dead run whose transition host carries traffic: that host must not go.
func TestLeftoversWithTraffic(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		r := s.apply(upgrade.RunOptions{Until: "3.10"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		require.NoError(t, os.RemoveAll(s.run))
		list, _ := s.collect(upgrade.GCOptions{}, true)
		n := kinds(list)
		assert.Equal(t, 1, n["instance with traffic"], "%v", n)
		assert.Positive(t, n["nginx-mark with traffic"])
		assert.True(t, slices.ContainsFunc(s.world.Cloud().Resources(), func(r cloud.Resource) bool { return r.Type == "instance" && r.CreatedByAPI }))
		s.end("")
	})
}

// A run that has ended leaves its snapshots. What its journal names and its tag
// does not (here: as if the tags were gone) is somebody else's by now.
func TestLeftoversOfFinishedRun(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		require.Equal(t, "succeeded", s.apply(quiet).State)
		o := upgrade.GCOptions{Dir: s.run, Snapshots: true}
		list, did := s.collect(o, false)
		assert.Equal(t, map[string]int{"snapshot-group": 2, "snapshot": 4}, kinds(list))
		assert.Empty(t, did)

		cfg, err := upgrade.LoadConfig(s.op.Config)
		require.NoError(t, err)
		e, err := upgrade.NewEnv(cfg, s.access)
		require.NoError(t, err)
		defer e.Close()
		o.Run = "t1"
		named, err := upgrade.ListByJournal(t.Context(), e, o, nil)
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"snapshot the journal names it, but it does not carry the run's tag any more: somebody has taken it over": 4}, kinds(named))
		named, err = upgrade.ListByJournal(t.Context(), e, o, list)
		require.NoError(t, err)
		assert.Empty(t, named)
		s.end("succeeded")
	})
}
