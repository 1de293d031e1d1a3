package slb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// RampOptions says how Ramp goes. The zero value is 1, 10, recorded weight.
type RampOptions struct {
	// Steps are the weights before the recorded one, rising; nil means 1, 10. A
	// target whose recorded weight is not above a step is at its own weight by
	// then. Weight 0 is never a step: health behind TCP and UDP is not measured
	// there.
	Steps []int
	// HealthyFor is how long every target must be healthy on every listener
	// without a break before the next step; 0 means that one look is enough.
	HealthyFor time.Duration
	// HealthyWithin is how long to wait for that; 0 means the Timeout of Config.
	HealthyWithin time.Duration
	// StepCheck, if not nil, is asked after each step when health is good: an
	// error stops the ramp (as "errors went up").
	StepCheck func(ctx context.Context, weight int) error
	// Progress, if not nil, gets one line for each step.
	Progress func(string)
}

// Ramp brings members into service: one small weight for all of them, health on
// all their listeners, then the next weight, up to what was recorded. They must
// be members already (AddBackend, with weight 0 or 1). Target.Backend is the
// member as it was read, Target.Weight where it shall end; one with 0 is left
// alone. A target that has a higher weight than a step keeps it.
//
// An error leaves the weights as they are; the caller decides whether to go back
// with SetWeights. A second call goes on where the first stopped.
func (c *Client) Ramp(ctx context.Context, targets []Target, opt RampOptions) error {
	steps := slices.Clone(opt.Steps)
	if opt.Steps == nil {
		steps = []int{1, 10}
	}
	if !slices.IsSorted(steps) || len(steps) > 0 && (steps[0] < 1 || steps[len(steps)-1] > 100) {
		return fmt.Errorf("cannot ramp by %v: steps rise from 1 to 100", steps)
	}
	var live []Target
	for _, t := range targets {
		if t.Membership.MasterSlaveGroupID != "" {
			return &RefusedError{Findings: t.Membership.Findings()}
		}
		if t.Weight > 0 {
			live = append(live, t)
		}
	}
	if len(live) == 0 {
		return nil
	}
	for _, w := range append(steps, 100) {
		var changes []Change
		for n := range live {
			t := &live[n]
			to := min(w, t.Weight)
			if t.Backend.Weight >= to {
				continue
			}
			changes = append(changes, Change{Group: t.Membership.Group(), Backend: t.Backend, Weight: to})
		}
		if len(changes) > 0 {
			if err := c.SetWeights(ctx, changes); err != nil {
				return err
			}
			for n := range live {
				t := &live[n]
				t.Backend.Weight = max(t.Backend.Weight, min(w, t.Weight))
			}
			if opt.Progress != nil {
				opt.Progress(fmt.Sprintf("weight %d or what was recorded for %d members", w, len(changes)))
			}
		}
		if err := c.waitServing(ctx, live, opt); err != nil {
			return err
		}
		if opt.StepCheck != nil && len(changes) > 0 {
			if err := opt.StepCheck(ctx, w); err != nil {
				return fmt.Errorf("the ramp stops at weight %d: %w", w, err)
			}
		}
		if !slices.ContainsFunc(live, func(t Target) bool { return t.Backend.Weight < t.Weight }) {
			return nil
		}
	}
	return nil
}

// waitServing blocks until every target has been healthy for as long as opt
// says.
func (c *Client) waitServing(ctx context.Context, targets []Target, opt RampOptions) error {
	within := opt.HealthyWithin
	if within <= 0 {
		within = c.wait
	}
	ctx, cancel := alicloud.WithLimit(ctx, within+opt.HealthyFor)
	defer cancel()
	var since time.Time
	p := poll.Poller{Interval: c.poll, Max: c.poll, Retryable: retryable}
	return p.Until(ctx, "health on all listeners", func(ctx context.Context) (string, bool, error) {
		err := c.CheckAllServing(ctx, targets)
		var no *NotServingError
		if errors.As(err, &no) {
			since = time.Time{}
			if slices.Contains(no.Reasons, "it is no member") || slices.Contains(no.Reasons, "its weight is 0") {
				return "", false, poll.Stop(err) // somebody else did that
			}
			return no.Error(), false, nil
		}
		if err != nil {
			return "", false, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		return fmt.Sprintf("healthy for %s", time.Since(since).Round(time.Second)), time.Since(since) >= opt.HealthyFor, nil
	})
}
