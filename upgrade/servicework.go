package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.7, 3.8, 4.4 and their share of 4.5: services stop and start.

// startServices starts what the containers step leaves: everything that is no
// container, and the containers that wait for such a service.
func (t *transition) startServices(r role) engine.Step {
	early := t.earlyServices()
	var late []hostos.Service
	for _, s := range hostServices(t.cfg) {
		if !slices.ContainsFunc(early, func(e hostos.Service) bool { return e.Name == s.Name }) {
			late = append(late, s)
		}
	}
	return t.startStep(r, "3.8", "services", "start the services on "+t.name(r), late)
}

// earlyServices are those of section 3.7: containers and Compose projects that
// wait for nothing else.
func (t *transition) earlyServices() []hostos.Service {
	early := map[string]bool{}
	all := hostServices(t.cfg)
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !early[s.Name] && (s.Kind == hostos.Compose || s.Kind == hostos.Container) && !slices.ContainsFunc(s.After, func(a string) bool { return !early[a] }) {
				early[s.Name], grown = true, true
			}
		}
	}
	return slices.DeleteFunc(all, func(s hostos.Service) bool { return !early[s.Name] })
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

// start starts services on a host and waits until each is healthy and warm.
// What they come after and is not among them was started by an earlier step.
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
	names := map[string]bool{}
	for _, s := range services {
		names[s.Name] = true
	}
	var mine []hostos.Service
	for _, s := range services {
		s.After = slices.DeleteFunc(slices.Clone(s.After), func(n string) bool { return !names[n] })
		mine = append(mine, s)
	}
	o := t.serviceOptions(a, l)
	if o.Restart, err = t.restartKeys(a); err != nil {
		return err
	}
	if err := hostos.StartServices(ctx, l.held(), l.DialContext, ip, mine, o); err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	return nil
}

// restartResult is what a step says of the restart values that it kept: where
// they are and of what, not one of them.
type restartResult struct {
	Key  string        `json:"key,omitempty"`
	Kept []hostos.Kept `json:"kept,omitempty"`
}

// restartKeys are the keys under which this run has kept restart values, the
// newest first. The transition host has those of 2.3: they came with the disk.
func (t *transition) restartKeys(a *engine.Act) ([]string, error) {
	var keys []string
	if a.StepID() == "4.4-stop" || a.StepID() == "5.1-stop" {
		keys = append(keys, a.Key())
	}
	for _, id := range []string{"4.4-stop", "2.3-restart"} {
		var r restartResult
		if ok, err := a.Result(id, &r); err != nil {
			return nil, err
		} else if ok && r.Key != "" && !slices.Contains(keys, r.Key) {
			keys = append(keys, r.Key)
		}
	}
	return keys, nil
}

// keepRestart keeps on production's disk what starting its hand-started
// processes again needs. It happens before the snapshots, so that the transition
// host, where such a process has never run, has the values too.
func (t *transition) keepRestart() engine.Step {
	need := hostos.NeedRestart(hostServices(t.cfg))
	var lines []string
	for _, s := range need {
		lines = append(lines, fmt.Sprintf("%s %s: arguments, environment, user, limits and output of its processes, into %s on the host", s.Kind, s.Name, hostos.RestartDir))
	}
	return engine.Step{
		ID: "2.3-restart", Section: "2.3", Effect: engine.SetState, Lines: lines,
		Title: "keep on " + t.p.Host + " what starting its processes again needs",
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if len(need) == 0 {
				return engine.Proposal{NotApplicable: "every service has a start command, or something that starts it"}, nil
			}
			l := t.e.host(t.cfg.Host)
			if _, err := hostos.CheckRestart(ctx, l, need); err != nil {
				return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			return engine.Proposal{}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l := t.e.host(t.cfg.Host)
			if err := l.alive(ctx); err != nil {
				return nil, err
			}
			kept, err := hostos.CaptureRestart(ctx, l.held(), a.Key(), need)
			if err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			return restartResult{a.Key(), kept}, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			return t.forgetRestart(ctx, a.Key())
		},
	}
}

// forgetRestart removes restart values from production.
func (t *transition) forgetRestart(ctx context.Context, keys ...string) error {
	l := t.e.host(t.cfg.Host)
	if err := l.alive(ctx); err != nil {
		return err
	}
	if err := hostos.RemoveRestart(ctx, l.held(), keys...); err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	return nil
}

// dropRestart removes the restart values from production: it runs, and its
// processes are its own again. The transition host's went with its disk.
func (t *transition) dropRestart() engine.Step {
	return engine.Step{
		ID: "5.3-restart", Section: "5.3", Effect: engine.SetState,
		NoUndo: "the processes run; their values can be read from them again",
		Title:  "remove the restart values from " + t.p.Host,
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if len(hostos.NeedRestart(hostServices(t.cfg))) == 0 {
				return engine.Proposal{NotApplicable: "none were kept"}, nil
			}
			return engine.Proposal{}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			keys, err := t.restartKeys(a)
			if err != nil {
				return nil, err
			}
			return nil, t.forgetRestart(ctx, keys...)
		},
	}
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
	all := hostServices(t.cfg)
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
			// Once more, before anything stops: since 2.3 a new version may have
			// been deployed. What has died since is started from the values of 2.3.
			res := restartResult{}
			if len(hostos.NeedRestart(all)) > 0 {
				res.Key = a.Key()
				res.Kept, err = hostos.CaptureRestart(ctx, l.held(), a.Key(), all)
				if errors.Is(err, hostos.ErrNotRunning) {
					a.Progress("%s: %v", l.target, err)
				} else if err != nil {
					return nil, fmt.Errorf("host %s: %w", l.target, err)
				}
			}
			if err := hostos.StopServices(ctx, l.held(), all, t.serviceOptions(a, l)); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			return res, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			if len(t.earlyServices()) > 0 {
				l, _, err := t.on(a, r)
				if err != nil {
					return err
				}
				if err := hostos.EnableDocker(ctx, l.held()); err != nil {
					return fmt.Errorf("host %s: %w", l.target, err)
				}
			}
			if err := t.start(ctx, a, r, all); err != nil {
				return err
			}
			if r == prod && len(hostos.NeedRestart(all)) > 0 {
				return t.forgetRestart(ctx, a.Key())
			}
			return nil
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
