package nginx_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// isConfig matches the paths at which Debian's packages keep nginx
// configuration.
var isConfig = regexp.MustCompile(`^/etc/nginx/|^/usr/share/nginx/modules-available/|^/usr/share/doc/nginx/examples/|^/usr/share/doc/libnginx-mod-[^/]*/examples/|\.conf$`)

// debianCorpus returns the nginx configuration files that the installed Debian
// packages nginx-common, nginx-doc and libnginx-mod-* brought, by path. They
// are other people's files, not made for this test.
func debianCorpus(t testing.TB) map[string][]byte {
	t.Helper()
	testenv.Need(t, "nginx")
	dpkg := testenv.Need(t, "dpkg-query")
	out, err := exec.Command(dpkg, "-W", "-f", "${db:Status-Status} ${Package}\n", "nginx-common", "nginx-doc", "libnginx-mod-*").Output()
	if err != nil && len(out) == 0 {
		t.Skipf("nginx is not from a Debian package: %v", err)
	}
	var packages []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			packages = append(packages, name)
		}
	}
	for _, name := range []string{"nginx-common", "nginx-doc", "libnginx-mod-http-lua"} {
		if !slices.Contains(packages, name) && testenv.Required(name) {
			t.Fatalf("the Debian package %s is not installed (%s names it)", name, testenv.RequireVariable)
		}
	}
	if len(packages) == 0 {
		t.Skip("none of nginx-common, nginx-doc and libnginx-mod-* is installed")
	}
	list, err := exec.Command(dpkg, append([]string{"-L"}, packages...)...).Output()
	require.NoError(t, err)
	files := map[string][]byte{}
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		if !isConfig.MatchString(name) {
			continue
		}
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue // a directory, or a manual page that was not unpacked
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		files[name] = data
	}
	require.NotEmpty(t, files)
	return files
}

// shellScripts are among the examples but no configuration.
func shellScript(data []byte) bool { return bytes.HasPrefix(data, []byte("#!")) }

// TestCorpus reads every configuration file of Debian's packages: each is
// accepted, comes back byte for byte, and its words, put together again by our
// own writing of them, read the same.
func TestCorpus(t *testing.T) {
	files := debianCorpus(t)
	n, size := 0, 0
	for name, data := range files {
		if shellScript(data) {
			continue
		}
		f, err := nginx.Parse(name, data)
		if !assert.NoError(t, err, name) {
			continue
		}
		n, size = n+1, size+len(data)
		assert.True(t, bytes.Equal(data, f.Bytes()), name)
		roundTrip(t, f)
		// Cut anywhere, it is still returned as it was.
		for at := 0; at < len(data); at += 1 + len(data)/50 {
			cut, _ := nginx.Parse(name, data[:at])
			assert.Equal(t, at, len(cut.Bytes()))
		}
	}
	t.Logf("%d files, %d bytes", n, size)
}

// TestCorpusLoad reads the configuration that Debian installs with every
// include, and finds nothing in it that a host answers for.
func TestCorpusLoad(t *testing.T) {
	corpus := debianCorpus(t)
	files := nginx.MapFS{}
	for name, data := range corpus {
		files[name] = data
	}
	if files["/etc/nginx/nginx.conf"] == nil {
		t.Skip("nginx-common is not installed")
	}
	tree, err := nginx.Load(t.Context(), files, "/etc/nginx/nginx.conf")
	require.NoError(t, err)
	assert.Contains(t, names(tree), "/etc/nginx/mime.types")
	assert.Empty(t, tree.Refs(nginx.Query{Host: "172.31.0.90"}))
}

// roundTrip holds that the tokens of a file, written in a quoting of our own,
// give the same tokens again, and that its spans cover it without overlap.
func roundTrip(t testing.TB, f *nginx.File) {
	t.Helper()
	var b bytes.Buffer
	var want []string
	skip := false // the closing brace of a Lua block is written with it
	ds := map[int]nginx.Directive{}
	i := 0
	for d := range f.All() {
		ds[i] = d
		i++
	}
	i = 0
	for tok := range f.Tokens() {
		if tok.End == '}' {
			if !skip {
				b.WriteString("}\n")
			}
			skip = false
			want = append(want, "}")
			continue
		}
		d := ds[i]
		i++
		for _, w := range tok.Words {
			b.WriteString(quote(w))
			b.WriteByte(' ')
		}
		b.WriteByte(tok.End)
		if d.IsLua() {
			body := d.Body()
			b.Write(f.Bytes()[body.Start:body.End])
			b.WriteByte('}')
			skip = true
		}
		b.WriteByte('\n')
		want = append(want, strings.Join(tok.Words, "\x00")+string(tok.End))
	}
	again, err := nginx.Parse(f.Name(), b.Bytes())
	if !assert.NoError(t, err, "%s written anew", f.Name()) {
		return
	}
	var got []string
	for tok := range again.Tokens() {
		if tok.End == '}' {
			got = append(got, "}")
			continue
		}
		got = append(got, strings.Join(tok.Words, "\x00")+string(tok.End))
	}
	assert.Equal(t, want, got, f.Name())

	at := 0
	for d := range f.All() {
		for n, w := range d.Words() {
			s := w.Span()
			assert.GreaterOrEqual(t, s.Start, at, "%s: word %d of line %d", f.Name(), n, d.Line())
			at = s.End
		}
	}
}

// quote writes a word so that nginx's reader gives back exactly it. Of the
// backslash pairs only those that the reader replaces may stand for themselves.
func quote(w string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(w); i++ {
		switch c := w[i]; c {
		case '"':
			b.WriteString(`\"`)
		case '\\':
			b.WriteString(`\\`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
