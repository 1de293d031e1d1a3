package remote

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// dialCommand makes the connection to a hop through its ProxyCommand, which
// speaks on its standard input and output.
func dialCommand(h *hop) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		line := strings.NewReplacer("%%", "%", "%h", h.host, "%p", strconv.Itoa(h.port), "%r", h.user, "%n", h.alias).Replace(h.proxyCommand)
		near, far := net.Pipe()
		cmd := exec.Command("/bin/sh", "-c", "exec "+line)
		cmd.Stdin, cmd.Stdout = far, far
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			near.Close()
			far.Close()
			return nil, fmt.Errorf("cannot start its ProxyCommand: %w", err)
		}
		c := &commandConn{Conn: near, cmd: cmd, done: make(chan struct{})}
		go func() {
			defer close(c.done)
			_ = cmd.Wait() // its end shows as the end of the connection
			far.Close()
		}()
		return c, nil
	}
}

// commandConn is the near end of the pipe to a ProxyCommand.
type commandConn struct {
	net.Conn
	cmd  *exec.Cmd
	done chan struct{}
}

func (c *commandConn) Close() error {
	err := c.Conn.Close()
	_ = c.cmd.Process.Kill() // it may be gone already
	<-c.done
	return err
}
