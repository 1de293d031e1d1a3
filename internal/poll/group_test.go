package poll_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/poll"
)

// clockwork is a kind of object that is "busy" until a time.
type clockwork struct {
	mu    sync.Mutex
	ends  map[string]time.Time
	looks []int // how many objects each look was for
	at    []time.Duration
	err   error
	born  time.Time
}

func (c *clockwork) look(ctx context.Context, ids []string) (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks, c.at = append(c.looks, len(ids)), append(c.at, time.Since(c.born))
	if c.err != nil {
		return nil, c.err
	}
	got := map[string]string{}
	for _, id := range ids {
		if end, ok := c.ends[id]; ok {
			got[id] = "busy"
			if !time.Now().Before(end) {
				got[id] = "done"
			}
		}
	}
	return got, nil
}

func until(g *poll.Group[string], ctx context.Context, id string) error {
	return g.Until(ctx, "thing "+id, []string{id}, func(seen map[string]string) (string, bool, error) {
		return seen[id], seen[id] == "done", nil
	})
}

// 250 waits that begin at different moments: every one sees its end, in time,
// and an interval costs about three looks.
func TestGroupShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clockwork{ends: map[string]time.Time{}, born: time.Now()}
		g := &poll.Group[string]{Interval: time.Second, Look: c.look}
		var wg sync.WaitGroup
		for n := range 250 {
			c.ends[fmt.Sprint("t-", n)] = time.Now().Add(time.Duration(60+n%30) * time.Second)
		}
		for n := range 250 {
			id := fmt.Sprint("t-", n)
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 10 * time.Millisecond)
				assert.NoError(t, until(g, t.Context(), id))
				c.mu.Lock()
				late := time.Since(c.ends[id])
				c.mu.Unlock()
				assert.GreaterOrEqual(t, late, time.Duration(0))
				assert.LessOrEqual(t, late, 5*time.Second)
			})
		}
		wg.Wait()
		for _, n := range c.looks {
			assert.LessOrEqual(t, n, 100)
		}
		// By itself each wait would look about 22 times in 75 s.
		assert.Less(t, len(c.looks), 250*22/50)
		looks := len(c.looks)
		time.Sleep(time.Hour)
		assert.Len(t, c.looks, looks, "nobody waits, nobody looks")

		// The first look is a tenth of the interval after the wait began, then
		// the intervals grow from 1x to 5x.
		c.looks, c.at, c.born = nil, nil, time.Now()
		c.ends["one"] = time.Now().Add(30 * time.Second)
		require.NoError(t, until(g, t.Context(), "one"))
		assert.Equal(t, 100*time.Millisecond, c.at[0])
		for i := 1; i < len(c.at); i++ {
			assert.LessOrEqual(t, c.at[i]-c.at[i-1], 5*time.Second)
			assert.GreaterOrEqual(t, c.at[i]-c.at[i-1], 900*time.Millisecond)
		}
	})
}

func TestGroupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clockwork{ends: map[string]time.Time{"a": time.Now().Add(time.Hour), "b": time.Now().Add(10 * time.Second)}, born: time.Now()}
		down := errors.New("down")
		g := &poll.Group[string]{Interval: time.Second, Look: c.look, Retryable: func(err error) bool { return err == down }}

		// One wait is given up; the other goes on.
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			err := until(g, ctx, "a")
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.EqualError(t, err, `thing a still "busy" after 4s: context deadline exceeded`)
		})
		wg.Go(func() { assert.NoError(t, until(g, t.Context(), "b")) })
		wg.Wait()

		// A cancelled wait is never a success, not even of something that is done.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, until(g, ctx, "b"), context.Canceled)

		// Three failed looks are borne, not four, and not those of another kind.
		c.err = down
		wg.Go(func() {
			time.Sleep(3 * time.Second)
			c.mu.Lock()
			c.err = nil
			c.mu.Unlock()
		})
		require.NoError(t, until(g, t.Context(), "b"))
		wg.Wait()
		c.err = down
		require.ErrorIs(t, until(g, t.Context(), "b"), down)
		c.err = errors.New("refused")
		require.ErrorIs(t, until(g, t.Context(), "b"), c.err)

		// check ends it with an error of its own.
		c.err = nil
		gone := errors.New("gone")
		err := g.Until(t.Context(), "x", []string{"b", "none"}, func(seen map[string]string) (string, bool, error) {
			assert.Equal(t, map[string]string{"b": "done"}, seen)
			return "", false, poll.Stop(gone)
		})
		assert.Equal(t, gone, err)
	})
}
