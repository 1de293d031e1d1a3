package nginx

import (
	"bytes"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"
)

// A Span is a range of bytes of a file: [Start, End).
type Span struct{ Start, End int }

// A Position is a place in a file. Line and Col count from 1; Col counts
// bytes, as nginx knows nothing of characters. Offset counts from 0.
type Position struct{ Offset, Line, Col int }

// A File is one configuration file: its bytes, untouched, and where its words,
// directives and comments stand in them. A File never changes and is safe for
// concurrent use.
type File struct {
	name     string
	src      []byte
	words    []span
	nodes    []node
	comments []Comment

	linesOnce sync.Once
	lines     []uint32 // offsets of the line ends
}

// span is a word of a file: for a quoted word the bytes between the quotes.
type span struct{ start, end uint32 }

// node is a directive. Nodes stand in the order of the file, a block before
// its content, so that a subtree is a range of nodes.
type node struct {
	first, count uint32 // words
	term         uint32 // offset of the ; or {
	close        uint32 // offset of the } of a block, 0 otherwise
	parent       int32  // -1 at the top
	next         int32  // the first node behind the subtree
}

// Name returns the name that was given to Parse, or the path in a Tree.
func (f *File) Name() string { return f.name }

// Bytes returns the content of the file: the very bytes that were parsed. They
// must not be changed.
func (f *File) Bytes() []byte { return f.src }

// Position returns where the byte at offset stands.
func (f *File) Position(offset int) Position {
	f.linesOnce.Do(func() {
		lines := make([]uint32, 0, bytes.Count(f.src, []byte{'\n'}))
		for i, c := range f.src {
			if c == '\n' {
				lines = append(lines, uint32(i))
			}
		}
		f.lines = lines
	})
	line := sort.Search(len(f.lines), func(i int) bool { return int(f.lines[i]) >= offset })
	start := 0
	if line > 0 {
		start = int(f.lines[line-1]) + 1
	}
	return Position{Offset: offset, Line: line + 1, Col: offset - start + 1}
}

// Directives yields the directives at the top of the file, in order.
func (f *File) Directives() iter.Seq[Directive] { return f.siblings(0, int32(len(f.nodes))) }

// All yields every directive of the file in order, a block before its content.
func (f *File) All() iter.Seq[Directive] {
	return func(yield func(Directive) bool) {
		for i := range f.nodes {
			if !yield(Directive{f, int32(i)}) {
				return
			}
		}
	}
}

func (f *File) siblings(from, to int32) iter.Seq[Directive] {
	return func(yield func(Directive) bool) {
		for i := from; i < to; i = f.nodes[i].next {
			if !yield(Directive{f, i}) {
				return
			}
		}
	}
}

// Comments returns the comments of the file in order. They must not be changed.
func (f *File) Comments() []Comment { return slices.Clip(f.comments) }

// A Comment is one comment, from its # to the line end, which is not part of
// it. A carriage return before the line end is.
type Comment struct {
	Span
	// Inside says that the comment stands between the words of a directive.
	Inside bool
	parent int32
}

// A Directive is a directive of a File. The zero value is none; its methods
// panic. Directives can be compared with ==.
type Directive struct {
	f *File
	i int32
}

func (d Directive) node() *node { return &d.f.nodes[d.i] }

// File returns the file that holds the directive.
func (d Directive) File() *File { return d.f }

// Name returns the directive's name as nginx has it, unescaped.
func (d Directive) Name() string { return d.Word(0).Value() }

// is compares the name without making a string of it.
func (d Directive) is(name string) bool {
	w := d.Word(0)
	raw := d.f.src[w.s.start:w.s.end]
	if string(raw) == name {
		return true
	}
	return bytes.IndexByte(raw, '\\') >= 0 && w.Value() == name
}

// Len returns the number of words, the name counted.
func (d Directive) Len() int { return int(d.node().count) }

// Word returns the n-th word; 0 is the name.
func (d Directive) Word(n int) Word {
	nd := d.node()
	if n < 0 || n >= int(nd.count) {
		panic("nginx: a directive has no such word")
	}
	return Word{d.f, d.f.words[int(nd.first)+n]}
}

// Words returns all words, the name first.
func (d Directive) Words() []Word {
	out := make([]Word, d.Len())
	for i := range out {
		out[i] = d.Word(i)
	}
	return out
}

// Args returns the values of the words behind the name.
func (d Directive) Args() []string {
	out := make([]string, 0, d.Len()-1)
	for i := 1; i < d.Len(); i++ {
		out = append(out, d.Word(i).Value())
	}
	return out
}

// Arg returns the value of the n-th word, or "" when there is none.
func (d Directive) Arg(n int) string {
	if n >= d.Len() {
		return ""
	}
	return d.Word(n).Value()
}

// IsBlock reports whether the directive ends in { rather than in ;.
func (d Directive) IsBlock() bool { return d.node().close != 0 }

// IsLua reports whether the directive is a block of Lua code. Such a block has
// a Body and no Children.
func (d Directive) IsLua() bool { return d.IsBlock() && isLuaBlock(d.Word(0)) }

// Span reaches from the first byte of the name (its quote, if it has one)
// through the final ; or }.
func (d Directive) Span() Span {
	nd := d.node()
	return Span{d.start(), int(max(nd.term, nd.close)) + 1}
}

// Head reaches from the first byte of the name through the ; or {.
func (d Directive) Head() Span { return Span{d.start(), int(d.node().term) + 1} }

func (d Directive) start() int { return d.Word(0).Span().Start }

// Body is what stands between the braces of a block, and empty otherwise.
func (d Directive) Body() Span {
	nd := d.node()
	if nd.close == 0 {
		return Span{int(nd.term) + 1, int(nd.term) + 1}
	}
	return Span{int(nd.term) + 1, int(nd.close)}
}

// Position returns where the directive starts.
func (d Directive) Position() Position { return d.f.Position(d.start()) }

// Line returns the line that nginx names for the directive: that of its ; or {.
func (d Directive) Line() int { return d.f.Position(int(d.node().term)).Line }

// Children yields the directives directly inside a block of this file.
// Included files are not followed; Tree.Walk does that.
func (d Directive) Children() iter.Seq[Directive] {
	return d.f.siblings(d.i+1, d.node().next)
}

// Parent returns the block around the directive in the same file.
func (d Directive) Parent() (Directive, bool) {
	p := d.node().parent
	return Directive{d.f, p}, p >= 0
}

// A Word is one word of a directive.
type Word struct {
	f *File
	s span
}

// Quote returns the quote character around the word, or 0.
func (w Word) Quote() byte {
	// A bare word ends at a blank, at ; or at {, never at a quote.
	if c := w.f.src[w.s.end]; c == '"' || c == '\'' {
		return c
	}
	return 0
}

// Raw returns the bytes of the word as they stand, without the quotes around it.
func (w Word) Raw() []byte { return w.f.src[w.s.start:w.s.end:w.s.end] }

// Span is the place of the word with the quotes around it.
func (w Word) Span() Span {
	s := Span{int(w.s.start), int(w.s.end)}
	if w.Quote() != 0 {
		s.Start, s.End = s.Start-1, s.End+1
	}
	return s
}

// Value returns the word as nginx has it: of the backslash pairs only \" \' \\
// \t \r and \n are replaced, all others stay two bytes (ngx_conf_read_token).
func (w Word) Value() string {
	raw := w.f.src[w.s.start:w.s.end]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) {
			switch raw[i+1] {
			case '"', '\'', '\\':
				i++
			case 't':
				b.WriteByte('\t')
				i++
				continue
			case 'r':
				b.WriteByte('\r')
				i++
				continue
			case 'n':
				b.WriteByte('\n')
				i++
				continue
			}
		}
		b.WriteByte(raw[i])
	}
	return b.String()
}

// A Token is what nginx's reader hands on at once: the words of a directive
// with the byte that ended them, or a closing brace.
type Token struct {
	Words []string // empty for a closing brace
	End   byte     // ';', '{' or '}'
	Line  int      // the line of End, which nginx names in its messages
}

// Tokens yields the tokens of the file in order. A Lua block is a token that
// ends in { and one that is its closing brace.
func (f *File) Tokens() iter.Seq[Token] {
	return func(yield func(Token) bool) {
		var open []int32
		for i := int32(0); ; i++ {
			for len(open) > 0 && (int(i) >= len(f.nodes) || f.nodes[open[len(open)-1]].next <= i) {
				end := int(f.nodes[open[len(open)-1]].close)
				open = open[:len(open)-1]
				if end < len(f.src) && !yield(Token{End: '}', Line: f.Position(end).Line}) {
					return
				}
			}
			if int(i) >= len(f.nodes) {
				return
			}
			d := Directive{f, i}
			t := Token{Words: append([]string{d.Name()}, d.Args()...), End: f.src[f.nodes[i].term], Line: d.Line()}
			if !yield(t) {
				return
			}
			if d.IsBlock() {
				open = append(open, i)
			}
		}
	}
}
