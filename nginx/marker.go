package nginx

import (
	"bytes"
	"strings"
)

// The grammar of our markers. A directive that is off has `#upgradectl:off(TAG) `
// directly before its first byte and `#upgradectl:off+(TAG) ` before the first
// byte that is not blank of each further line it spans; off(TAG,nl) says that a
// line end was inserted behind its ; because other text followed there. A server
// line that was marked down has ` #upgradectl:down(TAG)` behind its ;, on the
// line of the ; when it spans several, and one that was added has
// ` #upgradectl:add(TAG)` there; down(TAG,nl) and add(TAG,nl) say that a line end
// was inserted behind the marker. What a person wrote behind the ; follows our
// marker in the same comment, and so does another marker of ours.
const (
	markOff  = "off"
	markMore = "off+"
	markDown = "down"
	markAdd  = "add"
)

// A marker is one of our marks in a file. For markOff it covers all lines of the
// directive.
type marker struct {
	kind    string
	tag     string // "" when it cannot be read
	nl      bool
	span    Span   // of the comment; through the last line for an off directive
	damaged string // why it cannot be used, or ""
	parent  int32

	parts  []Span // off: the marker texts, which Restore deletes
	text   []byte // off: the directive as it was, with what follows on its last line
	words  []string
	target int // off: offset of the address word's first byte in text, or -1
	d      Directive
	delete Span // add: what RemoveAdded deletes; down: the marker, for Restore
}

func markerText(kind, tag string, nl bool) string {
	if nl {
		tag += ",nl"
	}
	return "#upgradectl:" + kind + "(" + tag + ")"
}

// ValidTag reports whether tag can name an operation in a marker: 1 to 64
// letters, digits, dots, dashes or underscores.
func ValidTag(tag string) bool {
	if tag == "" || len(tag) > 64 {
		return false
	}
	for i := range len(tag) {
		if c := tag[i]; !isNameByte(c) && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// readMarker reads the marker that text starts with. length is that of the
// marker, for off with the blank behind it. ok is false where none of ours is.
func readMarker(text []byte) (m marker, length int, ok bool) {
	rest, ok := bytes.CutPrefix(text, []byte("#upgradectl:"))
	if !ok {
		return m, 0, false
	}
	head, tail, found := bytes.Cut(rest, []byte{')'})
	kind, tag, open := bytes.Cut(head, []byte{'('})
	m.kind = string(kind)
	switch m.kind {
	case markOff, markMore, markDown, markAdd:
	default:
		return m, 0, false
	}
	name, nl := strings.CutSuffix(string(tag), ",nl")
	m.nl = nl
	if !found || !open || !ValidTag(name) {
		m.damaged = "its tag cannot be read"
		return m, 0, true
	}
	m.tag = name
	length = len(text) - len(tail)
	if m.kind == markOff || m.kind == markMore {
		if len(tail) == 0 || tail[0] != ' ' {
			m.damaged = "no blank follows it"
			return m, 0, true
		}
		length++
	}
	return m, length, true
}

// markers returns our markers in the file, in order.
func (f *File) markers() []*marker {
	if !bytes.Contains(f.src, []byte("upgradectl:")) {
		return nil
	}
	var out []*marker
	for i := 0; i < len(f.comments); i++ {
		c := f.comments[i]
		text := f.src[c.Start:c.End]
		m, length, ok := readMarker(text)
		if !ok {
			// Somebody wrote between the # and the marker, or before it.
			if m, _, ok := readMarker(append([]byte{'#'}, bytes.TrimLeft(text, "# \t")...)); ok && m.tag != "" && (m.kind == markOff || m.kind == markMore) {
				m.span, m.parent, m.target = c.Span, c.parent, -1
				m.damaged = "it does not stand at the start of the comment"
				out = append(out, &m)
				continue
			}
		}
		if !ok || m.kind == markDown || m.kind == markAdd {
			out = append(out, f.behind(c)...)
			continue
		}
		m.span, m.parent, m.target = c.Span, c.parent, -1
		out = append(out, &m)
		switch {
		case m.damaged != "":
		case c.Inside:
			m.damaged = "it stands inside another directive"
		case m.kind == markMore:
			m.damaged = "the line before it is not part of the same directive"
		default:
			m.parts = []Span{{c.Start, c.Start + length}}
			for i+1 < len(f.comments) {
				next := f.comments[i+1]
				more, length, ok := readMarker(f.src[next.Start:next.End])
				if !ok || more.kind != markMore || more.tag != m.tag || next.Inside || len(bytes.Trim(f.src[m.span.End:next.Start], " \t\r\n")) > 0 {
					break
				}
				m.parts = append(m.parts, Span{next.Start, next.Start + length})
				m.span.End = next.End
				i++
			}
			f.readOff(&m)
		}
	}
	return out
}

// behind returns the down and add markers of a comment. They count only behind
// a directive on the same line, wherever in the comment they stand: a person may
// have written before them.
func (f *File) behind(c Comment) []*marker {
	text := f.src[c.Start:c.End]
	var out []*marker
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte("upgradectl:"))
		if i < 0 {
			return out
		}
		at += i
		// A blank behind the # is what people type; nothing depends on it here.
		start := at
		if start > 1 && text[start-1] == ' ' {
			start--
		}
		if start > 0 && text[start-1] == '#' {
			start--
		}
		m, length, ok := readMarker(append([]byte{'#'}, text[at:]...))
		if ok && text[start] == '#' && (m.kind == markDown || m.kind == markAdd) {
			m.parent, m.target = c.parent, -1
			m.span = Span{c.Start + start, c.Start + at - 1 + length}
			if m.damaged != "" {
				m.span.End = c.End
			}
			n := f.nodeBefore(c.Start)
			switch {
			case m.damaged != "":
			case n < 0 || c.Inside || f.nodes[n].parent != c.parent || f.nodes[n].close != 0 ||
				len(bytes.Trim(f.src[Directive{f, n}.Span().End:c.Start], " \t\r")) > 0 || !(Directive{f, n}).is("server"):
				m.damaged = "no server line stands before it"
			default:
				m.d = Directive{f, n}
				m.words = append([]string{m.d.Name()}, m.d.Args()...)
				if m.kind == markAdd {
					f.readAdd(&m, c)
				} else {
					f.readDown(&m, c)
				}
			}
			// In the middle of a comment elsewhere it is but text.
			if m.damaged == "" || start == 0 {
				out = append(out, &m)
			}
		}
		at += len("upgradectl:")
	}
}

// readOff finds the directive behind the parts of an off marker.
func (f *File) readOff(m *marker) {
	for i, p := range m.parts {
		end := m.span.End
		if i+1 < len(m.parts) {
			end = m.parts[i+1].Start
		}
		m.text = append(m.text, f.src[p.End:end]...)
	}
	inner, err := Parse("", m.text)
	if err != nil || len(inner.nodes) != 1 || inner.nodes[0].close != 0 {
		m.damaged = "the text behind it is not one whole directive"
		return
	}
	d := Directive{inner, 0}
	if d.start() != 0 {
		m.damaged = "the directive does not start directly behind it"
		return
	}
	rest := m.text[d.Span().End:]
	if m.nl && (len(bytes.Trim(rest, "\r")) > 0 || m.span.End == len(f.src)) {
		m.damaged = "text was added behind the directive"
		return
	}
	m.d = d
	m.words = append([]string{d.Name()}, d.Args()...)
}

// readAdd finds what is to be deleted with a server line that was added.
func (f *File) readAdd(m *marker, c Comment) {
	start, end := m.d.start(), min(c.End+1, len(f.src))
	if m.nl {
		if start == 0 || f.src[start-1] != ' ' {
			m.damaged = "the blank before the server is gone"
			return
		}
		m.delete = Span{start - 1, end}
		return
	}
	line := bytes.LastIndexByte(f.src[:start], '\n') + 1
	if len(bytes.Trim(f.src[line:start], " \t\r")) > 0 {
		m.damaged = "other text stands before the server"
		return
	}
	if c.End == len(f.src) && line > 0 {
		// It was put behind a last line without a line end.
		line--
		if line > 0 && f.src[line-1] == '\r' {
			line--
		}
	}
	m.delete = Span{line, end}
}

// readDown finds what Restore deletes behind the ; of a server marked down.
func (f *File) readDown(m *marker, c Comment) {
	rest := bytes.TrimLeft(f.src[m.span.End:c.End], " \t\r")
	m.delete = m.span
	switch {
	case len(rest) > 0 && rest[0] != '#' && m.span.Start == c.Start:
		m.delete.Start++ // what a person wrote behind the marker stays a comment
	case f.src[m.delete.Start-1] == ' ':
		m.delete.Start--
	}
	if m.nl && len(rest) == 0 && c.End < len(f.src) {
		m.delete.End = c.End + 1
	}
}

// nodeBefore returns the last directive that starts before offset, or -1.
func (f *File) nodeBefore(offset int) int32 {
	lo, hi := 0, len(f.nodes)
	for lo < hi {
		mid := (lo + hi) / 2
		if int(f.words[f.nodes[mid].first].start) < offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return int32(lo) - 1
}

// lineEnd returns the kind of line end the file uses.
func (f *File) lineEnd() string {
	if i := bytes.IndexByte(f.src, '\n'); i > 0 && f.src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
