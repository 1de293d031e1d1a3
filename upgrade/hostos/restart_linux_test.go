package hostos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
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

	"github.com/upgradectl/upgradectl/internal/testenv"
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

// TestRestartProblems: what could not be started again as it was says why, and
// nothing of it is kept.
func TestRestartProblems(t *testing.T) {
	needRoot(t)
	h := local{[]string{"/bin/sh"}}
	path := "PATH=" + os.Getenv("PATH")
	pr, pw, err := os.Pipe()
	require.NoError(t, err)
	defer pr.Close()
	defer pw.Close()
	for name, c := range map[string]struct {
		b    byhand
		want string
	}{
		"pipe":  {byhand{env: []string{path}, stdout: pw}, "its descriptor 1 is a pipe to another program"},
		"path":  {byhand{env: []string{"PATH=/nowhere"}}, "its program is not found where its PATH leads"},
		"twice": {byhand{env: []string{path, "A=1", "A=2"}}, "its environment has the variable A twice"},
		"odd":   {byhand{env: []string{path, "without"}}, "its environment was overwritten"},
	} {
		base := t.TempDir()
		c.b.dir = filepath.Join(base, "srv")
		require.NoError(t, os.Mkdir(c.b.dir, 0o755))
		p := c.b.start(t)
		s := Service{Name: name, Kind: Process, Dir: c.b.dir, Program: "perl"}
		r := restarts{filepath.Join(base, "restart")}
		for _, key := range []string{"", "k1"} {
			kept, err := r.capture(soon(t), h, key, []Service{s})
			want := new(RestartError)
			require.ErrorAs(t, err, &want, name)
			assert.Equal(t, fmt.Sprintf("cannot keep what a restart needs: service %s, process %d: %s; give the service a start command", name, p.Pid, c.want), err.Error())
			assert.Len(t, kept, 1)
		}
		left, err := filepath.Glob(filepath.Join(r.root, "*"))
		require.NoError(t, err)
		hidden, err := filepath.Glob(filepath.Join(r.root, ".*"))
		require.NoError(t, err)
		assert.Empty(t, append(left, hidden...), name)
	}
}

// FuzzRestart: whatever an argument and a variable hold, what is started again
// has them to the byte.
func FuzzRestart(f *testing.F) {
	needRoot(f)
	for _, v := range odd {
		f.Add(v, v+"=")
	}
	h := local{[]string{"/bin/sh"}}
	f.Fuzz(func(t *testing.T, arg, value string) {
		if strings.ContainsRune(arg+value, 0) || len(arg)+len(value) > 4096 {
			t.Skip("no argument can hold a NUL")
		}
		base := t.TempDir()
		b := byhand{args: []string{arg, value}, env: []string{"PATH=" + os.Getenv("PATH"), "V=" + value, "a.b=" + arg}, dir: base}
		p := b.start(t)
		s := Service{Name: "x", Kind: Process, Dir: base, Program: "perl"}
		r := restarts{filepath.Join(base, "restart")}
		_, err := r.capture(soon(t), h, "k", []Service{s})
		require.NoError(t, err)
		old := strconv.Itoa(p.Pid)
		args, env := readProc(t, old, "cmdline"), readProc(t, old, "environ")
		require.NoError(t, p.Signal(syscall.SIGTERM))
		require.NoError(t, StopService(soon(t), h, s, ServiceOptions{Poll: time.Millisecond}))
		defer killAll(t, s)
		_, err = r.start(soon(t), h, s, []string{"k"})
		require.NoError(t, err)
		var now string
		require.Eventually(t, func() bool {
			ids, err := servicePIDs(t.Context(), h, s, false)
			if err != nil || len(ids) != 1 {
				return false
			}
			now = ids[0]
			return true
		}, 20*time.Second, time.Millisecond)
		if readProc(t, now, "cmdline") != args || readProc(t, now, "environ") != env {
			t.Fatalf("started with %q %q, was %q %q", readProc(t, now, "cmdline"), readProc(t, now, "environ"), args, env)
		}
	})
}

// TestRestartRealJava: two JVMs of one directory, with secrets, an output file
// and another user; one is lost, and only that one is started.
func TestRestartRealJava(t *testing.T) {
	needRoot(t)
	java := testenv.Need(t, "java")
	testenv.Slow(t) // JVMs start for a second each
	h := local{[]string{"/bin/sh"}}
	base := t.TempDir()
	dir := filepath.Join(base, "srv order")
	require.NoError(t, os.Mkdir(dir, 0o755))
	r := restarts{filepath.Join(base, "restart")}
	s := Service{Name: "order", Kind: Java, Dir: dir}
	t.Cleanup(func() { killAll(t, s) })
	out := filepath.Join(dir, "nohup.out")
	const secret = "hunter2 secret"
	ports := []string{strconv.Itoa(testenv.FreePort(t, "tcp", ""))}
	for len(ports) < 2 {
		if p := strconv.Itoa(testenv.FreePort(t, "tcp", "")); p != ports[0] {
			ports = append(ports, p)
		}
	}
	for _, port := range ports {
		cmd := exec.Command("/bin/sh", "-c", `exec setsid setsid java -Xmx24m -XX:+UseSerialGC "-Dorder.password=`+secret+`" sun.rmi.registry.RegistryImpl `+port+` >>nohup.out 2>&1 </dev/null`)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + filepath.Dir(java) + ":" + os.Getenv("PATH"), "DB_PASSWORD=" + secret}
		require.NoError(t, cmd.Run())
	}
	ids := func() []string {
		t.Helper()
		l, err := servicePIDs(soon(t), h, s, false)
		require.NoError(t, err)
		return l
	}
	listens := func() bool {
		for _, port := range ports {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	}
	log := func() string {
		b, _ := os.ReadFile(out)
		return string(b)
	}
	if !assert.Eventually(t, listens, time.Minute, 50*time.Millisecond) {
		t.Fatal(log())
	}
	was := ids()
	require.Len(t, was, 2)
	kept, err := r.capture(soon(t), h, "k", []Service{s})
	require.NoError(t, err)
	require.Len(t, kept, 2)
	assert.Equal(t, out, strings.ReplaceAll(kept[0].Output, "?", " "))
	assert.NotContains(t, fmt.Sprint(kept), secret)
	lost := was[1]
	args, env := readProc(t, lost, "cmdline"), readProc(t, lost, "environ")
	n, err := strconv.Atoi(lost)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(n, syscall.SIGTERM))
	require.Eventually(t, func() bool { return len(ids()) == 1 }, time.Minute, 50*time.Millisecond)
	want, err := r.start(soon(t), h, s, []string{"k"})
	require.NoError(t, err)
	assert.Equal(t, 2, want)
	require.Eventually(t, listens, time.Minute, 50*time.Millisecond)
	now := ids()
	require.Len(t, now, 2)
	assert.Contains(t, now, was[0], "the twin goes on")
	for _, id := range now {
		if id != was[0] {
			assert.Equal(t, args, readProc(t, id, "cmdline"))
			assert.Equal(t, env, readProc(t, id, "environ"))
		}
	}
}
