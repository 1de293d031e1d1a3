package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Nodes in a spine-leaf network: their hosts lead to them by routes that go with
// them, see pitrix.LeafRoutes. What the leaf switches have to know, a person is
// asked to tell them.

// LeafFacts is what a node in a spine-leaf network has besides.
type LeafFacts struct {
	Bridge    string `json:"bridge"`     // of the new host, by which it leads to the new machine
	OldBridge string `json:"old_bridge"` // of the old host
}

// leafFacts gives them; nil for a node in any other network.
func leafFacts(n RebuildNode, s *pitrix.Settings) *LeafFacts {
	if !pitrix.SpineLeaf(s) {
		return nil
	}
	old, _ := s.Get("physical_host_network_interface")
	return &LeafFacts{Bridge: cmp.Or(n.Bridge, old), OldBridge: old}
}

// leafRoutes adds to next, and to out when it is not nil, the hosts' files with
// their routes to a node as next has it.
func (n *RebuildNodeFacts) leafRoutes(next, out pitrix.Fleet, keepOld bool) error {
	if n.Leaf == nil {
		return nil
	}
	hosts, err := pitrix.LeafRoutes(next, n.Name, keepOld)
	if err != nil {
		return err
	}
	maps.Copy(next, hosts)
	if out != nil {
		maps.Copy(out, hosts)
	}
	return nil
}

// moves tells whether the node is in a spine-leaf network and gets another host.
func (n *RebuildNodeFacts) moves() bool { return n.Leaf != nil && n.OldHost != n.PhysicalHost }

// leafMoves tells whether any does.
func (r *rebuild) leafMoves() bool {
	for _, n := range r.nodes() {
		if n.moves() {
			return true
		}
	}
	return false
}

// route sets or removes the route of a host to a machine.
func (r *rebuild) route(ctx context.Context, host, address, bridge string, on bool) error {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	hv := r.hypervisor(host)
	if on {
		err = hv.RouteVM(ctx, a, bridge)
	} else {
		err = hv.UnrouteVM(ctx, a, bridge)
	}
	return wrapHost(host, err)
}

// temporaryRoutes sets or removes the routes to the temporary addresses.
func (r *rebuild) temporaryRoutes(ctx context.Context, on bool) error {
	for _, n := range r.nodes() {
		if n.moves() {
			if err := r.route(ctx, n.PhysicalHost, n.Address, n.Leaf.Bridge, on); err != nil {
				return err
			}
		}
	}
	return nil
}

// routeTemporary leads the new hosts to the machines that will be launched.
func (r *rebuild) routeTemporary() engine.Step {
	s := engine.Step{
		ID: "2.5-routes", Section: "2.5", Effect: engine.SetState,
		Title:   "lead the new hosts to the temporary addresses of their machines",
		Observe: observeByDoing,
		Do:      func(ctx context.Context, _ *engine.Act) (any, error) { return nil, r.temporaryRoutes(ctx, true) },
		Undo:    func(ctx context.Context, _ *engine.Act) error { return r.temporaryRoutes(ctx, false) },
	}
	var wanted []string
	for _, n := range r.nodes() {
		if n.moves() {
			s.Lines = append(s.Lines, fmt.Sprintf("host %s: ip route replace %s/32 dev %s, and in rc.local.tail", n.PhysicalHost, n.Address, n.Leaf.Bridge))
			wanted = append(wanted, n.Address+"/32 to "+n.PhysicalHost)
		}
	}
	s.Gate = "a spine-leaf network: do both leaf switches have static routes, with track, of " + strings.Join(wanted, ", ") + "?"
	return s
}

// unrouteTemporary removes those routes, when nobody is there any more.
func (r *rebuild) unrouteTemporary() engine.Step {
	return engine.Step{
		ID: "8.3-routes", Section: "8.3", Effect: engine.SetState,
		Title:   "take the routes to the temporary addresses off the new hosts",
		Lines:   []string{"by hand, afterwards: the leaf switches' routes of these addresses"},
		Observe: observeByDoing,
		Do:      func(ctx context.Context, _ *engine.Act) (any, error) { return nil, r.temporaryRoutes(ctx, false) },
		Undo:    func(ctx context.Context, _ *engine.Act) error { return r.temporaryRoutes(ctx, true) },
	}
}

// moveRoutes gives the new host of a node the route to its final address, and
// takes it from the old one, whose machine is off.
func (r *rebuild) moveRoutes(i int) engine.Step {
	n := &r.f.Nodes[i]
	set := func(ctx context.Context, on bool) error {
		// First away, then there: never two hosts that claim to lead to it.
		steps := []struct {
			host, bridge string
			on           bool
		}{{n.OldHost, n.Leaf.OldBridge, !on}, {n.PhysicalHost, n.Leaf.Bridge, on}}
		if !on {
			steps[0], steps[1] = steps[1], steps[0]
		}
		for _, s := range steps {
			if err := r.route(ctx, s.host, n.Final, s.bridge, s.on); err != nil {
				return err
			}
		}
		return nil
	}
	return engine.Step{
		ID: r.sec(i) + "-routes", Section: r.sec(i), Effect: engine.SetState,
		Title: fmt.Sprintf("lead host %s to %s, and host %s no more", n.PhysicalHost, n.Final, n.OldHost),
		Lines: []string{
			fmt.Sprintf("host %s: ip route replace %s/32 dev %s, and in rc.local.tail", n.PhysicalHost, n.Final, n.Leaf.Bridge),
			fmt.Sprintf("host %s: ip route del %s/32 dev %s, and out of rc.local.tail", n.OldHost, n.Final, n.Leaf.OldBridge),
			leafSwitches(n),
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := set(ctx, true); err != nil {
				return nil, err
			}
			a.Progress("%s", leafSwitches(n))
			return nil, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			if err := set(ctx, false); err != nil {
				return err
			}
			a.Progress("by hand, now: the routes of both leaf switches of %s/32 back to %s", n.Final, n.OldHost)
			return nil
		},
	}
}

// leafChapter is moveRoutes for a node that is rebuilt in place on another host.
func (r *rebuild) leafChapter(i int) []engine.Step {
	if !r.f.Nodes[i].moves() {
		return nil
	}
	return r.chapter(i, 3, r.moveRoutes(i))
}

// leafSwitches is what a person does while the node is switched: the machine
// waits at its new address, and goes back if nobody reaches it.
func leafSwitches(n *RebuildNodeFacts) string {
	return fmt.Sprintf("by hand, now: the static routes, with track, of both leaf switches of %s/32 from %s to %s", n.Final, n.OldHost, n.PhysicalHost)
}

// compareLeaf sees that the way to a node and from it is as its settings say:
// its gateway, and the routes of both hosts.
func (r *rebuild) compareLeaf(ctx context.Context, a *engine.Act, l *link, n *RebuildNodeFacts, switched bool) error {
	if !n.moves() {
		return nil
	}
	s, final, err := r.settings(a, n)
	if err != nil {
		return err
	}
	if switched {
		s = final
	}
	if gateway, _ := s.Get("mgmt_network_gateway"); gateway != "" {
		out, err := run(ctx, l, "ip route show default")
		if err != nil {
			return err
		}
		if !strings.Contains(strings.Join(strings.Fields(out), " ")+" ", " via "+gateway+" ") {
			return fmt.Errorf("the new %s does not lead by its gateway %s, but: %s", n.Name, gateway, orNone(strings.TrimSpace(out)))
		}
	}
	address, _ := s.Get("mgmt_network_address")
	at, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	for _, want := range []struct {
		host, bridge string
		there        bool
	}{{n.PhysicalHost, n.Leaf.Bridge, true}, {n.OldHost, n.Leaf.OldBridge, false}} {
		have, err := r.hypervisor(want.host).HasRoute(ctx, at, want.bridge)
		if err != nil {
			return wrapHost(want.host, err)
		}
		if have != want.there {
			return fmt.Errorf("host %s has a route to %s by %s: %t, and it should be %t", want.host, at, want.bridge, have, want.there)
		}
	}
	return nil
}
