package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

// Names in a run directory.
const (
	planFile    = "plan.json"
	journalFile = "journal.jsonl"
	lockFile    = "lock"
	reserveFile = "ballast"
	blobDir     = "blobs"
	controlDir  = "control"
)

// reserveSize is how many bytes are kept back on the disk for the records that
// close what was begun.
const reserveSize = 128 << 10

// store keeps the bytes of a run. There is one for directories, and the crash
// matrix has one in memory that dies on command.
type store interface {
	// append writes line at offset at, drops whatever was there, and returns
	// nil only when the line is durable.
	append(line []byte, at int64) error
	// putBlob stores data durably under its hex SHA-256.
	putBlob(name string, data []byte) error
	blob(name string) ([]byte, error)
	// reserve sees that the reserve is there; freeReserve gives it back to the
	// disk.
	reserve() error
	freeReserve() error
	close() error
}

type dirStore struct {
	dir string
	f   file // the journal; nil when read-only
}

// file is what the store needs of an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	Stat() (fs.FileInfo, error)
	Truncate(int64) error
	Sync() error
	Close() error
}

func openDirStore(dir string) (*dirStore, error) {
	// Not O_APPEND: we say where each line goes, so a torn tail is overwritten
	// and never appended to.
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &dirStore{dir: dir, f: f}, nil
}

func (s *dirStore) append(line []byte, at int64) error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.Size() < at:
		// Somebody cut what we have already read and acted on.
		return fmt.Errorf("%s has %d bytes, expected %d: somebody shortened it", journalFile, info.Size(), at)
	case info.Size() > at:
		if err := s.f.Truncate(at); err != nil {
			return err
		}
	}
	if _, err := s.f.WriteAt(line, at); err != nil {
		return err
	}
	return s.sync()
}

// sync hides what the error is: after a failed fsync nothing may be tried
// again, not even for want of room.
func (s *dirStore) sync() error {
	if err := s.f.Sync(); err != nil {
		return fmt.Errorf("cannot fsync %s: %s", journalFile, err)
	}
	return nil
}

// rewriteTail writes the last whole records once more, the same bytes in the
// same place.
func (s *dirStore) rewriteTail(size int64) error {
	from := max(0, size-64<<10)
	tail := make([]byte, size-from)
	if _, err := s.f.ReadAt(tail, from); err != nil {
		return err
	}
	if _, err := s.f.WriteAt(tail, from); err != nil {
		return err
	}
	return s.sync()
}

func (s *dirStore) reserve() error {
	name := filepath.Join(s.dir, reserveFile)
	if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
		return nil
	}
	// Bytes that no file system compresses or leaves out as a hole.
	data := make([]byte, 0, reserveSize)
	for len(data) < reserveSize {
		sum := sha256.Sum256(strconv.AppendInt(nil, int64(len(data)), 10))
		data = append(data, sum[:]...)
	}
	if err := atomicfile.Write(name, data, 0o600); err != nil {
		return fmt.Errorf("cannot keep %d bytes in reserve: %w", reserveSize, err)
	}
	return nil
}

func (s *dirStore) freeReserve() error {
	err := os.Remove(filepath.Join(s.dir, reserveFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *dirStore) putBlob(name string, data []byte) error {
	dir := filepath.Join(s.dir, blobDir)
	if old, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.Equal(old, data) {
		// It may have been put there by a process that died before its fsync of
		// the directory. Its content was flushed before the rename.
		return atomicfile.SyncDir(dir)
	}
	return atomicfile.Write(filepath.Join(dir, name), data, 0o600)
}

func (s *dirStore) blob(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir, blobDir, name))
}

func (s *dirStore) close() error { return s.f.Close() }

// loadBlob checks what it reads: a before-image that rotted must not be
// restored.
func loadBlob(s store, ref string) ([]byte, error) {
	if !isHash(ref) {
		return nil, &DamagedError{Reason: fmt.Sprintf("%q is not the name of a blob", ref)}
	}
	data, err := s.blob(ref)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{Reason: "blob " + ref + " is missing"}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read blob %s: %w", ref, err)
	}
	if hashOf(data) != ref {
		return nil, &DamagedError{Reason: "blob " + ref + " was changed"}
	}
	return data, nil
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func isHash(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
