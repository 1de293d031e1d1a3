package upgrade_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
	"github.com/upgradectl/upgradectl/upgrade"
)

// on runs a command on a machine of the world, as somebody else would.
func (s *rebuildStage) on(addr, command string) string {
	s.t.Helper()
	return sayOn(s.t, s.world, addr, command)
}

func sayOn(t *testing.T, w *sim.Rebuild, addr, command string) string {
	t.Helper()
	m := w.Site().Machine(addr)
	require.NotNil(t, m, addr)
	status, out, err := m.Host.Run(t.Context(), command)
	require.NoError(t, err)
	require.Zero(t, status, "%s: %s: %s", addr, command, out)
	return string(out)
}

// waitHolder waits until the node alone has the floating address.
func (s *rebuildStage) waitHolder(name string) {
	s.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 300 {
		if all := s.world.Site().Holders(firstbox.ProxyVIP); len(all) == 1 && all[0].Name == name {
			return
		}
		<-tick.C
	}
	s.t.Fatalf("%s does not take the floating address", name)
}

// Whoever holds the floating address is switched last: by the plan, and when it
// has moved since, not at all.
func TestScenario70VIPMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		require.Len(t, p.Facts.Rebuild.Nodes, 2)
		assert.Equal(t, "proxy1", p.Facts.Rebuild.Nodes[0].Name)
		assert.False(t, p.Facts.Rebuild.Nodes[0].Holder)
		assert.Equal(t, "proxy0", p.Facts.Rebuild.Nodes[1].Name)
		assert.True(t, p.Facts.Rebuild.Nodes[1].Holder)

		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "6.5", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		s.on("192.0.2.61", "service keepalived stop")
		s.waitHolder("proxy1")
		r = s.resume(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "7.1-ready", r.Step)
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.Contains(t, r.Reason, "whoever holds it is switched last")
		s.on("192.0.2.61", "service keepalived start") // it preempts
		s.waitHolder("proxy0")
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
	})
}

// A machine is never launched on the host of the old one of its name.
func TestTrapSameHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
		cfg, err := upgrade.LoadConfig(s.op.Config)
		require.NoError(t, err)
		cfg.Rebuild.Nodes[0].PhysicalHost, cfg.Rebuild.Nodes[1].PhysicalHost = "192.0.2.101", "192.0.2.102"
		e, err := upgrade.NewEnv(cfg, s.access)
		require.NoError(t, err)
		defer e.Close()
		_, err = upgrade.Discover(t.Context(), cfg, e)
		var refused *upgrade.RefusedError
		require.ErrorAs(t, err, &refused)
		assert.Contains(t, err.Error(), "proxy0 stands on 192.0.2.101 already")
	})
}

// The script pings the address of the settings and logs in by name: a name that
// leads elsewhere is found before anything is installed.
func TestTrapPingOneLoginOther(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.3", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		fb := s.world.Site().Firstbox().Host
		hosts, err := fb.ReadFile("/etc/hosts")
		require.NoError(t, err)
		require.Contains(t, string(hosts), "192.0.2.71")
		require.NoError(t, fb.WriteFile("/etc/hosts", []byte(strings.ReplaceAll(string(hosts), "192.0.2.71", "192.0.2.61")), 0o644))
		r = s.resume(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "4.1-install", r.Step)
		assert.Contains(t, r.Reason, "proxy0")
		require.NoError(t, fb.WriteFile("/etc/hosts", hosts, 0o644))
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		s.end("rolled-back")
	})
}

// What somebody made by hand on the old machine, such as a packet filter, stops
// the run until it is on the new one too.
func TestTrapLostHandMade(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		const rules = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 19033 -j ACCEPT\nCOMMIT\n"
		add := func(w *sim.Rebuild, addr string) {
			require.NoError(t, w.Site().Machine(addr).Host.WriteFile("/etc/iptables.rules", []byte(rules), 0o644))
		}
		s := newRebuildStage(t, sim.RebuildConfig{}, func(w *sim.Rebuild) { add(w, "192.0.2.61") }, nil)
		r := s.apply(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "6.5-compare", r.Step, r.Reason)
		assert.Contains(t, r.Reason, "19033")
		add(s.world, "192.0.2.71")
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
	})
}

// So does a line of cronus' configuration; its value is in no message.
func TestTrapLostCronusConfig(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		put := func(w *sim.Rebuild, addr, text string) {
			require.NoError(t, w.Site().Machine(addr).Host.WriteFile("/etc/cronus-api/config.yaml", []byte(text), 0o600))
		}
		s := newRebuildStage(t, sim.RebuildConfig{}, func(w *sim.Rebuild) {
			put(w, "192.0.2.61", "listen: 192.0.2.61:8881\nzone_server: lab1b\n")
		}, nil)
		r := s.apply(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "6.5-compare", r.Step, r.Reason)
		assert.Contains(t, r.Reason, "/etc/cronus-api/config.yaml lacks of the old machine's: line 1 (listen), line 2 (zone_server)")
		assert.NotContains(t, r.Reason, "lab1b")
		put(s.world, "192.0.2.71", "zone_server: lab1b\nlisten: 192.0.2.71:8881\n")
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
	})
}

// Two machines never have one address: whoever else answers at the final
// address stops the switch before the old machine is touched.
func TestScenario69DuplicateAddress(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "6.5", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		s.on("192.0.2.65", "ip addr add 192.0.2.62/24 dev eth0")
		r = s.resume(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "7.1-ready", r.Step, r.Reason)
		assert.Contains(t, r.Reason, "two machines would have one address")
	})
}
