package alicloud

import (
	"context"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
)

// AllowList is one list of addresses that a database (or the like) lets in.
type AllowList struct {
	Product          string // "rds", "redis", "mongodb", "polardb"
	ID, Name         string // of the instance
	Group            string // of the list
	Entries          string // addresses and CIDR blocks, separated by commas
	VPC              string
	SecurityGroupIDs []string // let in as a whole
}

// A database is an instance whose lists are to be read.
type database struct{ id, name, vpc string }

// RDSAllowLists lists the allow lists of every RDS instance of the region.
func (c *Client) RDSAllowLists(ctx context.Context) ([]AllowList, error) {
	const version = "2014-08-15"
	var dbs []database
	err := numbered(100, func(number, size string) (int, int, error) {
		var r struct {
			TotalRecordCount int
			Items            struct {
				DBInstance []struct{ DBInstanceID, DBInstanceDescription, VpcID string }
			}
		}
		err := c.rpc(ctx, "rds", version, read("DescribeDBInstances"), map[string]string{"PageNumber": number, "PageSize": size}, &r)
		for _, x := range r.Items.DBInstance {
			dbs = append(dbs, database{x.DBInstanceID, x.DBInstanceDescription, x.VpcID})
		}
		return len(r.Items.DBInstance), r.TotalRecordCount, err
	})
	if err != nil {
		return nil, err
	}
	var all []AllowList
	for _, db := range dbs {
		var r struct {
			Items struct {
				DBInstanceIPArray []struct{ DBInstanceIPArrayName, SecurityIPList string }
			}
		}
		if err := c.rpc(ctx, "rds", version, read("DescribeDBInstanceIPArrayList"), map[string]string{"DBInstanceId": db.id}, &r); err != nil {
			return nil, err
		}
		for _, l := range r.Items.DBInstanceIPArray {
			all = append(all, AllowList{Product: "rds", ID: db.id, Name: db.name, VPC: db.vpc, Group: l.DBInstanceIPArrayName, Entries: l.SecurityIPList})
		}
	}
	return all, nil
}

// RedisAllowLists lists the allow lists of every Redis (Tair) instance.
func (c *Client) RedisAllowLists(ctx context.Context) ([]AllowList, error) {
	const version = "2015-01-01"
	var dbs []database
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalCount int
			Instances  struct {
				KVStoreInstance []struct{ InstanceID, InstanceName, VpcID string }
			}
		}
		err := c.rpc(ctx, "r-kvstore", version, read("DescribeInstances"), map[string]string{"PageNumber": number, "PageSize": size}, &r)
		for _, x := range r.Instances.KVStoreInstance {
			dbs = append(dbs, database{x.InstanceID, x.InstanceName, x.VpcID})
		}
		return len(r.Instances.KVStoreInstance), r.TotalCount, err
	})
	if err != nil {
		return nil, err
	}
	return c.securityIPs(ctx, "r-kvstore", version, "redis", "InstanceId", dbs)
}

// MongoDBAllowLists lists the allow lists of every MongoDB instance. The service
// lists one kind of instance at a time.
func (c *Client) MongoDBAllowLists(ctx context.Context) ([]AllowList, error) {
	const version = "2015-12-01"
	var dbs []database
	for _, kind := range []string{"replicate", "sharding"} {
		err := numbered(50, func(number, size string) (int, int, error) {
			var r struct {
				TotalCount  int
				DBInstances struct {
					DBInstance []struct {
						DBInstanceID, DBInstanceDescription string
						VpcID                               string `json:"VPCId"`
					}
				}
			}
			err := c.rpc(ctx, "dds", version, read("DescribeDBInstances"), map[string]string{"DBInstanceType": kind, "PageNumber": number, "PageSize": size}, &r)
			for _, x := range r.DBInstances.DBInstance {
				dbs = append(dbs, database{x.DBInstanceID, x.DBInstanceDescription, x.VpcID})
			}
			return len(r.DBInstances.DBInstance), r.TotalCount, err
		})
		if err != nil {
			return nil, err
		}
	}
	return c.securityIPs(ctx, "dds", version, "mongodb", "DBInstanceId", dbs)
}

// securityIPs reads the lists of products whose action is DescribeSecurityIps.
func (c *Client) securityIPs(ctx context.Context, product, version, name, idParam string, dbs []database) ([]AllowList, error) {
	var all []AllowList
	for _, db := range dbs {
		var r struct {
			SecurityIpGroups struct {
				SecurityIpGroup []struct{ SecurityIpGroupName, SecurityIpList string }
			}
		}
		if err := c.rpc(ctx, product, version, read("DescribeSecurityIps"), map[string]string{idParam: db.id}, &r); err != nil {
			return nil, err
		}
		for _, l := range r.SecurityIpGroups.SecurityIpGroup {
			all = append(all, AllowList{Product: name, ID: db.id, Name: db.name, VPC: db.vpc, Group: l.SecurityIpGroupName, Entries: l.SecurityIpList})
		}
	}
	return all, nil
}

// PolarDBAllowLists lists the allow lists of every PolarDB cluster. A cluster
// may let in whole security groups as well; they come as a list of their own.
func (c *Client) PolarDBAllowLists(ctx context.Context) ([]AllowList, error) {
	const version = "2017-08-01"
	var dbs []database
	err := numbered(50, func(number, size string) (int, int, error) {
		var r struct {
			TotalRecordCount int
			Items            struct {
				DBCluster []struct{ DBClusterID, DBClusterDescription, VpcID string }
			}
		}
		err := c.rpc(ctx, "polardb", version, read("DescribeDBClusters"), map[string]string{"PageNumber": number, "PageSize": size}, &r)
		for _, x := range r.Items.DBCluster {
			dbs = append(dbs, database{x.DBClusterID, x.DBClusterDescription, x.VpcID})
		}
		return len(r.Items.DBCluster), r.TotalRecordCount, err
	})
	if err != nil {
		return nil, err
	}
	var all []AllowList
	for _, db := range dbs {
		var r struct {
			Items struct {
				DBClusterIPArray []struct{ DBClusterIPArrayName, SecurityIps string }
			}
			DBClusterSecurityGroups struct {
				DBClusterSecurityGroup []struct{ SecurityGroupID string }
			}
		}
		if err := c.rpc(ctx, "polardb", version, read("DescribeDBClusterAccessWhitelist"), map[string]string{"DBClusterId": db.id}, &r); err != nil {
			return nil, err
		}
		for _, l := range r.Items.DBClusterIPArray {
			all = append(all, AllowList{Product: "polardb", ID: db.id, Name: db.name, VPC: db.vpc, Group: l.DBClusterIPArrayName, Entries: l.SecurityIps})
		}
		for _, g := range r.DBClusterSecurityGroups.DBClusterSecurityGroup {
			all = append(all, AllowList{Product: "polardb", ID: db.id, Name: db.name, VPC: db.vpc, SecurityGroupIDs: []string{g.SecurityGroupID}})
		}
	}
	return all, nil
}

// SecurityGroupRule is one rule that lets an address range in.
type SecurityGroupRule struct{ GroupID, GroupName, RuleID, Source, Protocol, Ports string }

// SecurityGroupRules lists the rules of all security groups of a VPC that let
// IPv4 addresses in. Rules that name other groups are left out: a clone is in
// the groups of its source.
func (c *Client) SecurityGroupRules(ctx context.Context, vpc string) ([]SecurityGroupRule, error) {
	type group struct{ id, name string }
	var groups []group
	err := numbered(50, func(number, size string) (int, int, error) {
		r, err := callECS(ctx, c, read("DescribeSecurityGroups"), ecs.CreateDescribeSecurityGroupsRequest, func(r *ecs.DescribeSecurityGroupsRequest) {
			r.RegionId, r.VpcId = c.region, vpc
			r.PageNumber, r.PageSize = requests.Integer(number), requests.Integer(size)
		}, (*ecs.Client).DescribeSecurityGroups)
		if err != nil {
			return 0, 0, err
		}
		for _, g := range r.SecurityGroups.SecurityGroup {
			groups = append(groups, group{g.SecurityGroupId, g.SecurityGroupName})
		}
		return len(r.SecurityGroups.SecurityGroup), r.TotalCount, nil
	})
	if err != nil {
		return nil, err
	}
	var all []SecurityGroupRule
	for _, g := range groups {
		r, err := callECS(ctx, c, read("DescribeSecurityGroupAttribute"), ecs.CreateDescribeSecurityGroupAttributeRequest, func(r *ecs.DescribeSecurityGroupAttributeRequest) {
			r.RegionId, r.SecurityGroupId, r.Direction = c.region, g.id, "ingress"
		}, (*ecs.Client).DescribeSecurityGroupAttribute)
		if err != nil {
			return nil, err
		}
		for _, p := range r.Permissions.Permission {
			if p.SourceCidrIp != "" && (p.Policy == "" || p.Policy == "Accept") && (p.Direction == "" || p.Direction == "ingress") {
				all = append(all, SecurityGroupRule{GroupID: g.id, GroupName: g.name, RuleID: p.SecurityGroupRuleId, Source: p.SourceCidrIp, Protocol: p.IpProtocol, Ports: p.PortRange})
			}
		}
	}
	return all, nil
}
