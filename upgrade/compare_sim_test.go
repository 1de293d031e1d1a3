package upgrade_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// TestLossStopsTheReturn: what production has lost keeps its traffic away, one
// loss after another, each named; without a loss the same run goes on.
func TestLossStopsTheReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const spool = "/var/spool/cron/app"
		var h *host.Host
		s := newStageIn(t, sim.Config{}, func(w *sim.World) {
			h = w.Host("172.31.0.90")
			byHand(t)(w)
			require.NoError(t, h.WriteFile(spool, []byte("* * * * * /srv/tick\n* * * * * /srv/tock\n"), 0o600))
			h.PlaceUnit(host.Unit{Name: "gate", Enabled: true, Start: "cd /srv/batch && exec java -jar batch.jar --server.port=9100"})
			require.NoError(t, h.StartUnit("gate"))
		}, withoutStart)
		do := func(cmd string) string {
			status, out, err := h.Run(t.Context(), cmd)
			require.NoError(t, err)
			require.Zero(t, status, "%s: %s", cmd, out)
			return string(out)
		}
		// From here on 4.5-compare is what a resumed run does next.
		begun := false
		first := upgrade.RunOptions{ApproveAll: true, Observer: func(e upgrade.Event) {
			if e.Step == "4.5-compare" && !begun {
				begun = true
				do("systemctl disable gate")
			}
		}}
		r := s.apply(first)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		require.True(t, begun)
		stopped := func(names ...string) {
			t.Helper()
			require.Equal(t, "failed", r.State)
			require.Equal(t, "4.5-compare", r.Step)
			for _, n := range names {
				assert.Contains(t, r.Reason, n)
			}
		}
		stopped("units gate.service")
		for _, c := range []struct{ spoil, heal, names string }{
			{"printf '* * * * * /srv/tock\\n' >" + spool, "printf '* * * * * /srv/tick\\n* * * * * /srv/tock\\n' >" + spool, "cron " + spool + ": * * * * * /srv/tick"},
			{"docker stop cache", "docker start cache", "containers cache"},
			{"systemctl stop gate", "systemctl start gate", "java /srv/batch batch.jar removed : 2 → 1"},
		} {
			do("systemctl enable gate")
			do(c.spoil)
			r = s.resume(unattended)
			stopped(c.names)
			do(c.heal)
		}
		r = s.resume(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		require.NoError(t, h.Remove(spool))
		s.end("succeeded")
	})
}
