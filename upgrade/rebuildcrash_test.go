package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// changes finds the commands of a rebuild that change something. Whatever has
// none of these words only looks.
var changes = regexp.MustCompile(`(^|[\s;&|({/])(mv|rm|mkdir|cp|chmod|chown|ln|touch|setsid|systemd-run|shutdown|service|mask|unmask|stop|start|reload|autostart|define|undefine|destroy)\s|arping -[UA]|ssh-keygen \S* ?-R|(^|[^0-9&])>"?[$/]|>>`)

// looksOnly tells events of a rebuild that change nothing: a process killed
// after one leaves the same world as one killed before it.
func looksOnly(what string) bool {
	kind, text, _ := strings.Cut(what, " ")
	if kind == "journal" {
		return strings.HasPrefix(text, "progress ")
	}
	_, command, _ := strings.Cut(text, " ")
	if strings.HasPrefix(command, "case \"$(cat /var/lib/upgradectl/lease") {
		_, command, _ = strings.Cut(command, "\n") // the lease's guard
	}
	if strings.HasPrefix(command, "cd /var/lib/upgradectl\necho $(($(cat beat") || strings.HasPrefix(command, "/bin/sh -s") || strings.HasPrefix(command, "d=/var/lib/upgradectl/") && strings.Contains(command, "ended()") {
		return true
	}
	command = strings.NewReplacer("2>/dev/null", "", ">/dev/null", "", "</dev/null", "", "2>&1", "", ">&2", "").Replace(command)
	return !changes.MatchString(command)
}

// Killed at any point, a rebuild that is resumed replaces both proxies, and one
// that is rolled back leaves the old pair.
func TestRebuildKilledAnywhere(t *testing.T) {
	t.Parallel()
	var events []string
	synctest.Test(t, func(t *testing.T) {
		events = killedRebuild(t, 0, nil)
	})
	t.Logf("%d events", len(events))
	for at := 1; at <= len(events); at++ {
		if (at-1)%stride(31, 200) != 0 {
			continue
		}
		name := fmt.Sprintf("%d %.60q", at, events[at-1])
		t.Run("resume "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				killedRebuild(t, at, resumedRebuild)
			})
		})
		t.Run("rollback "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				killedRebuild(t, at, func(s *rebuildStage) string {
					r, err := upgrade.Rollback(t.Context(), s.run, s.options(quiet))
					if errors.Is(err, engine.ErrPastReturn) || errors.Is(err, engine.ErrFinished) {
						return resumedRebuild(s)
					}
					require.NoError(t, err)
					require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
					return r.State
				})
			})
		})
	}
}

// resumedRebuild takes a killed run to its end, unless the end was on disk
// already.
func resumedRebuild(s *rebuildStage) string {
	s.t.Helper()
	r, err := upgrade.Resume(s.t.Context(), s.run, s.options(quiet))
	if errors.Is(err, engine.ErrFinished) {
		return "succeeded"
	}
	require.NoError(s.t, err)
	require.Equal(s.t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	return r.State
}

func killedRebuild(t *testing.T, at int, after func(*rebuildStage) string) []string {
	end := "succeeded"
	k := &killer{at: at, only: looksOnly, conns: map[net.Conn]struct{}{}}
	s := newRebuildStage(t, sim.RebuildConfig{Rate: 5, Happened: k.happened}, nil, nil)
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
		require.NoError(t, err)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
	} else {
		require.NoError(t, os.RemoveAll(s.run))
		require.NoError(t, os.Rename(k.saved, s.run))
		end = after(s)
	}
	s.end(end)
	return k.events
}
