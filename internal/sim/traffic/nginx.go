package traffic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// nginxConf is the configuration file that the simulated nginx has compiled in.
const nginxConf = "/etc/nginx/nginx.conf"

// nginxVersion is what `nginx -V` says, on stderr as the real one does.
const nginxVersion = `nginx version: nginx/1.20.1
built by gcc 4.8.5 20150623 (Red Hat 4.8.5-44) (GCC)
TLS SNI support enabled
configure arguments: --prefix=/usr/share/nginx --sbin-path=/usr/sbin/nginx --conf-path=/etc/nginx/nginx.conf --error-log-path=/var/log/nginx/error.log --http-log-path=/var/log/nginx/access.log --pid-path=/run/nginx.pid
`

// Nginx is the nginx program of one simulated host. Give [Nginx.Command] to
// the host as its command "nginx"; `nginx` then starts it, `nginx -t` tests
// the files, `nginx -s reload` makes it follow them. A running one follows
// the files as they were at its last successful start or reload. It is safe
// for concurrent use.
//
// It reads what decides where a request goes and refuses to read past
// anything else that could: such a file fails `nginx -t`, and stands in
// [Nginx.Refused].
type Nginx struct {
	name string // of its host, for figures
	addr string
	dial DialFunc

	mu      sync.Mutex
	master  *host.Process // nil while it does not run
	current *generation
	number  int
	refused []string
	lowest  map[string]int
}

// A generation is the worker of one reading of the files. It lives until its
// last request has ended.
type generation struct {
	site     *site
	proc     *host.Process
	active   int
	retiring bool
	pools    map[*upstream]*http.Transport
}

// NewNginx returns the nginx of the host at addr, which reaches its servers
// through dial.
func NewNginx(name, addr string, dial DialFunc) *Nginx {
	return &Nginx{name: name, addr: addr, dial: dial, lowest: map[string]int{}}
}

// Refused is what the program was asked to do, or to read in its files, and
// does not know.
func (n *Nginx) Refused() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.refused)
}

// MinHealthy is, for each upstream group ("UPSTREAM on HOST"), the lowest
// number of servers at one time that the running configuration had in use and
// that had not just failed.
func (n *Nginx) MinHealthy() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.lowest)
}

// Command is the program.
func (n *Nginx) Command(ctx context.Context, p *host.Proc) int {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(p.Stderr, "nginx: "+format+"\n", args...) }
	conf, test, quiet, signal := nginxConf, false, false, ""
	for i := 1; i < len(p.Args); i++ {
		a := p.Args[i]
		switch a {
		case "-t":
			test = true
		case "-q":
			quiet = true
		case "-v":
			version, _, _ := strings.Cut(nginxVersion, "\n")
			_, _ = fmt.Fprintln(p.Stderr, version)
			return 0
		case "-V":
			_, _ = fmt.Fprint(p.Stderr, nginxVersion)
			return 0
		case "-c", "-s":
			i++
			if i == len(p.Args) {
				say("option %q requires parameter", a)
				return 1
			}
			if a == "-c" {
				conf = p.Args[i]
			} else {
				signal = p.Args[i]
			}
		default:
			say("invalid option: %q", a)
			n.refuse("nginx " + strings.Join(p.Args[1:], " "))
			return 1
		}
	}
	if signal != "" && signal != "reload" {
		say("invalid option: \"-s %s\"", signal)
		n.refuse("nginx -s " + signal)
		return 1
	}
	site, err := n.read(ctx, p.Host, conf)
	if err != nil {
		say("[emerg] %v", err)
		if test {
			say("configuration file %s test failed", conf)
		}
		return 1
	}
	switch {
	case test:
		if !quiet {
			say("the configuration file %s syntax is ok", conf)
			say("configuration file %s test is successful", conf)
		}
		return 0
	case signal == "reload":
		err = n.reload(p.Host, site)
	default:
		err = n.start(p, site, conf)
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	return 0
}

func (n *Nginx) refuse(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = append(n.refused, what)
}

// read loads and checks the files below conf.
func (n *Nginx) read(ctx context.Context, h *host.Host, conf string) (*site, error) {
	ds, err := load(ctx, hostFS{h}, conf)
	if err != nil {
		return nil, err
	}
	site, err := compile(conf, ds, func(name string) bool { return knows(h, name) })
	var u *unsupported
	if errors.As(err, &u) {
		n.refuse(err.Error())
	}
	return site, err
}

// knows says whether a host can resolve a name: the world has no name
// servers, so it is the hosts file that counts.
func knows(h *host.Host, name string) bool {
	data, err := h.ReadFile("/etc/hosts")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], name) {
			return true
		}
	}
	return false
}

// hostFS is a host's tree as the nginx package reads it.
type hostFS struct{ h *host.Host }

func (f hostFS) ReadFile(_ context.Context, name string) ([]byte, error) { return f.h.ReadFile(name) }
func (f hostFS) ReadDir(_ context.Context, name string) ([]fs.DirEntry, error) {
	return f.h.ReadDir(name)
}

// start makes the master process, which holds the listening sockets, and the
// first worker.
func (n *Nginx) start(p *host.Proc, s *site, conf string) error {
	h := p.Host
	n.mu.Lock()
	running := n.master != nil
	n.mu.Unlock()
	if running {
		return fmt.Errorf("[emerg] bind() to 0.0.0.0:%d failed (98: Address already in use)", s.ports[0])
	}
	title := "nginx: master process /usr/sbin/nginx"
	if conf != nginxConf {
		title += " -c " + conf
	}
	master, err := p.Spawn(host.Process{
		Title:   title,
		Args:    []string{"/usr/sbin/nginx"},
		Ports:   s.ports,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.serve(h, w, r) }),
		OnTerm:  func() { n.quit() },
		OnExit:  func() { n.gone() },
	})
	if err != nil {
		return fmt.Errorf("[emerg] bind() to 0.0.0.0:%d failed (98: Address already in use)", s.ports[0])
	}
	n.mu.Lock()
	n.master = master
	n.mu.Unlock()
	if err := h.WriteFile(s.pid, []byte(strconv.Itoa(master.PID())+"\n"), 0o644); err != nil {
		master.Exit()
		return fmt.Errorf("[emerg] open() %q failed (%w)", s.pid, err)
	}
	return n.worker(h, s)
}

// worker starts a new worker for s, the one that gets all new requests, and
// retires the one before it.
func (n *Nginx) worker(h *host.Host, s *site) error {
	n.mu.Lock()
	master := n.master
	n.mu.Unlock()
	if master == nil {
		return errors.New("[alert] the master process is gone")
	}
	proc, err := h.Spawn(host.Process{
		Title: "nginx: worker process", Args: []string{"nginx: worker process"}, User: "root",
		PPID: master.PID(), Unit: master.Unit, OnTerm: func() {},
	})
	if err != nil {
		return fmt.Errorf("[alert] fork() failed: %w", err)
	}
	n.mu.Lock()
	if n.master != master { // it ended meanwhile and takes its workers along
		n.mu.Unlock()
		proc.Exit()
		return errors.New("[alert] the master process is gone")
	}
	old := n.current
	n.number++
	n.current = &generation{site: s, proc: proc, pools: map[*upstream]*http.Transport{}}
	n.note()
	var idle *host.Process
	if old != nil {
		old.retiring = true
		if old.active == 0 {
			idle = old.proc
		}
	}
	n.mu.Unlock()
	if old != nil {
		old.proc.SetTitle("nginx: worker process is shutting down")
		n.closeIdle(old)
	}
	if idle != nil {
		idle.Exit()
	}
	return nil
}

// reload follows the files from now on.
func (n *Nginx) reload(h *host.Host, s *site) error {
	n.mu.Lock()
	master, current := n.master, n.current
	n.mu.Unlock()
	if master == nil || current == nil {
		return fmt.Errorf("[error] open() %q failed (2: No such file or directory)", s.pid)
	}
	if !slices.Equal(s.ports, current.site.ports) {
		n.refuse(fmt.Sprintf("nginx -s reload with other ports: %v, not %v", s.ports, current.site.ports))
		return fmt.Errorf("[emerg] the simulated nginx cannot change the ports it listens on by a reload")
	}
	return n.worker(h, s)
}

// quit ends the program, requests under way included, as SIGTERM does.
func (n *Nginx) quit() {
	n.mu.Lock()
	master := n.master
	n.mu.Unlock()
	if master != nil {
		master.Exit()
	}
}

// gone takes note that the master process has ended, in whatever way, the
// loss of power included. Its workers end with it.
func (n *Nginx) gone() {
	n.mu.Lock()
	g := n.current
	n.master, n.current = nil, nil
	n.mu.Unlock()
	if g != nil {
		// OnExit must not block, and Exit waits for requests to be cut.
		go func() {
			n.closeIdle(g)
			g.proc.Exit()
		}()
	}
}

func (n *Nginx) closeIdle(g *generation) {
	n.mu.Lock()
	pools := slices.Collect(maps.Values(g.pools))
	n.mu.Unlock()
	for _, t := range pools {
		t.CloseIdleConnections()
	}
}

// note brings the lowest numbers of servers in use up to date. The caller
// holds n.mu.
func (n *Nginx) note() {
	if n.current == nil {
		return
	}
	now := time.Now()
	for _, u := range n.current.site.upstreams {
		c := 0
		for _, p := range u.peers {
			if !p.backup && !p.down && !p.until.After(now) {
				c++
			}
		}
		name := u.name + " on " + n.name
		if old, ok := n.lowest[name]; !ok || c < old {
			n.lowest[name] = c
		}
	}
}

// serve answers one request by the current generation.
func (n *Nginx) serve(h *host.Host, w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	g := n.current
	if g == nil {
		n.mu.Unlock()
		panic(http.ErrAbortHandler) // the program is ending: no answer
	}
	g.active++
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		g.active--
		last := g.retiring && g.active == 0
		n.mu.Unlock()
		if last {
			n.closeIdle(g)
			g.proc.Exit()
		}
	}()
	s := g.site.find(listenPort(h, g.site, r), r.Host)
	if s == nil {
		http.NotFound(w, r)
		return
	}
	if s.status != 0 {
		reply(w, s.status, s.text)
		return
	}
	l := s.find(r.URL.Path)
	switch {
	case l == nil:
		http.NotFound(w, r) // nginx would look for a file; these hosts serve none
	case l.status != 0:
		reply(w, l.status, l.text)
	case l.pass == nil:
		http.NotFound(w, r)
	default:
		n.proxy(g, l, w, r)
	}
}

func reply(w http.ResponseWriter, status int, text string) {
	if status/100 == 3 {
		w.Header().Set("Location", text)
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, text)
}

// listenPort is the port of the world behind the loopback port that a request
// came in on.
func listenPort(h *host.Host, s *site, r *http.Request) int {
	if len(s.ports) == 1 {
		return s.ports[0]
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	for _, p := range s.ports {
		if a, ok := h.Endpoint(p); ok && local != nil && a == local.String() {
			return p
		}
	}
	return 0
}

// proxy carries a request to one of the location's servers.
func (n *Nginx) proxy(g *generation, l *location, w http.ResponseWriter, r *http.Request) {
	if l.hasURI {
		r = r.Clone(r.Context())
		r.URL.Path = l.uri + strings.TrimPrefix(r.URL.Path, l.prefix)
		r.URL.RawPath = ""
	}
	rt := &balanced{n: n, l: l, pool: n.pool(g, l.pass)}
	proxyTo(rt, l.host, l.host, nil).ServeHTTP(w, r)
}

// pool holds a generation's connections to an upstream.
func (n *Nginx) pool(g *generation, u *upstream) *http.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := g.pools[u]
	if t == nil {
		t = &http.Transport{
			DisableKeepAlives:   u.keep == 0,
			MaxIdleConns:        u.keep,
			MaxIdleConnsPerHost: u.keep,
			IdleConnTimeout:     60 * time.Second,
			DisableCompression:  true,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				c, err := n.dial(ctx, n.addr, addr)
				if err != nil {
					return nil, &connectError{addr, err}
				}
				return c, nil
			},
		}
		g.pools[u] = t
	}
	return t
}

// A connectError is a server that could not be reached: it has seen nothing
// of the request, so another may have it.
type connectError struct {
	addr string
	err  error
}

func (e *connectError) Error() string { return "cannot connect to " + e.addr + ": " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// balanced sends a request to the servers of an upstream in turn until one
// can be reached.
type balanced struct {
	n    *Nginx
	l    *location
	pool *http.Transport
}

func (b *balanced) RoundTrip(r *http.Request) (*http.Response, error) {
	tried := map[*peer]bool{}
	err := fmt.Errorf("no live upstreams while connecting to upstream %q", b.l.pass.name)
	for {
		p := b.n.pick(b.l.pass, tried)
		if p == nil {
			return nil, err
		}
		tried[p] = true
		out := r.Clone(r.Context())
		out.URL.Host = p.addr
		resp, rerr := b.pool.RoundTrip(out)
		if rerr == nil {
			b.n.reached(p)
			return resp, nil
		}
		err = rerr
		var unreachable *connectError
		if !errors.As(rerr, &unreachable) || r.Context().Err() != nil {
			return nil, err
		}
		b.n.failed(b.l.pass, p)
		if !b.l.next || (r.Body != nil && r.Body != http.NoBody) {
			return nil, err
		}
	}
}

// pick chooses the next server by smooth weighted round robin: primaries
// while there is one to ask, else backups.
func (n *Nginx) pick(u *upstream, tried map[*peer]bool) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, backup := range []bool{false, true} {
		var best *peer
		total := 0
		for _, p := range u.peers {
			if p.backup != backup || p.down || tried[p] || (p.until.After(now) && len(u.peers) > 1) {
				continue
			}
			p.current += p.weight
			total += p.weight
			if best == nil || p.current > best.current {
				best = p
			}
		}
		if best != nil {
			best.current -= total
			return best
		}
	}
	return nil
}

func (n *Nginx) reached(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.fails, p.until = 0, time.Time{}
}

// failed counts an unreachable server; after max_fails of them it is not
// asked for fail_timeout.
func (n *Nginx) failed(u *upstream, p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.fails++
	if p.maxFails > 0 && p.fails >= p.maxFails && u.group {
		p.fails, p.until = 0, time.Now().Add(p.failTimeout)
		n.note()
	}
}

// Behind says where requests for / of a port go, whatever their Host: to which
// servers that are in use, none when nginx answers by itself. ok: it runs and
// listens there.
func (n *Nginx) Behind(port int) (servers []string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current == nil || !slices.Contains(n.current.site.ports, port) {
		return nil, false
	}
	s := n.current.site.find(port, "")
	if s == nil || s.status != 0 {
		return nil, s != nil
	}
	l := s.find("/")
	if l == nil || l.pass == nil {
		return nil, true
	}
	for _, p := range l.pass.peers {
		if !p.down {
			servers = append(servers, p.addr)
		}
	}
	return servers, len(servers) > 0
}
