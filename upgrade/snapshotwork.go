package upgrade

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.1 and 3.2, and their share of 4.5: snapshots of disks, and an image of them.

type snapshotParams struct {
	Input ecs.SnapshotInput `json:"input"`
}

type snapshotResult struct {
	GroupID   string         `json:"group_id,omitempty"` // "" when each disk was taken by itself
	Snapshots []ecs.Snapshot `json:"snapshots"`
}

func (t *transition) createSnapshots() engine.Step {
	s := t.snapshotStep("3.1-snapshots", "3.1", "snapshot every disk of "+t.p.Host)
	plan := s.Plan
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		if t.adopted() {
			return engine.Proposal{NotApplicable: "transition host " + t.cfg.Transition.Instance + " exists already and is adopted"}, nil
		}
		return plan(ctx, a)
	}
	return s
}

// snapshotBeforeOS takes one more picture of production, with its services
// stopped, right before its package transaction.
func (t *transition) snapshotBeforeOS() engine.Step {
	return t.snapshotStep("4.5-snapshots", "4.5", "snapshot every disk of "+t.p.Host+" once more, quiet, before its upgrade")
}

func (t *transition) snapshotStep(id, section, title string) engine.Step {
	how := "ecs CreateSnapshotGroup, all of one moment"
	if why := ecs.NoSnapshotGroup(t.p.Facts.Disks); why != "" {
		how = "ecs CreateSnapshot, one by one (" + why + ")"
	}
	lines := []string{fmt.Sprintf("%s, kept for %d days", how, t.cfg.Snapshots.RetentionDays)}
	for _, d := range t.p.Facts.Disks {
		lines = append(lines, fmt.Sprintf("%s (%s, %d GiB)", d.ID, d.Type, d.Size))
	}
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.TokenCreate, Lines: lines,
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{Params: snapshotParams{ecs.SnapshotInput{
				InstanceID: t.p.Facts.Instance.ID, Token: a.Key(), Name: "upgradectl-" + a.RunID() + "-" + section,
				RetentionDays: t.cfg.Snapshots.RetentionDays, Tags: t.tags(a),
			}}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			have, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			// The snapshots of a group get their tags after it.
			groups, err := t.e.ECS.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			if len(have)+len(groups) == 0 {
				return engine.Sight{State: engine.Absent}, nil
			}
			// Do finds them by their token, makes the missing ones, and waits.
			return engine.Sight{State: engine.InProgress, Detail: fmt.Sprintf("%d groups and %d snapshots exist", len(groups), len(have))}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p snapshotParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			cleanUp := func(ctx context.Context) error { return t.deleteSnapshots(ctx, a) }
			made, err := t.e.ECS.CreateSnapshotSet(ctx, p.Input)
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			if made.Reason != "" {
				a.Progress("%s", made.Reason)
			}
			ids := make([]string, len(made.Snapshots))
			for i, s := range made.Snapshots {
				ids[i] = s.ID
			}
			var done []ecs.Snapshot
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) (err error) {
				done, err = t.e.ECS.WaitSnapshots(ctx, ids, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return snapshotResult{made.GroupID, done}, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var r snapshotResult
			if _, err := a.Own(&r); err != nil {
				return nil, err
			}
			if len(r.Snapshots) != len(t.p.Facts.Disks) {
				return nil, fmt.Errorf("%s has %d disks, but %d snapshots were made", t.p.Host, len(t.p.Facts.Disks), len(r.Snapshots))
			}
			return nil, nil
		},
		Undo: t.deleteSnapshots,
	}
}

// deleteSnapshots deletes what the step has made.
func (t *transition) deleteSnapshots(ctx context.Context, a *engine.Act) error {
	groups, err := t.e.ECS.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: stepTags(a, a.StepID())})
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := t.e.ECS.DeleteSnapshotGroup(ctx, g.ID); err != nil {
			return err
		}
	}
	have, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: stepTags(a, a.StepID())})
	if err != nil {
		return err
	}
	for _, s := range have {
		if err := t.e.ECS.DeleteSnapshot(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// whileMoving waits for something of the cloud for as long as it makes
// progress: a large snapshot takes hours, and one that has stood still for
// pace.cloud_timeout will not go on.
func (t *transition) whileMoving(ctx context.Context, a *engine.Act, wait func(context.Context, func(ecs.Progress)) error) error {
	limit := t.cfg.Pace.CloudTimeout
	moving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := fmt.Errorf("no progress for %s", short(limit))
	timer := time.AfterFunc(limit, func() { stop(stalled) })
	defer timer.Stop()
	tell := t.progress(a)
	var mu sync.Mutex
	last := ""
	err := wait(moving, func(p ecs.Progress) {
		timer.Reset(limit)
		mu.Lock()
		last = fmt.Sprintf("%s %s %d%%", p.ID, p.Status, p.Percent)
		mu.Unlock()
		tell(p)
	})
	if err != nil && context.Cause(moving) == stalled {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Errorf("%w: %w (last: %s)", err, stalled, last)
	}
	return err
}

// progress passes the cloud's own progress on.
func (t *transition) progress(a *engine.Act) func(ecs.Progress) {
	return func(p ecs.Progress) {
		line := fmt.Sprintf("%s %s: %s", p.Object, p.ID, p.Status)
		if p.Percent >= 0 {
			line += fmt.Sprintf(" %d%%", p.Percent)
		}
		if p.Remaining > 0 {
			line += fmt.Sprintf(", %s to go", p.Remaining.Round(time.Second))
		}
		a.Progress("%s", line)
	}
}

type imageParams struct {
	Input ecs.ImageInput `json:"input"`
}

type imageResult struct {
	ImageID string `json:"image_id"`
}

func (t *transition) createImage() engine.Step {
	return engine.Step{
		ID: "3.2-image", Section: "3.2", Effect: engine.TokenCreate,
		Title: "make an image from the snapshots",
		Lines: []string{"ecs CreateImage DiskDeviceMapping.N.SnapshotId=(from 3.1)"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.adopted() {
				return engine.Proposal{NotApplicable: "the transition host is adopted"}, nil
			}
			var s snapshotResult
			if ok, err := a.Result("3.1-snapshots", &s); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no snapshots recorded"), err)
			}
			return engine.Proposal{Params: imageParams{ecs.ImageInput{Name: "upgradectl-" + a.Key(), Token: a.Key(), Snapshots: s.Snapshots, Tags: t.tags(a)}}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			switch {
			case err != nil:
				return engine.Sight{}, err
			case len(have) == 0:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "image " + have[0].ID + " exists"}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p imageParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			cleanUp := func(ctx context.Context) error { return t.deleteImages("3.2-image")(ctx, a) }
			// The image may be there from before a crash; a token that the cloud
			// has forgotten must not make a second one.
			have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			if err != nil {
				return nil, err
			}
			var id string
			if len(have) > 0 {
				id = have[0].ID
			} else if id, err = t.e.ECS.CreateImage(ctx, p.Input); err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) error {
				_, err := t.e.ECS.WaitImage(ctx, id, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return imageResult{id}, nil
		},
		Undo: t.deleteImages("3.2-image"),
	}
}

// deleteImages deletes what the image step made.
func (t *transition) deleteImages(step string) func(context.Context, *engine.Act) error {
	return func(ctx context.Context, a *engine.Act) error {
		have, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: stepTags(a, step)})
		if err != nil {
			return err
		}
		for _, im := range have {
			if err := t.e.ECS.DeleteImage(ctx, im.ID); err != nil {
				return err
			}
		}
		return nil
	}
}
