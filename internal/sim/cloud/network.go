package cloud

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// vpcVersion is the version of the product VPC.
const vpcVersion = "2016-04-28"

// netTakes is how long a VPC or a vSwitch is Pending after it was made, in the
// real cloud.
const netTakes = 2 * time.Second

// A VPC is a network that exists before the story begins, as AddVPC takes it.
type VPC struct {
	ID, Name string
	CIDR     string // default 172.16.0.0/12, the cloud's own default
}

// A VSwitch is a subnet, as AddVSwitch takes it. Instances in it get addresses
// of its CIDR, not of Config.FreeIPs.
type VSwitch struct {
	ID, Name string
	VPC      string // the ID of a VPC that was added
	Zone     string // default REGION-h
	CIDR     string
}

// A SecurityGroup is what AddSecurityGroup takes; it has no rules.
type SecurityGroup struct {
	ID, Name string
	VPC      string // the ID of a VPC that was added
}

type vpc struct {
	seq                int64
	id, name, comment  string
	cidr               netip.Prefix
	userCIDR           string
	router, table      string
	tags               map[string]string
	createdAt, readyAt time.Time
	created            bool // by a request
}

func (v *vpc) number() int64 { return v.seq }

type vswitch struct {
	seq                int64
	id, name, comment  string
	vpc, zone          string
	cidr               netip.Prefix
	tags               map[string]string
	createdAt, readyAt time.Time
	created            bool // by a request
	seen               bool // known from an instance alone: it gives out Config.FreeIPs
}

func (v *vswitch) number() int64 { return v.seq }

type securityGroup struct {
	seq               int64
	id, name, comment string
	vpc, kind, inner  string
	capacity          int // of instances; 0: the cloud's own
	rules             []rule
	tags              map[string]string
	createdAt         time.Time
	created           bool // by a request
}

func (g *securityGroup) number() int64 { return g.seq }

// A rule lets traffic in or out of a security group.
type rule struct {
	id, direction, protocol, ports string
	cidr, cidr6, group, prefixList string // the other side: exactly one of them
	ownCIDR, ownCIDR6, ownPorts    string // this side, when narrowed
	owner, policy, nic, comment    string
	priority                       string
	createdAt                      time.Time
}

// same reports whether two rules let the same traffic through.
func (r rule) same(o rule) bool {
	r.id, r.comment, r.createdAt = o.id, o.comment, o.createdAt
	return r == o
}

func pendingUntil(ready time.Time) string {
	if time.Now().Before(ready) {
		return "Pending"
	}
	return "Available"
}

// AddVPC adds a network. It panics when the ID is missing or taken or the CIDR
// is none.
func (c *Cloud) AddVPC(in VPC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := netip.ParsePrefix(cmp.Or(in.CIDR, "172.16.0.0/12"))
	if err != nil || in.ID == "" || c.vpcs[in.ID] != nil {
		panic(fmt.Sprintf("cloud: VPC %q (%s) is malformed or taken", in.ID, in.CIDR))
	}
	c.insertVPC(in.ID, in.Name, p.Masked())
}

// AddVSwitch adds a subnet. It panics when the ID is missing or taken, or the
// VPC is unknown or does not hold the CIDR.
func (c *Cloud) AddVSwitch(in VSwitch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.vpcs[in.VPC]
	p, err := netip.ParsePrefix(in.CIDR)
	if err != nil || v == nil || in.ID == "" || c.vswitches[in.ID] != nil || !inside(v.cidr, p) {
		panic(fmt.Sprintf("cloud: vSwitch %q (%s in VPC %q) is malformed, taken or outside of its VPC", in.ID, in.CIDR, in.VPC))
	}
	c.insertVSwitch(in.ID, in.Name, v.id, cmp.Or(in.Zone, c.cfg.Region+"-h"), p.Masked())
}

// AddSecurityGroup adds a group. It panics when the ID is missing or taken or
// the VPC is unknown.
func (c *Cloud) AddSecurityGroup(in SecurityGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.ID == "" || c.securityGroups[in.ID] != nil || c.vpcs[in.VPC] == nil {
		panic(fmt.Sprintf("cloud: security group %q of VPC %q is malformed or taken", in.ID, in.VPC))
	}
	c.insertGroup(in.ID, in.Name, in.VPC)
}

// insertVPC, insertVSwitch and insertGroup do the bookkeeping; c.mu is held.
func (c *Cloud) insertVPC(id, name string, p netip.Prefix) *vpc {
	seq := c.next()
	v := &vpc{seq: seq, id: id, name: name, cidr: p, router: fmt.Sprintf("vrt-bp1%017d", seq), table: fmt.Sprintf("vtb-bp1%017d", seq), tags: map[string]string{}, createdAt: time.Now()}
	c.vpcs[id] = v
	return v
}

func (c *Cloud) insertVSwitch(id, name, vpc, zone string, p netip.Prefix) *vswitch {
	v := &vswitch{seq: c.next(), id: id, name: name, vpc: vpc, zone: zone, cidr: p, tags: map[string]string{}, createdAt: time.Now()}
	c.vswitches[id] = v
	return v
}

func (c *Cloud) insertGroup(id, name, vpc string) *securityGroup {
	g := &securityGroup{seq: c.next(), id: id, name: name, vpc: vpc, kind: "normal", inner: "Accept", tags: map[string]string{}, createdAt: time.Now()}
	c.securityGroups[id] = g
	return g
}

// plugIn makes known what an instance that is added stands in: networks, groups
// and a key pair that nobody declared before. c.mu is held.
func (c *Cloud) plugIn(in Instance) {
	addr, err := netip.ParseAddr(in.PrivateIP)
	if err != nil {
		panic("internal error: " + err.Error()) // AddInstance has looked
	}
	v := c.vpcs[in.VPC]
	if v == nil {
		v = c.insertVPC(in.VPC, in.VPC, privateRange(addr))
	}
	s := c.vswitches[in.VSwitch]
	if s == nil {
		s = c.insertVSwitch(in.VSwitch, in.VSwitch, in.VPC, in.Zone, prefix(addr, 20))
		s.seen = true
	}
	for !s.cidr.Contains(addr) && s.seen && s.cidr.Bits() > 0 {
		s.cidr = prefix(s.cidr.Addr(), s.cidr.Bits()-1)
	}
	if s.seen {
		for !inside(v.cidr, s.cidr) && v.cidr.Bits() > 0 {
			v.cidr = prefix(v.cidr.Addr(), v.cidr.Bits()-1)
		}
	}
	for _, g := range in.SecurityGroups {
		if c.securityGroups[g] == nil {
			c.insertGroup(g, g, in.VPC)
		}
	}
	if k := in.KeyPair; k != "" && c.keyPairs[k] == nil {
		c.keyPairs[k] = &keyPair{seq: c.next(), name: k, id: "ssh-" + k, tags: map[string]string{}, createdAt: time.Now()}
	}
}

// privateRange is the range of RFC 1918 that holds a; for other addresses
// their /16.
func privateRange(a netip.Addr) netip.Prefix {
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		if p := netip.MustParsePrefix(s); p.Contains(a) {
			return p
		}
	}
	return prefix(a, 16)
}

func prefix(a netip.Addr, bits int) netip.Prefix {
	p, err := a.Prefix(bits)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return p
}

func inside(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// free returns up to n private addresses that a vSwitch can give out. A vSwitch
// that is only known from an instance gives out Config.FreeIPs; of the block of
// any other one the first and the last three addresses are the cloud's own.
// c.mu is held.
func (c *Cloud) free(s *vswitch, n int) []string {
	if s.seen {
		return c.freeIPs[:min(n, len(c.freeIPs))]
	}
	used := c.usedAddresses(s)
	var l []string
	for a := s.cidr.Addr().Next(); len(l) < n && s.usable(a); a = a.Next() {
		if !used[a.String()] {
			l = append(l, a.String())
		}
	}
	return l
}

func hosts(p netip.Prefix) int { return 1 << (32 - p.Bits()) }

// usedAddresses returns the addresses taken in a vSwitch. c.mu is held.
func (c *Cloud) usedAddresses(s *vswitch) map[string]bool {
	used := map[string]bool{}
	for _, b := range c.balancers {
		if b.VSwitch == s.id && b.AddressType == "intranet" {
			used[b.Address] = true
		}
	}
	for _, i := range c.instances {
		if i.VSwitch == s.id {
			used[i.PrivateIP] = true
		}
	}
	return used
}

// usable reports whether a wanted private address can be given in a vSwitch.
func (s *vswitch) usable(a netip.Addr) bool {
	if s.seen {
		return true
	}
	if !s.cidr.Contains(a) || a == s.cidr.Addr() {
		return false
	}
	for range 3 {
		a = a.Next()
		if !s.cidr.Contains(a) {
			return false
		}
	}
	return true
}

// vswitch returns the vSwitch that a request names. c.mu is held.
func (c *Cloud) vswitch(id string) (*vswitch, *apiError) {
	s := c.vswitches[id]
	switch {
	case s == nil:
		return nil, fail(404, "InvalidVSwitchId.NotFound", "The VSwitchId %q does not exist.", id)
	case pendingUntil(s.readyAt) != "Available":
		return nil, fail(400, "IncorrectVSwitchStatus", "The current status of vSwitch %s does not support this operation.", id)
	}
	return s, nil
}

// netTags returns the tags of something in this file, to read or change; nil
// when there is no such thing. The types are those of TagResources, in lower
// case. c.mu is held.
func (c *Cloud) netTags(kind, id string) map[string]string {
	switch strings.ToLower(kind) {
	case "vpc":
		if v := c.vpcs[id]; v != nil {
			return v.tags
		}
	case "vswitch":
		if v := c.vswitches[id]; v != nil {
			return v.tags
		}
	case "securitygroup":
		if v := c.securityGroups[id]; v != nil {
			return v.tags
		}
	case "keypair":
		if v := c.keyPairs[id]; v != nil {
			return v.tags
		}
	}
	return nil
}

// netResources lists what requests can make here, for Resources. c.mu is held.
func (c *Cloud) netResources() []Resource {
	var all []Resource
	for _, v := range sorted(c.vpcs) {
		all = append(all, Resource{"vpc", v.id, v.name, maps.Clone(v.tags), v.created})
	}
	for _, v := range sorted(c.vswitches) {
		all = append(all, Resource{"vswitch", v.id, v.name, maps.Clone(v.tags), v.created})
	}
	for _, v := range sorted(c.securityGroups) {
		all = append(all, Resource{"securitygroup", v.id, v.name, maps.Clone(v.tags), v.created})
	}
	for _, v := range sorted(c.keyPairs) {
		all = append(all, Resource{"keypair", v.id, v.name, maps.Clone(v.tags), v.created})
	}
	for _, v := range sorted(c.balancers) {
		all = append(all, Resource{"loadbalancer", v.ID, v.Name, maps.Clone(v.Tags), v.created})
	}
	return all
}

// networkECSActions are the calls about networks that version 2014-05-26 has:
// clients from before the product VPC had a version of its own still use them.
func networkECSActions() []action {
	list := append(keyPairActions(), []action{
		{name: "CreateVpc", do: (*Cloud).createVpc,
			served: `CidrBlock ClientToken Description RegionId! UserCidr VpcName`},
		{name: "DeleteVpc", do: (*Cloud).deleteVpc,
			served: `RegionId VpcId!`},
		{name: "DescribeVpcs", do: (*Cloud).describeVpcs,
			served: `IsDefault:bool PageNumber:int PageSize:int RegionId! VpcId`},
		{name: "ModifyVpcAttribute", do: (*Cloud).modifyVpcAttribute,
			served: `Description RegionId VpcId! VpcName`,
			other:  `CidrBlock UserCidr`},
		{name: "CreateVSwitch", do: (*Cloud).createVSwitch,
			served: `CidrBlock! ClientToken Description RegionId VSwitchName VpcId! ZoneId!`},
		{name: "DeleteVSwitch", do: (*Cloud).deleteVSwitch,
			served: `RegionId VSwitchId!`},
		{name: "DescribeVSwitches", do: (*Cloud).describeVSwitches,
			served: `IsDefault:bool PageNumber:int PageSize:int RegionId VSwitchId VpcId ZoneId`},
		{name: "ModifyVSwitchAttribute", do: (*Cloud).modifyVSwitchAttribute,
			served: `Description RegionId VSwitchId! VSwitchName`},
		{name: "CreateSecurityGroup", do: (*Cloud).createSecurityGroup,
			served: `
				ClientToken Description RegionId! ResourceGroupId SecurityGroupName SecurityGroupType Tag.#.Key
				Tag.#.Value Tag.#.key Tag.#.value VpcId`,
			other: `ServiceManaged`},
		{name: "DeleteSecurityGroup", do: (*Cloud).deleteSecurityGroup,
			served: `RegionId! SecurityGroupId!`},
		{name: "DescribeSecurityGroups", do: (*Cloud).describeSecurityGroups,
			served: `
				FuzzyQuery:bool IsQueryEcsCount:bool MaxResults:int NetworkType NextToken PageNumber:int PageSize:int RegionId! SecurityGroupId
				SecurityGroupIds:ids SecurityGroupName SecurityGroupType Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value VpcId`,
			other: `DryRun:bool ResourceGroupId ServiceManaged`},
		{name: "DescribeSecurityGroupAttribute", do: (*Cloud).describeSecurityGroupAttribute,
			served: `Attribute Direction MaxResults:int NextToken NicType RegionId! SecurityGroupId!`},
		{name: "ModifySecurityGroupAttribute", do: (*Cloud).modifySecurityGroupAttribute,
			served: `Description RegionId! SecurityGroupId! SecurityGroupName`},
		{name: "ModifySecurityGroupPolicy", do: (*Cloud).modifySecurityGroupPolicy,
			served: `ClientToken InnerAccessPolicy! RegionId! SecurityGroupId!`},
		{name: "JoinSecurityGroup", do: (*Cloud).joinSecurityGroup,
			served: `InstanceId RegionId SecurityGroupId!`,
			other:  `NetworkInterfaceId`},
		{name: "LeaveSecurityGroup", do: (*Cloud).leaveSecurityGroup,
			served: `InstanceId RegionId SecurityGroupId!`,
			other:  `NetworkInterfaceId`},
		{name: "DescribeNetworkInterfaces", do: (*Cloud).describeNetworkInterfaces,
			served: `
				InstanceId MaxResults:int NetworkInterfaceId.# NextToken PageNumber:int PageSize:int PrimaryIpAddress
				PrivateIpAddress.# RegionId! SecurityGroupId Status Type VSwitchId VpcId`,
			other: `
				Ipv6Address.# NetworkInterfaceName ResourceGroupId ServiceManaged Tag.#.Key Tag.#.Value`},
	}...)
	for _, r := range []struct {
		name, side string
		do         func(*Cloud, *call) (obj, *apiError)
	}{
		{"AuthorizeSecurityGroup", "Source", (*Cloud).authorizeIngress},
		{"AuthorizeSecurityGroupEgress", "Dest", (*Cloud).authorizeEgress},
		{"RevokeSecurityGroup", "Source", (*Cloud).revokeIngress},
		{"RevokeSecurityGroupEgress", "Dest", (*Cloud).revokeEgress},
	} {
		words := "ClientToken RegionId! SecurityGroupId!"
		if strings.HasPrefix(r.name, "Revoke") {
			words += " SecurityGroupRuleId.#"
		}
		for _, member := range []string{"IpProtocol", "PortRange", "SourcePortRange", "NicType", "Policy", "Priority", "Description",
			"SourceCidrIp", "Ipv6SourceCidrIp", "DestCidrIp", "Ipv6DestCidrIp",
			r.side + "GroupId", r.side + "GroupOwnerAccount", r.side + "GroupOwnerId", r.side + "PrefixListId"} {
			words += " " + member + " Permissions.#." + member
		}
		list = append(list, action{name: r.name, do: r.do, served: words})
	}
	return list
}

// networkVPCActions are the same things in version 2016-04-28 (VPC).
func networkVPCActions() []action {
	return []action{
		{name: "CreateVpc", do: (*Cloud).createVpc,
			served: `
				CidrBlock ClientToken Description DryRun:bool RegionId! ResourceGroupId Tag.#.Key Tag.#.Value UserCidr VpcName`,
			other: `EnableDnsHostname EnableIpv6 Ipv4CidrMask Ipv4IpamPoolId Ipv6CidrBlock Ipv6Isp`},
		{name: "DeleteVpc", do: (*Cloud).deleteVpc,
			served: `ClientToken DryRun:bool RegionId VpcId!`,
			other:  `ForceDelete`},
		{name: "DescribeVpcs", do: (*Cloud).describeVpcs,
			served: `
				DryRun:bool IsDefault:bool PageNumber:int PageSize:int RegionId! Tag.#.Key Tag.#.Value VpcId VpcName`,
			other: `DhcpOptionsSetId EnableIpv6 ResourceGroupId VpcOwnerId`},
		{name: "DescribeVpcAttribute", do: (*Cloud).describeVpcAttribute,
			served: `DryRun:bool IsDefault:bool RegionId! VpcId!`},
		{name: "ModifyVpcAttribute", do: (*Cloud).modifyVpcAttribute,
			served: `Description RegionId! VpcId! VpcName`,
			other:  `CidrBlock EnableDnsHostname EnableIPv6 Ipv6CidrBlock Ipv6Isp`},
		{name: "CreateVSwitch", do: (*Cloud).createVSwitch,
			served: `CidrBlock! ClientToken Description RegionId Tag.#.Key Tag.#.Value VSwitchName VpcId! ZoneId!`,
			other:  `Ipv6CidrBlock VpcIpv6CidrBlock`},
		{name: "DeleteVSwitch", do: (*Cloud).deleteVSwitch,
			served: `RegionId VSwitchId!`},
		{name: "DescribeVSwitches", do: (*Cloud).describeVSwitches,
			served: `
				DryRun:bool IsDefault:bool PageNumber:int PageSize:int RegionId RouteTableId Tag.#.Key Tag.#.Value
				VSwitchId VSwitchName VpcId ZoneId`,
			other: `EnableIpv6 ResourceGroupId VSwitchOwnerId`},
		{name: "DescribeVSwitchAttributes", do: (*Cloud).describeVSwitchAttributes,
			served: `DryRun:bool RegionId VSwitchId!`},
		{name: "ModifyVSwitchAttribute", do: (*Cloud).modifyVSwitchAttribute,
			served: `Description RegionId VSwitchId! VSwitchName`,
			other:  `EnableIPv6 Ipv6CidrBlock VpcIpv6CidrBlock`},
		{name: "DescribeRouteTableList", do: (*Cloud).describeRouteTableList,
			served: `
				PageNumber:int PageSize:int RegionId! RouteTableId RouteTableName RouteTableType RouterId RouterType VpcId`,
			other: `ResourceGroupId Tag.#.Key Tag.#.Value`},
		{name: "ListTagResources", do: (*Cloud).listVPCTags,
			served: `MaxResults:int NextToken RegionId! ResourceId.# ResourceType! Tag.#.Key Tag.#.Value`},
		{name: "TagResources", do: (*Cloud).tagVPCResources,
			served: `RegionId! ResourceId.#! ResourceType! Tag.#.Key! Tag.#.Value`},
		{name: "UnTagResources", do: (*Cloud).untagVPCResources,
			served: `All:bool RegionId! ResourceId.#! ResourceType! TagKey.#`,
			other:  `Tag.#.Key Tag.#.Value`},
	}
}

func (c *Cloud) createVpc(q *call) (obj, *apiError) {
	p, err := cidrBlock(cmp.Or(q.str("CidrBlock"), "172.16.0.0/12"), 8, 28)
	if err != nil {
		return nil, err
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.insertVPC(c.newID("vpc"), q.str("VpcName"), p)
	v.comment, v.userCIDR, v.tags, v.created = q.str("Description"), q.str("UserCidr"), tags, true
	v.readyAt = time.Now().Add(c.scaled(netTakes))
	reply := obj{"VpcId": v.id, "VRouterId": v.router, "RouteTableId": v.table}
	if q.action.version == vpcVersion {
		reply["ResourceGroupId"] = q.str("ResourceGroupId")
	}
	return reply, nil
}

// cidrBlock reads the range of a network between two mask lengths.
func cidrBlock(s string, shortest, longest int) (netip.Prefix, *apiError) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() < shortest || p.Bits() > longest {
		return p, refuse(400, "InvalidCidrBlock.Malformed", "The specified CidrBlock %q is not an IPv4 range with a mask of %d to %d bits.", s, shortest, longest)
	}
	for _, no := range []string{"100.64.0.0/10", "224.0.0.0/4", "127.0.0.0/8", "169.254.0.0/16"} {
		if p.Overlaps(netip.MustParsePrefix(no)) {
			return p, refuse(400, "InvalidCidrBlock.Malformed", "The specified CidrBlock %s overlaps %s.", s, no)
		}
	}
	return p, nil
}

// vpcNamed returns the VPC a request names, wherever its creation stands. c.mu
// is held.
func (c *Cloud) vpcNamed(id string) (*vpc, *apiError) {
	if v := c.vpcs[id]; v != nil {
		return v, nil
	}
	return nil, fail(404, "InvalidVpcId.NotFound", "Specified VPC %q does not exist.", id)
}

func (c *Cloud) deleteVpc(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.vpcNamed(q.str("VpcId"))
	if err != nil {
		return nil, err
	}
	for _, s := range c.vswitches {
		if s.vpc == v.id {
			return nil, fail(400, "DependencyViolation.VSwitch", "Specified object has dependent resources: vSwitch %s.", s.id)
		}
	}
	for _, g := range c.securityGroups {
		if g.vpc == v.id {
			return nil, fail(400, "DependencyViolation.SecurityGroup", "Specified object has dependent resources: security group %s.", g.id)
		}
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	delete(c.vpcs, v.id)
	return obj{}, nil
}

func (c *Cloud) describeVpcs(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*vpc
	for _, v := range sorted(c.vpcs) {
		if oneOf(v.id, q.str("VpcId")) && (!q.has("VpcName") || v.name == q.str("VpcName")) && tagged(v.tags, filter) && !q.is("IsDefault") {
			found = append(found, v)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	delete(reply, "NextToken")
	list := []obj{}
	for _, v := range part {
		list = append(list, c.vpcView(v, q.action.version))
	}
	reply["Vpcs"] = obj{"Vpc": list}
	return reply, nil
}

// vpcView is a VPC in a list; the older version of the API knows less of it.
// c.mu is held.
func (c *Cloud) vpcView(v *vpc, version string) obj {
	switches := []string{}
	for _, s := range sorted(c.vswitches) {
		if s.vpc == v.id {
			switches = append(switches, s.id)
		}
	}
	o := obj{
		"VpcId": v.id, "VpcName": v.name, "Description": v.comment, "CidrBlock": v.cidr.String(), "Status": pendingUntil(v.readyAt),
		"CreationTime": stamp(v.createdAt, stampSeconds), "VRouterId": v.router, "IsDefault": false, "RegionId": c.cfg.Region,
		"VSwitchIds": obj{"VSwitchId": switches}, "UserCidrs": obj{"UserCidr": ifAny(v.userCIDR)},
	}
	if version == vpcVersion {
		maps.Copy(o, obj{
			"ResourceGroupId": "", "CenStatus": "Detached", "EnabledIpv6": false, "DnsHostnameStatus": "DISABLED", "NetworkAclNum": "0",
			"RouterTableIds": obj{"RouterTableIds": []string{v.table}}, "NatGatewayIds": obj{"NatGatewayIds": []string{}},
			"SecondaryCidrBlocks": obj{"SecondaryCidrBlock": []string{}}, "Tags": vpcTagList(v.tags),
		})
	}
	return o
}

// vpcTagList is the Tags of an answer of the product VPC, which spells the
// members Key and Value.
func vpcTagList(tags map[string]string) obj {
	l := []obj{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		l = append(l, obj{"Key": k, "Value": tags[k]})
	}
	return obj{"Tag": l}
}

func (c *Cloud) describeVpcAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.vpcNamed(q.str("VpcId"))
	if err != nil {
		return nil, err
	}
	o := c.vpcView(v, q.action.version)
	for _, k := range []string{"CenStatus", "RouterTableIds", "NatGatewayIds"} {
		delete(o, k)
	}
	switches := len(o["VSwitchIds"].(obj)["VSwitchId"].([]string))
	o["ClassicLinkEnabled"], o["SupportIpv4Gateway"] = false, false
	o["AssociatedCens"] = obj{"AssociatedCen": []obj{}}
	o["CloudResources"] = obj{"CloudResourceSetType": []obj{
		{"ResourceType": "VSwitch", "ResourceCount": switches}, {"ResourceType": "VRouter", "ResourceCount": 1}, {"ResourceType": "RouteTable", "ResourceCount": 1}}}
	return o, nil
}

func (c *Cloud) modifyVpcAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.vpcNamed(q.str("VpcId"))
	if err != nil {
		return nil, err
	}
	v.name, v.comment = cmp.Or(q.str("VpcName"), v.name), cmp.Or(q.str("Description"), v.comment)
	return obj{}, nil
}

func (c *Cloud) createVSwitch(q *call) (obj, *apiError) {
	p, err := cidrBlock(q.str("CidrBlock"), 16, 29)
	if err != nil {
		return nil, err
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	if zone := q.str("ZoneId"); !strings.HasPrefix(zone, c.cfg.Region+"-") {
		return nil, fail(404, "InvalidZoneId.NotFound", "The specified ZoneId %q does not exist in %s.", zone, c.cfg.Region)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.vpcNamed(q.str("VpcId"))
	switch {
	case err != nil:
		return nil, err
	case pendingUntil(v.readyAt) != "Available":
		return nil, fail(400, "IncorrectVpcStatus", "Current VPC status does not support this operation: %s is Pending.", v.id)
	case !inside(v.cidr, p):
		return nil, fail(400, "InvalidCidrBlock.Malformed", "The specified CidrBlock %s is not inside of %s, the range of %s.", p, v.cidr, v.id)
	}
	for _, s := range c.vswitches {
		if s.vpc == v.id && s.cidr.Overlaps(p) {
			return nil, fail(400, "InvalidCidrBlock.Overlapped", "Specified CIDR block %s overlaps %s of %s.", p, s.cidr, s.id)
		}
	}
	s := c.insertVSwitch(c.newID("vsw"), q.str("VSwitchName"), v.id, q.str("ZoneId"), p)
	s.comment, s.tags, s.created = q.str("Description"), tags, true
	s.readyAt = time.Now().Add(c.scaled(netTakes))
	return obj{"VSwitchId": s.id}, nil
}

func (c *Cloud) deleteVSwitch(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.vswitch(q.str("VSwitchId"))
	if err != nil {
		return nil, err
	}
	for _, i := range c.instances {
		if i.VSwitch == s.id {
			return nil, fail(400, "DependencyViolation", "Specified object has dependent resources: instance %s.", i.ID)
		}
	}
	delete(c.vswitches, s.id)
	return obj{}, nil
}

func (c *Cloud) describeVSwitches(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	if !q.has("RegionId") && !q.has("VpcId") && !q.has("VSwitchId") {
		return nil, refuse(400, "MissingParameter", "RegionId or VpcId must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*vswitch
	for _, s := range sorted(c.vswitches) {
		v := c.vpcs[s.vpc]
		if oneOf(s.id, q.str("VSwitchId")) && oneOf(s.vpc, q.str("VpcId")) && oneOf(s.zone, q.str("ZoneId")) &&
			(!q.has("VSwitchName") || s.name == q.str("VSwitchName")) && (!q.has("RouteTableId") || v.table == q.str("RouteTableId")) &&
			tagged(s.tags, filter) && !q.is("IsDefault") {
			found = append(found, s)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	delete(reply, "NextToken")
	list := []obj{}
	for _, s := range part {
		list = append(list, c.vswitchView(s, q.action.version))
	}
	reply["VSwitches"] = obj{"VSwitch": list}
	return reply, nil
}

// vswitchView is a vSwitch in a list. c.mu is held.
func (c *Cloud) vswitchView(s *vswitch, version string) obj {
	o := obj{
		"VSwitchId": s.id, "VSwitchName": s.name, "Description": s.comment, "VpcId": s.vpc, "ZoneId": s.zone, "CidrBlock": s.cidr.String(),
		"Status": pendingUntil(s.readyAt), "CreationTime": stamp(s.createdAt, stampSeconds), "IsDefault": false, "ResourceGroupId": "",
		"AvailableIpAddressCount": hosts(s.cidr) - 4 - len(c.usedAddresses(s)),
	}
	if version == vpcVersion {
		v := c.vpcs[s.vpc]
		maps.Copy(o, obj{
			"NetworkAclId": "", "ShareType": "", "EnabledIpv6": false, "Tags": vpcTagList(s.tags),
			"RouteTable": obj{"RouteTableId": v.table, "RouteTableType": "System"},
		})
	}
	return o
}

func (c *Cloud) describeVSwitchAttributes(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.vswitches[q.str("VSwitchId")]
	if s == nil { // this action does not call it an error
		return obj{"VSwitchId": "", "VpcId": ""}, nil
	}
	o := c.vswitchView(s, q.action.version)
	o["CloudResources"] = obj{"CloudResourceSetType": []obj{{"ResourceType": "EcsInstance", "ResourceCount": len(c.usedAddresses(s))}}}
	return o, nil
}

func (c *Cloud) modifyVSwitchAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.vswitch(q.str("VSwitchId"))
	if err != nil {
		return nil, err
	}
	s.name, s.comment = cmp.Or(q.str("VSwitchName"), s.name), cmp.Or(q.str("Description"), s.comment)
	return obj{}, nil
}

func (c *Cloud) describeRouteTableList(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*vpc
	for _, v := range sorted(c.vpcs) {
		if (!q.has("VpcId") || v.id == q.str("VpcId")) && (!q.has("RouterId") || v.router == q.str("RouterId")) &&
			(!q.has("RouteTableId") || v.table == q.str("RouteTableId")) && !q.has("RouteTableName") &&
			oneOf("VRouter", q.str("RouterType")) && oneOf("System", q.str("RouteTableType")) {
			found = append(found, v)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	delete(reply, "NextToken")
	list := []obj{}
	for _, v := range part {
		o := c.vpcView(v, vpcVersion)
		list = append(list, obj{
			"RouteTableId": v.table, "RouteTableName": "", "Description": "", "RouteTableType": "System", "RouterType": "VRouter", "RouterId": v.router,
			"VpcId": v.id, "OwnerId": accountID, "ResourceGroupId": "", "AssociateType": "VSwitch", "Status": o["Status"], "CreationTime": o["CreationTime"],
			"VSwitchIds": o["VSwitchIds"], "GatewayIds": obj{"GatewayIds": []string{}}, "Tags": vpcTagList(nil),
		})
	}
	reply["Code"], reply["Message"], reply["Success"] = "", "", true
	reply["RouterTableList"] = obj{"RouterTableListType": list}
	return reply, nil
}

// routeTables returns the IDs of a VPC's route tables, of all VPCs when vpcID is
// empty. c.mu is held.
func (c *Cloud) routeTables(vpcID string) []string {
	var l []string
	for _, v := range sorted(c.vpcs) {
		if vpcID == "" || v.id == vpcID {
			l = append(l, v.table)
		}
	}
	return l
}

// accountID is the number of the one account there is.
const accountID = 1000000000000001

// vpcTagTypes are the resource types of the product VPC that exist here.
var vpcTagTypes = map[string]bool{"VPC": true, "VSWITCH": true}

// taggedHere checks a resource type and returns the tags of one resource.
func (c *Cloud) taggedHere(kind, id string) (map[string]string, *apiError) {
	if !vpcTagTypes[strings.ToUpper(kind)] {
		return nil, refuse(400, "InvalidResourceType.NotFound", "The resource type %q is not VPC or VSWITCH, which are simulated.", kind)
	}
	if t := c.netTags(kind, id); t != nil {
		return t, nil
	}
	return nil, fail(404, "InvalidResourceId.NotFound", "The specified ResourceId %q does not exist.", id)
}

func (c *Cloud) listVPCTags(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	kind := strings.ToUpper(q.str("ResourceType"))
	ids := q.list("ResourceId")
	if len(ids) == 0 && len(filter) == 0 {
		return nil, refuse(400, "MissingParameter", "ResourceId.N or Tag.N must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.taggedHere(kind, ""); err != nil && err.refused {
		return nil, err
	}
	if len(ids) == 0 {
		for _, r := range c.netResources() {
			if strings.EqualFold(r.Type, kind) {
				ids = append(ids, r.ID)
			}
		}
	}
	list := []obj{}
	for _, id := range ids {
		tags := c.netTags(kind, id)
		if !tagged(tags, filter) {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(tags)) {
			list = append(list, obj{"ResourceId": id, "ResourceType": kind, "TagKey": k, "TagValue": tags[k]})
		}
	}
	return obj{"NextToken": "", "TagResources": obj{"TagResource": list}}, nil
}

func (c *Cloud) tagVPCResources(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	return c.eachTagged(q, func(have map[string]string) { maps.Copy(have, tags) })
}

func (c *Cloud) untagVPCResources(q *call) (obj, *apiError) {
	keys := q.list("TagKey")
	if !q.is("All") && len(keys) == 0 {
		return nil, refuse(400, "MissingParameter.TagKey", "TagKey.N or All must be given.")
	}
	return c.eachTagged(q, func(have map[string]string) {
		maps.DeleteFunc(have, func(k, _ string) bool { return q.is("All") || slices.Contains(keys, k) })
	})
}

// eachTagged changes the tags of all resources a request names, or of none.
func (c *Cloud) eachTagged(q *call, change func(map[string]string)) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []map[string]string
	for _, id := range q.list("ResourceId") {
		t, err := c.taggedHere(q.str("ResourceType"), id)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	for _, t := range all {
		change(t)
	}
	return obj{}, nil
}

func (c *Cloud) createSecurityGroup(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	kind := cmp.Or(q.str("SecurityGroupType"), "normal")
	if kind != "normal" && kind != "enterprise" {
		return nil, refuse(400, "InvalidSecurityGroupType.ValueNotSupported", "The SecurityGroupType %q is neither normal nor enterprise.", kind)
	}
	if n := q.str("SecurityGroupName"); n != "" && (len(n) < 2 || len(n) > 128 || strings.HasPrefix(n, "http://") || strings.HasPrefix(n, "https://")) {
		return nil, refuse(400, "InvalidSecurityGroupName.Malformed", "The SecurityGroupName %q is not 2 to 128 characters long or begins with http.", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := q.str("VpcId")
	if id == "" { // the classic network is closed; the account's first VPC stands for its default one
		for _, v := range sorted(c.vpcs) {
			id = cmp.Or(id, v.id)
		}
	}
	v, err := c.vpcNamed(id)
	if err != nil {
		return nil, err
	}
	if pendingUntil(v.readyAt) != "Available" {
		return nil, fail(400, "IncorrectVpcStatus", "Current VPC status does not support this operation: %s is Pending.", v.id)
	}
	g := c.insertGroup(c.newID("sg"), q.str("SecurityGroupName"), v.id)
	g.comment, g.kind, g.tags, g.created = q.str("Description"), kind, tags, true
	if kind == "enterprise" {
		g.inner = "Drop"
	}
	return obj{"SecurityGroupId": g.id}, nil
}

// groupNamed returns the security group a request names. c.mu is held.
func (c *Cloud) groupNamed(id string) (*securityGroup, *apiError) {
	if err := c.knownGroups([]string{id}); err != nil {
		return nil, err
	}
	return c.securityGroups[id], nil
}

// members returns the instances in a group, in order of creation. c.mu is held.
func (c *Cloud) members(g *securityGroup) []*instance {
	var l []*instance
	for _, i := range sorted(c.instances) {
		if slices.Contains(i.SecurityGroups, g.id) {
			l = append(l, i)
		}
	}
	return l
}

func (c *Cloud) deleteSecurityGroup(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	if err != nil {
		return nil, err
	}
	if m := c.members(g); len(m) > 0 {
		return nil, fail(403, "DependencyViolation", "There is still instance(s) in the specified security group: %s.", m[0].ID)
	}
	for _, o := range c.securityGroups {
		if o != g && slices.ContainsFunc(o.rules, func(r rule) bool { return r.group == g.id }) {
			return nil, fail(403, "DependencyViolation", "The specified security group has been authorized in another one: %s.", o.id)
		}
	}
	delete(c.securityGroups, g.id)
	return obj{}, nil
}

func (c *Cloud) describeSecurityGroups(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	ids, byIDs := q.ids("SecurityGroupIds")
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*securityGroup
	for _, g := range sorted(c.securityGroups) {
		name := g.name == q.str("SecurityGroupName") || q.str("SecurityGroupName") == "" || q.is("FuzzyQuery") && strings.Contains(g.name, q.str("SecurityGroupName"))
		if oneOf(g.id, q.str("SecurityGroupId")) && (!byIDs || slices.Contains(ids, g.id)) && oneOf(g.vpc, q.str("VpcId")) &&
			oneOf("vpc", q.str("NetworkType")) && oneOf(g.kind, q.str("SecurityGroupType")) && name && tagged(g.tags, filter) {
			found = append(found, g)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, g := range part {
		o := obj{
			"SecurityGroupId": g.id, "SecurityGroupName": g.name, "Description": g.comment, "SecurityGroupType": g.kind, "VpcId": g.vpc,
			"CreationTime": stamp(g.createdAt, stampSeconds), "ResourceGroupId": "", "ServiceManaged": false, "Tags": tagList(g.tags),
		}
		if q.is("IsQueryEcsCount") {
			o["EcsCount"], o["AvailableInstanceAmount"] = len(c.members(g)), max(c.room(g), 0)
		}
		list = append(list, o)
	}
	delete(reply, "MaxResults")
	reply["RegionId"], reply["SecurityGroups"] = c.cfg.Region, obj{"SecurityGroup": list}
	return reply, nil
}

func (c *Cloud) describeSecurityGroupAttribute(q *call) (obj, *apiError) {
	direction := cmp.Or(q.str("Direction"), "all")
	if direction != "all" && direction != "ingress" && direction != "egress" {
		return nil, refuse(400, "InvalidParameter", "The Direction %q is not ingress, egress or all.", direction)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range g.rules {
		if direction != "all" && r.direction != direction {
			continue
		}
		o := obj{
			"SecurityGroupRuleId": r.id, "Direction": r.direction, "IpProtocol": strings.ToUpper(r.protocol), "PortRange": r.ports, "SourcePortRange": r.ownPorts,
			"NicType": r.nic, "Policy": map[string]string{"accept": "Accept", "drop": "Drop"}[r.policy], "Priority": r.priority, "Description": r.comment,
			"CreateTime": stamp(r.createdAt, stampSeconds),
		}
		names := []string{"SourceCidrIp", "Ipv6SourceCidrIp", "SourceGroupId", "SourceGroupOwnerAccount", "SourcePrefixListId", "DestCidrIp", "Ipv6DestCidrIp", "DestGroupId", "DestGroupOwnerAccount", "DestPrefixListId"}
		values := []string{r.cidr, r.cidr6, r.group, r.owner, r.prefixList, r.ownCIDR, r.ownCIDR6, "", "", ""}
		if r.direction == "egress" {
			values = append(values[5:], values[:5]...)
			values[0], values[1] = r.ownCIDR, r.ownCIDR6
			values[5], values[6], values[7], values[8], values[9] = r.cidr, r.cidr6, r.group, r.owner, r.prefixList
		}
		for n, name := range names {
			o[name] = values[n]
		}
		list = append(list, o)
	}
	return obj{
		"SecurityGroupId": g.id, "SecurityGroupName": g.name, "Description": g.comment, "RegionId": c.cfg.Region, "VpcId": g.vpc,
		"InnerAccessPolicy": g.inner, "NextToken": "", "Permissions": obj{"Permission": list},
	}, nil
}

func (c *Cloud) modifySecurityGroupAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	if err != nil {
		return nil, err
	}
	g.name, g.comment = cmp.Or(q.str("SecurityGroupName"), g.name), cmp.Or(q.str("Description"), g.comment)
	return obj{}, nil
}

func (c *Cloud) modifySecurityGroupPolicy(q *call) (obj, *apiError) {
	p := q.str("InnerAccessPolicy")
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	switch {
	case err != nil:
		return nil, err
	case !strings.EqualFold(p, "Accept") && !strings.EqualFold(p, "Drop"):
		return nil, refuse(400, "InvalidPolicy.Malformed", "The InnerAccessPolicy %q is neither Accept nor Drop.", p)
	}
	g.inner = strings.ToUpper(p[:1]) + strings.ToLower(p[1:])
	return obj{}, nil
}

func (c *Cloud) authorizeIngress(q *call) (obj, *apiError) { return c.changeRules(q, "ingress", true) }
func (c *Cloud) authorizeEgress(q *call) (obj, *apiError)  { return c.changeRules(q, "egress", true) }
func (c *Cloud) revokeIngress(q *call) (obj, *apiError)    { return c.changeRules(q, "ingress", false) }
func (c *Cloud) revokeEgress(q *call) (obj, *apiError)     { return c.changeRules(q, "egress", false) }

// changeRules adds or removes the rules of a request: one in plain parameters,
// or those of Permissions.N. What is there already, or not there, is no error.
func (c *Cloud) changeRules(q *call, direction string, add bool) (obj, *apiError) {
	ids := q.list("SecurityGroupRuleId")
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	if err != nil {
		return nil, err
	}
	var rules []rule
	if len(ids) == 0 {
		sets := []map[string]string{q.params}
		if q.has("Permissions.#.IpProtocol") {
			sets = nil
			for i := 1; q.group("Permissions", i) != nil; i++ {
				sets = append(sets, q.group("Permissions", i))
			}
		}
		for _, set := range sets {
			r, err := c.wantedRule(set, direction)
			if err != nil {
				return nil, err
			}
			rules = append(rules, r)
		}
	}
	if add {
		for _, r := range rules {
			if !slices.ContainsFunc(g.rules, r.same) {
				r.id, r.createdAt = c.newID("sgr"), time.Now()
				g.rules = append(g.rules, r)
			}
		}
		return obj{}, nil
	}
	g.rules = slices.DeleteFunc(g.rules, func(have rule) bool {
		return slices.Contains(ids, have.id) || slices.ContainsFunc(rules, have.same)
	})
	return obj{}, nil
}

// wantedRule reads a rule; the far side's parameters begin with Source for
// traffic that comes in and with Dest for traffic that goes out. c.mu is held.
func (c *Cloud) wantedRule(p map[string]string, direction string) (rule, *apiError) {
	far, near := "Source", "Dest"
	if direction == "egress" {
		far, near = near, far
	}
	r := rule{
		direction: direction, protocol: strings.ToLower(p["IpProtocol"]), ports: p["PortRange"],
		cidr: p[far+"CidrIp"], cidr6: p["Ipv6"+far+"CidrIp"], group: p[far+"GroupId"], prefixList: p[far+"PrefixListId"], owner: p[far+"GroupOwnerAccount"],
		ownCIDR: p[near+"CidrIp"], ownCIDR6: p["Ipv6"+near+"CidrIp"], ownPorts: p["SourcePortRange"],
		policy: cmp.Or(strings.ToLower(p["Policy"]), "accept"), priority: cmp.Or(p["Priority"], "1"), nic: "intranet", comment: p["Description"],
	}
	n, err := strconv.Atoi(r.priority)
	sides := 0
	for _, v := range []string{r.cidr, r.cidr6, r.group, r.prefixList} {
		if v != "" {
			sides++
		}
	}
	switch {
	case !slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6", "gre", "all"}, r.protocol):
		return r, refuse(400, "InvalidIpProtocol.ValueNotSupported", "The IpProtocol %q is not tcp, udp, icmp, icmpv6, gre or all.", p["IpProtocol"])
	case r.policy != "accept" && r.policy != "drop":
		return r, refuse(400, "InvalidPolicy.Malformed", "The Policy %q is neither accept nor drop.", p["Policy"])
	case err != nil || n < 1 || n > 100:
		return r, refuse(400, "InvalidPriority.ValueNotSupported", "The Priority %q is not between 1 and 100.", r.priority)
	case sides != 1:
		return r, refuse(400, "InvalidParamter.Conflict", "A rule names the other side by exactly one of CidrIp, Ipv6CidrIp, GroupId and PrefixListId.")
	case r.cidr != "" && !rangeOrAddress(r.cidr, true) || r.ownCIDR != "" && !rangeOrAddress(r.ownCIDR, true):
		return r, refuse(400, "InvalidSourceCidrIp.Malformed", "The specified CidrIp %q is not an IPv4 range.", cmp.Or(r.cidr, r.ownCIDR))
	case r.cidr6 != "" && !rangeOrAddress(r.cidr6, false) || r.ownCIDR6 != "" && !rangeOrAddress(r.ownCIDR6, false):
		return r, refuse(400, "InvalidSourceCidrIp.Malformed", "The specified CidrIp %q is not an IPv6 range.", cmp.Or(r.cidr6, r.ownCIDR6))
	case r.group != "" && c.securityGroups[r.group] == nil:
		return r, fail(404, "InvalidSecurityGroupId.NotFound", "The specified SecurityGroupId %q does not exist.", r.group)
	}
	if !portRange(r.ports, r.protocol == "tcp" || r.protocol == "udp") || r.ownPorts != "" && !portRange(r.ownPorts, true) {
		return r, refuse(400, "InvalidPortRange.Malformed", "The specified PortRange %q is not like 22/22, or not -1/-1 for a protocol without ports.", r.ports)
	}
	return r, nil
}

func rangeOrAddress(s string, v4 bool) bool {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Is4() == v4
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4() == v4
}

// portRange checks FIRST/LAST; protocols without ports have -1/-1.
func portRange(s string, ports bool) bool {
	if !ports {
		return s == "-1/-1"
	}
	a, b, ok := strings.Cut(s, "/")
	from, err1 := strconv.Atoi(a)
	to, err2 := strconv.Atoi(b)
	return ok && err1 == nil && err2 == nil && 1 <= from && from <= to && to <= 65535
}

// joining finds the group and the instance of Join- and LeaveSecurityGroup.
// c.mu is held.
func (c *Cloud) joining(q *call) (*securityGroup, *instance, *apiError) {
	g, err := c.groupNamed(q.str("SecurityGroupId"))
	if err != nil {
		return nil, nil, err
	}
	if !q.has("InstanceId") {
		return nil, nil, refuse(400, "MissingParameter", "InstanceId must be given.")
	}
	i, err := c.instance(q.str("InstanceId"))
	switch {
	case err != nil:
		return nil, nil, err
	case !i.idle(running) && !i.idle(stopped):
		return nil, nil, incorrectStatus(i)
	case g.vpc != i.VPC:
		return nil, nil, fail(403, "InvalidInstanceId.VpcNotMatch", "The instance %s and the security group %s are in different VPCs.", i.ID, g.id)
	}
	return g, i, nil
}

func (c *Cloud) joinSecurityGroup(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, i, err := c.joining(q)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(i.SecurityGroups, g.id):
		return nil, fail(403, "InvalidInstanceId.AlreadyExists", "The instance %s is in the security group %s already.", i.ID, g.id)
	case len(i.SecurityGroups) >= 5:
		return nil, fail(403, "QuotaExceed.SecurityGroupPerInstance", "The instance %s is in 5 security groups; it cannot be in more.", i.ID)
	case c.room(g) < 1:
		return nil, fail(403, "SecurityGroupInstanceLimitExceed", "The security group %s has room for no more instances.", g.id)
	}
	i.SecurityGroups = append(i.SecurityGroups, g.id)
	return obj{}, nil
}

func (c *Cloud) leaveSecurityGroup(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, i, err := c.joining(q)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(i.SecurityGroups, g.id):
		return nil, fail(403, "InvalidSecurityGroupAssociation.NotFound", "The instance %s is not in the security group %s.", i.ID, g.id)
	case len(i.SecurityGroups) == 1:
		return nil, fail(403, "InstanceLastSecurityGroup", "The instance %s must stay in at least one security group.", i.ID)
	}
	i.SecurityGroups = slices.DeleteFunc(i.SecurityGroups, func(id string) bool { return id == g.id })
	return obj{}, nil
}

func (c *Cloud) describeNetworkInterfaces(q *call) (obj, *apiError) {
	ids, addresses := q.list("NetworkInterfaceId"), q.list("PrivateIpAddress")
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*instance
	for _, i := range sorted(c.instances) {
		if (len(ids) == 0 || slices.Contains(ids, i.ENI)) && (len(addresses) == 0 || slices.Contains(addresses, i.PrivateIP)) &&
			oneOf(i.ID, q.str("InstanceId")) && oneOf(i.PrivateIP, q.str("PrimaryIpAddress")) && oneOf(i.VSwitch, q.str("VSwitchId")) &&
			oneOf(i.VPC, q.str("VpcId")) && oneOf("Primary", q.str("Type")) && oneOf("InUse", q.str("Status")) &&
			(!q.has("SecurityGroupId") || slices.Contains(i.SecurityGroups, q.str("SecurityGroupId"))) {
			found = append(found, i)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, obj{
			"NetworkInterfaceId": i.ENI, "NetworkInterfaceName": "", "Description": "", "InstanceId": i.ID, "Type": "Primary", "Status": "InUse",
			"MacAddress": i.MAC, "PrivateIpAddress": i.PrivateIP, "VpcId": i.VPC, "VSwitchId": i.VSwitch, "ZoneId": i.Zone,
			"CreationTime": stamp(i.createdAt, stampSeconds), "OwnerId": strconv.FormatInt(accountID, 10), "ResourceGroupId": "", "ServiceManaged": false,
			"DeleteOnRelease": true, "NetworkInterfaceTrafficMode": "Standard", "QueueNumber": 1,
			"SecurityGroupIds": obj{"SecurityGroupId": orEmpty(i.SecurityGroups)},
			"PrivateIpSets":    obj{"PrivateIpSet": []obj{{"PrivateIpAddress": i.PrivateIP, "Primary": true}}},
			"Ipv6Sets":         obj{"Ipv6Set": []obj{}}, "Ipv4PrefixSets": obj{"Ipv4PrefixSet": []obj{}}, "Ipv6PrefixSets": obj{"Ipv6PrefixSet": []obj{}},
			"Tags": tagList(nil),
		})
	}
	delete(reply, "MaxResults")
	reply["NetworkInterfaceSets"] = obj{"NetworkInterfaceSet": list}
	return reply, nil
}

// instanceIDs reads the InstanceIds of the key pair actions: unlike a filter
// they are required and must exist. c.mu is held.
func (c *Cloud) instanceIDs(q *call) ([]*instance, *apiError) {
	var ids []string
	if err := json.Unmarshal([]byte(q.str("InstanceIds")), &ids); err != nil || len(ids) == 0 || len(ids) > 50 {
		return nil, refuse(400, "InvalidInstanceIds.ValueNotSupported", "InstanceIds is not a JSON array of 1 to 50 instance IDs.")
	}
	var l []*instance
	for _, id := range ids {
		i, err := c.instance(id)
		if err != nil {
			return nil, err
		}
		l = append(l, i)
	}
	return l, nil
}
