package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 6.1 and 6.2: files of the new machines against those of the old ones,
// with what must be carried over.

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
				return replaceFile(ctx, l, f.File, old, next)
			})
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			return r.eachCarried(a, func(n *RebuildNodeFacts, _ *pitrix.Node, l *link, f carried, old, next []byte) error {
				if on, err := r.on(ctx, n); err != nil || !on {
					return err
				}
				return replaceFile(ctx, l, f.File, next, old)
			})
		},
	}
}

// replaceFile changes a file that still is as old; a third thing is not
// overwritten.
func replaceFile(ctx context.Context, l *link, name string, old, next []byte) error {
	err := (&pitrix.Node{Host: l.held(), Name: l.target}).ReplaceFile(ctx, name, old, next)
	var drift *pitrix.DriftError
	if errors.As(err, &drift) {
		return &engine.ConflictError{Object: l.target + ":" + name, Before: "SHA-256 " + sum(old), Ours: "SHA-256 " + sum(next), Now: drift.Why}
	}
	return wrapHost(l.target, err)
}
