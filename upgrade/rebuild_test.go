package upgrade_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// A rebuildStage is a simulated firstbox with its nodes, in virtual time, and
// an operator's files in it.
type rebuildStage struct {
	t      *testing.T
	world  *sim.Rebuild
	op     sim.Operator
	run    string
	plan   []byte
	access *upgrade.Access
	killer *killer // of the crash tests
}

// newRebuildStage builds a world in a synctest bubble; prepare, when not nil,
// changes it before the plan is made, and edit changes upgrade.yaml.
func newRebuildStage(t *testing.T, c sim.RebuildConfig, prepare func(*sim.Rebuild), edit func(yaml string) string) *rebuildStage {
	t.Helper()
	c.Speed, c.Memory = 60, true
	c.Rate, c.Streams = cmp.Or(c.Rate, 10), cmp.Or(c.Streams, 1)
	w, err := sim.NewRebuild(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.Close()) })
	if prepare != nil {
		prepare(w)
	}
	dir := t.TempDir()
	op, err := w.WriteOperatorFiles(dir)
	require.NoError(t, err)
	if edit != nil {
		b, err := os.ReadFile(op.Config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(op.Config, []byte(edit(string(b))), 0o600))
	}
	s := &rebuildStage{t: t, world: w, op: op, run: filepath.Join(dir, "run"), access: &upgrade.Access{NetDial: w.DialOperator}}
	p, err := s.makePlan()
	require.NoError(t, err)
	s.plan, err = p.JSON()
	require.NoError(t, err)
	return s
}

func (s *rebuildStage) makePlan() (*upgrade.Plan, error) {
	s.t.Helper()
	cfg, err := upgrade.LoadConfig(s.op.Config)
	require.NoError(s.t, err)
	e, err := upgrade.NewEnv(cfg, s.access)
	require.NoError(s.t, err)
	defer e.Close()
	facts, err := upgrade.Discover(s.t.Context(), cfg, e)
	if err != nil {
		return nil, err
	}
	return upgrade.BuildPlan(cfg, facts, time.Now(), "test")
}

func (s *rebuildStage) options(o upgrade.RunOptions) upgrade.RunOptions {
	o.Actor, o.Version, o.Access = "test", "test", s.access
	if o.Observer == nil {
		o.Observer = func(e upgrade.Event) { s.t.Logf("%s %s %s %s", e.Time.Format("04:05.000"), e.Kind, e.Step, e.Text) }
	}
	return o
}

func (s *rebuildStage) apply(o upgrade.RunOptions) *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Apply(s.t.Context(), s.run, "t1", s.plan, s.options(o))
	require.NoError(s.t, err)
	return r
}

func (s *rebuildStage) resume(o upgrade.RunOptions) *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Resume(s.t.Context(), s.run, s.options(o))
	require.NoError(s.t, err)
	return r
}

func (s *rebuildStage) rollback() *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Rollback(s.t.Context(), s.run, s.options(upgrade.RunOptions{}))
	require.NoError(s.t, err)
	return r
}

// end stops the traffic and judges the world.
func (s *rebuildStage) end(outcome string) sim.RebuildFigures {
	s.t.Helper()
	f, err := s.world.Finish(context.WithoutCancel(s.t.Context()))
	require.NoError(s.t, err)
	require.Empty(s.t, f.CheckEnd(outcome))
	return f
}

// One run from end to end: both proxies are replaced, and nobody notices more
// than the floating address moving.
func TestRebuild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
		r := s.apply(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		f := s.end("succeeded")
		assert.Zero(t, f.Failed)
		assert.LessOrEqual(t, f.GapMS, 1000.0, "every switch is graceful")
		assert.Positive(t, f.Requests)
		t.Logf("%d requests, %d failed, gap %v ms, %d failed in it", f.Requests, f.Failed, f.GapMS, f.GapFailed)
	})
}

// Rolled back before the undefine, from the very end of the way there, the old
// pair serves again.
func TestRebuildRolledBack(t *testing.T) {
	t.Parallel()
	for _, until := range []string{"2.4", "4.1", "6.5", "7.1", "7.2", "9.1"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			if until != "9.1" { // the longest way back stands for all at a desk
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{}, nil, nil)
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
				f := s.end("rolled-back")
				assert.Zero(t, f.Failed)
				assert.LessOrEqual(t, f.GapMS, 1000.0)
			})
		})
	}
}

// Installers with .sh scripts, nodes with outer addresses, sub zones and
// optional packages are rebuilt as well.
func TestRebuildVariants(t *testing.T) {
	t.Parallel()
	slow(t)
	sub := func(y string) string { return strings.Replace(y, "  vip:", "  sub: true\n  vip:", 1) }
	for name, tt := range map[string]struct {
		config sim.RebuildConfig
		edit   func(string) string
	}{
		"shell scripts": {sim.RebuildConfig{Version: "4.2.5"}, nil},
		"outer addresses": {sim.RebuildConfig{VG: true}, func(y string) string {
			y = strings.Replace(y, "address: 192.0.2.71,", "address: 192.0.2.71, eip: 2.2.2.2, eip_gateway: 2.2.2.1,", 1)
			return strings.Replace(y, "address: 192.0.2.72,", "address: 192.0.2.72, eip: 2.2.2.3, eip_gateway: 2.2.2.1,", 1)
		}},
		"sub zone and packages": {sim.RebuildConfig{Sub: true, Boss2: true, Warehouse: true}, sub},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, tt.config, nil, tt.edit)
				r := s.apply(unattended)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}

// A person is asked before each old machine is shut down, and before the end.
func TestRebuildGates(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{}, nil, func(y string) string {
			return strings.Replace(y, "gates: []\n", "", 1)
		})
		r := s.apply(upgrade.RunOptions{Observer: quiet.Observer})
		for _, gate := range []string{"7.1-ready", "7.2-ready", "9.2-undefine"} {
			require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, gate, r.Step)
			assert.True(t, r.Gate)
			r = s.resume(upgrade.RunOptions{Observer: quiet.Observer})
			assert.Equal(t, gate, r.Step, "resume alone approves nothing")
			r = s.resume(upgrade.RunOptions{Approve: []string{gate[:3]}, Observer: quiet.Observer})
		}
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		f := s.end("succeeded")
		assert.Len(t, f.OldKept, 2)
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		require.Len(t, rep.Nodes, 2)
		for _, n := range rep.Nodes {
			assert.NotEqual(t, n.KernelBefore, n.KernelAfter)
			assert.NotEqual(t, n.OldHost, n.Host)
			assert.Len(t, n.Backups, 2)
		}
	})
}
