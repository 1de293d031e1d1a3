package upgrade

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.5 and 3.7 and their share of 4.5: the Docker engine, and what
// runs in it.

// DockerOptions are those of cfg; profile is the content of docker.profile when
// that is a file (Facts.DockerProfile).
func (cfg *Config) DockerOptions(profile string) hostos.DockerOptions {
	d := cfg.Docker
	o := hostos.DockerOptions{
		RepoURL: d.RepoURL, RepoSHA256: d.RepoSHA256, Package: d.Package, Version: d.Version, ChmodSocket: d.ChmodSocket, Down: d.Down,
	}
	switch d.Profile {
	case ProfileRunbook, "":
	case ProfileKeep:
		o.Profile = []byte("{}")
	default:
		o.Profile = []byte(profile)
	}
	for _, s := range cfg.Services {
		if s.Kind == KindCompose {
			o.Dirs = append(o.Dirs, s.Dir)
		}
	}
	return o
}

func (t *transition) dockerOptions() hostos.DockerOptions {
	return t.cfg.DockerOptions(t.p.Facts.DockerProfile)
}

// dockerWork is what is journalled of 3.5 before it begins.
type dockerWork struct {
	Plan   *hostos.DockerPlan `json:"plan"`
	Script string             `json:"script"` // blob: it holds daemon.json
}

// dockerBefore is the before-image: daemon.json as it was.
type dockerBefore struct {
	DaemonJSON string `json:"daemon_json,omitempty"` // blob; "" = there was none
}

// dockerDone is the result of 3.5. Key names the job's directory on the host.
type dockerDone struct {
	Key string `json:"key"`
	hostos.DockerResult
}

func (t *transition) upgradeDocker(r role) engine.Step {
	id, sec := r.id("3.5", "docker")
	s := engine.Step{
		ID: id, Section: sec, Title: "replace Docker on " + t.name(r) + " by docker-ce", Effect: engine.OneShot, Pivot: r == prod, NoUndo: r.noUndo(),
	}
	if t.p.Facts.Docker != nil && t.cfg.OS.Docker == DockerUpgrade && t.p.Facts.HasDocker {
		p, err := hostos.PlanDocker(t.p.Facts.Docker, nil, t.dockerOptions())
		if err != nil {
			s.Lines = []string{err.Error()}
		} else {
			s.Lines = p.Lines()
		}
	}
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		switch {
		case t.cfg.OS.Docker != DockerUpgrade:
			return engine.Proposal{NotApplicable: "os.docker is " + t.cfg.OS.Docker}, nil
		case !t.p.Facts.HasDocker:
			return engine.Proposal{NotApplicable: t.p.Host + " has no Docker"}, nil
		case t.p.Facts.Docker == nil:
			return engine.Proposal{}, errOldDockerFacts
		}
		if r == prod {
			// Here a refusal is not past the pivot yet.
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
		}
		return t.planDocker(ctx, a, r)
	}
	s.Observe = observeJob(t.host(r))
	s.Do = func(ctx context.Context, a *engine.Act) (any, error) { return t.doDocker(ctx, a, r) }
	return s
}

var errOldDockerFacts = errors.New("the plan was made by an older version, which recorded less of Docker; make a new plan")

// planDocker plans from the state that the host is in now, and from that of
// production when everything ran.
func (t *transition) planDocker(ctx context.Context, a *engine.Act, r role) (engine.Proposal, error) {
	l, _, err := t.on(a, r)
	if err != nil {
		return engine.Proposal{}, err
	}
	o := t.dockerOptions()
	if r == prod {
		var rehearsed dockerDone
		if _, err := a.Result("3.5-docker", &rehearsed); err != nil {
			return engine.Proposal{}, err
		}
		o.Replay = rehearsed.Installed
	}
	now, err := hostos.GetDocker(ctx, l)
	if err != nil {
		return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
	}
	p, err := hostos.PlanDocker(now, t.p.Facts.Docker, o)
	if err != nil {
		return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
	}
	script, err := p.Script(a.Key())
	if err != nil {
		return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
	}
	w := dockerWork{Plan: p}
	if w.Script, err = a.PutBlob([]byte(script)); err != nil {
		return engine.Proposal{}, err
	}
	var b dockerBefore
	if now.DaemonJSON != nil {
		if b.DaemonJSON, err = a.PutBlob(now.DaemonJSON); err != nil {
			return engine.Proposal{}, err
		}
	}
	return engine.Proposal{Params: w, Before: b}, nil
}

func (t *transition) doDocker(ctx context.Context, a *engine.Act, r role) (any, error) {
	l, _, err := t.on(a, r)
	if err != nil {
		return nil, err
	}
	var w dockerWork
	if err := a.Params(&w); err != nil {
		return nil, err
	}
	script, err := a.Blob(w.Script)
	if err != nil {
		return nil, err
	}
	if err := l.alive(ctx); err != nil {
		return nil, err
	}
	if r == prod {
		st, err := l.job(ctx, a.Key())
		if err != nil {
			return nil, err
		}
		if st.Phase == hostos.JobAbsent {
			if err := t.ready(ctx, a); err != nil {
				return nil, err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.JobTimeout)
	defer cancel()
	res, err := hostos.UpgradeDocker(ctx, l.held(), a.Key(), string(script), t.cfg.Pace.Poll)
	if err != nil {
		err = fmt.Errorf("host %s: %w", l.target, err)
		if _, ended := errors.AsType[*hostos.DockerError](err); ended {
			if left := hostos.CheckTransactions(ctx, l); left != nil {
				err = fmt.Errorf("%w; %w", err, left)
			}
			// A person who has read its log may have it tried again, as a new attempt.
			return nil, engine.Definitive(err)
		}
		return nil, err
	}
	if err := res.Check(w.Plan); err != nil {
		return nil, engine.Definitive(fmt.Errorf("host %s: %w", l.target, err))
	}
	for _, c := range w.Plan.Config.Changes {
		a.Progress("%s: daemon.json: %s", l.target, c)
	}
	return dockerDone{a.Key(), *res}, nil
}

// containersDone is the result of 3.7.
type containersDone struct {
	Running []string `json:"running"`        // containers
	Logs    string   `json:"logs,omitempty"` // blob: the last lines of what they wrote
}

// logLines is how much of each container's log is kept as evidence.
const logLines = 100

// startContainers starts the daemon, proves that containers start, and brings
// back what ran in it, whatever started it.
func (t *transition) startContainers(r role) engine.Step {
	services := t.earlyServices()
	s := t.startStep(r, "3.7", "containers", "start Docker and the containers on "+t.name(r), services)
	lines := []string{"systemctl enable docker, systemctl start docker, both read back; a container of our own proves that containers start"}
	if d := t.p.Facts.Docker; d != nil {
		for _, name := range d.Running() {
			lines = append(lines, "container "+name+": runs again with the same image, ports and mounts")
		}
	}
	s.Lines = append(lines, s.Lines...)
	plan := s.Plan
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		switch {
		case !t.p.Facts.HasDocker:
			return engine.Proposal{NotApplicable: t.p.Host + " has no Docker"}, nil
		case t.p.Facts.Docker == nil:
			return engine.Proposal{}, errOldDockerFacts
		case t.cfg.OS.Docker == DockerUpgrade, len(t.p.Facts.Docker.Running()) > 0:
			// A new Docker is enabled and started also where it runs nothing.
			return engine.Proposal{Params: services}, nil
		}
		return plan(ctx, a)
	}
	s.Do = func(ctx context.Context, a *engine.Act) (any, error) {
		l, _, err := t.on(a, r)
		if err != nil {
			return nil, err
		}
		var upgraded dockerDone
		id, _ := r.id("3.5", "docker")
		if ok, err := a.Result(id, &upgraded); err != nil {
			return nil, err
		} else if !ok {
			upgraded.Key = a.Key()
		}
		wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
		defer cancel()
		if err := l.alive(wait); err != nil {
			return nil, err
		}
		before, o := t.p.Facts.Docker, t.dockerOptions()
		now, err := hostos.StartDocker(wait, l.held(), upgraded.Key, before, o.ChmodSocket)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		if now, err = hostos.StartContainers(wait, l.held(), before, now, o, t.cfg.Pace.Sample); err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		if err := t.start(ctx, a, r, services); err != nil {
			return nil, err
		}
		done := containersDone{Running: now.Running()}
		logs, err := hostos.GetContainerLogs(ctx, l, done.Running, logLines)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		if len(logs) > 0 {
			if done.Logs, err = a.PutBlob(logs); err != nil {
				return nil, err
			}
		}
		return done, nil
	}
	return s
}
