package nginx

import (
	"fmt"
	"slices"
	"strings"
)

// How variables lead requests to addresses: a pass whose host holds variables
// is put together from every combination of the values that set, map, geo and
// split_clients give them, and each piece keeps where it comes from.

const (
	// maxCombinations bounds the combinations tried for a whole tree, and
	// maxEach those of one pass. Beyond it references are not certain.
	maxCombinations = 1 << 18
	maxEach         = 1 << 14
)

type analysisKey struct {
	text, directive, proto string
	server                 Directive
}

// An analysis is what a pass with variables comes to in one server block.
type analysis struct {
	uses     []use // the passes that come to it
	reason   string
	up       *servers
	combined []endpoint
	direct   []int
}

// piece is a part of an address: text from the pass itself (entry -1) or from a
// value, or a variable that the files do not set.
type piece struct {
	text    string
	entry   int32
	unknown string
}

// resolve settles what needs the whole tree: which passes go to an upstream,
// and which values reach a pass.
func (c *collector) resolve() {
	for _, n := range c.passes {
		e := &c.entries[n]
		c.follow(e, e.sc)
		for _, sc := range e.more {
			c.follow(e, sc)
		}
	}
}

// follow finds where a pass leads in one context.
func (c *collector) follow(e *entry, sc *scope) {
	in := e.info
	u := use{e.d, sc}
	if len(hostVariables(in.text)) == 0 {
		t, ok := parseTarget(in.text)
		up := c.names[sc.proto+" "+strings.ToLower(t.host)]
		if !ok || t.port != 0 || t.unix || up == nil {
			in.loose = true
			return
		}
		in.up = up
		us := c.usersOf(up)
		us.direct = append(us.direct, u)
		return
	}
	key := analysisKey{in.text, in.directive, sc.proto, sc.server}
	a := c.analyses[key]
	if a == nil {
		shared := key
		if !c.setHere(in.text, sc, nil) {
			shared.server = Directive{} // the same in every server block
		}
		if a = c.analyses[shared]; a == nil {
			a = &analysis{}
			c.analyse(a, key, sc)
			c.analyses[shared] = a
		}
		c.analyses[key] = a
	}
	a.uses = append(a.uses, u)
	if in.reason == "" {
		in.reason = a.reason
	}
	if a.up != nil && in.up == nil {
		in.up = a.up
	}
	in.loose = in.loose || a.reason != "" || len(a.combined) > 0 || len(a.direct) > 0
	in.combined = append(in.combined, a.combined...)
	for _, p := range a.direct {
		if !slices.Contains(in.direct, p) {
			in.direct = append(in.direct, p)
		}
	}
}

// setHere reports whether the variables of a text have values that only this
// server block gives them.
func (c *collector) setHere(text string, sc *scope, seen []string) bool {
	for _, name := range variables(text) {
		if slices.Contains(seen, name) || sc.server == (Directive{}) {
			continue
		}
		if len(c.values[variable{sc.proto, name, sc.server}]) > 0 {
			return true
		}
		seen = append(seen, name)
		for _, n := range c.values[variable{sc.proto, name, Directive{}}] {
			if t := c.entries[n].info.text; strings.Contains(t, "$") && c.setHere(t, sc, seen) {
				return true
			}
		}
	}
	return false
}

func (c *collector) usersOf(up *servers) *users {
	us := c.uses[up]
	if us == nil {
		us = &users{}
		c.uses[up] = us
	}
	return us
}

func (c *collector) analyse(a *analysis, key analysisKey, sc *scope) {
	left := min(maxEach, c.budget)
	before := left
	list, whole := c.expand(hostPart(key.text), -1, sc, nil, &left)
	c.budget -= before - left
	if !whole {
		a.reason = "its variables have more combinations of values than are tried"
		c.reachAll(a, key.text, sc, map[string]bool{})
	}
	for _, pieces := range list {
		c.endpoint(a, key, pieces)
	}
}

// hostPart cuts off what follows the host and port of a pass.
func hostPart(text string) string {
	from := 0
	if i := strings.Index(text, "://"); i >= 0 {
		from = i + len("://")
	}
	if strings.HasPrefix(text[from:], "unix:") {
		return text
	}
	if i := strings.IndexAny(text[from:], "/?"); i >= 0 {
		return text[:from+i]
	}
	return text
}

// expand returns the combinations of values that text may have. whole is false
// when there are more than left.
func (c *collector) expand(text string, from int32, sc *scope, seen []string, left *int) (out [][]piece, whole bool) {
	out, whole = [][]piece{nil}, true
	for text != "" {
		lit, name, rest := cutVariable(text)
		text = rest
		var options [][]piece
		if lit != "" {
			options = [][]piece{{{text: lit, entry: from}}}
		} else {
			var all bool
			options, all = c.options(name, sc, seen, left)
			whole = whole && all
		}
		if len(options) == 1 {
			for i := range out {
				out[i] = append(out[i], options[0]...)
			}
			continue
		}
		if *left -= len(out) * len(options); *left <= 0 {
			return nil, false
		}
		next := make([][]piece, 0, len(out)*len(options))
		for _, head := range out {
			for _, tail := range options {
				next = append(next, append(slices.Clip(head), tail...))
			}
		}
		out = next
	}
	return out, whole
}

// options returns what a variable may stand for.
func (c *collector) options(name string, sc *scope, seen []string, left *int) (out [][]piece, whole bool) {
	switch name {
	case "request_uri", "uri", "document_uri":
		return [][]piece{{{text: "/", entry: -1}}}, true // always a path
	}
	unknown := []piece{{unknown: name, entry: -1}}
	if slices.Contains(seen, name) {
		return [][]piece{unknown}, true
	}
	whole = true
	inner := append(slices.Clip(seen), name)
	for _, n := range c.valuesOf(name, sc) {
		list, all := c.expand(c.entries[n].info.text, n, sc, inner, left)
		whole = whole && all
		out = append(out, list...)
		if *left -= len(list); *left <= 0 {
			return out, false
		}
	}
	if len(out) == 0 && whole || c.isOpaque(name, sc) {
		out = append(out, unknown)
	}
	return out, whole
}

func (c *collector) valuesOf(name string, sc *scope) []int32 {
	v := variable{sc.proto, name, Directive{}}
	all := c.values[v]
	if sc.server != (Directive{}) {
		v.server = sc.server
		all = append(slices.Clip(all), c.values[v]...)
	}
	return all
}

func (c *collector) isOpaque(name string, sc *scope) bool {
	return c.opaque[variable{sc.proto, name, Directive{}}] != "" || c.opaque[variable{sc.proto, "*", Directive{}}] != ""
}

// reachAll takes every value that a pass may use for its host, when there are
// too many to try.
func (c *collector) reachAll(a *analysis, text string, sc *scope, seen map[string]bool) {
	for _, name := range variables(text) {
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, n := range c.valuesOf(name, sc) {
			in := c.entries[n].info
			t, ok := parseTarget(in.text)
			if up := c.names[sc.proto+" "+strings.ToLower(t.host)]; ok && up != nil {
				in.named = true
				us := c.usersOf(up)
				us.via = append(us.via, a)
			} else {
				in.reached, in.noPort = true, true
				in.via = append(in.via, a)
			}
			c.reachAll(a, in.text, sc, seen)
		}
	}
}

// cutVariable takes the literal text or the variable that text starts with.
func cutVariable(text string) (lit, name, rest string) {
	i := strings.IndexByte(text, '$')
	if i > 0 {
		return text[:i], "", text[i:]
	}
	if i < 0 {
		return text, "", ""
	}
	rest = strings.TrimPrefix(text[1:], "{")
	n := 0
	for n < len(rest) && isNameByte(rest[n]) {
		n++
	}
	if n == 0 {
		return "$", "", text[1:]
	}
	name = rest[:n]
	rest = rest[n:]
	if strings.HasPrefix(text, "${") {
		rest = strings.TrimPrefix(rest, "}")
	}
	return "", name, rest
}

// endpoint notes where one combination of values leads.
func (c *collector) endpoint(a *analysis, key analysisKey, pieces []piece) {
	var b strings.Builder
	for _, p := range pieces {
		if p.unknown != "" {
			b.WriteByte(0)
		}
		b.WriteString(p.text)
	}
	text := hostPart(b.String())
	unknown := func(from, to int) string {
		at := 0
		for _, p := range pieces {
			if p.unknown != "" {
				if at >= from && at < to {
					return p.unknown
				}
				at++
			}
			at += len(p.text)
		}
		return ""
	}
	t, ok := parseTarget(text)
	if !ok {
		if i := strings.IndexByte(text, 0); i >= 0 && a.reason == "" {
			a.reason = fmt.Sprintf("the address comes from $%s, which the files do not set", unknown(i, len(text)))
		}
		return
	}
	end := t.end
	if end < len(text) && text[end] == 0 {
		end++
	}
	if name := unknown(t.start, end); name != "" || strings.IndexByte(t.host, 0) >= 0 {
		if a.reason == "" {
			a.reason = fmt.Sprintf("the address comes from $%s, which the files do not set", name)
		}
		return
	}
	if t.port == 0 && !t.open && !t.unix {
		if up := c.names[key.proto+" "+strings.ToLower(t.host)]; up != nil {
			a.up = up
			us := c.usersOf(up)
			if len(us.via) == 0 || us.via[len(us.via)-1] != a {
				us.via = append(us.via, a)
			}
			for _, n := range within(pieces, t.start, t.end) {
				if n >= 0 {
					c.entries[n].info.named = true
				}
			}
			return
		}
		t.port = defaultPort(t.scheme, key.directive, key.proto)
	}
	open := strings.IndexByte(text[t.end:], 0) >= 0
	if open {
		t.port = 0
	}
	from := within(pieces, t.start, t.end)
	if len(from) == 1 && from[0] < 0 {
		// The pass names the host itself; the variable is its port.
		if t.port != 0 && !slices.Contains(a.direct, t.port) {
			a.direct = append(a.direct, t.port)
		}
		return
	}
	if len(from) > 1 {
		at := endpoint{t.host, t.port}
		if !slices.Contains(a.combined, at) {
			a.combined = append(a.combined, at)
		}
	}
	for _, n := range from {
		if n < 0 {
			continue
		}
		in := c.entries[n].info
		if len(in.via) == 0 || in.via[len(in.via)-1] != a {
			in.via = append(in.via, a)
		}
		if len(from) > 1 {
			in.part = true
			continue
		}
		in.reached = true
		switch {
		case t.unix:
		case t.port == 0:
			in.noPort = true
		case !slices.Contains(in.ports, t.port):
			in.ports = append(in.ports, t.port)
		}
	}
}

// within returns the entries whose text lies in a range of an address.
func within(pieces []piece, from, to int) []int32 {
	var out []int32
	at := 0
	for _, p := range pieces {
		n := len(p.text)
		if p.unknown != "" {
			n++
		}
		if at < to && at+n > from && !slices.Contains(out, p.entry) {
			out = append(out, p.entry)
		}
		at += n
	}
	return out
}
