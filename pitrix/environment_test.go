package pitrix

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mvdan.cc/sh/v3/syntax"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// cronScripts are what cron runs on a node.
var cronScripts = map[string]string{"tick": editTick, "revert": editRevert, "announce": announceAtBoot}

// A job of cron finds what is in /usr/bin and /bin, and nothing else: commands of
// /sbin and /usr/sbin come behind a line that adds those, as on Ubuntu 14.04,
// where /bin and /usr/bin are two directories.
func TestTrapCronPath(t *testing.T) {
	inBin := []string{"cat", "cp", "cut", "echo", "grep", "head", "ip", "mkdir", "mv", "rm", "sha256sum", "sleep", "sync", "/bin/sh"}
	builtin := []string{"[", "exec", "exit"}
	for name, text := range cronScripts {
		text = strings.NewReplacer("@D@", "/d", "@CRON@", "/c", "@TOKEN@", "0123456789abcdef", "@ADDRESSES@", "192.0.2.61").Replace(text)
		f, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), name)
		require.NoError(t, err)
		seen, wide := 0, false
		syntax.Walk(f, func(node syntax.Node) bool {
			call, ok := node.(*syntax.CallExpr)
			if !ok {
				return true
			}
			for _, a := range call.Assigns {
				wide = wide || a.Name.Value == "PATH" && len(call.Args) == 0
			}
			words := call.Args
			if len(words) > 1 && words[0].Lit() == "exec" {
				words = words[1:]
			}
			if len(words) == 0 {
				return true
			}
			seen++
			if c := words[0].Lit(); !slices.Contains(inBin, c) && !slices.Contains(builtin, c) {
				assert.True(t, wide, "%s:%d: %s is not in cron's PATH", name, words[0].Pos().Line(), c)
			}
			return true
		})
		assert.Greater(t, seen, 3, name)
		if _, err := exec.LookPath("dash"); err == nil {
			out, err := exec.Command("dash", "-n", "-c", text).CombinedOutput()
			assert.NoError(t, err, "%s: %s", name, out)
		}
	}
}

// cron passes over files of /etc/cron.d with a dot in their names, and minds who
// may write them.
func TestTrapCronNames(t *testing.T) {
	n := &Node{}
	announce, _ := n.announceFiles("k-1")
	for _, name := range []string{n.editCron("k-1", "0123456789abcdef"), announce} {
		assert.Regexp(t, `^/etc/cron\.d/[A-Za-z0-9_-]+$`, name)
	}
	for _, key := range []string{"", "a.b", "a/b", "A", "a b", "-a"} {
		assert.Error(t, checkKey(key), key)
	}
}

// Programs that speak the language of a login are asked in English.
func TestTrapLocale(t *testing.T) {
	testenv.Need(t, "sh")
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "arping"), []byte(`#!/bin/sh
if [ "$LC_ALL" = C ]; then echo "Sent 3 probes (3 broadcast(s))"; else echo "发送 3 个探测 (3 个广播)"; fi
`), 0o755))
	n := &Node{Name: "proxy0", Host: &localHost{env: []string{"LC_ALL=zh_CN.UTF-8", "PATH=" + bin + ":" + os.Getenv("PATH")}}}
	macs, err := n.ProbeAddress(t.Context(), netip.MustParseAddr("192.0.2.61"), "eth0")
	require.NoError(t, err)
	assert.Empty(t, macs)
}
