package nginx

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// An editor collects the edits of one operation on a tree.
type editor struct {
	t        *Tree
	op       string
	files    map[*File]*fileEditor
	marks    map[*File]map[Directive][]*marker
	refused  []Refusal
	already  []Ref
	touched  []Ref // what the edits are about
	warnings []string
}

// fileEditor holds the edits of one file and what the file is to say after them.
type fileEditor struct {
	f        *File
	buf      *textedit.Buffer
	removed  map[int32]bool
	inserted map[int32][]insertion // before the directive of this index
	changed  map[int32][]string    // all words of a directive
}

type insertion struct {
	depth int
	words []string
}

func (t *Tree) editor(format string, args ...any) *editor {
	return &editor{t: t, op: fmt.Sprintf(format, args...), files: map[*File]*fileEditor{}, marks: map[*File]map[Directive][]*marker{}}
}

func (e *editor) file(f *File) *fileEditor {
	fe := e.files[f]
	if fe == nil {
		fe = &fileEditor{
			f: f, buf: textedit.New(f.src), removed: map[int32]bool{},
			inserted: map[int32][]insertion{}, changed: map[int32][]string{},
		}
		e.files[f] = fe
	}
	return fe
}

// mark returns the marker of this kind behind a directive, or nil.
func (e *editor) mark(d Directive, kind string) *marker {
	byPlace, ok := e.marks[d.f]
	if !ok {
		byPlace = map[Directive][]*marker{}
		for _, m := range d.f.markers() {
			if m.damaged == "" && (m.kind == markDown || m.kind == markAdd) {
				byPlace[m.d] = append(byPlace[m.d], m)
			}
		}
		e.marks[d.f] = byPlace
	}
	for _, m := range byPlace[d] {
		if m.kind == kind {
			return m
		}
	}
	return nil
}

func (e *editor) refuse(r Ref, reason error, detail string) {
	e.refused = append(e.refused, refusal(r.refuse(reason, detail), reason, detail))
}

func (e *editor) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(e.warnings, w) {
		e.warnings = append(e.warnings, w)
	}
}

// leave warns of a reference that the operation does not touch.
func (e *editor) leave(r Ref, reason string) {
	e.warn("%s:%d: %s %s is left as it is: %s", r.File, r.Line, r.Directive, r.Addr, reason)
}

// damaged refuses for a marker that nobody can read. One whose tag can be read
// is the business of its own operation.
func (e *editor) damaged(r Ref, tag string) bool {
	if r.marker == nil || r.marker.damaged == "" {
		return false
	}
	if r.Tag == tag || r.Tag == "" {
		e.refuse(r, ErrMarkerDamaged, r.marker.damaged)
	}
	return true
}

// change ends the operation: the edited files are parsed again, every word that
// was not to change is compared, and every upstream must still be served.
func (e *editor) change() (*Change, error) {
	out := &Change{Already: e.already, Warnings: e.warnings}
	parsed := map[*File]*File{}
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
			parsed[f], err = fe.verify(after)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot %s in %s: %w", e.op, f.name, err)
		}
		out.files = append(out.files, fileChange{f.name, f.src, after, edits})
	}
	if len(out.files) > 0 {
		next, err := e.t.with(parsed)
		if err != nil {
			return nil, err
		}
		e.guard(out, e.t.upstreams(), next.upstreams())
	}
	if len(e.refused) > 0 {
		order := map[string]int{}
		for i, f := range e.t.files {
			order[f.name] = i
		}
		slices.SortStableFunc(e.refused, func(a, b Refusal) int {
			return cmp.Or(order[a.File]-order[b.File], a.Line-b.Line, a.Col-b.Col)
		})
		return nil, &RefusedError{Op: e.op, Refusals: e.refused}
	}
	out.Warnings = e.warnings
	return out, nil
}

// guard refuses the operation where it breaks an upstream that served before,
// and counts the clients that move.
func (e *editor) guard(out *Change, before, after []*servers) {
	if len(before) != len(after) {
		panic("nginx: internal error: an edit changed the number of upstreams")
	}
	touched := map[Directive][]Ref{}
	for _, r := range e.touched {
		for _, s := range r.upstreams {
			touched[s.block] = append(touched[s.block], r)
		}
	}
	for i, was := range before {
		refs := touched[was.block]
		if len(refs) == 0 {
			continue
		}
		is := after[i]
		last := refs[len(refs)-1]
		last.Upstream = was.name
		if m, bad := is.unsupported(); bad {
			if _, bad := was.unsupported(); !bad {
				e.refuse(last, ErrNotSupportedByMethod, "backup behind "+m.after)
			}
		}
		if was.dynamic != "" {
			e.warn("upstream %s gets its servers from %s at run time; the files are not all of it", was.name, was.dynamic)
			continue
		}
		if reason := is.served(); reason != nil && was.served() == nil {
			e.refuse(last, reason, "")
			continue
		}
		if was.hash != "" {
			m := move(was, is)
			out.Moves = append(out.Moves, m)
			if m.Clients > 0 {
				e.warn("%s", m)
			}
		}
	}
}

// verify parses the edited text and compares all its directives with what they
// are meant to be.
func (fe *fileEditor) verify(after []byte) (*File, error) {
	now, err := Parse(fe.f.name, after)
	if err != nil {
		return nil, fmt.Errorf("internal error: the edited text does not parse: %w", err)
	}
	was := fe.f
	oldDepth, newDepth := was.depths(), now.depths()
	at := int32(0)
	// same reports whether the next directive is where and what it should be,
	// its words aside.
	same := func(depth int, block bool, count int) bool {
		return int(at) < len(now.nodes) && newDepth[at] == depth && (now.nodes[at].close != 0) == block && int(now.nodes[at].count) == count
	}
	wrong := func(want string) error {
		if int(at) >= len(now.nodes) {
			return fmt.Errorf("internal error: the edit lost %q", want)
		}
		d := Directive{now, at}
		return fmt.Errorf("internal error: line %d reads %q instead of %q after the edit", d.Position().Line, d.Name(), want)
	}
	words := func(depth int, block bool, want []string) error {
		ok := same(depth, block, len(want))
		for n := 0; ok && n < len(want); n++ {
			ok = Directive{now, at}.Word(n).Value() == want[n]
		}
		if !ok {
			return wrong(want[0])
		}
		at++
		return nil
	}
	for i := int32(0); int(i) <= len(was.nodes); i++ {
		for _, ins := range fe.inserted[i] {
			if err := words(ins.depth, false, ins.words); err != nil {
				return nil, err
			}
		}
		if int(i) == len(was.nodes) || fe.removed[i] {
			continue
		}
		nd := &was.nodes[i]
		if want := fe.changed[i]; want != nil {
			if err := words(oldDepth[i], nd.close != 0, want); err != nil {
				return nil, err
			}
			continue
		}
		ok := same(oldDepth[i], nd.close != 0, int(nd.count))
		for n := uint32(0); ok && n < nd.count; n++ {
			a, b := was.words[nd.first+n], now.words[now.nodes[at].first+n]
			// The same bytes are the same word.
			ok = bytes.Equal(was.src[a.start:a.end], now.src[b.start:b.end])
		}
		if !ok {
			return nil, wrong(Directive{was, i}.Name())
		}
		at++
	}
	if int(at) != len(now.nodes) {
		return nil, fmt.Errorf("internal error: the edit made %d directives too many", len(now.nodes)-int(at))
	}
	return now, nil
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

// values returns all words of a directive.
func (d Directive) values() []string { return append([]string{d.Name()}, d.Args()...) }

// insertWord puts a word behind the n-th one of the directive of r.
func (e *editor) insertWord(r Ref, n int, word string) {
	fe := e.file(r.d.f)
	end := r.d.Word(n).Span().End
	text := " " + word
	if fe.f.src[end] == ')' {
		text += " " // directly behind a closing quote, ) begins the next word
	}
	fe.buf.Insert(end, text)
	want := fe.changed[r.d.i]
	if want == nil {
		want = r.d.values()
	}
	fe.changed[r.d.i] = slices.Insert(want, n+1, word)
	e.touched = append(e.touched, r)
}

// checkVersion refuses a server line with parameters that this nginx does not
// know.
func (e *editor) checkVersion(r Ref, words []string) bool {
	for _, w := range words[min(2, len(words)):] {
		if need := e.t.version.lacks(w); need != "" {
			e.refuse(r, ErrNotSupportedByVersion, need)
			return false
		}
	}
	return true
}

func checkArgs(q Query, tag string) error {
	if err := checkTag(tag); err != nil {
		return err
	}
	return checkQuery(q)
}

func checkTag(tag string) error {
	if !ValidTag(tag) {
		return badArgument("%q is not a tag: 1 to 64 letters, digits, dots, dashes or underscores", tag)
	}
	return nil
}

func checkQuery(q Query) error {
	if q.Host == "" {
		return badArgument("an edit needs the host it is for")
	}
	return nil
}
