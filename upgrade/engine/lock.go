package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A lock is an operating system lock on the file "lock" of a run directory: it
// goes away with the process, however that ends. The content of the file only
// says who holds it.
type lock struct {
	f      *os.File
	holder Holder
}

// errHeld is what lockFD returns when another process has the lock.
var errHeld = errors.New("held by another process")

// Reading a run probes the lock, and a machine can stop a reader in the middle of
// that: who only finds readers in his way waits for them.
const (
	lockPause = 20 * time.Millisecond
	lockTries = 500 // 10 s
)

func takeLock(dir, actor string) (*lock, error) {
	name := filepath.Join(dir, lockFile)
	var f *os.File
	for try := 1; ; try++ {
		var err error
		if f, err = lockOpen(name); err == nil {
			break
		}
		if !errors.Is(err, errHeld) {
			return nil, err
		}
		if probeHeld(name) || try == lockTries {
			_, holder := holderOf(dir)
			return nil, &LockedError{Dir: dir, Holder: holder}
		}
		<-time.After(lockPause)
	}
	host, _ := os.Hostname() // only for people
	l := &lock{f: f, holder: Holder{PID: os.Getpid(), Host: host, Since: time.Now().UTC().Truncate(time.Second)}}
	if err := l.note(actor); err != nil {
		_ = f.Close() // releases the lock; the first error matters
		if isDiskFull(err) {
			err = fmt.Errorf("%w: %w: make room, then resume", ErrUnwritable, err)
		}
		return nil, err
	}
	return l, nil
}

// note writes who is at work into the lock file.
func (l *lock) note(actor string) error {
	if l == nil || actor == l.holder.Actor && actor != "" {
		return nil
	}
	l.holder.Actor = actor
	data, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(data, '\n'), 0)
	return err
}

// who is the holder; nobody without a lock.
func (l *lock) who() Holder {
	if l == nil {
		return Holder{}
	}
	return l.holder
}

// release empties the file, so that its last holder is not taken for a
// present one, and lets go.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

// holderOf tells whether a process holds the lock of a run directory, and what
// its file says. Who has just taken the lock has yet to write his name: his is
// waited for, since a request has to be addressed to him.
func holderOf(dir string) (held bool, h Holder) {
	for try := 1; ; try++ {
		held, h = isHeld(dir), readHolder(dir)
		if !held || h.PID != 0 || try == holderTries {
			return held, h
		}
		<-time.After(lockPause)
	}
}

const holderTries = 100 // 2 s: a file that nobody can read is no reason to hang

// readHolder returns a zero Holder when nothing sensible is there.
func readHolder(dir string) Holder {
	var h Holder
	data, err := os.ReadFile(filepath.Join(dir, lockFile))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}

// isHeld reports whether a process holds the lock now.
func isHeld(dir string) bool {
	name := filepath.Join(dir, lockFile)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return false // probing would create it
	}
	return probeHeld(name)
}
