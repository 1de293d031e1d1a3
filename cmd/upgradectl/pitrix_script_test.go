package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/pitrix"
)

// TestPitrixScript runs the scenarios of testdata/script/pitrix. Each has a
// firstbox of package pitrix's stand-in scripts at $BOX, and these commands
// besides exits:
//
//	mark RUN ROLE NODE...   the rebuild RUN of these nodes is between build and switch
//	unmark RUN              it is over
func TestPitrixScript(t *testing.T) {
	testenv.Need(t, "bash")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/pitrix",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("BOX", pitrixBoxDir(t))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("LANG", "C")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  cmdExits,
			"mark":   cmdMark,
			"unmark": cmdMark,
		},
	})
}

func cmdMark(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: mark RUN ROLE NODE..., unmark RUN")
	}
	box := &pitrix.Firstbox{Host: localHost{}, Root: ts.Getenv("BOX")}
	if len(args) == 1 {
		ts.Check(box.ClearMarker(context.Background(), args[0]))
		return
	}
	since := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	ts.Check(box.SetMarker(context.Background(), pitrix.Marker{Run: args[0], Role: args[1], Nodes: strings.Fields(strings.Join(args[2:], " ")), Since: since}))
}
