package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The old machine of a node: its programs, its power, its domain.

func (r *rebuild) stopPrograms(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: r.sec(i) + "-stop", Section: r.sec(i), Effect: engine.SetState,
		Title:   "stop the programs of the old " + n.Name,
		Lines:   []string{"supervisorctl stop all"},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			old, _, err := r.old(n)
			if err != nil {
				return nil, err
			}
			if err := r.othersServe(ctx, a, i); err != nil {
				return nil, err
			}
			want, err := n.Old.identity()
			if err != nil {
				return nil, err
			}
			if err := old.StopPrograms(ctx, want); err != nil {
				return nil, fmt.Errorf("old %s: %w", n.Name, err)
			}
			return nil, nil
		},
		Undo: func(ctx context.Context, _ *engine.Act) error { return r.startOldPrograms(ctx, n) },
	}
}

// startOldPrograms brings the programs of an old machine back.
func (r *rebuild) startOldPrograms(ctx context.Context, n *RebuildNodeFacts) error {
	old, _, err := r.old(n)
	if err != nil {
		return err
	}
	want, err := n.Old.identity()
	if err != nil {
		return err
	}
	if err := old.StartPrograms(ctx, want); err != nil {
		return fmt.Errorf("old %s: %w", n.Name, err)
	}
	_, err = r.waitPrograms(ctx, old)
	return wrapNode("old "+n.Name, err)
}

func wrapNode(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// waitPrograms blocks until all programs of a node run.
func (r *rebuild) waitPrograms(ctx context.Context, node *pitrix.Node) (pitrix.Supervisor, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Pace.Timeout)
	defer cancel()
	return node.WaitPrograms(ctx, r.cfg.Pace.Poll)
}

func (r *rebuild) powerOff(i int) engine.Step {
	n := &r.f.Nodes[i]
	lines := []string{"shutdown -h now, on the machine with machine-id " + n.Old.MachineID, "virsh domstate " + n.Name + ": shut off"}
	if r.inPlace() {
		lines = append(lines, r.risk(i))
	}
	return engine.Step{
		ID: r.sec(i) + "-poweroff", Section: r.sec(i), Effect: engine.SetState,
		Title: "shut the old " + n.Name + " on " + n.OldHost + " down", Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			_, l, err := r.old(n)
			if err != nil {
				return engine.Proposal{}, err
			}
			b, err := hostos.GetBoot(ctx, l)
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("old %s: %w", n.Name, err)
			}
			return engine.Proposal{Before: rebootBefore{Boot: b}}, nil
		},
		Observe: func(ctx context.Context, _ *engine.Act) (engine.Sight, error) {
			d, err := r.oldDomain(ctx, n)
			if err != nil {
				return engine.Sight{}, err
			}
			if d.State == pitrix.DomainShutOff {
				return engine.Sight{State: engine.Ours}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "domain is " + d.State}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			d, err := r.oldDomain(ctx, n)
			if err != nil {
				return nil, err
			}
			if d.State != pitrix.DomainShutOff {
				if err := r.othersServe(ctx, a, i, i); err != nil {
					return nil, err
				}
				old, l, err := r.old(n)
				if err != nil {
					return nil, err
				}
				want, err := n.Old.identity()
				if err != nil {
					return nil, err
				}
				// Should it ever come back, whoever knows its successor's MAC must
				// learn its own.
				err = r.announceAtBoot(ctx, old, a.Key(), n)
				if err == nil {
					err = r.shutdown(ctx, n, want)
				}
				// One that was told to go down before an interruption does so now: the
				// hypervisor knows.
				if err != nil && l.alive(ctx) == nil {
					return nil, fmt.Errorf("old %s: %w", n.Name, err)
				}
			}
			wait, cancel := context.WithTimeout(ctx, r.cfg.Pace.Timeout)
			defer cancel()
			return nil, wrapHost(n.OldHost, r.hypervisor(n.OldHost).WaitState(wait, n.Name, pitrix.DomainShutOff, r.cfg.Pace.Poll))
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			d, err := r.oldDomain(ctx, n)
			if err != nil {
				return err
			}
			// Never two machines with one address.
			if nd, err := r.newDomain(ctx, n); err != nil {
				return err
			} else if nd != nil && nd.State != pitrix.DomainShutOff {
				if done, err := r.addressTaken(ctx, a, i); err != nil {
					return err
				} else if done {
					return fmt.Errorf("the new %s still has the address %s; switch it off first", n.Name, n.Final)
				}
			}
			if err := r.wentDown(ctx, a, n); err != nil {
				return err
			}
			if err := r.hypervisor(n.OldHost).Start(ctx, n.Name, d.UUID); err != nil {
				return wrapHost(n.OldHost, err)
			}
			old, l, err := r.old(n)
			if err != nil {
				return err
			}
			if _, err := r.t.waitBoot(ctx, a, l, ""); err != nil {
				return err
			}
			if err := r.prove(ctx, old, n.Old); err != nil {
				return fmt.Errorf("old %s: %w", n.Name, err)
			}
			if err := r.announceAll(ctx, old, n); err != nil {
				return err
			}
			if err := old.CancelAnnounce(ctx, a.Key()); err != nil {
				return err
			}
			return r.startOldPrograms(ctx, n)
		},
	}
}

// wentDown sees that an old machine that may have been told to go down has done
// so: it must not do it a moment after it was found to run. One that runs in
// another boot than before was started again.
func (r *rebuild) wentDown(ctx context.Context, a *engine.Act, n *RebuildNodeFacts) error {
	var was rebootBefore
	if err := a.Before(&was); err != nil {
		return err
	}
	want, err := n.Old.identity()
	if err != nil {
		return err
	}
	return r.until(ctx, "the old "+n.Name+" neither goes down nor comes back", func(ctx context.Context) error {
		d, err := r.oldDomain(ctx, n)
		if err != nil || d.State == pitrix.DomainShutOff {
			return err
		}
		_, l, err := r.old(n)
		if err != nil {
			return err
		}
		ask, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		b, err := hostos.GetBoot(ask, l)
		switch {
		case err != nil:
			l.drop(nil)
			return err
		case b.ID != was.Boot.ID:
			return nil
		}
		if err := r.shutdown(ctx, n, want); err != nil {
			return err
		}
		return errors.New("it was told to go down")
	})
}

// until asks until check succeeds once; otherwise is what is said when it did
// not in time.
func (r *rebuild) until(ctx context.Context, otherwise string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Pace.Timeout)
	defer cancel()
	tick := time.NewTicker(r.cfg.Pace.Poll)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", otherwise, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// addressTaken tells whether the new machine of a node answers at the final
// address.
func (r *rebuild) addressTaken(ctx context.Context, a *engine.Act, i int) (bool, error) {
	n := &r.f.Nodes[i]
	_, l, _, err := r.fresh(a, n, n.Address)
	if err != nil {
		return false, err
	}
	ask, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return l.alive(ask) != nil, ctx.Err()
}

// probeLimit bounds one look at a machine that may be off.
const probeLimit = 20 * time.Second

// oldDomain gives the domain of a node's old machine, which must be the one of
// the plan.
func (r *rebuild) oldDomain(ctx context.Context, n *RebuildNodeFacts) (*pitrix.Domain, error) {
	d, err := r.hypervisor(n.OldHost).GetDomain(ctx, n.Name)
	if err == nil && r.inPlace() && (d == nil || d.UUID != n.UUID) {
		d, err = r.hypervisor(n.OldHost).GetDomain(ctx, pitrix.AsideName(n.Name))
	}
	if err != nil {
		return nil, wrapHost(n.OldHost, err)
	}
	if d == nil || d.UUID != n.UUID {
		now := "none"
		if d != nil {
			now = "UUID " + d.UUID
		}
		return nil, &engine.ConflictError{Object: "domain " + n.Name + " on host " + n.OldHost, Before: "UUID " + n.UUID, Ours: "the same, shut off", Now: now}
	}
	return d, nil
}

// autostartOff keeps the old machine off when its host reboots: it would come
// back with the address that its successor has.
func (r *rebuild) autostartOff(i int) engine.Step {
	n := &r.f.Nodes[i]
	set := func(ctx context.Context, on bool) error {
		d, err := r.oldDomain(ctx, n)
		if err != nil {
			return err
		}
		return wrapHost(n.OldHost, r.hypervisor(n.OldHost).SetAutostart(ctx, n.Name, d.UUID, on))
	}
	return engine.Step{
		ID: r.sec(i) + "-autostart", Section: r.sec(i), Effect: engine.SetState,
		Title:   "keep the old " + n.Name + " off when " + n.OldHost + " reboots",
		Lines:   []string{"virsh autostart --disable " + n.Name},
		Observe: observeByDoing,
		Do:      func(ctx context.Context, _ *engine.Act) (any, error) { return nil, set(ctx, false) },
		Undo:    func(ctx context.Context, _ *engine.Act) error { return set(ctx, n.Autostart) },
	}
}
