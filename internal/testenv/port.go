package testenv

import (
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
)

// FreePort returns a port for a program that cannot be given a listener: one
// that nobody holds now at an address ("127.0.0.1", "" = all) of a network
// ("tcp", "udp6"). It is below those that systems choose by themselves for
// listeners on port 0 and for connections (32768 and up on Linux, 49152
// elsewhere): no other test gets it by chance before the program listens.
func FreePort(t testing.TB, network, host string) int {
	t.Helper()
	var err error
	for range 100 {
		port := 10_000 + rand.IntN(22_000)
		at := net.JoinHostPort(host, strconv.Itoa(port))
		var held io.Closer
		if strings.HasPrefix(network, "udp") {
			held, err = net.ListenPacket(network, at)
		} else {
			held, err = net.Listen(network, at)
		}
		if err != nil {
			continue
		}
		if err = held.Close(); err == nil {
			return port
		}
	}
	t.Fatalf("no %s port is free at %q: %v", network, host, err)
	return 0
}
