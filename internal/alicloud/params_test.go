package alicloud_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// What each write says, to the letter: a misspelt or forgotten parameter is not
// refused by every cloud.
func TestParameters(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		do   func(*alicloud.Client) error
		body string
		want url.Values
	}{
		{"CreateSnapshot", func(c *alicloud.Client) error {
			_, err := c.CreateSnapshot(ctx, alicloud.NewSnapshot{DiskID: "d-1", Token: "tok", Name: "n", Description: "d", RetentionDays: 7, Tags: map[string]string{"k": "v"}})
			return err
		}, `{"RequestId":"R","SnapshotId":"s-1"}`, url.Values{
			"DiskId": {"d-1"}, "ClientToken": {"tok"}, "SnapshotName": {"n"}, "Description": {"d"}, "RetentionDays": {"7"}, "Tag.1.Key": {"k"}, "Tag.1.Value": {"v"},
		}},
		{"CreateSnapshotGroup", func(c *alicloud.Client) error {
			_, err := c.CreateSnapshotGroup(ctx, alicloud.NewSnapshotGroup{InstanceID: "i-1", Token: "tok", Name: "n", Description: "d", DiskIDs: []string{"d-1", "d-2"}, Tags: map[string]string{"k": "v"}})
			return err
		}, `{"RequestId":"R","SnapshotGroupId":"ssg-1"}`, url.Values{
			"InstanceId": {"i-1"}, "ClientToken": {"tok"}, "Name": {"n"}, "Description": {"d"}, "DiskId.1": {"d-1"}, "DiskId.2": {"d-2"}, "Tag.1.Key": {"k"}, "Tag.1.Value": {"v"},
		}},
		{"ModifySnapshotAttribute", func(c *alicloud.Client) error { return c.SetRetention(ctx, "s-1", 7) }, `{"RequestId":"R"}`, url.Values{"SnapshotId": {"s-1"}, "RetentionDays": {"7"}}},
		{"TagResources", func(c *alicloud.Client) error {
			return c.Tag(ctx, "snapshot", []string{"s-1", "s-2"}, map[string]string{"k": "v"})
		}, `{"RequestId":"R"}`, url.Values{"ResourceType": {"snapshot"}, "ResourceId.1": {"s-1"}, "ResourceId.2": {"s-2"}, "Tag.1.Key": {"k"}, "Tag.1.Value": {"v"}}},
		{"CreateImage", func(c *alicloud.Client) error {
			_, err := c.CreateImage(ctx, alicloud.NewImage{Name: "n", Token: "tok", Mappings: []alicloud.Mapping{{SnapshotID: "s-1", DiskType: "system", Device: "/dev/xvda"}, {SnapshotID: "s-2", DiskType: "data", Device: "/dev/xvdb"}}})
			return err
		}, `{"RequestId":"R","ImageId":"m-1"}`, url.Values{
			"ImageName": {"n"}, "ClientToken": {"tok"}, "DetectionStrategy": {"Standard"},
			"DiskDeviceMapping.1.SnapshotId": {"s-1"}, "DiskDeviceMapping.1.DiskType": {"system"}, "DiskDeviceMapping.1.Device": {"/dev/xvda"},
			"DiskDeviceMapping.2.SnapshotId": {"s-2"}, "DiskDeviceMapping.2.DiskType": {"data"}, "DiskDeviceMapping.2.Device": {"/dev/xvdb"},
		}},
		{"DescribeImages", func(c *alicloud.Client) error {
			_, err := c.Images(ctx, alicloud.ImageQuery{IDs: []string{"m-1", "m-2"}})
			return err
		}, `{"RequestId":"R","Images":{"Image":[]}}`, url.Values{
			"ImageId": {"m-1,m-2"}, "ImageOwnerAlias": {"self"}, "PageNumber": {"1"}, "PageSize": {"100"},
			"Status": {"Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated"},
		}},
		{"DescribeInstances", func(c *alicloud.Client) error {
			_, err := c.Instances(ctx, alicloud.InstanceQuery{IDs: []string{"i-1", "i-2"}, PrivateIP: "172.31.0.90"})
			return err
		}, emptyInstances, url.Values{
			"InstanceIds": {`["i-1","i-2"]`}, "PrivateIpAddresses": {`["172.31.0.90"]`}, "InstanceNetworkType": {"vpc"}, "MaxResults": {"100"}, "AdditionalAttributes.1": {"META_OPTIONS"},
		}},
		{"DescribePrice", func(c *alicloud.Client) error {
			_, err := c.Price(ctx, alicloud.NewInstance{Type: "ecs.g7.large", Zone: "z", InternetChargeType: "PayByTraffic", InternetMaxBandwidthOut: 5, Disks: []alicloud.Disk{
				{Type: "system", Category: "cloud_essd", PerformanceLevel: "PL1", Size: 40}, {Type: "data", Category: "cloud_essd", PerformanceLevel: "PL0", Size: 100},
			}})
			return err
		}, `{"RequestId":"R","PriceInfo":{"Price":{"TradePrice":0.5,"OriginalPrice":1,"Currency":"CNY"}}}`, url.Values{
			"ResourceType": {"instance"}, "InstanceType": {"ecs.g7.large"}, "ZoneId": {"z"}, "PriceUnit": {"Hour"}, "Period": {"1"}, "Amount": {"1"}, "InstanceNetworkType": {"vpc"},
			"InternetChargeType": {"PayByTraffic"}, "InternetMaxBandwidthOut": {"5"}, "SystemDisk.Category": {"cloud_essd"}, "SystemDisk.PerformanceLevel": {"PL1"}, "SystemDisk.Size": {"40"},
			"DataDisk.1.Category": {"cloud_essd"}, "DataDisk.1.PerformanceLevel": {"PL0"}, "DataDisk.1.Size": {"100"},
		}},
		{"DescribeAvailableResource", func(c *alicloud.Client) error { _, err := c.Stock(ctx, "ecs.g7.large", "z"); return err }, `{"RequestId":"R"}`, url.Values{
			"DestinationResource": {"InstanceType"}, "ResourceType": {"instance"}, "InstanceType": {"ecs.g7.large"}, "ZoneId": {"z"}, "IoOptimized": {"optimized"}, "InstanceChargeType": {"PostPaid"},
		}},
		{"StopInstance", func(c *alicloud.Client) error { return c.StopInstance(ctx, "i-1", false) }, `{"RequestId":"R"}`, url.Values{
			"InstanceId": {"i-1"}, "StoppedMode": {"KeepCharging"}, "ForceStop": {"false"},
		}},
		{"DeleteInstance", func(c *alicloud.Client) error { return c.DeleteInstance(ctx, "i-1") }, `{"RequestId":"R"}`, url.Values{"InstanceId": {"i-1"}, "Force": {"false"}}},
		{"ModifyInstanceAutoReleaseTime", func(c *alicloud.Client) error {
			return c.SetAutoRelease(ctx, "i-1", time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC))
		}, `{"RequestId":"R"}`, url.Values{"InstanceId": {"i-1"}, "AutoReleaseTime": {"2026-11-23T04:05:00Z"}}},
		{"ModifyInstanceAutoReleaseTime", func(c *alicloud.Client) error { return c.SetAutoRelease(ctx, "i-1", time.Time{}) }, `{"RequestId":"R"}`, url.Values{"InstanceId": {"i-1"}}},
		{"ReplaceSystemDisk", func(c *alicloud.Client) error {
			_, err := c.ReplaceSystemDisk(ctx, alicloud.NewSystemDisk{InstanceID: "i-1", ImageID: "m-1", Token: "tok"})
			return err
		}, `{"RequestId":"R","DiskId":"d-2"}`, url.Values{"InstanceId": {"i-1"}, "ImageId": {"m-1"}, "ClientToken": {"tok"}, "PasswordInherit": {"true"}}},
		{"ResetDisk", func(c *alicloud.Client) error { return c.ResetDisk(ctx, "d-1", "s-1") }, `{"RequestId":"R"}`, url.Values{"DiskId": {"d-1"}, "SnapshotId": {"s-1"}}},
		{"RunCommand", func(c *alicloud.Client) error {
			_, err := c.RunCommand(ctx, alicloud.NewCommand{InstanceID: "i-1", Token: "tok", Script: "true\n", Timeout: time.Minute})
			return err
		}, `{"RequestId":"R","InvokeId":"t-1"}`, url.Values{
			"InstanceId.1": {"i-1"}, "ClientToken": {"tok"}, "Type": {"RunShellScript"}, "CommandContent": {"dHJ1ZQo="}, "ContentEncoding": {"Base64"}, "Timeout": {"60"},
		}},
	} {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			tt.name: func(int, url.Values) (*http.Response, error) { return answer(200, tt.body) },
		}}
		require.NoError(t, tt.do(client(t, f)), tt.name)
		q := f.seen[0]
		for _, k := range []string{"Action", "Timestamp", "Signature", "SignatureNonce", "SignatureMethod", "SignatureVersion", "SignatureType", "AccessKeyId", "SecurityToken", "Format", "Version"} {
			q.Del(k)
		}
		assert.Equal(t, []string{"cn-hangzhou"}, q["RegionId"], tt.name)
		q.Del("RegionId")
		assert.Equal(t, tt.want, q, tt.name)
	}
}

// The cloud's yes to a dry run is a refusal; anything else is no yes.
func TestDryRun(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"RequestId":"R","Code":"DryRunOperation","Message":"Request validation has been passed with DryRun flag set."}`: true,
		`{"RequestId":"R","Code":"OperationDenied.NoStock","Message":"no"}`:                                               false,
	} {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			"RunInstances": func(int, url.Values) (*http.Response, error) { return answer(400, body) },
		}}
		err := client(t, f).DryRunInstances(t.Context(), alicloud.NewInstance{Token: "tok", Type: "t"})
		assert.Equal(t, ok, err == nil, "%v", err)
		assert.Equal(t, "true", f.seen[0].Get("DryRun"))
		assert.Empty(t, f.seen[0].Get("ClientToken"), "the token is for the real call")
	}
	for _, body := range []string{`{"RequestId":"R"}`, `{"RequestId":"R","InstanceIdSets":{"InstanceIdSet":["i-made"]}}`} {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			"RunInstances": func(int, url.Values) (*http.Response, error) { return answer(200, body) },
		}}
		require.Error(t, client(t, f).DryRunInstances(t.Context(), alicloud.NewInstance{}))
	}
}
