package cloud

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxServers is how many backends one call may name.
const maxServers = 20

// A Backend is a member of a server group. In a default group Port is 0: the
// listener's BackendPort counts.
type Backend struct {
	ServerID    string
	Type        string // ecs (default) or eni
	ServerIP    string // may be empty when added; LoadBalancers fills it in
	Description string
	Port        int
	Weight      int // 0 to 100; as given, never defaulted
}

// A VServerGroup is a group of backends with ports of their own.
type VServerGroup struct {
	ID, Name string
	Backends []Backend
	Tags     map[string]string
}

// A Listener takes the traffic of one port.
type Listener struct {
	Port         int
	Protocol     string // tcp, udp, http, https
	Scheduler    string // default wrr
	Status       string // running (default), stopped
	Description  string
	BackendPort  int    // port at the members of the default group
	VServerGroup string // ID; "" means the default group
	// MasterSlaveGroup is the ID of a primary/secondary group; TCP and UDP only.
	MasterSlaveGroup       string
	HealthCheck            bool
	HealthCheckURI         string // http and https
	StickySession          bool   // http and https
	PersistenceTimeout     int    // seconds, tcp: sessions stick to a member by source address; 0 = off
	ConnectionDrainTimeout int    // seconds, tcp; 0 = off
	Rules                  []Rule // http and https

	set map[string]string // what requests set besides; see settings
}

// A Rule sends some of an HTTP listener's requests to a group of its own.
type Rule struct {
	ID, Name, Domain, URL string
	VServerGroup          string
	// ListenerSync "off" makes the settings below hold instead of the
	// listener's; "" means on.
	ListenerSync   string
	Scheduler      string // default wrr
	StickySession  bool
	CookieTimeout  int // seconds
	HealthCheck    bool
	HealthCheckURI string
}

// A MasterSlaveGroup holds exactly one primary and one secondary server.
type MasterSlaveGroup struct {
	ID, Name      string
	Master, Slave Backend
}

// A LoadBalancer is one CLB instance with its listeners and groups.
type LoadBalancer struct {
	ID, Name, Address string
	AddressType       string // intranet (default) or internet
	Status            string // active (default), inactive, locked
	VPC, VSwitch      string
	// ServiceManaged marks a balancer that a managed service (a cluster)
	// owns: backend writes are refused.
	ServiceManaged bool
	// Protected is the reason why somebody set ModificationProtectionStatus to
	// ConsoleProtection; empty means NonProtection.
	Protected    string
	Tags         map[string]string
	Listeners    []Listener
	Default      []Backend
	Groups       []VServerGroup
	MasterSlaves []MasterSlaveGroup
}

// HealthQuery asks for the health of one member as one listener sees it.
type HealthQuery struct {
	LoadBalancerID string
	VServerGroupID string // "" for the default group
	ListenerPort   int
	Protocol       string // of the listener
	ServerID       string
	ServerIP       string
	Port           int // of the backend
	Weight         int
}

// balancer is a LoadBalancer and what goes on with it.
type balancer struct {
	LoadBalancer
	seq       int64
	createdAt time.Time
	busyUntil time.Time         // writes are refused until then
	created   bool              // by a request
	attrs     map[string]string // what it was made with besides
}

func (b *balancer) number() int64 { return b.seq }

// AddLoadBalancer adds a balancer. It panics when the ID of it or of one of
// its groups is empty or taken, when a listener or rule names a group that
// does not exist, or a member names no instance.
func (c *Cloud) AddLoadBalancer(lb LoadBalancer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lb.ID == "" || c.balancers[lb.ID] != nil {
		panic(fmt.Sprintf("cloud: balancer ID %q is empty or taken", lb.ID))
	}
	b := &balancer{LoadBalancer: lb.clone(), seq: c.next(), createdAt: time.Now()}
	b.AddressType = cmp.Or(b.AddressType, "intranet")
	b.Status = cmp.Or(b.Status, "active")
	b.VPC = cmp.Or(b.VPC, "vpc-sim")
	b.VSwitch = cmp.Or(b.VSwitch, "vsw-sim")
	groups := map[string]bool{"": true}
	check := func(id string, members []Backend) {
		if id != "" && (groups[id] || c.group(id) != nil) {
			panic(fmt.Sprintf("cloud: group ID %q is taken", id))
		}
		groups[id] = true
		for n := range members {
			members[n].Type = cmp.Or(members[n].Type, "ecs")
			if c.server(members[n]) == nil {
				panic(fmt.Sprintf("cloud: member %q of balancer %s is no instance", members[n].ServerID, b.ID))
			}
		}
	}
	check("", b.Default)
	for _, g := range b.Groups {
		if g.ID == "" {
			panic("cloud: a VServer group of balancer " + b.ID + " has no ID")
		}
		check(g.ID, g.Backends)
	}
	for n := range b.MasterSlaves {
		g := &b.MasterSlaves[n]
		members := []Backend{g.Master, g.Slave}
		check(g.ID, members)
		g.Master, g.Slave = members[0], members[1]
	}
	for n := range b.Listeners {
		l := &b.Listeners[n]
		l.Protocol = cmp.Or(l.Protocol, "tcp")
		l.Scheduler = cmp.Or(l.Scheduler, "wrr")
		l.Status = cmp.Or(l.Status, "running")
		names := []string{l.VServerGroup, l.MasterSlaveGroup}
		for r := range l.Rules {
			l.Rules[r].ID = cmp.Or(l.Rules[r].ID, c.newID("rule"))
			names = append(names, l.Rules[r].VServerGroup)
		}
		for _, name := range names {
			if !groups[name] {
				panic(fmt.Sprintf("cloud: listener %d of balancer %s names the unknown group %q", l.Port, b.ID, name))
			}
		}
	}
	c.balancers[b.ID] = b
}

func (lb LoadBalancer) clone() LoadBalancer {
	lb.Tags = maps.Clone(lb.Tags)
	lb.Default = slices.Clone(lb.Default)
	lb.Groups = slices.Clone(lb.Groups)
	for n := range lb.Groups {
		lb.Groups[n].Backends = slices.Clone(lb.Groups[n].Backends)
	}
	lb.MasterSlaves = slices.Clone(lb.MasterSlaves)
	lb.Listeners = slices.Clone(lb.Listeners)
	for n := range lb.Listeners {
		lb.Listeners[n].Rules = slices.Clone(lb.Listeners[n].Rules)
	}
	return lb
}

// LoadBalancers returns a copy of all balancers as their data plane sees them
// now, in the order in which they were added. Every member's ServerIP is set.
func (c *Cloud) LoadBalancers() []LoadBalancer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []LoadBalancer
	for _, b := range sorted(c.balancers) {
		lb := b.clone()
		for _, members := range lb.memberLists() {
			for n := range members {
				members[n].ServerIP = c.address(members[n])
			}
		}
		for n := range lb.MasterSlaves {
			g := &lb.MasterSlaves[n]
			g.Master.ServerIP, g.Slave.ServerIP = c.address(g.Master), c.address(g.Slave)
		}
		all = append(all, lb)
	}
	return all
}

// memberLists returns the lists of members that can be written to.
func (lb *LoadBalancer) memberLists() [][]Backend {
	lists := [][]Backend{lb.Default}
	for _, g := range lb.Groups {
		lists = append(lists, g.Backends)
	}
	return lists
}

// members returns all members of all groups.
func (lb *LoadBalancer) members() []Backend {
	all := slices.Concat(lb.memberLists()...)
	for _, g := range lb.MasterSlaves {
		all = append(all, g.Master, g.Slave)
	}
	return all
}

// belongs reports whether a member is (a network interface of) an instance.
func (m Backend) belongs(i *instance) bool { return m.ServerID == i.ID || m.ServerID == i.ENI }

func (b *balancer) has(i *instance) bool {
	return slices.ContainsFunc(b.members(), func(m Backend) bool { return m.belongs(i) })
}

// forget drops the members of an instance that is gone and reports whether
// there were any.
func (b *balancer) forget(i *instance) bool {
	if !b.has(i) {
		return false
	}
	gone := func(m Backend) bool { return m.belongs(i) }
	b.Default = slices.DeleteFunc(b.Default, gone)
	for n := range b.Groups {
		b.Groups[n].Backends = slices.DeleteFunc(b.Groups[n].Backends, gone)
	}
	return true
}

// server returns the instance behind a member, nil when there is none. c.mu is
// held.
func (c *Cloud) server(m Backend) *instance {
	if m.Type == "eni" {
		for _, i := range c.instances {
			if i.ENI == m.ServerID && (m.ServerIP == "" || m.ServerIP == i.PrivateIP) {
				return i
			}
		}
		return nil
	}
	return c.instances[m.ServerID]
}

// address returns the address a member's traffic goes to. c.mu is held.
func (c *Cloud) address(m Backend) string {
	if i := c.server(m); i != nil {
		return i.PrivateIP
	}
	return m.ServerIP
}

// group returns the balancer that has a VServer group. c.mu is held.
func (c *Cloud) group(id string) *balancer {
	for _, b := range c.balancers {
		if b.group(id) != nil {
			return b
		}
	}
	return nil
}

func (b *balancer) group(id string) *VServerGroup {
	for n := range b.Groups {
		if b.Groups[n].ID == id {
			return &b.Groups[n]
		}
	}
	return nil
}

func (c *Cloud) balancer(id string) (*balancer, *apiError) {
	if b := c.balancers[id]; b != nil {
		return b, nil
	}
	return nil, fail(404, "InvalidLoadBalancerId.NotFound", "The specified LoadBalancerId %q does not exist.", id)
}

func (c *Cloud) vserverGroup(id string) (*balancer, *VServerGroup, *apiError) {
	b := c.group(id)
	if b == nil {
		return nil, nil, fail(404, "InvalidParameter", "The specified VServerGroupId does not exist.")
	}
	return b, b.group(id), nil
}

// number accepts what clients send for Weight and Port: 100 and "100".
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(b), `"`))
	*n = number(v)
	return err
}

// A wantedBackend is one element of a BackendServers parameter.
type wantedBackend struct {
	ServerID    string `json:"ServerId"`
	Weight      *number
	Port        *number
	Type        string
	ServerIP    string `json:"ServerIp"`
	Description string
	plain       bool // the element is the ID alone
}

// UnmarshalJSON takes an object, or a plain ID as some clients send it.
func (w *wantedBackend) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &w.ServerID) == nil {
		w.plain = true
		return nil
	}
	type object wantedBackend // without this method
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode((*object)(w))
}

func (w wantedBackend) backend() Backend {
	m := Backend{ServerID: w.ServerID, Type: cmp.Or(w.Type, "ecs"), ServerIP: w.ServerIP, Description: w.Description, Weight: 100}
	if w.Weight != nil {
		m.Weight = int(*w.Weight)
	}
	if w.Port != nil {
		m.Port = int(*w.Port)
	}
	return m
}

// backendServers reads a BackendServers parameter. withPort says whether its
// members have ports: those of VServer groups do, those of default groups not;
// plain whether IDs alone will do, as for removals from a default group.
func backendServers(v string, withPort, plain bool) ([]Backend, *apiError) {
	dec := json.NewDecoder(bytes.NewReader(doubleQuoted(v)))
	dec.DisallowUnknownFields()
	var wanted []wantedBackend
	err := dec.Decode(&wanted)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the array")
		}
	}
	if err != nil {
		return nil, refuse(400, "BackendServersMalformed", "The specified BackendServers is malformed: %v", err)
	}
	if len(wanted) == 0 {
		return nil, refuse(400, "BackendServersMalformed", "The specified BackendServers is empty.")
	}
	if len(wanted) > maxServers {
		return nil, fail(400, "TooManyBackendServers", "The number of backend servers %d is more than %d.", len(wanted), maxServers)
	}
	var list []Backend
	for _, w := range wanted {
		m := w.backend()
		switch {
		case m.ServerID == "" || w.plain && !plain:
			return nil, refuse(400, "BackendServersMalformed", "A backend server has no ServerId.")
		case m.Type != "ecs" && m.Type != "eni":
			return nil, refuse(400, "InvalidParameter", "The type %q of backend server %s is not ecs or eni.", m.Type, m.ServerID)
		case m.Weight < 0 || m.Weight > 100:
			return nil, refuse(400, "InvalidWeight.Malformed", "The weight %d of backend server %s is not between 0 and 100.", m.Weight, m.ServerID)
		case withPort && (m.Port < 1 || m.Port > 65535):
			return nil, refuse(400, "InvalidBackendPort.Malformed", "The port of backend server %s is not between 1 and 65535.", m.ServerID)
		case !withPort && w.Port != nil:
			return nil, refuse(400, "BackendServersMalformed", "A member of the default group has no port: %s.", m.ServerID)
		}
		list = append(list, m)
	}
	return list, nil
}

// doubleQuoted turns the quotes of strings in '…' into double ones: real
// clients send Python's idea of JSON, and the cloud takes it.
func doubleQuoted(v string) []byte {
	var b bytes.Buffer
	var quote byte // of the string we are in
	for i := 0; i < len(v); i++ {
		ch := v[i]
		switch {
		case quote != 0 && ch == '\\' && i+1 < len(v):
			i++
			if v[i] != '\'' {
				b.WriteByte(ch)
			}
			b.WriteByte(v[i])
		case quote == 0 && (ch == '\'' || ch == '"'):
			quote = ch
			b.WriteByte('"')
		case quote != 0 && ch == quote:
			quote = 0
			b.WriteByte('"')
		case quote == '\'' && ch == '"':
			b.WriteString(`\"`)
		default:
			b.WriteByte(ch)
		}
	}
	return b.Bytes()
}

// same reports whether two entries name one member of a group.
func (c *Cloud) same(a, b Backend) bool {
	return a.ServerID == b.ServerID && a.Port == b.Port && (a.ServerIP == "" || b.ServerIP == "" || a.ServerIP == b.ServerIP)
}

// place returns where a group has a member, -1 when it has not.
func (c *Cloud) place(list []Backend, m Backend) int {
	return slices.IndexFunc(list, func(o Backend) bool { return c.same(o, m) })
}

// change is one write to the members of a group: it returns what they are
// afterwards.
type change func(now, wanted []Backend) ([]Backend, *apiError)

func (c *Cloud) adding(now, wanted []Backend) ([]Backend, *apiError) {
	for _, m := range wanted {
		i := c.server(m)
		switch {
		case i == nil:
			return nil, fail(404, "InvalidServerId.NotFound", "The specified ServerId %q does not exist.", m.ServerID)
		case m.ServerIP != "" && m.ServerIP != i.PrivateIP:
			return nil, fail(400, "InvalidParameter", "The address %s is not one of backend server %s.", m.ServerIP, m.ServerID)
		case i.Status != running:
			return nil, fail(400, "ObtainIpFail", "Obtain IP address of backend server %s fail: it is %s.", m.ServerID, i.Status)
		case c.place(now, m) >= 0:
			return nil, fail(400, "RspoolVipExist", "The backend server %s is already a member.", m.ServerID)
		}
		now = append(now, m)
	}
	return now, nil
}

// setting changes the members that are named and leaves the others alone.
func (c *Cloud) setting(now, wanted []Backend) ([]Backend, *apiError) {
	for _, m := range wanted {
		n := c.place(now, m)
		if n < 0 {
			return nil, fail(400, "InvalidParameter", "The backend server %s (port %d) is not a member.", m.ServerID, m.Port)
		}
		now[n].Weight, now[n].Description = m.Weight, m.Description
	}
	return now, nil
}

// removing ignores those that are no members.
func (c *Cloud) removing(now, wanted []Backend) ([]Backend, *apiError) {
	for _, m := range wanted {
		if n := c.place(now, m); n >= 0 {
			now = slices.Delete(now, n, n+1)
		}
	}
	return now, nil
}

// writable refuses writes to a balancer that is locked, owned by a service or
// still busy with the write before. c.mu is held.
func (b *balancer) writable(busyCode string) *apiError {
	switch {
	case b.Status == "locked":
		return fail(403, "ActionNotAllowed", "The load balancer %s is locked.", b.ID)
	case b.ServiceManaged:
		return fail(403, "OperationUnsupported.ServiceManaged", "The load balancer %s is managed by a service.", b.ID)
	case time.Now().Before(b.busyUntil):
		return fail(400, busyCode, "The load balancer %s is being configured: try again later.", b.ID)
	}
	return nil
}

// writeDefault changes the default group of a balancer.
func (c *Cloud) writeDefault(q *call, f change, weight func(int) any, plain bool) (obj, *apiError) {
	if !q.has("BackendServers") {
		return nil, refuse(400, "MissingParameter", "The input parameter \"BackendServers\" that is mandatory for processing this request is not supplied.")
	}
	wanted, err := backendServers(q.str("BackendServers"), false, plain)
	if err != nil {
		return nil, err
	}
	reply, err := func() (obj, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		b, err := c.balancer(q.str("LoadBalancerId"))
		if err != nil {
			return nil, err
		}
		if err := b.writable("ServiceIsConfiguring"); err != nil {
			return nil, err
		}
		after, err := f(slices.Clone(b.Default), wanted)
		if err != nil {
			return nil, err
		}
		b.Default, b.busyUntil = after, time.Now().Add(c.scaled(c.cfg.BusyTakes))
		return obj{"LoadBalancerId": b.ID, "BackendServers": obj{"BackendServer": c.memberViews(after, false, weight)}}, nil
	}()
	if err != nil {
		return nil, err
	}
	c.changed()
	return reply, nil
}

// writeGroup changes a VServer group; a nil f changes its name only.
func (c *Cloud) writeGroup(q *call, f change) (obj, *apiError) {
	if f == nil {
		return c.writeMembers(q, nil)
	}
	wanted, err := backendServers(q.str("BackendServers"), true, false)
	if err != nil {
		return nil, err
	}
	return c.writeMembers(q, func(now []Backend) ([]Backend, *apiError) { return f(now, wanted) })
}

// writeMembers replaces the members of a VServer group by what f makes of them.
func (c *Cloud) writeMembers(q *call, f func(now []Backend) ([]Backend, *apiError)) (obj, *apiError) {
	reply, err := func() (obj, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		b, g, err := c.vserverGroup(q.str("VServerGroupId"))
		if err != nil {
			return nil, err
		}
		if err := b.writable("VServerGroupProcessing"); err != nil {
			return nil, err
		}
		if f != nil {
			after, err := f(slices.Clone(g.Backends))
			if err != nil {
				return nil, err
			}
			g.Backends = after
		}
		g.Name = cmp.Or(q.str("VServerGroupName"), g.Name)
		b.busyUntil = time.Now().Add(c.scaled(c.cfg.BusyTakes))
		reply := obj{"VServerGroupId": g.ID, "BackendServers": obj{"BackendServer": c.memberViews(g.Backends, true, asInt)}}
		if q.action.name == "SetVServerGroupAttribute" { // the others do not say the name
			reply["VServerGroupName"] = g.Name
		}
		return reply, nil
	}()
	if err != nil {
		return nil, err
	}
	c.changed()
	return reply, nil
}

// The type of Weight in an answer differs by action.
func asInt(w int) any    { return w }
func asString(w int) any { return strconv.Itoa(w) }

// memberViews are members as answers show them. c.mu is held.
func (c *Cloud) memberViews(list []Backend, withPort bool, weight func(int) any) []obj {
	views := []obj{}
	for _, m := range list {
		v := obj{"ServerId": m.ServerID, "ServerIp": c.address(m), "Type": m.Type, "Weight": weight(m.Weight), "Description": m.Description}
		if withPort {
			v["Port"] = m.Port
		}
		views = append(views, v)
	}
	return views
}

func (c *Cloud) addBackendServers(q *call) (obj, *apiError) {
	return c.writeDefault(q, c.adding, asString, false)
}

func (c *Cloud) setBackendServers(q *call) (obj, *apiError) {
	return c.writeDefault(q, c.setting, asString, false)
}

func (c *Cloud) removeBackendServers(q *call) (obj, *apiError) {
	return c.writeDefault(q, c.removing, asInt, true)
}

func (c *Cloud) addVServerGroupBackendServers(q *call) (obj, *apiError) {
	return c.writeGroup(q, c.adding)
}

func (c *Cloud) removeVServerGroupBackendServers(q *call) (obj, *apiError) {
	return c.writeGroup(q, c.removing)
}

func (c *Cloud) setVServerGroupAttribute(q *call) (obj, *apiError) {
	if !q.has("BackendServers") {
		if !q.has("VServerGroupName") {
			return nil, refuse(400, "MissingParameter", "VServerGroupName or BackendServers must be given.")
		}
		return c.writeGroup(q, nil)
	}
	return c.writeGroup(q, c.setting)
}

func (c *Cloud) describeLoadBalancers(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	if q.has("PageSize") && !q.has("PageNumber") {
		return nil, refuse(400, "MissingParameter", "PageSize needs PageNumber.")
	}
	if !q.has("PageSize") {
		q.params["PageSize"] = "50"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*balancer
	for _, b := range sorted(c.balancers) {
		if !oneOf(b.ID, q.str("LoadBalancerId")) || !oneOf(b.Name, q.str("LoadBalancerName")) ||
			!oneOf(b.Address, q.str("Address")) || !oneOf(b.AddressType, q.str("AddressType")) ||
			!oneOf(b.Status, q.str("LoadBalancerStatus")) || !oneOf(b.VPC, q.str("VpcId")) || !oneOf(b.VSwitch, q.str("VSwitchId")) ||
			!tagged(b.Tags, filter) {
			continue
		}
		byServer := !q.has("ServerId") && !q.has("ServerIntranetAddress")
		for _, m := range b.members() {
			byServer = byServer ||
				(!q.has("ServerId") || oneOf(m.ServerID, q.str("ServerId"))) &&
					(!q.has("ServerIntranetAddress") || oneOf(c.address(m), q.str("ServerIntranetAddress")))
		}
		if byServer {
			found = append(found, b)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	delete(reply, "NextToken")
	list := []obj{}
	for _, b := range part {
		list = append(list, c.balancerView(b))
	}
	reply["LoadBalancers"] = obj{"LoadBalancer": list}
	return reply, nil
}

// balancerView is what the list and the single answer share. c.mu is held.
func (c *Cloud) balancerView(b *balancer) obj {
	mode, protection, network := "Unmanaged", "NonProtection", "vpc"
	if b.VPC == "" {
		network = "classic"
	}
	bandwidth, _ := strconv.Atoi(b.attr("Bandwidth", "-1"))
	if b.ServiceManaged {
		mode = "Managed"
	}
	if b.Protected != "" {
		protection = "ConsoleProtection"
	}
	return obj{
		"LoadBalancerId": b.ID, "LoadBalancerName": b.Name, "LoadBalancerStatus": b.Status, "Address": b.Address,
		"AddressType": b.AddressType, "AddressIPVersion": b.attr("AddressIPVersion", "ipv4"), "NetworkType": network, "VpcId": b.VPC, "VSwitchId": b.VSwitch,
		"RegionId": c.cfg.Region, "RegionIdAlias": c.cfg.Region,
		"MasterZoneId": b.attr("MasterZoneId", c.cfg.Region+"-h"), "SlaveZoneId": b.attr("SlaveZoneId", c.cfg.Region+"-i"),
		"LoadBalancerSpec": b.attr("LoadBalancerSpec", "slb.s2.small"), "PayType": "PayOnDemand", "InternetChargeType": b.attr("InternetChargeType", "paybytraffic"),
		"Bandwidth": bandwidth, "InstanceChargeType": b.attr("InstanceChargeType", "PayBySpec"), "BusinessStatus": "Normal",
		"DeleteProtection": b.attr("DeleteProtection", "off"), "ResourceGroupId": b.attr("ResourceGroupId", ""),
		"ModificationProtectionStatus": protection, "ModificationProtectionReason": b.Protected, "ServiceManagedMode": mode,
		"CreateTime": stamp(b.createdAt, stampMinutes), "CreateTimeStamp": b.createdAt.UnixMilli(), "Tags": tagList(b.Tags),
	}
}

func (c *Cloud) describeLoadBalancerAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(q.str("LoadBalancerId"))
	if err != nil {
		return nil, err
	}
	reply := c.balancerView(b)
	ports, listeners, old := []int{}, []obj{}, []obj{}
	for _, l := range b.Listeners {
		ports = append(ports, l.Port)
		old = append(old, obj{"ListenerPort": l.Port, "ListenerProtocal": l.Protocol})
		listeners = append(listeners, obj{"ListenerPort": l.Port, "ListenerProtocol": l.Protocol, "Description": l.Description, "ListenerForward": "off"})
	}
	reply["ListenerPorts"] = obj{"ListenerPort": ports}
	reply["ListenerPortsAndProtocol"] = obj{"ListenerPortAndProtocol": listeners}
	reply["ListenerPortsAndProtocal"] = obj{"ListenerPortAndProtocal": old} // spelt so since 2014
	reply["BackendServers"] = obj{"BackendServer": c.memberViews(b.Default, false, asInt)}
	return reply, nil
}

// listenerRow is one listener in the flat list of all balancers.
type listenerRow struct {
	seq int64
	b   *balancer
	l   *Listener
}

func (r listenerRow) number() int64 { return r.seq }

func (c *Cloud) describeLoadBalancerListeners(q *call) (obj, *apiError) {
	ids := q.list("LoadBalancerId")
	if len(ids) > 10 {
		return nil, refuse(400, "InvalidParameter", "The LoadBalancerIds are more than 10.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if _, err := c.balancer(id); err != nil {
			return nil, err
		}
	}
	if !q.has("MaxResults") {
		q.params["MaxResults"] = "20"
	}
	var rows []listenerRow
	for _, b := range sorted(c.balancers) {
		for n := range b.Listeners {
			l := &b.Listeners[n]
			if (len(ids) == 0 || slices.Contains(ids, b.ID)) && oneOf(l.Protocol, q.str("ListenerProtocol")) &&
				oneOf(strconv.Itoa(l.Port), q.str("ListenerPort")) {
				rows = append(rows, listenerRow{b.seq<<16 + int64(n) + 1, b, l})
			}
		}
	}
	part, reply, err := pageOf(q, rows)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range part {
		list = append(list, listenerView(r.b, r.l))
	}
	return obj{"NextToken": reply["NextToken"], "MaxResults": reply["MaxResults"], "TotalCount": len(rows), "Listeners": list}, nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func listenerView(b *balancer, l *Listener) obj {
	v := obj{
		"LoadBalancerId": b.ID, "ListenerPort": l.Port, "ListenerProtocol": l.Protocol, "BackendServerPort": l.BackendPort,
		"Scheduler": l.Scheduler, "Status": l.Status, "Description": l.Description,
		"AclIds": []string{}, "Tags": []obj{},
	}
	if l.VServerGroup != "" {
		v["VServerGroupId"] = l.VServerGroup
	}
	config := l.config()
	for _, name := range []string{"Bandwidth", "AclStatus", "AclType", "AclId"} {
		if x, ok := config[name]; ok {
			v[name] = x
			delete(config, name)
		}
	}
	delete(config, "SynProxy") // the list does not show it
	if x, ok := config["ProxyProtocolV2Enabled"]; ok {
		config["ProxyProtocolV2Enabled"] = fmt.Sprint(x) // a word here, a bool in the single answer
	}
	if l.Protocol == "tcp" || l.Protocol == "udp" {
		config["HealthCheckSwitch"] = config["HealthCheck"]
	}
	v[strings.ToUpper(l.Protocol)+"ListenerConfig"] = config
	return v
}

func (c *Cloud) describeVServerGroups(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(q.str("LoadBalancerId"))
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, g := range b.Groups {
		listeners, rules := []obj{}, []obj{}
		for _, l := range b.Listeners {
			if l.VServerGroup == g.ID && q.is("IncludeListener") {
				listeners = append(listeners, obj{"Port": l.Port, "Protocol": l.Protocol})
			}
			for _, r := range l.Rules {
				if r.VServerGroup == g.ID && q.is("IncludeRule") {
					rules = append(rules, obj{"RuleId": r.ID, "RuleName": r.Name, "Domain": r.Domain, "Url": r.URL})
				}
			}
		}
		list = append(list, obj{
			"VServerGroupId": g.ID, "VServerGroupName": g.Name, "ServerCount": len(g.Backends),
			"ServiceManagedMode": "Unmanaged", "CreateTime": stamp(b.createdAt, stampMinutes), "Tags": tagList(g.Tags),
			"AssociatedObjects": obj{"Listeners": obj{"Listener": listeners}, "Rules": obj{"Rule": rules}},
		})
	}
	return obj{"VServerGroups": obj{"VServerGroup": list}}, nil
}

func (c *Cloud) describeVServerGroupAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, g, err := c.vserverGroup(q.str("VServerGroupId"))
	if err != nil {
		return nil, err
	}
	return obj{
		"VServerGroupId": g.ID, "VServerGroupName": g.Name, "LoadBalancerId": b.ID, "ServiceManagedMode": "Unmanaged",
		"CreateTime": stamp(b.createdAt, stampMinutes), "Tags": tagList(g.Tags),
		"BackendServers": obj{"BackendServer": c.memberViews(g.Backends, true, asInt)},
	}, nil
}

func (c *Cloud) describeMasterSlaveServerGroups(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(q.str("LoadBalancerId"))
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, g := range b.MasterSlaves {
		listeners := []obj{}
		for _, l := range b.Listeners {
			if l.MasterSlaveGroup == g.ID && q.is("IncludeListener") {
				listeners = append(listeners, obj{"Port": l.Port, "Protocol": l.Protocol})
			}
		}
		list = append(list, obj{
			"MasterSlaveServerGroupId": g.ID, "MasterSlaveServerGroupName": g.Name, "ServiceManagedMode": "Unmanaged",
			"CreateTime": stamp(b.createdAt, stampMinutes), "Tags": obj{"Tag": []obj{}},
			"AssociatedObjects": obj{"Listeners": obj{"Listener": listeners}},
		})
	}
	return obj{"MasterSlaveServerGroups": obj{"MasterSlaveServerGroup": list}}, nil
}

func (c *Cloud) describeRules(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(q.str("LoadBalancerId"))
	if err != nil {
		return nil, err
	}
	for _, l := range b.Listeners {
		if l.Port != q.num("ListenerPort", 0) || !oneOf(l.Protocol, q.str("ListenerProtocol")) || l.Protocol == "tcp" || l.Protocol == "udp" {
			continue
		}
		list := []obj{}
		for _, r := range l.Rules {
			list = append(list, ruleView(&l, r))
		}
		return obj{"Rules": obj{"Rule": list}}, nil
	}
	return nil, fail(400, "ListenerNotExist", "The HTTP or HTTPS listener %d of %s does not exist.", q.num("ListenerPort", 0), b.ID)
}

func (c *Cloud) describeHealthStatus(q *call) (obj, *apiError) {
	queries, statuses, err := c.healthQueries(q)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for n, h := range queries {
		if statuses[n] == "" {
			statuses[n] = c.cfg.Health(h) // not under the lock: it may look at the world
		}
		list = append(list, obj{
			"ServerId": h.ServerID, "ServerIp": h.ServerIP, "ListenerPort": h.ListenerPort, "Port": h.Port,
			"Protocol": h.Protocol, "ServerHealthStatus": statuses[n],
		})
	}
	return obj{"BackendServers": obj{"BackendServer": list}}, nil
}

// healthQueries lists what DescribeHealthStatus has to find out; a status that
// is not empty is known already.
func (c *Cloud) healthQueries(q *call) (queries []HealthQuery, statuses []string, _ *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(q.str("LoadBalancerId"))
	if err != nil {
		return nil, nil, err
	}
	found := false
	for _, l := range b.Listeners {
		if q.has("ListenerPort") && l.Port != q.num("ListenerPort", 0) || !oneOf(l.Protocol, q.str("ListenerProtocol")) {
			continue
		}
		found = true
		groups := []string{l.VServerGroup}
		for _, r := range l.Rules {
			if r.VServerGroup != "" && !slices.Contains(groups, r.VServerGroup) {
				groups = append(groups, r.VServerGroup)
			}
		}
		for _, id := range groups {
			members := b.Default
			if g := b.group(id); g != nil {
				members = g.Backends
			}
			if l.MasterSlaveGroup != "" {
				for _, g := range b.MasterSlaves {
					if g.ID == l.MasterSlaveGroup {
						members = []Backend{g.Master, g.Slave}
					}
				}
			}
			for _, m := range members {
				i := c.server(m)
				status := ""
				switch {
				case !l.HealthCheck || l.Status != "running":
					status = "unavailable"
				case i == nil || i.Status != running:
					status = "abnormal"
				case c.cfg.ZeroWeightAbnormal && m.Weight == 0 && (l.Protocol == "tcp" || l.Protocol == "udp"):
					status = "abnormal"
				case c.cfg.Health == nil:
					status = "normal"
				}
				queries = append(queries, HealthQuery{
					LoadBalancerID: b.ID, VServerGroupID: id, ListenerPort: l.Port, Protocol: l.Protocol,
					ServerID: m.ServerID, ServerIP: c.address(m), Port: cmp.Or(m.Port, l.BackendPort), Weight: m.Weight,
				})
				statuses = append(statuses, status)
			}
		}
	}
	if q.has("ListenerPort") && !found {
		return nil, nil, fail(400, "ListenerNotExist", "The listener %s of %s does not exist.", q.str("ListenerPort"), b.ID)
	}
	return queries, statuses, nil
}
