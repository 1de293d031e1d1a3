package upgrade_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// The other roles, each from end to end.
func TestRebuildRoles(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Role: role}, nil, nil)
				r := s.apply(unattended)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				f := s.end("succeeded")
				assert.Zero(t, f.Failed)
				assert.LessOrEqual(t, f.GapMS, 1000.0, "every switch is graceful")
				assert.Positive(t, f.GapMS)
				t.Logf("%d requests, %d failed, gap %v ms, %d failed in it", f.Requests, f.Failed, f.GapMS, f.GapFailed)
			})
		})
	}
}

// Rolled back before the undefine, the old pair of each role serves again.
func TestRebuildRolesRolledBack(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		for _, until := range []string{"6.3", "7.1", "9.1"} {
			t.Run(role+" "+until, func(t *testing.T) {
				t.Parallel()
				if until != "9.1" { // the longest way back stands for all at a desk
					slow(t)
				}
				synctest.Test(t, func(t *testing.T) {
					s := newRebuildStage(t, sim.RebuildConfig{Role: role}, nil, nil)
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
}

// Both strategies know every role.
func TestRebuildRolesInPlace(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, role := range []string{"webservice", "dnsmaster"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newRebuildStage(t, sim.RebuildConfig{Role: role, Strategy: "in-place"}, nil, nil)
				r := s.apply(unattended)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}

// A seeded sample of the points at which a rebuild of the other roles can be
// killed: half of them in the data that only these roles have. Each is resumed
// to its end and rolled back.
func TestRebuildRolesKilled(t *testing.T) {
	slow(t)
	t.Parallel()
	const seed, sample = 20261122, 6
	for _, role := range []string{"webservice", "dnsmaster"} {
		var points []point
		synctest.Test(t, func(t *testing.T) { points = killedWorld(t, sim.RebuildConfig{Role: role}, point{}, nil) })
		var data []int
		for i, p := range points {
			if strings.Contains(p.what, "/var/lib/upgradectl/data-") || strings.Contains(p.what, "service nginx") || strings.Contains(p.what, "service bind9") {
				data = append(data, i)
			}
		}
		require.NotEmpty(t, data, "%s: nothing of its data was carried over", role)
		random := rand.New(rand.NewPCG(seed, uint64(len(role))))
		for k := range sample {
			at := points[random.IntN(len(points))]
			if k%2 == 0 {
				at = points[data[random.IntN(len(data))]]
			}
			back := k%3 == 0
			t.Run(role+" "+at.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					killedWorld(t, sim.RebuildConfig{Role: role}, at, func(s *rebuildStage) string {
						if back {
							return backedRebuild(s)
						}
						return resumedRebuild(s)
					})
				})
			})
		}
	}
}

// A hand-made page that the new webservice has lost before its switch stops it,
// and is named; brought back, the run goes on.
func TestTrapLostPage(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const page, fresh = "/etc/nginx/conf.d/operations.conf", "192.0.2.76"
		s := newRebuildStage(t, sim.RebuildConfig{Role: "webservice", Rate: 5}, nil, nil)
		var text []byte
		r := s.apply(when("done", "6.5-compare", func() {
			h := s.world.Site().Machine(fresh).Host
			var err error
			text, err = h.ReadFile(page)
			require.NoError(t, err, "it was carried over")
			require.NoError(t, h.Remove(page))
		}))
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "7.1-ready", r.Step)
		assert.Contains(t, r.Reason, "the new webservice1 has lost what was carried over to it: /etc/nginx/nginx.conf: http > server (listen 8090 server_name ops.lab.example)")
		require.NoError(t, s.world.Site().Machine(fresh).Host.WriteFile(page, text, 0o644))
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
	})
}

// What differs in a file of the package is for a person to judge: it stops the
// run before anything is switched.
func TestTrapEditedSite(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Role: "webservice", Rate: 5}, func(w *sim.Rebuild) {
			const site = "/etc/nginx/sites-enabled/webconsole"
			for _, addr := range []string{"192.0.2.65", "192.0.2.66"} {
				h := w.Site().Machine(addr).Host
				text, err := h.ReadFile(site)
				require.NoError(t, err)
				require.NoError(t, h.WriteFile(site, []byte(strings.Replace(string(text), "    location / {", "    location /legacy/ {\n        return 410;\n    }\n    location / {", 1)), 0o644))
			}
		}, nil)
		r := s.apply(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "6.3-restore", r.Step)
		assert.Contains(t, r.Reason, "the new machine lacks what the old one has: http > server (listen 80 default_server server_name boss.lab.example console.lab.example) > location /legacy/")
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		s.end("rolled-back")
	})
}

// A record that the new name server has lost before its switch stops it, and is
// named. One that a router enters while the old one still serves travels too.
func TestTrapLostRecord(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ops, routers, fresh, old = "/etc/bind/db.ops.example", "/var/lib/bind/db.router.lab.example", "192.0.2.52", "192.0.2.42"
		s := newRebuildStage(t, sim.RebuildConfig{Role: "dnsmaster", Rate: 5}, nil, nil)
		var text []byte
		r := s.apply(when("done", "6.5-compare", func() {
			h := s.world.Site().Machine(fresh).Host
			var err error
			text, err = h.ReadFile(ops)
			require.NoError(t, err, "it was carried over")
			require.NoError(t, h.WriteFile(ops, []byte(strings.Replace(string(text), "wiki", "wakey", 1)), 0o644))
			// A dynamic update, as bind writes it down.
			require.NoError(t, s.world.Site().Machine(old).Host.Append(routers, []byte("r-new000\tIN\tA\t10.80.3.1\n")))
		}))
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "7.1-ready", r.Step)
		assert.Contains(t, r.Reason, "the new dnsmaster1 has lost what was carried over to it: /etc/bind: records of zone ops.example: wiki.ops.example. 300 IN A 10.90.0.8")
		require.NoError(t, s.world.Site().Machine(fresh).Host.WriteFile(ops, text, 0o644))
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		now, err := s.world.Site().Machine(old).Host.ReadFile(routers) // the new machine has the address
		require.NoError(t, err)
		assert.Contains(t, string(now), "r-new000")
		s.end("succeeded")
	})
}

// named.conf.options lets only some ask: a zone that clients get no answer for
// is known before anything begins.
func TestTrapNamedACL(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ acl, want string }{
			{"192.0.2.0/24", ""},
			{"10.80.0.0/16", "name server 192.0.2.40, zone lab.example: answer Refused"},
		} {
			s, err := planned(t, sim.RebuildConfig{Role: "dnsmaster", Rate: 5}, func(w *sim.Rebuild) {
				for _, addr := range []string{"192.0.2.41", "192.0.2.42"} {
					h := w.Site().Machine(addr).Host
					text, err := h.ReadFile("/etc/bind/named.conf.options")
					require.NoError(t, err)
					require.NoError(t, h.WriteFile("/etc/bind/named.conf.options", []byte(strings.Replace(string(text), "allow-query { any; }", "allow-query { "+tt.acl+"; }", 1)), 0o644))
					status, out, err := h.Run(t.Context(), "service bind9 restart")
					require.NoError(t, err)
					require.Zero(t, status, "%s", out)
				}
			})
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
			}
			require.NoError(t, s.Close())
		}
	})
}

// A name server that copies its zones from the masters is not rebuilt as one of
// them, and its packages are not touched.
func TestTrapDNSSlaveUntouched(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := planned(t, sim.RebuildConfig{Role: "dnsmaster", Rate: 5}, func(w *sim.Rebuild) {
			const settings = "/pitrix/conf/settings/dnsmaster1"
			h := w.Site().Firstbox().Host
			text, err := h.ReadFile(settings)
			require.NoError(t, err)
			require.NoError(t, h.WriteFile(settings, []byte(strings.Replace(string(text), `role="dnsmaster"`, `role="dnsslave"`, 1)), 0o644))
		})
		require.ErrorContains(t, err, `dnsmaster1 has the role "dnsslave", not dnsmaster`)
		require.NoError(t, w.Close())
	})
}

// planned makes a plan in a world that somebody has changed before.
func planned(t *testing.T, c sim.RebuildConfig, prepare func(*sim.Rebuild)) (*sim.Rebuild, error) {
	t.Helper()
	c.Speed, c.Memory, c.Streams = 60, true, 1
	w, err := sim.NewRebuild(t.Context(), c)
	require.NoError(t, err)
	prepare(w)
	op, err := w.WriteOperatorFiles(t.TempDir())
	require.NoError(t, err)
	s := &rebuildStage{t: t, world: w, op: op, access: &upgrade.Access{NetDial: w.DialOperator}}
	_, err = s.makePlan()
	return w, err
}
