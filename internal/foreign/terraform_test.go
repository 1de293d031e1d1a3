package foreign

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// terraform is one run of Terraform with Alibaba's provider: what it has in
// its state, by the names of the configuration.
type terraform struct {
	replay
	vpc, vsw, group, snapshot, image, lb, vgroup string
	instances                                    []string
}

// servers is how the provider writes a list of backends: not quite JSON, with
// the numbers as strings.
func servers(port, weight string, ids ...string) string {
	out := ""
	for _, id := range ids {
		if out != "" {
			out += ","
		}
		if port == "" {
			out += fmt.Sprintf("{'ServerId':'%s','Weight':'%s', 'Type': 'ecs'}", id, weight)
		} else {
			out += fmt.Sprintf("{'ServerId':'%s','Port':'%s','Weight':'%s', 'Type': 'ecs'}", id, port, weight)
		}
	}
	return "[" + out + "]"
}

// apply makes everything, each with the calls and the waits of its resource.
func (tf *terraform) apply() {
	t, s := tf.t, tf.s
	// alicloud_vpc, alicloud_vswitch: common parameters in the query, the rest in the body.
	tf.form = true
	v := tf.ok(vpcAPI, "CreateVpc", "RegionId", s.Region, "ClientToken", "TF-CreateVpc-1", "CidrBlock", "172.16.0.0/12", "VpcName", "tf")
	tf.vpc = str(t, v, "VpcId")
	assert.NotEmpty(t, str(t, v, "RouteTableId"))
	wait(t, "VPC", func() bool {
		return str(t, tf.ok(vpcAPI, "DescribeVpcAttribute", "RegionId", s.Region, "VpcId", tf.vpc), "Status") == "Available"
	})
	tf.vsw = str(t, tf.ok(vpcAPI, "CreateVSwitch", "RegionId", s.Region, "ClientToken", "TF-CreateVSwitch-1", "VpcId", tf.vpc, "ZoneId", s.Stock.ZoneID, "CidrBlock", "172.16.0.0/21", "VSwitchName", "tf"), "VSwitchId")
	wait(t, "vSwitch", func() bool {
		return str(t, tf.ok(vpcAPI, "DescribeVSwitchAttributes", "RegionId", s.Region, "VSwitchId", tf.vsw), "Status") == "Available"
	})
	tf.form = false
	tf.group = str(t, tf.ok(ecsAPI, "CreateSecurityGroup", "ClientToken", "TF-CreateSecurityGroup-1", "VpcId", tf.vpc, "SecurityGroupName", "tf"), "SecurityGroupId")

	// alicloud_instance, twice.
	for n := range 2 {
		v := tf.ok(ecsAPI, "RunInstances", "ClientToken", fmt.Sprint("TF-RunInstances-", n), "ImageId", s.Stock.ImageID, "InstanceType", s.Stock.InstanceType, "DryRun", "false",
			"InstanceName", "tf", "VSwitchId", tf.vsw, "SecurityGroupIds.1", tf.group, "SystemDisk.Category", "cloud_essd", "SystemDisk.Size", "40", "InternetMaxBandwidthOut", "0",
			"InstanceChargeType", "PostPaid", "IoOptimized", "optimized", "SpotStrategy", "NoSpot", "DeletionProtection", "false", "Tag.1.Key", "by", "Tag.1.Value", "terraform")
		id := str(t, v, "InstanceIdSets.InstanceIdSet.0")
		tf.instances = append(tf.instances, id)
		wait(t, "Running", func() bool { return str(t, tf.instance(id), "Status") == "Running" })
	}

	// alicloud_snapshot and alicloud_image.
	disk := str(t, tf.ok(ecsAPI, "DescribeDisks", "InstanceId", tf.instances[0], "DiskType", "system"), "Disks.Disk.0.DiskId")
	tf.snapshot = str(t, tf.ok(ecsAPI, "CreateSnapshot", "ClientToken", "TF-CreateSnapshot-1", "DiskId", disk, "SnapshotName", "tf"), "SnapshotId")
	wait(t, "snapshot", func() bool {
		return str(t, tf.ok(ecsAPI, "DescribeSnapshots", "SnapshotIds", `["`+tf.snapshot+`"]`), "Snapshots.Snapshot.0.Status") == "accomplished"
	})
	tf.image = str(t, tf.ok(ecsAPI, "CreateImage", "ClientToken", "TF-CreateImage-1", "SnapshotId", tf.snapshot, "ImageName", "tf", "Architecture", "x86_64"), "ImageId")
	wait(t, "image", func() bool { // it waits for Usable, whatever Status says
		return at(t, tf.ok(ecsAPI, "DescribeImages", "ImageId", tf.image, "Status", "ALL"), "Images.Image.0.Usable") == true
	})

	// alicloud_slb_load_balancer, _backend_server, _server_group and its attachment.
	tf.form = true
	tf.lb = str(t, tf.ok(slbAPI, "CreateLoadBalancer", "RegionId", s.Region, "ClientToken", "TF-CreateLoadBalancer-1", "LoadBalancerName", "tf", "AddressType", "intranet",
		"VSwitchId", tf.vsw, "LoadBalancerSpec", "slb.s1.small", "PayType", "PayOnDemand", "DeleteProtection", "off", "ModificationProtectionStatus", "NonProtection"), "LoadBalancerId")
	wait(t, "balancer", func() bool {
		return str(t, tf.ok(slbAPI, "DescribeLoadBalancerAttribute", "RegionId", s.Region, "LoadBalancerId", tf.lb), "LoadBalancerStatus") == "active"
	})
	tf.form = false
	tf.ok(slbAPI, "AddBackendServers", "LoadBalancerId", tf.lb, "BackendServers", servers("", "100", tf.instances...))
	tf.vgroup = str(t, tf.ok(slbAPI, "CreateVServerGroup", "LoadBalancerId", tf.lb, "VServerGroupName", "tf", "BackendServers", "[]"), "VServerGroupId")
	tf.ok(slbAPI, "SetVServerGroupAttribute", "VServerGroupId", tf.vgroup, "VServerGroupName", "tf")
	tf.ok(slbAPI, "AddVServerGroupBackendServers", "VServerGroupId", tf.vgroup, "BackendServers", servers("8080", "55", tf.instances...))
}

// instance is what every read of an instance begins with.
func (tf *terraform) instance(id string) any {
	return at(tf.t, tf.ok(ecsAPI, "DescribeInstances", "InstanceIds", `["`+id+`"]`, "AdditionalAttributes.1", "META_OPTIONS", "AdditionalAttributes.2", "DDH_CLUSTER",
		"AdditionalAttributes.3", "NETWORK_PRIMARY_ENI_IP", "AdditionalAttributes.4", "CPU_OPTIONS_TOPOLOGY_TYPE", "PageNumber", "1", "PageSize", "100"), "Instances.Instance.0")
}

// refresh reads all there is, as each plan does, and returns what differs from
// the configuration: what the plan would change.
func (tf *terraform) refresh() []string {
	t, s := tf.t, tf.s
	diff := []string{}
	same := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			diff = append(diff, fmt.Sprintf("%s %v → %v", what, got, want))
		}
	}
	tf.form = true
	v := tf.ok(vpcAPI, "DescribeVpcAttribute", "RegionId", s.Region, "VpcId", tf.vpc)
	same("vpc name", v["VpcName"], "tf")
	same("vpc range", v["CidrBlock"], "172.16.0.0/12")
	tables := tf.ok(vpcAPI, "DescribeRouteTableList", "RegionId", s.Region, "VpcId", tf.vpc, "RouterType", "VRouter", "RouterId", str(t, v, "VRouterId"), "PageNumber", "1", "PageSize", "50")
	same("route table", at(t, tables, "RouterTableList.RouterTableListType.0.RouteTableType"), "System")
	v = tf.ok(vpcAPI, "DescribeVSwitchAttributes", "RegionId", s.Region, "VSwitchId", tf.vsw)
	same("vswitch", []any{v["VSwitchName"], v["CidrBlock"], v["ZoneId"], v["VpcId"]}, []any{"tf", "172.16.0.0/21", s.Stock.ZoneID, tf.vpc})
	tf.form = false
	v = tf.ok(ecsAPI, "DescribeSecurityGroupAttribute", "SecurityGroupId", tf.group, "Direction", "all")
	same("group", []any{v["SecurityGroupName"], v["VpcId"], v["InnerAccessPolicy"]}, []any{"tf", tf.vpc, "Accept"})
	v = tf.ok(ecsAPI, "DescribeSecurityGroups", "SecurityGroupId", tf.group)
	same("group type", at(t, v, "SecurityGroups.SecurityGroup.0.SecurityGroupType"), "normal")

	for _, id := range tf.instances {
		i := tf.instance(id)
		same("instance", []any{at(t, i, "InstanceName"), at(t, i, "InstanceType"), at(t, i, "ImageId"), at(t, i, "Status"), at(t, i, "VpcAttributes.VSwitchId"), at(t, i, "InstanceChargeType")},
			[]any{"tf", s.Stock.InstanceType, s.Stock.ImageID, "Running", tf.vsw, "PostPaid"})
		same("instance tags", at(t, i, "Tags.Tag.0.TagValue"), "terraform")
		same("instance metadata", at(t, i, "MetadataOptions.HttpTokens"), "optional")
		d := tf.ok(ecsAPI, "DescribeDisks", "InstanceId", id, "DiskType", "system")
		same("system disk", []any{at(t, d, "Disks.Disk.0.Category"), at(t, d, "Disks.Disk.0.Size")}, []any{"cloud_essd", 40})
		same("user data", tf.ok(ecsAPI, "DescribeUserData", "InstanceId", id)["UserData"], "")
		n := tf.ok(ecsAPI, "DescribeNetworkInterfaces", "InstanceId", id, "Type", "Primary", "PageNumber", "1", "PageSize", "100")
		assert.Equal(t, str(t, i, "VpcAttributes.PrivateIpAddress.IpAddress.0"), str(t, n, "NetworkInterfaceSets.NetworkInterfaceSet.0.PrivateIpAddress"))
		// An empty list is an error of the provider's in these two.
		assert.Equal(t, id, str(t, tf.ok(ecsAPI, "DescribeInstanceMaintenanceAttributes", "InstanceId.1", id), "MaintenanceAttributes.MaintenanceAttribute.0.InstanceId"))
		assert.Equal(t, id, str(t, tf.ok(ecsAPI, "DescribeInstanceAttachmentAttributes", "InstanceIds", `["`+id+`"]`), "Instances.Instance.0.InstanceId"))
		assert.Equal(t, id, tf.ok(ecsAPI, "DescribeInstanceAttribute", "InstanceId", id)["InstanceId"])
		assert.Empty(t, at(t, tf.ok(ecsAPI, "DescribeInstanceRamRole", "InstanceIds", `["`+id+`"]`), "InstanceRamRoleSets.InstanceRamRoleSet.0.RamRoleName"))
	}
	v = tf.ok(ecsAPI, "DescribeSnapshots", "SnapshotIds", `["`+tf.snapshot+`"]`)
	same("snapshot", at(t, v, "Snapshots.Snapshot.0.SnapshotName"), "tf")
	v = tf.ok(ecsAPI, "DescribeImages", "ImageId", tf.image, "Status", "ALL")
	same("image", []any{at(t, v, "Images.Image.0.ImageName"), at(t, v, "Images.Image.0.Architecture"), at(t, v, "Images.Image.0.DiskDeviceMappings.DiskDeviceMapping.0.SnapshotId")}, []any{"tf", "x86_64", tf.snapshot})

	tf.form = true
	v = tf.ok(slbAPI, "DescribeLoadBalancerAttribute", "RegionId", s.Region, "LoadBalancerId", tf.lb)
	same("balancer", []any{v["LoadBalancerName"], v["LoadBalancerSpec"], v["AddressType"], v["VSwitchId"], v["DeleteProtection"], v["ModificationProtectionStatus"], v["LoadBalancerStatus"]},
		[]any{"tf", "slb.s1.small", "intranet", tf.vsw, "off", "NonProtection", "active"})
	assert.Empty(t, at(t, tf.ok(slbAPI, "ListTagResources", "RegionId", s.Region, "ResourceType", "instance", "ResourceId.1", tf.lb), "TagResources.TagResource"))
	tf.form = false
	members := at(t, v, "BackendServers.BackendServer").([]any)
	same("backends", len(members), len(tf.instances))
	for _, m := range members {
		same("backend weight", at(t, m, "Weight"), 100)
	}
	v = tf.ok(slbAPI, "DescribeVServerGroupAttribute", "VServerGroupId", tf.vgroup)
	same("group name", v["VServerGroupName"], "tf")
	assert.Empty(t, at(t, tf.ok(slbAPI, "ListTagResources", "ResourceType", "vservergroup", "ResourceId.1", tf.vgroup), "TagResources.TagResource"))
	members = at(t, v, "BackendServers.BackendServer").([]any)
	same("attachments", len(members), len(tf.instances))
	for _, m := range members {
		same("attachment", []any{at(t, m, "Port"), at(t, m, "Weight")}, []any{8080, 55})
	}
	return diff
}

// destroy removes everything; each resource is gone when its read says so.
func (tf *terraform) destroy() {
	t, s := tf.t, tf.s
	tf.ok(slbAPI, "RemoveVServerGroupBackendServers", "VServerGroupId", tf.vgroup, "BackendServers", servers("8080", "55", tf.instances...))
	tf.ok(slbAPI, "RemoveBackendServers", "LoadBalancerId", tf.lb, "BackendServers", servers("", "100", tf.instances...))
	tf.ok(slbAPI, "DeleteVServerGroup", "VServerGroupId", tf.vgroup)
	_, code := tf.send(slbAPI, "DescribeVServerGroupAttribute", "VServerGroupId", tf.vgroup)
	assert.NotEmpty(t, code)
	tf.form = true
	tf.ok(slbAPI, "DeleteLoadBalancer", "RegionId", s.Region, "LoadBalancerId", tf.lb)
	tf.no("InvalidLoadBalancerId.NotFound", slbAPI, "DescribeLoadBalancerAttribute", "RegionId", s.Region, "LoadBalancerId", tf.lb)
	tf.form = false
	tf.no("SnapshotCreatedImage", ecsAPI, "DeleteSnapshot", "SnapshotId", tf.snapshot)
	tf.ok(ecsAPI, "DeleteImage", "ImageId", tf.image, "Force", "false")
	assert.Empty(t, at(t, tf.ok(ecsAPI, "DescribeImages", "ImageId", tf.image, "Status", "ALL"), "Images.Image"))
	tf.ok(ecsAPI, "DeleteSnapshot", "SnapshotId", tf.snapshot)
	assert.Empty(t, at(t, tf.ok(ecsAPI, "DescribeSnapshots", "SnapshotIds", `["`+tf.snapshot+`"]`), "Snapshots.Snapshot"))
	for _, id := range tf.instances {
		tf.ok(ecsAPI, "DeleteInstance", "InstanceId", id, "Force", "true")
		wait(t, "gone", func() bool {
			return len(at(t, tf.ok(ecsAPI, "DescribeInstances", "InstanceIds", `["`+id+`"]`, "PageNumber", "1", "PageSize", "100"), "Instances.Instance").([]any)) == 0
		})
	}
	tf.ok(ecsAPI, "DeleteSecurityGroup", "SecurityGroupId", tf.group)
	tf.no("InvalidSecurityGroupId.NotFound", ecsAPI, "DescribeSecurityGroupAttribute", "SecurityGroupId", tf.group, "Direction", "all")
	tf.form = true
	tf.ok(vpcAPI, "DeleteVSwitch", "RegionId", s.Region, "VSwitchId", tf.vsw)
	assert.Empty(t, tf.ok(vpcAPI, "DescribeVSwitchAttributes", "RegionId", s.Region, "VSwitchId", tf.vsw)["VSwitchId"])
	tf.ok(vpcAPI, "DeleteVpc", "RegionId", s.Region, "VpcId", tf.vpc)
	tf.no("InvalidVpcId.NotFound", vpcAPI, "DescribeVpcAttribute", "RegionId", s.Region, "VpcId", tf.vpc)
}

// TestTerraform replays plan, apply, a second plan without changes, a plan
// that sees a colleague's change, its repair, and destroy.
func TestTerraform(t *testing.T) {
	t.Parallel()
	s := serve(t)
	tf := &terraform{replay: replay{t: t, s: s, secret: s.Secret}}
	// The data source of a plan: an unknown instance is an empty list.
	assert.Empty(t, at(t, tf.ok(ecsAPI, "DescribeInstances", "InstanceIds", `["i-none"]`, "PageNumber", "1", "PageSize", "100"), "Instances.Instance"))
	tf.apply()
	require.Empty(t, tf.refresh(), "the second plan has changes")
	require.Empty(t, tf.refresh())

	colleague := replay{t: t, s: s, secret: s.Secret}
	colleague.ok(slbAPI, "SetVServerGroupAttribute", "VServerGroupId", tf.vgroup, "BackendServers", servers("8080", "0", tf.instances[0]))
	assert.Equal(t, []string{"attachment [8080 0] → [8080 55]"}, tf.refresh())
	// The provider changes a weight by removing the member and adding it.
	tf.ok(slbAPI, "RemoveVServerGroupBackendServers", "VServerGroupId", tf.vgroup, "BackendServers", servers("8080", "0", tf.instances[0]))
	tf.ok(slbAPI, "AddVServerGroupBackendServers", "VServerGroupId", tf.vgroup, "BackendServers", servers("8080", "55", tf.instances[0]))
	colleague.ok(slbAPI, "SetBackendServers", "LoadBalancerId", tf.lb, "BackendServers", `[{"ServerId":"`+tf.instances[1]+`","Weight":7}]`)
	assert.Equal(t, []string{"backend weight 7 → 100"}, tf.refresh())
	tf.ok(slbAPI, "SetBackendServers", "LoadBalancerId", tf.lb, "BackendServers", servers("", "100", tf.instances...))
	assert.Empty(t, tf.refresh())
	tf.destroy()
	end := s.end()
	assert.Empty(t, end.left())
	assert.GreaterOrEqual(t, len(end.Calls), 40)

	wrong := serve(t)
	for _, form := range []bool{true, false} {
		replay{t: t, s: wrong, secret: "another", form: form}.no("SignatureDoesNotMatch", ecsAPI, "DescribeRegions")
	}
	wrong.stop()
	assert.Empty(t, wrong.last.Calls)
}

// TestCommandLine replays what the official command line sends: it checks names
// and required parameters itself, and no types; all goes into the query of a
// POST.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	s := serve(t)
	aliyun := replay{t: t, s: s, secret: s.Secret}
	regions := aliyun.ok(ecsAPI, "DescribeRegions")
	assert.Equal(t, s.Region, str(t, regions, "Regions.Region.0.RegionId"))
	v := aliyun.ok(ecsAPI, "RunInstances", "ImageId", s.Stock.ImageID, "InstanceType", s.Stock.InstanceType, "VSwitchId", s.Stock.VSwitchID, "SecurityGroupId", s.Stock.SecurityGroupID, "Amount", "2")
	ids := at(t, v, "InstanceIdSets.InstanceIdSet").([]any)
	require.Len(t, ids, 2)
	both := fmt.Sprintf(`["%s","%s"]`, ids...)
	wait(t, "Running", func() bool { // --waiter expr='Instances.Instance[0].Status' to=Running
		return str(t, aliyun.ok(ecsAPI, "DescribeInstances", "InstanceIds", both), "Instances.Instance.1.Status") == "Running"
	})
	// --pager: page after page of one instance each.
	seen := map[string]bool{}
	for page := 1; page <= 2; page++ {
		v := aliyun.ok(ecsAPI, "DescribeInstances", "InstanceIds", both, "PageNumber", fmt.Sprint(page), "PageSize", "1")
		assert.EqualValues(t, 2, v["TotalCount"])
		seen[str(t, v, "Instances.Instance.0.InstanceId")] = true
	}
	assert.Len(t, seen, 2)
	aliyun.ok(ecsAPI, "DeleteInstances", "InstanceId.1", ids[0].(string), "InstanceId.2", ids[1].(string), "Force", "true")
	wait(t, "gone", func() bool {
		return len(at(t, aliyun.ok(ecsAPI, "DescribeInstances", "InstanceIds", both), "Instances.Instance").([]any)) == 0
	})
	assert.Empty(t, s.end().left())

	// What it lets through is refused here, and told at the end.
	s = serve(t)
	aliyun.s = s
	aliyun.no("InvalidParameter", ecsAPI, "RunInstances", "ImageId", s.Stock.ImageID, "InstanceType", s.Stock.InstanceType, "VSwitchId", s.Stock.VSwitchID, "SecurityGroupId", s.Stock.SecurityGroupID, "Amount", "abc")
	aliyun.no("InvalidAction", ecsAPI, "DescribeNothing")
	aliyun.no("UnsupportedParameter", ecsAPI, "DescribeRegions", "Nothing", "1")
	aliyun.no("MissingParameter", slbAPI, "DescribeLoadBalancerAttribute")
	s.stop()
	assert.Len(t, s.last.Refused, 4)
	assert.Empty(t, s.last.Calls)
}
