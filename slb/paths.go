package slb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// How much a finding matters.
const (
	SeverityBlock = "block" // requests go past the balancers: upgrading the host would be noticed
	SeverityWarn  = "warn"  // may matter: somebody has to look
	SeverityInfo  = "info"  // does not matter now
)

// Kinds of path findings.
const (
	PathPublicIP     = "public-ip"     // a public address of the instance itself
	PathEIP          = "eip"           // an elastic IP address
	PathDNAT         = "dnat"          // an entry of a NAT gateway
	PathHaVip        = "havip"         // a floating address
	PathRoute        = "route"         // a route whose next hop is the host
	PathScalingGroup = "scaling-group" // Auto Scaling would replace a stopped host
	PathClusterNode  = "cluster-node"  // a node of a container cluster (ACK)
	PathDomain       = "domain"        // a record that leads straight to the host
	PathNotChecked   = "not-checked"   // a question that could not be asked
)

// A PathFinding is one thing besides balancers that matters for taking a host out
// of service. Type ecs.TrustFinding has the same fields and converts.
type PathFinding struct {
	Kind     string `json:"kind"`
	Severity string `json:"severity"`
	Product  string `json:"product"` // as "vpc", "ess", "alidns"
	ID       string `json:"id"`      // of the object found
	Evidence string `json:"evidence"`
	Remedy   string `json:"remedy"`
}

// String is the finding in one line.
func (f PathFinding) String() string {
	return fmt.Sprintf("%s: %s %s: %s; %s", f.Severity, f.Kind, f.ID, f.Evidence, f.Remedy)
}

// A PathHost is the machine whose other inbound paths are looked for.
type PathHost struct {
	Server
	VPC       string
	PublicIPs []string // elastic ones may be among them
	Tags      map[string]string
	// Domains are names to look up besides those of Alibaba Cloud DNS.
	Domains []string
	// Resolver looks them up; nil means the system's.
	Resolver Resolver
}

// ListPaths lists every way that leads to a host past the balancers: public and
// elastic addresses, DNAT entries, floating addresses, routes, domains; and what
// would interfere with a host that is taken out of service: Auto Scaling and
// container clusters. A question that the account may not ask, or that the
// region does not answer, gives a finding of PathNotChecked and is never passed
// over in silence. The error is one that other credentials, another network or
// a later attempt would mend; what was found before comes along.
func (c *Client) ListPaths(ctx context.Context, h PathHost) ([]PathFinding, error) {
	if h.InstanceID == "" || len(h.IPs) == 0 {
		return nil, errors.New("cannot look for other paths to a server without instance ID and address")
	}
	var all []PathFinding
	all = append(all, tagFindings(h)...)
	eipOf := map[string]bool{}
	// In this order, because the first answers matter for the later ones.
	for _, look := range []struct {
		product, what string
		do            func() ([]PathFinding, error)
	}{
		{"vpc", "elastic IP addresses", func() ([]PathFinding, error) { return c.eipFindings(ctx, h, eipOf) }},
		{"vpc", "DNAT entries", func() ([]PathFinding, error) { return c.natFindings(ctx, h) }},
		{"vpc", "floating addresses (HaVip)", func() ([]PathFinding, error) { return c.haVipFindings(ctx, h) }},
		{"vpc", "routes", func() ([]PathFinding, error) { return c.routeFindings(ctx, h) }},
		{"ess", "scaling groups", func() ([]PathFinding, error) { return c.scalingFindings(ctx, h) }},
		{"alidns", "records of Alibaba Cloud DNS", func() ([]PathFinding, error) { return c.recordFindings(ctx, h, eipOf) }},
	} {
		found, err := look.do()
		all = append(all, found...)
		if err != nil {
			f, ok := notChecked(look.product, look.what, err)
			if !ok {
				return all, fmt.Errorf("cannot look for %s: %w", look.what, wrap(err))
			}
			all = append(all, f)
		}
	}
	for _, ip := range h.PublicIPs {
		if !eipOf[ip] {
			all = append(all, PathFinding{Kind: PathPublicIP, Severity: SeverityWarn, Product: "ecs", ID: ip,
				Evidence: h.InstanceID + " has the public address " + ip,
				Remedy:   "make sure that nobody reaches the host by it: what comes there passes the balancers by"})
		}
	}
	if len(h.Domains) > 0 {
		ips := slices.Concat(h.IPs, h.PublicIPs, slices.Sorted(maps.Keys(eipOf)))
		got, err := ResolveDomains(ctx, h.Resolver, h.Domains, ips)
		for _, r := range got {
			all = append(all, PathFinding{Kind: PathDomain, Severity: SeverityBlock, Product: "dns", ID: r.Name,
				Evidence: r.Name + " leads to " + r.Address + " from here",
				Remedy:   "move the domain behind a balancer: 'upgradectl slb rule', then change the record"})
		}
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		if err != nil {
			all = append(all, PathFinding{Kind: PathNotChecked, Severity: SeverityWarn, Product: "dns", ID: "domains",
				Evidence: "not checked: " + strings.ReplaceAll(err.Error(), "\n", "; "), Remedy: "look the names up by hand"})
		}
	}
	return all, nil
}

// notChecked makes a finding of an error that asking again would not mend.
func notChecked(product, what string, err error) (PathFinding, bool) {
	var e *alicloud.Error
	if !errors.As(err, &e) || e.Class != alicloud.Definitive || e.HTTPStatus == 0 {
		return PathFinding{}, false
	}
	f := PathFinding{Kind: PathNotChecked, Severity: SeverityWarn, Product: product, ID: what}
	if e.Denied() {
		f.Evidence = "not checked: needs " + alicloud.Permission(product, e.Action)
		f.Remedy = "grant it ('upgradectl policy' prints the whole policy), or look by hand"
		return f, true
	}
	if errors.Is(e, alicloud.ErrCredentials) {
		return PathFinding{}, false
	}
	f.Evidence, f.Remedy = "not checked: "+e.Error(), "look by hand"
	return f, true
}

// names lists what the host is called.
func (h PathHost) names() []string { return append([]string{h.InstanceID}, h.ENIs...) }

// clusterTags are how Container Service marks its nodes.
var clusterTags = []string{"ack.aliyun.com", "ack.alibabacloud.com/"}

func tagFindings(h PathHost) []PathFinding {
	var all []PathFinding
	for _, k := range slices.Sorted(maps.Keys(h.Tags)) {
		if slices.ContainsFunc(clusterTags, func(p string) bool { return k == p || strings.HasPrefix(k, p) }) {
			all = append(all, PathFinding{Kind: PathClusterNode, Severity: SeverityBlock, Product: "cs", ID: h.InstanceID,
				Evidence: "the instance has the tag " + k + "=" + h.Tags[k] + ": it is a node of a container cluster",
				Remedy:   "upgrade nodes of a cluster with the cluster's own means (drain, replace), not with this tool"})
			break
		}
	}
	return all
}

func (c *Client) eipFindings(ctx context.Context, h PathHost, eipOf map[string]bool) ([]PathFinding, error) {
	var all []PathFinding
	for _, id := range h.names() {
		kind := "EcsInstance"
		if id != h.InstanceID {
			kind = "NetworkInterface"
		}
		got, err := c.api.EIPs(ctx, kind, id)
		if err != nil {
			return all, err
		}
		for _, e := range got {
			eipOf[e.Address] = true
			all = append(all, PathFinding{Kind: PathEIP, Severity: SeverityWarn, Product: "vpc", ID: e.ID,
				Evidence: fmt.Sprintf("elastic IP address %s is bound to %s", e.Address, id),
				Remedy:   "make sure that nobody reaches the host by it, or move it to a balancer: what comes there passes the balancers by"})
		}
	}
	return all, nil
}

func (c *Client) natFindings(ctx context.Context, h PathHost) ([]PathFinding, error) {
	gateways, err := c.api.NATGateways(ctx, h.VPC)
	if err != nil {
		return nil, err
	}
	var all []PathFinding
	for _, g := range gateways {
		for _, table := range g.ForwardTables {
			for _, ip := range h.IPs {
				entries, err := c.api.ForwardEntries(ctx, table, ip)
				if err != nil {
					return all, err
				}
				for _, e := range entries {
					all = append(all, PathFinding{Kind: PathDNAT, Severity: SeverityBlock, Product: "vpc", ID: e.ID,
						Evidence: fmt.Sprintf("NAT gateway %s sends %s %s:%s to %s:%s", g.ID, e.Protocol, e.ExternalIP, e.ExternalPort, e.InternalIP, e.InternalPort),
						Remedy:   "point the entry at a balancer's address first, or at the transition host while the upgrade lasts"})
				}
			}
		}
	}
	return all, nil
}

func (c *Client) haVipFindings(ctx context.Context, h PathHost) ([]PathFinding, error) {
	vips, err := c.api.HaVips(ctx)
	var all []PathFinding
	for _, v := range vips {
		for _, id := range h.names() {
			if v.Master != id && !slices.Contains(v.Instances, id) {
				continue
			}
			role := "may hold it"
			if v.Master == id {
				role = "holds it now"
			}
			all = append(all, PathFinding{Kind: PathHaVip, Severity: SeverityBlock, Product: "vpc", ID: v.ID,
				Evidence: fmt.Sprintf("floating address %s is associated with %s, which %s", v.Address, id, role),
				Remedy:   "let another member hold the address and take the host out of it before it is stopped"})
			break
		}
	}
	return all, err
}

func (c *Client) routeFindings(ctx context.Context, h PathHost) ([]PathFinding, error) {
	if h.VPC == "" {
		return []PathFinding{{Kind: PathNotChecked, Severity: SeverityWarn, Product: "vpc", ID: "routes",
			Evidence: "not checked: the ID of the VPC is not known", Remedy: "look by hand"}}, nil
	}
	tables, err := c.api.RouteTables(ctx, h.VPC)
	if err != nil {
		return nil, err
	}
	var all []PathFinding
	for _, t := range tables {
		for _, id := range h.names() {
			routes, err := c.api.Routes(ctx, t, id)
			if err != nil {
				return all, err
			}
			for _, r := range routes {
				all = append(all, PathFinding{Kind: PathRoute, Severity: SeverityBlock, Product: "vpc", ID: r.ID,
					Evidence: fmt.Sprintf("route table %s sends %s to %s", t, r.Destination, id),
					Remedy:   "give the route another next hop first: what it carries stops with the host"})
			}
		}
	}
	return all, nil
}

func (c *Client) scalingFindings(ctx context.Context, h PathHost) ([]PathFinding, error) {
	members, err := c.api.ScalingMembers(ctx, h.InstanceID)
	var all []PathFinding
	for _, m := range members {
		f := PathFinding{Kind: PathScalingGroup, Severity: SeverityBlock, Product: "ess", ID: m.GroupID,
			Evidence: fmt.Sprintf("%s is in scaling group %s (%s), which replaces a member that is stopped or unhealthy", h.InstanceID, m.GroupID, m.State),
			Remedy:   "put it into standby first (EnterStandby) and back afterwards (ExitStandby)"}
		if m.State == "Standby" {
			f.Severity, f.Remedy = SeverityInfo, "take it out of standby afterwards (ExitStandby)"
		}
		all = append(all, f)
	}
	return all, err
}

func (c *Client) recordFindings(ctx context.Context, h PathHost, eipOf map[string]bool) ([]PathFinding, error) {
	ips := slices.Concat(h.IPs, h.PublicIPs)
	for _, ip := range slices.Sorted(maps.Keys(eipOf)) {
		if !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	domains, err := c.api.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var all []PathFinding
	for _, d := range domains {
		for _, ip := range ips {
			records, err := c.api.DNSRecords(ctx, d, ip)
			if err != nil {
				return all, err
			}
			for _, r := range records {
				if !sameIP(r.Value, ip) {
					continue
				}
				f := PathFinding{Kind: PathDomain, Severity: SeverityBlock, Product: "alidns", ID: cmp.Or(r.ID, r.RR+"."+r.Domain),
					Evidence: fmt.Sprintf("record %s %s %s (TTL %d s, line %s)", DNSRecord(r).Name(), r.Type, r.Value, r.TTL, r.Line),
					Remedy:   "move the domain behind a balancer: 'upgradectl slb rule', then change the record and wait for its TTL"}
				if !r.Enabled {
					f.Severity, f.Remedy = SeverityInfo, "it is switched off; leave it so until the upgrade is over"
				}
				all = append(all, f)
			}
		}
	}
	return all, nil
}
