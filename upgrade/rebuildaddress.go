package upgrade

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The address of a node: the new machine takes it, and says so.

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
