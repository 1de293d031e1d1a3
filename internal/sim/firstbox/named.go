package firstbox

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// statement is one of named.conf: words up to a semicolon or a block.
type statement struct {
	words []string
	block []statement
	open  bool // has a block
	file  string
	line  int
}

type token struct {
	text string
	line int
}

// tokens splits named.conf, whose comments are those of C, C++ and the shell.
func tokens(file, text string) ([]token, error) {
	var out []token
	line := 1
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '#' || strings.HasPrefix(text[i:], "//"):
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case strings.HasPrefix(text[i:], "/*"):
			end := strings.Index(text[i:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("%s:%d: unterminated comment", file, line)
			}
			line += strings.Count(text[i:i+end], "\n")
			i += end + 2
		case c == '{' || c == '}' || c == ';':
			out = append(out, token{string(c), line})
			i++
		case c == '"':
			end := strings.IndexByte(text[i+1:], '"')
			if end < 0 || strings.Contains(text[i+1:i+1+end], "\n") {
				return nil, fmt.Errorf("%s:%d: unbalanced quotes", file, line)
			}
			out = append(out, token{text[i : i+end+2], line})
			i += end + 2
		default:
			end := i
			for end < len(text) && !strings.ContainsRune(" \t\r\n{};\"", rune(text[end])) {
				end++
			}
			out = append(out, token{text[i:end], line})
			i = end
		}
	}
	return out, nil
}

// namedStatements are those that change nothing here, or that are followed.
var namedStatements = []string{"options", "zone", "acl", "key", "logging", "controls", "include"}

// readNamed reads named.conf with its includes.
func readNamed(read func(string) ([]byte, error), name string) ([]statement, error) {
	return readNamedDepth(read, name, 0)
}

func readNamedDepth(read func(string) ([]byte, error), name string, depth int) ([]statement, error) {
	data, err := read(name)
	if err != nil || depth > 8 {
		return nil, fmt.Errorf("%s: open: file not found", name)
	}
	list, err := tokens(name, string(data))
	if err != nil {
		return nil, err
	}
	all, rest, err := parseStatements(name, list, 0)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%s:%d: unexpected '}'", name, rest[0].line)
	}
	var out []statement
	for _, st := range all {
		switch {
		case !slices.Contains(namedStatements, st.words[0]):
			return nil, fmt.Errorf("%s:%d: unknown option '%s'", name, st.line, st.words[0])
		case st.words[0] == "include" && len(st.words) == 2:
			more, err := readNamedDepth(read, unquote(st.words[1]), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		default:
			out = append(out, st)
		}
	}
	return out, nil
}

func unquote(s string) string { return strings.Trim(s, `"`) }

// parseStatements reads up to the end of a block.
func parseStatements(file string, in []token, depth int) (out []statement, rest []token, err error) {
	for len(in) > 0 && in[0].text != "}" {
		st := statement{file: file, line: in[0].line}
		for len(in) > 0 && !strings.Contains("{};", in[0].text) {
			st.words = append(st.words, in[0].text)
			in = in[1:]
		}
		if len(in) > 0 && in[0].text == "{" {
			if st.block, in, err = parseStatements(file, in[1:], depth+1); err != nil {
				return nil, nil, err
			}
			st.open = true
			if len(in) == 0 {
				return nil, nil, fmt.Errorf("%s:%d: unexpected end of input", file, st.line)
			}
			in = in[1:]
		}
		if len(in) == 0 || in[0].text != ";" {
			return nil, nil, fmt.Errorf("%s:%d: missing ';'", file, st.line)
		}
		if in = in[1:]; len(st.words) > 0 || st.open {
			out = append(out, st)
		}
	}
	if depth == 0 && len(in) > 0 {
		return out, in, nil
	}
	return out, in, nil
}

// canonical prints statements as named-checkconf -p does.
func canonical(list []statement, indent string, hide bool) string {
	var b strings.Builder
	for _, st := range list {
		words := slices.Clone(st.words)
		if hide && len(words) == 2 && words[0] == "secret" {
			words[1] = `"` + strings.Repeat("?", len(unquote(words[1]))) + `"`
		}
		if !st.open {
			if len(words) == 1 && words[0] == "any" {
				words[0] = `"any"`
			}
			fmt.Fprintf(&b, "%s%s;\n", indent, strings.Join(words, " "))
			continue
		}
		fmt.Fprintf(&b, "%s%s {\n%s%s};\n", indent, strings.Join(words, " "), canonical(st.block, indent+"\t", hide), indent)
	}
	return b.String()
}

// zones is what a name server serves.
type zones struct {
	list []*zone
	ask  []netip.Prefix // who may; nil = everybody
}

// allows reports whether somebody may ask.
func (z *zones) allows(from netip.Addr) bool {
	return z.ask == nil || slices.ContainsFunc(z.ask, func(p netip.Prefix) bool { return p.Contains(from) })
}

type zone struct {
	origin  string // lower case, without the last dot
	soa     dnsmessage.SOAResource
	records []record
}

type record struct {
	name   string
	kind   dnsmessage.Type
	addr   netip.Addr // of an A
	target string     // of an NS
}

// String is the record as a line of its zone file.
func (r record) String() string {
	switch r.kind {
	case dnsmessage.TypeA:
		return r.name + " A " + r.addr.String()
	case dnsmessage.TypeNS:
		return r.name + " NS " + r.target
	}
	return r.name + " SOA"
}

// of finds the zone with the longest origin that a name is in.
func (z *zones) of(name string) *zone {
	var best *zone
	for _, one := range z.list {
		if (name == one.origin || strings.HasSuffix(name, "."+one.origin)) && (best == nil || len(one.origin) > len(best.origin)) {
			best = one
		}
	}
	return best
}

// address is what the server says of a name, "" when there is none.
func (z *zones) address(name string) string {
	if z == nil {
		return ""
	}
	if one := z.of(name); one != nil {
		for _, r := range one.records {
			if r.name == name && r.kind == dnsmessage.TypeA {
				return r.addr.String()
			}
		}
	}
	return ""
}

// loadZones reads the configuration and its zones, as named does when it
// starts: a zone that cannot be read is left out and said. nil: it does not
// start at all.
func loadZones(read func(string) ([]byte, error), name string) (*zones, []string) {
	tree, err := readNamed(read, name)
	if err != nil {
		return nil, []string{err.Error()}
	}
	directory := "/var/cache/bind"
	out, errs := &zones{}, []string(nil)
	for _, st := range tree {
		if st.words[0] == "options" {
			for _, o := range st.block {
				switch {
				case len(o.words) == 2 && o.words[0] == "directory":
					directory = unquote(o.words[1])
				case len(o.words) == 1 && o.words[0] == "allow-query":
					for _, a := range o.block {
						p, err := netip.ParsePrefix(a.words[0])
						switch {
						case err == nil:
							out.ask = append(out.ask, p)
						case unquote(a.words[0]) != "any":
							return nil, []string{fmt.Sprintf("%s:%d: allow-query %s is not simulated", a.file, a.line, a.words[0])}
						}
					}
				}
			}
		}
	}
	for _, st := range tree {
		if st.words[0] != "zone" || len(st.words) < 2 {
			continue
		}
		origin, kind, file := strings.ToLower(strings.TrimSuffix(unquote(st.words[1]), ".")), "", ""
		for _, o := range st.block {
			switch {
			case len(o.words) == 2 && o.words[0] == "type":
				kind = o.words[1]
			case len(o.words) == 2 && o.words[0] == "file":
				file = unquote(o.words[1])
			}
		}
		if kind != "master" {
			errs = append(errs, fmt.Sprintf("%s:%d: zone type %q is not simulated", st.file, st.line, kind))
			continue
		}
		if !path.IsAbs(file) {
			file = path.Join(directory, file)
		}
		data, err := read(file)
		if err != nil {
			errs = append(errs, fmt.Sprintf("zone %s/IN: loading from master file %s failed: file not found", origin, file))
			continue
		}
		z, err := parseZone(origin, string(data))
		if err != nil {
			errs = append(errs, fmt.Sprintf("zone %s/IN: loading from master file %s failed: %v", origin, file, err))
			continue
		}
		out.list = append(out.list, z)
	}
	return out, errs
}

// parseZone reads a zone file with SOA, NS and A records; others are errors.
func parseZone(origin, text string) (*zone, error) {
	z := &zone{origin: origin}
	at, owner := origin, origin
	full := func(name string) string {
		switch {
		case name == "@":
			return at
		case strings.HasSuffix(name, "."):
			return strings.ToLower(strings.TrimSuffix(name, "."))
		}
		return strings.ToLower(name) + "." + at
	}
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, ";")
		f := strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(line))
		bad := func(why string) (*zone, error) { return nil, fmt.Errorf("line %d: %s", n+1, why) }
		switch {
		case len(f) == 0:
			continue
		case f[0] == "$TTL" && len(f) == 2:
			continue
		case f[0] == "$ORIGIN" && len(f) == 2:
			at = strings.ToLower(strings.TrimSuffix(f[1], "."))
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			owner, f = full(f[0]), f[1:]
		}
		for len(f) > 0 && (f[0] == "IN" || f[0][0] >= '0' && f[0][0] <= '9') {
			f = f[1:]
		}
		if len(f) < 2 {
			return bad("unexpected end of line")
		}
		r := record{name: owner}
		switch f[0] {
		case "A":
			a, err := netip.ParseAddr(f[1])
			if err != nil || !a.Is4() {
				return bad("near '" + f[1] + "': bad dotted quad")
			}
			r.kind, r.addr = dnsmessage.TypeA, a
		case "NS":
			r.kind, r.target = dnsmessage.TypeNS, full(f[1])
		case "SOA":
			if len(f) != 8 {
				return bad("an SOA has seven fields")
			}
			var v [5]uint32
			for i, s := range f[3:] {
				u, err := strconv.ParseUint(s, 10, 32)
				if err != nil {
					return bad("near '" + s + "': bad number")
				}
				v[i] = uint32(u)
			}
			r.kind = dnsmessage.TypeSOA
			z.soa = dnsmessage.SOAResource{
				NS: dnsmessage.MustNewName(full(f[1]) + "."), MBox: dnsmessage.MustNewName(full(f[2]) + "."),
				Serial: v[0], Refresh: v[1], Retry: v[2], Expire: v[3], MinTTL: v[4],
			}
		default:
			return bad(f[0] + " is not simulated")
		}
		z.records = append(z.records, r)
	}
	if z.soa.Serial == 0 {
		return nil, fmt.Errorf("no SOA at the top")
	}
	return z, nil
}
