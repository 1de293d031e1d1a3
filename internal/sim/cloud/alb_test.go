package cloud_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

const (
	alb = "2020-06-16"
	nlb = "2022-04-30"
)

func TestServerGroupJobs(t *testing.T) {
	for product, version := range map[string]string{cloud.ALB: alb, cloud.NLB: nlb} {
		world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
			c.AddServerGroup(product, cloud.ServerGroup{ID: "sgp-1", HealthCheck: true, Servers: []cloud.Backend{{ServerID: "i-web90", Port: 80, Weight: 7, Description: "d"}}})
			state := func() string { return fmt.Sprint(c.ServerGroups(product)[0].Servers) }
			before := state()
			var changes atomic.Int32
			c.OnChange(func() { changes.Add(1) })
			one := []string{"ServerGroupId", "sgp-1", "Servers.1.ServerId", "i-web90", "Servers.1.ServerType", "Ecs", "Servers.1.Port", "80"}
			with := func(more ...string) []string { return append(append([]string{}, one...), more...) }

			// The answer comes first and the effect with the end of the job; until
			// then the group takes no other write.
			a.ok(version, "UpdateServerGroupServersAttribute", with("Servers.1.Weight", "0")...)
			assert.Equal(t, before, state())
			assert.Equal(t, "Configuring", a.ok(version, "ListServerGroupServers").Str("Servers.0.Status"))
			a.no(409, "IncorrectStatus.ServerGroup", version, "UpdateServerGroupServersAttribute", with("Servers.1.Weight", "1")...)
			time.Sleep(5 * time.Second)
			got := c.ServerGroups(product)[0].Servers[0]
			assert.Equal(t, 0, got.Weight)
			assert.Empty(t, got.Description, "what is left out of a write is lost")
			assert.EqualValues(t, 1, changes.Load())

			// A weight left out is full traffic.
			a.ok(version, "UpdateServerGroupServersAttribute", one...)
			time.Sleep(5 * time.Second)
			assert.Equal(t, 100, c.ServerGroups(product)[0].Servers[0].Weight)

			// One token, one job.
			first := a.ok(version, "UpdateServerGroupServersAttribute", with("Servers.1.Weight", "5", "ClientToken", "t")...).Str("JobId")
			time.Sleep(5 * time.Second)
			assert.Equal(t, first, a.ok(version, "UpdateServerGroupServersAttribute", with("Servers.1.Weight", "5", "ClientToken", "t")...).Str("JobId"))

			c.FailJobs("OperationFailed.Test")
			job := a.ok(version, "RemoveServersFromServerGroup", one...).Str("JobId")
			time.Sleep(5 * time.Second)
			require.Len(t, c.ServerGroups(product)[0].Servers, 1, "a job that fails has no effect")
			if product == cloud.ALB {
				j := a.ok(version, "ListAsynJobs", "JobIds.1", job)
				assert.Equal(t, "Failed", j.Str("Jobs.0.Status"))
				assert.Equal(t, "OperationFailed.Test", j.Str("Jobs.0.ErrorCode"))
			} else {
				assert.Equal(t, "Failed", a.ok(version, "GetJobStatus", "JobId", job).Str("Status"))
			}

			a.no(404, "ResourceNotFound.BackendServer", version, "RemoveServersFromServerGroup", "ServerGroupId", "sgp-1", "Servers.1.ServerId", "i-web90", "Servers.1.ServerType", "Ecs", "Servers.1.Port", "81")
			a.no(404, "ResourceNotFound.ServerGroup", version, "ListServerGroupServers", "ServerGroupId", "sgp-none")
			a.no(409, "Conflict.BackendServer", version, "AddServersToServerGroup", one...)
			many := []string{"ServerGroupId", "sgp-1"}
			for n := 1; n <= map[string]int{cloud.ALB: 41, cloud.NLB: 201}[product]; n++ {
				many = append(many, fmt.Sprintf("Servers.%d.ServerId", n), "i-web90", fmt.Sprintf("Servers.%d.ServerType", n), "Ecs", fmt.Sprintf("Servers.%d.Port", n), fmt.Sprint(1000+n))
			}
			a.no(400, "IllegalParamSize.Servers", version, "AddServersToServerGroup", many...)
			a.ok(version, "RemoveServersFromServerGroup", one...)
			time.Sleep(5 * time.Second)
			assert.Empty(t, c.ServerGroups(product)[0].Servers)
			assert.Empty(t, c.Refused())
		})
	}
}

// Only those that are not well are listed.
func TestListenerHealthNamesTheIll(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-1", HealthCheck: true, Servers: []cloud.Backend{{ServerID: "i-web90", Port: 80, Weight: 1}}})
		c.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.ALB, ID: "alb-1", Listeners: []cloud.GroupListener{{ID: "lsn-1", Port: 80, Group: "sgp-1"}}})
		const ill = "ListenerHealthStatus.0.ServerGroupInfos.0.NonNormalServers"
		look := func() answer { return a.ok(alb, "GetListenerHealthStatus", "ListenerId", "lsn-1") }
		assert.Zero(t, look().Len(ill))
		c.PoweredOff("i-web90")
		require.Equal(t, 1, look().Len(ill))
		assert.Equal(t, "Unhealthy", look().Str(ill+".0.Status"))
		a.no(404, "ResourceNotFound.Listener", alb, "GetListenerHealthStatus", "ListenerId", "lsn-2")
	})
}

// A listener is made stopped; a group that is used cannot be deleted; ids alone
// do for removals from the default group only.
func TestBalancerFromNothing(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		wait := func() { time.Sleep(3 * time.Second) }
		lb := a.ok(slb, "CreateLoadBalancer", "LoadBalancerName", "made", "AddressType", "intranet").Str("LoadBalancerId")
		g := a.ok(slb, "CreateVServerGroup", "LoadBalancerId", lb, "BackendServers", "[{'ServerId':'i-web90','Port':'8080','Weight':'10'}]").Str("VServerGroupId")
		wait()
		a.ok(slb, "CreateLoadBalancerTCPListener", "LoadBalancerId", lb, "ListenerPort", "80", "VServerGroupId", g, "Bandwidth", "-1")
		a.no(400, "ServiceIsConfiguring", slb, "StartLoadBalancerListener", "LoadBalancerId", lb, "ListenerPort", "80")
		wait()
		assert.Equal(t, "stopped", a.ok(slb, "DescribeLoadBalancerTCPListenerAttribute", "LoadBalancerId", lb, "ListenerPort", "80").Str("Status"))
		a.ok(slb, "StartLoadBalancerListener", "LoadBalancerId", lb, "ListenerPort", "80")
		wait()
		a.no(400, "ListenerAlreadyExists", slb, "CreateLoadBalancerHTTPListener", "LoadBalancerId", lb, "ListenerPort", "80", "BackendServerPort", "80", "HealthCheck", "off")
		a.no(400, "RspoolVipExist", slb, "DeleteVServerGroup", "VServerGroupId", g)
		a.ok(slb, "ModifyVServerGroupBackendServers", "VServerGroupId", g, "OldBackendServers", `[{"ServerId":"i-web90","Port":8080}]`, "NewBackendServers", `[{"ServerId":"i-web90","Port":8081,"Weight":3}]`)
		wait()
		a.ok(slb, "AddBackendServers", "LoadBalancerId", lb, "BackendServers", "[{'ServerId':'i-web90','Weight':'100', 'Type': 'ecs'}]")
		wait()
		for _, b := range c.LoadBalancers() {
			if b.ID == lb {
				assert.Equal(t, "running", b.Listeners[0].Status)
				assert.Equal(t, 8081, b.Groups[0].Backends[0].Port)
				assert.Len(t, b.Default, 1)
			}
		}
		a.ok(slb, "RemoveBackendServers", "LoadBalancerId", lb, "BackendServers", `["i-web90"]`)
		wait()
		a.ok(slb, "SetLoadBalancerDeleteProtection", "LoadBalancerId", lb, "DeleteProtection", "on")
		wait()
		a.no(400, "OperationDenied.DeleteProtection", slb, "DeleteLoadBalancer", "LoadBalancerId", lb)
		a.ok(slb, "SetLoadBalancerDeleteProtection", "LoadBalancerId", lb, "DeleteProtection", "off")
		wait()
		a.ok(slb, "DeleteLoadBalancer", "LoadBalancerId", lb)
		a.no(404, "InvalidLoadBalancerId.NotFound", slb, "DescribeLoadBalancerAttribute", "LoadBalancerId", lb)
		assert.Empty(t, c.Refused())
	})
}
