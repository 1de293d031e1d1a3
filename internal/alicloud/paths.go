package alicloud

import (
	"context"
	"strconv"
)

// The versions of the APIs by which a server is reached without a balancer.
const (
	vpcVersion = "2016-04-28"
	dnsVersion = "2015-01-09"
	essVersion = "2014-08-28"
)

// numbered walks the pages of a list that counts them. page asks for one and
// returns how many objects it held and how many there are in all.
func numbered(size int, page func(number, size string) (got, total int, err error)) error {
	for n, seen := 1, 0; ; n++ {
		got, total, err := page(strconv.Itoa(n), strconv.Itoa(size))
		if err != nil {
			return err
		}
		if seen += got; got == 0 || seen >= total {
			return nil
		}
	}
}

// EIP is an elastic IP address that is bound to something.
type EIP struct{ ID, Address, InstanceID, InstanceType, PrivateIP string }

// EIPs lists the elastic IP addresses of an instance (kind EcsInstance) or of a
// network interface (NetworkInterface).
func (c *Client) EIPs(ctx context.Context, kind, id string) ([]EIP, error) {
	var all []EIP
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount   int
			EipAddresses struct {
				EipAddress []struct {
					AllocationID, IpAddress, InstanceID, InstanceType, PrivateIpAddress string
				}
			}
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeEipAddresses"), map[string]string{
			"AssociatedInstanceType": kind, "AssociatedInstanceId": id, "PageNumber": number, "PageSize": size,
		}, &r)
		for _, e := range r.EipAddresses.EipAddress {
			all = append(all, EIP{ID: e.AllocationID, Address: e.IpAddress, InstanceID: e.InstanceID, InstanceType: e.InstanceType, PrivateIP: e.PrivateIpAddress})
		}
		return len(r.EipAddresses.EipAddress), r.TotalCount, err
	})
	return all, err
}

// NATGateway is a gateway with its tables of forwarding (DNAT) entries.
type NATGateway struct {
	ID, Name      string
	ForwardTables []string
}

// NATGateways lists the NAT gateways of a VPC ("": of the region).
func (c *Client) NATGateways(ctx context.Context, vpc string) ([]NATGateway, error) {
	var all []NATGateway
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount  int
			NatGateways struct {
				NatGateway []struct {
					NatGatewayID, Name string
					ForwardTableIds    struct{ ForwardTableID []string }
				}
			}
		}
		p := map[string]string{"PageNumber": number, "PageSize": size}
		if vpc != "" {
			p["VpcId"] = vpc
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeNatGateways"), p, &r)
		for _, g := range r.NatGateways.NatGateway {
			all = append(all, NATGateway{ID: g.NatGatewayID, Name: g.Name, ForwardTables: g.ForwardTableIds.ForwardTableID})
		}
		return len(r.NatGateways.NatGateway), r.TotalCount, err
	})
	return all, err
}

// ForwardEntry is one DNAT entry. A port is "Any" when the whole address is
// forwarded.
type ForwardEntry struct{ ID, ExternalIP, ExternalPort, InternalIP, InternalPort, Protocol string }

// ForwardEntries lists the entries of a table that lead to an address.
func (c *Client) ForwardEntries(ctx context.Context, table, internalIP string) ([]ForwardEntry, error) {
	var all []ForwardEntry
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount          int
			ForwardTableEntries struct {
				ForwardTableEntry []struct {
					ForwardEntryID, ExternalIp, ExternalPort, InternalIp, InternalPort, IpProtocol string
				}
			}
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeForwardTableEntries"), map[string]string{
			"ForwardTableId": table, "InternalIp": internalIP, "PageNumber": number, "PageSize": size,
		}, &r)
		for _, e := range r.ForwardTableEntries.ForwardTableEntry {
			if e.InternalIp == internalIP {
				all = append(all, ForwardEntry{ID: e.ForwardEntryID, ExternalIP: e.ExternalIp, ExternalPort: e.ExternalPort, InternalIP: e.InternalIp, InternalPort: e.InternalPort, Protocol: e.IpProtocol})
			}
		}
		return len(r.ForwardTableEntries.ForwardTableEntry), r.TotalCount, err
	})
	return all, err
}

// HaVip is a floating private address and the instances or interfaces that may
// hold it.
type HaVip struct {
	ID, Address, Master string
	Instances           []string
}

// HaVips lists the floating addresses of the region.
func (c *Client) HaVips(ctx context.Context) ([]HaVip, error) {
	var all []HaVip
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount int
			HaVips     struct {
				HaVip []struct {
					HaVipID, IpAddress, MasterInstanceID string
					AssociatedInstances                  struct {
						AssociatedInstance []string `json:"associatedInstance"` // so it is spelled
					}
				}
			}
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeHaVips"), map[string]string{"PageNumber": number, "PageSize": size}, &r)
		for _, v := range r.HaVips.HaVip {
			all = append(all, HaVip{ID: v.HaVipID, Address: v.IpAddress, Master: v.MasterInstanceID, Instances: v.AssociatedInstances.AssociatedInstance})
		}
		return len(r.HaVips.HaVip), r.TotalCount, err
	})
	return all, err
}

// RouteTables lists the IDs of a VPC's route tables.
func (c *Client) RouteTables(ctx context.Context, vpc string) ([]string, error) {
	var all []string
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount      int
			RouterTableList struct {
				RouterTableListType []struct{ RouteTableID string }
			}
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeRouteTableList"), map[string]string{"VpcId": vpc, "PageNumber": number, "PageSize": size}, &r)
		for _, t := range r.RouterTableList.RouterTableListType {
			all = append(all, t.RouteTableID)
		}
		return len(r.RouterTableList.RouterTableListType), r.TotalCount, err
	})
	return all, err
}

// Route is one entry of a route table that leads to a next hop.
type Route struct{ ID, Table, Destination, NextHopID, NextHopType string }

// Routes lists the entries of a table whose next hop is id.
func (c *Client) Routes(ctx context.Context, table, id string) ([]Route, error) {
	var all []Route
	err := pages(func(token string) (string, error) {
		var r struct {
			NextToken   string
			RouteEntrys struct {
				RouteEntry []struct {
					RouteEntryID, DestinationCidrBlock string
					NextHops                           struct {
						NextHop []struct{ NextHopID, NextHopType string }
					}
				}
			}
		}
		p := map[string]string{"RouteTableId": table, "NextHopId": id, "MaxResult": "100"}
		if token != "" {
			p["NextToken"] = token
		}
		err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeRouteEntryList"), p, &r)
		for _, e := range r.RouteEntrys.RouteEntry {
			for _, h := range e.NextHops.NextHop {
				if h.NextHopID == id {
					all = append(all, Route{ID: e.RouteEntryID, Table: table, Destination: e.DestinationCidrBlock, NextHopID: h.NextHopID, NextHopType: h.NextHopType})
				}
			}
		}
		return r.NextToken, err
	})
	return all, err
}

// ScalingMember is an instance as a member of a scaling group.
type ScalingMember struct{ GroupID, InstanceID, State string }

// ScalingMembers tells in which scaling groups an instance is.
func (c *Client) ScalingMembers(ctx context.Context, instanceID string) ([]ScalingMember, error) {
	var all []ScalingMember
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount       int
			ScalingInstances struct {
				ScalingInstance []struct{ ScalingGroupID, InstanceID, LifecycleState string }
			}
		}
		err := c.rpc(ctx, "ess", essVersion, read("DescribeScalingInstances"), map[string]string{"InstanceId.1": instanceID, "PageNumber": number, "PageSize": size}, &r)
		for _, m := range r.ScalingInstances.ScalingInstance {
			if m.InstanceID == instanceID {
				all = append(all, ScalingMember{GroupID: m.ScalingGroupID, InstanceID: m.InstanceID, State: m.LifecycleState})
			}
		}
		return len(r.ScalingInstances.ScalingInstance), r.TotalCount, err
	})
	return all, err
}

// DNSRecord has the fields of slb.DNSRecord, in the same order, so that one
// converts into the other.
type DNSRecord struct {
	ID, Domain, RR, Type, Value string
	TTL                         int // seconds
	Line                        string
	Enabled                     bool
}

// Domains lists the names of the account's domains in Alibaba Cloud DNS.
func (c *Client) Domains(ctx context.Context) ([]string, error) {
	var all []string
	err := numbered(100, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount int
			Domains    struct {
				Domain []struct{ DomainName string }
			}
		}
		err := c.rpc(ctx, "alidns", dnsVersion, read("DescribeDomains"), map[string]string{"PageNumber": number, "PageSize": size}, &r)
		for _, d := range r.Domains.Domain {
			all = append(all, d.DomainName)
		}
		return len(r.Domains.Domain), r.TotalCount, err
	})
	return all, err
}

// DNSRecords lists the records of a domain whose value holds a text. The
// service searches fuzzily, 1.2.3.4 finds 11.2.3.40 too: compare what comes.
func (c *Client) DNSRecords(ctx context.Context, domain, value string) ([]DNSRecord, error) {
	var all []DNSRecord
	err := numbered(500, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount    int
			DomainRecords struct {
				Record []struct {
					RecordID, DomainName, RR, Type, Value, Line, Status string
					TTL                                                 int
				}
			}
		}
		p := map[string]string{"DomainName": domain, "PageNumber": number, "PageSize": size}
		if value != "" {
			p["SearchMode"], p["ValueKeyWord"] = "ADVANCED", value
		}
		err := c.rpc(ctx, "alidns", dnsVersion, read("DescribeDomainRecords"), p, &r)
		for _, x := range r.DomainRecords.Record {
			all = append(all, DNSRecord{ID: x.RecordID, Domain: x.DomainName, RR: x.RR, Type: x.Type, Value: x.Value, TTL: x.TTL, Line: x.Line, Enabled: x.Status == "ENABLE"})
		}
		return len(r.DomainRecords.Record), r.TotalCount, err
	})
	return all, err
}
