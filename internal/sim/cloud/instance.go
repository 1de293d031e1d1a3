package cloud

// An Instance is one ECS instance, as AddInstance takes it.
type Instance struct {
	ID, Name, HostName string
	Description        string
	Status             string // Running (default) or Stopped
	Type               string // default ecs.g6.large
	ImageID            string // default: an image nobody can see any more
	Zone, VPC, VSwitch string // default REGION-h, vpc-sim, vsw-sim
	PrivateIP          string
	PublicIP           string
	ENI, MAC           string // default: derived from a counter
	SecurityGroups     []string
	KeyPair            string
	RAMRole            string
	UserData           string // base64, as the API has it
	ChargeType         string // PostPaid (default) or PrePaid
	Tags               map[string]string
	DeletionProtection bool
	// InternetMaxBandwidthOut is in Mbit/s.
	InternetMaxBandwidthOut int
	// Disks default to one system disk of 40 GiB.
	Disks []Disk
}

// A Disk is one block device of an instance.
type Disk struct {
	ID, Name         string
	Type             string // system or data; default: the first is system, the others data
	Category         string // default cloud_essd
	PerformanceLevel string // default PL1 for cloud_essd
	Size             int    // GiB; default 40
	Device           string // default /dev/xvda, /dev/xvdb, …
	// KeepAfterInstance is the opposite of the API's DeleteWithInstance.
	KeepAfterInstance bool
	Tags              map[string]string
}
