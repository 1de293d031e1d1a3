package pitrix_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

var editValues = []string{
	"v", "", "two words", "it's", `say "x"`, `both ' and "`, `back\slash`, `end\`, `5$`, `$x ' "`, `a\$b'`,
	"tab\t", " lead", "# no comment", "节点", "~", "*", "!", "a=b", "ip route add 10.80.0.0/16 src 192.0.2.61 via 192.0.2.254",
}

func parse(t testing.TB, src string) *pitrix.Settings {
	t.Helper()
	s, err := pitrix.Parse("proxy0", []byte(src))
	require.NoError(t, err)
	return s
}

func TestSet(t *testing.T) {
	for _, tt := range []struct{ src, value, want string }{
		{"# x\n a=\"v\" # note\n\nb='w'", "x", "# x\n a=\"x\" # note\n\nb='w'"},
		{"a='v'\t\n", "x", "a='x'\t\n"},
		{"a='v'\n", "it's", "a=\"it's\"\n"},
		{"a=v # n\n", "x", "a=\"x\" # n\n"},
		{"a=\n", "x", "a=\"x\"\n"},
		{"a= # n\n", "x", "a=\"x\" # n\n"},
		{"a=\"v\"\n", "", "a=\"\"\n"},
		{"a=\"v\"\n", `"q"`, "a='\"q\"'\n"},
		{"a=\"v\"\n", `$ ' "\`, `a="\$ ' \"\\"` + "\n"},
		// The value that is there keeps its spelling.
		{"a=v\n", "v", "a=v\n"},
		{"a=\"\\\"\"\n", `"`, "a=\"\\\"\"\n"},
	} {
		s := parse(t, tt.src)
		require.NoError(t, s.Set("a", tt.value))
		assert.Equal(t, tt.want, string(s.Bytes()), "%q", tt.src)
		value, _ := s.Get("a")
		assert.Equal(t, tt.value, value)
	}
}

func TestSetRefused(t *testing.T) {
	const src = "a=\"v\"\n"
	s := parse(t, src)
	assert.ErrorIs(t, s.Set("b", "x"), pitrix.ErrNoKey)
	for _, value := range []string{"a\nb", "a\r", "\x00", "\x1b[31m", "\xff", "{{ x }}", "x }}", "$(x)", "`x`"} {
		assert.ErrorIs(t, s.Set("a", value), pitrix.ErrBadValue, "%q", value)
		assert.ErrorIs(t, s.Insert("a", "b", value), pitrix.ErrBadValue, "%q", value)
	}
	assert.ErrorContains(t, s.Set("a", strings.Repeat("x", 1<<20)), "would be refused")
	assert.Equal(t, src, string(s.Bytes()))
	assert.Equal(t, []string{"a"}, s.Keys())
	assert.Empty(t, s.Diff())
}

func TestInsert(t *testing.T) {
	s := parse(t, "## A\n  a=\"1\" # one\n\nb=\"2\"")
	require.NoError(t, s.Insert("a", "c", "x"))
	require.NoError(t, s.Insert("b", "d", "y"))
	require.NoError(t, s.Insert("c", "e", "z"))
	assert.Equal(t, "## A\n  a=\"1\" # one\n  c=\"x\"\n  e=\"z\"\n\nb=\"2\"\nd=\"y\"", string(s.Bytes()))
	assert.Equal(t, []string{"a", "c", "e", "b", "d"}, s.Keys())

	before := string(s.Bytes())
	assert.ErrorIs(t, s.Insert("x", "f", ""), pitrix.ErrNoKey)
	assert.ErrorIs(t, s.Insert("a", "b", ""), pitrix.ErrKeyExists)
	for _, key := range []string{"", "1a", "a b", "a-b", "PATH", "_", "é", "a\nb"} {
		assert.ErrorIs(t, s.Insert("a", key, ""), pitrix.ErrBadKey, "%q", key)
	}
	assert.Equal(t, before, string(s.Bytes()))
}

func TestCloneAndCopies(t *testing.T) {
	src := []byte("a=\"1\"\n")
	s, err := pitrix.Parse("proxy0", src)
	require.NoError(t, err)
	src[3] = '2' // what Parse was given is not kept
	s.Bytes()[3] = '3'
	c := s.Clone()
	require.NoError(t, c.Set("a", "4"))
	assert.Equal(t, "a=\"1\"\n", string(s.Bytes()))
	assert.Equal(t, "a=\"4\"\n", string(c.Bytes()))
}

func TestDiff(t *testing.T) {
	src := ""
	for _, k := range strings.Split("abcdefghijklmnopqrst", "") {
		src += k + "=\"" + k + "\"\n"
	}
	s := parse(t, src+"ipmi_password='old' # x")
	require.NoError(t, s.Set("b", "x"))
	require.NoError(t, s.Set("b", "y"))
	require.NoError(t, s.Insert("f", "ff", "new"))
	require.NoError(t, s.Insert("ipmi_password", "api_token", "abc"))
	require.NoError(t, s.Set("ipmi_password", "new"))
	assert.Equal(t, `--- proxy0
+++ proxy0
@@ -1,9 +1,10 @@
 a="a"
-b="b"
+b="y"
 c="c"
 d="d"
 e="e"
 f="f"
+ff="new"
 g="g"
 h="h"
 i="i"
@@ -18,4 +19,5 @@
 r="r"
 s="s"
 t="t"
-ipmi_password=[hidden] # x
\ No newline at end of file
+ipmi_password=[hidden] # x
+api_token=[hidden]
\ No newline at end of file
`, s.Diff())

	require.NoError(t, s.Set("b", "b"))
	assert.NotContains(t, s.Diff(), "b=\"b\"\n+")

	one := parse(t, "a=\"1\"\n")
	require.NoError(t, one.Set("a", "2"))
	assert.Equal(t, "--- proxy0\n+++ proxy0\n@@ -1 +1 @@\n-a=\"1\"\n+a=\"2\"\n", one.Diff())
	require.NoError(t, one.Set("a", "1"))
	assert.Empty(t, one.Diff())
}

func FuzzLossless(f *testing.F) {
	for i, row := range accepted {
		f.Add([]byte(row.src), uint(i), editValues[i%len(editValues)], "zz")
	}
	for i, row := range refused {
		if len(row.src) < 100 {
			f.Add([]byte(row.src), uint(i), editValues[i%len(editValues)], "a_b")
		}
	}
	for _, text := range fleetFiles(f) {
		f.Add([]byte(text), uint(7), "198.51.100.7", "eip_network_address")
	}
	f.Fuzz(func(t *testing.T, src []byte, pick uint, value, newKey string) {
		s, err := pitrix.Parse("f", src)
		if err != nil {
			t.Skip("refused: fine; a wrong edit is not")
		}
		require.True(t, bytes.Equal(src, s.Bytes()), "an unedited file changed")
		keys := s.Keys()
		if len(keys) == 0 {
			return
		}
		key := keys[pick%uint(len(keys))]
		old, _ := s.Get(key)
		others := func(c *pitrix.Settings) {
			for _, k := range keys {
				if k != key {
					a, _ := s.Get(k)
					b, ok := c.Get(k)
					require.True(t, ok)
					require.Equal(t, a, b, k)
				}
			}
		}

		c := s.Clone()
		if err := c.Set(key, value); err == nil {
			got, _ := c.Get(key)
			require.Equal(t, value, got)
			require.Equal(t, keys, c.Keys())
			others(c)
			edited := c.Bytes()
			head, tail := common(src, edited)
			require.NotContains(t, string(src[head:len(src)-tail]), "\n", "the edit left its line")
			require.NotContains(t, string(edited[head:len(edited)-tail]), "\n", "the edit left its line")
			require.Equal(t, bytes.Equal(src, edited), c.Diff() == "")
			again, err := pitrix.Parse("f", edited)
			require.NoError(t, err)
			require.Equal(t, c.Keys(), again.Keys())
			require.NoError(t, c.Set(key, old))
			back, _ := c.Get(key)
			require.Equal(t, old, back)
			others(c)
		} else {
			require.Equal(t, string(src), string(c.Bytes()))
		}

		c = s.Clone()
		if err := c.Insert(key, newKey, value); err == nil {
			got, _ := c.Get(newKey)
			require.Equal(t, value, got)
			others(c)
			edited := c.Bytes()
			head, tail := common(src, edited)
			require.Equal(t, len(src), head+tail, "an insertion changed other bytes")
			require.Contains(t, c.Diff(), "+")
		} else {
			require.Equal(t, string(src), string(c.Bytes()))
		}
	})
}

// common returns how many bytes a and b share at the beginning, and how many
// behind these at the end.
func common(a, b []byte) (head, tail int) {
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for head+tail < len(a) && head+tail < len(b) && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

func TestDiffSettings(t *testing.T) {
	old := parse(t, "a=\"1\"\nb=\"2\"\nc='3'\nipmi_password=\"old\"\nz=\"\"\n")
	now := parse(t, "# other\nc=\"3\"\nb=\"4\"\nd=\"5\"\nipmi_password=\"new\"\napi_token=\"x\"\n")
	var out []string
	for _, d := range pitrix.DiffSettings(old, now) {
		out = append(out, d.String())
	}
	assert.Equal(t, []string{
		`a: old "1" (line 1), new nothing`,
		`b: old "2" (line 2), new "4" (line 3)`,
		`ipmi_password: old "[hidden]" (line 4), new "[hidden]" (line 5)`,
		`z: old "" (line 5), new nothing`,
		`d: old nothing, new "5" (line 4)`,
		`api_token: old nothing, new "[hidden]" (line 6)`,
	}, out)
	assert.Empty(t, pitrix.DiffSettings(old, old))
}
