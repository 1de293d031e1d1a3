package hostinv

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// scope is an address as far as it matters: all "any" addresses are one.
func (l Listener) scope() string {
	switch l.Addr {
	case "0.0.0.0", "::":
		return "*"
	}
	return l.Addr
}

// port is the identity of listeners: what clients connect to.
type port struct {
	proto string
	n     int
}

// service is who listens on a port, and where.
type service struct {
	scopes   []string
	programs []string // sorted
}

// services leaves out ports that the kernel chose: nobody can know them
// beforehand, and the processes tell whether the program runs.
func services(i *Inventory) map[port]service {
	m := map[port]service{}
	for _, l := range i.Listeners {
		if l.Ephemeral || l.Proto == "udp" && l.Port >= 32768 {
			continue
		}
		k := port{l.Proto, l.Port}
		s := m[k]
		if !slices.Contains(s.scopes, l.scope()) { // IPv4 and IPv6 of one service
			s.scopes = append(s.scopes, l.scope())
		}
		if l.Process != "" && !slices.Contains(s.programs, l.Process) {
			s.programs = append(s.programs, l.Process)
			sort.Strings(s.programs)
		}
		m[k] = s
	}
	return m
}

func missing(of, in []string) (out []string) {
	for _, s := range of {
		if !slices.Contains(in, s) {
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return out
}

func (d *differ) listeners() {
	d.area(SectionOwners)
	allB, allA, ok := d.area(SectionListeners)
	if !ok {
		return
	}
	b, a := services(d.before), services(d.after)
	ports := map[port]bool{}
	for k := range b {
		ports[k] = true
	}
	for k := range a {
		ports[k] = true
	}
	for k := range ports {
		gone, came := missing(b[k].scopes, a[k].scopes), missing(a[k].scopes, b[k].scopes)
		key := func(s string) string { return fmt.Sprintf("%s %s:%d", k.proto, s, k.n) }
		if x, y := b[k].programs, a[k].programs; len(x) > 0 && len(y) > 0 && !slices.Equal(x, y) && !sameService(x, y) {
			d.add(Finding{Area: SectionListeners, Key: key("*"), Kind: Altered, Field: "program", Before: strings.Join(x, " "), After: strings.Join(y, " "),
				Severity: Lost, Reason: reasonProgram})
		}
		if len(gone) > 0 && len(came) > 0 && allB && allA {
			f := Finding{Area: SectionListeners, Key: key("*"), Kind: Altered, Field: "address", Before: strings.Join(gone, ","), After: strings.Join(came, ","),
				Severity: Lost, Reason: reasonMoved}
			if slices.Contains(came, "*") {
				f.Severity, f.Reason = Changed, reasonExposed
			}
			d.add(f)
			continue
		}
		for _, s := range gone {
			if !allA {
				break
			}
			f := Finding{Area: SectionListeners, Key: key(s), Kind: Removed, Before: "1", After: "0", Severity: Lost, Reason: reasonGone}
			if slices.Contains(a[k].scopes, "*") {
				f.Severity = Changed // the listener on every address serves it
			}
			d.add(f)
		}
		for _, s := range came {
			if allB {
				d.add(Finding{Area: SectionListeners, Key: key(s), Kind: Added, Before: "0", After: "1", Severity: New, Reason: reasonNew})
			}
		}
	}
}

// sameService: systemd holds sockets for what it starts on demand, and
// docker-proxy those of containers, or nobody does.
func sameService(x, y []string) bool {
	for _, keeper := range []string{"systemd", "docker-proxy"} {
		if slices.Contains(x, keeper) || slices.Contains(y, keeper) {
			return true
		}
	}
	return false
}
