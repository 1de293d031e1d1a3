package remote_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

func hashed(name string) string {
	salt := []byte("01234567890123456789")
	m := hmac.New(sha1.New, salt)
	m.Write([]byte(name))
	b := base64.StdEncoding
	return "|1|" + b.EncodeToString(salt) + "|" + b.EncodeToString(m.Sum(nil))
}

func TestHostKeys(t *testing.T) {
	ed, ec, rs := edKey(t), ecKey(t), rsaKey(t)
	other := edKey(t)
	id, pub := keyFile(t, "")
	s := newServer(t, pub, rs, ec, ed)
	onlyRSA := newServer(t, pub, rs)
	name := fmt.Sprintf("[127.0.0.1]:%d", s.port)
	b64 := strings.Fields(text(ed))[1]

	var (
		unknown *remote.UnknownHostKeyError
		changed *remote.HostKeyChangedError
		revoked *remote.HostKeyRevokedError
	)
	for _, tc := range []struct {
		name  string
		lines []string
		pins  []string
		want  any // target of errors.As; nil = accepted
		says  string
	}{
		{"only ed25519 known", []string{name + " " + text(ed)}, nil, nil, ""},
		{"only rsa known", []string{name + " " + text(rs)}, nil, nil, ""},
		{"only ecdsa known", []string{name + " " + text(ec)}, nil, nil, ""},
		{"hashed", []string{hashed(name) + " " + text(ed)}, nil, nil, ""},
		{"host without port", []string{"127.0.0.1 " + text(ed)}, nil, nil, ""},
		{"hashed host without port", []string{hashed("127.0.0.1") + " " + text(ed)}, nil, nil, ""},
		{"pattern", []string{"127.0.0.? " + text(ed)}, nil, nil, ""},
		{"several names", []string{"x," + name + ",y " + text(ed) + " comment words"}, nil, nil, ""},
		{"bad lines first", []string{"garbage", "h ssh-wonder AAAA", name + " ssh-ed25519 !!!", "|1|x ssh-ed25519 " + b64, "@odd a b c", name + " " + text(ed)}, nil, nil, ""},
		{"nothing", nil, nil, &unknown, ssh.FingerprintSHA256(ed.PublicKey())},
		{"negated", []string{"!127.0.0.1,127.0.0.* " + text(ed)}, nil, &unknown, "add to"},
		{"another port", []string{"[127.0.0.1]:1 " + text(ed)}, nil, &unknown, "is not known"},
		{"bad line is told", []string{name + " ssh-ed25519 !!!"}, nil, &unknown, ":1: the key is not base64"},
		{"wrong key", []string{name + " " + text(other)}, nil, &changed, "HAS CHANGED"},
		{"wrong ed25519 and right rsa", []string{name + " " + text(other), name + " " + text(rs)}, nil, &changed, ssh.FingerprintSHA256(other.PublicKey())},
		{"revoked", []string{"@revoked * " + text(ed)}, nil, &revoked, "REVOKED"},
		{"revoked and known", []string{name + " " + text(ed), "@revoked " + name + " " + text(ed)}, nil, &revoked, ":2"},
		{"pinned", nil, []string{text(ed)}, nil, ""},
		{"pin replaces a wrong known key", []string{name + " " + text(other)}, []string{text(ed) + " root@host"}, nil, ""},
		{"pin replaces a right known key", []string{name + " " + text(ed)}, []string{text(other)}, &changed, "pinned"},
		{"pinned and revoked", []string{"@revoked * " + text(ed)}, []string{text(ed)}, &revoked, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := remote.NewDialer(remote.Options{User: "ops", Identities: []string{id}, KnownHosts: []string{file(t, tc.lines...)}})
			require.NoError(t, err)
			defer d.Close()
			if tc.pins != nil {
				require.NoError(t, d.Pin("127.0.0.1", tc.pins))
			}
			before := s.logins.Load()
			c, err := d.Dial(t.Context(), s.l.Addr().String())
			if tc.want == nil {
				require.NoError(t, err)
				assert.Contains(t, []string{text(ed), text(ec), text(rs)}, c.HostKey())
				require.NoError(t, c.Close())
				return
			}
			require.Error(t, err)
			assert.ErrorAs(t, err, tc.want)
			assert.ErrorContains(t, err, tc.says)
			assert.Equal(t, before, s.logins.Load(), "it logged in")
		})
	}

	t.Run("server has no key of the known type", func(t *testing.T) {
		d, err := remote.NewDialer(remote.Options{User: "ops", Identities: []string{id},
			KnownHosts: []string{file(t, "127.0.0.1 "+text(ed))}})
		require.NoError(t, err)
		defer d.Close()
		_, err = d.Dial(t.Context(), onlyRSA.l.Addr().String())
		assert.ErrorAs(t, err, &changed)
	})
	t.Run("HostKeyAlias", func(t *testing.T) {
		cfg := file(t, "Host web-90", "HostName 127.0.0.1", fmt.Sprint("Port ", s.port), "HostKeyAlias production")
		d, err := remote.NewDialer(remote.Options{User: "ops", Identities: []string{id}, ConfigFile: cfg,
			KnownHosts: []string{file(t, "production "+text(ed))}})
		require.NoError(t, err)
		defer d.Close()
		c, err := d.Dial(t.Context(), "web-90")
		require.NoError(t, err)
		c.Close()
		require.NoError(t, d.Pin("web-90", []string{text(other)}))
		_, err = d.Dial(t.Context(), "web-90")
		assert.ErrorAs(t, err, &changed)
	})
	t.Run("bad pins", func(t *testing.T) {
		d, err := remote.NewDialer(remote.Options{})
		require.NoError(t, err)
		assert.Error(t, d.Pin("h", nil))
		assert.Error(t, d.Pin("h", []string{"ssh-ed25519 !!"}))
		assert.Error(t, d.Pin("", []string{text(ed)}))
	})
}

func TestAuth(t *testing.T) {
	r := newRig(t)
	wrong, _ := keyFile(t, "")
	locked, _ := keyFile(t, "secret")
	try := func(ids ...string) error {
		o := r.opt
		o.Identities = ids
		d, err := remote.NewDialer(o)
		require.NoError(t, err)
		defer d.Close()
		c, err := d.Dial(t.Context(), r.addr)
		if err == nil {
			c.Close()
		}
		return err
	}
	var auth *remote.AuthError
	require.NoError(t, try(wrong, r.opt.Identities[0]), "the second key is the right one")

	require.ErrorAs(t, try(wrong), &auth)
	assert.Len(t, auth.Offered, 1)
	assert.Contains(t, auth.Error(), wrong+" SHA256:")
	assert.Contains(t, auth.Error(), "authorized_keys")

	require.ErrorAs(t, try(locked), &auth)
	assert.Contains(t, auth.Error(), "there is no key to offer")
	assert.Contains(t, auth.Error(), "ssh-add "+locked)
	assert.NotContains(t, auth.Error(), "secret")

	require.ErrorAs(t, try(filepath.Join(t.TempDir(), "none")), &auth)
	assert.Contains(t, auth.Error(), "none")

	require.ErrorAs(t, try(file(t, "no key")), &auth)
	assert.NotContains(t, auth.Error(), "no key\n")
}

// TestAgent uses an agent for an encrypted file, and for a key of its own.
func TestAgent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("agents listen on Unix sockets here")
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	require.NoError(t, err)
	locked := file(t, string(pem.EncodeToMemory(block)))
	ring := agent.NewKeyring()
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for range 3 {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: k}))
	}
	require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: key, Comment: "the key"}))
	require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: otherKey}))

	dir, err := os.MkdirTemp("", "a") // t.TempDir is too long for a socket
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { agent.ServeAgent(ring, c); c.Close() })
		}
	})
	defer wg.Wait()
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())

	host := edKey(t)
	s := newServer(t, signer.PublicKey(), host)
	known := []string{file(t, "127.0.0.1 "+text(host))}
	only := file(t, "IdentitiesOnly yes")
	try := func(config string, ids ...string) error {
		d, err := remote.NewDialer(remote.Options{User: "ops", Identities: ids, Agent: true, KnownHosts: known, ConfigFile: config})
		require.NoError(t, err)
		defer d.Close()
		c, err := d.Dial(t.Context(), s.l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	}
	none := filepath.Join(dir, "none")
	assert.NoError(t, try(only, locked))
	assert.NoError(t, try("", locked))
	assert.NoError(t, try("", none))
	assert.NoError(t, try(only, file(t, text(signer))), "a public key names one of the agent")
	var auth *remote.AuthError
	require.ErrorAs(t, try(only, none), &auth)
	assert.Empty(t, auth.Offered)
	t.Setenv("SSH_AUTH_SOCK", "")
	require.ErrorAs(t, try("", locked), &auth)
	assert.Contains(t, auth.Error(), "SSH_AUTH_SOCK is not set")
}

func TestUnreachable(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	l.Close()
	d, err := remote.NewDialer(r.opt)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Dial(t.Context(), addr)
	var dial *remote.DialError
	require.ErrorAs(t, err, &dial)
	assert.Equal(t, addr, dial.Addr)
}

func TestMuteServer(t *testing.T) {
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind a jump host %v", behind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newMemRig(t)
				r.opt.ConfigFile = file(t, "Host jump", "HostName 127.0.0.1", "Host mute-behind", "HostName 127.0.0.2", "ProxyJump jump")
				accepted := make(chan struct{}, 1)
				mute := func() (net.Conn, error) { // listens and never speaks
					ours, theirs := memnet.Pipe(&net.TCPAddr{}, &net.TCPAddr{})
					go func() { io.Copy(io.Discard, theirs); theirs.Close() }()
					accepted <- struct{}{}
					return ours, nil
				}
				r.s.forward = func(string) (net.Conn, error) { return mute() }
				target := "mute-behind"
				if !behind {
					target = "127.0.0.2:22"
					r.opt.NetDial = func(context.Context, string, string) (net.Conn, error) { return mute() }
				}
				dialer := func() *remote.Dialer {
					d, err := remote.NewDialer(r.opt)
					require.NoError(t, err)
					return d
				}

				d := dialer()
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-accepted; cancel() }()
				begin := time.Now()
				_, err := d.Dial(ctx, target)
				require.ErrorIs(t, err, context.Canceled)
				assert.Zero(t, time.Since(begin), "at once")
				require.NoError(t, d.Close())

				d = dialer()
				_, err = d.Dial(t.Context(), target)
				var dial *remote.DialError
				require.ErrorAs(t, err, &dial)
				assert.ErrorContains(t, err, "no answer within 1m0s")
				assert.Equal(t, time.Minute, time.Since(begin))
				<-accepted
				require.NoError(t, d.Close())

				d = dialer()
				go func() { <-accepted; d.Close() }()
				_, err = d.Dial(t.Context(), target)
				assert.ErrorContains(t, err, "the dialer is closed")
				assert.Equal(t, time.Minute, time.Since(begin), "at once")
			})
		})
	}
}

// frozen passes bytes on until it is frozen.
type frozen struct {
	net.Conn
	ice chan struct{}
}

func (f *frozen) Write(p []byte) (int, error) {
	select {
	case <-f.ice:
		return len(p), nil // swallowed by a dead peer
	default:
		return f.Conn.Write(p)
	}
}

func TestFrozenServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		ice := make(chan struct{})
		running := make(chan struct{})
		r.s.commands["wait"] = func(ch ssh.Channel, gone <-chan struct{}) { close(running); <-gone }
		r.opt.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := r.s.dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &frozen{c, ice}, nil
		}
		c := r.dial(t)
		begin := time.Now()
		go func() { <-running; close(ice) }()
		err := c.Run(t.Context(), "wait", nil, nil, nil)
		var lost *remote.DisconnectedError
		require.ErrorAs(t, err, &lost)
		<-c.Done()
		assert.Equal(t, time.Minute, time.Since(begin), "the fourth keepalive in 15 s each")
		_, err = c.ReadFile(t.Context(), "/etc/hosts")
		require.ErrorAs(t, err, &lost)
	})
}

func TestRunEndings(t *testing.T) {
	r := newRig(t)
	r.s.commands["ok"] = func(ch ssh.Channel, _ <-chan struct{}) {
		in, _ := io.ReadAll(ch)
		fmt.Fprintf(ch, "got %q", in)
		fmt.Fprint(ch.Stderr(), "warned")
		exitStatus(ch, 0)
	}
	r.s.commands["fail"] = func(ch ssh.Channel, _ <-chan struct{}) {
		fmt.Fprint(ch.Stderr(), "no such unit\n"+strings.Repeat("x", 10000))
		exitStatus(ch, 5)
	}
	r.s.commands["killed"] = func(ch ssh.Channel, _ <-chan struct{}) {
		ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			S       string
			Core    bool
			M, Lang string
		}{"KILL", false, "", ""}))
	}
	r.s.commands["no status"] = func(ch ssh.Channel, _ <-chan struct{}) { fmt.Fprint(ch, "x") }
	r.s.commands["drop"] = func(ch ssh.Channel, _ <-chan struct{}) { fmt.Fprint(ch, "x"); r.s.dropAll() }
	r.s.commands["hang"] = func(ch ssh.Channel, gone <-chan struct{}) { fmt.Fprint(ch, "started"); <-gone }
	r.s.commands["big"] = func(ch ssh.Channel, _ <-chan struct{}) {
		go exitStatus(ch, 0) // the status may overtake the output
		for range 300 {
			ch.Write(bytes.Repeat([]byte("y"), 32<<10))
		}
	}
	r.s.commands["background child"] = func(ch ssh.Channel, gone <-chan struct{}) {
		fmt.Fprint(ch, "done")
		exitStatus(ch, 0)
		<-gone // standard output stays open
	}
	c := r.dial(t)
	ctx := t.Context()

	var out, errOut bytes.Buffer
	require.NoError(t, c.Run(ctx, "ok", strings.NewReader("in\x00put"), &out, &errOut))
	assert.Equal(t, `got "in\x00put"`, out.String())
	assert.Equal(t, "warned", errOut.String())
	require.NoError(t, c.Run(ctx, "ok", nil, nil, nil))

	var exit *remote.ExitError
	err := c.Run(ctx, "fail", nil, nil, nil)
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 5, exit.Status)
	var status interface{ ExitStatus() int }
	require.ErrorAs(t, err, &status)
	assert.Equal(t, 5, status.ExitStatus())
	assert.Contains(t, err.Error(), "no such unit")
	assert.Less(t, len(err.Error()), 1000)

	err = c.Run(ctx, "killed", nil, nil, nil)
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, -1, exit.ExitStatus())
	assert.Equal(t, "KILL", exit.Signal)

	var lost *remote.DisconnectedError
	err = c.Run(ctx, "no status", nil, nil, nil)
	require.ErrorAs(t, err, &lost)
	assert.False(t, errors.As(err, &status), "a lost session has no exit status")

	err = c.Run(ctx, "not there", nil, nil, nil)
	assert.ErrorContains(t, err, "refuses to run")

	out.Reset()
	require.NoError(t, c.Run(ctx, "big", nil, &out, nil))
	assert.Equal(t, 300*32<<10, out.Len())

	out.Reset()
	require.NoError(t, c.Run(ctx, "background child", nil, &out, nil), "which ends only when the session does")
	assert.Equal(t, "done", out.String())

	err = c.Run(ctx, "ok", io.MultiReader(strings.NewReader("a"), errReader{}), nil, nil)
	assert.ErrorContains(t, err, "cannot read its input: torn")

	err = c.Run(ctx, "ok", nil, failWriter{}, nil)
	assert.ErrorContains(t, err, "disk full")

	cctx, cancel := context.WithCancel(ctx)
	w := &notify{first: cancel}
	err = c.Run(cctx, "hang", nil, w, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, errors.As(err, &status))
	err = c.Run(cctx, "ok", nil, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, "not started")

	err = c.Run(ctx, "drop", nil, nil, nil)
	require.ErrorAs(t, err, &lost)
	err = c.Run(ctx, "ok", nil, nil, nil)
	require.ErrorAs(t, err, &lost)
	<-c.Done()
}

// stalled sends nothing for a while once it is told to, as a line that loses
// packets.
type stalled struct {
	net.Conn
	queue chan []byte
	stall atomic.Int64 // for how long before the next piece
	gone  chan struct{}
	once  sync.Once
}

func (s *stalled) pump() {
	for {
		select {
		case p := <-s.queue:
			select {
			case <-time.After(time.Duration(s.stall.Swap(0))):
				s.Conn.Write(p)
			case <-s.gone:
				return
			}
		case <-s.gone:
			return
		}
	}
}

func (s *stalled) Write(p []byte) (int, error) {
	s.queue <- bytes.Clone(p)
	return len(p), nil
}

func (s *stalled) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.Conn.Close()
}

// TestStalledLine: a line that is silent between the exit status and the rest
// of the output costs time and no output; one that is lost there is an error.
func TestStalledLine(t *testing.T) {
	for stall, lost := range map[time.Duration]bool{3 * time.Second: false, 40 * time.Second: false, time.Hour: true} {
		t.Run(stall.String(), inVirtualTime(func(t *testing.T) {
			r := newMemRig(t)
			var line *stalled
			r.opt.NetDial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := memnet.Pipe(&net.TCPAddr{}, &net.TCPAddr{})
				line = &stalled{Conn: theirs, queue: make(chan []byte, 1000), gone: make(chan struct{})}
				go line.pump()
				r.s.take(line)
				return ours, nil
			}
			r.s.commands["report"] = func(ch ssh.Channel, gone <-chan struct{}) {
				fmt.Fprint(ch, "first half, ")
				exitStatus(ch, 0)
				synctest.Wait() // the client has it
				line.stall.Store(int64(stall))
				fmt.Fprint(ch, "second half")
				if !lost {
					<-gone
				}
			}
			c := r.dial(t)
			var out bytes.Buffer
			err := c.Run(t.Context(), "report", nil, &out, nil)
			if lost {
				var broken *remote.DisconnectedError
				require.ErrorAs(t, err, &broken)
				r.s.dropAll()
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "first half, second half", out.String())
		}))
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("torn") }

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

type notify struct{ first func() }

func (n *notify) Write(p []byte) (int, error) { n.first(); return len(p), nil }

func TestSessions(t *testing.T) {
	r := newRig(t)
	full := make(chan struct{}, 100)
	release := make(chan struct{})
	var running, most atomic.Int32
	r.s.commands["wait"] = func(ch ssh.Channel, gone <-chan struct{}) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		full <- struct{}{}
		<-release
		running.Add(-1) // before the client can know
		exitStatus(ch, 0)
	}
	c := r.dial(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { assert.NoError(t, c.Run(context.Background(), "wait", nil, nil, nil)) })
	}
	for range 8 {
		<-full
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, c.Run(ctx, "wait", nil, nil, nil), context.Canceled)
	close(release)
	wg.Wait()
	assert.EqualValues(t, 8, most.Load())
}

func TestProxyJump(t *testing.T) {
	r := newRig(t)
	midKey, endKey := edKey(t), edKey(t)
	mid, end := newServer(t, r.pub, midKey), newServer(t, r.pub, endKey)
	end.commands["true"] = func(ch ssh.Channel, _ <-chan struct{}) { exitStatus(ch, 0) }
	config := []string{
		"Host edge", "HostName 127.0.0.1", fmt.Sprint("Port ", r.s.port), "HostKeyAlias edge",
		"Host mid", "HostName 127.0.0.1", fmt.Sprint("Port ", mid.port), "HostKeyAlias mid", "ProxyJump edge",
		"Host app app2", "HostName 127.0.0.1", fmt.Sprint("Port ", end.port), "HostKeyAlias app", "ProxyJump mid",
		"Host list", "HostName 127.0.0.1", fmt.Sprint("Port ", end.port), "HostKeyAlias app", "ProxyJump edge,mid",
		"Host a", "ProxyJump b", "Host b", "ProxyJump a",
		"Host self", "ProxyJump self",
	}
	known := []string{"edge " + text(r.host), "mid " + text(midKey), "app " + text(endKey)}
	o := r.opt
	o.ConfigFile, o.KnownHosts = file(t, config...), []string{file(t, known...)}
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	defer d.Close()

	var wg sync.WaitGroup
	for range 4 {
		for _, target := range []string{"app", "app2"} {
			wg.Go(func() {
				c, err := d.Dial(context.Background(), target)
				if assert.NoError(t, err) {
					assert.NoError(t, c.Run(context.Background(), "true", nil, nil, nil))
					c.Close()
				}
			})
		}
	}
	wg.Wait()
	assert.EqualValues(t, 1, r.s.logins.Load(), "the first jump host is shared")
	assert.EqualValues(t, 1, mid.logins.Load(), "the second jump host is shared")
	c, err := d.Dial(t.Context(), "list")
	require.NoError(t, err)
	c.Close()
	assert.EqualValues(t, 1, mid.logins.Load())

	var cfg *remote.ConfigError
	for _, target := range []string{"a", "self"} {
		_, err = d.Dial(t.Context(), target)
		require.ErrorAs(t, err, &cfg)
		assert.ErrorContains(t, err, "circle")
	}

	// Each hop is verified.
	for i, name := range []string{"edge", "mid", "app"} {
		lines := append([]string{}, known...)
		lines[i] = "x " + text(endKey)
		o.KnownHosts = []string{file(t, lines...)}
		d2, err := remote.NewDialer(o)
		require.NoError(t, err)
		_, err = d2.Dial(t.Context(), "app")
		var unknown *remote.UnknownHostKeyError
		require.ErrorAs(t, err, &unknown)
		assert.Equal(t, name, unknown.Host)
		d2.Close()
	}
}

func TestJumpRedial(t *testing.T) {
	r := newRig(t)
	o := r.opt
	o.ConfigFile = file(t, "Host edge", "HostName 127.0.0.1", fmt.Sprint("Port ", r.s.port),
		"Host app", "HostName 127.0.0.1", fmt.Sprint("Port ", r.s.port), "ProxyJump edge")
	d, err := remote.NewDialer(o)
	require.NoError(t, err)
	c, err := d.Dial(t.Context(), "app")
	require.NoError(t, err)
	r.s.dropAll()
	<-c.Done()
	c.Close()
	c, err = d.Dial(t.Context(), "app")
	require.NoError(t, err, "the jump host is dialed again")
	require.NoError(t, d.Close())
	<-c.Done()
	c.Close()
	_, err = d.Dial(t.Context(), "app")
	assert.ErrorContains(t, err, "closed")
}

func TestFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the test's SFTP server speaks Unix paths and permissions")
	}
	r := newRig(t)
	c := r.dial(t)
	ctx := t.Context()
	dir := t.TempDir()
	name := filepath.Join(dir, "a b'c")

	big := bytes.Repeat([]byte("0123456789abcdef\n"), 100000)
	require.NoError(t, c.WriteFile(ctx, name, big, 0o640))
	got, err := c.ReadFile(ctx, name)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(big, got))
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode())

	err = c.WriteFile(ctx, name, []byte("x"), 0o600)
	require.ErrorIs(t, err, fs.ErrExist)
	assert.ErrorContains(t, err, name)
	got, _ = os.ReadFile(name)
	assert.Len(t, got, len(big), "the existing file is untouched")

	require.NoError(t, c.WriteFile(ctx, filepath.Join(dir, "empty"), nil, 0o600))
	got, err = c.ReadFile(ctx, filepath.Join(dir, "empty"))
	require.NoError(t, err)
	assert.Equal(t, []byte{}, got)

	_, err = c.ReadFile(ctx, filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = c.ReadDir(ctx, filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	err = c.WriteFile(ctx, filepath.Join(dir, "no", "dir"), nil, 0o600)
	require.ErrorIs(t, err, fs.ErrNotExist)

	list, err := c.ReadDir(ctx, dir)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, "a b'c", list[0].Name())
	assert.Equal(t, "empty", list[1].Name())

	cctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.ReadFile(cctx, name)
	require.ErrorIs(t, err, context.Canceled)

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			b, err := c.ReadFile(context.Background(), name)
			assert.NoError(t, err)
			assert.Len(t, b, len(big))
		})
	}
	wg.Wait()
}

func TestDialThroughHost(t *testing.T) {
	r := newRig(t)
	c := r.dial(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err := l.Accept()
		if err == nil {
			io.Copy(n, n)
			n.Close()
		}
	}()
	n, err := c.DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	fmt.Fprint(n, "echo")
	b := make([]byte, 4)
	_, err = io.ReadFull(n, b)
	require.NoError(t, err)
	assert.Equal(t, "echo", string(b))
	n.Close()
	<-done
	l.Close()
	_, err = c.DialContext(t.Context(), "tcp", l.Addr().String())
	assert.ErrorContains(t, err, "cannot connect from "+r.addr)
	var lost *remote.DisconnectedError
	assert.False(t, errors.As(err, &lost))
	_, err = c.DialContext(t.Context(), "udp", "127.0.0.1:1")
	assert.Error(t, err)
	_, err = c.DialContext(t.Context(), "tcp", "nonsense")
	assert.Error(t, err)
}
