package pitrix_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

func groups(t testing.TB, f pitrix.Fleet, site pitrix.Site) pitrix.Groups {
	t.Helper()
	g, err := pitrix.GroupsOf(f, site)
	require.NoError(t, err)
	return g
}

// A fleet with a node for each rule of the script.
func kindsFleet(t testing.TB) pitrix.Fleet {
	f := flat(t)
	host(t, f, "hyper1", "hyper", "192.0.2.131", "feature_hypernode", "on", "container_mode", "pair")
	host(t, f, "hyper2", "hyper-sanc", "192.0.2.132", "feature_hypernode", "on", "container_mode", "sanc")
	host(t, f, "hyper3", "hyper", "192.0.2.133", "feature_hypernode", "on", "container_mode", "sanc")
	host(t, f, "vg1", "vgateway", "192.0.2.134")
	host(t, f, "stores", "seed,vbr,snapshot", "192.0.2.135", "bm_ipmi_network_interface", "eth2")
	host(t, f, "bm0", "swctl", "192.0.2.136")
	host(t, f, "dns1", "dnsslave", "192.0.2.137")
	return f
}

// The names of the lists promise something else than they hold.
func TestTrapGroupOddities(t *testing.T) {
	g := groups(t, kindsFleet(t), pitrix.Site{NTP: []string{"192.0.2.101"}})
	for name, want := range map[string]string{
		"vm":          "pgserver0 pgserver1 proxy0 proxy1 webservice0",
		"ks":          "bm0 dns1 lab1ar01n01 lab1ar01n02 pgserver0 pgserver1 proxy0 proxy1 stores webservice0", // VMs too
		"ks-vm":       "bm0 dns1 lab1ar01n01 lab1ar01n02",                                                      // no VMs
		"ks-bm":       "stores",
		"ks-phy":      "bm0 dns1 lab1ar01n01 lab1ar01n02 stores",
		"hyper":       "hyper1 hyper2 hyper3",
		"hyper-pair":  "hyper1",
		"hyper-sanc":  "hyper2", // by the role, not by container_mode
		"hyper-local": "",
		"vg":          "vg1",
		"vgateway":    "vg1",
		"non-ks":      "hyper1 hyper2 hyper3 vg1",
		"non-vg-phy":  "bm0 dns1 hyper1 hyper2 hyper3 lab1ar01n01 lab1ar01n02 stores",
		"seed":        "stores",
		"snapshot":    "stores",
		"dns":         "dns1",
		"dnsmaster":   "",
		"pgserver":    "pgserver0 pgserver1",
		"ntp":         "lab1ar01n01",
		"proxy":       "proxy0 proxy1",
	} {
		got, ok := g[name]
		assert.True(t, ok, name)
		assert.Equal(t, want, strings.Join(got, " "), name)
	}
	assert.Len(t, g["all"], 14)
	assert.Len(t, g["non-ntp"], 13)
	assert.Len(t, g["non-hyper"], 11)
	assert.Len(t, g["non-hyper-phy"], 6)
	assert.Len(t, g["non-vg"], 13)
	assert.Len(t, g["phy"], 9)
	assert.Len(t, g, 39)
	// Documents of 4.3 know more.
	assert.Len(t, groups(t, kindsFleet(t), pitrix.Site{Version: pitrix.Version{Major: 4, Minor: 3}}), 41)

	// A role that merely contains the word is in the list; a scope of it is refused.
	f := flat(t)
	change(t, f["webservice0"], "role", "reverseproxy")
	g = groups(t, f, pitrix.Site{})
	assert.Contains(t, g["proxy"], "webservice0")
	_, err := g.Allow(f, "proxy", pitrix.Allow{Role: "proxy"})
	var scope *pitrix.ScopeError
	require.ErrorAs(t, err, &scope)
	assert.Equal(t, []string{"webservice0"}, scope.Outside)
}

// bm0 and bm1 at the border of VPCs have the role swctl.
func TestTrapSwctlIsNotBM(t *testing.T) {
	g := groups(t, kindsFleet(t), pitrix.Site{})
	assert.Empty(t, g["bm"])
	assert.Contains(t, g["ks"], "bm0")
}

func TestTrapHostnameInNodeList(t *testing.T) {
	f := flat(t)
	change(t, f["proxy0"], "hostname", "proxy00")
	_, err := pitrix.GroupsOf(f, pitrix.Site{})
	var problems pitrix.Problems
	require.ErrorAs(t, err, &problems)
	require.Len(t, problems, 1)
	assert.Regexp(t, `^proxy0:\d+:\d+: hostname: "proxy00" in the file proxy0 .*"invalid"`, problems[0].String())
}

func TestTrapBackupInsideSettings(t *testing.T) {
	f := flat(t)
	f["proxy0.bak"] = f["proxy0"].Clone()
	_, err := pitrix.GroupsOf(f, pitrix.Site{})
	assert.ErrorContains(t, err, "move copies out of the directory")
	var at []string
	for _, p := range pitrix.CheckFleet(f) {
		at = append(at, p.Key+" "+p.Rule)
	}
	assert.Subset(t, at, []string{"hostname R10", "mgmt_network_address R10", "mgmt_network_mac_address R10", "physical_host R9"})
}

func TestTrapRegionGroups(t *testing.T) {
	f := leaf(t)
	_, err := pitrix.GroupsOf(f, pitrix.Site{Region: true})
	assert.ErrorContains(t, err, "give the firstbox's zone_ids")
	site := pitrix.Site{Region: true, ZoneIDs: []string{"lab2a", "lab2b"}}
	g := groups(t, f, site)
	assert.Equal(t, []string{"lab2b-bm0"}, g["vm"])
	assert.Equal(t, []string{"lab2b-bm0"}, g["lab2b-vm"])
	assert.Empty(t, g["lab2a-vm"])
	assert.Contains(t, g, "lab2a-vm")
	assert.Equal(t, []string{"lab2ar01n01"}, g["lab2a-all"])
	assert.Len(t, g, 3*39)
	// Without a zone_id the name decides; a zone that nobody listed has no lists.
	change(t, f["lab2b-bm0"], "zone_id", "")
	assert.Equal(t, []string{"lab2b-bm0"}, groups(t, f, site)["lab2b-vm"])
	change(t, f["lab2b-bm0"], "zone_id", "lab2c")
	g = groups(t, f, site)
	assert.Empty(t, g["lab2b-vm"])
	assert.Equal(t, []string{"lab2b-bm0"}, g["vm"])
	assert.NotContains(t, groups(t, f, pitrix.Site{ZoneIDs: site.ZoneIDs}), "lab2b-vm")
}

func TestParseGroupFile(t *testing.T) {
	for src, want := range map[string][]string{
		"nodes=( a b );\n": {"a", "b"}, "nodes=(  );\n": nil, "nodes=(a b)": {"a", "b"}, "nodes=( lab2b-bm0 );": {"lab2b-bm0"},
	} {
		got, err := pitrix.ParseGroupFile("proxy", []byte(src))
		require.NoError(t, err)
		assert.ElementsMatch(t, want, got)
	}
	for _, src := range []string{"", "nodes=( $(x) );", "nodes=( a );reboot", "nodes=( a\n", "nodes=( a/b );", "reboot\nnodes=( a );"} {
		_, err := pitrix.ParseGroupFile("proxy", []byte(src))
		assert.ErrorContains(t, err, "gen_node_list", "%q", src)
	}
}

// Settings changed and nobody made the lists anew: what a command reaches is
// what the list said then.
func TestTrapStaleNodeList(t *testing.T) {
	f := flat(t)
	read := groups(t, f, pitrix.Site{})
	assert.Empty(t, groups(t, f, pitrix.Site{}).Diff(read))
	// The order is a matter of the firstbox's locale.
	shuffled := maps.Clone(read)
	shuffled["proxy"] = []string{"proxy1", "proxy0"}
	assert.Empty(t, read.Diff(shuffled))

	put(t, f, "proxy2", "mgmt_network_address", "192.0.2.63")
	read["own"] = []string{"x"}
	read["empty"] = nil
	diff := groups(t, f, pitrix.Site{}).Diff(read)
	assert.Contains(t, diff, "proxy: the firstbox lists proxy0, proxy1, the settings make it proxy0, proxy1, proxy2")
	assert.Contains(t, diff, "own: the firstbox lists x, the settings make it nothing")
	assert.True(t, slices.IsSorted(diff))
	assert.Len(t, diff, len([]string{"all", "vm", "ks", "non-hyper", "non-ntp", "non-vg", "proxy", "own"}))
}

func TestTrapGroupWinsOverNode(t *testing.T) {
	f := flat(t)
	host(t, f, "proxy", "TBD", "192.0.2.150")
	got, err := groups(t, f, pitrix.Site{}).Resolve(f, "proxy")
	require.NoError(t, err)
	assert.Equal(t, []string{"proxy0", "proxy1"}, got)
}

func TestTrapMixedScope(t *testing.T) {
	f := flat(t)
	g := groups(t, f, pitrix.Site{})
	for _, scope := range []string{"webservice0,proxy,proxy0", "proxy webservice", " ,proxy,, webservice0 ,proxy1,"} {
		got, err := g.Resolve(f, scope)
		require.NoError(t, err)
		assert.Equal(t, []string{"proxy0", "proxy1", "webservice0"}, got, scope)
	}
}

// One version of the command ends with success when a list is empty, and one
// takes the word firstbox for a node.
func TestTrapEmptyGroup(t *testing.T) {
	f := flat(t)
	g := groups(t, f, pitrix.Site{})
	for _, scope := range []string{"vdi", "", " , ", "vdi,boss"} {
		_, err := g.Resolve(f, scope)
		assert.ErrorContains(t, err, "no nodes", "%q", scope)
	}
	for _, scope := range []string{"firstbox", "proxy7", "proxy,proxy7", "../proxy0"} {
		_, err := g.Resolve(f, scope)
		assert.ErrorContains(t, err, "neither a group nor a settings file", "%q", scope)
	}
}

// The documents write proxy0/1 and mean one of the two.
func TestTrapProxySlash(t *testing.T) {
	f := flat(t)
	_, err := groups(t, f, pitrix.Site{}).Resolve(f, "proxy0/1")
	assert.ErrorContains(t, err, "means proxy0 or proxy1")
	change(t, f["proxy0"], "hostname", "proxy0/1")
	assert.Len(t, pitrix.CheckFleet(f), 1)
}

func TestAllow(t *testing.T) {
	f := flat(t)
	g := groups(t, f, pitrix.Site{})
	region := leaf(t)
	put(t, region, "lab2b-proxy0", "is_region", "1", "region_id", "lab2", "zone_id", "lab2b")
	put(t, region, "lab2a-proxy0", "is_region", "1", "region_id", "lab2", "zone_id", "lab2a")
	rg := groups(t, region, pitrix.Site{Region: true, ZoneIDs: []string{"lab2a", "lab2b"}})
	proxy := pitrix.Allow{Role: "proxy"}
	for _, tt := range []struct {
		region bool
		scope  string
		allow  pitrix.Allow
		want   string // nodes, or a part of the error behind "!"
	}{
		{false, "proxy", proxy, "proxy0 proxy1"},
		{false, "proxy0", proxy, "proxy0"},
		{false, "proxy1,proxy0", proxy, "proxy0 proxy1"},
		{false, "all", proxy, "!all nodes is never the scope"},
		{false, "proxy,all", proxy, "!all nodes is never the scope"},
		{false, "vm", proxy, "!the group vm is not that of the role"},
		{false, "webservice", proxy, "!the group webservice"},
		{false, "webservice0", proxy, "!outside the role proxy (webservice0)"},
		{false, "lab1ar01n01,proxy0", proxy, "!(lab1ar01n01)"},
		{false, "proxy", pitrix.Allow{Role: "proxy", Nodes: []string{"proxy0"}}, "!and the nodes proxy0 (proxy1)"},
		{false, "proxy0", pitrix.Allow{Role: "proxy", Nodes: []string{"proxy0"}}, "proxy0"},
		{false, "proxy0", pitrix.Allow{Role: "proxy", Nodes: []string{}}, "!(proxy0)"},
		{false, "proxy0", pitrix.Allow{Role: "proxy", Zone: "lab1a"}, "proxy0"},
		{false, "proxy0", pitrix.Allow{Role: "proxy", Zone: "lab1b"}, "!in the zone lab1b (proxy0)"},
		{false, "all", pitrix.Allow{Role: "proxy", KnownHosts: true}, "lab1ar01n01 lab1ar01n02 pgserver0 pgserver1 proxy0 proxy1 webservice0"},
		{false, "all,proxy0", pitrix.Allow{Role: "proxy", KnownHosts: true}, "!all nodes is never"},
		{false, "vm", pitrix.Allow{Role: "proxy", KnownHosts: true}, "!the group vm"},
		{false, "proxy", pitrix.Allow{}, "!not a role with a node list"},
		{false, "proxy", pitrix.Allow{Role: "nothing"}, "!not a role with a node list"},
		{false, "vdi", pitrix.Allow{Role: "vdi"}, "!no nodes"},
		{false, "proxy9", proxy, "!neither a group nor"},
		{false, "all", pitrix.Allow{Role: "all"}, "!outside"},
		{true, "proxy", proxy, "lab2a-proxy0 lab2b-proxy0"},
		{true, "proxy", pitrix.Allow{Role: "proxy", Zone: "lab2b"}, "!in the zone lab2b (lab2a-proxy0)"},
		{true, "lab2b-proxy", pitrix.Allow{Role: "proxy", Zone: "lab2b"}, "lab2b-proxy0"},
		{true, "lab2a-proxy", pitrix.Allow{Role: "proxy", Zone: "lab2b"}, "!the group lab2a-proxy is not that of the role"},
		{true, "lab2b-all", pitrix.Allow{Role: "proxy", Zone: "lab2b"}, "!the group lab2b-all"},
	} {
		fleet, all := pitrix.Fleet(f), g
		if tt.region {
			fleet, all = region, rg
		}
		got, err := all.Allow(fleet, tt.scope, tt.allow)
		if text, refused := strings.CutPrefix(tt.want, "!"); refused {
			var scope *pitrix.ScopeError
			require.ErrorAs(t, err, &scope, "%s %+v", tt.scope, tt.allow)
			assert.Contains(t, err.Error(), text)
			assert.Equal(t, tt.scope, scope.Scope)
			assert.Nil(t, got)
			continue
		}
		require.NoError(t, err, "%s %+v", tt.scope, tt.allow)
		assert.Equal(t, tt.want, strings.Join(got, " "))
	}
}
