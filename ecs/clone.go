package ecs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

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

// CreateClone makes one instance like Source from an image of its disks and
// returns its ID without waiting: same zone, vSwitch, security groups, type,
// disk categories, key pair and RAM role; paid by use, never a spot instance,
// not protected against deletion, all its disks released with it. Tags of Source
// are not copied: they may drive automation. Called again with the same input it
// returns the same instance.
func (c *Client) CreateClone(ctx context.Context, in CloneInput) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("cannot create instance %s: %w", in.Name, err) }
	tags, err := markTags(in.Token, in.Tags)
	if err != nil {
		return fail(err)
	}
	for k := range tags {
		if strings.HasPrefix(k, "acs:") || strings.HasPrefix(k, "aliyun") {
			return fail(fmt.Errorf("tag %s: keys beginning with acs: or aliyun belong to the cloud", k))
		}
	}
	if in.Source == nil || in.ImageID == "" || len(in.Disks) == 0 {
		return fail(errors.New("source, image and disks are required"))
	}
	for _, d := range in.Disks {
		if strings.HasPrefix(d.Category, "local") || strings.HasPrefix(d.Category, "ephemeral") {
			return fail(fmt.Errorf("disk %s (%s) is a local one, which cannot be cloned", d.ID, d.Device))
		}
	}
	if len(in.UserData) > 32<<10 {
		return fail(fmt.Errorf("user data of %d bytes: 32 KiB are allowed", len(in.UserData)))
	}
	mine, err := c.ListInstances(ctx, Filter{Tags: map[string]string{TokenTag: in.Token}})
	if err != nil {
		return "", err
	}
	if len(mine) > 0 {
		return mine[0].ID, nil
	}
	role, err := c.api.RAMRole(ctx, in.Source.ID)
	if err != nil {
		return "", wrap(err)
	}
	n := alicloud.NewInstance{
		Token: deriveToken(in.Token), ImageID: in.ImageID, Name: in.Name, HostName: in.HostName, Type: in.Source.Type, Zone: in.Source.Zone,
		VSwitch: in.Source.VSwitch, KeyPair: in.Source.KeyPair, RAMRole: role, SecurityGroups: in.Source.SecurityGroups,
		UserData: in.UserData, AutoRelease: in.AutoRelease, Tags: maps.Clone(tags),
	}
	for _, d := range in.Disks {
		n.Disks = append(n.Disks, alicloud.Disk(d))
	}
	if in.PublicIP {
		n.InternetChargeType, n.InternetMaxBandwidthOut = in.Source.InternetChargeType, in.Source.InternetMaxBandwidthOut
		if n.InternetChargeType == "" {
			n.InternetChargeType = "PayByTraffic"
		}
		if n.InternetMaxBandwidthOut == 0 {
			n.InternetMaxBandwidthOut = 5
		}
	}
	id, err := c.api.RunInstances(ctx, n)
	if err != nil {
		return fail(wrap(err))
	}
	return id, nil
}
