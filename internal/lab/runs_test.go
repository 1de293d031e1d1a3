package lab_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// hang names the environment variable that makes TestLabHang hang.
const hang = "UPGRADECTL_LAB_HANG"

// TestLabHang is the test that TestLabKilled kills.
func TestLabHang(t *testing.T) {
	testenv.Lab(t)
	if os.Getenv(hang) == "" {
		t.Skip("for TestLabKilled")
	}
	if !lab.Isolated(t) {
		return
	}
	_, err := lab.New(t).Add(t.Context(), "i-1", "web-1", "172.31.0.11", "", lab.Setup{Kernel: "3.10.0-862.el7.x86_64"})
	require.NoError(t, err)
	t.Logf("running in %s.", os.Getenv("UPGRADECTL_LAB_DIR"))
	select {}
}

// A test that is killed leaves no process, and the next removes the rest.
func TestLabKilled(t *testing.T) {
	testenv.Lab(t)
	lab.Need(t)
	if !lab.Inside() {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestLabHang$", "-test.v")
		cmd.Env = append(os.Environ(), hang+"=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		var dir string
		line := regexp.MustCompile(`running in (.*)\.$`)
		for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
			if m := line.FindStringSubmatch(lines.Text()); m != nil {
				dir = m[1]
			}
		}
		require.NotEmpty(t, dir)
		groups := filepath.Join("/sys/fs/cgroup/*", filepath.Base(dir))
		before, err := filepath.Glob(groups)
		require.NoError(t, err)
		require.NotEmpty(t, before)
		procs := membersOf(t, before)
		assert.NotEmpty(t, procs)

		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		assert.Eventually(t, func() bool { return len(membersOf(t, before)) == 0 }, 5*time.Minute, 20*time.Millisecond, "its processes live on")
		assert.DirExists(t, dir)
		defer func() {
			after, err := filepath.Glob(groups)
			require.NoError(t, err)
			assert.Empty(t, after)
			assert.NoDirExists(t, dir)
		}()
	}
	lab.Isolated(t)
}

// membersOf lists the processes in control groups and those below.
func membersOf(t *testing.T, groups []string) []byte {
	t.Helper()
	var all []byte
	for _, g := range groups {
		err := filepath.WalkDir(g, func(name string, _ os.DirEntry, err error) error {
			if filepath.Base(name) != "cgroup.procs" || err != nil {
				return nil // groups come and go
			}
			text, _ := os.ReadFile(name)
			all = append(all, text...)
			return nil
		})
		require.NoError(t, err)
	}
	return all
}
