package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// transitionSteps is the transition upgrade: traffic moves off a production
// host while that host is upgraded. The numbers are the sections of
// docs/transition.md. With a nil Env the steps can be listed, not run.
func transitionSteps(p *Plan, e *Env) []engine.Step {
	t := &transition{p: p, cfg: &p.Config, e: e}
	steps := []engine.Step{
		t.recordInventory(),    // 2.1
		t.recordContainers(),   // 2.2
		t.recordProjects(),     // 2.3
		t.keepRestart(),        // 2.3
		t.keepIdentity(),       // 2.3
		t.recordPorts(),        // 2.4
		t.recordNginx(),        // 2.5
		t.recordBalancers(),    // 2.6
		t.recordDirect(),       // 2.7
		t.moveDomains(),        // 2.7
		t.recordHealth(),       // 2.7
		t.createSnapshots(),    // 3.1
		t.createImage(),        // 3.2
		t.createClone(),        // 3.3
		t.recordAddresses(),    // 3.4
		t.checkQuarantine(),    // 3.4
		t.checkTrust(),         // 3.4
		t.releaseUnits(),       // 3.4
		t.setVault(old),        // 3.5
		t.upgradeDocker(old),   // 3.5
		t.upgradeOS(old),       // 3.6
		t.reboot(old),          // 3.6
		t.startContainers(old), // 3.7
		t.startServices(old),   // 3.8
		t.joinGroups(),         // 3.9
		t.holdClone(),          // 3.9
		t.addToNginx(),         // 3.9
		t.addToBalancers(),     // 3.10
		t.observeClone(),       // 3.11
		t.healthGate(old, "3.11-health", "3.11"),
		t.drainBalancers(),                // 4.1
		t.drainNginx(),                    // 4.2
		t.proveSilence(),                  // 4.3
		t.replayed(t.checkReplay()),       // 4.3
		t.checkWritten(),                  // 4.3
		t.imageClone(),                    // 4.3
		t.stopProduction(),                // 4.4
		t.replayed(t.setVault(prod)),      // 4.5
		t.snapshotBeforeOS(),              // 4.5
		t.replayed(t.upgradeDocker(prod)), // 4.5
		t.replayed(t.beginExternal()),     // 4.5
		t.replayed(t.upgradeOS(prod)),     // 4.5
		t.haltProduction(),                // 4.5
		t.replaceDisk(),                   // 4.5
		t.startProduction(),               // 4.5
		t.settle(),                        // 4.5
		t.reboot(prod),                    // 4.5
		t.startContainers(prod),           // 4.5
		t.startServices(prod),             // 4.5
		t.compareInventory(),              // 4.5
		t.restoreNginx(),                  // 4.6
		t.restoreBalancers(),              // 4.7
		t.observeProduction(),             // 4.8
		t.healthGate(prod, "4.8-health", "4.8"),
		t.removeFromBalancers(), // 4.9
		t.removeFromNginx(),     // 4.9
		t.proveCloneSilence(),   // 4.9
		t.expireClone(),         // 4.9
		t.stopClone(),           // 5.1
		t.stopCloneInstance(),   // 5.2
		t.releaseClone(),        // 5.3
		t.dropRestart(),         // 5.3
		t.verifyEnd(),           // 5.3
	}
	for _, section := range p.Config.Gates {
		i := slices.IndexFunc(steps, func(s engine.Step) bool { return s.Section == section })
		if i >= 0 && steps[i].Gate == "" {
			steps[i].Gate = gateText(section, p)
		}
	}
	return t.windowed(t.pinned(steps))
}

// gateText is what a person is asked before a section.
func gateText(section string, p *Plan) string {
	switch section {
	case "4.1":
		return fmt.Sprintf("the transition host serves; take traffic off %s?", p.Host)
	case "4.4":
		return fmt.Sprintf("%s gets no traffic; stop its services and upgrade it? From the package transaction on there is no rollback, only parking", p.Host)
	case "5.3":
		return fmt.Sprintf("%s serves alone again; release the transition host and its image?", p.Host)
	}
	return "go on with section " + section + "?"
}

// transition is what the steps share: the plan and the way to the world.
// Nothing of a run is kept in it; that is the journal's.
type transition struct {
	p   *Plan
	cfg *Config
	e   *Env
}

// Which of the two hosts a step of sections 3.5 to 3.8 works on: the runbook
// does the same on both, in 3.5-3.8 and again in 4.5.
type role string

const (
	old  role = "transition" // the transition host, first in time
	prod role = "production"
)

// id gives the step ID of work that is done on both hosts.
func (r role) id(section, word string) (id, sec string) {
	if r == prod {
		section = "4.5"
	}
	return section + "-" + word, section
}

// on gives the link and the private address of the host a step works on.
func (t *transition) on(a *engine.Act, r role) (*link, string, error) {
	if r == prod {
		return t.e.host(t.cfg.Host), t.cfg.Address, nil
	}
	c, l, err := t.clone(a)
	return l, c.PrivateIP, err
}

// tags mark everything a step makes in the cloud.
func (t *transition) tags(a *engine.Act) map[string]string {
	return map[string]string{runTag: a.RunID(), "upgradectl:step": a.StepID(), "upgradectl:key": a.Key()}
}

// stepTags find again what a step made in any of its attempts.
func stepTags(a *engine.Act, step string) map[string]string {
	return map[string]string{runTag: a.RunID(), "upgradectl:step": step}
}

// notMade turns the error of a create that surely came to nothing into a
// definitive one, so that the next attempt has a token of its own: the cloud
// refused it, or what it made ended in a state that it never leaves. What is
// there of it is cleaned up first. Throttling, trouble with credentials and
// lost answers say nothing about the create; it goes on with the same token.
func notMade(ctx context.Context, err error, cleanUp func(context.Context) error) error {
	var refused *ecs.Error
	var state *ecs.StateError
	switch {
	case errors.As(err, &state):
	case errors.As(err, &refused) && refused.Definitive && !errors.Is(err, ecs.ErrCredentials) &&
		(refused.Action == "RunInstances" || strings.HasPrefix(refused.Action, "Create")):
	default:
		return err
	}
	if cerr := cleanUp(ctx); cerr != nil {
		return errors.Join(err, cerr)
	}
	return engine.Definitive(err)
}

// keyTag finds again what this attempt made.
func keyTag(a *engine.Act) map[string]string {
	return map[string]string{"upgradectl:key": a.Key()}
}

// adopted tells whether the transition host existed before the run.
func (t *transition) adopted() bool { return t.cfg.Transition.Instance != "" }

// when gives lines of a plan if they say something.
func when(cond bool, lines ...string) []string {
	if cond {
		return lines
	}
	return nil
}
