package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// command runs a command line in this process.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{in: bytes.NewReader(nil), out: &out, err: &errs, lang: "en"}
	status = a.main(t.Context(), args)
	return status, out.String(), errs.String()
}

// waitWorkers waits until an nginx of this machine serves. It listens before it
// has a worker, a pid file and even its name.
func waitWorkers(t *testing.T, conf string) {
	t.Helper()
	s := &nginx.Server{Host: localHost{}, Conf: conf}
	require.Eventually(t, func() bool {
		workers, err := s.Workers(t.Context())
		return err == nil && len(workers) > 0
	}, time.Minute, 20*time.Millisecond, "nginx has no worker")
}

// Without --host and --root the commands work on this machine's nginx: the
// real one is tested and reloaded.
func TestNginxLocal(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t, "tcp", "127.0.0.1"))
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
	fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	upstream app {
		server 127.0.0.1:1; # one
		server 127.0.0.2:1; # two
	}
	server { listen %[2]s; location / { proxy_pass http://app; } }
}
`, dir, addr)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o640))
	server := exec.Command(binary, "-c", conf)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		assert.NoError(t, server.Process.Signal(os.Interrupt))
		_ = server.Wait()
	})
	waitWorkers(t, conf)
	at := []string{"--conf", conf, "--binary", binary}

	status, out, errs := command(t, append([]string{"nginx", "test"}, at...)...)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "valid")

	status, out, errs = command(t, append([]string{"nginx", "disable", "127.0.0.1", "--tag", "t1", "--execute"}, at...)...)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "+\t\t#upgradectl:off(t1) server 127.0.0.1:1; # one")
	info, err := os.Stat(conf)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode(), "the mode is kept")

	status, _, errs = command(t, append([]string{"nginx", "restore", "--tag", "t1", "--execute"}, at...)...)
	require.Equal(t, exitOK, status, errs)
	got, err := os.ReadFile(conf)
	require.NoError(t, err)
	assert.Equal(t, text, string(got))

	status, _, errs = command(t, append([]string{"nginx", "reload", "--execute"}, at...)...)
	require.Equal(t, exitOK, status, errs)
}

// Without --execute nothing is written; --no-reload stops after the real
// nginx -t and needs no running nginx; --no-test needs no nginx at all; what is
// broken before the edit is left alone.
func TestNginxWithoutReload(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
	fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	upstream app { server 127.0.0.1:1; server 127.0.0.2:1; }
}
`, dir)
	write := func(text string) { require.NoError(t, os.WriteFile(conf, []byte(text), 0o600)) }
	read := func() string {
		got, err := os.ReadFile(conf)
		require.NoError(t, err)
		return string(got)
	}
	write(text)
	disable := []string{"nginx", "disable", "127.0.0.1", "--tag", "t1", "-c", conf}

	status, out, errs := command(t, disable...)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "#upgradectl:off(t1,nl) server 127.0.0.1:1;")
	assert.Equal(t, text, read())

	status, _, errs = command(t, append(disable, "--execute")...)
	assert.Equal(t, exitRefused, status, errs)
	assert.Contains(t, errs, "--no-reload")
	assert.Equal(t, text, read())

	status, _, errs = command(t, append(disable, "--execute", "--no-reload", "--binary", filepath.Join(dir, "none"))...)
	assert.Equal(t, exitRefused, status, errs)
	assert.Contains(t, errs, "--no-test")
	assert.Equal(t, text, read())

	status, out, errs = command(t, append(disable, "--execute", "--no-reload", "--json", "--binary", binary)...)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, `"executed": true`)
	off := strings.Replace(text, "server 127.0.0.1:1;", "#upgradectl:off(t1,nl) server 127.0.0.1:1;\n", 1)
	assert.Equal(t, off, read())

	status, _, errs = command(t, "nginx", "restore", "--tag", "t1", "-c", conf, "--execute", "--no-test", "--binary", filepath.Join(dir, "none"))
	require.Equal(t, exitOK, status, errs)
	assert.Equal(t, text, read())

	broken := strings.Replace(text, "access_log off;", "access_log_ off;", 1)
	write(broken)
	status, _, errs = command(t, append(disable, "--execute", "--no-reload", "--binary", binary)...)
	assert.Equal(t, exitRefused, status, errs)
	assert.Contains(t, errs, `unknown directive "access_log_"`)
	assert.Equal(t, broken, read())

	// A relative name is one of this directory, not of nginx's prefix.
	write(text)
	t.Chdir(dir)
	status, out, errs = command(t, "nginx", "weight", "127.0.0.2", "3", "-c", "nginx.conf", "--execute", "--no-reload", "--binary", binary)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "server 127.0.0.2:1 weight=3;")
	status, _, errs = command(t, "nginx", "weight", "127.0.0.2", "3", "-c", "nginx.conf", "--host", "127.0.0.9")
	assert.Equal(t, exitUsage, status, errs)
}
