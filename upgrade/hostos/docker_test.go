package hostos

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
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
	out, err = output(soon(t), c, "stat -c %a /var/run/docker.sock", nil)
	require.NoError(t, err)
	assert.Equal(t, "660\n", out, "open to all only where asked (TestDockerCutOff)")

	f := &fake{run: func(string, io.Writer) error { return failed(3) }}
	assert.ErrorContains(t, EnableDocker(t.Context(), f), "cannot enable and start docker")
}

// upgradeOnce plans and runs one replacement on a simulated host.
func upgradeOnce(t *testing.T, c Host, key string, o DockerOptions, after func(script string) string) (*DockerResult, *DockerPlan, error) {
	t.Helper()
	now, err := GetDocker(soon(t), c)
	require.NoError(t, err)
	p, err := PlanDocker(now, nil, o)
	require.NoError(t, err)
	script, err := p.Script(key)
	require.NoError(t, err)
	if after != nil {
		script = after(script)
	}
	res, err := UpgradeDocker(soon(t), c, key, script, poll)
	return res, p, err
}

// Nothing is removed while anything that can be known before speaks against it.
func TestDockerStages(t *testing.T) {
	for name, tt := range map[string]struct {
		spec  func(*host.Spec)
		o     DockerOptions
		stage string
		say   string
	}{
		"another repository file": {nil, DockerOptions{RepoSHA256: strings.Repeat("0", 64)}, "get the repository's file", "another SHA-256"},
		"another section":         {nil, DockerOptions{Section: "docker-ce-test"}, "get the repository's file", "[docker-ce-test]"},
		"a version nobody has":    {nil, DockerOptions{Version: "99.0"}, "find the new packages", "docker-ce-99.0 is not offered"},
		"something goes along": {func(s *host.Spec) {
			s.Packages = []string{"cockpit-docker-195-1.el7.x86_64"}
			s.Needs = map[string]string{"cockpit-docker": "docker"}
		}, DockerOptions{}, "resolve the removal of the old packages", "cockpit-docker"},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, func(sp *host.Spec) {
				withServices(sp)
				if tt.spec != nil {
					tt.spec(sp)
				}
			})
			c := s.dial()
			_, _, err := upgradeOnce(t, c, "k", tt.o, nil)
			var de *DockerError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, tt.stage, de.Stage)
			assert.ErrorContains(t, err, tt.say)
			out, err := output(soon(t), c, "rpm -q docker docker-common && systemctl is-active docker && docker ps -q --no-trunc | wc -l; ls /etc/yum.repos.d", nil)
			require.NoError(t, err)
			assert.Contains(t, out, "active\n3\n", "all of it runs on")
			assert.NotContains(t, out, ".k\n", "no temporary file is left")
		})
	}
}

// A job that was cut off is begun again under a key of its own and goes on from
// where it was; one whose package transaction is unfinished is not.
func TestDockerCutOff(t *testing.T) {
	s := simulate(t, withServices)
	c := s.dial()
	before, err := GetDocker(soon(t), c)
	require.NoError(t, err)
	p, err := PlanDocker(before, nil, DockerOptions{})
	require.NoError(t, err)
	script, err := p.Script("k")
	require.NoError(t, err)
	// The first job ends without a status after it has removed the old packages.
	cut := strings.Replace(script, "if [ -n \"$new\" ]; then\n\tinstall", "[ -e /srv/again ] || { : >/srv/again; kill -9 $PPID $$; }\nif [ -n \"$new\" ]; then\n\tinstall", 1)
	require.NotEqual(t, script, cut)
	res, err := UpgradeDocker(soon(t), c, "k", cut, poll)
	require.NoError(t, err)
	assert.Equal(t, 2, res.Attempts)
	assert.Len(t, res.Installed, 3)
	assert.Len(t, res.Removed, 3, "against what there was before the first attempt")
	require.NoError(t, res.Check(p))
	again, err := UpgradeDocker(soon(t), c, "k", cut, poll)
	require.NoError(t, err)
	assert.Equal(t, res, again)
	now, err := StartDocker(soon(t), c, "k", before, true)
	require.NoError(t, err)
	now, err = StartContainers(soon(t), c, before, now, DockerOptions{}, poll)
	require.NoError(t, err)
	assert.Empty(t, CompareContainers(before, now))
	out, err := output(soon(t), c, "stat -c %a /run/docker.sock", nil)
	require.NoError(t, err)
	assert.Equal(t, "666\n", out)
}

// What one host has installed another one gets exactly; something else is named.
func TestDockerReplay(t *testing.T) {
	s := simulate(t, withServices)
	rehearsed, _, err := upgradeOnce(t, s.dial(), "k", DockerOptions{}, nil)
	require.NoError(t, err)
	s2 := simulate(t, withServices)
	res, p, err := upgradeOnce(t, s2.dial(), "k", DockerOptions{Replay: rehearsed.Installed}, nil)
	require.NoError(t, err)
	assert.True(t, p.Exact)
	require.NoError(t, res.Check(p))
	assert.Equal(t, rehearsed.Installed, res.Installed)
	assert.ErrorContains(t, (&DockerResult{Installed: []string{"docker-ce-3:26.1.4-1.el7.x86_64"}}).Check(p), "the recorded transaction does not have it")
	assert.ErrorContains(t, (&DockerResult{Removed: []string{"cockpit-0:1-1.x86_64"}}).Check(p), "cockpit-0:1-1.x86_64 was removed along")
	now, err := GetDocker(soon(t), s2.dial())
	require.NoError(t, err)
	p, err = PlanDocker(now, nil, DockerOptions{Replay: rehearsed.Installed})
	require.NoError(t, err)
	assert.Empty(t, p.Install, "all of it is there")
	// On a third one the repository has moved on.
	s3 := simulate(t, withServices)
	_, _, err = upgradeOnce(t, s3.dial(), "k", DockerOptions{Replay: []string{"docker-ce-3:19.03.1-3.el7.x86_64"}}, nil)
	assert.ErrorContains(t, err, "cannot find the new packages")
}

// daemon.json of somebody else is not overwritten, and what the limits forbid
// is named, with the file of before in place again.
func TestDockerConfig(t *testing.T) {
	const old = `{"data-root":"/var/lib/docker"}`
	s := simulate(t, func(sp *host.Spec) {
		withServices(sp)
		sp.Files[daemonJSON] = host.File{Data: []byte(old)}
	})
	c := s.dial()
	_, _, err := upgradeOnce(t, c, "other", DockerOptions{}, func(script string) string {
		return strings.Replace(script, "# daemon.json.", "echo '{\"debug\":true}' >/etc/docker/daemon.json\n# daemon.json.", 1)
	})
	var de *DockerError
	require.ErrorAs(t, err, &de)
	assert.Equal(t, "put daemon.json in place", de.Stage)
	assert.ErrorContains(t, err, "changed by somebody else")
	b, err := s.ReadFile(daemonJSON)
	require.NoError(t, err)
	assert.Equal(t, "{\"debug\":true}\n", string(b))

	s = simulate(t, func(sp *host.Spec) {
		withServices(sp)
		sp.Files[daemonJSON] = host.File{Data: []byte(old)}
	})
	c = s.dial()
	_, _, err = upgradeOnce(t, c, "high", DockerOptions{Uncapped: true, Profile: []byte(`{"default-ulimits":{"nofile":{"Hard":2000000,"Soft":2000000}}}`)}, nil)
	require.NoError(t, err)
	_, err = StartDocker(soon(t), c, "high", nil, false)
	var none *ContainerStartError
	require.ErrorAs(t, err, &none)
	assert.Equal(t, "nofile", none.Limit)
	assert.Equal(t, []string{"nofile 2000000 > 1048576"}, none.TooHigh)
	assert.ErrorContains(t, err, "the daemon.json from before is back in place, docker is active with it")
	b, err = s.ReadFile(daemonJSON)
	require.NoError(t, err)
	assert.Equal(t, old, string(b))
}
