package hostos

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

func TestMain(m *testing.M) {
	// Inside the lab a goroutine watches for the end of whoever started it.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/upgradectl/upgradectl/internal/lab.enter.func1"))
}

const (
	oldKernel = "3.10.0-862.9.1.el7.x86_64"
	newKernel = "3.10.0-1160.6.1.el7.x86_64"
	poll      = 10 * time.Millisecond
)

// simulated is a simulated host and the way to log in there.
type simulated struct {
	*host.Host
	t *testing.T
	d *hostinv.Dialer
}

// tryDial logs in; the connection ends with the test.
func (s simulated) tryDial() (*hostinv.Conn, error) {
	c, err := s.d.Dial(s.t.Context(), "172.31.0.90")
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (s simulated) dial() *hostinv.Conn {
	s.t.Helper()
	c, err := s.tryDial()
	require.NoError(s.t, err)
	return c
}

// simulate starts a CentOS 7 host. What it does not know, it refuses; the end
// of the test sees that nothing was refused.
func simulate(t *testing.T, edit func(*host.Spec)) simulated {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	id := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(id, pem.EncodeToMemory(block), 0o600))

	spec := host.Spec{
		Name: "web-90", Addr: "172.31.0.90", Kernel: oldKernel, UpdateKernel: newKernel, UpdateRelease: "CentOS Linux release 7.9.2009 (Core)",
		Users: []host.User{{Name: "root", AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}}, {Name: "app", UID: 1001}},
		Units: []host.Unit{{Name: "docker", Enabled: true, Active: true}},
	}
	if edit != nil {
		edit(&spec)
	}
	h, err := host.New(spec, host.Options{Speed: 300})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	require.NoError(t, h.Start())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { h.ServeSSH(raw) })
		}
	})
	d, err := hostinv.NewDialer(hostinv.SSHConfig{User: "root", Identities: []string{id}, KnownHosts: []string{},
		NetDial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
		}})
	require.NoError(t, err)
	require.NoError(t, d.Pin("172.31.0.90", []string{h.HostKey()}))
	t.Cleanup(func() {
		assert.NoError(t, d.Close())
		assert.NoError(t, l.Close())
		wg.Wait()
		assert.Empty(t, h.Refused(), "commands that the simulated host does not know")
	})
	return simulated{h, t, d}
}

// local is this machine as a Host; shell runs its commands.
type local struct{ shell []string }

// statusError gives an exit status the way transports do.
type statusError struct{ *exec.ExitError }

func (e statusError) ExitStatus() int { return e.ExitCode() }

func (l local) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := exec.CommandContext(ctx, l.shell[0], append(l.shell[1:len(l.shell):len(l.shell)], "-c", cmd)...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return statusError{exit}
	}
	return err
}

func (local) ReadFile(_ context.Context, name string) ([]byte, error) { return os.ReadFile(name) }

func (local) WriteFile(_ context.Context, name string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// writeProgram makes a program. Another process writes it: while this one has a
// file open for writing, so may have whatever it starts meanwhile, and then the
// file cannot be run ("text file busy").
func writeProgram(t *testing.T, name, text string) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", name)
	c.Stdin = strings.NewReader(text)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// onShells runs a test with each POSIX shell of this machine. The scripts
// need Linux: /proc, setsid.
func onShells(t *testing.T, test func(t *testing.T, h local)) {
	t.Helper()
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); err != nil {
		t.Skip("no Linux: ", err)
	}
	for _, p := range []string{"setsid", "sha256sum"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	for name, shell := range map[string][]string{"sh": {"/bin/sh"}, "bash": {"bash", "--posix"}} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skip(err)
			}
			t.Parallel()
			test(t, local{shell})
		})
	}
}

// fake answers every command by a func, and remembers the commands.
type fake struct {
	mu   sync.Mutex
	cmds []string
	run  func(cmd string, stdout io.Writer) error
	file map[string]string
}

func (f *fake) Run(_ context.Context, cmd string, _ io.Reader, stdout, _ io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cmds = append(f.cmds, cmd)
	return f.run(cmd, stdout)
}

func (f *fake) ReadFile(_ context.Context, name string) ([]byte, error) {
	if s, ok := f.file[name]; ok {
		return []byte(s), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (f *fake) WriteFile(_ context.Context, name string, data []byte, _ fs.FileMode) error {
	if _, ok := f.file[name]; ok {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	}
	f.file[name] = string(data)
	return nil
}

// failed is a command that ran and failed.
type failed int

func (e failed) Error() string   { return "exit status" }
func (e failed) ExitStatus() int { return int(e) }

var errLost = errors.New("connection lost")

func TestCut(t *testing.T) {
	assert.Equal(t, "内…", firstBytes("内核升级", 5), "never inside a character")
	assert.Equal(t, "…级", lastBytes("内核升级", 5))
	assert.Equal(t, "abc", firstBytes("abc", 3))
	assert.Equal(t, "abc", lastBytes("abc", 3))
	var c capped
	n, err := c.Write(make([]byte, maxOutput+1))
	assert.Equal(t, maxOutput+1, n)
	assert.NoError(t, err)
	assert.Len(t, c.String(), maxOutput)
}
