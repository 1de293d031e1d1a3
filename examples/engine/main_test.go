package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExample(t *testing.T) {
	dir := t.TempDir()
	site := filepath.Join(dir, "site")
	require.NoError(t, os.MkdirAll(filepath.Join(site, "v1"), 0o755))
	pointer := filepath.Join(site, "current")
	require.NoError(t, os.WriteFile(pointer, []byte("v1"), 0o644))
	var out bytes.Buffer
	publish := func(args ...string) error {
		out.Reset()
		return run(t.Context(), append([]string{"-site", site, "-run", filepath.Join(dir, "run"), "-version", "v2"}, args...), &out)
	}
	current := func() string {
		b, err := os.ReadFile(pointer)
		require.NoError(t, err)
		return string(b)
	}

	// It stops after the first step, goes on in a second run of the program,
	// and is taken back by a third.
	require.NoError(t, publish("-until", "1.1"))
	assert.Contains(t, out.String(), "the run is paused")
	assert.Equal(t, "v1", current())
	require.NoError(t, publish())
	assert.Contains(t, out.String(), "done 1.2-pointer")
	assert.NotContains(t, out.String(), "intent 1.1-release", "it was done already")
	assert.Contains(t, out.String(), "the run is succeeded")
	index, err := os.ReadFile(filepath.Join(site, current(), "index.html"))
	require.NoError(t, err)
	assert.Equal(t, "<h1>v2</h1>\n", string(index))
	require.NoError(t, publish("-rollback"))
	assert.Contains(t, out.String(), "the run is rolled-back")
	assert.Equal(t, "v1", current())
	left, err := os.ReadDir(site)
	require.NoError(t, err)
	assert.Len(t, left, 2, "v1 and the pointer")

	assert.ErrorContains(t, run(t.Context(), []string{"-site", site, "-run", filepath.Join(dir, "run"), "-version", "v3"}, &out), `publishes "v2"`)
	assert.Error(t, run(t.Context(), []string{"-version", "../x"}, &out))
	assert.Error(t, run(t.Context(), nil, &out))
}

// Somebody else publishes in between: their release is not taken down.
func TestForeignChange(t *testing.T) {
	dir := t.TempDir()
	site := filepath.Join(dir, "site")
	args := []string{"-site", site, "-run", filepath.Join(dir, "run"), "-version", "v2"}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), args, &out))
	require.NoError(t, os.WriteFile(filepath.Join(site, "current"), []byte("v3"), 0o644))
	err := run(t.Context(), append(args, "-rollback"), &out)
	assert.Contains(t, out.String(), "rollback-incomplete", "%v", err)
	b, err := os.ReadFile(filepath.Join(site, "current"))
	require.NoError(t, err)
	assert.Equal(t, "v3", string(b))
}
