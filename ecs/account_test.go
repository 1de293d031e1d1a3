package ecs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// Only what is still to come is listed, the next first, over several pages.
func TestListSystemEvents(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		none, err := c.ListSystemEvents(t.Context(), "i-web90")
		require.NoError(t, err)
		assert.Empty(t, none)
		at := time.Date(2026, 11, 25, 2, 0, 0, 0, time.UTC)
		for n := range 120 { // the past
			sim.AddSystemEvent(cloud.SystemEvent{InstanceID: "i-web90", Type: "SystemMaintenance.Reboot", Status: []string{"Executed", "Avoided", "Canceled", "Failed"}[n%4], NotBefore: at.Add(-time.Hour)})
		}
		sim.AddSystemEvent(cloud.SystemEvent{InstanceID: "i-other", Type: "SystemFailure.Redeploy", NotBefore: at})
		sim.AddSystemEvent(cloud.SystemEvent{ID: "e-later", InstanceID: "i-web90", Type: "SystemMaintenance.Redeploy", Reason: "old hardware", NotBefore: at.Add(time.Hour)})
		sim.AddSystemEvent(cloud.SystemEvent{ID: "e-next", InstanceID: "i-web90", Type: "SystemMaintenance.Reboot", Status: "Inquiring", NotBefore: at})
		for range 110 { // more than a page
			sim.AddSystemEvent(cloud.SystemEvent{InstanceID: "i-web90", Type: "InstanceFailure.Reboot", Status: "Executing", NotBefore: at.Add(2 * time.Hour)})
		}
		got, err := c.ListSystemEvents(t.Context(), "i-web90")
		require.NoError(t, err)
		require.Len(t, got, 112)
		assert.Equal(t, ecs.SystemEvent{ID: "e-next", Type: "SystemMaintenance.Reboot", Status: "Inquiring", NotBefore: at}, got[0])
		assert.Equal(t, ecs.SystemEvent{ID: "e-later", Type: "SystemMaintenance.Redeploy", Status: "Scheduled", Reason: "old hardware", NotBefore: at.Add(time.Hour)}, got[1])
		_, err = c.ListSystemEvents(t.Context(), "")
		require.Error(t, err)
	})
}

// Each quota is told with what is left, and one that is too small is one that the
// cloud then refuses a clone for.
func TestListQuotas(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) {
		ctx := t.Context()
		sim.AddVSwitch(cloud.VSwitch{ID: "vsw-small", VPC: "vpc-sim", CIDR: "172.31.16.0/29"})
		in, disks, err := c.GetDetails(ctx, "i-web90")
		require.NoError(t, err)
		in.VSwitch = "vsw-small"
		ask := func() map[string]ecs.Quota {
			all, unasked, err := c.ListQuotas(ctx, ecs.QuotaQuery{Source: in, SecurityGroups: in.SecurityGroups})
			require.NoError(t, err)
			all = append(all, ecs.SnapshotQuotas(disks, []ecs.Snapshot{{SourceDiskID: "d-sys", Name: "nightly"}, {SourceDiskID: "d-sys", Name: "auto2.0_1"}, {SourceDiskID: "d-x"}}, 2)...)
			assert.Empty(t, unasked)
			out := map[string]ecs.Quota{}
			for _, q := range all {
				out[q.Kind+" "+q.Object] = q
			}
			return out
		}
		clone := func() error {
			one := []ecs.Disk{}
			for _, d := range disks {
				if d.Type == "system" {
					one = append(one, d)
				}
			}
			return c.DryRunClone(ctx, ecs.CloneInput{Source: in, Disks: one, ImageID: "m-centos", Name: "web-90-transition"})
		}
		sim.AddImage(cloud.Image{ID: "m-centos", Owner: "system"})
		require.NoError(t, clone())
		got := ask()
		assert.Len(t, got, 6)
		assert.Equal(t, ecs.Quota{Kind: ecs.QuotaVCPU, Object: "cn-hangzhou", Need: in.VCPU, Left: 1000 - 2*in.VCPU, Most: 1000}, got["vcpu cn-hangzhou"])
		assert.Equal(t, ecs.Quota{Kind: ecs.QuotaSecurityGroup, Object: "sg-web", Need: 1, Left: 1999, Most: 2000}, got["security-group sg-web"])
		assert.Equal(t, ecs.Quota{Kind: ecs.QuotaAddress, Object: "vsw-small", Need: 1, Left: 4}, got["address vsw-small"])
		assert.Equal(t, ecs.Quota{Kind: ecs.QuotaSnapshot, Object: "d-sys", Need: 2, Left: 255, Most: 256}, got["snapshot d-sys"])
		for name, q := range got {
			assert.False(t, q.Short(), name)
		}

		sim.SetQuota("max-postpaid-instance-vcpu-count", 2*in.VCPU+1)
		assert.True(t, ask()["vcpu cn-hangzhou"].Short())
		require.ErrorContains(t, clone(), "QuotaExceed.ElasticQuota")
		sim.SetQuota("max-postpaid-instance-vcpu-count", 3*in.VCPU)
		assert.False(t, ask()["vcpu cn-hangzhou"].Short())
		require.NoError(t, clone())

		sim.SetGroupCapacity("sg-ssh", 1)
		assert.True(t, ask()["security-group sg-ssh"].Short())
		require.ErrorContains(t, clone(), "SecurityGroupInstanceLimitExceed")
		sim.SetGroupCapacity("sg-ssh", 2)
		require.NoError(t, clone())

		for n := range 4 {
			sim.AddInstance(cloud.Instance{ID: "i-" + string(rune('a'+n)), VSwitch: "vsw-small", ChargeType: "PrePaid", PrivateIP: "172.31.16." + string(rune('1'+n))})
		}
		assert.True(t, ask()["address vsw-small"].Short())
		require.ErrorContains(t, clone(), "QuotaExceeded.PrivateIpAddress")
		cidr, err := c.VSwitchCIDR(ctx, "vsw-small")
		require.NoError(t, err)
		assert.Equal(t, "172.31.16.0/29", cidr)
		_, err = c.VSwitchCIDR(ctx, "vsw-none")
		require.ErrorIs(t, err, ecs.ErrNotFound)

		// What may not be asked is said, and the rest is asked all the same.
		sim.Deny("DescribeAccountAttributes", "vpc:DescribeVSwitches")
		all, unasked, err := c.ListQuotas(ctx, ecs.QuotaQuery{Source: in, SecurityGroups: in.SecurityGroups})
		require.NoError(t, err)
		assert.Len(t, all, 2)
		require.Len(t, unasked, 2)
		assert.Contains(t, unasked[0], "not checked: needs ecs:DescribeAccountAttributes")
		assert.Contains(t, unasked[1], "not checked: needs vpc:DescribeVSwitches")
	})
}
