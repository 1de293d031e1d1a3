package alicloud

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
)

// SystemEvent is something that the cloud will do to an instance.
type SystemEvent struct {
	ID        string
	Type      string // as "SystemMaintenance.Reboot"
	Status    string // "Scheduled", "Inquiring" or "Executing"
	Reason    string
	NotBefore time.Time // the earliest moment; zero: not said
}

// SystemEvents lists the events of an instance that are not over. Unless they
// are asked for by their states, the cloud lists those that are.
func (c *Client) SystemEvents(ctx context.Context, instanceID string) ([]SystemEvent, error) {
	var all []SystemEvent
	err := numbered(100, func(number, size string) (int, int, error) {
		r, err := callECS(ctx, c, read("DescribeInstanceHistoryEvents"), ecs.CreateDescribeInstanceHistoryEventsRequest, func(r *ecs.DescribeInstanceHistoryEventsRequest) {
			r.RegionId, r.InstanceId = c.region, instanceID
			r.InstanceEventCycleStatus = &[]string{"Scheduled", "Inquiring", "Executing"}
			r.PageNumber, r.PageSize = requests.Integer(number), requests.Integer(size)
		}, (*ecs.Client).DescribeInstanceHistoryEvents)
		if err != nil {
			return 0, 0, err
		}
		got := r.InstanceSystemEventSet.InstanceSystemEventType
		for _, e := range got {
			all = append(all, SystemEvent{ID: e.EventId, Type: e.EventType.Name, Status: e.EventCycleStatus.Name, Reason: e.Reason, NotBefore: when(e.NotBefore)})
		}
		return len(got), r.TotalCount, nil
	})
	return all, err
}

// VCPUQuota tells how many vCPUs instances paid by use may have together, and
// have; known is false when the cloud does not say both.
func (c *Client) VCPUQuota(ctx context.Context, zone string) (most, used int, known bool, err error) {
	r, err := callECS(ctx, c, read("DescribeAccountAttributes"), ecs.CreateDescribeAccountAttributesRequest, func(r *ecs.DescribeAccountAttributesRequest) {
		r.RegionId, r.ZoneId = c.region, zone
		r.AttributeName = &[]string{"max-postpaid-instance-vcpu-count", "used-postpaid-instance-vcpu-count"}
	}, (*ecs.Client).DescribeAccountAttributes)
	if err != nil {
		return 0, 0, false, err
	}
	said := map[string]int{}
	for _, a := range r.AccountAttributeItems.AccountAttributeItem {
		for _, v := range a.AttributeValues.ValueItem {
			if n, err := strconv.Atoi(v.Value); err == nil {
				said[a.AttributeName] = n
			}
		}
	}
	most, ok := said["max-postpaid-instance-vcpu-count"]
	used, ok2 := said["used-postpaid-instance-vcpu-count"]
	return most, used, ok && ok2, nil
}

// GroupRoom is how many instances a security group has, and takes besides. Both
// are 0 when the cloud does not say.
type GroupRoom struct {
	ID       string
	Members  int
	RoomLeft int
}

// GroupRooms reads them of some security groups.
func (c *Client) GroupRooms(ctx context.Context, groups []string) ([]GroupRoom, error) {
	list, err := json.Marshal(groups)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	var all []GroupRoom
	err = numbered(50, func(number, size string) (int, int, error) {
		r, err := callECS(ctx, c, read("DescribeSecurityGroups"), ecs.CreateDescribeSecurityGroupsRequest, func(r *ecs.DescribeSecurityGroupsRequest) {
			r.RegionId, r.SecurityGroupIds, r.IsQueryEcsCount = c.region, string(list), requests.NewBoolean(true)
			r.PageNumber, r.PageSize = requests.Integer(number), requests.Integer(size)
		}, (*ecs.Client).DescribeSecurityGroups)
		if err != nil {
			return 0, 0, err
		}
		got := r.SecurityGroups.SecurityGroup
		for _, g := range got {
			all = append(all, GroupRoom{g.SecurityGroupId, g.EcsCount, g.AvailableInstanceAmount})
		}
		return len(got), r.TotalCount, nil
	})
	return all, err
}

// VSwitch is a subnet.
type VSwitch struct {
	ID, CIDR string
	Free     int // addresses that can still be given
}

// VSwitch reads one; found is false when there is none of that ID.
func (c *Client) VSwitch(ctx context.Context, id string) (v VSwitch, found bool, err error) {
	var r struct {
		VSwitches struct {
			VSwitch []struct {
				VSwitchID, CidrBlock    string
				AvailableIpAddressCount int
			}
		}
	}
	if err := c.rpc(ctx, "vpc", vpcVersion, read("DescribeVSwitches"), map[string]string{"VSwitchId": id}, &r); err != nil {
		return VSwitch{}, false, err
	}
	for _, s := range r.VSwitches.VSwitch {
		if s.VSwitchID == id {
			return VSwitch{ID: s.VSwitchID, CIDR: s.CidrBlock, Free: s.AvailableIpAddressCount}, true, nil
		}
	}
	return VSwitch{}, false, nil
}
