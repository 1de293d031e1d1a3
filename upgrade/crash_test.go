package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
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
// there is what was there at that moment. It counts what the process does:
// calls of the cloud's API and commands on hosts, once they are carried out and
// before it learns of it, and journal records, once they are on disk.
type killer struct {
	at     int                    // which of the events kills; 0 = none
	only   func(what string) bool // tells events that only look; nil = looks
	dir    string
	cancel context.CancelFunc

	mu     sync.Mutex
	events []string
	dead   bool
	saved  string // copy of dir
	conns  map[net.Conn]struct{}
}

func (k *killer) happened(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	only := looks
	if k.only != nil {
		only = k.only
	}
	if k.dir == "" || k.dead || only(what) {
		return
	}
	if k.events = append(k.events, what); len(k.events) != k.at {
		return
	}
	k.dead = true
	if err := os.CopyFS(k.saved, os.DirFS(k.dir)); err != nil {
		panic(err)
	}
	for c := range k.conns {
		c.Close()
	}
	k.cancel()
}

// begin arms the killer: what planning does is not counted.
func (k *killer) begin(dir, saved string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dir, k.saved = dir, saved
}

// looks tells events that change nothing: a process killed after one leaves
// the same world as one killed before it.
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
	for _, read := range []string{":", "cat /proc/", "s=0\nfor p in /proc/", "f=/run/nginx.pid\n", "/bin/sh -s", "docker inspect ", "nginx -t ", "command -v ", "for f in /etc/nginx/", "for f in /var/lib/yum/transaction-all.", "cd /srv/shop && ids="} {
		if strings.HasPrefix(command, read) {
			return true
		}
	}
	return false
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

func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	var events []string
	synctest.Test(t, func(t *testing.T) {
		events = killedRun(t, 0, nil)
	})
	t.Logf("%d events", len(events))
	for at := 1; at <= len(events); at++ {
		if (at-1)%stride(8, 150) != 0 {
			continue
		}
		name := fmt.Sprintf("%d %.60q", at, events[at-1])
		t.Run("resume "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				killedRun(t, at, func(s *stage) string {
					return resumed(s)
				})
			})
		})
		t.Run("rollback "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				killedRun(t, at, func(s *stage) string {
					return backed(s)
				})
			})
		})
	}
}

var quiet = upgrade.RunOptions{ApproveAll: true, Observer: func(upgrade.Event) {}}

// resumed takes a killed run to its end, unless the end was on disk already.
func resumed(s *stage) string {
	s.t.Helper()
	r, err := upgrade.Resume(s.t.Context(), s.run, s.options(quiet))
	if errors.Is(err, engine.ErrFinished) {
		return "succeeded"
	}
	require.NoError(s.t, err)
	require.Equal(s.t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	return r.State
}

// TestKilledTwice kills the process that goes on as well: at every event after
// every event with UPGRADECTL_MATRIX=all, at a seeded sample of them otherwise.
func TestKilledTwice(t *testing.T) {
	t.Parallel()
	const seed = 20261122
	n := 0
	synctest.Test(t, func(t *testing.T) { n = len(killedRun(t, 0, nil)) })
	type pair struct {
		first, second int
		back          bool // the second life and what follows is a rollback
	}
	run := func(t *testing.T, p pair) (killed bool) {
		synctest.Test(t, func(t *testing.T) {
			killedRun(t, p.first, func(s *stage) string {
				killed = s.killer.life(s, p.second, p.back)
				if !p.back {
					return resumed(s)
				}
				return backed(s)
			})
		})
		return killed
	}
	name := func(p pair) string {
		return fmt.Sprintf("%s %d %d", map[bool]string{false: "resume", true: "rollback"}[p.back], p.first, p.second)
	}
	if os.Getenv("UPGRADECTL_MATRIX") == "all" {
		for first := 1; first <= n; first++ {
			for _, back := range []bool{false, true} {
				for second, killed := 1, true; killed; second++ {
					p := pair{first, second, back}
					t.Run(name(p), func(t *testing.T) { killed = run(t, p) })
				}
			}
		}
		return
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for range 60 / stride(3, 60) {
		p := pair{1 + random.IntN(n), 1 + random.IntN(n/2), random.IntN(3) == 0}
		t.Run(name(p), func(t *testing.T) {
			t.Parallel()
			run(t, p)
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
	s.t.Log(err)
	if errors.Is(err, engine.ErrRollbackFirst) {
		require.NoError(s.t, err)
	}
	return resumed(s)
}

// life is one process that goes on with the run of s and is killed at its event
// number at; it tells whether it lived so long.
func (k *killer) life(s *stage, at int, back bool) bool {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	k.mu.Lock()
	k.at, k.events, k.dead, k.cancel, k.conns = at, nil, false, cancel, map[net.Conn]struct{}{}
	k.saved = s.t.TempDir() + "/run"
	k.mu.Unlock()
	call := upgrade.Resume
	if back {
		call = upgrade.Rollback
	}
	r, err := call(ctx, s.run, k.options(s))
	k.mu.Lock()
	k.at = 0 // who goes on after it is not killed
	k.mu.Unlock()
	if k.dead {
		require.NoError(s.t, os.RemoveAll(s.run))
		require.NoError(s.t, os.Rename(k.saved, s.run))
		return true
	}
	// It came to its end first, or there was nothing to do any more.
	if err != nil && !errors.Is(err, engine.ErrFinished) && !errors.Is(err, engine.ErrPastReturn) {
		require.NoError(s.t, err)
	}
	if err == nil {
		require.Contains(s.t, []string{"succeeded", "rolled-back", "parked"}, r.State, "%s: %s", r.Step, r.Reason)
	}
	return false
}

// options let the killer see and end what a process does.
func (k *killer) options(s *stage) upgrade.RunOptions {
	o := quiet
	o.Observer = func(e upgrade.Event) { k.happened(fmt.Sprintf("journal %s %s", e.Kind, e.Step)) }
	o = s.options(o)
	a := *o.Access
	a.NetDial = k.dial(a.NetDial)
	o.Access = &a
	return o
}

func killedRun(t *testing.T, at int, after func(*stage) string) []string {
	end := "succeeded"
	k := &killer{at: at, conns: map[net.Conn]struct{}{}}
	s := newStageIn(t, sim.Config{Rate: 5, Happened: k.happened}, nil, nil)
	s.killer = k
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(t.Context())
	defer k.cancel()
	k.begin(s.run, t.TempDir()+"/run")
	r, err := upgrade.Apply(ctx, s.run, "t1", s.plan, k.options(s))
	if !k.dead {
		// The number of events differs by one or two from run to run: the last
		// ones may not come.
		require.NoError(t, err)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	} else {
		require.NoError(t, os.RemoveAll(s.run))
		require.NoError(t, os.Rename(k.saved, s.run))
		end = after(s)
	}
	f := s.end(end)
	assert.LessOrEqual(t, f.Created, 6)
	if end == "succeeded" {
		assert.Equal(t, 6, f.Created)
	}
	return k.events
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
