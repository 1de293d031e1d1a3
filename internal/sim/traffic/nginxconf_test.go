package traffic

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// compiled checks one file inside http { }.
func compiled(t *testing.T, text string) (*site, error) {
	t.Helper()
	files := nginx.MapFS{
		"/etc/nginx/nginx.conf":     []byte("events {}\nhttp {\n  include conf.d/*.conf;\n}\n"),
		"/etc/nginx/conf.d/a.conf":  []byte(text),
		"/etc/nginx/conf.d/.b.conf": []byte("not read"),
	}
	ds, err := load(context.Background(), files, "/etc/nginx/nginx.conf")
	if err != nil {
		return nil, err
	}
	return compile("/etc/nginx/nginx.conf", ds, func(name string) bool { return name == "localhost" })
}

// TestNginxWording holds the messages that nginx gives for files that break
// its rules.
func TestNginxWording(t *testing.T) {
	serving := "server { listen 80; location / { proxy_pass http://u; } }\n"
	for _, c := range []struct{ text, want string }{
		{"upstream u {\n # server 172.31.0.90:8080;\n}\n" + serving, "no servers are inside upstream in /etc/nginx/conf.d/a.conf:3"},
		{"upstream u {\n server 172.31.0.90:8080 backup;\n}\n" + serving, `no servers in upstream "u" in /etc/nginx/conf.d/a.conf:1`},
		{"upstream u {\n server web-90:8080;\n}\n" + serving, `host not found in upstream "web-90:8080" in /etc/nginx/conf.d/a.conf:2`},
		{serving, `host not found in upstream "u" in /etc/nginx/conf.d/a.conf:1`},
		{"upstream u { server localhost; server 172.31.0.90:8080 weight=0; }\n" + serving, `invalid parameter "weight=0" in /etc/nginx/conf.d/a.conf:1`},
		{"upstream u { server 172.31.0.90; } upstream U { server 172.31.0.90; }\n" + serving, `duplicate upstream "U" in /etc/nginx/conf.d/a.conf:1`},
		{"upstream u { server 172.31.0.90:99999; }\n" + serving, `invalid port in upstream "172.31.0.90:99999" in /etc/nginx/conf.d/a.conf:1`},
		{"upstream u { server 172.31.0.90; }\nserver { location / { proxy_pass http://u:8080; } }", `upstream "u" may not have port 8080 in /etc/nginx/conf.d/a.conf:2`},
		{"server;", `directive "server" has no opening "{" in /etc/nginx/conf.d/a.conf:1`},
		{"server { listen { } }", `directive "listen" is not terminated by ";" in /etc/nginx/conf.d/a.conf:1`},
		{"server {", `unexpected end of file, expecting "}" in /etc/nginx/conf.d/a.conf:1`},
		{"server { listen 80 }", `unexpected "}" in /etc/nginx/conf.d/a.conf:1`},
		{"include absent.conf;", `open() "/etc/nginx/absent.conf" failed (2: No such file or directory) in /etc/nginx/conf.d/a.conf:1`},
	} {
		_, err := compiled(t, c.text)
		assert.EqualError(t, err, c.want, "%s", c.text)
	}
}

// TestUnfollowableIsRefused: what could send requests elsewhere without this
// program knowing is never read past.
func TestUnfollowableIsRefused(t *testing.T) {
	for _, text := range []string{
		"map $a $b { default x; }",
		"upstream u { ip_hash; server 172.31.0.90; }",
		"server { if ($x) { return 200; } }",
		"server { rewrite ^ /x; }",
		"server { location ~ x { return 200; } }",
		"server { location / { proxy_pass http://$up; } }",
		"server { location / { try_files $uri /x; } }",
		"server { location / { proxy_next_upstream http_502; } }",
		"server { listen 443 ssl; }",
		"sevrer { }",
	} {
		_, err := compiled(t, text)
		var u *unsupported
		require.ErrorAs(t, err, &u, "%s", text)
		assert.True(t, errors.As(err, &u) && strings.Contains(err.Error(), "a.conf:1"), "%v", err)
	}
}

func TestFind(t *testing.T) {
	s, err := compiled(t, `
upstream App { server 172.31.0.90:8080 weight=2; server 172.31.0.88 max_fails=0 fail_timeout=5s backup; keepalive 4; }
server { listen 80; server_name a.internal *.b.internal; location / { proxy_pass http://app; } location = /x { return 204; } location /api/ { proxy_pass http://172.31.0.90:8080/v1/; } }
server { listen 0.0.0.0:80 default_server; listen [::]:80; return 404 "no"; }
server { listen 127.0.0.1:8000; location / { return 301 /x; } }
`)
	require.NoError(t, err)
	assert.Equal(t, []int{80, 8000}, s.ports)
	a := s.find(80, "A.internal:80")
	assert.Same(t, a, s.find(80, "z.b.internal"))
	assert.Equal(t, 404, s.find(80, "other").status)
	assert.Nil(t, s.find(81, "other"))
	root := a.find("/anything")
	require.NotNil(t, root.pass)
	assert.Equal(t, "App", root.pass.name)
	assert.Equal(t, 4, root.pass.keep)
	assert.Equal(t, "172.31.0.88:80", root.pass.peers[1].addr)
	assert.Equal(t, 204, a.find("/x").status)
	api := a.find("/api/y")
	assert.Equal(t, "/v1/", api.uri)
	assert.Equal(t, "172.31.0.90:8080", api.host)
}

// FuzzCompile: whatever the files hold, the program answers and does not die,
// and what it accepts it can route.
func FuzzCompile(f *testing.F) {
	f.Add([]byte("events {}\nhttp { upstream u { server 172.31.0.90:8080 weight=2 backup; server 172.31.0.88; } server { listen 80; location / { proxy_pass http://u/x; } } }"))
	f.Add([]byte("pid a;\nevents { worker_connections 1; }\nhttp { server { listen *:8000 default_server; server_name *.a; return 204; } }"))
	f.Add([]byte("http; events; upstream; server { location = { proxy_pass; return; listen; } }"))
	f.Fuzz(func(t *testing.T, src []byte) {
		ds, err := load(context.Background(), nginx.MapFS{"/etc/nginx/nginx.conf": src}, "/etc/nginx/nginx.conf")
		if err != nil {
			return
		}
		s, err := compile("/etc/nginx/nginx.conf", ds, func(string) bool { return false })
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for _, p := range s.ports {
			sv := s.find(p, "a.internal")
			require.NotNil(t, sv)
			if l := sv.find("/"); l != nil && l.pass != nil {
				require.NotEmpty(t, l.pass.peers)
			}
		}
	})
}
