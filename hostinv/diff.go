package hostinv

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Kind says what happened to a thing.
type Kind string

// The kinds of a finding.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Altered Kind = "changed"
	Unknown Kind = "unknown" // a side could not be read, so that nothing can be said
)

// Severity says what a finding means.
type Severity string

// The severities, worst first.
const (
	Lost     Severity = "lost"     // what worked before does not, or that cannot be shown
	Changed  Severity = "changed"  // it is different; a person should know
	New      Severity = "new"      // it was not there before
	Expected Severity = "expected" // the work on the host was meant to make it
)

// severities in their order. Never written to.
var severities = []Severity{Lost, Changed, New, Expected}

// A Finding is one difference between two inventories.
type Finding struct {
	Area     string   `json:"area"` // a section name
	Key      string   `json:"key"`  // what it is about, for instance "tcp *:8080"
	Kind     Kind     `json:"kind"`
	Field    string   `json:"field,omitempty"`  // what of it changed
	Before   string   `json:"before,omitempty"` // of added and removed: how many there were
	After    string   `json:"after,omitempty"`
	Severity Severity `json:"severity"`
	Reason   string   `json:"reason,omitempty"` // why it matters, in English; Text and Markdown know it in Chinese
	Detail   string   `json:"detail,omitempty"` // what the host said about it
}

// A Comparison is the list of differences, in a stable order: worst first,
// then by area and key.
type Comparison struct {
	Findings []Finding `json:"findings"`
}

// Losses returns the findings that must be looked at before going on.
func (c *Comparison) Losses() []Finding {
	var l []Finding
	for _, f := range c.Findings {
		if f.Severity == Lost {
			l = append(l, f)
		}
	}
	return l
}

// Count returns how many findings have a severity.
func (c *Comparison) Count(s Severity) (n int) {
	for _, f := range c.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Diff compares two inventories of one host, or of a host and its clone.
// Things are the same when what survives a restart is the same: directory and
// jar of a Java process, protocol, address and port of a listener, compose
// service or name of a container, name of a unit; docs/inventory.md has the
// identity of every section. Process IDs, container IDs and times do not
// count, nor do counters, ephemeral ports and what comes and goes by itself.
//
// What a side could not read is unknown, never empty: it is a finding, also
// where both sides could not read it.
func Diff(before, after *Inventory, expect Expect) *Comparison {
	d := &differ{before: before, after: after, expect: expect}
	for _, a := range areas {
		if a.section != SectionConnections || expect.Peers {
			d.compare(a)
		}
	}
	d.listeners()
	d.kernel()
	for i := range d.out {
		expect.apply(&d.out[i])
	}
	sort.SliceStable(d.out, func(i, j int) bool {
		a, b := d.out[i], d.out[j]
		switch {
		case a.Severity != b.Severity:
			return slices.Index(severities, a.Severity) < slices.Index(severities, b.Severity)
		case a.Area != b.Area:
			return a.Area < b.Area
		case a.Key != b.Key:
			return a.Key < b.Key
		case a.Field != b.Field:
			return a.Field < b.Field
		case a.Kind != b.Kind:
			return a.Kind < b.Kind
		}
		return a.Before+"\x00"+a.After < b.Before+"\x00"+b.After
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

// needed are the areas without which nobody can say that all that ran runs.
// Never written to.
var needed = []string{SectionOS, SectionKernel, SectionHost, SectionListeners, SectionJava, SectionDocker, SectionContainers, SectionUnits}

// area begins a section. It says which sides list all there is, and makes
// the finding for what could not be read. ok is false when a side says
// nothing at all.
func (d *differ) area(name string) (allBefore, allAfter, ok bool) {
	b, a := d.status(d.before, name), d.status(d.after, name)
	if b.Known() && a.Known() {
		return true, true, true
	}
	f := Finding{Area: name, Kind: Unknown, Before: string(b), After: string(a), Severity: Changed, Reason: reasonUnknown}
	if slices.Contains(needed, name) {
		f.Severity = Lost
	}
	var said []string
	for _, i := range []*Inventory{d.before, d.after} {
		s := i.Sections[name]
		for _, m := range append([]string{s.Message}, s.Unreadable...) {
			if m != "" && !slices.Contains(said, m) {
				said = append(said, m)
			}
		}
	}
	sort.Strings(said)
	f.Detail = strings.Join(said, "; ")
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

// A row is a thing of an area.
type row struct {
	key    string  // identity that survives a reboot
	alias  string  // another identity, by which a renamed one is known; "" = none
	brief  bool    // it may have come and gone by itself: it counts only where the other side has it
	lesser bool    // it is no loss when it goes
	fields []field // what is compared
	what   any     // the thing, for judge
}

type field struct{ name, value string }

func (r row) value(name string) string {
	for _, f := range r.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// An area says how a section is compared.
type area struct {
	section string
	rows    func(*Inventory) []row
	once    bool // presence counts, not how many
	// judge corrects severity and reason of a finding; before and after are
	// the rows with the key, one side empty when it was added or removed. False
	// drops the finding.
	judge func(d *differ, f *Finding, before, after []row) bool
}

// compare matches the rows of both sides by key and count.
func (d *differ) compare(a area) {
	allB, allA, ok := d.area(a.section)
	if !ok {
		return
	}
	type pair struct{ b, a []row }
	m := map[string]*pair{}
	at := func(key string) *pair {
		if m[key] == nil {
			m[key] = &pair{}
		}
		return m[key]
	}
	for _, r := range a.rows(d.before) {
		at(r.key).b = append(at(r.key).b, r)
	}
	for _, r := range a.rows(d.after) {
		at(r.key).a = append(at(r.key).a, r)
	}
	// What has gone under one name and come under another is renamed, if it is
	// the only one with that alias on both sides.
	gone, came := map[string][]string{}, map[string][]string{}
	for key, p := range m {
		switch {
		case len(p.a) == 0 && len(p.b) == 1 && p.b[0].alias != "":
			gone[p.b[0].alias] = append(gone[p.b[0].alias], key)
		case len(p.b) == 0 && len(p.a) == 1 && p.a[0].alias != "":
			came[p.a[0].alias] = append(came[p.a[0].alias], key)
		}
	}
	say := func(f Finding, p *pair) {
		f.Area = a.section
		switch f.Kind {
		case Removed:
			f.Severity, f.Reason = Lost, reasonGone
			if p.b[0].lesser {
				f.Severity = Changed
			}
		case Added:
			f.Severity, f.Reason = New, reasonNew
		default:
			f.Severity, f.Reason = Changed, reasonDiffers
		}
		if a.judge == nil || a.judge(d, &f, p.b, p.a) {
			d.add(f)
		}
	}
	for alias, keys := range gone {
		if len(keys) == 1 && len(came[alias]) == 1 && allB && allA {
			old, now := keys[0], came[alias][0]
			p := &pair{m[old].b, m[now].a}
			delete(m, old)
			delete(m, now)
			// The lesser name stands for both, whichever side it is on.
			say(Finding{Key: min(old, now), Kind: Altered, Field: "name", Before: old, After: now}, p)
			d.fields(min(old, now), p.b, p.a, func(f Finding) { say(f, p) })
		}
	}
	for key, p := range m {
		nb, na := len(p.b), len(p.a)
		if a.once {
			nb, na = min(nb, 1), min(na, 1)
		}
		isBrief := func(r row) bool { return r.brief }
		switch {
		case a.once && (slices.ContainsFunc(p.b, isBrief) || slices.ContainsFunc(p.a, isBrief)):
		case nb == na:
			d.fields(key, p.b, p.a, func(f Finding) { say(f, p) })
		case slices.ContainsFunc(p.b, isBrief) || slices.ContainsFunc(p.a, isBrief):
		case nb > na && allA:
			say(Finding{Key: key, Kind: Removed, Before: strconv.Itoa(nb), After: strconv.Itoa(na)}, p)
		case na > nb && allB:
			say(Finding{Key: key, Kind: Added, Before: strconv.Itoa(nb), After: strconv.Itoa(na)}, p)
		}
	}
}

// fields compares each field of rows with one key.
func (d *differ) fields(key string, before, after []row, say func(Finding)) {
	for _, f := range before[0].fields {
		of := func(r row) string { return r.value(f.name) }
		if b, a := values(before, of), values(after, of); b != a {
			say(Finding{Key: key, Kind: Altered, Field: f.name, Before: b, After: a})
		}
	}
}

// values is the sorted list of one field of several things.
func values[T any](list []T, of func(T) string) string {
	if len(list) == 1 {
		return of(list[0])
	}
	var v []string
	for _, x := range list {
		v = append(v, of(x))
	}
	sort.Strings(v)
	return strings.Join(v, "; ")
}

// kernel says when the change that was meant did not happen.
func (d *differ) kernel() {
	b, a := d.before.Kernel, d.after.Kernel
	if !d.status(d.before, SectionKernel).Known() || !d.status(d.after, SectionKernel).Known() {
		return
	}
	f := Finding{Area: SectionKernel, Key: "kernel", Kind: Altered, Field: "release", Before: b, After: a, Severity: Lost}
	switch want := d.expect.Kernel; {
	case want != "" && a != want:
		f.Reason, f.Detail = reasonNotMeant, want
		d.out = slices.DeleteFunc(d.out, func(o Finding) bool { return o.Area == f.Area && o.Key == f.Key && o.Field == f.Field })
	case want == "" && d.expect.KernelChanged && b == a:
		f.Reason = reasonSameKernel
	default:
		return
	}
	d.add(f)
}
