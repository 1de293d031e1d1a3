package hostinv_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// newKey writes a key pair and returns the private file and the public line.
func newKey(t *testing.T, name string) (file, public string) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	p, err := ssh.NewPublicKey(pub)
	require.NoError(t, err)
	return file, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

func write(t *testing.T, lines ...string) string {
	f := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(f, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return f
}

// TestErrors holds that the errors of the SSH layer arrive as those of this
// package, also through a jump host.
func TestErrors(t *testing.T) {
	_, host, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(host)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				return nil, errors.New("refused")
			}}
			cfg.AddHostKey(signer)
			ssh.NewServerConn(raw, cfg) // ends with the client's refusal or ours
			raw.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	port := l.Addr().(*net.TCPAddr).Port
	id, other := newKey(t, "id")
	good := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	config := write(t, "Host web-90", "HostName 127.0.0.1", fmt.Sprint("Port ", port), "Host behind", "ProxyJump web-90")
	dial := func(target, config string, known ...string) error {
		c, err := hostinv.Dial(t.Context(), target, hostinv.SSHConfig{ConfigFile: config, KnownHosts: []string{write(t, known...)},
			User: "root", Identities: []string{id}})
		assert.Nil(t, c)
		return err
	}
	var (
		unknown *hostinv.UnknownHostKeyError
		changed *hostinv.HostKeyChangedError
		revoked *hostinv.HostKeyRevokedError
		auth    *hostinv.AuthError
		conf    *hostinv.ConfigError
		down    *hostinv.DialError
	)
	for _, target := range []string{"web-90", "behind"} {
		err = dial(target, config)
		require.ErrorAs(t, err, &unknown)
		assert.Contains(t, err.Error(), ssh.FingerprintSHA256(signer.PublicKey()))
		assert.Equal(t, fmt.Sprintf("[127.0.0.1]:%d %s", port, good), unknown.Line)
		assert.ErrorAs(t, dial(target, config, "127.0.0.1 "+other), &changed)
		assert.ErrorAs(t, dial(target, config, "@revoked * "+good), &revoked)
		assert.ErrorAs(t, dial(target, config, unknown.Line), &auth, "the line of the message is the one to add")
	}
	assert.ErrorContains(t, dial("behind", config), "cannot reach behind: its jump host web-90")
	assert.ErrorAs(t, dial("x", write(t, "Port none", "IdentitiesOnly maybe")), &conf)
	assert.Len(t, conf.Problems, 2)
	assert.ErrorAs(t, dial("-x", "none"), &conf)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	free.Close()
	assert.ErrorAs(t, dial(free.Addr().String(), "none"), &down)
}

// sshd starts a real server and returns its address and host key.
func sshd(t *testing.T, addr, authorized string) (port int, hostKey string) {
	t.Helper()
	bin := testenv.Need(t, "sshd")
	if os.Getuid() != 0 {
		t.Skip("a test server with accounts of this machine needs root")
	}
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // sshd's own, made at boot elsewhere
	port = testenv.FreePort(t, "tcp", addr)
	key, pub := newKey(t, "host")
	keys := write(t, authorized)
	cfg := write(t, fmt.Sprintf("ListenAddress %s:%d", addr, port), "HostKey "+key, "AuthorizedKeysFile "+keys, "PidFile none",
		"UsePAM no", "StrictModes no", "PermitRootLogin prohibit-password", "PasswordAuthentication no", "Subsystem sftp internal-sftp", "MaxSessions 10")
	var log bytes.Buffer
	cmd := exec.Command(bin, "-D", "-e", "-f", cfg)
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	// The port answers once it is up.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(addr, fmt.Sprint(port)))
		if err == nil {
			c.Close()
			return port, pub
		}
		select {
		case <-ctx.Done():
			t.Fatalf("sshd does not come up: %v", err)
		case <-tick.C:
		}
	}
}

// TestSSHD uses OpenSSH servers: one direct, one behind it.
func TestSSHD(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("collects this machine over SSH, which needs Linux's /proc")
	}
	id, pub := newKey(t, "id")
	edge, edgeKey := sshd(t, "127.0.0.1", pub)
	inner, innerKey := sshd(t, "127.0.0.2", pub)
	config := write(t,
		"Host edge", "HostName 127.0.0.1", fmt.Sprint("Port ", edge),
		"Host inner", "HostName 127.0.0.2", fmt.Sprint("Port ", inner), "ProxyJump edge",
		"Host *", "User root", "IdentityFile "+id, "IdentitiesOnly yes")
	d, err := hostinv.NewDialer(hostinv.SSHConfig{ConfigFile: config, KnownHosts: []string{write(t, fmt.Sprintf("[127.0.0.1]:%d %s", edge, edgeKey))}})
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Dial(t.Context(), "inner")
	var unknown *hostinv.UnknownHostKeyError
	require.ErrorAs(t, err, &unknown)
	require.NoError(t, d.Pin("inner", []string{innerKey}))

	for _, target := range []string{"edge", "inner"} {
		t.Run(target, func(t *testing.T) {
			c, err := d.Dial(t.Context(), target)
			require.NoError(t, err)
			defer c.Close()
			inv, err := hostinv.Collect(t.Context(), c, hostinv.Options{})
			require.NoError(t, err)
			assert.Equal(t, hostinv.StatusOK, inv.Sections[hostinv.SectionListeners].Status)
			found := false
			for _, l := range inv.Listeners {
				if l.Port == edge && l.Addr == "127.0.0.1" {
					found = true
					assert.Equal(t, "sshd", l.Process)
				}
			}
			assert.True(t, found, "our own sshd is not among the listeners")
			conns, err := hostinv.ListConnections(t.Context(), c)
			require.NoError(t, err)
			ours := false
			for _, x := range conns {
				ours = ours || x.LocalPort == edge && x.State == "ESTABLISHED"
			}
			assert.True(t, ours, "our own connection is not listed")

			name := filepath.Join(t.TempDir(), "a 'b")
			data := bytes.Repeat([]byte("0123456789abcde\n"), 30000)
			require.NoError(t, c.WriteFile(t.Context(), name, data, 0o640))
			got, err := c.ReadFile(t.Context(), name)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(data, got))
			info, err := os.Stat(name)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o640), info.Mode())
			assert.ErrorIs(t, c.WriteFile(t.Context(), name, nil, 0o600), fs.ErrExist)
			_, err = c.ReadFile(t.Context(), name+"x")
			assert.ErrorIs(t, err, fs.ErrNotExist)
			proc, err := c.ReadFile(t.Context(), "/proc/sys/kernel/osrelease")
			require.NoError(t, err, "a file whose size says 0")
			assert.Equal(t, inv.Kernel, strings.TrimSpace(string(proc)))
			list, err := c.ReadDir(t.Context(), filepath.Dir(name))
			require.NoError(t, err)
			require.Len(t, list, 1)

			var exit *hostinv.ExitError
			err = c.Run(t.Context(), "echo no >&2; exit 7", nil, nil, nil)
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 7, exit.ExitStatus())
			assert.Equal(t, "no\n", string(exit.Stderr))
			err = c.Run(t.Context(), "kill -9 $$", nil, nil, nil)
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, -1, exit.ExitStatus())
			var out bytes.Buffer
			begin := time.Now()
			require.NoError(t, c.Run(t.Context(), "sleep 120 & echo $!", nil, &out, nil))
			assert.Less(t, time.Since(begin), 100*time.Second, "a child in the background is not waited for")
			child, err := strconv.Atoi(strings.TrimSpace(out.String()))
			require.NoError(t, err)
			p, err := os.FindProcess(child)
			require.NoError(t, err)
			_ = p.Kill()
			var lost *hostinv.DisconnectedError
			err = c.Run(t.Context(), "kill -9 $PPID; sleep 2", nil, nil, nil)
			require.ErrorAs(t, err, &lost)
			<-c.Done()
		})
	}
}
