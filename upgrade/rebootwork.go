package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Reboots of 3.6 and 4.5.

type rebootBefore struct {
	Boot   hostos.Boot    `json:"boot"`
	Kernel string         `json:"kernel"` // that must run afterwards
	Failed []string       `json:"failed"` // units, before the upgrade
	Checks []hostos.Check `json:"checks"` // of the gate before the reboot
}

// beforeReboot looks whether a host would come back with the kernel of its
// transaction. Otherwise it is not rebooted.
func (t *transition) beforeReboot(ctx context.Context, a *engine.Act, l *link, r role) (rebootBefore, error) {
	var b rebootBefore
	var res osResult
	var was osBefore
	step, _ := r.id("3.6", "os")
	if r == prod && t.replacing() {
		step, _ = old.id("3.6", "os") // its system is the transition host's
	}
	if ok, err := a.Result(step, &res); err != nil || !ok || res.Kernel == "" && !t.cfg.OS.InReboot {
		return b, errors.Join(errors.New("internal error: no transaction recorded"), err)
	}
	if _, err := a.BeforeOf(step, &was); err != nil {
		return b, err
	}
	b.Kernel = res.Kernel
	if was.Assessment.OS != nil {
		b.Failed = was.Assessment.OS.FailedUnits
	}
	var err error
	if b.Boot, err = t.waitBoot(ctx, a, l, ""); err != nil {
		return b, err
	}
	if b.Checks, err = hostos.CheckPreReboot(ctx, l, t.strategy(), b.Kernel); err != nil {
		return b, fmt.Errorf("host %s: %w", l.target, err)
	}
	if bad := hostos.Failed(b.Checks); len(bad) > 0 {
		return b, fmt.Errorf("%s is not rebooted, it might not come back: %s", t.name(r), strings.Join(bad, "; "))
	}
	return b, nil
}

func (t *transition) reboot(r role) engine.Step {
	id, sec := r.id("3.6", "reboot")
	lines := []string{"before: the kernel of the transaction is installed, whole, started by default, its initramfs has the drivers of the disks, no transaction is open", "shutdown -r now", "after: another boot ID, that kernel, no unit failed that had not before"}
	if t.cfg.OS.InReboot {
		lines = []string{"before: what the boot loader starts is whole, its initramfs has the drivers of the disks, no transaction is open", "shutdown -r now", fmt.Sprintf("the reboot upgrades %s; it may be away for %s, in several boots", t.name(r), t.blackout()), "after: release " + t.cfg.OS.Release + ", no unit failed that had not before"}
	}
	return engine.Step{
		ID: id, Section: sec, Title: "reboot " + t.name(r) + " and prove it by its boot ID", Effect: engine.OneShot, NoUndo: r.noUndo(),
		Pivot: r == prod, Version: 2,
		Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !t.cfg.OS.Reboot {
				return engine.Proposal{NotApplicable: "os.reboot is false"}, nil
			}
			if t.cfg.OS.Strategy == StrategyExternal && !(r == prod && t.replacing()) {
				return engine.Proposal{NotApplicable: "strategy external: whoever upgrades it reboots it"}, nil
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Proposal{}, err
			}
			b, err := t.beforeReboot(ctx, a, l, r)
			return engine.Proposal{Before: b}, err
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
			switch {
			case now.ID == b.Boot.ID:
				return engine.Sight{State: engine.Absent}, nil
			case t.cfg.OS.InReboot:
				return engine.Sight{State: engine.InProgress, Detail: "it was rebooted; release " + now.Release}, nil
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
			wait, cancel := context.WithTimeout(ctx, t.blackout())
			defer cancel()
			half, stop := context.WithTimeout(wait, t.blackout()/2)
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
			if err == nil && t.cfg.OS.InReboot {
				now, err = l.waitRelease(wait, hostos.Expected{Kernel: t.cfg.OS.Kernel, Release: t.cfg.OS.Release}, now, t.cfg.Pace.Poll, a.Progress)
			}
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w; %s", err, t.evidence(ctx, a, r))
			}
			if err != nil {
				return nil, err // an interruption says nothing about the host
			}
			res := rebootResult{Boot: now}
			if t.cfg.OS.InReboot {
				set, err := hostos.GetPackages(ctx, l)
				if err != nil {
					return nil, fmt.Errorf("host %s: %w", l.target, err)
				}
				if res.Set, err = putPackages(a, set); err != nil {
					return nil, err
				}
			}
			return res, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var was rebootBefore
			var now rebootResult
			if err := a.Before(&was); err != nil {
				return nil, err
			}
			if ok, err := a.Own(&now); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: no boot recorded"), err)
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if _, err := hostos.VerifyUpgrade(ctx, l, hostos.Expected{Boot: was.Boot, Kernel: was.Kernel, Release: t.cfg.OS.Release, FailedUnits: was.Failed, UnitsOK: t.cfg.OS.UnitsOK}); err != nil {
				return nil, fmt.Errorf("%s was rebooted, and is not as it should be: %w", t.name(r), err)
			}
			if r == prod {
				var c rebootResult
				if ok, err := a.Result("3.6-reboot", &c); err != nil {
					return nil, err
				} else if ok && c.Kernel != now.Kernel && !t.cfg.OS.AllowDrift {
					return nil, fmt.Errorf("%s runs kernel %s after its upgrade, the transition host runs %s", t.p.Host, now.Kernel, c.Kernel)
				}
				if now.Set != "" {
					set, err := getPackages(a, now.Set)
					if err != nil {
						return nil, err
					}
					diff, err := t.packageDiff(a, set)
					if err != nil {
						return nil, err
					}
					if len(diff) > 0 && !t.cfg.OS.AllowDrift {
						return nil, fmt.Errorf("%s has other packages than the transition host: %s; make them the same and resume", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
					}
				}
			}
			return now, nil
		},
	}
}

// rebootResult is the boot that a reboot has come to, and, where the reboot
// upgrades, the packages that are there then.
type rebootResult struct {
	hostos.Boot
	Set string `json:"set,omitempty"` // blob: a PackageSet
}

// blackout bounds how long a host may be away in its reboot.
func (t *transition) blackout() time.Duration { return cmp.Or(t.cfg.OS.Blackout, t.cfg.Pace.Timeout) }

// waitRelease blocks until a host that upgrades itself in its reboot has the
// release, and the kernel where one is asked for, has no package transaction
// open, and is in the same boot at three looks in a row. It may come up in
// between and go away again.
func (l *link) waitRelease(ctx context.Context, want hostos.Expected, now hostos.Boot, poll time.Duration, say func(format string, args ...any)) (hostos.Boot, error) {
	there := func(b hostos.Boot) bool {
		return strings.Contains(b.Release, want.Release) && (want.Kernel == "" || b.Kernel == want.Kernel)
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for n, same, was := 1, 0, ""; ; n++ {
		if last == nil && there(now) {
			last = hostos.CheckTransactions(ctx, l)
		}
		if last != nil || !there(now) || now.ID != was {
			same = 0
		}
		if was = now.ID; last == nil && there(now) {
			same++
		}
		if same == 3 {
			return now, nil
		}
		if n%20 == 0 {
			say("waiting for release %q on %s: %s, kernel %s in the last boot seen", want.Release, l.target, now.Release, now.Kernel)
		}
		select {
		case <-ctx.Done():
			return now, fmt.Errorf("host %s was rebooted and is not upgraded: it has release %q, kernel %s: %w (last: %v)", l.target, now.Release, now.Kernel, ctx.Err(), last)
		case <-tick.C:
		}
		ask, stop := context.WithTimeout(ctx, 20*time.Second)
		var b hostos.Boot
		if b, last = hostos.GetBoot(ask, l); last == nil {
			now = b
		} else {
			l.drop(nil)
		}
		stop()
		if hostos.IsWrongKey(last) {
			return now, wrapHost(l.target, last)
		}
	}
}

// waitBoot blocks until the host answers in another boot than the one with
// ID from, or in any boot when from is empty. Connections fail meanwhile;
// that is what a reboot looks like from here.
func (t *transition) waitBoot(ctx context.Context, a *engine.Act, l *link, from string) (hostos.Boot, error) {
	ctx, cancel := context.WithTimeout(ctx, t.blackout())
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
			if hostos.IsWrongKey(err) {
				return b, err
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
	return t.evidenceOf(ctx, a, id)
}

// evidenceOf is evidence of an instance.
func (t *transition) evidenceOf(ctx context.Context, a *engine.Act, id string) string {
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
