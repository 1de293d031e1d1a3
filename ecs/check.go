package ecs

import (
	"fmt"
	"strings"
)

// A Blocker is something about an instance that a copy of it will not have, or
// that keeps it from being copied.
type Blocker struct {
	Code     string `json:"code"`   // stable word, as "local-disk"
	Object   string `json:"object"` // ID of the instance, disk or interface
	Reason   string `json:"reason"`
	Remedy   string `json:"remedy"`
	Blocking bool   `json:"blocking"` // false: to be known, and no obstacle
}

// CheckClone lists what stands against copying an instance, the obstacles first.
// It looks at nothing but its arguments (from GetDetails) and changes nothing.
// HaVips and route entries, which only package slb's side of the network knows,
// are not among it.
func CheckClone(i *Instance, disks []Disk) []Blocker {
	var block, note []Blocker
	stop := func(code, object, reason, remedy string) {
		block = append(block, Blocker{code, object, reason, remedy, true})
	}
	tell := func(code, object, reason, remedy string) {
		note = append(note, Blocker{code, object, reason, remedy, false})
	}

	switch i.Status {
	case StatusRunning, StatusStopped:
	default:
		stop("status", i.ID, fmt.Sprintf("instance is %s; snapshots need it Running or Stopped", i.Status), "wait until it is at rest")
	}
	for _, l := range i.Locks {
		stop("locked", i.ID, "the cloud has locked it: "+l, "have the lock lifted (unpaid bill, security case)")
	}
	if strings.EqualFold(i.OSType, "windows") {
		stop("windows", i.ID, "it runs Windows", "upgradectl upgrades Linux hosts only")
	}
	system, data := 0, 0
	for _, d := range disks {
		if d.Type == "system" {
			system++
		} else {
			data++
		}
		name := d.ID
		if d.Device != "" {
			name += " (" + d.Device + ")"
		}
		switch {
		case d.Category == "" || strings.HasPrefix(d.Category, "local") || strings.HasPrefix(d.Category, "ephemeral"):
			stop("local-disk", d.ID, fmt.Sprintf("disk %s is %s: the cloud takes no snapshots of it, and a copy begins with an empty one", name, orUnknown(d.Category)), "keep nothing on it that a copy needs, or upgrade in place")
		case d.MultiAttach:
			stop("multi-attach", d.ID, fmt.Sprintf("disk %s can be attached to several instances; a copy of it would part from what the others write", name), "upgrade in place, or detach it first")
		case d.Status != "" && d.Status != DiskInUse:
			stop("disk-status", d.ID, fmt.Sprintf("disk %s is %s, not %s", name, d.Status, DiskInUse), "wait until it is at rest")
		}
		if d.Encrypted {
			tell("encrypted-disk", d.ID, fmt.Sprintf("disk %s is encrypted with KMS key %s; so will be its copy", name, orUnknown(d.KMSKeyID)), "see that the key stays enabled and the account may use it")
		}
	}
	switch {
	case system != 1:
		stop("system-disk", i.ID, fmt.Sprintf("it has %d system disks", system), "read the disks again")
	case data > 16:
		stop("disks", i.ID, fmt.Sprintf("it has %d data disks; an image takes 16", data), "upgrade in place")
	}
	for _, e := range i.SecondaryENIs {
		stop("secondary-eni", e, "the copy has the primary interface only; addresses and routes of "+e+" are not there", "see that no traffic uses it, or upgrade in place")
	}
	for _, ip := range i.SecondaryIPs {
		stop("secondary-ip", i.ID, "the copy does not get the secondary private address "+ip, "see that no traffic uses it, or upgrade in place")
	}
	for _, ip := range i.IPv6 {
		stop("ipv6", i.ID, "the copy does not get an IPv6 address as "+ip, "see that no traffic uses it, or upgrade in place")
	}
	if i.HPCClusterID != "" {
		stop("hpc-cluster", i.ID, "it is in HPC cluster "+i.HPCClusterID+", to which the copy would not belong", "upgrade in place")
	}

	if i.ChargeType == "PrePaid" {
		tell("prepaid", i.ID, "it is paid in advance; the copy is paid by use", "mind the price")
	}
	if i.SpotStrategy != "" && i.SpotStrategy != "NoSpot" {
		tell("spot", i.ID, "it is a spot instance; the copy is not, so that it cannot be taken away", "mind the price")
	}
	if i.EIP != "" {
		tell("eip", i.ID, "its elastic address "+i.EIP+" stays with it", "traffic to that address does not move by a balancer")
	}
	for _, ip := range i.PublicIPs {
		if ip != i.EIP {
			tell("public-ip", i.ID, "its public address "+ip+" stays with it; a copy has another or none", "traffic to that address does not move by a balancer; egress allow lists may hold it")
		}
	}
	if i.UserDataBytes > 0 {
		tell("user-data", i.ID, fmt.Sprintf("its %d bytes of user data are not copied: on a first boot they would set the machine up a second time", i.UserDataBytes), "none, unless services read them")
	}
	if i.DedicatedHostID != "" {
		tell("dedicated-host", i.ID, "it is on dedicated host "+i.DedicatedHostID+"; the copy is not, unless it is asked for", "give CloneInput.DedicatedHostID if licences need it")
	}
	if i.DeploymentSetID != "" {
		tell("deployment-set", i.ID, "it is in deployment set "+i.DeploymentSetID+"; so will be the copy, if the set has room", "give CloneInput.NoDeploymentSet if it has none")
	}
	if i.KeyPair != "" {
		tell("key-pair", i.ID, "the copy gets key pair "+i.KeyPair+"; cloud-init then writes it for the login user again", "none")
	}
	return append(block, note...)
}

func orUnknown(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}
