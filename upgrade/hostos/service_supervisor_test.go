package hostos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// in runs commands in a directory: supervisorctl takes the configuration there.
type in struct {
	local
	dir string
}

func (h in) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return h.local.Run(ctx, "cd "+shellq.Quote(h.dir)+"\n"+cmd, stdin, stdout, stderr)
}

// supervisorPrograms: a program is STARTING for startsecs, and one that ends
// within them was too quick. Both are so long that no machine is too slow.
const supervisorPrograms = `[program:worker]
command=/bin/sleep 1000000
startsecs=0
[program:pool]
command=/bin/sleep 1000000
process_name=%(program_name)s_%(process_num)d
numprocs=2
startsecs=0
[program:slow]
command=/bin/sleep 1000000
autostart=false
startsecs=100000
[program:late]
command=/bin/sleep 1000000
autostart=false
startsecs=1
[program:broken]
command=/bin/false
autostart=false
startsecs=100000
startretries=0
[program:retries]
command=/bin/false
autostart=false
startsecs=100000
startretries=1000
`

// testSupervisor holds the work on services against a supervisord: a program, a
// group, programs that are starting, that are tried again, that are given up,
// and one that is not there.
func testSupervisor(t *testing.T, h Host) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	worker := Service{Name: "worker", Kind: Supervisor, Program: "worker"}
	require.Eventually(t, func() bool { up, err := ServiceRunning(ctx, h, worker); return err == nil && up }, 30*time.Second, 50*time.Millisecond)
	o := ServiceOptions{Poll: 50 * time.Millisecond, Healthy: 1}
	words := func(program string) []string {
		t.Helper()
		w, err := programStates(ctx, h, program)
		require.NoError(t, err)
		return w
	}
	pool := Service{Name: "pool", Kind: Supervisor, Program: "pool:*", After: []string{"worker"}}
	require.NoError(t, StopService(ctx, h, Service{Name: "one", Kind: Supervisor, Program: "pool:pool_1"}, o))
	assert.Equal(t, []string{"RUNNING", "STOPPED"}, words("pool:*"))
	both := []Service{pool, worker}
	require.NoError(t, StopServices(ctx, h, both, o))
	assert.Equal(t, []string{"STOPPED", "STOPPED"}, words("pool:*"))
	assert.Equal(t, []string{"STOPPED"}, words("worker"))
	require.EqualError(t, CheckService(ctx, h, nil, "", worker), "service worker does not run: 0 of 1 programs run; worker STOPPED "+stoppedAt(t, h, "worker"))
	for range 2 {
		require.NoError(t, StartServices(ctx, h, nil, "", both, o))
	}
	assert.Equal(t, []string{"RUNNING", "RUNNING"}, words("pool:*"))
	assert.Equal(t, []string{"RUNNING"}, words("worker"))
	_, err := ServiceRunning(ctx, h, Service{Name: "x", Kind: Supervisor, Program: "nothing"})
	require.ErrorIs(t, err, errNoProgram)

	// STARTING is not running yet, and not gone.
	slow := Service{Name: "slow", Kind: Supervisor, Program: "slow"}
	started := make(chan error, 1)
	starting, end := context.WithCancel(ctx)
	defer end()
	go func() { started <- StartServices(starting, h, nil, "", []Service{slow}, o) }()
	require.Eventually(t, func() bool {
		w, err := programStates(ctx, h, "slow")
		return err == nil && slices.Equal(w, []string{"STARTING"})
	}, 30*time.Second, 10*time.Millisecond)
	require.EqualError(t, CheckService(ctx, h, nil, "", slow), "service slow does not run: 0 of 1 programs run; slow STARTING")
	require.NoError(t, StartService(ctx, h, slow, o), "it is on its way")
	require.NoError(t, StopService(ctx, h, slow, o))
	assert.Equal(t, []string{"STOPPED"}, words("slow"))
	end()
	require.Error(t, <-started, "it never ran")
	late := Service{Name: "late", Kind: Supervisor, Program: "late"}
	require.NoError(t, StartServices(ctx, h, nil, "", []Service{late}, o), "it is waited for")
	assert.Equal(t, []string{"RUNNING"}, words("late"))

	// BACKOFF is waited for: supervisord tries again.
	retries := Service{Name: "retries", Kind: Supervisor, Program: "retries"}
	trying, end := context.WithCancel(ctx)
	defer end()
	require.ErrorContains(t, StartServices(trying, &endAfter{h, "retries BACKOFF", end, false}, nil, "", []Service{retries}, o), "(service retries does not run: 0 of 1 programs run; retries BACKOFF Exited too quickly (process log may have details))")
	require.NoError(t, StopService(ctx, h, retries, o))
	assert.Equal(t, []string{"STOPPED"}, words("retries"))

	// FATAL is not: it ends the wait at once, also where a port is asked.
	broken := Service{Name: "broken", Kind: Supervisor, Program: "broken"}
	refused := Dial(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") })
	for _, ports := range [][]int{nil, {8085}} {
		broken.Ports = ports
		err = StartServices(ctx, h, refused, "172.31.0.90", []Service{broken}, o)
		require.ErrorIs(t, err, errGaveUp)
		require.ErrorContains(t, err, "service broken: 0 of 1 programs run; broken FATAL Exited too quickly (process log may have details): supervisord has given up on it; see its log, mend what it ends of, and start it with supervisorctl start broken")
	}
	require.NoError(t, StopService(ctx, h, broken, o), "it is gone")
}

// endAfter ends a wait with the first command after an answer that has text, a
// blank of which stands for any number of them.
type endAfter struct {
	Host
	text string
	end  func()
	said bool
}

func (e *endAfter) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if e.said {
		e.end()
	}
	var b strings.Builder
	err := e.Host.Run(ctx, cmd, stdin, io.MultiWriter(stdout, &b), stderr)
	e.said = e.said || strings.Contains(strings.Join(strings.Fields(b.String()), " "), e.text)
	return err
}

// stoppedAt is when a program was stopped, as supervisorctl says it.
func stoppedAt(t *testing.T, h Host, program string) string {
	t.Helper()
	list, err := listPrograms(t.Context(), h, program)
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0].Detail
}

func TestRealSupervisor(t *testing.T) {
	testenv.Slow(t) // every question is a Python program
	daemon := testenv.Need(t, "supervisord")
	testenv.Need(t, "supervisorctl")
	dir := t.TempDir()
	text := fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=%[1]s/log
pidfile=%[1]s/pid
[unix_http_server]
file=%[1]s/sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[1]s/sock
`, dir) + supervisorPrograms
	require.NoError(t, os.WriteFile(filepath.Join(dir, "supervisord.conf"), []byte(text), 0o600))
	h := in{local{[]string{"/bin/sh"}}, dir}
	_, err := ServiceRunning(t.Context(), h, Service{Name: "worker", Kind: Supervisor, Program: "worker"})
	require.ErrorContains(t, err, "supervisord does not answer", "not known is not stopped")
	cmd := exec.Command(daemon, "-c", filepath.Join(dir, "supervisord.conf"))
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	testSupervisor(t, h)
}

// The same on the simulated supervisord, of 4.2 and of 3.4.
func TestSupervisor(t *testing.T) {
	for _, version := range []string{"", "supervisor-3.4.0-1.el7.noarch"} {
		s := simulate(t, func(s *host.Spec) {
			s.Files = map[string]host.File{"/etc/supervisord.conf": {Data: []byte("[supervisorctl]\nserverurl=unix:///run/supervisor.sock\n" + supervisorPrograms)}}
			s.Units = append(s.Units, host.Unit{Name: "supervisord", Enabled: true, Start: "supervisord -c /etc/supervisord.conf", Forking: true})
			if version != "" {
				s.Packages = append(s.Packages, version)
			}
		})
		testSupervisor(t, s.dial())
		s.StopUnit("supervisord")
		_, err := ServiceRunning(t.Context(), s.dial(), Service{Name: "worker", Kind: Supervisor, Program: "worker"})
		require.ErrorContains(t, err, "supervisord does not answer", "not known is not stopped")
	}
}

// After a boot sshd may answer before supervisord does: what asks it waits.
func TestSupervisorBoots(t *testing.T) {
	answers := []string{"starting\n", "starting\n", "running\n"}
	f := &fake{}
	f.run = func(cmd string, w io.Writer) error {
		switch {
		case strings.Contains(cmd, "is-system-running"):
			_, err := io.WriteString(w, answers[0])
			answers = answers[1:]
			return err
		case len(answers) > 0:
			return errors.New("asked before the host had booted")
		}
		_, err := io.WriteString(w, "worker RUNNING pid 7, uptime 0:00:01\n")
		return err
	}
	require.NoError(t, StartServices(t.Context(), f, nil, "", []Service{{Name: "worker", Kind: Supervisor, Program: "worker"}}, ServiceOptions{Poll: time.Millisecond, Healthy: 1}))
	assert.Empty(t, answers)
}
