package remote

import (
	"net"
	"syscall"
)

// quickAck makes the kernel acknowledge at once. OpenSSH up to 9.2 waits with
// its second small packet for the acknowledgement of the first (Nagle), and
// the kernel delays that by 40 ms where it sees no data to send along. The
// option wears off by itself, so it is set again before each read.
func quickAck(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	return &quickConn{TCPConn: t, raw: raw}
}

type quickConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (c *quickConn) Read(p []byte) (int, error) {
	// A kernel without the option is merely slower.
	_ = c.raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
	return c.TCPConn.Read(p)
}
