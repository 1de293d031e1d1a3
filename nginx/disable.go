package nginx

import (
	"bytes"
	"cmp"
	"slices"
)

// Disable takes the servers that q means out of their upstreams: in an upstream
// that maps clients to servers (ip_hash, hash) it marks them down, which moves
// none of the other servers' clients (see SetDown), elsewhere it turns their
// lines into comments (see Comment). Restore with the same tag gives the files
// back byte for byte. Servers that are off under this tag are left alone and
// listed in Change.Already, so that doing it twice is doing it once; servers
// marked down by hand get no requests already and are listed there too.
//
// It is refused, with every reason at once in a *RefusedError, where an
// upstream would be left without a server, with only backup servers or with
// only servers marked down; where a pass or a variable names the address
// directly (ErrDirectPass, ErrDirectValue, ErrMapDefault: Shift is for them);
// where a line would become too long; where another tag has disabled it.
// References that cannot be decided become warnings.
func (t *Tree) Disable(q Query, tag string) (*Change, error) {
	return t.disable(q, tag, (*editor).auto)
}

// Comment is Disable with a comment in every upstream:
//
//	#upgradectl:off(TAG) server 172.31.0.90:8080 weight=2; # blue
//
// It also helps where a host name does not resolve any more, for which nginx
// refuses the line even with down.
func (t *Tree) Comment(q Query, tag string) (*Change, error) {
	return t.disable(q, tag, (*editor).comment)
}

// SetDown is Disable with the parameter down in every upstream:
//
//	server 172.31.0.90:8080 weight=2 down; #upgradectl:down(TAG) # blue
//
// With only backup servers left beside, these serve.
func (t *Tree) SetDown(q Query, tag string) (*Change, error) {
	return t.disable(q, tag, (*editor).down)
}

func (t *Tree) disable(q Query, tag string, off func(e *editor, r Ref, tag string)) (*Change, error) {
	if err := checkArgs(q, tag); err != nil {
		return nil, err
	}
	e := t.editor("disable %s", q)
	for _, r := range t.Refs(q) {
		e.takeOut(r, tag, off)
	}
	return e.change()
}

// takeOut disables what one reference stands for.
func (e *editor) takeOut(r Ref, tag string, off func(e *editor, r Ref, tag string)) {
	switch {
	case e.damaged(r, tag):
	case r.Kind == KindComment:
	case r.Kind == KindOff && r.Certain && r.Tag == tag:
		e.already = append(e.already, r)
	case r.Kind == KindOff && r.Certain:
		e.refuse(r, ErrOtherTag, r.Tag)
	case !r.Certain:
		e.leave(r, r.Reason)
	case r.Kind == KindPass || r.Kind == KindValue:
		e.refuse(r, r.direct(), "")
	case r.Kind == KindServer && r.Has("down"):
		if m := e.mark(r.d, markDown); m != nil && m.tag != tag {
			e.refuse(r, ErrOtherTag, m.tag)
			return
		}
		e.already = append(e.already, r)
	case r.Kind == KindServer:
		off(e, r, tag)
	}
}

// direct says why a reference outside of upstreams cannot be taken away.
func (r *Ref) direct() error {
	if r.Kind == KindPass {
		return ErrDirectPass
	}
	switch name := r.d.Name(); r.Directive {
	case "map", "geo":
		if name == "default" {
			return ErrMapDefault
		}
	case "split_clients":
		if name == "*" {
			return ErrMapDefault
		}
	}
	return ErrDirectValue
}

// hashed reports whether one of the upstreams the server line is in maps
// clients to servers.
func (r *Ref) hashed() bool {
	for _, s := range r.upstreams {
		if s.hash != "" {
			return true
		}
	}
	return false
}

func (e *editor) auto(r Ref, tag string) {
	if r.hashed() {
		e.down(r, tag)
		return
	}
	e.comment(r, tag)
}

// behind says how text goes on behind offset, where a directive ends: nl is true
// where a comment put there needs a line end, because something follows that is
// not a person's comment; end is the end of the line.
func (f *File) textBehind(offset int) (nl bool, end int) {
	src := f.src
	end = len(src)
	if i := bytes.IndexByte(src[offset:], '\n'); i >= 0 {
		end = offset + i
	}
	rest := bytes.TrimLeft(src[offset:end], " \t\r")
	// A directive that is off keeps its marker at the start of a comment.
	return len(rest) > 0 && (rest[0] != '#' || bytes.HasPrefix(rest, []byte("#upgradectl:off"))), end
}

// comment turns the directive of r into an off comment.
func (e *editor) comment(r Ref, tag string) {
	fe := e.file(r.d.f)
	src := fe.f.src
	span := r.d.Span()
	nl, last := fe.f.textBehind(span.End) // last: where the last comment line ends
	if nl {
		last = span.End
	}

	type mark struct {
		at   int
		text string
	}
	marks := []mark{{span.Start, markerText(markOff, tag, nl) + " "}}
	for at := span.Start; ; {
		i := bytes.IndexByte(src[at:span.End], '\n')
		if i < 0 {
			break
		}
		at += i + 1
		for src[at] == ' ' || src[at] == '\t' || src[at] == '\r' {
			at++
		}
		if src[at] != '\n' {
			marks = append(marks, mark{at, markerText(markMore, tag, false) + " "})
		}
	}
	for i, m := range marks {
		end := last
		if i+1 < len(marks) {
			end = m.at + bytes.IndexByte(src[m.at:], '\n')
		}
		// One byte is left for the carriage return of an inserted line end.
		if end-m.at+len(m.text) >= bufferSize-1 {
			e.refuse(r, ErrTooLong, "")
			return
		}
	}
	for _, m := range marks {
		fe.buf.Insert(m.at, m.text)
	}
	if nl {
		fe.buf.Insert(span.End, fe.f.lineEnd())
	}
	fe.removed[r.d.i] = true
	e.touched = append(e.touched, r)
}

// down marks the server line of r down.
func (e *editor) down(r Ref, tag string) {
	fe := e.file(r.d.f)
	end := r.d.Span().End
	nl, last := fe.f.textBehind(end)
	mark := markerText(markDown, tag, nl)
	if !nl && len(mark)+last-end >= bufferSize-1 {
		e.refuse(r, ErrTooLong, "")
		return
	}
	if _, isAddr := normalHost(r.Host); !isAddr && r.Host != "" {
		e.warn("%s:%d: when %s does not resolve any more, nginx refuses the line also with down; Comment helps then", r.File, r.Line, r.Host)
	}
	e.insertWord(r, r.d.Len()-1, "down")
	fe.buf.Insert(end, " "+mark)
	if nl {
		fe.buf.Insert(end, fe.f.lineEnd())
	}
}

// Restore puts back what Disable, Comment and SetDown with the same tag turned
// off, everything or only what one of the queries means: exactly our own bytes
// are deleted, so that an untouched file gets its first bytes back and what a
// person edited behind a marker stays. Nothing with this tag gives an empty
// Change. A damaged marker refuses the whole operation (ErrMarkerDamaged).
func (t *Tree) Restore(tag string, only ...Query) (*Change, error) {
	if err := checkTag(tag); err != nil {
		return nil, err
	}
	e := t.editor("restore what %s disabled", tag)
	for _, r := range t.marked(only) {
		switch {
		case r.Kind == KindComment || e.damaged(r, tag):
		case r.Kind == KindOff:
			if r.marker.tag == tag {
				e.uncomment(r)
			}
		case r.Kind == KindServer:
			if m := e.mark(r.d, markDown); m != nil && m.tag == tag {
				e.up(r, m)
			}
		}
	}
	return e.change()
}

// maxMarkedHosts is how many hosts marked looks up one by one.
const maxMarkedHosts = 64

// marked returns the references that may carry one of our markers.
func (t *Tree) marked(only []Query) []Ref {
	var hosts []string
	found := false
	for _, f := range t.files {
		for _, m := range f.markers() {
			found = true
			host := "upgradectl.invalid" // damaged markers come with any query
			if m.damaged == "" {
				if len(m.words) < 2 {
					continue
				}
				target, ok := parseTarget(m.words[1])
				if !ok || target.host == "" {
					return t.Refs(Query{}) // not of ours: someone edited it
				}
				host = target.host
			}
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	if !found {
		return nil
	}
	if len(only) == 0 {
		if len(hosts) > maxMarkedHosts {
			return t.Refs(Query{})
		}
		// All references of a large configuration are many; these are few.
		for _, h := range hosts {
			only = append(only, Query{Host: h})
		}
	}
	c := t.collect()
	var out []Ref
	type at struct {
		file      string
		line, col int
		kind      Kind
	}
	seen := map[at]bool{}
	order := map[string]int{}
	for i, f := range t.files {
		order[f.name] = i
	}
	for _, q := range only {
		for _, r := range c.query(q) {
			if key := (at{r.File, r.Line, r.Col, r.Kind}); !seen[key] {
				seen[key] = true
				out = append(out, r)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Ref) int {
		return cmp.Or(order[a.File]-order[b.File], a.Line-b.Line, a.Col-b.Col)
	})
	return out
}

// uncomment deletes the off markers of r.
func (e *editor) uncomment(r Ref) {
	m := r.marker
	if m.words[0] == "server" && !e.checkVersion(r, m.words) {
		return
	}
	f := e.t.File(r.File)
	fe := e.file(f)
	for _, p := range m.parts {
		fe.buf.Delete(p.Start, p.End)
	}
	if m.nl {
		// The inserted line end is all that follows the directive.
		rest := len(m.text) - m.d.Span().End
		fe.buf.Delete(m.span.End-rest, m.span.End+1)
	}
	i := f.nodeBefore(m.span.Start) + 1
	fe.inserted[i] = append(fe.inserted[i], insertion{f.depth(m.parent) + 1, m.words})
	e.touched = append(e.touched, r)
}

// up takes the parameter down that m is for out of the server line of r. A
// person may have done that already.
func (e *editor) up(r Ref, m *marker) {
	fe := e.file(r.d.f)
	fe.buf.Delete(m.delete.Start, m.delete.End)
	words := r.d.values()
	for n := len(words) - 1; n > 1; n-- {
		if words[n] != "down" {
			continue
		}
		span := r.d.Word(n).Span()
		if c := fe.f.src[span.Start-1]; c == ' ' || c == '\t' {
			span.Start--
		}
		fe.buf.Delete(span.Start, span.End)
		fe.changed[r.d.i] = append(words[:n:n], words[n+1:]...)
		e.touched = append(e.touched, r)
		return
	}
}
