package upgrade_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// Somebody else upgrades production by hand. Until it is handed over there is a
// way back to the beginning; from then on a rollback parks, whether the work was
// reported done or not.
func TestExternalIsPastThePivotFromItsBeginning(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		t.Run(map[bool]string{false: "before", true: "after"}[begun], func(t *testing.T) {
			t.Parallel()
			if !begun {
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{Rate: 5, Speed: 240}, nil, func(yaml string) string {
					return seldom(strings.Replace(yaml, "  strategy: yum-update\n  docker: upgrade\n",
						"  strategy: external\n  instructions: run yum -y update and reboot\n  release: CentOS Linux release 7.9\n  docker: keep\n", 1))
				})
				byHand := func(addr string) {
					s.say(addr, "yum -y update")
					require.NoError(t, s.world.Host(addr).Reboot())
				}
				at := func(r *upgrade.Result, step string) {
					t.Helper()
					require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
					require.Equal(t, step, r.Step)
					require.True(t, r.Gate)
				}
				approve := func(gate string) *upgrade.Result {
					o := quiet
					o.ApproveAll, o.Approve = false, []string{gate}
					return s.resume(o)
				}
				o := quiet
				o.ApproveAll = false
				at(s.apply(o), "3.6-os")
				const clone = "172.31.0.101" // the first free address
				byHand(clone)
				at(approve("3.6"), "4.1-slb")
				at(approve("4.1"), "4.4-stop")
				r := approve("4.4")
				at(r, "4.5-begin")
				assert.Contains(t, r.Reason, "no rollback, only parking")
				if !begun {
					require.Equal(t, "rolled-back", s.rollback().State)
					s.end("rolled-back")
					return
				}
				at(approve("4.5"), "4.5-os") // one gate of the section, not both
				r = s.rollback()
				require.Equal(t, "parked", r.State, "%s: %s", r.Step, r.Reason)
				s.carried()
				// What is reported done and is not is found out, and can be mended.
				r = approve("4.5")
				require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
				assert.Contains(t, r.Reason, "is not upgraded yet")
				s.carried()
				byHand(production)
				r = s.resume(quiet)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}
