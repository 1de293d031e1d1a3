package nginx_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// generated is a configuration of n upstreams with four servers each and n
// locations: about 6 MB for 10,000. internal/bench, a module that cannot see this
// one's tests, holds it against the peer's parser with the same text.
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
	assert.Equal(t, "64980223cbb3f9a0", hex.EncodeToString(sum[:8]), "change the file in internal/bench too")
}

// TestFootprint holds what a parsed file of 6 MB costs: how many allocations,
// and how many bytes stay on the heap for each byte of input, the input counted.
func TestFootprint(t *testing.T) {
	src := generated(10_000)
	var f *nginx.File
	allocs := testing.AllocsPerRun(1, func() { f, _ = nginx.Parse("f", src) })
	assert.Less(t, allocs, 100.0)
	f = nil
	heap := func() float64 {
		runtime.GC()
		runtime.GC() // what the first one only marked
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	f, err := nginx.Parse("f", bytes.Clone(src))
	require.NoError(t, err)
	factor := (heap() - before) / float64(len(src))
	runtime.KeepAlive(f)
	runtime.KeepAlive(src) // counted before and after
	assert.Less(t, factor, 3.0)
	assert.Greater(t, factor, 1.0, "the input is part of it")
	t.Logf("%d bytes, %.0f allocations, %.2f times the input kept", len(src), allocs, factor)
}

func BenchmarkParse(b *testing.B) {
	src := generated(10_000)
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(src)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := nginx.Parse("f", src); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("byteloop", func(b *testing.B) {
		b.SetBytes(int64(len(src)))
		n := 0
		for b.Loop() {
			for _, c := range src {
				if c == '{' || c == ';' || c == '\n' {
					n++
				}
			}
		}
		_ = n
	})
	b.Run("memcpy", func(b *testing.B) {
		b.SetBytes(int64(len(src)))
		dst := make([]byte, len(src))
		for b.Loop() {
			copy(dst, src)
		}
	})
}

// BenchmarkEdit takes one server out of the file: load, find, edit, check.
func BenchmarkEdit(b *testing.B) {
	files := nginx.MapFS{"nginx.conf": generated(10_000)}
	q := nginx.Query{Host: "10.7.7.2", Port: 8080}
	run := func(b *testing.B, edit func(t *nginx.Tree)) {
		b.SetBytes(int64(len(files["nginx.conf"])))
		b.ReportAllocs()
		for b.Loop() {
			tree, err := nginx.Load(b.Context(), files, "nginx.conf")
			require.NoError(b, err)
			edit(tree)
		}
	}
	b.Run("load", func(b *testing.B) { run(b, func(*nginx.Tree) {}) })
	b.Run("load+find", func(b *testing.B) {
		run(b, func(t *nginx.Tree) { require.Len(b, t.Refs(q), 1) })
	})
	b.Run("load+edit", func(b *testing.B) {
		run(b, func(t *nginx.Tree) {
			c, err := t.Disable(q, "bench")
			require.NoError(b, err)
			require.Len(b, c.Edits(), 1)
		})
	}) // A host that is in one of the 10,000 upstreams, and one that is in all.
	shift := func(b *testing.B, edits int) {
		run(b, func(t *nginx.Tree) {
			c, err := t.Shift(nginx.Query{Host: "10.7.7.2"}, "10.99.99.99", "bench")
			require.NoError(b, err)
			require.Len(b, c.Edits(), edits)
			require.NotEmpty(b, c.Diff())
		})
	}
	b.Run("load+shift", func(b *testing.B) { shift(b, 2) })
	files["nginx.conf"] = regexp.MustCompile(`10\.\d+\.\d+\.2:`).ReplaceAll(files["nginx.conf"], []byte("10.7.7.2:"))
	b.Run("load+shift of all", func(b *testing.B) { shift(b, 20_000) })
}
