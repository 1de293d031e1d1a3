package pitrix

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/redact"
	"github.com/upgradectl/upgradectl/internal/textedit"
)

// Why an edit was refused.
var (
	ErrNoKey     = errors.New("the file has no such key")
	ErrKeyExists = errors.New("the file has the key already; use Set")
	ErrBadKey    = errors.New("not a key of a settings file")
	ErrBadValue  = errors.New("not a value of a settings file")
)

// Settings is one settings file: assignments KEY="value" for the shell, with
// comments and blank lines between them. It is the bytes that were parsed and
// the places of the values in them; edits change these bytes and nothing is
// ever printed anew.
//
// Any number of goroutines may read Settings that nobody edits.
type Settings struct {
	parsed *parser // as it came from Parse, for Diff
	now    *parser
	// from says which line of parsed each line of now was, -1 for a new one;
	// nil while all lines are the same. It is replaced, never changed.
	from []int
}

// Parse reads a settings file. The name, a path or the node's name, is what
// problems are reported with; src is not kept. The error is of type Problems
// and holds all of them.
func Parse(name string, src []byte) (*Settings, error) {
	p, err := parse(name, slices.Clone(src))
	if err != nil {
		return nil, err
	}
	return &Settings{parsed: p, now: p}, nil
}

// Name returns the name that was given to Parse.
func (s *Settings) Name() string { return s.now.name }

// Bytes returns the file with the edits made so far. The caller may change the
// slice.
func (s *Settings) Bytes() []byte { return slices.Clone(s.now.src) }

// Get returns the value of key as the shell sees it, without quotes. A script
// of the installer takes a missing key for an empty value.
func (s *Settings) Get(key string) (value string, ok bool) {
	e := s.now.find(key)
	if e == nil {
		return "", false
	}
	return e.value, true
}

// Keys returns the keys in the order of their lines.
func (s *Settings) Keys() []string {
	out := make([]string, len(s.now.entries))
	for i, e := range s.now.entries {
		out[i] = e.key
	}
	return out
}

// Clone returns a copy that can be edited on its own.
func (s *Settings) Clone() *Settings {
	c := *s // what it points to is never changed, only replaced
	return &c
}

// Set gives key, which must be there, another value. Only the bytes of the
// value and its quotes change. Double quotes are used unless the value was in
// single quotes, or holds characters that would have to be escaped. Setting the
// value that is there changes nothing.
func (s *Settings) Set(key, value string) error {
	e := s.now.find(key)
	if e == nil {
		return fmt.Errorf("cannot set %s in %s: %w", key, s.Name(), ErrNoKey)
	}
	if reason := badValue(value); reason != "" {
		return fmt.Errorf("cannot set %s in %s: %w: %s", key, s.Name(), ErrBadValue, reason)
	}
	if value == e.value {
		return nil
	}
	b := textedit.New(s.now.src)
	b.Replace(e.start, e.end, quote(value, e.quote))
	return s.edit(b, edit{verb: "set", key: key, value: value, entries: len(s.now.entries), from: s.from})
}

// Insert adds the line KEY="value" behind the line of the key after, indented
// like that one.
func (s *Settings) Insert(after, key, value string) error {
	e := s.now.find(after)
	switch {
	case e == nil:
		return fmt.Errorf("cannot insert %s behind %s in %s: %w", key, after, s.Name(), ErrNoKey)
	case s.now.find(key) != nil:
		return fmt.Errorf("cannot insert %s in %s: %w", key, s.Name(), ErrKeyExists)
	}
	if reason := badKey(key); reason != "" {
		return fmt.Errorf("cannot insert %q in %s: %w: %s", key, s.Name(), ErrBadKey, reason)
	}
	if reason := badValue(value); reason != "" {
		return fmt.Errorf("cannot insert %s in %s: %w: %s", key, s.Name(), ErrBadValue, reason)
	}
	b := textedit.New(s.now.src)
	// Before the line feed, so that a last line without one stays the last
	// without one.
	b.Insert(e.lineEnd, "\n"+s.now.indent(e)+key+"="+quote(value, '"'))
	from := slices.Insert(s.origins(), e.line, -1)
	return s.edit(b, edit{verb: "insert", key: key, value: value, entries: len(s.now.entries) + 1, from: from})
}

// Delete removes the line of key, with a comment behind the value.
func (s *Settings) Delete(key string) error {
	e := s.now.find(key)
	if e == nil {
		return fmt.Errorf("cannot delete %s in %s: %w", key, s.Name(), ErrNoKey)
	}
	b := textedit.New(s.now.src)
	b.Delete(e.lineStart, min(e.lineEnd+1, len(s.now.src))) // with the line feed
	from := slices.Delete(s.origins(), e.line-1, e.line)
	return s.edit(b, edit{verb: "delete", key: key, gone: true, entries: len(s.now.entries) - 1, from: from})
}

// origins returns a copy of from that may be changed.
func (s *Settings) origins() []int {
	if s.from != nil {
		return slices.Clone(s.from)
	}
	out := make([]int, bytes.Count(s.now.src, []byte("\n"))+1)
	for i := range out {
		out[i] = i
	}
	return out
}

// edit is what an edit does and how it has to read back.
type edit struct {
	verb, key, value string
	gone             bool
	entries          int
	from             []int
}

// edit reads the edited bytes again before they count.
func (s *Settings) edit(b *textedit.Buffer, want edit) error {
	src, err := b.Bytes()
	if err != nil {
		return fmt.Errorf("cannot %s %s in %s: %w", want.verb, want.key, s.Name(), err)
	}
	next, err := parse(s.Name(), src)
	if err != nil {
		return fmt.Errorf("cannot %s %s: the edited file would be refused: %w", want.verb, want.key, err)
	}
	e := next.find(want.key)
	if (e == nil) != want.gone || e != nil && e.value != want.value || len(next.entries) != want.entries {
		return fmt.Errorf("internal error: cannot %s %s in %s: the edit reads back differently", want.verb, want.key, s.Name())
	}
	s.now, s.from = next, want.from
	return nil
}

// quote returns value, which badValue has nothing against, as one word.
func quote(value string, like byte) string {
	single := !strings.Contains(value, "'")
	switch {
	case single && (like == '\'' || strings.ContainsAny(value, `"\$`)):
		return "'" + value + "'"
	default:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(value) + `"`
	}
}

func (p *parser) find(key string) *entry {
	i, ok := p.index[key]
	if !ok {
		return nil
	}
	return &p.entries[i]
}

// indent returns what stands before the key of e.
func (p *parser) indent(e *entry) string {
	return string(p.src[e.lineStart:e.keyStart])
}

// Diff returns what the edits since Parse changed, as a unified diff with
// three lines of context; nothing without edits. Values of keys that look like
// secrets are hidden, so the text is for people and not for patch.
func (s *Settings) Diff() string {
	if string(s.parsed.src) == string(s.now.src) {
		return ""
	}
	// What neighbours have lost is shown before what they have got.
	old, now := s.parsed.shown(), s.now.shown()
	var lines []string
	var regions []textedit.Region
	changed := func() *textedit.Region {
		if n := len(regions); n > 0 && regions[n-1].From+len(regions[n-1].Old) == len(lines) {
			return &regions[n-1]
		}
		regions = append(regions, textedit.Region{From: len(lines)})
		return &regions[len(regions)-1]
	}
	next := 0                 // the next line of old
	lose := func(until int) { // the lines before it
		for ; next < until; next++ {
			r := changed()
			r.Old, lines = append(r.Old, old[next].text), append(lines, old[next].text)
		}
	}
	for i, l := range now {
		from := i
		if s.from != nil {
			from = s.from[i]
		}
		if from < 0 {
			r := changed()
			r.New = append(r.New, l.text)
			continue
		}
		lose(from)
		o := old[from]
		if o.raw != l.raw {
			r := changed()
			r.Old, r.New = append(r.Old, o.text), append(r.New, l.text)
		}
		lines = append(lines, o.text)
		next = from + 1
	}
	lose(len(old))
	return textedit.Unified(s.Name(), lines, regions)
}

// shownLine is a line as a diff shows it, and as it is.
type shownLine struct {
	text, raw string
}

// shown returns the lines with their line ends.
func (p *parser) shown() []shownLine {
	var out []shownLine
	next := 0 // the next entry
	start := 0
	for text := range strings.Lines(string(p.src)) {
		l := shownLine{text: text, raw: text}
		if next < len(p.entries) && p.entries[next].lineStart == start {
			e := p.entries[next]
			if secret(e.key) && e.value != "" {
				l.text = string(p.src[start:e.start]) + redact.Mark + string(p.src[e.end:start+len(text)])
			}
			next++
		}
		out = append(out, l)
		start += len(text)
	}
	return out
}

// secret guesses from its name whether a key holds a secret. It would rather
// hide too much.
func secret(key string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"password", "passwd", "passphrase", "secret", "token", "credential", "access_key", "private_key"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return strings.HasSuffix(key, "_pass") || strings.HasSuffix(key, "_pwd")
}

// A SettingsDifference is a key that two files give different values, or that
// one of them does not have. Values of keys that look like secrets are hidden.
type SettingsDifference struct {
	Key string `json:"key,omitempty"`
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// OldLine and NewLine count from 1; 0: that file does not have the key.
	OldLine int `json:"old_line,omitempty"`
	NewLine int `json:"new_line,omitempty"`
}

// String returns the difference as one line.
func (d SettingsDifference) String() string {
	side := func(v string, line int) string {
		if line == 0 {
			return "nothing"
		}
		return fmt.Sprintf("%q (line %d)", v, line)
	}
	return d.Key + ": old " + side(d.Old, d.OldLine) + ", new " + side(d.New, d.NewLine)
}

// DiffSettings returns the keys of old that new does not have or gives another
// value, in their order, and then those that only new has. Comments, order and
// quotes do not count.
func DiffSettings(old, new *Settings) []SettingsDifference {
	var out []SettingsDifference
	hide := func(e *entry) (string, int) {
		switch {
		case e == nil:
			return "", 0
		case secret(e.key) && e.value != "":
			return redact.Mark, e.line
		}
		return e.value, e.line
	}
	add := func(key string) {
		d := SettingsDifference{Key: key}
		d.Old, d.OldLine = hide(old.now.find(key))
		d.New, d.NewLine = hide(new.now.find(key))
		out = append(out, d)
	}
	for _, e := range old.now.entries {
		if n := new.now.find(e.key); n == nil || n.value != e.value {
			add(e.key)
		}
	}
	for _, e := range new.now.entries {
		if old.now.find(e.key) == nil {
			add(e.key)
		}
	}
	return out
}
