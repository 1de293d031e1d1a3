package firstbox

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/upgradectl/upgradectl/internal/sim/memnet"
	"github.com/upgradectl/upgradectl/pitrix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within builds a site without sockets, in virtual time.
func within(t *testing.T, cfg Config, f func(t *testing.T, s *Site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &memnet.Network{}
		s, err := New(cfg, Options{
			Speed: 60, Listen: n.Listen, Connect: n.Dial,
			Pipe: func() (net.Conn, net.Conn) { return memnet.Pipe(&net.TCPAddr{}, &net.TCPAddr{}) },
		})
		require.NoError(t, err)
		defer s.Close()
		f(t, s)
	})
}

// at runs a command on the machine that has an address.
func at(t *testing.T, s *Site, addr, command string) (int, string) {
	t.Helper()
	m := s.Machine(addr)
	require.NotNil(t, m, "nobody has the address %s", addr)
	return runOn(t, m, command)
}

func runOn(t *testing.T, m *Machine, command string) (int, string) {
	t.Helper()
	status, out, err := m.Host.Run(context.Background(), command)
	require.NoError(t, err)
	return status, string(out)
}

func box(t *testing.T, s *Site, command string) string {
	t.Helper()
	status, out := at(t, s, FirstboxAddr, command)
	require.Zero(t, status, "%s: %s", command, out)
	return out
}

// edit replaces words in a file of a machine.
func edit(t *testing.T, m *Machine, file string, pairs ...string) {
	t.Helper()
	data, err := m.Host.ReadFile(file)
	require.NoError(t, err)
	info, err := m.Host.Stat(file)
	require.NoError(t, err)
	text := strings.NewReplacer(pairs...).Replace(string(data))
	require.NotEqual(t, string(data), text, "%s of %s", file, m.Label())
	require.NoError(t, m.Host.WriteFile(file, []byte(text), info.Mode().Perm()))
}

const (
	old0, old1   = "192.0.2.61", "192.0.2.62"
	temp0, temp1 = "192.0.2.161", "192.0.2.162"
	host1, host2 = "192.0.2.101", "192.0.2.102"
	host3, host4 = "192.0.2.103", "192.0.2.104"
)

// temporary gives the settings of both proxies their temporary addresses, new
// MACs, the new release and other hosts.
func temporary(t *testing.T, s *Site) {
	t.Helper()
	for _, n := range []struct{ name, addr, temp, host, to string }{{"proxy0", old0, temp0, host1, host3}, {"proxy1", old1, temp1, host2, host4}} {
		v, ok := s.setting(n.name)
		require.True(t, ok)
		edit(t, s.Firstbox(), settingsDir+"/"+n.name, "trusty", "xenial", "14.04.5", "16.04.5", n.addr, n.temp, n.host, n.to,
			v["mgmt_network_mac_address"], newMAC())
	}
	box(t, s, "/pitrix/bin/gen_node_list.py && /pitrix/build/build_pkgs_allinone.py")
}

// installed goes on to new nodes without packages.
func installed(t *testing.T, s *Site) {
	t.Helper()
	temporary(t, s)
	box(t, s, "/pitrix/install/launch_vms.sh proxy && /pitrix/install/install_nodes.sh proxy")
}

func TestSites(t *testing.T) {
	for name, cfg := range map[string]Config{
		"default": {}, "before 4.3": {Version: "4.2.5"}, "VG": {VG: true}, "sub zone": {Sub: true},
		"everything": {VG: true, Sub: true, Boss: true, Boss2: true, Warehouse: true},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, cfg, func(t *testing.T, s *Site) {
				fleet := map[string]*pitrix.Settings{}
				for _, file := range s.below(settingsDir) {
					data, err := s.Firstbox().Host.ReadFile(settingsDir + "/" + file)
					require.NoError(t, err)
					fleet[file], err = pitrix.Parse(file, data)
					require.NoError(t, err)
				}
				assert.Empty(t, pitrix.CheckFleet(fleet), "the product's rules hold for the site's settings")
				for _, st := range s.States() {
					assert.True(t, st.Up, "%+v", st)
					assert.Equal(t, st.Name, st.Machine)
				}
				require.Len(t, s.Holders(ProxyVIP), 1)
				assert.Equal(t, "proxy0", s.Holders(ProxyVIP)[0].Label())
				for _, f := range s.Fronts("proxy") {
					c, err := s.OpenFront(ProxyVIP, f)
					require.NoError(t, err, f.Name)
					s.CloseFlow(c)
				}
				script := map[bool]string{true: "gen_node_list.py", false: "gen_node_list.sh"}[cfg.Version == ""]
				box(t, s, "/pitrix/bin/"+script+" && /pitrix/upgrade/exec_nodes.sh -f all uptime >/dev/null || cat /pitrix/version.json")
				left := s.Left()
				assert.Empty(t, left.Behind)
				assert.Empty(t, left.Kept)
				assert.Empty(t, s.Damage())
				assert.Empty(t, s.Duplicates())
			})
		})
	}
}

func TestNodeLists(t *testing.T) {
	within(t, Config{VG: true}, func(t *testing.T, s *Site) {
		box(t, s, "/pitrix/bin/gen_node_list.py")
		for kind, want := range map[string]string{
			"proxy": "proxy0 proxy1", "dns": "dnsmaster0 dnsmaster1", "vm": "dnsmaster0 dnsmaster1 proxy0 proxy1 webservice0 webservice1",
			"phy": strings.Join(hostNames, " "), "bm": "", "all": "dnsmaster0 dnsmaster1 " + strings.Join(hostNames, " ") + " proxy0 proxy1 webservice0 webservice1",
		} {
			data, err := s.Firstbox().Host.ReadFile(nodesDir + "/" + kind)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("nodes=( %s );\n", want), string(data), kind)
		}
	})
}

// TestVirsh pins what the domains do, as it was measured of libvirt.
func TestVirsh(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		v := func(want int, command string) string {
			t.Helper()
			status, out := at(t, s, host1, "virsh "+command)
			assert.Equal(t, want, status, "%s: %s", command, out)
			return out
		}
		assert.Contains(t, v(0, "list --all"), "proxy0                         running")
		assert.Equal(t, "proxy0\n\n", v(0, "-c qemu:///system list --all --name"))
		assert.Contains(t, v(1, "domstate nobody"), "failed to get domain 'nobody'")
		assert.Contains(t, v(1, "start proxy0"), "already active")
		assert.Contains(t, v(1, "define /pitrix/kernels/proxy0.xml"), "already exists with uuid", "a definition without a uuid")
		assert.Contains(t, v(0, "dominfo proxy0"), "Autostart:      enable")
		v(0, "shutdown proxy0")
		assert.Equal(t, "running\n\n", v(0, "domstate proxy0"), "shutdown does not wait")
		time.Sleep(time.Second)
		assert.Equal(t, "shut off\n\n", v(0, "domstate proxy0"))
		assert.Nil(t, s.Machine(old0))
		v(0, "start proxy0")
		assert.Equal(t, "running\n\n", v(0, "domstate proxy0"))
		time.Sleep(time.Second)
		require.NotNil(t, s.Machine(old0), "the same machine is back")
		assert.Equal(t, "proxy0", s.Machine(old0).Label())
		v(0, "destroy proxy0")
		_, _ = at(t, s, host1, "mv /pitrix/kernels/proxy0.img /pitrix/kernels/old-proxy0.img")
		assert.Contains(t, v(1, "start proxy0"), "No such file or directory", "the disk has another name now")
		v(0, "undefine proxy0")
		assert.Equal(t, "\n", v(0, "list --all --name"))
		v(0, "define /pitrix/kernels/proxy0.xml")
		assert.Contains(t, v(0, "dominfo proxy0"), "Autostart:      disable")
		status, _ := at(t, s, host1, "virsh migrate proxy0 elsewhere")
		assert.NotZero(t, status)
		assert.NotEmpty(t, s.Refused(), "what is not simulated is refused")
	})
}

// TestFreshVM: a new VM is a machine of its own, at the address that its files
// said when it booted.
func TestFreshVM(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		both := s.Named("proxy0")
		require.Len(t, both, 2)
		ids := map[string]bool{}
		for _, m := range both {
			id, err := m.Host.ReadFile("/etc/machine-id")
			require.NoError(t, err)
			ids[string(id)], ids[m.Host.HostKey()] = true, true
		}
		assert.Len(t, ids, 4, "host keys and machine ids differ")
		assert.Equal(t, []string{temp0}, both[1].Addresses())
		edit(t, both[1], interfacesFile, temp0, "192.0.2.171")
		assert.Equal(t, []string{temp0}, both[1].Addresses(), "nothing changes before a reboot")
		_, _ = runOn(t, both[1], "shutdown -r now")
		time.Sleep(2 * time.Second)
		assert.Equal(t, []string{"192.0.2.171"}, both[1].Addresses())
		assert.Equal(t, "4.4.0-131-generic", both[1].Host.Kernel())
		assert.Contains(t, box(t, s, "ssh proxy1 hostname"), "proxy1")
		known, err := s.Firstbox().Host.ReadFile(knownHostsFile)
		require.NoError(t, err)
		assert.Equal(t, []string{both[1].Host.HostKey()}, knownKeys(string(known), "proxy0"), "launch_vms took the new key for the name")
	})
}

// TestWrongBridge: a VM that hangs on a bridge without a cable is not reached.
func TestWrongBridge(t *testing.T) {
	within(t, Config{Faults: Faults{WrongBridge: true}}, func(t *testing.T, s *Site) {
		temporary(t, s)
		status, out := at(t, s, FirstboxAddr, "/pitrix/install/launch_vms.sh proxy")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Setting up the ssh channel of [proxy0] ... Error!")
	})
}

func TestFaults(t *testing.T) {
	within(t, Config{Faults: Faults{Unreachable: []string{"webservice0"}, SSH255: []string{"webservice1"}, Apt100: []string{"pitrix-alert-agent"}, NoBaseImage: true}}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh -f webservice hostname")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Error: The node [webservice0] is unreachable. Please check the network!\n")
		assert.Contains(t, out, "Connection closed by remote host")
		status, out = at(t, s, FirstboxAddr, "/pitrix/upgrade/update.sh -f dnsmaster0 pitrix-alert-agent")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "  Updating [dnsmaster0] with [pitrix-alert-agent] ... Error!")
		temporary(t, s)
		status, out = at(t, s, FirstboxAddr, "/pitrix/install/launch_vms.sh proxy0")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Copying the base image of [proxy0] ... Error!")
	})
}

// TestVRRPGaps measures what the runbook's changes of the holder cost.
func TestVRRPGaps(t *testing.T) {
	for name, c := range map[string]struct {
		command  string
		graceful bool
		min, max time.Duration
	}{
		"service stopped": {"service keepalived stop", true, 500 * time.Millisecond, 700 * time.Millisecond},
		"host vanished":   {"shutdown -h now", false, 2500 * time.Millisecond, 3700 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, Config{}, func(t *testing.T, s *Site) {
				time.Sleep(1300 * time.Millisecond)
				_, _ = at(t, s, old0, c.command)
				time.Sleep(5 * time.Second)
				gaps := slices.DeleteFunc(s.Gaps(), func(g Gap) bool { return g.VIP != ProxyVIP })
				require.Len(t, gaps, 1)
				assert.Equal(t, c.graceful, gaps[0].Graceful)
				assert.GreaterOrEqual(t, gaps[0].Length, c.min)
				assert.LessOrEqual(t, gaps[0].Length, c.max)
				assert.Equal(t, "proxy1", gaps[0].To)
				t.Log(gaps[0].Length)
			})
		})
	}
}

// A process that stood still for longer than a backup waits is no holder that
// went silent, whichever timer is run first afterwards.
func TestVRRPAfterStandstill(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		within(t, Config{}, func(t *testing.T, s *Site) {
			s.mu.Lock()
			s.cfg.Faults.Deaf = deaf
			for _, list := range s.routers {
				require.Len(t, list, 2)
				for _, v := range list {
					v.stopTimer()
					v.due = time.Now().Add(map[bool]time.Duration{true: -3 * time.Second, false: -400 * time.Millisecond}[v.master])
				}
				for _, v := range list {
					if !v.master {
						v.expire()
					}
				}
			}
			s.mu.Unlock()
			time.Sleep(10 * time.Second)
			assert.Len(t, s.Holders(ProxyVIP), map[bool]int{true: 2, false: 1}[deaf])
			assert.Equal(t, deaf, len(s.Duplicates()) > 0)
			assert.Equal(t, deaf, len(s.Gaps()) > 0)
		})
	}
}

// TestLeftIsSeen: what Left looks for, it finds.
func TestLeftIsSeen(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		_, _ = at(t, s, host1, "mv /pitrix/kernels/proxy0.img /pitrix/kernels/old-proxy0.img; mv /pitrix/kernels/proxy0.xml /pitrix/kernels/old-proxy0.xml")
		_, _ = at(t, s, old1, "shutdown -h now")
		_, _ = at(t, s, "192.0.2.65", "echo '* * * * * root true' >/etc/cron.d/job")
		edit(t, s.Firstbox(), settingsDir+"/proxy1", old1, temp1)
		edit(t, s.Firstbox(), "/etc/hosts", old0+" ", temp0+" ")
		time.Sleep(2 * time.Second)
		l := s.Left()
		assert.Equal(t, []string{"lab1ar01n01: old-proxy0.img with its xml"}, l.Kept)
		all := strings.Join(l.Behind, "\n")
		for _, want := range []string{"proxy0.Done without an image", "proxy1 is shut off and starts with its host", "webservice0: a job every minute: true",
			"the settings of proxy1 have the address " + temp1, "/etc/hosts has " + temp0} {
			assert.Contains(t, all, want)
		}
	})
}
