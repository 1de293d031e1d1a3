package hostos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// forJobs runs a test on a simulated host, which has systemd-run, and with
// the shells of this machine, which may not.
func forJobs(t *testing.T, test func(t *testing.T, h Host, j jobs, out string)) {
	t.Run("simulated", func(t *testing.T) {
		s := simulate(t, nil)
		c := s.dial()
		test(t, c, jobs{jobRoot}, "/root/out")
	})
	onShells(t, func(t *testing.T, h local) {
		dir := t.TempDir()
		// A wrapper that came too late may still tidy up after itself.
		t.Cleanup(func() {
			require.Eventually(t, func() bool { return os.RemoveAll(dir) == nil }, 20*time.Second, poll)
		})
		test(t, h, jobs{filepath.Join(dir, "it's a root")}, filepath.Join(dir, "out"))
	})
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestJobRunsOnce(t *testing.T) {
	forJobs(t, func(t *testing.T, h Host, j jobs, out string) {
		script := "echo ran >>" + out + "\n"
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = j.start(soon(t), h, "k", script) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		st, err := j.wait(soon(t), h, "k", poll, nil)
		require.NoError(t, err)
		assert.Equal(t, JobState{Phase: JobExited}, st)
		require.NoError(t, j.start(soon(t), h, "k", script))
		st, err = j.get(soon(t), h, "k")
		require.NoError(t, err)
		assert.Equal(t, JobExited, st.Phase)
		b, err := h.ReadFile(t.Context(), out)
		require.NoError(t, err)
		assert.Equal(t, "ran\n", string(b))
	})
}

// TestJobLaunchedTwice plays a systemd whose unit has the first launch's name
// already: the second launch must see that, wherever the first one's job is.
func TestJobLaunchedTwice(t *testing.T) {
	for name, c := range map[string]struct {
		isActive string // what the shell of systemctl is-active does
		ok       bool
	}{
		"runs":                     {"exit 0", true},
		"ends while looked at":     {`mkdir -p "$JOB/started"; exit 3`, true},
		"begins after both looked": {`mkdir "$JOB/looked" || mkdir "$JOB/started"; exit 3`, true},
		"never begins":             {"exit 3", false},
	} {
		t.Run(name, func(t *testing.T) {
			onShells(t, func(t *testing.T, h local) {
				j, bin := jobs{t.TempDir()}, t.TempDir()
				for program, does := range map[string]string{
					"systemd-run": `[ "$1" != --help ] || exit 0; echo "the unit exists" >&2; exit 1`,
					"systemctl":   "JOB=" + j.dir("k") + "\n" + c.isActive,
				} {
					writeProgram(t, filepath.Join(bin, program), "#!/bin/sh\n"+does+"\n")
				}
				err := j.start(soon(t), systemd{h, bin}, "k", "true\n")
				if c.ok {
					require.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, "the unit exists")
			})
		})
	}
}

// systemd is this machine with the systemd whose programs are in bin.
type systemd struct {
	local
	bin string
}

func (s systemd) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return s.local.Run(ctx, "PATH="+s.bin+":$PATH\n"+strings.ReplaceAll(cmd, "/run/systemd/system", s.bin), stdin, stdout, stderr)
}

// A unit of systemd has neither HOME nor anything else of a login.
func TestJobHome(t *testing.T) {
	onShells(t, func(t *testing.T, h local) {
		bare := local{append([]string{"env", "-i", "PATH=" + os.Getenv("PATH")}, h.shell...)}
		dir := t.TempDir()
		j, out := jobs{filepath.Join(dir, "jobs")}, filepath.Join(dir, "out")
		require.NoError(t, j.start(soon(t), bare, "k", `printf %s "$HOME" >`+out+"\n"))
		_, err := j.wait(soon(t), bare, "k", poll, nil)
		require.NoError(t, err)
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		assert.Equal(t, "/root", string(b))
	})
}

func TestJobStatus(t *testing.T) {
	forJobs(t, func(t *testing.T, h Host, j jobs, _ string) {
		st, err := j.get(soon(t), h, "k")
		require.NoError(t, err)
		assert.Equal(t, JobAbsent, st.Phase)

		require.NoError(t, j.start(soon(t), h, "k", "read -r x || echo no input\necho 磁盘满 >&2\nexit 7\n"))
		st, err = j.wait(soon(t), h, "k", poll, nil)
		var je *JobError
		require.ErrorAs(t, err, &je)
		assert.Equal(t, JobState{JobExited, 7}, st)
		assert.Equal(t, "no input\n磁盘满\n", je.Log)
		assert.Contains(t, err.Error(), "job k ended with status 7: no input\n磁盘满")
		b, err := h.ReadFile(t.Context(), j.dir("k")+"/status")
		require.NoError(t, err)
		assert.Equal(t, "7\n", string(b))

		// A wait that ends early says what it saw.
		require.NoError(t, j.start(soon(t), h, "slow", long))
		if _, ok := h.(local); ok {
			t.Cleanup(func() { killJob(t, j, "slow") })
		}
		untilRunning(t, h, j, "slow")
		ctx, cancel := context.WithCancel(soon(t))
		st, err = j.wait(ctx, &patience{h, 2, cancel}, "slow", poll, nil)
		require.ErrorIs(t, err, context.Canceled)
		assert.Contains(t, err.Error(), `job slow still "running"`)
		assert.Equal(t, JobRunning, st.Phase)
	})
}

// long is a job that runs for as long as a test, also on a simulated host, where
// time is short.
const long = "sleep 1000000\n"

// untilRunning waits until the job has begun.
func untilRunning(t *testing.T, h Host, j jobs, key string) {
	t.Helper()
	require.Eventually(t, func() bool {
		st, err := j.get(t.Context(), h, key)
		return err == nil && st.Phase == JobRunning
	}, 20*time.Second, poll)
}

// killJob kills all of a job that runs on this machine: it leads a session.
func killJob(t *testing.T, j jobs, key string) {
	t.Helper()
	var pid int
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(j.dir(key) + "/started/pid")
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	}, 20*time.Second, poll)
	require.Greater(t, pid, 1)
	p, err := os.FindProcess(-pid)
	require.NoError(t, err)
	require.NoError(t, p.Signal(syscall.SIGKILL))
}

func TestJobLost(t *testing.T) {
	t.Run("reboot", func(t *testing.T) {
		s := simulate(t, nil)
		c := s.dial()
		require.NoError(t, StartJob(soon(t), c, "k", long))
		untilRunning(t, c, jobs{jobRoot}, "k")
		require.NoError(t, s.Reboot())
		c.Close()
		st, err := WaitJob(soon(t), c, "k", poll, func(context.Context) (Host, error) { return s.dial(), nil })
		var je *JobError
		require.ErrorAs(t, err, &je)
		assert.Equal(t, JobLost, st.Phase)
		assert.Contains(t, err.Error(), "killed or cut off by a reboot")
		// A lost job is not begun again under its key.
		c = s.dial()
		require.NoError(t, StartJob(soon(t), c, "k", "echo again\n"))
		st, err = GetJob(soon(t), c, "k")
		require.NoError(t, err)
		assert.Equal(t, JobLost, st.Phase)
	})
	t.Run("kill", func(t *testing.T) {
		onShells(t, func(t *testing.T, h local) {
			j := jobs{t.TempDir()}
			require.NoError(t, j.start(soon(t), h, "k", "echo begun\nsleep 600\n"))
			untilRunning(t, h, j, "k")
			require.Eventually(t, func() bool {
				log, err := j.log(t.Context(), h, "k")
				return err == nil && log == "begun\n"
			}, 20*time.Second, poll)
			killJob(t, j, "k")
			st, err := j.wait(soon(t), h, "k", poll, nil)
			var je *JobError
			require.ErrorAs(t, err, &je)
			assert.Equal(t, JobLost, st.Phase)
			assert.Equal(t, "begun\n", je.Log)

			// Its process ID now belongs to somebody else: to us.
			require.NoError(t, os.WriteFile(j.dir("k")+"/started/pid", fmt.Appendln(nil, os.Getpid()), 0o600))
			st, err = j.get(soon(t), h, "k")
			require.NoError(t, err)
			assert.Equal(t, JobLost, st.Phase)

			// Another boot, and the same process ID.
			require.NoError(t, os.WriteFile(j.dir("k")+"/boot", []byte("another"), 0o600))
			st, err = j.get(soon(t), h, "k")
			require.NoError(t, err)
			assert.Equal(t, JobLost, st.Phase)
		})
	})
}

// TestJobLostUnit kills the shell of a job that is a unit of systemd: what it has
// started ends before the job is lost, and no failed unit of ours stays behind,
// also where systemd has no --collect.
func TestJobLostUnit(t *testing.T) {
	t.Run("simulated", func(t *testing.T) {
		s := simulate(t, nil) // CentOS 7
		c := s.dial()
		before, err := hostinv.Collect(soon(t), c, hostinv.Options{})
		require.NoError(t, err)
		require.NoError(t, StartJob(soon(t), c, "k", long))
		untilRunning(t, c, jobs{jobRoot}, "k")
		_, err = output(soon(t), c, "until [ -s "+jobRoot+"/k/started/pid ]; do sleep 1; done; kill -KILL $(cat "+jobRoot+"/k/started/pid)", nil)
		require.NoError(t, err)
		st, err := WaitJob(soon(t), c, "k", poll, nil)
		require.Error(t, err)
		assert.Equal(t, JobLost, st.Phase)
		after, err := hostinv.Collect(soon(t), c, hostinv.Options{})
		require.NoError(t, err)
		assert.Empty(t, hostinv.Diff(before, after, hostinv.Expect{}).Losses())
		o, err := GetOS(soon(t), c)
		require.NoError(t, err)
		assert.Empty(t, o.FailedUnits)
	})
	onShells(t, func(t *testing.T, h local) {
		j, bin := jobs{t.TempDir()}, t.TempDir()
		require.NoError(t, j.start(soon(t), h, "k", "sleep 600\n"))
		untilRunning(t, h, j, "k")
		killJob(t, j, "k")
		_, err := j.wait(soon(t), h, "k", poll, nil)
		require.ErrorAs(t, err, new(*JobError), "it takes a killed process a moment to be gone")
		unit := filepath.Join(bin, "unit") // its state
		writeProgram(t, filepath.Join(bin, "systemctl"), `#!/bin/sh
[ "$2" = upgradectl-k.service ] || exit 1
case "$1" in
is-active) cat `+unit+`;;
reset-failed) echo inactive >`+unit+`;;
esac
`)
		for _, state := range []struct {
			unit string
			want JobPhase
		}{{"active", JobRunning}, {"deactivating", JobRunning}, {"failed", JobLost}, {"inactive", JobLost}, {"unknown", JobLost}} {
			require.NoError(t, os.WriteFile(unit, []byte(state.unit+"\n"), 0o600))
			st, err := j.get(soon(t), systemd{h, bin}, "k")
			require.NoError(t, err)
			assert.Equal(t, state.want, st.Phase, state.unit)
			b, err := os.ReadFile(unit)
			require.NoError(t, err)
			assert.NotEqual(t, "failed\n", string(b))
		}
	})
}

// TestJobCutScript drops the connection in the middle of the script: sshd
// ends the command's input, and what has come must not run.
func TestJobCutScript(t *testing.T) {
	forJobs(t, func(t *testing.T, h Host, j jobs, out string) {
		script := "echo ran >>" + out + "\n# the rest\n"
		err := j.start(soon(t), cutInput{h}, "k", script)
		require.ErrorContains(t, err, "did not arrive whole")
		st, err := j.get(soon(t), h, "k")
		require.NoError(t, err)
		assert.Equal(t, JobAbsent, st.Phase)
		// The same call again completes it.
		require.NoError(t, j.start(soon(t), h, "k", script))
		_, err = j.wait(soon(t), h, "k", poll, nil)
		require.NoError(t, err)
	})
}

// cutInput loses the second half of what a command is to read.
type cutInput struct{ Host }

func (c cutInput) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	b, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	return c.Host.Run(ctx, cmd, strings.NewReader(string(b[:len(b)/2])), stdout, stderr)
}

func TestJobOutlivesConnection(t *testing.T) {
	s := simulate(t, func(s *host.Spec) { s.Units = append(s.Units, host.Unit{Name: "idle"}) })
	c := s.dial()
	require.NoError(t, StartJob(soon(t), c, "k", "until [ -e /srv/go ]; do sleep 10; done\necho done\n"))
	untilRunning(t, c, jobs{jobRoot}, "k")
	require.NoError(t, c.Close())
	require.NoError(t, s.WriteFile("/srv/go", nil, 0o644))
	dialled := 0
	st, err := WaitJob(soon(t), c, "k", poll, func(context.Context) (Host, error) {
		if dialled++; dialled == 1 {
			return nil, errLost
		}
		return s.dial(), nil
	})
	require.NoError(t, err)
	assert.Equal(t, JobState{Phase: JobExited}, st)
	assert.Equal(t, 2, dialled)
	c = s.dial()
	log, err := JobLog(soon(t), c, "k")
	require.NoError(t, err)
	assert.Equal(t, "done\n", log)
}

// What a job makes is readable as after a login; what it says is not.
func TestJobModes(t *testing.T) {
	forJobs(t, func(t *testing.T, h Host, j jobs, out string) {
		require.NoError(t, j.start(soon(t), h, "k", "umask\necho x >"+out+"\n"))
		_, err := j.wait(soon(t), h, "k", poll, nil)
		require.NoError(t, err)
		log, err := j.log(t.Context(), h, "k")
		require.NoError(t, err)
		assert.Equal(t, "0022\n", log)
		modes, err := output(t.Context(), h, "stat -c %a "+out+"; cd '"+strings.ReplaceAll(j.dir("k"), "'", `'\''`)+"'; stat -c %a . log script status started", nil)
		require.NoError(t, err)
		assert.Equal(t, "644\n700\n600\n600\n600\n700\n", modes)
	})
}

func TestJobLogTail(t *testing.T) {
	f := &fake{file: map[string]string{jobRoot + "/k/log": strings.Repeat("升", 5000) + "end"}}
	log, err := JobLog(t.Context(), f, "k")
	require.NoError(t, err)
	assert.LessOrEqual(t, len(log), 4096+len("…"))
	assert.True(t, strings.HasSuffix(log, "升end"))
	assert.NotContains(t, log, "\uFFFD")
	e := &JobError{Key: "k", State: JobState{JobExited, 1}, Log: log}
	assert.Less(t, len(e.Error()), 600, "an error is no log")
	assert.Contains(t, e.Error(), jobRoot+"/k/log on the host")
}

func TestJobKeys(t *testing.T) {
	f := &fake{run: func(string, io.Writer) error { return nil }}
	for _, key := range []string{"", "-a", "a b", "a/../b", "$(x)", "a\n", "A", strings.Repeat("a", 65)} {
		assert.Error(t, StartJob(t.Context(), f, key, "true"), "%q", key)
		_, err := GetJob(t.Context(), f, key)
		assert.Error(t, err)
		_, err = JobLog(t.Context(), f, key)
		assert.Error(t, err)
		_, err = WaitJob(t.Context(), f, key, poll, nil)
		assert.Error(t, err)
		_, err = UpgradeDocker(t.Context(), f, key, "true", poll)
		assert.Error(t, err)
	}
	assert.Empty(t, f.cmds, "nothing reached the host")
}

func TestJobAnswers(t *testing.T) {
	for answer, want := range map[string]JobState{
		"absent\n": {Phase: JobAbsent}, "running\n": {Phase: JobRunning}, "lost\n": {Phase: JobLost},
		"exited\n0\n": {Phase: JobExited}, "exited\n137\n": {JobExited, 137},
		"": {}, "exited\n": {}, "exited\nx\n": {}, "gone\n": {}, "exited\n1\n2\n": {},
	} {
		f := &fake{run: func(_ string, w io.Writer) error { _, err := io.WriteString(w, answer); return err }}
		got, err := GetJob(t.Context(), f, "k")
		assert.Equal(t, want, got, "%q", answer)
		assert.Equal(t, want == JobState{}, err != nil, "%q", answer)
	}
}

// Who shows another key is not waited for, whether the question or the new
// connection has found that out.
func TestWaitJobWrongKey(t *testing.T) {
	for _, wrong := range []error{&hostinv.UnknownHostKeyError{}, &hostinv.HostKeyChangedError{}, &hostinv.HostKeyRevokedError{}} {
		err := fmt.Errorf("cannot connect: %w", wrong)
		f := &fake{run: func(string, io.Writer) error { return err }}
		_, got := WaitJob(t.Context(), f, "k", time.Hour, nil)
		require.ErrorIs(t, got, wrong)
		f.run = func(string, io.Writer) error { return errLost }
		_, got = WaitJob(t.Context(), f, "k", time.Hour, func(context.Context) (Host, error) { return nil, err })
		require.ErrorIs(t, got, wrong)
		f.run = func(cmd string, w io.Writer) error {
			if strings.Contains(cmd, "absent") && len(f.cmds) == 1 {
				_, err := io.WriteString(w, "running\n")
				return err
			}
			return err
		}
		f.cmds = nil
		_, got = UpgradeDocker(t.Context(), f, "k", "true\n", time.Hour)
		require.ErrorIs(t, got, wrong)
	}
}

// TestWaitJobTime waits in virtual time.
func TestWaitJobTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fake{run: func(_ string, w io.Writer) error {
			if n++; n%2 == 0 {
				return errLost
			}
			_, err := io.WriteString(w, "running\n")
			return err
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		st, err := WaitJob(ctx, f, "k", 0, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, JobRunning, st.Phase)
		assert.Equal(t, 4, n, "every three seconds when nothing is said")
		assert.Contains(t, err.Error(), `job k still "running" (last trouble: cannot read the state of job k: connection lost)`)

		f.run = func(string, io.Writer) error { return errLost }
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = WaitJob(ctx, f, "k", time.Second, func(context.Context) (Host, error) { return nil, errors.New("no route") })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Contains(t, err.Error(), "job k not seen yet (last trouble: no route)")
	})
}
