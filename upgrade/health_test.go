package upgrade_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// Scenario 37: the transition host serves, the balancers call it healthy, and
// some of its answers are errors. The gate says fail, the evidence is kept, and
// the run goes no further; it can be taken back.
func TestScenario37ErrorsFailTheGate(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "done" && e.Step == "3.11-observe" {
				s.world.Host("172.31.0.101").FailEvery(8081, 4)
			}
		}
		r := s.apply(o)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "3.11-health", r.Step)
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		assert.Regexp(t, `the automatic gate of the transition host: fail: errors of shop:8081 from 172\.31\.0\.[56] by probe: 0\.\d+ \(before 0, limit 0\.01, 10 samples\): .*500 Internal Server Error`, r.Reason)
		ref := regexp.MustCompile(`blobs/([0-9a-f]{64})`).FindStringSubmatch(r.Reason)
		require.NotNil(t, ref, r.Reason)
		b, err := os.ReadFile(filepath.Join(s.run, "blobs", ref[1]))
		require.NoError(t, err)
		var kept upgrade.HealthResult
		require.NoError(t, json.Unmarshal(b, &kept))
		assert.Equal(t, upgrade.VerdictFail, kept.Verdict)
		assert.NotEmpty(t, kept.Measured.Probes)

		s.world.Host("172.31.0.101").FailEvery(8081, 0)
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s", r.Step, r.Reason)
		f, err := s.world.Finish(t.Context())
		require.NoError(t, err)
		assert.True(t, f.NginxRestored && f.WeightsRestored)
		assert.Zero(t, f.Leaked)
	})
}

// An error that production has always made is no reason to stop.
func TestGateComparesWithBefore(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		s.world.Host("172.31.0.90").FailEvery(8081, 5)
		o := quiet
		o.Until = "3.11"
		o.Observer = func(e upgrade.Event) {
			switch {
			case e.Kind == "done" && e.Step == "2.7-baseline":
				s.world.Host("172.31.0.90").FailEvery(8081, 0)
			case e.Kind == "done" && e.Step == "3.11-observe":
				s.world.Host("172.31.0.101").FailEvery(8081, 5)
			}
		}
		r := s.apply(o)
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		require.NotEmpty(t, rep.Health)
		assert.Equal(t, upgrade.VerdictPass, rep.Health[0].Verdict)
	})
}
