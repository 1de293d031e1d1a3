package ecs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// How much a TrustFinding matters.
const (
	SeverityBlock = "block" // the clone would be refused what its source is given
	SeverityWarn  = "warn"  // may matter: somebody has to look
	SeverityInfo  = "info"  // does not matter now
)

// Kinds of TrustFinding.
const (
	TrustAllowList     = "allow-list"     // of a database
	TrustSecurityGroup = "security-group" // a rule by source address
	TrustNotChecked    = "not-checked"    // a question that could not be asked
)

// A TrustFinding is one place that lets the source of a clone in by its private
// address, and not the clone. Type slb.PathFinding has the same fields and
// converts.
type TrustFinding struct {
	Kind     string `json:"kind"`
	Severity string `json:"severity"`
	Product  string `json:"product"` // "rds", "redis", "mongodb", "polardb", "ecs"
	ID       string `json:"id"`      // of the database or security group
	Evidence string `json:"evidence"`
	Remedy   string `json:"remedy"`
}

// String is the finding in one line.
func (f TrustFinding) String() string {
	return fmt.Sprintf("%s: %s %s: %s; %s", f.Severity, f.Kind, f.ID, f.Evidence, f.Remedy)
}

// A TrustQuery says whose address changes.
type TrustQuery struct {
	// Old are the private addresses of the source.
	Old []string
	// New are the addresses of the clone, or CIDR blocks out of which it will get
	// one (as that of its vSwitch, "172.31.0.0/20").
	New []string
	// VPC limits the look at security groups; "" leaves them out.
	VPC string
	// Groups are the security groups of source and clone: databases that let in a
	// whole group let both in.
	Groups []string
}

// ListTrust lists the allow lists of RDS, Redis (Tair), MongoDB and PolarDB, and
// the security-group rules, that let an old address in and not every new one. An
// entry may be an address or a CIDR block; a database lets in what any of its
// lists lets in. A product whose API the account may not use, or that the region
// does not have, gives a finding of TrustNotChecked and is never passed over in
// silence. The error is one that other credentials, another network or a later
// attempt would mend; what was found before comes along.
func (c *Client) ListTrust(ctx context.Context, q TrustQuery) ([]TrustFinding, error) {
	older, err := prefixes(q.Old)
	if err == nil && len(older) == 0 {
		err = errors.New("no old address is given")
	}
	newer, err2 := prefixes(q.New)
	if err2 == nil && len(newer) == 0 {
		err2 = errors.New("no new address or block is given")
	}
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("cannot compare allow lists: %w", err)
	}
	var all []TrustFinding
	for _, p := range []struct {
		product, name string
		list          func(context.Context) ([]alicloud.AllowList, error)
	}{
		{"rds", "RDS", c.api.RDSAllowLists},
		{"r-kvstore", "Redis", c.api.RedisAllowLists},
		{"dds", "MongoDB", c.api.MongoDBAllowLists},
		{"polardb", "PolarDB", c.api.PolarDBAllowLists},
	} {
		lists, err := p.list(ctx)
		if err != nil {
			f, ok := trustNotChecked(p.product, p.name+" allow lists", err)
			if !ok {
				return all, fmt.Errorf("cannot list the allow lists of %s: %w", p.name, wrap(err))
			}
			all = append(all, f)
			continue
		}
		all = append(all, missing(lists, older, newer, q.Groups)...)
	}
	if q.VPC == "" {
		return all, nil
	}
	rules, err := c.api.SecurityGroupRules(ctx, q.VPC)
	if err != nil {
		f, ok := trustNotChecked("ecs", "security-group rules", err)
		if !ok {
			return all, fmt.Errorf("cannot list the security groups of %s: %w", q.VPC, wrap(err))
		}
		return append(all, f), nil
	}
	return append(all, missingRules(rules, older, newer)...), nil
}

// trustNotChecked makes a finding of an error that asking again would not mend.
func trustNotChecked(product, what string, err error) (TrustFinding, bool) {
	var e *alicloud.Error
	if !errors.As(err, &e) || e.Class != alicloud.Definitive || e.HTTPStatus == 0 {
		return TrustFinding{}, false
	}
	f := TrustFinding{Kind: TrustNotChecked, Severity: SeverityWarn, Product: product, ID: what}
	if e.Denied() {
		f.Evidence = "not checked: needs " + alicloud.Permission(product, e.Action)
		f.Remedy = "grant it ('upgradectl policy' prints the whole policy), or look by hand"
		return f, true
	}
	if errors.Is(e, alicloud.ErrCredentials) {
		return TrustFinding{}, false
	}
	f.Evidence, f.Remedy = "not checked: "+e.Error(), "look by hand"
	return f, true
}

// prefixes parses addresses and CIDR blocks.
func prefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, ok := prefix(s)
		if !ok {
			return nil, fmt.Errorf("%q is neither an address nor a CIDR block", s)
		}
		out = append(out, p)
	}
	return out, nil
}

func prefix(s string) (netip.Prefix, bool) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	return netip.Prefix{}, false
}

// admits reports whether one of the blocks holds all of p.
func admits(blocks []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Bits() <= p.Bits() && b.Contains(p.Addr()) })
}

// missing compares the lists of each database, all of them together.
func missing(lists []alicloud.AllowList, older, newer []netip.Prefix, groups []string) []TrustFinding {
	type database struct {
		first  alicloud.AllowList
		blocks []netip.Prefix
		group  bool     // lets our security groups in
		where  []string // lists that hold an old address
	}
	var order []string
	all := map[string]*database{}
	for _, l := range lists {
		d := all[l.ID]
		if d == nil {
			d = &database{first: l}
			all[l.ID] = d
			order = append(order, l.ID)
		}
		d.group = d.group || slices.ContainsFunc(l.SecurityGroupIDs, func(g string) bool { return slices.Contains(groups, g) })
		var own []netip.Prefix
		for e := range strings.SplitSeq(l.Entries, ",") {
			if p, ok := prefix(e); ok {
				own = append(own, p)
			}
		}
		d.blocks = append(d.blocks, own...)
		if slices.ContainsFunc(older, func(p netip.Prefix) bool { return admits(own, p) }) {
			d.where = append(d.where, l.Group)
		}
	}
	var out []TrustFinding
	for _, id := range order {
		d := all[id]
		lacks := refused(d.blocks, newer)
		if d.group || len(d.where) == 0 || len(lacks) == 0 {
			continue
		}
		name := id
		if d.first.Name != "" {
			name += " (" + d.first.Name + ")"
		}
		out = append(out, TrustFinding{
			Kind: TrustAllowList, Severity: SeverityBlock, Product: d.first.Product, ID: id,
			Evidence: fmt.Sprintf("%s %s lets %s in (list %s) and not %s", d.first.Product, name, strings.Join(texts(admitted(d.blocks, older)), ", "), strings.Join(d.where, ", "), strings.Join(lacks, ", ")),
			Remedy:   fmt.Sprintf("add %s to a list of its own (as upgradectl) before the clone serves, and delete that list when the clone is gone", strings.Join(lacks, ", ")),
		})
	}
	return out
}

// missingRules looks for rules that let an old address in where no rule of the
// same group for the same ports lets the new ones in.
func missingRules(rules []alicloud.SecurityGroupRule, older, newer []netip.Prefix) []TrustFinding {
	var out []TrustFinding
	for _, r := range rules {
		p, ok := prefix(r.Source)
		if !ok || !slices.ContainsFunc(older, func(o netip.Prefix) bool { return admits([]netip.Prefix{p}, o) }) {
			continue
		}
		var blocks []netip.Prefix
		for _, o := range rules {
			if b, ok := prefix(o.Source); ok && o.GroupID == r.GroupID && (o.Ports == r.Ports && o.Protocol == r.Protocol || strings.EqualFold(o.Protocol, "all")) {
				blocks = append(blocks, b)
			}
		}
		lacks := refused(blocks, newer)
		if len(lacks) == 0 {
			continue
		}
		out = append(out, TrustFinding{
			Kind: TrustSecurityGroup, Severity: SeverityBlock, Product: "ecs", ID: r.GroupID,
			Evidence: fmt.Sprintf("security group %s lets %s in to %s %s and not %s", r.GroupID, r.Source, r.Protocol, r.Ports, strings.Join(lacks, ", ")),
			Remedy:   fmt.Sprintf("add the same rule for %s before the clone serves, and delete it when the clone is gone", strings.Join(lacks, ", ")),
		})
	}
	return out
}

// refused lists what no single block holds whole.
func refused(blocks, want []netip.Prefix) []string {
	return texts(slices.DeleteFunc(slices.Clone(want), func(p netip.Prefix) bool { return admits(blocks, p) }))
}

func admitted(blocks, want []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(want), func(p netip.Prefix) bool { return !admits(blocks, p) })
}

func texts(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		if p.IsSingleIP() {
			out = append(out, p.Addr().String())
		} else {
			out = append(out, p.String())
		}
	}
	return out
}
