package upgrade_test

import (
	"cmp"
	"context"
	"encoding/json"
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

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// A stage is a simulated world and an operator's files in it. The world has no
// sockets: in a synctest bubble a whole procedure takes a second or two.
type stage struct {
	t      *testing.T
	world  *sim.World
	op     sim.Operator
	run    string
	plan   []byte
	access *upgrade.Access
	killer *killer // of the crash tests
}

// newStage builds a world in a synctest bubble; edit, when not nil, changes upgrade.yaml.
func newStage(t *testing.T, edit func(yaml string) string) *stage {
	t.Helper()
	return newStageIn(t, sim.Config{}, nil, edit)
}

// newStageIn builds a world as c says; prepare, when not nil, changes it before
// the plan is made.
func newStageIn(t *testing.T, c sim.Config, prepare func(*sim.World), edit func(yaml string) string) *stage {
	t.Helper()
	c.Speed, c.Streams, c.Memory = cmp.Or(c.Speed, 60), 1, true
	c.Rate = cmp.Or(c.Rate, 20)
	w, err := sim.New(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.Close()) })
	if prepare != nil {
		prepare(w)
	}
	dir := t.TempDir()
	op, err := w.WriteOperatorFiles(dir)
	require.NoError(t, err)
	if edit != nil {
		b, err := os.ReadFile(op.Config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(op.Config, []byte(edit(string(b))), 0o600))
	}
	s := &stage{t: t, world: w, op: op, run: filepath.Join(dir, "run"), access: &upgrade.Access{AccessKeyID: op.AccessKeyID, AccessKeySecret: op.AccessKeySecret, NetDial: w.DialOperator}}
	s.plan = s.makePlan()
	return s
}

func (s *stage) makePlan() []byte {
	s.t.Helper()
	cfg, err := upgrade.LoadConfig(s.op.Config)
	require.NoError(s.t, err)
	e, err := upgrade.NewEnv(cfg, s.access)
	require.NoError(s.t, err)
	defer e.Close()
	facts, err := upgrade.Discover(s.t.Context(), cfg, e)
	require.NoError(s.t, err)
	p, err := upgrade.BuildPlan(cfg, facts, time.Now(), "test")
	require.NoError(s.t, err)
	stored, err := p.JSON()
	require.NoError(s.t, err)
	return stored
}

func (s *stage) options(o upgrade.RunOptions) upgrade.RunOptions {
	o.Actor, o.Version, o.Access = "test", "test", s.access
	if o.Observer == nil {
		o.Observer = func(e upgrade.Event) { s.t.Logf("%s %s %s %s", e.Time.Format("05.000"), e.Kind, e.Step, e.Text) }
	}
	return o
}

func (s *stage) apply(o upgrade.RunOptions) *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Apply(s.t.Context(), s.run, "t1", s.plan, s.options(o))
	require.NoError(s.t, err)
	return r
}

func (s *stage) resume(o upgrade.RunOptions) *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Resume(s.t.Context(), s.run, s.options(o))
	require.NoError(s.t, err)
	return r
}

func (s *stage) rollback() *upgrade.Result {
	s.t.Helper()
	r, err := upgrade.Rollback(s.t.Context(), s.run, s.options(upgrade.RunOptions{}))
	require.NoError(s.t, err)
	return r
}

// clone is the instance that the run has made.
func (s *stage) clone() string {
	s.t.Helper()
	all := s.world.Cloud().Resources()
	i := slices.IndexFunc(all, func(r cloud.Resource) bool { return r.Type == "instance" && r.CreatedByAPI })
	require.NotEqual(s.t, -1, i, "no instance was made")
	return all[i].ID
}

// end stops the traffic and judges the world.
func (s *stage) end(outcome string) sim.Figures {
	s.t.Helper()
	f, err := s.world.Finish(context.WithoutCancel(s.t.Context()))
	require.NoError(s.t, err)
	require.Empty(s.t, f.CheckEnd(outcome))
	return f
}

// colleagueEdits changes an nginx file in the middle of a run. The edit has to
// stay and our marks to go: that is what the returned function checks. It takes
// the edit away, for the world compares all files with the beginning.
func (s *stage) colleagueEdits(addr, name string) (check func()) {
	const edit = "# edited by a colleague\n"
	h := s.world.Host(addr)
	b, err := h.ReadFile(name)
	require.NoError(s.t, err)
	require.Contains(s.t, string(b), "#upgradectl:off(")
	require.NoError(s.t, h.WriteFile(name, append(b, edit...), 0o644))
	return func() {
		after, err := h.ReadFile(name)
		require.NoError(s.t, err)
		original, there := strings.CutSuffix(string(after), edit)
		assert.True(s.t, there, "the colleague's edit is gone")
		require.NoError(s.t, h.WriteFile(name, []byte(original), 0o644))
	}
}

var unattended = upgrade.RunOptions{ApproveAll: true}

// One run through everything a person meets: the gates, a rollback that comes
// too late and parks, and the end.
func TestTransition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		r := s.apply(upgrade.RunOptions{})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.1-slb", r.Step)
		assert.Equal(t, upgrade.ExitPaused, r.ExitStatus())
		r = s.resume(upgrade.RunOptions{})
		assert.Equal(t, "4.1-slb", r.Step, "resume alone approves nothing")
		r = s.resume(upgrade.RunOptions{Approve: []string{"4.1"}})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.4-stop", r.Step)

		edited := s.colleagueEdits("172.31.0.5", "/etc/nginx/conf.d/order.conf")
		r = s.resume(upgrade.RunOptions{Approve: []string{"4.4"}, Until: "4.7"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		r = s.rollback()
		require.Equal(t, "parked", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		assert.Equal(t, upgrade.ExitParked, r.ExitStatus())

		// While production serves with less than it had, nobody else is taken out.
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "4.8"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		m := p.Facts.Memberships[0]
		require.NoError(t, s.balancers().SetWeight(t.Context(), m.Group(), m.Backend, 1))
		r = s.resume(unattended)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.9-slb", r.Step)
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		lowered := m.Backend
		lowered.Weight = 1
		require.NoError(t, s.balancers().SetWeight(t.Context(), m.Group(), lowered, m.Backend.Weight))

		r = s.resume(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, upgrade.ExitDone, r.ExitStatus())
		edited()
		f := s.end("succeeded")
		assert.Zero(t, f.Leaked)
		assert.Equal(t, 6, f.Created, "two disks twice, an image, an instance")
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Equal(t, f.KernelMeant, rep.KernelAfter)
		assert.Len(t, rep.KeptSnapshots, f.KeptSnapshots)
		journal, err := os.ReadFile(filepath.Join(s.run, "journal.jsonl"))
		require.NoError(t, err)
		assert.NotContains(t, string(journal), s.op.AccessKeySecret)
		assert.NotContains(t, string(journal), s.op.AccessKeyID)
	})
}

// A rollback reaches the beginning also after a create whose answer was lost
// and one that the cloud refused at first.
func TestRollbackBeforeThePivot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.world.Cloud().InjectFault(cloud.Fault{Action: "CreateImage", Kind: cloud.FaultCut, Applied: true})
		s.world.Cloud().InjectFault(cloud.Fault{Action: "RunInstances", Code: "OperationDenied.NoStock", Status: http.StatusForbidden, Message: "no stock"})
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.4"})
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		assert.Contains(t, r.Reason, "NoStock")
		r = s.resume(upgrade.RunOptions{Until: "4.4"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, upgrade.ExitPaused, r.ExitStatus())
		edited := s.colleagueEdits("172.31.0.6", "/etc/nginx/conf.d/pay.conf")
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		edited()
		f := s.end("rolled-back")
		assert.Zero(t, f.Leaked)
		assert.Zero(t, f.KeptSnapshots)
		assert.Equal(t, 4, f.Created, "two disks, one image, one instance")
	})
}

func TestScenario33StalePlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		h := s.world.Host("172.31.0.5")
		b, err := h.ReadFile("/etc/nginx/nginx.conf")
		require.NoError(t, err)
		require.NoError(t, h.WriteFile("/etc/nginx/nginx.conf", append(b, "# edited since\n"...), 0o644))
		r := s.apply(unattended)
		assert.Equal(t, "failed", r.State)
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.True(t, r.Untouched)
		assert.Contains(t, r.Reason+r.Err.Error(), "/etc/nginx/nginx.conf has changed")

		// What the cloud says is looked at once more as well.
		require.NoError(t, h.WriteFile("/etc/nginx/nginx.conf", b, 0o644))
		s.world.Cloud().AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-web90", State: "InService"})
		s.run += "2"
		r = s.apply(unattended)
		assert.Equal(t, "failed", r.State)
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.True(t, r.Untouched)
		assert.Contains(t, r.Reason+r.Err.Error(), "scaling-group asg-1")
	})
}

func TestWithoutNginxAndBalancers(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(y string) string {
			y = replaceBlock(y, "nginx:", "nginx: []\n")
			return strings.Replace(y, "balancers: auto", "balancers: none", 1)
		})
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		assert.Empty(t, p.Facts.Nginx)
		assert.Empty(t, p.Facts.Memberships)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.11"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		for _, id := range []string{"3.9-nginx", "3.10-slb", "3.11-observe"} {
			i := slices.IndexFunc(rep.Steps, func(st upgrade.ReportStep) bool { return st.ID == id })
			assert.Equal(t, "skipped", rep.Steps[i].State, id)
			assert.NotEmpty(t, rep.Steps[i].Reason, id)
		}
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		s.end("rolled-back")
	})
}

// replaceBlock replaces a top-level block of a YAML text.
func replaceBlock(y, head, with string) string {
	lines := strings.SplitAfter(y, "\n")
	var out strings.Builder
	skip := false
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, head):
			skip = true
			out.WriteString(with)
		case skip && (strings.HasPrefix(l, " ") || strings.HasPrefix(l, "-") || strings.TrimSpace(l) == ""):
		default:
			skip = false
			out.WriteString(l)
		}
	}
	return out.String()
}

// A host that does not come back from its reboot is looked at from outside,
// and what there is to see is kept with the run.
func TestHostDoesNotComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.5"}).State)
		id := s.clone()
		s.world.Cloud().SetConsole(id, "Kernel panic - not syncing: VFS: Unable to mount root fs\n")
		h := s.world.Host(s.world.Cloud().InstanceIP(id))
		h.PanicAtBoot(true)
		r := s.resume(quiet)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "3.6-reboot", r.Step)
		assert.Contains(t, r.Reason, "the cloud calls instance "+id+" Running")
		require.Contains(t, r.Reason, "console output: blobs/")
		_, ref, _ := strings.Cut(r.Reason, "console output: blobs/")
		console, err := os.ReadFile(filepath.Join(s.run, "blobs", ref[:64]))
		require.NoError(t, err)
		assert.Contains(t, string(console), "Kernel panic")
		assert.NotContains(t, r.Reason, "panic")
	})
}

// A grown site: five disks, two CLBs with a default group, VServer groups on
// three ports and a rule, an ALB and an NLB, access logs of some of them.
func TestWideTransition(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{Wide: true, Rate: 60}, nil, nil)
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		assert.Len(t, p.Facts.Disks, 5)
		assert.Len(t, p.Facts.Memberships, 8)
		r := s.apply(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		f := s.end("succeeded")
		assert.Equal(t, 12, f.Created, "five snapshots twice, an image, an instance")

		// Every listener is in the evidence, each with what it rests on.
		h, err := engine.Read(s.run)
		require.NoError(t, err)
		for _, id := range []string{"4.3-silence", "4.9-silence"} {
			var silence upgrade.Silence
			require.NoError(t, json.Unmarshal(h.StepByID(id).Result, &silence))
			by := map[string]int{}
			for _, b := range silence.Logs {
				for _, l := range b.Listeners {
					by[l.Evidence]++
					assert.Equal(t, l.Evidence == slb.ByConnections, l.Reason != "", "%s %d: %s", b.LoadBalancerID, l.Port, l.Reason)
				}
			}
			assert.Equal(t, map[string]int{slb.ByAccessLog: 4, slb.ByConnections: 3}, by, id)
		}
	})
}
