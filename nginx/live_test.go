package nginx_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// A tally counts what the clients of a load test met with.
type tally struct {
	requests, failures, reopened atomic.Int64

	mu    sync.Mutex
	first string // failure
}

func (c *tally) failed(format string, args ...any) {
	c.failures.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == "" {
		c.first = fmt.Sprintf(format, args...)
	}
}

// keepAlive sends GETs over one connection for as long as the server keeps it,
// as strictly as HTTP allows: a request is a failure unless it is answered 200
// with a whole body. One exception: RFC 9112, 9.3.1, lets a server close an idle
// connection at any time, and tells the client to send an idempotent request
// again, on a new connection, when the old one ended before the first byte of
// the answer. That happens when nginx closes the kept connections of an old
// worker while the next request is on its way. It is done once: on a connection
// of its own a request must not fail.
func keepAlive(ctx context.Context, addr string, c *tally) {
	var conn net.Conn
	var r *bufio.Reader
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for ctx.Err() == nil {
		c.requests.Add(1)
		for reused := conn != nil; ; reused = false {
			if conn == nil {
				var err error
				if conn, err = net.Dial("tcp", addr); err != nil {
					c.failed("cannot connect: %v", err)
					break
				}
				r = bufio.NewReader(conn)
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			closes, answered, err := get(conn, r, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
			if err == nil && !closes {
				break
			}
			conn.Close()
			conn = nil
			if err == nil {
				break
			}
			if !reused || answered {
				c.failed("on a connection that was reused %v, answered %v: %v", reused, answered, err)
				break
			}
			c.reopened.Add(1)
		}
	}
}

// post sends POSTs, each on a connection of its own: nothing may be repeated.
func post(ctx context.Context, addr string, c *tally) {
	for ctx.Err() == nil {
		c.requests.Add(1)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			c.failed("cannot connect: %v", err)
			continue
		}
		conn.SetDeadline(time.Now().Add(time.Minute))
		if _, _, err := get(conn, bufio.NewReader(conn), "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"); err != nil {
			c.failed("POST: %v", err)
		}
		conn.Close()
	}
}

// get tells whether the server will close the connection, and whether an error
// came after the first byte of the answer.
func get(conn net.Conn, r *bufio.Reader, request string) (closes, answered bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, false, err
	}
	if _, err := r.Peek(1); err != nil {
		return false, false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, true, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, true, err
	}
	if resp.StatusCode != 200 || !strings.HasPrefix(string(body), "127.") {
		return false, true, fmt.Errorf("status %d, body %q", resp.StatusCode, body)
	}
	return resp.Close, true, nil
}

// A socket is an upgraded connection through nginx that echoes.
type socket struct {
	net.Conn
	r *bufio.Reader
}

func openSocket(t *testing.T, addr string) *socket {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	s := &socket{conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(s.r, nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	require.NoError(t, s.echo())
	return s
}

// echo sends some bytes and reads them back.
func (s *socket) echo() error {
	s.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(s, "ping\n"); err != nil {
		return err
	}
	line, err := s.r.ReadString('\n')
	if err == nil && line != "ping\n" {
		err = fmt.Errorf("came back as %q", line)
	}
	return err
}

// upgrade answers /ws by switching protocols and echoing what comes.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	rw.Flush()
	io.Copy(conn, rw)
}

// apply makes a change live and returns what happened.
func (l *live) apply(t *testing.T, edit func(*nginx.Tree) (*nginx.Change, error)) *nginx.Applied {
	t.Helper()
	tree, err := l.Load(t.Context())
	require.NoError(t, err)
	c, err := edit(tree)
	require.NoError(t, err)
	require.False(t, c.Empty())
	applied, err := l.Apply(t.Context(), c)
	require.NoError(t, err)
	assert.Empty(t, applied.LogUnread)
	assert.Empty(t, applied.Backups)
	return applied
}

// TestNobodyNotices takes servers out and in, again and again, under load: no
// request fails, and a WebSocket that was opened before stays open through all
// of it.
func TestNobodyNotices(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	rounds := 1
	if testenv.RunSlow() {
		rounds = 3
	}
	p1, p2, p3 := backend(t, "127.9.1.1"), backend(t, "127.9.1.2"), backend(t, "127.9.1.3")
	l := startNginx(t, localHost{}, fmt.Sprintf("upstream app {\n\tserver 127.9.1.1:%s;\n\tserver 127.9.1.2:%s;\n}\n", p1, p2))
	addr := fmt.Sprintf("127.0.0.1:%d", l.port)
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)

	ws := openSocket(t, addr)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var c, sessions tally
	for range 4 {
		clients.Go(func() { keepAlive(ctx, addr, &c) })
	}
	clients.Go(func() { post(ctx, addr, &c) })
	clients.Go(func() {
		for ctx.Err() == nil {
			sessions.requests.Add(1)
			if err := ws.echo(); err != nil {
				sessions.failed("the WebSocket broke: %v", err)
				return
			}
		}
	})

	reloads, start := 0, time.Now()
	for i := range rounds {
		tag := "r" + strconv.Itoa(i)
		for _, edit := range []func(*nginx.Tree) (*nginx.Change, error){
			func(t *nginx.Tree) (*nginx.Change, error) { return t.Disable(nginx.Query{Host: "127.9.1.1"}, tag) },
			func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore(tag) },
			func(t *nginx.Tree) (*nginx.Change, error) {
				added, err := t.AddServer(nginx.Query{Host: "127.9.1.2"}, "127.9.1.3:"+p3, tag)
				if err != nil {
					return nil, err
				}
				next, err := t.With(added)
				if err != nil {
					return nil, err
				}
				off, err := next.Disable(nginx.Query{Host: "127.9.1.2"}, tag)
				if err != nil {
					return nil, err
				}
				return nginx.Merge(added, off)
			},
			func(t *nginx.Tree) (*nginx.Change, error) {
				on, err := t.Restore(tag)
				if err != nil {
					return nil, err
				}
				next, err := t.With(on)
				if err != nil {
					return nil, err
				}
				gone, err := next.RemoveAdded(tag)
				if err != nil {
					return nil, err
				}
				return nginx.Merge(on, gone)
			},
		} {
			l.apply(t, edit)
			reloads++
		}
	}
	took := time.Since(start)
	stop()
	clients.Wait()
	t.Logf("%d reloads in %v under %d requests: %d failed; %d idle connections closed by nginx were opened again; %d messages over one WebSocket, %d failed",
		reloads, took.Round(time.Millisecond), c.requests.Load(), c.failures.Load(), c.reopened.Load(), sessions.requests.Load(), sessions.failures.Load())
	assert.Zero(t, c.failures.Load(), c.first)
	assert.Zero(t, sessions.failures.Load(), sessions.first)
	assert.Greater(t, c.requests.Load(), int64(reloads), "there was no load")
	assert.Greater(t, sessions.requests.Load(), int64(reloads))
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
	noTemps(t, l)
}

// as runs every command as somebody else, or in another environment.
type as struct {
	localHost
	prefix []string
}

func (h as) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	args := append(append([]string{}, h.prefix...), "/bin/sh", "-c", cmd)
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return statusError{exit}
	}
	return err
}

// withoutSS is an environment that has every program but ss.
func withoutSS(t *testing.T) []string {
	dir := t.TempDir()
	for _, program := range []string{"cat", "readlink", "id", "ls", "grep", "sed", "nginx"} {
		path := testenv.Need(t, program)
		require.NoError(t, os.Symlink(path, filepath.Join(dir, program)))
	}
	return []string{testenv.Need(t, "env"), "PATH=" + dir}
}

func TestWaitDrained(t *testing.T) {
	testenv.Need(t, "nginx")
	testenv.Need(t, "ss")
	t.Parallel()
	ctx := t.Context()
	p1, p2 := backend(t, "127.9.2.1"), backend(t, "127.9.2.2")
	upstreams := "upstream app {\n\tserver 127.9.2.1:" + p1 + ";\n}\n"
	stream := ""
	if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; fileExists(module) {
		stream = "load_module " + module + ";\nstream { upstream raw { server 127.9.2.1:" + p1 + "; } server { listen 127.0.0.1:%d; proxy_pass raw; } }\n"
	} else {
		t.Log("nginx has no stream module here (libnginx-mod-stream): WebSockets only")
	}
	l := startNginx(t, localHost{}, upstreams)
	addr := fmt.Sprintf("127.0.0.1:%d", l.port)
	streamPort := testenv.FreePort(t, "tcp", "127.0.0.1")
	if stream != "" {
		conf, err := os.ReadFile(l.Conf)
		require.NoError(t, err)
		write(t, l.Conf, fmt.Sprintf(stream, streamPort)+string(conf))
		_, err = l.Reload(ctx)
		require.NoError(t, err)
	}
	ws := openSocket(t, addr)
	sessions := []*socket{ws}
	if stream != "" {
		sessions = append(sessions, openSocket(t, fmt.Sprintf("127.0.0.1:%d", streamPort)))
	}
	server := "127.9.2.1:" + p1
	move := func(from, to string) *nginx.Applied {
		tree, err := l.Load(ctx)
		require.NoError(t, err)
		var files []nginx.FileChange
		for _, f := range tree.Files() {
			after := strings.ReplaceAll(string(f.Bytes()), from, to)
			if after != string(f.Bytes()) {
				files = append(files, nginx.FileChange{Name: f.Name(), Before: f.Bytes(), After: []byte(after)})
			}
		}
		applied, err := l.Apply(ctx, nginx.NewChange(files...))
		require.NoError(t, err)
		return applied
	}
	applied := move(server, "127.9.2.2:"+p2)
	require.Len(t, applied.Old, 2)
	for range 4 {
		assert.Equal(t, "127.9.2.2", l.get(t))
	}

	// The sessions go on through workers that nobody sees in the files.
	held := func(o nginx.DrainOptions, on *nginx.Server) *nginx.NotDrainedError {
		t.Helper()
		o.Timeout, o.Interval = 50*time.Millisecond, 20*time.Millisecond
		_, err := on.WaitDrained(ctx, o)
		var left *nginx.NotDrainedError
		require.ErrorAs(t, err, &left)
		return left
	}
	left := held(nginx.DrainOptions{Old: applied.Old, Address: "127.9.2.1"}, l.Server)
	assert.Len(t, left.Connections, len(sessions))
	assert.Equal(t, server, left.Connections[0].Remote.String())
	assert.Empty(t, left.Unseen)
	assert.Zero(t, left.ShutdownTimeout)
	assert.ErrorContains(t, left, "no worker_shutdown_timeout is set")
	assert.Len(t, held(nginx.DrainOptions{Address: server}, l.Server).Connections, len(sessions), "those that are shutting down")
	assert.NotEmpty(t, held(nginx.DrainOptions{Old: applied.Old}, l.Server).Workers)

	bare := *l.Server
	bare.Host = as{prefix: withoutSS(t)}
	byTable := held(nginx.DrainOptions{Old: applied.Old, Address: server}, &bare)
	assert.ElementsMatch(t, left.Connections, byTable.Connections, "ss and /proc/net/tcp say the same")
	if os.Getuid() == 0 {
		bare.Host = as{prefix: []string{testenv.Need(t, "setpriv"), "--reuid=65533", "--regid=65533", "--clear-groups"}}
		blind := held(nginx.DrainOptions{Old: applied.Old, Address: "127.9.2.9", Quiet: time.Millisecond}, &bare)
		assert.Contains(t, blind.Unseen, "root", "nothing to be seen is not nothing there")
	}

	// hold waits, and can be cancelled.
	bounded, cancel := context.WithCancel(ctx)
	looks := 0
	_, err := l.WaitDrained(bounded, nginx.DrainOptions{Old: applied.Old, Address: server, Timeout: time.Millisecond, Policy: nginx.DrainHold,
		Interval: 20 * time.Millisecond, Progress: func(d nginx.Drained) {
			if looks++; looks == 3 {
				cancel()
			}
		}})
	cancel()
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 3, looks)
	for _, s := range sessions {
		require.NoError(t, s.echo())
	}

	// It is enough that nobody talks to the address.
	d, err := l.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Address: "127.9.2.9", Quiet: 60 * time.Millisecond, Interval: 20 * time.Millisecond})
	require.NoError(t, err)
	assert.NotEmpty(t, d.Workers)

	// A client hangs up: drained.
	time.AfterFunc(100*time.Millisecond, func() {
		for _, s := range sessions {
			s.Close()
		}
	})
	d, err = l.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Address: server, Quiet: time.Hour, Interval: 20 * time.Millisecond})
	require.NoError(t, err)
	assert.Empty(t, d.Workers)
	assert.False(t, d.Forced)

	// force cuts old sessions and no others.
	ws = openSocket(t, addr)
	conf, err := os.ReadFile(l.Conf)
	require.NoError(t, err)
	write(t, l.Conf, "worker_shutdown_timeout 1h;\n"+string(conf))
	applied = move("127.9.2.2:"+p2, server)
	fresh := openSocket(t, addr)
	assert.Equal(t, time.Hour, held(nginx.DrainOptions{Old: applied.Old, Address: "127.9.2.2"}, l.Server).ShutdownTimeout)
	guarded := *l.Server
	guarded.Guard = "false"
	_, err = guarded.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Timeout: time.Nanosecond, Policy: nginx.DrainForce, Interval: 20 * time.Millisecond})
	var refused *nginx.GuardError
	require.ErrorAs(t, err, &refused)
	require.NoError(t, ws.echo())
	d, err = l.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Address: "127.9.2.2", Timeout: time.Nanosecond, Policy: nginx.DrainForce, Interval: 20 * time.Millisecond})
	require.NoError(t, err)
	assert.True(t, d.Forced)
	assert.Empty(t, d.Workers)
	assert.Error(t, ws.echo())
	assert.NoError(t, fresh.echo())
	workers, err := l.Workers(ctx)
	require.NoError(t, err)
	assert.Len(t, workers, 2, "the master did not replace old workers")

	_, err = l.WaitDrained(ctx, nginx.DrainOptions{Address: "web-90"})
	assert.ErrorContains(t, err, "neither an IP address")
	_, err = l.WaitDrained(ctx, nginx.DrainOptions{Policy: "maybe"})
	assert.ErrorContains(t, err, "no policy")
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// TestStuckWorker: an old worker that takes no note of anything holds up neither
// the reload nor, forced, the drain.
func TestStuckWorker(t *testing.T) {
	testenv.Slow(t)
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := t.Context()
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:1;\n\tserver 127.9.0.2:1;\n}\n")
	before, err := l.Workers(ctx)
	require.NoError(t, err)
	stopped := before[0]
	sh(t, fmt.Sprintf("kill -STOP %d", stopped.PID))
	applied := l.apply(t, func(tree *nginx.Tree) (*nginx.Change, error) {
		return tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	})
	assert.Contains(t, pids(applied.Workers), stopped.PID)
	_, err = l.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Timeout: time.Second})
	var left *nginx.NotDrainedError
	require.ErrorAs(t, err, &left)
	assert.Equal(t, stopped.PID, left.Workers[0].PID)
	d, err := l.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Timeout: time.Second, Policy: nginx.DrainForce})
	require.NoError(t, err)
	assert.True(t, d.Forced)
}

// sh runs a command of the test's own on this machine.
func sh(t *testing.T, cmd string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", cmd).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

// TestErrorLogs: wherever nginx writes its words about a port that is taken, they
// are reported if they can be read; where they cannot, the workers tell.
func TestErrorLogs(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	t.Parallel()
	for i, row := range []struct {
		name, log, pid string
		args           []string
		stderr         string // "" = a file that nginx leaves
		read           bool
		why            string // in LogUnread when the reload is good
	}{
		{name: "file with a level", log: "error_log DIR/e.log crit;", read: true},
		{name: "syslog, and so the default as well", log: "error_log syslog:server=127.0.0.1:9;", args: []string{"-e", "DIR/default.log"}, read: true},
		{name: "relative to the prefix", log: "error_log e.log;", pid: "pid run.pid;", args: []string{"-p", "DIR"}, read: true},
		{name: "two files", log: "error_log DIR/a.log; error_log DIR/b.log emerg;", read: true},
		{name: "none, the default by -e", args: []string{"-e", "DIR/default.log"}, read: true},
		{name: "in -g", args: []string{"-g", "error_log DIR/g.log; pid DIR/g.pid;"}, pid: "\n", read: true},
		{name: "stderr to a file", log: "error_log stderr;", stderr: "file", read: true},
		{name: "stderr to a pipe", log: "error_log stderr;", stderr: "pipe", why: "not a file"},
		{name: "null", log: "error_log /dev/null;", why: "/dev/null"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if i > 1 {
				testenv.Slow(t) // nginx tries for 2.5 seconds to bind
			}
			t.Parallel()
			dir := t.TempDir()
			in := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
			conf := filepath.Join(dir, "nginx.conf")
			text := strings.Replace(mainConf(dir, ""), "error_log "+dir+"/error.log;\n", in(row.log)+"\n", 1)
			if row.pid != "" {
				text = strings.Replace(text, "pid "+dir+"/nginx.pid;\n", row.pid, 1)
			}
			write(t, conf, text)
			var args []string
			for _, a := range row.args {
				args = append(args, in(a))
			}
			cmd := exec.Command(binary, append(args, "-c", conf)...)
			said, err := os.Create(filepath.Join(dir, "stderr"))
			require.NoError(t, err)
			defer said.Close()
			cmd.Stderr = said
			if row.stderr == "pipe" { // nginx keeps its end
				r, w, err := os.Pipe()
				require.NoError(t, err)
				defer r.Close()
				defer w.Close()
				cmd.Stderr = w
			}
			require.NoError(t, cmd.Run())
			t.Cleanup(func() { // also when the test does not find it below
				masters, err := nginx.ListMasters(context.Background(), localHost{})
				assert.NoError(t, err)
				for _, m := range masters {
					if m.Conf == conf {
						sh(t, fmt.Sprintf("kill -TERM %d; while kill -0 %[1]d 2>/dev/null; do sleep 0.01; done", m.PID))
					}
				}
			})
			s := &nginx.Server{Host: localHost{}, Conf: conf}
			require.Eventually(t, func() bool {
				workers, err := s.Workers(t.Context())
				return err == nil && len(workers) == 2
			}, 20*time.Second, 20*time.Millisecond)
			r, err := s.Reload(t.Context())
			require.NoError(t, err)
			if row.why == "" {
				assert.Empty(t, r.LogUnread)
			} else {
				assert.Contains(t, r.LogUnread, row.why)
			}
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer taken.Close()
			write(t, conf, strings.Replace(text, "http {", fmt.Sprintf("http { server { listen %s; }", taken.Addr()), 1))
			if !row.read {
				s.ReloadTimeout = time.Second // it always waits for that
			}
			_, err = s.Reload(t.Context())
			var failed *nginx.ReloadError
			require.ErrorAs(t, err, &failed)
			if row.read {
				assert.Contains(t, failed.Output, fmt.Sprintf("bind() to %s failed (98: Address already in use)", taken.Addr()))
				assert.Contains(t, failed.Output, "still could not bind()")
			} else {
				assert.Equal(t, time.Second, failed.Waited)
			}
		})
	}
}

// TestKeepsFile: what the file is besides its bytes stays.
func TestKeepsFile(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	l := startNginx(t, localHost{}, "upstream app {\r\n\tserver 127.9.0.1:1;\r\n\tserver 127.9.0.2:1; # ü\r\n}\r\n")
	if os.Getuid() == 0 {
		sh(t, "chown nobody:nogroup "+l.site)
	}
	sh(t, "chmod 0640 "+l.site)
	other := filepath.Join(l.dir, "other-name")
	want := sh(t, "stat -c '%U %G %a' "+l.site)
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	require.Contains(t, string(original), "\r\n")
	for _, linked := range []bool{false, true} {
		if linked {
			require.NoError(t, os.Link(l.site, other))
		}
		l.apply(t, func(tree *nginx.Tree) (*nginx.Change, error) {
			return tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
		})
		now, err := os.ReadFile(l.site)
		require.NoError(t, err)
		assert.Equal(t, strings.Replace(string(original), "server 127.9.0.1", "#upgradectl:off(t1) server 127.9.0.1", 1), string(now))
		assert.Equal(t, want, sh(t, "stat -c '%U %G %a' "+l.site))
		if linked {
			a, err := os.Stat(l.site)
			require.NoError(t, err)
			b, err := os.Stat(other)
			require.NoError(t, err)
			assert.True(t, os.SameFile(a, b), "hard links stay")
		}
		l.apply(t, func(tree *nginx.Tree) (*nginx.Change, error) { return tree.Restore("t1") })
		now, err = os.ReadFile(l.site)
		require.NoError(t, err)
		assert.Equal(t, string(original), string(now))
	}
	noTemps(t, l)
}

// TestGuard: what the caller's guard does not allow is not done, at each place
// where the host would be changed.
func TestGuard(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := t.Context()
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:1;\n\tserver 127.9.0.2:1;\n}\n")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	tree, err := l.Load(ctx)
	require.NoError(t, err)
	c, err := tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	require.NoError(t, err)
	lease := filepath.Join(l.dir, "lease")
	write(t, lease, "7\n")
	l.Guard = `read -r e <` + lease + ` && [ "$e" = 7 ] || { echo "lease $e is another's"; false; }`
	_, err = l.Apply(ctx, c)
	require.NoError(t, err)
	require.NoError(t, l.Put(ctx, c.Inverse().Files()))
	before, err := l.Workers(ctx)
	require.NoError(t, err)

	write(t, lease, "8\n")
	_, err = l.Apply(ctx, c)
	var refused *nginx.GuardError
	require.ErrorAs(t, err, &refused)
	assert.Contains(t, err.Error(), "lease 8 is another's")
	assert.False(t, errors.As(err, new(*nginx.ApplyError)), "nothing was changed")
	now, err := os.ReadFile(l.site)
	require.NoError(t, err)
	assert.Equal(t, string(original), string(now))
	noTemps(t, l)

	// Lost between the write and the reload: no signal, and no way back either,
	// since the host is another's now; what was there before is kept.
	write(t, lease, "7\n")
	l.Host = localHost{before: func(cmd string) {
		if strings.Contains(cmd, " -s reload ") {
			os.WriteFile(lease, []byte("8\n"), 0o644)
		}
	}}
	_, err = l.Apply(ctx, c)
	var apply *nginx.ApplyError
	require.ErrorAs(t, err, &apply)
	require.ErrorAs(t, apply.Err, &refused)
	require.ErrorAs(t, apply.PutBack, &refused)
	after, err := l.Workers(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after, "no reload")
	_, name, ok := strings.Cut(apply.PutBack.Error(), "kept as ")
	require.True(t, ok)
	kept, err := os.ReadFile(strings.TrimSuffix(name, ")"))
	require.NoError(t, err)
	assert.Equal(t, string(original), string(kept))
	require.NoError(t, l.Test(ctx), "no include reads the backup")

	write(t, lease, "7\n")
	l.Host = localHost{}
	require.NoError(t, l.Put(ctx, c.Inverse().Files()))
}

// TestHowFar: the options of Apply.
func TestHowFar(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := t.Context()
	l := startNginx(t, localHost{}, "upstream app {\n\tserver 127.9.0.1:1;\n\tserver 127.9.0.2:1;\n}\n")
	original, err := os.ReadFile(l.site)
	require.NoError(t, err)
	tree, err := l.Load(ctx)
	require.NoError(t, err)
	c, err := tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	require.NoError(t, err)
	before, err := l.Workers(ctx)
	require.NoError(t, err)
	backups := filepath.Join(l.dir, "backups", "today")

	applied, err := l.Apply(ctx, c, nginx.ApplyOptions{NoReload: true, BackupDir: backups})
	require.NoError(t, err)
	require.Len(t, applied.Backups, 1)
	assert.Equal(t, backups, filepath.Dir(applied.Backups[0]))
	kept, err := os.ReadFile(applied.Backups[0])
	require.NoError(t, err)
	assert.Equal(t, string(original), string(kept))
	after, err := l.Workers(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	require.NoError(t, l.Put(ctx, c.Inverse().Files(), nginx.ApplyOptions{NoReload: true}))
	bad := nginx.NewChange(nginx.FileChange{Name: l.site, Before: original, After: append(bytes.Clone(original), "bad"...)})
	_, err = l.Apply(ctx, bad, nginx.ApplyOptions{NoReload: true})
	var apply *nginx.ApplyError
	require.ErrorAs(t, err, &apply)
	assert.NoError(t, apply.PutBack)
	noTemps(t, l)
	_, err = l.Apply(ctx, bad, nginx.ApplyOptions{BackupDir: "here"})
	assert.ErrorContains(t, err, "not an absolute path")

	// Without any nginx.
	dir := t.TempDir()
	file := filepath.Join(dir, "a.conf")
	write(t, file, "events {}\n")
	c = nginx.NewChange(nginx.FileChange{Name: file, Before: []byte("events {}\n"), After: []byte("events { }\n")})
	none := &nginx.Server{Host: localHost{}, Binary: filepath.Join(dir, "nginx"), Conf: file}
	_, err = none.Apply(ctx, c)
	assert.ErrorIs(t, err, nginx.ErrNoNginx)
	_, err = none.Apply(ctx, c, nginx.ApplyOptions{NoTest: true})
	require.NoError(t, err)
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "events { }\n", string(now))
	require.ErrorAs(t, none.Put(ctx, []nginx.FileChange{{Name: file, Before: []byte("x"), After: []byte("y")}}, nginx.ApplyOptions{NoTest: true}), new(*nginx.DriftError))

	// A file that runs, and one that does not.
	stopped := &nginx.Server{Host: localHost{}, Conf: filepath.Join(dir, "nginx.conf")}
	text := mainConf(dir, "")
	write(t, stopped.Conf, text)
	c = nginx.NewChange(nginx.FileChange{Name: stopped.Conf, Before: []byte(text), After: []byte("# \n" + text)})
	_, err = stopped.Apply(ctx, c)
	require.ErrorIs(t, err, nginx.ErrNotRunning)
	now, err = os.ReadFile(stopped.Conf)
	require.NoError(t, err)
	assert.Equal(t, text, string(now), "nothing was written")
	_, err = stopped.Apply(ctx, c, nginx.ApplyOptions{NoReload: true})
	require.NoError(t, err)
}

// TestKilled: an nginx -t that a signal ends says nothing; the configuration is
// not taken for good. The signal is a real one: nginx has no limit for files that
// include each other but its stack, when it has the descriptors for them.
func TestKilled(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "nginx")
	write(t, program, "#!/bin/sh\nulimit -c 0\nulimit -n 40000 2>/dev/null\nulimit -s 256\nexec "+binary+" \"$@\"\n")
	require.NoError(t, os.Chmod(program, 0o755))
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, "include nginx.conf;\n"+mainConf(dir, ""))
	s := &nginx.Server{Host: localHost{}, Binary: program, Conf: conf}
	err := s.Test(t.Context())
	var failed *nginx.TestError
	require.ErrorAs(t, err, &failed)
	if failed.Status != -1 {
		t.Skipf("nginx met the limit of open files first here: %s", failed.Output)
	}
	assert.ErrorContains(t, err, "killed by a signal")
	_, err = s.Apply(t.Context(), nginx.NewChange(nginx.FileChange{Name: conf, Before: []byte("x"), After: []byte("y")}))
	require.ErrorAs(t, err, &failed)
	assert.True(t, failed.BeforeEdit)
}

// TestTwoMasters: each nginx of a machine is found by its main file, and asked by
// its own pid file.
func TestTwoMasters(t *testing.T) {
	testenv.Need(t, "nginx")
	t.Parallel()
	ctx := t.Context()
	up := "upstream app {\n\tserver 127.9.0.1:1;\n\tserver 127.9.0.2:1;\n}\n"
	a, b := startNginx(t, localHost{}, up), startNginx(t, localHost{}, up)
	a.Binary, b.Binary = "", "" // what runs is asked
	before, err := b.Workers(ctx)
	require.NoError(t, err)
	applied := a.apply(t, func(tree *nginx.Tree) (*nginx.Change, error) {
		return tree.Disable(nginx.Query{Host: "127.9.0.1"}, "t1")
	})
	after, err := b.Workers(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	for _, w := range applied.Workers {
		assert.NotContains(t, pids(after), w.PID)
	}
	_, err = (&nginx.Server{Host: localHost{}}).Load(ctx)
	var two *nginx.AmbiguousError
	require.ErrorAs(t, err, &two)
	assert.GreaterOrEqual(t, len(two.Masters), 2)

	// Its pid file is lost: it is found and told all the same.
	pidFile := filepath.Join(a.dir, "nginx.pid")
	pid, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.NoError(t, os.Remove(pidFile))
	_, err = a.Reload(ctx)
	require.NoError(t, err)
	if !fileExists(pidFile) {
		write(t, pidFile, string(pid)) // for the cleanup
	}
}

// dying is a host that is lost for good at the n-th thing that is asked of it:
// the tool was killed there.
type dying struct {
	localHost
	left *int
}

func (h dying) dead() bool { *h.left--; return *h.left < 0 }

func (h dying) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if h.dead() {
		return io.ErrUnexpectedEOF
	}
	return h.localHost.Run(ctx, cmd, stdin, stdout, stderr)
}

func (h dying) WriteFile(ctx context.Context, name string, data []byte, perm os.FileMode) error {
	if h.dead() {
		return io.ErrUnexpectedEOF
	}
	return h.localHost.WriteFile(ctx, name, data, perm)
}

// TestKilledTool: wherever the tool was killed, doing it again reaches the end
// and leaves nothing behind, and so does taking it back.
func TestKilledTool(t *testing.T) {
	testenv.Need(t, "sha256sum")
	t.Parallel()
	ctx := t.Context()
	for n := 0; ; n++ {
		for _, back := range []bool{false, true} {
			dir := t.TempDir()
			var files, undo []nginx.FileChange
			for _, name := range []string{"a", "b"} {
				f := nginx.FileChange{Name: filepath.Join(dir, name), Before: []byte("old " + name), After: []byte("new " + name)}
				write(t, f.Name, string(f.Before))
				files = append(files, f)
				undo = append(undo, nginx.FileChange{Name: f.Name, Before: f.After, After: f.Before})
			}
			left := n
			err := (&nginx.Server{Host: dying{left: &left}}).Put(ctx, files, nginx.ApplyOptions{NoTest: true})
			if left >= 0 {
				require.NoError(t, err)
				require.Greater(t, n, 4)
				return
			}
			again := files
			if back {
				again = undo
			}
			require.NoError(t, (&nginx.Server{Host: localHost{}}).Put(ctx, again, nginx.ApplyOptions{NoTest: true}), "killed before command %d", n)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 2, "killed before command %d: %v", n, entries)
			for _, f := range again {
				now, err := os.ReadFile(f.Name)
				require.NoError(t, err)
				require.Equal(t, string(f.After), string(now))
			}
		}
	}
}
