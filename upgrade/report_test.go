package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// dryRun carries the steps of a plan out without a world: each has its class
// and its place, and gives the result that the world would have given.
func dryRun(t *testing.T, p *Plan, results map[string]any, fail string, o engine.Options) (dir string, out engine.Outcome) {
	t.Helper()
	steps := p.steps(nil)
	for i := range steps {
		s := &steps[i]
		id := s.ID
		s.Plan = func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if id == "3.5-docker" {
				return engine.Proposal{NotApplicable: "os.docker is keep"}, nil
			}
			return engine.Proposal{Params: map[string]string{"token": "of parameters"}, Before: map[string]string{"file": "before-image of nginx.conf"}, Lines: []string{"exact call with its text"}}, nil
		}
		if s.Effect != engine.ReadOnly {
			s.Observe = func(context.Context, *engine.Act) (engine.Sight, error) {
				return engine.Sight{State: engine.Absent}, nil
			}
		}
		s.Do = func(_ context.Context, a *engine.Act) (any, error) {
			if id == fail {
				return nil, errors.New("the disk is full")
			}
			if _, err := a.PutBlob([]byte("content of a blob")); err != nil {
				return nil, err
			}
			return results[id], nil
		}
		s.Verify = nil
		if s.Undo != nil {
			s.Undo = func(context.Context, *engine.Act) error { return nil }
		}
	}
	stored, err := p.JSON()
	require.NoError(t, err)
	dir = filepath.Join(t.TempDir(), "run")
	run, err := engine.Create(dir, engine.Header{Run: "r1", Procedure: p.Procedure, Host: p.Host}, stored)
	require.NoError(t, err)
	defer run.Close()
	out, err = run.Apply(t.Context(), steps, o)
	require.NoError(t, err)
	return dir, out
}

// TestReportClockSetBack: a run whose clock was set back, by 26 years here, says
// so in its report.
func TestReportClockSetBack(t *testing.T) {
	p := plan(t, nil)
	dir, out := dryRun(t, p, nil, "2.2-containers", engine.Options{ApproveAll: true})
	require.Equal(t, engine.Failed, out.State)
	h, err := engine.Read(dir)
	require.NoError(t, err)
	run, err := engine.Open(dir)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) { // it is the year 2000 there
		require.NoError(t, run.Note(engine.Note{Act: "look", Reason: "at the clock"}))
	})
	require.NoError(t, run.Close())
	r, err := ReadReport(dir)
	require.NoError(t, err)
	want := fmt.Sprintf("the clock was set back before record [%d]: times and durations around it are wrong, the order is not", h.Count+1)
	assert.Contains(t, r.Notes, want)
	assert.Contains(t, r.Text(), want)
}

// TestReport makes reports from a run directory and nothing else.
func TestReport(t *testing.T) {
	p := plan(t, nil)
	clone := cloneFacts{InstanceID: "i-clone", PrivateIP: "172.31.0.101", Target: "172.31.0.101", HostKeys: []string{"ssh-ed25519 AAAA"}}
	after := hostos.Boot{ID: "1", Kernel: "3.10.0-1160.6.1.el7.x86_64", Release: "CentOS Linux release 7.9.2009 (Core)"}
	results := map[string]any{
		"3.4-addresses": clone,
		"4.5-compare":   compareResult{Inventory: inventoryResult{Boot: after}},
		"5.3-verify":    endResult{KeptSnapshots: []string{"s-1", "s-2"}},
	}
	dir, out := dryRun(t, p, results, "", engine.Options{Actor: "wang", ApproveAll: true})
	require.Equal(t, engine.Succeeded, out.State, "%s %v", out.Reason, out.Err)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)

	r, err := ReadReport(dir)
	require.NoError(t, err)
	assert.Equal(t, "succeeded", r.State)
	assert.Equal(t, "172.31.0.90", r.Host)
	assert.Equal(t, p.Facts.Boot.Kernel, r.KernelBefore)
	assert.Equal(t, after.Kernel, r.KernelAfter)
	assert.Equal(t, after.Release, r.ReleaseAfter)
	assert.Equal(t, "i-clone 172.31.0.101", r.Transition)
	assert.Equal(t, []string{"s-1", "s-2"}, r.KeptSnapshots)
	assert.Len(t, r.Steps, len(p.Steps))
	assert.Equal(t, map[string]int{"done": len(p.Steps) - 1, "skipped": 1}, r.Counts())
	assert.False(t, r.Live)
	stored, err := p.JSON()
	require.NoError(t, err)
	assert.Equal(t, PlanHash(stored), r.PlanHash)
	assert.Len(t, r.JournalHead, 64)
	assert.False(t, r.Updated.Before(r.Created))

	text := r.Text()
	for _, want := range []string{
		"run r1: transition of 172.31.0.90: succeeded\n", "kernel 3.10.0-862.9.1.el7.x86_64 → 3.10.0-1160.6.1.el7.x86_64",
		"transition host i-clone 172.31.0.101", "kept until their retention ends: s-1, s-2",
		"skipped     3.5-docker", "(os.docker is keep)", "(approved by wang)", "0 of", r.JournalHead,
	} {
		assert.Contains(t, text, want)
	}
	b, err := json.Marshal(r)
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(b, &back))
	assert.Equal(t, text, back.Text(), "the JSON holds all that the text says")
	for _, form := range []string{text, string(b)} {
		for _, no := range []string{"content of a blob", "before-image", "of parameters", "AAAA"} {
			assert.NotContains(t, form, no, "a report is passed around")
		}
	}
	same, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, same, len(files), "reading changes nothing")
}

func TestReportOnTheWay(t *testing.T) {
	p := plan(t, nil)
	t.Run("paused at a gate", func(t *testing.T) {
		dir, out := dryRun(t, p, nil, "", engine.Options{Actor: "wang"})
		require.Equal(t, engine.Paused, out.State)
		r, err := ReadReport(dir)
		require.NoError(t, err)
		assert.Equal(t, "paused", r.State)
		assert.Equal(t, "4.1-slb", r.Step)
		assert.True(t, r.Gate)
		assert.Contains(t, r.Summary(), "paused at 4.1-slb")
		assert.Contains(t, r.Summary(), "take traffic off 172.31.0.90?")
		assert.Contains(t, r.Text(), "→ (not yet)")
		assert.Contains(t, r.Text(), "pending     5.3-release")
		b, err := json.Marshal(r)
		require.NoError(t, err)
		assert.NotContains(t, string(b), "0001-01-01", "a step that has not begun has no time")
	})
	t.Run("failed", func(t *testing.T) {
		dir, out := dryRun(t, p, nil, "3.6-os", engine.Options{Actor: "wang", ApproveAll: true})
		require.Equal(t, engine.Failed, out.State)
		r, err := ReadReport(dir)
		require.NoError(t, err)
		assert.Equal(t, "failed", r.State)
		assert.False(t, r.Gate)
		assert.Equal(t, "3.6-os", r.Step)
		assert.Contains(t, r.Text(), "the disk is full")
		assert.Equal(t, 1, r.Counts()["failed"])
	})
	t.Run("no run", func(t *testing.T) {
		_, err := ReadReport(t.TempDir())
		assert.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("another procedure", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		run, err := engine.Create(dir, engine.Header{Run: "r1", Procedure: "motd", Host: "web-90"}, []byte(`{"format":"other"}`))
		require.NoError(t, err)
		require.NoError(t, run.Close())
		_, err = ReadReport(dir)
		assert.ErrorContains(t, err, `its format is "other"`)
	})
}

func TestExitStatus(t *testing.T) {
	for state, want := range map[engine.RunState]int{
		engine.Succeeded: ExitDone, engine.RolledBack: ExitDone, engine.Paused: ExitPaused, engine.Parked: ExitParked,
		engine.RollbackIncomplete: ExitIncomplete, engine.Interrupted: ExitInterrupt, engine.Failed: ExitFailed, engine.Running: ExitError,
	} {
		assert.Equal(t, want, (&Result{State: string(state)}).ExitStatus(), string(state))
	}
	access := &AccessError{errors.New("refused")}
	for _, c := range []struct {
		err       error
		untouched bool
		want      int
	}{
		{access, true, ExitRefused}, {access, false, ExitFailed}, {&DriftError{}, false, ExitDrift},
		{&engine.ConflictError{}, false, ExitDrift}, {engine.ErrUnwritable, false, ExitJournal}, {errors.New("x"), true, ExitFailed},
	} {
		assert.Equal(t, c.want, (&Result{State: "failed", Err: c.err, Untouched: c.untouched}).ExitStatus(), "%v %t", c.err, c.untouched)
	}
}

func TestFindRun(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	id := NewRunID(planTime)
	assert.Regexp(t, `^20261122-020000-[0-9a-f]{8}$`, id)
	for _, name := range []string{id, "20261122-020001-ffffffff"} {
		run, err := engine.Create(filepath.Join(state, "upgradectl", name), engine.Header{Run: name}, []byte("{}"))
		require.NoError(t, err)
		require.NoError(t, run.Close())
	}
	dir, err := FindRun(id[:16])
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(state, "upgradectl", id), dir)
	same, err := FindRun(dir)
	require.NoError(t, err)
	assert.Equal(t, dir, same)
	_, err = FindRun("20261122")
	assert.ErrorContains(t, err, "not unique: "+id)
	for _, name := range []string{"", "nothing", "../x", filepath.Join(state, "x")} {
		_, err = FindRun(name)
		assert.Error(t, err, name)
	}
	assert.NotEqual(t, NewRunID(time.Now()), NewRunID(time.Now()))
}
