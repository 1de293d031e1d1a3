package nginx

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Query says which references are looked for.
type Query struct {
	// Host is an IP address, a host name, or a unix socket as nginx writes it
	// ("unix:/run/app.sock"). Addresses are compared as addresses, whatever
	// their spelling; names without regard to case; sockets byte for byte.
	// Empty means all.
	Host string
	// Port is the port, also one that the configuration leaves to its default.
	// 0 means any.
	Port int
}

// ParseQuery reads HOST, HOST:PORT, an IPv6 address with or without brackets,
// [ADDRESS]:PORT, or unix:/PATH.
func ParseQuery(s string) (Query, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Query{}, badArgument("%q names no socket", s)
		}
		return Query{Host: s}, nil
	}
	host, port := s, ""
	if a, err := netip.ParseAddr(s); err != nil || !a.Is6() {
		if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
			host, port = s[:i], s[i+1:]
			if port == "" {
				return Query{}, badArgument("%q has no port between 1 and 65535", s)
			}
		}
	}
	q := Query{Host: strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Query{}, badArgument("%q has no port between 1 and 65535", s)
		}
		q.Port = int(n)
	}
	if !validHost(q.Host) {
		return Query{}, badArgument("%q is not a host, HOST:PORT or unix:/PATH", s)
	}
	return q, nil
}

// String returns the query as an operator would write it: "172.31.0.90:8080".
func (q Query) String() string {
	if isUnix(q.Host) {
		return q.Host
	}
	host := writtenHost(q.Host)
	if host == "" {
		host = "*"
	}
	if q.Port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(q.Port)
}

// Kind says what a reference is.
type Kind string

const (
	// KindServer is a server line of an upstream.
	KindServer Kind = "server"
	// KindPass is a proxy_pass or another *_pass that names the address itself.
	KindPass Kind = "pass"
	// KindValue is the value of a set, map, geo or split_clients.
	KindValue Kind = "value"
	// KindOff is a directive that Disable turned off.
	KindOff Kind = "off"
	// KindComment is a directive that somebody commented out by hand.
	KindComment Kind = "comment"
	// KindMention is any other word or Lua code in which the address appears,
	// and what gives nginx backends that the files do not name. Mentions are
	// never Certain: only a person can tell what they mean.
	KindMention Kind = "mention"
)

// A Ref is a place of the configuration that refers to an address.
type Ref struct {
	Kind      Kind
	File      string
	Line, Col int // of the directive's or the marker's first byte, from 1
	// Addr is the address as it is written: "172.31.0.90:8080",
	// "http://172.31.0.90:8080/app". Host and Port are read from it. Host is
	// "unix:/path" for a unix socket. Port is the default one where none is
	// written; for a value it may be the port that the pass adds; it is 0 where
	// there is none, or more than one.
	Addr string
	Host string
	Port int
	// Upstream is the name of the upstream block a server line stands in, as
	// written, or of the one a pass goes to.
	Upstream string
	// Protocol is "http", "stream" or "mail"; "" when the file alone does not say.
	Protocol  string
	Directive string // "server", "proxy_pass", "set", "map", …
	// Context names the blocks around it: "http/upstream app". A file that is
	// included at several places gives one Ref with several contexts; Uses is
	// their number.
	Context string
	Uses    int
	// UsedBy lists what sends requests there, or would if it were not commented
	// out: for a server line the passes that go to its upstream, for a value the
	// passes it reaches, for a pass itself, once for each context. It ends after
	// 1,000 entries.
	UsedBy []Use `json:",omitempty"`
	// State holds "active", or "down", and "backup" besides; or "off", or
	// "hand-commented".
	State []string
	// Certain is false where only the running nginx or a person can tell
	// whether it means the address that was asked for; Reason says why.
	Certain bool
	Reason  string
	// Tag is that of our marker: on an off line, or on a server we added.
	Tag string

	d         Directive
	word      int    // the word that holds the address
	target    target // the word taken apart
	escaped   bool   // the word's bytes are not its value
	ports     []int  // a value's ports, when the passes give it several
	variable  string // the variable a value is for
	upstreams []*servers
	marker    *marker
	downMark  *marker // of a server line that we marked down
}

// A Use is a place from which requests go to a reference.
type Use struct {
	File      string
	Line, Col int    // of the directive's first byte, from 1
	Directive string // "proxy_pass", …
	Context   string // "http/server/location /app"
}

// String returns "FILE:LINE: CONTEXT".
func (u Use) String() string { return fmt.Sprintf("%s:%d: %s", u.File, u.Line, u.Context) }

// Has reports whether the reference is in the given state.
func (r Ref) Has(state string) bool { return slices.Contains(r.State, state) }

func (r *Ref) refuse(reason error, detail string) Refusal {
	return Refusal{File: r.File, Line: r.Line, Col: r.Col, Upstream: r.Upstream, Addr: r.Addr, Reason: reason, Detail: detail}
}

// matcher is a Query made ready for many comparisons.
type matcher struct {
	Query
	want     string // normalHost of the host
	addr     bool   // it is an address
	loopback bool
}

func (q Query) matcher() *matcher {
	m := &matcher{Query: q}
	m.want, m.addr = normalHost(q.Host)
	if m.addr {
		a, _ := netip.ParseAddr(m.want)
		m.loopback = a.IsLoopback()
	}
	return m
}

// rules reports at a glance that a word cannot mean what is asked for: it is an
// IPv4 address in the usual form, and another one. That is what most words of a
// large configuration are, and it spares taking them apart.
func (m *matcher) rules(raw []byte) bool {
	if m.Host == "" {
		return false
	}
	n := plainIPv4(raw)
	return n > 0 && (n == len(raw) || raw[n] == ':') && string(raw[:n]) != m.want
}

// matches reports whether the reference may mean what is asked for, and lowers
// Certain where that cannot be told.
func (m *matcher) matches(r *Ref) bool {
	if m.Host == "" {
		return m.Port == 0 || r.Port == m.Port || slices.Contains(r.ports, m.Port)
	}
	if r.Kind == KindPass && r.Upstream != "" {
		return false // its servers are found themselves
	}
	if r.Host == "" {
		return !r.Certain // decided at run time: may be any address
	}
	have, haveAddr := normalHost(r.Host)
	switch {
	case m.want == have:
	case r.target.open && strings.HasPrefix(m.want, strings.ToLower(r.Host)):
		r.uncertain("a variable ends the address")
	case m.addr && !haveAddr && validHost(have) && (have != "localhost" || m.loopback):
		r.uncertain(fmt.Sprintf("the name %s may stand for %s", r.Host, m.Host))
	default:
		return false
	}
	if m.Port == 0 || r.Port == m.Port || slices.Contains(r.ports, m.Port) {
		return true
	}
	if r.Port == 0 && len(r.ports) == 0 && !isUnix(r.Host) {
		r.uncertain("the port is decided elsewhere")
		return true
	}
	return false
}

func (r *Ref) uncertain(reason string) {
	if r.Certain {
		r.Certain, r.Reason = false, reason
	}
}

// Refs returns every reference to the address in the order nginx reads the
// files, our own markers and hand-commented lines among them. A place that
// cannot be decided from the files (a host name, a variable of the request,
// servers that come from elsewhere at run time) is reported with Certain false,
// never left out. A Query without Host returns all references.
func (t *Tree) Refs(q Query) []Ref { return t.collect().query(q) }

func (c *collector) query(q Query) []Ref {
	var out []Ref
	m := q.matcher()
	for i := range c.entries {
		e := &c.entries[i]
		if e.kind == KindServer && m.rules(e.d.Word(int(e.word)).Raw()) {
			continue
		}
		out = c.found(out, e, m)
	}
	for _, r := range c.commented {
		found := *r
		if m.matches(&found) {
			c.usesOf(&found, found.upstreams)
			found.upstreams = nil // it is none of their servers
			out = append(out, found)
		}
	}
	if q.Host != "" {
		out = append(out, c.mentions(m, out)...)
	}
	order := map[string]int{}
	for i, f := range c.t.files {
		order[f.name] = i
	}
	slices.SortStableFunc(out, func(a, b Ref) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return out
}

// collector goes through a tree once and notes all that refers to an address.
// What a place means in words is made of it only when a query asks for it.
type collector struct {
	t         *Tree
	entries   []entry
	index     map[*File][]int32 // for each directive its entry's number + 1
	commented []*Ref            // our off lines and what was commented out by hand
	added     map[Directive]*marker
	downed    map[Directive]*marker
	upstreams []*servers
	names     map[string]*servers // by protocol and name in lower case
	uses      map[*servers]*users
	places    map[*File][]*scope
	passes    []int32 // entries
	values    map[variable][]int32
	opaque    map[variable]string // variables that something else sets, too; and what
	analyses  map[analysisKey]*analysis
	budget    int // combinations of values that may still be tried
}

// An entry is a place that refers to an address, once for each place in a file.
type entry struct {
	d            Directive
	kind         Kind
	word         int32
	uses         int32
	down, backup bool
	sc           *scope
	more         []*scope // further contexts
	info         *info    // nil for server lines
}

// info is what entries other than server lines have besides.
type info struct {
	directive string
	text      string // the word's value
	variable  variable
	reason    string   // why it is not certain
	up        *servers // of a pass: the upstream it goes to
	loose     bool     // of a pass: somewhere else, too

	// Of a value:
	reached  bool // its host is where a pass goes
	named    bool // it names an upstream
	part     bool // it is only a part of an address
	noPort   bool // a pass leaves its port open
	ports    []int
	via      []*analysis
	combined []endpoint // of a pass: addresses put together from several values
	direct   []int      // of a pass: ports that variables give to its own host
}

type endpoint struct {
	host string
	port int
}

// users are the passes that go to an upstream.
type users struct {
	direct []use
	via    []*analysis
}

type use struct {
	d  Directive
	sc *scope
}

// scope is a block in one of the contexts its file is read in.
type scope struct {
	parent *scope
	block  Directive // none for the top of the main file
	proto  string
	kind   scopeKind
	server Directive // the server block around it: variables are set per server
	up     *servers
	path   string
}

type scopeKind uint8

const (
	inOther scopeKind = iota
	inUpstream
	inMap
	inGeo
)

// A variable belongs to a protocol, and one that is set to a server block.
type variable struct {
	proto, name string
	server      Directive
}

// label names the blocks, the outermost first.
func (s *scope) label() string {
	if s.path != "" || s.parent == nil {
		return s.path
	}
	s.path = strings.Join(append([]string{s.block.Name()}, s.block.Args()...), " ")
	if p := s.parent.label(); p != "" {
		s.path = p + "/" + s.path
	}
	return s.path
}

// at returns the scope of a block of f, whose file is read at place.
func (s *scope) at(f *File, node int32) *scope {
	if node < 0 {
		return s
	}
	return s.at(f, f.nodes[node].parent).child(Directive{f, node})
}

// child returns the scope of the content of block.
func (s *scope) child(block Directive) *scope {
	in := &scope{parent: s, block: block, proto: s.proto, server: s.server}
	switch block.word0() {
	case "http", "stream", "mail":
		if s.parent == nil {
			in.proto = block.Name()
		}
	case "server":
		in.server = block
	case "upstream":
		in.kind = inUpstream
	case "map", "split_clients":
		in.kind = inMap
	case "geo":
		in.kind = inGeo
	}
	return in
}

// word0 returns the name for comparisons. For the names that large
// configurations repeat it needs no memory.
func (d Directive) word0() string {
	w := d.f.words[d.node().first]
	if name, ok := commonNames[string(d.f.src[w.start:w.end])]; ok {
		return name
	}
	return d.Name()
}

// commonNames is only read.
var commonNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"server", "upstream", "location", "if", "include", "set", "map", "listen", "server_name", "return", "rewrite", "root",
		"proxy_pass", "fastcgi_pass", "grpc_pass", "uwsgi_pass", "proxy_set_header", "proxy_http_version", "proxy_read_timeout",
		"proxy_connect_timeout", "proxy_redirect", "add_header", "access_log", "error_log", "ssl_certificate", "ssl_certificate_key",
		"keepalive", "keepalive_timeout", "zone", "ip_hash", "least_conn", "hash", "random", "check", "fastcgi_param", "alias", "index",
		"allow", "deny", "default", "expires", "try_files", "client_max_body_size",
	} {
		m[name] = name
	}
	return m
}()

func (t *Tree) collect() *collector {
	c := &collector{
		t: t, index: map[*File][]int32{}, places: map[*File][]*scope{}, values: map[variable][]int32{},
		added: map[Directive]*marker{}, downed: map[Directive]*marker{}, names: map[string]*servers{}, uses: map[*servers]*users{},
		opaque: map[variable]string{}, analyses: map[analysisKey]*analysis{}, budget: maxCombinations,
	}
	total := 0
	for _, f := range t.files {
		c.index[f] = make([]int32, len(f.nodes))
		total += len(f.nodes)
	}
	c.entries = make([]entry, 0, total/3)
	top := &scope{}
	c.places[t.main] = []*scope{top}
	c.walk(t.main, 0, int32(len(t.main.nodes)), top)
	for _, f := range t.files {
		c.comments(f)
	}
	c.resolve()
	return c
}

// walk notes what the directives of a file mean in one context.
func (c *collector) walk(f *File, from, to int32, sc *scope) {
	index := c.index[f]
	for i := from; i < to; i = f.nodes[i].next {
		d := Directive{f, i}
		n := &f.nodes[i]
		if n.close != 0 {
			if isLuaBlock(d.Word(0)) {
				c.code(d, sc)
				continue
			}
			in := sc.child(d)
			if in.kind == inUpstream && d.Len() > 1 {
				in.up = &servers{block: d, name: d.Arg(1), proto: sc.proto}
				c.upstreams = append(c.upstreams, in.up)
				c.names[sc.proto+" "+strings.ToLower(in.up.name)] = in.up
			}
			c.captures(d, sc)
			c.walk(f, i+1, n.next, in)
			continue
		}
		switch sc.kind {
		case inUpstream:
			if sc.up == nil {
				continue
			}
			name := d.word0()
			if name == "include" {
				c.include(d, sc)
				continue
			}
			sc.up.add(d)
			if name == "server" && n.count > 1 {
				c.server(d, sc, index)
			} else if sc.up.dynamic == name {
				c.note(d, sc, 0, KindMention, name).reason = fmt.Sprintf("%s gives upstream %s its servers at run time", name, sc.up.name)
			}
			continue
		case inMap, inGeo:
			name := d.word0()
			switch {
			case name == "include":
				c.include(d, sc)
			case n.count == 2 && !(sc.kind == inGeo && (name == "proxy" || name == "delete")):
				c.captures(d, sc)
				c.value(d, sc, 1, sc.block.Name(), strings.TrimPrefix(sc.block.Arg(sc.block.Len()-1), "$"), Directive{})
			}
			continue
		}
		raw := d.Word(0).Raw()
		if len(raw) > 0 && !interesting[raw[0]] && bytes.IndexByte(raw, '\\') < 0 && !bytes.HasSuffix(raw, []byte("_pass")) {
			continue
		}
		c.leaf(d, sc)
	}
}

// interesting holds the first letters of the directives that leaf looks at.
var interesting = [256]bool{
	'i': true, // include, if
	'p': true, // proxy_pass, pass, perl_set, preread_by_lua
	's': true, // set, set_by_lua, server_rewrite_by_lua, server_name, scgi_pass
	'a': true, // auth_http, auth_request_set, access_by_lua, api
	'j': true, // js_set, js_var, js_content
	'c': true, // content_by_lua
	'r': true, // rewrite_by_lua, rewrite
	'd': true, // dyups_interface
	'u': true, // upstream_conf
	'l': true, // log_by_lua
	'b': true, // body_filter_by_lua, balancer_by_lua
	'h': true, // header_filter_by_lua
}

// leaf notes what a directive outside of upstreams and maps means.
func (c *collector) leaf(d Directive, sc *scope) {
	name := d.word0()
	switch {
	case name == "include":
		c.include(d, sc)
	case isPass(name, sc.proto) && d.Len() == 2:
		c.pass(d, sc, name)
	case (name == "set" || name == "set_if_empty" || name == "js_var") && d.Len() == 3:
		c.value(d, sc, 2, name, strings.TrimPrefix(d.Arg(1), "$"), sc.server)
	case strings.Contains(name, "_by_lua"):
		c.code(d, sc)
	case name == "js_content", name == "js_preread", name == "js_access", name == "perl":
		c.note(d, sc, 0, KindMention, name).reason = name + " runs code that may answer from anywhere"
	case strings.HasPrefix(name, "dyups_interface"), name == "upstream_conf", name == "api" && d.Arg(1) == "write=on":
		c.note(d, sc, 0, KindMention, name).reason = name + " lets others change the servers of upstreams at run time"
	case d.Len() > 1 && d.Word(1).Raw() != nil && bytes.HasPrefix(d.Word(1).Raw(), []byte("$")) && setsVariable(name):
		c.opaque[variable{sc.proto, d.Arg(1)[1:], Directive{}}] = name
	default:
		c.captures(d, sc)
	}
}

// setsVariable reports whether a directive of this name gives the variable that
// follows it a value the files do not tell.
func setsVariable(name string) bool {
	return strings.HasPrefix(name, "set_") || strings.HasSuffix(name, "_set")
}

// captures notes the variables that a regular expression sets.
func (c *collector) captures(d Directive, sc *scope) {
	head := d.Head()
	text := d.f.src[head.Start:head.End]
	for {
		i := bytes.Index(text, []byte("(?"))
		if i < 0 {
			return
		}
		text = bytes.TrimPrefix(text[i+2:], []byte("P"))
		if len(text) == 0 || text[0] != '<' && text[0] != '\'' {
			continue
		}
		n := 1
		for n < len(text) && isNameByte(text[n]) {
			n++
		}
		if n > 1 {
			c.opaque[variable{sc.proto, string(text[1:n]), Directive{}}] = "a regular expression"
		}
		text = text[n:]
	}
}

// code notes what Lua code may do to the way of a request.
func (c *collector) code(d Directive, sc *scope) {
	name := d.Name()
	var text []byte
	if d.IsLua() {
		body := d.Body()
		text = d.f.src[body.Start:body.End]
	} else {
		text = []byte(strings.Join(d.Args(), "\n"))
	}
	if sc.kind == inUpstream && sc.up != nil {
		sc.up.add(d)
		c.note(d, sc, 0, KindMention, name).reason = fmt.Sprintf("%s gives upstream %s its servers at run time", name, sc.up.name)
		return
	}
	if strings.HasPrefix(name, "set_by_lua") && d.Len() > 1 {
		c.opaque[variable{sc.proto, strings.TrimPrefix(d.Arg(1), "$"), Directive{}}] = name
	}
	switch {
	case strings.HasSuffix(name, "_file"):
		if decidesWay(name) {
			c.note(d, sc, 0, KindMention, name).reason = "the code of " + name + " is not read; it may send requests anywhere"
		}
		return
	case opensConnections(text):
		c.note(d, sc, 0, KindMention, name).reason = "Lua code opens connections of its own"
	}
	for _, v := range luaVariables(text) {
		c.opaque[variable{sc.proto, v, Directive{}}] = "Lua code"
	}
}

// decidesWay reports whether Lua code of this directive runs before a request is
// passed on. The other phases cannot decide where it goes.
func decidesWay(name string) bool {
	for _, phase := range []string{"content", "rewrite", "access", "preread", "balancer", "set", "precontent"} {
		if strings.Contains(name, phase+"_by_lua") {
			return true
		}
	}
	return false
}

// opensConnections reports whether Lua code names what connections to backends
// are made with.
func opensConnections(text []byte) bool {
	for _, what := range []string{"ngx.socket", "ngx.balancer", "ngx.upstream", "resty.http", "resty.websocket.client", "resty.upstream"} {
		if bytes.Contains(text, []byte(what)) {
			return true
		}
	}
	return false
}

// luaVariables returns the nginx variables that Lua code sets; "*" stands for
// one that it names by an expression.
func luaVariables(text []byte) []string {
	var out []string
	for {
		i := bytes.Index(text, []byte("ngx.var"))
		if i < 0 {
			return out
		}
		text = text[i+len("ngx.var"):]
		name, rest := "", text
		switch {
		case len(text) > 1 && text[0] == '.':
			n := 1
			for n < len(text) && isNameByte(text[n]) {
				n++
			}
			name, rest = string(text[1:n]), text[n:]
		case len(text) > 1 && text[0] == '[':
			end := bytes.IndexByte(text, ']')
			if end < 0 {
				return out
			}
			name, rest = strings.Trim(string(text[1:end]), " \t\"'"), text[end+1:]
			for j := range len(name) {
				if !isNameByte(name[j]) {
					name = "*"
					break
				}
			}
			if inner := bytes.TrimSpace(text[1:end]); len(inner) == 0 || inner[0] != '"' && inner[0] != '\'' {
				name = "*"
			}
		default:
			continue
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) > 0 && (rest[0] == ',' || rest[0] == '=' && (len(rest) == 1 || rest[1] != '=')) {
			out = append(out, name)
		}
	}
}

// isPass reports whether a directive of this name says where requests go. All
// modules that pass requests on name theirs *_pass.
func isPass(name, proto string) bool {
	return strings.HasSuffix(name, "_pass") || name == "auth_http" || name == "pass" && proto != "http"
}

func (c *collector) include(d Directive, sc *scope) {
	for _, inc := range c.t.includes[d] {
		c.places[inc] = append(c.places[inc], sc)
		c.walk(inc, 0, int32(len(inc.nodes)), sc)
	}
}

// entry returns the number of the entry of a directive, a new one or the one
// that another context made.
func (c *collector) entry(d Directive, sc *scope, kind Kind, word int, index []int32) (number int32, isNew bool) {
	if n := index[d.i]; n != 0 {
		e := &c.entries[n-1]
		e.uses++
		e.more = append(e.more, sc)
		return n - 1, false
	}
	c.entries = append(c.entries, entry{d: d, kind: kind, word: int32(word), uses: 1, sc: sc})
	n := int32(len(c.entries))
	index[d.i] = n
	return n - 1, true
}

func (c *collector) server(d Directive, sc *scope, index []int32) {
	n, isNew := c.entry(d, sc, KindServer, 1, index)
	if isNew {
		m := sc.up.members[len(sc.up.members)-1]
		c.entries[n].down, c.entries[n].backup = m.down, m.backup
	}
}

// note makes an entry that is not a server line.
func (c *collector) note(d Directive, sc *scope, word int, kind Kind, directive string) *info {
	n, isNew := c.entry(d, sc, kind, word, c.index[d.f])
	e := &c.entries[n]
	if isNew {
		e.info = &info{directive: directive}
		if word > 0 {
			e.info.text = d.Word(word).Value()
		}
	}
	return e.info
}

func (c *collector) pass(d Directive, sc *scope, name string) {
	before := len(c.entries)
	c.note(d, sc, 1, KindPass, name)
	if len(c.entries) > before {
		c.passes = append(c.passes, int32(before))
	}
}

func (c *collector) value(d Directive, sc *scope, word int, directive, name string, server Directive) {
	v := variable{sc.proto, name, server}
	before := len(c.entries)
	in := c.note(d, sc, word, KindValue, directive)
	in.variable = v
	n := c.index[d.f][d.i] - 1
	if len(c.entries) > before || !slices.Contains(c.values[v], n) {
		c.values[v] = append(c.values[v], n)
	}
}

// found makes references of an entry, as far as the query means them.
func (c *collector) found(out []Ref, e *entry, m *matcher) []Ref {
	r := c.ref(e)
	in := e.info
	switch e.kind {
	case KindPass:
		for _, at := range in.combined {
			part := r
			part.Host, part.Port, part.target = at.host, at.port, target{}
			part.uncertain("the address is put together from several values")
			if m.Host != "" && m.matches(&part) {
				return append(out, c.finish(part, e))
			}
		}
		if r.Host == "" && r.Certain && r.Upstream == "" {
			// All its variables are set in the files: their values are found.
			return out
		}
	case KindValue:
		if in.named && !in.reached || r.Host == "" {
			return out
		}
		if !in.reached {
			_, err := netip.ParseAddr(r.Host)
			key, _ := normalHost(r.Host)
			if err != nil && r.target.port == 0 && !r.target.unix && (!m.addr || key != m.want) {
				return out // an ordinary word
			}
			if in.part {
				r.uncertain("it is only a part of an address")
			} else {
				r.uncertain(fmt.Sprintf("$%s decides no pass", in.variable.name))
			}
		}
	}
	if !m.matches(&r) {
		return out
	}
	return append(out, c.finish(r, e))
}

// ref says in words what an entry is.
func (c *collector) ref(e *entry) Ref {
	r := Ref{
		Kind: e.kind, File: e.d.f.name, Protocol: e.sc.proto, Directive: "server",
		Uses: int(e.uses), Certain: true, d: e.d, word: int(e.word),
	}
	if e.info != nil {
		r.Directive = e.info.directive
	}
	if e.kind == KindMention {
		if e.sc.up != nil {
			r.Upstream = e.sc.up.name
		}
		r.Certain, r.Reason = false, e.info.reason
		return r
	}
	r.readAddr(e.d.Word(int(e.word)))
	if m := c.downed[e.d]; m != nil {
		r.Tag, r.downMark = m.tag, m
	}
	if m := c.added[e.d]; m != nil {
		r.Tag, r.marker = m.tag, m
	}
	switch e.kind {
	case KindServer:
		r.Upstream = e.sc.up.name
		r.upstreams = append(r.upstreams, e.sc.up)
		for _, sc := range e.more {
			r.upstreams = append(r.upstreams, sc.up)
		}
	case KindPass:
		if e.info.up != nil && !e.info.loose {
			r.Upstream = e.info.up.name
		}
		if e.info.reason != "" {
			r.uncertain(e.info.reason)
		} else if r.target.open && r.target.end < len(r.Addr) && r.Addr[r.target.end] == '$' {
			// Only the start of a host: what its variables make of it is known.
			r.Host, r.Port = "", 0
		}
		if r.target.port == 0 && len(e.info.direct) > 0 {
			r.setPorts(e.info.direct)
		}
	case KindValue:
		r.variable = e.info.variable.name
		if r.target.port == 0 && !r.target.unix && e.info.reached {
			r.Port = 0
			if !e.info.noPort {
				r.setPorts(e.info.ports)
			}
		}
	}
	return r
}

func (r *Ref) setPorts(ports []int) {
	r.Port, r.ports = 0, ports
	if len(ports) == 1 {
		r.Port = ports[0]
	}
}

// finish adds what is only worth the effort for a reference that was asked for.
func (c *collector) finish(r Ref, e *entry) Ref {
	pos := e.d.Position()
	r.Line, r.Col, r.Context = pos.Line, pos.Col, e.sc.label()
	r.State = []string{"active"}
	if e.down {
		r.State[0] = "down"
	}
	if e.backup {
		r.State = append(r.State, "backup")
	}
	switch e.kind {
	case KindServer:
		c.usesOf(&r, r.upstreams)
	case KindValue:
		r.usedVia(e.info.via)
	default:
		r.usedBy(use{e.d, e.sc})
		for _, sc := range e.more {
			r.usedBy(use{e.d, sc})
		}
	}
	return r
}

// usesOf adds the passes that go to upstreams.
func (c *collector) usesOf(r *Ref, upstreams []*servers) {
	for _, up := range upstreams {
		if us := c.uses[up]; us != nil {
			for _, u := range us.direct {
				if !r.usedBy(u) {
					return
				}
			}
			r.usedVia(us.via)
		}
	}
}

func (r *Ref) usedVia(list []*analysis) {
	for _, a := range list {
		for _, u := range a.uses {
			if !r.usedBy(u) {
				return
			}
		}
	}
}

// usedBy adds a use, and reports whether there is room for more.
func (r *Ref) usedBy(u use) bool {
	pos := u.d.Position()
	text := Use{u.d.f.name, pos.Line, pos.Col, u.d.Name(), u.sc.label()}
	if !slices.Contains(r.UsedBy, text) {
		r.UsedBy = append(r.UsedBy, text)
	}
	return len(r.UsedBy) < maxUses
}

// maxUses bounds UsedBy: a thousand places tell an operator what ten thousand do.
const maxUses = 1000

// readAddr takes the address out of a word.
func (r *Ref) readAddr(w Word) {
	r.Addr = w.Value()
	r.escaped = r.Addr != string(w.Raw())
	t, ok := parseTarget(r.Addr)
	if !ok {
		return
	}
	r.target, r.Host, r.Port = t, t.host, t.port
	if r.Port == 0 && !t.open && !t.unix {
		r.Port = defaultPort(t.scheme, r.Directive, r.Protocol)
	}
}

// defaultPort is the port nginx takes where none is written, or 0 where it asks
// for one (ngx_parse_url and the default_port of its callers).
func defaultPort(scheme, directive, proto string) int {
	switch {
	case scheme == "https":
		return 443
	case scheme == "http":
		return 80
	case directive == "server" && proto != "stream":
		// Also behind https://: the port of an upstream's server is its own.
		return 80
	case directive == "auth_http":
		return 80
	}
	return 0
}

// comments notes our markers and the directives that were commented out by hand.
func (c *collector) comments(f *File) {
	for _, m := range f.markers() {
		if m.damaged == "" && (m.kind == markAdd || m.kind == markDown) {
			if m.kind == markAdd {
				c.added[m.d] = m
			} else {
				c.downed[m.d] = m
			}
			continue
		}
		r := c.commentRef(f, KindOff, m.span.Start, m.parent)
		r.Tag, r.marker, r.State = m.tag, m, []string{"off"}
		if m.damaged != "" {
			r.Certain, r.Reason = false, "the marker is damaged: "+m.damaged
			r.Addr = string(f.src[m.span.Start:m.span.End])
			continue
		}
		r.read(m.d)
	}
	for _, cm := range f.comments {
		text := f.src[cm.Start:cm.End]
		if bytes.IndexByte(text, ';') < 0 || bytes.HasPrefix(text, []byte("#upgradectl:")) {
			continue
		}
		text = bytes.TrimLeft(text, "# \t")
		inner, _ := Parse("", text) // what follows the first directives may be prose
		for d := range inner.All() {
			if d.node().close != 0 || d.f.src[d.node().term] != ';' || d.Len() < 2 {
				continue
			}
			if name := d.Name(); name != "server" && name != "set" && !isPass(name, "stream") && !(d.Len() == 2 && f.inValues(cm.parent)) {
				continue
			}
			r := c.commentRef(f, KindComment, cm.Start, cm.parent)
			r.State = []string{"hand-commented"}
			r.read(d)
			if r.Host == "" {
				c.commented = c.commented[:len(c.commented)-1]
			}
		}
	}
}

// inValues reports whether a block gives a variable its values.
func (f *File) inValues(block int32) bool {
	if block < 0 {
		return false
	}
	switch (Directive{f, block}).Name() {
	case "map", "geo", "split_clients":
		return true
	}
	return false
}

// read takes the address out of a directive that stands in a comment.
func (r *Ref) read(d Directive) {
	r.Directive = d.Name()
	word := 1
	if r.Directive == "set" {
		word = 2
	}
	if d.Len() <= word {
		return
	}
	r.readAddr(d.Word(word))
	if r.Directive != "server" {
		return
	}
	m := newMember(d)
	if m.down {
		r.State = append(r.State, "down")
	}
	if m.backup {
		r.State = append(r.State, "backup")
	}
}

func (c *collector) commentRef(f *File, kind Kind, offset int, parent int32) *Ref {
	pos := f.Position(offset)
	r := &Ref{Kind: kind, File: f.name, Line: pos.Line, Col: pos.Col, Certain: true, Uses: len(c.places[f])}
	if places := c.places[f]; len(places) > 0 {
		sc := places[0].at(f, parent)
		r.Context, r.Protocol = sc.label(), sc.proto
		if sc.kind == inUpstream {
			r.Upstream = sc.block.Arg(1)
			if up := c.names[sc.proto+" "+strings.ToLower(r.Upstream)]; up != nil {
				r.upstreams = []*servers{up}
			}
		}
	}
	c.commented = append(c.commented, r)
	return r
}

// mentions finds the words and the Lua code that hold the host and are not among
// found.
func (c *collector) mentions(m *matcher, found []Ref) []Ref {
	have := map[Directive]bool{}
	for i := range found {
		if found[i].d.f != nil {
			have[found[i].d] = true
		}
	}
	type key struct {
		d    Directive
		word int
	}
	var out []Ref
	seen := map[key]bool{}
	note := func(d Directive, word int, addr, reason string) {
		k := key{d, word}
		if have[d] && word > 0 || seen[k] {
			return
		}
		seen[k] = true
		if n := c.index[d.f][d.i]; n != 0 && word == int(c.entries[n-1].word) && word > 0 {
			// Looked at already: the address with another port.
			if r := c.ref(&c.entries[n-1]); r.Host != "" {
				if have, _ := normalHost(r.Host); have == m.want {
					return
				}
			}
		}
		if t, ok := parseTarget(addr); ok && m.Port != 0 && t.port != 0 && t.port != m.Port {
			if key, _ := normalHost(t.host); key == m.want {
				return // the address with another port
			}
		}
		pos := d.Position()
		r := Ref{
			Kind: KindMention, File: d.f.name, Line: pos.Line, Col: pos.Col, Addr: addr, Host: m.Host,
			Directive: d.Name(), State: []string{"active"}, Reason: reason, d: d, word: word,
		}
		for i, place := range c.places[d.f] {
			sc := place.at(d.f, d.node().parent)
			if i == 0 {
				r.Context, r.Protocol = sc.label(), sc.proto
			}
			r.Uses++
			if len(r.UsedBy) < maxUses {
				r.UsedBy = append(r.UsedBy, Use{d.f.name, pos.Line, pos.Col, r.Directive, sc.label()})
			}
		}
		out = append(out, r)
	}
	needle := strings.TrimPrefix(strings.Trim(m.Host, "[]"), "unix:")
	for _, f := range c.t.files {
		f.each(needle, func(d Directive, word int) {
			if word < 0 {
				if body := d.Body(); mentions(string(f.src[body.Start:body.End]), needle) {
					note(d, word, m.Host, "Lua code mentions the address")
				}
			} else if v := d.Word(word).Value(); mentions(v, needle) {
				note(d, word, v, d.Name()+" mentions the address")
			}
		})
		if m.addr {
			f.spelled(m, func(d Directive, word int) {
				note(d, word, d.Word(word).Value(), d.Name()+" mentions the address in another spelling")
			})
		}
	}
	return out
}

// each calls visit for every word that holds needle, and with -1 for Lua code
// that does.
func (f *File) each(needle string, visit func(d Directive, word int)) {
	if needle == "" {
		return
	}
	for from := 0; ; {
		i := bytes.Index(f.src[from:], []byte(needle))
		if i < 0 {
			return
		}
		at := from + i
		from = at + 1
		n := f.nodeBefore(at + 1)
		if n < 0 {
			continue
		}
		d := Directive{f, n}
		if body := d.Body(); d.IsLua() && at >= body.Start && at < body.End {
			visit(d, -1)
			from = body.End
			continue
		}
		for w := range d.Len() {
			if s := d.Word(w).s; at >= int(s.start) && at < int(s.end) {
				visit(d, w)
				from = int(s.end)
				break
			}
		}
	}
}

// spelled calls visit for every word that is the address in another spelling
// than the usual one: IPv6 with other zeros or letters, IPv4 as inet_aton knows
// it.
func (f *File) spelled(m *matcher, visit func(d Directive, word int)) {
	v6 := strings.Contains(m.want, ":")
	for i := range f.nodes {
		n := &f.nodes[i]
		for w := n.first; w < n.first+n.count; w++ {
			raw := f.src[f.words[w].start:f.words[w].end]
			if len(raw) < 3 {
				continue
			}
			if v6 {
				if bytes.Count(raw, []byte{':'}) < 2 {
					continue
				}
			} else if c := raw[0]; c != '[' && (c < '0' || c > '9' || plainIPv4(raw) > 0 || plainNumber(raw)) {
				continue
			}
			text := string(raw)
			if j := strings.LastIndexByte(text, '/'); j > 0 {
				text = text[:j] // a network
			}
			host := text
			if t, ok := parseTarget(text); ok {
				host = t.host
			}
			if a, err := netip.ParseAddr(text); err == nil && a.Is6() {
				host = text
			}
			if key, isAddr := normalHost(host); isAddr && key == m.want {
				visit(Directive{f, int32(i)}, int(w-n.first))
			}
		}
	}
}

// plainNumber reports whether a word starts with a number too short to be an
// address in one piece, and goes on without a dot: "80", "16k", "10s".
func plainNumber(raw []byte) bool {
	n := 0
	for n < len(raw) && raw[n] >= '0' && raw[n] <= '9' {
		n++
	}
	return n < 8 && (n == len(raw) || raw[n] != '.' && raw[n] != 'x' && raw[n] != 'X' && raw[n] != ':')
}
