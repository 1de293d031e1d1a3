package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"
)

// DialFunc connects from one address of the world to HOST:PORT in it. from is
// an IP address, or empty for somewhere outside.
type DialFunc func(ctx context.Context, from, to string) (net.Conn, error)

// A Service is one listener of a balancer as its settings are now.
type Service struct {
	Addr        string // HOST:PORT it listens on in the world
	Group       string // name of its server group, for figures
	Protocol    string // "http" or "tcp"
	Scheduler   string // "wrr", or "rr" which ignores weights, 0 too
	HealthCheck bool   // without: members count as healthy and their health is "unavailable"
	Members     []Member
}

// A Member is one server of a service.
type Member struct {
	Addr   string // HOST:PORT
	Weight int    // 0 = no new requests
}

// BalancerConfig says how a balancer checks and reaches its members.
type BalancerConfig struct {
	Dial       DialFunc
	Interval   time.Duration // between two health checks of a member; 0 = 2s
	Timeout    time.Duration // of one health check; 0 = 2s
	Threshold  int           // equal results in a row that change a member's health; 0 = 3
	HealthPath string        // asked of members of http services; "" = /health
	HealthFrom string        // source address of health checks; "" = 100.64.0.1
	ProxyFrom  string        // source address of requests of http services, of the same range in life; "" = 100.64.0.10
	Client     string        // source address seen behind tcp services; "" = 203.0.113.10
	// Listen opens a port for a service; nil = one on loopback.
	Listen func() (net.Listener, error)
}

// The states of a member's health, in the words of the cloud's API.
const (
	Normal      = "normal"
	Abnormal    = "abnormal"
	Unavailable = "unavailable" // not enough checks yet, or none configured
)

// A Balancer is the data plane of load balancers: it listens on a loopback
// port for each service and carries requests to the service's members. It is
// safe for concurrent use.
type Balancer struct {
	cfg    BalancerConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	services map[string]*service
	lowest   map[string]int
	closed   bool
}

// NewBalancer returns a balancer without services. Close it.
func NewBalancer(cfg BalancerConfig) *Balancer {
	cfg.Interval = orDuration(cfg.Interval, 2*time.Second)
	cfg.Timeout = orDuration(cfg.Timeout, 2*time.Second)
	if cfg.Threshold <= 0 {
		cfg.Threshold = 3
	}
	cfg.HealthPath = or(cfg.HealthPath, "/health")
	cfg.HealthFrom = or(cfg.HealthFrom, "100.64.0.1")
	cfg.ProxyFrom = or(cfg.ProxyFrom, "100.64.0.10")
	cfg.Client = or(cfg.Client, "203.0.113.10")
	if cfg.Listen == nil {
		cfg.Listen = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Balancer{cfg: cfg, ctx: ctx, cancel: cancel, services: map[string]*service{}, lowest: map[string]int{}}
}

func or(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func orDuration(v, otherwise time.Duration) time.Duration {
	if v <= 0 {
		return otherwise
	}
	return v
}

// service is a Service that runs.
type service struct {
	Service
	b       *Balancer
	ln      net.Listener
	http    *http.Server // nil for tcp
	members []*member    // under b.mu
	warm    bool         // every member's health was known once; from then on the lowest number counts
	conns   map[net.Conn]struct{}
}

type member struct {
	Member
	transport *http.Transport
	health    string
	streak    int // equal results in a row that differ from health
	last      bool
	current   int // of smooth weighted round robin
	cancel    context.CancelFunc
}

// Set makes services the whole of what the balancer serves. Members that stay
// keep their health; connections to members that go, or whose weight becomes
// 0, are not cut: they get no new requests.
func (b *Balancer) Set(services []Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("cannot change a closed balancer")
	}
	want := map[string]bool{}
	for _, s := range services {
		want[s.Addr] = true
		old := b.services[s.Addr]
		if old != nil && old.Protocol != s.Protocol {
			b.stop(old)
			old = nil
		}
		if old == nil {
			var err error
			if old, err = b.listen(s); err != nil {
				return err
			}
		}
		old.update(s)
	}
	for addr, s := range b.services {
		if !want[addr] {
			b.stop(s)
		}
	}
	b.note()
	return nil
}

// listen opens a service's loopback port. The caller holds b.mu.
func (b *Balancer) listen(s Service) (*service, error) {
	if s.Protocol != "http" && s.Protocol != "tcp" {
		return nil, fmt.Errorf("cannot serve %s: unknown protocol %q", s.Addr, s.Protocol)
	}
	ln, err := b.cfg.Listen()
	if err != nil {
		return nil, fmt.Errorf("cannot serve %s: %w", s.Addr, err)
	}
	sv := &service{Service: Service{Addr: s.Addr, Protocol: s.Protocol}, b: b, ln: ln, conns: map[net.Conn]struct{}{}}
	b.services[s.Addr] = sv
	if s.Protocol == "http" {
		sv.http = &http.Server{Handler: sv, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 30 * time.Second}
		b.wg.Go(func() { _ = sv.http.Serve(ln) })
	} else {
		b.wg.Go(sv.serveTCP)
	}
	return sv, nil
}

// stop ends a service at once. The caller holds b.mu.
func (b *Balancer) stop(s *service) {
	delete(b.services, s.Addr)
	for _, m := range s.members {
		m.cancel()
		m.transport.CloseIdleConnections()
	}
	_ = s.ln.Close()
	if s.http != nil {
		_ = s.http.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
}

// Close ends every service and its connections and waits for them.
func (b *Balancer) Close() {
	b.mu.Lock()
	b.closed = true
	for _, s := range b.services {
		b.stop(s)
	}
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
}

// Endpoint is the loopback address behind a service's address in the world.
func (b *Balancer) Endpoint(addr string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.services[addr]
	if s == nil {
		return "", false
	}
	return s.ln.Addr().String(), true
}

// Health is the health of a member of the service at addr: [Normal],
// [Abnormal] or [Unavailable]; empty when it is not a member.
func (b *Balancer) Health(addr, memberAddr string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.services[addr]
	if s == nil {
		return ""
	}
	for _, m := range s.members {
		if m.Addr == memberAddr {
			return m.health
		}
	}
	return ""
}

// Warm says whether the health of every member of every service has been
// known once.
func (b *Balancer) Warm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.services {
		if !s.warm {
			return false
		}
	}
	return true
}

// MinHealthy is, for each service ("GROUP at ADDR"), the lowest number of
// members at one time that were healthy and could get new requests, from the
// moment the health of its first members was known.
func (b *Balancer) MinHealthy() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.lowest)
}

// note brings the lowest numbers up to date. The caller holds b.mu.
func (b *Balancer) note() {
	for _, s := range b.services {
		n, known := 0, len(s.members) > 0
		for _, m := range s.members {
			if s.HealthCheck && m.health == Unavailable {
				known = false
			}
			if s.eligible(m) {
				n++
			}
		}
		s.warm = s.warm || known
		if !s.warm {
			continue
		}
		name := s.Group + " at " + s.Addr
		if old, ok := b.lowest[name]; !ok || n < old {
			b.lowest[name] = n
		}
	}
}

// update takes over the settings of s. The caller holds b.mu.
func (sv *service) update(s Service) {
	old := sv.members
	sv.Service, sv.members = s, nil
	for _, want := range s.Members {
		i := slices.IndexFunc(old, func(m *member) bool { return m.Addr == want.Addr })
		if i < 0 {
			sv.members = append(sv.members, sv.newMember(want))
			continue
		}
		m := old[i]
		old = slices.Delete(slices.Clone(old), i, i+1)
		m.Weight = want.Weight
		if !sv.takesNew(m) {
			m.transport.CloseIdleConnections()
		}
		sv.members = append(sv.members, m)
	}
	for _, m := range old {
		m.cancel()
		m.Weight = 0
		m.transport.CloseIdleConnections()
	}
}

// newMember starts the health checks of a new member. The caller holds b.mu.
func (sv *service) newMember(w Member) *member {
	b := sv.b
	ctx, cancel := context.WithCancel(b.ctx)
	protocol := sv.Protocol
	m := &member{Member: w, health: Unavailable, cancel: cancel, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return b.cfg.Dial(ctx, b.cfg.ProxyFrom, addr)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     5 * time.Second,
	}}
	if sv.HealthCheck {
		b.wg.Go(func() { b.watch(ctx, protocol, m) })
	}
	return m
}

// takesNew says whether the settings allow new requests for m.
func (sv *service) takesNew(m *member) bool { return m.Weight > 0 || sv.Scheduler == "rr" }

// eligible says whether m may get a new request now.
func (sv *service) eligible(m *member) bool {
	return sv.takesNew(m) && (!sv.HealthCheck || m.health == Normal)
}

// pick chooses the member for the next request by smooth weighted round
// robin: over any run of sum-of-weights requests each member gets its share,
// spread evenly.
func (sv *service) pick() *member {
	sv.b.mu.Lock()
	defer sv.b.mu.Unlock()
	var best *member
	total := 0
	for _, m := range sv.members {
		if !sv.eligible(m) {
			continue
		}
		w := m.Weight
		if sv.Scheduler == "rr" {
			w = 1
		}
		m.current += w
		total += w
		if best == nil || m.current > best.current {
			best = m
		}
	}
	if best != nil {
		best.current -= total
	}
	return best
}

// settle closes the idle connection that a finished request may have left on
// a member that takes no new ones.
func (sv *service) settle(m *member) {
	sv.b.mu.Lock()
	takes := sv.takesNew(m) && slices.Contains(sv.members, m)
	sv.b.mu.Unlock()
	if !takes {
		m.transport.CloseIdleConnections()
	}
}

// ServeHTTP carries one request to a member. A member that cannot be reached
// is not hidden by trying another: the client gets the 502 that it would get.
func (sv *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := sv.pick()
	if m == nil {
		http.Error(w, "no healthy backend", http.StatusServiceUnavailable)
		return
	}
	defer sv.settle(m)
	proxyTo(m.transport, m.Addr, "", nil).ServeHTTP(w, r)
}

// proxyTo is a reverse proxy to one address that passes bytes on as they
// come. failed is told of a request that got no answer; nil = 502 to the
// client.
func proxyTo(rt http.RoundTripper, addr, host string, failed func(http.ResponseWriter, *http.Request, error)) *httputil.ReverseProxy {
	if failed == nil {
		failed = func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}
	return &httputil.ReverseProxy{
		Transport:     rt,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  failed,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", addr
			p.Out.Host = or(host, p.In.Host)
			p.SetXForwarded()
		},
	}
}

// serveTCP accepts connections of a tcp service until its listener closes.
func (sv *service) serveTCP() {
	for {
		c, err := sv.ln.Accept()
		if err != nil {
			return
		}
		sv.b.mu.Lock()
		if sv.b.closed {
			sv.b.mu.Unlock()
			_ = c.Close()
			return
		}
		sv.conns[c] = struct{}{}
		sv.b.wg.Go(func() {
			sv.carry(c)
			sv.b.mu.Lock()
			delete(sv.conns, c)
			sv.b.mu.Unlock()
		})
		sv.b.mu.Unlock()
	}
}

// carry connects one client connection with a member. tcp services show the
// client's address to their members, as the real ones do.
func (sv *service) carry(c net.Conn) {
	defer func() { _ = c.Close() }()
	m := sv.pick()
	if m == nil {
		return
	}
	up, err := sv.b.cfg.Dial(sv.b.ctx, sv.b.cfg.Client, m.Addr)
	if err != nil {
		return
	}
	Join(c, up)
}

// Join copies both ways between two connections until both directions have
// ended, handing an end of data on, and closes both.
func Join(a, b net.Conn) {
	var wg sync.WaitGroup
	half := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		cw, ok := dst.(interface{ CloseWrite() error })
		if err != nil || !ok || cw.CloseWrite() != nil {
			// A broken direction breaks the connection: half of it would
			// leave the other side waiting for ever.
			_ = dst.Close()
			_ = src.Close()
		}
	}
	wg.Go(func() { half(a, b) })
	wg.Go(func() { half(b, a) })
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// watch checks the health of one member until ctx ends.
func (b *Balancer) watch(ctx context.Context, protocol string, m *member) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return b.cfg.Dial(ctx, b.cfg.HealthFrom, addr)
	}}
	tick := time.NewTicker(b.cfg.Interval)
	defer tick.Stop()
	for {
		ok := b.check(ctx, tr, protocol, m.Addr)
		if ctx.Err() != nil {
			return
		}
		b.result(m, ok)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// check is one health check: GET of the health path for http, a connection
// for tcp.
func (b *Balancer) check(ctx context.Context, tr *http.Transport, protocol, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	if protocol == "tcp" {
		c, err := b.cfg.Dial(ctx, b.cfg.HealthFrom, addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+b.cfg.HealthPath, nil)
	if err != nil {
		return false
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode/100 == 2
}

// result takes one check's result into a member's health.
func (b *Balancer) result(m *member, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.last != ok {
		m.last, m.streak = ok, 0
	}
	m.streak++
	want := Abnormal
	if ok {
		want = Normal
	}
	if m.health != want && m.streak >= b.cfg.Threshold {
		m.health = want
		b.note()
	}
}
