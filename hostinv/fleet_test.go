package hostinv_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// fleetHost is a host in memory. It answers the collector with one section
// that names it, and may fail in one of several ways.
type fleetHost struct {
	name   string
	after  time.Duration
	fault  string
	closed *atomic.Int32
}

func (h *fleetHost) Run(ctx context.Context, _ string, stdin io.Reader, stdout, _ io.Writer) error {
	select {
	case <-time.After(h.after):
	case <-ctx.Done():
		return ctx.Err()
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	return answer(stdout, begin(stdout, string(text), h.fault), h.name, h.fault)
}

func (h *fleetHost) Close() error {
	h.closed.Add(1)
	return nil
}

// hostUUID is the host's part of the mark.
const hostUUID = "0b2f7f5e-6f0e-4a5e-9c53-2a1c2d8e5f10"

// begin reads the mark of a script and starts the stream; it returns the mark
// of the sections.
func begin(w io.Writer, script, fault string) (mark string) {
	mark = regexp.MustCompile("[0-9a-f]{32}").FindString(script) // however it is quoted
	if fault == "" || fault == "cut" {
		fmt.Fprintf(w, "\n%s K %s\n", mark, hostUUID)
	}
	return mark + hostUUID
}

// answer writes the rest of what the collector's script would on a host of
// this name.
func answer(w io.Writer, mark, name, fault string) error {
	switch fault {
	case "garbage":
		_, err := io.WriteString(w, strings.Repeat("\x00\xff garbage\n", 1000))
		return err
	case "flood":
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return err
			}
		}
	case "mute":
		return nil
	}
	section := func(name, item, data string) {
		fmt.Fprintf(w, "\n%s B %s\n\n%s I %s\n%s\n\n%s R 0\n\n%s E %s\n", mark, name, mark, item, data, mark, mark, name)
	}
	section("host", "hostname", name)
	if fault == "cut" {
		return &hostinv.DisconnectedError{Host: name, Cmd: "/bin/sh -s", Err: io.ErrUnexpectedEOF}
	}
	fmt.Fprintf(w, "\n%s Z\n", mark)
	return nil
}

// fleetOf makes n hosts and the function that connects to them.
func fleetOf(n int, host func(i int) (after time.Duration, fault string)) (hosts []hostinv.FleetHost,
	dial func(context.Context, hostinv.FleetHost) (*fleetHost, error), closed *atomic.Int32) {
	closed = &atomic.Int32{}
	byName := map[string]*fleetHost{}
	for i := range n {
		h := &fleetHost{name: fmt.Sprintf("web-%04d", i), closed: closed}
		if host != nil {
			h.after, h.fault = host(i)
		}
		byName["172.31.0.1:"+fmt.Sprint(i)] = h
		hosts = append(hosts, hostinv.FleetHost{Name: h.name, Target: "172.31.0.1:" + fmt.Sprint(i)})
	}
	return hosts, func(ctx context.Context, host hostinv.FleetHost) (*fleetHost, error) {
		target := host.Address()
		h := byName[target]
		if h.fault == "refused" {
			return nil, &hostinv.DialError{Host: target, Addr: target, Err: errors.New("connection refused")}
		}
		return h, ctx.Err()
	}, closed
}

// TestFleet: every host has a result, in the order given, and one host's
// fault is that host's error alone.
func TestFleet(t *testing.T) {
	faults := []string{"", "refused", "", "garbage", "flood", "", "mute", "cut", ""}
	hosts, dial, closed := fleetOf(200, func(i int) (time.Duration, string) {
		return time.Duration(i*7919%13) * time.Millisecond, faults[i%len(faults)]
	})
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		seen := map[string]int{}
		f := hostinv.CollectFleet(t.Context(), hosts, func(ctx context.Context, h hostinv.FleetHost) (*fleetHost, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			time.Sleep(time.Millisecond) // virtual
			return dial(ctx, h)
		}, hostinv.FleetOptions{Forks: 7, Collect: hostinv.Options{MaxOutput: 1 << 20}, Each: func(r hostinv.FleetResult) error {
			seen[r.Host.Name]++
			assert.Equal(t, len(seen), r.Done, "results are told one at a time")
			assert.Equal(t, 200, r.Total)
			assert.Equal(t, r.Err == nil, r.Inventory != nil)
			if r.Inventory != nil {
				assert.Equal(t, r.Host.Name, r.Inventory.Hostname)
			}
			if r.Host.Name == "web-0000" {
				return errors.New("disk full")
			}
			return nil
		}})
		assert.LessOrEqual(t, most.Load(), int32(7))
		require.Len(t, f.Results, 200)
		assert.Len(t, seen, 200)
		for i, r := range f.Results {
			assert.Equal(t, hosts[i], r.Host)
			assert.Nil(t, r.Inventory, "it was given away")
			switch faults[i%len(faults)] {
			case "":
				if i == 0 {
					assert.EqualError(t, r.Err, "web-0000: the inventory could not be kept: disk full")
					continue
				}
				assert.NoError(t, r.Err)
				assert.Contains(t, r.Incomplete, "kernel: truncated")
			case "cut":
				var lost *hostinv.DisconnectedError
				assert.ErrorAs(t, r.Err, &lost)
			case "refused":
				var down *hostinv.DialError
				assert.ErrorAs(t, r.Err, &down)
			}
			if r.Err != nil {
				assert.Contains(t, r.Err.Error(), r.Host.Name)
				assert.Less(t, len(r.Err.Error()), 600, "one clear error")
			}
		}
		assert.Len(t, f.Failed(), strings.Count(strings.Join(hostFaults(200, faults), ""), "x")+1)
		assert.ErrorContains(t, f.Err(), "web-0001")
	})
	refused := 0
	for i := range hosts {
		if faults[i%len(faults)] == "refused" {
			refused++
		}
	}
	assert.Equal(t, int32(200-refused), closed.Load(), "every connection is closed")
}

func hostFaults(n int, faults []string) (out []string) {
	for i := range n {
		if faults[i%len(faults)] != "" {
			out = append(out, "x")
		}
	}
	return out
}

// TestFleetTimeout: a host that does not end is given up in its own time.
func TestFleetTimeout(t *testing.T) {
	hosts, dial, _ := fleetOf(4, func(i int) (time.Duration, string) {
		return []time.Duration{0, time.Hour, time.Minute, time.Hour}[i], ""
	})
	synctest.Test(t, func(t *testing.T) {
		f := hostinv.CollectFleet(t.Context(), hosts, dial, hostinv.FleetOptions{Forks: 2, Timeout: 2 * time.Minute})
		assert.NotNil(t, f.Results[0].Inventory)
		assert.NotNil(t, f.Results[2].Inventory)
		for _, i := range []int{1, 3} {
			assert.ErrorContains(t, f.Results[i].Err, "not done within 2m0s")
			assert.ErrorIs(t, f.Results[i].Err, context.DeadlineExceeded)
			assert.Equal(t, 2*time.Minute, f.Results[i].Took)
		}
		assert.Equal(t, 3*time.Minute, f.Took)
	})
	assert.Empty(t, hostinv.CollectFleet(t.Context(), nil, dial, hostinv.FleetOptions{}).Results)
}

// TestFleetCancel: after a cancel every host has a result, at once, and
// nothing runs on.
func TestFleetCancel(t *testing.T) {
	hosts, dial, closed := fleetOf(1000, func(i int) (time.Duration, string) {
		if i < 100 {
			return 0, ""
		}
		return time.Hour, ""
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		f := hostinv.CollectFleet(ctx, hosts, dial, hostinv.FleetOptions{})
		assert.Equal(t, time.Second, f.Took, "nothing is waited for")
		collected, stopped, never := 0, 0, 0
		for _, r := range f.Results {
			switch {
			case r.Err == nil:
				collected++
				continue
			case errors.Is(r.Err, hostinv.ErrNotBegun):
				never++
			default:
				stopped++
			}
			assert.ErrorIs(t, r.Err, context.Canceled)
		}
		assert.Equal(t, []int{100, 50, 850}, []int{collected, stopped, never})
		assert.Equal(t, int32(150), closed.Load())
	})
}

// sshFleet is one SSH server in this process that is many hosts: the login
// name is the host's.
type sshFleet struct {
	key     ssh.PublicKey
	streams func(name, script string, w io.Writer) error
	dialled atomic.Int32
	cfg     *ssh.ServerConfig
	wg      sync.WaitGroup
}

func newSSHFleet(t testing.TB, stream func(name, script string, w io.Writer) error) *sshFleet {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	s := &sshFleet{key: signer.PublicKey(), streams: stream, cfg: &ssh.ServerConfig{
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}}
	s.cfg.AddHostKey(signer)
	t.Cleanup(s.wg.Wait)
	return s
}

// dial is a network in memory.
func (s *sshFleet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.dialled.Add(1)
	ours, theirs := memnet.Pipe(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)})
	s.wg.Go(func() { s.serve(theirs) })
	return ours, ctx.Err()
}

func (s *sshFleet) serve(raw net.Conn) {
	defer raw.Close()
	conn, chans, reqs, err := ssh.NewServerConn(raw, s.cfg)
	if err != nil {
		return
	}
	s.wg.Go(func() { ssh.DiscardRequests(reqs) })
	for n := range chans {
		ch, reqs, err := n.Accept()
		if err != nil {
			continue
		}
		s.wg.Go(func() {
			defer ch.Close()
			var script string
			for r := range reqs {
				r.Reply(r.Type == "exec", nil)
				if r.Type == "exec" {
					script = string(r.Payload) // a Conn takes it as the command
					break
				}
			}
			s.wg.Go(func() { ssh.DiscardRequests(reqs) })
			if !strings.Contains(script, "mark=") {
				data, _ := io.ReadAll(ch)
				script = string(data)
			}
			if s.streams(conn.User(), script, ch) == nil {
				ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{}))
			}
		})
	}
}

// memory is what this process holds of the system's, in bytes.
func memory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// TestFleetSSH: a thousand hosts over SSH, each with an inventory of about
// 350 KB, need no more than 150 MB, the simulated hosts included; none is lost;
// and a cancel in the middle leaves nothing running.
func TestFleetSSH(t *testing.T) {
	n := 60
	if testenv.RunSlow() {
		n = 1000
	}
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	id, _ := newKey(t, "id")
	var busy strings.Builder // what a host of two hundred processes sends beside its name
	for i := range 3000 {
		fmt.Fprintf(&busy, "%4d: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 %d 1 0 100 0 0 10 0\n", i, 10000+i, 50000+i)
	}
	s := newSSHFleet(t, func(name, script string, w io.Writer) error {
		mark := begin(w, script, "")
		fmt.Fprintf(w, "\n%s B listeners\n\n%s I tcp\n", mark, mark)
		io.WriteString(w, "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"+busy.String())
		fmt.Fprintf(w, "\n%s R 0\n\n%s E listeners\n", mark, mark)
		return answer(w, mark, name, "")
	})
	d, err := hostinv.NewDialer(hostinv.SSHConfig{Identities: []string{id}, KnownHosts: []string{}, NetDial: s.dial})
	require.NoError(t, err)
	defer d.Close()
	var hosts []hostinv.FleetHost
	for i := range n {
		hosts = append(hosts, hostinv.FleetHost{Name: fmt.Sprintf("web-%04d", i), Target: fmt.Sprintf("web-%04d@172.31.0.1", i)})
	}
	require.NoError(t, d.Pin("172.31.0.1", []string{string(ssh.MarshalAuthorizedKey(s.key))}))

	dial := func(ctx context.Context, h hostinv.FleetHost) (*hostinv.Conn, error) { return d.Dial(ctx, h.Address()) }
	var most uint64
	listeners := 0
	runtime.GC()
	f := hostinv.CollectFleet(t.Context(), hosts, dial, hostinv.FleetOptions{Each: func(r hostinv.FleetResult) error {
		if r.Inventory == nil {
			return nil
		}
		assert.Equal(t, r.Host.Name, r.Inventory.Hostname, "one host's result is another's")
		listeners += len(r.Inventory.Listeners)
		most = max(most, memory())
		return nil
	}})
	require.NoError(t, f.Err())
	assert.Equal(t, 3000*n, listeners, "nothing is lost")
	t.Logf("%d hosts: %v, at most %d MB", n, f.Took.Round(time.Millisecond), most>>20)
	assert.LessOrEqual(t, most>>20, uint64(150))

	// And again, with an end in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	var cancelled time.Time
	f = hostinv.CollectFleet(ctx, hosts, dial, hostinv.FleetOptions{Forks: 20, Each: func(r hostinv.FleetResult) error {
		if r.Done == n/3 {
			cancelled = time.Now()
			cancel()
		}
		return nil
	}})
	t.Logf("cancelled: back after %v", time.Since(cancelled).Round(time.Millisecond))
	require.Len(t, f.Results, n)
	ok := 0
	for _, r := range f.Results {
		if r.Err == nil {
			ok++
		} else {
			assert.ErrorIs(t, r.Err, context.Canceled)
		}
	}
	assert.GreaterOrEqual(t, ok, n/3)
	assert.Less(t, ok, n)
}
