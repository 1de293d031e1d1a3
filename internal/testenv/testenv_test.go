package testenv

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNeed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("programs have other names on Windows")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "tool")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	t.Setenv("PATH", dir)
	t.Setenv(RequireVariable, "")
	assert.Equal(t, program, Need(t, "tool"))

	t.Run("missing", func(t *testing.T) {
		defer func() { assert.True(t, t.Skipped()) }()
		Need(t, "no-such-tool")
	})
}

func TestRequired(t *testing.T) {
	t.Setenv(RequireVariable, "nginx, sshd")
	assert.True(t, Required("nginx"))
	assert.True(t, Required("sshd"))
	assert.False(t, Required("docker"))
	assert.Equal(t, "openssh-server", packageOf("sshd"))
	assert.Equal(t, "nginx", packageOf("nginx"))
}
