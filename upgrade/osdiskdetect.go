package upgrade

import (
	"regexp"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
)

// xenType are instance families of the first generations, which ran on Xen: what
// boots a disk there is not what boots the same disk elsewhere.
var xenType = regexp.MustCompile(`^ecs\.(t1|s1|s2|s3|m1|m2|c1|c2)\.`)

// detectSystemDisk looks whether production's system disk can be replaced, and
// what would be lost with it.
func detectSystemDisk(cfg *Config, f *Facts, _ time.Time) []Finding {
	if cfg.OS.Production != ProductionReplaceDisk {
		return nil
	}
	var l found
	const keep = "keep the system disk (os.production: replay)"
	in, disk := f.Instance, systemDisk(f.Disks)
	refuse := func(object, format string, args ...any) {
		l.add(FindingBlocking, "disk-replace", object, keep, format, args...)
	}
	switch {
	case disk.ID == "":
		refuse(in.ID, "the cloud names no system disk of instance %s", in.ID)
	case !strings.HasPrefix(disk.Category, "cloud"):
		refuse(disk.ID, "system disk %s is of category %q: only cloud disks can be replaced", disk.ID, disk.Category)
	case disk.Encrypted:
		refuse(disk.ID, "system disk %s is encrypted, and the image of the transition host would not be, or not with its key", disk.ID)
	case disk.Status != ecs.DiskInUse:
		refuse(disk.ID, "system disk %s is %s, not in use", disk.ID, disk.Status)
	}
	if xenType.MatchString(in.Type) {
		refuse(in.ID, "instance type %s is of a generation that ran on Xen: its image may not boot", in.Type)
	}
	for _, m := range f.Inventory.Mounts {
		if m.Target == "/" && spread(m.Source) && len(f.Disks) > 1 {
			refuse("/", "/ is on %s, which may lie on data disks as well", m.Source)
		}
	}
	if cfg.Transition.Instance != "" {
		refuse(cfg.Transition.Instance, "an adopted transition host is no copy of production")
	}
	if disk.AutoSnapshotPolicyID != "" {
		l.add(FindingWarning, "disk-policy", disk.AutoSnapshotPolicyID, "apply it to the new system disk when the run is over; the run names that disk",
			"system disk %s has the automatic snapshot policy %s, which its successor will not have", disk.ID, disk.AutoSnapshotPolicyID)
	}
	for _, w := range f.Written {
		l = append(l, w.finding())
	}
	if f.Logs > 0 {
		l.add(FindingInfo, "disk-logs", "", "", "%d logs on the system disk were written in the last day: what comes after the snapshots of 3.1 stays in the snapshot of 4.5 alone", f.Logs)
	}
	return l
}
