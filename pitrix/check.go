package pitrix

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// CheckFleet holds all settings files of a firstbox, by file name, against the
// rules that need nothing else. The problems come in the order of file names
// and positions; nil means that there are none.
//
//	R1   mgmt_network_gateway: set without VG nodes; with them empty on a proxy
//	     and the host's address on a dnsmaster
//	R2   mgmt_network_routing_rule of a proxy: empty without VG nodes and when
//	     they share the /24 of the KS nodes, else a route
//	R3   vm_network_routing_rule: from the own address, via the gateway, whole
//	R4   the Eip section of a proxy: none without VG nodes, whole with them
//	R5   physical_host of a proxy or dnsmaster: a VG node, where there are any
//	R6   a VM has a management bridge, and an EIP bridge just when it has an EIP
//	R8   a VM with the netmask 255.255.255.255 has its host as gateway, no such
//	     node has a hyper_vip_address, and no other host than its own has its
//	     ks_vm_routing_rule
//	R9   VMs of one role in one zone have different hosts; pgpool, pgserver and
//	     zoocassa are all physical or all VMs
//	R10  hostname = file name, in region mode with the zone before it; management
//	     addresses, EIPs and MACs are valid and unique; physical_host is a
//	     physical node; one firstbox_address; os_version and os_name agree;
//	     netmasks are some, gateways of VMs are in their network, name servers
//	     are addresses, sizes are numbers
//
// R7, that a temporary address is unused, needs CheckRebuild and the network;
// what needs the firstbox's variables or the hosts is CheckSite's. VG nodes are those
// whose role contains vgateway, of the same zone_id, as the installer's scripts
// see it; VMs are those with a physical_host_network_interface. A missing key
// is an empty value.
func CheckFleet(fleet Fleet) []Problem {
	c := &checker{
		nodes: nodesOf(fleet), zones: map[string]*zone{}, physical: map[string]bool{},
		addresses: map[netip.Addr]string{}, macs: map[MAC]macUse{},
	}
	for name, s := range fleet {
		if s == nil {
			c.problems = append(c.problems, Problem{File: name, Line: 1, Col: 1, Rule: "R10", Text: "the file was not parsed; parse every file before the fleet is checked"})
		}
	}
	c.survey()
	for _, n := range c.nodes {
		c.identity(n)
		c.unique(n)
		c.system(n)
		c.routes(n)
		c.leaf(n)
		c.values(n)
		if n.vm {
			c.networks(n)
			c.machine(n)
			c.gateway(n)
			c.eip(n)
		} else if n.get("physical_host") != "" {
			c.add(n, "R6", "physical_host_network_interface", "empty, so the scripts take the node for a physical one although it has a physical_host; name the host's management bridge, normally br0")
		}
	}
	c.pairs()
	c.leafRoutes(fleet)
	sortProblems(c.problems)
	return c.problems
}

// zone is what the rules need to know of all nodes with one zone_id.
type zone struct {
	vgHosts  map[string]bool       // management addresses of physical VG nodes
	hasVG    bool                  // there are VG nodes
	vgNets   map[netip.Prefix]bool // their /24 networks
	ksNets   map[netip.Prefix]bool // those of physical KS nodes
	firstVG  string                // a name for messages
	vgUnread bool                  // an address could not be read
}

type macUse struct {
	n     *node
	place string
}

type checker struct {
	nodes     []*node
	zones     map[string]*zone
	physical  map[string]bool       // management addresses of physical nodes
	addresses map[netip.Addr]string // where an address is used
	macs      map[MAC]macUse
	firstbox  string // what most files say
	problems  []Problem
}

func (c *checker) add(n *node, rule, key, format string, args ...any) {
	p := n.problem(key)
	p.Rule, p.Text = rule, fmt.Sprintf(format, args...)
	c.problems = append(c.problems, p)
}

// survey collects what the rules about single nodes need of the others.
func (c *checker) survey() {
	firstboxes := map[string]int{}
	for _, n := range c.nodes {
		z := c.zones[n.zone]
		if z == nil {
			z = &zone{vgHosts: map[string]bool{}, vgNets: map[netip.Prefix]bool{}, ksNets: map[netip.Prefix]bool{}}
			c.zones[n.zone] = z
		}
		if n.vg() && !z.hasVG {
			z.hasVG, z.firstVG = true, n.name
		}
		if f := n.get("firstbox_address"); f != "" {
			firstboxes[f]++
		}
		if n.vm {
			continue
		}
		text := n.get("mgmt_network_address")
		addr, err := ipv4(text)
		if err != nil {
			z.vgUnread = z.vgUnread || n.vg()
			continue
		}
		c.physical[text] = true
		net := netip.PrefixFrom(addr, 24).Masked()
		switch {
		case n.vg():
			z.vgHosts[text] = true
			z.vgNets[net] = true
		case n.get("feature_hypernode") != "on":
			z.ksNets[net] = true
		}
	}
	for _, f := range slices.Sorted(maps.Keys(firstboxes)) {
		if firstboxes[f] > firstboxes[c.firstbox] {
			c.firstbox = f
		}
	}
}

// identity checks the name, the region and the firstbox (R10).
func (c *checker) identity(n *node) {
	hostname := n.get("hostname")
	switch {
	case hostname != n.name:
		c.add(n, "R10", "hostname", "%q in the file %s: node lists hold hostnames, and every command on a list with this one ends with \"invalid\"; make them equal, and move copies of settings files out of the directory", hostname, n.name)
	case !validNode(n.name):
		c.add(n, "R10", "hostname", "%q is not a host name of letters, digits and -; rename the node and its file", n.name)
	}
	prefix := n.zone + "-"
	switch region := n.get("is_region"); region {
	case "1":
		if n.zone == "" {
			c.add(n, "R10", "zone_id", "empty; names of nodes start with it in region mode")
		} else if n.vm && !strings.HasPrefix(n.name, prefix) {
			c.add(n, "R10", "hostname", "in region mode (is_region=\"1\") it starts with the zone: %s%s", prefix, n.name)
		}
		if n.get("region_id") == "" {
			c.add(n, "R10", "region_id", "empty although is_region is \"1\"; name the region")
		}
	case "", "0":
		if n.vm && n.zone != "" && strings.HasPrefix(n.name, prefix) {
			c.add(n, "R10", "hostname", "it starts with the zone %s, which is the form of region mode, but is_region is not \"1\"; correct one of them", n.zone)
		}
		if n.get("region_id") != "" {
			c.add(n, "R10", "region_id", "set although is_region is not \"1\"; empty it or correct is_region")
		}
	default:
		c.add(n, "R10", "is_region", "%q; it is \"0\" or \"1\"", region)
	}
	switch f := n.get("firstbox_address"); {
	case f != c.firstbox:
		c.add(n, "R10", "firstbox_address", "%q, but most files say %q; there is one firstbox", f, c.firstbox)
	case f == "":
		c.add(n, "R10", "firstbox_address", "empty; write the firstbox's management address")
	default:
		if _, err := ipv4(f); err != nil {
			c.add(n, "R10", "firstbox_address", "%q is not an IPv4 address; write the firstbox's management address", f)
		}
	}
}

// unique checks addresses and MACs, within a file and between files (R10).
func (c *checker) unique(n *node) {
	for _, key := range []string{"mgmt_network_address", "eip_network_address"} {
		text := n.get(key)
		if text == "" {
			if key == "mgmt_network_address" {
				c.add(n, "R10", key, "empty; the scripts reach the node by it")
			}
			continue
		}
		a, err := ipv4(text)
		if err != nil {
			c.add(n, "R10", key, "%q is not an IPv4 address; write it as in 192.0.2.61", text)
			continue
		}
		if first, used := c.addresses[a]; used {
			c.add(n, "R10", key, "%s is the address of another interface too, %s; give one of them another address", a, first)
			continue
		}
		c.addresses[a] = n.place(key)
	}
	for _, e := range n.s.now.entries {
		if !macKey(e.key) || e.value == "" {
			continue
		}
		m, err := ParseMAC(e.value)
		if err != nil {
			c.add(n, "R10", e.key, "%v", err)
			continue
		}
		if reason := m.unusable(); reason != "" {
			c.add(n, "R10", e.key, "%s cannot be an interface's address: %s; generate another one", m, reason)
			continue
		}
		first, used := c.macs[m]
		// Bridge and port of a physical node may name one card twice.
		if used && (first.n != n || n.vm) {
			c.add(n, "R10", e.key, "%s is the MAC of another interface too, %s; generate another one", m, first.place)
		}
		if !used {
			c.macs[m] = macUse{n, n.place(e.key)}
		}
	}
}

// system checks the release (R10): update.sh knows three, and calls apt without
// options for any other, so that apt asks and the script hangs.
func (c *checker) system(n *node) {
	version, name := n.get("os_version"), n.get("os_name")
	want := ""
	for release, codename := range map[string]string{"12.04": "precise", "14.04": "trusty", "16.04": "xenial"} {
		if tail, ok := strings.CutPrefix(version, release); ok && (tail == "" || tail[0] == '.' || tail[0] == '-') {
			want = codename
		}
	}
	switch {
	case want == "":
		c.add(n, "R10", "os_version", "%q; the scripts know 12.04, 14.04 and 16.04 with their point releases, as in 16.04.5", version)
	case name != want:
		c.add(n, "R10", "os_name", "%q does not belong to os_version %s; write %q", name, version, want)
	}
}

// routes checks what ends in rc.local.tail (R2, R3): ip takes a route with a
// word missing for an error, and the node boots without it.
func (c *checker) routes(n *node) {
	for _, e := range n.s.now.entries {
		if !strings.Contains(e.key, "_routing_rule") || e.value == "" {
			continue
		}
		rule := "R2"
		if strings.HasPrefix(e.key, "vm_") || strings.HasPrefix(e.key, "ks_vm_") {
			rule = "R3"
		}
		words := ruleWords(e.value)
		for i, word := range words {
			if word != "src" && word != "via" {
				continue
			}
			arg := ""
			if i+1 < len(words) {
				arg = words[i+1]
			}
			if _, err := ipv4(arg); err != nil {
				c.add(n, rule, e.key, "%q is followed by %q instead of an address; complete the command", word, arg)
			} else if own := n.get("mgmt_network_address"); n.vm && e.key == "vm_network_routing_rule" && word == "src" && arg != own {
				c.add(n, rule, e.key, "src %s is not the node's own mgmt_network_address %s, so the route would fail at boot; write the own one", arg, own)
			}
		}
	}
}

func ruleWords(command string) []string {
	return strings.FieldsFunc(command, func(r rune) bool { return r == ' ' || r == '\t' || r == ';' })
}

// argument returns the word behind word, or nothing.
func argument(command, word string) string {
	words := ruleWords(command)
	if i := slices.Index(words, word); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// machine checks the host of a VM (R5, R6, R10).
func (c *checker) machine(n *node) {
	host := n.get("physical_host")
	z := c.zones[n.zone]
	switch {
	case host == "":
		c.add(n, "R10", "physical_host", "empty, but the node is a VM; write the management address of its host")
	case !c.physical[host]:
		c.add(n, "R10", "physical_host", "%q is the mgmt_network_address of no physical node; write that of the host", host)
	case len(z.vgHosts) > 0 && !z.vgUnread && !z.vgHosts[host] && (n.is("proxy") || n.is("dnsmaster")):
		c.add(n, "R5", "physical_host", "%s is no VG node, but the zone has some (%s); choose one of them", host, z.firstVG)
	}
	if n.get("mgmt_network_mac_address") == "" {
		c.add(n, "R10", "mgmt_network_mac_address", "empty, and then every VM gets the same one from qemu; generate one")
	}
}

const hostMask = "255.255.255.255" // of a spine-leaf network

// gateway checks R1, the rest of R2 and R3, and R8 of a VM.
func (c *checker) gateway(n *node) {
	z, gateway := c.zones[n.zone], n.get("mgmt_network_gateway")
	if gateway != "" {
		if _, err := ipv4(gateway); err != nil {
			c.add(n, "R1", "mgmt_network_gateway", "%q is not an IPv4 address", gateway)
			return
		}
	}
	proxy, dnsmaster := n.is("proxy"), n.is("dnsmaster")
	switch host := n.get("physical_host"); {
	case n.get("mgmt_network_netmask") == hostMask:
		if gateway != host {
			c.add(n, "R8", "mgmt_network_gateway", "%q; with the netmask %s it is the physical host, %s", gateway, hostMask, host)
		}
	case !z.hasVG && gateway == "" && (proxy || dnsmaster || n.is("webservice")):
		c.add(n, "R1", "mgmt_network_gateway", "empty, but the zone has no VG node to route instead; write the network's gateway")
	case z.hasVG && proxy && gateway != "":
		c.add(n, "R1", "mgmt_network_gateway", "%s; on a proxy it is empty where there are VG nodes (%s)", gateway, z.firstVG)
	case z.hasVG && dnsmaster && gateway != host:
		c.add(n, "R1", "mgmt_network_gateway", "%q; on a dnsmaster it is the VG node that carries it, %s", gateway, host)
	}

	if proxy {
		c.proxyRoutes(n, z)
	}
	if via := argument(n.get("vm_network_routing_rule"), "via"); (proxy || dnsmaster) && !z.hasVG && gateway != "" && via != "" && via != gateway {
		c.add(n, "R3", "vm_network_routing_rule", "via %s is not mgmt_network_gateway %s, and the zone has no VG node; write the gateway", via, gateway)
	}
}

// proxyRoutes checks the routing rules of a proxy that is a VM.
func (c *checker) proxyRoutes(n *node, z *zone) {
	mgmt := n.get("mgmt_network_routing_rule")
	switch {
	case !z.hasVG && mgmt != "":
		c.add(n, "R2", "mgmt_network_routing_rule", "set, but the zone has no VG node; empty it")
	case z.hasVG && !z.vgUnread && len(z.vgNets) == 1 && maps.Equal(z.vgNets, z.ksNets) && mgmt != "":
		c.add(n, "R2", "mgmt_network_routing_rule", "set, but VG and KS nodes share one /24; empty it")
	case z.hasVG && !z.vgUnread && len(z.vgNets) > 0 && len(z.ksNets) > 0 && disjoint(z.vgNets, z.ksNets) && mgmt == "":
		c.add(n, "R2", "mgmt_network_routing_rule", "empty, but VG and KS nodes are in different /24 networks; write ip route add <mgmt_network> via <vg_mgmt_network_gateway>")
	}
	switch vm := n.get("vm_network_routing_rule"); {
	case vm == "":
		c.add(n, "R3", "vm_network_routing_rule", "empty; write ip route add <vm_base_network> src <mgmt_network_address> via <gateway>")
	case !slices.Contains(ruleWords(vm), "src") || !slices.Contains(ruleWords(vm), "via"):
		c.add(n, "R3", "vm_network_routing_rule", "not whole; write ip route add <vm_base_network> src <mgmt_network_address> via <gateway>")
	}
}

func disjoint(a, b map[netip.Prefix]bool) bool {
	for p := range a {
		if b[p] {
			return false
		}
	}
	return true
}

// eip checks the section of the outer address (R4, R6).
func (c *checker) eip(n *node) {
	z, address, bridge := c.zones[n.zone], n.get("eip_network_address"), n.get("physical_host_eip_network_interface")
	if n.is("proxy") {
		switch {
		case !z.hasVG && address != "":
			c.add(n, "R4", "eip_network_address", "set, but the zone has no VG node; drop the Eip section")
		case z.hasVG && address == "":
			c.add(n, "R4", "eip_network_address", "empty, but the zone has VG nodes (%s); until the switch an unused dummy such as 2.2.2.2 does", z.firstVG)
		}
	}
	if address == "" {
		if bridge != "" {
			c.add(n, "R6", "physical_host_eip_network_interface", "set on a node without eip_network_address; empty it")
		}
		return
	}
	if bridge == "" {
		c.add(n, "R6", "physical_host_eip_network_interface", "empty on a node with an EIP; name the host's bridge, normally br1")
	}
	for _, key := range []string{"eip_network_interface", "eip_network_netmask", "eip_network_mac_address"} {
		if n.get(key) == "" {
			c.add(n, "R4", key, "empty on a node with an EIP")
		}
	}
	if i := n.get("eip_network_interface"); i != "" && i == n.get("mgmt_network_interface") {
		c.add(n, "R4", "eip_network_interface", "%s is the management interface too; name the other one, normally eth1", i)
	}
}
