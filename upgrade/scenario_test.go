package upgrade_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
)

// The faults that operators fear, one test each, on the whole procedure. The
// numbers are those of the list that docs/faults.md gives, where the tests of
// the other numbers are named too.

// notUnderRace keeps a test out of the pass with the race detector, where each
// procedure takes many times as long; make test runs it in a pass without.
func notUnderRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("under the race detector the tests of the whole procedure stand for it")
	}
}

// slow keeps a further run of a whole procedure out of both the quick pass and
// the one with the race detector.
func slow(t *testing.T) {
	t.Helper()
	testenv.Slow(t)
	notUnderRace(t)
}

// scenario runs a test in a world of its own, in virtual time.
func scenario(t *testing.T, c sim.Config, edit func(yaml string) string, test func(t *testing.T, s *stage)) {
	t.Helper()
	slow(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if c.Rate == 0 {
			c.Rate = 5
		}
		test(t, newStageIn(t, c, nil, edit))
	})
}

// pace sets a value of upgrade.yaml's pace block.
func pace(key, value string) func(string) string {
	return func(y string) string {
		var out []string
		for l := range strings.SplitSeq(y, "\n") {
			if !strings.HasPrefix(strings.TrimSpace(l), key+":") {
				out = append(out, l)
			}
			if l == "pace:" {
				out = append(out, "  "+key+": "+value)
			}
		}
		return strings.Join(out, "\n")
	}
}

func (s *stage) failed(r *upgrade.Result, step, why string) {
	s.t.Helper()
	require.Equal(s.t, "failed", r.State, "%s: %s", r.Step, r.Reason)
	assert.Equal(s.t, step, r.Step)
	assert.Contains(s.t, r.Reason, why)
}

func (s *stage) succeeded(r *upgrade.Result, created int) {
	s.t.Helper()
	require.Equal(s.t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	assert.Equal(s.t, created, s.end("succeeded").Created)
}

func (s *stage) rolledBack() sim.Figures {
	s.t.Helper()
	r := s.rollback()
	require.Equal(s.t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
	f := s.end("rolled-back")
	assert.Zero(s.t, f.KeptSnapshots)
	return f
}

// The first RunInstances of a run is a dry run.
const afterDryRun = 1

func TestScenario17InstanceMadeAnswerLost(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "RunInstances", Skip: afterDryRun, Kind: cloud.FaultCut, Applied: true, Times: 2})
		s.succeeded(s.apply(quiet), 6)
	})
}

func TestScenario18Throttled(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		for i := range 30 {
			s.world.Cloud().InjectFault(cloud.Fault{Code: "Throttling.User", Skip: 12 * i, Times: 2})
		}
		r := s.apply(quiet)
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		for _, st := range rep.Steps {
			assert.LessOrEqual(t, st.Attempt, 1, "%s was tried again", st.ID)
		}
		s.succeeded(r, 6)
	})
}

func TestScenario19NoStock(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "RunInstances", Skip: afterDryRun, Code: "OperationDenied.NoStock", Status: http.StatusForbidden})
		r := s.apply(quiet)
		s.failed(r, "3.3-clone", "NoStock")
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		was := slices.IndexFunc(rep.Steps, func(st upgrade.ReportStep) bool { return st.ID == "3.3-clone" })
		r = s.resume(quiet)
		after, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Equal(t, rep.Steps[was].Attempt+1, after.Steps[was].Attempt, "a new attempt, with a token of its own")
		s.succeeded(r, 6)
	})
}

// An instance that never leaves Pending can be neither stopped nor deleted: the
// run says so, and what a person has to do is a list. Its release time, set when
// it was made, takes it away in the end.
func TestScenario20InstanceNeverRuns(t *testing.T) {
	scenario(t, sim.Config{}, pace("timeout", "1m"), func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "RunInstances", Kind: cloud.FaultStuck})
		r := s.apply(quiet)
		s.failed(r, "3.3-clone", `still "Pending"`)
		r = s.rollback()
		assert.Equal(t, upgrade.ExitIncomplete, r.ExitStatus(), "%s: %s", r.State, r.Reason)
		assert.Contains(t, strings.Join(r.Work, "\n"), s.clone())
		f := s.world.Figures()
		assert.Zero(t, f.Failed)
	})
}

// An instance that is not Running when its time is over: what its console and its
// screen showed is kept in the run, nowhere else, and what was made is released in
// the one order that works.
func TestScenario20BudgetEnds(t *testing.T) {
	var deleted []string
	note := func(what string) {
		if a, ok := strings.CutPrefix(what, "api Delete"); ok && !slices.Contains(deleted, a) {
			deleted = append(deleted, a)
		}
	}
	scenario(t, sim.Config{Happened: note, Speed: 5, Rate: 0.05}, pace("timeout", "5s"), func(t *testing.T, s *stage) {
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "progress" && e.Step == "3.3-clone" {
				s.world.Cloud().SetConsole(s.clone(), "dracut-initqueue timeout: password of the vault is hunter2\r\n")
			}
		}
		r := s.apply(o)
		s.failed(r, "3.3-clone", `still "Starting"`)
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		assert.NotContains(t, r.Reason, "hunter2")
		kept := map[string][]byte{}
		for _, what := range []string{"console output", "screenshot"} {
			_, after, ok := strings.Cut(r.Reason, what+": blobs/")
			require.True(t, ok, "%s: %s", what, r.Reason)
			data, err := os.ReadFile(filepath.Join(s.run, "blobs", after[:64]))
			require.NoError(t, err)
			kept[what] = data
		}
		assert.Contains(t, string(kept["console output"]), "dracut-initqueue timeout")
		assert.Equal(t, []byte{0xff, 0xd8}, kept["screenshot"][:2], "a JPEG")
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.NotContains(t, rep.Text(), "hunter2")
		// It cannot be stopped while it starts, and stopping takes its time too.
		for r = s.rollback(); r.State == "rollback-incomplete"; r = s.rollback() {
			assert.Contains(t, strings.Join(r.Work, "\n"), s.clone())
		}
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		assert.Zero(t, s.end("rolled-back").KeptSnapshots)
		assert.Equal(t, []string{"Instance", "Image", "SnapshotGroup"}, deleted[:min(3, len(deleted))])
	})
}

// What stands still is given up, what moves is waited for.
func TestScenario21SnapshotStuck(t *testing.T) {
	scenario(t, sim.Config{}, pace("cloud_timeout", "10m"), func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "CreateSnapshotGroup", Kind: cloud.FaultStuck})
		s.failed(s.apply(quiet), "3.1-snapshots", "no progress for 10m (last: s-")
		s.rolledBack()
	})
	t.Run("slow", func(t *testing.T) { // it takes 30 s of this world, and moves
		scenario(t, sim.Config{Speed: 6}, pace("cloud_timeout", "10s"), func(t *testing.T, s *stage) {
			r := s.apply(upgrade.RunOptions{Until: "3.1", Observer: quiet.Observer})
			require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
			s.rolledBack()
		})
	})
}

// The image needs longer than the operator stays: later the run goes on
// waiting for the same one.
func TestScenario22ResumedLater(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "progress" && e.Step == "3.2-image" {
				cancel()
			}
		}
		r, err := upgrade.Apply(ctx, s.run, "t1", s.plan, s.options(o))
		require.NoError(t, err)
		require.Equal(t, "interrupted", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, upgrade.ExitInterrupt, r.ExitStatus())
		time.Sleep(5 * time.Minute) // for clients that never stop, as good as a day
		s.succeeded(s.resume(quiet), 6)
	})
}

func TestScenario23NotFoundRightAfterCreate(t *testing.T) {
	scenario(t, sim.Config{VisibleAfter: 20 * time.Second}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "CreateImage", Kind: cloud.FaultCut, Applied: true})
		s.world.Cloud().InjectFault(cloud.Fault{Action: "RunInstances", Skip: afterDryRun, Kind: cloud.FaultCut, Applied: true})
		r := s.apply(quiet)
		for tries := 0; r.State == "failed" && tries < 3; tries++ {
			r = s.resume(quiet)
		}
		s.succeeded(r, 6)
	})
}

// A rollback that begins before the cloud shows what was made a moment ago looks
// again until it does: nothing is left.
func TestScenario23RolledBackBeforeItIsSeen(t *testing.T) {
	var kill context.CancelFunc
	begun := false // before it there are dry runs
	made := func(what string) {
		if begun && what == "api RunInstances" {
			kill()
		}
	}
	// Four seconds: a rollback looks for longer.
	scenario(t, sim.Config{VisibleAfter: 4 * time.Minute, Happened: made}, pace("poll", "1s"), func(t *testing.T, s *stage) {
		var ctx context.Context
		ctx, kill = context.WithCancel(t.Context())
		defer kill()
		o := quiet
		o.Observer = func(e upgrade.Event) { begun = begun || e.Kind == "intent" && e.Step == "3.3-clone" }
		r, err := upgrade.Apply(ctx, s.run, "t1", s.plan, s.options(o))
		require.NoError(t, err)
		require.Equal(t, "interrupted", r.State, "%s: %s", r.Step, r.Reason)
		require.Equal(t, "3.3-clone", r.Step)
		id := s.clone()
		seen, err := s.machines().ListInstances(t.Context(), ecs.Filter{Tags: map[string]string{"upgradectl:run": "t1"}})
		require.NoError(t, err)
		require.Empty(t, seen, "it is there and cannot be seen")
		f := s.rolledBack()
		assert.Zero(t, f.Leaked)
		assert.Empty(t, s.world.Cloud().InstanceStatus(id))
	})
}

// The temporary keys that the configuration refers to end in the middle of the run.
// The run stands, with nothing half done; it stands again while the reference still
// leads to the old ones, and goes on as soon as it leads to new ones.
func TestScenario26CredentialsExpire(t *testing.T) {
	slow(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALICLOUD_ACCESS_KEY", "ALICLOUD_SECRET_KEY"} {
		t.Setenv(name, "")
	}
	keys := func(id string) {
		profile := fmt.Sprintf(`{"current":"night","profiles":[{"name":"night","mode":"StsToken","access_key_id":%q,"access_key_secret":"secret of %s","sts_token":"token of %[2]s","region_id":"cn-hangzhou"}]}`, id, id)
		require.NoError(t, os.MkdirAll(filepath.Join(home, ".aliyun"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(home, ".aliyun", "config.json"), []byte(profile), 0o600))
	}
	valid := func(s *stage, id string) {
		s.world.Cloud().SetCredentials(id, "secret of "+id, "token of "+id, time.Now().Add(24*time.Hour))
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Rate: 5}, nil, nil)
		s.access = &upgrade.Access{NetDial: s.access.NetDial}
		keys("STS.first")
		valid(s, "STS.first")
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "effect" && e.Step == "3.9-nginx" {
				valid(s, "STS.second")
			}
		}
		r := s.apply(o)
		for range 2 {
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.Contains(t, r.Reason, "InvalidSecurityToken.Expired")
			assert.Contains(t, r.Reason, "get fresh temporary credentials")
			assert.NotContains(t, r.Reason, "secret of")
			assert.NotContains(t, r.Reason, "token of")
			r = s.resume(quiet)
		}
		keys("STS.second")
		s.succeeded(s.resume(quiet), 6)
		assert.Empty(t, s.world.Cloud().Refused())
	})
}

// Somebody stops the transition host while it carries the traffic and the
// run waits for a person: production is not touched.
func TestScenario27TransitionHostStoppedByOthers(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.4"}).State)
		require.NoError(t, s.machines().StopInstance(t.Context(), s.clone()))
		r := s.resume(quiet)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.True(t, strings.HasPrefix(r.Step, "4.5-"), r.Step)
		s.notUpgraded()
	})
}

// Somebody deletes the transition host while it carries the traffic and the run
// waits for a person: production is not touched, whoever asks is told what is
// gone, and a rollback gives production its traffic back.
func TestScenario27TransitionHostDeletedByOthers(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.4", Observer: quiet.Observer}).State)
		id, c := s.clone(), s.machines()
		require.NoError(t, c.StopInstance(t.Context(), id))
		_, err := c.WaitInstance(t.Context(), id, "Stopped", nil)
		require.NoError(t, err)
		require.NoError(t, c.DeleteInstance(t.Context(), id, ecs.Guard{TagKey: "upgradectl:run", TagValue: "t1"}))
		require.Empty(t, s.world.Cloud().InstanceStatus(id))
		for range 2 { // it stays so
			r := s.resume(quiet)
			require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
			assert.True(t, strings.HasPrefix(r.Step, "4.5-"), r.Step)
			assert.Contains(t, r.Reason, "172.31.0.101", "it is said who is gone")
			assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
			s.notUpgraded()
		}
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Contains(t, rep.Summary(), "172.31.0.101")
		t.Log(rep.Summary())
		r := s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		f, err := s.world.Finish(t.Context())
		require.NoError(t, err)
		assert.True(t, f.NginxRestored && f.WeightsRestored)
		assert.Zero(t, f.Leaked)
		assert.Equal(t, f.KernelBefore, f.KernelAfter)
	})
}

// notUpgraded asserts that production's package transaction has not begun.
func (s *stage) notUpgraded() {
	s.t.Helper()
	assert.Equal(s.t, kernelOfSpec, s.world.Host(production).Kernel())
	rep, err := upgrade.ReadReport(s.run)
	require.NoError(s.t, err)
	seen := 0
	for _, st := range rep.Steps {
		if st.ID == "4.5-os" || st.ID == "4.5-reboot" {
			seen++
			assert.Equal(s.t, "pending", st.State, st.ID)
		}
	}
	assert.Equal(s.t, 2, seen)
}

func TestScenario28DeletedAnswer5xx(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		for _, a := range []string{"DeleteInstance", "DeleteImage"} {
			s.world.Cloud().InjectFault(cloud.Fault{Action: a, Code: "InternalError", Applied: true})
		}
		s.succeeded(s.apply(quiet), 6)
	})
}

// Somebody has protected what a rollback has to delete: the rest is undone, and
// what is left is a list of work.
func TestScenario29DeletionProtection(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.2"}).State)
		s.world.Cloud().InjectFault(cloud.Fault{Action: "DeleteInstance", Code: "InvalidOperation.DeletionProtection", Status: http.StatusForbidden, Times: 40})
		r := s.rollback()
		require.Equal(t, "rollback-incomplete", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, upgrade.ExitIncomplete, r.ExitStatus())
		assert.Contains(t, strings.Join(r.Work, "\n"), "DeletionProtection")
		f := s.world.Figures()
		assert.True(t, f.NginxRestored && f.WeightsRestored, "traffic is back where it was")
		for r.State == "rollback-incomplete" { // the protection was taken off
			r = s.rollback()
		}
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		s.end("rolled-back")
	})
}

// A connection that never ends keeps the run before the stop of production, and
// it goes on when the connection has ended.
func TestScenario38DrainNeverEnds(t *testing.T) {
	scenario(t, sim.Config{Streams: 1, StreamMax: 4 * time.Minute}, pace("timeout", "1m"), func(t *testing.T, s *stage) {
		r := s.apply(quiet)
		tries := 0
		for ; r.State == "failed"; tries++ {
			require.Less(t, tries, 40, "%s: %s", r.Step, r.Reason)
			assert.Contains(t, r.Reason, "still gets traffic", r.Step)
			r = s.resume(quiet)
		}
		assert.Positive(t, tries)
		s.succeeded(r, 6)
	})
}

// The transition host falls ill after it has got all the traffic: production's
// package transaction does not begin, and a rollback takes the traffic back.
func TestScenario43TransitionHostFallsIll(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "done" && e.Step == "4.4-stop" {
				for _, port := range []int{8080, 8081, 8082} {
					s.world.Host("172.31.0.101").FailEvery(port, 1)
				}
			}
		}
		r := s.apply(o)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.5-docker", r.Step)
		assert.Contains(t, r.Reason, "172.31.0.101", "it is said who is ill")
		s.notUpgraded()
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		f, err := s.world.Finish(t.Context())
		require.NoError(t, err)
		assert.True(t, f.NginxRestored && f.WeightsRestored)
		assert.Zero(t, f.Leaked)
		assert.Equal(t, f.KernelBefore, f.KernelAfter)
	})
}

// The one other member of a group is dead: production is its last healthy one
// and is not drained, at run time too.
func TestScenario42LastHealthyMember(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.11"}).State)
		for _, port := range []int{8080, 8081, 8082} {
			s.world.Host("172.31.0.101").FailEvery(port, 1)
		}
		before := fmt.Sprint(s.world.Figures().WeightsAfter)
		r := s.resume(quiet)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.1-slb", r.Step)
		assert.Contains(t, r.Reason, "health")
		assert.Equal(t, before, fmt.Sprint(s.world.Figures().WeightsAfter), "no weight was changed")
	})
}
