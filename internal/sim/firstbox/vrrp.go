package firstbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// takeover is how long the old and the new holder disagree when a higher
// priority comes back: 0.07 s were measured of keepalived 2.2.7.
const takeover = 70 * time.Millisecond

const keepalivedFile = "/etc/keepalived/keepalived.conf"

// vipKey is a virtual router on a segment.
type vipKey struct {
	segment string
	id      int
}

// vrrpConfig is a vrrp_instance of keepalived.conf.
type vrrpConfig struct {
	name      string
	iface     string
	id        int
	priority  int
	advert    time.Duration
	nopreempt bool
	vip       netip.Prefix
}

// vrrp is a running keepalived with one instance, by the rules of RFC 3768:
// a backup takes over when it has heard nothing for three intervals and the
// skew (256-priority)/256 s; a holder that ends says so, with priority 0, and
// then only the skew is waited for.
type vrrp struct {
	vrrpConfig
	m      *Machine
	key    vipKey
	master bool
	timer  *time.Timer
	due    time.Time // of timer
	over   bool
}

func (v *vrrp) skew() time.Duration { return time.Second * time.Duration(256-v.priority) / 256 }

func (v *vrrp) stopTimer() {
	if v.timer != nil {
		v.timer.Stop()
	}
}

// after sets the one timer of v. Site.mu is held, and by do as well.
func (v *vrrp) after(d time.Duration, do func()) {
	v.stopTimer()
	s := v.m.site
	v.due = time.Now().Add(d)
	v.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !v.over && s.ctx.Err() == nil {
			do()
		}
	})
}

// start begins as a backup, whatever the state in the file says: so the program
// does when it hears of somebody else in time. Site.mu is held.
func (s *Site) startVRRP(m *Machine, c vrrpConfig) (*vrrp, error) {
	n := m.nic(c.iface)
	if n == nil {
		return nil, fmt.Errorf("(%s) interface %s does not exist", c.name, c.iface)
	}
	v := &vrrp{vrrpConfig: c, m: m, key: vipKey{n.segment, c.id}}
	s.routers[v.key] = append(s.routers[v.key], v)
	m.vrrp = v
	v.await(3*v.advert + v.skew())
	return v, nil
}

// await becomes the holder unless an advertisement comes.
func (v *vrrp) await(d time.Duration) { v.after(d, v.expire) }

// expire is the end of such a wait. When this process has stood still, several
// timers are over at once, and run in any order: an advertisement that was due
// before has come before.
func (v *vrrp) expire() {
	due := v.due
	for _, o := range slices.Clone(v.m.site.routers[v.key]) {
		if o != v && o.master && o.m.alive() && o.due.Before(due) {
			o.advertise()
		}
	}
	if v.due.Equal(due) {
		v.become()
	}
}

// become takes the address.
func (v *vrrp) become() {
	s := v.m.site
	n := v.m.nic(v.iface)
	if n == nil || len(n.addrs) == 0 {
		v.await(v.advert) // no address yet to speak from
		return
	}
	v.master = true
	if !n.has(v.vip.Addr()) {
		n.addrs = append(n.addrs, v.vip)
	}
	now := time.Now()
	ip := v.vip.Addr()
	var before *vrrp
	for _, o := range s.routers[v.key] {
		if o != v && o.master {
			before = o
		}
	}
	s.announce(n.segment, ip, n.mac)
	s.vipTaken(ip, before, v, now)
	v.advertise()
	s.noteDuplicate(ip, s.owners(n.segment, ip))
}

// advertise says every interval who holds the address.
func (v *vrrp) advertise() {
	s := v.m.site
	if !s.cfg.Faults.Deaf {
		for _, o := range slices.Clone(s.routers[v.key]) {
			if o != v && o.m.alive() && v.master {
				o.hear(v)
			}
		}
	}
	if v.master {
		v.after(v.advert, v.advertise)
	}
}

// hear takes an advertisement of from.
func (v *vrrp) hear(from *vrrp) {
	own, other := v.ownAddr(), from.ownAddr()
	switch {
	case v.master && (from.priority > v.priority || from.priority == v.priority && own.Less(other)):
		v.release()
		v.await(3*v.advert + v.skew())
	case v.master:
		// The other will hear of us, and give way.
	case v.nopreempt || from.priority >= v.priority:
		v.await(3*v.advert + v.skew())
	default:
		// Lower, and preemption is on: the timer runs out.
	}
}

func (v *vrrp) ownAddr() netip.Addr {
	n := v.m.nic(v.iface)
	for _, p := range n.addrs {
		if p.Addr() != v.vip.Addr() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// release gives the address up.
func (v *vrrp) release() {
	v.master = false
	n := v.m.nic(v.iface)
	n.addrs = slices.DeleteFunc(n.addrs, func(p netip.Prefix) bool { return p.Addr() == v.vip.Addr() })
	v.m.cutVIP(v.vip.Addr())
}

// finish ends the program in good order: who waits waits for the skew only.
func (v *vrrp) finish() {
	was := v.master
	v.leave()
	if !was {
		return
	}
	lost := time.Now() // before connections are cut: their ends are in the gap
	v.release()
	v.m.site.vipLost(v.vip.Addr(), v, true, lost)
	for _, o := range v.m.site.routers[v.key] {
		if o.m.alive() && !o.master && !v.m.site.cfg.Faults.Deaf {
			o.await(o.skew())
		}
	}
}

// vanish is the end without a word: of the machine (off), or of the program
// alone, which leaves the address where it is.
func (v *vrrp) vanish(off bool) {
	was := v.master
	v.leave()
	if was && off {
		lost := time.Now()
		v.release()
		v.m.site.vipLost(v.vip.Addr(), v, false, lost)
	}
}

func (v *vrrp) leave() {
	s := v.m.site
	v.over = true
	v.stopTimer()
	s.routers[v.key] = slices.DeleteFunc(s.routers[v.key], func(o *vrrp) bool { return o == v })
	if v.m.vrrp == v {
		v.m.vrrp = nil
	}
}

// A Gap is a window in which nobody, or more than one, held a virtual address.
type Gap struct {
	VIP       string        `json:"vip"`
	From      string        `json:"from"` // machine
	To        string        `json:"to,omitempty"`
	Graceful  bool          `json:"graceful"` // the holder had said that it goes
	Lost      time.Time     `json:"lost"`
	Announced time.Time     `json:"announced,omitzero"` // zero: still open
	Length    time.Duration `json:"-"`

	ip netip.Addr
}

// vipLost begins a gap. Site.mu is held.
func (s *Site) vipLost(ip netip.Addr, from *vrrp, graceful bool, at time.Time) {
	if s.ctx.Err() != nil || s.held(ip) {
		return
	}
	s.gaps = append(s.gaps, &Gap{VIP: ip.String(), ip: ip, From: from.m.label, Graceful: graceful, Lost: at})
}

// held reports whether a machine that is on has an address.
func (s *Site) held(ip netip.Addr) bool {
	return slices.ContainsFunc(s.machines, func(m *Machine) bool { return m.owns(ip) && m.alive() })
}

// vipTaken ends the gap of an address, or is a short one by itself when the
// address moved without having been lost.
func (s *Site) vipTaken(ip netip.Addr, before, v *vrrp, now time.Time) {
	for _, g := range s.gaps {
		if g.ip == ip && g.Announced.IsZero() {
			g.To, g.Announced, g.Length = v.m.label, now, now.Sub(g.Lost)
			return
		}
	}
	if before != nil {
		s.gaps = append(s.gaps, &Gap{
			VIP: ip.String(), ip: ip, From: before.m.label, To: v.m.label, Graceful: true,
			Lost: now, Announced: now.Add(takeover), Length: takeover,
		})
	}
}

// Gaps are the windows up to now.
func (s *Site) Gaps() []Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Gap
	for _, g := range s.gaps {
		c := *g
		if c.Announced.IsZero() {
			c.Length = time.Since(c.Lost)
		}
		out = append(out, c)
	}
	return out
}

// Gap reports whether a time from begin to end overlaps a window of an
// address; n is its place in Gaps.
func (s *Site) Gap(vip string, begin, end time.Time) (n int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, g := range s.gaps {
		if g.VIP == vip && !end.Before(g.Lost) && (g.Announced.IsZero() || !begin.After(g.Announced)) {
			return i, true
		}
	}
	return 0, false
}

// Holders are the machines that have an address now.
func (s *Site) Holders(vip string) []*Machine {
	ip, err := netip.ParseAddr(vip)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Machine
	for _, m := range s.machines {
		if m.owns(ip) && m.alive() {
			out = append(out, m)
		}
	}
	return out
}

// parseKeepalived reads keepalived.conf: one vrrp_instance with one address.
// What this simulator does not know is an error.
func parseKeepalived(text string) (vrrpConfig, error) {
	c := vrrpConfig{advert: time.Second, priority: 100}
	var block []string
	found := false
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, "!")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		bad := func() (vrrpConfig, error) {
			return c, fmt.Errorf("line %d: %q is not simulated", n+1, strings.Join(f, " "))
		}
		if f[len(f)-1] == "{" {
			block = append(block, f[0])
			switch f[0] {
			case "vrrp_instance":
				if found || len(f) != 3 {
					return bad()
				}
				c.name, found = f[1], true
			case "global_defs", "authentication", "virtual_ipaddress":
			default:
				return bad()
			}
			continue
		}
		if f[0] == "}" {
			if len(block) == 0 {
				return bad()
			}
			block = block[:len(block)-1]
			continue
		}
		at := strings.Join(block, "/")
		number := func(to *int) bool {
			v, err := strconv.Atoi(f[len(f)-1])
			*to = v
			return err == nil && len(f) == 2
		}
		ok := true
		switch at + "/" + f[0] {
		case "vrrp_instance/state", "global_defs/router_id", "vrrp_instance/authentication/auth_type", "vrrp_instance/authentication/auth_pass":
		case "vrrp_instance/interface":
			c.iface = f[len(f)-1]
		case "vrrp_instance/virtual_router_id":
			ok = number(&c.id)
		case "vrrp_instance/priority":
			ok = number(&c.priority)
		case "vrrp_instance/advert_int":
			var sec int
			ok = number(&sec)
			c.advert = time.Duration(sec) * time.Second
		case "vrrp_instance/nopreempt":
			c.nopreempt = true
		default:
			if at != "vrrp_instance/virtual_ipaddress" || c.vip.IsValid() {
				return bad()
			}
			var err error
			c.vip, err = netip.ParsePrefix(f[0])
			ok = err == nil
		}
		if !ok {
			return bad()
		}
	}
	if !found || len(block) > 0 || c.iface == "" || c.id == 0 || !c.vip.IsValid() || c.priority < 1 || c.priority > 254 || c.advert <= 0 {
		return c, fmt.Errorf("no whole vrrp_instance")
	}
	return c, nil
}
