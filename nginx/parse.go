package nginx

import (
	"bytes"
	"fmt"
	"slices"
)

const (
	// bufferSize is NGX_CONF_BUFFER: nginx keeps the word or comment it reads
	// in one buffer of this size and gives up when it does not fit.
	bufferSize = 4096
	// MaxFileSize is the size in bytes up to which a file is read.
	MaxFileSize = 64 << 20
	// maxDepth bounds the nesting of blocks; nginx itself recurses on its stack.
	maxDepth = 1000
	// maxNodes and maxWords bound the memory that a file of the shortest
	// directives and words takes: about 250 MB.
	maxNodes = 4_000_000
	maxWords = 4 * maxNodes
)

// Classes of bytes inside a bare word: those that are not plain end it or act
// on the next byte.
var special = [256]bool{' ': true, '\t': true, '\r': true, '\n': true, ';': true, '{': true, '\\': true, '$': true}

// Parse reads one configuration file by nginx's own rules (ngx_conf_read_token
// in src/core/ngx_conf_file.c, the same from 1.13.8 to 1.31). name is used in
// messages only. src is kept, not copied: it must not change afterwards.
//
// A file that nginx's reader refuses gives a *SyntaxError, together with a File
// that holds all of src and the directives before the error. Whether a
// directive is known, allowed at its place or has the right arguments is not
// looked at: any module may bring any directive.
func Parse(name string, src []byte) (*File, error) {
	f := &File{name: name, src: src}
	if len(src) > MaxFileSize {
		return f, &SyntaxError{File: name, Line: 1, Col: 1, Msg: fmt.Sprintf("the file is larger than the %d bytes that are read", MaxFileSize)}
	}
	p := parser{
		f: f, src: src,
		// A word and its blank take about 20 bytes in real files; too small an
		// estimate only costs one more growth.
		words: make([]span, 0, len(src)/20+8),
		nodes: make([]node, 0, len(src)/50+4),
	}
	err := p.run()
	f.words, f.nodes, f.comments = slices.Clip(p.words), slices.Clip(p.nodes), slices.Clip(p.comments)
	if err != nil {
		for _, i := range p.open {
			f.nodes[i].next, f.nodes[i].close = int32(len(f.nodes)), uint32(len(src))
		}
	}
	return f, err
}

type parser struct {
	f        *File
	src      []byte
	words    []span
	nodes    []node
	comments []Comment
	open     []int32
}

func (p *parser) fail(offset int, format string, args ...any) error {
	// Without the table of Position: an error may well be all that is asked of
	// the file.
	before := p.src[:offset]
	return &SyntaxError{
		File: p.f.name, Line: 1 + bytes.Count(before, []byte{'\n'}), Col: offset - bytes.LastIndexByte(before, '\n'),
		Offset: offset, Msg: fmt.Sprintf(format, args...),
	}
}

func (p *parser) tooLong(start int) error {
	return p.fail(start, "too long parameter \"%s...\" started", p.src[start:start+10])
}

func (p *parser) endOfFile(inDirective bool) error {
	if inDirective {
		return p.fail(len(p.src), `unexpected end of file, expecting ";" or "}"`)
	}
	return p.fail(len(p.src), `unexpected end of file, expecting "}"`)
}

func (p *parser) run() error {
	src := p.src
	n := len(src)
	first := 0 // the first word of the directive under way
	at := 0
	for at < n {
		// Here a word may start.
		c := src[at]
		switch c {
		case ' ', '\t', '\r', '\n':
			at++
			continue
		case ';', '{':
			if first == len(p.words) {
				return p.fail(at, "unexpected \"%c\"", c)
			}
			next, err := p.directive(first, at)
			if err != nil {
				return err
			}
			first, at = len(p.words), next
			continue
		case '}':
			if first != len(p.words) || len(p.open) == 0 {
				return p.fail(at, `unexpected "}"`)
			}
			i := p.open[len(p.open)-1]
			p.open = p.open[:len(p.open)-1]
			p.nodes[i].close, p.nodes[i].next = uint32(at), int32(len(p.nodes))
			at++
			continue
		case '#':
			end := n
			if i := bytes.IndexByte(src[at:], '\n'); i >= 0 {
				end = at + i
			}
			if end-at >= bufferSize && n-at > bufferSize {
				return p.tooLong(at)
			}
			parent := int32(-1)
			if len(p.open) > 0 {
				parent = p.open[len(p.open)-1]
			}
			if len(p.comments) >= maxNodes {
				return p.fail(at, "the file has more than the %d comments that are read", maxNodes)
			}
			p.comments = append(p.comments, Comment{Span: Span{at, end}, Inside: first != len(p.words), parent: parent})
			at = end
			continue
		case '"', '\'':
			if len(p.words) >= maxWords {
				return p.fail(at, "the file has more than the %d words that are read", maxWords)
			}
			start := at + 1
			end := start
			for end < n && src[end] != c {
				if src[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end, n)
			if end-start >= bufferSize && n-start > bufferSize {
				return p.fail(at, "too long parameter, probably missing terminating \"%c\" character", c)
			}
			if end+1 >= n {
				return p.endOfFile(true)
			}
			p.words = append(p.words, span{uint32(start), uint32(end)})
			at = end + 1
			if at-start == bufferSize {
				return p.tooLong(start)
			}
			switch src[at] {
			case ' ', '\t', '\r', '\n':
				at++
				if at-start == bufferSize && at < n {
					return p.tooLong(start)
				}
			case ';', '{', ')':
				// The first two end the directive, the last starts a word.
			default:
				return p.fail(at, "unexpected \"%s\"", src[at:at+1])
			}
			continue
		}

		if len(p.words) >= maxWords {
			return p.fail(at, "the file has more than the %d words that are read", maxWords)
		}
		start := at
	word:
		for at < n {
			if !special[src[at]] {
				at++
				continue
			}
			switch src[at] {
			case '\\':
				at += 2
			case '$':
				at++
				for at < n && src[at] == '{' {
					at++
				}
			default:
				break word
			}
		}
		at = min(at, n)
		if at-start >= bufferSize && n-start > bufferSize {
			return p.tooLong(start)
		}
		if at == n {
			return p.endOfFile(true)
		}
		p.words = append(p.words, span{uint32(start), uint32(at)})
		if c := src[at]; c != ';' && c != '{' {
			at++
			// nginx forgets a word only when it has read the byte behind the
			// blank that ended it.
			if at-start == bufferSize && at < n {
				return p.tooLong(start)
			}
		}
	}
	if first != len(p.words) {
		return p.endOfFile(true)
	}
	if len(p.open) > 0 {
		return p.endOfFile(false)
	}
	return nil
}

// directive ends the directive whose words start at first with the ; or { at
// offset term, and returns where to read on.
func (p *parser) directive(first, term int) (int, error) {
	parent := int32(-1)
	if len(p.open) > 0 {
		parent = p.open[len(p.open)-1]
	}
	i := int32(len(p.nodes))
	if i >= maxNodes {
		return 0, p.fail(term, "the file has more than the %d directives that are read", maxNodes)
	}
	p.nodes = append(p.nodes, node{
		first: uint32(first), count: uint32(len(p.words) - first),
		term: uint32(term), parent: parent, next: i + 1,
	})
	if p.src[term] == ';' {
		return term + 1, nil
	}
	if len(p.open) >= maxDepth {
		return 0, p.fail(term, "blocks are nested more than %d deep", maxDepth)
	}
	if !isLuaBlock(Word{p.f, p.words[first]}) {
		p.open = append(p.open, i)
		return term + 1, nil
	}
	end, err := p.luaBlock(term)
	if err != nil {
		p.open = append(p.open, i)
		return 0, err
	}
	p.nodes[i].close = uint32(end)
	return end + 1, nil
}
