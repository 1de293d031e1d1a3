package hostos

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/shellq"
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

// The real supervisord: a program, a group, one that fails, one that is not
// there, and no supervisord at all.
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
[program:worker]
command=/bin/sleep 600
startsecs=0
[program:pool]
command=/bin/sleep 600
process_name=%%(program_name)s_%%(process_num)d
numprocs=2
startsecs=0
[program:broken]
command=/bin/false
autostart=false
startsecs=1
startretries=0
`, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "supervisord.conf"), []byte(text), 0o600))
	h := in{local{[]string{"/bin/sh"}}, dir}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	worker := Service{Name: "worker", Kind: Supervisor, Program: "worker"}
	_, err := ServiceRunning(ctx, h, worker)
	require.ErrorContains(t, err, "supervisord does not answer", "not known is not stopped")

	cmd := exec.Command(daemon, "-c", filepath.Join(dir, "supervisord.conf"))
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
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
	require.NoError(t, StartServices(ctx, h, nil, "", both, o))
	assert.Equal(t, []string{"RUNNING", "RUNNING"}, words("pool:*"))
	assert.Equal(t, []string{"RUNNING"}, words("worker"))
	_, err = ServiceRunning(ctx, h, Service{Name: "x", Kind: Supervisor, Program: "nothing"})
	require.ErrorIs(t, err, errNoProgram)
	short, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	err = StartServices(short, h, nil, "", []Service{{Name: "broken", Kind: Supervisor, Program: "broken"}}, o)
	require.ErrorContains(t, err, "service broken")
}
