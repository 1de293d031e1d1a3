package firstbox

import (
	"context"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests of this file show that the site has the traps that were measured
// of the real scripts: whoever falls into them here would fall there.

func TestTrapForceFirst(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, "echo n | /pitrix/upgrade/exec_nodes.sh proxy0 -f hostname")
		assert.NotContains(t, out, "Execing", "-f behind the nodes is part of the command")
		assert.Contains(t, box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 hostname"), "Execing [proxy0] with [hostname] ...\nproxy0\n\nDone.\n")
	})
}

func TestTrapNoDone(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, "printf '\\nwhat\\nn\\n' | /pitrix/upgrade/exec_nodes.sh proxy0 hostname")
		assert.NotContains(t, out, "Done.", "the answer is no, and the status 0")
		assert.Contains(t, box(t, s, "printf '\\nY\\n' | /pitrix/upgrade/exec_nodes.sh proxy0 hostname"), "Done.")
	})
}

func TestTrapEndlessPrompt(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		for _, command := range []string{"/pitrix/upgrade/exec_nodes.sh proxy0 hostname", "/pitrix/upgrade/update.sh proxy0 pitrix-hosts"} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, _, err := s.Firstbox().Host.Run(ctx, command+" </dev/null")
			cancel()
			assert.ErrorIs(t, err, context.DeadlineExceeded, command)
		}
		began := time.Now()
		status, _ := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh proxy0 hostname </dev/null")
		assert.Equal(t, 137, status, "at last somebody kills it, so that virtual time goes on")
		assert.Equal(t, promptLimit/60, time.Since(began))
		assert.Len(t, s.Damage(), 3)
	})
}

func TestTrapPingOneLoginOther(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		new0 := s.Named("proxy0")[1]
		edit(t, s.Firstbox(), "/etc/hosts", temp0+" ", old0+" ") // a name that still means the old node
		_, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh -f proxy0 'cat /etc/machine-id'")
		assert.Contains(t, out, "REMOTE HOST IDENTIFICATION HAS CHANGED", "only the host key shows it")
		box(t, s, "ssh-keygen -R proxy0")
		out = box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 'cat /etc/machine-id'")
		id, err := new0.Host.ReadFile("/etc/machine-id")
		require.NoError(t, err)
		assert.NotContains(t, out, string(id), "the address of the settings was pinged, the old node answered")
		box(t, s, "ssh-keygen -R proxy0 && /pitrix/install/install_nodes.sh proxy0 || true")
		assert.Contains(t, strings.Join(s.Damage(), "\n"), "install_nodes installed proxy0 on proxy0, which was in service")
	})
}

func TestTrapExecExitStatus(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		for _, command := range []string{"false", "exit 7", "no-such-command"} {
			out := box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 '"+command+"'")
			assert.Contains(t, out, "Done.\n", command)
		}
		out := box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 'false; echo __rc=$?'")
		assert.Contains(t, out, "__rc=1\n", "the way to get it")
	})
}

func TestTrapMissingNode(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh -f proxy,nobody hostname")
		assert.Equal(t, 1, status)
		assert.Equal(t, "Error: The node [nobody] is invalid, can not find it in /pitrix/conf/settings!\n", out)
	})
}

func TestTrapMixedScope(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, "/pitrix/upgrade/exec_nodes.sh -f 'webservice0,, proxy,proxy0' hostname")
		assert.Contains(t, out, "TARGET NODES:\n    proxy0,proxy1,webservice0\n")
	})
}

func TestTrapHeaderEscapes(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, `/pitrix/upgrade/exec_nodes.sh -f proxy0 'printf "a\tb"'`)
		assert.Contains(t, out, "TARGET COMMAND:\n    printf \"a\tb\"\n")
		assert.Contains(t, out, `with [printf "a\tb"] ...`)
	})
}

func TestTrapCommandCutAtHash(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		assert.Contains(t, box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 'echo a # b'"), "with [echo a] ...\na\n\n")
	})
}

func TestTrapBlanksCollapse(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		assert.Contains(t, box(t, s, `/pitrix/upgrade/exec_nodes.sh -f proxy0 "echo 'a    b'"`), "\na b\n")
	})
}

func TestTrapGlobsExpand(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, "/pitrix/upgrade/exec_nodes.sh -f proxy0 'echo /pitrix/kernels/ksnode*.img /etc/host?ame'")
		assert.Contains(t, out, "\n/pitrix/kernels/ksnode14045a.img /pitrix/kernels/ksnode16045a.img /etc/hostname\n", "files of the firstbox, which the node has not")
	})
}

func TestTrapUnreachableNode(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		_, _ = at(t, s, old1, "shutdown -h now")
		time.Sleep(time.Second)
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh -f proxy hostname")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Error: The node [proxy1] is unreachable. Please check the network!\n")
		assert.NotContains(t, out, "Execing [proxy1]")
		assert.NotContains(t, out, "Done.")
	})
}

func TestTrapUpdateOneArgument(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/update.sh -f proxy")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Error: The argument <packages> is empty")
		out = box(t, s, "echo n | /pitrix/upgrade/update.sh proxy")
		assert.Contains(t, out, "TARGET PACKAGES:\n    pitrix-ks-proxy\n", "one argument is the nodes and the packages")
	})
}

func TestTrapUpdateOutput(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		out := box(t, s, "/pitrix/upgrade/update.sh -f dnsmaster0 pitrix-hosts,pitrix-alert-agent")
		assert.Contains(t, out, "  Updating [dnsmaster0] with [pitrix-hosts ~ ] ... OK.\n")
		assert.NotContains(t, out, "Done.")
	})
}

func TestTrapPackagePrefix(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/update.sh -f dnsmaster0 pitrix-host")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "... Error!", "the check lets the prefix of a name pass, apt does not")
		log, err := s.Firstbox().Host.ReadFile("/pitrix/log/update_nodes/update_dnsmaster0.log")
		require.NoError(t, err)
		assert.Contains(t, string(log), "E: Unable to locate package pitrix-host\n")
		status, out = at(t, s, FirstboxAddr, "/pitrix/upgrade/update.sh -f dnsmaster0 no-such")
		assert.Equal(t, 1, status)
		assert.Equal(t, "Error: The package [no-such] is invalid, can not find it in /pitrix/repo or /var/www/repo!\n", out)
	})
}

func TestTrapUpdateUnknownRelease(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		edit(t, s.Firstbox(), settingsDir+"/dnsmaster0", "14.04.5", "18.04.1")
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/update.sh -f dnsmaster0 pitrix-hosts")
		assert.Equal(t, 1, status, "apt asks, and nobody answers: %s", out)
	})
}

func TestTrapHostnameInNodeList(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		edit(t, s.Firstbox(), settingsDir+"/proxy1", `hostname="proxy1"`, `hostname="proxy01"`)
		box(t, s, "/pitrix/bin/gen_node_list.py")
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/exec_nodes.sh -f proxy hostname")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "The node [proxy01] is invalid")
	})
}

func TestTrapBackupInsideSettings(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		box(t, s, "cp /pitrix/conf/settings/proxy0 /pitrix/conf/settings/proxy0.bak && /pitrix/bin/gen_node_list.py")
		assert.Contains(t, box(t, s, "cat /pitrix/conf/nodes/proxy"), "nodes=( proxy0 proxy0 proxy1 );")
	})
}

func TestTrapBackupPath(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, _ := at(t, s, FirstboxAddr, "cp -arf /pitric/conf/settings /pitric/conf/settings.20261122")
		assert.Equal(t, 1, status, "the path of the runbook does not exist: no backup at all")
		box(t, s, "cp -arf /pitrix/conf/settings /pitrix/conf/settings.20261122; cp -arf /pitrix/conf/settings /pitrix/conf/settings.20261122")
		assert.Contains(t, box(t, s, "ls /pitrix/conf/settings.20261122"), "settings\n", "the second copy of a day lies inside the first")
	})
}

func TestTrapGlobalConfBackup(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		global := variablesDir + "/global/server.yaml"
		backup := variablesDir + "/global_" + time.Now().Format("20060102") + "/server.yaml"
		before := box(t, s, "cat "+global)
		box(t, s, "/pitrix/upgrade/build_global_conf.sh; echo changed >"+global)
		assert.Equal(t, before, box(t, s, "cat "+backup))
		box(t, s, "/pitrix/upgrade/build_global_conf.sh")
		assert.Equal(t, "changed\n", box(t, s, "cat "+backup), "the good backup of the day is gone")
	})
}

func TestTrapGlobalConfStatus(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/upgrade/build_global_conf.sh -f")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Usage")
	})
}

func TestTrapBuiltHosts(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		edit(t, s.Firstbox(), settingsDir+"/proxy0", old0, temp0)
		box(t, s, "/pitrix/upgrade/build_global_conf.sh")
		edit(t, s.Firstbox(), settingsDir+"/proxy0", temp0, old0)
		_, out := at(t, s, "192.0.2.41", "apt-get --yes --allow-unauthenticated install pitrix-hosts && cat /etc/hosts")
		assert.Contains(t, out, temp0+" proxy0.mgmt.pitrix.yunify.com proxy0\n", "what was built counts, not the settings")
		assert.Contains(t, strings.Join(s.Damage(), "\n"), "dnsmaster0 was told that proxy0 is "+temp0)
		assert.Contains(t, box(t, s, "f=$(find /pitrix/repo -name 'pitrix-hosts_*.deb'); dpkg-deb --fsys-tarfile $f | tar -xOf -"), temp0+" proxy0.mgmt", "and the package says so beforehand")
	})
}

func TestTrapDoneMarker(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, out := at(t, s, FirstboxAddr, "/pitrix/install/launch_vms.sh proxy0")
		assert.Equal(t, 1, status)
		assert.Equal(t, "The VM [proxy0] has been launched.\n", out)
		_, _ = at(t, s, host1, "rm /pitrix/kernels/proxy0.Done")
		status, out = at(t, s, FirstboxAddr, "/pitrix/install/launch_vms.sh proxy0")
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "Defining the VM [proxy0] ... Error!")
		assert.Contains(t, strings.Join(s.Damage(), "\n"), "launch_vms wrote a new image over the disk of proxy0", "without the marker the old disk is lost")
	})
}

func TestTrapForceRemovesPrefix(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		_, _ = at(t, s, host1, "cd /pitrix/kernels; cp proxy0.xml old-proxy0.xml; cp proxy0.xml proxy0.xml.bak")
		box(t, s, "/pitrix/install/launch_vms.sh -f proxy0")
		_, out := at(t, s, host1, "ls /pitrix/kernels")
		assert.Equal(t, "ksnode14045a.img\nold-proxy0.xml\nproxy0.Done\nproxy0.img\nproxy0.xml\n", out, "a backup whose name begins with the VM's is gone")
	})
}

func TestTrapSameHost(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		old := s.Machine(old0)
		box(t, s, "/pitrix/install/launch_vms.sh -f proxy0")
		time.Sleep(time.Second)
		assert.False(t, old.Host.Up())
		damage := strings.Join(s.Damage(), "\n")
		assert.Contains(t, damage, "launch_vms -f destroyed proxy0, which ran on lab1ar01n01")
		assert.Contains(t, damage, "deleted proxy0.img, the disk of proxy0")
	})
}

func TestTrapOverlayBase(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		_, out := at(t, s, host1, "qemu-img info -U /pitrix/kernels/proxy0.img")
		assert.Contains(t, out, "backing file: /pitrix/kernels/ksnode14045a.img")
		_, _ = at(t, s, host1, "virsh destroy proxy0; rm /pitrix/kernels/ksnode14045a.img")
		status, out := at(t, s, host1, "virsh start proxy0")
		assert.Equal(t, 1, status, "an image without its base does not start")
		assert.Contains(t, out, "Cannot access backing file")
	})
}

func TestTrapInstallReboots(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		temporary(t, s)
		box(t, s, "/pitrix/install/launch_vms.sh proxy0")
		m, stop, boots := s.Machine(temp0), make(chan struct{}), make(chan map[string]bool)
		go func() {
			seen := map[string]bool{}
			for {
				select {
				case <-stop:
					boots <- seen
					return
				case <-time.After(time.Millisecond):
					if m.Host.Up() {
						seen[m.Host.BootID()] = true
					} else {
						seen["off"] = true
					}
				}
			}
		}()
		box(t, s, "/pitrix/install/install_nodes.sh proxy0")
		close(stop)
		seen := <-boots
		assert.True(t, seen["off"], "in between it is not reached")
		assert.Len(t, seen, 1+1+5, "the first boot, and one for each reboot")
	})
}

func TestTrapNodeSettingsCopy(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		_, out := at(t, s, temp0, "cat /opt/install/os/setting /etc/rc.local.tail")
		assert.Contains(t, out, `mgmt_network_address="`+temp0+`"`)
		assert.Contains(t, out, "src "+temp0+" via")
	})
}

func TestTrapVIPFloatsOnInstall(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		box(t, s, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
		time.Sleep(5 * time.Second)
		require.Len(t, s.Holders(ProxyVIP), 1)
		assert.Equal(t, "proxy0#2", s.Holders(ProxyVIP)[0].Label(), "the new node took the address as soon as it had the package")
		_, err := s.Open(ProxyVIP, 8666)
		assert.ErrorIs(t, err, syscall.ECONNREFUSED, "without the front end that somebody made by hand")
	})
}

func TestTrapVIPTwins(t *testing.T) {
	within(t, Config{Faults: Faults{Deaf: true}}, func(t *testing.T, s *Site) {
		time.Sleep(5 * time.Second)
		assert.Len(t, s.Holders(ProxyVIP), 2, "who cannot hear the other takes the address as well")
		assert.NotEmpty(t, s.Duplicates())
	})
}

func TestTrapVIPMask(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		for _, addr := range []string{temp0, temp1} {
			status, out := at(t, s, addr, "systemctl mask keepalived")
			require.Zero(t, status, out)
		}
		box(t, s, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
		time.Sleep(5 * time.Second)
		assert.Equal(t, "proxy0", s.Holders(ProxyVIP)[0].Label(), "held down before the package came")
		status, _ := at(t, s, temp0, "service keepalived start")
		assert.Equal(t, 1, status)
		_, _ = at(t, s, temp0, "shutdown -r now")
		time.Sleep(6 * time.Second)
		assert.Equal(t, "proxy0", s.Holders(ProxyVIP)[0].Label(), "also after a reboot")
	})
}

func TestTrapKnownHosts(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		assert.Contains(t, box(t, s, "ssh-keygen -f /root/.ssh/known_hosts -R nobody 2>&1"), "not found in")
		status, _ := at(t, s, FirstboxAddr, "ssh-keygen -f /root/.ssh/nothing -R proxy0")
		assert.Equal(t, 255, status, "a missing file")
		box(t, s, "ssh-keygen -f /root/.ssh/known_hosts -R proxy0 && test -f /root/.ssh/known_hosts.old")
		status, _ = at(t, s, FirstboxAddr, "ssh-keygen -F "+old0)
		assert.Equal(t, 1, status, "a line with the name and the address went as a whole")
		box(t, s, "echo '[192.0.2.61]:2222 ssh-ed25519 AAAA' >>/root/.ssh/known_hosts; ssh-keygen -R 192.0.2.61; ssh-keygen -F '[192.0.2.61]:2222'")
	})
}

func TestTrapTemporarySource(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		installed(t, s)
		_, out := at(t, s, temp0, "ip route show 10.80.0.0/16")
		assert.Contains(t, out, "src "+temp0)
		m := s.Machine(temp0)
		edit(t, m, interfacesFile, temp0, "192.0.2.171")
		_, _ = at(t, s, temp0, "shutdown -r now")
		time.Sleep(2 * time.Second)
		_, out = at(t, s, "192.0.2.171", "ip route show 10.80.0.0/16")
		assert.Empty(t, out, "rc.local.tail names a source that the node has not: no route to the VM network")
		status, out := at(t, s, "192.0.2.171", "sh /etc/rc.local.tail")
		assert.Equal(t, 2, status)
		assert.Contains(t, out, "Invalid prefsrc address")
	})
}

func TestTrapRouteAddTwice(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		rule := "10.80.0.0/16 src " + old0 + " via " + gateway
		status, out := at(t, s, old0, "ip route add "+rule)
		assert.Equal(t, 2, status)
		assert.Contains(t, out, "File exists")
		status, _ = at(t, s, old0, "ip route replace "+rule)
		assert.Zero(t, status)
		status, _ = at(t, s, old0, "ip route add 10.81.0.0/16 src "+old0+" via")
		assert.Equal(t, 255, status, "a template with an empty gateway")
	})
}

// silent is a machine that takes over the address of another and says nothing.
func silent(t *testing.T, s *Site, addr string) *Machine {
	t.Helper()
	installed(t, s)
	m := s.Machine(temp1)
	edit(t, m, interfacesFile, temp1, addr)
	_, _ = at(t, s, addr, "shutdown -h now")
	time.Sleep(time.Second)
	_, _ = runOn(t, m, "shutdown -r now")
	time.Sleep(2 * time.Second)
	return m
}

func TestTrapStaleARP(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		require.True(t, s.ping(s.firstbox, netip.MustParseAddr(old1)))
		m := silent(t, s, old1)
		began := time.Now()
		for !s.ping(s.firstbox, netip.MustParseAddr(old1)) {
			time.Sleep(100 * time.Millisecond)
			require.Less(t, time.Since(began), time.Minute)
		}
		assert.Greater(t, time.Since(began), 5*time.Second, "the firstbox keeps asking the old MAC")
		t.Log("without an announcement:", time.Since(began))
		_ = m
	})
	within(t, Config{}, func(t *testing.T, s *Site) {
		require.True(t, s.ping(s.firstbox, netip.MustParseAddr(old1)))
		m := silent(t, s, old1)
		require.False(t, s.ping(s.firstbox, netip.MustParseAddr(old1)))
		status, out := runOn(t, m, "arping -U -c 1 -I eth0 "+old1)
		require.Zero(t, status, out)
		assert.True(t, s.ping(s.firstbox, netip.MustParseAddr(old1)), "with one it is reached at once")
	})
}

func TestTrapAutostart(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		silent(t, s, old1)
		assert.Empty(t, s.Duplicates())
		_, _ = at(t, s, host2, "shutdown -r now")
		time.Sleep(5 * time.Second)
		status, out := at(t, s, FirstboxAddr, "arping -D -c 2 -w 2 -I eth0 "+old1)
		assert.Equal(t, 1, status)
		assert.Equal(t, 2, strings.Count(out, "Unicast reply"), "the old node is back, on the address of the new one: %s", out)
		assert.Len(t, s.Duplicates(), 1)
	})
}

func TestTrapAutostartDisabled(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		silent(t, s, old1)
		_, _ = at(t, s, host2, "virsh autostart --disable proxy1; shutdown -r now")
		time.Sleep(5 * time.Second)
		_, out := at(t, s, host2, "virsh domstate proxy1")
		assert.Equal(t, "shut off\n\n", out)
		assert.Empty(t, s.Duplicates())
	})
}

func TestTrapUndefineRunning(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		status, _ := at(t, s, host1, "virsh undefine proxy0")
		assert.Zero(t, status, "a running domain can be undefined")
		_, out := at(t, s, host1, "virsh domstate proxy0; virsh dominfo proxy0")
		assert.Contains(t, out, "running")
		assert.Contains(t, out, "Persistent:     no")
		_, _ = at(t, s, old0, "shutdown -h now")
		time.Sleep(time.Second)
		status, _ = at(t, s, host1, "virsh domstate proxy0")
		assert.Equal(t, 1, status, "and is gone when it stops")
	})
}

func TestTrapHandMadeHAProxy(t *testing.T) {
	within(t, Config{}, func(t *testing.T, s *Site) {
		c, err := s.Open(ProxyVIP, 8666)
		require.NoError(t, err)
		s.CloseFlow(c)
		box(t, s, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy") // on the old ones, as anybody might
		time.Sleep(5 * time.Second)
		_, err = s.Open(ProxyVIP, 8666)
		assert.ErrorIs(t, err, syscall.ECONNREFUSED, "the package writes its own file over it")
	})
}

func TestTrapSubRegionBackends(t *testing.T) {
	within(t, Config{Sub: true}, func(t *testing.T, s *Site) {
		c, err := s.Open(ProxyVIP, 7777)
		require.NoError(t, err)
		assert.Equal(t, "webservice of the global site", c.Server)
		s.CloseFlow(c)
		box(t, s, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
		time.Sleep(5 * time.Second)
		_, err = s.Open(ProxyVIP, 7777)
		assert.ErrorIs(t, err, errNoBackend, "the generated file points to local servers, which have no api")
	})
}

func TestTrapSupervisorStatus(t *testing.T) {
	within(t, Config{Faults: Faults{Programs: map[string]string{"proxy0/cb_server": "FATAL", "proxy1/cb_server": "BACKOFF"}}}, func(t *testing.T, s *Site) {
		installed(t, s)
		box(t, s, "/pitrix/upgrade/update.sh -f proxy pitrix-ks-proxy")
		status, out := at(t, s, temp0, "supervisorctl status")
		assert.Zero(t, status, "supervisor 3.x says 0 whatever the state")
		assert.Contains(t, out, "cb_server                        FATAL      Exited too quickly")
		assert.Contains(t, out, "cronus-api                       RUNNING    pid ")
		_, out = at(t, s, old0, "supervisorctl stop all; service haproxy status; service keepalived status")
		assert.Contains(t, out, "haproxy is running\nkeepalived is running", "these are not supervisor's")
	})
}
