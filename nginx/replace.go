package nginx

import (
	"slices"
	"strings"
)

// Replace puts to, a host or host:port, in the place of the address everywhere:
// in server lines of upstreams, in passes (`proxy_pass http://172.31.0.90:8080;`)
// and in the values of a set, map, geo or split_clients that reach a pass.
// Scheme, URI, parameters and quotes stay, and so does the port unless to has
// one. Lines that are off stay as they are. No marker is left: only
// Change.Inverse takes it back. tag names the operation in messages and may be
// empty.
//
// It is refused where the upstream has the new server already (ErrExists),
// where the new name is that of an upstream (ErrIsUpstream), and where a name
// would have to be looked up at each request without a resolver
// (ErrNoResolver).
func (t *Tree) Replace(from Query, to string, tag string) (*Change, error) {
	if err := checkQuery(from); err != nil {
		return nil, err
	}
	host, port, err := splitHostPort(to)
	if err != nil {
		return nil, err
	}
	if tag != "" {
		if err := checkTag(tag); err != nil {
			return nil, err
		}
		tag = " (" + tag + ")"
	}
	e := t.editor("replace %s by %s%s", from, to, tag)
	c := t.collect()
	p := e.replacer(c, host, port)
	for _, r := range c.query(from) {
		switch {
		case r.Kind == KindComment:
		case r.Kind == KindOff:
			e.leave(r, "it is off")
		case !r.Certain:
			e.leave(r, r.Reason)
		case r.Kind == KindServer:
			if there := p.there(r); there != nil && there.d != r.d {
				e.refuse(*there, ErrExists, there.Tag)
				continue
			}
			p.replace(r)
		case r.Kind == KindPass || r.Kind == KindValue:
			p.replace(r)
		}
	}
	return e.change()
}

// A replacer puts one address in the place of others.
type replacer struct {
	*adder
	isAddr   bool
	upstream string // the upstream of this name, as written
	resolver bool
}

func (e *editor) replacer(c *collector, host string, port int) *replacer {
	p := &replacer{adder: e.adder(c, host, port, "")}
	_, p.isAddr = normalHost(host)
	if p.isAddr {
		return p
	}
	for _, s := range e.t.upstreams() {
		if strings.EqualFold(s.name, host) {
			p.upstream = s.name
		}
	}
	for _, f := range e.t.files {
		for d := range f.All() {
			p.resolver = p.resolver || d.is("resolver")
		}
	}
	return p
}

// replace puts the new address into the word of r.
func (p *replacer) replace(r Ref) {
	e := p.e
	if !e.movable(r) {
		return
	}
	port := p.port
	if r.Kind == KindValue && port == r.Port {
		port = 0 // also where what uses the value adds it
	}
	if port != 0 && r.Kind == KindValue && r.target.port == 0 && r.target.scheme == "" {
		e.refuse(r, ErrPortElsewhere, "")
		return
	}
	if !p.isAddr {
		if r.Kind != KindServer && p.upstream != "" {
			e.refuse(r, ErrIsUpstream, p.upstream)
			return
		}
		_, wasAddr := normalHost(r.Host)
		if (r.Kind == KindValue || strings.Contains(r.Addr, "$")) && wasAddr && !p.resolver {
			e.refuse(r, ErrNoResolver, p.host)
			return
		}
		e.warn("nginx looks %s up when it loads the configuration and refuses it where that fails", p.host)
	}
	start, end, text := r.readdress(p.host, port)
	if r.Addr[start:end] == text {
		e.already = append(e.already, r)
		return
	}
	fe := e.file(r.d.f)
	word := r.d.Word(r.word)
	at := int(word.s.start)
	fe.buf.Replace(at+start, at+end, text)
	words := fe.changed[r.d.i]
	if words == nil {
		words = r.d.values()
	}
	words = slices.Clone(words)
	words[r.word] = r.Addr[:start] + text + r.Addr[end:]
	fe.changed[r.d.i] = words
	e.touched = append(e.touched, r)
}
