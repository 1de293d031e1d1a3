package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
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
//	untouched                  nothing was made in the cloud, and nothing changed on production
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
				w.before = w.production(ts)
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
				if now := w.production(ts); now != w.before {
					ts.Fatalf("production is another:\n%s\nwas\n%s", now, w.before)
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

// production is what an upgrade would change of that host.
func (w *planWorld) production(ts *testscript.TestScript) string {
	h := w.Host("172.31.0.90")
	_, out, err := h.Run(context.Background(), "rpm -qa | sort; cat /etc/yum.conf /etc/os-release /etc/redhat-release /proc/sys/kernel/random/boot_id; ls /etc/yum.repos.d /var/lib /boot; docker ps -a")
	ts.Check(err)
	return string(out)
}
