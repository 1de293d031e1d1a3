package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

func TestShow(t *testing.T) {
	const dir = "testdata/settings"
	now := time.Date(2026, 11, 22, 3, 15, 0, 0, time.UTC)
	// The first three octets that come are proxy1's already.
	macs := func() pitrix.MACGen {
		return pitrix.MACGen{Rand: strings.NewReader("\x1a\x07\xc2\x96\x1c\x10")}
	}
	side := pitrix.Replacement{OSVersion: "16.04.5", OSName: "xenial", Address: "192.0.2.71", PhysicalHost: "192.0.2.103"}
	var out strings.Builder
	require.NoError(t, show(&out, macs(), now, dir, "proxy0", side))
	assert.Equal(t, `--- proxy0
+++ proxy0
@@ -20,23 +20,23 @@
 cpu_arch="x86_64"
 cpu_cores="4"
 memory_size="8000"
-os_name="trusty"
-os_version="14.04.5"
+os_name="xenial"
+os_version="16.04.5"
 hostname="proxy0"
 
 ## Mgmt Network
 mgmt_network_interface="eth0"
-mgmt_network_address="192.0.2.61"
+mgmt_network_address="192.0.2.71"
 mgmt_network_netmask="255.255.255.0"
 mgmt_network_gateway="192.0.2.254"
 mgmt_network_dns_servers="192.0.2.41 192.0.2.42"
-mgmt_network_mac_address="00:16:3e:1a:07:c1"
+mgmt_network_mac_address="00:16:3e:96:1c:10"
 mgmt_network_routing_rule=""
 
 ## VM Network
-vm_network_routing_rule="ip route add 10.80.0.0/16 src 192.0.2.61 via 192.0.2.254"
+vm_network_routing_rule="ip route add 10.80.0.0/16 src 192.0.2.71 via 192.0.2.254"
 
 ## Host
-physical_host="192.0.2.102"
+physical_host="192.0.2.103"
 physical_host_network_interface="br0"
 physical_host_eip_network_interface=""
save the directory as /pitrix/conf/settings.20261122-031500
`, out.String())

	out.Reset()
	wrong := side
	wrong.OSName, wrong.PhysicalHost, wrong.Address = "trusty", "", "192.0.2.62"
	require.NoError(t, show(&out, macs(), now, dir, "proxy0", wrong))
	for _, text := range []string{"after: proxy0:23:9: os_name: ", "after: proxy0:29:22: mgmt_network_address: 192.0.2.62 is in use", "after: proxy0:40:15: physical_host: 192.0.2.102 carries the old node"} {
		assert.Contains(t, out.String(), text)
	}
	assert.ErrorContains(t, show(&out, macs(), now, dir, "proxy7", side), "no file proxy7")
	assert.Error(t, show(&out, macs(), now, "missing", "proxy0", side))
	wrong.OSVersion = "{{ os_version }}"
	assert.ErrorIs(t, show(&out, macs(), now, dir, "proxy0", wrong), pitrix.ErrBadValue)

	broken := t.TempDir()
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(filepath.Join(broken, name), []byte("role = \"proxy\"\n"), 0o600))
	}
	assert.Regexp(t, `^a:1:1: .*\nb:1:1: `, show(&out, macs(), now, broken, "a", side).Error())
}
