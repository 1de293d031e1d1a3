package ecs

import "time"

// CloneInput is the input of CreateClone.
type CloneInput struct {
	Source   *Instance // what the new instance is like; from GetInstance
	Disks    []Disk    // Source's disks; from ListDisks
	ImageID  string    // made of Source's snapshots
	Name     string
	HostName string // empty: the cloud chooses one
	Token    string // makes the call idempotent; required
	PublicIP bool   // give it a public address, with Source's bandwidth (5 Mbit/s if it has none)
	// AutoRelease is when the cloud releases the instance by itself (to the
	// minute, at least half an hour from now). Zero: never.
	AutoRelease time.Time
	// UserData is handed to cloud-init on the first boot. The source's user data
	// is never copied: on a clone it would set up the machine a second time.
	UserData []byte
	Tags     map[string]string
}
