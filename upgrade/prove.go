package upgrade

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.11, 4.3, 4.8 and 4.9: traffic has arrived, traffic has gone.

// watchOn observes the traffic of one of the two hosts.
func (t *transition) watchOn(ctx context.Context, a *engine.Act, r role) (*watch, error) {
	l, ip, err := t.on(a, r)
	if err != nil {
		return nil, err
	}
	known, err := nginxAddrs(ctx, t.cfg, t.e)
	if err != nil {
		return nil, err
	}
	if err := l.alive(ctx); err != nil {
		return nil, err
	}
	w := &watch{env: t.e, cfg: t.cfg, host: l, ip: ip, known: known, l4: layer4Ports(t.p.Facts.Memberships)}
	if t.p.Facts.HasDocker {
		inv, err := hostinv.Collect(ctx, l, hostinv.Options{})
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		w.published = publishedPorts(inv)
	}
	return w, nil
}

// ways lists who has to be seen to send traffic to a host that serves.
func (t *transition) ways() []string {
	var want []string
	for _, n := range t.p.Facts.Nginx {
		if n.live() > 0 {
			want = append(want, n.Host)
		}
	}
	if slices.ContainsFunc(t.p.Facts.Memberships, func(m slb.Membership) bool { return m.Backend.Weight > 0 }) {
		want = append(want, balancerPeer)
	}
	return want
}

func (t *transition) arrivalStep(r role, id, section string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: "traffic arrives on " + t.name(r), Effect: engine.ReadOnly,
		Lines: []string{"connections of " + strings.Join(t.ways(), ", ")},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if len(t.ways()) == 0 {
				return engine.Proposal{NotApplicable: "neither nginx nor a balancer leads to " + t.p.Host}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := t.waitServing(ctx, a, r); err != nil {
				return nil, err
			}
			w, err := t.watchOn(ctx, a, r)
			if err != nil {
				return nil, err
			}
			return w.waitArrival(ctx, a, t.ways())
		},
	}
}

func (t *transition) observeClone() engine.Step { return t.arrivalStep(old, "3.11-observe", "3.11") }
func (t *transition) observeProduction() engine.Step {
	return t.arrivalStep(prod, "4.8-observe", "4.8")
}

func (t *transition) silenceStep(r role, id, section string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: "no traffic reaches " + t.name(r) + " any more", Effect: engine.ReadOnly,
		Lines: []string{fmt.Sprintf("%d samples in a row without a connection that carries requests", t.cfg.Pace.Observe)},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			w, err := t.watchOn(ctx, a, r)
			if err != nil {
				return nil, err
			}
			return w.waitSilence(ctx, a, nil)
		},
	}
}

func (t *transition) proveSilence() engine.Step { return t.silenceStep(prod, "4.3-silence", "4.3") }
func (t *transition) proveCloneSilence() engine.Step {
	return t.silenceStep(old, "4.9-silence", "4.9")
}
