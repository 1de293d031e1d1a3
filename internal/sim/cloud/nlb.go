package cloud

// nlbActions are the actions of NLB; their handlers are those of ALB.
func nlbActions() []action {
	const listed = " MaxResults:int NextToken"
	return []action{
		{name: "ListLoadBalancers", do: groupAction(NLB, (*Cloud).listGroupBalancers),
			served: "LoadBalancerIds.# LoadBalancerNames.# VpcIds.# LoadBalancerStatus" + listed,
			other:  "AddressIpVersion AddressType DNSName Ipv6AddressType LoadBalancerBusinessStatus LoadBalancerType ResourceGroupId Tag.#.Key Tag.#.Value ZoneId"},
		{name: "ListListeners", do: groupAction(NLB, (*Cloud).listGroupListeners),
			served: "ListenerIds.# ListenerProtocol LoadBalancerIds.#" + listed, other: "SecSensorEnabled Tag.#.Key Tag.#.Value"},
		{name: "ListServerGroups", do: groupAction(NLB, (*Cloud).listServerGroups),
			served: "ServerGroupIds.# ServerGroupNames.# ServerGroupType VpcId" + listed, other: "ResourceGroupId Tag.#.Key Tag.#.Value"},
		{name: "ListServerGroupServers", do: groupAction(NLB, (*Cloud).listServerGroupServers),
			served: "ServerGroupId ServerIds.# ServerIps.#" + listed},
		{name: "GetListenerHealthStatus", do: groupAction(NLB, (*Cloud).getListenerHealthStatus), served: "ListenerId!"},
		{name: "AddServersToServerGroup", do: groupAction(NLB, (*Cloud).addServersToServerGroup),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp Servers.#.Weight:int Servers.#.Description",
			other:  "DryRun"},
		{name: "RemoveServersFromServerGroup", do: groupAction(NLB, (*Cloud).removeServersFromServerGroup),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp", other: "DryRun"},
		{name: "UpdateServerGroupServersAttribute", do: groupAction(NLB, (*Cloud).updateServerGroupServersAttribute),
			served: "ClientToken ServerGroupId! Servers.#.ServerId! Servers.#.ServerType! Servers.#.Port:int! Servers.#.ServerIp Servers.#.Weight:int Servers.#.Description",
			other:  "DryRun"},
		{name: "GetJobStatus", do: groupAction(NLB, (*Cloud).getJobStatus), served: "JobId!", other: "ClientToken"},
	}
}

func (c *Cloud) getJobStatus(_ string, q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.sg.jobs {
		if j.product == NLB && j.id == q.str("JobId") {
			return obj{"Status": j.status}, nil
		}
	}
	return nil, fail(404, "ResourceNotFound.job", "The specified resource of job %s is not found.", q.str("JobId"))
}
