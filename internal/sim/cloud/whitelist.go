package cloud

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

const (
	rdsVersion   = "2014-08-15"
	redisVersion = "2015-01-01"
	mongoVersion = "2015-12-01"
	polarVersion = "2017-08-01"
)

func rdsActions() []action {
	return []action{
		{name: "DescribeDBInstances", do: (*Cloud).describeRDS,
			served: `
				DBInstanceId PageNumber:int PageSize:int RegionId! VpcId`,
			other: `
				Category ClientToken ConnectionMode ConnectionString DBInstanceClass DBInstanceStatus
				DBInstanceType DedicatedHostGroupId DedicatedHostId Engine EngineVersion Expired Filter
				InstanceLevel InstanceNetworkType MaxResults NextToken PayType QueryAutoRenewal ResourceGroupId
				SearchKey Tags VSwitchId ZoneId`,
		},
		{name: "DescribeDBInstanceIPArrayList", do: (*Cloud).describeRDSAllowLists,
			served: `
				DBInstanceId!`,
			other: `
				WhitelistNetworkType`,
		},
		{name: "ModifySecurityIps", do: (*Cloud).modifyRDSAllowList,
			served: `
				DBInstanceIPArrayName DBInstanceId! ModifyMode SecurityIps!`,
			other: `
				DBInstanceIPArrayAttribute FreshWhiteListReadins SecurityIPType WhitelistNetworkType`,
		},
	}
}

func redisActions() []action {
	return []action{
		{name: "DescribeInstances", do: (*Cloud).describeRedis,
			served: `
				InstanceIds PageNumber:int PageSize:int VpcId`,
			other: `
				ArchitectureType ChargeType EditionType EngineVersion Expired GlobalInstance InstanceClass
				InstanceStatus InstanceType NetworkType NodeType PrivateIp ResourceGroupId SearchKey Tag.#.Key
				Tag.#.Value VSwitchId ZoneId`,
		},
		{name: "DescribeSecurityIps", do: (*Cloud).describeRedisAllowLists,
			served: `
				InstanceId!`,
		},
		{name: "ModifySecurityIps", do: (*Cloud).modifyRedisAllowList,
			served: `
				InstanceId! ModifyMode SecurityIpGroupName SecurityIps!`,
			other: `
				SecurityIpGroupAttribute`,
		},
	}
}

func mongoActions() []action {
	return []action{
		{name: "DescribeDBInstances", do: (*Cloud).describeMongo,
			served: `
				DBInstanceId DBInstanceType PageNumber:int PageSize:int VpcId`,
			other: `
				ChargeType ConnectionDomain DBInstanceClass DBInstanceDescription DBInstanceStatus DBNodeType
				Engine EngineVersion ExpireTime Expired NetworkType ReplicationFactor ResourceGroupId Tag.#.Key
				Tag.#.Value VSwitchId ZoneId`,
		},
		{name: "DescribeSecurityIps", do: (*Cloud).describeMongoAllowLists,
			served: `
				DBInstanceId!`,
			other: `
				ShowHDMIps`,
		},
		{name: "ModifySecurityIps", do: (*Cloud).modifyMongoAllowList,
			served: `
				DBInstanceId! ModifyMode SecurityIpGroupName SecurityIps!`,
			other: `
				SecurityIpGroupAttribute`,
		},
	}
}

func polarActions() []action {
	return []action{
		{name: "DescribeDBClusters", do: (*Cloud).describePolar,
			served: `
				DBClusterIds PageNumber:int PageSize:int RegionId!`,
			other: `
				ConnectionString DBClusterDescription DBClusterStatus DBNodeIds DBType DBVersion DescribeType
				Expired PayType RecentCreationInterval RecentExpirationInterval ResourceGroupId Tag.#.Key
				Tag.#.Value`,
		},
		{name: "DescribeDBClusterAccessWhitelist", do: (*Cloud).describePolarAllowLists,
			served: `
				DBClusterId!`,
		},
		{name: "ModifyDBClusterAccessWhitelist", do: (*Cloud).modifyPolarAllowList,
			served: `
				DBClusterIPArrayName DBClusterId! ModifyMode SecurityIps`,
			other: `
				DBClusterIPArrayAttribute SecurityGroupIds WhiteListType`,
		},
	}
}

// A Database is an instance of a database product with its allow lists.
type Database struct {
	Product string // rds, r-kvstore, dds or polardb
	ID      string
	Name    string
	VPC     string
	Type    string // of dds: replicate (default) or sharding
	// AllowLists holds the addresses and CIDR blocks that may connect, by the
	// name of the list; without any list "default" holds 127.0.0.1.
	AllowLists     map[string][]string
	SecurityGroups []string // of polardb: let in as a whole
}

type database struct {
	Database
	seq int64
}

func (d *database) number() int64 { return d.seq }

// AddDatabase adds an instance.
func (c *Cloud) AddDatabase(d Database) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.VPC = cmp.Or(d.VPC, "vpc-sim")
	if d.Product == "dds" {
		d.Type = cmp.Or(d.Type, "replicate")
	}
	lists := map[string][]string{}
	for name, l := range d.AllowLists {
		lists[name] = slices.Clone(l)
	}
	if len(lists) == 0 {
		lists["default"] = []string{"127.0.0.1"}
	}
	d.AllowLists = lists
	put(&c.databases, d.Product+" "+d.ID, &database{d, c.next()})
}

// AllowList returns what is in an allow list of a database now.
func (c *Cloud) AllowList(product, id, name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.databases[product+" "+id]; d != nil {
		return slices.Clone(d.AllowLists[name])
	}
	return nil
}

// databasesOf lists the instances of a product. c.mu is held.
func (c *Cloud) databasesOf(product string, keep func(*database) bool) []*database {
	return slices.DeleteFunc(sorted(c.databases), func(d *database) bool { return d.Product != product || !keep(d) })
}

func (c *Cloud) database(product, id string) (*database, *apiError) {
	if d := c.databases[product+" "+id]; d != nil {
		return d, nil
	}
	code := map[string]string{"rds": "InvalidDBInstanceId.NotFound", "r-kvstore": "InvalidInstanceId.NotFound", "dds": "InvalidDBInstanceId.NotFound", "polardb": "InvalidDBClusterId.NotFound"}[product]
	return nil, fail(404, code, "The specified instance %q does not exist.", id)
}

// lists is the allow lists of an instance, each as view shows it.
func (d *database) lists(view func(name, entries string) obj) []obj {
	all := []obj{}
	for _, name := range slices.Sorted(maps.Keys(d.AllowLists)) {
		all = append(all, view(name, strings.Join(d.AllowLists[name], ",")))
	}
	return all
}

// modify changes one allow list: ModifyMode Cover (the default), Append or
// Delete. A list that ends up empty holds 127.0.0.1, which lets nobody in.
func (c *Cloud) modify(q *call, product, idParam, listParam, entries string) (obj, *apiError) {
	mode := cmp.Or(q.str("ModifyMode"), "Cover")
	if !slices.Contains([]string{"Cover", "Append", "Delete", "0", "1", "2"}, mode) {
		return nil, refuse(400, "InvalidModifyMode", "ModifyMode is Cover, Append or Delete, not %q.", mode)
	}
	var want []string
	for e := range strings.SplitSeq(entries, ",") {
		if e = strings.TrimSpace(e); e == "" {
			continue
		}
		if _, err := netip.ParseAddr(e); err != nil {
			if _, err := netip.ParsePrefix(e); err != nil {
				return nil, fail(400, "InvalidSecurityIPList.Format", "The IP list entry %q is malformed.", e)
			}
		}
		want = append(want, e)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.database(product, q.str(idParam))
	if err != nil {
		return nil, err
	}
	name := cmp.Or(q.str(listParam), "default")
	now := slices.Clone(d.AllowLists[name])
	switch mode {
	case "Cover", "0":
		now = want
	case "Append", "1":
		for _, e := range want {
			if slices.Contains(now, e) {
				return nil, fail(400, "InvalidSecurityIPList.Duplicate", "The IP %q is in the list already.", e)
			}
			now = append(now, e)
		}
	default:
		now = slices.DeleteFunc(now, func(e string) bool { return slices.Contains(want, e) })
	}
	if len(now) > 1000 {
		return nil, fail(400, "InvalidSecurityIPList.QuotaExceeded", "The list holds more than 1000 entries.")
	}
	if len(now) == 0 {
		now = []string{"127.0.0.1"}
	}
	d.AllowLists[name] = now
	return obj{}, nil
}

// records renames the paging members to what RDS and PolarDB call them.
func records(reply obj, err *apiError, list, item string) (obj, *apiError) {
	if err != nil {
		return nil, err
	}
	reply["TotalRecordCount"] = reply["TotalCount"]
	reply["PageRecordCount"] = len(reply[list].(obj)[item].([]obj))
	delete(reply, "TotalCount")
	delete(reply, "PageSize")
	return reply, nil
}

func (c *Cloud) describeRDS(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.databasesOf("rds", func(d *database) bool {
		return oneOf(d.ID, q.str("DBInstanceId")) && oneOf(d.VPC, q.str("VpcId"))
	})
	reply, err := page(q, found, 30, 100, "Items", "DBInstance", func(d *database) obj {
		return obj{"DBInstanceId": d.ID, "DBInstanceDescription": d.Name, "VpcId": d.VPC, "RegionId": c.cfg.Region, "DBInstanceStatus": "Running", "Engine": "MySQL", "InstanceNetworkType": "VPC"}
	})
	return records(reply, err, "Items", "DBInstance")
}

func (c *Cloud) describeRDSAllowLists(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.database("rds", q.str("DBInstanceId"))
	if err != nil {
		return nil, err
	}
	return obj{"Items": obj{"DBInstanceIPArray": d.lists(func(name, entries string) obj {
		return obj{"DBInstanceIPArrayName": name, "SecurityIPList": entries, "SecurityIPType": "IPv4", "WhitelistNetworkType": "MIX", "DBInstanceIPArrayAttribute": ""}
	})}}, nil
}

func (c *Cloud) modifyRDSAllowList(q *call) (obj, *apiError) {
	return c.modify(q, "rds", "DBInstanceId", "DBInstanceIPArrayName", q.str("SecurityIps"))
}

func (c *Cloud) describeRedis(q *call) (obj, *apiError) {
	if n := q.num("PageSize", 10); n > 100 {
		return nil, refuse(400, "InvalidPageSize", "PageSize is at most 100.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.databasesOf("r-kvstore", func(d *database) bool {
		return oneOf(d.ID, q.str("InstanceIds")) && oneOf(d.VPC, q.str("VpcId"))
	})
	return page(q, found, 10, 100, "Instances", "KVStoreInstance", func(d *database) obj {
		return obj{"InstanceId": d.ID, "InstanceName": d.Name, "VpcId": d.VPC, "RegionId": c.cfg.Region, "InstanceStatus": "Normal", "NetworkType": "VPC", "InstanceType": "Redis"}
	})
}

// securityIPs answers DescribeSecurityIps of Redis and MongoDB.
func (c *Cloud) securityIPs(product, id string) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.database(product, id)
	if err != nil {
		return nil, err
	}
	return obj{"SecurityIpGroups": obj{"SecurityIpGroup": d.lists(func(name, entries string) obj {
		return obj{"SecurityIpGroupName": name, "SecurityIpList": entries, "SecurityIpGroupAttribute": ""}
	})}}, nil
}

func (c *Cloud) describeRedisAllowLists(q *call) (obj, *apiError) {
	return c.securityIPs("r-kvstore", q.str("InstanceId"))
}

func (c *Cloud) modifyRedisAllowList(q *call) (obj, *apiError) {
	return c.modify(q, "r-kvstore", "InstanceId", "SecurityIpGroupName", q.str("SecurityIps"))
}

func (c *Cloud) describeMongo(q *call) (obj, *apiError) {
	kind := cmp.Or(q.str("DBInstanceType"), "replicate") // the other kinds are asked for one by one
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.databasesOf("dds", func(d *database) bool {
		return d.Type == kind && oneOf(d.ID, q.str("DBInstanceId")) && oneOf(d.VPC, q.str("VpcId"))
	})
	return page(q, found, 30, 100, "DBInstances", "DBInstance", func(d *database) obj {
		return obj{"DBInstanceId": d.ID, "DBInstanceDescription": d.Name, "VPCId": d.VPC, "RegionId": c.cfg.Region, "DBInstanceStatus": "Running", "DBInstanceType": d.Type, "NetworkType": "VPC"}
	})
}

func (c *Cloud) describeMongoAllowLists(q *call) (obj, *apiError) {
	return c.securityIPs("dds", q.str("DBInstanceId"))
}

func (c *Cloud) modifyMongoAllowList(q *call) (obj, *apiError) {
	return c.modify(q, "dds", "DBInstanceId", "SecurityIpGroupName", q.str("SecurityIps"))
}

func (c *Cloud) describePolar(q *call) (obj, *apiError) {
	if n := q.num("PageSize", 30); n != 30 && n != 50 && n != 100 {
		return nil, refuse(400, "InvalidPageSize", "PageSize is 30, 50 or 100.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.databasesOf("polardb", func(d *database) bool { return oneOf(d.ID, q.str("DBClusterIds")) })
	reply, err := page(q, found, 30, 100, "Items", "DBCluster", func(d *database) obj {
		return obj{"DBClusterId": d.ID, "DBClusterDescription": d.Name, "VpcId": d.VPC, "RegionId": c.cfg.Region, "DBClusterStatus": "Running", "Engine": "POLARDB"}
	})
	return records(reply, err, "Items", "DBCluster")
}

func (c *Cloud) describePolarAllowLists(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.database("polardb", q.str("DBClusterId"))
	if err != nil {
		return nil, err
	}
	groups := []obj{}
	for _, g := range d.SecurityGroups {
		groups = append(groups, obj{"SecurityGroupId": g, "SecurityGroupName": ""})
	}
	return obj{
		"Items": obj{"DBClusterIPArray": d.lists(func(name, entries string) obj {
			return obj{"DBClusterIPArrayName": name, "SecurityIps": entries, "DBClusterIPArrayAttribute": ""}
		})},
		"DBClusterSecurityGroups": obj{"DBClusterSecurityGroup": groups},
	}, nil
}

func (c *Cloud) modifyPolarAllowList(q *call) (obj, *apiError) {
	return c.modify(q, "polardb", "DBClusterId", "DBClusterIPArrayName", q.str("SecurityIps"))
}
