// Package textedit changes a text by edits on its original bytes, so that
// whatever is not edited stays as it was.
package textedit

import (
	"bytes"
	"fmt"
	"slices"
)

// An Edit replaces Old, which stands at Offset of the original text, by New.
// An empty Old inserts, an empty New deletes.
type Edit struct {
	Offset   int
	Old, New []byte
}

// End returns the offset behind the replaced bytes, in the original text.
func (e Edit) End() int { return e.Offset + len(e.Old) }

// A Buffer collects edits on one text. The zero value is a buffer on an empty
// text. It is not safe for concurrent use.
type Buffer struct {
	src   []byte
	edits []Edit
}

// New returns a buffer on src, which must not change afterwards.
func New(src []byte) *Buffer { return &Buffer{src: src} }

// Insert puts text before the byte at offset. Texts inserted at one offset
// stay in the order of the calls.
func (b *Buffer) Insert(offset int, text string) { b.Replace(offset, offset, text) }

// Delete removes the bytes in [start, end).
func (b *Buffer) Delete(start, end int) { b.Replace(start, end, "") }

// Replace puts text in the place of the bytes in [start, end). A range outside
// the text is reported by Edits and Bytes, not here, so that callers need to
// look at one error only.
func (b *Buffer) Replace(start, end int, text string) {
	if start == end && text == "" {
		return
	}
	e := Edit{Offset: start, New: []byte(text)}
	if start >= 0 && start <= end && end <= len(b.src) {
		e.Old = b.src[start:end:end]
	} else {
		e.Offset = -1
	}
	b.edits = append(b.edits, e)
}

// Edits returns the edits in the order of their offsets.
func (b *Buffer) Edits() ([]Edit, error) {
	sorted := slices.Clone(b.edits)
	Sort(sorted)
	return sorted, Check(b.src, sorted)
}

// Bytes returns the edited text. Without edits it is the original slice.
func (b *Buffer) Bytes() ([]byte, error) {
	edits, err := b.Edits()
	if err != nil {
		return nil, err
	}
	return Apply(b.src, edits)
}

// Sort orders edits by offset; edits at one offset keep their order, insertions
// before replacements.
func Sort(edits []Edit) {
	slices.SortStableFunc(edits, func(a, b Edit) int {
		if a.Offset != b.Offset {
			return a.Offset - b.Offset
		}
		return min(len(a.Old), 1) - min(len(b.Old), 1)
	})
}

// Check says whether the sorted edits fit src: inside it, not overlapping, and
// with the old bytes they name.
func Check(src []byte, edits []Edit) error {
	last := 0
	for _, e := range edits {
		switch {
		case e.Offset < 0 || e.End() > len(src):
			return fmt.Errorf("internal error: edit at offset %d is outside the text of %d bytes", e.Offset, len(src))
		case e.Offset < last:
			return fmt.Errorf("edits overlap at offset %d", e.Offset)
		case !bytes.Equal(src[e.Offset:e.End()], e.Old):
			return fmt.Errorf("the text at offset %d is not what the edit expects", e.Offset)
		}
		last = e.End()
	}
	return nil
}

// Apply returns src with the sorted edits done. Without edits it returns src
// itself.
func Apply(src []byte, edits []Edit) ([]byte, error) {
	if err := Check(src, edits); err != nil {
		return nil, err
	}
	if len(edits) == 0 {
		return src, nil
	}
	size := len(src)
	for _, e := range edits {
		size += len(e.New) - len(e.Old)
	}
	out := make([]byte, 0, size)
	last := 0
	for _, e := range edits {
		out = append(out, src[last:e.Offset]...)
		out = append(out, e.New...)
		last = e.End()
	}
	return append(out, src[last:]...), nil
}

// Invert returns the edits that lead from Apply(src, edits) back to src.
func Invert(edits []Edit) []Edit {
	out := make([]Edit, len(edits))
	shift := 0
	for i, e := range edits {
		out[i] = Edit{Offset: e.Offset + shift, Old: e.New, New: e.Old}
		shift += len(e.New) - len(e.Old)
	}
	return out
}

// Compose returns the edits on src that do what first does to src followed by
// what second does to the result.
func Compose(src []byte, first, second []Edit) []Edit {
	// The text in the middle as pieces, each kept from src or written by first.
	type piece struct {
		start, end int    // of src, when text is nil
		text       []byte // written
	}
	size := func(p piece) int {
		if p.text != nil {
			return len(p.text)
		}
		return p.end - p.start
	}
	var middle []piece
	last := 0
	for _, e := range first {
		if e.Offset > last {
			middle = append(middle, piece{start: last, end: e.Offset})
		}
		if len(e.New) > 0 {
			middle = append(middle, piece{text: e.New})
		}
		last = e.End()
	}
	if last < len(src) {
		middle = append(middle, piece{start: last, end: len(src)})
	}

	// second cuts these pieces and puts its own between them. It goes from left
	// to right, so what lies before from is never looked at again.
	var result []piece
	next, pos := 0, 0 // the first piece that is not behind, and where it begins
	keep := func(from, to int) {
		for ; next < len(middle); next++ {
			p := middle[next]
			n := size(p)
			a, b := max(from-pos, 0), min(to-pos, n)
			if a < b {
				if p.text != nil {
					result = append(result, piece{text: p.text[a:b]})
				} else {
					result = append(result, piece{start: p.start + a, end: p.start + b})
				}
			}
			if pos+n > to {
				return // the rest of it may be kept by a later call
			}
			pos += n
		}
	}
	last = 0
	for _, e := range second {
		keep(last, e.Offset)
		if len(e.New) > 0 {
			result = append(result, piece{text: e.New})
		}
		last = e.End()
	}
	total := 0
	for _, p := range middle {
		total += size(p)
	}
	keep(last, total)

	var edits []Edit
	var pending []byte
	pos = 0
	flush := func(next int) {
		if old := src[pos:next:next]; !bytes.Equal(old, pending) {
			edits = append(edits, Edit{Offset: pos, Old: old, New: pending})
		}
		pending = nil
	}
	for _, p := range result {
		if p.text != nil {
			pending = append(pending, p.text...)
			continue
		}
		flush(p.start)
		pos = p.end
	}
	flush(len(src))
	return edits
}
