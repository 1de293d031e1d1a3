package textedit

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBuffer(t *testing.T) {
	b := New([]byte("one two three"))
	b.Insert(4, "and ")
	b.Replace(0, 3, "1")
	b.Delete(7, 13)
	b.Insert(4, "then ")
	got, err := b.Bytes()
	require.NoError(t, err)
	assert.Equal(t, "1 and then two", string(got))

	b.Delete(2, 5)
	_, err = b.Bytes()
	assert.ErrorContains(t, err, "overlap")

	b = New([]byte("abc"))
	b.Delete(2, 9)
	_, err = b.Bytes()
	assert.ErrorContains(t, err, "outside")

	b = New([]byte("abc"))
	b.Delete(1, 1)
	got, err = b.Bytes()
	require.NoError(t, err)
	assert.Equal(t, "abc", string(got))
}

func TestApplyChecksTheOldBytes(t *testing.T) {
	_, err := Apply([]byte("abc"), []Edit{{Offset: 1, Old: []byte("x")}})
	assert.Error(t, err)
}

// FuzzCompose makes two rounds of edits from the fuzzer's bytes.
func FuzzCompose(f *testing.F) {
	f.Add([]byte("0123456789"), []byte{1, 2, 3, 4, 5, 6}, []byte{0, 9, 2, 2})
	f.Add([]byte(""), []byte{0, 0, 1}, []byte{0, 1, 0})
	f.Fuzz(func(t *testing.T, src, one, two []byte) {
		make := func(text, plan []byte) ([]Edit, []byte) {
			b := New(text)
			at := 0
			for i := 0; i+2 < len(plan) && at <= len(text); i += 3 {
				start := at + int(plan[i])%(len(text)-at+1)
				end := start + int(plan[i+1])%(len(text)-start+1)
				b.Replace(start, end, "ABCDEFG"[:plan[i+2]%8])
				at = end
			}
			edits, err := b.Edits()
			require.NoError(t, err)
			out, err := Apply(text, edits)
			require.NoError(t, err)
			back, err := Apply(out, Invert(edits))
			require.NoError(t, err)
			require.Equal(t, string(text), string(back))
			return edits, out
		}
		first, middle := make(src, one)
		second, want := make(middle, two)
		got, err := Apply(src, Compose(src, first, second))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	})
}
