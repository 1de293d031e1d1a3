package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// A killer ends an operator's process as kill -9 does: from one moment on no
// byte of it reaches the world, no answer reaches it, and of its run directory
// there is what was there at that moment. It sees what the process does: calls
// of the cloud's API and commands on hosts, once they are carried out and before
// it learns of it, and journal records, once they are on disk.
type killer struct {
	at      point                  // where it kills; the zero point: nowhere
	changes func(what string) bool // whether an event changed anything; nil = none is noted
	dir     string
	cancel  context.CancelFunc

	mu    sync.Mutex
	seen  map[string]int    // how often each event came
	names map[string]string // of events: themselves, with what is random in them masked
	notes []point           // the events that changed something, in order
	dead  bool
	saved string // copy of dir
	conns map[net.Conn]struct{}
}

// A point is a moment in the life of a process: after its nth event of a kind.
// Events that change nothing come more or less often from run to run.
type point struct {
	what string // with what is random in it masked; "" = any event that changed something
	nth  int
}

func (p point) String() string { return fmt.Sprintf("%.60q %d", p.what, p.nth) }

// masked are the parts of commands that are others in every run.
var masked = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{12,}|([0-9a-f]{2}:){5}[0-9a-f]{2}|\.upgradectl-[a-z2-7]{12}\b`)

func (k *killer) happened(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dir == "" || k.dead {
		return
	}
	if kind, text, _ := strings.Cut(what, " "); kind == "journal" && (strings.HasPrefix(text, "progress ") || strings.HasPrefix(text, "effect ")) {
		return // told to the operator, not written down
	}
	name, known := k.names[what]
	if !known {
		name = masked.ReplaceAllString(what, "*")
		k.names[what] = name
	}
	k.seen[name]++
	here := point{name, k.seen[name]}
	if k.changes != nil && k.changes(what) {
		k.notes = append(k.notes, here)
		if k.at == (point{nth: len(k.notes)}) {
			here = k.at
		}
	}
	if here != k.at {
		return
	}
	k.dead = true
	k.save()
	for c := range k.conns {
		c.Close()
	}
	k.cancel()
}

// save copies what is on disk. A file that another goroutine of the process puts
// under its name meanwhile makes the copy begin anew.
func (k *killer) save() {
	for {
		err := os.CopyFS(k.saved, os.DirFS(k.dir))
		if err == nil {
			return
		}
		if gone := os.RemoveAll(k.saved); gone != nil || !errors.Is(err, fs.ErrNotExist) {
			panic(errors.Join(err, gone))
		}
	}
}

// begin arms the killer: what planning does is not counted.
func (k *killer) begin(dir, saved string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dir, k.saved = dir, saved
	k.seen, k.names, k.conns = map[string]int{}, map[string]string{}, map[net.Conn]struct{}{}
}

// changesOf tells the events that changed something in the world of s: a process
// killed after any other leaves the same world, and the same journal, as one
// killed before it. Commands are judged by what they did, not by their words.
func changesOf(s *stage) func(what string) bool {
	heartbeat := func(file string) bool { return file == "/var/lib/upgradectl/beat" }
	last := map[string]string{}
	for _, addr := range []string{"172.31.0.5", "172.31.0.6", "172.31.0.90"} {
		last[addr] = s.world.Host(addr).Digest(heartbeat)
	}
	return func(what string) bool {
		kind, text, _ := strings.Cut(what, " ")
		switch kind {
		case "api":
			return !isRead(text)
		case "ssh":
			addr, _, _ := strings.Cut(text, " ")
			was := last[addr]
			last[addr] = s.world.Host(addr).Digest(heartbeat)
			return last[addr] != was
		}
		return true
	}
}

func (k *killer) dial(netDial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := netDial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.dead {
			c.Close()
			return nil, errors.New("killed")
		}
		k.conns[c] = struct{}{}
		return c, nil
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// stride is how many schedules of a matrix are passed over for one that runs:
// 1 with UPGRADECTL_MATRIX=all, as make crash has it. Under the race detector,
// which makes each schedule many times as long, and at a desk a few stand for
// all.
func stride(slow, quick int) int {
	switch {
	case os.Getenv("UPGRADECTL_MATRIX") == "all":
		return 1
	case testenv.RunSlow() && !raceDetector:
		return slow
	}
	return quick
}

// Killed after any change, of the world or of the journal, a run is resumed to
// its end and rolled back to its beginning.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	var points []point
	synctest.Test(t, func(t *testing.T) {
		points = killedRun(t, point{}, nil)
	})
	everyPoint(t, points, 150, func(t *testing.T, at point, back bool) (met bool) {
		killedRun(t, at, func(s *stage) string {
			met = true
			if back {
				return backed(s)
			}
			return resumed(s)
		})
		return met
	})
}

// sampled are n of the points, all of them with UPGRADECTL_MATRIX=all.
func sampled(points []point, n int) []point {
	const seed = 20261122
	if os.Getenv("UPGRADECTL_MATRIX") == "all" {
		return points
	}
	points = slices.Clone(points)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	return points[:min(n, len(points))]
}

// everyPoint kills at each of the points, goes on once forwards and once back,
// and says how many schedules that was. Of a run that is told to be killed at a
// point and never comes to it nothing is learnt: hardly any may be like that.
func everyPoint(t *testing.T, points []point, quick int, run func(t *testing.T, at point, back bool) (met bool)) {
	t.Helper()
	var ran, missed atomic.Int32
	t.Cleanup(func() {
		t.Logf("%d points, %d schedules ran, %d did not come to their point", len(points), ran.Load(), missed.Load())
		assert.LessOrEqual(t, int(missed.Load()), max(1, int(ran.Load())/20), "what is random in events has to be masked")
	})
	for i, at := range points {
		if i%stride(1, quick) != 0 {
			continue
		}
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %d %s", map[bool]string{false: "resume", true: "rollback"}[back], i+1, at), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					ran.Add(1)
					if !run(t, at, back) {
						missed.Add(1)
						t.Logf("did not come to %s", at)
					}
				})
			})
		}
	}
}

var quiet = upgrade.RunOptions{ApproveAll: true, Observer: func(upgrade.Event) {}}

// resumed takes a killed run to its end, unless the end was on disk already.
func resumed(s *stage) string {
	s.t.Helper()
	return resumedRun(s.t, s.run, s.options(quiet))
}

func resumedRun(t *testing.T, run string, o upgrade.RunOptions) string {
	t.Helper()
	r, err := upgrade.Resume(t.Context(), run, o)
	if errors.Is(err, engine.ErrFinished) {
		return "succeeded"
	}
	require.NoError(t, err)
	require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	return r.State
}

// TestKilledTwice kills the process that goes on as well: at every event after
// every event with UPGRADECTL_MATRIX=all, at a seeded sample of them otherwise.
func TestKilledTwice(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	var points []point
	synctest.Test(t, func(t *testing.T) { points = killedRun(t, point{}, nil) })
	everyPair(t, len(points), 60/stride(3, 60), func(t *testing.T, p pair) (killed bool) {
		killedRun(t, points[p.first-1], func(s *stage) string {
			killed = s.killer.life(t, s.run, s.options(s.killer.observed()), changesOf(s), p)
			if !p.back {
				return resumed(s)
			}
			return backed(s)
		})
		return killed
	})
}

// A pair of deaths: of the process that began, and of the one that goes on.
type pair struct {
	first, second int
	back          bool // the second life and what follows is a rollback
}

func (p pair) String() string {
	return fmt.Sprintf("%s %d %d", map[bool]string{false: "resume", true: "rollback"}[p.back], p.first, p.second)
}

// everyPair runs all pairs of deaths whose first is at one of n points, or a
// sample of them.
func everyPair(t *testing.T, n, sample int, run func(t *testing.T, p pair) (killed bool)) {
	t.Helper()
	const seed = 20261122
	if os.Getenv("UPGRADECTL_MATRIX") == "all" {
		for first := 1; first <= n; first++ {
			for _, back := range []bool{false, true} {
				for second, killed := 1, true; killed; second++ {
					p := pair{first, second, back}
					t.Run(p.String(), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { killed = run(t, p) })
					})
				}
			}
		}
		return
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for range sample {
		p := pair{1 + random.IntN(n), 1 + random.IntN(n/2), random.IntN(3) == 0}
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { run(t, p) })
		})
	}
}

// backed takes a killed run back, and one that is past its return to its end.
func backed(s *stage) string {
	r, err := upgrade.Rollback(s.t.Context(), s.run, s.options(quiet))
	if err == nil && r.State == "rolled-back" {
		return r.State
	}
	if err == nil {
		require.Equal(s.t, "parked", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		return r.State
	}
	if !errors.Is(err, engine.ErrFinished) {
		require.ErrorIs(s.t, err, engine.ErrPastReturn)
	}
	return resumed(s)
}

// life is one process that goes on with a run and is killed at its change number
// p.second; it tells whether it lived so long.
func (k *killer) life(t *testing.T, run string, o upgrade.RunOptions, changes func(what string) bool, p pair) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k.begin(run, t.TempDir()+"/run")
	k.mu.Lock()
	k.at, k.notes, k.dead, k.cancel, k.changes = point{nth: p.second}, nil, false, cancel, changes
	k.mu.Unlock()
	call := upgrade.Resume
	if p.back {
		call = upgrade.Rollback
	}
	r, err := call(ctx, run, k.watch(o))
	k.mu.Lock()
	k.at, k.changes = point{}, nil // who goes on after it is not killed
	k.mu.Unlock()
	if k.dead {
		k.leave(t, run)
		return true
	}
	// It came to its end first, or there was nothing to do any more.
	if err != nil && !errors.Is(err, engine.ErrFinished) && !errors.Is(err, engine.ErrPastReturn) {
		require.NoError(t, err)
	}
	if err == nil {
		require.Contains(t, []string{"succeeded", "rolled-back", "parked"}, r.State, "%s: %s", r.Step, r.Reason)
	}
	return false
}

// observed are options with which the killer sees the journal.
func (k *killer) observed() upgrade.RunOptions {
	o := quiet
	o.Observer = func(e upgrade.Event) { k.happened(fmt.Sprintf("journal %s %s", e.Kind, e.Step)) }
	return o
}

// watch lets the killer cut a process off.
func (k *killer) watch(o upgrade.RunOptions) upgrade.RunOptions {
	a := *o.Access
	a.NetDial = k.dial(a.NetDial)
	o.Access = &a
	return o
}

// seldom makes a procedure look less often and take fewer steps between two
// weights: what that costs counts where hundreds of procedures run.
func seldom(yaml string) string {
	return slowly(yaml) + "health:\n  probes: 2\nweights:\n  up: [10]\n  down: [10]\n"
}

// slowly sets a pace at which hardly anything is looked at twice: each look is
// a command or a call, and that is what a schedule's time goes into.
func slowly(yaml string) string {
	for key, value := range map[string]string{"poll": "300ms", "sample": "600ms", "observe": "2", "healthy": "1"} {
		yaml = pace(key, value)(yaml)
	}
	return yaml
}

// killedRun is a run that is killed at a point, or at none, and what comes after
// it. It gives the points at which the process could have been killed, when it
// was not to be.
func killedRun(t *testing.T, at point, after func(*stage) string) []point {
	s, end := killedStage(t, at, nil, seldom, after)
	f := s.end(end)
	assert.LessOrEqual(t, f.Created, 6)
	if end == "succeeded" {
		assert.Equal(t, 6, f.Created)
	}
	return s.killer.notes
}

// killedStage is a stage whose run is killed at a point, or at none, and how
// what comes after it ended.
func killedStage(t *testing.T, at point, ready func(*sim.World), edit func(string) string, after func(*stage) string) (s *stage, end string) {
	k := &killer{at: at}
	s = newStageIn(t, sim.Config{Rate: 5, Speed: 240, Happened: k.happened}, ready, edit)
	s.killer = k
	if at == (point{}) {
		k.changes = changesOf(s)
	}
	return s, k.apply(t, s.run, s.plan, s.options(k.observed()), func() string { return after(s) })
}

// apply is the process that begins a run and is killed at k.at. It gives how the
// run ended: succeeded if the process lived, or what after, which goes on with
// what is left on disk, says.
func (k *killer) apply(t *testing.T, run string, plan []byte, o upgrade.RunOptions, after func() string) string {
	t.Helper()
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(t.Context())
	defer k.cancel()
	k.begin(run, t.TempDir()+"/run")
	r, err := upgrade.Apply(ctx, run, "t1", plan, k.watch(o))
	if k.dead {
		k.leave(t, run)
		return after()
	}
	require.NoError(t, err)
	require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	return "succeeded"
}

// leave makes the run directory what it was when the process was killed.
func (k *killer) leave(t *testing.T, run string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(run))
	require.NoError(t, os.Rename(k.saved, run))
}

// isRead tells actions of the API that change nothing.
func isRead(action string) bool {
	_, name, named := strings.Cut(action, ":")
	if named {
		action = name
	}
	for _, verb := range []string{"Describe", "List", "Get", "Check"} {
		if strings.HasPrefix(action, verb) {
			return true
		}
	}
	return false
}
