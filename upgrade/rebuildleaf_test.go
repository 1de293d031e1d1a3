package upgrade_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// newLeafStage is a site whose plan takes the proxies for nodes of a spine-leaf
// network. The simulated one is flat: what is seen is which host leads to whom,
// and when, not that packets need it.
func newLeafStage(t *testing.T, strategy string, edit func(string) string) *rebuildStage {
	s := newRebuildStage(t, sim.RebuildConfig{Rate: 5, Strategy: strategy}, func(w *sim.Rebuild) {
		for host, proxy := range map[string]string{"192.0.2.101": "192.0.2.61", "192.0.2.102": "192.0.2.62"} {
			sayOn(t, w, host, "ip route replace "+proxy+"/32 dev br0 && echo ip route replace "+proxy+"/32 dev br0 >>/etc/rc.local.tail")
		}
	}, edit)
	p, err := upgrade.ParsePlan(s.plan)
	require.NoError(t, err)
	for i := range p.Facts.Rebuild.Nodes {
		p.Facts.Rebuild.Nodes[i].Leaf = &upgrade.LeafFacts{Bridge: "br0", OldBridge: "br0"}
	}
	p, err = upgrade.BuildPlan(&p.Config, &p.Facts, time.Now(), "test")
	require.NoError(t, err)
	s.plan, err = p.JSON()
	require.NoError(t, err)
	return s
}

// leads tells which addresses a host leads to, now and at its next boot.
func (s *rebuildStage) leads(addr string) []string {
	s.t.Helper()
	m := s.world.Site().Machine(addr)
	var out []string
	tail, err := m.Host.ReadFile("/etc/rc.local.tail")
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(s.t, err)
	}
	for _, a := range []string{"192.0.2.61", "192.0.2.62", "192.0.2.71", "192.0.2.72"} {
		status, now, err := m.Host.Run(s.t.Context(), "ip route show "+a+"/32")
		require.NoError(s.t, err)
		require.Zero(s.t, status)
		there := strings.Contains(string(now), "dev br0")
		assert.Equal(s.t, there, strings.Contains(string(tail), "ip route replace "+a+"/32 dev br0\n"), "%s: %s now and at the next boot", addr, a)
		if there {
			out = append(out, a)
		}
	}
	return out
}

// In a spine-leaf network the hosts' routes go with the nodes: temporary ones
// before the launch, each final one when its old machine is off, and none is
// left. A person is asked for the switches' part before.
func TestRebuildSpineLeaf(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeafStage(t, "side-by-side", nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		assert.Contains(t, p.Text(), "do both leaf switches have static routes, with track, of 192.0.2.72/32 to 192.0.2.101, 192.0.2.71/32 to 192.0.2.102?")
		assert.Contains(t, p.Text(), "by hand, now: the static routes, with track, of both leaf switches of 192.0.2.62/32 from 192.0.2.102 to 192.0.2.101")

		r := s.apply(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, []string{"192.0.2.62"}, s.leads("192.0.2.101"))
		assert.Equal(t, []string{"192.0.2.61"}, s.leads("192.0.2.102"))
		for host, want := range map[string]string{"192.0.2.101": `ks_vm_routing_rule_lab1a_proxy1="ip route replace 192.0.2.62/32 dev br0"`, "192.0.2.102": `ks_vm_routing_rule_lab1a_proxy0="ip route replace 192.0.2.61/32 dev br0"`} {
			assert.Equal(t, 1, strings.Count(s.hostSettings(host), "ks_vm_routing_rule_"), host)
			assert.Contains(t, s.hostSettings(host), want)
		}
		s.end("succeeded")
	})
}

// otherHosts has two nodes rebuilt in place on hosts of their own.
func otherHosts(y string) string {
	return strings.NewReplacer("{name: proxy0}", "{name: proxy0, physical_host: 192.0.2.103}", "{name: proxy1}", "{name: proxy1, physical_host: 192.0.2.104}").Replace(y)
}

// In place as well: the route of a node moves between its two machines, when
// nobody has its address, and stays where the new one is made on the old host.
func TestRebuildSpineLeafInPlace(t *testing.T) {
	t.Parallel()
	slow(t)
	for name, tt := range map[string]struct {
		edit   func(string) string
		until  string // taken back from there; "": to the end
		p0, p1 string
	}{
		"other hosts": {otherHosts, "", "192.0.2.103", "192.0.2.104"},
		"same hosts":  {nil, "", "192.0.2.101", "192.0.2.102"},
		"half way":    {otherHosts, "7.1.3", "192.0.2.101", "192.0.2.102"},
		"back":        {otherHosts, "9.1", "192.0.2.101", "192.0.2.102"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLeafStage(t, "in-place", tt.edit)
				p, err := upgrade.ParsePlan(s.plan)
				require.NoError(t, err)
				if tt.edit != nil {
					assert.Contains(t, p.Text(), "by hand, now: the static routes, with track, of both leaf switches of 192.0.2.62/32 from 192.0.2.102 to 192.0.2.104")
				} else {
					assert.NotContains(t, p.Text(), "leaf switches")
				}
				end := "succeeded"
				if tt.until == "" {
					s.succeeded(s.apply(quiet))
				} else {
					r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: tt.until, Observer: quiet.Observer})
					require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
					r = s.rollback()
					require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
					end = "rolled-back"
				}
				for _, host := range []string{"192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104"} {
					var want []string
					if host == tt.p0 {
						want = append(want, "192.0.2.61")
					}
					if host == tt.p1 {
						want = append(want, "192.0.2.62")
					}
					assert.Equal(t, want, s.leads(host), host)
				}
				s.end(end)
			})
		})
	}
}

// hostSettings gives the settings file of a physical host.
func (s *rebuildStage) hostSettings(addr string) string {
	s.t.Helper()
	fb := s.world.Site().Firstbox().Host
	b, err := fb.ReadFile("/pitrix/conf/settings/" + s.world.Site().Machine(addr).Name)
	require.NoError(s.t, err)
	return string(b)
}

// Taken back from between the two switches, every host leads to whom it led to
// before.
func TestRebuildSpineLeafBack(t *testing.T) {
	t.Parallel()
	slow(t)
	for _, until := range []string{"3.3", "7.1", "9.1"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLeafStage(t, "side-by-side", nil)
				before := s.hostSettings("192.0.2.101") + s.hostSettings("192.0.2.102")
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until, Observer: quiet.Observer})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				if until == "7.1" {
					assert.Equal(t, []string{"192.0.2.61", "192.0.2.62", "192.0.2.72"}, s.leads("192.0.2.101"))
					assert.Equal(t, []string{"192.0.2.71"}, s.leads("192.0.2.102"))
				}
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
				assert.Equal(t, []string{"192.0.2.61"}, s.leads("192.0.2.101"))
				assert.Equal(t, []string{"192.0.2.62"}, s.leads("192.0.2.102"))
				assert.Equal(t, before, s.hostSettings("192.0.2.101")+s.hostSettings("192.0.2.102"))
				s.end("rolled-back")
			})
		})
	}
}
