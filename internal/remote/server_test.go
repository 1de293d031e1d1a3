package remote_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an SSH server on loopback whose commands are functions.
type server struct {
	t        *testing.T
	l        net.Listener
	cfg      *ssh.ServerConfig
	commands map[string]func(ch ssh.Channel, gone <-chan struct{}) // nil or missing: refused
	any      func(ch ssh.Channel, cmd string)                      // gets every command instead, unless nil
	forward  func(addr string) (net.Conn, error)                   // what a connection through it leads to
	port     int

	logins atomic.Int32
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool
}

func newServer(t *testing.T, accept ssh.PublicKey, hostKeys ...ssh.Signer) *server {
	s := newMemServer(t, accept, hostKeys...)
	var err error
	s.l, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.port = s.l.Addr().(*net.TCPAddr).Port
	s.wg.Go(func() {
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			s.take(c)
		}
	})
	t.Cleanup(func() { s.l.Close(); s.dropAll(); s.wg.Wait() })
	return s
}

// newMemServer is a server without a socket, at 127.0.0.1:22 of a network of
// its own (dial): virtual time goes on while somebody waits for it.
func newMemServer(t *testing.T, accept ssh.PublicKey, hostKeys ...ssh.Signer) *server {
	s := &server{t: t, port: 22, conns: map[net.Conn]bool{}, commands: map[string]func(ssh.Channel, <-chan struct{}){},
		forward: func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }}
	s.cfg = &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if accept != nil && string(k.Marshal()) == string(accept.Marshal()) {
			return nil, nil
		}
		return nil, fmt.Errorf("refused")
	}}
	for _, k := range hostKeys {
		s.cfg.AddHostKey(k)
	}
	t.Cleanup(func() { s.dropAll(); s.wg.Wait() })
	return s
}

func (s *server) take(c net.Conn) {
	s.mu.Lock()
	s.conns[c] = true
	s.mu.Unlock()
	s.wg.Go(func() { s.serve(c) })
}

// dial connects with the server in memory.
func (s *server) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := memnet.Pipe(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22})
	s.take(theirs)
	return ours, nil
}

func (s *server) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

func (s *server) serve(raw net.Conn) {
	defer raw.Close()
	conn, chans, reqs, err := ssh.NewServerConn(raw, s.cfg)
	if err != nil {
		return
	}
	s.logins.Add(1)
	s.wg.Go(func() {
		for r := range reqs {
			r.Reply(false, nil)
		}
	})
	for n := range chans {
		switch n.ChannelType() {
		case "session":
			ch, reqs, err := n.Accept()
			if err != nil {
				continue
			}
			s.wg.Go(func() { s.session(ch, reqs) })
		case "direct-tcpip":
			var m struct {
				Addr  string
				Port  uint32
				From  string
				FPort uint32
			}
			ssh.Unmarshal(n.ExtraData(), &m)
			to, err := s.forward(net.JoinHostPort(m.Addr, fmt.Sprint(m.Port)))
			if err != nil {
				n.Reject(ssh.ConnectionFailed, err.Error())
				continue
			}
			ch, reqs, err := n.Accept()
			if err != nil {
				to.Close()
				continue
			}
			go ssh.DiscardRequests(reqs)
			s.wg.Go(func() { io.Copy(to, ch); to.(interface{ CloseWrite() error }).CloseWrite() })
			s.wg.Go(func() { io.Copy(ch, to); ch.Close(); to.Close() })
		default:
			n.Reject(ssh.UnknownChannelType, "no")
		}
	}
	conn.Wait()
}

func (s *server) session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	gone := make(chan struct{})
	for r := range reqs {
		var m struct{ V string }
		ssh.Unmarshal(r.Payload, &m)
		switch {
		case r.Type == "exec" && s.any != nil:
			r.Reply(true, nil)
			s.wg.Go(func() { s.any(ch, m.V); ch.Close() })
		case r.Type == "exec" && s.commands[m.V] != nil:
			r.Reply(true, nil)
			f := s.commands[m.V]
			s.wg.Go(func() { f(ch, gone); ch.Close() })
		case r.Type == "subsystem" && m.V == "sftp":
			r.Reply(true, nil)
			s.wg.Go(func() {
				srv, err := sftp.NewServer(ch)
				if err == nil {
					srv.Serve()
				}
				ch.Close()
			})
		default:
			r.Reply(false, nil)
		}
	}
	close(gone)
}

func exitStatus(ch ssh.Channel, n int) {
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{uint32(n)}))
}

func edKey(t *testing.T) ssh.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	s, err := ssh.NewSignerFromKey(k)
	require.NoError(t, err)
	return s
}

func ecKey(t *testing.T) ssh.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s, err := ssh.NewSignerFromKey(k)
	require.NoError(t, err)
	return s
}

func rsaKey(t *testing.T) ssh.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s, err := ssh.NewSignerFromKey(k)
	require.NoError(t, err)
	return s
}

// keyFile writes a new private key and returns its file and its public half.
func keyFile(t testing.TB, passphrase string) (string, ssh.PublicKey) {
	pub, k, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(k, "test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(k, "test", []byte(passphrase))
	}
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(block), 0o600))
	p, err := ssh.NewPublicKey(pub)
	require.NoError(t, err)
	return name, p
}

func copyFile(t testing.TB, from, to string, perm os.FileMode) {
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, perm))
}

func marshal(k ssh.PublicKey) []byte { return ssh.MarshalAuthorizedKey(k) }

// edKeyFile writes a new private key to name and returns the public half as
// "TYPE BASE64".
func edKeyFile(t testing.TB, name string) string {
	id, pub := keyFile(t, "")
	copyFile(t, id, name, 0o600)
	return strings.TrimSpace(string(marshal(pub)))
}

func text(k ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

func file(t *testing.T, lines ...string) string {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return name
}

// rig is a server, a key it accepts and options that reach it.
type rig struct {
	s    *server
	host ssh.Signer
	pub  ssh.PublicKey // of the login key
	opt  remote.Options
	addr string // 127.0.0.1:port
}

func newRig(t *testing.T) *rig {
	return newRigOf(t, newServer)
}

// newMemRig is a rig in memory, for virtual time.
func newMemRig(t *testing.T) *rig {
	r := newRigOf(t, newMemServer)
	r.opt.ConfigFile, r.opt.NetDial = "none", r.s.dial
	return r
}

func newRigOf(t *testing.T, newServer func(*testing.T, ssh.PublicKey, ...ssh.Signer) *server) *rig {
	id, pub := keyFile(t, "")
	host := edKey(t)
	s := newServer(t, pub, host)
	return &rig{s: s, host: host, pub: pub, addr: fmt.Sprintf("127.0.0.1:%d", s.port), opt: remote.Options{
		User: "ops", Identities: []string{id}, ConnectTimeout: time.Minute,
		KnownHosts: []string{file(t, "127.0.0.1 "+text(host))},
	}}
}

func (r *rig) dial(t *testing.T) *remote.Conn {
	d, err := remote.NewDialer(r.opt)
	require.NoError(t, err)
	c, err := d.Dial(context.Background(), r.addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); d.Close() })
	return c
}
