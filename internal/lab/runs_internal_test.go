package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Only the runs whose test has ended are swept away; a process that got the
// number of an earlier one is not that one.
func TestSweep(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc and control groups, which are Linux's")
	}
	if _, err := hierarchies(); err != nil {
		t.Skip(err) // a container without them
	}
	t.Setenv("TMPDIR", t.TempDir())
	mine, err := newRun()
	require.NoError(t, err)

	ended, err := newRun()
	require.NoError(t, err)
	began, err := beginning(os.Getpid())
	require.NoError(t, err)
	ticks, err := strconv.Atoi(began)
	require.NoError(t, err)
	// The first line is of a process with this one's number that began
	// earlier, the second of one that lives on.
	left := exec.CommandContext(t.Context(), "sleep", "60")
	require.NoError(t, left.Start())
	leftBegan, err := beginning(left.Process.Pid)
	require.NoError(t, err)
	lines := strconv.Itoa(os.Getpid()) + " " + strconv.Itoa(ticks-1) + "\n" + strconv.Itoa(left.Process.Pid) + " " + leftBegan + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(ended.dir, "owner"), []byte(lines), 0o600))

	begins := filepath.Join(os.TempDir(), runPrefix+"begins")
	require.NoError(t, os.Mkdir(begins, 0o700))
	nobody := filepath.Join(os.TempDir(), runPrefix+"nobody")
	require.NoError(t, os.Mkdir(nobody, 0o700))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(nobody, old, old))

	require.NoError(t, sweep())
	assert.DirExists(t, mine.dir)
	assert.DirExists(t, begins)
	assert.NoDirExists(t, ended.dir)
	assert.NoDirExists(t, nobody)
	assert.Error(t, left.Wait(), "what it left was killed")
	require.NoError(t, mine.remove(time.Second))
	assert.NoDirExists(t, mine.dir)
}
