package hostos

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// withCompose is a host with Compose of version 1, 2 or both, and the project
// of withServices, which version 1 has made.
func withCompose(t *testing.T, v1, v2 bool) simulated {
	s := simulate(t, func(s *host.Spec) {
		withServices(s)
		if v2 {
			s.Files["/usr/libexec/docker/cli-plugins/docker-compose"] = host.File{Data: []byte("plugin"), Mode: 0o755}
		}
	})
	if !v1 {
		require.NoError(t, s.Remove("/usr/local/bin/docker-compose"))
	}
	return s
}

// ids gives the IDs of containers by their names.
func ids(d *Docker) map[string]string {
	out := map[string]string{}
	for _, c := range d.Containers {
		out[c.Name] = c.ID
	}
	return out
}

// TestComposeVersions: a service of kind compose is looked at, stopped and
// started by the Compose that the host has, and nothing of it is made anew; a
// project that runs in part is seen by both.
func TestComposeVersions(t *testing.T) {
	for _, v := range []struct{ v1, v2 bool }{{true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("v1 %v v2 %v", v.v1, v.v2), func(t *testing.T) {
			s := withCompose(t, v.v1, v.v2)
			c, ctx, svc := s.dial(), soon(t), services[1]
			before, err := GetDocker(ctx, c)
			require.NoError(t, err)
			assert.Equal(t, v.v1, before.ComposeV1)
			assert.Equal(t, v.v2, before.ComposeV2)
			is := func(want runState) {
				t.Helper()
				st, err := state(ctx, c, svc)
				require.NoError(t, err)
				require.Equal(t, want, st)
			}
			is(running)
			_, err = output(ctx, c, "docker stop shop_job_1", nil)
			require.NoError(t, err)
			is(partly)
			require.NoError(t, StopService(ctx, c, svc, ServiceOptions{Poll: poll}))
			is(gone)
			require.NoError(t, StartService(ctx, c, svc, ServiceOptions{}))
			is(running)
			now, err := GetDocker(ctx, c)
			require.NoError(t, err)
			assert.Equal(t, ids(before), ids(now), "not made anew, although the other version would")
			assert.Empty(t, s.Refused())
		})
	}
	// Without --no-recreate the simulated one does what the real one does.
	s := withCompose(t, false, true)
	before, err := GetDocker(t.Context(), s.dial())
	require.NoError(t, err)
	_, err = output(t.Context(), s.dial(), "cd /srv/shop && docker compose up -d", nil)
	require.NoError(t, err)
	now, err := GetDocker(t.Context(), s.dial())
	require.NoError(t, err)
	assert.NotEqual(t, ids(before)["shop_web_1"], ids(now)["shop-web-1"])
	assert.NotContains(t, ids(now), "shop_web_1")
}

// TestContainersComeBack: the containers of before run again with either
// Compose; a project is taken down first only where that is asked for, and the
// plan says what it costs.
func TestContainersComeBack(t *testing.T) {
	for _, second := range []bool{false, true} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("v2 %v down %v", second, down), func(t *testing.T) {
				s := withCompose(t, !second, second)
				c, ctx := s.dial(), soon(t)
				before, err := GetDocker(ctx, c)
				require.NoError(t, err)
				o := DockerOptions{Down: down}
				p, err := PlanDocker(before, nil, o)
				require.NoError(t, err)
				assert.Equal(t, down, slices.ContainsFunc(p.Lines(), func(l string) bool { return strings.Contains(l, "what containers wrote outside volumes is lost") }))
				_, err = output(ctx, c, "docker stop shop_web_1 shop_job_1 cache && docker rm -f shop_job_1", nil)
				require.NoError(t, err)
				now, err := StartContainers(ctx, c, before, nil, o, poll)
				require.NoError(t, err)
				assert.Len(t, now.Running(), 3)
				assert.Empty(t, CompareContainers(before, now))
				assert.Equal(t, ids(before)["cache"], ids(now)["cache"], "no project's: never taken down")
				web, _ := before.container("shop_web_1")
				again, ok := now.match(web)
				require.True(t, ok)
				assert.Equal(t, down, web.ID != again.ID, "made anew only where asked")
				again2, err := StartContainers(ctx, c, before, nil, o, poll)
				require.NoError(t, err)
				assert.Equal(t, ids(now), ids(again2), "what runs is neither taken down nor made anew")
				assert.Empty(t, s.Refused())
			})
		}
	}
}

// TestProjectOwner: a project comes up in the directory it was started in, as
// the user who owns it where that user may use the socket, and else as root.
func TestProjectOwner(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("socket open %v", open), func(t *testing.T) {
			s := simulate(t, func(s *host.Spec) {
				withServices(s)
				s.Files["/srv/shop"] = host.File{Mode: os.ModeDir | 0o755, UID: 1001, GID: 1001}
			})
			c, ctx := s.dial(), soon(t)
			before, err := GetDocker(ctx, c)
			require.NoError(t, err)
			require.Len(t, before.Projects, 1)
			assert.Equal(t, "app", before.Projects[0].User)
			_, err = output(ctx, c, "docker rm -f shop_job_1", nil)
			require.NoError(t, err)
			var mu sync.Mutex
			var how []string
			require.NoError(t, s.Intercept("docker-compose", func(ctx context.Context, p *host.Proc, next host.Command) int {
				mu.Lock()
				defer mu.Unlock()
				how = append(how, p.User+" "+p.Dir)
				return next(ctx, p)
			}))
			now, err := StartDocker(ctx, c, "k", before, open)
			require.NoError(t, err)
			_, err = StartContainers(ctx, c, before, now, DockerOptions{}, poll)
			require.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, []string{map[bool]string{true: "app", false: "root"}[open] + " /srv/shop"}, how)
		})
	}
}

// TestSameStore: a daemon that works on other images and containers than before
// is an error, whatever it starts.
func TestSameStore(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	before, err := GetDocker(soon(t), c)
	require.NoError(t, err)
	_, err = StartDocker(soon(t), c, "k", before, false)
	require.NoError(t, err)
	driver, root, unknown := *before, *before, *before
	driver.StorageDriver, root.DataRoot = "devicemapper", "/data/docker"
	_, err = StartDocker(soon(t), c, "k", &driver, false)
	require.ErrorContains(t, err, "the storage driver of docker was devicemapper and is overlay2: images and containers of before are hidden")
	_, err = StartDocker(soon(t), c, "k", &root, false)
	require.ErrorContains(t, err, "the data root of docker was /data/docker and is /var/lib/docker: images and containers of before are hidden")
	unknown.ServerVersion, unknown.DataRoot = "", "" // it could not be asked
	_, err = StartDocker(soon(t), c, "k", &unknown, false)
	require.NoError(t, err)
}
