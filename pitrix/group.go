package pitrix

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Groups are the node lists of a firstbox, /pitrix/conf/nodes: what a kind, as
// "proxy" or "vm", or in region mode "ZONE-KIND" too, stands for in the
// installer's commands. The nodes of each are hostnames in ascending order.
type Groups map[string][]string

// kinds are the lists that the installer's script makes. Kinds without a
// function hold the nodes whose role contains the kind's name, wherever in it.
var kinds = []kind{
	{"all", func(*node, Site) bool { return true }},
	{"phy", func(n *node, _ Site) bool { return !n.vm }},
	{"vm", func(n *node, _ Site) bool { return n.vm }},
	{"ks", func(n *node, _ Site) bool { return n.ks() }}, // VMs too
	{"ks-phy", func(n *node, _ Site) bool { return n.ks() && !n.vm }},
	// Not the VMs: the physical nodes without IPMI, and with it.
	{"ks-vm", func(n *node, _ Site) bool { return n.ks() && !n.vm && n.get("bm_ipmi_network_interface") == "" }},
	{"ks-bm", func(n *node, _ Site) bool { return n.ks() && !n.vm && n.get("bm_ipmi_network_interface") != "" }},
	{"vg", func(n *node, _ Site) bool { return n.vg() }},
	{"vgateway", nil},
	{"hyper", func(n *node, _ Site) bool { return n.hyper() }},
	{"hyper-local", func(n *node, _ Site) bool { return n.hyper() && n.get("container_mode") == "local" }},
	{"hyper-pair", func(n *node, _ Site) bool { return n.hyper() && n.get("container_mode") == "pair" }},
	{"hyper-repl", func(n *node, _ Site) bool { return n.hyper() && n.get("container_mode") == "repl" }},
	{"hyper-sanc", nil}, // by the role, unlike its sisters
	{"non-ks", func(n *node, _ Site) bool { return !n.ks() }},
	{"non-vg", func(n *node, _ Site) bool { return !n.vg() }},
	{"non-vg-phy", func(n *node, _ Site) bool { return !n.vg() && !n.vm }},
	{"non-hyper", func(n *node, _ Site) bool { return !n.hyper() }},
	{"non-hyper-phy", func(n *node, _ Site) bool { return !n.hyper() && !n.vm }},
	{"seed", nil}, {"vbr", nil}, {"snapshot", nil}, {"proxy", nil}, {"dnsmaster", nil}, {"webservice", nil},
	{"zookeeper", nil}, {"zoocassa", nil}, {"pgpool", nil}, {"pgmaster", nil}, {"pgalone", nil}, {"pgslave", nil},
	{"pgserver", func(n *node, _ Site) bool {
		return strings.Contains(n.role, "pgserver") || strings.Contains(n.role, "pgmaster") || strings.Contains(n.role, "pgslave")
	}},
	{"bm", nil},
	{"ntp", func(n *node, site Site) bool { return slices.Contains(site.NTP, n.get("mgmt_network_address")) }},
	{"non-ntp", func(n *node, site Site) bool { return !slices.Contains(site.NTP, n.get("mgmt_network_address")) }},
	{"dns", func(n *node, _ Site) bool {
		return strings.Contains(n.role, "dnsmaster") || strings.Contains(n.role, "dnsslave")
	}},
	{"vdi", nil}, {"eipctl", nil}, {"boss", nil},
}

// youngKinds are lists that only documents of 4.3 and later name.
var youngKinds = []kind{{"influxdb", nil}, {"rsserver", nil}}

type kind struct {
	name string
	has  func(*node, Site) bool
}

func (n *node) hyper() bool { return n.get("feature_hypernode") == "on" }
func (n *node) ks() bool    { return !n.hyper() && !n.vg() }

// GroupsOf returns the lists that the installer's gen_node_list would write
// from the fleet: the rules are those of the script of 4.2; that of 4.3 and
// later is not public and is taken to have the same and a few kinds more. Of
// site it needs Version, NTP and, in region mode, Region and ZoneIDs.
//
// The lists hold hostnames, and every command looks for a settings file named
// so; a hostname that differs from its file's name is an error here.
func GroupsOf(fleet Fleet, site Site) (Groups, error) {
	if site.Region && len(site.ZoneIDs) == 0 {
		return nil, errors.New("cannot make the node lists of a region without its zones; give the firstbox's zone_ids")
	}
	all := kinds
	if site.Version.Python() {
		all = slices.Concat(kinds, youngKinds)
	}
	groups := Groups{}
	for _, k := range all {
		groups[k.name] = nil
		if site.Region {
			for _, zone := range site.ZoneIDs {
				groups[zone+"-"+k.name] = nil
			}
		}
	}
	var problems Problems
	for _, n := range nodesOf(fleet) {
		hostname := n.get("hostname")
		if hostname != n.name {
			p := n.problem("hostname")
			p.Rule, p.Text = "R10", fmt.Sprintf("%q in the file %s would stand in the node lists, and commands on them end with \"invalid\"; make them equal, and move copies out of the directory", hostname, n.name)
			problems = append(problems, p)
			continue
		}
		zone := n.zone
		if site.Region && zone == "" {
			if i := slices.IndexFunc(site.ZoneIDs, func(z string) bool { return strings.HasPrefix(hostname, z) }); i >= 0 {
				zone = site.ZoneIDs[i]
			}
		}
		inZone := site.Region && slices.Contains(site.ZoneIDs, zone)
		for _, k := range all {
			has := k.has != nil && k.has(n, site) || k.has == nil && strings.Contains(n.role, k.name)
			if !has {
				continue
			}
			groups[k.name] = append(groups[k.name], hostname)
			if inZone {
				groups[zone+"-"+k.name] = append(groups[zone+"-"+k.name], hostname)
			}
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return groups, nil // in the order of nodesOf
}

var groupLine = regexp.MustCompile(`^nodes=\(([^()"'$` + "`" + `\\;&|<>]*)\);?$`)

// ParseGroupFile reads one list, nodes=( a b );, as the script writes it. The
// order is that of the file.
func ParseGroupFile(name string, src []byte) ([]string, error) {
	m := groupLine.FindStringSubmatch(strings.TrimSpace(string(src)))
	if m == nil {
		return nil, fmt.Errorf("%s is no node list: it has to be the one line nodes=( NAME … );; make the lists anew with gen_node_list", name)
	}
	nodes := strings.Fields(m[1])
	for _, n := range nodes {
		if !validNode(n) {
			return nil, fmt.Errorf("%s lists %q, which is no host name; make the lists anew with gen_node_list", name, n)
		}
	}
	return nodes, nil
}

// Diff returns how the lists that were read from the firstbox differ from
// these, one line a list, in the order of their names; nil without differences.
// Lists go stale when settings change and gen_node_list is not run. Lists that
// only one side has are reported only when they are not empty.
func (g Groups) Diff(read Groups) []string {
	names := slices.Collect(maps.Keys(g))
	for name := range read {
		if _, ok := g[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		// The script's order is that of file names in its locale.
		want, have := slices.Sorted(slices.Values(g[name])), slices.Sorted(slices.Values(read[name]))
		want, have = slices.Compact(want), slices.Compact(have)
		if !slices.Equal(want, have) {
			out = append(out, fmt.Sprintf("%s: the firstbox lists %s, the settings make it %s", name, list(have), list(want)))
		}
	}
	return out
}

// list shows names, a long list by its first ones.
func list(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "nothing"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
