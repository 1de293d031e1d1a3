package pitrix

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// values checks values that are of one form everywhere (R10).
func (c *checker) values(n *node) {
	for _, e := range n.s.now.entries {
		switch {
		case e.value == "":
		case strings.HasSuffix(e.key, "_netmask"):
			if _, err := netmask(e.value); err != nil {
				c.add(n, "R10", e.key, "%q is not a netmask; write it as in 255.255.255.0", e.value)
			}
		case strings.HasSuffix(e.key, "_dns_servers"):
			for _, word := range strings.Fields(e.value) {
				if _, err := netip.ParseAddr(word); err != nil {
					c.add(n, "R10", e.key, "%q is not an address; write the name servers' addresses with blanks between them", word)
				}
			}
		case e.key == "cpu_cores" || e.key == "memory_size":
			if v, err := strconv.ParseUint(e.value, 10, 32); err != nil || v == 0 || e.value[0] == '0' {
				c.add(n, "R10", e.key, "%q is not a number; write it without a unit (memory in MiB)", e.value)
			}
		case strings.HasPrefix(e.key, "feature_"):
			if e.value != "on" && e.value != "off" {
				c.add(n, "R10", e.key, "%q; it is \"on\" or \"off\", and the scripts take everything else for off", e.value)
			}
		}
	}
}

// netmask returns the number of leading ones.
func netmask(s string) (int, error) {
	a, err := ipv4(s)
	if err != nil {
		return 0, err
	}
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	ones := bits.LeadingZeros32(^v)
	if v != 0 && bits.OnesCount32(v) != ones || v == 0 {
		return 0, fmt.Errorf("%s is not a netmask", s)
	}
	return ones, nil
}

// network returns the prefix of the section's address, if the file has both.
func (n *node) network(section string) (netip.Prefix, bool) {
	a, err := ipv4(n.get(section + "_network_address"))
	if err != nil {
		return netip.Prefix{}, false
	}
	ones, err := netmask(n.get(section + "_network_netmask"))
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones).Masked(), true
}

// networks checks that what a VM sends its packets to can be reached (R1, R3,
// R4): otherwise the route is refused at boot.
func (c *checker) networks(n *node) {
	mgmt, haveMgmt := n.network("mgmt")
	eip, haveEIP := n.network("eip")
	reached := func(a netip.Addr) bool {
		return haveMgmt && mgmt.Contains(a) || haveEIP && eip.Contains(a)
	}
	if haveMgmt && mgmt.Bits() == 32 {
		return // the host answers for everybody
	}
	if g, err := ipv4(n.get("mgmt_network_gateway")); err == nil && haveMgmt && !mgmt.Contains(g) {
		c.add(n, "R1", "mgmt_network_gateway", "%s is not in the node's network %s; correct it or the netmask", g, mgmt)
	}
	if g, err := ipv4(n.get("eip_network_gateway")); err == nil && haveEIP && !eip.Contains(g) {
		c.add(n, "R4", "eip_network_gateway", "%s is not in the outer network %s; correct it or the netmask", g, eip)
	}
	for _, key := range []string{"mgmt_network_routing_rule", "vm_network_routing_rule"} {
		rule := "R2"
		if key == "vm_network_routing_rule" {
			rule = "R3"
		}
		if via, err := ipv4(argument(n.get(key), "via")); err == nil && haveMgmt && !reached(via) {
			c.add(n, rule, key, "via %s is in no network of the node (%s), so the route would be refused at boot; name a gateway that is", via, mgmt)
		}
	}
}

// leaf checks what is known of nodes in a spine-leaf network (R8).
func (c *checker) leaf(n *node) {
	if n.get("mgmt_network_netmask") == hostMask && n.get("hyper_vip_address") != "" {
		c.add(n, "R8", "hyper_vip_address", "set on a node of a spine-leaf network (netmask %s); empty it", hostMask)
	}
}

const leafKey = "ks_vm_routing_rule_"

// leafNames returns the VMs by what stands behind leafKey: ZONE_VM.
func leafNames(fleet Fleet) map[string]*node {
	vms := map[string]*node{}
	for _, n := range nodesOf(fleet) {
		if n.vm {
			vms[leafName(n.zone+"_"+strings.TrimPrefix(n.name, n.zone+"-"))] = n
		}
	}
	return vms
}

func leafName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// leafVM returns the VM that a host's route key is about, or nothing.
func leafVM(key string, fleet Fleet) string {
	name, ok := strings.CutPrefix(key, leafKey)
	if !ok {
		return ""
	}
	if vm := leafNames(fleet)[leafName(name)]; vm != nil {
		return vm.name
	}
	return ""
}

// leafRoutes checks the routes that hosts of a spine-leaf network have to their
// VMs (R8): left on the old host after a move, the VM cannot be reached.
func (c *checker) leafRoutes(fleet Fleet) {
	vms := leafNames(fleet)
	for _, host := range c.nodes {
		for _, e := range host.s.now.entries {
			name, ok := strings.CutPrefix(e.key, leafKey)
			vm := vms[leafName(name)]
			if !ok || vm == nil || e.value == "" {
				continue
			}
			switch own := vm.get("mgmt_network_address"); {
			case host.get("mgmt_network_address") != vm.get("physical_host"):
				c.add(host, "R8", e.key, "the route to %s, whose physical_host is %s; move the line to that host's file", vm.name, vm.get("physical_host"))
			default:
				if at, _ := findAddress(e.value, own); own != "" && len(at) == 0 {
					c.add(host, "R8", e.key, "it does not lead to %s, %s/32; write ip route replace %s/32 dev %s", vm.name, own, own, vm.get("physical_host_network_interface"))
				}
			}
		}
	}
}

// pairs checks nodes of one role in one zone against each other (R9).
func (c *checker) pairs() {
	type group struct{ zone, role string }
	type standing struct{ zone, role, host string }
	vms := map[standing]string{}
	kinds := map[group]*node{}
	for _, n := range c.nodes {
		g := group{n.zone, n.role}
		if n.is("pgpool") || n.is("pgserver") || n.is("zoocassa") {
			if first := kinds[g]; first == nil {
				kinds[g] = n
			} else if first.vm != n.vm {
				c.add(n, "R9", "role", "%s: one of %s and %s is a VM and the other a physical node; both have to be of one kind", n.role, first.name, n.name)
			}
		}
		host := n.get("physical_host")
		if !n.vm || n.role == "" || host == "" {
			continue
		}
		at := standing{n.zone, n.role, host}
		if first, ok := vms[at]; ok {
			c.add(n, "R9", "physical_host", "%s carries %s of the same role too, and both would be lost with it; choose another host", host, first)
			continue
		}
		vms[at] = n.name
	}
}
