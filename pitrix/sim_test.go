package pitrix_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	simhost "github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/pitrix"
)

// simHost is a simulated machine as a Host.
type simHost struct{ h *simhost.Host }

type simExit int

func (e simExit) Error() string   { return fmt.Sprintf("exit status %d", int(e)) }
func (e simExit) ExitStatus() int { return int(e) }

func (s simHost) Run(ctx context.Context, cmd string, _ io.Reader, stdout, _ io.Writer) error {
	status, out, err := s.h.Run(ctx, cmd)
	if err != nil {
		return err
	}
	if _, err := stdout.Write(out); err != nil {
		return err
	}
	if status != 0 {
		return simExit(status)
	}
	return nil
}

func (s simHost) ReadFile(_ context.Context, name string) ([]byte, error) { return s.h.ReadFile(name) }

func (s simHost) WriteFile(_ context.Context, name string, data []byte, perm fs.FileMode) error {
	return s.h.WriteFile(name, data, perm)
}

// TestDriveSimulated drives the whole stand-in of an installation, which was
// written by somebody else from the same measurements and refuses commands that
// it does not know.
func TestDriveSimulated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := sim.NewRebuild(t.Context(), sim.RebuildConfig{Memory: true, Rate: -1, Streams: -1})
		require.NoError(t, err)
		defer func() { require.NoError(t, w.Close()) }()
		ctx := t.Context()
		at := func(addr string) pitrix.Host { return simHost{w.Site().Machine(addr).Host} }
		f := &pitrix.Firstbox{Host: at("192.0.2.2")}
		n0 := &pitrix.Node{Host: at("192.0.2.61"), Name: "proxy0"}
		n1 := &pitrix.Node{Host: at("192.0.2.62"), Name: "proxy1"}
		h := &pitrix.Hypervisor{Host: at("192.0.2.101"), Name: "lab1ar01n01"}

		scripts, err := f.GetScripts(ctx)
		require.NoError(t, err)
		fleet, err := f.ReadFleet(ctx)
		require.NoError(t, err)
		site, err := f.ReadSite(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"14.04.5", "16.04.5"}, site.Releases)
		site.Bridges, err = f.ReadBridges(ctx, fleet)
		require.NoError(t, err)
		require.NotEmpty(t, site.Bridges)
		assert.Equal(t, []string{"br0", "br1"}, site.Bridges["192.0.2.101"])
		assert.Empty(t, pitrix.CheckSite(fleet, site))
		read, err := f.ReadGroups(ctx)
		require.NoError(t, err)
		groups, err := pitrix.GroupsOf(fleet, site)
		require.NoError(t, err)
		assert.Empty(t, groups.Diff(read))
		scope, err := pitrix.NewScope(fleet, groups, "proxy", pitrix.Allow{Role: "proxy"})
		require.NoError(t, err)

		results, err := f.Exec(ctx, scripts, scope, "supervisorctl status")
		require.NoError(t, err)
		require.NoError(t, pitrix.ExecFailed(results))
		require.Len(t, results, 2)
		s, err := pitrix.ParseSupervisor([]byte(results[1].Output), results[1].Status)
		require.NoError(t, err)
		assert.Equal(t, pitrix.VerdictRunning, s.Verdict())
		results, err = f.Exec(ctx, scripts, scope, "exit 3")
		require.NoError(t, err)
		assert.Equal(t, 3, results[0].Status)

		saved, err := f.BackupSettings(ctx, time.Now())
		require.NoError(t, err)
		assert.Contains(t, saved, "/pitrix/conf/settings.")
		m := pitrix.Marker{Run: "r1", Role: "proxy", Nodes: scope.Nodes(), Since: time.Now()}
		require.NoError(t, f.SetMarker(ctx, m))
		require.NoError(t, f.SetMarker(ctx, m))
		require.NoError(t, f.CheckMarker(ctx, scope))
		require.NoError(t, f.ClearMarker(ctx, "r1"))
		for _, build := range []func() (string, error){func() (string, error) { return scripts.BuildPackages(), nil }, func() (string, error) { return scripts.BuildGlobalConf("r1") }} {
			line, err := build()
			require.NoError(t, err)
			status, out, err := w.Site().Firstbox().Host.Run(ctx, line)
			require.NoError(t, err)
			_, err = pitrix.ParseBuild(out, status)
			require.NoError(t, err, "%s", out)
		}
		deb, lines, err := f.BuiltHosts(ctx)
		require.NoError(t, err)
		hosts, err := pitrix.ParseHosts(deb, lines)
		require.NoError(t, err)
		assert.Empty(t, pitrix.CheckHosts(hosts, fleet, "proxy0", "proxy1"))
		hosts1, err := f.Console(ctx, scripts)
		require.NoError(t, err)
		assert.NotEmpty(t, hosts1)

		d, err := h.GetDomain(ctx, "proxy0")
		require.NoError(t, err)
		require.NotNil(t, d)
		assert.Equal(t, pitrix.DomainRunning, d.State)
		assert.True(t, d.Autostart)
		var running *pitrix.RunningError
		require.ErrorAs(t, h.Undefine(ctx, "proxy0", d.UUID), &running)
		files, err := h.GetFiles(ctx, "proxy0")
		require.NoError(t, err)
		assert.Equal(t, pitrix.ParkLive, files.State())
		capacity, err := h.GetCapacity(ctx)
		require.NoError(t, err)
		assert.Contains(t, capacity.Bridges, "br0")

		id0, err := n0.GetIdentity(ctx)
		require.NoError(t, err)
		for _, mac := range d.Definition.MACs() {
			assert.Contains(t, id0.MACs, mac)
		}
		require.NoError(t, f.ProveName(ctx, "proxy0", id0))
		id1, err := n1.GetIdentity(ctx)
		require.NoError(t, err)
		var other *pitrix.IdentityError
		require.ErrorAs(t, f.ProveName(ctx, "proxy0", id1), &other)
		vip := netip.MustParseAddr("192.0.2.60")
		holder, err := pitrix.VIPHolder(ctx, vip, n0, n1)
		require.NoError(t, err)
		assert.Equal(t, "proxy0", holder)
		macs, err := n1.ProbeAddress(ctx, netip.MustParseAddr("192.0.2.161"), "eth0")
		require.NoError(t, err)
		assert.Empty(t, macs)
		macs, err = n1.ProbeAddress(ctx, vip, "eth0")
		require.NoError(t, err)
		assert.NotEmpty(t, macs)
		require.NoError(t, n0.Announce(ctx, netip.MustParseAddr("192.0.2.61")))

		old, err := n0.Host.ReadFile(ctx, "/etc/rc.local.tail")
		require.NoError(t, err)
		edit := pitrix.NetworkEdit{Key: "r1", Minutes: 3, Files: []pitrix.FileEdit{{Path: "/etc/rc.local.tail", Old: old, New: append([]byte("# edited\n"), old...)}}}
		require.NoError(t, n0.BeginEdit(ctx, edit, id0))
		st, err := n0.GetEdit(ctx, "r1")
		require.NoError(t, err)
		assert.Equal(t, pitrix.EditPending, st.Phase)
		time.Sleep(10 * time.Minute)
		st, err = n0.GetEdit(ctx, "r1")
		require.NoError(t, err)
		assert.Equal(t, pitrix.EditReverted, st.Phase)

		require.NoError(t, n0.StopKeepalived(ctx, id0))
		time.Sleep(5 * time.Second)
		holder, err = pitrix.VIPHolder(ctx, vip, n0, n1)
		require.NoError(t, err)
		assert.Equal(t, "proxy1", holder)
		require.NoError(t, n0.StopPrograms(ctx, id0))
		require.NoError(t, n0.Shutdown(ctx, id0))
		require.NoError(t, h.WaitState(ctx, "proxy0", pitrix.DomainShutOff, time.Second))
		require.NoError(t, h.SetAutostart(ctx, "proxy0", d.UUID, false))
		files, err = h.Park(ctx, "proxy0")
		require.NoError(t, err)
		assert.NotEmpty(t, files.Base)
		_, err = h.Unpark(ctx, "proxy0")
		require.NoError(t, err)
		require.NoError(t, h.Start(ctx, "proxy0", d.UUID))
		assert.Empty(t, w.Site().Refused(), "commands that the stand-in does not know")
		assert.Empty(t, w.Site().Damage())
	})
}
