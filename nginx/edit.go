package nginx

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// An editor collects the edits of one operation on a tree.
type editor struct {
	t        *Tree
	op       string
	files    map[*File]*fileEditor
	refused  []Refusal
	already  []Ref
	warnings []string
}

// fileEditor holds the edits of one file and what the file is to say after them.
type fileEditor struct {
	f        *File
	buf      *textedit.Buffer
	removed  map[int32]bool
	inserted map[int32][]insertion // before the directive of this index
	changed  map[int32]map[int]string
}

type insertion struct {
	depth int
	words []string
}

func (t *Tree) editor(format string, args ...any) *editor {
	return &editor{t: t, op: fmt.Sprintf(format, args...), files: map[*File]*fileEditor{}}
}

func (e *editor) file(f *File) *fileEditor {
	fe := e.files[f]
	if fe == nil {
		fe = &fileEditor{
			f: f, buf: textedit.New(f.src), removed: map[int32]bool{},
			inserted: map[int32][]insertion{}, changed: map[int32]map[int]string{},
		}
		e.files[f] = fe
	}
	return fe
}

func (e *editor) refuse(r Refusal) { e.refused = append(e.refused, r) }

func (e *editor) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(e.warnings, w) {
		e.warnings = append(e.warnings, w)
	}
}

// change ends the operation: the edited files are parsed again, and every word
// that was not to change is compared.
func (e *editor) change() (*Change, error) {
	if len(e.refused) > 0 {
		return nil, &RefusedError{Op: e.op, Refusals: e.refused}
	}
	out := &Change{Already: e.already, Warnings: e.warnings}
	for _, f := range e.t.files {
		fe := e.files[f]
		if fe == nil {
			continue
		}
		edits, err := fe.buf.Edits()
		if err == nil && len(edits) == 0 {
			continue
		}
		var after []byte
		if err == nil {
			after, err = textedit.Apply(f.src, edits)
		}
		if err == nil {
			err = fe.verify(after)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot %s in %s: %w", e.op, f.name, err)
		}
		out.files = append(out.files, fileChange{f.name, f.src, after, edits})
	}
	return out, nil
}

// verify parses the edited text and compares all its directives with what they
// are meant to be.
func (fe *fileEditor) verify(after []byte) error {
	now, err := Parse(fe.f.name, after)
	if err != nil {
		return fmt.Errorf("internal error: the edited text does not parse: %w", err)
	}
	oldDepth, newDepth := fe.f.depths(), now.depths()
	at := int32(0)
	next := func(depth int, block bool, word func(int) string, count int) error {
		if int(at) >= len(now.nodes) {
			return fmt.Errorf("internal error: the edit lost %q", word(0))
		}
		d := Directive{now, at}
		same := newDepth[at] == depth && d.IsBlock() == block && d.Len() == count
		for i := 0; same && i < count; i++ {
			same = d.Word(i).Value() == word(i)
		}
		if !same {
			return fmt.Errorf("internal error: line %d reads %q instead of %q after the edit", d.Position().Line, d.Name(), word(0))
		}
		at++
		return nil
	}
	for i := int32(0); int(i) <= len(fe.f.nodes); i++ {
		for _, ins := range fe.inserted[i] {
			if err := next(ins.depth, false, func(n int) string { return ins.words[n] }, len(ins.words)); err != nil {
				return err
			}
		}
		if int(i) == len(fe.f.nodes) || fe.removed[i] {
			continue
		}
		d := Directive{fe.f, i}
		err := next(oldDepth[i], d.IsBlock(), func(n int) string {
			if w, ok := fe.changed[i][n]; ok {
				return w
			}
			return d.Word(n).Value()
		}, d.Len())
		if err != nil {
			return err
		}
	}
	if int(at) != len(now.nodes) {
		return fmt.Errorf("internal error: the edit made %d directives too many", len(now.nodes)-int(at))
	}
	return nil
}

// depth returns how many blocks are around a directive, and -1 for none.
func (f *File) depth(i int32) int {
	depth := -1
	for ; i >= 0; i = f.nodes[i].parent {
		depth++
	}
	return depth
}

// depths returns the depth of every directive.
func (f *File) depths() []int {
	out := make([]int, len(f.nodes))
	for i, n := range f.nodes {
		if n.parent >= 0 {
			out[i] = out[n.parent] + 1
		}
	}
	return out
}

// guard refuses the operation where an upstream cannot do without the servers
// it takes away, and warns where clients move to other servers.
func (e *editor) guard(refs []Ref, what string) {
	gone := func(d Directive) bool {
		fe := e.files[d.f]
		return fe != nil && fe.removed[d.i]
	}
	seen := map[*servers]bool{}
	for i := range refs {
		for _, s := range refs[i].upstreams {
			if seen[s] {
				continue
			}
			seen[s] = true
			e.warnHash(s, what)
			if s.dynamic != "" {
				e.warn("upstream %s gets its servers from %s at run time; the files are not all of it", s.name, s.dynamic)
				continue
			}
			if reason := s.without(gone); reason != nil {
				e.refuse(refs[i].refuse(reason, ""))
			}
		}
	}
}

func (e *editor) warnHash(s *servers, what string) {
	switch {
	case s.hash == "":
	case s.steady:
		e.warn("upstream %s maps clients to servers (%s consistent): %s a server moves about one in %d of them", s.name, s.hash, what, max(len(s.members), 1))
	default:
		e.warn("upstream %s maps clients to servers (%s): %s a server moves most of them to another one", s.name, s.hash, what)
	}
}

// Disable takes the servers that q means out of their upstreams by turning
// their lines into comments that start with `#upgradectl:off(TAG) `. Restore
// with the same tag gives the file back byte for byte. Servers that are off
// under this tag are left alone and listed in Change.Already, so that doing it
// twice is doing it once; servers marked down already get no requests and are
// listed there too.
//
// It is refused, with every reason at once in a *RefusedError, where an
// upstream would be left without a server, with only backup servers or with
// only servers marked down; where a pass or a variable names the address
// directly (ErrDirectPass: make a Replace and call Disable on Tree.With of it);
// where a line would become too long; where another tag has disabled it.
// References that cannot be decided become warnings.
func (t *Tree) Disable(q Query, tag string) (*Change, error) {
	if err := checkArgs(q, tag); err != nil {
		return nil, err
	}
	e := t.editor("disable %s", q)
	var off []Ref
	for _, r := range t.Refs(q) {
		switch {
		case r.Kind == KindOff && r.marker.damaged != "":
			if r.Tag == tag || r.Tag == "" {
				e.refuse(r.refuse(ErrMarkerDamaged, r.marker.damaged))
			}
		case r.Kind == KindComment:
		case r.Kind == KindOff && r.Certain && r.Tag == tag:
			e.already = append(e.already, r)
		case r.Kind == KindOff && r.Certain:
			e.refuse(r.refuse(ErrOtherTag, r.Tag))
		case !r.Certain:
			e.warn("%s:%d: %s %s is left as it is: %s", r.File, r.Line, r.Directive, r.Addr, r.Reason)
		case r.Kind == KindPass || r.Kind == KindValue:
			e.refuse(r.refuse(ErrDirectPass, ""))
		case r.Kind == KindServer && r.Has("down"):
			e.already = append(e.already, r)
		case r.Kind == KindServer:
			if e.comment(r, tag) {
				off = append(off, r)
			}
		}
	}
	e.guard(off, "taking out")
	return e.change()
}

// comment turns the directive of r into an off comment.
func (e *editor) comment(r Ref, tag string) bool {
	fe := e.file(r.d.f)
	src := fe.f.src
	span := r.d.Span()

	rest := span.End
	for rest < len(src) && (src[rest] == ' ' || src[rest] == '\t' || src[rest] == '\r') {
		rest++
	}
	nl := rest < len(src) && src[rest] != '\n' && src[rest] != '#'
	last := span.End // where the last comment line ends
	if !nl {
		last = len(src)
		if i := bytes.IndexByte(src[span.End:], '\n'); i >= 0 {
			last = span.End + i
		}
	}

	type mark struct {
		at   int
		text string
	}
	marks := []mark{{span.Start, offMarker(markOff, tag, nl)}}
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
			marks = append(marks, mark{at, offMarker(markMore, tag, false)})
		}
	}
	for i, m := range marks {
		end := last
		if i+1 < len(marks) {
			end = m.at + bytes.IndexByte(src[m.at:], '\n')
		}
		// One byte is left for the carriage return of an inserted line end.
		if end-m.at+len(m.text) >= bufferSize-1 {
			e.refuse(r.refuse(ErrTooLong, ""))
			return false
		}
	}
	for _, m := range marks {
		fe.buf.Insert(m.at, m.text)
	}
	if nl {
		fe.buf.Insert(span.End, fe.f.lineEnd())
	}
	fe.removed[r.d.i] = true
	return true
}

// Restore puts back what Disable with the same tag turned off: exactly the
// markers are deleted, so that an untouched file gets its first bytes back and
// what a person edited behind a marker stays. Nothing with this tag gives an
// empty Change. A damaged marker refuses the whole operation (ErrMarkerDamaged).
func (t *Tree) Restore(tag string) (*Change, error) {
	if err := checkArgs(Query{Host: "x"}, tag); err != nil {
		return nil, err
	}
	e := t.editor("restore what %s disabled", tag)
	for _, r := range t.Refs(Query{}) {
		m := r.marker
		if r.Kind != KindOff || m.tag != tag && !(m.tag == "" && m.damaged != "") {
			continue
		}
		if m.damaged != "" {
			e.refuse(r.refuse(ErrMarkerDamaged, m.damaged))
			continue
		}
		f := t.File(r.File)
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
	}
	return e.change()
}

// AddServer puts a server line for addr behind every active server line that
// like means: with the same parameters, the same indentation, and the comment
// `#upgradectl:add(TAG)` behind it. addr is a host, which gets the port of the
// line it is like, or host:port. An upstream that has the server under this tag
// is left alone (Change.Already); one that has it otherwise is refused
// (ErrExists).
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
	have := map[*servers][]Ref{}
	for _, r := range c.query(Query{Host: host}) {
		if r.Kind == KindServer && r.Certain {
			for _, s := range r.upstreams {
				have[s] = append(have[s], r)
			}
		}
	}
	for _, r := range c.query(like) {
		switch {
		case r.Kind == KindOff && r.marker.damaged != "" && (r.Tag == tag || r.Tag == ""):
			e.refuse(r.refuse(ErrMarkerDamaged, r.marker.damaged))
			continue
		case r.Kind != KindServer:
			continue
		case !r.Certain:
			e.warn("%s:%d: no server is added next to %s: %s", r.File, r.Line, r.Addr, r.Reason)
			continue
		case r.Has("down"):
			e.warn("%s:%d: no server is added next to %s: it is marked down", r.File, r.Line, r.Addr)
			continue
		}
		want := r.Port
		if port != 0 {
			want = port
		}
		var there *Ref
		for _, s := range r.upstreams {
			for i, o := range have[s] {
				if o.Port == want {
					there = &have[s][i]
				}
			}
		}
		switch {
		case there != nil && there.Tag == tag:
			e.already = append(e.already, *there)
		case there != nil:
			e.refuse(there.refuse(ErrExists, there.Tag))
		case r.escaped:
			e.refuse(r.refuse(ErrEscaped, ""))
		default:
			e.insertLike(r, host, port, tag)
			for _, s := range r.upstreams {
				e.warnHash(s, "adding")
			}
		}
	}
	return e.change()
}

// insertLike puts a copy of the server line r for another address behind it.
func (e *editor) insertLike(r Ref, host string, port int, tag string) {
	fe := e.file(r.d.f)
	src := fe.f.src
	span := r.d.Span()

	value := r.d.Word(1).Value()
	tail := value[r.target.end:]
	if port != 0 {
		tail = ":" + strconv.Itoa(port)
	}
	addr := value[:r.target.start] + writtenHost(host) + tail
	raw := r.d.Word(1).s
	text := string(src[span.Start:raw.start]) + addr + string(src[raw.end:span.End])

	end := len(src)
	lf := bytes.IndexByte(src[span.End:], '\n')
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
	switch {
	case alone && lf >= 0:
		eol := "\n"
		if src[end-1] == '\r' {
			eol = "\r\n"
		}
		fe.buf.Insert(end+1, indent+text+" #upgradectl:add("+tag+")"+eol)
	case alone && src[end-1] != '\r':
		fe.buf.Insert(end, fe.f.lineEnd()+indent+text+" #upgradectl:add("+tag+")")
	default:
		fe.buf.Insert(span.End, " "+text+" #upgradectl:add("+tag+",nl)"+fe.f.lineEnd())
	}
	words := append([]string{r.d.Name()}, r.d.Args()...)
	words[1] = addr
	i := r.d.i + 1
	fe.inserted[i] = append(fe.inserted[i], insertion{fe.f.depth(r.d.i), words})
}

// RemoveAdded deletes the server lines that AddServer added under this tag, with
// all that it inserted and nothing else. It is refused where that would leave an
// upstream without a server (see Disable) and where the marker is damaged.
// Nothing with this tag gives an empty Change.
func (t *Tree) RemoveAdded(tag string) (*Change, error) {
	if err := checkArgs(Query{Host: "x"}, tag); err != nil {
		return nil, err
	}
	e := t.editor("remove what %s added", tag)
	var removed []Ref
	last := map[*File]int{}
	for _, r := range t.Refs(Query{}) {
		m := r.marker
		switch {
		case m == nil:
		case m.damaged != "":
			if m.tag == tag || m.tag == "" {
				e.refuse(r.refuse(ErrMarkerDamaged, m.damaged))
			}
		case m.kind == markOff:
			if bytes.Contains(m.text, []byte("upgradectl:add("+tag+")")) {
				e.refuse(r.refuse(ErrOtherTag, m.tag))
			}
		case m.kind == markAdd && m.tag == tag:
			f := m.d.f
			fe := e.file(f)
			// Two of our lines that somebody moved together share a line end.
			start := max(m.delete.Start, last[f])
			fe.buf.Delete(start, m.delete.End)
			last[f] = m.delete.End
			fe.removed[m.d.i] = true
			removed = append(removed, r)
		}
	}
	e.guard(removed, "taking out")
	return e.change()
}

// Replace puts toHost in the place of the address in every pass
// (`proxy_pass http://172.31.0.90:8080;`) and in every value of a set, map, geo
// or split_clients that reaches a pass. Scheme, port, URI and quotes stay. The
// servers of upstreams are left alone: AddServer and Disable are for them. No
// marker is left; Change.Inverse takes it back. tag names the operation in
// messages.
func (t *Tree) Replace(from Query, toHost string, tag string) (*Change, error) {
	if err := checkArgs(from, tag); err != nil {
		return nil, err
	}
	if !validHost(toHost) {
		return nil, fmt.Errorf("cannot replace %s: %q is not a host that can stand in a configuration", from, toHost)
	}
	e := t.editor("replace %s by %s (%s)", from, toHost, tag)
	for _, r := range t.Refs(from) {
		if r.Kind != KindPass && r.Kind != KindValue {
			continue
		}
		switch {
		case !r.Certain:
			e.warn("%s:%d: %s %s is left as it is: %s", r.File, r.Line, r.Directive, r.Addr, r.Reason)
		case r.escaped:
			e.refuse(r.refuse(ErrEscaped, ""))
		default:
			fe := e.file(r.d.f)
			start := int(r.d.Word(r.word).s.start)
			fe.buf.Replace(start+r.target.start, start+r.target.end, writtenHost(toHost))
			if fe.changed[r.d.i] == nil {
				fe.changed[r.d.i] = map[int]string{}
			}
			fe.changed[r.d.i][r.word] = r.Addr[:r.target.start] + writtenHost(toHost) + r.Addr[r.target.end:]
		}
	}
	return e.change()
}

func checkArgs(q Query, tag string) error {
	if !ValidTag(tag) {
		return fmt.Errorf("%q is not a tag: 1 to 64 letters, digits, dots, dashes or underscores", tag)
	}
	if q.Host == "" {
		return fmt.Errorf("an edit needs the host it is for")
	}
	return nil
}

// splitHostPort reads "host", "host:port", "[v6]:port" or a bare IPv6 address.
func splitHostPort(addr string) (host string, port int, err error) {
	bad := fmt.Errorf("%q is not a host or host:port that can stand in a configuration", addr)
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
