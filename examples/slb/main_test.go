package main

import (
	"bytes"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestRun(t *testing.T) {
	const id, secret = "test-key-id", "test-key-secret"
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", id)
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", secret)
	t.Setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "")
	t.Setenv("ALIBABA_CLOUD_REGION_ID", "cn-hangzhou")
	sim := cloud.New(cloud.Config{AccessKeyID: id, AccessKeySecret: secret, BusyTakes: time.Millisecond})
	defer sim.Close()
	sim.AddInstance(cloud.Instance{ID: "i-90", PrivateIP: "172.31.0.90"})
	sim.AddInstance(cloud.Instance{ID: "i-50", PrivateIP: "172.31.0.50"})
	sim.AddLoadBalancer(cloud.LoadBalancer{
		ID: "lb-1", Name: "front",
		Listeners: []cloud.Listener{{Port: 80, Protocol: "http", BackendPort: 8080}, {Port: 9000, Protocol: "tcp", VServerGroup: "rsp-1"}},
		Default:   []cloud.Backend{{ServerID: "i-90", Weight: 100}, {ServerID: "i-50", Weight: 60}},
		Groups:    []cloud.VServerGroup{{ID: "rsp-1", Name: "shop", Backends: []cloud.Backend{{ServerID: "i-90", Port: 8081, Weight: 80}}}},
	})
	srv := httptest.NewServer(sim)
	defer srv.Close()
	before := sim.LoadBalancers()

	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-endpoint", srv.URL, "-server", "i-90"}, &out))
	assert.Contains(t, out.String(), "has weight 100 of 160")
	assert.Contains(t, out.String(), "tcp 9000")
	assert.Equal(t, before, sim.LoadBalancers(), "showing changes nothing")

	file := filepath.Join(t.TempDir(), "weights")
	require.Error(t, run(t.Context(), []string{"-endpoint", srv.URL, "-server", "i-90", "-weight", "0"}, &out))
	require.NoError(t, run(t.Context(), []string{"-endpoint", srv.URL, "-server", "i-90", "-weight", "0", "-save", file}, &out))
	lb := sim.LoadBalancers()[0]
	assert.Equal(t, 0, lb.Default[0].Weight)
	assert.Equal(t, 60, lb.Default[1].Weight)
	assert.Equal(t, 0, lb.Groups[0].Backends[0].Weight)

	require.NoError(t, run(t.Context(), []string{"-endpoint", srv.URL, "-restore", file}, &out))
	assert.Equal(t, before, sim.LoadBalancers())
	assert.Empty(t, sim.Refused())
}
