package hostinv

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// iniSection is a header: a name, what the section holds, a comment.
var (
	iniSection = regexp.MustCompile(`^\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?$`)
	iniGroup   = regexp.MustCompile(`^([^:\]\s]+)\s*(?:#.*)?$`)
)

// parseINI reads the format of ansible's ini plugin.
func (a *AnsibleInventory) parseINI(src []byte) {
	group, kind := "ungrouped", "hosts"
	declared := map[string]bool{"all": true, "ungrouped": true}
	type mention struct {
		name, what string
		at         position
	}
	var mentions []mention
	for i, line := range lines(src) {
		at := position{a.file, i + 1, 1}
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		if col, why := badText(line); why != "" {
			at.col = col
			a.bad.add(at, "%s", why)
			continue
		}
		at.col = strings.Index(line, text) + 1
		if m := iniSection.FindStringSubmatch(text); m != nil {
			group, kind = m[1], m[2]
			switch kind {
			case "":
				kind = "hosts"
				fallthrough
			case "hosts", "children":
				declared[group] = true
				a.group(group, at)
			case "vars":
				a.group(group, at)
				mentions = append(mentions, mention{group, fmt.Sprintf("[%s:vars] is of a group that is not defined", group), at})
			default:
				a.bad.add(at, "section [%s:%s] is of an unknown kind; known are hosts, children and vars", group, kind)
				kind = "skip"
			}
			continue
		}
		if text[0] == '[' && strings.HasSuffix(text, "]") && !strings.Contains(text, ":") {
			a.bad.add(at, "%s is no section: the name of a group has no blanks, colons and brackets", text)
			kind = "skip"
			continue
		}
		switch kind {
		case "hosts":
			a.iniHost(text, group, at)
		case "children":
			m := iniGroup.FindStringSubmatch(text)
			if m == nil {
				a.bad.add(at, "%q is not the name of a group", text)
				continue
			}
			a.child(group, m[1], at)
			mentions = append(mentions, mention{m[1], fmt.Sprintf("[%s:children] names %s, which is not defined", group, m[1]), at})
		case "vars":
			k, v, ok := strings.Cut(text, "=")
			if !ok {
				a.bad.add(at, "%q is not KEY=VALUE", text)
				continue
			}
			a.set(a.group(group, at), strings.TrimSpace(k), iniValue(strings.TrimSpace(v), at))
		}
	}
	for _, m := range mentions {
		if !declared[m.name] {
			a.bad.add(m.at, "%s", m.what)
		}
	}
}

// iniHost reads a line HOST [KEY=VALUE …].
func (a *AnsibleInventory) iniHost(text, group string, at position) {
	words, err := shellWords(text)
	if err != nil {
		a.bad.add(at, "%v", err)
		return
	}
	if words[0] == "---" || strings.HasSuffix(words[0], ":") {
		a.bad.add(at, "%q is no host; if this is YAML, name the file .yml", words[0])
		return
	}
	names, port, err := hostPattern(words[0])
	if err != nil {
		a.bad.add(at, "%v", err)
		return
	}
	vars := map[string]ansibleVar{}
	for _, w := range words[1:] {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			a.bad.add(at, "%q is not KEY=VALUE", w)
			return
		}
		vars[k] = iniValue(v, at)
	}
	a.addHosts(names, port, group, vars, at)
}

// addHosts puts hosts into a group. As in ansible the port of the pattern is a
// variable of the host's first mention.
func (a *AnsibleInventory) addHosts(names []string, port, group string, vars map[string]ansibleVar, at position) {
	if len(a.order)+len(names) > maxRange {
		a.bad.add(at, "more than %d hosts", maxRange)
		return
	}
	for _, n := range names {
		_, again := a.hosts[n]
		h := a.host(n, group, at)
		if port != "" {
			if again && h.vars["ansible_port"].text != port {
				a.bad.add(at, "host %s has port %s here and another or none in line %d", n, port, h.at.line)
			}
			h.vars["ansible_port"] = ansibleVar{text: port, at: at}
		}
		for k, v := range vars {
			h.vars[k] = v
		}
	}
}

// pythonNumber is what Python reads as a number that is not a plain decimal
// one: its value would not be its text.
var pythonNumber = regexp.MustCompile(`^[+-]?(0[xXoObB][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+[eEjJ][0-9+-]*|[0-9]*\.[0-9]*([eEjJ][0-9+-]*)?|[+-][0-9]+)$`)

// iniValue takes a value as ansible does: as a Python literal where it is one.
// What is neither a plain string nor a plain number is kept as unusable.
func iniValue(v string, at position) ansibleVar {
	out := ansibleVar{text: v, at: at}
	switch {
	case v == "", strings.Contains(v, "{{"):
	case v[0] == '"' || v[0] == '\'':
		in := v[1:]
		if len(v) < 2 || v[len(v)-1] != v[0] || strings.ContainsAny(in[:max(0, len(in)-1)], string(v[0])+`\`) {
			out.why = fmt.Sprintf("%s is not one simple quoted text", v)
			return out
		}
		out.text = in[:len(in)-1]
	case strings.ContainsAny(v[:1], "[{("):
		out.why = fmt.Sprintf("%s is not a text", v)
	case v == "None" || v == "True" || v == "False":
		out.why = v + " is not a text"
	case strings.ContainsAny(v, " \t#"):
		out.why = fmt.Sprintf("%q holds blanks or a comment", v)
	case pythonNumber.MatchString(v) && v != "." && v != "+" && v != "-":
		out.why = fmt.Sprintf("%s is a number that Python writes in another way", v)
	}
	return templated(out)
}

// templated refuses values that ansible would compute.
func templated(v ansibleVar) ansibleVar {
	if v.why == "" && (strings.Contains(v.text, "{{") || strings.Contains(v.text, "{%")) {
		v.why = "it is a template, and templates are not evaluated"
	}
	return v
}

// shellWords splits as Python's shlex does in its POSIX mode, comments
// included.
func shellWords(s string) ([]string, error) {
	var words []string
	var w strings.Builder
	in, begun := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case in == '\'' && c == '\'', in == '"' && c == '"':
			in = 0
		case in == '\'':
			w.WriteByte(c)
		case c == '\\':
			i++
			if i == len(s) {
				return nil, errors.New("a backslash at the end of the line")
			}
			if in == '"' && s[i] != '"' && s[i] != '\\' {
				w.WriteByte('\\')
			}
			w.WriteByte(s[i])
			begun = true
		case in == '"':
			w.WriteByte(c)
		case c == '\'' || c == '"':
			in, begun = c, true
		case c == ' ' || c == '\t':
			if begun {
				words = append(words, w.String())
				w.Reset()
				begun = false
			}
		case c == '#':
			i = len(s)
		default:
			w.WriteByte(c)
			begun = true
		}
	}
	if in != 0 {
		return nil, fmt.Errorf("quote %c is not closed", in)
	}
	if begun {
		words = append(words, w.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("there is no host in the line")
	}
	return words, nil
}

// hostPattern reads HOST[:PORT] with ranges and returns the names it means.
func hostPattern(p string) (names []string, port string, err error) {
	name := p
	switch {
	case strings.HasPrefix(p, "[") && strings.Contains(p, "]:") && !isRange(p[1:strings.Index(p, "]")]):
		i := strings.LastIndex(p, "]:")
		name, port = p[1:i], p[i+2:]
	case strings.Contains(p, ":"):
		if _, err := netip.ParseAddr(p); err == nil {
			break
		}
		if i := strings.LastIndexByte(p, ':'); i > strings.LastIndexByte(p, ']') && strings.Count(withoutRanges(p), ":") == 1 {
			name, port = p[:i], p[i+1:]
		}
	}
	if port != "" {
		if err := checkPort(port); err != nil {
			return nil, "", fmt.Errorf("host %q: %w", p, err)
		}
	}
	if _, err := netip.ParseAddr(name); err != nil && strings.Contains(withoutRanges(name), ":") {
		return nil, "", fmt.Errorf("host %q is not HOST, HOST:PORT or [ADDRESS]:PORT", p)
	}
	names, err = expandRange(nil, name)
	if err != nil {
		return nil, "", fmt.Errorf("host %q: %w", p, err)
	}
	return names, port, nil
}

func isRange(s string) bool {
	return strings.Count(s, ":") == 1 || strings.Count(s, ":") == 2 && !strings.Contains(s, "::")
}

// withoutRanges takes the bracketed parts out.
func withoutRanges(s string) string {
	for {
		head, rest, ok := strings.Cut(s, "[")
		if !ok {
			return s
		}
		_, tail, ok := strings.Cut(rest, "]")
		if !ok {
			return s
		}
		s = head + tail
	}
}

// maxRange is the most hosts that the ranges of one line may mean, and that an
// inventory may have.
const maxRange = 10_000

// expandRange appends the names that a pattern with ranges [BEGIN:END[:STEP]]
// of numbers or of letters means.
func expandRange(out []string, p string) ([]string, error) {
	head, rest, ok := strings.Cut(p, "[")
	if !ok {
		if strings.Contains(p, "]") {
			return nil, errors.New("a bracket is not opened")
		}
		return append(out, p), nil
	}
	inner, tail, ok := strings.Cut(rest, "]")
	bounds := strings.Split(inner, ":")
	if !ok || len(bounds) < 2 || len(bounds) > 3 {
		return nil, errors.New("a range is [BEGIN:END] or [BEGIN:END:STEP]")
	}
	begin, end, step := bounds[0], bounds[1], uint64(1)
	if len(bounds) == 3 {
		var err error
		if step, err = strconv.ParseUint(bounds[2], 10, 31); err != nil || step == 0 {
			return nil, fmt.Errorf("the step %q of a range is no number above 0", bounds[2])
		}
	}
	if begin == "" {
		begin = "0"
	}
	var names []string
	letter := func(s string) int { return strings.Index("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", s) }
	switch b, e := letter(begin), letter(end); {
	case len(begin) == 1 && len(end) == 1 && b >= 0 && e >= 0:
		if b > e {
			return nil, fmt.Errorf("the range [%s] ends before it begins", inner)
		}
		for ; b <= e; b += int(step) {
			names = append(names, string("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[b]))
		}
	default:
		b, err1 := strconv.ParseUint(begin, 10, 31)
		e, err2 := strconv.ParseUint(end, 10, 31)
		width := 0
		if len(begin) > 1 && begin[0] == '0' {
			width = len(begin)
		}
		switch {
		case err1 != nil || err2 != nil || strings.HasPrefix(begin, "+") || strings.HasPrefix(end, "+"):
			return nil, fmt.Errorf("the range [%s] is neither of numbers nor of letters", inner)
		case width > 0 && len(end) != width:
			return nil, fmt.Errorf("begin and end of the range [%s] have not the same number of digits", inner)
		case b > e:
			return nil, fmt.Errorf("the range [%s] ends before it begins", inner)
		case (e-b)/step >= maxRange:
			return nil, fmt.Errorf("the range [%s] means more than %d hosts", inner, maxRange)
		}
		for ; b <= e; b += step {
			names = append(names, fmt.Sprintf("%0*d", width, b))
		}
	}
	var err error
	for _, n := range names {
		if out, err = expandRange(out, head+n+tail); err != nil {
			return nil, err
		}
		if len(out) > maxRange {
			return nil, fmt.Errorf("the ranges mean more than %d hosts", maxRange)
		}
	}
	return out, nil
}
