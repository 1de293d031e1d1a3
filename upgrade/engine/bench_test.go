package engine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// timedFile adds up how long its writes and fsyncs take.
type timedFile struct {
	file
	took         time.Duration
	syncs, bytes int
	records      int
}

func (f *timedFile) WriteAt(p []byte, at int64) (int, error) {
	defer func(began time.Time) { f.took += time.Since(began) }(time.Now())
	f.bytes, f.records = f.bytes+len(p), f.records+bytes.Count(p, []byte("\n"))
	return f.file.WriteAt(p, at)
}

func (f *timedFile) Sync() error {
	defer func(began time.Time) { f.took += time.Since(began) }(time.Now())
	f.syncs++
	return f.file.Sync()
}

// BenchmarkSteps runs 1,000 steps that do nothing: looks, and effects with all
// five sides. It counts every fsync of the journal from the run's first record
// to its last, and says what the run took beyond those writes and fsyncs.
// (Create has eight more, once: of the plan, the ballast, the first line and
// their directories.)
func BenchmarkSteps(b *testing.B) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("s", i))
	}
	b.Run("looks", func(b *testing.B) { benchmarkSteps(b, plain(ids...)) })
	b.Run("effects", func(b *testing.B) { benchmarkSteps(b, effects(ids...)) })
}

// effects are steps with all five sides.
func effects(ids ...string) []Step {
	steps := plain(ids...)
	for i := range steps {
		s := &steps[i]
		*s = atOnce(s.ID, s.Section, map[string]bool{})
		s.Plan = func(context.Context, *Act) (Proposal, error) { return Proposal{}, nil }
		s.Verify = func(context.Context, *Act) (any, error) { return nil, nil }
	}
	return steps
}

// TestSyncs: a run costs at most two fsyncs a step in whole, its beginning and its
// end included, and one that only looks one a step and one for its beginning or
// its end.
func TestSyncs(t *testing.T) {
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprint("s", i))
	}
	for _, c := range []struct {
		name  string
		steps []Step
		syncs int
	}{{"effects", effects(ids...), 40}, {"one effect", effects("s0"), 2}, {"looks", plain(ids...), 21}} {
		for _, observed := range []bool{false, true} {
			_, r := create(t)
			d := r.store.(*dirStore)
			f := &timedFile{file: d.f}
			d.f = f
			var o Options
			if observed {
				o.Observer = func(Event) {}
			}
			out, err := r.Apply(t.Context(), c.steps, o)
			require.NoError(t, err)
			require.Equal(t, Succeeded, out.State)
			require.Equal(t, c.syncs, f.syncs, "%s, observed: %t", c.name, observed)
			require.NoError(t, r.Close())
		}
	}
}

func benchmarkSteps(b *testing.B, steps []Step) {
	for b.Loop() {
		r, err := Create(filepath.Join(b.TempDir(), "run"), testHeader, nil)
		require.NoError(b, err)
		d := r.store.(*dirStore)
		f := &timedFile{file: d.f}
		d.f = f
		began := time.Now()
		out, err := r.Apply(b.Context(), steps, Options{})
		took := time.Since(began)
		require.NoError(b, err)
		require.Equal(b, Succeeded, out.State)
		require.NoError(b, r.Close())
		b.ReportMetric(float64(f.syncs)/float64(len(steps)), "fsyncs/step")
		b.ReportMetric(f.took.Seconds(), "s/fsyncs")
		b.ReportMetric((took - f.took).Seconds(), "s/beyond")
		b.ReportMetric(float64(f.bytes)/float64(f.records)*1000/1e6, "MB/1000records")
	}
}

// BenchmarkReplay opens a journal of 100,000 records on disk: of a procedure
// whose steps were tried again and again, and of one with 50,000 steps, all of
// whose values are then in memory.
func BenchmarkReplay(b *testing.B) {
	b.Run("100 steps", func(b *testing.B) { replay(b, 100) })
	b.Run("50000 steps", func(b *testing.B) { replay(b, 50_000) })
}

func replay(b *testing.B, steps int) {
	dir := filepath.Join(b.TempDir(), "run")
	r, err := Create(dir, testHeader, nil)
	require.NoError(b, err)
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(b, err)
	w := bufio.NewWriter(f)
	head, size := r.last, r.size
	require.NoError(b, r.Close())
	params := []byte(`{"instance":"i-web90","what":"` + strings.Repeat("x", 200) + `"}`)
	const n = 100_000
	for i := 2; i <= n; i++ {
		id := fmt.Sprint("s", i/2%steps)
		rec := Record{Seq: i, Time: time.Now(), Kind: kindIntent, Step: id, Attempt: i / 2 / steps, Key: Key("r1", id, 1), Prev: head}
		body := body{Section: "1", Title: "step " + id, Effect: SetState, Params: params, Before: params}
		if i%2 == 1 {
			rec.Kind, body.Params, body.Before, body.Result = kindDone, nil, nil, params
		}
		rec.Body, err = marshal(body)
		require.NoError(b, err)
		line, err := encodeRecord(rec)
		require.NoError(b, err)
		head, size = hashOf(line), size+int64(len(line))+1
		_, err = w.Write(append(line, '\n'))
		require.NoError(b, err)
	}
	require.NoError(b, w.Flush())
	require.NoError(b, f.Close())
	for b.Loop() {
		debug.FreeOSMemory()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		r, err := Open(dir)
		took := time.Since(began)
		require.NoError(b, err)
		require.Equal(b, n, r.fold.seq)
		runtime.ReadMemStats(&after)
		b.ReportMetric(took.Seconds(), "s/replay")
		b.ReportMetric(float64(after.HeapSys-after.HeapReleased)/1e6-float64(before.HeapSys-before.HeapReleased)/1e6, "MB-heap")
		b.ReportMetric(float64(size)/1e6, "MB-journal")
		require.NoError(b, r.Close())
	}
}
