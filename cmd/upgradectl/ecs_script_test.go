package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// TestECSScript runs the scenarios of testdata/script/ecs as TestScript does its
// own, with these commands more:
//
//	field FILE PATH NAME  the value at PATH (as created.snapshots.0.id) of a JSON file becomes $NAME
//	deny [ACTION...]      the account may not do these any more
//	refused CODE          the cloud refused a request with this code since the last such line
func TestECSScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/ecs",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			c := cloud.New(cloud.Config{
				Region: "cn-hangzhou", AccessKeyID: "LTAIsim", AccessKeySecret: simSecret, Speed: 10000, FreeIPs: []string{"172.31.0.95"}, Machines: &guests{},
			})
			for _, i := range [][3]string{{"i-web90", "web-90", "172.31.0.90"}, {"i-web92", "web-92", "172.31.0.92"}} {
				c.AddInstance(cloud.Instance{ID: i[0], Name: i[1], HostName: i[1], PrivateIP: i[2]})
			}
			s := httptest.NewServer(c)
			env.Defer(func() { s.Close(); c.Close() })
			env.Values[cloudKey{}] = c
			for _, kv := range [][2]string{
				{"ENDPOINT", s.URL}, {"ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIsim"}, {"ALIBABA_CLOUD_ACCESS_KEY_SECRET", simSecret},
				{"ALIBABA_CLOUD_REGION_ID", "cn-hangzhou"}, {"HOME", env.WorkDir}, {"USERPROFILE", env.WorkDir}, {"LANG", "C"},
			} {
				env.Setenv(kv[0], kv[1])
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"simcloud": cmdSimCloud,
			"field":    cmdField,
			"deny":     cmdDeny,
			"refused":  cmdRefused,
		},
	})
}

// guests are machines that answer the few commands of the scenarios.
type guests struct{ boots atomic.Int32 }

func (*guests) Snapshot(string) (string, error)       { return "", nil }
func (*guests) Create(cloud.Machine) error            { return nil }
func (*guests) Start(string) error                    { return nil }
func (*guests) Stop(string) error                     { return nil }
func (g *guests) Reboot(string) error                 { g.boots.Add(1); return nil }
func (*guests) Delete(string) error                   { return nil }
func (*guests) Restore(instanceID, from string) error { return nil }
func (g *guests) RunCommand(_ context.Context, _, script string) (int, []byte, error) {
	switch script {
	case "echo hello":
		return 0, []byte("hello\n"), nil
	case "exit 3":
		return 3, []byte("no\n"), nil
	case "cat /proc/sys/kernel/random/boot_id":
		return 0, fmt.Appendf(nil, "boot-%d\n", g.boots.Load()), nil
	}
	return 127, nil, fmt.Errorf("no such command: %s", script)
}

func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field FILE PATH NAME")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for part := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n >= len(x) {
				ts.Fatalf("%s: no %s in a list of %d", args[0], part, len(x))
			}
			v = x[n]
		default:
			ts.Fatalf("%s has no %s", args[0], args[1])
		}
	}
	if v == nil {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Setenv(args[2], fmt.Sprint(v))
}

func cmdDeny(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value(cloudKey{}).(*cloud.Cloud)
	c.Allow()
	if len(args) > 0 {
		c.Deny(args...)
	}
}

func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value(cloudKey{}).(*cloud.Cloud)
	if len(args) != 1 {
		ts.Fatalf("usage: refused CODE")
	}
	if slices.ContainsFunc(c.Refused(), func(r string) bool { return strings.Contains(r, args[0]) }) == neg {
		ts.Fatalf("refused: %v", c.Refused())
	}
}
