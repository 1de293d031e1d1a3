package upgrade

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const minimalConfig = "version: 1\nprocedure: transition\nhost: web-90\n"

func TestLoadConfig(t *testing.T) {
	got, err := LoadConfig(filepath.Join("testdata", "config", "full.yaml"))
	require.NoError(t, err)
	dir, err := filepath.Abs(filepath.Join("testdata", "config"))
	require.NoError(t, err)
	assert.Equal(t, &Config{
		Dir:       dir,
		Version:   1,
		Procedure: ProcedureTransition,
		Host:      "172.31.0.90",
		Instance:  "i-web90",
		Address:   "172.31.0.90",
		Balancers: BalancersAuto,
		Cloud:     CloudConfig{Region: "cn-hangzhou", Endpoint: "http://127.0.0.1:40001"},
		SSH:       SSHConfig{Config: filepath.Join(dir, "ssh_config"), KnownHosts: []string{filepath.Join(dir, "known_hosts")}},
		Nginx: []NginxHost{
			{Host: "172.31.0.5", Conf: "/etc/nginx/nginx.conf"},
			{Host: "172.31.0.6", Conf: "/etc/nginx/nginx.conf"},
		},
		Services: []Service{
			{Name: "order", Kind: KindJava, Dir: "/srv/order", User: "app", Start: "./start.sh", Ports: []int{8080}, Health: "/health"},
			{Name: "shop", Kind: KindCompose, Dir: "/srv/shop", Ports: []int{8081}, Health: "/health"},
			{Name: "cache", Kind: KindContainer, Container: "cache", Ports: []int{8082}},
		},
		Transition: TransitionConfig{Name: "web-90-transition", AutoRelease: 24 * time.Hour, SSH: "{address}"},
		OS:         OSConfig{Production: ProductionReplay, Strategy: StrategyYumUpdate, Docker: DockerUpgrade, Reboot: true},
		Docker:     DockerConfig{Profile: ProfileRunbook},
		Snapshots:  SnapshotConfig{RetentionDays: 7},
		Paths:      PathsConfig{Check: PathsAuto},
		Health:     HealthConfig{Probes: 10, MaxErrorPercent: 1, Factor: 3, LatencyFloor: 500 * time.Millisecond, MinRequests: 20, Window: time.Minute},
		Weights:    WeightsConfig{Up: []int{1, 10}, Down: []int{50, 10, 1}},
		Gates:      []string{"4.1", "4.4", "5.3"},
		Pace: Pace{Poll: 3 * time.Second, Sample: time.Second, Observe: 10, Healthy: 3,
			Timeout: 30 * time.Minute, JobTimeout: 3 * time.Hour, CloudTimeout: 2 * time.Hour},
	}, got)
	assert.Equal(t, filepath.Join(dir, "file"), got.Path("file"))
	assert.Equal(t, "", got.Path(""))
	abs := filepath.Join(dir, "elsewhere")
	assert.Equal(t, abs, got.Path(abs))
}

// The defaults of the short file are the values of the long one.
func TestConfigDefaults(t *testing.T) {
	got, err := ParseConfig("dir/upgrade.yaml", []byte(minimalConfig))
	require.NoError(t, err)
	full, err := LoadConfig(filepath.Join("testdata", "config", "full.yaml"))
	require.NoError(t, err)
	assert.Equal(t, "dir", got.Dir)
	assert.Equal(t, full.Transition, got.Transition)
	assert.Equal(t, full.OS, got.OS)
	assert.Equal(t, full.Snapshots, got.Snapshots)
	assert.Equal(t, full.Paths, got.Paths)
	assert.Equal(t, full.Weights, got.Weights)
	assert.Equal(t, full.Gates, got.Gates)
	assert.Equal(t, full.Pace, got.Pace)
	assert.Equal(t, full.Balancers, got.Balancers)
	assert.Empty(t, got.Address, "a name is not an address")
	assert.Empty(t, got.Nginx)
	assert.Nil(t, got.SSH.KnownHosts, "nil means the user's own files")
}

func TestConfigDerived(t *testing.T) {
	for _, tt := range []struct{ host, address, name string }{
		{"172.31.0.90", "172.31.0.90", "transition-172.31.0.90"},
		{"root@172.31.0.90:2222", "172.31.0.90", "transition-172.31.0.90"},
		{"admin@web-90", "", "web-90-transition"},
		{"web-90.example.com:22", "", "web-90.example.com-transition"},
		{"'[fd00::90]:22'", "fd00::90", "transition-fd00--90"},
	} {
		c, err := ParseConfig("f", []byte("version: 1\nprocedure: transition\nhost: "+tt.host))
		require.NoError(t, err, tt.host)
		assert.Equal(t, tt.address, c.Address, tt.host)
		assert.Equal(t, tt.name, c.Transition.Name, tt.host)
	}
}

// All problems of a file are reported together, each at its own place.
func TestConfigProblems(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "config", "bad.yaml"))
	require.NoError(t, err)
	_, err = ParseConfig("bad.yaml", data)
	var ce *ConfigError
	require.ErrorAs(t, err, &ce)
	want, err := os.ReadFile(filepath.Join("testdata", "config", "bad.txt"))
	require.NoError(t, err)
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	assert.Equal(t, string(want), ce.Error()+"\n")
	assert.NotContains(t, ce.Error(), "AKIDVALUE", "values of unknown keys are not shown")
}

func TestConfigProblem(t *testing.T) {
	for name, tt := range map[string]struct{ add, want string }{
		"empty host":        {"instance: i-1\nhost: ''", `f:5:1: host: is given twice; the first is on line 3`},
		"null is absent":    {"instance:\n", ""},
		"no gates":          {"gates: []", ""},
		"never released":    {"transition: {auto_release: 0}", ""},
		"too short":         {"transition: {auto_release: 10m}", `f:4:28: transition.auto_release: "10m" is too short: at least 30m, or 0 for never`},
		"no unit":           {"pace: {poll: 3}", `f:4:14: pace.poll: "3" has no unit; write 3s, 3m or 3h`},
		"negative":          {"pace: {poll: -3s}", `f:4:14: pace.poll: "-3s" is too short: at least 1ms`},
		"hexadecimal":       {"pace: {observe: 0x10}", `f:4:17: pace.observe: "0x10" must be written in plain decimal digits`},
		"octal":             {"pace: {observe: 010}", `f:4:17: pace.observe: "010" has a leading zero, which some read as octal; write it without`},
		"float":             {"pace: {observe: 1.5}", `f:4:17: pace.observe: must be a whole number, not the number 1.5`},
		"unfit":             {"pace: {observe: 100, sample: 1m}", `f:4:7: pace.observe: 100 samples of 1m do not fit into a timeout of 30m`},
		"no section":        {"gates: [2.8]", `f:4:9: gates[0]: "2.8" is not a section of the procedure; docs/transition.md lists them`},
		"section 2.2":       {"gates: [2.2]", ""},
		"section 3.10":      {"gates: [3.10, 3.1]", ""},
		"quoted section":    {"gates: ['4.5']", ""},
		"endpoint loopback": {"cloud: {endpoint: 'http://[::1]:1'}", ""},
		"endpoint path":     {"cloud: {endpoint: 'https://a.example/x'}", `f:4:19: cloud.endpoint: "https://a.example/x" must be scheme and host only`},
		"endpoint secret":   {"cloud: {endpoint: 'https://u:p@a.example'}", `f:4:19: cloud.endpoint: "https://u:p@a.example" must be scheme and host only`},
		"alias":             {"os: &a {}\nssh: *a", `f:5:6: ssh: aliases are not supported; write the value out`},
		"merge key":         {"os:\n  <<: {}", `f:5:3: os.<<: unknown key; known are strategy, production, script, precheck, in_reboot, blackout, from, instructions, vault, exclude_ok, units_ok, allow_drift, kernel, release, docker, reboot`},
		"windows":           {"windows: {timezone: Asia/Shanghai, allow: ['Sat,Sun 01:00-05:00', '2026-11-28'], deny: ['2026-11-10 20:00 to 2026-11-12 08:00']}", ""},
		"windows no zone":   {"windows: {allow: ['Sat 01:00-05:00']}", `f:4:10: windows.timezone: is missing: whose clock the windows go by, such as Asia/Shanghai`},
		"windows zone":      {"windows: {timezone: Beijing, allow: ['Sat 01:00-05:00']}", `f:4:21: windows.timezone: "Beijing" is not the name of a time zone such as Asia/Shanghai`},
		"windows local":     {"windows: {timezone: Local, allow: ['Sat 01:00-05:00']}", `f:4:21: windows.timezone: "Local" is not the name of a time zone such as Asia/Shanghai`},
		"windows empty":     {"windows: {timezone: UTC}", `f:4:10: windows: names no time: give allow, deny, or both`},
		"windows day":       {"windows: {timezone: UTC, allow: ['Sam 01:00-05:00']}", `f:4:34: windows.allow[0]: "Sam 01:00-05:00" has a day that is none of Sun, Mon, Tue, Wed, Thu, Fri, Sat, or daily`},
		"windows hour":      {"windows: {timezone: UTC, deny: ['Sat 01:00-24:30']}", `f:4:33: windows.deny[0]: "Sat 01:00-24:30" has a time of day that is not between 00:00 and 24:00`},
		"windows date":      {"windows: {timezone: UTC, deny: ['2026-02-30']}", `f:4:33: windows.deny[0]: "2026-02-30" has a date that is in no calendar`},
		"windows backwards": {"windows: {timezone: UTC, deny: ['2026-02-03 to 2026-02-01']}", `f:4:33: windows.deny[0]: "2026-02-03 to 2026-02-01" ends before it begins`},
		"windows form":      {"windows: {timezone: UTC, allow: ['at night']}", `f:4:34: windows.allow[0]: "at night" is no time such as "Sat,Sun 01:00-05:00", "daily 01:00-05:00", "2026-11-28" or "2026-11-27 22:00 to 2026-11-28 06:00"`},
		"new disk":          {"os: {strategy: security, production: replace-system-disk}", ""},
		"new disk, no boot": {"os: {production: replace-system-disk, reboot: false}", `f:4:47: os.reboot: must be true with production: replace-system-disk: the new disk becomes production itself by a reboot`},
		"new disk, adopted": {"transition: {instance: i-2}\nservices: []\nos: {production: replace-system-disk}", `f:6:18: os.production: replace-system-disk needs a transition host that the run makes: transition.instance is no copy of production`},
		"script unused":     {"os: {script: up.sh}", `f:4:14: os.script: is used by strategy script only, not by yum-update`},
		"script missing":    {"os: {strategy: script}", `f:4:5: os.script: is missing: strategy script needs the file to run`},
		"same instance":     {"instance: i-1\ntransition: {instance: i-1}", `f:5:24: transition.instance: "i-1" is the production instance itself`},
		"one line":          {"os: {script: \"a\\nb\"}", `f:4:14: os.script: must be one line of text without control characters`},
		"no mapping":        {"services: [x]", "f:4:12: services[0]: must be a mapping of keys to values, not the text \"x\""},
		"health no port":    {"services: [{name: a, kind: unit, unit: a, health: /}]", `f:4:51: services[0].health: needs ports to ask on`},
		"quarantine":        {"transition: {quarantine: {hold: [crond], allow: [xinetd, '*']}}", `f:4:33: transition.quarantine.hold: holds back "crond", which transition.quarantine.allow lets run`},
		"quarantine good":   {"transition: {quarantine: {hold: [crond, 'rpc.statd.service', 'getty@tty1'], allow: [xinetd, machine-id], security_group: sg-1}}", ""},
		"quarantine option": {"transition: {quarantine: {hold: ['-f']}}", `f:4:34: transition.quarantine.hold[0]: "-f" is not the name of a systemd unit such as crond`},
		"quarantine shell":  {"transition: {quarantine: {allow: ['a;b']}}", `f:4:35: transition.quarantine.allow[0]: "a;b" is not the name of a systemd unit such as crond`},
		"quarantine twice":  {"transition: {quarantine: {hold: [crond, crond]}}", `f:4:41: transition.quarantine.hold[1]: "crond" is listed twice`},
		"quarantine list":   {"transition: {quarantine: [crond]}", `f:4:26: transition.quarantine: must be a mapping of keys to values, not a list`},
		"docker held back":  {"services: [{name: a, kind: container, container: a}]\ntransition: {quarantine: {hold: [docker.socket]}}", `f:5:33: transition.quarantine.hold: holds back "docker.socket" for good, which the service a needs; security_group keeps a first boot from reaching anybody`},
		"own service":       {"services: [{name: a, kind: unit, unit: a.service}]\ntransition: {quarantine: {hold: [a]}}", `f:5:33: transition.quarantine.hold: holds back "a", which is the service a`},
		"held back, adopted": {"transition: {instance: i-2, quarantine: {hold: [crond]}}",
			`f:4:41: transition.quarantine: is for a host that the run makes, not for transition.instance`},
		"no group":        {"transition: {quarantine: {security_group: web}}", `f:4:43: transition.quarantine.security_group: "web" is not the ID of a security group, sg-…`},
		"paths":           {"paths: {check: none, domains: [www.shop.example, _x.shop.example], accept: [fwd-1]}", ""},
		"paths check":     {"paths: {check: never}", `f:4:16: paths.check: "never" is not one of auto, none`},
		"paths key":       {"paths: {accepted: [a]}", `f:4:9: paths.accepted: unknown key; did you mean "accept"?`},
		"no domain":       {"paths: {domains: [localhost]}", `f:4:19: paths.domains[0]: "localhost" is not a domain name`},
		"domain URL":      {"paths: {domains: ['https://a.example']}", `f:4:19: paths.domains[0]: "https://a.example" is not a domain name`},
		"empty accept":    {"paths: {accept: ['']}", `f:4:18: paths.accept[0]: "" is empty`},
		"weights":         {"weights: {up: [5], down: [20, 2]}", ""},
		"weights at once": {"weights: {up: [], down: []}", ""},
		"weights fall":    {"weights: {up: [10, 1]}", `f:4:20: weights.up[1]: 1 does not follow 10: up weights rise`},
		"weights rise":    {"weights: {down: [1, 1]}", `f:4:21: weights.down[1]: 1 does not follow 1: down weights fall`},
		"weight 0":        {"weights: {down: [1, 0]}", `f:4:21: weights.down[1]: "0" is out of range: it must be 1 to 100`},
		"weight 101":      {"weights: {up: [101]}", `f:4:16: weights.up[0]: "101" is out of range: it must be 1 to 100`},
		"weight list":     {"weights: {up: 5}", `f:4:15: weights.up: must be a list, not the number 5`},
		"second document": {"---\nversion: 1", "f:4:1: a second document starts here; a file holds one procedure"},
		"not YAML":        {"os: {", "f:5:1: not valid YAML: while parsing a flow node: did not find expected node content"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig("f", []byte(minimalConfig+tt.add+"\n"))
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			assert.EqualError(t, err, tt.want)
		})
	}
	for name, tt := range map[string]struct{ src, want string }{
		"empty":     {"", "f:1:1: is empty; docs/config.md has an example"},
		"comments":  {"# nothing\n", "f:1:1: is empty; docs/config.md has an example"},
		"list":      {"- a", "f:1:1: must be a mapping of keys to values, not a list"},
		"not text":  {"version: 1\nhost: \xff", "f:2:7: is not UTF-8 text"},
		"too large": {strings.Repeat("#", maxConfigSize+1), "f:1:1: is larger than 1048576 bytes: not a configuration file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig("f", []byte(tt.src))
			assert.EqualError(t, err, tt.want)
		})
	}
}

func TestLoadConfigMissing(t *testing.T) {
	_, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	var ce *ConfigError
	assert.False(t, errors.As(err, &ce), "an unreadable file is no problem of its content")
}

func TestTargets(t *testing.T) {
	for s, ok := range map[string]bool{
		"web-90": true, "app@web-90": true, "172.31.0.5": true, "root@10.0.0.1:22": true, "fd00::1": true, "[fd00::1]:22": true,
		"": false, "-l": false, "a b": false, "a;b": false, "a@b@c": false, "10.0.0.256": false, "10.0.0": false,
		"h:0": false, "h:65536": false, "[web]:22": false, "a@-b": false, "$(id)": false, "h:22:22": false,
	} {
		assert.Equal(t, ok, checkTarget(s) == "", s)
	}
}

func FuzzConfig(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("testdata", "config", "*.yaml"))
	require.NoError(f, err)
	for _, n := range names {
		data, err := os.ReadFile(n)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(minimalConfig + "os: {"))
	f.Add([]byte("a: &a [*a]\r\n? [b]\n: c\n--- \u2028x"))
	f.Add([]byte("<<: *x\n%YAML 9.9"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("f.yaml", data)
		var ce *ConfigError
		switch {
		case err == nil:
			// What is accepted is complete and can stand in a plan.
			assert.NotEmpty(t, c.Host)
			assert.Equal(t, c.Procedure == ProcedureRebuild, c.Rebuild != nil)
			assert.Equal(t, c.Procedure == ProcedureTransition, c.Transition.Name != "")
			assert.Positive(t, c.Pace.Poll)
			_, err := json.Marshal(c)
			assert.NoError(t, err)
		case errors.As(err, &ce):
			require.NotEmpty(t, ce.Problems)
			lines := bytes.Split(data, []byte("\n"))
			for i, p := range ce.Problems {
				require.True(t, p.Line >= 1 && p.Line <= len(lines), "line %d of %d", p.Line, len(lines))
				require.True(t, p.Col >= 1 && p.Col <= utf8.RuneCount(lines[p.Line-1])+1, "column of %v", p)
				require.NotContains(t, p.String(), "\n")
				if i > 0 {
					q := ce.Problems[i-1]
					require.True(t, q.Line < p.Line || q.Line == p.Line && q.Col <= p.Col, "order: %v after %v", p, q)
				}
			}
		default:
			t.Fatalf("not a *ConfigError: %v", err)
		}
	})
}
