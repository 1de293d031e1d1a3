package engine

import (
	"errors"
	"io/fs"
	"syscall"
)

// isDiskFull tells a write for which there was no room: ERROR_DISK_FULL and
// ERROR_HANDLE_DISK_FULL.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.Errno(112)) || errors.Is(err, syscall.Errno(39))
}

// ownFile cannot look at access control lists: who may write in the run
// directory is the directory's matter.
func ownFile(fs.FileInfo) bool { return true }
