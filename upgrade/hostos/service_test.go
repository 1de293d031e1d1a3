package hostos

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const startSh = "#!/bin/sh\nexec java -jar order.jar --server.port=8080\n"

// withServices gives a host one service of each kind, all running.
func withServices(s *host.Spec) {
	s.Files = map[string]host.File{
		"/srv/order":                   {Mode: os.ModeDir | 0o755, UID: 1001, GID: 1001},
		"/srv/order/start.sh":          {Data: []byte(startSh), Mode: 0o755, UID: 1001, GID: 1001},
		"/srv/order/order.jar":         {Data: []byte("jar"), UID: 1001, GID: 1001},
		"/srv/shop/docker-compose.yml": {Data: []byte("version: \"2\"\nservices:\n  web:\n    image: shop:1.4\n    ports: [\"8081:80\"]\n  job:\n    image: job:1\n")},
	}
	s.Processes = []host.Process{{Args: []string{"/opt/jdk/bin/java", "-jar", "order.jar", "--server.port=8080"}, Cwd: "/srv/order", User: "app"}}
	s.Compose = []string{"/srv/shop"}
	s.Containers = []host.Container{{Name: "cache", Image: "redis:6", Restart: "always", Ports: []host.Port{{Host: 8082, Container: 6379}}}}
	s.Units = append(s.Units, host.Unit{Name: "metrics", Enabled: true, Active: true, Start: "sleep 100000"})
}

var services = []Service{
	{Name: "order", Kind: Java, Dir: "/srv/order", User: "app", Start: "./start.sh", Ports: []int{8080}, Health: "/health"},
	{Name: "shop", Kind: Compose, Dir: "/srv/shop", Ports: []int{8081}, Health: "/health"},
	{Name: "cache", Kind: Container, Container: "cache", Ports: []int{8082}},
	{Name: "metrics", Kind: Unit, Unit: "metrics"},
}

// dialTo reaches the services of a simulated host.
func dialTo(s simulated) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		n, err := net.LookupPort(network, port)
		if err != nil {
			return nil, err
		}
		if to, ok := s.Endpoint(n); ok {
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}
		return nil, errors.New("connection refused")
	}
}

func TestServices(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	ctx := soon(t)
	for _, svc := range services {
		t.Run(svc.Name, func(t *testing.T) {
			is := func(want bool) {
				t.Helper()
				up, err := ServiceRunning(ctx, c, svc)
				require.NoError(t, err)
				require.Equal(t, want, up)
			}
			is(true)
			require.NoError(t, WaitHealthy(ctx, c, dialTo(s), "172.31.0.90", svc, poll, 2))
			require.NoError(t, StartService(ctx, c, svc, ServiceOptions{}), "starting what runs does nothing")
			require.NoError(t, StopService(ctx, c, svc, ServiceOptions{Poll: poll}))
			is(false)
			require.NoError(t, StopService(ctx, c, svc, ServiceOptions{Poll: poll}), "stopping what does not run does nothing")
			if len(svc.Ports) > 0 {
				err := Probe(ctx, dialTo(s), "172.31.0.90", svc)
				require.ErrorContains(t, err, "service "+svc.Name+" does not answer on 172.31.0.90:")
			}
			require.NoError(t, StartService(ctx, c, svc, ServiceOptions{}))
			require.NoError(t, WaitHealthy(ctx, c, dialTo(s), "172.31.0.90", svc, poll, 2))
			is(true)
		})
	}
	pids, err := servicePIDs(ctx, c, services[0], false)
	require.NoError(t, err)
	require.Len(t, pids, 1, "started once")
	out, err := output(ctx, c, "stat -c %U /proc/"+pids[0]+"; tr '\\000' ' ' </proc/"+pids[0]+"/cmdline", nil)
	require.NoError(t, err)
	assert.Equal(t, "app\njava -jar order.jar --server.port=8080 ", out, "as its user")
}

// A Compose project of which one container stopped does not run; stopping it
// stops the rest.
func TestComposeRunsInPart(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	ctx := soon(t)
	svc := services[1]
	_, err := output(ctx, c, "docker stop shop_job_1", nil)
	require.NoError(t, err)
	up, err := ServiceRunning(ctx, c, svc)
	require.NoError(t, err)
	assert.False(t, up)
	require.NoError(t, StopService(ctx, c, svc, ServiceOptions{Poll: poll}))
	out, err := output(ctx, c, "docker inspect --format '{{.State.Status}}' shop_web_1", nil)
	require.NoError(t, err)
	assert.Equal(t, "exited\n", out)
	require.NoError(t, StartService(ctx, c, svc, ServiceOptions{}))
	up, err = ServiceRunning(ctx, c, svc)
	require.NoError(t, err)
	assert.True(t, up)
}

func TestStates(t *testing.T) {
	for in, want := range map[string]runState{
		"": gone, "running": running, "running running": running, "running exited": partly, "exited exited": gone,
		"restarting": partly, "paused": partly, "removing": partly, "created": gone, "dead exited": gone,
		"active": running, "inactive": gone, "failed": gone, "unknown": gone, "activating": partly, "deactivating": partly, "reloading": running,
	} {
		assert.Equal(t, want, sum(strings.Fields(in)), in)
	}
}

func TestUnknownResult(t *testing.T) {
	f := &fake{run: func(string, io.Writer) error { return errLost }}
	for _, svc := range services {
		_, err := ServiceRunning(t.Context(), f, svc)
		require.ErrorIs(t, err, errLost, "%s: not known is not no", svc.Name)
		require.ErrorIs(t, StartService(t.Context(), f, svc, ServiceOptions{}), errLost)
		require.ErrorIs(t, StopService(t.Context(), f, svc, ServiceOptions{Poll: poll}), errLost)
	}
	_, err := DockerInstalled(t.Context(), f)
	require.ErrorIs(t, err, errLost)
	f.run = func(string, io.Writer) error { return failed(127) }
	ok, err := DockerInstalled(t.Context(), f)
	require.NoError(t, err)
	assert.False(t, ok)
	for _, svc := range services[1:3] {
		up, err := ServiceRunning(t.Context(), f, svc)
		require.NoError(t, err, "the command said no")
		assert.False(t, up)
		err = StartService(t.Context(), f, svc, ServiceOptions{})
		st, ran := exitStatus(err)
		assert.True(t, ran)
		assert.Equal(t, 127, st)
	}
}

func TestBadServices(t *testing.T) {
	f := &fake{}
	for _, svc := range []Service{
		{Kind: Java}, {Kind: Java, Dir: "srv"}, {Kind: Java, Dir: "/srv", User: "-c"}, {Kind: Java, Dir: "/srv\x00"},
		{Kind: Compose, Dir: "-x"}, {Kind: Container}, {Kind: Container, Container: "--help"}, {Kind: Unit}, {Kind: Unit, Unit: "-H"}, {Kind: "vm"}, {},
	} {
		_, err := ServiceRunning(t.Context(), f, svc)
		assert.Error(t, err, "%+v", svc)
		assert.Error(t, StartService(t.Context(), f, svc, ServiceOptions{}), "%+v", svc)
		assert.Error(t, StopService(t.Context(), f, svc, ServiceOptions{Poll: poll}), "%+v", svc)
	}
	assert.Empty(t, f.cmds, "nothing reached the host")

	f.run = func(string, io.Writer) error { return nil }
	assert.ErrorContains(t, StartService(t.Context(), f, Service{Name: "order", Kind: Java, Dir: "/srv"}, ServiceOptions{}), "no start command")
}

// realJava makes a program called java out of this machine's sleep.
func realJava(t *testing.T, dir string) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	b, err := os.ReadFile(sleep)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	writeProgram(t, filepath.Join(dir, "java"), string(b))
}

// oddDirs are names that a careless command line would take apart.
var oddDirs = []string{"app one", `-rf it's "a" $(touch hacked)`, "`touch hacked`;touch hacked a*\\b", "内核 new\nline"}

func TestOddDirectories(t *testing.T) {
	onShells(t, func(t *testing.T, h local) {
		root := t.TempDir()
		for _, name := range oddDirs {
			dir := filepath.Join(root, name)
			realJava(t, dir)
			svc := Service{Name: "x", Kind: Java, Dir: dir, Start: "X=1; exec ./java 600"}
			pids := func() []string {
				t.Helper()
				p, err := servicePIDs(soon(t), h, svc, false)
				require.NoError(t, err)
				return p
			}
			require.NoError(t, StartService(soon(t), h, svc, ServiceOptions{}), "%q", name)
			require.Eventually(t, func() bool { return len(pids()) == 1 }, 20*time.Second, poll, "%q", name)
			require.NoError(t, StopService(soon(t), h, svc, ServiceOptions{Poll: poll}), "%q", name)
			assert.NoFileExists(t, filepath.Join(root, "hacked"))
			assert.NoFileExists(t, filepath.Join(dir, "hacked"))
		}
		err := StartService(soon(t), h, Service{Name: "x", Kind: Java, Dir: filepath.Join(root, "nothing"), Start: "./java 600"}, ServiceOptions{})
		require.ErrorContains(t, err, "cannot start service x", "a directory that is missing is seen")
	})
}

// TestInjection looks at every command that carries a name: it holds it as
// one quoted word.
func TestInjection(t *testing.T) {
	const evil = `x'; touch /hacked; echo '$(touch /hacked)`
	const quoted = `'x'\''; touch /hacked; echo '\''$(touch /hacked)'`
	f := &fake{run: func(cmd string, w io.Writer) error {
		_, err := io.WriteString(w, map[bool]string{true: "running\n"}[strings.Contains(cmd, "inspect")])
		return err
	}}
	for _, svc := range []Service{
		{Name: "x", Kind: Java, Dir: "/" + evil, User: evil, Start: "true"}, {Name: "x", Kind: Compose, Dir: "/" + evil}, {Name: "x", Kind: Container, Container: evil}, {Name: "x", Kind: Unit, Unit: evil},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = ServiceRunning(ctx, f, svc)
		_ = StartService(ctx, f, svc, ServiceOptions{})
		_ = StopService(ctx, f, svc, ServiceOptions{Poll: poll})
	}
	f.run = func(string, io.Writer) error { return nil }
	for _, svc := range []Service{{Name: "x", Kind: Java, Dir: "/" + evil, User: evil, Start: "true"}, {Name: "x", Kind: Compose, Dir: "/" + evil}, {Name: "x", Kind: Container, Container: evil}, {Name: "x", Kind: Unit, Unit: evil}} {
		_ = StartService(t.Context(), f, svc, ServiceOptions{})
	}
	onShells(t, func(t *testing.T, h local) {
		for _, cmd := range f.cmds {
			if !strings.HasPrefix(cmd, "su ") {
				assert.True(t, strings.Contains(cmd, quoted) || strings.Contains(cmd, strings.Replace(quoted, "'x", "'/x", 1)), cmd)
			}
			// The shell itself says what is one word: every command is a harmless
			// one, and none may be touch.
			var out bytes.Buffer
			prelude := "readlink() { :; }; cd() { :; }; docker() { :; }; docker-compose() { :; }; systemctl() { :; }; su() { :; }; setsid() { :; }; touch() { echo HACKED; }\n"
			if h.shell[0] != "bash" {
				prelude = strings.Replace(prelude, "docker-compose() { :; }; ", "", 1)
			}
			_ = h.Run(t.Context(), prelude+cmd, nil, &out, io.Discard)
			assert.NotContains(t, out.String(), "HACKED", cmd)
		}
	})
	assert.GreaterOrEqual(t, len(f.cmds), 16)
}

// patience ends a wait after some commands.
type patience struct {
	Host
	left int
	end  func()
}

func (p *patience) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if p.left--; p.left == 0 {
		defer p.end()
	}
	return p.Host.Run(ctx, cmd, stdin, stdout, stderr)
}

func TestStopJava(t *testing.T) {
	t.Run("never killed", func(t *testing.T) {
		onShells(t, func(t *testing.T, h local) {
			root := t.TempDir()
			dir := filepath.Join(root, "stubborn")
			realJava(t, dir)
			// A child keeps an ignored signal ignored.
			svc := Service{Name: "stubborn", Kind: Java, Dir: dir, Start: "trap '' TERM; exec ./java 600"}
			require.NoError(t, StartService(soon(t), h, svc, ServiceOptions{}))
			var pids []string
			require.Eventually(t, func() bool {
				var err error
				pids, err = servicePIDs(t.Context(), h, svc, false)
				return err == nil && len(pids) == 1
			}, 20*time.Second, poll)
			t.Cleanup(func() {
				_, err := output(context.WithoutCancel(t.Context()), h, "kill -KILL "+pids[0], nil)
				assert.NoError(t, err)
			})
			ctx, cancel := context.WithCancel(soon(t))
			err := StopService(ctx, &patience{h, 5, cancel}, svc, ServiceOptions{Poll: poll})
			require.ErrorIs(t, err, context.Canceled)
			assert.ErrorContains(t, err, "service stubborn still runs after it was asked to stop")
			still, err := servicePIDs(t.Context(), h, svc, false)
			require.NoError(t, err)
			assert.Equal(t, pids, still)
		})
	})
	t.Run("finishes its requests", func(t *testing.T) {
		s := simulate(t, withServices)
		addr, ok := s.Endpoint(8080)
		require.True(t, ok)
		done := make(chan error, 1)
		begun := make(chan struct{})
		go func() {
			resp, err := http.Get("http://" + addr + "/stream?seconds=1")
			close(begun)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			done <- err
		}()
		<-begun
		require.NoError(t, StopService(soon(t), s.dial(), services[0], ServiceOptions{Poll: poll}))
		assert.NoError(t, <-done)
		http.DefaultClient.CloseIdleConnections()
	})
	t.Run("commands", func(t *testing.T) {
		f := &fake{run: func(_ string, w io.Writer) error { _, err := io.WriteString(w, "17\n"); return err }}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		assert.Error(t, StopService(ctx, f, services[0], ServiceOptions{Poll: poll}))
		all := strings.Join(f.cmds, "\n")
		assert.Contains(t, all, `kill "${p#/proc/}"`)
		assert.NotContains(t, all, "KILL")
		for _, answer := range []string{"x\n", "1\n", "-1\n", "0\n"} {
			f.run = func(_ string, w io.Writer) error { _, err := io.WriteString(w, answer); return err }
			_, err := ServiceRunning(t.Context(), f, services[0])
			assert.ErrorContains(t, err, "unexpected answer", answer)
		}
	})
}

// A java process inside a container is not the host's, even when its working
// directory has the same name.
func TestJavaInContainer(t *testing.T) {
	s := simulate(t, func(sp *host.Spec) {
		withServices(sp)
		sp.Processes = nil
	})
	p, err := s.Spawn(host.Process{Args: []string{"java", "-jar", "x.jar"}, Cwd: "/srv/order", Unit: "docker/0123"})
	require.NoError(t, err)
	c := s.dial()
	out, err := output(soon(t), c, "for p in /proc/[0-9]*; do if [ \"$(readlink $p/cwd)\" = /srv/order ]; then cat $p/cgroup; fi; done", nil)
	require.NoError(t, err)
	t.Log(out)
	up, err := ServiceRunning(soon(t), c, services[0])
	require.NoError(t, err)
	assert.Equal(t, !strings.Contains(out, "/docker/"), up)
	p.Exit()
}

func TestProbe(t *testing.T) {
	var last *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/health", http.StatusFound)
		case "/health":
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	dial := Dial(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	})
	probe := func(health string) error {
		return Probe(t.Context(), dial, "172.31.0.90", Service{Name: "order", Ports: []int{8080}, Health: health})
	}
	require.NoError(t, probe("/health"))
	assert.Equal(t, "172.31.0.90:8080", last.Host)
	assert.Equal(t, "upgradectl-probe", last.UserAgent())
	require.NoError(t, probe("/health?deep=1"))
	require.NoError(t, probe(""))
	assert.EqualError(t, probe("/warming"), "service order does not answer on 172.31.0.90:8080: GET /warming answered 503 Service Unavailable")
	assert.ErrorContains(t, probe("/moved"), "302", "an answer elsewhere is no answer")
	assert.Error(t, probe("no slash"))
	assert.NoError(t, Probe(t.Context(), dial, "172.31.0.90", Service{Name: "batch"}), "no ports, nothing to ask")
}

func TestWaitHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		up := func(n int) bool { return n == 3 || n > 4 }
		dial := Dial(func(context.Context, string, string) (net.Conn, error) {
			if tries++; up(tries) {
				a, b := net.Pipe()
				return a, b.Close()
			}
			return nil, errors.New("connection refused")
		})
		svc := Service{Name: "cache", Ports: []int{8082}}
		begin := time.Now()
		require.NoError(t, WaitHealthy(t.Context(), nil, dial, "172.31.0.90", svc, time.Second, 3))
		assert.Equal(t, 7, tries, "three in a row, not three of all")
		assert.Equal(t, 6*time.Second, time.Since(begin))

		up = func(int) bool { return false }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := WaitHealthy(ctx, nil, dial, "172.31.0.90", svc, 0, 3)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, "service cache not healthy: context deadline exceeded (service cache does not answer on 172.31.0.90:8082: connection refused)")

		up = func(int) bool { return true }
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = WaitHealthy(ctx, nil, dial, "172.31.0.90", svc, 3*time.Second, 3)
		assert.ErrorContains(t, err, "it had just begun to answer")
	})
}
