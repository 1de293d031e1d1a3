package ecs

import (
	"context"
	"errors"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// A Disk is a block device of an instance.
type Disk struct {
	ID                 string `json:"id"`
	Name               string `json:"name"`
	InstanceID         string `json:"instance_id"`
	Type               string `json:"type"`                        // "system" or "data"
	Category           string `json:"category"`                    // as cloud_essd
	PerformanceLevel   string `json:"performance_level,omitempty"` // PL0 to PL3 for ESSD
	Size               int    `json:"size_gib"`                    // GiB
	Device             string `json:"device"`                      // as /dev/xvda
	Status             string `json:"status"`                      // as DiskInUse
	DeleteWithInstance bool   `json:"delete_with_instance"`
	Encrypted          bool   `json:"encrypted"`
	KMSKeyID           string `json:"kms_key_id,omitempty"`

	ProvisionedIOPS      int    `json:"provisioned_iops,omitempty"` // of ESSD AutoPL
	Bursting             bool   `json:"bursting,omitempty"`         // of ESSD AutoPL
	MultiAttach          bool   `json:"multi_attach"`               // may be attached to several instances
	Portable             bool   `json:"portable"`
	AutoSnapshotPolicyID string `json:"auto_snapshot_policy_id,omitempty"`
	ImageID              string `json:"image_id,omitempty"` // a system disk was made of
}

// DiskInUse is the status of a disk that is attached and at rest.
const DiskInUse = "In_use"

// ListDisks lists the disks of an instance, the system disk first.
func (c *Client) ListDisks(ctx context.Context, instanceID string) ([]Disk, error) {
	if instanceID == "" {
		// An empty filter would list the disks of everybody.
		return nil, errors.New("cannot list disks without an instance ID")
	}
	got, err := c.api.Disks(ctx, alicloud.DiskQuery{InstanceID: instanceID})
	if err != nil {
		return nil, wrap(err)
	}
	var system, data []Disk
	for _, d := range got {
		if d.Type == "system" {
			system = append(system, Disk(d))
		} else {
			data = append(data, Disk(d))
		}
	}
	return append(system, data...), nil
}
