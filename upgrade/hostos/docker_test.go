package hostos

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

func object(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m), "%s", b)
	return m
}

func TestMergeDaemonJSON(t *testing.T) {
	profile := object(t, []byte(dockerProfile))
	for _, old := range []string{"", " \n", "{}", "null"} {
		got, err := MergeDaemonJSON([]byte(old))
		require.NoError(t, err, "%q", old)
		assert.Equal(t, profile, object(t, got))
		assert.True(t, bytes.HasSuffix(got, []byte("}\n")))
	}
	got, err := MergeDaemonJSON([]byte(`{"data-root":"/data/docker","registry-mirrors":["https://m.example"],"debug":true,"n":12345678901234567890}`))
	require.NoError(t, err)
	m := object(t, got)
	assert.Equal(t, "/data/docker", m["data-root"])
	assert.Equal(t, true, m["debug"], "what the host has set stays")
	assert.Contains(t, string(got), "12345678901234567890", "numbers keep their digits")
	assert.Equal(t, "json-file", m["log-driver"])
	assert.Contains(t, m, "log-opts")

	got, err = MergeDaemonJSON([]byte(`{"log-driver":"journald"}`))
	require.NoError(t, err)
	assert.NotContains(t, object(t, got), "log-opts", "dockerd refuses options that the driver does not know")
	got, err = MergeDaemonJSON([]byte(`{"log-driver":"json-file"}`))
	require.NoError(t, err)
	assert.Contains(t, object(t, got), "log-opts")

	for _, bad := range []string{"{", "[]", "1", `"x"`, "{} {}", "\xef\xbb\xbf{}"} {
		_, err := MergeDaemonJSON([]byte(bad))
		assert.ErrorContains(t, err, "daemon.json", "%q", bad)
	}
}

func FuzzMergeDaemonJSON(f *testing.F) {
	for _, s := range []string{"", "{}", `{"log-driver":"journald"}`, `{"data-root":"/d","hosts":["fd://"]}`, "{\"a\":\"<&>\u2028\"}", `{"a":1,"a":2}`, "null", "[", dockerProfile} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, old []byte) {
		before := bytes.Clone(old)
		got, err := MergeDaemonJSON(old)
		require.Equal(t, before, old, "the argument changed")
		if err != nil {
			return // a refusal is fine; a wrong merge is not
		}
		now := object(t, got)
		if len(bytes.TrimSpace(old)) > 0 {
			for k, v := range object(t, old) {
				require.Equal(t, v, now[k], "key %q", k)
			}
		}
		again, err := MergeDaemonJSON(got)
		require.NoError(t, err)
		require.Equal(t, got, again, "a second merge changes nothing")
	})
}

func TestWriteDaemonJSON(t *testing.T) {
	s := simulate(t, func(s *host.Spec) {
		s.Files = map[string]host.File{daemonJSON: {Data: []byte(`{"data-root":"/data"}`)}, daemonJSON + ".k": {Data: []byte("left by a call that was cut off")}}
	})
	c := s.dial()
	changed, err := WriteDaemonJSON(soon(t), c, "k")
	require.NoError(t, err)
	assert.True(t, changed)
	b, err := s.ReadFile(daemonJSON)
	require.NoError(t, err)
	m := object(t, b)
	assert.Equal(t, "/data", m["data-root"])
	assert.Len(t, m, 7)
	_, err = s.Stat(daemonJSON + ".k")
	assert.ErrorIs(t, err, fs.ErrNotExist)
	changed, err = WriteDaemonJSON(soon(t), c, "k2")
	require.NoError(t, err)
	assert.False(t, changed, "nothing is missing any more")

	f := &fake{file: map[string]string{daemonJSON: "{broken"}, run: func(string, io.Writer) error { return nil }}
	_, err = WriteDaemonJSON(t.Context(), f, "k")
	assert.Error(t, err)
	assert.Empty(t, f.cmds, "a file that we cannot read is not touched")
}

// TestDocker runs section 3.5 and the end of 3.6 on a simulated host, twice:
// a transaction that ended half-way can be run again.
func TestDocker(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	ok, err := DockerInstalled(soon(t), c)
	require.NoError(t, err)
	assert.True(t, ok)
	require.NoError(t, StartJob(soon(t), c, "half", "systemctl stop docker && yum -y remove docker docker-client docker-common\n"))
	_, err = WaitJob(soon(t), c, "half", poll, nil)
	require.NoError(t, err)
	for _, key := range []string{"first", "second"} {
		require.NoError(t, StartJob(soon(t), c, key, DockerScript()))
		_, err = WaitJob(soon(t), c, key, poll, nil)
		require.NoError(t, err)
	}
	require.NoError(t, EnableDocker(soon(t), c))
	out, err := output(soon(t), c, "rpm -q docker; rpm -q docker-ce >/dev/null && systemctl is-enabled docker", nil)
	require.NoError(t, err)
	assert.Equal(t, "package docker is not installed\nenabled\n", out)

	f := &fake{run: func(string, io.Writer) error { return failed(3) }}
	assert.ErrorContains(t, EnableDocker(t.Context(), f), "cannot enable and start docker")
}
