package atomicfile

// SyncDir does nothing on Windows: a directory handle cannot be flushed there,
// and NTFS journals its own entries.
func SyncDir(string) error { return nil }
