package hostos

import (
	"context"
	"fmt"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// StopService stops s and waits until it is gone, asking every o.Poll. A
// process that ignores SIGTERM until ctx or its StopTimeout ends is an error:
// killing it would cut what it is still serving, and that is a person's
// decision.
func StopService(ctx context.Context, h Host, s Service, o ServiceOptions) error {
	ctx, cancel := within(ctx, s.StopTimeout)
	defer cancel()
	st, err := state(ctx, h, s)
	if err != nil {
		return err
	}
	switch {
	case st == gone:
		return nil
	case s.ByHand() && s.Stop != "":
		_, err = output(ctx, h, asUser(s, s.Stop), nil)
	case s.ByHand():
		_, err = servicePIDs(ctx, h, s, true)
	case s.Kind == Compose:
		_, err = output(ctx, h, "cd "+shellq.Quote(s.Dir)+" && docker-compose stop", nil)
	case s.Kind == Container:
		_, err = output(ctx, h, "docker stop "+shellq.Quote(s.Container), nil)
	case s.Kind == Unit:
		_, err = output(ctx, h, "systemctl stop "+shellq.Quote(s.Unit), nil)
	case s.Kind == Supervisor:
		_, err = output(ctx, h, "supervisorctl stop "+shellq.Quote(s.Program)+" </dev/null >&2 || [ $? -lt 64 ]", nil)
	}
	if err != nil {
		return fmt.Errorf("cannot stop service %s: %w", s.Name, err)
	}
	t := newTicker(o.Poll)
	defer t.Stop()
	for {
		st, err := state(ctx, h, s)
		if err == nil && st == gone {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("service %s still runs after it was asked to stop: %w", s.Name, context.Cause(ctx))
		case <-t.C:
		}
	}
}
