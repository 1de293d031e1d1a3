package ecs

import "time"

// A Snapshot of one disk.
type Snapshot struct {
	ID, Name       string
	Status         string // "progressing", "accomplished" or "failed"
	Percent        int    // 0..100
	Remaining      time.Duration
	SourceDiskID   string
	SourceDiskType string // "system" or "data"
	SourceDiskSize int    // GiB
	RetentionDays  int    // 0: kept until deleted
	CreationTime   time.Time
	Tags           map[string]string
}

// SnapshotInput is the input of CreateSnapshots.
type SnapshotInput struct {
	InstanceID    string
	Token         string // makes the call idempotent; required; printable ASCII
	Name          string // 2 to 128 characters, not beginning with "auto"; with several disks the device is appended
	Description   string
	RetentionDays int // 1 to 65536; 0 keeps the snapshots until they are deleted
	Tags          map[string]string
}

// A SnapshotFilter selects snapshots. Set fields must all match.
type SnapshotFilter struct {
	IDs        []string
	InstanceID string
	DiskID     string
	Tags       map[string]string
}
