package upgrade

import (
	"context"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.3 and 5.2, which keep the floating address where it is while the
// new machines are made.

// holdKeepalived keeps the new machines from ever answering for the floating
// address before they are as good as the old ones.
func (r *rebuild) holdKeepalived() engine.Step {
	return engine.Step{
		ID: "3.3-hold", Section: "3.3", Effect: engine.SetState, NoUndo: "the new machines go as a whole",
		Title:   "hold keepalived down on the new machines, before it is installed",
		Lines:   []string{"released in 7, one by one, when haproxy.cfg compares equal and the machine has its final address"},
		Observe: observeByDoing,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if r.c.VIP == "" {
				return engine.Proposal{NotApplicable: "these nodes have no floating address"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.holdAll(ctx, a)
		},
	}
}

func (r *rebuild) holdAll(ctx context.Context, a *engine.Act) error {
	for _, n := range r.nodes() {
		node, _, m, err := r.fresh(a, n, n.Address)
		if err != nil {
			return err
		}
		want, err := m.identity()
		if err != nil {
			return err
		}
		if err := node.HoldKeepalived(ctx, want); err != nil {
			return fmt.Errorf("new %s: %w", n.Name, err)
		}
	}
	return nil
}

// checkHeld sees that keepalived is held on every new machine that has not
// been switched.
func (r *rebuild) checkHeld(ctx context.Context, a *engine.Act) error {
	if r.c.VIP == "" {
		return nil
	}
	for i, n := range r.nodes() {
		var done Machine
		if ok, err := a.Result(r.sec(i)+"-address", &done); err != nil {
			return err
		} else if ok {
			continue
		}
		node, _, _, err := r.fresh(a, n, n.Address)
		if err != nil {
			return err
		}
		k, err := node.GetKeepalived(ctx)
		if err != nil {
			return fmt.Errorf("new %s: %w", n.Name, err)
		}
		if !k.Held || k.Active {
			return fmt.Errorf("keepalived is not held down on the new %s at %s (held %t, running %t): it may take the floating address from those that serve", n.Name, n.Address, k.Held, k.Active)
		}
	}
	return nil
}

// checkFloating looks once more at what the packages may have moved.
func (r *rebuild) checkFloating() engine.Step {
	return engine.Step{
		ID: "5.2-floating", Section: "5.2", Effect: engine.ReadOnly,
		Title: "the packages have moved nothing: the old machines hold the floating address, and the console answers",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := r.checkHeld(ctx, a); err != nil {
				return nil, err
			}
			if r.c.VIP == "" {
				return nil, nil
			}
			if err := r.watchFor(ctx, a, r.cfg.Pace.Observe); err != nil {
				return nil, err
			}
			holder, err := r.holderNow(ctx, a)
			return map[string]string{"holder": holder}, err
		},
	}
}

// watchFor blocks until serves has held so many times in a row.
func (r *rebuild) watchFor(ctx context.Context, a *engine.Act, samples int) error {
	for range (samples + 2) / 3 {
		if err := r.waitServes(ctx, a); err != nil {
			return err
		}
	}
	return nil
}
