package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Section 3.6 and its share of 4.5: package transactions.

// jobStep is a package transaction: the script of its jobParams runs at most
// once, detached from our connection, under the step's key.
func (t *transition) jobStep(r role, section, word, title string) engine.Step {
	id, sec := r.id(section, word)
	return engine.Step{
		ID: id, Section: sec, Title: title, Effect: engine.OneShot, Pivot: r == prod, NoUndo: r.noUndo(),
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if r == prod {
				// Here a refusal is not past the pivot yet.
				if err := t.ready(ctx, a); err != nil {
					return engine.Proposal{}, err
				}
			}
			return engine.Proposal{}, nil
		},
		Observe: observeJob(t.host(r)),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			err = beginJob(ctx, a, l, func() error {
				if r == prod {
					if err := t.ready(ctx, a); err != nil {
						return err
					}
				}
				// Never a second transaction on top of half a first one.
				return wrapHost(l.target, hostos.CheckTransactions(ctx, l))
			})
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.JobTimeout)
			defer cancel()
			st, err := hostos.WaitJob(ctx, l, a.Key(), t.cfg.Pace.Poll, nil)
			if err != nil {
				err = wrapHost(l.target, err)
				je := new(hostos.JobError)
				switch {
				case !errors.As(err, &je):
				case je.State.Phase == hostos.JobExited:
					if left := hostos.CheckTransactions(ctx, l); left != nil {
						err = fmt.Errorf("%w; %w", err, left)
					}
					// A person who has read its log may have it tried again, as a
					// new attempt.
					err = engine.Definitive(err)
				default:
					// Parts of it may still run: a second transaction beside the
					// first would do harm, so only a person can say that it is over.
					err = fmt.Errorf("%w; make sure that no package manager runs and no transaction is unfinished, remove the job's directory on the host, and resume", err)
				}
				return nil, err
			}
			return st, nil
		},
	}
}

// upgradeOS is the package transaction: the strategy's own on the transition
// host, and on production exactly what came of it there.
func (t *transition) upgradeOS(r role) engine.Step {
	if t.cfg.OS.Strategy == StrategyExternal {
		return t.externalOS(r)
	}
	s := t.jobStep(r, "3.6", "os", "upgrade the operating system of "+t.name(r))
	s.Version, s.Lines = 2, t.osLines(r)
	inner, run := s.Plan, s.Do
	s.Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
		if p, err := inner(ctx, a); err != nil {
			return p, err
		}
		l, _, err := t.on(a, r)
		if err != nil {
			return engine.Proposal{}, err
		}
		var replay []hostos.Package
		if r == prod && t.cfg.OS.Strategy != StrategyScript && !t.cfg.OS.AllowDrift {
			if replay, err = t.replay(ctx, a, l); err != nil {
				return engine.Proposal{}, err
			}
		}
		as, err := assess(ctx, l, t.strategy(), replay)
		if err != nil {
			return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
		}
		if bad := as.Blocking(); len(bad) > 0 {
			return engine.Proposal{}, fmt.Errorf("%s is not upgraded: %s", t.name(r), strings.Join(bad, "; "))
		}
		script, err := hostos.UpgradeScript(t.strategy(), as.OS, replay)
		if err != nil {
			return engine.Proposal{}, err
		}
		set, err := putPackages(a, as.OS.Packages)
		return engine.Proposal{Params: jobParams{script}, Before: osBefore{set, *as}, Lines: []string{as.Transaction.String()}}, err
	}
	s.Do = func(ctx context.Context, a *engine.Act) (any, error) {
		if r == old { // on production 4.3-replay has done it, before anything was stopped there
			if err := t.precheck(ctx, a, r); err != nil {
				return nil, err
			}
		}
		st, err := run(ctx, a)
		if err != nil {
			return nil, err
		}
		res := osResult{}
		if job, ok := st.(hostos.JobState); ok {
			res.JobState = job
		}
		return t.upgraded(ctx, a, r, res)
	}
	return s
}

// precheck runs os.precheck on a host, unless what it is for has begun there. It
// changes nothing, so that it may be run as often as somebody resumes.
func (t *transition) precheck(ctx context.Context, a *engine.Act, r role) error {
	script := t.strategy().Precheck
	if script == "" {
		return nil
	}
	l, _, err := t.on(a, r)
	if err != nil {
		return err
	}
	if st, err := l.job(ctx, a.Key()); err != nil || st.Phase != hostos.JobAbsent {
		return err
	}
	key := a.Key() + "-check"
	if err := l.startJob(ctx, key, script); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.JobTimeout)
	defer cancel()
	_, err = hostos.WaitJob(ctx, l, key, t.cfg.Pace.Poll, nil)
	err = wrapHost(l.target, err)
	if je := new(hostos.JobError); errors.As(err, &je) {
		return engine.Definitive(fmt.Errorf("the check of %s before its upgrade (os.precheck) speaks against it: %w; put right what it says and resume", t.name(r), err))
	}
	if err != nil {
		return err
	}
	a.Progress("%s: os.precheck has nothing against the upgrade", l.target)
	return nil
}

// assess resolves a transaction of a host's own, or with replay the given one.
func assess(ctx context.Context, l *link, c hostos.StrategyConfig, replay []hostos.Package) (*hostos.Assessment, error) {
	if replay != nil {
		return hostos.AssessReplay(ctx, l, c, replay)
	}
	return hostos.Assess(ctx, l, c)
}

// replay gives what production lacks of the transition host's packages; never
// nil.
func (t *transition) replay(ctx context.Context, a *engine.Act, l *link) ([]hostos.Package, error) {
	_, after, err := t.rehearsed(a)
	if err != nil {
		return nil, err
	}
	now, err := hostos.GetPackages(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", l.target, err)
	}
	missing := after.Minus(now)
	if t.cfg.OS.Docker != DockerUpgrade || t.adopted() {
		missing = withoutDocker(missing)
	}
	return append([]hostos.Package{}, missing...), nil
}

// upgraded sees what a transaction has really done, and on production that it
// is what it did on the transition host.
func (t *transition) upgraded(ctx context.Context, a *engine.Act, r role, res osResult) (any, error) {
	l, _, err := t.on(a, r)
	if err != nil {
		return nil, err
	}
	var b osBefore
	if err := a.Before(&b); err != nil {
		return nil, err
	}
	before, err := getPackages(a, b.Packages)
	if err != nil {
		return nil, err
	}
	c := t.strategy()
	if r == prod && c.Kernel == "" && !t.cfg.OS.AllowDrift {
		var there osResult
		if _, err := a.Result("3.6-os", &there); err != nil {
			return nil, err
		}
		c.Kernel = there.Kernel
	}
	u, err := hostos.CheckUpgraded(ctx, l, c, &b.Assessment, before)
	if err != nil {
		err = fmt.Errorf("host %s: %w", l.target, err)
		if u != nil {
			// The job is over; a person may have it tried again, as a new attempt.
			err = engine.Definitive(err)
		}
		return nil, err
	}
	res.Upgraded = *u
	if r == old && c.Kernel == "" && b.Assessment.Kernel == "" && !t.adopted() {
		// An earlier attempt may have brought the kernel.
		came, _, err := t.since(a, u.Packages)
		if err != nil {
			return nil, err
		}
		res.Kernel = cmp.Or(came.NewestKernel(), res.Kernel)
	}
	if res.Set, err = putPackages(a, u.Packages); err != nil {
		return nil, err
	}
	if c.InReboot {
		a.Progress("%s: everything is prepared; the reboot upgrades it", t.name(r))
		return res, nil // what it becomes is seen after that
	}
	a.Progress("%s: %d packages came, %d went; kernel %s is to run", t.name(r), len(u.Installed), len(u.Removed), u.Kernel)
	if r == prod {
		diff, err := t.packageDiff(a, u.Packages)
		if err != nil {
			return nil, err
		}
		if len(diff) > 0 {
			if !t.cfg.OS.AllowDrift {
				return nil, engine.Definitive(fmt.Errorf("%s has other packages than the transition host: %s; make them the same and resume", t.p.Host, strings.Join(firstOf(diff, 20), "; ")))
			}
			a.Progress("%s differs from the transition host (os.allow_drift): %s", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
		}
	}
	return res, nil
}

// packageDiff says how the packages of production differ from those that the
// transition host has had since its upgrade.
func (t *transition) packageDiff(a *engine.Act, got hostos.PackageSet) ([]string, error) {
	_, want, err := t.rehearsed(a)
	if err != nil {
		return nil, err
	}
	if t.adopted() {
		want, got = withoutDocker(want), withoutDocker(got)
	}
	return hostos.DiffPackages("the transition host", want, t.p.Host, got), nil
}

// osLines say what a plan knows of a transaction.
func (t *transition) osLines(r role) []string {
	if r == prod && !t.cfg.OS.AllowDrift && t.cfg.OS.Strategy != StrategyScript {
		return []string{"exactly the packages that came to the transition host in 3.6; afterwards both have the same, to the version"}
	}
	lines := []string{"strategy " + t.cfg.OS.Strategy}
	if f := t.p.Facts.OS; f != nil {
		if script, err := hostos.UpgradeScript(t.strategy(), f.OS, nil); err == nil {
			lines = strings.Split(strings.TrimSpace(script), "\n")
		}
		if pre := t.p.Facts.Precheck; r == old && pre != "" {
			lines = slices.Concat([]string{"before (os.precheck):"}, indent(pre), []string{"then (os.script):"}, lines)
		}
		if !f.Transaction.Empty() {
			lines = append(lines, "as of now: "+f.Transaction.String())
			for _, p := range firstPackages(f.Transaction.Incoming(), 200) {
				lines = append(lines, "  "+p)
			}
		}
		for _, p := range f.Transaction.Remove {
			lines = append(lines, "  goes: "+p.String())
		}
	}
	return lines
}

func indent(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = "  " + lines[i]
	}
	return lines
}

func firstPackages(s hostos.PackageSet, n int) []string {
	out := make([]string, len(s))
	for i, p := range s {
		out[i] = p.String()
	}
	return firstOf(out, n)
}

// beginExternal hands production over to whoever upgrades it by hand. It is a
// step of its own, so that the run knows of the work from its beginning: from
// then on it is past the pivot, and a rollback parks.
func (t *transition) beginExternal() engine.Step {
	external := t.cfg.OS.Strategy == StrategyExternal
	s := engine.Step{
		ID: "4.5-begin", Section: "4.5", Effect: engine.OneShot, Pivot: external, NoUndo: prod.noUndo(),
		Title: "hand " + t.p.Host + " over to whoever upgrades it by hand",
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !external {
				return engine.Proposal{NotApplicable: "strategy " + t.cfg.OS.Strategy + ": nobody else works on it"}, nil
			}
			// Here a refusal is not past the pivot yet.
			return engine.Proposal{}, t.ready(ctx, a)
		},
		Observe: observeByDoing,
		Do:      func(ctx context.Context, a *engine.Act) (any, error) { return nil, t.ready(ctx, a) },
	}
	if external {
		s.Gate = fmt.Sprintf("%s gets no traffic and its services are stopped. Approve before anybody begins on it: %s. From the approval on there is no rollback, only parking: the transition host serves as long as it takes",
			t.p.Host, strings.TrimSpace(t.cfg.OS.Instructions))
		s.Lines = []string{"from here on a rollback parks, whether anybody has begun or not"}
	}
	return s
}

// externalOS is an upgrade that somebody else makes: the gate tells a person
// what to do, and only what is there afterwards counts.
func (t *transition) externalOS(r role) engine.Step {
	id, sec := r.id("3.6", "os")
	gate := fmt.Sprintf("%s is upgraded by hand now: %s. Approve when it is done; what is there is looked at then", t.name(r), strings.TrimSpace(t.cfg.OS.Instructions))
	return engine.Step{
		ID: id, Section: sec, Title: "the operating system of " + t.name(r) + " has been upgraded by hand", Effect: engine.OneShot, Pivot: r == prod, NoUndo: r.noUndo(),
		Gate: gate, Version: 2,
		Lines:   append(strings.Split(strings.TrimSpace(t.cfg.OS.Instructions), "\n"), when(t.cfg.OS.Release != "", "afterwards: release "+t.cfg.OS.Release)...),
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			want := hostos.Expected{Kernel: t.cfg.OS.Kernel, Release: t.cfg.OS.Release, UnitsOK: t.cfg.OS.UnitsOK}
			if f := t.p.Facts.OS; f != nil {
				want.FailedUnits = f.OS.FailedUnits
			}
			o, err := hostos.VerifyUpgrade(ctx, l, want)
			if err != nil {
				return nil, fmt.Errorf("%s is not upgraded yet: %w; finish what the gate says and resume", t.name(r), err)
			}
			res := osResult{Upgraded: hostos.Upgraded{Packages: o.Packages, Kernel: o.Boot.Kernel}}
			if res.Set, err = putPackages(a, o.Packages); err != nil {
				return nil, err
			}
			if r == prod {
				diff, err := t.packageDiff(a, o.Packages)
				if err != nil {
					return nil, err
				}
				if len(diff) > 0 && !t.cfg.OS.AllowDrift {
					return nil, fmt.Errorf("%s has other packages than the transition host: %s; make them the same and resume", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
				}
			}
			return res, nil
		},
	}
}
