package cloud_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image/jpeg"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestSnapshotGroups(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		g := a.ok(ecs, "CreateSnapshotGroup", "InstanceId", "i-web90", "Name", "both", "Tag.1.Key", "run", "Tag.1.Value", "r").Str("SnapshotGroupId")
		at := func() answer { return a.ok(ecs, "DescribeSnapshotGroups", "SnapshotGroupId.1", g) }
		assert.Equal(t, "progressing", at().At("SnapshotGroups.SnapshotGroup.0.Status"))
		assert.Equal(t, 2, at().Len("SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot"))
		time.Sleep(3 * time.Minute)
		assert.Equal(t, "accomplished", at().At("SnapshotGroups.SnapshotGroup.0.Status"))
		assert.Equal(t, "run", at().At("SnapshotGroups.SnapshotGroup.0.Tags.Tag.0.Key"))
		assert.Equal(t, []string{"snapshot i-web90"}, m.calls(), "one moment for all disks")
		sys := at().Str("SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.0.SnapshotId")
		data := at().Str("SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.1.SnapshotId")
		assert.Equal(t, "system", at().At("SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.0.SourceDiskType"))
		a.ok(ecs, "ModifySnapshotAttribute", "SnapshotId", sys, "RetentionDays", "3")
		assert.EqualValues(t, 3, a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+sys+`"]`).At("Snapshots.Snapshot.0.RetentionDays"))

		img := a.ok(ecs, "CreateImage", "DiskDeviceMapping.1.SnapshotId", sys, "DiskDeviceMapping.2.SnapshotId", data).Str("ImageId")
		other := a.ok(ecs, "CreateSnapshotGroup", "InstanceId", "i-web89").Str("SnapshotGroupId")
		a.ok(ecs, "DeleteSnapshotGroup", "SnapshotGroupId", g)
		a.no(404, "InvalidSnapshotGroupId.NotFound", ecs, "DeleteSnapshotGroup", "SnapshotGroupId", g)
		assert.Equal(t, 2, a.ok(ecs, "DescribeSnapshots", "InstanceId", "i-web90").Len("Snapshots.Snapshot"), "the image keeps its snapshots")
		a.no(403, "SnapshotCreatedImage", ecs, "DeleteSnapshot", "SnapshotId", sys)
		a.ok(ecs, "DeleteImage", "ImageId", img)
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", sys)
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", data)
		r := a.ok(ecs, "DeleteSnapshotGroup", "SnapshotGroupId", other)
		assert.Equal(t, "Success", r.At("OperationProgressSet.OperationProgress.0.OperationStatus"))
		assert.Equal(t, 0, a.ok(ecs, "DescribeSnapshots").Len("Snapshots.Snapshot"))

		one := a.ok(ecs, "CreateSnapshotGroup", "InstanceId", "i-web90", "ExcludeDiskId.1", "d-sys").Str("SnapshotGroupId")
		assert.Equal(t, "d-data", a.ok(ecs, "DescribeSnapshotGroups", "SnapshotGroupId.1", one).At("SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.0.SourceDiskId"))
		a.no(400, "MissingParameter", ecs, "CreateSnapshotGroup")
		a.no(404, "InvalidDiskId.NotFound", ecs, "CreateSnapshotGroup", "InstanceId", "i-web89", "DiskId.1", "d-sys")
		m.failing("snapshot")
		a.no(500, "InternalError", ecs, "CreateSnapshotGroup", "DiskId.1", "d-sys")
		assert.Equal(t, 1, a.ok(ecs, "DescribeSnapshotGroups").Len("SnapshotGroups.SnapshotGroup"), "what failed leaves nothing")
	})
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddInstance(cloud.Instance{ID: "i-old", PrivateIP: "172.31.0.70", Disks: []cloud.Disk{{ID: "d-ssd", Category: "cloud_ssd"}}})
		a.no(400, "DiskCategory.OperationNotSupported", ecs, "CreateSnapshotGroup", "InstanceId", "i-old")
	})
}

func TestCreateInstanceStartsStopped(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddImage(cloud.Image{ID: "centos", Owner: "system", Size: 20})
		id := a.ok(ecs, "CreateInstance", "ImageId", "centos", "InstanceType", "ecs.c6.large", "VSwitchId", "vsw-sim", "SecurityGroupId", "sg-sim",
			"DataDisk.1.Size", "100", "Tag.1.key", "old", "Tag.1.value", "spelling").Str("InstanceId")
		a.ok(ecs, "StartInstance", "InstanceId", id) // clients do not wait between the two
		time.Sleep(time.Minute)
		assert.Equal(t, "Running", a.status(id))
		assert.Equal(t, []string{"create " + id, "start " + id}, m.calls())
		r := a.ok(ecs, "DescribeDisks", "InstanceId", id)
		assert.EqualValues(t, 20, r.At("Disks.Disk.0.Size"))
		assert.EqualValues(t, 100, r.At("Disks.Disk.1.Size"))
		snap := a.ok(ecs, "CreateSnapshot", "DiskId", "d-data").Str("SnapshotId")
		more := []string{"ImageId", "centos", "InstanceType", "ecs.c6.large", "VSwitchId", "vsw-sim", "SecurityGroupId", "sg-sim", "DataDisk.1.SnapshotId", snap}
		a.no(403, "InvalidSnapshotId.NotReady", ecs, "CreateInstance", more...)
		time.Sleep(3 * time.Minute)
		r = a.ok(ecs, "DescribeDisks", "InstanceId", a.ok(ecs, "CreateInstance", more...).Str("InstanceId"), "DiskType", "data")
		assert.Equal(t, snap, r.At("Disks.Disk.0.SourceSnapshotId"))
		assert.EqualValues(t, 200, r.At("Disks.Disk.0.Size"))
		a.no(403, "SnapshotCreatedDisk", ecs, "DeleteSnapshot", "SnapshotId", snap)
		a.no(403, "OperationDenied", ecs, "DeleteImage", "ImageId", "centos")
		a.no(400, "MissingParameter", ecs, "CreateInstance", "ImageId", "centos", "VSwitchId", "vsw-sim")
		a.no(400, "InvalidInstanceType.ValueNotSupported", ecs, "CreateInstance", "ImageId", "centos", "InstanceType", "ecs.zz9.large", "VSwitchId", "vsw-sim", "SecurityGroupId", "sg-sim")
	})
}

func TestDisksComeAndGo(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		d := a.ok(ecs, "CreateDisk", "ZoneId", "cn-hangzhou-h", "Size", "50", "DiskName", "more").Str("DiskId")
		status := func() any { return a.ok(ecs, "DescribeDisks", "DiskIds", `["`+d+`"]`).At("Disks.Disk.0.Status") }
		move := func(action, during, after string) {
			a.ok(ecs, action, "DiskId", d, "InstanceId", "i-web90")
			assert.Equal(t, during, status())
			time.Sleep(5 * time.Second)
			assert.Equal(t, after, status())
		}
		assert.Equal(t, "Creating", status())
		a.no(403, "IncorrectDiskStatus", ecs, "AttachDisk", "DiskId", d, "InstanceId", "i-web90")
		time.Sleep(5 * time.Second)
		assert.Equal(t, "Available", status())
		move("AttachDisk", "Attaching", "In_use")
		assert.Equal(t, "/dev/xvdc", a.ok(ecs, "DescribeDisks", "DiskIds", `["`+d+`"]`).At("Disks.Disk.0.Device"))
		a.no(403, "IncorrectDiskStatus", ecs, "DeleteDisk", "DiskId", d)
		a.no(403, "DependencyViolation", ecs, "DetachDisk", "DiskId", d, "InstanceId", "i-web89")
		move("DetachDisk", "Detaching", "Available")
		a.no(403, "DiskTypeViolation", ecs, "DetachDisk", "DiskId", "d-sys", "InstanceId", "i-web90")
		a.ok(ecs, "DeleteDisk", "DiskId", d)
		a.no(404, "InvalidDiskId.NotFound", ecs, "DeleteDisk", "DiskId", d)
		a.no(400, "MissingParameter", ecs, "CreateDisk", "Size", "50")
		a.no(400, "MissingParameter", ecs, "CreateDisk", "ZoneId", "cn-hangzhou-h")
	})
}

// restoring is machines whose disks can be filled again.
type restoring struct {
	*machines
	mu   sync.Mutex
	from []string
}

func (r *restoring) Restore(id, from string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from == "" {
		return errors.New("no content")
	}
	r.from = append(r.from, id+" "+from)
	return nil
}

func TestDisksAreFilledAgain(t *testing.T) {
	var r *restoring
	world(t, func(cfg *cloud.Config) {
		m, _ := cfg.Machines.(*machines)
		r = &restoring{machines: m}
		cfg.Machines = r
	}, func(c *cloud.Cloud, _ *machines, a *api) {
		snap := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		a.no(403, "InvalidSnapshotId.NotReady", ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap)
		time.Sleep(3 * time.Minute)
		img := a.ok(ecs, "CreateImage", "SnapshotId", snap).Str("ImageId")
		time.Sleep(4 * time.Minute)
		a.no(403, "InvalidParameter.Mismatch", ecs, "ResetDisk", "DiskId", "d-data", "SnapshotId", snap)
		a.no(403, "IncorrectInstanceStatus", ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap)
		a.no(403, "IncorrectInstanceStatus", ecs, "ReplaceSystemDisk", "InstanceId", "i-web90", "ImageId", img)
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
		time.Sleep(time.Minute)
		a.no(400, "DryRunOperation", ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap, "DryRun", "true")
		a.ok(ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap)
		assert.Equal(t, "ReIniting", a.ok(ecs, "DescribeDisks", "DiskIds", `["d-sys"]`).At("Disks.Disk.0.Status"))
		a.no(403, "IncorrectDiskStatus", ecs, "StartInstance", "InstanceId", "i-web90")
		a.no(403, "IncorrectDiskStatus", ecs, "CreateSnapshot", "DiskId", "d-sys")
		time.Sleep(30 * time.Second)
		assert.Equal(t, "In_use", a.ok(ecs, "DescribeDisks", "DiskIds", `["d-sys"]`).At("Disks.Disk.0.Status"))

		d := a.ok(ecs, "ReplaceSystemDisk", "InstanceId", "i-web90", "ImageId", img, "ClientToken", "t").Str("DiskId")
		time.Sleep(30 * time.Second)
		assert.NotEqual(t, "d-sys", d)
		assert.Equal(t, d, a.ok(ecs, "DescribeDisks", "InstanceId", "i-web90", "DiskType", "system").At("Disks.Disk.0.DiskId"))
		assert.Equal(t, 1, a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+snap+`"]`).Len("Snapshots.Snapshot"), "the old disk is gone, its snapshot is not")
		assert.Equal(t, img, a.ok(ecs, "DescribeInstances", "InstanceIds", `["i-web90"]`).At("Instances.Instance.0.ImageId"))
		a.no(404, "InvalidDiskId.NotFound", ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap)
		a.ok(ecs, "StartInstance", "InstanceId", "i-web90")
		assert.Equal(t, []string{"i-web90 state-i-web90-1", "i-web90 state-i-web90-1"}, r.from)
	})
	// Machines that cannot do it are not passed over in silence.
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		snap := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web89")
		time.Sleep(3 * time.Minute)
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
		time.Sleep(time.Minute)
		a.no(400, "UnsupportedOperation", ecs, "ResetDisk", "DiskId", "d-sys", "SnapshotId", snap)
		require.Len(t, c.Refused(), 1)
	})
}

func TestTagsInBothSpellings(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "TagResources", "ResourceType", "instance", "ResourceId.1", "i-web90", "ResourceId.2", "i-web89", "Tag.1.Key", "run", "Tag.1.Value", "1")
		a.ok(ecs, "AddTags", "ResourceType", "disk", "ResourceId", "d-sys", "Tag.1.Key", "run", "Tag.1.Value", "1")
		assert.Equal(t, 2, a.ok(ecs, "ListTagResources", "ResourceType", "instance", "ResourceId.1", "i-web90").Len("TagResources.TagResource"))
		assert.Equal(t, 3, a.ok(ecs, "ListTagResources", "ResourceType", "instance", "Tag.1.Key", "run").Len("TagResources.TagResource"))
		r := a.ok(ecs, "DescribeTags", "Tag.1.Key", "run")
		assert.EqualValues(t, 2, r.At("Tags.Tag.0.ResourceTypeCount.Instance"))
		assert.EqualValues(t, 1, r.At("Tags.Tag.0.ResourceTypeCount.Disk"))
		a.ok(ecs, "RemoveTags", "ResourceType", "disk", "ResourceId", "d-sys", "Tag.1.Key", "run", "Tag.1.Value", "another")
		assert.Equal(t, 1, a.ok(ecs, "DescribeDisks", "Tag.1.Key", "run").Len("Disks.Disk"))
		a.ok(ecs, "RemoveTags", "ResourceType", "disk", "ResourceId", "d-sys", "Tag.1.Key", "run")
		assert.Equal(t, 0, a.ok(ecs, "DescribeDisks", "Tag.1.Key", "run").Len("Disks.Disk"))
		a.ok(ecs, "UntagResources", "ResourceType", "instance", "ResourceId.1", "i-web90", "TagKey.1", "run")
		assert.Equal(t, 1, a.ok(ecs, "DescribeInstances", "Tag.1.Key", "run").Len("Instances.Instance"))
		a.no(404, "InvalidResourceId.NotFound", ecs, "TagResources", "ResourceType", "instance", "ResourceId.1", "i-web90", "ResourceId.2", "i-none", "Tag.1.Key", "half", "Tag.1.Value", "1")
		assert.Equal(t, 0, a.ok(ecs, "DescribeInstances", "Tag.1.Key", "half").Len("Instances.Instance"), "all or none")
		a.no(400, "InvalidResourceType.NotFound", ecs, "TagResources", "ResourceType", "Instance", "ResourceId.1", "i-web90", "Tag.1.Key", "k", "Tag.1.Value", "v")
	})
}

func TestBatches(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.no(404, "InvalidInstanceId.NotFound", ecs, "StopInstances", "InstanceId.1", "i-web90", "InstanceId.2", "i-none")
		assert.Equal(t, "Running", a.status("i-web90"), "all together or none")
		r := a.ok(ecs, "StopInstances", "InstanceId.1", "i-web90", "InstanceId.2", "i-none", "BatchOptimization", "SuccessFirst")
		assert.Equal(t, "Stopping", r.At("InstanceResponses.InstanceResponse.0.CurrentStatus"))
		assert.Equal(t, "InvalidInstanceId.NotFound", r.At("InstanceResponses.InstanceResponse.1.Code"))
		time.Sleep(time.Minute)
		a.ok(ecs, "StartInstances", "InstanceId.1", "i-web90")
		time.Sleep(time.Minute)
		assert.Equal(t, "Running", a.status("i-web90"))
		a.no(403, "IncorrectInstanceStatus", ecs, "DeleteInstances", "InstanceId.1", "i-web90")
		a.ok(ecs, "DeleteInstances", "InstanceId.1", "i-web90", "InstanceId.2", "i-web89", "Force", "true")
		assert.Equal(t, 0, a.ok(ecs, "DescribeInstances").Len("Instances.Instance"))
	})
}

func TestStockAndPrices(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		c.SetStock("ecs.g6.large", "cn-hangzhou-h", false)
		a.no(403, "OperationDenied.NoStock", ecs, "RunInstances", a.cloneOf(img)...)
		a.no(403, "OperationDenied.NoStock", ecs, "RunInstances", a.cloneOf(img, "DryRun", "true")...)
		zone := func(id string) any {
			return a.ok(ecs, "DescribeAvailableResource", "DestinationResource", "InstanceType", "InstanceType", "ecs.g6.large", "ZoneId", id).
				At("AvailableZones.AvailableZone.0.StatusCategory")
		}
		assert.Equal(t, "WithoutStock", zone("cn-hangzhou-h"))
		assert.Equal(t, "WithStock", zone("cn-hangzhou-i"))
		assert.Equal(t, 0, a.ok(ecs, "DescribeAvailableResource", "DestinationResource", "InstanceType", "InstanceType", "ecs.zz.large").Len("AvailableZones.AvailableZone"))

		price := func(kv ...string) float64 {
			p, _ := a.ok(ecs, "DescribePrice", kv...).At("PriceInfo.Price.TradePrice").(float64)
			return p
		}
		small, large := price("InstanceType", "ecs.g6.large"), price("InstanceType", "ecs.g6.xlarge")
		assert.Positive(t, small)
		assert.InDelta(t, 2*small, large, 1e-6)
		assert.Greater(t, price("InstanceType", "ecs.g6.large", "DataDisk.1.Size", "500"), small)
		assert.InDelta(t, 730*small, price("InstanceType", "ecs.g6.large", "PriceUnit", "Month"), 1)
		a.no(400, "PriceNotFound", ecs, "DescribePrice", "InstanceType", "ecs.zz.large")
	})
}

func TestConsole(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		text := func() string {
			b, err := base64.StdEncoding.DecodeString(a.ok(ecs, "GetInstanceConsoleOutput", "InstanceId", "i-web90").Str("ConsoleOutput"))
			require.NoError(t, err)
			return string(b)
		}
		assert.Contains(t, text(), "web-90 login: ")
		c.SetConsole("i-web90", "Kernel panic - not syncing: VFS: Unable to mount root fs")
		assert.Contains(t, text(), "Kernel panic")
		b, err := base64.StdEncoding.DecodeString(a.ok(ecs, "GetInstanceScreenshot", "InstanceId", "i-web90").Str("Screenshot"))
		require.NoError(t, err)
		_, err = jpeg.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		c.PoweredOff("i-web90")
		a.no(403, "IncorrectInstanceStatus", ecs, "GetInstanceScreenshot", "InstanceId", "i-web90")
	})
}

func TestImagesOfOthers(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddImage(cloud.Image{ID: "centos", Owner: "system", OSName: "CentOS  7.9 64 bit"})
		assert.Equal(t, 1, a.ok(ecs, "DescribeImages", "ImageOwnerAlias", "system").Len("Images.Image"))
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageOwnerAlias", "marketplace").Len("Images.Image"))
		a.no(403, "OperationDenied", ecs, "ModifyImageAttribute", "ImageId", "centos", "ImageName", "x")
		copied := a.ok(ecs, "CopyImage", "ImageId", "centos", "DestinationImageName", "mine").Str("ImageId")
		time.Sleep(4 * time.Minute)
		r := a.ok(ecs, "DescribeImages", "ImageId", copied)
		assert.Equal(t, "self", r.At("Images.Image.0.ImageOwnerAlias"))
		snap := r.Str("Images.Image.0.DiskDeviceMappings.DiskDeviceMapping.0.SnapshotId")
		a.ok(ecs, "ModifyImageSharePermission", "ImageId", copied, "AddAccount.1", "42")
		assert.Equal(t, "42", a.ok(ecs, "DescribeImageSharePermission", "ImageId", copied).At("Accounts.Account.0.AliyunId"))
		a.no(403, "ImageUseShared", ecs, "DeleteImage", "ImageId", copied)
		a.ok(ecs, "ModifyImageSharePermission", "ImageId", copied, "RemoveAccount.1", "42")
		a.ok(ecs, "ModifyImageAttribute", "ImageId", copied, "Status", "Deprecated")
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageId", copied).Len("Images.Image"))
		a.ok(ecs, "DeleteImage", "ImageId", copied)
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", snap)
	})
}

func TestFactsAreShown(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddInstance(cloud.Instance{ID: "i-x", PrivateIP: "172.31.0.60", IPv6: []string{"2001:db8::1"}, SecondaryIPs: []string{"172.31.0.61"}, Locks: []string{"security"},
			ENIs:    []cloud.ENI{{ID: "eni-2", MAC: "00:16:3e:01:02:03", PrivateIP: "172.31.0.62"}},
			Details: map[string]string{"HttpTokens": "required", "CpuOptions.Core": "1", "DeploymentSetId": "ds-1"},
			Disks:   []cloud.Disk{{}, {ID: "d-m", MultiAttach: true, Encrypted: true, KMSKeyID: "k", ProvisionedIops: 100, BurstingEnabled: true, AutoSnapshotPolicyID: "sp-1"}}})
		r := a.ok(ecs, "DescribeInstances", "InstanceIds", `["i-x"]`)
		const i = "Instances.Instance.0."
		assert.Equal(t, "required", r.At(i+"MetadataOptions.HttpTokens"))
		assert.EqualValues(t, 1, r.At(i+"CpuOptions.CoreCount"))
		assert.Equal(t, "ds-1", r.At(i+"DeploymentSetId"))
		assert.Equal(t, "2001:db8::1", r.At(i+"NetworkInterfaces.NetworkInterface.0.Ipv6Sets.Ipv6Set.0.Ipv6Address"))
		assert.Equal(t, "172.31.0.61", r.At(i+"NetworkInterfaces.NetworkInterface.0.PrivateIpSets.PrivateIpSet.1.PrivateIpAddress"))
		assert.Equal(t, "Secondary", r.At(i+"NetworkInterfaces.NetworkInterface.1.Type"))
		assert.Equal(t, "security", r.At(i+"OperationLocks.LockReason.0.LockReason"))
		a.no(403, "InstanceLockedForSecurity", ecs, "StopInstance", "InstanceId", "i-x")
		d := a.ok(ecs, "DescribeDisks", "DiskIds", `["d-m"]`)
		for member, want := range map[string]any{"MultiAttach": "Enabled", "Encrypted": true, "KMSKeyId": "k", "ProvisionedIops": 100.0, "BurstingEnabled": true, "AutoSnapshotPolicyId": "sp-1"} {
			assert.Equal(t, want, d.At("Disks.Disk.0."+member), member)
		}
	})
}

// The list of the actions names each once, with its product.
func TestActions(t *testing.T) {
	all := cloud.Actions()
	assert.Contains(t, all, "ecs:RunInstances")
	assert.Contains(t, all, "slb:SetBackendServers")
	seen := map[string]bool{}
	for _, a := range all {
		assert.False(t, seen[a], a)
		seen[a] = true
	}
}
