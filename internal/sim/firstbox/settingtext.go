package firstbox

import "fmt"

// setting is the text of a VM's settings file at the beginning.
func (s *Site) settingText(n member) string {
	vg := s.cfg.VG
	gw, rule := gateway, ""
	switch {
	case vg && n.role == "proxy":
		gw = ""
	case vg && n.role == "dnsmaster":
		gw = n.host
	}
	text := fmt.Sprintf(`## Role
role="%s"

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
firstbox_address="%s"

## General
cpu_arch="x86_64"
cpu_cores="4"
memory_size="8000"
os_name="trusty"
os_version="14.04.5"
hostname="%s"

## Mgmt Network
mgmt_network_interface="eth0"
mgmt_network_address="%s"
mgmt_network_netmask="255.255.255.0"
mgmt_network_gateway="%s"
mgmt_network_dns_servers="192.0.2.41 192.0.2.42"
mgmt_network_mac_address="%s"
mgmt_network_routing_rule="%s"
`, n.role, FirstboxAddr, n.name, n.addr, gw, newMAC(), rule)
	if n.role != "webservice" {
		text += fmt.Sprintf("\n## VM Network\nvm_network_routing_rule=\"ip route add %s src %s via %s\"\n", vmNetwork, n.addr, gateway)
	}
	eipBridge := ""
	if vg && n.role == "proxy" {
		eipBridge = "br1"
		text += fmt.Sprintf("\n## Eip Network\neip_network_interface=\"eth1\"\neip_network_address=\"%s\"\neip_network_netmask=\"255.255.255.0\"\neip_network_gateway=\"%s\"\neip_network_mac_address=\"%s\"\n", n.eip, eipGateway, newMAC())
	}
	text += fmt.Sprintf("\n## Host\nphysical_host=\"%s\"\nphysical_host_network_interface=\"br0\"\nphysical_host_eip_network_interface=\"%s\"\n", n.host, eipBridge)
	if n.role == "proxy" {
		text += "\n## made by hand, ask the network team\nproxy_maxconn=\"65536\"\n"
	}
	return text
}

func (s *Site) writeSettings() {
	for i, name := range hostNames {
		role, vg := "TBD", "off"
		if s.cfg.VG {
			role, vg = "vgateway", "on"
		}
		text := fmt.Sprintf(`## Role
role="%s"

## Region
is_region="0"
region_id=""
zone_id="lab1a"

## Feature
feature_vmnode="off"
feature_ksnode="on"
feature_vgnode="%s"
feature_hypernode="off"
feature_conntrack="off"

## Firstbox
firstbox_address="%s"

## General
cpu_arch="x86_64"
os_name="xenial"
os_version="16.04.5"
hostname="%s"

## Mgmt Network
mgmt_network_interface="br0"
mgmt_network_address="192.0.2.%d"
mgmt_network_netmask="255.255.255.0"
mgmt_network_gateway="%s"
mgmt_network_bond_interface="bond0"
mgmt_network_bond_mode="4"
mgmt_network_bond_slaves="eth0,eth1"
mgmt_network_bridge_ports="bond0"

## Host
physical_host=""
physical_host_network_interface=""
`, role, vg, FirstboxAddr, name, 101+i, gateway)
		_ = s.firstbox.Host.WriteFile(settingsDir+"/"+name, []byte(text), 0o644)
	}
	for _, n := range members {
		_ = s.firstbox.Host.WriteFile(settingsDir+"/"+n.name, []byte(s.settingText(n)), 0o644)
	}
}
