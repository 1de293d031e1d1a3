package cloud_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// balanced is a world with one balancer in front of web-90 and web-89: two
// listeners on the default group, one with a VServer group, one with a
// primary/secondary group.
func balanced(t *testing.T, change func(*cloud.Config), f func(c *cloud.Cloud, m *machines, a *api)) {
	t.Helper()
	world(t, change, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddLoadBalancer(cloud.LoadBalancer{
			ID: "lb-1", Name: "front", Address: "172.31.0.200", Tags: map[string]string{"team": "web"},
			Listeners: []cloud.Listener{
				{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true, HealthCheckURI: "/health", StickySession: true,
					Rules: []cloud.Rule{{ID: "rule-1", Name: "shop", Domain: "shop.example", URL: "/", VServerGroup: "rsp-1"}}},
				{Port: 443, Protocol: "tcp", BackendPort: 8443, ConnectionDrainTimeout: 60},
				{Port: 8081, Protocol: "tcp", VServerGroup: "rsp-1", Scheduler: "rr", HealthCheck: true},
				{Port: 53, Protocol: "udp", MasterSlaveGroup: "rsp-ms", HealthCheck: true},
			},
			Default: []cloud.Backend{{ServerID: "i-web90", Weight: 100}, {ServerID: "i-web89", Weight: 100}},
			Groups: []cloud.VServerGroup{{ID: "rsp-1", Name: "shop", Backends: []cloud.Backend{
				{ServerID: "i-web90", Port: 8081, Weight: 70, Description: "blue"}, {ServerID: "i-web89", Port: 8081, Weight: 30}}}},
			MasterSlaves: []cloud.MasterSlaveGroup{{ID: "rsp-ms", Name: "dns",
				Master: cloud.Backend{ServerID: "i-web90", Port: 53, Weight: 100}, Slave: cloud.Backend{ServerID: "i-web89", Port: 53, Weight: 100}}},
		})
		c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-2", Name: "other", Address: "172.31.0.201"})
		f(c, m, a)
	})
}

// settle waits until a balancer takes the next write.
func settle() { time.Sleep(2 * time.Second) }

func TestDescribeLoadBalancers(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, row := range []struct {
			kv   []string
			want int
		}{
			{nil, 2},
			{[]string{"ServerId", "i-web90"}, 1},
			{[]string{"ServerId", "i-none"}, 0},
			{[]string{"ServerIntranetAddress", "172.31.0.89,172.31.0.1"}, 1},
			{[]string{"LoadBalancerId", "lb-1,lb-2"}, 2},
			{[]string{"LoadBalancerName", "other"}, 1},
			{[]string{"Address", "172.31.0.200"}, 1},
			{[]string{"Tag.1.Key", "team"}, 1},
			{[]string{"PageNumber", "2", "PageSize", "1"}, 1},
		} {
			assert.Equalf(t, row.want, a.ok(slb, "DescribeLoadBalancers", row.kv...).Len("LoadBalancers.LoadBalancer"), "%v", row.kv)
		}
		a.no(400, "MissingParameter", slb, "DescribeLoadBalancers", "PageSize", "10")
	})
}

func TestDescribeBalancer(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		r := a.ok(slb, "DescribeLoadBalancerAttribute", "LoadBalancerId", "lb-1")
		assert.Equal(t, 4, r.Len("ListenerPortsAndProtocol.ListenerPortAndProtocol"))
		assert.Equal(t, 4, r.Len("ListenerPortsAndProtocal.ListenerPortAndProtocal"))
		assert.EqualValues(t, 100, r.At("BackendServers.BackendServer.0.Weight"))
		assert.Equal(t, "172.31.0.90", r.At("BackendServers.BackendServer.0.ServerIp"))
		a.no(404, "InvalidLoadBalancerId.NotFound", slb, "DescribeLoadBalancerAttribute", "LoadBalancerId", "lb-none")

		r = a.ok(slb, "DescribeLoadBalancerListeners", "LoadBalancerId.1", "lb-1", "MaxResults", "100")
		assert.Equal(t, 4, r.Len("Listeners"), "a flat list")
		assert.Equal(t, "on", r.At("Listeners.0.HTTPListenerConfig.StickySession"))
		assert.Equal(t, "on", r.At("Listeners.1.TCPListenerConfig.ConnectionDrain"))
		assert.Equal(t, "off", r.At("Listeners.1.TCPListenerConfig.HealthCheck"))
		assert.Equal(t, "rr", r.At("Listeners.2.Scheduler"))
		assert.Equal(t, "rsp-1", r.At("Listeners.2.VServerGroupId"))
		assert.Equal(t, "rsp-ms", r.At("Listeners.3.UDPListenerConfig.MasterSlaveServerGroupId"))

		r = a.ok(slb, "DescribeVServerGroups", "LoadBalancerId", "lb-1", "IncludeListener", "true", "IncludeRule", "true")
		assert.Equal(t, "rsp-1", r.At("VServerGroups.VServerGroup.0.VServerGroupId"))
		assert.EqualValues(t, 8081, r.At("VServerGroups.VServerGroup.0.AssociatedObjects.Listeners.Listener.0.Port"))
		assert.Equal(t, "rule-1", r.At("VServerGroups.VServerGroup.0.AssociatedObjects.Rules.Rule.0.RuleId"))
		r = a.ok(slb, "DescribeVServerGroupAttribute", "VServerGroupId", "rsp-1")
		assert.Equal(t, "blue", r.At("BackendServers.BackendServer.0.Description"))
		a.no(404, "InvalidParameter", slb, "DescribeVServerGroupAttribute", "VServerGroupId", "rsp-none")

		assert.Equal(t, "rsp-1", a.ok(slb, "DescribeRules", "LoadBalancerId", "lb-1", "ListenerPort", "80").At("Rules.Rule.0.VServerGroupId"))
		assert.Equal(t, "rsp-ms", a.ok(slb, "DescribeMasterSlaveServerGroups", "LoadBalancerId", "lb-1", "IncludeListener", "true").
			At("MasterSlaveServerGroups.MasterSlaveServerGroup.0.MasterSlaveServerGroupId"))
	})
}

// The type of Weight differs by action.
func TestWeightTypes(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddInstance(cloud.Instance{ID: "i-3", PrivateIP: "172.31.0.93"})
		for _, row := range []struct {
			action, target, id, servers string
			want                        any
		}{
			{"AddBackendServers", "LoadBalancerId", "lb-1", `[{"ServerId":"i-3","Weight":5}]`, "100"},
			{"SetBackendServers", "LoadBalancerId", "lb-1", `[{"ServerId":"i-3","Weight":"0"}]`, "100"},
			{"RemoveBackendServers", "LoadBalancerId", "lb-1", `[{"ServerId":"i-3"}]`, 100.0},
			{"AddVServerGroupBackendServers", "VServerGroupId", "rsp-1", `[{"ServerId":"i-3","Port":"81","Weight":5}]`, 70.0},
			{"SetVServerGroupAttribute", "VServerGroupId", "rsp-1", `[{"ServerId":"i-3","Port":81,"Weight":"7"}]`, 70.0},
			{"RemoveVServerGroupBackendServers", "VServerGroupId", "rsp-1", `[{"ServerId":"i-3","Port":"81"}]`, 70.0},
		} {
			r := a.ok(slb, row.action, row.target, row.id, "BackendServers", row.servers)
			assert.Equal(t, row.want, r.At("BackendServers.BackendServer.0.Weight"), row.action)
			settle()
		}
	})
}

func TestWrites(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		var changes atomic.Int32
		c.OnChange(func() { changes.Add(1) })
		weights := func() string {
			var b strings.Builder
			for _, l := range append([]cloud.VServerGroup{{Backends: c.LoadBalancers()[0].Default}}, c.LoadBalancers()[0].Groups...) {
				for _, s := range l.Backends {
					fmt.Fprintf(&b, "%s:%d=%d%s ", strings.TrimPrefix(s.ServerIP, "172.31.0."), s.Port, s.Weight, s.Description)
				}
			}
			return strings.TrimSpace(b.String())
		}
		vs := func(action, servers string) {
			t.Helper()
			a.ok(slb, action, "VServerGroupId", "rsp-1", "BackendServers", servers)
			settle()
		}
		assert.Equal(t, "90:0=100 89:0=100 90:8081=70blue 89:8081=30", weights())
		vs("SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":8081,"Weight":0,"Description":"blue"}]`)
		assert.Equal(t, "90:0=100 89:0=100 90:8081=0blue 89:8081=30", weights(), "what is not named stays")
		vs("SetVServerGroupAttribute", `[{'ServerId':'i-web90','Port':'8081','Weight':'70', 'Type': 'ecs'}]`)
		assert.Equal(t, "90:0=100 89:0=100 90:8081=70 89:8081=30", weights(), "single quotes are taken; the description not sent is lost")
		vs("AddVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":8082,"Weight":0},{"ServerId":"eni-90","Type":"eni","ServerIp":"172.31.0.90","Port":8083}]`)
		assert.Equal(t, "90:0=100 89:0=100 90:8081=70 89:8081=30 90:8082=0 90:8083=100", weights(), "no weight means 100")
		vs("RemoveVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":8082},{"ServerId":"eni-90","Port":8083},{"ServerId":"i-absent","Port":1}]`)
		a.ok(slb, "SetBackendServers", "LoadBalancerId", "lb-1", "BackendServers", `[{"ServerId":"i-web90","Weight":0}]`)
		assert.Equal(t, "90:0=0 89:0=100 90:8081=70 89:8081=30", weights())
		assert.EqualValues(t, 5, changes.Load())
		settle()
		a.ok(slb, "SetVServerGroupAttribute", "VServerGroupId", "rsp-1", "VServerGroupName", "renamed")
		assert.Equal(t, "renamed", c.LoadBalancers()[0].Groups[0].Name)
	})
}

func TestWriteRefusals(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddInstance(cloud.Instance{ID: "i-off", PrivateIP: "172.31.0.94", Status: "Stopped"})
		var many []string
		for n := range 21 {
			many = append(many, fmt.Sprintf(`{"ServerId":"i-%d","Port":80}`, n))
		}
		before := c.LoadBalancers()
		for _, row := range []struct {
			status                int
			code, action, servers string
		}{
			{400, "RspoolVipExist", "AddVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":8081}]`},
			{400, "RspoolVipExist", "AddVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":1},{"ServerId":"i-web90","Port":1}]`},
			{400, "ObtainIpFail", "AddVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":9},{"ServerId":"i-off","Port":8081}]`},
			{404, "InvalidServerId.NotFound", "AddVServerGroupBackendServers", `[{"ServerId":"i-none","Port":8081}]`},
			{400, "InvalidParameter", "AddVServerGroupBackendServers", `[{"ServerId":"i-web90","Port":9,"ServerIp":"172.31.0.1"}]`},
			{400, "TooManyBackendServers", "AddVServerGroupBackendServers", "[" + strings.Join(many, ",") + "]"},
			{400, "InvalidBackendPort.Malformed", "AddVServerGroupBackendServers", `[{"ServerId":"i-web90"}]`},
			{400, "InvalidParameter", "SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":9,"Weight":1}]`},
			{400, "InvalidParameter", "SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":8081,"Weight":1},{"ServerId":"i-web89","Port":9}]`},
			{400, "InvalidWeight.Malformed", "SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":8081,"Weight":101}]`},
			{400, "BackendServersMalformed", "SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":8081,"Wieght":1}]`},
			{400, "BackendServersMalformed", "SetVServerGroupAttribute", `{"ServerId":"i-web90"}`},
			{400, "BackendServersMalformed", "SetVServerGroupAttribute", `[]`},
			{400, "BackendServersMalformed", "SetVServerGroupAttribute", `[{"ServerId":"i-web90","Port":8081}] x`},
			{400, "MissingParameter", "SetVServerGroupAttribute", ``},
			{400, "BackendServersMalformed", "SetBackendServers", `[{"ServerId":"i-web90","Port":80,"Weight":1}]`},
			{400, "RspoolVipExist", "AddBackendServers", `[{"ServerId":"i-web90"}]`},
			{400, "MissingParameter", "AddBackendServers", ``},
		} {
			target := []string{"VServerGroupId", "rsp-1"}
			if !strings.Contains(row.action, "VServerGroup") {
				target = []string{"LoadBalancerId", "lb-1"}
			}
			a.no(row.status, row.code, slb, row.action, append(target, "BackendServers", row.servers)...)
		}
		a.no(404, "InvalidParameter", slb, "SetVServerGroupAttribute", "VServerGroupId", "rsp-none", "VServerGroupName", "x")
		assert.Equal(t, before, c.LoadBalancers(), "a write is done whole or not at all")
		assert.Equal(t, 0, c.Counts()["SetVServerGroupAttribute"])
	})
}

func TestBusyAfterEachWrite(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		set := []string{"LoadBalancerId", "lb-1", "BackendServers", `[{"ServerId":"i-web90","Weight":0}]`}
		a.ok(slb, "SetBackendServers", set...)
		a.no(400, "ServiceIsConfiguring", slb, "SetBackendServers", set...)
		a.no(400, "VServerGroupProcessing", slb, "SetVServerGroupAttribute", "VServerGroupId", "rsp-1", "VServerGroupName", "x")
		a.no(403, "DependencyViolation.SLBConfiguring", ecs, "DeleteInstance", "InstanceId", "i-web90", "Force", "true")
		a.ok(slb, "AddBackendServers", "LoadBalancerId", "lb-2", "BackendServers", `[{"ServerId":"i-web90"}]`)
		a.ok(slb, "DescribeLoadBalancerAttribute", "LoadBalancerId", "lb-1")
		settle()
		a.ok(slb, "SetBackendServers", set...)
	})
}

func TestBalancersThatTakeNoWrites(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-locked", Status: "locked"})
		c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-k8s", ServiceManaged: true})
		a.no(403, "ActionNotAllowed", slb, "AddBackendServers", "LoadBalancerId", "lb-locked", "BackendServers", `[{"ServerId":"i-web90"}]`)
		a.no(403, "OperationUnsupported.ServiceManaged", slb, "AddBackendServers", "LoadBalancerId", "lb-k8s", "BackendServers", `[{"ServerId":"i-web90"}]`)
		assert.Equal(t, "Managed", a.ok(slb, "DescribeLoadBalancerAttribute", "LoadBalancerId", "lb-k8s").At("ServiceManagedMode"))
	})
}

// A deleted instance is no member any more.
func TestReleaseLeavesBalancers(t *testing.T) {
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		changed := false
		c.OnChange(func() { changed = true })
		a.ok(ecs, "DeleteInstance", "InstanceId", "i-web89", "Force", "true")
		assert.True(t, changed)
		lb := c.LoadBalancers()[0]
		assert.Len(t, lb.Default, 1)
		assert.Len(t, lb.Groups[0].Backends, 1)
	})
}

func TestHealthStatus(t *testing.T) {
	health := func(a *api, kv ...string) map[string]string {
		r := a.ok(slb, "DescribeHealthStatus", append(kv, "LoadBalancerId", "lb-1")...)
		got := map[string]string{}
		for n := range r.Len("BackendServers.BackendServer") {
			p := fmt.Sprintf("BackendServers.BackendServer.%d.", n)
			got[fmt.Sprint(r.At(p+"ListenerPort"), " ", r.At(p+"ServerId"), ":", r.At(p+"Port"))] = r.Str(p + "ServerHealthStatus")
		}
		return got
	}
	balanced(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.PoweredOff("i-web89")
		assert.Equal(t, map[string]string{
			"80 i-web90:8080": "normal", "80 i-web89:8080": "abnormal",
			"80 i-web90:8081": "normal", "80 i-web89:8081": "abnormal", // the rule's group
			"443 i-web90:8443": "unavailable", "443 i-web89:8443": "unavailable", // does not check
			"8081 i-web90:8081": "normal", "8081 i-web89:8081": "abnormal",
			"53 i-web90:53": "normal", "53 i-web89:53": "abnormal",
		}, health(a))
		assert.Len(t, health(a, "ListenerPort", "8081"), 2)
		a.no(400, "ListenerNotExist", slb, "DescribeHealthStatus", "LoadBalancerId", "lb-1", "ListenerPort", "1")
	})
	var asked []cloud.HealthQuery
	balanced(t, func(cfg *cloud.Config) {
		cfg.ZeroWeightAbnormal = true
		cfg.Health = func(q cloud.HealthQuery) string {
			asked = append(asked, q)
			return "normal"
		}
	}, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(slb, "SetVServerGroupAttribute", "VServerGroupId", "rsp-1", "BackendServers", `[{"ServerId":"i-web90","Port":8081,"Weight":0}]`)
		assert.Equal(t, map[string]string{"8081 i-web90:8081": "abnormal", "8081 i-web89:8081": "normal"}, health(a, "ListenerPort", "8081"))
		assert.Equal(t, []cloud.HealthQuery{{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", ListenerPort: 8081, Protocol: "tcp",
			ServerID: "i-web89", ServerIP: "172.31.0.89", Port: 8081, Weight: 30}}, asked)
	})
}

func TestPanicsOnWorldsThatCannotBe(t *testing.T) {
	c := cloud.New(cloud.Config{})
	defer c.Close()
	c.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.90"})
	c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-1"})
	for name, f := range map[string]func(){
		"same instance": func() { c.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.91"}) },
		"same address":  func() { c.AddInstance(cloud.Instance{ID: "i-2", PrivateIP: "172.31.0.90"}) },
		"no address":    func() { c.AddInstance(cloud.Instance{ID: "i-2"}) },
		"same balancer": func() { c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-1"}) },
		"unknown group": func() {
			c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-2", Listeners: []cloud.Listener{{Port: 80, VServerGroup: "rsp-none"}}})
		},
		"unknown member": func() {
			c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-2", Default: []cloud.Backend{{ServerID: "i-none"}}})
		},
	} {
		assert.Panicsf(t, f, "%s", name)
	}
}
