package cloud

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// slbListenerActions are the actions that make, change and delete balancers,
// listeners, groups and rules; slbActions has those on what is in them.
func slbListenerActions() []action {
	const (
		layer7 = ` AclId AclStatus AclType Cookie CookieTimeout:int Description Gzip
			HealthCheckConnectPort:int HealthCheckDomain HealthCheckHttpCode HealthCheckInterval:int HealthCheckMethod
			HealthCheckTimeout:int HealthCheckURI HealthyThreshold:int IdleTimeout:int ListenerPort:int! LoadBalancerId!
			RequestTimeout:int Scheduler StickySession StickySessionType UnhealthyThreshold:int VServerGroupId
			XForwardedFor XForwardedFor_ClientSrcPort XForwardedFor_SLBID XForwardedFor_SLBIP XForwardedFor_SLBPORT
			XForwardedFor_proto `
		tls    = ` CACertificateId EnableHttp2 ServerCertificateId TLSCipherPolicy `
		layer4 = ` AclId AclStatus AclType Description HealthCheckConnectPort:int
			HealthCheckConnectTimeout:int HealthCheckSwitch HealthyThreshold:int ListenerPort:int! LoadBalancerId!
			MasterSlaveServerGroupId ProxyProtocolV2Enabled:bool Scheduler UnhealthyThreshold:int VServerGroupId `
		tcp = ` ConnectionDrain ConnectionDrainTimeout:int EstablishedTimeout:int HealthCheckDomain
			HealthCheckHttpCode HealthCheckType HealthCheckURI PersistenceTimeout:int `
		named = "ListenerPort:int! ListenerProtocol LoadBalancerId!"
	)
	list := []action{
		{name: "CreateLoadBalancer", do: (*Cloud).createLoadBalancer,
			served: `
				Address AddressIPVersion AddressType Bandwidth:int ClientToken DeleteProtection InstanceChargeType
				InternetChargeType LoadBalancerName LoadBalancerSpec MasterZoneId ModificationProtectionReason
				ModificationProtectionStatus PayType RegionId! ResourceGroupId SlaveZoneId Tag.#.Key Tag.#.Value VSwitchId VpcId`,
			other: `
				AutoPay Duration PricingCycle`,
		},
		{name: "DeleteLoadBalancer", do: (*Cloud).deleteLoadBalancer, served: "LoadBalancerId!"},
		{name: "SetLoadBalancerStatus", do: (*Cloud).setLoadBalancerStatus, served: "LoadBalancerId! LoadBalancerStatus!"},
		{name: "SetLoadBalancerName", do: (*Cloud).setLoadBalancerName, served: "LoadBalancerId! LoadBalancerName!"},
		{name: "SetLoadBalancerDeleteProtection", do: (*Cloud).setLoadBalancerDeleteProtection, served: "DeleteProtection! LoadBalancerId! RegionId!"},
		{name: "SetLoadBalancerModificationProtection", do: (*Cloud).setLoadBalancerModificationProtection,
			served: "LoadBalancerId! ModificationProtectionReason ModificationProtectionStatus! RegionId!"},

		{name: "CreateLoadBalancerHTTPListener", do: createListener("http"), served: layer7 + "BackendServerPort:int Bandwidth:int HealthCheck!",
			other: "ForwardPort ListenerForward Tag.#.Key Tag.#.Value"},
		{name: "CreateLoadBalancerHTTPSListener", do: createListener("https"), served: layer7 + tls + "BackendServerPort:int HealthCheck! Bandwidth:int!", other: "Tag.#.Key Tag.#.Value"},
		{name: "CreateLoadBalancerTCPListener", do: createListener("tcp"), served: layer4 + tcp + "BackendServerPort:int Bandwidth:int! healthCheckInterval:int", other: "Tag.#.Key Tag.#.Value"},
		{name: "CreateLoadBalancerUDPListener", do: createListener("udp"), served: layer4 + "BackendServerPort:int Bandwidth:int! healthCheckExp healthCheckInterval:int healthCheckReq", other: "Tag.#.Key Tag.#.Value"},
		{name: "SetLoadBalancerHTTPListenerAttribute", do: setListener("http"), served: layer7 + "Bandwidth:int HealthCheck VServerGroup", other: "DryRun"},
		{name: "SetLoadBalancerHTTPSListenerAttribute", do: setListener("https"), served: layer7 + tls + "Bandwidth:int HealthCheck VServerGroup", other: "DryRun"},
		{name: "SetLoadBalancerTCPListenerAttribute", do: setListener("tcp"), served: layer4 + tcp + "Bandwidth:int HealthCheckInterval:int MasterSlaveServerGroup SynProxy VServerGroup", other: "DryRun"},
		{name: "SetLoadBalancerUDPListenerAttribute", do: setListener("udp"), served: layer4 + "Bandwidth:int HealthCheckInterval:int MasterSlaveServerGroup VServerGroup healthCheckExp healthCheckReq", other: "DryRun"},
		{name: "StartLoadBalancerListener", do: switchListener("running"), served: named},
		{name: "StopLoadBalancerListener", do: switchListener("stopped"), served: named},
		{name: "DeleteLoadBalancerListener", do: (*Cloud).deleteListener, served: named},

		{name: "CreateVServerGroup", do: (*Cloud).createVServerGroup,
			served: "BackendServers LoadBalancerId! RegionId! Tag.#.Key Tag.#.Value VServerGroupName"},
		{name: "DeleteVServerGroup", do: (*Cloud).deleteVServerGroup, served: "RegionId! VServerGroupId!"},
		{name: "ModifyVServerGroupBackendServers", do: (*Cloud).modifyVServerGroupBackendServers,
			served: "NewBackendServers OldBackendServers RegionId! VServerGroupId!"},
		{name: "DescribeMasterSlaveServerGroupAttribute", do: (*Cloud).describeMasterSlaveServerGroupAttribute, served: "MasterSlaveServerGroupId! RegionId!"},
		{name: "CreateMasterSlaveServerGroup", do: (*Cloud).createMasterSlaveServerGroup,
			served: "LoadBalancerId! MasterSlaveBackendServers MasterSlaveServerGroupName RegionId!", other: "Tag.#.Key Tag.#.Value"},
		{name: "DeleteMasterSlaveServerGroup", do: (*Cloud).deleteMasterSlaveServerGroup, served: "MasterSlaveServerGroupId! RegionId!"},
		{name: "SetRule", do: (*Cloud).setRule,
			served: `
				Cookie CookieTimeout:int HealthCheck HealthCheckConnectPort:int HealthCheckDomain HealthCheckHttpCode
				HealthCheckInterval:int HealthCheckTimeout:int HealthCheckURI HealthyThreshold:int ListenerSync RegionId! RuleId!
				RuleName Scheduler StickySession StickySessionType UnhealthyThreshold:int VServerGroupId`,
			other: "DryRun"},
		{name: "DescribeRuleAttribute", do: (*Cloud).describeRuleAttribute, served: "RegionId! RuleId!"},

		{name: "ListTagResources", do: (*Cloud).listSLBTags, served: "NextToken RegionId! ResourceId.# ResourceType! Tag.#.Key Tag.#.Value"},
		{name: "TagResources", do: (*Cloud).tagSLB, served: "RegionId! ResourceId.#! ResourceType! Tag.#.Key! Tag.#.Value"},
		{name: "UntagResources", do: (*Cloud).untagSLB, served: "All:bool RegionId! ResourceId.#! ResourceType! TagKey.#"},
	}
	for _, p := range []string{"http", "https", "tcp", "udp"} {
		list = append(list, action{name: "DescribeLoadBalancer" + strings.ToUpper(p) + "ListenerAttribute", do: describeListener(p), served: "ListenerPort:int! LoadBalancerId!"})
	}
	return list
}

// writeBalancer carries out one change of a balancer that is not busy, makes it
// busy for a while and tells the data plane.
func (c *Cloud) writeBalancer(id string, f func(b *balancer) (obj, *apiError)) (obj, *apiError) {
	reply, err := func() (obj, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		b, err := c.balancer(id)
		if err != nil {
			return nil, err
		}
		if err := b.writable("ServiceIsConfiguring"); err != nil {
			return nil, err
		}
		reply, err := f(b)
		if err != nil {
			return nil, err
		}
		b.busyUntil = time.Now().Add(c.scaled(c.cfg.BusyTakes))
		return reply, nil
	}()
	if err == nil {
		c.changed()
	}
	return reply, err
}

// attr is a setting that a balancer was made with.
func (b *balancer) attr(name, otherwise string) string { return cmp.Or(b.attrs[name], otherwise) }

func (c *Cloud) createLoadBalancer(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	kind := q.str("AddressType")
	if kind == "" {
		kind = "internet"
		if q.has("VSwitchId") {
			kind = "intranet"
		}
	}
	switch {
	case kind != "internet" && kind != "intranet":
		return nil, refuse(400, "InvalidParameter.AddressType", "The AddressType %q is not internet or intranet.", kind)
	case q.has("PayType") && q.str("PayType") != "PayOnDemand":
		return nil, refuse(400, "UnsupportedParameter", "The PayType %q is not simulated: PayOnDemand.", q.str("PayType"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	vpcID := q.str("VpcId")
	if id := q.str("VSwitchId"); id != "" {
		v := c.vswitches[id]
		if v == nil {
			return nil, fail(404, "InvalidVSwitchId.NotFound", "The specified VSwitchId %q does not exist.", id)
		}
		vpcID = cmp.Or(vpcID, v.vpc)
	}
	b := &balancer{seq: c.next(), createdAt: time.Now(), attrs: map[string]string{}, created: true}
	b.LoadBalancer = LoadBalancer{ID: c.newID("lb"), AddressType: kind, Status: "active", VPC: vpcID, VSwitch: q.str("VSwitchId"), Tags: tags}
	b.Name = cmp.Or(q.str("LoadBalancerName"), "auto_named_slb")
	b.Address = q.str("Address")
	if v := c.vswitches[b.VSwitch]; b.Address == "" && kind == "intranet" && v != nil && !v.seen {
		if free := c.free(v, 1); len(free) == 1 {
			b.Address = free[0]
		}
	}
	for n := 1; b.Address == ""; n++ {
		a := fmt.Sprintf("172.31.254.%d", n)
		if kind == "internet" {
			a = fmt.Sprintf("121.40.%d.%d", n/250, n%250+1)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(c.balancers)), func(o *balancer) bool { return o.Address == a }) {
			b.Address = a
		}
	}
	for _, name := range []string{"AddressIPVersion", "Bandwidth", "DeleteProtection", "InstanceChargeType", "InternetChargeType", "LoadBalancerSpec", "MasterZoneId", "PayType", "ResourceGroupId", "SlaveZoneId"} {
		b.attrs[name] = q.str(name)
	}
	if q.str("ModificationProtectionStatus") == "ConsoleProtection" {
		b.Protected = cmp.Or(q.str("ModificationProtectionReason"), "-")
	}
	c.balancers[b.ID] = b
	network := "vpc"
	if vpcID == "" {
		network = "classic"
	}
	return obj{
		"LoadBalancerId": b.ID, "LoadBalancerName": b.Name, "Address": b.Address, "VpcId": b.VPC, "VSwitchId": b.VSwitch, "NetworkType": network,
		"AddressIPVersion": b.attr("AddressIPVersion", "ipv4"), "ResourceGroupId": b.attr("ResourceGroupId", ""), "OrderId": 0,
	}, nil
}

func (c *Cloud) deleteLoadBalancer(q *call) (obj, *apiError) {
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		if b.attr("DeleteProtection", "off") == "on" {
			return nil, fail(400, "OperationDenied.DeleteProtection", "The load balancer %s is protected against deletion.", b.ID)
		}
		delete(c.balancers, b.ID)
		return obj{}, nil
	})
}

func (c *Cloud) setLoadBalancerStatus(q *call) (obj, *apiError) {
	if !oneOf(q.str("LoadBalancerStatus"), "active,inactive") {
		return nil, refuse(400, "InvalidParameter", "The LoadBalancerStatus %q is not active or inactive.", q.str("LoadBalancerStatus"))
	}
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		b.Status = q.str("LoadBalancerStatus")
		return obj{}, nil
	})
}

func (c *Cloud) setLoadBalancerName(q *call) (obj, *apiError) {
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		b.Name = q.str("LoadBalancerName")
		return obj{}, nil
	})
}

func (c *Cloud) setLoadBalancerDeleteProtection(q *call) (obj, *apiError) {
	if !oneOf(q.str("DeleteProtection"), "on,off") {
		return nil, refuse(400, "InvalidParameter", "DeleteProtection is on or off.")
	}
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		if b.attrs == nil {
			b.attrs = map[string]string{}
		}
		b.attrs["DeleteProtection"] = q.str("DeleteProtection")
		return obj{}, nil
	})
}

func (c *Cloud) setLoadBalancerModificationProtection(q *call) (obj, *apiError) {
	if !oneOf(q.str("ModificationProtectionStatus"), "NonProtection,ConsoleProtection") {
		return nil, refuse(400, "InvalidParameter", "ModificationProtectionStatus is NonProtection or ConsoleProtection.")
	}
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		b.Protected = ""
		if q.str("ModificationProtectionStatus") == "ConsoleProtection" {
			b.Protected = cmp.Or(q.str("ModificationProtectionReason"), "-")
		}
		return obj{}, nil
	})
}

// A setting is a value of a listener that means nothing to the simulator but
// that clients write and read back.
type setting struct {
	name      string // in answers
	number    bool
	otherwise string // when nobody set it
	only      string // protocols, separated by commas; "" = all
}

// settings are those of listeners. Names of parameters that differ are in
// answerNames. The defaults are those of the API's reference.
var settings = []setting{
	{"Bandwidth", true, "-1", ""},
	{"HealthyThreshold", true, "3", ""}, {"UnhealthyThreshold", true, "3", ""}, {"HealthCheckInterval", true, "2", ""},
	{"HealthCheckConnectPort", true, "", ""}, {"HealthCheckDomain", false, "", "http,https,tcp"}, {"HealthCheckHttpCode", false, "http_2xx", "http,https,tcp"},
	{"HealthCheckMethod", false, "head", "http,https"}, {"HealthCheckTimeout", true, "5", "http,https"}, {"HealthCheckType", false, "tcp", "tcp"},
	{"HealthCheckConnectTimeout", true, "5", "tcp,udp"}, {"HealthCheckReq", false, "", "udp"}, {"HealthCheckExp", false, "", "udp"},
	{"Cookie", false, "", "http,https"}, {"StickySessionType", false, "", "http,https"}, {"CookieTimeout", true, "", "http,https"},
	{"PersistenceTimeout", true, "0", "tcp"}, {"EstablishedTimeout", true, "900", "tcp"}, {"SynProxy", false, "enable", "tcp"},
	{"ProxyProtocolV2Enabled", false, "", "tcp,udp"},
	{"Gzip", false, "on", "http,https"}, {"IdleTimeout", true, "15", "http,https"}, {"RequestTimeout", true, "60", "http,https"},
	{"XForwardedFor", false, "on", "http,https"}, {"XForwardedFor_SLBIP", false, "off", "http,https"}, {"XForwardedFor_SLBID", false, "off", "http,https"},
	{"XForwardedFor_proto", false, "off", "http,https"}, {"XForwardedFor_SLBPORT", false, "off", "http,https"}, {"XForwardedFor_ClientSrcPort", false, "off", "http,https"},
	{"ServerCertificateId", false, "", "https"}, {"CACertificateId", false, "", "https"}, {"EnableHttp2", false, "on", "https"}, {"TLSCipherPolicy", false, "tls_cipher_policy_1_0", "https"},
	{"AclStatus", false, "off", ""}, {"AclType", false, "", ""}, {"AclId", false, "", ""},
}

// answerNames are the parameters that answers show under another name.
var answerNames = map[string]string{"healthCheckInterval": "HealthCheckInterval", "healthCheckReq": "HealthCheckReq", "healthCheckExp": "HealthCheckExp"}

// fill takes the parameters of a create or set over into l. c.mu is held.
func (b *balancer) fill(l *Listener, q *call) *apiError {
	for _, name := range []string{"Description", "Scheduler", "VServerGroupId", "MasterSlaveServerGroupId", "HealthCheckURI"} {
		if !q.has(name) {
			continue
		}
		v := q.str(name)
		switch name {
		case "Description":
			l.Description = v
		case "HealthCheckURI":
			l.HealthCheckURI = v
		case "Scheduler":
			if !oneOf(v, map[bool]string{true: "wrr,rr,sch", false: "wrr,wlc,rr,sch,tch,qch"}[l.Protocol == "http" || l.Protocol == "https"]) {
				return refuse(400, "InvalidParameter.Scheduler", "The Scheduler %q is not one of a %s listener.", v, l.Protocol)
			}
			l.Scheduler = v
		case "VServerGroupId":
			if b.group(v) == nil {
				return fail(404, "InvalidParameter", "The specified VServerGroupId does not exist.")
			}
			l.VServerGroup, l.MasterSlaveGroup = v, ""
		case "MasterSlaveServerGroupId":
			if !slices.ContainsFunc(b.MasterSlaves, func(g MasterSlaveGroup) bool { return g.ID == v }) {
				return fail(404, "InvalidParameter", "The specified MasterSlaveServerGroupId does not exist.")
			}
			l.MasterSlaveGroup, l.VServerGroup = v, ""
		}
	}
	for _, name := range []string{"HealthCheck", "HealthCheckSwitch", "StickySession", "ConnectionDrain", "VServerGroup", "MasterSlaveServerGroup"} {
		if !q.has(name) {
			continue
		}
		if !oneOf(q.str(name), "on,off") {
			return refuse(400, "InvalidParameter."+name, "%s is on or off, not %q.", name, q.str(name))
		}
		on := q.str(name) == "on"
		switch name {
		case "HealthCheck", "HealthCheckSwitch":
			l.HealthCheck = on
		case "StickySession":
			l.StickySession = on
			if on && !q.has("StickySessionType") && l.set["StickySessionType"] == "" {
				return refuse(400, "MissingParameter", "StickySessionType is needed with StickySession=on.")
			}
		case "ConnectionDrain":
			l.ConnectionDrainTimeout = 0
			if on {
				n := q.num("ConnectionDrainTimeout", 0)
				if n < 10 || n > 900 {
					return refuse(400, "InvalidParameter.ConnectionDrainTimeout", "ConnectionDrainTimeout is between 10 and 900.")
				}
				l.ConnectionDrainTimeout = n
			}
		case "VServerGroup":
			if !on {
				l.VServerGroup = ""
			}
		case "MasterSlaveServerGroup":
			if !on {
				l.MasterSlaveGroup = ""
			}
		}
	}
	l.set = maps.Clone(l.set)
	if l.set == nil {
		l.set = map[string]string{}
	}
	for name, v := range q.params {
		name = cmp.Or(answerNames[name], name)
		if slices.ContainsFunc(settings, func(s setting) bool { return s.name == name }) {
			l.set[name] = v
		}
	}
	return nil
}

func createListener(protocol string) func(*Cloud, *call) (obj, *apiError) {
	return func(c *Cloud, q *call) (obj, *apiError) {
		return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
			l := Listener{Port: q.num("ListenerPort", 0), Protocol: protocol, Scheduler: "wrr", Status: "stopped", BackendPort: q.num("BackendServerPort", 0)}
			l.HealthCheck = protocol == "tcp" || protocol == "udp" // HealthCheckSwitch is on by default
			grouped := q.has("VServerGroupId") || q.has("MasterSlaveServerGroupId")
			switch {
			case l.Port < 1 || l.Port > 65535:
				return nil, refuse(400, "InvalidParameter.ListenerPort", "The ListenerPort %d is not between 1 and 65535.", l.Port)
			case !grouped && !q.has("BackendServerPort"):
				return nil, refuse(400, "MissingParameter", "The input parameter \"BackendServerPort\" that is mandatory for processing this request is not supplied.")
			case q.has("BackendServerPort") && (l.BackendPort < 1 || l.BackendPort > 65535):
				return nil, refuse(400, "InvalidBackendPort.Malformed", "The BackendServerPort %d is not between 1 and 65535.", l.BackendPort)
			case protocol == "https" && !q.has("ServerCertificateId"):
				return nil, refuse(400, "MissingParameter", "The input parameter \"ServerCertificateId\" that is mandatory for processing this request is not supplied.")
			case slices.ContainsFunc(b.Listeners, func(o Listener) bool { return o.Port == l.Port && (o.Protocol == "udp") == (protocol == "udp") }):
				return nil, fail(400, "ListenerAlreadyExists", "There is already a listener bound to the port on the specified load balancer.")
			}
			if err := b.fill(&l, q); err != nil {
				return nil, err
			}
			b.Listeners = append(slices.Clone(b.Listeners), l)
			return obj{}, nil
		})
	}
}

// listener returns where the listener that a request names is. c.mu is held.
func (b *balancer) listener(port int, protocol string) (int, *apiError) {
	at := -1
	for n, l := range b.Listeners {
		if l.Port != port || !oneOf(l.Protocol, protocol) {
			continue
		}
		if at >= 0 {
			return -1, fail(400, "InvalidParameter.ListenerProtocol", "Two listeners have the port %d: say which protocol.", port)
		}
		at = n
	}
	if at < 0 {
		return -1, fail(404, "InvalidParameter", "The specified resource does not exist: listener %s %d of %s.", protocol, port, b.ID)
	}
	return at, nil
}

func setListener(protocol string) func(*Cloud, *call) (obj, *apiError) {
	return func(c *Cloud, q *call) (obj, *apiError) {
		return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
			n, err := b.listener(q.num("ListenerPort", 0), protocol)
			if err != nil {
				return nil, err
			}
			l := b.Listeners[n]
			if err := b.fill(&l, q); err != nil {
				return nil, err
			}
			if l.VServerGroup == "" && l.MasterSlaveGroup == "" && l.BackendPort == 0 {
				return nil, fail(400, "InvalidParameter.VServerGroup", "The listener was made without BackendServerPort and cannot use the default group.")
			}
			b.Listeners = slices.Clone(b.Listeners)
			b.Listeners[n] = l
			return obj{}, nil
		})
	}
}

func switchListener(status string) func(*Cloud, *call) (obj, *apiError) {
	return func(c *Cloud, q *call) (obj, *apiError) {
		return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
			n, err := b.listener(q.num("ListenerPort", 0), q.str("ListenerProtocol"))
			if err != nil {
				return nil, err
			}
			b.Listeners = slices.Clone(b.Listeners)
			b.Listeners[n].Status = status
			return obj{}, nil
		})
	}
}

func (c *Cloud) deleteListener(q *call) (obj, *apiError) {
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		n, err := b.listener(q.num("ListenerPort", 0), q.str("ListenerProtocol"))
		if err != nil {
			return nil, err
		}
		b.Listeners = slices.Delete(slices.Clone(b.Listeners), n, n+1)
		return obj{}, nil
	})
}

// config is what answers show of a listener besides its name and group.
func (l *Listener) config() obj {
	v := obj{}
	for _, s := range settings {
		value := cmp.Or(l.set[s.name], s.otherwise)
		switch {
		case !oneOf(l.Protocol, s.only) || value == "":
		case s.number:
			v[s.name], _ = strconv.Atoi(value) // parse has seen that it is one
		case s.name == "ProxyProtocolV2Enabled":
			v[s.name] = value == "true"
		default:
			v[s.name] = value
		}
	}
	if l.HealthCheckURI != "" {
		v["HealthCheckURI"] = l.HealthCheckURI
	}
	v["HealthCheck"] = onOff(l.HealthCheck)
	switch l.Protocol {
	case "http", "https":
		v["StickySession"] = onOff(l.StickySession)
		if !l.StickySession {
			delete(v, "StickySessionType")
			delete(v, "CookieTimeout")
			delete(v, "Cookie")
		} else if l.set["StickySessionType"] == "" {
			v["StickySessionType"], v["CookieTimeout"] = "insert", 300
		}
	case "tcp":
		v["ConnectionDrain"], v["MasterSlaveServerGroupId"] = onOff(l.ConnectionDrainTimeout > 0), l.MasterSlaveGroup
		if l.ConnectionDrainTimeout > 0 {
			v["ConnectionDrainTimeout"] = l.ConnectionDrainTimeout
		}
		if l.PersistenceTimeout > 0 && l.set["PersistenceTimeout"] == "" {
			v["PersistenceTimeout"] = l.PersistenceTimeout
		}
	case "udp":
		v["MasterSlaveServerGroupId"] = l.MasterSlaveGroup
	}
	return v
}

func describeListener(protocol string) func(*Cloud, *call) (obj, *apiError) {
	return func(c *Cloud, q *call) (obj, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		b, err := c.balancer(q.str("LoadBalancerId"))
		if err != nil {
			return nil, err
		}
		n, err := b.listener(q.num("ListenerPort", 0), protocol)
		if err != nil {
			return nil, err
		}
		l := &b.Listeners[n]
		v := l.config()
		v["LoadBalancerId"], v["ListenerPort"], v["Status"], v["Scheduler"], v["Description"] = b.ID, l.Port, l.Status, l.Scheduler, l.Description
		v["ServiceManagedMode"], v["AclIds"], v["Tags"] = "Unmanaged", obj{"AclId": []string{}}, obj{"Tag": []obj{}}
		if l.VServerGroup != "" {
			v["VServerGroupId"] = l.VServerGroup
		}
		if l.BackendPort != 0 {
			v["BackendServerPort"] = l.BackendPort
		}
		if protocol == "http" || protocol == "https" {
			rules := []obj{}
			for _, r := range l.Rules {
				rules = append(rules, ruleView(l, r))
			}
			v["Rules"] = obj{"Rule": rules}
			v["SecurityStatus"] = "off"
		}
		if protocol == "http" {
			v["ListenerForward"] = "off"
		}
		return v, nil
	}
}

func (c *Cloud) createVServerGroup(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	var wanted []Backend
	if q.has("BackendServers") && strings.Trim(q.str("BackendServers"), "[] ") != "" {
		if wanted, err = backendServers(q.str("BackendServers"), true, false); err != nil {
			return nil, err
		}
	}
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		members, err := c.adding(nil, wanted)
		if err != nil {
			return nil, err
		}
		g := VServerGroup{ID: c.newID("rsp"), Name: cmp.Or(q.str("VServerGroupName"), "vserver-group"), Backends: members, Tags: tags}
		b.Groups = append(slices.Clone(b.Groups), g)
		return obj{"VServerGroupId": g.ID, "BackendServers": obj{"BackendServer": c.memberViews(members, true, asInt)}}, nil
	})
}

// holder is the balancer of a group; a request that names none gets the error
// of the API.
func (c *Cloud) holder(find func(b *balancer) bool, what string) (string, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.balancers {
		if find(b) {
			return b.ID, nil
		}
	}
	return "", fail(404, "InvalidParameter", "The specified %s does not exist.", what)
}

func (c *Cloud) deleteVServerGroup(q *call) (obj, *apiError) {
	id := q.str("VServerGroupId")
	lb, err := c.holder(func(b *balancer) bool { return b.group(id) != nil }, "VServerGroupId")
	if err != nil {
		return nil, err
	}
	return c.writeBalancer(lb, func(b *balancer) (obj, *apiError) {
		for _, l := range b.Listeners {
			if l.VServerGroup == id || slices.ContainsFunc(l.Rules, func(r Rule) bool { return r.VServerGroup == id }) {
				return nil, fail(400, "RspoolVipExist", "There are vips associated with this vServer group.")
			}
		}
		b.Groups = slices.DeleteFunc(slices.Clone(b.Groups), func(g VServerGroup) bool { return g.ID == id })
		return obj{}, nil
	})
}

func (c *Cloud) modifyVServerGroupBackendServers(q *call) (obj, *apiError) {
	var old, fresh []Backend
	var err *apiError
	if !q.has("OldBackendServers") && !q.has("NewBackendServers") {
		return nil, refuse(400, "MissingParameter", "OldBackendServers or NewBackendServers must be given.")
	}
	if q.has("OldBackendServers") {
		if old, err = backendServers(q.str("OldBackendServers"), true, false); err != nil {
			return nil, err
		}
	}
	if q.has("NewBackendServers") {
		if fresh, err = backendServers(q.str("NewBackendServers"), true, false); err != nil {
			return nil, err
		}
	}
	return c.writeMembers(q, func(now []Backend) ([]Backend, *apiError) {
		now, err := c.removing(now, old)
		if err != nil {
			return nil, err
		}
		return c.adding(now, fresh)
	})
}

// masterSlave returns a primary/secondary group. c.mu is held.
func (b *balancer) masterSlave(id string) *MasterSlaveGroup {
	for n := range b.MasterSlaves {
		if b.MasterSlaves[n].ID == id {
			return &b.MasterSlaves[n]
		}
	}
	return nil
}

func (c *Cloud) masterSlaveViews(g MasterSlaveGroup) obj {
	views := c.memberViews([]Backend{g.Master, g.Slave}, true, asInt)
	views[0]["ServerType"], views[1]["ServerType"] = "Master", "Slave"
	return obj{"MasterSlaveBackendServer": views}
}

func (c *Cloud) describeMasterSlaveServerGroupAttribute(q *call) (obj, *apiError) {
	id := q.str("MasterSlaveServerGroupId")
	lb, err := c.holder(func(b *balancer) bool { return b.masterSlave(id) != nil }, "MasterSlaveServerGroupId")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(lb)
	if err != nil {
		return nil, err
	}
	g := *b.masterSlave(id)
	return obj{
		"MasterSlaveServerGroupId": g.ID, "MasterSlaveServerGroupName": g.Name, "LoadBalancerId": b.ID, "ServiceManagedMode": "Unmanaged",
		"CreateTime": stamp(b.createdAt, stampMinutes), "Tags": obj{"Tag": []obj{}}, "MasterSlaveBackendServers": c.masterSlaveViews(g),
	}, nil
}

func (c *Cloud) createMasterSlaveServerGroup(q *call) (obj, *apiError) {
	var wanted []struct {
		ServerID    string `json:"ServerId"`
		Port        *number
		Weight      *number
		ServerType  string
		Type        string
		ServerIP    string `json:"ServerIp"`
		Description string
	}
	if _, err := q.json("MasterSlaveBackendServers", &wanted); err != nil {
		return nil, err
	}
	return c.writeBalancer(q.str("LoadBalancerId"), func(b *balancer) (obj, *apiError) {
		g := MasterSlaveGroup{ID: c.newID("rsp"), Name: q.str("MasterSlaveServerGroupName")}
		if len(wanted) != 2 {
			return nil, refuse(400, "InvalidParameter", "A primary/secondary group has exactly two servers, not %d.", len(wanted))
		}
		for _, w := range wanted {
			if w.Port == nil {
				return nil, refuse(400, "MissingParameter", "The server %s has no Port.", w.ServerID)
			}
			m := wantedBackend{ServerID: w.ServerID, Weight: w.Weight, Port: w.Port, Type: w.Type, ServerIP: w.ServerIP, Description: w.Description}.backend()
			if _, err := c.adding(nil, []Backend{m}); err != nil {
				return nil, err
			}
			switch w.ServerType {
			case "Master":
				g.Master = m
			case "Slave":
				g.Slave = m
			}
		}
		if g.Master.ServerID == "" || g.Slave.ServerID == "" {
			return nil, refuse(400, "InvalidParameter", "ServerType is Master for one server and Slave for the other.")
		}
		b.MasterSlaves = append(slices.Clone(b.MasterSlaves), g)
		return obj{"MasterSlaveServerGroupId": g.ID, "MasterSlaveBackendServers": c.masterSlaveViews(g)}, nil
	})
}

func (c *Cloud) deleteMasterSlaveServerGroup(q *call) (obj, *apiError) {
	id := q.str("MasterSlaveServerGroupId")
	lb, err := c.holder(func(b *balancer) bool { return b.masterSlave(id) != nil }, "MasterSlaveServerGroupId")
	if err != nil {
		return nil, err
	}
	return c.writeBalancer(lb, func(b *balancer) (obj, *apiError) {
		if slices.ContainsFunc(b.Listeners, func(l Listener) bool { return l.MasterSlaveGroup == id }) {
			return nil, fail(400, "RspoolVipExist", "There are vips associated with this server group.")
		}
		b.MasterSlaves = slices.DeleteFunc(slices.Clone(b.MasterSlaves), func(g MasterSlaveGroup) bool { return g.ID == id })
		return obj{}, nil
	})
}

// ruleView is a rule with the settings that hold for it: the listener's, unless
// ListenerSync is off.
func ruleView(l *Listener, r Rule) obj {
	own := r.ListenerSync == "off"
	v := obj{
		"RuleId": r.ID, "RuleName": r.Name, "Domain": r.Domain, "Url": r.URL, "VServerGroupId": r.VServerGroup,
		"ListenerSync": onOff(!own), "ServiceManagedMode": "Unmanaged",
	}
	if !own {
		v["Scheduler"], v["StickySession"], v["HealthCheck"] = l.Scheduler, onOff(l.StickySession), onOff(l.HealthCheck)
		return v
	}
	v["Scheduler"], v["StickySession"], v["HealthCheck"] = cmp.Or(r.Scheduler, "wrr"), onOff(r.StickySession), onOff(r.HealthCheck)
	if r.StickySession {
		v["StickySessionType"], v["CookieTimeout"] = "insert", cmp.Or(r.CookieTimeout, 300)
	}
	if r.HealthCheck {
		v["HealthCheckURI"], v["HealthCheckInterval"], v["HealthyThreshold"], v["UnhealthyThreshold"], v["HealthCheckTimeout"] = r.HealthCheckURI, 2, 3, 3, 5
	}
	return v
}

func (b *balancer) rule(id string) (*Listener, int) {
	for n := range b.Listeners {
		for i, r := range b.Listeners[n].Rules {
			if r.ID == id {
				return &b.Listeners[n], i
			}
		}
	}
	return nil, 0
}

func (c *Cloud) ruleHolder(id string) (string, *apiError) {
	lb, err := c.holder(func(b *balancer) bool { l, _ := b.rule(id); return l != nil }, "RuleId")
	if err != nil {
		return "", fail(404, "InvalidRuleId.NotFound", "The specified RuleId %q does not exist.", id)
	}
	return lb, nil
}

func (c *Cloud) setRule(q *call) (obj, *apiError) {
	lb, err := c.ruleHolder(q.str("RuleId"))
	if err != nil {
		return nil, err
	}
	return c.writeBalancer(lb, func(b *balancer) (obj, *apiError) {
		l, i := b.rule(q.str("RuleId"))
		if l == nil {
			return nil, fail(404, "InvalidRuleId.NotFound", "The specified RuleId %q does not exist.", q.str("RuleId"))
		}
		r := l.Rules[i]
		r.Name, r.ListenerSync = cmp.Or(q.str("RuleName"), r.Name), cmp.Or(q.str("ListenerSync"), r.ListenerSync)
		if id := q.str("VServerGroupId"); id != "" {
			if b.group(id) == nil {
				return nil, fail(404, "InvalidParameter", "The specified VServerGroupId does not exist.")
			}
			r.VServerGroup = id
		}
		for _, name := range []string{"Scheduler", "StickySession", "HealthCheck"} {
			if q.has(name) && r.ListenerSync != "off" {
				return nil, fail(400, "InvalidParameter.ListenerSync", "%s of a rule can be set with ListenerSync=off only.", name)
			}
		}
		if q.has("Scheduler") {
			r.Scheduler = q.str("Scheduler")
		}
		if q.has("StickySession") {
			r.StickySession, r.CookieTimeout = q.str("StickySession") == "on", q.num("CookieTimeout", r.CookieTimeout)
		}
		if q.has("HealthCheck") {
			r.HealthCheck, r.HealthCheckURI = q.str("HealthCheck") == "on", cmp.Or(q.str("HealthCheckURI"), r.HealthCheckURI)
		}
		l.Rules = slices.Clone(l.Rules)
		l.Rules[i] = r
		return obj{}, nil
	})
}

func (c *Cloud) describeRuleAttribute(q *call) (obj, *apiError) {
	lb, err := c.ruleHolder(q.str("RuleId"))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.balancer(lb)
	if err != nil {
		return nil, err
	}
	l, i := b.rule(q.str("RuleId"))
	v := ruleView(l, l.Rules[i])
	v["LoadBalancerId"], v["ListenerPort"] = b.ID, strconv.Itoa(l.Port)
	return v, nil
}

// taggedSLB returns the tags of an instance or VServer group, and how to replace
// them. c.mu is held.
func (c *Cloud) taggedSLB(kind, id string) (map[string]string, func(map[string]string), *apiError) {
	switch kind {
	case "instance":
		b, err := c.balancer(id)
		if err != nil {
			return nil, nil, err
		}
		return b.Tags, func(t map[string]string) { b.Tags = t }, nil
	case "vservergroup":
		_, g, err := c.vserverGroup(id)
		if err != nil {
			return nil, nil, err
		}
		return g.Tags, func(t map[string]string) { g.Tags = t }, nil
	}
	return nil, nil, refuse(400, "InvalidResourceType.NotFound", "The ResourceType %q is not instance or vservergroup.", kind)
}

func (c *Cloud) retagSLB(q *call, f func(map[string]string)) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []func()
	for _, id := range q.list("ResourceId") {
		tags, put, err := c.taggedSLB(q.str("ResourceType"), id)
		if err != nil {
			return nil, err
		}
		t := maps.Clone(tags)
		if t == nil {
			t = map[string]string{}
		}
		f(t)
		all = append(all, func() { put(t) })
	}
	for _, put := range all {
		put()
	}
	return obj{}, nil
}

func (c *Cloud) tagSLB(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	return c.retagSLB(q, func(t map[string]string) { maps.Copy(t, tags) })
}

func (c *Cloud) untagSLB(q *call) (obj, *apiError) {
	keys := q.list("TagKey")
	if len(keys) == 0 && !q.is("All") {
		return nil, refuse(400, "MissingParameter.TagKey", "TagKey.N or All=true must be given.")
	}
	return c.retagSLB(q, func(t map[string]string) {
		maps.DeleteFunc(t, func(k, _ string) bool { return len(keys) == 0 || slices.Contains(keys, k) })
	})
}

func (c *Cloud) listSLBTags(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	kind := q.str("ResourceType")
	if !oneOf(kind, "instance,vservergroup") {
		return nil, refuse(400, "InvalidResourceType.NotFound", "The ResourceType %q is not instance or vservergroup.", kind)
	}
	if !q.has("ResourceId.#") && len(filter) == 0 {
		return nil, refuse(400, "MissingParameter", "ResourceId.N or Tag.N must be given.")
	}
	q.params["MaxResults"] = "50" // it has no such parameter; pages are of 50
	c.mu.Lock()
	defer c.mu.Unlock()
	var rows []slbTag
	for _, b := range sorted(c.balancers) {
		add := func(id string, tags map[string]string, n int) {
			if !q.inList("ResourceId", id) || !tagged(tags, filter) {
				return
			}
			for i, k := range slices.Sorted(maps.Keys(tags)) {
				rows = append(rows, slbTag{b.seq<<32 + int64(n)<<16 + int64(i) + 1, id, k, tags[k]})
			}
		}
		if kind == "instance" {
			add(b.ID, b.Tags, 0)
			continue
		}
		for n, g := range b.Groups {
			add(g.ID, g.Tags, n)
		}
	}
	part, reply, err := pageOf(q, rows)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range part {
		list = append(list, obj{"ResourceType": kind, "ResourceId": r.id, "TagKey": r.key, "TagValue": r.value})
	}
	return obj{"NextToken": reply["NextToken"], "TagResources": obj{"TagResource": list}}, nil
}

type slbTag struct {
	seq            int64
	id, key, value string
}

func (r slbTag) number() int64 { return r.seq }
