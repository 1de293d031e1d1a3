package upgrade

import (
	"context"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Section 3.5 and its share of 4.5: the Docker engine.

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
