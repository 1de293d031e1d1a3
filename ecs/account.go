package ecs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A SystemEvent is something that the cloud will do to an instance, or is doing.
type SystemEvent struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"`   // as "SystemMaintenance.Reboot"
	Status    string    `json:"status"` // "Scheduled", "Inquiring" (it waits for a person's answer) or "Executing"
	Reason    string    `json:"reason,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"` // the earliest moment, UTC; zero: not said
}

// ListSystemEvents lists what the cloud has in store for an instance, the next
// first; events that are over are left out.
func (c *Client) ListSystemEvents(ctx context.Context, instanceID string) ([]SystemEvent, error) {
	if instanceID == "" {
		return nil, errors.New("cannot list system events without instance ID")
	}
	got, err := c.api.SystemEvents(ctx, instanceID)
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]SystemEvent, 0, len(got))
	for _, e := range got {
		all = append(all, SystemEvent(e))
	}
	slices.SortStableFunc(all, func(a, b SystemEvent) int { return a.NotBefore.Compare(b.NotBefore) })
	return all, nil
}

// Kinds of Quota.
const (
	QuotaVCPU          = "vcpu"           // vCPUs of the account's instances that are paid by use
	QuotaSecurityGroup = "security-group" // instances in one group
	QuotaAddress       = "address"        // private addresses of one vSwitch
	QuotaSnapshot      = "snapshot"       // snapshots of one disk that somebody made
)

// SnapshotsPerDisk is how many snapshots a disk can have besides those that a
// policy makes (ECS, "Limits").
const SnapshotsPerDisk = 256

// A Quota is how much of something a clone needs and how much is left.
type Quota struct {
	Kind   string `json:"kind"`   // QuotaVCPU and the like
	Object string `json:"object"` // ID of the group, vSwitch or disk; of vCPUs the region
	Need   int    `json:"need"`
	Left   int    `json:"left"`
	Most   int    `json:"most,omitempty"` // that there can be; 0 = not said
}

// Short tells whether there is less left than needed.
func (q Quota) Short() bool { return q.Left < q.Need }

// A QuotaQuery says what a clone will take.
type QuotaQuery struct {
	Source         *Instance
	SecurityGroups []string // of the clone, at its start and later
}

// ListQuotas asks for each quota that a clone of q.Source has to fit into, one by
// one. What the account may not ask, and what the cloud does not say, is named in
// unasked with the reason. The error is one that other credentials, another
// network or a later attempt would mend; what was found before comes along.
func (c *Client) ListQuotas(ctx context.Context, q QuotaQuery) (all []Quota, unasked []string, err error) {
	if q.Source == nil {
		return nil, nil, errors.New("cannot look at quotas without a source")
	}
	in := q.Source
	not := func(product, what string, err error) error {
		if f, ok := trustNotChecked(product, what, err); ok {
			unasked = append(unasked, what+": "+f.Evidence)
			return nil
		}
		return fmt.Errorf("cannot ask for %s: %w", what, wrap(err))
	}
	unsaid := func(what string) { unasked = append(unasked, what+": the cloud does not say") }

	const vcpus = "how many vCPUs the account may still have"
	switch most, used, known, err := c.api.VCPUQuota(ctx, in.Zone); {
	case err != nil:
		if err := not("ecs", vcpus, err); err != nil {
			return all, unasked, err
		}
	case !known || in.VCPU == 0:
		unsaid(vcpus)
	default:
		all = append(all, Quota{Kind: QuotaVCPU, Object: in.Region, Need: in.VCPU, Left: most - used, Most: most})
	}

	if len(q.SecurityGroups) > 0 {
		const rooms = "how many instances its security groups may still have"
		got, err := c.api.GroupRooms(ctx, q.SecurityGroups)
		if err != nil {
			if err := not("ecs", rooms, err); err != nil {
				return all, unasked, err
			}
		}
		said := false
		for _, g := range got {
			if g.Members+g.RoomLeft > 0 {
				said = true
				all = append(all, Quota{Kind: QuotaSecurityGroup, Object: g.ID, Need: 1, Left: g.RoomLeft, Most: g.Members + g.RoomLeft})
			}
		}
		if err == nil && !said {
			unsaid(rooms)
		}
	}

	if in.VSwitch != "" {
		const addresses = "how many addresses its vSwitch has left"
		switch v, found, err := c.api.VSwitch(ctx, in.VSwitch); {
		case err != nil:
			if err := not("vpc", addresses, err); err != nil {
				return all, unasked, err
			}
		case !found:
			unsaid(addresses)
		default:
			all = append(all, Quota{Kind: QuotaAddress, Object: in.VSwitch, Need: 1, Left: v.Free})
		}
	}
	return all, unasked, nil
}

// SnapshotQuotas tells for each disk how many snapshots it can still have besides
// those taken, of which take are wanted. It is pure.
func SnapshotQuotas(disks []Disk, taken []Snapshot, take int) []Quota {
	var all []Quota
	for _, d := range disks {
		n := 0
		for _, s := range taken {
			// Those of a policy are counted apart. Nobody else may name one so.
			if s.SourceDiskID == d.ID && !strings.HasPrefix(s.Name, "auto") {
				n++
			}
		}
		all = append(all, Quota{Kind: QuotaSnapshot, Object: d.ID, Need: take, Left: SnapshotsPerDisk - n, Most: SnapshotsPerDisk})
	}
	return all
}

// VSwitchCIDR gives the block of addresses of a vSwitch, as "172.31.0.0/20".
func (c *Client) VSwitchCIDR(ctx context.Context, id string) (string, error) {
	v, found, err := c.api.VSwitch(ctx, id)
	switch {
	case err != nil:
		return "", wrap(err)
	case !found:
		return "", fmt.Errorf("vSwitch %s: %w", id, ErrNotFound)
	}
	return v.CIDR, nil
}
