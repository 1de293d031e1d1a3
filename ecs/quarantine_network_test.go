package ecs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Files that name an address of the source ask DHCP afterwards, the others stay
// as they are to the byte; the real shell does it, once, and asks for one boot.
func TestQuarantineNetwork(t *testing.T) {
	if _, err := exec.LookPath("/bin/sh"); err != nil {
		t.Skip("there is no /bin/sh here")
	}
	q := Quarantine{Addresses: []string{"172.31.0.90", "00:16:3e:0A:bc:90"}, MachineID: strings.Repeat("a", 32)}
	for name, c := range map[string]struct{ file, before, after string }{
		"ifcfg": {
			"etc/sysconfig/network-scripts/ifcfg-eth0",
			"DEVICE=eth0\nBOOTPROTO=static\nONBOOT=yes\nIPADDR=172.31.0.90\nNETMASK=255.255.255.0\nGATEWAY=172.31.0.253\nDNS1=100.100.2.136",
			"DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nDNS1=100.100.2.136\n",
		},
		"ifcfg without BOOTPROTO": {
			"etc/sysconfig/network-scripts/ifcfg-eth0",
			"DEVICE=eth0\nIPADDR0='172.31.0.90'\nPREFIX0=24\n",
			"DEVICE=eth0\nBOOTPROTO=dhcp\n",
		},
		"ifcfg, card of the source": {
			"etc/sysconfig/network-scripts/ifcfg-eth0",
			"DEVICE=eth0\nBOOTPROTO=dhcp\nHWADDR=00:16:3E:0a:BC:90\n",
			"DEVICE=eth0\nBOOTPROTO=dhcp\n",
		},
		"NetworkManager": {
			"etc/NetworkManager/system-connections/eth0.nmconnection",
			"[connection]\nid=eth0\n[ethernet]\nmac-address=00:16:3E:0A:BC:90\n[ipv4]\naddress1=172.31.0.90/24,172.31.0.253\ndns=100.100.2.136;\nmethod=manual\n[ipv6]\nmethod=ignore\n",
			"[connection]\nid=eth0\n[ethernet]\n[ipv4]\ndns=100.100.2.136;\nmethod=auto\n[ipv6]\nmethod=ignore\n",
		},
		"interfaces": {
			"etc/network/interfaces",
			"auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 172.31.0.90/24\n\tgateway 172.31.0.253\n\tmtu 1500\n",
			"auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n\tmtu 1500\n",
		},
		"netplan": {
			"etc/netplan/50-cloud-init.yaml",
			"network:\n  version: 2\n  ethernets:\n    eth0:\n      addresses: [172.31.0.90/24]\n",
			"network: {version: 2, ethernets: {upgradectl: {match: {name: \"e*\"}, dhcp4: true}}}\n",
		},
		"networkd": {
			"etc/systemd/network/10-eth0.network",
			"[Match]\nMACAddress=00:16:3e:0a:bc:90\n\n[Network]\nAddress=172.31.0.90/24\nGateway=172.31.0.253\nDNS=100.100.2.136\n",
			"[Match]\nName=e*\n\n[Network]\nDHCP=yes\nDNS=100.100.2.136\n",
		},
		"udev": {
			"etc/udev/rules.d/70-persistent-net.rules",
			"# written by hand\nSUBSYSTEM==\"net\", ATTR{address}==\"00:16:3e:0a:bc:90\", NAME=\"eth0\"\n",
			"",
		},
		"another's address":  {"etc/sysconfig/network-scripts/ifcfg-eth1", "BOOTPROTO=static\nIPADDR=172.31.0.9\nGATEWAY=172.31.0.901\n", "-"},
		"its end of another": {"etc/netplan/a.yaml", "addresses: [10.172.31.0.90/24]\n", "-"},
		"DHCP":               {"etc/sysconfig/network-scripts/ifcfg-eth0", "BOOTPROTO=dhcp\nHWADDR=00:16:3e:0a:bc:91", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			root, bin := t.TempDir(), t.TempDir()
			log := filepath.Join(bin, "log")
			require.NoError(t, os.WriteFile(filepath.Join(bin, "shutdown"), []byte("#!/bin/sh\necho \"$*\" >> '"+log+"'\n"), 0o755))
			file := filepath.Join(root, c.file)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(c.before), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(q.MachineID+"\n"), 0o444))
			hold, err := q.holdScript(root)
			require.NoError(t, err)
			for range 2 {
				shell(t, bin, hold)
			}
			got, err := os.ReadFile(file)
			require.NoError(t, err)
			boots, _ := os.ReadFile(log)
			if c.after == "-" {
				assert.Equal(t, c.before, string(got))
				assert.Empty(t, boots)
			} else {
				assert.Equal(t, c.after, string(got))
				assert.Equal(t, "-r now\n", string(boots), "one boot more, and only one")
				kept, err := os.ReadFile(filepath.Join(root, "etc/upgradectl/network", root, c.file))
				require.NoError(t, err)
				assert.Equal(t, c.before, string(kept))
			}
			info, err := os.Stat(file)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			id, err := os.ReadFile(filepath.Join(root, "etc/machine-id"))
			require.NoError(t, err)
			assert.Regexp(t, `^[0-9a-f]{32}\n$`, string(id))
			assert.NotContains(t, string(id), q.MachineID)
			shell(t, bin, hold)
			again, err := os.ReadFile(filepath.Join(root, "etc/machine-id"))
			require.NoError(t, err)
			assert.Equal(t, string(id), string(again), "a new one is given once")
		})
	}
	for _, bad := range []Quarantine{{Addresses: []string{"fe80::1"}}, {Addresses: []string{"$(reboot)"}}, {Addresses: []string{"00:16"}}, {MachineID: "x"}, {MachineID: "'; reboot"}} {
		_, err := bad.UserData()
		assert.Error(t, err, "%+v", bad)
	}
}

// A unit that is let go starts from then on, also after the next boot; the
// others stay held back.
func TestQuarantineRelease(t *testing.T) {
	if _, err := exec.LookPath("/bin/sh"); err != nil {
		t.Skip("there is no /bin/sh here")
	}
	root, bin := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >> '"+log+"'\n[ \"$1\" = show ] && echo ActiveState=inactive\nexit 0\n"), 0o755))
	q := Quarantine{Units: []string{"crond", "docker", "web@1"}}
	hold, err := q.holdScript(root)
	require.NoError(t, err)
	shell(t, bin, hold)
	release, err := q.releaseScript(root, []string{"docker.service"})
	require.NoError(t, err)
	check, err := q.checkScript(root)
	require.NoError(t, err)
	for range 2 { // two boots, and the release done again
		shell(t, bin, release)
		_ = os.Remove(log)
		shell(t, bin, hold)
		said, err := os.ReadFile(log)
		require.NoError(t, err)
		assert.Equal(t, "daemon-reload\nstop --no-block crond.service web@1.service\n", string(said))
		assert.Equal(t, []string{"docker.service inactive free"}, q.NotHeld([]byte(shell(t, bin, check))))
	}
	for _, bad := range [][]string{nil, {"sshd"}, {"a;b"}} {
		_, err := q.ReleaseScript(bad...)
		assert.Error(t, err, "%q", bad)
	}
	assert.Equal(t, []string{"crond.service unknown", "docker.service active held", "web@1.service inactive free"},
		q.NotHeld([]byte("docker.service active held\nweb@1.service inactive free\nnoise\n")))
}
