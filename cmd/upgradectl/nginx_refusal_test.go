package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// TestRefusalTexts holds that each reason of the package has its text in both
// languages, and that operators are offered commands, not methods.
func TestRefusalTexts(t *testing.T) {
	source, err := os.ReadFile("../../nginx/errors.go")
	require.NoError(t, err)
	reasons := regexp.MustCompile(`(?m)^\tErr\w+: +\{`).FindAll(source, -1)
	texts := refusalTexts()
	assert.Len(t, texts, len(reasons), "nginx/errors.go has other reasons")
	method := regexp.MustCompile(`\((Disable|SetDown|SetWeight|AddServer|Shift|Replace|Restore)`)
	for reason, text := range texts {
		for _, s := range []string{text.offer, text.reasonZh, text.effectZh, text.offerZh} {
			assert.NotEmpty(t, s, "%v", reason)
		}
		en := (&app{}).refusalLine(nginx.Refusal{File: "f", Line: 1, Col: 2, Addr: "a", Reason: reason}, text)
		assert.Contains(t, en, text.offer)
		assert.False(t, method.MatchString(en), en)
		zh := (&app{lang: "zh"}).refusalLine(nginx.Refusal{File: "f", Line: 1, Col: 2, Addr: "a", Upstream: "u", Reason: reason}, text)
		assert.True(t, strings.HasPrefix(zh, "f:1:2: upstream u 中的 a："), zh)
	}
}

// TestNginxArguments holds that values which can stand in no configuration are
// errors of usage, and that what is refused is said in the operator's language.
func TestNginxArguments(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "nginx.conf")
	text := "events {}\nhttp {\nupstream u { server 10.0.0.1:80; }\nupstream h { ip_hash; server 10.0.0.1:80; server 10.0.0.2:80; }\n}\n"
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o644))
	for _, args := range [][]string{
		{"replace", "10.0.0.1", "x; evil"},
		{"replace", "10.0.0.1", "$host"},
		{"replace", "10.0.0.1", "unix:/x"},
		{"shift", "10.0.0.1", "10.0.0.1"},
		{"shift", "10.0.0.1", "10.0.0.9:80"},
		{"unshift", "10.0.0.1", "a b"},
		{"add", "10.0.0.9:0", "--like", "10.0.0.1"},
		{"add", "10.0.0.9", "--like", "a;b"},
		{"disable", "unix:"},
		{"disable", "10.0.0.1:99999"},
	} {
		status, stdout, stderr := command(t, append([]string{"nginx", "-c", conf, "--tag", "T"}, args...)...)
		assert.Equal(t, exitUsage, status, "%q: %s", args, stderr)
		assert.Empty(t, stdout, "%q", args)
	}
	status, stdout, stderr := command(t, "--lang", "zh", "nginx", "disable", "10.0.0.1", "-c", conf, "--tag", "T")
	assert.Equal(t, exitRefused, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "upstream u 中的 10.0.0.1:80：它是该 upstream 中最后一台在用的服务器")
	status, _, stderr = command(t, "--lang", "zh", "nginx", "disable", "10.0.0.2", "-c", conf, "--tag", "T")
	assert.Equal(t, exitOK, status)
	assert.Contains(t, stderr, "upstream h 将客户端映射到服务器（ip_hash）")
	data, err := os.ReadFile(conf)
	require.NoError(t, err)
	assert.Equal(t, text, string(data))
}

// TestNginxReadStops holds that the wait for a pipe ends with the first signal.
func TestNginxReadStops(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	a := &app{in: r, out: &out, err: &errs, lang: "en"}
	assert.Equal(t, exitInterrupted, a.main(ctx, []string{"nginx", "cat", "-"}))
	assert.Empty(t, out.String())
}

// TestNginxBadFiles holds that an edit of this machine's files does not read
// what has no end.
func TestNginxBadFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, nil, 0o600))
	require.NoError(t, os.Truncate(large, 1<<40))
	for include, want := range map[string]string{
		large:       "is larger than the 67108864 bytes",
		dir:         "is a directory",
		"/dev/zero": "nothing to do",
	} {
		conf := filepath.Join(dir, "nginx.conf")
		require.NoError(t, os.WriteFile(conf, []byte("include "+include+";"), 0o600))
		status, _, stderr := command(t, "nginx", "disable", "10.0.0.1", "-c", conf, "--tag", "T")
		assert.Contains(t, stderr, want)
		assert.Equal(t, include == "/dev/zero", status == exitOK)
	}
}
