package traffic

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const mainConf = "user nginx;\npid /run/nginx.pid;\nevents { worker_connections 64; }\nhttp {\n include conf.d/*.conf;\n}\n"

// proxyHost is a host with nginx that reaches the applications of n, and
// dials like the world does.
func proxyHost(t *testing.T, n *network, site string) (*host.Host, *Nginx, DialFunc) {
	t.Helper()
	program := NewNginx("proxy", "172.31.0.5", n.dial)
	h, err := host.New(host.Spec{
		Name: "proxy", Addr: "172.31.0.5",
		Files: map[string]host.File{
			"/etc/nginx/nginx.conf":       {Data: []byte(mainConf)},
			"/etc/nginx/conf.d/site.conf": {Data: []byte(site)},
		},
		Units:    []host.Unit{{Name: "nginx.service", Enabled: true, Active: true, Start: "/usr/sbin/nginx", Forking: true}},
		Commands: map[string]host.Command{"nginx": program.Command},
	}, host.Options{Speed: 1000})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	require.NoError(t, h.Start())
	return h, program, func(ctx context.Context, from, to string) (net.Conn, error) {
		if strings.HasPrefix(to, "172.31.0.5:") {
			port := 80
			if strings.HasSuffix(to, ":8000") {
				port = 8000
			}
			real, ok := h.Endpoint(port)
			if !ok {
				return nil, io.EOF
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", real)
		}
		return n.dial(ctx, from, to)
	}
}

// run runs a command on h and returns its status and what it said.
func run(t *testing.T, h *host.Host, cmd string) (int, string) {
	t.Helper()
	status, out, err := h.Run(context.Background(), cmd)
	require.NoError(t, err)
	return status, string(out)
}

const orderSite = "upstream order {\r\n\tserver\t172.31.0.90:8080;\t# web-90\r\n\tserver\t172.31.0.88:8080;\r\n}\r\n" +
	"server { listen 80; location / { proxy_pass http://order; } }\r\n" +
	"server { listen 8000; location / { proxy_pass http://172.31.0.90:8080; } location /v2/ { proxy_pass http://172.31.0.90:8080/v1/; } }\r\n"

func TestDisabledServerGetsNothingAfterReload(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	h, program, dial := proxyHost(t, n, orderSite)
	c := StartClients(Load{
		Dial: dial, Targets: []Target{{Name: "nginx", URL: "http://172.31.0.5:80"}}, Rate: 800, Streams: 2,
		StreamMax: 300 * time.Millisecond, KeepAliveFor: 200 * time.Millisecond,
	})
	t.Cleanup(c.Close)
	reach(t, c, 200)
	off := strings.Replace(orderSite, "server\t172.31.0.90", "#upgradectl:off(T) server\t172.31.0.90", 1)
	require.NoError(t, h.WriteFile("/etc/nginx/conf.d/site.conf", []byte(off), 0o644))
	reach(t, c, 50)
	assert.Equal(t, 2, program.MinHealthy()["order on proxy"], "a file that was not reloaded changes nothing")
	status, out := run(t, h, "nginx -t 2>&1 && nginx -s reload")
	require.Zero(t, status, "%s", out)
	require.Eventually(t, func() bool {
		before := c.Summary().ByAddr()["172.31.0.90:8080"]
		reach(t, c, 50)
		return c.Summary().ByAddr()["172.31.0.90:8080"] == before
	}, 20*time.Second, time.Millisecond)
	// The old worker goes when its last stream has ended.
	require.Eventually(t, func() bool { return len(workers(t, h)) == 1 }, 20*time.Second, 10*time.Millisecond)
	n.kill("172.31.0.90:8080")
	reach(t, c, 200)
	s := stop(t, c)
	assert.Zero(t, s.Failed, "%v", s.Failures)
	assert.Equal(t, 1, program.MinHealthy()["order on proxy"])
	assert.Empty(t, program.Refused())
	assert.Empty(t, h.Refused())
}

// workers are the titles of nginx's processes, without the master's.
func workers(t *testing.T, h *host.Host) []string {
	t.Helper()
	_, out := run(t, h, `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline 2>/dev/null; echo; done`)
	var list []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "nginx: worker") {
			list = append(list, line)
		}
	}
	return list
}

func TestOldWorkerShutsDownWhenItsStreamsEnd(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	n.app("172.31.0.88:8080")
	h, _, dial := proxyHost(t, n, orderSite)
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, a string) (net.Conn, error) { return dial(ctx, "", a) }}
	resp, err := tr.RoundTrip(get(t, "http://172.31.0.5:80/stream"))
	require.NoError(t, err)
	status, out := run(t, h, "nginx -s reload")
	require.Zero(t, status, "%s", out)
	assert.ElementsMatch(t, []string{"nginx: worker process", "nginx: worker process is shutting down"}, workers(t, h))
	close(n.ends)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.True(t, bytes.HasSuffix(body, []byte("end\n")))
	require.NoError(t, resp.Body.Close())
	require.Eventually(t, func() bool { return len(workers(t, h)) == 1 }, 20*time.Second, 10*time.Millisecond)
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

func TestNginxProgram(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	h, program, dial := proxyHost(t, n, orderSite)
	status, out := run(t, h, "nginx -t 2>&1")
	assert.Zero(t, status)
	assert.Equal(t, "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\nnginx: configuration file /etc/nginx/nginx.conf test is successful\n", out)
	status, out = run(t, h, "nginx -t -q 2>&1; nginx -V 2>&1 | grep -c conf-path; cat /run/nginx.pid | wc -l")
	assert.Zero(t, status)
	assert.Equal(t, []string{"1", "1"}, strings.Fields(out))
	_, out = run(t, h, "nginx -v 2>&1")
	assert.Equal(t, "nginx version: nginx/1.20.1\n", out)

	// A server that cannot be reached is left for the next one; a bare
	// proxy_pass replaces the location's prefix.
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, a string) (net.Conn, error) { return dial(ctx, "", a) }}
	for range 4 {
		resp, err := tr.RoundTrip(get(t, "http://172.31.0.5:80/"))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 200, resp.StatusCode)
	}
	assert.Equal(t, 1, program.MinHealthy()["order on proxy"], ".88 does not answer")
	resp, err := tr.RoundTrip(get(t, "http://172.31.0.5:8000/v2/x"))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Contains(t, string(body), `"path":"/v1/x"`)
	assert.Contains(t, string(body), `"asked":"172.31.0.90:8080"`)

	// A broken file is refused by -t and by a reload, and changes nothing.
	require.NoError(t, h.WriteFile("/etc/nginx/conf.d/site.conf", []byte("upstream order {\n}\n"), 0o644))
	status, out = run(t, h, "nginx -t 2>&1")
	assert.Equal(t, 1, status)
	assert.Equal(t, "nginx: [emerg] no servers are inside upstream in /etc/nginx/conf.d/site.conf:2\nnginx: configuration file /etc/nginx/nginx.conf test failed\n", out)
	status, _ = run(t, h, "nginx -s reload 2>&1")
	assert.Equal(t, 1, status)
	resp, err = tr.RoundTrip(get(t, "http://172.31.0.5:80/"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 200, resp.StatusCode)
	assert.Empty(t, program.Refused())

	// What it cannot follow, and options it does not know, are remembered.
	require.NoError(t, h.WriteFile("/etc/nginx/conf.d/site.conf", []byte("map $a $b { default c; }\n"), 0o644))
	status, out = run(t, h, "nginx -t 2>&1; nginx -s reopen 2>&1")
	assert.Equal(t, 1, status)
	assert.Contains(t, out, `the simulated nginx cannot follow "map" in /etc/nginx/conf.d/site.conf:1`)
	assert.Len(t, program.Refused(), 2)
}

func TestNginxFollowsItsHost(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.90:8080")
	h, _, _ := proxyHost(t, n, orderSite)
	_, ok := h.Endpoint(80)
	require.True(t, ok)
	require.NoError(t, h.Reboot())
	_, ok = h.Endpoint(80)
	require.True(t, ok, "the unit starts it again")
	status, out := run(t, h, "systemctl stop nginx && nginx -s reload 2>&1")
	assert.Equal(t, 1, status)
	assert.Contains(t, out, `open() "/run/nginx.pid" failed (2: No such file or directory)`)
	require.Eventually(t, func() bool { _, ok := h.Endpoint(80); return !ok }, 20*time.Second, 5*time.Millisecond)
	status, out = run(t, h, "systemctl start nginx 2>&1")
	assert.Zero(t, status, "%s", out)
	assert.Len(t, workers(t, h), 1)
	_, ok = h.Endpoint(8000)
	assert.True(t, ok)
}
