package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Section 3.5-repos and its share of 4.5: the repositories of CentOS 7.

type reposParams struct {
	Vault string `json:"vault"`
}

// reposBefore names the blob with the files: they can hold passwords.
type reposBefore struct {
	Files string `json:"files"`
}

// setVault points the repositories of CentOS 7 to a vault, before anything is
// installed from them.
func (t *transition) setVault(r role) engine.Step {
	id, sec := r.id("3.5", "repos")
	// both gives the files as they were and as they are to be.
	both := func(a *engine.Act) (from, to hostos.Repos, err error) {
		var p reposParams
		var b reposBefore
		if err := errors.Join(a.Params(&p), a.Before(&b)); err != nil {
			return nil, nil, err
		}
		text, err := a.Blob(b.Files)
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(text, &from); err != nil {
			return nil, nil, fmt.Errorf("cannot read the recorded repositories: %w", err)
		}
		to, err = from.Vault(p.Vault)
		return from, to, err
	}
	s := engine.Step{
		ID: id, Section: sec, Title: "point the package repositories of " + t.name(r) + " to a vault", Effect: engine.SetState,
		Lines: when(t.cfg.OS.Vault != "", "/etc/yum.repos.d: base, updates, extras at "+t.cfg.OS.Vault),
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.cfg.OS.Vault == "" {
				return engine.Proposal{NotApplicable: "os.vault names none"}, nil
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Proposal{}, err
			}
			from, err := hostos.GetRepos(ctx, l)
			if err == nil {
				_, err = from.Vault(t.cfg.OS.Vault)
			}
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			ref, err := putJSON(a, from)
			return engine.Proposal{Params: reposParams{t.cfg.OS.Vault}, Before: reposBefore{ref}}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			from, to, err := both(a)
			if err != nil {
				return engine.Sight{}, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Sight{}, err
			}
			now, err := hostos.GetRepos(ctx, l)
			if err != nil {
				return engine.Sight{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			absent, ours := true, true
			for name := range from {
				absent = absent && now[name] == from[name]
				ours = ours && now[name] == to[name]
				if now[name] != from[name] && now[name] != to[name] {
					return engine.Sight{State: engine.Foreign, Detail: name + " has another content"}, nil
				}
			}
			switch {
			case ours:
				return engine.Sight{State: engine.Ours}, nil
			case absent:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "some files are written"}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			from, to, err := both(a)
			if err != nil {
				return nil, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if err := hostos.SetRepos(ctx, l.held(), from, to); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			return nil, nil
		},
	}
	if r == old {
		s.NoUndo = r.noUndo()
		return s
	}
	s.Undo = func(ctx context.Context, a *engine.Act) error {
		from, to, err := both(a)
		if err != nil {
			return err
		}
		l, _, err := t.on(a, r)
		if err != nil {
			return err
		}
		if err := hostos.SetRepos(ctx, l.held(), to, from); err != nil {
			return fmt.Errorf("host %s: %w", l.target, err)
		}
		return nil
	}
	return s
}
