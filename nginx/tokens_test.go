package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// TestValuesAsNginx lets a running nginx answer with every word of the token
// rows: the bytes of the answer are the word as nginx has it.
func TestValuesAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	var conf strings.Builder
	var want []string
	seen := map[string]bool{}
	for _, row := range tokenRows {
		f, err := nginx.Parse(row.name, []byte(row.text))
		if err != nil || len(row.text) > 3000 {
			continue
		}
		for d := range f.All() {
			for _, w := range d.Words() {
				s := w.Span()
				raw := row.text[s.Start:s.End]
				// A variable would be replaced, and a parenthesis behind a quote
				// is a word only there.
				if strings.Contains(raw, "$") || raw == "" || seen[raw] {
					continue
				}
				seen[raw] = true
				fmt.Fprintf(&conf, "location = /%d { return 200 %s; }\n", len(want), raw)
				want = append(want, w.Value())
			}
		}
	}
	require.Greater(t, len(want), 70)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	write(t, filepath.Join(dir, "nginx.conf"), strings.Replace(
		mainConf(dir, "server {\nlisten unix:"+socket+";\n"+conf.String()+"}"), "daemon on", "daemon off", 1))
	cmd := exec.Command(binary, "-c", filepath.Join(dir, "nginx.conf"))
	require.NoError(t, cmd.Start())
	defer func() {
		assert.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
	}()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		r, err := client.Get("http://nginx/0")
		if err == nil {
			_ = r.Body.Close()
		}
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
	for i, value := range want {
		r, err := client.Get(fmt.Sprintf("http://nginx/%d", i))
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		assert.Equal(t, value, string(body), "word %d", i)
	}
}

// TestLinesAsNginx holds the line of a token against the line that nginx names
// when it does not know the directive.
func TestLinesAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	for _, text := range []string{
		"unknown;", "\n\nunknown a\nb\n;\n", "unknown # ;\n  a # ;\n\n ;", "unknown \"a\nb\nc\" d;", "unknown a\\\nb;",
		"\r\n\r\nunknown a;", "\r\runknown a;", "unknown a\n{\n}", "unknown\n'a\n{'\n{\n}", "# " + long(3000) + "\n" + strings.Repeat("\n", 3000) + "unknown ;",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "nginx.conf"), mainConf(dir, "include row.conf;"))
		write(t, filepath.Join(dir, "row.conf"), text)
		out, err := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
		require.Error(t, err)
		m := regexp.MustCompile(`unknown directive "unknown" in \S*row\.conf:(\d+)`).FindSubmatch(out)
		require.NotNil(t, m, "%s", out)
		f, err := nginx.Parse("row.conf", []byte(text))
		require.NoError(t, err)
		for tok := range f.Tokens() {
			assert.Equal(t, string(m[1]), strconv.Itoa(tok.Line), "%q", text)
			break
		}
	}
}

// includeRow is a small configuration with what nginx says of it.
type includeRow struct {
	name  string
	http  string            // in the http block, from line 1 of a file of its own
	files map[string]string // besides; a name that ends in / is a directory, a text "-> x" a link
	want  string            // what -t says: "" accepts
	file  string            // that the message names, "" when none
	line  int
	// killed: nginx -t ends without a message of its own that could be compared.
	killed bool
}

var includeRows = []includeRow{
	{name: "plain name", http: "include a.conf;", files: map[string]string{"a.conf": "# a"}},
	{name: "name that is not there", http: "\n\ninclude a.conf;", want: "No such file", file: "row.conf", line: 3},
	{name: "directive of several lines", http: "include\n\na.conf\n;", want: "No such file", file: "row.conf", line: 4},
	{name: "pattern without a match", http: "include *.none;"},
	{name: "pattern in a directory that is not there", http: "include none/*.conf;"},
	{name: "name in a directory that is not there", http: "include none/a.conf;", want: "No such file", file: "row.conf", line: 1},
	{name: "directory", http: "include d;", files: map[string]string{"d/": ""}, want: "directory", file: "d", line: 1},
	{name: "directory behind a slash", http: "include d/;", files: map[string]string{"d/": ""}, want: "directory", file: "d/", line: 1},
	{name: "directory that a pattern matches", http: "include d*;", files: map[string]string{"d/": ""}, want: "directory", file: "d", line: 1},
	{name: "file as a directory", http: "include a.conf/b;", files: map[string]string{"a.conf": ""}, want: "Not a directory", file: "row.conf", line: 1},
	{name: "file as a directory of a pattern", http: "include a.conf/*;", files: map[string]string{"a.conf": ""}},
	{name: "link", http: "include a.conf;", files: map[string]string{"a.conf": "-> b", "b": "# b"}},
	{name: "link to a link", http: "include a.conf;", files: map[string]string{"a.conf": "-> b", "b": "-> c", "c": "# c"}},
	{name: "link that leads nowhere", http: "include a.conf;", files: map[string]string{"a.conf": "-> b"}, want: "No such file", file: "row.conf", line: 1},
	{name: "link that leads nowhere, by a pattern", http: "include *.c;", files: map[string]string{"a.c": "-> b"}, want: "No such file", file: "row.conf", line: 1},
	{name: "link to itself", http: "include a;", files: map[string]string{"a": "-> a"}, want: "symbolic links", file: "row.conf", line: 1},
	{name: "link to a directory inside a pattern", http: "include e/*.c;", files: map[string]string{"d/a.c": "# a", "e": "-> d"}},
	{name: "no name", http: "include;", want: "invalid number of arguments", file: "row.conf", line: 1},
	{name: "two names", http: "\ninclude a b;", want: "invalid number of arguments", file: "row.conf", line: 2},
	{name: "quoted name with a blank", http: "include 'a b';", files: map[string]string{"a b": "# x"}},
	{name: "escaped blank stays escaped", http: `include a\ b;`, files: map[string]string{"a b": "# x"}, want: "No such file", file: "row.conf", line: 1},
	{name: "name with a backslash", http: `include a\\b;`, files: map[string]string{`a\b`: "# x"}},
	{name: "pattern with a backslash", http: `include a\*b*;`, files: map[string]string{"a*bc": "# x", "axbc": "bad;"}},
	{name: "variable in a name", http: "include $host.conf;", files: map[string]string{"$host.conf": "# x"}},
	{name: "braces are plain bytes", http: "include '{a,b}.conf';", files: map[string]string{"{a,b}.conf": "# x", "a.conf": "bad;"}},
	{name: "braces in a pattern are plain bytes", http: "include '{a,b}*';", files: map[string]string{"a.conf": "bad;"}},
	{name: "empty name", http: "include '';", want: "directory", file: "", line: 1},
	{name: "double slashes and dots", http: "include .//d/../a.conf;", files: map[string]string{"d/": "", "a.conf": "# a"}},
	{name: "relative to the main file", http: "include d/a.conf;", files: map[string]string{"d/a.conf": "include b.conf;", "b.conf": "# b", "d/b.conf": "bad;"}},
	{name: "not relative to the including file", http: "include d/a.conf;", files: map[string]string{"d/a.conf": "\n\ninclude b.conf;", "d/b.conf": "# b"}, want: "No such file", file: "d/a.conf", line: 3},
	{name: "dot files are passed over", http: "include d/*;", files: map[string]string{"d/.a": "bad;", "d/b": "# b"}},
	{name: "dot files by a dot", http: "include d/.*a;", files: map[string]string{"d/.xa": "# a"}},
	{name: "backups are read", http: "include d/*;", files: map[string]string{"d/a": "# a", "d/a.bak": "\n}"}, want: `unexpected "}"`, file: "d/a.bak", line: 2},
	{name: "negated class", http: "include d/[!a]*;", files: map[string]string{"d/a": "bad;", "d/b": "# b", "d/!": "# c"}},
	{name: "class with a caret", http: "include d/[^a]*;", files: map[string]string{"d/a": "bad;", "d/b": "# b"}},
	{name: "range", http: "include d/[a-c]?.conf;", files: map[string]string{"d/b1.conf": "# b", "d/d1.conf": "bad;", "d/b.conf": "bad;"}},
	{name: "named class", http: "include d/[[:digit:]].conf;", files: map[string]string{"d/1.conf": "# 1", "d/a.conf": "bad;"}},
	{name: "open bracket", http: "include d/[a;", files: map[string]string{"d/[a": "# x"}},
	{name: "star over slashes", http: "include d/*.conf;", files: map[string]string{"d/e/a.conf": "bad;", "d/a.conf": "# a"}},
	{name: "stars in directories", http: "include */*/a.conf;", files: map[string]string{"d/e/a.conf": "# a", "d/a.conf": "bad;"}},
	{name: "byte order", http: "include d/*;", files: map[string]string{"d/B": "# 1", "d/a": "}"}, want: `unexpected "}"`, file: "d/a", line: 1},
	{name: "empty file", http: "include a;", files: map[string]string{"a": ""}},
	{name: "no final newline", http: "include a; include a;", files: map[string]string{"a": "# a"}},
	{name: "no final semicolon", http: "include a;\nlog_format f x;", files: map[string]string{"a": "server_tokens\noff"}, want: `unexpected end of file, expecting ";" or "}"`, file: "a", line: 2},
	{name: "block that the including file would close", http: "include a;\n}", files: map[string]string{"a": "server {\n"}, want: `unexpected end of file, expecting "}"`, file: "a", line: 2},
	{name: "brace that the including file opened", http: "server {\ninclude a;\n", files: map[string]string{"a": "}"}, want: `unexpected "}"`, file: "a", line: 1},
	{name: "byte order mark in an included file", http: "map $host $a { include a; }", files: map[string]string{"a": "\ufeffb c;"}},
	{name: "inside a map", http: "map $host $a {\ninclude a;\n}", files: map[string]string{"a": "b c;\nd e;"}},
	{name: "pattern inside a map", http: "map $host $a {\ninclude m/*.map;\n}", files: map[string]string{"m/a.map": "b c;"}},
	{name: "map that is not there", http: "map $host $a {\ninclude a;\n}", want: "No such file", file: "row.conf", line: 2},
	{name: "syntax error inside a map", http: "map $host $a {\ninclude a;\n}", files: map[string]string{"a": "b c;\n\n;"}, want: `unexpected ";"`, file: "a", line: 3},
	{name: "inside a geo", http: "geo $a {\ninclude a;\n}", files: map[string]string{"a": "10.0.0.0/8 c;"}},
	{name: "pattern inside a geo is a name", http: "geo $a {\ninclude a*;\n}", files: map[string]string{"a1": "10.0.0.0/8 c;"}, want: "No such file", file: "row.conf", line: 2},
	{name: "star in the name of a geo's file", http: "geo $a {\ninclude 'a*';\n}", files: map[string]string{"a*": "10.0.0.0/8 c;"}},
	{name: "inside types", http: "types {\ninclude a;\n}", files: map[string]string{"a": "text/x x;"}},
	{name: "inside an upstream", http: "upstream u {\ninclude a;\n}", files: map[string]string{"a": "server 127.0.0.1:1;"}},
	{name: "inside a location and an if", http: "server { location / { include a; if ($host) { include a; } } }", files: map[string]string{"a": "return 204;"}},
	{name: "one file in several contexts", http: "include a; server { include a; location / { include a; } }", files: map[string]string{"a": "expires 1;"}},
	{name: "includes in includes", http: "include a;", files: map[string]string{"a": "include b;", "b": "include c;", "c": "# c"}},
	{name: "error deep inside", http: "include a;", files: map[string]string{"a": "\ninclude b;", "b": "\n\n\"x\"y;"}, want: `unexpected "y"`, file: "b", line: 3},
	{name: "file that includes itself", http: "include a;", files: map[string]string{"a": "include a;"}, killed: true},
	{name: "files that include each other", http: "include a;", files: map[string]string{"a": "include b;", "b": "include a;"}, killed: true},
	{name: "device", http: "include /dev/null;"},
}

// TestIncludesAsNginx holds Load against nginx -t: the verdict, the words, the
// file and the line.
func TestIncludesAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	for _, row := range includeRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			main := filepath.Join(dir, "nginx.conf")
			write(t, main, mainConf(dir, "include row.conf;"))
			write(t, filepath.Join(dir, "row.conf"), row.http)
			for name, text := range row.files {
				path := filepath.Join(dir, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				if to, ok := strings.CutPrefix(text, "-> "); ok {
					require.NoError(t, os.Symlink(to, path))
				} else if strings.HasSuffix(name, "/") {
					require.NoError(t, os.MkdirAll(path, 0o755))
				} else {
					write(t, path, text)
				}
			}
			_, ours := nginx.Load(t.Context(), nginx.DirFS("/"), main)
			if row.killed {
				var cycle *nginx.CycleError
				assert.ErrorAs(t, ours, &cycle)
			}
			// With few descriptors a circle ends soon.
			cmd := exec.Command("/bin/sh", "-c", `ulimit -n 64; exec "$0" "$@"`, binary, "-t", "-c", main)
			out, err := cmd.CombinedOutput()
			if row.killed {
				assert.Error(t, err, "%s", out)
				return
			}
			if row.want == "" {
				assert.NoError(t, err, "%s", out)
				assert.NoError(t, ours)
				return
			}
			require.Error(t, err, "nginx accepts it")
			require.Error(t, ours)
			assert.Contains(t, string(out), row.want)

			var syntax *nginx.SyntaxError
			var include *nginx.IncludeError
			text, file, line := "", "", 0
			switch {
			case errors.As(ours, &syntax):
				text, file, line = syntax.Msg, syntax.File, syntax.Line
			case errors.As(ours, &include):
				text, file, line = include.Err.Error(), include.File, include.Line
			default:
				t.Fatalf("%T is neither a SyntaxError nor an IncludeError", ours)
			}
			assert.Contains(t, strings.ToLower(text), strings.ToLower(row.want))
			if row.want == "directory" {
				return // nginx names the directory as the file, line 1
			}
			m := regexp.MustCompile(`\[emerg\] (?:\d+#\d+: )?(?s:.*) in (\S+):(\d+)`).FindSubmatch(out)
			require.NotNil(t, m, "%s", out)
			assert.Equal(t, string(m[1])+":"+string(m[2]), fmt.Sprintf("%s:%d", file, line))
			assert.Equal(t, filepath.Join(dir, row.file), file)
			assert.Equal(t, row.line, line)
		})
	}
}
