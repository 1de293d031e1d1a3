package upgrade_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
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

// keptFiles lists what a host keeps below the directory of restart values, and
// sees that all of it is root's alone.
func (s *stage) keptFiles(addr string) (files []string) {
	s.t.Helper()
	h := s.world.Host(addr)
	var walk func(dir string)
	walk = func(dir string) {
		i, err := h.Stat(dir)
		if err != nil {
			return // nothing is kept
		}
		assert.Equal(s.t, fs.FileMode(0o700), i.Mode().Perm(), dir)
		entries, err := h.ReadDir(dir)
		require.NoError(s.t, err)
		for _, e := range entries {
			name := dir + "/" + e.Name()
			if e.IsDir() {
				walk(name)
				continue
			}
			i, err := e.Info()
			require.NoError(s.t, err)
			assert.Equal(s.t, fs.FileMode(0o600), i.Mode().Perm(), name)
			files = append(files, name)
		}
	}
	walk(hostos.RestartDir)
	return files
}

// TestRestartValuesAfterRollback: a run that is taken back starts what it has
// stopped with what it had, and keeps nothing of it.
func TestRestartValuesAfterRollback(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	for _, until := range []string{"3.1", "4.4"} { // values of 2.3 alone; services stopped, and those of 4.4 too
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{Rate: 5}, byHand(t), withoutStart)
				was := s.processOf("172.31.0.90", "/srv/batch")
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				kept := strings.Join(s.keptFiles("172.31.0.90"), "\n")
				assert.Contains(t, kept, "/batch:3/environ") // the third process
				if until == "4.4" {
					assert.Empty(t, s.processOf("172.31.0.90", "/srv/batch"), "4.4 has stopped it")
					assert.Equal(t, 2, strings.Count(kept, "/batch:3/environ"), kept)
				}
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s", r.Step, r.Reason)
				assert.Equal(t, was, s.processOf("172.31.0.90", "/srv/batch"))
				assert.Empty(t, s.keptFiles("172.31.0.90"))
				_, err := s.world.Host("172.31.0.90").Stat(hostos.RestartDir)
				require.ErrorIs(t, err, fs.ErrNotExist)
				s.end("rolled-back")
				s.noSecret()
			})
		})
	}
}

// TestRestartValuesOfDeadRun: gc removes the values of a run that nobody can go
// on with; not while they are all that is left of a process.
func TestRestartValuesOfDeadRun(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, byHand(t), withoutStart)
		r := s.apply(upgrade.RunOptions{Until: "3.1"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		require.NotEmpty(t, s.keptFiles("172.31.0.90"))
		list, did := s.collect(upgrade.GCOptions{Dir: s.run}, true)
		assert.Equal(t, 1, kinds(list)["restart of a living run"], "%v", list)
		assert.Empty(t, did)
		require.NotEmpty(t, s.keptFiles("172.31.0.90"))

		require.NoError(t, os.RemoveAll(s.run)) // nobody can go on with it
		h := s.world.Host("172.31.0.90")
		_, _, err := h.Run(t.Context(), "for p in /proc/[0-9]*; do if [ \"$(readlink $p/cwd)\" = /srv/batch ]; then kill ${p#/proc/}; fi; done; sleep 2")
		require.NoError(t, err)
		require.Empty(t, s.processOf("172.31.0.90", "/srv/batch"))
		list, did = s.collect(upgrade.GCOptions{}, true)
		i := slices.IndexFunc(list, func(l upgrade.Leftover) bool { return l.Kind == upgrade.LeftRestart })
		require.NotEqual(t, -1, i)
		assert.Contains(t, list[i].Keep, "nothing else is left of how it ran: no process of service batch in /srv/batch")
		assert.Empty(t, did)
		require.NotEmpty(t, s.keptFiles("172.31.0.90"))

		byHand(t)(s.world)
		list, did = s.collect(upgrade.GCOptions{}, true)
		assert.Equal(t, 1, kinds(list)["restart"], "%v", list)
		assert.Equal(t, []string{"restart values on 172.31.0.90"}, did)
		assert.Empty(t, s.keptFiles("172.31.0.90"))
		list, _ = s.collect(upgrade.GCOptions{}, true)
		assert.Zero(t, kinds(list)["restart"], "%v", list)
	})
}
