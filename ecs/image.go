package ecs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// An Image of the account's own.
type Image struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Status       string            `json:"status"`   // "Creating", "Waiting", "Available", "UnAvailable", "CreateFailed" or "Deprecated"
	Percent      int               `json:"percent"`  // 0..100
	Size         int               `json:"size_gib"` // GiB
	OSName       string            `json:"os_name,omitempty"`
	Snapshots    []string          `json:"snapshots"` // IDs of the snapshots it is made of
	CreationTime time.Time         `json:"creation_time,omitzero"`
	Tags         map[string]string `json:"tags,omitempty"`

	BootMode     string   `json:"boot_mode,omitempty"`    // "BIOS" or "UEFI"
	Architecture string   `json:"architecture,omitempty"` // as x86_64
	CloudInit    bool     `json:"cloud_init"`             // user data has an effect on instances made of it
	Detection    string   `json:"detection,omitempty"`    // state of the cloud's check of it, as "Finished"
	Findings     []string `json:"findings,omitempty"`     // what that check found risky
}

// ImageInput is the input of CreateImage.
type ImageInput struct {
	Name        string // unique in the region, 2 to 128 characters
	Token       string // makes the call idempotent; required
	Description string
	Snapshots   []Snapshot // one of the system disk, and those of the data disks
	Tags        map[string]string
}

// An ImageFilter selects images of the account. Set fields must all match.
type ImageFilter struct {
	IDs  []string
	Name string // exact
	Tags map[string]string
}

// CreateImage begins an image of snapshots that are accomplished: one of a
// system disk, and any of data disks, which get the device names the disks have
// now. It returns the image's ID without waiting. Called again with the same
// input it returns the same image.
func (c *Client) CreateImage(ctx context.Context, in ImageInput) (string, error) {
	tags, err := markTags(in.Token, in.Tags)
	if err != nil {
		return "", fmt.Errorf("cannot create image %s: %w", in.Name, err)
	}
	mine, err := c.ListImages(ctx, ImageFilter{Tags: map[string]string{TokenTag: in.Token}})
	if err != nil {
		return "", err
	}
	if len(mine) > 0 {
		return mine[0].ID, nil
	}
	var diskIDs []string
	system := 0
	for _, s := range in.Snapshots {
		diskIDs = append(diskIDs, s.SourceDiskID)
		if s.SourceDiskType == "system" {
			system++
		}
	}
	if system != 1 {
		return "", fmt.Errorf("cannot create image %s: %d of its %d snapshots are of a system disk, one is needed", in.Name, system, len(in.Snapshots))
	}
	disks, err := c.api.Disks(ctx, alicloud.DiskQuery{IDs: diskIDs})
	if err != nil {
		return "", wrap(err)
	}
	var mappings []alicloud.Mapping
	for _, s := range in.Snapshots {
		m := alicloud.Mapping{SnapshotID: s.ID, DiskType: s.SourceDiskType}
		// A disk that is gone by now has no device any more; the cloud then
		// chooses the next free one.
		if i := slices.IndexFunc(disks, func(d alicloud.Disk) bool { return d.ID == s.SourceDiskID }); i >= 0 {
			m.Device = disks[i].Device
		}
		mappings = append(mappings, m)
	}
	// The system disk comes first, as in the cloud's own images.
	slices.SortStableFunc(mappings, func(a, b alicloud.Mapping) int {
		return boolInt(b.DiskType == "system") - boolInt(a.DiskType == "system")
	})
	id, err := c.api.CreateImage(ctx, alicloud.NewImage{Name: in.Name, Token: deriveToken(in.Token), Description: in.Description, Mappings: mappings, Tags: tags})
	if err != nil {
		return "", fmt.Errorf("cannot create image %s: %w", in.Name, wrap(err))
	}
	return id, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ListImages lists the account's images that match f, in every state.
func (c *Client) ListImages(ctx context.Context, f ImageFilter) ([]Image, error) {
	got, err := c.api.Images(ctx, alicloud.ImageQuery{IDs: f.IDs, Name: f.Name, Tags: f.Tags})
	if err != nil {
		return nil, wrap(err)
	}
	var all []Image
	for _, i := range got {
		if f.Name == "" || i.Name == f.Name {
			all = append(all, Image(i))
		}
	}
	return all, nil
}

// WaitImage waits until an image is available. One whose creation failed, or
// that vanished, ends the wait at once with a StateError. Many waits of one
// Client share their looks. progress may be nil.
func (c *Client) WaitImage(ctx context.Context, id string, progress func(Progress)) (*Image, error) {
	if id == "" {
		return nil, errors.New("cannot wait for an image without an ID")
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.long)
	defer cancel()
	report := reporter(progress)
	var last *Image
	started := time.Now()
	err := c.images.Until(ctx, "image "+id, []string{id}, func(seen map[string]Image) (string, bool, error) {
		i, ok := seen[id]
		if !ok {
			if last == nil && time.Since(started) < c.lag() {
				return "not shown yet", false, nil
			}
			gone := &StateError{Object: "image", ID: id, Want: "Available"}
			if last == nil {
				gone.never = c.Region()
			}
			return "", false, poll.Stop(gone)
		}
		last = &i
		report(Progress{Object: "image", ID: id, Status: last.Status, Percent: last.Percent})
		switch last.Status {
		case "Available":
			return last.Status, true, nil
		case "CreateFailed", "UnAvailable", "Deprecated":
			return "", false, poll.Stop(&StateError{Object: "image", ID: id, State: last.Status, Want: "Available"})
		}
		return last.Status, false, nil
	})
	if err != nil {
		return nil, c.asked("DescribeImages", err)
	}
	return last, nil
}

// DeleteImage deletes an image; instances made of it go on running, but cannot
// be reset to it. One that is gone is no error.
func (c *Client) DeleteImage(ctx context.Context, id string) error {
	if id == "" {
		return errors.New("cannot delete an image without an ID")
	}
	err := wrap(c.api.DeleteImage(ctx, id))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
