package ecs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// A Snapshot of one disk.
type Snapshot struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	Status         string            `json:"status"`                 // "progressing", "accomplished" or "failed"
	Percent        int               `json:"percent"`                // 0..100
	Remaining      time.Duration     `json:"remaining_ns,omitempty"` // the cloud's estimate
	SourceDiskID   string            `json:"source_disk_id"`
	SourceDiskType string            `json:"source_disk_type"`     // "system" or "data"
	SourceDiskSize int               `json:"source_disk_size_gib"` // GiB
	RetentionDays  int               `json:"retention_days"`       // 0: kept until deleted
	CreationTime   time.Time         `json:"creation_time,omitzero"`
	Tags           map[string]string `json:"tags,omitempty"`
}

// SnapshotInput is the input of CreateSnapshots.
type SnapshotInput struct {
	InstanceID    string
	Token         string // makes the call idempotent; required; printable ASCII
	Name          string // 2 to 128 characters, not beginning with "auto"; with several disks the device is appended
	Description   string
	RetentionDays int // 1 to 65536; 0 keeps the snapshots until they are deleted
	Tags          map[string]string
	SystemOnly    bool `json:",omitempty"` // the system disk alone; of CreateSnapshots only
}

// A SnapshotFilter selects snapshots. Set fields must all match.
type SnapshotFilter struct {
	IDs        []string
	InstanceID string
	DiskID     string
	Tags       map[string]string
}

// check refuses what the cloud would, and returns the tags to put on.
func (in *SnapshotInput) check() (map[string]string, error) {
	switch {
	case strings.HasPrefix(in.Name, "auto"):
		return nil, fmt.Errorf("the name %q begins with auto, which the cloud keeps for itself", in.Name)
	case in.RetentionDays < 0 || in.RetentionDays > 65536:
		return nil, fmt.Errorf("%d days of retention are not within 0 to 65536", in.RetentionDays)
	}
	return markTags(in.Token, in.Tags)
}

// CreateSnapshots begins a snapshot of every disk of an instance and returns
// them, the system disk's first, without waiting. Called again with the same
// input it returns the same snapshots: those that carry the token's tag are
// adopted, and the missing ones made with a token of their own that is derived
// from Token and the disk. If the error comes after some were begun, those are
// returned with it.
//
// The snapshots are begun one after another: what is written to several disks at
// once is not caught at one moment. CreateSnapshotSet does that where it can be
// done.
func (c *Client) CreateSnapshots(ctx context.Context, in SnapshotInput) ([]Snapshot, error) {
	tags, err := in.check()
	if err != nil {
		return nil, fmt.Errorf("cannot snapshot instance %s: %w", in.InstanceID, err)
	}
	disks, err := c.ListDisks(ctx, in.InstanceID)
	if err != nil {
		return nil, err
	}
	if in.SystemOnly {
		disks = slices.DeleteFunc(disks, func(d Disk) bool { return d.Type != "system" })
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("cannot snapshot instance %s: no disks: %w", in.InstanceID, ErrNotFound)
	}
	for _, d := range disks {
		if d.Category == "" || strings.HasPrefix(d.Category, "local") || strings.HasPrefix(d.Category, "ephemeral") {
			return nil, fmt.Errorf("cannot snapshot instance %s: disk %s (%s) is of category %q, of which the cloud takes no snapshots", in.InstanceID, d.ID, d.Device, d.Category)
		}
	}
	mine, err := c.ListSnapshots(ctx, SnapshotFilter{Tags: map[string]string{TokenTag: in.Token}})
	if err != nil {
		return nil, err
	}
	var made []string
	out := make([]Snapshot, 0, len(disks))
	for _, d := range disks {
		if i := slices.IndexFunc(mine, func(s Snapshot) bool { return s.SourceDiskID == d.ID }); i >= 0 {
			out = append(out, mine[i])
			continue
		}
		name := in.Name
		if name != "" && len(disks) > 1 {
			name += "-" + path.Base(d.Device)
		}
		id, err := c.createSnapshot(ctx, alicloud.NewSnapshot{
			DiskID: d.ID, Token: deriveToken(in.Token, d.ID), Name: name, Description: in.Description, RetentionDays: in.RetentionDays, Tags: tags,
		})
		if err != nil {
			return out, fmt.Errorf("cannot snapshot disk %s (%s) of instance %s: %w", d.ID, d.Device, in.InstanceID, err)
		}
		made = append(made, id)
		out = append(out, Snapshot{
			ID: id, Name: name, Status: "progressing", SourceDiskID: d.ID, SourceDiskType: d.Type, SourceDiskSize: d.Size,
			RetentionDays: in.RetentionDays, Tags: maps.Clone(tags),
		})
	}
	if len(made) == 0 {
		return out, nil
	}
	// Best effort: what the cloud says of them by now. They exist in any case.
	if now, err := c.ListSnapshots(ctx, SnapshotFilter{IDs: made}); err == nil {
		for _, s := range now {
			if i := slices.IndexFunc(out, func(o Snapshot) bool { return o.ID == s.ID }); i >= 0 {
				out[i] = s
			}
		}
	}
	return out, nil
}

// createSnapshot begins one snapshot. A disk can have one in progress at a time;
// an automatic one that happens to run is waited for.
func (c *Client) createSnapshot(ctx context.Context, in alicloud.NewSnapshot) (string, error) {
	ctx, cancel := alicloud.WithLimit(ctx, c.long)
	defer cancel()
	var id string
	err := c.poller().Until(ctx, "disk "+in.DiskID, func(ctx context.Context) (string, bool, error) {
		got, err := c.api.CreateSnapshot(ctx, in)
		err = wrap(err)
		var e *Error
		switch {
		case err == nil:
			id = got
			return "begun", true, nil
		case errors.As(err, &e) && e.Code == "IncorrectDiskStatus.CreatingSnapshot":
			return "busy with another snapshot", false, nil
		case ctx.Err() != nil:
			return "", false, err
		}
		return "", false, poll.Stop(err)
	})
	return id, err
}

// ListSnapshots lists the snapshots that match f, in the order of f.IDs if those
// are given, else oldest first. IDs that do not exist are left out.
func (c *Client) ListSnapshots(ctx context.Context, f SnapshotFilter) ([]Snapshot, error) {
	got, err := c.api.Snapshots(ctx, alicloud.SnapshotQuery{IDs: f.IDs, InstanceID: f.InstanceID, DiskID: f.DiskID, Tags: f.Tags})
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]Snapshot, 0, len(got))
	for _, s := range got {
		all = append(all, Snapshot(s))
	}
	if len(f.IDs) > 0 {
		slices.SortStableFunc(all, func(a, b Snapshot) int { return slices.Index(f.IDs, a.ID) - slices.Index(f.IDs, b.ID) })
	} else {
		slices.SortStableFunc(all, func(a, b Snapshot) int { return a.CreationTime.Compare(b.CreationTime) })
	}
	return all, nil
}

// WaitSnapshots waits until all snapshots are accomplished and returns them in
// the order of ids. One that failed or vanished ends the wait at once with a
// StateError. Many waits of one Client share their looks. progress may be nil.
func (c *Client) WaitSnapshots(ctx context.Context, ids []string, progress func(Progress)) ([]Snapshot, error) {
	if len(ids) == 0 {
		// "All of none" would be true at once, and nobody can mean that.
		return nil, errors.New("cannot wait for no snapshots")
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.long)
	defer cancel()
	report := reporter(progress)
	seen := map[string]bool{}
	started := time.Now()
	var last []Snapshot
	err := c.snapshots.Until(ctx, plural("snapshot", ids), ids, func(byID map[string]Snapshot) (string, bool, error) {
		done, missing := 0, ""
		last = last[:0]
		var states []string
		for _, id := range ids {
			s, ok := byID[id]
			if !ok {
				if seen[id] {
					return "", false, poll.Stop(&StateError{Object: "snapshot", ID: id, Want: "accomplished"})
				}
				missing = id
				states = append(states, "not shown yet")
				continue
			}
			seen[id] = true
			last = append(last, s)
			states = append(states, s.Status)
			report(Progress{Object: "snapshot", ID: id, Status: s.Status, Percent: s.Percent, Remaining: s.Remaining})
			switch s.Status {
			case "accomplished":
				done++
			case "failed":
				return "", false, poll.Stop(&StateError{Object: "snapshot", ID: id, State: s.Status, Want: "accomplished"})
			}
		}
		if missing != "" && time.Since(started) > c.lag() {
			return "", false, poll.Stop(&StateError{Object: "snapshot", ID: missing, Want: "accomplished", never: c.Region()})
		}
		return strings.Join(slices.Compact(states), ", "), done == len(ids), nil
	})
	if err != nil {
		return nil, c.asked("DescribeSnapshots", err)
	}
	return slices.Clone(last), nil
}

// DeleteSnapshot deletes a snapshot. One that is gone is no error. The cloud
// refuses while an image is made of it: delete the image first.
func (c *Client) DeleteSnapshot(ctx context.Context, id string) error {
	if id == "" {
		return errors.New("cannot delete a snapshot without an ID")
	}
	err := wrap(c.api.DeleteSnapshot(ctx, id))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// markTags adds the tag that makes a thing findable by the token of its making.
func markTags(token string, tags map[string]string) (map[string]string, error) {
	if token == "" {
		return nil, errors.New("a token is required, or a repeated call would make a second one")
	}
	if len(token) > 128 {
		return nil, errors.New("the token is longer than 128 bytes")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return nil, errors.New("the token must be printable ASCII without blanks")
		}
	}
	all := maps.Clone(tags)
	if all == nil {
		all = map[string]string{}
	}
	all[TokenTag] = token
	return all, nil
}

// deriveToken makes a ClientToken, which has at most 64 characters, of a token
// and what it is for.
func deriveToken(token string, parts ...string) string {
	if len(parts) == 0 && len(token) <= 64 {
		return token
	}
	h := sha256.Sum256([]byte(token + "\x00" + strings.Join(parts, "\x00")))
	tail := hex.EncodeToString(h[:12])
	return token[:min(len(token), 64-1-len(tail))] + "-" + tail
}

func plural(object string, ids []string) string {
	if len(ids) > 1 {
		object += "s"
	}
	return object + " " + strings.Join(ids, ", ")
}
