package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// scripted is a host on which an nginx of our imagination runs. A command that
// it does not know fails the test.
type scripted struct {
	nginx.MapFS
	t        *testing.T
	commands []string
	workers  func() string // what the list of processes holds now besides the master
	emerg    func() string // what the master has appended to its error log
	test     error         // of nginx -t
	reload   error         // of nginx -s reload
	host     string        // what the list of processes says of the host
	pid      string        // what the pid file holds
}

type status int

func (s status) Error() string   { return fmt.Sprintf("exit status %d", int(s)) }
func (s status) ExitStatus() int { return int(s) }

const scriptedHost = "host 0 pid:[1] /usr/sbin/nginx\n"

func (h *scripted) Run(_ context.Context, cmd string, _ io.Reader, stdout, stderr io.Writer) error {
	list := func() {
		fmt.Fprint(stdout, h.host+h.workers())
	}
	switch {
	case cmd == "nginx -V" || cmd == "/usr/sbin/nginx -V":
		fmt.Fprint(stderr, "nginx version: nginx/1.22.1\nconfigure arguments: --with-cc-opt='-g -O2' --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --error-log-path=/var/log/nginx/error.log --pid-path=/run/nginx.pid\n")
		return nil
	case cmd == "/usr/sbin/nginx -t -c /etc/nginx/nginx.conf":
		h.commands = append(h.commands, "test")
		return h.test
	case cmd == "cat /run/nginx.pid 2>/dev/null":
		if h.pid == "" {
			return status(1)
		}
		fmt.Fprintln(stdout, h.pid)
		return nil
	case strings.HasPrefix(cmd, "upg_bin=") && strings.HasSuffix(cmd, "\n/usr/sbin/nginx -s reload -c /etc/nginx/nginx.conf"):
		list()
		fmt.Fprintln(stdout, "log 0 17 100 /var/log/nginx/error.log")
		h.commands = append(h.commands, "reload")
		return h.reload
	case strings.HasPrefix(cmd, "upg_bin=") && strings.HasSuffix(cmd, "\nkill -HUP 1"):
		list()
		fmt.Fprintln(stdout, "log 0 17 100 /var/log/nginx/error.log")
		h.commands = append(h.commands, "signal")
		return nil
	case strings.HasPrefix(cmd, "upg_bin="):
		list()
		if strings.Contains(cmd, "upg_emerg /var/log/nginx/error.log 17 100") && h.emerg != nil {
			fmt.Fprint(stdout, h.emerg())
		}
		return nil
	}
	h.t.Errorf("unexpected command %q", cmd)
	return status(127)
}

func (h *scripted) WriteFile(context.Context, string, []byte, fs.FileMode) error {
	return errors.ErrUnsupported
}

// proc is a process as the list has it.
func proc(pid, ppid int, title string) string {
	return fmt.Sprintf("proc %d (a) b) S %d%s %d 0 0\nexe /usr/sbin/nginx\nns pid:[1]\ntitle nginx: %s\n", pid, ppid, strings.Repeat(" 0", 17), 1000+pid, title)
}

func child(pid int, title string) string { return proc(pid, 1, title) }

func newScripted(t *testing.T, workers func() string) *scripted {
	return &scripted{MapFS: nginx.MapFS{"/etc/nginx/nginx.conf": []byte("events{}")}, t: t, workers: workers, pid: "1",
		host: scriptedHost + proc(1, 1, "master process /usr/sbin/nginx -g daemon on; master_process on;")}
}

func reload(ctx context.Context, s *nginx.Server) error {
	_, err := s.Reload(ctx)
	return err
}

func TestReloadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := newScripted(t, func() string {
			switch at := time.Since(start); {
			case at < 2*time.Second:
				return child(2, "worker process") + child(9, "cache manager process")
			case at < 4*time.Second: // the new one is there, the old one not yet told
				return child(2, "worker process") + child(3, "worker process") + proc(77, 70, "worker process")
			default:
				return child(2, "worker process is shutting down") + child(3, "worker process")
			}
		})
		h.host = scriptedHost + proc(1, 1, "master process /usr/sbin/nginx -c /etc/nginx/nginx.conf")
		s := &nginx.Server{Host: h}
		r, err := s.Reload(t.Context())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(start), 4*time.Second)
		assert.Equal(t, []string{"reload"}, h.commands)
		assert.Equal(t, []nginx.Worker{{PID: 2, Start: 1002, Title: "nginx: worker process"}}, r.Old)
		workers, err := s.Workers(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []nginx.Worker{
			{PID: 2, Start: 1002, Title: "nginx: worker process is shutting down", ShuttingDown: true},
			{PID: 3, Start: 1003, Title: "nginx: worker process"},
		}, workers)
		assert.Equal(t, workers, r.Workers)
	})
}

// TestReloadStuck: an old worker that takes no note of the reload does not
// stand against it, as long as nginx's own words can be read.
func TestReloadStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := newScripted(t, func() string {
			if time.Since(start) < time.Second {
				return child(2, "worker process")
			}
			return child(2, "worker process") + child(3, "worker process")
		})
		h.host = scriptedHost + proc(1, 1, "master process /usr/sbin/nginx")
		s := &nginx.Server{Host: h}
		r, err := s.Reload(t.Context())
		require.NoError(t, err)
		assert.InDelta(t, 6, time.Since(start).Seconds(), 1)
		assert.Len(t, r.Workers, 2)

		// With a log that cannot be read only the workers are left as proof, and a
		// new one may be the master's answer to the end of another.
		h.MapFS["/etc/nginx/nginx.conf"] = []byte("error_log syslog:server=unix:/dev/log; error_log memory:1m; error_log /dev/null; events{}")
		start = time.Now()
		var failed *nginx.ReloadError
		require.ErrorAs(t, reload(t.Context(), s), &failed)
		assert.Equal(t, 30*time.Second, failed.Waited)
	})
}

func TestReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newScripted(t, func() string { return child(2, "worker process") })
		h.host = scriptedHost + proc(1, 1, "master process /usr/sbin/nginx")
		s := &nginx.Server{Host: h}
		start := time.Now()
		var failed *nginx.ReloadError
		require.ErrorAs(t, reload(t.Context(), s), &failed)
		assert.Equal(t, 30*time.Second, time.Since(start))
		assert.Equal(t, 30*time.Second, failed.Waited)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		assert.ErrorIs(t, reload(ctx, s), context.DeadlineExceeded)

		h.workers = func() string { return "" } // all workers died and none came
		require.ErrorAs(t, reload(t.Context(), s), &failed, "no worker is not a new worker")

		// A worker that ended by itself was replaced, with the old configuration:
		// what the master says of the new one counts.
		start = time.Now()
		h.workers = func() string {
			if time.Since(start) < time.Second {
				return child(2, "worker process")
			}
			return child(3, "worker process")
		}
		h.emerg = func() string {
			out := "emerg 2026/11/22 04:45:31 [emerg] 4711#4711: unknown directive \"x\" in /tmp/other:1\n" // another nginx
			for i := range min(5, int(time.Since(start)/(500*time.Millisecond))) {
				out += fmt.Sprintf("emerg 2026/11/22 04:45:3%d [emerg] 1#1: bind() to 0.0.0.0:80 failed (98: Address already in use)\n", i)
			}
			return out
		}
		require.ErrorAs(t, reload(t.Context(), s), &failed)
		assert.Equal(t, "bind() to 0.0.0.0:80 failed (98: Address already in use)", strings.Split(failed.Output, "\n")[0])
		assert.NotContains(t, failed.Output, "unknown directive")
		assert.Less(t, time.Since(start), 3*time.Second, "nginx has said it")
		h.workers, h.emerg = func() string { return child(2, "worker process") }, nil

		h.reload = status(1)
		require.ErrorAs(t, reload(t.Context(), s), &failed)
		assert.Equal(t, 1, failed.Status)
		h.reload = io.ErrUnexpectedEOF // the connection broke: nobody knows
		err := reload(t.Context(), s)
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.False(t, errors.As(err, &failed) && failed.Status == 0)

		h.test = status(-1)
		var test *nginx.TestError
		require.ErrorAs(t, s.Test(t.Context()), &test)
		assert.Contains(t, test.Error(), "killed by a signal")
		h.test = status(127)
		assert.ErrorIs(t, s.Test(t.Context()), nginx.ErrNoNginx)
	})
}

// TestWhichNginx finds the nginx that is meant, by what runs on the host.
func TestWhichNginx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newScripted(t, func() string { return "" })
		s := &nginx.Server{Host: h}
		ctx := t.Context()

		// Two, and nobody said which.
		h.host = scriptedHost + proc(1, 1, "master process /usr/sbin/nginx") + proc(5, 1, "master process nginx -p /srv/b -c /srv/b/nginx.conf -g daemon on; error_log /x;")
		masters, err := nginx.ListMasters(ctx, h)
		require.NoError(t, err)
		assert.Equal(t, []nginx.Master{
			{PID: 1, Start: 1001, Binary: "/usr/sbin/nginx"},
			{PID: 5, Start: 1005, Binary: "/usr/sbin/nginx", Conf: "/srv/b/nginx.conf", Prefix: "/srv/b", Globals: "daemon on; error_log /x;"},
		}, masters)
		_, err = s.Load(ctx)
		var two *nginx.AmbiguousError
		require.ErrorAs(t, err, &two)
		assert.ErrorContains(t, err, "process 5: /usr/sbin/nginx -p /srv/b -c /srv/b/nginx.conf -g daemon on; error_log /x;")
		_, err = (&nginx.Server{Host: h, Conf: "/etc/nginx/nginx.conf"}).Workers(ctx)
		require.NoError(t, err, "the one with the compiled-in main file")

		// One in a container is not the host's.
		h.host = scriptedHost + strings.Replace(proc(5, 1, "master process nginx -g daemon off;"), "pid:[1]", "pid:[2]", 1)
		masters, err = nginx.ListMasters(ctx, h)
		require.NoError(t, err)
		assert.Empty(t, masters)
		_, err = s.Workers(ctx)
		require.ErrorIs(t, err, nginx.ErrNotRunning)

		// The pid file is gone: nginx -s reload would fail, the signal does not.
		h.host, h.pid = scriptedHost+proc(1, 1, "master process /usr/sbin/nginx"), ""
		_ = reload(ctx, s)
		assert.Equal(t, []string{"signal"}, h.commands)
		h.pid = "9"
		_, err = s.Workers(ctx)
		require.NoError(t, err, "a stale pid file")

		h.host = "host 1000  \nhidden\n"
		_, err = s.Workers(ctx)
		assert.ErrorContains(t, err, "hidepid")
	})
}
