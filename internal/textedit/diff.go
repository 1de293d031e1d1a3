package textedit

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
)

// contextLines is how many unchanged lines a diff shows around a change.
const contextLines = 3

// A Region replaces whole lines of a text: Old, which starts with line From
// (counted from 0), by New. Every line has its line end, but the last of a text
// may lack it. An empty Old inserts before line From.
type Region struct {
	From     int
	Old, New []string
}

func (r Region) to() int { return r.From + len(r.Old) }

// Diff returns the sorted edits of src as a unified diff with three lines of
// context, which patch -p0 takes; "" when they change nothing. It looks at the
// edited lines only, so that its time does not depend on how the rest differs.
func Diff(name string, src []byte, edits []Edit) (string, error) {
	if err := Check(src, edits); err != nil {
		return "", err
	}
	starts := lineStarts(src)
	var regions []Region
	for _, r := range editedLines(src, edits) {
		text := src[r.start:r.end]
		after, err := Apply(text, r.edits)
		if err != nil {
			return "", err
		}
		from := sort.Search(len(starts), func(i int) bool { return starts[i] > r.start }) - 1
		reg := Region{From: from, Old: Lines(text), New: Lines(after)}
		for len(reg.Old) > 0 && len(reg.New) > 0 && reg.Old[0] == reg.New[0] {
			reg.Old, reg.New = reg.Old[1:], reg.New[1:]
			reg.From++
		}
		for len(reg.Old) > 0 && len(reg.New) > 0 && reg.Old[len(reg.Old)-1] == reg.New[len(reg.New)-1] {
			reg.Old, reg.New = reg.Old[:len(reg.Old)-1], reg.New[:len(reg.New)-1]
		}
		if len(reg.Old)+len(reg.New) > 0 {
			regions = append(regions, reg)
		}
	}
	line := func(n int) string {
		end := len(src)
		if n+1 < len(starts) {
			end = starts[n+1]
		}
		return string(src[starts[n]:end])
	}
	total := len(starts)
	if starts[total-1] == len(src) {
		total-- // behind the last line end stands no line
	}
	return unified(name, total, line, regions), nil
}

// Unified returns regions of a text, which stand in order and do not touch each
// other, as a unified diff with three lines of context; "" without regions.
func Unified(name string, lines []string, regions []Region) string {
	return unified(name, len(lines), func(n int) string { return lines[n] }, regions)
}

func unified(name string, total int, line func(int) string, regions []Region) string {
	if len(regions) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, name)
	shift := 0 // how many lines the new text is ahead of the old one
	for len(regions) > 0 {
		n := 1
		for n < len(regions) && regions[n].From-regions[n-1].to() <= 2*contextLines {
			n++
		}
		shift += hunk(&b, total, line, regions[:n], shift)
		regions = regions[n:]
	}
	return b.String()
}

// hunk writes regions that stand close together and returns by how many lines
// they grow the text.
func hunk(b *strings.Builder, total int, line func(int) string, regions []Region, shift int) int {
	from := max(regions[0].From-contextLines, 0)
	to := min(regions[len(regions)-1].to()+contextLines, total)
	grown := 0
	for _, r := range regions {
		grown += len(r.New) - len(r.Old)
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", hunkRange(from, to-from), hunkRange(from+shift, to-from+grown))
	at := from
	keep := func(to int) {
		for ; at < to; at++ {
			writeLine(b, ' ', line(at))
		}
	}
	for _, r := range regions {
		keep(r.From)
		for _, l := range r.Old {
			writeLine(b, '-', l)
		}
		for _, l := range r.New {
			writeLine(b, '+', l)
		}
		at = r.to()
	}
	keep(to)
	return grown
}

func hunkRange(from, count int) string {
	switch count {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(from + 1)
	}
	return fmt.Sprintf("%d,%d", from+1, count)
}

func writeLine(b *strings.Builder, sign byte, line string) {
	b.WriteByte(sign)
	b.WriteString(line)
	if !strings.HasSuffix(line, "\n") {
		b.WriteString("\n\\ No newline at end of file\n")
	}
}

// lineRange is a run of bytes that holds whole lines and some edits of them,
// whose offsets count from its start.
type lineRange struct {
	start, end int
	edits      []Edit
}

func editedLines(src []byte, edits []Edit) []lineRange {
	var out []lineRange
	for _, e := range edits {
		if n := len(out) - 1; n >= 0 && e.End() < out[n].end {
			// On lines that are looked at already.
			out[n].edits = append(out[n].edits, Edit{Offset: e.Offset - out[n].start, Old: e.Old, New: e.New})
			continue
		}
		start := bytes.LastIndexByte(src[:e.Offset], '\n') + 1
		end := e.End()
		// Whole lines in the place of whole lines need nothing of the next one.
		whole := start == e.Offset && (len(e.Old) == 0 || e.Old[len(e.Old)-1] == '\n') && (len(e.New) == 0 || e.New[len(e.New)-1] == '\n')
		if !whole {
			if i := bytes.IndexByte(src[end:], '\n'); i >= 0 {
				end += i + 1
			} else {
				end = len(src)
			}
		}
		if n := len(out); n > 0 && start < out[n-1].end {
			out[n-1].end = max(out[n-1].end, end)
		} else {
			out = append(out, lineRange{start: start, end: end})
		}
		r := &out[len(out)-1]
		r.edits = append(r.edits, Edit{Offset: e.Offset - r.start, Old: e.Old, New: e.New})
	}
	return out
}

func lineStarts(text []byte) []int {
	starts := make([]int, 1, 1+bytes.Count(text, []byte{'\n'}))
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// Lines cuts text behind each line end.
func Lines(text []byte) []string {
	var out []string
	for l := range bytes.Lines(text) {
		out = append(out, string(l))
	}
	return out
}
