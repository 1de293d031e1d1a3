package pitrix_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/pitrix"
)

func site() pitrix.Site {
	return pitrix.Site{
		ZoneIDs: []string{"lab1a"}, Releases: []string{"14.04.5", "16.04.5"},
		Bridges: map[string][]string{"198.51.100.21": {"br0", "br1"}},
		Zones: map[string]pitrix.ZoneSite{"lab1a": {
			ManagementNetwork: netip.MustParsePrefix("192.0.2.0/24"), VMBaseNetwork: netip.MustParsePrefix("10.80.0.0/16"),
			VGManagementGateway: netip.MustParseAddr("198.51.100.254"),
		}},
	}
}

func TestCheckSite(t *testing.T) {
	assert.Nil(t, pitrix.CheckSite(far(t), site()))
	assert.Nil(t, pitrix.CheckSite(far(t), pitrix.Site{}), "nothing known, nothing wrong")
	for _, tt := range []struct {
		pairs []string
		want  string
	}{
		{[]string{"physical_host_network_interface", "br2"}, "physical_host_network_interface R6: it has br0, br1"},
		{[]string{"physical_host_eip_network_interface", "br3"}, "physical_host_eip_network_interface R6: no bridge of 198.51.100.21"},
		{[]string{"os_version", "16.04.3"}, "os_version R10: prepare them first"},
		{[]string{"zone_id", "lab1b"}, "zone_id R10: not among the firstbox's zone_ids"},
		{[]string{"is_region", "1"}, "is_region R10: says otherwise"},
		{[]string{"mgmt_network_routing_rule", "ip route add 192.0.3.0/24 via 198.51.100.254"}, "mgmt_network_routing_rule R2: does not lead to 192.0.2.0/24"},
		{[]string{"mgmt_network_routing_rule", "ip route add 192.0.2.0/24 via 198.51.100.1"}, "mgmt_network_routing_rule R2: write that"},
		{[]string{"vm_network_routing_rule", "ip route add 10.81.0.0/16 src 198.51.100.12 via 198.51.100.254"}, "vm_network_routing_rule R3: 10.80.0.0/16"},
		{[]string{"vm_network_routing_rule", vmRule("198.51.100.12", "198.51.100.253")}, "vm_network_routing_rule R3: 198.51.100.254"},
	} {
		f := far(t)
		change(t, f["proxy1"], tt.pairs...)
		problems := pitrix.CheckSite(f, site())
		if assert.Len(t, problems, 1, "%q: %v", tt.pairs, problems) {
			where, text, _ := strings.Cut(tt.want, ": ")
			assert.Equal(t, where, problems[0].Key+" "+problems[0].Rule)
			assert.Contains(t, problems[0].Text, text)
		}
	}
}

// update.sh calls apt without options for a release that it does not know, so
// that apt asks and the script waits forever.
func TestTrapUpdateUnknownRelease(t *testing.T) {
	for version, ok := range map[string]bool{"16.04.5": true, "14.04.5": true, "12.04": true, "18.04.6": false, "16.10": false, "": false, "1604": false} {
		f := flat(t)
		name := map[string]string{"16": "xenial", "14": "trusty", "12": "precise"}[strings.Split(version, ".")[0]]
		change(t, f["proxy0"], "os_version", version, "os_name", name)
		assert.Equal(t, ok, pitrix.CheckFleet(f) == nil, version)
	}
}
