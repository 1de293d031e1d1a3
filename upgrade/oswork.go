package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.6 and its share of 4.5: package transactions and reboots.

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
