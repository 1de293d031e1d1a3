package cloud

import (
	"cmp"
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
}

// A mapping is one disk of an image.
type mapping struct {
	snapshot, device, kind string
	size                   int // GiB
}

func (i *image) number() int64 { return i.seq }

func (i *image) progress() float64 {
	return min(float64(time.Since(i.startedAt))/float64(max(i.takes, 1)), 1)
}

func (i *image) status() string {
	if i.progress() >= 1 {
		return "Available"
	}
	return "Creating"
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
		disks := slices.DeleteFunc(sorted(c.disks), func(d *disk) bool { return d.instance != i.ID })
		slices.SortStableFunc(disks, func(a, b *disk) int { return -cmp.Compare(a.Type, b.Type) }) // system first
		for _, d := range disks {
			s, err := c.insertSnapshot(d)
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
	s := c.snapshots[g["SnapshotId"]]
	switch {
	case s == nil:
		return fail(404, "InvalidSnapshotId.NotFound", "The specified SnapshotId %q does not exist.", g["SnapshotId"])
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
	if i := c.users(img); i != nil && !q.is("Force") {
		return nil, fail(403, "ImageUsingByInstance", "The image %s is being used by the instance %s.", img.id, i.ID)
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	delete(c.images, img.id)
	return obj{}, nil
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
		if !oneOf(i.id, q.str("ImageId")) || !oneOf(i.status(), status) || !like(i.name, q.str("ImageName")) ||
			!oneOf(i.family, q.str("ImageFamily")) || !oneOf("self", q.str("ImageOwnerAlias")) ||
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
		"Size": i.mappings[0].size, "ImageOwnerAlias": "self", "ImageOwnerId": 1000000000000000, "IsSelfShared": "",
		"OSType": "linux", "OSName": "CentOS  7.5 64位", "OSNameEn": "CentOS  7.5 64 bit", "Platform": i.platform,
		"Architecture": i.arch, "BootMode": i.bootMode, "IsSupportCloudinit": true, "IsSupportIoOptimized": true,
		"IsCopied": false, "IsSubscribed": false, "IsPublic": false, "ProductCode": "", "ResourceGroupId": "",
		"LoginAsNonRootSupported": false, "CreationTime": stamp(i.startedAt, stampSeconds),
		"DetectionOptions":   detection,
		"DiskDeviceMappings": obj{"DiskDeviceMapping": mappings},
		"Tags":               tagList(i.tags),
	}
}
