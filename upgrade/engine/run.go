package engine

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

// Header is the identity of a run, frozen in the first line of its journal.
type Header struct {
	Run       string `json:"run"`       // identifier of the run; part of every key
	Procedure string `json:"procedure"` // such as "transition"
	Host      string `json:"host"`      // the host the run is about
	PlanHash  string `json:"plan_hash"` // hex SHA-256 of plan.json; empty at Create: computed
	Version   string `json:"version"`   // of the program that created the run
}

// A Run is an open run directory. It holds the lock of the directory until
// Close. Apply and Rollback must not run at the same time (ErrBusy).
type Run struct {
	dir     string
	header  Header
	plan    []byte
	version string
	actor   string
	origin  Origin

	store store
	lock  *lock
	busy  sync.Mutex

	fold *fold

	mu        sync.Mutex // guards what follows, and every write
	size      int64      // of the durable records of the journal, in bytes
	held      []byte     // lines that wait for the next write; see hold
	holds     int        // how many
	last      string     // hash of the last line, durable or held
	torn      int        // bytes of a torn line behind them
	broken    error      // ErrUnwritable or closed: nothing is appended any more
	low       error      // the disk is full: the reserve is in use, nothing is begun
	abandoned bool       // Abandon has closed the journal under a working loop

	// absentPause is how long a look waits for what a cloud does not show yet.
	absentPause time.Duration
	// clock is the wall clock that the records show to people.
	clock func() time.Time
}

// An Option adjusts Create and Open.
type Option func(*config)

type config struct {
	actor, version string
	origin         Origin
}

func newConfig(opts []Option) config {
	var c config
	for _, o := range opts {
		o(&c)
	}
	if c.origin == (Origin{}) {
		c.origin = LocalOrigin()
	}
	if c.actor == "" {
		c.actor = c.origin.User
	}
	return c
}

// WithActor sets who is named in the lock file; default the user of the process.
func WithActor(actor string) Option { return func(c *config) { c.actor = actor } }

// WithOrigin sets where this process acts from; default LocalOrigin(). A program
// that acts for somebody on another machine, as a web console does, names that
// one: it stands in the journal, and what was last worked on from another Machine
// is refused (ErrElsewhere).
func WithOrigin(o Origin) Option { return func(c *config) { c.origin = o } }

// WithVersion sets the version of the program that is journalled at each
// start; default none.
func WithVersion(v string) Option { return func(c *config) { c.version = v } }

// Create makes the run directory dir with its parents: mode 0700, plan.json
// with the bytes of plan, journal.jsonl with its first line, the lock, which
// the returned Run holds. A directory that exists must not contain a run
// (fs.ErrExist); one that a crashed Create left is completed. An empty
// h.PlanHash is computed, another one must be PlanHash(plan).
func Create(dir string, h Header, plan []byte, o ...Option) (_ *Run, err error) {
	if h.Run == "" {
		return nil, Invalid("a run needs an identifier")
	}
	if h.PlanHash == "" {
		h.PlanHash = PlanHash(plan)
	}
	if h.PlanHash != PlanHash(plan) {
		return nil, fmt.Errorf("%w: the header names %s, the plan has %s", ErrPlanChanged, h.PlanHash, PlanHash(plan))
	}
	c := newConfig(o)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create run directory: %w", err)
	}
	l, err := takeLock(dir, c.actor)
	if err != nil {
		return nil, fmt.Errorf("cannot create run in %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot create run in %s: %w", dir, err)
			_ = l.release() // the first error matters
		}
	}()
	journal := filepath.Join(dir, journalFile)
	if _, err := os.Lstat(journal); err == nil {
		return nil, &fs.PathError{Op: "create", Path: journal, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, blobDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(dir, planFile), plan, 0o600); err != nil {
		return nil, err
	}
	line, err := openingLine(h)
	if err != nil {
		return nil, err
	}
	// Last, and by rename: where there is a journal, there is a whole run.
	if err := atomicfile.Write(journal, line, 0o600); err != nil {
		return nil, err
	}
	if err := atomicfile.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, err
	}
	r, err := openLocked(dir, l, c)
	if err != nil {
		return nil, err
	}
	if err := r.store.reserve(); err != nil {
		_ = r.store.close() // the first error matters
		return nil, err
	}
	return r, nil
}

func openingLine(h Header) ([]byte, error) {
	b, err := marshal(openedBody{Format: journalFormat, Header: h})
	if err != nil {
		return nil, err
	}
	line, err := encodeRecord(Record{Seq: 1, Time: time.Now().UTC().Truncate(time.Millisecond), Kind: kindOpened, Body: b})
	return append(line, '\n'), err
}

// Open opens the run in dir: takes the lock (ErrLocked), checks the whole
// chain (ErrDamaged) and the plan (ErrPlanChanged). A torn last line, the
// trace of a crash, is overwritten by the next record, which notes it.
func Open(dir string, o ...Option) (*Run, error) {
	if _, err := os.Stat(filepath.Join(dir, journalFile)); err != nil {
		return nil, fmt.Errorf("%s is not a run: %w", dir, err)
	}
	c := newConfig(o)
	l, err := takeLock(dir, c.actor)
	if err != nil {
		return nil, fmt.Errorf("cannot open run: %w", err)
	}
	r, err := openLocked(dir, l, c)
	if err != nil {
		_ = l.release() // the first error matters
		return nil, fmt.Errorf("cannot open run %s: %w", dir, err)
	}
	return r, nil
}

func openLocked(dir string, l *lock, c config) (_ *Run, err error) {
	plan, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return nil, err
	}
	d, err := openDirStore(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = d.close() // nothing was written; the first error matters
		}
	}()
	r, err := newRun(io.NewSectionReader(d.f, 0, math.MaxInt64), plan)
	if err != nil {
		return nil, err
	}
	// After an fsync that failed the kernel may show what is not on the disk.
	// Nothing is built on such a record: the last ones are written once more.
	if err := d.rewriteTail(r.size); err != nil {
		return nil, fmt.Errorf("%w: %w: make room or repair the disk", ErrUnwritable, err)
	}
	r.store, r.dir, r.lock, r.actor, r.version, r.origin = d, dir, l, c.actor, c.version, c.origin
	return r, nil
}

// newRun checks and folds what is on disk.
func newRun(journal io.Reader, plan []byte) (*Run, error) {
	p, f := newParser(journal), newFold()
	var h Header
	for {
		rec, err := p.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if rec.Seq == 1 {
			if h, err = headerOf(rec); err != nil {
				return nil, err
			}
			if h.PlanHash != PlanHash(plan) {
				return nil, fmt.Errorf("%w: the journal names %s, plan.json is %s", ErrPlanChanged, h.PlanHash, PlanHash(plan))
			}
		}
		if err := f.add(rec); err != nil {
			return nil, err
		}
	}
	return &Run{header: h, plan: plan, fold: f, size: p.size, last: p.head, torn: p.torn, absentPause: absentPause, clock: time.Now}, nil
}

// Close releases the lock. The run can be opened again. A second Close does
// nothing.
func (r *Run) Close() error {
	r.busy.Lock() // not under the feet of Apply
	defer r.busy.Unlock()
	if r.store == nil {
		return nil
	}
	err := errors.Join(r.store.close(), r.lock.release())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store, r.lock, r.broken = nil, nil, errClosed
	return err
}

var errClosed = fmt.Errorf("run is closed: %w", os.ErrClosed)

// Header returns the identity of the run.
func (r *Run) Header() Header { return r.header }

// Plan returns the bytes of plan.json, which were checked against the header.
// The caller must not change them.
func (r *Run) Plan() []byte { return r.plan }

// PlanHash is the hex SHA-256 of a plan, as Header.PlanHash has it.
func PlanHash(plan []byte) string { return hashOf(plan) }

// Key is the idempotency key of an attempt of a step: ClientToken, tag value,
// unit name on a host and marker in a file at once. 41 lower-case letters and
// digits, the first a letter.
func Key(run, step string, attempt int) string {
	// The parts cannot contain the separator: step IDs are checked, attempts
	// are numbers, and the run comes first.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d", run, step, attempt))
	return "u" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:40])
}
