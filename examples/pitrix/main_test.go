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
	var out strings.Builder
	require.NoError(t, show(&out, macs(), now, dir, "proxy0", "16.04.5", "xenial"))
	assert.Equal(t, `--- proxy0
+++ proxy0
@@ -20,8 +20,8 @@
 cpu_arch="x86_64"
 cpu_cores="4"
 memory_size="8000"
-os_name="trusty"
-os_version="14.04.5"
+os_name="xenial"
+os_version="16.04.5"
 hostname="proxy0"
 
 ## Mgmt Network
@@ -30,7 +30,7 @@
 mgmt_network_netmask="255.255.255.0"
 mgmt_network_gateway="192.0.2.254"
 mgmt_network_dns_servers="192.0.2.41 192.0.2.42"
-mgmt_network_mac_address="00:16:3e:1a:07:c1"
+mgmt_network_mac_address="00:16:3e:96:1c:10"
 mgmt_network_routing_rule=""
 
 ## VM Network
save the directory as /pitrix/conf/settings.20261122-031500
`, out.String())

	out.Reset()
	require.NoError(t, show(&out, macs(), now, dir, "proxy0", "16.04.5", "trusty"))
	assert.Contains(t, out.String(), "after: proxy0:23:9: os_name: ")
	assert.ErrorContains(t, show(&out, macs(), now, dir, "proxy7", "16.04.5", "xenial"), "no file proxy7")
	assert.Error(t, show(&out, macs(), now, "missing", "proxy0", "16.04.5", "xenial"))
	assert.ErrorIs(t, show(&out, macs(), now, dir, "proxy0", "{{ os_version }}", "xenial"), pitrix.ErrBadValue)

	broken := t.TempDir()
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(filepath.Join(broken, name), []byte("role = \"proxy\"\n"), 0o600))
	}
	assert.Regexp(t, `^a:1:1: .*\nb:1:1: `, show(&out, macs(), now, broken, "a", "16.04.5", "xenial").Error())
}
