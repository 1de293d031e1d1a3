package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a world made of applications only.
type network struct {
	t     *testing.T
	mu    sync.Mutex
	at    map[string]string // address in the world → loopback address
	apps  map[string]*http.Server
	dials map[string]int
	ends  chan struct{} // closed: streams that were asked for no length end
	lb    *Balancer
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, at: map[string]string{}, apps: map[string]*http.Server{}, dials: map[string]int{}, ends: make(chan struct{})}
	t.Cleanup(func() {
		for addr := range n.apps {
			n.kill(addr)
		}
	})
	return n
}

func (n *network) dial(ctx context.Context, _, to string) (net.Conn, error) {
	n.mu.Lock()
	real, ok := n.at[to]
	n.dials[to]++
	lb := n.lb
	n.mu.Unlock()
	if !ok && lb != nil {
		real, ok = lb.Endpoint(to)
	}
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", real)
}

// app starts an application at an address of the world.
func (n *network) app(addr string) {
	ip, p, err := net.SplitHostPort(addr)
	require.NoError(n.t, err)
	port, err := strconv.Atoi(p)
	require.NoError(n.t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		var end <-chan time.Time
		if s, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil {
			end = time.After(time.Duration(s * float64(time.Second)))
		}
		for {
			_, _ = fmt.Fprintln(w, "chunk")
			w.(http.Flusher).Flush()
			select {
			case <-end:
				_, _ = fmt.Fprintln(w, "end")
				return
			case <-n.ends:
				_, _ = fmt.Fprintln(w, "end")
				return
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"addr": ip, "port": port, "path": r.URL.Path, "asked": r.Host})
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(n.t, err)
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[addr], n.apps[addr] = ln.Addr().String(), srv
}

// kill ends an application and its connections.
func (n *network) kill(addr string) {
	n.mu.Lock()
	srv := n.apps[addr]
	delete(n.at, addr)
	n.mu.Unlock()
	if srv != nil {
		_ = srv.Close()
	}
}

// balanced starts a balancer with these services and waits until their
// members are known to be well.
func (n *network) balanced(services ...Service) *Balancer {
	b := NewBalancer(BalancerConfig{Dial: n.dial, Interval: 10 * time.Millisecond})
	n.t.Cleanup(b.Close)
	require.NoError(n.t, b.Set(services))
	require.Eventually(n.t, b.Warm, 20*time.Second, 5*time.Millisecond)
	n.mu.Lock()
	n.lb = b
	n.mu.Unlock()
	return b
}

// clients load the balancer hard.
func (n *network) clients(targets ...Target) *Clients {
	c := StartClients(Load{
		Dial: n.dial, Targets: targets, Rate: 500, Streams: 2,
		StreamMax: 300 * time.Millisecond, KeepAliveFor: 100 * time.Millisecond, Timeout: time.Minute,
	})
	n.t.Cleanup(c.Close)
	return c
}

// reach waits until the clients have had so many more answers.
func reach(t *testing.T, c *Clients, more int64) Summary {
	t.Helper()
	want := c.Summary().Requests + more
	require.Eventually(t, func() bool { return c.Summary().Requests >= want }, 30*time.Second, 5*time.Millisecond)
	return c.Summary()
}

func stop(t *testing.T, c *Clients) Summary {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, c.Stop(ctx))
	return c.Summary()
}

func clb(port int, protocol string, ms ...Member) Service {
	return Service{
		Addr: fmt.Sprintf("172.31.0.200:%d", port), Group: "lb/" + protocol, Protocol: protocol,
		Scheduler: "wrr", HealthCheck: true, Members: ms,
	}
}

var both = []Target{{Name: "http", URL: "http://172.31.0.200:80"}, {Name: "tcp", URL: "http://172.31.0.200:82"}}

func TestNothingFailsWithoutAFault(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	ms := []Member{{"172.31.0.90:8080", 60}, {"172.31.0.88:8080", 100}}
	b := n.balanced(clb(80, "http", ms...), clb(82, "tcp", ms...))
	c := n.clients(both...)
	reach(t, c, 1000)
	s := stop(t, c)
	assert.Zero(t, s.Failed, "%v", s.Failures)
	assert.Positive(t, s.P50)
	assert.GreaterOrEqual(t, s.P99, s.P50)
	assert.Len(t, s.ByAddr(), 2)
	for _, x := range s.Targets {
		assert.Positive(t, x.Requests, x.Name)
		assert.Positive(t, x.Streams, x.Name)
	}
	assert.Equal(t, map[string]int{"lb/http at 172.31.0.200:80": 2, "lb/tcp at 172.31.0.200:82": 2}, b.MinHealthy())
}

func TestWeightZeroMovesTrafficWithoutAFailure(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	on := []Member{{"172.31.0.90:8080", 100}, {"172.31.0.88:8080", 100}}
	off := []Member{{"172.31.0.90:8080", 0}, {"172.31.0.88:8080", 100}}
	b := n.balanced(clb(80, "http", on...), clb(82, "tcp", on...))
	c := n.clients(both...)
	reach(t, c, 200)
	require.NoError(t, b.Set([]Service{clb(80, "http", off...), clb(82, "tcp", off...)}))
	// What was under way ends, keep-alive connections through tcp included; from
	// then on the old side is silent.
	require.Eventually(t, func() bool { return b.underWay("172.31.0.90:8080") == 0 }, 60*time.Second, 10*time.Millisecond)
	before := c.Summary().ByAddr()["172.31.0.90:8080"]
	reach(t, c, 100)
	assert.Equal(t, before, c.Summary().ByAddr()["172.31.0.90:8080"])
	require.Eventually(t, func() bool { return c.Summary().Targets[0].Streams > 4 }, 60*time.Second, 10*time.Millisecond)
	n.kill("172.31.0.90:8080")
	reach(t, c, 200)
	s := stop(t, c)
	assert.Zero(t, s.Failed, "%v", s.Failures)
	assert.Equal(t, 1, b.MinHealthy()["lb/http at 172.31.0.200:80"])
}

// underWay counts the requests and connections that the balancer has given a
// member and that have not ended.
func (b *Balancer) underWay(addr string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.services {
		for _, m := range s.own.members {
			if m.Addr == addr {
				n += m.active
			}
		}
	}
	return n
}

func TestPickFollowsWeights(t *testing.T) {
	n := newNetwork(t)
	b := n.balanced(Service{
		Addr: "172.31.0.200:80", Protocol: "tcp", Scheduler: "wrr",
		Members: []Member{{"172.31.0.90:8080", 60}, {"172.31.0.88:8080", 100}, {"172.31.0.89:8080", 0}},
	})
	sv := b.services["172.31.0.200:80"]
	got := map[string]int{}
	for range 160 {
		m := sv.own.pick()
		got[m.Addr]++
		sv.own.settle(m)
	}
	assert.Equal(t, map[string]int{"172.31.0.90:8080": 60, "172.31.0.88:8080": 100}, got)
}

func TestRoundRobinIgnoresWeights(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	s := clb(80, "http", Member{"172.31.0.90:8080", 0}, Member{"172.31.0.88:8080", 100})
	s.Scheduler = "rr"
	n.balanced(s)
	c := n.clients(both[0])
	reach(t, c, 100)
	assert.Positive(t, stop(t, c).ByAddr()["172.31.0.90:8080"])
}

func TestKillWithoutDrainingFails(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	ms := []Member{{"172.31.0.90:8080", 100}, {"172.31.0.88:8080", 100}}
	b := n.balanced(clb(80, "http", ms...), clb(82, "tcp", ms...))
	// So many long streams that some are surely on the one that ends.
	c := StartClients(Load{Dial: n.dial, Targets: both, Rate: 400, Streams: 8, StreamMax: 20 * time.Second})
	t.Cleanup(c.Close)
	reach(t, c, 100)
	n.kill("172.31.0.90:8080")
	require.Eventually(t, func() bool { return b.Health("172.31.0.200:80", "172.31.0.90:8080") == Abnormal }, 30*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(c.Summary().Failures, func(f Failure) bool { return f.Kind == kindStream })
	}, 30*time.Second, 5*time.Millisecond)
	s := c.Summary()
	assert.Positive(t, s.Failed)
	require.NotEmpty(t, s.Failures)
	assert.LessOrEqual(t, len(s.Failures), maxFailures)
	for _, f := range s.Failures {
		assert.NotEmpty(t, f.Reason)
		assert.False(t, f.At.IsZero())
	}
}

func TestShortStreamFails(t *testing.T) {
	n := newNetwork(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "chunk") // ends in good order, but too early
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	n.at["172.31.0.90:8080"] = ln.Addr().String()
	c := StartClients(Load{Dial: n.dial, Targets: []Target{{Name: "x", URL: "http://172.31.0.90:8080"}}, Streams: 1})
	t.Cleanup(c.Close)
	require.Eventually(t, func() bool { return c.Summary().Failed > 0 }, 20*time.Second, 5*time.Millisecond)
	assert.Contains(t, c.Summary().Failures[0].Reason, errShortStream.Error())
}

func TestHealthOfMembers(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	b := n.balanced(clb(80, "http", Member{"172.31.0.90:8080", 100}, Member{"172.31.0.88:8080", 100}))
	at := "172.31.0.200:80"
	assert.Equal(t, Normal, b.Health(at, "172.31.0.90:8080"))
	assert.Equal(t, Abnormal, b.Health(at, "172.31.0.88:8080"))
	assert.Empty(t, b.Health(at, "172.31.0.89:8080"))
	n.app("172.31.0.88:8080")
	require.Eventually(t, func() bool { return b.Health(at, "172.31.0.88:8080") == Normal }, 20*time.Second, 5*time.Millisecond)
	require.Error(t, b.Set([]Service{{Addr: at, Protocol: "udp"}}))
	require.NoError(t, b.Set(nil))
	_, ok := b.Endpoint(at)
	assert.False(t, ok)
}

func TestStopCountsNothingThatItCut(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	c := StartClients(Load{Dial: n.dial, Targets: []Target{{Name: "x", URL: "http://172.31.0.90:8080"}}, Streams: 2, StreamMax: time.Minute})
	t.Cleanup(c.Close)
	require.Eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.dials["172.31.0.90:8080"] == 2
	}, 20*time.Second, 5*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Stop(ctx), context.DeadlineExceeded)
	assert.Zero(t, c.Summary().Failed)
	assert.Zero(t, c.Summary().Requests)
}

func TestHistogram(t *testing.T) {
	var h histogram
	assert.Zero(t, h.quantile(0.5))
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	assert.InEpsilon(t, float64(500*time.Millisecond), float64(h.quantile(0.5)), 0.06)
	assert.InEpsilon(t, float64(990*time.Millisecond), float64(h.quantile(0.99)), 0.06)
	h.add(24 * time.Hour) // beyond the last bucket
	h.add(0)
	assert.Greater(t, h.quantile(1), 10*time.Minute)
}
