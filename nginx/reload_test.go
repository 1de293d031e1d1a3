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
	workers  func() string // what the list of processes holds now
	test     error         // of nginx -t
	reload   error         // of nginx -s reload
}

type status int

func (s status) Error() string   { return fmt.Sprintf("exit status %d", int(s)) }
func (s status) ExitStatus() int { return int(s) }

func (h *scripted) Run(_ context.Context, cmd string, _ io.Reader, stdout, stderr io.Writer) error {
	switch {
	case cmd == "nginx -t -c /etc/nginx/nginx.conf":
		h.commands = append(h.commands, "test")
		return h.test
	case cmd == "nginx -s reload -c /etc/nginx/nginx.conf":
		h.commands = append(h.commands, "reload")
		return h.reload
	case strings.HasPrefix(cmd, "f=/run/nginx.pid\n"):
		fmt.Fprintf(stdout, "master 1 nginx: master process nginx\x00%s\n", h.workers())
		return nil
	}
	h.t.Errorf("unexpected command %q", cmd)
	return status(127)
}

func (h *scripted) WriteFile(context.Context, string, []byte, fs.FileMode) error {
	return errors.ErrUnsupported
}

func child(pid int, title string) string {
	return fmt.Sprintf("\nchild %d nginx: %s\x00\x00", pid, title)
}

func newScripted(t *testing.T, workers func() string) *scripted {
	return &scripted{MapFS: nginx.MapFS{"/etc/nginx/nginx.conf": []byte("events{}")}, t: t, workers: workers}
}

func TestReloadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := newScripted(t, func() string {
			switch at := time.Since(start); {
			case at < 2*time.Second:
				return child(2, "worker process") + child(9, "cache manager process")
			case at < 4*time.Second: // the new one is there, the old one not yet told
				return child(2, "worker process") + child(3, "worker process")
			default:
				return child(2, "worker process is shutting down") + child(3, "worker process")
			}
		})
		s := &nginx.Server{Host: h}
		require.NoError(t, s.Reload(t.Context()))
		assert.GreaterOrEqual(t, time.Since(start), 4*time.Second)
		assert.Equal(t, []string{"reload"}, h.commands)
		workers, err := s.Workers(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []nginx.Worker{
			{PID: 2, Title: "nginx: worker process is shutting down", ShuttingDown: true},
			{PID: 3, Title: "nginx: worker process"},
		}, workers)
	})
}

func TestReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newScripted(t, func() string { return child(2, "worker process") })
		s := &nginx.Server{Host: h}
		start := time.Now()
		var failed *nginx.ReloadError
		require.ErrorAs(t, s.Reload(t.Context()), &failed)
		assert.Equal(t, 30*time.Second, time.Since(start))
		assert.Equal(t, 30*time.Second, failed.Waited)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		assert.ErrorIs(t, s.Reload(ctx), context.DeadlineExceeded)

		h.workers = func() string { return "" } // all workers died and none came
		require.ErrorAs(t, s.Reload(t.Context()), &failed, "no worker is not a new worker")

		h.reload = status(1)
		require.ErrorAs(t, s.Reload(t.Context()), &failed)
		assert.Equal(t, 1, failed.Status)
		h.reload = io.ErrUnexpectedEOF // the connection broke: nobody knows
		err := s.Reload(t.Context())
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.False(t, errors.As(err, &failed) && failed.Status == 0)

		h.test = status(-1)
		var test *nginx.TestError
		require.ErrorAs(t, s.Test(t.Context()), &test)
		assert.Contains(t, test.Error(), "killed by a signal")
	})
}
