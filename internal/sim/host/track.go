package host

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// LocalPorts gives out the ports from which hosts connect, as Linux does: those
// of the machine that simulates would be wrong in a table, since all hosts share
// them. The zero value is ready; it may be used by several goroutines.
type LocalPorts struct{ last atomic.Uint32 }

// Next gives a port of 32768 to 60999.
func (p *LocalPorts) Next() int { return 32768 + int(p.last.Add(1)%28232) }

// TrackBoth enters a connection into the tables of the hosts at its ends until
// what it returns is closed. Either host may be nil: it is not of the world. at
// is the connection as from sees it.
func TrackBoth(c net.Conn, from, to *Host, at Conn) net.Conn {
	t := &trackedConn{Conn: c}
	if to != nil {
		t.done = append(t.done, to.Track(Conn{LocalIP: at.RemoteIP, LocalPort: at.RemotePort, RemoteIP: at.LocalIP, RemotePort: at.LocalPort}))
	}
	if from != nil {
		t.done = append(t.done, from.Track(at))
	}
	return t
}

// trackedConn leaves the hosts' tables when it is closed.
type trackedConn struct {
	net.Conn
	once sync.Once
	done []func()
}

func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		for _, f := range c.done {
			f()
		}
	})
	return err
}

// CloseWrite ends the data of this side and leaves the other open.
func (c *trackedConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Close()
}

// DialError is why the address to was not reached, as package net says it: an
// Errno is one of connect(2).
func DialError(to string, err error) error {
	if no, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError("connect", no)
	}
	return fmt.Errorf("dial %s: %w", to, err)
}
