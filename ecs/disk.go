package ecs

import (
	"context"
	"errors"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// A Disk is a block device of an instance.
type Disk struct {
	ID, Name, InstanceID string
	Type                 string // "system" or "data"
	Category             string // as cloud_essd
	PerformanceLevel     string // PL0 to PL3 for ESSD
	Size                 int    // GiB
	Device               string // as /dev/xvda
	Status               string // as In_use
	DeleteWithInstance   bool
	Encrypted            bool
	KMSKeyID             string
}

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
