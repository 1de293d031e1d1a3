package upgrade_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// planted is what an environment and a command line hide, and what must be
// nowhere but on the hosts.
const planted = "hunter2-planted-secret"

// byHand starts a project with a secret in its environment and in its arguments.
func byHand(t *testing.T) func(*sim.World) {
	return func(w *sim.World) {
		h := w.Host("172.31.0.90")
		require.NoError(t, h.WriteFile("/srv/batch/batch.jar", []byte("jar"), 0o644))
		_, err := h.Spawn(host.Process{
			Args: []string{"java", "-Ddb.password=" + planted, "-jar", "batch.jar", "--server.port=8099", "", "a b"}, Cwd: "/srv/batch", User: "app", Ports: []int{8099},
			Env: map[string]string{"PATH": "/usr/bin:/bin", "DB_PASSWORD": planted, "MANY": "lines\nand 'quotes'"},
		})
		require.NoError(t, err)
	}
}

// withoutStart takes the start commands away and adds that project.
func withoutStart(yaml string) string {
	yaml = strings.ReplaceAll(yaml, "    start: ./start.sh\n", "")
	return strings.Replace(yaml, "services:\n", "services:\n  - {name: batch, kind: java, dir: /srv/batch, ports: [8099], health: /health, after: [cache, order]}\n", 1)
}

// processOf gives the arguments and the environment of the process in a
// directory of a host.
func (s *stage) processOf(addr, dir string) string {
	s.t.Helper()
	_, out, err := s.world.Host(addr).Run(s.t.Context(), "for p in /proc/[0-9]*; do if [ \"$(readlink $p/cwd)\" = "+dir+" ]; then tr '\\000' '|' <$p/cmdline; tr '\\000' '|' <$p/environ; stat -c %U $p; fi; done")
	require.NoError(s.t, err)
	return string(out)
}

// noSecret looks for the planted secret in everything that a run leaves behind
// on our side.
func (s *stage) noSecret() {
	s.t.Helper()
	seen := 0
	err := filepath.WalkDir(filepath.Dir(s.run), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		require.NoError(s.t, err)
		seen++
		assert.NotContains(s.t, string(b), planted, name)
		return nil
	})
	require.NoError(s.t, err)
	assert.Greater(s.t, seen, 5)
	rep, err := upgrade.ReadReport(s.run)
	require.NoError(s.t, err)
	assert.NotContains(s.t, rep.Text(), planted)
}

// TestRestartValues: Java projects without a start command run on both hosts
// with what they had, and nothing of it is kept anywhere in the end.
func TestRestartValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, byHand(t), withoutStart)
		was := s.processOf("172.31.0.90", "/srv/batch")
		require.Contains(t, was, planted)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.9"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		clone := s.world.Cloud().InstanceIP(s.clone())
		assert.Equal(t, was, s.processOf(clone, "/srv/batch"), "the transition host has the values from the disk")
		r = s.resume(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, was, s.processOf("172.31.0.90", "/srv/batch"))
		_, out, err := s.world.Host("172.31.0.90").Run(t.Context(), "ls -A /var/lib/upgradectl")
		require.NoError(t, err)
		assert.NotContains(t, string(out), "restart")
		s.end("succeeded")
		s.noSecret()
	})
}
