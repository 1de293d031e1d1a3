package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// includeFiles is a configuration with the include rules that are easy to get
// wrong. The same is read by us from memory and from disk, and by nginx.
func includeFiles() nginx.MapFS {
	return nginx.MapFS{
		"nginx.conf": []byte("events{}\ninclude top/*.conf;\nhttp{\ninclude conf.d/*.conf;\ninclude none/*.conf;\ninclude lit[!a].conf;\n" +
			"types{include mime;}\nmap $host $m{include maps/?.map;}\ninclude deep/*/s.conf;\ninclude [!x]y.conf;\ninclude lb/[a;\n}\n"),
		"top/a.conf":        []byte("worker_processes 1;\n"),
		"conf.d/b.conf":     []byte("include sub/relative.conf;"),
		"conf.d/a.conf":     []byte("upstream a{include servers;}"),
		"conf.d/C.conf":     []byte("upstream c{include servers;}"),
		"conf.d/.d.conf":    []byte("bad;"),
		"conf.d/e.conf~":    []byte("bad;"),
		"sub/relative.conf": []byte("# relative to the main file\n"),
		"servers":           []byte("server 172.31.0.90:80;"),
		"lita.conf":         []byte("bad;"),
		"litb.conf":         []byte("# b\n"),
		"mime":              []byte("text/html html;"),
		"maps/1.map":        []byte("a b;"),
		"maps/12.map":       []byte("bad"),
		"deep/2/s.conf":     []byte("# 2\n"),
		"deep/1/s.conf":     []byte("# 1\n"),
		"deep/3/t.conf":     []byte("bad;"),
		"xy.conf":           []byte("bad;"),
		"yy.conf":           []byte("# yy\n"),
		"lb/[a":             []byte("# a bracket without its partner\n"),
	}
}

func names(tree *nginx.Tree) []string {
	var out []string
	for _, f := range tree.Files() {
		out = append(out, f.Name())
	}
	return out
}

func TestLoad(t *testing.T) {
	tree := load(t, includeFiles())
	assert.Equal(t, []string{
		"nginx.conf", "top/a.conf", "conf.d/C.conf", "servers", "conf.d/a.conf", "conf.d/b.conf", "sub/relative.conf",
		"litb.conf", "mime", "maps/1.map", "deep/1/s.conf", "deep/2/s.conf", "yy.conf", "lb/[a",
	}, names(tree))
	var contexts []string
	tree.Walk(func(c *nginx.Cursor) bool {
		if c.Name() == "server" {
			contexts = append(contexts, c.Path()+" "+fmt.Sprint(len(c.Via))+" "+c.Protocol())
		}
		return true
	})
	assert.Equal(t, []string{"http/upstream c 2 http", "http/upstream a 2 http"}, contexts)
}

// TestLoadAsNginx compares the walk with what nginx -T prints.
func TestLoadAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	files := includeFiles()
	for name, data := range files {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		write(t, filepath.Join(dir, name), string(data))
	}
	// A link to a directory is gone into, one to a file is not.
	require.NoError(t, os.Symlink("../linked", filepath.Join(dir, "deep", "4")))
	require.NoError(t, os.Symlink("../mime", filepath.Join(dir, "deep", "5")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "linked"), 0o755))
	write(t, filepath.Join(dir, "linked", "s.conf"), "# linked")
	write(t, filepath.Join(dir, "top", "s.conf"), "pid "+dir+"/nginx.pid;error_log "+dir+"/error.log;")

	out, err := exec.Command(binary, "-T", "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^# configuration file (.*):$`).FindAllSubmatch(out, -1) {
		want = append(want, string(m[1]))
	}
	tree, err := nginx.Load(context.Background(), nginx.DirFS("/"), filepath.Join(dir, "nginx.conf"))
	require.NoError(t, err)
	assert.Equal(t, want, names(tree))
}

func TestLoadErrors(t *testing.T) {
	try := func(files nginx.MapFS) error {
		_, err := nginx.Load(context.Background(), files, "/etc/nginx.conf")
		return err
	}
	var inc *nginx.IncludeError
	require.ErrorAs(t, try(nginx.MapFS{}), &inc)
	assert.ErrorIs(t, inc, fs.ErrNotExist)
	require.ErrorAs(t, try(nginx.MapFS{"/etc/nginx.conf": []byte("a b;\n include c;")}), &inc)
	assert.Equal(t, "/etc/nginx.conf:2:2: cannot include /etc/c: file does not exist", inc.Error())
	var syntax *nginx.SyntaxError
	require.ErrorAs(t, try(nginx.MapFS{"/etc/nginx.conf": []byte("include c d;")}), &syntax)
	require.ErrorAs(t, try(nginx.MapFS{"/etc/nginx.conf": []byte("include c;"), "/etc/c": []byte("\n}")}), &syntax)
	assert.Equal(t, "/etc/c:2:1: unexpected \"}\"", syntax.Error())
	var cycle *nginx.CycleError
	require.ErrorAs(t, try(nginx.MapFS{"/etc/nginx.conf": []byte("include a*;"), "/etc/a": []byte("include /etc/b;"), "/etc/b": []byte("x{include a;}")}), &cycle)
	assert.Equal(t, []string{"/etc/a", "/etc/b", "/etc/a"}, cycle.Chain)

	bomb := nginx.MapFS{"/etc/40": []byte("a b;")}
	for i := range 40 {
		name := fmt.Sprintf("/etc/%d", i)
		if i == 0 {
			name = "/etc/nginx.conf"
		}
		bomb[name] = fmt.Appendf(nil, "include %d;include %d;", i+1, i+1)
	}
	assert.ErrorContains(t, try(bomb), "with all its includes the configuration has more than 4194304 directives")
}

// brokenFS fails to list directories, as a lost connection does.
type brokenFS struct{ nginx.MapFS }

var errLost = errors.New("connection lost")

func (brokenFS) ReadDir(context.Context, string) ([]fs.DirEntry, error) { return nil, errLost }

func TestLoadLostConnection(t *testing.T) {
	_, err := nginx.Load(context.Background(), brokenFS{nginx.MapFS{"f": []byte("include d/*;")}}, "f")
	assert.ErrorIs(t, err, errLost, "not an empty directory")
}

func TestRefs(t *testing.T) {
	tree := load(t, nginx.MapFS{
		"nginx.conf": []byte(`events{}
http {
	upstream App { server 172.31.0.90; server 172.31.0.9:80; server [::ffff:172.31.0.90]:81 backup; }
	upstream v6 { server [2001:DB8::1]:80; server unix:/tmp/s; }
	upstream dyn { server 0.0.0.1; balancer_by_lua_block { return "172.31.0.90" } }
	server {
		listen 172.31.0.90:80;
		location /a { proxy_pass http://app; }
		location /b { proxy_pass https://172.31.0.90; }
		location /c { proxy_pass http://web90.internal:8080; }
		location /d { proxy_pass http://$http_host; }
		# proxy_pass http://172.31.0.90:7000;
	}
	## server 172.31.0.90:8080; # old
	upstream off {
		#upgradectl:off(t-1) server 172.31.0.90:8080;
		server 172.31.0.91:8080; #upgradectl:add(t-2)
	}
}
stream {
	upstream app { server 172.31.0.90:3306; }
	server { listen 1; proxy_pass 172.31.0.90:3307; }
}
`)})
	var got []string
	for _, r := range tree.Refs(nginx.Query{Host: addr}) {
		got = append(got, fmt.Sprintf("%d %s %s %d %s %s %s%v", r.Line, r.Kind, r.Host, r.Port, r.Upstream, r.Protocol, strings.Join(r.State, "+"), r.Certain))
	}
	assert.Equal(t, []string{
		"3 server 172.31.0.90 80 App http activetrue",
		"3 server ::ffff:172.31.0.90 81 App http active+backuptrue",
		"5 mention  0 dyn http activefalse",
		"5 mention 172.31.0.90 0  http activefalse",
		"7 mention 172.31.0.90 0  http activefalse",
		"9 pass 172.31.0.90 443  http activetrue",
		"10 pass web90.internal 8080  http activefalse",
		"11 pass  0  http activefalse",
		"12 comment 172.31.0.90 7000  http hand-commentedtrue",
		"14 comment 172.31.0.90 8080  http hand-commentedtrue",
		"16 off 172.31.0.90 8080 off http offtrue",
		"21 server 172.31.0.90 3306 app stream activetrue",
		"22 pass 172.31.0.90 3307  stream activetrue",
	}, got)

	v6 := tree.Refs(nginx.Query{Host: "2001:db8:0::1"})
	require.NotEmpty(t, v6)
	assert.Equal(t, "v6", v6[0].Upstream)
	for _, r := range tree.Refs(nginx.Query{Host: addr, Port: 3306}) {
		assert.True(t, r.Port == 3306 || !r.Certain)
	}
	for _, r := range tree.Refs(nginx.Query{Host: "172.31.0.91"}) {
		if r.Kind == nginx.KindServer {
			assert.Equal(t, "t-2", r.Tag)
			assert.True(t, r.Certain)
		}
	}
}

// TestOneFileOfSeveralNames holds that a file that is read by two names is
// found, edited and written once, and given back byte for byte.
func TestOneFileOfSeveralNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	servers := "server 172.31.0.90:8080;\nserver 172.31.0.91:8080;\n"
	write("nginx.conf", "events{}\nhttp {\ninclude sites-enabled/*;\nupstream a { include servers; }\nupstream b { include ./servers; }\n"+
		"upstream c { ip_hash; include links/s; }\nupstream d { include links/h; }\nupstream e { include copy; }\n}\n")
	write("sites-available/s", "upstream s { "+servers+"}\n")
	write("servers", servers)
	write("copy", servers)
	for _, d := range []string{"sites-enabled", "links"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.Symlink("../sites-available/s", filepath.Join(dir, "sites-enabled/s")))
	require.NoError(t, os.Symlink("../servers", filepath.Join(dir, "links/s")))
	require.NoError(t, os.Link(filepath.Join(dir, "servers"), filepath.Join(dir, "links/h")))

	main := filepath.Join(dir, "nginx.conf")
	s := &nginx.Server{Host: localHost{}, Conf: main}
	local, err := nginx.Load(t.Context(), nginx.DirFS("/"), main)
	require.NoError(t, err)
	remote, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, names(local), names(remote))
	for _, tree := range []*nginx.Tree{local, remote} {
		want := []string{"nginx.conf", "sites-enabled/s", "servers", "copy"}
		for i, name := range want {
			want[i] = filepath.Join(dir, name)
		}
		assert.Equal(t, want, names(tree))
		for _, name := range []string{"servers", "./servers", "links/s", "links/h"} {
			assert.Same(t, tree.Files()[2], tree.File(dir+"/"+name), name)
		}
		assert.Len(t, tree.Refs(nginx.Query{Host: "172.31.0.90"}), 3)
	}
	c, err := local.AddServer(nginx.Query{Host: "172.31.0.90"}, "172.31.0.101", "T")
	require.NoError(t, err)
	_, err = s.Apply(t.Context(), c, nginx.ApplyOptions{NoTest: true})
	require.NoError(t, err)
	now, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, names(local), names(now))
	assert.Len(t, now.Refs(nginx.Query{Host: "172.31.0.101"}), 3)
	back, err := now.RemoveAdded("T")
	require.NoError(t, err)
	_, err = s.Apply(t.Context(), back, nginx.ApplyOptions{NoTest: true})
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, "links/h"))
	require.NoError(t, err)
	assert.Equal(t, servers, string(data))

	// What stands before .. may be a link.
	require.NoError(t, os.Symlink(filepath.Join(dir, "sites-enabled"), filepath.Join(dir, "links/away")))
	write("above", "# here\n")
	write("nginx.conf", "include links/away/../above;")
	through, err := nginx.Load(t.Context(), nginx.DirFS("/"), main)
	require.NoError(t, err)
	assert.Equal(t, "# here\n", string(through.Files()[1].Bytes()))

	// A circle through a link is one, too.
	write("circle", "include links/circle;\n")
	require.NoError(t, os.Symlink("../circle", filepath.Join(dir, "links/circle")))
	write("nginx.conf", "include circle;")
	_, err = nginx.Load(t.Context(), nginx.DirFS("/"), main)
	cycle, ok := errors.AsType[*nginx.CycleError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, []string{dir + "/circle", dir + "/links/circle"}, cycle.Chain)

	tree := load(t, nginx.MapFS{"nginx.conf": []byte("include a;include ./a;include b/../a;"), "a": []byte("x y;")})
	assert.Equal(t, []string{"nginx.conf", "a"}, names(tree))
}
