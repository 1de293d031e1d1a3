package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.5 to 3.8, done on the transition host and again, as 4.5, on the
// production host; 4.4 and 5.1, which stop what they start; and the proof.

// noUndo says why host work needs no undo: the transition host goes away as a
// whole, and on production the pivot is passed.
func (r role) noUndo() string {
	if r == prod {
		return "after the pivot the way back is the snapshot, and that is a person's decision"
	}
	return "the transition host is released as a whole; an adopted one keeps its new system"
}

func (t *transition) name(r role) string {
	if r == prod {
		return t.p.Host
	}
	return "the transition host"
}

type jobParams struct {
	Script string `json:"script"`
}

// jobStep is a package transaction: a script that runs at most once, detached
// from our connection, under the step's key.
func (t *transition) jobStep(r role, section, word, title, script string, after func(context.Context, *link, *engine.Act) error) engine.Step {
	id, sec := r.id(section, word)
	return engine.Step{
		ID: id, Section: sec, Title: title, Effect: engine.OneShot, Pivot: r == prod, NoUndo: r.noUndo(),
		Lines: strings.Split(strings.TrimSpace(script), "\n"),
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if r == prod {
				// Here a refusal is not past the pivot yet.
				if err := t.ready(ctx, a); err != nil {
					return engine.Proposal{}, err
				}
			}
			return engine.Proposal{Params: jobParams{script}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Sight{}, err
			}
			st, err := hostos.GetJob(ctx, l, a.Key())
			if err != nil {
				return engine.Sight{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			if st.Phase == hostos.JobAbsent {
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "job is " + string(st.Phase)}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			var p jobParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := l.alive(ctx); err != nil {
				return nil, err
			}
			st, err := hostos.GetJob(ctx, l, a.Key())
			if err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			if st.Phase == hostos.JobAbsent {
				if r == prod {
					if err := t.ready(ctx, a); err != nil {
						return nil, err
					}
				}
				// Never a second transaction on top of half a first one.
				if err := hostos.CheckTransactions(ctx, l); err != nil {
					return nil, fmt.Errorf("host %s: %w", l.target, err)
				}
			}
			if err := hostos.StartJob(ctx, l.held(), a.Key(), p.Script); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.JobTimeout)
			defer cancel()
			st, err = hostos.WaitJob(ctx, l, a.Key(), t.cfg.Pace.Poll, nil)
			if err != nil {
				err = fmt.Errorf("host %s: %w", l.target, err)
				je := new(hostos.JobError)
				switch {
				case !errors.As(err, &je):
				case je.State.Phase == hostos.JobExited:
					if left := hostos.CheckTransactions(ctx, l); left != nil {
						err = fmt.Errorf("%w; %w", err, left)
					}
					// A person who has read its log may have it tried again, as a
					// new attempt.
					err = engine.Definitive(err)
				default:
					// Parts of it may still run: a second transaction beside the
					// first would do harm, so only a person can say that it is over.
					err = fmt.Errorf("%w; make sure that no package manager runs and no transaction is unfinished, remove the job's directory on the host, and resume", err)
				}
				return nil, err
			}
			if after != nil {
				if err := after(ctx, l, a); err != nil {
					return nil, err
				}
			}
			return st, nil
		},
	}
}

func (t *transition) upgradeDocker(r role) engine.Step {
	s := t.jobStep(r, "3.5", "docker", "replace Docker on "+t.name(r)+" by docker-ce", hostos.DockerScript(),
		func(ctx context.Context, l *link, a *engine.Act) error {
			changed, err := hostos.WriteDaemonJSON(ctx, l.held(), a.Key())
			if changed {
				a.Progress("%s: daemon.json has new settings", l.target)
			}
			return err
		})
	plan := s.Plan
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		switch {
		case t.cfg.OS.Docker != DockerUpgrade:
			return engine.Proposal{NotApplicable: "os.docker is " + t.cfg.OS.Docker}, nil
		case !t.p.Facts.HasDocker:
			return engine.Proposal{NotApplicable: t.p.Host + " has no Docker"}, nil
		}
		return plan(ctx, a)
	}
	return s
}

func (t *transition) upgradeOS(r role) engine.Step {
	script := "yum -y update\n"
	if t.cfg.OS.Strategy == StrategyScript {
		script = t.p.Facts.Script
	}
	return t.jobStep(r, "3.6", "os", "upgrade the operating system of "+t.name(r), script, nil)
}

type rebootBefore struct {
	Boot hostos.Boot `json:"boot"`
}

func (t *transition) reboot(r role) engine.Step {
	id, sec := r.id("3.6", "reboot")
	return engine.Step{
		ID: id, Section: sec, Title: "reboot " + t.name(r) + " and prove it by its boot ID", Effect: engine.OneShot, NoUndo: r.noUndo(),
		Pivot: r == prod,
		Lines: []string{"shutdown -r now"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !t.cfg.OS.Reboot {
				return engine.Proposal{NotApplicable: "os.reboot is false"}, nil
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Proposal{}, err
			}
			b, err := t.waitBoot(ctx, a, l, "")
			return engine.Proposal{Before: rebootBefore{b}}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var b rebootBefore
			if err := a.Before(&b); err != nil {
				return engine.Sight{}, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Sight{}, err
			}
			now, err := hostos.GetBoot(ctx, l)
			if err != nil {
				// It may be on its way down or up: Do waits for it.
				return engine.Sight{State: engine.InProgress, Detail: err.Error()}, nil
			}
			if now.ID == b.Boot.ID {
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.Ours, Result: now}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var b rebootBefore
			if err := a.Before(&b); err != nil {
				return nil, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if now, err := hostos.GetBoot(ctx, l); r == prod && err == nil && now.ID == b.Boot.ID {
				if err := t.ready(ctx, a); err != nil {
					return nil, err
				}
			}
			wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			half, stop := context.WithTimeout(wait, t.cfg.Pace.Timeout/2)
			defer stop()
			err = hostos.StartReboot(wait, l.held(), b.Boot.ID)
			if errors.Is(err, hostos.ErrFenced) {
				return nil, err
			}
			if err != nil {
				a.Progress("%s: %v; it may be rebooting already", l.target, err)
			}
			now, err := t.waitBoot(half, a, l, b.Boot.ID)
			if err != nil && wait.Err() == nil {
				// Half the time is over. A host that took the command and did nothing
				// is asked once more; one that has rebooted leaves it alone.
				if again := hostos.StartReboot(wait, l.held(), b.Boot.ID); again == nil {
					a.Progress("%s: still in the old boot; asked to reboot once more", l.target)
				} else if errors.Is(again, hostos.ErrFenced) {
					return nil, again
				}
				now, err = t.waitBoot(wait, a, l, b.Boot.ID)
			}
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w; %s", err, t.evidence(ctx, a, r))
			}
			if err != nil {
				return nil, err // an interruption says nothing about the host
			}
			return now, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var was rebootBefore
			var now hostos.Boot
			if err := a.Before(&was); err != nil {
				return nil, err
			}
			if ok, err := a.Own(&now); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: no boot recorded"), err)
			}
			if t.cfg.OS.Strategy == StrategyYumUpdate && now.Kernel == t.p.Facts.Boot.Kernel {
				return nil, fmt.Errorf("%s was rebooted but still runs kernel %s; look for an exclude in yum.conf and at the boot loader's default", t.name(r), now.Kernel)
			}
			if r == prod {
				var c hostos.Boot
				if ok, err := a.Result("3.6-reboot", &c); err != nil {
					return nil, err
				} else if ok && c.Kernel != now.Kernel {
					return nil, fmt.Errorf("%s runs kernel %s after its upgrade, the transition host runs %s", t.p.Host, now.Kernel, c.Kernel)
				}
			}
			return now, nil
		},
	}
}

// waitBoot blocks until the host answers in another boot than the one with
// ID from, or in any boot when from is empty. Connections fail meanwhile;
// that is what a reboot looks like from here.
func (t *transition) waitBoot(ctx context.Context, a *engine.Act, l *link, from string) (hostos.Boot, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	tick := time.NewTicker(t.cfg.Pace.Poll)
	defer tick.Stop()
	var last error
	for n := 1; ; n++ {
		ask, stop := context.WithTimeout(ctx, 20*time.Second)
		b, err := hostos.GetBoot(ask, l)
		stop()
		switch {
		case err != nil:
			if ctx.Err() == nil {
				last = err
			}
			l.drop(nil)
			var unknown *hostinv.UnknownHostKeyError
			var changed *hostinv.HostKeyChangedError
			if errors.As(err, &unknown) || errors.As(err, &changed) {
				return b, err // no waiting makes a wrong key right
			}
		case b.ID != from:
			return b, nil
		default:
			last = errors.New("it is still in the old boot")
		}
		if n%10 == 0 {
			a.Progress("waiting for %s: %v", l.target, last)
		}
		select {
		case <-ctx.Done():
			return hostos.Boot{}, fmt.Errorf("host %s did not come back: %w (last: %v)", l.target, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// evidenceTime bounds how long the cloud is asked about a host that is lost.
const evidenceTime = 2 * time.Minute

// evidence keeps what the cloud shows of a host that does not come back, and
// says where. The console may hold secrets of services: it is a private file of
// the run, and no part of the message.
func (t *transition) evidence(ctx context.Context, a *engine.Act, r role) string {
	id := t.p.Facts.Instance.ID
	if r == old {
		c, _, err := t.clone(a)
		if err != nil {
			return "no evidence: " + err.Error()
		}
		id = c.InstanceID
	}
	ctx, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	ev := t.e.ECS.CollectEvidence(ctx, id)
	say := []string{fmt.Sprintf("the cloud calls instance %s %s", id, cmp.Or(ev.Status, "nothing"))}
	keep := func(what string, data []byte) {
		if len(data) == 0 {
			return
		}
		ref, err := a.PutBlob(data)
		if err != nil {
			say = append(say, what+" not kept: "+err.Error())
			return
		}
		say = append(say, what+": blobs/"+ref+" in the run's directory")
	}
	keep("console output", ev.Console)
	keep("screenshot", ev.Screenshot)
	return strings.Join(append(say, ev.Problems...), "; ")
}

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

func (t *transition) startContainers(r role) engine.Step {
	s := t.startStep(r, "3.7", "containers", "start the containers on "+t.name(r), t.services(KindCompose, KindContainer))
	do, plan := s.Do, s.Plan
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		switch {
		case !t.p.Facts.HasDocker:
			return engine.Proposal{NotApplicable: t.p.Host + " has no Docker"}, nil
		case t.cfg.OS.Docker == DockerUpgrade:
			// A new Docker is enabled and started also where it runs nothing.
			return engine.Proposal{Params: t.services(KindCompose, KindContainer)}, nil
		}
		return plan(ctx, a)
	}
	s.Do = func(ctx context.Context, a *engine.Act) (any, error) {
		l, _, err := t.on(a, r)
		if err != nil {
			return nil, err
		}
		if err := hostos.EnableDocker(ctx, l.held()); err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		return do(ctx, a)
	}
	return s
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

func observeByDoing(context.Context, *engine.Act) (engine.Sight, error) {
	return engine.Sight{State: engine.InProgress}, nil
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
	for _, s := range services {
		a.Progress("%s: starting %s", l.target, s.Name)
		if err := hostos.StartService(ctx, l.held(), s); err != nil {
			return fmt.Errorf("host %s: %w", l.target, err)
		}
	}
	for _, s := range services {
		if err := hostos.WaitHealthy(ctx, l.DialContext, ip, s, t.cfg.Pace.Sample, 3); err != nil {
			return fmt.Errorf("host %s: %w", l.target, err)
		}
		if err := running(ctx, l, s); err != nil {
			return err
		}
	}
	return nil
}

// running is the health of a service that has no port to ask.
func running(ctx context.Context, l *link, s hostos.Service) error {
	if len(s.Ports) > 0 {
		return nil
	}
	up, err := hostos.ServiceRunning(ctx, l, s)
	if err == nil && !up {
		err = fmt.Errorf("service %s does not run", s.Name)
	}
	if err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	return nil
}

// healthy probes every service of a host once, from every place that sends
// it traffic and can be asked: the nginx hosts, or else the host itself.
func (t *transition) healthy(ctx context.Context, a *engine.Act, r role) error {
	l, ip, err := t.on(a, r)
	if err != nil {
		return err
	}
	for _, s := range t.cfg.Services {
		if err := running(ctx, l, service(s)); err != nil {
			return err
		}
	}
	return probeAll(ctx, t.cfg, t.e, l, ip)
}

// probeAll asks every service at ip once, as the host itself and each nginx
// host see it.
func probeAll(ctx context.Context, cfg *Config, e *Env, l *link, ip string) error {
	from := []*link{l}
	for _, n := range cfg.Nginx {
		from = append(from, e.host(n.Host))
	}
	for _, f := range from {
		for _, s := range cfg.Services {
			if err := hostos.Probe(ctx, f.DialContext, ip, service(s)); err != nil {
				return fmt.Errorf("seen from %s: %w", f.target, err)
			}
		}
	}
	return nil
}

// ready says that production may lose its share of the traffic, or its life:
// the transition host answers, serves behind every balancer that has it, and
// nothing will make it disappear.
func (t *transition) ready(ctx context.Context, a *engine.Act) error {
	if err := t.waitAllHealthy(ctx, a, old); err != nil {
		return err
	}
	var in weightParams
	if ok, err := a.ParamsOf("3.10-slb", &in); err != nil {
		return err
	} else if ok && a.StepID() != "3.10-slb" && a.StepID() != "4.9-nginx" {
		// 3.10 has yet to put it there; when 4.9-nginx is undone, 4.9-slb has taken
		// it out and is undone next.
		if err := t.waitServing(ctx, a, old); err != nil {
			return err
		}
	}
	c, _, err := t.clone(a)
	if err != nil {
		return err
	}
	i, err := t.e.ECS.GetInstance(ctx, c.InstanceID)
	switch {
	case err != nil:
		return err
	case i.Status != "Running":
		return fmt.Errorf("transition host %s is %s", i.ID, i.Status)
	case !i.AutoReleaseTime.IsZero():
		return fmt.Errorf("transition host %s is released by itself at %s; take its release time away", i.ID, i.AutoReleaseTime.Format(time.RFC3339))
	}
	return nil
}

// cloneRuns tells whether the transition host is there and on.
func (t *transition) cloneRuns(ctx context.Context, a *engine.Act) (bool, error) {
	c, _, err := t.clone(a)
	if err != nil {
		return false, err
	}
	in, err := t.e.ECS.GetInstance(ctx, c.InstanceID)
	if errors.Is(err, ecs.ErrNotFound) {
		return false, nil
	}
	return err == nil && in.Status == "Running", err
}

// waitAllHealthy blocks until healthy holds.
func (t *transition) waitAllHealthy(ctx context.Context, a *engine.Act, r role) error {
	return t.holds(ctx, t.cfg.Pace.Sample, t.name(r)+" is not healthy", func(ctx context.Context) error { return t.healthy(ctx, a, r) })
}

// holds blocks until check has succeeded three times in a row, asking every
// interval; otherwise is what is said when it did not in time.
func (t *transition) holds(ctx context.Context, every time.Duration, otherwise string, check func(context.Context) error) error {
	return t.holdsWithin(ctx, t.cfg.Pace.Timeout, every, otherwise, check)
}

func (t *transition) holdsWithin(ctx context.Context, timeout, every time.Duration, otherwise string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for ok := 0; ; {
		err := check(ctx)
		switch {
		case err == nil:
			if ok++; ok == 3 {
				return nil
			}
		case ctx.Err() == nil:
			ok, last = 0, err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", otherwise, ctx.Err(), last)
		case <-tick.C:
		}
	}
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
			for _, s := range all {
				a.Progress("%s: stopping %s", l.target, s.Name)
				if err := hostos.StopService(ctx, l.held(), s, t.cfg.Pace.Sample); err != nil {
					return nil, fmt.Errorf("host %s: %w", l.target, err)
				}
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

type compareResult struct {
	Inventory inventoryResult   `json:"inventory"`
	Findings  []hostinv.Finding `json:"findings"`
}

// compareInventory proves production before it gets traffic again: all that
// ran before runs after, and the kernel is the one difference that was meant.
func (t *transition) compareInventory() engine.Step {
	return engine.Step{
		ID: "4.5-compare", Section: "4.5", Effect: engine.ReadOnly,
		Title: "everything that ran on " + t.p.Host + " before runs again",
		Lines: []string{"inventory of 2.1 against a new one; any loss stops the run here, with traffic on the transition host"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			before, err := recordedInventory(a)
			if err != nil {
				return nil, err
			}
			tick := time.NewTicker(t.cfg.Pace.Sample)
			defer tick.Stop()
			for try := 1; ; try++ {
				after, res, err := t.collect(ctx, a, t.e.host(t.cfg.Host))
				if err != nil {
					return nil, err
				}
				// Whether a script changes the kernel is its author's business; that it
				// is the transition host's kernel was seen after the reboot.
				kernel := t.cfg.OS.Strategy == StrategyYumUpdate || after.Kernel != before.Kernel
				c := hostinv.Diff(before, after, hostinv.Expect{KernelChanged: kernel, ReleaseChanged: true, DockerChanged: t.cfg.OS.Docker == DockerUpgrade && t.p.Facts.HasDocker})
				losses := c.Losses()
				if len(losses) == 0 {
					return compareResult{res, c.Findings}, nil
				}
				// Containers and listeners take a moment to settle.
				if try == 5 {
					var msg []string
					for _, f := range losses {
						msg = append(msg, strings.TrimSpace(fmt.Sprintf("%s %s %s %s: %s → %s", f.Area, f.Key, f.Kind, f.Field, orNone(f.Before), orNone(f.After))))
					}
					return nil, fmt.Errorf("%s is not as before: %s", t.p.Host, strings.Join(msg, "; "))
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-tick.C:
				}
			}
		},
	}
}

func putJSON(a *engine.Act, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	return a.PutBlob(b)
}

// getInventory reads an inventory that a step recorded, which may have been a
// step of an older version.
func getInventory(a *engine.Act, ref string) (*hostinv.Inventory, error) {
	b, err := a.Blob(ref)
	if err != nil {
		return nil, err
	}
	inv, err := hostinv.ParseInventory(b)
	if err != nil {
		return nil, fmt.Errorf("cannot read the recorded inventory: %w", err)
	}
	return inv, nil
}
