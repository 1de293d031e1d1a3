package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

const supervisorPrograms = `[program:worker]
command=/bin/sleep 600
startsecs=0
[program:pool]
command=/bin/sleep 600
process_name=%(program_name)s_%(process_num)02d
numprocs=2
startsecs=0
priority=5
[program:slow] ; is STARTING for long
command=/bin/sleep 600
startsecs=2
autostart=false
[program:broken]
command=/bin/false
autostart=false
startretries=0
[program:retries]
command=/bin/false
autostart=false
startretries=100
[program:missing]
command=/no/such/program
autostart=false
[program:once]
command=/bin/sleep 0.2
autostart=false
autorestart=false
startsecs=0
[group:team]
programs=a,b
[program:a]
command=/bin/sleep 600
startsecs=0
[program:b]
command=/bin/sleep 600
startsecs=0
autostart=false
`

func withSupervisor(s *host.Spec, programs string) {
	s.Files["/etc/supervisord.conf"] = host.File{Data: []byte("[unix_http_server]\nfile=/run/supervisor.sock\n[supervisord]\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n[supervisorctl]\nserverurl=unix:///run/supervisor.sock\n[include]\nfiles = supervisord.d/*.ini\n")}
	s.Files["/etc/supervisord.d/programs.ini"] = host.File{Data: []byte(programs)}
	s.Units = append(s.Units, host.Unit{Name: "supervisord", Enabled: true, Active: true, Start: "/usr/bin/supervisord -c /etc/supervisord.conf", Forking: true})
}

// supervisorCommands are given to both, the real supervisorctl and the simulated;
// "until" waits until both say the same of a program, with that state in it. A
// program that tries again ends by itself long after the commands about it.
var supervisorCommands = []string{
	"status", "status worker", "status pool:* nothing", "status pool:pool_00 nothing:*", "status pool",
	"start worker", "stop worker", "stop worker", "status worker", "start worker",
	"stop pool:pool_01", "status pool:*", "start pool:*", "start pool:*", "start pool: worker",
	"start nothing", "start nothing:*", "stop nothing", "stop nothing:*", "restart team:a", "status team:*",
	"start broken", "status broken", "start missing",
	"start once", "until once EXITED", "stop once", "status once",
	"start retries", "until retries BACKOFF", "start retries", "stop retries",
	"stop all", "status", "start all", "status slow team:*",
}

var (
	pidAndUptime = regexp.MustCompile(`pid \d+, uptime \d+:\d\d:\d\d`)
	stoppedAt    = regexp.MustCompile(`(STOPPED|EXITED)   [A-Z][a-z]{2} \d\d \d\d:\d\d [AP]M`)
)

// uniform takes out of an output what no two daemons have in common. What is
// asked of several at once is told in the order of their ends.
func uniform(s string) string {
	if !strings.Contains(s, "uptime") && strings.Count(s, ": started\n")+strings.Count(s, ": stopped\n") > 1 {
		all := strings.SplitAfter(s, "\n")
		slices.Sort(all)
		s = strings.Join(all, "")
	}
	return stoppedAt.ReplaceAllString(pidAndUptime.ReplaceAllString(s, "pid N, uptime T"), "$1   T")
}

// TestSupervisorAsReal gives the real supervisorctl and the simulated one the
// same commands: they say the same and end with the same status.
func TestSupervisorAsReal(t *testing.T) {
	testenv.Slow(t) // every command is a Python program
	daemon, ctl := testenv.Need(t, "supervisord"), testenv.Need(t, "supervisorctl")
	dir := t.TempDir()
	conf := filepath.Join(dir, "supervisord.conf")
	text := fmt.Sprintf("[supervisord]\nnodaemon=true\nuser=root\nlogfile=%[1]s/log\npidfile=%[1]s/pid\nchildlogdir=%[1]s\n[unix_http_server]\nfile=%[1]s/sock\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n[supervisorctl]\nserverurl=unix://%[1]s/sock\n", dir)
	if os.Getuid() != 0 {
		t.Skip("the simulated supervisorctl is root's: the real one is compared as root")
	}
	require.NoError(t, os.WriteFile(conf, []byte(text+supervisorPrograms), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ask := func(command string) (string, int) {
		t.Helper()
		out, err := exec.CommandContext(ctx, "/bin/sh", "-c", ctl+" -c "+conf+" "+command).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			require.NoError(t, err)
		}
		status := 0
		if exit != nil {
			status = exit.ExitCode()
		}
		return string(bytes.ReplaceAll(out, []byte("unix://"+dir+"/sock"), []byte("unix:///run/supervisor.sock"))), status
	}
	s := spec("")
	withSupervisor(&s, supervisorPrograms)
	s.Units[0].Active, s.Units[0].Enabled = false, false
	h, err := host.New(s, host.Options{}) // at the speed of the real one
	require.NoError(t, err)
	defer h.Close()
	require.NoError(t, h.Start())

	same := func(command string) {
		t.Helper()
		want, wantStatus := ask(command)
		got, status := run(t, h, "supervisorctl "+command)
		assert.Equal(t, uniform(want), uniform(got), command)
		assert.Equal(t, wantStatus, status, command)
	}
	same("status")
	same("start worker")
	same("stop all")
	cmd := exec.Command(daemon, "-c", conf)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	_, status := run(t, h, "systemctl start supervisord")
	require.Zero(t, status)
	require.Eventually(t, func() bool {
		_, real := ask("status worker pool:* team:a")
		_, simulated := run(t, h, "supervisorctl status worker pool:* team:a")
		return real == 0 && simulated == 0
	}, time.Minute, 50*time.Millisecond)
	for _, c := range supervisorCommands {
		until, ok := strings.CutPrefix(c, "until ")
		if !ok {
			same(c)
			continue
		}
		name, state, _ := strings.Cut(until, " ")
		require.Eventually(t, func() bool {
			a, _ := ask("status " + name)
			b, _ := run(t, h, "supervisorctl status "+name)
			return strings.Contains(a, state) && uniform(a) == uniform(b)
		}, time.Minute, 10*time.Millisecond, c)
	}
	assert.Empty(t, h.Refused())
}

// TestSupervisor is the simulated supervisord as a unit of the host: a reboot
// brings back what starts by itself, its end ends its programs, and a program
// that dies comes back.
func TestSupervisor(t *testing.T) {
	s := spec("")
	withSupervisor(&s, "[program:stock]\ncommand=java -jar stock.jar --server.port=8085\ndirectory=/srv/stock\nuser=app\nenvironment=MODE=\"prod\"\n[program:manual]\ncommand=/bin/sleep 600\nautostart=false\n")
	s.Files["/srv/stock/stock.jar"] = host.File{Data: []byte("jar")}
	h := start(t, s)
	up := func() bool { _, ok := h.Endpoint(8085); return ok }
	require.Eventually(t, up, 10*time.Second, time.Millisecond)
	out, status := run(t, h, "until supervisorctl status stock >/dev/null; do sleep 1; done; supervisorctl status")
	assert.Equal(t, "manual                           STOPPED   Not started\nstock                            RUNNING   pid N, uptime T\n", uniform(out))
	assert.Equal(t, 3, status)
	const find = `for p in /proc/[0-9]*; do case "$(tr '\000' ' ' <$p/cmdline)" in java*stock.jar*) echo "$p" ;; esac; done`
	out, _ = run(t, h, `p=$(`+find+`); stat -c %U $p; readlink $p/cwd; tr '\000' '\n' <$p/environ | grep -E 'MODE|SUPERVISOR' | sort; cat $p/cgroup | head -n 1`)
	assert.Equal(t, "app\n/srv/stock\nMODE=prod\nSUPERVISOR_ENABLED=1\nSUPERVISOR_GROUP_NAME=stock\nSUPERVISOR_PROCESS_NAME=stock\n4:memory:/system.slice/supervisord.service\n", out)

	run(t, h, `p=$(`+find+`); kill -KILL "${p#/proc/}"`)
	out, _ = run(t, h, "until supervisorctl status stock >/dev/null; do sleep 1; done; supervisorctl stop stock; "+find)
	assert.Equal(t, "stock: stopped\n", out, "it had come back, and now it is gone")
	run(t, h, "supervisorctl start all")
	require.Eventually(t, up, 10*time.Second, time.Millisecond)
	run(t, h, "systemctl stop supervisord")
	assert.False(t, up())
	out, status = run(t, h, "supervisorctl status; systemctl is-active supervisord")
	assert.Equal(t, "unix:///run/supervisor.sock no such file\ninactive\n", out)
	assert.Equal(t, 3, status)

	require.NoError(t, h.Reboot())
	require.Eventually(t, up, 10*time.Second, time.Millisecond)
	out, _ = run(t, h, "supervisorctl status manual")
	assert.Contains(t, out, "STOPPED   Not started")
	assert.Empty(t, h.Refused())

	// What is not simulated is refused, and a host without supervisor has none.
	for _, c := range []string{"supervisorctl", "supervisorctl reread", "supervisorctl tail stock", "supervisorctl -x", "supervisord -n", "su app -c 'supervisorctl status'"} {
		n := len(h.Refused())
		_, status := run(t, h, c)
		assert.Equal(t, 64, status, c)
		assert.Greater(t, len(h.Refused()), n, c)
	}
	_, status = run(t, start(t, spec("")), "command -v supervisorctl")
	assert.NotZero(t, status)
}

// Before 4.0 supervisorctl ended with 0 whatever happened.
func TestSupervisorThree(t *testing.T) {
	s := spec("")
	withSupervisor(&s, "[program:broken]\ncommand=/bin/false\nstartretries=0\n")
	s.Packages = append(s.Packages, "supervisor-3.4.0-1.el7.noarch")
	h := start(t, s)
	out, status := run(t, h, "supervisorctl start nothing; supervisorctl status broken; systemctl stop supervisord; supervisorctl status")
	assert.Contains(t, out, "nothing: ERROR (no such process)\nbroken ")
	assert.Contains(t, out, "no such file\n")
	assert.Zero(t, status)
}
