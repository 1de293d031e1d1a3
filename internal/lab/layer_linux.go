package lab

import "syscall"

// whiteout makes name, in the upper directory of an overlay file system, hide
// what is below.
func whiteout(name string) error { return syscall.Mknod(name, syscall.S_IFCHR|0o600, 0) }

// opaque makes a directory there hide the content of the one below.
func opaque(dir string) error {
	return syscall.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0)
}
