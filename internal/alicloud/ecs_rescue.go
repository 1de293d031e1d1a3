package alicloud

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
)

// UserData reads the data that an instance was given for its first boot; nil if
// there is none.
func (c *Client) UserData(ctx context.Context, instanceID string) ([]byte, error) {
	r, err := callECS(ctx, c, read("DescribeUserData"), ecs.CreateDescribeUserDataRequest, func(r *ecs.DescribeUserDataRequest) {
		r.RegionId, r.InstanceId = c.region, instanceID
	}, (*ecs.Client).DescribeUserData)
	if err != nil {
		return nil, err
	}
	return decode64("DescribeUserData", r.RequestId, r.UserData)
}

// ConsoleOutput reads what an instance wrote to its serial console, and when
// that was collected.
func (c *Client) ConsoleOutput(ctx context.Context, instanceID string) ([]byte, time.Time, error) {
	r, err := callECS(ctx, c, read("GetInstanceConsoleOutput"), ecs.CreateGetInstanceConsoleOutputRequest, func(r *ecs.GetInstanceConsoleOutputRequest) {
		r.RegionId, r.InstanceId, r.RemoveSymbols = c.region, instanceID, requests.NewBoolean(true)
	}, (*ecs.Client).GetInstanceConsoleOutput)
	if err != nil {
		return nil, time.Time{}, err
	}
	out, err := decode64("GetInstanceConsoleOutput", r.RequestId, r.ConsoleOutput)
	return out, when(r.LastUpdateTime), err
}

// Screenshot takes a picture (JPEG) of an instance's screen.
func (c *Client) Screenshot(ctx context.Context, instanceID string) ([]byte, error) {
	r, err := callECS(ctx, c, read("GetInstanceScreenshot"), ecs.CreateGetInstanceScreenshotRequest, func(r *ecs.GetInstanceScreenshotRequest) {
		r.RegionId, r.InstanceId, r.WakeUp = c.region, instanceID, requests.NewBoolean(true)
	}, (*ecs.Client).GetInstanceScreenshot)
	if err != nil {
		return nil, err
	}
	return decode64("GetInstanceScreenshot", r.RequestId, r.Screenshot)
}

func decode64(action, requestID, s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, &Error{Action: action, Code: CodeBadAnswer, Message: "the data is not base64", HTTPStatus: 200, RequestID: requestID, Class: Definitive}
	}
	return b, nil
}

// Agent is the state of an instance's Cloud Assistant agent.
type Agent struct {
	Running   bool // it was heard of in the last two minutes
	Heartbeat time.Time
	Version   string
}

// Agent reads the state of an instance's agent; the zero value if the cloud
// never heard of one.
func (c *Client) Agent(ctx context.Context, instanceID string) (Agent, error) {
	r, err := callECS(ctx, c, read("DescribeCloudAssistantStatus"), ecs.CreateDescribeCloudAssistantStatusRequest, func(r *ecs.DescribeCloudAssistantStatusRequest) {
		r.RegionId, r.InstanceId = c.region, &[]string{instanceID}
	}, (*ecs.Client).DescribeCloudAssistantStatus)
	if err != nil {
		return Agent{}, err
	}
	for _, s := range r.InstanceCloudAssistantStatusSet.InstanceCloudAssistantStatus {
		if s.InstanceId == instanceID {
			return Agent{Running: s.CloudAssistantStatus == "true", Heartbeat: when(s.LastHeartbeatTime), Version: s.CloudAssistantVersion}, nil
		}
	}
	return Agent{}, nil
}

// JoinSecurityGroup adds an instance to a security group. One that is in it
// already is no error.
func (c *Client) JoinSecurityGroup(ctx context.Context, instanceID, group string) error {
	_, err := callECS(ctx, c, again("JoinSecurityGroup"), ecs.CreateJoinSecurityGroupRequest, func(r *ecs.JoinSecurityGroupRequest) {
		r.RegionId, r.InstanceId, r.SecurityGroupId = c.region, instanceID, group
	}, (*ecs.Client).JoinSecurityGroup)
	return unless(err, "InvalidInstanceId.AlreadyExists")
}

// LeaveSecurityGroup takes an instance out of a security group. One that is not
// in it is no error.
func (c *Client) LeaveSecurityGroup(ctx context.Context, instanceID, group string) error {
	_, err := callECS(ctx, c, again("LeaveSecurityGroup"), ecs.CreateLeaveSecurityGroupRequest, func(r *ecs.LeaveSecurityGroupRequest) {
		r.RegionId, r.InstanceId, r.SecurityGroupId = c.region, instanceID, group
	}, (*ecs.Client).LeaveSecurityGroup)
	return unless(err, "InstanceNotInSecurityGroup")
}

// unless drops an error that says that a repeated call found its work done.
func unless(err error, code string) error {
	if e, ok := err.(*Error); ok && e.Code == code {
		return nil
	}
	return err
}

// ResetDisk sets a disk of a stopped instance back to one of its snapshots.
func (c *Client) ResetDisk(ctx context.Context, diskID, snapshotID string) error {
	_, err := callECS(ctx, c, again("ResetDisk"), ecs.CreateResetDiskRequest, func(r *ecs.ResetDiskRequest) {
		r.DiskId, r.SnapshotId = diskID, snapshotID
	}, (*ecs.Client).ResetDisk)
	return err
}

// NewSystemDisk is the input of ReplaceSystemDisk.
type NewSystemDisk struct {
	InstanceID, ImageID, Token, KeyPair string
	Size                                int
}

// ReplaceSystemDisk gives a stopped instance a new system disk made of an image.
// The old one is released.
func (c *Client) ReplaceSystemDisk(ctx context.Context, in NewSystemDisk) (diskID string, err error) {
	r, err := callECS(ctx, c, again("ReplaceSystemDisk"), ecs.CreateReplaceSystemDiskRequest, func(r *ecs.ReplaceSystemDiskRequest) {
		r.InstanceId, r.ImageId, r.ClientToken, r.SystemDiskSize = in.InstanceID, in.ImageID, in.Token, number(in.Size)
		if in.KeyPair != "" {
			r.KeyPairName = in.KeyPair
		} else {
			r.PasswordInherit = requests.NewBoolean(true)
		}
	}, (*ecs.Client).ReplaceSystemDisk)
	if err != nil {
		return "", err
	}
	return id("ReplaceSystemDisk", r.RequestId, r.DiskId)
}
