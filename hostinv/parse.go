package hostinv

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// A frame is one section as it came: items by label, in order; output before
// the first item has the label "".
type frame struct {
	items []frameItem
	lacks []string // what could not be read
	rc    int
	hasRC bool // the section's status line arrived
	ended bool // its end arrived
	bytes int
}

type frameItem struct {
	label string
	data  []byte
}

// get returns an item; one that is interrupted by what could not be read
// comes in parts.
func (f *frame) get(label string) (data []byte, ok bool) {
	for _, i := range f.items {
		if i.label == label {
			ok = true
			if data = i.data; len(data) > 0 {
				return data, true
			}
		}
	}
	return data, ok
}

// text returns an item without the line feeds around it.
func (f *frame) text(label string) string {
	b, _ := f.get(label)
	return strings.Trim(string(b), "\n")
}

// rows returns the lines of an item that are not blank.
func (f *frame) rows(label string) []string {
	text := f.text(label)
	if text == "" {
		return nil
	}
	out := make([]string, 0, strings.Count(text, "\n")+1)
	for more := true; more; {
		var line string
		line, text, more = strings.Cut(text, "\n")
		// Most lines begin with what is no space.
		if line != "" && (line[0] > ' ' && line[0] < 0x80 || strings.TrimSpace(line) != "") {
			out = append(out, line)
		}
	}
	return out
}

// proved returns the lines of an item whose last line is "rc STATUS"; ok is
// false when that line is missing, so that the item was cut.
func (f *frame) proved(label string) (rows []string, rc int, ok bool) {
	rows = f.rows(label)
	if len(rows) == 0 {
		return nil, 0, false
	}
	last, found := strings.CutPrefix(rows[len(rows)-1], "rc ")
	rc, err := strconv.Atoi(last)
	return rows[:len(rows)-1], rc, found && err == nil
}

// fileLines returns the lines of an item that holds files, in their order.
func (f *frame) fileLines(label string) []Line {
	var out []Line
	for line := range strings.SplitSeq(f.text(label), "\n") {
		if file, text, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(file, "/") {
			out = append(out, Line{file, strings.TrimSuffix(text, "\r")})
		}
	}
	return out
}

// splitFrames cuts the stream at the lines that carry the mark. Only a whole
// line counts, with its line feed: a stream may end anywhere.
func splitFrames(stream []byte, mark string) (frames map[string]*frame, noise []byte, framed bool) {
	frames = map[string]*frame{}
	// The first line with our part of the mark tells the host's.
	before, rest, known := bytes.Cut(stream, []byte("\n"+mark+" K "))
	own, rest, whole := bytes.Cut(rest, []byte("\n"))
	if !known || !whole {
		return frames, before, false
	}
	sep := []byte("\n" + mark + string(own) + " ")
	rest = stream[len(stream)-len(rest)-1:] // with the line feed before it
	var cur *frame
	var name string
	noise = before
	add := func(data []byte) {
		switch {
		case cur != nil:
			cur.bytes += len(data)
			if n := len(cur.items); n > 0 {
				cur.items[n-1].data = data
			}
		}
	}
	for {
		i := bytes.Index(rest, sep)
		if i < 0 {
			add(rest)
			return frames, noise, framed
		}
		add(rest[:i])
		rest = rest[i+len(sep):]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return frames, noise, framed // a torn mark
		}
		kind, arg, _ := strings.Cut(string(rest[:end]), " ")
		rest = rest[end+1:]
		switch kind {
		case "B":
			framed = true
			if !slices.Contains(asked, arg) || frames[arg] != nil {
				// Not ours; nothing may follow that is believed.
				return frames, noise, framed
			}
			cur, name = &frame{items: []frameItem{{}}}, arg
			frames[arg] = cur
		case "I":
			if cur != nil && !cur.hasRC {
				cur.items = append(cur.items, frameItem{label: arg})
			}
		case "U":
			if cur != nil && !cur.hasRC {
				cur.lacks = append(cur.lacks, clip(strings.ToValidUTF8(arg, "\uFFFD"), 200))
				cur.items = append(cur.items, frameItem{label: cur.items[len(cur.items)-1].label})
			}
		case "R":
			if cur != nil && !cur.hasRC {
				if n, err := strconv.Atoi(arg); err == nil {
					cur.rc, cur.hasRC = n, true
				}
				// What follows is no payload.
				cur.items = append(cur.items, frameItem{label: "\x00"})
			}
		case "E":
			if cur != nil && arg == name {
				cur.ended = true
			}
			cur = nil
		case "Z": // a stream that ends before it lacks sections, which shows
			return frames, noise, framed
		}
	}
}

// fills read the sections. A status other than ok says that what arrived is
// not what it should be. Never written to.
var fills = map[string]func(*Inventory, *frame) (Status, string){
	SectionOS: (*Inventory).fillOS, SectionKernel: (*Inventory).fillKernel, SectionBoot: (*Inventory).fillBoot,
	SectionUptime: (*Inventory).fillUptime, SectionHost: (*Inventory).fillHost, SectionKernels: (*Inventory).fillKernels,
	SectionPackages: (*Inventory).fillPackages, SectionHardware: (*Inventory).fillHardware, SectionDisks: (*Inventory).fillDisks,
	SectionFilesystems: (*Inventory).fillFilesystems, SectionMounts: (*Inventory).fillMounts, SectionFstab: (*Inventory).fillFstab,
	SectionInterfaces: (*Inventory).fillInterfaces, SectionRoutes: (*Inventory).fillRoutes, SectionRules: (*Inventory).fillRules,
	SectionDNS: (*Inventory).fillDNS, SectionFirewall: (*Inventory).fillFirewall, SectionListeners: (*Inventory).fillListeners,
	SectionConnections: (*Inventory).fillConnections, SectionProcesses: (*Inventory).fillProcesses, SectionDocker: (*Inventory).fillDocker,
	SectionContainers: (*Inventory).fillContainers, SectionUnits: (*Inventory).fillUnits, SectionSupervisor: (*Inventory).fillSupervisor,
	SectionCron: (*Inventory).fillCron, SectionSysctl: (*Inventory).fillSysctl, SectionLimits: (*Inventory).fillLimits,
	SectionModules: (*Inventory).fillModules, SectionSecurity: (*Inventory).fillSecurity, SectionUsers: (*Inventory).fillUsers,
	SectionSSH: (*Inventory).fillSSH, SectionTime: (*Inventory).fillTime, SectionNginx: (*Inventory).fillNginx,
}

// unreadable is the status of what does not look as it should.
func unreadable(what string) (Status, string) { return StatusError, what + " cannot be read" }

// parseStream reads what the script wrote. Every section that was asked for, or
// all, is in the result: one that did not arrive whole is truncated, never
// empty. framed is false when there is no frame at all, which means that the
// script did not run.
func parseStream(stream []byte, mark string, sections ...string) (inv *Inventory, framed bool) {
	frames, noise, framed := splitFrames(stream, mark)
	inv = &Inventory{Schema: schema, UID: -1, Sections: map[string]Section{}, uuids: map[string]string{}}
	inv.Noise = strings.TrimSpace(strings.ToValidUTF8(string(noise[:min(len(noise), maxNoise)]), "\uFFFD"))
	for _, name := range asked {
		if len(sections) > 0 && !slices.Contains(sections, name) {
			continue
		}
		f := frames[name]
		s := Section{Status: StatusTruncated, Message: "the host's answer ended before it"}
		if f != nil {
			s = f.section()
			switch s.Status {
			case StatusOK, StatusPartial, StatusTruncated, StatusTimeout:
				st, msg := fills[name](inv, f)
				if s.Unreadable = f.lacks; st == StatusOK && len(f.lacks) > 0 {
					st, msg = StatusPartial, "some of it may not be read by this user, or did not answer"
				}
				if st != StatusOK && (s.Status == StatusOK || s.Status == StatusPartial) {
					s.Status, s.Message = st, msg
				}
			}
		}
		inv.Sections[name] = s
		for _, d := range derived[name] {
			if _, judged := inv.Sections[d]; !judged || s.Status == StatusTruncated || s.Status == StatusTimeout {
				inv.Sections[d] = Section{Status: s.Status, Message: s.Message}
			}
		}
	}
	inv.attribute()
	inv.fillEmpty()
	return inv, framed
}

// section judges a frame by its end and its status.
func (f *frame) section() Section {
	s := Section{Bytes: f.bytes}
	message := clip(strings.ToValidUTF8(strings.Join(strings.Fields(f.text("message")), " "), "\uFFFD"), 300)
	switch {
	case !f.hasRC && f.ended:
		s.Status, s.Message = StatusTruncated, "it is larger than "+strconv.Itoa(maxSection>>20)+" MiB"
	case !f.hasRC || !f.ended:
		s.Status, s.Message = StatusTruncated, "the host's answer ended within it"
	case f.rc == 0:
		s.Status = StatusOK
	case f.rc == 10:
		s.Status = StatusAbsent
	case f.rc == 12:
		s.Status, s.Message = StatusPartial, "some of it may not be read by this user, or is gone"
	case f.rc == 124:
		s.Status, s.Message = StatusTimeout, "the host took longer than 20 s"
	default:
		s.Status, s.Message = StatusError, message
		if message == "" {
			s.Message = "exit status " + strconv.Itoa(f.rc)
		}
		low := strings.ToLower(message)
		switch {
		case strings.Contains(low, "permission denied"):
			s.Status = StatusDenied
		case strings.Contains(low, "not been booted with systemd"):
			s.Status = StatusAbsent
		}
	}
	return s
}
