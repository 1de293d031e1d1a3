package slb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// groupMemberships finds a server in the groups of ALB or NLB. All members of
// the region are read and compared here: no filter of the API knows every name
// that a member can have.
func (c *Client) groupMemberships(ctx context.Context, p Product, s Server) ([]Membership, error) {
	product := string(p)
	members, err := c.api.ServerGroupMembers(ctx, product, "")
	if err != nil {
		// The product is not offered in every region: there is no such host. A
		// name server that is broken would have failed for CLB before.
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return nil, nil
		}
		return nil, wrap(err)
	}
	byGroup := map[string][]alicloud.Backend{}
	var ours []alicloud.GroupMember
	for _, m := range members {
		byGroup[m.GroupID] = append(byGroup[m.GroupID], m.Backend)
		if s.names(m.Backend) {
			ours = append(ours, m)
		}
	}
	if len(ours) == 0 {
		return nil, nil
	}
	var ids []string
	for _, m := range ours {
		if !slices.Contains(ids, m.GroupID) {
			ids = append(ids, m.GroupID)
		}
	}
	list, err := c.api.ServerGroups(ctx, product, ids)
	if err != nil {
		return nil, wrap(err)
	}
	groups := map[string]alicloud.ServerGroup{}
	var lbs []string
	for _, g := range list {
		groups[g.ID] = g
		for _, id := range g.LoadBalancers {
			if !slices.Contains(lbs, id) {
				lbs = append(lbs, id)
			}
		}
	}
	balancers, err := c.api.ServerGroupBalancers(ctx, product, lbs)
	if err != nil {
		return nil, wrap(err)
	}
	forwards, err := c.api.Forwards(ctx, product, lbs)
	if err != nil {
		return nil, wrap(err)
	}

	var all []Membership
	for _, m := range ours {
		g, ok := groups[m.GroupID]
		if !ok {
			return nil, fmt.Errorf("%s group %s is not listed although %s is a member of it; try again", product, m.GroupID, m.ServerID)
		}
		x := Membership{Product: p, VServerGroupID: g.ID, VServerGroupName: g.Name, Managed: g.Managed, Backend: Backend(m.Backend), Backends: backends(byGroup[g.ID])}
		for _, b := range balancers {
			if !slices.Contains(g.LoadBalancers, b.ID) {
				continue
			}
			x.Managed, x.Protected, x.ProtectedWhy = x.Managed || b.Managed, x.Protected || b.Protected, cmp.Or(x.ProtectedWhy, b.ProtectedWhy)
			if x.LoadBalancerID == "" {
				x.LoadBalancerID, x.LoadBalancerName, x.Address, x.LoadBalancerStatus = b.ID, b.Name, b.Address, b.Status
			}
		}
		for _, f := range forwards {
			if f.GroupID != g.ID {
				continue
			}
			x.Listeners = append(x.Listeners, Listener{
				LoadBalancerID: f.LoadBalancerID, ID: f.ListenerID, Port: f.Port, Protocol: f.Protocol, Scheduler: g.Scheduler, Status: f.Status,
				HealthCheck: g.HealthCheck, Sticky: g.Sticky, StickySeconds: g.StickySeconds, DrainSeconds: g.DrainSeconds, Rule: f.RuleID, Domain: f.Domain, URL: f.URL,
			})
		}
		all = append(all, x)
	}
	return all, nil
}

// groupHealth is ListHealth for a balancer of ALB or NLB. The API names only
// those that are not well; the others are read from the groups.
func (c *Client) groupHealth(ctx context.Context, p Product, loadBalancerID string) ([]Health, error) {
	forwards, err := c.api.Forwards(ctx, string(p), []string{loadBalancerID})
	if err != nil {
		return nil, err
	}
	if len(forwards) == 0 {
		if err := c.known(ctx, loadBalancerID); err != nil {
			return nil, err
		}
	}
	members := map[string][]alicloud.GroupMember{}
	seen := map[string]bool{}
	var all []Health
	for _, f := range forwards {
		if seen[f.ListenerID] {
			continue
		}
		seen[f.ListenerID] = true
		groups, err := c.api.ListenerHealth(ctx, string(p), f.ListenerID)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if seen[f.ListenerID+" "+g.GroupID] {
				continue
			}
			seen[f.ListenerID+" "+g.GroupID] = true
			if members[g.GroupID] == nil {
				if members[g.GroupID], err = c.api.ServerGroupMembers(ctx, string(p), g.GroupID); err != nil {
					return nil, err
				}
			}
			for _, m := range members[g.GroupID] {
				h := Health{ListenerPort: f.Port, Port: m.Port, Protocol: f.Protocol, ServerID: m.ServerID, ServerIP: m.ServerIP, Status: "normal"}
				ill, listed := g.Ill[alicloud.MemberKey(m.ServerID, m.ServerIP, m.Port)]
				switch {
				case !g.Checked || f.Status != "running" || m.Status == "Adding":
					h.Status = "unavailable"
				case listed && ill == "Unhealthy":
					h.Status = "abnormal"
				case listed:
					h.Status = "unavailable"
				}
				all = append(all, h)
			}
		}
	}
	return all, nil
}

// known asks whether there is a balancer of ALB or NLB at all: their lists take
// an ID that does not exist for one that has nothing.
func (c *Client) known(ctx context.Context, loadBalancerID string) error {
	p := productOf(loadBalancerID)
	if p == CLB {
		return nil // its calls say so themselves
	}
	list, err := c.api.ServerGroupBalancers(ctx, string(p), []string{loadBalancerID})
	if err == nil && len(list) == 0 {
		return c.notFound("balancer", loadBalancerID)
	}
	return wrap(err)
}

// productOf tells the product from the form of a balancer's ID.
func productOf(loadBalancerID string) Product {
	for _, p := range []Product{ALB, NLB} {
		if strings.HasPrefix(loadBalancerID, string(p)+"-") {
			return p
		}
	}
	return CLB
}
