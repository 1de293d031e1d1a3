package atomicfile_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteReplaces(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is open for reading cannot be replaced on Windows")
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	a, b := bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<15)
	require.NoError(t, atomicfile.Write(name, a, 0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(name)
			if !assert.NoError(t, err) || !assert.True(t, bytes.Equal(got, a) || bytes.Equal(got, b), "a mixture of %d bytes", len(got)) {
				return
			}
		}
	})
	for i := range 50 {
		require.NoError(t, atomicfile.Write(name, [][]byte{b, a}[i%2], 0))
	}
	close(stop)
	wg.Wait()
	assert.Equal(t, []string{"f"}, names(t, dir))
}

func TestWriteMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are made up on Windows")
	}
	name := filepath.Join(t.TempDir(), "f")
	for perm, want := range map[fs.FileMode]fs.FileMode{0: 0o600, 0o644: 0o644, 0o777: 0o777, 0o400: 0o400} {
		require.NoError(t, atomicfile.Write(name, nil, perm))
		info, err := os.Stat(name)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode())
	}
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "taken")
	require.NoError(t, os.MkdirAll(filepath.Join(name, "full"), 0o700))
	require.Error(t, atomicfile.Write(name, []byte("x"), 0), "a directory is in the way")
	assert.Equal(t, []string{"taken"}, names(t, dir))
	require.ErrorIs(t, atomicfile.Write(filepath.Join(dir, "none", "f"), nil, 0), fs.ErrNotExist)
	if runtime.GOOS != "windows" {
		require.ErrorIs(t, atomicfile.SyncDir(filepath.Join(dir, "none")), fs.ErrNotExist)
	}
}

func TestWriteHere(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, atomicfile.Write("f", []byte("x"), 0))
	got, err := os.ReadFile("f")
	require.NoError(t, err)
	assert.Equal(t, "x", string(got))
}
