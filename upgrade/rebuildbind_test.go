package upgrade

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// namedFiles writes a configuration with a view, a key and zones of several
// kinds, and returns its main file.
func namedFiles(t *testing.T, port int) (dir, conf string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644))
	}
	write("named.conf", fmt.Sprintf(`options { directory "DIR"; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; recursion no; allow-query { any; }; dnssec-validation no; };
controls { };
key "update" { algorithm hmac-sha256; secret "c2ltdWxhdGVkIGtleQ=="; }; // nobody is shown it
view "all" { match-clients { any; }; include "DIR/zones"; };
`, port))
	write("zones", "zone \"Lab.Example\" IN { type master; file \"db.lab\"; };\nzone \"copied.example\" { type slave; masters { 192.0.2.41; }; file \"db.copied\"; };\nzone \"localhost\" { type master; file \"db.lab\"; };\n")
	write("db.lab", "$TTL 300\n@ IN SOA ns root ( 7 3600 600 86400 300 )\n IN NS ns\nns IN A 192.0.2.41\n")
	return dir, filepath.Join(dir, "named.conf")
}

// What named-checkconf really prints is read: zones of views with their files,
// and no secret.
func TestParseBindAsBind(t *testing.T) {
	checkconf := testenv.Need(t, "named-checkconf")
	dir, conf := namedFiles(t, 53)
	out, err := exec.Command(checkconf, "-p", conf).Output()
	require.NoError(t, err)
	blocks, err := parseBind(string(out))
	require.NoError(t, err)
	assert.Equal(t, []bindZone{
		{"lab.example", "master", filepath.Join(dir, "db.lab")}, {"copied.example", "slave", filepath.Join(dir, "db.copied")},
	}, bindZones(blocks))
	assert.NotContains(t, fmt.Sprint(blocks), "c2ltdWxh")
	assert.Contains(t, fmt.Sprint(blocks), "secret SHA-256 ")
}

func TestParseBindRefuses(t *testing.T) {
	for src, want := range map[string]string{
		"};\n":              "a block ends that did not begin",
		"zone \"a\" {\n":    "does not end",
		"options\n":         "neither a statement nor a block",
		"a;\nb {\n};\n};\n": "line 4",
	} {
		_, err := parseBind(src)
		assert.ErrorContains(t, err, want, src)
	}
}

// A real named is asked as in a run: its own zones answer, one that it only
// knows of does not.
func TestAskZoneOfNamed(t *testing.T) {
	named := testenv.Need(t, "named")
	// Below the ports that systems give away by themselves: until named has it,
	// nobody takes it.
	port := 0
	var err error
	for range 20 {
		port = 10000 + rand.IntN(20000)
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			require.NoError(t, ln.Close())
			break
		}
	}
	require.NoError(t, err)
	dir, conf := namedFiles(t, port)
	ctx, cancel := context.WithCancel(t.Context())
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, named, "-g", "-c", conf)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	require.NoError(t, cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }()
	var c net.Conn
	if !assert.Eventually(t, func() bool {
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	}, 2*time.Minute, 50*time.Millisecond) {
		cancel()
		_ = cmd.Wait()
		t.Fatal(said.String())
	}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(4*time.Minute)))
	require.Eventually(t, func() bool { return askZone(c, 1, "lab.example") == nil }, 2*time.Minute, 50*time.Millisecond, "it loads its zones after it listens")
	require.NoError(t, askZone(c, 2, "LAB.example"))
	assert.EqualError(t, askZone(c, 3, "other.example"), "answer Refused")
	assert.ErrorContains(t, askZone(c, 4, "copied.example"), "answer ServerFailure")
	assert.ErrorContains(t, askZone(c, 5, "www.lab.example"), "answer NameError")
	assert.EqualError(t, askZone(c, 6, "ns.lab.example"), "the answer has no SOA")
}

// What a configuration of nginx comes to does not depend on files, blanks,
// comments and the order of servers; a server, a location, a value, the first
// name of a server or an order that is lost does.
func TestNginxLines(t *testing.T) {
	const main = "events {}\nhttp {\n  gzip on;\n  include sites/*;\n  include more.conf;\n}\n"
	read := func(files map[string]string) []string {
		fs := nginx.MapFS{"/etc/nginx/nginx.conf": []byte(main), "/etc/nginx/more.conf": nil}
		for name, text := range files {
			fs["/etc/nginx/"+name] = []byte(text)
		}
		tree, err := nginx.Load(t.Context(), fs, "/etc/nginx/nginx.conf")
		require.NoError(t, err)
		return nginxLines(tree)
	}
	const a = "server { listen 80; server_name b.example a.example; location / { proxy_pass http://127.0.0.1:8080; } location ~ \\.x$ { return 404; } location ~ ^/y { return 410; } }\n"
	const b = "server { listen 81; root /srv; }\n"
	was := read(map[string]string{"sites/a": a, "sites/b": b})
	r := &rebuild{c: &RebuildConfig{}}
	d := restored{reader: readsNginx}
	for name, tt := range map[string]struct {
		files  map[string]string
		accept string
		want   string
	}{
		"same":       {files: map[string]string{"sites/a": a, "sites/b": b}},
		"one file":   {files: map[string]string{"more.conf": "# moved\n" + b + strings.ReplaceAll(a, "; ", ";\n\n")}},
		"names":      {files: map[string]string{"sites/a": strings.Replace(a, "b.example a.example", "a.example b.example", 1), "sites/b": b}, want: "http > server (listen 80 server_name a.example b.example) > server_name b.example a.example"},
		"more":       {files: map[string]string{"sites/a": a, "sites/b": strings.Replace(b, "root", "gzip off; root", 1)}},
		"server":     {files: map[string]string{"sites/a": a}, want: "http > server (listen 81); http > server (listen 81) > listen 81; http > server (listen 81) > root /srv"},
		"value":      {files: map[string]string{"sites/a": strings.Replace(a, "8080", "8090", 1), "sites/b": b}, want: "http > server (listen 80 server_name a.example b.example) > location / > proxy_pass http://127.0.0.1:8080"},
		"accepted":   {files: map[string]string{"sites/a": strings.Replace(a, "8080", "8090", 1), "sites/b": b}, accept: "nginx *proxy_pass http://127.0.0.1:*"},
		"other area": {files: map[string]string{"sites/a": strings.Replace(a, "8080", "8090", 1), "sites/b": b}, accept: "bind *", want: "http > server (listen 80 server_name a.example b.example) > location / > proxy_pass http://127.0.0.1:8080"},
		"order": {
			files: map[string]string{"sites/a": strings.Replace(strings.Replace(a, "location ~ \\.x$ { return 404; } ", "", 1), " }\n", " location ~ \\.x$ { return 404; } }\n", 1), "sites/b": b},
			want:  "http > server (listen 80 server_name a.example b.example) > in this order: location ~ \\.x$, location ~ ^/y",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.c.Accept = nil
			if tt.accept != "" {
				r.c.Accept = []string{tt.accept}
			}
			assert.Equal(t, tt.want, r.lost(d, was, read(tt.files)))
		})
	}
}

// What the files name travels with them: certificates, too.
func TestNginxFiles(t *testing.T) {
	tree, err := nginx.Load(t.Context(), nginx.MapFS{
		"/etc/nginx/nginx.conf":    []byte("events {}\nhttp { include conf.d/*.conf; }\n"),
		"/etc/nginx/conf.d/a.conf": []byte("server { listen 443 ssl; ssl_certificate ssl/a.pem; ssl_certificate_key /etc/ssl/a.key; location / { auth_basic_user_file $dir/x; } }\n"),
	}, "/etc/nginx/nginx.conf")
	require.NoError(t, err)
	assert.Equal(t, []string{"/etc/nginx/nginx.conf", "/etc/nginx/conf.d/a.conf", "/etc/nginx/ssl/a.pem", "/etc/ssl/a.key"}, nginxFiles(tree))
}

// A list of packages is what bash makes of it, or an error: never a word of it
// too many.
func TestPackageGroup(t *testing.T) {
	for src, want := range map[string]string{
		"packages=('a' 'b');\n":                     "'a' 'b'",
		"# x\npackages=( pitrix-a )\n":              " pitrix-a ",
		"packages=($(ls))\n":                        "",
		"packages=('a'); rm -rf /\n":                "",
		"export packages=('a');\n":                  "",
		"packages=(\n  \"a\"\n  \"b\"\n);\n# end\n": "\n  \"a\"\n  \"b\"\n",
	} {
		g := packageGroup.FindStringSubmatch(src)
		if want == "" {
			assert.Nil(t, g, src)
			continue
		}
		require.NotNil(t, g, src)
		assert.Equal(t, want, g[1])
	}
}
