package upgrade

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"go.yaml.in/yaml/v4"
)

// StrategySideBySide builds the new machines at temporary addresses beside the
// old ones, which serve until they are switched one after the other.
const StrategySideBySide = "side-by-side"

// StrategyInPlace shuts one old machine after the other down and builds the new
// one at its address; meanwhile the others of its role serve alone.
const StrategyInPlace = "in-place"

// RebuildConfig says which management nodes are replaced by what.
type RebuildConfig struct {
	Strategy  string        `json:"strategy"` // StrategySideBySide or StrategyInPlace
	Role      string        `json:"role"`     // name of a profile: proxy, webservice or dnsmaster
	OSName    string        `json:"os_name"`  // os_name of the new machines, such as xenial
	OSVersion string        `json:"os_version"`
	VIP       string        `json:"vip,omitempty"` // the floating address of the nodes; empty: they have none
	SSH       string        `json:"ssh"`           // SSH target of nodes and physical hosts; "{address}" is replaced
	Nodes     []RebuildNode `json:"nodes"`
	Console   []string      `json:"console,omitempty"` // URLs that must answer; empty: what dump_hosts.py lists
	Accept    []string      `json:"accept,omitempty"`  // losses of an inventory that do not count: "SECTION KEY", with * in the key
	Sub       bool          `json:"sub"`               // the nodes are of a sub region or sub zone, which is served by the global one
	Soak      time.Duration `json:"soak"`              // shortest time between the last switch and the end of the old machines
}

// A RebuildNode is a node of the role and what its new machine gets that the
// old one has not. An empty field stays as in the node's settings.
type RebuildNode struct {
	Name         string `json:"name"`          // as in /pitrix/conf/settings
	Address      string `json:"address"`       // temporary management address; in place it has none, nor what belongs to it
	Netmask      string `json:"netmask"`       // of the temporary address
	Gateway      string `json:"gateway"`       // of the temporary address
	EIP          string `json:"eip,omitempty"` // unused stand-in for the outer address until the switch
	EIPNetmask   string `json:"eip_netmask,omitempty"`
	EIPGateway   string `json:"eip_gateway,omitempty"`
	PhysicalHost string `json:"physical_host"` // management address of the host that gets the new machine; in place empty = the old one's
	Bridge       string `json:"bridge"`        // its management bridge
	EIPBridge    string `json:"eip_bridge"`    // its bridge for the outer address
}

// rebuild fills c from the root mapping of a file with procedure rebuild.
func (d *configDecoder) rebuild(root *yaml.Node, c *Config) {
	m := d.mapping(root, "", "version", "procedure", "host", "ssh", "rebuild", "gates", "approvals", "pace")
	d.head(m, c, "the firstbox")
	d.ssh(m, c)
	m.need(": what is rebuilt", "rebuild")
	s := d.mapping(m.values["rebuild"], "rebuild", "strategy", "role", "os_name", "os_version", "vip", "ssh", "nodes", "console", "accept", "sub", "soak")
	r := &RebuildConfig{
		Strategy:  s.enum("strategy", StrategySideBySide, StrategySideBySide, StrategyInPlace),
		Role:      s.enum("role", "", roleNames()...),
		OSName:    s.text("os_name", "", matches(`^[a-z]+$`, "is not the name of a release such as xenial")),
		OSVersion: s.text("os_version", "", matches(`^[0-9]+(\.[0-9]+)+(-[a-z0-9]+)?$`, "is not a release such as 16.04.5")),
		VIP:       s.text("vip", "", checkIPv4),
		SSH: s.text("ssh", "{address}", func(v string) string {
			if !strings.Contains(v, "{address}") {
				return "does not hold {address}, which stands for a host's address"
			}
			return checkTarget(strings.ReplaceAll(v, "{address}", "192.0.2.1"))
		}),
		Sub:  s.boolean("sub", false),
		Soak: s.duration("soak", 0, 0, true),
	}
	c.Rebuild = r
	s.need(": the role of the nodes", "role")
	s.need(": the release that the new machines get, such as 16.04.5", "os_version")
	s.need(": its name, such as xenial", "os_name")
	s.need(": the nodes that are rebuilt", "nodes")
	if p, ok := roleProfile(r.Role); ok && p.floating && r.VIP == "" && !s.failed("vip") {
		s.need(": nodes of this role have a floating address", "vip")
		if s.has("vip") {
			s.problem("vip", "is empty: nodes of this role have a floating address")
		}
	}
	d.rebuildNodes(s, r)
	d.words(s, "console", func(w string) string {
		u, err := url.Parse(w)
		if err != nil || u.Hostname() == "" || u.User != nil || u.Port() != "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
			return "is not a URL of a scheme and a name, such as http://console.example.com/"
		}
		return ""
	}, &r.Console)

	d.words(s, "accept", func(w string) string {
		area, key, ok := strings.Cut(w, " ")
		if !ok || key == "" || !slices.Contains(hostinv.SectionNames(), area) && area != string(readsBind) {
			return "is not a section of an inventory and a key, such as \"packages landscape-common *\""
		}
		return ""
	}, &r.Accept)

	var sections, def []string
	sections = append(sections, "1.1", "1.2", "1.3", "2.1")
	if r.Strategy == StrategyInPlace {
		for i := range r.Nodes {
			for chapter := 1; chapter <= 8; chapter++ {
				sections = append(sections, fmt.Sprintf("7.%d.%d", i+1, chapter))
			}
			def = append(def, fmt.Sprintf("7.%d.1", i+1))
		}
		sections = append(sections, "8.2", "9.1", "9.2")
	} else {
		sections = append(sections, "2.2", "3.1", "3.2", "3.3", "4.1", "5.1", "6.1")
		for i := range r.Nodes {
			sections = append(sections, fmt.Sprintf("7.%d", i+1))
			def = append(def, fmt.Sprintf("7.%d", i+1))
		}
		sections = append(sections, "8.1", "8.2", "9.1", "9.2")
	}
	d.gates(m, c, sections, append(def, "9.2"), "docs/rebuild.md")
	d.approvals(m, c)
	d.pace(m, c)
}

func (d *configDecoder) rebuildNodes(m mapping, r *RebuildConfig) {
	names, addresses, hosts := map[string]int{}, map[string]int{}, map[string]int{}
	once := func(seen map[string]int, s mapping, key, value, what string) {
		if value == "" {
			return
		}
		if line, dup := seen[value]; dup {
			s.problem(key, "%s is %s of two nodes; the first is on line %d", quote(value), what, line)
			return
		}
		seen[value] = s.values[key].Line
	}
	m.list("nodes", func(n *yaml.Node, path string) {
		s := m.d.mapping(n, path, "name", "address", "netmask", "gateway", "eip", "eip_netmask", "eip_gateway", "physical_host", "bridge", "eip_bridge")
		s.need("", "name")
		if r.Strategy == StrategyInPlace {
			for _, key := range []string{"address", "netmask", "gateway", "eip", "eip_netmask", "eip_gateway"} {
				if s.has(key) {
					s.problem(key, "is of no use in place: the new machine has the addresses of the old one from the beginning; leave it out")
				}
			}
		} else {
			s.need(": a management address that nobody uses, until the switch", "address")
			s.need(": the management address of the host that gets the new machine", "physical_host")
		}
		v := RebuildNode{
			// It becomes a word of command lines and part of file names.
			Name:         s.text("name", "", matches(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`, "is not the name of a node: letters, digits and hyphens")),
			Address:      s.text("address", "", checkIPv4),
			Netmask:      s.text("netmask", "", checkIPv4),
			Gateway:      s.text("gateway", "", checkIPv4),
			EIP:          s.text("eip", "", checkIPv4),
			EIPNetmask:   s.text("eip_netmask", "", checkIPv4),
			EIPGateway:   s.text("eip_gateway", "", checkIPv4),
			PhysicalHost: s.text("physical_host", "", checkIPv4),
			Bridge:       s.text("bridge", "", checkInterface),
			EIPBridge:    s.text("eip_bridge", "", checkInterface),
		}
		once(names, s, "name", v.Name, "the name")
		once(addresses, s, "address", v.Address, "an address")
		once(addresses, s, "eip", v.EIP, "an address")
		once(hosts, s, "physical_host", v.PhysicalHost, "the new host")
		if v.Address != "" && v.Address == r.VIP {
			s.problem("address", "%s is the floating address; the temporary one is one that nobody uses", quote(v.Address))
		}
		r.Nodes = append(r.Nodes, v)
	})
	if m.has("nodes") && len(r.Nodes) == 0 && !m.failed("nodes") {
		m.problem("nodes", "is empty: name the nodes that are rebuilt")
	}
	if r.Strategy == StrategyInPlace && len(r.Nodes) == 1 && !m.failed("nodes") {
		m.problem("nodes", "names one node: in place the others of its role serve alone while it is rebuilt; name all of them")
	}
}

func checkIPv4(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return "is not an IPv4 address"
	}
	return ""
}

func checkInterface(s string) string {
	return matches(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`, "is not the name of a network interface")(s)
}
