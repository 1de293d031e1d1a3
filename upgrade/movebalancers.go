package upgrade

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.10, 4.1, 4.7 and 4.9 on the balancers: traffic moves, and only on
// proof.

// A weightChange is one backend of one group: From is what is there before.
type weightChange struct {
	Name    string      `json:"name"`
	Group   slb.Group   `json:"group"`
	Backend slb.Backend `json:"backend"`
	From    int         `json:"from"`
	To      int         `json:"to"`
}

type weightParams struct {
	Changes []weightChange `json:"changes"`
}

// arrows shows the way of a weight to 0.
func arrows(from int, steps []int) string {
	s := strconv.Itoa(from)
	for _, w := range append(slices.Clone(steps), 0) {
		if w < from {
			s += " → " + strconv.Itoa(w)
		}
	}
	return s
}

// rises shows the way of a weight from 0.
func rises(to int, steps []int) string {
	s := "weight "
	for _, w := range steps {
		if w < to {
			s += strconv.Itoa(w) + " → "
		}
	}
	return s + strconv.Itoa(to)
}

func groupName(m slb.Membership) string {
	g := "default group"
	if m.VServerGroupID != "" {
		g = m.VServerGroupID
	}
	s := strings.TrimSpace(m.LoadBalancerID + " " + g)
	if m.Backend.Port != 0 {
		s += fmt.Sprintf(" port %d", m.Backend.Port)
	}
	return s
}

// getBackend reads one backend of a group.
func (t *transition) getBackend(ctx context.Context, g slb.Group, b slb.Backend) (slb.Backend, bool, error) {
	all, err := t.e.SLB.ListBackends(ctx, g)
	if err != nil {
		return b, false, err
	}
	for _, x := range all {
		if x.ServerID == b.ServerID && x.Port == b.Port && (b.ServerIP == "" || x.ServerIP == b.ServerIP) {
			return x, true, nil
		}
	}
	return b, false, nil
}

// ours lists the weights that a change passes through, up or down: any of them
// may be there after an interruption. A member is added with weight 1.
func (t *transition) ours(c weightChange) []int {
	top := max(c.From, c.To)
	all := []int{c.From, c.To, 0, min(1, top)}
	for _, w := range slices.Concat(t.cfg.Weights.Up, t.cfg.Weights.Down) {
		if w < top {
			all = append(all, w)
		}
	}
	return all
}

// setWeight sets a weight unless somebody else has set one that is not ours.
func (t *transition) setWeight(ctx context.Context, c weightChange, to int) error {
	allowed := t.ours(c)
	b, ok, err := t.getBackend(ctx, c.Group, c.Backend)
	if err != nil {
		return err
	}
	if !ok {
		return &engine.ConflictError{Object: c.Name, Before: fmt.Sprintf("weight %d", c.From), Ours: fmt.Sprintf("weight %d", to), Now: "not a backend any more"}
	}
	if b.Weight == to {
		return nil
	}
	if !slices.Contains(allowed, b.Weight) {
		return &engine.ConflictError{Object: c.Name, Before: fmt.Sprintf("weight %d", c.From), Ours: fmt.Sprintf("weight %d", to), Now: fmt.Sprintf("weight %d", b.Weight)}
	}
	return t.e.SLB.SetWeight(ctx, c.Group, b, to)
}

// ramp brings backends into service by small weights, each after they were
// seen healthy on every listener at the one before. Weight 0 would not do for
// the first look: layer-4 health is not measured there.
func (t *transition) ramp(ctx context.Context, a *engine.Act, r role, changes []weightChange) error {
	for _, step := range append(slices.Clone(t.cfg.Weights.Up), 100) {
		moved := false
		for _, c := range changes {
			to := min(step, c.To) // 0 stays 0: it serves nothing, before and after
			b, ok, err := t.getBackend(ctx, c.Group, c.Backend)
			if err != nil {
				return err
			}
			if ok && b.Weight >= to {
				continue
			}
			if err := t.setWeight(ctx, c, to); err != nil {
				return err
			}
			a.Progress("%s: weight %d", c.Name, to)
			moved = true
		}
		if !moved && step < 100 {
			continue
		}
		if err := t.waitServing(ctx, a, r); err != nil {
			return err
		}
	}
	return nil
}

// member is how the transition host is a member of a group in the place of
// production: by its instance, or by its address where groups take addresses
// only.
func (c cloneFacts) member(m slb.Membership) slb.Backend {
	b := slb.Backend{ServerID: c.InstanceID, Type: "ecs", Port: m.Backend.Port, Description: m.Backend.Description}
	if m.Backend.Type == "ip" {
		b.ServerID, b.Type = c.PrivateIP, "ip"
	}
	return b
}

// entering lists where the transition host becomes a member, and with which
// weight in the end. Where production is in one group twice (by its instance and
// by an interface) the transition host has the weights of both.
func (t *transition) entering(c cloneFacts) []weightChange {
	var out []weightChange
	for _, m := range t.p.Facts.Memberships {
		b := c.member(m)
		i := slices.IndexFunc(out, func(o weightChange) bool {
			return o.Group == m.Group() && o.Backend.ServerID == b.ServerID && o.Backend.Port == b.Port
		})
		if i >= 0 {
			out[i].To = min(100, out[i].To+m.Backend.Weight)
			continue
		}
		out = append(out, weightChange{Name: groupName(m), Group: m.Group(), Backend: b, To: m.Backend.Weight})
	}
	return out
}

// enter makes the transition host a member with the smallest weight, or takes
// one that is there at weight 0 up to it, and ramps it up.
func (t *transition) enter(ctx context.Context, a *engine.Act, changes []weightChange) error {
	for _, c := range changes {
		b := c.Backend
		b.Weight = min(1, c.To)
		have, ok, err := t.getBackend(ctx, c.Group, b)
		switch {
		case err != nil:
			return err
		case ok && have.Weight >= b.Weight:
		case ok:
			if err := t.e.SLB.SetWeight(ctx, c.Group, have, b.Weight); err != nil {
				return err
			}
		default:
			if err := t.e.SLB.AddBackend(ctx, c.Group, b); err != nil {
				return err
			}
		}
	}
	return t.ramp(ctx, a, old, changes)
}

// carries checks that the transition host has the weights that it was ramped up
// to. Serving with a smaller one, which somebody has set, it would leave the
// other members more than their share.
func (t *transition) carries(ctx context.Context, a *engine.Act) error {
	c, _, err := t.clone(a)
	if err != nil {
		return err
	}
	for _, w := range t.entering(c) {
		b, ok, err := t.getBackend(ctx, w.Group, w.Backend)
		if err != nil {
			return err
		}
		if !ok || b.Weight < w.To {
			now := "no member"
			if ok {
				now = fmt.Sprintf("weight %d", b.Weight)
			}
			return &engine.ConflictError{Object: w.Name + ", transition host", Before: "no member", Ours: fmt.Sprintf("weight %d", w.To), Now: now}
		}
	}
	return nil
}

// restored checks that production has the weights back that were recorded; more
// is fine.
func (t *transition) restored(ctx context.Context) error {
	for _, m := range t.p.Facts.Memberships {
		b, ok, err := t.getBackend(ctx, m.Group(), m.Backend)
		if err != nil {
			return err
		}
		if !ok || b.Weight < m.Backend.Weight {
			now := "no member"
			if ok {
				now = fmt.Sprintf("weight %d", b.Weight)
			}
			return &engine.ConflictError{Object: groupName(m) + ", " + t.p.Host, Before: fmt.Sprintf("weight %d", m.Backend.Weight), Ours: "the transition host out of the group", Now: now}
		}
	}
	return nil
}

// serving checks that a host takes requests in every group of the plan that
// sends production some: weight above 0, and healthy on every listener that
// checks it. It is asked immediately before the other host's share is taken
// away.
func (t *transition) serving(ctx context.Context, a *engine.Act, r role) error {
	var targets []slb.Target
	for _, m := range t.p.Facts.Memberships {
		want := m.Backend // production may be a member by a network interface
		if r == old {
			c, _, err := t.clone(a)
			if err != nil {
				return err
			}
			want = c.member(m)
		}
		if m.Backend.Weight == 0 {
			if _, ok, err := t.getBackend(ctx, m.Group(), want); err != nil {
				return err
			} else if !ok {
				return fmt.Errorf("%s is no backend of %s", t.name(r), groupName(m))
			}
			continue
		}
		targets = append(targets, slb.Target{Membership: m, Backend: want})
	}
	if err := t.e.SLB.CheckAllServing(ctx, targets); err != nil {
		return fmt.Errorf("%s: %w", t.name(r), err)
	}
	return nil
}

// waitServing blocks until serving holds.
func (t *transition) waitServing(ctx context.Context, a *engine.Act, r role) error {
	return t.holds(ctx, t.cfg.Pace.Poll, t.name(r)+" does not serve behind the balancers", func(ctx context.Context) error { return t.serving(ctx, a, r) })
}

func (t *transition) addToBalancers() engine.Step {
	var lines []string
	for _, m := range t.p.Facts.Memberships {
		lines = append(lines, fmt.Sprintf("slb add (transition host) to %s: %s", groupName(m), rises(m.Backend.Weight, t.cfg.Weights.Up)))
	}
	lines = append(lines, when(len(lines) > 0, "healthy on every listener at each weight before the next")...)
	return engine.Step{
		ID: "3.10-slb", Section: "3.10", Title: "add the transition host to the balancers", Effect: engine.SetState, Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if len(t.p.Facts.Memberships) == 0 {
				return engine.Proposal{NotApplicable: "no balancer leads to " + t.p.Host}, nil
			}
			c, _, err := t.clone(a)
			if err != nil {
				return engine.Proposal{}, err
			}
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			p := weightParams{t.entering(c)}
			for _, w := range p.Changes {
				if had, ok, err := t.getBackend(ctx, w.Group, w.Backend); err != nil {
					return engine.Proposal{}, err
				} else if ok {
					return engine.Proposal{}, fmt.Errorf("%s is a backend of %s already (weight %d), not by this run", c.InstanceID, w.Name, had.Weight)
				}
			}
			return engine.Proposal{Params: p}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			state := engine.Absent
			for _, c := range p.Changes {
				b, ok, err := t.getBackend(ctx, c.Group, c.Backend)
				switch {
				case err != nil:
					return engine.Sight{}, err
				case ok && !slices.Contains(t.ours(c), b.Weight):
					return engine.Sight{State: engine.Foreign, Detail: fmt.Sprintf("%s: weight %d is not ours", c.Name, b.Weight)}, nil
				case ok:
					state = engine.InProgress
				}
			}
			return engine.Sight{State: state}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := t.ready(ctx, a); err != nil {
				return nil, err
			}
			return nil, t.enter(ctx, a, p.Changes)
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) { return nil, t.waitServing(ctx, a, old) },
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return err
			}
			return t.leave(ctx, a, p.Changes)
		},
	}
}

// leave takes the transition host out of the balancers without cutting
// anything: weight 0, wait until nothing comes any more, remove.
func (t *transition) leave(ctx context.Context, a *engine.Act, changes []weightChange) error {
	if err := t.waitServing(ctx, a, prod); err != nil {
		return err
	}
	alive, err := t.cloneRuns(ctx, a)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if _, ok, err := t.getBackend(ctx, c.Group, c.Backend); err != nil {
			return err
		} else if ok {
			if err := t.setWeight(ctx, c, 0); err != nil {
				return err
			}
		}
	}
	// A transition host that is gone can be asked nothing, and serves nothing.
	if alive {
		w, err := t.watchOn(ctx, a, old)
		if err != nil {
			return err
		}
		if _, err := w.waitSilence(ctx, a, func(peer string) bool { return peer == balancerPeer }); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if err := t.e.SLB.RemoveBackend(ctx, c.Group, c.Backend); err != nil {
			return err
		}
		a.Progress("%s: transition host removed", c.Name)
	}
	return nil
}

func (t *transition) removeFromBalancers() engine.Step {
	return engine.Step{
		ID: "4.9-slb", Section: "4.9", Title: "take the transition host out of the balancers", Effect: engine.SetState,
		Lines: []string{"slb weight 0, wait for silence, remove"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			var p weightParams
			if ok, err := a.ParamsOf("3.10-slb", &p); err != nil {
				return engine.Proposal{}, err
			} else if !ok {
				return engine.Proposal{NotApplicable: "the transition host is in no balancer"}, nil
			}
			return engine.Proposal{Params: p}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			left := 0
			for _, c := range p.Changes {
				if _, ok, err := t.getBackend(ctx, c.Group, c.Backend); err != nil {
					return engine.Sight{}, err
				} else if ok {
					left++
				}
			}
			if left == 0 {
				return engine.Sight{State: engine.Ours}, nil
			}
			return engine.Sight{State: engine.InProgress}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := t.restored(ctx); err != nil {
				return nil, err
			}
			return nil, t.leave(ctx, a, p.Changes)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return err
			}
			if err := t.waitAllHealthy(ctx, a, old); err != nil {
				return err
			}
			return t.enter(ctx, a, p.Changes)
		},
	}
}

// weightStep moves the production host's weights. down takes them to 0, up
// brings them back.
func (t *transition) weightStep(id, section, title string, lines []string, plan func(context.Context, *engine.Act) (weightParams, error), do, undo func(context.Context, *engine.Act, []weightChange) error) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.SetState, Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			p, err := plan(ctx, a)
			if err != nil {
				return engine.Proposal{}, err
			}
			if len(p.Changes) == 0 {
				return engine.Proposal{NotApplicable: "no balancer sends requests to " + t.p.Host}, nil
			}
			return engine.Proposal{Params: p, Before: p}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			return t.observeWeights(ctx, p)
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			return nil, do(ctx, a, p.Changes)
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			s, err := t.observeWeights(ctx, p)
			if err == nil && s.State != engine.Ours {
				err = fmt.Errorf("weights of %s are not as set: %s", t.p.Host, s.Detail)
			}
			return p, err
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p weightParams
			if err := a.Params(&p); err != nil {
				return err
			}
			return undo(ctx, a, p.Changes)
		},
	}
}

func (t *transition) observeWeights(ctx context.Context, p weightParams) (engine.Sight, error) {
	done, begun := 0, 0
	var detail []string
	for _, c := range p.Changes {
		b, ok, err := t.getBackend(ctx, c.Group, c.Backend)
		if err != nil {
			return engine.Sight{}, err
		}
		if !ok {
			return engine.Sight{State: engine.Foreign, Detail: c.Name + ": somebody removed the backend"}, nil
		}
		detail = append(detail, fmt.Sprintf("%s: weight %d", c.Name, b.Weight))
		switch {
		case b.Weight == c.To:
			done++
		case b.Weight == c.From:
		case slices.Contains(t.ours(c), b.Weight): // half-way
			begun++
		default:
			return engine.Sight{State: engine.Foreign, Detail: fmt.Sprintf("%s: weight was %d, is to be %d, and somebody set %d", c.Name, c.From, c.To, b.Weight)}, nil
		}
	}
	s := engine.Sight{Detail: strings.Join(detail, ", ")}
	switch {
	case done == len(p.Changes):
		s.State = engine.Ours
	case done+begun == 0:
		s.State = engine.Absent
	default:
		s.State = engine.InProgress
	}
	return s, nil
}

// down takes production's weights to 0 step by step. Before each change the
// transition host is seen to serve, and before the last one production's share
// is seen to have fallen, where an access log can tell.
func (t *transition) down(ctx context.Context, a *engine.Act, changes []weightChange) error {
	for _, step := range append(slices.Clone(t.cfg.Weights.Down), 0) {
		if step == 0 {
			if err := t.waitFallen(ctx, a, changes); err != nil {
				return err
			}
		}
		for _, c := range changes {
			b, ok, err := t.getBackend(ctx, c.Group, c.Backend)
			if err != nil {
				return err
			}
			if ok && b.Weight <= step {
				continue
			}
			carried := func(ctx context.Context) error {
				if err := t.waitServing(ctx, a, old); err != nil {
					return err
				}
				return t.carries(ctx, a)
			}
			if err := t.waitAllHealthy(ctx, a, old); err != nil {
				return err
			}
			if err := carried(ctx); err != nil {
				return err
			}
			// The write may have to wait for the cloud's flow control.
			if err := t.setWeight(slb.WithCheck(ctx, carried), c, step); err != nil {
				return err
			}
			a.Progress("%s: weight %d", c.Name, step)
		}
	}
	return nil
}

func (t *transition) drainBalancers() engine.Step {
	var lines []string
	for _, m := range t.p.Facts.Memberships {
		if m.Backend.Weight > 0 {
			lines = append(lines, fmt.Sprintf("slb weight %s %s: %s", groupName(m), m.Backend.ServerID, arrows(m.Backend.Weight, t.cfg.Weights.Down)))
		}
	}
	return t.weightStep("4.1-slb", "4.1", "take "+t.p.Host+" out of the balancers by weight 0", lines,
		func(ctx context.Context, _ *engine.Act) (weightParams, error) {
			var p weightParams
			// 2.6 may have been days ago: a group that production is in by now and a
			// scheduler that does not drain are as bad as a weight of somebody else's.
			now, err := discoverBalancers(ctx, t.cfg, t.e, t.p.Facts.Instance)
			if err != nil {
				return p, err
			}
			if d := append(driftBalancers(t.p.Facts.Memberships, now), driftListeners(&t.p.Facts, now)...); len(d) > 0 {
				return p, &engine.ConflictError{Object: "what leads to " + t.p.Host, Before: "as planned", Ours: "weight 0", Now: strings.Join(d, "; ")}
			}
			for _, m := range t.p.Facts.Memberships {
				if m.Backend.Weight == 0 {
					continue
				}
				b, ok, err := t.getBackend(ctx, m.Group(), m.Backend)
				if err != nil {
					return p, err
				}
				if !ok || b.Weight != m.Backend.Weight {
					return p, &engine.ConflictError{Object: groupName(m), Before: fmt.Sprintf("weight %d", m.Backend.Weight), Ours: "weight 0", Now: fmt.Sprintf("weight %d, present: %t", b.Weight, ok)}
				}
				p.Changes = append(p.Changes, weightChange{Name: groupName(m), Group: m.Group(), Backend: b, From: b.Weight, To: 0})
			}
			return p, nil
		},
		func(ctx context.Context, a *engine.Act, cs []weightChange) error {
			return t.down(ctx, a, cs)
		},
		func(ctx context.Context, a *engine.Act, cs []weightChange) error {
			if err := t.waitAllHealthy(ctx, a, prod); err != nil {
				return err
			}
			return t.up(ctx, a, cs, func(c weightChange) int { return c.From })
		})
}

// up ramps production's weights to target.
func (t *transition) up(ctx context.Context, a *engine.Act, changes []weightChange, target func(weightChange) int) error {
	goal := slices.Clone(changes)
	for i := range goal {
		goal[i].To = target(changes[i])
	}
	return t.ramp(ctx, a, prod, goal)
}

func (t *transition) restoreBalancers() engine.Step {
	var lines []string
	for _, m := range t.p.Facts.Memberships {
		if m.Backend.Weight > 0 {
			lines = append(lines, fmt.Sprintf("slb weight %s %s: %s", groupName(m), m.Backend.ServerID, rises(m.Backend.Weight, t.cfg.Weights.Up)))
		}
	}
	lines = append(lines, when(len(lines) > 0, "healthy on every listener at each weight before the next")...)
	return t.weightStep("4.7-slb", "4.7", "give "+t.p.Host+" its weights back", lines,
		func(ctx context.Context, a *engine.Act) (weightParams, error) {
			var p weightParams
			if ok, err := a.ParamsOf("4.1-slb", &p); err != nil || !ok {
				return weightParams{}, err
			}
			for i := range p.Changes {
				p.Changes[i].From, p.Changes[i].To = p.Changes[i].To, p.Changes[i].From
			}
			return p, t.waitAllHealthy(ctx, a, prod)
		},
		func(ctx context.Context, a *engine.Act, cs []weightChange) error {
			if err := t.waitAllHealthy(ctx, a, prod); err != nil {
				return err
			}
			return t.up(ctx, a, cs, func(c weightChange) int { return c.To })
		},
		func(ctx context.Context, a *engine.Act, cs []weightChange) error {
			return t.down(ctx, a, cs)
		})
}
