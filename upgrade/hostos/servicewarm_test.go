package hostos

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServiceOrder(t *testing.T) {
	unit := func(name string, after ...string) Service {
		return Service{Name: name, Kind: Unit, Unit: name, After: after}
	}
	waves, err := OrderServices([]Service{unit("web", "app"), unit("app", "db", "cache"), unit("db"), unit("cron"), unit("cache")})
	require.NoError(t, err)
	var got []string
	for _, w := range waves {
		for _, s := range w {
			got = append(got, s.Name)
		}
		got = append(got, "|")
	}
	assert.Equal(t, "db cron cache | app | web |", strings.Join(got, " "))
	for want, all := range map[string][]Service{
		"services a, b wait for each other":                 {unit("a", "b"), unit("b", "a"), unit("c")},
		"service a starts after \"x\", which is no service": {unit("a", "x")},
		"two services are called a":                         {unit("a"), unit("a")},
		"\"../a\" is no name of a service":                  {unit("../a")},
		"service a: \"x y\" is no program of supervisord":   {{Name: "a", Kind: Supervisor, Program: "x y"}},
		"service a: \"/bin/x\" is no name of a program":     {{Name: "a", Kind: Process, Dir: "/a", Program: "/bin/x"}},
		"service a: 200-700 is no range of HTTP statuses":   {{Name: "a", Kind: Unit, Unit: "a", Expect: []StatusRange{{200, 700}}}},
		"service a: \"a\\nb\" has a line break":             {{Name: "a", Kind: Java, Dir: "/a", Match: "a\nb"}},
	} {
		_, err := OrderServices(all)
		assert.ErrorContains(t, err, want)
	}

	// Stopping goes the other way round, and what a start waits for is over
	// before the next begins.
	up := map[string]bool{}
	var did []string
	f := &fake{run: func(cmd string, w io.Writer) error {
		name := cmd[strings.LastIndexByte(cmd, ' ')+1:]
		switch {
		case strings.HasPrefix(cmd, "systemctl is-active"):
			name = strings.Fields(cmd)[2]
			_, err := io.WriteString(w, map[bool]string{true: "active\n", false: "inactive\n"}[up[name]])
			return err
		case strings.Contains(cmd, "systemctl stop"):
			up[name], did = false, append(did, "stop "+name)
		case strings.HasPrefix(cmd, "systemctl start"):
			name = strings.Fields(cmd)[2]
			up[name], did = true, append(did, "start "+name)
		}
		return nil
	}}
	all := []Service{unit("web", "app"), unit("app", "db"), unit("db")}
	o := ServiceOptions{Poll: time.Millisecond}
	require.NoError(t, StartServices(t.Context(), f, nil, "", all, o))
	require.NoError(t, StopServices(t.Context(), f, all, o))
	assert.Equal(t, []string{"start db", "start app", "start web", "stop web", "stop app", "stop db"}, did)
}

// TestWarmup: a service that answers 503 although its process runs is not
// healthy; its warm-up is counted, repeated where it fails, and in time.
func TestWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		begin := time.Now()
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[r.URL.Path]++
			switch {
			case time.Since(begin) < 20*time.Second:
				w.WriteHeader(http.StatusServiceUnavailable)
			case r.URL.Path == "/login":
				w.WriteHeader(http.StatusUnauthorized)
			case r.URL.Path == "/list" && asked["/list"] == 1:
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		dial := Dial(func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go serveOne(b, h)
			return a, nil
		})
		s := Service{Name: "order", Kind: Unit, Unit: "order", Ports: []int{8080}, Health: "/login", Expect: []StatusRange{{200, 299}, {401, 401}},
			Healthy: 2, StartGrace: 10 * time.Second, Warmup: Warmup{Paths: []string{"/", "/list"}, Count: 3, Duration: 15 * time.Second}}
		require.NoError(t, WaitWarm(t.Context(), nil, dial, "172.31.0.90", s, ServiceOptions{Poll: time.Second}))
		assert.GreaterOrEqual(t, time.Since(begin), 36*time.Second, "10 s grace, until 20 s bad, two in a row, 15 s of warm-up, two more")
		assert.Less(t, time.Since(begin), 45*time.Second)
		assert.GreaterOrEqual(t, asked["/"], 3)
		assert.Equal(t, asked["/"]+1, asked["/list"], "one was asked again")

		begin = time.Now()
		s.StartTimeout = 12 * time.Second
		err := WaitWarm(t.Context(), nil, dial, "172.31.0.90", s, ServiceOptions{Poll: time.Second})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "12s are over")
		assert.ErrorContains(t, err, "GET /login answered 503")
		assert.Equal(t, 12*time.Second, time.Since(begin))
	})
}

// serveOne answers the one request of a connection in memory.
func serveOne(c net.Conn, h http.Handler) {
	defer c.Close()
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return
	}
	path := strings.Fields(string(buf[:n]))[1]
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	_ = rec.Result().Write(c)
}

// TestHealthCommand: a command on the host has its say.
func TestHealthCommand(t *testing.T) {
	status := failed(1)
	f := &fake{run: func(cmd string, w io.Writer) error {
		if status == 0 {
			return nil
		}
		return status
	}}
	s := Service{Name: "order", Kind: Java, Dir: "/srv/a b", User: "app", HealthCommand: "./ready.sh --deep"}
	err := CheckService(t.Context(), f, nil, "", s)
	require.ErrorContains(t, err, "service order is not healthy: its health command")
	assert.Equal(t, `su -s /bin/sh app -c 'cd '\''/srv/a b'\'' || exit`+"\n"+`./ready.sh --deep'`, f.cmds[0])
	status = 0
	require.NoError(t, CheckService(t.Context(), f, nil, "", s))
	f.run = func(string, io.Writer) error { return errLost }
	require.True(t, errors.Is(CheckService(t.Context(), f, nil, "", s), errLost))
}
