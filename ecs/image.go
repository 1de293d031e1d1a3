package ecs

import "time"

// An Image of the account's own.
type Image struct {
	ID, Name     string
	Status       string // "Creating", "Waiting", "Available", "UnAvailable", "CreateFailed" or "Deprecated"
	Percent      int    // 0..100
	Size         int    // GiB
	OSName       string
	Snapshots    []string // IDs of the snapshots it is made of
	CreationTime time.Time
	Tags         map[string]string
}

// ImageInput is the input of CreateImage.
type ImageInput struct {
	Name        string // unique in the region, 2 to 128 characters
	Token       string // makes the call idempotent; required
	Description string
	Snapshots   []Snapshot // one of the system disk, and those of the data disks
	Tags        map[string]string
}

// An ImageFilter selects images of the account. Set fields must all match.
type ImageFilter struct {
	IDs  []string
	Name string // exact
	Tags map[string]string
}
