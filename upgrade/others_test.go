package upgrade_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// balancers is a colleague's way to the balancers.
func (s *stage) balancers() *slb.Client {
	s.t.Helper()
	c, err := slb.New(slb.Config{Region: s.op.Region, AccessKeyID: s.op.AccessKeyID, AccessKeySecret: s.op.AccessKeySecret, Poll: 100 * time.Millisecond}, slb.WithTransport(s.world.Cloud().Transport()))
	require.NoError(s.t, err)
	return c
}

// Somebody else works on the balancers while the run waits at its gates: what
// was proved before a gate is proved again behind it, and nobody's weight is
// overwritten.
func TestScenario31SomebodyMovesWeights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		m := p.Facts.Memberships[0]
		api := s.balancers()
		set := func(server string, weight int) {
			t.Helper()
			all, err := api.ListBackends(t.Context(), m.Group())
			require.NoError(t, err)
			for _, b := range all {
				if b.ServerID == server && b.Port == m.Backend.Port {
					require.NoError(t, api.SetWeight(t.Context(), m.Group(), b, weight))
					return
				}
			}
			t.Fatalf("%s is no member", server)
		}
		refused := func(r *upgrade.Result, step, why string) {
			t.Helper()
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, step, r.Step)
			assert.Contains(t, r.Reason, why)
			assert.Equal(t, upgrade.ExitDrift, r.ExitStatus(), "%v", r.Err)
		}
		// Between the plan and its run: nothing begins.
		set(m.Backend.ServerID, m.Backend.Weight-1)
		stale := s.apply(quiet)
		require.Equal(t, "failed", stale.State)
		assert.True(t, stale.Untouched)
		assert.Equal(t, upgrade.ExitDrift, stale.ExitStatus())
		assert.ErrorContains(t, stale.Err, fmt.Sprintf("is %d, was %d", m.Backend.Weight-1, m.Backend.Weight))
		set(m.Backend.ServerID, m.Backend.Weight)
		s.run += "2"

		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.11"}).State)

		set(s.clone(), 1)
		refused(s.resume(upgrade.RunOptions{Approve: []string{"4.1"}, Until: "4.1"}), "4.1-slb", "ours weight 100, now weight 1")
		set(s.clone(), m.Backend.Weight)
		r := s.resume(upgrade.RunOptions{Until: "4.3"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)

		// A few short requests through the balancer look like health checks.
		set(m.Backend.ServerID, 1)
		refused(s.resume(upgrade.RunOptions{Approve: []string{"4.4"}, Until: "4.4"}), "4.4-stop", "weight 1")
		set(m.Backend.ServerID, 0)

		gone := m.Backend
		gone.Weight = 0
		require.NoError(t, api.RemoveBackend(t.Context(), m.Group(), gone))
		began := time.Now()
		r = s.rollback()
		assert.Equal(t, "rollback-incomplete", r.State)
		assert.Contains(t, r.Reason+strings.Join(r.Work, " "), "not a backend any more")
		assert.Less(t, time.Since(began), p.Config.Pace.Timeout, "it is not waited for what cannot come")
		require.NoError(t, api.AddBackend(t.Context(), m.Group(), gone))
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		s.end("rolled-back")
	})
}

// between calls f once, after the first weight that 4.1 lowers and before the
// next.
func between(f func()) upgrade.RunOptions {
	o, met := quiet, false
	o.Observer = func(e upgrade.Event) {
		if !met && e.Kind == "progress" && e.Step == "4.1-slb" && strings.HasSuffix(e.Text, ": weight 50") {
			met = true
			f()
		}
	}
	return o
}

// Somebody moves a weight while 4.1 is at work on the others: his stays.
func TestScenario31BetweenTwoWeights(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		m := p.Facts.Memberships[1]
		weight := func() int {
			all, err := s.balancers().ListBackends(t.Context(), m.Group())
			require.NoError(t, err)
			i := slices.IndexFunc(all, func(b slb.Backend) bool { return b.ServerID == m.Backend.ServerID && b.Port == m.Backend.Port })
			require.NotEqual(t, -1, i)
			return all[i].Weight
		}
		r := s.apply(between(func() { require.NoError(t, s.balancers().SetWeight(t.Context(), m.Group(), m.Backend, 37)) }))
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.1-slb", r.Step)
		assert.Contains(t, r.Reason, "now weight 37")
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.Equal(t, 37, weight(), "it was overwritten")
		now := m.Backend
		now.Weight = 37
		require.NoError(t, s.balancers().SetWeight(t.Context(), m.Group(), now, m.Backend.Weight))
		s.succeeded(s.resume(quiet), 6)
	})
}

// The transition host falls ill between two weights: production keeps what it
// has.
func TestScenario42IllBetweenTwoWeights(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		ill := func(every int) {
			for _, port := range []int{8080, 8081, 8082} {
				s.world.Host("172.31.0.101").FailEvery(port, every)
			}
		}
		var then string
		r := s.apply(between(func() {
			ill(1)
			then = fmt.Sprint(s.world.Figures().WeightsAfter)
		}))
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.1-slb", r.Step)
		assert.Contains(t, r.Reason, "health")
		assert.Equal(t, then, fmt.Sprint(s.world.Figures().WeightsAfter), "another weight was lowered")
	})
}

// logging makes the world's balancer write an access log.
func logging(w *sim.World) { w.Cloud().SetAccessLog("lb-shop", "site", "access") }

// evidence is what 4.3 says of each listener of the balancer, by port.
func (s *stage) evidence() map[int]slb.ListenerSilence {
	s.t.Helper()
	h, err := engine.Read(s.run)
	require.NoError(s.t, err)
	var silence upgrade.Silence
	require.NoError(s.t, json.Unmarshal(h.StepByID("4.3-silence").Result, &silence))
	require.Len(s.t, silence.Logs, 1)
	out := map[int]slb.ListenerSilence{}
	for _, l := range silence.Logs[0].Listeners {
		out[l.Port] = l
	}
	return out
}

// Where no place gets a probe through a balancer, its log cannot prove silence.
// The run goes on by the connections, and says so.
func TestNoProbeGetsThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		walled := func(w *sim.World) {
			logging(w)
			for _, addr := range []string{"172.31.0.5", "172.31.0.6", "172.31.0.90"} {
				h := w.Host(addr)
				forward := h.Forward
				h.Forward = func(ctx context.Context, to string) (net.Conn, error) {
					if strings.HasPrefix(to, "172.31.0.200:") {
						return nil, errors.New("no route to host")
					}
					return forward(ctx, to)
				}
			}
		}
		s := newStageIn(t, sim.Config{}, walled, nil)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.3"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		ev := s.evidence()
		require.Len(t, ev, 3)
		for _, port := range []int{80, 81} {
			assert.Equal(t, slb.ByConnections, ev[port].Evidence)
			assert.Contains(t, ev[port].Reason, "no probe can be sent through it (172.31.0.5: ")
			assert.Contains(t, ev[port].Reason, "this machine: ")
			assert.Contains(t, ev[port].Reason, "none of them to the host")
			assert.NotContains(t, ev[port].Reason, "its log shows 0 requests")
		}
		assert.Equal(t, "the cloud keeps no access log of tcp listeners", ev[82].Reason)
	})
}

// A log that does not show the probe proves nothing: the run stops, and says
// what a person can do. With logging off the connections are the proof.
func TestScenario39LogWithoutTheProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, logging, nil)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.2"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		s.world.Cloud().SetLogs(cloud.Logs{Delay: 10 * 24 * time.Hour})
		r = s.resume(upgrade.RunOptions{Until: "4.3"})
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.3-silence", r.Step)
		assert.Contains(t, r.Reason, "a probe does not show up in its access log")
		assert.Contains(t, r.Reason, "switch access logging of lb-shop off")
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		s.world.Cloud().SetAccessLog("lb-shop", "", "")
		r = s.resume(upgrade.RunOptions{Until: "4.3"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "access logging is off", s.evidence()[80].Reason)
	})
}

// lookups is a name service that knows what it was told.
type lookups map[string]string

func (l lookups) LookupHost(_ context.Context, name string) ([]string, error) {
	if a := l[name]; a != "" {
		return []string{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// A domain that leads straight to production is work for a person: the run waits
// at a gate of its own, looks whether it is done, and takes what was done for no
// drift.
func TestDomainsAreMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, func(w *sim.World) {
			w.Cloud().AddDNSRecord(cloud.DNSRecord{ID: "rec-www", Domain: "shop.example", RR: "www", Value: "172.31.0.90"})
		}, nil)
		names := lookups{"www.shop.example": "172.31.0.90"}
		s.access.Resolver = names
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		require.Len(t, p.Facts.Forwarding, 1)
		i := p.Facts.Forwarding[0]
		assert.Contains(t, p.Text(), "change record www.shop.example from A 172.31.0.90 to A 172.31.0.200 and wait for its TTL of 600 s")

		r := s.apply(upgrade.RunOptions{Until: "3.1"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "2.7-domains", r.Step)
		assert.True(t, r.Gate)
		r = s.resume(upgrade.RunOptions{Approve: []string{"2.7-domains"}, Until: "3.1"})
		require.Equal(t, "failed", r.State, "an approval alone moves nothing")
		assert.Contains(t, r.Reason, "record www.shop.example is still A 172.31.0.90")

		_, err = s.balancers().CreateRule(t.Context(), i.LoadBalancerID, i.Port, "", slb.Rule{Domain: i.Domain, VServerGroupID: i.VServerGroupID})
		require.NoError(t, err)
		require.True(t, s.world.Cloud().SetDNSRecord("rec-www", i.WantType, i.Want))
		r = s.resume(upgrade.RunOptions{Until: "3.1"})
		require.Equal(t, "failed", r.State, "the old answer is still given")
		assert.Contains(t, r.Reason, "www.shop.example still leads to 172.31.0.90 from here")
		names["www.shop.example"] = i.Want
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "4.1"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
	})
}

// Snapshots of a group carry its mark only after it is made. A run that is
// stopped in between finds them all the same, and takes them away.
func TestSnapshotGroupWithoutMarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		c := s.world.Cloud()
		c.Deny("TagResources")
		r := s.apply(upgrade.RunOptions{Until: "3.1"})
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "3.1-snapshots", r.Step)
		assert.Equal(t, 1, c.Counts()["CreateSnapshotGroup"])
		assert.Contains(t, r.Reason, "TagResources")
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		assert.Zero(t, c.Counts()["CreateSnapshot"])
		for _, r := range c.Resources() {
			assert.False(t, r.CreatedByAPI, "%s %s", r.Type, r.ID)
		}
		s.end("rolled-back")
	})
}
