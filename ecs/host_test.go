package ecs_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// addDB adds a host with one system and four data disks, all ESSD, and settings
// that are not the defaults.
func addDB(sim *cloud.Cloud) {
	disks := []cloud.Disk{{ID: "d-0", Size: 40, PerformanceLevel: "PL1", AutoSnapshotPolicyID: "sp-1"}}
	for n := range 4 {
		disks = append(disks, cloud.Disk{ID: fmt.Sprint("d-", n+1), Size: 100 + n, PerformanceLevel: "PL0"})
	}
	sim.AddInstance(cloud.Instance{
		ID: "i-db", Name: "db-1", PrivateIP: "172.31.0.80", RAMRole: "db", SecurityGroups: []string{"sg-db"}, Disks: disks,
		UserData: base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\necho secret-of-db\n")),
		Details:  map[string]string{"HttpTokens": "required", "HttpEndpoint": "enabled", "DeploymentSetId": "ds-1"},
	})
	// Where clones begin in isolation.
	sim.AddInstance(cloud.Instance{ID: "i-guard", PrivateIP: "172.31.0.81", SecurityGroups: []string{"sg-isolated"}})
}

func TestDetails(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		addDB(sim)
		i, disks, err := c.GetDetails(t.Context(), "i-db")
		require.NoError(t, err)
		assert.Len(t, disks, 5)
		assert.Equal(t, "system", disks[0].Type)
		assert.Equal(t, "db", i.RAMRole)
		assert.Equal(t, len("#!/bin/sh\necho secret-of-db\n"), i.UserDataBytes)
		assert.NotContains(t, fmt.Sprintf("%+v", i), "secret-of-db", "the user data itself is not kept")
		assert.Equal(t, "required", i.MetadataTokens)
		assert.Equal(t, "ds-1", i.DeploymentSetID)
		assert.Positive(t, i.VCPU)
		assert.Equal(t, i.VCPU, i.CPUCores*i.CPUThreadsPerCore, "the type's own CPU options")
		for _, b := range ecs.CheckClone(i, disks) {
			assert.False(t, b.Blocking, b.Reason)
		}

		sim.AddInstance(cloud.Instance{
			ID: "i-many", PrivateIP: "172.31.0.82", IPv6: []string{"2001:db8::82"}, SecondaryIPs: []string{"172.31.0.83"},
			ENIs: []cloud.ENI{{ID: "eni-second", PrivateIP: "172.31.0.84"}}, Locks: []string{"financial"},
			Disks: []cloud.Disk{{}, {ID: "d-shared", MultiAttach: true}, {ID: "d-local", Category: "local_ssd_pro"}},
		})
		i, disks, err = c.GetDetails(t.Context(), "i-many")
		require.NoError(t, err)
		assert.Equal(t, []string{"eni-second"}, i.SecondaryENIs)
		assert.Contains(t, i.PrivateIPs, "172.31.0.84")
		codes := map[string]string{}
		for _, b := range ecs.CheckClone(i, disks) {
			if b.Blocking {
				codes[b.Code] = b.Object
			}
		}
		assert.Equal(t, map[string]string{
			"ipv6": "i-many", "secondary-ip": "i-many", "secondary-eni": "eni-second", "locked": "i-many", "multi-attach": "d-shared", "local-disk": "d-local",
		}, codes)
	})
}

// Before anything is made: what it would cost, whether there is any, and whether
// the cloud would do it.
func TestOffer(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		addDB(sim)
		ctx := t.Context()
		i, disks, err := c.GetDetails(ctx, "i-db")
		require.NoError(t, err)
		in := ecs.CloneInput{Source: i, Disks: disks, Name: "db-2"}
		small, err := c.Price(ctx, ecs.CloneInput{Source: i, Disks: disks[:1]})
		require.NoError(t, err)
		big, err := c.Price(ctx, in)
		require.NoError(t, err)
		assert.Greater(t, big.Hourly, small.Hourly)
		assert.NotEmpty(t, big.Currency)
		assert.Empty(t, big.Unpriced)
		five, err := c.Price(ctx, ecs.CloneInput{Source: i, Disks: append(disks, ecs.Disk{ID: "d-5", Type: "data", Category: "cloud_essd", PerformanceLevel: "PL0", Size: 10})})
		require.NoError(t, err)
		assert.Equal(t, []string{"d-5"}, five.Unpriced)

		s, err := c.Stock(ctx, i.Type, i.Zone)
		require.NoError(t, err)
		assert.True(t, s.Available)
		none, err := c.Stock(ctx, "ecs.none.large", i.Zone)
		require.NoError(t, err)
		assert.False(t, none.Available)

		// The image that i-db was made of is gone; another host's is there.
		require.ErrorIs(t, c.DryRunClone(ctx, in), ecs.ErrNotFound)
		in.ImageID = makeImage(t, c, "i-db", "dry")
		require.NoError(t, c.DryRunClone(ctx, in))
		sim.SetStock(i.Type, i.Zone, false)
		s, err = c.Stock(ctx, i.Type, i.Zone)
		require.NoError(t, err)
		assert.False(t, s.Available)
		var e *ecs.Error
		require.ErrorAs(t, c.DryRunClone(ctx, in), &e)
		assert.Equal(t, "OperationDenied.NoStock", e.Code)
		for _, r := range sim.Resources() {
			assert.False(t, r.Type == "instance" && r.CreatedByAPI, "a dry run made %s", r.ID)
		}
	})
}

// makeImage makes an image of all disks of a host and waits for it.
func makeImage(t *testing.T, c *ecs.Client, host, token string) string {
	t.Helper()
	set, err := c.CreateSnapshotSet(t.Context(), ecs.SnapshotInput{InstanceID: host, Token: token + "-s", Tags: map[string]string{"run": "r1"}})
	require.NoError(t, err)
	snaps, err := c.WaitSnapshots(t.Context(), ids(set.Snapshots), nil)
	require.NoError(t, err)
	id, err := c.CreateImage(t.Context(), ecs.ImageInput{Name: "of-" + host + "-" + token, Token: token + "-i", Snapshots: snaps, Tags: map[string]string{"run": "r1"}})
	require.NoError(t, err)
	_, err = c.WaitImage(t.Context(), id, nil)
	require.NoError(t, err)
	return id
}

// Disks that can be are snapshotted as one group, found again, tagged and kept
// as single ones are; others one by one, with the reason.
func TestSnapshotSet(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		addDB(sim)
		ctx := t.Context()
		in := ecs.SnapshotInput{InstanceID: "i-db", Token: "t-set", Name: "db-before", RetentionDays: 7, Tags: map[string]string{"run": "r1"}}
		set, err := c.CreateSnapshotSet(ctx, in)
		require.NoError(t, err)
		require.NotEmpty(t, set.GroupID)
		assert.Empty(t, set.Reason)
		require.Len(t, set.Snapshots, 5)
		for n, s := range set.Snapshots {
			assert.Equal(t, fmt.Sprint("d-", n), s.SourceDiskID)
			assert.Equal(t, 7, s.RetentionDays)
			assert.Equal(t, map[string]string{"run": "r1", ecs.TokenTag: "t-set"}, s.Tags)
		}
		again, err := c.CreateSnapshotSet(ctx, in)
		require.NoError(t, err)
		assert.Equal(t, set.GroupID, again.GroupID)
		assert.Equal(t, ids(set.Snapshots), ids(again.Snapshots))
		done, err := c.WaitSnapshots(ctx, ids(set.Snapshots), nil)
		require.NoError(t, err)
		groups, err := c.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: map[string]string{"run": "r1"}})
		require.NoError(t, err)
		require.Len(t, groups, 1)
		assert.Equal(t, "accomplished", groups[0].Status)
		assert.Len(t, groups[0].Snapshots, 5)
		assert.Equal(t, 1, sim.Counts()["CreateSnapshotGroup"])
		assert.Zero(t, sim.Counts()["CreateSnapshot"])

		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "of-group", Token: "t-img", Snapshots: done, Tags: map[string]string{"run": "r1"}})
		require.NoError(t, err)
		_, err = c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		require.NoError(t, c.DeleteImage(ctx, image)) // else its snapshots would outlive the group
		require.NoError(t, c.DeleteSnapshotGroup(ctx, set.GroupID))
		require.NoError(t, c.DeleteSnapshotGroup(ctx, set.GroupID))

		// web-90 has a disk of another family.
		set, err = c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "t-mixed"})
		require.NoError(t, err)
		assert.Empty(t, set.GroupID)
		assert.Contains(t, set.Reason, "d-data")
		assert.Len(t, set.Snapshots, 2)

		warm, err := c.CreateWarmUp(ctx, ecs.SnapshotInput{InstanceID: "i-other", Token: "t-warm"})
		require.NoError(t, err)
		assert.Equal(t, 3, warm[0].RetentionDays)
		assert.Equal(t, "yes", warm[0].Tags[ecs.WarmUpTag])
	})
}

// A clone begins in an isolated group, holds its units back, and joins the
// source's groups when that is proved.
func TestQuarantinedClone(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
		addDB(sim)
		ctx := t.Context()
		image := makeImage(t, c, "i-db", "q")
		i, disks, err := c.GetDetails(ctx, "i-db")
		require.NoError(t, err)
		q := ecs.Quarantine{Units: []string{"crond", "docker.socket"}}
		data, err := q.UserData()
		require.NoError(t, err)
		id, err := c.CreateClone(ctx, ecs.CloneInput{Source: i, Disks: disks, ImageID: image, Name: "db-2", Token: "t", UserData: data, SecurityGroups: []string{"sg-isolated"}})
		require.NoError(t, err)
		clone, err := c.WaitInstance(ctx, id, ecs.StatusRunning, nil)
		require.NoError(t, err)
		assert.Equal(t, []string{"sg-isolated"}, clone.SecurityGroups)
		assert.Equal(t, "required", clone.MetadataTokens)
		assert.Equal(t, "ds-1", clone.DeploymentSetID)
		require.Len(t, m.created, 1)
		assert.Equal(t, string(data), string(m.created[0].UserData))

		m.mu.Lock()
		m.out[id] = "crond.service active held\ndocker.socket inactive held\n"
		m.mu.Unlock()
		ctx2, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err = c.CheckQuarantine(ctx2, id, q)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, `still "crond.service active held"`)
		m.mu.Lock()
		m.out[id] = "crond.service inactive held\ndocker.socket inactive held\n"
		m.notUp = 2
		m.mu.Unlock()
		require.NoError(t, c.CheckQuarantine(ctx, id, q))

		for range 2 {
			require.NoError(t, c.SetSecurityGroups(ctx, id, i.SecurityGroups))
		}
		clone, err = c.GetInstance(ctx, id)
		require.NoError(t, err)
		assert.Equal(t, []string{"sg-db"}, clone.SecurityGroups)
		assert.Equal(t, 1, sim.Counts()["JoinSecurityGroup"])
		assert.Equal(t, 1, sim.Counts()["LeaveSecurityGroup"])
		require.Error(t, c.SetSecurityGroups(ctx, id, nil))
		var e *ecs.Error
		require.ErrorAs(t, c.SetSecurityGroups(ctx, id, []string{"sg-none"}), &e)
	})
}

func TestRebootAndWait(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
		bootID := func(ctx context.Context) (string, error) {
			r, err := c.RunCommand(ctx, ecs.CommandInput{InstanceID: "i-web90", Script: "cat boot_id"})
			if err != nil {
				return "", err
			}
			return string(r.Output), nil
		}
		id, err := c.RebootAndWait(t.Context(), "i-web90", bootID)
		require.NoError(t, err)
		assert.Equal(t, "boot-1\n", id)
		sim.InjectFault(cloud.Fault{Action: "RebootInstance", Kind: cloud.FaultCut, Applied: true})
		id, err = c.RebootAndWait(t.Context(), "i-web90", bootID)
		require.NoError(t, err, "a lost answer is not a lost reboot")
		assert.Equal(t, "boot-2\n", id)
		assert.Equal(t, 2, sim.Counts()["RebootInstance"])

		sim.InjectFault(cloud.Fault{Action: "RebootInstance"}) // it never happens
		_, err = c.RebootAndWait(t.Context(), "i-web90", bootID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "still up since before the reboot")
		_, err = c.RebootAndWait(t.Context(), "i-web90", func(context.Context) (string, error) { return "", errors.New("no route") })
		require.ErrorContains(t, err, "no route")
		assert.Equal(t, 2, sim.Counts()["RebootInstance"], "no reboot that cannot be proved")
	})
}

// A disk goes back to its own snapshot only, and only while the instance stands.
func TestDiskRollback(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
		addDB(sim)
		ctx := t.Context()
		set, err := c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: "i-db", Token: "t"})
		require.NoError(t, err)
		sys, data := set.Snapshots[0], set.Snapshots[1]
		reset := ecs.ResetInput{InstanceID: "i-db", DiskID: "d-0", SnapshotID: sys.ID}
		require.ErrorIs(t, c.ResetDisk(ctx, reset, nil), ecs.ErrGuard, "not accomplished")
		_, err = c.WaitSnapshots(ctx, ids(set.Snapshots), nil)
		require.NoError(t, err)
		require.ErrorContains(t, c.ResetDisk(ctx, reset, nil), "stop it first")
		require.NoError(t, c.StopInstance(ctx, "i-db"))
		_, err = c.WaitInstance(ctx, "i-db", ecs.StatusStopped, nil)
		require.NoError(t, err)
		for _, bad := range []ecs.ResetInput{{InstanceID: "i-db", DiskID: "d-0", SnapshotID: data.ID}, {InstanceID: "i-web90", DiskID: "d-0", SnapshotID: sys.ID}} {
			require.ErrorIs(t, c.ResetDisk(ctx, bad, nil), ecs.ErrGuard)
		}
		require.ErrorIs(t, c.ResetDisk(ctx, ecs.ResetInput{InstanceID: "i-db", DiskID: "d-0", SnapshotID: "s-none"}, nil), ecs.ErrNotFound)
		var words []string
		require.NoError(t, c.ResetDisk(ctx, reset, func(p ecs.Progress) { words = append(words, p.Status) }))
		assert.Equal(t, []string{"In_use", "ReIniting", "In_use"}, words)
		assert.Equal(t, 1, sim.Counts()["ResetDisk"])
		assert.Equal(t, "disk of i-db", m.disks["i-db"])

		alone, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-db", SystemOnly: true, Token: "alone"})
		require.NoError(t, err)
		require.Len(t, alone, 1)
		assert.Equal(t, "d-0", alone[0].SourceDiskID)
		_, err = c.WaitSnapshots(ctx, ids(alone), nil)
		require.NoError(t, err)
		_, err = c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: "i-db", SystemOnly: true, Token: "set"})
		require.ErrorContains(t, err, "a set is of all disks")

		// A new system disk: of an image of the system disk alone.
		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "sys-only", Token: "ti", Snapshots: []ecs.Snapshot{sys}})
		require.NoError(t, err)
		in := ecs.ReplaceInput{InstanceID: "i-db", OldDiskID: "d-0", ImageID: image, Token: "tr"}
		_, err = c.ReplaceSystemDisk(ctx, in, nil)
		require.ErrorIs(t, err, ecs.ErrGuard, "the image is not ready")
		_, err = c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		whole := makeImage(t, c, "i-db", "w")
		_, err = c.ReplaceSystemDisk(ctx, ecs.ReplaceInput{InstanceID: "i-db", OldDiskID: "d-0", ImageID: whole, Token: "tw"}, nil)
		require.ErrorContains(t, err, "has data disks")
		small := in
		small.Size = 1
		_, err = c.ReplaceSystemDisk(ctx, small, nil)
		require.ErrorIs(t, err, ecs.ErrGuard, "smaller than the image")
		before, err := c.ListDisks(ctx, "i-db")
		require.NoError(t, err)
		in.Size = before[0].Size + 20
		id, err := c.ReplaceSystemDisk(ctx, in, nil)
		require.NoError(t, err)
		assert.NotEqual(t, "d-0", id)
		after, err := c.ListDisks(ctx, "i-db")
		require.NoError(t, err)
		assert.Equal(t, in.Size, after[0].Size)
		assert.Equal(t, in.ImageID, after[0].ImageID)
		assert.Equal(t, before[0].Category, after[0].Category)
		assert.Equal(t, "sp-1", before[0].AutoSnapshotPolicyID)
		assert.Empty(t, after[0].AutoSnapshotPolicyID)
		assert.Equal(t, before[1:], after[1:], "the data disks stay")
		again, err := c.ReplaceSystemDisk(ctx, in, nil)
		require.NoError(t, err)
		assert.Equal(t, id, again)
		assert.Equal(t, 1, sim.Counts()["ReplaceSystemDisk"])
		require.ErrorIs(t, c.ResetDisk(ctx, reset, nil), ecs.ErrGuard, "the old disk is gone")
		require.NoError(t, c.StartInstance(ctx, "i-db"))
	})
}

func TestEvidence(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		sim.SetConsole("i-web90", "Kernel panic - not syncing: VFS: Unable to mount root fs\n")
		e := c.CollectEvidence(t.Context(), "i-web90")
		assert.Empty(t, e.Problems)
		assert.Contains(t, string(e.Console), "Unable to mount root fs")
		assert.Equal(t, []byte{0xff, 0xd8}, e.Screenshot[:2], "a JPEG")
		assert.Equal(t, ecs.StatusRunning, e.Status)
		assert.True(t, e.Agent.Running)

		sim.Deny("GetInstanceScreenshot")
		e = c.CollectEvidence(t.Context(), "i-web90")
		require.Len(t, e.Problems, 1)
		assert.Contains(t, e.Problems[0], "ecs:GetInstanceScreenshot")
		assert.NotEmpty(t, e.Console)
		assert.Len(t, c.CollectEvidence(t.Context(), "i-none").Problems, 4-1) // no agent is no error
	})
}

// Nothing goes unless all of it is ours, and it goes in the order that works.
func TestRelease(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		addDB(sim)
		ctx := t.Context()
		tags := map[string]string{"run": "r1"}
		image := makeImage(t, c, "i-db", "r")
		groups, err := c.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: tags})
		require.NoError(t, err)
		i, disks, err := c.GetDetails(ctx, "i-db")
		require.NoError(t, err)
		clone, err := c.CreateClone(ctx, ecs.CloneInput{Source: i, Disks: disks, ImageID: image, Name: "db-2", Token: "t", Tags: tags})
		require.NoError(t, err)
		single, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "t2", Tags: tags})
		require.NoError(t, err)
		theirs, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-other", Token: "t3"})
		require.NoError(t, err)

		in := ecs.ReleaseInput{
			Guard: ecs.Guard{TagKey: "run", TagValue: "r1"}, SourceID: "i-db", InstanceID: clone, Images: []string{image},
			SnapshotGroups: []string{groups[0].ID}, Snapshots: append(ids(single), ids(groups[0].Snapshots)...),
		}
		for name, bad := range map[string]func(*ecs.ReleaseInput){
			"no tag": func(r *ecs.ReleaseInput) { r.Guard = ecs.Guard{} }, "other tag": func(r *ecs.ReleaseInput) { r.Guard.TagValue = "r2" },
			"source": func(r *ecs.ReleaseInput) { r.InstanceID = "i-db" }, "no source": func(r *ecs.ReleaseInput) { r.SourceID = "" },
			"untagged instance": func(r *ecs.ReleaseInput) { r.InstanceID = "i-web90" }, "their snapshot": func(r *ecs.ReleaseInput) { r.Snapshots = ids(theirs) },
		} {
			r := in
			bad(&r)
			require.ErrorIs(t, c.Release(ctx, r, nil), ecs.ErrGuard, name)
		}
		counts := sim.Counts()
		assert.Zero(t, counts["DeleteInstance"]+counts["StopInstance"]+counts["DeleteImage"]+counts["DeleteSnapshot"]+counts["DeleteSnapshotGroup"])

		var went []string
		for range 2 {
			require.NoError(t, c.Release(ctx, in, func(what string) { went = append(went, strings.Fields(what)[0]) }))
		}
		assert.Equal(t, []string{"instance", "image", "snapshot", "snapshot", "snapshot"}, went)
		for _, r := range sim.Resources() {
			assert.False(t, r.CreatedByAPI && r.ID != theirs[0].ID, "%v is left behind", r)
		}
		assert.Equal(t, ecs.StatusRunning, sim.InstanceStatus("i-db"))
	})
}

// What fails long after the call that began it ends the wait at once.
func TestFailsLater(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		ctx := t.Context()
		var se *ecs.StateError
		sim.InjectFault(cloud.Fault{Action: "CreateSnapshot", Kind: cloud.FaultFails})
		snaps, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-other", Token: "t1"})
		require.NoError(t, err)
		_, err = c.WaitSnapshots(ctx, ids(snaps), nil)
		require.ErrorAs(t, err, &se)
		assert.EqualError(t, err, fmt.Sprintf(`snapshot %s is "failed" and will not become "accomplished"`, snaps[0].ID))

		snaps, err = c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-other", Token: "t2"})
		require.NoError(t, err)
		snaps, err = c.WaitSnapshots(ctx, ids(snaps), nil)
		require.NoError(t, err)
		sim.InjectFault(cloud.Fault{Action: "CreateImage", Kind: cloud.FaultFails})
		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "bad", Token: "t3", Snapshots: snaps})
		require.NoError(t, err)
		_, err = c.WaitImage(ctx, image, nil)
		require.ErrorAs(t, err, &se)
		assert.Equal(t, "CreateFailed", se.State)

		image, err = c.CreateImage(ctx, ecs.ImageInput{Name: "good", Token: "t4", Snapshots: snaps})
		require.NoError(t, err)
		_, err = c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		i, disks, err := c.GetDetails(ctx, "i-other")
		require.NoError(t, err)
		sim.InjectFault(cloud.Fault{Action: "RunInstances", Kind: cloud.FaultFails})
		id, err := c.CreateClone(ctx, ecs.CloneInput{Source: i, Disks: disks, ImageID: image, Name: "gone", Token: "t5"})
		require.NoError(t, err)
		start := time.Now()
		_, err = c.WaitInstance(ctx, id, ecs.StatusRunning, nil)
		require.ErrorAs(t, err, &se)
		require.ErrorIs(t, err, ecs.ErrNotFound)
		assert.Contains(t, err.Error(), `it was "Pending" before`)
		assert.Less(t, time.Since(start), 10*time.Minute)
	})
}

// One clear message each for what is wrong with who asks, where and when.
func TestWrongAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
		defer sim.Close()
		sim.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.1"})
		ask := func(cfg ecs.Config, rt http.RoundTripper) error {
			if cfg.AccessKeyID == "" {
				cfg.AccessKeyID, cfg.AccessKeySecret = keyID, secret
			}
			c, err := ecs.New(cfg, ecs.WithTransport(rt))
			require.NoError(t, err)
			_, err = c.GetInstance(t.Context(), "i-1")
			return err
		}
		require.NoError(t, ask(ecs.Config{Region: "cn-hangzhou"}, sim.Transport()))
		_, err := ecs.New(ecs.Config{Region: "China (Hangzhou)", AccessKeyID: keyID, AccessKeySecret: secret})
		require.ErrorIs(t, err, ecs.ErrRegion)
		require.EqualError(t, err, `region "China (Hangzhou)" is not a region ID as cn-hangzhou`)

		err = ask(ecs.Config{Region: "cn-beijing"}, sim.Transport())
		require.ErrorIs(t, err, ecs.ErrRegion)
		assert.ErrorContains(t, err, "region cn-beijing, endpoint ecs.cn-beijing.aliyuncs.com")

		sim.Deny("DescribeInstances")
		err = ask(ecs.Config{Region: "cn-hangzhou"}, sim.Transport())
		require.ErrorIs(t, err, ecs.ErrPermission)
		require.ErrorIs(t, err, ecs.ErrCredentials)
		assert.ErrorContains(t, err, `add a statement with Action "ecs:DescribeInstances" on Resource "acs:ecs:*:*:*"`)
		sim.Allow()

		err = ask(ecs.Config{Region: "cn-hangzhou"}, late{sim.Transport()})
		require.ErrorIs(t, err, ecs.ErrClock)
		assert.ErrorContains(t, err, "the clock of this machine is 20m0s behind the cloud's")
	})
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret, SecurityToken: "the-token-of-the-test", TokenExpires: time.Now().Add(time.Hour)})
		defer sim.Close()
		sim.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.1"})
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret, SecurityToken: "the-token-of-the-test"}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		_, err = c.GetInstance(t.Context(), "i-1")
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		_, err = c.GetInstance(t.Context(), "i-1")
		require.ErrorIs(t, err, ecs.ErrCredentials)
		assert.ErrorContains(t, err, "get fresh temporary credentials")
		assert.NotContains(t, err.Error(), "the-token-of-the-test")
	})
}

// late hands requests on 20 minutes after they were made, and tells the time of
// then: for the cloud the clock of the sender is behind.
type late struct{ next http.RoundTripper }

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(20 * time.Minute)
	resp, err := l.next.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
	if err == nil {
		resp.Header.Set("Date", time.Now().Add(20*time.Minute).UTC().Format(http.TimeFormat))
	}
	return resp, err
}
