package firstbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const haproxyFile = "/etc/haproxy/haproxy.cfg"

// proxyConfig is a haproxy.cfg, as far as it decides where a connection goes.
type proxyConfig struct {
	fronts map[int]*front // by port
}

type front struct {
	name    string
	balance string // "roundrobin" or "source"
	servers []backend
	next    int
}

type backend struct {
	name string
	addr netip.AddrPort
}

// proxyWords are the directives that change nothing in this world.
var proxyWords = []string{
	"log", "chroot", "pidfile", "maxconn", "user", "group", "daemon", "stats", "mode", "option", "retries", "timeout",
	"contimeout", "clitimeout", "srvtimeout", "default-server", "nbproc", "spread-checks", "tune.ssl.default-dh-param",
}

// parseHAProxy reads haproxy.cfg in the words of the programs of 14.04 and
// 16.04, which know "listen NAME ADDR:PORT" as well as bind.
func parseHAProxy(text string) (*proxyConfig, []string) {
	c := &proxyConfig{fronts: map[int]*front{}}
	var errs []string
	section, cur := "", (*front)(nil)
	alert := func(n int, format string, a ...any) {
		errs = append(errs, fmt.Sprintf("[ALERT] 000/000000 (1) : parsing [%s:%d] : %s", haproxyFile, n, fmt.Sprintf(format, a...)))
	}
	bind := func(n int, addr string) {
		port, err := strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
		if err != nil || !strings.Contains(addr, ":") {
			alert(n, "'bind' : missing port number in '%s'", addr)
			return
		}
		if c.fronts[port] != nil && c.fronts[port] != cur {
			alert(n, "port %d is bound twice", port)
			return
		}
		c.fronts[port] = cur
	}
	for i, line := range strings.Split(text, "\n") {
		n := i + 1
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "global", "defaults":
			section, cur = f[0], nil
			continue
		case "listen":
			if len(f) < 2 {
				alert(n, "'listen' expects an <id> argument")
				continue
			}
			section, cur = "listen", &front{name: f[1], balance: "roundrobin"}
			if len(f) > 2 {
				bind(n, f[2])
			}
			continue
		case "frontend", "backend", "userlist", "peers":
			alert(n, "section '%s' is not simulated", f[0])
			section, cur = "", nil
			continue
		}
		switch {
		case section == "":
			alert(n, "unknown keyword '%s' out of section", f[0])
		case slices.Contains(proxyWords, f[0]):
		case cur == nil:
			alert(n, "unknown keyword '%s' in '%s' section", f[0], section)
		case f[0] == "bind" && len(f) >= 2:
			bind(n, f[1])
		case f[0] == "balance" && len(f) >= 2 && (f[1] == "roundrobin" || f[1] == "source" || f[1] == "leastconn"):
			cur.balance = f[1]
		case f[0] == "server" && len(f) >= 3:
			addr, err := netip.ParseAddrPort(f[2])
			if err != nil {
				alert(n, "'server %s' : invalid address: '%s'", f[1], f[2])
				continue
			}
			cur.servers = append(cur.servers, backend{f[1], addr})
		default:
			alert(n, "unknown keyword '%s' in 'listen' section", f[0])
		}
	}
	if len(errs) > 0 {
		errs = append(errs, "[ALERT] 000/000000 (1) : Error(s) found in configuration file : "+haproxyFile, "[ALERT] 000/000000 (1) : Fatal errors found in configuration.")
	}
	return c, errs
}

// cmdHAProxy is haproxy -c -f FILE, haproxy -v, and haproxy -f FILE in the
// foreground, as its unit starts it.
func (s *Site) cmdHAProxy(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	version := "1.4.24 2013/06/17"
	if m.release() != "14.04" {
		version = "1.6.3 2015/12/25"
	}
	args := p.Args[1:]
	check, file, foreground := false, "", false
	for len(args) > 0 {
		switch {
		case args[0] == "-c":
			check = true
		case args[0] == "-v", args[0] == "-vv":
			fmt.Fprintf(p.Stdout, "HA-Proxy version %s\n", version)
			return 0
		case args[0] == "-f" && len(args) > 1:
			file, args = args[1], args[1:]
		case args[0] == "-db":
			foreground = true
		case args[0] == "-q", args[0] == "-V":
		default:
			return p.Refusef("option %s", args[0])
		}
		args = args[1:]
	}
	if file == "" || check == foreground {
		return p.Refusef("only haproxy -c -f FILE and haproxy -db -f FILE")
	}
	data, err := p.Host.ReadFile(p.Path(file))
	if err != nil {
		fmt.Fprintf(p.Stderr, "[ALERT] 000/000000 (1) : Could not open configuration file %s : No such file or directory\n", file)
		return 1
	}
	config, errs := parseHAProxy(string(data))
	for _, line := range errs {
		fmt.Fprintln(p.Stderr, line)
	}
	if len(errs) > 0 {
		return 1
	}
	if check {
		fmt.Fprintln(p.Stdout, "Configuration file is valid")
		return 0
	}
	var ports []int
	for port := range config.fronts {
		ports = append(ports, port)
	}
	slices.Sort(ports)
	// The connections are followed by Site.Open; what listens here is for
	// whoever asks over the simulated network.
	d := host.Process{Args: []string{"/usr/sbin/haproxy", "-f", file, "-D", "-p", "/var/run/haproxy.pid"}, Ports: ports, Handler: s.webOf(m)}
	worker, err := p.Spawn(d)
	if err != nil {
		fmt.Fprintf(p.Stderr, "[ALERT] 000/000000 (1) : Starting proxy: cannot bind socket: %v\n", err)
		return 1
	}
	s.mu.Lock()
	m.proxy = config
	s.mu.Unlock()
	select { // as long as the process lives
	case <-ctx.Done():
	case <-worker.Done():
	}
	worker.Exit()
	s.mu.Lock()
	if m.proxy == config { // and no reload has put another in its place
		m.proxy = nil
		m.cut("haproxy of " + m.label + " ended")
	}
	s.mu.Unlock()
	return 0
}

// reloadHAProxy takes the file as it is now; connections under way stay.
func (s *Site) reloadHAProxy(m *Machine) error {
	data, err := m.Host.ReadFile(haproxyFile)
	if err != nil {
		return err
	}
	config, errs := parseHAProxy(string(data))
	if len(errs) > 0 {
		return errors.New(strings.Join(errs, "\n"))
	}
	s.mu.Lock()
	running, same := m.proxy != nil, false
	if running {
		if same = slices.Equal(portsOf(m.proxy), portsOf(config)); same {
			m.proxy.fronts = config.fronts
		} else {
			m.proxy = config
		}
	}
	s.mu.Unlock()
	switch {
	case !running:
		return m.Host.StartUnit("haproxy")
	case same:
		return nil
	}
	// A process here cannot open one more port: a new one takes over. What it
	// follows, m.proxy, is there all the while, so that no connection notices.
	m.Host.StopUnit("haproxy")
	return m.Host.StartUnit("haproxy")
}

func portsOf(c *proxyConfig) []int {
	var out []int
	for p := range c.fronts {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// patience is how long, of real time, the site waits for what its own goroutines
// do now: on a busy machine that takes longer than the world's clock allows.
const patience = 20 * time.Second

// settle waits for something that other goroutines of a host do now.
func (s *Site) settle(done func() bool) bool {
	look := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return done()
	}
	for began := time.Now(); !look(); {
		t := time.NewTimer(5 * time.Millisecond)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return false
		}
		if time.Since(began) > patience {
			return false
		}
	}
	return true
}

// within tells whether a limit of the world, counted from began, is not over: in
// a world that is fast it is not before the site's own patience is.
func (s *Site) within(began time.Time, limit time.Duration) bool {
	return time.Since(began) < max(time.Duration(float64(limit)/s.opt.Speed), patience)
}

// A Flow is a connection of a client through a virtual address.
type Flow struct {
	Server string // machine that answers

	vip   netip.Addr
	ends  []*Machine
	cut   chan struct{} // closed when it is cut
	why   string
	isCut bool
}

// Cut is closed when the connection is cut; Why says by what.
func (f *Flow) Cut() <-chan struct{} { return f.cut }

// Why is what cut the flow.
func (f *Flow) Why() string { return f.why }

// errNoBackend is a connection that haproxy took and closed again.
var errNoBackend = errors.New("closed without an answer: no server of the front end is reachable")

// Open connects a client outside with a port of a virtual address, through
// the haproxy of whoever holds it. It does not wait: a client whose packets get
// no answer (syscall.ETIMEDOUT, EHOSTUNREACH) tries again as TCP does.
func (s *Site) Open(vip string, port int) (*Flow, error) {
	return s.OpenFront(vip, Front{Port: port})
}

// OpenFront is Open for what clients ask for: a name server has to know the
// name.
func (s *Site) OpenFront(vip string, front Front) (*Flow, error) {
	ip, err := netip.ParseAddr(vip)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.reach(s.router, ip)
	if err != nil {
		return nil, err
	}
	server, err := s.through(m, front.Port)
	if err != nil {
		return nil, err
	}
	if front.Asks != "" && server.dns.address(front.Asks) == "" {
		return nil, fmt.Errorf("%s does not know %s", server.label, front.Asks)
	}
	f := &Flow{Server: server.label, vip: ip, ends: []*Machine{m, server}, cut: make(chan struct{})}
	for _, e := range f.ends {
		e.flows[f] = true
	}
	return f, nil
}

// Close ends a flow in good order.
func (s *Site) CloseFlow(f *Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range f.ends {
		delete(e.flows, f)
	}
}

// through picks the server that a connection to a port of a machine ends at.
// Site.mu is held.
func (s *Site) through(m *Machine, port int) (*Machine, error) {
	if m.proxy == nil {
		if s.listens(m, port) {
			return m, nil
		}
		return nil, fmt.Errorf("%s port %d: %w", m.label, port, syscall.ECONNREFUSED)
	}
	fr := m.proxy.fronts[port]
	if fr == nil {
		return nil, fmt.Errorf("%s port %d: %w", m.label, port, syscall.ECONNREFUSED)
	}
	for range fr.servers { // option redispatch
		b := fr.servers[fr.next%len(fr.servers)]
		if fr.balance != "source" {
			fr.next++
		}
		far, err := s.reach(m, b.addr.Addr())
		if err == nil && s.listens(far, int(b.addr.Port())) {
			return far, nil
		}
		if fr.balance == "source" {
			fr.next++ // the server is down for the hash as well
		}
	}
	return nil, fmt.Errorf("%s %s: %w", m.label, fr.name, errNoBackend)
}

// listens reports whether a program of a machine answers on a port. Site.mu is
// held.
func (s *Site) listens(m *Machine, port int) bool {
	if m.Host == nil {
		return m.ports[port]
	}
	if m.super != nil && m.super.listens(port) {
		return true
	}
	if m.dns != nil && port == 53 {
		return true
	}
	return m.proxy != nil && m.proxy.fronts[port] != nil || s.webListens(m, port)
}

// cut ends every flow through a machine. Site.mu is held.
func (m *Machine) cut(why string) {
	for f := range m.flows {
		f.end(why)
	}
}

// cutVIP ends the flows that came in by an address which the machine lost.
func (m *Machine) cutVIP(ip netip.Addr) {
	for f := range m.flows {
		if f.vip == ip && f.ends[0] == m {
			f.end(m.label + " lost " + ip.String())
		}
	}
}

func (f *Flow) end(why string) {
	if !f.isCut {
		f.isCut, f.why = true, why
		close(f.cut)
	}
	for _, e := range f.ends {
		delete(e.flows, f)
	}
}

// webOf answers requests that come over the simulated network to a port of a
// machine, as whoever is behind it would.
func (s *Site) webOf(m *Machine) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port := 80
		if _, p, ok := strings.Cut(r.Host, ":"); ok {
			port, _ = strconv.Atoi(p)
		}
		s.mu.Lock()
		server, err := s.through(m, port)
		s.mu.Unlock()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<html><head><title>QingCloud console</title></head><body>%s</body></html>\n", server.label)
	})
}
