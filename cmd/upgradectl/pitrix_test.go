package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every file of the table of broken settings, put beside good ones: each
// command that reads it says FILE:LINE:COLUMN and what to do, ends with status
// 3, and writes nothing.
func TestBrokenSettings(t *testing.T) {
	text, err := os.ReadFile("../../pitrix/testdata/refused.txt")
	require.NoError(t, err)
	good, err := os.ReadFile("../../examples/pitrix/testdata/settings/proxy1")
	require.NoError(t, err)
	rows := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		rows++
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		src, err := strconv.Unquote(columns[2])
		require.NoError(t, err)
		dir := t.TempDir()
		settings := filepath.Join(dir, "settings")
		require.NoError(t, os.Mkdir(settings, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(settings, "proxy0"), []byte(src), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(settings, "proxy1"), good, 0o600))
		out := filepath.Join(dir, "out")
		for _, args := range [][]string{
			{"settings", "check", settings},
			{"settings", "check", settings, "--json"},
			{"settings", "render", "proxy0", "--settings", settings, "--address", "192.0.2.71", "--out", out, "--execute"},
			{"settings", "render", "proxy1", "--settings", settings, "--address", "192.0.2.71", "--out", out, "--execute"},
			{"settings", "diff", settings, settings},
			{"mac", "--settings", settings},
		} {
			var stdout, stderr bytes.Buffer
			a := &app{out: &stdout, err: &stderr, lang: "en"}
			status := a.main(t.Context(), append([]string{"pitrix"}, args...))
			said := stdout.String() + stderr.String()
			assert.Equal(t, exitConfig, status, "%q %q: %s", args, src, said)
			if args[len(args)-1] == "--json" {
				l, c, _ := strings.Cut(columns[0], ":")
				assert.Contains(t, said, fmt.Sprintf("\"line\": %s,\n      \"col\": %s", l, c), "%q", src)
				continue
			}
			assert.True(t, strings.HasPrefix(said, "proxy0:"+columns[0]+": "), "%q: %s", src, said)
			assert.Contains(t, said, columns[1], "%q", src)
			// What to do stands behind what is wrong, which a comma or a semicolon ends.
			assert.Regexp(t, `[;:,] .*(write|put|delete|close|save|quote|make|use|one assignment|letters)`, said, "%q", src)
		}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 1, "%q: something was written", src)
		kept, err := os.ReadFile(filepath.Join(settings, "proxy0"))
		require.NoError(t, err)
		assert.Equal(t, src, string(kept))
	}
	assert.GreaterOrEqual(t, rows, 40)
	t.Logf("%d broken files", rows)
}
