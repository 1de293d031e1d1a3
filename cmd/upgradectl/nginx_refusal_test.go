package main

import (
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
