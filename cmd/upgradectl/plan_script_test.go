package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// worldKey finds the simulated world of a script.
type worldKey struct{}

// planWorld is a simulated world, and what production was when its operator
// began.
type planWorld struct {
	*sim.World
	config string // upgrade.yaml without its os block
	before string
}

// TestPlanScript runs the scenarios of testdata/script/plan: what `plan` refuses
// in the world of the runbook, whose upgrade.yaml, keys and credentials are
// there. Besides testscript's there are these commands:
//
//	exits STATUS upgradectl …  the command ends with exactly this status
//	os LINE...                 writes upgrade.yaml anew with these lines as its os block
//	onhost ADDRESS SCRIPT      runs a script on a host
//	plant WORD...              plants what speaks against an upgrade, by the words of plants
//	accept ENTRY...            writes upgrade.yaml anew with these entries in accept
//	untouched                  nothing was made in the cloud, and nothing changed on any host since os or plant
//
// untouched goes by the digest of every host (files, processes, containers,
// packages, boot) and by the count of the calls that the cloud carried out.
func TestPlanScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/plan",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			w, err := sim.New(context.Background(), sim.Config{Rate: -1, Streams: -1})
			if err != nil {
				return err
			}
			env.Defer(func() { require.NoError(t, w.Close()) })
			op, err := w.WriteOperatorFiles(env.WorkDir)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(op.Config)
			if err != nil {
				return err
			}
			env.Values[worldKey{}] = &planWorld{World: w, config: string(text)}
			for _, e := range op.Environ() {
				name, value, _ := strings.Cut(e, "=")
				env.Setenv(name, value)
			}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			env.Setenv("LANG", "C")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits,
			"os": func(ts *testscript.TestScript, _ bool, lines []string) {
				w := ts.Value(worldKey{}).(*planWorld)
				head, rest, ok := strings.Cut(w.config, "\nos:\n")
				_, tail, more := strings.Cut(rest, "\nsnapshots:\n")
				if !ok || !more {
					ts.Fatalf("upgrade.yaml has no os block before snapshots")
				}
				text := head + "\nos:\n  " + strings.Join(lines, "\n  ") + "\nsnapshots:\n" + tail
				ts.Check(os.WriteFile(ts.MkAbs("upgrade.yaml"), []byte(text), 0o600))
				w.before = w.digest()
			},
			"accept": func(ts *testscript.TestScript, _ bool, entries []string) {
				w := ts.Value(worldKey{}).(*planWorld)
				ts.Check(os.WriteFile(ts.MkAbs("upgrade.yaml"), []byte(w.config+"accept: [\""+strings.Join(entries, `", "`)+"\"]\n"), 0o600))
			},
			"plant": func(ts *testscript.TestScript, _ bool, words []string) {
				w := ts.Value(worldKey{}).(*planWorld)
				for _, word := range words {
					f := plants[word]
					if f == nil {
						ts.Fatalf("nothing to plant is called %s", word)
					}
					ts.Check(f(w.World))
				}
				w.before = w.digest()
			},
			"onhost": func(ts *testscript.TestScript, _ bool, args []string) {
				w := ts.Value(worldKey{}).(*planWorld)
				if len(args) != 2 || w.Host(args[0]) == nil {
					ts.Fatalf("usage: onhost ADDRESS SCRIPT")
				}
				status, out, err := w.Host(args[0]).Run(context.Background(), args[1])
				ts.Check(err)
				if status != 0 {
					ts.Fatalf("exit status %d: %s", status, out)
				}
			},
			"untouched": func(ts *testscript.TestScript, _ bool, _ []string) {
				w := ts.Value(worldKey{}).(*planWorld)
				// The sessions of the command before end a moment after it.
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for n := 0; w.digest() != w.before; n++ {
					if n == 250 {
						ts.Fatalf("a host is another:\n%s\nwas\n%s", w.digest(), w.before)
					}
					<-tick.C
				}
				for action, n := range w.Cloud().Counts() {
					verb := action[strings.IndexByte(action, ':')+1:] // vpc:DescribeRouteTableList
					if n > 0 && !strings.HasPrefix(verb, "Describe") && !strings.HasPrefix(verb, "List") && !strings.HasPrefix(verb, "Get") {
						ts.Fatalf("the cloud carried out %s", action)
					}
				}
				for _, r := range w.Cloud().Resources() {
					if r.CreatedByAPI {
						ts.Fatalf("left behind: %+v", r)
					}
				}
			},
		},
	})
}

// digest is what every host is; logs and what is only there for a moment apart.
func (w *planWorld) digest() string {
	var b strings.Builder
	for _, addr := range []string{"172.31.0.5", "172.31.0.6", "172.31.0.88", "172.31.0.89", "172.31.0.90"} {
		fmt.Fprintln(&b, addr, w.Host(addr).Digest(func(name string) bool {
			return name == "/var/log" || name == "/run" || name == "/tmp"
		}))
	}
	return b.String()
}

// plants are troubles of the world, by the word that a script has for them.
var plants = map[string]func(*sim.World) error{
	"system-event": func(w *sim.World) error {
		w.Cloud().AddSystemEvent(cloud.SystemEvent{ID: "e-move", InstanceID: "i-web90", Type: "SystemMaintenance.Redeploy", Reason: "old hardware", NotBefore: time.Now().Add(2 * time.Hour)})
		return nil
	},
	"vcpu-quota": func(w *sim.World) error {
		w.Cloud().SetQuota("max-postpaid-instance-vcpu-count", 1)
		return nil
	},
	"group-full": func(w *sim.World) error {
		w.Cloud().SetGroupCapacity("sg-web", 3)
		return nil
	},
	"no-stock": func(w *sim.World) error {
		w.Cloud().SetStock("", "", false)
		return nil
	},
	"allow-list": func(w *sim.World) error {
		w.Cloud().AddDatabase(cloud.Database{Product: "rds", ID: "rm-orders", AllowLists: map[string][]string{"app": {"172.31.0.90"}}})
		return nil
	},
	"dnat": func(w *sim.World) error {
		w.Cloud().AddNATGateway(cloud.NATGateway{ID: "ngw-1", VPC: "vpc-sim", Entries: []cloud.ForwardEntry{{ID: "fwd-1", ExternalIP: "192.0.2.1", ExternalPort: "80", InternalIP: "172.31.0.90", InternalPort: "8080"}}})
		return nil
	},
	"havip": func(w *sim.World) error {
		w.Cloud().AddHaVip(cloud.HaVip{ID: "havip-1", Address: "172.31.0.250", VPC: "vpc-sim", Master: "i-web90", Instances: []string{"i-web90"}})
		return nil
	},
	"scaling-group": func(w *sim.World) error {
		w.Cloud().AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-web90"})
		return nil
	},
	"java-by-hand":   spawn(host.Process{Args: []string{"java", "-Ddb.password=hunter2", "-jar", "batch.jar"}, Cwd: "/srv/batch", User: "app", Ports: []int{8099}}),
	"node-by-hand":   spawn(host.Process{Args: []string{"node", "gate.js"}, Cwd: "/srv/gate", User: "app", Ports: []int{7001}}),
	"mysqld":         spawn(host.Process{Args: []string{"/usr/sbin/mysqld"}, Cwd: "/var/lib/mysql"}),
	"keepalived":     spawn(host.Process{Args: []string{"/usr/sbin/keepalived", "-D"}, Cwd: "/"}),
	"crypttab":       file("/etc/crypttab", "data /dev/vdb1 none luks\n"),
	"static-address": file("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nBOOTPROTO=static\nIPADDR=172.31.0.90\n"),
}

// spawn starts a process on production, as a person does from a session.
func spawn(p host.Process) func(*sim.World) error {
	return func(w *sim.World) error {
		h := w.Host("172.31.0.90")
		if err := h.WriteFile(p.Cwd+"/.keep", nil, 0o644); err != nil {
			return err
		}
		_, err := h.Spawn(p)
		return err
	}
}

// file writes a file of production.
func file(name, text string) func(*sim.World) error {
	return func(w *sim.World) error { return w.Host("172.31.0.90").WriteFile(name, []byte(text), 0o644) }
}
