//go:build linux

package remote_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestRealBadHosts holds that every way a host can be wrong has one clear
// error.
func TestRealBadHosts(t *testing.T) {
	r := startReal(t, []account{{name: "ops"}, {name: "garbage", bashrc: "head -c 100000 /dev/urandom; exit 5\n"}},
		"PermitTunnel no")
	forced := startReal(t, []account{{name: "menu"}}, "ForceCommand echo 'Choose: 1) reboot 2) nothing'; exit 4")
	o := r.options(t)
	var (
		auth    *remote.AuthError
		shell   *remote.ShellError
		changed *remote.HostKeyChangedError
		lost    *remote.DisconnectedError
		dial    *remote.DialError
	)
	for user, says := range map[string]string{"menu": "Choose: 1) reboot", "garbage": "status 5"} {
		host := r
		if user == "menu" {
			host = forced
		}
		c := host.dial(t, user, nil)
		err := c.Run(t.Context(), "true", nil, nil, nil)
		require.ErrorAs(t, err, &shell, user)
		assert.ErrorContains(t, err, says)
		assert.ErrorContains(t, err, "check the login shell")
		assert.Less(t, len(err.Error()), 2000)
	}

	// Wrong permissions: sshd cannot use the file, and the key is refused.
	require.NoError(t, os.Chmod(filepath.Join(r.dir, "authorized"), 0o600))
	require.ErrorAs(t, tryDial(t, o, "ops@"+r.addr()), &auth)
	assert.ErrorContains(t, tryDial(t, o, "ops@"+r.addr()), "SHA256:")
	require.NoError(t, os.Chmod(filepath.Join(r.dir, "authorized"), 0o644))

	// Another host at the address.
	other := startReal(t, []account{{name: "ops"}})
	known := filepath.Join(r.dir, "rotated")
	require.NoError(t, os.WriteFile(known, []byte("# comment\n127.0.0.1 "+other.host+"\n"), 0o600))
	o.KnownHosts = []string{known}
	err := tryDial(t, o, "ops@"+r.addr())
	require.ErrorAs(t, err, &changed)
	for _, want := range []string{known + ":2", r.addr(), "SHA256:", "ask who runs it"} {
		assert.ErrorContains(t, err, want)
	}

	// The server's process is stopped during a command, then killed.
	c := r.dial(t, "ops", func(o *remote.Options) { o.KeepAlive = time.Second })
	out := &starts{got: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background(), "echo $PPID; sleep 600", nil, out, nil) }()
	var pid int
	select {
	case text := <-out.got:
		fmt.Sscan(text, &pid)
	case err := <-ended:
		t.Fatalf("it ended too soon: %v", err)
	}
	require.Positive(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGKILL)
	require.ErrorAs(t, <-ended, &lost)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))

	c = r.dial(t, "ops", nil)
	require.ErrorAs(t, c.Run(t.Context(), "kill -9 $PPID; sleep 5", nil, nil, nil), &lost)

	// Answers with something else than SSH.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"+strings.Repeat("x", 1<<20))
			c.Close()
		}
	}()
	require.ErrorAs(t, tryDial(t, o, l.Addr().String()), &dial)
	l.Close()
	<-done
}

type starts struct{ got chan string }

func (s *starts) Write(p []byte) (int, error) {
	select {
	case s.got <- string(p):
	default:
	}
	return len(p), nil
}

// TestRealChain goes through two real servers, and ends at every stage when
// the last one does not speak.
func TestRealChain(t *testing.T) {
	a, b, end := startReal(t, []account{{name: "ops"}}), startReal(t, []account{{name: "ops"}}), startReal(t, []account{{name: "ops"}})
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer mute.Close()
	hop := func(name string, r *real, more string) string {
		return fmt.Sprintf("Host %s\n HostName 127.0.0.1\n Port %d\n User ops\n HostKeyAlias %s\n IdentityFile %s/id\n IdentitiesOnly yes\n%s", name, r.port, name, r.dir, more)
	}
	cfg := hop("a", a, "") + hop("b", b, " ProxyJump a\n") + hop("end", end, " ProxyJump b\n") +
		fmt.Sprintf("Host mute\n HostName 127.0.0.1\n Port %d\n ProxyJump b\n IdentityFile %s/id\n", mute.Addr().(*net.TCPAddr).Port, a.dir)
	d, err := remote.NewDialer(remote.Options{ConfigFile: file(t, cfg), KnownHosts: []string{file(t, "a "+a.host, "b "+b.host, "end "+end.host)},
		ConnectTimeout: 10 * time.Second})
	require.NoError(t, err)
	defer d.Close()
	c, err := d.Dial(t.Context(), "end")
	require.NoError(t, err)
	defer c.Close()
	got, err := c.Exec(t.Context(), remote.Cmd{Line: "cat", Stdin: strings.NewReader("through two")})
	require.NoError(t, err)
	assert.Equal(t, "through two", string(got.Stdout))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = d.Dial(ctx, "mute")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	t.Logf("a mute host behind two was given up %v after its time", time.Since(begin)-500*time.Millisecond)
	assert.NoError(t, c.Run(t.Context(), "true", nil, nil, nil), "the others go on")
}

// TestRealReplaceFile holds what a replaced file keeps and when it is left.
func TestRealReplaceFile(t *testing.T) {
	setfacl := testenv.Need(t, "setfacl")
	r := startReal(t, []account{{name: "ops", sudoers: "ALL=(ALL) NOPASSWD: ALL"}})
	dir := t.TempDir()
	put := func(name, text string) string {
		f := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(f, []byte(text), 0o640))
		require.NoError(t, os.Chown(f, 0, 33))
		return f
	}
	for _, user := range []string{"root", "ops"} {
		c := r.dial(t, user, func(o *remote.Options) { o.Sudo = user != "root" })
		f := put("conf "+user, "old")
		sh(t, setfacl, "-m", "u:4711:r", f)
		link := filepath.Join(dir, "link-"+user)
		require.NoError(t, os.Symlink(filepath.Base(f), link))
		acl := func() string {
			out, err := exec.Command("getfacl", "-ncp", f).CombinedOutput()
			require.NoError(t, err)
			return string(out)
		}
		before := acl()
		sum := sha256.Sum256([]byte("old"))
		data := []byte(strings.Repeat("new\x00'$\n", 50000))
		require.ErrorIs(t, c.ReplaceFile(t.Context(), link, data, strings.Repeat("0", 64)), remote.ErrFileChanged)
		require.NoError(t, c.ReplaceFile(t.Context(), link, data, hex.EncodeToString(sum[:])))
		got, err := os.ReadFile(f)
		require.NoError(t, err)
		assert.Equal(t, string(data), string(got))
		assert.Equal(t, before, acl())
		info, err := os.Lstat(link)
		require.NoError(t, err)
		assert.Equal(t, fs.ModeSymlink, info.Mode().Type(), "the link stays")
		info, err = os.Stat(f)
		require.NoError(t, err)
		assert.EqualValues(t, 33, info.Sys().(*syscall.Stat_t).Gid)

		hard := put("hard "+user, "old")
		require.NoError(t, os.Link(hard, hard+".2"))
		assert.ErrorContains(t, c.ReplaceFile(t.Context(), hard, data, ""), "hard links")
		assert.ErrorIs(t, c.ReplaceFile(t.Context(), filepath.Join(dir, "none"), data, ""), fs.ErrNotExist)
		assert.ErrorContains(t, c.ReplaceFile(t.Context(), dir, data, ""), "no regular file")
		assert.Error(t, c.ReplaceFile(t.Context(), "relative", data, ""))
	}
	// A file that is a mount of its own, as in a container; the mount lives in
	// the server's namespace.
	root := r.dial(t, "root", nil)
	bound := put("bound", "old")
	in := fmt.Sprint("nsenter -t ", r.cmd.Process.Pid, " -m ")
	require.NoError(t, root.Run(t.Context(), in+"mount --bind '"+bound+"' '"+bound+"'", nil, nil, nil))
	assert.ErrorContains(t, root.ReplaceFile(t.Context(), bound, []byte("x"), ""), "mounted there")
	c := r.dial(t, "ops", nil)
	f := put("not ours", "old")
	assert.Error(t, c.ReplaceFile(t.Context(), f, []byte("x"), ""))
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		assert.False(t, strings.HasPrefix(e.Name(), ".upgradectl"), "%s was left", e.Name())
	}
}

// BenchmarkRealConnect measures connect, login and a command on loopback, with
// our socket and with one the kernel acknowledges on as it likes.
func BenchmarkRealConnect(b *testing.B) {
	r := startReal(b, []account{{name: "ops", shell: "/bin/dash"}})
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"quickack": func(c net.Conn) net.Conn { return c },
		"kernel":   func(c net.Conn) net.Conn { return struct{ net.Conn }{c} },
	} {
		b.Run(name, func(b *testing.B) {
			o := r.options(b)
			o.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return wrap(c), nil
			}
			d, err := remote.NewDialer(o)
			require.NoError(b, err)
			defer d.Close()
			var before, after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				c, err := d.Dial(b.Context(), "ops@"+r.addr())
				require.NoError(b, err)
				require.NoError(b, c.Run(b.Context(), "true", nil, nil, nil))
				c.Close()
			}
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := func(u syscall.Rusage) float64 { return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6 }
			b.ReportMetric((cpu(after)-cpu(before))/float64(b.N), "cpu-ms/op")
		})
	}
}
