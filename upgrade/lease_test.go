package upgrade_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Scenario 16: the run directory was copied to another machine and the run is
// resumed there, while the first process still works on it. The first one is
// fenced, on hosts and in the cloud alike: at its next effect, or, when it has
// been waiting meanwhile, by its heartbeat.
func TestScenario16CopiedRunFencesTheOldProcess(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	for _, until := range []string{"", "2"} { // the end, or no further than the takeover
		for _, step := range []string{"3.2-image", "3.9-nginx", "4.2-nginx"} {
			t.Run(step+" until "+until, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var late []string // effects after the takeover
					taken, over := false, false
					s := newStageIn(t, sim.Config{Rate: 5, Happened: func(what string) {
						// A plan's dry run is a RunInstances too; Created below tells them apart.
						if taken && !over && !looks(what) && what != "api RunInstances" {
							late = append(late, what)
						}
					}}, nil, nil)
					elsewhere := s.run + "-copied"
					resume := func(until string) string {
						o := quiet
						o.Until = until
						r, err := upgrade.Resume(t.Context(), elsewhere, s.options(o))
						require.NoError(t, err)
						return r.State
					}
					o := s.options(quiet)
					o.Observer = func(e upgrade.Event) {
						if e.Kind != "done" || e.Step != step || taken {
							return
						}
						require.NoError(t, os.CopyFS(elsewhere, os.DirFS(s.run)))
						resume(until)
						taken = true
					}
					r, err := upgrade.Apply(t.Context(), s.run, "t1", s.plan, o)
					require.NoError(t, err)
					require.True(t, taken)
					assert.ErrorIs(t, r.Err, hostos.ErrFenced)
					assert.Equal(t, upgrade.ExitLocked, r.ExitStatus(), "%s: %s", r.State, r.Reason)
					assert.Empty(t, late, "the fenced process went on")
					over = true
					h, err := engine.Read(elsewhere)
					require.NoError(t, err)
					note := slices.IndexFunc(h.Notes, func(n engine.Note) bool { return n.Act == "takeover" && n.Object == "172.31.0.90" })
					require.NotEqual(t, -1, note, "the takeover is in the journal")
					assert.EqualValues(t, 2, h.Notes[note].Epoch)
					assert.Contains(t, h.Notes[note].Text, "test@")
					if until != "" {
						require.Equal(t, "succeeded", resume(""))
					}
					assert.Equal(t, 6, s.end("succeeded").Created)
				})
			})
		}
	}
}

// Scenario 58: two runs with different hosts meet on an nginx host. The second
// one is refused at once, with nothing changed, and goes on when the first has
// ended.
func TestScenario58SecondRunOnSharedHost(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)

		// A run of another production host works on one of the nginx hosts: what this
		// run had taken of the others by then it gives back, so nobody waits for it.
		shared := s.world.Host("172.31.0.6")
		require.NoError(t, shared.WriteFile(leasePath, []byte(otherLease), 0o600))
		_, err := upgrade.Apply(t.Context(), s.run+"-first", "t0", s.plan, s.options(quiet))
		require.ErrorContains(t, err, "172.31.0.6")
		assert.Equal(t, upgrade.ExitLocked, upgrade.ErrorStatus(err))
		for _, addr := range []string{"172.31.0.5", "172.31.0.90"} {
			_, err := s.world.Host(addr).Stat(leasePath)
			require.ErrorIs(t, err, fs.ErrNotExist, addr)
		}
		require.NoError(t, shared.Remove(leasePath))

		r := s.apply(upgrade.RunOptions{Until: "3.9"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)

		other := s.run + "-other"
		_, err = upgrade.Apply(t.Context(), other, "t2", s.plan, s.options(quiet))
		held := new(hostos.LeaseHeldError)
		require.ErrorAs(t, err, &held)
		assert.Equal(t, "t1", held.Lease.Run)
		assert.True(t, strings.HasPrefix(held.Lease.Holder, "test@"), held.Lease.Holder)
		assert.Equal(t, upgrade.ExitLocked, upgrade.ErrorStatus(err))
		rep, err := upgrade.ReadReport(other)
		require.NoError(t, err)
		assert.False(t, slices.ContainsFunc(rep.Steps, func(s upgrade.ReportStep) bool { return s.State != "pending" }), "nothing has begun")

		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s", r.Step, r.Reason)
		r, err = upgrade.Resume(t.Context(), other, s.options(quiet))
		require.NoError(t, err)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
	})
}

// A run that was killed between its last record and the end of its leases gives
// them back when it is asked to go on.
func TestFinishedRunGivesLeasesBack(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		require.Equal(t, "succeeded", s.apply(quiet).State)
		for _, addr := range []string{"172.31.0.90", "172.31.0.5"} {
			h := s.world.Host(addr)
			require.NotNil(t, h)
			require.NoError(t, h.WriteFile("/var/lib/upgradectl/lease", []byte("t1 7 0123456789abcdef 2026-11-22T02:00:00Z test@ops1\n"), 0o600))
		}
		_, err := upgrade.Resume(t.Context(), s.run, s.options(quiet))
		require.Error(t, err)
		assert.Equal(t, upgrade.ExitRefused, upgrade.ErrorStatus(err))
		require.False(t, errors.As(err, new(*hostos.LeaseHeldError)))
		s.end("succeeded")
	})
}

// looks tells commands and calls by which a process without a lease finds out
// what is the case: they change nothing.
func looks(what string) bool {
	kind, text, _ := strings.Cut(what, " ")
	switch kind {
	case "api":
		return isRead(text)
	case "journal":
		return strings.HasPrefix(text, "progress ")
	}
	_, command, _ := strings.Cut(text, " ")
	if strings.HasPrefix(command, "case \"$(cat /var/lib/upgradectl/lease") {
		_, command, _ = strings.Cut(command, "\n") // the lease's guard
	}
	if command == ":" || strings.HasPrefix(command, "cd /var/lib/upgradectl\necho $(($(cat beat") {
		return true
	}
	for _, read := range []string{":", "cat /proc/", "s=0\nfor p in /proc/", "f=/run/nginx.pid\n", "/bin/sh -s", "docker inspect ", "nginx -t ", "command -v ", "for f in /etc/nginx/", "for f in /var/lib/yum/transaction-all.", "ids=$(cd /srv/shop ", "supervisorctl status ",
		"LC_ALL=C; export LC_ALL\np=$(command -v rpm", "LC_ALL=C\nexport LC_ALL\nPATH=\"$PATH:/usr/sbin:/sbin\"\nhave()", "LC_ALL=C\nexport LC_ALL\nPATH=\"$PATH:/usr/sbin:/sbin\"\np= q=0\n", "LC_ALL=C\nexport LC_ALL\nprintf '=upgradectl-"} {
		if strings.HasPrefix(command, read) {
			return true
		}
	}
	return false
}
