package slb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// Discover finds every group of every balancer of the region in which s is a
// member: default groups, VServer groups (reached through listeners and
// forwarding rules) and primary/secondary groups of CLB, and the server groups
// of ALB and NLB, used by a listener or not. A server that is a member with
// several ports gives one Membership for each. None is an empty list and no
// error. A product that the region does not offer has no members.
func (c *Client) Discover(ctx context.Context, s Server) ([]Membership, error) {
	balancers, err := c.balancers(ctx, s)
	if err != nil {
		return nil, err
	}
	var all []Membership
	for _, b := range balancers {
		ms, err := c.memberships(ctx, b, s)
		if err != nil {
			return nil, fmt.Errorf("cannot read balancer %s (%s): %w", b.ID, b.Name, wrap(err))
		}
		all = append(all, ms...)
	}
	for _, p := range []Product{ALB, NLB} {
		ms, err := c.groupMemberships(ctx, p, s)
		if err != nil {
			return nil, fmt.Errorf("cannot read the server groups of %s: %w", strings.ToUpper(string(p)), err)
		}
		all = append(all, ms...)
	}
	return all, nil
}

// balancers lists the balancers that know s under any of its names. A member
// that was added by its network interface or address is not found by the ID of
// the instance.
func (c *Client) balancers(ctx context.Context, s Server) ([]alicloud.LoadBalancer, error) {
	if s.InstanceID == "" && len(s.ENIs) == 0 && len(s.IPs) == 0 {
		// Without a filter the API lists the balancers of everybody.
		return nil, errors.New("cannot discover memberships of a server without instance ID, interface or address")
	}
	var all []alicloud.LoadBalancer
	add := func(id, ip string) error {
		got, err := c.api.LoadBalancers(ctx, id, ip)
		for _, b := range got {
			if !slices.ContainsFunc(all, func(o alicloud.LoadBalancer) bool { return o.ID == b.ID }) {
				all = append(all, b)
			}
		}
		return wrap(err)
	}
	for _, id := range append([]string{s.InstanceID}, s.ENIs...) {
		if id != "" {
			if err := add(id, ""); err != nil {
				return nil, err
			}
		}
	}
	for _, ip := range s.IPs {
		if err := add("", ip); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b alicloud.LoadBalancer) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
	return all, nil
}

// names reports whether b is s.
func (s Server) names(b alicloud.Backend) bool {
	return b.ServerID != "" && (b.ServerID == s.InstanceID || slices.Contains(s.ENIs, b.ServerID) || slices.Contains(s.IPs, b.ServerID)) ||
		b.ServerIP != "" && slices.Contains(s.IPs, b.ServerIP)
}

// memberships reads one balancer.
func (c *Client) memberships(ctx context.Context, lb alicloud.LoadBalancer, s Server) ([]Membership, error) {
	listeners, err := c.api.Listeners(ctx, lb.ID)
	if err != nil {
		return nil, err
	}
	// Who forwards to which group. The default group has the key "".
	to, masterSlave := map[string][]Listener{}, map[string][]Listener{}
	for _, l := range listeners {
		out := Listener{
			LoadBalancerID: lb.ID, Port: l.Port, Protocol: l.Protocol, Scheduler: l.Scheduler, Status: l.Status, HealthCheck: l.HealthCheck,
			Sticky: l.Sticky, StickySeconds: l.StickySeconds, DrainSeconds: l.DrainSeconds,
		}
		switch {
		case l.MasterSlaveGroup != "":
			masterSlave[l.MasterSlaveGroup] = append(masterSlave[l.MasterSlaveGroup], out)
		case l.VServerGroupID == "":
			out.BackendPort = l.BackendPort
			to[""] = append(to[""], out)
		default:
			to[l.VServerGroupID] = append(to[l.VServerGroupID], out)
		}
		if l.Protocol != "http" && l.Protocol != "https" {
			continue // only these have rules
		}
		rules, err := c.api.Rules(ctx, lb.ID, l.Port, l.Protocol)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			viaRule := out
			viaRule.Rule, viaRule.Domain, viaRule.URL, viaRule.BackendPort = r.ID, r.Domain, r.URL, 0
			if r.Own {
				viaRule.Scheduler, viaRule.HealthCheck, viaRule.Sticky, viaRule.StickySeconds = r.Scheduler, r.HealthCheck, r.Sticky, r.StickySeconds
			}
			to[r.VServerGroupID] = append(to[r.VServerGroupID], viaRule)
		}
	}

	var all []Membership
	add := func(m Membership, members []alicloud.Backend) {
		m.LoadBalancerID, m.LoadBalancerName, m.Address, m.LoadBalancerStatus = lb.ID, lb.Name, lb.Address, lb.Status
		m.Managed, m.Protected, m.ProtectedWhy = m.Managed || lb.Managed, lb.Protected, lb.ProtectedWhy
		m.Backends = backends(members)
		for _, b := range members {
			if s.names(b) {
				m.Backend = Backend(b)
				all = append(all, m)
			}
		}
	}
	members, err := c.api.DefaultGroup(ctx, lb.ID)
	if err != nil {
		return nil, err
	}
	add(Membership{Listeners: to[""]}, members)

	groups, err := c.api.VServerGroups(ctx, lb.ID)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		members, err := c.api.VServerGroup(ctx, g.ID)
		if err != nil {
			return nil, err
		}
		add(Membership{VServerGroupID: g.ID, VServerGroupName: g.Name, Managed: g.Managed, Listeners: to[g.ID]}, members)
	}
	// A group that no listener uses can be put to use at any time.
	pairs, err := c.api.MasterSlaveGroups(ctx, lb.ID)
	if err != nil {
		return nil, err
	}
	for _, id := range pairs {
		if masterSlave[id] == nil {
			masterSlave[id] = []Listener{}
		}
	}
	for _, id := range sortedKeys(masterSlave) {
		name, members, err := c.api.MasterSlaveGroup(ctx, id)
		if err != nil {
			return nil, err
		}
		add(Membership{MasterSlaveGroupID: id, VServerGroupName: name, Listeners: masterSlave[id]}, members)
	}
	return all, nil
}

func backends(in []alicloud.Backend) []Backend {
	out := make([]Backend, 0, len(in))
	for _, b := range in {
		out = append(out, Backend(b))
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ListBackends lists the members of a group.
func (c *Client) ListBackends(ctx context.Context, g Group) ([]Backend, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	got, _, err := c.members(ctx, g)
	return got, err
}

// members reads a group. unsettled holds those that a job of ALB or NLB is
// adding, changing or removing, with its word for that.
func (c *Client) members(ctx context.Context, g Group) (all []Backend, unsettled map[Backend]string, _ error) {
	var got []alicloud.Backend
	var err error
	switch {
	case g.product() != CLB:
		var members []alicloud.GroupMember
		members, err = c.api.ServerGroupMembers(ctx, string(g.product()), g.VServerGroupID)
		for _, m := range members {
			got = append(got, m.Backend)
			if m.Status != "" && m.Status != "Available" {
				if unsettled == nil {
					unsettled = map[Backend]string{}
				}
				unsettled[Backend(m.Backend)] = m.Status
			}
		}
	case g.VServerGroupID == "":
		got, err = c.api.DefaultGroup(ctx, g.LoadBalancerID)
	default:
		got, err = c.api.VServerGroup(ctx, g.VServerGroupID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", g, wrap(err))
	}
	return backends(got), unsettled, nil
}

func (g Group) check() error {
	switch g.product() {
	case CLB:
	case ALB, NLB:
		if g.VServerGroupID == "" {
			return fmt.Errorf("the %s group has no ID", g.product())
		}
		return nil
	default:
		return fmt.Errorf("%q is not a product: clb, alb or nlb", g.Product)
	}
	if g.LoadBalancerID == "" {
		return errors.New("the group has no balancer ID (members of primary/secondary groups cannot be changed)")
	}
	return nil
}

// ListHealth lists what a balancer thinks of the members behind each of its
// listeners. A member of weight 0 behind a TCP or UDP listener may be called
// abnormal although nothing is wrong with it.
func (c *Client) ListHealth(ctx context.Context, loadBalancerID string) ([]Health, error) {
	if loadBalancerID == "" {
		return nil, errors.New("cannot read health without the ID of a balancer")
	}
	if p := productOf(loadBalancerID); p != CLB {
		all, err := c.groupHealth(ctx, p, loadBalancerID)
		if err != nil {
			return nil, fmt.Errorf("cannot read health of %s: %w", loadBalancerID, wrap(err))
		}
		return all, nil
	}
	got, err := c.api.HealthStatus(ctx, loadBalancerID)
	if err != nil {
		return nil, fmt.Errorf("cannot read health of %s: %w", loadBalancerID, wrap(err))
	}
	all := make([]Health, 0, len(got))
	for _, h := range got {
		all = append(all, Health(h))
	}
	return all, nil
}
