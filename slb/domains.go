package slb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A DNSRecord is one record of Alibaba Cloud DNS.
type DNSRecord struct {
	ID      string `json:"id"`
	Domain  string `json:"domain"` // "example.com"
	RR      string `json:"rr"`     // "www"; "@" is the domain itself
	Type    string `json:"type"`   // "A", "AAAA", "CNAME" …
	Value   string `json:"value"`
	TTL     int    `json:"ttl"`  // seconds
	Line    string `json:"line"` // "default", or the part of the world that gets this answer
	Enabled bool   `json:"enabled"`
}

// Name is the record's full name.
func (r DNSRecord) Name() string {
	if r.RR == "@" || r.RR == "" {
		return r.Domain
	}
	return r.RR + "." + r.Domain
}

// ListDomainRecords finds the records of all domains of the account whose value
// is exactly one of these addresses. The cloud searches fuzzily (1.2.3.4 finds
// 11.2.3.40), so every hit is compared.
func (c *Client) ListDomainRecords(ctx context.Context, ips []string) ([]DNSRecord, error) {
	if len(ips) == 0 {
		return nil, errors.New("cannot look for records without an address")
	}
	domains, err := c.api.Domains(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the account's domains: %w", wrap(err))
	}
	var all []DNSRecord
	for _, d := range domains {
		for _, ip := range ips {
			records, err := c.api.DNSRecords(ctx, d, ip)
			if err != nil {
				return nil, fmt.Errorf("cannot list the records of %s: %w", d, wrap(err))
			}
			for _, r := range records {
				if sameIP(r.Value, ip) {
					all = append(all, DNSRecord(r))
				}
			}
		}
	}
	return all, nil
}

func sameIP(a, b string) bool {
	x, err1 := netip.ParseAddr(strings.TrimSpace(a))
	y, err2 := netip.ParseAddr(b)
	return err1 == nil && err2 == nil && x.Unmap() == y.Unmap()
}

// A Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// A ResolvedDomain is a name that leads to one of the addresses asked for.
type ResolvedDomain struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// ResolveDomains looks names up from here and returns those that lead to one of
// the addresses: it finds records that are kept with other providers. A name
// that does not exist leads nowhere; any other failure to look one up is an
// error, together with what was found. A nil resolver is the system's.
func ResolveDomains(ctx context.Context, r Resolver, names, ips []string) ([]ResolvedDomain, error) {
	if r == nil {
		r = net.DefaultResolver
	}
	var all []ResolvedDomain
	var errs []error
	for _, name := range names {
		got, err := r.LookupHost(ctx, name)
		var dns *net.DNSError
		switch {
		case ctx.Err() != nil:
			return all, fmt.Errorf("cannot look up %s: %w", name, ctx.Err())
		case errors.As(err, &dns) && dns.IsNotFound:
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot look up %s: %w", name, err))
			continue
		}
		for _, a := range got {
			if slices.ContainsFunc(ips, func(ip string) bool { return sameIP(a, ip) }) {
				all = append(all, ResolvedDomain{name, a})
			}
		}
	}
	return all, errors.Join(errs...)
}

// A ForwardingItem is work for whoever keeps a domain: what has to change so
// that its requests come through a balancer (section 2.7 of the procedure).
type ForwardingItem struct {
	Domain   string        `json:"domain"`
	RecordID string        `json:"record_id,omitempty"` // "" when the provider is not Alibaba Cloud DNS
	Zone     string        `json:"zone,omitempty"`      // domain of the record
	Type     string        `json:"type"`                // of the record now
	Value    string        `json:"value"`               // now: an address of the host
	Want     string        `json:"want"`                // the balancer's address or DNS name
	WantType string        `json:"want_type"`           // "A", "AAAA" or "CNAME"
	TTL      int           `json:"ttl"`                 // seconds; 0 = not known
	Line     string        `json:"line,omitempty"`
	Wait     time.Duration `json:"wait_ns"` // after the change, until nobody has the old value any more
	// The forwarding rule that the listener needs.
	LoadBalancerID string `json:"load_balancer_id"`
	Port           int    `json:"port"`
	VServerGroupID string `json:"vserver_group_id"`
}

// A ForwardTarget is the balancer behind which domains are to be moved.
type ForwardTarget struct {
	LoadBalancerID string
	Address        string // IP of a CLB, DNS name of an ALB or NLB
	Port           int    // of the listener
	VServerGroupID string // with the host in it
}

// PlanForwarding turns records and resolved names into work items, one for each
// name and value. It is pure. Records that are switched off need no work. A name
// that both lists have is taken from the records, which say more.
func PlanForwarding(records []DNSRecord, resolved []ResolvedDomain, to ForwardTarget) []ForwardingItem {
	wantType := "CNAME"
	if a, err := netip.ParseAddr(to.Address); err == nil {
		if wantType = "A"; a.Is6() {
			wantType = "AAAA"
		}
	}
	item := func(domain string) ForwardingItem {
		return ForwardingItem{Domain: domain, Want: to.Address, WantType: wantType, LoadBalancerID: to.LoadBalancerID, Port: to.Port, VServerGroupID: to.VServerGroupID}
	}
	var out []ForwardingItem
	for _, r := range records {
		if !r.Enabled {
			continue
		}
		i := item(r.Name())
		i.RecordID, i.Zone, i.Type, i.Value, i.TTL, i.Line = r.ID, r.Domain, r.Type, r.Value, r.TTL, r.Line
		i.Wait = time.Duration(r.TTL) * time.Second
		out = append(out, i)
	}
	for _, r := range resolved {
		if slices.ContainsFunc(out, func(o ForwardingItem) bool {
			return strings.EqualFold(o.Domain, strings.TrimSuffix(r.Name, ".")) && sameIP(o.Value, r.Address)
		}) {
			continue
		}
		i := item(strings.TrimSuffix(r.Name, "."))
		i.Type, i.Value = "A", r.Address
		if strings.Contains(r.Address, ":") {
			i.Type = "AAAA"
		}
		out = append(out, i)
	}
	return out
}

// String says what to change, with every value.
func (i ForwardingItem) String() string {
	ttl := "its TTL"
	if i.TTL > 0 {
		ttl = fmt.Sprintf("its TTL of %d s", i.TTL)
	}
	line := ""
	if i.Line != "" && i.Line != "default" {
		line = " (line " + i.Line + ")"
	}
	return fmt.Sprintf("create a rule on %s listener %d: domain %s to group %s; then change record %s%s from %s %s to %s %s and wait for %s",
		i.LoadBalancerID, i.Port, i.Domain, i.VServerGroupID, i.Domain, line, i.Type, i.Value, i.WantType, i.Want, ttl)
}

// CheckForwarding looks whether the work of an item is done: the rule exists and
// the name no longer leads to the old value, by the record if the account keeps
// it and by r (nil: the system's resolver) in any case. left says what remains;
// none means done. Whether caches still have the old value is a matter of time:
// wait for i.Wait from then on.
func (c *Client) CheckForwarding(ctx context.Context, r Resolver, i ForwardingItem) (left []string, _ error) {
	rule, err := c.FindRule(ctx, i.LoadBalancerID, i.Port, "", Rule{Domain: i.Domain, VServerGroupID: i.VServerGroupID})
	var conflict *RuleConflictError
	switch {
	case errors.As(err, &conflict):
		left = append(left, conflict.Error())
	case err != nil:
		return nil, err
	case rule == nil:
		left = append(left, fmt.Sprintf("%s listener %d has no rule for %s to group %s", i.LoadBalancerID, i.Port, i.Domain, i.VServerGroupID))
	}
	if i.RecordID != "" {
		records, err := c.api.DNSRecords(ctx, i.Zone, i.Value)
		if err != nil {
			return nil, fmt.Errorf("cannot list the records of %s: %w", i.Zone, wrap(err))
		}
		for _, x := range records {
			if x.ID == i.RecordID && x.Enabled && sameIP(x.Value, i.Value) {
				left = append(left, fmt.Sprintf("record %s is still %s %s, not %s %s", i.Domain, x.Type, x.Value, i.WantType, i.Want))
			}
		}
	}
	got, err := ResolveDomains(ctx, r, []string{i.Domain}, []string{i.Value})
	if err != nil {
		return nil, err
	}
	if len(got) > 0 {
		left = append(left, fmt.Sprintf("%s still leads to %s from here", i.Domain, i.Value))
	}
	return left, nil
}
