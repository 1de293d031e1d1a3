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
	// UserData is handed to cloud-init on the first boot, at most 32 KiB; see
	// Quarantine. The source's user data is never copied: on a clone it would set
	// up the machine a second time.
	UserData []byte
	// SecurityGroups replace the source's, as for a first boot in isolation; see
	// SetSecurityGroups.
	SecurityGroups  []string
	PrivateIP       string // wanted address in the vSwitch; empty: any free one
	DedicatedHostID string // put it on this host; the source's is not copied
	NoDeploymentSet bool   // do not put it into the source's deployment set
	Tags            map[string]string
}

// CreateClone makes one instance like Source from an image of its disks and
// returns its ID without waiting: same zone, vSwitch, security groups, type and
// changed CPU options, disk categories and performance, key pair, RAM role,
// metadata options, credit mode, deployment set and resource group; paid by use,
// never a spot instance, not protected against deletion, all its disks released
// with it. Tags of Source are not copied: they may drive automation. CheckClone
// says what else a copy does not have. Called again with the same input it
// returns the same instance.
func (c *Client) CreateClone(ctx context.Context, in CloneInput) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("cannot create instance %s: %w", in.Name, err) }
	if _, err := markTags(in.Token, in.Tags); err != nil {
		return fail(err)
	}
	if err := in.check(); err != nil {
		return fail(err)
	}
	mine, err := c.ListInstances(ctx, Filter{Tags: map[string]string{TokenTag: in.Token}})
	if err != nil {
		return "", err
	}
	if len(mine) > 0 {
		return mine[0].ID, nil
	}
	n, err := c.prepare(ctx, in)
	if err != nil {
		return "", err
	}
	id, err := c.api.RunInstances(ctx, n)
	if err != nil {
		return fail(wrap(err))
	}
	return id, nil
}

// check refuses what cannot become an instance.
func (in *CloneInput) check() error {
	for k := range in.Tags {
		if strings.HasPrefix(k, "acs:") || strings.HasPrefix(k, "aliyun") {
			return fmt.Errorf("tag %s: keys beginning with acs: or aliyun belong to the cloud", k)
		}
	}
	if in.Source == nil || in.ImageID == "" || len(in.Disks) == 0 {
		return errors.New("source, image and disks are required")
	}
	for _, d := range in.Disks {
		if strings.HasPrefix(d.Category, "local") || strings.HasPrefix(d.Category, "ephemeral") {
			return fmt.Errorf("disk %s (%s) is a local one, which cannot be cloned", d.ID, d.Device)
		}
	}
	if len(in.UserData) > 32<<10 {
		return fmt.Errorf("user data of %d bytes: 32 KiB are allowed", len(in.UserData))
	}
	return nil
}

// prepare checks in and makes the request of it.
func (c *Client) prepare(ctx context.Context, in CloneInput) (alicloud.NewInstance, error) {
	if err := in.check(); err != nil {
		return alicloud.NewInstance{}, fmt.Errorf("cannot create instance %s: %w", in.Name, err)
	}
	role := in.Source.RAMRole
	if role == "" {
		var err error
		if role, err = c.api.RAMRole(ctx, in.Source.ID); err != nil {
			return alicloud.NewInstance{}, wrap(err)
		}
	}
	tags := maps.Clone(in.Tags)
	if in.Token != "" { // a dry run needs none
		if tags == nil {
			tags = map[string]string{}
		}
		tags[TokenTag] = in.Token
	}
	return in.request(role, tags), nil
}

// request is what the cloud is asked for.
func (in *CloneInput) request(role string, tags map[string]string) alicloud.NewInstance {
	src := in.Source
	n := alicloud.NewInstance{
		Token: deriveToken(in.Token), ImageID: in.ImageID, Name: in.Name, HostName: in.HostName, Type: src.Type, Zone: src.Zone,
		VSwitch: src.VSwitch, KeyPair: src.KeyPair, RAMRole: role, SecurityGroups: src.SecurityGroups,
		UserData: in.UserData, AutoRelease: in.AutoRelease, Tags: tags,
		PrivateIP: in.PrivateIP, CreditSpecification: src.CreditSpecification, ResourceGroupID: src.ResourceGroupID,
		DeploymentSetID: src.DeploymentSetID, DedicatedHostID: in.DedicatedHostID,
	}
	if len(in.SecurityGroups) > 0 {
		n.SecurityGroups = in.SecurityGroups
	}
	if in.NoDeploymentSet {
		n.DeploymentSetID = ""
	}
	// Only what differs from the defaults: many types refuse any options.
	if src.CPUTopology != "" || src.CPUCores > 0 && src.CPUCores*max(src.CPUThreadsPerCore, 1) != src.VCPU {
		n.CPUCores, n.CPUThreadsPerCore, n.CPUTopology = src.CPUCores, src.CPUThreadsPerCore, src.CPUTopology
	}
	if src.MetadataEndpoint == "disabled" || src.MetadataTokens == "required" {
		n.MetadataEndpoint, n.MetadataTokens, n.MetadataHopLimit = src.MetadataEndpoint, src.MetadataTokens, src.MetadataHopLimit
	}
	for _, d := range in.Disks {
		n.Disks = append(n.Disks, alicloud.Disk(d))
	}
	if in.PublicIP {
		n.InternetChargeType, n.InternetMaxBandwidthOut = src.InternetChargeType, src.InternetMaxBandwidthOut
		if n.InternetChargeType == "" {
			n.InternetChargeType = "PayByTraffic"
		}
		if n.InternetMaxBandwidthOut == 0 {
			n.InternetMaxBandwidthOut = 5
		}
	}
	return n
}
