package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The strategy in-place: no temporary addresses and no room for a second
// machine are needed. For that, from a node's 7.i.3 to its 7.i.7 the other
// nodes of the role serve alone.

// inPlaceSteps put one old machine after the other away and build its successor
// at its address. Chapters 3 to 6, which are for all nodes at once side by side,
// are 7.i.3 to 7.i.6 here.
func (r *rebuild) inPlaceSteps() []engine.Step {
	steps := []engine.Step{
		r.recordInventory(), // 1.1
		r.checkPair(),       // 1.2
		r.checkHosts(),      // 1.3
		r.backupSettings(),  // 1.4
		r.setMarker(),       // 2.1
	}
	for i := range r.f.Nodes { // the holder of the floating address last
		with, without := r.view(i, false), r.view(i, true)
		node := slices.Concat(
			r.chapter(i, 1, with.checkReplaceable(i)),
			r.chapter(i, 2, with.writeSettings(), with.generateLists(), with.buildPackages()),
			r.chapter(i, 3, with.moveFloating(i), with.stopPrograms(i), with.recordOld(i), with.powerOff(i), with.autostartOff(i),
				without.setAside(i), without.forgetOld(i)),
			r.leafChapter(i),
			r.chapter(i, 3, without.launch(), without.recordMachines(), without.holdKeepalived()),
			r.chapter(i, 4, without.install(), without.recordInstalled()),
		)
		for _, pkg := range r.f.Packages {
			node = append(node, r.chapter(i, 5, without.update(pkg))...)
		}
		node = append(node, slices.Concat(
			r.chapter(i, 5, without.installHosts(i), without.checkFloating()),
			r.chapter(i, 6, without.compareHAProxy(), without.compareRCLocal(), without.restoreData(), without.rebootNew(i), without.checkPrograms(), without.compareMachines()),
			r.chapter(i, 7, without.announce(i), with.releaseKeepalived(i)),
			r.chapter(i, 8, with.cleanKnownHosts()),
		)...)
		// Nobody pauses a run while the other nodes are alone.
		alone := false
		for k := range node {
			node[k].Joined = alone
			switch node[k].ID {
			case r.stepID(i, "3-floating"):
				alone = true
			case r.stepID(i, "7-keepalived"):
				alone = false
			}
		}
		steps = append(steps, node...)
	}
	return append(steps,
		r.checkEverything(), // 8.2
		r.clearMarker(),     // 8.3
		r.soak(),            // 9.1
		r.undefine(),        // 9.2
		r.verifyEnd(),       // 9.3
	)
}

// view is the rebuild of one node; gone: at a time when it has no machine that
// could be asked.
func (r *rebuild) view(i int, gone bool) *rebuild {
	v := *r
	v.own = []int{i}
	if gone {
		v.apart = []int{i}
	}
	return &v
}

// chapter gives steps of a node the IDs and the section of its chapter.
func (r *rebuild) chapter(i, chapter int, steps ...engine.Step) []engine.Step {
	for k := range steps {
		_, word, _ := strings.Cut(steps[k].ID, "-")
		steps[k].Section = fmt.Sprintf("7.%d.%d", i+1, chapter)
		steps[k].ID = steps[k].Section + "-" + word
	}
	return steps
}

// alone says who carries the service while a node is rebuilt.
func (r *rebuild) alone(i int) string {
	var hosts []string
	for j, n := range r.f.Nodes {
		switch {
		case j == i:
		case j < i:
			hosts = append(hosts, n.Name+" on "+n.PhysicalHost)
		default:
			hosts = append(hosts, n.Name+" on "+n.OldHost)
		}
	}
	return strings.Join(hosts, ", ")
}

// risk is what a plan says of the capacity.
func (r *rebuild) risk(i int) string {
	return fmt.Sprintf("capacity: %d of %d nodes until 7.%d.7, through launch, installation and reboots; if %s fails meanwhile, nobody serves", len(r.f.Nodes)-1, len(r.f.Nodes), i+1, r.alone(i))
}

// checkReplaceable proves, behind the gate, that the node may go: it is the one
// of the plan, what is to be kept of it can be read, and the others are well.
func (r *rebuild) checkReplaceable(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: "7-ready", Effect: engine.ReadOnly,
		Title: "the old " + n.Name + " may go, and the others can carry the service",
		Lines: []string{r.risk(i), "the floating address is not on " + n.Name + ", unless it is the last one", "packages and settings as planned; the files that its successor gets can be read"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			old, l, err := r.old(n)
			if err != nil {
				return nil, err
			}
			if err := r.prove(ctx, old, n.Old); err != nil {
				return nil, fmt.Errorf("old %s: %w", n.Name, err)
			}
			if r.c.VIP != "" {
				if err := r.waitServes(ctx, a); err != nil {
					return nil, err
				}
			}
			if err := r.holderLast(ctx, a, i); err != nil {
				return nil, err
			}
			if err := r.waitPeers(ctx, a, i); err != nil {
				return nil, err
			}
			packages, err := old.Packages(ctx)
			if err != nil {
				return nil, fmt.Errorf("old %s: %w", n.Name, err)
			}
			for name := range packages {
				if !slices.Contains(n.Packages, name) {
					return nil, &DriftError{[]string{fmt.Sprintf("package %s was installed on %s since the plan was made; make a new plan", name, n.Name)}}
				}
			}
			if err := r.replaceable(ctx, a); err != nil {
				return nil, err
			}
			_, err = r.readOld(ctx, l, n)
			return nil, err
		},
	}
}

// An oldRecord is what is kept of an old machine for its successor, taken when
// its programs had stopped: once it is off nobody can ask it. The bytes are
// private blobs of the run.
type oldRecord struct {
	Files    map[string]string       `json:"files"`    // path → blob; absent: there is none
	Trees    map[string]recordedTree `json:"trees"`    // by path
	Programs []string                `json:"programs"` // names
}

// A recordedTree is an oldTree that is kept.
type recordedTree struct {
	Paths []string `json:"paths,omitempty"`
	Own   bool     `json:"own,omitempty"`
	Data  string   `json:"data,omitempty"`  // blob
	Lines string   `json:"lines,omitempty"` // blob
}

// oldFiles are those bytes while they are on their way into blobs.
type oldFiles struct {
	files    map[string][]byte
	trees    map[string]oldTree
	programs []string
}

// readOld reads what the successor of a node's old machine needs of it.
func (r *rebuild) readOld(ctx context.Context, l *link, n *RebuildNodeFacts) (*oldFiles, error) {
	out := &oldFiles{files: map[string][]byte{}, trees: map[string]oldTree{}}
	var names []string
	if r.role.haproxy {
		names = append(names, haproxyFile)
	}
	if r.role.rclocal {
		names = append(names, rcLocalFiles[:]...)
	}
	for _, name := range names {
		b, err := l.ReadFile(ctx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("old %s: %w", n.Name, err)
		default:
			out.files[name] = b
		}
	}
	for _, d := range r.role.restore {
		tree, err := readTree(ctx, l, d)
		if err != nil {
			return nil, fmt.Errorf("old %s: %w", n.Name, err)
		}
		out.trees[d.path] = tree
	}
	s, err := (&pitrix.Node{Host: l, Name: n.Name}).SupervisorStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	for _, p := range s.Programs {
		out.programs = append(out.programs, p.Name)
	}
	return out, nil
}

func (r *rebuild) recordOld(i int) engine.Step {
	n := &r.f.Nodes[i]
	var lines []string
	if r.role.haproxy {
		lines = append(lines, haproxyFile)
	}
	if r.role.rclocal {
		lines = append(lines, strings.Join(rcLocalFiles[:], ", "))
	}
	for _, d := range r.role.restore {
		lines = append(lines, d.path)
	}
	return engine.Step{
		ID: "7-record", Effect: engine.ReadOnly,
		Title: "keep what the successor of " + n.Name + " needs of it, as it is now that its programs have stopped",
		Lines: append(lines, "names of its programs"),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			old, l, err := r.old(n)
			if err != nil {
				return nil, err
			}
			if err := r.prove(ctx, old, n.Old); err != nil {
				return nil, fmt.Errorf("old %s: %w", n.Name, err)
			}
			for _, d := range r.role.restore {
				if err := flushData(ctx, l, d); err != nil {
					return nil, fmt.Errorf("old %s: %w", n.Name, err)
				}
			}
			is, err := r.readOld(ctx, l, n)
			if err != nil {
				return nil, err
			}
			rec := oldRecord{Files: map[string]string{}, Trees: map[string]recordedTree{}, Programs: is.programs}
			for name, b := range is.files {
				if rec.Files[name], err = a.PutBlob(b); err != nil {
					return nil, err
				}
			}
			for name, t := range is.trees {
				kept := recordedTree{Paths: t.paths, Own: t.own}
				if kept.Data, err = a.PutBlob(t.data); err != nil {
					return nil, err
				}
				if kept.Lines, err = putJSON(a, t.lines); err != nil {
					return nil, err
				}
				rec.Trees[name] = kept
			}
			return rec, nil
		},
	}
}

// record gives what was kept of a node's old machine.
func (r *rebuild) record(a *engine.Act, n *RebuildNodeFacts) (oldRecord, error) {
	var rec oldRecord
	ok, err := a.Result(r.stepID(r.place(n), "3-record"), &rec)
	if err != nil || !ok {
		return rec, errors.Join(fmt.Errorf("internal error: nothing is recorded of the old %s", n.Name), err)
	}
	return rec, nil
}

// oldFile gives a file of a node's old machine, nil when it has none.
func (r *rebuild) oldFile(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, name string) ([]byte, error) {
	if r.inPlace() {
		rec, err := r.record(a, n)
		if err != nil || rec.Files[name] == "" {
			return nil, err
		}
		return a.Blob(rec.Files[name])
	}
	_, l, err := r.old(n)
	if err != nil {
		return nil, err
	}
	b, err := l.ReadFile(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	return b, nil
}

// recordedTree gives what was kept of a tree of a node's old machine.
func (r *rebuild) recordedTree(a *engine.Act, n *RebuildNodeFacts, d restored) (oldTree, error) {
	rec, err := r.record(a, n)
	if err != nil {
		return oldTree{}, err
	}
	kept := rec.Trees[d.path]
	t := oldTree{paths: kept.Paths, own: kept.Own}
	if len(t.paths) == 0 {
		return t, nil
	}
	if t.data, err = a.Blob(kept.Data); err != nil {
		return t, err
	}
	b, err := a.Blob(kept.Lines)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(b, &t.lines); err != nil {
		return t, fmt.Errorf("cannot read what was kept of %s: %w", d.path, err)
	}
	return t, nil
}

// oldPrograms names the programs of a node's old machine.
func (r *rebuild) oldPrograms(ctx context.Context, a *engine.Act, n *RebuildNodeFacts) ([]string, error) {
	if r.inPlace() {
		rec, err := r.record(a, n)
		return rec.Programs, err
	}
	old, _, err := r.old(n)
	if err != nil {
		return nil, err
	}
	s, err := old.SupervisorStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	var out []string
	for _, p := range s.Programs {
		out = append(out, p.Name)
	}
	return out, nil
}

// setAside makes room for the successor's name, which libvirt and launch_vms.sh
// take once per host.
func (r *rebuild) setAside(i int) engine.Step {
	n := &r.f.Nodes[i]
	aside := pitrix.AsideName(n.Name)
	return engine.Step{
		ID: "7-aside", Effect: engine.SetState,
		Title: "set the old " + n.Name + " on " + n.OldHost + " aside as a backup, under another name",
		Lines: []string{
			fmt.Sprintf("/pitrix/kernels/%s.{img,xml,Done} → %s.*; the image needs its base %s unchanged", n.Name, aside, orNone(n.Base)),
			fmt.Sprintf("domain %s → %s, with its UUID %s; its definition is kept in /pitrix/kernels/%s.domain", n.Name, aside, n.UUID, aside),
		},
		Observe: observeByDoing, // what is renamed already is left alone
		Do: func(ctx context.Context, _ *engine.Act) (any, error) {
			if err := r.shutOff(ctx, n); err != nil {
				return nil, err
			}
			hv := r.hypervisor(n.OldHost)
			if err := hv.SetAside(ctx, n.Name, n.UUID); err != nil {
				return nil, wrapHost(n.OldHost, err)
			}
			files, err := hv.GetFiles(ctx, n.Name)
			return files, wrapHost(n.OldHost, err)
		},
		Undo: func(ctx context.Context, _ *engine.Act) error {
			return wrapHost(n.OldHost, r.hypervisor(n.OldHost).TakeBack(ctx, n.Name, n.UUID))
		},
	}
}

// forgetOld has those who make the new machine forget the old one: by its host
// key the firstbox's scripts could not log in, and by its MAC address, which a
// neighbour believes in for half a minute and more, they could not reach it to
// hear of the new one.
func (r *rebuild) forgetOld(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: "7-forget", Effect: engine.SetState, NoUndo: "what was forgotten is learnt anew",
		Title:   "the firstbox and " + n.PhysicalHost + " forget the old " + n.Name + ": its host key, its MAC address",
		Lines:   []string{"ssh-keygen -R " + strings.Join(r.knownNames(), ", "), "ip neigh flush to " + n.Final},
		Observe: observeByDoing,
		Do: func(ctx context.Context, _ *engine.Act) (any, error) {
			_, err := r.firstbox().RemoveKnownHosts(ctx, r.knownNames())
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			for _, l := range []*link{r.e.host(r.cfg.Host), r.at(n.PhysicalHost)} {
				if _, err := run(ctx, l.held(), "ip neigh flush to "+shellq.Quote(n.Final)+" >&2"); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
	}
}

// silent says who answers at the address of a node that has no machine: two of
// them would have one address. The host that gets the new one asks.
func (r *rebuild) silent(ctx context.Context, n *RebuildNodeFacts, bridge string) ([]string, error) {
	addr, err := netip.ParseAddr(n.Final)
	if err != nil {
		return nil, err
	}
	host := &pitrix.Node{Host: r.fence(r.at(n.PhysicalHost)), Name: "host " + n.PhysicalHost}
	who, err := host.ProbeAddress(ctx, addr, bridge)
	if err != nil {
		return nil, err
	}
	if len(who) > 0 {
		return []string{fmt.Sprintf("address %s of %s is answered by %s, although the old machine is off; find that machine", addr, n.Name, who[0])}, nil
	}
	return nil, nil
}

// rebootNew proves that the new machine comes up by itself, with all that was
// carried over to it, before it may serve.
func (r *rebuild) rebootNew(i int) engine.Step {
	n := &r.f.Nodes[i]
	return engine.Step{
		ID: "7-reboot", Effect: engine.OneShot, NoUndo: "the machine goes as a whole",
		Title: "reboot the new " + n.Name + ": it comes up by itself as it will serve",
		Lines: []string{"shutdown -r now, proved by the boot ID; its programs run afterwards"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			_, l, _, err := r.fresh(a, n, n.Final)
			if err != nil {
				return engine.Proposal{}, err
			}
			b, err := hostos.GetBoot(ctx, l)
			if err != nil {
				return engine.Proposal{}, fmt.Errorf("new %s: %w", n.Name, err)
			}
			return engine.Proposal{Before: rebootBefore{Boot: b}}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var was rebootBefore
			if err := a.Before(&was); err != nil {
				return nil, err
			}
			node, l, m, err := r.fresh(a, n, n.Final)
			if err != nil {
				return nil, err
			}
			want, err := m.identity()
			if err != nil {
				return nil, err
			}
			want.BootID = was.Boot.ID // asked for twice, it happens once
			// One that goes down by an earlier request does not answer.
			if err := node.Reboot(ctx, want); err != nil && l.alive(ctx) == nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			l.drop(nil)
			now, err := r.t.waitBoot(ctx, a, l, was.Boot.ID)
			if err != nil {
				return nil, err
			}
			if err := r.prove(ctx, node, m); err != nil {
				return nil, fmt.Errorf("new %s: %w", n.Name, err)
			}
			return now, nil
		},
	}
}
