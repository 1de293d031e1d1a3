package cloud_test

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestPower(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.no(403, "IncorrectInstanceStatus", ecs, "StartInstance", "InstanceId", "i-web90")
		a.no(400, "DryRunOperation", ecs, "StopInstance", "InstanceId", "i-web90", "DryRun", "true")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90", "StoppedMode", "KeepCharging", "ForceStop", "false")
		assert.Equal(t, "Stopping", a.status("i-web90"))
		a.no(403, "IncorrectInstanceStatus", ecs, "StopInstance", "InstanceId", "i-web90")
		a.no(403, "IncorrectInstanceStatus", ecs, "RebootInstance", "InstanceId", "i-web90")
		time.Sleep(21 * time.Second)
		r := a.ok(ecs, "DescribeInstances", "InstanceIds", `["i-web90"]`)
		assert.Equal(t, "Stopped", r.At("Instances.Instance.0.Status"))
		assert.Equal(t, "KeepCharging", r.At("Instances.Instance.0.StoppedMode"))
		a.ok(ecs, "StartInstance", "InstanceId", "i-web90")
		assert.Equal(t, "Starting", a.status("i-web90"))
		assert.Equal(t, []string{"stop i-web90"}, m.calls(), "the guest boots at the end of Starting")
		time.Sleep(31 * time.Second)
		assert.Equal(t, "Running", a.status("i-web90"))
		assert.Equal(t, []string{"stop i-web90", "start i-web90"}, m.calls())
		assert.Equal(t, "Running", a.ok(ecs, "DescribeInstanceStatus", "InstanceId.1", "i-web90").At("InstanceStatuses.InstanceStatus.0.Status"))
	})
}

func TestRebootKeepsRunningForAWhile(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "RebootInstance", "InstanceId", "i-web90")
		synctest.Wait()
		assert.Equal(t, []string{"reboot i-web90"}, m.calls())
		assert.Equal(t, "Running", a.status("i-web90"))
		a.no(403, "IncorrectInstanceStatus", ecs, "RebootInstance", "InstanceId", "i-web90")
		time.Sleep(5 * time.Second)
		assert.Equal(t, "Starting", a.status("i-web90"))
		time.Sleep(30 * time.Second)
		assert.Equal(t, "Running", a.status("i-web90"))
		a.ok(ecs, "RebootInstance", "InstanceId", "i-web90")
	})
}

func TestStopCharging(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone("InternetMaxBandwidthOut", "5")
		r := a.ok(ecs, "DescribeInstances", "InstanceIds", `["`+id+`"]`)
		assert.Equal(t, "203.0.113.1", r.At("Instances.Instance.0.PublicIpAddress.IpAddress.0"))
		a.ok(ecs, "StopInstance", "InstanceId", id, "StoppedMode", "StopCharging")
		time.Sleep(21 * time.Second)
		r = a.ok(ecs, "DescribeInstances", "InstanceIds", `["`+id+`"]`)
		assert.Equal(t, 0, r.Len("Instances.Instance.0.PublicIpAddress.IpAddress"), "the economical mode gives the address back")
	})
}

func TestPoweredOff(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.PoweredOff("i-web90")
		assert.Equal(t, "Stopped", a.status("i-web90"))
		assert.Empty(t, m.calls())
		c.PoweredOff("i-none")
	})
}

func TestPowerFailures(t *testing.T) {
	for call, end := range map[string]string{"stop": "Running", "reboot": "Running"} {
		world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
			m.failing(call)
			a.ok(ecs, map[string]string{"stop": "StopInstance", "reboot": "RebootInstance"}[call], "InstanceId", "i-web90")
			time.Sleep(time.Minute)
			assert.Equal(t, end, a.status("i-web90"))
		})
	}
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.PoweredOff("i-web90")
		m.failing("start")
		a.ok(ecs, "StartInstance", "InstanceId", "i-web90")
		time.Sleep(time.Minute)
		assert.Equal(t, "Stopped", a.status("i-web90"))
	})
}

func TestRunInstancesStates(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		data := base64.StdEncoding.EncodeToString([]byte("#cloud-config\n"))
		id := a.ok(ecs, "RunInstances", a.cloneOf(img, "InstanceName", "web-90-transition", "HostName", "web-90", "UserData", data,
			"KeyPairName", "ops", "InstanceChargeType", "PostPaid", "SpotStrategy", "NoSpot", "Tag.1.Key", "run", "Tag.1.Value", "r",
			"SystemDisk.Category", "cloud_essd", "SystemDisk.Size", "60", "DataDisk.1.Device", "/dev/xvdb",
			"DataDisk.1.Category", "cloud_essd", "DataDisk.1.PerformanceLevel", "PL2", "DataDisk.1.DeleteWithInstance", "true",
			"SystemDisk.Encrypted", "", "NetworkOptions.EnableJumboFrame", "")...).Str("InstanceIdSets.InstanceIdSet.0")
		assert.Equal(t, "Pending", a.status(id))
		a.no(403, "IncorrectInstanceStatus.Initializing", ecs, "DeleteInstance", "InstanceId", id, "Force", "true")
		time.Sleep(16 * time.Second)
		assert.Equal(t, "Starting", a.status(id))
		time.Sleep(15 * time.Second)
		r := a.ok(ecs, "DescribeInstances", "InstanceIds", `["`+id+`"]`)
		at := func(p string) any { return r.At("Instances.Instance.0." + p) }
		assert.Equal(t, "Running", at("Status"))
		assert.Equal(t, "172.31.0.91", at("VpcAttributes.PrivateIpAddress.IpAddress.0"))
		assert.Equal(t, "172.31.0.91", at("NetworkInterfaces.NetworkInterface.0.PrimaryIpAddress"))
		assert.Equal(t, "web-90-transition", at("InstanceName"))
		assert.Equal(t, "run", at("Tags.Tag.0.TagKey"))
		assert.Equal(t, 0, r.Len("Instances.Instance.0.PublicIpAddress.IpAddress"))
		assert.Equal(t, data, a.ok(ecs, "DescribeUserData", "InstanceId", id).At("UserData"))
		assert.Equal(t, []cloud.Machine{{InstanceID: id, HostName: "web-90", PrivateIP: "172.31.0.91", From: "state-i-web90-1", UserData: []byte("#cloud-config\n")}}, m.machinesMade())

		d := a.ok(ecs, "DescribeDisks", "InstanceId", id)
		assert.Equal(t, 2, d.Len("Disks.Disk"))
		for n, want := range []string{"system cloud_essd PL1 60 /dev/xvda", "data cloud_essd PL2 200 /dev/xvdb"} {
			p := fmt.Sprintf("Disks.Disk.%d.", n)
			assert.Equal(t, want, fmt.Sprint(d.At(p+"Type"), " ", d.At(p+"Category"), " ", d.At(p+"PerformanceLevel"), " ", d.At(p+"Size"), " ", d.At(p+"Device")))
			assert.Equal(t, "In_use", d.At(p+"Status"))
			assert.NotEmpty(t, d.At(p+"SourceSnapshotId"))
		}
	})
}

func TestRunInstancesRefusals(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		img := a.image()
		soon := time.Now().Add(29 * time.Minute).UTC().Format("2006-01-02T15:04:05Z")
		big := base64.StdEncoding.EncodeToString(make([]byte, 32<<10+1))
		for _, row := range []struct {
			status int
			code   string
			kv     []string
		}{
			{400, "DryRunOperation", []string{"DryRun", "true"}},
			{404, "InvalidImageId.NotFound", []string{"ImageId", "m-none"}},
			{400, "MissingParameter", []string{"ImageId", ""}},
			{400, "MissingParameter", []string{"InstanceType", ""}},
			{400, "MissingParameter", []string{"SecurityGroupIds.1", ""}},
			{404, "InvalidSecurityGroupId.NotFound", []string{"SecurityGroupIds.1", "sg-none"}},
			{400, "InvalidParameter.Conflict", []string{"SecurityGroupId", "sg-sim"}},
			{404, "InvalidVSwitchId.NotFound", []string{"VSwitchId", "vsw-none"}},
			{400, "InvalidParameter.Mismatch", []string{"ZoneId", "cn-hangzhou-z"}},
			{404, "InvalidKeyPairName.NotFound", []string{"KeyPairName", "none"}},
			{400, "InvalidPrivateIpAddress.Duplicated", []string{"PrivateIpAddress", "172.31.0.90"}},
			{400, "InvalidPrivateIpAddress.Malformed", []string{"PrivateIpAddress", "172.31.0"}},
			{403, "QuotaExceeded.PrivateIpAddress", []string{"Amount", "3"}},
			{400, "InvalidAutoReleaseTime.Malformed", []string{"AutoReleaseTime", soon}},
			{400, "InvalidAutoReleaseTime.Malformed", []string{"AutoReleaseTime", "tomorrow"}},
			{400, "InvalidUserData.Base64FormatInvalid", []string{"UserData", "#!/bin/sh"}},
			{400, "InvalidUserData.SizeExceeded", []string{"UserData", big}},
			{400, "InvalidSystemDiskSize.LessThanImageSize", []string{"SystemDisk.Size", "39"}},
			{400, "InvalidSystemDiskCategory.ValueNotSupported", []string{"SystemDisk.Category", "cloud_essd_entry"}},
			{400, "InvalidDataDiskPerformanceLevel.ValueNotSupported", []string{"DataDisk.1.Device", "/dev/xvdb", "DataDisk.1.Category", "cloud_essd", "DataDisk.1.PerformanceLevel", "PL9"}},
			{400, "InvalidTagKey.Malformed", []string{"Tag.1.Key", "acs:x", "Tag.1.Value", "y"}},
			{400, "Duplicate.TagKey", []string{"Tag.1.Key", "x", "Tag.2.Key", "x"}},
			{400, "UnsupportedParameter", []string{"SpotStrategy", "SpotAsPriceGo"}},
			{400, "InvalidParameter.Conflict", []string{"Password", "x", "PasswordInherit", "true"}},
		} {
			a.no(row.status, row.code, ecs, "RunInstances", a.cloneOf(img, row.kv...)...)
		}
		assert.Zero(t, c.Counts()["RunInstances"])
	})
}

// Data disks that RunInstances does not speak of get the default category.
func TestDataDiskDefaultsToAnotherCategory(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone()
		d := a.ok(ecs, "DescribeDisks", "InstanceId", id, "DiskType", "data")
		assert.Equal(t, "cloud_efficiency", d.At("Disks.Disk.0.Category"))
		assert.EqualValues(t, 200, d.At("Disks.Disk.0.Size"))
	})
}

func TestInstanceVanishesWhenItsMachineCannotBeMade(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		m.failing("create")
		id := a.clone()
		assert.Empty(t, a.status(id))
		assert.NotContains(t, strings.Join(m.calls(), "\n"), "delete", "there is nothing to delete")
		assert.Equal(t, []string{"172.31.0.92", "172.31.0.91"}, func() []string {
			m.failing("")
			img := a.ok(ecs, "DescribeImages").Str("Images.Image.0.ImageId")
			r := a.ok(ecs, "RunInstances", a.cloneOf(img, "Amount", "2")...)
			return []string{c.InstanceIP(r.Str("InstanceIdSets.InstanceIdSet.0")), c.InstanceIP(r.Str("InstanceIdSets.InstanceIdSet.1"))}
		}(), "its address is free again, behind the others")
	})
}

func TestWantedPrivateAddress(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone("PrivateIpAddress", "172.31.0.92")
		assert.Equal(t, "172.31.0.92", c.InstanceIP(id))
		img := a.ok(ecs, "DescribeImages").Str("Images.Image.0.ImageId")
		a.no(403, "QuotaExceeded.PrivateIpAddress", ecs, "RunInstances", a.cloneOf(img, "Amount", "2")...)
	})
}

func TestDeleteInstance(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone("DeletionProtection", "true")
		a.no(403, "InvalidOperation.DeletionProtection", ecs, "DeleteInstance", "InstanceId", id, "Force", "true")
		a.ok(ecs, "ModifyInstanceAttribute", "InstanceId", id, "DeletionProtection", "false")
		a.no(403, "IncorrectInstanceStatus", ecs, "DeleteInstance", "InstanceId", id)
		a.no(400, "DryRunOperation", ecs, "DeleteInstance", "InstanceId", id, "Force", "true", "DryRun", "true")
		a.ok(ecs, "StopInstance", "InstanceId", id)
		time.Sleep(21 * time.Second)
		a.ok(ecs, "DeleteInstance", "InstanceId", id)
		assert.Empty(t, a.status(id))
		a.no(404, "InvalidInstanceId.NotFound", ecs, "DeleteInstance", "InstanceId", id)
		assert.Equal(t, 0, a.ok(ecs, "DescribeDisks", "InstanceId", id).Len("Disks.Disk"))
		synctest.Wait()
		assert.Equal(t, "delete "+id, m.calls()[len(m.calls())-1])
	})
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddInstance(cloud.Instance{ID: "i-pre", PrivateIP: "172.31.0.50", ChargeType: "PrePaid", Disks: []cloud.Disk{{}, {ID: "d-kept", KeepAfterInstance: true}}})
		a.no(403, "ChargeTypeViolation", ecs, "DeleteInstance", "InstanceId", "i-pre", "Force", "true")
		a.no(403, "ChargeTypeViolation", ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", "i-pre")
		a.ok(ecs, "DeleteInstance", "InstanceId", "i-pre", "Force", "true", "TerminateSubscription", "true")
		assert.Equal(t, "Available", a.ok(ecs, "DescribeDisks", "DiskIds", `["d-kept"]`).At("Disks.Disk.0.Status"))
	})
}

func TestAutoReleaseTime(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format("2006-01-02T15:04:05Z") }
		id := a.clone("AutoReleaseTime", in(3*time.Hour), "DeletionProtection", "true")
		shown := func() any {
			return a.ok(ecs, "DescribeInstances", "InstanceIds", `["`+id+`"]`).At("Instances.Instance.0.AutoReleaseTime")
		}
		assert.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\dZ$`, shown(), "DescribeInstances shows minutes")
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", id, "AutoReleaseTime", "")
		assert.Equal(t, "", shown())
		time.Sleep(4 * time.Hour)
		assert.Equal(t, "Running", a.status(id), "cleared")
		a.no(400, "InvalidAutoReleaseTime.Malformed", ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", id, "AutoReleaseTime", in(4*365*24*time.Hour))
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", id, "AutoReleaseTime", in(time.Hour))
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", id, "AutoReleaseTime", in(2*time.Hour))
		time.Sleep(119 * time.Minute)
		assert.Equal(t, "Running", a.status(id))
		time.Sleep(2 * time.Minute)
		assert.Empty(t, a.status(id), "deletion protection does not hold it up")
		assert.Equal(t, "delete "+id, m.calls()[len(m.calls())-1])

		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", "i-web89", "AutoReleaseTime", in(45*time.Minute+30*time.Second))
		time.Sleep(45*time.Minute + time.Second)
		assert.Empty(t, a.status("i-web89"), "seconds are cut off")
	})
}

func TestDescribeInstancesFilters(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, row := range []struct {
			kv   []string
			want int
		}{
			{nil, 2},
			{[]string{"InstanceIds", `["i-web90","i-none"]`}, 1},
			{[]string{"InstanceIds", `["i-none"]`}, 0}, // not an error
			{[]string{"InstanceIds", `[]`}, 0},
			{[]string{"PrivateIpAddresses", `["172.31.0.90"]`, "InstanceNetworkType", "vpc"}, 1},
			{[]string{"InstanceName", "web-90"}, 1},
			{[]string{"InstanceName", "web-*"}, 2},
			{[]string{"InstanceName", "web"}, 0},
			{[]string{"Tag.1.Key", "env"}, 1},
			{[]string{"Tag.1.Key", "env", "Tag.1.Value", "prod"}, 1},
			{[]string{"Tag.1.key", "env", "Tag.1.value", "test"}, 0},
			{[]string{"Status", "Stopped"}, 0},
		} {
			assert.Equalf(t, row.want, a.ok(ecs, "DescribeInstances", row.kv...).Len("Instances.Instance"), "%v", row.kv)
		}
		a.no(400, "InvalidParameter", ecs, "DescribeInstances", "PrivateIpAddresses", `["172.31.0.90"]`)
	})
}

func TestPaging(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for n := range 23 {
			c.AddInstance(cloud.Instance{ID: fmt.Sprintf("i-%02d", n), PrivateIP: fmt.Sprintf("172.31.1.%d", n+1)})
		}
		seen := map[string]bool{}
		token, pages, rows := "", 0, 0
		for {
			r := a.ok(ecs, "DescribeInstances", "MaxResults", "10", "NextToken", token)
			pages++
			rows += r.Len("Instances.Instance")
			for n := range r.Len("Instances.Instance") {
				seen[r.Str("Instances.Instance."+strconv.Itoa(n)+".InstanceId")] = true
			}
			assert.EqualValues(t, 0, r.At("TotalCount"), "means nothing beside tokens")
			if token = r.Str("NextToken"); token == "" {
				break
			}
			a.no(400, "InvalidParameter.NextToken", ecs, "DescribeDisks", "NextToken", token)
		}
		assert.Len(t, seen, 25)
		assert.Equal(t, 25, rows, "none twice")
		assert.Equal(t, 3, pages)
		a.no(400, "InvalidParameter.NextToken", ecs, "DescribeInstances", "NextToken", "nonsense")

		r := a.ok(ecs, "DescribeInstances")
		assert.Equal(t, 10, r.Len("Instances.Instance"), "ten, when nothing is asked for")
		assert.EqualValues(t, 25, r.At("TotalCount"))
		assert.Equal(t, 5, a.ok(ecs, "DescribeInstances", "PageNumber", "3", "PageSize", "10").Len("Instances.Instance"))
		assert.Equal(t, 0, a.ok(ecs, "DescribeInstances", "PageNumber", "9", "PageSize", "10").Len("Instances.Instance"))
		a.no(400, "InvalidParameter", ecs, "DescribeInstances", "PageSize", "101")
		a.no(400, "InvalidParameter", ecs, "DescribeInstances", "PageNumber", "0")
	})
}

func TestSmallDescriptions(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		r := a.ok(ecs, "DescribeInstanceAttribute", "InstanceId", "i-web90")
		assert.Equal(t, "optimized", r.At("IoOptimized"), "a string here, a bool in DescribeInstances")
		assert.Equal(t, true, a.ok(ecs, "DescribeInstances").At("Instances.Instance.0.IoOptimized"))
		assert.Equal(t, "reader", a.ok(ecs, "DescribeInstanceRamRole", "InstanceIds", `["i-web90"]`).At("InstanceRamRoleSets.InstanceRamRoleSet.0.RamRoleName"))
		assert.Equal(t, "", a.ok(ecs, "DescribeUserData", "InstanceId", "i-web90").At("UserData"))
		assert.Equal(t, "cn-hangzhou", a.ok(ecs, "DescribeRegions").At("Regions.Region.0.RegionId"))
		a.no(404, "InvalidInstanceId.NotFound", ecs, "DescribeInstanceAttribute", "InstanceId", "i-none")
	})
}

func TestModifyAndTag(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "ModifyInstanceAttribute", "InstanceId", "i-web90", "InstanceName", "new", "Description", "d")
		a.no(404, "InvalidSecurityGroupId.NotFound", ecs, "ModifyInstanceAttribute", "InstanceId", "i-web90", "SecurityGroupIds.1", "sg-none")
		tag := []string{"Tag.1.Key", "k", "Tag.1.Value", "v"}
		a.ok(ecs, "TagResources", append(tag, "ResourceType", "instance", "ResourceId.1", "i-web89", "ResourceId.2", "i-web90")...)
		a.ok(ecs, "TagResources", append(tag, "ResourceType", "disk", "ResourceId.1", "d-sys")...)
		a.no(404, "InvalidResourceId.NotFound", ecs, "TagResources", append(tag, "ResourceType", "image", "ResourceId.1", "m-none")...)
		a.no(400, "InvalidResourceType.NotFound", ecs, "TagResources", append(tag, "ResourceType", "Instance", "ResourceId.1", "i-web89")...)
		assert.Equal(t, 2, a.ok(ecs, "DescribeInstances", "Tag.1.Key", "k").Len("Instances.Instance"))
		r := a.ok(ecs, "DescribeInstances", "InstanceName", "new")
		assert.Equal(t, 2, r.Len("Instances.Instance.0.Tags.Tag"))
		assert.Equal(t, 1, a.ok(ecs, "DescribeDisks", "Tag.1.Key", "k", "Tag.1.Value", "v").Len("Disks.Disk"))
		var over []string
		for n := range 20 {
			over = append(over, fmt.Sprintf("Tag.%d.Key", n+1), fmt.Sprintf("n%d", n), fmt.Sprintf("Tag.%d.Value", n+1), "v")
		}
		a.no(403, "QuotaExceeded.TagNum", ecs, "TagResources", append(over, "ResourceType", "instance", "ResourceId.1", "i-web90")...)
	})
}
