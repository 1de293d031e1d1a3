package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// records gives the journal of a run as words: kind, step, act, refused.
func records(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	for rec, err := range Records(dir) {
		require.NoError(t, err)
		var b body
		if len(rec.Body) > 0 {
			require.NoError(t, json.Unmarshal(rec.Body, &b))
		}
		word := rec.Kind
		for _, s := range []string{rec.Step, b.Act, b.Mode} {
			if s != "" && rec.Kind != kindOpened {
				word += ":" + s
			}
		}
		if b.Refused != "" {
			word += "!"
		}
		out = append(out, word)
	}
	return strings.Join(out[1:], " ")
}

// undoable is a set-state step that takes an hour and can be undone.
func undoable(id, section string, state map[string]bool) Step {
	return Step{ID: id, Section: section, Title: "set " + id, Effect: SetState,
		Observe: func(context.Context, *Act) (Sight, error) {
			if state[id] {
				return Sight{State: Ours}, nil
			}
			return Sight{State: Absent}, nil
		},
		Do: func(ctx context.Context, _ *Act) (any, error) {
			state[id] = true
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Hour):
				return nil, nil
			}
		},
		Undo: func(context.Context, *Act) error { state[id] = false; return nil },
	}
}

// atOnce is undoable without the hour that it takes.
func atOnce(id, section string, state map[string]bool) Step {
	s := undoable(id, section, state)
	s.Do = func(context.Context, *Act) (any, error) { state[id] = true; return nil, nil }
	return s
}

// TestRequests: what somebody asks from another terminal.
func TestRequests(t *testing.T) {
	li := Request{Actor: "li", Origin: Origin{User: "li", Host: "jump"}, Reason: "5xx on the site"}
	for _, row := range []struct {
		ask   RequestKind
		pivot bool
		state RunState
		after time.Duration // that it stands; the step goes on for an hour
		want  string
		world map[string]bool
	}{
		{RequestPause, false, Paused, time.Hour, "started:apply intent:a operator:pause done:a paused:b", map[string]bool{"a": true}},
		{RequestStop, false, Interrupted, 31 * time.Minute, "started:apply intent:a operator:stop interrupted:a", map[string]bool{"a": true}},
		{RequestRollback, false, RolledBack, 31 * time.Minute, "started:apply intent:a operator:rollback interrupted:a started:rollback undo-intent:a undone:a rolled-back", map[string]bool{"a": false}},
		{RequestRollback, true, Parked, 31 * time.Minute, "started:apply intent:a operator:rollback interrupted:a started:rollback parked", map[string]bool{"a": true}},
	} {
		t.Run(fmt.Sprint(row.ask, " ", row.state), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, r := create(t)
				world := map[string]bool{}
				steps := []Step{undoable("a", "1", world), undoable("b", "2", world)}
				steps[0].Pivot = row.pivot
				asked := make(chan error, 1)
				began := time.Now()
				time.AfterFunc(30*time.Minute, func() {
					q := li
					q.Kind = row.ask
					asked <- Ask(dir, q)
				})
				out, err := r.Apply(t.Context(), steps, Options{Actor: "wang"})
				require.NoError(t, err)
				require.NoError(t, <-asked)
				assert.Equal(t, row.state, out.State, out.Reason)
				assert.LessOrEqual(t, time.Since(began), row.after)
				// A pause is written down when it is taken: before the next step.
				assert.ElementsMatch(t, strings.Fields(row.want), strings.Fields(records(t, dir)))
				assert.Equal(t, row.world, world)
				if row.ask != RequestRollback {
					assert.Equal(t, fmt.Sprintf("%s asked by li (li@jump): 5xx on the site", row.ask), out.Reason)
				}
				left, err := os.ReadDir(filepath.Join(dir, controlDir))
				require.NoError(t, err)
				assert.Empty(t, left)
				h, err := Read(dir)
				require.NoError(t, err)
				require.Len(t, h.Notes, 1)
				n := h.Notes[0]
				assert.Equal(t, []string{string(row.ask), "li", "5xx on the site", "li@jump", ""}, []string{n.Act, n.Actor, n.Reason, n.Origin.String(), n.Refused})
			})
		})
	}
}

func TestAskRefused(t *testing.T) {
	dir, r := create(t)
	require.ErrorIs(t, Ask(dir, Request{Kind: RequestPause}), ErrInvalid, "no reason")
	steps := plain("a")
	steps[0].Effect, steps[0].Observe = Irreversible, func(context.Context, *Act) (Sight, error) { return Sight{State: Absent}, nil }
	steps[0].Do = func(context.Context, *Act) (any, error) {
		require.ErrorIs(t, Ask(dir, Request{Kind: RequestRollback, Reason: "no"}), ErrPastReturn)
		return nil, errFault
	}
	_, err := r.Apply(t.Context(), steps, Options{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	err = Ask(dir, Request{Kind: RequestStop, Reason: "no"})
	require.ErrorIs(t, err, ErrNotAtWork)
	assert.ErrorContains(t, err, "cannot ask run r1 to stop: no process is at work: it is failed")
}

// TestControlDirectory: what is not surely a request of the run's owner is
// refused, written down and taken away, and a request counts once.
func TestControlDirectory(t *testing.T) {
	dir, r := create(t)
	control := filepath.Join(dir, controlDir)
	require.NoError(t, Ask(dir, Request{Kind: RequestPause, Reason: "for a copy"}))
	entries, err := os.ReadDir(control)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	good, err := os.ReadFile(filepath.Join(control, entries[0].Name()))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(control, entries[0].Name())))

	bad := map[string][]byte{
		"it is about another run":        []byte(strings.Replace(string(good), `"run":"r1"`, `"run":"r2"`, 1)),
		"plan":                           []byte(strings.Replace(string(good), `"plan_hash":"`, `"plan_hash":"0`, 1)),
		"unknown field":                  []byte(strings.Replace(string(good), `"run"`, `"runs"`, 1)),
		"it is of an unknown kind":       []byte(strings.Replace(string(good), `"pause"`, `"explode"`, 1)),
		"meant for a process that is":    []byte(strings.Replace(string(good), `"pid":`, `"pid":1`, 1)),
		"invalid character":              []byte("pause!"),
		"it has 20000 bytes":             make([]byte, 20000),
		"this run has no list of":        []byte(strings.Replace(string(good), `"pause"`, `"approve"`, 1)),
		"it is no regular file":          nil,
		"somebody else can have written": good,
	}
	n := 0
	for want, data := range bad {
		name := filepath.Join(control, fmt.Sprintf("%03d.json", n))
		switch n++; {
		case data == nil:
			require.NoError(t, os.Symlink("/dev/zero", name))
		case strings.HasPrefix(want, "somebody") && runtime.GOOS != "windows":
			require.NoError(t, os.WriteFile(name, data, 0o600))
			require.NoError(t, os.Chmod(name, 0o622))
		default:
			require.NoError(t, os.WriteFile(name, data, 0o600))
		}
	}
	out, err := r.Apply(t.Context(), plain("a"), Options{})
	require.NoError(t, err)
	assert.Equal(t, Succeeded, out.State, "none of them was followed")
	h, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, h.Notes, len(bad))
	for want := range bad {
		found := false
		for _, note := range h.Notes {
			found = found || strings.Contains(note.Refused, want)
		}
		assert.True(t, found, "%q in %v", want, h.Notes)
	}
	entries, err = os.ReadDir(control)
	require.NoError(t, err)
	assert.Empty(t, entries)

	// The same file again, put back by somebody: it was taken.
	l := &loop{r: r, o: Options{}}
	require.NoError(t, os.WriteFile(filepath.Join(control, "a.json"), good, 0o600))
	require.NoError(t, l.take())
	assert.Equal(t, RequestPause, l.asked)
	require.NoError(t, os.WriteFile(filepath.Join(control, "b.json"), good, 0o600))
	l = &loop{r: r, o: Options{}}
	require.NoError(t, l.take())
	assert.Empty(t, l.asked)
}

// gated is a procedure with one gate that two people must approve, and how
// approvals look: their JSON.
func gated() []Step {
	steps := plain("a", "b")
	steps[1].Gate, steps[1].Approvers, steps[1].FourEyes = "go on?", 2, true
	return steps
}

func checkFake(raw json.RawMessage) (Approval, error) {
	var a Approval
	err := json.Unmarshal(raw, &a)
	if err == nil && a.Key == "" {
		err = errors.New("the signature does not fit")
	}
	return a, err
}

// approve hands in what a says and returns why it was refused.
func approve(t *testing.T, dir string, edit func(*Approval)) string {
	t.Helper()
	h, err := Read(dir)
	require.NoError(t, err)
	a := Approval{Run: h.Run, PlanHash: h.PlanHash, Step: "b", Attempt: 1, By: "li@example.com", Key: "SHA256:x", Head: h.Head, Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC()}
	if edit != nil {
		edit(&a)
	}
	raw, err := json.Marshal(a)
	require.NoError(t, err)
	require.NoError(t, Ask(dir, Request{Kind: RequestApprove, Actor: "wang", Approval: raw}))
	r, err := Open(dir)
	require.NoError(t, err)
	defer r.Close()
	refused, err := r.TakeApprovals(gated(), checkFake)
	require.NoError(t, err)
	return strings.Join(refused, "; ")
}

// atGate is a run that waits there.
func atGate(t *testing.T) string {
	t.Helper()
	dir, r := create(t)
	out, err := r.Apply(t.Context(), gated(), Options{Actor: "wang", ApproveAll: true, CheckApproval: checkFake})
	require.NoError(t, err)
	assert.Equal(t, Outcome{State: Paused, Step: "b", Reason: "waiting for approval: go on? (0 of 2: nobody yet)"}, out, "nobody's word is enough")
	_, err = r.Apply(t.Context(), gated(), Options{Approve: []string{"b"}})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "takes 2 signed approvals")
	require.NoError(t, r.Close())
	return dir
}

func resumeAt(t *testing.T, dir, actor string) Outcome {
	t.Helper()
	r := reopened(t, dir)
	out, err := r.Apply(t.Context(), gated(), Options{Actor: actor, CheckApproval: checkFake})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return out
}

func TestScenario60ApproverIsOperator(t *testing.T) {
	dir := atGate(t)
	assert.Contains(t, approve(t, dir, func(a *Approval) { a.By = "wang@example.com" }), "wang@example.com approved and works on the run as wang")
	me := LocalOrigin().User
	assert.Contains(t, approve(t, dir, func(a *Approval) { a.By = me }), "works on the run as "+me, "whatever name was given")
	assert.Empty(t, approve(t, dir, nil))
	assert.Empty(t, approve(t, dir, func(a *Approval) { a.By = "zhao"; a.Key = "SHA256:y" }))
	// Who approved and then works on it himself does not count any more.
	assert.Contains(t, resumeAt(t, dir, "li").Reason, "(1 of 2: zhao)")
}

func TestScenario61ApprovalOfAnotherPlan(t *testing.T) {
	dir := atGate(t)
	for want, edit := range map[string]func(*Approval){
		"it is for another plan":             func(a *Approval) { a.PlanHash = PlanHash([]byte("older")) },
		`it is for run "r0"`:                 func(a *Approval) { a.Run = "r0" },
		`step "a" has no gate that takes`:    func(a *Approval) { a.Step = "a" },
		`step "z" has no gate that takes`:    func(a *Approval) { a.Step = "z" },
		"it is for attempt 2 of b, the next": func(a *Approval) { a.Attempt = 2 },
		"it expired at":                      func(a *Approval) { a.Expires = time.Now() },
		"is not this one":                    func(a *Approval) { a.Head = PlanHash(nil) },
		"the signature does not fit":         func(a *Approval) { a.Key = "" },
	} {
		assert.Contains(t, approve(t, dir, edit), want)
	}
	assert.Empty(t, approve(t, dir, nil))
	assert.Empty(t, approve(t, dir, nil), "the same person again")
	assert.Contains(t, resumeAt(t, dir, "wang").Reason, "(1 of 2: li@example.com)")
	assert.Empty(t, approve(t, dir, func(a *Approval) { a.By = "zhao" }))
	assert.Equal(t, Succeeded, resumeAt(t, dir, "wang").State)
	h, err := Read(dir)
	require.NoError(t, err)
	assert.Equal(t, "li@example.com, zhao", h.StepByID("b").ApprovedBy)
	assert.Contains(t, approve(t, dir, nil), "the gate before b is passed")
	a, err := Verify(dir)
	require.NoError(t, err)
	assert.Empty(t, a.Findings)
	assert.Len(t, a.Heads, 3, "the heads that the approvers saw")
}

// TestApprovalExpires: it counts when the gate is passed, not when it was given.
func TestApprovalExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := atGate(t)
		assert.Empty(t, approve(t, dir, nil))
		assert.Empty(t, approve(t, dir, func(a *Approval) { a.By = "zhao" }))
		time.Sleep(time.Hour)
		assert.Contains(t, resumeAt(t, dir, "wang").Reason, "(0 of 2: nobody yet)")
	})
}

// TestFollow: another terminal sees every record, and the end.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		var got []string
		done := make(chan error, 1)
		go func() {
			for rec, err := range Follow(t.Context(), dir) {
				if err != nil {
					done <- err
					return
				}
				got = append(got, rec.Kind)
			}
			done <- nil
		}()
		world := map[string]bool{}
		_, err := r.Apply(t.Context(), []Step{undoable("a", "1", world)}, Options{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, r.Close())
		require.NoError(t, <-done)
		assert.Equal(t, "opened started intent done succeeded", strings.Join(got, " "))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range Follow(ctx, dir) {
			require.NoError(t, err, "what is there is given all the same")
		}
	})
}

func TestWays(t *testing.T) {
	legal := func(h History) string {
		var out []string
		for _, w := range h.Ways() {
			if w.Legal {
				out = append(out, w.Name)
			}
			assert.NotEmpty(t, w.Why)
		}
		return strings.Join(out, " ")
	}
	for want, h := range map[string]History{
		"stop rollback":   {Live: true, State: Running},
		"stop park":       {Live: true, State: Running, PastPivot: "p"},
		"stop":            {Live: true, State: Running, PastPivot: "p", PastReturn: "x"},
		"rollback resume": {State: Paused},
		"park resume":     {State: Failed, PastPivot: "p"},
		"resume":          {State: Parked, PastPivot: "p"},
		"park":            {State: RollbackIncomplete, PastPivot: "p", RollingBack: true},
		"rollback":        {State: Succeeded},
		"":                {State: RolledBack},
	} {
		assert.Equal(t, want, legal(h), "%+v", h)
	}
	assert.Equal(t, "stop", legal(History{Live: true, State: RollingBack, RollingBack: true}))
}
