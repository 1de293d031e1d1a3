package upgrade

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.9, 4.2, 4.6 and 4.9 on the nginx hosts: traffic moves, and only
// on proof.

// A fileChange is one nginx file of one host; Before and After are blobs.
type fileChange struct {
	Host   string `json:"host"`
	Conf   string `json:"conf"`
	Name   string `json:"name"`
	Before string `json:"before"`
	After  string `json:"after"`
}

type nginxParams struct {
	Files []fileChange `json:"files"`
	Key   string       `json:"key"` // the mark in the files

	lines []string // diffs and warnings, for the intent's reader
}

// back turns the changes round.
func (p nginxParams) back() nginxParams {
	out := nginxParams{Files: slices.Clone(p.Files), Key: p.Key}
	for i := range out.Files {
		out.Files[i].Before, out.Files[i].After = out.Files[i].After, out.Files[i].Before
	}
	return out
}

// nginxStep changes nginx files. plan says how; do and undo are what must hold
// before traffic moves one way or the other, on each host anew; by takes the
// edits back where others have edited the files too (nil: that is a conflict);
// after, when not nil, ends the undo.
func (t *transition) nginxStep(id, section, title string, lines []string, plan func(context.Context, *engine.Act) (nginxParams, error), do, undo func(context.Context, *engine.Act) error, by unmark, after func(context.Context, *engine.Act) error) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: title, Effect: engine.SetState, Lines: lines,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			p, err := plan(ctx, a)
			if err != nil {
				return engine.Proposal{}, err
			}
			if len(p.Files) == 0 {
				return engine.Proposal{NotApplicable: "no nginx file leads to " + t.p.Host}, nil
			}
			if err := do(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			// The before-images are the blobs that the parameters name.
			return engine.Proposal{Params: p, Lines: p.lines}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p nginxParams
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			return t.observeFiles(ctx, a, p)
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p nginxParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			// Days may have passed since the intent was written.
			return nil, t.putFiles(ctx, a, p, do)
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p nginxParams
			if err := a.Params(&p); err != nil {
				return err
			}
			back := p.back()
			if by != nil {
				var err error
				if back, err = t.takeBack(ctx, a, p, by); err != nil {
					return err
				}
			}
			if err := t.putFiles(ctx, a, back, undo); err != nil {
				return err
			}
			if after != nil {
				return after(ctx, a)
			}
			return nil
		},
	}
}

// observeFiles says how far the change of the files has come. It never says
// "ours": a file that is written may not be loaded yet, and loading it once
// more harms nothing.
func (t *transition) observeFiles(ctx context.Context, a *engine.Act, p nginxParams) (engine.Sight, error) {
	state := engine.Absent
	for _, f := range p.Files {
		now, err := t.e.host(f.Host).ReadFile(ctx, f.Name)
		if err != nil {
			return engine.Sight{}, fmt.Errorf("host %s: %w", f.Host, err)
		}
		switch PlanHash(now) {
		case f.After:
			state = engine.InProgress
		case f.Before:
		default:
			return engine.Sight{State: engine.Foreign, Detail: fmt.Sprintf("%s: %s was changed by somebody else", f.Host, f.Name)}, nil
		}
	}
	return engine.Sight{State: state}, nil
}

// putFiles brings the files from Before to After, host by host, tested and
// loaded. Files that are there already are loaded once more.
func (t *transition) putFiles(ctx context.Context, a *engine.Act, p nginxParams, guard func(context.Context, *engine.Act) error) error {
	var servers []NginxHost
	for _, f := range p.Files {
		if s := (NginxHost{Host: f.Host, Conf: f.Conf}); !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	for _, s := range servers {
		if err := guard(ctx, a); err != nil {
			return err
		}
		if err := t.e.host(s.Host).alive(ctx); err != nil {
			return err
		}
		var files []nginx.FileChange
		for _, f := range p.Files {
			if f.Host != s.Host || f.Conf != s.Conf {
				continue
			}
			before, err := a.Blob(f.Before)
			if err != nil {
				return err
			}
			after, err := a.Blob(f.After)
			if err != nil {
				return err
			}
			files = append(files, nginx.FileChange{Name: f.Name, Before: before, After: after})
		}
		server, err := t.e.heldNginx(ctx, s)
		if err == nil {
			err = server.Put(ctx, files)
		}
		if err != nil {
			return fmt.Errorf("host %s: %w", s.Host, err)
		}
		a.Progress("%s: nginx has reloaded", s.Host)
	}
	return nil
}

// planNginx computes a change on every nginx host from its files of now.
func (t *transition) planNginx(ctx context.Context, a *engine.Act, change func(*nginx.Tree) (*nginx.Change, error)) (nginxParams, error) {
	p := nginxParams{Key: a.Key()}
	for _, n := range t.p.Facts.Nginx {
		tree, err := t.e.nginx(NginxHost{Host: n.Host, Conf: n.Conf}).Load(ctx)
		if err != nil {
			return p, fmt.Errorf("host %s: %w", n.Host, err)
		}
		c, err := change(tree)
		if err != nil {
			return p, fmt.Errorf("host %s: %w", n.Host, err)
		}
		for _, w := range c.Warnings {
			p.lines = append(p.lines, n.Host+": warning: "+w)
		}
		for _, f := range c.Files() {
			fc := fileChange{Host: n.Host, Conf: n.Conf, Name: f.Name}
			if fc.Before, err = a.PutBlob(f.Before); err != nil {
				return p, err
			}
			if fc.After, err = a.PutBlob(f.After); err != nil {
				return p, err
			}
			p.Files = append(p.Files, fc)
		}
		if d := c.Diff(); d != "" {
			p.lines = append(p.lines, n.Host+":\n"+d)
		}
	}
	return p, nil
}

// addServers puts the transition host beside the production host in the
// upstreams where both can serve.
func addServers(tree *nginx.Tree, address, clone, tag string) (*nginx.Change, error) {
	return tree.ShiftIn(nginx.Query{Host: address}, clone, tag)
}

// drainServers leads to the transition host everything that still leads to the
// production host.
func drainServers(tree *nginx.Tree, address, clone, tag string) (*nginx.Change, error) {
	return tree.Shift(nginx.Query{Host: address}, clone, tag)
}

// previewLines shows a diff of every nginx host in a plan.
func (t *transition) previewLines(diff func(NginxFacts) string) []string {
	var lines []string
	for _, n := range t.p.Facts.Nginx {
		if d := diff(n); d != "" {
			lines = append(lines, n.Host+": nginx -t, reload, new workers seen", d)
		}
	}
	return lines
}

func (t *transition) addToNginx() engine.Step {
	return t.nginxStep("3.9-nginx", "3.9", "add the transition host to the upstreams of nginx", t.previewLines(func(n NginxFacts) string { return n.Add }),
		func(ctx context.Context, a *engine.Act) (nginxParams, error) {
			c, _, err := t.clone(a)
			if err != nil {
				return nginxParams{}, err
			}
			return t.planNginx(ctx, a, func(tree *nginx.Tree) (*nginx.Change, error) {
				return addServers(tree, t.cfg.Address, c.PrivateIP, a.Key())
			})
		},
		t.ready, t.productionHealthy, t.unadd, t.cloneDrained)
}

func (t *transition) drainNginx() engine.Step {
	return t.nginxStep("4.2-nginx", "4.2", "take "+t.p.Host+" out of nginx", t.previewLines(func(n NginxFacts) string { return n.Drain }),
		func(ctx context.Context, a *engine.Act) (nginxParams, error) {
			c, _, err := t.clone(a)
			if err != nil {
				return nginxParams{}, err
			}
			return t.planNginx(ctx, a, func(tree *nginx.Tree) (*nginx.Change, error) {
				return drainServers(tree, t.cfg.Address, c.PrivateIP, a.Key())
			})
		},
		t.ready, t.productionHealthy, t.undrain, nil)
}

func (t *transition) productionHealthy(ctx context.Context, a *engine.Act) error {
	return t.waitAllHealthy(ctx, a, prod)
}

// cloneDrained waits until what still runs to the transition host through old
// workers has ended: after this undo it may be taken away.
func (t *transition) cloneDrained(ctx context.Context, a *engine.Act) error {
	if alive, err := t.cloneRuns(ctx, a); err != nil || !alive {
		return err
	}
	w, err := t.watchOn(ctx, a, old)
	if err != nil {
		return err
	}
	_, err = w.waitSilence(ctx, a, nil)
	return err
}

// An unmark takes what a step has put into the files out again, by its mark.
type unmark func(tree *nginx.Tree, key, clone string) (*nginx.Change, error)

// unadd takes added servers out.
func (t *transition) unadd(tree *nginx.Tree, key, _ string) (*nginx.Change, error) {
	return tree.RemoveAdded(key)
}

// undrain leads back to the production host what was led to the transition
// host.
func (t *transition) undrain(tree *nginx.Tree, key, clone string) (*nginx.Change, error) {
	return tree.ShiftBack(nginx.Query{Host: t.cfg.Address}, clone, key)
}

// takeBack plans to put back what was made: the very bytes where nobody else
// has touched the files since, else our marks and addresses in the files as
// they are now. What others have changed stays.
func (t *transition) takeBack(ctx context.Context, a *engine.Act, made nginxParams, by unmark) (nginxParams, error) {
	var foreign []string
	for _, f := range made.Files {
		now, err := t.e.host(f.Host).ReadFile(ctx, f.Name)
		if err != nil {
			return nginxParams{}, fmt.Errorf("host %s: %w", f.Host, err)
		}
		if h := PlanHash(now); h != f.After && h != f.Before {
			if err := t.intact(a, f, made.Key, string(now)); err != nil {
				return nginxParams{}, err
			}
			foreign = append(foreign, f.Host+": "+f.Name)
		}
	}
	if len(foreign) == 0 {
		return made.back(), nil
	}
	c, _, err := t.clone(a)
	if err != nil {
		return nginxParams{}, err
	}
	p, err := t.planNginx(ctx, a, func(tree *nginx.Tree) (*nginx.Change, error) {
		return by(tree, made.Key, c.PrivateIP)
	})
	for _, f := range foreign {
		p.lines = append(p.lines, f+" was changed by somebody else meanwhile; only what this run put there is taken back")
	}
	return p, err
}

// intact sees that somebody's edit of a file has left our lines alone: all of
// them are there, or none is because they were taken back already.
func (t *transition) intact(a *engine.Act, f fileChange, key, now string) error {
	before, err := a.Blob(f.Before)
	if err != nil {
		return err
	}
	after, err := a.Blob(f.After)
	if err != nil {
		return err
	}
	marks := func(text string) int { return strings.Count(text, "("+key+")") + strings.Count(text, "("+key+",") }
	lines := func(text string) (n int) {
		for l := range strings.Lines(text) {
			if l = strings.TrimSpace(l); !strings.HasPrefix(l, "#") && strings.Contains(l, t.cfg.Address) {
				n++
			}
		}
		return n
	}
	have, want := marks(now), marks(string(after))
	if have >= want || have == 0 && lines(now) >= lines(string(before)) {
		return nil
	}
	return &engine.ConflictError{Object: f.Host + ": " + f.Name, Before: fmt.Sprintf("%d lines with %s", lines(string(before)), t.cfg.Address),
		Ours: fmt.Sprintf("%d lines marked with %s", want, key), Now: fmt.Sprintf("%d marked lines and %d with %s: somebody has changed them; put them back by hand", have, lines(now), t.cfg.Address)}
}

// reverse plans to take back what an earlier nginx step made.
func (t *transition) reverse(step string, by unmark) func(context.Context, *engine.Act) (nginxParams, error) {
	return func(ctx context.Context, a *engine.Act) (nginxParams, error) {
		var made nginxParams
		if ok, err := a.ParamsOf(step, &made); err != nil || !ok {
			return nginxParams{}, err
		}
		return t.takeBack(ctx, a, made, by)
	}
}

func (t *transition) restoreNginx() engine.Step {
	return t.nginxStep("4.6-nginx", "4.6", "put "+t.p.Host+" back into nginx", []string{"the files as they were before 4.2, byte for byte"},
		t.reverse("4.2-nginx", t.undrain), t.productionHealthy, t.ready, nil, nil)
}

func (t *transition) removeFromNginx() engine.Step {
	return t.nginxStep("4.9-nginx", "4.9", "take the transition host out of nginx", []string{"the files as they were before 3.9, byte for byte"},
		t.reverse("3.9-nginx", t.unadd), t.productionHealthy, t.ready, nil, nil)
}
