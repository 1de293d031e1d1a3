package slb

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// Kinds of findings about the balancers themselves. See
// Membership.Findings.
const (
	KindManaged          = "managed"           // another service owns the balancer or group
	KindProtected        = "protected"         // somebody protected the balancer against changes
	KindLocked           = "locked"            // the cloud locked the balancer
	KindPrimarySecondary = "primary-secondary" // the group has no call that changes a weight
	KindScheduler        = "scheduler"         // weight 0 does not keep new connections away
	KindLast             = "last-backend"      // nobody else would serve
	KindSticky           = "sticky"            // sessions may go on to arrive at weight 0
	KindUDP              = "udp-lag"           // a new weight takes up to five minutes
	KindNoHealthCheck    = "no-health-check"   // nobody looks whether a member is well
)

// UDPSettles is how long a weight or a removal may take to act behind a UDP
// listener of CLB, by the documentation (2021) of its server groups.
const UDPSettles = 5 * 60 // seconds

// A Finding is something about a balancer that a person who moves traffic has to
// know. One that blocks makes Drain refuse. Paths past the balancers are
// PathFindings.
type Finding struct {
	Kind     string `json:"kind"`
	Blocking bool   `json:"blocking"`
	Where    string `json:"where"`  // group and listener
	Detail   string `json:"detail"` // what is so
	Remedy   string `json:"remedy"`
}

// String is one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s; %s", f.Kind, f.Where, f.Detail, f.Remedy)
}

// Findings says what stands in the way of draining, or has to be known, from
// what was read. It asks nobody; CheckDrain adds what health shows.
func (m Membership) Findings() []Finding {
	var all []Finding
	where := m.Group().String()
	if m.MasterSlaveGroupID != "" {
		where = "primary/secondary group " + m.MasterSlaveGroupID + " of " + m.LoadBalancerID
	}
	add := func(kind string, blocking bool, where, detail, remedy string) {
		f := Finding{Kind: kind, Blocking: blocking, Where: where, Detail: detail, Remedy: remedy}
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	if m.Managed {
		add(KindManaged, true, where, "another service (as ACK) owns it, refuses changes and would undo them", "move the traffic there (cordon or scale in the cluster), not here")
	}
	if m.Protected {
		why := ""
		if m.ProtectedWhy != "" {
			why = ": " + m.ProtectedWhy
		}
		add(KindProtected, true, where, "the balancer is protected against changes"+why, "ask whoever protected it, then lift it (SetLoadBalancerModificationProtection, NonProtection)")
	}
	if m.LoadBalancerStatus == "locked" {
		add(KindLocked, true, where, "the cloud locked the balancer", "settle what it was locked for (bill or security) first")
	}
	if m.MasterSlaveGroupID != "" {
		add(KindPrimarySecondary, true, where, "the API cannot change its members or weights",
			"make a new primary/secondary group (or a VServer group with scheduler wrr) without this server and switch the listener to it, and back afterwards")
	}
	for _, l := range m.Listeners {
		at := where + ", " + l.String()
		if m.MasterSlaveGroupID == "" {
			switch strings.ToLower(l.Scheduler) {
			case "wrr", "wlc":
			case "rr":
				add(KindScheduler, true, at, "the scheduler rr ignores weights, 0 too", "set the scheduler to wrr for the window, or remove the member instead of draining it")
			default:
				add(KindScheduler, true, at, fmt.Sprintf("what weight 0 means with the scheduler %q is not defined", l.Scheduler), "set the scheduler to wrr for the window, or remove the member (its sessions then move)")
			}
		}
		if l.Sticky {
			d := "sessions stick to a member, also to one of weight 0"
			if l.StickySeconds > 0 {
				d += fmt.Sprintf(", for up to %d s", l.StickySeconds)
			}
			add(KindSticky, false, at, d, "wait it out and prove silence by traffic, or turn stickiness off for the window; sessions kept on the host's disk or memory are lost in any case")
		}
		if l.Protocol == "udp" && m.Product != NLB {
			add(KindUDP, false, at, "a new weight or a removal takes up to 5 min to act behind UDP", "wait that long before silence counts")
		}
		if !l.HealthCheck {
			add(KindNoHealthCheck, false, at, "nobody checks the members' health", "turn the health check on, or check the service yourself before giving a member weight")
		}
	}
	return all
}

// String is as "http 80 (rule rule-1, shop.example.com/)".
func (l Listener) String() string {
	s := fmt.Sprintf("%s %d", l.Protocol, l.Port)
	if l.Rule != "" {
		s += " (rule " + l.Rule
		if l.Domain+l.URL != "" {
			s += ", " + l.Domain + l.URL
		}
		s += ")"
	}
	return s
}

// A RefusedError reports that a drain was not begun: nothing was changed.
type RefusedError struct {
	Findings []Finding // those that block
}

// Error lists what blocks, and the way round.
func (e *RefusedError) Error() string {
	var lines []string
	for _, f := range e.Findings {
		lines = append(lines, f.String())
	}
	return "refusing to drain: " + strings.Join(lines, "\n")
}

// CheckDrain reads health and returns every finding of the targets, among them
// groups in which, with all targets at weight 0, no healthy member with a weight
// would be left. Targets whose weight is 0 already are looked at as well, but a
// group that they alone leave empty is not a finding.
func (c *Client) CheckDrain(ctx context.Context, targets []Target) ([]Finding, error) {
	var all []Finding
	health := map[string][]Health{}
	for _, t := range targets {
		m := t.Membership
		for _, f := range m.Findings() {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
		if t.Backend.Weight == 0 || m.MasterSlaveGroupID != "" {
			continue
		}
		members, err := c.ListBackends(ctx, m.Group())
		if err != nil {
			return nil, err
		}
		id := m.LoadBalancerID
		if _, ok := health[id]; !ok && id != "" && len(m.Listeners) > 0 {
			if health[id], err = c.ListHealth(ctx, id); err != nil {
				return nil, err
			}
		}
		drained := func(b Backend) bool {
			return slices.ContainsFunc(targets, func(o Target) bool {
				return o.Membership.Group() == m.Group() && o.Backend.ServerID == b.ServerID && o.Backend.Port == b.Port && (o.Backend.ServerIP == "" || b.ServerIP == "" || o.Backend.ServerIP == b.ServerIP)
			})
		}
		listeners := m.Listeners
		if len(listeners) == 0 {
			continue // nothing forwards here
		}
		for _, l := range listeners {
			if l.LoadBalancerID != "" && l.LoadBalancerID != id {
				if _, ok := health[l.LoadBalancerID]; !ok {
					if health[l.LoadBalancerID], err = c.ListHealth(ctx, l.LoadBalancerID); err != nil {
						return nil, err
					}
				}
			}
			left := 0
			for _, b := range members {
				if b.Weight > 0 && !drained(b) && ill(health, m, l, b) == "" {
					left++
				}
			}
			if left == 0 && l.Status != "stopped" {
				f := Finding{Kind: KindLast, Blocking: true, Where: m.Group().String() + ", " + l.String(),
					Detail: "no other member is healthy and has a weight: nobody would serve", Remedy: "bring another member into service first"}
				if !slices.Contains(all, f) {
					all = append(all, f)
				}
			}
		}
	}
	return all, nil
}

// ill says in which way a member is not well behind a listener; "" if it is, or
// if nobody checks.
func ill(health map[string][]Health, m Membership, l Listener, b Backend) string {
	if !l.HealthCheck || l.Status == "stopped" {
		return ""
	}
	id := l.LoadBalancerID
	if id == "" {
		id = m.LoadBalancerID
	}
	port := b.Port
	if port == 0 {
		port = l.BackendPort
	}
	status := "not known to the balancer"
	for _, h := range health[id] {
		if h.ServerID != b.ServerID || h.ServerIP != "" && b.ServerIP != "" && h.ServerIP != b.ServerIP || h.ListenerPort != l.Port || h.Port != 0 && port != 0 && h.Port != port ||
			h.Protocol != "" && l.Protocol != "" && !strings.EqualFold(h.Protocol, l.Protocol) {
			continue
		}
		if h.Status != "normal" {
			return h.Status
		}
		status = ""
	}
	return status
}

// A NotServingError reports that a member does not take requests everywhere it
// should.
type NotServingError struct {
	Group   Group
	Backend Backend
	Reasons []string
}

// Error lists the reasons.
func (e *NotServingError) Error() string {
	return fmt.Sprintf("%s does not serve in %s: %s", e.Backend, e.Group, strings.Join(e.Reasons, "; "))
}

// ListNotServing lists the members of groups, as they were read, that have a
// weight and are not healthy behind every running listener that checks. What one
// balancer thinks of its members is read once.
func (c *Client) ListNotServing(ctx context.Context, ms []Membership) ([]*NotServingError, error) {
	health := map[string][]Health{}
	var out []*NotServingError
	for _, m := range ms {
		for _, l := range m.Listeners {
			id := cmp.Or(l.LoadBalancerID, m.LoadBalancerID)
			if _, ok := health[id]; !ok {
				var err error
				if health[id], err = c.ListHealth(ctx, id); err != nil {
					return out, err
				}
			}
		}
		for _, b := range m.Backends {
			var reasons []string
			for _, l := range m.Listeners {
				if s := ill(health, m, l, b); s != "" {
					reasons = append(reasons, fmt.Sprintf("%s %s: %s", cmp.Or(l.LoadBalancerID, m.LoadBalancerID), l, s))
				}
			}
			if b.Weight > 0 && len(reasons) > 0 {
				out = append(out, &NotServingError{m.Group(), b, reasons})
			}
		}
	}
	return out, nil
}

// CheckServing reads whether b takes requests in the group of m: it is a member,
// has a weight above 0, and is healthy behind every running listener that
// checks. If not, the error is a NotServingError.
func (c *Client) CheckServing(ctx context.Context, m Membership, b Backend) error {
	return c.CheckAllServing(ctx, []Target{{Membership: m, Backend: b}})
}

// CheckAllServing is CheckServing for several targets, up to the first that does
// not serve. Their weights are not looked at, and what one balancer thinks of its
// members is read once for all of them.
func (c *Client) CheckAllServing(ctx context.Context, targets []Target) error {
	health := map[string][]Health{}
	for _, t := range targets {
		if err := c.checkServing(ctx, t.Membership, t.Backend, health); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) checkServing(ctx context.Context, m Membership, b Backend, health map[string][]Health) error {
	g := m.Group()
	members, unsettled, err := c.members(ctx, g)
	if err != nil {
		return err
	}
	now, err := find(members, b)
	if err != nil {
		return err
	}
	switch {
	case now == nil:
		return &NotServingError{g, b, []string{"it is no member"}}
	case now.Weight == 0:
		return &NotServingError{g, *now, []string{"its weight is 0"}}
	case unsettled[*now] == "Adding" || unsettled[*now] == "Removing":
		return &NotServingError{g, *now, []string{"it is " + strings.ToLower(unsettled[*now])}}
	}
	var reasons []string
	for _, l := range m.Listeners {
		id := l.LoadBalancerID
		if id == "" {
			id = m.LoadBalancerID
		}
		if _, ok := health[id]; !ok {
			if health[id], err = c.ListHealth(ctx, id); err != nil {
				return err
			}
		}
		if s := ill(health, m, l, *now); s != "" {
			reasons = append(reasons, fmt.Sprintf("%s %s: %s", id, l, s))
		}
	}
	if len(reasons) > 0 {
		return &NotServingError{g, *now, reasons}
	}
	return nil
}
