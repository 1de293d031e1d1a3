package sim

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyPair is an SSH key of the world.
type keyPair struct {
	signer     ssh.Signer
	private    []byte // PEM, as ssh-keygen writes it
	authorized string // a line of authorized_keys
}

func newKeyPair(comment string) (keyPair, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("cannot make the key of %s: %w", comment, err)
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return keyPair{}, fmt.Errorf("cannot make the key of %s: %w", comment, err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return keyPair{}, fmt.Errorf("cannot make the key of %s: %w", comment, err)
	}
	return keyPair{signer, pem.EncodeToMemory(block), string(ssh.MarshalAuthorizedKey(signer.PublicKey()))}, nil
}

// bastion is an SSH server on a loopback port whose only service is
// direct-tcpip into the world: the way in for operators.
type bastion struct {
	w    *World
	key  keyPair
	conf *ssh.ServerConfig
	ln   net.Listener
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func newBastion(w *World) (*bastion, error) {
	key, err := newKeyPair("bastion")
	if err != nil {
		return nil, err
	}
	b := &bastion{w: w, key: key, conns: map[net.Conn]struct{}{}}
	operator := w.key.signer.PublicKey().Marshal()
	b.conf = &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(k.Marshal(), operator) {
				return nil, errors.New("unknown key")
			}
			return &ssh.Permissions{}, nil
		},
	}
	b.conf.AddHostKey(key.signer)
	if b.ln, err = w.listen(); err != nil {
		return nil, fmt.Errorf("cannot listen for the bastion: %w", err)
	}
	b.wg.Go(b.accept)
	return b, nil
}

func (b *bastion) accept() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			_ = c.Close()
			return
		}
		b.conns[c] = struct{}{}
		b.wg.Go(func() {
			b.serve(c)
			_ = c.Close()
			b.mu.Lock()
			delete(b.conns, c)
			b.mu.Unlock()
		})
		b.mu.Unlock()
	}
}

func (b *bastion) close() {
	_ = b.ln.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// serve is one connection of an operator.
func (b *bastion) serve(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	conn, channels, requests, err := ssh.NewServerConn(c, b.conf)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(b.w.ctx)
	wg.Go(func() {
		// Keepalives want an answer, if only a refusal.
		ssh.DiscardRequests(requests)
	})
	for ch := range channels {
		wg.Go(func() { b.channel(ctx, ch) })
	}
	cancel()
	_ = conn.Close()
	wg.Wait()
}

// piece is what is carried at once. Connections are many and short: a buffer of
// the usual size for each would be most of what a world allocates.
const piece = 4 << 10

// channel carries one direct-tcpip channel.
func (b *bastion) channel(ctx context.Context, nc ssh.NewChannel) {
	if nc.ChannelType() != "direct-tcpip" {
		_ = nc.Reject(ssh.Prohibited, "this host only forwards connections")
		return
	}
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &to); err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	far, err := b.w.Dial(ctx, bastionAddr, net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10)))
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	near, requests, err := nc.Accept()
	if err != nil {
		_ = far.Close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(requests) })
	wg.Go(func() {
		_, _ = io.CopyBuffer(near, far, make([]byte, piece))
		_ = near.CloseWrite()
		_ = near.Close() // the far side is gone: nobody reads what would still come
	})
	_, err = io.CopyBuffer(far, near, make([]byte, piece))
	if cw, ok := far.(interface{ CloseWrite() error }); !ok || err != nil || cw.CloseWrite() != nil {
		_ = far.Close()
	}
	wg.Wait()
	_ = far.Close()
}

// port is the loopback port that operators connect to.
func (b *bastion) port() int {
	a, _ := b.ln.Addr().(*net.TCPAddr)
	return a.Port
}
