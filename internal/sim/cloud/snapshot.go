package cloud

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A snapshot is the content of one disk at one moment.
type snapshot struct {
	seq               int64
	id, name, comment string
	disk, instance    string // where it was taken
	kind              string // system or data
	size              int    // GiB
	category          string
	tags              map[string]string
	retention         int // days; 0 = for ever
	content           string
	startedAt         time.Time
	takes             time.Duration
}

func (s *snapshot) number() int64 { return s.seq }

// progress is between 0 and 1; time alone moves it.
func (s *snapshot) progress() float64 {
	return min(float64(time.Since(s.startedAt))/float64(max(s.takes, 1)), 1)
}

func (s *snapshot) accomplished() bool { return s.progress() >= 1 }

// percentage renders a progress the way the API does; only what is done is 100%.
func percentage(p float64) string { return strconv.Itoa(int(p*100)) + "%" }

// insertSnapshot begins a snapshot of d. c.mu is held.
func (c *Cloud) insertSnapshot(d *disk) (*snapshot, *apiError) {
	if i := c.instances[d.instance]; i != nil && (i.Status != running && i.Status != stopped) {
		return nil, fail(400, "IncorrectInstanceStatus", "The current status of the resource does not support this operation: %s is %s.", i.ID, i.Status)
	}
	manual := 0
	for _, s := range c.snapshots {
		if s.disk != d.ID {
			continue
		}
		manual++
		if !s.accomplished() {
			return nil, fail(403, "IncorrectDiskStatus.CreatingSnapshot", "A snapshot of the disk %s is being created: %s.", d.ID, s.id)
		}
	}
	if manual >= 256 {
		return nil, fail(403, "QuotaExceed.Snapshot", "The disk %s has 256 snapshots.", d.ID)
	}
	s := &snapshot{
		seq: c.next(), id: c.newID("s"), disk: d.ID, instance: d.instance, kind: d.Type, size: d.Size, category: d.Category,
		tags: map[string]string{}, startedAt: time.Now(), takes: c.scaled(c.cfg.SnapshotTakes),
	}
	c.snapshots[s.id] = s
	return s, nil
}

// fill gives new snapshots of one instance their content. It calls Machines,
// so c.mu is not held.
func (c *Cloud) fill(list []*snapshot) *apiError {
	content, err := "", error(nil)
	if id := list[0].instance; id != "" {
		content, err = c.cfg.Machines.Snapshot(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range list {
		s.content = content
		if err != nil {
			delete(c.snapshots, s.id)
		}
	}
	if err != nil {
		return fail(500, "InternalError", "The request processing has failed due to some unknown error: %v", err)
	}
	return nil
}

func (c *Cloud) createSnapshot(q *call) (obj, *apiError) {
	name := q.str("SnapshotName")
	if name != "" && (len(name) < 2 || len(name) > 128 || strings.HasPrefix(name, "auto")) {
		return nil, refuse(400, "InvalidSnapshotName.Malformed", "The specified SnapshotName %q is not 2 to 128 characters long or begins with auto.", name)
	}
	days := q.num("RetentionDays", 0)
	if q.has("RetentionDays") && (days < 1 || days > 65536) {
		return nil, refuse(400, "InvalidRetentionDays.Malformed", "The specified RetentionDays %d is not between 1 and 65536.", days)
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	s, err := func() (*snapshot, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		d := c.disks[q.str("DiskId")]
		if d == nil {
			return nil, fail(404, "InvalidDiskId.NotFound", "The specified DiskId %q does not exist.", q.str("DiskId"))
		}
		s, err := c.insertSnapshot(d)
		if err != nil {
			return nil, err
		}
		s.name, s.comment, s.tags, s.retention = name, q.str("Description"), tags, days
		return s, nil
	}()
	if err != nil {
		return nil, err
	}
	if err := c.fill([]*snapshot{s}); err != nil {
		return nil, err
	}
	if days > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.expire(s, time.Duration(min(days, 3650))*24*time.Hour)
	}
	return obj{"SnapshotId": s.id}, nil
}

// expire plans the automatic deletion of a snapshot, which waits for images
// that need it. c.mu is held.
func (c *Cloud) expire(s *snapshot, d time.Duration) {
	c.after(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.imageOf(s.id) != nil {
			c.expire(s, 24*time.Hour)
			return
		}
		delete(c.snapshots, s.id)
	})
}

// imageOf returns an image that is made from a snapshot. c.mu is held.
func (c *Cloud) imageOf(id string) *image {
	for _, i := range sorted(c.images) {
		for _, m := range i.mappings {
			if m.snapshot == id {
				return i
			}
		}
	}
	return nil
}

func (c *Cloud) deleteSnapshot(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snapshots[q.str("SnapshotId")]
	if s == nil {
		return obj{}, nil // ignored, as documented
	}
	if i := c.imageOf(s.id); i != nil {
		return nil, fail(403, "SnapshotCreatedImage", "The snapshot %s has been used to create the image %s.", s.id, i.id)
	}
	if !q.is("Force") {
		for _, d := range sorted(c.disks) {
			if d.snapshot == s.id {
				return nil, fail(403, "SnapshotCreatedDisk", "The snapshot %s has been used to create the disk %s.", s.id, d.ID)
			}
		}
	}
	delete(c.snapshots, s.id)
	return obj{}, nil
}

func (c *Cloud) describeSnapshots(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	ids, byID := q.ids("SnapshotIds")
	c.mu.Lock()
	defer c.mu.Unlock()
	status := q.str("Status")
	if status == "all" {
		status = ""
	}
	kind := q.str("SnapshotType")
	if kind == "all" {
		kind = ""
	}
	var found []*snapshot
	for _, s := range sorted(c.snapshots) {
		if byID && !slices.Contains(ids, s.id) ||
			!oneOf(s.disk, q.str("DiskId")) || !oneOf(s.instance, q.str("InstanceId")) ||
			!oneOf(s.status(), status) || !oneOf(c.usage(s), q.str("Usage")) || !oneOf("user", kind) ||
			!oneOf(s.kind, strings.ToLower(q.str("SourceDiskType"))) || !like(s.name, q.str("SnapshotName")) ||
			!tagged(s.tags, filter) {
			continue
		}
		found = append(found, s)
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, s := range part {
		left := int(math.Ceil((1 - s.progress()) * s.takes.Seconds()))
		list = append(list, obj{
			"SnapshotId": s.id, "SnapshotName": s.name, "Description": s.comment, "Status": s.status(),
			"Progress": percentage(s.progress()), "RemainTime": left, "Available": s.accomplished(),
			"SourceDiskId": s.disk, "SourceDiskSize": strconv.Itoa(s.size), "SourceDiskType": s.kind,
			"SourceStorageType": "disk", "Category": "standard", "InstantAccess": false, "Usage": c.usage(s),
			"SnapshotType": "user", "SnapshotLinkId": "sl-" + strings.TrimPrefix(s.disk, "d-"), "RegionId": c.cfg.Region,
			"SnapshotSN": fmt.Sprintf("64472-116742336-%d", s.seq), "RetentionDays": s.retention, "Encrypted": false,
			"KMSKeyId": "", "ProductCode": "", "ResourceGroupId": "",
			"CreationTime": stamp(s.startedAt, stampSeconds), "LastModifiedTime": stamp(s.startedAt, stampSeconds),
			"Tags": tagList(s.tags),
		})
	}
	reply["Snapshots"] = obj{"Snapshot": list}
	return reply, nil
}

func (s *snapshot) status() string {
	if s.accomplished() {
		return "accomplished"
	}
	return "progressing"
}

// usage says what was made from a snapshot. c.mu is held.
func (c *Cloud) usage(s *snapshot) string {
	img := c.imageOf(s.id) != nil
	dsk := false
	for _, d := range c.disks {
		dsk = dsk || d.snapshot == s.id
	}
	switch {
	case img && dsk:
		return "image_disk"
	case img:
		return "image"
	case dsk:
		return "disk"
	}
	return "none"
}
