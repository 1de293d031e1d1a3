package pitrix

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxSize is far over any real settings file, which has some 3 KiB.
	maxSize = 1 << 20
	// maxProblems keeps a file that is no settings file at all from filling
	// the screen.
	maxProblems = 100
)

// entry is one assignment. Offsets count in the bytes of the file.
type entry struct {
	key, value string
	line       int  // from 1
	lineStart  int  // of the line
	keyStart   int  // of the key
	start, end int  // of the value with its quotes
	lineEnd    int  // of the line without its line feed
	quote      byte // '"', '\'' or 0
}

type parser struct {
	name      string
	src       []byte
	line      int // from 1, of the line that is read
	lineStart int
	entries   []entry
	index     map[string]int // key → place in entries
	first     map[string]int // key → first line, also of those with bad values
	problems  Problems
}

func (p *parser) add(offset int, key, format string, args ...any) {
	p.problems = append(p.problems, Problem{
		File: p.name, Line: p.line, Col: offset - p.lineStart + 1,
		Rule: RuleSyntax, Key: key, Text: fmt.Sprintf(format, args...),
	})
}

// parse reads src, which is kept.
func parse(name string, src []byte) (*parser, error) {
	p := &parser{name: name, src: src, line: 1, index: map[string]int{}, first: map[string]int{}}
	if len(src) > maxSize {
		p.add(0, "", "the file has %d bytes, settings files have at most %d; is it one?", len(src), maxSize)
		return nil, p.problems
	}
	start := 0
	if bytes.HasPrefix(src, []byte("\xef\xbb\xbf")) {
		p.add(0, "", "the file starts with a byte order mark, which the shell reads as part of the first word; save it without one")
		start = 3
	}
	firstCR, crLines := Problem{}, 0
	for p.line = 1; start < len(src); p.line++ {
		end, next := len(src), len(src)
		if i := bytes.IndexByte(src[start:], '\n'); i >= 0 {
			end, next = start+i, start+i+1
		}
		p.lineStart = bytes.LastIndexByte(src[:start], '\n') + 1
		text := end
		if text > start && src[text-1] == '\r' {
			text--
			if crLines++; crLines == 1 {
				firstCR = Problem{File: name, Line: p.line, Col: text - p.lineStart + 1, Rule: RuleSyntax}
			}
		}
		p.readLine(start, text)
		if len(p.problems) >= maxProblems {
			p.add(end, "", "more problems than can be shown; is it a settings file?")
			break
		}
		start = next
	}
	if crLines > 0 {
		// Once for the file: it came from another system as a whole.
		lines := "this line ends"
		if crLines > 1 {
			lines = fmt.Sprintf("this line and %d more end", crLines-1)
		}
		firstCR.Text = lines + " with CR LF, and the CR would become part of the value; save the file with LF only (sed -i 's/\\r$//')"
		p.problems = append(p.problems, firstCR)
	}
	if len(p.problems) > 0 {
		sortProblems(p.problems)
		return nil, p.problems
	}
	return p, nil
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

func nameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// readLine reads the line in [start, end), which has no line end.
func (p *parser) readLine(start, end int) {
	src := p.src
	if i := slices.IndexFunc(src[start:end], control); i >= 0 {
		p.add(start+i, "", "control character %#02x; delete it", src[start+i])
		return
	}
	i := start
	for i < end && blank(src[i]) {
		i++
	}
	if i == end || src[i] == '#' {
		return
	}
	keyStart := i
	for i < end && nameByte(src[i]) {
		i++
	}
	key := string(src[keyStart:i])
	if i == end || src[i] != '=' || !validName(key) {
		p.add(keyStart, "", "%s", notAssignment(string(src[keyStart:end])))
		return
	}
	if reason := badKey(key); reason != "" {
		p.add(keyStart, key, "%s", reason)
		return
	}
	first, again := p.first[key]
	if again {
		p.add(keyStart, key, "the key is already in line %d, and the shell would take the last; delete one of them", first)
	} else {
		p.first[key] = p.line
	}
	e := entry{key: key, line: p.line, lineStart: p.lineStart, keyStart: keyStart, start: i + 1, lineEnd: end}
	if p.readValue(&e) && !again {
		p.index[key] = len(p.entries)
		p.entries = append(p.entries, e)
	}
}

// readValue reads what stands behind the = of e and reports whether it is good.
func (p *parser) readValue(e *entry) bool {
	found := len(p.problems)
	rest := p.src[e.start:e.lineEnd]
	switch {
	case len(rest) > 0 && rest[0] == '"':
		p.readDouble(e)
	case len(rest) > 0 && rest[0] == '\'':
		e.quote = '\''
		n := bytes.IndexByte(rest[1:], '\'')
		if n < 0 {
			p.add(e.start, e.key, "the ' is not closed in this line, so the shell would take the following lines into the value; close it")
			return false
		}
		e.value, e.end = string(rest[1:n+1]), e.start+n+2
	default:
		p.readBare(e)
	}
	if e.end == 0 { // the end of the value is not known
		return false
	}
	if i := bytes.Index(p.src[e.start:e.end], []byte("{{")); i >= 0 {
		p.add(e.start+i, e.key, "the template's {{ }} is not filled in; put the value in its place")
	} else if len(p.problems) == found {
		if reason := badValue(e.value); reason != "" {
			p.add(e.start, e.key, "%s", reason)
		}
	}
	p.checkTail(e)
	return len(p.problems) == found
}

// checkTail sees to it that nothing but a comment stands behind the value.
func (p *parser) checkTail(e *entry) {
	i := e.end
	if i < e.lineEnd && !blank(p.src[i]) {
		if c := p.src[i]; c == ';' || c == '&' || c == '|' || c == '<' || c == '>' || c == '(' || c == ')' {
			p.add(i, e.key, "code behind the value, which the shell would run; one assignment a line and nothing else")
		} else {
			p.add(i, e.key, "text directly behind the closing quote, which the shell would join to the value; quote the whole value once")
		}
		return
	}
	for i < e.lineEnd && blank(p.src[i]) {
		i++
	}
	if i < e.lineEnd && p.src[i] != '#' {
		if e.start == e.end {
			p.add(i, e.key, "blanks behind the =, so the shell would set the key for one command only and run the rest of the line; write KEY=\"value\"")
			return
		}
		p.add(i, e.key, "code behind the value, which the shell would run; one assignment a line, and comments start with #")
	}
}

// readDouble reads a value in double quotes. There a backslash takes the
// meaning of $ ` " \ and stands for itself before anything else.
func (p *parser) readDouble(e *entry) {
	src := p.src
	e.quote = '"'
	var value []byte
	substitution := -1
	i := e.start + 1
	for ; i < e.lineEnd && src[i] != '"'; i++ {
		switch c := src[i]; {
		case c == '\\' && i+1 < e.lineEnd && strings.IndexByte("$`\"\\", src[i+1]) >= 0:
			i++
		case (c == '$' || c == '`') && substitution < 0:
			substitution = i
		}
		value = append(value, src[i])
	}
	if i >= e.lineEnd {
		p.add(e.start, e.key, "the \" is not closed in this line, so the shell would take the following lines into the value; close it")
		return
	}
	if substitution >= 0 {
		p.addSubstitution(e, substitution)
	}
	e.value, e.end = string(value), i+1
}

// readBare reads a value without quotes: only words that mean the same to
// every shell and to a reader of INI files.
func (p *parser) readBare(e *entry) {
	src := p.src
	i := e.start
	for i < e.lineEnd && bareByte(src[i]) {
		i++
	}
	if i == e.lineEnd || blank(src[i]) {
		e.value, e.end = string(src[e.start:i]), i
		return
	}
	switch c := src[i]; {
	case bytes.Contains(src[i:e.lineEnd], []byte("{{")):
		at := i + bytes.Index(src[i:e.lineEnd], []byte("{{"))
		p.add(at, e.key, "the template's {{ }} is not filled in, and without quotes the shell would run its second word; put the value in its place")
	case c == '$' || c == '`':
		p.addSubstitution(e, i)
	case strings.IndexByte(";&|<>()", c) >= 0:
		p.add(i, e.key, "%q has a meaning for the shell; put the value in double quotes, one assignment a line", c)
	case c == '"' || c == '\'':
		p.add(i, e.key, "a quote in the middle of the value; quote the whole value once")
	default:
		p.add(i, e.key, "the value needs quotes; write KEY=\"value\"")
	}
}

func (p *parser) addSubstitution(e *entry, at int) {
	next := byte(0)
	if at+1 < e.lineEnd {
		next = p.src[at+1]
	}
	if p.src[at] == '`' || next == '(' {
		p.add(at, e.key, "the shell would run this command on every host that reads the file; put its output in its place")
		return
	}
	p.add(at, e.key, "the shell would put something in the place of $; write the value itself, or \\$ for a dollar sign")
}

func bareByte(c byte) bool { return nameByte(c) || strings.IndexByte("./:,@%+-", c) >= 0 }

func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// validName reports whether the shell can assign to the name.
func validName(name string) bool {
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return false
		}
	}
	return true
}

// badKey says why key cannot be one of a settings file, or nothing.
func badKey(key string) string {
	switch {
	case !validName(key):
		return "a key has letters, digits and _ and does not start with a digit"
	case !strings.ContainsFunc(key, func(r rune) bool { return 'a' <= r && r <= 'z' }):
		return "names without a lower-case letter belong to the shell and the system that source the file; use another one"
	}
	return ""
}

// badValue says why no settings file can hold value, or nothing. What is left
// means the same to bash, to a copy of the file on a node and to programs that
// read it as INI.
func badValue(value string) string {
	switch {
	case !utf8.ValidString(value):
		return "the value is not valid UTF-8; write it in UTF-8"
	case strings.ContainsFunc(value, func(r rune) bool { return r < 0x80 && control(byte(r)) }):
		return "the value has a control character or a line end; a value is one line of text"
	case strings.Contains(value, "{{") || strings.Contains(value, "}}"):
		return "the template's {{ }} is not filled in; put the value in its place"
	case strings.Contains(value, "$(") || strings.Contains(value, "`"):
		return "the value holds a command, which the next script that reads it would run; put its output in its place"
	}
	return ""
}

// notAssignment says what is wrong with a line that is none.
func notAssignment(line string) string {
	name := line
	if i := strings.IndexFunc(line, func(r rune) bool { return r >= 0x80 || !nameByte(byte(r)) }); i >= 0 {
		name = line[:i]
	}
	rest := line[len(name):]
	first, _, _ := strings.Cut(line, " ")
	switch {
	case strings.HasPrefix(line, "{{"), strings.Contains(line, "={{"):
		return "the template's {{ }} is not filled in; put the value in its place"
	case strings.HasPrefix(line, "["):
		return "a settings file has no [sections], and the shell would run this line; make it a comment: ## Title"
	case slices.Contains([]string{"export", "declare", "typeset", "local", "readonly"}, first):
		return "only plain assignments are settings; delete the word " + first
	case name != "" && strings.HasPrefix(strings.TrimLeft(rest, " \t"), "=") && !strings.HasPrefix(rest, "="):
		return "blanks before the =, so the shell would run " + name + " as a command and the key would be lost; write " + name + "=\"value\""
	case name != "" && strings.HasPrefix(rest, "+="):
		return "appending to a value is not a setting; write the whole value with ="
	case name != "" && strings.HasPrefix(rest, "["):
		return "arrays are not settings; write one plain value"
	case strings.Contains(first, "="):
		return "the word before the = is not a name the shell can assign to: letters, digits and _, and no digit first"
	}
	return "this is not an assignment, and the shell would run it; write KEY=\"value\", or # before a comment"
}
