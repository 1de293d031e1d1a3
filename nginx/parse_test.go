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
	{name: "empty file", text: "", want: ""},
	{name: "only blanks", text: " \t\r\n \n", want: ""},
	{name: "only a comment", text: "# x", want: ""},
	{name: "hash alone at the end", text: "a b;#", want: "[a][b];"},
	{name: "5,000 blanks between words", text: "a" + strings.Repeat(" ", 5000) + "b;", want: "[a][b];"},
	{name: "5,000 newlines before a word", text: strings.Repeat("\n", 5000) + "a b;", want: "[a][b];"},
	{name: "10,000 blanks at the end", text: "a b;" + strings.Repeat(" ", 10000), want: "[a][b];"},
	{name: "500 comment lines inside a directive", text: "a" + strings.Repeat("\n# comment", 500) + "\nb;", want: "[a][b];"},
	{name: "word over the reader's buffer edge", text: strings.Repeat("# comment\n", 409) + "abcdefghij klmnop;", want: "[abcdefghij][klmnop];"},
	{name: "quoted word over the buffer edge", text: strings.Repeat("# comment\n", 409) + "a \"b\nc d e f\";", want: "[a][b\nc d e f];"},
	{name: "carriage returns as line ends", text: "a b;\rc d;\r", want: "[a][b];[c][d];"},
	{name: "carriage return in quotes", text: "a \"b\r\nc\";", want: "[a][b\r\nc];"},
	{name: "byte order mark before a comment", text: "\ufeff# x\na b;", want: "[\ufeff#][x][a][b];"},
	{name: "ideographic space before a comment", text: "a b;\u3000# x\nc d;", want: "[a][b];[\u3000#][x][c][d];"},
	{name: "no-break space at the start", text: "\u00a0a b;", want: "[\u00a0a][b];"},
	{name: "full-width brace is a word byte", text: "a ｛b｝;", want: "[a][｛b｝];"},
	{name: "full-width quotes are word bytes", text: "a “b c”;", want: "[a][“b][c”];"},
	{name: "nul at a word's start", text: "a \x00b;", want: "[a][\x00b];"},
	{name: "delete and control bytes", text: "a \x01\x7f\x1b[0m;", want: "[a][\x01\x7f\x1b[0m];"},
	{name: "latin-1 bytes", text: "a caf\xe9 \xe0;", want: "[a][caf\xe9][\xe0];"},
	{name: "backtick is no quote", text: "a `b c`;", want: "[a][`b][c`];"},
	{name: "blank behind a quote", text: "a 'b' ;", want: "[a][b];"},
	{name: "newline behind a quote", text: "a 'b'\n;", want: "[a][b];"},
	{name: "carriage return behind a quote", text: "a 'b'\r\n;", want: "[a][b];"},
	{name: "comment behind a quote and a blank", text: "a 'b' # c;\n;", want: "[a][b];"},
	{name: "parenthesis and more behind a quote", text: `a ("b") "c";`, want: `[a][("b")][c];`},
	{name: "parentheses around a quoted word", text: `a (b = "c");`, want: `[a][(b][=][c][)];`},
	{name: "parenthesis then semicolon", text: `a "b");`, want: "[a][b][)];"},
	{name: "two parentheses behind a quote", text: `a "b"));`, want: "[a][b][))];"},
	{name: "quoted words in a row", text: `a "b" 'c' "d";`, want: "[a][b][c][d];"},
	{name: "other quote inside", text: `a "'" '"';`, want: `[a][']["];`},
	{name: "escaped single quote in single quotes", text: `a '\'';`, want: `[a]['];`},
	{name: "escaped single quote in double quotes", text: `a "\'";`, want: `[a]['];`},
	{name: "escaped backslash before a quote", text: `a "b\\";`, want: `[a][b\];`},
	{name: "escaped backslash before a semicolon", text: `a b\\;`, want: `[a][b\];`},
	{name: "escaped quote in a bare word", text: `a b\"c\'d;`, want: `[a][b"c'd];`},
	{name: "escaped tab and newline in a bare word", text: `a b\tc\nd\re;`, want: "[a][b\tc\nd\re];"},
	{name: "unknown escapes stay", text: `a \a\.\d\*\/\0\x41\u0041;`, want: `[a][\a\.\d\*\/\0\x41\u0041];`},
	{name: "escaped closing brace", text: `a \};`, want: `[a][\}];`},
	{name: "escaped hash", text: `a \#b;`, want: `[a][\#b];`},
	{name: "escaped carriage return", text: "a b\\\rc;", want: "[a][b\\\rc];"},
	{name: "escaped newline in quotes", text: "a \"b\\\nc\";", want: "[a][b\\\nc];"},
	{name: "escaped multi-byte letter", text: `a \é;`, want: `[a][\é];`},
	{name: "dollar and open brace", text: "a ${;", want: "[a][${];"},
	{name: "unclosed variable", text: "a ${b c;", want: "[a][${b][c];"},
	{name: "two dollars and a brace", text: "a $${b};", want: "[a][$${b}];"},
	{name: "variable in quotes", text: `a "${b}" "$";`, want: "[a][${b}][$];"},
	{name: "dollar before an escape", text: `a $\;;`, want: `[a][$\;];`},
	{name: "dollar brace in a name", text: "${a} b;", want: "[${a}][b];"},
	{name: "closing braces inside words", text: "a b}} c}d;", want: "[a][b}}][c}d];"},
	{name: "quoted brace in a location", text: `location ~ "^/x{2}$" { }`, in: "server", want: "[location][~][^/x{2}$]{}"},
	{name: "block without a blank before it", text: "location /{}", in: "server", want: "[location][/]{}"},
	{name: "block on the next line", text: "location /\n# x\n{\n}\n", in: "server", want: "[location][/]{}"},
	{name: "condition with quotes", text: `if ($host = "a b"){ }`, in: "server", want: "[if][($host][=][a b][)]{}"},
	{name: "word of 4,095 bytes behind another", text: "a b " + long(4095) + ";", want: "[a][b][" + long(4095) + "];"},
	{name: "quoted lines of 4,000 bytes in all", text: "a \"" + strings.Repeat("b\n", 2000) + "\";", want: "[a][" + strings.Repeat("b\n", 2000) + "];"},
	{name: "two comments of 4,095 bytes", text: strings.Repeat("#"+long(4094)+"\n", 2) + "a b;", want: "[a][b];"},
	{name: "comment of 9,000 bytes at the end", text: "a b;#" + long(8999), msg: `too long parameter "#xxxxxxxxx..." started`, line: 1},
	{name: "comment of 4,097 bytes at the end", text: "a b;#" + long(4096), msg: `too long parameter "#xxxxxxxxx..." started`, line: 1},
	{name: "comment of 4,096 bytes and newline", text: "a b;#" + long(4095) + "\n", msg: `too long parameter "#xxxxxxxxx..." started`, line: 1},
	{name: "long word on a later line", text: "a b;\n\nc\n d\n " + long(5000) + ";", msg: `too long parameter "xxxxxxxxxx..." started`, line: 5},
	{name: "long quoted word names its first line", text: "a b;\nc \"x\n\n\n" + long(5000) + "\n\";", msg: `too long parameter, probably missing terminating """ character`, line: 2},
	{name: "long word of escapes", text: "a " + strings.Repeat(`\;`, 2100) + ";", msg: `too long parameter "\;\;\;\;\;..." started`, line: 1},
	{name: "semicolon first", text: ";", msg: `unexpected ";"`, line: 1},
	{name: "brace first", text: "\n\n{", msg: `unexpected "{"`, line: 3},
	{name: "closing brace first", text: "}", msg: `unexpected "}"`, line: 1},
	{name: "semicolon behind a comment", text: "a b;#c\n;", msg: `unexpected ";"`, line: 2},
	{name: "semicolon behind a block", text: "location / { };", in: "server", msg: `unexpected ";"`, line: 1},
	{name: "closing brace twice", text: "location / { }\n}", in: "server", msg: `unexpected "}"`, line: 2},
	{name: "letter behind an empty string", text: `a ""b;`, msg: `unexpected "b"`, line: 1},
	{name: "quote behind a quote", text: `a "b"'c';`, msg: `unexpected "'"`, line: 1},
	{name: "opening parenthesis behind a quote", text: "a\n\"b\"(;", msg: `unexpected "("`, line: 2},
	{name: "first byte of a letter behind a quote", text: `a "b"é;`, msg: "unexpected \"\xc3\"", line: 1},
	{name: "control byte behind a quote", text: "a 'b'\x01;", msg: "unexpected \"\x01\"", line: 1},
	{name: "form feed behind a quote", text: "a 'b'\f;", msg: "unexpected \"\f\"", line: 1},
	{name: "dollar behind a quote", text: "a 'b'$c;", msg: `unexpected "$"`, line: 1},
	{name: "backslash behind a quote", text: `a 'b'\c;`, msg: `unexpected "\"`, line: 1},
	{name: "closing brace behind words on lines", text: "a\nb\nc\n}", msg: `unexpected "}"`, line: 4},
	{name: "open double quote alone", text: `a "`, msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
	{name: "open quote behind an escape", text: "a 'b\\'\n\n", msg: `unexpected end of file, expecting ";" or "}"`, line: 3},
	{name: "end behind a name", text: "a", msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
	{name: "end behind words and a comment", text: "a b # c", msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
	{name: "end behind words and a long comment", text: "a b\n#" + long(4000), msg: `unexpected end of file, expecting ";" or "}"`, line: 2},
	{name: "end inside a directive in a block", text: "location / {\na", in: "server", msg: `unexpected end of file, expecting ";" or "}"`, line: 2},
	{name: "end inside two blocks", text: "location / {\nlocation /a {\n}\n", in: "server", msg: `unexpected end of file, expecting "}"`, line: 4},
	{name: "comment hides the closing brace", text: "location / { # }\n", in: "server", msg: `unexpected end of file, expecting "}"`, line: 2},
	{name: "full-width semicolon at the end", text: "a b；\n", msg: `unexpected end of file, expecting ";" or "}"`, line: 2},
	{name: "ideographic space hides nothing", text: "a\u3000b；", msg: `unexpected end of file, expecting ";" or "}"`, line: 1},
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

// luaRow is a directive with Lua code, as it may stand in a location.
type luaRow struct {
	name, text, want string
	msg              string
	line             int
}

var luaRows = []luaRow{
	{name: "braces", text: "content_by_lua_block { local t = {1, {2}} }", want: "[content_by_lua_block]{}"},
	{name: "arguments", text: "set_by_lua_block $x { return '}' }", want: "[set_by_lua_block][$x]{}"},
	{name: "comment", text: "content_by_lua_block { -- }\n }", want: "[content_by_lua_block]{}"},
	{name: "long comment", text: "content_by_lua_block { --[==[ } ]] ]==] }", want: "[content_by_lua_block]{}"},
	{name: "comment that is not long", text: "content_by_lua_block { --[=x } \n }", want: "[content_by_lua_block]{}"},
	{name: "long string", text: "content_by_lua_block { x = [[ } \" ]] }", want: "[content_by_lua_block]{}"},
	{name: "long string with a level", text: "content_by_lua_block { x = [=[ a ]] } ]=] }", want: "[content_by_lua_block]{}"},
	{name: "brackets that open no string", text: "content_by_lua_block { a[b[1]] = [==x }", want: "[content_by_lua_block]{}"},
	{name: "string with escapes", text: `content_by_lua_block { x = "\"}" .. '\'}' }`, want: "[content_by_lua_block]{}"},
	{name: "escaped backslash ends a string", text: `content_by_lua_block { a = "x\\" b="}" }`, want: "[content_by_lua_block]{}"},
	{name: "quotes inside quotes", text: `content_by_lua_block { a = "'" .. '"' }`, want: "[content_by_lua_block]{}"},
	{name: "lone quote", text: "content_by_lua_block { -- it\n x = 1 ' \n }", want: "[content_by_lua_block]{}"},
	{name: "lone quote hides no brace", text: "content_by_lua_block {\n x = \"}\n", want: "[content_by_lua_block]{}"},
	{name: "string over an escaped newline is none", text: "content_by_lua_block { x = \"\\\n\" }", want: "[content_by_lua_block]{}"},
	{name: "strings in a table", text: `content_by_lua_block { t = {"}", [["]], '{'} }`, want: "[content_by_lua_block]{}"},
	{name: "minus before a long string", text: "content_by_lua_block { a = 5 -[[}]] 4 }", want: "[content_by_lua_block]{}"},
	{name: "hash is no comment", text: "content_by_lua_block { return #t }", want: "[content_by_lua_block]{}"},
	{name: "semicolons", text: "content_by_lua_block { a = 1; b = 2; }", want: "[content_by_lua_block]{}"},
	{name: "carriage returns", text: "content_by_lua_block {\r\n -- }\r\n}\r\n", want: "[content_by_lua_block]{}"},
	{name: "quoted name", text: `"content_by_lua_block" { x("}") }`, want: "[content_by_lua_block]{}"},
	{name: "brace on a line of its own", text: "content_by_lua_block # }\n\n{\n x\n}", want: "[content_by_lua_block]{}"},
	{name: "only as the directive", text: "server_name content_by_lua_block;", want: "[server_name][content_by_lua_block];"},
	{name: "another directive follows", text: "content_by_lua_block { \"}\" } expires 1;", want: "[content_by_lua_block]{}[expires][1];"},
	{name: "two blocks", text: "rewrite_by_lua_block { '{' } access_by_lua_block { '{' }", want: "[rewrite_by_lua_block]{}[access_by_lua_block]{}"},

	{name: "open long string", text: "content_by_lua_block { [[ }", msg: `Lua code block missing the closing long bracket "]]", the inlined Lua code may be too long`, line: 1},
	{name: "open long comment", text: "content_by_lua_block {\n\n x = 5 --[==[ }\n]]\n", msg: `Lua code block missing the closing long bracket "]==]", the inlined Lua code may be too long`, line: 3},
	{name: "brace in a string only", text: "content_by_lua_block { '}'", msg: "unexpected end of file, expecting terminating characters for lua code block", line: 1},
	{name: "brace in a comment only", text: "\n\ncontent_by_lua_block {\n\n -- x }", msg: "unexpected end of file, expecting terminating characters for lua code block", line: 3},
	{name: "inner brace too many", text: "content_by_lua_block {\n\n {{ } x\n }", msg: "unexpected end of file, expecting terminating characters for lua code block", line: 3},
	{name: "semicolon behind the block", text: "content_by_lua_block { };", msg: `unexpected ";"`, line: 1},
	{name: "brace too many", text: "content_by_lua_block {\n} }", msg: `unexpected "}"`, line: 2},
	{name: "rest of a broken string", text: "content_by_lua_block { local x = \"a\\\n}\" }", msg: `unexpected end of file, expecting ";" or "}"`, line: 2},
}

func TestParseLua(t *testing.T) {
	for _, row := range luaRows {
		t.Run(row.name, func(t *testing.T) {
			f, err := nginx.Parse("f.conf", []byte(row.text))
			if row.msg != "" {
				var se *nginx.SyntaxError
				require.ErrorAs(t, err, &se)
				assert.Equal(t, row.msg, se.Msg)
				assert.Equal(t, row.line, se.Line)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, row.want, tokens(f))
		})
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
		long := false
		for d := range file.All() {
			for _, w := range d.Words() {
				long = long || 2*len(w.Raw()) > 4000
			}
		}
		if err == nil && !long {
			roundTrip(t, file)
		}
	})
}

// TestParseLuaAsNginx holds the end of Lua blocks against lua-nginx-module.
func TestParseLuaAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	const modules = "/usr/lib/nginx/modules/"
	for _, m := range []string{"ndk_http_module.so", "ngx_http_lua_module.so"} {
		if _, err := os.Stat(modules + m); err != nil {
			if testenv.Required("libnginx-mod-http-lua") {
				t.Fatalf("the Debian package libnginx-mod-http-lua is not installed (%s names it): %v", testenv.RequireVariable, err)
			}
			t.Skipf("lua-nginx-module is not installed: %v; on Debian: apt-get install libnginx-mod-http-lua", err)
		}
	}
	for _, row := range luaRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "nginx.conf"), "load_module "+modules+"ndk_http_module.so;\nload_module "+modules+"ngx_http_lua_module.so;\n"+
				mainConf(dir, "server {\nlocation / {\ninclude row.conf;\n}\n}"))
			write(t, filepath.Join(dir, "row.conf"), row.text)
			out, err := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
			if row.msg == "" {
				// Whether the code compiles, and whether the directive is allowed
				// here, is not the reader's business.
				assert.NotRegexp(t, `unexpected|terminating|missing|unknown directive`, string(out))
				return
			}
			require.Error(t, err)
			m := regexp.MustCompile(`(?s)\[emerg\] (?:\d+#\d+: )?(.*) in \S*row\.conf:(\d+)`).FindSubmatch(out)
			require.NotNil(t, m, "%s", out)
			assert.Equal(t, row.msg, string(m[1]))
			assert.Equal(t, strconv.Itoa(row.line), string(m[2]))
		})
	}
}
