package pitrix_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

const hostsFile = `127.0.0.1 localhost
::1 ip6-localhost # loopback

192.0.2.61	proxy0.mgmt.pitrix.yunify.com proxy0
192.0.2.62 proxy1.mgmt.pitrix.yunify.com proxy1
192.0.2.60 proxy.mgmt.pitrix.yunify.com proxy
`

func TestParseHosts(t *testing.T) {
	h, err := pitrix.ParseHosts("hosts", []byte(hostsFile))
	require.NoError(t, err)
	assert.Len(t, h, 8)
	assert.Equal(t, "192.0.2.61", h["proxy0"][0].String())
	assert.Equal(t, "::1", h["ip6-localhost"][0].String())
	_, err = pitrix.ParseHosts("hosts", []byte("192.0.2.1\n x proxy0\n"))
	require.Error(t, err)
	assert.Equal(t, "hosts:1:1: 192.0.2.1 has no name; a line is ADDRESS NAME …\nhosts:2:2: \"x\" is not an address; a line is ADDRESS NAME …", err.Error())
}

// The package maps names to what the settings said when it was built.
func TestTrapBuiltHosts(t *testing.T) {
	f := flat(t)
	check := func(src string, nodes ...string) string {
		h, err := pitrix.ParseHosts("hosts", []byte(src))
		require.NoError(t, err)
		var out []string
		for _, p := range pitrix.CheckHosts(h, f, nodes...) {
			assert.Equal(t, pitrix.RuleHosts, p.Rule)
			out = append(out, p.String())
		}
		return strings.Join(out, "\n")
	}
	assert.Empty(t, check(hostsFile, "proxy0", "proxy1"))
	built := strings.ReplaceAll(hostsFile, "192.0.2.61", "192.0.2.71") // before the switch
	assert.Empty(t, check(built, "proxy1"))
	assert.Regexp(t, `^proxy0:29:22: mgmt_network_address: 192\.0\.2\.61, but the built package maps proxy0 to 192\.0\.2\.71; build .*\n.* maps proxy0\.mgmt\.pitrix\.yunify\.com to 192\.0\.2\.71`, check(built, "proxy1", "proxy0"))
	assert.Contains(t, check(hostsFile+"192.0.2.71 proxy0\n", "proxy0"), "maps proxy0 to 192.0.2.61, 192.0.2.71")
	assert.Contains(t, check("", "proxy0"), "maps proxy0 to nothing")
	assert.Contains(t, check(hostsFile, "proxy7"), "no settings file of this name")
}
