package traffic

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DialFunc connects from one address of the world to HOST:PORT in it. from is
// an IP address, or empty for somewhere outside.
type DialFunc func(ctx context.Context, from, to string) (net.Conn, error)

// A Service is one listener of a balancer as its settings are now: the members
// of its own group stand in Scheduler to Members.
type Service struct {
	Addr        string // HOST:PORT it listens on in the world
	Group       string // name of its server group, for figures
	Protocol    string // "http" or "tcp"
	Scheduler   string // "wrr" (default), "wlc", or "rr" which ignores weights, 0 too
	HealthCheck bool   // without: members count as healthy and their health is "unavailable"
	// Sticky is how long a client of an http service that shows its cookie again
	// stays with its member, also with one of weight 0; 0 = off. What the real
	// balancers do at weight 0 is not documented; this is the unpleasant answer.
	Sticky  time.Duration
	Members []Member
	Rules   []Rule // http; the first that fits a request wins
	From    string // source address of requests of an http service; "" = ProxyFrom of the balancer

	// What BalancerConfig.Log is told besides.
	LoadBalancerID string
	ALB            bool
}

// A Rule sends some requests of an http service to a group of its own.
type Rule struct {
	// Domains are host names, in which *.NAME stands for any name under NAME;
	// none means any. Paths match whole, or as a prefix when they end in *; none
	// means any.
	Domains, Paths []string

	Group       string
	Scheduler   string
	HealthCheck bool
	Sticky      time.Duration
	Members     []Member
}

// CLBRules brings the rules of a classic balancer into the order in which they
// are tried there: whole names before *.NAME before any name, and longer paths
// before shorter ones. A URL of such a rule is a prefix: write it as PATH*.
func CLBRules(rules []Rule) []Rule {
	rank := func(r Rule) (domain, path int) {
		for _, d := range r.Domains {
			domain = 1 << 20
			if strings.HasPrefix(d, "*.") {
				domain = len(d)
			}
		}
		for _, p := range r.Paths {
			path = len(p)
		}
		return domain, path
	}
	out := slices.Clone(rules)
	slices.SortStableFunc(out, func(a, b Rule) int {
		ad, ap := rank(a)
		bd, bp := rank(b)
		return cmp.Or(bd-ad, bp-ap)
	})
	return out
}

// fits says whether a request belongs to a rule.
func (r *Rule) fits(req *http.Request) bool {
	host := req.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	domain, path := len(r.Domains) == 0, len(r.Paths) == 0
	for _, d := range r.Domains {
		suffix, wild := strings.CutPrefix(strings.ToLower(d), "*")
		domain = domain || host == strings.ToLower(d) || wild && strings.HasSuffix(host, suffix)
	}
	for _, p := range r.Paths {
		prefix, open := strings.CutSuffix(p, "*")
		path = path || req.URL.Path == p || open && strings.HasPrefix(req.URL.Path, prefix)
	}
	return domain && path
}

// An AccessEntry is one finished request of an http service, as a row of a
// balancer's access log tells it.
type AccessEntry struct {
	Time           time.Time // of its end
	LoadBalancerID string
	Addr           string // of the service, HOST:PORT
	ALB            bool
	ClientIP       string
	Host           string
	Method, URI    string
	UserAgent      string
	Status         int
	UpstreamAddr   string // "-" when no member was asked
	UpstreamStatus string
	Duration       time.Duration
	Sent           int64 // bytes of the body
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
	// Log, if not nil, is told of each finished request of an http service, on the
	// goroutine that carried it.
	Log func(AccessEntry)
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
	b     *Balancer
	ln    net.Listener
	http  *http.Server // nil for tcp
	own   *pool        // of the service itself
	rules []*rulePool  // under b.mu
	conns map[net.Conn]struct{}
}

// pools returns the service's own pool and those of its rules. The caller holds
// b.mu.
func (sv *service) pools() []*pool {
	all := []*pool{sv.own}
	for _, r := range sv.rules {
		all = append(all, r.pool)
	}
	return all
}

type rulePool struct {
	Rule
	pool *pool
}

// A pool is the members of one group behind one listener.
type pool struct {
	b              *Balancer
	protocol, from string
	group          string
	scheduler      string
	healthCheck    bool
	sticky         time.Duration
	members        []*member // under b.mu
	warm           bool      // every member's health was known once; from then on the lowest number counts
}

type member struct {
	Member
	transport *http.Transport
	health    string
	streak    int // equal results in a row that differ from health
	last      bool
	current   int // of smooth weighted round robin
	active    int // requests or connections under way
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
		if err := s.check(); err != nil {
			return fmt.Errorf("cannot serve %s: %w", s.Addr, err)
		}
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

// check refuses settings whose effect is not simulated.
func (s *Service) check() error {
	for _, scheduler := range append([]string{s.Scheduler}, schedulers(s.Rules)...) {
		if !slices.Contains([]string{"", "wrr", "wlc", "rr"}, scheduler) {
			return fmt.Errorf("the scheduler %q is not simulated", scheduler)
		}
	}
	if s.Protocol == "tcp" && (s.Sticky > 0 || len(s.Rules) > 0) {
		return errors.New("sticky sessions and rules of tcp services are not simulated")
	}
	return nil
}

func schedulers(rules []Rule) []string {
	var all []string
	for _, r := range rules {
		all = append(all, r.Scheduler)
	}
	return all
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
	sv := &service{Service: Service{Addr: s.Addr, Protocol: s.Protocol}, b: b, ln: ln, own: &pool{b: b, protocol: s.Protocol, from: s.From}, conns: map[net.Conn]struct{}{}}
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
	for _, p := range s.pools() {
		p.update(p.group, p.scheduler, p.healthCheck, p.sticky, nil)
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
	// A member of several groups is checked for each; the worst counts.
	worst := ""
	for _, p := range s.pools() {
		for _, m := range p.members {
			if m.Addr == memberAddr && (worst == "" || m.health != Normal) {
				worst = m.health
			}
		}
	}
	return worst
}

// Warm says whether the health of every member of every service has been
// known once.
func (b *Balancer) Warm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.services {
		if slices.ContainsFunc(s.pools(), func(p *pool) bool { return !p.warm }) {
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
		for _, p := range s.pools() {
			n, known := 0, len(p.members) > 0
			for _, m := range p.members {
				if p.healthCheck && m.health == Unavailable {
					known = false
				}
				if p.eligible(m) {
					n++
				}
			}
			p.warm = p.warm || known
			if !p.warm {
				continue
			}
			name := p.group + " at " + s.Addr
			if old, ok := b.lowest[name]; !ok || n < old {
				b.lowest[name] = n
			}
		}
	}
}

// update takes over the settings of s. Rules keep their pool as long as they
// match the same requests. The caller holds b.mu.
func (sv *service) update(s Service) {
	old := sv.rules
	sv.Service, sv.rules = s, nil
	sv.own.from = s.From
	sv.own.update(s.Group, s.Scheduler, s.HealthCheck, s.Sticky, s.Members)
	for _, r := range s.Rules {
		i := slices.IndexFunc(old, func(o *rulePool) bool { return slices.Equal(o.Domains, r.Domains) && slices.Equal(o.Paths, r.Paths) })
		x := &rulePool{pool: &pool{b: sv.b, protocol: s.Protocol}}
		if i >= 0 {
			x = old[i]
			old = slices.Delete(slices.Clone(old), i, i+1)
		}
		x.Rule, x.pool.from = r, s.From
		x.pool.update(r.Group, r.Scheduler, r.HealthCheck, r.Sticky, r.Members)
		sv.rules = append(sv.rules, x)
	}
	for _, o := range old {
		o.pool.update(o.pool.group, o.pool.scheduler, o.pool.healthCheck, 0, nil)
	}
}

// update takes over settings and members. The caller holds b.mu.
func (p *pool) update(group, scheduler string, healthCheck bool, sticky time.Duration, members []Member) {
	old := p.members
	p.group, p.scheduler, p.healthCheck, p.sticky, p.members = group, scheduler, healthCheck, sticky, nil
	for _, want := range members {
		i := slices.IndexFunc(old, func(m *member) bool { return m.Addr == want.Addr })
		if i < 0 {
			p.members = append(p.members, p.newMember(want))
			continue
		}
		m := old[i]
		old = slices.Delete(slices.Clone(old), i, i+1)
		m.Weight = want.Weight
		if !p.takesNew(m) {
			m.transport.CloseIdleConnections()
		}
		p.members = append(p.members, m)
	}
	for _, m := range old {
		m.cancel()
		m.Weight = 0
		m.transport.CloseIdleConnections()
	}
}

// newMember starts the health checks of a new member. The caller holds b.mu.
func (p *pool) newMember(w Member) *member {
	b := p.b
	ctx, cancel := context.WithCancel(b.ctx)
	protocol, from := p.protocol, or(p.from, b.cfg.ProxyFrom)
	m := &member{Member: w, health: Unavailable, cancel: cancel, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return b.cfg.Dial(ctx, from, addr)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     5 * time.Second,
	}}
	if p.healthCheck {
		b.wg.Go(func() { b.watch(ctx, protocol, m) })
	}
	return m
}

// takesNew says whether the settings allow new requests for m.
func (p *pool) takesNew(m *member) bool { return m.Weight > 0 || p.scheduler == "rr" }

// eligible says whether m may get a new request now.
func (p *pool) eligible(m *member) bool {
	return p.takesNew(m) && (!p.healthCheck || m.health == Normal)
}

// pick chooses the member for the next request. wrr and rr are smooth weighted
// round robin: over any run of sum-of-weights requests each member gets its
// share, spread evenly. wlc takes the member with the fewest under way for its
// weight.
func (p *pool) pick() *member {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	var best *member
	total := 0
	for _, m := range p.members {
		if !p.eligible(m) {
			continue
		}
		w := m.Weight
		if p.scheduler == "rr" {
			w = 1
		}
		m.current += w
		total += w
		switch {
		case best == nil:
			best = m
		case p.scheduler == "wlc" && m.active*best.Weight != best.active*m.Weight:
			if m.active*best.Weight < best.active*m.Weight {
				best = m
			}
		case m.current > best.current:
			best = m
		}
	}
	if best != nil {
		best.current -= total
		best.active++
	}
	return best
}

// settle ends what pick or stuck began. It closes the idle connection that a
// finished request may have left on a member that takes no new ones.
func (p *pool) settle(m *member) {
	p.b.mu.Lock()
	m.active--
	takes := p.takesNew(m) && slices.Contains(p.members, m)
	p.b.mu.Unlock()
	if !takes {
		m.transport.CloseIdleConnections()
	}
}

// stickyCookie is the name under which CLB and ALB insert theirs.
const stickyCookie = "SERVERID"

// stuck returns the member that a request's cookie names, nil when it names none
// that is (still) there and well, or when the cookie is too old.
func (p *pool) stuck(r *http.Request) *member {
	cookie, err := r.Cookie(stickyCookie)
	if err != nil {
		return nil
	}
	name, at, _ := strings.Cut(cookie.Value, "|")
	seconds, err := strconv.ParseInt(at, 10, 64)
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if err != nil || p.sticky <= 0 || time.Since(time.Unix(seconds, 0)) > p.sticky {
		return nil
	}
	for _, m := range p.members {
		if memberName(m.Addr) == name && (!p.healthCheck || m.health == Normal) {
			m.active++
			return m
		}
	}
	return nil
}

// memberName hides a member's address in a cookie.
func memberName(addr string) string {
	sum := sha256.Sum256([]byte(addr))
	return hex.EncodeToString(sum[:8])
}

// route finds the pool of a request, and whether its clients stick to members.
func (sv *service) route(r *http.Request) (*pool, bool) {
	sv.b.mu.Lock()
	defer sv.b.mu.Unlock()
	p := sv.own
	for _, x := range sv.rules {
		if x.fits(r) {
			p = x.pool
			break
		}
	}
	return p, p.sticky > 0
}

// ServeHTTP carries one request to a member. A member that cannot be reached
// is not hidden by trying another: the client gets the 502 that it would get.
func (sv *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	rec := &recorder{ResponseWriter: w}
	upstream, status := "-", "-"
	if sv.b.cfg.Log != nil {
		host, uri := r.Host, r.URL.RequestURI()
		defer func() {
			sv.b.mu.Lock()
			e := AccessEntry{LoadBalancerID: sv.LoadBalancerID, Addr: sv.Addr, ALB: sv.ALB}
			sv.b.mu.Unlock()
			e.Time, e.Duration, e.ClientIP, e.Host, e.Method, e.URI, e.UserAgent = time.Now(), time.Since(begun), sv.b.cfg.Client, host, r.Method, uri, r.UserAgent()
			e.Status, e.UpstreamAddr, e.UpstreamStatus, e.Sent = rec.status, upstream, status, rec.sent
			sv.b.cfg.Log(e)
		}()
	}
	p, sticky := sv.route(r)
	m := p.stuck(r)
	if m == nil {
		m = p.pick()
		if m != nil && sticky {
			http.SetCookie(rec, &http.Cookie{Name: stickyCookie, Value: fmt.Sprintf("%s|%d", memberName(m.Addr), time.Now().Unix()), Path: "/"})
		}
	}
	if m == nil {
		http.Error(rec, "no healthy backend", http.StatusServiceUnavailable)
		return
	}
	defer p.settle(m)
	upstream, status = m.Addr, "502"
	proxy := proxyTo(m.transport, m.Addr, "", nil)
	proxy.ModifyResponse = func(resp *http.Response) error {
		status = strconv.Itoa(resp.StatusCode)
		return nil
	}
	proxy.ServeHTTP(rec, r)
}

// A recorder remembers what went through a ResponseWriter.
type recorder struct {
	http.ResponseWriter
	status int
	sent   int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status/100 != 1 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.sent += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

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
		BufferPool:    pieces{},
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
	m := sv.own.pick()
	if m == nil {
		return
	}
	defer sv.own.settle(m)
	up, err := sv.b.cfg.Dial(sv.b.ctx, sv.b.cfg.Client, m.Addr)
	if err != nil {
		return
	}
	Join(c, up)
}

// piece is what a connection carries at once: they are many, and their messages
// short.
const piece = 4 << 10

// pieces are the buffers of a reverse proxy.
type pieces struct{}

func (pieces) Get() []byte { return make([]byte, piece) }
func (pieces) Put([]byte)  {}

// Join copies both ways between two connections until both directions have
// ended, handing an end of data on, and closes both.
func Join(a, b net.Conn) {
	var wg sync.WaitGroup
	half := func(dst, src net.Conn) {
		_, err := io.CopyBuffer(dst, src, make([]byte, piece))
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
