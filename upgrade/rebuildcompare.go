package upgrade

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 6.4 and 6.5: the new machines as a whole against the old ones.

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
				res, err := r.compareMachine(ctx, a, l, "the new "+n.Name, before, r.expect(n, r.inPlace()))
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

// expect is what differs between an old machine of a node and its successor,
// before the switch and after it. A machine that is made anew with the release
// that it has may have the same kernel; one that gets another must not.
func (r *rebuild) expect(n *RebuildNodeFacts, switched bool) hostinv.Expect {
	// samePackages sees that none of the installer's is missing; their versions
	// are those that the firstbox has built.
	e := hostinv.Expect{KernelChanged: !sameRelease(n.Old.OSVersion, r.c.OSVersion), ReleaseChanged: true, HostChanged: true, Packages: []string{"pitrix-*"}, Rules: []hostinv.ExpectRule{
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

// sameRelease compares a VERSION_ID, 16.04, and an os_version, 16.04.5.
func sameRelease(id, version string) bool {
	return strings.HasPrefix(version, id) || strings.HasPrefix(id, version)
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
