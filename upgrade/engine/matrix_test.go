package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// The crash matrix: a small procedure of every effect class over a world in
// memory, and a fault at every point of it and at every pair of points. The
// points are before, inside and after each write of a record or blob, before
// and after each effect, and before each look. A fault is a crash (panic) or an
// error: an answer that was lost, a disk that fails.

// crash is what a dying process panics with.
type crash struct{}

var errFault = errors.New("injected fault")

// faults counts the points of a schedule and fires at one of them.
type faults struct {
	tick, at int // at 0: never
	errors   bool
	fired    bool
}

func (f *faults) point() error {
	f.tick++
	if f.tick != f.at {
		return nil
	}
	f.fired = true
	if f.errors {
		return errFault
	}
	panic(crash{})
}

// memStore is a disk in memory. Of a write that was not flushed, a power loss
// leaves nothing, its start, its end (its blocks reached the disk in another
// order), or all of it.
type memStore struct {
	f       *faults
	journal []byte
	blobs   map[string][]byte
}

func (s *memStore) append(line []byte, at int64) error {
	if err := s.f.point(); err != nil {
		return err
	}
	before := slices.Clip(s.journal[:at])
	torn := [][]byte{line[:len(line)/2], append(make([]byte, 40), line[40:]...)}
	if first := bytes.IndexByte(line, '\n') + 1; first < len(line) { // several records
		torn = append(torn, line[:first], append(make([]byte, first+40), line[first+40:]...))
	}
	for _, part := range torn {
		s.journal = append(before, part...)
		if err := s.f.point(); err != nil {
			return err
		}
	}
	s.journal = append(before, line...)
	return s.f.point() // as an error: written, but the fsync failed
}

func (s *memStore) putBlob(name string, data []byte) error {
	if err := s.f.point(); err != nil {
		return err
	}
	s.blobs[name] = slices.Clone(data)
	return s.f.point()
}

func (s *memStore) blob(name string) ([]byte, error) {
	if b, ok := s.blobs[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (s *memStore) reserve() error     { return nil }
func (s *memStore) freeReserve() error { return nil }
func (s *memStore) close() error       { return nil }

// simWorld is what the procedure works on. Everything outside faults is plain data.
type simWorld struct {
	*faults
	store *memStore

	snapshots, images map[string]int // key → times a look has missed it; a thing shows up after one look
	file              string
	weights           [2]int
	units             map[string]bool // key → finished
	count             map[string]int  // effects by kind, undone or not
	kernel            int
	released          bool
}

func newSimWorld() *simWorld {
	w := &simWorld{faults: &faults{}, snapshots: map[string]int{}, images: map[string]int{}, units: map[string]bool{}, count: map[string]int{}, weights: [2]int{100, 70}, kernel: 3, file: strings.Repeat("server 172.31.0.90:8080;\n", 200)}
	line, err := openingLine(Header{Run: "r1", Procedure: "matrix", Host: "web-90", PlanHash: PlanHash(nil)})
	if err != nil {
		panic(err)
	}
	w.store = &memStore{f: w.faults, journal: line, blobs: map[string][]byte{}}
	return w
}

func (w *simWorld) clone() *simWorld {
	c := *w
	c.faults = &faults{}
	c.store = &memStore{f: c.faults, journal: slices.Clone(w.store.journal), blobs: maps.Clone(w.store.blobs)}
	c.snapshots, c.images, c.units, c.count = maps.Clone(w.snapshots), maps.Clone(w.images), maps.Clone(w.units), maps.Clone(w.count)
	return &c
}

// state is the world without names and counters.
func (w *simWorld) state() string {
	return fmt.Sprintf("snapshots %d, images %d, file %s, weights %v, kernel %d, released %v",
		len(w.snapshots), len(w.images), hashOf([]byte(w.file))[:8], w.weights, w.kernel, w.released)
}

// effect does one thing to the world, with a fault before and after it. It
// must have been announced in the journal.
func (w *simWorld) effect(a *Act, kind string, do func()) error {
	if !strings.Contains(string(w.store.journal), `"key":"`+a.Key()+`"`) {
		panic("effect " + kind + " without a durable intent")
	}
	if err := w.point(); err != nil {
		return err
	}
	if kind != "" {
		w.count[kind]++
	}
	do()
	return w.point()
}

// create is a step that makes something under a token.
func (w *simWorld) create(id, sec string, set func(*simWorld) map[string]int) Step {
	return Step{
		ID: id, Section: sec, Title: "create " + id, Effect: TokenCreate,
		Plan: func(_ context.Context, a *Act) (Proposal, error) {
			return Proposal{Params: map[string]string{"name": a.Key()}, Lines: []string{"Create " + id}}, nil
		},
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			if err := w.point(); err != nil {
				return Sight{}, err
			}
			missed, ok := set(w)[a.Key()]
			if ok && missed == 0 {
				set(w)[a.Key()] = 1 // a cloud shows it one look late
				ok = false
			}
			if !ok {
				return Sight{State: Absent}, nil
			}
			return Sight{State: Ours, Result: a.Key()}, nil
		},
		Do: func(_ context.Context, a *Act) (any, error) {
			err := w.effect(a, "", func() {
				if _, ok := set(w)[a.Key()]; !ok { // the same token makes the same thing
					set(w)[a.Key()] = 0
					w.count[id]++
				}
			})
			return a.Key(), err
		},
		Verify: func(_ context.Context, a *Act) (any, error) {
			var own string
			if ok, err := a.Own(&own); err != nil || !ok || own != a.Key() {
				return nil, fmt.Errorf("result is %q, %v, %v", own, ok, err)
			}
			return map[string]int{"seen": 1}, nil
		},
		Undo: func(_ context.Context, a *Act) error {
			return w.effect(a, "", func() { delete(set(w), a.Key()) })
		},
	}
}

// edit is a conditional write of the two weights, one after the other.
func (w *simWorld) setWeights(id, sec string, want func(*Act) ([2]int, error)) Step {
	type pair = [2]int
	both := func(a *Act) (before, after pair, err error) {
		return before, after, errors.Join(a.Before(&before), a.Params(&after))
	}
	return Step{
		ID: id, Section: sec, Title: "set weights", Effect: SetState,
		Plan: func(_ context.Context, a *Act) (Proposal, error) {
			after, err := want(a)
			return Proposal{Params: after, Before: w.weights}, err
		},
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			if err := w.point(); err != nil {
				return Sight{}, err
			}
			before, after, err := both(a)
			switch w.weights {
			case after:
				return Sight{State: Ours, Result: "set"}, err
			case before:
				return Sight{State: Absent}, err
			case pair{after[0], before[1]}, pair{before[0], after[1]}:
				return Sight{State: InProgress}, err
			}
			return Sight{State: Foreign, Detail: fmt.Sprint(w.weights)}, err
		},
		Do: func(_ context.Context, a *Act) (any, error) {
			_, after, err := both(a)
			for i := range after {
				if err == nil && w.weights[i] != after[i] {
					err = w.effect(a, "", func() { w.weights[i] = after[i] })
				}
			}
			return "set", err
		},
		Verify: func(_ context.Context, a *Act) (any, error) {
			_, after, err := both(a)
			if w.weights != after {
				err = fmt.Errorf("weights are %v", w.weights)
			}
			return nil, err
		},
		Undo: func(_ context.Context, a *Act) error {
			before, _, err := both(a)
			for i := range before {
				if err == nil && w.weights[i] != before[i] {
					err = w.effect(a, "", func() { w.weights[i] = before[i] })
				}
			}
			return err
		},
	}
}

// job is a one-shot that runs detached under its key.
func (w *simWorld) job(id, sec string, act func()) Step {
	return Step{
		ID: id, Section: sec, Title: "run " + id, Effect: OneShot, NoUndo: "has no reverse",
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			if err := w.point(); err != nil {
				return Sight{}, err
			}
			switch finished, started := w.units[a.Key()]; {
			case finished:
				return Sight{State: Ours, Result: 0}, nil
			case started:
				return Sight{State: InProgress}, nil
			}
			return Sight{State: Absent}, nil
		},
		Do: func(_ context.Context, a *Act) (any, error) {
			if _, started := w.units[a.Key()]; !started {
				if err := w.effect(a, id, func() { w.units[a.Key()] = false; act() }); err != nil {
					return nil, err
				}
			}
			w.units[a.Key()] = true // it ends by itself
			return 0, nil
		},
	}
}

// steps is the procedure: everything before the pivot can be undone.
func (w *simWorld) steps(pivot, irreversible bool) []Step {
	look := func(id, sec string) Step {
		return Step{ID: id, Section: sec, Title: "look", Effect: ReadOnly, Do: func(context.Context, *Act) (any, error) {
			return w.kernel, w.point()
		}}
	}
	edit := Step{
		ID: "3.9-nginx", Section: "3.9", Title: "edit the file", Effect: SetState,
		Plan: func(context.Context, *Act) (Proposal, error) {
			return Proposal{Before: w.file, Params: w.file + "# off\n"}, nil // both over 4 KB
		},
		Observe: func(_ context.Context, a *Act) (Sight, error) {
			if err := w.point(); err != nil {
				return Sight{}, err
			}
			var before, after string
			err := errors.Join(a.Before(&before), a.Params(&after))
			switch w.file {
			case after:
				return Sight{State: Ours}, err
			case before:
				return Sight{State: Absent}, err
			}
			return Sight{State: Foreign}, err
		},
		Do: func(_ context.Context, a *Act) (any, error) {
			return nil, w.effect(a, "edit", func() { w.file += "# off\n" }) // twice would show
		},
		Undo: func(_ context.Context, a *Act) error {
			var before string
			if err := a.Before(&before); err != nil {
				return err
			}
			return w.effect(a, "", func() { w.file = before })
		},
	}
	steps := []Step{
		look("2.1-inventory", "2.1"),
		w.create("3.1-snapshot", "3.1", func(w *simWorld) map[string]int { return w.snapshots }),
		w.create("3.2-image", "3.2", func(w *simWorld) map[string]int { return w.images }),
		edit,
		w.setWeights("4.1-drain", "4.1", func(*Act) ([2]int, error) { return [2]int{0, 0}, nil }),
	}
	if pivot {
		yum := w.job("4.4-yum", "4.4", func() { w.kernel++ })
		yum.Pivot, yum.Gate = true, "upgrade production?"
		steps = append(steps, yum,
			look("4.5-look", "4.5"),
			w.setWeights("5.1-return", "5.1", func(a *Act) (before [2]int, err error) {
				if ok, err := a.BeforeOf("4.1-drain", &before); !ok || err != nil {
					return before, fmt.Errorf("weights before the drain: %v, %w", ok, err)
				}
				return before, nil
			}))
	}
	if irreversible {
		steps = append(steps, Step{
			ID: "5.3-release", Section: "5.3", Title: "release", Effect: Irreversible,
			Observe: func(context.Context, *Act) (Sight, error) {
				if w.released {
					return Sight{State: Ours}, w.point()
				}
				return Sight{State: Absent}, w.point()
			},
			Do: func(_ context.Context, a *Act) (any, error) {
				return nil, w.effect(a, "release", func() { w.released = true })
			},
		})
	}
	for i := range steps {
		steps[i] = onDurable(steps[i])
	}
	return steps
}

// onDurable is s with sides that see that every record is on disk by then: the
// one that announces an effect, and those of the steps before it.
func onDurable(s Step) Step {
	check := func(a *Act, side string) {
		if a.l.r.holds > 0 {
			panic(side + " of " + s.ID + " on records that are not durable")
		}
	}
	plan, observe, do, verify, undo := s.Plan, s.Observe, s.Do, s.Verify, s.Undo
	if plan != nil {
		s.Plan = func(ctx context.Context, a *Act) (Proposal, error) { check(a, "plan"); return plan(ctx, a) }
	}
	if observe != nil {
		s.Observe = func(ctx context.Context, a *Act) (Sight, error) { check(a, "observe"); return observe(ctx, a) }
	}
	if do != nil {
		s.Do = func(ctx context.Context, a *Act) (any, error) { check(a, "do"); return do(ctx, a) }
	}
	if verify != nil {
		s.Verify = func(ctx context.Context, a *Act) (any, error) { check(a, "verify"); return verify(ctx, a) }
	}
	if undo != nil {
		s.Undo = func(ctx context.Context, a *Act) error { check(a, "undo"); return undo(ctx, a) }
	}
	return s
}

// process is one life of the tool: it opens the run and works until it is done,
// stops or dies.
func (w *simWorld) process(t *testing.T, back, pivot, irreversible bool) (out Outcome, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crash:
			out = Outcome{State: Interrupted}
		default:
			panic(p)
		}
	}()
	r, err := memRun(w.store.journal, nil)
	require.NoError(t, err)
	r.store, r.absentPause = w.store, 0
	steps := w.steps(pivot, irreversible)
	if back {
		return r.Rollback(t.Context(), steps, Options{Actor: "op"})
	}
	return r.Apply(t.Context(), steps, Options{ApproveAll: true, Actor: "op"})
}

// settle runs processes until the state is final. No fault is left to fire.
func (w *simWorld) settle(t *testing.T, back, pivot, irreversible bool) Outcome {
	w.at = 0
	out, err := w.process(t, back, pivot, irreversible)
	if err == nil && out.Err == nil {
		return out
	}
	require.NoError(t, errors.Join(err, out.Err), "journal:\n%s", w.store.journal)
	return out
}

func TestCrashMatrix(t *testing.T) {
	for _, tc := range []struct {
		name                string
		pivot, irreversible bool
		first, second       bool // the fault is an error instead of a crash
		stride              int
	}{
		{name: "reversible", stride: 1},
		{name: "pivot", pivot: true, stride: 1},
		{name: "irreversible", pivot: true, irreversible: true, stride: 5}, // much as "pivot"
		// Errors are handled as crashes are, so a sample of their pairs will do.
		{name: "pivot, errors", pivot: true, first: true, second: true, stride: 5},
		{name: "pivot, error and crash", pivot: true, first: true, stride: 5},
		{name: "reversible, crash and error", second: true, stride: 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := &matrix{t: t, pivot: tc.pivot, irreversible: tc.irreversible, stride: tc.stride}
			switch {
			case raceEnabled || testing.Short():
				m.stride = 31
			case !testenv.RunSlow(): // make test has every pair
				m.stride = max(m.stride, 13)
			}
			ref := newSimWorld()
			m.start = ref.state()
			require.Equal(t, Succeeded, ref.settle(t, false, m.pivot, m.irreversible).State)
			m.end = ref.state()
			m.all(tc.first, tc.second)
			t.Logf("%d resume schedules, %d rollback schedules (%d parked, %d refused as past return), 0 wrong",
				m.resumes, m.rollbacks, m.parked, m.refused)
			require.Greater(t, m.resumes*m.stride, 1000)
			require.Greater(t, m.rollbacks*m.stride, 1000)
		})
	}
}

type matrix struct {
	t                   *testing.T
	pivot, irreversible bool
	start, end          string // states of the world
	stride              int    // of the second fault

	resumes, rollbacks, parked, refused int
}

// all walks every first fault, and from each the second faults of a resume and
// of a rollback, and ends both ways.
func (m *matrix) all(firstErrors, secondErrors bool) {
	for i := 1; ; i++ {
		w := newSimWorld()
		w.at, w.errors = i, firstErrors
		out, _ := w.process(m.t, false, m.pivot, m.irreversible)
		if !w.fired {
			require.Equal(m.t, Succeeded, out.State)
			return
		}
		for _, back := range []bool{false, true} {
			for j := 0; ; j += 1 + (i+j)%m.stride { // 0: no second fault
				w2 := w.clone()
				w2.at, w2.errors = j, secondErrors
				_, err := w2.process(m.t, back, m.pivot, m.irreversible)
				if j > 0 && !w2.fired {
					break
				}
				if back && errors.Is(err, ErrPastReturn) {
					m.refused++
					break
				}
				if !back {
					m.forward(w2.clone(), fmt.Sprintf("fault at %d, resume, fault at %d, resume", i, j))
				}
				m.backward(w2, fmt.Sprintf("fault at %d, back=%v, fault at %d, rollback", i, back, j))
			}
		}
	}
}

// ended reports whether the journal ends with a record of this kind.
func (w *simWorld) ended(kind string) bool {
	j := w.store.journal
	last := j[bytes.LastIndexByte(bytes.TrimSuffix(j, []byte("\n")), '\n')+1:]
	return sumMatches(bytes.TrimSuffix(last, []byte("\n"))) && bytes.Contains(last, []byte(`"kind":"`+kind+`"`))
}

// intended reports whether the journal has an intent of the step.
func (w *simWorld) intended(step string) bool {
	for line := range bytes.Lines(w.store.journal) {
		if bytes.Contains(line, []byte(`"kind":"intent","step":"`+step+`"`)) && sumMatches(bytes.TrimSuffix(line, []byte("\n"))) {
			return true
		}
	}
	return false
}

// forward must reach the end with every effect done once.
func (m *matrix) forward(w *simWorld, what string) {
	m.resumes++
	if w.ended(kindSucceeded) {
		// The fault hit after the last record was written.
	} else if out := w.settle(m.t, false, m.pivot, m.irreversible); out.State != Succeeded {
		m.t.Fatalf("%s: ended %+v", what, out)
	}
	m.check(w, m.end, 1, what)
}

// backward must reach the beginning, or park and then reach the end.
func (m *matrix) backward(w *simWorld, what string) {
	if w.ended(kindRolledBack) {
		m.rollbacks++
		m.check(w, m.start, 1, what)
		return
	}
	pivoted := w.intended("4.4-yum")
	w.at = 0
	out, err := w.process(m.t, true, m.pivot, m.irreversible)
	if errors.Is(err, ErrPastReturn) {
		m.refused++
		if !w.intended("5.3-release") {
			m.t.Fatalf("%s: refused before the irreversible step", what)
		}
		return
	}
	m.rollbacks++
	if err != nil || out.Err != nil {
		m.t.Fatalf("%s: %v, %v\n%s", what, err, out.Err, w.store.journal)
	}
	if !pivoted {
		if out.State != RolledBack {
			m.t.Fatalf("%s: ended %+v", what, out)
		}
		m.check(w, m.start, 1, what)
		return
	}
	m.parked++
	if out.State != Parked {
		m.t.Fatalf("%s: ended %+v", what, out)
	}
	if w.weights != [2]int{0, 0} || len(w.images) != 1 {
		m.t.Fatalf("%s: parked, but the world is %s", what, w.state())
	}
	if out := w.settle(m.t, false, m.pivot, m.irreversible); out.State != Succeeded {
		m.t.Fatalf("%s: resume after parking ended %+v", what, out)
	}
	m.check(w, m.end, 1, what)
}

func (m *matrix) check(w *simWorld, state string, times int, what string) {
	if got := w.state(); got != state {
		m.t.Fatalf("%s: the world is %s, should be %s\n%s", what, got, state, w.store.journal)
	}
	for kind, n := range w.count {
		if n > times {
			m.t.Fatalf("%s: %s happened %d times\n%s", what, kind, n, w.store.journal)
		}
	}
}
