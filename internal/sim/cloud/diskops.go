package cloud

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// How long a disk takes to come, to be attached or detached, and to be filled
// again, in the real cloud.
const (
	diskMoves = 4 * time.Second
	diskFills = 20 * time.Second
)

// A Restorer is Machines that can put the content of a snapshot or an image
// back on the disks of an instance that is switched off. ResetDisk and
// ReplaceSystemDisk are refused where Machines is none.
type Restorer interface {
	// Restore replaces what is on the instance's disks; from is a handle of
	// Machines.Snapshot, or Image.Content.
	Restore(instanceID, from string) error
}

// A Replacer is a Restorer that knows that the disk of another instance is not
// its own: what the first boot of a copy makes new is made new.
type Replacer interface {
	Replace(instanceID, from string) error
}

// rest ends a disk's state after d, unless it is gone. c.mu is held.
func (c *Cloud) rest(k *disk, d time.Duration, then func()) {
	c.after(c.scaled(d), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.disks[k.ID] != k {
			return
		}
		k.state = ""
		if then != nil {
			then()
		}
	})
}

// still refuses what can only be done to a disk at rest.
func (d *disk) still(status string) *apiError {
	if d.status() != status {
		return fail(403, "IncorrectDiskStatus", "The current disk status does not support this operation: %s is %s.", d.ID, d.status())
	}
	return nil
}

func (c *Cloud) createDisk(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	if !q.has("ZoneId") && !q.has("InstanceId") {
		return nil, refuse(400, "MissingParameter", "ZoneId or InstanceId must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := maps.Clone(q.params)
	g["Category"] = cmp.Or(q.str("DiskCategory"), "cloud_essd")
	d, err := wantedDisk("DataDisk", g, "")
	if err != nil {
		return nil, err
	}
	d.Type, d.Name, d.KeepAfterInstance, d.MultiAttach, d.Tags = "data", q.str("DiskName"), true, q.str("MultiAttach") == "Enabled", tags
	k := &disk{Disk: d, created: true, zone: q.str("ZoneId")}
	var i *instance
	if q.has("InstanceId") {
		if i, err = c.instance(q.str("InstanceId")); err != nil {
			return nil, err
		}
		k.zone = i.Zone
	}
	if q.has("SnapshotId") {
		s, err := c.snapshot(q.str("SnapshotId"))
		if err != nil {
			return nil, err
		}
		if !s.accomplished() {
			return nil, fail(403, "InvalidSnapshotId.NotReady", "The specified snapshot %s has not completed yet.", s.id)
		}
		k.snapshot, k.Size = s.id, max(k.Size, s.size)
	}
	if k.Size == 0 {
		return nil, refuse(400, "MissingParameter", "Size or SnapshotId must be given.")
	}
	if k.Category == "cloud_essd" {
		k.PerformanceLevel = cmp.Or(k.PerformanceLevel, "PL1")
	}
	k.seq, k.ID, k.createdAt, k.state = c.next(), c.newID("d"), time.Now(), "Creating"
	c.disks[k.ID] = k
	if q.takeFate() != FaultStuck {
		c.rest(k, diskMoves, func() {
			if i != nil && i.ctx.Err() == nil {
				k.instance, k.Device = i.ID, c.nextDevice(i)
			}
		})
	}
	return obj{"DiskId": k.ID}, nil
}

// nextDevice returns the first free name of a data disk. c.mu is held.
func (c *Cloud) nextDevice(i *instance) string {
	disks := c.disksOf(i)
	for n := 1; ; n++ {
		if name := deviceName(n); !slices.ContainsFunc(disks, func(d *disk) bool { return d.Device == name }) {
			return name
		}
	}
}

func (c *Cloud) attachDisk(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.disk(q.str("DiskId"))
	if err != nil {
		return nil, err
	}
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	switch {
	case !i.idle(running) && !i.idle(stopped):
		return nil, incorrectStatus(i)
	case d.zone != i.Zone:
		return nil, fail(403, "ResourcesNotInSameZone", "The disk %s is in zone %s, the instance %s in %s.", d.ID, d.zone, i.ID, i.Zone)
	case len(c.disksOf(i)) > 16:
		return nil, fail(403, "InstanceDiskLimitExceeded", "The instance %s has 16 data disks.", i.ID)
	}
	if err := d.still("Available"); err != nil {
		return nil, err
	}
	d.state = "Attaching"
	d.instance, d.Device = i.ID, cmp.Or(q.str("Device"), c.nextDevice(i))
	if q.has("DeleteWithInstance") {
		d.KeepAfterInstance = !q.is("DeleteWithInstance")
	}
	if q.takeFate() != FaultStuck {
		c.rest(d, diskMoves, nil)
	}
	return obj{}, nil
}

func (c *Cloud) detachDisk(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.disk(q.str("DiskId"))
	if err != nil {
		return nil, err
	}
	i, err := c.instance(q.str("InstanceId"))
	switch {
	case err != nil:
		return nil, err
	case d.instance != i.ID:
		return nil, fail(403, "DependencyViolation", "The disk %s is not attached to the instance %s.", d.ID, i.ID)
	case d.Type == "system":
		return nil, fail(403, "DiskTypeViolation", "The disk %s is the system disk of %s and cannot be detached.", d.ID, i.ID)
	case !i.idle(running) && !i.idle(stopped):
		return nil, incorrectStatus(i)
	}
	if err := d.still("In_use"); err != nil {
		return nil, err
	}
	d.state = "Detaching"
	if q.takeFate() != FaultStuck {
		c.rest(d, diskMoves, func() { d.instance, d.Device = "", "" })
	}
	return obj{}, nil
}

func (c *Cloud) deleteDisk(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.disk(q.str("DiskId"))
	if err != nil {
		return nil, err
	}
	if err := d.still("Available"); err != nil {
		return nil, err
	}
	for _, s := range c.snapshots {
		if s.disk == d.ID && s.status() == "progressing" {
			return nil, fail(403, "DiskCreatingSnapshot", "A snapshot of the disk %s is being created: %s.", d.ID, s.id)
		}
	}
	delete(c.disks, d.ID)
	return obj{}, nil
}

func (c *Cloud) modifyDiskAttribute(q *call) (obj, *apiError) {
	ids := q.list("DiskIds")
	if q.has("DiskId") {
		ids = append(ids, q.str("DiskId"))
	}
	if len(ids) == 0 {
		return nil, refuse(400, "MissingParameter", "DiskId or DiskIds.N must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var disks []*disk
	for _, id := range ids {
		d, err := c.disk(id)
		if err != nil {
			return nil, err
		}
		disks = append(disks, d)
	}
	for _, d := range disks {
		d.Name, d.Description = cmp.Or(q.str("DiskName"), d.Name), cmp.Or(q.str("Description"), d.Description)
		if q.has("DeleteWithInstance") {
			d.KeepAfterInstance = !q.is("DeleteWithInstance")
		}
		if q.has("BurstingEnabled") {
			d.BurstingEnabled = q.is("BurstingEnabled")
		}
	}
	return obj{}, nil
}

// resizable is what ResetDisk and ReplaceSystemDisk need of an instance: it is
// switched off and its capacity is kept. c.mu is held.
func offAndKept(i *instance) *apiError {
	if !i.idle(stopped) || i.stoppedMode == "StopCharging" {
		return incorrectStatus(i)
	}
	return nil
}

// refill puts content on the disks of an instance that is off, through
// Machines, and lets disks rest when that is over. c.mu is held.
func (c *Cloud) refill(q *call, i *instance, from string, disks ...*disk) *apiError {
	m, ok := c.cfg.Machines.(Restorer)
	return c.fillWith(q, i, ok, func() error { return m.Restore(i.ID, from) }, disks...)
}

func (c *Cloud) fillWith(q *call, i *instance, ok bool, fill func() error, disks ...*disk) *apiError {
	if !ok {
		return refuse(400, "UnsupportedOperation", "What runs behind the simulated instances cannot put content back on a disk.")
	}
	if err := dryRun(q); err != nil {
		return err
	}
	for _, d := range disks {
		d.state = "ReIniting"
	}
	fate := q.takeFate()
	c.then(i, c.scaled(diskFills), func() {
		err := c.machines(i, func(Machines) error { return fill() })
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, d := range disks {
			if fate != FaultStuck && err == nil {
				d.state = ""
			}
		}
	})
	return nil
}

// resettable finds what ResetDisk needs. c.mu is held.
func (c *Cloud) resettable(diskID, snapshotID string) (*disk, *snapshot, *instance, *apiError) {
	d, err := c.disk(diskID)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := c.snapshot(snapshotID)
	if err != nil {
		return nil, nil, nil, err
	}
	i := c.instances[d.instance]
	switch {
	case s.disk != d.ID:
		return nil, nil, nil, fail(403, "InvalidParameter.Mismatch", "The snapshot %s is not created from the disk %s.", s.id, d.ID)
	case !s.accomplished():
		return nil, nil, nil, fail(403, "InvalidSnapshotId.NotReady", "The specified snapshot %s has not completed yet.", s.id)
	case d.state != "" || i == nil:
		return nil, nil, nil, fail(403, "IncorrectDiskStatus", "The current disk status does not support this operation: %s is %s.", d.ID, d.status())
	}
	for _, o := range c.snapshots {
		if o.disk == d.ID && o.status() == "progressing" {
			return nil, nil, nil, fail(403, "DiskCreatingSnapshot", "A snapshot of the disk %s is being created: %s.", d.ID, o.id)
		}
	}
	return d, s, i, offAndKept(i)
}

func (c *Cloud) resetDisk(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, s, i, err := c.resettable(q.str("DiskId"), q.str("SnapshotId"))
	if err == nil {
		err = c.refill(q, i, s.content, d)
	}
	if err != nil {
		return nil, err
	}
	return obj{}, nil
}

func (c *Cloud) resetDisks(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var disks []*disk
	var of *instance
	from := ""
	for n, e := range q.each("Disk") {
		d, s, i, err := c.resettable(e.str("DiskId"), e.str("SnapshotId"))
		if err != nil {
			return nil, err
		}
		if n > 0 && (i != of || s.group == "" || c.groups[s.group] == nil) {
			return nil, fail(403, "InvalidParameter.Mismatch", "The disks are reset from the snapshots of one snapshot group of one instance.")
		}
		disks, of = append(disks, d), i
		if d.Type == "system" || from == "" {
			from = s.content
		}
	}
	if len(disks) == 0 {
		return nil, refuse(400, "MissingParameter", "The input parameter \"Disk.1.DiskId\" that is mandatory for processing this request is not supplied.")
	}
	if err := c.refill(q, of, from, disks...); err != nil {
		return nil, err
	}
	list := []obj{}
	for n, d := range disks {
		list = append(list, progressOf("DiskId", d.ID, "SnapshotId", q.str("Disk."+strconv.Itoa(n+1)+".SnapshotId")))
	}
	return obj{"OperationProgressSet": obj{"OperationProgress": list}}, nil
}

// progressOf is the good outcome for one of the resources of a call for many;
// items are names and values.
func progressOf(items ...string) obj {
	related := []obj{}
	for n := 0; n+1 < len(items); n += 2 {
		related = append(related, obj{"Name": items[n], "Value": items[n+1]})
	}
	return obj{"OperationStatus": "Success", "ErrorCode": "", "ErrorMsg": "", "RelatedItemSet": obj{"RelatedItem": related}}
}

func (c *Cloud) replaceSystemDisk(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if !q.has("ImageId") {
		return nil, refuse(400, "MissingParameter", "The input parameter \"ImageId\" that is mandatory for processing this request is not supplied.")
	}
	img, err := c.image(q.str("ImageId"))
	if err != nil {
		return nil, err
	}
	size := q.num("SystemDisk.Size", img.mappings[0].size)
	switch {
	case img.status() != "Available":
		return nil, fail(400, "IncorrectImageStatus", "The image %s is %s.", img.id, img.status())
	case len(img.mappings) > 1:
		return nil, fail(403, "OperationDenied", "The image %s has snapshots of data disks.", img.id)
	case size < img.mappings[0].size:
		return nil, fail(400, "InvalidSystemDiskSize.LessThanImageSize", "The specified SystemDisk.Size %d is less than the size %d of the image.", size, img.mappings[0].size)
	case q.has("Password") && (q.is("PasswordInherit") || q.has("KeyPairName")):
		return nil, refuse(400, "InvalidParameter.Conflict", "Only one of Password, PasswordInherit and KeyPairName sets the login.")
	}
	if k := q.str("KeyPairName"); k != "" && c.keyPairs[k] == nil {
		return nil, fail(404, "InvalidKeyPairName.NotFound", "The specified KeyPairName %q does not exist.", k)
	}
	if err := offAndKept(i); err != nil {
		return nil, err
	}
	old := c.disksOf(i)[0]
	if err := old.still("In_use"); err != nil {
		return nil, err
	}
	d := old.Disk
	d.ID, d.Size = c.newID("d"), size
	d.AutoSnapshotPolicyID, d.Tags = "", nil // of the old disk alone
	// It stands for the old one: it is no more to be cleaned up than that.
	k := &disk{Disk: d, seq: c.next(), created: old.created, instance: i.ID, snapshot: img.mappings[0].snapshot, image: img.id, zone: old.zone, createdAt: time.Now()}
	restorer, ok := c.cfg.Machines.(Restorer)
	fill := func() error { return restorer.Restore(i.ID, img.content) }
	if m, knows := c.cfg.Machines.(Replacer); knows {
		fill = func() error { return m.Replace(i.ID, img.content) }
	}
	if err := c.fillWith(q, i, ok, fill, k); err != nil {
		return nil, err
	}
	delete(c.disks, old.ID) // released; its manual snapshots stay
	c.disks[k.ID] = k
	i.ImageID = img.id
	i.KeyPair = cmp.Or(q.str("KeyPairName"), i.KeyPair)
	return obj{"DiskId": k.ID}, nil
}
