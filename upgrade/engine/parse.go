package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds the bytes of a line, its newline included: values over spill
// are elsewhere.
const maxLine = 1 << 20

// A parser reads a journal line by line and checks each one. It holds one line
// in memory.
type parser struct {
	r    *bufio.Reader
	n    int    // whole records read
	size int64  // their bytes
	torn int    // bytes of a torn last write
	head string // hex SHA-256 of the last whole line
}

func newParser(r io.Reader) *parser { return &parser{r: bufio.NewReaderSize(r, 16<<10)} }

// line reads up to a newline, which it leaves out; whole tells that it was
// there.
func (p *parser) line() (line []byte, whole bool, err error) {
	for {
		part, err := p.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], true, nil
		case errors.Is(err, io.EOF):
			return line, false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, err
		case len(line) > maxLine:
			return nil, false, &DamagedError{Record: p.n + 1, Reason: fmt.Sprintf("the line is longer than %d bytes", maxLine)}
		}
	}
}

// next returns the next record, io.EOF behind the last one, and a
// *DamagedError for the first line that is not what was written. The last line
// is torn, and no damage, when it lacks its newline (the write was cut short)
// or is no JSON at all (its blocks reached the disk in another order). So is a
// line before it that is no JSON when the last write brought both.
func (p *parser) next() (Record, error) {
	var rec Record
	n := p.n + 1
	bad := func(format string, args ...any) (Record, error) {
		return rec, &DamagedError{Record: n, Reason: fmt.Sprintf(format, args...)}
	}
	line, whole, err := p.line()
	if err != nil {
		return rec, err
	}
	if len(line) == 0 && !whole {
		if p.n == 0 {
			return bad("the journal is empty")
		}
		return rec, io.EOF
	}
	if !whole || !sumMatches(line) {
		if whole && json.Valid(line) {
			return bad("the line does not match its sum")
		}
		rest, same := p.rest(n)
		switch {
		case !same:
			return bad("the line is not JSON")
		case n == 1:
			return bad("the first line is not whole") // it was renamed into place, so this is no crash
		case bytes.Contains(line, fmt.Appendf(nil, `{"seq":%d,"time":"`, n+1)) && bytes.IndexByte(line, 0) < 0:
			return bad("two lines have run together") // a block that is not on the disk would read as zeros
		}
		p.torn = len(line) + rest
		if whole {
			p.torn++
		}
		return rec, io.EOF
	}
	if err := json.Unmarshal(line, &rec); err != nil {
		return bad("%v", err)
	}
	if rec.Seq != n {
		return bad("its number is %d: lines are missing or in another order", rec.Seq)
	}
	if rec.Prev != p.head {
		return bad("it does not follow the line before it: prev is %.12s…, that line has %.12s…", rec.Prev, p.head)
	}
	p.n, p.size, p.head = n, p.size+int64(len(line))+1, hashOf(line)
	return rec, nil
}

// rest reads what stands behind line n, which is no JSON, and tells whether
// all of it was written together with that line, so that none of it was ever
// durable: then whole records are there, and each says so. Nothing may be there
// at all.
func (p *parser) rest(n int) (size int, same bool) {
	for {
		line, whole, err := p.line()
		if err != nil {
			return size, false
		}
		if len(line) == 0 && !whole {
			return size, true
		}
		size += len(line) + 1
		var rec Record
		if !whole || !sumMatches(line) || json.Unmarshal(line, &rec) != nil || rec.Seq <= n || rec.Seq-rec.With > n {
			return size, false
		}
	}
}

// headerOf reads the first record.
func headerOf(rec Record) (Header, error) {
	if rec.Kind != kindOpened {
		return Header{}, &DamagedError{Record: 1, Reason: "the first line does not open a journal"}
	}
	var b openedBody
	if err := json.Unmarshal(rec.Body, &b); err != nil {
		return Header{}, &DamagedError{Record: 1, Reason: err.Error()}
	}
	if b.Format != journalFormat {
		return Header{}, fmt.Errorf("%w: journal format is %q, this program knows %q: use the version that made it (%q)", ErrVersion, b.Format, journalFormat, b.Version)
	}
	return b.Header, nil
}
