package upgrade_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
)

// One run from end to end: each old proxy makes room for its successor on the
// same host, and nobody notices more than the floating address moving.
func TestRebuildInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Strategy: "in-place"}, nil, nil)
		r := s.apply(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		f := s.end("succeeded")
		assert.Zero(t, f.Failed)
		assert.LessOrEqual(t, f.GapMS, 1000.0, "every switch is graceful")
		assert.Positive(t, f.Requests)
		assert.Len(t, f.OldKept, 2)
		t.Logf("%d requests, %d failed, gap %v ms, %d failed in it", f.Requests, f.Failed, f.GapMS, f.GapFailed)
	})
}

// Rolled back before the undefine, from the very end of the way there, the old
// pair serves again, under its old names and from its old images.
func TestRebuildInPlaceRolledBack(t *testing.T) {
	t.Parallel()
	for _, until := range []string{"2.1", "7.1.2", "7.1.3", "7.1.6", "7.1.8", "7.2.3", "9.1"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			if until != "9.1" { // the longest way back stands for all at a desk
				testenv.Slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Strategy: "in-place"}, nil, nil)
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
				f := s.end("rolled-back")
				assert.Zero(t, f.Failed)
				assert.LessOrEqual(t, f.GapMS, 1000.0)
				assert.Empty(t, f.OldKept)
			})
		})
	}
}
