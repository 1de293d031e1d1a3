package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
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
		if err := r.holderLast(ctx, a, i); err != nil {
			return err
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
	if err := r.stillEqual(ctx, a, i); err != nil {
		return err
	}
	// That the files can be edited is better known while the old machine runs.
	if _, err := r.networkFiles(ctx, a, i); err != nil {
		return err
	}
	return r.answeredBy(ctx, a, i, n.Old.MACs)
}

// holderLast refuses to go on with a node that holds the floating address while
// there is another one left to do.
func (r *rebuild) holderLast(ctx context.Context, a *engine.Act, i int) error {
	if r.c.VIP == "" || r.last(i) {
		return nil
	}
	n := &r.f.Nodes[i]
	holder, err := r.holderNow(ctx, a)
	if err != nil || holder != n.Name {
		return err
	}
	return &DriftError{[]string{fmt.Sprintf("%s holds %s by now, and whoever holds it is switched last: move it to %s (service keepalived restart on %s), or roll back", n.Name, r.c.VIP, r.f.Nodes[len(r.f.Nodes)-1].Name, n.Name)}}
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
			next, out := maps.Clone(fleet), map[string]*pitrix.Settings{n.Name: final}
			next[n.Name] = final
			if err := n.leafRoutes(next, out, false); err != nil {
				return nil, err
			}
			// R8 is LeafRoutes' own; hosts keep routes to old machines that serve yet.
			if bad := slices.DeleteFunc(pitrix.CheckFleet(next), func(p pitrix.Problem) bool { return n.Leaf != nil && p.Rule == "R8" }); len(bad) > 0 {
				return nil, &DriftError{[]string{problemsText(bad)}}
			}
			return out, nil
		})
}

// settings gives a node's settings with the temporary and with the final
// address, as this run has derived them.
func (r *rebuild) settings(a *engine.Act, n *RebuildNodeFacts) (temporary, final *pitrix.Settings, err error) {
	var c settingsChange
	if ok, err := a.ParamsOf(r.stepID(r.place(n), "2.2-settings"), &c); err != nil || !ok {
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
			if err := r.compareLeaf(ctx, a, l, n, true); err != nil {
				return nil, err
			}
			compared, err := r.compareMachine(ctx, a, l, "the new "+n.Name, before, r.expect(n, true))
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
			if n.Direct {
				// Clients that ask each node of the pair find it as well.
				err := r.t.holds(ctx, r.cfg.Pace.Sample, "the new "+n.Name+" does not answer at its own address", func(ctx context.Context) error {
					return r.answered(ctx, n.Final, r.f)
				})
				if err != nil {
					return nil, err
				}
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
