//go:build !windows

package atomicfile

import "os"

// SyncDir makes the entries of a directory durable: what was created, renamed
// or removed in it before the call survives a power loss after it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close() // the first error is the one that matters
		return err
	}
	return d.Close()
}
