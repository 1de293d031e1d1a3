package ecs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	keyID  = "LTAI5tExampleKeyIdOfTest"
	secret = "s3cr3tOfTheTestThatNobodyMaySee"
)

// machines answers commands; everything else behind instances is empty.
type machines struct {
	mu      sync.Mutex
	out     map[string]string // by instance
	created []cloud.Machine
	notUp   int // how many commands are not delivered yet
	boots   map[string]int
	disks   map[string]string // what is on the disks of an instance that was restored
}

func (m *machines) Snapshot(id string) (string, error) { return "disk of " + id, nil }
func (m *machines) Create(x cloud.Machine) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created = append(m.created, x)
	return nil
}
func (m *machines) Start(string) error { return nil }
func (m *machines) Stop(string) error  { return nil }
func (m *machines) Reboot(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots[id]++
	return nil
}

// Restore implements cloud.Restorer.
func (m *machines) Restore(id, from string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks[id] = from
	return nil
}
func (m *machines) Delete(string) error { return nil }
func (m *machines) RunCommand(ctx context.Context, id, script string) (int, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.notUp > 0 {
		m.notUp--
		return 0, nil, errors.New("agent is not up")
	}
	if strings.Contains(script, "boot_id") {
		return 0, fmt.Appendf(nil, "boot-%d\n", m.boots[id]), nil
	}
	if strings.Contains(script, "exit 3") {
		return 3, []byte("bad\n"), nil
	}
	return 0, []byte(m.out[id]), nil
}

// world runs f with a client on a simulated cloud in virtual time, and checks
// that every request was one the cloud knows.
func world(t *testing.T, f func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines)) {
	synctest.Test(t, func(t *testing.T) {
		m := &machines{out: map[string]string{}, boots: map[string]int{}, disks: map[string]string{}}
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret, Machines: m, FreeIPs: []string{"172.31.0.91", "172.31.0.92"}})
		defer sim.Close()
		sim.AddInstance(cloud.Instance{
			ID: "i-web90", Name: "web-90", HostName: "web-90", PrivateIP: "172.31.0.90", KeyPair: "ops", RAMRole: "web", SecurityGroups: []string{"sg-web", "sg-ssh"},
			Tags:  map[string]string{"env": "prod"},
			Disks: []cloud.Disk{{ID: "d-sys", Size: 40, Category: "cloud_essd", PerformanceLevel: "PL1"}, {ID: "d-data", Size: 100, Category: "cloud_efficiency"}},
		})
		sim.AddInstance(cloud.Instance{ID: "i-other", Name: "web-9", PrivateIP: "172.31.0.9"})
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		f(t, sim, c, m)
		assert.Empty(t, sim.Refused())
	})
}

func TestInventory(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		ctx := t.Context()
		i, err := c.GetInstance(ctx, "i-web90")
		require.NoError(t, err)
		assert.Equal(t, "web-90", i.Name)
		assert.Equal(t, ecs.StatusRunning, i.Status)
		assert.Equal(t, []string{"172.31.0.90"}, i.PrivateIPs)
		assert.Len(t, i.ENIs, 1)
		assert.ElementsMatch(t, []string{"sg-web", "sg-ssh"}, i.SecurityGroups)
		assert.Equal(t, map[string]string{"env": "prod"}, i.Tags)
		assert.Equal(t, "ops", i.KeyPair)
		assert.True(t, i.AutoReleaseTime.IsZero())

		_, err = c.GetInstance(ctx, "i-none")
		require.ErrorIs(t, err, ecs.ErrNotFound)
		assert.EqualError(t, err, "instance i-none: not found in cn-hangzhou")
		_, err = c.GetInstance(ctx, "")
		require.Error(t, err, "no ID must not mean any instance")

		i, err = c.FindInstance(ctx, ecs.Lookup{PrivateIP: "172.31.0.9"})
		require.NoError(t, err)
		assert.Equal(t, "i-other", i.ID, "172.31.0.90 is not meant")
		i, err = c.FindInstance(ctx, ecs.Lookup{Name: "web-90"})
		require.NoError(t, err)
		assert.Equal(t, "i-web90", i.ID)
		_, err = c.FindInstance(ctx, ecs.Lookup{ID: "i-web90", PrivateIP: "172.31.0.9"})
		require.ErrorIs(t, err, ecs.ErrNotFound)
		sim.AddInstance(cloud.Instance{ID: "i-twin", Name: "web-9", PrivateIP: "172.31.0.10"})
		_, err = c.FindInstance(ctx, ecs.Lookup{Name: "web-9"})
		require.ErrorContains(t, err, "2 instances match name web-9: i-other (web-9, 172.31.0.9), i-twin (web-9, 172.31.0.10)")

		disks, err := c.ListDisks(ctx, "i-web90")
		require.NoError(t, err)
		require.Len(t, disks, 2)
		assert.Equal(t, "d-sys", disks[0].ID)
		assert.Equal(t, "system", disks[0].Type)
		assert.Equal(t, 100, disks[1].Size)
	})
}

// Lists of more than one page and more IDs than one request takes.
func TestPages(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		var ids []string
		for n := range 230 {
			id := fmt.Sprintf("i-%03d", n)
			sim.AddInstance(cloud.Instance{ID: id, PrivateIP: fmt.Sprintf("10.0.%d.%d", n/200, n%200+1), Tags: map[string]string{"many": "yes"}})
			ids = append(ids, id)
		}
		all, err := c.ListInstances(t.Context(), ecs.Filter{Tags: map[string]string{"many": "yes"}})
		require.NoError(t, err)
		assert.Len(t, all, 230)
		all, err = c.ListInstances(t.Context(), ecs.Filter{IDs: append(ids, "i-none")})
		require.NoError(t, err)
		assert.Len(t, all, 230)
	})
}

// The way of a transition host from the first snapshot to its release.
func TestTransitionHost(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
		ctx := t.Context()
		tags := map[string]string{"upgradectl:run": "r1"}
		in := ecs.SnapshotInput{InstanceID: "i-web90", Token: "u-snap", Name: "web-90-before", RetentionDays: 7, Tags: tags}
		snaps, err := c.CreateSnapshots(ctx, in)
		require.NoError(t, err)
		require.Len(t, snaps, 2)
		assert.Equal(t, "d-sys", snaps[0].SourceDiskID)
		assert.Equal(t, "progressing", snaps[0].Status)
		assert.Equal(t, 7, snaps[0].RetentionDays)
		assert.Equal(t, map[string]string{"upgradectl:run": "r1", ecs.TokenTag: "u-snap"}, snaps[1].Tags)

		again, err := c.CreateSnapshots(ctx, in)
		require.NoError(t, err)
		assert.Equal(t, ids(snaps), ids(again), "a repeated call makes nothing new")

		start, seen := time.Now(), map[string]int{}
		done, err := c.WaitSnapshots(ctx, ids(snaps), func(p ecs.Progress) { seen[p.ID+" "+p.Status]++ })
		require.NoError(t, err)
		assert.Greater(t, time.Since(start), time.Minute)
		assert.Equal(t, ids(snaps), ids(done))
		assert.Equal(t, "accomplished", done[1].Status)
		assert.NotEmpty(t, seen[snaps[0].ID+" progressing"])

		again, err = c.CreateSnapshots(ctx, in)
		require.NoError(t, err)
		assert.Equal(t, ids(snaps), ids(again), "nor later, when the cloud may have forgotten the token")

		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "web-90-image", Token: "u-img", Snapshots: done, Tags: tags})
		require.NoError(t, err)
		image2, err := c.CreateImage(ctx, ecs.ImageInput{Name: "web-90-image", Token: "u-img", Snapshots: done, Tags: tags})
		require.NoError(t, err)
		assert.Equal(t, image, image2)
		img, err := c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		assert.ElementsMatch(t, ids(snaps), img.Snapshots)

		source, err := c.GetInstance(ctx, "i-web90")
		require.NoError(t, err)
		disks, err := c.ListDisks(ctx, "i-web90")
		require.NoError(t, err)
		release := time.Now().Add(24 * time.Hour)
		clone := ecs.CloneInput{Source: source, Disks: disks, ImageID: image, Name: "web-90-transition", Token: "u-clone", AutoRelease: release, UserData: []byte("#cloud-config\n"), Tags: tags}
		id, err := c.CreateClone(ctx, clone)
		require.NoError(t, err)
		id2, err := c.CreateClone(ctx, clone)
		require.NoError(t, err)
		assert.Equal(t, id, id2)

		var words []string
		i, err := c.WaitInstance(ctx, id, ecs.StatusRunning, func(p ecs.Progress) { words = append(words, p.Status) })
		require.NoError(t, err)
		assert.Equal(t, ecs.StatusRunning, words[len(words)-1])
		assert.Equal(t, []string{"172.31.0.91"}, i.PrivateIPs)
		assert.Empty(t, i.PublicIPs)
		assert.Equal(t, "PostPaid", i.ChargeType)
		assert.False(t, i.DeletionProtection)
		assert.Equal(t, "ops", i.KeyPair)
		assert.Equal(t, source.Zone, i.Zone)
		assert.Equal(t, source.VSwitch, i.VSwitch)
		assert.ElementsMatch(t, source.SecurityGroups, i.SecurityGroups)
		assert.Equal(t, map[string]string{"upgradectl:run": "r1", ecs.TokenTag: "u-clone"}, i.Tags, "the source's tags are not copied")
		assert.Equal(t, release.UTC().Truncate(time.Minute), i.AutoReleaseTime)
		cloned, err := c.ListDisks(ctx, id)
		require.NoError(t, err)
		require.Len(t, cloned, 2)
		assert.Equal(t, "cloud_efficiency", cloned[1].Category)
		assert.True(t, cloned[1].DeleteWithInstance)
		require.Len(t, m.created, 1)
		assert.Equal(t, "#cloud-config\n", string(m.created[0].UserData))

		require.NoError(t, c.SetAutoRelease(ctx, id, time.Time{}))
		i, err = c.GetInstance(ctx, id)
		require.NoError(t, err)
		assert.True(t, i.AutoReleaseTime.IsZero())
		at := time.Now().Add(3*time.Hour + 17*time.Second)
		require.NoError(t, c.SetAutoRelease(ctx, id, at))
		i, err = c.GetInstance(ctx, id)
		require.NoError(t, err)
		assert.Equal(t, at.UTC().Truncate(time.Minute), i.AutoReleaseTime)

		guard := ecs.Guard{TagKey: "upgradectl:run", TagValue: "r1"}
		for _, g := range []ecs.Guard{{}, {TagKey: "upgradectl:run"}, {TagKey: "upgradectl:run", TagValue: "r2"}} {
			require.ErrorIs(t, c.DeleteInstance(ctx, id, g), ecs.ErrGuard)
		}
		require.ErrorIs(t, c.DeleteInstance(ctx, "i-web90", guard), ecs.ErrGuard)
		require.ErrorContains(t, c.DeleteInstance(ctx, id, guard), "stop it first")
		require.NoError(t, c.StopInstance(ctx, id))
		require.NoError(t, c.StopInstance(ctx, id), "stopping already")
		require.NoError(t, c.DeleteInstance(ctx, id, guard), "it waits for the end of the shutdown")
		_, err = c.GetInstance(ctx, id)
		require.ErrorIs(t, err, ecs.ErrNotFound)
		require.NoError(t, c.DeleteInstance(ctx, id, guard), "gone is what was wanted")

		var ee *ecs.Error
		require.ErrorAs(t, c.DeleteSnapshot(ctx, snaps[0].ID), &ee, "an image is made of it")
		require.NoError(t, c.DeleteImage(ctx, image))
		require.NoError(t, c.DeleteImage(ctx, image))
		for _, s := range snaps {
			require.NoError(t, c.DeleteSnapshot(ctx, s.ID))
			require.NoError(t, c.DeleteSnapshot(ctx, s.ID))
		}
		for _, r := range sim.Resources() {
			assert.False(t, r.CreatedByAPI, "%v is left behind", r)
		}
		counts := sim.Counts()
		assert.Equal(t, 2, counts["CreateSnapshot"])
		assert.Equal(t, 1, counts["CreateImage"])
		assert.Equal(t, 1, counts["RunInstances"])
	})
}

func ids(s []ecs.Snapshot) []string {
	var out []string
	for _, x := range s {
		out = append(out, x.ID)
	}
	return out
}

// A create whose answer is lost happens once.
func TestLostAnswers(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		for _, action := range []string{"CreateSnapshot", "CreateImage", "RunInstances", "StartInstance", "StopInstance", "DeleteInstance", "RunCommand"} {
			sim.InjectFault(cloud.Fault{Action: action, Kind: cloud.FaultCut, Applied: true})
		}
		ctx := t.Context()
		snaps, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "t1"})
		require.NoError(t, err)
		snaps, err = c.WaitSnapshots(ctx, ids(snaps), nil)
		require.NoError(t, err)
		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "im", Token: "t2", Snapshots: snaps})
		require.NoError(t, err)
		_, err = c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		source, err := c.GetInstance(ctx, "i-web90")
		require.NoError(t, err)
		disks, err := c.ListDisks(ctx, "i-web90")
		require.NoError(t, err)
		id, err := c.CreateClone(ctx, ecs.CloneInput{Source: source, Disks: disks, ImageID: image, Name: "x", Token: "t3", PublicIP: true})
		require.NoError(t, err)
		i, err := c.WaitInstance(ctx, id, ecs.StatusRunning, nil)
		require.NoError(t, err)
		assert.Len(t, i.PublicIPs, 1)
		require.NoError(t, c.StopInstance(ctx, id))
		_, err = c.WaitInstance(ctx, id, ecs.StatusStopped, nil)
		require.NoError(t, err)
		require.NoError(t, c.StartInstance(ctx, id))
		_, err = c.WaitInstance(ctx, id, ecs.StatusRunning, nil)
		require.NoError(t, err)
		mine, err := c.ListInstances(ctx, ecs.Filter{Tags: map[string]string{ecs.TokenTag: "t3"}})
		require.NoError(t, err)
		assert.Len(t, mine, 1)
		require.NoError(t, c.StopInstance(ctx, id))
		require.NoError(t, c.DeleteInstance(ctx, id, ecs.Guard{TagKey: ecs.TokenTag, TagValue: "t3"}))
		assert.Equal(t, 1, sim.Counts()["DeleteInstance"])
		made := map[string]int{}
		for _, r := range sim.Resources() {
			if r.CreatedByAPI {
				made[r.Type]++
			}
		}
		assert.Equal(t, map[string]int{"snapshot": 2, "image": 1}, made)
	})
}

func TestReboot(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		sim.InjectFault(cloud.Fault{Action: "RebootInstance", Kind: cloud.FaultCut, Applied: true})
		err := c.RebootInstance(t.Context(), "i-web90")
		var e *ecs.Error
		require.ErrorAs(t, err, &e)
		assert.True(t, e.Ambiguous)
		assert.Equal(t, 1, sim.Counts()["RebootInstance"], "a reboot is not repeated blindly")
	})
}

func TestWaitEnds(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		var se *ecs.StateError
		start := time.Now()
		_, err := c.WaitInstance(t.Context(), "i-none", ecs.StatusRunning, nil)
		require.ErrorAs(t, err, &se)
		require.ErrorIs(t, err, ecs.ErrNotFound)
		_, err = c.WaitSnapshots(t.Context(), []string{"s-none"}, nil)
		require.ErrorIs(t, err, ecs.ErrNotFound)
		_, err = c.WaitSnapshots(t.Context(), nil, nil)
		require.Error(t, err, "all of none is nothing to rely on")
		_, err = c.WaitImage(t.Context(), "m-none", nil)
		require.ErrorIs(t, err, ecs.ErrNotFound)
		assert.EqualError(t, err, `image m-none: not found in cn-hangzhou, so it will not become "Available"`)
		_, err = c.WaitInstance(t.Context(), "i-web90", ecs.StatusStopped, nil)
		require.ErrorAs(t, err, &se)
		assert.EqualError(t, err, `instance i-web90 is "Running" and will not become "Stopped"`)
		assert.Less(t, time.Since(start), 10*time.Minute)

		snaps, err := c.CreateSnapshots(t.Context(), ecs.SnapshotInput{InstanceID: "i-other", Token: "t"})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = c.WaitSnapshots(ctx, ids(snaps), nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, `snapshot `+snaps[0].ID+` still "progressing" after 10s: context deadline exceeded`)

		// Outages of a minute are borne, refusals are not.
		sim.InjectFault(cloud.Fault{Action: "DescribeSnapshots", Kind: cloud.FaultHTML, Times: 12})
		_, err = c.WaitSnapshots(t.Context(), ids(snaps), nil)
		require.NoError(t, err)
		sim.InjectFault(cloud.Fault{Action: "DescribeSnapshots", Code: "Forbidden.RAM", Status: 403})
		_, err = c.WaitSnapshots(t.Context(), ids(snaps), nil)
		require.ErrorIs(t, err, ecs.ErrCredentials)
	})
}

func TestCommand(t *testing.T) {
	const blob = "AAAAC3NzaC1lZDI1NTE5AAAAIG3QgVHWJ2ECB5u6iCTeRvGQMHbH8yWeBQG0fhsBkXQx"
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
		m.out["i-web90"] = "ssh-ed25519 " + blob + " root@web-90\ncat: /etc/ssh: oops\nssh-rsa " + blob + " lie\n"
		r, err := c.RunCommand(t.Context(), ecs.CommandInput{InstanceID: "i-web90", Script: "echo; exit 3"})
		require.NoError(t, err)
		assert.Equal(t, 3, r.ExitCode)
		assert.Equal(t, "bad\n", string(r.Output))

		m.notUp = 2
		keys, err := c.HostKeys(t.Context(), "i-web90")
		require.NoError(t, err, "an agent that is not up yet is waited for")
		assert.Equal(t, []string{"ssh-ed25519 " + blob}, keys, "a key of another type than it claims is none")

		m.notUp = 1
		_, err = c.RunCommand(t.Context(), ecs.CommandInput{InstanceID: "i-web90", Script: "true"})
		var ce *ecs.CommandError
		require.ErrorAs(t, err, &ce)
		assert.True(t, ce.NotRun, "%v", err)

		_, err = c.RunCommand(t.Context(), ecs.CommandInput{InstanceID: "i-web90"})
		require.Error(t, err)
	})
}

func TestBadInput(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		ctx := t.Context()
		for name, in := range map[string]ecs.SnapshotInput{
			"no token": {InstanceID: "i-web90"}, "blank in token": {InstanceID: "i-web90", Token: "a b"},
			"auto": {InstanceID: "i-web90", Token: "t", Name: "auto-x"}, "days": {InstanceID: "i-web90", Token: "t", RetentionDays: -1},
			"no instance": {Token: "t"}, "unknown instance": {InstanceID: "i-none", Token: "t"},
		} {
			_, err := c.CreateSnapshots(ctx, in)
			assert.Error(t, err, name)
		}
		sys, data := ecs.Snapshot{ID: "s-1", SourceDiskType: "system"}, ecs.Snapshot{ID: "s-2", SourceDiskType: "data"}
		for _, s := range [][]ecs.Snapshot{nil, {data}, {sys, sys}} {
			_, err := c.CreateImage(ctx, ecs.ImageInput{Name: "x", Token: "t", Snapshots: s})
			assert.ErrorContains(t, err, "one is needed")
		}
		source := &ecs.Instance{ID: "i-web90"}
		for name, in := range map[string]ecs.CloneInput{
			"no source": {Token: "t", ImageID: "m", Disks: []ecs.Disk{{}}}, "local disk": {Token: "t", ImageID: "m", Source: source, Disks: []ecs.Disk{{Category: "local_ssd_pro"}}},
			"cloud's tag": {Token: "t", ImageID: "m", Source: source, Disks: []ecs.Disk{{}}, Tags: map[string]string{"acs:x": "y"}}, "no token": {ImageID: "m", Source: source, Disks: []ecs.Disk{{}}},
		} {
			_, err := c.CreateClone(ctx, in)
			assert.Error(t, err, name)
		}
		assert.Zero(t, sim.Counts()["CreateSnapshot"]+sim.Counts()["CreateImage"]+sim.Counts()["RunInstances"])
	})
}

func TestWrongCredentials(t *testing.T) {
	sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
	defer sim.Close()
	for _, key := range [][2]string{{keyID, "wrong-secret-value"}, {"LTAIwrongKeyIdValue", secret}} {
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: key[0], AccessKeySecret: key[1]}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		_, err = c.GetInstance(t.Context(), "i-1")
		require.ErrorIs(t, err, ecs.ErrCredentials)
		assert.ErrorContains(t, err, "check the access key; it came from the configuration")
		assert.NotContains(t, err.Error(), key[0])
		assert.NotContains(t, err.Error(), key[1])
	}
}

func TestNoCredentials(t *testing.T) {
	for _, n := range []string{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALICLOUD_ACCESS_KEY", "ALICLOUD_SECRET_KEY"} {
		t.Setenv(n, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("USERPROFILE", t.TempDir())
	_, err := ecs.New(ecs.Config{Region: "cn-hangzhou"})
	require.ErrorIs(t, err, ecs.ErrCredentials)
	assert.ErrorContains(t, err, "ALIBABA_CLOUD_ACCESS_KEY_ID")
}

// recorder keeps what is sent through it.
type recorder struct {
	mu   sync.Mutex
	next http.RoundTripper
	sent []url.Values
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.sent = append(r.sent, q.URL.Query())
	r.mu.Unlock()
	return r.next.RoundTrip(q)
}

// What a stop must say: the account's default may be another mode, which gives
// the instance's place away.
func TestPowerParameters(t *testing.T) {
	sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
	defer sim.Close()
	sim.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.1"})
	rec := &recorder{next: sim.Transport()}
	c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(rec))
	require.NoError(t, err)
	require.NoError(t, c.StopInstance(t.Context(), "i-1"))
	last := rec.sent[len(rec.sent)-1]
	assert.Equal(t, "StopInstance", last.Get("Action"))
	assert.Equal(t, "KeepCharging", last.Get("StoppedMode"))
	assert.Equal(t, "false", last.Get("ForceStop"))

	// A power cut is asked for by name, and keeps the place as well.
	sim.AddInstance(cloud.Instance{ID: "i-2", PrivateIP: "172.31.0.2"})
	require.NoError(t, c.ForceStopInstance(t.Context(), "i-2"))
	last = rec.sent[len(rec.sent)-1]
	assert.Equal(t, "KeepCharging", last.Get("StoppedMode"))
	assert.Equal(t, "true", last.Get("ForceStop"))
}

func TestConcurrent(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				_, err := c.GetInstance(t.Context(), "i-web90")
				assert.NoError(t, err)
				_, err = c.RunCommand(t.Context(), ecs.CommandInput{InstanceID: "i-web90", Script: "true", Token: fmt.Sprint("t", n)})
				assert.NoError(t, err)
			})
		}
		wg.Wait()
	})
}

// A stop of an instance that is still being created, as when a run is undone in
// the middle, waits for the creation; a disk that is busy with somebody else's
// snapshot is waited for as well.
func TestWaitsForOthers(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		ctx := t.Context()
		theirs, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "theirs"})
		require.NoError(t, err)
		ours, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "ours"})
		require.NoError(t, err)
		assert.NotEqual(t, ids(theirs), ids(ours))
		snaps, err := c.WaitSnapshots(ctx, ids(ours), nil)
		require.NoError(t, err)

		image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "im", Token: "t2", Snapshots: snaps})
		require.NoError(t, err)
		_, err = c.WaitImage(ctx, image, nil)
		require.NoError(t, err)
		source, err := c.GetInstance(ctx, "i-web90")
		require.NoError(t, err)
		disks, err := c.ListDisks(ctx, "i-web90")
		require.NoError(t, err)
		id, err := c.CreateClone(ctx, ecs.CloneInput{Source: source, Disks: disks, ImageID: image, Name: "x", Token: "t3"})
		require.NoError(t, err)
		assert.NotEqual(t, ecs.StatusRunning, sim.InstanceStatus(id))
		require.NoError(t, c.StopInstance(ctx, id))
		require.NoError(t, c.DeleteInstance(ctx, id, ecs.Guard{TagKey: ecs.TokenTag, TagValue: "t3"}))
		require.ErrorIs(t, c.StopInstance(ctx, id), ecs.ErrNotFound)
	})
}
