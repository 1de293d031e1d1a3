package firstbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

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
		clear(m.arp)
		return 0
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

// options reads the flags that stand before operands: values lists the letters
// that take a value.
func options(args []string, plain, values string) (is map[byte]string, rest []string, bad string) {
	is = map[byte]string{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			return is, append(rest, args...), ""
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		for i := 1; i < len(a); i++ {
			switch {
			case strings.IndexByte(values, a[i]) >= 0:
				v := a[i+1:]
				if v == "" {
					if len(args) == 0 {
						return is, rest, a
					}
					v, args = args[0], args[1:]
				}
				is[a[i]] = v
				i = len(a)
			case strings.IndexByte(plain, a[i]) >= 0:
				is[a[i]] = "yes"
			default:
				return is, rest, a
			}
		}
	}
	return is, rest, ""
}

func seconds(s string, otherwise float64) time.Duration {
	if s == "" {
		return time.Duration(otherwise * float64(time.Second))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

// cmdArping is iputils' arping: -D asks who else has an address (status 1:
// somebody), -U and -A tell everybody who has it.
func (s *Site) cmdArping(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	is, rest, bad := options(p.Args[1:], "DUAqfb", "cwIsi")
	if bad != "" || len(rest) != 1 {
		return p.Refusef("option %s", bad)
	}
	ip, err := netip.ParseAddr(rest[0])
	if err != nil {
		return p.Failf(2, "unknown host %s", rest[0])
	}
	dev := is['I']
	if dev == "" {
		dev = "eth0"
	}
	s.mu.Lock()
	n := m.nic(dev)
	var macs []string
	sent := false
	if n != nil {
		macs = s.probe(m, dev, ip)
		if is['U'] != "" || is['A'] != "" {
			src := ip
			if is['s'] != "" {
				if src, err = netip.ParseAddr(is['s']); err != nil {
					s.mu.Unlock()
					return p.Failf(2, "bad source %s", is['s'])
				}
			}
			if sent = n.has(src); sent {
				s.announce(n.segment, src, n.mac)
			}
		}
	}
	s.mu.Unlock()
	if n == nil {
		return p.Failf(2, "Interface %q not found", dev)
	}
	fmt.Fprintf(p.Stdout, "ARPING %s from %s %s\n", ip, "0.0.0.0", dev)
	if is['U'] != "" || is['A'] != "" {
		if !sent {
			return p.Failf(2, "bind: Cannot assign requested address")
		}
		fmt.Fprintf(p.Stdout, "Sent 1 probes (1 broadcast(s))\nReceived 0 response(s)\n")
		return 0
	}
	if len(macs) == 0 {
		if p.Host.Sleep(ctx, min(seconds(is['w'], 2), 5*time.Second)) != nil {
			return 143
		}
	}
	for _, mac := range macs {
		fmt.Fprintf(p.Stdout, "Unicast reply from %s [%s]  0.800ms\n", ip, strings.ToUpper(mac))
	}
	fmt.Fprintf(p.Stdout, "Sent 1 probes (1 broadcast(s))\nReceived %d response(s)\n", len(macs))
	if is['D'] != "" {
		return b2i(len(macs) > 0)
	}
	return b2i(len(macs) == 0)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// cmdPing is ping -c N [-w S] [-W S] [-q] HOST.
func (s *Site) cmdPing(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	is, rest, bad := options(p.Args[1:], "qn", "cwWIi")
	if bad != "" || len(rest) != 1 || is['c'] == "" {
		return p.Refusef("only ping -c N [-w S] [-W S] [-q] [-n] [-I X] HOST")
	}
	ip, err := s.lookup(m, rest[0])
	if err != nil {
		return p.Failf(2, "unknown host %s", rest[0])
	}
	fmt.Fprintf(p.Stdout, "PING %s (%s) 56(84) bytes of data.\n", rest[0], ip)
	if s.ping(m, ip) {
		fmt.Fprintf(p.Stdout, "64 bytes from %s: icmp_seq=1 ttl=64 time=0.300 ms\n\n--- %s ping statistics ---\n1 packets transmitted, 1 received, 0%% packet loss, time 0ms\n", ip, rest[0])
		return 0
	}
	if p.Host.Sleep(ctx, min(seconds(is['w']+is['W'], 1), 10*time.Second)) != nil {
		return 143
	}
	fmt.Fprintf(p.Stdout, "\n--- %s ping statistics ---\n1 packets transmitted, 0 received, 100%% packet loss, time 0ms\n", rest[0])
	return 1
}

// ping asks once.
func (s *Site) ping(m *Machine, ip netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	far, err := s.reach(m, ip)
	return err == nil && !slices.Contains(s.cfg.Faults.Unreachable, far.Name)
}

// cmdGetent is getent hosts NAME, and ahosts.
func (s *Site) cmdGetent(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 3 || p.Args[1] != "hosts" && p.Args[1] != "ahosts" && p.Args[1] != "ahostsv4" {
		return p.Refusef("only getent hosts NAME")
	}
	ip, err := s.lookup(s.of(p), p.Args[2])
	if err != nil {
		return 2
	}
	fmt.Fprintf(p.Stdout, "%-15s %s\n", ip, p.Args[2])
	return 0
}
