package hostos

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
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

// FuzzMergeDaemonJSON: what the host has set stays, what comes out is JSON, and
// merging it again changes nothing; with flags, limits and versions as a host
// may have them.
func FuzzMergeDaemonJSON(f *testing.F) {
	for _, s := range []string{"", "{}", `{"log-driver":"journald"}`, `{"data-root":"/d","hosts":["fd://"]}`, "{\"a\":\"<&>\u2028\"}", `{"a":1,"a":2}`, "null", "[", RunbookDaemonJSON, `{"graph":"/g","oom-score-adjust":-5}`, `{"default-ulimits":{"nofile":{"Name":"nofile","Hard":9,"Soft":9}}}`, `{"default-ulimits":7}`} {
		f.Add([]byte(s), "-g /data --insecure-registry=a:5000 --selinux-enabled --log-driver=journald", int64(20000), 20)
	}
	f.Add([]byte("{}"), "--default-ulimit nofile=1:2 -H fd:// --storage-driver", int64(-1), 26)
	f.Fuzz(func(t *testing.T, old []byte, flags string, most int64, major int) {
		before := bytes.Clone(old)
		s := DaemonSettings{Lost: strings.Fields(flags), Limits: map[string]int64{"nofile": most, "nproc": most}, Major: major}
		got, err := MergeDaemonJSON(old, s)
		require.Equal(t, before, old, "the argument changed")
		if err != nil {
			return // a refusal is fine; a wrong merge is not
		}
		now := object(t, orEmpty(got.Bytes))
		for k, v := range object(t, orEmpty(old)) {
			switch {
			case k == "graph" || k == "oom-score-adjust" && major >= 25:
				require.NotContains(t, now, k)
			case k == "default-ulimits":
				if had, ok := v.(map[string]any); ok {
					for name, limit := range had {
						require.Equal(t, limit, now[k].(map[string]any)[name])
					}
				}
			default:
				require.Equal(t, v, now[k], "key %q", k)
			}
		}
		if !bytes.Contains(old, []byte("ulimit")) && !strings.Contains(flags, "ulimit") {
			require.Empty(t, limitsAbove(got.Bytes, s.Limits), "%s", got.Bytes)
		}
		again, err := MergeDaemonJSON(got.Bytes, s)
		require.NoError(t, err)
		require.Equal(t, string(got.Bytes), string(again.Bytes), "a second merge changes nothing")
	})
}

func orEmpty(b []byte) []byte {
	if len(bytes.TrimSpace(b)) == 0 {
		return []byte("{}")
	}
	return b
}

func merged(t *testing.T, old string, s DaemonSettings) (map[string]any, *DaemonMerge) {
	t.Helper()
	m, err := MergeDaemonJSON([]byte(old), s)
	require.NoError(t, err)
	return object(t, orEmpty(m.Bytes)), m
}

func TestMergeLimits(t *testing.T) {
	limit := func(m map[string]any, name string) any {
		return m["default-ulimits"].(map[string]any)[name].(map[string]any)["Hard"]
	}
	m, _ := merged(t, "", DaemonSettings{Limits: map[string]int64{"nofile": 20000, "nproc": 96365, "core": -1}})
	assert.EqualValues(t, 20000, limit(m, "nofile"))
	assert.EqualValues(t, 96365, limit(m, "nproc"))
	assert.EqualValues(t, -1, limit(m, "core"))
	m, _ = merged(t, "", DaemonSettings{Limits: map[string]int64{"nofile": 1048576, "nproc": -1, "core": 0}})
	assert.EqualValues(t, 1024000, limit(m, "nofile"))
	assert.EqualValues(t, 1024000, limit(m, "nproc"))
	assert.EqualValues(t, 0, limit(m, "core"))
	m, d := merged(t, `{"default-ulimits":{"nofile":{"Name":"nofile","Hard":50000,"Soft":50000}}}`, DaemonSettings{Limits: map[string]int64{"nofile": 20000}})
	assert.EqualValues(t, 50000, limit(m, "nofile"), "what the host has set stays")
	assert.Contains(t, m["default-ulimits"], "core", "and gets what it lacks")
	assert.Equal(t, []string{"default-ulimits of daemon.json has nofile 50000 > 20000, which the host allows: no container will start"}, d.Warnings)
}

// The flags that CentOS 7 gives its Docker go with the package: what they set is
// carried over, once.
func TestMergeFlags(t *testing.T) {
	centos := strings.Fields("--add-runtime docker-runc=/usr/libexec/docker/docker-runc-current --default-runtime=docker-runc --exec-opt native.cgroupdriver=systemd --userland-proxy-path=/usr/libexec/docker/docker-proxy-current --init-path=/usr/libexec/docker/docker-init-current --seccomp-profile=/etc/docker/seccomp.json --selinux-enabled --log-driver=journald --signature-verification=false --storage-driver overlay2 -g /data/docker --insecure-registry 10.0.0.1:5000 --insecure-registry=10.0.0.2:5000 --bip=10.9.0.1/24 --mtu 1400")
	m, d := merged(t, `{"bip":"10.8.0.1/24"}`, DaemonSettings{Lost: centos, Root: "/data/docker", Driver: "overlay2"})
	assert.Empty(t, d.Refusals)
	assert.Equal(t, "/data/docker", m["data-root"])
	assert.Equal(t, []any{"10.0.0.1:5000", "10.0.0.2:5000"}, m["insecure-registries"])
	assert.Equal(t, []any{"native.cgroupdriver=systemd"}, m["exec-opts"])
	assert.Equal(t, true, m["selinux-enabled"])
	assert.EqualValues(t, 1400, m["mtu"])
	assert.Equal(t, "10.8.0.1/24", m["bip"], "the file's own stays")
	assert.Equal(t, "json-file", m["log-driver"], "the profile's; containers keep theirs")
	for _, k := range []string{"add-runtime", "default-runtime", "seccomp-profile", "signature-verification", "init-path"} {
		assert.NotContains(t, m, k)
	}
	m, _ = merged(t, "{}", DaemonSettings{Kept: strings.Fields("-H fd:// --log-driver=journald --default-ulimit nofile=1024:1024 --data-root=/data"), Root: "/data", Driver: "overlay2"})
	for _, k := range []string{"log-driver", "log-opts", "default-ulimits", "data-root", "storage-driver"} {
		assert.NotContains(t, m, k, "dockerd refuses a setting that is given twice")
	}
}

func TestMergeRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		old  string
		s    DaemonSettings
		want string
	}{
		"data root":      {`{"data-root":"/new"}`, DaemonSettings{Root: "/var/lib/docker"}, `data-root of daemon.json is "/new", the present daemon has "/var/lib/docker"`},
		"storage driver": {`{"storage-driver":"vfs"}`, DaemonSettings{Driver: "overlay2"}, "every image and container would be hidden"},
		"flag and file":  {`{"bip":"10.0.0.1/24"}`, DaemonSettings{Kept: []string{"--bip=10.0.0.1/24"}}, "given twice"},
		"hosts":          {`{"hosts":["fd://"]}`, DaemonSettings{}, "gives the flag -H"},
		"red hat's own":  {`{"add-registry":["a"]}`, DaemonSettings{}, "no longer knows"},
		"gone":           {`{"cluster-store":"x"}`, DaemonSettings{Major: 26}, "no longer knows"},
		"odd limits":     {`{"default-ulimits":[]}`, DaemonSettings{}, "default-ulimits cannot be read"},
		"odd flag":       {`{}`, DaemonSettings{Lost: []string{"--mtu=big"}}, "mtu cannot be carried over"},
	} {
		_, m := merged(t, c.old, c.s)
		require.Len(t, m.Refusals, 1, name)
		assert.Contains(t, m.Refusals[0], c.want, name)
	}
	// A driver other than the usual is written down.
	m, _ := merged(t, "", DaemonSettings{Root: "/data", Driver: "devicemapper"})
	assert.Equal(t, "/data", m["data-root"])
	assert.Equal(t, "devicemapper", m["storage-driver"])
	m, _ = merged(t, `{"graph":"/data"}`, DaemonSettings{Root: "/data", Major: 26})
	assert.Equal(t, "/data", m["data-root"])
	assert.NotContains(t, m, "graph")
	assert.NotContains(t, m, "oom-score-adjust", "Docker 26 does not start with it")
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
