package hostos

import (
	"context"
	"fmt"

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
		return startKept(ctx, h, s, o.Restart)
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
		s := s
		cmd = asUser(s, "setsid /bin/sh -c "+shellq.Quote(s.Start)+" >/dev/null 2>&1 </dev/null &")
	case Compose:
		cmd = "cd " + shellq.Quote(s.Dir) + " && docker-compose up -d"
	case Container:
		cmd = "docker start " + shellq.Quote(s.Container)
	case Unit:
		cmd = "systemctl start " + shellq.Quote(s.Unit)
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
