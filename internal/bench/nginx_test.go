package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	crossplane "github.com/nginxinc/nginx-go-crossplane"

	"github.com/upgradectl/upgradectl/nginx"
)

// generated is a configuration of n upstreams with four servers each and n
// locations: about 6 MB for 10,000. It is the file of nginx/bench_test.go;
// TestSameFile here and there hold them together.
func generated(n int) []byte {
	var b bytes.Buffer
	b.WriteString("events { worker_connections 1024; }\nhttp {\n")
	for i := range n {
		fmt.Fprintf(&b, "    # upstream number %d, kept by the platform team\n    upstream backend_%05d {\n        least_conn;\n", i, i)
		for s := range 4 {
			fmt.Fprintf(&b, "        server 10.%d.%d.%d:8080 weight=%d max_fails=3 fail_timeout=10s;\n", i/250, i%250, s+1, s+1)
		}
		b.WriteString("        keepalive 16;\n    }\n")
	}
	b.WriteString("    server {\n        listen 80;\n")
	for i := range n {
		fmt.Fprintf(&b, "        location /service/%05d/ {\n            proxy_pass http://backend_%05d;\n            proxy_set_header Host $host;\n            proxy_set_header X-Real-IP \"$remote_addr\";\n        }\n", i, i)
	}
	b.WriteString("    }\n}\n")
	return b.Bytes()
}

func TestSameFile(t *testing.T) {
	sum := sha256.Sum256(generated(100))
	if got := hex.EncodeToString(sum[:8]); got != "64980223cbb3f9a0" {
		t.Errorf("the generated file has changed (%s): change it in nginx/bench_test.go too", got)
	}
}

// peer reads src with crossplane. checks says whether it looks at the contexts
// and the arguments of directives, which ours leaves to nginx -t.
func peer(src []byte, checks bool) (*crossplane.Payload, error) {
	return crossplane.Parse("nginx.conf", &crossplane.ParseOptions{
		SingleFile:                true,
		ParseComments:             true,
		StopParsingOnError:        true,
		SkipDirectiveContextCheck: !checks,
		SkipDirectiveArgsCheck:    !checks,
		Open:                      func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(src)), nil },
	})
}

// flat lists the words of every directive that crossplane read.
func flat(ds crossplane.Directives) (out [][]string) {
	for _, d := range ds {
		if d.Comment == nil {
			out = append(out, append([]string{d.Directive}, d.Args...))
		}
		out = append(out, flat(d.Block)...)
	}
	return out
}

// TestSameWords holds that both read the same from the file they are timed on.
func TestSameWords(t *testing.T) {
	src := generated(200)
	payload, err := peer(src, false)
	if err != nil {
		t.Fatal(err)
	}
	want := flat(payload.Config[0].Parsed)
	f, err := nginx.Parse("nginx.conf", src)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for d := range f.All() {
		words := append([]string{d.Name()}, d.Args()...)
		if i >= len(want) || !slices.Equal(words, want[i]) {
			t.Fatalf("directive %d: we read %q", i, words)
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("we read %d directives, crossplane %d", i, len(want))
	}
}

// BenchmarkParse runs both over the same 6 MB, one after the other in each
// round, and reports their speed in processor time side by side. Crossplane runs
// with and without its checks; the faster of the two is what we are held against.
func BenchmarkParse(b *testing.B) {
	src := generated(10_000)
	timed := func(parse func() (any, error)) time.Duration {
		runtime.GC() // not at the cost of the next one
		start := cpuTime()
		kept, err := parse()
		used := cpuTime() - start
		if err != nil {
			b.Fatal(err)
		}
		runtime.KeepAlive(kept)
		return used
	}
	var ours, checked, unchecked time.Duration
	for b.Loop() {
		ours += timed(func() (any, error) { return nginx.Parse("nginx.conf", src) })
		checked += timed(func() (any, error) { return peer(src, true) })
		unchecked += timed(func() (any, error) { return peer(src, false) })
	}
	theirs := min(checked, unchecked)
	mb := float64(len(src)) / 1e6 * float64(b.N)
	b.ReportMetric(mb/ours.Seconds(), "ours-MB/s")
	b.ReportMetric(mb/theirs.Seconds(), "crossplane-MB/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-crossplane")
	b.ReportMetric(0, "ns/op") // of all together: says nothing
}

// BenchmarkHeap reports what both keep of the file, as multiples of its size,
// and what they allocate for it.
func BenchmarkHeap(b *testing.B) {
	src := generated(10_000)
	measure := func(name string, parse func() any) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := parse()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(src)), name+"-heap/input")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs), name+"-allocs")
	}
	for b.Loop() {
		measure("ours", func() any {
			// With a copy of the input of its own, which a File keeps.
			f, err := nginx.Parse("nginx.conf", bytes.Clone(src))
			if err != nil {
				b.Fatal(err)
			}
			return f
		})
		measure("crossplane", func() any {
			p, err := peer(src, false)
			if err != nil {
				b.Fatal(err)
			}
			return p
		})
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEdit reports how long it takes to take one server out of the file on
// a disk: load, find, edit, check and write.
func BenchmarkEdit(b *testing.B) {
	src := generated(10_000)
	dir := b.TempDir()
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, src, 0o600); err != nil {
		b.Fatal(err)
	}
	var cpu time.Duration
	for b.Loop() {
		start := cpuTime()
		tree, err := nginx.Load(b.Context(), nginx.DirFS(""), filepath.ToSlash(name))
		if err != nil {
			b.Fatal(err)
		}
		if refs := tree.Refs(nginx.Query{Host: "10.7.7.2", Port: 8080}); len(refs) != 1 {
			b.Fatalf("%d references", len(refs))
		}
		change, err := tree.Disable(nginx.Query{Host: "10.7.7.2", Port: 8080}, "bench")
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range change.Files() {
			if err := os.WriteFile(name+".new", f.After, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		cpu += cpuTime() - start
	}
	b.ReportMetric(cpu.Seconds()*1000/float64(b.N), "cpu-ms/op")
}
