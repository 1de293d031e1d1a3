package slb_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	keyID  = "LTAI5tExampleKeyIdOfTest"
	secret = "s3cr3tOfTheTestThatNobodyMaySee"
)

var (
	byDefault = slb.Group{LoadBalancerID: "lb-1"}
	byGroup   = slb.Group{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1"}
)

// world runs f with a client on a simulated cloud in virtual time, and checks
// that every request was one the cloud knows.
func world(t *testing.T, f func(t *testing.T, sim *cloud.Cloud, c *slb.Client)) {
	worldWith(t, nil, f)
}

func worldWith(t *testing.T, health func(cloud.HealthQuery) string, f func(t *testing.T, sim *cloud.Cloud, c *slb.Client)) {
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret, Health: health})
		defer sim.Close()
		for n, id := range []string{"i-90", "i-50", "i-51", "i-91"} {
			sim.AddInstance(cloud.Instance{ID: id, PrivateIP: fmt.Sprintf("172.31.0.%d", []int{90, 50, 51, 91}[n]), ENI: "eni-" + id[2:]})
		}
		sim.AddLoadBalancer(cloud.LoadBalancer{
			ID: "lb-1", Name: "front", Address: "172.31.1.1",
			Listeners: []cloud.Listener{
				{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true, StickySession: true, Rules: []cloud.Rule{{ID: "rule-1", Domain: "shop.example.com", VServerGroup: "rsp-1"}}},
				{Port: 9000, Protocol: "tcp", Scheduler: "wlc", VServerGroup: "rsp-1", HealthCheck: true},
			},
			Default: []cloud.Backend{{ServerID: "i-90", Weight: 100, Description: "first"}, {ServerID: "i-50", Weight: 60}},
			Groups: []cloud.VServerGroup{
				{ID: "rsp-1", Name: "shop", Backends: []cloud.Backend{{ServerID: "i-90", Port: 8081, Weight: 80, Description: "shop on 90"}, {ServerID: "i-90", Port: 8082, Weight: 70}, {ServerID: "i-51", Port: 8081, Weight: 80}}},
				{ID: "rsp-2", Name: "by interface", Backends: []cloud.Backend{{ServerID: "eni-90", Type: "eni", ServerIP: "172.31.0.90", Port: 7000, Weight: 30}}},
				{ID: "rsp-3", Name: "others", Backends: []cloud.Backend{{ServerID: "i-50", Port: 8081, Weight: 80}}},
			},
		})
		sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-2", Name: "only by interface", Listeners: []cloud.Listener{{Port: 443, Protocol: "tcp", BackendPort: 443}},
			Default: []cloud.Backend{{ServerID: "eni-90", Type: "eni", ServerIP: "172.31.0.90", Weight: 10}}})
		sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-3", Name: "not ours", Default: []cloud.Backend{{ServerID: "i-50", Weight: 10}}})
		c, err := slb.New(slb.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, slb.WithTransport(sim.Transport()))
		require.NoError(t, err)
		f(t, sim, c)
		assert.Empty(t, sim.Refused())
	})
}

func TestDiscover(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ms, err := c.Discover(t.Context(), slb.Server{InstanceID: "i-90", ENIs: []string{"eni-90"}, IPs: []string{"172.31.0.90"}})
		require.NoError(t, err)
		var got []string
		for _, m := range ms {
			got = append(got, fmt.Sprintf("%s/%s %s=%d", m.LoadBalancerID, m.VServerGroupID, m.Backend, m.Backend.Weight))
		}
		assert.Equal(t, []string{
			"lb-1/ i-90 (172.31.0.90)=100", "lb-1/rsp-1 i-90 (172.31.0.90):8081=80", "lb-1/rsp-1 i-90 (172.31.0.90):8082=70", "lb-1/rsp-2 eni-90 (172.31.0.90):7000=30", "lb-2/ eni-90 (172.31.0.90)=10",
		}, normal(got))
		assert.Equal(t, "front", ms[0].LoadBalancerName)
		assert.Equal(t, "172.31.1.1", ms[0].Address)
		assert.Equal(t, []slb.Listener{{LoadBalancerID: "lb-1", Port: 80, Protocol: "http", Scheduler: "wrr", Status: "running", BackendPort: 8080, HealthCheck: true, Sticky: true, StickySeconds: 300}}, ms[0].Listeners)
		assert.Equal(t, "shop", ms[1].VServerGroupName)
		assert.Equal(t, []slb.Listener{
			{LoadBalancerID: "lb-1", Port: 80, Protocol: "http", Scheduler: "wrr", Status: "running", HealthCheck: true, Sticky: true, StickySeconds: 300, Rule: "rule-1", Domain: "shop.example.com"},
			{LoadBalancerID: "lb-1", Port: 9000, Protocol: "tcp", Scheduler: "wlc", Status: "running", HealthCheck: true},
		}, sortedListeners(ms[1].Listeners))
		assert.Len(t, ms[1].Backends, 3)
		assert.Equal(t, byGroup, ms[1].Group())

		ms, err = c.Discover(t.Context(), slb.Server{InstanceID: "i-91"})
		require.NoError(t, err)
		assert.Empty(t, ms)
		_, err = c.Discover(t.Context(), slb.Server{})
		require.Error(t, err, "no server must not mean every server")
	})
}

// normal makes members look alike whether the cloud shows their address or not.
func normal(in []string) []string {
	for i, s := range in {
		if !strings.Contains(s, "(") {
			j := strings.IndexAny(s[strings.Index(s, " ")+1:], ":=") + strings.Index(s, " ") + 1
			in[i] = s[:j] + " (172.31.0.90)" + s[j:]
		}
	}
	return in
}

func sortedListeners(in []slb.Listener) []slb.Listener {
	if len(in) == 2 && in[0].Port > in[1].Port {
		in[0], in[1] = in[1], in[0]
	}
	return in
}

func TestDiscoverManyBalancers(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for n := range 120 {
			sim.AddLoadBalancer(cloud.LoadBalancer{ID: fmt.Sprintf("lb-x%03d", n), Default: []cloud.Backend{{ServerID: "i-91", Weight: 1}}})
		}
		ms, err := c.Discover(t.Context(), slb.Server{InstanceID: "i-91"})
		require.NoError(t, err)
		assert.Len(t, ms, 120)
	})
}

func member(t *testing.T, c *slb.Client, g slb.Group, id string, port int) *slb.Backend {
	t.Helper()
	all, err := c.ListBackends(t.Context(), g)
	require.NoError(t, err)
	for _, b := range all {
		if b.ServerID == id && b.Port == port {
			return &b
		}
	}
	return nil
}

func TestSetWeight(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ctx := t.Context()
		for _, x := range []struct {
			g    slb.Group
			port int
		}{{byDefault, 0}, {byGroup, 8081}} {
			was := *member(t, c, x.g, "i-90", x.port)
			before, err := c.ListBackends(ctx, x.g)
			require.NoError(t, err)
			require.NoError(t, c.SetWeight(ctx, x.g, was, 0))
			now := *member(t, c, x.g, "i-90", x.port)
			assert.Equal(t, 0, now.Weight)
			now.Weight = was.Weight
			assert.Equal(t, was, now, "nothing else of the member changes")

			writes := sim.Counts()["SetBackendServers"] + sim.Counts()["SetVServerGroupAttribute"]
			require.NoError(t, c.SetWeight(ctx, x.g, was, 0), "again, as after a crash")
			assert.Equal(t, writes, sim.Counts()["SetBackendServers"]+sim.Counts()["SetVServerGroupAttribute"])

			drained := was
			drained.Weight = 0
			require.NoError(t, c.SetWeight(ctx, x.g, drained, was.Weight), "a busy balancer is waited for")
			after, err := c.ListBackends(ctx, x.g)
			require.NoError(t, err)
			assert.Equal(t, before, after, "and all is as it was")
		}
		require.ErrorContains(t, c.SetWeight(ctx, byDefault, slb.Backend{ServerID: "i-90"}, 101), "0 to 100")
		require.Error(t, c.SetWeight(ctx, slb.Group{}, slb.Backend{ServerID: "i-90"}, 1))
	})
}

func TestConflict(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ctx := t.Context()
		was := *member(t, c, byGroup, "i-90", 8081)
		require.NoError(t, c.SetWeight(ctx, byGroup, was, 33)) // somebody else
		writes := sim.Counts()["SetVServerGroupAttribute"]

		err := c.SetWeight(ctx, byGroup, was, 0)
		require.ErrorIs(t, err, slb.ErrConflict)
		var ce *slb.ConflictError
		require.ErrorAs(t, err, &ce)
		assert.Equal(t, 80, ce.Was.Weight)
		assert.Equal(t, 33, ce.Now.Weight)
		assert.Equal(t, 0, ce.Want)
		assert.ErrorContains(t, err, "has weight 33: read as 80, to be set to 0")

		require.ErrorIs(t, c.AddBackend(ctx, byGroup, was), slb.ErrConflict, "there, with another weight")

		require.NoError(t, c.RemoveBackend(ctx, byGroup, was))
		err = c.SetWeight(ctx, byGroup, was, 0)
		require.ErrorAs(t, err, &ce)
		assert.Nil(t, ce.Now)
		assert.ErrorContains(t, err, "is gone")
		assert.Equal(t, writes, sim.Counts()["SetVServerGroupAttribute"], "nothing was written")
	})
}

func TestAddRemove(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ctx := t.Context()
		for _, x := range []struct {
			g slb.Group
			b slb.Backend
		}{
			{byDefault, slb.Backend{ServerID: "i-91", Weight: 0, Description: "transition"}},
			{byGroup, slb.Backend{ServerID: "i-91", Port: 8081, Weight: 0, Description: "transition"}},
			{byGroup, slb.Backend{ServerID: "eni-91", Type: "eni", ServerIP: "172.31.0.91", Port: 8083, Weight: 1}},
		} {
			before, err := c.ListBackends(ctx, x.g)
			require.NoError(t, err)
			require.NoError(t, c.AddBackend(ctx, x.g, x.b))
			require.NoError(t, c.AddBackend(ctx, x.g, x.b), "what is there is there")
			got := member(t, c, x.g, x.b.ServerID, x.b.Port)
			require.NotNil(t, got)
			assert.Equal(t, x.b.Weight, got.Weight, "weight 0 is sent: left out it would mean full traffic")
			assert.Equal(t, x.b.Description, got.Description)
			require.NoError(t, c.RemoveBackend(ctx, x.g, x.b))
			require.NoError(t, c.RemoveBackend(ctx, x.g, x.b))
			after, err := c.ListBackends(ctx, x.g)
			require.NoError(t, err)
			assert.Equal(t, before, after)
		}
		for _, x := range []struct {
			g slb.Group
			b slb.Backend
		}{
			{byGroup, slb.Backend{ServerID: "i-91", Weight: 1}}, {byDefault, slb.Backend{ServerID: "i-91", Port: 80}},
			{byDefault, slb.Backend{ServerID: "i-91", Weight: -1}}, {byDefault, slb.Backend{}},
		} {
			require.Error(t, c.AddBackend(ctx, x.g, x.b))
		}
		var e *slb.Error
		require.ErrorAs(t, c.AddBackend(ctx, byDefault, slb.Backend{ServerID: "i-none", Weight: 1}), &e)
		require.ErrorIs(t, e, slb.ErrNotFound)
	})
}

// A write whose answer is lost is looked for, not repeated; one that did not
// happen is made.
func TestLostAnswers(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		ctx := t.Context()
		transition := slb.Backend{ServerID: "i-91", Port: 8081, Weight: 5}
		for _, applied := range []bool{true, false} {
			start := sim.Counts()
			for _, a := range []string{"SetVServerGroupAttribute", "AddVServerGroupBackendServers", "RemoveVServerGroupBackendServers"} {
				sim.InjectFault(cloud.Fault{Action: a, Kind: cloud.FaultCut, Applied: applied})
			}
			was := *member(t, c, byGroup, "i-51", 8081)
			require.NoError(t, c.SetWeight(ctx, byGroup, was, 7))
			assert.Equal(t, 7, member(t, c, byGroup, "i-51", 8081).Weight)
			require.NoError(t, c.AddBackend(ctx, byGroup, transition))
			require.NoError(t, c.RemoveBackend(ctx, byGroup, transition))
			assert.Nil(t, member(t, c, byGroup, "i-91", 8081))
			now := was
			now.Weight = 7
			require.NoError(t, c.SetWeight(ctx, byGroup, now, was.Weight))
			end := sim.Counts()
			for a, want := range map[string]int{"SetVServerGroupAttribute": 2, "AddVServerGroupBackendServers": 1, "RemoveVServerGroupBackendServers": 1} {
				assert.Equal(t, want, end[a]-start[a], "%s took effect (answer lost after the effect: %v)", a, applied)
			}
		}

		// And it ends: three open writes are not followed by a fourth.
		sim.InjectFault(cloud.Fault{Action: "SetBackendServers", Code: "InternalError", Times: -1})
		err := c.SetWeight(ctx, byDefault, *member(t, c, byDefault, "i-50", 0), 1)
		var e *slb.Error
		require.ErrorAs(t, err, &e)
		assert.True(t, e.Ambiguous)
		assert.Equal(t, "InternalError", e.Code)
	})
}

func TestBusyTooLong(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		sim.InjectFault(cloud.Fault{Action: "SetBackendServers", Code: "ServiceIsConfiguring", Status: 400, Times: -1})
		start := time.Now()
		err := c.SetWeight(t.Context(), byDefault, *member(t, c, byDefault, "i-50", 0), 1)
		require.ErrorContains(t, err, "ServiceIsConfiguring")
		assert.LessOrEqual(t, time.Since(start), 5*time.Minute)

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err = c.SetWeight(ctx, byDefault, *member(t, c, byDefault, "i-50", 0), 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestManaged(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		sim.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-ack", ServiceManaged: true, Default: []cloud.Backend{{ServerID: "i-91", Weight: 1}}})
		ms, err := c.Discover(t.Context(), slb.Server{InstanceID: "i-91"})
		require.NoError(t, err)
		require.Len(t, ms, 1)
		assert.True(t, ms[0].Managed)
		var e *slb.Error
		require.ErrorAs(t, c.SetWeight(t.Context(), ms[0].Group(), ms[0].Backend, 0), &e)
		assert.Equal(t, "OperationUnsupported.ServiceManaged", e.Code)
	})
}

// TestWrongAsker: what is wrong with the one who asks is one message each, and a
// sentinel for those who decide by it.
func TestWrongAsker(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for _, tt := range []struct {
			code string
			is   error
			says string
		}{
			{"Forbidden.RAM", slb.ErrPermission, `add a statement with Action "slb:DescribeHealthStatus" on Resource "acs:slb:*:*:*"`},
			{"Forbidden.RAM", slb.ErrCredentials, "credentials came from the configuration"},
			{"InvalidAccessKeyId.NotFound", slb.ErrCredentials, "check the access key"},
			{"InvalidSecurityToken.Expired", slb.ErrCredentials, "get fresh temporary credentials"},
			{"InvalidTimeStamp.Expired", slb.ErrClock, "the clock of this machine"},
			{"InvalidRegionId.NotFound", slb.ErrRegion, "region cn-hangzhou, endpoint slb.aliyuncs.com"},
		} {
			sim.InjectFault(cloud.Fault{Action: "DescribeHealthStatus", Code: tt.code, Status: 400, Times: 1})
			_, err := c.ListHealth(t.Context(), "lb-1")
			require.ErrorIs(t, err, tt.is, tt.code)
			assert.ErrorContains(t, err, tt.says)
			assert.NotContains(t, err.Error(), keyID)
			assert.NotContains(t, err.Error(), secret)
		}
		assert.Equal(t, 6, sim.Counts()["DescribeHealthStatus"]+6, "none was tried again")
	})
}

func TestHealth(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		hs, err := c.ListHealth(t.Context(), "lb-1")
		require.NoError(t, err)
		assert.Contains(t, hs, slb.Health{ListenerPort: 9000, Port: 8081, Protocol: "tcp", ServerID: "i-51", ServerIP: "172.31.0.51", Status: "normal"})
		_, err = c.ListHealth(t.Context(), "lb-none")
		require.ErrorIs(t, err, slb.ErrNotFound)
		_, err = c.ListBackends(t.Context(), slb.Group{LoadBalancerID: "lb-1", VServerGroupID: "rsp-none"})
		require.ErrorIs(t, err, slb.ErrNotFound)
	})
}

func TestConcurrent(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				b := slb.Backend{ServerID: "i-91", Port: 9000 + n, Weight: n}
				assert.NoError(t, c.AddBackend(t.Context(), byGroup, b))
				assert.NoError(t, c.SetWeight(t.Context(), byGroup, b, 50))
				assert.NoError(t, c.RemoveBackend(t.Context(), byGroup, b))
			})
		}
		wg.Wait()
		all, err := c.ListBackends(t.Context(), byGroup)
		require.NoError(t, err)
		assert.Len(t, all, 3)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Primary/secondary groups are found, and refused where they cannot be changed.
// Weights come as strings in some answers of the cloud.
func TestMasterSlave(t *testing.T) {
	answers := map[string]string{
		"DescribeLoadBalancers":                   `{"RequestId":"R","TotalCount":1,"LoadBalancers":{"LoadBalancer":[{"LoadBalancerId":"lb-9","LoadBalancerName":"db"}]}}`,
		"DescribeLoadBalancerListeners":           `{"RequestId":"R","Listeners":[{"LoadBalancerId":"lb-9","ListenerPort":3306,"ListenerProtocol":"tcp","Scheduler":"wrr","Status":"running","TCPListenerConfig":{"MasterSlaveServerGroupId":"ms-1","HealthCheck":"on"}}]}`,
		"DescribeLoadBalancerAttribute":           `{"RequestId":"R","LoadBalancerId":"lb-9","BackendServers":{"BackendServer":[{"ServerId":"i-8","Weight":"40"}]}}`,
		"DescribeVServerGroups":                   `{"RequestId":"R","VServerGroups":{"VServerGroup":[]}}`,
		"DescribeMasterSlaveServerGroups":         `{"RequestId":"R","MasterSlaveServerGroups":{"MasterSlaveServerGroup":[{"MasterSlaveServerGroupId":"ms-1"}]}}`,
		"ListServerGroupServers":                  `{"RequestId":"R","Servers":[]}`,
		"DescribeMasterSlaveServerGroupAttribute": `{"RequestId":"R","MasterSlaveServerGroupId":"ms-1","MasterSlaveServerGroupName":"pair","MasterSlaveBackendServers":{"MasterSlaveBackendServer":[{"ServerId":"i-90","Port":3306,"Weight":100,"ServerType":"Master"},{"ServerId":"i-8","Port":"3306","Weight":"100","ServerType":"Slave"}]}}`,
	}
	c, err := slb.New(slb.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, slb.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		a := answers[r.URL.Query().Get("Action")]
		if a == "" {
			t.Errorf("the fake does not know %s", r.URL.Query().Get("Action"))
			a = `{"RequestId":"R","Code":"InvalidAction","Message":"unknown"}`
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a))}, nil
	})))
	require.NoError(t, err)
	ms, err := c.Discover(t.Context(), slb.Server{InstanceID: "i-90"})
	require.NoError(t, err)
	require.Len(t, ms, 1)
	assert.Equal(t, "ms-1", ms[0].MasterSlaveGroupID)
	assert.Equal(t, 3306, ms[0].Listeners[0].Port)
	assert.Len(t, ms[0].Backends, 2)
	require.ErrorContains(t, c.SetWeight(t.Context(), ms[0].Group(), ms[0].Backend, 0), "cannot be changed")

	all, err := c.ListBackends(t.Context(), slb.Group{LoadBalancerID: "lb-9"})
	require.NoError(t, err)
	assert.Equal(t, []slb.Backend{{ServerID: "i-8", Weight: 40}}, all)
}
