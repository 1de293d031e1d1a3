package hostos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/upgradectl/upgradectl/hostinv"
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
		_, err = output(ctx, h, compose(s.Dir, "stop", "stop"), nil)
	case s.Kind == Container:
		_, err = output(ctx, h, "docker stop "+shellq.Quote(s.Container), nil)
	case s.Kind == Unit:
		_, err = output(ctx, h, triggers(s.Unit)+"systemctl stop $t "+shellq.Quote(s.Unit), nil)
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
			return fmt.Errorf("service %s still runs after it was asked to stop: %w%s", s.Name, context.Cause(ctx), connected(ctx, h, s))
		case <-t.C:
		}
	}
}

// triggers sets t to the sockets, timers and paths that start a unit: it would
// be back with the next connection while production is off.
func triggers(unit string) string {
	return "set -f\nt=$(systemctl show -p TriggeredBy " + shellq.Quote(unit) + ")\nt=${t#TriggeredBy=}\n"
}

// connected says who still has connections to the ports of a service that does
// not end: as a rule it is still serving them.
func connected(ctx context.Context, h Host, s Service) string {
	if len(s.Ports) == 0 || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*probeTime)
	defer cancel()
	conns, err := hostinv.ListConnections(ctx, h)
	if err != nil {
		return "; who is still connected is not known: " + err.Error()
	}
	n := map[string]int{}
	for _, c := range conns {
		if c.State == "ESTABLISHED" && slices.Contains(s.Ports, c.LocalPort) {
			n[c.RemoteIP]++
		}
	}
	if len(n) == 0 {
		return "; nobody is connected to it any more"
	}
	var who []string
	for _, ip := range slices.Sorted(maps.Keys(n)) {
		who = append(who, fmt.Sprintf("%s (%d)", ip, n[ip]))
	}
	return "; still connected: " + listed(who, 10)
}
