package upgrade

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// The floating address: who holds it, who may, and what is served there.

// holder says which of the nodes has the floating address: exactly one may.
func (r *rebuild) holder(ctx context.Context, nodes ...*pitrix.Node) (string, error) {
	vip, err := netip.ParseAddr(r.c.VIP)
	if err != nil {
		return "", err
	}
	return pitrix.VIPHolder(ctx, vip, nodes...)
}

// holderNow asks those that serve.
func (r *rebuild) holderNow(ctx context.Context, a *engine.Act, without ...int) (string, error) {
	var nodes []*pitrix.Node
	for i := range r.f.Nodes {
		if slices.Contains(without, i) || slices.Contains(r.apart, i) {
			continue
		}
		node, _, err := r.serving(a, i)
		if err != nil {
			return "", err
		}
		nodes = append(nodes, node)
	}
	return r.holder(ctx, nodes...)
}

// serves says that the pair is seen to serve: one holder, and an answer.
func (r *rebuild) serves(ctx context.Context, a *engine.Act, without ...int) error {
	if r.c.VIP == "" {
		return nil
	}
	if _, err := r.holderNow(ctx, a, without...); err != nil {
		return err
	}
	return r.answered(ctx, r.c.VIP, r.f)
}

// waitServes blocks until serves holds three times in a row.
func (r *rebuild) waitServes(ctx context.Context, a *engine.Act, without ...int) error {
	return r.t.holds(ctx, r.cfg.Pace.Sample, "the floating address "+r.c.VIP+" is not served", func(ctx context.Context) error {
		return r.serves(ctx, a, without...)
	})
}

// moveFloating stops keepalived on the old machine, which gives the floating
// address up in order: its peer has it within a second.
func (r *rebuild) moveFloating(i int) engine.Step {
	n := &r.f.Nodes[i]
	s := engine.Step{
		ID: r.sec(i) + "-floating", Section: r.sec(i), Effect: engine.SetState,
		Title:   "stop keepalived on the old " + n.Name,
		Lines:   when(n.Holder, "the floating address "+r.c.VIP+" goes to a machine that is switched already"),
		Observe: observeByDoing,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if r.c.VIP == "" {
				return engine.Proposal{NotApplicable: "nodes of this role have no floating address"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			old, _, err := r.old(n)
			if err != nil {
				return nil, err
			}
			if len(r.f.Nodes) > 1 {
				// Whoever takes over must be there: looked at right before.
				if err := r.waitPeers(ctx, a, i); err != nil {
					return nil, err
				}
			}
			want, err := n.Old.identity()
			if err != nil {
				return nil, err
			}
			if err := old.StopKeepalived(ctx, want); err != nil {
				return nil, fmt.Errorf("old %s: %w", n.Name, err)
			}
			if len(r.f.Nodes) == 1 {
				return nil, nil
			}
			return nil, r.waitServes(ctx, a)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			_, l, err := r.old(n)
			if err != nil {
				return err
			}
			if _, err := run(ctx, l.held(), "pgrep -x keepalived >/dev/null || service keepalived start </dev/null >&2"); err != nil {
				return fmt.Errorf("old %s: %w", n.Name, err)
			}
			return r.waitServes(ctx, a)
		},
	}
	return s
}

// peersWell sees that the other nodes can carry the service: their programs run,
// and their keepalived where there is a floating address.
func (r *rebuild) peersWell(ctx context.Context, a *engine.Act, i int) error {
	for j := range r.f.Nodes {
		if j == i {
			continue
		}
		node, _, err := r.serving(a, j)
		if err != nil {
			return err
		}
		if r.c.VIP != "" {
			k, err := node.GetKeepalived(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", node.Name, err)
			}
			if !k.Active {
				return fmt.Errorf("keepalived does not run on %s", node.Name)
			}
		}
		s, err := node.SupervisorStatus(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", node.Name, err)
		}
		if s.Verdict() != pitrix.VerdictRunning {
			return fmt.Errorf("%s: %s", node.Name, s)
		}
	}
	return nil
}

// waitPeers blocks until the other nodes are seen to be well three times in a
// row.
func (r *rebuild) waitPeers(ctx context.Context, a *engine.Act, i int) error {
	return r.t.holds(ctx, r.cfg.Pace.Sample, "the peers of "+r.f.Nodes[i].Name+" are not well", func(ctx context.Context) error { return r.peersWell(ctx, a, i) })
}

// othersServe sees, right before the old machine of a node is of no more use,
// that it is not needed either.
func (r *rebuild) othersServe(ctx context.Context, a *engine.Act, i int, without ...int) error {
	if len(r.f.Nodes) == 1 {
		return nil
	}
	if r.inPlace() { // what follows takes long
		if err := r.peersWell(ctx, a, i); err != nil {
			return err
		}
	}
	return r.serves(ctx, a, without...)
}

// releaseKeepalived lets the new machine take part in holding the floating
// address, if its haproxy is still as it was compared.
func (r *rebuild) releaseKeepalived(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: r.sec(i) + "-keepalived", Section: r.sec(i), Effect: engine.SetState,
		Title:   "start keepalived on the new " + n.Name,
		Lines:   []string{"exactly one holder of " + r.c.VIP + " afterwards, and the console answers"},
		Observe: observeByDoing,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if r.c.VIP == "" {
				return engine.Proposal{NotApplicable: "nodes of this role have no floating address"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			node, _, m, err := r.fresh(a, n, n.Final)
			if err != nil {
				return nil, err
			}
			want, err := m.identity()
			if err != nil {
				return nil, err
			}
			if err := r.stillEqual(ctx, a, i); err != nil {
				return nil, err
			}
			if err := node.ReleaseKeepalived(ctx, want); err != nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			if err := r.waitServes(ctx, a); err != nil {
				return nil, err
			}
			return nil, r.announceAll(ctx, node, n)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			node, _, m, err := r.fresh(a, n, n.Final)
			if err != nil {
				return err
			}
			want, err := m.identity()
			if err != nil {
				return err
			}
			if len(r.f.Nodes) > 1 {
				if err := r.waitPeers(ctx, a, i); err != nil {
					return err
				}
			}
			if err := node.HoldKeepalived(ctx, want); err != nil {
				return fmt.Errorf("new %s: %w", n.Name, err)
			}
			if len(r.f.Nodes) == 1 {
				return nil
			}
			return r.waitServes(ctx, a)
		},
	}
}
