package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// waitPort waits until somebody listens.
func waitPort(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond, "nobody listens on %s", addr)
}

// TestNginxHost runs every nginx command against an nginx that is reached over a
// real SSH server.
func TestNginxHost(t *testing.T) {
	nginxBin, sshd := testenv.Need(t, "nginx"), testenv.Need(t, "sshd")
	if os.Getuid() != 0 {
		t.Skip("an SSH server with accounts of this machine needs root")
	}
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // sshd's own, made at boot elsewhere
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	in := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(in(name), []byte(text), 0o600))
	}
	key := func(name string) string {
		pub, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		block, err := ssh.MarshalPrivateKey(private, "")
		require.NoError(t, err)
		put(name, string(pem.EncodeToMemory(block)))
		p, err := ssh.NewPublicKey(pub)
		require.NoError(t, err)
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	}
	port := testenv.FreePort(t, "tcp", "127.0.0.1")
	hostKey := key("hostkey")
	put("authorized", key("id")+"\n")
	put("known", fmt.Sprintf("[127.0.0.1]:%d %s\n", port, hostKey))
	put("sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n", port, in("hostkey"), in("authorized")))
	daemon := exec.Command(sshd, "-D", "-f", in("sshd_config"))
	require.NoError(t, daemon.Start())
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })

	conf := in("nginx.conf")
	text := strings.ReplaceAll(`daemon off; pid DIR/pid; error_log DIR/error.log;
events {}
http {
	access_log off; client_body_temp_path DIR/b; proxy_temp_path DIR/p;
	fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	upstream app {
		server 172.31.0.90:8080; # one
		server 172.31.0.92:8080; # two
	}
	server { listen unix:DIR/sock; location / { proxy_pass http://app; } }
}
`, "DIR", dir)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o640))
	server := exec.Command(nginxBin, "-c", conf)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		assert.NoError(t, server.Process.Signal(os.Interrupt))
		_ = server.Wait()
	})
	waitWorkers(t, conf)
	waitPort(t, fmt.Sprintf("127.0.0.1:%d", port))

	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		args = append(append([]string{"nginx"}, args...), "--host", fmt.Sprintf("root@127.0.0.1:%d", port), "-c", conf, "--identity", in("id"), "--known-hosts", in("known"), "--agent=false")
		status, stdout, stderr := command(t, args...)
		require.Equal(t, want, status, "%v: %s", args, stderr)
		return stdout, stderr
	}
	now := func() string {
		t.Helper()
		data, err := os.ReadFile(conf)
		require.NoError(t, err)
		return string(data)
	}
	off := strings.Replace(text, "server 172.31.0.90", "#upgradectl:off(t1) server 172.31.0.90", 1)

	out, _ := run(exitOK, "test")
	assert.Contains(t, out, "valid")
	out, _ = run(exitOK, "refs", "172.31.0.90")
	assert.Contains(t, out, conf)
	out, _ = run(exitOK, "cat", conf)
	assert.Equal(t, text, out)
	out, _ = run(exitOK, "disable", "172.31.0.90", "--tag", "t1")
	assert.Contains(t, out, "+\t\t#upgradectl:off(t1) server 172.31.0.90:8080; # one")
	assert.Equal(t, text, now())
	run(exitOK, "disable", "172.31.0.90", "--tag", "t1", "--execute")
	assert.Equal(t, off, now())
	info, err := os.Stat(conf)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode(), "the mode is kept")
	run(exitOK, "restore", "--tag", "t1", "--execute")
	assert.Equal(t, text, now())
	if testenv.RunSlow() {
		run(exitOK, "add", "172.31.0.101", "--like", "172.31.0.90", "--tag", "t2", "--execute")
		assert.Contains(t, now(), "server 172.31.0.101:8080; #upgradectl:add(t2)")
		run(exitOK, "remove", "--tag", "t2", "--execute")
		assert.Equal(t, text, now())
	}
	out, _ = run(exitOK, "reload", "--execute", "--json")
	assert.Contains(t, out, `"executed": true`)

	// What is broken is nginx's to say, also from afar, and nobody's to edit.
	require.NoError(t, os.WriteFile(conf, []byte(strings.Replace(text, "server 172.31.0.92", "servers 172.31.0.92", 1)), 0o640))
	_, errs := run(exitFailure, "test")
	assert.Contains(t, errs, `unknown directive "servers" in `+conf+":8")
	run(exitRefused, "disable", "172.31.0.90", "--tag", "t1", "--execute")
	entries, err := filepath.Glob(in(".*"))
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing is left beside the file")
}
