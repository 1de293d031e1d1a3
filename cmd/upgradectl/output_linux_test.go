package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A full file system: the plan that was there is still the plan.
func TestWriteOutputFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skip("no file system can be mounted here: ", err)
	}
	defer syscall.Unmount(dir, 0)
	name := filepath.Join(dir, "plan.json")
	require.NoError(t, writeOutput(name, []byte("the plan"), 0o600))
	require.Error(t, writeOutput(name, []byte(strings.Repeat("x", 1<<20)), 0o600))
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "the plan", string(data))
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, all, 1)
}
