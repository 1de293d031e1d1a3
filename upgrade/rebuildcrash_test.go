package upgrade_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// changes finds the commands of a rebuild that change something. Whatever has
// none of these words only looks.
var changes = regexp.MustCompile(`(^|[\s;&|({/])(mv|rm|mkdir|cp|chmod|chown|ln|touch|setsid|systemd-run|shutdown|service|mask|unmask|stop|start|reload|autostart|define|undefine|destroy|flush)\s|arping -[UA]|ssh-keygen \S* ?-R|(^|[^0-9&])>"?[$/]|>>`)

// rebuildChanges tells events of a rebuild that may change something, by the
// words of their commands: a process killed after any other leaves the same world
// as one killed before it.
func rebuildChanges(what string) bool {
	kind, text, _ := strings.Cut(what, " ")
	if kind == "journal" {
		return true
	}
	_, command, _ := strings.Cut(text, " ")
	if strings.HasPrefix(command, "case \"$(cat /var/lib/upgradectl/lease") {
		_, command, _ = strings.Cut(command, "\n") // the lease's guard
	}
	if strings.HasPrefix(command, "cd /var/lib/upgradectl\necho $(($(cat beat") || strings.HasPrefix(command, "/bin/sh -s") || strings.HasPrefix(command, "d=/var/lib/upgradectl/") && strings.Contains(command, "ended()") {
		return false
	}
	command = strings.NewReplacer("2>/dev/null", "", ">/dev/null", "", "</dev/null", "", "2>&1", "", ">&2", "").Replace(command)
	return changes.MatchString(command)
}

// Killed after any change, a rebuild that is resumed replaces both proxies, and
// one that is rolled back leaves the old pair.
func TestRebuildKilledAnywhere(t *testing.T) {
	t.Parallel()
	killedRebuilds(t, "side-by-side", func(points []point) []point { return points })
}

// In place as well: between its two machines a node is nothing but files of the
// run and on its host. In CI a seeded sample of the points stands for all.
func TestRebuildInPlaceKilledAnywhere(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	killedRebuilds(t, "in-place", func(points []point) []point { return sampled(points, 14) })
}

func killedRebuilds(t *testing.T, strategy string, some func([]point) []point) {
	t.Helper()
	var points []point
	synctest.Test(t, func(t *testing.T) {
		points = killedRebuild(t, strategy, point{}, nil)
	})
	everyPoint(t, some(points), 200, func(t *testing.T, at point, back bool) (met bool) {
		killedRebuild(t, strategy, at, func(s *rebuildStage) string {
			met = true
			if back {
				return backedRebuild(s)
			}
			return resumedRebuild(s)
		})
		return met
	})
}

// The process that goes on with a rebuild is killed as well.
func TestRebuildKilledTwice(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	var points []point
	synctest.Test(t, func(t *testing.T) { points = killedRebuild(t, "side-by-side", point{}, nil) })
	everyPair(t, len(points), 30/stride(3, 30), func(t *testing.T, p pair) (killed bool) {
		killedRebuild(t, "side-by-side", points[p.first-1], func(s *rebuildStage) string {
			killed = s.killer.life(t, s.run, s.options(s.killer.observed()), rebuildChanges, p)
			if !p.back {
				return resumedRebuild(s)
			}
			return backedRebuild(s)
		})
		return killed
	})
}

// backedRebuild takes a killed run back, and one that is past its return to its
// end.
func backedRebuild(s *rebuildStage) string {
	s.t.Helper()
	r, err := upgrade.Rollback(s.t.Context(), s.run, s.options(quiet))
	if errors.Is(err, engine.ErrPastReturn) || errors.Is(err, engine.ErrFinished) {
		return resumedRebuild(s)
	}
	require.NoError(s.t, err)
	require.Equal(s.t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
	return r.State
}

// resumedRebuild takes a killed run to its end, unless the end was on disk
// already.
func resumedRebuild(s *rebuildStage) string {
	s.t.Helper()
	return resumedRun(s.t, s.run, s.options(quiet))
}

func killedRebuild(t *testing.T, strategy string, at point, after func(*rebuildStage) string) []point {
	return killedWorld(t, sim.RebuildConfig{Strategy: strategy}, at, after)
}

func killedWorld(t *testing.T, c sim.RebuildConfig, at point, after func(*rebuildStage) string) []point {
	k := &killer{at: at}
	if at == (point{}) {
		k.changes = rebuildChanges
	}
	c.Rate, c.Happened = 5, k.happened
	s := newRebuildStage(t, c, nil, slowly)
	s.killer = k
	s.end(k.apply(t, s.run, s.plan, s.options(k.observed()), func() string { return after(s) }))
	return k.notes
}
