package slb_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/slb"
)

// everything is the state of all members of all groups of the simulated cloud.
func everything(sim *cloud.Cloud) []string {
	var all []string
	put := func(group string, list []cloud.Backend) {
		for _, b := range list {
			all = append(all, fmt.Sprintf("%s: %s %s:%d weight %d %q", group, b.Type, b.ServerID, b.Port, b.Weight, b.Description))
		}
	}
	for _, lb := range sim.LoadBalancers() {
		put(lb.ID, lb.Default)
		for _, g := range lb.Groups {
			put(g.ID, g.Backends)
		}
	}
	for _, p := range []string{cloud.ALB, cloud.NLB} {
		for _, g := range sim.ServerGroups(p) {
			put(g.ID, g.Servers)
		}
	}
	return all
}

// TestEachCallFailingOnce lets each kind of call of a whole visit fail once, in
// every way: a clone joins every group that its source is in, ramps up, the
// source drains and comes back, the clone leaves. The end is always the
// beginning, and in between every weight was exactly what was wanted.
//
// One way of each call fails in a visit to all groups; in the others the visit
// is to two groups of the kind that the call is for, which is what its failing
// can concern.
func TestEachCallFailingOnce(t *testing.T) {
	clone := func(x slb.Target) slb.Backend {
		b := slb.Backend{ServerID: "i-91", Type: "ecs", Port: x.Backend.Port, Description: "clone"}
		if x.Backend.Type == "ip" {
			b.ServerID, b.ServerIP, b.Type = "172.31.0.91", "172.31.0.91", "ip"
		}
		return b
	}
	// visit goes to all groups, or to the first two of one product.
	visit := func(t *testing.T, sim *cloud.Cloud, c *slb.Client, only slb.Product) {
		before := everything(sim)
		var targets, clones []slb.Target
		for _, x := range targetsOf(t, c, server90) {
			if x.Backend.Port == 8082 { // a second port of the same group
				continue
			}
			targets = append(targets, x)
		}
		require.Len(t, targets, 7, "default, VServer groups by instance and interface, a second balancer, two ALB groups, one NLB group")
		if only != "" {
			targets = slices.DeleteFunc(targets, func(x slb.Target) bool { return cmp.Or(x.Membership.Product, slb.CLB) != only })
			targets = targets[:min(len(targets), 2)]
		}
		for _, x := range targets {
			b := clone(x)
			require.NoError(t, c.AddBackend(t.Context(), x.Membership.Group(), b))
			clones = append(clones, slb.Target{Membership: x.Membership, Backend: b, Weight: x.Weight})
		}
		require.NoError(t, c.Ramp(t.Context(), clones, slb.RampOptions{}))
		want := len(before) + len(targets)
		assert.Len(t, everything(sim), want, "added once")
		report, err := c.Drain(t.Context(), targets, slb.DrainOptions{Steps: []int{10}, Proofs: []slb.Proof{silent("host")}})
		require.NoError(t, err)
		assert.Len(t, report.Evidence, 1)
		zero := 0
		for _, line := range everything(sim) {
			if strings.Contains(line, "90:") && strings.Contains(line, "weight 0 ") {
				zero++
			}
		}
		assert.Equal(t, len(targets), zero)
		for n := range targets {
			targets[n].Backend.Weight = 0
		}
		require.NoError(t, c.Ramp(t.Context(), targets, slb.RampOptions{}))
		for n := range clones {
			clones[n].Backend.Weight = clones[n].Weight
		}
		_, err = c.Drain(t.Context(), clones, slb.DrainOptions{Proofs: []slb.Proof{silent("host")}})
		require.NoError(t, err)
		for _, x := range clones {
			require.NoError(t, c.RemoveBackend(t.Context(), x.Membership.Group(), x.Backend))
		}
		assert.Equal(t, before, everything(sim))
	}

	var actions []string
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		visit(t, sim, c, "")
		for a := range sim.Counts() {
			actions = append(actions, a)
		}
	})
	require.Greater(t, len(actions), 20)
	slices.Sort(actions)
	// At a desk, and under the race detector, each write meets the hardest fault,
	// and every fault meets some call; UPGRADECTL_SLOW=1 goes through all of them.
	sample := []string{"time-out after the effect", "reset", "throttled", "empty 200 after the effect", "500", "empty 200"}
	for n, action := range actions {
		write := !strings.Contains(action, "Describe") && !strings.Contains(action, "List") && !strings.Contains(action, "Get")
		for name, f := range map[string]cloud.Fault{
			"throttled":                  {Code: "Throttling.User", Status: http.StatusBadRequest},
			"time-out after the effect":  {Kind: cloud.FaultCut, Applied: true, Delay: 3 * time.Minute},
			"500":                        {Code: "InternalError", Status: http.StatusInternalServerError},
			"500 after the effect":       {Code: "InternalError", Status: http.StatusInternalServerError, Applied: true},
			"reset":                      {Kind: cloud.FaultCut},
			"reset after the effect":     {Kind: cloud.FaultCut, Applied: true},
			"empty 200":                  {Kind: cloud.FaultEmpty},
			"empty 200 after the effect": {Kind: cloud.FaultEmpty, Applied: true},
		} {
			if !write && f.Applied && f.Delay == 0 {
				continue // a read has no effect: it is the same without
			}
			if (!testenv.RunSlow() || raceDetector) && !(write && name == "reset after the effect") && !(n%5 == 2 && name == sample[n/5%len(sample)]) {
				continue
			}
			only := slb.CLB
			if product, _, found := strings.Cut(action, ":"); found && (product == "alb" || product == "nlb") {
				only = slb.Product(product)
			}
			if name == "time-out after the effect" {
				only = ""
			}
			t.Run(action+" "+name, func(t *testing.T) {
				groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
					f.Action = action
					sim.InjectFault(f)
					visit(t, sim, c, only)
					assert.Positive(t, sim.Counts()[action], "it was not called")
				})
			})
		}
	}
}
