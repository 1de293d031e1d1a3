package upgrade_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/upgrade"
)

// machines is a colleague's way to the instances.
func (s *stage) machines() *ecs.Client {
	s.t.Helper()
	c, err := ecs.New(ecs.Config{Region: s.op.Region, AccessKeyID: s.op.AccessKeyID, AccessKeySecret: s.op.AccessKeySecret, Poll: 100 * time.Millisecond}, ecs.WithTransport(s.world.Cloud().Transport()))
	require.NoError(s.t, err)
	return c
}

// The transition host stands in other security groups than planned: it gets no
// traffic, and the run goes on when that is put right.
func TestScenario24OtherSecurityGroups(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().AddSecurityGroup(cloud.SecurityGroup{ID: "sg-other", VPC: "vpc-sim"})
		weights := s.world.Figures().WeightsBefore
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "done" && e.Step == "3.3-clone" {
				require.NoError(t, s.machines().SetSecurityGroups(t.Context(), s.clone(), []string{"sg-other"}))
			}
		}
		r := s.apply(o)
		s.failed(r, "3.4-addresses", "security groups: planned sg-web, is sg-other")
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.Equal(t, weights, s.world.Figures().WeightsAfter)
		require.NoError(t, s.machines().SetSecurityGroups(t.Context(), s.clone(), []string{"sg-web"}))
		s.succeeded(s.resume(quiet), 6)
	})
}

// The run waits for people longer than half of the transition host's life:
// reading it warns, going on renews.
func TestScenario25ReleaseTimeInAPause(t *testing.T) {
	scenario(t, sim.Config{Rate: 0.01}, func(y string) string { return strings.Replace(y, "auto_release: 24h", "auto_release: 40m", 1) }, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer}).State)
		released := func() time.Time {
			in, err := s.machines().GetInstance(t.Context(), s.clone())
			require.NoError(t, err)
			return in.AutoReleaseTime
		}
		warnings := func() string {
			rep, err := upgrade.ReadReport(s.run)
			require.NoError(t, err)
			return strings.Join(rep.Warnings, "\n")
		}
		first := released()
		assert.Empty(t, warnings())
		time.Sleep(25 * time.Minute)
		assert.Contains(t, warnings(), s.clone()+" is released by itself at "+first.Format(time.RFC3339))
		assert.Equal(t, first, released(), "status changes nothing")

		r := s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		second := released()
		assert.WithinDuration(t, time.Now().Add(40*time.Minute), second, 2*time.Minute)
		assert.Empty(t, warnings())
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(rep.Notes, "\n"), "renew by test")
		assert.Contains(t, strings.Join(rep.Notes, "\n"), second.Format(time.RFC3339))

		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, second, released(), "there is time left")

		// What cannot be renewed is noted, and stops nobody.
		time.Sleep(25 * time.Minute)
		s.world.Cloud().InjectFault(cloud.Fault{Action: "ModifyInstanceAutoReleaseTime", Code: "OperationDenied", Status: 403})
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, second, released())
		rep, err = upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(rep.Notes, "\n"), "it is still released by itself at "+second.Format(time.RFC3339))
		assert.NotEmpty(t, rep.Warnings)

		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.9", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Zero(t, released(), "traffic may reach it: nothing releases it")
		assert.Empty(t, warnings())
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
	})
}
