package upgrade

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// configDecoder walks the YAML nodes itself instead of decoding into structs:
// that is what gives each problem the position of the value that caused it,
// and lets an int be judged as it was written.
type configDecoder struct {
	file     string
	problems []Problem
}

func (d *configDecoder) add(line, col int, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: max(line, 1), Col: max(col, 1),
		Path: path, Text: fmt.Sprintf(format, args...),
	})
}

func (d *configDecoder) at(n *yaml.Node, path, format string, args ...any) {
	d.add(n.Line, n.Column, path, format, args...)
}

// document returns the root mapping, or nil after a problem that leaves
// nothing to look at.
func (d *configDecoder) document(data []byte) *yaml.Node {
	if len(data) > maxConfigSize {
		d.add(1, 1, "", "is larger than %d bytes: not a configuration file", maxConfigSize)
		return nil
	}
	if i := invalidUTF8(data); i >= 0 {
		line := bytes.Count(data[:i], []byte("\n"))
		col := utf8.RuneCount(data[bytes.LastIndexByte(data[:i], '\n')+1 : i])
		d.add(line+1, col+1, "", "is not UTF-8 text")
		return nil
	}
	l, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.add(1, 1, "", "cannot be read as YAML: %v", err)
		return nil
	}
	var doc, more yaml.Node
	switch err := l.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		d.add(1, 1, "", "is empty; docs/config.md has an example")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := l.Load(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
		return nil
	default:
		d.at(&more, "", "a second document starts here; a file holds one procedure")
	}
	return doc.Content[0]
}

// clamp moves positions behind the end of a line or of the text, which the
// scanner gives for what it misses there, to that end: an editor can jump to
// every position reported.
func (d *configDecoder) clamp(data []byte) {
	lines := bytes.Split(data, []byte("\n"))
	for i := range d.problems {
		p := &d.problems[i]
		p.Line = min(p.Line, len(lines))
		p.Col = min(p.Col, utf8.RuneCount(lines[p.Line-1])+1)
	}
}

func (d *configDecoder) syntax(err error) {
	line, col, text := 1, 1, err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		text = le.Message
		if le.ContextMsg != "" {
			text = le.ContextMsg + ": " + text
		}
		line, col = le.Mark.Line, le.Mark.Column
	}
	d.add(line, col, "", "not valid YAML: %s", text)
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// mapping holds the values of one YAML mapping by key.
type mapping struct {
	d      *configDecoder
	node   *yaml.Node
	path   string
	values map[string]*yaml.Node // null values are left out: as if not written
}

// mapping reports unknown and repeated keys of n. Its result is usable even
// when n is something else: then it is empty.
func (d *configDecoder) mapping(n *yaml.Node, path string, keys ...string) mapping {
	m := mapping{d: d, node: n, path: path, values: map[string]*yaml.Node{}}
	if n == nil {
		return m
	}
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "must be a mapping of keys to values, not %s", kindOf(n))
		return m
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.at(k, path, "a key must be a plain word, not %s", kindOf(k))
			continue
		}
		p := join(path, k.Value)
		if first := seen[k.Value]; first != nil {
			d.at(k, p, "is given twice; the first is on line %d", first.Line)
			continue
		}
		seen[k.Value] = k
		if !slices.Contains(keys, k.Value) {
			d.at(k, join(path, clip(k.Value)), "unknown key%s", hint(k.Value, keys))
			continue
		}
		switch {
		case v.Kind == yaml.AliasNode:
			d.at(v, p, "aliases are not supported; write the value out")
		case v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null":
		default:
			m.values[k.Value] = v
		}
	}
	return m
}

func (m mapping) has(key string) bool { return m.values[key] != nil }

// need reports keys that are missing, at the head of the mapping.
func (m mapping) need(why string, keys ...string) {
	for _, k := range keys {
		if m.node != nil && m.node.Kind == yaml.MappingNode && !m.has(k) && !m.failed(k) {
			m.d.at(m.node, join(m.path, k), "is missing%s", why)
		}
	}
}

// failed says whether the key already has a problem: one is enough.
func (m mapping) failed(key string) bool {
	p := join(m.path, key)
	return slices.ContainsFunc(m.d.problems, func(q Problem) bool { return q.Path == p })
}

func (m mapping) problem(key, format string, args ...any) {
	m.d.at(m.values[key], join(m.path, key), format, args...)
}

// text reads a string and checks it with ok, which says what is expected.
func (m mapping) text(key, def string, check ...func(string) string) string {
	n := m.values[key]
	if n == nil {
		return def
	}
	s, good := m.d.str(n, join(m.path, key))
	if !good {
		return def
	}
	if s == "" {
		return def
	}
	for _, f := range check {
		if want := f(s); want != "" {
			m.problem(key, "%s %s", quote(s), want)
			return def
		}
	}
	return s
}

func (m mapping) enum(key, def string, values ...string) string {
	return m.text(key, def, func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		return "is not one of " + strings.Join(values, ", ") + nearest(s, values)
	})
}

func (m mapping) boolean(key string, def bool) bool {
	n := m.values[key]
	if n == nil {
		return def
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		switch n.Value {
		case "true":
			return true
		case "false":
			return false
		}
	}
	m.problem(key, "must be true or false, not %s", kindOf(n))
	return def
}

func (m mapping) integer(key string, def, low, high int) int {
	n := m.values[key]
	if n == nil {
		return def
	}
	i, ok := m.d.integer(n, join(m.path, key), low, high)
	if !ok {
		return def
	}
	return i
}

func (m mapping) duration(key string, def, low time.Duration, zero bool) time.Duration {
	n := m.values[key]
	if n == nil {
		return def
	}
	example := short(cmp.Or(def, 30*time.Second))
	if n.Kind != yaml.ScalarNode {
		m.problem(key, "must be a duration such as %s, not %s", example, kindOf(n))
		return def
	}
	v, err := time.ParseDuration(n.Value)
	switch {
	case err != nil && decimal.MatchString(n.Value):
		m.problem(key, "%s has no unit; write %ss, %sm or %sh", quote(n.Value), clip(n.Value), clip(n.Value), clip(n.Value))
	case err != nil:
		m.problem(key, "%s is not a duration; write one such as %s (units: ms, s, m, h)", quote(n.Value), example)
	case zero && v == 0:
		return 0
	case v < low:
		or := ""
		if zero {
			or = ", or 0 for never"
		}
		m.problem(key, "%s is too short: at least %s%s", quote(n.Value), short(low), or)
	default:
		return v
	}
	return def
}

// list calls each for every item of a sequence; a value that is none is a
// problem.
func (m mapping) list(key string, each func(n *yaml.Node, path string)) {
	n := m.values[key]
	if n == nil {
		return
	}
	p := join(m.path, key)
	if n.Kind != yaml.SequenceNode {
		m.d.at(n, p, "must be a list, not %s", kindOf(n))
		return
	}
	for i, item := range n.Content {
		ip := fmt.Sprintf("%s[%d]", p, i)
		if item.Kind == yaml.AliasNode {
			m.d.at(item, ip, "aliases are not supported; write the value out")
			continue
		}
		each(item, ip)
	}
}

func (d *configDecoder) str(n *yaml.Node, path string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.at(n, path, "must be text, not %s", kindOf(n))
		return "", false
	}
	if n.ShortTag() != "!!str" {
		d.at(n, path, "must be text, not %s; put it in quotes", kindOf(n))
		return "", false
	}
	if i := strings.IndexFunc(n.Value, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		d.at(n, path, "must be one line of text without control characters")
		return "", false
	}
	return n.Value, true
}

var (
	decimal   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	leadZero  = regexp.MustCompile(`^[-+]?0[0-9]+$`)
	otherBase = regexp.MustCompile(`^[-+]?0[xXoObB]|_`)
)

func (d *configDecoder) integer(n *yaml.Node, path string, low, high int) (int, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" && !leadZero.MatchString(n.Value) {
		d.at(n, path, "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	switch v := n.Value; {
	case leadZero.MatchString(v):
		// YAML 1.1 reads 010 as eight and YAML 1.2 as ten: refused, not guessed.
		d.at(n, path, "%s has a leading zero, which some read as octal; write it without", quote(v))
		return 0, false
	case otherBase.MatchString(v):
		d.at(n, path, "%s must be written in plain decimal digits", quote(v))
		return 0, false
	case !decimal.MatchString(v):
		d.at(n, path, "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	i, err := strconv.Atoi(n.Value)
	if err != nil || i < low || i > high {
		want := fmt.Sprintf("%d to %d", low, high)
		if low == high {
			want = strconv.Itoa(low)
		}
		d.at(n, path, "%s is out of range: it must be %s", quote(n.Value), want)
		return 0, false
	}
	return i, true
}

// words reads a list of different words that pass check.
func (d *configDecoder) words(m mapping, key string, check func(string) string, to *[]string) {
	m.list(key, func(n *yaml.Node, path string) {
		w, ok := d.str(n, path)
		switch {
		case !ok:
		case check(w) != "":
			d.at(n, path, "%s %s", quote(w), check(w))
		case slices.Contains(*to, w):
			d.at(n, path, "%s is listed twice", quote(w))
		default:
			*to = append(*to, w)
		}
	})
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// short prints 2h0m0s as 2h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func clip(s string) string {
	if utf8.RuneCountInString(s) > 60 {
		s = string([]rune(s)[:60]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

func quote(s string) string { return strconv.Quote(clip(s)) }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!int":
		return "the number " + clip(n.Value)
	case "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!null":
		return "nothing"
	case "!!str":
		return "the text " + quote(n.Value)
	}
	return "a value of type " + clip(n.ShortTag())
}

// hint ends a message about an unknown word: with the known one that is
// nearest, or with where credentials belong, or with what there is.
func hint(word string, known []string) string {
	w := strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	for _, secret := range []string{"access_key", "accesskey", "secret", "password", "passwd", "token"} {
		if strings.Contains(w, secret) {
			return "; credentials do not belong in this file: set them in the environment or in ~/.aliyun/config.json"
		}
	}
	if s := nearest(w, known); s != "" {
		return s
	}
	return "; known are " + strings.Join(known, ", ")
}

// nearest asks whether the known word most like word was meant; it is empty
// when none is like it.
func nearest(word string, known []string) string {
	best, dist := "", (len(word)+1)/3
	for _, k := range known {
		if n := distance(strings.ToLower(word), k); n < dist || n == dist && best == "" {
			best, dist = k, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
