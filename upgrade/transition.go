package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// transitionSteps is the transition upgrade: traffic moves off a production
// host while that host is upgraded. The numbers are the sections of
// docs/transition.md. With a nil Env the steps can be listed, not run.
func transitionSteps(p *Plan, e *Env) []engine.Step {
	t := &transition{p: p, cfg: &p.Config, e: e}
	steps := []engine.Step{
		t.recordInventory(),    // 2.1
		t.recordContainers(),   // 2.2
		t.recordProjects(),     // 2.3
		t.keepRestart(),        // 2.3
		t.keepIdentity(),       // 2.3
		t.recordPorts(),        // 2.4
		t.recordNginx(),        // 2.5
		t.recordBalancers(),    // 2.6
		t.recordDirect(),       // 2.7
		t.moveDomains(),        // 2.7
		t.recordHealth(),       // 2.7
		t.createSnapshots(),    // 3.1
		t.createImage(),        // 3.2
		t.createClone(),        // 3.3
		t.recordAddresses(),    // 3.4
		t.checkQuarantine(),    // 3.4
		t.checkTrust(),         // 3.4
		t.releaseUnits(),       // 3.4
		t.setVault(old),        // 3.5
		t.upgradeDocker(old),   // 3.5
		t.upgradeOS(old),       // 3.6
		t.reboot(old),          // 3.6
		t.startContainers(old), // 3.7
		t.startServices(old),   // 3.8
		t.joinGroups(),         // 3.9
		t.holdClone(),          // 3.9
		t.addToNginx(),         // 3.9
		t.addToBalancers(),     // 3.10
		t.observeClone(),       // 3.11
		t.healthGate(old, "3.11-health", "3.11"),
		t.drainBalancers(),                // 4.1
		t.drainNginx(),                    // 4.2
		t.proveSilence(),                  // 4.3
		t.replayed(t.checkReplay()),       // 4.3
		t.checkWritten(),                  // 4.3
		t.imageClone(),                    // 4.3
		t.stopProduction(),                // 4.4
		t.replayed(t.setVault(prod)),      // 4.5
		t.snapshotBeforeOS(),              // 4.5
		t.replayed(t.upgradeDocker(prod)), // 4.5
		t.replayed(t.beginExternal()),     // 4.5
		t.replayed(t.upgradeOS(prod)),     // 4.5
		t.haltProduction(),                // 4.5
		t.replaceDisk(),                   // 4.5
		t.startProduction(),               // 4.5
		t.settle(),                        // 4.5
		t.reboot(prod),                    // 4.5
		t.startContainers(prod),           // 4.5
		t.startServices(prod),             // 4.5
		t.compareInventory(),              // 4.5
		t.restoreNginx(),                  // 4.6
		t.restoreBalancers(),              // 4.7
		t.observeProduction(),             // 4.8
		t.healthGate(prod, "4.8-health", "4.8"),
		t.removeFromBalancers(), // 4.9
		t.removeFromNginx(),     // 4.9
		t.proveCloneSilence(),   // 4.9
		t.expireClone(),         // 4.9
		t.stopClone(),           // 5.1
		t.stopCloneInstance(),   // 5.2
		t.releaseClone(),        // 5.3
		t.dropRestart(),         // 5.3
		t.verifyEnd(),           // 5.3
	}
	for _, section := range p.Config.Gates {
		i := slices.IndexFunc(steps, func(s engine.Step) bool { return s.Section == section })
		if i >= 0 && steps[i].Gate == "" {
			steps[i].Gate = gateText(section, p)
		}
	}
	return t.windowed(t.pinned(steps))
}

// gateText is what a person is asked before a section.
func gateText(section string, p *Plan) string {
	switch section {
	case "4.1":
		return fmt.Sprintf("the transition host serves; take traffic off %s?", p.Host)
	case "4.4":
		return fmt.Sprintf("%s gets no traffic; stop its services and upgrade it? From the package transaction on there is no rollback, only parking", p.Host)
	case "5.3":
		return fmt.Sprintf("%s serves alone again; release the transition host and its image?", p.Host)
	}
	return "go on with section " + section + "?"
}

// transition is what the steps share: the plan and the way to the world.
// Nothing of a run is kept in it; that is the journal's.
type transition struct {
	p   *Plan
	cfg *Config
	e   *Env
}

// Which of the two hosts a step of sections 3.5 to 3.8 works on: the runbook
// does the same on both, in 3.5-3.8 and again in 4.5.
type role string

const (
	old  role = "transition" // the transition host, first in time
	prod role = "production"
)

// id gives the step ID of work that is done on both hosts.
func (r role) id(section, word string) (id, sec string) {
	if r == prod {
		section = "4.5"
	}
	return section + "-" + word, section
}

// cloneFacts is the result of step 3.4: everything later steps need to reach
// the transition host.
type cloneFacts struct {
	InstanceID string      `json:"instance_id"`
	PrivateIP  string      `json:"private_ip"`
	PublicIPs  []string    `json:"public_ips"`
	Target     string      `json:"target"`    // SSH target
	HostKeys   []string    `json:"host_keys"` // read through Cloud Assistant, not over the network
	Boot       hostos.Boot `json:"boot"`
}

// clone gives the transition host of the run and the link to it.
func (t *transition) clone(a *engine.Act) (cloneFacts, *link, error) {
	var c cloneFacts
	ok, err := a.Result("3.4-addresses", &c)
	if err != nil {
		return c, nil, err
	}
	if !ok {
		return c, nil, errors.New("internal error: the transition host is not recorded yet")
	}
	if err := t.e.Dialer.Pin(c.Target, c.HostKeys); err != nil {
		return c, nil, err
	}
	return c, t.e.host(c.Target), nil
}

// on gives the link and the private address of the host a step works on.
func (t *transition) on(a *engine.Act, r role) (*link, string, error) {
	if r == prod {
		return t.e.host(t.cfg.Host), t.cfg.Address, nil
	}
	c, l, err := t.clone(a)
	return l, c.PrivateIP, err
}

// tags mark everything a step makes in the cloud.
func (t *transition) tags(a *engine.Act) map[string]string {
	return map[string]string{runTag: a.RunID(), "upgradectl:step": a.StepID(), "upgradectl:key": a.Key()}
}

// stepTags find again what a step made in any of its attempts.
func stepTags(a *engine.Act, step string) map[string]string {
	return map[string]string{runTag: a.RunID(), "upgradectl:step": step}
}

// notMade turns the error of a create that surely came to nothing into a
// definitive one, so that the next attempt has a token of its own: the cloud
// refused it, or what it made ended in a state that it never leaves. What is
// there of it is cleaned up first. Throttling, trouble with credentials and
// lost answers say nothing about the create; it goes on with the same token.
func notMade(ctx context.Context, err error, cleanUp func(context.Context) error) error {
	var refused *ecs.Error
	var state *ecs.StateError
	switch {
	case errors.As(err, &state):
	case errors.As(err, &refused) && refused.Definitive && !errors.Is(err, ecs.ErrCredentials) &&
		(refused.Action == "RunInstances" || strings.HasPrefix(refused.Action, "Create")):
	default:
		return err
	}
	if cerr := cleanUp(ctx); cerr != nil {
		return errors.Join(err, cerr)
	}
	return engine.Definitive(err)
}

// keyTag finds again what this attempt made.
func keyTag(a *engine.Act) map[string]string {
	return map[string]string{"upgradectl:key": a.Key()}
}

// adopted tells whether the transition host existed before the run.
func (t *transition) adopted() bool { return t.cfg.Transition.Instance != "" }

// ---- 2 records ----

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

// checkTrust looks for databases that let production in by its address and
// would not let the transition host in.
func (t *transition) checkTrust() engine.Step {
	return engine.Step{
		ID: "3.4-trust", Section: "3.4", Effect: engine.ReadOnly,
		Title: "whoever lets production in by its address lets the transition host in",
		Lines: []string{"allow lists of RDS, Redis, MongoDB and PolarDB; rules of security groups"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if t.cfg.Paths.Check == PathsNone {
				return engine.Proposal{NotApplicable: "paths.check is none"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			c, _, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			in := t.p.Facts.Instance
			found, err := t.e.ECS.ListTrust(ctx, ecs.TrustQuery{Old: in.PrivateIPs, New: []string{c.PrivateIP}, VPC: in.VPC, Groups: in.SecurityGroups})
			if err != nil {
				return nil, err
			}
			var bad []string
			for _, f := range found {
				x := trustFinding(f)
				x.Accepted = t.cfg.accepts(x)
				switch {
				case x.Accepted != "":
					a.Progress("accepted by %q: %s", x.Accepted, f)
				case x.open():
					bad = append(bad, x.Text())
				default:
					a.Progress("%s", f)
				}
			}
			if len(bad) > 0 {
				return nil, fmt.Errorf("the transition host %s would be refused where production is not: %s; put that right and resume", c.PrivateIP, strings.Join(bad, "; "))
			}
			return found, nil
		},
	}
}

// ---- 3.1 to 3.4: the transition host comes into being ----

type snapshotParams struct {
	Input ecs.SnapshotInput `json:"input"`
}

type snapshotResult struct {
	GroupID   string         `json:"group_id,omitempty"` // "" when each disk was taken by itself
	Snapshots []ecs.Snapshot `json:"snapshots"`
}

func (t *transition) createSnapshots() engine.Step {
	s := t.snapshotStep("3.1-snapshots", "3.1", "snapshot every disk of "+t.p.Host)
	plan := s.Plan
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		if t.adopted() {
			return engine.Proposal{NotApplicable: "transition host " + t.cfg.Transition.Instance + " exists already and is adopted"}, nil
		}
		return plan(ctx, a)
	}
	return s
}

// snapshotBeforeOS takes one more picture of production, with its services
// stopped, right before its package transaction.
func (t *transition) snapshotBeforeOS() engine.Step {
	return t.snapshotStep("4.5-snapshots", "4.5", "snapshot every disk of "+t.p.Host+" once more, quiet, before its upgrade")
}

func (t *transition) snapshotStep(id, section, title string) engine.Step {
	how := "ecs CreateSnapshotGroup, all of one moment"
	if why := ecs.NoSnapshotGroup(t.p.Facts.Disks); why != "" {
		how = "ecs CreateSnapshot, one by one (" + why + ")"
	}
	lines := []string{fmt.Sprintf("%s, kept for %d days", how, t.cfg.Snapshots.RetentionDays)}
	for _, d := range t.p.Facts.Disks {
		lines = append(lines, fmt.Sprintf("%s (%s, %d GiB)", d.ID, d.Type, d.Size))
	}
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.TokenCreate, Lines: lines,
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{Params: snapshotParams{ecs.SnapshotInput{
				InstanceID: t.p.Facts.Instance.ID, Token: a.Key(), Name: "upgradectl-" + a.RunID() + "-" + section,
				RetentionDays: t.cfg.Snapshots.RetentionDays, Tags: t.tags(a),
			}}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			have, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			// The snapshots of a group get their tags after it.
			groups, err := t.e.ECS.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			if len(have)+len(groups) == 0 {
				return engine.Sight{State: engine.Absent}, nil
			}
			// Do finds them by their token, makes the missing ones, and waits.
			return engine.Sight{State: engine.InProgress, Detail: fmt.Sprintf("%d groups and %d snapshots exist", len(groups), len(have))}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p snapshotParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			cleanUp := func(ctx context.Context) error { return t.deleteSnapshots(ctx, a) }
			made, err := t.e.ECS.CreateSnapshotSet(ctx, p.Input)
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			if made.Reason != "" {
				a.Progress("%s", made.Reason)
			}
			ids := make([]string, len(made.Snapshots))
			for i, s := range made.Snapshots {
				ids[i] = s.ID
			}
			var done []ecs.Snapshot
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) (err error) {
				done, err = t.e.ECS.WaitSnapshots(ctx, ids, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return snapshotResult{made.GroupID, done}, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var r snapshotResult
			if _, err := a.Own(&r); err != nil {
				return nil, err
			}
			if len(r.Snapshots) != len(t.p.Facts.Disks) {
				return nil, fmt.Errorf("%s has %d disks, but %d snapshots were made", t.p.Host, len(t.p.Facts.Disks), len(r.Snapshots))
			}
			return nil, nil
		},
		Undo: t.deleteSnapshots,
	}
}

// deleteSnapshots deletes what the step has made.
func (t *transition) deleteSnapshots(ctx context.Context, a *engine.Act) error {
	groups, err := t.e.ECS.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: stepTags(a, a.StepID())})
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := t.e.ECS.DeleteSnapshotGroup(ctx, g.ID); err != nil {
			return err
		}
	}
	have, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: stepTags(a, a.StepID())})
	if err != nil {
		return err
	}
	for _, s := range have {
		if err := t.e.ECS.DeleteSnapshot(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// whileMoving waits for something of the cloud for as long as it makes
// progress: a large snapshot takes hours, and one that has stood still for
// pace.cloud_timeout will not go on.
func (t *transition) whileMoving(ctx context.Context, a *engine.Act, wait func(context.Context, func(ecs.Progress)) error) error {
	limit := t.cfg.Pace.CloudTimeout
	moving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := fmt.Errorf("no progress for %s", short(limit))
	timer := time.AfterFunc(limit, func() { stop(stalled) })
	defer timer.Stop()
	tell := t.progress(a)
	var mu sync.Mutex
	last := ""
	err := wait(moving, func(p ecs.Progress) {
		timer.Reset(limit)
		mu.Lock()
		last = fmt.Sprintf("%s %s %d%%", p.ID, p.Status, p.Percent)
		mu.Unlock()
		tell(p)
	})
	if err != nil && context.Cause(moving) == stalled {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Errorf("%w: %w (last: %s)", err, stalled, last)
	}
	return err
}

// progress passes the cloud's own progress on.
func (t *transition) progress(a *engine.Act) func(ecs.Progress) {
	return func(p ecs.Progress) {
		line := fmt.Sprintf("%s %s: %s", p.Object, p.ID, p.Status)
		if p.Percent >= 0 {
			line += fmt.Sprintf(" %d%%", p.Percent)
		}
		if p.Remaining > 0 {
			line += fmt.Sprintf(", %s to go", p.Remaining.Round(time.Second))
		}
		a.Progress("%s", line)
	}
}

type imageParams struct {
	Input ecs.ImageInput `json:"input"`
}

type imageResult struct {
	ImageID string `json:"image_id"`
}

func (t *transition) createImage() engine.Step {
	return engine.Step{
		ID: "3.2-image", Section: "3.2", Effect: engine.TokenCreate,
		Title: "make an image from the snapshots",
		Lines: []string{"ecs CreateImage DiskDeviceMapping.N.SnapshotId=(from 3.1)"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.adopted() {
				return engine.Proposal{NotApplicable: "the transition host is adopted"}, nil
			}
			var s snapshotResult
			if ok, err := a.Result("3.1-snapshots", &s); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no snapshots recorded"), err)
			}
			return engine.Proposal{Params: imageParams{ecs.ImageInput{Name: "upgradectl-" + a.Key(), Token: a.Key(), Snapshots: s.Snapshots, Tags: t.tags(a)}}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			switch {
			case err != nil:
				return engine.Sight{}, err
			case len(have) == 0:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "image " + have[0].ID + " exists"}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p imageParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			cleanUp := func(ctx context.Context) error { return t.deleteImages("3.2-image")(ctx, a) }
			// The image may be there from before a crash; a token that the cloud
			// has forgotten must not make a second one.
			have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			if err != nil {
				return nil, err
			}
			var id string
			if len(have) > 0 {
				id = have[0].ID
			} else if id, err = t.e.ECS.CreateImage(ctx, p.Input); err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) error {
				_, err := t.e.ECS.WaitImage(ctx, id, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return imageResult{id}, nil
		},
		Undo: t.deleteImages("3.2-image"),
	}
}

// deleteImages deletes what the image step made.
func (t *transition) deleteImages(step string) func(context.Context, *engine.Act) error {
	return func(ctx context.Context, a *engine.Act) error {
		have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: stepTags(a, step)})
		if err != nil {
			return err
		}
		for _, im := range have {
			if err := t.e.ECS.DeleteImage(ctx, im.ID); err != nil {
				return err
			}
		}
		return nil
	}
}

type cloneParams struct {
	Input      ecs.CloneInput `json:"input"`
	Quarantine QuarantinePlan `json:"quarantine"` // what its user data holds back
}

type instanceResult struct {
	InstanceID string `json:"instance_id"`
}

func (t *transition) createClone() engine.Step {
	return engine.Step{
		ID: "3.3-clone", Section: "3.3", Effect: engine.TokenCreate,
		Title: "make the transition host " + t.cfg.Transition.Name + " from the image",
		Lines: t.cloneLines(),
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.adopted() {
				return engine.Proposal{NotApplicable: "transition host " + t.cfg.Transition.Instance + " is adopted"}, nil
			}
			var im imageResult
			if ok, err := a.Result("3.2-image", &im); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no image recorded"), err)
			}
			in := cloneInput(t.cfg, &t.p.Facts, im.ImageID)
			in.Token, in.AutoRelease, in.Tags = a.Key(), t.expiry(), t.tags(a)
			inv, err := recordedInventory(a)
			if err != nil {
				return engine.Proposal{}, err
			}
			hold := PlanQuarantine(inv, t.cfg)
			if in.UserData, err = hold.ecs().UserData(); err != nil {
				return engine.Proposal{}, err
			}
			// Whatever the cloud has against it is better known before the intent.
			if err := t.e.ECS.DryRunClone(ctx, in); err != nil {
				return engine.Proposal{}, err
			}
			return engine.Proposal{Params: cloneParams{in, hold}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			have, err := t.e.ECS.ListInstances(ctx, ecs.Filter{Tags: keyTag(a)})
			switch {
			case err != nil:
				return engine.Sight{}, err
			case len(have) == 0:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "instance " + have[0].ID + " is " + have[0].Status}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p cloneParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			cleanUp := func(ctx context.Context) error { return t.releaseMade(ctx, a) }
			have, err := t.e.ECS.ListInstances(ctx, ecs.Filter{Tags: keyTag(a)})
			if err != nil {
				return nil, err
			}
			var id string
			if len(have) > 0 {
				id = have[0].ID
			} else if id, err = t.e.ECS.CreateClone(ctx, p.Input); err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			if _, err := t.e.ECS.WaitInstance(wait, id, "Running", t.progress(a)); err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return instanceResult{id}, nil
		},
		Undo: t.releaseMade,
	}
}

// releaseMade releases what step 3.3 has made, in whichever attempt.
func (t *transition) releaseMade(ctx context.Context, a *engine.Act) error {
	have, err := t.e.ECS.ListInstances(ctx, ecs.Filter{Tags: stepTags(a, "3.3-clone")})
	if err != nil {
		return err
	}
	for _, in := range have {
		if err := t.release(ctx, a, in.ID); err != nil {
			return err
		}
	}
	return nil
}

// release stops and deletes an instance of this run. It refuses one that a
// balancer still knows: its requests would be lost.
func (t *transition) release(ctx context.Context, a *engine.Act, id string) error {
	in, err := t.e.ECS.GetInstance(ctx, id)
	if errors.Is(err, ecs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := t.e.SLB.Discover(ctx, slb.Server{InstanceID: id, ENIs: in.ENIs, IPs: in.PrivateIPs})
	if err != nil {
		return err
	}
	if len(m) > 0 {
		return fmt.Errorf("cannot release %s: it is still a backend of %s; remove it there first", id, groupName(m[0]))
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	if err := t.halt(ctx, a, in); err != nil {
		return err
	}
	return t.e.ECS.DeleteInstance(ctx, id, t.guard(a))
}

// halt stops an instance, whatever it is doing: one that is on its way up, after
// a start or as a new one, cannot be stopped before it is there.
func (t *transition) halt(ctx context.Context, a *engine.Act, in *ecs.Instance) error {
	var err error
	if in.Status == "Pending" || in.Status == "Starting" {
		if in, err = t.e.ECS.WaitInstance(ctx, in.ID, "Running", t.progress(a)); err != nil {
			return err
		}
	}
	if in.Status == "Running" {
		if err := t.e.ECS.StopInstance(ctx, in.ID); err != nil {
			return err
		}
	}
	_, err = t.e.ECS.WaitInstance(ctx, in.ID, "Stopped", t.progress(a))
	return err
}

// guard lets only an instance of this run be deleted, or an adopted one whose
// owner has marked it.
func (t *transition) guard(a *engine.Act) ecs.Guard {
	if t.adopted() {
		return ecs.Guard{TagKey: releaseTag, TagValue: "yes"}
	}
	return ecs.Guard{TagKey: runTag, TagValue: a.RunID()}
}

func (t *transition) recordAddresses() engine.Step {
	return engine.Step{
		ID: "3.4-addresses", Section: "3.4", Effect: engine.ReadOnly,
		Title: "record the transition host's inner and outer addresses and its SSH host keys",
		Lines: []string{"ecs RunCommand (reads the SSH host keys out of band)"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			id := t.cfg.Transition.Instance
			if !t.adopted() {
				var r instanceResult
				if ok, err := a.Result("3.3-clone", &r); err != nil || !ok {
					return nil, errors.Join(errors.New("internal error: no instance recorded"), err)
				}
				id = r.InstanceID
			}
			in, err := t.e.ECS.GetInstance(ctx, id)
			if err != nil {
				return nil, err
			}
			if len(in.PrivateIPs) == 0 {
				return nil, fmt.Errorf("instance %s has no private address", id)
			}
			if t.adopted() {
				// Days may lie between the plan and this.
				err = t.idle(ctx, *in)
			} else {
				err = t.asPlanned(ctx, id)
			}
			if err != nil {
				return nil, err
			}
			c := cloneFacts{InstanceID: id, PrivateIP: in.PrivateIPs[0], PublicIPs: in.PublicIPs, Target: strings.ReplaceAll(t.cfg.Transition.SSH, "{address}", in.PrivateIPs[0])}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			if c.HostKeys, err = t.e.ECS.HostKeys(ctx, id); err != nil {
				return nil, fmt.Errorf("cannot read the SSH host keys of %s through Cloud Assistant: %w", id, err)
			}
			if err := t.e.Dialer.Pin(c.Target, c.HostKeys); err != nil {
				return nil, err
			}
			if c.Boot, err = t.waitBoot(ctx, a, t.e.host(c.Target), ""); err != nil {
				return nil, err
			}
			if c.Boot.ID == t.p.Facts.Boot.ID {
				return nil, fmt.Errorf("%s leads to the production host, not to %s; check transition.ssh", c.Target, id)
			}
			a.Progress("%s: inner address %s, outer addresses %v", id, c.PrivateIP, c.PublicIPs)
			return c, nil
		},
	}
}

// asPlanned sees that the cloud has made the transition host as it was told to,
// and that nobody has changed it since: what stands behind other security
// groups, in another network or in another role serves differently.
func (t *transition) asPlanned(ctx context.Context, id string) error {
	got, _, err := t.e.ECS.GetDetails(ctx, id)
	if err != nil {
		return err
	}
	want := t.p.Facts.Instance
	groups := t.cfg.Transition.Quarantine.groups()
	if len(groups) == 0 {
		groups = want.SecurityGroups
	}
	var bad []string
	for _, f := range []struct{ name, want, got string }{
		{"security groups", sorted(groups), sorted(got.SecurityGroups)},
		{"instance type", want.Type, got.Type},
		{"zone", want.Zone, got.Zone},
		{"VPC", want.VPC, got.VPC},
		{"vSwitch", want.VSwitch, got.VSwitch},
		{"RAM role", want.RAMRole, got.RAMRole},
	} {
		if f.want != f.got {
			bad = append(bad, fmt.Sprintf("%s: planned %s, is %s", f.name, cmp.Or(f.want, "none"), cmp.Or(f.got, "none")))
		}
	}
	if slices.ContainsFunc(got.PrivateIPs, func(ip string) bool { return slices.Contains(want.PrivateIPs, ip) }) {
		bad = append(bad, fmt.Sprintf("private addresses: %v, which production has", got.PrivateIPs))
	}
	if public := len(got.PublicIPs) > 0; public && !t.cfg.Transition.PublicIP {
		bad = append(bad, fmt.Sprintf("public addresses: planned none, has %v", got.PublicIPs))
	}
	if len(bad) > 0 {
		return &DriftError{[]string{fmt.Sprintf("transition host %s is not as planned: %s; it gets no traffic: put that right and resume, or roll back", id, strings.Join(bad, "; "))}}
	}
	return nil
}

func sorted(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// idle checks that an adopted transition host still serves nobody and stays.
func (t *transition) idle(ctx context.Context, in ecs.Instance) error {
	serves, err := discoverAdopted(ctx, t.cfg, t.e, in)
	switch {
	case err != nil:
		return err
	case len(serves) > 0:
		return &DriftError{[]string{fmt.Sprintf("transition.instance %s serves by now: %s", in.ID, strings.Join(serves, "; "))}}
	case !in.AutoReleaseTime.IsZero():
		return &DriftError{[]string{fmt.Sprintf("transition.instance %s is released by itself at %s", in.ID, in.AutoReleaseTime.Format(time.RFC3339))}}
	}
	return nil
}

// cloneLines is what a person should know of the transition host before it is
// made.
func (t *transition) cloneLines() []string {
	f := &t.p.Facts
	lines := []string{fmt.Sprintf("ecs RunInstances ImageId=(from 3.2) InstanceType=%s ZoneId=%s VSwitchId=%s InstanceChargeType=PostPaid AutoReleaseTime=+%s public address: %t",
		f.Instance.Type, f.Instance.Zone, f.Instance.VSwitch, t.cfg.Transition.AutoRelease, t.cfg.Transition.PublicIP)}
	if f.Price != nil {
		lines = append(lines, fmt.Sprintf("costs %.2f %s an hour", f.Price.Hourly, f.Price.Currency))
	}
	for _, b := range f.Blockers {
		line := fmt.Sprintf("unlike production: %s: %s", b.Object, b.Reason)
		if b.Remedy != "" && b.Remedy != "none" {
			line += "; " + b.Remedy
		}
		lines = append(lines, line)
	}
	for _, u := range f.Unasked {
		lines = append(lines, "not known: "+u)
	}
	if t.adopted() {
		return lines
	}
	return append(lines, PlanQuarantine(f.Inventory, t.cfg).lines()...)
}

// when gives lines of a plan if they say something.
func when(cond bool, lines ...string) []string {
	if cond {
		return lines
	}
	return nil
}
