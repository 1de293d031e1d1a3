package lab_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// A container engine lives on a host, its disk and its reboots.
func TestLabDocker(t *testing.T) {
	testenv.Lab(t)
	testenv.Need(t, "dockerd")
	testenv.Need(t, "busybox")
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	since := stopwatch(t)
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{
		Kernel: "3.10.0-862.el7.x86_64", Docker: true,
		Enable: []string{"docker.service", "docker.socket", "containerd.service"},
	})
	require.NoError(t, err)
	require.NoError(t, h.WaitReady(ctx))
	since("a host with an engine")

	_, err = h.Must(ctx, `mkdir -p /srv/image/www
cp /bin/busybox /srv/image
echo first >/srv/image/www/index.html
tar -c -C /srv/image . | docker import -c 'ENTRYPOINT ["/busybox"]' - web
docker run -d --stop-signal=KILL --restart=always --name web -p 8080:80 web httpd -f -p 80 -h /www
docker exec web /busybox sh -c 'echo second >/www/second.html'`)
	require.NoError(t, err)
	assert.Equal(t, "first\n", get(ctx, t, "http://172.31.0.11:8080/"))
	since("a container")
	out, err := h.Must(ctx, "docker info --format '{{.Driver}} {{.DockerRootDir}}'")
	require.NoError(t, err)
	assert.Equal(t, "overlay2 /var/lib/docker\n", out)

	state, err := h.Snapshot()
	require.NoError(t, err)
	since("a snapshot")
	c, err := l.Clone(ctx, "i-2", "web-2", "172.31.0.12", state, nil)
	require.NoError(t, err)
	require.NoError(t, c.Start())
	assert.Equal(t, "second\n", get(ctx, t, "http://172.31.0.12:8080/second.html"), "its writable layer was on the disk")
	since("a clone")

	n := h.Boots()
	_, _, err = h.Run(ctx, "systemctl reboot")
	require.NoError(t, err)
	require.NoError(t, h.WaitBoot(ctx, n+1))
	assert.Equal(t, "second\n", get(ctx, t, "http://172.31.0.11:8080/second.html"), "the engine started it again")
	since("a reboot")
	require.NoError(t, h.WaitReady(ctx))
	rules, err := h.Must(ctx, "iptables-save -t nat | grep -c -- '--dport 8080'")
	require.NoError(t, err)
	assert.Equal(t, "1\n", rules, "the rules of the earlier boot are gone")
}

// stopwatch logs how long what it is told of has taken.
func stopwatch(t *testing.T) func(what string) {
	last := time.Now()
	return func(what string) {
		t.Logf("%s: %v", what, time.Since(last).Round(time.Millisecond))
		last = time.Now()
	}
}

// get waits until a URL is answered with status 200, and gives the body.
func get(ctx context.Context, t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				return string(body)
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v (%v)", url, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
