package pitrix

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// knownHosts makes a known_hosts file with one key for every line of names.
func knownHosts(t *testing.T, file string, hash bool, names ...string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	out, err := exec.Command(testenv.Need(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput()
	require.NoError(t, err, "%s", out)
	pub, err := os.ReadFile(key + ".pub")
	require.NoError(t, err)
	text := ""
	for _, n := range names {
		text += n + " " + strings.Join(strings.Fields(string(pub))[:2], " ") + "\n"
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	if hash {
		out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, os.Remove(file+".old"))
	}
}

func TestTrapKnownHosts(t *testing.T) {
	for name, hash := range map[string]bool{"plain": false, "hashed": true} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			f := &Firstbox{Host: &localHost{}, Root: root}
			file := root + KnownHostsFile
			names := KnownHostsNames([]string{"proxy0", "192.0.2.61", "proxy0"}, 2222)
			assert.Equal(t, []string{"proxy0", "[proxy0]:2222", "192.0.2.61", "[192.0.2.61]:2222"}, names)

			// rc 255 of ssh-keygen: there is no file, and nothing to do.
			removed, err := f.RemoveKnownHosts(t.Context(), names)
			require.NoError(t, err)
			assert.Empty(t, removed)
			assert.NoFileExists(t, file)

			knownHosts(t, file, hash, "proxy0", "192.0.2.61", "[proxy0]:2222", "[192.0.2.61]:2222", "proxy1", "[proxy1]:2222")
			removed, err = f.RemoveKnownHosts(t.Context(), names)
			require.NoError(t, err)
			assert.Equal(t, names, removed)
			left, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, 2, strings.Count(string(left), "\n"), "the other machine's keys stay: %s", left)
			assert.NoFileExists(t, file+".old", "it would keep the keys that were to go")

			// ssh-keygen -R ends with 0 although it finds nothing.
			require.NoError(t, os.WriteFile(file+".old", []byte("somebody's"), 0o600))
			removed, err = f.RemoveKnownHosts(t.Context(), names)
			require.NoError(t, err)
			assert.Empty(t, removed)
			removed, err = f.RemoveKnownHosts(t.Context(), []string{"proxy1"})
			require.NoError(t, err)
			assert.Equal(t, []string{"proxy1"}, removed)
			old, err := os.ReadFile(file + ".old")
			require.NoError(t, err)
			assert.Equal(t, "somebody's", string(old))
			entries, err := os.ReadDir(filepath.Dir(file))
			require.NoError(t, err)
			assert.Len(t, entries, 2, "%v", entries)
		})
	}
	// A line with name and address goes as a whole.
	root := t.TempDir()
	knownHosts(t, root+KnownHostsFile, false, "proxy0,192.0.2.61")
	removed, err := (&Firstbox{Host: &localHost{}, Root: root}).RemoveKnownHosts(t.Context(), []string{"proxy0", "192.0.2.61"})
	require.NoError(t, err)
	assert.Equal(t, []string{"proxy0"}, removed)
}

// The same line goes through exec_nodes.sh, which cuts, splits and expands, and
// does on every node what it does here; a node without the file is fine.
func TestTrapKnownHostsOnAllNodes(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	b := newBox(t)
	fleet, err := b.ReadFleet(t.Context())
	require.NoError(t, err)
	groups, err := b.ReadGroups(t.Context())
	require.NoError(t, err)
	names := KnownHostsNames([]string{"proxy0", "192.0.2.61"}, 2222)
	line, scope, err := b.scripts.RemoveKnownHosts(fleet, groups, "t", names)
	require.NoError(t, err)
	assert.Contains(t, line, " -f all ")
	// The stand-in's machines are directories, so the file is theirs.
	line = strings.ReplaceAll(line, "f="+KnownHostsFile, "f=known_hosts")
	for _, m := range []string{"proxy1", "webservice0"} {
		knownHosts(t, b.path("machines/"+m+"/known_hosts"), false, "proxy0", "[192.0.2.61]:2222", "other")
	}
	b.write("2222", "a file that a pattern might match")
	out, _ := b.run("cd "+b.root+" && "+line, nil)
	results, err := ParseExec(scope, "t", out)
	require.NoError(t, err, "%s", out)
	require.NoError(t, ExecFailed(results))
	assert.Empty(t, ParseRemoveKnownHosts([]byte(results[0].Output)), "it has no file")
	for _, r := range results[1:] {
		assert.Equal(t, []string{"proxy0", "[192.0.2.61]:2222"}, ParseRemoveKnownHosts([]byte(r.Output)))
		assert.Equal(t, 1, strings.Count(b.read("machines/"+r.Node+"/known_hosts"), "\n"))
	}
	for _, bad := range []string{"", "-R", "a b", "x;reboot", "[a]", "a'b", "*"} {
		_, err := RemoveKnownHosts("", []string{bad})
		assert.Error(t, err, bad)
	}
	_, err = RemoveKnownHosts("", nil)
	assert.Error(t, err)
}

// A ssh-keygen of old ends with 0 whether -F finds a name or not; what it prints
// counts.
func TestTrapOldKeygen(t *testing.T) {
	real := testenv.Need(t, "ssh-keygen")
	root, bin := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "ssh-keygen"), []byte("#!/bin/sh\n"+real+" \"$@\"\ns=$?\ncase \" $* \" in *' -F '*) exit 0;; esac\nexit $s\n"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "root/.ssh"), 0o700))
	const line = "192.0.2.9 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8T4J0f3b1fFz1h0m3pM4vM1k1n8b9b7vZl0c1k2b3c\n"
	require.NoError(t, os.WriteFile(filepath.Join(root, KnownHostsFile), []byte(line), 0o600))
	f := &Firstbox{Host: &localHost{env: []string{"PATH=" + bin + ":" + os.Getenv("PATH")}}, Root: root}
	removed, err := f.RemoveKnownHosts(t.Context(), []string{"proxy0"})
	require.NoError(t, err)
	assert.Empty(t, removed)
	removed, err = f.RemoveKnownHosts(t.Context(), []string{"proxy0", "192.0.2.9"})
	require.NoError(t, err)
	assert.Equal(t, []string{"192.0.2.9"}, removed)
}
