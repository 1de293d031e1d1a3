package pitrix

import (
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// CarryOver returns the new file with everything in it that must be carried
// over from the old one: whole sections behind the last one, with the comments
// above them; bind lines behind the header; servers where the old file has
// others or more. The lines are the old file's, byte for byte, but for a header
// with an address, which a later haproxy refuses: its address goes into a bind
// line. All other bytes of the new file stay. Compared again, the result has
// nothing to carry over. Let haproxy -c look at it before it is loaded.
func (d *HAProxyDiff) CarryOver() (*HAProxy, error) {
	b := textedit.New(d.new.src)
	edited := map[int]bool{} // starts of the new file's lines
	inserted := map[int]bool{}
	var tail strings.Builder
	line := func(text string) string { // with a line feed
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return text
	}
	for _, x := range d.MustCarryOver() {
		old, now := d.old.find(x.Section), d.new.find(x.Section)
		switch {
		case x.Kind == HAProxySection:
			tail.WriteString("\n" + line(d.old.sectionText(old)) + d.inherited(old))
		case x.Kind == HAProxyBind:
			l := old.at(x.OldLine)
			if inserted[l.start] {
				continue // a line with several addresses
			}
			inserted[l.start] = true
			text := d.old.bindText(l)
			for _, m := range now.lines {
				// Addresses that both have would be bound twice.
				if m.words[0].text != "bind" || len(m.words) < 2 {
					continue
				}
				for _, a := range strings.Split(m.words[1].text, ",") {
					if strings.Contains(","+l.bindAddresses()+",", ","+a+",") {
						return nil, fmt.Errorf("cannot carry %s over: line %d of the old file and line %d of the new one share the address %s; split the old line and compare again", x.Section, l.line, m.line, a)
					}
				}
			}
			b.Insert(now.header.end, d.new.feed(now.header.end)+line(text))
		case x.Kind == HAProxyServer && x.NewLine == 0:
			at := now.end
			if l, ok := now.lastServer(); ok {
				at = l.end
			}
			l := old.at(x.OldLine)
			b.Insert(at, d.new.feed(at)+line(string(d.old.src[l.start:l.end])))
		case x.Kind == HAProxyServer && x.OldLine == 0:
			m := now.at(x.NewLine)
			if !edited[m.start] {
				edited[m.start] = true
				b.Delete(m.start, m.end)
			}
		case x.Kind == HAProxyServer:
			l, m := old.at(x.OldLine), now.at(x.NewLine)
			if !edited[m.start] {
				edited[m.start] = true
				b.Replace(m.start, m.end, line(string(d.old.src[l.start:l.end])))
			}
		default:
			return nil, fmt.Errorf("internal error: cannot carry over a %s of %s", x.Kind, x.Section)
		}
	}
	if tail.Len() > 0 {
		end := len(d.new.src)
		b.Insert(end, d.new.feed(end)+tail.String())
	}
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot carry over into %s: %w", d.new.name, err)
	}
	h, err := ParseHAProxy(d.new.name, out)
	if err != nil {
		return nil, fmt.Errorf("cannot carry over into %s: the edited file would be refused: %w", d.new.name, err)
	}
	if left := CompareHAProxy(d.old, h, d.opts).MustCarryOver(); len(left) > 0 {
		return nil, fmt.Errorf("cannot carry over into %s: the edited file would still lack something: %v; carry it over by hand", d.new.name, left[0])
	}
	return h, nil
}

// inherited returns mode and balance for a section that had them from its
// defaults, where those of the new file's end say otherwise.
func (d *HAProxyDiff) inherited(s *haSection) string {
	if s.kind != "listen" && s.kind != "frontend" && s.kind != "backend" {
		return ""
	}
	var was, is *haSection
	for i := range d.old.sections {
		if &d.old.sections[i] == s {
			was = d.old.defaults()[i]
		}
	}
	for i := range d.new.sections {
		if d.new.sections[i].kind == "defaults" {
			is = &d.new.sections[i]
		}
	}
	a, b := d.old.normal(*s, was, nil), d.new.normal(*s, is, nil)
	out := ""
	if a.mode != b.mode {
		out += "    mode " + a.mode + "\n"
	}
	if a.balance != b.balance && s.kind != "frontend" {
		out += "    balance " + a.balance + "\n"
	}
	return out
}

// feed returns a line feed if there is none before the offset.
func (h *HAProxy) feed(offset int) string {
	if offset > 0 && h.src[offset-1] != '\n' {
		return "\n"
	}
	return ""
}

// at returns the line of the number, which is one of the section's.
func (s *haSection) at(number int) haLine {
	for _, l := range s.lines {
		if l.line == number {
			return l
		}
	}
	return s.header
}

func (s *haSection) lastServer() (haLine, bool) {
	for i := len(s.lines) - 1; i >= 0; i-- {
		if s.lines[i].words[0].text == "server" {
			return s.lines[i], true
		}
	}
	return haLine{}, false
}

// bindAddresses returns the list of addresses of a bind line or a header.
func (l haLine) bindAddresses() string {
	i := 1
	if l.words[0].text != "bind" {
		i = 2
	}
	return l.words[i].text
}

// bindText returns the line as a bind line.
func (h *HAProxy) bindText(l haLine) string {
	if l.words[0].text == "bind" {
		return string(h.src[l.start:l.end])
	}
	return "    bind " + string(h.src[l.words[2].start:l.words[len(l.words)-1].end])
}

// sectionText returns the section with the comments above it, its header
// without an address.
func (h *HAProxy) sectionText(s *haSection) string {
	head := string(h.src[s.header.lead:s.header.end])
	if (s.kind == "listen" || s.kind == "frontend") && len(s.header.words) > 2 {
		name := s.header.words[1]
		head = string(h.src[s.header.lead:name.end]) + "\n" + h.bindText(s.header) + "\n"
	}
	return head + string(h.src[s.header.end:s.end])
}
