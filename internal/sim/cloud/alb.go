package cloud

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	albVersion = "2020-06-16"
	nlbVersion = "2022-04-30"
)

// The products with server groups of their own: one model serves both, and what
// differs between their APIs is in the action lists and views.
const (
	ALB = "alb"
	NLB = "nlb"
)

// A ServerGroup is a server group of ALB or NLB. Its members have Type ecs, eni
// or ip, and a port.
type ServerGroup struct {
	ID, Name       string
	Type           string // Instance (default) or Ip
	Protocol       string // HTTP (default of ALB), HTTPS, TCP (default of NLB), UDP, TCPSSL
	Scheduler      string // Wrr (default), Wlc, Sch …
	VPC            string
	HealthCheck    bool
	HealthPath     string
	Sticky         bool
	StickySeconds  int // default 1000
	DrainSeconds   int // ConnectionDrain; 0 = off
	ServiceManaged bool
	Servers        []Backend
}

// A GroupListener is a listener of an ALB or NLB.
type GroupListener struct {
	ID       string
	Port     int
	Protocol string // HTTP (default of ALB), HTTPS, QUIC; TCP (default of NLB), UDP, TCPSSL
	Status   string // Running (default), Stopped
	Group    string // ID of the server group
	Rules    []GroupRule
}

// A GroupRule sends some of an ALB listener's requests to another group.
type GroupRule struct {
	ID, Name string
	Priority int
	Hosts    []string // empty = any
	Paths    []string // empty = any; a * at the end matches the rest
	Group    string
}

// A GroupBalancer is an ALB or NLB instance.
type GroupBalancer struct {
	Product        string // ALB or NLB
	ID, Name       string
	DNSName        string
	Address        string // in the world; the API shows the DNS name only
	Status         string // Active (default), Inactive, Locked
	VPC            string
	ServiceManaged bool
	Protected      bool // ModificationProtectionConfig.Status is ConsoleProtection
	Listeners      []GroupListener
}

// serverGroups is all that ALB and NLB keep. The zero value is empty.
type serverGroups struct {
	groups    []*serverGroup
	balancers []*groupBalancer
	jobs      []*job
	failing   []string // error codes of the next jobs
}

type serverGroup struct {
	ServerGroup
	product string
	seq     int64
	busy    bool // a job changes it
	members []*groupMember
}

type groupMember struct {
	Backend
	seq    int64
	group  *serverGroup
	status string
}

func (g *serverGroup) number() int64 { return g.seq }
func (m *groupMember) number() int64 { return m.seq }

type groupBalancer struct {
	GroupBalancer
	seq int64
}

func (b *groupBalancer) number() int64 { return b.seq }

// A job is a write that is carried out after its answer.
type job struct {
	id, product, action, resource string
	status, code                  string
	seq                           int64
	at, ended                     time.Time
}

func (j *job) number() int64 { return j.seq }

// jobTakes is how long a job of ALB or NLB runs, divided by Speed.
const jobTakes = 3 * time.Second

// AddServerGroup adds a server group of ALB or NLB. It panics when the ID is
// empty or taken, or a member names no instance.
func (c *Cloud) AddServerGroup(product string, g ServerGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.ID == "" || c.sg.group(product, g.ID) != nil || product != ALB && product != NLB {
		panic(fmt.Sprintf("cloud: server group ID %q is empty or taken, or %q is not alb or nlb", g.ID, product))
	}
	g.Type, g.Scheduler, g.VPC = cmp.Or(g.Type, "Instance"), cmp.Or(g.Scheduler, "Wrr"), cmp.Or(g.VPC, "vpc-sim")
	g.Protocol = cmp.Or(g.Protocol, map[string]string{ALB: "HTTP", NLB: "TCP"}[product])
	if g.Sticky && g.StickySeconds == 0 {
		g.StickySeconds = 1000
	}
	x := &serverGroup{ServerGroup: g, product: product, seq: c.next()}
	for _, m := range g.Servers {
		m.Type = cmp.Or(m.Type, "ecs")
		if m.Type != "ip" && c.server(m) == nil {
			panic(fmt.Sprintf("cloud: member %q of server group %s is no instance", m.ServerID, g.ID))
		}
		x.members = append(x.members, &groupMember{Backend: m, seq: c.next(), group: x, status: "Available"})
	}
	x.Servers = nil
	c.sg.groups = append(c.sg.groups, x)
}

// AddGroupBalancer adds an ALB or NLB. It panics when its ID is empty or taken,
// or a listener or rule names a server group that does not exist.
func (c *Cloud) AddGroupBalancer(b GroupBalancer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.ID == "" || c.sg.balancer(b.Product, b.ID) != nil || b.Product != ALB && b.Product != NLB {
		panic(fmt.Sprintf("cloud: balancer ID %q is empty or taken, or %q is not alb or nlb", b.ID, b.Product))
	}
	b.Status, b.VPC = cmp.Or(b.Status, "Active"), cmp.Or(b.VPC, "vpc-sim")
	b.DNSName = cmp.Or(b.DNSName, b.ID+"."+c.cfg.Region+"."+b.Product+".aliyuncs.com")
	b.Listeners = slices.Clone(b.Listeners)
	for n := range b.Listeners {
		l := &b.Listeners[n]
		l.ID = cmp.Or(l.ID, c.newID("lsn"))
		l.Protocol = cmp.Or(l.Protocol, map[string]string{ALB: "HTTP", NLB: "TCP"}[b.Product])
		l.Status = cmp.Or(l.Status, "Running")
		l.Rules = slices.Clone(l.Rules)
		names := []string{l.Group}
		for r := range l.Rules {
			l.Rules[r].ID = cmp.Or(l.Rules[r].ID, c.newID("rule"))
			names = append(names, l.Rules[r].Group)
		}
		for _, name := range names {
			if c.sg.group(b.Product, name) == nil {
				panic(fmt.Sprintf("cloud: listener %d of balancer %s names the unknown group %q", l.Port, b.ID, name))
			}
		}
	}
	c.sg.balancers = append(c.sg.balancers, &groupBalancer{GroupBalancer: b, seq: c.next()})
}

// ServerGroups returns a copy of all server groups of a product as its data
// plane sees them now: every member's ServerIP is set, and what a job has not
// finished yet does not show.
func (c *Cloud) ServerGroups(product string) []ServerGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []ServerGroup
	for _, g := range c.sg.groups {
		if g.product != product {
			continue
		}
		x := g.ServerGroup
		for _, m := range g.members {
			if m.status == "Adding" {
				continue
			}
			b := m.Backend
			b.ServerIP = c.address(b)
			x.Servers = append(x.Servers, b)
		}
		all = append(all, x)
	}
	return all
}

// GroupBalancers returns a copy of all ALB and NLB instances.
func (c *Cloud) GroupBalancers() []GroupBalancer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []GroupBalancer
	for _, b := range c.sg.balancers {
		x := b.GroupBalancer
		x.Listeners = slices.Clone(x.Listeners)
		for n := range x.Listeners {
			x.Listeners[n].Rules = slices.Clone(x.Listeners[n].Rules)
		}
		all = append(all, x)
	}
	return all
}

// FailJobs makes the next jobs of ALB and NLB end as Failed without an effect,
// one for each code.
func (c *Cloud) FailJobs(codes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sg.failing = append(c.sg.failing, codes...)
}

func (s *serverGroups) group(product, id string) *serverGroup {
	for _, g := range s.groups {
		if g.product == product && g.ID == id {
			return g
		}
	}
	return nil
}

func (s *serverGroups) balancer(product, id string) *groupBalancer {
	for _, b := range s.balancers {
		if b.Product == product && b.ID == id {
			return b
		}
	}
	return nil
}

// forgetServerGroups drops the members of an instance that is gone and reports
// whether there were any. c.mu is held.
func (c *Cloud) forgetServerGroups(i *instance) bool {
	had := false
	for _, g := range c.sg.groups {
		n := len(g.members)
		g.members = slices.DeleteFunc(g.members, func(m *groupMember) bool { return m.belongs(i) })
		had = had || len(g.members) < n
	}
	return had
}

func albActions() []action {
	const listed = " MaxResults:int NextToken"
	return []action{
		{name: "ListLoadBalancers", do: groupAction(ALB, (*Cloud).listGroupBalancers),
			served: "AddressType LoadBalancerIds.# LoadBalancerNames.# VpcIds.# LoadBalancerStatus" + listed,
			other:  "AddressIpVersion DNSName Ipv6AddressType LoadBalancerBussinessStatus PayType ResourceGroupId Tag.#.Key Tag.#.Value ZoneId"},
		{name: "ListListeners", do: groupAction(ALB, (*Cloud).listGroupListeners),
			served: "ListenerIds.# ListenerProtocol LoadBalancerIds.#" + listed, other: "Tag.#.Key Tag.#.Value"},
		{name: "ListRules", do: groupAction(ALB, (*Cloud).listGroupRules),
			served: "ListenerIds.# LoadBalancerIds.# RuleIds.#" + listed, other: "Direction Tag.#.Key Tag.#.Value"},
		{name: "ListServerGroups", do: groupAction(ALB, (*Cloud).listServerGroups),
			served: "ServerGroupIds.# ServerGroupNames.# ServerGroupType VpcId" + listed, other: "ResourceGroupId Tag.#.Key Tag.#.Value"},
		{name: "ListServerGroupServers", do: groupAction(ALB, (*Cloud).listServerGroupServers),
			served: "ServerGroupId ServerIds.#" + listed, other: "Tag.#.Key Tag.#.Value"},
		{name: "GetListenerHealthStatus", do: groupAction(ALB, (*Cloud).getListenerHealthStatus),
			served: "IncludeRule:bool ListenerId!" + listed},
		{name: "AddServersToServerGroup", do: groupAction(ALB, (*Cloud).addServersToServerGroup),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp Servers.#.Weight:int Servers.#.Description",
			other:  "DryRun Servers.#.RemoteIpEnabled"},
		{name: "RemoveServersFromServerGroup", do: groupAction(ALB, (*Cloud).removeServersFromServerGroup),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp", other: "DryRun"},
		{name: "UpdateServerGroupServersAttribute", do: groupAction(ALB, (*Cloud).updateServerGroupServersAttribute),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp Servers.#.Weight:int Servers.#.Description",
			other:  "DryRun Servers.#.RemoteIpEnabled"},
		{name: "ListAsynJobs", do: (*Cloud).listAsynJobs,
			served: "ApiName JobIds.# ResourceIds.# ResourceType" + listed, other: "BeginTime EndTime"},
	}
}

// groupAction gives a handler that serves both products the name of one.
func groupAction(product string, f func(*Cloud, string, *call) (obj, *apiError)) func(*Cloud, *call) (obj, *apiError) {
	return func(c *Cloud, q *call) (obj, *apiError) {
		reply, err := f(c, product, q)
		if err == nil && product == NLB {
			reply["Success"], reply["Code"], reply["HttpStatusCode"], reply["Message"] = true, "200", 200, ""
		}
		return reply, err
	}
}

// inList reports whether v is in a list parameter; one that is not given holds
// everything.
func (q *call) inList(name, v string) bool {
	l := q.list(name)
	return len(l) == 0 || slices.Contains(l, v)
}

// tokenPage is pageOf for actions that page by token only.
func tokenPage[T numbered](q *call, name string, all []T, view func(T) obj) (obj, *apiError) {
	if n := q.num("MaxResults", 20); n < 1 || n > 100 {
		return nil, refuse(400, "IllegalParam.MaxResults", "MaxResults is between 1 and 100, not %d.", n)
	}
	if !q.has("MaxResults") {
		q.params["MaxResults"] = "20"
	}
	part, p, err := pageOf(q, all)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, x := range part {
		list = append(list, view(x))
	}
	return obj{name: list, "NextToken": p["NextToken"], "MaxResults": p["MaxResults"], "TotalCount": len(all)}, nil
}

func (c *Cloud) listGroupBalancers(product string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*groupBalancer
	for _, b := range c.sg.balancers {
		if b.Product == product && q.inList("LoadBalancerIds", b.ID) && q.inList("LoadBalancerNames", b.Name) && q.inList("VpcIds", b.VPC) && oneOf(b.Status, q.str("LoadBalancerStatus")) {
			found = append(found, b)
		}
	}
	return tokenPage(q, "LoadBalancers", found, func(b *groupBalancer) obj {
		mode, protection := "Unmanaged", "NonProtection"
		if b.ServiceManaged {
			mode = "Managed"
		}
		if b.Protected {
			protection = "ConsoleProtection"
		}
		v := obj{
			"LoadBalancerId": b.ID, "LoadBalancerName": b.Name, "LoadBalancerStatus": b.Status, "DNSName": b.DNSName, "VpcId": b.VPC, "AddressType": "Intranet",
			"ModificationProtectionConfig": obj{"Status": protection, "Reason": ""},
		}
		if t, ok := c.logs.of[b.ID]; ok && product == ALB {
			v["AccessLogConfig"] = obj{"LogProject": t.project, "LogStore": t.store}
		}
		if product == ALB {
			v["ServiceManagedEnabled"], v["ServiceManagedMode"], v["LoadBalancerEdition"] = b.ServiceManaged, mode, "Standard"
		}
		return v
	})
}

// groupRow is a listener or a rule with its place in the order of a list.
type groupRow struct {
	seq int64
	b   *groupBalancer
	l   *GroupListener
	r   *GroupRule
}

func (r groupRow) number() int64 { return r.seq }

// groupRows lists the listeners of a product, or with rules the rules of them.
func (c *Cloud) groupRows(product string, rules bool) []groupRow {
	var rows []groupRow
	for _, b := range c.sg.balancers {
		if b.Product != product {
			continue
		}
		for n := range b.Listeners {
			l := &b.Listeners[n]
			seq := b.seq<<32 + int64(n+1)<<16
			if !rules {
				rows = append(rows, groupRow{seq, b, l, nil})
				continue
			}
			for i := range l.Rules {
				rows = append(rows, groupRow{seq + int64(i) + 1, b, l, &l.Rules[i]})
			}
		}
	}
	return rows
}

func forwardTo(group string) obj {
	return obj{"ServerGroupTuples": []obj{{"ServerGroupId": group, "Weight": 100}}}
}

func (c *Cloud) listGroupListeners(product string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := slices.DeleteFunc(c.groupRows(product, false), func(r groupRow) bool {
		return !q.inList("LoadBalancerIds", r.b.ID) || !q.inList("ListenerIds", r.l.ID) || !oneOf(r.l.Protocol, q.str("ListenerProtocol"))
	})
	return tokenPage(q, "Listeners", rows, func(r groupRow) obj {
		v := obj{
			"LoadBalancerId": r.b.ID, "ListenerId": r.l.ID, "ListenerPort": r.l.Port, "ListenerProtocol": r.l.Protocol,
			"ListenerStatus": r.l.Status, "ListenerDescription": "", "IdleTimeout": 15,
		}
		if product == NLB {
			v["ServerGroupId"], v["RegionId"], v["IdleTimeout"] = r.l.Group, c.cfg.Region, 900
			return v
		}
		v["DefaultActions"] = []obj{{"Type": "ForwardGroup", "ForwardGroupConfig": forwardTo(r.l.Group)}}
		v["RequestTimeout"], v["GzipEnabled"], v["Http2Enabled"] = 60, true, r.l.Protocol == "HTTPS"
		return v
	})
}

func (c *Cloud) listGroupRules(product string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := slices.DeleteFunc(c.groupRows(product, true), func(r groupRow) bool {
		return !q.inList("LoadBalancerIds", r.b.ID) || !q.inList("ListenerIds", r.l.ID) || !q.inList("RuleIds", r.r.ID)
	})
	return tokenPage(q, "Rules", rows, func(r groupRow) obj {
		conditions := []obj{}
		if len(r.r.Hosts) > 0 {
			conditions = append(conditions, obj{"Type": "Host", "HostConfig": obj{"Values": r.r.Hosts}})
		}
		if len(r.r.Paths) > 0 {
			conditions = append(conditions, obj{"Type": "Path", "PathConfig": obj{"Values": r.r.Paths}})
		}
		return obj{
			"RuleId": r.r.ID, "RuleName": r.r.Name, "RuleStatus": "Available", "Priority": r.r.Priority, "ListenerId": r.l.ID, "LoadBalancerId": r.b.ID, "Direction": "Request",
			"RuleActions": []obj{{"Order": 1, "Type": "ForwardGroup", "ForwardGroupConfig": forwardTo(r.r.Group)}}, "RuleConditions": conditions,
		}
	})
}

func (c *Cloud) listServerGroups(product string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*serverGroup
	for _, g := range c.sg.groups {
		if g.product == product && q.inList("ServerGroupIds", g.ID) && q.inList("ServerGroupNames", g.Name) && oneOf(g.Type, q.str("ServerGroupType")) && oneOf(g.VPC, q.str("VpcId")) {
			found = append(found, g)
		}
	}
	return tokenPage(q, "ServerGroups", found, func(g *serverGroup) obj {
		balancers, listeners, rules := []string{}, []string{}, []string{}
		for _, r := range c.groupRows(product, false) {
			uses := r.l.Group == g.ID
			if uses {
				listeners = append(listeners, r.l.ID)
			}
			for _, x := range r.l.Rules {
				if x.Group == g.ID {
					rules, uses = append(rules, x.ID), true
				}
			}
			if uses && !slices.Contains(balancers, r.b.ID) {
				balancers = append(balancers, r.b.ID)
			}
		}
		status := "Available"
		if g.busy {
			status = "Configuring"
		}
		v := obj{
			"ServerGroupId": g.ID, "ServerGroupName": g.Name, "ServerGroupStatus": status, "ServerGroupType": g.Type, "Protocol": g.Protocol,
			"Scheduler": g.Scheduler, "VpcId": g.VPC, "ServerCount": len(g.members), "RelatedLoadBalancerIds": balancers,
		}
		if product == NLB {
			v["RegionId"] = c.cfg.Region
			v["HealthCheck"] = obj{"HealthCheckEnabled": g.HealthCheck, "HealthCheckType": "TCP", "HealthyThreshold": 2, "UnhealthyThreshold": 2, "HealthCheckInterval": 10, "HealthCheckConnectTimeout": 5}
			v["ConnectionDrainEnabled"], v["ConnectionDrainTimeout"] = g.DrainSeconds > 0, g.DrainSeconds
			v["PersistenceEnabled"], v["PersistenceTimeout"] = g.Sticky, g.StickySeconds
			return v
		}
		mode := "Unmanaged"
		if g.ServiceManaged {
			mode = "Managed"
		}
		v["ServiceManagedEnabled"], v["ServiceManagedMode"] = g.ServiceManaged, mode
		v["RelatedListenerIds"], v["RelatedRuleIds"] = listeners, rules
		v["HealthCheckConfig"] = obj{"HealthCheckEnabled": g.HealthCheck, "HealthCheckPath": g.HealthPath, "HealthCheckProtocol": "HTTP", "HealthyThreshold": 3, "UnhealthyThreshold": 3, "HealthCheckInterval": 2, "HealthCheckTimeout": 5}
		v["StickySessionConfig"] = obj{"StickySessionEnabled": g.Sticky, "CookieTimeout": g.StickySeconds, "StickySessionType": "Insert"}
		v["ConnectionDrainConfig"] = obj{"ConnectionDrainEnabled": g.DrainSeconds > 0, "ConnectionDrainTimeout": g.DrainSeconds}
		return v
	})
}

func (c *Cloud) listServerGroupServers(product string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := q.str("ServerGroupId"); id != "" && c.sg.group(product, id) == nil {
		return nil, noServerGroup(id)
	}
	var found []*groupMember
	for _, g := range c.sg.groups {
		for _, m := range g.members {
			if g.product == product && oneOf(g.ID, q.str("ServerGroupId")) && q.inList("ServerIds", m.ServerID) && q.inList("ServerIps", c.address(m.Backend)) {
				found = append(found, m)
			}
		}
	}
	return tokenPage(q, "Servers", found, func(m *groupMember) obj {
		v := obj{
			"ServerGroupId": m.group.ID, "ServerId": m.ServerID, "ServerIp": c.address(m.Backend), "ServerType": strings.ToUpper(m.Type[:1]) + m.Type[1:],
			"Port": m.Port, "Weight": m.Weight, "Description": m.Description, "Status": m.status,
		}
		if product == NLB {
			v["ZoneId"] = c.cfg.Region + "-h"
		}
		return v
	})
}

func noServerGroup(id string) *apiError {
	return fail(404, "ResourceNotFound.ServerGroup", "The specified resource of server group %s is not found.", id)
}

// wantedMembers reads Servers.N. Port and type are part of what names a member.
func wantedMembers(q *call, limit int) ([]Backend, *apiError) {
	var list []Backend
	for i := 1; ; i++ {
		g := q.group("Servers", i)
		if g == nil {
			break
		}
		for _, name := range []string{"ServerId", "ServerType", "Port"} {
			if g[name] == "" {
				return nil, refuse(400, "MissingParam.Servers."+name, "The parameter Servers.%d.%s is missing.", i, name)
			}
		}
		m := Backend{ServerID: g["ServerId"], Type: strings.ToLower(g["ServerType"]), ServerIP: g["ServerIp"], Description: g["Description"], Weight: 100}
		m.Port, _ = strconv.Atoi(g["Port"]) // parse has seen that it is a number
		if w := g["Weight"]; w != "" {
			m.Weight, _ = strconv.Atoi(w)
		}
		switch {
		case !slices.Contains([]string{"Ecs", "Eni", "Ip"}, g["ServerType"]):
			return nil, refuse(400, "IllegalParam.ServerType", "The type %q of server %s is not Ecs, Eni or Ip.", g["ServerType"], m.ServerID)
		case m.Port < 1 || m.Port > 65535:
			return nil, refuse(400, "IllegalParam.Port", "The port %d of server %s is not between 1 and 65535.", m.Port, m.ServerID)
		case m.Weight < 0 || m.Weight > 100:
			return nil, refuse(400, "IllegalParam.Weight", "The weight %d of server %s is not between 0 and 100.", m.Weight, m.ServerID)
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, refuse(400, "MissingParam.Servers", "The parameter Servers is missing.")
	}
	if len(list) > limit {
		return nil, fail(400, "IllegalParamSize.Servers", "The size %d of Servers is more than %d.", len(list), limit)
	}
	return list, nil
}

// writeServerGroup starts a job: begin refuses what cannot be done and returns
// the members concerned with the word that describes what happens to them;
// finish carries it out.
func (c *Cloud) writeServerGroup(product string, q *call, limit int, begin func(g *serverGroup, wanted []Backend) ([]*groupMember, string, *apiError), finish func(g *serverGroup, m *groupMember, w Backend)) (obj, *apiError) {
	wanted, err := wantedMembers(q, limit)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.sg.group(product, q.str("ServerGroupId"))
	switch {
	case g == nil:
		return nil, noServerGroup(q.str("ServerGroupId"))
	case g.busy:
		return nil, fail(409, "IncorrectStatus.ServerGroup", "The status of server group %s [Configuring] is incorrect.", g.ID)
	case g.ServiceManaged:
		return nil, fail(403, "OperationDenied.ServiceManaged", "The server group %s is managed by a service.", g.ID)
	}
	members, word, err := begin(g, wanted)
	if err != nil {
		return nil, err
	}
	j := &job{id: c.newID("job"), product: product, action: q.action.name, resource: g.ID, status: "Processing", seq: c.next(), at: time.Now()}
	if len(c.sg.failing) > 0 {
		j.code, c.sg.failing = c.sg.failing[0], c.sg.failing[1:]
	}
	c.sg.jobs = append(c.sg.jobs, j)
	g.busy = true
	for _, m := range members {
		m.status = word
	}
	c.after(c.scaled(jobTakes), func() {
		c.mu.Lock()
		g.busy, j.status, j.ended = false, "Succeeded", time.Now()
		if j.code != "" {
			j.status = "Failed"
			g.members = slices.DeleteFunc(g.members, func(m *groupMember) bool { return m.status == "Adding" })
		}
		for n, m := range members {
			m.status = "Available"
			if j.code == "" {
				finish(g, m, wanted[n])
			}
		}
		c.mu.Unlock()
		c.changed()
	})
	reply := obj{"JobId": j.id}
	if product == NLB {
		reply["ServerGroupId"] = g.ID
	}
	return reply, nil
}

// member returns the member that w names, nil when there is none.
func (c *Cloud) groupMember(g *serverGroup, w Backend) *groupMember {
	for _, m := range g.members {
		if m.Type == w.Type && c.same(m.Backend, w) {
			return m
		}
	}
	return nil
}

func (c *Cloud) addServersToServerGroup(product string, q *call) (obj, *apiError) {
	return c.writeServerGroup(product, q, map[string]int{ALB: 40, NLB: 200}[product], func(g *serverGroup, wanted []Backend) ([]*groupMember, string, *apiError) {
		var added []*groupMember
		for _, w := range wanted {
			i := c.server(w)
			switch {
			case (w.Type == "ip") != (g.Type == "Ip"):
				return nil, "", fail(400, "OperationDenied.ServerGroupTypeNotSupport", "A server group of type %s does not take servers of type %s.", g.Type, w.Type)
			case w.Type != "ip" && i == nil:
				return nil, "", fail(404, "ResourceNotFound.BackendServer", "The specified resource of backend server %s is not found.", w.ServerID)
			case c.groupMember(g, w) != nil:
				return nil, "", fail(409, "Conflict.BackendServer", "The backend server %s is in the group already.", w.ServerID)
			}
			added = append(added, &groupMember{Backend: w, seq: c.next(), group: g})
		}
		g.members = append(g.members, added...)
		return added, "Adding", nil
	}, func(*serverGroup, *groupMember, Backend) {})
}

func (c *Cloud) existing(g *serverGroup, wanted []Backend, word string) ([]*groupMember, string, *apiError) {
	var found []*groupMember
	for _, w := range wanted {
		m := c.groupMember(g, w)
		if m == nil {
			return nil, "", fail(404, "ResourceNotFound.BackendServer", "The specified resource of backend server %s (port %d) is not found.", w.ServerID, w.Port)
		}
		found = append(found, m)
	}
	return found, word, nil
}

func (c *Cloud) removeServersFromServerGroup(product string, q *call) (obj, *apiError) {
	return c.writeServerGroup(product, q, 200, func(g *serverGroup, wanted []Backend) ([]*groupMember, string, *apiError) {
		return c.existing(g, wanted, "Removing")
	}, func(g *serverGroup, m *groupMember, _ Backend) {
		g.members = slices.DeleteFunc(g.members, func(o *groupMember) bool { return o == m })
	})
}

// updateServerGroupServersAttribute sets weight and description of the members
// that are named; a weight left out is 100, a description left out is none.
func (c *Cloud) updateServerGroupServersAttribute(product string, q *call) (obj, *apiError) {
	return c.writeServerGroup(product, q, map[string]int{ALB: 40, NLB: 200}[product], func(g *serverGroup, wanted []Backend) ([]*groupMember, string, *apiError) {
		return c.existing(g, wanted, "Configuring")
	}, func(_ *serverGroup, m *groupMember, w Backend) {
		m.Weight, m.Description = w.Weight, w.Description
	})
}

func (c *Cloud) listAsynJobs(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*job
	for _, j := range c.sg.jobs {
		if j.product == ALB && q.inList("JobIds", j.id) && q.inList("ResourceIds", j.resource) && oneOf(j.action, q.str("ApiName")) && oneOf("servergroup", q.str("ResourceType")) {
			found = append(found, j)
		}
	}
	return tokenPage(q, "Jobs", found, func(j *job) obj {
		return obj{
			"Id": j.id, "ApiName": j.action, "Status": j.status, "ErrorCode": j.code, "ErrorMessage": "", "ResourceId": j.resource, "ResourceType": "servergroup",
			"OperateType": "Update", "CreateTime": j.at.UnixMilli(), "ModifyTime": j.at.UnixMilli(),
		}
	})
}

// getListenerHealthStatus names the members that are not well: none is good, or
// nobody looks.
func (c *Cloud) getListenerHealthStatus(product string, q *call) (obj, *apiError) {
	type question struct {
		rule    string
		group   *serverGroup
		members []HealthQuery
	}
	c.mu.Lock()
	var row groupRow
	for _, r := range c.groupRows(product, false) {
		if r.l.ID == q.str("ListenerId") {
			row = r
		}
	}
	if row.l == nil {
		c.mu.Unlock()
		return nil, fail(404, "ResourceNotFound.Listener", "The specified resource of listener %s is not found.", q.str("ListenerId"))
	}
	ask := func(rule, group string) question {
		g := c.sg.group(product, group)
		x := question{rule: rule, group: g}
		for _, m := range g.members {
			if m.status == "Adding" {
				continue
			}
			x.members = append(x.members, HealthQuery{
				LoadBalancerID: row.b.ID, VServerGroupID: g.ID, ListenerPort: row.l.Port, Protocol: strings.ToLower(row.l.Protocol),
				ServerID: m.ServerID, ServerIP: c.address(m.Backend), Port: m.Port, Weight: m.Weight,
			})
		}
		return x
	}
	questions := []question{ask("", row.l.Group)}
	for _, r := range row.l.Rules {
		if q.is("IncludeRule") {
			questions = append(questions, ask(r.ID, r.Group))
		}
	}
	c.mu.Unlock()

	listener := obj{"ListenerId": row.l.ID, "ListenerPort": row.l.Port, "ListenerProtocol": row.l.Protocol}
	rules := []obj{}
	for _, x := range questions {
		ill := []obj{}
		for _, h := range x.members {
			status := c.groupHealth(x.group, row.l.Status, h)
			if status != "" {
				ill = append(ill, obj{"ServerId": h.ServerID, "ServerIp": h.ServerIP, "Port": h.Port, "Status": status, "Reason": obj{"ReasonCode": "CONNECT_TIMEOUT"}})
			}
		}
		info := obj{"ServerGroupId": x.group.ID, "NonNormalServers": ill}
		if product == NLB {
			info["HeathCheckEnabled"] = x.group.HealthCheck // spelt so by the API
		} else {
			info["HealthCheckEnabled"], info["ActionType"] = onOff(x.group.HealthCheck), "ForwardGroup"
		}
		if x.rule == "" {
			listener["ServerGroupInfos"] = []obj{info}
		} else {
			rules = append(rules, obj{"RuleId": x.rule, "ServerGroupInfos": []obj{info}})
		}
	}
	reply := obj{"ListenerHealthStatus": []obj{listener}, "NextToken": ""}
	if product == ALB {
		reply["RuleHealthStatus"] = rules
	}
	return reply, nil
}

// groupHealth is the word for a member that is not well, "" for one that is.
func (c *Cloud) groupHealth(g *serverGroup, listener string, h HealthQuery) string {
	c.mu.Lock()
	i := c.instances[h.ServerID]
	known := i == nil || i.Status == running
	c.mu.Unlock()
	switch {
	case !g.HealthCheck || listener != "Running":
		return ""
	case !known:
		return "Unhealthy"
	case c.cfg.Health == nil:
		return ""
	}
	switch c.cfg.Health(h) {
	case "normal":
		return ""
	case "abnormal":
		return "Unhealthy"
	}
	return map[string]string{ALB: "Initializing", NLB: "Initial"}[g.product]
}
