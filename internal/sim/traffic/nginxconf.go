package traffic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/nginx"
)

// A directive is one directive of a configuration whose includes are
// resolved.
type directive struct {
	name  string
	args  []string
	block []directive
	open  bool // has a block, perhaps an empty one
	file  string
	line  int
	end   int // line on which it ends
}

// at words an error as nginx does.
func (d directive) at(format string, args ...any) error {
	return fmt.Errorf("%s in %s:%d", fmt.Sprintf(format, args...), d.file, d.line)
}

// load reads a configuration from a host's tree, includes resolved.
func load(ctx context.Context, fsys nginx.FS, main string) ([]directive, error) {
	tree, err := nginx.Load(ctx, fsys, main)
	if err != nil {
		return nil, wording(err)
	}
	return expand(tree, tree.Main().Directives()), nil
}

// expand puts the directives of included files in the place of the include.
func expand(t *nginx.Tree, ds iter.Seq[nginx.Directive]) []directive {
	var out []directive
	for d := range ds {
		if d.Name() == "include" {
			for _, f := range t.Included(d) {
				out = append(out, expand(t, f.Directives())...)
			}
			continue
		}
		e := directive{name: d.Name(), args: d.Args(), open: d.IsBlock(), file: d.File().Name(), line: d.Line()}
		e.end = d.File().Position(d.Body().End).Line
		if e.open && e.name != "types" {
			e.block = expand(t, d.Children())
		}
		out = append(out, e)
	}
	return out
}

// wording puts an error of the nginx package as nginx prints it.
func wording(err error) error {
	if e, ok := errors.AsType[*nginx.SyntaxError](err); ok {
		return fmt.Errorf("%s in %s:%d", e.Msg, e.File, e.Line)
	}
	if e, ok := errors.AsType[*nginx.IncludeError](err); ok {
		what := fmt.Sprintf("open() %q failed (%v)", e.Name, e.Err)
		if errors.Is(e.Err, fs.ErrNotExist) {
			what = fmt.Sprintf("open() %q failed (2: No such file or directory)", e.Name)
		}
		if e.File == "" {
			return errors.New(what)
		}
		return fmt.Errorf("%s in %s:%d", what, e.File, e.Line)
	}
	return err
}

// An unsupported error is a directive that nginx knows and this simulation
// does not: following the file without it could route requests wrongly.
type unsupported struct {
	directive directive
	why       string
}

func (e *unsupported) Error() string {
	return e.directive.at("the simulated nginx cannot follow %q%s", e.directive.name, e.why).Error()
}

// A site is a configuration as the running program uses it.
type site struct {
	pid       string // file
	servers   []*server
	upstreams map[string]*upstream // by lower-case name
	ports     []int                // sorted
}

type server struct {
	listens   []listen
	names     []string
	locations []*location
	status    int // of return; 0 = none
	text      string
}

type listen struct {
	port     int
	fallback bool // default_server
}

type location struct {
	exact  bool
	prefix string
	pass   *upstream // nil = none
	uri    string    // replaces prefix when hasURI
	hasURI bool
	host   string // Host header sent on, as proxy_pass names it
	next   bool   // try another server when one cannot be reached
	status int
	text   string
}

type upstream struct {
	name  string
	group bool // an upstream block, not the address in a proxy_pass
	peers []*peer
	keep  int // idle connections kept; 0 = one connection per request
}

type peer struct {
	addr        string
	weight      int
	backup      bool
	down        bool
	maxFails    int
	failTimeout time.Duration

	// Guarded by Nginx.mu.
	current int
	fails   int
	until   time.Time // not asked before
}

// Directives that do not change which server gets a request.
var (
	ignoredMain   = words("user worker_processes worker_cpu_affinity worker_priority worker_rlimit_nofile worker_shutdown_timeout error_log")
	ignoredEvents = words("worker_connections use multi_accept accept_mutex")
	ignoredHTTP   = words(`default_type log_format access_log error_log sendfile tcp_nopush tcp_nodelay
		keepalive_timeout keepalive_requests types_hash_max_size types_hash_bucket_size server_names_hash_bucket_size
		server_names_hash_max_size server_tokens client_max_body_size client_body_buffer_size client_header_buffer_size
		large_client_header_buffers client_body_timeout client_header_timeout send_timeout charset types
		reset_timedout_connection gzip gzip_vary gzip_proxied gzip_comp_level gzip_buffers gzip_http_version gzip_types
		gzip_min_length gzip_disable proxy_set_header proxy_hide_header proxy_pass_header proxy_http_version
		proxy_connect_timeout proxy_read_timeout proxy_send_timeout proxy_buffering proxy_request_buffering proxy_buffers
		proxy_buffer_size proxy_busy_buffers_size proxy_redirect proxy_temp_path proxy_max_temp_file_size
		proxy_headers_hash_max_size proxy_headers_hash_bucket_size add_header expires root index
		ssl_protocols ssl_prefer_server_ciphers`)
	ignoredUpstream = words("zone keepalive_timeout keepalive_requests keepalive_time")
)

// Directives with and without a block that the program follows.
var (
	blocks     = words("events http upstream location types")
	directives = words("pid server keepalive listen server_name return proxy_pass proxy_next_upstream")
)

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// compile applies nginx's rules to a configuration. resolves says whether the
// host knows a name.
func compile(main string, ds []directive, resolves func(name string) bool) (*site, error) {
	c := &compiler{site: &site{pid: "/run/nginx.pid", upstreams: map[string]*upstream{}}, resolves: resolves}
	if err := braces("", ds); err != nil {
		return nil, err
	}
	events := false
	for _, d := range ds {
		switch {
		case ignoredMain[d.name]:
		case d.name == "pid":
			if len(d.args) != 1 {
				return nil, d.at("invalid number of arguments in %q directive", d.name)
			}
			c.site.pid = d.args[0]
		case d.name == "events":
			events = true
			for _, e := range d.block {
				if !ignoredEvents[e.name] {
					return nil, unknown(e)
				}
			}
		case d.name == "http":
			if err := c.http(d); err != nil {
				return nil, err
			}
		default:
			return nil, unknown(d)
		}
	}
	if !events {
		return nil, errors.New(`no "events" section in configuration`)
	}
	for _, s := range c.site.servers {
		for _, l := range s.listens {
			if !slices.Contains(c.site.ports, l.port) {
				c.site.ports = append(c.site.ports, l.port)
			}
		}
	}
	slices.Sort(c.site.ports)
	if len(c.site.ports) == 0 {
		return nil, fmt.Errorf("no server listens in %s", main)
	}
	return c.site, nil
}

// braces checks which directives have a block. Directives that are in no table
// are left to the checks that refuse them.
func braces(parent string, ds []directive) error {
	for _, d := range ds {
		block := blocks[d.name] || d.name == "server" && parent != "upstream"
		simple := ignoredHTTP[d.name] || ignoredMain[d.name] || ignoredEvents[d.name] || ignoredUpstream[d.name] || directives[d.name]
		switch {
		case block && !d.open:
			return d.at("directive %q has no opening \"{\"", d.name)
		case !block && simple && d.open:
			return d.at("directive %q is not terminated by \";\"", d.name)
		}
		if err := braces(d.name, d.block); err != nil {
			return err
		}
	}
	return nil
}

// unknown is the answer to a directive that is in none of the tables: either
// nginx does not know it, or it means something this simulation cannot do.
func unknown(d directive) error { return &unsupported{directive: d} }

type compiler struct {
	site     *site
	resolves func(string) bool
}

func (c *compiler) http(h directive) error {
	// An upstream may stand behind its use, so they all come first.
	for _, d := range h.block {
		if d.name != "upstream" {
			continue
		}
		u, err := c.upstream(d)
		if err != nil {
			return err
		}
		key := strings.ToLower(u.name)
		if c.site.upstreams[key] != nil {
			return d.at("duplicate upstream %q", u.name)
		}
		c.site.upstreams[key] = u
	}
	next := true
	for _, d := range h.block {
		if d.name == "proxy_next_upstream" {
			var err error
			if next, err = nextUpstream(d); err != nil {
				return err
			}
		}
	}
	for _, d := range h.block {
		switch {
		case ignoredHTTP[d.name], d.name == "upstream", d.name == "proxy_next_upstream":
		case d.name == "server":
			if err := c.server(d, next); err != nil {
				return err
			}
		default:
			return unknown(d)
		}
	}
	return nil
}

// nextUpstream says whether a server that cannot be reached is left for
// another. Retrying on answers is not simulated.
func nextUpstream(d directive) (bool, error) {
	if slices.Equal(d.args, []string{"off"}) {
		return false, nil
	}
	for _, a := range d.args {
		if a != "error" && a != "timeout" {
			return false, &unsupported{d, " " + a}
		}
	}
	return slices.Contains(d.args, "error"), nil
}

func (c *compiler) upstream(d directive) (*upstream, error) {
	if len(d.args) != 1 {
		return nil, d.at("invalid number of arguments in %q directive", d.name)
	}
	u := &upstream{name: d.args[0], group: true}
	primaries := 0
	for _, s := range d.block {
		switch {
		case s.name == "server":
			p, err := c.peer(s)
			if err != nil {
				return nil, err
			}
			if !p.backup {
				primaries++
			}
			u.peers = append(u.peers, p)
		case s.name == "keepalive":
			n, err := strconv.Atoi(strings.Join(s.args, " "))
			if err != nil || n < 0 {
				return nil, s.at("invalid value %q in %q directive", strings.Join(s.args, " "), s.name)
			}
			u.keep = n
		case ignoredUpstream[s.name]:
		default:
			return nil, unknown(s)
		}
	}
	if len(u.peers) == 0 {
		// nginx notices it when it has read the closing brace.
		return nil, fmt.Errorf("no servers are inside upstream in %s:%d", d.file, d.end)
	}
	if primaries == 0 {
		return nil, d.at("no servers in upstream %q", u.name)
	}
	return u, nil
}

func (c *compiler) peer(s directive) (*peer, error) {
	if len(s.args) == 0 {
		return nil, s.at("invalid number of arguments in %q directive", s.name)
	}
	addr, err := c.address(s, s.args[0])
	if err != nil {
		return nil, err
	}
	p := &peer{addr: addr, weight: 1, maxFails: 1, failTimeout: 10 * time.Second}
	for _, a := range s.args[1:] {
		key, value, _ := strings.Cut(a, "=")
		n, nerr := strconv.Atoi(value)
		bad := false
		switch key {
		case "weight":
			p.weight, bad = n, nerr != nil || n < 1
		case "max_fails":
			p.maxFails, bad = n, nerr != nil || n < 0
		case "fail_timeout":
			p.failTimeout, bad = nginxTime(value)
		case "max_conns":
			bad = nerr != nil
			if n != 0 {
				return nil, &unsupported{s, " " + a}
			}
		case "backup":
			p.backup, bad = true, value != ""
		case "down":
			p.down, bad = true, value != ""
		default:
			bad = true
		}
		if bad {
			return nil, s.at("invalid parameter %q", a)
		}
	}
	return p, nil
}

// nginxTime reads "10", "10s", "500ms", "2m".
func nginxTime(v string) (d time.Duration, bad bool) {
	if _, err := strconv.Atoi(v); err == nil {
		v += "s"
	}
	d, err := time.ParseDuration(v)
	return d, err != nil || d < 0
}

// address checks a server's address and completes its port.
func (c *compiler) address(d directive, a string) (string, error) {
	host, port := a, "80"
	if i := strings.LastIndexByte(a, ':'); i >= 0 {
		host, port = a[:i], a[i+1:]
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "", d.at("invalid port in upstream %q", a)
		}
	}
	if strings.HasPrefix(a, "unix:") || strings.HasPrefix(a, "[") {
		return "", &unsupported{d, " with the address " + a}
	}
	if _, err := netip.ParseAddr(host); err != nil && !c.resolves(host) {
		return "", d.at("host not found in upstream %q", a)
	}
	return net.JoinHostPort(host, port), nil
}

func (c *compiler) server(d directive, next bool) error {
	s := &server{}
	for _, e := range d.block {
		if e.name == "proxy_next_upstream" {
			var err error
			if next, err = nextUpstream(e); err != nil {
				return err
			}
		}
	}
	for _, e := range d.block {
		switch {
		case ignoredHTTP[e.name], e.name == "proxy_next_upstream":
		case e.name == "listen":
			l, ok, err := parseListen(e)
			if err != nil {
				return err
			}
			if ok {
				s.listens = append(s.listens, l)
			}
		case e.name == "server_name":
			for _, n := range e.args {
				if strings.HasPrefix(n, "~") {
					return &unsupported{e, " with a regular expression"}
				}
				s.names = append(s.names, strings.ToLower(n))
			}
		case e.name == "location":
			l, err := c.location(e, next)
			if err != nil {
				return err
			}
			s.locations = append(s.locations, l)
		case e.name == "return":
			var err error
			if s.status, s.text, err = parseReturn(e); err != nil {
				return err
			}
		default:
			return unknown(e)
		}
	}
	if len(s.listens) == 0 {
		s.listens = []listen{{port: 80}}
	}
	c.site.servers = append(c.site.servers, s)
	return nil
}

// parseListen reads a listen directive. IPv6 addresses are read past: the
// world has none.
func parseListen(d directive) (l listen, ok bool, err error) {
	if len(d.args) == 0 {
		return l, false, d.at("invalid number of arguments in %q directive", d.name)
	}
	for _, a := range d.args[1:] {
		switch a {
		case "default_server", "default":
			l.fallback = true
		case "reuseport", "deferred":
		default:
			return l, false, &unsupported{d, " " + a}
		}
	}
	a := d.args[0]
	if strings.HasPrefix(a, "[") {
		return l, false, nil
	}
	if i := strings.LastIndexByte(a, ':'); i >= 0 {
		a = a[i+1:]
	} else if strings.Contains(a, ".") || a == "*" {
		a = "80"
	}
	n, err := strconv.Atoi(a)
	if err != nil || n < 1 || n > 65535 {
		return l, false, d.at("invalid port in %q of the %q directive", d.args[0], d.name)
	}
	l.port = n
	return l, true, nil
}

func parseReturn(d directive) (status int, text string, err error) {
	if len(d.args) == 0 || len(d.args) > 2 {
		return 0, "", d.at("invalid number of arguments in %q directive", d.name)
	}
	status, err = strconv.Atoi(d.args[0])
	if err != nil || status < 200 || status > 599 {
		return 0, "", d.at("invalid return code %q", d.args[0])
	}
	if len(d.args) == 2 {
		text = d.args[1]
	}
	if strings.Contains(text, "$") {
		return 0, "", &unsupported{d, " with a variable"}
	}
	return status, text, nil
}

func (c *compiler) location(d directive, next bool) (*location, error) {
	l := &location{next: next}
	switch {
	case len(d.args) == 1 && strings.HasPrefix(d.args[0], "/"):
		l.prefix = d.args[0]
	case len(d.args) == 2 && d.args[0] == "=":
		l.exact, l.prefix = true, d.args[1]
	case len(d.args) == 2 && d.args[0] == "^~":
		l.prefix = d.args[1]
	default:
		return nil, &unsupported{d, " " + strings.Join(d.args, " ")}
	}
	for _, e := range d.block {
		var err error
		switch {
		case ignoredHTTP[e.name]:
		case e.name == "proxy_next_upstream":
			l.next, err = nextUpstream(e)
		case e.name == "return":
			l.status, l.text, err = parseReturn(e)
		case e.name == "proxy_pass":
			err = c.pass(l, e)
		default:
			err = unknown(e)
		}
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// pass reads a proxy_pass: to an upstream block, or straight to an address.
func (c *compiler) pass(l *location, d directive) error {
	if len(d.args) != 1 {
		return d.at("invalid number of arguments in %q directive", d.name)
	}
	raw := d.args[0]
	if strings.Contains(raw, "$") {
		return &unsupported{d, " with a variable"}
	}
	if strings.HasPrefix(raw, "https://") {
		return &unsupported{d, " over https"}
	}
	rest, ok := strings.CutPrefix(raw, "http://")
	if !ok {
		return d.at("invalid URL prefix")
	}
	if l.pass != nil {
		return d.at("%q directive is duplicate", d.name)
	}
	l.host = rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		l.host, l.uri, l.hasURI = rest[:i], rest[i:], true
		if _, err := url.Parse(l.uri); err != nil {
			return d.at("invalid URL %q", raw)
		}
	}
	name, port, _ := strings.Cut(l.host, ":")
	if u := c.site.upstreams[strings.ToLower(name)]; u != nil {
		if port != "" {
			return d.at("upstream %q may not have port %s", name, port)
		}
		l.pass = u
		return nil
	}
	addr, err := c.address(d, l.host)
	if err != nil {
		return err
	}
	l.pass = &upstream{name: l.host, peers: []*peer{{addr: addr, weight: 1}}}
	return nil
}

// find chooses the server of a request as nginx does: by port, then by name,
// else the default one of the port.
func (s *site) find(port int, host string) *server {
	host = strings.ToLower(host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	var first, fallback, wildcard *server
	for _, sv := range s.servers {
		for _, l := range sv.listens {
			if l.port != port {
				continue
			}
			if first == nil {
				first = sv
			}
			if l.fallback {
				fallback = sv
			}
			for _, n := range sv.names {
				if n == host {
					return sv
				}
				if suffix, ok := strings.CutPrefix(n, "*"); ok && wildcard == nil && strings.HasSuffix(host, suffix) {
					wildcard = sv
				}
			}
		}
	}
	switch {
	case wildcard != nil:
		return wildcard
	case fallback != nil:
		return fallback
	}
	return first
}

// find chooses the location of a path: an exact one, else the longest prefix.
func (s *server) find(path string) *location {
	var best *location
	for _, l := range s.locations {
		if l.exact {
			if l.prefix == path {
				return l
			}
			continue
		}
		if strings.HasPrefix(path, l.prefix) && (best == nil || len(l.prefix) > len(best.prefix)) {
			best = l
		}
	}
	return best
}
