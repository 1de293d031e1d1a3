package hostinv

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Kind says what a finding is about.
type Kind string

// The kinds of a finding.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
	Unknown Kind = "unknown" // a side could not be read, so that nothing can be said
)

// Severity says how bad a finding is.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Warn     Severity = "warn"
	Info     Severity = "info"
)

// severities in their order. Never written to.
var severities = []Severity{Critical, High, Warn, Info}

// Expect names the differences that the work on the host was meant to make.
// They stay in the comparison, marked as expected.
type Expect struct {
	KernelChanged  bool // another kernel; an unchanged one is then a finding
	ReleaseChanged bool // another OS release, and idle units that came or went with it
	DockerChanged  bool // another Docker version
	HostChanged    bool // another machine, such as a clone: host name
}

// A Finding is one difference between two inventories.
type Finding struct {
	Area     string   `json:"area"` // a section name
	Key      string   `json:"key"`  // what it is about, for instance "tcp *:8080"
	Kind     Kind     `json:"kind"`
	Field    string   `json:"field,omitempty"` // what of it changed
	Before   string   `json:"before,omitempty"`
	After    string   `json:"after,omitempty"`
	Severity Severity `json:"severity"`
	Expected bool     `json:"expected,omitempty"`
	Reason   string   `json:"reason,omitempty"` // why it matters
}

// A Comparison is the list of differences, in a stable order: worst first,
// then by area and key.
type Comparison struct {
	Findings []Finding `json:"findings"`
}

// Losses returns the findings that are critical or high and not expected:
// what must be looked at before going on.
func (c *Comparison) Losses() []Finding {
	var l []Finding
	for _, f := range c.Findings {
		if !f.Expected && (f.Severity == Critical || f.Severity == High) {
			l = append(l, f)
		}
	}
	return l
}

// Diff compares two inventories of one host, or of a host and its clone.
// Things are the same when what survives a restart is the same: directory and
// jar of a Java process, protocol, address and port of a listener, compose
// service or name of a container, name of a unit. Process IDs, container IDs,
// boot IDs and times do not count.
//
// What a side could not read is unknown, never empty: it is a finding, also
// where both sides could not read it.
func Diff(before, after *Inventory, expect Expect) *Comparison {
	d := &differ{before: before, after: after, expect: expect}
	d.host()
	d.java()
	d.listeners()
	d.containers()
	d.units()
	sort.SliceStable(d.out, func(i, j int) bool {
		a, b := d.out[i], d.out[j]
		if x, y := slices.Index(severities, a.Severity), slices.Index(severities, b.Severity); x != y {
			return x < y
		}
		if a.Area != b.Area {
			return a.Area < b.Area
		}
		if a.Key != b.Key {
			return a.Key < b.Key
		}
		return a.Field < b.Field
	})
	if d.out == nil {
		d.out = []Finding{}
	}
	return &Comparison{Findings: d.out}
}

type differ struct {
	before, after *Inventory
	expect        Expect
	out           []Finding
}

func (d *differ) add(f Finding) { d.out = append(d.out, f) }

// area begins a section. It says which sides list all there is, and makes
// the finding for what could not be read. go is false when a side says
// nothing at all.
func (d *differ) area(name string) (allBefore, allAfter, ok bool) {
	b, a := d.status(d.before, name), d.status(d.after, name)
	if b.Known() && a.Known() {
		return true, true, true
	}
	f := Finding{Area: name, Kind: Unknown, Before: string(b), After: string(a), Severity: High,
		Reason: "a side could not be read whole, so that nothing can be said about what it does not list"}
	for _, m := range []string{d.before.Sections[name].Message, d.after.Sections[name].Message} {
		if m != "" && !strings.Contains(f.Reason, m) {
			f.Reason += ": " + m
		}
	}
	d.add(f)
	return b.Known(), a.Known(), usable(b) && usable(a)
}

func (d *differ) status(i *Inventory, name string) Status {
	if s, ok := i.Sections[name]; ok {
		return s.Status
	}
	return StatusError // not collected
}

// usable: what is listed is right, even if more may exist.
func usable(s Status) bool {
	return s.Known() || s == StatusPartial || s == StatusTruncated
}

// value compares one value of the host.
func (d *differ) value(area, key, before, after string, sev Severity, expected bool, reason string) {
	if _, _, ok := d.area(area); ok && before != after {
		d.add(Finding{Area: area, Key: key, Kind: Changed, Before: before, After: after, Severity: sev, Expected: expected, Reason: reason})
	}
}

func (d *differ) host() {
	b, a, e := d.before, d.after, d.expect
	d.value(SectionKernel, "kernel", b.Kernel, a.Kernel, High, e.KernelChanged, "the kernel release is another one")
	known := d.status(b, SectionKernel).Known() && d.status(a, SectionKernel).Known()
	if e.KernelChanged && known && b.Kernel == a.Kernel {
		d.add(Finding{Area: SectionKernel, Key: "kernel", Kind: Changed, Before: b.Kernel, After: a.Kernel, Severity: Critical,
			Reason: "the kernel was to change and did not"})
	}
	d.value(SectionOS, "release", b.OS.text(), a.OS.text(), High, e.ReleaseChanged, "the OS release is another one")
	d.value(SectionHost, "hostname", b.Hostname, a.Hostname, High, e.HostChanged, "the host name is another one")
	bs, as := d.status(b, SectionDocker), d.status(a, SectionDocker)
	if bs.Known() && as.Known() {
		sev, reason := Warn, "the Docker version is another one"
		if a.Docker == "" {
			sev, reason = Critical, "Docker is gone"
		}
		d.value(SectionDocker, "docker", b.Docker, a.Docker, sev, e.DockerChanged && a.Docker != "", reason)
	} else {
		d.area(SectionDocker)
	}
}

func (o OS) text() string {
	if o.Release != "" {
		return o.Release
	}
	return o.Pretty
}

// multiset matches by key and count. Nil before or after = that many fewer.
func multiset[T any](before, after []T, key func(T) string) map[string][2][]T {
	m := map[string][2][]T{}
	for side, list := range [][]T{before, after} {
		for _, x := range list {
			p := m[key(x)]
			p[side] = append(p[side], x)
			m[key(x)] = p
		}
	}
	return m
}

// counts makes the findings for a key that one side has more often. It
// returns false when a side that lacks it may only have failed to show it.
func (d *differ) counts(area, key string, nb, na int, allBefore, allAfter bool, gone Severity, came Severity, what string) {
	switch {
	case nb > na && allAfter:
		d.add(Finding{Area: area, Key: key, Kind: Removed, Before: strconv.Itoa(nb), After: strconv.Itoa(na), Severity: gone, Reason: what + " is gone"})
	case na > nb && allBefore:
		d.add(Finding{Area: area, Key: key, Kind: Added, Before: strconv.Itoa(nb), After: strconv.Itoa(na), Severity: came, Reason: what + " is new"})
	}
}

func (j Java) key() string {
	what := j.Jar
	if what == "" {
		what = j.MainClass
	}
	k := j.Cwd + " " + path.Base(what)
	if j.Container != "" {
		k = "in a container: " + k
	}
	return k
}

func (d *differ) java() {
	allB, allA, ok := d.area(SectionJava)
	if !ok {
		return
	}
	for k, p := range multiset(d.before.Java, d.after.Java, Java.key) {
		if len(p[0]) != len(p[1]) {
			d.counts(SectionJava, k, len(p[0]), len(p[1]), allB, allA, Critical, Warn, "a Java process")
			continue
		}
		for _, c := range []struct {
			field string
			of    func(Java) string
			sev   Severity
		}{
			{"user", func(j Java) string { return j.User }, High},
			{"args", func(j Java) string { return strings.Join(j.Args, " ") }, Warn},
			{"exe", func(j Java) string { return j.Exe }, Warn},
		} {
			b, a := values(p[0], c.of), values(p[1], c.of)
			if b != a {
				d.add(Finding{Area: SectionJava, Key: k, Kind: Changed, Field: c.field, Before: b, After: a, Severity: c.sev,
					Reason: "the process runs differently"})
			}
		}
	}
}

// values is the sorted list of one field of several things.
func values[T any](list []T, of func(T) string) string {
	var v []string
	for _, x := range list {
		v = append(v, of(x))
	}
	sort.Strings(v)
	return strings.Join(v, "; ")
}

// scope is an address as far as it matters: all "any" addresses are one.
func (l Listener) scope() string {
	switch l.Addr {
	case "0.0.0.0", "::":
		return "*"
	}
	return l.Addr
}

func loopback(scope string) bool { return strings.HasPrefix(scope, "127.") || scope == "::1" }

func (d *differ) listeners() {
	allB, allA, ok := d.area(SectionListeners)
	if !ok {
		return
	}
	type port struct {
		proto string
		n     int
	}
	scopes := func(list []Listener) map[port][]string {
		m := map[port][]string{}
		for _, l := range list {
			if l.Proto == "udp" && l.Port >= 32768 {
				continue // an ephemeral port of a client
			}
			k := port{l.Proto, l.Port}
			if !slices.Contains(m[k], l.scope()) { // IPv4 and IPv6 of one service
				m[k] = append(m[k], l.scope())
			}
		}
		return m
	}
	b, a := scopes(d.before.Listeners), scopes(d.after.Listeners)
	ports := map[port]bool{}
	for k := range b {
		ports[k] = true
	}
	for k := range a {
		ports[k] = true
	}
	for k := range ports {
		var gone, came []string
		for _, s := range b[k] {
			if !slices.Contains(a[k], s) {
				gone = append(gone, s)
			}
		}
		for _, s := range a[k] {
			if !slices.Contains(b[k], s) {
				came = append(came, s)
			}
		}
		sort.Strings(gone)
		sort.Strings(came)
		key := func(s string) string { return fmt.Sprintf("%s %s:%d", k.proto, s, k.n) }
		if len(gone) > 0 && len(came) > 0 && allB && allA {
			f := Finding{Area: SectionListeners, Key: key("*"), Kind: Changed, Field: "address",
				Before: strings.Join(gone, ","), After: strings.Join(came, ","), Severity: High, Reason: "it listens on another address"}
			if slices.Contains(gone, "*") || slices.ContainsFunc(came, loopback) && !slices.ContainsFunc(gone, loopback) {
				f.Severity, f.Reason = Critical, "it can no longer be reached on every address it was"
			}
			d.add(f)
			continue
		}
		for _, s := range gone {
			sev := Critical
			if k.proto == "udp" {
				sev = High
			}
			if slices.Contains(a[k], "*") {
				sev = Info // the listener on every address serves it
			}
			d.counts(SectionListeners, key(s), 1, 0, allB, allA, sev, Warn, "a listener")
		}
		for _, s := range came {
			d.counts(SectionListeners, key(s), 0, 1, allB, allA, Critical, Warn, "a listener")
		}
	}
}

// key names a container by what survives: compose v1 and v2 name the same
// service differently.
func (c Container) key() string {
	if c.Compose.Project != "" {
		return c.Compose.Project + "/" + c.Compose.Service
	}
	return c.Name
}

func (p Port) text() string {
	return fmt.Sprintf("%s:%d->%d/%s", p.HostIP, p.HostPort, p.ContainerPort, p.Proto)
}

func (d *differ) containers() {
	allB, allA, ok := d.area(SectionContainers)
	if !ok {
		return
	}
	running := func(list []Container) int {
		n := 0
		for _, c := range list {
			if c.State == "running" {
				n++
			}
		}
		return n
	}
	for k, p := range multiset(d.before.Containers, d.after.Containers, Container.key) {
		b, a := p[0], p[1]
		if len(b) != len(a) {
			gone := Warn
			if running(b) > running(a) {
				gone = Critical
			}
			d.counts(SectionContainers, k, len(b), len(a), allB, allA, gone, Warn, "a container")
			continue
		}
		state := func(c Container) string { return c.State }
		if x, y := values(b, state), values(a, state); x != y {
			f := Finding{Area: SectionContainers, Key: k, Kind: Changed, Field: "state", Before: x, After: y, Severity: Warn,
				Reason: "the container's state is another one"}
			if running(b) > running(a) {
				f.Severity, f.Reason = Critical, "the container ran and does not run"
			}
			d.add(f)
		}
		for _, c := range []struct {
			field string
			of    func(Container) string
			sev   Severity
		}{
			{"health", func(c Container) string { return c.Health }, High},
			{"restart policy", func(c Container) string { return c.RestartPolicy }, High},
			{"image", func(c Container) string { return c.Image }, High},
			{"image id", func(c Container) string { return c.ImageID }, Warn},
			{"name", func(c Container) string { return c.Name }, Info},
			{"ports", func(c Container) string { return values(c.Ports, Port.text) }, High},
		} {
			x, y := values(b, c.of), values(a, c.of)
			if x == y {
				continue
			}
			sev := c.sev
			switch {
			case c.field == "health" && strings.Contains(y, "unhealthy"):
				sev = Critical
			case c.field == "health" && !strings.Contains(x, "unhealthy") && strings.Contains(y, "starting"):
				sev = Warn // it may settle
			case c.field == "health" && strings.Contains(y, "healthy"):
				sev = Info
			}
			d.add(Finding{Area: SectionContainers, Key: k, Kind: Changed, Field: c.field, Before: x, After: y, Severity: sev,
				Reason: "the container's " + c.field + " is another one"})
		}
	}
}

func (u Unit) runs() bool { return u.Active == "active" && u.Sub == "running" }

// class is the state as far as it matters: helpers of the boot that have done
// their work, and ones that had none to do, are both idle.
func (u Unit) class() string {
	switch {
	case u.Active == "failed":
		return "failed"
	case u.runs():
		return "running"
	}
	return "idle"
}

// transient units belong to sessions and single runs.
func (u Unit) transient() bool {
	return strings.HasPrefix(u.Name, "user@") || strings.HasPrefix(u.Name, "run-") || strings.HasPrefix(u.Name, "upgradectl-") ||
		strings.HasPrefix(u.Name, "session-") || strings.HasPrefix(u.Name, "user-runtime-dir@") || u.Enabled == "transient" ||
		u.Load == "not-found" && u.Active != "active"
}

func (d *differ) units() {
	allB, allA, ok := d.area(SectionUnits)
	if !ok {
		return
	}
	for k, p := range multiset(d.before.Units, d.after.Units, func(u Unit) string { return u.Name }) {
		if len(p[0]) > 0 && len(p[1]) > 0 {
			d.unit(k, p[0][0], p[1][0])
			continue
		}
		if len(p[1]) > 0 {
			u := p[1][0]
			if u.transient() || !allB {
				continue
			}
			f := Finding{Area: SectionUnits, Key: k, Kind: Added, After: u.text(), Severity: Info, Reason: "a unit is new", Expected: d.expect.ReleaseChanged}
			if u.Active == "failed" {
				f.Severity, f.Reason, f.Expected = High, "a new unit has failed", false
			}
			d.add(f)
			continue
		}
		u := p[0][0]
		if u.transient() || !allA {
			continue
		}
		f := Finding{Area: SectionUnits, Key: k, Kind: Removed, Before: u.text(), Severity: Info, Reason: "a unit is gone", Expected: d.expect.ReleaseChanged}
		switch {
		case u.runs():
			f.Severity, f.Expected = Critical, false
		case u.Enabled == "enabled":
			f.Severity = High // a release may bring its own set of boot-time helpers
		}
		d.add(f)
	}
}

func (u Unit) text() string {
	return strings.TrimSpace(strings.Join([]string{u.Active, u.Sub, u.Enabled}, " "))
}

func (d *differ) unit(k string, b, a Unit) {
	if x, y := b.class(), a.class(); x != y && (y == "failed" || !b.transient() && !a.transient()) {
		f := Finding{Area: SectionUnits, Key: k, Kind: Changed, Field: "state", Before: x, After: y, Severity: Info, Reason: "the unit's state is another one"}
		switch {
		case y == "failed" && x == "running":
			f.Severity, f.Reason = Critical, "the unit ran and has failed"
		case y == "failed":
			f.Severity, f.Reason = High, "the unit has failed"
		case x == "running":
			f.Severity, f.Reason = High, "the unit ran and does not run"
		}
		d.add(f)
	}
	if b.Enabled != a.Enabled {
		f := Finding{Area: SectionUnits, Key: k, Kind: Changed, Field: "enabled", Before: b.Enabled, After: a.Enabled, Severity: Info,
			Reason: "whether the unit starts at boot is another thing", Expected: d.expect.ReleaseChanged && b.Enabled != "enabled"}
		if b.Enabled == "enabled" {
			f.Severity, f.Reason = High, "the unit no longer starts at boot"
		}
		d.add(f)
	}
}
