package hostos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// RunbookDaemonJSON is the daemon.json of section 3.5 of the transition
// runbook: the profile of DockerOptions that is used when none is given.
const RunbookDaemonJSON = `{
  "max-concurrent-downloads": 20,
  "log-driver": "json-file",
  "oom-score-adjust": -1000,
  "debug": false,
  "log-opts": {"max-size": "100M", "max-file": "10"},
  "default-ulimits": {
    "nofile": {"Name": "nofile", "Hard": 1024000, "Soft": 1024000},
    "nproc": {"Name": "nproc", "Hard": 1024000, "Soft": 1024000},
    "core": {"Name": "core", "Hard": -1, "Soft": -1}
  }
}`

// DaemonSettings say how MergeDaemonJSON changes a daemon.json.
type DaemonSettings struct {
	Profile []byte           // JSON object of settings to add; nil = RunbookDaemonJSON
	Limits  map[string]int64 // highest hard limits the host allows (Docker.Limits); nil = added limits are not capped
	Lost    []string         // flags of the present daemon that go with its package
	Kept    []string         // flags that the daemon will be started with as well
	Root    string           // data root of the present daemon, "" = unknown
	Driver  string           // its storage driver, "" = unknown
	Major   int              // major version of the daemon to come; 0 = unknown
}

// A DaemonMerge is what MergeDaemonJSON made.
type DaemonMerge struct {
	Bytes    []byte   // the merged file: the old bytes themselves when nothing had to change
	Changes  []string // what differs from the old file, a line each, without values of the host's own settings
	Warnings []string // what a person should know
	Refusals []string // why a daemon would not start with it, or not find its images
}

// goneKeys are settings that the daemon no longer knows from a major version
// on; one that is left in the file keeps it from starting ("the following
// directives don't match any configuration option"). Those of version 1 are Red
// Hat's own and were never known to docker-ce. Source: Docker's list of
// deprecated features, and the release notes of 19.03, 23.0, 25.0 and 26.0.
var goneKeys = map[string]int{
	"graph": 23, "oom-score-adjust": 25, "disable-legacy-registry": 19, "cluster-store": 23, "cluster-store-opts": 23, "cluster-advertise": 23,
	"add-registry": 1, "block-registry": 1, "registries": 1, "signature-verification": 1,
}

// MergeDaemonJSON adds settings to old, the present content of daemon.json
// (nil: there is none). What the host has set stays as it is: a data root or a
// registry mirror that disappears takes the images with it. Settings that the
// host has made by flags of a unit that goes with its package are carried over
// into the file; those of flags that stay are not put into it, because dockerd
// refuses a setting that is given twice.
//
// Limits that are added are capped at what the host allows: the kernel would
// refuse a higher one, and no container would start. Log options go with a log
// driver: a host that chose another one keeps its own, since dockerd refuses
// options that the driver does not know. Data root and storage driver of the
// present daemon are never changed.
//
// Merging the result again changes nothing. It is pure.
func MergeDaemonJSON(old []byte, s DaemonSettings) (*DaemonMerge, error) {
	have, err := jsonObject("cannot merge "+daemonJSON, old)
	if err != nil {
		return nil, err
	}
	if s.Profile == nil {
		s.Profile = []byte(RunbookDaemonJSON)
	}
	want, err := jsonObject("cannot read the profile of daemon.json", s.Profile)
	if err != nil {
		return nil, err
	}
	m := &DaemonMerge{Bytes: old}
	d := daemonFile{DaemonMerge: m, keys: have, own: maps.Clone(have), s: s, kept: daemonFlags(s.Kept), lost: daemonFlags(s.Lost)}
	d.rename()
	d.carry()
	d.add(want)
	d.pin()
	d.judge()
	if len(m.Changes) == 0 {
		return m, nil
	}
	out, err := json.MarshalIndent(d.keys, "", "    ")
	if err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", daemonJSON, err)
	}
	m.Bytes = append(out, '\n')
	return m, nil
}

// jsonObject reads a JSON object; nothing is the empty one.
func jsonObject(what string, b []byte) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(b)) == 0 {
		return m, nil
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: it is not a JSON object: %w", what, err)
	}
	if m == nil { // null
		m = map[string]json.RawMessage{}
	}
	return m, nil
}

// daemonFile is a merge under way.
type daemonFile struct {
	*DaemonMerge
	keys map[string]json.RawMessage // as it will be
	own  map[string]json.RawMessage // as the host had it
	s    DaemonSettings
	kept map[string][]string
	lost map[string][]string
}

func (d *daemonFile) change(format string, a ...any) {
	d.Changes = append(d.Changes, fmt.Sprintf(format, a...))
}
func (d *daemonFile) warn(format string, a ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, a...))
}
func (d *daemonFile) refuse(format string, a ...any) {
	d.Refusals = append(d.Refusals, fmt.Sprintf(format, a...))
}

func (d *daemonFile) has(key string) bool { _, ok := d.keys[key]; return ok }

// rename gives settings their present names.
func (d *daemonFile) rename() {
	if g, ok := d.keys["graph"]; ok {
		delete(d.keys, "graph")
		if !d.has("data-root") {
			d.keys["data-root"] = g
		}
		d.change("graph becomes data-root: Docker 23.0 and later do not start with the old name")
	}
	if d.has("oom-score-adjust") && d.s.Major >= goneKeys["oom-score-adjust"] {
		delete(d.keys, "oom-score-adjust")
		d.change("oom-score-adjust goes: Docker %d does not know it, its unit sets OOMScoreAdjust", d.s.Major)
	}
}

// carry takes over what the present daemon has from flags that will be gone.
func (d *daemonFile) carry() {
	for _, key := range slices.Sorted(maps.Keys(d.lost)) {
		if _, stays := d.kept[key]; stays || d.has(key) {
			continue
		}
		values := d.lost[key]
		kind, known := daemonKeys[key]
		switch {
		case plumbing[key]:
			continue
		case !known:
			d.warn("the daemon's flag --%s is not carried over: it has no known place in daemon.json", key)
			continue
		case key == "log-driver" || key == "log-opts":
			d.warn("the daemon's flag --%s is not carried over; containers keep the log driver they were made with", strings.TrimSuffix(key, "s"))
			continue
		}
		if v, err := kind(values); err == nil {
			d.keys[key] = v
			d.change("%s is carried over from the flags of the present daemon", key)
		} else {
			d.refuse("the daemon's flag for %s cannot be carried over: %v", key, err)
		}
	}
}

// add adds what the profile has and the host has not.
func (d *daemonFile) add(want map[string]json.RawMessage) {
	driver := "json-file"
	if v, ok := d.keys["log-driver"]; ok {
		driver = unquote(v)
	} else if v := d.kept["log-driver"]; len(v) > 0 {
		driver = v[0]
	}
	if driver != unquote(want["log-driver"]) {
		delete(want, "log-opts")
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if _, flag := d.kept[key]; flag {
			d.warn("%s stays as the unit's flag sets it: dockerd refuses a setting that is given twice", key)
			continue
		}
		if gone, ok := goneKeys[key]; ok && gone <= d.s.Major {
			d.warn("%s of the profile is left out: Docker %d does not know it", key, d.s.Major)
			continue
		}
		if key == "default-ulimits" {
			d.addLimits(want[key])
			continue
		}
		if !d.has(key) {
			d.keys[key] = want[key]
			d.change("%s = %s", key, compact(want[key]))
		}
	}
}

// ulimit is an entry of default-ulimits.
type ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// addLimits adds single limits, capped.
func (d *daemonFile) addLimits(raw json.RawMessage) {
	var want map[string]ulimit
	var have map[string]json.RawMessage
	if err := json.Unmarshal(raw, &want); err != nil {
		d.refuse("default-ulimits of the profile cannot be read: %v", err)
		return
	}
	if d.has("default-ulimits") {
		if err := json.Unmarshal(d.keys["default-ulimits"], &have); err != nil {
			d.refuse("default-ulimits cannot be read: %v", err)
			return
		}
	}
	if have == nil {
		have = map[string]json.RawMessage{}
	}
	added := false
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if _, ok := have[name]; ok {
			continue
		}
		l := want[name]
		l.Name = name
		asked := l.Hard
		if most, ok := d.s.Limits[name]; ok {
			l.Hard = capLimit(l.Hard, most)
			l.Soft = capLimit(l.Soft, most)
		}
		l.Soft = capLimit(l.Soft, l.Hard)
		b, err := json.Marshal(l)
		if err != nil {
			d.refuse("internal error: limit %s: %v", name, err)
			return
		}
		have[name], added = b, true
		if l.Hard != asked {
			d.change("default-ulimits.%s = %d, not %s: the host allows no more, and no container would start", name, l.Hard, limitText(asked))
		} else {
			d.change("default-ulimits.%s = %s", name, limitText(l.Hard))
		}
	}
	if !added {
		return
	}
	b, err := json.Marshal(have)
	if err != nil {
		d.refuse("internal error: default-ulimits: %v", err)
		return
	}
	d.keys["default-ulimits"] = b
}

// capLimit gives the lower of two limits, of which -1 is none.
func capLimit(v, most int64) int64 {
	switch {
	case most < 0:
		return v
	case v < 0:
		return most
	}
	return min(v, most)
}

// limitsAbove lists the limits of a daemon.json that are above what the host
// allows, as "nofile 1024000 > 20000".
func limitsAbove(daemon []byte, most map[string]int64) []string {
	var v struct {
		Limits map[string]ulimit `json:"default-ulimits"`
	}
	if json.Unmarshal(daemon, &v) != nil {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(v.Limits)) {
		hard := v.Limits[name].Hard
		if m, ok := most[name]; ok && capLimit(hard, m) != hard {
			out = append(out, fmt.Sprintf("%s %s > %d", name, limitText(hard), m))
		}
	}
	return out
}

func limitText(v int64) string {
	if v < 0 {
		return "unlimited"
	}
	return strconv.FormatInt(v, 10)
}

// pin keeps data root and storage driver: another one hides every image and
// container that there is.
func (d *daemonFile) pin() {
	same := func(key, present, usual string) {
		if present == "" {
			return
		}
		if v := d.kept[key]; len(v) > 0 {
			if v[0] != present {
				d.refuse("the unit's flag gives %s %q, the present daemon has %q: every image and container would be hidden", key, v[0], present)
			}
			return
		}
		if v, ok := d.keys[key]; ok {
			if got := unquote(v); strings.TrimRight(got, "/") != strings.TrimRight(present, "/") {
				d.refuse("%s of daemon.json is %q, the present daemon has %q: every image and container would be hidden after a restart", key, got, present)
			}
			return
		}
		if present != usual {
			b, err := json.Marshal(present)
			if err != nil {
				d.refuse("internal error: %s: %v", key, err)
				return
			}
			d.keys[key] = b
			d.change("%s = %s, which the present daemon has", key, b)
		}
	}
	same("data-root", d.s.Root, "/var/lib/docker")
	// overlay2 is what every daemon prefers where it has nothing yet, and finds
	// where it has something.
	same("storage-driver", d.s.Driver, "overlay2")
}

// judge looks for what a daemon would refuse.
func (d *daemonFile) judge() {
	for _, key := range slices.Sorted(maps.Keys(d.keys)) {
		if _, flag := d.kept[key]; flag {
			d.refuse("%s is set by a flag of the unit and in daemon.json: dockerd refuses a setting that is given twice", key)
		}
		gone, ok := goneKeys[key]
		switch {
		case !ok:
		case gone <= max(d.s.Major, 1):
			d.refuse("daemon.json has %s, which Docker no longer knows: it would not start", key)
		case d.s.Major == 0 && d.ownHas(key):
			d.warn("daemon.json has %s, with which Docker %d and later do not start", key, gone)
		}
	}
	if d.ownHas("hosts") && len(d.kept) == 0 {
		d.refuse("daemon.json has hosts, and the unit of docker-ce gives the flag -H: dockerd refuses a setting that is given twice; take it out, or give the unit a drop-in with an ExecStart of your own")
	}
	if raw, ok := d.own["default-ulimits"]; ok {
		for _, high := range limitsAbove([]byte(`{"default-ulimits":`+string(raw)+`}`), d.s.Limits) {
			d.warn("default-ulimits of daemon.json has %s, which the host allows: no container will start", high)
		}
	}
	if d.lost["add-registry"] != nil || d.lost["block-registry"] != nil {
		d.warn("the present daemon has registries added or blocked by flags of Red Hat's, which docker-ce does not have: an image without a registry's name is looked for elsewhere")
	}
}

func (d *daemonFile) ownHas(key string) bool { _, ok := d.own[key]; return ok }

func unquote(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) != nil {
		return string(v)
	}
	return s
}

func compact(v json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return string(v)
	}
	return b.String()
}

// plumbing are flags that a package's own unit gives, and that its successor
// gives as it needs them.
var plumbing = map[string]bool{
	"hosts": true, "pidfile": true, "exec-root": true, "containerd": true, "add-runtime": true, "default-runtime": true, "init-path": true,
	"userland-proxy-path": true, "seccomp-profile": true, "signature-verification": true, "authorization-plugins": true,
	"add-registry": true, "block-registry": true, "config-file": true,
}

// daemonKeys are the settings that flags are carried over into, and how.
var daemonKeys = map[string]func([]string) (json.RawMessage, error){
	"data-root": asText, "storage-driver": asText, "storage-opts": asList, "log-driver": asText, "log-opts": asList, "log-level": asText,
	"insecure-registries": asList, "registry-mirrors": asList, "bip": asText, "fixed-cidr": asText, "default-gateway": asText, "mtu": asNumber,
	"dns": asList, "dns-search": asList, "dns-opts": asList, "labels": asList, "exec-opts": asList, "group": asText, "bridge": asText, "ip": asText,
	"live-restore": asBool, "selinux-enabled": asBool, "iptables": asBool, "ip-masq": asBool, "ip-forward": asBool, "icc": asBool, "ipv6": asBool,
	"userland-proxy": asBool, "debug": asBool, "experimental": asBool, "userns-remap": asText, "cgroup-parent": asText,
	"max-concurrent-downloads": asNumber, "max-concurrent-uploads": asNumber, "oom-score-adjust": asNumber, "default-ulimits": asLimits,
	"tls": asBool, "tlsverify": asBool, "tlscacert": asText, "tlscert": asText, "tlskey": asText,
}

func asText(v []string) (json.RawMessage, error) { return json.Marshal(v[len(v)-1]) }
func asList(v []string) (json.RawMessage, error) { return json.Marshal(v) }
func asBool(v []string) (json.RawMessage, error) {
	b, err := strconv.ParseBool(v[len(v)-1])
	if err != nil {
		return nil, err
	}
	return json.Marshal(b)
}
func asNumber(v []string) (json.RawMessage, error) {
	n, err := strconv.Atoi(v[len(v)-1])
	if err != nil {
		return nil, err
	}
	return json.Marshal(n)
}

// asLimits reads NAME=SOFT[:HARD].
func asLimits(v []string) (json.RawMessage, error) {
	out := map[string]ulimit{}
	for _, s := range v {
		name, value, ok := strings.Cut(s, "=")
		soft, hard, two := strings.Cut(value, ":")
		if !two {
			hard = soft
		}
		a, err1 := strconv.ParseInt(soft, 10, 64)
		b, err2 := strconv.ParseInt(hard, 10, 64)
		if err := errors.Join(err1, err2); !ok || err != nil {
			return nil, fmt.Errorf("%q is not NAME=SOFT:HARD", s)
		}
		out[name] = ulimit{name, b, a}
	}
	return json.Marshal(out)
}

// flagKeys are the names of settings behind flags that are called otherwise.
var flagKeys = map[string]string{
	"g": "data-root", "graph": "data-root", "s": "storage-driver", "storage-opt": "storage-opts", "H": "hosts", "host": "hosts", "D": "debug",
	"l": "log-level", "G": "group", "p": "pidfile", "b": "bridge", "log-opt": "log-opts", "insecure-registry": "insecure-registries",
	"registry-mirror": "registry-mirrors", "dns-opt": "dns-opts", "label": "labels", "exec-opt": "exec-opts", "default-ulimit": "default-ulimits",
	"authorization-plugin": "authorization-plugins",
}

// daemonFlags reads the flags of a dockerd command line, by the names that the
// settings have in daemon.json.
func daemonFlags(args []string) map[string][]string {
	out := map[string][]string{}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "-")
		name, value, has := strings.Cut(name, "=")
		if k, ok := flagKeys[name]; ok {
			name = k
		}
		if name == "" {
			continue
		}
		if !has {
			value = "true"
			if !boolFlag(name) && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
				value = args[i]
			}
		}
		out[name] = append(out[name], strings.Trim(value, `'"`))
	}
	return out
}

// boolFlag tells whether a flag stands alone.
func boolFlag(key string) bool {
	switch key {
	case "live-restore", "selinux-enabled", "iptables", "ip-masq", "ip-forward", "icc", "ipv6", "userland-proxy", "debug", "experimental", "tls", "tlsverify", "signature-verification":
		return true
	}
	return false
}
