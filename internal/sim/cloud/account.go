package cloud

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// accountActions are the calls about what the account may have, and about what
// the cloud has in store for its instances. Names, states and defaults are those
// of the API reference of ECS (DescribeAccountAttributes,
// DescribeInstanceHistoryEvents); parameters those of the SDK's request structs
// (v1.63.107).
func accountActions() []action {
	return []action{
		{name: "DescribeAccountAttributes", do: (*Cloud).describeAccountAttributes,
			served: `
				AttributeName.# RegionId! ZoneId`,
		},
		{name: "DescribeInstanceHistoryEvents", do: (*Cloud).describeInstanceHistoryEvents,
			served: `
				EventCycleStatus EventId.# EventType InstanceEventCycleStatus.# InstanceEventType.# InstanceId
				PageNumber:int PageSize:int RegionId!`,
			other: `
				EventPublishTime.End EventPublishTime.Start ImpactLevel MaxResults NextToken NotBefore.End
				NotBefore.Start ResourceGroupId ResourceId.# ResourceType Tag.#.Key Tag.#.Value`,
		},
	}
}

// attributes are the names that DescribeAccountAttributes knows, with what a new
// account has; "" for what it has to be told, and "?" for what is not simulated.
var attributes = map[string]string{
	"instance-network-type": "vpc", "max-security-groups": "100", "max-elastic-network-interfaces": "5000",
	"max-postpaid-instance-vcpu-count": "1000", "used-postpaid-instance-vcpu-count": "", "max-dedicated-hosts": "10",
	"real-name-authentication":     "yes",
	"max-spot-instance-vcpu-count": "?", "used-spot-instance-vcpu-count": "?", "max-postpaid-yundisk-capacity": "?",
	"used-postpaid-yundisk-capacity": "?", "supported-postpaid-instance-types": "?", "max-axt-command-count": "?",
	"max-axt-invocation-daily": "?", "max-cloud-assistant-activation-count": "?",
}

// vcpuQuota is the attribute that limits how many vCPUs instances paid by use
// may have together.
const vcpuQuota = "max-postpaid-instance-vcpu-count"

// SetQuota sets one of the numbers of DescribeAccountAttributes that begin with
// max-. RunInstances holds the account to max-postpaid-instance-vcpu-count. It
// panics when there is no such number.
func (c *Cloud) SetQuota(attribute string, n int) {
	if v, err := strconv.Atoi(attributes[attribute]); err != nil || v == 0 {
		panic("cloud: no quota " + attribute)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account.quotas[attribute] = n
}

// SetGroupCapacity says how many instances may be in a security group; 2000 at
// first. It panics when there is no such group.
func (c *Cloud) SetGroupCapacity(group string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.securityGroups[group] == nil {
		panic("cloud: no security group " + group)
	}
	c.securityGroups[group].capacity = n
}

// room is how many more instances may be in a security group. c.mu is held.
func (c *Cloud) room(g *securityGroup) int { return cmp.Or(g.capacity, 2000) - len(c.members(g)) }

// usedVCPUs counts the vCPUs of the instances paid by use. c.mu is held.
func (c *Cloud) usedVCPUs() (n int) {
	for _, i := range c.instances {
		if i.ChargeType != "PrePaid" {
			cpu, _ := size(i.Type)
			n += cpu
		}
	}
	return n
}

// withinQuotas refuses instances that the account or their groups have no room
// for. c.mu is held.
func (c *Cloud) withinQuotas(in Instance, amount int) *apiError {
	if in.ChargeType != "PrePaid" {
		most, cpu := c.quota(vcpuQuota), 0
		if cpu, _ = size(in.Type); c.usedVCPUs()+amount*cpu > most {
			return fail(403, "QuotaExceed.ElasticQuota", "The account uses %d of its %d vCPUs; %d more do not fit.", c.usedVCPUs(), most, amount*cpu)
		}
	}
	for _, id := range in.SecurityGroups {
		if g := c.securityGroups[id]; g != nil && c.room(g) < amount {
			return fail(403, "SecurityGroupInstanceLimitExceed", "The security group %s has room for %d more instances.", id, max(c.room(g), 0))
		}
	}
	return nil
}

// quota is a number of the account. c.mu is held.
func (c *Cloud) quota(attribute string) int {
	n, _ := strconv.Atoi(attributes[attribute]) // a number, or SetQuota panics
	if v, ok := c.account.quotas[attribute]; ok {
		n = v
	}
	return n
}

// A SystemEvent is something that the cloud will do, or has done, to an instance.
type SystemEvent struct {
	ID         string // made up when empty
	InstanceID string
	Type       string    // as SystemMaintenance.Reboot
	Status     string    // Scheduled (default), Inquiring, Executing, Executed, Avoided, Canceled, Failed
	Reason     string    // for people
	NotBefore  time.Time // the earliest moment at which it happens
	Published  time.Time // default: now
}

// accountState is what the account is told and may have.
type accountState struct {
	quotas map[string]int
	events []SystemEvent
}

// inactive are the states of events that are listed when none is asked for.
const inactive = "Avoided,Executed,Canceled,Failed"

// eventStates are all of them.
const eventStates = inactive + ",Scheduled,Executing,Inquiring"

// AddSystemEvent adds an event. It panics when there is no such instance or
// state.
func (c *Cloud) AddSystemEvent(e SystemEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Status = cmp.Or(e.Status, "Scheduled")
	if c.instances[e.InstanceID] == nil || !oneOf(e.Status, eventStates) || e.Type == "" {
		panic("cloud: no such event: " + e.InstanceID + " " + e.Type + " " + e.Status)
	}
	if e.ID == "" {
		e.ID = c.newID("e")
	}
	if e.Published.IsZero() {
		e.Published = time.Now()
	}
	c.account.events = append(c.account.events, e)
}

func (c *Cloud) describeInstanceHistoryEvents(q *call) (obj, *apiError) {
	states, kinds, ids := q.list("InstanceEventCycleStatus"), q.list("InstanceEventType"), q.list("EventId")
	switch {
	case len(states) > 0: // they go before EventCycleStatus
	case q.has("EventCycleStatus"):
		states = []string{q.str("EventCycleStatus")}
	default:
		states = strings.Split(inactive, ",")
	}
	for _, s := range states {
		if !oneOf(s, eventStates) || s == "" {
			return nil, refuse(400, "InvalidParameter", "The event state %q is not one of %s.", s, eventStates)
		}
	}
	if len(kinds) == 0 && q.has("EventType") {
		kinds = []string{q.str("EventType")}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []SystemEvent
	for _, e := range c.account.events {
		if oneOf(e.InstanceID, q.str("InstanceId")) && slices.Contains(states, e.Status) && (len(kinds) == 0 || slices.Contains(kinds, e.Type)) && (len(ids) == 0 || slices.Contains(ids, e.ID)) {
			found = append(found, e)
		}
	}
	return page(q, found, 10, 100, "InstanceSystemEventSet", "InstanceSystemEventType", func(e SystemEvent) obj {
		return obj{
			"EventId": e.ID, "InstanceId": e.InstanceID, "ResourceType": "instance", "Reason": e.Reason, "ImpactLevel": "100",
			"EventType": obj{"Code": eventCode(e.Type), "Name": e.Type}, "EventCycleStatus": obj{"Code": eventStateCodes[e.Status], "Name": e.Status},
			"NotBefore": stamp(e.NotBefore, stampSeconds), "EventPublishTime": stamp(e.Published, stampSeconds), "EventFinishTime": "",
			"ExtendedAttribute": obj{},
		}
	})
}

// eventStateCodes are numbers for the states. The real ones are not published as
// a whole: a client has to go by the name.
var eventStateCodes = map[string]int{"Scheduled": 24, "Avoided": 25, "Executing": 26, "Executed": 27, "Canceled": 28, "Failed": 29, "Inquiring": 30}

// eventCode makes up a number for a type, likewise.
func eventCode(kind string) int { return 1 + len(kind)%32 }

func (c *Cloud) describeAccountAttributes(q *call) (obj, *apiError) {
	names := q.list("AttributeName")
	if len(names) > 8 {
		return nil, refuse(400, "InvalidParameter", "AttributeName holds %d values; 8 are allowed.", len(names))
	}
	if len(names) == 0 {
		for name, v := range attributes {
			if v != "?" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []obj{}
	for _, name := range names {
		v, known := attributes[name]
		switch {
		case !known:
			return nil, refuse(400, "InvalidParameter", "There is no attribute %q.", name)
		case v == "?":
			return nil, refuse(400, "UnsupportedParameter", "The attribute %q is not simulated.", name)
		case name == "used-postpaid-instance-vcpu-count":
			v = strconv.Itoa(c.usedVCPUs())
		default:
			if n, ok := c.account.quotas[name]; ok {
				v = strconv.Itoa(n)
			}
		}
		list = append(list, obj{"AttributeName": name, "AttributeValues": obj{"ValueItem": []obj{{"Value": v, "ZoneId": q.str("ZoneId")}}}})
	}
	return obj{"AccountAttributeItems": obj{"AccountAttributeItem": list}}, nil
}
