package ecs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// shell runs a script with a systemctl that writes down what it is asked.
func shell(t *testing.T, bin, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// The real shell runs what a clone runs: held back on each boot until it is
// lifted, and never afterwards.
func TestQuarantineScripts(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("there is no /bin/sh here")
	}
	root, bin := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >> '"+log+"'\n[ \"$1\" = show ] && echo ActiveState=inactive\nexit 0\n"), 0o755))
	q := Quarantine{Units: []string{"crond", "docker.socket", "app@web.service", "crond.service"}}
	said := func() string {
		b, _ := os.ReadFile(log)
		_ = os.Remove(log)
		return string(b)
	}
	const all = "crond.service docker.socket app@web.service"
	hold, err := q.holdScript(root)
	require.NoError(t, err)
	for range 2 { // two boots
		shell(t, bin, hold)
		assert.Equal(t, "daemon-reload\nstop --no-block "+all+"\n", said())
		for _, u := range strings.Fields(all) {
			b, err := os.ReadFile(filepath.Join(root, "etc/systemd/system", u+".d", quarantineDropIn))
			require.NoError(t, err)
			assert.Equal(t, "[Unit]\nConditionPathExists="+quarantineLifted+"\n", string(b))
		}
	}
	check, err := q.checkScript(root)
	require.NoError(t, err)
	assert.Equal(t, "crond.service inactive held\ndocker.socket inactive held\napp@web.service inactive held\n", shell(t, bin, check))
	said()

	// A drop-in directory that has something else in it stays.
	other := filepath.Join(root, "etc/systemd/system/crond.service.d/other.conf")
	require.NoError(t, os.WriteFile(other, nil, 0o644))
	lift, err := q.liftScript(root)
	require.NoError(t, err)
	for range 2 {
		shell(t, bin, lift)
		assert.Equal(t, "daemon-reload\n", said())
	}
	assert.FileExists(t, other)
	assert.NoDirExists(t, filepath.Join(root, "etc/systemd/system/docker.socket.d"))
	assert.Equal(t, "crond.service inactive free\ndocker.socket inactive free\napp@web.service inactive free\n", shell(t, bin, check))
	said()
	shell(t, bin, hold)
	assert.Empty(t, said(), "lifted is lifted, on each later boot")
}

// What cloud-init reads is what was meant, also by its YAML.
func TestQuarantineUserData(t *testing.T) {
	q := Quarantine{Units: []string{"crond", `dev-disk\x2d1.mount`}}
	data, err := q.UserData()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(data), "#cloud-config\n"))
	var doc struct{ Bootcmd [][]string }
	require.NoError(t, yaml.Unmarshal(data, &doc))
	script, err := q.holdScript("")
	require.NoError(t, err)
	assert.Equal(t, [][]string{{"sh", "-c", script}}, doc.Bootcmd)
	assert.Less(t, len(data), 32<<10)
	for _, bad := range [][]string{nil, {""}, {"a b"}, {"$(reboot)"}, {"../../x"}, {"-x"}, {"a;b.service"}, {"'"}, {strings.Repeat("x", 300)}} {
		_, err := Quarantine{Units: bad}.UserData()
		assert.Error(t, err, "%q", bad)
	}
}
