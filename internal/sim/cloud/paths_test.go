package cloud_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

const (
	vpc   = "2016-04-28"
	dns   = "2015-01-09"
	ess   = "2014-08-28"
	rds   = "2014-08-15"
	mongo = "2015-12-01"
	polar = "2017-08-01"
)

func TestElasticAddresses(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, _ *machines, a *api) {
		one := a.ok(vpc, "AllocateEipAddress", "ClientToken", "t1")
		assert.Equal(t, one.Str("AllocationId"), a.ok(vpc, "AllocateEipAddress", "ClientToken", "t1").Str("AllocationId"), "one token, one address")
		id := one.Str("AllocationId")
		status := func() any {
			return a.ok(vpc, "DescribeEipAddresses", "AllocationId", id).At("EipAddresses.EipAddress.0.Status")
		}
		assert.Equal(t, "Available", status())
		a.no(404, "InvalidInstanceId.NotFound", vpc, "AssociateEipAddress", "AllocationId", id, "InstanceId", "i-none")
		a.no(404, "InvalidInstanceId.NotFound", vpc, "AssociateEipAddress", "AllocationId", id, "InstanceId", "eni-90")
		a.ok(vpc, "AssociateEipAddress", "AllocationId", id, "InstanceId", "eni-90", "InstanceType", "NetworkInterface")
		assert.Equal(t, "Associating", status())
		a.no(400, "IncorrectEipStatus", vpc, "ReleaseEipAddress", "AllocationId", id)
		time.Sleep(3 * time.Second)
		assert.Equal(t, "InUse", status())
		two := a.ok(vpc, "AllocateEipAddress").Str("AllocationId")
		a.no(400, "InvalidAssociation.Duplicated", vpc, "AssociateEipAddress", "AllocationId", two, "InstanceId", "eni-90", "InstanceType", "NetworkInterface")
		assert.Equal(t, 1, a.ok(vpc, "DescribeEipAddresses", "AssociatedInstanceType", "NetworkInterface", "AssociatedInstanceId", "eni-90").Len("EipAddresses.EipAddress"))
		assert.Equal(t, 0, a.ok(vpc, "DescribeEipAddresses", "AssociatedInstanceType", "EcsInstance", "AssociatedInstanceId", "eni-90").Len("EipAddresses.EipAddress"))
		a.no(400, "MissingParameter", vpc, "DescribeEipAddresses", "AssociatedInstanceId", "eni-90")
		a.no(400, "IncorrectEipStatus", vpc, "UnassociateEipAddress", "AllocationId", id, "InstanceId", "i-other")
		a.ok(vpc, "UnassociateEipAddress", "AllocationId", id, "InstanceId", "eni-90")
		time.Sleep(3 * time.Second)
		a.ok(vpc, "ReleaseEipAddress", "AllocationId", id)
		a.no(404, "InvalidAllocationId.NotFound", vpc, "ReleaseEipAddress", "AllocationId", id)
		assert.Len(t, c.EIPs(), 1)
	})
}

func TestPathLists(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, _ *machines, a *api) {
		for n := range 55 {
			c.AddHaVip(cloud.HaVip{ID: fmt.Sprintf("havip-%d", n), Address: fmt.Sprintf("172.31.9.%d", n)})
			c.AddRoute(cloud.Route{Destination: fmt.Sprintf("10.%d.0.0/16", n), NextHopID: "i-web90"})
		}
		assert.Equal(t, 5, a.ok(vpc, "DescribeHaVips", "PageNumber", "2", "PageSize", "50").Len("HaVips.HaVip"))
		a.no(400, "InvalidParameter", vpc, "DescribeHaVips", "PageSize", "51")
		assert.Equal(t, 1, a.ok(vpc, "DescribeHaVips", "Filter.1.Key", "HaVipId", "Filter.1.Value.1", "havip-7").Len("HaVips.HaVip"))
		a.no(400, "InvalidParameter", vpc, "DescribeHaVips", "Filter.1.Key", "Color", "Filter.1.Value.1", "red")
		table := a.ok(vpc, "DescribeRouteTableList", "VpcId", "vpc-sim").Str("RouterTableList.RouterTableListType.0.RouteTableId")
		first := a.ok(vpc, "DescribeRouteEntryList", "RouteTableId", table, "NextHopId", "i-web90", "MaxResult", "50")
		assert.Equal(t, 50, first.Len("RouteEntrys.RouteEntry"))
		rest := a.ok(vpc, "DescribeRouteEntryList", "RouteTableId", table, "NextHopId", "i-web90", "MaxResult", "50", "NextToken", first.Str("NextToken"))
		assert.Equal(t, 5, rest.Len("RouteEntrys.RouteEntry"))
		assert.Equal(t, "10.50.0.0/16", rest.At("RouteEntrys.RouteEntry.0.DestinationCidrBlock"))
		a.no(404, "InvalidRouteTableId.NotFound", vpc, "DescribeRouteEntryList", "RouteTableId", "vtb-none")
		a.no(400, "MissingParameter", vpc, "DescribeForwardTableEntries")
		a.no(400, "InvalidForwardTableId.NotFound", vpc, "DescribeForwardTableEntries", "ForwardTableId", "ftb-none")

		c.AddDNSRecord(cloud.DNSRecord{Domain: "example.com", RR: "a", Value: "1.2.3.4"})
		c.AddDNSRecord(cloud.DNSRecord{Domain: "example.com", RR: "b", Value: "11.2.3.40"})
		assert.Equal(t, 2, a.ok(dns, "DescribeDomainRecords", "DomainName", "example.com", "SearchMode", "ADVANCED", "ValueKeyWord", "1.2.3.4").Len("DomainRecords.Record"), "the search is fuzzy")
		a.no(400, "InvalidDomainName.NoExist", dns, "DescribeDomainRecords", "DomainName", "example.org")
		a.no(400, "UnsupportedParameter", dns, "DescribeDomainRecords", "DomainName", "example.com", "Direction", "ASC")

		c.AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-web90"})
		a.ok(ess, "EnterStandby", "ScalingGroupId", "asg-1", "InstanceId.1", "i-web90")
		a.no(400, "IncorrectInstanceStatus", ess, "SetInstancesProtection", "ScalingGroupId", "asg-1", "InstanceId.1", "i-web90", "ProtectedFromScaleIn", "true")
		a.no(404, "InvalidInstanceId.NotFound", ess, "ExitStandby", "ScalingGroupId", "asg-1", "InstanceId.1", "i-web89")
		a.no(404, "InvalidScalingGroupId.NotFound", ess, "ExitStandby", "ScalingGroupId", "asg-2", "InstanceId.1", "i-web90")
	})
}

func TestDatabaseAllowLists(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, _ *machines, a *api) {
		c.AddDatabase(cloud.Database{Product: "rds", ID: "rm-1", AllowLists: map[string][]string{"app": {"172.31.0.90"}}})
		c.AddDatabase(cloud.Database{Product: "dds", ID: "dds-1", Type: "sharding"})
		a.no(404, "InvalidDBInstanceId.NotFound", rds, "DescribeDBInstanceIPArrayList", "DBInstanceId", "rm-2")
		a.no(400, "InvalidSecurityIPList.Duplicate", rds, "ModifySecurityIps", "DBInstanceId", "rm-1", "DBInstanceIPArrayName", "app", "SecurityIps", "172.31.0.90", "ModifyMode", "Append")
		a.no(400, "InvalidSecurityIPList.Format", rds, "ModifySecurityIps", "DBInstanceId", "rm-1", "SecurityIps", "172.31.0.300")
		a.no(400, "InvalidModifyMode", rds, "ModifySecurityIps", "DBInstanceId", "rm-1", "SecurityIps", "172.31.0.3", "ModifyMode", "Add")
		assert.Equal(t, []string{"172.31.0.90"}, c.AllowList("rds", "rm-1", "app"))
		a.ok(rds, "ModifySecurityIps", "DBInstanceId", "rm-1", "DBInstanceIPArrayName", "app", "SecurityIps", "172.31.0.0/24")
		assert.Equal(t, []string{"172.31.0.0/24"}, c.AllowList("rds", "rm-1", "app"), "without a mode the list is replaced")
		assert.Equal(t, 0, a.ok(mongo, "DescribeDBInstances").Len("DBInstances.DBInstance"), "sharded instances are asked for by their type")
		assert.Equal(t, 1, a.ok(mongo, "DescribeDBInstances", "DBInstanceType", "sharding").Len("DBInstances.DBInstance"))
		a.no(400, "InvalidPageSize", polar, "DescribeDBClusters", "PageSize", "40")
	})
}

func TestForwardingRules(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, _ *machines, a *api) {
		c.AddLoadBalancer(cloud.LoadBalancer{
			ID: "lb-1", Listeners: []cloud.Listener{{Port: 80, Protocol: "http", BackendPort: 80}, {Port: 90, Protocol: "tcp", BackendPort: 90}},
			Groups: []cloud.VServerGroup{{ID: "rsp-1"}, {ID: "rsp-2"}},
		})
		changes := 0
		c.OnChange(func() { changes++ })
		create := func(list string) []string {
			return []string{"LoadBalancerId", "lb-1", "ListenerPort", "80", "RuleList", list}
		}
		rule := a.ok(slb, "CreateRules", create(`[{"RuleName":"pay","Domain":"pay.example.com","VServerGroupId":"rsp-1"}]`)...).Str("Rules.Rule.0.RuleId")
		a.no(400, "ServiceIsConfiguring", slb, "CreateRules", create(`[{"RuleName":"x","Domain":"x.example.com","VServerGroupId":"rsp-1"}]`)...)
		time.Sleep(3 * time.Second)
		for list, code := range map[string]string{
			`[{"RuleName":"pay","Domain":"pay.example.com","VServerGroupId":"rsp-2"}]`: "DomainExist",
			`[{"RuleName":"x","VServerGroupId":"rsp-1"}]`:                              "MissingParameter",
			`[{"Domain":"x.example.com","VServerGroupId":"rsp-1"}]`:                    "MissingParameter",
			`[{"RuleName":"x","Domain":"x.example.com","VServerGroupId":"rsp-9"}]`:     "InvalidParameter",
			`[{"RuleName":"x","Url":"x","VServerGroupId":"rsp-1"}]`:                    "InvalidParameter.Url",
			`[{"RuleName":"x","Colour":"red"}]`:                                        "InvalidParameter",
			`[]`:                                                                       "InvalidParameter",
		} {
			assert.Equalf(t, code, a.refused(slb, "CreateRules", create(list)...), "%s", list)
		}
		a.no(400, "ListenerNotExist", slb, "CreateRules", "LoadBalancerId", "lb-1", "ListenerPort", "90", "RuleList", `[{"RuleName":"x","Domain":"x.example.com","VServerGroupId":"rsp-1"}]`)
		assert.Equal(t, 1, changes)
		assert.Equal(t, 1, a.ok(slb, "DescribeRules", "LoadBalancerId", "lb-1", "ListenerPort", "80").Len("Rules.Rule"))
		a.no(404, "InvalidRuleId.NotFound", slb, "DeleteRules", "RuleIds", `["rule-none"]`)
		a.ok(slb, "DeleteRules", "RuleIds", `["`+rule+`"]`)
		assert.Equal(t, 2, changes)
		assert.Equal(t, 0, a.ok(slb, "DescribeRules", "LoadBalancerId", "lb-1", "ListenerPort", "80").Len("Rules.Rule"))

		setting := `[{"LogType":"layer7","LogProject":"ops","LogStore":"slb"}]`
		a.no(404, "InvalidParameter.LogStore", slb, "SetAccessLogsDownloadAttribute", "LoadBalancerId", "lb-1", "LogsDownloadAttributes", setting)
		c.AddLogStore("ops", "slb")
		a.ok(slb, "SetAccessLogsDownloadAttribute", "LoadBalancerId", "lb-1", "LogsDownloadAttributes", setting)
		got := a.ok(slb, "DescribeAccessLogsDownloadAttribute", "LoadBalancerId", "lb-1")
		assert.Equal(t, "ops", got.At("LogsDownloadAttributes.LogsDownloadAttribute.0.LogProject"))
		a.ok(slb, "DeleteAccessLogsDownloadAttribute", "LoadBalancerId", "lb-1", "LogsDownloadAttributes", setting)
		_, _, on := c.AccessLogOf("lb-1")
		assert.False(t, on)
	})
}

// refused returns the code with which a request is refused.
func (a *api) refused(version, action string, kv ...string) string {
	a.t.Helper()
	r := a.call(version, action, kv...)
	return r.Str("Code")
}
