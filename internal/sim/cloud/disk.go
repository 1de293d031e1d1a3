package cloud

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// A Disk is one block device of an instance.
type Disk struct {
	ID, Name         string
	Type             string // system or data; default: the first is system, the others data
	Category         string // default cloud_essd
	PerformanceLevel string // default PL1 for cloud_essd
	Size             int    // GiB; default 40
	Device           string // default /dev/xvda, /dev/xvdb, …
	// KeepAfterInstance is the opposite of the API's DeleteWithInstance.
	KeepAfterInstance    bool
	Description          string
	MultiAttach          bool // Enabled
	Encrypted            bool
	KMSKeyID             string
	ProvisionedIops      int
	BurstingEnabled      bool
	AutoSnapshotPolicyID string
	Tags                 map[string]string

	from string // the snapshot that a request makes it of
}

// disk is a Disk and where it is.
type disk struct {
	Disk
	seq       int64
	created   bool   // by a request
	state     string // Creating, Attaching, Detaching or ReIniting; "" at rest
	instance  string // "" when it is attached to none
	snapshot  string // it was made from
	image     string
	zone      string
	createdAt time.Time
}

func (d *disk) number() int64 { return d.seq }

func (d *disk) status() string {
	switch {
	case d.state != "":
		return d.state
	case d.instance == "":
		return "Available"
	}
	return "In_use"
}

// disk returns the disk a request names. c.mu is held.
func (c *Cloud) disk(id string) (*disk, *apiError) {
	if d := c.disks[id]; d != nil && !(d.created && c.hidden(d.createdAt)) {
		return d, nil
	}
	return nil, fail(404, "InvalidDiskId.NotFound", "The specified DiskId %q does not exist.", id)
}

// disksOf returns the disks of an instance, the system disk first. c.mu is
// held.
func (c *Cloud) disksOf(i *instance) []*disk {
	disks := slices.DeleteFunc(sorted(c.disks), func(d *disk) bool { return d.instance != i.ID })
	slices.SortStableFunc(disks, func(a, b *disk) int { return -cmp.Compare(a.Type, b.Type) })
	return disks
}

// deviceName is the name of the n-th disk.
func deviceName(n int) string { return "/dev/xvd" + string(rune('a'+n)) }

// insertDisk attaches a new disk to an instance. c.mu is held.
func (c *Cloud) insertDisk(i *instance, d Disk) *disk {
	if d.ID == "" {
		d.ID = c.newID("d")
	}
	if c.disks[d.ID] != nil {
		panic(fmt.Sprintf("cloud: disk ID %q is taken", d.ID))
	}
	if d.Category == "cloud_essd" {
		d.PerformanceLevel = cmp.Or(d.PerformanceLevel, "PL1")
	}
	d.Tags = maps.Clone(d.Tags)
	n := &disk{Disk: d, seq: c.next(), instance: i.ID, snapshot: d.from, image: i.ImageID, zone: i.Zone, createdAt: time.Now()}
	if img := c.images[i.ImageID]; img != nil {
		for _, m := range img.mappings {
			if m.device == d.Device {
				n.snapshot = m.snapshot
			}
		}
	}
	c.disks[d.ID] = n
	return n
}

func (c *Cloud) describeDisks(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	ids, byID := q.ids("DiskIds")
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := q.str("DiskType")
	if kind == "all" {
		kind = ""
	}
	status := q.str("Status")
	if status == "All" {
		status = ""
	}
	category := q.str("Category")
	if category == "all" {
		category = ""
	}
	var found []*disk
	for _, d := range sorted(c.disks) {
		if d.created && c.hidden(d.createdAt) || byID && !slices.Contains(ids, d.ID) ||
			!oneOf(d.instance, q.str("InstanceId")) || !oneOf(d.Type, kind) || !oneOf(d.Category, category) ||
			!oneOf(d.status(), status) || !like(d.Name, q.str("DiskName")) || !oneOf(d.zone, q.str("ZoneId")) ||
			q.has("DeleteWithInstance") && d.KeepAfterInstance == q.is("DeleteWithInstance") ||
			!tagged(d.Tags, filter) {
			continue
		}
		found = append(found, d)
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, d := range part {
		attachments := []obj{}
		if d.instance != "" {
			attachments = append(attachments, obj{"InstanceId": d.instance, "Device": d.Device, "AttachedTime": stamp(d.createdAt, stampSeconds)})
		}
		list = append(list, obj{
			"DiskId": d.ID, "DiskName": d.Name, "Description": d.Description, "Type": d.Type, "Category": d.Category,
			"PerformanceLevel": d.PerformanceLevel, "Size": d.Size, "Device": d.Device, "Status": d.status(),
			"InstanceId": d.instance, "ImageId": d.image, "SourceSnapshotId": d.snapshot,
			"RegionId": c.cfg.Region, "ZoneId": d.zone, "CreationTime": stamp(d.createdAt, stampSeconds),
			"DeleteWithInstance": !d.KeepAfterInstance, "DeleteAutoSnapshot": false, "EnableAutoSnapshot": true,
			"EnableAutomatedSnapshotPolicy": d.AutoSnapshotPolicyID != "", "AutoSnapshotPolicyId": d.AutoSnapshotPolicyID, "Portable": d.Type == "data",
			"Encrypted": d.Encrypted, "KMSKeyId": d.KMSKeyID, "MultiAttach": map[bool]string{false: "Disabled", true: "Enabled"}[d.MultiAttach],
			"BurstingEnabled": d.BurstingEnabled, "ProvisionedIops": d.ProvisionedIops,
			"DiskChargeType": "PostPaid", "SerialNumber": d.ID[max(0, len(d.ID)-20):], "ResourceGroupId": "",
			"MountInstances": obj{"MountInstance": []obj{}}, "Attachments": obj{"Attachment": attachments},
			"OperationLocks": obj{"OperationLock": []obj{}}, "Tags": tagList(d.Tags),
		})
	}
	reply["Disks"] = obj{"Disk": list}
	return reply, nil
}

// categories are the disk categories RunInstances takes here.
var categories = map[string]bool{"cloud": true, "cloud_efficiency": true, "cloud_ssd": true, "cloud_essd": true, "cloud_auto": true, "cloud_essd_entry": true}

// wantedDisk reads the members of SystemDisk or DataDisk.N. A category that is
// not given becomes cloud_efficiency, whatever the source had.
func wantedDisk(name string, g map[string]string, instanceType string) (Disk, *apiError) {
	d := Disk{
		Name: g["DiskName"], Category: cmp.Or(g["Category"], "cloud_efficiency"), PerformanceLevel: g["PerformanceLevel"],
		Device: g["Device"], KeepAfterInstance: g["DeleteWithInstance"] == "false", Description: g["Description"],
		Encrypted: g["Encrypted"] == "true", KMSKeyID: g["KMSKeyId"], BurstingEnabled: g["BurstingEnabled"] == "true",
		AutoSnapshotPolicyID: g["AutoSnapshotPolicyId"],
	}
	d.ProvisionedIops, _ = strconv.Atoi(g["ProvisionedIops"]) // parse has seen that it is a number, or nothing
	if !categories[d.Category] {
		return d, refuse(400, "Invalid"+name+"Category.ValueNotSupported", "The specified parameter %s.Category %q is not valid.", name, d.Category)
	}
	if d.Category == "cloud_essd_entry" && !like(instanceType, "ecs.u1*") && !like(instanceType, "ecs.e*") {
		return d, fail(400, "Invalid"+name+"Category.ValueNotSupported", "The category cloud_essd_entry is not for the instance type %s.", instanceType)
	}
	if d.PerformanceLevel != "" && (d.Category != "cloud_essd" || !oneOf(d.PerformanceLevel, "PL0,PL1,PL2,PL3")) {
		return d, refuse(400, "Invalid"+name+"PerformanceLevel.ValueNotSupported", "The performance level %q is not for the category %s.", d.PerformanceLevel, d.Category)
	}
	if v := g["Size"]; v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return d, refuse(400, "Invalid"+name+"Size.ValueNotSupported", "The specified %s.Size %q is not valid.", name, v)
		}
		d.Size = n
	}
	return d, nil
}

// wantedDisks are the disks of a new instance: those of the image, with what
// SystemDisk and the DataDisk.N of the same device say about them, and further
// empty ones. c.mu is held.
func (c *Cloud) wantedDisks(q *call, img *image) ([]Disk, *apiError) {
	kind := q.str("InstanceType")
	system := map[string]string{}
	if sub := q.under("SystemDisk"); sub != nil {
		system = sub.params
	}
	given := map[string]map[string]string{} // DataDisk.N by device
	var further []map[string]string
	for n := 1; ; n++ {
		g := q.group("DataDisk", n)
		if g == nil {
			break
		}
		if n > 16 {
			return nil, refuse(400, "InvalidDataDisk.NumberExceed", "The number of data disks exceeds 16.")
		}
		device := g["Device"]
		if given[device] != nil && device != "" {
			return nil, refuse(400, "InvalidDevice.InUse", "The device %s is given twice.", device)
		}
		if device != "" {
			given[device] = g
		}
		if device == "" || img.mapping(device) == nil {
			further = append(further, g)
		}
	}
	var disks []Disk
	used := map[string]bool{}
	for _, m := range img.mappings {
		name, g := "SystemDisk", system
		if m.kind == "data" {
			name, g = "DataDisk", given[m.device]
		}
		d, err := wantedDisk(name, g, kind)
		if err != nil {
			return nil, err
		}
		if m.kind == "system" {
			if d.Size != 0 && d.Size < m.size {
				return nil, fail(400, "InvalidSystemDiskSize.LessThanImageSize", "The specified SystemDisk.Size %d is less than the size %d of the image.", d.Size, m.size)
			}
			d.Size = cmp.Or(d.Size, m.size)
		} else {
			d.Size = m.size // a size beside a snapshot is ignored
		}
		d.Type, d.Device = m.kind, m.device
		used[m.device] = true
		disks = append(disks, d)
	}
	for _, g := range further {
		d, err := wantedDisk("DataDisk", g, kind)
		if err != nil {
			return nil, err
		}
		if id := g["SnapshotId"]; id != "" {
			s, err := c.snapshot(id)
			if err != nil {
				return nil, err
			}
			if !s.accomplished() {
				return nil, fail(403, "InvalidSnapshotId.NotReady", "The specified snapshot %s has not completed yet.", s.id)
			}
			d.from, d.Size = s.id, max(d.Size, s.size)
		}
		if d.Size == 0 {
			return nil, refuse(400, "MissingParameter", "A data disk that the image does not have needs DataDisk.N.Size.")
		}
		for n := 0; d.Device == ""; n++ {
			if !used[deviceName(n)] {
				d.Device = deviceName(n)
			}
		}
		used[d.Device] = true
		d.Type = "data"
		disks = append(disks, d)
	}
	return disks, nil
}
