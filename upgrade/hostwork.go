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

func observeByDoing(context.Context, *engine.Act) (engine.Sight, error) {
	return engine.Sight{State: engine.InProgress}, nil
}

// healthy probes every service of a host once, from every place that sends
// it traffic and can be asked: the nginx hosts, or else the host itself.
func (t *transition) healthy(ctx context.Context, a *engine.Act, r role) error {
	l, ip, err := t.on(a, r)
	if err != nil {
		return err
	}
	return probeAll(ctx, t.cfg, t.e, l, ip)
}

// probeAll asks every service at ip once, as the host itself and each nginx
// host see it.
func probeAll(ctx context.Context, cfg *Config, e *Env, l *link, ip string) error {
	for _, s := range cfg.Services {
		if err := hostos.CheckService(ctx, l, l.DialContext, ip, service(s)); err != nil {
			return fmt.Errorf("seen from %s: %w", l.target, err)
		}
	}
	for _, n := range cfg.Nginx {
		f := e.host(n.Host)
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

// holds blocks until check has succeeded Pace.Healthy times in a row, asking
// every interval; otherwise is what is said when it did not in time.
func (t *transition) holds(ctx context.Context, every time.Duration, otherwise string, check func(context.Context) error) error {
	return t.holdsWithin(ctx, t.cfg.Pace.Timeout, every, otherwise, check)
}

func (t *transition) holdsWithin(ctx context.Context, timeout, every time.Duration, otherwise string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	need := cmp.Or(t.cfg.Pace.Healthy, defaultHealthy) // plans of older versions have none
	var last error
	for ok := 0; ; {
		err := check(ctx)
		switch {
		case err == nil:
			if ok++; ok == need {
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
			var boot hostos.Boot
			if _, err := a.Result("4.5-reboot", &boot); err != nil {
				return nil, err
			}
			tick := time.NewTicker(t.cfg.Pace.Sample)
			defer tick.Stop()
			for try := 1; ; try++ {
				after, res, err := t.collect(ctx, a, t.e.host(t.cfg.Host))
				if err != nil {
					return nil, err
				}
				c := hostinv.Diff(before, after, t.meant(before, after, boot))
				losses := c.Losses()
				if len(losses) == 0 {
					return compareResult{res, c.Findings}, nil
				}
				// Containers and listeners take a moment to settle.
				if try == 5 {
					return nil, fmt.Errorf("%s is not as before: %s", t.p.Host, strings.Join(lossTexts(losses), "; "))
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

// meant says which differences of production were meant: another kernel, which
// then is the one that was seen after the reboot, the packages of another
// release, and a new Docker. All else has to be as it was. That the packages are
// the transition host's is proved where the transaction ends.
func (t *transition) meant(before, after *hostinv.Inventory, boot hostos.Boot) hostinv.Expect {
	e := hostinv.Expect{
		KernelChanged: after.Kernel != before.Kernel, ReleaseChanged: true, Rebooted: t.cfg.OS.Reboot,
		DockerChanged: t.cfg.OS.Docker == DockerUpgrade && t.p.Facts.HasDocker,
	}
	if e.KernelChanged {
		e.Kernel = boot.Kernel
	}
	return e
}

func lossTexts(losses []hostinv.Finding) []string {
	var out []string
	for _, f := range losses {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s: %s → %s", f.Area, f.Key, f.Kind, f.Field, orNone(f.Before), orNone(f.After))))
	}
	return out
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
