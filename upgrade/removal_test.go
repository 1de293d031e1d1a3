package upgrade_test

import (
	"testing"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestRemovals takes those rules out of the source, one after the other, that
// the steps keep and not the engine, and sees that a scenario notices. The
// engine's own TestRemovals has the others; docs/faults.md lists all.
func TestRemovals(t *testing.T) {
	slow(t)
	notUnderRace(t)
	for _, row := range []struct{ rule, file, old, new, tests string }{
		{"R7: a weight is written whatever is there", "movebalancers.go",
			"if !slices.Contains(allowed, b.Weight) {", "if len(allowed) == 0 {", "^TestScenario31Between"},
		{"R8: a transaction in its own session", "hostos/job.go",
			"if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then",
			"/bin/sh \"$d/run\"\nexit 0\nif false; then", "^TestScenario44"},
		{"R12: commands that do not look at the lease", "hostos/lease.go",
			"*) echo 'upgradectl: the lease of this host was taken over' >&2; false;; esac`,",
			"*) : ;; esac`,", "^TestScenario16CopiedRun"},
		{"R14: the other side is not looked at before each weight", "movebalancers.go",
			"carried := func(ctx context.Context) error {\n\t\t\t\tif err := t.waitServing(ctx, a, old); err != nil {\n\t\t\t\t\treturn err\n\t\t\t\t}\n\t\t\t\treturn t.carries(ctx, a)\n\t\t\t}\n\t\t\tif err := t.waitAllHealthy(ctx, a, old); err != nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t\tif err := carried(ctx); err != nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t\t// The write may have to wait for the cloud's flow control.\n\t\t\tif err := t.setWeight(slb.WithCheck(ctx, carried), c, step)",
			"if err := t.setWeight(ctx, c, step)", "^TestScenario42IllBetween"},
		{"R15: the transition host leaves before production is back", "movebalancers.go",
			"if err := t.restored(ctx); err != nil {\n\t\t\t\treturn nil, err\n\t\t\t}\n\t\t\treturn nil, t.leave(", "return nil, t.leave(", "^TestTransition$"},
		{"R18: nothing takes the edit of a network back", "../pitrix/network.go",
			"if [ $n -gt 0 ]; then exit 0; fi\nexec /bin/sh \"$d/revert\" timer @TOKEN@\n", "exit 0\n", "^TestScenario71"},
	} {
		t.Run(row.rule, func(t *testing.T) {
			t.Parallel()
			testenv.Removal{File: row.file, Old: row.old, New: row.new, Tests: row.tests, Env: testenv.SlowVariable + "=1"}.Fails(t)
		})
	}
}
