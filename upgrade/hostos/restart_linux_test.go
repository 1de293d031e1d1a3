package hostos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// needRoot: only root reads the environment of other users' processes and
// starts processes as them.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: restart values are root's")
	}
	for _, p := range []string{"perl", "setsid", "xargs", "chroot", "prlimit"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
}

// A byhand is a program of this machine that was started by hand: perl, asleep,
// which leaves its arguments and environment alone.
type byhand struct {
	args, env []string // after "perl -e 'sleep 600' --"
	dir       string
	uid       uint32
	umask     int
	stdout    *os.File // nil = /dev/null
	stderr    *os.File
	limits    []string // options of prlimit
}

func (b byhand) argv() []string {
	return append([]string{"perl", "-e", "sleep 600", "--"}, b.args...)
}

// umask is this process's: one test at a time may change it.
var umask sync.Mutex

// start runs it and ends it with the test. The environment goes to the kernel
// as it is: os/exec would drop what it takes for wrong.
func (b byhand) start(t testing.TB) *os.Process {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	out, errw := b.stdout, b.stderr
	if out == nil {
		out = null
	}
	if errw == nil {
		errw = null
	}
	program, args := "perl", b.argv()
	if len(b.limits) > 0 {
		program, args = "prlimit", append(append([]string{"prlimit"}, b.limits...), b.argv()...)
	}
	program, err = exec.LookPath(program)
	require.NoError(t, err)
	umask.Lock()
	old := syscall.Umask(b.umask)
	p, err := os.StartProcess(program, args, &os.ProcAttr{Dir: b.dir, Env: b.env, Files: []*os.File{null, out, errw},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: b.uid, Gid: b.uid, Groups: []uint32{b.uid}}}})
	syscall.Umask(old)
	umask.Unlock()
	require.NoError(t, err)
	gone := make(chan struct{})
	go func() { _, _ = p.Wait(); close(gone) }()
	t.Cleanup(func() {
		_ = p.Kill()
		<-gone
	})
	// Its name is perl's only after exec.
	require.Eventually(t, func() bool {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid))
		c, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
		return err == nil && l == b.dir && bytes.HasPrefix(c, []byte("perl\x00"))
	}, 10*time.Second, time.Millisecond)
	return p
}

// killAll ends what a service has left of processes on this machine, however
// they were started.
func killAll(t testing.TB, s Service) {
	t.Helper()
	ids, err := servicePIDs(context.WithoutCancel(t.Context()), local{[]string{"/bin/sh"}}, s, false)
	assert.NoError(t, err)
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}

func readProc(t testing.TB, pid, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/" + name)
	require.NoError(t, err)
	return string(b)
}

func field(t testing.TB, pid, name string) string {
	for line := range strings.Lines(readProc(t, pid, "status")) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// odd are values that shells like to spoil.
var odd = []string{
	"", " ", "a b", "'", `"`, `\`, "$HOME", "`id`", "a\nb", "\n", "\n\n", "a\tb", "*", "-n", "--", "=", "~", "#", "!", "%s", "\\n",
	"内核", "\xff\xfe", "\x01\x02\x7f\x80\x81\x88", "{}", "a\\", "trailing \n",
}

// TestRestartExactly: what is started again has the arguments and the
// environment of before to the byte, its working directory, user, groups,
// umask, limits and output.
func TestRestartExactly(t *testing.T) {
	needRoot(t)
	onShells(t, func(t *testing.T, h local) {
		base := t.TempDir()
		require.NoError(t, os.Chmod(filepath.Dir(base), 0o755))
		dir := filepath.Join(base, "srv it's \"odd\" $x")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.Chmod(base, 0o755)) // whatever umask this process has at the moment
		require.NoError(t, os.Chmod(dir, 0o755))
		r := restarts{filepath.Join(base, "var", "restart")}
		require.NoError(t, os.Mkdir(filepath.Join(base, "var"), 0o755))
		log, err := os.OpenFile(filepath.Join(dir, "nohup 1.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		require.NoError(t, err)
		defer log.Close()
		require.NoError(t, log.Chown(12345, 12345))
		rootlog, err := os.OpenFile(filepath.Join(dir, "err"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		require.NoError(t, err)
		defer rootlog.Close()
		require.NoError(t, rootlog.Chmod(0o666))

		env := []string{"PATH=" + os.Getenv("PATH"), "A.b-c=1", "BASH_FUNC_x%%=() { :; }", "PWD=/elsewhere", "_=/x", "SHLVL=7", "LC_ALL=zh_CN.UTF-8", "IFS=x", "-i=1"}
		for i, v := range odd {
			env = append(env, fmt.Sprintf("V%d=%s", i, v))
		}
		env = append(env, "BIG="+strings.Repeat("x", 128<<10-len("BIG=")-1), "ALSO="+strings.Repeat("'\n", 60<<10))
		b := byhand{args: append(append([]string{}, odd...), strings.Repeat("y", 100<<10), ""), env: env, dir: dir, uid: 12345, umask: 0o027, stdout: log, stderr: rootlog, limits: []string{"--nofile=777:888", "--core=0:0"}}
		p := b.start(t)
		s := Service{Name: "odd.one", Kind: Process, Dir: dir, Program: "perl"}
		pid := strconv.Itoa(p.Pid)
		was := map[string]string{}
		for _, f := range []string{"cmdline", "environ", "limits"} {
			was[f] = readProc(t, pid, f)
		}
		kept, err := r.capture(soon(t), h, "k1", []Service{s})
		require.NoError(t, err)
		require.Len(t, kept, 1)
		assert.Equal(t, Kept{Service: "odd.one", PID: p.Pid, UID: 12345, Args: len(b.argv()), Env: len(env), Output: strings.ReplaceAll(log.Name(), " ", "?")}, kept[0])

		start := func(keys ...string) error {
			n, err := r.start(soon(t), h, s, keys)
			if err == nil {
				assert.Equal(t, 1, n)
			}
			return err
		}
		require.ErrorContains(t, start("other"), "no restart values are kept")
		require.NoError(t, start("k0", "k1"), "it runs: nothing happens")
		ids, err := servicePIDs(soon(t), h, s, false)
		require.NoError(t, err)
		require.Equal(t, []string{pid}, ids)

		require.NoError(t, StopService(soon(t), h, s, ServiceOptions{Poll: poll}))
		t.Cleanup(func() { killAll(t, s) })
		require.NoError(t, start("k0", "k1"))
		var now string
		require.Eventually(t, func() bool {
			ids, err := servicePIDs(t.Context(), h, s, false)
			if err != nil || len(ids) != 1 {
				return false
			}
			now = ids[0]
			return now != pid
		}, 20*time.Second, poll)
		for _, f := range []string{"cmdline", "environ", "limits"} {
			assert.True(t, was[f] == readProc(t, now, f), "%s differs:\n%.500q\n%.500q", f, was[f], readProc(t, now, f))
		}
		for f, want := range map[string]string{"Uid": "12345\t12345\t12345\t12345", "Gid": "12345\t12345\t12345\t12345", "Groups": "12345", "Umask": "0027", "PPid": "1"} {
			assert.Equal(t, want, field(t, now, f), f)
		}
		for fd, want := range map[string]string{"0": "/dev/null", "1": log.Name(), "2": rootlog.Name()} {
			l, err := os.Readlink("/proc/" + now + "/fd/" + fd)
			require.NoError(t, err)
			assert.Equal(t, want, l)
		}
		for _, f := range []string{"3", "4", "5"} {
			_, err := os.Readlink("/proc/" + now + "/fd/" + f)
			assert.ErrorIs(t, err, fs.ErrNotExist, "no handle of ours")
		}
		require.NoError(t, start("k1"))
		ids, err = servicePIDs(soon(t), h, s, false)
		require.NoError(t, err)
		assert.Len(t, ids, 1, "started once")

		// The values are root's alone, and go.
		err = filepath.WalkDir(r.root, func(name string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			i, err := d.Info()
			require.NoError(t, err)
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			assert.Equal(t, want, i.Mode().Perm(), name)
			assert.Equal(t, uint32(0), i.Sys().(*syscall.Stat_t).Uid)
			return nil
		})
		require.NoError(t, err)
		keys, err := r.list(soon(t), h)
		require.NoError(t, err)
		assert.Equal(t, []string{"k1"}, keys)
		require.NoError(t, r.remove(soon(t), h, []string{"k1", "k2"}))
		require.NoError(t, r.remove(soon(t), h, []string{"k1"}))
		_, err = os.Stat(r.root)
		assert.True(t, errors.Is(err, fs.ErrNotExist))
		keys, err = r.list(soon(t), h)
		require.NoError(t, err)
		assert.Empty(t, keys)
	})
}
