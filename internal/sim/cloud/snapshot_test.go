package cloud_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestSnapshotProgress(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys", "SnapshotName", "before", "RetentionDays", "7", "Tag.1.Key", "run", "Tag.1.Value", "r").Str("SnapshotId")
		at := func(member string) any {
			return a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+id+`"]`).At("Snapshots.Snapshot.0." + member)
		}
		assert.Equal(t, "progressing", at("Status"))
		assert.Equal(t, "0%", at("Progress"))
		assert.Equal(t, false, at("Available"))
		assert.Equal(t, "40", at("SourceDiskSize"), "a string")
		a.no(403, "IncorrectDiskStatus.CreatingSnapshot", ecs, "CreateSnapshot", "DiskId", "d-sys")
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-data")
		time.Sleep(90 * time.Second)
		assert.Equal(t, "50%", at("Progress"))
		assert.EqualValues(t, 90, at("RemainTime"))
		a.no(403, "InvalidSnapshotId.NotReady", ecs, "CreateImage", "SnapshotId", id)
		time.Sleep(90 * time.Second)
		assert.Equal(t, "accomplished", at("Status"))
		assert.Equal(t, "100%", at("Progress"))
		assert.Equal(t, true, at("Available"))
		assert.Equal(t, "none", at("Usage"))
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys")
		assert.Equal(t, []string{"snapshot i-web90", "snapshot i-web90", "snapshot i-web90"}, m.calls())
		time.Sleep(7*24*time.Hour + time.Second)
		assert.Equal(t, 0, a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+id+`"]`).Len("Snapshots.Snapshot"), "its retention has ended")
	})
}

func TestSnapshotRefusals(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.no(404, "InvalidDiskId.NotFound", ecs, "CreateSnapshot", "DiskId", "d-none")
		a.no(400, "InvalidSnapshotName.Malformed", ecs, "CreateSnapshot", "DiskId", "d-sys", "SnapshotName", "auto-x")
		a.no(400, "InvalidRetentionDays.Malformed", ecs, "CreateSnapshot", "DiskId", "d-sys", "RetentionDays", "0")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
		a.no(400, "IncorrectInstanceStatus", ecs, "CreateSnapshot", "DiskId", "d-sys")
		time.Sleep(time.Minute)
		m.failing("snapshot")
		a.no(500, "InternalError", ecs, "CreateSnapshot", "DiskId", "d-sys")
		assert.Equal(t, 0, a.ok(ecs, "DescribeSnapshots").Len("Snapshots.Snapshot"), "what failed leaves nothing")
	})
}

func TestDescribeSnapshotsFilters(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		one := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys", "SnapshotName", "one", "Tag.1.Key", "run", "Tag.1.Value", "1").Str("SnapshotId")
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-data", "SnapshotName", "two", "Tag.1.Key", "run", "Tag.1.Value", "2")
		for _, row := range []struct {
			kv   []string
			want int
		}{
			{nil, 2},
			{[]string{"SnapshotIds", `["` + one + `","s-none"]`}, 1},
			{[]string{"DiskId", "d-data"}, 1},
			{[]string{"InstanceId", "i-web90"}, 2},
			{[]string{"Tag.1.Key", "run"}, 2},
			{[]string{"Tag.1.Key", "run", "Tag.1.Value", "2"}, 1},
			{[]string{"SnapshotName", "on*"}, 1},
			{[]string{"SourceDiskType", "System"}, 1},
			{[]string{"Status", "accomplished"}, 0},
			{[]string{"MaxResults", "10"}, 2},
			{[]string{"PageNumber", "2", "PageSize", "1"}, 1},
		} {
			assert.Equalf(t, row.want, a.ok(ecs, "DescribeSnapshots", row.kv...).Len("Snapshots.Snapshot"), "%v", row.kv)
		}
	})
}

// Images go before their snapshots, instances before their images.
func TestOrderOfDeletion(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone()
		r := a.ok(ecs, "DescribeImages")
		img, snap := r.Str("Images.Image.0.ImageId"), r.Str("Images.Image.0.DiskDeviceMappings.DiskDeviceMapping.0.SnapshotId")
		assert.Equal(t, "image_disk", a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+snap+`"]`).At("Snapshots.Snapshot.0.Usage"))
		a.no(403, "SnapshotCreatedImage", ecs, "DeleteSnapshot", "SnapshotId", snap, "Force", "true")
		a.no(403, "ImageUsingByInstance", ecs, "DeleteImage", "ImageId", img)
		a.ok(ecs, "DeleteImage", "ImageId", img, "Force", "true")
		assert.Equal(t, "Running", a.status(id), "it lives on without its image")
		a.no(403, "SnapshotCreatedDisk", ecs, "DeleteSnapshot", "SnapshotId", snap)
		a.ok(ecs, "DeleteInstance", "InstanceId", id, "Force", "true")
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", snap)
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", snap) // what is gone is ignored
		a.ok(ecs, "DeleteImage", "ImageId", img)
	})
}
