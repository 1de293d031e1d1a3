package pitrix_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/pitrix"
)

// accepted are files and what Get says of the key a.
var accepted = []struct{ src, value string }{
	{"a=\"v\"\n", "v"},
	{"a=\"v\"", "v"},
	{"a=\"\"\n", ""},
	{"a=\n", ""},
	{"a= \t\n", ""},
	{"a= # note\n", ""},
	{"a=''\n", ""},
	{"a=v\n", "v"},
	{"a=00:16:3e:1a:07:c1\n", "00:16:3e:1a:07:c1"},
	{"a=10.80.0.0/16,x_y@z%+-\n", "10.80.0.0/16,x_y@z%+-"},
	{"a='v w'\n", "v w"},
	{"a='pa$s \\ \"q\"'\n", `pa$s \ "q"`},
	{"  a=\"v\"\n", "v"},
	{"\ta=\"v\" \t\n", "v"},
	{"a=\"v\" # note 'with \"quotes\n", "v"},
	{"a=\"v\"\t#note\n", "v"},
	{"a=\"v # no note\"\n", "v # no note"},
	{"a=\"192.0.2.41 192.0.2.42\"\n", "192.0.2.41 192.0.2.42"},
	{"a=\"it's\"\n", "it's"},
	{"a=\"say \\\"x\\\"\"\n", `say "x"`},
	{"a=\"back\\\\slash\"\n", `back\slash`},
	{"a=\"\\n \\a\"\n", `\n \a`},
	{"a=\"5\\$\"\n", "5$"},
	{"a=\"tab\there\"\n", "tab\there"},
	{"a=\"~ * ? [x] {b,c} ! ; & | < > ( )\"\n", "~ * ? [x] {b,c} ! ; & | < > ( )"},
	{"a=\"a=b\"\n", "a=b"},
	{"a=\"{ x }\"\n", "{ x }"},
	{"a=\"节点\"\n", "节点"},
	{"## Title `x` $(x) {{ y }} \"\n\n# \xb0\xd7\n  # more \\\na=\"v\"\n\n\n", "v"},
	{"#!/bin/bash\na=\"v\"\n", "v"},
	{"if=\"x\"\nfor=\"y\"\n_b2=\"z\"\na=\"v\"\nA_b=\"w\"\n", "v"},
}

func TestParse(t *testing.T) {
	for _, row := range accepted {
		s, err := pitrix.Parse("node", []byte(row.src))
		if !assert.NoError(t, err, "%q", row.src) {
			continue
		}
		value, ok := s.Get("a")
		assert.True(t, ok, "%q", row.src)
		assert.Equal(t, row.value, value, "%q", row.src)
		assert.Equal(t, row.src, string(s.Bytes()))
		assert.Empty(t, s.Diff())
	}
	s, err := pitrix.Parse("node", []byte("b=\"2\"\n\na=\"1\"\n"))
	require.NoError(t, err)
	assert.Equal(t, "node", s.Name())
	assert.Equal(t, []string{"b", "a"}, s.Keys())
	_, ok := s.Get("c")
	assert.False(t, ok)
	s, err = pitrix.Parse("empty", nil)
	require.NoError(t, err)
	assert.Empty(t, s.Keys())
	assert.Empty(t, s.Bytes())
}

// refused are files with the position of their one problem and a part of what
// is said about it, from testdata/refused.txt.
var refused = readRefused()

type refusedRow struct{ src, at, text string }

func readRefused() []refusedRow {
	text, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		panic(err)
	}
	rows := []refusedRow{{strings.Repeat("#", 1<<20+1), "1:1", "at most 1048576"}}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		src, err := strconv.Unquote(columns[2])
		if err != nil {
			panic(fmt.Sprintf("%s: %v", line, err))
		}
		rows = append(rows, refusedRow{src, columns[0], columns[1]})
	}
	return rows
}

func TestParseRefuses(t *testing.T) {
	for _, row := range refused {
		s, err := pitrix.Parse("conf/proxy0", []byte(row.src))
		assert.Nil(t, s)
		var problems pitrix.Problems
		if !assert.ErrorAs(t, err, &problems, "%.60q", row.src) {
			continue
		}
		if assert.Len(t, problems, 1, "%.60q: %v", row.src, err) {
			p := problems[0]
			assert.Equal(t, row.at, fmt.Sprintf("%d:%d", p.Line, p.Col), "%.60q: %v", row.src, err)
			assert.Contains(t, p.Text, row.text, "%.60q", row.src)
			assert.Equal(t, "conf/proxy0", p.File)
			assert.Equal(t, pitrix.RuleSyntax, p.Rule)
			assert.True(t, strings.HasPrefix(err.Error(), "conf/proxy0:"+row.at+": "), "%v", err)
		}
	}
	assert.GreaterOrEqual(t, len(refused), 40)
}

func TestAllAtOnce(t *testing.T) {
	_, err := pitrix.Parse("proxy0", []byte("role = \"proxy\"\r\n"+
		"zone_id=\"{{ zone_id }}\" reboot\r\n"+
		"memory_size=\"8000\r\n"+
		"\r\n"+
		"hostname=\"$(hostname)\"\r\n"+
		"hostname=\"proxy0\"\r\n"+
		"hostname=\"proxy1\"\r\n"))
	var problems pitrix.Problems
	require.ErrorAs(t, err, &problems)
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Col, p.Key))
	}
	assert.Equal(t, []string{"1:1 ", "1:15 ", "2:10 zone_id", "2:25 zone_id", "3:13 memory_size", "5:11 hostname", "6:1 hostname", "7:1 hostname"}, got)
	assert.Len(t, strings.Split(err.Error(), "\n"), len(problems))

	_, err = pitrix.Parse("x", bytes.Repeat([]byte("reboot\n"), 5000))
	require.ErrorAs(t, err, &problems)
	assert.Len(t, problems, 101)
	assert.Contains(t, problems[100].Text, "more problems than can be shown")
}

func TestNoValues(t *testing.T) {
	const hidden = "s3cr3t"
	for _, src := range []string{
		"a=\"" + hidden + "$(x)\"\n", "a=\"" + hidden + "\n", "a=\"" + hidden + "\"x\n", "a=" + hidden + "$x\n",
		"a='`" + hidden + "'\n", "a=\"x\"\na=\"" + hidden + "\"\n", "a = \"" + hidden + "\"\n", "a= \"" + hidden + "\"\n",
		"a=\"" + hidden + "\" x\n", "a=\"" + hidden + " {{ x }}\"\n", "a=\"" + hidden + "\"\r\n",
	} {
		_, err := pitrix.Parse("f", []byte(src))
		if assert.Error(t, err, "%q", src) {
			assert.NotContains(t, err.Error(), hidden)
		}
	}
	s, err := pitrix.Parse("f", []byte("a=\"x\"\n"))
	require.NoError(t, err)
	for _, err := range []error{s.Set("a", hidden+"\n"), s.Set("b", hidden), s.Insert("a", "b", hidden+"`"), s.Insert("a", "B", hidden), s.Insert("x", "b", hidden)} {
		if assert.Error(t, err) {
			assert.NotContains(t, err.Error(), hidden)
		}
	}
}

// realBash returns the shell that sources settings files on a firstbox.
func realBash(t testing.TB) string {
	if runtime.GOOS == "windows" {
		t.Skip("a bash on Windows may not know the paths of temporary files")
	}
	return testenv.Need(t, "bash")
}

// bash sources src and returns the values of the keys.
func bash(t testing.TB, path string, src []byte, keys []string) []string {
	file := filepath.Join(t.TempDir(), "settings")
	require.NoError(t, os.WriteFile(file, src, 0o600))
	// No settings file may have the key K.
	script := `. "$1" || exit 1; shift; for K; do printf '%s\0' "${!K}"; done`
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--norc", "--noprofile", "-c", script, "bash", file}, keys...)...)
	cmd.Env = []string{"PATH=/nowhere", "LC_ALL=C"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%q", src)
	require.Empty(t, stderr.String(), "%q", src)
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

func sameAsBash(t testing.TB, path string, s *pitrix.Settings) {
	keys := s.Keys()
	if len(keys) == 0 {
		return
	}
	var want []string
	for _, k := range keys {
		v, _ := s.Get(k)
		want = append(want, v)
	}
	assert.Equal(t, want, bash(t, path, s.Bytes(), keys), "%q", s.Bytes())
}

func TestParseAsBash(t *testing.T) {
	path := realBash(t)
	for _, row := range accepted {
		s, err := pitrix.Parse("node", []byte(row.src))
		require.NoError(t, err)
		sameAsBash(t, path, s)
	}
	// What Set and Insert write, bash reads back as well.
	s, err := pitrix.Parse("node", []byte("d=\"x\"\ns='x'\nb=x\n"))
	require.NoError(t, err)
	for i, row := range editValues {
		for _, k := range []string{"d", "s", "b"} {
			require.NoError(t, s.Set(k, row))
			require.NoError(t, s.Insert(k, fmt.Sprintf("%s_%d", k, i), row))
		}
		sameAsBash(t, path, s)
	}
	for _, text := range fleetFiles(t) {
		s, err := pitrix.Parse("node", []byte(text))
		require.NoError(t, err)
		sameAsBash(t, path, s)
	}
}

func FuzzAsBash(f *testing.F) {
	path := realBash(f)
	for _, row := range accepted {
		f.Add([]byte(row.src))
	}
	for _, row := range refused {
		if len(row.src) < 100 {
			f.Add([]byte(row.src))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 4096 {
			t.Skip("too long: bash takes its time")
		}
		s, err := pitrix.Parse("node", src)
		if err != nil {
			t.Skip("refused: fine; another value is not")
		}
		sameAsBash(t, path, s)
	})
}

func TestProblemsIsAnError(t *testing.T) {
	_, err := pitrix.Parse("f", []byte("x\n"))
	var problems pitrix.Problems
	assert.True(t, errors.As(fmt.Errorf("cannot load: %w", err), &problems))
}
