package hostos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// StartService starts s where it does not run yet. It returns when the start
// command has returned, for Java and Process when it is launched; use WaitWarm
// for the service itself.
func StartService(ctx context.Context, h Host, s Service, o ServiceOptions) error {
	if s.kept() {
		if err := s.Check(); err != nil {
			return err
		}
		_, err := restarts{RestartDir}.start(ctx, h, s, o.Restart)
		if errors.Is(err, ErrNoRestart) {
			// They go when everything runs: this may be the start after that.
			if up, uerr := ServiceRunning(ctx, h, s); up || uerr != nil {
				return uerr
			}
		}
		return err
	}
	up, err := ServiceRunning(ctx, h, s)
	if err != nil || up {
		return err
	}
	var cmd string
	switch s.Kind {
	case Java, Process:
		// Everything is redirected, so that the process keeps no handle of our
		// session, and setsid takes it out of the session's process group. The
		// directory is entered outside the background job: that it is missing
		// must be seen.
		cmd = asUser(s, "setsid /bin/sh -c "+shellq.Quote(s.Start)+" >/dev/null 2>&1 </dev/null &")
	case Compose:
		// Nothing that is there is made anew: a container whose file has changed, or
		// that another version of Compose made, would lose what was written into it.
		cmd = compose(s.Dir, "up -d --no-recreate", "up -d --no-recreate")
	case Container:
		cmd = "docker start " + shellq.Quote(s.Container)
	case Unit:
		cmd = "systemctl start " + shellq.Quote(s.Unit) + " || exit\n" + triggers(s.Unit) + `for x in $t; do if systemctl is-enabled "$x" >/dev/null; then systemctl start "$x" || exit; fi; done`
	case Supervisor:
		// It fails for a program that is starting already; what runs in the end
		// is seen by its state.
		cmd = "supervisorctl start " + shellq.Quote(s.Program) + " </dev/null >&2 || [ $? -lt 64 ]"
	}
	if _, err := output(ctx, h, cmd, nil); err != nil {
		return fmt.Errorf("cannot start service %s: %w", s.Name, err)
	}
	return nil
}

// waitBooted blocks until the host has started everything that it starts by
// itself: what rc.local or a slow unit is about to start must not be started a
// second time. A host without systemd is taken as booted.
func waitBooted(ctx context.Context, h Host, o ServiceOptions) error {
	t := newTicker(o.Poll)
	defer t.Stop()
	for {
		out, err := output(ctx, h, "[ ! -d /run/systemd/system ] || systemctl is-system-running 2>/dev/null || :", nil)
		if err != nil {
			return fmt.Errorf("cannot see whether the host has booted: %w", err)
		}
		state := strings.TrimSpace(out)
		if state != "starting" && state != "initializing" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the host is still %q; systemctl list-jobs says what it waits for: %w", state, context.Cause(ctx))
		case <-t.C:
		}
	}
}

// checkTwice refuses a service of which more processes run than were kept:
// something else starts it too, and had not done so when it was looked at.
func checkTwice(ctx context.Context, h Host, s Service, o ServiceOptions) error {
	want, err := restarts{RestartDir}.start(ctx, h, s, o.Restart)
	if errors.Is(err, ErrNoRestart) {
		return nil // it ran already, and how often it ran before is not known
	}
	if err != nil {
		return err
	}
	ids, err := servicePIDs(ctx, h, s, false)
	if err != nil {
		return err
	}
	if len(ids) > want {
		return fmt.Errorf("service %s runs %d times and ran %d times before (processes %s): something else starts it too, see rc.local and cron; stop the ones too many", s.Name, len(ids), want, listed(ids, 10))
	}
	return nil
}
