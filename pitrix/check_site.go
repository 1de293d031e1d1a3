package pitrix

import (
	"fmt"
	"net/netip"
	"slices"
)

// CheckSite holds the settings of VMs against what the firstbox's variables and
// the physical hosts say; what site does not know is not checked. It completes
// CheckFleet, which is not part of it:
//
//	R2   the route of a proxy leads to mgmt_network via vg_mgmt_network_gateway
//	R3   the route of a proxy or dnsmaster leads to vm_base_network, with VG
//	     nodes via vg_mgmt_network_gateway
//	R6   the bridges are there on the physical host
//	R10  is_region and zone_id are those of the variables; the release has a
//	     base image and repositories
func CheckSite(fleet Fleet, site Site) []Problem {
	c := &checker{nodes: nodesOf(fleet)}
	vg := map[string]bool{}
	for _, n := range c.nodes {
		vg[n.zone] = vg[n.zone] || n.vg()
	}
	for _, n := range c.nodes {
		if region := n.get("is_region") == "1"; len(site.ZoneIDs) > 0 && region != site.Region {
			c.add(n, "R10", "is_region", "%q, but the firstbox's variable says otherwise; correct one of them", n.get("is_region"))
		}
		if len(site.ZoneIDs) > 0 && !slices.Contains(site.ZoneIDs, n.zone) {
			c.add(n, "R10", "zone_id", "%q is not among the firstbox's zone_ids (%s); correct one of them", n.zone, list(site.ZoneIDs))
		}
		if !n.vm {
			continue
		}
		if v := n.get("os_version"); len(site.Releases) > 0 && !slices.Contains(site.Releases, v) {
			c.add(n, "R10", "os_version", "%q has no base image and repositories on the firstbox (it has %s); prepare them first", v, list(site.Releases))
		}
		if bridges, known := site.Bridges[n.get("physical_host")]; known {
			for _, key := range []string{"physical_host_network_interface", "physical_host_eip_network_interface"} {
				if b := n.get(key); b != "" && !slices.Contains(bridges, b) {
					c.add(n, "R6", key, "%s is no bridge of %s (it has %s); name one of them", b, n.get("physical_host"), list(bridges))
				}
			}
		}
		if zone, known := site.Zones[n.zone]; known {
			c.siteRoutes(n, zone, vg[n.zone])
		}
	}
	sortProblems(c.problems)
	return c.problems
}

func (c *checker) siteRoutes(n *node, zone ZoneSite, vg bool) {
	via := zone.VGManagementGateway
	check := func(rule, key string, to netip.Prefix, needVia bool) {
		value := n.get(key)
		if value == "" { // CheckFleet says where one is needed
			return
		}
		words := ruleWords(value)
		if to.IsValid() && !slices.Contains(words, to.String()) {
			c.add(n, rule, key, "it does not lead to %s, which the variables name; write %s", to, routeText(to, key))
		}
		if got := argument(value, "via"); needVia && via.IsValid() && got != via.String() {
			c.add(n, rule, key, "via %q is not vg_mgmt_network_gateway %s; write that", got, via)
		}
	}
	if n.is("proxy") && vg {
		check("R2", "mgmt_network_routing_rule", zone.ManagementNetwork, true)
	}
	if n.is("proxy") || n.is("dnsmaster") {
		check("R3", "vm_network_routing_rule", zone.VMBaseNetwork, vg)
	}
}

func routeText(to netip.Prefix, key string) string {
	if key == "vm_network_routing_rule" {
		return fmt.Sprintf("ip route add %s src <mgmt_network_address> via <gateway>", to)
	}
	return fmt.Sprintf("ip route add %s via <vg_mgmt_network_gateway>", to)
}
