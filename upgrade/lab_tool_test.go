package upgrade_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
)

// A toolRun is one process of the program under test.
type toolRun struct {
	w    *labWorld
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{} // closed when the process has ended; err is set then
	err  error

	mu   sync.Mutex
	said strings.Builder // its progress
}

// tool starts the program. Its progress goes into the test's log.
func (w *labWorld) tool(args ...string) *toolRun {
	w.t.Helper()
	r := &toolRun{w: w, args: args, done: make(chan struct{})}
	r.cmd = exec.CommandContext(w.t.Context(), w.program, args...)
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout = w.dir, w.environ, &r.out
	progress, err := r.cmd.StderrPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, r.cmd.Start())
	w.t.Logf("%s upgradectl %s (process %d)", w.since(), strings.Join(args, " "), r.cmd.Process.Pid)
	go func() {
		defer close(r.done)
		lines := bufio.NewScanner(progress)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			w.t.Logf("%s %s", w.since(), lines.Text())
			r.mu.Lock()
			r.said.WriteString(lines.Text() + "\n")
			r.mu.Unlock()
		}
		r.err = r.cmd.Wait()
	}()
	return r
}

// mustEnd waits for a good end and gives what the program printed.
func (r *toolRun) mustEnd() []byte {
	r.w.t.Helper()
	<-r.done
	require.NoError(r.w.t, r.err, "upgradectl %s: %s", strings.Join(r.args, " "), r.out.String())
	return r.out.Bytes()
}

// callFrom has a host call a URL again and again. The result ends it.
func (w *labWorld) callFrom(addr, url string) (stop func()) {
	w.t.Helper()
	h := w.lab.At(addr)
	pid, err := h.Must(w.t.Context(), "setsid "+lab.AppBinary+" --call "+url+" >/dev/null 2>&1 </dev/null & echo $!")
	require.NoError(w.t, err)
	return func() {
		_, err := h.Must(w.t.Context(), "kill "+pid)
		require.NoError(w.t, err)
	}
}

// mustStop waits for an end with that exit status and gives the message's
// lines from the one on that has a text.
func (r *toolRun) mustStop(status int, text string) string {
	r.w.t.Helper()
	<-r.done
	require.Error(r.w.t, r.err)
	assert.Equal(r.w.t, status, r.cmd.ProcessState.ExitCode(), "%v: %s", r.args, r.out.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	_, message, found := strings.Cut(r.said.String(), text)
	require.True(r.w.t, found, "upgradectl %s never said %q", strings.Join(r.args, " "), text)
	return message
}

// waitSaid blocks until the program's progress has a line with text.
func (r *toolRun) waitSaid(text string) {
	r.w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		said := strings.Contains(r.said.String(), text)
		r.mu.Unlock()
		if said {
			return
		}
		select {
		case <-r.done:
			r.w.t.Fatalf("upgradectl %s ended and never said %q", strings.Join(r.args, " "), text)
		case <-tick.C:
		}
	}
}

// killWhen kills the program as soon as something holds.
func (r *toolRun) killWhen(what string, holds func() bool) {
	t := r.w.t
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-r.done:
			t.Fatalf("upgradectl %s ended before: %s: %v: %s", strings.Join(r.args, " "), what, r.err, r.out.String())
		case <-tick.C:
		}
	}
	require.NoError(t, r.cmd.Process.Kill())
	<-r.done
	require.Error(t, r.err)
	assert.Equal(t, -1, r.cmd.ProcessState.ExitCode(), "it was killed")
	t.Logf("%s killed: %s", r.w.since(), what)
}

// begun says whether a run's journal holds the intent of a step and not its
// end.
func begun(run, step string) bool {
	b, err := os.ReadFile(filepath.Join(run, "journal.jsonl"))
	if err != nil {
		return false
	}
	open := false
	for line := range bytes.Lines(b) {
		var rec struct{ Kind, Step string }
		if json.Unmarshal(line, &rec) == nil && rec.Step == step {
			open = rec.Kind == "intent"
		}
	}
	return open
}
