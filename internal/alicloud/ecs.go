package alicloud

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
)

// Instance, Disk, Snapshot and Image have the fields of the types of these
// names in package ecs, in the same order, so that one converts into the other.
type (
	Instance struct {
		ID, Name, HostName      string
		Status                  string
		StoppedMode             string
		Type                    string
		ImageID                 string
		Zone, Region            string
		VPC, VSwitch            string
		SecurityGroups          []string
		PrivateIPs              []string
		PublicIPs               []string
		ENIs                    []string
		KeyPair                 string
		ChargeType              string
		SpotStrategy            string
		Tags                    map[string]string
		AutoReleaseTime         time.Time
		CreationTime            time.Time
		DeletionProtection      bool
		OSName                  string
		Locks                   []string
		InternetChargeType      string
		InternetMaxBandwidthOut int
		InternetMaxBandwidthIn  int

		VCPU, MemoryMiB      int
		CPUCores             int
		CPUThreadsPerCore    int
		CPUNuma, CPUTopology string
		OSType               string
		ExpiredTime          time.Time
		EIP, EIPAllocationID string
		SecondaryENIs        []string
		SecondaryIPs         []string
		IPv6                 []string
		CreditSpecification  string
		DeploymentSetID      string
		DedicatedHostID      string
		HPCClusterID         string
		ResourceGroupID      string
		MetadataEndpoint     string
		MetadataTokens       string
		MetadataHopLimit     int
		RAMRole              string
		UserDataBytes        int
	}
	Disk struct {
		ID, Name, InstanceID string
		Type                 string
		Category             string
		PerformanceLevel     string
		Size                 int
		Device               string
		Status               string
		DeleteWithInstance   bool
		Encrypted            bool
		KMSKeyID             string

		ProvisionedIOPS      int
		Bursting             bool
		MultiAttach          bool
		Portable             bool
		AutoSnapshotPolicyID string
		ImageID              string
	}
	Snapshot struct {
		ID, Name       string
		Status         string
		Percent        int
		Remaining      time.Duration
		SourceDiskID   string
		SourceDiskType string
		SourceDiskSize int
		RetentionDays  int
		CreationTime   time.Time
		Tags           map[string]string
	}
	Image struct {
		ID, Name     string
		Status       string
		Percent      int
		Size         int
		OSName       string
		Snapshots    []string
		CreationTime time.Time
		Tags         map[string]string

		BootMode, Architecture string
		CloudInit              bool
		Detection              string
		Findings               []string
	}
)

// pageSize is the largest page the API gives.
const pageSize = 100

// InstanceQuery selects instances; set fields must all match.
type InstanceQuery struct {
	IDs       []string
	Name      string
	PrivateIP string
	Tags      map[string]string
}

// Instances lists instances, all pages of them. IDs that do not exist are left
// out.
func (c *Client) Instances(ctx context.Context, q InstanceQuery) ([]Instance, error) {
	var all []Instance
	err := batches(q.IDs, func(ids []string) error {
		return pages(func(token string) (string, error) {
			r, err := callECS(ctx, c, read("DescribeInstances"), ecs.CreateDescribeInstancesRequest, func(r *ecs.DescribeInstancesRequest) {
				r.RegionId = c.region
				r.MaxResults, r.NextToken = requests.NewInteger(pageSize), token
				r.InstanceIds = list(ids)
				r.InstanceName = q.Name
				r.AdditionalAttributes = &[]string{"META_OPTIONS"}
				if q.PrivateIP != "" {
					r.PrivateIpAddresses, r.InstanceNetworkType = list([]string{q.PrivateIP}), "vpc"
				}
				r.Tag = tags(q.Tags, func(k, v string) ecs.DescribeInstancesTag { return ecs.DescribeInstancesTag{Key: k, Value: v} })
			}, (*ecs.Client).DescribeInstances)
			if err != nil {
				return "", err
			}
			for _, i := range r.Instances.Instance {
				all = append(all, instance(i))
			}
			return r.NextToken, nil
		})
	})
	return all, err
}

func instance(i ecs.Instance) Instance {
	out := Instance{
		ID: i.InstanceId, Name: i.InstanceName, HostName: i.HostName, Status: i.Status, StoppedMode: i.StoppedMode, Type: i.InstanceType,
		ImageID: i.ImageId, Zone: i.ZoneId, Region: i.RegionId, VPC: i.VpcAttributes.VpcId, VSwitch: i.VpcAttributes.VSwitchId,
		SecurityGroups: i.SecurityGroupIds.SecurityGroupId, KeyPair: i.KeyPairName, ChargeType: i.InstanceChargeType,
		SpotStrategy: i.SpotStrategy, Tags: tagMap(i.Tags.Tag), AutoReleaseTime: when(i.AutoReleaseTime), CreationTime: when(i.CreationTime),
		DeletionProtection: i.DeletionProtection, OSName: i.OSName, InternetChargeType: i.InternetChargeType,
		InternetMaxBandwidthOut: i.InternetMaxBandwidthOut, InternetMaxBandwidthIn: i.InternetMaxBandwidthIn,

		VCPU: max(i.Cpu, i.CPU), MemoryMiB: i.Memory, CPUCores: max(i.CpuOptions.CoreCount, i.CpuOptions.Core), CPUThreadsPerCore: i.CpuOptions.ThreadsPerCore,
		CPUNuma: i.CpuOptions.Numa, CPUTopology: i.CpuOptions.TopologyType, OSType: i.OSType, ExpiredTime: when(i.ExpiredTime),
		EIP: i.EipAddress.IpAddress, EIPAllocationID: i.EipAddress.AllocationId, CreditSpecification: i.CreditSpecification,
		DeploymentSetID: i.DeploymentSetId, DedicatedHostID: i.DedicatedHostAttribute.DedicatedHostId, HPCClusterID: i.HpcClusterId,
		ResourceGroupID: i.ResourceGroupId, MetadataEndpoint: i.MetadataOptions.HttpEndpoint, MetadataTokens: i.MetadataOptions.HttpTokens,
		MetadataHopLimit: i.MetadataOptions.HttpPutResponseHopLimit,
	}
	out.PrivateIPs = add(out.PrivateIPs, i.VpcAttributes.PrivateIpAddress.IpAddress...)
	for _, primary := range []bool{true, false} {
		for _, n := range i.NetworkInterfaces.NetworkInterface {
			if (n.Type == "Primary") != primary {
				continue
			}
			out.ENIs = add(out.ENIs, n.NetworkInterfaceId)
			if !primary {
				out.SecondaryENIs = add(out.SecondaryENIs, n.NetworkInterfaceId)
			}
			out.PrivateIPs = add(out.PrivateIPs, n.PrimaryIpAddress)
			for _, p := range n.PrivateIpSets.PrivateIpSet {
				out.PrivateIPs = add(out.PrivateIPs, p.PrivateIpAddress)
				if p.PrivateIpAddress != n.PrimaryIpAddress {
					out.SecondaryIPs = add(out.SecondaryIPs, p.PrivateIpAddress)
				}
			}
			for _, p := range n.Ipv6Sets.Ipv6Set {
				out.IPv6 = add(out.IPv6, p.Ipv6Address)
			}
		}
	}
	out.PrivateIPs = add(out.PrivateIPs, i.InnerIpAddress.IpAddress...)
	out.PublicIPs = add(out.PublicIPs, i.PublicIpAddress.IpAddress...)
	out.PublicIPs = add(out.PublicIPs, i.EipAddress.IpAddress)
	for _, l := range i.OperationLocks.LockReason {
		out.Locks = add(out.Locks, l.LockReason)
	}
	return out
}

// RAMRole returns the name of the instance's RAM role, "" if it has none.
func (c *Client) RAMRole(ctx context.Context, instanceID string) (string, error) {
	r, err := callECS(ctx, c, read("DescribeInstanceRamRole"), ecs.CreateDescribeInstanceRamRoleRequest, func(r *ecs.DescribeInstanceRamRoleRequest) {
		r.RegionId = c.region
		r.InstanceIds = list([]string{instanceID})
	}, (*ecs.Client).DescribeInstanceRamRole)
	if err != nil {
		return "", err
	}
	for _, s := range r.InstanceRamRoleSets.InstanceRamRoleSet {
		if s.InstanceId == instanceID {
			return s.RamRoleName, nil
		}
	}
	return "", nil
}

// DiskQuery selects disks; set fields must all match.
type DiskQuery struct {
	InstanceID string
	IDs        []string
}

// Disks lists disks.
func (c *Client) Disks(ctx context.Context, q DiskQuery) ([]Disk, error) {
	var all []Disk
	err := batches(q.IDs, func(ids []string) error {
		return pages(func(token string) (string, error) {
			r, err := callECS(ctx, c, read("DescribeDisks"), ecs.CreateDescribeDisksRequest, func(r *ecs.DescribeDisksRequest) {
				r.RegionId = c.region
				r.MaxResults, r.NextToken = requests.NewInteger(pageSize), token
				r.InstanceId = q.InstanceID
				r.DiskIds = list(ids)
			}, (*ecs.Client).DescribeDisks)
			if err != nil {
				return "", err
			}
			for _, d := range r.Disks.Disk {
				all = append(all, Disk{
					ID: d.DiskId, Name: d.DiskName, InstanceID: d.InstanceId, Type: d.Type, Category: d.Category, PerformanceLevel: d.PerformanceLevel,
					Size: d.Size, Device: d.Device, Status: d.Status, DeleteWithInstance: d.DeleteWithInstance, Encrypted: d.Encrypted, KMSKeyID: d.KMSKeyId,
					ProvisionedIOPS: int(d.ProvisionedIops), Bursting: d.BurstingEnabled, MultiAttach: d.MultiAttach != "" && d.MultiAttach != "Disabled",
					Portable: d.Portable, AutoSnapshotPolicyID: d.AutoSnapshotPolicyId, ImageID: d.ImageId,
				})
			}
			return r.NextToken, nil
		})
	})
	return all, err
}

// NewSnapshot is the input of CreateSnapshot.
type NewSnapshot struct {
	DiskID, Token, Name, Description string
	RetentionDays                    int
	Tags                             map[string]string
}

// CreateSnapshot begins a snapshot of one disk.
func (c *Client) CreateSnapshot(ctx context.Context, in NewSnapshot) (string, error) {
	r, err := callECS(ctx, c, again("CreateSnapshot"), ecs.CreateCreateSnapshotRequest, func(r *ecs.CreateSnapshotRequest) {
		r.DiskId, r.ClientToken, r.SnapshotName, r.Description = in.DiskID, in.Token, in.Name, in.Description
		if in.RetentionDays > 0 {
			r.RetentionDays = requests.NewInteger(in.RetentionDays)
		}
		r.Tag = tags(in.Tags, func(k, v string) ecs.CreateSnapshotTag { return ecs.CreateSnapshotTag{Key: k, Value: v} })
	}, (*ecs.Client).CreateSnapshot)
	if err != nil {
		return "", err
	}
	return id("CreateSnapshot", r.RequestId, r.SnapshotId)
}

// SnapshotQuery selects snapshots; set fields must all match.
type SnapshotQuery struct {
	IDs                []string
	InstanceID, DiskID string
	Tags               map[string]string
}

// Snapshots lists snapshots.
func (c *Client) Snapshots(ctx context.Context, q SnapshotQuery) ([]Snapshot, error) {
	var all []Snapshot
	err := batches(q.IDs, func(ids []string) error {
		return pages(func(token string) (string, error) {
			r, err := callECS(ctx, c, read("DescribeSnapshots"), ecs.CreateDescribeSnapshotsRequest, func(r *ecs.DescribeSnapshotsRequest) {
				r.RegionId = c.region
				r.MaxResults, r.NextToken = requests.NewInteger(pageSize), token
				r.SnapshotIds, r.InstanceId, r.DiskId = list(ids), q.InstanceID, q.DiskID
				r.Tag = tags(q.Tags, func(k, v string) ecs.DescribeSnapshotsTag { return ecs.DescribeSnapshotsTag{Key: k, Value: v} })
			}, (*ecs.Client).DescribeSnapshots)
			if err != nil {
				return "", err
			}
			for _, s := range r.Snapshots.Snapshot {
				all = append(all, snapshot(s))
			}
			return r.NextToken, nil
		})
	})
	return all, err
}

func snapshot(s ecs.Snapshot) Snapshot {
	size, _ := strconv.Atoi(s.SourceDiskSize)
	return Snapshot{
		ID: s.SnapshotId, Name: s.SnapshotName, Status: s.Status, Percent: percent(s.Progress), Remaining: time.Duration(max(s.RemainTime, 0)) * time.Second,
		SourceDiskID: s.SourceDiskId, SourceDiskType: s.SourceDiskType, SourceDiskSize: size, RetentionDays: s.RetentionDays,
		CreationTime: when(s.CreationTime), Tags: tagMap(s.Tags.Tag),
	}
}

// DeleteSnapshot deletes a snapshot, but not while a disk or an image needs it.
func (c *Client) DeleteSnapshot(ctx context.Context, snapshotID string) error {
	_, err := callECS(ctx, c, again("DeleteSnapshot"), ecs.CreateDeleteSnapshotRequest, func(r *ecs.DeleteSnapshotRequest) {
		r.SnapshotId = snapshotID
	}, (*ecs.Client).DeleteSnapshot)
	return err
}

// A Mapping is one disk of an image that is made of snapshots.
type Mapping struct{ SnapshotID, DiskType, Device string }

// NewImage is the input of CreateImage.
type NewImage struct {
	Name, Token, Description string
	Mappings                 []Mapping
	Tags                     map[string]string
}

// CreateImage begins an image made of snapshots, and asks for the cloud's check
// of it.
func (c *Client) CreateImage(ctx context.Context, in NewImage) (string, error) {
	r, err := callECS(ctx, c, again("CreateImage"), ecs.CreateCreateImageRequest, func(r *ecs.CreateImageRequest) {
		r.RegionId = c.region
		r.ImageName, r.ClientToken, r.Description = in.Name, in.Token, in.Description
		r.DetectionStrategy = "Standard"
		var ms []ecs.CreateImageDiskDeviceMapping
		for _, m := range in.Mappings {
			ms = append(ms, ecs.CreateImageDiskDeviceMapping{SnapshotId: m.SnapshotID, DiskType: m.DiskType, Device: m.Device})
		}
		r.DiskDeviceMapping = &ms
		r.Tag = tags(in.Tags, func(k, v string) ecs.CreateImageTag { return ecs.CreateImageTag{Key: k, Value: v} })
	}, (*ecs.Client).CreateImage)
	if err != nil {
		return "", err
	}
	return id("CreateImage", r.RequestId, r.ImageId)
}

// ImageQuery selects the account's own images; set fields must all match.
type ImageQuery struct {
	IDs  []string
	Name string
	Tags map[string]string
}

// Images lists images in every state: by default the cloud shows those that are
// ready, and a wait for one would see nothing.
func (c *Client) Images(ctx context.Context, q ImageQuery) ([]Image, error) {
	var all []Image
	err := batches(q.IDs, func(ids []string) error {
		for page, seen := 1, 0; ; page++ {
			r, err := callECS(ctx, c, read("DescribeImages"), ecs.CreateDescribeImagesRequest, func(r *ecs.DescribeImagesRequest) {
				r.RegionId = c.region
				r.ImageOwnerAlias = "self"
				r.Status = "Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated"
				r.ImageId, r.ImageName = strings.Join(ids, ","), q.Name
				r.PageNumber, r.PageSize = requests.NewInteger(page), requests.NewInteger(pageSize)
				r.Tag = tags(q.Tags, func(k, v string) ecs.DescribeImagesTag { return ecs.DescribeImagesTag{Key: k, Value: v} })
			}, (*ecs.Client).DescribeImages)
			if err != nil {
				return err
			}
			for _, i := range r.Images.Image {
				all = append(all, image(i))
			}
			seen += len(r.Images.Image)
			if len(r.Images.Image) == 0 || seen >= r.TotalCount {
				return nil
			}
		}
	})
	return all, err
}

func image(i ecs.Image) Image {
	out := Image{
		ID: i.ImageId, Name: i.ImageName, Status: i.Status, Percent: percent(i.Progress), Size: i.Size, OSName: i.OSName,
		CreationTime: when(i.CreationTime), Tags: tagMap(i.Tags.Tag),
		BootMode: i.BootMode, Architecture: i.Architecture, CloudInit: i.IsSupportCloudinit, Detection: i.DetectionOptions.Status,
	}
	for _, m := range i.DiskDeviceMappings.DiskDeviceMapping {
		out.Snapshots = add(out.Snapshots, m.SnapshotId)
	}
	for _, d := range i.DetectionOptions.Items.Item {
		if d.RiskLevel != "" && d.RiskLevel != "NoRisk" {
			out.Findings = add(out.Findings, strings.TrimSpace(d.Name+": "+d.Value))
		}
	}
	return out
}

// DeleteImage deletes an image. Instances made of it go on running.
func (c *Client) DeleteImage(ctx context.Context, imageID string) error {
	_, err := callECS(ctx, c, again("DeleteImage"), ecs.CreateDeleteImageRequest, func(r *ecs.DeleteImageRequest) {
		r.RegionId, r.ImageId, r.Force = c.region, imageID, requests.NewBoolean(true)
	}, (*ecs.Client).DeleteImage)
	return err
}

// NewInstance is the input of RunInstances.
type NewInstance struct {
	Token, ImageID, Name, HostName, Type, Zone, VSwitch, KeyPair, RAMRole string
	SecurityGroups                                                        []string
	Disks                                                                 []Disk
	UserData                                                              []byte
	InternetChargeType                                                    string
	InternetMaxBandwidthOut                                               int
	AutoRelease                                                           time.Time
	Tags                                                                  map[string]string

	PrivateIP                        string
	CPUCores, CPUThreadsPerCore      int // 0: as the type has them
	CPUTopology                      string
	CreditSpecification              string
	DeploymentSetID, DedicatedHostID string
	ResourceGroupID                  string
	MetadataEndpoint, MetadataTokens string
	MetadataHopLimit                 int
}

// RunInstances makes one instance: always pay-as-you-go and never a spot one or
// one protected against deletion, so that it can be released and is not taken
// away.
func (c *Client) RunInstances(ctx context.Context, in NewInstance) (string, error) {
	r, err := c.runInstances(ctx, in, false)
	if err != nil {
		return "", err
	}
	if len(r.InstanceIdSets.InstanceIdSet) == 0 {
		return id("RunInstances", r.RequestId, "")
	}
	return id("RunInstances", r.RequestId, r.InstanceIdSets.InstanceIdSet[0])
}

// DryRunInstances asks whether RunInstances would do. The cloud's yes is a
// refusal of its own kind.
func (c *Client) DryRunInstances(ctx context.Context, in NewInstance) error {
	r, err := c.runInstances(ctx, in, true)
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code == "DryRunOperation":
		return nil
	case err != nil:
		return err
	case len(r.InstanceIdSets.InstanceIdSet) > 0:
		return &Error{Action: "RunInstances", Code: CodeBadAnswer, Message: "the cloud made " + strings.Join(r.InstanceIdSets.InstanceIdSet, ", ") + " although DryRun was asked for", HTTPStatus: 200, RequestID: r.RequestId, Class: Definitive}
	}
	return &Error{Action: "RunInstances", Code: CodeBadAnswer, Message: "the answer to a DryRun says neither yes nor no", HTTPStatus: 200, RequestID: r.RequestId, Class: Definitive}
}

func (c *Client) runInstances(ctx context.Context, in NewInstance, dry bool) (*ecs.RunInstancesResponse, error) {
	o := again("RunInstances")
	userData := ""
	if len(in.UserData) > 0 {
		userData = base64.StdEncoding.EncodeToString(in.UserData)
		o.secrets = []string{string(in.UserData), userData}
	}
	return callECS(ctx, c, o, ecs.CreateRunInstancesRequest, func(r *ecs.RunInstancesRequest) {
		r.RegionId, r.ZoneId, r.VSwitchId = c.region, in.Zone, in.VSwitch
		r.ClientToken, r.ImageId, r.InstanceName, r.HostName, r.InstanceType = in.Token, in.ImageID, in.Name, in.HostName, in.Type
		r.Amount = requests.NewInteger(1)
		r.InstanceChargeType, r.SpotStrategy, r.DeletionProtection = "PostPaid", "NoSpot", requests.NewBoolean(false)
		r.SecurityGroupIds = &in.SecurityGroups
		r.RamRoleName, r.UserData = in.RAMRole, userData
		if dry {
			r.DryRun, r.ClientToken = requests.NewBoolean(true), "" // the token is for the real one
		}
		if in.KeyPair != "" {
			r.KeyPairName = in.KeyPair
		} else {
			r.PasswordInherit = requests.NewBoolean(true)
		}
		if in.InternetMaxBandwidthOut > 0 {
			r.InternetChargeType, r.InternetMaxBandwidthOut = in.InternetChargeType, requests.NewInteger(in.InternetMaxBandwidthOut)
		}
		if !in.AutoRelease.IsZero() {
			r.AutoReleaseTime = stamp(in.AutoRelease)
		}
		r.PrivateIpAddress, r.CreditSpecification, r.ResourceGroupId = in.PrivateIP, in.CreditSpecification, in.ResourceGroupID
		r.DeploymentSetId, r.DedicatedHostId = in.DeploymentSetID, in.DedicatedHostID
		r.CpuOptionsCore, r.CpuOptionsThreadsPerCore, r.CpuOptionsTopologyType = number(in.CPUCores), number(in.CPUThreadsPerCore), in.CPUTopology
		r.HttpEndpoint, r.HttpTokens, r.HttpPutResponseHopLimit = in.MetadataEndpoint, in.MetadataTokens, number(in.MetadataHopLimit)
		var data []ecs.RunInstancesDataDisk
		for _, d := range in.Disks {
			iops, burst := "", ""
			if d.ProvisionedIOPS > 0 {
				iops = strconv.Itoa(d.ProvisionedIOPS)
			}
			if d.Bursting {
				burst = "true"
			}
			if d.Type == "system" {
				r.SystemDiskCategory, r.SystemDiskPerformanceLevel = d.Category, d.PerformanceLevel
				r.SystemDiskSize = strconv.Itoa(d.Size)
				r.SystemDisk.ProvisionedIops, r.SystemDisk.BurstingEnabled = iops, burst
				continue
			}
			// The device ties the entry to the image's mapping; without an entry
			// the disk would be of the default category.
			data = append(data, ecs.RunInstancesDataDisk{
				Device: d.Device, Category: d.Category, PerformanceLevel: d.PerformanceLevel, Size: strconv.Itoa(d.Size), DeleteWithInstance: "true",
				ProvisionedIops: iops, BurstingEnabled: burst,
			})
		}
		if len(data) > 0 {
			r.DataDisk = &data
		}
		r.Tag = tags(in.Tags, func(k, v string) ecs.RunInstancesTag { return ecs.RunInstancesTag{Key: k, Value: v} })
	}, (*ecs.Client).RunInstances)
}

// number is a parameter that is left out for 0.
func number(n int) requests.Integer {
	if n == 0 {
		return ""
	}
	return requests.NewInteger(n)
}

// StartInstance starts a stopped instance.
func (c *Client) StartInstance(ctx context.Context, instanceID string) error {
	_, err := callECS(ctx, c, again("StartInstance"), ecs.CreateStartInstanceRequest, func(r *ecs.StartInstanceRequest) {
		r.InstanceId = instanceID
	}, (*ecs.Client).StartInstance)
	return err
}

// StopInstance shuts an instance down, in an orderly way unless force is given,
// and keeps its place and addresses. The mode is sent because the account's
// default may be another.
func (c *Client) StopInstance(ctx context.Context, instanceID string, force bool) error {
	_, err := callECS(ctx, c, again("StopInstance"), ecs.CreateStopInstanceRequest, func(r *ecs.StopInstanceRequest) {
		r.InstanceId, r.StoppedMode, r.ForceStop = instanceID, "KeepCharging", requests.NewBoolean(force)
	}, (*ecs.Client).StopInstance)
	return err
}

// RebootInstance reboots an instance. It is not repeated when the result is
// open: that could be a second reboot.
func (c *Client) RebootInstance(ctx context.Context, instanceID string) error {
	_, err := callECS(ctx, c, once("RebootInstance"), ecs.CreateRebootInstanceRequest, func(r *ecs.RebootInstanceRequest) {
		r.InstanceId, r.ForceStop = instanceID, requests.NewBoolean(false)
	}, (*ecs.Client).RebootInstance)
	return err
}

// DeleteInstance releases a stopped instance.
func (c *Client) DeleteInstance(ctx context.Context, instanceID string) error {
	_, err := callECS(ctx, c, again("DeleteInstance"), ecs.CreateDeleteInstanceRequest, func(r *ecs.DeleteInstanceRequest) {
		r.InstanceId, r.Force = instanceID, requests.NewBoolean(false)
	}, (*ecs.Client).DeleteInstance)
	return err
}

// SetAutoRelease sets or, for the zero time, clears the time of release.
func (c *Client) SetAutoRelease(ctx context.Context, instanceID string, at time.Time) error {
	_, err := callECS(ctx, c, again("ModifyInstanceAutoReleaseTime"), ecs.CreateModifyInstanceAutoReleaseTimeRequest, func(r *ecs.ModifyInstanceAutoReleaseTimeRequest) {
		r.RegionId, r.InstanceId = c.region, instanceID
		if !at.IsZero() {
			r.AutoReleaseTime = stamp(at)
		}
	}, (*ecs.Client).ModifyInstanceAutoReleaseTime)
	return err
}

// NewCommand is the input of RunCommand.
type NewCommand struct {
	InstanceID, Token string
	Script            string
	Timeout           time.Duration
}

// RunCommand begins a shell script on an instance.
func (c *Client) RunCommand(ctx context.Context, in NewCommand) (invokeID string, err error) {
	o := again("RunCommand")
	content := base64.StdEncoding.EncodeToString([]byte(in.Script))
	o.secrets = []string{in.Script, content}
	r, err := callECS(ctx, c, o, ecs.CreateRunCommandRequest, func(r *ecs.RunCommandRequest) {
		r.RegionId, r.ClientToken = c.region, in.Token
		r.Type, r.CommandContent, r.ContentEncoding = "RunShellScript", content, "Base64"
		r.InstanceId = &[]string{in.InstanceID}
		r.Timeout = requests.NewInteger(int(in.Timeout / time.Second))
	}, (*ecs.Client).RunCommand)
	if err != nil {
		return "", err
	}
	return id("RunCommand", r.RequestId, r.InvokeId)
}

// Invocation is the state of a command on one instance.
type Invocation struct {
	Status               string
	ExitCode             int
	Output               []byte
	Dropped              int
	ErrorCode, ErrorInfo string
}

// Invocation reads how far a command is; found is false if the cloud does not
// show it (yet).
func (c *Client) Invocation(ctx context.Context, invokeID, instanceID string) (inv Invocation, found bool, err error) {
	r, err := callECS(ctx, c, read("DescribeInvocationResults"), ecs.CreateDescribeInvocationResultsRequest, func(r *ecs.DescribeInvocationResultsRequest) {
		r.RegionId, r.InvokeId, r.InstanceId = c.region, invokeID, instanceID
	}, (*ecs.Client).DescribeInvocationResults)
	if err != nil {
		return inv, false, err
	}
	for _, res := range r.Invocation.InvocationResults.InvocationResult {
		if res.InstanceId != instanceID {
			continue
		}
		inv = Invocation{Status: res.InvocationStatus, ExitCode: int(res.ExitCode), Dropped: res.Dropped, ErrorCode: res.ErrorCode, ErrorInfo: mask(res.ErrorInfo)}
		if inv.Status == "" {
			inv.Status = res.InvokeRecordStatus
		}
		if inv.Output, err = base64.StdEncoding.DecodeString(res.Output); err != nil {
			return inv, true, &Error{Action: "DescribeInvocationResults", Code: CodeBadAnswer, Message: "the output is not base64", HTTPStatus: 200, RequestID: r.RequestId, Class: Definitive}
		}
		return inv, true, nil
	}
	return inv, false, nil
}

// id refuses an answer that names nothing: an SDK that got an answer of another
// shape gives empty fields and no error.
func id(action, requestID, value string) (string, error) {
	if value == "" {
		return "", &Error{Action: action, Code: CodeBadAnswer, Message: "the answer names no ID", HTTPStatus: 200, RequestID: requestID, Class: Ambiguous}
	}
	return value, nil
}

// batches calls f with at most pageSize IDs at a time; once with none if there
// are none.
func batches(ids []string, f func([]string) error) error {
	if len(ids) == 0 {
		return f(nil)
	}
	for chunk := range slices.Chunk(ids, pageSize) {
		if err := f(chunk); err != nil {
			return err
		}
	}
	return nil
}

// pages calls f with the token of each page.
func pages(f func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := f(token)
		if err != nil || next == "" || next == token {
			return err
		}
		token = next
	}
}

// list is a list parameter in the JSON form of the API; "" for none.
func list(s []string) string {
	if len(s) == 0 {
		return ""
	}
	b, _ := json.Marshal(s) // cannot fail for strings
	return string(b)
}

// tags makes a repeated parameter in a stable order, so that a repeated request
// has the same parameters.
func tags[T any](m map[string]string, f func(k, v string) T) *[]T {
	if len(m) == 0 {
		return nil
	}
	var out []T
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, f(k, m[k]))
	}
	return &out
}

func tagMap(ts []ecs.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range ts {
		k, v := t.TagKey, t.TagValue
		if k == "" {
			k, v = t.Key, t.Value
		}
		m[k] = v
	}
	return m
}

// add appends what is not empty and not there yet.
func add(to []string, more ...string) []string {
	for _, s := range more {
		if s != "" && !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// percent reads "37%"; 0 if it is not one.
func percent(s string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(s, "%"))
	return min(max(n, 0), 100)
}

// when reads a time of the API, which has minutes or seconds; zero if it is none.
func when(s string) time.Time {
	for _, layout := range []string{"2006-01-02T15:04Z", time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// stamp writes a time for the API. It counts minutes only.
func stamp(t time.Time) string { return t.UTC().Truncate(time.Minute).Format("2006-01-02T15:04:05Z") }
