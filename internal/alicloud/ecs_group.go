package alicloud

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
)

// A SnapshotGroup has the fields of the type of this name in package ecs.
type SnapshotGroup struct {
	ID, Name, InstanceID string
	Status               string
	Snapshots            []Snapshot
	CreationTime         time.Time
	Tags                 map[string]string
}

// NewSnapshotGroup is the input of CreateSnapshotGroup.
type NewSnapshotGroup struct {
	InstanceID, Token, Name, Description string
	DiskIDs                              []string
	Tags                                 map[string]string
}

// CreateSnapshotGroup begins snapshots of several disks of one instance, of one
// and the same moment.
func (c *Client) CreateSnapshotGroup(ctx context.Context, in NewSnapshotGroup) (string, error) {
	r, err := callECS(ctx, c, again("CreateSnapshotGroup"), ecs.CreateCreateSnapshotGroupRequest, func(r *ecs.CreateSnapshotGroupRequest) {
		r.RegionId = c.region
		r.InstanceId, r.ClientToken, r.Name, r.Description = in.InstanceID, in.Token, in.Name, in.Description
		r.DiskId = &in.DiskIDs
		r.Tag = tags(in.Tags, func(k, v string) ecs.CreateSnapshotGroupTag { return ecs.CreateSnapshotGroupTag{Key: k, Value: v} })
	}, (*ecs.Client).CreateSnapshotGroup)
	if err != nil {
		return "", err
	}
	return id("CreateSnapshotGroup", r.RequestId, r.SnapshotGroupId)
}

// SnapshotGroupQuery selects snapshot groups; set fields must all match.
type SnapshotGroupQuery struct {
	IDs        []string
	InstanceID string
	Tags       map[string]string
}

// SnapshotGroups lists snapshot groups.
func (c *Client) SnapshotGroups(ctx context.Context, q SnapshotGroupQuery) ([]SnapshotGroup, error) {
	var all []SnapshotGroup
	// The action takes ten IDs at a time.
	chunks := slices.Collect(slices.Chunk(q.IDs, 10))
	if len(chunks) == 0 {
		chunks = [][]string{nil}
	}
	for _, ids := range chunks {
		err := pages(func(token string) (string, error) {
			r, err := callECS(ctx, c, read("DescribeSnapshotGroups"), ecs.CreateDescribeSnapshotGroupsRequest, func(r *ecs.DescribeSnapshotGroupsRequest) {
				r.RegionId = c.region
				r.MaxResults, r.NextToken = requests.NewInteger(pageSize), token
				r.InstanceId = q.InstanceID
				if len(ids) > 0 {
					r.SnapshotGroupId = &ids
				}
				r.Tag = tags(q.Tags, func(k, v string) ecs.DescribeSnapshotGroupsTag {
					return ecs.DescribeSnapshotGroupsTag{Key: k, Value: v}
				})
			}, (*ecs.Client).DescribeSnapshotGroups)
			if err != nil {
				return "", err
			}
			for _, g := range r.SnapshotGroups.SnapshotGroup {
				out := SnapshotGroup{ID: g.SnapshotGroupId, Name: g.Name, InstanceID: g.InstanceId, Status: g.Status, CreationTime: when(g.CreationTime), Tags: tagMap(g.Tags.Tag)}
				for _, s := range g.Snapshots.Snapshot {
					out.Snapshots = append(out.Snapshots, snapshot(s))
				}
				all = append(all, out)
			}
			return r.NextToken, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// DeleteSnapshotGroup deletes a group and the snapshots in it.
func (c *Client) DeleteSnapshotGroup(ctx context.Context, groupID string) error {
	_, err := callECS(ctx, c, again("DeleteSnapshotGroup"), ecs.CreateDeleteSnapshotGroupRequest, func(r *ecs.DeleteSnapshotGroupRequest) {
		r.RegionId, r.SnapshotGroupId = c.region, groupID
	}, (*ecs.Client).DeleteSnapshotGroup)
	return err
}

// SetRetention makes the cloud delete a snapshot so many days after it was made.
func (c *Client) SetRetention(ctx context.Context, snapshotID string, days int) error {
	_, err := callECS(ctx, c, again("ModifySnapshotAttribute"), ecs.CreateModifySnapshotAttributeRequest, func(r *ecs.ModifySnapshotAttributeRequest) {
		r.SnapshotId, r.RetentionDays = snapshotID, requests.NewInteger(days)
	}, (*ecs.Client).ModifySnapshotAttribute)
	return err
}

// Tag puts tags on things of one kind ("instance", "disk", "snapshot", "image",
// "snapshotgroup"); others they have stay.
func (c *Client) Tag(ctx context.Context, kind string, ids []string, m map[string]string) error {
	for chunk := range slices.Chunk(ids, 50) {
		_, err := callECS(ctx, c, again("TagResources"), ecs.CreateTagResourcesRequest, func(r *ecs.TagResourcesRequest) {
			r.RegionId, r.ResourceType, r.ResourceId = c.region, kind, &chunk
			r.Tag = tags(m, func(k, v string) ecs.TagResourcesTag { return ecs.TagResourcesTag{Key: k, Value: v} })
		}, (*ecs.Client).TagResources)
		if err != nil {
			return err
		}
	}
	return nil
}

// Price is what one hour costs.
type Price struct {
	Hourly, List float64
	Currency     string
}

// Price asks what an instance like in would cost, with at most four data disks.
func (c *Client) Price(ctx context.Context, in NewInstance) (Price, error) {
	r, err := callECS(ctx, c, read("DescribePrice"), ecs.CreateDescribePriceRequest, func(r *ecs.DescribePriceRequest) {
		r.RegionId, r.ZoneId = c.region, in.Zone
		r.ResourceType, r.InstanceType, r.PriceUnit, r.InstanceNetworkType = "instance", in.Type, "Hour", "vpc"
		r.Amount, r.Period = requests.NewInteger(1), requests.NewInteger(1)
		r.ImageId = in.ImageID
		if in.InternetMaxBandwidthOut > 0 {
			r.InternetChargeType, r.InternetMaxBandwidthOut = in.InternetChargeType, requests.NewInteger(in.InternetMaxBandwidthOut)
		}
		var data []ecs.DescribePriceDataDisk
		for _, d := range in.Disks {
			if d.Type == "system" {
				r.SystemDiskCategory, r.SystemDiskPerformanceLevel, r.SystemDiskSize = d.Category, d.PerformanceLevel, requests.NewInteger(d.Size)
				continue
			}
			data = append(data, ecs.DescribePriceDataDisk{Category: d.Category, PerformanceLevel: d.PerformanceLevel, Size: string(requests.NewInteger(d.Size))})
		}
		if len(data) > 0 {
			r.DataDisk = &data
		}
	}, (*ecs.Client).DescribePrice)
	if err != nil {
		return Price{}, err
	}
	p := r.PriceInfo.Price
	if _, err := id("DescribePrice", r.RequestId, p.Currency); err != nil {
		return Price{}, err
	}
	return Price{Hourly: p.TradePrice, List: p.OriginalPrice, Currency: p.Currency}, nil
}

// Stock tells how many of an instance type a zone has left, in the cloud's
// words: WithStock, ClosedWithStock (few), WithoutStock, ClosedWithoutStock; ""
// if the zone does not know the type.
func (c *Client) Stock(ctx context.Context, instanceType, zone string) (string, error) {
	r, err := callECS(ctx, c, read("DescribeAvailableResource"), ecs.CreateDescribeAvailableResourceRequest, func(r *ecs.DescribeAvailableResourceRequest) {
		r.RegionId, r.ZoneId = c.region, zone
		r.DestinationResource, r.ResourceType, r.InstanceType = "InstanceType", "instance", instanceType
		r.IoOptimized, r.InstanceChargeType = "optimized", "PostPaid"
	}, (*ecs.Client).DescribeAvailableResource)
	if err != nil {
		return "", err
	}
	for _, z := range r.AvailableZones.AvailableZone {
		if z.ZoneId != zone {
			continue
		}
		for _, a := range z.AvailableResources.AvailableResource {
			for _, s := range a.SupportedResources.SupportedResource {
				if s.Value != instanceType {
					continue
				}
				if s.StatusCategory == "" && strings.EqualFold(s.Status, "Available") {
					return "WithStock", nil
				}
				return s.StatusCategory, nil
			}
		}
	}
	return "", nil
}
