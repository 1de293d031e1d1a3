package traffic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Load is what a set of clients asks for.
type Load struct {
	Dial         DialFunc
	From         string        // source address of the clients; "" = 203.0.113.10
	Targets      []Target      // Name and URL are read
	Rate         float64       // short requests a second over all targets, half of them on new connections; ≤ 0 = none
	Streams      int           // streams open at a time per target
	StreamMax    time.Duration // longest stream; 0 = 5s
	KeepAliveFor time.Duration // life of one keep-alive connection; 0 = 2s
	Timeout      time.Duration // of one request, streams get it on top of their length; 0 = 10s
	// BootOf names the current boot of the host at an IP address, for the
	// figures; nil = boots are not told apart.
	BootOf func(ip string) string
}

// Kinds of requests.
const (
	kindNew    = "new"        // a connection of its own
	kindKeep   = "keep-alive" // on a connection that lives for KeepAliveFor
	kindStream = "stream"
)

// Clients send requests until they are stopped, and count. Like every HTTP
// client they send an idempotent request again when the server had closed the
// idle connection it was sent on; nothing else is ever tried twice.
type Clients struct {
	crew
	load    Load
	latency histogram

	// guarded by crew.mu
	targets  []Target
	backends map[string]*Backend
}

// StartClients starts clients for every target of l. Close them.
func StartClients(l Load) *Clients {
	l.From = or(l.From, "203.0.113.10")
	l.StreamMax = orDuration(l.StreamMax, 5*time.Second)
	l.KeepAliveFor = orDuration(l.KeepAliveFor, 2*time.Second)
	l.Timeout = orDuration(l.Timeout, 10*time.Second)
	c := &Clients{load: l, targets: slices.Clone(l.Targets), backends: map[string]*Backend{}}
	going := c.begin()
	each := time.Duration(0)
	if l.Rate > 0 && len(l.Targets) > 0 {
		each = time.Duration(float64(time.Second) * 2 * float64(len(l.Targets)) / l.Rate)
	}
	for i := range l.Targets {
		if each > 0 {
			c.wg.Go(func() { c.newConnections(going, i, each) })
			c.wg.Go(func() { c.keepAlive(going, i, each) })
		}
		for range l.Streams {
			c.wg.Go(func() { c.streams(going, i) })
		}
	}
	return c
}

// Summary is what was counted up to now.
func (c *Clients) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Summary{
		P50: c.latency.quantile(0.50), P99: c.latency.quantile(0.99),
		Targets: slices.Clone(c.targets), Failures: slices.Clone(c.failures),
		Since: c.began, Elapsed: c.elapsed(),
	}
	for _, t := range c.targets {
		s.Requests += t.Requests
		s.Failed += t.Failed
	}
	for _, b := range c.backends {
		s.Backends = append(s.Backends, *b)
	}
	slices.SortFunc(s.Backends, func(a, b Backend) int {
		return cmp.Or(strings.Compare(a.Addr, b.Addr), a.First.Compare(b.First), strings.Compare(a.BootID, b.BootID))
	})
	return s
}

// transport is a client's own connections.
func (c *Clients) transport(keep bool) *http.Transport {
	return &http.Transport{
		DisableKeepAlives:  !keep,
		DisableCompression: true,
		MaxConnsPerHost:    1,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return c.load.Dial(ctx, c.load.From, addr)
		},
	}
}

// newConnections starts a request on a new connection every interval. A slow
// answer does not slow the next request down, but at most maxOpen are open:
// beyond that the timeouts are counted, not the backlog.
func (c *Clients) newConnections(ctx context.Context, target int, every time.Duration) {
	const maxOpen = 64
	open := make(chan struct{}, maxOpen)
	tick := ticker(ctx, every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case open <- struct{}{}:
		default:
			continue
		}
		c.wg.Go(func() {
			defer func() { <-open }()
			tr := c.transport(false)
			defer tr.CloseIdleConnections()
			c.short(tr, target, kindNew)
		})
	}
}

// keepAlive sends one request after the other, on a connection that it
// replaces after KeepAliveFor, as clients come and go.
func (c *Clients) keepAlive(ctx context.Context, target int, every time.Duration) {
	tick := ticker(ctx, every)
	defer tick.Stop()
	for ctx.Err() == nil {
		tr := c.transport(true)
		until := time.Now().Add(c.load.KeepAliveFor)
		for time.Now().Before(until) {
			select {
			case <-ctx.Done():
				tr.CloseIdleConnections()
				return
			case <-tick.C:
			}
			c.short(tr, target, kindKeep)
		}
		tr.CloseIdleConnections()
	}
}

// ticker ticks every interval, after a random part of one: clients that start
// together must not beat together.
func ticker(ctx context.Context, every time.Duration) *time.Ticker {
	first := time.NewTimer(rand.N(every))
	defer first.Stop()
	select {
	case <-ctx.Done():
	case <-first.C:
	}
	return time.NewTicker(every)
}

// streams reads one stream after the other, each of a random length.
func (c *Clients) streams(ctx context.Context, target int) {
	for ctx.Err() == nil {
		tr := c.transport(false)
		length := c.load.StreamMax/5 + rand.N(c.load.StreamMax*4/5)
		if err := c.stream(tr, target, length); err != nil {
			// Do not turn a dead target into a busy loop.
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		tr.CloseIdleConnections()
	}
}

// answer is what the simulated applications say about themselves.
type answer struct {
	Addr   string `json:"addr"`
	Port   int    `json:"port"`
	Kernel string `json:"kernel"`
}

// short sends one request and reads its whole answer.
func (c *Clients) short(tr *http.Transport, target int, kind string) {
	ctx, cancel := context.WithTimeout(c.ctx, c.load.Timeout)
	defer cancel()
	began := time.Now()
	a, err := c.get(ctx, tr, c.load.Targets[target].URL+"/")
	c.count(target, kind, a, time.Since(began), err)
}

func (c *Clients) get(ctx context.Context, tr *http.Transport, url string) (*answer, error) {
	resp, err := c.do(ctx, tr, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("body ended after %d bytes: %w", len(body), err)
	}
	a := &answer{}
	if err := json.Unmarshal(body, a); err != nil || a.Addr == "" {
		return nil, fmt.Errorf("answer is not an application's: %.80q", body)
	}
	return a, nil
}

// do sends a GET and takes no answer but 2xx.
func (c *Clients) do(ctx context.Context, tr *http.Transport, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return resp, nil
}

// errShortStream is a stream that ended in good order but without the word
// that ends it: a proxy or a host that goes down politely cuts it that way.
var errShortStream = errors.New("stream ended early")

// tail keeps the last bytes written to it.
type tail struct {
	last  []byte
	total int64
}

func (t *tail) Write(p []byte) (int, error) {
	t.total += int64(len(p))
	t.last = append(t.last, p...)
	if n := len(t.last); n > 8 {
		t.last = append(t.last[:0], t.last[n-8:]...)
	}
	return len(p), nil
}

// stream reads one stream to its end. It has no latency: nginx that buffers and
// speaks HTTP/1.0 to its upstreams keeps what is smaller than one of its buffers
// until the stream ends, headers and all.
func (c *Clients) stream(tr *http.Transport, target int, length time.Duration) error {
	ctx, cancel := context.WithTimeout(c.ctx, length+c.load.Timeout)
	defer cancel()
	began := time.Now()
	resp, err := c.do(ctx, tr, fmt.Sprintf("%s/stream?seconds=%.2f", c.load.Targets[target].URL, length.Seconds()))
	if err == nil {
		var t tail
		_, err = io.Copy(&t, resp.Body)
		_ = resp.Body.Close()
		if took := time.Since(began); err != nil {
			err = fmt.Errorf("cut after %v of %v and %d bytes: %w", took.Round(time.Millisecond), length.Round(time.Millisecond), t.total, err)
		} else if !bytes.HasSuffix(t.last, []byte("end\n")) {
			err = fmt.Errorf("%w: after %v of %v", errShortStream, took.Round(time.Millisecond), length.Round(time.Millisecond))
		}
	}
	c.count(target, kindStream, nil, 0, err)
	return err
}

// count takes one request into the figures. What Close or an overdue Stop cut
// off is not counted: nobody was waiting for it any more.
func (c *Clients) count(target int, kind string, a *answer, took time.Duration, err error) {
	if err != nil && c.ctx.Err() != nil {
		return
	}
	now, boot := time.Now(), ""
	if a != nil && c.load.BootOf != nil {
		boot = c.load.BootOf(a.Addr)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.targets[target]
	t.Requests++
	if kind == kindStream {
		t.Streams++
	}
	if err != nil {
		t.Failed++
		c.fail(Failure{At: now, Target: t.Name, Kind: kind, Reason: err.Error()})
		return
	}
	if kind != kindStream {
		c.latency.add(took)
	}
	if a == nil {
		return
	}
	addr := fmt.Sprintf("%s:%d", a.Addr, a.Port)
	key := addr + " " + boot + " " + a.Kernel
	b := c.backends[key]
	if b == nil {
		b = &Backend{Addr: addr, BootID: boot, Kernel: a.Kernel, First: now}
		c.backends[key] = b
	}
	b.Requests++
	b.Last = now
}

// ByAddr adds up the requests that each backend address answered, over all
// its boots.
func (s Summary) ByAddr() map[string]int64 {
	n := map[string]int64{}
	for _, b := range s.Backends {
		n[b.Addr] += b.Requests
	}
	return n
}
