package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Chapter 7: one node after the other, the old machine makes room for the new
// one. i is the node's place in the order of the plan.

func (r *rebuild) sec(i int) string { return fmt.Sprintf("7.%d", i+1) }

// last tells whether the node is the last one, which may hold the floating
// address.
func (r *rebuild) last(i int) bool { return i == len(r.f.Nodes)-1 }

// checkReady proves, behind the gate, that this node may be switched now.
func (r *rebuild) checkReady(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: r.sec(i) + "-ready", Section: r.sec(i), Effect: engine.ReadOnly,
		Title: "the new " + n.Name + " may take the old one's place",
		Lines: []string{"programs, haproxy.cfg, edits of the network files, who answers at " + n.Final, "the floating address is not on " + n.Name + ", unless it is the last one"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.ready(ctx, a, i)
		},
	}
}

func (r *rebuild) ready(ctx context.Context, a *engine.Act, i int) error {
	n := &r.f.Nodes[i]
	old, _, err := r.old(n)
	if err != nil {
		return err
	}
	if err := r.prove(ctx, old, n.Old); err != nil {
		return fmt.Errorf("old %s: %w", n.Name, err)
	}
	if r.c.VIP != "" {
		if err := r.waitServes(ctx, a); err != nil {
			return err
		}
		holder, err := r.holderNow(ctx, a)
		if err != nil {
			return err
		}
		if holder == n.Name && !r.last(i) {
			return &DriftError{[]string{fmt.Sprintf("%s holds %s by now, and whoever holds it is switched last: move it to %s (service keepalived restart on %s), or roll back", n.Name, r.c.VIP, r.f.Nodes[len(r.f.Nodes)-1].Name, n.Name)}}
		}
	}
	if err := r.checkHeld(ctx, a); err != nil {
		return err
	}
	node, _, m, err := r.fresh(a, n, n.Address)
	if err != nil {
		return err
	}
	if err := r.prove(ctx, node, m); err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	if _, err := r.waitPrograms(ctx, node); err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	if bad, err := r.haproxyLeft(ctx, a, i); err != nil {
		return err
	} else if bad != "" {
		return fmt.Errorf("haproxy.cfg of the new %s is not as the old one's any more: %s", n.Name, bad)
	}
	// That the files can be edited is better known while the old machine runs.
	if _, err := r.networkFiles(ctx, a, i); err != nil {
		return err
	}
	return r.answeredBy(ctx, a, i, n.Old.MACs)
}

// answeredBy asks from the new machine who has the final address: only the
// machine with one of macs may; none = nobody may.
func (r *rebuild) answeredBy(ctx context.Context, a *engine.Act, i int, macs []string) error {
	n := &r.f.Nodes[i]
	node, _, _, err := r.fresh(a, n, n.Address)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(n.Final)
	if err != nil {
		return err
	}
	who, err := node.ProbeAddress(ctx, addr, n.Interface)
	if err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	for _, m := range who {
		if !slices.Contains(macs, m.String()) {
			return fmt.Errorf("address %s of %s is answered by %s, a machine that is not the old one: two machines would have one address; find it, and resume", n.Final, n.Name, m)
		}
	}
	return nil
}

// finalSettings gives the node its own address back in the settings.
func (r *rebuild) finalSettings(i int) engine.Step {
	n := &r.f.Nodes[i]
	lines := []string{fmt.Sprintf("mgmt_network_address %s → %s", n.Address, n.Final)}
	if n.FinalEIP != "" {
		lines = append(lines, fmt.Sprintf("eip_network_address %s → %s", n.EIP, n.FinalEIP))
	}
	return r.settingsStep(r.sec(i)+"-settings", r.sec(i), "write the settings of "+n.Name+" with its final address", lines,
		func(a *engine.Act, fleet pitrix.Fleet) (map[string]*pitrix.Settings, error) {
			_, final, err := r.settings(a, n)
			if err != nil {
				return nil, err
			}
			next := maps.Clone(fleet)
			next[n.Name] = final
			if bad := pitrix.CheckFleet(next); len(bad) > 0 {
				return nil, &DriftError{[]string{problemsText(bad)}}
			}
			return map[string]*pitrix.Settings{n.Name: final}, nil
		})
}

// settings gives a node's settings with the temporary and with the final
// address, as this run has derived them.
func (r *rebuild) settings(a *engine.Act, n *RebuildNodeFacts) (temporary, final *pitrix.Settings, err error) {
	var c settingsChange
	if ok, err := a.ParamsOf("2.2-settings", &c); err != nil || !ok {
		return nil, nil, errors.Join(errors.New("internal error: no settings recorded"), err)
	}
	for _, f := range c.Files {
		if f.Name != n.Name {
			continue
		}
		b, err := a.Blob(f.Old)
		if err != nil {
			return nil, nil, err
		}
		old, err := pitrix.Parse(n.Name, b)
		if err != nil {
			return nil, nil, err
		}
		if temporary, err = n.next(old, r.c, false); err != nil {
			return nil, nil, err
		}
		final, err = n.next(old, r.c, true)
		return temporary, final, err
	}
	return nil, nil, fmt.Errorf("internal error: no settings of %s recorded", n.Name)
}

func (r *rebuild) buildHosts(i int) engine.Step {
	n := &r.f.Nodes[i]
	return r.scriptStep(script{
		id: r.sec(i) + "-build", section: r.sec(i), title: "build the configuration packages with the final address of " + n.Name,
		lines: []string{"build_global_conf.sh, after its backup of today was saved", "the built pitrix-hosts maps " + n.Name + " to " + n.Final},
		command: func(ctx context.Context, a *engine.Act) (string, error) {
			s, err := r.firstbox().GetScripts(ctx)
			if err != nil {
				return "", fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			return s.BuildGlobalConf(a.Key())
		},
		judge: func(ctx context.Context, _ *engine.Act, log []byte, status int) (any, error) {
			if _, err := pitrix.ParseBuild(log, status); err != nil {
				return nil, err
			}
			return r.built(ctx)
		},
		undo: func(context.Context, *engine.Act) error { return nil }, // 2.1 builds once more, when the settings are back
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
				if err := r.t.holds(ctx, r.cfg.Pace.Sample, "the peers of "+n.Name+" are not well", func(ctx context.Context) error { return r.peersWell(ctx, a, i) }); err != nil {
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
			if _, err := run(ctx, l, "pgrep -x keepalived >/dev/null || service keepalived start </dev/null >&2"); err != nil {
				return fmt.Errorf("old %s: %w", n.Name, err)
			}
			return r.waitServes(ctx, a)
		},
	}
	return s
}

// peersWell sees that the other nodes can carry the floating address: their
// keepalived runs and their programs do.
func (r *rebuild) peersWell(ctx context.Context, a *engine.Act, i int) error {
	for j := range r.f.Nodes {
		if j == i {
			continue
		}
		node, _, err := r.serving(a, j)
		if err != nil {
			return err
		}
		k, err := node.GetKeepalived(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", node.Name, err)
		}
		if !k.Active {
			return fmt.Errorf("keepalived does not run on %s", node.Name)
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
			if r.c.VIP != "" && len(r.f.Nodes) > 1 {
				if err := r.serves(ctx, a); err != nil {
					return nil, err
				}
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
	return engine.Step{
		ID: r.sec(i) + "-poweroff", Section: r.sec(i), Effect: engine.SetState,
		Title: "shut the old " + n.Name + " on " + n.OldHost + " down",
		Lines: []string{"shutdown -h now, on the machine with machine-id " + n.Old.MachineID, "virsh domstate " + n.Name + ": shut off"},
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
				if r.c.VIP != "" && len(r.f.Nodes) > 1 {
					if err := r.serves(ctx, a, i); err != nil {
						return nil, err
					}
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
					err = old.Shutdown(ctx, want)
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
		old, l, err := r.old(n)
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
		if err := old.Shutdown(ctx, want); err != nil {
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

// installHosts is the runbook's line on the new machine, without its reboot.
func (r *rebuild) installHosts(i int) engine.Step {
	n := &r.f.Nodes[i]
	return r.scriptStep(script{
		id: r.sec(i) + "-hosts", section: r.sec(i), title: "install pitrix-hosts, with the final addresses, on the new " + n.Name,
		lines: strings.Split(strings.TrimSpace(pitrix.InstallHosts()), "\n"),
		on: func(a *engine.Act) (*link, error) {
			_, l, _, err := r.fresh(a, n, n.Address)
			return l, err
		},
		ready: func(ctx context.Context, a *engine.Act) error {
			node, _, m, err := r.fresh(a, n, n.Address)
			if err != nil {
				return err
			}
			return wrapNode("new "+n.Name, r.prove(ctx, node, m))
		},
		command: func(context.Context, *engine.Act) (string, error) {
			return pitrix.InstallHosts(), nil
		},
		judge: func(ctx context.Context, a *engine.Act, log []byte, status int) (any, error) {
			if status != 0 {
				return nil, fmt.Errorf("new %s: installing pitrix-hosts ended with status %d: %s", n.Name, status, clip(lastLine(log)))
			}
			node, _, _, err := r.fresh(a, n, n.Address)
			if err != nil {
				return nil, err
			}
			return nil, r.hostsFile(ctx, node, n)
		},
		noUndo: "the new machine is switched off as a whole",
	})
}

// hostsFile sees that a machine's /etc/hosts has the final address of n.
func (r *rebuild) hostsFile(ctx context.Context, node *pitrix.Node, n *RebuildNodeFacts) error {
	addr, err := netip.ParseAddr(n.Final)
	if err != nil {
		return err
	}
	return wrapNode("new "+n.Name, node.CheckHostsFile(ctx, n.Name, addr))
}

func lastLine(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return lines[len(lines)-1]
}

// networkFiles are the edits that give the new machine its final address.
func (r *rebuild) networkFiles(ctx context.Context, a *engine.Act, i int) ([]pitrix.FileEdit, error) {
	n := &r.f.Nodes[i]
	node, _, _, err := r.fresh(a, n, n.Address)
	if err != nil {
		return nil, err
	}
	temporary, final, err := r.settings(a, n)
	if err != nil {
		return nil, err
	}
	edits, err := node.AddressEdits(ctx, temporary, final)
	return edits, wrapNode("new "+n.Name, err)
}

type addressParams struct {
	Files []addressFile `json:"files"`
	Boot  hostos.Boot   `json:"boot"` // that ends
}

type addressFile struct {
	Path string `json:"path"`
	Old  string `json:"old"` // blob
	New  string `json:"new"` // blob
}

// takeAddress gives the new machine the final address: the files are edited,
// with a revert on the machine itself that survives the reboot and that only
// an answer from outside, at the final address, takes away.
func (r *rebuild) takeAddress(i int) engine.Step {
	n := &r.f.Nodes[i]
	id := r.sec(i) + "-address"
	return engine.Step{
		ID: id, Section: r.sec(i), Effect: engine.OneShot,
		Title: fmt.Sprintf("the new %s takes the address %s with a reboot", n.Name, n.Final),
		Lines: []string{"/etc/network/interfaces, /etc/rc.local.tail, /opt/install/os/setting: " + n.Address + " → " + n.Final, "reverted by the machine itself unless it answers at " + n.Final + "; it announces itself when it boots", "nobody may answer at " + n.Final + " before", "shutdown -r now"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			_, l, _, err := r.fresh(a, n, n.Address)
			if err != nil {
				return engine.Proposal{}, err
			}
			var p addressParams
			if p.Boot, err = r.t.waitBoot(ctx, a, l, ""); err != nil {
				return engine.Proposal{}, err
			}
			edits, err := r.networkFiles(ctx, a, i)
			if err != nil {
				return engine.Proposal{}, err
			}
			for _, e := range edits {
				f := addressFile{Path: e.Path}
				if f.Old, err = a.PutBlob(e.Old); err != nil {
					return engine.Proposal{}, err
				}
				if f.New, err = a.PutBlob(e.New); err != nil {
					return engine.Proposal{}, err
				}
				p.Files = append(p.Files, f)
			}
			return engine.Proposal{Params: p}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return r.doTakeAddress(ctx, a, i)
		},
		Undo: func(ctx context.Context, a *engine.Act) error { return r.off(ctx, a, n) },
	}
}

func (r *rebuild) doTakeAddress(ctx context.Context, a *engine.Act, i int) (any, error) {
	n := &r.f.Nodes[i]
	var p addressParams
	if err := a.Params(&p); err != nil {
		return nil, err
	}
	m, err := r.recorded(a, n)
	if err != nil {
		return nil, err
	}
	want, err := m.identity()
	if err != nil {
		return nil, err
	}
	edit := pitrix.NetworkEdit{Key: a.Key(), Minutes: r.revertMinutes()}
	for _, f := range p.Files {
		e := pitrix.FileEdit{Path: f.Path}
		if e.Old, err = a.Blob(f.Old); err != nil {
			return nil, err
		}
		if e.New, err = a.Blob(f.New); err != nil {
			return nil, err
		}
		edit.Files = append(edit.Files, e)
	}
	want.BootID = p.Boot.ID // a reboot that is asked for twice happens once
	wait, cancel := context.WithTimeout(ctx, r.cfg.Pace.Timeout)
	defer cancel()
	tick := time.NewTicker(r.cfg.Pace.Poll)
	defer tick.Stop()
	begun := false
	for {
		now, where, err := r.find(wait, a, i)
		switch {
		case err != nil:
		case where == n.Final:
			return r.confirm(ctx, a, i, m, edit.Key)
		case now.ID == p.Boot.ID && !begun:
			if err = r.beginAddress(ctx, a, i, edit, want); err == nil {
				begun = true
				break
			}
			// One that was told to reboot before an interruption goes down now.
			if _, l, _, ferr := r.fresh(a, n, n.Address); ferr != nil || l.alive(ctx) == nil {
				return nil, err
			}
		case now.ID == p.Boot.ID:
			err = errors.New("it is still in the old boot")
		default:
			// The next attempt arms its own.
			node, _, _, err := r.fresh(a, n, n.Address)
			if err == nil {
				err = node.CancelAnnounce(ctx, edit.Key)
			}
			if err != nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			return nil, engine.Definitive(fmt.Errorf("the new %s came back with its temporary address %s: its files were reverted, since nobody had reached it at %s; look at its network, and resume", n.Name, n.Address, n.Final))
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("the new %s does not answer at %s; it goes back to %s by itself %d minutes after its reboot: %w (last: %v)", n.Name, n.Final, n.Address, edit.Minutes, wait.Err(), err)
		case <-tick.C:
		}
	}
}

// beginAddress edits the files and reboots the new machine.
func (r *rebuild) beginAddress(ctx context.Context, a *engine.Act, i int, edit pitrix.NetworkEdit, want pitrix.Identity) error {
	n := &r.f.Nodes[i]
	node, l, _, err := r.fresh(a, n, n.Address)
	if err != nil {
		return err
	}
	if d, err := r.oldDomain(ctx, n); err != nil {
		return err
	} else if d.State != pitrix.DomainShutOff {
		return fmt.Errorf("the old %s is %s: it must be shut off before its address is taken", n.Name, d.State)
	}
	if err := r.answeredBy(ctx, a, i, nil); err != nil {
		return err
	}
	if err := node.BeginEdit(ctx, edit, want); err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	if err := r.announceAtBoot(ctx, node, edit.Key, n); err != nil {
		return err
	}
	if err := node.Reboot(ctx, want); err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	l.drop(nil)
	return nil
}

// revertMinutes is how long a machine waits for us at its final address: long
// enough for a reboot and for somebody who has to resume.
func (r *rebuild) revertMinutes() int {
	return int(math.Ceil(r.cfg.Pace.Timeout.Minutes())) + 10
}

// find looks for the new machine at both of its addresses.
func (r *rebuild) find(ctx context.Context, a *engine.Act, i int) (hostos.Boot, string, error) {
	n := &r.f.Nodes[i]
	var errs []error
	for _, addr := range []string{n.Final, n.Address} {
		_, l, _, err := r.fresh(a, n, addr)
		if err != nil {
			return hostos.Boot{}, "", err
		}
		ask, cancel := context.WithTimeout(ctx, probeLimit)
		b, err := hostos.GetBoot(ask, l)
		cancel()
		if err == nil {
			return b, addr, nil
		}
		l.drop(nil)
		errs = append(errs, err)
	}
	return hostos.Boot{}, "", errors.Join(errs...)
}

// confirm ends the revert once the machine is proved at its final address.
func (r *rebuild) confirm(ctx context.Context, a *engine.Act, i int, m Machine, key string) (any, error) {
	n := &r.f.Nodes[i]
	node, _, _, err := r.fresh(a, n, n.Final)
	if err != nil {
		return nil, err
	}
	if err := r.prove(ctx, node, m); err != nil {
		return nil, fmt.Errorf("new %s: %w", n.Name, err)
	}
	if err := node.ConfirmEdit(ctx, key); err != nil {
		return nil, fmt.Errorf("new %s: %w", n.Name, err)
	}
	if err := node.CancelAnnounce(ctx, key); err != nil {
		return nil, err
	}
	now, err := r.machine(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("new %s: %w", n.Name, err)
	}
	now.HostKeys = m.HostKeys
	return now, nil
}

// announce tells the neighbours who has the address now: they know the old
// machine's MAC, and would send to it for half a minute.
func (r *rebuild) announce(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: r.sec(i) + "-announce", Section: r.sec(i), Effect: engine.SetState, NoUndo: "whoever has the address next announces it again",
		Title:   "tell the neighbours that " + n.Final + " is the new " + n.Name,
		Lines:   []string{"arping -U, arping -A for " + strings.TrimSpace(n.Final+" "+n.FinalEIP)},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			node, _, _, err := r.fresh(a, n, n.Final)
			if err != nil {
				return nil, err
			}
			return nil, r.announceAll(ctx, node, n)
		},
	}
}

// addresses are those of n that its machine keeps, the management address first.
func (n *RebuildNodeFacts) addresses() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range []string{n.Final, n.FinalEIP} {
		if s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// announceAtBoot has a machine announce the addresses of n at its next boot.
func (r *rebuild) announceAtBoot(ctx context.Context, node *pitrix.Node, key string, n *RebuildNodeFacts) error {
	addresses, err := n.addresses()
	if err != nil {
		return err
	}
	return node.AnnounceAtBoot(ctx, key, addresses...)
}

// announceAll announces every address of n that the machine holds.
func (r *rebuild) announceAll(ctx context.Context, node *pitrix.Node, n *RebuildNodeFacts) error {
	addresses, err := n.addresses()
	if err != nil {
		return err
	}
	if r.c.VIP != "" {
		vip, err := netip.ParseAddr(r.c.VIP)
		if err != nil {
			return err
		}
		addresses = append(addresses, vip)
	}
	return node.AnnounceHeld(ctx, addresses[0], addresses[1:]...)
}

// checkSwitched proves the machine in its new place before it may hold the
// floating address.
func (r *rebuild) checkSwitched(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: r.sec(i) + "-check", Section: r.sec(i), Effect: engine.ReadOnly,
		Title: "the new " + n.Name + " is well at " + n.Final,
		Lines: []string{"programs, haproxy.cfg, /etc/hosts, no trace of " + n.Address + " in its network files"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			node, l, _, err := r.fresh(a, n, n.Final)
			if err != nil {
				return nil, err
			}
			s, err := r.waitPrograms(ctx, node)
			if err != nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			if err := r.hostsFile(ctx, node, n); err != nil {
				return nil, err
			}
			if err := r.samePackages(ctx, node, n); err != nil {
				return nil, err
			}
			before, err := r.before(a, n)
			if err != nil {
				return nil, err
			}
			compared, err := r.compareMachine(ctx, a, l, "the new "+n.Name, before, r.expect(true))
			if err != nil {
				return nil, err
			}
			temporary, err := netip.ParseAddr(n.Address)
			if err != nil {
				return nil, err
			}
			if err := node.CheckAddressFiles(ctx, temporary); err != nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			return switchedResult{s, compared}, nil
		},
	}
}

// switchedResult is what is known of a machine in its new place.
type switchedResult struct {
	Programs pitrix.Supervisor `json:"programs"`
	Compared compareResult     `json:"compared"`
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
			if bad, err := r.haproxyLeft(ctx, a, i); err != nil {
				return nil, err
			} else if bad != "" {
				return nil, fmt.Errorf("haproxy.cfg of the new %s is not as the old one's any more: %s", n.Name, bad)
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
