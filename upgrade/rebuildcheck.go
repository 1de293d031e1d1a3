package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.3 and 5.2, which keep the floating address where it is, and
// chapter 6: the new machines against the old ones.

// holdKeepalived keeps the new machines from ever answering for the floating
// address before they are as good as the old ones.
func (r *rebuild) holdKeepalived() engine.Step {
	return engine.Step{
		ID: "3.3-hold", Section: "3.3", Effect: engine.SetState, NoUndo: "the new machines go as a whole",
		Title:   "hold keepalived down on the new machines, before it is installed",
		Lines:   []string{"released in 7, one by one, when haproxy.cfg compares equal and the machine has its final address"},
		Observe: observeByDoing,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if r.c.VIP == "" {
				return engine.Proposal{NotApplicable: "these nodes have no floating address"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.holdAll(ctx, a)
		},
	}
}

func (r *rebuild) holdAll(ctx context.Context, a *engine.Act) error {
	for _, n := range r.nodes() {
		node, _, m, err := r.fresh(a, n, n.Address)
		if err != nil {
			return err
		}
		want, err := m.identity()
		if err != nil {
			return err
		}
		if err := node.HoldKeepalived(ctx, want); err != nil {
			return fmt.Errorf("new %s: %w", n.Name, err)
		}
	}
	return nil
}

// checkHeld sees that keepalived is held on every new machine that has not
// been switched.
func (r *rebuild) checkHeld(ctx context.Context, a *engine.Act) error {
	if r.c.VIP == "" {
		return nil
	}
	for i, n := range r.nodes() {
		var done Machine
		if ok, err := a.Result(r.sec(i)+"-address", &done); err != nil {
			return err
		} else if ok {
			continue
		}
		node, _, _, err := r.fresh(a, n, n.Address)
		if err != nil {
			return err
		}
		k, err := node.GetKeepalived(ctx)
		if err != nil {
			return fmt.Errorf("new %s: %w", n.Name, err)
		}
		if !k.Held || k.Active {
			return fmt.Errorf("keepalived is not held down on the new %s at %s (held %t, running %t): it may take the floating address from those that serve", n.Name, n.Address, k.Held, k.Active)
		}
	}
	return nil
}

// checkFloating looks once more at what the packages may have moved.
func (r *rebuild) checkFloating() engine.Step {
	return engine.Step{
		ID: "5.2-floating", Section: "5.2", Effect: engine.ReadOnly,
		Title: "the packages have moved nothing: the old machines hold the floating address, and the console answers",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := r.checkHeld(ctx, a); err != nil {
				return nil, err
			}
			if r.c.VIP == "" {
				return nil, nil
			}
			if err := r.watchFor(ctx, a, r.cfg.Pace.Observe); err != nil {
				return nil, err
			}
			holder, err := r.holderNow(ctx, a)
			return map[string]string{"holder": holder}, err
		},
	}
}

// watchFor blocks until serves has held so many times in a row.
func (r *rebuild) watchFor(ctx context.Context, a *engine.Act, samples int) error {
	for range (samples + 2) / 3 {
		if err := r.waitServes(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// ---- 6.1 haproxy.cfg ----

const haproxyFile = "/etc/haproxy/haproxy.cfg"

// compareOptions say what may differ between a node's machines.
func (r *rebuild) compareOptions(a *engine.Act, n *RebuildNodeFacts) (pitrix.HAProxyOptions, error) {
	temporary, final, err := r.settings(a, n)
	if err != nil {
		return pitrix.HAProxyOptions{}, err
	}
	return pitrix.HAProxyOptions{Sub: r.c.Sub, Addresses: pitrix.AddressMap(temporary, final)}, nil
}

// A carried file is one of a new machine with what the old machine's had more.
type carried struct {
	Node string `json:"node"`
	File string `json:"file"`
	Was  string `json:"was"`  // blob: the old machine's
	Old  string `json:"old"`  // blob: the new machine's, as it was installed
	New  string `json:"new"`  // blob: with what was carried over
	What int    `json:"what"` // differences that were carried over
}

type carriedParams struct {
	Files []carried `json:"files"`
}

func (r *rebuild) compareHAProxy() engine.Step {
	return engine.Step{
		ID: "6.1-haproxy", Section: "6.1", Effect: engine.SetState,
		Title:   "haproxy.cfg of the new machines says what the old ones' says",
		Lines:   []string{"moved binds, order and port 8081 are no difference; what must be carried over is: haproxy -c, reload"},
		Observe: observeByDoing,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !r.role.haproxy {
				return engine.Proposal{NotApplicable: "nodes of this role have no haproxy"}, nil
			}
			var p carriedParams
			var lines []string
			for _, n := range r.nodes() {
				was, is, l, err := r.both(ctx, a, n, haproxyFile)
				if err != nil {
					return engine.Proposal{}, err
				}
				next, d, err := r.carryHAProxy(a, n, was, is)
				if err != nil {
					return engine.Proposal{}, fmt.Errorf("%s: %s: %w", l.target, haproxyFile, err)
				}
				for _, x := range d.MustCarryOver() {
					lines = append(lines, fmt.Sprintf("%s: carried over: %s", n.Name, x))
				}
				for _, x := range d.Ignored {
					a.Progress("%s: no difference that counts: %s", n.Name, x)
				}
				f := carried{Node: n.Name, File: haproxyFile, What: len(d.MustCarryOver())}
				if err := f.put(a, was, is, next); err != nil {
					return engine.Proposal{}, err
				}
				p.Files = append(p.Files, f)
			}
			return engine.Proposal{Params: p, Lines: lines}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.eachCarried(a, func(n *RebuildNodeFacts, node *pitrix.Node, l *link, f carried, old, next []byte) error {
				m, err := r.recorded(a, n)
				if err != nil {
					return err
				}
				want, err := m.identity()
				if err != nil {
					return err
				}
				return node.ApplyHAProxy(ctx, want, a.Key(), old, next)
			})
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			for i := range r.nodes() {
				bad, err := r.haproxyLeft(ctx, a, i)
				if err != nil {
					return nil, err
				}
				if bad != "" {
					return nil, fmt.Errorf("haproxy.cfg of the new %s: %s", r.f.Nodes[i].Name, bad)
				}
			}
			return nil, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			return r.eachCarried(a, func(n *RebuildNodeFacts, node *pitrix.Node, l *link, f carried, old, next []byte) error {
				if on, err := r.on(ctx, n); err != nil || !on {
					return err
				}
				return node.UndoHAProxy(ctx, a.Key(), next)
			})
		},
	}
}

// put stores the three states of the file in the run.
func (f *carried) put(a *engine.Act, was, old, next []byte) error {
	var err error
	if f.Was, err = a.PutBlob(was); err != nil {
		return err
	}
	if f.Old, err = a.PutBlob(old); err != nil {
		return err
	}
	f.New, err = a.PutBlob(next)
	return err
}

// eachCarried does something with each file of the step that changes.
func (r *rebuild) eachCarried(a *engine.Act, do func(n *RebuildNodeFacts, node *pitrix.Node, l *link, f carried, old, next []byte) error) error {
	var p carriedParams
	if err := a.Params(&p); err != nil {
		return err
	}
	for _, f := range p.Files {
		if f.Old == f.New {
			continue
		}
		i := slices.IndexFunc(r.f.Nodes, func(n RebuildNodeFacts) bool { return n.Name == f.Node })
		if i < 0 {
			return fmt.Errorf("internal error: node %s is not in the plan", f.Node)
		}
		n := &r.f.Nodes[i]
		node, l, _, err := r.fresh(a, n, n.Address)
		if err != nil {
			return err
		}
		old, err := a.Blob(f.Old)
		if err != nil {
			return err
		}
		next, err := a.Blob(f.New)
		if err != nil {
			return err
		}
		if err := do(n, node, l, f, old, next); err != nil {
			return fmt.Errorf("new %s: %w", n.Name, err)
		}
	}
	return nil
}

// on tells whether a node's new machine runs. In a rollback those that were
// switched are off already, and go as a whole.
func (r *rebuild) on(ctx context.Context, n *RebuildNodeFacts) (bool, error) {
	d, err := r.newDomain(ctx, n)
	return d != nil && d.State == pitrix.DomainRunning, err
}

// both reads a file of a node's old and new machine. One that the old machine
// does not have is empty.
func (r *rebuild) both(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, name string) (was, is []byte, l *link, err error) {
	if was, err = r.oldFile(ctx, a, n, name); err != nil {
		return nil, nil, nil, err
	}
	_, l, _, err = r.fresh(a, n, n.Address)
	if err != nil {
		return nil, nil, nil, err
	}
	if is, err = l.ReadFile(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("new %s: %w", n.Name, err)
	}
	return was, is, l, nil
}

// carryHAProxy gives the new machine's file with what must be carried over. A
// difference that is neither that nor none is for a person to judge.
func (r *rebuild) carryHAProxy(a *engine.Act, n *RebuildNodeFacts, was, is []byte) ([]byte, *pitrix.HAProxyDiff, error) {
	opts, err := r.compareOptions(a, n)
	if err != nil {
		return nil, nil, err
	}
	old, err := pitrix.ParseHAProxy("old "+n.Name+":"+haproxyFile, was)
	if err != nil {
		return nil, nil, err
	}
	now, err := pitrix.ParseHAProxy("new "+n.Name+":"+haproxyFile, is)
	if err != nil {
		return nil, nil, err
	}
	d := pitrix.CompareHAProxy(old, now, opts)
	carry := now
	if len(d.MustCarryOver()) > 0 {
		if carry, err = d.CarryOver(); err != nil {
			return nil, nil, err
		}
	}
	if left := pitrix.CompareHAProxy(old, carry, opts); !left.Equal() {
		return nil, nil, fmt.Errorf("it differs in what nobody has judged: %s; edit the new machine's file so that it serves as the old one's does, and resume", differencesText(left.Differences))
	}
	return carry.Bytes(), d, nil
}

func differencesText(all []pitrix.HAProxyDifference) string {
	var out []string
	for _, d := range all {
		out = append(out, d.String())
	}
	return strings.Join(out, "; ")
}

// haproxyLeft says in what the file of a node's new machine differs from the
// one that was compared in 6.1: nothing, before the machine serves.
func (r *rebuild) haproxyLeft(ctx context.Context, a *engine.Act, i int) (string, error) {
	if !r.role.haproxy {
		return "", nil
	}
	n := &r.f.Nodes[i]
	var p carriedParams
	if ok, err := a.ParamsOf(r.stepID(i, "6.1-haproxy"), &p); err != nil || !ok {
		return "", errors.Join(errors.New("internal error: no comparison of haproxy.cfg recorded"), err)
	}
	for _, f := range p.Files {
		if f.Node != n.Name {
			continue
		}
		was, err := a.Blob(f.Was)
		if err != nil {
			return "", err
		}
		addr := n.Address
		var done Machine
		if ok, err := a.Result(r.sec(i)+"-address", &done); err != nil {
			return "", err
		} else if ok {
			addr = n.Final
		}
		_, l, _, err := r.fresh(a, n, addr)
		if err != nil {
			return "", err
		}
		is, err := l.ReadFile(ctx, haproxyFile)
		if err != nil {
			return "", fmt.Errorf("new %s: %w", n.Name, err)
		}
		opts, err := r.compareOptions(a, n)
		if err != nil {
			return "", err
		}
		old, err := pitrix.ParseHAProxy("old "+n.Name+":"+haproxyFile, was)
		if err != nil {
			return "", err
		}
		now, err := pitrix.ParseHAProxy("new "+n.Name+":"+haproxyFile, is)
		if err != nil {
			return "", err
		}
		return differencesText(pitrix.CompareHAProxy(old, now, opts).Differences), nil
	}
	return "", fmt.Errorf("internal error: haproxy.cfg of %s was not compared", n.Name)
}

// stillEqual sees that the new machine of a node is what was compared in
// chapter 6.
func (r *rebuild) stillEqual(ctx context.Context, a *engine.Act, i int) error {
	name := r.f.Nodes[i].Name
	bad, err := r.haproxyLeft(ctx, a, i)
	if err != nil {
		return err
	}
	if bad != "" {
		return fmt.Errorf("haproxy.cfg of the new %s is not as the old one's any more: %s", name, bad)
	}
	if bad, err = r.dataLeft(ctx, a, i); err != nil {
		return err
	}
	if bad != "" {
		return fmt.Errorf("the new %s has lost what was carried over to it: %s; bring it back by hand, and resume", name, bad)
	}
	return nil
}

// ---- 6.2 rc.local ----

var rcLocalFiles = [...]string{"/etc/rc.local", "/etc/rc.local.head", "/etc/rc.local.tail"}

func (r *rebuild) compareRCLocal() engine.Step {
	return engine.Step{
		ID: "6.2-rclocal", Section: "6.2", Effect: engine.SetState,
		Title:   "rc.local, rc.local.head and rc.local.tail of the new machines do what the old ones' do",
		Lines:   []string{"lines that somebody has added by hand are carried over"},
		Observe: observeByDoing,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if !r.role.rclocal {
				return engine.Proposal{NotApplicable: "nodes of this role are not compared there"}, nil
			}
			var p carriedParams
			var lines []string
			for _, n := range r.nodes() {
				opts, err := r.compareOptions(a, n)
				if err != nil {
					return engine.Proposal{}, err
				}
				for _, name := range rcLocalFiles {
					was, is, l, err := r.both(ctx, a, n, name)
					if err != nil {
						return engine.Proposal{}, err
					}
					if len(was) == 0 {
						continue
					}
					d := pitrix.CompareRCLocal(name, was, is, pitrix.RCLocalOptions{Addresses: opts.Addresses})
					next := is
					if len(d.Missing) > 0 {
						if next, err = d.CarryOver(); err != nil {
							return engine.Proposal{}, fmt.Errorf("%s: %w", l.target, err)
						}
						// The new machine has its temporary address yet: lines come over
						// with the old machine's, which is the one that it will have.
						if left := pitrix.CompareRCLocal(name, was, next, pitrix.RCLocalOptions{Addresses: opts.Addresses}); len(left.Missing) > 0 {
							return engine.Proposal{}, fmt.Errorf("%s: %s still lacks %q of the old machine's", l.target, name, left.Missing[0].Text)
						}
					}
					for _, x := range d.Missing {
						lines = append(lines, fmt.Sprintf("%s: %s: carried over: %s", n.Name, name, x.Text))
					}
					f := carried{Node: n.Name, File: name, What: len(d.Missing)}
					if err := f.put(a, was, is, next); err != nil {
						return engine.Proposal{}, err
					}
					p.Files = append(p.Files, f)
				}
			}
			return engine.Proposal{Params: p, Lines: lines}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return nil, r.eachCarried(a, func(_ *RebuildNodeFacts, _ *pitrix.Node, l *link, f carried, old, next []byte) error {
				return replaceFile(ctx, l, a.Key(), f.File, old, next)
			})
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			return r.eachCarried(a, func(n *RebuildNodeFacts, _ *pitrix.Node, l *link, f carried, old, next []byte) error {
				if on, err := r.on(ctx, n); err != nil || !on {
					return err
				}
				return replaceFile(ctx, l, a.Key(), f.File, next, old)
			})
		},
	}
}

// ---- 6.4 programs, 6.5 inventory ----

func (r *rebuild) checkPrograms() engine.Step {
	return engine.Step{
		ID: "6.4-programs", Section: "6.4", Effect: engine.ReadOnly,
		Title: "every program of the new machines runs",
		Lines: []string{"supervisorctl status"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			out := map[string]pitrix.Supervisor{}
			for _, n := range r.nodes() {
				node, _, _, err := r.fresh(a, n, n.Address)
				if err != nil {
					return nil, err
				}
				if out[n.Name], err = r.waitPrograms(ctx, node); err != nil {
					return nil, fmt.Errorf("new %s: %w", n.Name, err)
				}
				was, err := r.oldPrograms(ctx, a, n)
				if err != nil {
					return nil, err
				}
				for _, name := range was {
					if !slices.ContainsFunc(out[n.Name].Programs, func(p pitrix.Program) bool { return p.Name == name }) {
						return nil, fmt.Errorf("the new %s does not have the program %s of the old one: a package is missing", n.Name, name)
					}
				}
			}
			return out, nil
		},
	}
}

func (r *rebuild) compareMachines() engine.Step {
	return engine.Step{
		ID: "6.5-compare", Section: "6.5", Effect: engine.ReadOnly,
		Title: "the new machines have what the old ones had: packages, listeners, units",
		Lines: []string{"inventory of 1.1 against a new one; keepalived is held down, and the floating address is not there yet"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			out := map[string]compareResult{}
			for _, n := range r.nodes() {
				node, l, _, err := r.fresh(a, n, n.Address)
				if err != nil {
					return nil, err
				}
				var later []string
				if r.inPlace() {
					err = r.hostsFile(ctx, node, n)
				} else {
					later = append(later, hostsPackage)
				}
				if err != nil {
					return nil, err
				}
				if err := r.samePackages(ctx, node, n, later...); err != nil {
					return nil, err
				}
				if err := r.compareConfigs(ctx, a, n); err != nil {
					return nil, err
				}
				if err := r.compareLeaf(ctx, a, l, n, r.inPlace()); err != nil {
					return nil, err
				}
				before, err := r.before(a, n)
				if err != nil {
					return nil, err
				}
				res, err := r.compareMachine(ctx, a, l, "the new "+n.Name, before, r.expect(r.inPlace()))
				if err != nil {
					return nil, err
				}
				out[n.Name] = res
			}
			return out, nil
		},
	}
}

// hostsPackage is installed when the machine is switched, and not before.
const hostsPackage = "pitrix-hosts"

// samePackages sees that a machine has the packages of the old one, but those
// that come later.
func (r *rebuild) samePackages(ctx context.Context, node *pitrix.Node, n *RebuildNodeFacts, later ...string) error {
	have, err := node.Packages(ctx)
	if err != nil {
		return fmt.Errorf("new %s: %w", n.Name, err)
	}
	for _, p := range n.Packages {
		if have[p] == "" && !slices.Contains(later, p) {
			return fmt.Errorf("the new %s does not have the package %s of the old one", n.Name, p)
		}
	}
	return nil
}

// compareMachine compares until nothing is lost, or it does not settle.
func (r *rebuild) compareMachine(ctx context.Context, a *engine.Act, l *link, name string, before *hostinv.Inventory, expect hostinv.Expect) (compareResult, error) {
	tick := time.NewTicker(r.cfg.Pace.Sample)
	defer tick.Stop()
	for try := 1; ; try++ {
		after, res, err := r.t.collect(ctx, a, l)
		if err != nil {
			return compareResult{}, err
		}
		c := hostinv.Diff(before, after, expect)
		var left []string
		for _, f := range c.Losses() {
			if !r.expected(f) {
				left = append(left, strings.TrimSpace(fmt.Sprintf("%s %s %s %s: %s → %s", f.Area, f.Key, f.Kind, f.Field, orNone(f.Before), orNone(f.After))))
			}
		}
		if len(left) == 0 {
			return compareResult{res, c.Findings}, nil
		}
		if try == 5 {
			return compareResult{}, fmt.Errorf("%s lacks what the old one had: %s; bring it there by hand, or list it in rebuild.accept in a new plan, and resume", name, strings.Join(left, "; "))
		}
		select {
		case <-ctx.Done():
			return compareResult{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// expect is what differs between an old machine and its successor, before the
// switch and after it.
func (r *rebuild) expect(switched bool) hostinv.Expect {
	// samePackages sees that none of the installer's is missing; their versions
	// are those that the firstbox has built.
	e := hostinv.Expect{KernelChanged: true, ReleaseChanged: true, HostChanged: true, Packages: []string{"pitrix-*"}, Rules: []hostinv.ExpectRule{
		{Area: hostinv.SectionSSH, Key: pitrix.KnownHostsFile + "*", Why: "a new machine learns the keys of others anew"},
	}}
	if !switched {
		e.Rules = append(e.Rules, hostinv.ExpectRule{Area: hostinv.SectionDNS, Key: "hosts *", Why: hostsPackage + " brings the names with the switch"})
	}
	for _, s := range r.c.Accept {
		area, key, _ := strings.Cut(s, " ")
		if area == string(readsBind) {
			continue // of 6.3
		}
		e.Rules = append(e.Rules, hostinv.ExpectRule{Area: area, Key: key, Why: "accepted by the configuration"})
	}
	return e
}

// expected tells losses that are meant at this point: keepalived is held down,
// and what is bound to the floating or to the final address cannot be yet.
func (r *rebuild) expected(f hostinv.Finding) bool {
	words := []string{f.Key, f.Before}
	later := []string{"keepalived", r.c.VIP}
	if !r.inPlace() {
		later = append(later, r.finals()...)
	}
	for _, n := range r.f.Nodes {
		if n.moves() { // its gateway was the old host
			later = append(later, n.OldHost)
		}
	}
	for _, s := range later {
		if s != "" && slices.ContainsFunc(words, func(w string) bool { return containsWord(w, s) }) {
			return true
		}
	}
	return false
}

func (r *rebuild) finals() []string {
	var out []string
	for _, n := range r.f.Nodes {
		out = append(out, n.Final)
	}
	return out
}

// containsWord finds word between characters that no name or address has.
func containsWord(s, word string) bool {
	inside := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for i := 0; ; {
		j := strings.Index(s[i:], word)
		if j < 0 {
			return false
		}
		j += i
		end := j + len(word)
		if (j == 0 || !inside(s[j-1])) && (end == len(s) || !inside(s[end])) {
			return true
		}
		i = j + 1
	}
}
