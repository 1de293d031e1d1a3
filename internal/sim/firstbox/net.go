package firstbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// What was measured of a Linux neighbour whose machine went silent because its
// address has moved to another MAC (knowledge: 23 to 43 s without an answer
// when it is busy): it keeps asking the old MAC for arpBusy after the last
// answer, and for arpIdle after the first question that had none.
const (
	arpBusy = 33 * time.Second
	arpIdle = 8 * time.Second
)

// nic is a network interface of a machine.
type nic struct {
	name    string
	mac     string
	segment string         // what the bridge it hangs on is connected to; "" = nothing
	addrs   []netip.Prefix // the first is its own; virtual ones follow
}

func (n *nic) has(ip netip.Addr) bool {
	return slices.ContainsFunc(n.addrs, func(p netip.Prefix) bool { return p.Addr() == ip })
}

// neighbour is an entry of an ARP cache.
type neighbour struct {
	mac       string
	confirmed time.Time
	failing   time.Time // zero: it answers
}

// route is an entry of a routing table.
type route struct {
	dst  netip.Prefix
	via  netip.Addr // invalid: on link
	dev  string
	src  netip.Addr // may be invalid
	text string     // as ip route shows it
}

// alive reports whether a machine's network works. Site.mu is held.
func (m *Machine) alive() bool { return m.Host == nil || m.Host.Up() }

// nicTo is the interface on whose link an address is, and the machine's own
// address there.
func (m *Machine) nicTo(ip netip.Addr) (*nic, netip.Addr) {
	for _, n := range m.nics {
		for _, p := range n.addrs {
			if p.Bits() < 32 && p.Contains(ip) {
				return n, n.addrs[0].Addr()
			}
		}
	}
	return nil, netip.Addr{}
}

func (m *Machine) nic(name string) *nic {
	for _, n := range m.nics {
		if n.name == name {
			return n
		}
	}
	return nil
}

// owns reports whether a machine has an address now.
func (m *Machine) owns(ip netip.Addr) bool {
	return slices.ContainsFunc(m.nics, func(n *nic) bool { return n.has(ip) })
}

// owner is a machine that answers for an address.
type owner struct {
	m *Machine
	n *nic
}

// owners are the machines that answer an ARP request for ip on a segment.
func (s *Site) owners(segment string, ip netip.Addr) []owner {
	var out []owner
	for _, m := range s.machines {
		for _, n := range m.nics {
			if segment != "" && n.segment == segment && n.has(ip) && m.alive() {
				out = append(out, owner{m, n})
			}
		}
	}
	return out
}

// announce is what everybody on a segment learns from an ARP packet of a
// machine: who has an entry for the address takes the new MAC.
func (s *Site) announce(segment string, ip netip.Addr, mac string) {
	for _, m := range s.machines {
		if e := m.arp[ip]; e != nil && m.onSegment(segment) {
			e.mac, e.confirmed, e.failing = mac, time.Now(), time.Time{}
		}
	}
}

func (m *Machine) onSegment(segment string) bool {
	return slices.ContainsFunc(m.nics, func(n *nic) bool { return n.segment == segment })
}

// neighbour finds out who gets the packets that m sends to an address on its
// link; nil: nobody answers.
func (s *Site) neighbour(m *Machine, ip netip.Addr) (*Machine, error) {
	if m.owns(ip) {
		return m, nil
	}
	n, own := m.nicTo(ip)
	if n == nil {
		return nil, syscall.ENETUNREACH
	}
	all, now := s.owners(n.segment, ip), time.Now()
	if e := m.arp[ip]; e != nil {
		for _, o := range all {
			if o.n.mac == e.mac {
				e.confirmed, e.failing = now, time.Time{}
				return o.m, nil
			}
		}
		if e.failing.IsZero() {
			e.failing = now
		}
		if now.Before(e.confirmed.Add(arpBusy)) || now.Before(e.failing.Add(arpIdle)) {
			return nil, syscall.ETIMEDOUT
		}
		delete(m.arp, ip)
	}
	s.announce(n.segment, own, n.mac)
	if len(all) == 0 {
		return nil, syscall.EHOSTUNREACH
	}
	s.noteDuplicate(ip, all)
	last := all[len(all)-1] // the last answer stays in the cache
	m.arp[ip] = &neighbour{mac: last.n.mac, confirmed: now}
	return last.m, nil
}

func (s *Site) noteDuplicate(ip netip.Addr, all []owner) {
	if len(all) < 2 {
		return
	}
	var names []string
	for _, o := range all {
		names = append(names, o.m.label)
	}
	slices.Sort(names)
	s.duplicates[ip.String()+": "+strings.Join(names, " and ")] = true
}

// reach finds the machine that a packet from m to ip arrives at, and proves
// that its answer arrives as well. Site.mu is held.
func (s *Site) reach(m *Machine, ip netip.Addr) (*Machine, error) {
	if m.owns(ip) || ip.IsLoopback() {
		return m, nil
	}
	if n, _ := m.nicTo(ip); n == nil {
		return s.reachRouted(m, ip)
	}
	far, err := s.neighbour(m, ip)
	if err != nil {
		return nil, err
	}
	_, own := m.nicTo(ip)
	if back, err := s.neighbour(far, own); err != nil {
		return nil, err
	} else if back != m {
		return nil, syscall.ETIMEDOUT // the answer went to another machine
	}
	return far, nil
}

// reachRouted follows a route. Behind routers are the VM network, and nothing
// else that anybody here asks for.
func (s *Site) reachRouted(m *Machine, ip netip.Addr) (*Machine, error) {
	for _, r := range m.routes {
		if !r.dst.Contains(ip) || !r.via.IsValid() {
			continue
		}
		gw, err := s.neighbour(m, r.via)
		if err != nil {
			return nil, err
		}
		// A packet from an address that the router does not find again has no
		// answer.
		src := r.src
		if !src.IsValid() {
			_, src = m.nicTo(r.via)
		}
		if back, err := s.neighbour(gw, src); err != nil {
			return nil, err
		} else if back != m {
			return nil, syscall.ETIMEDOUT
		}
		out, _ := m.nicTo(r.via)
		for _, far := range s.machines {
			if far.owns(ip) && far.alive() && !(out.segment == "eip" && far.onSegment("vm network")) {
				return far, nil // private networks are not behind the router of the EIPs
			}
		}
		return nil, syscall.EHOSTUNREACH
	}
	return nil, syscall.ENETUNREACH
}

// probe is an ARP request from a machine that does not look into its cache:
// the MACs of everybody who answers for ip but the machine itself.
func (s *Site) probe(m *Machine, ifname string, ip netip.Addr) []string {
	n := m.nic(ifname)
	if n == nil {
		return nil
	}
	var macs []string
	all := s.owners(n.segment, ip)
	for _, o := range all {
		if o.m != m {
			macs = append(macs, o.n.mac)
		}
	}
	s.noteDuplicate(ip, all)
	return macs
}

// Dial connects from a machine of the site to HOST:PORT. Nobody listening is
// syscall.ECONNREFUSED; no machine with that address syscall.EHOSTUNREACH; a
// neighbour that asks the wrong MAC syscall.ETIMEDOUT, at once. From nil is
// somewhere outside, behind the router.
func (s *Site) Dial(ctx context.Context, from *Machine, to string) (net.Conn, error) {
	name, p, err := net.SplitHostPort(to)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, fmt.Errorf("dial %s: bad port", to)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	if from == nil {
		from = s.router
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		if ip, err = s.lookup(from, name); err != nil {
			return nil, fmt.Errorf("dial %s: %w", to, err)
		}
	}
	s.mu.Lock()
	far, err := s.reach(from, ip)
	s.mu.Unlock()
	if err == nil && far.Host == nil {
		err = syscall.ECONNREFUSED
	}
	if err != nil {
		return nil, host.DialError(to, err)
	}
	if port == 22 {
		near, there := s.opt.Pipe()
		if !s.spawn(func() { far.Host.ServeSSH(there); _ = there.Close() }) {
			return nil, host.DialError(to, syscall.EHOSTUNREACH)
		}
		return s.track(near, from, far, ip, port), nil
	}
	s.mu.Lock()
	names := far.dns != nil && port == 53
	_, own := from.nicTo(ip)
	s.mu.Unlock()
	if names {
		near, there := s.opt.Pipe()
		if !s.spawn(func() { s.serveDNS(far, own, there); _ = there.Close() }) {
			return nil, host.DialError(to, syscall.EHOSTUNREACH)
		}
		return s.track(near, from, far, ip, port), nil
	}
	real, ok := far.Host.Endpoint(port)
	if !ok {
		return nil, host.DialError(to, syscall.ECONNREFUSED)
	}
	c, err := s.opt.Connect(ctx, real)
	if err != nil {
		return nil, host.DialError(to, syscall.ECONNREFUSED)
	}
	return s.track(c, from, far, ip, port), nil
}

// track enters a connection into the tables of the hosts at its ends.
func (s *Site) track(c net.Conn, from, to *Machine, ip netip.Addr, port int) net.Conn {
	s.mu.Lock()
	_, own := from.nicTo(ip)
	s.mu.Unlock()
	if !own.IsValid() {
		own = outside
	}
	return host.TrackBoth(c, from.Host, to.Host, host.Conn{LocalIP: own.String(), LocalPort: s.locals.Next(), RemoteIP: ip.String(), RemotePort: port})
}

// lookup resolves a name as a machine does: by its /etc/hosts, where the first
// line with the name counts.
func (s *Site) lookup(m *Machine, name string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip, nil
	}
	if m.Host != nil {
		data, _ := m.Host.ReadFile("/etc/hosts")
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) > 1 && slices.Contains(f[1:], name) {
				if ip, err := netip.ParseAddr(f[0]); err == nil {
					return ip, nil
				}
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("could not resolve hostname %s: name or service not known", name)
}
