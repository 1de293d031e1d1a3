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

// ReleaseInput is the input of Release.
type ReleaseInput struct {
	Guard    Guard  // everything that goes must carry this tag; required
	SourceID string // the production instance, which never goes; required with InstanceID

	InstanceID     string // "": none
	Images         []string
	SnapshotGroups []string
	Snapshots      []string
}

// Release takes away what a run made, in the only order that works: the
// instance (stopped first), the images, the snapshot groups, the snapshots. What
// is gone already is no error, so that it can be done again after a failure.
// Before anything goes everything is looked at, and if one thing does not carry
// the tag, or is the source, nothing goes: the error is a GuardError. Whether a
// balancer still sends traffic to the instance is the caller's to know. did may
// be nil; it is told what went, as "image m-1".
func (c *Client) Release(ctx context.Context, in ReleaseInput, did func(what string)) error {
	if did == nil {
		did = func(string) {}
	}
	g := in.Guard
	switch {
	case g.TagKey == "" || g.TagValue == "":
		return &GuardError{ID: in.InstanceID, Reason: "the call names no tag that marks it as ours"}
	case in.SourceID == "" && in.InstanceID != "":
		return &GuardError{ID: in.InstanceID, Reason: "the call does not name the instance that must stay"}
	case in.InstanceID == in.SourceID && in.InstanceID != "":
		return &GuardError{ID: in.InstanceID, Reason: "it is the source"}
	}
	tagged := func(object, id string, tags map[string]string) error {
		if tags[g.TagKey] != g.TagValue {
			return &GuardError{Object: object, ID: id, Reason: fmt.Sprintf("tag %s is %q, not %q", g.TagKey, tags[g.TagKey], g.TagValue)}
		}
		return nil
	}

	var instance *Instance
	if in.InstanceID != "" {
		i, err := c.GetInstance(ctx, in.InstanceID)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		default:
			if err := tagged("instance", i.ID, i.Tags); err != nil {
				return err
			}
			instance = i
		}
	}
	var images []Image
	var groups []SnapshotGroup
	var snaps []Snapshot
	var err error
	if len(in.Images) > 0 {
		if images, err = c.ListImages(ctx, ImageFilter{IDs: in.Images}); err != nil {
			return err
		}
	}
	if len(in.SnapshotGroups) > 0 {
		if groups, err = c.ListSnapshotGroups(ctx, SnapshotGroupFilter{IDs: in.SnapshotGroups}); err != nil {
			return err
		}
	}
	if len(in.Snapshots) > 0 {
		if snaps, err = c.ListSnapshots(ctx, SnapshotFilter{IDs: in.Snapshots}); err != nil {
			return err
		}
	}
	for _, i := range images {
		if err := tagged("image", i.ID, i.Tags); err != nil {
			return err
		}
	}
	for _, s := range groups {
		if err := tagged("snapshot group", s.ID, s.Tags); err != nil {
			return err
		}
	}
	for _, s := range snaps {
		if err := tagged("snapshot", s.ID, s.Tags); err != nil {
			return err
		}
	}

	if instance != nil {
		// Nothing may go by itself on the way, nor come up again.
		if err := c.StopInstance(ctx, instance.ID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := c.DeleteInstance(ctx, instance.ID, g); err != nil {
			return err
		}
		did("instance " + instance.ID)
	}
	for _, i := range images {
		if err := c.drop(ctx, "image", i.ID, c.DeleteImage); err != nil {
			return err
		}
		did("image " + i.ID)
	}
	members := map[string]bool{}
	for _, s := range groups {
		if err := c.drop(ctx, "snapshot group", s.ID, c.DeleteSnapshotGroup); err != nil {
			return err
		}
		did("snapshot group " + s.ID)
		// The cloud keeps members that something was made of when their group goes.
		ids := make([]string, 0, len(s.Snapshots))
		for _, m := range s.Snapshots {
			ids = append(ids, m.ID)
			members[m.ID] = true
		}
		if len(ids) == 0 {
			continue
		}
		kept, err := c.ListSnapshots(ctx, SnapshotFilter{IDs: ids})
		if err != nil {
			return err
		}
		for _, m := range kept {
			if err := c.drop(ctx, "snapshot", m.ID, c.DeleteSnapshot); err != nil {
				return err
			}
			did("snapshot " + m.ID)
		}
	}
	slices.Reverse(snaps) // newest first, as they were built on each other
	for _, s := range snaps {
		if members[s.ID] {
			continue
		}
		if err := c.drop(ctx, "snapshot", s.ID, c.DeleteSnapshot); err != nil {
			return err
		}
		did("snapshot " + s.ID)
	}
	return nil
}

// drop deletes something, and waits while what was made of it is still on its
// way out.
func (c *Client) drop(ctx context.Context, object, id string, del func(context.Context, string) error) error {
	ctx, cancel := alicloud.WithLimit(ctx, min(c.wait, 5*time.Minute))
	defer cancel()
	return c.poller().Until(ctx, object+" "+id, func(ctx context.Context) (string, bool, error) {
		err := del(ctx, id)
		var e *Error
		if errors.As(err, &e) && e.class == alicloud.Precondition {
			return "still in use: " + e.Code, false, nil
		}
		if err != nil && !retryable(err) && ctx.Err() == nil {
			return "", false, poll.Stop(fmt.Errorf("cannot delete %s %s: %w", object, id, err))
		}
		return "deleted", err == nil, err
	})
}
