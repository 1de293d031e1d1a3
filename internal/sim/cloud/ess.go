package cloud

import (
	"cmp"
	"slices"
)

const essVersion = "2014-08-28"

func essActions() []action {
	return []action{
		{name: "DescribeScalingInstances", do: (*Cloud).describeScalingInstances,
			served: `
				InstanceId.# LifecycleState PageNumber:int PageSize:int RegionId! ScalingGroupId`,
			other: `
				CreationType CreationTypes.# HealthStatus LifecycleStates.# ScalingActivityId
				ScalingConfigurationId`,
		},
		{name: "EnterStandby", do: (*Cloud).enterStandby,
			served: `
				InstanceId.#! ScalingGroupId!`,
			other: `
				Async ClientToken`,
		},
		{name: "ExitStandby", do: (*Cloud).exitStandby,
			served: `
				InstanceId.#! ScalingGroupId!`,
			other: `
				Async ClientToken`,
		},
		{name: "SetInstancesProtection", do: (*Cloud).setInstancesProtection,
			served: `
				InstanceId.#! ProtectedFromScaleIn:bool! ScalingGroupId!`,
		},
	}
}

// A ScalingMember is an instance in a scaling group.
type ScalingMember struct {
	Group, InstanceID string
	State             string // InService (default), Standby, Protected, …
}

type essState struct{ members []ScalingMember }

// AddScalingMember makes an instance a member of a scaling group.
func (c *Cloud) AddScalingMember(m ScalingMember) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.State = cmp.Or(m.State, "InService")
	c.ess.members = append(c.ess.members, m)
}

// ScalingMembers returns the members of scaling groups as they are now.
func (c *Cloud) ScalingMembers() []ScalingMember {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ess.members)
}

func (c *Cloud) describeScalingInstances(q *call) (obj, *apiError) {
	ids := q.list("InstanceId")
	if len(ids) > 20 {
		return nil, refuse(400, "InvalidParameter", "InstanceId holds %d values; 20 are allowed.", len(ids))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []ScalingMember
	for _, m := range c.ess.members {
		if (len(ids) == 0 || slices.Contains(ids, m.InstanceID)) && oneOf(m.Group, q.str("ScalingGroupId")) && oneOf(m.State, q.str("LifecycleState")) {
			found = append(found, m)
		}
	}
	return page(q, found, 10, 50, "ScalingInstances", "ScalingInstance", func(m ScalingMember) obj {
		return obj{"InstanceId": m.InstanceID, "ScalingGroupId": m.Group, "LifecycleState": m.State, "HealthStatus": "Healthy", "CreationType": "Attached"}
	})
}

// setState moves the named members of a group from one of the states in from
// to another; all of them or none.
func (c *Cloud) setState(q *call, to string, from ...string) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group, ids := q.str("ScalingGroupId"), q.list("InstanceId")
	if !slices.ContainsFunc(c.ess.members, func(m ScalingMember) bool { return m.Group == group }) {
		return nil, fail(404, "InvalidScalingGroupId.NotFound", "The scaling group %q does not exist.", group)
	}
	var at []int
	for _, id := range ids {
		n := slices.IndexFunc(c.ess.members, func(m ScalingMember) bool { return m.Group == group && m.InstanceID == id })
		switch {
		case n < 0:
			return nil, fail(404, "InvalidInstanceId.NotFound", "Instance %q is not in the scaling group.", id)
		case !slices.Contains(from, c.ess.members[n].State) && c.ess.members[n].State != to:
			return nil, fail(400, "IncorrectInstanceStatus", "The current lifecycle state of %q does not support this action.", id)
		}
		at = append(at, n)
	}
	for _, n := range at {
		c.ess.members[n].State = to
	}
	return obj{}, nil
}

func (c *Cloud) enterStandby(q *call) (obj, *apiError) {
	return c.setState(q, "Standby", "InService", "Protected")
}

func (c *Cloud) exitStandby(q *call) (obj, *apiError) { return c.setState(q, "InService", "Standby") }

func (c *Cloud) setInstancesProtection(q *call) (obj, *apiError) {
	if q.is("ProtectedFromScaleIn") {
		return c.setState(q, "Protected", "InService")
	}
	return c.setState(q, "InService", "Protected")
}
