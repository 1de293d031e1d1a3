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
	// Host is an IP address or a host name; addresses are compared as
	// addresses, names without regard to case. Empty means all.
	Host string
	// Port is the port, also one that the configuration leaves to its default.
	// 0 means any.
	Port int
}

// String returns the query as an operator would write it: "172.31.0.90:8080".
func (q Query) String() string {
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
	// KindMention is any other word or Lua code in which the address appears.
	// Mentions are never Certain: only a person can tell what they mean.
	KindMention Kind = "mention"
)

// A Ref is a place of the configuration that refers to an address.
type Ref struct {
	Kind      Kind
	File      string
	Line, Col int // of the directive's or the marker's first byte, from 1
	// Addr is the address as it is written: "172.31.0.90:8080",
	// "http://172.31.0.90:8080/app". Host and Port are read from it; Port is the
	// default one where none is written, and 0 where there is no default.
	Addr string
	Host string
	Port int
	// Upstream is the name of the upstream block a server line stands in, as
	// written.
	Upstream string
	// Protocol is "http", "stream" or "mail"; "" when the file alone does not say.
	Protocol  string
	Directive string // "server", "proxy_pass", "set", "map", …
	// Context names the blocks around it: "http/upstream app". A file that is
	// included at several places gives one Ref with several contexts; Uses is
	// their number.
	Context string
	Uses    int
	// State holds "active", or "down" and "backup", or "off", or "hand-commented".
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
	variable  string // the variable a value is for
	upstreams []*servers
	marker    *marker
}

// Has reports whether the reference is in the given state.
func (r Ref) Has(state string) bool { return slices.Contains(r.State, state) }

func (r *Ref) refuse(reason error, detail string) Refusal {
	return Refusal{File: r.File, Line: r.Line, Col: r.Col, Upstream: r.Upstream, Addr: r.Addr, Reason: reason, Detail: detail}
}

// matches reports whether the reference may mean what q asks for, and lowers
// Certain where that cannot be told.
func (q Query) matches(r *Ref) bool {
	if q.Host == "" {
		return q.Port == 0 || r.Port == q.Port
	}
	if r.Kind == KindPass && r.Upstream != "" {
		return false // its servers are found themselves
	}
	if r.Host == "" {
		return !r.Certain // decided at run time: may be any address
	}
	want, wantAddr := normalHost(q.Host)
	have, haveAddr := normalHost(r.Host)
	switch {
	case want == have:
	case wantAddr && !haveAddr && have != "localhost" && validHost(have):
		r.uncertain(fmt.Sprintf("the name %s may stand for %s", r.Host, q.Host))
	case r.target.open && strings.HasPrefix(want, have):
		r.uncertain("a variable ends the address")
	default:
		return false
	}
	if q.Port == 0 || r.Port == q.Port {
		return true
	}
	if r.Port == 0 && (r.Kind == KindValue || r.target.open) {
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
	for _, r := range c.refs {
		found := *r
		if q.matches(&found) {
			out = append(out, found)
		}
	}
	if q.Host != "" {
		out = append(out, c.mentions(q.Host, out)...)
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
type collector struct {
	t         *Tree
	refs      []*Ref
	byPlace   map[place]*Ref
	upstreams []*servers
	byBlock   map[Directive]*servers // upstream blocks being read
	places    map[*File][]placing
	values    map[string][]string // what variables are set to
	passes    []*Ref
}

type place struct {
	d    Directive
	word int
}

// placing is one context a file is read in.
type placing struct {
	blocks []Directive
	proto  string
	path   string
}

func (t *Tree) collect() *collector {
	c := &collector{
		t: t, byPlace: map[place]*Ref{}, byBlock: map[Directive]*servers{},
		places: map[*File][]placing{}, values: map[string][]string{},
	}
	c.places[t.main] = []placing{{}}
	t.Walk(func(cur *Cursor) bool { c.visit(cur); return true })
	for _, f := range t.files {
		c.comments(f)
	}
	c.resolve()
	return c
}

func (c *collector) visit(cur *Cursor) {
	d := cur.Directive
	name := d.Name()
	switch {
	case name == "include" && !d.IsBlock():
		for _, inc := range c.t.includes[d] {
			c.places[inc] = append(c.places[inc], placing{slices.Clone(cur.Context), cur.Protocol(), cur.Path()})
		}
		return
	case name == "upstream" && d.IsBlock() && d.Len() > 1:
		s := &servers{block: d, name: d.Arg(1), proto: cur.Protocol()}
		c.upstreams = append(c.upstreams, s)
		c.byBlock[d] = s
		return
	}
	if cur.In("upstream") {
		s := c.byBlock[cur.Context[len(cur.Context)-1]]
		if s == nil {
			return
		}
		s.add(d)
		if name == "server" && !d.IsBlock() && d.Len() > 1 {
			c.server(cur, s)
		} else if s.dynamic == name {
			r := c.ref(cur, KindMention, 0, name)
			r.Certain, r.Upstream = false, s.name
			r.Addr, r.Host, r.Port, r.target = "", "", 0, target{}
			r.Reason = fmt.Sprintf("%s gives upstream %s its servers at run time", name, s.name)
		}
		return
	}
	if d.IsBlock() {
		return
	}
	switch {
	case isPass(name) && d.Len() == 2:
		r := c.ref(cur, KindPass, 1, name)
		c.passes = append(c.passes, r)
	case name == "set" && d.Len() == 3:
		c.value(cur, strings.TrimPrefix(d.Arg(1), "$"), name, 2)
	case d.Len() == 2 && cur.In("map"), d.Len() == 2 && cur.In("split_clients"),
		d.Len() == 2 && cur.In("geo") && name != "proxy" && name != "delete":
		block := cur.Context[len(cur.Context)-1]
		c.value(cur, strings.TrimPrefix(block.Arg(block.Len()-1), "$"), block.Name(), 1)
	}
}

func isPass(name string) bool {
	switch name {
	case "proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass", "auth_http":
		return true
	}
	return false
}

// ref notes a reference, once for each place in a file.
func (c *collector) ref(cur *Cursor, kind Kind, word int, directive string) *Ref {
	key := place{cur.Directive, word}
	if r := c.byPlace[key]; r != nil {
		r.Uses++
		return r
	}
	d := cur.Directive
	pos := d.Position()
	r := &Ref{
		Kind: kind, File: d.f.name, Line: pos.Line, Col: pos.Col,
		Protocol: cur.Protocol(), Directive: directive, Context: cur.Path(), Uses: 1,
		State: []string{"active"}, Certain: true, d: d, word: word,
	}
	r.readAddr(d.Word(word))
	c.byPlace[key] = r
	c.refs = append(c.refs, r)
	return r
}

// readAddr takes the address out of a word.
func (r *Ref) readAddr(w Word) {
	r.Addr = w.Value()
	r.escaped = r.Addr != string(w.Raw())
	t, ok := parseTarget(r.Addr)
	if !ok || t.unix {
		return
	}
	r.target, r.Host, r.Port = t, t.host, t.port
	if r.Port != 0 || t.open {
		return
	}
	switch {
	case t.scheme == "https":
		r.Port = 443
	case t.scheme == "http":
		r.Port = 80
	case r.Directive == "server" && r.Protocol != "stream":
		// Also behind https://: the port of an upstream's server is its own.
		r.Port = 80
	}
}

func (c *collector) server(cur *Cursor, s *servers) {
	r := c.ref(cur, KindServer, 1, "server")
	r.upstreams = append(r.upstreams, s)
	if r.Uses > 1 {
		return
	}
	r.Upstream = s.name
	m := newMember(cur.Directive)
	if m.down {
		r.State = []string{"down"}
	}
	if m.backup {
		r.State = append(r.State, "backup")
	}
}

func (c *collector) value(cur *Cursor, variable, directive string, word int) {
	r := c.ref(cur, KindValue, word, directive)
	r.variable = variable
	if r.Uses == 1 {
		c.values[variable] = append(c.values[variable], r.Addr)
	}
}

// resolve settles what needs the whole tree: which passes go to an upstream,
// and which variables reach a pass.
func (c *collector) resolve() {
	names := map[string]string{} // protocol and lower-case name: name as written
	for _, s := range c.upstreams {
		names[s.proto+" "+strings.ToLower(s.name)] = s.name
	}
	reach := map[string]bool{}
	var follow func(value string) (unknown string)
	follow = func(value string) (unknown string) {
		for _, v := range variables(value) {
			if reach[v] {
				continue
			}
			values, ok := c.values[v]
			if !ok {
				unknown = v
				continue
			}
			reach[v] = true
			for _, value := range values {
				if u := follow(value); u != "" {
					unknown = u
				}
			}
		}
		return unknown
	}
	for _, r := range c.passes {
		if up, ok := names[r.Protocol+" "+strings.ToLower(r.Host)]; ok && r.Host != "" {
			r.Upstream = up
		}
		follow(r.Addr)
	}
	// A second look, now that all that can be reached is known.
	var open func(value string, seen map[string]bool) string
	open = func(value string, seen map[string]bool) string {
		for _, v := range hostVariables(value) {
			if seen[v] {
				continue
			}
			seen[v] = true
			values, ok := c.values[v]
			if !ok {
				return v
			}
			for _, value := range values {
				if u := open(value, seen); u != "" {
					return u
				}
			}
		}
		return ""
	}
	for _, r := range c.passes {
		if r.Host != "" && !r.target.open {
			continue
		}
		if v := open(r.Addr, map[string]bool{}); v != "" {
			r.uncertain(fmt.Sprintf("the address comes from $%s, which the files do not set", v))
		}
	}
	c.refs = slices.DeleteFunc(c.refs, func(r *Ref) bool {
		switch r.Kind {
		case KindPass:
			// A pass whose variables are all set in the files is found by their
			// values.
			return r.Host == "" && r.Certain
		case KindValue:
			_, upstream := names[r.Protocol+" "+strings.ToLower(r.Host)]
			if r.Host == "" || upstream {
				return true
			}
			if _, err := netip.ParseAddr(r.Host); err != nil && r.Port == 0 && !reach[r.variable] {
				return true // an ordinary word
			}
			if !reach[r.variable] {
				r.uncertain(fmt.Sprintf("$%s is not used in any pass", r.variable))
			}
		}
		return false
	})
}

// comments notes our markers and the directives that were commented out by hand.
func (c *collector) comments(f *File) {
	for _, m := range f.markers() {
		if m.kind == markAdd && m.damaged == "" {
			if r := c.byPlace[place{m.d, 1}]; r != nil {
				r.Tag, r.marker = m.tag, m
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
		r.Directive = m.words[0]
		if m.d.Len() > 1 {
			r.readAddr(m.d.Word(1))
		}
	}
	for _, cm := range f.comments {
		text := f.src[cm.Start:cm.End]
		if bytes.IndexByte(text, ';') < 0 || bytes.HasPrefix(text, []byte("#upgradectl:")) {
			continue
		}
		text = bytes.TrimLeft(text, "# 	")
		if !bytes.HasPrefix(text, []byte("server")) && !bytes.Contains(text, []byte("_pass")) {
			continue
		}
		inner, err := Parse("", text)
		if err != nil || len(inner.nodes) != 1 {
			continue
		}
		d := Directive{inner, 0}
		if d.IsBlock() || d.Len() < 2 || !d.is("server") && !isPass(d.Name()) {
			continue
		}
		r := c.commentRef(f, KindComment, cm.Start, cm.parent)
		r.State, r.Directive = []string{"hand-commented"}, d.Name()
		r.readAddr(d.Word(1))
	}
}

func (c *collector) commentRef(f *File, kind Kind, offset int, parent int32) *Ref {
	pos := f.Position(offset)
	r := &Ref{Kind: kind, File: f.name, Line: pos.Line, Col: pos.Col, Certain: true, Uses: len(c.places[f])}
	var local []Directive
	for i := parent; i >= 0; i = f.nodes[i].parent {
		local = append(local, Directive{f, i})
	}
	slices.Reverse(local)
	var at Cursor
	if places := c.places[f]; len(places) > 0 {
		at.Context = append(at.Context, places[0].blocks...)
	}
	at.Context = append(at.Context, local...)
	r.Context, r.Protocol = at.Path(), at.Protocol()
	if at.In("upstream") {
		r.Upstream = at.Context[len(at.Context)-1].Arg(1)
	}
	c.refs = append(c.refs, r)
	return r
}

// mentions finds the words and the Lua code that hold the host and are not among
// found.
func (c *collector) mentions(host string, found []Ref) []Ref {
	have := map[place]bool{}
	for _, r := range found {
		have[place{r.d, r.word}] = true
	}
	want, _ := normalHost(host)
	for p, r := range c.byPlace {
		// Looked at already: the address with another port.
		if key, _ := normalHost(r.Host); key == want {
			have[p] = true
		}
	}
	var out []Ref
	seen := map[place]*Ref{}
	needle := []byte(strings.Trim(host, "[]"))
	note := func(cur *Cursor, word int, addr, reason string) {
		key := place{cur.Directive, word}
		if have[key] {
			return
		}
		if r := seen[key]; r != nil {
			r.Uses++
			return
		}
		pos := cur.Position()
		r := &Ref{
			Kind: KindMention, File: cur.f.name, Line: pos.Line, Col: pos.Col, Addr: addr, Host: host,
			Protocol: cur.Protocol(), Directive: cur.Name(), Context: cur.Path(), Uses: 1,
			State: []string{"active"}, Reason: reason, d: cur.Directive, word: word,
		}
		seen[key] = r
	}
	holds := map[*File]bool{}
	for _, f := range c.t.files {
		holds[f] = bytes.Contains(f.src, needle)
	}
	c.t.Walk(func(cur *Cursor) bool {
		if !holds[cur.f] {
			return true
		}
		for i := range cur.Len() {
			if w := cur.Word(i); bytes.Contains(w.Raw(), needle) && mentions(w.Value(), string(needle)) {
				note(cur, i, w.Value(), cur.Name()+" mentions the address")
			}
		}
		if body := cur.Body(); cur.IsLua() && mentions(string(cur.f.src[body.Start:body.End]), string(needle)) {
			note(cur, -1, host, "Lua code mentions the address")
		}
		return true
	})
	for _, r := range seen {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Ref) int {
		if a.d != b.d {
			return int(a.d.i - b.d.i)
		}
		return a.word - b.word
	})
	return out
}
