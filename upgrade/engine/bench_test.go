package engine

import (
	"bufio"
	"bytes"
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

// timedFile adds up how long its writes and fsyncs take, and counts apart the
// fsyncs for records of steps and for those of the run itself.
type timedFile struct {
	file
	took  time.Duration
	syncs int
	own   int // of syncs, for records that name no step
	bytes int
	last  []byte // line that was written
}

func (f *timedFile) WriteAt(p []byte, at int64) (int, error) {
	defer func(began time.Time) { f.took += time.Since(began) }(time.Now())
	f.bytes, f.last = f.bytes+len(p), p
	return f.file.WriteAt(p, at)
}

func (f *timedFile) Sync() error {
	defer func(began time.Time) { f.took += time.Since(began) }(time.Now())
	f.syncs++
	if !bytes.Contains(f.last, []byte(`,"step":"`)) {
		f.own++
	}
	return f.file.Sync()
}

// BenchmarkSteps runs 1,000 steps that do nothing, and says what the run took
// beyond the writes and fsyncs of its own journal.
func BenchmarkSteps(b *testing.B) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("s", i))
	}
	steps := plain(ids...)
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
		b.ReportMetric(float64(f.syncs-f.own)/float64(len(steps)), "fsyncs/step")
		b.ReportMetric(float64(f.own), "fsyncs/run")
		b.ReportMetric(f.took.Seconds(), "s/fsyncs")
		b.ReportMetric((took - f.took).Seconds(), "s/beyond")
		b.ReportMetric(float64(f.bytes)/float64(f.syncs)*1000/1e6, "MB/1000records")
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
	head, size := r.head, r.size
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
