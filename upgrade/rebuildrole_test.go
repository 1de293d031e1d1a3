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

// The other roles, each from end to end.
func TestRebuildRoles(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Role: role}, nil, nil)
				r := s.apply(unattended)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				f := s.end("succeeded")
				assert.Zero(t, f.Failed)
				assert.LessOrEqual(t, f.GapMS, 1000.0, "every switch is graceful")
				assert.Positive(t, f.GapMS)
				t.Logf("%d requests, %d failed, gap %v ms, %d failed in it", f.Requests, f.Failed, f.GapMS, f.GapFailed)
			})
		})
	}
}

// Rolled back before the undefine, the old pair of each role serves again.
func TestRebuildRolesRolledBack(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		for _, until := range []string{"6.3", "7.1", "9.1"} {
			t.Run(role+" "+until, func(t *testing.T) {
				t.Parallel()
				if until != "9.1" { // the longest way back stands for all at a desk
					testenv.Slow(t)
				}
				synctest.Test(t, func(t *testing.T) {
					s := newRebuildStage(t, sim.RebuildConfig{Role: role}, nil, nil)
					r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until})
					require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
					r = s.rollback()
					require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
					f := s.end("rolled-back")
					assert.Zero(t, f.Failed)
					assert.LessOrEqual(t, f.GapMS, 1000.0)
				})
			})
		}
	}
}

// Both strategies know every role.
func TestRebuildRolesInPlace(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Role: role, Strategy: "in-place"}, nil, nil)
				r := s.apply(unattended)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}
