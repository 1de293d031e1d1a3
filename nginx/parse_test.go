package nginx_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// tokenRow is a text with what nginx's reader makes of it. The real nginx reads
// it inside a types block, which takes any words, or inside a server block.
type tokenRow struct {
	name, text string
	in         string // "types" or "server"
	want       string // the tokens: words in brackets, then the end
	msg        string // of the syntax error
	line       int    // of the syntax error
}

func long(n int) string { return strings.Repeat("x", n) }

var tokenRows = []tokenRow{
	{name: "plain", text: "a b;", want: "[a][b];"},
	{name: "blanks", text: " \t\r\na\tb\r\nc ;\n", want: "[a][b][c];"},
	{name: "no final newline", text: "a b;c d;", want: "[a][b];[c][d];"},
	{name: "form feed is a word byte", text: "a b\fc;", want: "[a][b\fc];"},
	{name: "vertical tab is a word byte", text: "a b\vc;", want: "[a][b\vc];"},
	{name: "no-break space is a word byte", text: "a b\u00a0c;", want: "[a][b\u00a0c];"},
	{name: "ideographic space is a word byte", text: "a\u3000b;c d;", want: "[a\u3000b];[c][d];"},
	{name: "full-width semicolon", text: "a b；\nc d;", want: "[a][b；][c][d];"},
	{name: "byte order mark", text: "\ufeffa b;", want: "[\ufeffa][b];"},
	{name: "nul", text: "a b\x00c;", want: "[a][b\x00c];"},
	{name: "not utf-8", text: "a \xff\xfe;", want: "[a][\xff\xfe];"},
	{name: "double quotes", text: `a "b c;{}#";`, want: "[a][b c;{}#];"},
	{name: "single quotes", text: `a 'b "c" d';`, want: `[a][b "c" d];`},
	{name: "empty words", text: `a "" '';`, want: "[a][][];"},
	{name: "quoted name", text: `"a" b;`, want: "[a][b];"},
	{name: "quote in a word", text: `a b"c d'e;`, want: `[a][b"c][d'e];`},
	{name: "quoted newline", text: "a \"b\nc\";", want: "[a][b\nc];"},
	{name: "quote then brace", text: `a "b"{}`, in: "none", want: "[a][b]{}"},
	{name: "quote then parenthesis", text: `a "b")c;`, want: "[a][b][)c];"},
	{name: "quote then parenthesis and quote", text: `a "b")"c";`, want: `[a][b][)"c"];`},
	{name: "escaped quote", text: `a "b\"c";`, want: `[a][b"c];`},
	{name: "escapes", text: `a "\t\r\n\\\'\q\$";`, want: "[a][\t\r\n\\'\\q\\$];"},
	{name: "escaped blank", text: `a b\ c;`, want: `[a][b\ c];`},
	{name: "escaped semicolon", text: `a b\;c;`, want: `[a][b\;c];`},
	{name: "escaped brace", text: `a b\{c;`, want: `[a][b\{c];`},
	{name: "escaped newline", text: "a b\\\nc;", want: "[a][b\\\nc];"},
	{name: "escape at a word's start", text: `a \"b;`, want: `[a]["b];`},
	{name: "comment", text: "# x\na b; # y; {\nc d;#z", want: "[a][b];[c][d];"},
	{name: "comment between words", text: "a # x\n b;", want: "[a][b];"},
	{name: "hash in a word", text: "a b#c;", want: "[a][b#c];"},
	{name: "carriage return does not end a comment", text: "# x\ra b;\nc d;", want: "[c][d];"},
	{name: "closing brace in a word", text: "a b}c;", want: "[a][b}c];"},
	{name: "variable in braces", text: "a ${b}c;", want: "[a][${b}c];"},
	{name: "variable inside a word", text: "a x${b}c;", want: "[a][x${b}c];"},
	{name: "two braces behind a dollar", text: "a ${{b;", want: "[a][${{b];"},
	{name: "brace behind a name opens", text: "a $b{}", in: "none", want: "[a][$b]{}"},
	{name: "escaped dollar does not hold a brace", text: `a \${}`, in: "none", want: `[a][\$]{}`},
	{name: "dollar at the end", text: "a $;", want: "[a][$];"},
	{name: "block", text: "location / { }", in: "server", want: "[location][/]{}"},
	{name: "nested blocks", text: "location / { location /a { } root /; }", in: "server", want: "[location][/]{[location][/a]{}[root][/];}"},
	{name: "comment behind braces", text: "location / {# x\n}# y\n", in: "server", want: "[location][/]{}"},
	{name: "word of 4,095 bytes", text: "a " + long(4095) + ";", want: "[a][" + long(4095) + "];"},
	{name: "comment of 4,095 bytes", text: "#" + long(4094) + "\na b;", want: "[a][b];"},
	{name: "comment of 4,096 bytes at the end", text: "a b;#" + long(4095), want: "[a][b];"},
	{name: "quoted word of 4,095 bytes", text: `a "` + long(4095) + `" ;`, msg: "too long parameter", line: 1},
	{name: "quoted word of 4,094 bytes", text: `a "` + long(4094) + `";`, want: "[a][" + long(4094) + "];"},
	{name: "quoted word of 4,094 bytes and blank", text: `a "` + long(4094) + `" b;`, msg: "too long parameter", line: 1},
	{name: "quoted word of 4,093 bytes and blank", text: `a "` + long(4093) + `" b;`, want: "[a][" + long(4093) + "][b];"},
	{name: "word of 4,095 bytes and blank", text: "a " + long(4095) + " b;", msg: "too long parameter", line: 1},
	{name: "word of 4,094 bytes and blank", text: "a " + long(4094) + " b;", want: "[a][" + long(4094) + "][b];"},
	{name: "long line of short words", text: "a" + strings.Repeat(" b", 4000) + ";", want: "[a]" + strings.Repeat("[b]", 4000) + ";"},

	{name: "word of 4,096 bytes", text: "a b;\na " + long(4096) + ";", msg: `too long parameter "xxxxxxxxxx..." started`, line: 2},
	{name: "comment of 4,096 bytes", text: "#" + long(4095) + "\na b;", msg: `too long parameter "#xxxxxxxxx..." started`, line: 1},
	{name: "open quote, long", text: "a 'b\n" + long(5000), msg: `too long parameter, probably missing terminating "'" character`, line: 1},
	{name: "open quote, short", text: "a 'b\nc", msg: `unexpected end of file, expecting ";" or "}"`, line: 2},
	{name: "semicolon alone", text: "a b;;", msg: `unexpected ";"`, line: 1},
	{name: "brace alone", text: "a b;\n{", msg: `unexpected "{"`, line: 2},
	{name: "byte behind a quote", text: "a \"b\"c;", msg: `unexpected "c"`, line: 1},
	{name: "hash behind a quote", text: "a 'b'#;", msg: `unexpected "#"`, line: 1},
	{name: "brace behind a quote", text: "a 'b'};", msg: `unexpected "}"`, line: 1},
	{name: "closing brace too many", text: "a b;\n}\n", msg: `unexpected "}"`, line: 2},
	{name: "closing brace in a directive", text: "a b\n}", msg: `unexpected "}"`, line: 2},
	{name: "end inside a directive", text: "a b;\nc d\n", msg: `unexpected end of file, expecting ";" or "}"`, line: 3},
	{name: "end behind a backslash", text: "a b\\", msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
	{name: "end behind a quote", text: "a 'b'", msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
	{name: "end inside a block", text: "location / {\n", in: "server", msg: `unexpected end of file, expecting "}"`, line: 2},
	{name: "hidden terminator", text: `a b\;`, msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
}

func tokens(f *nginx.File) string {
	var b strings.Builder
	for t := range f.Tokens() {
		for _, w := range t.Words {
			b.WriteString("[" + w + "]")
		}
		b.WriteByte(t.End)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, row := range tokenRows {
		t.Run(row.name, func(t *testing.T) {
			f, err := nginx.Parse("f.conf", []byte(row.text))
			assert.Equal(t, row.text, string(f.Bytes()))
			if row.msg != "" {
				var se *nginx.SyntaxError
				require.ErrorAs(t, err, &se)
				assert.Contains(t, se.Msg, row.msg)
				assert.Equal(t, row.line, se.Line)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, row.want, tokens(f))
		})
	}
}

// TestParseAsNginx holds the rows against the real program: what we accept it
// accepts, what we refuse it refuses with the same words and line.
func TestParseAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	for _, row := range tokenRows {
		if row.in == "none" {
			continue // a block that no context takes
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open, end := "types {", "}"
			if row.in == "server" {
				open, end = "server {", "}"
			}
			main := mainConf(dir, open+"\ninclude row.conf;\n"+end)
			write(t, filepath.Join(dir, "nginx.conf"), main)
			write(t, filepath.Join(dir, "row.conf"), row.text)
			out, err := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
			if row.msg == "" {
				require.NoError(t, err, "%s", out)
				return
			}
			require.Error(t, err)
			_, want := nginx.Parse("row.conf", []byte(row.text))
			m := regexp.MustCompile(`(?s)\[emerg\] (?:\d+#\d+: )?(.*) in \S*row\.conf:(\d+)`).FindSubmatch(out)
			require.NotNil(t, m, "%s", out)
			assert.Equal(t, string(m[1]), want.(*nginx.SyntaxError).Msg)
			assert.Equal(t, string(m[2]), strconv.Itoa(want.(*nginx.SyntaxError).Line))
		})
	}
}

// mainConf is a main file whose logs, pid file and temporary directories are
// all in dir, around the given content of the http block.
func mainConf(dir, http string) string {
	return `daemon on;
pid ` + dir + `/nginx.pid;
error_log ` + dir + `/error.log;
worker_processes 2;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path ` + dir + `/t1;
	proxy_temp_path ` + dir + `/t2;
	fastcgi_temp_path ` + dir + `/t3;
	uwsgi_temp_path ` + dir + `/t4;
	scgi_temp_path ` + dir + `/t5;
` + http + "\n}\n"
}

func write(t testing.TB, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
}

var luaRows = []struct{ name, text, want string }{
	{"braces", "content_by_lua_block { local t = {1, {2}} }", "[content_by_lua_block]{}"},
	{"arguments", "set_by_lua_block $x { return '}' }", "[set_by_lua_block][$x]{}"},
	{"comment", "content_by_lua_block { -- }\n }", "[content_by_lua_block]{}"},
	{"long comment", "content_by_lua_block { --[==[ } ]] ]==] }", "[content_by_lua_block]{}"},
	{"long string", "content_by_lua_block { x = [[ } \" ]] }", "[content_by_lua_block]{}"},
	{"string with escapes", `content_by_lua_block { x = "\"}" .. '\'}' }`, "[content_by_lua_block]{}"},
	{"lone quote", "content_by_lua_block { -- it\n x = 1 ' \n }", "[content_by_lua_block]{}"},
	{"hash is no comment", "content_by_lua_block { return #t }", "[content_by_lua_block]{}"},
	{"only as the directive", "server_name content_by_lua_block;", "[server_name][content_by_lua_block];"},
	{"more follows", "content_by_lua_block { } a b;", "[content_by_lua_block]{}[a][b];"},
}

func TestParseLua(t *testing.T) {
	for _, row := range luaRows {
		f, err := nginx.Parse("f.conf", []byte(row.text))
		if assert.NoError(t, err, row.name) {
			assert.Equal(t, row.want, tokens(f), row.name)
		}
	}
	for _, text := range []string{"content_by_lua_block { [[ }", "content_by_lua_block { '}'", "content_by_lua_block { --[[ }", "content_by_lua_block { };"} {
		_, err := nginx.Parse("f.conf", []byte(text))
		assert.Error(t, err, text)
	}
}

func TestSpans(t *testing.T) {
	src := []byte("# c\r\nhttp {\r\n\t\"server\" 'a b';# d\r\n}\r\n")
	f, err := nginx.Parse("f.conf", src)
	require.NoError(t, err)
	var http nginx.Directive
	for d := range f.Directives() {
		http = d
	}
	assert.Equal(t, nginx.Position{Offset: 5, Line: 2, Col: 1}, http.Position())
	assert.Equal(t, "\r\n\t\"server\" 'a b';# d\r\n", string(src[http.Body().Start:http.Body().End]))
	for d := range http.Children() {
		assert.Equal(t, `"server" 'a b';`, string(src[d.Span().Start:d.Span().End]))
		assert.Equal(t, byte('\''), d.Word(1).Quote())
		assert.Equal(t, "a b", d.Arg(1))
		p, ok := d.Parent()
		assert.True(t, ok)
		assert.Equal(t, http, p)
	}
	require.Len(t, f.Comments(), 2)
	assert.Equal(t, "# d\r", string(src[f.Comments()[1].Start:f.Comments()[1].End]))
}

func TestParseLimits(t *testing.T) {
	_, err := nginx.Parse("deep.conf", bytes.Repeat([]byte("a{"), 10_000))
	assert.ErrorContains(t, err, "nested")
	_, err = nginx.Parse("big.conf", make([]byte, nginx.MaxFileSize+1))
	assert.ErrorContains(t, err, "larger")
	_, err = nginx.Parse("junk.conf", []byte{0x7f, 'E', 'L', 'F', 0, 0xff, '{', '}', '}'})
	assert.ErrorContains(t, err, `unexpected "}"`)
}

func FuzzParse(f *testing.F) {
	for _, row := range tokenRows {
		if len(row.text) < 200 {
			f.Add([]byte(row.text))
		}
	}
	for _, row := range luaRows {
		f.Add([]byte(row.text))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := nginx.Parse("f.conf", src)
		if !bytes.Equal(file.Bytes(), src) {
			t.Fatal("the bytes changed")
		}
		last := 0
		for d := range file.All() {
			if s := d.Span(); s.Start < last || s.End > len(src)+1 || s.End > len(src) && err == nil {
				t.Fatalf("directive %v does not fit behind %d", s, last)
			}
			last = d.Head().Start
			for _, w := range d.Words() {
				_ = w.Value()
				_ = w.Quote()
				_ = w.Span()
			}
			_ = d.Line()
		}
		for range file.Tokens() {
		}
	})
}

// TestParseLuaAsNginx holds the end of Lua blocks against lua-nginx-module.
func TestParseLuaAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	const modules = "/usr/lib/nginx/modules/"
	for _, m := range []string{"ndk_http_module.so", "ngx_http_lua_module.so"} {
		if _, err := os.Stat(modules + m); err != nil {
			t.Skipf("lua-nginx-module is not installed: %v; on Debian: apt-get install libnginx-mod-http-lua", err)
		}
	}
	texts := []string{"content_by_lua_block { [[ }", "content_by_lua_block { '}'", "content_by_lua_block { --[[ }", "content_by_lua_block { };", `content_by_lua_block { local x = "a\` + "\n" + `}" }`}
	for _, row := range luaRows {
		if row.name != "more follows" { // an unknown directive
			texts = append(texts, row.text)
		}
	}
	for _, text := range texts {
		t.Run(text, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "nginx.conf"), "load_module "+modules+"ndk_http_module.so;\nload_module "+modules+"ngx_http_lua_module.so;\n"+
				mainConf(dir, "server {\nlocation / {\ninclude row.conf;\n}\n}"))
			write(t, filepath.Join(dir, "row.conf"), text)
			out, err := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
			_, ours := nginx.Parse("row.conf", []byte(text))
			if ours != nil {
				assert.Error(t, err, "we refuse it: %v", ours)
				return
			}
			// Whether the code compiles, and whether the directive is allowed
			// here, is not the reader's business.
			assert.NotRegexp(t, `unexpected|terminating|missing`, string(out))
		})
	}
}
