package upgrade

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// rebuildSteps is the rebuild of management nodes, by the strategy of the plan.
// The chapters are those of docs/rebuild.md. With a nil Env the steps can be
// listed, not run.
func rebuildSteps(p *Plan, e *Env) []engine.Step {
	r := newRebuild(p, e)
	steps := r.sideBySideSteps
	if r.inPlace() {
		steps = r.inPlaceSteps
	}
	out := steps()
	for _, section := range p.Config.Gates {
		i := slices.IndexFunc(out, func(s engine.Step) bool { return s.Section == section })
		if i >= 0 && out[i].Gate == "" {
			out[i].Gate = r.gateText(section)
		}
	}
	return out
}

// sideBySideSteps make new machines beside the old ones; then one old machine
// after the other makes room for its successor.
func (r *rebuild) sideBySideSteps() []engine.Step {
	steps := []engine.Step{
		r.recordInventory(), // 1.1
		r.checkPair(),       // 1.2
		r.checkHosts(),      // 1.3
		r.backupSettings(),  // 1.4
		r.setMarker(),       // 2.1
		r.writeSettings(),   // 2.2
		r.generateLists(),   // 2.3
		r.buildPackages(),   // 2.4
	}
	if r.leafMoves() {
		steps = append(steps, r.routeTemporary()) // 2.5
	}
	steps = append(steps,
		r.launch(),          // 3.1
		r.recordMachines(),  // 3.2
		r.holdKeepalived(),  // 3.3
		r.install(),         // 4.1
		r.recordInstalled(), // 4.2
	)
	for _, pkg := range r.f.Packages {
		steps = append(steps, r.update(pkg)) // 5.1
	}
	steps = append(steps,
		r.checkFloating(),   // 5.2
		r.compareHAProxy(),  // 6.1
		r.compareRCLocal(),  // 6.2
		r.restoreData(),     // 6.3
		r.checkPrograms(),   // 6.4
		r.compareMachines(), // 6.5
	)
	for i := range r.f.Nodes { // the holder of the floating address last
		node := []engine.Step{
			r.checkReady(i),    // 7.i
			r.finalSettings(i), // 7.i
			r.buildHosts(i),    // 7.i
			r.moveFloating(i),  // 7.i
			r.refreshData(i),   // 7.i
			r.stopPrograms(i),  // 7.i
			r.powerOff(i),      // 7.i
			r.autostartOff(i),  // 7.i
		}
		if r.f.Nodes[i].moves() {
			node = append(node, r.moveRoutes(i)) // 7.i
		}
		node = append(node,
			r.installHosts(i),      // 7.i
			r.takeAddress(i),       // 7.i
			r.announce(i),          // 7.i
			r.checkSwitched(i),     // 7.i
			r.releaseKeepalived(i), // 7.i
		)
		// Nobody pauses a run while a node is between its two machines.
		for k := range node {
			node[k].Joined = k > slices.IndexFunc(node, func(s engine.Step) bool { return s.ID == r.sec(i)+"-floating" })
		}
		steps = append(steps, node...)
	}
	steps = append(steps,
		r.cleanKnownHosts(), // 8.1
		r.checkEverything(), // 8.2
	)
	if r.leafMoves() {
		steps = append(steps, r.unrouteTemporary()) // 8.3
	}
	return append(steps,
		r.clearMarker(), // 8.3
		r.soak(),        // 9.1
		r.parkImages(),  // 9.1
		r.undefine(),    // 9.2
		r.verifyEnd(),   // 9.3
	)
}

// gateText is what a person is asked before a section.
func (r *rebuild) gateText(section string) string {
	for i, n := range r.f.Nodes {
		if r.inPlace() {
			if section == fmt.Sprintf("7.%d.1", i+1) {
				return fmt.Sprintf("%s goes on alone, and whatever happens to it is an outage, until %s is built anew on %s; shut the old one on %s down?", strings.Join(r.others(i), ", "), n.Name, n.PhysicalHost, n.OldHost)
			}
			continue
		}
		if section == fmt.Sprintf("7.%d", i+1) {
			return fmt.Sprintf("the new %s is as good as the old one; shut the old one on %s down and give its address to the new one on %s?", n.Name, n.OldHost, n.PhysicalHost)
		}
	}
	switch section {
	case "9.1":
		return "the new machines serve; look at the console's pages yourself; move the old machines' images aside?"
	case "9.2":
		return "look at the console's pages yourself; undefine the old machines? Their images stay, but from here on there is no rollback"
	}
	return "go on with section " + section + "?"
}

// rebuild is what the steps share: the plan and the way to the world. Nothing
// of a run is kept in it; that is the journal's. It works on all nodes of the
// plan, or is a view of one of them.
type rebuild struct {
	own   []int // the nodes it works on, by their places in the plan; nil = all
	apart []int // nodes that have no machine at this point: nothing is asked of them

	p    *Plan
	cfg  *Config
	c    *RebuildConfig
	f    *RebuildFacts
	role profile
	e    *Env
	t    *transition // its ways to wait
}

func newRebuild(p *Plan, e *Env) *rebuild {
	role, _ := roleProfile(p.Config.Rebuild.Role)
	return &rebuild{p: p, cfg: &p.Config, c: p.Config.Rebuild, f: p.Facts.Rebuild, role: role, e: e, t: &transition{p: p, cfg: &p.Config, e: e}}
}

// nodes are those that this view works on, with their places in the plan.
func (r *rebuild) nodes() iter.Seq2[int, *RebuildNodeFacts] {
	return func(yield func(int, *RebuildNodeFacts) bool) {
		for i := range r.f.Nodes {
			if (r.own == nil || slices.Contains(r.own, i)) && !yield(i, &r.f.Nodes[i]) {
				return
			}
		}
	}
}

// names of the nodes that this view works on.
func (r *rebuild) names() []string {
	var out []string
	for _, n := range r.nodes() {
		out = append(out, n.Name)
	}
	return out
}

// others are the names of all nodes but one.
func (r *rebuild) others(i int) []string {
	var out []string
	for j, n := range r.f.Nodes {
		if j != i {
			out = append(out, n.Name)
		}
	}
	return out
}

// place is where a node stands in the plan.
func (r *rebuild) place(n *RebuildNodeFacts) int {
	return slices.IndexFunc(r.f.Nodes, func(o RebuildNodeFacts) bool { return o.Name == n.Name })
}

// stepID is the ID of a step for one node. Side by side one step is for all of
// them; in place each node has its own: what is 3.1-launch there is 7.2.3-launch
// here for the second one.
func (r *rebuild) stepID(i int, id string) string {
	if !r.inPlace() {
		return id
	}
	section, word, _ := strings.Cut(id, "-")
	chapter, _, _ := strings.Cut(section, ".")
	return fmt.Sprintf("7.%d.%s-%s", i+1, chapter, word)
}

// powerID is the ID of the step that shuts a node's old machine down.
func (r *rebuild) powerID(i int) string {
	if r.inPlace() {
		return r.stepID(i, "3-poweroff")
	}
	return r.sec(i) + "-poweroff"
}

// switched gives the new machine of a node that it serves as, where the run
// stands.
func (r *rebuild) switched(h *engine.History, i int) (m Machine, ok bool) {
	if !r.inPlace() {
		ok = decode(h.StepByID(r.sec(i)+"-address"), &m)
		return m, ok
	}
	var all map[string]Machine
	ok = h.StepByID(r.stepID(i, "7-keepalived")).State == engine.StepDone && decode(h.StepByID(r.stepID(i, "4.2-machines")), &all)
	return all[r.f.Nodes[i].Name], ok
}

// ---- the way to the machines ----

// fence gives a machine as package pitrix uses it. While a run is under way,
// every command on it, one that only looks too, runs under the run's lease of
// that machine.
func (r *rebuild) fence(l *link) pitrix.Host {
	if r.e.holder == nil {
		return l
	}
	return l.held()
}

func (r *rebuild) firstbox() *pitrix.Firstbox {
	return &pitrix.Firstbox{Host: r.fence(r.e.host(r.cfg.Host))}
}

func (r *rebuild) hypervisor(addr string) *pitrix.Hypervisor {
	return &pitrix.Hypervisor{Host: r.fence(r.at(addr))}
}

// shutdown tells a node's old machine to halt; its lease ends with it.
func (r *rebuild) shutdown(ctx context.Context, n *RebuildNodeFacts, want pitrix.Identity) error {
	_, l, err := r.old(n)
	if err != nil {
		return err
	}
	return (&pitrix.Node{Host: l.leaving(), Name: n.Name}).Shutdown(ctx, want)
}

func (r *rebuild) target(addr string) string { return strings.ReplaceAll(r.c.SSH, "{address}", addr) }

// at gives the link to whoever has addr, by the keys that are known for it.
func (r *rebuild) at(addr string) *link { return r.e.host(r.target(addr)) }

// reach gives the link to the machine with these host keys at addr, and to no
// other: an address goes from one machine to another in this procedure.
func (r *rebuild) reach(addr string, keys []string) (*link, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("internal error: no host key is known of the machine at %s", addr)
	}
	return r.e.reach(r.target(addr), keys)
}

// old gives the old machine of a node.
func (r *rebuild) old(n *RebuildNodeFacts) (*pitrix.Node, *link, error) {
	l, err := r.reach(n.Final, n.Old.HostKeys)
	if err != nil {
		return nil, nil, err
	}
	return &pitrix.Node{Host: r.fence(l), Name: n.Name}, l, nil
}

// oldNodes gives those as they are before a run begins.
func (r *rebuild) oldNodes(nodes []RebuildNodeFacts) []*pitrix.Node {
	var out []*pitrix.Node
	for _, n := range nodes {
		out = append(out, &pitrix.Node{Host: r.at(n.Final), Name: n.Name})
	}
	return out
}

// fresh gives the new machine of a node, at addr.
func (r *rebuild) fresh(a *engine.Act, n *RebuildNodeFacts, addr string) (*pitrix.Node, *link, Machine, error) {
	m, err := r.recorded(a, n)
	if err != nil {
		return nil, nil, m, err
	}
	l, err := r.reach(addr, m.HostKeys)
	if err != nil {
		return nil, nil, m, err
	}
	return &pitrix.Node{Host: r.fence(l), Name: n.Name}, l, m, nil
}

// recorded gives the identity of a node's new machine, as last written down.
func (r *rebuild) recorded(a *engine.Act, n *RebuildNodeFacts) (Machine, error) {
	for _, step := range []string{"4.2-machines", "3.2-machines"} {
		var all map[string]Machine
		ok, err := a.Result(r.stepID(r.place(n), step), &all)
		if err != nil {
			return Machine{}, err
		}
		if m, there := all[n.Name]; ok && there {
			return m, nil
		}
	}
	return Machine{}, fmt.Errorf("internal error: the new machine of %s is not recorded yet", n.Name)
}

// machinesAt lists the machines of a node that exist where the run stands, and
// where they are. One that is between two states is left out: it is leased when
// it is first used.
func (r *rebuild) machinesAt(h *engine.History, i int) []leaseTarget {
	n := &r.f.Nodes[i]
	final, old := r.target(n.Final), leaseTarget{target: r.target(n.Final), keys: n.Old.HostKeys}
	if h == nil {
		return []leaseTarget{old}
	}
	began := func(step string) bool {
		s := h.StepByID(step)
		return s.Attempt > 0 && s.State != engine.StepUndone
	}
	var out []leaseTarget
	if !began(r.powerID(i)) {
		out = append(out, old)
	}
	for _, step := range []string{"4.2-machines", "3.2-machines"} {
		var all map[string]Machine
		if s := h.StepByID(r.stepID(i, step)); s.State != engine.StepDone || !began(r.stepID(i, "3.1-launch")) || json.Unmarshal(s.Result, &all) != nil || len(all[n.Name].HostKeys) == 0 {
			continue
		}
		switch address := h.StepByID(r.sec(i) + "-address"); {
		case address.State == engine.StepDone:
			out = append(out, leaseTarget{target: final, keys: all[n.Name].HostKeys})
		case address.Attempt == 0:
			out = append(out, leaseTarget{target: r.target(n.Address), keys: all[n.Name].HostKeys})
		}
		break
	}
	return out
}

// machine reads what tells the machine behind a node from every other one.
func (r *rebuild) machine(ctx context.Context, node *pitrix.Node) (Machine, error) {
	id, err := node.GetIdentity(ctx)
	if err != nil {
		return Machine{}, err
	}
	var l *link
	switch h := node.Host.(type) {
	case *link:
		l = h
	case held:
		l = h.link
	default:
		return Machine{}, errors.New("internal error: a node without a link")
	}
	m := Machine{MachineID: id.MachineID, OSVersion: id.OSVersion}
	if key := l.HostKey(); key != "" {
		m.HostKeys = []string{key}
	}
	for _, mac := range id.MACs {
		m.MACs = append(m.MACs, mac.String())
	}
	m.Boot, err = hostos.GetBoot(ctx, l)
	return m, err
}

// identity is m as package pitrix compares it.
func (m Machine) identity() (pitrix.Identity, error) {
	id := pitrix.Identity{MachineID: m.MachineID}
	for _, s := range m.MACs {
		mac, err := pitrix.ParseMAC(s)
		if err != nil {
			return id, err
		}
		id.MACs = append(id.MACs, mac)
	}
	return id, nil
}

// prove sees that node is the machine m.
func (r *rebuild) prove(ctx context.Context, node *pitrix.Node, m Machine) error {
	want, err := m.identity()
	if err != nil {
		return err
	}
	got, err := node.GetIdentity(ctx)
	if err != nil {
		return err
	}
	return got.Same(want)
}

// serving gives whoever serves as the node now: its new machine once that has
// the final address, else the old one. Which of them the journal says. In place
// a new machine has that address from its launch on.
func (r *rebuild) serving(a *engine.Act, i int) (*pitrix.Node, *link, error) {
	n := &r.f.Nodes[i]
	var done json.RawMessage
	step := r.sec(i) + "-address"
	if r.inPlace() {
		step = r.stepID(i, "3.1-launch")
	}
	ok, err := a.Result(step, &done)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return r.old(n)
	}
	node, l, _, err := r.fresh(a, n, n.Final)
	return node, l, err
}

// scope is the nodes that are rebuilt and no other, for a script.
func (r *rebuild) scope(ctx context.Context) (pitrix.Scripts, pitrix.Scope, error) {
	fb := r.firstbox()
	scripts, err := fb.GetScripts(ctx)
	if err != nil {
		return scripts, pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	fleet, err := fb.ReadFleet(ctx)
	if err != nil {
		return scripts, pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	groups, err := fb.ReadGroups(ctx)
	if err != nil {
		return scripts, pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	names := r.names()
	scope, err := pitrix.NewScope(fleet, groups, strings.Join(names, ","), pitrix.Allow{Role: r.c.Role, Nodes: names})
	return scripts, scope, err
}

// ---- small things ----

// A runner is a link, or one for changes.
type runner interface {
	hostos.Host
	name() string
}

// run runs a command and gives its standard output.
func run(ctx context.Context, l runner, cmd string) (string, error) {
	var stdout, stderr bytes.Buffer
	if err := l.Run(ctx, cmd, nil, &stdout, &stderr); err != nil {
		if msg := strings.TrimSpace(stderr.String()); msg != "" {
			return stdout.String(), fmt.Errorf("host %s: %w: %s", l.name(), err, clip(msg))
		}
		return stdout.String(), fmt.Errorf("host %s: %w", l.name(), err)
	}
	return stdout.String(), nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func (r *rebuild) inPlace() bool { return r.c.Strategy == StrategyInPlace }
