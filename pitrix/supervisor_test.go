package pitrix

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/poll"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

func TestParseSupervisor(t *testing.T) {
	for _, tt := range []struct {
		name, out string
		rc        int
		want      []Program
		verdict   Verdict
		err       string
	}{
		{"3.x, everything runs", "cronus-api                       RUNNING    pid 24333, uptime 0:04:59\ncb_server                        RUNNING    pid 1, uptime 12 days, 3:04:05\n", 0,
			[]Program{{"cronus-api", "RUNNING", "pid 24333, uptime 0:04:59", 24333}, {"cb_server", "RUNNING", "pid 1, uptime 12 days, 3:04:05", 1}}, VerdictRunning, ""},
		{"3.x ends with 0 whatever happens", "cb_server FATAL Exited too quickly (process log may have details)\n", 0,
			[]Program{{"cb_server", "FATAL", "Exited too quickly (process log may have details)", 0}}, VerdictBroken, ""},
		{"4.x", "w:w_00   RUNNING   pid 7, uptime 0:00:01\nw:w_01   STARTING\n", 3,
			[]Program{{"w:w_00", "RUNNING", "pid 7, uptime 0:00:01", 7}, {"w:w_01", "STARTING", "", 0}}, VerdictSettling, ""},
		{"stopped", "a   STOPPED   Not started\nb   STOPPED   Nov 21 11:30 PM\nc EXITED Nov 21 11:30 PM\n", 3,
			[]Program{{"a", "STOPPED", "Not started", 0}, {"b", "STOPPED", "Nov 21 11:30 PM", 0}, {"c", "EXITED", "Nov 21 11:30 PM", 0}}, VerdictStopped, ""},
		{"some", "a RUNNING pid 3, uptime 0:00:09\nb EXITED Nov 21 11:30 PM\n", 3, []Program{{"a", "RUNNING", "pid 3, uptime 0:00:09", 3}, {"b", "EXITED", "Nov 21 11:30 PM", 0}}, VerdictPartial, ""},
		{"none", "", 0, []Program{}, VerdictEmpty, ""},
		{"no socket", "unix:///var/run/supervisor.sock no such file\n", 4, nil, "", "does not answer"},
		{"no socket, 3.x", "unix:///var/run/supervisor.sock no such file\n", 0, nil, "", "does not answer"},
		{"refused", "error: <class 'socket.error'>, [Errno 111] Connection refused: file: ... line: 591\n", 0, nil, "", "does not answer"},
		{"not installed", "sh: 1: supervisorctl: not found\n", 127, nil, "", "cannot read the line"},
		{"an odd state", "a SLEEPING\n", 0, nil, "", "cannot read the line"},
		{"silent failure", "", 2, nil, "", "status 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseSupervisor([]byte(tt.out), tt.rc)
			if tt.err != "" {
				assert.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got.Programs)
			assert.Equal(t, tt.verdict, got.Verdict())
		})
	}
}

// The real supervisord, with a program in every state that it can hold.
func TestRealSupervisor(t *testing.T) {
	testenv.Slow(t)
	needIdentity(t)
	daemon, ctl := testenv.Need(t, "supervisord"), testenv.Need(t, "supervisorctl")
	dir := t.TempDir()
	conf := filepath.Join(dir, "supervisord.conf")
	text := fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=%[1]s/log
pidfile=%[1]s/pid
childlogdir=%[1]s
[unix_http_server]
file=%[1]s/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[1]s/s
[program:runs]
command=sleep 600
startsecs=0
[program:group]
command=sleep 600
process_name=%%(program_name)s_%%(process_num)02d
numprocs=2
startsecs=0
[program:starts]
command=sleep 600
startsecs=600
[program:idle]
command=sleep 600
autostart=false
startsecs=0
[program:ended]
command=true
startsecs=0
autorestart=false
[program:fatal]
command=%[1]s/no-such-program
startretries=0
[program:backoff]
command=false
startsecs=1
startretries=100
`, dir)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	c := exec.Command(daemon, "-c", conf)
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Signal(os.Interrupt); _ = c.Wait() })

	// supervisorctl as on a node: without options.
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "supervisorctl"), []byte("#!/bin/sh\nexec "+ctl+" -c "+conf+" \"$@\"\n"), 0o755))
	n := &Node{Name: "proxy0", Host: &localHost{env: []string{"PATH=" + bin + ":" + os.Getenv("PATH")}}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	var s Supervisor
	err := poll.Poller{Interval: 50 * time.Millisecond, Tolerate: 1000, Retryable: func(error) bool { return true }}.Until(ctx, "supervisord", func(ctx context.Context) (string, bool, error) {
		var err error
		if s, err = n.SupervisorStatus(ctx); err != nil {
			return "", false, err
		}
		state := map[string]string{}
		for _, p := range s.Programs {
			state[p.Name] = p.State
		}
		return s.String(), state["fatal"] == "FATAL" && state["backoff"] == "BACKOFF" && state["ended"] == "EXITED" && state["runs"] == "RUNNING", nil
	})
	require.NoError(t, err)
	state := map[string]string{}
	for _, p := range s.Programs {
		state[p.Name] = p.State
		assert.Equal(t, p.State == "RUNNING" || p.State == "STARTING" && p.PID > 0, p.PID > 0, "%+v", p)
	}
	assert.Equal(t, map[string]string{"runs": "RUNNING", "group:group_00": "RUNNING", "group:group_01": "RUNNING", "starts": "STARTING",
		"idle": "STOPPED", "ended": "EXITED", "fatal": "FATAL", "backoff": "BACKOFF"}, state)
	assert.Equal(t, VerdictBroken, s.Verdict())
	_, status, err := both(ctx, n.Host, "supervisorctl status")
	require.NoError(t, err)
	assert.Equal(t, 3, status, "of a supervisorctl 4 when some do not run")
	_, err = n.WaitPrograms(ctx, time.Millisecond)
	assert.ErrorContains(t, err, "repair them first")

	id, err := n.GetIdentity(ctx)
	require.NoError(t, err)
	wrong := id
	wrong.MachineID = "another"
	var other *IdentityError
	require.ErrorAs(t, n.StopPrograms(ctx, wrong), &other)
	require.NoError(t, n.StopPrograms(ctx, id))
	s, err = n.SupervisorStatus(ctx)
	require.NoError(t, err)
	for _, p := range s.Programs {
		assert.NotContains(t, []string{"RUNNING", "STARTING", "STOPPING", "BACKOFF"}, p.State, "%+v", p)
	}
	_, status, err = both(ctx, n.Host, "supervisorctl stop all")
	require.NoError(t, err)
	assert.Zero(t, status, "stop ends with 0 whatever it did")

	_, status, err = both(ctx, n.Host, "supervisorctl start runs")
	require.NoError(t, err)
	require.Zero(t, status)

	require.NoError(t, c.Process.Signal(os.Interrupt))
	_ = c.Wait()
	_, err = n.SupervisorStatus(ctx)
	assert.ErrorIs(t, err, ErrNoSupervisor)
}

// answering is a Host that answers every command with the next text, the last one
// again and again.
type answering struct {
	localHost
	texts []string
}

func (a *answering) Run(_ context.Context, _ string, _ io.Reader, stdout, _ io.Writer) error {
	_, err := io.WriteString(stdout, a.texts[0])
	if len(a.texts) > 1 {
		a.texts = a.texts[1:]
	}
	return err
}

// Behind a boot supervisord comes last: until then it is not one that fails, how
// often it may be asked. One that never comes is not waited for to the end.
func TestTrapSupervisorComesLast(t *testing.T) {
	const none, runs = "unix:///var/run/supervisor.sock no such file\n", "cb_server   RUNNING   pid 12, uptime 0:00:01\n"
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := &Node{Name: "proxy0", Host: &answering{texts: append(slices.Repeat([]string{none}, 12), "cb_server   STARTING\n", runs)}}
		s, err := n.WaitPrograms(ctx, 3*time.Second)
		require.NoError(t, err)
		assert.Equal(t, VerdictRunning, s.Verdict())
		began := time.Now()
		n.Host = &answering{texts: []string{none}}
		_, err = n.WaitPrograms(ctx, 3*time.Second)
		require.ErrorIs(t, err, ErrNoSupervisor)
		assert.InDelta(t, 5, time.Since(began).Minutes(), 0.5)
	})
}
