package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// simSpeed is how fast the worlds of the scenarios run ($SPEED in them): fast
// enough not to wait for a cloud, slow enough for a busy machine to follow.
const simSpeed = "200"

// raced are the scenarios that run under the race detector too: each way
// through the program once. The others repeat these ways with other kills.
var raced = []string{"whole", "rebuild", "rollback", "control"}

// keptKey finds the worlds of a script, interruptedKey the command that it
// interrupted, lockedKey the run that it is at work on.
type (
	keptKey        struct{}
	interruptedKey struct{}
	lockedKey      struct{}
)

// kept is what a script has started, by directory.
type kept map[string]*sim.Remote

// TestSimulateScripts runs the scenarios of testdata/simulate: what an
// operator lives through, with the real binary against a world that is a
// process of its own. No scenario has more than one world, and none leaves
// one running. Without UPGRADECTL_SLOW=1 only whole.txtar is run, with -race
// only those named in raced.
//
// Besides testscript's own commands there are
//
//	exits STATUS upgradectl …   the command ends with exactly this status
//	killed upgradectl …         the command dies at its --kill-at
//	anyexit upgradectl …        its exit status is not looked at
//	atwork DIR                  wait until a process works on the steps of the run
//	                            in DIR: it can be sent signals and requests
//	locked DIR ACTOR            be at work on that run, in the name of ACTOR and
//	                            without moving it, until
//	unlocked
//	interrupt                   send Ctrl-C to the command in the background
//	ended STATUS                after wait: how the interrupted command ended
//	operator DIR                take the credentials of the world kept in DIR, and $ENDPOINT
//	fields CHECK…               standard output is one JSON object that has
//	                            KEY, KEY=VALUE, KEY!=VALUE, KEY>NUMBER
//	lines N FILE                the file has N lines
//	append FILE WHAT            add the content of the file WHAT
//	edit FILE REGEXP TEXT       replace every match, at least one
//	gone DIR                    the process of the world kept in DIR ends
//	begun DIR PLAN HOST FORM    a run of the plan is begun in DIR, by another
//	                            machine, HOST, or by this one (.), by a program
//	                            whose first step has a FORM that may be newer
//
// After each command the world's secret must stand neither in its output nor
// in any file of a run.
func TestSimulateScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/simulate/*.txtar")
	require.NoError(t, err)
	var run []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txtar")
		switch {
		case name == "whole", testenv.RunSlow() && (!raceDetector || slices.Contains(raced, name)):
			run = append(run, f)
		case raceDetector:
			t.Run(name, func(t *testing.T) { t.Skip("-race slows its worlds down; make test runs it without") })
		default:
			t.Run(name, func(t *testing.T) { testenv.Slow(t) })
		}
	}
	testscript.Run(t, simulateParams(run))
}

func simulateParams(files []string) testscript.Params {
	checked := func(cmd func(*testscript.TestScript, bool, []string)) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			cmd(ts, neg, args)
			checkSecrets(ts, rememberWorlds(ts))
		}
	}
	return testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[keptKey{}] = kept{}
			env.Values[interruptedKey{}] = new(*exec.Cmd)
			env.Defer(func() { endWorlds(env.WorkDir) })
			run := new(*engine.Run)
			env.Values[lockedKey{}] = run
			env.Defer(func() { _ = closeLocked(run) })
			for _, name := range []string{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_REGION_ID"} {
				env.Setenv(name, "")
			}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("LANG", "C")
			env.Setenv("SPEED", simSpeed)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     checked(cmdExits),
			"killed":    checked(cmdKilled),
			"anyexit":   checked(cmdAnyExit),
			"atwork":    cmdAtWork,
			"locked":    cmdLocked,
			"unlocked":  cmdUnlocked,
			"interrupt": cmdInterrupt,
			"ended":     cmdEnded,
			"operator":  cmdOperator,
			"fields":    cmdFields,
			"lines":     cmdLines,
			"edit":      cmdEdit,
			"append":    cmdAppend,
			"gone":      cmdGone,
			"runid":     cmdRunID,
			"begun":     cmdBegun,
		},
	}
}

// cmdRunID sets RUNID to the identifier of the run in a directory.
func cmdRunID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: runid DIR")
	}
	r, err := upgrade.ReadReport(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("RUNID", r.Run)
}

// cmdBegun begins a run as somebody else would have: its first step is done.
func cmdBegun(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: begun DIR PLAN HOST FORM")
	}
	form, err := strconv.Atoi(args[3])
	ts.Check(err)
	origin := engine.LocalOrigin()
	if args[2] != "." {
		origin = engine.Origin{User: "li", Host: args[2], Machine: "0123456789abcdef", PID: 1}
	}
	run, err := engine.Create(ts.MkAbs(args[0]), engine.Header{Run: "begun", Procedure: upgrade.ProcedureTransition, Version: "v9.9.9"},
		[]byte(ts.ReadFile(args[1])), engine.WithOrigin(origin), engine.WithVersion("v9.9.9"))
	ts.Check(err)
	defer run.Close()
	_, err = run.Apply(context.Background(), []engine.Step{{
		ID: "2.1-inventory", Section: "2.1", Title: "look", Effect: engine.ReadOnly, Version: form,
		Do: func(context.Context, *engine.Act) (any, error) { return nil, nil },
	}, {
		ID: "2.3-projects", Section: "2.3", Title: "never", Effect: engine.ReadOnly, Gate: "go on?",
		Do: func(context.Context, *engine.Act) (any, error) { return nil, nil },
	}}, engine.Options{})
	ts.Check(err)
}

// rememberWorlds notes the worlds that run now: a world removes its file when
// it ends.
func rememberWorlds(ts *testscript.TestScript) kept {
	all := ts.Value(keptKey{}).(kept)
	files, err := filepath.Glob(filepath.Join(ts.Getenv("WORK"), "*", "world.json"))
	ts.Check(err)
	for _, f := range files {
		dir := filepath.Dir(f)
		if r, err := sim.Attach(dir); err == nil && all[dir] == nil {
			all[dir] = r
		}
	}
	return all
}

// endWorlds kills the worlds that a script left, as a failed one does.
func endWorlds(work string) {
	files, _ := filepath.Glob(filepath.Join(work, "*", "world.json"))
	for _, f := range files {
		r, err := sim.Attach(filepath.Dir(f))
		if err != nil {
			continue
		}
		if p, err := os.FindProcess(r.PID); err == nil {
			_ = p.Kill()
			waitGone(r.PID)
		}
	}
}

// waitGone waits until no process has this ID, and says whether that is so.
func waitGone(pid int) bool {
	return poll(time.Minute, func() bool { return !running(pid) })
}

// poll asks until the answer is yes or the time is over.
func poll(limit time.Duration, done func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-tick.C:
		case <-end.C:
			return false
		}
	}
}

// running tells whether a process lives. One that is dead and only waits for
// its parent to ask for its status does not.
func running(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	if runtime.GOOS != "windows" && p.Signal(syscall.Signal(0)) != nil {
		return false
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z")
	}
	return true
}

// checkSecrets fails when the secret of a world got out.
func checkSecrets(ts *testscript.TestScript, worlds kept) {
	for dir, r := range worlds {
		secret := r.Operator.AccessKeySecret
		if secret == "" {
			continue // a firstbox has no cloud
		}
		for _, name := range []string{"stdout", "stderr"} {
			if strings.Contains(ts.ReadFile(name), secret) {
				ts.Fatalf("the secret stands on %s", name)
			}
		}
		err := filepath.WalkDir(filepath.Join(dir, "run"), func(name string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || d.Name() == "lock" { // another process may hold the lock
				return nil
			}
			if data, err := os.ReadFile(name); err == nil && strings.Contains(string(data), secret) {
				return fmt.Errorf("the secret stands in %s", name)
			}
			return nil
		})
		ts.Check(err)
	}
}

// cmdKilled expects the death that --kill-at asks for: SIGKILL, and where
// there are no signals, being ended as by the task manager.
func cmdKilled(ts *testscript.TestScript, neg bool, args []string) {
	status := "-1"
	if runtime.GOOS == "windows" {
		status = "1"
	}
	cmdExits(ts, neg, append([]string{status}, args...))
	if !strings.Contains(ts.ReadFile("stderr"), "killed at ") {
		ts.Fatalf("it did not get to its --kill-at")
	}
}

func cmdAnyExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: anyexit COMMAND...")
	}
	var ee *exec.ExitError
	if err := ts.Exec(args[0], args[1:]...); err != nil && !errors.As(err, &ee) {
		ts.Fatalf("%v", err)
	}
}

func cmdAtWork(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: atwork DIR")
	}
	if !poll(time.Minute, func() bool {
		r, err := upgrade.ReadReport(ts.MkAbs(args[0]))
		return err == nil && r.Live && r.State == "running"
	}) {
		ts.Fatalf("nobody works on the run in %s", args[0])
	}
}

func cmdLocked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: locked DIR ACTOR")
	}
	run, err := engine.Open(ts.MkAbs(args[0]), engine.WithActor(args[1]))
	ts.Check(err)
	*ts.Value(lockedKey{}).(**engine.Run) = run
}

func cmdUnlocked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: unlocked, after locked")
	}
	ts.Check(closeLocked(ts.Value(lockedKey{}).(**engine.Run)))
}

func closeLocked(run **engine.Run) error {
	r := *run
	if r == nil {
		return nil
	}
	*run = nil
	return r.Close()
}

func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	cmds := ts.BackgroundCmds()
	if neg || len(args) != 0 || len(cmds) != 1 {
		ts.Fatalf("usage: interrupt, with one command in the background")
	}
	*ts.Value(interruptedKey{}).(**exec.Cmd) = cmds[0]
	ts.Check(cmds[0].Process.Signal(os.Interrupt))
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	cmd := *ts.Value(interruptedKey{}).(**exec.Cmd)
	if neg || len(args) != 1 || cmd == nil {
		ts.Fatalf("usage: ended STATUS, after interrupt and wait")
	}
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

var exportLine = regexp.MustCompile(`(?m)^export ([A-Z_]+)=(.+)$`)

func cmdOperator(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: operator DIR")
	}
	vars := exportLine.FindAllStringSubmatch(ts.ReadFile(filepath.Join(args[0], "env.sh")), -1)
	if len(vars) == 0 {
		ts.Fatalf("env.sh exports nothing")
	}
	for _, v := range vars {
		ts.Setenv(v[1], v[2])
	}
	if m := endpointLine.FindStringSubmatch(ts.ReadFile(filepath.Join(args[0], "upgrade.yaml"))); m != nil {
		ts.Setenv("ENDPOINT", m[1])
	}
}

// endpointLine is where a world's upgrade.yaml says where its cloud is.
var endpointLine = regexp.MustCompile(`(?m)^  endpoint: (\S+)$`)

var fieldCheck = regexp.MustCompile(`^([a-z0-9_]+)(?:(!=|=|>)(.*))?$`)

func cmdFields(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fields CHECK...")
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &object); err != nil {
		ts.Fatalf("standard output is not a JSON object: %v", err)
	}
	for _, arg := range args {
		m := fieldCheck.FindStringSubmatch(arg)
		if m == nil {
			ts.Fatalf("cannot read the check %q", arg)
		}
		value, there := object[m[1]]
		if !there {
			ts.Fatalf("there is no %s; there are %v", m[1], keys(object))
		}
		got, isText := value.(string)
		if !isText {
			b, err := json.Marshal(value)
			ts.Check(err)
			got = string(b)
		}
		ok := true
		switch m[2] {
		case "=":
			ok = got == m[3]
		case "!=":
			ok = got != m[3]
		case ">":
			n, isNumber := value.(float64)
			limit, err := strconv.ParseFloat(m[3], 64)
			ok = isNumber && err == nil && n > limit
		}
		if !ok {
			ts.Fatalf("%s: it is %s; problems: %v", arg, got, object["problems"])
		}
	}
}

func keys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines N FILE")
	}
	if got := strconv.Itoa(strings.Count(ts.ReadFile(args[1]), "\n")); got != args[0] {
		ts.Fatalf("%s has %s lines, want %s", args[1], got, args[0])
	}
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE REGEXP TEXT")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	if !re.MatchString(text) {
		ts.Fatalf("%s has nothing like %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(re.ReplaceAllLiteralString(text, strings.ReplaceAll(args[2], `\n`, "\n"))), 0o600))
}

func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone DIR")
	}
	dir, pid := ts.MkAbs(args[0]), 0
	if r := rememberWorlds(ts)[dir]; r != nil {
		pid = r.PID
	} else if m := worldProcess.FindStringSubmatch(ts.ReadFile("stderr")); m != nil {
		pid, _ = strconv.Atoi(m[1]) // it ended with the command that started it
	} else {
		ts.Fatalf("no world was kept in %s", args[0])
	}
	if !waitGone(pid) {
		ts.Fatalf("process %d of the world in %s still runs", pid, args[0])
	}
	if _, err := os.Stat(filepath.Join(dir, "world.json")); err == nil {
		ts.Fatalf("the world is gone, its world.json is not")
	}
}

var worldProcess = regexp.MustCompile(`the world runs in process ([0-9]+) for `)

// cmdAppend adds the content of a file to another.
func cmdAppend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: append FILE WHAT")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(ts.ReadFile(args[0])+ts.ReadFile(args[1])), 0o600))
}
