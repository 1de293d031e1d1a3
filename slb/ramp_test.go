package slb_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

// targetsOf are all memberships of a server in which the API can set weights.
func targetsOf(t *testing.T, c *slb.Client, s slb.Server) []slb.Target {
	t.Helper()
	ms, err := c.Discover(t.Context(), s)
	require.NoError(t, err)
	var out []slb.Target
	for _, m := range ms {
		out = append(out, slb.Target{Membership: m, Backend: m.Backend, Weight: m.Backend.Weight})
	}
	return out
}

func weightsOf(t *testing.T, c *slb.Client, targets []slb.Target) []int {
	t.Helper()
	var out []int
	for _, x := range targets {
		members, err := c.ListBackends(t.Context(), x.Membership.Group())
		require.NoError(t, err)
		for _, b := range members {
			if b.ServerID == x.Backend.ServerID && b.Port == x.Backend.Port {
				out = append(out, b.Weight)
			}
		}
	}
	return out
}

func silent(source string) slb.Proof {
	return func(context.Context) (slb.Evidence, error) {
		return slb.Evidence{Silent: true, Source: source, Detail: "0 connections"}, nil
	}
}

// twoMembers is what a drain needs: somebody else in every group.
func twoMembers(sim *cloud.Cloud, c *slb.Client) {
	sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-7", Listeners: []cloud.Listener{{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true}, {Port: 53, Protocol: "udp", VServerGroup: "rsp-u"}},
		Default: []cloud.Backend{{ServerID: "i-50", Weight: 60}, {ServerID: "i-91", Weight: 35}},
		Groups:  []cloud.VServerGroup{{ID: "rsp-u", Backends: []cloud.Backend{{ServerID: "i-50", Port: 53, Weight: 1}, {ServerID: "i-91", Port: 53, Weight: 7}}}}})
}

func TestDrainAndRampBack(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		twoMembers(sim, c)
		targets := targetsOf(t, c, slb.Server{InstanceID: "i-91"})
		require.Len(t, targets, 2)
		var steps []string
		busy := 2
		begun := time.Now()
		report, err := c.Drain(t.Context(), targets, slb.DrainOptions{
			Steps: []int{50, 10, 1}, Quiet: 20 * time.Second, Deadline: time.Hour,
			StepCheck: func(_ context.Context, w int) error {
				steps = append(steps, strings.Join([]string{string(rune('0' + w/10)), string(rune('0' + w%10))}, ""))
				return nil
			},
			Proofs: []slb.Proof{silent("host"), func(context.Context) (slb.Evidence, error) {
				if time.Since(begun) > 4*time.Minute && busy > 0 { // what came before the lag was over counts for nothing
					busy--
					return slb.Evidence{Source: "log", Detail: "3 requests"}, nil
				}
				return slb.Evidence{Silent: true, Source: "log", Detail: "0 requests"}, nil
			}},
		})
		require.NoError(t, err)
		assert.Equal(t, []string{"10", "01"}, steps, "35 and 7 are below 50")
		assert.Equal(t, []int{0, 0}, weightsOf(t, c, targets))
		assert.GreaterOrEqual(t, report.Took, 5*time.Minute, "UDP settles")
		assert.Zero(t, busy)
		assert.False(t, report.Forced)
		assert.Len(t, report.Evidence, 2)

		var at []int
		for n := range targets {
			targets[n].Backend.Weight = 0
		}
		// A second drain, as after an interruption, cannot know for how long the
		// weight has been 0.
		report, err = c.Drain(t.Context(), targets, slb.DrainOptions{Proofs: []slb.Proof{silent("host")}})
		require.NoError(t, err)
		assert.GreaterOrEqual(t, report.Took, 5*time.Minute, "UDP settles")
		require.NoError(t, c.Ramp(t.Context(), targets, slb.RampOptions{HealthyFor: 10 * time.Second, StepCheck: func(_ context.Context, w int) error {
			at = append(at, weightsOf(t, c, targets)...)
			return nil
		}}))
		assert.Equal(t, []int{1, 1, 10, 7, 35, 7}, at, "1, 10, recorded")
		assert.Equal(t, []int{35, 7}, weightsOf(t, c, targets), "what was recorded, not 100")
	})
}

// The ramp stays where it is as long as one listener is not healthy.
func TestRampWaitsForHealth(t *testing.T) {
	var ok atomic.Bool
	worldWith(t, func(q cloud.HealthQuery) string {
		if q.ServerID == "i-91" && q.ListenerPort == 8443 && !ok.Load() {
			return "abnormal"
		}
		return "normal"
	}, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-7", Default: []cloud.Backend{{ServerID: "i-91", Weight: 0}},
			Listeners: []cloud.Listener{{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true}, {Port: 8443, Protocol: "tcp", BackendPort: 8080, HealthCheck: true}}})
		targets := targetsOf(t, c, slb.Server{InstanceID: "i-91"})
		targets[0].Weight = 80
		time.AfterFunc(time.Minute, func() {
			assert.Equal(t, []int{1}, weightsOf(t, c, targets))
			ok.Store(true)
		})
		require.NoError(t, c.Ramp(t.Context(), targets, slb.RampOptions{}))
		assert.Equal(t, []int{80}, weightsOf(t, c, targets))

		ok.Store(false)
		err := c.CheckServing(t.Context(), targets[0].Membership, slb.Backend{ServerID: "i-91"})
		var no *slb.NotServingError
		require.ErrorAs(t, err, &no)
		assert.Contains(t, no.Error(), "tcp 8443: abnormal")
		targets[0].Backend.Weight, targets[0].Weight = 80, 100
		begun := time.Now()
		require.ErrorIs(t, c.Ramp(t.Context(), targets, slb.RampOptions{HealthyWithin: time.Minute}), context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begun).Round(10*time.Second))
	})
}

func TestDrainRefuses(t *testing.T) {
	worldWith(t, func(q cloud.HealthQuery) string {
		if q.ServerID == "i-51" {
			return "abnormal"
		}
		return "normal"
	}, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		two := []cloud.Backend{{ServerID: "i-91", Weight: 5}, {ServerID: "i-50", Weight: 5}}
		listener := func(scheduler string) []cloud.Listener {
			return []cloud.Listener{{Port: 80, Protocol: "http", Scheduler: scheduler, BackendPort: 80, HealthCheck: true}}
		}
		for _, tt := range []struct {
			kind string
			lb   cloud.LoadBalancer
		}{
			{slb.KindManaged, cloud.LoadBalancer{ServiceManaged: true, Listeners: listener("wrr"), Default: two}},
			{slb.KindProtected, cloud.LoadBalancer{Protected: "belongs to team x", Listeners: listener("wrr"), Default: two}},
			{slb.KindScheduler, cloud.LoadBalancer{Listeners: listener("rr"), Default: two}},
			{slb.KindScheduler, cloud.LoadBalancer{Listeners: []cloud.Listener{{Port: 80, Scheduler: "sch", BackendPort: 80}}, Default: two}},
			{slb.KindLast, cloud.LoadBalancer{Listeners: listener("wrr"), Default: []cloud.Backend{{ServerID: "i-91", Weight: 5}, {ServerID: "i-51", Weight: 5}, {ServerID: "i-50"}}}},
			{slb.KindPrimarySecondary, cloud.LoadBalancer{Listeners: []cloud.Listener{{Port: 80, Protocol: "tcp", MasterSlaveGroup: "ms-1"}},
				MasterSlaves: []cloud.MasterSlaveGroup{{ID: "ms-1", Master: cloud.Backend{ServerID: "i-91", Port: 80, Weight: 100}, Slave: cloud.Backend{ServerID: "i-50", Port: 80, Weight: 100}}}}},
		} {
			tt.lb.ID = "lb-" + tt.kind + listenerName(tt.lb)
			sim.AddLoadBalancer(tt.lb)
			var mine []slb.Target
			for _, x := range targetsOf(t, c, slb.Server{InstanceID: "i-91"}) {
				if x.Membership.LoadBalancerID == tt.lb.ID {
					mine = append(mine, x)
				}
			}
			require.Len(t, mine, 1, tt.kind)
			_, err := c.Drain(t.Context(), mine, slb.DrainOptions{Proofs: []slb.Proof{silent("host")}})
			var refused *slb.RefusedError
			require.ErrorAs(t, err, &refused, tt.kind)
			assert.Equal(t, tt.kind, refused.Findings[0].Kind)
			assert.NotEmpty(t, refused.Findings[0].Remedy)
			if tt.kind != slb.KindPrimarySecondary {
				assert.Equal(t, []int{5}, weightsOf(t, c, mine), "nothing changed")
			}
			_, err = c.Drain(t.Context(), mine, slb.DrainOptions{Proofs: []slb.Proof{silent("host")}, AllowEmpty: true})
			assert.Equal(t, tt.kind == slb.KindLast, err == nil, "%s: only an empty group can be allowed: %v", tt.kind, err)
		}
		_, err := c.Drain(t.Context(), nil, slb.DrainOptions{})
		require.ErrorContains(t, err, "without a proof")
	})
}

func listenerName(lb cloud.LoadBalancer) string { return lb.Listeners[0].Scheduler }

func TestDrainDeadline(t *testing.T) {
	for _, tt := range []struct {
		policy slb.Policy
		ask    func(context.Context, []slb.Evidence) (bool, error)
		forced bool
		fails  bool
		took   time.Duration
	}{
		{"", nil, false, true, 10 * time.Minute},
		{slb.Hold, nil, false, true, 10 * time.Minute},
		{slb.Ask, nil, false, true, 10 * time.Minute},
		{slb.Force, nil, true, false, 10 * time.Minute},
		{slb.Ask, twice(), true, false, 20 * time.Minute},
	} {
		world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
			sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-7", Listeners: []cloud.Listener{{Port: 80, BackendPort: 80}}, Default: []cloud.Backend{{ServerID: "i-91", Weight: 5}, {ServerID: "i-50", Weight: 5}}})
			targets := targetsOf(t, c, slb.Server{InstanceID: "i-91"})
			report, err := c.Drain(t.Context(), targets, slb.DrainOptions{Policy: tt.policy, Ask: tt.ask, Proofs: []slb.Proof{
				func(context.Context) (slb.Evidence, error) {
					return slb.Evidence{Source: "host", Detail: "1 connection"}, errors.New("ssh: no")
				}}})
			assert.Equal(t, tt.forced, report.Forced)
			assert.Equal(t, tt.took, report.Took.Round(time.Minute))
			var no *slb.NotSilentError
			assert.Equal(t, tt.fails, errors.As(err, &no), "%v", err)
			if no != nil {
				assert.Contains(t, no.Error(), "host: cannot tell: ssh: no")
			}
			assert.Equal(t, []int{0}, weightsOf(t, c, targets))
		})
	}
}

// twice says no, then yes.
func twice() func(context.Context, []slb.Evidence) (bool, error) {
	n := 0
	return func(context.Context, []slb.Evidence) (bool, error) { n++; return n > 1, nil }
}
