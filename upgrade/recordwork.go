package upgrade

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Section 2: what is recorded before anything changes, and compared with the plan.

type inventoryResult struct {
	Blob   string      `json:"blob"` // the inventory as JSON
	Boot   hostos.Boot `json:"boot"`
	Counts string      `json:"counts"`
}

// collect takes an inventory of a host and stores it in the run.
func (t *transition) collect(ctx context.Context, a *engine.Act, l *link) (*hostinv.Inventory, inventoryResult, error) {
	boot, err := hostos.GetBoot(ctx, l)
	if err != nil {
		return nil, inventoryResult{}, fmt.Errorf("host %s: %w", l.target, err)
	}
	inv, err := hostinv.Collect(ctx, l, hostinv.Options{})
	if err != nil {
		return nil, inventoryResult{}, fmt.Errorf("host %s: %w", l.target, err)
	}
	ref, err := putJSON(a, inv)
	if err != nil {
		return nil, inventoryResult{}, err
	}
	return inv, inventoryResult{Blob: ref, Boot: boot, Counts: fmt.Sprintf("%d listeners, %d java processes, %d containers, %d units", len(inv.Listeners), len(inv.Java), len(inv.Containers), len(inv.Units))}, nil
}

func (t *transition) recordInventory() engine.Step {
	return engine.Step{
		ID: "2.1-inventory", Section: "2.1", Effect: engine.ReadOnly,
		Title: "record release, kernel, and everything that runs on " + t.p.Host,
		Lines: []string{"ssh " + t.cfg.Host + " /bin/sh -s < (collector)", fmt.Sprintf("expected: kernel %s, boot %s", t.p.Facts.Boot.Kernel, t.p.Facts.Boot.ID)},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			_, res, err := t.collect(ctx, a, t.e.host(t.cfg.Host))
			if err != nil {
				return nil, err
			}
			var bad []string
			if res.Boot.ID != t.p.Facts.Boot.ID {
				bad = append(bad, fmt.Sprintf("%s was rebooted (kernel %s, was %s)", t.p.Host, res.Boot.Kernel, t.p.Facts.Boot.Kernel))
			}
			var now Facts
			if now.Instance, now.Disks, err = discoverInstance(ctx, t.cfg, t.e); err != nil {
				return nil, err
			}
			if bad = append(bad, driftInstance(&t.p.Facts, &now)...); len(bad) > 0 {
				return nil, &DriftError{bad}
			}
			return res, nil
		},
	}
}

// recordedInventory gives the inventory that 2.1 took.
func recordedInventory(a *engine.Act) (*hostinv.Inventory, error) {
	var r inventoryResult
	if ok, err := a.Result("2.1-inventory", &r); err != nil || !ok {
		return nil, errors.Join(errors.New("internal error: no inventory recorded"), err)
	}
	return getInventory(a, r.Blob)
}

// recorded checks the inventory of 2.1 against the services.
func (t *transition) recorded(check func(*hostinv.Inventory, []Service) []string, a *engine.Act) error {
	inv, err := recordedInventory(a)
	if err != nil {
		return err
	}
	if bad := check(inv, t.cfg.Services); len(bad) > 0 {
		return &DriftError{bad}
	}
	return nil
}

func (t *transition) recordContainers() engine.Step {
	return engine.Step{
		ID: "2.2-containers", Section: "2.2", Effect: engine.ReadOnly,
		Title: "every running container belongs to a service of the plan",
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			return nil, t.recorded(evidence(checkContainers), a)
		},
	}
}

func (t *transition) recordProjects() engine.Step {
	return engine.Step{
		ID: "2.3-projects", Section: "2.3", Effect: engine.ReadOnly,
		Title: "every process started by hand belongs to a service of the plan",
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			return nil, t.recorded(evidence(checkByHand), a)
		},
	}
}

func (t *transition) recordPorts() engine.Step {
	return engine.Step{
		ID: "2.4-ports", Section: "2.4", Effect: engine.ReadOnly,
		Title: "every port of a service is served",
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			return nil, t.recorded(evidence(checkPorts), a)
		},
	}
}

func (t *transition) recordNginx() engine.Step {
	s := engine.Step{
		ID: "2.5-nginx-refs", Section: "2.5", Effect: engine.ReadOnly,
		Title: "the nginx files that lead to " + t.p.Host + " are as planned",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			now, err := discoverNginx(ctx, t.cfg, t.e)
			if err != nil {
				return nil, err
			}
			if d := driftNginx(t.p.Facts.Nginx, now); len(d) > 0 {
				return nil, &DriftError{d}
			}
			return now, nil
		},
	}
	for _, n := range t.p.Facts.Nginx {
		for _, r := range n.Refs {
			s.Lines = append(s.Lines, fmt.Sprintf("%s %s:%d %s %s", n.Host, r.File, r.Line, r.Kind, r.Addr))
		}
	}
	return s
}

func (t *transition) recordBalancers() engine.Step {
	s := engine.Step{
		ID: "2.6-balancers", Section: "2.6", Effect: engine.ReadOnly,
		Title: "the balancers that lead to " + t.p.Host + " are as planned",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			now, err := discoverBalancers(ctx, t.cfg, t.e, t.p.Facts.Instance)
			if err != nil {
				return nil, err
			}
			if d := append(driftBalancers(t.p.Facts.Memberships, now), driftListeners(&t.p.Facts, now)...); len(d) > 0 {
				return nil, &DriftError{d}
			}
			return now, nil
		},
	}
	for _, m := range t.p.Facts.Memberships {
		s.Lines = append(s.Lines, fmt.Sprintf("%s: weight %d, %d listeners, %d backends", groupName(m), m.Backend.Weight, len(m.Listeners), len(m.Backends)))
		for _, f := range m.Findings() {
			if !f.Blocking {
				s.Lines = append(s.Lines, "to be known: "+f.String())
			}
		}
	}
	return s
}

func (t *transition) recordDirect() engine.Step {
	s := engine.Step{
		ID: "2.7-direct", Section: "2.7", Effect: engine.ReadOnly,
		Title: "who reaches " + t.p.Host + " past nginx and the balancers (such traffic is not moved)",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			now := t.p.Facts
			var err error
			if now.Inventory, err = recordedInventory(a); err != nil {
				return nil, err
			}
			peers, err := discoverDirect(ctx, t.cfg, t.e, &now)
			if err != nil {
				return nil, err
			}
			for _, peer := range peers {
				a.Progress("not moved: %s", peer)
			}
			// Paths and Forwarding of the plan are not to be touched.
			now.Paths, now.Forwarding = nil, nil
			if err := discoverPaths(ctx, t.cfg, t.e, &now); err != nil {
				return nil, err
			}
			if bad := driftPaths(t.cfg, &t.p.Facts, &now); len(bad) > 0 {
				return nil, &DriftError{bad}
			}
			return map[string][]string{"direct": peers}, nil
		},
	}
	s.Lines = append(s.Lines, t.p.Facts.Direct...)
	for _, f := range t.p.Facts.Paths {
		line := f.String()
		if t.cfg.accepts(Finding{ID: "path-" + f.Kind, Severity: FindingBlocking, Object: f.ID}) != "" {
			line += " (accepted)"
		}
		s.Lines = append(s.Lines, line)
	}
	return s
}

// moveDomains waits until a person has moved the domains that lead straight to
// the host, and looks whether that is so.
func (t *transition) moveDomains() engine.Step {
	items := t.p.Facts.Forwarding
	s := engine.Step{
		ID: "2.7-domains", Section: "2.7", Effect: engine.ReadOnly,
		Title: "no domain leads to " + t.p.Host + " past the balancers",
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if len(items) == 0 {
				return engine.Proposal{NotApplicable: "no domain does"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var left []string
			for _, i := range items {
				still, err := t.e.SLB.CheckForwarding(ctx, t.e.resolver, i)
				if err != nil {
					return nil, err
				}
				for _, l := range still {
					left = append(left, i.Domain+": "+l)
				}
			}
			if len(left) > 0 {
				return nil, fmt.Errorf("domains still lead to %s past the balancers: %s", t.p.Host, strings.Join(left, "; "))
			}
			return items, nil
		},
	}
	for _, i := range items {
		s.Lines = append(s.Lines, i.String())
	}
	if len(items) > 0 {
		s.Gate = fmt.Sprintf("%d domains lead straight to %s; approve when they are moved as listed (it is looked at once more)", len(items), t.p.Host)
	}
	return s
}
