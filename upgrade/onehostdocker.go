package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// docker asks what speaks against replacing the host's Docker, unless it is to
// stay (os.docker: keep).
func (c *HostCheck) docker(ctx context.Context, l *link, cfg *Config) error {
	installed, err := hostos.DockerInstalled(ctx, l)
	if err != nil || !installed {
		return err
	}
	if c.Docker, err = hostos.GetDocker(ctx, l); err != nil {
		return err
	}
	o, err := hostDockerOptions(cfg)
	if err != nil {
		return err
	}
	if cfg.OS.Docker == DockerKeep {
		return nil
	}
	if c.DockerPlan, err = hostos.PlanDocker(c.Docker, nil, o); err != nil {
		return err
	}
	for _, r := range c.DockerPlan.Refusals() {
		c.Blocking = append(c.Blocking, "docker: "+r)
	}
	return nil
}

// A HostDocker is what replacing Docker on one host would do, or has done.
type HostDocker struct {
	Host     string               `json:"host"`
	Key      string               `json:"key"`
	Phase    string               `json:"phase"`
	Found    bool                 `json:"found"`
	Reported bool                 `json:"reported,omitempty"`
	Nothing  bool                 `json:"nothing"` // the host has all of it already
	Lines    []string             `json:"lines"`   // what is done, for people
	Plan     *hostos.DockerPlan   `json:"plan"`
	Before   *hostos.Docker       `json:"before"`
	Result   *hostos.DockerResult `json:"result,omitempty"`
	After    *hostos.Docker       `json:"after,omitempty"`

	script string
}

// dockerRecord is what the job's result is judged by. The script holds
// daemon.json, and so stays on the host.
type dockerRecord struct {
	Plan   *hostos.DockerPlan `json:"plan"`
	Lines  []string           `json:"lines"`
	Before *hostos.Docker     `json:"before"`
	Script string             `json:"script"`
}

// hostDockerOptions are those of cfg.
func hostDockerOptions(cfg *Config) (hostos.DockerOptions, error) {
	switch cfg.Docker.Profile {
	case "", ProfileRunbook, ProfileKeep:
		return cfg.DockerOptions(""), nil
	}
	b, err := os.ReadFile(cfg.Docker.Profile)
	if err != nil {
		return hostos.DockerOptions{}, fmt.Errorf("docker.profile: %w", err)
	}
	return cfg.DockerOptions(string(b)), nil
}

// PlanHostDocker says what UpgradeHostDocker would do. It changes nothing. What
// speaks against it is a *RefusedError; the result is there all the same.
func PlanHostDocker(ctx context.Context, e *Env, target string, cfg *Config, o HostJobOptions) (*HostDocker, error) {
	l := e.host(target)
	opt, err := hostDockerOptions(cfg)
	if err != nil {
		return nil, err
	}
	key, err := l.hostJobKey(ctx, "docker", o, opt)
	if err != nil {
		return nil, err
	}
	out := &HostDocker{Host: target, Key: key}
	fail := func(err error) (*HostDocker, error) { return nil, fmt.Errorf("host %s: %w", target, err) }
	var r dockerRecord
	if out.Found, err = l.recorded(ctx, key, &r); err != nil {
		return nil, err
	}
	st, err := l.job(ctx, key)
	if err != nil {
		return nil, err
	}
	out.Phase = string(st.Phase)
	if out.Found && r.Plan != nil {
		out.fill(r)
		out.Reported, err = l.reported(ctx, key)
		return out, err
	}
	if out.Found || st.Phase != hostos.JobAbsent {
		return fail(engine.Invalid("job %s is not one of these commands; take another --key", key))
	}
	installed, err := hostos.DockerInstalled(ctx, l)
	if err != nil {
		return fail(err)
	}
	if !installed {
		return out, &RefusedError{Host: target, Reasons: []string{"there is no docker on the host to be replaced"}}
	}
	if out.Before, err = hostos.GetDocker(ctx, l); err != nil {
		return fail(err)
	}
	if out.Plan, err = hostos.PlanDocker(out.Before, nil, opt); err != nil {
		return fail(err)
	}
	out.Lines, out.Nothing = out.Plan.Lines(), out.Plan.Nothing()
	if reasons := out.Plan.Refusals(); len(reasons) > 0 {
		return out, &RefusedError{Host: target, Reasons: reasons}
	}
	if out.script, err = out.Plan.Script(key); err != nil {
		return fail(err)
	}
	return out, nil
}

func (d *HostDocker) fill(r dockerRecord) {
	d.Plan, d.Lines, d.Before, d.script = r.Plan, r.Lines, r.Before, r.Script
}

// UpgradeHostDocker replaces Docker on one host as steps 3.5 and 3.7 do, and
// brings its containers back. Called again it finds the work where it is; an
// ended context leaves the job running, and the containers to the next call.
// Errors are as those of UpgradeHost.
func UpgradeHostDocker(ctx context.Context, e *Env, target string, cfg *Config, o HostJobOptions) (*HostDocker, error) {
	l := e.host(target)
	out, err := PlanHostDocker(ctx, e, target, cfg, o)
	if out != nil && out.Key != "" {
		if held := l.free(ctx, out.Key); held != nil {
			return out, held
		}
	}
	if err != nil || out.Nothing {
		return out, err
	}
	opt, err := hostDockerOptions(cfg)
	if err != nil {
		return out, err
	}
	err = e.alone(ctx, target, out.Key, o, func(ctx context.Context) (bool, error) {
		return out.run(ctx, l, opt, o)
	})
	return out, err
}

func (d *HostDocker) run(ctx context.Context, l *link, opt hostos.DockerOptions, o HostJobOptions) (over bool, err error) {
	fail := func(over bool, err error) (bool, error) { return over, fmt.Errorf("host %s: %w", l.target, err) }
	if !d.Found {
		r := dockerRecord{d.Plan, d.Lines, d.Before, d.script}
		if err := l.record(ctx, d.Key, r); err != nil {
			return true, err
		}
		if _, err := l.recorded(ctx, d.Key, &r); err != nil {
			return true, err
		}
		d.fill(r)
		o.say("%s: starting job %s", l.target, d.Key)
	} else {
		o.say("%s: job %s is %s", l.target, d.Key, d.Phase)
	}
	wait, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	if d.Result, err = hostos.UpgradeDocker(wait, l.held(), d.Key, d.script, o.Poll); err != nil {
		var ended *hostos.DockerError
		return fail(errors.As(err, &ended), err)
	}
	d.Phase = string(hostos.JobExited)
	if err := d.Result.Check(d.Plan); err != nil {
		return fail(true, err)
	}
	if d.After, err = hostos.StartDocker(wait, l.held(), d.Key, d.Before, opt.ChmodSocket); err != nil {
		return fail(true, err)
	}
	o.say("%s: starting %d containers", l.target, len(d.Before.Running()))
	if d.After, err = hostos.StartContainers(wait, l.held(), d.Before, d.After, opt, o.Poll); err != nil {
		return fail(true, err)
	}
	return true, nil
}
