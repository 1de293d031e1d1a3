package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Chapters 1 and 2: what there is, and what it shall be.

func (r *rebuild) recordInventory() engine.Step {
	s := engine.Step{
		ID: "1.1-inventory", Section: "1.1", Effect: engine.ReadOnly,
		Title: "record the old machines: they and their settings are as planned",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			fleet, err := r.firstbox().ReadFleet(ctx)
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			var bad []string
			out := map[string]inventoryResult{}
			for i := range r.f.Nodes {
				n := &r.f.Nodes[i]
				if s := fleet[n.Name]; s == nil || PlanHash(s.Bytes()) != n.Settings {
					bad = append(bad, "the settings of "+n.Name+" have changed")
				}
				node, l, err := r.old(n)
				if err != nil {
					return nil, err
				}
				if err := r.prove(ctx, node, n.Old); err != nil {
					return nil, &DriftError{[]string{err.Error()}}
				}
				boot, err := hostos.GetBoot(ctx, l)
				if err != nil {
					return nil, fmt.Errorf("old %s: %w", n.Name, err)
				}
				inv, err := hostinv.Collect(ctx, l, hostinv.Options{})
				if err != nil {
					return nil, fmt.Errorf("old %s: %w", n.Name, err)
				}
				ref, err := putJSON(a, inv)
				if err != nil {
					return nil, err
				}
				out[n.Name] = inventoryResult{Blob: ref, Boot: boot, Counts: fmt.Sprintf("%d listeners, %d units", len(inv.Listeners), len(inv.Units))}
			}
			// The rules hold still, whatever was edited elsewhere.
			now := &RebuildFacts{Nodes: r.f.Nodes}
			for i := -1; i < len(r.f.Nodes) && len(bad) == 0; i++ {
				if err := r.checkFleet(now, fleet, i); err != nil {
					return nil, err
				}
			}
			if bad = append(bad, now.Problems...); len(bad) > 0 {
				return nil, &DriftError{bad}
			}
			return out, nil
		},
	}
	for _, n := range r.f.Nodes {
		s.Lines = append(s.Lines, fmt.Sprintf("%s: %s on %s, %s, %s", n.Name, n.Final, n.OldHost, n.Old.Boot.Release, n.Old.Boot.Kernel))
	}
	return s
}

// before gives the inventory of a node's old machine.
func (r *rebuild) before(a *engine.Act, n *RebuildNodeFacts) (*hostinv.Inventory, error) {
	var all map[string]inventoryResult
	ok, err := a.Result("1.1-inventory", &all)
	if err != nil || !ok || all[n.Name].Blob == "" {
		return nil, errors.Join(fmt.Errorf("internal error: no inventory of %s recorded", n.Name), err)
	}
	return getInventory(a, all[n.Name].Blob)
}

// byHand is what no command of the installer is known for.
const byHand = "by hand, before: switch disaster migration off; until the end nobody scales, upgrades or maintains the site"

func (r *rebuild) checkPair() engine.Step {
	return engine.Step{
		ID: "1.2-pair", Section: "1.2", Effect: engine.ReadOnly,
		Title: "the old machines are well: programs, floating address, console",
		Lines: append(when(r.c.VIP != "", "one holder of "+r.c.VIP+"; "+r.f.asks()), byHand),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			for i := range r.f.Nodes {
				node, _, err := r.old(&r.f.Nodes[i])
				if err != nil {
					return nil, err
				}
				s, err := node.SupervisorStatus(ctx)
				if err != nil {
					return nil, fmt.Errorf("old %s: %w", node.Name, err)
				}
				if s.Verdict() != pitrix.VerdictRunning {
					return nil, &DriftError{[]string{fmt.Sprintf("%s is not well: %s", node.Name, s)}}
				}
			}
			if r.c.VIP == "" {
				return nil, nil
			}
			return nil, r.waitServes(ctx, a)
		},
	}
}

// hostsReady says what keeps the new machines from being made.
func (r *rebuild) hostsReady(ctx context.Context, _ *engine.Act) ([]string, error) {
	fleet, err := r.firstbox().ReadFleet(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	var out []string
	for _, n := range r.nodes() {
		s := fleet[n.Name]
		if s == nil {
			return []string{"the settings of " + n.Name + " are gone"}, nil
		}
		why, err := r.newHost(ctx, n, s)
		if err != nil {
			return nil, err
		}
		out = append(out, why...)
		if r.inPlace() { // no address is new, and that of a machine that is gone is nobody's
			if slices.Contains(r.apart, r.place(n)) {
				bridge, _ := s.Get("physical_host_network_interface")
				if why, err = r.silent(ctx, n, cmp.Or(n.Bridge, bridge)); err != nil {
					return nil, err
				}
				out = append(out, why...)
			}
			continue
		}
		node, _, err := r.old(n)
		if err != nil {
			return nil, err
		}
		used, err := r.inUse(ctx, node, n)
		if err != nil {
			return nil, err
		}
		out = append(out, used...)
	}
	return out, nil
}

// replaceable fails with all that keeps the new machines from being made.
func (r *rebuild) replaceable(ctx context.Context, a *engine.Act) error {
	bad, err := r.hostsReady(ctx, a)
	if err == nil && len(bad) > 0 {
		err = &DriftError{bad}
	}
	return err
}

func (r *rebuild) checkHosts() engine.Step {
	title := "the firstbox has image and repositories; the new hosts have room and bridges and nothing of that name; the temporary addresses are unused"
	if r.inPlace() {
		title = "the firstbox has image and repositories; the hosts of the new machines have room and bridges, and nothing of that name but the old machines"
	}
	s := engine.Step{
		ID: "1.3-hosts", Section: "1.3", Effect: engine.ReadOnly,
		Title: title,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			bad, err := r.releaseReady(ctx, nil)
			if err != nil {
				return nil, err
			}
			used, err := r.temporaryUsed(ctx)
			if err != nil {
				return nil, err
			}
			bad = append(bad, used...)
			hosts, err := r.hostsReady(ctx, a)
			if bad = append(bad, hosts...); err == nil && len(bad) > 0 {
				err = &DriftError{bad}
			}
			return nil, err
		},
	}
	for _, n := range r.f.Nodes {
		line := fmt.Sprintf("%s: from %s to %s", n.Name, n.OldHost, n.PhysicalHost)
		if !r.inPlace() {
			line += ", temporary address " + n.Address
		}
		s.Lines = append(s.Lines, line)
	}
	return s
}

type backupParams struct {
	At time.Time `json:"at"`
}

type backupResult struct {
	Path string `json:"path"`
}

func (r *rebuild) backupSettings() engine.Step {
	return engine.Step{
		ID: "1.4-backup", Section: "1.4", Effect: engine.SetState, NoUndo: "a copy of the settings beside them harms nobody and is kept",
		Title: "copy the settings of the firstbox beside them",
		Lines: []string{"/pitrix/conf/settings → /pitrix/conf/settings.DATE-TIME, compared"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{Params: backupParams{time.Now().UTC()}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p backupParams
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			// The name says when: one of that second is ours. Whether it is whole
			// is told by a comparison.
			path := "/pitrix/conf/settings." + p.At.Format("20060102-150405")
			out, err := run(ctx, r.e.host(r.cfg.Host), fmt.Sprintf(`if [ ! -e %[1]s ]; then echo absent
elif [ "$(cd /pitrix/conf/settings && sha256sum *)" = "$(cd %[1]s && sha256sum *)" ]; then echo whole
else echo part; fi`, path))
			if err != nil {
				return engine.Sight{}, err
			}
			if strings.TrimSpace(out) == "whole" {
				return engine.Sight{State: engine.Ours, Result: backupResult{path}}, nil
			}
			return engine.Sight{State: engine.Absent, Detail: strings.TrimSpace(out)}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p backupParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			fb := r.firstbox()
			path, err := fb.BackupSettings(ctx, p.At)
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			a.Progress("settings copied to %s", path)
			return backupResult{path}, nil
		},
	}
}

// setMarker keeps every other tool from spreading temporary addresses. Its undo
// is the last one of the settings: they are back, so the packages are built
// from them once more.
func (r *rebuild) setMarker() engine.Step {
	return engine.Step{
		ID: "2.1-marker", Section: "2.1", Effect: engine.SetState,
		Title: "mark the firstbox: until the switch is over no other node is updated",
		Lines: []string{"upgradectl pitrix update|exec refuse other nodes from here to 8.3"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			deb, _, err := r.firstbox().BuiltHosts(ctx)
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			return engine.Proposal{Before: builtResult{deb}, Params: pitrix.Marker{Run: a.RunID(), Role: r.c.Role, Nodes: r.names(), Since: time.Now().UTC().Truncate(time.Second)}}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.mark(ctx, a)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			if err := r.rebuildPackages(ctx, a); err != nil {
				return err
			}
			return r.unmark(ctx, a)
		},
	}
}

func (r *rebuild) mark(ctx context.Context, a *engine.Act) error {
	var m pitrix.Marker
	if _, err := a.ParamsOf("2.1-marker", &m); err != nil {
		return err
	}
	fb := r.firstbox()
	if err := fb.SetMarker(ctx, m); err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	return nil
}

func (r *rebuild) unmark(ctx context.Context, a *engine.Act) error {
	fb := r.firstbox()
	if err := fb.ClearMarker(ctx, a.RunID()); err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	return nil
}

// rebuildPackages builds what the firstbox has built with the settings as they
// are now, unless it is built already.
func (r *rebuild) rebuildPackages(ctx context.Context, a *engine.Act) error {
	var was builtResult
	if err := a.Before(&was); err != nil {
		return err
	}
	if now, err := r.built(ctx); err == nil && now == was {
		return nil
	} else if ctx.Err() != nil {
		return err
	}
	s, err := r.firstbox().GetScripts(ctx)
	if err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	log, status, err := r.runScript(ctx, a, a.Key()+"-undo", s.BuildPackages())
	if err != nil {
		return err
	}
	if _, err := pitrix.ParseBuild(log, status); err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	_, err = r.built(ctx)
	return err
}

// settingsChange is an edit of settings files: everything that doing and
// undoing it needs. The files themselves are private blobs of the run.
type settingsChange struct {
	Files []settingsFile `json:"files"`
}

type settingsFile struct {
	Name string `json:"name"`
	Old  string `json:"old"` // blob
	New  string `json:"new"` // blob
}

// settingsStep writes settings of nodes. What it wrote is undone only where
// nobody has edited it since.
func (r *rebuild) settingsStep(id, section, title string, lines []string, next func(*engine.Act, pitrix.Fleet) (map[string]*pitrix.Settings, error)) engine.Step {
	write := func(ctx context.Context, a *engine.Act, back bool) error {
		var c settingsChange
		if err := a.Params(&c); err != nil {
			return err
		}
		fb := r.firstbox()
		for _, f := range c.Files {
			if back {
				f.Old, f.New = f.New, f.Old
			}
			b, err := a.Blob(f.New)
			if err != nil {
				return err
			}
			s, err := pitrix.Parse(f.Name, b)
			if err != nil {
				return err
			}
			old, err := a.Blob(f.Old)
			if err != nil {
				return err
			}
			if err := fb.WriteSettings(ctx, s, old); err != nil {
				return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
		}
		return nil
	}
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.SetState, Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			fleet, err := r.firstbox().ReadFleet(ctx)
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			files, err := next(a, fleet)
			if err != nil {
				return engine.Proposal{}, err
			}
			var c settingsChange
			for _, name := range slices.Sorted(maps.Keys(files)) {
				f := settingsFile{Name: name}
				if f.Old, err = a.PutBlob(fleet[name].Bytes()); err != nil {
					return engine.Proposal{}, err
				}
				if f.New, err = a.PutBlob(files[name].Bytes()); err != nil {
					return engine.Proposal{}, err
				}
				c.Files = append(c.Files, f)
			}
			return engine.Proposal{Params: c}, nil
		},
		// Writing is conditional, and does nothing to a file that is there.
		Observe: observeByDoing,
		Do:      func(ctx context.Context, a *engine.Act) (any, error) { return nil, write(ctx, a, false) },
		Undo:    func(ctx context.Context, a *engine.Act) error { return write(ctx, a, true) },
	}
}

func (r *rebuild) writeSettings() engine.Step {
	var lines []string
	for _, n := range r.nodes() {
		lines = append(lines, n.Diff)
	}
	title := "write the settings of the new machines, with temporary addresses"
	if r.inPlace() {
		title = "write the settings of the new " + strings.Join(r.names(), ", ")
	}
	return r.settingsStep("2.2-settings", "2.2", title, lines,
		func(_ *engine.Act, fleet pitrix.Fleet) (map[string]*pitrix.Settings, error) {
			out, next := map[string]*pitrix.Settings{}, maps.Clone(fleet)
			for _, n := range r.nodes() {
				s := fleet[n.Name]
				if s == nil || PlanHash(s.Bytes()) != n.Settings {
					return nil, &DriftError{[]string{"the settings of " + n.Name + " have changed"}}
				}
				var err error
				if out[n.Name], err = n.next(s, r.c, false); err != nil {
					return nil, err
				}
				next[n.Name] = out[n.Name]
				if err := n.leafRoutes(next, out, !r.inPlace()); err != nil {
					return nil, err
				}
			}
			return out, nil
		})
}
