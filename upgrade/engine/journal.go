package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	kindApproval           = "approval" // one of several that a gate needs
	kindApproved           = "approved"
	kindOperator           = "operator" // what a person asked for
	kindIntent             = "intent"
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

	// Of events only.
	kindEffect   = "effect"
	kindProgress = "progress"
)

// body is the body of every record but the first; each kind uses a few fields.
type body struct {
	Mode    string  `json:"mode,omitempty"` // started: apply, resume, rollback
	Actor   string  `json:"actor,omitempty"`
	Origin  *Origin `json:"origin,omitempty"`
	Version string  `json:"version,omitempty"` // of the program

	Section string `json:"section,omitempty"` // so that a report needs the journal alone
	Title   string `json:"title,omitempty"`
	Effect  Effect `json:"effect,omitempty"`
	Pivot   bool   `json:"pivot,omitempty"`
	Form    int    `json:"form,omitempty"` // intent: Step.Version

	Params   json.RawMessage   `json:"params,omitempty"`
	Before   json.RawMessage   `json:"before,omitempty"`
	Lines    json.RawMessage   `json:"lines,omitempty"`
	Acted    bool              `json:"acted,omitempty"` // done, failed, interrupted: Do had returned without an error
	Result   json.RawMessage   `json:"result,omitempty"`
	Evidence json.RawMessage   `json:"evidence,omitempty"`
	Blobs    map[string]string `json:"blobs,omitempty"` // field name → blob that holds its value

	Reason     string         `json:"reason,omitempty"`
	Side       string         `json:"side,omitempty"` // failed: plan, observe, do, verify
	Error      string         `json:"error,omitempty"`
	Definitive *bool          `json:"definitive,omitempty"`
	Conflict   *ConflictError `json:"conflict,omitempty"`
	Work       []string       `json:"work,omitempty"`

	Act       string          `json:"act,omitempty"` // operator: see Note
	Object    string          `json:"object,omitempty"`
	Epoch     uint64          `json:"epoch,omitempty"`
	Text      string          `json:"text,omitempty"`
	Request   string          `json:"request,omitempty"` // hash of the request's file
	Refused   string          `json:"refused,omitempty"` // why it was not followed
	Approvers int             `json:"approvers,omitempty"`
	Approval  *Approval       `json:"approval,omitempty"`
	Signed    json.RawMessage `json:"signed,omitempty"` // what the approver signed, for audits
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

// append makes one record durable, together with those that are held, and then
// part of the state. After the first failure it never tries again: the kernel
// may have dropped the dirty pages, and a later fsync that succeeds would prove
// nothing. A full disk is the one exception, since nothing was believed to be
// written: the reserve is freed, so that what was begun can be closed, and
// nothing begins any more.
func (r *Run) append(rec Record, b any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	if r.low != nil && begins(rec.Kind) {
		return r.closeFull(rec)
	}
	err := r.write(rec, b)
	if err == nil || r.low != nil || !isDiskFull(err) {
		return err
	}
	if err := r.useReserve(rec.Kind, err); err != nil {
		return err
	}
	if begins(rec.Kind) {
		return r.closeFull(rec)
	}
	return r.write(rec, b)
}

// maxHeld bounds the bytes of the lines that wait for a write.
const maxHeld = 16 << 10

// hold makes one record part of the state and leaves it to the next append or
// flush to make it durable: one write and one fsync for both. It is for records
// on which nothing rests yet. Who holds one sees to a flush before a side of a
// step is called and before anybody is told.
func (r *Run) hold(rec Record, b any) error {
	r.mu.Lock()
	if r.broken != nil || r.low != nil || len(r.held) > maxHeld {
		r.mu.Unlock()
		return r.append(rec, b)
	}
	defer r.mu.Unlock()
	rec, line, err := r.encode(rec, b)
	if err != nil {
		return err
	}
	r.held, r.holds, r.last = append(r.held, line...), r.holds+1, hashOf(line[:len(line)-1])
	r.torn = 0
	return r.fold.add(rec)
}

// flush makes durable what is held.
func (r *Run) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil || r.holds == 0 {
		return r.broken
	}
	err := r.commit(nil, r.last)
	if err == nil {
		return nil
	}
	if r.low == nil && isDiskFull(err) {
		if err := r.useReserve("held", err); err != nil {
			return err
		}
		if err = r.commit(nil, r.last); err == nil {
			return nil
		}
	}
	return r.breakDown(r.fold.seq, "held", err)
}

// useReserve gives the reserve back to a full disk.
func (r *Run) useReserve(kind string, full error) error {
	if err := r.store.freeReserve(); err != nil {
		return r.breakDown(r.fold.seq+1, kind, errors.Join(full, err))
	}
	r.low = full
	return nil
}

// begins tells the kinds of records after which something happens in the world.
func begins(kind string) bool {
	return kind == kindIntent || kind == kindUndoIntent || kind == kindStarted
}

// closeFull writes, in the freed reserve, that the run waits for room, and
// ends this process's work on it.
func (r *Run) closeFull(rec Record) error {
	full := r.low
	reason := fmt.Sprintf("the disk of the run directory is full: %q of step %q was not begun; make room, then resume", rec.Kind, rec.Step)
	if err := r.write(Record{Kind: kindPaused, Step: rec.Step}, body{Reason: reason}); err != nil {
		return err
	}
	return r.breakDown(r.fold.seq, rec.Kind, full)
}

// write is append for a caller that has the lock and knows that the record may
// be written.
func (r *Run) write(rec Record, b any) error {
	rec, line, err := r.encode(rec, b)
	if err != nil {
		return err
	}
	if err := r.commit(line, hashOf(line[:len(line)-1])); err != nil {
		if isDiskFull(err) && r.low == nil {
			return err // append knows what to do
		}
		return r.breakDown(rec.Seq, rec.Kind, err)
	}
	r.torn = 0
	if kind := rec.Kind; kind == kindInterrupted && r.abandoned {
		return nil // the fold is in other hands
	}
	return r.fold.add(rec)
}

// encode gives the record that comes next, and its line.
func (r *Run) encode(rec Record, b any) (Record, []byte, error) {
	raw, err := marshal(b)
	if err != nil {
		return rec, nil, fmt.Errorf("internal error: cannot encode record %q of step %q: %w", rec.Kind, rec.Step, err)
	}
	if string(raw) != "{}" {
		rec.Body = raw
	}
	rec.Seq = r.fold.seq + 1
	rec.Time = r.clock().UTC().Truncate(time.Millisecond)
	rec.Torn = r.torn
	rec.With = r.holds
	rec.Prev = r.last
	line, err := encodeRecord(rec)
	if err != nil {
		return rec, nil, fmt.Errorf("internal error: cannot encode record %q of step %q: %w", rec.Kind, rec.Step, err)
	}
	if len(line) >= maxLine {
		return rec, nil, fmt.Errorf("internal error: record %q of step %q has %d bytes", rec.Kind, rec.Step, len(line))
	}
	return rec, append(line, '\n'), nil
}

// commit writes what is held and line behind it, whose last line has the hash
// last, with one fsync for all of it.
func (r *Run) commit(line []byte, last string) error {
	data := append(slices.Clip(r.held), line...)
	if err := r.store.append(data, r.size); err != nil {
		return err
	}
	r.size += int64(len(data))
	r.held, r.holds, r.last = nil, 0, last
	return nil
}

// breakDown ends all writing of this process. Who calls it has the lock.
func (r *Run) breakDown(seq int, kind string, err error) error {
	r.broken = fmt.Errorf("%w: record %d (%s): %w: nothing new is started; make room or repair the disk, then resume", ErrUnwritable, seq, kind, err)
	return r.broken
}

// failure is why nothing is written any more; nil while it is.
func (r *Run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// putBlob stores data for an intent, a result or a step.
func (r *Run) putBlob(data []byte) (ref string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return "", r.broken
	}
	ref = hashOf(data)
	err = r.store.putBlob(ref, data)
	switch {
	case err == nil:
		return ref, nil
	case !isDiskFull(err):
		// A disk that loses a blob loses records as well.
		r.broken = fmt.Errorf("%w: blob %s: %w: nothing new is started; repair the disk, then resume", ErrUnwritable, ref, err)
		return "", r.broken
	}
	if r.low == nil {
		if ferr := r.store.freeReserve(); ferr != nil {
			r.broken = fmt.Errorf("%w: blob %s: %w: make room, then resume", ErrUnwritable, ref, errors.Join(err, ferr))
			return "", r.broken
		}
		r.low = err
		if err = r.store.putBlob(ref, data); err == nil {
			return ref, nil
		}
	}
	return "", fmt.Errorf("cannot store %d bytes: %w: make room, then resume", len(data), err)
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
	ref, err := r.putBlob(raw)
	if err != nil {
		return err
	}
	if b.Blobs == nil {
		b.Blobs = map[string]string{}
	}
	b.Blobs[name] = ref
	return nil
}
