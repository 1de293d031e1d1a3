package pitrix_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

// template is a proxy without VG nodes, as the installer's documents have it.
// The other nodes are made of it.
const template = `## Role
role="proxy"

## Region
is_region="0"
region_id=""
zone_id="lab1a"

## Feature
feature_vmnode="on"
feature_ksnode="on"
feature_vgnode="off"
feature_hypernode="off"
feature_conntrack="off"

## Firstbox
firstbox_address="192.0.2.2"

## General
cpu_arch="x86_64"
cpu_cores="4"
memory_size="8000"
os_name="xenial"
os_version="16.04.5"
hostname="proxy0"

## Mgmt Network
mgmt_network_interface="eth0"
mgmt_network_address="192.0.2.61"
mgmt_network_netmask="255.255.255.0"
mgmt_network_gateway="192.0.2.254"
mgmt_network_dns_servers="192.0.2.41 192.0.2.42"
mgmt_network_mac_address="00:16:3e:1a:07:c1"
mgmt_network_routing_rule=""

## VM Network
vm_network_routing_rule="ip route add 10.80.0.0/16 src 192.0.2.61 via 192.0.2.254"

## Eip Network
eip_network_interface=""
eip_network_address=""
eip_network_netmask=""
eip_network_gateway=""
eip_network_mac_address=""

## Host
physical_host="192.0.2.102"
physical_host_network_interface="br0"
physical_host_eip_network_interface=""
`

// put makes settings of the template and of pairs of key and value.
func put(t testing.TB, fleet map[string]*pitrix.Settings, name string, pairs ...string) {
	t.Helper()
	s, err := pitrix.Parse(name, []byte(template))
	require.NoError(t, err)
	require.NoError(t, s.Set("hostname", name))
	change(t, s, pairs...)
	fleet[name] = s
}

func change(t testing.TB, s *pitrix.Settings, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if _, ok := s.Get(pairs[i]); !ok {
			require.NoError(t, s.Insert("hostname", pairs[i], ""))
		}
		require.NoError(t, s.Set(pairs[i], pairs[i+1]))
	}
}

func host(t testing.TB, fleet map[string]*pitrix.Settings, name, role, address string, pairs ...string) {
	t.Helper()
	put(t, fleet, name, append([]string{"role", role, "feature_vmnode", "off", "mgmt_network_address", address, "mgmt_network_interface", "br0",
		"mgmt_network_mac_address", "", "vm_network_routing_rule", "",
		"physical_host", "", "physical_host_network_interface", ""}, pairs...)...)
}

func vmRule(src, via string) string { return "ip route add 10.80.0.0/16 src " + src + " via " + via }

// flat is a zone without VG nodes.
func flat(t testing.TB) map[string]*pitrix.Settings {
	f := map[string]*pitrix.Settings{}
	host(t, f, "lab1ar01n01", "TBD", "192.0.2.101")
	host(t, f, "lab1ar01n02", "TBD", "192.0.2.102")
	put(t, f, "proxy0")
	put(t, f, "proxy1", "mgmt_network_address", "192.0.2.62", "mgmt_network_mac_address", "00:16:3e:1a:07:c2",
		"vm_network_routing_rule", vmRule("192.0.2.62", "192.0.2.254"), "physical_host", "192.0.2.101")
	put(t, f, "webservice0", "role", "webservice", "mgmt_network_address", "192.0.2.65", "mgmt_network_mac_address", "00:16:3e:40:11:9d",
		"vm_network_routing_rule", "", "physical_host_network_interface", "br1")
	put(t, f, "pgserver0", "role", "pgserver", "mgmt_network_address", "192.0.2.66", "mgmt_network_mac_address", "00:16:3e:40:11:9e")
	change(t, f["pgserver0"], "vm_network_routing_rule", "")
	put(t, f, "pgserver1", "role", "pgserver", "mgmt_network_address", "192.0.2.67", "mgmt_network_mac_address", "00:16:3e:40:11:9f",
		"vm_network_routing_rule", "", "physical_host", "192.0.2.101")
	return f
}

// near is a zone whose VG nodes share the /24 of the KS nodes; far one where
// they do not.
func near(t testing.TB) map[string]*pitrix.Settings {
	f := map[string]*pitrix.Settings{}
	host(t, f, "lab1ar01n01", "TBD", "192.0.2.101")
	host(t, f, "lab1ar01n03", "vgateway", "192.0.2.21", "feature_vgnode", "on")
	host(t, f, "lab1ar01n04", "vgateway", "192.0.2.22", "feature_vgnode", "on")
	for i, name := range []string{"proxy0", "proxy1"} {
		own := fmt.Sprintf("192.0.2.6%d", i+1)
		put(t, f, name, "mgmt_network_address", own, "mgmt_network_gateway", "",
			"mgmt_network_mac_address", fmt.Sprintf("00:16:3e:5b:90:0%d", i),
			"vm_network_routing_rule", vmRule(own, "192.0.2.21"),
			"eip_network_interface", "eth1", "eip_network_address", fmt.Sprintf("2.2.2.%d", i+2), "eip_network_netmask", "255.255.255.0",
			"eip_network_gateway", "2.2.2.1", "eip_network_mac_address", fmt.Sprintf("00:16:3e:5b:91:0%d", i),
			"physical_host", fmt.Sprintf("192.0.2.2%d", 2-i), "physical_host_eip_network_interface", "br1")
	}
	put(t, f, "dnsmaster1", "role", "dnsmaster", "mgmt_network_address", "192.0.2.42", "mgmt_network_gateway", "192.0.2.22",
		"mgmt_network_mac_address", "00:16:3e:00:00:42", "mgmt_network_dns_servers", "203.0.113.53 203.0.113.54",
		"vm_network_routing_rule", vmRule("192.0.2.42", "192.0.2.21"), "physical_host", "192.0.2.22")
	return f
}

func far(t testing.TB) map[string]*pitrix.Settings {
	f := map[string]*pitrix.Settings{}
	host(t, f, "lab1ar01n01", "TBD", "192.0.2.101")
	host(t, f, "lab1ar01n03", "vgateway", "198.51.100.21", "feature_vgnode", "on")
	put(t, f, "proxy1", "mgmt_network_address", "198.51.100.12", "mgmt_network_gateway", "", "mgmt_network_mac_address", "00:16:3e:22:4d:77",
		"mgmt_network_routing_rule", "ip route add 192.0.2.0/24 via 198.51.100.254",
		"vm_network_routing_rule", vmRule("198.51.100.12", "198.51.100.254"),
		"eip_network_interface", "eth1", "eip_network_address", "203.0.113.12", "eip_network_netmask", "255.255.255.0",
		"eip_network_gateway", "203.0.113.1", "eip_network_mac_address", "00:16:3e:22:4d:78",
		"physical_host", "198.51.100.21", "physical_host_eip_network_interface", "br1")
	return f
}

// leaf is a spine-leaf network in region mode, beside a zone without VMs.
func leaf(t testing.TB) map[string]*pitrix.Settings {
	f := map[string]*pitrix.Settings{}
	region := []string{"is_region", "1", "region_id", "lab2", "zone_id", "lab2b"}
	host(t, f, "lab2br01n11", "TBD", "192.0.2.111", slices.Concat(region, []string{"ks_vm_routing_rule_lab2b_bm0", "ip route replace 192.0.2.121/32 dev br0"})...)
	host(t, f, "lab2br01n12", "TBD", "192.0.2.112", slices.Concat(region, []string{"hyper_vip_address", "", "mgmt_network_netmask", "255.255.255.255"})...)
	host(t, f, "lab2ar01n01", "vgateway", "198.51.100.9", "is_region", "1", "region_id", "lab2", "zone_id", "lab2a")
	put(t, f, "lab2b-bm0", append(region, "role", "swctl", "os_version", "16.04.5.2", "mgmt_network_address", "192.0.2.121",
		"mgmt_network_netmask", "255.255.255.255", "mgmt_network_gateway", "192.0.2.111", "vm_network_routing_rule", "", "physical_host", "192.0.2.111")...)
	return f
}

var fleets = map[string]func(testing.TB) map[string]*pitrix.Settings{"flat": flat, "near": near, "far": far, "leaf": leaf}

func fleetFiles(t testing.TB) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(fleets)) {
		f := fleets[name](t)
		for _, node := range slices.Sorted(maps.Keys(f)) {
			out = append(out, string(f[node].Bytes()))
		}
	}
	return out
}

func TestRightFleets(t *testing.T) {
	for name, f := range fleets {
		assert.Nil(t, pitrix.CheckFleet(f(t)), name)
	}
	assert.Nil(t, pitrix.CheckFleet(nil))
}

func TestCheckFleet(t *testing.T) {
	for _, tt := range []struct {
		fleet, node string
		pairs       []string
		want        []string // "file key rule: part of the text"
	}{
		{"flat", "proxy0", []string{"mgmt_network_gateway", ""}, []string{"proxy0 mgmt_network_gateway R1: no VG node"}},
		{"flat", "webservice0", []string{"mgmt_network_gateway", ""}, []string{"webservice0 mgmt_network_gateway R1: no VG node"}},
		{"flat", "pgserver0", []string{"mgmt_network_gateway", ""}, nil},
		{"flat", "proxy0", []string{"mgmt_network_gateway", "192.0.2.256"}, []string{"proxy0 mgmt_network_gateway R1: not an IPv4"}},
		{"near", "proxy0", []string{"mgmt_network_gateway", "192.0.2.21"}, []string{"proxy0 mgmt_network_gateway R1: on a proxy it is empty"}},
		{"near", "dnsmaster1", []string{"mgmt_network_gateway", "192.0.2.21"}, []string{"dnsmaster1 mgmt_network_gateway R1: carries it, 192.0.2.22"}},
		{"near", "dnsmaster1", []string{"mgmt_network_gateway", ""}, []string{"dnsmaster1 mgmt_network_gateway R1: carries it, 192.0.2.22"}},

		{"flat", "proxy0", []string{"mgmt_network_routing_rule", "ip route add 198.51.100.0/24 via 192.0.2.254"}, []string{"proxy0 mgmt_network_routing_rule R2: no VG node"}},
		{"near", "proxy0", []string{"mgmt_network_routing_rule", "ip route add 198.51.100.0/24 via 192.0.2.254"}, []string{"proxy0 mgmt_network_routing_rule R2: share one /24"}},
		{"far", "proxy1", []string{"mgmt_network_routing_rule", ""}, []string{"proxy1 mgmt_network_routing_rule R2: different /24"}},
		{"far", "proxy1", []string{"mgmt_network_routing_rule", "ip route add 192.0.2.0/24 via"}, []string{"proxy1 mgmt_network_routing_rule R2: \"via\" is followed by \"\""}},

		{"flat", "proxy0", []string{"vm_network_routing_rule", ""}, []string{"proxy0 vm_network_routing_rule R3: empty"}},
		{"flat", "proxy0", []string{"vm_network_routing_rule", vmRule("192.0.2.62", "192.0.2.254")}, []string{"proxy0 vm_network_routing_rule R3: not the node's own"}},
		{"flat", "proxy0", []string{"vm_network_routing_rule", vmRule("192.0.2.61", "192.0.2.253")}, []string{"proxy0 vm_network_routing_rule R3: is not mgmt_network_gateway"}},
		{"flat", "proxy0", []string{"vm_network_routing_rule", vmRule("192.0.2.61", "")}, []string{"proxy0 vm_network_routing_rule R3: \"via\" is followed by \"\""}},
		{"flat", "proxy0", []string{"vm_network_routing_rule", "ip route add 10.80.0.0/16 src via 192.0.2.254"}, []string{"proxy0 vm_network_routing_rule R3: \"src\" is followed by \"via\""}},
		{"flat", "proxy0", []string{"vm_network_routing_rule", "ip route add 10.80.0.0/16 via 192.0.2.254"}, []string{"proxy0 vm_network_routing_rule R3: not whole"}},
		{"leaf", "lab2br01n11", []string{"ks_vm_routing_rule_lab2b_bm0", "ip route replace 192.0.2.121/32 via"}, []string{"lab2br01n11 ks_vm_routing_rule_lab2b_bm0 R3: complete the command"}},

		{"flat", "proxy0", []string{"eip_network_address", "2.2.2.2", "eip_network_interface", "eth1", "eip_network_netmask", "255.255.255.0",
			"eip_network_mac_address", "00:16:3e:5b:91:00", "physical_host_eip_network_interface", "br1"}, []string{"proxy0 eip_network_address R4: drop the Eip section"}},
		{"near", "proxy0", []string{"eip_network_address", "", "physical_host_eip_network_interface", ""}, []string{"proxy0 eip_network_address R4: unused dummy"}},
		{"near", "proxy0", []string{"eip_network_mac_address", ""}, []string{"proxy0 eip_network_mac_address R4: empty"}},
		{"near", "proxy0", []string{"eip_network_interface", "eth0"}, []string{"proxy0 eip_network_interface R4: management interface too"}},

		{"near", "proxy0", []string{"physical_host", "192.0.2.101"}, []string{"proxy0 physical_host R5: no VG node"}},
		{"near", "dnsmaster1", []string{"physical_host", "192.0.2.101", "mgmt_network_gateway", "192.0.2.101"}, []string{"dnsmaster1 physical_host R5: no VG node"}},

		{"near", "proxy0", []string{"physical_host_eip_network_interface", ""}, []string{"proxy0 physical_host_eip_network_interface R6: normally br1"}},
		{"flat", "webservice0", []string{"physical_host_eip_network_interface", "br1"}, []string{"webservice0 physical_host_eip_network_interface R6: empty it"}},
		{"flat", "webservice0", []string{"physical_host_network_interface", ""}, []string{"webservice0 physical_host_network_interface R6: for a physical one"}},

		{"leaf", "lab2b-bm0", []string{"mgmt_network_gateway", "192.0.2.254"}, []string{"lab2b-bm0 mgmt_network_gateway R8: it is the physical host"}},
		{"leaf", "lab2br01n12", []string{"ks_vm_routing_rule_lab2b_bm0", "ip route replace 192.0.2.121/32 dev br0"}, []string{"lab2br01n12 ks_vm_routing_rule_lab2b_bm0 R8: physical_host is 192.0.2.111"}},
		{"leaf", "lab2br01n11", []string{"ks_vm_routing_rule_lab2b_bm0", "ip route replace 192.0.2.12/32 dev br0"}, []string{"lab2br01n11 ks_vm_routing_rule_lab2b_bm0 R8: does not lead to lab2b-bm0"}},
		{"flat", "proxy0", []string{"mgmt_network_netmask", "255.0.255.0"}, []string{"proxy0 mgmt_network_netmask R10: not a netmask"}},
		{"flat", "proxy0", []string{"mgmt_network_netmask", "0.0.0.0"}, []string{"proxy0 mgmt_network_netmask R10: not a netmask"}},
		{"flat", "proxy0", []string{"mgmt_network_gateway", "198.51.100.1", "vm_network_routing_rule", vmRule("192.0.2.61", "198.51.100.1")},
			[]string{"proxy0 mgmt_network_gateway R1: not in the node's network 192.0.2.0/24", "proxy0 vm_network_routing_rule R3: in no network of the node"}},
		{"near", "proxy0", []string{"eip_network_gateway", "203.0.113.1"}, []string{"proxy0 eip_network_gateway R4: not in the outer network 2.2.2.0/24"}},
		{"far", "proxy1", []string{"mgmt_network_routing_rule", "ip route add 192.0.2.0/24 via 192.0.2.254"}, []string{"proxy1 mgmt_network_routing_rule R2: in no network of the node"}},
		{"flat", "proxy0", []string{"mgmt_network_dns_servers", "192.0.2.41,192.0.2.42"}, []string{"proxy0 mgmt_network_dns_servers R10: not an address"}},
		{"flat", "proxy0", []string{"memory_size", "8000M"}, []string{"proxy0 memory_size R10: without a unit"}},
		{"flat", "proxy0", []string{"cpu_cores", "0"}, []string{"proxy0 cpu_cores R10: not a number"}},
		{"flat", "proxy0", []string{"feature_conntrack", "On"}, []string{"proxy0 feature_conntrack R10: take everything else for off"}},
		{"leaf", "lab2br01n12", []string{"hyper_vip_address", "192.0.2.250"}, []string{"lab2br01n12 hyper_vip_address R8: spine-leaf"}},

		{"flat", "proxy1", []string{"physical_host", "192.0.2.102"}, []string{"proxy1 physical_host R9: carries proxy0"}},
		{"flat", "pgserver1", []string{"physical_host", "", "physical_host_network_interface", ""}, []string{"pgserver1 role R9: one of pgserver0 and pgserver1"}},

		{"flat", "proxy0", []string{"hostname", "proxy0/1"}, []string{"proxy0 hostname R10: in the file proxy0"}},
		{"flat", "proxy0", []string{"hostname", ""}, []string{"proxy0 hostname R10: make them equal"}},
		{"flat", "proxy1", []string{"mgmt_network_address", "192.0.2.61", "vm_network_routing_rule", vmRule("192.0.2.61", "192.0.2.254")},
			[]string{"proxy1 mgmt_network_address R10: another interface too, proxy0:29: mgmt_network_address"}},
		{"near", "proxy1", []string{"eip_network_address", "2.2.2.2"}, []string{"proxy1 eip_network_address R10: another interface too, proxy0"}},
		{"near", "proxy1", []string{"eip_network_address", "192.0.2.62", "eip_network_gateway", ""}, []string{"proxy1 eip_network_address R10: another interface too, proxy1"}},
		{"flat", "webservice0", []string{"mgmt_network_address", ""}, []string{"webservice0 mgmt_network_address R10: reach the node by it"}},
		{"flat", "webservice0", []string{"mgmt_network_address", "192.0.2.065"}, []string{"webservice0 mgmt_network_address R10: not an IPv4"}},
		{"flat", "webservice0", []string{"mgmt_network_address", "2001:db8::1"}, []string{"webservice0 mgmt_network_address R10: not an IPv4"}},
		{"flat", "proxy1", []string{"mgmt_network_mac_address", "00:16:3E:1A:07:C1"}, []string{"proxy1 mgmt_network_mac_address R10: another interface too, proxy0:33"}},
		{"near", "proxy1", []string{"eip_network_mac_address", "00:16:3e:5b:90:01"}, []string{"proxy1 eip_network_mac_address R10: another interface too, proxy1"}},
		{"flat", "lab1ar01n01", []string{"mgmt_network_mac_address", "00:16:3e:00:01:01", "bm_pxe_network_mac_address", "00:16:3e:00:01:01"}, nil},
		{"flat", "lab1ar01n01", []string{"bm_pxe_network_mac_address", "00:16:3e:1a:07:c2"}, []string{"proxy1 mgmt_network_mac_address R10: another interface too, lab1ar01n01"}},
		{"flat", "proxy1", []string{"mgmt_network_mac_address", ""}, []string{"proxy1 mgmt_network_mac_address R10: generate one"}},
		{"flat", "proxy1", []string{"mgmt_network_mac_address", "00:16:3e"}, []string{"proxy1 mgmt_network_mac_address R10: not a MAC"}},
		{"flat", "proxy1", []string{"mgmt_network_mac_address", "01:16:3e:01:02:03"}, []string{"proxy1 mgmt_network_mac_address R10: multicast"}},
		{"flat", "proxy1", []string{"mgmt_network_mac_address", "52:54:00:12:34:56"}, []string{"proxy1 mgmt_network_mac_address R10: qemu"}},
		{"flat", "proxy0", []string{"physical_host", "192.0.2.103"}, []string{"proxy0 physical_host R10: of no physical node"}},
		{"flat", "proxy0", []string{"physical_host", "192.0.2.62"}, []string{"proxy0 physical_host R10: of no physical node"}},
		{"flat", "proxy0", []string{"physical_host", ""}, []string{"proxy0 physical_host R10: the node is a VM"}},
		{"flat", "proxy0", []string{"firstbox_address", "192.0.2.3"}, []string{"proxy0 firstbox_address R10: most files say \"192.0.2.2\""}},
		{"flat", "proxy0", []string{"firstbox_address", ""}, []string{"proxy0 firstbox_address R10: most files say"}},
		{"flat", "proxy0", []string{"is_region", "1"}, []string{"proxy0 region_id R10: name the region", "proxy0 hostname R10: lab1a-proxy0"}},
		{"leaf", "lab2br01n11", []string{"zone_id", ""}, []string{"lab2br01n11 zone_id R10: start with it"}},
		{"flat", "proxy0", []string{"is_region", "yes"}, []string{"proxy0 is_region R10: \"0\" or \"1\""}},
		{"flat", "proxy0", []string{"region_id", "lab"}, []string{"proxy0 region_id R10: is not \"1\""}},
		{"leaf", "lab2b-bm0", []string{"is_region", "0", "region_id", ""}, []string{"lab2b-bm0 hostname R10: form of region mode"}},
		{"flat", "proxy0", []string{"os_version", "18.04.6"}, []string{"proxy0 os_version R10: 12.04, 14.04 and 16.04"}},
		{"flat", "proxy0", []string{"os_version", "16.045"}, []string{"proxy0 os_version R10: 12.04, 14.04 and 16.04"}},
		{"flat", "proxy0", []string{"os_version", "16.04.3-arm"}, nil},
		{"flat", "proxy0", []string{"os_name", "trusty"}, []string{"proxy0 os_name R10: write \"xenial\""}},
	} {
		fleet := fleets[tt.fleet](t)
		change(t, fleet[tt.node], tt.pairs...)
		problems := pitrix.CheckFleet(fleet)
		label := fmt.Sprintf("%s %s %q: %v", tt.fleet, tt.node, tt.pairs, problems)
		if !assert.Len(t, problems, len(tt.want), label) {
			continue
		}
		for i, p := range problems {
			where, text, _ := strings.Cut(tt.want[i], ": ")
			assert.Equal(t, where, p.File+" "+p.Key+" "+p.Rule, label)
			assert.Contains(t, p.Text, text, label)
			assert.Positive(t, p.Line)
			assert.Positive(t, p.Col)
		}
	}
}

func TestCopyInsideSettings(t *testing.T) {
	f := flat(t)
	f["proxy0.bak"] = f["proxy0"].Clone()
	var keys []string
	for _, p := range pitrix.CheckFleet(f) {
		keys = append(keys, p.Key+" "+p.Rule)
	}
	assert.Subset(t, keys, []string{"hostname R10", "mgmt_network_address R10", "mgmt_network_mac_address R10"})

	f = flat(t)
	change(t, f["webservice0"], "hostname", "webservice0.old")
	f["webservice0.old"] = f["webservice0"]
	delete(f, "webservice0")
	problems := pitrix.CheckFleet(f)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].Text, "letters, digits and -")
}

func TestFirstboxAddress(t *testing.T) {
	for value, text := range map[string]string{"": "empty", "firstbox": "not an IPv4 address"} {
		f := flat(t)
		for _, n := range f {
			change(t, n, "firstbox_address", value)
		}
		problems := pitrix.CheckFleet(f)
		require.Len(t, problems, len(f))
		for _, p := range problems {
			assert.Equal(t, "firstbox_address", p.Key)
			assert.Contains(t, p.Text, text)
		}
	}
}

func TestCheckFleetOrder(t *testing.T) {
	f := near(t)
	for _, n := range f {
		change(t, n, "hostname", "x", "os_version", "", "firstbox_address", "", "eip_network_mac_address", "00:16:3e:00:00:00")
	}
	f["broken"] = nil
	first := pitrix.CheckFleet(f)
	require.NotEmpty(t, first)
	assert.Equal(t, "broken", first[0].File)
	for range 5 {
		assert.Equal(t, first, pitrix.CheckFleet(f))
	}
	for i := 1; i < len(first); i++ {
		a, b := first[i-1], first[i]
		assert.True(t, a.File < b.File || a.File == b.File && (a.Line < b.Line || a.Line == b.Line && a.Col <= b.Col), "%v before %v", a, b)
	}
	assert.Contains(t, first[1].String(), "dnsmaster1:")
	assert.Regexp(t, `^dnsmaster1:\d+:\d+: [a-z_]+: .* \(R\d+\)$`, first[1].String())
}

// BenchmarkFleet reads 2,000 settings files, makes the node lists of a region
// of two zones, resolves a scope and checks every rule. live-MB is what is in
// use with all of it in memory.
func BenchmarkFleet(b *testing.B) {
	const hosts, vms = 200, 1800
	files := map[string][]byte{}
	made := map[string]*pitrix.Settings{}
	address := func(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, i%250+1) }
	zone := func(i int) []string {
		return []string{"is_region", "1", "region_id", "lab", "zone_id", []string{"laba", "labb"}[i%2]}
	}
	for i := range hosts {
		host(b, made, fmt.Sprintf("lab%cr%02dn%02d", 'a'+i%2, i/20, i%20), "TBD", address(i), append(zone(i), "mgmt_network_netmask", "255.255.0.0", "mgmt_network_gateway", "10.9.250.254")...)
	}
	for i := range vms {
		own := address(hosts + i)
		put(b, made, fmt.Sprintf("lab%c-vm%d", 'a'+i%2, i), append(zone(i), "role", fmt.Sprintf("role%d", i/hosts), "mgmt_network_address", own,
			"mgmt_network_netmask", "255.255.0.0", "mgmt_network_gateway", "10.9.250.254",
			"mgmt_network_mac_address", fmt.Sprintf("00:16:3e:01:%02x:%02x", i/256, i%256),
			"vm_network_routing_rule", vmRule(own, "10.9.250.254"), "physical_host", address(i%hosts))...)
	}
	for name, s := range made {
		files[name] = s.Bytes()
	}
	clear(made)
	site := pitrix.Site{Region: true, ZoneIDs: []string{"laba", "labb"}, Releases: []string{"16.04.5"}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	for b.Loop() {
		fleet, err := pitrix.ParseFleet(files)
		if err != nil {
			b.Fatal(err)
		}
		groups, err := pitrix.GroupsOf(fleet, site)
		if err != nil {
			b.Fatal(err)
		}
		nodes, err := groups.Resolve(fleet, "laba-vm,labb-vm")
		if err != nil || len(nodes) != vms {
			b.Fatal(len(nodes), err)
		}
		if problems := pitrix.CheckFleet(fleet); problems != nil {
			b.Fatal(problems[0])
		}
		if problems := pitrix.CheckSite(fleet, site); problems != nil {
			b.Fatal(problems[0])
		}
		if after.HeapAlloc == 0 {
			runtime.ReadMemStats(&after)
		}
		runtime.KeepAlive(fleet)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "live-MB")
	b.ReportMetric(float64(after.Sys)/1e6, "process-MB")
}
