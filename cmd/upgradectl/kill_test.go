package main

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
)

// TestKilledProcess ends the real program with SIGKILL at random moments of a
// whole upgrade in a simulated world that lives on, and lets another process
// resume it or roll it back: no request fails, nothing is lost or left behind.
// 10 times; 100 times with UPGRADECTL_MATRIX=all.
func TestKilledProcess(t *testing.T) {
	testenv.Slow(t)
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGKILL on Windows")
	}
	if raceDetector {
		t.Skip("whole upgrades in real time: make test runs them without the race detector")
	}
	times := 10
	if os.Getenv("UPGRADECTL_MATRIX") == "all" {
		times = 100
	}
	const seed = 20261122
	random := rand.New(rand.NewPCG(seed, 0))
	bin, err := exec.LookPath("upgradectl") // this program, as TestMain has it
	require.NoError(t, err)
	for n := range times {
		// The moment is that of a line of progress and a little more, so that
		// it is spread over the steps whatever the speed of the machine.
		line, more, back := random.IntN(230), time.Duration(random.IntN(300))*time.Millisecond, n%4 == 3
		t.Run("", func(t *testing.T) {
			t.Parallel() // they wait most of the time
			cmd, dir := upgrading(t, bin, line)
			time.AfterFunc(more, func() { _ = cmd.Process.Kill() })
			err = cmd.Wait()
			t.Logf("killed %s after line %d of progress: %v", more, line+2, err)
			goOn(t, bin, dir, back)
		})
	}
}

// upgrading starts an upgrade in a simulated world that outlives it, and returns
// after some lines of its progress.
func upgrading(t *testing.T, bin string, line int) (cmd *exec.Cmd, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "w")
	t.Cleanup(func() { endWorlds(filepath.Dir(dir)) })
	cmd = exec.Command(bin, "simulate", "--keep", dir, "--keep-for", "10m", "--speed", "200")
	progress, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := 0
	for s := bufio.NewScanner(progress); lines < line+2 && s.Scan(); {
		lines++ // the first one says that the world runs
		if strings.HasPrefix(s.Text(), "upgradectl: ") {
			t.Log(s.Text()) // it failed
		}
	}
	return cmd, dir
}

// goOn takes the run of an ended process to its end, or back, and judges the
// world and the journal.
func goOn(t *testing.T, bin, dir string, back bool) {
	t.Helper()
	run := filepath.Join(dir, "run")
	rep, err := upgrade.ReadReport(run)
	if err != nil { // before there was a run, or while its directory was made: its journal comes last
		require.NoFileExists(t, filepath.Join(run, "journal.jsonl"), "%v", err)
		return
	}
	t.Logf("at %s: %s", rep.Step, rep.State)
	env := operatorEnv(t, dir)
	verb := "resume"
	if back {
		verb = "rollback"
	}
	args := []string{verb, "--run", run}
	if !back {
		args = append(args, "--yes")
	}
	if rep.State != "succeeded" {
		next := exec.Command(bin, args...)
		next.Env = env
		out, err := next.CombinedOutput()
		if code := next.ProcessState.ExitCode(); back && code != 0 { // parked, or past the point of no return
			require.Contains(t, []int{exitParked, exitRefused}, code, "%s", out)
			next = exec.Command(bin, "resume", "--run", run, "--yes")
			next.Env = env
			out, err = next.CombinedOutput()
		}
		require.NoError(t, err, "%s", out)
	}
	verify := exec.Command(bin, "audit", "verify", run)
	out, err := verify.CombinedOutput()
	require.NoError(t, err, "%s", out)
	finish := exec.Command(bin, "simulate", "--finish", dir, "--json")
	out, err = finish.Output()
	var f struct {
		Failed, Leaked int
		Outcome        string
		Problems       []string
	}
	require.NoError(t, json.Unmarshal(out, &f), "%s", out)
	require.NoError(t, err, "%s", out)
	require.Empty(t, f.Problems)
	require.Zero(t, f.Failed+f.Leaked)
	t.Logf("end: %s", f.Outcome)
}

// TestInterruptedProcess sends the real program SIGINT in the middle of an
// upgrade, once, and twice within its last moments: it ends with 130 and a last
// record that says so, and resume takes the run to its end.
func TestInterruptedProcess(t *testing.T) {
	testenv.Slow(t)
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals on Windows")
	}
	if raceDetector {
		t.Skip("whole upgrades in real time: make test runs them without the race detector")
	}
	bin, err := exec.LookPath("upgradectl") // this program, as TestMain has it
	require.NoError(t, err)
	for name, line := range map[string]int{"once": 60, "twice": 150} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, dir := upgrading(t, bin, line)
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			if name == "twice" {
				_ = cmd.Process.Signal(os.Interrupt) // two that wait together are one to the kernel: then this is a single one
			}
			_ = cmd.Wait()
			require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
			journal, err := os.ReadFile(filepath.Join(dir, "run", "journal.jsonl"))
			require.NoError(t, err)
			records := strings.Split(strings.TrimSpace(string(journal)), "\n")
			require.Regexp(t, `"kind":"interrupted".*(a signal \(interrupt\)|a second signal)`, records[len(records)-1])
			status, err := exec.Command(bin, "status", filepath.Join(dir, "run")).CombinedOutput()
			require.NoError(t, err, "%s", status)
			require.Contains(t, string(status), "upgradectl resume --run "+filepath.Join(dir, "run"), "it says how to go on")
			goOn(t, bin, dir, false)
		})
	}
}

// operatorEnv is the environment of the operator of the world kept in dir.
func operatorEnv(t *testing.T, dir string) []string {
	t.Helper()
	script, err := os.ReadFile(filepath.Join(dir, "env.sh"))
	require.NoError(t, err)
	env := os.Environ()
	for _, m := range exportLine.FindAllStringSubmatch(string(script), -1) {
		env = append(env, m[1]+"="+strings.Trim(m[2], "'\""))
	}
	return env
}
