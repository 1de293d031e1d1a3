package upgrade

import (
	"context"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Steps whose effect is a script that runs at most once, detached on a host,
// under the step's key.

// jobParams are what is journalled of such a script before it begins.
type jobParams struct {
	Script string `json:"script"`
}

// job reads the state of the job with that key.
func (l *link) job(ctx context.Context, key string) (hostos.JobState, error) {
	st, err := hostos.GetJob(ctx, l, key)
	return st, wrapHost(l.target, err)
}

// startJob launches a script, unless it was launched under that key before.
func (l *link) startJob(ctx context.Context, key, script string) error {
	return wrapHost(l.target, hostos.StartJob(ctx, l.held(), key, script))
}

// observeJob is the Observe of such a step, on the host that on gives.
func observeJob(on func(*engine.Act) (*link, error)) func(context.Context, *engine.Act) (engine.Sight, error) {
	return func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
		l, err := on(a)
		if err != nil {
			return engine.Sight{}, err
		}
		st, err := l.job(ctx, a.Key())
		if err != nil {
			return engine.Sight{}, err
		}
		if st.Phase == hostos.JobAbsent {
			return engine.Sight{State: engine.Absent}, nil
		}
		return engine.Sight{State: engine.InProgress, Detail: "job is " + string(st.Phase)}, nil
	}
}

// host gives the link to the host of a role.
func (t *transition) host(r role) func(*engine.Act) (*link, error) {
	return func(a *engine.Act) (*link, error) {
		l, _, err := t.on(a, r)
		return l, err
	}
}

// beginJob starts the script of the step's jobParams, unless it was started
// before; ready proves what must hold right before it starts.
func beginJob(ctx context.Context, a *engine.Act, l *link, ready func() error) error {
	var p jobParams
	if err := a.Params(&p); err != nil {
		return err
	}
	if err := l.alive(ctx); err != nil {
		return err
	}
	st, err := l.job(ctx, a.Key())
	if err != nil || st.Phase != hostos.JobAbsent {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return l.startJob(ctx, a.Key(), p.Script)
}
