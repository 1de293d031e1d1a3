package upgrade_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// orders is a database that knows production by its address alone.
func orders(w *sim.World) {
	w.Cloud().AddDatabase(cloud.Database{Product: "rds", ID: "rm-orders", AllowLists: map[string][]string{"app": {"172.31.0.90"}}})
}

// What the cloud has in store, what the copy has to fit into, whom it could not
// reach, and who of the others is sick: it is asked when the plan is made.
func TestDiscoverSurroundings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, func(w *sim.World) {
			orders(w)
			c := w.Cloud()
			c.AddSystemEvent(cloud.SystemEvent{ID: "e-far", InstanceID: "i-web90", Type: "SystemMaintenance.Reboot", NotBefore: time.Now().Add(60 * 24 * time.Hour)})
			c.AddSystemEvent(cloud.SystemEvent{ID: "e-over", InstanceID: "i-web90", Type: "SystemMaintenance.Reboot", Status: "Executed"})
			require.NoError(t, w.Host("172.31.0.90").WriteFile("/etc/crypttab", []byte("data /dev/vdb1 /etc/keys/data luks\n"), 0o600))
			_, out, err := w.Host("172.31.0.88").Run(t.Context(), "for p in /proc/[0-9]*; do if [ \"$(readlink $p/cwd)\" = /srv/order ]; then kill ${p#/proc/}; fi; done")
			require.NoError(t, err, "%s", out)
			<-time.NewTimer(time.Minute).C // of virtual time: the balancer's checks find it
		}, nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		f := p.Facts
		require.Len(t, f.Events, 1)
		assert.Equal(t, "e-far", f.Events[0].ID)
		kinds := map[string]int{}
		for _, q := range f.Quotas {
			kinds[q.Kind]++
			assert.False(t, q.Short(), "%+v", q)
		}
		assert.Equal(t, map[string]int{"vcpu": 1, "security-group": 1, "address": 1, "snapshot": len(f.Disks)}, kinds)
		require.Len(t, f.Trust, 1, "%+v", f.Trust)
		assert.Equal(t, "rm-orders", f.Trust[0].ID)
		assert.Contains(t, f.Trust[0].Evidence, "172.31.0.0/20", "the block that the transition host gets its address of")
		require.NotEmpty(t, f.Sick)
		for _, x := range f.Sick {
			assert.Equal(t, "i-app88", x.Backend.ServerID, "%+v", x)
		}
		assert.Empty(t, f.Unasked)
		require.Len(t, f.Extra.Crypt, 1)
		var ids []string
		for _, x := range p.Findings {
			ids = append(ids, x.Severity+" "+x.ID+" "+x.Object)
		}
		for _, want := range []string{"warning instance-event e-far", "warning trust-allow-list rm-orders", "info disk-crypt data"} {
			assert.Contains(t, ids, want)
		}
		assert.True(t, slices.ContainsFunc(ids, func(s string) bool { return strings.HasPrefix(s, "warning balancer-sick lb-shop") }), "%v", ids)
	})
}

// What the account may not ask is said, and no obstacle.
func TestDiscoverDenied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, func(w *sim.World) {
			w.Cloud().Deny("DescribeInstanceHistoryEvents", "DescribeAccountAttributes", "vpc:DescribeVSwitches", "rds:DescribeDBInstances")
		}, nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		all := strings.Join(p.Facts.Unasked, "\n")
		for _, want := range []string{"whether the cloud will restart or move the instance", "how many vCPUs the account may still have", "how many addresses its vSwitch has left", "who will let the transition host in"} {
			assert.Contains(t, all, want)
		}
		assert.Contains(t, p.Text(), "clone-unasked")
	})
}

// A service without a start command whose process could not be started again is
// found when the plan is made, not in the middle of the run.
func TestDiscoverRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := sim.New(t.Context(), sim.Config{Memory: true, Rate: -1, Streams: -1})
		require.NoError(t, err)
		defer func() { assert.NoError(t, w.Close()) }()
		require.NoError(t, w.Host("172.31.0.90").WriteFile("/srv/batch/batch.jar", []byte("jar"), 0o644))
		_, err = w.Host("172.31.0.90").Spawn(host.Process{Args: []string{"java", "-jar", "batch.jar"}, Cwd: "/srv/batch", User: "app", Ports: []int{8099},
			Env: map[string]string{"PATH": "/nowhere"}})
		require.NoError(t, err)
		op, err := w.WriteOperatorFiles(t.TempDir())
		require.NoError(t, err)
		cfg, err := upgrade.LoadConfig(op.Config)
		require.NoError(t, err)
		cfg.Services = append(cfg.Services, upgrade.Service{Name: "batch", Kind: upgrade.KindJava, Dir: "/srv/batch", Ports: []int{8099}})
		e, err := upgrade.NewEnv(cfg, &upgrade.Access{AccessKeyID: op.AccessKeyID, AccessKeySecret: op.AccessKeySecret, NetDial: w.DialOperator})
		require.NoError(t, err)
		defer e.Close()
		facts, err := upgrade.Discover(t.Context(), cfg, e)
		require.NoError(t, err)
		_, err = upgrade.BuildPlan(cfg, facts, time.Now(), "test")
		require.ErrorContains(t, err, "service batch has no start command, and its process")
		assert.Equal(t, upgrade.ExitRefused, upgrade.ErrorStatus(err))
		cfg.Services[len(cfg.Services)-1].Start = "java -jar batch.jar"
		facts, err = upgrade.Discover(t.Context(), cfg, e)
		require.NoError(t, err)
		_, err = upgrade.BuildPlan(cfg, facts, time.Now(), "test")
		require.NoError(t, err)
	})
}

// 3.4-trust stops where the transition host would be refused, and goes by the
// same entries as every other finding.
func TestTrustIsAccepted(t *testing.T) {
	t.Parallel()
	for name, accept := range map[string]string{
		"nobody": "", "by ID": "accept: [trust-allow-list]\n", "by object": "accept: [\"trust-allow-list:rm-orders\"]\n", "another object": "accept: [\"trust-allow-list:rm-other\"]\n",
		"by paths.accept": "paths: {accept: [rm-orders]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{}, orders, func(y string) string { return y + accept })
				r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.4"})
				if strings.HasPrefix(name, "by") {
					require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
					return
				}
				s.failed(r, "3.4-trust", "rds rm-orders lets 172.31.0.90 in (list app) and not "+s.world.Cloud().InstanceIP(s.clone()))
				assert.Contains(t, r.Reason, `accept: ["trust-allow-list:rm-orders"]`)
				// Somebody lets it in: the run goes on.
				s.world.Cloud().AddDatabase(cloud.Database{Product: "rds", ID: "rm-orders", AllowLists: map[string][]string{"app": {"172.31.0.90"}, "upgradectl": {s.world.Cloud().InstanceIP(s.clone())}}})
				r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.4"})
				require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
			})
		})
	}
}
