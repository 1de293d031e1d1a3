package cloud

import (
	"slices"
	"strings"
	"time"
)

// A snapshotGroup is the snapshots of several disks at one moment.
type snapshotGroup struct {
	seq               int64
	id, name, comment string
	instance          string
	tags              map[string]string
	createdAt         time.Time
	members           []*snapshot
}

func (g *snapshotGroup) number() int64 { return g.seq }

// status is accomplished when every member is, and failed when one is.
func (g *snapshotGroup) status() string {
	status := "accomplished"
	for _, s := range g.members {
		switch s.status() {
		case "failed":
			return "failed"
		case "progressing":
			status = "progressing"
		}
	}
	return status
}

func (c *Cloud) createSnapshotGroup(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	g, err := c.beginGroup(q, tags)
	if err != nil {
		return nil, err
	}
	if err := c.fill(g.members); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.groups, g.id)
		return nil, err
	}
	return obj{"SnapshotGroupId": g.id}, nil
}

// beginGroup makes a group and its members, which have no content yet.
func (c *Cloud) beginGroup(q *call, tags map[string]string) (*snapshotGroup, *apiError) {
	ids, without := q.list("DiskId"), q.list("ExcludeDiskId")
	switch {
	case !q.has("InstanceId") && len(ids) == 0:
		return nil, refuse(400, "MissingParameter", "InstanceId or DiskId.N must be given.")
	case len(ids) > 0 && len(without) > 0:
		return nil, refuse(400, "InvalidParameter.Conflict", "DiskId.N and ExcludeDiskId.N cannot be given together.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.has("InstanceId") {
		i, err := c.instance(q.str("InstanceId"))
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			for _, d := range c.disksOf(i) {
				if !slices.Contains(without, d.ID) {
					ids = append(ids, d.ID)
				}
			}
		}
	}
	if len(ids) == 0 {
		return nil, fail(400, "InvalidParameter", "No disk is left to take a snapshot of.")
	}
	if len(ids) > 16 {
		return nil, fail(400, "InvalidParameter", "A snapshot group has at most 16 disks, not %d.", len(ids))
	}
	var disks []*disk
	total := 0
	for _, id := range ids {
		d, err := c.disk(id)
		switch {
		case err != nil:
			return nil, err
		case q.has("InstanceId") && d.instance != q.str("InstanceId"):
			return nil, fail(404, "InvalidDiskId.NotFound", "The disk %s is not attached to %s.", id, q.str("InstanceId"))
		case slices.Contains(disks, d):
			return nil, refuse(400, "InvalidParameter", "The disk %s is given twice.", id)
		case !strings.HasPrefix(d.Category, "cloud_essd") && d.Category != "cloud_auto" && d.Category != "cloud_regional_disk_auto":
			return nil, fail(400, "DiskCategory.OperationNotSupported", "The disk %s is %s; snapshot groups are for ESSDs.", id, d.Category)
		case d.MultiAttach:
			return nil, fail(400, "DiskCategory.OperationNotSupported", "The disk %s can be attached to several instances.", id)
		case len(disks) > 0 && disks[0].zone != d.zone:
			return nil, fail(400, "InvalidParameter", "The disks %s and %s are in different zones.", disks[0].ID, id)
		}
		total += d.Size
		disks = append(disks, d)
	}
	if total > 32<<10 {
		return nil, fail(400, "InvalidParameter", "The disks hold %d GiB; a snapshot group takes 32 TiB.", total)
	}
	g := &snapshotGroup{
		seq: c.next(), id: c.newID("ssg"), name: q.str("Name"), comment: q.str("Description"),
		instance: disks[0].instance, tags: tags, createdAt: time.Now(),
	}
	for _, d := range disks {
		s, err := c.insertSnapshot(d, nil)
		if err != nil {
			for _, s := range g.members {
				delete(c.snapshots, s.id)
			}
			return nil, err
		}
		s.group, s.name = g.id, g.name
		g.members = append(g.members, s)
	}
	fate := q.takeFate()
	for _, s := range g.members {
		s.fate = fate
	}
	c.groups[g.id] = g
	return g, nil
}

func (c *Cloud) describeSnapshotGroups(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	if !q.has("MaxResults") {
		q.params["MaxResults"] = "10" // paging is by token only
	}
	ids, statuses := q.list("SnapshotGroupId"), q.list("Status")
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*snapshotGroup
	for _, g := range sorted(c.groups) {
		g.members = slices.DeleteFunc(g.members, func(s *snapshot) bool { return c.snapshots[s.id] != s })
		if c.hidden(g.createdAt) || len(ids) > 0 && !slices.Contains(ids, g.id) || len(statuses) > 0 && !slices.Contains(statuses, g.status()) ||
			!oneOf(g.instance, q.str("InstanceId")) || !like(g.name, q.str("Name")) || !tagged(g.tags, filter) {
			continue
		}
		found = append(found, g)
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, g := range part {
		members := []obj{}
		for _, s := range g.members {
			v := obj{}
			for _, k := range strings.Fields(`SnapshotId SourceDiskId SourceDiskType Status Progress Available InstantAccess
				InstantAccessRetentionDays SourceStorageType Tags`) {
				if all := c.snapshotView(s); all[k] != nil {
					v[k] = all[k]
				}
			}
			members = append(members, v)
		}
		list = append(list, obj{
			"SnapshotGroupId": g.id, "Name": g.name, "Description": g.comment, "InstanceId": g.instance, "Status": g.status(),
			"ProgressStatus": "", "CreationTime": stamp(g.createdAt, stampSeconds), "ResourceGroupId": "",
			"Snapshots": obj{"Snapshot": members}, "Tags": keyList(g.tags),
		})
	}
	return obj{"NextToken": reply["NextToken"], "SnapshotGroups": obj{"SnapshotGroup": list}}, nil
}

func (c *Cloud) deleteSnapshotGroup(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[q.str("SnapshotGroupId")]
	if g == nil {
		return nil, fail(404, "InvalidSnapshotGroupId.NotFound", "The specified SnapshotGroupId %q does not exist.", q.str("SnapshotGroupId"))
	}
	list := []obj{}
	for _, s := range g.members {
		s.group = ""
		// One that an image (or, it is assumed, a disk) still needs stays, alone.
		if c.snapshots[s.id] == s && c.deletable(s, false) == nil {
			delete(c.snapshots, s.id)
			list = append(list, progressOf("SnapshotId", s.id))
		}
	}
	delete(c.groups, g.id)
	return obj{"OperationProgressSet": obj{"OperationProgress": list}}, nil
}
