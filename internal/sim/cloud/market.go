package cloud

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A stockKey says of what there is none: an instance type in a zone, "" for
// every one.
type stockKey struct{ kind, zone string }

// SetStock says whether an instance type ("" for every one) can be had in a
// zone ("" for every one). At first everything can.
func (c *Cloud) SetStock(instanceType, zone string, available bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if available {
		delete(c.noStock, stockKey{instanceType, zone})
		return
	}
	c.noStock[stockKey{instanceType, zone}] = true
}

// inStock refuses what cannot be had. c.mu is held.
func (c *Cloud) inStock(kind, zone string) *apiError {
	for _, k := range []stockKey{{kind, zone}, {kind, ""}, {"", zone}, {}} {
		if c.noStock[k] {
			return fail(403, "OperationDenied.NoStock", "The resource %s is out of usage in zone %s.", kind, zone)
		}
	}
	return nil
}

// families are the instance type families there are, with GiB per vCPU.
var families = map[string]float64{
	"g5": 4, "g6": 4, "g6e": 4, "g7": 4, "g7a": 4, "g8i": 4, "g8a": 4, "c5": 2, "c6": 2, "c6e": 2, "c7": 2, "c7a": 2, "c8i": 2, "c8a": 2,
	"r5": 8, "r6": 8, "r6e": 8, "r7": 8, "r7a": 8, "r8i": 8, "r8a": 8, "u1": 4, "e": 2, "e3": 4, "e4": 8, "hfc6": 2, "hfg6": 4, "hfr6": 8,
	"n1": 2, "n2": 4, "n4": 2, "mn4": 4, "xn4": 1, "s6-c1m1": 1, "s6-c1m2": 2, "s6-c1m4": 4, "t5-c1m1": 1, "t5-c1m2": 2, "t5-lc1m1": 1, "t5-lc1m2": 2,
	"t6-c1m1": 1, "t6-c1m2": 2, "sn1ne": 2, "sn2ne": 4, "se1ne": 8, "i2": 8, "i3": 8, "d1": 4, "d1ne": 4, "u1-c1m1": 1, "u1-c1m2": 2, "u1-c1m4": 4,
	"e-c1m1": 1, "e-c1m2": 2, "e-c1m4": 4,
}

// sizes are what a family is sold in, with vCPUs.
var sizes = map[string]int{
	"nano": 1, "tiny": 1, "small": 1, "medium": 2, "large": 2, "xlarge": 4, "2xlarge": 8, "3xlarge": 12, "4xlarge": 16,
	"6xlarge": 24, "8xlarge": 32, "13xlarge": 52, "16xlarge": 64, "26xlarge": 104,
}

func splitType(kind string) (family, size string) {
	if rest, ok := strings.CutPrefix(kind, "ecs."); ok {
		family, size, _ = strings.Cut(rest, ".")
	}
	return family, size
}

// knownType reports whether an instance type like ecs.g6.xlarge exists.
func knownType(kind string) bool {
	family, size := splitType(kind)
	return families[family] > 0 && sizes[size] > 0
}

// size derives vCPUs and memory (MiB) from an instance type; of one that does
// not exist it makes something up.
func size(kind string) (cpu, memory int) {
	family, s := splitType(kind)
	cpu = cmp.Or(sizes[s], 2)
	return cpu, int(float64(cpu) * cmp.Or(families[family], 4) * 1024)
}

// types lists all instance types.
func types() []string {
	var all []string
	for f := range families {
		for s := range sizes {
			all = append(all, "ecs."+f+"."+s)
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		fa, sa := splitType(a)
		fb, sb := splitType(b)
		return cmp.Or(strings.Compare(fa, fb), cmp.Compare(sizes[sa], sizes[sb]), strings.Compare(sa, sb))
	})
	return all
}

// typeRow is an instance type in a list.
type typeRow struct {
	seq  int64
	kind string
}

func (r typeRow) number() int64 { return r.seq }

func (c *Cloud) describeInstanceTypes(q *call) (obj, *apiError) {
	wanted, family := q.list("InstanceTypes"), q.str("InstanceTypeFamily")
	var rows []typeRow
	for n, kind := range types() {
		cpu, memory := size(kind)
		f, _ := splitType(kind)
		if len(wanted) > 0 && !slices.Contains(wanted, kind) || family != "" && family != "ecs."+f ||
			cpu < q.num("MinimumCpuCoreCount", 0) || cpu > q.num("MaximumCpuCoreCount", math.MaxInt) ||
			memory < 1024*q.num("MinimumMemorySize", 0) || memory/1024 > q.num("MaximumMemorySize", math.MaxInt) {
			continue
		}
		rows = append(rows, typeRow{int64(n + 1), kind})
	}
	next := ""
	if q.has("NextToken") || q.has("MaxResults") {
		part, reply, err := pageOf(q, rows)
		if err != nil {
			return nil, err
		}
		rows = part
		next, _ = reply["NextToken"].(string)
	}
	list := []obj{}
	for _, r := range rows {
		cpu, memory := size(r.kind)
		f, _ := splitType(r.kind)
		list = append(list, obj{
			"InstanceTypeId": r.kind, "InstanceTypeFamily": "ecs." + f, "CpuCoreCount": cpu, "MemorySize": float64(memory) / 1024,
			"CpuArchitecture": "X86", "InstanceFamilyLevel": "EnterpriseLevel", "InstanceCategory": "General-purpose", "GPUAmount": 0, "GPUSpec": "",
			"LocalStorageCategory": "", "LocalStorageAmount": 0, "LocalStorageCapacity": 0, "DiskQuantity": 17, "NvmeSupport": "unsupported",
			"EniQuantity": 2 + cpu/4, "EniPrivateIpAddressQuantity": 6, "EniIpv6AddressQuantity": 1, "EniTotalQuantity": 3,
			"PrimaryEniQueueNumber": 2, "SecondaryEniQueueNumber": 2,
			"InstanceBandwidthRx": 1024000, "InstanceBandwidthTx": 1024000, "InstancePpsRx": 300000, "InstancePpsTx": 300000,
		})
	}
	return obj{"NextToken": next, "InstanceTypes": obj{"InstanceType": list}}, nil
}

func (c *Cloud) describeZones(q *call) (obj, *apiError) {
	var kinds []string
	for _, k := range types() {
		if strings.HasPrefix(k, "ecs.g6.") || strings.HasPrefix(k, "ecs.c6.") || strings.HasPrefix(k, "ecs.g7.") {
			kinds = append(kinds, k)
		}
	}
	list := []obj{}
	for _, z := range c.cfg.Zones {
		v := obj{
			"ZoneId": z, "LocalName": z, "ZoneType": "AvailabilityZone",
			"AvailableResourceCreation": obj{"ResourceTypes": []string{"VSwitch", "IoOptimized", "Instance", "Disk"}},
			"AvailableDiskCategories":   obj{"DiskCategories": []string{"cloud_essd", "cloud_ssd", "cloud_efficiency", "cloud_auto"}},
			"AvailableInstanceTypes":    obj{"InstanceTypes": kinds},
			"AvailableVolumeCategories": obj{"VolumeCategories": []string{}}, "AvailableDedicatedHostTypes": obj{"DedicatedHostType": []string{}},
			"DedicatedHostGenerations": obj{"DedicatedHostGeneration": []string{}},
			"AvailableResources": obj{"ResourcesInfo": []obj{{
				"IoOptimized": true, "SystemDiskCategories": obj{"supportedSystemDiskCategory": []string{"cloud_essd", "cloud_ssd", "cloud_efficiency"}},
				"DataDiskCategories": obj{"supportedDataDiskCategory": []string{"cloud_essd", "cloud_ssd", "cloud_efficiency"}},
				"NetworkTypes":       obj{"supportedNetworkCategory": []string{"vpc"}},
				"InstanceTypes":      obj{"supportedInstanceType": kinds}, "InstanceTypeFamilies": obj{"supportedInstanceTypeFamily": []string{"ecs.c6", "ecs.g6", "ecs.g7"}},
				"InstanceGenerations": obj{"supportedInstanceGeneration": []string{"ecs-5"}},
			}}},
		}
		list = append(list, v)
	}
	return obj{"Zones": obj{"Zone": list}}, nil
}

// noSpot refuses to say anything about spot instances.
func noSpot(q *call) *apiError {
	if s := q.str("SpotStrategy"); s != "" && s != "NoSpot" {
		return refuse(400, "UnsupportedParameter", "The SpotStrategy %q is not simulated.", s)
	}
	return nil
}

func (c *Cloud) describeAvailableResource(q *call) (obj, *apiError) {
	if err := noSpot(q); err != nil {
		return nil, err
	}
	what := q.str("DestinationResource")
	var values []string
	switch what {
	case "Zone", "InstanceType":
		values = types()
		if k := q.str("InstanceType"); k != "" {
			values = slices.DeleteFunc(values, func(v string) bool { return v != k })
		}
		if q.has("Cores") || q.has("Memory") {
			values = slices.DeleteFunc(values, func(v string) bool {
				cpu, memory := size(v)
				return q.num("Cores", cpu) != cpu || q.has("Memory") && q.str("Memory") != strconv.FormatFloat(float64(memory)/1024, 'f', -1, 64)
			})
		}
	case "SystemDisk", "DataDisk":
		values = []string{"cloud_auto", "cloud_efficiency", "cloud_essd", "cloud_ssd"}
		want := q.str(map[string]string{"SystemDisk": "SystemDiskCategory", "DataDisk": "DataDiskCategory"}[what])
		if want != "" {
			values = slices.DeleteFunc(values, func(v string) bool { return v != want })
		}
	default:
		return nil, refuse(400, "InvalidParameter", "The DestinationResource %q is not simulated: Zone, InstanceType, SystemDisk or DataDisk.", what)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	zones := []obj{}
	for _, z := range c.cfg.Zones {
		if !oneOf(z, q.str("ZoneId")) {
			continue
		}
		supported, any := []obj{}, false
		for _, v := range values {
			kind := v
			if what == "SystemDisk" || what == "DataDisk" {
				kind = q.str("InstanceType")
			}
			status, category := "Available", "WithStock"
			if c.inStock(kind, z) != nil {
				status, category = "SoldOut", "WithoutStock"
			} else {
				any = true
			}
			item := obj{"Value": v, "Status": status, "StatusCategory": category}
			if strings.HasSuffix(what, "Disk") {
				item["Min"], item["Max"], item["Unit"] = 20, 32768, "GiB"
			}
			supported = append(supported, item)
		}
		status, category := "Available", "WithStock"
		if !any {
			status, category = "SoldOut", "WithoutStock"
		}
		zone := obj{"RegionId": c.cfg.Region, "ZoneId": z, "Status": status, "StatusCategory": category}
		if what != "Zone" {
			zone["AvailableResources"] = obj{"AvailableResource": []obj{{"Type": what, "SupportedResources": obj{"SupportedResource": supported}}}}
		}
		if len(values) > 0 {
			zones = append(zones, zone)
		}
	}
	return obj{"AvailableZones": obj{"AvailableZone": zones}}, nil
}

// What things cost an hour here, in CNY. The figures are made up; only their
// order is not.
const (
	costCPU, costGiB   = 0.20, 0.05
	costDisk, costMbit = 0.0014, 0.06
)

func (c *Cloud) describePrice(q *call) (obj, *apiError) {
	if err := noSpot(q); err != nil {
		return nil, err
	}
	resource := cmp.Or(q.str("ResourceType"), "instance")
	if resource != "instance" && resource != "disk" {
		return nil, refuse(400, "InvalidResourceType.ValueNotSupported", "The ResourceType %q is not simulated: instance or disk.", resource)
	}
	hours := map[string]float64{"": 1, "Hour": 1, "Day": 24, "Week": 7 * 24, "Month": 730, "Year": 8760}[q.str("PriceUnit")]
	if hours == 0 {
		return nil, refuse(400, "InvalidPriceUnit.ValueNotSupported", "The PriceUnit %q is not Hour, Day, Week, Month or Year.", q.str("PriceUnit"))
	}
	hours *= float64(q.num("Period", 1))
	details, sum := []obj{}, 0.0
	add := func(what string, hourly float64) {
		p := math.Round(hourly*hours*float64(q.num("Amount", 1))*10000) / 10000
		sum += p
		details = append(details, obj{"Resource": what, "OriginalPrice": p, "DiscountPrice": 0.0, "TradePrice": p})
	}
	disk := func(what string, d *call) *apiError {
		if d == nil || !d.has("Size") && !d.has("Category") {
			return nil
		}
		if k := cmp.Or(d.str("Category"), "cloud_efficiency"); !categories[k] {
			return fail(400, "PriceNotFound", "There is no price of a %s %q.", what, k)
		}
		add(what, costDisk*float64(d.num("Size", 40)))
		return nil
	}
	if resource == "instance" {
		kind := q.str("InstanceType")
		if kind == "" {
			return nil, refuse(400, "MissingParameter", "The input parameter \"InstanceType\" that is mandatory for processing this request is not supplied.")
		}
		if !knownType(kind) {
			return nil, fail(400, "PriceNotFound", "There is no price of the instance type %q.", kind)
		}
		cpu, memory := size(kind)
		add("instanceType", costCPU*float64(cpu)+costGiB*float64(memory)/1024)
		if err := disk("systemDisk", q.under("SystemDisk")); err != nil {
			return nil, err
		}
		if n := q.num("InternetMaxBandwidthOut", 0); n > 0 {
			add("bandwidth", costMbit*float64(n))
		}
	}
	for _, d := range q.each("DataDisk") {
		if err := disk("dataDisk", d); err != nil {
			return nil, err
		}
	}
	sum = math.Round(sum*10000) / 10000
	return obj{"PriceInfo": obj{
		"Price": obj{"Currency": "CNY", "OriginalPrice": sum, "DiscountPrice": 0.0, "TradePrice": sum, "DetailInfos": obj{"DetailInfo": details}},
		"Rules": obj{"Rule": []obj{}},
	}}, nil
}
