package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// A transition host that carries no traffic yet has a release time, so that a
// run that everybody forgot costs nothing. A run that waits for people must not
// lose it to that: when a run is resumed with less than half of
// transition.auto_release left, it is renewed. Reading a run only warns.

// actRenew is the journal's word for a renewal.
const actRenew = "renew"

// waitingClone gives the instance that a run has made and that goes away by
// itself, with the time that the journal knows; "" when there is none, or when
// it may have traffic and its release time is off.
func (p *Plan) waitingClone(h *engine.History) (id string, at time.Time) {
	if p.Procedure == ProcedureRebuild || p.Config.Transition.Instance != "" || p.Config.Transition.AutoRelease == 0 {
		return "", at
	}
	if h.State == engine.Succeeded || h.State == engine.RolledBack {
		return "", at
	}
	switch h.StepByID("3.9-hold").State {
	case engine.StepPending, engine.StepRunning, engine.StepFailed:
	default:
		return "", at
	}
	made := h.StepByID("3.3-clone")
	var r instanceResult
	var in cloneParams
	if !decode(made, &r) || json.Unmarshal(made.Params, &in) != nil {
		return "", at
	}
	at = in.Input.AutoRelease
	for _, n := range h.Notes {
		if n.Act != actRenew || n.Object != r.InstanceID {
			continue
		}
		if t, err := time.Parse(time.RFC3339, n.Text); err == nil {
			at = t
		}
	}
	return r.InstanceID, at
}

// renewal says of a run that nobody resumes when its transition host goes away;
// "" while there is time.
func (p *Plan) renewal(h *engine.History, now time.Time) string {
	id, at := p.waitingClone(h)
	switch left := at.Sub(now); {
	case id == "" || at.IsZero() || 2*left >= p.Config.Transition.AutoRelease:
		return ""
	case left <= 0:
		return fmt.Sprintf("transition host %s was to be released by itself at %s", id, at.Format(time.RFC3339))
	default:
		return fmt.Sprintf("transition host %s is released by itself at %s, in %s; resume renews it", id, at.Format(time.RFC3339), left.Round(time.Minute))
	}
}

// renew puts the release time of a run's transition host off when it comes
// near. What it cannot do is noted: the step that needs the host finds out.
func (e *Env) renew(ctx context.Context, p *Plan, h *engine.History, note func(engine.Note) error) error {
	id, _ := p.waitingClone(h)
	if id == "" {
		return nil
	}
	in, err := e.ECS.GetInstance(ctx, id)
	if err != nil {
		return note(engine.Note{Act: actRenew, Object: id, Reason: "its release time cannot be read: " + err.Error()})
	}
	life := p.Config.Transition.AutoRelease
	if in.AutoReleaseTime.IsZero() || 2*time.Until(in.AutoReleaseTime) >= life {
		return nil
	}
	at := time.Now().UTC().Add(life).Truncate(time.Minute)
	was := in.AutoReleaseTime.Format(time.RFC3339)
	if err := e.ECS.SetAutoRelease(ctx, id, at); err != nil {
		return note(engine.Note{Act: actRenew, Object: id, Reason: "it is still released by itself at " + was + ": " + err.Error()})
	}
	return note(engine.Note{Act: actRenew, Object: id, Reason: "it would have been released by itself at " + was, Text: at.Format(time.RFC3339)})
}
