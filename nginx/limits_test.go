package nginx_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// allocated returns how many bytes f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBadInput holds that input of no sense ends with a clear error, in memory
// that does not grow with it.
func TestBadInput(t *testing.T) {
	big := make([]byte, 100<<20)
	for _, row := range []struct {
		name string
		src  []byte
		msg  string
	}{
		{"100 MB", big, "f.conf:1:1: the file is larger than the 67108864 bytes that are read"},
		{"10,000 nested blocks", bytes.Repeat([]byte("a{\n"), 10_000), "f.conf:1001:2: blocks are nested more than 1000 deep"},
		{"10,000 nested blocks of Lua", append([]byte("content_by_lua_block"), bytes.Repeat([]byte("{\n"), 10_000)...), "f.conf:10000:1: unexpected end of file, expecting terminating characters for lua code block"},
		{"an executable", []byte("\x7fELF\x02\x01\x01\x00{\n}\x00}"), `f.conf:2:4: unexpected end of file, expecting ";" or "}"`},
		{"a gzip file", []byte("\x1f\x8b\x08\x00;\x00;;"), `f.conf:1:8: unexpected ";"`},
		{"a megabyte of one word", bytes.Repeat([]byte("x"), 1<<20), `f.conf:1:1: too long parameter "xxxxxxxxxx..." started`},
		{"a megabyte of lone quotes in Lua", append([]byte("x_by_lua_block {'"), bytes.Repeat([]byte(`\'`), 1<<19)...), "f.conf:1:16: unexpected end of file, expecting terminating characters for lua code block"},
		{"a megabyte in quotes", append([]byte("a '"), bytes.Repeat([]byte("x\n"), 1<<19)...), "f.conf:1:3: too long parameter, probably missing terminating \"'\" character"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var err error
			used := allocated(func() { _, err = nginx.Parse("f.conf", row.src) })
			assert.EqualError(t, err, row.msg)
			assert.Less(t, used, uint64(3<<20))
		})
	}
	// Noise never panics, and comes back as it was.
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		src := make([]byte, r.IntN(4000))
		for i := range src {
			src[i] = " \n;{}\"'\\#$ab\x00\xff[]-="[r.IntN(18)]
		}
		f, _ := nginx.Parse("noise", append([]byte("x_by_lua_block {"), src...))
		assert.Len(t, f.Bytes(), len(src)+16)
		f, _ = nginx.Parse("noise", src)
		assert.Len(t, f.Bytes(), len(src))
	}
}

// TestManyDirectives holds that the largest file of the shortest directives is
// refused before it fills the memory.
func TestManyDirectives(t *testing.T) {
	testenv.Slow(t)
	for _, unit := range []string{"a;", "a ", "#\n", "a{}"} {
		src := bytes.Repeat([]byte(unit), nginx.MaxFileSize/len(unit))
		var err error
		used := allocated(func() { _, err = nginx.Parse("f.conf", src) })
		assert.ErrorContains(t, err, "that are read", "%q", unit)
		assert.Less(t, used, uint64(1<<30), "%q", unit)
	}
}

// countingFS counts what is read.
type countingFS struct {
	nginx.FS
	reads int
}

func (c *countingFS) ReadFile(ctx context.Context, name string) ([]byte, error) {
	c.reads++
	return c.FS.ReadFile(ctx, name)
}

// endlessFS has every file: each includes the next one.
type endlessFS struct{ nginx.MapFS }

func (endlessFS) ReadFile(_ context.Context, name string) ([]byte, error) {
	return fmt.Appendf(nil, "include %sx;", name[strings.LastIndexByte(name, '/')+1:]), nil
}

// TestIncludeBombs holds that includes which grow without end stop with an
// error that says so.
func TestIncludeBombs(t *testing.T) {
	load := func(fsys nginx.FS) (int, error) {
		counted := &countingFS{FS: fsys}
		_, err := nginx.Load(t.Context(), counted, "/n/nginx.conf")
		return counted.reads, err
	}
	doubling := nginx.MapFS{"/n/40": []byte("a b;")}
	for i := range 40 {
		doubling[fmt.Sprintf("/n/%d", i)] = fmt.Appendf(nil, "include %d;include %d;", i+1, i+1)
	}
	doubling["/n/nginx.conf"] = []byte("include 0;")
	reads, err := load(doubling)
	assert.ErrorContains(t, err, "with all its includes the configuration has more than 4194304 directives")
	assert.LessOrEqual(t, reads, 42)

	patterns := nginx.MapFS{"/n/nginx.conf": []byte("include a*;")}
	for i := range 30 {
		patterns[fmt.Sprintf("/n/a%d", i)] = []byte("include b*;include b*;")
		patterns[fmt.Sprintf("/n/b%d", i)] = []byte(strings.Repeat("include c*;", 100))
		patterns[fmt.Sprintf("/n/c%d", i)] = []byte(strings.Repeat("a b;", 100))
	}
	reads, err = load(patterns)
	assert.ErrorContains(t, err, "more than 4194304 directives")
	assert.LessOrEqual(t, reads, 91)

	many := nginx.MapFS{"/n/nginx.conf": []byte("include d/*;")}
	for i := range 100_000 {
		many[fmt.Sprintf("/n/d/%d", i)] = nil
	}
	reads, err = load(many)
	assert.ErrorContains(t, err, "the pattern matches more than 65536 names")
	assert.Equal(t, 1, reads)

	reads, err = load(endlessFS{})
	assert.ErrorContains(t, err, "files include each other more than 1000 deep")
	assert.Equal(t, 1000, reads)

	large := nginx.MapFS{"/n/nginx.conf": []byte("include d/*;")}
	blank := bytes.Repeat([]byte("#"+strings.Repeat(" ", 4000)+"\n"), 32<<20/4002)
	for i := range 12 {
		large[fmt.Sprintf("/n/d/%d", i)] = blank
	}
	reads, err = load(large)
	assert.ErrorContains(t, err, "the files of the configuration have more than 268435456 bytes")
	assert.LessOrEqual(t, reads, 10)
}

// TestDirFS holds what the local file system gives for what is no ordinary file.
func TestDirFS(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("devices and pipes have other names on Windows")
	}
	dir := t.TempDir()
	fsys := nginx.DirFS(dir)
	ctx := t.Context()

	f, err := os.Create(filepath.Join(dir, "big"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(100<<20)) // takes no room on the disk
	require.NoError(t, f.Close())
	data, err := fsys.ReadFile(ctx, "/big")
	require.NoError(t, err)
	assert.Len(t, data, nginx.MaxFileSize+1)

	_, err = fsys.ReadFile(ctx, "/none")
	assert.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.ReadFile(ctx, "/")
	assert.Error(t, err, "a directory")
	data, err = nginx.DirFS("").ReadFile(ctx, os.DevNull)
	assert.NoError(t, err)
	assert.Empty(t, data)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err = fsys.ReadFile(ctx, "/big")
	assert.ErrorIs(t, err, context.Canceled)
	_, err = fsys.ReadDir(ctx, "/")
	assert.ErrorIs(t, err, context.Canceled)
}
