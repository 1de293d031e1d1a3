package nginx_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// generated is a configuration of n upstreams with four servers each and n
// locations: about 6 MB for 10,000.
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

// TestAllocations holds how much a parsed file costs.
func TestAllocations(t *testing.T) {
	src := generated(1000)
	got := testing.AllocsPerRun(3, func() { _, _ = nginx.Parse("f", src) })
	assert.Less(t, got, 50.0)
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

func BenchmarkDisable(b *testing.B) {
	files := nginx.MapFS{"nginx.conf": generated(10_000)}
	b.SetBytes(int64(len(files["nginx.conf"])))
	for b.Loop() {
		tree, err := nginx.Load(b.Context(), files, "nginx.conf")
		require.NoError(b, err)
		c, err := tree.Disable(nginx.Query{Host: "10.7.7.2"}, "bench")
		require.NoError(b, err)
		require.Len(b, c.Edits(), 1)
	}
}
