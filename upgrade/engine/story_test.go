package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStories tells one story a row.
//
// steps: names in order (section 1, 2, …), each with :words after it.
//
//	ro irr pivot gate noundo skip   what kind of step it is (default: set-state with Undo)
//	do= undo= plan= verify=         what the calls of that side do, one after another; then they succeed:
//	  err   an error, nothing happened      no    the same, definitive
//	  lost  it happened, then an error      half  half of it happened, then a crash
//	  die   a crash before                  dead  a crash after
//	  stop  ctx is cancelled, nothing happened
//
// run: one process after another, separated by "/": apply, rollback, with the
// options until=N, approve=NAME, all; and "foreign NAME": somebody changes it,
// "vanish NAME": it cannot be seen any more.
// want: for each process the calls as STEP+attempt:side, and =STATE.
func TestStories(t *testing.T) {
	for _, row := range []struct{ name, steps, run, want string }{
		{"straight", "a b:ro",
			"apply",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify =succeeded"},
		{"finished is finished", "a",
			"apply/apply",
			"a1:plan a1:do a1:verify =succeeded/=finished"},
		{"skip", "a:skip b",
			"apply/rollback",
			"a1:plan b1:plan b1:do b1:verify =succeeded/b1:undo =rolled-back"},
		{"ambiguous: same key, observed first", "a:do=err b",
			"apply/apply",
			"a1:plan a1:do =failed/a1:look a1:do a1:verify b1:plan b1:do b1:verify =succeeded"},
		{"definitive: new key, new plan", "a:do=no",
			"apply/apply",
			"a1:plan a1:do =failed/a2:plan a2:do a2:verify =succeeded"},
		{"lost answer is adopted", "a:do=lost",
			"apply/apply",
			"a1:plan a1:do =failed/a1:look a1:verify =succeeded"},
		{"crash before", "a:do=die",
			"apply/apply",
			"a1:plan a1:do =crash/a1:look a1:do a1:verify =succeeded"},
		{"crash after", "a:do=dead",
			"apply/apply",
			"a1:plan a1:do =crash/a1:look a1:verify =succeeded"},
		{"half goes on", "a:do=half",
			"apply/apply",
			"a1:plan a1:do =crash/a1:look a1:do a1:verify =succeeded"},
		{"half is undone", "a:do=half",
			"apply/rollback",
			"a1:plan a1:do =crash/a1:look a1:undo =rolled-back"},
		{"nothing happened: nothing is undone", "a b:do=err",
			"apply/rollback",
			"a1:plan a1:do a1:verify b1:plan b1:do =failed/b1:look a1:undo =rolled-back"},
		{"definitive failure: nothing is undone", "a b:do=no",
			"apply/rollback",
			"a1:plan a1:do a1:verify b1:plan b1:do =failed/a1:undo =rolled-back"},
		{"read-only runs again", "a:ro:do=die",
			"apply/apply",
			"a1:plan a1:do =crash/a1:do a1:verify =succeeded"},
		{"plan fails: nothing has happened", "a:plan=err",
			"apply/apply/rollback",
			"a1:plan =failed/a1:plan a1:do a1:verify =succeeded/a1:undo =rolled-back"},
		{"verify fails: same effect, looked at again", "a:verify=err",
			"apply/apply",
			"a1:plan a1:do a1:verify =failed/a1:look a1:verify =succeeded"},
		{"verify failed: undone", "a:verify=no",
			"apply/rollback",
			"a1:plan a1:do a1:verify =failed/a1:look a1:undo =rolled-back"},
		{"interrupted in an effect", "a:do=stop b",
			"apply/apply",
			"a1:plan a1:do =interrupted/a1:look a1:do a1:verify b1:plan b1:do b1:verify =succeeded"},
		{"interrupted in an undo", "a b:undo=stop",
			"apply/rollback/apply/rollback",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify =succeeded/b1:undo =interrupted/=rollback-first/b1:undo a1:undo =rolled-back"},
		{"gate", "a b:gate c",
			"apply/apply/apply approve=b/apply",
			"a1:plan a1:do a1:verify =paused/=paused/b1:plan b1:do b1:verify c1:plan c1:do c1:verify =succeeded/=finished"},
		{"gate by section, given early", "a b:gate:do=no",
			"apply approve=2/apply",
			"a1:plan a1:do a1:verify b1:plan b1:do =failed/b2:plan b2:do b2:verify =succeeded"},
		{"gates all", "a:gate b:gate",
			"apply all",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify =succeeded"},
		{"an unattended run stays unattended", "a:do=die b:gate",
			"apply all/apply",
			"a1:plan a1:do =crash/a1:look a1:do a1:verify b1:plan b1:do b1:verify =succeeded"},
		{"no such gate", "a b:gate",
			"apply approve=a/apply approve=9",
			"=invalid/=invalid"},
		{"until", "a b c",
			"apply until=2/apply",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify =paused/c1:plan c1:do c1:verify =succeeded"},
		{"undo order and failure", "a b:undo=err c",
			"apply/rollback/apply/rollback/rollback/apply",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify c1:plan c1:do c1:verify =succeeded/c1:undo b1:undo =rollback-incomplete/=rollback-first/b1:undo a1:undo =rolled-back/=rolled-back/=finished"},
		{"undo crashes after its effect", "a b:undo=dead",
			"apply/rollback/rollback",
			"a1:plan a1:do a1:verify b1:plan b1:do b1:verify =succeeded/b1:undo =crash/b1:undo a1:undo =rolled-back"},
		{"past the pivot: park, go on", "a p:pivot:noundo b:skip c d:ro e:do=err",
			"apply/rollback/rollback/apply",
			"a1:plan a1:do a1:verify p1:plan p1:do p1:verify b1:plan c1:plan c1:do c1:verify d1:plan d1:do d1:verify e1:plan e1:do =failed/e1:look c1:undo =parked/=parked/b1:plan c2:plan c2:do c2:verify d2:plan d2:do d2:verify e2:plan e2:do e2:verify =succeeded"},
		{"crash in the pivot", "a p:pivot:noundo:do=half",
			"apply/rollback/apply",
			"a1:plan a1:do a1:verify p1:plan p1:do =crash/=parked/p1:look p1:do p1:verify =succeeded"},
		{"undone gates ask again", "p:pivot:noundo b:gate c:do=err",
			"apply all/rollback/apply/apply all",
			"p1:plan p1:do p1:verify b1:plan b1:do b1:verify c1:plan c1:do =failed/c1:look b1:undo =parked/=paused/b2:plan b2:do b2:verify c2:plan c2:do c2:verify =succeeded"},
		{"past return", "a b:irr:do=err",
			"apply/rollback/apply",
			"a1:plan a1:do a1:verify b1:plan b1:do =failed/=past-return/b1:look b1:do b1:verify =succeeded"},
		{"foreign", "a b:do=half",
			"apply/foreign b/apply/rollback",
			"a1:plan a1:do a1:verify b1:plan b1:do =crash//b1:look =conflict/b1:look =rollback-incomplete"},
		{"undo goes on without a second thought", "a:do=half:undo=half",
			"apply/rollback/rollback",
			"a1:plan a1:do =crash/a1:look a1:undo =crash/a1:undo =rolled-back"},
		{"a result is stronger than a look", "a:verify=err",
			"apply/vanish a/rollback",
			"a1:plan a1:do a1:verify =failed//a1:look a1:undo =rolled-back"},
		{"rollback before anything", "a",
			"rollback/apply",
			"=rolled-back/=finished"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tell(t, row.steps, row.run, row.want)
		})
	}
}

// tell runs one story in the language of TestStories.
func tell(t *testing.T, steps, run, want string) {
	t.Helper()
	s := &story{state: map[string]string{}, store: newSimWorld().store}
	s.parse(steps)
	var got []string
	for cmd := range strings.SplitSeq(run, "/") {
		s.log = nil
		s.command(t, cmd)
		got = append(got, strings.Join(s.log, " "))
	}
	assert.Equal(t, strings.Split(want, "/"), got, "journal:\n%s", s.store.journal)
}

// story is a tiny world: each step's effect is "", "half", "all" or "foreign".
type story struct {
	state  map[string]string
	store  *memStore
	steps  []Step
	cancel context.CancelCauseFunc
	log    []string
}

func (s *story) parse(spec string) {
	for i, words := range strings.Fields(spec) {
		parts := strings.Split(words, ":")
		s.steps = append(s.steps, s.step(parts[0], fmt.Sprint(i+1), parts[1:]))
	}
}

func (s *story) step(id, section string, words []string) Step {
	queue := map[string][]string{}
	// turn logs a call and says what it does.
	turn := func(a *Act, side string) string {
		s.log = append(s.log, fmt.Sprintf("%s%d:%s", id, a.Attempt(), side))
		q := queue[side]
		if len(q) == 0 {
			return ""
		}
		queue[side] = q[1:]
		return q[0]
	}
	act := func(a *Act, side, to string) error {
		switch turn(a, side) {
		case "err":
			return errFault
		case "no":
			return Definitive(fmt.Errorf("refused: %w", errFault))
		case "lost":
			s.state[id] = to
			return errFault
		case "half":
			s.state[id] = "half"
			panic(crash{})
		case "die":
			panic(crash{})
		case "dead":
			s.state[id] = to
			panic(crash{})
		case "stop":
			s.cancel(errors.New("the operator stopped it"))
			return context.Canceled
		}
		s.state[id] = to
		return nil
	}
	st := Step{
		ID: id, Section: section, Title: "step " + id, Effect: SetState,
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			turn(a, "look")
			return Sight{State: map[string]SightState{"": Absent, "half": InProgress, "all": Ours, "foreign": Foreign}[s.state[id]], Detail: s.state[id]}, nil
		},
		Do:     func(_ context.Context, a *Act) (any, error) { return id, act(a, "do", "all") },
		Verify: func(_ context.Context, a *Act) (any, error) { return nil, act(a, "verify", s.state[id]) },
		Undo:   func(_ context.Context, a *Act) error { return act(a, "undo", "") },
	}
	skip := ""
	for _, w := range words {
		switch name, list, _ := strings.Cut(w, "="); name {
		case "ro":
			st.Effect, st.Undo = ReadOnly, nil
		case "irr":
			st.Effect, st.Undo = Irreversible, nil
		case "pivot":
			st.Pivot = true
		case "gate":
			st.Gate = "go on with " + id + "?"
		case "noundo":
			st.Undo, st.NoUndo = nil, "cannot be taken back"
		case "skip":
			skip = "not here"
		case "do", "undo", "plan", "verify":
			queue[name] = strings.Split(list, ",")
		default:
			panic("unknown word " + w)
		}
	}
	st.Plan = func(_ context.Context, a *Act) (Proposal, error) {
		return Proposal{NotApplicable: skip, Before: s.state[id], Params: "all"}, act(a, "plan", s.state[id])
	}
	return st
}

func (s *story) command(t *testing.T, cmd string) {
	words := strings.Fields(cmd)
	switch words[0] {
	case "foreign":
		s.state[words[1]] = "foreign"
		return
	case "vanish":
		s.state[words[1]] = ""
		return
	}
	r, err := memRun(s.store.journal, nil)
	require.NoError(t, err)
	r.store = s.store
	o := Options{Actor: "op"}
	for _, w := range words[1:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "all":
			o.ApproveAll = true
		case "approve":
			o.Approve = append(o.Approve, value)
		case "until":
			o.Until = value
		}
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancelCause(t.Context())
	defer s.cancel(nil)
	defer func() {
		if p := recover(); p == (crash{}) {
			s.log = append(s.log, "=crash")
		} else if p != nil {
			panic(p)
		}
	}()
	call := r.Apply
	if words[0] == "rollback" {
		call = r.Rollback
	}
	out, err := call(ctx, s.steps, o)
	var conflict *ConflictError
	end := string(out.State)
	switch {
	case errors.Is(err, ErrFinished):
		end = "finished"
	case errors.Is(err, ErrRollbackFirst):
		end = "rollback-first"
	case errors.Is(err, ErrPastReturn):
		end = "past-return"
	case errors.Is(err, ErrInvalid):
		end = "invalid"
	case err != nil:
		t.Fatal(err)
	case out.State == Failed && errors.As(out.Err, &conflict):
		end = "conflict"
	}
	if out.State == RollbackIncomplete {
		require.NotEmpty(t, out.Work)
	}
	if out.State == Interrupted {
		require.ErrorContains(t, out.Err, "the operator stopped it")
	}
	s.log = append(s.log, "="+end)
}

func TestForeign(t *testing.T) {
	s := &story{state: map[string]string{}, store: newSimWorld().store}
	s.parse("a:do=die")
	s.command(t, "apply")
	s.state["a"] = "foreign"
	r, err := memRun(s.store.journal, nil)
	require.NoError(t, err)
	r.store = s.store
	out, err := r.Apply(t.Context(), s.steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, Failed, out.State)
	var c *ConflictError
	require.ErrorAs(t, out.Err, &c)
	assert.Equal(t, &ConflictError{Object: "step a", Before: `""`, Ours: `"all"`, Now: "foreign"}, c)
	assert.Equal(t, "foreign", s.state["a"], "nothing was overwritten")
	h, err := memHistory(s.store.journal, nil, s.store)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(s.store.journal), []byte("\n"))
	require.Len(t, lines, h.Count)
	assert.Contains(t, string(lines[h.Count-1]), `"conflict":{`)
}

func TestWork(t *testing.T) {
	s := &story{state: map[string]string{}, store: newSimWorld().store}
	s.parse("a b c:undo=err")
	s.command(t, "apply")
	r, err := memRun(s.store.journal, nil)
	require.NoError(t, err)
	r.store = s.store
	out, err := r.Rollback(t.Context(), s.steps, Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"undo c (step c): step c: undo: injected fault",
		"undo b (step b)",
		"undo a (step a)",
	}, out.Work)
	h, err := memHistory(s.store.journal, nil, s.store)
	require.NoError(t, err)
	assert.Equal(t, out.Work, h.Work)
	assert.True(t, h.RollingBack)
	assert.Equal(t, StepUndoFailed, h.StepByID("c").State)
}

// TestUnwritable: whatever a write does wrong, and wherever, nothing begins
// after it in this process, even when the disk seems well again.
func TestUnwritable(t *testing.T) {
	for at := 1; ; at++ {
		s := &story{state: map[string]string{}, store: newSimWorld().store}
		s.parse("a b c")
		s.store.f.at, s.store.f.errors = at, true
		r, err := memRun(s.store.journal, nil)
		require.NoError(t, err)
		r.store = s.store
		out, err := r.Apply(t.Context(), s.steps, Options{})
		if !s.store.f.fired {
			require.NoError(t, err)
			require.Greater(t, at, 20)
			break
		}
		require.ErrorIs(t, err, ErrUnwritable)
		require.ErrorIs(t, err, errFault)
		require.ErrorIs(t, out.Err, ErrUnwritable)
		calls := slices.Clone(s.log)
		_, err = r.Apply(t.Context(), s.steps, Options{})
		require.ErrorIs(t, err, ErrUnwritable)
		_, err = r.Rollback(t.Context(), s.steps, Options{})
		require.ErrorIs(t, err, ErrUnwritable)
		require.Equal(t, calls, s.log)

		// A new process goes on.
		r, err = memRun(s.store.journal, nil)
		require.NoError(t, err)
		r.store = s.store
		if r.fold.state != Succeeded {
			out, err = r.Apply(t.Context(), s.steps, Options{})
			require.NoError(t, err)
			require.Equal(t, Succeeded, out.State)
		}
	}
}

func TestBlobs(t *testing.T) {
	w := newSimWorld()
	require.Equal(t, Succeeded, w.settle(t, false, false, false).State)
	require.Len(t, w.store.blobs, 2, "before-image and parameters of the edit")
	h, err := memHistory(w.store.journal, nil, w.store)
	require.NoError(t, err)
	assert.Greater(t, len(h.StepByID("3.9-nginx").Before), spill)
	for name, data := range w.store.blobs {
		assert.Equal(t, name, hashOf(data))
		data[len(data)/2] ^= 1
	}
	_, err = memHistory(w.store.journal, nil, w.store)
	require.ErrorIs(t, err, ErrDamaged)
	// A rotten before-image is not restored.
	out, err := w.process(t, true, false, false)
	require.NoError(t, err)
	assert.Equal(t, RollbackIncomplete, out.State)
	require.ErrorIs(t, out.Err, ErrDamaged)
	clear(w.store.blobs)
	_, err = w.store.blob("x")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = loadBlob(w.store, "../journal.jsonl")
	require.ErrorIs(t, err, ErrDamaged)
}
