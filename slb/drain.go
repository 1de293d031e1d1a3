package slb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/poll"
)

// A Policy says what Drain does when its deadline passes and there is still
// traffic.
type Policy string

// The policies. The zero value is Hold.
const (
	Hold  Policy = "hold"  // stop with a NotSilentError; the weights stay 0
	Ask   Policy = "ask"   // ask DrainOptions.Ask; without it as Hold
	Force Policy = "force" // go on, and say so in the report
)

// Evidence is what one proof saw.
type Evidence struct {
	Silent bool   `json:"silent"`
	Source string `json:"source"` // where it looked, as "connections on 172.31.0.90"
	Detail string `json:"detail"` // what it saw, in words
}

// A Proof looks once whether traffic still reaches the targets. An error means
// that it is not known, which never counts as silence. Proofs are the caller's:
// the access log of the balancer, established connections on the host.
type Proof func(ctx context.Context) (Evidence, error)

// DrainOptions says how Drain goes.
type DrainOptions struct {
	// Steps are weights on the way down, falling, as 50, 10, 1; nil goes to 0 at
	// once. Targets at or below a step keep their weight. 0 always comes last.
	Steps []int
	// StepCheck, if not nil, is asked after each step above 0: an error stops the
	// drain (as "the share does not fall"), with the weights as they are.
	StepCheck func(ctx context.Context, weight int) error
	// Proofs must all be silent, for Quiet without a break. None is refused: weight
	// 0 alone proves nothing.
	Proofs []Proof
	Quiet  time.Duration
	// Deadline is how long after weight 0 silence is waited for; 0 means 10 min.
	Deadline time.Duration
	Policy   Policy
	// Ask is called with the last evidence when the deadline passes under policy
	// Ask: true goes on by force, false waits for another Deadline.
	Ask func(ctx context.Context, last []Evidence) (force bool, err error)
	// AllowEmpty lets a group be left without a healthy member.
	AllowEmpty bool
	// Progress, if not nil, gets one line for each step and each new evidence.
	Progress func(string)
}

// A DrainReport says how a drain ended.
type DrainReport struct {
	Findings []Finding     `json:"findings"` // what did not block
	Evidence []Evidence    `json:"evidence"` // the last of each proof
	Forced   bool          `json:"forced"`   // silence was not reached, and the policy went on
	Took     time.Duration `json:"took_ns"`
}

// A NotSilentError reports that traffic still came when the deadline passed. The
// weights are 0 and stay so.
type NotSilentError struct {
	After    time.Duration
	Evidence []Evidence
}

// Error says what still moves and what can be done.
func (e *NotSilentError) Error() string {
	var what []string
	for _, v := range e.Evidence {
		if !v.Silent {
			what = append(what, v.Source+": "+v.Detail)
		}
	}
	return fmt.Sprintf("not silent %s after weight 0: %s; the weights stay 0: wait and drain again, force it, or give the recorded weights back", e.After.Round(time.Second), strings.Join(what, "; "))
}

// Drain takes members out of service without cutting anything: it refuses what
// cannot be drained (RefusedError, nothing changed), steps the weights down to 0,
// and waits until every proof is silent. Target.Backend is the member as it was
// read. The recorded weights are the caller's to keep: SetWeights gives them
// back. A second call goes on where the first stopped.
func (c *Client) Drain(ctx context.Context, targets []Target, opt DrainOptions) (DrainReport, error) {
	var report DrainReport
	steps := slices.Clone(opt.Steps)
	if !slices.IsSortedFunc(steps, func(a, b int) int { return b - a }) || len(steps) > 0 && (steps[0] > 100 || steps[len(steps)-1] < 1) {
		return report, fmt.Errorf("cannot drain by %v: steps fall from 100 to 1", steps)
	}
	if len(opt.Proofs) == 0 {
		return report, fmt.Errorf("cannot drain without a proof of silence: weight 0 lets established connections go on")
	}
	switch opt.Policy {
	case "", Hold, Ask, Force:
	default:
		return report, fmt.Errorf("%q is not a policy: hold, ask or force", opt.Policy)
	}
	begun := time.Now()
	findings, err := c.CheckDrain(ctx, targets)
	if err != nil {
		return report, err
	}
	refused := &RefusedError{}
	for _, f := range findings {
		if f.Blocking && !(opt.AllowEmpty && f.Kind == KindLast) {
			refused.Findings = append(refused.Findings, f)
		}
	}
	if len(refused.Findings) > 0 {
		return report, refused
	}
	report.Findings = findings

	live := slices.Clone(targets)
	udp := false
	for _, t := range live {
		// Also at weight 0: how long it has been so nobody knows.
		udp = udp || slices.ContainsFunc(t.Membership.Findings(), func(f Finding) bool { return f.Kind == KindUDP })
	}
	for _, w := range append(steps, 0) {
		var changes []Change
		for n := range live {
			t := &live[n]
			if t.Backend.Weight > w {
				changes = append(changes, Change{Group: t.Membership.Group(), Backend: t.Backend, Weight: w})
			}
		}
		if len(changes) == 0 {
			continue
		}
		if err := c.SetWeights(ctx, changes); err != nil {
			return report, err
		}
		for n := range live {
			live[n].Backend.Weight = min(live[n].Backend.Weight, w)
		}
		if opt.Progress != nil {
			opt.Progress(fmt.Sprintf("weight %d for %d members", w, len(changes)))
		}
		if w > 0 && opt.StepCheck != nil {
			if err := opt.StepCheck(ctx, w); err != nil {
				return report, fmt.Errorf("the drain stops at weight %d: %w", w, err)
			}
		}
	}
	zero := time.Now()
	var settles time.Duration
	if udp {
		settles = UDPSettles * time.Second
	}
	report.Evidence, report.Forced, err = c.waitSilence(ctx, opt, zero, settles)
	report.Took = time.Since(begun)
	return report, err
}

// waitSilence blocks until all proofs have been silent for opt.Quiet. What is
// silent before settles has passed counts for nothing.
func (c *Client) waitSilence(ctx context.Context, opt DrainOptions, zero time.Time, settles time.Duration) ([]Evidence, bool, error) {
	deadline := opt.Deadline
	if deadline <= 0 {
		deadline = 10 * time.Minute
	}
	deadline += settles
	var last []Evidence
	var since, asked time.Time
	asked = zero
	forced := false
	shown := ""
	p := poll.Poller{Interval: c.poll, Max: c.poll, Retryable: func(error) bool { return true }}
	err := p.Until(ctx, "silence after weight 0", func(ctx context.Context) (string, bool, error) {
		silent := time.Since(zero) >= settles
		var seen []Evidence
		for _, proof := range opt.Proofs {
			v, err := proof(ctx)
			if ctx.Err() != nil {
				return "", false, ctx.Err()
			}
			if err != nil {
				// Not known is not silent; the deadline still counts.
				v = Evidence{Source: v.Source, Detail: "cannot tell: " + err.Error()}
			}
			seen = append(seen, v)
			silent = silent && v.Silent
		}
		last = seen
		var lines []string
		for _, v := range seen {
			lines = append(lines, v.Source+": "+v.Detail)
		}
		state := strings.Join(lines, "; ")
		if opt.Progress != nil && state != shown {
			opt.Progress(state)
			shown = state
		}
		switch {
		case silent && since.IsZero():
			since = time.Now()
		case !silent:
			since = time.Time{}
		}
		if silent && time.Since(since) >= opt.Quiet {
			return state, true, nil
		}
		if time.Since(asked) < deadline || silent {
			return state, false, nil
		}
		switch {
		case opt.Policy == Force:
			forced = true
			return state, true, nil
		case opt.Policy == Ask && opt.Ask != nil:
			yes, err := opt.Ask(ctx, last)
			if err != nil {
				return "", false, poll.Stop(err)
			}
			asked, forced = time.Now(), yes
			return state, yes, nil
		}
		return "", false, poll.Stop(&NotSilentError{After: time.Since(zero), Evidence: last})
	})
	return last, forced, err
}
