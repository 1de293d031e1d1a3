package main

import (
	"context"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// TestHostScript runs the scenarios of testdata/script/host, with these commands
// besides testscript's:
//
//	exits STATUS upgradectl …  the command ends with exactly this status
//	simhosts NAME...           starts simulated hosts and writes ssh_config,
//	                           known_hosts, id
//	onhost NAME SCRIPT         runs a script on a host; its output is stdout's
//
// No host may have been asked for what is not simulated.
func TestHostScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/host",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s := &simHosts{hosts: map[string]*host.Host{}, speed: 100}
			env.Defer(func() {
				for name, h := range s.hosts {
					if r := h.Refused(); len(r) > 0 {
						t.Errorf("host %s was asked for what is not simulated: %v", name, r)
					}
				}
				s.close()
			})
			env.Values[hostsKey{}] = s
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("LANG", "C")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"simhosts": cmdSimHosts,
			"onhost":   cmdOnHost,
		},
	})
}

// cmdOnHost runs a script on a simulated host; with ! it has to fail.
func cmdOnHost(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(hostsKey{}).(*simHosts)
	if len(args) != 2 || s.hosts[args[0]] == nil {
		ts.Fatalf("usage: onhost NAME SCRIPT")
	}
	status, out, err := s.hosts[args[0]].Run(context.Background(), args[1])
	ts.Check(err)
	ts.Logf("%s", strings.TrimSpace(string(out)))
	if (status == 0) == neg {
		ts.Fatalf("exit status %d", status)
	}
}
