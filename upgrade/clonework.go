package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.3 and 3.4: the transition host comes into being, and is known.

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
				if wait.Err() != nil && ctx.Err() == nil {
					err = fmt.Errorf("%w; %s", err, t.evidenceOf(ctx, a, id))
				}
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
