package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		os.Exit(killedChild(dir))
	}
	goleak.VerifyTestMain(m)
}

var testHeader = Header{Run: "r1", Procedure: "transition", Host: "web-90", Version: "v0.1.0"}

func create(t *testing.T) (string, *Run) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "r1")
	r, err := Create(dir, testHeader, []byte(`{"steps":[]}`), WithActor("wang"), WithVersion("v0.2.0"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return dir, r
}

// plain is a procedure of harmless steps.
func plain(ids ...string) []Step {
	var steps []Step
	for i, id := range ids {
		steps = append(steps, Step{ID: id, Section: fmt.Sprint(i + 1), Title: "look at " + id, Effect: ReadOnly,
			Do: func(_ context.Context, a *Act) (any, error) { return a.StepID(), nil }})
	}
	return steps
}

func TestFiles(t *testing.T) {
	dir, r := create(t)
	big := strings.Repeat("x", 2*spill)
	steps := plain("a", "b")
	steps[1].Plan = func(_ context.Context, a *Act) (Proposal, error) {
		ref, err := a.PutBlob([]byte("raw bytes"))
		return Proposal{Params: map[string]string{"ref": ref, "big": big}, Lines: []string{"ls -l > /dev/null & echo"}}, err
	}
	steps[1].Do = func(_ context.Context, a *Act) (any, error) {
		var p map[string]string
		if err := a.Params(&p); err != nil {
			return nil, err
		}
		data, err := a.Blob(p["ref"])
		return string(data) + " and " + fmt.Sprint(len(p["big"])), err
	}
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	require.NoError(t, out.Err)
	require.Equal(t, Succeeded, out.State)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())

	journal, err := os.ReadFile(filepath.Join(dir, journalFile))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(journal), "\n"), "\n")
	assert.Regexp(t, `^\{"seq":1,"time":"20\d\d-\d\d-\d\dT[\d:.]+Z","kind":"opened","body":\{"format":"upgradectl-journal/1","run":"r1","procedure":"transition","host":"web-90","plan_hash":"[0-9a-f]{64}","version":"v0.1.0"\},"prev":"","sum":"[0-9a-f]{16}"\}$`, lines[0])
	assert.Regexp(t, `"kind":"started","body":\{"mode":"apply","actor":"wang","origin":\{"user":"[^"]+","host":"[^"]*","machine":"[0-9a-f]{16}",("source":"[^"]+",)?"pid":\d+\},"version":"v0.2.0"\}`, lines[1])
	assert.Regexp(t, `"kind":"intent","step":"a","attempt":1,"key":"`+Key("r1", "a", 1)+`","body":\{"section":"1","title":"look at a","effect":"read-only"\}`, lines[2])
	assert.Regexp(t, `"kind":"done","step":"a".*"acted":true,"result":"a"`, lines[3])
	assert.Contains(t, string(journal), `ls -l > /dev/null & echo`, "readable with cat")
	for i, line := range lines[1:] {
		assert.Contains(t, line, `"prev":"`+hashOf([]byte(lines[i]))+`"`)
		assert.Less(t, len(line), spill, "big values are elsewhere")
	}
	assert.Contains(t, string(journal), "raw bytes and 8192")

	if runtime.GOOS != "windows" { // modes are made up there
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := d.Info()
			require.NoError(t, err)
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			assert.Equal(t, want, info.Mode().Perm(), path)
			return nil
		}))
	}

	_, err = Create(dir, testHeader, nil)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = Create(t.TempDir(), Header{Run: "r", PlanHash: PlanHash([]byte("other"))}, []byte("plan"))
	require.ErrorIs(t, err, ErrPlanChanged)
	_, err = Create(t.TempDir(), Header{}, nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Open(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Read(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = r.Apply(t.Context(), steps, Options{})
	require.ErrorIs(t, err, os.ErrClosed)

	require.NoError(t, os.WriteFile(filepath.Join(dir, planFile), []byte(`{"steps":[ ]}`), 0o600))
	_, err = Open(dir)
	require.ErrorIs(t, err, ErrPlanChanged)
	h, err := Read(dir)
	require.ErrorIs(t, err, ErrPlanChanged)
	assert.Equal(t, Succeeded, h.State)
}

func TestHistory(t *testing.T) {
	dir, r := create(t)
	h, err := Read(dir)
	require.NoError(t, err)
	assert.True(t, h.Live)
	assert.Equal(t, Running, h.State)
	assert.Equal(t, Holder{PID: os.Getpid(), Host: h.Holder.Host, Actor: "wang", Since: h.Holder.Since}, h.Holder)

	steps := plain("a", "b", "c")
	steps[0].Verify = func(context.Context, *Act) (any, error) { return map[string]int{"seen": 7}, nil }
	steps[1].Gate = "go on?"
	steps[2].Plan = func(context.Context, *Act) (Proposal, error) { return Proposal{NotApplicable: "no docker"}, nil }
	out, err := r.Apply(t.Context(), steps, Options{Actor: "li"})
	require.NoError(t, err)
	assert.Equal(t, Outcome{State: Paused, Step: "b", Reason: "waiting for approval: go on?"}, out)
	h, err = Read(dir)
	require.NoError(t, err)
	assert.Equal(t, "li", h.Holder.Actor)
	assert.Equal(t, Paused, h.State)
	assert.Equal(t, "b", h.Step)
	assert.JSONEq(t, `{"seen":7}`, string(h.StepByID("a").Evidence))
	assert.Equal(t, StepPending, h.StepByID("b").State)
	assert.Equal(t, "go on?", h.StepByID("b").Reason)
	assert.Equal(t, StepHistory{ID: "c", State: StepPending}, h.StepByID("c"))

	out, err = r.Apply(t.Context(), steps, Options{Approve: []string{"2"}})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
	require.NoError(t, r.Close())
	h, err = Read(dir)
	require.NoError(t, err)
	assert.False(t, h.Live)
	assert.Zero(t, h.Holder)
	assert.Equal(t, "wang", h.StepByID("b").ApprovedBy)
	assert.Equal(t, StepSkipped, h.StepByID("c").State)
	assert.Equal(t, "no docker", h.StepByID("c").Reason)
	a := h.StepByID("a")
	assert.Equal(t, "look at a", a.Title)
	assert.Equal(t, "1", a.Section)
	assert.False(t, a.Started.IsZero() || a.Ended.Before(a.Started))
	var kinds []string
	for rec, err := range Records(dir) {
		require.NoError(t, err)
		kinds = append(kinds, rec.Kind)
	}
	assert.Equal(t, len(kinds), h.Count)
	assert.Equal(t, "opened started intent done gate paused started approved intent done skipped succeeded", strings.Join(kinds, " "))
}

func TestReadChangesNothing(t *testing.T) {
	dir, r := create(t)
	_, err := r.Apply(t.Context(), plain("a"), Options{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	tear(t, dir, `{"seq":99,"time":"torn`)
	snapshot := func() map[string]string {
		files := map[string]string{}
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			if !d.IsDir() {
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				info, err := d.Info()
				require.NoError(t, err)
				files[path] = info.ModTime().String() + string(data)
			}
			return nil
		}))
		return files
	}
	before := snapshot()
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, 22, h.Torn)
	assert.Equal(t, before, snapshot())
}

func tear(t *testing.T, dir, tail string) {
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(tail)
	require.NoError(t, errors.Join(err, f.Close()))
}

func TestTorn(t *testing.T) {
	for _, tail := range []string{`{`, `{"seq":4,"time":"2026-11-22T00:00:00Z","kind":"intent"}`, "\x00\x00\x00\x00", "{\"seq\":\x00\x00\x00\x00}\n"} {
		dir, r := create(t)
		out, err := r.Apply(t.Context(), plain("a", "b"), Options{Until: "1"})
		require.NoError(t, err)
		require.Equal(t, Paused, out.State)
		require.NoError(t, r.Close())
		tear(t, dir, tail)
		r, err = Open(dir)
		require.NoError(t, err)
		out, err = r.Apply(t.Context(), plain("a", "b"), Options{})
		require.NoError(t, err)
		require.Equal(t, Succeeded, out.State)
		require.NoError(t, r.Close())
		h, err := Read(dir)
		require.NoError(t, err)
		assert.Zero(t, h.Torn)
		for rec, err := range Records(dir) {
			require.NoError(t, err)
			if rec.Seq == 6 {
				assert.Equal(t, "started", rec.Kind)
				assert.Equal(t, len(tail), rec.Torn, "noted in the next record")
			}
		}
	}
}

// TestTornGroup: a power loss takes some blocks of a write of several records.
// What is left of it is cut, whichever blocks those were; as soon as another
// write stands behind it, the same bytes are damage.
func TestTornGroup(t *testing.T) {
	w := newSimWorld()
	r, err := memRun(w.store.journal, nil)
	require.NoError(t, err)
	r.store = w.store
	out, err := r.Apply(t.Context(), plain("a", "b"), Options{Actor: "op"})
	require.NoError(t, err)
	require.Equal(t, Succeeded, out.State)
	journal := w.store.journal // of three writes
	last := int(lastWrite(journal))
	require.Equal(t, 2, bytes.Count(journal[last:], []byte("\n")))
	start := int(lastWrite(journal[:last]))
	require.Equal(t, 2, bytes.Count(journal[start:last], []byte("\n")))
	for _, c := range []struct {
		name       string
		start, end int
		behind     bool
	}{{"the last write", last, len(journal), false}, {"a write before it", start, last, true}} {
		for from := c.start; from < c.end; from += 13 {
			for _, lost := range []int{1, 64, 512, c.end} {
				data := bytes.Clone(journal)
				clear(data[from:min(from+lost, c.end)])
				p, err := parseJournal(data)
				a, aerr := audit(bytes.NewReader(data), nil, w.store, nil)
				require.NoError(t, aerr)
				if c.behind {
					require.ErrorIs(t, err, ErrDamaged, "%s, %d bytes at %d", c.name, lost, from)
					require.NotEmpty(t, a.Findings)
					continue
				}
				require.NoError(t, err, "%s, %d bytes at %d", c.name, lost, from)
				require.GreaterOrEqual(t, int(p.size), last)
				require.Equal(t, len(data), int(p.size)+p.torn)
				require.Empty(t, a.Findings, "%s, %d bytes at %d", c.name, lost, from)
				require.NotZero(t, a.Torn)

				r, err := memRun(data, nil)
				require.NoError(t, err)
				r.store = &memStore{f: &faults{}, journal: data, blobs: map[string][]byte{}}
				out, err := r.Apply(t.Context(), plain("a", "b"), Options{Actor: "op"})
				require.NoError(t, err)
				require.Equal(t, Succeeded, out.State)
			}
		}
	}
}

func TestLocked(t *testing.T) {
	dir, r := create(t)
	_, err := Open(dir)
	require.ErrorIs(t, err, ErrLocked)
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	assert.Equal(t, os.Getpid(), locked.Holder.PID)
	assert.Equal(t, "wang", locked.Holder.Actor)
	assert.WithinDuration(t, time.Now(), locked.Holder.Since, time.Minute)
	assert.Contains(t, err.Error(), fmt.Sprintf("locked by wang (process %d on ", os.Getpid()))
	_, err = Create(dir, testHeader, nil)
	require.ErrorIs(t, err, ErrLocked)
	_, err = Read(dir)
	require.NoError(t, err, "reading needs no lock")
	require.NoError(t, r.Close())

	// Readers never make an opener fail.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = Read(dir)
			}
		}
	})
	for range 50 {
		r, err := Open(dir)
		if assert.NoError(t, err) {
			require.NoError(t, r.Close())
		}
	}
	close(stop)
	wg.Wait()
}

func TestBusy(t *testing.T) {
	_, r := create(t)
	steps := plain("a")
	steps[0].Do = func(ctx context.Context, _ *Act) (any, error) {
		_, err := r.Apply(ctx, steps, Options{})
		return nil, err
	}
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	require.ErrorIs(t, out.Err, ErrBusy)
}

func TestOtherVersion(t *testing.T) {
	_, r := create(t)
	_, err := r.Apply(t.Context(), plain("a", "b"), Options{})
	require.NoError(t, err)
	_, err = r.Rollback(t.Context(), plain("a", "c"), Options{})
	require.ErrorIs(t, err, ErrVersion)
	assert.ErrorContains(t, err, `"b"`)

	line, err := encodeRecord(Record{Seq: 1, Kind: kindOpened, Body: json.RawMessage(`{"format":"upgradectl-journal/2"}`)})
	require.NoError(t, err)
	_, err = memRun(append(line, '\n'), nil)
	require.ErrorIs(t, err, ErrVersion)
	first, err := openingLine(Header{Run: "r", PlanHash: PlanHash(nil)})
	require.NoError(t, err)
	line, err = encodeRecord(Record{Seq: 2, Kind: "levitated", Step: "a", Prev: hashOf(bytes.TrimSpace(first))})
	require.NoError(t, err)
	_, err = memRun(append(append(first, line...), '\n'), nil)
	require.ErrorIs(t, err, ErrVersion)
}

// lateFile is a journal on a disk that gets nothing before an fsync.
type lateFile struct {
	file
	data []byte
	at   int64
}

func (f *lateFile) WriteAt(p []byte, at int64) (int, error) {
	f.data, f.at = bytes.Clone(p), at
	return len(p), nil
}

func (f *lateFile) Sync() error {
	_, err := f.file.WriteAt(f.data, f.at)
	return err
}

// TestObserver holds the points at which a tool may be killed on purpose: what
// somebody is told is on disk, and stays there without a later fsync.
func TestObserver(t *testing.T) {
	dir, r := create(t)
	d := r.store.(*dirStore)
	d.f = &lateFile{file: d.f}
	onDisk := func() string {
		data, err := os.ReadFile(filepath.Join(dir, journalFile))
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		var rec Record
		require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &rec))
		return rec.Kind
	}
	steps := plain("a")
	steps[0].Section = "3.11"
	steps[0].Do = func(_ context.Context, a *Act) (any, error) {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { a.Progress("%d of 4", i) })
		}
		wg.Wait()
		return nil, nil
	}
	var got []string
	_, err := r.Apply(t.Context(), steps, Options{Observer: func(e Event) {
		got = append(got, e.Kind+" ("+onDisk()+")")
		assert.LessOrEqual(t, e.Seq, len(readJournal(t, dir)), e.Kind)
		if e.Kind == "intent" {
			assert.Equal(t, Event{Seq: 3, Time: e.Time, Kind: "intent", Step: "a", Section: "3.11", Title: "look at a"}, e)
		}
	}})
	require.NoError(t, err)
	assert.Equal(t, []string{"started (intent)", "intent (intent)",
		"progress (intent)", "progress (intent)", "progress (intent)", "progress (intent)",
		"effect (intent)", "done (succeeded)", "succeeded (succeeded)"}, got)
}

// TestFirstPlan: that a run's first process has begun comes to disk with its first
// intent, or before what its Plan tells; a later process, an approval, or a step
// behind another is on disk before a Plan is called.
func TestFirstPlan(t *testing.T) {
	for _, c := range []struct {
		name  string
		tells bool
		o     Options
		want  []string // the journal in the Plan of a, before and after it tells something, and in that of b
	}{
		{"quiet", false, Options{}, []string{"opened", "opened", "done"}},
		{"tells", true, Options{}, []string{"opened", "started", "done"}},
		{"approved", false, Options{ApproveAll: true}, []string{"approved", "approved", "done"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, r := create(t)
			var got, told []string
			onDisk := func() {
				var rec Record
				lines := readJournal(t, dir)
				require.NoError(t, json.Unmarshal(lines[len(lines)-1], &rec))
				got = append(got, rec.Kind)
			}
			state := map[string]bool{}
			steps := []Step{atOnce("a", "1", state), atOnce("b", "2", state)}
			steps[0].Plan = func(_ context.Context, a *Act) (Proposal, error) {
				onDisk()
				if c.tells {
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() { a.Progress("look") })
					}
					wg.Wait()
				}
				onDisk()
				return Proposal{}, nil
			}
			steps[1].Plan = func(context.Context, *Act) (Proposal, error) { onDisk(); return Proposal{}, nil }
			if c.o.ApproveAll {
				steps[0].Gate = "go on?"
			}
			c.o.Until, c.o.Observer = "1", func(e Event) { told = append(told, e.Kind) }
			out, err := r.Apply(t.Context(), steps, c.o)
			require.NoError(t, err)
			require.Equal(t, Paused, out.State)
			assert.Equal(t, "started", told[0])
			c.o.Until = ""
			out, err = r.Apply(t.Context(), steps, c.o)
			require.NoError(t, err)
			require.Equal(t, Succeeded, out.State)
			assert.Equal(t, append(c.want[:2:2], "started"), got)

			// In one go: behind the first step nothing is held.
			dir, r = create(t)
			got, c.o.Observer = nil, nil
			_, err = r.Apply(t.Context(), steps, c.o)
			require.NoError(t, err)
			require.Len(t, got, 3)
			assert.Equal(t, c.want[2], got[2])
		})
	}
}

// TestToldInTime: who is told how a step ended can still pause or cancel the run
// before the next effect, or undo, begins.
func TestToldInTime(t *testing.T) {
	for _, back := range []bool{false, true} {
		for _, cancels := range []bool{false, true} {
			_, r := create(t)
			state := map[string]bool{}
			steps := []Step{atOnce("a", "1", state), atOnce("b", "2", state)}
			ctx, cancel := context.WithCancel(t.Context())
			pause := make(chan string, 4)
			o := Options{Pause: pause, Observer: func(e Event) {
				switch {
				case e.Kind != "done" && e.Kind != "undone":
				case cancels:
					cancel()
				default:
					pause <- "look first"
				}
			}}
			call, left := r.Apply, map[string]bool{"a": true}
			if back {
				_, err := r.Apply(t.Context(), steps, Options{})
				require.NoError(t, err)
				call = r.Rollback
			}
			out, err := call(ctx, steps, o)
			require.NoError(t, err)
			assert.Equal(t, map[bool]RunState{false: Paused, true: Interrupted}[cancels], out.State)
			for id, there := range state {
				assert.Equal(t, left[id], there, id)
			}
			cancel()
		}
	}
}

// TestLateCreate: a rollback waits for what a cloud shows late.
func TestLateCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld()
		made, undone := time.Time{}, false
		steps := []Step{{
			ID: "a", Section: "1", Title: "create", Effect: TokenCreate,
			Do: func(context.Context, *Act) (any, error) { made = time.Now(); return nil, errFault },
			Observe: func(context.Context, *Act) (Sight, error) {
				if time.Since(made) < 3*time.Second {
					return Sight{State: Absent}, nil
				}
				return Sight{State: Ours, Result: "i-1"}, nil
			},
			Undo: func(context.Context, *Act) error { undone = true; return nil },
		}}
		r, err := memRun(w.store.journal, nil)
		require.NoError(t, err)
		r.store = w.store
		out, err := r.Apply(t.Context(), steps, Options{})
		require.NoError(t, err)
		require.Equal(t, Failed, out.State)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		out, err = r.Rollback(ctx, steps, Options{})
		require.NoError(t, err)
		require.Equal(t, Interrupted, out.State)
		require.ErrorIs(t, out.Err, context.DeadlineExceeded)

		out, err = r.Rollback(t.Context(), steps, Options{})
		require.NoError(t, err)
		assert.Equal(t, RolledBack, out.State)
		assert.True(t, undone)
	})
}

func TestAct(t *testing.T) {
	_, r := create(t)
	steps := plain("a", "b", "c")
	steps[0].Plan = func(_ context.Context, a *Act) (Proposal, error) {
		var x any
		assert.Error(t, a.Params(&x))
		assert.Error(t, a.Before(&x))
		assert.Equal(t, Key("r1", "a", 1), a.Key())
		assert.Equal(t, 1, a.Attempt())
		assert.Equal(t, "r1", a.RunID())
		return Proposal{Params: 5, Before: []int{1, 2}}, nil
	}
	steps[1].Plan = func(context.Context, *Act) (Proposal, error) { return Proposal{NotApplicable: "no"}, nil }
	steps[2].Do = func(_ context.Context, a *Act) (any, error) {
		var result string
		var params int
		var before []int
		for what, f := range map[string]func() (bool, error){
			"result of a": func() (bool, error) { return a.Result("a", &result) },
			"params of a": func() (bool, error) { return a.ParamsOf("a", &params) },
			"before of a": func() (bool, error) { return a.BeforeOf("a", &before) },
		} {
			ok, err := f()
			assert.True(t, ok, what)
			assert.NoError(t, err, what)
		}
		assert.Equal(t, "a", result)
		assert.Equal(t, 5, params)
		assert.Equal(t, []int{1, 2}, before)
		for what, f := range map[string]func() (bool, error){
			"skipped":   func() (bool, error) { return a.Result("b", &result) },
			"unknown":   func() (bool, error) { return a.Result("x", &result) },
			"no params": func() (bool, error) { return a.ParamsOf("b", &params) },
			"no before": func() (bool, error) { return a.BeforeOf("c", &before) },
			"own":       func() (bool, error) { return a.Own(&result) },
		} {
			ok, err := f()
			assert.False(t, ok, what)
			assert.NoError(t, err, what)
		}
		_, err := a.Result("a", &params)
		assert.ErrorContains(t, err, "cannot read the result of step a")
		return nil, nil
	}
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State)
}

// TestAdoptKeepsResult: a sight without a result does not erase the one that
// was journalled before the crash.
func TestAdoptKeepsResult(t *testing.T) {
	_, r := create(t)
	fail := true
	steps := []Step{{
		ID: "a", Section: "1", Title: "set", Effect: SetState, NoUndo: "harmless",
		Observe: func(context.Context, *Act) (Sight, error) { return Sight{State: Ours}, nil },
		Do:      func(context.Context, *Act) (any, error) { return "kept", nil },
		Verify: func(_ context.Context, a *Act) (any, error) {
			if fail {
				fail = false
				return nil, errFault
			}
			var own string
			ok, err := a.Own(&own)
			assert.True(t, ok)
			assert.Equal(t, "kept", own)
			return nil, err
		},
	}}
	for _, want := range []RunState{Failed, Succeeded} {
		out, err := r.Apply(t.Context(), steps, Options{})
		require.NoError(t, err)
		require.Equal(t, want, out.State)
	}
}

// TestUnencodable: a result that is no JSON is the step's fault, and the
// effect stays open.
func TestUnencodable(t *testing.T) {
	dir, r := create(t)
	steps := plain("a")
	steps[0].Do = func(context.Context, *Act) (any, error) { return make(chan int), nil }
	out, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Failed, out.State)
	assert.ErrorContains(t, out.Err, "step a: do: cannot encode result: json: unsupported type")
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, StepFailed, h.StepByID("a").State)
}

func TestValidate(t *testing.T) {
	side := func(context.Context, *Act) (any, error) { return nil, nil }
	look := func(context.Context, *Act) (Sight, error) { return Sight{}, nil }
	undo := func(context.Context, *Act) error { return nil }
	ok := Step{ID: "3.1-a", Section: "3.1", Title: "a", Effect: SetState, Observe: look, Do: side, Undo: undo}
	with := func(f func(*Step)) Step { s := ok; f(&s); return s }
	require.NoError(t, Validate([]Step{ok,
		with(func(s *Step) { s.ID, s.Section, s.Undo, s.NoUndo = "b", "3.1.2", nil, "why" }),
		with(func(s *Step) { s.ID, s.Section, s.Undo, s.Effect = "c", "3.11", nil, Irreversible }),
		with(func(s *Step) { *s = Step{ID: "d", Section: "10", Title: "d", Effect: ReadOnly, Verify: side} })}))
	for want, steps := range map[string][]Step{
		"no steps":                        nil,
		"is there twice":                  {ok, ok},
		"has an ID that":                  {with(func(s *Step) { s.ID = "a b" })},
		"has no title":                    {with(func(s *Step) { s.Title = "" })},
		"is not a section number":         {with(func(s *Step) { s.Section = "3.a" })},
		"stands after a later section":    {with(func(s *Step) { s.Section = "3.11" }), with(func(s *Step) { s.ID, s.Section = "b", "3.2" })},
		"has neither Do nor Verify":       {{ID: "d", Section: "1", Title: "d", Effect: ReadOnly}},
		"is read-only and has an Undo":    {with(func(s *Step) { s.Effect = ReadOnly })},
		"is read-only and a pivot":        {with(func(s *Step) { s.Effect, s.Undo, s.Pivot = ReadOnly, nil, true })},
		"has no Do":                       {with(func(s *Step) { s.Do = nil })},
		"has no Observe":                  {with(func(s *Step) { s.Observe = nil })},
		"does not say why":                {with(func(s *Step) { s.Undo = nil })},
		"is irreversible and has an Undo": {with(func(s *Step) { s.Effect = Irreversible })},
		`the unknown effect "magic"`:      {with(func(s *Step) { s.Effect = "magic" })},
	} {
		err := Validate(steps)
		assert.ErrorIs(t, err, ErrInvalid, want)
		assert.ErrorContains(t, err, want)
	}
}

func TestUntil(t *testing.T) {
	for _, row := range []struct {
		section, until string
		want           bool
	}{
		{"3.2", "3.11", true}, {"3.11", "3.2", false}, {"3.11", "3.11", true}, {"3.11.1", "3.11", true},
		{"3.11", "3", true}, {"4.1", "3", false}, {"3", "3.1", true}, {"2.9", "3.1", true}, {"10.1", "9.9", false},
	} {
		s, err := parseSection(row.section)
		require.NoError(t, err)
		u, err := parseSection(row.until)
		require.NoError(t, err)
		assert.Equal(t, row.want, within(s, u), "%s until %s", row.section, row.until)
	}
	_, r := create(t)
	_, err := r.Apply(t.Context(), plain("a"), Options{Until: "x"})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestKey(t *testing.T) {
	// Pinned: it is a ClientToken in clouds that remember it.
	assert.Regexp(t, regexp.MustCompile(`^u[a-z2-7]{40}$`), Key("r1", "3.1-snapshot", 1))
	assert.Equal(t, "u33un2chbtjfrt7ecudhcrbhwcc7qrr2atzbq2amk", Key("r1", "3.1-snapshot", 1))
	assert.NotEqual(t, Key("r1", "3.1-snapshot", 1), Key("r1", "3.1-snapshot", 2))
	assert.NotEqual(t, Key("r1", "3.1-snapshot", 1), Key("r2", "3.1-snapshot", 1))
}

func TestDefinitive(t *testing.T) {
	require.NoError(t, Definitive(nil))
	err := fmt.Errorf("cannot buy: %w", Definitive(errFault))
	assert.True(t, IsDefinitive(err))
	assert.False(t, IsDefinitive(errFault))
	require.ErrorIs(t, err, errFault)
	assert.Equal(t, "cannot buy: injected fault", err.Error())
}

// sample is a journal with every kind of line, from a run with a gate, a
// conflict, blobs and a rollback.
func sample(tb testing.TB) []byte {
	w := newSimWorld()
	steps := w.steps(true, false)
	steps[4].Do = func(context.Context, *Act) (any, error) {
		return nil, &ConflictError{Object: "weights", Before: "1", Ours: "2", Now: "3"}
	}
	for _, back := range []bool{false, true} {
		r, err := memRun(w.store.journal, nil)
		require.NoError(tb, err)
		r.store, r.absentPause = w.store, 0
		if back {
			_, err = r.Rollback(tb.Context(), steps, Options{Actor: "op"})
		} else {
			_, err = r.Apply(tb.Context(), steps, Options{Actor: "op", ApproveAll: true})
		}
		require.NoError(tb, err)
	}
	return w.store.journal
}

// lastWrite is where the write with the last record of a journal begins.
func lastWrite(journal []byte) int64 {
	p, f := newParser(bytes.NewReader(journal)), newParser(bytes.NewReader(journal))
	with := 0
	for rec, err := p.next(); err == nil; rec, err = p.next() {
		with = rec.With
	}
	for f.n < p.n-1-with {
		_, _ = f.next()
	}
	return f.size
}

// noticed says whether a changed journal is refused, or only its last write is
// cut as torn.
func noticed(original, changed []byte) error {
	p, err := parseJournal(changed)
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("not an ErrDamaged: %w", err)
		}
		return nil
	}
	if p.torn > 0 && p.size >= lastWrite(original) {
		return nil
	}
	return fmt.Errorf("%d records of %d bytes were believed", len(p.records), p.size)
}

// TestTamper changes, removes and doubles every single byte and every line.
func TestTamper(t *testing.T) {
	journal := sample(t)
	p, err := parseJournal(journal)
	require.NoError(t, err)
	require.Zero(t, p.torn)
	stride := 1
	if raceEnabled || !testenv.RunSlow() {
		stride = 7 // make test has every byte in its plain run
	}
	for i := 0; i < len(journal); i += stride {
		for _, b := range []byte{journal[i] ^ 1, '\n'} {
			if b == journal[i] {
				continue
			}
			changed := bytes.Clone(journal)
			changed[i] = b
			require.NoError(t, noticed(journal, changed), "byte %d %q → %q", i, journal[i], b)
		}
		require.NoError(t, noticed(journal, append(bytes.Clone(journal[:i]), journal[i+1:]...)), "byte %d removed", i)
		require.NoError(t, noticed(journal, append(bytes.Clone(journal[:i+1]), journal[i:]...)), "byte %d doubled", i)
	}
	lines := bytes.SplitAfter(journal, []byte("\n"))
	lines = lines[:len(lines)-1]
	for i := range lines[:len(lines)-1] { // without its end a journal is an older one: see Limits
		var without, twice, swapped [][]byte
		without = append(append(without, lines[:i]...), lines[i+1:]...)
		twice = append(append(twice, lines[:i+1]...), lines[i:]...)
		swapped = append(append(append(swapped, lines[:i]...), lines[i+1], lines[i]), lines[i+2:]...)
		for _, l := range [][][]byte{without, twice, swapped} {
			require.NoError(t, noticed(journal, bytes.Join(l, nil)), "line %d", i+1)
		}
	}
}

// FuzzJournal: no input makes the reader panic; what it accepts it would have
// written; and an edit anywhere in a good journal is noticed.
func FuzzJournal(f *testing.F) {
	good := sample(f)
	w := newSimWorld() // a short one as seed: the fuzzer minimises what it finds
	r, err := memRun(w.store.journal, nil)
	require.NoError(f, err)
	r.store = w.store
	_, err = r.Apply(f.Context(), plain("a"), Options{Actor: "op"})
	require.NoError(f, err)
	f.Add(w.store.journal, 0, []byte{})
	f.Add(w.store.journal[:len(w.store.journal)-7], 100, []byte("x"))
	f.Add([]byte(`{"params":1,"blobs":{"before":"x"},"definitive":true,"effect":"irreversible","pivot":true}`), 1, []byte{3})
	f.Add([]byte("{}\n"), 5, []byte("\n"))
	f.Add([]byte(`{"seq":1,"kind":"opened","sum":"0123456789abcdef"}`+"\n"), len(good)-1, []byte("}"))
	f.Fuzz(func(t *testing.T, data []byte, at int, patch []byte) {
		if r, err := memRun(data, nil); err == nil {
			if r.size+int64(r.torn) != int64(len(data)) {
				t.Fatalf("%d + %d bytes of %d", r.size, r.torn, len(data))
			}
		}
		_, _ = memHistory(data, nil, &memStore{f: &faults{}})

		// A patch in the good journal.
		if at < 0 || at >= len(good) || len(patch) == 0 || at+len(patch) > len(good) || bytes.Equal(good[at:at+len(patch)], patch) {
			return
		}
		changed := bytes.Clone(good)
		copy(changed[at:], patch)
		if err := noticed(good, changed); err != nil {
			t.Fatal(err)
		}

		// The same input as the body of records that are sealed properly.
		first, err := openingLine(Header{Run: "r", PlanHash: PlanHash(nil)})
		if err != nil {
			t.Fatal(err)
		}
		rec := Record{Seq: 2, Prev: hashOf(bytes.TrimSpace(first)), Kind: kindIntent, Step: "a"}
		if json.Valid(data) {
			rec.Body = data
		}
		if len(patch) > 0 {
			kinds := []string{kindStarted, kindGate, kindApproved, kindIntent, kindEffect, kindAdopted, kindDone, kindSkipped, kindFailed, kindUndoIntent, kindUndone, kindUndoFailed, kindPaused, kindParked, kindOpened}
			rec.Kind = kinds[int(patch[0])%len(kinds)]
		}
		if line, err := encodeRecord(rec); err == nil {
			_, _ = memHistory(append(append(first, line...), '\n'), nil, &memStore{f: &faults{}})
		}
	})
}

// BenchmarkAppend compares a record with the bare write and fsync of as many
// bytes, which it cannot do without. The two take turns, so that both see the
// same disk.
func BenchmarkAppend(b *testing.B) {
	payload := map[string]string{"instance": "i-web90", "what": strings.Repeat("x", 250)}
	r, err := Create(filepath.Join(b.TempDir(), "run"), testHeader, nil)
	require.NoError(b, err)
	defer r.Close()
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	require.NoError(b, err)
	defer f.Close()
	var record, bare time.Duration
	n := 0
	for b.Loop() {
		start, size := time.Now(), r.size
		var body body
		if err := r.put(&body, &body.Params, "params", payload); err != nil {
			b.Fatal(err)
		}
		if err := r.append(Record{Kind: kindIntent, Step: "a", Attempt: 1, Key: "k"}, body); err != nil {
			b.Fatal(err)
		}
		record += time.Since(start)

		line := bytes.Repeat([]byte("x"), int(r.size-size))
		start = time.Now()
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		bare += time.Since(start)
		n++
	}
	b.ReportMetric(float64(record.Microseconds())/float64(n), "µs/record")
	b.ReportMetric(float64(bare.Microseconds())/float64(n), "µs/bare")
	b.ReportMetric(float64(record)/float64(bare), "record/bare")
}

// BenchmarkOpen reads a journal of 2,000 records.
func BenchmarkOpen(b *testing.B) {
	w := newSimWorld()
	r, err := memRun(w.store.journal, nil)
	require.NoError(b, err)
	r.store = w.store
	for r.fold.seq < 2000 {
		require.NoError(b, r.append(Record{Kind: kindIntent, Step: "a", Attempt: r.fold.seq, Key: "k"}, body{Params: json.RawMessage(`"` + strings.Repeat("x", 300) + `"`)}))
	}
	b.SetBytes(int64(len(w.store.journal)))
	for b.Loop() {
		if _, err := memRun(w.store.journal, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// TestShortened: somebody cuts the journal under a running process.
func TestShortened(t *testing.T) {
	dir, r := create(t)
	require.NoError(t, os.Truncate(filepath.Join(dir, journalFile), 10))
	_, err := r.Apply(t.Context(), plain("a"), Options{})
	require.ErrorIs(t, err, ErrUnwritable)
	require.NoError(t, r.Close())
	_, err = Open(dir)
	require.ErrorIs(t, err, ErrDamaged)
	var d *DamagedError
	require.ErrorAs(t, err, &d)
	assert.Equal(t, 1, d.Record)
	h, err := Read(dir)
	require.ErrorIs(t, err, ErrDamaged)
	require.NotNil(t, h)
}

// TestCreateAfterCrash: a Create that died before the journal was there is
// simply done again.
func TestCreateAfterCrash(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, atomicfile.Write(filepath.Join(dir, planFile), []byte("old"), 0))
	r, err := Create(dir, testHeader, []byte("new"))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, "new", string(h.Plan))
	assert.Equal(t, Paused, h.State)
	assert.Equal(t, "created and not started yet", h.Reason)
}
