package cloud

func slbActions() []action {
	return []action{
		{name: "DescribeLoadBalancers", do: (*Cloud).describeLoadBalancers,
			served: `
				Address AddressType LoadBalancerId LoadBalancerName LoadBalancerStatus PageNumber:int PageSize:int
				RegionId! ServerId ServerIntranetAddress Tag.#.Key Tag.#.Value VSwitchId VpcId`,
			other: `
				AddressIPVersion InternetChargeType MasterZoneId NetworkType PayType ResourceGroupId SlaveZoneId Tags`,
		},
		{name: "DescribeLoadBalancerAttribute", do: (*Cloud).describeLoadBalancerAttribute,
			served: `
				LoadBalancerId!`,
		},
		{name: "DescribeLoadBalancerListeners", do: (*Cloud).describeLoadBalancerListeners,
			served: `
				ListenerPort:int ListenerProtocol LoadBalancerId.# MaxResults:int NextToken`,
			other: `
				Description Tag.#.Key Tag.#.Value`,
		},
		{name: "DescribeVServerGroups", do: (*Cloud).describeVServerGroups,
			served: `
				IncludeListener:bool IncludeRule:bool LoadBalancerId! RegionId!`,
			other: `
				Description Tag.#.Key Tag.#.Value`,
		},
		{name: "DescribeVServerGroupAttribute", do: (*Cloud).describeVServerGroupAttribute,
			served: `
				RegionId! VServerGroupId!`,
		},
		{name: "SetVServerGroupAttribute", do: (*Cloud).setVServerGroupAttribute,
			served: `
				BackendServers RegionId! VServerGroupId! VServerGroupName`,
		},
		{name: "AddVServerGroupBackendServers", do: (*Cloud).addVServerGroupBackendServers,
			served: `
				BackendServers! RegionId! VServerGroupId!`,
		},
		{name: "RemoveVServerGroupBackendServers", do: (*Cloud).removeVServerGroupBackendServers,
			served: `
				BackendServers! RegionId! VServerGroupId!`,
		},
		{name: "AddBackendServers", do: (*Cloud).addBackendServers,
			served: `
				BackendServers LoadBalancerId!`,
		},
		{name: "SetBackendServers", do: (*Cloud).setBackendServers,
			served: `
				BackendServers LoadBalancerId!`,
		},
		{name: "RemoveBackendServers", do: (*Cloud).removeBackendServers,
			served: `
				BackendServers! LoadBalancerId!`,
		},
		{name: "DescribeHealthStatus", do: (*Cloud).describeHealthStatus,
			served: `
				ListenerPort:int ListenerProtocol LoadBalancerId!`,
		},
		{name: "DescribeRules", do: (*Cloud).describeRules,
			served: `
				ListenerPort:int! ListenerProtocol LoadBalancerId! RegionId!`,
		},
		{name: "DescribeMasterSlaveServerGroups", do: (*Cloud).describeMasterSlaveServerGroups,
			served: `
				IncludeListener:bool LoadBalancerId! RegionId!`,
			other: `
				Description Tag.#.Key Tag.#.Value`,
		},
	}
}
