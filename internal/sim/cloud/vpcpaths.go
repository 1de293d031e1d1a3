package cloud

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

func vpcPathActions() []action {
	return []action{
		{name: "DescribeEipAddresses", do: (*Cloud).describeEIPs,
			served: `
				AllocationId AssociatedInstanceId AssociatedInstanceType EipAddress PageNumber:int PageSize:int
				RegionId! Status`,
			other: `
				ChargeType DryRun EipName Filter.1.Key Filter.1.Value Filter.2.Key Filter.2.Value ISP
				IncludeReservationData LockReason PublicIpAddressPoolId ResourceGroupId
				SecurityProtectionEnabled SegmentInstanceId ServiceManaged Tag.#.Key Tag.#.Value`,
		},
		{name: "AllocateEipAddress", do: (*Cloud).allocateEIP,
			served: `
				Bandwidth:int ClientToken Description InstanceChargeType InternetChargeType Name RegionId!`,
			other: `
				ActivityId AutoPay ISP InstanceId IpAddress Netmode Period PricingCycle PublicIpAddressPoolId
				ResourceGroupId SecurityProtectionTypes.# Tag.#.Key Tag.#.Value Zone`,
		},
		{name: "AssociateEipAddress", do: (*Cloud).associateEIP,
			served: `
				AllocationId! ClientToken InstanceId! InstanceType PrivateIpAddress`,
			other: `
				InstanceRegionId Mode VpcId`,
		},
		{name: "UnassociateEipAddress", do: (*Cloud).unassociateEIP,
			served: `
				AllocationId! ClientToken Force:bool InstanceId InstanceType PrivateIpAddress`,
		},
		{name: "ReleaseEipAddress", do: (*Cloud).releaseEIP,
			served: `
				AllocationId!`,
		},
		{name: "DescribeNatGateways", do: (*Cloud).describeNATGateways,
			served: `
				Name NatGatewayId PageNumber:int PageSize:int RegionId! VpcId`,
			other: `
				DryRun InstanceChargeType NatType NetworkType ResourceGroupId Spec Status Tag.#.Key Tag.#.Value
				ZoneId`,
		},
		{name: "DescribeForwardTableEntries", do: (*Cloud).describeForwardEntries,
			served: `
				ExternalIp ExternalPort ForwardEntryId ForwardTableId InternalIp InternalPort IpProtocol
				NatGatewayId PageNumber:int PageSize:int RegionId!`,
			other: `
				ForwardEntryName`,
		},
		{name: "DescribeHaVips", do: (*Cloud).describeHaVips,
			served: `
				Filter.#.Key Filter.#.Value.# PageNumber:int PageSize:int RegionId!`,
			other: `
				ResourceGroupId Tags.#.Key Tags.#.Value`,
		},
		{name: "DescribeRouteEntryList", do: (*Cloud).describeRouteEntries,
			served: `
				DestinationCidrBlock MaxResult:int NextHopId NextHopType NextToken RegionId! RouteEntryId
				RouteEntryType RouteTableId!`,
			other: `
				DestCidrBlockList.# IpVersion RouteEntryName ServiceType`,
		},
	}
}

// An EIP is an elastic IP address, bound to an instance, a network interface
// or nothing.
type EIP struct {
	ID, Address string
	InstanceID  string // i-… or eni-…; "" when it is free
	PrivateIP   string // of an interface with several
	Bandwidth   int    // Mbit/s; default 5
}

// A NATGateway holds tables of DNAT entries.
type NATGateway struct {
	ID, Name, VPC string
	Entries       []ForwardEntry
}

// A ForwardEntry is one DNAT entry. Ports are numbers or "Any".
type ForwardEntry struct {
	ID                       string // made up when empty
	ExternalIP, ExternalPort string
	InternalIP, InternalPort string
	Protocol                 string // TCP (default), UDP, Any
}

// A HaVip is a floating private address.
type HaVip struct {
	ID, Address, VPC, VSwitch string
	Master                    string   // the instance that holds it
	Instances                 []string // those that may
}

// A Route is a custom route entry.
type Route struct {
	ID, Table, Destination string
	NextHopID              string
	NextHopType            string // Instance (default), NetworkInterface, …
}

type eip struct {
	EIP
	seq       int64
	status    string
	createdAt time.Time
	created   bool // by AllocateEipAddress
}

func (e *eip) number() int64 { return e.seq }

type natGateway struct {
	NATGateway
	seq int64
}

func (g *natGateway) number() int64 { return g.seq }

// table is the ID of a gateway's only DNAT table.
func (g *natGateway) table() string { return "ftb-" + g.ID }

type haVip struct {
	HaVip
	seq int64
}

func (v *haVip) number() int64 { return v.seq }

type route struct {
	Route
	seq int64
}

func (r *route) number() int64 { return r.seq }

type forwardEntry struct {
	ForwardEntry
	gateway *natGateway
}

// pathState is what leads to instances past the balancers.
type pathState struct {
	eips   map[string]*eip
	nats   map[string]*natGateway
	haVips map[string]*haVip
	routes map[string]*route
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// AddEIP adds an elastic IP address.
func (c *Cloud) AddEIP(e EIP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Bandwidth = cmp.Or(e.Bandwidth, 5)
	x := &eip{EIP: e, seq: c.next(), status: "Available", createdAt: time.Now()}
	if e.InstanceID != "" {
		x.status = "InUse"
	}
	put(&c.paths.eips, e.ID, x)
}

// AddNATGateway adds a gateway with its DNAT entries.
func (c *Cloud) AddNATGateway(g NATGateway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.VPC = cmp.Or(g.VPC, "vpc-sim")
	g.Entries = slices.Clone(g.Entries)
	for n := range g.Entries {
		g.Entries[n].ID = cmp.Or(g.Entries[n].ID, c.newID("fwd"))
		g.Entries[n].Protocol = cmp.Or(g.Entries[n].Protocol, "TCP")
	}
	put(&c.paths.nats, g.ID, &natGateway{g, c.next()})
}

// AddHaVip adds a floating address.
func (c *Cloud) AddHaVip(v HaVip) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.VPC, v.VSwitch = cmp.Or(v.VPC, "vpc-sim"), cmp.Or(v.VSwitch, "vsw-sim")
	v.Instances = slices.Clone(v.Instances)
	put(&c.paths.haVips, v.ID, &haVip{v, c.next()})
}

// AddRoute adds a custom entry to a route table ("": the first of vpc-sim). It
// panics when there is no such table.
func (c *Cloud) AddRoute(r Route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tables := c.routeTables("")
	if r.Table == "" {
		if own := c.routeTables("vpc-sim"); len(own) > 0 {
			r.Table = own[0]
		}
	}
	if !slices.Contains(tables, r.Table) {
		panic(fmt.Sprintf("cloud: there is no route table %q", r.Table))
	}
	r.ID = cmp.Or(r.ID, c.newID("rte"))
	r.NextHopType = cmp.Or(r.NextHopType, "Instance")
	put(&c.paths.routes, r.ID, &route{r, c.next()})
}

// EIPs returns the elastic IP addresses as they are now.
func (c *Cloud) EIPs() []EIP {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []EIP
	for _, e := range sorted(c.paths.eips) {
		all = append(all, e.EIP)
	}
	return all
}

// numberedPage cuts the part of all that PageNumber and PageSize ask for, and
// returns the paging members of the answer with it.
func numberedPage[T any](q *call, all []T, size, most int) ([]T, obj, *apiError) {
	number, size := q.num("PageNumber", 1), q.num("PageSize", size)
	if number < 1 || size < 1 || size > most {
		return nil, nil, refuse(400, "InvalidParameter", "PageNumber starts at 1, and PageSize is between 1 and %d.", most)
	}
	from := min((number-1)*size, len(all))
	return all[from:min(from+size, len(all))], obj{"PageNumber": number, "PageSize": size, "TotalCount": len(all)}, nil
}

// page answers with one page of a list, under list.item.
func page[T any](q *call, all []T, size, most int, list, item string, view func(T) obj) (obj, *apiError) {
	part, reply, err := numberedPage(q, all, size, most)
	if err != nil {
		return nil, err
	}
	views := []obj{}
	for _, v := range part {
		views = append(views, view(v))
	}
	reply[list] = obj{item: views}
	return reply, nil
}

// kindOf tells an instance from an interface, as EIPs name them.
func kindOf(id string) string {
	switch {
	case id == "":
		return ""
	case len(id) > 4 && id[:4] == "eni-":
		return "NetworkInterface"
	}
	return "EcsInstance"
}

func (c *Cloud) describeEIPs(q *call) (obj, *apiError) {
	if (q.str("AssociatedInstanceType") == "") != (q.str("AssociatedInstanceId") == "") {
		return nil, refuse(400, "MissingParameter", "AssociatedInstanceType and AssociatedInstanceId go together.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*eip
	for _, e := range sorted(c.paths.eips) {
		if oneOf(e.ID, q.str("AllocationId")) && oneOf(e.Address, q.str("EipAddress")) && oneOf(e.status, q.str("Status")) &&
			(q.str("AssociatedInstanceId") == "" || e.InstanceID == q.str("AssociatedInstanceId") && kindOf(e.InstanceID) == q.str("AssociatedInstanceType")) {
			found = append(found, e)
		}
	}
	return page(q, found, 10, 100, "EipAddresses", "EipAddress", func(e *eip) obj {
		return obj{
			"AllocationId": e.ID, "IpAddress": e.Address, "Status": e.status, "InstanceId": e.InstanceID,
			"InstanceType": kindOf(e.InstanceID), "PrivateIpAddress": e.PrivateIP, "RegionId": c.cfg.Region,
			"Bandwidth": strconv.Itoa(e.Bandwidth), "AllocationTime": stamp(e.createdAt, stampSeconds), "ChargeType": "PostPaid",
			"InternetChargeType": "PayByTraffic", "BusinessStatus": "Normal", "Name": "", "ISP": "BGP",
		}
	})
}

func (c *Cloud) allocateEIP(q *call) (obj, *apiError) {
	if t := q.str("InstanceChargeType"); t != "" && t != "PostPaid" {
		return nil, refuse(400, "UnsupportedParameter", "InstanceChargeType %q is not simulated: PostPaid.", t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.paths.eips)
	e := &eip{EIP: EIP{ID: c.newID("eip"), Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + n%100)}).String(), Bandwidth: q.num("Bandwidth", 5)},
		seq: c.next(), status: "Available", createdAt: time.Now(), created: true}
	put(&c.paths.eips, e.ID, e)
	return obj{"AllocationId": e.ID, "EipAddress": e.Address, "ResourceGroupId": "", "OrderId": 0}, nil
}

func (c *Cloud) eip(q *call) (*eip, *apiError) {
	if e := c.paths.eips[q.str("AllocationId")]; e != nil {
		return e, nil
	}
	return nil, fail(404, "InvalidAllocationId.NotFound", "Specified allocation ID is not found")
}

func (c *Cloud) associateEIP(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.eip(q)
	if err != nil {
		return nil, err
	}
	id := q.str("InstanceId")
	kind := cmp.Or(q.str("InstanceType"), "EcsInstance")
	if kind != "EcsInstance" && kind != "NetworkInterface" {
		return nil, refuse(400, "InvalidParameter", "InstanceType %q is not simulated: EcsInstance or NetworkInterface.", kind)
	}
	known := c.instances[id] != nil
	for _, i := range c.instances {
		known = known || i.ENI == id
	}
	switch {
	case !known || kind != kindOf(id):
		return nil, fail(404, "InvalidInstanceId.NotFound", "The specified instance is not found.")
	case e.status != "Available":
		return nil, fail(400, "IncorrectEipStatus", "Current elastic IP status does not support this operation.")
	}
	for _, o := range c.paths.eips {
		if o.InstanceID == id {
			return nil, fail(400, "InvalidAssociation.Duplicated", "Specified instance already is associated.")
		}
	}
	e.InstanceID, e.PrivateIP, e.status = id, q.str("PrivateIpAddress"), "Associating"
	c.after(c.scaled(2*time.Second), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.status == "Associating" {
			e.status = "InUse"
		}
	})
	return nil, nil
}

func (c *Cloud) unassociateEIP(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.eip(q)
	switch {
	case err != nil:
		return nil, err
	case e.status != "InUse" || q.str("InstanceId") != "" && q.str("InstanceId") != e.InstanceID:
		return nil, fail(400, "IncorrectEipStatus", "Current elastic IP status does not support this operation.")
	}
	e.status = "Unassociating"
	c.after(c.scaled(2*time.Second), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.status == "Unassociating" {
			e.status, e.InstanceID, e.PrivateIP = "Available", "", ""
		}
	})
	return nil, nil
}

func (c *Cloud) releaseEIP(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.eip(q)
	switch {
	case err != nil:
		return nil, err
	case e.status != "Available":
		return nil, fail(400, "IncorrectEipStatus", "Current elastic IP status does not support this operation.")
	}
	delete(c.paths.eips, e.ID)
	return nil, nil
}

func (c *Cloud) describeNATGateways(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := slices.DeleteFunc(sorted(c.paths.nats), func(g *natGateway) bool {
		return !oneOf(g.ID, q.str("NatGatewayId")) || q.str("VpcId") != "" && g.VPC != q.str("VpcId") || q.str("Name") != "" && g.Name != q.str("Name")
	})
	return page(q, found, 10, 50, "NatGateways", "NatGateway", func(g *natGateway) obj {
		return obj{
			"NatGatewayId": g.ID, "Name": g.Name, "VpcId": g.VPC, "RegionId": c.cfg.Region, "Status": "Available", "NatType": "Enhanced",
			"NetworkType": "internet", "ForwardTableIds": obj{"ForwardTableId": []string{g.table()}},
			"SnatTableIds": obj{"SnatTableId": []string{}},
		}
	})
}

func (c *Cloud) describeForwardEntries(q *call) (obj, *apiError) {
	if !q.has("ForwardTableId") && !q.has("NatGatewayId") {
		return nil, refuse(400, "MissingParameter", "Either ForwardTableId or NatGatewayId must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := false
	var found []*forwardEntry
	for _, g := range sorted(c.paths.nats) {
		if q.has("ForwardTableId") && g.table() != q.str("ForwardTableId") || q.has("NatGatewayId") && g.ID != q.str("NatGatewayId") {
			continue
		}
		known = true
		for _, e := range g.Entries {
			if same := func(param, v string) bool { return q.str(param) == "" || q.str(param) == v }; same("ExternalIp", e.ExternalIP) &&
				same("ExternalPort", e.ExternalPort) && same("InternalIp", e.InternalIP) && same("InternalPort", e.InternalPort) &&
				same("IpProtocol", e.Protocol) && same("ForwardEntryId", e.ID) {
				found = append(found, &forwardEntry{ForwardEntry: e, gateway: g})
			}
		}
	}
	if !known {
		return nil, fail(400, "InvalidForwardTableId.NotFound", "Specified forward table does not exist.")
	}
	return page(q, found, 10, 50, "ForwardTableEntries", "ForwardTableEntry", func(e *forwardEntry) obj {
		return obj{
			"ForwardEntryId": e.ID, "ForwardTableId": e.gateway.table(), "NatGatewayId": e.gateway.ID, "ExternalIp": e.ExternalIP,
			"ExternalPort": e.ExternalPort, "InternalIp": e.InternalIP, "InternalPort": e.InternalPort, "IpProtocol": e.Protocol,
			"Status": "Available", "ForwardEntryName": "",
		}
	})
}

func (c *Cloud) describeHaVips(q *call) (obj, *apiError) {
	filters := map[string][]string{}
	for _, f := range q.each("Filter") {
		key := f.str("Key")
		if !slices.Contains([]string{"VpcId", "VSwitchId", "HaVipId", "HaVipAddress", "Status"}, key) {
			return nil, refuse(400, "InvalidParameter", "The filter %q is not known.", key)
		}
		filters[key] = f.list("Value")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	status := func(v *haVip) string {
		if len(v.Instances) > 0 {
			return "InUse"
		}
		return "Available"
	}
	found := slices.DeleteFunc(sorted(c.paths.haVips), func(v *haVip) bool {
		for key, value := range map[string]string{"VpcId": v.VPC, "VSwitchId": v.VSwitch, "HaVipId": v.ID, "HaVipAddress": v.Address, "Status": status(v)} {
			if want, given := filters[key]; given && !slices.Contains(want, value) {
				return true
			}
		}
		return false
	})
	return page(q, found, 10, 50, "HaVips", "HaVip", func(v *haVip) obj {
		kind := ""
		if len(v.Instances) > 0 {
			kind = kindOf(v.Instances[0])
		}
		return obj{
			"HaVipId": v.ID, "IpAddress": v.Address, "VpcId": v.VPC, "VSwitchId": v.VSwitch, "RegionId": c.cfg.Region, "Status": status(v),
			"MasterInstanceId": v.Master, "AssociatedInstanceType": kind, "Name": "", "Description": "",
			"AssociatedInstances":    obj{"associatedInstance": append([]string{}, v.Instances...)},
			"AssociatedEipAddresses": obj{"associatedEipAddresse": []string{}},
		}
	})
}

func (c *Cloud) describeRouteEntries(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.routeTables(""), q.str("RouteTableId")) {
		return nil, fail(404, "InvalidRouteTableId.NotFound", "Specified route table is not found.")
	}
	size := q.num("MaxResult", 50)
	after, bad := 0, error(nil)
	if t := q.str("NextToken"); t != "" {
		after, bad = strconv.Atoi(t)
	}
	if bad != nil || size < 1 || size > 500 {
		return nil, refuse(400, "InvalidParameter", "MaxResult is between 1 and 500, and NextToken from an earlier answer.")
	}
	list, next := []obj{}, ""
	for _, r := range sorted(c.paths.routes) {
		same := func(param, v string) bool { return q.str(param) == "" || q.str(param) == v }
		if r.Table != q.str("RouteTableId") || !same("NextHopId", r.NextHopID) || !same("NextHopType", r.NextHopType) || !same("DestinationCidrBlock", r.Destination) ||
			!same("RouteEntryId", r.ID) || !same("RouteEntryType", "Custom") || int(r.seq) <= after {
			continue
		}
		if len(list) == size {
			next = strconv.Itoa(int(list[size-1]["seq"].(int64)))
			break
		}
		list = append(list, obj{
			"seq": r.seq, "RouteEntryId": r.ID, "RouteTableId": r.Table, "DestinationCidrBlock": r.Destination, "Type": "Custom", "Status": "Available",
			"IpVersion": "IPv4", "RouteEntryName": "", "Description": "",
			"NextHops": obj{"NextHop": []obj{{"NextHopId": r.NextHopID, "NextHopType": r.NextHopType, "Enabled": 1, "Weight": 100}}},
		})
	}
	for n := range list {
		list[n] = maps.Clone(list[n])
		delete(list[n], "seq")
	}
	return obj{"RouteEntrys": obj{"RouteEntry": list}, "NextToken": next}, nil
}
