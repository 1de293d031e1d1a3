package pitrix

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// RCLocalOptions says how two files are compared.
type RCLocalOptions struct {
	// Addresses of the new node stand for others of the old one: temporary for
	// final.
	Addresses map[string]string
}

// An RCLocalLine is one command of an rc.local; with its continuation and, of
// a compound one, all its lines.
type RCLocalLine struct {
	Line          int    `json:"line"` // its first, from 1
	Text          string `json:"text"`
	MustCarryOver bool   `json:"must_carry_over"`
	Why           string `json:"why,omitempty"`
}

// An RCLocalDiff is what CompareRCLocal found.
type RCLocalDiff struct {
	Name string `json:"name"`
	// Missing are commands that only the old file has, in its order.
	Missing []RCLocalLine `json:"missing"`
	// Added are those that only the new file has.
	Added []RCLocalLine `json:"added"`
	// Temporary are commands of the new file with an address that it will not
	// keep; EditRCLocalTail changes them.
	Temporary []RCLocalLine `json:"temporary"`
	// Reordered: both have the same commands in another order.
	Reordered bool `json:"reordered"`

	old, new []byte
	missing  []rcUnit // of Missing
	opts     RCLocalOptions
}

// Equal reports whether the files do the same.
func (d *RCLocalDiff) Equal() bool {
	return len(d.Missing)+len(d.Added)+len(d.Temporary) == 0 && !d.Reordered
}

// MustCarryOver returns the missing commands that CarryOver puts into the new
// file.
func (d *RCLocalDiff) MustCarryOver() []RCLocalLine {
	return slices.DeleteFunc(slices.Clone(d.Missing), func(l RCLocalLine) bool { return !l.MustCarryOver })
}

// rcUnit is one command at the top level of a script.
type rcUnit struct {
	line             int
	lead, start, end int // lead: with the comments directly above
	text             string
	sure             bool // where it ends is certain
}

// rcUnits cuts a script into commands. A compound command, a here-document and
// a quoted line feed stay in one piece. It reads as much of the shell's grammar
// as that needs; a piece that does not close is not sure.
func rcUnits(src []byte) []rcUnit {
	var units []rcUnit
	sc := rcScanner{}
	lead, open := -1, -1
	number := 0
	for start := 0; start < len(src); {
		number++
		end := len(src)
		if i := bytes.IndexByte(src[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		text := string(src[start:end])
		trimmed := strings.TrimSpace(text)
		if open < 0 && (trimmed == "" || trimmed[0] == '#') {
			if trimmed == "" || strings.HasPrefix(trimmed, "#!") {
				lead = -1
			} else if lead < 0 {
				lead = start
			}
			start = end
			continue
		}
		if open < 0 {
			open = len(units)
			u := rcUnit{line: number, lead: start, start: start}
			if lead >= 0 {
				u.lead = lead
			}
			lead = -1
			units = append(units, u)
		}
		sc.line(strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"))
		units[open].end, units[open].text = end, string(src[units[open].start:end])
		units[open].sure = sc.closed()
		if sc.closed() {
			open = -1
		}
		start = end
	}
	return units
}

// rcScanner follows what is open from line to line.
type rcScanner struct {
	quote   byte     // of a string that goes on
	nest    []string // the words that close what is open
	heredoc []string // ends of here-documents that begin behind this line
	tabs    []bool   // whether tabs before them do not count
	more    bool     // a backslash, an operator at the end
	broken  bool     // a word that closes nothing
}

func (s *rcScanner) closed() bool {
	return s.quote == 0 && len(s.nest) == 0 && len(s.heredoc) == 0 && !s.more && !s.broken
}

func (s *rcScanner) line(text string) {
	if len(s.heredoc) > 0 && s.quote == 0 && !s.more {
		end := text
		if s.tabs[0] {
			end = strings.TrimLeft(end, "\t")
		}
		if end == s.heredoc[0] {
			s.heredoc, s.tabs = s.heredoc[1:], s.tabs[1:]
		}
		return
	}
	s.more = false
	command := true // a command word may stand here
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case s.quote != 0:
			if c == '\\' && s.quote == '"' {
				i++
			} else if c == s.quote {
				s.quote = 0
			}
			i++
			command = false
		case c == '\\':
			if i+1 == len(text) {
				s.more = true
			}
			i += 2
			command = false
		case c == '\'' || c == '"' || c == '`':
			s.quote = c
			i++
		case c == '#' && (i == 0 || strings.IndexByte(" \t;&|()", text[i-1]) >= 0):
			return
		case blank(c):
			i++
		case c == ';' || c == '&' || c == '|':
			command = true
			s.more = c != ';' && strings.TrimSpace(text[i+1:]) == "" && (c == '|' || i > 0 && text[i-1] == '&')
			i++
		case c == '(':
			// A subshell, or part of a word: $( ), an array, a function's ().
			if command {
				s.nest = append(s.nest, ")")
			} else {
				s.nest = append(s.nest, ") of a word")
			}
			command = true
			i++
		case c == ')':
			if n := len(s.nest); n > 0 && strings.HasPrefix(s.nest[n-1], ")") {
				command = s.nest[n-1] == ")" || i > 0 && text[i-1] == '('
				s.nest = s.nest[:n-1]
			} else if n > 0 && s.nest[n-1] == "esac" {
				command = true // behind a pattern
			} else {
				s.broken = true
			}
			i++
		case strings.HasPrefix(text[i:], "<<<"):
			i += 3
		case strings.HasPrefix(text[i:], "<<"):
			i += 2
			tabs := i < len(text) && text[i] == '-'
			if tabs {
				i++
			}
			for i < len(text) && blank(text[i]) {
				i++
			}
			from := i
			for i < len(text) && strings.IndexByte(" \t;&|<>()", text[i]) < 0 {
				i++
			}
			word := strings.NewReplacer("'", "", `"`, "", `\`, "").Replace(text[from:i])
			s.heredoc, s.tabs = append(s.heredoc, word), append(s.tabs, tabs)
		case c == '<' || c == '>':
			i++
		default:
			from := i
			for i < len(text) && strings.IndexByte(" \t;&|<>()'\"`\\", text[i]) < 0 {
				i++
			}
			command = s.word(text[from:i], command)
		}
	}
}

// word notes what a word opens or closes and reports whether another command
// may follow it directly.
func (s *rcScanner) word(word string, command bool) bool {
	if !command {
		return false
	}
	shut := func() bool {
		if n := len(s.nest); n > 0 && s.nest[n-1] == word {
			s.nest = s.nest[:n-1]
		} else {
			s.broken = true
		}
		return false
	}
	switch word {
	case "if":
		s.nest = append(s.nest, "fi")
		return true
	case "case":
		s.nest = append(s.nest, "esac")
		return false
	case "for", "while", "until", "select":
		s.nest = append(s.nest, "done")
		return word == "while" || word == "until"
	case "{":
		s.nest = append(s.nest, "}")
		return true
	case "then", "else", "elif", "do", "!", "time":
		return true
	case "fi", "esac", "done", "}":
		return shut()
	}
	return false
}

// normal returns the unit as it is compared: without indentation and, where
// nothing is quoted, with single blanks; ip route add as replace, which does
// the same and does not fail the second time.
func (u rcUnit) normal(addresses map[string]string) string {
	text, _ := replaceAddresses(u.text, addresses)
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.ContainsAny(line, "'\"\\") {
			line = strings.Join(strings.Fields(line), " ")
			if i := strings.Index(line, " #"); i >= 0 {
				line = strings.TrimSpace(line[:i])
			}
		}
		lines = append(lines, line)
	}
	text = strings.Join(lines, "\n")
	if rest, ok := strings.CutPrefix(text, "ip route add "); ok {
		text = "ip route replace " + rest
	}
	return text
}

// shellFrame says whether the unit is part of every rc.local.
func (u rcUnit) shellFrame() bool { return u.normal(nil) == "exit 0" || u.normal(nil) == "exit" }

// routeTo returns the destination of a route, or nothing.
func routeTo(normal string) string {
	rest, ok := strings.CutPrefix(normal, "ip route replace ")
	if !ok || strings.ContainsAny(rest, "\n;&|") {
		return ""
	}
	to, _, _ := strings.Cut(rest, " ")
	if to == "default" {
		return to
	}
	if _, err := netip.ParsePrefix(to); err == nil {
		return to
	}
	if _, err := netip.ParseAddr(to); err == nil {
		return to + "/32"
	}
	return ""
}

// ofDevices says whether a command sets up the network cards of one VM, which
// the installer does for the new one itself.
func ofDevices(normal string) bool {
	if strings.Contains(normal, "\n") {
		return strings.Contains(normal, "smp_affinity")
	}
	words := strings.Fields(normal)
	switch {
	case strings.Contains(normal, "smp_affinity"), strings.Contains(normal, "/proc/irq/"):
		return true
	case len(words) > 1 && words[0] == "ethtool" && words[1] == "-K":
		return true
	case normal == "service irqbalance stop":
		return true
	case len(words) == 5 && strings.HasPrefix(normal, "ip link set ") && words[4] == "up":
		return true
	case len(words) == 3 && words[0] == "ifconfig" && words[2] == "up":
		return true
	}
	return false
}

// CompareRCLocal compares two versions of rc.local, rc.local.head or
// rc.local.tail command by command; comments, blanks and indentation do not
// count, and ip route add is ip route replace. A command that only the old file
// has was made by hand and must be carried over, unless the new file has a route
// to the same network, or it sets up the old VM's network cards.
func CompareRCLocal(name string, old, new []byte, opts RCLocalOptions) *RCLocalDiff {
	d := &RCLocalDiff{
		Name: name, old: slices.Clone(old), new: slices.Clone(new), opts: opts,
		Missing: []RCLocalLine{}, Added: []RCLocalLine{}, Temporary: []RCLocalLine{},
	}
	frame := func(u rcUnit) bool { return u.shellFrame() }
	was, is := slices.DeleteFunc(rcUnits(d.old), frame), slices.DeleteFunc(rcUnits(d.new), frame)
	left := map[string]int{} // how often the new file has a command
	routes := map[string]string{}
	var newOrder, oldOrder []string
	for _, u := range is {
		text := u.normal(opts.Addresses)
		left[text]++
		if to := routeTo(text); to != "" {
			routes[to] = strings.TrimSpace(u.text)
		}
	}
	both := map[string]int{}
	for _, u := range was {
		text := u.normal(nil)
		if left[text] > 0 {
			left[text]--
			both[text]++
			oldOrder = append(oldOrder, text)
			continue
		}
		l := RCLocalLine{Line: u.line, Text: strings.TrimSpace(u.text), MustCarryOver: true, Why: "the new file does not have it; it was made by hand"}
		switch other := routes[routeTo(text)]; {
		case routeTo(text) != "" && other != "":
			l.MustCarryOver, l.Why = false, "the new file has another route there: "+other
		case ofDevices(text):
			l.MustCarryOver, l.Why = false, "it is for the old VM's network cards; the installer sets up the new one's"
		case strings.Contains(text, "vxlan"):
			l.Why += "; a tunnel is keyed to the node's address, so it works again when the node has its final one"
		}
		d.Missing, d.missing = append(d.Missing, l), append(d.missing, u)
	}
	for _, u := range is {
		text := u.normal(opts.Addresses)
		l := RCLocalLine{Line: u.line, Text: strings.TrimSpace(u.text)}
		if both[text] > 0 {
			both[text]--
			newOrder = append(newOrder, text)
		} else {
			d.Added = append(d.Added, l)
		}
		for _, from := range slices.Sorted(maps.Keys(opts.Addresses)) {
			if at, _ := findAddress(u.text, from); len(at) > 0 {
				l.Why = fmt.Sprintf("%s is temporary; it becomes %s", from, opts.Addresses[from])
				d.Temporary = append(d.Temporary, l)
				break
			}
		}
	}
	d.Reordered = !slices.Equal(oldOrder, newOrder)
	return d
}

// CarryOver returns the new file with the commands that must be carried over,
// byte for byte and with the comments directly above them, behind its own ones
// and before exit. All other bytes stay. A compound command that does not close
// is refused: it cannot be cut out.
func (d *RCLocalDiff) CarryOver() ([]byte, error) {
	at := len(d.new)
	units := rcUnits(d.new)
	for _, u := range units {
		if !u.sure {
			return nil, fmt.Errorf("cannot carry over into %s: line %d of the new file opens something that is not closed; look at it with bash -n", d.Name, u.line)
		}
	}
	// Behind the first exit nothing is run.
	if i := slices.IndexFunc(units, func(u rcUnit) bool { return u.shellFrame() }); i >= 0 {
		at = units[i].lead
	}
	var text strings.Builder
	for i, u := range d.missing {
		switch {
		case !d.Missing[i].MustCarryOver:
			continue
		case !u.sure:
			return nil, fmt.Errorf("cannot carry over into %s: line %d of the old file opens something that is not closed; look at it with bash -n", d.Name, u.line)
		}
		text.Write(d.old[u.lead:u.end])
		if !bytes.HasSuffix(d.old[u.lead:u.end], []byte("\n")) {
			text.WriteByte('\n')
		}
	}
	if text.Len() == 0 {
		return slices.Clone(d.new), nil
	}
	b := textedit.New(d.new)
	feed := ""
	if at > 0 && d.new[at-1] != '\n' {
		feed = "\n"
	}
	b.Insert(at, feed+text.String())
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot carry over into %s: %w", d.Name, err)
	}
	if left := CompareRCLocal(d.Name, d.old, out, d.opts).MustCarryOver(); len(left) > 0 {
		return nil, fmt.Errorf("cannot carry over into %s: line %d of the old file would still be missing; carry it over by hand", d.Name, left[0].Line)
	}
	return out, nil
}
