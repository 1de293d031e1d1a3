package nginx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestMovesAsNginx asks a real nginx where it sends each client, for every
// method and for servers with weights, down, taken away, added and swapped, and
// holds the arithmetic behind Change.Moves against it.
func TestMovesAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	port := testenv.FreePort(t, "tcp", "127.0.0.1")

	variants := []string{
		"S 1; S 2; S 3; S 4;",
		"S 1; S 2 down; S 3; S 4;",
		"S 1; S 3; S 4;",
		"S 1; S 5; S 3; S 4;",
		"S 1; S 2; S 3; S 4; S 5;",
		"S 1 weight=5; S 2; S 3 weight=2 down; S 4;",
	}
	server := func(s string) string {
		for n := 1; n <= 5; n++ {
			s = strings.ReplaceAll(s, fmt.Sprintf("S %d", n), fmt.Sprintf("server 127.9.7.%d:%d max_fails=0", n, port))
		}
		return s
	}
	var groups, locations strings.Builder
	for m, method := range []string{"ip_hash;", "hash $arg_k;", "hash $arg_k consistent;"} {
		for v, servers := range variants {
			fmt.Fprintf(&groups, "upstream u%d_%d { %s %s }\n", m, v, method, server(servers))
			fmt.Fprintf(&locations, "location /u%d_%d { proxy_pass http://u%d_%d/; }\n", m, v, m, v)
		}
	}
	conf := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
	fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	set_real_ip_from 127.0.0.1; real_ip_header X-Client;
	%[3]s
	server { listen 127.0.0.1:%[2]d; %[4]s }
	server { listen 127.9.7.1:%[2]d; listen 127.9.7.2:%[2]d; listen 127.9.7.3:%[2]d; listen 127.9.7.4:%[2]d; listen 127.9.7.5:%[2]d;
		return 200 $server_addr:$server_port; }
}
`, dir, port, groups.String(), locations.String())
	file := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(file, []byte(conf), 0o644))
	run := exec.Command(binary, "-c", file)
	require.NoError(t, run.Start())
	t.Cleanup(func() {
		assert.NoError(t, run.Process.Signal(syscall.SIGTERM))
		_ = run.Wait()
	})
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		resp, err := http.Get(base + "/u0_0")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	}, 20*time.Second, 10*time.Millisecond, "nginx does not listen")

	tree, err := Load(context.Background(), MapFS{"f": []byte(conf)}, "f")
	require.NoError(t, err)
	ups := tree.upstreams()
	require.Len(t, ups, 3*len(variants))
	client1 := &http.Client{Transport: &http.Transport{}}
	defer client1.CloseIdleConnections()
	for _, s := range ups {
		where := s.selector()
		for i := range 150 {
			c := client(i)
			ip := fmt.Sprintf("%d.%d.%d.7", c[0], c[1], c[2])
			req, err := http.NewRequest("GET", base+"/"+s.name+"?k="+string(clientKey(c)), nil)
			require.NoError(t, err)
			req.Header.Set("X-Client", ip)
			resp, err := client1.Do(req)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, string(got), where(c), "%s (%s), client %s", s.name, s.method(), ip)
		}
	}
}

// TestMoves holds the figures against those of a measurement on nginx: of the
// clients of three other servers, how many get another one.
func TestMoves(t *testing.T) {
	const four = "server 10.0.0.1; server 10.0.0.2; server 10.0.0.3; server 10.0.0.4;"
	for _, row := range []struct {
		method              string
		down, removed, swap [2]int // per cent, from and to
		added               [2]int
	}{
		{"ip_hash", [2]int{0, 0}, [2]int{60, 75}, [2]int{0, 0}, [2]int{68, 82}},
		{"hash $k", [2]int{0, 0}, [2]int{60, 75}, [2]int{0, 0}, [2]int{68, 85}},
		{"hash $k consistent", [2]int{0, 0}, [2]int{0, 0}, [2]int{15, 33}, [2]int{15, 30}},
	} {
		load := func(servers string) *Tree {
			tree, err := Load(context.Background(), MapFS{"f": []byte("events{}http{upstream u{" + row.method + ";" + servers + "}}")}, "f")
			require.NoError(t, err)
			return tree
		}
		check := func(what string, want [2]int, c *Change, err error) {
			t.Helper()
			require.NoError(t, err)
			require.Len(t, c.Moves, 1)
			m := c.Moves[0]
			share := 100 * m.Moved / m.Clients
			assert.True(t, want[0] <= share && share <= want[1], "%s: %s moves %d %%: %s", row.method, what, share, m)
			assert.Contains(t, c.Warnings[len(c.Warnings)-1], m.Method)
		}
		q := Query{Host: "10.0.0.2"}
		c, err := load(four).Disable(q, "T")
		check("auto", row.down, c, err)
		assert.Contains(t, c.Diff(), "server 10.0.0.2 down; #upgradectl:down(T,nl)")
		c, err = load(four).Comment(q, "T")
		check("comment", row.removed, c, err)
		c, err = load(four).Shift(q, "10.0.0.5", "T")
		check("shift", row.swap, c, err)
		c, err = load(four).AddServer(Query{Host: "10.0.0.4"}, "10.0.0.5", "T")
		check("add", row.added, c, err)
	}
}
