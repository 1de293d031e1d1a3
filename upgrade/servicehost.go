package upgrade

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// hostRestartKey is the key of the restart values that StopHostServices keeps:
// there is one such stop of a host at a time, and any later start has to find
// them.
const hostRestartKey = "host-services"

// A HostService is a configured service and how it stands on a host.
type HostService struct {
	Service Service `json:"service"`
	Running bool    `json:"running"`
	Problem string  `json:"problem,omitempty"` // why it is not healthy; "" = it is
	// Restart says what is known of its processes where it has no start command.
	Restart []hostos.Kept `json:"restart,omitempty"`
}

// ListHostServices looks at the services of cfg on the SSH target, whose
// services are asked at ip. It changes nothing.
func ListHostServices(ctx context.Context, cfg *Config, e *Env, target, ip string) ([]HostService, error) {
	l := e.host(target)
	kept, problem := hostos.CheckRestart(ctx, l, hostServices(cfg))
	var out []HostService
	for _, s := range cfg.Services {
		hs := HostService{Service: s}
		var err error
		if hs.Running, err = hostos.ServiceRunning(ctx, l, service(s)); err != nil {
			return nil, fmt.Errorf("host %s: %w", target, err)
		}
		if err := hostos.CheckService(ctx, l, l.DialContext, ip, service(s)); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			hs.Problem = err.Error()
		}
		for _, k := range kept {
			if k.Service == s.Name {
				hs.Restart = append(hs.Restart, k)
			}
		}
		out = append(out, hs)
	}
	if len(hostos.NeedRestart(hostServices(cfg))) > 0 && kept == nil && problem != nil {
		return out, fmt.Errorf("host %s: %w", target, problem)
	}
	return out, nil
}

// StopHostServices stops the services of cfg on the SSH target as 4.4 does: what
// starting them again needs is kept on the host first, and those that others
// start after stop last. It has to be called inside HoldHost, and may be called
// again after it was cut off. progress, when not nil, is told what happens.
func StopHostServices(ctx context.Context, cfg *Config, e *Env, target string, progress func(string)) error {
	h := e.host(target).held()
	all := hostServices(cfg)
	fail := func(err error) error { return fmt.Errorf("host %s: %w", target, err) }
	switch _, err := hostos.CheckRestart(ctx, h, all); {
	case errors.Is(err, hostos.ErrNotRunning):
		// An earlier stop was cut off: what it kept is all there is.
	case err != nil:
		return fail(err)
	default:
		// All of them run: what an earlier stop kept is over, and may be older
		// than what was deployed since.
		if err := hostos.RemoveRestart(ctx, h, hostRestartKey); err != nil {
			return fail(err)
		}
	}
	if _, err := hostos.CaptureRestart(ctx, h, hostRestartKey, all); err != nil {
		return fail(err)
	}
	if err := hostos.StopServices(ctx, h, all, hostos.ServiceOptions{Poll: cfg.Pace.Sample, Progress: progress}); err != nil {
		return fail(err)
	}
	return nil
}

// StartHostServices starts what StopHostServices has stopped, as 3.7 and 3.8
// do, and waits until every service is healthy at ip and warm. What was kept
// for it is removed then. It has to be called inside HoldHost, and may be called
// again after it was cut off: what runs is not started twice.
func StartHostServices(ctx context.Context, cfg *Config, e *Env, target, ip string, progress func(string)) error {
	l := e.host(target)
	o := hostos.ServiceOptions{Restart: []string{hostRestartKey}, Poll: cfg.Pace.Sample, Progress: progress}
	if err := hostos.StartServices(ctx, l.held(), l.DialContext, ip, hostServices(cfg), o); err != nil {
		return fmt.Errorf("host %s: %w", target, err)
	}
	if len(hostos.NeedRestart(hostServices(cfg))) == 0 {
		return nil
	}
	if err := hostos.RemoveRestart(ctx, l.held(), hostRestartKey); err != nil {
		return fmt.Errorf("host %s: %w", target, err)
	}
	return nil
}

func hostServices(cfg *Config) []hostos.Service {
	var out []hostos.Service
	for _, s := range cfg.Services {
		out = append(out, service(s))
	}
	return out
}
