package sim

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
)

// inRebuild runs f in a world of procedure B without sockets, in virtual time.
func inRebuild(t *testing.T, cfg RebuildConfig, f func(t *testing.T, w *Rebuild)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Memory = true
		w, err := NewRebuild(t.Context(), cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, w.Close()) }()
		f(t, w)
	})
}

// typed runs a command as somebody who has logged in to an address; any
// status is fine.
func typed(t *testing.T, w *Rebuild, addr, cmd string) (int, string) {
	t.Helper()
	m := w.Site().Machine(addr)
	require.NotNil(t, m, "nobody has the address %s", addr)
	status, out, err := m.Host.Run(context.Background(), cmd)
	require.NoError(t, err)
	return status, string(out)
}

func on(t *testing.T, w *Rebuild, addr, cmd string) string {
	t.Helper()
	status, out := typed(t, w, addr, cmd)
	require.Zero(t, status, "%s: %s", cmd, out)
	return out
}

func finishRebuild(t *testing.T, w *Rebuild) RebuildFigures {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	f, err := w.Finish(ctx)
	require.NoError(t, err)
	return f
}

func TestQuietRebuild(t *testing.T) {
	inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
		time.Sleep(2 * time.Minute)
		f := finishRebuild(t, w)
		assert.Greater(t, f.Requests, int64(1500))
		assert.Zero(t, f.Failed, "%v", f.Failures)
		assert.Empty(t, f.Gaps)
		assert.Empty(t, f.CheckEnd("rolled-back"))
		bad := strings.Join(f.CheckEnd("succeeded"), "\n")
		assert.Contains(t, bad, "proxy0: the old machine still answers on 192.0.2.61")
		assert.Contains(t, bad, "0 images of old VMs are kept and not 2")
		for _, g := range f.Targets {
			assert.Positive(t, g.Requests, g.Name)
		}
	})
}

const box = "192.0.2.2"

// edit replaces words in a file, as somebody with an editor does.
func edit(t *testing.T, w *Rebuild, addr, file string, pairs ...string) {
	t.Helper()
	m := w.Site().Machine(addr)
	require.NotNil(t, m, addr)
	data, err := m.Host.ReadFile(file)
	require.NoError(t, err)
	info, err := m.Host.Stat(file)
	require.NoError(t, err)
	text := strings.NewReplacer(pairs...).Replace(string(data))
	require.NotEqual(t, string(data), text, "%s on %s", file, addr)
	require.NoError(t, m.Host.WriteFile(file, []byte(text), info.Mode().Perm()))
}

// build does what the runbook says up to the deployment of the packages.
func prepare(t *testing.T, w *Rebuild) {
	t.Helper()
	for _, n := range []struct{ name, addr, temp, eip, dummy, host, to string }{
		{"proxy0", "192.0.2.61", "192.0.2.161", "203.0.113.61", "2.2.2.2", "192.0.2.101", "192.0.2.103"},
		{"proxy1", "192.0.2.62", "192.0.2.162", "203.0.113.62", "2.2.2.3", "192.0.2.102", "192.0.2.104"},
	} {
		pairs := []string{"trusty", "xenial", "14.04.5", "16.04.5", n.addr, n.temp, n.eip, n.dummy, n.host, n.to}
		data, err := w.Site().Firstbox().Host.ReadFile("/pitrix/conf/settings/" + n.name)
		require.NoError(t, err)
		for _, old := range regexp.MustCompile(`mac_address="(.*)"`).FindAllStringSubmatch(string(data), -1) {
			pairs = append(pairs, old[1], strings.TrimSpace(on(t, w, box, "/pitrix/bin/gen_mac.py")))
		}
		edit(t, w, box, "/pitrix/conf/settings/"+n.name, pairs...)
	}
	on(t, w, box, "/pitrix/bin/gen_node_list.py")
	on(t, w, box, "/pitrix/build/build_pkgs_allinone.py")
	out := on(t, w, box, "/pitrix/install/launch_vms.sh proxy")
	assert.Contains(t, out, "Setting up the ssh channel of [proxy1] ... OK.")
	out = on(t, w, box, "/pitrix/install/install_nodes.sh proxy")
	assert.Equal(t, 8, strings.Count(out, "... OK."), out)
}

// deploy installs the packages with keepalived held down, and carries over
// what people had added to the old nodes.
func deploy(t *testing.T, w *Rebuild) {
	t.Helper()
	temps := []string{"192.0.2.161", "192.0.2.162"}
	for _, addr := range temps {
		on(t, w, addr, "printf '#!/bin/sh\\nif [ \"$1\" = keepalived ]; then exit 101; fi\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
	}
	out := on(t, w, box, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
	assert.Equal(t, 2, strings.Count(out, "... OK."), out)
	for _, addr := range temps {
		m := w.Site().Machine(addr)
		data, err := m.Host.ReadFile("/etc/haproxy/haproxy.cfg")
		require.NoError(t, err)
		hand := "\nlisten lab1b-fg-front\n    bind 0.0.0.0:8666\n    mode tcp\n    balance source\n    server fg_server_0 192.0.2.65:8665 check\n    server fg_server_1 192.0.2.66:8665 check\n"
		require.NoError(t, m.Host.WriteFile("/etc/haproxy/haproxy.cfg", append(data, hand...), 0o644))
		on(t, w, addr, "haproxy -c -f /etc/haproxy/haproxy.cfg && service haproxy reload")
		require.NoError(t, m.Host.Append("/etc/rc.local.tail", []byte("ip route add 10.90.0.0/16 via 192.0.2.254\n")))
	}
}

// A slip is what somebody forgets.
type slip struct{ noStop, noTail, noGARP bool }

// switchNode is the switch of one node, with the fixes that the runbook lacks.
func switchNode(t *testing.T, w *Rebuild, name, addr, temp string, forgets slip) {
	t.Helper()
	eip, dummy := "203.0.113.61", "2.2.2.2"
	if name == "proxy1" {
		eip, dummy = "203.0.113.62", "2.2.2.3"
	}
	edit(t, w, box, "/pitrix/conf/settings/"+name, temp, addr, dummy, eip)
	on(t, w, box, "/pitrix/upgrade/build_global_conf.sh")
	edit(t, w, temp, "/etc/network/interfaces", temp, addr, dummy, eip)
	if !forgets.noTail {
		edit(t, w, temp, "/etc/rc.local.tail", temp, addr)
	}
	edit(t, w, temp, "/opt/install/os/setting", temp, addr)
	if !forgets.noStop {
		on(t, w, addr, "service keepalived stop")
		time.Sleep(2 * time.Second)
	}
	on(t, w, addr, "supervisorctl stop all; shutdown -h now")
	time.Sleep(5 * time.Second)
	on(t, w, temp, "supervisorctl stop all; apt-get update; apt-get --yes --allow-unauthenticated install pitrix-hosts; rm /usr/sbin/policy-rc.d; shutdown -r now")
	time.Sleep(5 * time.Second)
	if !forgets.noGARP {
		on(t, w, addr, "arping -U -c 3 -I eth0 "+addr)
	}
	on(t, w, addr, "service keepalived status")
}

func park(t *testing.T, w *Rebuild, name, host string) {
	t.Helper()
	on(t, w, host, "virsh autostart --disable "+name+"; cd /pitrix/kernels && mv "+name+".img old-"+name+".img && mv "+name+".xml old-"+name+".xml && rm "+name+".Done && virsh undefine "+name)
}

// finishByHand is what comes after the switch.
func finishByHand(t *testing.T, w *Rebuild) {
	t.Helper()
	park(t, w, "proxy0", "192.0.2.101")
	park(t, w, "proxy1", "192.0.2.102")
	for _, id := range []string{"proxy0", "proxy1", "192.0.2.61", "192.0.2.62"} {
		on(t, w, box, "ssh-keygen -f /root/.ssh/known_hosts -R "+id)
	}
	out := on(t, w, box, "/pitrix/upgrade/exec_nodes.sh -f proxy 'supervisorctl status'")
	assert.Equal(t, 4, strings.Count(out, "RUNNING"), out)
}

// TestByHand goes through the runbook as somebody does who types it, and who
// knows what it leaves out.
func TestByHand(t *testing.T) {
	for name, cfg := range map[string]RebuildConfig{"default": {}, "VG": {VG: true}} {
		t.Run(name, func(t *testing.T) {
			inRebuild(t, cfg, func(t *testing.T, w *Rebuild) {
				prepare(t, w)
				deploy(t, w)
				switchNode(t, w, "proxy1", "192.0.2.62", "192.0.2.162", slip{})
				time.Sleep(10 * time.Second)
				switchNode(t, w, "proxy0", "192.0.2.61", "192.0.2.161", slip{})
				time.Sleep(10 * time.Second)
				finishByHand(t, w)
				f := finishRebuild(t, w)
				assert.Empty(t, f.CheckEnd("succeeded"))
				assert.Zero(t, f.Failed, "%v", f.Failures)
				assert.LessOrEqual(t, f.GapMS, 1000.0)
				assert.Positive(t, f.GapMS)
				t.Logf("gap %.0f ms, %d failed in it, %d requests in %v, slowest connect %.0f ms", f.GapMS, f.GapFailed, f.Requests, f.Duration, f.SlowestMS)
			})
		})
	}
}

// TestByHandWrong goes wrong ways, and wants the damage that they really do.
func TestByHandWrong(t *testing.T) {
	t.Run("keepalived runs until the power goes", func(t *testing.T) {
		inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
			prepare(t, w)
			deploy(t, w)
			switchNode(t, w, "proxy0", "192.0.2.61", "192.0.2.161", slip{noStop: true})
			time.Sleep(10 * time.Second)
			f := finishRebuild(t, w)
			assert.Zero(t, f.Failed, "%v", f.Failures)
			assert.Greater(t, f.GapMS, 2500.0)
			assert.Less(t, f.GapMS, 4000.0)
			assert.Positive(t, f.GapFailed)
		})
	})
	t.Run("rc.local.tail keeps the temporary source", func(t *testing.T) {
		inRebuild(t, RebuildConfig{VG: true}, func(t *testing.T, w *Rebuild) {
			prepare(t, w)
			deploy(t, w)
			switchNode(t, w, "proxy0", "192.0.2.61", "192.0.2.161", slip{noTail: true})
			time.Sleep(10 * time.Second)
			f := finishRebuild(t, w)
			assert.Positive(t, f.Failed, "nothing gets through to the VM network")
			for _, x := range f.Failures {
				assert.Equal(t, "lab1a-metad", x.Target)
			}
			assert.Contains(t, strings.Join(f.CheckEnd("succeeded"), "\n"), "proxy0: route is lost: 10.80.0.0/16 via")
		})
	})
	t.Run("nobody announces the address", func(t *testing.T) {
		inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
			prepare(t, w)
			deploy(t, w)
			on(t, w, box, "ping -c 1 -w 1 192.0.2.62")
			switchNode(t, w, "proxy1", "192.0.2.62", "192.0.2.162", slip{noGARP: true})
			status, _ := typed(t, w, box, "ping -c 1 -w 1 192.0.2.62")
			assert.Equal(t, 1, status, "the firstbox asks the old MAC")
			time.Sleep(45 * time.Second)
			on(t, w, box, "ping -c 1 -w 1 192.0.2.62")
		})
	})
	t.Run("packages for everybody with temporary addresses", func(t *testing.T) {
		inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
			prepare(t, w)
			typed(t, w, box, "/pitrix/upgrade/update.sh -f vm pitrix-hosts")
			f := finishRebuild(t, w)
			assert.Contains(t, strings.Join(f.CheckEnd("paused"), "\n"), "damage: webservice0 was told that proxy0 is 192.0.2.161")
		})
	})
	t.Run("launched by force on the old host", func(t *testing.T) {
		inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
			on(t, w, box, "/pitrix/install/launch_vms.sh -f proxy")
			time.Sleep(10 * time.Second)
			f := finishRebuild(t, w)
			assert.Positive(t, f.Failed+f.GapFailed)
			assert.Empty(t, f.Holders, "both proxies are gone")
			assert.Contains(t, strings.Join(f.Damage, "\n"), "deleted proxy1.img, the disk of proxy1")
		})
	})
	t.Run("services installed before keepalived was held", func(t *testing.T) {
		inRebuild(t, RebuildConfig{}, func(t *testing.T, w *Rebuild) {
			prepare(t, w)
			on(t, w, box, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
			time.Sleep(10 * time.Second)
			f := finishRebuild(t, w)
			assert.Equal(t, []string{"proxy0#2"}, f.Holders)
			assert.Positive(t, f.Failed, "its haproxy lacks what was made by hand")
		})
	})
}

// TestServeRebuild keeps a world of sockets, and goes in as an operator does.
func TestServeRebuild(t *testing.T) {
	dir := t.TempDir()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		done <- ServeRebuild(ctx, dir, RebuildConfig{Speed: 600, StreamMax: 300 * time.Millisecond}, 10*time.Minute)
	}()
	var r *RemoteRebuild
	require.Eventually(t, func() bool {
		var err error
		r, err = AttachRebuild(dir)
		return err == nil
	}, 2*time.Minute, 20*time.Millisecond)
	d, err := hostinv.NewDialer(hostinv.SSHConfig{ConfigFile: r.Operator.SSHConfig})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	for _, addr := range []string{box, "192.0.2.101", "192.0.2.61", "192.0.2.65"} {
		c, err := d.Dial(t.Context(), addr)
		require.NoError(t, err, addr)
		inv, err := hostinv.Collect(t.Context(), c, hostinv.Options{})
		require.NoError(t, err, addr)
		for name, s := range inv.Sections {
			assert.Contains(t, []string{"ok", "absent"}, string(s.Status), "%s of %s: %s", name, addr, s.Message)
		}
		require.NoError(t, c.Close())
	}
	var f RebuildFigures
	require.Eventually(t, func() bool {
		f, err = r.Figures(t.Context())
		return err == nil && f.Requests > 10
	}, 2*time.Minute, 50*time.Millisecond)
	f, err = r.Finish(t.Context())
	require.NoError(t, err)
	assert.Zero(t, f.Failed, "%v", f.Failures)
	assert.Empty(t, f.Refused)
	assert.Empty(t, f.CheckEnd("rolled-back"))
	require.NoError(t, <-done)
	_, err = AttachRebuild(dir)
	assert.ErrorIs(t, err, ErrNoWorld)
}
