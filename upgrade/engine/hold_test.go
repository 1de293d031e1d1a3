package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A step that is held back has no intent. It can be paused, stopped and rolled
// back while it waits, and begins when it is not held any more.
func TestHold(t *testing.T) {
	for _, c := range []struct {
		ask  RequestKind // "" = nobody asks
		end  RunState
		want string
	}{
		{"", Succeeded, "started:apply intent:a done:a intent:b done:b succeeded"},
		{RequestPause, Paused, "started:apply intent:a done:a operator:pause paused:b"},
		{RequestStop, Interrupted, "started:apply intent:a done:a operator:stop interrupted:b"},
		{RequestRollback, RolledBack, "started:apply intent:a done:a operator:rollback interrupted:b started:rollback undo-intent:a undone:a rolled-back"},
	} {
		t.Run(string(c.ask), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, r := create(t)
				defer r.Close()
				state := map[string]bool{}
				opens := time.Now().Add(6 * time.Hour)
				b := undoable("b", "2", state)
				b.Plan = func(ctx context.Context, a *Act) (Proposal, error) {
					if took, ok := a.Took("a"); assert.True(t, ok) {
						assert.Equal(t, time.Hour, took.Round(time.Minute))
					}
					_, ok := a.Took("b")
					assert.False(t, ok, "it is not done")
					for time.Now().Before(opens) {
						select {
						case <-ctx.Done():
							return Proposal{}, context.Cause(ctx)
						case <-time.After(time.Minute):
						}
						if a.Asked() {
							return Proposal{Hold: "waiting"}, nil
						}
					}
					return Proposal{}, nil
				}
				if c.ask != "" {
					time.AfterFunc(2*time.Hour, func() {
						assert.NoError(t, Ask(dir, Request{Kind: c.ask, Actor: "li", Reason: "lunch"}))
					})
				}
				out, err := r.Apply(t.Context(), []Step{undoable("a", "1", state), b}, Options{})
				require.NoError(t, err)
				assert.Equal(t, c.end, out.State, out.Reason)
				assert.Equal(t, c.want, records(t, dir))
				if c.ask != "" {
					assert.Less(t, time.Now(), opens, "nobody waits for the end of it")
				}
			})
		})
	}
}

// The number of a section approves the first of its gates that is not passed, an
// ID its own.
func TestApproveSection(t *testing.T) {
	dir, r := create(t)
	defer r.Close()
	steps := plain("a", "b")
	for i := range steps {
		steps[i].Section, steps[i].Gate = "1", "go on?"
	}
	for _, c := range []struct {
		approve []string
		at      string
	}{{nil, "a"}, {[]string{"1"}, "b"}, {[]string{"a"}, "b"}, {[]string{"1"}, ""}} {
		out, err := r.Apply(t.Context(), steps, Options{Approve: c.approve})
		require.NoError(t, err)
		assert.Equal(t, c.at, out.Step, "%v", c.approve)
	}
	assert.Contains(t, records(t, dir), "approved:b")
}
