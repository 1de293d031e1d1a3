package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// journalFormat is in the first line of every journal. A reader refuses what
// it does not know.
const journalFormat = "upgradectl-journal/1"

// spill is the size in bytes of a JSON value above which it goes to a blob, so
// that the journal stays readable with cat.
const spill = 4096

// The kinds of records.
const (
	kindOpened             = "opened"
	kindStarted            = "started"
	kindGate               = "gate"
	kindApproved           = "approved"
	kindIntent             = "intent"
	kindEffect             = "effect"
	kindDone               = "done"
	kindSkipped            = "skipped"
	kindFailed             = "failed"
	kindAdopted            = "adopted"
	kindUndoIntent         = "undo-intent"
	kindUndone             = "undone"
	kindUndoFailed         = "undo-failed"
	kindPaused             = "paused"
	kindInterrupted        = "interrupted"
	kindParked             = "parked"
	kindSucceeded          = "succeeded"
	kindRolledBack         = "rolled-back"
	kindRollbackIncomplete = "rollback-incomplete"

	kindProgress = "progress" // of events only
)

// body is the body of every record but the first; each kind uses a few fields.
type body struct {
	Mode    string `json:"mode,omitempty"` // started: apply, resume, rollback
	Actor   string `json:"actor,omitempty"`
	Version string `json:"version,omitempty"`

	Section string `json:"section,omitempty"` // so that a report needs the journal alone
	Title   string `json:"title,omitempty"`
	Effect  Effect `json:"effect,omitempty"`
	Pivot   bool   `json:"pivot,omitempty"`

	Params   json.RawMessage   `json:"params,omitempty"`
	Before   json.RawMessage   `json:"before,omitempty"`
	Lines    json.RawMessage   `json:"lines,omitempty"`
	Result   json.RawMessage   `json:"result,omitempty"`
	Evidence json.RawMessage   `json:"evidence,omitempty"`
	Blobs    map[string]string `json:"blobs,omitempty"` // field name → blob that holds its value

	Reason     string         `json:"reason,omitempty"`
	Side       string         `json:"side,omitempty"` // failed: plan, observe, do, verify
	Error      string         `json:"error,omitempty"`
	Definitive *bool          `json:"definitive,omitempty"`
	Conflict   *ConflictError `json:"conflict,omitempty"`
	Work       []string       `json:"work,omitempty"`
}

// openedBody is the body of the first record.
type openedBody struct {
	Format string `json:"format"`
	Header
}

// encodeRecord gives the line of rec without its newline. The sum stands last
// and covers every byte before it: the chain alone would leave the last line
// unprotected.
func encodeRecord(rec Record) ([]byte, error) {
	rec.Sum = ""
	line, err := marshal(rec)
	if err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte(`,"sum":""}`))
	if !ok {
		return nil, fmt.Errorf("internal error: record does not end in its sum: %s", line)
	}
	return append(line, `,"sum":"`+sumOf(line)+`"}`...), nil
}

// sumTail is the length of `,"sum":"0123456789abcdef"}`.
const sumTail = 8 + 16 + 2

func sumMatches(line []byte) bool {
	n := len(line) - sumTail
	return n > 0 && string(line[n:]) == `,"sum":"`+sumOf(line[:n])+`"}`
}

func sumOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:8])
}

// marshal leaves < > & as they are: the journal is for people too.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// parsed is what a journal consists of.
type parsed struct {
	records []Record
	size    int64  // bytes of whole records; what follows is torn
	torn    int    // bytes of a torn last line
	head    string // hex SHA-256 of the last whole line
}

// parseJournal checks every line. On damage it returns what stands before it
// and a *DamagedError. The last line is torn, and no damage, when it lacks its
// newline (the write was cut short) or is no JSON at all (its blocks reached
// the disk in another order).
func parseJournal(data []byte) (parsed, error) {
	var p parsed
	for rest := data; len(rest) > 0; {
		n := len(p.records) + 1
		bad := func(format string, args ...any) (parsed, error) {
			return p, &DamagedError{Record: n, Reason: fmt.Sprintf(format, args...)}
		}
		line, next, whole := bytes.Cut(rest, []byte("\n"))
		if !whole || !sumMatches(line) {
			valid := json.Valid(line)
			switch {
			case whole && valid:
				return bad("the line does not match its sum")
			case len(next) > 0:
				return bad("the line is not JSON")
			case n == 1:
				return bad("the first line is not whole") // it was renamed into place, so this is no crash
			case bytes.Contains(line, fmt.Appendf(nil, `{"seq":%d,"time":"`, n+1)):
				return bad("two lines have run together")
			}
			p.torn = len(rest)
			return p, nil
		}
		var rec Record
		if err := json.Unmarshal(line, &rec); err != nil {
			return bad("%v", err)
		}
		if rec.Seq != n {
			return bad("its number is %d: lines are missing or in another order", rec.Seq)
		}
		if rec.Prev != p.head {
			return bad("it does not follow the line before it: prev is %.12s…, that line has %.12s…", rec.Prev, p.head)
		}
		p.records = append(p.records, rec)
		p.size += int64(len(line)) + 1
		p.head = hashOf(line)
		rest = next
	}
	if len(p.records) == 0 {
		return p, &DamagedError{Record: 1, Reason: "the journal is empty"}
	}
	return p, nil
}

// headerOf reads the first record.
func headerOf(recs []Record) (Header, error) {
	if len(recs) == 0 || recs[0].Kind != kindOpened {
		return Header{}, &DamagedError{Record: 1, Reason: "the first line does not open a journal"}
	}
	var b openedBody
	if err := json.Unmarshal(recs[0].Body, &b); err != nil {
		return Header{}, &DamagedError{Record: 1, Reason: err.Error()}
	}
	if b.Format != journalFormat {
		return Header{}, fmt.Errorf("%w: journal format is %q, this program knows %q", ErrVersion, b.Format, journalFormat)
	}
	return b.Header, nil
}

// append makes one record durable and then part of the state. After the first
// failure it never tries again: the kernel may have dropped the dirty pages,
// and a later fsync that succeeds would prove nothing.
func (r *Run) append(rec Record, b any) error {
	if r.broken != nil {
		return r.broken
	}
	raw, err := marshal(b)
	if err != nil {
		return fmt.Errorf("internal error: cannot encode record %q of step %q: %w", rec.Kind, rec.Step, err)
	}
	if string(raw) != "{}" {
		rec.Body = raw
	}
	rec.Seq = r.fold.seq + 1
	rec.Time = time.Now().UTC().Truncate(time.Millisecond)
	rec.Torn = r.torn
	rec.Prev = r.head
	line, err := encodeRecord(rec)
	if err != nil {
		return fmt.Errorf("internal error: cannot encode record %q of step %q: %w", rec.Kind, rec.Step, err)
	}
	rec.Sum = string(line[len(line)-18 : len(line)-2])
	if err := r.store.append(append(line, '\n'), r.size); err != nil {
		return r.breakDown(fmt.Sprintf("record %d (%s)", rec.Seq, rec.Kind), err)
	}
	r.size += int64(len(line)) + 1
	r.head = hashOf(line)
	r.torn = 0
	return r.fold.add(rec)
}

func (r *Run) breakDown(what string, err error) error {
	r.broken = fmt.Errorf("%w: %s: %w: nothing new is started; make room or repair the disk, then resume", ErrUnwritable, what, err)
	return r.broken
}

// put encodes v for field name of b, in a blob when it is big.
func (r *Run) put(b *body, field *json.RawMessage, name string, v any) error {
	if v == nil {
		return nil
	}
	raw, err := marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", name, err)
	}
	if len(raw) <= spill {
		*field = raw
		return nil
	}
	if r.broken != nil {
		return r.broken
	}
	ref := hashOf(raw)
	if err := r.store.putBlob(ref, raw); err != nil {
		return r.breakDown("blob "+ref, err)
	}
	if b.Blobs == nil {
		b.Blobs = map[string]string{}
	}
	b.Blobs[name] = ref
	return nil
}
