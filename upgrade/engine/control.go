package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

// A RequestKind is what an operator asks of a run.
type RequestKind string

// The requests; words in the journal.
const (
	RequestPause    RequestKind = "pause"    // stop before the next step that is a safe point
	RequestStop     RequestKind = "stop"     // stop now; what runs on a host goes on there
	RequestRollback RequestKind = "rollback" // stop now and undo; past the pivot: park
	RequestApprove  RequestKind = "approve"  // a checked approval for a gate

	actUnlock = "unlock" // of the run, when it is about nothing else
)

// A Request is what somebody asks of a run from another terminal. It is a file
// in the control directory of the run until the process at work, or the next
// one, takes it: then it is a record of the journal.
type Request struct {
	Kind     RequestKind     `json:"request"`
	Run      string          `json:"run"`
	PlanHash string          `json:"plan_hash"`
	For      *Holder         `json:"for,omitempty"` // the process that is meant; nil: whichever works next
	Actor    string          `json:"actor"`
	Origin   Origin          `json:"origin"`
	Reason   string          `json:"reason,omitempty"`
	Time     time.Time       `json:"time"`
	Approval json.RawMessage `json:"approval,omitempty"` // for Options.CheckApproval
}

// Limits of the control directory.
const (
	maxRequest  = 16 << 10 // bytes of a request
	maxRequests = 64       // that wait
)

// controlPoll is how often a working process looks for requests.
const controlPoll = time.Second

// Ask leaves a request for the run in dir. Run, PlanHash and Time are filled
// in; Pause, Stop and Rollback are for the process at work and need one
// (ErrNotAtWork), and a reason. It does not wait until the request is taken.
func Ask(dir string, q Request) error {
	h, err := Read(dir)
	if err != nil {
		return err
	}
	q.Run, q.PlanHash, q.Time = h.Run, h.PlanHash, time.Now().UTC().Truncate(time.Millisecond)
	if q.Origin == (Origin{}) {
		q.Origin = LocalOrigin()
	}
	if q.Actor == "" {
		q.Actor = q.Origin.User
	}
	if q.Kind != RequestApprove {
		if strings.TrimSpace(q.Reason) == "" {
			return Invalid("%s needs a reason: it is for those who read the journal", q.Kind)
		}
		if !h.Live {
			return fmt.Errorf("cannot ask run %s to %s: %w: it is %s", h.Run, q.Kind, ErrNotAtWork, h.State)
		}
		q.For = &h.Holder
	}
	if q.Kind == RequestRollback {
		if h.PastReturn != "" {
			return fmt.Errorf("cannot roll back after %s: %w", h.PastReturn, ErrPastReturn)
		}
		if h.RollingBack {
			return Invalid("run %s is rolling back already", h.Run)
		}
	}
	data, err := marshal(q)
	if err != nil {
		return err
	}
	if len(data) > maxRequest {
		return Invalid("a request of %d bytes; at most %d", len(data), maxRequest)
	}
	control := filepath.Join(dir, controlDir)
	if err := os.Mkdir(control, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot ask run %s to %s: %w", h.Run, q.Kind, err)
	}
	if waiting, err := os.ReadDir(control); err == nil && len(waiting) >= maxRequests {
		return fmt.Errorf("cannot ask run %s to %s: %d requests wait in %s: look whether its process hangs", h.Run, q.Kind, len(waiting), control)
	}
	var nonce [6]byte
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	name := fmt.Sprintf("%019d-%s.json", q.Time.UnixNano(), hex.EncodeToString(nonce[:]))
	if err := atomicfile.Write(filepath.Join(control, name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot ask run %s to %s: %w", h.Run, q.Kind, err)
	}
	return nil
}

// A waiting request, or a file in the control directory that is none.
type waiting struct {
	name, id string // id: hash of the content; a request is taken once
	q        Request
	refused  string // why it is not believed
}

// requests reads the control directory in the order of the requests. What is
// not surely a request of somebody who may write in the run directory is
// refused, not skipped: the journal shall show it.
func requests(dir string, h Header) []waiting {
	control := filepath.Join(dir, controlDir)
	entries, err := os.ReadDir(control)
	if err != nil {
		return nil // nobody ever asked
	}
	var out []waiting
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || len(out) == maxRequests {
			continue // being written
		}
		w := waiting{name: e.Name(), id: hashOf([]byte(e.Name()))}
		data, err := readRequest(filepath.Join(control, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			w.id = hashOf(data)
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			err = dec.Decode(&w.q)
		}
		switch {
		case err != nil:
			w.refused = err.Error()
		case w.q.Run != h.Run || w.q.PlanHash != h.PlanHash:
			w.refused = "it is about another run or plan"
		}
		out = append(out, w)
	}
	return out
}

func readRequest(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	opened, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !os.SameFile(info, opened):
		return nil, errors.New("it was replaced while it was read")
	case !ownFile(opened):
		return nil, errors.New("somebody else can have written it")
	case opened.Size() > maxRequest:
		return nil, fmt.Errorf("it has %d bytes", opened.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxRequest))
}

// take makes records of the requests that wait and notes what they want of
// this loop.
func (l *loop) take() error {
	if l.r.dir == "" {
		return nil
	}
	for _, w := range requests(l.r.dir, l.r.header) {
		if err := l.takeOne(w); err != nil {
			return err
		}
	}
	for {
		select {
		case why, ok := <-l.o.Pause:
			if !ok {
				l.o.Pause = nil
				continue
			}
			if err := l.note(RequestPause, l.o.Actor, l.r.origin, why); err != nil {
				return err
			}
			continue
		default:
		}
		return nil
	}
}

func (l *loop) takeOne(w waiting) error {
	done := func() error {
		// A file that cannot be removed is known by its hash.
		_ = os.Remove(filepath.Join(l.r.dir, controlDir, w.name))
		return nil
	}
	if l.r.fold.taken[w.id] {
		return done()
	}
	b := body{Act: string(w.q.Kind), Actor: w.q.Actor, Origin: &w.q.Origin, Reason: w.q.Reason, Request: w.id, Refused: w.refused}
	me := l.r.lock.who()
	switch {
	case w.refused != "":
		b = body{Reason: w.name, Request: w.id, Refused: w.refused}
	case w.q.Kind == RequestApprove:
		if err := l.takeApproval(w, b); err != nil {
			return err
		}
		return done()
	case w.q.Kind != RequestPause && w.q.Kind != RequestStop && w.q.Kind != RequestRollback:
		b.Refused = "it is of an unknown kind"
	case w.q.For == nil || w.q.For.PID != me.PID || !w.q.For.Since.Equal(me.Since):
		b.Refused = "it was meant for a process that is gone"
	case w.q.Kind == RequestRollback && l.back:
		b.Refused = "the run is rolling back already"
	case w.q.Kind == RequestRollback && l.r.fold.irreversible != "":
		b.Refused = ErrPastReturn.Error()
	default:
		l.want(w.q.Kind, w.q.Actor, w.q.Origin, w.q.Reason)
	}
	text := b.Act + " by " + b.Actor + ": " + b.Reason
	if b.Refused != "" {
		text = "refused: " + b.Refused
	}
	if err := l.record(kindOperator, nil, b, text); err != nil {
		return err
	}
	return done()
}

// note records an act of this process's own operator.
func (l *loop) note(kind RequestKind, actor string, o Origin, why string) error {
	l.want(kind, actor, o, why)
	return l.record(kindOperator, nil, body{Act: string(kind), Actor: actor, Origin: &o, Reason: why}, string(kind)+" by "+actor+": "+why)
}

// want remembers the strongest request.
func (l *loop) want(kind RequestKind, actor string, o Origin, why string) {
	strength := map[RequestKind]int{RequestPause: 1, RequestStop: 2, RequestRollback: 3}
	if strength[kind] > strength[l.asked] {
		l.asked, l.askedWhy = kind, fmt.Sprintf("%s asked by %s (%s): %s", kind, actor, o, why)
	}
}

// errAsked is the cause of a context that a request ended.
var errAsked = errors.New("an operator asked for it")

// watch looks for requests that end a side in its middle, until the returned
// function is called.
func (l *loop) watch(ctx context.Context) (context.Context, func()) {
	if l.r.dir == "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop, ended := make(chan struct{}), make(chan struct{})
	header, me := l.r.header, l.r.lock.who()
	quit := l.o.Quit
	go func() {
		defer close(ended)
		t := time.NewTicker(controlPoll)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-quit:
				quit = nil
				err := l.r.Abandon("ended at once by a second signal")
				if l.o.Quitted != nil {
					l.o.Quitted(err)
				}
			case <-t.C:
				for _, w := range requests(l.r.dir, header) {
					if w.refused == "" && w.q.For != nil && w.q.For.PID == me.PID && w.q.For.Since.Equal(me.Since) &&
						(w.q.Kind == RequestStop || w.q.Kind == RequestRollback) {
						cancel(errAsked)
					}
				}
			}
		}
	}()
	return ctx, func() {
		close(stop)
		<-ended
		cancel(nil)
	}
}

// Abandon records that the process ends at once and lets nothing be written
// after it. It may be called while Apply or Rollback is in the middle of a
// side, which goes on until the process ends; resume observes what became of
// its effect.
func (r *Run) Abandon(reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	r.abandoned = true
	err := r.write(Record{Kind: kindInterrupted}, body{Reason: reason})
	r.broken = fmt.Errorf("run is abandoned: %s", reason)
	return err
}

// A Note is what a person did or asked for, or what was done in his name, as
// the journal has it: with who, where and why.
type Note struct {
	Act     string // a RequestKind, "unlock", or what Note was given
	Actor   string // empty in a call of Note: who works on the run
	Reason  string
	Object  string // what it is about, such as a host; empty: the run
	Epoch   uint64 // of a lease that was taken over; 0: none
	Text    string // anything else a reader should know
	Refused string // why a request was not followed

	Seq    int       // of the record; set by the engine, as what follows
	Time   time.Time // for people only
	Origin Origin
}

// Note writes n to the journal. It may be called between Apply and Rollback,
// and by a side of a step while the loop waits for it.
func (r *Run) Note(n Note) error {
	switch RequestKind(n.Act) {
	case "", RequestPause, RequestStop, RequestRollback, RequestApprove:
		return Invalid("%q is no act of a note", n.Act)
	}
	if strings.TrimSpace(n.Reason) == "" {
		return Invalid("%s needs a reason: it is for those who read the journal", n.Act)
	}
	if n.Actor == "" {
		n.Actor = r.actor
	}
	return r.append(Record{Kind: kindOperator}, body{Act: n.Act, Actor: n.Actor, Origin: &r.origin,
		Reason: n.Reason, Object: n.Object, Epoch: n.Epoch, Text: n.Text})
}

// Unlock lets a run go on here that another machine has worked on last
// (ErrElsewhere). It is recorded.
func (r *Run) Unlock(actor, reason string) error {
	if !r.busy.TryLock() {
		return ErrBusy
	}
	defer r.busy.Unlock()
	return r.Note(Note{Act: actUnlock, Actor: actor, Reason: reason, Text: "last worked on by " + r.fold.at.String()})
}

// CheckMachine refuses a run whose last process worked on another machine: its
// lock cannot be seen from here (*ElsewhereError). Apply and Rollback do so
// themselves; a caller may want to know before it touches anything.
func (r *Run) CheckMachine() error {
	at := r.fold.at
	if at.Machine == "" || at.Machine == r.origin.Machine {
		return nil
	}
	return &ElsewhereError{Dir: r.dir, Origin: at, Last: r.fold.last}
}
