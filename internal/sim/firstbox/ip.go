package firstbox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// cmdIP is ip(8), as far as the installer's files and our questions go.
func (s *Site) cmdIP(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	args := p.Args[1:]
	oneline := false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-o":
			oneline = true
		case "-4", "-d":
		case "-6":
			if len(args) > 1 && slices.Contains([]string{"route", "rule", "addr", "address", "neigh"}, args[1]) {
				return 0 // there is no IPv6 here
			}
			return p.Refusef("ip -6")
		default:
			return p.Refusef("option %s", args[0])
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return p.Refusef("no object")
	}
	verb := "show"
	if len(args) > 1 {
		verb = args[1]
	}
	rest := args[min(2, len(args)):]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch args[0] + " " + verb {
	case "addr show", "address show", "a show", "addr list", "a s", "addr s":
		return m.showAddr(p, rest, oneline)
	case "link show", "l show", "link list":
		return m.showLink(p, rest, oneline)
	case "route show", "r show", "route list":
		return m.showRoutes(p, rest)
	case "rule show", "rule list":
		fmt.Fprint(p.Stdout, "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n32767:\tfrom all lookup default \n")
		return 0
	case "neigh show", "neighbor show", "neigh list":
		for _, ip := range m.arpAddrs() {
			fmt.Fprintf(p.Stdout, "%s dev %s lladdr %s REACHABLE\n", ip, m.nics[0].name, m.arp[ip].mac)
		}
		return 0
	case "neigh flush", "neigh del":
		return m.forgetNeighbours(p, verb, rest)
	case "addr add", "addr del", "a add", "a del":
		return m.changeAddr(p, verb, rest)
	case "route add", "route replace", "route del", "r add":
		return m.changeRoute(p, verb, rest)
	case "route get":
		return m.getRoute(p, rest)
	case "link set":
		return p.Refusef("ip link set")
	}
	return p.Refusef("ip %s %s", args[0], verb)
}

// forgetNeighbours is ip neigh flush all, ip neigh flush to ADDR, and ip neigh
// del ADDR dev DEV.
func (m *Machine) forgetNeighbours(p *host.Proc, verb string, rest []string) int {
	words := strings.Join(rest, " ")
	if verb == "flush" && words == "all" {
		clear(m.arp)
		return 0
	}
	dev, other := device(rest)
	if verb == "flush" && len(other) == 2 && other[0] == "to" {
		other = other[1:]
	} else if verb == "flush" || dev == "" {
		return p.Refusef("ip neigh %s %s", verb, words)
	}
	ip, err := netip.ParseAddr(strings.Join(other, " "))
	if err != nil {
		return p.Refusef("ip neigh %s %s", verb, words)
	}
	if _, known := m.arp[ip]; !known && verb == "del" {
		return p.Failf(2, "RTNETLINK answers: No such file or directory")
	}
	delete(m.arp, ip)
	return 0
}

func (m *Machine) arpAddrs() []netip.Addr {
	var out []netip.Addr
	for ip := range m.arp {
		out = append(out, ip)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func device(rest []string) (name string, other []string) {
	for i := 0; i < len(rest); i++ {
		if rest[i] == "dev" && i+1 < len(rest) {
			name = rest[i+1]
			i++
			continue
		}
		other = append(other, rest[i])
	}
	return name, other
}

func (m *Machine) showAddr(p *host.Proc, rest []string, oneline bool) int {
	dev, other := device(rest)
	if dev == "" && len(other) == 1 {
		dev, other = other[0], nil
	}
	to := netip.Addr{}
	if len(other) == 2 && other[0] == "to" {
		pfx, err := netip.ParsePrefix(other[1])
		if err != nil {
			to, err = netip.ParseAddr(other[1])
		} else {
			to = pfx.Addr()
		}
		if err != nil {
			return p.Refusef("ip addr show to %s", other[1])
		}
		other = nil
	}
	if len(other) == 2 && other[0] == "scope" && other[1] == "global" {
		other = nil
	}
	if len(other) > 0 {
		return p.Refusef("ip addr show %s", strings.Join(other, " "))
	}
	if dev != "" && dev != "lo" && m.nic(dev) == nil {
		fmt.Fprintf(p.Stderr, "Device %q does not exist.\n", dev)
		return 1
	}
	if (dev == "" || dev == "lo") && !to.IsValid() {
		if oneline {
			fmt.Fprintln(p.Stdout, "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever")
		} else {
			fmt.Fprint(p.Stdout, "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default \n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n    inet 127.0.0.1/8 scope host lo\n       valid_lft forever preferred_lft forever\n")
		}
	}
	for i, n := range m.nics {
		if dev != "" && dev != n.name {
			continue
		}
		if to.IsValid() && !n.has(to) {
			continue
		}
		if !oneline {
			fmt.Fprintf(p.Stdout, "%d: %s: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc pfifo_fast state UP group default qlen 1000\n    link/ether %s brd ff:ff:ff:ff:ff:ff\n", i+2, n.name, n.mac)
		}
		for _, a := range n.addrs {
			if to.IsValid() && a.Addr() != to {
				continue
			}
			if oneline {
				fmt.Fprintf(p.Stdout, "%d: %s    inet %s scope global %s\\       valid_lft forever preferred_lft forever\n", i+2, n.name, a, n.name)
			} else {
				fmt.Fprintf(p.Stdout, "    inet %s scope global %s\n       valid_lft forever preferred_lft forever\n", a, n.name)
			}
		}
	}
	return 0
}

func (m *Machine) showLink(p *host.Proc, rest []string, oneline bool) int {
	dev, other := device(rest)
	if dev == "" && len(other) == 1 {
		dev, other = other[0], nil
	}
	if len(other) == 2 && other[0] == "type" && other[1] == "bridge" {
		other = nil // bridges are all that a physical host has here
	}
	if len(other) > 0 {
		return p.Refusef("ip link show %s", strings.Join(other, " "))
	}
	sep := "\n   "
	if oneline {
		sep = "\\   "
	}
	if dev == "" {
		fmt.Fprintf(p.Stdout, "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default %s link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n", sep)
	}
	found := dev == ""
	for i, n := range m.nics {
		if dev == "" || dev == n.name {
			found = true
			fmt.Fprintf(p.Stdout, "%d: %s: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc pfifo_fast state UP mode DEFAULT group default qlen 1000%s link/ether %s brd ff:ff:ff:ff:ff:ff\n", i+2, n.name, sep, n.mac)
		}
	}
	if !found {
		fmt.Fprintf(p.Stderr, "Device %q does not exist.\n", dev)
		return 1
	}
	return 0
}

func (m *Machine) showRoutes(p *host.Proc, rest []string) int {
	want := ""
	switch {
	case len(rest) == 0, len(rest) == 2 && rest[0] == "table" && (rest[1] == "main" || rest[1] == "all"):
	case len(rest) == 1:
		want = rest[0]
	default:
		return p.Refusef("ip route show %s", strings.Join(rest, " "))
	}
	for _, r := range slices.Backward(m.routes) {
		if want == "" || want == "default" && r.dst.Bits() == 0 || want == r.dst.String() {
			fmt.Fprintln(p.Stdout, r.text)
		}
	}
	for _, n := range m.nics {
		if len(n.addrs) > 0 && (want == "" || want == n.addrs[0].Masked().String()) {
			fmt.Fprintf(p.Stdout, "%s dev %s proto kernel scope link src %s\n", n.addrs[0].Masked(), n.name, n.addrs[0].Addr())
		}
	}
	return 0
}

func (m *Machine) changeAddr(p *host.Proc, verb string, rest []string) int {
	dev, other := device(rest)
	if len(other) != 1 || dev == "" {
		return p.Refusef("ip addr %s %s", verb, strings.Join(rest, " "))
	}
	a, err := netip.ParsePrefix(other[0])
	if err != nil {
		ip, err := netip.ParseAddr(other[0])
		if err != nil {
			fmt.Fprintf(p.Stderr, "Error: any valid prefix is expected rather than %q.\n", other[0])
			return 1
		}
		a = netip.PrefixFrom(ip, 32)
	}
	n := m.nic(dev)
	if n == nil {
		fmt.Fprintf(p.Stderr, "Cannot find device %q\n", dev)
		return 1
	}
	if verb == "add" {
		if n.has(a.Addr()) {
			fmt.Fprintln(p.Stderr, "RTNETLINK answers: File exists")
			return 2
		}
		n.addrs = append(n.addrs, a)
		return 0
	}
	if !n.has(a.Addr()) {
		fmt.Fprintln(p.Stderr, "RTNETLINK answers: Cannot assign requested address")
		return 2
	}
	n.addrs = slices.DeleteFunc(n.addrs, func(x netip.Prefix) bool { return x.Addr() == a.Addr() })
	m.cutVIP(a.Addr())
	return 0
}

// parseRoute reads NET [via GW] [dev X] [src A] in any order.
func parseRoute(words []string) (route, error) {
	r := route{}
	if len(words) == 0 {
		return r, fmt.Errorf("no destination")
	}
	switch {
	case words[0] == "default":
		r.dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	default:
		p, err := netip.ParsePrefix(words[0])
		if err != nil {
			a, err := netip.ParseAddr(words[0])
			if err != nil {
				return r, fmt.Errorf("any valid prefix is expected rather than %q", words[0])
			}
			p = netip.PrefixFrom(a, 32)
		}
		r.dst = p
	}
	for i := 1; i < len(words); i += 2 {
		if i+1 == len(words) {
			return r, fmt.Errorf("command line is not complete")
		}
		var err error
		switch words[i] {
		case "via":
			r.via, err = netip.ParseAddr(words[i+1])
		case "src":
			r.src, err = netip.ParseAddr(words[i+1])
		case "dev":
			r.dev = words[i+1]
		default:
			err = fmt.Errorf("%q is not simulated", words[i])
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (m *Machine) changeRoute(p *host.Proc, verb string, rest []string) int {
	r, err := parseRoute(rest)
	if err != nil {
		if strings.Contains(err.Error(), "not simulated") {
			return p.Refusef("ip route %s: %v", verb, err)
		}
		if strings.Contains(err.Error(), "not complete") {
			fmt.Fprintln(p.Stderr, "Command line is not complete. Try option \"help\"")
			return 255
		}
		fmt.Fprintf(p.Stderr, "Error: %v.\n", err)
		return 1
	}
	at := slices.IndexFunc(m.routes, func(o route) bool { return o.dst == r.dst })
	if verb == "del" {
		if at < 0 {
			fmt.Fprintln(p.Stderr, "RTNETLINK answers: No such process")
			return 2
		}
		m.routes = slices.Delete(m.routes, at, at+1)
		return 0
	}
	if r.src.IsValid() && !m.owns(r.src) {
		fmt.Fprintln(p.Stderr, "Error: Invalid prefsrc address.")
		return 2
	}
	if r.dev == "" {
		n, _ := m.nicTo(r.via)
		if n == nil {
			fmt.Fprintln(p.Stderr, "RTNETLINK answers: Network is unreachable")
			return 2
		}
		r.dev = n.name
	}
	if at >= 0 {
		if verb == "add" {
			fmt.Fprintln(p.Stderr, "RTNETLINK answers: File exists")
			return 2
		}
		m.routes = slices.Delete(m.routes, at, at+1)
	}
	r.text = r.dst.String()
	if r.dst.Bits() == 0 {
		r.text = "default"
	}
	if r.via.IsValid() {
		r.text += " via " + r.via.String()
	}
	r.text += " dev " + r.dev
	if r.src.IsValid() {
		r.text += " src " + r.src.String()
	}
	m.addRoute(r)
	return 0
}

func (m *Machine) getRoute(p *host.Proc, rest []string) int {
	if len(rest) != 1 {
		return p.Refusef("ip route get %s", strings.Join(rest, " "))
	}
	ip, err := netip.ParseAddr(rest[0])
	if err != nil {
		fmt.Fprintf(p.Stderr, "Error: any valid prefix is expected rather than %q.\n", rest[0])
		return 1
	}
	if n, own := m.nicTo(ip); n != nil {
		fmt.Fprintf(p.Stdout, "%s dev %s src %s \n    cache \n", ip, n.name, own)
		return 0
	}
	for _, r := range m.routes {
		if r.dst.Contains(ip) {
			src := r.src
			if !src.IsValid() {
				_, src = m.nicTo(r.via)
			}
			fmt.Fprintf(p.Stdout, "%s via %s dev %s src %s \n    cache \n", ip, r.via, r.dev, src)
			return 0
		}
	}
	fmt.Fprintln(p.Stderr, "RTNETLINK answers: Network is unreachable")
	return 2
}
