package sim

import (
	"context"
	"net"

	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

// ports are what a world listens on: in memory, or loopback ports of this machine.
type ports struct {
	mem *memnet.Network // nil: loopback ports
}

func newPorts(memory bool) ports {
	if memory {
		return ports{&memnet.Network{}}
	}
	return ports{}
}

// listen opens a port that stands for one of the world.
func (p ports) listen() (net.Listener, error) {
	if p.mem != nil {
		return p.mem.Listen()
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// DialOperator connects an operator, who is outside, with an address that the
// operator's files name: the bastion or the firstbox, or the cloud's API.
func (p ports) DialOperator(ctx context.Context, _, addr string) (net.Conn, error) {
	if p.mem != nil {
		return p.mem.Dial(ctx, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}
