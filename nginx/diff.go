package nginx

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// contextLines is how many unchanged lines a diff shows around a change.
const contextLines = 3

// region is a run of whole lines that changed: lines [from, to) of the old text.
type region struct {
	from, to int
	old, new []string
}

func diffFile(b *strings.Builder, f fileChange) {
	starts := lineStarts(f.before)
	var regions []region
	for _, r := range changedRanges(f) {
		text := f.before[r.start:r.end]
		after, err := textedit.Apply(text, r.edits)
		if err != nil {
			// The edits were checked when the change was made.
			panic("nginx: internal error: " + err.Error())
		}
		from := lineAt(starts, r.start)
		reg := region{from: from, old: splitLines(text), new: splitLines(after)}
		for len(reg.old) > 0 && len(reg.new) > 0 && reg.old[0] == reg.new[0] {
			reg.old, reg.new = reg.old[1:], reg.new[1:]
			reg.from++
		}
		for len(reg.old) > 0 && len(reg.new) > 0 && reg.old[len(reg.old)-1] == reg.new[len(reg.new)-1] {
			reg.old, reg.new = reg.old[:len(reg.old)-1], reg.new[:len(reg.new)-1]
		}
		reg.to = reg.from + len(reg.old)
		if len(reg.old)+len(reg.new) > 0 {
			regions = append(regions, reg)
		}
	}
	if len(regions) == 0 {
		return
	}
	lines := splitLines(f.before)
	fmt.Fprintf(b, "--- %s\n+++ %s\n", f.name, f.name)
	shift := 0
	for len(regions) > 0 {
		n := 1
		for n < len(regions) && regions[n].from-regions[n-1].to <= 2*contextLines {
			n++
		}
		shift = writeHunk(b, lines, regions[:n], shift)
		regions = regions[n:]
	}
}

// writeHunk writes regions that stand close together and returns by how many
// lines the new text is now ahead of the old one.
func writeHunk(b *strings.Builder, lines []string, regions []region, shift int) int {
	first, last := regions[0], regions[len(regions)-1]
	from := max(first.from-contextLines, 0)
	to := min(last.to+contextLines, len(lines))
	grown := 0
	for _, r := range regions {
		grown += len(r.new) - len(r.old)
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", hunkRange(from, to-from), hunkRange(from+shift, to-from+grown))
	at := from
	for _, r := range regions {
		writeLines(b, ' ', lines[at:r.from])
		writeLines(b, '-', r.old)
		writeLines(b, '+', r.new)
		at = r.to
	}
	writeLines(b, ' ', lines[at:to])
	return shift + grown
}

func hunkRange(from, count int) string {
	if count == 0 {
		return fmt.Sprintf("%d,0", from)
	}
	if count == 1 {
		return fmt.Sprint(from + 1)
	}
	return fmt.Sprintf("%d,%d", from+1, count)
}

func writeLines(b *strings.Builder, sign byte, lines []string) {
	for _, l := range lines {
		b.WriteByte(sign)
		b.WriteString(l)
		if !strings.HasSuffix(l, "\n") {
			b.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// byteRange is a run of bytes that holds whole lines and some edits of them,
// whose offsets count from its start.
type byteRange struct {
	start, end int
	edits      []textedit.Edit
}

func changedRanges(f fileChange) []byteRange {
	var out []byteRange
	src := f.before
	for _, e := range f.edits {
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
			out = append(out, byteRange{start: start, end: end})
		}
		r := &out[len(out)-1]
		r.edits = append(r.edits, textedit.Edit{Offset: e.Offset - r.start, Old: e.Old, New: e.New})
	}
	return out
}

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

func lineAt(starts []int, offset int) int {
	lo, hi := 0, len(starts)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; starts[mid] <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// splitLines cuts text behind each line end.
func splitLines(text []byte) []string {
	var out []string
	for l := range bytes.Lines(text) {
		out = append(out, string(l))
	}
	return out
}

// lineEdits returns edits of whole lines that turn before into after: the lines
// that both begin and end with are left out.
func lineEdits(before, after []byte) []textedit.Edit {
	a, b := splitLines(before), splitLines(after)
	start := 0
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		start += len(a[0])
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	old := strings.Join(a, "")
	return []textedit.Edit{{Offset: start, Old: []byte(old), New: []byte(strings.Join(b, ""))}}
}
