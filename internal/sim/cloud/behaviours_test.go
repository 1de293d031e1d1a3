package cloud_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// These are the behaviours of the real cloud that somebody found out the hard
// way, one test each. Those of the balancers and of the log service stand with
// them.

func TestBehaviourImagesListAvailableByDefault(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		time.Sleep(3 * time.Minute)
		img := a.ok(ecs, "CreateImage", "SnapshotId", s).Str("ImageId")
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageId", img).Len("Images.Image"))
		assert.Equal(t, 1, a.ok(ecs, "DescribeImages", "ImageId", "m-other,"+img, "Status", "Waiting,Creating,CreateFailed,Available").Len("Images.Image"))
		time.Sleep(4 * time.Minute)
		assert.Equal(t, 1, a.ok(ecs, "DescribeImages", "ImageId", img).Len("Images.Image"))
	})
}

func TestBehaviourUnknownIDsAreEmptyListsOrNotFound(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, row := range [][]string{
			{"DescribeInstances", "Instances.Instance", "InstanceIds", `["i-none"]`},
			{"DescribeDisks", "Disks.Disk", "DiskIds", `["d-none"]`},
			{"DescribeSnapshots", "Snapshots.Snapshot", "SnapshotIds", `["s-none"]`},
			{"DescribeImages", "Images.Image", "ImageId", "m-none"},
			{"DescribeSnapshotGroups", "SnapshotGroups.SnapshotGroup", "SnapshotGroupId.1", "ssg-none"},
			{"DescribeInstanceStatus", "InstanceStatuses.InstanceStatus", "InstanceId.1", "i-none"},
		} {
			assert.Equalf(t, 0, a.ok(ecs, row[0], row[2:]...).Len(row[1]), "%v", row)
		}
		for _, action := range []string{"StartInstance", "StopInstance", "RebootInstance", "DeleteInstance", "ModifyInstanceAttribute", "DescribeInstanceAttribute", "GetInstanceConsoleOutput", "DescribeUserData"} {
			a.no(404, "InvalidInstanceId.NotFound", ecs, action, "InstanceId", "i-none")
		}
		a.no(404, "InvalidDiskId.NotFound", ecs, "CreateSnapshot", "DiskId", "d-none")
		a.no(404, "InvalidSnapshotId.NotFound", ecs, "CreateImage", "SnapshotId", "s-none")
		assert.Empty(t, c.Refused())
	})
}

func TestBehaviourDelaysFollowTheClock(t *testing.T) {
	for _, speed := range []float64{1, 60} {
		world(t, func(cfg *cloud.Config) { cfg.Speed = speed }, func(c *cloud.Cloud, m *machines, a *api) {
			took := func(want time.Duration, done func() bool) {
				begun := time.Now()
				for !done() {
					time.Sleep(time.Duration(float64(time.Second) / speed))
					require.Less(t, time.Since(begun), time.Hour)
				}
				assert.InDelta(t, want.Seconds()/speed, time.Since(begun).Seconds(), 1.5/speed)
			}
			s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
			took(3*time.Minute, func() bool {
				return a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+s+`"]`).At("Snapshots.Snapshot.0.Status") == "accomplished"
			})
			a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
			took(20*time.Second, func() bool { return a.status("i-web90") == "Stopped" })
			a.ok(ecs, "StartInstance", "InstanceId", "i-web90")
			took(30*time.Second, func() bool { return a.status("i-web90") == "Running" })
		})
	}
}

func TestBehaviourRebootStaysRunningAtFirst(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "RebootInstance", "InstanceId", "i-web90")
		synctest.Wait()
		assert.Equal(t, []string{"reboot i-web90"}, m.calls(), "the guest is down already")
		assert.Equal(t, "Running", a.status("i-web90"))
		time.Sleep(5 * time.Second)
		assert.Equal(t, "Starting", a.status("i-web90"))
		time.Sleep(30 * time.Second)
		assert.Equal(t, "Running", a.status("i-web90"))
	})
}

func TestBehaviourOneRunningSnapshotPerDisk(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys")
		a.no(403, "IncorrectDiskStatus.CreatingSnapshot", ecs, "CreateSnapshot", "DiskId", "d-sys")
		a.no(403, "IncorrectDiskStatus.CreatingSnapshot", ecs, "CreateSnapshotGroup", "InstanceId", "i-web90")
		assert.Equal(t, 1, a.ok(ecs, "DescribeSnapshots").Len("Snapshots.Snapshot"), "the group left nothing")
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-data")
		time.Sleep(3 * time.Minute)
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys")
	})
}

func TestBehaviourImagesGoBeforeTheirSnapshots(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		snap := a.ok(ecs, "DescribeImages", "ImageId", img).Str("Images.Image.0.DiskDeviceMappings.DiskDeviceMapping.0.SnapshotId")
		a.no(403, "SnapshotCreatedImage", ecs, "DeleteSnapshot", "SnapshotId", snap)
		a.ok(ecs, "DeleteImage", "ImageId", img)
		a.ok(ecs, "DeleteSnapshot", "SnapshotId", snap)
	})
}

func TestBehaviourTokenReplayAndMismatch(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		one := a.ok(ecs, "CreateSnapshotGroup", "InstanceId", "i-web90", "ClientToken", "t").Str("SnapshotGroupId")
		assert.Equal(t, one, a.ok(ecs, "CreateSnapshotGroup", "InstanceId", "i-web90", "ClientToken", "t").Str("SnapshotGroupId"))
		a.no(403, "IdempotentParameterMismatch", ecs, "CreateSnapshotGroup", "InstanceId", "i-web89", "ClientToken", "t")
	}) // in progress: TestTokenInProgress
}

func TestBehaviourThrottleBursts(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "StopInstance", Code: "Throttling.Api", Times: 3})
		for range 3 {
			a.no(400, "Throttling.Api", ecs, "StopInstance", "InstanceId", "i-web90")
			a.ok(ecs, "DescribeInstances")
		}
		assert.Equal(t, "Running", a.status("i-web90"))
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
	})
}

func TestBehaviourDryRunSucceedsWithAnError(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		before := c.Resources()
		a.no(400, "DryRunOperation", ecs, "RunInstances", a.cloneOf(img, "DryRun", "true")...)
		a.no(400, "DryRunOperation", ecs, "StopInstance", "InstanceId", "i-web90", "DryRun", "true")
		a.no(400, "DryRunOperation", ecs, "DeleteImage", "RegionId", "cn-hangzhou", "ImageId", img, "DryRun", "true")
		a.no(404, "InvalidImageId.NotFound", ecs, "RunInstances", a.cloneOf("m-none", "DryRun", "true")...)
		assert.Equal(t, before, c.Resources())
		assert.Equal(t, "Running", a.status("i-web90"))
	})
}

// raw sends what ok would send, and returns the answer as it is.
func (a *api) raw(action string, kv ...string) (int, string, error) {
	status, body, err := a.send("POST", a.signed("POST", ecs, action, kv...), nil)
	return status, string(body), err
}

func TestBehaviourEmptyBodyWithStatus200(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "StopInstance", Kind: cloud.FaultEmpty, Applied: true})
		status, body, err := a.raw("StopInstance", "InstanceId", "i-web90")
		require.NoError(t, err)
		assert.Equal(t, 200, status)
		assert.Empty(t, body)
		assert.Equal(t, "Stopping", a.status("i-web90"))
	})
}

func TestBehaviourHTML502(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Kind: cloud.FaultHTML})
		status, body, err := a.raw("StopInstance", "InstanceId", "i-web90")
		require.NoError(t, err)
		assert.Equal(t, 502, status)
		assert.True(t, strings.HasPrefix(body, "<html>"))
		assert.Equal(t, "Running", a.status("i-web90"))
	})
}

func TestBehaviourNumericCode(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Kind: cloud.FaultNumericCode, Status: 503})
		status, body, err := a.raw("DescribeInstances")
		require.NoError(t, err)
		assert.Equal(t, 503, status)
		assert.Contains(t, body, `"Code":503`)
	})
}

func TestBehaviourConnectionResetAfterTheEffect(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		c.InjectFault(cloud.Fault{Action: "RunInstances", Kind: cloud.FaultCut, Applied: true})
		_, _, err := a.raw("RunInstances", a.cloneOf(img, "ClientToken", "t")...)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		id := a.ok(ecs, "RunInstances", a.cloneOf(img, "ClientToken", "t")...).Str("InstanceIdSets.InstanceIdSet.0")
		assert.Equal(t, 3, a.ok(ecs, "DescribeInstances").Len("Instances.Instance"))
		assert.Equal(t, "Pending", a.status(id))
	})
}

func TestBehaviourInstanceVanishesWhilePending(t *testing.T) {
	for _, action := range []string{"RunInstances", "CreateInstance"} {
		world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
			img := a.image()
			c.InjectFault(cloud.Fault{Action: action, Kind: cloud.FaultFails})
			kv := a.cloneOf(img)
			path := "InstanceIdSets.InstanceIdSet.0"
			if action == "CreateInstance" {
				kv[slices.Index(kv, "SecurityGroupIds.1")] = "SecurityGroupId"
				path = "InstanceId"
			}
			a.no(404, "InvalidImageId.NotFound", ecs, action, append(slices.Clone(kv), "ImageId", "m-none")...) // does not use it up
			id := a.ok(ecs, action, kv...).Str(path)
			assert.Equal(t, "Pending", a.status(id))
			time.Sleep(time.Minute)
			assert.Empty(t, a.status(id))
			a.no(404, "InvalidInstanceId.NotFound", ecs, "StartInstance", "InstanceId", id)
			for _, r := range c.Resources() {
				assert.False(t, r.CreatedByAPI && (r.Type == "disk" || r.Type == "instance"), "%v", r)
			}
			assert.NotContains(t, strings.Join(m.calls(), "\n"), "create")
			a.ok(ecs, action, kv...)
		})
	}
}

func TestBehaviourAutoReleaseTimeFires(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		at := time.Now().Add(45 * time.Minute).UTC().Format("2006-01-02T15:04:05Z")
		id := a.clone("AutoReleaseTime", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z"))
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", id, "AutoReleaseTime", at)
		time.Sleep(30 * time.Minute)
		assert.Equal(t, "Running", a.status(id))
		time.Sleep(time.Hour)
		assert.Empty(t, a.status(id))
	})
}

func TestBehaviourNoStockAfterStopCharging(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		stop := func(mode string) {
			a.ok(ecs, "StopInstance", "InstanceId", "i-web90", "StoppedMode", mode)
			time.Sleep(time.Minute)
		}
		stop("KeepCharging")
		c.SetStock("ecs.g6.large", "", false)
		a.ok(ecs, "StartInstance", "InstanceId", "i-web90") // its capacity was kept
		time.Sleep(time.Minute)
		stop("StopCharging")
		a.no(403, "OperationDenied.NoStock", ecs, "StartInstance", "InstanceId", "i-web90")
		assert.Equal(t, "WithoutStock", a.ok(ecs, "DescribeAvailableResource", "DestinationResource", "InstanceType", "InstanceType", "ecs.g6.large").
			At("AvailableZones.AvailableZone.0.AvailableResources.AvailableResource.0.SupportedResources.SupportedResource.0.StatusCategory"))
		c.SetStock("ecs.g6.large", "", true)
		a.ok(ecs, "StartInstance", "InstanceId", "i-web90")
	})
}

func TestBehaviourSignatureNonceAndSkew(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.no(400, "SignatureDoesNotMatch", ecs, "StopInstance", "InstanceId", "i-web90", "Signature", "AAAA")
		a.no(400, "InvalidTimeStamp.Expired", ecs, "StopInstance", "InstanceId", "i-web90", "Timestamp", time.Now().Add(-16*time.Minute).UTC().Format("2006-01-02T15:04:05Z"))
		a.ok(ecs, "DescribeInstances", "SignatureNonce", "n")
		a.no(400, "SignatureNonceUsed", ecs, "StopInstance", "InstanceId", "i-web90", "SignatureNonce", "n")
		assert.Equal(t, "Running", a.status("i-web90"))
	})
}

// What is made is not seen everywhere at once.
func TestVisibleAfter(t *testing.T) {
	world(t, func(cfg *cloud.Config) { cfg.VisibleAfter = 5 * time.Second }, func(c *cloud.Cloud, m *machines, a *api) {
		s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		assert.Equal(t, 0, a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+s+`"]`).Len("Snapshots.Snapshot"))
		a.no(404, "InvalidSnapshotId.NotFound", ecs, "CreateImage", "SnapshotId", s)
		assert.Equal(t, 2, a.ok(ecs, "DescribeInstances").Len("Instances.Instance"), "what was there is seen")
		time.Sleep(3 * time.Minute)
		img := a.ok(ecs, "CreateImage", "SnapshotId", s).Str("ImageId")
		assert.Equal(t, 0, a.ok(ecs, "DescribeImages", "ImageId", img, "Status", "ALL").Len("Images.Image"))
		time.Sleep(4 * time.Minute)
		id := a.ok(ecs, "RunInstances", a.cloneOf(img, "ClientToken", "t")...).Str("InstanceIdSets.InstanceIdSet.0")
		assert.Equal(t, id, a.ok(ecs, "RunInstances", a.cloneOf(img, "ClientToken", "t")...).Str("InstanceIdSets.InstanceIdSet.0"), "its token is known all the same")
		assert.Empty(t, a.status(id))
		a.no(404, "InvalidInstanceId.NotFound", ecs, "ModifyInstanceAttribute", "InstanceId", id, "InstanceName", "x")
		time.Sleep(5 * time.Second)
		assert.Equal(t, "Pending", a.status(id))
	})
}

// A good answer does not mean that anything comes of it.
func TestFaultsThatShowLater(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		snap := func(disk string) func(member string) any {
			id := a.ok(ecs, "CreateSnapshot", "DiskId", disk).Str("SnapshotId")
			return func(member string) any {
				return a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+id+`"]`).At("Snapshots.Snapshot.0." + member)
			}
		}
		c.InjectFault(cloud.Fault{Action: "CreateSnapshot", Kind: cloud.FaultFails})
		c.InjectFault(cloud.Fault{Action: "CreateSnapshot", Kind: cloud.FaultStuck})
		failing, stuck := snap("d-sys"), snap("d-data")
		time.Sleep(time.Minute)
		assert.Equal(t, "progressing", failing("Status"))
		time.Sleep(24 * time.Hour)
		assert.Equal(t, "failed", failing("Status"))
		assert.Equal(t, "progressing", stuck("Status"))
		assert.Equal(t, "37%", stuck("Progress"))
		good := snap("d-sys")
		time.Sleep(3 * time.Minute)
		assert.Equal(t, "accomplished", good("Status"))
		id, _ := good("SnapshotId").(string)

		c.InjectFault(cloud.Fault{Action: "CreateImage", Kind: cloud.FaultFails})
		c.InjectFault(cloud.Fault{Action: "CreateImage", Kind: cloud.FaultStuck})
		a.ok(ecs, "CreateImage", "SnapshotId", id, "ImageName", "fails")
		a.ok(ecs, "CreateImage", "SnapshotId", id, "ImageName", "stuck")
		time.Sleep(time.Hour)
		for name, want := range map[string]string{"fails": "CreateFailed", "stuck": "Creating"} {
			r := a.ok(ecs, "DescribeImages", "ImageName", name, "Status", "ALL")
			assert.Equal(t, want, r.At("Images.Image.0.Status"))
			assert.Equal(t, false, r.At("Images.Image.0.Usable"))
		}
		c.InjectFault(cloud.Fault{Action: "StopInstance", Kind: cloud.FaultStuck})
		c.InjectFault(cloud.Fault{Action: "StopInstance", Kind: cloud.FaultFails})
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web89")
		time.Sleep(time.Hour)
		assert.Equal(t, "Stopping Running", a.status("i-web90")+" "+a.status("i-web89"))
		c.InjectFault(cloud.Fault{Action: "StartInstance", Kind: cloud.FaultFails})
		c.InjectFault(cloud.Fault{Action: "StartInstance", Kind: cloud.FaultStuck})
		a.ok(ecs, "StopInstance", "InstanceId", "i-web89")
		for _, want := range []string{"Stopped", "Starting"} {
			time.Sleep(time.Minute)
			a.ok(ecs, "StartInstance", "InstanceId", "i-web89")
			time.Sleep(time.Hour)
			assert.Equal(t, want, a.status("i-web89"))
		}
	})
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "RunCommand", Kind: cloud.FaultFails})
		c.InjectFault(cloud.Fault{Action: "RunCommand", Kind: cloud.FaultStuck})
		for _, want := range []string{"Failed ClientNotResponse", "Running "} {
			id := a.ok(ecs, "RunCommand", "Type", "RunShellScript", "CommandContent", "true", "InstanceId.1", "i-web90").Str("InvokeId")
			time.Sleep(time.Hour)
			r := a.ok(ecs, "DescribeInvocationResults", "InvokeId", id)
			assert.Equal(t, want, r.Str("Invocation.InvocationResults.InvocationResult.0.InvocationStatus")+" "+r.Str("Invocation.InvocationResults.InvocationResult.0.ErrorCode"))
		}
		c.InjectFault(cloud.Fault{Action: "RunInstances", Kind: cloud.FaultStuck})
		id := a.ok(ecs, "RunInstances", a.cloneOf(a.image())...).Str("InstanceIdSets.InstanceIdSet.0")
		time.Sleep(time.Hour)
		assert.Equal(t, "Pending", a.status(id))
	})
}
