// Package atomicfile writes small files so that after a crash either the old
// or the new content is there, whole, and so that the new content survives a
// power loss once the call has returned.
//
// # Guarantees
//
//  1. A reader sees the old file or the new one, never a mixture
//     (TestWriteReplaces).
//  2. A failed write leaves the old file and no temporary file
//     (TestWriteFailureLeavesNothing).
//  3. The mode is exactly the one asked for, whatever the umask says
//     (TestWriteMode); it has that mode before it has any content.
//
// # Limits
//
// A crash can leave a file ".NAME.tmp-…" behind; nothing ever reads it.
// A symbolic link at the name is replaced by a file, not followed. The owner is
// the user of the process. On Windows a directory cannot be flushed, so there a
// rename may be lost by a power failure; it is never half done.
//
// # Errors
//
// Errors are *fs.PathError or *os.LinkError of the operation that failed.
package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts data in place as name: a temporary file beside it, fsync, rename,
// fsync of the directory. A perm of 0 means 0600.
func Write(name string, data []byte, perm fs.FileMode) (err error) {
	if perm == 0 {
		perm = 0o600
	}
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+".tmp-*") // 0600
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			_ = f.Close() // a second close only returns an error
			_ = os.Remove(tmp)
		}
	}()
	// Even for 0600: the umask may have taken bits away.
	if err := f.Chmod(perm.Perm()); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return SyncDir(dir)
}
