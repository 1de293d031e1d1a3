package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// RebuildFacts is what Discover read for a rebuild.
type RebuildFacts struct {
	Installer string             `json:"installer"`       // version
	Nodes     []RebuildNodeFacts `json:"nodes"`           // in the order in which they are switched: the holder of the floating address last
	Packages  []string           `json:"packages"`        // in the order in which they are installed
	Scheme    string             `json:"scheme"`          // of the console
	Console   []string           `json:"console"`         // names that must answer at the floating address over HTTP
	Zones     []string           `json:"zones,omitempty"` // those that must over DNS
	Problems  []string           `json:"problems,omitempty"`
	Unasked   []string           `json:"unasked,omitempty"` // what could not be asked, and why

	ill []string // nodes that do not serve as they should
}

// RebuildNodeFacts is what is known of a node before its rebuild.
type RebuildNodeFacts struct {
	RebuildNode
	Settings  string             `json:"settings"`  // SHA-256 of its settings file, hex
	Final     string             `json:"final"`     // its management address, which the new machine takes over
	Interface string             `json:"interface"` // that has it
	FinalEIP  string             `json:"final_eip,omitempty"`
	OldHost   string             `json:"old_host"` // management address of the host of the old machine
	MAC       string             `json:"mac"`      // of the new machine
	EIPMAC    string             `json:"eip_mac,omitempty"`
	Diff      string             `json:"diff"` // of the settings, up to the switch
	Old       Machine            `json:"old"`
	UUID      string             `json:"uuid"` // of the old machine's domain
	Autostart bool               `json:"autostart"`
	Base      string             `json:"base,omitempty"`   // image that the old machine's one is laid over
	Holder    bool               `json:"holder"`           // of the floating address
	Direct    bool               `json:"direct,omitempty"` // what answers at the floating address answers at its own too
	Leaf      *LeafFacts         `json:"leaf,omitempty"`   // in a spine-leaf network
	Packages  []string           `json:"packages"`         // pitrix-* of the old machine
	Inventory *hostinv.Inventory `json:"inventory"`
}

// A Machine is what tells a machine from every other one.
type Machine struct {
	HostKeys  []string    `json:"host_keys"`
	MachineID string      `json:"machine_id"`
	MACs      []string    `json:"macs"`
	Boot      hostos.Boot `json:"boot"`
	OSVersion string      `json:"os_version"`
}

// next gives the fleet with node as its new machine has it: at its temporary
// address until the switch, or at the final one.
func (n *RebuildNodeFacts) next(old *pitrix.Settings, c *RebuildConfig, final bool) (*pitrix.Settings, error) {
	r := pitrix.Replacement{
		OSName: c.OSName, OSVersion: c.OSVersion,
		Address: n.Address, Netmask: n.Netmask, Gateway: n.Gateway,
		EIPAddress: n.EIP, EIPNetmask: n.EIPNetmask, EIPGateway: n.EIPGateway, PhysicalHost: n.PhysicalHost, Bridge: n.Bridge, EIPBridge: n.EIPBridge,
	}
	var err error
	if r.MAC, err = pitrix.ParseMAC(n.MAC); err != nil {
		return nil, err
	}
	if n.EIPMAC != "" {
		if r.EIPMAC, err = pitrix.ParseMAC(n.EIPMAC); err != nil {
			return nil, err
		}
	}
	s, err := pitrix.DeriveTemporary(old, r)
	if err != nil || !final {
		return s, err
	}
	return pitrix.DeriveFinal(s, old)
}

// discoverRebuild reads everything that a plan of a rebuild rests on.
func discoverRebuild(ctx context.Context, cfg *Config, e *Env) (*Facts, error) {
	f := &RebuildFacts{}
	r := newRebuild(&Plan{Config: *cfg, Facts: Facts{Rebuild: f}}, e)
	fb := r.firstbox()
	scripts, err := fb.GetScripts(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", cfg.Host, err)
	}
	f.Installer = scripts.Version.String()
	fleet, err := fb.ReadFleet(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", cfg.Host, err)
	}
	if m, err := fb.GetMarker(ctx); err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", cfg.Host, err)
	} else if m != nil {
		f.problem("run %s rebuilds %s there since %s; end it first", m.Run, strings.Join(m.Nodes, ", "), m.Since.Format("2006-01-02 15:04"))
	}
	for _, n := range cfg.Rebuild.Nodes {
		nf, err := r.discoverNode(ctx, f, fleet, n)
		if err != nil {
			return nil, err
		}
		if nf != nil {
			f.Nodes = append(f.Nodes, *nf)
		}
	}
	if well := len(cfg.Rebuild.Nodes) - len(f.ill); r.inPlace() && well < 2 {
		f.problem("%d of %d nodes is well, and in place the others serve alone while one is rebuilt: nobody would; repair %s first", well, len(cfg.Rebuild.Nodes), strings.Join(f.ill, ", "))
	}
	if len(f.Nodes) < len(cfg.Rebuild.Nodes) {
		return nil, &RefusedError{What: "cannot plan the rebuild on " + cfg.Host, Reasons: f.Problems}
	}
	if err := r.discoverMACs(ctx, f, fleet); err != nil {
		return nil, err
	}
	if err := r.discoverFloating(ctx, f, scripts); err != nil {
		return nil, err
	}
	r.p.Facts.Rebuild = f
	f.Packages = r.packages(f)
	why, err := r.preflight(ctx, f, fleet)
	if err != nil {
		return nil, err
	}
	f.Problems = append(f.Problems, why...)
	// Every state that the settings will pass through keeps the rules.
	for i := -1; i < len(f.Nodes); i++ {
		if err := r.checkFleet(f, fleet, i); err != nil {
			return nil, err
		}
	}
	return &Facts{Rebuild: f}, nil
}

func (f *RebuildFacts) problem(format string, args ...any) {
	if p := fmt.Sprintf(format, args...); !slices.Contains(f.Problems, p) {
		f.Problems = append(f.Problems, p)
	}
}

// sick notes a problem of a node that keeps it from carrying the service.
func (f *RebuildFacts) sick(name, format string, args ...any) {
	f.problem(format, args...)
	if !slices.Contains(f.ill, name) {
		f.ill = append(f.ill, name)
	}
}

// discoverNode reads one node, the host it stands on and the one that its new
// machine goes to. Nil: there is no such node.
func (r *rebuild) discoverNode(ctx context.Context, f *RebuildFacts, fleet pitrix.Fleet, n RebuildNode) (*RebuildNodeFacts, error) {
	s := fleet[n.Name]
	if s == nil {
		f.problem("there is no node %s in /pitrix/conf/settings", n.Name)
		return nil, nil
	}
	get := func(key string) string { v, _ := s.Get(key); return v }
	nf := &RebuildNodeFacts{
		RebuildNode: n, Settings: PlanHash(s.Bytes()),
		Final: get("mgmt_network_address"), Interface: get("mgmt_network_interface"), FinalEIP: get("eip_network_address"), OldHost: get("physical_host"), Leaf: leafFacts(n, s),
	}
	if r.inPlace() { // it has its final address from the beginning
		nf.Address, nf.PhysicalHost = nf.Final, cmp.Or(n.PhysicalHost, nf.OldHost)
	}
	roles := strings.FieldsFunc(get("role"), func(c rune) bool { return c == ',' || c == ' ' })
	switch {
	case !slices.Contains(roles, r.role.role):
		f.problem("%s has the role %q, not %s", n.Name, get("role"), r.role.role)
		return nil, nil
	case checkIPv4(nf.Final) != "" || checkIPv4(nf.OldHost) != "":
		f.problem("the settings of %s name no usable mgmt_network_address and physical_host", n.Name)
		return nil, nil
	case nf.OldHost == n.PhysicalHost && !r.inPlace():
		f.problem("%s stands on %s already: launching its new machine there would destroy the old one; choose another host", n.Name, nf.OldHost)
		return nil, nil
	}

	// The old machine.
	l := r.at(nf.Final)
	node := &pitrix.Node{Host: l, Name: n.Name}
	var err error
	if nf.Old, err = r.machine(ctx, node); err != nil {
		if r.inPlace() && ctx.Err() == nil {
			f.sick(n.Name, "%s does not answer: %v", n.Name, err)
			return nil, nil
		}
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	if nf.Inventory, err = hostinv.Collect(ctx, l, hostinv.Options{}); err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	packages, err := node.Packages(ctx)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	nf.Packages = slices.Sorted(maps.Keys(packages))
	sup, err := node.SupervisorStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	if v := sup.Verdict(); v != pitrix.VerdictRunning {
		f.sick(n.Name, "%s is not well: %s; repair it first", n.Name, sup)
	}

	if k, err := node.GetKeepalived(ctx); err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	} else if k.Active != (r.c.VIP != "") {
		f.sick(n.Name, "keepalived runs on %s: %t; name its floating address in rebuild.vip if there is one", n.Name, k.Active)
	}

	// Its domain.
	d, err := r.hypervisor(nf.OldHost).GetDomain(ctx, n.Name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("host %s: %w", nf.OldHost, err)
	case d == nil:
		f.problem("host %s, which the settings name, has no domain %s", nf.OldHost, n.Name)
	default:
		nf.UUID, nf.Autostart = d.UUID, d.Autostart
		if d.State != pitrix.DomainRunning {
			f.sick(n.Name, "domain %s on host %s is %s", n.Name, nf.OldHost, d.State)
		}
		if !slices.ContainsFunc(d.Definition.MACs(), func(m pitrix.MAC) bool { return slices.Contains(nf.Old.MACs, m.String()) }) {
			f.problem("domain %s on host %s is not the machine at %s: their MAC addresses differ", n.Name, nf.OldHost, nf.Final)
		}
		image := "/pitrix/kernels/" + n.Name + ".img"
		for _, disk := range d.Definition.Disks {
			nf.Base = cmp.Or(nf.Base, disk.Backing)
		}
		if r.inPlace() && !slices.ContainsFunc(d.Definition.Disks, func(d pitrix.DomainDisk) bool { return d.File == image }) {
			f.problem("domain %s on host %s has no disk %s, and can not be set aside as a backup", n.Name, nf.OldHost, image)
		}
		if away, err := r.hypervisor(nf.OldHost).GetDomain(ctx, pitrix.AsideName(n.Name)); err != nil {
			return nil, fmt.Errorf("host %s: %w", nf.OldHost, err)
		} else if r.inPlace() && away != nil {
			f.problem("host %s has a domain %s (%s): a rebuild in place has not come to its end, which takes that definition away; let it, then make the plan", nf.OldHost, away.Name, away.State)
		}
	}
	files, err := r.hypervisor(nf.OldHost).GetFiles(ctx, n.Name)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", nf.OldHost, err)
	}
	nf.Base = cmp.Or(nf.Base, files.Base)
	switch st := files.State(); st {
	case pitrix.ParkLive:
	case pitrix.ParkConflict:
		if !r.inPlace() || nf.PhysicalHost != nf.OldHost { // else newHost says it
			f.problem("%s", r.backupInTheWay(nf.OldHost, n.Name))
		}
	default:
		f.problem("the files of %s on host %s are not as of a running machine (%s)", n.Name, nf.OldHost, st)
	}

	// Where the new machine goes.
	why, err := r.newHost(ctx, nf, s)
	if err != nil {
		return nil, err
	}
	f.Problems = append(f.Problems, why...)
	if !r.inPlace() {
		used, err := r.inUse(ctx, node, nf)
		if err != nil {
			return nil, err
		}
		f.Problems = append(f.Problems, used...)
	}
	return nf, nil
}

// newHost says what keeps a new machine of the node from being made on its host.
func (r *rebuild) newHost(ctx context.Context, n *RebuildNodeFacts, s *pitrix.Settings) ([]string, error) {
	var out []string
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("host %s: ", n.PhysicalHost)+fmt.Sprintf(format, args...))
	}
	get := func(key string) string { v, _ := s.Get(key); return v }
	hv := r.hypervisor(n.PhysicalHost)
	c, err := hv.GetCapacity(ctx)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", n.PhysicalHost, err)
	}
	// Where the new machine is made in the old one's place, the old one is still
	// there until its turn, and leaves its memory then.
	stands := r.inPlace() && n.PhysicalHost == n.OldHost && !slices.Contains(r.apart, r.place(n))
	if stands {
		c.AvailableKiB += atoi(get("memory_size")) * 1024
	}
	for _, lack := range lacks(c, n.Name, atoi(get("memory_size")), cmp.Or(n.Bridge, get("physical_host_network_interface")), cmp.Or(n.EIPBridge, get("physical_host_eip_network_interface"))) {
		say("%s", lack)
	}
	d, err := hv.GetDomain(ctx, n.Name)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", n.PhysicalHost, err)
	}
	if d != nil && !(stands && d.UUID == n.UUID) {
		say("a domain %s exists already (%s); look whose it is", n.Name, d.State)
	}
	files, err := hv.GetFiles(ctx, n.Name)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", n.PhysicalHost, err)
	}
	switch st := files.State(); {
	case stands && st == pitrix.ParkConflict:
		out = append(out, r.backupInTheWay(n.PhysicalHost, n.Name))
	case st != pitrix.ParkNone && st != pitrix.Parked && !(stands && st == pitrix.ParkLive):
		say("files of a %s are in /pitrix/kernels (%s); move them away", n.Name, st)
	}
	return out, nil
}

// backupInTheWay says that a node was rebuilt before from this host, and how
// there can be another backup.
func (r *rebuild) backupInTheWay(host, node string) string {
	return fmt.Sprintf("host %s has an earlier backup of %s, which the next one would overwrite; move it away there, as root: %s", host, node, r.hypervisor(host).MoveBackup(node))
}

// inUse says which of the temporary addresses of the node answer already.
func (r *rebuild) inUse(ctx context.Context, from *pitrix.Node, n *RebuildNodeFacts) ([]string, error) {
	a, err := netip.ParseAddr(n.Address)
	if err != nil {
		return nil, err
	}
	who, err := from.ProbeAddress(ctx, a, n.Interface)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", n.Name, err)
	}
	if len(who) > 0 {
		return []string{fmt.Sprintf("temporary address %s of %s is in use by %s; choose another one", a, n.Name, who[0])}, nil
	}
	return nil, nil
}

// discoverMACs gives every new machine its MAC addresses: none that settings,
// their backups, or any domain of any host has.
func (r *rebuild) discoverMACs(ctx context.Context, f *RebuildFacts, fleet pitrix.Fleet) error {
	taken, err := r.takenMACs(ctx, f, fleet)
	if err != nil {
		return err
	}
	next := func(place string) (string, error) {
		m, err := pitrix.MACGen{}.Next(taken)
		taken[m] = place
		return m.String(), err
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.MAC, err = next(n.Name + " of this plan"); err != nil {
			return err
		}
		if n.FinalEIP != "" {
			if n.EIPMAC, err = next(n.Name + " of this plan"); err != nil {
				return err
			}
		}
		s, err := n.next(fleet[n.Name], r.c, false)
		if err != nil {
			f.problem("settings of %s: %v", n.Name, err)
			continue
		}
		n.Diff = s.Diff()
	}
	return nil
}

// takenMACs lists every MAC address that somebody has or had.
func (r *rebuild) takenMACs(ctx context.Context, f *RebuildFacts, fleet pitrix.Fleet) (map[pitrix.MAC]string, error) {
	taken := pitrix.TakenMACs(fleet)
	backups, err := run(ctx, r.e.host(r.cfg.Host), `for d in /pitrix/conf/settings.*/; do cat "$d"* 2>/dev/null; done; :`)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	pitrix.AddMACs(taken, "a backup of the settings", []byte(backups))
	for _, name := range slices.Sorted(maps.Keys(fleet)) {
		get := func(key string) string { v, _ := fleet[name].Get(key); return v }
		addr := get("mgmt_network_address")
		if get("physical_host_network_interface") != "" || checkIPv4(addr) != "" {
			continue
		}
		if err := r.domainMACs(ctx, addr, taken); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			f.Unasked = append(f.Unasked, fmt.Sprintf("which MAC addresses the domains of host %s have: %v", addr, err))
		}
	}
	return taken, nil
}

func (r *rebuild) domainMACs(ctx context.Context, addr string, taken map[pitrix.MAC]string) error {
	hv := r.hypervisor(addr)
	all, err := hv.ListDomains(ctx)
	if err != nil {
		return err
	}
	for _, known := range all {
		d, err := hv.GetDomain(ctx, known.Name)
		if err != nil {
			return err
		}
		if d != nil {
			pitrix.AddMACs(taken, "domain "+d.Name+" on host "+addr, d.XML)
		}
	}
	return nil
}

// discoverFloating finds the holder of the floating address, puts it last, and
// learns what must answer there.
func (r *rebuild) discoverFloating(ctx context.Context, f *RebuildFacts, scripts pitrix.Scripts) error {
	f.Scheme = "http"
	if r.c.VIP == "" {
		return nil
	}
	holder, err := r.holder(ctx, r.oldNodes(f.Nodes)...)
	var vip *pitrix.VIPError
	switch {
	case errors.As(err, &vip):
		f.problem("%v", err)
	case err != nil:
		return err
	}
	for i := range f.Nodes {
		f.Nodes[i].Holder = f.Nodes[i].Name == holder
	}
	slices.SortStableFunc(f.Nodes, func(a, b RebuildNodeFacts) int {
		switch {
		case a.Holder == b.Holder:
			return 0
		case a.Holder:
			return 1
		}
		return -1
	})
	return r.discoverAnswers(ctx, f, scripts)
}

// packages lists what is installed on the new machines, in order: the role's
// own, and those of the optional ones that an old machine carries.
func (r *rebuild) packages(f *RebuildFacts) []string {
	out := slices.Clone(r.role.packages)
	if r.c.Sub && len(r.role.subPackages) > 0 {
		out = slices.Clone(r.role.subPackages)
	}
	var more []string
	for _, n := range f.Nodes {
		for _, p := range n.Packages {
			if slices.ContainsFunc(r.role.optional, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) && !slices.Contains(out, p) {
				more = append(more, p)
			}
		}
	}
	slices.Sort(more)
	return append(out, slices.Compact(more)...)
}

// checkFleet holds a state of the settings against the rules: the nodes up to
// and including the one with index switched have their final addresses.
func (r *rebuild) checkFleet(f *RebuildFacts, old pitrix.Fleet, switched int) error {
	next, phases, err := r.fleetAt(f, old, switched)
	if err != nil {
		f.problem("%v", err)
		return nil
	}
	for _, p := range pitrix.CheckRebuild(old, next, phases, pitrix.TakenMACs(old)) {
		f.problem("%s", p)
	}
	return nil
}

// fleetAt derives the settings of all nodes from the old ones.
func (r *rebuild) fleetAt(f *RebuildFacts, old pitrix.Fleet, switched int) (pitrix.Fleet, map[string]pitrix.Phase, error) {
	next, phases := maps.Clone(old), map[string]pitrix.Phase{}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if r.inPlace() && i > switched {
			continue // nothing of it has been touched
		}
		s, err := n.next(old[n.Name], r.c, i <= switched)
		if err != nil {
			return nil, nil, fmt.Errorf("settings of %s: %w", n.Name, err)
		}
		next[n.Name], phases[n.Name] = s, pitrix.PhaseBuild
		if err := n.leafRoutes(next, nil, i > switched); err != nil {
			return nil, nil, err
		}
		if i <= switched {
			phases[n.Name] = pitrix.PhaseSwitch
		}
		if r.inPlace() {
			phases[n.Name] = pitrix.PhaseInPlace
		}
	}
	return next, phases, nil
}
