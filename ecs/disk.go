package ecs

// A Disk is a block device of an instance.
type Disk struct {
	ID, Name, InstanceID string
	Type                 string // "system" or "data"
	Category             string // as cloud_essd
	PerformanceLevel     string // PL0 to PL3 for ESSD
	Size                 int    // GiB
	Device               string // as /dev/xvda
	Status               string // as In_use
	DeleteWithInstance   bool
	Encrypted            bool
	KMSKeyID             string
}
