package upgrade_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

const (
	leasePath  = "/var/lib/upgradectl/lease"
	otherLease = "t9 7 0123456789abcdef 2026-11-22T02:00:00Z test@ops9\n"
)

// leaseOf tells of which run a machine holds a lease; "" = of none.
func leaseOf(m *firstbox.Machine) string {
	b, _ := m.Host.ReadFile(leasePath)
	run, _, _ := strings.Cut(string(b), " ")
	return run
}

// guarded tells whether a command that changes something may do so only under
// a lease. A lease itself is taken by a command that looks for others' first.
func guarded(what string) bool {
	_, text, _ := strings.Cut(what, " ")
	_, command, _ := strings.Cut(text, " ")
	return strings.HasPrefix(command, `case "$(cat `+leasePath) || strings.HasPrefix(command, "set -eu\numask 077\nmkdir -p /var/lib/upgradectl\n")
}

// Every command that changes a firstbox, a physical host or a node, on the way
// there and on the way back, looks at that machine's lease in the same shell;
// no machine keeps one afterwards, not even those that are off.
func TestRebuildLeases(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config sim.RebuildConfig
		back   bool
	}{
		"succeeded":            {},
		"rolled-back":          {back: true},
		"in-place":             {config: sim.RebuildConfig{Strategy: upgrade.StrategyInPlace}},
		"in-place rolled-back": {config: sim.RebuildConfig{Strategy: upgrade.StrategyInPlace}, back: true},
		"webservice":           {config: sim.RebuildConfig{Role: "webservice"}},
		"dnsmaster":            {config: sim.RebuildConfig{Role: "dnsmaster"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "succeeded" { // stands for all at a desk
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				var bare []string
				fenced := map[string]bool{}
				running := false
				c, back := tt.config, tt.back
				c.Rate = 5
				c.Happened = func(what string) {
					switch {
					case !running || !strings.HasPrefix(what, "ssh ") || !rebuildChanges(what):
					case guarded(what):
						fenced[strings.Fields(what)[1]] = true
					default:
						bare = append(bare, what)
					}
				}
				s := newRebuildStage(t, c, nil, nil)
				running = true
				o := quiet
				if back {
					o.Until = "9.1"
				}
				r := s.apply(o)
				if back {
					require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
					r = s.rollback()
				}
				require.Empty(t, r.Work)
				s.end(map[bool]string{false: "succeeded", true: "rolled-back"}[back])
				assert.Empty(t, bare, "changes without a look at the lease")
				assert.Greater(t, len(fenced), 4, "%v", fenced)
				for _, m := range s.world.Site().Machines() {
					if discarded := back && strings.HasSuffix(m.Label(), "#2"); !discarded {
						assert.Empty(t, leaseOf(m), m.Label())
					}
				}
			})
		})
	}
}

// touched are the machines of the runbook's site that a rebuild of the proxies
// changes before it begins with anything.
var touched = map[string]string{
	"firstbox": "192.0.2.2", "old proxy0": "192.0.2.61", "old proxy1": "192.0.2.62",
	"host of proxy0, for the new proxy1": "192.0.2.101", "host of proxy1, for the new proxy0": "192.0.2.102",
}

// A run that would touch a machine that another run works on is refused, and
// touches nothing else.
func TestRebuildRefusedOnLeasedMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changed []string
		running := false
		s := newRebuildStage(t, sim.RebuildConfig{Rate: 5, Happened: func(what string) {
			if running && strings.HasPrefix(what, "ssh ") && rebuildChanges(what) && !strings.Contains(what, leasePath) && !guarded(what) {
				changed = append(changed, what)
			}
		}}, nil, nil)
		running = true
		for name, addr := range touched {
			m := s.world.Site().Machine(addr)
			require.NotNil(t, m, name)
			require.NoError(t, m.Host.WriteFile(leasePath, []byte(otherLease), 0o600))
			dir := s.run + "-" + strings.Fields(addr)[0]
			_, err := upgrade.Apply(t.Context(), dir, "t1", s.plan, s.options(quiet))
			held := new(hostos.LeaseHeldError)
			require.ErrorAs(t, err, &held, name)
			assert.Equal(t, "t9", held.Lease.Run)
			assert.ErrorContains(t, err, addr)
			assert.Equal(t, upgrade.ExitLocked, upgrade.ErrorStatus(err))
			for _, other := range s.world.Site().Machines() {
				if other != m {
					assert.Empty(t, leaseOf(other), "%s holds a lease though %s is somebody else's", other.Label(), name)
				}
			}
			require.NoError(t, m.Host.Remove(leasePath))
		}
		assert.Empty(t, changed)

		// And two rebuilds of the same nodes: the second one waits for nobody.
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.3", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		_, err := upgrade.Apply(t.Context(), s.run+"-second", "t2", s.plan, s.options(quiet))
		held := new(hostos.LeaseHeldError)
		require.ErrorAs(t, err, &held)
		assert.Equal(t, "t1", held.Lease.Run)
		assert.Equal(t, "t1", leaseOf(s.world.Site().Machine("192.0.2.71")), "a new machine is held while its run is paused")
	})
}

// A run whose lease of any machine was broken, the new ones' too, stops before
// its next change there, and changes nothing on that machine any more.
func TestRebuildLostLease(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ after, addr string }{
		"firstbox": {"2.1-marker", "192.0.2.2"},
		"new host": {"3.2-machines", "192.0.2.102"},
		"new node": {"3.3-hold", "192.0.2.71"},
		"old node": {"7.1-build", "192.0.2.62"},
		"old host": {"7.1-stop", "192.0.2.102"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "new node" { // stands for all at a desk
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				var late []string
				lost := false
				s := newRebuildStage(t, sim.RebuildConfig{Rate: 5, Happened: func(what string) {
					if lost && strings.HasPrefix(what, "ssh "+tt.addr+" ") && rebuildChanges(what) && !guarded(what) {
						late = append(late, what)
					}
				}}, nil, nil)
				var digest string
				skip := func(file string) bool {
					return strings.HasPrefix(file, "/var/lib/upgradectl/") || strings.HasPrefix(file, "/var/log/")
				}
				o := s.options(quiet)
				o.Observer = func(e upgrade.Event) {
					if e.Kind != "done" || e.Step != tt.after || lost {
						return
					}
					m := s.world.Site().Machine(tt.addr)
					if err := m.Host.WriteFile(leasePath, []byte(otherLease), 0o600); err != nil {
						t.Error(err)
					}
					lost, digest = true, m.Host.Digest(skip)
				}
				r, err := upgrade.Apply(t.Context(), s.run, "t1", s.plan, o)
				require.NoError(t, err)
				require.True(t, lost)
				assert.ErrorIs(t, r.Err, hostos.ErrFenced, "%s: %s", r.Step, r.Reason)
				assert.Equal(t, upgrade.ExitLocked, r.ExitStatus(), "%s: %s", r.State, r.Reason)
				assert.Contains(t, r.Reason, tt.addr)
				assert.Empty(t, late)
				m := s.world.Site().Machine(tt.addr)
				require.NotNil(t, m, "it was switched off")
				assert.Equal(t, "t9", leaseOf(m))
				if name != "firstbox" {
					assert.Equal(t, digest, m.Host.Digest(skip), "it was changed")
				}

				// Its holder gone, the run goes on.
				require.NoError(t, m.Host.Remove(leasePath))
				r = s.resume(quiet)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}

// The process of a run that was copied elsewhere and resumed there is fenced on
// nodes too.
func TestRebuildCopiedRunFencesNodes(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Rate: 5}, nil, nil)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "6.5", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		before := map[string]string{}
		all := []string{"192.0.2.71", "192.0.2.72"}
		for _, addr := range touched {
			all = append(all, addr)
		}
		for _, addr := range all {
			b, err := s.world.Site().Machine(addr).Host.ReadFile(leasePath)
			require.NoError(t, err, addr)
			before[addr] = string(b)
		}
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "6.5", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		for _, addr := range all {
			b, err := s.world.Site().Machine(addr).Host.ReadFile(leasePath)
			require.NoError(t, err, addr)
			assert.NotEqual(t, before[addr], string(b), "%s is not taken over before anything goes on", addr)
		}
		r, err := upgrade.Rollback(context.WithoutCancel(t.Context()), s.run, s.options(quiet))
		require.NoError(t, err)
		require.Equal(t, "rolled-back", r.State)
		s.end("rolled-back")
	})
}
