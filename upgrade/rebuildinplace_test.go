package upgrade_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// One run from end to end: each old proxy makes room for its successor on the
// same host, and nobody notices more than the floating address moving.
func TestRebuildInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Strategy: "in-place"}, nil, nil)
		r := s.apply(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		f := s.end("succeeded")
		assert.Zero(t, f.Failed)
		assert.LessOrEqual(t, f.GapMS, 1000.0, "every switch is graceful")
		assert.Positive(t, f.Requests)
		assert.Len(t, f.OldKept, 2)
		t.Logf("%d requests, %d failed, gap %v ms, %d failed in it", f.Requests, f.Failed, f.GapMS, f.GapFailed)
	})
}

// Rolled back before the undefine, from the very end of the way there, the old
// pair serves again, under its old names and from its old images.
func TestRebuildInPlaceRolledBack(t *testing.T) {
	t.Parallel()
	for _, until := range []string{"2.1", "7.1.2", "7.1.3", "7.1.6", "7.1.8", "7.2.3", "9.1"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			if until != "9.1" { // the longest way back stands for all at a desk
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Strategy: "in-place"}, nil, nil)
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: until})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
				f := s.end("rolled-back")
				assert.Zero(t, f.Failed)
				assert.LessOrEqual(t, f.GapMS, 1000.0)
				assert.Empty(t, f.OldKept)
			})
		})
	}
}

func inPlaceStage(t *testing.T, c sim.RebuildConfig, edit func(string) string) *rebuildStage {
	c.Strategy, c.Rate = "in-place", 5
	return newRebuildStage(t, c, nil, edit)
}

// Where nobody else could carry the service, no old machine is shut down: not by
// a plan, not when it turns out later, and nothing is launched on an address that
// somebody has taken meanwhile.
func TestRebuildInPlaceAlone(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, s *rebuildStage, why ...string) {
		_, err := s.makePlan()
		var refused *upgrade.RefusedError
		require.ErrorAs(t, err, &refused)
		for _, w := range why {
			assert.Contains(t, err.Error(), w)
		}
	}
	t.Run("one is ill", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := inPlaceStage(t, sim.RebuildConfig{}, nil)
			s.on("192.0.2.61", "supervisorctl stop cb_server")
			refused(t, s, "proxy0 is not well", "1 of 2 nodes is well, and in place the others serve alone while one is rebuilt: nobody would; repair proxy0 first")
		})
	})
	t.Run("one is off", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := inPlaceStage(t, sim.RebuildConfig{}, nil)
			s.on("192.0.2.102", "virsh destroy proxy1")
			refused(t, s, "proxy1 does not answer", "repair proxy1 first")
		})
	})
	t.Run("hosts are swapped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := inPlaceStage(t, sim.RebuildConfig{}, nil)
			edited, err := os.ReadFile(s.op.Config)
			require.NoError(t, err)
			swapped := strings.NewReplacer("{name: proxy0}", "{name: proxy0, physical_host: 192.0.2.102}", "{name: proxy1}", "{name: proxy1, physical_host: 192.0.2.101}").Replace(string(edited))
			require.NoError(t, os.WriteFile(s.op.Config, []byte(swapped), 0o600))
			refused(t, s, "R9")
		})
	})
	t.Run("the other falls ill", func(t *testing.T) {
		t.Parallel()
		slow(t)
		synctest.Test(t, func(t *testing.T) {
			s := inPlaceStage(t, sim.RebuildConfig{}, nil)
			r := s.apply(when("done", "7.1.3-record", func() { s.on("192.0.2.61", "supervisorctl stop cb_server") }))
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "7.1.3-poweroff", r.Step)
			assert.Contains(t, r.Reason, "proxy0")
			require.NotNil(t, s.world.Site().Machine("192.0.2.62"), "the old machine was shut down")
			assert.Equal(t, "proxy1", s.world.Site().Machine("192.0.2.62").Label())
			s.on("192.0.2.61", "supervisorctl start cb_server")
			s.succeeded(s.resume(quiet))
		})
	})
	t.Run("somebody has the address", func(t *testing.T) {
		t.Parallel()
		slow(t)
		synctest.Test(t, func(t *testing.T) {
			s := inPlaceStage(t, sim.RebuildConfig{}, nil)
			r := s.apply(when("done", "7.1.3-aside", func() { s.on("192.0.2.65", "ip addr add 192.0.2.62/24 dev eth0") }))
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Equal(t, "7.1.3-launch", r.Step)
			assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
			assert.Contains(t, r.Reason, "address 192.0.2.62 of proxy1 is answered by")
			s.on("192.0.2.65", "ip addr del 192.0.2.62/24 dev eth0")
			s.succeeded(s.resume(quiet))
		})
	})
}

// A person is asked before each old machine is shut down, and before the end;
// until then it serves.
func TestRebuildInPlaceGates(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		s := inPlaceStage(t, sim.RebuildConfig{}, func(y string) string { return strings.Replace(y, "gates: []\n", "", 1) })
		r := s.apply(upgrade.RunOptions{Observer: quiet.Observer})
		serves := func(want ...string) {
			for i, addr := range []string{"192.0.2.61", "192.0.2.62"} {
				m := s.world.Site().Machine(addr)
				require.NotNil(t, m, addr)
				assert.Equal(t, want[i], m.Label())
			}
		}
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "7.1.1-ready", r.Step)
		serves("proxy0", "proxy1")
		r = s.resume(upgrade.RunOptions{Approve: []string{"7.1.1"}, Observer: quiet.Observer})
		assert.Equal(t, "7.2.1-ready", r.Step, r.Reason)
		serves("proxy0", "proxy1#2")
		r = s.resume(upgrade.RunOptions{Approve: []string{"7.2.1"}, Observer: quiet.Observer})
		assert.Equal(t, "9.2-undefine", r.Step, r.Reason)
		serves("proxy0#2", "proxy1#2")
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		for _, n := range rep.Nodes {
			assert.NotEqual(t, n.KernelBefore, n.KernelAfter)
		}
		// The old domains wait under their other name, off, and kept off.
		out := s.on("192.0.2.102", "virsh list --all")
		assert.Regexp(t, `- +old-proxy1 +shut off`, out)
		assert.Regexp(t, `1 +proxy1 +running`, out)
		assert.Contains(t, s.on("192.0.2.102", "virsh dumpxml old-proxy1"), "/pitrix/kernels/old-proxy1.img")
		s.succeeded(s.resume(upgrade.RunOptions{Approve: []string{"9.2"}, Observer: quiet.Observer}))
	})
}

// Other roles, new hosts, installers with .sh scripts, nodes with outer addresses,
// sub zones and optional packages are rebuilt in place as well.
func TestRebuildInPlaceVariants(t *testing.T) {
	t.Parallel()
	slow(t)
	for name, tt := range map[string]struct {
		config sim.RebuildConfig
		edit   func(string) string
	}{
		"other hosts": {sim.RebuildConfig{}, func(y string) string {
			return strings.NewReplacer("{name: proxy0}", "{name: proxy0, physical_host: 192.0.2.103}", "{name: proxy1}", "{name: proxy1, physical_host: 192.0.2.104}").Replace(y)
		}},
		"shell scripts":         {sim.RebuildConfig{Version: "4.2.5"}, nil},
		"outer addresses":       {sim.RebuildConfig{VG: true}, nil},
		"webservice":            {sim.RebuildConfig{Role: "webservice"}, nil},
		"dnsmaster":             {sim.RebuildConfig{Role: "dnsmaster"}, nil},
		"sub zone and packages": {sim.RebuildConfig{Sub: true, Boss2: true, Warehouse: true}, func(y string) string { return strings.Replace(y, "  vip:", "  sub: true\n  vip:", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := inPlaceStage(t, tt.config, tt.edit)
				s.succeeded(s.apply(quiet))
			})
		})
	}
}

// A second rebuild on the same hosts is refused while the first one's backups
// have the names of the next; when they were moved as the refusal says, it goes
// through, and every image is there.
func TestRebuildInPlaceTwice(t *testing.T) {
	t.Parallel()
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		s := inPlaceStage(t, sim.RebuildConfig{}, nil)
		s.succeeded(s.apply(quiet))
		s.end("succeeded")
		// keepalived of the last one may still take the floating address back, of
		// which the order of the next plan comes.
		time.Sleep(time.Minute)
		var err error
		s.op, err = s.world.WriteOperatorFiles(t.TempDir()) // the new host keys are known
		require.NoError(t, err)
		_, err = s.makePlan()
		var refused *upgrade.RefusedError
		require.ErrorAs(t, err, &refused)
		moved := 0
		for _, why := range refused.Reasons {
			m := regexp.MustCompile(`^host (\S+) has an earlier backup of (\S+), .*, as root: (cd .*)$`).FindStringSubmatch(why)
			require.NotNil(t, m, why)
			dir := strings.TrimSpace(s.on(m[1], m[3]))
			for _, f := range []string{".img", ".xml", ".Done", ".base", ".domain"} {
				s.on(m[1], "[ -e /pitrix/kernels/"+dir+"/old-"+m[2]+f+" ] && [ ! -e /pitrix/kernels/old-"+m[2]+f+" ]")
			}
			moved++
		}
		require.Equal(t, 2, moved)
		p, err := s.makePlan()
		require.NoError(t, err)
		s.plan, err = p.JSON()
		require.NoError(t, err)
		r, err := upgrade.Apply(t.Context(), s.run+"-2", "t2", s.plan, s.options(quiet))
		require.NoError(t, err)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		for node, host := range map[string]string{"proxy0": "192.0.2.101", "proxy1": "192.0.2.102"} {
			assert.Equal(t, node+"#3", s.world.Site().Machine(map[string]string{"proxy0": "192.0.2.61", "proxy1": "192.0.2.62"}[node]).Label())
			s.on(host, "[ -e /pitrix/kernels/old-"+node+".img ] && ls /pitrix/kernels/old-"+node+"-*/old-"+node+".img")
		}
	})
}
