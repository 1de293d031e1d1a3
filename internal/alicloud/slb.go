package alicloud

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/slb"
)

// Backend and Health have the fields of the types of these names in package
// slb, in the same order, so that one converts into the other.
type (
	Backend struct {
		ServerID    string
		Type        string
		ServerIP    string
		Description string
		Port        int
		Weight      int
	}
	Health struct {
		ListenerPort int
		Port         int
		Protocol     string
		ServerID     string
		ServerIP     string
		Status       string
	}
)

// LoadBalancer is what a list shows of a balancer.
type LoadBalancer struct {
	ID, Name, Address, Status string
	Managed                   bool
	Protected                 bool
	ProtectedWhy              string
}

// consoleProtection is the status of a balancer that somebody protected against
// changes.
const consoleProtection = "ConsoleProtection"

// LoadBalancers lists the balancers in which a server is: by instance or ENI ID,
// or by private address, of which one must be given.
func (c *Client) LoadBalancers(ctx context.Context, serverID, serverIP string) ([]LoadBalancer, error) {
	var all []LoadBalancer
	for page, seen := 1, 0; ; page++ {
		r, err := callSLB(ctx, c, read("DescribeLoadBalancers"), slb.CreateDescribeLoadBalancersRequest, func(r *slb.DescribeLoadBalancersRequest) {
			r.RegionId, r.ServerId, r.ServerIntranetAddress = c.region, serverID, serverIP
			r.PageNumber, r.PageSize = requests.NewInteger(page), requests.NewInteger(pageSize)
		}, (*slb.Client).DescribeLoadBalancers)
		if err != nil {
			return nil, err
		}
		for _, b := range r.LoadBalancers.LoadBalancer {
			all = append(all, LoadBalancer{
				ID: b.LoadBalancerId, Name: b.LoadBalancerName, Address: b.Address, Status: b.LoadBalancerStatus, Managed: managed(b.ServiceManagedMode),
				Protected: b.ModificationProtectionStatus == consoleProtection, ProtectedWhy: b.ModificationProtectionReason,
			})
		}
		seen += len(r.LoadBalancers.LoadBalancer)
		if len(r.LoadBalancers.LoadBalancer) == 0 || seen >= r.TotalCount {
			return all, nil
		}
	}
}

// managed: the mode is "Managed" or "Unmanaged"; absent means the latter.
func managed(mode string) bool { return strings.EqualFold(mode, "Managed") }

// DefaultGroup lists the members of a balancer's default group.
func (c *Client) DefaultGroup(ctx context.Context, loadBalancerID string) ([]Backend, error) {
	r, err := callSLB(ctx, c, read("DescribeLoadBalancerAttribute"), slb.CreateDescribeLoadBalancerAttributeRequest, func(r *slb.DescribeLoadBalancerAttributeRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
	}, (*slb.Client).DescribeLoadBalancerAttribute)
	if err != nil {
		return nil, err
	}
	// An answer of another shape would look like an empty group, which is a
	// statement that people act on.
	if _, err := id("DescribeLoadBalancerAttribute", r.RequestId, r.LoadBalancerId); err != nil {
		return nil, err
	}
	var all []Backend
	for _, b := range r.BackendServers.BackendServer {
		all = append(all, Backend{ServerID: b.ServerId, Type: b.Type, ServerIP: b.ServerIp, Description: b.Description, Weight: b.Weight})
	}
	return all, nil
}

// VServerGroup is one group as a list shows it.
type VServerGroup struct {
	ID, Name string
	Managed  bool
}

// VServerGroups lists the VServer groups of a balancer.
func (c *Client) VServerGroups(ctx context.Context, loadBalancerID string) ([]VServerGroup, error) {
	r, err := callSLB(ctx, c, read("DescribeVServerGroups"), slb.CreateDescribeVServerGroupsRequest, func(r *slb.DescribeVServerGroupsRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
	}, (*slb.Client).DescribeVServerGroups)
	if err != nil {
		return nil, err
	}
	var all []VServerGroup
	for _, g := range r.VServerGroups.VServerGroup {
		all = append(all, VServerGroup{ID: g.VServerGroupId, Name: g.VServerGroupName, Managed: managed(g.ServiceManagedMode)})
	}
	return all, nil
}

// VServerGroup lists the members of a VServer group.
func (c *Client) VServerGroup(ctx context.Context, groupID string) ([]Backend, error) {
	r, err := callSLB(ctx, c, read("DescribeVServerGroupAttribute"), slb.CreateDescribeVServerGroupAttributeRequest, func(r *slb.DescribeVServerGroupAttributeRequest) {
		r.RegionId, r.VServerGroupId = c.region, groupID
	}, (*slb.Client).DescribeVServerGroupAttribute)
	if err != nil {
		return nil, err
	}
	if _, err := id("DescribeVServerGroupAttribute", r.RequestId, r.VServerGroupId); err != nil {
		return nil, err
	}
	var all []Backend
	for _, b := range r.BackendServers.BackendServer {
		all = append(all, Backend{ServerID: b.ServerId, Type: b.Type, ServerIP: b.ServerIp, Description: b.Description, Port: b.Port, Weight: b.Weight})
	}
	return all, nil
}

// MasterSlaveGroups lists the IDs of the primary/secondary groups of a balancer.
func (c *Client) MasterSlaveGroups(ctx context.Context, loadBalancerID string) ([]string, error) {
	r, err := callSLB(ctx, c, read("DescribeMasterSlaveServerGroups"), slb.CreateDescribeMasterSlaveServerGroupsRequest, func(r *slb.DescribeMasterSlaveServerGroupsRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
	}, (*slb.Client).DescribeMasterSlaveServerGroups)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, g := range r.MasterSlaveServerGroups.MasterSlaveServerGroup {
		ids = append(ids, g.MasterSlaveServerGroupId)
	}
	return ids, nil
}

// MasterSlaveGroup lists the two members of a primary/secondary group.
func (c *Client) MasterSlaveGroup(ctx context.Context, groupID string) (name string, _ []Backend, _ error) {
	r, err := callSLB(ctx, c, read("DescribeMasterSlaveServerGroupAttribute"), slb.CreateDescribeMasterSlaveServerGroupAttributeRequest, func(r *slb.DescribeMasterSlaveServerGroupAttributeRequest) {
		r.RegionId, r.MasterSlaveServerGroupId = c.region, groupID
	}, (*slb.Client).DescribeMasterSlaveServerGroupAttribute)
	if err != nil {
		return "", nil, err
	}
	if _, err := id("DescribeMasterSlaveServerGroupAttribute", r.RequestId, r.MasterSlaveServerGroupId); err != nil {
		return "", nil, err
	}
	var all []Backend
	for _, b := range r.MasterSlaveBackendServers.MasterSlaveBackendServer {
		all = append(all, Backend{ServerID: b.ServerId, Type: b.Type, ServerIP: b.ServerIp, Description: b.Description, Port: b.Port, Weight: b.Weight})
	}
	return r.MasterSlaveServerGroupName, all, nil
}

// Listener is one listener of a balancer.
type Listener struct {
	Port                             int
	Protocol, Scheduler, Status      string
	BackendPort                      int
	HealthCheck, Sticky              bool
	StickySeconds, DrainSeconds      int
	VServerGroupID, MasterSlaveGroup string
}

// Listeners lists the listeners of a balancer.
func (c *Client) Listeners(ctx context.Context, loadBalancerID string) ([]Listener, error) {
	var all []Listener
	err := pages(func(token string) (string, error) {
		r, err := callSLB(ctx, c, read("DescribeLoadBalancerListeners"), slb.CreateDescribeLoadBalancerListenersRequest, func(r *slb.DescribeLoadBalancerListenersRequest) {
			r.RegionId, r.LoadBalancerId = c.region, &[]string{loadBalancerID}
			r.MaxResults, r.NextToken = requests.NewInteger(pageSize), token
		}, (*slb.Client).DescribeLoadBalancerListeners)
		if err != nil {
			return "", err
		}
		for _, l := range r.Listeners {
			if l.LoadBalancerId != loadBalancerID {
				continue
			}
			out := Listener{
				Port: l.ListenerPort, Protocol: strings.ToLower(l.ListenerProtocol), Scheduler: l.Scheduler, Status: l.Status,
				BackendPort: l.BackendServerPort, VServerGroupID: l.VServerGroupId,
			}
			switch out.Protocol {
			case "tcp":
				t := l.TCPListenerConfig
				out.HealthCheck = t.HealthCheck == "on" || t.HealthCheckSwitch == "on"
				out.Sticky, out.StickySeconds, out.MasterSlaveGroup = t.PersistenceTimeout > 0, t.PersistenceTimeout, t.MasterSlaveServerGroupId
				if t.ConnectionDrain == "on" {
					out.DrainSeconds = t.ConnectionDrainTimeout
				}
			case "udp":
				out.HealthCheck, out.MasterSlaveGroup = l.UDPListenerConfig.HealthCheck == "on", l.UDPListenerConfig.MasterSlaveServerGroupId
			case "http":
				h := l.HTTPListenerConfig
				out.HealthCheck, out.Sticky, out.StickySeconds = h.HealthCheck == "on", h.StickySession == "on", h.CookieTimeout
			case "https":
				h := l.HTTPSListenerConfig
				out.HealthCheck, out.Sticky, out.StickySeconds = h.HealthCheck == "on", h.StickySession == "on", h.CookieTimeout
			}
			all = append(all, out)
		}
		return r.NextToken, nil
	})
	return all, err
}

// Rule is one forwarding rule of an HTTP or HTTPS listener.
type Rule struct {
	ID, VServerGroupID, Domain, URL string
	Own                             bool // has settings of its own instead of the listener's
	Scheduler                       string
	HealthCheck                     bool
	Sticky                          bool
	StickySeconds                   int
}

// Rules lists the forwarding rules of a listener.
func (c *Client) Rules(ctx context.Context, loadBalancerID string, port int, protocol string) ([]Rule, error) {
	r, err := callSLB(ctx, c, read("DescribeRules"), slb.CreateDescribeRulesRequest, func(r *slb.DescribeRulesRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
		r.ListenerPort, r.ListenerProtocol = requests.NewInteger(port), protocol
	}, (*slb.Client).DescribeRules)
	if err != nil {
		return nil, err
	}
	var all []Rule
	for _, x := range r.Rules.Rule {
		all = append(all, Rule{
			ID: x.RuleId, VServerGroupID: x.VServerGroupId, Domain: x.Domain, URL: x.Url, Own: x.ListenerSync == "off",
			Scheduler: x.Scheduler, HealthCheck: x.HealthCheck == "on", Sticky: x.StickySession == "on", StickySeconds: x.CookieTimeout,
		})
	}
	return all, nil
}

// HealthStatus lists the health of the members behind every listener.
func (c *Client) HealthStatus(ctx context.Context, loadBalancerID string) ([]Health, error) {
	r, err := callSLB(ctx, c, read("DescribeHealthStatus"), slb.CreateDescribeHealthStatusRequest, func(r *slb.DescribeHealthStatusRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
	}, (*slb.Client).DescribeHealthStatus)
	if err != nil {
		return nil, err
	}
	var all []Health
	for _, b := range r.BackendServers.BackendServer {
		all = append(all, Health{ListenerPort: b.ListenerPort, Port: b.Port, Protocol: b.Protocol, ServerID: b.ServerId, ServerIP: b.ServerIp, Status: b.ServerHealthStatus})
	}
	return all, nil
}

// servers is the JSON form of members in a write. Everything known is given
// back: what is left out of a write is reset by it, and a weight left out of an
// addition means 100. A call takes at most 20.
func servers(members []Backend, port, weight bool) string {
	all := make([]map[string]string, 0, len(members))
	for _, b := range members {
		m := map[string]string{"ServerId": b.ServerID}
		for k, v := range map[string]string{"Type": b.Type, "ServerIp": b.ServerIP, "Description": b.Description} {
			if v != "" {
				m[k] = v
			}
		}
		if port {
			m["Port"] = strconv.Itoa(b.Port)
		}
		if weight {
			m["Weight"] = strconv.Itoa(b.Weight)
		} else {
			delete(m, "Description")
		}
		all = append(all, m)
	}
	j, _ := json.Marshal(all) // cannot fail for strings
	return string(j)
}

// SetDefault sets weights and descriptions of members of the default group. The
// other members stay as they are. None of the writes to groups takes a token:
// none is repeated here when its result is open.
func (c *Client) SetDefault(ctx context.Context, loadBalancerID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("SetBackendServers"), slb.CreateSetBackendServersRequest, func(r *slb.SetBackendServersRequest) {
		r.RegionId, r.LoadBalancerId, r.BackendServers = c.region, loadBalancerID, servers(members, false, true)
	}, (*slb.Client).SetBackendServers)
	return err
}

// AddDefault adds members to the default group.
func (c *Client) AddDefault(ctx context.Context, loadBalancerID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("AddBackendServers"), slb.CreateAddBackendServersRequest, func(r *slb.AddBackendServersRequest) {
		r.RegionId, r.LoadBalancerId, r.BackendServers = c.region, loadBalancerID, servers(members, false, true)
	}, (*slb.Client).AddBackendServers)
	return err
}

// RemoveDefault removes members from the default group.
func (c *Client) RemoveDefault(ctx context.Context, loadBalancerID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("RemoveBackendServers"), slb.CreateRemoveBackendServersRequest, func(r *slb.RemoveBackendServersRequest) {
		r.RegionId, r.LoadBalancerId, r.BackendServers = c.region, loadBalancerID, servers(members, false, false)
	}, (*slb.Client).RemoveBackendServers)
	return err
}

// SetGroup sets weights and descriptions of members of a VServer group.
func (c *Client) SetGroup(ctx context.Context, groupID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("SetVServerGroupAttribute"), slb.CreateSetVServerGroupAttributeRequest, func(r *slb.SetVServerGroupAttributeRequest) {
		r.RegionId, r.VServerGroupId, r.BackendServers = c.region, groupID, servers(members, true, true)
	}, (*slb.Client).SetVServerGroupAttribute)
	return err
}

// AddGroup adds members to a VServer group.
func (c *Client) AddGroup(ctx context.Context, groupID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("AddVServerGroupBackendServers"), slb.CreateAddVServerGroupBackendServersRequest, func(r *slb.AddVServerGroupBackendServersRequest) {
		r.RegionId, r.VServerGroupId, r.BackendServers = c.region, groupID, servers(members, true, true)
	}, (*slb.Client).AddVServerGroupBackendServers)
	return err
}

// RemoveGroup removes members from a VServer group.
func (c *Client) RemoveGroup(ctx context.Context, groupID string, members []Backend) error {
	_, err := callSLB(ctx, c, once("RemoveVServerGroupBackendServers"), slb.CreateRemoveVServerGroupBackendServersRequest, func(r *slb.RemoveVServerGroupBackendServersRequest) {
		r.RegionId, r.VServerGroupId, r.BackendServers = c.region, groupID, servers(members, true, false)
	}, (*slb.Client).RemoveVServerGroupBackendServers)
	return err
}
