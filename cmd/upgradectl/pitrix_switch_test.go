package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/pitrix"
)

// switchSite is the simulated site over sockets, in real time, and the commands
// of an operator in it.
type switchSite struct {
	t     *testing.T
	world *sim.Rebuild
	op    sim.Operator
	box   *pitrix.Firstbox
	old   *pitrix.Settings // of proxy1, before
}

func newSwitchSite(t *testing.T, happened func(string)) *switchSite {
	t.Helper()
	w, err := sim.NewRebuild(t.Context(), sim.RebuildConfig{Speed: 600, Happened: happened})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.Close()) })
	op, err := w.WriteOperatorFiles(t.TempDir())
	require.NoError(t, err)
	c, err := hostinv.Dial(t.Context(), "firstbox", hostinv.SSHConfig{ConfigFile: op.SSHConfig})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return &switchSite{t: t, world: w, op: op, box: &pitrix.Firstbox{Host: c}}
}

// run runs upgradectl pitrix ARGS.
func (s *switchSite) run(args ...string) (status int, out, errs string) {
	s.t.Helper()
	return runApp(s.t, append([]string{"pitrix", "--ssh-config", s.op.SSHConfig}, args...)...)
}

// must runs upgradectl pitrix --firstbox ARGS and wants success.
func (s *switchSite) must(args ...string) string {
	s.t.Helper()
	start := time.Now()
	status, out, errs := s.run(append([]string{"--firstbox", "firstbox"}, args...)...)
	require.Equal(s.t, exitOK, status, "%v: %s %s", args, out, errs)
	s.t.Logf("%.1fs %v", time.Since(start).Seconds(), args)
	return out
}

func (s *switchSite) write(next *pitrix.Settings) {
	s.t.Helper()
	old, err := s.box.ReadSettings(s.t.Context(), next.Name())
	require.NoError(s.t, err)
	require.NoError(s.t, s.box.WriteSettings(s.t.Context(), next, old))
}

// build makes the new proxy1 beside the old one by the commands of the
// runbook, up to where the switch begins.
func (s *switchSite) build() {
	t, ctx := s.t, s.t.Context()
	t.Helper()
	fleet, err := s.box.ReadFleet(ctx)
	require.NoError(t, err)
	s.old = fleet["proxy1"]
	mac, err := pitrix.MACGen{}.Next(pitrix.TakenMACs(fleet))
	require.NoError(t, err)
	temporary, err := pitrix.DeriveTemporary(s.old, pitrix.Replacement{OSName: "xenial", OSVersion: "16.04.5", Address: "192.0.2.72", MAC: mac, PhysicalHost: "192.0.2.103"})
	require.NoError(t, err)
	s.write(temporary)
	s.must("nodes", "--execute")
	s.must("build", "all", "--execute")
	s.must("launch", "proxy1", "--role", "proxy", "--execute")
	s.must("known-hosts", "proxy1", "192.0.2.72", "--execute")
	require.NoError(t, s.box.PointName(ctx, "proxy1", netip.MustParseAddr("192.0.2.72")))
	s.must("install", "proxy1", "--role", "proxy", "--execute")
	s.must("update", "proxy1", "pitrix-ks-proxy", "--role", "proxy", "--execute")
	require.NoError(t, s.box.UnpointName(ctx, "proxy1"))

	status, _, errs := s.switchNode()
	require.Equal(t, exitRefused, status, errs)
	require.Contains(t, errs, "write the final ones first")
	final, err := pitrix.DeriveFinal(temporary, s.old)
	require.NoError(t, err)
	s.write(final)
	status, _, errs = s.switchNode()
	require.Equal(t, exitRefused, status, errs)
	require.Contains(t, errs, "run 'pitrix build global' first")
	s.must("build", "global", "--execute")
}

// patience is how long switchNode waits, and with it, by the node's clock, how
// long the new VM does before it takes its edit back: 610 of its minutes, which
// are a minute of ours, however slow this machine is. By the eleven that belong
// to a minute of ours a switch would have to be through in 1.1 s.
const patience = "10h"

func (s *switchSite) switchNode(more ...string) (int, string, string) {
	s.t.Helper()
	return s.run(append([]string{"--firstbox", "firstbox", "switch", "proxy1", "--temporary", "192.0.2.72", "--old-host", "192.0.2.102", "--vip", "192.0.2.60", "--poll", "50ms", "--timeout", patience}, more...)...)
}

// goesDown are the commands by which machines go down, with the addresses that
// are nobody's for a while then. A machine can be off before anybody is told of
// its command.
var goesDown = map[string]string{"sleep 1; exec shutdown -h now": "192.0.2.62", "sleep 1; exec shutdown -r now": "192.0.2.72"}

// heard is a host that writes down what it is told.
type heard struct {
	localHost
	text string
}

func (h *heard) Run(_ context.Context, cmd string, _ io.Reader, _, _ io.Writer) error {
	h.text += cmd + "\n"
	return nil
}

// gone waits until no machine is at an address.
func (s *switchSite) gone(ctx context.Context, address string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.world.Site().Machine(address) != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// TestPitrixSwitch builds a second proxy1 by hand and switches to it. Machines
// that are told to go down are off before they have answered.
func TestPitrixSwitch(t *testing.T) {
	var s *switchSite
	s = newSwitchSite(t, func(what string) {
		for command, address := range goesDown {
			if strings.Contains(what, command) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				s.gone(ctx, address)
				cancel()
			}
		}
	})
	var asked heard
	n, id := &pitrix.Node{Host: &asked}, pitrix.Identity{MACs: []pitrix.MAC{{2}}}
	require.NoError(t, n.Shutdown(t.Context(), id))
	require.NoError(t, n.Reboot(t.Context(), id))
	for command := range goesDown {
		require.Contains(t, asked.text, command, "what is waited for is what is said")
	}
	s.build()
	before := s.world.Site().States()["proxy1"]

	// A dry run changes nothing.
	status, out, errs := s.switchNode("--json")
	require.Equal(t, exitOK, status, errs)
	var res struct {
		Executed bool     `json:"executed"`
		Changes  []string `json:"changes"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &res))
	assert.False(t, res.Executed)
	assert.Contains(t, strings.Join(res.Changes, "\n"), "machine-id "+before.ID)
	assert.Contains(t, res.Changes, "shutdown -h now")
	assert.Equal(t, before.ID, s.world.Site().States()["proxy1"].ID)

	// A rebuild under way does it itself.
	m := pitrix.Marker{Run: "r1", Role: "proxy", Nodes: []string{"proxy0", "proxy1"}, Since: time.Now()}
	require.NoError(t, s.box.SetMarker(t.Context(), m))
	status, _, errs = s.switchNode("--execute")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, "the rebuild r1 of proxy")
	require.NoError(t, s.box.ClearMarker(t.Context(), "r1"))

	for _, tt := range []struct {
		status int
		stderr string
		args   []string
	}{
		{exitRefused, "name the old host 192.0.2.103", []string{"--old-host", "192.0.2.103"}},
		{exitRefused, "host 192.0.2.104 has no VM proxy1", []string{"--old-host", "192.0.2.104"}},
		{exitRefused, "the temporary address 192.0.2.61 is that of proxy0", []string{"--temporary", "192.0.2.61"}},
		{exitRefused, "the new VM does not answer at 192.0.2.79", []string{"--temporary", "192.0.2.79"}},
		{exitRefused, "no node holds 192.0.2.69", []string{"--vip", "192.0.2.69"}},
	} {
		status, _, errs = s.switchNode(append(tt.args, "--execute")...)
		assert.Equal(t, tt.status, status, "%v: %s", tt.args, errs)
		assert.Contains(t, errs, tt.stderr)
	}
	status, _, errs = s.run("--firstbox", "firstbox", "switch", "proxy1", "--temporary", "192.0.2.72", "--old-host", "192.0.2.102", "--execute")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, "name the floating address with --vip")
	assert.Equal(t, before.ID, s.world.Site().States()["proxy1"].ID)
	assert.True(t, s.world.Site().States()["proxy1"].Up)

	status, out, errs = s.switchNode("--execute", "--lang", "zh")
	require.Equal(t, exitOK, status, "%s %s", out, errs)
	assert.Contains(t, out, "已执行")
	after := s.world.Site().States()["proxy1"]
	assert.True(t, after.Up)
	assert.NotEqual(t, before.ID, after.ID)
	assert.Equal(t, "16.04", after.OS)
	assert.NotEqual(t, before.Host, after.Host)
	assert.Empty(t, s.world.Site().Damage())
	assert.Empty(t, s.world.Site().Duplicates())
	assert.Empty(t, s.world.Site().Refused())

	// Nothing is left but what the old one says: again it only announces.
	status, out, errs = s.switchNode("--execute")
	require.Equal(t, exitOK, status, "%s %s", out, errs)
	assert.NotContains(t, out, "shutdown")
	assert.NotContains(t, out, "autostart")

	// The end of the runbook: host keys away, the old VM as a backup and back.
	file := func() string {
		known, err := s.box.Host.ReadFile(t.Context(), "/root/.ssh/known_hosts")
		require.NoError(t, err)
		return string(known)
	}
	require.Contains(t, file(), "proxy1")
	s.must("known-hosts", "proxy1", "192.0.2.62", "--execute")
	assert.NotContains(t, file(), "proxy1")
	s.must("known-hosts", "proxy1", "192.0.2.62", "--all", "--execute")
	vm := func(verb string) (int, string, string) {
		return s.run("vm", verb, "proxy1", "--host", "192.0.2.102", "--execute")
	}
	for _, tt := range []struct{ verb, want string }{{"backup", "old-proxy1.img"}, {"restore", "/pitrix/kernels/proxy1.img"}} {
		status, out, errs := vm(tt.verb)
		require.Equal(t, exitOK, status, errs)
		assert.Contains(t, out, tt.want)
		status, out, errs = vm(tt.verb)
		require.Equal(t, exitOK, status, errs)
		assert.Contains(t, out, "nothing to do")
	}
	status, _, errs = s.run("vm", "backup", "proxy0", "--host", "192.0.2.101", "--execute")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, `is "running"`)
}

// TestPitrixSwitchCutOff ends the command behind one of its effects after the
// other, on the way of one switch; run again, it always goes on from there.
func TestPitrixSwitchCutOff(t *testing.T) {
	var mu sync.Mutex
	at, cut := "", func() {}
	s := newSwitchSite(t, func(what string) {
		mu.Lock()
		defer mu.Unlock()
		if at != "" && strings.Contains(what, at) {
			at = ""
			cut()
		}
	})
	s.build()
	before := s.world.Site().States()["proxy1"]
	// A machine that goes down can take its answer with it, and then nobody is
	// told of what it was asked; it is gone before the command looks again.
	args := []string{"pitrix", "--ssh-config", s.op.SSHConfig, "--firstbox", "firstbox", "switch", "proxy1", "--temporary", "192.0.2.72", "--old-host", "192.0.2.102", "--vip", "192.0.2.60", "--poll", "500ms", "--timeout", patience, "--execute"}
	for _, pattern := range []string{
		"service keepalived stop", "supervisorctl stop all", "announce-switch-proxy1", "sleep 1; exec shutdown -h now", "autostart --disable",
		"install pitrix-hosts", `>"$d/tick"`, "/etc/.upgradectl-", "announce-switch-proxy1", "sleep 1; exec shutdown -r now", "echo confirmed", "arping $how",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		mu.Lock()
		at, cut = pattern, cancel
		mu.Unlock()
		var watch sync.WaitGroup
		if address := goesDown[pattern]; address != "" {
			watch.Go(func() {
				s.gone(ctx, address)
				mu.Lock()
				defer mu.Unlock()
				if at != "" && ctx.Err() == nil {
					at = ""
					cancel()
				}
			})
		}
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, lang: "en"}
		status := a.main(ctx, args)
		cancel()
		watch.Wait()
		mu.Lock()
		left := at
		at = ""
		mu.Unlock()
		require.Empty(t, left, "%s never happened: %s%s", pattern, &out, &errs)
		require.NotEqual(t, exitOK, status, "%s: %s", pattern, &out)
		// A machine that goes off or boots is at no point; it will be.
		require.Eventually(t, func() bool {
			status, _, text := s.switchNode()
			errs.Reset()
			errs.WriteString(text)
			return status == exitOK
		}, 5*time.Minute, 50*time.Millisecond, "%s: %s", pattern, &errs)
	}
	status, out, errs := s.switchNode("--execute")
	require.Equal(t, exitOK, status, "%s %s", out, errs)
	after := s.world.Site().States()["proxy1"]
	assert.True(t, after.Up)
	assert.NotEqual(t, before.ID, after.ID)
	assert.Empty(t, s.world.Site().Damage())
	assert.Empty(t, s.world.Site().Duplicates())
	assert.Empty(t, s.world.Site().Refused())
}

// TestPitrixSwitchTakenBack ends the command when the new VM reboots, for so
// long that the VM takes the edit back; run again, the command begins anew.
func TestPitrixSwitchTakenBack(t *testing.T) {
	t.Parallel() // most of it waits for a VM that boots
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := newSwitchSite(t, func(what string) {
		if strings.Contains(what, "sleep 1; exec shutdown -r now") {
			cancel()
		}
	})
	s.build()
	var watch sync.WaitGroup
	watch.Go(func() { // nobody is told of it when the answer is lost
		s.gone(ctx, "192.0.2.72")
		cancel()
	})
	defer func() { cancel(); watch.Wait() }()
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, lang: "en"}
	status := a.main(ctx, []string{"pitrix", "--ssh-config", s.op.SSHConfig, "--firstbox", "firstbox", "switch", "proxy1", "--temporary", "192.0.2.72", "--old-host", "192.0.2.102", "--vip", "192.0.2.60", "--poll", "500ms", "--timeout", "40m", "--execute"})
	require.Equal(t, exitInterrupted, status)
	site := s.world.Site()
	require.Eventually(t, func() bool { return site.Machine("192.0.2.72") == nil }, 5*time.Minute, 5*time.Millisecond, "it reboots")
	require.Eventually(t, func() bool { return site.Machine("192.0.2.72") != nil }, 5*time.Minute, 5*time.Millisecond, "it comes back")
	require.Eventually(t, func() bool {
		status, out, _ := s.switchNode()
		return status == exitOK && strings.Contains(out, "edit /etc/network/interfaces: 192.0.2.72")
	}, 5*time.Minute, 50*time.Millisecond)
	status, out, errs := s.switchNode("--execute")
	require.Equal(t, exitOK, status, "%s %s", out, errs)
	assert.True(t, site.States()["proxy1"].Up)
	assert.Nil(t, site.Machine("192.0.2.72"))
	assert.Empty(t, site.Damage())
	assert.Empty(t, site.Duplicates())
}

// TestPitrixCheckFirstbox holds settings against what the firstbox and the
// physical hosts say.
func TestPitrixCheckFirstbox(t *testing.T) {
	s := newSwitchSite(t, nil)
	status, out, errs := s.run("--firstbox", "firstbox", "settings", "check")
	require.Equal(t, exitOK, status, "%s%s", out, errs)
	assert.NotContains(t, errs, "not checked")
	fleet, err := s.box.ReadFleet(t.Context())
	require.NoError(t, err)
	next, err := pitrix.Derive(fleet["webservice0"], pitrix.Change{Key: "physical_host_network_interface", Value: "br7"}, pitrix.Change{Key: "os_name", Value: "xenial"}, pitrix.Change{Key: "os_version", Value: "16.04.3"})
	require.NoError(t, err)
	s.write(next)
	status, out, _ = s.run("--firstbox", "firstbox", "settings", "check")
	assert.Equal(t, exitConfig, status)
	assert.Contains(t, out, "br7 is no bridge of 192.0.2.")
	assert.Contains(t, out, "it has br0, br1")
	assert.Contains(t, out, `"16.04.3" has no base image and repositories on the firstbox (it has 14.04.5, 16.04.5)`)
}
