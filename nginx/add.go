package nginx

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// AddServer puts a server line for addr behind every active server line that
// like means: with the same parameters, the same indentation, and the comment
// `#upgradectl:add(TAG)` behind it. addr is a host, which gets the port of the
// line it is like, or host:port. An upstream that has the server under this tag
// is left alone (Change.Already); one that has it otherwise is refused
// (ErrExists). In an upstream that maps clients to servers it moves clients:
// see Change.Moves.
func (t *Tree) AddServer(like Query, addr string, tag string) (*Change, error) {
	if err := checkArgs(like, tag); err != nil {
		return nil, err
	}
	host, port, err := splitHostPort(addr)
	if err != nil {
		return nil, err
	}
	e := t.editor("add a server %s like %s", addr, like)
	c := t.collect()
	a := e.adder(c, host, port, tag)
	for _, r := range c.query(like) {
		switch {
		case e.damaged(r, tag):
		case r.Kind != KindServer:
		case !r.Certain:
			e.warn("%s:%d: no server is added next to %s: %s", r.File, r.Line, r.Addr, r.Reason)
		case r.Has("down"):
			e.warn("%s:%d: no server is added next to %s: it is marked down", r.File, r.Line, r.Addr)
		default:
			switch there := a.there(r); {
			case there == nil:
				a.add(r)
			case e.isAdded(there.d, tag):
				e.already = append(e.already, *there)
			default:
				e.refuse(*there, ErrExists, there.Tag)
			}
		}
	}
	return e.change()
}

// isAdded reports whether a server line was added under this tag.
func (e *editor) isAdded(d Directive, tag string) bool {
	m := e.mark(d, markAdd)
	return m != nil && m.tag == tag
}

// An adder puts servers of one host beside others.
type adder struct {
	e    *editor
	host string
	port int // 0: that of the line it is like
	tag  string
	have map[*servers][]Ref
	put  map[*servers][]int // ports of what was added
}

func (e *editor) adder(c *collector, host string, port int, tag string) *adder {
	a := &adder{e: e, host: host, port: port, tag: tag, have: map[*servers][]Ref{}, put: map[*servers][]int{}}
	for _, r := range c.query(Query{Host: host}) {
		if r.Kind == KindServer && r.Certain {
			for _, s := range r.upstreams {
				a.have[s] = append(a.have[s], r)
			}
		}
	}
	return a
}

func (a *adder) wants(r Ref) int {
	if a.port != 0 {
		return a.port
	}
	return r.Port
}

// there returns the server that is to be beside r, where it is already.
func (a *adder) there(r Ref) *Ref {
	for _, s := range r.upstreams {
		for i, o := range a.have[s] {
			if o.Port == a.wants(r) {
				return &a.have[s][i]
			}
		}
	}
	return nil
}

// add puts a server beside r, once for each upstream and port.
func (a *adder) add(r Ref) {
	if !a.e.movable(r) {
		return
	}
	for _, s := range r.upstreams {
		if slices.Contains(a.put[s], a.wants(r)) {
			return
		}
	}
	if !a.e.checkVersion(r, r.d.values()) {
		return
	}
	a.e.insertLike(r, a.host, a.port, a.tag)
	for _, s := range r.upstreams {
		a.put[s] = append(a.put[s], a.wants(r))
	}
}

// insertLike puts a copy of the server line r for another address behind it.
func (e *editor) insertLike(r Ref, host string, port int, tag string) {
	fe := e.file(r.d.f)
	src := fe.f.src
	span := r.d.Span()
	start, end, addr := r.readdress(host, port)
	at := int(r.d.Word(1).s.start)
	text := string(src[span.Start:at+start]) + addr + string(src[at+end:span.End])
	value := r.Addr[:start] + addr + r.Addr[end:]

	lf := bytes.IndexByte(src[span.End:], '\n')
	end = len(src)
	if lf >= 0 {
		end = span.End + lf
	}
	rest := bytes.Trim(src[span.End:end], " \t\r")
	// Behind one of our own comments the line end may belong to a marker.
	alone := len(rest) == 0 || rest[0] == '#' && !bytes.Contains(rest, []byte("upgradectl:"))

	line := bytes.LastIndexByte(src[:span.Start], '\n') + 1
	blank := line
	for blank < span.Start && (src[blank] == ' ' || src[blank] == '\t') {
		blank++
	}
	indent := string(src[line:blank])
	mark := " " + markerText(markAdd, tag, false)
	switch {
	case alone && lf >= 0:
		eol := "\n"
		if src[end-1] == '\r' {
			eol = "\r\n"
		}
		fe.buf.Insert(end+1, indent+text+mark+eol)
	case alone && src[end-1] != '\r':
		fe.buf.Insert(end, fe.f.lineEnd()+indent+text+mark)
	default:
		fe.buf.Insert(span.End, " "+text+" "+markerText(markAdd, tag, true)+fe.f.lineEnd())
	}
	words := r.d.values()
	words[1] = value
	i := r.d.i + 1
	fe.inserted[i] = append(fe.inserted[i], insertion{fe.f.depth(r.d.i), words})
	e.touched = append(e.touched, r)
}

// RemoveAdded deletes the server lines that AddServer added under this tag, all
// or only what one of the queries means, with all that it inserted and nothing
// else. It is refused where that would leave an upstream without a server (see
// Disable), where another operation has disabled the line, and where the marker
// is damaged. Nothing with this tag gives an empty Change.
func (t *Tree) RemoveAdded(tag string, only ...Query) (*Change, error) {
	if err := checkTag(tag); err != nil {
		return nil, err
	}
	e := t.editor("remove what %s added", tag)
	last := map[*File]int{}
	for _, r := range t.marked(only) {
		switch {
		case r.Kind == KindComment || e.damaged(r, tag):
		case r.Kind == KindOff:
			if bytes.Contains(r.marker.text, []byte(markerText(markAdd, tag, false))) || bytes.Contains(r.marker.text, []byte(markerText(markAdd, tag, true))) {
				e.refuse(r, ErrOtherTag, r.marker.tag)
			}
		case r.Kind == KindServer && e.isAdded(r.d, tag):
			if m := e.mark(r.d, markDown); m != nil && m.tag != tag {
				e.refuse(r, ErrOtherTag, m.tag)
				continue
			}
			m := e.mark(r.d, markAdd)
			fe := e.file(r.d.f)
			// Two of our lines that somebody moved together share a line end.
			start := max(m.delete.Start, last[r.d.f])
			fe.buf.Delete(start, m.delete.End)
			last[r.d.f] = m.delete.End
			fe.removed[r.d.i] = true
			e.touched = append(e.touched, r)
		}
	}
	return e.change()
}

// movable refuses where the address of r cannot be changed in its place.
func (e *editor) movable(r Ref) bool {
	switch {
	case r.target.unix:
		e.refuse(r, ErrSocket, "")
	// Behind the address escapes do no harm.
	case r.escaped && !bytes.HasPrefix(r.d.Word(r.word).Raw(), []byte(r.Addr[:r.target.end])):
		e.refuse(r, ErrEscaped, "")
	default:
		return true
	}
	return false
}

// readdress says which bytes of the address word are to be replaced by what,
// so that it leads to another host, and to another port unless that is 0.
func (r *Ref) readdress(host string, port int) (start, end int, text string) {
	start, end, text = r.target.start, r.target.end, writtenHost(host)
	if port == 0 {
		return start, end, text
	}
	if r.target.port == port {
		return start, end, text
	}
	rest := r.Addr[end:]
	if strings.HasPrefix(rest, ":") {
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		end += n
	}
	return start, end, text + ":" + strconv.Itoa(port)
}

// splitHostPort reads "host", "host:port", "[v6]:port" or a bare IPv6 address.
func splitHostPort(addr string) (host string, port int, err error) {
	bad := badArgument("%q is not a host or host:port that can stand in a configuration", addr)
	host = addr
	if a, err := netip.ParseAddr(addr); err != nil || !a.Is6() {
		if i := strings.LastIndexByte(addr, ':'); i >= 0 && !strings.HasSuffix(addr, "]") {
			n, err := strconv.ParseUint(addr[i+1:], 10, 16)
			if err != nil || n == 0 {
				return "", 0, bad
			}
			host, port = addr[:i], int(n)
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if !validHost(host) {
		return "", 0, bad
	}
	return host, port, nil
}
