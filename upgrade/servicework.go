package upgrade

import (
	"context"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.7, 3.8, 4.4 and their share of 4.5: services stop and start.

// services gives the configured services of some kinds.
func (t *transition) services(kinds ...string) []hostos.Service {
	var out []hostos.Service
	for _, s := range t.cfg.Services {
		for _, k := range kinds {
			if s.Kind == k {
				out = append(out, service(s))
			}
		}
	}
	return out
}

func (t *transition) startServices(r role) engine.Step {
	return t.startStep(r, "3.8", "services", "start the services on "+t.name(r), t.services(KindJava, KindUnit))
}

func (t *transition) startStep(r role, section, word, title string, services []hostos.Service) engine.Step {
	id, sec := r.id(section, word)
	var lines []string
	for _, s := range services {
		lines = append(lines, fmt.Sprintf("%s %s: start, then healthy on %v", s.Kind, s.Name, s.Ports))
	}
	return engine.Step{
		ID: id, Section: sec, Title: title, Effect: engine.SetState, NoUndo: r.noUndo(), Lines: lines,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if len(services) == 0 {
				return engine.Proposal{NotApplicable: "no such service on " + t.p.Host}, nil
			}
			return engine.Proposal{Params: services}, nil
		},
		// Starting what already runs does nothing, so Do settles every doubt.
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, t.start(ctx, a, r, services)
		},
	}
}

// start starts services on a host and waits until each answers.
func (t *transition) start(ctx context.Context, a *engine.Act, r role, services []hostos.Service) error {
	l, ip, err := t.on(a, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	if err := l.alive(ctx); err != nil {
		return err
	}
	if err := hostos.StartServices(ctx, l.held(), l.DialContext, ip, services, t.serviceOptions(a, l)); err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	return nil
}

func (t *transition) serviceOptions(a *engine.Act, l *link) hostos.ServiceOptions {
	return hostos.ServiceOptions{Poll: t.cfg.Pace.Sample, Progress: func(line string) { a.Progress("%s: %s", l.target, line) }}
}

// stopStep stops all services of a host; its undo starts them again.
func (t *transition) stopStep(r role, id, section string, plan func(context.Context, *engine.Act) (string, error)) engine.Step {
	var lines []string
	for _, s := range t.cfg.Services {
		lines = append(lines, fmt.Sprintf("%s %s: stop, and wait until it is gone", s.Kind, s.Name))
	}
	all := t.services(KindJava, KindCompose, KindContainer, KindUnit)
	return engine.Step{
		ID: id, Section: section, Title: "stop the services on " + t.name(r), Effect: engine.SetState, Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if len(all) == 0 {
				return engine.Proposal{NotApplicable: "no services on " + t.p.Host}, nil
			}
			why, err := plan(ctx, a)
			return engine.Proposal{NotApplicable: why, Params: all}, err
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			if err := l.alive(ctx); err != nil {
				return nil, err
			}
			// The plan may be days old when a resumed run gets here.
			if _, err := plan(ctx, a); err != nil {
				return nil, err
			}
			if err := hostos.StopServices(ctx, l.held(), all, t.serviceOptions(a, l)); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			return nil, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			if len(t.services(KindCompose, KindContainer)) > 0 {
				l, _, err := t.on(a, r)
				if err != nil {
					return err
				}
				if err := hostos.EnableDocker(ctx, l.held()); err != nil {
					return fmt.Errorf("host %s: %w", l.target, err)
				}
			}
			return t.start(ctx, a, r, all)
		},
	}
}

func (t *transition) stopProduction() engine.Step {
	return t.stopStep(prod, "4.4-stop", "4.4", func(ctx context.Context, a *engine.Act) (string, error) {
		// 4.3 may have been days ago: the gate waits for a person.
		w, err := t.watchOn(ctx, a, prod)
		if err != nil {
			return "", err
		}
		if _, err := w.waitSilence(ctx, a, nil); err != nil {
			return "", err
		}
		// Short requests through a balancer look like its health checks: weights
		// and logs tell them apart.
		var out weightParams
		if ok, err := a.ParamsOf("4.1-slb", &out); err != nil {
			return "", err
		} else if ok {
			switch s, err := t.observeWeights(ctx, out); {
			case err != nil:
				return "", err
			case s.State != engine.Ours:
				return "", &engine.ConflictError{Object: "the weights of " + t.p.Host, Before: "weight 0 everywhere", Ours: "its services stopped", Now: s.Detail}
			}
		}
		if _, err := t.waitLogSilence(ctx, a, t.cfg.Address); err != nil {
			return "", err
		}
		return "", t.ready(ctx, a)
	})
}
