package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// maxSessions is below sshd's default MaxSessions of 10; one more is held by
// an idle SFTP client.
const maxSessions = 8

// A Conn is one connection to one host.
type Conn struct {
	target string
	hop    *hop
	raw    net.Conn
	client *ssh.Client
	key    ssh.PublicKey
	slots  chan struct{} // one token for each open session, and for each the server does not allow

	openssh bool // the server runs leash
	sudo    *sudo
	auditor func(AuditRecord)

	asking  chan struct{} // one token: held while a question is unanswered
	done    chan struct{} // closed when the connection has ended
	waitErr error         // why; set before done is closed
	closing sync.Once
	tasks   tasks // goroutines that end with the connection

	mu   sync.Mutex
	idle *sftp.Client // kept for the next file
	lent int          // slots taken away by MaxSessions
}

func newConn(target string, h *hop, raw net.Conn, c ssh.Conn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request, key ssh.PublicKey) *Conn {
	conn := &Conn{
		target: target, hop: h, raw: raw, key: key,
		client: ssh.NewClient(c, chans, reqs),
		slots:  make(chan struct{}, maxSessions),
		asking: make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	conn.tasks.spawn(func() {
		conn.waitErr = conn.client.Wait()
		close(conn.done)
	})
	conn.tasks.spawn(func() {
		conn.keepAlive(h.alive, h.aliveCount)
	})
	return conn
}

// keepAlive closes the raw connection when the peer has not answered count
// times. Only that ends calls that wait for a dead peer.
func (c *Conn) keepAlive(every time.Duration, count int) {
	t := time.NewTicker(every)
	defer t.Stop()
	answer := make(chan struct{}, 1)
	waiting, missed := false, 0
	for {
		select {
		case <-c.done:
			return
		case <-answer:
			waiting, missed = false, 0
		case <-t.C:
			if waiting {
				if missed++; missed >= count {
					c.raw.Close()
					return
				}
				continue
			}
			waiting = true
			c.tasks.spawn(func() {
				if c.question() == nil {
					answer <- struct{}{}
				}
			})
		}
	}
}

// question waits for any answer of the peer. A refusal is one; an error means
// that the connection has ended, which done says as well. One is asked at a
// time: x/crypto would let the second wait for a mutex, which stops virtual
// time.
func (c *Conn) question() error {
	c.asking <- struct{}{}
	defer func() { <-c.asking }()
	_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
	return err
}

// alive asks the peer whether it is there.
func (c *Conn) alive(ctx context.Context, limit time.Duration) bool {
	answer := make(chan error, 1)
	c.tasks.spawn(func() {
		answer <- c.question()
	})
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-answer:
		return err == nil
	case <-t.C:
	case <-c.done:
	case <-ctx.Done():
	}
	return false
}

// Target returns what was given to Dial.
func (c *Conn) Target() string { return c.target }

// HostKey returns the host's key as "TYPE BASE64".
func (c *Conn) HostKey() string { return keyText(c.key) }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits until nothing of it is left.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		// The raw connection first: a polite goodbye could block on a peer
		// that does not read.
		c.raw.Close()
		c.client.Close()
	})
	<-c.done
	c.tasks.wait()
	return nil
}

// acquire takes a session slot.
func (c *Conn) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.lost("open a session", nil)
	}
}

func (c *Conn) release() { <-c.slots }

// lost makes the error for a connection that ended during what.
func (c *Conn) lost(what string, err error) error {
	select {
	case <-c.done:
		if c.waitErr != nil {
			err = c.waitErr
		}
	default:
	}
	if err == nil {
		err = errors.New("the connection is closed")
	}
	return &DisconnectedError{Host: c.target, Cmd: what, Err: err}
}

// DialContext makes a TCP connection from the host.
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("cannot connect from %s to %s: network %q is not supported, only tcp", c.target, addr, network)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("cannot connect from %s: %w", c.target, err)
	}
	n, err := c.client.DialContext(ctx, network, addr)
	if err == nil {
		return n, nil
	}
	var refused *ssh.OpenChannelError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("cannot connect from %s to %s: %w", c.target, addr, ctx.Err())
	case errors.As(err, &refused):
		return nil, fmt.Errorf("cannot connect from %s to %s: %w", c.target, addr, err)
	}
	return nil, c.lost("connect to "+addr, err)
}
