package hostos

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var leaseDay = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

// The shells of real hosts judge the lease's scripts.
func eachShell(t *testing.T, test func(t *testing.T, s leases, h Host)) {
	for _, sh := range [][]string{{"sh"}, {"bash"}} {
		t.Run(sh[0], func(t *testing.T) {
			test(t, leases{t.TempDir() + "/a dir"}, local{sh})
		})
	}
}

func TestLease(t *testing.T) {
	eachShell(t, func(t *testing.T, s leases, h Host) {
		ctx := t.Context()
		none, err := s.get(ctx, h)
		require.NoError(t, err)
		assert.Nil(t, none)

		a, err := s.take(ctx, h, "run-a", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		assert.EqualValues(t, 1, a.Epoch)
		require.NoError(t, s.run(ctx, h, a, "check", ":"))
		require.NoError(t, s.keep(ctx, h, a))
		require.NoError(t, s.keep(ctx, h, a))
		got, err := s.get(ctx, h)
		require.NoError(t, err)
		want := *a
		want.Beat = 2
		assert.Equal(t, &want, got)

		_, err = s.take(ctx, h, "run-b", "root@ops2", leaseDay, "")
		held := new(LeaseHeldError)
		require.ErrorAs(t, err, &held)
		assert.Equal(t, want, held.Lease)
		assert.ErrorContains(t, err, "run run-a of root@ops1 changes this host, since 2026-11-22T02:00:00Z")

		// The same run elsewhere: the old process is fenced, everywhere.
		again, err := s.take(ctx, h, "run-a", "root@ops3", leaseDay, "")
		require.NoError(t, err)
		assert.EqualValues(t, 2, again.Epoch)
		assert.Equal(t, "root@ops1", again.From)
		assert.Empty(t, a.From)
		assert.ErrorIs(t, s.run(ctx, h, a, "check", ":"), ErrFenced)
		assert.ErrorIs(t, s.keep(ctx, h, a), ErrFenced)
		assert.ErrorIs(t, s.release(ctx, h, a), ErrFenced)
		_, err = output(ctx, h, s.fence(a, "echo changed"), nil)
		assert.True(t, IsFenced(err), "%v", err)
		out, err := output(ctx, h, s.fence(again, "echo changed"), nil)
		require.NoError(t, err)
		assert.Equal(t, "changed\n", out)

		require.NoError(t, s.release(ctx, h, again))
		assert.ErrorIs(t, s.run(ctx, h, again, "check", ":"), ErrFenced)
		b, err := s.take(ctx, h, "run-b", "root@ops2", leaseDay, "")
		require.NoError(t, err)
		assert.EqualValues(t, 3, b.Epoch, "epochs outlive leases")
	})
}

// A fenced command keeps its standard input.
func TestFenceLeavesInput(t *testing.T) {
	eachShell(t, func(t *testing.T, s leases, h Host) {
		l, err := s.take(t.Context(), h, "run-a", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		out, err := output(t.Context(), h, s.fence(l, "cat"), strings.NewReader("whole\ninput\n"))
		require.NoError(t, err)
		assert.Equal(t, "whole\ninput\n", out)
	})
}

// The last command of a host takes the lease with it, unless it fails: then the
// host stays, and is held.
func TestFenceLast(t *testing.T) {
	eachShell(t, func(t *testing.T, s leases, h Host) {
		ctx := t.Context()
		l, err := s.take(ctx, h, "run-a", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		for _, cmd := range []string{"false", "exit 7", "echo half; (exit 3)"} {
			_, err = output(ctx, h, s.fenceLast(l, cmd), nil)
			require.Error(t, err, cmd)
			require.False(t, IsFenced(err))
			require.NoError(t, s.run(ctx, h, l, "check", ":"), cmd)
		}
		out, err := output(ctx, h, s.fenceLast(l, "echo going"), nil)
		require.NoError(t, err)
		assert.Equal(t, "going\n", out)
		none, err := s.get(ctx, h)
		require.NoError(t, err)
		assert.Nil(t, none)
		_, err = output(ctx, h, s.fenceLast(l, "echo again"), nil)
		assert.True(t, IsFenced(err), "%v", err)
		again, err := s.take(ctx, h, "run-b", "root@ops2", leaseDay, "")
		require.NoError(t, err)
		assert.EqualValues(t, 2, again.Epoch, "epochs outlive leases")
	})
}

// What a fenced command ends with by itself is never taken for a lost lease: the
// statuses of our own scripts and of the programs in them are others.
func TestFencedStatus(t *testing.T) {
	eachShell(t, func(t *testing.T, s leases, h Host) {
		a, err := s.take(t.Context(), h, "run-a", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		for _, status := range []int{1, 64, 74, 75, 76, 77, 78, 79, 97, 100, 124, 126, 127} {
			_, err := output(t.Context(), h, s.fence(a, fmt.Sprintf("exit %d", status)), nil)
			require.Error(t, err)
			assert.False(t, IsFenced(err), "status %d of the command", status)
		}
		require.NoError(t, s.release(t.Context(), h, a))
		_, err = output(t.Context(), h, s.fence(a, "exit 0"), nil)
		assert.True(t, IsFenced(err), "%v", err)
	})
}

func TestBreakLease(t *testing.T) {
	eachShell(t, func(t *testing.T, s leases, h Host) {
		ctx := t.Context()
		dead, err := s.take(ctx, h, "run-a", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		seen, err := s.get(ctx, h)
		require.NoError(t, err)

		require.NoError(t, s.keep(ctx, h, dead)) // not dead at all
		held := new(LeaseHeldError)
		require.ErrorAs(t, s.breakLease(ctx, h, *seen, "root@ops2", "dead", leaseDay), &held)

		require.Error(t, s.breakLease(ctx, h, held.Lease, "root@ops2", " ", leaseDay), "no reason")
		require.NoError(t, s.breakLease(ctx, h, held.Lease, "root@ops2", "ops1's disk\nis gone", leaseDay))
		log, err := h.ReadFile(ctx, s.root+"/unlocks")
		require.NoError(t, err)
		assert.Equal(t, "2026-11-22T02:00:00Z root@ops2 broke the lease of run run-a (epoch 1, root@ops1, since 2026-11-22T02:00:00Z): \"ops1's disk\\nis gone\"\n", string(log))
		none, err := s.get(ctx, h)
		require.NoError(t, err)
		assert.Nil(t, none)
		assert.ErrorIs(t, s.run(ctx, h, dead, "check", ":"), ErrFenced)
		require.NoError(t, s.breakLease(ctx, h, *seen, "root@ops2", "again", leaseDay), "broken already")
	})
}

// Scenario 59: a holder that gives no sign of life on the challenger's clock is
// dead; one that does is not, however wrong its own clock is.
func TestScenario59WaitLeaseStill(t *testing.T) {
	s, h := leases{t.TempDir()}, local{[]string{"sh"}}
	ctx := t.Context()
	none, err := s.waitStill(ctx, h, 50*time.Millisecond, poll)
	require.NoError(t, err)
	assert.Nil(t, none)
	l, err := s.take(ctx, h, "run-a", "root@ops1", leaseDay.AddDate(9, 0, 0), "")
	require.NoError(t, err)
	seen, err := s.waitStill(ctx, h, 50*time.Millisecond, poll)
	require.NoError(t, err)
	assert.Equal(t, l, seen)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = s.keep(ctx, h, l) // until the other one has seen it
		}
	})
	_, err = s.waitStill(ctx, h, time.Minute, poll)
	cancel()
	wg.Wait()
	held := new(LeaseHeldError)
	require.ErrorAs(t, err, &held)
	assert.Positive(t, held.Lease.Beat)
}

// Of many that come at once, one run holds the host.
func TestLeaseRace(t *testing.T) {
	s, h := leases{t.TempDir()}, local{[]string{"sh"}}
	var wg sync.WaitGroup
	got := make([]*Lease, 12)
	for i := range got {
		wg.Go(func() {
			l, err := s.take(t.Context(), h, fmt.Sprintf("run-%d", i), "root@ops1", leaseDay, "")
			held := new(LeaseHeldError)
			if err != nil && !assert.ErrorAs(t, err, &held) {
				return
			}
			got[i] = l
		})
	}
	wg.Wait()
	var holds int
	for _, l := range got {
		if l != nil {
			holds++
			assert.NoError(t, s.run(t.Context(), h, l, "check", ":"))
		}
	}
	assert.Equal(t, 1, holds)
}

// A lease that is given back in the moment in which another process looks at it
// is nobody's.
func TestLeaseReleasedMeanwhile(t *testing.T) {
	onShells(t, func(t *testing.T, h local) {
		bin, s := t.TempDir(), leases{t.TempDir()}
		cat, err := exec.LookPath("cat")
		require.NoError(t, err)
		writeProgram(t, filepath.Join(bin, "cat"), "#!/bin/sh\n"+`[ "$1" != lease ] || rm -f lease beat; exec `+cat+` "$@"`)
		meanwhile := systemd{h, bin}
		_, err = s.take(t.Context(), h, "run-1", "root@ops1", leaseDay, "")
		require.NoError(t, err)
		l, err := s.take(t.Context(), meanwhile, "run-2", "root@ops2", leaseDay, "")
		require.NoError(t, err)
		require.NoError(t, s.run(t.Context(), h, l, "check", ":"))
		l, err = s.get(t.Context(), meanwhile)
		require.NoError(t, err)
		assert.Nil(t, l)
	})
}

func TestLeaseOnSimulatedHost(t *testing.T) {
	c := simulate(t, nil).dial()
	a, err := TakeLease(t.Context(), c, "run-a", "root@ops1", leaseDay)
	require.NoError(t, err)
	require.NoError(t, KeepLease(t.Context(), c, a))
	require.NoError(t, CheckLease(t.Context(), c, a))
	var held *LeaseHeldError
	_, err = TakeLease(t.Context(), c, "run-b", "root@ops1", leaseDay)
	require.ErrorAs(t, err, &held)
	assert.EqualValues(t, 1, held.Lease.Beat)
	require.NoError(t, ReleaseLease(t.Context(), c, a))
	l, err := GetLease(t.Context(), c)
	require.NoError(t, err)
	assert.Nil(t, l)
}

func TestLeaseNames(t *testing.T) {
	for _, bad := range []string{"", "two words", "a'b", "$(x)", "-n", "a\nb"} {
		_, err := TakeLease(context.Background(), local{[]string{"sh"}}, bad, "root@ops1", leaseDay)
		assert.Error(t, err, "run %q", bad)
		_, err = TakeLease(context.Background(), local{[]string{"sh"}}, "run", bad, leaseDay)
		assert.Error(t, err, "holder %q", bad)
	}
}
