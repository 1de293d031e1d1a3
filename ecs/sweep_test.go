package ecs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// twice does something again when it failed, as a resumed run does. Only what
// says that the result is open, or that it came to nothing, is done again.
func twice(f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	if again := f(); again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// lifeOfClone goes through every write of the package, and leaves nothing.
func lifeOfClone(ctx context.Context, sim *cloud.Cloud, c *ecs.Client) error {
	tags := map[string]string{"run": "r1"}
	bootID := func(ctx context.Context) (string, error) {
		r, err := c.RunCommand(ctx, ecs.CommandInput{InstanceID: "i-db", Script: "cat boot_id"})
		if err != nil {
			return "", err
		}
		return string(r.Output), nil
	}
	var warm []ecs.Snapshot
	var set *ecs.SnapshotSet
	var image, clone string
	var source *ecs.Instance
	var disks []ecs.Disk
	until := func(id, status string) func() error {
		return func() error { _, err := c.WaitInstance(ctx, id, status, nil); return err }
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"warm-up", func() (err error) {
			warm, err = c.CreateWarmUp(ctx, ecs.SnapshotInput{InstanceID: "i-db", Token: "warm", Tags: tags})
			return err
		}},
		{"wait", func() error { _, err := c.WaitSnapshots(ctx, ids(warm), nil); return err }},
		{"snapshots", func() (err error) {
			set, err = c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: "i-db", Token: "set", RetentionDays: 7, Tags: tags})
			return err
		}},
		{"wait", func() (err error) { set.Snapshots, err = c.WaitSnapshots(ctx, ids(set.Snapshots), nil); return err }},
		{"image", func() (err error) {
			image, err = c.CreateImage(ctx, ecs.ImageInput{Name: "im", Token: "im", Snapshots: set.Snapshots, Tags: tags})
			return err
		}},
		{"wait", func() error { _, err := c.WaitImage(ctx, image, nil); return err }},
		{"read", func() (err error) { source, disks, err = c.GetDetails(ctx, "i-db"); return err }},
		{"clone", func() (err error) {
			clone, err = c.CreateClone(ctx, ecs.CloneInput{
				Source: source, Disks: disks, ImageID: image, Name: "x", Token: "clone", Tags: tags, SecurityGroups: []string{"sg-isolated"},
				AutoRelease: time.Now().Add(24 * time.Hour),
			})
			return err
		}},
		{"wait", func() error { return until(clone, ecs.StatusRunning)() }},
		{"groups", func() error { return c.SetSecurityGroups(ctx, clone, source.SecurityGroups) }},
		{"no release", func() error { return c.SetAutoRelease(ctx, clone, time.Time{}) }},
		{"reboot", func() error { _, err := c.RebootAndWait(ctx, "i-db", bootID); return err }},
		{"stop", func() error { return c.StopInstance(ctx, "i-db") }},
		{"wait", until("i-db", ecs.StatusStopped)},
		{"reset", func() error {
			return c.ResetDisk(ctx, ecs.ResetInput{InstanceID: "i-db", DiskID: "d-1", SnapshotID: set.Snapshots[1].ID}, nil)
		}},
		{"start", func() error { return c.StartInstance(ctx, "i-db") }},
		{"wait", until("i-db", ecs.StatusRunning)},
	} {
		if err := twice(step.do); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	// One of each, and nothing else.
	made := map[string]int{}
	for _, r := range sim.Resources() {
		if r.CreatedByAPI && r.Type != "disk" && r.Type != "eni" {
			made[r.Type]++
		}
	}
	if want := map[string]int{"snapshot": 10, "image": 1, "instance": 1}; made["snapshot"] != 10 || made["image"] != 1 || made["instance"] != 1 {
		return fmt.Errorf("made %v, want %v", made, want)
	}
	groups, err := c.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: tags})
	if err != nil || len(groups) != 1 {
		return fmt.Errorf("%d snapshot groups, %w", len(groups), err)
	}
	err = twice(func() error {
		return c.Release(ctx, ecs.ReleaseInput{
			Guard: ecs.Guard{TagKey: "run", TagValue: "r1"}, SourceID: "i-db", InstanceID: clone, Images: []string{image},
			SnapshotGroups: []string{groups[0].ID}, Snapshots: ids(warm),
		}, nil)
	})
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	for _, r := range sim.Resources() {
		if r.CreatedByAPI {
			return fmt.Errorf("%s %s is left behind", r.Type, r.ID)
		}
	}
	if s := sim.InstanceStatus("i-db"); s != ecs.StatusRunning {
		return fmt.Errorf("the source is %s", s)
	}
	return nil
}

// A wayToFail is one in which a call can.
type wayToFail struct {
	name string
	cloud.Fault
}

func waysToFail() []wayToFail {
	return []wayToFail{
		{"throttled", cloud.Fault{Code: "Throttling.User"}},
		{"time-out after the effect", cloud.Fault{Kind: cloud.FaultCut, Applied: true, Delay: 3 * time.Minute}},
		{"500", cloud.Fault{Status: 500}},
		{"500 after the effect", cloud.Fault{Status: 500, Applied: true}},
		{"reset", cloud.Fault{Kind: cloud.FaultCut}},
		{"reset after the effect", cloud.Fault{Kind: cloud.FaultCut, Applied: true}},
		{"empty 200", cloud.Fault{Kind: cloud.FaultEmpty}},
		{"empty 200 after the effect", cloud.Fault{Kind: cloud.FaultEmpty, Applied: true}},
	}
}

// TestFaultSweep lets each write of a clone's whole life fail once, in each way
// in which a call can: nothing is made twice and nothing is left behind.
func TestFaultSweep(t *testing.T) {
	kinds := waysToFail()
	run := func(t *testing.T, f *cloud.Fault) (writes int, err error) {
		synctest.Test(t, func(t *testing.T) {
			m := &machines{out: map[string]string{}, boots: map[string]int{}, disks: map[string]string{}}
			sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret, Machines: m, FreeIPs: []string{"172.31.0.91", "172.31.0.92"}})
			defer sim.Close()
			addDB(sim)
			c, cerr := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(sim.Transport()))
			require.NoError(t, cerr)
			if f != nil {
				sim.InjectFault(*f)
			}
			err = lifeOfClone(t.Context(), sim, c)
			for _, a := range sweptActions {
				writes += sim.Counts()[a]
			}
			require.Empty(t, sim.Refused())
		})
		return writes, err
	}
	total, err := run(t, nil)
	require.NoError(t, err)
	t.Logf("%d writes, %d ways to fail", total, len(kinds))
	require.Greater(t, total, 25)
	for k, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			for n := range total {
				// All ways at each write take ten seconds and more; every day, and under
				// the race detector, each write has its turn in one way.
				if (!testenv.RunSlow() || raceDetector) && (n+k)%len(kinds) != 0 {
					continue
				}
				f := kind.Fault
				f.Writes, f.Skip = true, n
				if _, err := run(t, &f); err != nil {
					t.Errorf("write %d: %v", n+1, err)
				}
			}
		})
	}
}

// TestReplaceFails lets the replacement of a system disk fail once in each way:
// there is one new disk, and it stays.
func TestReplaceFails(t *testing.T) {
	for _, kind := range waysToFail() {
		world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
			ctx := t.Context()
			snaps, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-other", Token: "s"})
			require.NoError(t, err)
			snaps, err = c.WaitSnapshots(ctx, ids(snaps), nil)
			require.NoError(t, err)
			image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "im", Token: "i", Snapshots: snaps})
			require.NoError(t, err)
			_, err = c.WaitImage(ctx, image, nil)
			require.NoError(t, err)
			require.NoError(t, c.StopInstance(ctx, "i-other"))
			_, err = c.WaitInstance(ctx, "i-other", ecs.StatusStopped, nil)
			require.NoError(t, err)
			old, err := c.ListDisks(ctx, "i-other")
			require.NoError(t, err)
			f := kind.Fault
			f.Action = "ReplaceSystemDisk"
			sim.InjectFault(f)
			id := ""
			require.NoError(t, twice(func() (err error) {
				id, err = c.ReplaceSystemDisk(ctx, ecs.ReplaceInput{InstanceID: "i-other", OldDiskID: old[0].ID, ImageID: image, Token: "r"}, nil)
				return err
			}), kind.name)
			disks, err := c.ListDisks(ctx, "i-other")
			require.NoError(t, err)
			require.Len(t, disks, 1, kind.name)
			require.Equal(t, id, disks[0].ID, kind.name)
			require.NotEqual(t, old[0].ID, id, kind.name)
			again, err := c.ReplaceSystemDisk(ctx, ecs.ReplaceInput{InstanceID: "i-other", OldDiskID: old[0].ID, ImageID: image, Token: "r"}, nil)
			require.NoError(t, err)
			require.Equal(t, id, again, kind.name)
			require.NoError(t, c.StartInstance(ctx, "i-other"))
		})
	}
}

// TestSlowCloud goes through a clone's life on a cloud whose lists lag behind,
// which takes its time for each answer, and which throttles.
func TestSlowCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machines{out: map[string]string{}, boots: map[string]int{}, disks: map[string]string{}}
		sim := cloud.New(cloud.Config{
			AccessKeyID: keyID, AccessKeySecret: secret, Machines: m, FreeIPs: []string{"172.31.0.91"},
			VisibleAfter: 20 * time.Second, Latency: 300 * time.Millisecond, Throttle: cloud.Throttle{Calls: 5, Per: 10 * time.Second},
		})
		defer sim.Close()
		addDB(sim)
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		require.NoError(t, lifeOfClone(t.Context(), sim, c))
	})
}

// sweptActions are the writes of this package.
var sweptActions = []string{
	"CreateSnapshot", "CreateSnapshotGroup", "TagResources", "ModifySnapshotAttribute", "CreateImage", "RunInstances", "JoinSecurityGroup", "LeaveSecurityGroup",
	"ModifyInstanceAutoReleaseTime", "RunCommand", "RebootInstance", "StopInstance", "StartInstance", "ResetDisk", "DeleteInstance", "DeleteImage",
	"DeleteSnapshotGroup", "DeleteSnapshot",
}
