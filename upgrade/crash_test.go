package upgrade_test

import (
	"context"
	"errors"
	"fmt"
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
	at     int // which of the events kills; 0 = none
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
	if k.dir == "" || k.dead || looks(what) {
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
	for _, read := range []string{":", "cat /proc/", "s=0\nfor p in /proc/", "f=/run/nginx.pid\n", "/bin/sh -s", "docker inspect ", "nginx -t ", "command -v ", "for f in /etc/nginx/", "cd /srv/shop && ids="} {
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
		if (at-1)%stride(7, 150) != 0 {
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
					r, err := upgrade.Rollback(t.Context(), s.run, s.options(quiet))
					if err == nil && r.State == "rolled-back" {
						return r.State
					}
					if err == nil {
						require.Equal(t, "parked", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
						return r.State
					}
					t.Log(err)
					return resumed(s)
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

func killedRun(t *testing.T, at int, after func(*stage) string) []string {
	end := "succeeded"
	k := &killer{at: at, conns: map[net.Conn]struct{}{}}
	s := newStageIn(t, sim.Config{Rate: 5, Happened: k.happened}, nil, nil)
	o := quiet
	o.Observer = func(e upgrade.Event) { k.happened(fmt.Sprintf("journal %s %s", e.Kind, e.Step)) }
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(t.Context())
	defer k.cancel()
	k.begin(s.run, t.TempDir()+"/run")
	o = s.options(o)
	a := *o.Access
	a.NetDial = k.dial(a.NetDial)
	o.Access = &a
	r, err := upgrade.Apply(ctx, s.run, "t1", s.plan, o)
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
