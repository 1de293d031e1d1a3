package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Discover reads everything a plan for cfg rests on. It changes nothing. It
// fills in what cfg leaves to discovery: the instance and its address.
func Discover(ctx context.Context, cfg *Config, e *Env) (*Facts, error) {
	if cfg.Procedure == ProcedureRebuild {
		return discoverRebuild(ctx, cfg, e)
	}
	f := &Facts{}
	var err error
	if cfg.OS.Strategy == StrategyScript {
		b, err := os.ReadFile(cfg.OS.Script)
		if err != nil {
			return nil, &RefusedError{Host: cfg.Host, Reasons: []string{"os.script: " + err.Error()}}
		}
		f.Script = string(b)
	}
	if cfg.OS.Precheck != "" {
		b, err := os.ReadFile(cfg.OS.Precheck)
		if err != nil {
			return nil, &RefusedError{Host: cfg.Host, Reasons: []string{"os.precheck: " + err.Error()}}
		}
		f.Precheck = string(b)
	}
	if name := cfg.Docker.Profile; name != "" && name != ProfileRunbook && name != ProfileKeep {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, &RefusedError{Host: cfg.Host, Reasons: []string{"docker.profile: " + err.Error()}}
		}
		f.DockerProfile = string(b)
	}
	if f.Instance, f.Disks, err = discoverInstance(ctx, cfg, e); err != nil {
		return nil, err
	}
	cfg.Instance = f.Instance.ID
	if cfg.Address == "" && len(f.Instance.PrivateIPs) > 0 {
		cfg.Address = f.Instance.PrivateIPs[0]
	}
	if !slices.Contains(f.Instance.PrivateIPs, cfg.Address) {
		return nil, &RefusedError{Host: cfg.Host, Reasons: []string{fmt.Sprintf("instance %s has the private addresses %s, not %s", f.Instance.ID, strings.Join(f.Instance.PrivateIPs, ", "), cfg.Address)}}
	}
	if err := discoverInstore(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if id := cfg.Transition.Instance; id != "" {
		if f.Adopted, err = e.ECS.GetInstance(ctx, id); err != nil {
			return nil, &AccessError{fmt.Errorf("transition.instance: %w", err)}
		}
	} else if err := discoverClone(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if err := discoverTrust(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	prod := e.host(cfg.Host)
	if f.Boot, err = hostos.GetBoot(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if f.OS, err = hostos.Assess(ctx, prod, cfg.osStrategy(f)); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if f.Docker, err = hostos.GetDocker(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	f.HasDocker = f.Docker.Command != ""
	if f.Inventory, err = hostinv.Collect(ctx, prod, hostinv.Options{}); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if cfg.OS.Production == ProductionReplaceDisk {
		if f.Written, f.Logs, err = listWritten(ctx, prod, f.Inventory, time.Now().Add(-writtenDay).Unix()); err != nil {
			return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
		}
	}
	if f.Extra, err = collectExtra(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if f.Restart, err = discoverRestart(ctx, cfg, prod); err != nil {
		return nil, err
	}
	if f.Nginx, err = discoverNginx(ctx, cfg, e); err != nil {
		return nil, err
	}
	if f.Memberships, err = discoverBalancers(ctx, cfg, e, f.Instance); err != nil {
		return nil, err
	}
	if f.Sick, err = discoverSick(ctx, e, f.Memberships); err != nil {
		return nil, err
	}
	if f.Direct, err = discoverDirect(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if err := discoverPaths(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if err := probeAll(ctx, cfg, e, prod, cfg.Address); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		f.Unhealthy = err.Error()
	}
	if f.Elsewhere, err = elsewhere(ctx, cfg, prod); err != nil {
		return nil, err
	}
	if f.Adopted != nil {
		if f.AdoptedServes, err = discoverAdopted(ctx, cfg, e, *f.Adopted); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// elsewhere says why the SSH target cannot be the instance: the host's own
// ends of its connections have other addresses. Our own connection is one.
func elsewhere(ctx context.Context, cfg *Config, l *link) (string, error) {
	conns, err := hostinv.ListConnections(ctx, l)
	if err != nil {
		return "", fmt.Errorf("host %s: %w", l.target, err)
	}
	own := map[string]bool{}
	for _, c := range conns {
		if a, err := netip.ParseAddr(c.LocalIP); err == nil && a.Is4() && !a.IsLoopback() {
			own[c.LocalIP] = true
		}
	}
	if len(own) == 0 || own[cfg.Address] {
		return "", nil
	}
	return fmt.Sprintf("ssh %s leads to a host with the address %s, but instance %s has %s", l.target, strings.Join(slices.Sorted(maps.Keys(own)), ", "), cfg.Instance, cfg.Address), nil
}

// discoverAdopted lists what leads to an adopted transition host already.
func discoverAdopted(ctx context.Context, cfg *Config, e *Env, in ecs.Instance) (out []string, err error) {
	m, err := discoverBalancers(ctx, cfg, e, in)
	if err != nil {
		return nil, err
	}
	for _, x := range m {
		out = append(out, "it is a backend of "+groupName(x))
	}
	for _, n := range cfg.Nginx {
		t, err := e.nginx(n).Load(ctx)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", n.Host, err)
		}
		for _, ip := range in.PrivateIPs {
			for _, r := range t.Refs(nginx.Query{Host: ip}) {
				if r.Certain && (r.Kind == nginx.KindServer || r.Kind == nginx.KindPass || r.Kind == nginx.KindValue) {
					out = append(out, fmt.Sprintf("%s: %s:%d leads to it", n.Host, r.File, r.Line))
				}
			}
		}
	}
	return out, nil
}

func discoverInstance(ctx context.Context, cfg *Config, e *Env) (ecs.Instance, []ecs.Disk, error) {
	in, err := e.ECS.FindInstance(ctx, ecs.Lookup{ID: cfg.Instance, PrivateIP: pick(cfg.Instance == "", cfg.Address)})
	if err != nil {
		return ecs.Instance{}, nil, &AccessError{err}
	}
	in, disks, err := e.ECS.GetDetails(ctx, in.ID)
	if err != nil {
		return ecs.Instance{}, nil, &AccessError{err}
	}
	return *in, disks, nil
}

// discoverClone asks what can be known of the transition host before anything
// is made. What an account may not ask is no obstacle, but is said.
func discoverClone(ctx context.Context, cfg *Config, e *Env, f *Facts) error {
	f.Blockers = ecs.CheckClone(&f.Instance, f.Disks)
	in := cloneInput(cfg, f, "")
	if err := e.ECS.DryRunClone(ctx, in); err != nil {
		var refused *ecs.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ecs.ErrNotFound):
			f.Unasked = append(f.Unasked, "whether the cloud would make the transition host: "+err.Error())
		case errors.As(err, &refused) && refused.Definitive:
			f.NoClone = err.Error()
		default:
			return &AccessError{err}
		}
	}
	var err error
	if f.Stock, err = e.ECS.Stock(ctx, f.Instance.Type, f.Instance.Zone); err != nil {
		f.Unasked = append(f.Unasked, "how many "+f.Instance.Type+" are left: "+err.Error())
	}
	if f.Price, err = e.ECS.Price(ctx, in); err != nil {
		f.Unasked = append(f.Unasked, "what the transition host costs: "+err.Error())
	}
	quotas, unasked, err := e.ECS.ListQuotas(ctx, ecs.QuotaQuery{Source: &f.Instance, SecurityGroups: slices.Compact(slices.Sorted(slices.Values(slices.Concat(f.Instance.SecurityGroups, in.SecurityGroups))))})
	if err != nil {
		return &AccessError{err}
	}
	f.Quotas, f.Unasked = append(f.Quotas, quotas...), append(f.Unasked, unasked...)
	return ctx.Err()
}

// discoverInstore asks what the cloud has in store for the instance and its disks.
func discoverInstore(ctx context.Context, cfg *Config, e *Env, f *Facts) (err error) {
	if f.Events, err = e.ECS.ListSystemEvents(ctx, f.Instance.ID); err != nil {
		f.Unasked = append(f.Unasked, "whether the cloud will restart or move the instance: "+err.Error())
	}
	snaps, err := e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{InstanceID: f.Instance.ID})
	if err != nil {
		f.Unasked = append(f.Unasked, "whether a snapshot is being made, and how many there are: "+err.Error())
		return ctx.Err()
	}
	for _, s := range snaps {
		if s.Status == "progressing" {
			f.Snapshotting = append(f.Snapshotting, fmt.Sprintf("%s of %s (%d%%)", s.ID, s.SourceDiskID, s.Percent))
		}
	}
	take := 1 // 4.5
	if cfg.Transition.Instance == "" {
		take = 2 // and 3.1
	}
	f.Quotas = ecs.SnapshotQuotas(f.Disks, snaps, take)
	return ctx.Err()
}

// discoverTrust asks who lets production in by its address, and not everybody of
// the block that the transition host gets its own from.
func discoverTrust(ctx context.Context, cfg *Config, e *Env, f *Facts) error {
	if cfg.Paths.Check == PathsNone {
		return nil
	}
	in := f.Instance
	q := ecs.TrustQuery{Old: in.PrivateIPs, VPC: in.VPC, Groups: in.SecurityGroups}
	if f.Adopted != nil {
		q.New = f.Adopted.PrivateIPs
	} else {
		cidr, err := e.ECS.VSwitchCIDR(ctx, in.VSwitch)
		if err != nil {
			f.Unasked = append(f.Unasked, "who will let the transition host in: "+err.Error())
			return ctx.Err()
		}
		q.New = []string{cidr}
	}
	var err error
	if f.Trust, err = e.ECS.ListTrust(ctx, q); err != nil {
		return &AccessError{err}
	}
	return nil
}

// discoverSick lists the members besides production that do not serve although
// they have a weight.
func discoverSick(ctx context.Context, e *Env, ms []slb.Membership) ([]SickMember, error) {
	not, err := e.SLB.ListNotServing(ctx, ms)
	if err != nil {
		return nil, &AccessError{err}
	}
	var out []SickMember
	for _, x := range not {
		for _, m := range ms {
			if m.Group() == x.Group && m.Backend != x.Backend {
				s := SickMember{Group: groupName(m), Backend: x.Backend, Why: strings.Join(x.Reasons, "; ")}
				if !slices.Contains(out, s) && !slices.ContainsFunc(ms, func(o slb.Membership) bool { return o.Group() == x.Group && o.Backend == x.Backend }) {
					out = append(out, s)
				}
			}
		}
	}
	return out, nil
}

// discoverRestart looks what a restart of services without a start command would
// have. That one of them does not run is said by another finding.
func discoverRestart(ctx context.Context, cfg *Config, l *link) ([]hostos.Kept, error) {
	kept, err := hostos.CheckRestart(ctx, l, hostServices(cfg))
	var ran interface{ ExitStatus() int }
	var problems *hostos.RestartError
	switch {
	case err == nil, errors.Is(err, hostos.ErrNotRunning), errors.As(err, &problems):
		return kept, nil
	case errors.As(err, &ran): // as one who is not root
		for _, s := range hostos.NeedRestart(hostServices(cfg)) {
			kept = append(kept, hostos.Kept{Service: s.Name, Problem: err.Error()})
		}
		return kept, nil
	}
	return nil, fmt.Errorf("host %s: %w", l.target, err)
}

// cloneInput describes the transition host; token, name and tags come with the
// attempt that makes it.
func cloneInput(cfg *Config, f *Facts, imageID string) ecs.CloneInput {
	return ecs.CloneInput{
		Source: &f.Instance, Disks: f.Disks, ImageID: imageID, Name: cfg.Transition.Name,
		PublicIP: cfg.Transition.PublicIP, SecurityGroups: cfg.Transition.Quarantine.groups(),
	}
}

func discoverNginx(ctx context.Context, cfg *Config, e *Env) ([]NginxFacts, error) {
	var out []NginxFacts
	for _, n := range cfg.Nginx {
		t, err := e.nginx(n).Load(ctx)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", n.Host, err)
		}
		nf := NginxFacts{Host: n.Host, Conf: n.Conf, Files: map[string]string{}, Refs: t.Refs(nginx.Query{Host: cfg.Address})}
		for _, file := range t.Files() {
			nf.Files[file.Name()] = PlanHash(file.Bytes())
		}
		nf.preview(t, cfg.Address)
		out = append(out, nf)
	}
	return out, nil
}

// standIn is the address (of RFC 5737) that previews are made with: nginx
// treats a name differently from an address.
const standIn = "192.0.2.254"

// preview tries the edits of 3.9 and 4.2 on the files as they are.
func (n *NginxFacts) preview(t *nginx.Tree, address string) {
	diff := func(c *nginx.Change) string { return strings.ReplaceAll(c.Diff(), standIn, "transition-host") }
	add, err := addServers(t, address, standIn, "plan")
	if err != nil {
		n.Refusal = err.Error()
		return
	}
	n.Add = diff(add)
	if t, err = t.With(add); err != nil {
		n.Refusal = err.Error()
		return
	}
	drain, err := drainServers(t, address, standIn, "plan")
	if err != nil {
		n.Refusal = err.Error()
		return
	}
	n.Drain = diff(drain)
	for _, w := range drain.Warnings {
		n.Drain += "# " + w + "\n"
	}
}

func discoverBalancers(ctx context.Context, cfg *Config, e *Env, in ecs.Instance) ([]slb.Membership, error) {
	if cfg.Balancers == "none" {
		return nil, nil
	}
	m, err := e.SLB.Discover(ctx, slb.Server{InstanceID: in.ID, ENIs: in.ENIs, IPs: in.PrivateIPs})
	if err != nil {
		return nil, &AccessError{err}
	}
	return m, nil
}

// discoverDirect lists the peers that use the host's services past nginx and
// the balancers (section 2.7): such traffic is not moved by the procedure.
func discoverDirect(ctx context.Context, cfg *Config, e *Env, f *Facts) ([]string, error) {
	w := &watch{env: e, cfg: cfg, host: e.host(cfg.Host), ip: cfg.Address, published: publishedPorts(f.Inventory)}
	conns, err := w.inbound(ctx)
	if err != nil {
		return nil, err
	}
	known, err := nginxAddrs(ctx, cfg, e)
	if err != nil {
		return nil, err
	}
	behind := behindBalancers(f.Memberships)
	peers := map[string]bool{}
	for _, c := range conns {
		if c.State == "ESTABLISHED" && behind[c.LocalPort] == (passing{}) && known[c.RemoteIP] == "" && !isBalancer(c.RemoteIP) && !isLocal(c.RemoteIP, cfg.Address) {
			peers[fmt.Sprintf("%s uses port %d", c.RemoteIP, c.LocalPort)] = true
		}
	}
	out := slices.Sorted(maps.Keys(peers))
	for _, ip := range f.Instance.PublicIPs {
		out = append(out, fmt.Sprintf("public address %s: a domain that points to it does not pass the balancers", ip))
	}
	return out, nil
}

// discoverPaths lists the ways that lead to the host past the balancers, and
// the domains that can be moved behind one.
func discoverPaths(ctx context.Context, cfg *Config, e *Env, f *Facts) error {
	if cfg.Paths.Check == PathsNone {
		return nil
	}
	in := f.Instance
	host := slb.PathHost{
		Server: slb.Server{InstanceID: in.ID, ENIs: in.ENIs, IPs: in.PrivateIPs},
		VPC:    in.VPC, PublicIPs: in.PublicIPs, Tags: in.Tags, Domains: cfg.Paths.Domains, Resolver: e.resolver,
	}
	var err error
	if f.Paths, err = e.SLB.ListPaths(ctx, host); err != nil {
		return &AccessError{err}
	}
	if !slices.ContainsFunc(f.Paths, func(p slb.PathFinding) bool { return p.Kind == slb.PathDomain }) {
		return nil
	}
	to, ok := forwardTarget(f.Memberships)
	if !ok {
		return nil // no balancer to move them behind: they stay what they are, findings
	}
	ips := slices.Concat(in.PublicIPs, in.PrivateIPs)
	records, err := e.SLB.ListDomainRecords(ctx, ips)
	if err != nil {
		return &AccessError{err}
	}
	resolved, err := slb.ResolveDomains(ctx, e.resolver, cfg.Paths.Domains, ips)
	if err != nil {
		return &AccessError{err}
	}
	for _, i := range slb.PlanForwarding(records, resolved, to) {
		if !accepted(cfg, i) {
			f.Forwarding = append(f.Forwarding, i)
		}
	}
	return nil
}

// forwardTarget finds a place behind which a domain can be moved: a forwarding
// rule is of an HTTP or HTTPS listener of a CLB and leads to a VServer group.
func forwardTarget(ms []slb.Membership) (slb.ForwardTarget, bool) {
	for _, m := range ms {
		if m.Product != "" && m.Product != slb.CLB || m.VServerGroupID == "" || m.MasterSlaveGroupID != "" || m.Managed {
			continue
		}
		for _, l := range m.Listeners {
			if l.Protocol == "http" || l.Protocol == "https" {
				return slb.ForwardTarget{LoadBalancerID: m.LoadBalancerID, Address: m.Address, Port: l.Port, VServerGroupID: m.VServerGroupID}, true
			}
		}
	}
	return slb.ForwardTarget{}, false
}

// accepted tells whether a person has judged a domain harmless, by the ID that
// its finding has.
func accepted(cfg *Config, i slb.ForwardingItem) bool {
	return cfg.accepts(Finding{ID: "path-" + slb.PathDomain, Severity: FindingBlocking, Object: cmp.Or(i.RecordID, i.Domain)}) != ""
}

// movable tells whether the work for a finding is one of the items of 2.7.
func movable(items []slb.ForwardingItem, f slb.PathFinding) bool {
	return f.Kind == slb.PathDomain && slices.ContainsFunc(items, func(i slb.ForwardingItem) bool {
		return f.ID == i.RecordID || strings.EqualFold(strings.TrimSuffix(f.ID, "."), i.Domain)
	})
}

// nginxAddrs gives the addresses the nginx hosts are known by, each with the
// SSH target of its host: the target
// when it is one, and what their connections to the production host say.
func nginxAddrs(ctx context.Context, cfg *Config, e *Env) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range cfg.Nginx {
		if _, err := netip.ParseAddr(n.Host); err == nil {
			out[n.Host] = n.Host
		}
		conns, err := hostinv.ListConnections(ctx, e.host(n.Host))
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", n.Host, err)
		}
		for _, c := range conns {
			if c.RemoteIP == cfg.Address {
				out[c.LocalIP] = n.Host
			}
		}
	}
	return out, nil
}

// passing tells how connections come through a balancer to a port of the host.
type passing struct {
	clients bool // a layer-4 listener passes them on with their clients' addresses
	vpc     bool // an ALB makes them itself, from addresses of the vSwitch
}

// behindBalancers lists the ports of the host whose connections do not come
// from the addresses that a CLB makes requests from.
func behindBalancers(ms []slb.Membership) map[int]passing {
	out := map[int]passing{}
	for _, m := range ms {
		for _, l := range m.Listeners {
			port := cmp.Or(m.Backend.Port, l.BackendPort)
			p := out[port]
			switch {
			case m.Product == slb.ALB:
				p.vpc = true
			case l.Protocol == "tcp" || l.Protocol == "udp" || l.Protocol == "tcpssl":
				p.clients = true
			default:
				continue
			}
			out[port] = p
		}
	}
	return out
}

func servesPort(cfg *Config, port int) bool {
	return slices.ContainsFunc(cfg.Services, func(s Service) bool { return slices.Contains(s.Ports, port) })
}

// balancerRange is where CLB's proxies and health checks come from
// (Alibaba Cloud, "CLB health checks": 100.64.0.0/10).
var balancerRange = netip.MustParsePrefix("100.64.0.0/10")

func isBalancer(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && balancerRange.Contains(a.Unmap())
}

func isLocal(ip, own string) bool {
	a, err := netip.ParseAddr(ip)
	return ip == own || err == nil && a.Unmap().IsLoopback()
}

func driftNginx(was, now []NginxFacts) (out []string) {
	for i, w := range was {
		n := NginxFacts{}
		if i < len(now) {
			n = now[i]
		}
		for _, name := range slices.Sorted(maps.Keys(w.Files)) {
			if n.Files[name] != w.Files[name] {
				out = append(out, fmt.Sprintf("%s: %s has changed", w.Host, name))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(n.Files)) {
			if _, ok := w.Files[name]; !ok {
				out = append(out, fmt.Sprintf("%s: %s is new", w.Host, name))
			}
		}
	}
	return out
}

// memberKey names one place where the host gets traffic. A group of ALB or NLB
// can be behind several balancers, and which of them is named first is chance.
func memberKey(m slb.Membership) string {
	if m.Product == slb.ALB || m.Product == slb.NLB {
		return fmt.Sprintf("%s group %s, member %s", m.Product, m.VServerGroupID, m.Backend)
	}
	return fmt.Sprintf("%s %s, member %s", m.LoadBalancerID, cmp.Or(m.VServerGroupID, m.MasterSlaveGroupID, "default group"), m.Backend)
}

// driftBalancers compares where the host is a member, and with which weights.
func driftBalancers(was, now []slb.Membership) (out []string) {
	have := map[string]slb.Membership{}
	for _, m := range now {
		have[memberKey(m)] = m
	}
	for _, m := range was {
		key := memberKey(m)
		n, ok := have[key]
		delete(have, key)
		switch {
		case !ok:
			out = append(out, "the host is no longer in "+key)
		case n.Backend.Weight != m.Backend.Weight:
			out = append(out, fmt.Sprintf("the host's weight in %s is %d, was %d", key, n.Backend.Weight, m.Backend.Weight))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		out = append(out, "the host is new in "+k)
	}
	return out
}

// driftListeners compares what leads to the groups that the host was in: a
// listener or rule more or less, another scheduler, port, health check or
// stickiness, and what speaks against draining that did not before. The rules
// that section 2.7 asks for are no drift.
func driftListeners(f *Facts, now []slb.Membership) (out []string) {
	asked := func(l slb.Listener) bool {
		return l.Rule != "" && slices.ContainsFunc(f.Forwarding, func(i slb.ForwardingItem) bool {
			return i.LoadBalancerID == l.LoadBalancerID && i.Port == l.Port && strings.EqualFold(i.Domain, l.Domain)
		})
	}
	have := map[string]slb.Membership{}
	for _, m := range now {
		have[memberKey(m)] = m
	}
	name := func(m slb.Membership, l slb.Listener) string {
		return cmp.Or(l.LoadBalancerID, m.LoadBalancerID) + " " + l.String()
	}
	for _, m := range f.Memberships {
		n, ok := have[memberKey(m)]
		if !ok {
			continue // driftBalancers says so
		}
		left := map[string]slb.Listener{}
		for _, l := range n.Listeners {
			left[name(n, l)] = l
		}
		maps.DeleteFunc(left, func(k string, l slb.Listener) bool {
			return asked(l) && !slices.ContainsFunc(m.Listeners, func(o slb.Listener) bool { return name(m, o) == k })
		})
		for _, l := range m.Listeners {
			k := name(m, l)
			x, ok := left[k]
			delete(left, k)
			if !ok {
				out = append(out, fmt.Sprintf("%s no longer leads to %s", k, memberKey(m)))
				continue
			}
			differs := func(what string, a, b any) {
				if a != b {
					out = append(out, fmt.Sprintf("%s: %s is %v, was %v", k, what, b, a))
				}
			}
			differs("the scheduler", l.Scheduler, x.Scheduler)
			differs("the port of the members", l.BackendPort, x.BackendPort)
			differs("health check", l.HealthCheck, x.HealthCheck)
			differs("session stickiness", l.Sticky, x.Sticky)
			// What is starting or being configured comes and goes.
			differs("stopped", l.Status == "stopped", x.Status == "stopped")
		}
		for _, k := range slices.Sorted(maps.Keys(left)) {
			out = append(out, fmt.Sprintf("%s leads to %s and did not", k, memberKey(m)))
		}
		before := m.Findings()
		for _, f := range n.Findings() {
			if f.Blocking && !slices.ContainsFunc(before, func(b slb.Finding) bool { return b.Kind == f.Kind && b.Where == f.Where }) {
				out = append(out, f.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// driftInstance compares what a plan takes from the cloud about the host: what
// the transition host is made like, and by which names balancers know it.
func driftInstance(was, now *Facts) (out []string) {
	differs := func(what string, a, b any) {
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
			out = append(out, fmt.Sprintf("instance %s: %s is %s, was %s", was.Instance.ID, what, y, x))
		}
	}
	w, n := was.Instance, now.Instance
	differs("the status", w.Status, n.Status)
	differs("the type", w.Type, n.Type)
	differs("the vSwitch", w.VSwitch, n.VSwitch)
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	differs("the list of private addresses", sorted(w.PrivateIPs), sorted(n.PrivateIPs))
	differs("the list of public addresses", sorted(w.PublicIPs), sorted(n.PublicIPs))
	differs("the list of network interfaces", sorted(w.ENIs), sorted(n.ENIs))
	differs("the list of security groups", sorted(w.SecurityGroups), sorted(n.SecurityGroups))
	disks := func(all []ecs.Disk) (out []string) {
		for _, d := range all {
			out = append(out, fmt.Sprintf("%s (%s, %s, %d GiB)", d.ID, d.Type, d.Category, d.Size))
		}
		return sorted(out)
	}
	differs("the list of disks", disks(was.Disks), disks(now.Disks))
	return out
}

// driftPaths lists the ways past the balancers that block and that the plan did
// not know.
func driftPaths(cfg *Config, was, now *Facts) (out []string) {
	for _, f := range now.Paths {
		known := slices.ContainsFunc(was.Paths, func(o slb.PathFinding) bool {
			return o.Kind == f.Kind && o.ID == f.ID && o.Severity == f.Severity
		})
		taken := cfg.accepts(Finding{ID: "path-" + f.Kind, Severity: FindingBlocking, Object: f.ID}) != ""
		if f.Severity == slb.SeverityBlock && !known && !taken {
			out = append(out, f.String())
		}
	}
	return out
}

func pick(cond bool, s string) string {
	if cond {
		return s
	}
	return ""
}
