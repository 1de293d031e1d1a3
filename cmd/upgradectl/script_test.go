package main

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"upgradectl": func() { os.Exit(run()) },
	})
}

// simSecret is the secret of the simulated account. No output of any script
// may hold it.
const simSecret = "5ecretOfTheSimulatedAccount"

// cloudKey finds the simulated cloud of a script.
type cloudKey struct{}

// TestScript runs the scenarios of testdata/script, one a file. Each has a
// simulated cloud of its own at $ENDPOINT, with the credentials in the
// environment, and these commands besides testscript's:
//
//	exits STATUS upgradectl …      the command ends with exactly this status
//	simcloud count ACTION N        the cloud carried ACTION out N times
//	simcloud weight GROUP SERVER N the balancer's data plane has this weight
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			c := newSimCloud()
			s := httptest.NewServer(c)
			env.Defer(func() { s.Close(); c.Close() })
			env.Values[cloudKey{}] = c
			env.Setenv("ENDPOINT", s.URL)
			env.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIsim")
			env.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", simSecret)
			env.Setenv("ALIBABA_CLOUD_REGION_ID", "cn-hangzhou")
			// A home without keys, profiles and runs of the developer's.
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			env.Setenv("LANG", "C")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"simcloud": cmdSimCloud,
		},
	})
}

func newSimCloud() *cloud.Cloud {
	c := cloud.New(cloud.Config{
		Region: "cn-hangzhou", AccessKeyID: "LTAIsim", AccessKeySecret: simSecret,
		Speed: 10000,
	})
	for _, i := range []struct{ id, name, ip string }{
		{"i-web90", "web-90", "172.31.0.90"},
		{"i-web92", "web-92", "172.31.0.92"},
		{"i-web95", "web-95", "172.31.0.95"},
		{"i-web96", "web-96", "172.31.0.96"},
	} {
		c.AddInstance(cloud.Instance{ID: i.id, Name: i.name, HostName: i.name, PrivateIP: i.ip})
	}
	c.AddLoadBalancer(cloud.LoadBalancer{
		ID: "lb-1", Name: "front", Address: "172.31.0.200",
		Default: []cloud.Backend{{ServerID: "i-web90", Weight: 100}, {ServerID: "i-web92", Weight: 100}},
		Groups: []cloud.VServerGroup{
			{ID: "rsp-order", Name: "order", Backends: []cloud.Backend{{ServerID: "i-web90", Port: 8080, Weight: 50}, {ServerID: "i-web92", Port: 8080, Weight: 50}}},
			{ID: "rsp-alone", Name: "alone", Backends: []cloud.Backend{{ServerID: "i-web92", Port: 8081, Weight: 100}}},
		},
		Listeners: []cloud.Listener{
			{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true},
			{Port: 8080, Protocol: "tcp", VServerGroup: "rsp-order", HealthCheck: true},
			{Port: 8081, Protocol: "tcp", VServerGroup: "rsp-alone", HealthCheck: true},
		},
	})
	c.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-web", Name: "web", HealthCheck: true, Sticky: true,
		Servers: []cloud.Backend{{ServerID: "i-web95", Port: 61095, Weight: 70}, {ServerID: "i-web96", Port: 61095, Weight: 70}}})
	c.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.ALB, ID: "alb-1", Name: "shop", Listeners: []cloud.GroupListener{{Port: 80, Group: "sgp-web"}}})
	c.AddServerGroup(cloud.NLB, cloud.ServerGroup{ID: "sgp-tcp", Name: "tcp", Scheduler: "Sch",
		Servers: []cloud.Backend{{ServerID: "i-web96", Port: 61096, Weight: 5}}})
	c.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.NLB, ID: "nlb-1", Name: "edge", Listeners: []cloud.GroupListener{{Port: 61096, Group: "sgp-tcp"}}})
	return c
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := 0, error(nil)
	if len(args) > 1 {
		want, err = strconv.Atoi(args[0])
	}
	if neg || len(args) < 2 || err != nil {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		got = ee.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(name), simSecret) {
			ts.Fatalf("the secret stands on %s", name)
		}
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func cmdSimCloud(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value(cloudKey{}).(*cloud.Cloud)
	var got, want string
	switch {
	case len(args) == 3 && args[0] == "count":
		got, want = strconv.Itoa(c.Counts()[args[1]]), args[2]
	case len(args) == 4 && args[0] == "weight":
		got, want = weight(c, args[1], args[2]), args[3]
	default:
		ts.Fatalf("usage: simcloud count ACTION N | simcloud weight GROUP SERVER N")
	}
	if refused := c.Refused(); len(refused) > 0 {
		ts.Fatalf("the cloud refused: %v", refused)
	}
	if (got == want) == neg {
		ts.Fatalf("simcloud %v: it is %s", args, got)
	}
}

// weight returns the weight of a server in a group ("default" or its ID), or
// "none".
func weight(c *cloud.Cloud, group, server string) string {
	for _, g := range append(c.ServerGroups(cloud.ALB), c.ServerGroups(cloud.NLB)...) {
		for _, b := range g.Servers {
			if g.ID == group && b.ServerID == server {
				return fmt.Sprint(b.Weight)
			}
		}
	}
	for _, lb := range c.LoadBalancers() {
		var members []cloud.Backend
		if group == "default" {
			members = lb.Default
		}
		for _, g := range lb.Groups {
			if g.ID == group {
				members = g.Backends
			}
		}
		for _, b := range members {
			if b.ServerID == server {
				return fmt.Sprint(b.Weight)
			}
		}
	}
	return "none"
}
