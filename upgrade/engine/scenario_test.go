package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The fault scenarios that are the engine's, by the numbers of the list of
// faults that the procedures are held against.

func TestScenario01CrashAfterIntent(t *testing.T) {
	tell(t, "a:do=die", "apply/apply", "a1:plan a1:do =crash/a1:look a1:do a1:verify =succeeded")
}

func TestScenario02CrashAfterEffect(t *testing.T) {
	tell(t, "a:do=dead", "apply/apply", "a1:plan a1:do =crash/a1:look a1:verify =succeeded")
	tell(t, "a:do=dead", "apply/rollback", "a1:plan a1:do =crash/a1:look a1:undo =rolled-back")
}

// stopped is a run on disk that stands after its first step of two.
func stopped(t *testing.T) (dir string, steps []Step) {
	t.Helper()
	dir, r := create(t)
	steps = plain("a", "b")
	out, err := r.Apply(t.Context(), steps, Options{Until: "1"})
	require.NoError(t, err)
	require.Equal(t, Paused, out.State)
	require.NoError(t, r.Close())
	return dir, steps
}

func reopened(t *testing.T, dir string, o ...Option) *Run {
	t.Helper()
	r, err := Open(dir, o...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func readJournal(t *testing.T, dir string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, journalFile))
	require.NoError(t, err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	return lines[:len(lines)-1]
}

func writeJournal(t *testing.T, dir string, lines ...[]byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, journalFile), bytes.Join(lines, nil), 0o600))
}

func TestScenario03TornLastLine(t *testing.T) {
	dir, steps := stopped(t)
	tear(t, dir, `{"seq":6,"time":"2026-`)
	a, err := Verify(dir)
	require.NoError(t, err)
	assert.Empty(t, a.Findings)
	assert.Equal(t, 22, a.Torn)
	out, err := reopened(t, dir).Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
	a, err = Verify(dir)
	require.NoError(t, err)
	assert.Empty(t, a.Findings)
	assert.Equal(t, 1, a.Repaired, "the repair is noted")
	assert.Zero(t, a.Torn)
}

func TestScenario04BitFlip(t *testing.T) {
	dir, _ := stopped(t)
	lines := readJournal(t, dir)
	lines[2] = bytes.Replace(lines[2], []byte("look at a"), []byte("look at b"), 1)
	writeJournal(t, dir, lines...)
	_, err := Open(dir)
	var d *DamagedError
	require.ErrorAs(t, err, &d)
	assert.Equal(t, 3, d.Record)
	n := 0
	for _, err := range Records(dir) {
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			break
		}
		n++
	}
	assert.Equal(t, 2, n, "what stands before it can be exported")
	a, err := Verify(dir)
	require.NoError(t, err)
	require.Len(t, a.Findings, 1)
	assert.Equal(t, "line 3: record 3 (intent a) was changed: it does not match its sum", a.Findings[0].String())
}

func TestScenario05RecordDeletedOrReordered(t *testing.T) {
	said := func(t *testing.T, change func([][]byte) [][]byte) string {
		t.Helper()
		dir, _ := stopped(t)
		writeJournal(t, dir, change(readJournal(t, dir))...)
		_, err := Open(dir)
		require.ErrorIs(t, err, ErrDamaged)
		a, err := Verify(dir)
		require.NoError(t, err)
		var all []string
		for _, f := range a.Findings {
			all = append(all, f.String())
		}
		return strings.Join(all, "\n")
	}
	assert.Equal(t, "line 3: record 3 is missing before record 4: removed, or put elsewhere",
		said(t, func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }))
	assert.Equal(t, "line 2: records 2 to 3 are missing before record 4: removed, or put elsewhere",
		said(t, func(l [][]byte) [][]byte { return append(l[:1:1], l[3:]...) }))
	assert.Equal(t, "line 3: record 3 is missing before record 4: removed, or put elsewhere\nline 4: record 3 was put here from its place: records are in another order",
		said(t, func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }))
	assert.Equal(t, "line 4: record 3 stands here again; it is in line 3",
		said(t, func(l [][]byte) [][]byte { return append(l[:3:3], l[2:]...) }))
	// Somebody who can also compute sums: the next line does not follow.
	assert.Equal(t, "line 4: record 4 does not follow the one before it: record 3 was replaced or changed with its sum",
		said(t, func(l [][]byte) [][]byte {
			var rec Record
			require.NoError(t, json.Unmarshal(l[2], &rec))
			rec.Step = "z"
			line, err := encodeRecord(rec)
			require.NoError(t, err)
			l[2] = append(line, '\n')
			return l
		}))
}

// TestAuditHead: the end of a journal can be cut off unseen, but not behind a
// head that was kept elsewhere.
func TestAuditHead(t *testing.T) {
	dir, _ := stopped(t)
	h, err := Read(dir)
	require.NoError(t, err)
	a, err := Verify(dir, h.Head)
	require.NoError(t, err)
	assert.Empty(t, a.Findings)
	assert.Equal(t, map[string]int{h.Head: h.Count}, a.Heads)
	lines := readJournal(t, dir)
	writeJournal(t, dir, lines[:len(lines)-1]...)
	a, err = Verify(dir)
	require.NoError(t, err)
	assert.Empty(t, a.Findings, "nothing inside shows it")
	a, err = Verify(dir, h.Head)
	require.NoError(t, err)
	require.Len(t, a.Findings, 1)
	assert.Equal(t, "no record has the hash "+h.Head+" kept elsewhere: the end was cut off, or everything was written anew", a.Findings[0].String())

	require.NoError(t, os.WriteFile(filepath.Join(dir, planFile), []byte("{}"), 0o600))
	a, err = Verify(dir)
	require.NoError(t, err)
	require.Len(t, a.Findings, 1)
	assert.Contains(t, a.Findings[0].What, "it is not the plan that was accepted")
}

// TestAuditFindsEverything: whatever single byte, line or blob of a journal is
// changed, removed or doubled, the audit has a finding, or it is the end that
// was torn or cut.
func TestAuditFindsEverything(t *testing.T) {
	journal := sample(t)
	last := int(lastWrite(journal))
	world := newSimWorld()
	require.Equal(t, Succeeded, world.settle(t, false, true, false).State)
	check := func(changed []byte, at int, what string) {
		t.Helper()
		a, err := audit(bytes.NewReader(changed), nil, world.store, nil)
		require.NoError(t, err)
		if len(a.Findings) == 0 && at < last {
			t.Fatalf("%s at %d: no finding", what, at)
		}
	}
	for i := 0; i < len(journal); i += 11 {
		changed := bytes.Clone(journal)
		changed[i] ^= 1
		check(changed, i, "flip")
		check(append(bytes.Clone(journal[:i]), journal[i+1:]...), i, "removal")
		check(append(bytes.Clone(journal[:i+1]), journal[i:]...), i, "doubling")
	}
	own, err := audit(bytes.NewReader(world.store.journal), nil, world.store, nil)
	require.NoError(t, err)
	assert.Empty(t, own.Findings)
	assert.Equal(t, len(world.store.blobs), own.Blobs)
	for name := range world.store.blobs {
		world.store.blobs[name][0] ^= 1
	}
	own, err = audit(bytes.NewReader(world.store.journal), nil, world.store, nil)
	require.NoError(t, err)
	assert.Len(t, own.Findings, len(world.store.blobs))
}

// fullStore is a disk in memory with room for so many bytes, and a reserve.
type fullStore struct {
	*memStore
	room, kept int
}

func (s *fullStore) append(line []byte, at int64) error {
	if grow := int(at) + len(line) - len(s.journal); grow > s.room {
		s.journal = append(s.journal[:at], line[:max(0, min(s.room, len(line)))]...) // some of it is there
		s.room = 0
		return &os.PathError{Op: "write", Path: journalFile, Err: syscall.ENOSPC}
	} else {
		s.room -= grow
	}
	return s.memStore.append(line, at)
}

func (s *fullStore) putBlob(name string, data []byte) error {
	if len(data) > s.room {
		return &os.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	s.room -= len(data)
	return s.memStore.putBlob(name, data)
}

func (s *fullStore) reserve() error {
	if s.kept == 0 {
		if s.room < reserveSize {
			return syscall.ENOSPC
		}
		s.room, s.kept = s.room-reserveSize, reserveSize
	}
	return nil
}

func (s *fullStore) freeReserve() error {
	s.room, s.kept = s.room+s.kept, 0
	return nil
}

// A disk that is full at whatever byte: no effect begins that is not on disk,
// what happened is on disk thanks to the reserve, the run says why it stands,
// and with room again it reaches its end with every effect done once.
func fullDisk(t *testing.T, judge func(room int, journal string, calls []string)) {
	t.Helper()
	for room := 0; ; room += 97 {
		s := &story{state: map[string]string{}, store: newSimWorld().store}
		s.parse("a b c")
		disk := &fullStore{memStore: s.store, room: room + reserveSize}
		r, err := memRun(s.store.journal, nil)
		require.NoError(t, err)
		r.store = disk
		_, err = r.Apply(t.Context(), s.steps, Options{Actor: "op"})
		if err == nil {
			require.Greater(t, room, 500)
			return
		}
		require.ErrorIs(t, err, ErrUnwritable)
		require.ErrorIs(t, err, syscall.ENOSPC)
		calls := len(s.log)
		_, again := r.Apply(t.Context(), s.steps, Options{Actor: "op"})
		require.ErrorIs(t, again, ErrUnwritable)
		require.Len(t, s.log, calls, "nothing begins in this process")
		judge(room, string(s.store.journal), s.log)

		// Another process while the disk is still full: nothing begins.
		r, err = memRun(s.store.journal, nil)
		require.NoError(t, err)
		disk.room, disk.kept = 100, 0
		r.store = disk
		_, err = r.Apply(t.Context(), s.steps, Options{Actor: "op"})
		require.ErrorIs(t, err, ErrUnwritable)
		require.Len(t, s.log, calls)

		disk.room = 10 * reserveSize
		out, err := r.Apply(t.Context(), s.steps, Options{Actor: "op"})
		require.NoError(t, err)
		require.Equal(t, Succeeded, out.State)
		for _, step := range []string{"a1:do", "b1:do", "c1:do"} {
			require.Equal(t, 1, strings.Count(strings.Join(s.log, " ")+" ", step+" "), "%s with room %d: %v", step, room, s.log)
		}
	}
}

func TestScenario06DiskFullAtIntent(t *testing.T) {
	seen := false
	fullDisk(t, func(room int, journal string, calls []string) {
		h, err := memHistory([]byte(journal), nil, newSimWorld().store)
		require.NoError(t, err)
		assert.Equal(t, Paused, h.State, "room %d", room)
		assert.Contains(t, h.Reason, "the disk of the run directory is full")
		if strings.Contains(h.Reason, `"intent" of step "b" was not begun`) {
			seen = true
			assert.NotContains(t, calls, "b1:do")
		}
	})
	assert.True(t, seen)
}

func TestScenario07DiskFullAtOutcome(t *testing.T) {
	seen := false
	fullDisk(t, func(room int, journal string, calls []string) {
		h, err := memHistory([]byte(journal), nil, newSimWorld().store)
		require.NoError(t, err)
		for _, c := range calls {
			if id, ok := strings.CutSuffix(c, "1:do"); ok {
				seen = seen || strings.HasSuffix(h.Reason, `"intent" of step "c" was not begun; make room, then resume`) && id == "b"
				assert.Equal(t, StepDone, h.StepByID(id).State, "room %d: the effect of %s is on disk, in the reserve", room, id)
			}
		}
	})
	assert.True(t, seen)
}

// brokenFile is a journal whose fsync fails once.
type brokenFile struct {
	file
	after, syncs int
	err          error
}

func (f *brokenFile) Sync() error {
	if f.syncs++; f.syncs == f.after {
		return f.err
	}
	return f.file.Sync()
}

func TestScenario08FsyncFails(t *testing.T) {
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} { // neither is tried again
		for after := 1; after <= 4; after++ { // two a step
			dir, r := create(t)
			d := r.store.(*dirStore)
			f := &brokenFile{file: d.f, after: after, err: errno}
			d.f = f
			did, state := 0, map[string]bool{}
			steps := []Step{atOnce("a", "1", state), atOnce("b", "2", state)}
			for i := range steps {
				do := steps[i].Do
				steps[i].Do = func(ctx context.Context, a *Act) (any, error) { did++; return do(ctx, a) }
			}
			_, err := r.Apply(t.Context(), steps, Options{})
			require.ErrorIs(t, err, ErrUnwritable)
			assert.Equal(t, after, f.syncs, "no second try")
			before := did
			_, err = r.Apply(t.Context(), steps, Options{})
			require.ErrorIs(t, err, ErrUnwritable)
			_, err = r.Rollback(t.Context(), steps, Options{})
			require.ErrorIs(t, err, ErrUnwritable)
			assert.Equal(t, before, did)
			require.NoError(t, r.Close())

			// The record may be in the cache and not on the disk: the next
			// process writes it once more before it builds on it.
			h, err := Read(dir)
			require.NoError(t, err)
			if h.State == Succeeded {
				continue
			}
			out, err := reopened(t, dir).Apply(t.Context(), steps, Options{})
			require.NoError(t, err)
			assert.Equal(t, Succeeded, out.State)
			assert.Equal(t, len(steps), did, "each effect once")
		}
	}
}

// TestRewriteTail: opening a run writes the last records once more, and
// nothing else.
func TestRewriteTail(t *testing.T) {
	dir, _ := stopped(t)
	before := readJournal(t, dir)
	d, err := openDirStore(dir)
	require.NoError(t, err)
	defer d.close()
	wrote := &writes{file: d.f}
	d.f = wrote
	size := int64(len(bytes.Join(before, nil)))
	require.NoError(t, d.rewriteTail(size))
	assert.Equal(t, size, wrote.bytes)
	assert.Equal(t, 1, wrote.syncs)
	assert.Equal(t, before, readJournal(t, dir))
	d.f = &brokenFile{file: wrote.file, after: 1, err: syscall.EIO}
	require.ErrorContains(t, d.rewriteTail(size), "cannot fsync")
}

type writes struct {
	file
	bytes int64
	syncs int
}

func (w *writes) WriteAt(p []byte, at int64) (int, error) {
	w.bytes += int64(len(p))
	return w.file.WriteAt(p, at)
}

func (w *writes) Sync() error {
	w.syncs++
	return w.file.Sync()
}

// job is a step whose effect goes on by itself on a host while Do waits for it.
func job(started map[string]int, finished *atomic.Bool) Step {
	return Step{
		ID: "a", Section: "1", Title: "long job", Effect: OneShot, NoUndo: "has no reverse",
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			switch {
			case started[a.Key()] == 0:
				return Sight{State: Absent}, nil
			case finished.Load():
				return Sight{State: Ours}, nil
			}
			return Sight{State: InProgress}, nil
		},
		Do: func(ctx context.Context, a *Act) (any, error) {
			if started[a.Key()] == 0 {
				started[a.Key()]++
			}
			for !finished.Load() {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(time.Second):
				}
			}
			return nil, nil
		},
	}
}

func TestScenario09InterruptDetaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r := create(t)
		started, finished := map[string]int{}, new(atomic.Bool)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(90*time.Second, func() { cancel(errors.New("SIGINT")) })
		out, err := r.Apply(ctx, []Step{job(started, finished)}, Options{})
		require.NoError(t, err)
		assert.Equal(t, Interrupted, out.State)
		assert.Equal(t, "SIGINT", out.Reason)
		time.AfterFunc(time.Hour, func() { finished.Store(true) }) // it goes on there
		out, err = r.Apply(t.Context(), []Step{job(started, finished)}, Options{})
		require.NoError(t, err)
		assert.Equal(t, Succeeded, out.State)
		assert.Equal(t, map[string]int{Key("r1", "a", 1): 1}, started)
	})
}

func TestScenario10SecondInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		done, quit, end := false, make(chan struct{}), make(chan struct{})
		step := Step{ID: "a", Section: "1", Title: "a call that does not listen", Effect: SetState, NoUndo: "test",
			Observe: func(context.Context, *Act) (Sight, error) {
				if done {
					return Sight{State: Ours}, nil
				}
				return Sight{State: Absent}, nil
			},
			Do: func(context.Context, *Act) (any, error) {
				done = true
				time.AfterFunc(time.Minute, func() { close(quit) })
				<-end // an API call in its middle
				return nil, nil
			}}
		var onDisk string
		_, err := r.Apply(t.Context(), []Step{step}, Options{Quit: quit, Quitted: func(err error) {
			assert.NoError(t, err)
			lines := readJournal(t, dir)
			onDisk = string(lines[len(lines)-1])
			close(end) // a real process would have ended before this
		}})
		require.ErrorContains(t, err, "abandoned")
		assert.Contains(t, onDisk, `"kind":"interrupted"`)
		assert.Equal(t, onDisk, string(readJournal(t, dir)[3]), "nothing is written behind it")
		require.NoError(t, r.Close())
		out, err := reopened(t, dir).Apply(t.Context(), []Step{step}, Options{})
		require.NoError(t, err)
		assert.Equal(t, Succeeded, out.State)
		h, err := Read(dir)
		require.NoError(t, err)
		assert.True(t, h.StepByID("a").Adopted)
	})
}

// Killed at every point, also inside a write, the procedure of the crash matrix
// is resumed to its end and rolled back to its beginning. (TestCrashMatrix kills
// the next process as well; the tests of package upgrade kill the real
// procedures, and real processes.)
func TestScenario11KilledAnywhere(t *testing.T) {
	ref := newSimWorld()
	m := &matrix{t: t, pivot: true, start: ref.state()}
	require.Equal(t, Succeeded, ref.settle(t, false, true, false).State)
	m.end = ref.state()
	for i := 1; ; i++ {
		w := newSimWorld()
		w.at = i
		if _, _ = w.process(t, false, true, false); !w.fired {
			t.Logf("killed at %d points", i-1)
			assert.Greater(t, i, 50)
			return
		}
		m.forward(w.clone(), fmt.Sprintf("killed at %d, resume", i))
		m.backward(w, fmt.Sprintf("killed at %d, rollback", i))
	}
}

func TestScenario12LostTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		started, finished := map[string]int{}, new(atomic.Bool)
		steps := append([]Step{job(started, finished)}, plain("b", "c")...)
		steps[1].Section, steps[1].Joined, steps[2].Section = "2", true, "3"
		pause := make(chan string, 1)
		time.AfterFunc(time.Minute, func() { pause <- "the terminal was lost" })
		time.AfterFunc(time.Hour, func() { finished.Store(true) })
		began := time.Now()
		out, err := r.Apply(t.Context(), steps, Options{Actor: "li", Pause: pause})
		require.NoError(t, err)
		assert.Equal(t, Paused, out.State)
		assert.Equal(t, "c", out.Step, "b is joined to a: no safe point")
		assert.GreaterOrEqual(t, time.Since(began), time.Hour, "a was not cut off")
		assert.Contains(t, out.Reason, "pause asked by li (")
		h, err := Read(dir)
		require.NoError(t, err)
		require.Len(t, h.Notes, 1)
		assert.Equal(t, "the terminal was lost", h.Notes[0].Reason)
		out, err = r.Apply(t.Context(), steps, Options{})
		require.NoError(t, err)
		assert.Equal(t, Succeeded, out.State)
	})
}

// The clock is set back by an hour between two processes, and on by a day.
func TestScenario13ClockJumps(t *testing.T) {
	dir, steps := stopped(t)
	lines := readJournal(t, dir)
	head := hashOf(bytes.TrimSpace(lines[len(lines)-1]))
	for i, jump := range []time.Duration{time.Hour, -48 * time.Hour} {
		line, err := encodeRecord(Record{Seq: len(lines) + 1, Time: time.Now().Add(jump), Kind: kindPaused, Prev: head, Body: json.RawMessage(fmt.Sprintf(`{"reason":"%d"}`, i))})
		require.NoError(t, err)
		head = hashOf(line)
		lines = append(lines, append(line, '\n'))
	}
	writeJournal(t, dir, lines...)
	out, err := reopened(t, dir).Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, []int{7}, h.ClockBack)
}

// The clock steps within one process, in the middle of steps that wait: an hour on
// in the first, two hours back in the second. Nothing ends earlier or later for
// it, and only what people read is wrong.
func TestScenario13ClockStepsInOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		var wrong atomic.Int64 // how much the clock is
		r.clock = func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }
		step := func(by time.Duration) { wrong.Add(int64(by)) }
		state := map[string]bool{}
		steps := []Step{undoable("a", "1", state), undoable("b", "2", state), undoable("c", "3", state)}
		for i := range steps {
			do := steps[i].Do
			steps[i].Do = func(ctx context.Context, a *Act) (any, error) {
				ctx, cancel := context.WithTimeout(ctx, 61*time.Minute) // it takes an hour
				defer cancel()
				return do(ctx, a)
			}
		}
		var took time.Duration
		steps[2].Plan = func(_ context.Context, a *Act) (Proposal, error) {
			var ok bool
			took, ok = a.Took("b")
			assert.True(t, ok)
			return Proposal{}, nil
		}
		began := time.Now()
		time.AfterFunc(30*time.Minute, func() { step(time.Hour) })
		time.AfterFunc(90*time.Minute, func() { step(-2 * time.Hour) })
		out, err := r.Apply(t.Context(), steps, Options{})
		require.NoError(t, err)
		require.Equal(t, Succeeded, out.State, out.Reason)
		assert.Equal(t, 3*time.Hour, time.Since(began), "every step took its hour")
		assert.Zero(t, took, "an estimate is never negative")
		n, back := 0, []int(nil)
		var last time.Time
		for rec, err := range Records(dir) {
			require.NoError(t, err)
			n++
			assert.Equal(t, n, rec.Seq, "the order is that of the numbers")
			if rec.Time.Before(last) {
				back = append(back, rec.Seq)
				assert.Equal(t, "b", rec.Step)
			}
			last = rec.Time
		}
		assert.Len(t, back, 1)
		h, err := Read(dir)
		require.NoError(t, err)
		assert.Equal(t, back, h.ClockBack)
		audit, err := Verify(dir)
		require.NoError(t, err)
		assert.Empty(t, audit.Findings)
		// Undone in the order of the journal, not of the times in it.
		out, err = r.Rollback(t.Context(), steps, Options{})
		require.NoError(t, err)
		assert.Equal(t, RolledBack, out.State)
		assert.Contains(t, records(t, dir), "undo-intent:c undone:c undo-intent:b undone:b undo-intent:a undone:a rolled-back")
	})
}

func TestScenario14OtherBinary(t *testing.T) {
	dir, r := create(t)
	steps := plain("a", "b")
	steps[0].Version = 2
	_, err := r.Apply(t.Context(), steps, Options{Until: "1"})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	older := plain("a", "b") // form 0
	r = reopened(t, dir)
	for _, call := range []func(context.Context, []Step, Options) (Outcome, error){r.Apply, r.Rollback} {
		_, err = call(t.Context(), older, Options{})
		require.ErrorIs(t, err, ErrVersion)
		assert.ErrorContains(t, err, `step "a" was begun in form 2, this program knows form 0: use the version that began it (run made by "v0.1.0")`)
	}
	steps[1].Version = 7 // a step that was not begun may be newer
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
}

func TestScenario15PlanEdited(t *testing.T) {
	dir, _ := stopped(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, planFile), []byte(`{"steps":["more"]}`), 0o600))
	_, err := Open(dir)
	require.ErrorIs(t, err, ErrPlanChanged)
	assert.ErrorContains(t, err, "plan.json changed after the run was created: the journal names ")
}

func TestScenario16OtherMachine(t *testing.T) {
	dir, steps := stopped(t)
	elsewhere := Origin{User: "li", Host: "jump-2", Machine: "0123456789abcdef"}
	r := reopened(t, dir, WithOrigin(elsewhere), WithActor("li"))
	lines := len(readJournal(t, dir))
	for _, call := range []func(context.Context, []Step, Options) (Outcome, error){r.Apply, r.Rollback} {
		_, err := call(t.Context(), steps, Options{})
		var e *ElsewhereError
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, ErrElsewhere)
		assert.Equal(t, os.Getpid(), e.Origin.PID)
		assert.ErrorContains(t, err, "was last worked on by "+e.Origin.User+"@"+e.Origin.Host)
		assert.ErrorContains(t, err, "upgradectl unlock --run "+dir+" --reason TEXT --execute")
	}
	assert.Len(t, readJournal(t, dir), lines, "nothing was begun")
	require.ErrorIs(t, r.Unlock("li", " "), ErrInvalid)
	require.NoError(t, r.Unlock("li", "jump-1 is gone"))
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
	h, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, h.Notes, 1)
	n := h.Notes[0]
	assert.Equal(t, []string{"unlock", "li", "jump-1 is gone", "li@jump-2"}, []string{n.Act, n.Actor, n.Reason, n.Origin.String()})
}

func TestScenario57TwoOperators(t *testing.T) {
	dir, r := create(t)
	defer r.Close()
	_, err := Open(dir, WithActor("li"))
	var e *LockedError
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "wang", e.Holder.Actor)
	assert.Regexp(t, `locked by wang \(process \d+ on \S* since 20\d\d-[^)]+Z\): wait for it or stop it$`, err.Error())
}

// TestDiskReallyFull: the same on a file system that has no room.
func TestDiskReallyFull(t *testing.T) {
	mnt := tinyDisk(t, 2*reserveSize+64<<10)
	dir := filepath.Join(mnt, "run")
	r, err := Create(dir, testHeader, []byte("{}"))
	require.NoError(t, err)
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("s", i))
	}
	did := 0
	steps := plain(ids...)
	for i := range steps {
		steps[i].Do = func(context.Context, *Act) (any, error) { did++; return strings.Repeat("x", 1000), nil }
	}
	_, err = r.Apply(t.Context(), steps, Options{})
	require.ErrorIs(t, err, ErrUnwritable)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, r.Close())
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, Paused, h.State)
	done := 0
	for _, s := range h.Steps {
		if s.State == StepDone {
			done++
		}
	}
	assert.Equal(t, did, done, "every effect is on disk")
	assert.Greater(t, did, 20)
	assert.NoFileExists(t, filepath.Join(dir, reserveFile))

	filler := filepath.Join(mnt, "filler")
	err = os.WriteFile(filler, make([]byte, 1<<20), 0o600)
	require.ErrorIs(t, err, syscall.ENOSPC)
	if r, err = Open(dir); err == nil { // else there was no room to say who works on it
		_, err = r.Apply(t.Context(), steps, Options{})
		require.NoError(t, r.Close())
	}
	require.ErrorIs(t, err, ErrUnwritable)
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Equal(t, done, did, "nothing begins without a reserve")

}
