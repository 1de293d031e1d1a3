package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What cannot be written whole leaves what was there before, and nothing else.
func TestWriteOutputWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "plan.json")
	require.NoError(t, writeOutput(name, []byte("one"), 0o600))
	require.NoError(t, writeOutput(name, []byte("two"), 0o600))
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "two", string(data))
	require.Error(t, writeOutput(dir, []byte("x"), 0o600), "a directory")
	require.Error(t, writeOutput(filepath.Join(dir, "no", "plan.json"), []byte("x"), 0o600))
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, all, 1)
}

// A link stays a link, and a device a device.
func TestWriteOutputNoFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	require.NoError(t, writeOutput(file, []byte("one"), 0o600))
	require.NoError(t, writeOutput(link, []byte("two"), 0o600))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "two", string(data))
	to, err := os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, file, to)

	if _, err := os.Stat(os.DevNull); err != nil {
		t.Skip("no device here: ", err)
	}
	null := filepath.Join(dir, "null")
	require.NoError(t, os.Symlink(os.DevNull, null))
	require.NoError(t, writeOutput(null, []byte("x"), 0o600))
	to, err = os.Readlink(null)
	require.NoError(t, err)
	assert.Equal(t, os.DevNull, to)
}
