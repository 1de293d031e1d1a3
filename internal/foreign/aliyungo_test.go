package foreign

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/denverdino/aliyungo/common"
	"github.com/denverdino/aliyungo/ecs"
	"github.com/denverdino/aliyungo/slb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// code is the cloud's word for an error of aliyungo's.
func code(err error) string {
	if e := new(common.Error); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// TestAliyungo runs the client that is not Alibaba's: GET, version 1
// signatures, answers decoded by encoding/json into its own types.
func TestAliyungo(t *testing.T) {
	t.Parallel()
	s := serve(t)
	region := common.Region(s.Region)
	c := ecs.NewClientWithEndpoint(s.Endpoint, s.Key, s.Secret)
	c.SetRegionID(region)
	l := slb.NewClientWithEndpoint(s.Endpoint, s.Key, s.Secret)
	l.SetRegionID(region)

	regions, err := c.DescribeRegions()
	require.NoError(t, err)
	require.Len(t, regions, 1)
	assert.Equal(t, region, regions[0].RegionId)

	net, err := c.CreateVpc(&ecs.CreateVpcArgs{RegionId: region, CidrBlock: "192.168.0.0/16", VpcName: "go", ClientToken: "vpc-1"})
	require.NoError(t, err)
	again, err := c.CreateVpc(&ecs.CreateVpcArgs{RegionId: region, CidrBlock: "192.168.0.0/16", VpcName: "go", ClientToken: "vpc-1"})
	require.NoError(t, err)
	assert.Equal(t, net.VpcId, again.VpcId, "the token was used before")
	wait(t, "VPC", func() bool {
		vpcs, _, err := c.DescribeVpcs(&ecs.DescribeVpcsArgs{RegionId: region, VpcId: net.VpcId})
		require.NoError(t, err)
		return vpcs[0].Status == "Available"
	})
	vsw, err := c.CreateVSwitch(&ecs.CreateVSwitchArgs{VpcId: net.VpcId, ZoneId: s.Stock.ZoneID, CidrBlock: "192.168.1.0/24"})
	require.NoError(t, err)
	_, err = c.CreateVSwitch(&ecs.CreateVSwitchArgs{VpcId: net.VpcId, ZoneId: s.Stock.ZoneID, CidrBlock: "192.168.1.128/25"})
	assert.Equal(t, "InvalidCidrBlock.Overlapped", code(err))
	wait(t, "vSwitch", func() bool {
		l, _, err := c.DescribeVSwitches(&ecs.DescribeVSwitchesArgs{VpcId: net.VpcId, VSwitchId: vsw})
		require.NoError(t, err)
		return l[0].Status == "Available" && l[0].AvailableIpAddressCount == 252
	})
	group, err := c.CreateSecurityGroup(&ecs.CreateSecurityGroupArgs{RegionId: region, VpcId: net.VpcId, SecurityGroupName: "go"})
	require.NoError(t, err)
	rule := ecs.AuthorizeSecurityGroupArgs{RegionId: region, SecurityGroupId: group, IpProtocol: "tcp", PortRange: "22/22", SourceCidrIp: "192.168.0.0/16", Policy: "accept", Priority: 5}
	require.NoError(t, c.AuthorizeSecurityGroup(&rule))
	require.NoError(t, c.AuthorizeSecurityGroup(&rule), "the same rule twice is no error")
	// What it has cannot be read back: Priority is a number here and a string in
	// Alibaba's own clients, whose types the simulator keeps to.
	require.NoError(t, c.RevokeSecurityGroup(&ecs.RevokeSecurityGroupArgs{AuthorizeSecurityGroupArgs: rule}))
	rules, err := c.DescribeSecurityGroupAttribute(&ecs.DescribeSecurityGroupAttributeArgs{RegionId: region, SecurityGroupId: group})
	require.NoError(t, err)
	assert.Empty(t, rules.Permissions.Permission)
	assert.Equal(t, "DependencyViolation.VSwitch", code(c.DeleteVpc(net.VpcId)))

	id, err := c.CreateInstance(&ecs.CreateInstanceArgs{
		RegionId: region, ImageId: s.Stock.ImageID, InstanceType: s.Stock.InstanceType, SecurityGroupId: group, VSwitchId: vsw, InstanceName: "go",
		SystemDisk: ecs.SystemDiskType{Category: "cloud_essd", Size: 40}, ClientToken: "i-1",
	})
	require.NoError(t, err)
	require.NoError(t, c.StartInstance(id))
	status := func(want ecs.InstanceStatus) {
		t.Helper()
		wait(t, string(want), func() bool {
			i, err := c.DescribeInstanceAttribute(id)
			require.NoError(t, err)
			return i.Status == want
		})
	}
	status(ecs.Running)
	list, page, err := c.DescribeInstances(&ecs.DescribeInstancesArgs{RegionId: region, InstanceIds: `["` + id + `"]`, Pagination: common.Pagination{PageSize: 50}})
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, 1, page.TotalCount)
	assert.Equal(t, []string{"192.168.1.1"}, list[0].VpcAttributes.PrivateIpAddress.IpAddress)
	assert.Equal(t, net.VpcId, list[0].VpcAttributes.VpcId)
	none, _, err := c.DescribeInstances(&ecs.DescribeInstancesArgs{RegionId: region, InstanceIds: `["i-none"]`})
	require.NoError(t, err)
	assert.Empty(t, none)

	disks, _, err := c.DescribeDisks(&ecs.DescribeDisksArgs{RegionId: region, InstanceId: id, DiskType: ecs.DiskTypeAllSystem})
	require.NoError(t, err)
	require.Len(t, disks, 1)
	assert.Equal(t, 40, disks[0].Size)
	snap, err := c.CreateSnapshot(&ecs.CreateSnapshotArgs{DiskId: disks[0].DiskId, SnapshotName: "go"})
	require.NoError(t, err)
	// Snapshots cannot be read back either (SourceDiskSize): an image can be made
	// of one that is ready.
	var image string
	wait(t, "snapshot", func() bool {
		image, err = c.CreateImage(&ecs.CreateImageArgs{RegionId: region, SnapshotId: snap, ImageName: "go"})
		if code(err) == "InvalidSnapshotId.NotReady" {
			return false
		}
		require.NoError(t, err)
		return true
	})
	wait(t, "image", func() bool {
		l, _, err := c.DescribeImages(&ecs.DescribeImagesArgs{RegionId: region, ImageId: image})
		require.NoError(t, err)
		return len(l) == 1 && l[0].Status == "Available" && l[0].Usage == "none"
	})
	require.NoError(t, c.AddTags(&ecs.AddTagsArgs{RegionId: region, ResourceType: ecs.TagResourceImage, ResourceId: image, Tag: map[string]string{"k": "v"}}))
	assert.Equal(t, "SnapshotCreatedImage", code(c.DeleteSnapshot(snap)))

	// Balancers.
	lb, err := l.CreateLoadBalancer(&slb.CreateLoadBalancerArgs{RegionId: region, LoadBalancerName: "go", AddressType: slb.IntranetAddressType, VSwitchId: vsw, LoadBalancerSpec: slb.S1Small})
	require.NoError(t, err)
	assert.Equal(t, "192.168.1.2", lb.Address)
	weights := func() []int {
		t.Helper()
		b, err := l.DescribeLoadBalancerAttribute(lb.LoadBalancerId)
		require.NoError(t, err)
		w := []int{}
		for _, m := range b.BackendServers.BackendServer {
			w = append(w, m.Weight)
		}
		return w
	}
	// The answers to these two have Weight as a string (so say Alibaba's own
	// clients), where this one wants a number: they count by their effect.
	_, err = l.AddBackendServers(lb.LoadBalancerId, []slb.BackendServerType{{ServerId: id, Weight: 90, Type: "ecs"}})
	assert.Equal(t, "AliyunGoClientFailure", code(err))
	assert.Equal(t, []int{90}, weights())
	_, err = l.SetBackendServers(lb.LoadBalancerId, []slb.BackendServerType{{ServerId: id, Weight: 0, Type: "ecs"}})
	assert.Equal(t, "AliyunGoClientFailure", code(err))
	assert.Equal(t, []int{0}, weights())
	servers := func(weight int) string {
		b, err := json.Marshal([]slb.VBackendServerType{{ServerId: id, Port: 8080, Weight: weight, Type: "ecs"}})
		require.NoError(t, err)
		return string(b)
	}
	vg, err := l.CreateVServerGroup(&slb.CreateVServerGroupArgs{RegionId: region, LoadBalancerId: lb.LoadBalancerId, VServerGroupName: "app", BackendServers: servers(10)})
	require.NoError(t, err)
	_, err = l.SetVServerGroupAttribute(&slb.SetVServerGroupAttributeArgs{RegionId: region, VServerGroupId: vg.VServerGroupId, VServerGroupName: "renamed", BackendServers: servers(70)})
	require.NoError(t, err)
	g, err := l.DescribeVServerGroupAttribute(&slb.DescribeVServerGroupAttributeArgs{RegionId: region, VServerGroupId: vg.VServerGroupId})
	require.NoError(t, err)
	require.Len(t, g.BackendServers.BackendServer, 1)
	assert.Equal(t, "renamed", g.VServerGroupName)
	assert.Equal(t, 70, g.BackendServers.BackendServer[0].Weight)
	require.NoError(t, l.CreateLoadBalancerTCPListener(&slb.CreateLoadBalancerTCPListenerArgs{LoadBalancerId: lb.LoadBalancerId, ListenerPort: 80, Bandwidth: -1, VServerGroupId: vg.VServerGroupId, Scheduler: "wrr"}))
	tcp, err := l.DescribeLoadBalancerTCPListenerAttribute(lb.LoadBalancerId, 80)
	require.NoError(t, err)
	assert.Equal(t, slb.Stopped, tcp.Status)
	require.NoError(t, l.StartLoadBalancerListener(lb.LoadBalancerId, 80))
	health, err := l.DescribeHealthStatus(&slb.DescribeHealthStatusArgs{LoadBalancerId: lb.LoadBalancerId, ListenerPort: 80})
	require.NoError(t, err)
	require.Len(t, health.BackendServers.BackendServer, 1)
	assert.EqualValues(t, "normal", health.BackendServers.BackendServer[0].ServerHealthStatus)
	found, err := l.DescribeLoadBalancers(&slb.DescribeLoadBalancersArgs{RegionId: region, ServerId: id})
	require.NoError(t, err)
	assert.True(t, slices.ContainsFunc(found, func(b slb.LoadBalancerType) bool { return b.LoadBalancerId == lb.LoadBalancerId }))
	_, err = l.RemoveBackendServers(lb.LoadBalancerId, []slb.BackendServerType{{ServerId: id}})
	require.NoError(t, err)
	assert.Empty(t, weights())
	require.NoError(t, l.DeleteLoadBalancer(lb.LoadBalancerId))
	_, err = l.DescribeLoadBalancerAttribute(lb.LoadBalancerId)
	assert.Equal(t, "InvalidLoadBalancerId.NotFound", code(err))

	// Everything goes, in the order that the cloud asks for.
	require.NoError(t, c.StopInstance(id, false))
	status(ecs.Stopped)
	assert.Equal(t, "DependencyViolation", code(c.DeleteSecurityGroup(region, group)))
	require.NoError(t, c.DeleteInstance(id))
	wait(t, "instance gone", func() bool {
		l, _, err := c.DescribeInstances(&ecs.DescribeInstancesArgs{RegionId: region, VpcId: net.VpcId})
		require.NoError(t, err)
		return len(l) == 0
	})
	require.NoError(t, c.DeleteImage(region, image))
	require.NoError(t, c.DeleteSnapshot(snap))
	require.NoError(t, c.DeleteSecurityGroup(region, group))
	require.NoError(t, c.DeleteVSwitch(vsw))
	require.NoError(t, c.DeleteVpc(net.VpcId))
	end := s.end()
	assert.Empty(t, end.left())
	assert.GreaterOrEqual(t, len(end.Calls), 36)

	wrong := serve(t)
	w := ecs.NewClientWithEndpoint(wrong.Endpoint, wrong.Key, "another")
	_, err = w.DescribeRegions()
	assert.Equal(t, "SignatureDoesNotMatch", code(err))
	wrong.stop()
	assert.Empty(t, wrong.last.Calls)
}
