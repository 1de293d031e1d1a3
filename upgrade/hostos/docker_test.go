package hostos

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func object(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m), "%s", b)
	return m
}

func TestMergeDaemonJSON(t *testing.T) {
	profile := object(t, []byte(RunbookDaemonJSON))
	for _, old := range []string{"", " \n", "{}", "null"} {
		got, err := MergeDaemonJSON([]byte(old), DaemonSettings{})
		require.NoError(t, err, "%q", old)
		assert.Equal(t, profile, object(t, got.Bytes))
		assert.True(t, bytes.HasSuffix(got.Bytes, []byte("}\n")))
	}
	got, err := MergeDaemonJSON([]byte(`{"data-root":"/data/docker","registry-mirrors":["https://m.example"],"debug":true,"n":12345678901234567890}`), DaemonSettings{})
	require.NoError(t, err)
	m := object(t, got.Bytes)
	assert.Equal(t, "/data/docker", m["data-root"])
	assert.Equal(t, true, m["debug"], "what the host has set stays")
	assert.Contains(t, string(got.Bytes), "12345678901234567890", "numbers keep their digits")
	assert.Equal(t, "json-file", m["log-driver"])
	assert.Contains(t, m, "log-opts")

	got, err = MergeDaemonJSON([]byte(`{"log-driver":"journald"}`), DaemonSettings{})
	require.NoError(t, err)
	assert.NotContains(t, object(t, got.Bytes), "log-opts", "dockerd refuses options that the driver does not know")
	got, err = MergeDaemonJSON([]byte(`{"log-driver":"json-file"}`), DaemonSettings{})
	require.NoError(t, err)
	assert.Contains(t, object(t, got.Bytes), "log-opts")

	for _, bad := range []string{"{", "[]", "1", `"x"`, "{} {}", "\xef\xbb\xbf{}"} {
		_, err := MergeDaemonJSON([]byte(bad), DaemonSettings{})
		assert.ErrorContains(t, err, "daemon.json", "%q", bad)
	}
}

// TestDocker runs section 3.5 and the end of 3.6 on a simulated host, twice:
// a transaction that ended half-way can be run again.
func TestDocker(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	before, err := GetDocker(soon(t), c)
	require.NoError(t, err)
	p, err := PlanDocker(before, nil, DockerOptions{})
	require.NoError(t, err)
	assert.Empty(t, p.Refusals())
	for _, key := range []string{"first", "second"} {
		script, err := p.Script(key)
		require.NoError(t, err)
		res, err := UpgradeDocker(soon(t), c, key, script, poll)
		require.NoError(t, err)
		require.NoError(t, res.Check(p))
		t.Logf("%+v", res)
	}
	now, err := StartDocker(soon(t), c, "first", before, false)
	require.NoError(t, err)
	_, err = StartContainers(soon(t), c, before, now, DockerOptions{}, poll)
	require.NoError(t, err)
	out, err := output(soon(t), c, "rpm -q docker; rpm -q docker-ce >/dev/null && systemctl is-enabled docker", nil)
	require.NoError(t, err)
	assert.Equal(t, "package docker is not installed\nenabled\n", out)

	f := &fake{run: func(string, io.Writer) error { return failed(3) }}
	assert.ErrorContains(t, EnableDocker(t.Context(), f), "cannot enable and start docker")
}
