package cloud

import (
	"cmp"
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
	retention         int    // days; 0 = for ever
	group             string // it was made by, if any
	content           string
	startedAt         time.Time
	takes             time.Duration
	fate              FaultKind   // FaultFails or FaultStuck
	expiry            *time.Timer // its retention
}

func (s *snapshot) number() int64 { return s.seq }

// stuckAt is how far something comes that never ends.
const stuckAt = 0.37

// progress is how much of something that takes d is done, from 0 to 1; time
// alone moves it, unless its fate stops it.
func progress(begun time.Time, takes time.Duration, fate FaultKind) float64 {
	p := min(float64(time.Since(begun))/float64(max(takes, 1)), 1)
	switch fate {
	case FaultStuck:
		return min(p, stuckAt)
	case FaultFails:
		return min(p, 0.5)
	}
	return p
}

func (s *snapshot) progress() float64 { return progress(s.startedAt, s.takes, s.fate) }

func (s *snapshot) accomplished() bool { return s.progress() >= 1 }

func (s *snapshot) failed() bool { return s.fate == FaultFails && s.progress() >= 0.5 }

// percentage renders a progress the way the API does; only what is done is 100%.
func percentage(p float64) string { return strconv.Itoa(int(p*100)) + "%" }

// insertSnapshot begins a snapshot of d; fate asks what becomes of it, nil for
// nothing special. c.mu is held.
func (c *Cloud) insertSnapshot(d *disk, fate func() FaultKind) (*snapshot, *apiError) {
	if d.state != "" {
		return nil, fail(403, "IncorrectDiskStatus", "The current disk status does not support this operation: %s is %s.", d.ID, d.state)
	}
	if i := c.instances[d.instance]; i != nil && (i.Status != running && i.Status != stopped) {
		return nil, fail(400, "IncorrectInstanceStatus", "The current status of the resource does not support this operation: %s is %s.", i.ID, i.Status)
	}
	manual := 0
	for _, s := range c.snapshots {
		if s.disk != d.ID {
			continue
		}
		manual++
		if !s.accomplished() && !s.failed() {
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
	if fate != nil {
		s.fate = fate()
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

// snapshotNames reads what a caller says about a snapshot.
func snapshotNames(q *call) (name string, days int, _ *apiError) {
	name = q.str("SnapshotName")
	if name != "" && (len(name) < 2 || len(name) > 128 || strings.HasPrefix(name, "auto")) {
		return "", 0, refuse(400, "InvalidSnapshotName.Malformed", "The specified SnapshotName %q is not 2 to 128 characters long or begins with auto.", name)
	}
	days = q.num("RetentionDays", 0)
	if q.has("RetentionDays") && (days < 1 || days > 65536) {
		return "", 0, refuse(400, "InvalidRetentionDays.Malformed", "The specified RetentionDays %d is not between 1 and 65536.", days)
	}
	return name, days, nil
}

func (c *Cloud) createSnapshot(q *call) (obj, *apiError) {
	name, days, err := snapshotNames(q)
	if err != nil {
		return nil, err
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	s, err := func() (*snapshot, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		d, err := c.disk(q.str("DiskId"))
		if err != nil {
			return nil, err
		}
		s, err := c.insertSnapshot(d, q.takeFate)
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
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(s, days)
	return obj{"SnapshotId": s.id}, nil
}

// expire plans the automatic deletion of a snapshot some days after it was
// made, 0 for never; it waits for images that need the snapshot. c.mu is held.
func (c *Cloud) expire(s *snapshot, days int) {
	c.stop(s.expiry)
	s.expiry, s.retention = nil, days
	if days == 0 {
		return
	}
	const day = 24 * time.Hour
	var again func()
	again = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.snapshots[s.id] != s || s.retention != days {
			return
		}
		if c.imageOf(s.id) != nil {
			s.expiry = c.after(day, again)
			return
		}
		delete(c.snapshots, s.id)
	}
	s.expiry = c.after(time.Until(s.startedAt.Add(time.Duration(min(days, 3650))*day)), again)
}

func (c *Cloud) modifySnapshotAttribute(q *call) (obj, *apiError) {
	name, days, err := snapshotNames(q)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.snapshot(q.str("SnapshotId"))
	if err != nil {
		return nil, err
	}
	s.name, s.comment = cmp.Or(name, s.name), cmp.Or(q.str("Description"), s.comment)
	if days > 0 {
		c.expire(s, days)
	}
	return obj{}, nil
}

// snapshot returns the snapshot a request names. c.mu is held.
func (c *Cloud) snapshot(id string) (*snapshot, *apiError) {
	if s := c.snapshots[id]; s != nil && !c.hidden(s.startedAt) {
		return s, nil
	}
	return nil, fail(404, "InvalidSnapshotId.NotFound", "The specified SnapshotId %q does not exist.", id)
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
	if err := c.deletable(s, q.is("Force")); err != nil {
		return nil, err
	}
	delete(c.snapshots, s.id)
	return obj{}, nil
}

// deletable reports what still needs a snapshot. c.mu is held.
func (c *Cloud) deletable(s *snapshot, force bool) *apiError {
	if i := c.imageOf(s.id); i != nil {
		return fail(403, "SnapshotCreatedImage", "The snapshot %s has been used to create the image %s.", s.id, i.id)
	}
	for _, d := range sorted(c.disks) {
		if d.snapshot == s.id && !force {
			return fail(403, "SnapshotCreatedDisk", "The snapshot %s has been used to create the disk %s.", s.id, d.ID)
		}
	}
	return nil
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
		if c.hidden(s.startedAt) || byID && !slices.Contains(ids, s.id) ||
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
		list = append(list, c.snapshotView(s))
	}
	reply["Snapshots"] = obj{"Snapshot": list}
	return reply, nil
}

// snapshotView is a snapshot as DescribeSnapshots shows it. c.mu is held.
func (c *Cloud) snapshotView(s *snapshot) obj {
	left := int(math.Ceil((1 - s.progress()) * s.takes.Seconds()))
	return obj{
		"SnapshotId": s.id, "SnapshotName": s.name, "Description": s.comment, "Status": s.status(),
		"Progress": percentage(s.progress()), "RemainTime": left, "Available": s.accomplished(),
		"SourceDiskId": s.disk, "SourceDiskSize": strconv.Itoa(s.size), "SourceDiskType": s.kind,
		"SourceStorageType": "disk", "Category": "standard", "InstantAccess": false, "Usage": c.usage(s),
		"SnapshotType": "user", "SnapshotLinkId": "sl-" + strings.TrimPrefix(s.disk, "d-"), "RegionId": c.cfg.Region,
		"SnapshotSN": fmt.Sprintf("64472-116742336-%d", s.seq), "RetentionDays": s.retention, "Encrypted": false,
		"KMSKeyId": "", "ProductCode": "", "ResourceGroupId": "",
		"CreationTime": stamp(s.startedAt, stampSeconds), "LastModifiedTime": stamp(s.startedAt, stampSeconds),
		"Tags": tagList(s.tags),
	}
}

func (s *snapshot) status() string {
	switch {
	case s.accomplished():
		return "accomplished"
	case s.failed():
		return "failed"
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
