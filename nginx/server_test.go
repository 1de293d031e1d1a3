package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// localHost is this machine as a Host.
type localHost struct {
	before func(cmd string) // called before a command is run
}

// statusError gives an exit status the way transports do.
type statusError struct{ *exec.ExitError }

func (e statusError) ExitStatus() int { return e.ExitCode() }

func (h localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if h.before != nil {
		h.before(cmd)
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", cmd)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return statusError{exit}
	}
	return err
}

func (localHost) ReadFile(_ context.Context, name string) ([]byte, error) { return os.ReadFile(name) }

func (localHost) ReadDir(_ context.Context, name string) ([]fs.DirEntry, error) {
	return os.ReadDir(name)
}

func (localHost) WriteFile(_ context.Context, name string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// live is a running nginx of the test's own, on loopback, whose site file is
// reached through a link as Debian does it.
type live struct {
	*nginx.Server
	dir, site string
	port      int
}

func startNginx(t *testing.T, host nginx.Host, upstreams string) *live {
	t.Helper()
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	l := &live{dir: dir, port: testenv.FreePort(t, "tcp", "127.0.0.1"), site: filepath.Join(dir, "available", "site")}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "available"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "enabled"), 0o755))
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, mainConf(dir, "include enabled/*;"))
	write(t, l.site, upstreams+fmt.Sprintf("server {\n\tlisten 127.0.0.1:%d;\n\tlocation / { proxy_pass http://app; }\n\tlocation /ws { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h; }\n}\n", l.port))
	require.NoError(t, os.Chmod(l.site, 0o640))
	require.NoError(t, os.Symlink("../available/site", filepath.Join(dir, "enabled", "site")))
	l.Server = &nginx.Server{Host: host, Binary: binary, Conf: conf}
	out, err := exec.Command(binary, "-c", conf).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() {
		data, err := os.ReadFile(filepath.Join(dir, "nginx.pid"))
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		require.NoError(t, err)
		p, err := os.FindProcess(pid)
		require.NoError(t, err)
		require.NoError(t, p.Signal(syscall.SIGTERM))
		for range 3000 {
			if _, err := os.Stat(filepath.Join(dir, "nginx.pid")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("nginx did not stop")
	})
	require.Eventually(t, func() bool {
		workers, err := l.Workers(t.Context())
		return err == nil && len(workers) == 2
	}, 20*time.Second, 10*time.Millisecond, "the workers do not come up")
	return l
}

func (l *live) get(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", l.port))
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(data)
}

// backend answers with its own address, on a loopback address of its own.
func backend(t *testing.T, host string) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Skipf("this system has no %s: %v", host, err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			upgrade(w, r)
			return
		}
		fmt.Fprint(w, host)
	}))
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

func pids(workers []nginx.Worker) []int {
	var out []int
	for _, w := range workers {
		if !w.ShuttingDown {
			out = append(out, w.PID)
		}
	}
	return out
}

func noTemps(t *testing.T, l *live) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(l.site))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "a temporary file is left")
}

func TestApply(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := context.Background()
	p1 := backend(t, "127.9.0.1")
	p2 := backend(t, "127.9.0.2")
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:"+p1+";\n\tserver 127.9.0.2:"+p2+";\n}\n")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)

	tree, err := l.Load(ctx)
	require.NoError(t, err)
	c, err := tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	require.NoError(t, err)
	before, err := l.Workers(ctx)
	require.NoError(t, err)
	require.Len(t, before, 2)
	applied, err := l.Apply(ctx, c)
	require.NoError(t, err)
	for _, pid := range pids(applied.Workers) {
		assert.NotContains(t, pids(before), pid)
	}
	for range 6 {
		assert.Equal(t, "127.9.0.2", l.get(t))
	}
	info, err := os.Stat(l.site)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm(), "the mode is kept")
	link, err := os.Readlink(filepath.Join(l.dir, "enabled", "site"))
	require.NoError(t, err)
	assert.Equal(t, "../available/site", link, "the link is kept")
	noTemps(t, l)

	again, err := l.Apply(ctx, c)
	require.NoError(t, err, "an Apply that was cut off can be repeated")
	assert.NotEmpty(t, again.Workers)

	require.NoError(t, l.Put(ctx, c.Inverse().Files()))
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
	seen := map[string]bool{}
	for range 8 {
		seen[l.get(t)] = true
	}
	assert.Len(t, seen, 2)
}

// TestApplyRefused makes a change that nginx -t refuses: nothing of it stays.
func TestApplyRefused(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := context.Background()
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:1;\n}\n")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	before, err := l.Workers(ctx)
	require.NoError(t, err)

	bad := nginx.NewChange(nginx.FileChange{
		Name: filepath.Join(l.dir, "enabled/site"), Before: original,
		After: []byte(strings.Replace(string(original), "server 127", "servers 127", 1)),
	})
	_, err = l.Apply(ctx, bad)
	var apply *nginx.ApplyError
	require.ErrorAs(t, err, &apply)
	assert.NoError(t, apply.PutBack)
	var test *nginx.TestError
	require.ErrorAs(t, err, &test)
	assert.Contains(t, test.Output, `unknown directive "servers"`)
	assert.False(t, test.BeforeEdit)
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
	noTemps(t, l)
	after, err := l.Workers(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after, "nginx was not reloaded")

	// What is broken already is not ours to edit.
	write(t, filepath.Join(l.dir, "enabled", "other"), "bad")
	_, err = l.Apply(ctx, bad)
	require.ErrorAs(t, err, &test)
	assert.True(t, test.BeforeEdit)
}

func TestApplyDrift(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := context.Background()
	var during func(cmd string)
	l := startNginx(t, localHost{before: func(cmd string) {
		if during != nil {
			during(cmd)
		}
	}}, "upstream app {\n\tserver 127.9.0.1:1;\n\tserver 127.9.0.2:1;\n}\n")
	tree, err := l.Load(ctx)
	require.NoError(t, err)
	c, err := tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	require.NoError(t, err)
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	var drift *nginx.DriftError

	// Somebody edits the file between our look and our write.
	during = func(cmd string) {
		if strings.Contains(cmd, "mv -f -T") {
			write(t, l.site, "# theirs\n"+string(original))
		}
	}
	_, err = l.Apply(ctx, c)
	require.ErrorAs(t, err, &drift)
	during = nil
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, "# theirs\n"+string(original), string(now))
	noTemps(t, l)

	// And before it.
	_, err = l.Apply(ctx, c)
	require.ErrorAs(t, err, &drift)
	require.ErrorAs(t, l.Put(ctx, c.Inverse().Files()), &drift)
}

// TestReloadProof: a port that another program holds passes nginx -t and
// nginx -s reload; only the workers tell.
func TestReloadProof(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := context.Background()
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:1;\n}\n")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	c := nginx.NewChange(nginx.FileChange{
		Name: filepath.Join(l.dir, "enabled/site"), Before: original,
		After: fmt.Appendf(original[:len(original):len(original)], "server { listen %s; }\n", taken.Addr()),
	})
	_, err = l.Apply(ctx, c)
	var reload *nginx.ReloadError
	require.ErrorAs(t, err, &reload)
	var apply *nginx.ApplyError
	require.ErrorAs(t, err, &apply)
	assert.NoError(t, apply.PutBack)
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
}

// TestPutBackWhileReloading: who gives up while nginx still tries to use the
// change gets everything back, and is not told that the way back failed: what
// nginx says at the end of its trying is about the change.
func TestPutBackWhileReloading(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var log string
	l := startNginx(t, localHost{before: func(string) {
		if data, err := os.ReadFile(log); err == nil && strings.Contains(string(data), "[emerg]") {
			giveUp()
		}
	}}, "upstream app {\n\tserver 127.9.0.1:1;\n}\n")
	log = filepath.Join(l.dir, "error.log")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	before, err := l.Workers(ctx)
	require.NoError(t, err)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, err = l.Apply(ctx, nginx.NewChange(nginx.FileChange{
		Name: filepath.Join(l.dir, "enabled/site"), Before: original,
		After: fmt.Appendf(original[:len(original):len(original)], "server { listen %s; }\n", taken.Addr()),
	}))
	require.ErrorIs(t, err, context.Canceled)
	var apply *nginx.ApplyError
	require.ErrorAs(t, err, &apply)
	require.NoError(t, apply.PutBack)
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
	after, err := l.Workers(t.Context())
	require.NoError(t, err)
	for _, pid := range pids(after) {
		assert.NotContains(t, pids(before), pid, "it reloaded the old files")
	}
	noTemps(t, l)
}

func TestNotRunning(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "nginx.conf"), mainConf(dir, ""))
	s := &nginx.Server{Host: localHost{}, Binary: binary, Conf: filepath.Join(dir, "nginx.conf")}
	_, err := s.Workers(context.Background())
	assert.ErrorIs(t, err, nginx.ErrNotRunning)
	write(t, filepath.Join(dir, "nginx.pid"), strconv.Itoa(os.Getpid()))
	_, err = s.Reload(context.Background())
	assert.ErrorIs(t, err, nginx.ErrNotRunning)
	write(t, filepath.Join(dir, "nginx.conf"), "events {")
	var test *nginx.TestError
	assert.ErrorAs(t, s.Test(context.Background()), &test)
}
