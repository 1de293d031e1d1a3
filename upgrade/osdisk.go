package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// os.production: replace-system-disk. Production gets no package transaction of
// its own: its system disk is replaced by an image of the transition host's,
// which has served in its place by then (ReplaceSystemDisk of the API: the
// instance, its addresses, its data disks and its places behind balancers stay,
// the old system disk is released). What makes production itself travels with
// the disks: step 2.3-identity puts it aside on production before the snapshots,
// so that the transition host has it, hence the image, hence the new disk.
//
// What production writes to its system disk after the snapshots of 3.1 is not in
// the image. 4.3-written and 4.5-stop-instance look for it.

// replacing tells whether production gets the transition host's system disk.
func (t *transition) replacing() bool { return t.cfg.OS.Production == ProductionReplaceDisk }

// replayed skips a step of production that the new disk makes needless.
func (t *transition) replayed(s engine.Step) engine.Step {
	if t.replacing() {
		s.Lines, s.Gate, s.Pivot = []string{"comes with the new system disk"}, "", false
		s.Plan = func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{NotApplicable: "it comes with the new system disk"}, nil
		}
	}
	return s
}

// whenReplacing skips a step where the disk is not replaced.
func (t *transition) whenReplacing(s engine.Step) engine.Step {
	if t.replacing() {
		return s
	}
	s.Lines, s.Pivot = nil, false
	s.Plan = func(context.Context, *engine.Act) (engine.Proposal, error) {
		return engine.Proposal{NotApplicable: "production keeps its system disk"}, nil
	}
	return s
}

// pinned makes steps behind the replacement know production by the keys that it
// shows then.
func (t *transition) pinned(steps []engine.Step) []engine.Step {
	if !t.replacing() {
		return steps
	}
	from := slices.IndexFunc(steps, func(s engine.Step) bool { return s.ID == "4.5-start-instance" })
	for i := from + 1; i < len(steps); i++ {
		s := steps[i]
		if s.Plan != nil {
			steps[i].Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
				if err := t.pinProduction(a); err != nil {
					return engine.Proposal{}, err
				}
				return s.Plan(ctx, a)
			}
		}
		if s.Observe != nil {
			steps[i].Observe = func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
				if err := t.pinProduction(a); err != nil {
					return engine.Sight{}, err
				}
				return s.Observe(ctx, a)
			}
		}
		if s.Do != nil {
			steps[i].Do = func(ctx context.Context, a *engine.Act) (any, error) {
				if err := t.pinProduction(a); err != nil {
					return nil, err
				}
				return s.Do(ctx, a)
			}
		}
		if s.Undo != nil {
			steps[i].Undo = func(ctx context.Context, a *engine.Act) error {
				if err := t.pinProduction(a); err != nil {
					return err
				}
				return s.Undo(ctx, a)
			}
		}
	}
	return steps
}

// pinProduction pins the keys that the cloud's own channel gave for the first
// boot of the new disk, besides those that production has always had: it shows
// them again from 4.5-settle on.
func (t *transition) pinProduction(a *engine.Act) error {
	var started startedResult
	var id identityResult
	ok, err := a.Result("4.5-start-instance", &started)
	if err != nil || !ok {
		return err
	}
	if _, err := a.Result("2.3-identity", &id); err != nil {
		return err
	}
	return t.e.Dialer.Pin(t.cfg.Host, append(slices.Clone(started.HostKeys), id.HostKeys...))
}

type diskImage struct {
	ImageID  string `json:"image_id"`
	Snapshot string `json:"snapshot"`
	Size     int    `json:"size_gib"`
}

// imageClone makes an image of the transition host's system disk, alone: an
// image with data disks cannot become a system disk.
func (t *transition) imageClone() engine.Step {
	const id = "4.3-image"
	undo := func(ctx context.Context, a *engine.Act) error {
		return errors.Join(t.deleteImages(id)(ctx, a), t.deleteSnapshots(ctx, a))
	}
	return t.whenReplacing(engine.Step{
		ID: id, Section: "4.3", Effect: engine.TokenCreate,
		Title: "make an image of the system disk of the transition host, which has served by now",
		Lines: []string{"ecs CreateSnapshot of its system disk, CreateImage of that snapshot alone"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			c, _, err := t.clone(a)
			return engine.Proposal{Params: snapshotParams{ecs.SnapshotInput{
				InstanceID: c.InstanceID, SystemOnly: true, Token: a.Key(), Name: "upgradectl-" + a.RunID() + "-4.3",
				RetentionDays: t.cfg.Snapshots.RetentionDays, Tags: t.tags(a),
			}}}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			snaps, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			images, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			if len(snaps)+len(images) == 0 {
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: fmt.Sprintf("%d snapshots and %d images exist", len(snaps), len(images))}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p snapshotParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			_, l, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			if _, err := t.runHeld(ctx, l, "sync"); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			cleanUp := func(ctx context.Context) error { return undo(ctx, a) }
			snaps, err := t.e.ECS.CreateSnapshots(ctx, p.Input)
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) (err error) {
				snaps, err = t.e.ECS.WaitSnapshots(ctx, []string{snaps[0].ID}, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			image, err := t.e.ECS.CreateImage(ctx, ecs.ImageInput{Name: "upgradectl-" + a.Key(), Token: a.Key(), Snapshots: snaps, Tags: t.tags(a)})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			res := diskImage{image, snaps[0].ID, snaps[0].SourceDiskSize}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) error {
				_, err := t.e.ECS.WaitImage(ctx, image, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return res, nil
		},
		Undo: undo,
	})
}

// haltProduction switches production off. It can still be switched on again.
func (t *transition) haltProduction() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.5-stop-instance", Section: "4.5", Effect: engine.SetState,
		Title: "shut " + t.p.Host + " down, when it has nothing to lose",
		Lines: []string{"once more what would be lost, with its services stopped", "ecs StopInstance StoppedMode=KeepCharging ForceStop=false"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			return engine.Proposal{Params: instanceResult{t.p.Facts.Instance.ID}}, t.lost(ctx, a)
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := t.ready(ctx, a); err != nil {
				return nil, err
			}
			in, err := t.e.ECS.GetInstance(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			err = t.halt(ctx, a, in)
			t.e.host(t.cfg.Host).drop(nil)
			return nil, err
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return err
			}
			if err := t.switchOn(ctx, a, p.InstanceID); err != nil {
				return err
			}
			_, err := t.waitBoot(ctx, a, t.e.host(t.cfg.Host), "")
			return err
		},
	})
}

// switchOn starts an instance, whatever it is doing, and waits until it runs.
func (t *transition) switchOn(ctx context.Context, a *engine.Act, id string) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	in, err := t.e.ECS.GetInstance(ctx, id)
	if err != nil {
		return err
	}
	if in.Status == "Stopping" { // we were cut off right after StopInstance
		if in, err = t.e.ECS.WaitInstance(ctx, id, ecs.StatusStopped, t.progress(a)); err != nil {
			return err
		}
	}
	if in.Status == ecs.StatusStopped {
		if err := t.e.ECS.StartInstance(ctx, id); err != nil {
			return err
		}
	}
	_, err = t.e.ECS.WaitInstance(ctx, id, ecs.StatusRunning, t.progress(a))
	return err
}

type diskResult struct {
	DiskID string `json:"disk_id"`
}

// replaceDisk is the pivot: the old system disk is gone afterwards.
func (t *transition) replaceDisk() engine.Step {
	old := systemDisk(t.p.Facts.Disks)
	return t.whenReplacing(engine.Step{
		ID: "4.5-disk", Section: "4.5", Effect: engine.TokenCreate, Pivot: true, NoUndo: prod.noUndo(),
		Title: "replace the system disk of " + t.p.Host + " by the image",
		Lines: []string{
			fmt.Sprintf("ecs ReplaceSystemDisk InstanceId=%s ImageId=(from 4.3) SystemDisk.Size=%d, with its key pair, else with the image's logins", t.p.Facts.Instance.ID, old.Size),
			"afterwards: another system disk, the data disks as before; " + old.ID + " is released, its snapshot of 4.5 stays",
		},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			var im diskImage
			if ok, err := a.Result("4.3-image", &im); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no image recorded"), err)
			}
			if old.ID == "" {
				return engine.Proposal{}, errors.New("internal error: the plan names no system disk")
			}
			// Here a refusal is not past the pivot yet.
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			if changed, err := t.disksChanged(ctx, old.ID); err != nil || changed != "" {
				return engine.Proposal{}, errors.Join(err, driftOf(changed))
			}
			return engine.Proposal{Params: ecs.ReplaceInput{InstanceID: t.p.Facts.Instance.ID, OldDiskID: old.ID, ImageID: im.ImageID, Size: max(old.Size, im.Size), Token: a.Key()}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p ecs.ReplaceInput
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			disks, err := t.e.ECS.ListDisks(ctx, p.InstanceID)
			if err != nil {
				return engine.Sight{}, err
			}
			switch now := systemDisk(disks); {
			case now.ID == p.OldDiskID:
				return engine.Sight{State: engine.Absent}, nil
			case now.ID != "" && now.ImageID != p.ImageID:
				return engine.Sight{State: engine.Foreign, Detail: fmt.Sprintf("system disk %s of image %s", now.ID, now.ImageID)}, nil
			default:
				return engine.Sight{State: engine.InProgress, Detail: "system disk " + now.ID}, nil
			}
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p ecs.ReplaceInput
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			disks, err := t.e.ECS.ListDisks(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			if systemDisk(disks).ID == p.OldDiskID {
				if err := t.ready(ctx, a); err != nil {
					return nil, err
				}
			}
			id, err := t.e.ECS.ReplaceSystemDisk(ctx, p, t.progress(a))
			if err != nil {
				var refused *ecs.Error
				if errors.Is(err, ecs.ErrGuard) || errors.As(err, &refused) && refused.Action == "ReplaceSystemDisk" && refused.Definitive && !errors.Is(err, ecs.ErrCredentials) {
					err = engine.Definitive(err)
				}
				return nil, err
			}
			a.Progress("%s: system disk %s in the place of %s", t.p.Host, id, p.OldDiskID)
			return diskResult{id}, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var r diskResult
			if ok, err := a.Own(&r); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: no disk recorded"), err)
			}
			changed, err := t.disksChanged(ctx, r.DiskID)
			if err == nil && changed != "" {
				err = errors.New(changed + ": see that in the console, and resume")
			}
			return nil, err
		},
	})
}

func driftOf(changed string) error {
	if changed == "" {
		return nil
	}
	return &DriftError{[]string{changed}}
}

// systemDisk is the zero Disk when there is none.
func systemDisk(disks []ecs.Disk) ecs.Disk {
	for _, d := range disks {
		if d.Type == "system" {
			return d
		}
	}
	return ecs.Disk{}
}

// disksChanged compares production's disks with those of the plan; the system
// disk is to be the one named.
func (t *transition) disksChanged(ctx context.Context, system string) (string, error) {
	disks, err := t.e.ECS.ListDisks(ctx, t.p.Facts.Instance.ID)
	if err != nil {
		return "", err
	}
	was, now := systemDisk(t.p.Facts.Disks), systemDisk(disks)
	switch {
	case now.ID != system:
		return fmt.Sprintf("the system disk of %s is %s, not %s", t.p.Host, cmp.Or(now.ID, "none"), system), nil
	case now.Category != was.Category || now.Size < was.Size:
		return fmt.Sprintf("the system disk of %s is %s of %d GiB, and was %s of %d GiB", t.p.Host, now.Category, now.Size, was.Category, was.Size), nil
	}
	data := func(all []ecs.Disk) string {
		var out []string
		for _, d := range all {
			if d.Type != "system" {
				out = append(out, d.ID+" at "+d.Device)
			}
		}
		return sorted(out)
	}
	if a, b := data(t.p.Facts.Disks), data(disks); a != b {
		return fmt.Sprintf("%s has the data disks %s, and had %s", t.p.Host, cmp.Or(b, "(none)"), cmp.Or(a, "(none)")), nil
	}
	return "", nil
}

type startedResult struct {
	HostKeys []string    `json:"host_keys"` // of the first boot, read through Cloud Assistant
	Boot     hostos.Boot `json:"boot"`
}

// startProduction boots the new disk, and proves that it is what answers.
func (t *transition) startProduction() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.5-start-instance", Section: "4.5", Effect: engine.SetState, Pivot: true, NoUndo: prod.noUndo(),
		Title: "start " + t.p.Host + " from its new system disk",
		Lines: []string{"ecs StartInstance; RunCommand (reads the SSH host keys of this boot out of band)", "another boot ID; the addresses as before"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{Params: instanceResult{t.p.Facts.Instance.ID}}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			// The lease was on the old disk; the one that came with the image is the
			// transition host's.
			t.e.forgetLease(t.cfg.Host)
			if err := t.switchOn(ctx, a, p.InstanceID); err != nil {
				return nil, err
			}
			in, err := t.e.ECS.GetInstance(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			if was, now := sorted(t.p.Facts.Instance.PrivateIPs), sorted(in.PrivateIPs); was != now {
				return nil, fmt.Errorf("instance %s has the private addresses %s, and had %s", in.ID, now, was)
			}
			wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			var r startedResult
			if r.HostKeys, err = t.e.ECS.HostKeys(wait, p.InstanceID); err != nil {
				err = fmt.Errorf("cannot read the SSH host keys of %s through Cloud Assistant: %w", p.InstanceID, err)
				if ctx.Err() == nil {
					err = fmt.Errorf("%w; %s", err, t.evidence(ctx, a, prod))
				}
				return nil, err
			}
			if err := t.e.Dialer.Pin(t.cfg.Host, r.HostKeys); err != nil {
				return nil, err
			}
			if r.Boot, err = t.waitBoot(ctx, a, t.e.host(t.cfg.Host), t.p.Facts.Boot.ID); err != nil {
				return nil, err
			}
			c, _, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			if r.Boot.ID == c.Boot.ID {
				return nil, fmt.Errorf("%s leads to the transition host", t.cfg.Host)
			}
			return r, nil
		},
	})
}

// forgetLease lets the next change take a host's lease anew.
func (e *Env) forgetLease(target string) {
	e.holder.mu.Lock()
	delete(e.holder.leases, target)
	e.holder.mu.Unlock()
	e.host(target).drop(nil)
}
