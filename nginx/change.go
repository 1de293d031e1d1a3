package nginx

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// An Edit replaces the bytes Old of a file, which start at Offset, by New.
type Edit struct {
	File     string
	Line     int // of Offset, from 1
	Offset   int // in the file before the change
	Old, New []byte
}

// A FileChange is one file before and after a change, by the name nginx calls it.
type FileChange struct {
	Name          string
	Before, After []byte
}

// A Change says what is to become of some files. Nothing has been written; see
// Server.Apply. A Change never changes itself and is safe for concurrent use.
type Change struct {
	files []fileChange
	// Already holds the places that were found as the edit wants them.
	Already []Ref
	// Warnings say what an operator should know before the change is applied.
	Warnings []string
	// Moves says for each upstream that maps clients to servers how many of them
	// the change sends elsewhere.
	Moves []Move
}

type fileChange struct {
	name          string
	before, after []byte
	edits         []textedit.Edit
}

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool { return len(c.files) == 0 }

// Files returns the changed files, in the order nginx reads them.
func (c *Change) Files() []FileChange {
	out := make([]FileChange, len(c.files))
	for i, f := range c.files {
		out[i] = FileChange{Name: f.name, Before: f.before, After: f.after}
	}
	return out
}

// Edits returns the single edits, file by file, in the order of their offsets.
func (c *Change) Edits() []Edit {
	var out []Edit
	for _, f := range c.files {
		line, at := 1, 0
		for _, e := range f.edits {
			line += bytes.Count(f.before[at:e.Offset], []byte{'\n'})
			at = e.Offset
			out = append(out, Edit{
				File: f.name, Line: line,
				Offset: e.Offset, Old: slices.Clone(e.Old), New: slices.Clone(e.New),
			})
		}
	}
	return out
}

// Inverse returns the change that gives back the bytes from before c.
func (c *Change) Inverse() *Change {
	out := &Change{}
	for _, f := range c.files {
		out.files = append(out.files, fileChange{f.name, f.after, f.before, textedit.Invert(f.edits)})
	}
	return out
}

// NewChange makes a Change of whole files, for instance of those from a
// journal: FileChanges turned around take back what was applied.
func NewChange(files ...FileChange) *Change {
	out := &Change{}
	for _, f := range files {
		if bytes.Equal(f.Before, f.After) {
			continue
		}
		out.files = append(out.files, fileChange{f.Name, f.Before, f.After, lineEdits(f.Before, f.After)})
	}
	return out
}

// Merge makes one Change of several. For each file they must either start from
// the same bytes, and not touch the same place, or follow one another: the next
// one made on Tree.With of those before. Changes that start from the same bytes
// are checked together: an upstream that loses its last server by two of them
// is refused.
func Merge(changes ...*Change) (*Change, error) {
	out := &Change{}
	at := map[string]int{}
	for _, c := range changes {
		if c == nil {
			continue
		}
		out.Already = append(out.Already, c.Already...)
		out.Moves = append(out.Moves, c.Moves...)
		for _, w := range c.Warnings {
			if !slices.Contains(out.Warnings, w) {
				out.Warnings = append(out.Warnings, w)
			}
		}
		for _, f := range c.files {
			i, ok := at[f.name]
			if !ok {
				at[f.name] = len(out.files)
				out.files = append(out.files, f)
				continue
			}
			merged, err := mergeFile(out.files[i], f)
			if err != nil {
				return nil, err
			}
			out.files[i] = merged
		}
	}
	out.files = slices.DeleteFunc(out.files, func(f fileChange) bool { return bytes.Equal(f.before, f.after) })
	return out, nil
}

func mergeFile(a, b fileChange) (fileChange, error) {
	out := fileChange{name: a.name, before: a.before}
	switch {
	case bytes.Equal(a.after, b.before):
		out.after = b.after
		out.edits = textedit.Compose(a.before, a.edits, b.edits)
		return out, nil
	case bytes.Equal(a.before, b.before):
		out.edits = append(slices.Clone(a.edits), b.edits...)
		textedit.Sort(out.edits)
		after, err := textedit.Apply(a.before, out.edits)
		if err != nil {
			return out, fmt.Errorf("cannot merge changes of %s: %w", a.name, err)
		}
		out.after = after
		return out, checkMerged(a, b, after)
	}
	return out, fmt.Errorf("cannot merge changes of %s: the second starts neither where the first started nor where it ended", a.name)
}

// checkMerged sees to it that two changes of one text do not spoil each other,
// and that no upstream lost its last server by both.
func checkMerged(a, b fileChange, after []byte) error {
	name := a.name
	count := func(src []byte) (int, *File, error) {
		f, err := Parse(name, src)
		if err != nil {
			return 0, nil, fmt.Errorf("cannot merge changes of %s: %w", name, err)
		}
		return len(f.nodes), f, nil
	}
	before, old, err := count(a.before)
	if err != nil {
		return err
	}
	first, _, err := count(a.after)
	if err != nil {
		return err
	}
	second, _, err := count(b.after)
	if err != nil {
		return err
	}
	both, now, err := count(after)
	if err != nil {
		return err
	}
	if both-before != (first-before)+(second-before) {
		return fmt.Errorf("cannot merge changes of %s: they touch the same place; make the second on Tree.With of the first", name)
	}
	had := map[string]bool{}
	for d := range old.All() {
		if d.is("upstream") && d.IsBlock() {
			// Of one with includes only a Tree can tell.
			if s, whole := fileServers(d); whole && s.dynamic == "" && s.served() == nil {
				had[d.Arg(1)] = true
			}
		}
	}
	refused := &RefusedError{Op: "merge changes of " + name}
	for d := range now.All() {
		if d.is("upstream") && d.IsBlock() && had[d.Arg(1)] {
			s, _ := fileServers(d)
			if reason := s.served(); reason != nil {
				pos := d.Position()
				refused.Refusals = append(refused.Refusals, refusal(Refusal{File: name, Line: pos.Line, Col: pos.Col, Upstream: s.name, Addr: s.name}, reason, ""))
			}
		}
	}
	if len(refused.Refusals) > 0 {
		return refused
	}
	return nil
}

// Diff returns the change as a unified diff with three lines of context, which
// patch -p0 takes.
func (c *Change) Diff() string {
	var b strings.Builder
	for _, f := range c.files {
		text, err := textedit.Diff(f.name, f.before, f.edits)
		if err != nil {
			// The edits were checked when the change was made.
			panic("nginx: internal error: " + err.Error())
		}
		b.WriteString(text)
	}
	return b.String()
}

// With returns the tree as it is after the change: for looking at it, or for
// making a further change on top of it. The includes are those of t.
func (t *Tree) With(c *Change) (*Tree, error) {
	changed := map[string]FileChange{}
	for _, fc := range c.Files() {
		changed[fc.Name] = fc
	}
	parsed := map[*File]*File{}
	for _, f := range t.files {
		fc, ok := changed[f.name]
		if !ok {
			continue
		}
		if !bytes.Equal(f.src, fc.Before) {
			return nil, fmt.Errorf("cannot apply a change of %s: the tree holds another version of it", f.name)
		}
		delete(changed, f.name)
		n, err := Parse(f.name, fc.After)
		if err != nil {
			return nil, err
		}
		parsed[f] = n
	}
	for name := range changed {
		return nil, fmt.Errorf("cannot apply a change of %s: the tree does not hold it", name)
	}
	return t.with(parsed)
}

// with returns the tree with other texts in the place of some files.
func (t *Tree) with(parsed map[*File]*File) (*Tree, error) {
	next := &Tree{includes: map[Directive][]*File{}, version: t.version, aliases: t.aliases}
	now := func(f *File) *File {
		if n := parsed[f]; n != nil {
			return n
		}
		return f
	}
	next.main = now(t.main)
	for _, f := range t.files {
		next.files = append(next.files, now(f))
	}
	include := func(d Directive, from []*File) {
		to := make([]*File, len(from))
		for i, f := range from {
			to[i] = now(f)
		}
		next.includes[d] = to
	}
	for d, files := range t.includes {
		if parsed[d.f] == nil {
			include(d, files)
		}
	}
	for f, n := range parsed {
		// No edit adds or takes away an include, so the n-th stays the n-th.
		olds, news := includesOf(f), includesOf(n)
		if len(olds) != len(news) {
			return nil, fmt.Errorf("internal error: an edit of %s changed its includes", f.name)
		}
		for i, d := range olds {
			if files, ok := t.includes[d]; ok {
				include(news[i], files)
			}
		}
	}
	return next, nil
}
