package textedit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDiff(t *testing.T) {
	for _, row := range []struct {
		name, before string
		edit         func(*Buffer)
		want         string
	}{
		{"nothing", "a\n", func(*Buffer) {}, ""},
		{"the same bytes again", "a\n", func(b *Buffer) { b.Replace(0, 1, "a") }, ""},
		{"insert a line", "a\nb\n", func(b *Buffer) { b.Insert(2, "x\n") }, "--- f\n+++ f\n@@ -1,2 +1,3 @@\n a\n+x\n b\n"},
		{"into an empty text", "", func(b *Buffer) { b.Insert(0, "x\n") }, "--- f\n+++ f\n@@ -0,0 +1 @@\n+x\n"},
		{"everything away", "x\n", func(b *Buffer) { b.Delete(0, 2) }, "--- f\n+++ f\n@@ -1 +0,0 @@\n-x\n"},
		{"no line end", "a", func(b *Buffer) { b.Insert(1, "\nb") },
			"--- f\n+++ f\n@@ -1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n\\ No newline at end of file\n"},
		{"two far apart", strings.Repeat("l\n", 20), func(b *Buffer) { b.Replace(0, 1, "x"); b.Replace(38, 39, "y") },
			"--- f\n+++ f\n@@ -1,4 +1,4 @@\n-l\n+x\n l\n l\n l\n@@ -17,4 +17,4 @@\n l\n l\n l\n-l\n+y\n"},
	} {
		b := New([]byte(row.before))
		row.edit(b)
		edits, err := b.Edits()
		require.NoError(t, err)
		got, err := Diff("f", []byte(row.before), edits)
		require.NoError(t, err)
		assert.Equal(t, row.want, got, row.name)
	}
	_, err := Diff("f", []byte("abc"), []Edit{{Offset: 1, Old: []byte("x")}})
	assert.Error(t, err)
}

// patch applies a unified diff to old the way patch does, and is strict: every
// line it names must be where it says.
func patch(t *testing.T, old, diff string) string {
	t.Helper()
	in := Lines([]byte(old))
	var out []string
	at := 0
	lines := Lines([]byte(diff))
	for i := 2; i < len(lines); {
		var a, an, b, bn int
		ranges := strings.NewReplacer("-", "", "+", "", "@", "").Replace(lines[i])
		for k, f := range strings.Fields(ranges) {
			n, count := 0, 1
			if _, err := fmt.Sscanf(f, "%d,%d", &n, &count); err != nil {
				_, err = fmt.Sscanf(f, "%d", &n)
				require.NoError(t, err)
			}
			if count > 0 {
				n--
			}
			if k == 0 {
				a, an = n, count
			} else {
				b, bn = n, count
			}
		}
		require.GreaterOrEqual(t, a, at, "hunks stand in order")
		out = append(out, in[at:a]...)
		at = a
		require.Len(t, out, b)
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "@@ "); i++ {
			text := lines[i][1:]
			if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\\ ") {
				text = strings.TrimSuffix(text, "\n")
			}
			switch lines[i][0] {
			case '\\':
				continue
			case '+':
				out = append(out, text)
				continue
			case ' ':
				out = append(out, text)
			}
			require.Equal(t, in[at], text)
			at++
		}
		require.Equal(t, a+an, at)
		require.Len(t, out, b+bn)
	}
	return strings.Join(append(out, in[at:]...), "")
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12"), []byte{1, 1, 0, 9, 0, 3, 2, 2, 2})
	f.Add([]byte("a\r\n\r\nb\nno end"), []byte{0, 0, 7, 3, 9, 0, 1, 0, 5})
	f.Fuzz(func(t *testing.T, src, plan []byte) {
		b := New(src)
		at := 0
		for i := 0; i+2 < len(plan) && at <= len(src); i += 3 {
			start := at + int(plan[i])%(len(src)-at+1)
			end := start + int(plan[i+1])%(len(src)-start+1)
			b.Replace(start, end, []string{"", "x", "\n", "x\n", "\nx", "y\nz\n", "\r\n", "\n\n"}[plan[i+2]%8])
			at = end
		}
		edits, err := b.Edits()
		require.NoError(t, err)
		want, err := Apply(src, edits)
		require.NoError(t, err)
		diff, err := Diff("f", src, edits)
		require.NoError(t, err)
		if diff == "" {
			require.Equal(t, string(src), string(want))
			return
		}
		require.Equal(t, string(want), patch(t, string(src), diff), diff)
	})
}
