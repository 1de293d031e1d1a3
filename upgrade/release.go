package upgrade

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// The transition host's release time, and section 5: it goes away.

type expiry struct {
	At time.Time `json:"at"`
}

// expiry is when a transition host that nobody needs goes away by itself:
// whole minutes, as the API wants them; zero when it is not wanted.
func (t *transition) expiry() time.Time {
	if t.cfg.Transition.AutoRelease == 0 {
		return time.Time{}
	}
	return time.Now().UTC().Add(t.cfg.Transition.AutoRelease).Truncate(time.Minute)
}

func (t *transition) setExpiry(ctx context.Context, a *engine.Act, at time.Time) error {
	c, _, err := t.clone(a)
	if err != nil {
		return err
	}
	if err := t.e.ECS.SetAutoRelease(ctx, c.InstanceID, at); err != nil {
		return fmt.Errorf("instance %s: %w", c.InstanceID, err)
	}
	in, err := t.e.ECS.GetInstance(ctx, c.InstanceID)
	if err != nil {
		return err
	}
	if !in.AutoReleaseTime.Equal(at) {
		return fmt.Errorf("instance %s: release time reads back as %v, not %v", c.InstanceID, in.AutoReleaseTime, at)
	}
	return nil
}

func (t *transition) expiryStep(id, section, title string, set, undo func() time.Time) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.SetState,
		Lines: []string{"ecs ModifyInstanceAutoReleaseTime, read back"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if t.adopted() || t.cfg.Transition.AutoRelease == 0 {
				return engine.Proposal{NotApplicable: "the transition host has no release time"}, nil
			}
			return engine.Proposal{Params: expiry{set()}}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p expiry
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if !p.At.IsZero() && time.Until(p.At) < time.Hour {
				p.At = set() // the run was interrupted for long: never a time that is past
			}
			return nil, t.setExpiry(ctx, a, p.At)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			err := t.setExpiry(ctx, a, undo())
			if errors.Is(err, ecs.ErrNotFound) {
				return nil // nothing is left that could expire
			}
			return err
		},
	}
}

func never() time.Time { return time.Time{} }

// holdClone takes the switch off before the first request can reach the
// transition host; expireClone puts it on again when the last has left.
func (t *transition) holdClone() engine.Step {
	return t.expiryStep("3.9-hold", "3.9", "keep the transition host: no automatic release while traffic may reach it", never, t.expiry)
}

func (t *transition) expireClone() engine.Step {
	return t.expiryStep("4.9-expire", "4.9", "let the transition host expire by itself again", t.expiry, never)
}

// keep says why the transition host is not taken down: "" when it is.
func (t *transition) keep() string {
	if t.adopted() && !t.cfg.Transition.ReleaseAdopted {
		return "transition host " + t.cfg.Transition.Instance + " was there before the run and stays"
	}
	return ""
}

func (t *transition) stopClone() engine.Step {
	return t.stopStep(old, "5.1-stop", "5.1", func(ctx context.Context, a *engine.Act) (string, error) {
		if why := t.keep(); why != "" {
			return why, nil
		}
		// 4.9 may have been days ago.
		c, _, err := t.clone(a)
		if err != nil {
			return "", err
		}
		in, err := t.e.ECS.GetInstance(ctx, c.InstanceID)
		if err != nil {
			return "", err
		}
		serves, err := discoverAdopted(ctx, t.cfg, t.e, *in)
		if err != nil {
			return "", err
		}
		if len(serves) > 0 {
			return "", &engine.ConflictError{Object: "transition host " + in.ID, Before: "taken out of nginx and balancers", Ours: "stopped", Now: strings.Join(serves, "; ")}
		}
		return "", nil
	})
}

func (t *transition) stopCloneInstance() engine.Step {
	return engine.Step{
		ID: "5.2-stop-instance", Section: "5.2", Title: "shut the transition host down", Effect: engine.SetState,
		Lines: []string{"ecs StopInstance StoppedMode=KeepCharging ForceStop=false"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			c, _, err := t.clone(a)
			return engine.Proposal{NotApplicable: t.keep(), Params: instanceResult{c.InstanceID}}, err
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			in, err := t.e.ECS.GetInstance(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			return nil, t.halt(ctx, a, in)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			c, l, err := t.clone(a)
			if err != nil {
				return err
			}
			in, err := t.e.ECS.GetInstance(ctx, c.InstanceID)
			if err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			if in.Status == "Stopping" { // we were cut off right after StopInstance
				if in, err = t.e.ECS.WaitInstance(wait, in.ID, "Stopped", t.progress(a)); err != nil {
					return err
				}
			}
			if in.Status == "Stopped" {
				if err := t.e.ECS.StartInstance(wait, in.ID); err != nil {
					return err
				}
			}
			if _, err := t.e.ECS.WaitInstance(wait, in.ID, "Running", t.progress(a)); err != nil {
				return err
			}
			_, err = t.waitBoot(ctx, a, l, "")
			return err
		},
	}
}

func (t *transition) releaseClone() engine.Step {
	return engine.Step{
		ID: "5.3-release", Section: "5.3", Title: "release the transition host and its image; snapshots stay until their retention ends", Effect: engine.Irreversible,
		Lines: []string{"ecs DeleteInstance (from 3.3), DeleteImage (from 3.2)", fmt.Sprintf("kept: the snapshots of 3.1 and 4.5, for %d days", t.cfg.Snapshots.RetentionDays)},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			c, _, err := t.clone(a)
			return engine.Proposal{NotApplicable: t.keep(), Params: instanceResult{c.InstanceID}}, err
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := t.release(ctx, a, p.InstanceID); err != nil {
				return nil, err
			}
			if err := t.releaseMade(ctx, a); err != nil {
				return nil, err
			}
			return nil, errors.Join(t.deleteImages("3.2-image")(ctx, a), t.deleteImages("4.3-image")(ctx, a))
		},
	}
}

type endResult struct {
	KeptSnapshots []string `json:"kept_snapshots"`
}

// verifyEnd looks at the world once more: nothing left, all as it was.
func (t *transition) verifyEnd() engine.Step {
	return engine.Step{
		ID: "5.3-verify", Section: "5.3", Title: "nginx, weights and cloud are as they were; nothing is left behind", Effect: engine.ReadOnly,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			now := Facts{}
			var err error
			if now.Nginx, err = discoverNginx(ctx, t.cfg, t.e); err != nil {
				return nil, err
			}
			if now.Memberships, err = discoverBalancers(ctx, t.cfg, t.e, t.p.Facts.Instance); err != nil {
				return nil, err
			}
			// Files may have changed by other hands meanwhile: that is their
			// business, as long as they lead where they led.
			for _, d := range driftNginx(t.p.Facts.Nginx, now.Nginx) {
				a.Progress("not by this run: %s", d)
			}
			for _, d := range driftListeners(&t.p.Facts, now.Memberships) {
				a.Progress("not by this run: %s", d)
			}
			bad := append(movedRefs(t.p.Facts.Nginx, now.Nginx), driftBalancers(t.p.Facts.Memberships, now.Memberships)...)
			if len(bad) > 0 {
				return nil, fmt.Errorf("the run has reached its end, but not all is as before: %s", strings.Join(bad, "; "))
			}
			res, left, err := t.leftovers(ctx, a)
			if err != nil {
				return nil, err
			}
			if len(left) > 0 {
				return nil, errors.New("left behind: " + strings.Join(left, ", "))
			}
			return res, t.waitAllHealthy(ctx, a, prod)
		},
	}
}

// movedRefs lists the references to the production host that are not as they
// were: gone, or still carrying a mark.
func movedRefs(was, now []NginxFacts) (out []string) {
	for i, w := range was {
		have := map[string]int{}
		if i < len(now) {
			for _, r := range now[i].Refs {
				if r.Tag != "" {
					out = append(out, fmt.Sprintf("%s: %s:%d still carries the mark %s", w.Host, r.File, r.Line, r.Tag))
				}
				have[string(r.Kind)+" "+r.File+" "+r.Addr]++
			}
		}
		for _, r := range w.Refs {
			if k := string(r.Kind) + " " + r.File + " " + r.Addr; have[k] > 0 {
				have[k]--
			} else {
				out = append(out, fmt.Sprintf("%s: %s no longer has %s %s", w.Host, r.File, r.Kind, r.Addr))
			}
		}
	}
	return out
}

// leftovers lists what this run made in the cloud and is still there. Kept
// snapshots are no leftovers.
func (t *transition) leftovers(ctx context.Context, a *engine.Act) (endResult, []string, error) {
	mine := map[string]string{runTag: a.RunID()}
	var left []string
	instances, err := t.e.ECS.ListInstances(ctx, ecs.Filter{Tags: mine})
	if err != nil {
		return endResult{}, nil, err
	}
	for _, in := range instances {
		left = append(left, "instance "+in.ID)
	}
	images, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: mine})
	if err != nil {
		return endResult{}, nil, err
	}
	for _, im := range images {
		left = append(left, "image "+im.ID)
	}
	snaps, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: mine})
	if err != nil {
		return endResult{}, nil, err
	}
	res := endResult{KeptSnapshots: []string{}}
	for _, sn := range snaps {
		if sn.RetentionDays == 0 {
			a.Progress("snapshot %s has no end of retention: delete it by hand when it is not needed any more", sn.ID)
		}
		res.KeptSnapshots = append(res.KeptSnapshots, sn.ID)
	}
	return res, left, nil
}
