//go:build linux

package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// testPassword is that of every account, and testHash what /etc/shadow holds
// of it (openssl passwd -6 -salt abcdefgh).
const (
	testPassword = `p'a"s $w\ö`
	testHash     = `$6$abcdefgh$lmRUNwdx7tcin/6XNRRzt9415GD1/gpYj0ADJm/1e0HEU2RzlD/onH0ynqIysqmBnH4rIkCcfK7vK9mHXL5Ly0`
)

// account is a login of a real server.
type account struct {
	name, shell string
	bashrc      string
	sudoers     string // what it may, after its name; empty = nothing
}

// serverLog is what sshd says; it is read while sshd runs.
type serverLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// real is an OpenSSH server in a mount namespace of its own, with accounts
// and sudo rules that this machine does not have.
type real struct {
	dir  string
	port int
	host string // its key, as TYPE BASE64
	cmd  *exec.Cmd
	log  *serverLog
}

// startReal starts a server whose accounts accept the key file id.pub or the
// password. config is added to sshd_config and comes first.
func startReal(t testing.TB, accounts []account, config ...string) *real {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's namespaces")
	}
	sshd := testenv.Need(t, "sshd")
	testenv.Need(t, "unshare")
	if os.Getuid() != 0 {
		t.Skip("a server with accounts of its own needs root")
	}
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // sshd's own, made at boot elsewhere
	dir, err := os.MkdirTemp("", "r")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	put := func(name, text string, perm os.FileMode) string {
		f := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(f, []byte(text), perm))
		require.NoError(t, os.Chmod(f, perm))
		return f
	}
	read := func(name string) string {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(b)
	}
	passwd, shadow, sudoers := read("/etc/passwd"), read("/etc/shadow"), "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n"
	for i, a := range accounts {
		home := filepath.Join(dir, a.name)
		require.NoError(t, os.Mkdir(home, 0o755))
		uid := 4711 + i
		shell := a.shell
		if shell == "" {
			shell = "/bin/bash"
		}
		passwd += fmt.Sprintf("%s:x:%d:65534::%s:%s\n", a.name, uid, home, shell)
		shadow += a.name + ":" + testHash + ":20000:0:99999:7:::\n"
		if a.sudoers != "" {
			sudoers += a.name + " " + a.sudoers + "\n"
		}
		if a.bashrc != "" {
			require.NoError(t, os.WriteFile(filepath.Join(home, ".bashrc"), []byte(a.bashrc), 0o644))
		}
		require.NoError(t, os.Chown(home, uid, 65534))
	}
	put("passwd", passwd, 0o644)
	put("shadow", shadow, 0o600)
	put("sudoers", sudoers, 0o440)
	id, pub := keyFile(t, "")
	copyFile(t, id, filepath.Join(dir, "id"), 0o600)
	put("authorized", strings.TrimSpace(string(marshal(pub)))+"\n", 0o644)
	hostKey := edKeyFile(t, filepath.Join(dir, "host"))

	r := &real{dir: dir, port: testenv.FreePort(t, "tcp", "127.0.0.1"), host: hostKey, log: &serverLog{}}
	lines := append(append([]string{}, config...),
		fmt.Sprintf("ListenAddress 127.0.0.1:%d", r.port), "HostKey "+filepath.Join(dir, "host"),
		"AuthorizedKeysFile "+filepath.Join(dir, "authorized"), "PidFile none", "UsePAM no", "StrictModes no",
		"PermitRootLogin prohibit-password", "MaxStartups 200", "Subsystem sftp internal-sftp", "PermitUserEnvironment no")
	conf := put("sshd_config", strings.Join(lines, "\n")+"\n", 0o600)
	// Private mounts: this machine's /etc stays as it is.
	script := `set -e
mount --bind "$1/passwd" /etc/passwd; mount --bind "$1/shadow" /etc/shadow
if [ -e /etc/sudoers ]; then mount --bind "$1/sudoers" /etc/sudoers; fi
exec "$2" -D -e -f "$3"`
	r.cmd = exec.Command("unshare", "-m", "/bin/sh", "-c", script, "sh", dir, sshd, conf)
	r.cmd.Stderr = r.log
	require.NoError(t, r.cmd.Start())
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", r.log.String())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", r.addr())
		if err == nil {
			c.Close()
			return r
		}
		select {
		case <-ctx.Done():
			t.Fatalf("sshd does not come up: %v; %s", err, r.log)
		case <-tick.C:
		}
	}
}

func (r *real) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

func (r *real) options(t testing.TB) remote.Options {
	known := filepath.Join(r.dir, "known")
	require.NoError(t, os.WriteFile(known, []byte("127.0.0.1 "+r.host+"\n"), 0o600))
	return remote.Options{ConfigFile: "none", ConnectTimeout: time.Minute, Identities: []string{filepath.Join(r.dir, "id")}, KnownHosts: []string{known}}
}

func (r *real) dial(t testing.TB, user string, change func(*remote.Options)) *remote.Conn {
	t.Helper()
	o := r.options(t)
	if change != nil {
		change(&o)
	}
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	c, err := d.Dial(context.Background(), user+"@"+r.addr())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); d.Close() })
	return c
}
