// Package memnet is a network in memory: listeners and connections that need
// no socket. A goroutine that waits for one of them waits durably in the sense
// of testing/synctest, so that a simulated world runs in virtual time.
//
// # Guarantees
//
//  1. Bytes arrive complete and in order, and a writer waits while the reader
//     is [window] bytes behind (TestStream).
//  2. CloseWrite ends one direction, Close both; a reader gets what was written
//     before (TestHalfClose).
//  3. Deadlines hold for calls under way and later ones, and a new deadline
//     takes a past one back (TestDeadlines).
//  4. Dialing where nobody listens is refused, also after the listener has
//     closed (TestRefused).
package memnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes a writer may be ahead of its reader.
const window = 64 << 10

// A Network holds listeners. The zero value is one without any; it is safe
// for concurrent use.
type Network struct {
	mu        sync.Mutex
	last      int
	listeners map[string]*listener
}

// Listen opens a port of its own, from 1 up, on 127.0.0.1 of this network.
func (n *Network) Listen() (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == 65535 {
		return nil, errors.New("memnet: no port is left")
	}
	n.last++
	l := &listener{net: n, addr: loopback(n.last), queue: make(chan net.Conn), done: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	n.listeners[l.addr.String()] = l
	return l, nil
}

// Dial connects to a listener's address. Nobody listening there is
// syscall.ECONNREFUSED.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	if l == nil {
		return nil, refused
	}
	refused.Addr = l.addr
	near, far := Pipe(loopback(0), l.addr)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: ctx.Err()}
	}
}

func loopback(port int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }

type listener struct {
	net   *Network
	addr  *net.TCPAddr
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr.String())
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// Pipe returns the two ends of a connection between two addresses.
func Pipe(a, b net.Addr) (net.Conn, net.Conn) {
	ab, ba := newHalf(), newHalf()
	return &conn{in: ba, out: ab, local: a, remote: b}, &conn{in: ab, out: ba, local: b, remote: a}
}

// conn is one end; its halves are shared with the other end, crosswise.
type conn struct {
	in, out       *half
	local, remote net.Addr
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }
func (c *conn) CloseWrite() error           { return c.out.end() }

func (c *conn) Close() error {
	_ = c.out.end()
	c.out.leave(&c.out.writer)
	c.in.leave(&c.in.reader)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.deadline(&c.in.reader, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.deadline(&c.out.writer, t) }

// half carries bytes one way.
type half struct {
	mu     sync.Mutex
	moved  *sync.Cond // something below has changed
	buf    []byte     // what was written and not read
	room   []byte     // where buf began, to be used again when it is empty
	ended  bool       // no more is written
	reader side
	writer side
}

// side is what one end has said of a half.
type side struct {
	gone  bool
	late  bool // the deadline has passed
	timer *time.Timer
	set   int // counts deadlines: a timer of an earlier one says nothing
}

func newHalf() *half {
	h := &half{}
	h.moved = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.reader.gone:
			return 0, io.ErrClosedPipe
		case h.reader.late:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			if h.buf = h.buf[n:]; len(h.buf) == 0 {
				h.buf = h.room[:0]
			}
			h.moved.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writer.gone || h.ended:
			return n, io.ErrClosedPipe
		case h.reader.gone:
			return n, os.NewSyscallError("write", syscall.EPIPE)
		case h.writer.late:
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		if room := window - len(h.buf); room > 0 {
			k := min(room, len(p))
			if len(h.buf) == 0 {
				h.room = append(h.room[:0], p[:k]...)
				h.buf = h.room
			} else {
				h.buf = append(h.buf, p[:k]...)
			}
			n, p = n+k, p[k:]
			h.moved.Broadcast()
			continue
		}
		h.moved.Wait()
	}
}

// end says that nothing more is written.
func (h *half) end() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.moved.Broadcast()
	return nil
}

// leave says that one end is gone.
func (h *half) leave(s *side) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.gone = true
	s.set++
	if s.timer != nil {
		s.timer.Stop()
	}
	h.moved.Broadcast()
}

func (h *half) deadline(s *side, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.gone {
		return fmt.Errorf("memnet: set a deadline: %w", net.ErrClosed)
	}
	s.set++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.late = false
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		s.late = true
	default:
		set := s.set
		s.timer = time.AfterFunc(left, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if s.set == set {
				s.late = true
				h.moved.Broadcast()
			}
		})
	}
	h.moved.Broadcast()
	return nil
}
