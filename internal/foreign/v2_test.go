package foreign

import (
	"errors"
	"fmt"
	"testing"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	openapiutil "github.com/alibabacloud-go/darabonba-openapi/v2/utils"
	ecs "github.com/alibabacloud-go/ecs-20140526/v4/client"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// teaCode is the cloud's word for an error of the V2 SDKs.
func teaCode(err error) string {
	if e := new(tea.SDKError); errors.As(err, &e) {
		return tea.StringValue(e.Code)
	}
	if e, ok := errors.AsType[interface {
		error
		GetCode() *string
	}](err); ok {
		return tea.StringValue(e.GetCode())
	}
	return fmt.Sprint(err)
}

func (s *simulator) openapi(secret string) *openapiutil.Config {
	return &openapiutil.Config{
		AccessKeyId: tea.String(s.Key), AccessKeySecret: tea.String(secret), RegionId: tea.String(s.Region), Endpoint: tea.String(s.Host), Protocol: tea.String("http"),
	}
}

// TestV2 runs Alibaba's current SDKs for Go: version 3 signatures; typed models
// of ECS, and the generic call for CLB, which has no module that can be had.
func TestV2(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c, err := ecs.NewClient(s.openapi(s.Secret))
	require.NoError(t, err)
	region := tea.String(s.Region)

	made, err := c.RunInstances(&ecs.RunInstancesRequest{
		RegionId: region, ImageId: tea.String(s.Stock.ImageID), InstanceType: tea.String(s.Stock.InstanceType), VSwitchId: tea.String(s.Stock.VSwitchID),
		SecurityGroupIds: []*string{tea.String(s.Stock.SecurityGroupID)}, InstanceName: tea.String("v2 主机"), Amount: tea.Int32(1), ClientToken: tea.String("v2"),
		SystemDisk: &ecs.RunInstancesRequestSystemDisk{Category: tea.String("cloud_essd"), Size: tea.String("40")},
		Tag:        []*ecs.RunInstancesRequestTag{{Key: tea.String("by"), Value: tea.String("go")}},
	})
	require.NoError(t, err)
	id := tea.StringValue(made.Body.InstanceIdSets.InstanceIdSet[0])
	var instance *ecs.DescribeInstancesResponseBodyInstancesInstance
	wait(t, "Running", func() bool {
		r, err := c.DescribeInstances(&ecs.DescribeInstancesRequest{RegionId: region, InstanceIds: tea.String(`["` + id + `"]`)})
		require.NoError(t, err)
		require.EqualValues(t, 1, tea.Int32Value(r.Body.TotalCount))
		instance = r.Body.Instances.Instance[0]
		return tea.StringValue(instance.Status) == "Running"
	})
	assert.Equal(t, "v2 主机", tea.StringValue(instance.InstanceName))
	assert.Equal(t, "go", tea.StringValue(instance.Tags.Tag[0].TagValue))
	assert.EqualValues(t, 2, tea.Int32Value(instance.Cpu))
	_, err = c.RunInstances(&ecs.RunInstancesRequest{
		RegionId: region, ImageId: tea.String(s.Stock.ImageID), InstanceType: tea.String(s.Stock.InstanceType), VSwitchId: tea.String(s.Stock.VSwitchID),
		SecurityGroupIds: []*string{tea.String(s.Stock.SecurityGroupID)}, DryRun: tea.Bool(true),
	})
	assert.Equal(t, "DryRunOperation", teaCode(err))

	disks, err := c.DescribeDisks(&ecs.DescribeDisksRequest{RegionId: region, InstanceId: tea.String(id)})
	require.NoError(t, err)
	require.Len(t, disks.Body.Disks.Disk, 1)
	snap, err := c.CreateSnapshot(&ecs.CreateSnapshotRequest{DiskId: disks.Body.Disks.Disk[0].DiskId, SnapshotName: tea.String("v2")})
	require.NoError(t, err)
	wait(t, "snapshot", func() bool {
		r, err := c.DescribeSnapshots(&ecs.DescribeSnapshotsRequest{RegionId: region, SnapshotIds: tea.String(`["` + tea.StringValue(snap.Body.SnapshotId) + `"]`)})
		require.NoError(t, err)
		return tea.StringValue(r.Body.Snapshots.Snapshot[0].Status) == "accomplished"
	})
	image, err := c.CreateImage(&ecs.CreateImageRequest{RegionId: region, SnapshotId: snap.Body.SnapshotId, ImageName: tea.String("v2")})
	require.NoError(t, err)
	wait(t, "image", func() bool {
		r, err := c.DescribeImages(&ecs.DescribeImagesRequest{RegionId: region, ImageId: image.Body.ImageId, Status: tea.String("Creating,Available")})
		require.NoError(t, err)
		i := r.Body.Images.Image[0]
		return tea.StringValue(i.Status) == "Available" && tea.Int32Value(i.Size) == 40
	})

	// CLB by the generic call.
	g, err := openapi.NewClient(s.openapi(s.Secret))
	require.NoError(t, err)
	call := func(action string, query map[string]any) (map[string]any, error) {
		r, err := g.CallApi(&openapiutil.Params{
			Action: tea.String(action), Version: tea.String("2014-05-15"), Protocol: tea.String("HTTP"), Pathname: tea.String("/"), Method: tea.String("POST"),
			AuthType: tea.String("AK"), Style: tea.String("RPC"), ReqBodyType: tea.String("formData"), BodyType: tea.String("json"),
		}, &openapiutil.OpenApiRequest{Query: openapiutil.Query(query)}, &dara.RuntimeOptions{})
		if err != nil {
			return nil, err
		}
		body, _ := r["body"].(map[string]any)
		return body, nil
	}
	must := func(action string, query map[string]any) map[string]any {
		t.Helper()
		body, err := call(action, query)
		require.NoErrorf(t, err, "%s", action)
		return body
	}
	lb := must("CreateLoadBalancer", map[string]any{"RegionId": s.Region, "LoadBalancerName": "v2", "VSwitchId": s.Stock.VSwitchID, "AddressType": "intranet"})["LoadBalancerId"]
	must("AddBackendServers", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb, "BackendServers": `[{"ServerId":"` + id + `","Weight":"35","Type":"ecs"}]`})
	must("SetBackendServers", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb, "BackendServers": `[{"ServerId":"` + id + `","Weight":45}]`})
	body := must("DescribeLoadBalancerAttribute", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb})
	member := body["BackendServers"].(map[string]any)["BackendServer"].([]any)[0].(map[string]any)
	assert.Equal(t, "45", fmt.Sprint(member["Weight"]))
	assert.Equal(t, id, member["ServerId"])
	must("RemoveBackendServers", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb, "BackendServers": `[{"ServerId":"` + id + `"}]`})
	must("DeleteLoadBalancer", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb})
	_, err = call("DescribeLoadBalancerAttribute", map[string]any{"RegionId": s.Region, "LoadBalancerId": lb})
	assert.Equal(t, "InvalidLoadBalancerId.NotFound", teaCode(err))

	_, err = c.DeleteImage(&ecs.DeleteImageRequest{RegionId: region, ImageId: image.Body.ImageId})
	require.NoError(t, err)
	_, err = c.DeleteSnapshot(&ecs.DeleteSnapshotRequest{SnapshotId: snap.Body.SnapshotId})
	require.NoError(t, err)
	_, err = c.DeleteInstance(&ecs.DeleteInstanceRequest{InstanceId: tea.String(id), Force: tea.Bool(true)})
	require.NoError(t, err)
	wait(t, "gone", func() bool {
		r, err := c.DescribeInstances(&ecs.DescribeInstancesRequest{RegionId: region, InstanceIds: tea.String(`["` + id + `"]`)})
		require.NoError(t, err)
		return len(r.Body.Instances.Instance) == 0
	})
	_, err = c.StartInstance(&ecs.StartInstanceRequest{InstanceId: tea.String(id)})
	assert.Equal(t, "InvalidInstanceId.NotFound", teaCode(err))
	end := s.end()
	assert.Empty(t, end.left())
	assert.GreaterOrEqual(t, len(end.Calls), 15)

	wrong := serve(t)
	w, err := ecs.NewClient(wrong.openapi("another"))
	require.NoError(t, err)
	_, err = w.DescribeRegions(&ecs.DescribeRegionsRequest{})
	assert.Equal(t, "SignatureDoesNotMatch", teaCode(err))
	wrong.stop()
	assert.Empty(t, wrong.last.Calls)
}
