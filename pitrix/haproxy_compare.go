package pitrix

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/redact"
)

// A HAProxyKind says what a difference is about.
type HAProxyKind string

// What a HAProxyDifference is about.
const (
	HAProxySection   HAProxyKind = "section"   // one side has no such section
	HAProxyBind      HAProxyKind = "bind"      // an address to listen on, with its options
	HAProxyServer    HAProxyKind = "server"    // a server, its address or options
	HAProxyMode      HAProxyKind = "mode"      // tcp or http, from the section or its defaults
	HAProxyBalance   HAProxyKind = "balance"   // from the section or its defaults
	HAProxyDirective HAProxyKind = "directive" // any other line
	HAProxyOrder     HAProxyKind = "order"     // rules that are evaluated one after the other
)

// HAProxyOptions says how two files are compared.
type HAProxyOptions struct {
	// Sub: the node is in a sub region or sub zone. There the back ends of api,
	// ws and io are those of the global zone, which the generated file does not
	// know.
	Sub bool
	// Addresses of the new node stand for others of the old one: temporary for
	// final.
	Addresses map[string]string
	// IgnorePorts are those whose sections are not compared; nil means 8081, the
	// website, which moved elsewhere.
	IgnorePorts []int
}

// A HAProxyDifference is one thing that the two files say otherwise. An empty
// Old or New: that side does not have it.
type HAProxyDifference struct {
	Kind    HAProxyKind `json:"kind"`
	Section string      `json:"section"`        // "listen api-front"
	Item    string      `json:"item,omitempty"` // "server apiserver_0", "bind"
	Old     string      `json:"old,omitempty"`
	New     string      `json:"new,omitempty"`
	// OldLine and NewLine count from 1; 0: that side does not have it.
	OldLine int `json:"old_line,omitempty"`
	NewLine int `json:"new_line,omitempty"`
	// MustCarryOver: without it the new node serves less than the old one.
	MustCarryOver bool   `json:"must_carry_over"`
	Why           string `json:"why,omitempty"`
}

// String returns the difference as one line.
func (d HAProxyDifference) String() string {
	name := d.Section
	if d.Item != "" {
		name += ": " + d.Item
	}
	or := func(s string, line int) string {
		if line == 0 {
			return "nothing"
		}
		return fmt.Sprintf("%q (line %d)", s, line)
	}
	s := fmt.Sprintf("%s: old %s, new %s", name, or(d.Old, d.OldLine), or(d.New, d.NewLine))
	if d.Why != "" {
		s += "; " + d.Why
	}
	return s
}

// A HAProxyDiff is what CompareHAProxy found.
type HAProxyDiff struct {
	// Differences in the order of the old file, then what only the new one has.
	Differences []HAProxyDifference `json:"differences"`
	// Ignored are those of sections on ports that are not compared.
	Ignored []HAProxyDifference `json:"ignored"`

	old, new *HAProxy
	opts     HAProxyOptions
}

// Equal reports whether nothing but ignored things differ.
func (d *HAProxyDiff) Equal() bool { return len(d.Differences) == 0 }

// MustCarryOver returns the differences that CarryOver removes.
func (d *HAProxyDiff) MustCarryOver() []HAProxyDifference {
	var out []HAProxyDifference
	for _, x := range d.Differences {
		if x.MustCarryOver {
			out = append(out, x)
		}
	}
	return out
}

// haItem is one thing of a section in normal form.
type haItem struct {
	value string // what is compared
	shown string
	line  haLine
}

// haNormal is a section in normal form.
type haNormal struct {
	binds, servers map[string]haItem // by address, by name
	lines          map[string]haItem // other lines
	ordered        map[string][]haItem
	mode, balance  string
	modeLine       int
	balanceLine    int
	ports          []int
}

// orderedWords begin lines that are evaluated one after the other.
func orderedWords() []string {
	return []string{
		"acl", "use_backend", "use-server", "http-request", "http-response", "http-after-response", "tcp-request", "tcp-response",
		"redirect", "block", "reqadd", "reqdel", "reqrep", "reqirep", "reqallow", "reqdeny", "rspadd", "rspdel", "rsprep", "rspirep",
		"filter", "stick", "errorfile", "http-check", "tcp-check", "option tcp-check",
	}
}

// serverWords are options of a server; the words between two of them belong to
// the first.
func serverWords() []string {
	return []string{
		"addr", "agent-check", "agent-inter", "agent-port", "agent-send", "allow-0rtt", "alpn", "backup", "ca-file", "check", "check-alpn",
		"check-proto", "check-send-proxy", "check-sni", "check-ssl", "check-via-socks4", "ciphers", "cookie", "crl-file", "crt", "disabled",
		"downinter", "enabled", "error-limit", "fall", "fastinter", "force-sslv3", "force-tlsv10", "force-tlsv11", "force-tlsv12", "force-tlsv13",
		"id", "init-addr", "inter", "log-proto", "max-reuse", "maxconn", "maxqueue", "minconn", "namespace", "no-backup", "no-check",
		"no-check-ssl", "no-send-proxy", "no-ssl", "no-sslv3", "no-tls-tickets", "no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13", "no-verifyhost",
		"non-stick", "npn", "observe", "on-error", "on-marked-down", "on-marked-up", "pool-low-conn", "pool-max-conn", "pool-purge-delay", "port",
		"proto", "redir", "resolve-net", "resolve-opts", "resolve-prefer", "resolvers", "rise", "send-proxy", "send-proxy-v2", "set-proxy-v2-tlv-fmt",
		"shard", "sigalgs", "slowstart", "sni", "socks4", "source", "ssl", "ssl-max-ver", "ssl-min-ver", "ssl-reuse", "stick", "tfo", "tls-tickets",
		"track", "usesrc", "verify", "verifyhost", "weight", "ws",
	}
}

// options brings the options of a server into one order, if all are known.
func options(words []string) string {
	known := serverWords()
	var groups []string
	for _, w := range words {
		switch {
		case slices.Contains(known, w):
			groups = append(groups, w)
		case len(groups) == 0:
			return strings.Join(words, " ")
		default:
			groups[len(groups)-1] += " " + w
		}
	}
	// Of an option that is there twice the last one counts; haproxy knows.
	slices.SortStableFunc(groups, func(a, b string) int {
		x, _, _ := strings.Cut(a, " ")
		y, _, _ := strings.Cut(b, " ")
		return cmp.Compare(x, y)
	})
	return strings.Join(groups, " ")
}

// address brings ADDRESS:PORT into one form: nothing and * are 0.0.0.0.
func haAddress(s string) (string, int) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s, 0
	}
	if host == "" || host == "*" {
		host = "0.0.0.0"
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		n = 0
	}
	return net.JoinHostPort(host, port), n
}

// normal returns the section in normal form. Defaults are the lines of the
// defaults section before it.
func (h *HAProxy) normal(s haSection, defaults *haSection, addresses map[string]string) *haNormal {
	n := &haNormal{binds: map[string]haItem{}, servers: map[string]haItem{}, lines: map[string]haItem{}, ordered: map[string][]haItem{}}
	proxy := s.kind == "listen" || s.kind == "frontend" || s.kind == "backend"
	word := func(w string) string {
		out, _ := replaceAddresses(w, addresses)
		return out
	}
	bind := func(list string, opts []string, l haLine) {
		for _, a := range strings.Split(word(list), ",") {
			// A range and a socket are taken as they are.
			at, port := haAddress(a)
			if port != 0 {
				n.ports = append(n.ports, port)
			}
			value := strings.TrimSpace(at + " " + options(opts))
			n.binds[at] = haItem{value, value, l}
		}
	}
	// The old form: listen NAME ADDRESS:PORT.
	if (s.kind == "listen" || s.kind == "frontend") && len(s.header.words) > 2 && strings.Contains(s.header.words[2].text, ":") {
		var opts []string
		for _, w := range s.header.words[3:] {
			opts = append(opts, w.text)
		}
		bind(s.header.words[2].text, opts, s.header)
	}
	inherit := func(from *haSection, own bool) {
		for _, l := range from.lines {
			w := l.texts()
			switch {
			case w[0] == "mode" && len(w) > 1:
				n.mode, n.modeLine = w[1], 0
				if own {
					n.modeLine = l.line
				}
			case w[0] == "balance" && len(w) > 1:
				n.balance, n.balanceLine = strings.Join(w[1:], " "), 0
				if own {
					n.balanceLine = l.line
				}
			}
		}
	}
	if proxy {
		n.mode, n.balance = "tcp", "roundrobin" // haproxy's own defaults
		if defaults != nil {
			inherit(defaults, false)
		}
		inherit(&s, true)
	}
	ordered := orderedWords()
	for _, l := range s.lines {
		w := l.texts()
		switch {
		case w[0] == "bind" && len(w) > 1:
			bind(w[1], w[2:], l)
		case w[0] == "server" && len(w) > 2:
			at, _ := haAddress(word(w[2]))
			for i := range w[3:] {
				w[3+i] = word(w[3+i])
			}
			value := strings.TrimSpace(at + " " + options(w[3:]))
			n.servers[w[1]] = haItem{value, value, l}
		case proxy && (w[0] == "mode" || w[0] == "balance"):
		default:
			for i := range w {
				w[i] = word(w[i])
			}
			text := strings.Join(hidden(w), " ")
			// Quoting can make two different lines one text.
			key := strings.Join(w, "\x00")
			item := haItem{key, text, l}
			n.lines[key] = item
			if slices.Contains(ordered, w[0]) {
				n.ordered[w[0]] = append(n.ordered[w[0]], item)
			}
		}
	}
	return n
}

// hidden returns the words of a line as they are shown: without passwords.
func hidden(words []string) []string {
	out := slices.Clone(words)
	switch {
	case len(out) > 2 && out[0] == "stats" && out[1] == "auth":
		user, _, _ := strings.Cut(out[2], ":")
		out[2] = user + ":" + redact.Mark
	case out[0] == "user":
		for i := range out[1:] {
			if (out[i] == "password" || out[i] == "insecure-password") && i > 0 {
				out[i+1] = redact.Mark
			}
		}
	}
	return out
}

// CompareHAProxy compares what two files mean: sections by kind and name,
// wherever they stand; the addresses they bind, in the header or in bind lines;
// servers by name; mode and balance as they are in effect; every other line as
// its words. Comments, blanks and the order of lines do not count, but for
// rules that are evaluated one after the other.
//
// A section, a bind or a server that only the old file has was made by hand, for
// the new file is generated from the same settings: it must be carried over. So
// must be the servers of api, ws and io in a sub region or sub zone.
func CompareHAProxy(old, new *HAProxy, opts HAProxyOptions) *HAProxyDiff {
	if opts.IgnorePorts == nil {
		opts.IgnorePorts = []int{8081}
	}
	d := &HAProxyDiff{Differences: []HAProxyDifference{}, Ignored: []HAProxyDifference{}, old: old, new: new, opts: opts}
	oldDefaults, newDefaults := old.defaults(), new.defaults()
	count := map[string]int{} // of sections without a name
	counted := func(s haSection) int { count[s.title()]++; return count[s.title()] }
	inOld := map[string]map[int]bool{}
	for i, s := range old.sections {
		k := counted(s)
		if inOld[s.title()] == nil {
			inOld[s.title()] = map[int]bool{}
		}
		inOld[s.title()][k] = true
		a := old.normal(s, oldDefaults[i], nil)
		j := new.nth(s.title(), k)
		if j < 0 {
			x := HAProxyDifference{Kind: HAProxySection, Section: s.title(), Old: s.title(), OldLine: s.header.line}
			if s.kind != "global" && s.kind != "defaults" {
				x.MustCarryOver, x.Why = true, "the generated file does not have the section; it was made by hand"
			}
			d.add(a, nil, x)
			continue
		}
		d.section(s, new.sections[j], a, new.normal(new.sections[j], newDefaults[j], opts.Addresses))
	}
	clear(count)
	for j, s := range new.sections {
		if !inOld[s.title()][counted(s)] {
			b := new.normal(s, newDefaults[j], opts.Addresses)
			d.add(nil, b, HAProxyDifference{Kind: HAProxySection, Section: s.title(), New: s.title(), NewLine: s.header.line})
		}
	}
	return d
}

// defaults returns for each section the defaults section it has: the last one
// before it.
func (h *HAProxy) defaults() []*haSection {
	out := make([]*haSection, len(h.sections))
	var last *haSection
	for i := range h.sections {
		out[i] = last
		if h.sections[i].kind == "defaults" {
			last = &h.sections[i]
		}
	}
	return out
}

// nth returns the place of the k-th section of the title, or -1.
func (h *HAProxy) nth(title string, k int) int {
	for i, s := range h.sections {
		if s.title() == title {
			if k--; k == 0 {
				return i
			}
		}
	}
	return -1
}

// add puts a difference where it belongs.
func (d *HAProxyDiff) add(a, b *haNormal, x HAProxyDifference) {
	ignored := func(n *haNormal) bool {
		return n == nil || len(n.ports) > 0 && !slices.ContainsFunc(n.ports, func(p int) bool { return !slices.Contains(d.opts.IgnorePorts, p) })
	}
	if ignored(a) && ignored(b) {
		x.MustCarryOver, x.Why = false, "its port is not compared"
		d.Ignored = append(d.Ignored, x)
		return
	}
	d.Differences = append(d.Differences, x)
}

// global says whether the section is one whose back ends are those of the global
// zone: api-front, also called api-server, ws-front and io-front, with or
// without a zone before the name.
func toGlobal(name string) bool {
	for _, front := range []string{"api-front", "api-server", "ws-front", "io-front"} {
		if name == front || strings.HasSuffix(name, "-"+front) {
			return true
		}
	}
	return false
}

func (d *HAProxyDiff) section(s, t haSection, a, b *haNormal) {
	title := s.title()
	const byHand = "the generated file does not have it; it was made by hand"
	pairs := func(kind HAProxyKind, item string, old, new map[string]haItem, must func(o, n *haItem) (bool, string)) {
		keys := slices.Collect(maps.Keys(old))
		slices.SortFunc(keys, func(x, y string) int {
			return cmp.Or(old[x].line.line-old[y].line.line, cmp.Compare(x, y))
		})
		var added []string
		for k := range new {
			if _, ok := old[k]; !ok {
				added = append(added, k)
			}
		}
		slices.SortFunc(added, func(x, y string) int {
			return cmp.Or(new[x].line.line-new[y].line.line, cmp.Compare(x, y))
		})
		for _, k := range slices.Concat(keys, added) {
			o, inOld := old[k]
			n, inNew := new[k]
			if inOld && inNew && o.value == n.value {
				continue
			}
			x := HAProxyDifference{Kind: kind, Section: title, Item: item}
			if kind == HAProxyServer {
				x.Item += " " + k
			}
			var po, pn *haItem
			if inOld {
				x.Old, x.OldLine, po = o.shown, o.line.line, &o
			}
			if inNew {
				x.New, x.NewLine, pn = n.shown, n.line.line, &n
			}
			x.MustCarryOver, x.Why = must(po, pn)
			d.add(a, b, x)
		}
	}
	pairs(HAProxyBind, "bind", a.binds, b.binds, func(o, n *haItem) (bool, string) {
		if n == nil {
			return true, byHand
		}
		return false, ""
	})
	pairs(HAProxyServer, "server", a.servers, b.servers, func(o, n *haItem) (bool, string) {
		switch {
		case d.opts.Sub && toGlobal(s.name):
			return true, "in a sub region or sub zone the back ends are those of the global one, and the generated file names local ones"
		case n == nil:
			return true, byHand
		}
		return false, ""
	})
	if a.mode != b.mode {
		d.add(a, b, HAProxyDifference{Kind: HAProxyMode, Section: title, Item: "mode", Old: a.mode, New: b.mode, OldLine: cmp.Or(a.modeLine, s.header.line), NewLine: cmp.Or(b.modeLine, t.header.line)})
	}
	if a.balance != b.balance {
		d.add(a, b, HAProxyDifference{Kind: HAProxyBalance, Section: title, Item: "balance", Old: a.balance, New: b.balance, OldLine: cmp.Or(a.balanceLine, s.header.line), NewLine: cmp.Or(b.balanceLine, t.header.line)})
	}
	pairs(HAProxyDirective, "", a.lines, b.lines, func(o, n *haItem) (bool, string) { return false, "" })
	for _, word := range orderedWords() {
		x, y := a.ordered[word], b.ordered[word]
		same := func(p, q haItem) bool { return p.value == q.value }
		if slices.EqualFunc(x, y, same) {
			continue
		}
		// Lines that one side lacks are reported above; here it is the order of
		// those that both have.
		both := func(items []haItem, other map[string]haItem) []haItem {
			return slices.DeleteFunc(slices.Clone(items), func(i haItem) bool { _, ok := other[i.value]; return !ok })
		}
		p, q := both(x, b.lines), both(y, a.lines)
		if !slices.EqualFunc(p, q, same) && len(p) > 0 && len(q) > 0 {
			show := func(items []haItem) string {
				var out []string
				for _, i := range items {
					out = append(out, i.shown)
				}
				return strings.Join(out, "; ")
			}
			d.add(a, b, HAProxyDifference{Kind: HAProxyOrder, Section: title, Item: word, Old: show(p), New: show(q), OldLine: p[0].line.line, NewLine: q[0].line.line,
				Why: "these are evaluated one after the other"})
		}
	}
}
