//go:build !windows

package engine

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// isDiskFull tells a write for which there was no room.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ownFile tells whether only the user of this process, or root, can have
// written the file.
func ownFile(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || st.Uid == 0) && info.Mode().Perm()&0o022 == 0
}
