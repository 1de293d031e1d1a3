package upgrade

import (
	"context"
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
// start after stop last. progress, when not nil, is told what happens.
func StopHostServices(ctx context.Context, cfg *Config, e *Env, target string, progress func(string)) error {
	l := e.host(target)
	all := hostServices(cfg)
	if _, err := hostos.CaptureRestart(ctx, l, hostRestartKey, all); err != nil {
		return fmt.Errorf("host %s: %w", target, err)
	}
	if err := hostos.StopServices(ctx, l, all, hostos.ServiceOptions{Poll: cfg.Pace.Sample, Progress: progress}); err != nil {
		return fmt.Errorf("host %s: %w", target, err)
	}
	return nil
}

// StartHostServices starts what StopHostServices has stopped, as 3.7 and 3.8
// do, and waits until every service is healthy at ip and warm. What was kept
// for it is removed then.
func StartHostServices(ctx context.Context, cfg *Config, e *Env, target, ip string, progress func(string)) error {
	l := e.host(target)
	o := hostos.ServiceOptions{Restart: []string{hostRestartKey}, Poll: cfg.Pace.Sample, Progress: progress}
	if err := hostos.StartServices(ctx, l, l.DialContext, ip, hostServices(cfg), o); err != nil {
		return fmt.Errorf("host %s: %w", target, err)
	}
	if err := hostos.RemoveRestart(ctx, l, hostRestartKey); err != nil {
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
