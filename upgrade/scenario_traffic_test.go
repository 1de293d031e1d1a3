package upgrade_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/upgrade"
)

// Faults on the way of the traffic.

const proxyA = "172.31.0.5"

// One group's weight is set, the cloud refuses the next one for good: nobody is
// without a backend meanwhile, and both groups can be put back.
func TestScenario30OneOfTwoGroups(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		r := s.apply(when("intent", "4.1-slb", func() {
			s.world.Cloud().InjectFault(cloud.Fault{Writes: true, Skip: 1, Code: "OperationDenied", Status: http.StatusForbidden})
		}))
		s.failed(r, "4.1-slb", "OperationDenied")
		f := s.world.Figures()
		assert.False(t, f.WeightsRestored, "one of them was set")
		assert.Zero(t, f.Failed)
		for group, n := range f.MinHealthyByGroup {
			assert.Positive(t, n, group)
		}
		s.rolledBack()
	})
}

// The process is killed right after it has lowered production's weight: the next
// one knows what it was.
func TestScenario32WeightBeforeTheCrash(t *testing.T) {
	slow(t)
	t.Parallel()
	for name, after := range map[string]func(*stage) string{"resume": resumed, "rollback": backed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				draining := false
				k := &killer{at: point{nth: 1}, changes: func(what string) bool {
					draining = draining || what == "journal intent 4.1-slb"
					action, api := strings.CutPrefix(what, "api ")
					return draining && api && !isRead(action)
				}}
				s := newStageIn(t, sim.Config{Rate: 5, Happened: k.happened}, nil, nil)
				s.killer = k
				before := s.world.Figures().WeightsBefore
				killed := false
				end := k.apply(t, s.run, s.plan, s.options(k.observed()), func() string {
					killed = true
					assert.NotEqual(t, fmt.Sprint(before), fmt.Sprint(s.world.Figures().WeightsAfter))
					return after(s)
				})
				require.True(t, killed, "it ended by itself")
				f := s.end(end)
				assert.Equal(t, before, f.WeightsAfter)
			})
		})
	}
}

// A colleague edits an nginx file after us. Beside our lines that is merged;
// where he has changed them it is a conflict, and his edit stays.
func TestScenario34EditedAfterOurs(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		const name = "/etc/nginx/conf.d/order.conf"
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.2", Observer: quiet.Observer}).State)
		h := s.world.Host(proxyA)
		ours, err := h.ReadFile(name)
		require.NoError(t, err)
		i := strings.Index(string(ours), "#upgradectl:off(")
		require.Positive(t, i)
		theirs := string(ours[:i]) + "#mine " + string(ours[i+len("#upgradectl:off("):])
		require.NoError(t, h.WriteFile(name, []byte(theirs), 0o644))
		r := s.rollback()
		require.Equal(t, "rollback-incomplete", r.State, "%s: %s", r.Step, r.Reason)
		assert.Contains(t, r.Reason+strings.Join(r.Work, "\n"), name)
		now, err := h.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, theirs, string(now), "nobody's edit is overwritten")
		assert.Zero(t, s.world.Figures().Failed)

		require.NoError(t, h.WriteFile(name, ours, 0o644))
		check := s.colleagueEdits(proxyA, name)
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		check()
		s.end("rolled-back")
	})
}

// A file that nginx does not take is lying there: nothing of ours gets its name,
// nothing is loaded, nginx goes on as before.
func TestScenario35NginxTestFails(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		const all = "cat /etc/nginx/nginx.conf /etc/nginx/conf.d/*.conf; cat /run/nginx.pid"
		const broken = "/etc/nginx/conf.d/zz-broken.conf"
		before := ""
		r := s.apply(when("done", "3.9-hold", func() {
			require.NoError(t, s.world.Host(proxyA).WriteFile(broken, []byte("upstream broken {\n}\n"), 0o644))
			before = s.say(proxyA, all)
		}))
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "3.9-nginx", r.Step)
		assert.Contains(t, r.Reason, "no servers are inside upstream")
		assert.Equal(t, before, s.say(proxyA, all))
		s.say(proxyA, "rm "+broken)
		s.succeeded(s.resume(quiet), 6)
	})
}

// After a reload the old workers serve their long connections to production to
// their end: silence is read from connections, not from the reload's success.
func TestScenario36OldWorkersLinger(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		var old net.Conn // of an old worker of that nginx
		closed, proved := time.Time{}, time.Time{}
		o := quiet
		o.Observer = func(e upgrade.Event) {
			switch {
			case e.Kind == "done" && e.Step == "4.1-slb":
				c, err := s.world.Dial(t.Context(), proxyA, production+":8080")
				require.NoError(t, err)
				old = c
			case e.Kind == "done" && e.Step == "4.2-nginx":
				time.AfterFunc(20*time.Second, func() {
					closed = time.Now()
					_ = old.Close()
				})
			case e.Kind == "done" && e.Step == "4.3-silence":
				proved = time.Now()
			}
		}
		s.succeeded(s.apply(o), 6)
		require.False(t, closed.IsZero())
		assert.True(t, proved.After(closed), "silence was proved at %s, the connection ended at %s", proved, closed)
	})
}

// Somebody reaches production's port directly, past nginx and the balancers:
// production is not stopped under him.
func TestScenario41DirectClient(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		var direct net.Conn
		r := s.apply(when("done", "4.2-nginx", func() {
			var err error
			direct, err = s.world.Dial(t.Context(), "", production+":8080")
			require.NoError(t, err)
		}))
		s.failed(r, "4.3-silence", "still gets traffic")
		assert.Contains(t, r.Reason, "203.0.113.10")
		assert.Zero(t, s.world.Figures().Failed)
		require.NoError(t, direct.Close())
		s.succeeded(s.resume(quiet), 6)
	})
}
