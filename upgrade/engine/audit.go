package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// A Finding is one thing that an audit holds against a journal.
type Finding struct {
	Line   int    `json:"line,omitempty"`   // of journal.jsonl, from 1; 0: not a line
	Record int    `json:"record,omitempty"` // the number it carries or should carry
	What   string `json:"what"`
}

// String is the finding for a line of text.
func (f Finding) String() string {
	if f.Line == 0 {
		return f.What
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.What)
}

// An Audit is what Verify found. The journal is what was written when there
// are no Findings.
type Audit struct {
	Run      string         `json:"run"`
	Records  int            `json:"records"`        // lines that are records
	Head     string         `json:"head"`           // hash of the last whole line
	Torn     int            `json:"torn,omitempty"` // bytes of a torn last write: the trace of a crash, no finding
	Repaired int            `json:"repaired"`       // torn writes that were cut, as the records after them note
	Blobs    int            `json:"blobs"`          // that are named and as they were
	Heads    map[string]int `json:"heads"`          // of the hashes that were asked for and of approvals: their record
	Findings []Finding      `json:"findings"`
}

// Verify checks the whole run in dir against itself: every line against its
// sum, its number and the line before, the plan and every blob against the
// hash that the journal names, the torn lines that were cut, and the heads that
// approvals were given on. Unlike Read it does not end at the first damage, so
// that it can say which records were changed, removed, put elsewhere or added.
// heads are hashes that were kept elsewhere, in a report, a notification or an
// approval: one that no line has shows that the end was cut off or that
// everything was written anew. The error is for files that cannot be read.
func Verify(dir string, heads ...string) (*Audit, error) {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return nil, fmt.Errorf("%s is not a run: %w", dir, err)
	}
	defer f.Close() // only read
	plan, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return nil, fmt.Errorf("cannot audit run %s: %w", dir, err)
	}
	return audit(f, plan, &dirStore{dir: dir}, heads)
}

// auditor is the state of one Verify.
type auditor struct {
	a      *Audit
	store  store
	line   int
	blobs  map[string]bool
	wanted map[string]int // heads → line that wants them; 0: asked for
	seen   map[int]int    // numbers of records → line
	gaps   map[int]bool   // numbers that were missing when a later one came
}

func (v *auditor) find(record int, format string, args ...any) {
	v.a.Findings = append(v.a.Findings, Finding{Line: v.line, Record: record, What: fmt.Sprintf(format, args...)})
}

func audit(journal io.ReaderAt, plan []byte, s store, heads []string) (*Audit, error) {
	v := &auditor{a: &Audit{Heads: map[string]int{}, Findings: []Finding{}}, store: s,
		blobs: map[string]bool{}, wanted: map[string]int{}, seen: map[int]int{}, gaps: map[int]bool{}}
	for _, h := range heads {
		v.wanted[h] = 0
	}
	from := func(at int64) *parser { return newParser(io.NewSectionReader(journal, at, math.MaxInt64-at)) }
	p, read := from(0), int64(0)
	next, head := 1, "" // what a line behind those so far would carry
	known := map[string]int{}
	for {
		line, whole, err := p.line()
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			v.line++
			v.find(next, "%s", damaged.Reason)
			break
		}
		if err != nil {
			return nil, err
		}
		if len(line) == 0 && !whole {
			break
		}
		v.line++
		read += int64(len(line)) + 1
		var rec Record
		jsonErr := json.Unmarshal(line, &rec)
		_, peek := p.r.Peek(1)
		last := peek != nil
		switch {
		case !whole && last && v.line > 1 && !bytes.Contains(line, fmt.Appendf(nil, `{"seq":%d,"time":"`, next+1)), whole && last && jsonErr != nil && v.line > 1:
			v.a.Torn = len(line)
			continue
		case whole && !last && jsonErr != nil && v.line > 1:
			if size, same := from(read).rest(next); same {
				v.a.Torn, p = len(line)+1+size, from(read+int64(size))
				continue
			}
			fallthrough
		case jsonErr != nil || !whole:
			v.find(next, "record %d was changed: the line is not JSON", next)
			next, head = next+1, ""
			continue
		}
		changed := !sumMatches(line)
		v.a.Records++
		at, twice := v.seen[rec.Seq]
		switch {
		case changed:
			v.find(rec.Seq, "record %d (%s %s) was changed: it does not match its sum", rec.Seq, rec.Kind, rec.Step)
		case twice:
			v.find(rec.Seq, "record %d stands here again; it is in line %d", rec.Seq, at)
		case v.gaps[rec.Seq]:
			v.find(rec.Seq, "record %d was put here from its place: records are in another order", rec.Seq)
		}
		switch {
		case rec.Seq == next:
			if head != "" && rec.Prev != head && !changed {
				v.find(rec.Seq, "record %d does not follow the one before it: record %d was replaced or changed with its sum", rec.Seq, rec.Seq-1)
			}
			next++
		case rec.Seq > next:
			missing := fmt.Sprintf("record %d is", next)
			if rec.Seq > next+1 {
				missing = fmt.Sprintf("records %d to %d are", next, rec.Seq-1)
			}
			v.find(next, "%s missing before record %d: removed, or put elsewhere", missing, rec.Seq)
			for n := next; n < min(rec.Seq, next+10000); n++ {
				v.gaps[n] = true
			}
			next = rec.Seq + 1
		}
		if !twice {
			v.seen[rec.Seq] = v.line
		}
		v.a.Head = hashOf(line)
		known[v.a.Head] = rec.Seq
		if rec.Seq == next-1 { // else it says nothing of the next one
			head = v.a.Head
			if changed {
				head = ""
			}
		}
		if rec.Torn > 0 {
			v.a.Repaired++
		}
		if !changed {
			v.record(rec, plan)
		}
	}
	if v.a.Records == 0 && len(v.a.Findings) == 0 {
		v.find(1, "the journal is empty")
	}
	v.line = 0
	for _, h := range sortedKeys(v.wanted) {
		if seq, ok := known[h]; ok {
			v.a.Heads[h] = seq
			continue
		}
		by := "kept elsewhere"
		if n := v.wanted[h]; n > 0 {
			by = fmt.Sprintf("that the approval in record %d was given on", n)
		}
		v.find(0, "no record has the hash %s %s: the end was cut off, or everything was written anew", h, by)
	}
	return v.a, nil
}

// record checks what an unchanged line says of other files.
func (v *auditor) record(rec Record, plan []byte) {
	if rec.Kind == kindOpened {
		h, err := headerOf(rec)
		if err != nil {
			v.find(rec.Seq, "%v", err)
			return
		}
		v.a.Run = h.Run
		if h.PlanHash != PlanHash(plan) {
			v.find(rec.Seq, "%s has the hash %s, the journal names %s: it is not the plan that was accepted", planFile, PlanHash(plan), h.PlanHash)
		}
		return
	}
	var b body
	if len(rec.Body) > 0 && json.Unmarshal(rec.Body, &b) != nil {
		v.find(rec.Seq, "record %d has a body that this program cannot read", rec.Seq)
		return
	}
	for _, name := range sortedKeys(b.Blobs) {
		ref := b.Blobs[name]
		if v.blobs[ref] {
			continue
		}
		v.blobs[ref] = true
		if _, err := loadBlob(v.store, ref); err != nil {
			v.find(rec.Seq, "the %s of record %d: %v", name, rec.Seq, err)
			continue
		}
		v.a.Blobs++
	}
	if b.Approval != nil && b.Refused == "" {
		v.wanted[b.Approval.Head] = rec.Seq
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
