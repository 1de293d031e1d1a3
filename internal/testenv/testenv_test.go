package testenv

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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

// TestFreePort: the port can be listened on, also while others are held, and
// is none that a listener on port 0 gets.
func TestFreePort(t *testing.T) {
	for range 20 {
		port := FreePort(t, "tcp", "127.0.0.1")
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		require.NoError(t, err)
		defer l.Close()
		assert.Less(t, port, 32768)
	}
	p, err := net.ListenPacket("udp", ":"+strconv.Itoa(FreePort(t, "udp", "")))
	require.NoError(t, err)
	require.NoError(t, p.Close())
}

func TestRequired(t *testing.T) {
	t.Setenv(RequireVariable, "nginx, sshd")
	assert.True(t, Required("nginx"))
	assert.True(t, Required("sshd"))
	assert.False(t, Required("docker"))
	assert.Equal(t, "openssh-server", packageOf("sshd"))
	assert.Equal(t, "nginx", packageOf("nginx"))
}
