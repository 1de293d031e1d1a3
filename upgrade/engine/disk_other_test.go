//go:build !linux

package engine

import "testing"

// tinyDisk is a file system with so many bytes.
func tinyDisk(t *testing.T, _ int) string {
	t.Helper()
	t.Skip("needs Linux: mounts a small tmpfs")
	return ""
}
