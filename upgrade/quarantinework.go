package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Section 3.4, and 3.9-groups: the first boot of the transition host, and the
// end of its quarantine.

// quarantine gives what 3.3 has put into the transition host's user data.
func (t *transition) quarantine(a *engine.Act) (QuarantinePlan, error) {
	var p cloneParams
	ok, err := a.ParamsOf("3.3-clone", &p)
	if err == nil && !ok {
		err = errors.New("internal error: step 3.3-clone recorded no parameters")
	}
	return p.Quarantine, err
}

// bootedBefore says why nothing is held back on an adopted transition host.
func (t *transition) bootedBefore() string {
	return "transition host " + t.cfg.Transition.Instance + " is adopted: it has booted before the run"
}

// checkQuarantine proves, before anything else happens on the transition host,
// that what must not run on a copy does not.
func (t *transition) checkQuarantine() engine.Step {
	return engine.Step{
		ID: "3.4-quarantine", Section: "3.4", Effect: engine.ReadOnly,
		Title: "nothing runs on the transition host that must run once only",
		Lines: when(!t.adopted(), "units, processes, timers, addresses, host name and machine ID of an inventory; the units of 3.3 are inactive and held back"),
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.adopted() {
				return engine.Proposal{NotApplicable: t.bootedBefore()}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			p, err := t.quarantine(a)
			if err != nil {
				return nil, err
			}
			before, err := recordedInventory(a)
			if err != nil {
				return nil, err
			}
			_, l, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			// Units that cloud-init found running take a moment to stop.
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			tick := time.NewTicker(t.cfg.Pace.Sample)
			defer tick.Stop()
			var last error
			for {
				err := t.quarantined(ctx, l, before, p)
				if err == nil {
					return map[string]int{"units": len(p.Units)}, nil
				}
				if hostos.IsWrongKey(err) {
					return nil, err
				}
				if ctx.Err() == nil {
					last = err
				}
				select {
				case <-ctx.Done():
					return nil, fmt.Errorf("the transition host runs what must run once only; it gets no traffic: put that right and resume, or roll back: %w (last: %v)", ctx.Err(), last)
				case <-tick.C:
				}
			}
		},
	}
}

// quarantined looks once.
func (t *transition) quarantined(ctx context.Context, l *link, before *hostinv.Inventory, p QuarantinePlan) error {
	if len(p.Units) > 0 {
		script, err := p.ecs().CheckScript()
		if err != nil {
			return err
		}
		var out, stderr bytes.Buffer
		if err := l.Run(ctx, "/bin/sh -c "+shellq.Quote(script), nil, &out, &stderr); err != nil {
			return fmt.Errorf("host %s: %w: %s", l.target, err, strings.TrimSpace(stderr.String()))
		}
		if bad := p.ecs().NotHeld(out.Bytes()); len(bad) > 0 {
			hint := ""
			if strings.Contains(strings.Join(bad, " "), " free") {
				hint = " (cloud-init has not run the user data; is it installed, and on?)"
			}
			return errors.New(strings.Join(bad, ", ") + hint)
		}
	}
	now, err := hostinv.Collect(ctx, l, hostinv.Options{})
	if err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	if bad := quarantineRuns(now, before, p, t.cfg); len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// releaseUnits lets go what the services of the plan need, when the first boot
// is proved to have done no harm. The rest stays held back for as long as the
// transition host lives.
func (t *transition) releaseUnits() engine.Step {
	plan := PlanQuarantine(t.p.Facts.Inventory, t.cfg)
	released := func(u HeldUnit) bool { return u.Released }
	s := engine.Step{
		ID: "3.4-release", Section: "3.4", Effect: engine.SetState,
		Title:  "let go on the transition host what its services need",
		NoUndo: "the transition host is released as a whole",
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.adopted() {
				return engine.Proposal{NotApplicable: t.bootedBefore()}, nil
			}
			p, err := t.quarantine(a)
			if err == nil && len(p.names(released)) == 0 {
				return engine.Proposal{NotApplicable: "the services need nothing that is held back"}, nil
			}
			return engine.Proposal{Params: p}, err
		},
		// Letting go what is free, and starting what runs, does nothing.
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p QuarantinePlan
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			_, l, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			script, err := p.ecs().ReleaseScript(p.names(released)...)
			if err != nil {
				return nil, err
			}
			for _, u := range p.names(func(u HeldUnit) bool { return u.Engine }) {
				script += "systemctl start " + shellq.Quote(u) + "\n"
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			var stderr bytes.Buffer
			if err := l.held().Run(ctx, "/bin/sh -c "+shellq.Quote(script), nil, nil, &stderr); err != nil {
				return nil, fmt.Errorf("host %s: cannot release %s: %w: %s", l.target, strings.Join(p.names(released), ", "), err, strings.TrimSpace(stderr.String()))
			}
			return nil, nil
		},
	}
	if !t.adopted() {
		for _, u := range plan.Units {
			if u.Released {
				s.Lines = append(s.Lines, u.Unit+map[bool]string{true: ", and start it"}[u.Engine])
			}
		}
	}
	return s
}

type groupParams struct {
	InstanceID string   `json:"instance_id"`
	Groups     []string `json:"groups"`
}

// joinGroups ends the transition host's isolation, right before traffic
// reaches it.
func (t *transition) joinGroups() engine.Step {
	alone := t.cfg.Transition.Quarantine.groups()
	return engine.Step{
		ID: "3.9-groups", Section: "3.9", Effect: engine.SetState,
		Title: "give the transition host production's security groups",
		Lines: when(len(alone) > 0, "ecs JoinSecurityGroup "+strings.Join(t.p.Facts.Instance.SecurityGroups, ", ")+"; LeaveSecurityGroup "+strings.Join(alone, ", ")),
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if len(alone) == 0 {
				return engine.Proposal{NotApplicable: "it has them from the beginning"}, nil
			}
			c, _, err := t.clone(a)
			return engine.Proposal{Params: groupParams{c.InstanceID, t.p.Facts.Instance.SecurityGroups}}, err
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p groupParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			return nil, t.e.ECS.SetSecurityGroups(ctx, p.InstanceID, p.Groups)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p groupParams
			if err := a.Params(&p); err != nil {
				return err
			}
			err := t.e.ECS.SetSecurityGroups(ctx, p.InstanceID, alone)
			if errors.Is(err, ecs.ErrNotFound) {
				return nil
			}
			return err
		},
	}
}
