package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// An instance is not taken away under its traffic, and an account that may not
// look at balancers learns why.
func TestReleaseServing(t *testing.T) {
	c := newSimCloud()
	s := httptest.NewServer(c)
	defer c.Close()
	defer s.Close()
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIsim")
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", simSecret)
	t.Setenv("ALIBABA_CLOUD_REGION_ID", "cn-hangzhou")
	c.AddInstance(cloud.Instance{ID: "i-mine", Name: "mine", PrivateIP: "172.31.0.97", Tags: map[string]string{"run": "r1"}})
	c.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-mine", Servers: []cloud.Backend{{ServerID: "i-mine", Port: 80, Weight: 3}}})
	args := []string{"ecs", "instance", "release", "i-mine", "--tag", "run=r1", "--execute", "--endpoint=" + s.URL}
	status, _, errs := runApp(t, args...)
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, "refusing to release instance i-mine (mine): it has weight 3 in alb group sgp-mine; drain it first")
	c.Deny("alb:ListServerGroupServers")
	status, _, errs = runApp(t, args...)
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, errs, `add a statement with Action "alb:ListServerGroupServers"`)
	assert.Zero(t, c.Counts()["DeleteInstance"])
	assert.Equal(t, "Running", c.InstanceStatus("i-mine"))
}
