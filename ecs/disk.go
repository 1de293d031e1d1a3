package ecs

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
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

// ResetInput is the input of ResetDisk.
type ResetInput struct {
	InstanceID string // whose disk it is; must be Stopped
	DiskID     string
	SnapshotID string // of that very disk, accomplished
}

// ResetDisk sets a disk back to one of its snapshots, for good: everything
// written since is lost. It waits until the disk is at rest again, and leaves
// the instance Stopped. It refuses, with a GuardError, a disk that is not the
// instance's, an instance that is not Stopped, and a snapshot of another disk or
// one that is not accomplished; a system disk that was replaced since has
// another ID, and its old snapshots do not fit it. Done again it leads to the
// same. progress may be nil.
func (c *Client) ResetDisk(ctx context.Context, in ResetInput, progress func(Progress)) error {
	refuse := func(format string, args ...any) error {
		return &GuardError{Object: "disk", ID: in.DiskID, Reason: fmt.Sprintf(format, args...)}
	}
	if in.InstanceID == "" || in.DiskID == "" || in.SnapshotID == "" {
		return errors.New("cannot reset a disk without instance, disk and snapshot")
	}
	disk, err := c.diskOf(ctx, in.InstanceID, in.DiskID)
	if err != nil {
		return err
	}
	if disk == nil {
		return refuse("it is not a disk of instance %s (any more)", in.InstanceID)
	}
	snaps, err := c.ListSnapshots(ctx, SnapshotFilter{IDs: []string{in.SnapshotID}})
	if err != nil {
		return err
	}
	switch {
	case len(snaps) == 0:
		return notFound("snapshot", in.SnapshotID)
	case snaps[0].SourceDiskID != in.DiskID:
		return refuse("snapshot %s is of disk %s", in.SnapshotID, snaps[0].SourceDiskID)
	case snaps[0].Status != "accomplished":
		return refuse("snapshot %s is %s, not accomplished", in.SnapshotID, snaps[0].Status)
	}
	if err := c.needStopped(ctx, in.InstanceID, refuse); err != nil {
		return err
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.long)
	defer cancel()
	report := reporter(progress)
	asked := false
	return c.poller().Until(ctx, "reset of disk "+in.DiskID, func(ctx context.Context) (string, bool, error) {
		d, err := c.diskOf(ctx, in.InstanceID, in.DiskID)
		switch {
		case err != nil:
			return "", false, err
		case d == nil:
			return "", false, poll.Stop(&StateError{Object: "disk", ID: in.DiskID, Want: DiskInUse})
		}
		report(Progress{Object: "disk", ID: d.ID, Status: d.Status, Percent: -1})
		if asked || d.Status != DiskInUse {
			return d.Status, asked && d.Status == DiskInUse, nil
		}
		if err := wrap(c.api.ResetDisk(ctx, in.DiskID, in.SnapshotID)); err != nil {
			if classOf(err) == alicloud.Precondition {
				return d.Status + ", not ready to be reset", false, nil
			}
			return "", false, settle(ctx, err)
		}
		asked = true
		return d.Status, false, nil
	})
}

// ReplaceInput is the input of ReplaceSystemDisk.
type ReplaceInput struct {
	InstanceID string // must be Stopped, and not in the economical mode
	OldDiskID  string // the system disk that is to go
	ImageID    string // available, and without data disks
	Size       int    // of the new disk, in GiB, at least the image's; 0: the image's
	Token      string // makes the call idempotent; required
}

// ReplaceSystemDisk gives an instance a new system disk made of an image and
// returns the new disk's ID when it is in place. The instance keeps its ID,
// addresses, data disks, key pair and places in balancers; the old disk is
// released, with its automatic snapshot policy, so take a snapshot of it first. It refuses, with a GuardError, what the cloud would.
// Called again with the same input it returns the same disk: an instance whose
// system disk is not OldDiskID any more has had it replaced.
func (c *Client) ReplaceSystemDisk(ctx context.Context, in ReplaceInput, progress func(Progress)) (string, error) {
	refuse := func(format string, args ...any) error {
		return &GuardError{Object: "disk", ID: in.OldDiskID, Reason: fmt.Sprintf(format, args...)}
	}
	if in.InstanceID == "" || in.OldDiskID == "" || in.ImageID == "" {
		return "", errors.New("cannot replace a system disk without instance, disk and image")
	}
	if _, err := markTags(in.Token, nil); err != nil {
		return "", err
	}
	system, err := c.systemDisk(ctx, in.InstanceID)
	if err != nil {
		return "", err
	}
	if system != nil && system.ID == in.OldDiskID {
		images, err := c.ListImages(ctx, ImageFilter{IDs: []string{in.ImageID}})
		switch {
		case err != nil:
			return "", err
		case len(images) == 0:
			return "", notFound("image", in.ImageID)
		case images[0].Status != "Available":
			return "", refuse("image %s is %s, not Available", in.ImageID, images[0].Status)
		case len(images[0].Snapshots) > 1:
			return "", refuse("image %s has data disks", in.ImageID)
		case in.Size != 0 && in.Size < images[0].Size:
			return "", refuse("image %s has %d GiB, and the new disk would have %d", in.ImageID, images[0].Size, in.Size)
		}
		if err := c.needStopped(ctx, in.InstanceID, refuse); err != nil {
			return "", err
		}
		i, err := c.GetInstance(ctx, in.InstanceID)
		if err != nil {
			return "", err
		}
		if _, err := c.api.ReplaceSystemDisk(ctx, alicloud.NewSystemDisk{InstanceID: in.InstanceID, ImageID: in.ImageID, Size: in.Size, Token: deriveToken(in.Token), KeyPair: i.KeyPair}); err != nil {
			return "", fmt.Errorf("cannot replace system disk %s of instance %s: %w", in.OldDiskID, in.InstanceID, wrap(err))
		}
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	report := reporter(progress)
	id := ""
	err = c.poller().Until(ctx, "new system disk of instance "+in.InstanceID, func(ctx context.Context) (string, bool, error) {
		d, err := c.systemDisk(ctx, in.InstanceID)
		if err != nil {
			return "", false, err
		}
		if d == nil || d.ID == in.OldDiskID {
			return "not there yet", false, nil
		}
		id = d.ID
		report(Progress{Object: "disk", ID: d.ID, Status: d.Status, Percent: -1})
		return d.Status, d.Status == DiskInUse, nil
	})
	return id, err
}

func (c *Client) diskOf(ctx context.Context, instanceID, diskID string) (*Disk, error) {
	disks, err := c.ListDisks(ctx, instanceID)
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if d.ID == diskID {
			return &d, nil
		}
	}
	return nil, nil
}

func (c *Client) systemDisk(ctx context.Context, instanceID string) (*Disk, error) {
	disks, err := c.ListDisks(ctx, instanceID)
	if err != nil || len(disks) == 0 || disks[0].Type != "system" {
		return nil, err
	}
	return &disks[0], nil
}

// needStopped refuses an instance whose disks must not be changed now.
func (c *Client) needStopped(ctx context.Context, id string, refuse func(string, ...any) error) error {
	i, err := c.GetInstance(ctx, id)
	switch {
	case err != nil:
		return err
	case i.Status != StatusStopped:
		return refuse("instance %s is %s; stop it first", id, i.Status)
	case i.StoppedMode == "StopCharging":
		return refuse("instance %s was stopped in the economical mode; start it and stop it again", id)
	}
	return nil
}
