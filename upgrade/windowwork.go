package upgrade

import (
	"context"
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Maintenance windows hold back what changes production or moves its traffic:
// 3.9 to 4.9. What is before that happens to the transition host alone, and can
// be done by day; what is after it, too. Nothing that takes an effect back is
// held, and what runs on a host already is waited for, not held.

const (
	// actWindow is the journal's word for a wait.
	actWindow = "window"
	// windowLook is how often the clock is read in a wait: it can be set, and a
	// machine can sleep. windowAsk is the same where operators can ask for
	// something.
	windowLook = time.Minute
	windowAsk  = 2 * time.Second
	// minUpgrade is the least that work on production is expected to take.
	minUpgrade = 30 * time.Minute
)

// rehearsals are the steps on production that were done on the transition host
// before, with the step there.
var rehearsals = map[string]string{
	"4.5-snapshots": "3.1-snapshots", "4.5-docker": "3.5-docker", "4.5-os": "3.6-os", "4.5-reboot": "3.6-reboot",
	"4.5-containers": "3.7-containers", "4.5-services": "3.8-services",
}

// A heldStep is held to the windows: how much has to be left of one when it
// begins.
type heldStep struct {
	traffic  int    // moves of traffic
	upgrade  bool   // the whole work on production
	rehearse string // the step on the transition host that took as long
}

// heldSteps are those of the procedure. Before production loses its traffic
// there must be time to give it back; later each needs the time for itself.
func (t *transition) heldSteps() map[string]heldStep {
	held := map[string]heldStep{
		"3.9-nginx": {traffic: 2}, "3.10-slb": {traffic: 1},
		"4.1-slb": {traffic: 2, upgrade: true}, "4.2-nginx": {traffic: 2, upgrade: true}, "4.4-stop": {traffic: 1, upgrade: true},
		"4.5-repos": {}, "4.5-begin": {}, "4.5-stop-instance": {}, "4.5-disk": {}, "4.5-settle": {},
		"4.6-nginx": {traffic: 1}, "4.7-slb": {traffic: 1}, "4.9-slb": {traffic: 1}, "4.9-nginx": {traffic: 1},
	}
	for id, there := range rehearsals {
		held[id] = heldStep{rehearse: there}
	}
	return held
}

// need is how long a held step and what belongs to it will take.
func (t *transition) need(a *engine.Act, h heldStep) time.Duration {
	took := func(ids ...string) (sum time.Duration) {
		for _, id := range ids {
			if a == nil {
				continue // for a plan: nothing has been tried yet
			}
			d, _ := a.Took(id)
			sum += min(d, t.cfg.Pace.JobTimeout) // it may have been interrupted for days
		}
		return sum * 3 / 2
	}
	d := time.Duration(h.traffic) * t.cfg.Windows.Traffic
	switch {
	case h.upgrade && t.cfg.Windows.Upgrade > 0:
		d += t.cfg.Windows.Upgrade
	case h.upgrade:
		var all []string
		for _, there := range rehearsals {
			all = append(all, there)
		}
		d += max(took(all...), minUpgrade)
	case h.rehearse != "":
		d += took(h.rehearse)
		if t.cfg.Windows.Upgrade > 0 {
			d = min(d, t.cfg.Windows.Upgrade)
		}
	}
	return d
}

// windowed holds steps to the maintenance windows.
func (t *transition) windowed(steps []engine.Step) []engine.Step {
	if t.cfg.Windows.none() {
		return steps
	}
	held := t.heldSteps()
	for i, s := range steps {
		h, ok := held[s.ID]
		if !ok {
			continue
		}
		line := "only in the maintenance windows: " + t.cfg.Windows.String()
		if least := t.need(nil, h); least > 0 {
			line += ", with " + short(least) + " left at least"
		}
		steps[i].Lines = append(s.Lines[:len(s.Lines):len(s.Lines)], line)
		plan, do, observe := s.Plan, s.Do, s.Observe
		steps[i].Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			p, err := plan(ctx, a)
			if err != nil || p.NotApplicable != "" {
				return p, err
			}
			switch held, err := t.waitWindow(ctx, a, t.need(a, h), a.Asked); {
			case err != nil:
				return engine.Proposal{}, err
			case held != "":
				return engine.Proposal{Hold: held}, nil // and what was found may be old by then
			}
			return p, nil
		}
		steps[i].Do = func(ctx context.Context, a *engine.Act) (any, error) {
			if s.Effect == engine.OneShot {
				// What runs already, or is over, is not held.
				if sight, err := observe(ctx, a); err != nil {
					return nil, err
				} else if sight.State != engine.Absent {
					return do(ctx, a)
				}
			}
			for {
				switch held, err := t.waitWindow(ctx, a, 0, nil); {
				case err != nil:
					return nil, err
				case held == "":
					return do(ctx, a)
				}
			}
		}
	}
	return steps
}

// waitWindow looks whether a window is open that lasts for need. If none is it
// says so, and returns when one opens, or when asked says that an operator wants
// something (nil: nobody is listened to).
func (t *transition) waitWindow(ctx context.Context, a *engine.Act, need time.Duration, asked func() bool) (held string, err error) {
	w, err := t.cfg.Windows.parse()
	if err != nil {
		return "", err
	}
	look := windowLook
	if asked != nil {
		look = windowAsk
	}
	var told time.Time
	for {
		now := time.Now()
		open, ok := w.next(now, need)
		if !ok {
			return "", fmt.Errorf("no maintenance window of the next year (%s) is %s long, as this and what must follow are expected to take; roll back, and say in a new plan by windows.upgrade and windows.traffic how long they take, or allow more", t.cfg.Windows, short(need))
		}
		if !open.from.After(now) || asked != nil && held != "" && asked() {
			return held, nil
		}
		if !open.from.Equal(told) {
			told = open.from
			held = "waiting for the maintenance window of " + told.In(w.loc).Format("Mon 2006-01-02 15:04 MST")
			a.Progress("%s; stop, pause and rollback work meanwhile", held)
			if err := t.e.holder.note(engine.Note{Act: actWindow, Object: a.StepID(), Reason: held, Text: told.UTC().Format(time.RFC3339)}); err != nil {
				return held, err
			}
		}
		timer := time.NewTimer(min(time.Until(open.from), look))
		select {
		case <-ctx.Done():
			timer.Stop()
			return held, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// waiting says of a run at work that it waits for a window; "" when it does not.
func (p *Plan) waiting(h *engine.History, now time.Time) string {
	if !h.Live || p.Config.Windows.none() {
		return ""
	}
	for i := len(h.Notes) - 1; i >= 0; i-- {
		n := h.Notes[i]
		if n.Act != actWindow {
			continue
		}
		at, err := time.Parse(time.RFC3339, n.Text)
		s := h.StepByID(n.Object)
		if err != nil || !now.Before(at) || s.State == engine.StepDone || s.State == engine.StepSkipped {
			return ""
		}
		return fmt.Sprintf("%s waits for the maintenance window, until %s", n.Object, at.Format(time.RFC3339))
	}
	return ""
}

// detectWindow looks whether the work fits into a maintenance window.
func detectWindow(cfg *Config, _ *Facts, now time.Time) []Finding {
	if cfg.Windows.none() {
		return nil
	}
	var l found
	w, err := cfg.Windows.parse()
	if err != nil {
		l.add(FindingBlocking, "window-none", "", "install the time zones of this machine (tzdata)", "the maintenance windows cannot be told: %v", err)
		return l
	}
	need := 2*cfg.Windows.Traffic + max(cfg.Windows.Upgrade, minUpgrade)
	open, ok := w.next(now, need)
	switch {
	case !ok:
		l.add(FindingBlocking, "window-none", "", "allow longer windows, or say by windows.upgrade and windows.traffic how long the work takes",
			"no maintenance window of the next year is %s long, as the work on production is expected to take: %s", short(need), cfg.Windows)
	case open.from.After(now):
		l.add(FindingInfo, "window-next", "", "", "the work on production waits for the maintenance window of %s, which is open for %s",
			open.from.In(w.loc).Format("Mon 2006-01-02 15:04 MST"), short(open.to.Sub(open.from)))
	}
	return l
}
