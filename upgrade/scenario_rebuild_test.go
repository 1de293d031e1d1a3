package upgrade_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// Faults of procedure B. In these worlds proxy1 is switched first: it leaves
// 192.0.2.62 on host 192.0.2.102 and comes back from 192.0.2.72 on 192.0.2.101.

const (
	firstTemporary = "192.0.2.72"
	firstFinal     = "192.0.2.62"
	firstOldHost   = "192.0.2.102"
)

func rebuildScenario(t *testing.T, prepare func(*sim.Rebuild), test func(t *testing.T, s *rebuildStage)) {
	t.Helper()
	slow(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		test(t, newRebuildStage(t, sim.RebuildConfig{Rate: 5}, prepare, nil))
	})
}

func (s *rebuildStage) succeeded(r *upgrade.Result) {
	s.t.Helper()
	require.Equal(s.t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	s.end("succeeded")
}

// intercept is host.Intercept at an address of the site.
func (s *rebuildStage) intercept(addr, program string, by func(ctx context.Context, p *host.Proc, next host.Command) int) {
	s.t.Helper()
	m := s.world.Site().Machine(addr)
	require.NotNil(s.t, m, addr)
	require.NoError(s.t, m.Host.Intercept(program, by))
}

const launchVMs = "/pitrix/install/launch_vms.sh"

// The operator leaves, or the script dies, when one of two machines has been
// launched: what is there is adopted, or cleared away and made anew.
func TestScenario66LaunchHalfDone(t *testing.T) {
	t.Run("operator left", func(t *testing.T) {
		rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
			launched := 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.intercept("192.0.2.2", launchVMs, func(ctx context.Context, p *host.Proc, launch host.Command) int {
				launched++
				time.AfterFunc(time.Second, cancel)
				return launch(ctx, p)
			})
			r, err := upgrade.Apply(ctx, s.run, "t1", s.plan, s.options(quiet))
			require.NoError(t, err)
			require.Equal(t, "interrupted", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "3.1-launch", r.Step)
			r = s.resume(quiet)
			assert.Equal(t, 1, launched)
			assert.Len(t, s.world.Site().Named("proxy0"), 2, "the old one and the new one")
			s.succeeded(r)
		})
	})
	t.Run("script died", func(t *testing.T) {
		rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
			launched := 0
			s.intercept("192.0.2.2", launchVMs, func(ctx context.Context, p *host.Proc, launch host.Command) int {
				if launched++; launched > 1 {
					return launch(ctx, p)
				}
				ctx, kill := context.WithTimeout(ctx, time.Second)
				defer kill()
				launch(ctx, p)
				return 137
			})
			r := s.apply(quiet)
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "3.1-launch", r.Step)
			s.succeeded(s.resume(quiet))
			assert.Equal(t, 2, launched)
		})
	})
}

// A MAC address of the plan is used by somebody before the machine is launched.
func TestScenario67MACCollides(t *testing.T) {
	rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		nodes := p.Facts.Rebuild.Nodes
		for _, n := range nodes {
			assert.NotContains(t, append(slices.Clone(nodes[0].Old.MACs), nodes[1].Old.MACs...), n.MAC)
		}
		const settings = "/pitrix/conf/settings/"
		fb := s.world.Site().Firstbox().Host
		entries, err := fb.ReadDir(settings)
		require.NoError(t, err)
		for _, e := range entries {
			b, err := fb.ReadFile(settings + e.Name())
			require.NoError(t, err)
			if strings.HasPrefix(e.Name(), "proxy") || !strings.Contains(string(b), nodes[0].Old.MACs[0][:8]) {
				continue
			}
			i := strings.Index(string(b), nodes[0].Old.MACs[0][:8])
			taken := string(b[:i]) + nodes[0].MAC + string(b[i+len(nodes[0].MAC):])
			require.NoError(t, fb.WriteFile(settings+e.Name(), []byte(taken), 0o644))
			r := s.apply(quiet)
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
			assert.True(t, r.Untouched)
			assert.Contains(t, r.Reason, nodes[0].MAC)
			return
		}
		t.Fatal("no other node of the site has a MAC address")
	})
}

// In a whole rebuild no script of the installer is told more than the nodes of
// the plan, but for the one command of 8.1 that makes all nodes forget their
// old host keys.
func TestScenario68OnlyTheNodesOfThePlan(t *testing.T) {
	rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
		const scripts = "/pitrix/upgrade/exec_nodes.sh /pitrix/upgrade/update.sh /pitrix/upgrade/update_nodes.sh /pitrix/install/launch_vms.sh /pitrix/install/install_nodes.sh"
		var told []string
		for script := range strings.FieldsSeq(scripts) {
			s.intercept("192.0.2.2", script, func(ctx context.Context, p *host.Proc, next host.Command) int {
				told = append(told, strings.Join(p.Args, " "))
				return next(ctx, p)
			})
		}
		s.succeeded(s.apply(quiet))
		require.NotEmpty(t, told)
		forget := 0
		for _, line := range told {
			args := strings.Fields(line)[1:]
			if strings.HasPrefix(line, "/pitrix/upgrade/exec_nodes.sh -f all (f=/root/.ssh/known_hosts; ") {
				forget++
				continue
			}
			i := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") })
			require.NotEqual(t, -1, i, line)
			for node := range strings.SplitSeq(args[i], ",") {
				assert.Contains(t, []string{"proxy0", "proxy1"}, node, line)
			}
		}
		assert.Equal(t, 1, forget)
	})
}

// The edit of its network cuts the new machine off: it takes it back by itself,
// and can be reached where it was.
func TestScenario71CutOffByTheEdit(t *testing.T) {
	var cut atomic.Bool
	walled := func(w *sim.Rebuild) {
		fb := w.Site().Firstbox().Host
		forward := fb.Forward
		fb.Forward = func(ctx context.Context, to string) (net.Conn, error) {
			if cut.Load() && strings.HasPrefix(to, firstFinal+":") {
				return nil, syscall.EHOSTUNREACH
			}
			return forward(ctx, to)
		}
	}
	rebuildScenario(t, walled, func(t *testing.T, s *rebuildStage) {
		r := s.apply(when("intent", "7.1-address", func() { cut.Store(true) }))
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "7.1-address", r.Step)
		assert.Contains(t, r.Reason, "came back with its temporary address "+firstTemporary+": its files were reverted")
		require.NotNil(t, s.world.Site().Machine(firstTemporary), "it has not gone back")
		cut.Store(false)
		s.succeeded(s.resume(quiet))
	})
}

// The images are put aside, and libvirt refuses to forget the old machines; or
// one of a machine's files has its new name and the next has not. What was done
// is seen, the rest is done, or all is taken back.
func TestScenario72UndefineFails(t *testing.T) {
	t.Run("undefine", func(t *testing.T) {
		rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
			refuse := true
			s.intercept(firstOldHost, "virsh", func(ctx context.Context, p *host.Proc, virsh host.Command) int {
				if refuse && slices.Contains(p.Args, "undefine") {
					return 1
				}
				return virsh(ctx, p)
			})
			r := s.apply(quiet)
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "9.2-undefine", r.Step)
			assert.Zero(t, s.world.Figures().Failed)
			refuse = false
			s.succeeded(s.resume(quiet))
		})
	})
	t.Run("one of the files", func(t *testing.T) {
		rebuildScenario(t, nil, func(t *testing.T, s *rebuildStage) {
			moved, refuse := 0, true
			s.intercept(firstOldHost, "mv", func(ctx context.Context, p *host.Proc, mv host.Command) int {
				if strings.Contains(strings.Join(p.Args, " "), "/old-") {
					if moved++; refuse && moved > 1 {
						return 1
					}
				}
				return mv(ctx, p)
			})
			r := s.apply(quiet)
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "9.1-park", r.Step)
			assert.Greater(t, moved, 1)
			refuse = false
			r = s.rollback()
			require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
			s.end("rolled-back")
		})
	})
}
