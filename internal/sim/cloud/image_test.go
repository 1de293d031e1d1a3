package cloud_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestImageStates(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		time.Sleep(3 * time.Minute)
		id := a.ok(ecs, "CreateImage", "SnapshotId", s, "ImageName", "img", "DetectionStrategy", "Standard").Str("ImageId")
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageId", id).Len("Images.Image"), "only Available ones are listed unless asked")
		at := func(member string) any {
			return a.ok(ecs, "DescribeImages", "ImageId", id, "Status", "Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated").At("Images.Image.0." + member)
		}
		assert.Equal(t, "Creating", at("Status"))
		assert.Equal(t, false, at("Usable"))
		time.Sleep(time.Minute)
		assert.Equal(t, "25%", at("Progress"))
		a.no(400, "IncorrectImageStatus", ecs, "RunInstances", a.cloneOf(id)...)
		time.Sleep(3 * time.Minute)
		assert.Equal(t, "Available", at("Status"))
		assert.Equal(t, true, at("Usable"))
		assert.Equal(t, "Finished", at("DetectionOptions.Status"))
		assert.Equal(t, "40", at("DiskDeviceMappings.DiskDeviceMapping.0.Size"), "a string")
		assert.EqualValues(t, 40, at("Size"), "a number")
		assert.Equal(t, 1, a.ok(ecs, "DescribeImages", "SnapshotId", s).Len("Images.Image"))
		assert.Equal(t, 1, a.ok(ecs, "DescribeImages", "Status", "ALL").Len("Images.Image"))
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageOwnerAlias", "system").Len("Images.Image"))
	})
}

func TestImageSources(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		sys := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		data := a.ok(ecs, "CreateSnapshot", "DiskId", "d-data").Str("SnapshotId")
		time.Sleep(3 * time.Minute)
		for _, row := range []struct {
			status int
			code   string
			kv     []string
		}{
			{400, "MissingParameter", nil},
			{404, "InvalidSnapshotId.NotFound", []string{"SnapshotId", "s-none"}},
			{403, "OperationDenied", []string{"SnapshotId", data}},
			{403, "OperationDenied", []string{"DiskDeviceMapping.1.SnapshotId", data}},
			{403, "OperationDenied", []string{"DiskDeviceMapping.1.SnapshotId", sys, "DiskDeviceMapping.2.SnapshotId", sys}},
			{403, "OperationDenied", []string{"DiskDeviceMapping.1.SnapshotId", data, "DiskDeviceMapping.1.DiskType", "system"}},
			{400, "InvalidDevice.InUse", []string{"DiskDeviceMapping.1.SnapshotId", sys, "DiskDeviceMapping.1.Device", "/dev/xvda",
				"DiskDeviceMapping.2.SnapshotId", data, "DiskDeviceMapping.2.Device", "/dev/xvda"}},
			{400, "DryRunOperation", []string{"SnapshotId", sys, "DryRun", "true"}},
			{400, "InvalidImageName.Malformed", []string{"SnapshotId", sys, "ImageName", "acs:x"}},
		} {
			a.no(row.status, row.code, ecs, "CreateImage", row.kv...)
		}
		a.ok(ecs, "CreateImage", "SnapshotId", sys, "ImageName", "system-only")
		a.no(400, "InvalidImageName.Duplicated", ecs, "CreateImage", "SnapshotId", sys, "ImageName", "system-only")
		a.ok(ecs, "CreateImage", "DiskDeviceMapping.1.SnapshotId", data, "DiskDeviceMapping.1.Device", "/dev/xvdb",
			"DiskDeviceMapping.2.SnapshotId", sys, "DiskDeviceMapping.2.Device", "/dev/xvda", "ImageName", "both")
		// An instance wins over a snapshot, and brings snapshots of its own.
		a.ok(ecs, "CreateImage", "InstanceId", "i-web90", "SnapshotId", sys, "ImageName", "whole")
		a.no(403, "IncorrectDiskStatus.CreatingSnapshot", ecs, "CreateImage", "InstanceId", "i-web90", "ImageName", "again")
		time.Sleep(7 * time.Minute)
		for name, want := range map[string]int{"system-only": 1, "both": 2, "whole": 2} {
			r := a.ok(ecs, "DescribeImages", "ImageName", name)
			assert.Equal(t, want, r.Len("Images.Image.0.DiskDeviceMappings.DiskDeviceMapping"), name)
			assert.Equal(t, "system", r.At("Images.Image.0.DiskDeviceMappings.DiskDeviceMapping.0.Type"), name)
		}
		assert.Equal(t, 4, a.ok(ecs, "DescribeSnapshots").Len("Snapshots.Snapshot"))
	})
}
