package poll_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/poll"
)

func TestIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		err := poll.Poller{Interval: 2 * time.Second, Steady: true}.Until(t.Context(), "x", func(context.Context) (string, bool, error) {
			at = append(at, time.Since(start))
			return "s", len(at) == 8, nil
		})
		require.NoError(t, err)
		s := time.Second
		assert.Equal(t, []time.Duration{0, 2 * s, 5 * s, 9500 * time.Millisecond, 16250 * time.Millisecond}, at[:5])
		assert.Equal(t, 10*s, at[7]-at[6], "the interval stops growing at 5x")
	})
}

func TestJitterOnlyShortens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := time.Now()
		n := 0
		err := poll.Poller{Interval: time.Second, Max: time.Second}.Until(t.Context(), "x", func(context.Context) (string, bool, error) {
			if d := time.Since(last); n > 0 {
				assert.LessOrEqual(t, d, time.Second)
				assert.GreaterOrEqual(t, d, 900*time.Millisecond)
			}
			last = time.Now()
			n++
			return "s", n == 50, nil
		})
		require.NoError(t, err)
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		err := poll.Poller{}.Until(ctx, "snapshot s-1", func(context.Context) (string, bool, error) { return "progressing", false, nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, `snapshot s-1 still "progressing" after 2h0m0s: context deadline exceeded`)
		var pe *poll.Error
		require.ErrorAs(t, err, &pe)
		assert.Equal(t, "progressing", pe.State)
	})
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := poll.Poller{}.Until(ctx, "x", func(context.Context) (string, bool, error) {
		t.Error("looked after the context ended")
		return "", true, nil
	})
	require.ErrorIs(t, err, context.Canceled, "a cancelled wait never returns nil")

	// A look that reports something else because it was cancelled.
	ctx, cancel = context.WithCancel(t.Context())
	err = poll.Poller{Retryable: func(error) bool { return true }}.Until(ctx, "x", func(context.Context) (string, bool, error) {
		cancel()
		return "", false, errors.New("connection closed")
	})
	require.ErrorIs(t, err, context.Canceled)
}

func TestErrors(t *testing.T) {
	blip, fatal, final := errors.New("blip"), errors.New("fatal"), errors.New("final")
	run := func(script ...error) (int, error) {
		n := 0
		var err error
		synctest.Test(t, func(t *testing.T) {
			err = poll.Poller{Retryable: func(err error) bool { return errors.Is(err, blip) }}.Until(t.Context(), "thing", func(context.Context) (string, bool, error) {
				n++
				if n > len(script) {
					return "ready", true, nil
				}
				return "busy", false, script[n-1]
			})
		})
		return n, err
	}

	n, err := run(blip, blip, blip, nil, blip, blip, blip)
	require.NoError(t, err, "three in a row are borne, each time anew")
	assert.Equal(t, 8, n)

	n, err = run(nil, blip, blip, blip, blip)
	require.ErrorIs(t, err, blip)
	assert.Equal(t, 5, n)
	assert.Regexp(t, `^cannot follow thing, last seen "busy", after [0-9.]+s: blip$`, err.Error())

	n, err = run(fatal)
	require.ErrorIs(t, err, fatal)
	assert.Equal(t, 1, n)
	assert.EqualError(t, err, "cannot follow thing: fatal")

	n, err = run(nil, poll.Stop(final))
	assert.Equal(t, final, err, "Stop hands the error through")
	assert.Equal(t, 2, n)
}
