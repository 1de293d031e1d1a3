package slb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

var (
	appGroup = slb.Group{LoadBalancerID: "alb-1", VServerGroupID: "sgp-app", Product: slb.ALB}
	netGroup = slb.Group{LoadBalancerID: "nlb-1", VServerGroupID: "sgp-net", Product: slb.NLB}
	server90 = slb.Server{InstanceID: "i-90", ENIs: []string{"eni-90"}, IPs: []string{"172.31.0.90"}}
)

// groups is world with an ALB (default action and a rule) and an NLB whose group
// holds addresses.
func groups(t *testing.T, f func(t *testing.T, sim *cloud.Cloud, c *slb.Client)) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		sim.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-app", Name: "app", HealthCheck: true, DrainSeconds: 30, Servers: []cloud.Backend{
			{ServerID: "i-90", Port: 8080, Weight: 70, Description: "app on 90"}, {ServerID: "i-51", Port: 8080, Weight: 70}}})
		sim.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-api", Name: "api", Scheduler: "Wlc", HealthCheck: true, Sticky: true, Servers: []cloud.Backend{
			{ServerID: "eni-90", Type: "eni", ServerIP: "172.31.0.90", Port: 8081, Weight: 10}, {ServerID: "i-51", Port: 8081, Weight: 10}}})
		sim.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-other", Servers: []cloud.Backend{{ServerID: "i-50", Port: 1, Weight: 1}}})
		sim.AddServerGroup(cloud.NLB, cloud.ServerGroup{ID: "sgp-net", Name: "net", Type: "Ip", HealthCheck: true, Servers: []cloud.Backend{
			{ServerID: "172.31.0.90", ServerIP: "172.31.0.90", Type: "ip", Port: 9000, Weight: 5}, {ServerID: "172.31.0.51", ServerIP: "172.31.0.51", Type: "ip", Port: 9000, Weight: 5}}})
		sim.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.ALB, ID: "alb-1", Name: "web", Listeners: []cloud.GroupListener{
			{ID: "lsn-1", Port: 80, Group: "sgp-app", Rules: []cloud.GroupRule{{ID: "rule-9", Hosts: []string{"api.example.com"}, Paths: []string{"/v1/*"}, Group: "sgp-api"}}}}})
		sim.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.NLB, ID: "nlb-1", Name: "edge", Listeners: []cloud.GroupListener{{ID: "lsn-2", Port: 9000, Group: "sgp-net"}}})
		f(t, sim, c)
	})
}

// truth is a group as the data plane sees it, by server and port.
func truth(sim *cloud.Cloud, product, id string) map[string]string {
	out := map[string]string{}
	for _, g := range sim.ServerGroups(product) {
		if g.ID == id {
			for _, b := range g.Servers {
				out[fmt.Sprintf("%s:%d", b.ServerID, b.Port)] = fmt.Sprintf("%d %s", b.Weight, b.Description)
			}
		}
	}
	return out
}

func TestDiscoverServerGroups(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ms, err := c.Discover(t.Context(), server90)
		require.NoError(t, err)
		var got []string
		for _, m := range ms {
			if m.Product == "" {
				continue
			}
			got = append(got, fmt.Sprintf("%s %s (%s) %s=%d of %d", m.Group(), m.LoadBalancerName, m.VServerGroupName, m.Backend, m.Backend.Weight, len(m.Backends)))
		}
		assert.Equal(t, []string{
			"group sgp-app of alb-1 web (app) i-90 (172.31.0.90):8080=70 of 2",
			"group sgp-api of alb-1 web (api) eni-90 (172.31.0.90):8081=10 of 2",
			"group sgp-net of nlb-1 edge (net) 172.31.0.90:9000=5 of 2",
		}, got)
		n := len(ms)
		assert.Equal(t, []slb.Listener{{LoadBalancerID: "alb-1", ID: "lsn-1", Port: 80, Protocol: "http", Scheduler: "wrr", Status: "running", HealthCheck: true, DrainSeconds: 30}}, ms[n-3].Listeners)
		assert.Equal(t, []slb.Listener{{LoadBalancerID: "alb-1", ID: "lsn-1", Port: 80, Protocol: "http", Scheduler: "wlc", Status: "running", HealthCheck: true, Sticky: true, StickySeconds: 1000,
			Rule: "rule-9", Domain: "api.example.com", URL: "/v1/*"}}, ms[n-2].Listeners)
		assert.Equal(t, "tcp", ms[n-1].Listeners[0].Protocol)
	})
}

// More members and groups than a page holds.
func TestDiscoverServerGroupsPages(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for n := range 45 {
			g := cloud.ServerGroup{ID: fmt.Sprintf("sgp-%02d", n)}
			for p := range 9 {
				g.Servers = append(g.Servers, cloud.Backend{ServerID: "i-50", Port: 1000 + p, Weight: 1})
			}
			g.Servers = append(g.Servers, cloud.Backend{ServerID: "i-91", Port: 7, Weight: 3})
			sim.AddServerGroup(cloud.ALB, g)
		}
		ms, err := c.Discover(t.Context(), slb.Server{InstanceID: "i-91"})
		require.NoError(t, err)
		assert.Len(t, ms, 45)
		for _, m := range ms {
			assert.Len(t, m.Backends, 10)
			assert.Empty(t, m.LoadBalancerID, "nothing forwards to it")
		}
	})
}

func TestServerGroupWrites(t *testing.T) {
	for _, tt := range []struct {
		g      slb.Group
		member slb.Backend
		add    slb.Backend
		more   string
	}{
		{appGroup, slb.Backend{ServerID: "i-90", Port: 8080, Weight: 70}, slb.Backend{ServerID: "i-91", Port: 8080, Weight: 0, Description: "clone"}, "app on 90"},
		{netGroup, slb.Backend{ServerID: "172.31.0.90", Port: 9000, Weight: 5}, slb.Backend{ServerID: "172.31.0.91", ServerIP: "172.31.0.91", Type: "ip", Port: 9000, Weight: 0}, ""},
	} {
		groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
			product, id := string(tt.g.Product), tt.g.VServerGroupID
			key := fmt.Sprintf("%s:%d", tt.member.ServerID, tt.member.Port)
			require.NoError(t, c.SetWeight(t.Context(), tt.g, tt.member, 0))
			assert.Equal(t, "0 "+tt.more, truth(sim, product, id)[key], "done when it returns, description kept")
			now := tt.member
			now.Weight = 0
			require.NoError(t, c.SetWeight(t.Context(), tt.g, now, tt.member.Weight))
			var conflict *slb.ConflictError
			require.ErrorAs(t, c.SetWeight(t.Context(), tt.g, now, 33), &conflict)
			assert.Equal(t, tt.member.Weight, conflict.Now.Weight)

			require.NoError(t, c.AddBackend(t.Context(), tt.g, tt.add))
			require.NoError(t, c.AddBackend(t.Context(), tt.g, tt.add), "already there")
			assert.Equal(t, "0 "+tt.add.Description, truth(sim, product, id)[fmt.Sprintf("%s:%d", tt.add.ServerID, tt.add.Port)], "a weight of 0 is sent")
			require.NoError(t, c.RemoveBackend(t.Context(), tt.g, tt.add))
			require.NoError(t, c.RemoveBackend(t.Context(), tt.g, tt.add), "already gone")
			assert.Len(t, truth(sim, product, id), 2)

			_, err := c.ListBackends(t.Context(), slb.Group{Product: tt.g.Product, VServerGroupID: "sgp-none"})
			require.ErrorIs(t, err, slb.ErrNotFound)
		})
	}
}

// A job that fails is an error at once, and two writers wait for each other.
func TestJobs(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for _, g := range []slb.Group{appGroup, netGroup} {
			members, err := c.ListBackends(t.Context(), g)
			require.NoError(t, err)
			sim.FailJobs("OperationFailed.Backend")
			begun := time.Now()
			var job *slb.JobError
			require.ErrorAs(t, c.SetWeight(t.Context(), g, members[0], 1), &job)
			assert.Less(t, time.Since(begun), 30*time.Second)
			if g.Product == slb.ALB {
				assert.Equal(t, "OperationFailed.Backend", job.Code)
			}
			again, err := c.ListBackends(t.Context(), g)
			require.NoError(t, err)
			assert.Equal(t, members, again)

			errs := make(chan error, 2)
			for n := range 2 {
				go func() { errs <- c.SetWeight(t.Context(), g, members[n], 42) }()
			}
			require.NoError(t, <-errs)
			require.NoError(t, <-errs)
			again, err = c.ListBackends(t.Context(), g)
			require.NoError(t, err)
			assert.Equal(t, []int{42, 42}, []int{again[0].Weight, again[1].Weight})
		}
	})
}

func TestServerGroupHealth(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		hs, err := c.ListHealth(t.Context(), "alb-1")
		require.NoError(t, err)
		assert.Contains(t, hs, slb.Health{ListenerPort: 80, Port: 8080, Protocol: "http", ServerID: "i-90", ServerIP: "172.31.0.90", Status: "normal"})
		assert.Contains(t, hs, slb.Health{ListenerPort: 80, Port: 8081, Protocol: "http", ServerID: "i-51", ServerIP: "172.31.0.51", Status: "normal"})
		assert.Len(t, hs, 4)
		sim.PoweredOff("i-90")
		hs, err = c.ListHealth(t.Context(), "alb-1")
		require.NoError(t, err)
		assert.Contains(t, hs, slb.Health{ListenerPort: 80, Port: 8080, Protocol: "http", ServerID: "i-90", ServerIP: "172.31.0.90", Status: "abnormal"})

		// The API's lists show nothing of a balancer that does not exist, and of one
		// without listeners.
		sim.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.NLB, ID: "nlb-idle"})
		hs, err = c.ListHealth(t.Context(), "nlb-idle")
		require.NoError(t, err)
		assert.Empty(t, hs)
		for _, id := range []string{"alb-none", "nlb-none"} {
			_, err = c.ListHealth(t.Context(), id)
			require.ErrorIs(t, err, slb.ErrNotFound)
			assert.ErrorContains(t, err, "balancer "+id+": not found in region cn-hangzhou")
			_, err = c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: id})
			require.ErrorIs(t, err, slb.ErrNotFound)
		}
	})
}

// A call names at most 20, 40 or 200 members; more are cut into calls.
func TestBatches(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for _, tt := range []struct {
			g      slb.Group
			action string
		}{{byGroup, "AddVServerGroupBackendServers"}, {appGroup, "alb:AddServersToServerGroup"}} {
			var add []slb.Backend
			for n := range 90 {
				add = append(add, slb.Backend{ServerID: "i-91", Port: 10000 + n, Weight: n % 7})
			}
			require.NoError(t, c.AddBackends(t.Context(), tt.g, add))
			all, err := c.ListBackends(t.Context(), tt.g)
			require.NoError(t, err)
			for _, want := range add {
				assert.True(t, hasMember(all, want), "%s with weight %d", want, want.Weight)
			}
			require.NoError(t, c.RemoveBackends(t.Context(), tt.g, add))
		}
		assert.Equal(t, 5, sim.Counts()["AddVServerGroupBackendServers"])
		assert.Equal(t, 3, sim.Counts()["alb:AddServersToServerGroup"])
	})
}

func hasMember(all []slb.Backend, want slb.Backend) bool {
	for _, b := range all {
		if b.ServerID == want.ServerID && b.Port == want.Port && b.Weight == want.Weight {
			return true
		}
	}
	return false
}
