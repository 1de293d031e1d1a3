package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Addresses of the lab's own end of the network. Requests of a balancer and
// its health checks come from the range that the cloud uses.
const (
	Gateway       = "172.31.0.1"
	BalancerFrom  = "100.64.0.10"
	HealthFrom    = "100.64.0.1"
	ClientsFrom   = "203.0.113.10"
	bootPatience  = 2 * time.Minute // of a machine with much else to do
	statusRestart = 133             // of systemd-nspawn: start me again
)

// A Lab is a network of hosts. Its methods are safe for concurrent use.
type Lab struct {
	t     *testing.T
	dir   string
	name  string     // of its control groups
	image string     // the layer below the disks
	wires sync.Mutex // ip(8) makes its directory of namespaces once, and badly at twice the same time

	// PoweredOff is called with the instance ID of a host that switched itself
	// off. It may be nil; set it before the first host starts.
	PoweredOff func(id string)

	mu        sync.Mutex
	hosts     map[string]*Host    // by instance ID
	snapshots map[string]snapshot // by directory
	names     int                 // network names given
	closed    bool
}

// New makes the network. It works inside [Isolated] only, and closes the lab
// when the test ends.
func New(t *testing.T) *Lab {
	t.Helper()
	if !Inside() {
		t.Fatal("internal error: a lab outside of Isolated")
	}
	l := &Lab{t: t, dir: os.Getenv(inside), hosts: map[string]*Host{}, snapshots: map[string]snapshot{}}
	l.name, l.image = filepath.Base(l.dir), filepath.Join(l.dir, "image")
	var err error
	if err := makeImage(l.image); err != nil {
		t.Fatal(err)
	}
	err = ip(
		"link set lo up",
		"link add lab0 address 02:00:00:00:00:01 type bridge",
		"addr add "+Gateway+"/24 dev lab0",
		"addr add "+BalancerFrom+"/32 dev lab0",
		"addr add "+HealthFrom+"/32 dev lab0",
		"addr add "+ClientsFrom+"/32 dev lab0",
		"link set lab0 up",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.logs())
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// ip runs commands of ip(8) in one process.
func ip(lines ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Dial connects from one address of the lab's own to HOST:PORT, over real
// TCP. An empty from is the gateway.
func (l *Lab) Dial(ctx context.Context, from, to string) (net.Conn, error) {
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return d.DialContext(ctx, "tcp", to)
}

// Host is the host of an instance, nil when there is none.
func (l *Lab) Host(id string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[id]
}

// At is the host with an address, nil when there is none.
func (l *Lab) At(addr string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.Addr == addr {
			return h
		}
	}
	return nil
}

// Dir makes a directory of the lab's. It is gone after the test.
func (l *Lab) Dir(name string) (string, error) {
	dir := filepath.Join(l.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

func (l *Lab) all() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Host
	for _, h := range l.hosts {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *Host) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// close cuts the power of every host.
func (l *Lab) close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	var errs []error
	for _, h := range l.all() {
		errs = append(errs, h.Cut(), h.unmount())
	}
	return errors.Join(errs...)
}

// complain fails the test for something that happened aside.
func (l *Lab) complain(err error) { l.t.Error(err) }

// logs is what the hosts have to say, for a test that failed.
func (l *Lab) logs() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var b strings.Builder
	for _, h := range l.all() {
		fmt.Fprintf(&b, "console of %s (%s):\n%s\n", h.Name, h.ID, h.Console())
		h.mu.Lock()
		up := h.boot != nil && h.boot.up
		h.mu.Unlock()
		if up {
			_, journal, err := h.Run(ctx, "systemctl --no-pager --failed --legend=no; journalctl --no-pager -p notice -n 60")
			fmt.Fprintf(&b, "journal of %s (%s):\n%s\n%v\n", h.Name, h.ID, journal, err)
		}
	}
	return b.String()
}

// poll asks ready until it says yes, up to the end of ctx.
func poll(ctx context.Context, what string, ready func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
