package firstbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const interfacesFile = "/etc/network/interfaces"

// stanza is an "iface … inet static" of /etc/network/interfaces.
type stanza struct {
	name    string
	auto    bool
	address netip.Prefix
	gateway netip.Addr
}

// knownOptions are those of a stanza that change nothing here.
var knownOptions = []string{
	"dns-nameservers", "dns-search", "bridge_ports", "bridge_stp", "bridge_waitport", "bridge_fd",
	"bond-mode", "bond-slaves", "bond-master", "bond-miimon", "network", "broadcast", "mtu",
}

// parseInterfaces reads /etc/network/interfaces; what is not simulated is an
// error, and the rest is read all the same.
func parseInterfaces(text string) (list []stanza, errs []error) {
	var cur *stanza
	auto := map[string]bool{}
	mask := ""
	end := func() {
		if cur == nil {
			return
		}
		switch {
		case cur.name == "lo":
		case !cur.address.IsValid():
			errs = append(errs, fmt.Errorf("interface %s has no address", cur.name))
		default:
			if bits := maskBits(mask); mask != "" && bits < 0 {
				errs = append(errs, fmt.Errorf("interface %s: netmask %s", cur.name, mask))
			} else if mask != "" {
				cur.address = netip.PrefixFrom(cur.address.Addr(), bits)
			}
			list = append(list, *cur)
		}
		cur, mask = nil, ""
	}
	for n, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		switch {
		case f[0] == "auto" || f[0] == "allow-hotplug":
			end()
			for _, name := range f[1:] {
				auto[name] = true
			}
		case f[0] == "iface":
			end()
			if len(f) != 4 || f[2] != "inet" || f[3] != "static" && f[3] != "loopback" && f[3] != "manual" {
				errs = append(errs, fmt.Errorf("line %d: %q is not simulated", n+1, line))
				continue
			}
			if f[3] == "static" {
				cur = &stanza{name: f[1]}
			} else {
				cur = &stanza{name: "lo"}
			}
		case cur == nil:
			errs = append(errs, fmt.Errorf("line %d: %q is not simulated", n+1, line))
		case f[0] == "address" && len(f) == 2:
			p, err := netip.ParsePrefix(f[1])
			if err != nil {
				a, err := netip.ParseAddr(f[1])
				if err != nil {
					errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
					continue
				}
				p = netip.PrefixFrom(a, 24)
			}
			cur.address = p
		case f[0] == "netmask" && len(f) == 2:
			mask = f[1]
		case f[0] == "gateway" && len(f) == 2:
			a, err := netip.ParseAddr(f[1])
			if err != nil {
				errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
			}
			cur.gateway = a
		case slices.Contains(knownOptions, f[0]):
		default:
			errs = append(errs, fmt.Errorf("line %d: option %s is not simulated", n+1, f[0]))
		}
	}
	end()
	for i := range list {
		list[i].auto = auto[list[i].name]
	}
	return list, errs
}

func maskBits(mask string) int {
	if n, err := strconv.Atoi(mask); err == nil && n >= 0 && n <= 32 {
		return n
	}
	ip := net.ParseIP(mask).To4()
	if ip == nil {
		return -1
	}
	ones, bits := net.IPMask(ip).Size()
	if bits != 32 {
		return -1
	}
	return ones
}

// ifup configures an interface as the file says, or with "" all that are
// brought up at boot. What goes wrong is returned, a line each.
func (m *Machine) ifup(name string) (problems []string) {
	data, err := m.Host.ReadFile(interfacesFile)
	if err != nil {
		return []string{err.Error()}
	}
	list, errs := parseInterfaces(string(data))
	for _, err := range errs {
		m.Host.Refuse(interfacesFile, err.Error())
		problems = append(problems, err.Error())
	}
	found := false
	for _, st := range list {
		if name == "" && !st.auto || name != "" && st.name != name {
			continue
		}
		found = true
		m.site.mu.Lock()
		n := m.nic(st.name)
		if n == nil {
			m.site.mu.Unlock()
			problems = append(problems, fmt.Sprintf("Cannot find device %q", st.name))
			continue
		}
		n.addrs = append([]netip.Prefix{st.address}, n.addrs...)
		if st.gateway.IsValid() {
			m.addRoute(route{dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), via: st.gateway, dev: st.name, text: fmt.Sprintf("default via %s dev %s", st.gateway, st.name)})
		}
		m.site.mu.Unlock()
	}
	if name != "" && !found {
		problems = append(problems, fmt.Sprintf("Unknown interface %s", name))
	}
	return problems
}

// addRoute keeps the more specific routes first. Site.mu is held.
func (m *Machine) addRoute(r route) {
	m.routes = append(m.routes, r)
	slices.SortStableFunc(m.routes, func(a, b route) int { return b.dst.Bits() - a.dst.Bits() })
}

func (s *Site) cmdIfup(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	if len(p.Args) != 2 || strings.HasPrefix(p.Args[1], "-") {
		return p.Refusef("only ifup INTERFACE")
	}
	s.mu.Lock()
	n := m.nic(p.Args[1])
	configured := n != nil && len(n.addrs) > 0
	s.mu.Unlock()
	if configured {
		return p.Failf(0, "interface %s already configured", p.Args[1])
	}
	status := 0
	for _, line := range m.ifup(p.Args[1]) {
		status = p.Failf(1, "%s", line)
	}
	return status
}

func (s *Site) cmdIfdown(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	if len(p.Args) != 2 || strings.HasPrefix(p.Args[1], "-") {
		return p.Refusef("only ifdown INTERFACE")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := m.nic(p.Args[1])
	if n == nil || len(n.addrs) == 0 {
		return p.Failf(0, "interface %s not configured", p.Args[1])
	}
	n.addrs = nil
	m.routes = slices.DeleteFunc(m.routes, func(r route) bool { return r.dev == n.name })
	m.cut("ifdown " + n.name)
	return 0
}
