package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Sections 3.6 and its share of 4.5: package transactions and reboots.

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
			st, err := t.waitJob(ctx, l, a.Key())
			if err != nil {
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
	_, err = t.waitJob(ctx, l, key)
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

type reposParams struct {
	Vault string `json:"vault"`
}

// reposBefore names the blob with the files: they can hold passwords.
type reposBefore struct {
	Files string `json:"files"`
}

// setVault points the repositories of CentOS 7 to a vault, before anything is
// installed from them.
func (t *transition) setVault(r role) engine.Step {
	id, sec := r.id("3.5", "repos")
	// both gives the files as they were and as they are to be.
	both := func(a *engine.Act) (from, to hostos.Repos, err error) {
		var p reposParams
		var b reposBefore
		if err := errors.Join(a.Params(&p), a.Before(&b)); err != nil {
			return nil, nil, err
		}
		text, err := a.Blob(b.Files)
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(text, &from); err != nil {
			return nil, nil, fmt.Errorf("cannot read the recorded repositories: %w", err)
		}
		to, err = from.Vault(p.Vault)
		return from, to, err
	}
	s := engine.Step{
		ID: id, Section: sec, Title: "point the package repositories of " + t.name(r) + " to a vault", Effect: engine.SetState,
		Lines: when(t.cfg.OS.Vault != "", "/etc/yum.repos.d: base, updates, extras at "+t.cfg.OS.Vault),
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if t.cfg.OS.Vault == "" {
				return engine.Proposal{NotApplicable: "os.vault names none"}, nil
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Proposal{}, err
			}
			from, err := hostos.GetRepos(ctx, l)
			if err == nil {
				_, err = from.Vault(t.cfg.OS.Vault)
			}
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			ref, err := putJSON(a, from)
			return engine.Proposal{Params: reposParams{t.cfg.OS.Vault}, Before: reposBefore{ref}}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			from, to, err := both(a)
			if err != nil {
				return engine.Sight{}, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Sight{}, err
			}
			now, err := hostos.GetRepos(ctx, l)
			if err != nil {
				return engine.Sight{}, fmt.Errorf("host %s: %w", l.target, err)
			}
			absent, ours := true, true
			for name := range from {
				absent = absent && now[name] == from[name]
				ours = ours && now[name] == to[name]
				if now[name] != from[name] && now[name] != to[name] {
					return engine.Sight{State: engine.Foreign, Detail: name + " has another content"}, nil
				}
			}
			switch {
			case ours:
				return engine.Sight{State: engine.Ours}, nil
			case absent:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: "some files are written"}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			from, to, err := both(a)
			if err != nil {
				return nil, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if err := hostos.SetRepos(ctx, l.held(), from, to); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			return nil, nil
		},
	}
	if r == old {
		s.NoUndo = r.noUndo()
		return s
	}
	s.Undo = func(ctx context.Context, a *engine.Act) error {
		from, to, err := both(a)
		if err != nil {
			return err
		}
		l, _, err := t.on(a, r)
		if err != nil {
			return err
		}
		if err := hostos.SetRepos(ctx, l.held(), to, from); err != nil {
			return fmt.Errorf("host %s: %w", l.target, err)
		}
		return nil
	}
	return s
}

type rebootBefore struct {
	Boot   hostos.Boot    `json:"boot"`
	Kernel string         `json:"kernel"` // that must run afterwards
	Failed []string       `json:"failed"` // units, before the upgrade
	Checks []hostos.Check `json:"checks"` // of the gate before the reboot
}

// beforeReboot looks whether a host would come back with the kernel of its
// transaction. Otherwise it is not rebooted.
func (t *transition) beforeReboot(ctx context.Context, a *engine.Act, l *link, r role) (rebootBefore, error) {
	var b rebootBefore
	var res osResult
	var was osBefore
	step, _ := r.id("3.6", "os")
	if r == prod && t.replacing() {
		step, _ = old.id("3.6", "os") // its system is the transition host's
	}
	if ok, err := a.Result(step, &res); err != nil || !ok || res.Kernel == "" && !t.cfg.OS.InReboot {
		return b, errors.Join(errors.New("internal error: no transaction recorded"), err)
	}
	if _, err := a.BeforeOf(step, &was); err != nil {
		return b, err
	}
	b.Kernel = res.Kernel
	if was.Assessment.OS != nil {
		b.Failed = was.Assessment.OS.FailedUnits
	}
	var err error
	if b.Boot, err = t.waitBoot(ctx, a, l, ""); err != nil {
		return b, err
	}
	if b.Checks, err = hostos.CheckPreReboot(ctx, l, t.strategy(), b.Kernel); err != nil {
		return b, fmt.Errorf("host %s: %w", l.target, err)
	}
	if bad := hostos.Failed(b.Checks); len(bad) > 0 {
		return b, fmt.Errorf("%s is not rebooted, it might not come back: %s", t.name(r), strings.Join(bad, "; "))
	}
	return b, nil
}

func (t *transition) reboot(r role) engine.Step {
	id, sec := r.id("3.6", "reboot")
	lines := []string{"before: the kernel of the transaction is installed, whole, started by default, its initramfs has the drivers of the disks, no transaction is open", "shutdown -r now", "after: another boot ID, that kernel, no unit failed that had not before"}
	if t.cfg.OS.InReboot {
		lines = []string{"before: what the boot loader starts is whole, its initramfs has the drivers of the disks, no transaction is open", "shutdown -r now", fmt.Sprintf("the reboot upgrades %s; it may be away for %s, in several boots", t.name(r), t.blackout()), "after: release " + t.cfg.OS.Release + ", no unit failed that had not before"}
	}
	return engine.Step{
		ID: id, Section: sec, Title: "reboot " + t.name(r) + " and prove it by its boot ID", Effect: engine.OneShot, NoUndo: r.noUndo(),
		Pivot: r == prod, Version: 2,
		Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !t.cfg.OS.Reboot {
				return engine.Proposal{NotApplicable: "os.reboot is false"}, nil
			}
			if t.cfg.OS.Strategy == StrategyExternal && !(r == prod && t.replacing()) {
				return engine.Proposal{NotApplicable: "strategy external: whoever upgrades it reboots it"}, nil
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Proposal{}, err
			}
			b, err := t.beforeReboot(ctx, a, l, r)
			return engine.Proposal{Before: b}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var b rebootBefore
			if err := a.Before(&b); err != nil {
				return engine.Sight{}, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return engine.Sight{}, err
			}
			now, err := hostos.GetBoot(ctx, l)
			if err != nil {
				// It may be on its way down or up: Do waits for it.
				return engine.Sight{State: engine.InProgress, Detail: err.Error()}, nil
			}
			switch {
			case now.ID == b.Boot.ID:
				return engine.Sight{State: engine.Absent}, nil
			case t.cfg.OS.InReboot:
				return engine.Sight{State: engine.InProgress, Detail: "it was rebooted; release " + now.Release}, nil
			}
			return engine.Sight{State: engine.Ours, Result: now}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var b rebootBefore
			if err := a.Before(&b); err != nil {
				return nil, err
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if now, err := hostos.GetBoot(ctx, l); r == prod && err == nil && now.ID == b.Boot.ID {
				if err := t.ready(ctx, a); err != nil {
					return nil, err
				}
			}
			wait, cancel := context.WithTimeout(ctx, t.blackout())
			defer cancel()
			half, stop := context.WithTimeout(wait, t.blackout()/2)
			defer stop()
			err = hostos.StartReboot(wait, l.held(), b.Boot.ID)
			if errors.Is(err, hostos.ErrFenced) {
				return nil, err
			}
			if err != nil {
				a.Progress("%s: %v; it may be rebooting already", l.target, err)
			}
			now, err := t.waitBoot(half, a, l, b.Boot.ID)
			if err != nil && wait.Err() == nil {
				// Half the time is over. A host that took the command and did nothing
				// is asked once more; one that has rebooted leaves it alone.
				if again := hostos.StartReboot(wait, l.held(), b.Boot.ID); again == nil {
					a.Progress("%s: still in the old boot; asked to reboot once more", l.target)
				} else if errors.Is(again, hostos.ErrFenced) {
					return nil, again
				}
				now, err = t.waitBoot(wait, a, l, b.Boot.ID)
			}
			if err == nil && t.cfg.OS.InReboot {
				now, err = l.waitRelease(wait, hostos.Expected{Kernel: t.cfg.OS.Kernel, Release: t.cfg.OS.Release}, now, t.cfg.Pace.Poll, a.Progress)
			}
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w; %s", err, t.evidence(ctx, a, r))
			}
			if err != nil {
				return nil, err // an interruption says nothing about the host
			}
			res := rebootResult{Boot: now}
			if t.cfg.OS.InReboot {
				set, err := hostos.GetPackages(ctx, l)
				if err != nil {
					return nil, fmt.Errorf("host %s: %w", l.target, err)
				}
				if res.Set, err = putPackages(a, set); err != nil {
					return nil, err
				}
			}
			return res, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var was rebootBefore
			var now rebootResult
			if err := a.Before(&was); err != nil {
				return nil, err
			}
			if ok, err := a.Own(&now); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: no boot recorded"), err)
			}
			l, _, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if _, err := hostos.VerifyUpgrade(ctx, l, hostos.Expected{Boot: was.Boot, Kernel: was.Kernel, Release: t.cfg.OS.Release, FailedUnits: was.Failed, UnitsOK: t.cfg.OS.UnitsOK}); err != nil {
				return nil, fmt.Errorf("%s was rebooted, and is not as it should be: %w", t.name(r), err)
			}
			if r == prod {
				var c rebootResult
				if ok, err := a.Result("3.6-reboot", &c); err != nil {
					return nil, err
				} else if ok && c.Kernel != now.Kernel && !t.cfg.OS.AllowDrift {
					return nil, fmt.Errorf("%s runs kernel %s after its upgrade, the transition host runs %s", t.p.Host, now.Kernel, c.Kernel)
				}
				if now.Set != "" {
					set, err := getPackages(a, now.Set)
					if err != nil {
						return nil, err
					}
					diff, err := t.packageDiff(a, set)
					if err != nil {
						return nil, err
					}
					if len(diff) > 0 && !t.cfg.OS.AllowDrift {
						return nil, fmt.Errorf("%s has other packages than the transition host: %s; make them the same and resume", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
					}
				}
			}
			return now, nil
		},
	}
}

// rebootResult is the boot that a reboot has come to, and, where the reboot
// upgrades, the packages that are there then.
type rebootResult struct {
	hostos.Boot
	Set string `json:"set,omitempty"` // blob: a PackageSet
}

// blackout bounds how long a host may be away in its reboot.
func (t *transition) blackout() time.Duration { return cmp.Or(t.cfg.OS.Blackout, t.cfg.Pace.Timeout) }

// waitRelease blocks until a host that upgrades itself in its reboot has the
// release, and the kernel where one is asked for, has no package transaction
// open, and is in the same boot at three looks in a row. It may come up in
// between and go away again.
func (l *link) waitRelease(ctx context.Context, want hostos.Expected, now hostos.Boot, poll time.Duration, say func(format string, args ...any)) (hostos.Boot, error) {
	there := func(b hostos.Boot) bool {
		return strings.Contains(b.Release, want.Release) && (want.Kernel == "" || b.Kernel == want.Kernel)
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for n, same, was := 1, 0, ""; ; n++ {
		if last == nil && there(now) {
			last = hostos.CheckTransactions(ctx, l)
		}
		if last != nil || !there(now) || now.ID != was {
			same = 0
		}
		if was = now.ID; last == nil && there(now) {
			same++
		}
		if same == 3 {
			return now, nil
		}
		if n%20 == 0 {
			say("waiting for release %q on %s: %s, kernel %s in the last boot seen", want.Release, l.target, now.Release, now.Kernel)
		}
		select {
		case <-ctx.Done():
			return now, fmt.Errorf("host %s was rebooted and is not upgraded: it has release %q, kernel %s: %w (last: %v)", l.target, now.Release, now.Kernel, ctx.Err(), last)
		case <-tick.C:
		}
		ask, stop := context.WithTimeout(ctx, 20*time.Second)
		var b hostos.Boot
		if b, last = hostos.GetBoot(ask, l); last == nil {
			now = b
		} else {
			l.drop(nil)
		}
		stop()
	}
}

// waitBoot blocks until the host answers in another boot than the one with
// ID from, or in any boot when from is empty. Connections fail meanwhile;
// that is what a reboot looks like from here.
func (t *transition) waitBoot(ctx context.Context, a *engine.Act, l *link, from string) (hostos.Boot, error) {
	ctx, cancel := context.WithTimeout(ctx, t.blackout())
	defer cancel()
	tick := time.NewTicker(t.cfg.Pace.Poll)
	defer tick.Stop()
	var last error
	for n := 1; ; n++ {
		ask, stop := context.WithTimeout(ctx, 20*time.Second)
		b, err := hostos.GetBoot(ask, l)
		stop()
		switch {
		case err != nil:
			if ctx.Err() == nil {
				last = err
			}
			l.drop(nil)
			if wrongKey(err) {
				return b, err
			}
		case b.ID != from:
			return b, nil
		default:
			last = errors.New("it is still in the old boot")
		}
		if n%10 == 0 {
			a.Progress("waiting for %s: %v", l.target, last)
		}
		select {
		case <-ctx.Done():
			return hostos.Boot{}, fmt.Errorf("host %s did not come back: %w (last: %v)", l.target, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// evidenceTime bounds how long the cloud is asked about a host that is lost.
const evidenceTime = 2 * time.Minute

// evidence keeps what the cloud shows of a host that does not come back, and
// says where. The console may hold secrets of services: it is a private file of
// the run, and no part of the message.
func (t *transition) evidence(ctx context.Context, a *engine.Act, r role) string {
	id := t.p.Facts.Instance.ID
	if r == old {
		c, _, err := t.clone(a)
		if err != nil {
			return "no evidence: " + err.Error()
		}
		id = c.InstanceID
	}
	ctx, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	ev := t.e.ECS.CollectEvidence(ctx, id)
	say := []string{fmt.Sprintf("the cloud calls instance %s %s", id, cmp.Or(ev.Status, "nothing"))}
	keep := func(what string, data []byte) {
		if len(data) == 0 {
			return
		}
		ref, err := a.PutBlob(data)
		if err != nil {
			say = append(say, what+" not kept: "+err.Error())
			return
		}
		say = append(say, what+": blobs/"+ref+" in the run's directory")
	}
	keep("console output", ev.Console)
	keep("screenshot", ev.Screenshot)
	return strings.Join(append(say, ev.Problems...), "; ")
}
