package pitrix

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// HAProxy is one haproxy.cfg: its bytes and the places of its sections and
// lines in them. It is not changed after it was parsed.
type HAProxy struct {
	name     string
	src      []byte
	sections []haSection
}

// haSection is one section, from its header to the next one's.
type haSection struct {
	kind, name string // "listen", "api-front"
	lines      []haLine
	header     haLine
	end        int // offset behind its last line that is no comment
}

// haLine is one line that is no comment.
type haLine struct {
	words      []haWord
	line       int // from 1
	start, end int // with its line feed
	// lead is where the comments directly above begin.
	lead int
}

// haWord is one word, without its quotes and escapes.
type haWord struct {
	text       string
	start, end int // of the word as it stands
}

// haSections are the words that open a section. A file with any other word at
// its beginning is refused: what is not known cannot be compared.
func haSections() []string {
	return []string{
		"global", "defaults", "listen", "frontend", "backend", "peers", "resolvers", "userlist", "mailers",
		"program", "http-errors", "cache", "ring", "log-forward", "fcgi-app",
	}
}

// Name returns the name that was given to ParseHAProxy.
func (h *HAProxy) Name() string { return h.name }

// Bytes returns the file. The caller may change the slice.
func (h *HAProxy) Bytes() []byte { return slices.Clone(h.src) }

func (s haSection) title() string { return strings.TrimSpace(s.kind + " " + s.name) }

// ParseHAProxy reads a haproxy.cfg as far as a comparison needs it: sections,
// lines, words. Whether haproxy takes it is for haproxy -c to say. The error is
// of type Problems and holds all of them: words before the first section, an
// open quote, conditions (.if), which make the sections depend on the host, and
// two sections of one name.
func ParseHAProxy(name string, src []byte) (*HAProxy, error) {
	h := &HAProxy{name: name, src: slices.Clone(src)}
	var problems Problems
	if len(src) > maxSize {
		return nil, Problems{{File: name, Line: 1, Col: 1, Rule: RuleSyntax, Text: fmt.Sprintf("the file has %d bytes, a haproxy.cfg has at most %d; is it one?", len(src), maxSize)}}
	}
	kinds := haSections()
	seen := map[string]int{}
	lead := -1
	for start, number := 0, 1; start < len(src); number++ {
		end := len(src)
		if i := bytes.IndexByte(src[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		l := haLine{line: number, start: start, end: end, lead: start}
		words, bad, reason := haWords(src, start, end)
		next := end
		if reason != "" {
			problems = append(problems, Problem{File: name, Line: number, Col: bad - start + 1, Rule: RuleSyntax, Text: reason})
		}
		if len(words) == 0 || reason != "" {
			if strings.HasPrefix(strings.TrimLeft(string(src[start:end]), " \t"), "#") {
				if lead < 0 {
					lead = start
				}
			} else {
				lead = -1
			}
			start = next
			continue
		}
		l.words = words
		if lead >= 0 {
			l.lead = lead
		}
		lead = -1
		first := words[0].text
		switch {
		case strings.HasPrefix(first, "."):
			problems = append(problems, Problem{File: name, Line: number, Col: words[0].start - start + 1, Rule: RuleSyntax, Text: "a condition, which cannot be compared; write the lines that are meant"})
		case slices.Contains(kinds, first):
			s := haSection{kind: first, header: l, end: end}
			if len(words) > 1 {
				s.name = words[1].text
			}
			if s.kind != "global" && s.kind != "defaults" {
				if line, again := seen[s.title()]; again {
					problems = append(problems, Problem{File: name, Line: number, Col: words[0].start - start + 1, Rule: RuleSyntax, Text: fmt.Sprintf("a second %s, the first is in line %d; give one of them another name", s.title(), line)})
				}
				seen[s.title()] = number
			}
			h.sections = append(h.sections, s)
		case len(h.sections) == 0:
			problems = append(problems, Problem{File: name, Line: number, Col: words[0].start - start + 1, Rule: RuleSyntax, Text: "no section is open; a haproxy.cfg begins with global, defaults, listen, frontend or backend"})
		default:
			s := &h.sections[len(h.sections)-1]
			s.lines, s.end = append(s.lines, l), end
		}
		start = next
		if len(problems) >= maxProblems {
			break
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return h, nil
}

// haWords splits the line in [start, end) as haproxy does: quotes, a backslash
// before one character, and # for a comment.
func haWords(src []byte, start, end int) (words []haWord, bad int, reason string) {
	var text []byte
	from := -1
	open := func(i int) {
		if from < 0 {
			from = i
		}
	}
	flush := func(i int) {
		if from >= 0 {
			words = append(words, haWord{string(text), from, i})
			text, from = nil, -1
		}
	}
	i := start
	for i < end {
		switch c := src[i]; {
		case blank(c) || c == '\n' || c == '\r':
			flush(i)
			i++
		case c == '#':
			flush(i)
			return words, 0, ""
		case c == '\\' && i+1 < end && src[i+1] != '\n':
			open(i)
			text = append(text, src[i+1])
			i += 2
		case c == '"' || c == '\'':
			open(i)
			quote, at := c, i
			for i++; i < end && src[i] != quote; i++ {
				if quote == '"' && src[i] == '\\' && i+1 < end {
					i++
				}
				text = append(text, src[i])
			}
			if i >= end {
				return nil, at, "the quote is not closed in this line; close it"
			}
			i++
		case control(c):
			return nil, i, fmt.Sprintf("control character %#02x; delete it", c)
		default:
			open(i)
			text = append(text, c)
			i++
		}
	}
	flush(end)
	return words, 0, ""
}

// texts returns the words of the line as text.
func (l haLine) texts() []string {
	out := make([]string, len(l.words))
	for i, w := range l.words {
		out[i] = w.text
	}
	return out
}

// find returns the section, or nil.
func (h *HAProxy) find(title string) *haSection {
	for i := range h.sections {
		if h.sections[i].title() == title {
			return &h.sections[i]
		}
	}
	return nil
}
