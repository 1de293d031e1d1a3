//go:build linux

package remote_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// sh runs a program of the test's own preparation.
func sh(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
}

func tryDial(t testing.TB, o remote.Options, target string) error {
	t.Helper()
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	defer d.Close()
	c, err := d.Dial(t.Context(), target)
	if err == nil {
		assert.NoError(t, c.Run(t.Context(), "true", nil, nil, nil))
		c.Close()
	}
	return err
}

// TestRealPassword logs in by password and by keyboard-interactive.
func TestRealPassword(t *testing.T) {
	testenv.Slow(t)
	for _, method := range []string{"password", "keyboard-interactive"} {
		t.Run(method, func(t *testing.T) {
			config := []string{"PasswordAuthentication yes", "KbdInteractiveAuthentication no", "LogLevel VERBOSE"}
			if method != "password" {
				config = []string{"UsePAM yes", "PasswordAuthentication no", "KbdInteractiveAuthentication yes", "LogLevel VERBOSE"}
			}
			r := startReal(t, []account{{name: "ops"}}, config...)
			wrong, _ := keyFile(t, "")
			asked := atomic.Int32{}
			o := r.options(t)
			o.Identities = []string{wrong}
			o.Password = func(_ context.Context, who string) (string, error) {
				asked.Add(1)
				assert.Equal(t, "ops@"+r.addr(), who)
				return testPassword, nil
			}
			require.NoError(t, tryDial(t, o, "ops@"+r.addr()))
			assert.EqualValues(t, 1, asked.Load())
			eventually(t, "sshd says nothing", func() bool { return strings.Contains(r.log.String(), "Accepted "+method) })

			o.Password = func(context.Context, string) (string, error) { return "wrong", nil }
			d, err := remote.NewDialer(o)
			require.NoError(t, err)
			defer d.Close()
			failures := func() int { return strings.Count(r.log.String(), "Failed "+method) }
			before := failures()
			for range 3 {
				_, err = d.Dial(t.Context(), "ops@"+r.addr())
				var auth *remote.AuthError
				require.ErrorAs(t, err, &auth)
				assert.ErrorContains(t, err, "not tried again")
				assert.NotContains(t, err.Error(), testPassword)
			}
			// A method that may be named but not answered is told once as a
			// failure too.
			eventually(t, "sshd says nothing", func() bool { return failures() > before })
			assert.LessOrEqual(t, strings.Count(r.log.String(), "Failed password")+strings.Count(r.log.String(), "Failed keyboard-interactive"), before+1)
			o.Password = func(context.Context, string) (string, error) { return "", fmt.Errorf("no terminal") }
			assert.ErrorContains(t, tryDial(t, o, "ops@"+r.addr()), "no terminal")
		})
	}
}

// TestRealCertificates logs in with a user certificate to a host that shows
// one of its own.
func TestRealCertificates(t *testing.T) {
	testenv.Slow(t)
	keygen := testenv.Need(t, "ssh-keygen")
	dir := t.TempDir()
	key := func(name string) string {
		f := filepath.Join(dir, name)
		sh(t, keygen, "-q", "-t", "ed25519", "-N", "", "-f", f)
		return f
	}
	userCA, hostCA, otherCA, host, id := key("userca"), key("hostca"), key("otherca"), key("host2"), key("id")
	sh(t, keygen, "-q", "-s", hostCA, "-I", "web-90", "-h", "-n", "127.0.0.*,web-90", host+".pub")
	sh(t, keygen, "-q", "-s", userCA, "-I", "operator", "-n", "ops", id+".pub")
	pub := func(f string) string {
		b, err := os.ReadFile(f + ".pub")
		require.NoError(t, err)
		return strings.TrimSpace(string(b))
	}
	r := startReal(t, []account{{name: "ops"}, {name: "other"}}, "HostKey "+host, "HostCertificate "+host+"-cert.pub",
		"TrustedUserCAKeys "+userCA+".pub")
	var (
		changed *remote.HostKeyChangedError
		unknown *remote.UnknownHostKeyError
		revoked *remote.HostKeyRevokedError
		auth    *remote.AuthError
	)
	try := func(user string, ids []string, config string, lines ...string) error {
		o := r.options(t)
		o.Identities, o.ConfigFile = ids, "none"
		o.KnownHosts = []string{file(t, lines...)}
		if config != "" {
			o.ConfigFile = file(t, config)
		}
		return tryDial(t, o, user+"@"+r.addr())
	}
	good := "@cert-authority * " + pub(hostCA)
	require.NoError(t, try("ops", []string{id}, "", good))
	require.NoError(t, try("ops", []string{id}, "", "@cert-authority [127.0.0.1]:* "+pub(hostCA)))
	require.NoError(t, try("ops", []string{id}, "", "@cert-authority * "+pub(otherCA), "127.0.0.1 "+pub(host)), "the key itself is known")
	require.ErrorAs(t, try("ops", []string{id}, "", "@cert-authority * "+pub(otherCA)), &unknown)
	require.ErrorAs(t, try("ops", []string{id}, "", good, "@revoked * "+pub(hostCA)), &revoked)
	require.ErrorAs(t, try("ops", []string{id}, "", good, "@revoked * "+pub(host)), &revoked)
	require.ErrorAs(t, try("ops", []string{id}, "HostKeyAlias db-1", good), &changed)
	assert.ErrorContains(t, try("ops", []string{id}, "HostKeyAlias db-1", good), "principal")
	require.NoError(t, try("ops", []string{id}, "HostKeyAlias web-90", good))
	require.ErrorAs(t, try("other", []string{id}, "", good), &auth, "the certificate is for ops")

	// A certificate elsewhere, and one that has expired.
	sh(t, "mv", id+"-cert.pub", id+".moved")
	require.ErrorAs(t, try("ops", []string{id}, "", good), &auth)
	require.NoError(t, try("ops", []string{id}, "CertificateFile "+id+".moved", good))
	sh(t, keygen, "-q", "-s", hostCA, "-I", "old", "-h", "-V", "20200101:20200102", host+".pub")
	r = startReal(t, []account{{name: "ops"}}, "HostKey "+host, "HostCertificate "+host+"-cert.pub")
	require.ErrorAs(t, try("ops", []string{filepath.Join(r.dir, "id")}, "", good), &changed)
	assert.ErrorContains(t, try("ops", []string{filepath.Join(r.dir, "id")}, "", good), "expired")
}

// TestRealAgent uses ssh-agent and ssh-add.
func TestRealAgent(t *testing.T) {
	agent, add := testenv.Need(t, "ssh-agent"), testenv.Need(t, "ssh-add")
	r := startReal(t, []account{{name: "ops"}}, "MaxAuthTries 6")
	dir, err := os.MkdirTemp("", "a") // t.TempDir is too long for a socket
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	sock := filepath.Join(dir, "s")
	cmd := exec.Command(agent, "-D", "-a", sock)
	require.NoError(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	eventually(t, "no agent", func() bool {
		c, err := net.Dial("unix", sock)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	load := func(f string) {
		c := exec.Command(add, "-q", f)
		c.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	t.Setenv("SSH_AUTH_SOCK", sock)
	o := r.options(t)
	o.Agent, o.Identities = true, []string{filepath.Join(dir, "none")}
	for range 4 {
		f, _ := keyFile(t, "")
		load(f)
	}
	load(filepath.Join(r.dir, "id"))
	require.NoError(t, tryDial(t, o, "ops@"+r.addr()), "the fifth key")
	o.ConfigFile = file(t, "IdentityAgent "+sock)
	t.Setenv("SSH_AUTH_SOCK", "")
	require.NoError(t, tryDial(t, o, "ops@"+r.addr()))
	o.ConfigFile = file(t, "IdentityAgent none")
	assert.ErrorContains(t, tryDial(t, o, "ops@"+r.addr()), "there is no key to offer")
}

// TestPassphrase opens an encrypted file once for many connections.
func TestPassphrase(t *testing.T) {
	locked, pub := keyFile(t, "open sesame")
	host := edKey(t)
	s := newServer(t, pub, host)
	asked := atomic.Int32{}
	phrase := "open sesame"
	// Opening the file takes seconds under the race detector.
	o := remote.Options{ConfigFile: "none", ConnectTimeout: 5 * time.Minute, User: "ops", Identities: []string{locked}, KnownHosts: []string{file(t, "127.0.0.1 "+text(host))},
		Passphrase: func(_ context.Context, f string) (string, error) {
			asked.Add(1)
			assert.Equal(t, locked, f)
			return phrase, nil
		}}
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			c, err := d.Dial(context.Background(), s.l.Addr().String())
			if assert.NoError(t, err) {
				c.Close()
			}
		})
	}
	wg.Wait()
	d.Close()
	assert.EqualValues(t, 1, asked.Load())
	phrase = "wrong"
	d, err = remote.NewDialer(o)
	require.NoError(t, err)
	defer d.Close()
	for range 2 {
		_, err = d.Dial(t.Context(), s.l.Addr().String())
		require.ErrorContains(t, err, "does not open identity")
	}
	assert.EqualValues(t, 2, asked.Load())
}

// TestProxyCommand holds that somebody else's program runs only when allowed.
func TestProxyCommand(t *testing.T) {
	r := newRig(t)
	testenv.Need(t, "bash")
	o := r.opt
	o.ConfigFile = file(t, "Host x", "HostName 127.0.0.1", fmt.Sprint("Port ", r.s.port),
		`ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'`)
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	_, err = d.Dial(t.Context(), "x")
	assert.ErrorContains(t, err, "ProxyCommand of x is not run")
	d.Close()
	o.AllowProxyCommand = true
	d, err = remote.NewDialer(o)
	require.NoError(t, err)
	defer d.Close()
	c, err := d.Dial(t.Context(), "x")
	require.NoError(t, err)
	c.Close()
	o.ConfigFile = file(t, "Host x", "ProxyCommand exit 3")
	d2, err := remote.NewDialer(o)
	require.NoError(t, err)
	defer d2.Close()
	_, err = d2.Dial(t.Context(), "x")
	var dial *remote.DialError
	require.ErrorAs(t, err, &dial)
}

// TestRealMaxSessions queues what a server with fewer sessions refuses.
func TestRealMaxSessions(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := startReal(t, []account{{name: "ops"}}, fmt.Sprint("MaxSessions ", n))
			c := r.dial(t, "ops", nil)
			name := filepath.Join(r.dir, "authorized")
			var wg sync.WaitGroup
			for range 12 {
				wg.Go(func() {
					assert.NoError(t, c.Run(context.Background(), "sleep 0.05", nil, nil, nil))
					_, err := c.ReadFile(context.Background(), name)
					assert.NoError(t, err)
				})
			}
			wg.Wait()
			assert.NoError(t, c.Run(t.Context(), "true", nil, nil, nil))
		})
	}
}

// lag is a relay that gives every byte a delay in each direction, as a long
// line does.
func lag(t testing.TB, to string, delay time.Duration) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	pipe := func(dst, src net.Conn) {
		type piece struct {
			at time.Time
			b  []byte
		}
		queue := make(chan piece, 10000)
		wg.Go(func() {
			for p := range queue {
				if d := time.Until(p.at); d > 0 {
					<-time.After(d)
				}
				if _, err := dst.Write(p.b); err != nil {
					src.Close()
				}
			}
			dst.(*net.TCPConn).CloseWrite()
		})
		for {
			b := make([]byte, 64<<10)
			n, err := src.Read(b)
			if n > 0 {
				queue <- piece{time.Now().Add(delay), b[:n]}
			}
			if err != nil {
				close(queue)
				return
			}
		}
	}
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			wg.Go(func() { pipe(b, a); a.Close() })
			wg.Go(func() { pipe(a, b); b.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// TestRealRoundTrips counts round trips to a real server: behind a line with a
// long delay, time is made of them. What else takes time is not the line's: on
// a machine that is busy the line is made longer, until it does not show.
func TestRealRoundTrips(t *testing.T) {
	testenv.Slow(t)
	r := startReal(t, []account{{name: "ops", shell: "/bin/dash", sudoers: "ALL=(ALL) NOPASSWD: ALL"}})
	for rtt := 300 * time.Millisecond; ; rtt *= 3 {
		connect, later := roundTrips(t, r, rtt)
		if connect == 9 && later == 2 || rtt > 5*time.Second {
			assert.Equal(t, 9, connect, "round trips of connect and inventory")
			assert.Equal(t, 2, later, "of a later command")
			return
		}
	}
}

// roundTrips measures connecting and a first long script, and a command after
// it, each to its first output, in whole round trips.
func roundTrips(t *testing.T, r *real, rtt time.Duration) (connect, later int) {
	far := lag(t, r.addr(), rtt/2)
	o := r.options(t)
	o.ConnectTimeout = time.Minute
	o.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		<-time.After(rtt) // the relay delays bytes, not the connecting
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	defer d.Close()
	trips := func(begin time.Time, f *firstByte) float64 { return float64(f.at.Sub(begin)) / float64(rtt) }
	begin := time.Now()
	c, err := d.Dial(t.Context(), "ops@"+far)
	require.NoError(t, err)
	defer c.Close()
	script := strings.Repeat("# a long script\n", 2000) + "echo done\n"
	first := &firstByte{}
	require.NoError(t, c.Run(t.Context(), script, nil, first, nil))
	whole := trips(begin, first)
	least := whole
	for range 3 {
		begin = time.Now()
		first = &firstByte{}
		require.NoError(t, c.Run(t.Context(), "echo x", nil, first, nil))
		least = min(least, trips(begin, first))
	}
	t.Logf("a line of %v: connect and a script of %d bytes %.2f round trips, a later command %.2f", rtt, len(script), whole, least)
	return int(whole), int(least)
}

type firstByte struct {
	at time.Time
}

func (f *firstByte) Write(p []byte) (int, error) {
	if f.at.IsZero() {
		f.at = time.Now()
	}
	return len(p), nil
}

var _ io.Writer = (*firstByte)(nil)
