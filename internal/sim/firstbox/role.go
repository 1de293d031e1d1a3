package firstbox

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// A Front is what clients ask for at a virtual address.
type Front struct {
	Name   string
	Port   int
	Stream bool   // connections live long
	Asks   string // of a name server: the name whose address is asked for
}

// A role is what the nodes of a role have beyond what every VM has.
type role struct {
	vip      string
	router   int // virtual router of keepalived
	packages func(s *Site) []string
	services []string
	fronts   func(s *Site) []Front
	// aged are the files of an old node, as people and years have made them.
	aged func(s *Site) map[string]string
}

var roles = map[string]role{
	"proxy": {
		vip: ProxyVIP, router: 51, packages: proxyPackages, services: []string{"haproxy"}, fronts: proxyFronts,
		aged: func(s *Site) map[string]string { return map[string]string{haproxyFile: s.oldHAProxy()} },
	},
	"webservice": {vip: WebVIP, router: 52, packages: webPackages, services: []string{"nginx"}, fronts: webFronts, aged: agedWeb},
	"dnsmaster":  {vip: DNSVIP, router: 53, packages: dnsPackages, services: []string{"bind9"}, fronts: dnsFronts, aged: agedDNS},
}

// Roles are the roles whose nodes share a virtual address.
func Roles() []string { return []string{"proxy", "webservice", "dnsmaster"} }

// VIP is the virtual address of a role's nodes, "" of an unknown role.
func VIP(name string) string { return roles[name].vip }

// Fronts are what clients ask for at the virtual address of a role: what its
// packages bring, and what somebody has made by hand.
func (s *Site) Fronts(name string) []Front { return roles[name].fronts(s) }

// A pair is the two nodes of a role at the beginning.
func pair(name string) []member {
	return slices.DeleteFunc(slices.Clone(members), func(n member) bool { return n.role != name })
}

// A Node is one that can be rebuilt: its address and host at the beginning, and
// a place for its successor.
type Node struct{ Name, Address, Host, Temporary, NewHost string }

// Nodes are those of a role, each with its successor on the other one's host.
func Nodes(name string) []Node {
	var out []Node
	two := pair(name)
	for i, n := range two {
		a := netip.MustParseAddr(n.addr).As4()
		a[3] += 10
		out = append(out, Node{n.name, n.addr, n.host, netip.AddrFrom4(a).String(), two[len(two)-1-i].host})
	}
	return out
}

// placeServices puts the units of services on a node, enabled.
func (m *Machine) placeServices(names ...string) {
	for _, name := range names {
		start := map[string]string{
			"haproxy": "/usr/sbin/haproxy -db -f " + haproxyFile, "keepalived": "/usr/sbin/keepalived -n",
			"bind9": "/usr/sbin/named -f -u bind", "nginx": "/usr/sbin/nginx",
		}[name]
		m.Host.PlaceUnit(host.Unit{Name: name, Description: name, Enabled: true, Start: start, Forking: name == "nginx"})
	}
}

func keepalivedText(role string, id, priority int, vip string) string {
	return fmt.Sprintf(`vrrp_instance %s {
    state BACKUP
    interface eth0
    virtual_router_id %d
    priority %d
    advert_int 1
    authentication {
        auth_type PASS
        auth_pass simulated
    }
    virtual_ipaddress {
        %s/24
    }
}
`, role, id, priority, vip)
}

// programsOf are what the packages run below supervisor, with their ports.
func (s *Site) programsOf(pkg string) map[string][]int {
	switch pkg {
	case "pitrix-ks-proxy":
		return map[string][]int{"cb_server": {}, "cronus-api": {}}
	case "pitrix-ks-proxy-boss":
		return map[string][]int{"boss_proxy": {}}
	case "pitrix-ks-proxy-boss2":
		return map[string][]int{"boss2_proxy": {}}
	case "pitrix-ks-proxy-warehouse":
		return map[string][]int{"warehouse_proxy": {}}
	case "pitrix-ks-webconsole":
		if s.opt.Nginx == nil {
			return map[string][]int{"webconsole": {80, 8081}}
		}
		return map[string][]int{"webconsole": {webConsolePort}}
	case "pitrix-ks-webservice":
		all := map[string][]int{"fg_server": {8665}, "billing_resource": {}}
		if !s.cfg.Sub { // a sub zone has no api, ws and io of its own
			all["ws_server"], all["io_server"] = []int{8565}, []int{8000}
		}
		return all
	case "pitrix-ks-dnsmaster": // its guide asks for supervisorctl status; the name is ours
		return map[string][]int{"ns_agent": {}}
	case "pitrix-ks-api":
		if !s.cfg.Sub {
			return map[string][]int{"apiserver": {7777}}
		}
	}
	return nil
}

func (s *Site) writeProgram(m *Machine, pkg string) {
	for name, ports := range s.programsOf(pkg) {
		text := "[program:" + name + "]\ncommand=/pitrix/bin/" + name + "\nautostart=true\nautorestart=true\n"
		for _, p := range ports {
			text += fmt.Sprintf("; port %d\n", p)
		}
		_ = m.Host.WriteFile(programsDir+"/"+name+".conf", []byte(text), 0o644)
	}
}

// masked reports whether somebody has forbidden a unit to start.
func (m *Machine) masked(name string) bool {
	_, err := m.Host.Stat("/etc/systemd/system/" + name + ".service")
	return err == nil // a link to /dev/null; nobody puts units there otherwise
}

// bring enters what a package depends on, and gives the services that come
// with it their units.
func (m *Machine) bring(versions map[string]string, services ...string) (first bool) {
	list := m.installed()
	for name, version := range versions {
		list[name] = version
	}
	m.record(list)
	for _, name := range services {
		if _, err := m.Host.Stat("/usr/lib/systemd/system/" + name + ".service"); err != nil {
			m.placeServices(name)
			first = true
		}
	}
	return first
}

// startNew starts programs of a package that was just installed, below a
// supervisor that runs.
func (s *Site) startNew(m *Machine) {
	s.mu.Lock()
	v := m.super
	s.mu.Unlock()
	if v != nil {
		s.updatePrograms(m, v)
	}
}

// mayStart reports whether an installation may start a service.
func (m *Machine) mayStart(name string) bool { return m.policy(name) && !m.masked(name) }
