package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What tells the test binary to be a process that works on a run and is
// killed.
const (
	killedDir   = "UPGRADECTL_TEST_KILLED_DIR"
	killedEvent = "UPGRADECTL_TEST_KILLED_EVENT" // number of the event at which it kills itself; 0 never
	killedBack  = "UPGRADECTL_TEST_KILLED_BACK"  // not empty: roll back
)

// TestKilled kills a real process at every event, on a real disk: its lock
// goes with it, and the next process goes on. (The crash matrix knows more
// points, but neither a disk nor a lock.)
func TestKilled(t *testing.T) {
	run := func(t *testing.T, dir string, event int, back bool) (killed bool) {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedDir+"="+dir, killedEvent+"="+strconv.Itoa(event))
		if back {
			cmd.Env = append(cmd.Env, killedBack+"=1")
		}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && !exit.Exited() || err != nil && len(out) == 0 {
			return true
		}
		require.NoError(t, err, "%s", out)
		return false
	}
	for _, back := range []bool{false, true} {
		t.Run(map[bool]string{false: "resume", true: "rollback"}[back], func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			world := filepath.Join(t.TempDir(), "world")
			require.NoError(t, os.Mkdir(world, 0o700))
			r, err := Create(dir, Header{Run: "r1", Procedure: "killed", Host: world}, nil)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			kills := 0
			for event := 1; run(t, dir, event, false); event++ {
				kills++
				h, err := Read(dir)
				require.NoError(t, err)
				assert.False(t, h.Live)
				if h.State == Succeeded {
					break // killed at its very last event
				}
				assert.Equal(t, Interrupted, h.State)
				// Every life is killed one event later, so that each begins
				// at another point.
				require.Less(t, kills, 50)
			}
			require.Greater(t, kills, 3)
			if back {
				for event := 1; run(t, dir, event, true); event++ {
					require.Less(t, event, 50)
				}
				run(t, dir, 0, true)
			}
			h, err := Read(dir)
			require.NoError(t, err)
			entries, err := os.ReadDir(world)
			require.NoError(t, err)
			if back {
				assert.Equal(t, RolledBack, h.State)
				assert.Empty(t, entries)
			} else {
				assert.Equal(t, Succeeded, h.State)
				assert.Len(t, entries, 3)
			}
		})
	}
}

// killedChild is the process.
func killedChild(dir string) int {
	r, err := Open(dir)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.Close()
	kill, _ := strconv.Atoi(os.Getenv(killedEvent))
	events := 0
	o := Options{Observer: func(Event) {
		if events++; events == kill {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			fmt.Println("still alive:", err)
			select {} // until the signal is there
		}
	}}
	var steps []Step
	for i := range 3 {
		file := func(a *Act) string { return filepath.Join(r.Header().Host, a.Key()) }
		steps = append(steps, Step{
			ID: fmt.Sprint("s", i), Section: fmt.Sprint(i), Title: "create a file", Effect: TokenCreate,
			Observe: func(_ context.Context, a *Act) (Sight, error) {
				_, err := os.Stat(file(a))
				if errors.Is(err, fs.ErrNotExist) {
					return Sight{State: Absent}, nil
				}
				return Sight{State: Ours}, err
			},
			Do: func(_ context.Context, a *Act) (any, error) {
				f, err := os.OpenFile(file(a), os.O_CREATE|os.O_EXCL, 0o600) // twice fails
				if err != nil {
					return nil, err
				}
				return nil, f.Close()
			},
			Undo: func(_ context.Context, a *Act) error {
				if err := os.Remove(file(a)); !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				return nil
			},
		})
	}
	call := r.Apply
	if os.Getenv(killedBack) != "" {
		call = r.Rollback
	}
	out, err := call(context.Background(), steps, o)
	if err := errors.Join(err, out.Err); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
