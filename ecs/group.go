package ecs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// A SnapshotGroup is a set of snapshots of disks of one instance that were taken
// at one moment: a file system or database that spans them is as after a power
// cut, and not torn.
type SnapshotGroup struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	InstanceID   string            `json:"instance_id"`
	Status       string            `json:"status"` // "progressing", "accomplished" or "failed"
	Snapshots    []Snapshot        `json:"snapshots"`
	CreationTime time.Time         `json:"creation_time,omitzero"`
	Tags         map[string]string `json:"tags,omitempty"`
}

// A SnapshotSet is what CreateSnapshotSet began.
type SnapshotSet struct {
	GroupID string `json:"group_id,omitempty"` // "": a snapshot of each disk by itself
	// Reason says why they are not a group, or what of a group could not be done
	// as it should (as a retention that was refused); "" if there is nothing to
	// say.
	Reason    string     `json:"reason,omitempty"`
	Snapshots []Snapshot `json:"snapshots"` // the system disk's first
}

// NoSnapshotGroup says why the disks of an instance cannot be snapshotted as a
// group, "" if they can: a group takes 2 to 16 disks of the ESSD family with
// 32 TiB together, none of them attached to several instances. With one disk
// there is nothing to hold together.
func NoSnapshotGroup(disks []Disk) string {
	if len(disks) < 2 {
		return "there is one disk"
	}
	if len(disks) > 16 {
		return fmt.Sprintf("%d disks; a group takes 16", len(disks))
	}
	size := 0
	for _, d := range disks {
		size += d.Size
		switch {
		case !strings.HasPrefix(d.Category, "cloud_essd") && d.Category != "cloud_auto":
			return fmt.Sprintf("disk %s (%s) is %s; a group takes disks of the ESSD family only", d.ID, d.Device, d.Category)
		case d.MultiAttach:
			return fmt.Sprintf("disk %s (%s) can be attached to several instances", d.ID, d.Device)
		}
	}
	if size > 32<<10 {
		return fmt.Sprintf("the disks have %d GiB; a group takes 32 TiB", size)
	}
	return ""
}

// CreateSnapshotSet begins snapshots of all disks of an instance: as a group
// where the disks allow it, else, or if the cloud refuses the group for what the
// disks are, of each disk by itself, with the reason. It does not wait; see
// WaitSnapshots. The members of a group get the same tags and retention as
// single snapshots have, so that they are found and go by themselves. Called
// again with the same input it returns the same snapshots.
func (c *Client) CreateSnapshotSet(ctx context.Context, in SnapshotInput) (*SnapshotSet, error) {
	fail := func(err error) (*SnapshotSet, error) {
		return nil, fmt.Errorf("cannot snapshot instance %s: %w", in.InstanceID, err)
	}
	tags, err := in.check()
	if err != nil {
		return fail(err)
	}
	if in.SystemOnly {
		return fail(errors.New("a set is of all disks"))
	}
	disks, err := c.ListDisks(ctx, in.InstanceID)
	if err != nil {
		return nil, err
	}
	group, err := c.groupOf(ctx, in.Token)
	if err != nil {
		return nil, err
	}
	reason := NoSnapshotGroup(disks)
	if reason == "" && group == nil {
		// Single ones of an earlier call with this token are gone on with.
		single, err := c.ListSnapshots(ctx, SnapshotFilter{Tags: map[string]string{TokenTag: in.Token}})
		if err != nil {
			return nil, err
		}
		if len(single) > 0 {
			reason = "an earlier call began one by one"
		}
	}
	if reason == "" && group == nil {
		var ids []string
		for _, d := range disks {
			ids = append(ids, d.ID)
		}
		_, err := c.api.CreateSnapshotGroup(ctx, alicloud.NewSnapshotGroup{
			InstanceID: in.InstanceID, Token: deriveToken(in.Token, "group"), Name: in.Name, Description: in.Description, DiskIDs: ids, Tags: tags,
		})
		err = wrap(err)
		var e *Error
		switch {
		case errors.As(err, &e) && strings.HasPrefix(e.Code, "DiskCategory."):
			reason = "the cloud refuses a group: " + e.Code
		case err != nil:
			return fail(err)
		default:
			if group, err = c.waitGroup(ctx, in.Token, len(disks)); err != nil {
				return fail(err)
			}
		}
	}
	if group == nil {
		snaps, err := c.CreateSnapshots(ctx, in)
		return &SnapshotSet{Reason: reason, Snapshots: snaps}, err
	}
	if len(group.Snapshots) < len(disks) {
		if group, err = c.waitGroup(ctx, in.Token, len(disks)); err != nil {
			return fail(err)
		}
	}
	set := &SnapshotSet{GroupID: group.ID}
	var ids []string
	for _, s := range group.Snapshots {
		ids = append(ids, s.ID)
	}
	// The tags are what finds the members again; without them they would be
	// forgotten.
	if err := c.api.Tag(ctx, "snapshot", ids, tags); err != nil {
		return set, fmt.Errorf("cannot tag the snapshots of group %s: %w", group.ID, wrap(err))
	}
	if in.RetentionDays > 0 {
		for _, s := range group.Snapshots {
			if s.RetentionDays == in.RetentionDays {
				continue
			}
			if err := wrap(c.api.SetRetention(ctx, s.ID, in.RetentionDays)); err != nil {
				if ctx.Err() != nil || errors.Is(err, ErrCredentials) {
					return set, err
				}
				// Only a safety net: they are deleted by those who made them.
				set.Reason = fmt.Sprintf("the retention of snapshot %s could not be set: %v", s.ID, err)
			}
		}
	}
	if set.Snapshots, err = c.ListSnapshots(ctx, SnapshotFilter{IDs: ids}); err != nil {
		return set, err
	}
	order := func(s Snapshot) int {
		return slices.IndexFunc(disks, func(d Disk) bool { return d.ID == s.SourceDiskID })
	}
	slices.SortStableFunc(set.Snapshots, func(a, b Snapshot) int { return order(a) - order(b) })
	if len(set.Snapshots) < len(disks) {
		return set, fmt.Errorf("snapshot group %s of instance %s has %d snapshots for %d disks", group.ID, in.InstanceID, len(set.Snapshots), len(disks))
	}
	return set, nil
}

// groupOf finds the group that was made with a token; nil if there is none.
func (c *Client) groupOf(ctx context.Context, token string) (*SnapshotGroup, error) {
	all, err := c.ListSnapshotGroups(ctx, SnapshotGroupFilter{Tags: map[string]string{TokenTag: token}})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// waitGroup waits until a group that was just made is listed with its members.
func (c *Client) waitGroup(ctx context.Context, token string, members int) (group *SnapshotGroup, err error) {
	ctx, cancel := alicloud.WithLimit(ctx, min(c.wait, 2*time.Minute))
	defer cancel()
	err = c.poller().Until(ctx, "new snapshot group", func(ctx context.Context) (string, bool, error) {
		g, err := c.groupOf(ctx, token)
		if err != nil || g == nil {
			return "not shown yet", false, err
		}
		group = g
		return fmt.Sprintf("%d of %d snapshots shown", len(g.Snapshots), members), len(g.Snapshots) >= members, nil
	})
	return group, err
}

// A SnapshotGroupFilter selects snapshot groups. Set fields must all match.
type SnapshotGroupFilter struct {
	IDs        []string
	InstanceID string
	Tags       map[string]string
}

// ListSnapshotGroups lists the snapshot groups that match f. IDs that do not
// exist are left out.
func (c *Client) ListSnapshotGroups(ctx context.Context, f SnapshotGroupFilter) ([]SnapshotGroup, error) {
	got, err := c.api.SnapshotGroups(ctx, alicloud.SnapshotGroupQuery{IDs: f.IDs, InstanceID: f.InstanceID, Tags: f.Tags})
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]SnapshotGroup, 0, len(got))
	for _, g := range got {
		out := SnapshotGroup{ID: g.ID, Name: g.Name, InstanceID: g.InstanceID, Status: g.Status, CreationTime: g.CreationTime, Tags: g.Tags}
		for _, s := range g.Snapshots {
			out.Snapshots = append(out.Snapshots, Snapshot(s))
		}
		all = append(all, out)
	}
	return all, nil
}

// DeleteSnapshotGroup deletes a group and the snapshots in it. One that is gone
// is no error. The cloud keeps members that an image is made of, as snapshots by
// themselves: delete the image first, as Release does.
func (c *Client) DeleteSnapshotGroup(ctx context.Context, id string) error {
	if id == "" {
		return errors.New("cannot delete a snapshot group without an ID")
	}
	err := wrap(c.api.DeleteSnapshotGroup(ctx, id))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// WarmUpTag marks snapshots that were taken ahead of time for no other purpose
// than to make the ones that count short.
const WarmUpTag = "upgradectl:warm-up"

// CreateWarmUp begins snapshots of all disks the day before: the first snapshot
// of a disk copies all of it and can take hours, a later one copies what changed
// since. They are kept for in.RetentionDays (0: 3 days), and must exist when the
// later ones are taken.
func (c *Client) CreateWarmUp(ctx context.Context, in SnapshotInput) ([]Snapshot, error) {
	if in.RetentionDays == 0 {
		in.RetentionDays = 3
	}
	tags := map[string]string{WarmUpTag: "yes"}
	for k, v := range in.Tags {
		tags[k] = v
	}
	in.Tags = tags
	return c.CreateSnapshots(ctx, in)
}
