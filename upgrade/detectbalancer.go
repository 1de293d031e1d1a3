package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
)

// The detectors of what leads traffic to the host.

// detectNginx looks whether the edits of 3.9 and 4.2 can be made.
func detectNginx(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, n := range f.Nginx {
		if n.Refusal != "" {
			l.add(FindingBlocking, "nginx-edit", n.Host, "", "%s: %s", n.Host, n.Refusal)
		}
		for _, r := range n.Refs {
			at := fmt.Sprintf("%s:%s:%d", n.Host, r.File, r.Line)
			where := fmt.Sprintf("%s: %s:%d", n.Host, r.File, r.Line)
			switch {
			case r.Kind == nginx.KindOff || r.Tag != "":
				l.add(FindingBlocking, "nginx-mark", at, "restore it first", "%s carries a mark of an earlier run (%s)", where, r.Tag)
			case r.Kind == nginx.KindComment || r.Kind == nginx.KindMention:
				// No traffic follows it; section 2.5 shows it.
			case r.Port == 0 || !servesPort(cfg, r.Port):
				l.add(FindingBlocking, "nginx-port", at, "", "%s leads to port %d of the host, which no service names; its health and silence could not be proved", where, r.Port)
			case !r.Certain:
				l.add(FindingBlocking, "nginx-uncertain", at, "move it by hand first", "%s refers to %s in a way that cannot be decided (%s)", where, cfg.Address, r.Reason)
			}
		}
	}
	return l
}

// detectBalancers looks whether the host can be drained behind its balancers.
func detectBalancers(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, m := range f.Memberships {
		for _, x := range m.Findings() {
			severity := FindingWarning
			switch {
			case x.Blocking:
				severity = FindingBlocking
			case x.Kind == slb.KindUDP:
				severity = FindingInfo // it is waited for
			}
			l.add(severity, "balancer-"+x.Kind, x.Where, x.Remedy, "%s: %s", x.Where, x.Detail)
		}
		if m.Managed || m.MasterSlaveGroupID != "" {
			continue
		}
		for _, x := range m.Listeners {
			if port := cmp.Or(m.Backend.Port, x.BackendPort); !servesPort(cfg, port) {
				l.add(FindingBlocking, "balancer-port", fmt.Sprintf("%s:%d", m.LoadBalancerID, x.Port), "", "%s listener %d leads to port %d of the host, which no service names; its health and silence could not be proved", m.LoadBalancerID, x.Port, port)
			}
		}
		serves := func(b slb.Backend) bool {
			return b != m.Backend && b.Weight > 0 && !slices.ContainsFunc(f.Sick, func(s SickMember) bool { return s.Group == groupName(m) && s.Backend == b })
		}
		if len(m.Listeners) > 0 && m.Backend.Weight > 0 && !slices.ContainsFunc(m.Backends, serves) {
			l.add(FindingWarning, "balancer-alone", groupName(m), "while production is upgraded the transition host is alone: give the group a further member, or mind the hour",
				"in %s nobody but production has a weight and is healthy", groupName(m))
		}
		if len(m.Backends) >= maxMembers {
			l.add(FindingBlocking, "balancer-full", groupName(m), "take members out that are gone, or have the quota raised: the transition host has to become one more",
				"%s has %d members, and a balancer takes %d", groupName(m), len(m.Backends), maxMembers)
		}
	}
	for _, s := range f.Sick {
		l.add(FindingWarning, "balancer-sick", s.Group+", "+s.Backend.String(), "repair it first: while production is upgraded the load falls on fewer hosts than the weights say",
			"%s has a member with weight %d that is not healthy: %s", s.Group, s.Backend.Weight, s.Why)
	}
	return l
}

// maxMembers is how many members a balancer or group takes (CLB, "Limits": 200
// backend servers of one instance; ALB and NLB groups take more only on request).
const maxMembers = 200

// A SickMember is a member of a group besides production that gets no traffic
// although its weight says so.
type SickMember struct {
	Group   string      `json:"group"`
	Backend slb.Backend `json:"backend"`
	Why     string      `json:"why"`
}

// detectPaths looks at the ways to the host past its balancers.
func detectPaths(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, p := range f.Paths {
		severity := map[string]string{slb.SeverityBlock: FindingBlocking, slb.SeverityWarn: FindingWarning}[p.Severity]
		remedy := p.Remedy
		switch {
		case severity == "":
			severity = FindingInfo
		case severity == FindingBlocking && movable(f.Forwarding, p):
			severity, remedy = FindingWarning, "move it: 2.7-domains waits for that"
		}
		l.add(severity, "path-"+p.Kind, p.ID, remedy, "%s %s: %s", p.Kind, p.ID, p.Evidence)
	}
	return l
}
