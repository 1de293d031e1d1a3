package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"
)

// followPoll is how often Follow looks for new records.
const followPoll = 300 * time.Millisecond

// Records reads the journal in dir record by record, each one checked, and
// holds one in memory. It takes no lock. On damage the last pair has an error
// that is a *DamagedError. A torn last line is left out.
func Records(dir string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(filepath.Join(dir, journalFile))
		if err != nil {
			yield(Record{}, fmt.Errorf("%s is not a run: %w", dir, err))
			return
		}
		defer f.Close() // only read
		for p := newParser(f); ; {
			rec, err := p.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("cannot read run %s: %w", dir, err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// Follow is Records that waits for more: it ends when ctx does (with its
// error), or when no process is at work and every record was given.
func Follow(ctx context.Context, dir string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(filepath.Join(dir, journalFile))
		if err != nil {
			yield(Record{}, fmt.Errorf("%s is not a run: %w", dir, err))
			return
		}
		defer f.Close() // only read
		t := time.NewTicker(followPoll)
		defer t.Stop()
		p := newParser(f)
		for {
			live := isHeld(dir) // before reading: who is gone by then writes nothing more
			// From the end of what was read whole: a line that is being written
			// looks torn.
			p = &parser{r: bufio.NewReader(io.NewSectionReader(f, p.size, math.MaxInt64-p.size)), n: p.n, size: p.size, head: p.head}
			for {
				rec, err := p.next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					yield(Record{}, fmt.Errorf("cannot read run %s: %w", dir, err))
					return
				}
				if !yield(rec, nil) {
					return
				}
			}
			if !live {
				return
			}
			select {
			case <-ctx.Done():
				yield(Record{}, context.Cause(ctx))
				return
			case <-t.C:
			}
		}
	}
}

// hasHead tells whether one of the journal's lines has this hash.
func hasHead(dir, head string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return false, err
	}
	defer f.Close() // only read
	for p := newParser(f); ; {
		if _, err := p.next(); err != nil {
			if errors.Is(err, io.EOF) {
				return false, nil
			}
			return false, err
		}
		if p.head == head {
			return true, nil
		}
	}
}
