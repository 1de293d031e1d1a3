package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// serveCloud runs the simulated cloud of the scripts for this test's commands.
func serveCloud(t *testing.T) *cloud.Cloud {
	t.Helper()
	c := newSimCloud()
	s := httptest.NewServer(c)
	t.Cleanup(func() { s.Close(); c.Close() })
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIsim")
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", simSecret)
	t.Setenv("ALIBABA_CLOUD_REGION_ID", "cn-hangzhou")
	t.Setenv("ENDPOINT", s.URL)
	t.Cleanup(func() { assert.Empty(t, c.Refused()) })
	return c
}

func TestTrafficCommand(t *testing.T) {
	c := serveCloud(t)
	endpoint := "--endpoint=" + os.Getenv("ENDPOINT")
	status, out, errs := runApp(t, "slb", "traffic", "lb-1", endpoint)
	require.Zero(t, status, errs)
	assert.Regexp(t, `http:80 .*connections only: access logging is off`, out)

	c.SetAccessLog("lb-1", "ops-log", "slb")
	now := time.Now()
	for n := range 120 { // the sixth row is 25 s within the window, however slow this machine is
		c.LogAccess(cloud.AccessLog{Time: now.Add(-135*time.Second - time.Duration(n)*30*time.Second), LoadBalancerID: "lb-1", Port: 80, Status: 200, UpstreamAddr: "172.31.0.90:8080", UpstreamStatus: "200"})
		c.LogAccess(cloud.AccessLog{Time: now.Add(-6*time.Minute - time.Duration(n)*20*time.Second), LoadBalancerID: "lb-1", Port: 80, Status: 502, UpstreamAddr: "172.31.0.92:8080", UpstreamStatus: "502"})
	}
	time.Sleep(5 * time.Millisecond) // at this speed rows show after less
	status, out, errs = runApp(t, "slb", "traffic", "lb-1", endpoint, "--port", "80")
	require.Zero(t, status, errs)
	assert.Regexp(t, `http:80 +\* +6 +100.0%`, out)
	assert.Regexp(t, `http:80 +172\.31\.0\.90:8080 +6 +100\.0% +0 +0 +114 `, out)
	assert.Regexp(t, `http:80 +172\.31\.0\.92:8080 +0 +0\.0% +0 +0 +120 .* 120/120 +missing: about 10 expected`, out)
	assert.NotContains(t, out, "8081")

	status, out, errs = runApp(t, "--json", "slb", "traffic", "lb-1", endpoint, "--host", "web-92")
	require.Zero(t, status, errs)
	var got struct {
		Listeners []struct {
			Port      int
			Evidence  string
			Reason    string
			Upstreams []struct {
				Addr string
				Now  struct {
					Requests int
					Share    float64
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Len(t, got.Listeners, 3)
	require.Len(t, got.Listeners[0].Upstreams, 1)
	assert.Equal(t, "172.31.0.92:8080", got.Listeners[0].Upstreams[0].Addr)
	assert.Equal(t, "connections only", got.Listeners[1].Evidence)

	status, _, _ = runApp(t, "slb", "traffic", "lb-1", endpoint, "--window", "0s")
	assert.Equal(t, exitUsage, status)
	status, _, errs = runApp(t, "slb", "traffic", "lb-9", endpoint)
	assert.Equal(t, exitFailure, status)
	assert.Contains(t, errs, "lb-9")
}

func TestRuleCommand(t *testing.T) {
	c := serveCloud(t)
	args := []string{"slb", "rule", "lb-1", "--endpoint=" + os.Getenv("ENDPOINT"), "--port=80", "--domain=pay.example.com", "--group=rsp-order"}
	status, out, errs := runApp(t, args...)
	require.Zero(t, status, errs)
	assert.Contains(t, out, "rule on lb-1 listener 80: pay.example.com to group rsp-order")
	assert.Contains(t, out, "add --execute")
	assert.Zero(t, c.Counts()["CreateRules"])
	for range 2 {
		status, _, errs = runApp(t, append(args, "--execute")...)
		require.Zero(t, status, errs)
		assert.Equal(t, 1, c.Counts()["CreateRules"])
	}
	status, out, _ = runApp(t, args...)
	require.Zero(t, status)
	assert.Contains(t, out, "nothing to do")
	args[6] = "--group=rsp-alone"
	status, _, errs = runApp(t, append(args, "--execute")...)
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, "sends pay.example.com to group rsp-order already")
	status, _, _ = runApp(t, args[:5]...)
	assert.Equal(t, exitUsage, status)
}

func TestPathsCommand(t *testing.T) {
	c := serveCloud(t)
	endpoint := "--endpoint=" + os.Getenv("ENDPOINT")
	status, out, errs := runApp(t, "slb", "paths", "web-90", endpoint)
	require.Zero(t, status, errs)
	assert.Contains(t, out, "nothing found")
	c.AddDatabase(cloud.Database{Product: "rds", ID: "rm-1", AllowLists: map[string][]string{"app": {"172.31.0.90", "10.0.0.0/8"}}})
	c.AddNATGateway(cloud.NATGateway{ID: "ngw-1", Entries: []cloud.ForwardEntry{{ID: "fwd-1", ExternalIP: "203.0.113.70", ExternalPort: "443", InternalIP: "172.31.0.90", InternalPort: "8443"}}})
	c.Deny("ess:DescribeScalingInstances")
	status, out, _ = runApp(t, "slb", "paths", "web-90", endpoint, "--clone", "172.31.0.101")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, out, "block dnat fwd-1")
	assert.Contains(t, out, "block allow-list rm-1")
	assert.Contains(t, out, "not checked: needs ess:DescribeScalingInstances")
}
