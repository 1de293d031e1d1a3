package ecs

import (
	"context"
	"time"
)

// States of an instance, as the cloud spells them.
const (
	StatusPending  = "Pending"
	StatusStarting = "Starting"
	StatusRunning  = "Running"
	StatusStopping = "Stopping"
	StatusStopped  = "Stopped"
)

// TokenTag is the key of the tag that every Create call of this package puts on
// what it makes, with the input's Token as its value. It is how a repeated call
// finds what an earlier one made after the cloud has forgotten the token.
const TokenTag = "upgradectl:token"

// An Instance is one ECS instance as DescribeInstances shows it.
type Instance struct {
	ID, Name, HostName string
	Status             string // StatusRunning and the like
	StoppedMode        string // "KeepCharging", "StopCharging" or "Not-applicable"
	Type               string // instance type, as ecs.g7.large
	ImageID            string
	Zone, Region       string
	VPC, VSwitch       string
	SecurityGroups     []string
	PrivateIPs         []string // in the VPC; the primary one first
	PublicIPs          []string // static public addresses and the EIP
	ENIs               []string // IDs of the network interfaces, primary first
	KeyPair            string
	ChargeType         string // "PostPaid" or "PrePaid"
	SpotStrategy       string
	Tags               map[string]string
	AutoReleaseTime    time.Time // UTC, to the minute; zero: none
	CreationTime       time.Time
	DeletionProtection bool
	OSName             string
	Locks              []string // reasons for which the cloud locked it, as "financial"

	InternetChargeType      string
	InternetMaxBandwidthOut int // Mbit/s; 0: no public address of its own
	InternetMaxBandwidthIn  int // Mbit/s
}

// A Lookup says which instance is meant. Set fields must all match.
type Lookup struct {
	ID        string
	Name      string // exact
	PrivateIP string // any private address in a VPC
}

// A Filter selects instances. Set fields must all match; the zero value selects
// every instance of the region.
type Filter struct {
	IDs  []string
	Tags map[string]string
}

// A Guard is the tag an instance must carry before DeleteInstance touches it.
type Guard struct{ TagKey, TagValue string }

// Progress is what a wait saw last. It is handed to the wait's callback, on the
// goroutine of the wait, each time something changed.
type Progress struct {
	Object    string        // "snapshot", "image", "instance" or "command"
	ID        string        // of the object
	Status    string        // the cloud's word for it
	Percent   int           // 0..100; -1 if the cloud gives none
	Remaining time.Duration // the cloud's estimate; 0 if it gives none
}

var _ = context.Background
