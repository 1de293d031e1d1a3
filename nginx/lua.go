package nginx

import "bytes"

// isLuaBlock reports whether a directive of this name has a body of Lua code
// when it ends in {. The names grow with every version of lua-nginx-module, so
// the suffix decides.
func isLuaBlock(name Word) bool {
	const suffix = "_by_lua_block"
	raw := name.f.src[name.s.start:name.s.end]
	if bytes.HasSuffix(raw, []byte(suffix)) {
		return true
	}
	return bytes.IndexByte(raw, '\\') >= 0 && bytes.HasSuffix([]byte(name.Value()), []byte(suffix))
}

// luaBlock returns the offset of the brace that closes the Lua block opened at
// offset open. The rules are those of lua-nginx-module's own reader: braces
// count outside of strings and comments only, and a quote without a partner on
// its line means nothing.
func (p *parser) luaBlock(open int) (int, error) {
	src := p.src
	depth := 1
	last := open // the last {, whose line a missing } is reported at
	// Up to here no quote of this kind has a partner: they were looked for to
	// the line's end already, and looking again from each would take a time
	// that grows with the square of the line.
	var alone [256]int
	for at := open + 1; at < len(src); {
		switch c := src[at]; c {
		case '{':
			depth++
			last = at
			at++
		case '}':
			depth--
			if depth == 0 {
				return at, nil
			}
			at++
		case '-':
			if at+1 >= len(src) || src[at+1] != '-' {
				at++
				continue
			}
			if level := luaBracket(src[at+2:]); level >= 0 {
				end, err := p.luaLong(at, at+2+level+2, level)
				if err != nil {
					return 0, err
				}
				at = end
				continue
			}
			if i := bytes.IndexByte(src[at:], '\n'); i >= 0 {
				at += i + 1
			} else {
				at = len(src)
			}
		case '[':
			level := luaBracket(src[at:])
			if level < 0 {
				at++
				continue
			}
			end, err := p.luaLong(at, at+level+2, level)
			if err != nil {
				return 0, err
			}
			at = end
		case '"', '\'':
			if at < alone[c] {
				at++
				continue
			}
			var ok bool
			if at, ok = luaString(src, at); !ok {
				alone[c] = at
				if i := bytes.IndexByte(src[at:], '\n'); i >= 0 {
					alone[c] += i
				} else {
					alone[c] = len(src)
				}
			}
		default:
			at++
		}
	}
	return 0, p.fail(last, `unexpected end of file, expecting terminating characters for lua code block`)
}

// luaBracket returns the number of = in the long bracket that text starts with,
// or -1.
func luaBracket(text []byte) int {
	if len(text) == 0 || text[0] != '[' {
		return -1
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '=':
		case '[':
			return i - 1
		default:
			return -1
		}
	}
	return -1
}

// luaLong returns the offset behind the closing bracket of a long string or
// comment that starts at start and whose text starts at from.
func (p *parser) luaLong(start, from, level int) (int, error) {
	closing := append(append([]byte{']'}, bytes.Repeat([]byte{'='}, level)...), ']')
	i := bytes.Index(p.src[from:], closing)
	if i < 0 {
		return 0, p.fail(start, "Lua code block missing the closing long bracket \"%s\", the inlined Lua code may be too long", closing)
	}
	return from + i + len(closing), nil
}

// luaString returns the offset behind the string that opens at offset at; ok is
// false, and the offset that behind the quote, when it does not end on its line.
func luaString(src []byte, at int) (end int, ok bool) {
	for i := at + 1; i < len(src) && src[i] != '\n'; i++ {
		switch src[i] {
		case src[at]:
			return i + 1, true
		case '\\':
			i++
			if i < len(src) && src[i] == '\n' {
				return at + 1, false
			}
		}
	}
	return at + 1, false
}
