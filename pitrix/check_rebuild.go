package pitrix

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A Phase says where in the rebuild of a node its settings belong.
type Phase string

const (
	// PhaseBuild: the new VM is built on temporary addresses while the old one
	// serves.
	PhaseBuild Phase = "build"
	// PhaseSwitch: the new VM has the old one's addresses, and the old one is
	// about to be shut down.
	PhaseSwitch Phase = "switch"
	// PhaseInPlace: the old VM is shut down before the new one is made.
	PhaseInPlace Phase = "in-place"
)

// CheckRebuild holds the settings next against the fleet as it was before the
// rebuild, old. Phases names the nodes that are rebuilt and where each stands;
// while the second of a pair is still in PhaseBuild the first may be in
// PhaseSwitch. Besides what CheckFleet says of next it finds:
//
//	R4, R7   in PhaseBuild an outer or management address that anything in old
//	         or next uses; in the other phases one that is not the old one
//	R5       beside the old node, a VM on the same physical host: the forced
//	         launch would destroy the old one
//	R10      a MAC that old or taken has; another role, zone or name
//	rebuild  any other file that changed, came or went; in a spine-leaf network
//	         the hosts' routes to the rebuilt nodes may change
//
// Taken, of TakenMACs and AddMACs, is not looked at for nodes in PhaseSwitch:
// afterwards the new VM itself is found by it. A nil taken is an empty one.
func CheckRebuild(old, next Fleet, phases map[string]Phase, taken map[MAC]string) []Problem {
	c := &rebuildChecker{used: map[netip.Addr]string{}, macs: map[MAC]string{}, taken: taken}
	// First who has an address, then who knows one: a gateway, a name server or
	// the firstbox is not free either.
	for _, own := range []bool{true, false} {
		for _, n := range nodesOf(old) {
			for _, e := range n.s.now.entries {
				if strings.HasSuffix(e.key, "_network_address") == own {
					c.use(n, e)
				}
			}
		}
	}
	c.macs = TakenMACs(old)
	for _, name := range slices.Sorted(maps.Keys(union(old, next))) {
		o, n := old[name], next[name]
		phase, rebuilt := phases[name]
		switch {
		case rebuilt && (o == nil || n == nil):
			c.file(name, "the node is to be rebuilt, but it has no file before or none after; name a node that is there")
		case rebuilt:
			c.node(&node{name: name, s: o, vm: true}, &node{name: name, s: n, vm: true}, phase)
		case o == nil:
			c.file(name, "the file is new, although only the rebuilt nodes may change; take it out, or move it when it is a copy")
		case n == nil:
			c.file(name, "the file is gone, although only the rebuilt nodes may change; put it back")
		case !bytes.Equal(o.now.src, n.now.src) && !leafRouteOnly(o, n, next, phases):
			p := Problem{File: n.Name(), Line: 1, Col: 1}
			if keys := DiffSettings(o, n); len(keys) > 0 {
				p = (&node{name: name, s: n}).problem(keys[0].Key)
			}
			p.Rule, p.Text = RuleRebuild, "the file changed, although only the rebuilt nodes may; put it back"
			c.problems = append(c.problems, p)
		}
	}
	for name := range phases {
		if old[name] == nil && next[name] == nil {
			c.file(name, "the node is to be rebuilt, but there is no file of this name; name a node that is there")
		}
	}
	problems := append(slices.DeleteFunc(CheckFleet(next), func(p Problem) bool { return oldLeafRoute(p, old, next, phases) }), c.problems...)
	sortProblems(problems)
	return problems
}

// leafRouteOnly says whether a host's file changed in nothing but its routes to
// rebuilt VMs, which in a spine-leaf network move with them (R8).
func leafRouteOnly(old, now *Settings, next Fleet, phases map[string]Phase) bool {
	changed := DiffSettings(old, now)
	for _, d := range changed {
		vm := leafVM(d.Key, next)
		if _, rebuilt := phases[vm]; vm == "" || !rebuilt {
			return false
		}
	}
	return len(changed) > 0
}

// oldLeafRoute says whether the problem is the route of the old node's host to
// the old node, which serves until the switch.
func oldLeafRoute(p Problem, old, next Fleet, phases map[string]Phase) bool {
	vm := leafVM(p.Key, next)
	if p.Rule != "R8" || vm == "" || phases[vm] != PhaseBuild || old[vm] == nil {
		return false
	}
	host, _ := old[vm].Get("physical_host")
	address, _ := old[vm].Get("mgmt_network_address")
	for _, n := range nodesOf(next) {
		if n.s.Name() == p.File && n.get("mgmt_network_address") == host {
			at, _ := findAddress(n.get(p.Key), address)
			return len(at) > 0
		}
	}
	return false
}

func union(a, b Fleet) map[string]bool {
	out := map[string]bool{}
	for _, f := range []Fleet{a, b} {
		for name := range f {
			out[name] = true
		}
	}
	return out
}

type rebuildChecker struct {
	used     map[netip.Addr]string // addresses of old and where
	macs     map[MAC]string        // of old
	taken    map[MAC]string
	problems []Problem
}

// use notes the addresses in a value.
func (c *rebuildChecker) use(n *node, e entry) {
	if strings.HasSuffix(e.key, "_netmask") {
		return
	}
	for _, word := range strings.Fields(e.value) {
		if a, err := ipv4(word); err == nil {
			if _, have := c.used[a]; !have {
				c.used[a] = n.place(e.key)
			}
		}
	}
}

func (c *rebuildChecker) file(name, text string) {
	c.problems = append(c.problems, Problem{File: name, Line: 1, Col: 1, Rule: RuleRebuild, Text: text})
}

func (c *rebuildChecker) node(old, next *node, phase Phase) {
	add := func(rule, key, format string, args ...any) {
		ck := checker{}
		ck.add(next, rule, key, format, args...)
		c.problems = append(c.problems, ck.problems...)
	}
	switch phase {
	case PhaseBuild, PhaseSwitch, PhaseInPlace:
	default:
		c.file(next.name, "internal error: no phase \""+string(phase)+"\"")
		return
	}
	if next.get("physical_host_network_interface") == "" {
		add("R6", "physical_host_network_interface", "empty, but only VMs are rebuilt; name the host's management bridge")
	}
	for _, key := range []string{"role", "is_region", "region_id", "zone_id"} {
		if next.get(key) != old.get(key) {
			add("R10", key, "%q, but the old node has %q; a rebuilt node stays what it is", next.get(key), old.get(key))
		}
	}
	if phase != PhaseInPlace && next.get("physical_host") == old.get("physical_host") {
		add("R5", "physical_host", "%s carries the old node, which a forced launch there would destroy; choose another host", next.get("physical_host"))
	}
	for _, key := range []string{"mgmt_network_address", "eip_network_address"} {
		was, now := old.get(key), next.get(key)
		rule := "R7"
		if key == "eip_network_address" {
			rule = "R4"
		}
		switch a, err := ipv4(now); {
		case phase != PhaseBuild && now != was:
			add(rule, key, "%q, but in the end the node has its old address, %q; write that", now, was)
		case phase != PhaseBuild || err != nil: // CheckFleet speaks of those that are none
		case now == was:
			add(rule, key, "%s is still the old node's, which serves; write an unused temporary address", now)
		default:
			if place, used := c.used[a]; used {
				add(rule, key, "%s is in use, %s; write an unused temporary address", now, place)
			}
		}
	}
	for _, e := range next.s.now.entries {
		m, err := ParseMAC(e.value)
		if !macKey(e.key) || err != nil || phase == PhaseInPlace && strings.EqualFold(e.value, old.get(e.key)) {
			continue
		}
		place, used := c.macs[m]
		if !used && phase != PhaseSwitch {
			place, used = c.taken[m]
		}
		if used {
			add("R10", e.key, "%s is taken, %s; generate another one", m, place)
		}
	}
}
