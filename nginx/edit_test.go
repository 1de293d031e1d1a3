package nginx_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

const (
	addr  = "172.31.0.90"
	other = "172.31.0.91"
)

func load(t testing.TB, files nginx.MapFS) *nginx.Tree {
	t.Helper()
	tree, err := nginx.Load(context.Background(), files, "nginx.conf")
	require.NoError(t, err)
	return tree
}

// one is a tree of one file, whose content is that of the http block: an http
// block around it is put on its first and last line.
func one(t testing.TB, http string) *nginx.Tree {
	return load(t, nginx.MapFS{"nginx.conf": []byte("events{}http{" + http + "}")})
}

func body(t testing.TB, c *nginx.Change) string {
	t.Helper()
	require.Len(t, c.Files(), 1)
	text, ok := strings.CutPrefix(string(c.Files()[0].After), "events{}http{")
	require.True(t, ok)
	return strings.TrimSuffix(text, "}")
}

// disableRows: what Disable of addr under tag T makes of an http block.
var disableRows = []struct {
	name, before, after string
	refused             error
}{
	{name: "one of two",
		before: "\nupstream u {\n\tserver 172.31.0.90:8080 weight=2; # blue\n\tserver 172.31.0.9:8080;\n}\n",
		after:  "\nupstream u {\n\t#upgradectl:off(T) server 172.31.0.90:8080 weight=2; # blue\n\tserver 172.31.0.9:8080;\n}\n"},
	{name: "CRLF",
		before: "\r\nupstream u {\r\n  server 172.31.0.90:8080;\r\n  server b.invalid;\r\n}\r\n",
		after:  "\r\nupstream u {\r\n  #upgradectl:off(T) server 172.31.0.90:8080;\r\n  server b.invalid;\r\n}\r\n"},
	{name: "several on a line",
		before: "upstream u { server 172.31.0.90:1; server 172.31.0.90:2; server 10.0.0.1; }\n",
		after:  "upstream u { #upgradectl:off(T,nl) server 172.31.0.90:1;\n #upgradectl:off(T,nl) server 172.31.0.90:2;\n server 10.0.0.1; }\n"},
	{name: "several on a line, CRLF",
		before: "\r\nupstream u { server 172.31.0.90:1;server 10.0.0.1; }\r\n",
		after:  "\r\nupstream u { #upgradectl:off(T,nl) server 172.31.0.90:1;\r\nserver 10.0.0.1; }\r\n"},
	{name: "over several lines",
		before: "\nupstream u {\n\tserver 172.31.0.90:8080 # a\n\n\t\tweight=2\n\t\tmax_fails=3; server 10.0.0.1;\n}\n",
		after:  "\nupstream u {\n\t#upgradectl:off(T,nl) server 172.31.0.90:8080 # a\n\n\t\t#upgradectl:off+(T) weight=2\n\t\t#upgradectl:off+(T) max_fails=3;\n server 10.0.0.1;\n}\n"},
	{name: "quoted",
		before: "upstream u {\nserver \"172.31.0.90:80\";\nserver 10.0.0.1;\n}",
		after:  "upstream u {\n#upgradectl:off(T) server \"172.31.0.90:80\";\nserver 10.0.0.1;\n}"},
	{name: "other ways to write it",
		before: "upstream u {\nserver 0xac1f005a;\nserver 172.31.90;\nserver 172.31.000.090;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\n#upgradectl:off(T) server 0xac1f005a;\n#upgradectl:off(T) server 172.31.90;\n#upgradectl:off(T) server 172.31.000.090;\nserver 10.0.0.1;\n}"},
	{name: "backup is enough beside another",
		before: "upstream u {\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\n#upgradectl:off(T) server 172.31.0.90 backup;\nserver 10.0.0.1;\n}"},
	{name: "down already",
		before: "upstream u {\nserver 172.31.0.90 down;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver 172.31.0.90 down;\nserver 10.0.0.1;\n}"},
	{name: "last server", before: "upstream u {\nserver 172.31.0.90;\n}", refused: nginx.ErrLastServer},
	{name: "both servers", before: "upstream u {\nserver 172.31.0.90:1;\nserver 172.31.0.90:2;\n}", refused: nginx.ErrLastServer},
	{name: "only backup left", before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 backup;\n}", refused: nginx.ErrOnlyBackupLeft},
	{name: "only down left", before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 down;\n}", refused: nginx.ErrOnlyDownLeft},
	{name: "direct pass", before: "server { location / { proxy_pass http://172.31.0.90:8080; } }", refused: nginx.ErrDirectPass},
	{name: "variable", before: "server { set $b 172.31.0.90; location / { proxy_pass http://$b; } }", refused: nginx.ErrDirectValue},
	{name: "too long", before: "upstream u {\nserver 172.31.0.90 " + strings.Repeat("weight=1 ", 455) + ";\nserver 10.0.0.1;\n}", refused: nginx.ErrTooLong},
	{name: "other tag", before: "upstream u {\n#upgradectl:off(X) server 172.31.0.90;\nserver 10.0.0.1;\n}", refused: nginx.ErrOtherTag},
	{name: "damaged", before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90\nserver 10.0.0.1;\n}", refused: nginx.ErrMarkerDamaged},
}

func TestDisable(t *testing.T) {
	for _, row := range disableRows {
		t.Run(row.name, func(t *testing.T) {
			tree := one(t, row.before)
			c, err := tree.Disable(nginx.Query{Host: addr}, "T")
			if row.refused != nil {
				require.ErrorIs(t, err, row.refused)
				var refused *nginx.RefusedError
				require.ErrorAs(t, err, &refused)
				assert.NotZero(t, refused.Refusals[0].Line)
				return
			}
			require.NoError(t, err)
			if row.before == row.after {
				assert.True(t, c.Empty())
				assert.NotEmpty(t, c.Already)
				return
			}
			assert.Equal(t, row.after, body(t, c))
			there, err := tree.With(c)
			require.NoError(t, err)
			again, err := there.Disable(nginx.Query{Host: addr}, "T")
			require.NoError(t, err)
			assert.True(t, again.Empty(), "twice is once")
			back, err := there.Restore("T")
			require.NoError(t, err)
			assert.Equal(t, row.before, body(t, back))
			none, err := there.Restore("U")
			require.NoError(t, err)
			assert.True(t, none.Empty(), "another tag")
			assert.Equal(t, c.Files()[0].Before, c.Inverse().Files()[0].After)
		})
	}
}

// addRows: what AddServer of other like addr under tag T makes of an http block.
var addRows = []struct {
	name, before, after string
	refused             error
}{
	{name: "a line of its own",
		before: "\nupstream u {\n\tserver 172.31.0.90:8080 weight=2; # blue\n\tserver 10.0.0.1;\n}\n",
		after:  "\nupstream u {\n\tserver 172.31.0.90:8080 weight=2; # blue\n\tserver 172.31.0.91:8080 weight=2; #upgradectl:add(T)\n\tserver 10.0.0.1;\n}\n"},
	{name: "CRLF, default port, quoted",
		before: "\r\nupstream u {\r\n  server '172.31.0.90';\r\n}\r\n",
		after:  "\r\nupstream u {\r\n  server '172.31.0.90';\r\n  server '172.31.0.91'; #upgradectl:add(T)\r\n}\r\n"},
	{name: "among others on a line",
		before: "upstream u { server 172.31.0.90:1; server 10.0.0.1; }\n",
		after:  "upstream u { server 172.31.0.90:1; server 172.31.0.91:1; #upgradectl:add(T,nl)\n server 10.0.0.1; }\n"},
	{name: "over several lines",
		before: "\nupstream u {\n  server 172.31.0.90:1\n     weight=3;\n}\n",
		after:  "\nupstream u {\n  server 172.31.0.90:1\n     weight=3;\n  server 172.31.0.91:1\n     weight=3; #upgradectl:add(T)\n}\n"},
	{name: "there already", before: "upstream u {\nserver 172.31.0.90;\nserver 172.31.0.91:80;\n}", refused: nginx.ErrExists},
	{name: "nothing like it", before: "upstream u {\nserver 10.0.0.1;\n}"},
	{name: "marked down", before: "upstream u {\nserver 172.31.0.90 down;\nserver 10.0.0.1;\n}"},
}

func TestAddServer(t *testing.T) {
	for _, row := range addRows {
		t.Run(row.name, func(t *testing.T) {
			tree := one(t, row.before)
			c, err := tree.AddServer(nginx.Query{Host: addr}, other, "T")
			if row.refused != nil {
				require.ErrorIs(t, err, row.refused)
				return
			}
			require.NoError(t, err)
			if row.after == "" {
				assert.True(t, c.Empty())
				return
			}
			assert.Equal(t, row.after, body(t, c))
			there, err := tree.With(c)
			require.NoError(t, err)
			again, err := there.AddServer(nginx.Query{Host: addr}, other, "T")
			require.NoError(t, err)
			assert.True(t, again.Empty(), "twice is once")
			assert.NotEmpty(t, again.Already)
			back, err := there.RemoveAdded("T")
			require.NoError(t, err)
			assert.Equal(t, row.before, body(t, back))

			// The order of the procedure: add, disable, restore, remove.
			off, err := there.Disable(nginx.Query{Host: addr}, "D")
			require.NoError(t, err)
			shifted, err := there.With(off)
			require.NoError(t, err)
			_, err = shifted.RemoveAdded("T")
			if strings.Contains(row.before, "10.0.0.1") {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, nginx.ErrLastServer)
			}
			on, err := shifted.Restore("D")
			require.NoError(t, err)
			back2, err := shifted.With(on)
			require.NoError(t, err)
			last, err := back2.RemoveAdded("T")
			require.NoError(t, err)
			assert.Equal(t, row.before, body(t, last))
		})
	}
}

func TestAddServerAtTheEndOfAFile(t *testing.T) {
	for _, servers := range []string{"server 172.31.0.90;", "  server 172.31.0.90; # x", "server 10.0.0.1;\r\nserver 172.31.0.90;", "server 172.31.0.90;\r"} {
		files := nginx.MapFS{"nginx.conf": []byte("events{}http{upstream u{include s;}}"), "s": []byte(servers)}
		tree := load(t, files)
		c, err := tree.AddServer(nginx.Query{Host: addr}, other+":81", "T")
		require.NoError(t, err)
		there, err := tree.With(c)
		require.NoError(t, err)
		refs := there.Refs(nginx.Query{Host: other})
		require.Len(t, refs, 1)
		assert.Equal(t, 81, refs[0].Port)
		assert.Equal(t, "T", refs[0].Tag)
		back, err := there.RemoveAdded("T")
		require.NoError(t, err)
		assert.Equal(t, servers, string(back.Files()[0].After))
	}
}

func TestReplace(t *testing.T) {
	tree := one(t, `
upstream u { server 172.31.0.90:8080; server 10.0.0.1; }
map $host $m { default 172.31.0.90:8080; a "http://172.31.0.90:8080/x"; }
map $host $unused { default 172.31.0.90; }
server {
	set $b 172.31.0.90;
	location / { proxy_pass http://172.31.0.90:8080; }
	location /a { proxy_pass "https://172.31.0.90/uri?x=$arg_x"; }
	location /b { proxy_pass http://$b:8080; }
	location /c { proxy_pass http://$m; }
	location /d { fastcgi_pass 172.31.0.90:9000; }
	location /e { proxy_pass http://172.31.0.90:8080$request_uri; }
	location /f { proxy_pass http://172.31.0.9:8080; }
}
`)
	c, err := tree.Replace(nginx.Query{Host: addr}, other, "T")
	require.NoError(t, err)
	got := body(t, c)
	assert.Equal(t, 8, strings.Count(got, other), got)
	assert.Contains(t, got, "server 172.31.0.91:8080;")
	assert.Contains(t, got, `"https://172.31.0.91/uri?x=$arg_x"`)
	assert.Contains(t, got, `$unused { default 172.31.0.90; }`)
	assert.Len(t, c.Warnings, 1, "the unused variable")
	assert.Equal(t, c.Files()[0].Before, c.Inverse().Files()[0].After)

	only9000, err := tree.Replace(nginx.Query{Host: addr, Port: 9000}, "::1", "")
	require.NoError(t, err)
	assert.Contains(t, body(t, only9000), "fastcgi_pass [::1]:9000;")
	assert.Len(t, only9000.Edits(), 1)
	port, err := tree.Replace(nginx.Query{Host: addr, Port: 9000}, "fd00::2:1", "")
	require.NoError(t, err)
	assert.Contains(t, body(t, port), "fastcgi_pass [fd00::2:1]:9000;")
	port, err = tree.Replace(nginx.Query{Host: addr, Port: 443}, other+":8443", "")
	require.NoError(t, err)
	assert.Contains(t, body(t, port), `"https://172.31.0.91:8443/uri?x=$arg_x"`)
	port, err = tree.Replace(nginx.Query{Host: addr, Port: 9000}, other+":9001", "")
	require.NoError(t, err)
	assert.Contains(t, body(t, port), "fastcgi_pass 172.31.0.91:9001;")
}

func TestDisableCountsEveryInclude(t *testing.T) {
	files := nginx.MapFS{
		"nginx.conf": []byte("events{}\nhttp{\nupstream a{include s.conf;}\nupstream b{include s.conf;server 10.0.0.1;}\nupstream c{include s.conf;}\n}\n"),
		"s.conf":     []byte("server 172.31.0.90:8080;\n"),
	}
	tree := load(t, files)
	refs := tree.Refs(nginx.Query{Host: addr})
	require.Len(t, refs, 1)
	assert.Equal(t, 3, refs[0].Uses)
	_, err := tree.Disable(nginx.Query{Host: addr}, "T")
	var refused *nginx.RefusedError
	require.ErrorAs(t, err, &refused)
	assert.Len(t, refused.Refusals, 2, "upstreams a and c")
}

func TestMerge(t *testing.T) {
	tree := one(t, "\nupstream u {\n\tserver 172.31.0.90:1;\n\tserver 172.31.0.90:2;\n}\n")
	a, err := tree.Disable(nginx.Query{Host: addr, Port: 1}, "T")
	require.NoError(t, err)
	b, err := tree.Disable(nginx.Query{Host: addr, Port: 2}, "T")
	require.NoError(t, err)
	_, err = nginx.Merge(a, b)
	assert.ErrorIs(t, err, nginx.ErrLastServer)
	add, err := tree.AddServer(nginx.Query{Host: addr, Port: 1}, other, "T")
	require.NoError(t, err)
	all, err := nginx.Merge(add, b)
	require.NoError(t, err)
	assert.Equal(t, "\nupstream u {\n\tserver 172.31.0.90:1;\n\tserver 172.31.0.91:1; #upgradectl:add(T)\n\t#upgradectl:off(T) server 172.31.0.90:2;\n}\n", body(t, all))
}

func TestRestoreKeepsAPersonsEdit(t *testing.T) {
	tree := one(t, "\nupstream u {\n#upgradectl:off(T) server 172.31.0.90 weight=7; # mine\nserver 10.0.0.1;\n}\n")
	c, err := tree.Restore("T")
	require.NoError(t, err)
	assert.Equal(t, "\nupstream u {\nserver 172.31.0.90 weight=7; # mine\nserver 10.0.0.1;\n}\n", body(t, c))
}

func TestWarnings(t *testing.T) {
	tree := one(t, "\nupstream u {\nip_hash;\nserver 172.31.0.90;\nserver 10.0.0.1;\nserver web90;\n}\nserver { location / { proxy_pass http://$arg_to; } }")
	c, err := tree.Disable(nginx.Query{Host: addr}, "T")
	require.NoError(t, err)
	all := strings.Join(c.Warnings, "\n")
	assert.Contains(t, all, "ip_hash")
	assert.Contains(t, all, "web90")
	assert.Contains(t, all, "$arg_to")
}

func TestDiff(t *testing.T) {
	tree := one(t, "\nupstream u {\n\tserver 172.31.0.90:8080;\n\tserver 10.0.0.1;\n\n\n\n\n\n}\nupstream v {\n\tserver 172.31.0.90:8081;\n\tserver 10.0.0.1;\n}\n")
	c, err := tree.Disable(nginx.Query{Host: addr}, "T")
	require.NoError(t, err)
	assert.Equal(t, `--- nginx.conf
+++ nginx.conf
@@ -1,6 +1,6 @@
 events{}http{
 upstream u {
-	server 172.31.0.90:8080;
+	#upgradectl:off(T) server 172.31.0.90:8080;
 	server 10.0.0.1;
 
 
@@ -9,7 +9,7 @@
 
 }
 upstream v {
-	server 172.31.0.90:8081;
+	#upgradectl:off(T) server 172.31.0.90:8081;
 	server 10.0.0.1;
 }
 }
\ No newline at end of file
`, c.Diff())
}

// TestEditsAsNginx shows every text before and after an edit to the real nginx,
// and makes the refused edits by hand to see what they are refused for.
func TestEditsAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	check := func(t *testing.T, http string) (string, error) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "nginx.conf"), mainConf(dir, http))
		out, err := exec.Command(binary, "-t", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
		return string(out), err
	}
	resolvable := strings.NewReplacer("b.invalid", "10.0.0.2")
	for _, row := range disableRows {
		t.Run("disable "+row.name, func(t *testing.T) {
			t.Parallel()
			if row.name == "damaged" {
				return // two lines that a person broke
			}
			out, err := check(t, resolvable.Replace(row.before))
			require.NoError(t, err, "%s", out)
			out, err = check(t, resolvable.Replace(row.after))
			require.NoError(t, err, "%s", out)
		})
	}
	for _, row := range addRows {
		t.Run("add "+row.name, func(t *testing.T) {
			t.Parallel()
			out, err := check(t, row.before)
			require.NoError(t, err, "%s", out)
			out, err = check(t, row.after)
			require.NoError(t, err, "%s", out)
		})
	}
	for text, message := range map[string]string{
		"upstream u {\n#server 172.31.0.90;\n}":                                                                              "no servers are inside upstream",
		"upstream u {\n#server 172.31.0.90;\nserver 10.0.0.1 backup;\n}":                                                     "no servers in upstream",
		"upstream u {\n#upgradectl:off(T) server 172.31.0.90 " + strings.Repeat("weight=1 ", 455) + ";\nserver 10.0.0.1;\n}": "too long parameter",
	} {
		out, err := check(t, text)
		assert.Error(t, err)
		assert.Contains(t, out, message)
	}
}

// seeds are the texts that the properties of edits start from: every row of the
// tables before and after its edit, and the files of testdata/edits, these with
// either kind of line end.
func seeds(t testing.TB) [][]byte {
	var out [][]byte
	for _, row := range disableRows {
		out = append(out, []byte(row.before), []byte(row.after))
	}
	for _, row := range addRows {
		out = append(out, []byte(row.before), []byte(row.after))
	}
	for _, row := range editRows {
		out = append(out, []byte(row.before), []byte(row.after))
	}
	files, err := filepath.Glob("testdata/edits/*.conf")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		out = append(out, data, bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
	}
	return out
}

const (
	fuzzTag = "fuzz-1"
	fuzzTo  = "192.0.2.77"
)

// verbs is every edit with what takes it back by its tag, or nil.
var verbs = []struct {
	name string
	edit func(*nginx.Tree, nginx.Query) (*nginx.Change, error)
	back func(*nginx.Tree, nginx.Query) (*nginx.Change, error)
}{
	{"disable", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.Disable(q, fuzzTag) }, byRestore},
	{"comment", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.Comment(q, fuzzTag) }, byRestore},
	{"down", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.SetDown(q, fuzzTag) }, byRestore},
	{"add", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.AddServer(q, fuzzTo, fuzzTag) }, byRemove},
	{"shift in", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.ShiftIn(q, fuzzTo, fuzzTag) }, byRemove},
	{"shift", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.Shift(q, fuzzTo, fuzzTag) },
		func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.ShiftBack(q, fuzzTo, fuzzTag) }},
	{"replace", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.Replace(q, fuzzTo, "") }, nil},
	{"weight", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.SetWeight(q, 7) }, nil},
	{"backup", func(t *nginx.Tree, q nginx.Query) (*nginx.Change, error) { return t.SetBackup(q) }, nil},
}

func byRestore(t *nginx.Tree, _ nginx.Query) (*nginx.Change, error) { return t.Restore(fuzzTag) }
func byRemove(t *nginx.Tree, _ nginx.Query) (*nginx.Change, error)  { return t.RemoveAdded(fuzzTag) }

// others are the tokens of a file that do not hold one of the words.
func others(f *nginx.File, about map[string]bool) []string {
	var out []string
	for tok := range f.Tokens() {
		mine := false
		for _, w := range tok.Words {
			mine = mine || about[w] || strings.Contains(w, fuzzTo)
		}
		if !mine {
			out = append(out, strings.Join(tok.Words, "\x00")+string(tok.End))
		}
	}
	return out
}

// properties checks what holds for every edit of any text, in every mode. It
// returns how many of the edits changed something.
func properties(t testing.TB, tree *nginx.Tree, q nginx.Query) (changed int) {
	src := tree.Main().Bytes()
	fail := func(verb, format string, args ...any) {
		t.Helper()
		t.Fatalf("%s %s: %s\n%q", verb, q, fmt.Sprintf(format, args...), src)
	}
	about := map[string]bool{}
	for _, r := range tree.Refs(q) {
		about[r.Addr] = true
	}
	apply := func(verb string, tree *nginx.Tree, c *nginx.Change) *nginx.Tree {
		t.Helper()
		next, err := tree.With(c)
		if err != nil {
			fail(verb, "%v", err)
		}
		return next
	}
	for _, v := range verbs {
		c, err := v.edit(tree, q)
		if err != nil {
			if _, ok := err.(*nginx.RefusedError); !ok {
				fail(v.name, "went wrong: %v", err)
			}
			continue // a refusal is fine; a wrong edit is not
		}
		if c.Empty() {
			continue
		}
		changed++
		next := apply(v.name, tree, c)
		if !bytes.Equal(next.Main().Bytes(), c.Files()[0].After) {
			fail(v.name, "With gives other bytes than the change")
		}
		if back := apply(v.name, next, c.Inverse()); !bytes.Equal(back.Main().Bytes(), src) {
			fail(v.name, "the inverse gives %q", back.Main().Bytes())
		}
		if twice := apply(v.name, tree, c.Inverse().Inverse()); !bytes.Equal(twice.Main().Bytes(), next.Main().Bytes()) {
			fail(v.name, "the inverse of the inverse gives %q", twice.Main().Bytes())
		}
		if a, b := others(tree.Main(), about), others(next.Main(), about); !slices.Equal(a, b) {
			fail(v.name, "other directives changed:\n%q\n%q", a, b)
		}
		if again, err := v.edit(next, q); err != nil || !again.Empty() {
			fail(v.name, "twice is not once: %v\n%q", err, next.Main().Bytes())
		}
		_ = c.Diff()
		if v.back == nil {
			continue
		}
		back, err := v.back(next, q)
		if err != nil {
			fail(v.name, "cannot be taken back: %v\n%q", err, next.Main().Bytes())
		}
		if got := apply(v.name, next, back).Main().Bytes(); !bytes.Equal(got, src) {
			// An address in another spelling comes back in the usual one.
			odd := false
			for _, e := range c.Edits() {
				odd = odd || len(e.Old) > 0 && string(e.Old) != q.Host
			}
			if !odd {
				fail(v.name, "other bytes come back: %q\nfrom %q", got, next.Main().Bytes())
			}
		}
	}
	return changed
}

func FuzzLossless(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		tree, err := nginx.Load(context.Background(), nginx.MapFS{"f": src}, "f")
		if err != nil {
			t.Skip("refused: fine; a wrong edit is not")
		}
		if !bytes.Equal(tree.Main().Bytes(), src) {
			t.Fatal("an unedited file changed")
		}
		if bytes.Contains(src, []byte(fuzzTag)) || bytes.Contains(src, []byte(fuzzTo)) {
			t.Skip("the input holds our own tag or address")
		}
		properties(t, tree, nginx.Query{Host: addr})
	})
}

// TestProperties runs the properties on every seed, in an http block and with
// each address and port that it mentions.
func TestProperties(t *testing.T) {
	changed := 0
	for _, s := range seeds(t) {
		if tree, err := nginx.Load(t.Context(), nginx.MapFS{"f": append(append([]byte("events{}http{"), s...), "\n}"...)}, "f"); err == nil {
			changed += everyHost(t, tree)
		}
	}
	assert.Greater(t, changed, 400)
}

// everyHost runs the properties for every host and every address of a tree.
func everyHost(t testing.TB, tree *nginx.Tree) (changed int) {
	seen := map[nginx.Query]bool{}
	for _, r := range tree.Refs(nginx.Query{}) {
		for _, q := range []nginx.Query{{Host: r.Host}, {Host: r.Host, Port: r.Port}} {
			if r.Host != "" && !seen[q] && !strings.HasPrefix(r.Host, "unix:") {
				seen[q] = true
				changed += properties(t, tree, q)
			}
		}
	}
	return changed
}

// TestPropertiesOfDebian runs them on every file that Debian's nginx packages
// install, as it is and with an upstream around its addresses.
func TestPropertiesOfDebian(t *testing.T) {
	files := 0
	for name, src := range debianCorpus(t) {
		for _, text := range [][]byte{src, append(append([]byte{}, src...), "\nhttp { upstream upgradectl_test { server 172.31.0.90:8080 weight=2; server 10.0.0.1; } server { location / { proxy_pass http://172.31.0.90:81; } } }\n"...)} {
			tree, err := nginx.Load(t.Context(), nginx.MapFS{name: text}, name)
			if err != nil {
				continue // it includes files that are not part of the package, or is none
			}
			files++
			require.Equal(t, string(text), string(tree.Main().Bytes()), name)
			everyHost(t, tree)
		}
	}
	assert.Greater(t, files, 20)
}
