package engine

import (
	"errors"
	"os"
	"syscall"
)

// errSharing is ERROR_SHARING_VIOLATION, which package syscall does not name.
const errSharing = syscall.Errno(32)

// lockOpen opens the file so that nobody else can open it for writing; reading
// stays possible, that is how others learn who holds it.
func lockOpen(name string) (*os.File, error) {
	h, err := openShared(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.OPEN_ALWAYS)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), name), nil
}

// probeHeld opens the file for reading and lets others do the same: whoever may
// write is in the way of that, another probe is not.
func probeHeld(name string) bool {
	h, err := openShared(name, syscall.GENERIC_READ, syscall.OPEN_EXISTING)
	if err != nil {
		return errors.Is(err, errHeld)
	}
	_ = syscall.CloseHandle(h) // only read
	return false
}

// openShared opens a file that others may read meanwhile, and not write.
func openShared(name string, access, how uint32) (syscall.Handle, error) {
	p, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return syscall.InvalidHandle, err
	}
	h, err := syscall.CreateFile(p, access, syscall.FILE_SHARE_READ, nil, how, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharing) {
		return h, errHeld
	}
	if err != nil {
		return h, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return h, nil
}
