package nginx_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// reference reads a file the way nginx does, byte by byte through one buffer of
// 4,096 bytes, and lists what it hands on: the raw words of each directive with
// their end and its line. It is slow and knows no positions; what it is for is
// to be so close to the description of nginx's reader that it can be checked by
// eye, and to be compared with Parse. Lua blocks are not its business.
func reference(src []byte) (out []string, msg string, line int) {
	const buffer = 4096
	pos, last, depth := 0, min(buffer, len(src)), 0
	line = 1
	for {
		// One directive, or a closing brace.
		var words []string
		var afterBlank, afterQuote, escaped, comment, variable = true, false, false, false, false
		var quote byte
		start, startLine := pos, line
		end := byte(0)
		for end == 0 {
			if pos >= last {
				if last == len(src) {
					switch {
					case len(words) > 0 || !afterBlank:
						return out, `unexpected end of file, expecting ";" or "}"`, line
					case depth > 0:
						return out, `unexpected end of file, expecting "}"`, line
					}
					return out, "", 0
				}
				kept := pos - start
				if kept == buffer {
					if quote != 0 {
						return out, fmt.Sprintf(`too long parameter, probably missing terminating "%c" character`, quote), startLine
					}
					return out, fmt.Sprintf(`too long parameter "%s..." started`, src[start:start+10]), startLine
				}
				last = min(last+buffer-kept, len(src))
			}
			c := src[pos]
			pos++
			blank := c == ' ' || c == '\t' || c == '\r' || c == '\n'
			if c == '\n' {
				line++
				comment = false
			}
			switch {
			case comment:
				continue
			case escaped:
				escaped = false
				continue
			case afterQuote:
				afterQuote = false
				switch {
				case blank:
					afterBlank = true
					continue
				case c == ';' || c == '{':
					end = c
					continue
				case c == ')':
					afterBlank = true
				default:
					return out, fmt.Sprintf("unexpected \"%s\"", []byte{c}), line
				}
			}
			if afterBlank {
				start, startLine = pos-1, line
				if blank {
					continue
				}
				switch c {
				case ';', '{':
					if len(words) == 0 {
						return out, fmt.Sprintf("unexpected \"%c\"", c), line
					}
					end = c
				case '}':
					if len(words) > 0 || depth == 0 {
						return out, `unexpected "}"`, line
					}
					end = c
				case '#':
					comment = true
				case '\\':
					escaped, afterBlank = true, false
				case '"', '\'':
					start++
					quote, afterBlank = c, false
				default:
					variable, afterBlank = c == '$', false
				}
				continue
			}
			if c == '{' && variable {
				continue
			}
			variable = c == '$'
			switch {
			case c == '\\':
				escaped = true
				continue
			case variable:
				continue
			case quote != 0:
				if c != quote {
					continue
				}
				quote, afterQuote = 0, true
			case blank || c == ';' || c == '{':
				afterBlank = true
			default:
				continue
			}
			words = append(words, string(src[start:pos-1]))
			if !afterQuote && (c == ';' || c == '{') {
				end = c
			}
		}
		switch end {
		case '{':
			depth++
		case '}':
			depth--
		}
		out = append(out, fmt.Sprintf("%q%c%d", words, end, line))
	}
}

// compareWithReference holds Parse against reference: the same tokens on the
// same lines, and the same error.
func compareWithReference(t testing.TB, src []byte) {
	if bytes.Contains(src, []byte("_by_lua_block")) {
		return
	}
	want, msg, line := reference(src)
	f, err := nginx.Parse("f", src)
	var got []string
	var ds []nginx.Directive
	for d := range f.All() {
		ds = append(ds, d)
	}
	for tok := range f.Tokens() {
		var words []string
		if tok.End != '}' {
			for _, w := range ds[0].Words() {
				words = append(words, string(w.Raw()))
			}
			ds = ds[1:]
		}
		got = append(got, fmt.Sprintf("%q%c%d", words, tok.End, tok.Line))
	}
	gotMsg, gotLine := "", 0
	if se, ok := err.(*nginx.SyntaxError); ok {
		gotMsg, gotLine = se.Msg, se.Line
		if strings.HasPrefix(se.Msg, "blocks are nested more than") {
			return // our own bound
		}
	}
	if gotMsg != msg || gotLine != line || strings.Join(got, "\n") != strings.Join(want, "\n") {
		short := src
		if len(short) > 300 {
			short = short[:300]
		}
		t.Fatalf("%d bytes %q…\nwe read  %.300q, %q line %d\nreference %.300q, %q line %d", len(src), short, got, gotMsg, gotLine, want, msg, line)
	}
}

// TestReference compares Parse with the reference reader over all rows, over
// Debian's files, and over text whose words and comments lie around the edges of
// nginx's buffer.
func TestReference(t *testing.T) {
	for _, row := range tokenRows {
		compareWithReference(t, []byte(row.text))
	}
	compareWithReference(t, generated(300))
	r := rand.New(rand.NewPCG(3, 4))
	pieces := []string{"a", " ", "\n", ";", "{", "}", "# ", "\"", "'", "\\", "$", "${", "b c", ")", "\r\n", "a b;\n", "x {", "\"c d\" ", "# e\n"}
	for range 600 {
		var b bytes.Buffer
		for range r.IntN(12) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		// A run of one kind that ends near a multiple of the buffer.
		run := []string{"x", " ", "\n", "#", `\;`, "${", "a ", "b;"}[r.IntN(8)]
		open := []string{"", "a ", "a \"", "a '", "#", "a b;\n#", "a b"}[r.IntN(7)]
		b.WriteString(open)
		b.WriteString(strings.Repeat(run, max(0, (4096*(1+r.IntN(2))-b.Len()+r.IntN(9)-4)/len(run))))
		for range r.IntN(12) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		compareWithReference(t, b.Bytes())
	}
}

// TestRandomAsNginx shows nginx -t random text, much of it around the edges of
// its buffer.
func TestRandomAsNginx(t *testing.T) {
	testenv.Slow(t)
	binary := testenv.Need(t, "nginx")
	syntax := regexp.MustCompile(`(?s)\[emerg\] (?:\d+#\d+: )?((?:unexpected|too long).*) in \S*row\.conf:(\d+)`)
	r := rand.New(rand.NewPCG(5, 6))
	// No block: inside types every { is an error of another kind.
	pieces := []string{"a", " ", "\n", ";", "# ", "\"", "'", "\\", "$", "${", "b c", ")", "\r\n", "a b;\n", "\"c d\" ", "# e\n", "}"}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "nginx.conf"), mainConf(dir, "types {\ninclude row.conf;\n}"))
	refused := 0
	for range 300 {
		var b strings.Builder
		for range r.IntN(10) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		if r.IntN(2) == 0 {
			run := []string{"x", " ", "\n", "#", `\;`, "a "}[r.IntN(6)]
			b.WriteString([]string{"", "a ", "a \"", "a '", "#", "a b;\n#"}[r.IntN(6)])
			b.WriteString(strings.Repeat(run, max(0, (4096-b.Len()+r.IntN(9)-4)/len(run))))
			for range r.IntN(10) {
				b.WriteString(pieces[r.IntN(len(pieces))])
			}
		}
		write(t, filepath.Join(dir, "row.conf"), b.String())
		out, _ := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
		want := ""
		if m := syntax.FindSubmatch(out); m != nil {
			want = string(m[1]) + " line " + string(m[2])
			refused++
		}
		got := ""
		if _, err := nginx.Parse("row.conf", []byte(b.String())); err != nil {
			se := err.(*nginx.SyntaxError)
			got = fmt.Sprintf("%s line %d", se.Msg, se.Line)
		}
		require.Equal(t, want, got, "%q", b.String())
	}
	t.Logf("%d of 300 refused", refused)
	assert.Greater(t, refused, 50)
}

// FuzzReference compares Parse with the reference reader.
func FuzzReference(f *testing.F) {
	for _, row := range tokenRows {
		if len(row.text) < 200 {
			f.Add([]byte(row.text), uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, pad uint16) {
		// Comments move the text over the buffer's edge.
		head := append(bytes.Repeat([]byte("#"), int(pad)%4090), '\n')
		compareWithReference(t, append(head, src...))
		compareWithReference(t, src)
	})
}
