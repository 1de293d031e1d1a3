package cloud

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An image is what instances start from.
type image struct {
	seq               int64
	id, name, comment string
	family, version   string
	bootMode          string
	arch              string
	platform          string
	detection         string
	tags              map[string]string
	mappings          []mapping // the system disk's first
	content           string    // of the system disk's snapshot
	startedAt         time.Time
	takes             time.Duration
	fate              FaultKind // FaultFails or FaultStuck
	deprecated        bool
	shared            map[string]bool // accounts it is shared with
	owner             string          // self, system, marketplace, others
	created           bool            // by a request
	os                string
}

// An Image is what AddImage takes: an image that exists before the story
// begins, ready to use.
type Image struct {
	ID, Name, Description string
	Owner                 string // self (default), system, marketplace, others
	OSName, Platform      string // default CentOS 7.5
	Architecture          string // default x86_64
	BootMode              string // default BIOS
	Size                  int    // GiB of the system disk; default 20
	Content               string // what Machines.Create gets as From
	Tags                  map[string]string
}

// AddImage adds an image. It panics when the ID is empty or taken.
func (c *Cloud) AddImage(in Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.ID == "" || c.images[in.ID] != nil {
		panic(fmt.Sprintf("cloud: image ID %q is empty or taken", in.ID))
	}
	c.images[in.ID] = &image{
		seq: c.next(), id: in.ID, name: cmp.Or(in.Name, in.ID), comment: in.Description, owner: cmp.Or(in.Owner, "self"),
		os: cmp.Or(in.OSName, centos), platform: cmp.Or(in.Platform, "CentOS"), arch: cmp.Or(in.Architecture, "x86_64"),
		bootMode: cmp.Or(in.BootMode, "BIOS"), content: in.Content, tags: maps.Clone(in.Tags), startedAt: time.Now().Add(-time.Hour),
		mappings: []mapping{{device: deviceName(0), kind: "system", size: cmp.Or(in.Size, 20)}},
	}
}

// centos is the operating system of hosts and images of which nothing else is
// said.
const centos = "CentOS  7.5 64 bit"

// A mapping is one disk of an image.
type mapping struct {
	snapshot, device, kind string
	size                   int // GiB
}

func (i *image) number() int64 { return i.seq }

func (i *image) progress() float64 { return progress(i.startedAt, i.takes, i.fate) }

func (i *image) status() string {
	switch {
	case i.fate == FaultFails && i.progress() >= 0.5:
		return "CreateFailed"
	case i.progress() < 1:
		return "Creating"
	case i.deprecated:
		return "Deprecated"
	}
	return "Available"
}

// mapping returns the disk of an image with a device name, nil if none.
func (i *image) mapping(device string) *mapping {
	for n := range i.mappings {
		if i.mappings[n].device == device {
			return &i.mappings[n]
		}
	}
	return nil
}

func (c *Cloud) createImage(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	name := q.str("ImageName")
	if name != "" && (len(name) < 2 || len(name) > 128 || strings.HasPrefix(name, "acs:") || strings.HasPrefix(name, "aliyun")) {
		return nil, refuse(400, "InvalidImageName.Malformed", "The specified ImageName %q is not 2 to 128 characters long or begins with acs: or aliyun.", name)
	}
	if d := q.str("DetectionStrategy"); d != "" && d != "Standard" {
		return nil, refuse(400, "InvalidParameter", "The specified DetectionStrategy %q is not Standard.", d)
	}
	img := &image{
		name: name, comment: q.str("Description"), family: q.str("ImageFamily"), version: q.str("ImageVersion"),
		bootMode: cmp.Or(q.str("BootMode"), "BIOS"), arch: cmp.Or(q.str("Architecture"), "x86_64"),
		platform: cmp.Or(q.str("Platform"), "CentOS"), detection: q.str("DetectionStrategy"), tags: tags,
	}
	taken, err := c.imageSource(q, img)
	if err != nil {
		return nil, err
	}
	if len(taken) > 0 { // snapshots of the image's own
		if err := c.fill(taken); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, s := range taken {
		if n == 0 {
			img.content = s.content
		}
	}
	if err := c.freeImageName(name); err != nil {
		for _, s := range taken {
			delete(c.snapshots, s.id)
		}
		return nil, err
	}
	img.seq, img.id, img.startedAt = c.next(), c.newID("m"), time.Now()
	img.name = cmp.Or(img.name, img.id)
	img.takes = c.scaled(c.cfg.ImageTakes)
	img.fate, img.owner, img.os, img.created = q.takeFate(), "self", centos, true
	if len(taken) > 0 {
		img.takes += c.scaled(c.cfg.SnapshotTakes)
	}
	c.images[img.id] = img
	return obj{"ImageId": img.id}, nil
}

func (c *Cloud) freeImageName(name string) *apiError {
	for _, i := range c.images {
		if name != "" && i.name == name {
			return fail(400, "InvalidImageName.Duplicated", "The specified ImageName %q already exists: %s.", name, i.id)
		}
	}
	return nil
}

// imageSource finds what an image is made from: an instance before mappings
// before one snapshot. The snapshots it returns are begun for this image and
// have no content yet.
func (c *Cloud) imageSource(q *call, img *image) (taken []*snapshot, _ *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.freeImageName(img.name); err != nil {
		return nil, err
	}
	switch {
	case q.has("InstanceId"):
		i, err := c.instance(q.str("InstanceId"))
		if err != nil {
			return nil, err
		}
		if !i.idle(running) && !i.idle(stopped) {
			return nil, fail(400, "IncorrectInstanceStatus", "The current status of the resource does not support this operation: %s is %s.", i.ID, i.Status)
		}
		if err := dryRun(q); err != nil {
			return nil, err
		}
		for _, d := range c.disksOf(i) {
			s, err := c.insertSnapshot(d, nil)
			if err != nil {
				for _, s := range taken {
					delete(c.snapshots, s.id)
				}
				return nil, err
			}
			s.name, s.tags = "SnapshotForImage-"+d.ID, maps.Clone(img.tags)
			taken = append(taken, s)
			img.mappings = append(img.mappings, mapping{s.id, d.Device, d.Type, d.Size})
		}
		return taken, nil
	case q.group("DiskDeviceMapping", 1) != nil:
		for n := 1; ; n++ {
			g := q.group("DiskDeviceMapping", n)
			if g == nil {
				break
			}
			if n > 17 {
				return nil, refuse(400, "InvalidDiskDeviceMapping.NumberExceed", "An image has one system disk and at most 16 data disks.")
			}
			if g["SnapshotId"] == "" {
				return nil, refuse(400, "UnsupportedParameter", "DiskDeviceMapping.%d without SnapshotId is not simulated.", n)
			}
			if err := c.addMapping(img, g); err != nil {
				return nil, err
			}
		}
	case q.has("SnapshotId"):
		if err := c.addMapping(img, map[string]string{"SnapshotId": q.str("SnapshotId")}); err != nil {
			return nil, err
		}
	default:
		return nil, refuse(400, "MissingParameter", "One of InstanceId, DiskDeviceMapping.N and SnapshotId must be given.")
	}
	slices.SortStableFunc(img.mappings, func(a, b mapping) int { return -cmp.Compare(a.kind, b.kind) })
	if img.mappings[0].kind != "system" || len(img.mappings) > 1 && img.mappings[1].kind == "system" {
		return nil, fail(403, "OperationDenied", "An image is made from the snapshot of exactly one system disk.")
	}
	img.content = c.snapshots[img.mappings[0].snapshot].content
	return nil, dryRun(q)
}

// addMapping adds one DiskDeviceMapping.N to an image. c.mu is held.
func (c *Cloud) addMapping(img *image, g map[string]string) *apiError {
	s, err := c.snapshot(g["SnapshotId"])
	switch {
	case err != nil:
		return err
	case !s.accomplished():
		return fail(403, "InvalidSnapshotId.NotReady", "The specified snapshot %s has not completed yet.", s.id)
	case g["DiskType"] != "" && g["DiskType"] != s.kind:
		return fail(403, "OperationDenied", "The snapshot %s is of a %s disk, not of a %s disk.", s.id, s.kind, g["DiskType"])
	}
	size := s.size
	if v := g["Size"]; v != "" {
		n, _ := strconv.Atoi(v) // parse has seen that it is a number
		if n < s.size {
			return refuse(400, "InvalidSize.ValueNotSupported", "The size %d is less than that of the snapshot %s.", n, s.id)
		}
		size = n
	}
	device := g["Device"]
	if device != "" && img.mapping(device) != nil {
		return refuse(400, "InvalidDevice.InUse", "The device %s is given twice.", device)
	}
	for n := map[string]int{"system": 0, "data": 1}[s.kind]; device == ""; n++ {
		if img.mapping(deviceName(n)) == nil {
			device = deviceName(n)
		}
	}
	img.mappings = append(img.mappings, mapping{s.id, device, s.kind, size})
	return nil
}

// users returns an instance that was made from an image. c.mu is held.
func (c *Cloud) users(img *image) *instance {
	for _, i := range sorted(c.instances) {
		if i.ImageID == img.id {
			return i
		}
	}
	return nil
}

func (c *Cloud) deleteImage(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	img := c.images[q.str("ImageId")]
	if img == nil {
		return obj{}, nil // ignored, as documented
	}
	if img.owner != "self" {
		return nil, fail(403, "OperationDenied", "The image %s is not this account's.", img.id)
	}
	if len(img.shared) > 0 && !q.is("Force") {
		return nil, fail(403, "ImageUseShared", "The image %s is shared with other accounts.", img.id)
	}
	if i := c.users(img); i != nil && !q.is("Force") {
		return nil, fail(403, "ImageUsingByInstance", "The image %s is being used by the instance %s.", img.id, i.ID)
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	delete(c.images, img.id)
	return obj{}, nil
}

// image returns the image a request names. c.mu is held.
func (c *Cloud) image(id string) (*image, *apiError) {
	if i := c.images[id]; i != nil && !(i.created && c.hidden(i.startedAt)) {
		return i, nil
	}
	return nil, fail(404, "InvalidImageId.NotFound", "The specified ImageId %q does not exist.", id)
}

// own is image for calls that only an image's owner may make. c.mu is held.
func (c *Cloud) own(id string) (*image, *apiError) {
	i, err := c.image(id)
	if err == nil && i.owner != "self" {
		return nil, fail(403, "OperationDenied", "The image %s is not this account's.", id)
	}
	return i, err
}

func (c *Cloud) modifyImageAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.own(q.str("ImageId"))
	if err != nil {
		return nil, err
	}
	status := q.str("Status")
	if status != "" && status != "Available" && status != "Deprecated" {
		return nil, refuse(400, "InvalidParameter", "The specified Status %q is not Available or Deprecated.", status)
	}
	if name := q.str("ImageName"); name != "" && name != i.name {
		if err := c.freeImageName(name); err != nil {
			return nil, err
		}
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	if status != "" {
		i.deprecated = status == "Deprecated"
	}
	i.name, i.comment = cmp.Or(q.str("ImageName"), i.name), cmp.Or(q.str("Description"), i.comment)
	i.family, i.bootMode = cmp.Or(q.str("ImageFamily"), i.family), cmp.Or(q.str("BootMode"), i.bootMode)
	return obj{}, nil
}

func (c *Cloud) modifyImageSharePermission(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.own(q.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	if i.shared == nil {
		i.shared = map[string]bool{}
	}
	for _, a := range q.list("AddAccount") {
		i.shared[a] = true
	}
	for _, a := range q.list("RemoveAccount") {
		delete(i.shared, a)
	}
	return obj{}, nil
}

func (c *Cloud) describeImageSharePermission(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.own(q.str("ImageId"))
	if err != nil {
		return nil, err
	}
	accounts := []obj{}
	for _, a := range slices.Sorted(maps.Keys(i.shared)) {
		accounts = append(accounts, obj{"AliyunId": a})
	}
	return obj{"RegionId": c.cfg.Region, "ImageId": i.id, "PageNumber": 1, "PageSize": 10, "TotalCount": len(accounts),
		"Accounts": obj{"Account": accounts}, "ShareGroups": obj{"ShareGroup": []obj{}}}, nil
}

// copyImage copies inside the region; others are not simulated.
func (c *Cloud) copyImage(q *call) (obj, *apiError) {
	if r := q.str("DestinationRegionId"); r != "" && r != c.cfg.Region {
		return nil, refuse(400, "UnsupportedParameter", "Copies to other regions (%s) are not simulated.", r)
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from, err := c.image(q.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if from.status() != "Available" {
		return nil, fail(400, "IncorrectImageStatus", "The image %s is %s.", from.id, from.status())
	}
	name := q.str("DestinationImageName")
	if err := c.freeImageName(name); err != nil {
		return nil, err
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	copied := *from
	copied.seq, copied.id, copied.startedAt, copied.takes = c.next(), c.newID("m"), time.Now(), c.scaled(c.cfg.ImageTakes)
	copied.name, copied.comment = cmp.Or(name, copied.id), q.str("DestinationDescription")
	copied.tags, copied.mappings, copied.shared = tags, slices.Clone(from.mappings), nil
	copied.owner, copied.created, copied.fate = "self", true, q.takeFate()
	for n := range copied.mappings {
		m := &copied.mappings[n]
		s := &snapshot{seq: c.next(), id: c.newID("s"), kind: m.kind, size: m.size, category: "cloud_essd",
			tags: map[string]string{}, content: from.content, startedAt: time.Now(), takes: copied.takes}
		c.snapshots[s.id], m.snapshot = s, s.id
	}
	c.images[copied.id] = &copied
	return obj{"ImageId": copied.id}, nil
}

func (c *Cloud) describeImages(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	status := cmp.Or(q.str("Status"), "Available") // what is not asked for is hidden
	if strings.EqualFold(status, "ALL") {
		status = ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*image
	for _, i := range sorted(c.images) {
		usage := "none"
		if c.users(i) != nil {
			usage = "instance"
		}
		if i.created && c.hidden(i.startedAt) || !oneOf(i.id, q.str("ImageId")) || !oneOf(i.status(), status) || !like(i.name, q.str("ImageName")) ||
			!oneOf(i.family, q.str("ImageFamily")) || !oneOf(i.owner, q.str("ImageOwnerAlias")) ||
			!oneOf(usage, q.str("Usage")) || !oneOf(i.arch, q.str("Architecture")) || !oneOf("linux", q.str("OSType")) ||
			q.has("SnapshotId") && !slices.ContainsFunc(i.mappings, func(m mapping) bool { return m.snapshot == q.str("SnapshotId") }) ||
			!tagged(i.tags, filter) {
			continue
		}
		found = append(found, i)
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, c.imageView(i))
	}
	delete(reply, "NextToken")
	reply["RegionId"] = c.cfg.Region
	reply["Images"] = obj{"Image": list}
	return reply, nil
}

// imageView is an image as DescribeImages shows it. c.mu is held.
func (c *Cloud) imageView(i *image) obj {
	usage := "none"
	if c.users(i) != nil {
		usage = "instance"
	}
	mappings := []obj{}
	for _, m := range i.mappings {
		mappings = append(mappings, obj{
			"SnapshotId": m.snapshot, "Device": m.device, "Type": m.kind, "Size": strconv.Itoa(m.size),
			"Progress": percentage(i.progress()), "Format": "", "RemainTime": 0,
			"ImportOSSBucket": "", "ImportOSSObject": "",
		})
	}
	detection := obj{"Status": "", "Items": obj{"Item": []obj{}}}
	if i.detection != "" {
		detection["Status"] = map[bool]string{true: "Finished", false: "Processing"}[i.status() == "Available"]
	}
	return obj{
		"ImageId": i.id, "ImageName": i.name, "Description": i.comment, "ImageFamily": i.family, "ImageVersion": i.version,
		"Status": i.status(), "Progress": percentage(i.progress()), "Usable": i.status() == "Available", "Usage": usage,
		"Size": i.mappings[0].size, "ImageOwnerAlias": i.owner, "ImageOwnerId": accountID, "IsSelfShared": map[bool]string{true: "True"}[len(i.shared) > 0],
		"OSType": "linux", "OSName": i.os, "OSNameEn": i.os, "Platform": i.platform,
		"Architecture": i.arch, "BootMode": i.bootMode, "IsSupportCloudinit": true, "IsSupportIoOptimized": true,
		"IsCopied": false, "IsSubscribed": false, "IsPublic": false, "ProductCode": "", "ResourceGroupId": "",
		"LoginAsNonRootSupported": false, "CreationTime": stamp(i.startedAt, stampSeconds),
		"DetectionOptions":   detection,
		"DiskDeviceMappings": obj{"DiskDeviceMapping": mappings},
		"Tags":               tagList(i.tags),
	}
}
