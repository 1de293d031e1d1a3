package alicloud

import (
	"slices"
	"strings"
)

// A Call is one action this package sends, and what an account must be allowed
// to do for it. It has the fields of ecs.Permission and slb.Permission, in the
// same order.
type Call struct {
	Action  string // of RAM, as "ecs:RunInstances"
	Purpose string // what it is needed for
	Write   bool   // changes something
	Own     bool   // is used only on what carries this tool's tags
	Scope   string // kind of resource it can be limited to: "instance", "balancer", "group", "logstore"; "" = none
}

// ramServices are the products whose permissions begin with another word than
// their endpoints.
var ramServices = map[string]string{"r-kvstore": "kvstore", "sls": "log"}

// calls are all actions of this package, by product and purpose: * marks a
// write, + one that is used on our own resources only. A test holds the list
// against the source.
var calls = []struct{ product, purpose, scope, actions string }{
	{"ecs", "inventory", "", `DescribeInstances DescribeInstanceRamRole DescribeUserData DescribeDisks
		DescribeImages DescribeSnapshots DescribeSnapshotGroups DescribeAvailableResource DescribePrice`},
	{"ecs", "inventory", "", `DescribeSecurityGroups DescribeSecurityGroupAttribute DescribeAccountAttributes DescribeInstanceHistoryEvents`},
	{"ecs", "snapshot", "instance", `CreateSnapshot* CreateSnapshotGroup*`},
	{"ecs", "snapshot", "", `DeleteSnapshot+ DeleteSnapshotGroup+ ModifySnapshotAttribute+ TagResources*`},
	{"ecs", "image", "", `CreateImage* DeleteImage+`},
	{"ecs", "clone", "", `RunInstances*`},
	{"ecs", "clone", "instance", `StartInstance+ StopInstance+ DeleteInstance+ ModifyInstanceAutoReleaseTime+ JoinSecurityGroup+ LeaveSecurityGroup+`},
	{"ecs", "rescue", "instance", `RebootInstance* ReplaceSystemDisk* ResetDisk* GetInstanceConsoleOutput GetInstanceScreenshot`},
	{"ecs", "assistant", "instance", `RunCommand* DescribeInvocationResults DescribeCloudAssistantStatus`},
	{"slb", "clb", "", `DescribeLoadBalancers DescribeLoadBalancerAttribute DescribeLoadBalancerListeners DescribeVServerGroups
		DescribeVServerGroupAttribute DescribeMasterSlaveServerGroups DescribeMasterSlaveServerGroupAttribute DescribeRules
		DescribeHealthStatus`},
	{"slb", "clb", "balancer", `AddBackendServers* SetBackendServers* RemoveBackendServers* AddVServerGroupBackendServers*
		SetVServerGroupAttribute* RemoveVServerGroupBackendServers*`},
	{"slb", "rules", "balancer", `CreateRules*`},
	{"slb", "traffic", "", `DescribeAccessLogsDownloadAttribute`},
	{"alb", "alb", "", `ListLoadBalancers ListListeners ListRules ListServerGroups ListServerGroupServers GetListenerHealthStatus ListAsynJobs`},
	{"alb", "alb", "group", `UpdateServerGroupServersAttribute* AddServersToServerGroup* RemoveServersFromServerGroup*`},
	{"nlb", "nlb", "", `ListLoadBalancers ListListeners ListServerGroups ListServerGroupServers GetListenerHealthStatus GetJobStatus`},
	{"nlb", "nlb", "group", `UpdateServerGroupServersAttribute* AddServersToServerGroup* RemoveServersFromServerGroup*`},
	{"sls", "traffic", "logstore", `GetLogs`},
	{"vpc", "paths", "", `DescribeEipAddresses DescribeNatGateways DescribeForwardTableEntries DescribeHaVips DescribeRouteTableList DescribeRouteEntryList`},
	{"vpc", "inventory", "", `DescribeVSwitches`},
	{"ess", "paths", "", `DescribeScalingInstances`},
	{"alidns", "domains", "", `DescribeDomains DescribeDomainRecords`},
	{"rds", "allow lists", "", `DescribeDBInstances DescribeDBInstanceIPArrayList`},
	{"r-kvstore", "allow lists", "", `DescribeInstances DescribeSecurityIps`},
	{"dds", "allow lists", "", `DescribeDBInstances DescribeSecurityIps`},
	{"polardb", "allow lists", "", `DescribeDBClusters DescribeDBClusterAccessWhitelist`},
	{"sts", "role", "", `AssumeRole`},
}

// Calls lists what the calls of some products need, in the order of purposes.
func Calls(products ...string) []Call {
	var all []Call
	for _, c := range calls {
		if !slices.Contains(products, c.product) {
			continue
		}
		for name := range strings.FieldsSeq(c.actions) {
			plain := strings.TrimRight(name, "*+")
			all = append(all, Call{
				Action: Permission(c.product, plain), Purpose: c.purpose, Write: plain != name,
				Own: strings.HasSuffix(name, "+"), Scope: c.scope,
			})
		}
	}
	return all
}

// Permission is the name under which RAM knows an action.
func Permission(product, action string) string {
	if product == "sls" && action == "GetLogs" {
		return "log:GetLogStoreLogs"
	}
	if p := ramServices[product]; p != "" {
		product = p
	}
	return product + ":" + action
}

// Denied reports whether the account lacks the permission, rather than valid
// credentials.
func (e *Error) Denied() bool {
	switch e.Code {
	case "Forbidden.RAM", "Forbidden", "Forbidden.Unauthorized", "Forbidden.NoPermission", "NoPermission":
		return true
	case "Unauthorized": // of the log service, which also says so of an unknown key
		return e.HTTPStatus == 403
	}
	return false
}
