package ecs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
)

func plainHost() (*ecs.Instance, []ecs.Disk) {
	return &ecs.Instance{ID: "i-1", Status: ecs.StatusRunning, ChargeType: "PostPaid", OSType: "linux"},
		[]ecs.Disk{{ID: "d-1", Type: "system", Category: "cloud_essd", Device: "/dev/xvda", Status: ecs.DiskInUse}, {ID: "d-2", Type: "data", Category: "cloud_efficiency", Device: "/dev/xvdb", Status: ecs.DiskInUse}}
}

// Each thing that a copy lacks is found by itself, and a plain host has none.
func TestCheckClone(t *testing.T) {
	i, disks := plainHost()
	assert.Empty(t, ecs.CheckClone(i, disks))
	for _, tt := range []struct {
		code     string
		object   string
		blocking bool
		change   func(*ecs.Instance, []ecs.Disk) []ecs.Disk
	}{
		{"status", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.Status = "Starting"; return d }},
		{"locked", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.Locks = []string{"financial"}; return d }},
		{"windows", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.OSType = "windows"; return d }},
		{"local-disk", "d-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Category = "local_ssd_pro"; return d }},
		{"local-disk", "d-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Category = "ephemeral_ssd"; return d }},
		{"local-disk", "d-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Category = ""; return d }},
		{"multi-attach", "d-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].MultiAttach = true; return d }},
		{"disk-status", "d-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Status = "ReIniting"; return d }},
		{"system-disk", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { return d[1:] }},
		{"disks", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk {
			for range 16 {
				d = append(d, d[1])
			}
			return d
		}},
		{"secondary-eni", "eni-2", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.SecondaryENIs = []string{"eni-2"}; return d }},
		{"secondary-ip", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.SecondaryIPs = []string{"172.31.0.7"}; return d }},
		{"ipv6", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.IPv6 = []string{"2001:db8::1"}; return d }},
		{"hpc-cluster", "i-1", true, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.HPCClusterID = "hpc-1"; return d }},
		{"encrypted-disk", "d-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[0].Encrypted = true; return d }},
		{"prepaid", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.ChargeType = "PrePaid"; return d }},
		{"spot", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.SpotStrategy = "SpotAsPriceGo"; return d }},
		{"eip", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk {
			i.EIP, i.PublicIPs = "47.1.1.1", []string{"47.1.1.1"}
			return d
		}},
		{"public-ip", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.PublicIPs = []string{"47.1.1.2"}; return d }},
		{"user-data", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.UserDataBytes = 9; return d }},
		{"dedicated-host", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.DedicatedHostID = "dh-1"; return d }},
		{"deployment-set", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.DeploymentSetID = "ds-1"; return d }},
		{"key-pair", "i-1", false, func(i *ecs.Instance, d []ecs.Disk) []ecs.Disk { i.KeyPair = "ops"; return d }},
	} {
		i, disks := plainHost()
		got := ecs.CheckClone(i, tt.change(i, disks))
		require.Len(t, got, 1, tt.code)
		assert.Equal(t, tt.code, got[0].Code)
		assert.Equal(t, tt.object, got[0].Object, tt.code)
		assert.Equal(t, tt.blocking, got[0].Blocking, tt.code)
		assert.NotEmpty(t, got[0].Reason, tt.code)
		assert.NotEmpty(t, got[0].Remedy, tt.code)
	}
	// Obstacles come first.
	i, disks = plainHost()
	i.KeyPair, i.ChargeType, i.IPv6 = "ops", "PrePaid", []string{"2001:db8::1"}
	disks[0].Encrypted, disks[1].MultiAttach = true, true
	all := ecs.CheckClone(i, disks)
	for n := 1; n < len(all); n++ {
		assert.False(t, all[n].Blocking && !all[n-1].Blocking)
	}
	assert.Len(t, all, 5)
}

func TestNoSnapshotGroup(t *testing.T) {
	essd := ecs.Disk{ID: "d-1", Category: "cloud_essd", Size: 40, Device: "/dev/xvda"}
	auto, entry := essd, essd
	auto.Category, entry.Category = "cloud_auto", "cloud_essd_entry"
	old, shared, big := essd, essd, essd
	old.Category, shared.MultiAttach, big.Size = "cloud_efficiency", true, 32<<10
	many := make([]ecs.Disk, 17)
	for i := range many {
		many[i] = essd
	}
	for want, disks := range map[string][]ecs.Disk{
		"":                    {essd, auto, entry},
		"there is one disk":   {essd},
		"ESSD family only":    {essd, old},
		"several instances":   {essd, shared},
		"17 disks; a group":   many,
		"a group takes 32 Ti": {essd, big},
	} {
		got := ecs.NoSnapshotGroup(disks)
		assert.Equal(t, want == "", got == "", got)
		assert.True(t, strings.Contains(got, want), got)
	}
}
