package upgrade

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
)

// detectInbound looks for traffic that neither nginx nor a balancer leads to the
// host: the procedure does not move it (section 2.7).
func detectInbound(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, d := range f.Direct {
		l.add(FindingWarning, "inbound-direct", d, "find out who that is: such traffic is not moved, and fails while production is upgraded", "not moved: %s", d)
	}
	// What comes to ports that no service names, ours through sshd apart.
	peers := map[string][]string{}
	for _, c := range f.Inventory.Connections {
		if c.Direction != "in" || c.LocalPort == 0 || c.Process == "sshd" || c.LocalPort == 22 || servesPort(cfg, c.LocalPort) || isLocal(c.IP, cfg.Address) || containerNet(f.Inventory, c.IP) {
			continue
		}
		key := fmt.Sprintf("tcp/%d", c.LocalPort)
		if c.Process != "" {
			key += " (" + c.Process + ")"
		}
		if !slices.Contains(peers[key], c.IP) {
			peers[key] = append(peers[key], c.IP)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(peers)) {
		l.add(FindingWarning, "inbound-other-port", port, "name the port in a service, or see that whoever uses it can do without the host for a while",
			"%s uses %s, which no service names: it is neither moved nor proved", list(peers[port]), port)
	}
	return l
}

// list joins a few words and counts the rest.
func list(words []string) string {
	words = slices.Clone(words)
	slices.Sort(words)
	if n := len(words); n > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:5], ", "), n-5)
	}
	return strings.Join(words, ", ")
}

// containerNet tells whether an address is of a network of containers or of
// virtual machines on the host itself.
func containerNet(inv *hostinv.Inventory, ip string) bool {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	for _, i := range inv.Interfaces {
		if !virtual(i) {
			continue
		}
		for _, s := range i.Addresses {
			if p, err := netip.ParsePrefix(s); err == nil && p.Masked().Contains(a.Unmap()) {
				return true
			}
		}
	}
	return false
}

// virtual tells whether an interface is one that software on the host made.
func virtual(i hostinv.Interface) bool {
	for _, prefix := range []string{"lo", "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "cilium", "kube", "tunl", "tun", "tap", "dummy", "vxlan", "wg", "lxc", "lxd", "podman", "vnet", "nodelocaldns"} {
		if strings.HasPrefix(i.Name, prefix) {
			return true
		}
	}
	return false
}

// floating are programs that move an address between hosts, by the name of the
// agent in the inventory. Never written to.
var floating = []string{"keepalived", "corosync", "pacemaker", "ucarp", "heartbeat", "vrrpd"}

// members are programs that make the host a node of a cluster, likewise.
var members = []string{"kubelet", "k3s-server", "k3s-agent", "nomad", "etcd"}

// detectFloating looks for addresses that float and for clusters of which the
// host is a node: a copy of it would be a second one.
func detectFloating(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	runs := map[string]bool{}
	for _, p := range inv.Processes {
		if p.Container == "" {
			runs[p.Name], runs[p.Program] = true, true
		}
	}
	for _, a := range inv.Agents {
		runs[a.Name] = true
	}
	for _, name := range floating {
		if runs[name] {
			l.add(FindingBlocking, "floating-daemon", name, "move the address away from the host for the window, and hold the daemon back on the copy by transition.quarantine",
				"%s runs on the host: its address is moved by nobody here, and the copy would fight for it", name)
		}
	}
	for _, name := range members {
		if runs[name] {
			l.add(FindingBlocking, "cluster-member", name, "drain and upgrade the node by its cluster's own means", "%s runs on the host: a copy of it would join the cluster under the same name", name)
		}
	}
	known := map[string]bool{cfg.Address: true}
	for _, ip := range slices.Concat(f.Instance.PrivateIPs, f.Instance.SecondaryIPs, f.Instance.PublicIPs, f.Instance.IPv6) {
		known[ip] = true
	}
	for _, i := range inv.Interfaces {
		if virtual(i) || i.Master != "" {
			continue
		}
		for _, s := range i.Addresses {
			p, err := netip.ParsePrefix(s)
			if err != nil || known[p.Addr().String()] || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() {
				continue
			}
			l.add(FindingBlocking, "floating-address", p.Addr().String(), "see who reaches it and move it first (HaVip, keepalived), or accept that it is not there on the transition host",
				"%s has the address %s, which the cloud does not know as the instance's: it is not moved, and the copy would bring it up a second time", i.Name, p.Addr())
		}
	}
	return l
}

// asked are ports of services that often let their clients in by address, and of
// those that know their clients by a name. Never written to.
var askedPorts = map[int]string{
	1433: "SQL Server", 1521: "Oracle", 2181: "ZooKeeper", 3306: "MySQL", 3717: "MongoDB (ApsaraDB)", 5432: "PostgreSQL",
	5672: "RabbitMQ", 6379: "Redis", 8123: "ClickHouse", 9000: "ClickHouse", 9092: "Kafka", 9200: "Elasticsearch", 9300: "Elasticsearch",
	9876: "RocketMQ", 10911: "RocketMQ", 11211: "Memcached", 27017: "MongoDB", 61616: "ActiveMQ",
	2379: "etcd", 8500: "Consul", 8761: "Eureka", 8848: "Nacos", 9848: "Nacos",
}

// A TrustPeer is somebody whom the host connects to and who may let it in by its
// address: the transition host has another one.
type TrustPeer struct {
	IP        string   `json:"ip"`
	Port      int      `json:"port"`
	Service   string   `json:"service,omitempty"` // by the port, as "MySQL"; "" = not known
	Public    bool     `json:"public"`            // outside of private networks
	Processes []string `json:"processes"`         // of the host, that are connected now
	Count     int      `json:"count"`             // connections now
}

// String is as "172.31.3.7:3306 (MySQL)".
func (p TrustPeer) String() string {
	s := netip.AddrPortFrom(addr(p.IP), uint16(p.Port)).String()
	if p.Service != "" {
		s += " (" + p.Service + ")"
	}
	return s
}

func addr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s) // the zero value prints as such
	return a
}

// ListTrustPeers groups the established outbound connections of an inventory by
// whom they lead to: those whose service is known by its port first. What stays
// on the host, in its container networks or in the cloud's own 100.64.0.0/10
// is left out. It is pure.
func ListTrustPeers(inv *hostinv.Inventory, own string) []TrustPeer {
	type key struct {
		ip   string
		port int
	}
	peers := map[key]*TrustPeer{}
	for _, c := range inv.Connections {
		a := addr(c.IP)
		if c.Direction != "out" || !a.IsValid() || isLocal(c.IP, own) || balancerRange.Contains(a.Unmap()) || containerNet(inv, c.IP) {
			continue
		}
		k := key{c.IP, c.Port}
		p := peers[k]
		if p == nil {
			p = &TrustPeer{IP: c.IP, Port: c.Port, Service: askedPorts[c.Port], Public: a.IsGlobalUnicast() && !a.IsPrivate(), Processes: []string{}}
			peers[k] = p
		}
		p.Count += c.Count
		if c.Process != "" && !slices.Contains(p.Processes, c.Process) {
			p.Processes = append(p.Processes, c.Process)
			slices.Sort(p.Processes)
		}
	}
	out := make([]TrustPeer, 0, len(peers))
	for _, p := range peers {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b TrustPeer) int {
		if (a.Service == "") != (b.Service == "") {
			if a.Service != "" {
				return -1
			}
			return 1
		}
		if c := addr(a.IP).Compare(addr(b.IP)); c != 0 {
			return c
		}
		return a.Port - b.Port
	})
	return out
}

// detectOutbound lists whom the host connects to: who lets it in by its address
// will refuse the transition host. 3.4-trust looks at the allow lists of the
// cloud's own products; those of others only a person can know.
func detectOutbound(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	var rest []string
	for _, p := range ListTrustPeers(f.Inventory, cfg.Address) {
		by := ""
		if len(p.Processes) > 0 {
			by = " by " + strings.Join(p.Processes, ", ")
		}
		switch {
		case p.Service != "":
			l.add(FindingWarning, "outbound-trust", fmt.Sprintf("%s:%d", p.IP, p.Port), "see that it lets the transition host in too: allow lists, grants of the form user@'address', security groups",
				"the host is connected to %s%s, %d times", p, by, p.Count)
		case p.Public:
			l.add(FindingWarning, "outbound-trust", fmt.Sprintf("%s:%d", p.IP, p.Port), "see whether it knows the host by its public address (payment, SMS, open platforms): the transition host has another",
				"the host is connected to %s%s, outside of private networks, %d times", p, by, p.Count)
		default:
			rest = append(rest, p.String())
		}
	}
	if len(rest) > 0 {
		l.add(FindingInfo, "outbound-other", "", "see that none of them lets the host in by its address alone", "the host is also connected to %s", list(rest))
	}
	return l
}
