package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// What was installed on the transition host is installed on production, to the
// NEVRA, and nothing else.

// osStrategy gives what hostos needs of the configuration, with the scripts that
// f has read.
func (c *Config) osStrategy(f *Facts) hostos.StrategyConfig {
	s := hostos.StrategyConfig{
		Strategy: hostos.Strategy(c.OS.Strategy), Script: f.Script, Precheck: f.Precheck, InReboot: c.OS.InReboot, From: c.OS.From, Vault: c.OS.Vault,
		ExcludeOK: c.OS.ExcludeOK, UnitsOK: c.OS.UnitsOK, Kernel: c.OS.Kernel, Release: c.OS.Release,
	}
	for _, a := range c.Accept {
		if id, ok := strings.CutPrefix(a, osFinding); ok {
			s.Accept = append(s.Accept, id)
		}
	}
	return s
}

func (t *transition) strategy() hostos.StrategyConfig { return t.cfg.osStrategy(&t.p.Facts) }

// osBefore is what a host was before its transaction.
type osBefore struct {
	Packages   string            `json:"packages"` // blob: a PackageSet
	Assessment hostos.Assessment `json:"assessment"`
}

// osResult is what a transaction has made of a host.
type osResult struct {
	hostos.JobState
	hostos.Upgraded
	Set string `json:"set"` // blob: the PackageSet afterwards
}

func putPackages(a *engine.Act, s hostos.PackageSet) (string, error) { return putJSON(a, s) }

func getPackages(a *engine.Act, ref string) (hostos.PackageSet, error) {
	b, err := a.Blob(ref)
	if err != nil {
		return nil, err
	}
	var s hostos.PackageSet
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("cannot read the recorded packages: %w", err)
	}
	return s, nil
}

// inventoryPackages gives the packages of an inventory as hostos lists them.
func inventoryPackages(inv *hostinv.Inventory) (hostos.PackageSet, error) {
	var out []hostos.Package
	for _, p := range inv.Packages {
		q := hostos.Package{Name: p.Name, Version: p.EVR, Arch: p.Arch}
		if p.Manager == "rpm" {
			if p.Name == "gpg-pubkey" {
				continue
			}
			var err error
			if q, err = hostos.ParsePackage(p.Name + "-" + p.EVR + "." + p.Arch); err != nil {
				return nil, err
			}
		}
		out = append(out, q)
	}
	return hostos.NewPackageSet(out...), nil
}

// rehearsed gives the packages that the transition host had right before its
// transaction and has had since.
func (t *transition) rehearsed(a *engine.Act) (before, after hostos.PackageSet, err error) {
	var b osBefore
	var r osResult
	if ok, err := a.Result("3.6-os", &r); err != nil || !ok {
		return nil, nil, errors.Join(errors.New("internal error: no transaction recorded"), err)
	}
	if ok, err := a.BeforeOf("3.6-os", &b); err != nil {
		return nil, nil, err
	} else if ok && b.Packages != "" {
		if before, err = getPackages(a, b.Packages); err != nil {
			return nil, nil, err
		}
	}
	var rebooted rebootResult // of os.in_reboot, where that brought them
	if _, err := a.Result("3.6-reboot", &rebooted); err != nil {
		return nil, nil, err
	}
	after, err = getPackages(a, cmp.Or(rebooted.Set, r.Set))
	return before, after, err
}

// since gives what came to and went from the transition host between its
// beginning, when it was a copy of production, and then. Until its transaction
// that is what 3.5 has changed.
func (t *transition) since(a *engine.Act, then hostos.PackageSet) (came, went hostos.PackageSet, err error) {
	inv, err := recordedInventory(a)
	if err != nil {
		return nil, nil, err
	}
	origin, err := inventoryPackages(inv)
	if err != nil {
		return nil, nil, err
	}
	return then.Minus(origin), origin.Minus(then), nil
}

// ofDocker tells whether a package belongs to what 3.5 replaces. It stands in
// for since on an adopted host, which is no copy of production.
func ofDocker(p hostos.Package) bool {
	return slices.ContainsFunc([]string{"docker", "containerd", "container-selinux", "fuse-overlayfs", "slirp4netns", "oci-", "runc"}, func(prefix string) bool {
		return strings.HasPrefix(p.Name, prefix)
	})
}

func withoutDocker(s hostos.PackageSet) hostos.PackageSet {
	return slices.DeleteFunc(slices.Clone(s), ofDocker)
}

// checkReplay proves, while everything can still be undone, that production
// would get what the transition host got: from the packages it has, its
// repositories, its excludes and locks, to the NEVRA.
func (t *transition) checkReplay() engine.Step {
	return engine.Step{
		ID: "4.3-replay", Section: "4.3", Effect: engine.ReadOnly,
		Title: t.p.Host + " would get the packages that the transition host got, to the version",
		Lines: when(t.cfg.OS.AllowDrift, "os.allow_drift: differences are said, and accepted"),
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if t.cfg.OS.Strategy == StrategyExternal {
				return engine.Proposal{NotApplicable: "strategy external: what somebody else will do cannot be resolved"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := t.precheck(ctx, a, prod); err != nil {
				return nil, err
			}
			diff, err := t.replayDiff(ctx, a)
			if err != nil {
				return nil, err
			}
			for _, d := range diff {
				a.Progress("%s: %s", t.p.Host, d)
			}
			if len(diff) > 0 && !t.cfg.OS.AllowDrift {
				return nil, fmt.Errorf("%s would not become what was tried on the transition host: %s; make its packages and repositories the same and resume, or roll back; os.allow_drift in a new plan takes the difference on", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
			}
			return map[string][]string{"differences": diff}, nil
		},
	}
}

// firstOf gives at most n of list, and says how many more there are.
func firstOf(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	return append(slices.Clone(list[:n]), fmt.Sprintf("and %d more", len(list)-n))
}

// replayDiff says how production would differ from the transition host.
func (t *transition) replayDiff(ctx context.Context, a *engine.Act) ([]string, error) {
	before, after, err := t.rehearsed(a)
	if err != nil {
		return nil, err
	}
	l := t.e.host(t.cfg.Host)
	copied := !t.adopted() && before != nil
	var came, went hostos.PackageSet
	if copied {
		if came, went, err = t.since(a, before); err != nil {
			return nil, err
		}
	}
	fail := func(err error) ([]string, error) { return nil, fmt.Errorf("host %s: %w", l.target, err) }
	now, err := hostos.GetPackages(ctx, l)
	if err != nil {
		return fail(err)
	}
	if t.cfg.OS.Strategy == StrategyScript {
		// What a script does is seen when it is done; here it can only be said
		// whether it would begin from the same.
		if !copied {
			return nil, nil
		}
		inv, err := recordedInventory(a)
		if err != nil {
			return nil, err
		}
		origin, err := inventoryPackages(inv)
		return hostos.DiffPackages("the transition host at its beginning", origin, t.p.Host, now), err
	}
	missing := after.Minus(now).Minus(came)
	if !copied {
		missing = withoutDocker(missing)
	}
	as, err := hostos.AssessReplay(ctx, l, t.strategy(), missing)
	if err != nil {
		return fail(err)
	}
	if bad := as.Blocking(); len(bad) > 0 {
		return bad, nil
	}
	docker := hostos.Transaction{Install: came, Remove: went}
	planned := docker.Apply(as.Transaction.Apply(now))
	if !copied {
		planned, after = withoutDocker(planned), withoutDocker(after)
	}
	return hostos.DiffPackages("the transition host", after, t.p.Host, planned), nil
}
