package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
)

// switchFlags say which two VMs change places.
type switchFlags struct {
	temporary, oldHost, vip, ssh string
	timeout, poll                time.Duration
}

func newPitrixSwitch(a *app, p *pitrixFlags) *cobra.Command {
	x, f := &execution{}, &switchFlags{}
	cmd := &cobra.Command{
		Use:   "switch NODE",
		Short: a.t("give the new VM of one node the node's final address, in place of the old VM", "切换单个节点：新虚机接管正式地址，旧虚机关机"),
		Long: a.t(`Switch is the end of a rebuild by hand: NODE's settings on the firstbox have the
final address again, 'build global' has been run, the new VM runs at its temporary
address beside the old one. It checks all of that and both machines' identity,
shuts the old VM down, and gives the new one the address with a reboot; the new VM
takes the edit back by itself unless it answers at the final address.
What was cut off goes on when the command is run again. While a rebuild is under
way ('upgradectl apply'), it is refused: that run does it. Before it, compare
haproxy.cfg and rc.local ('pitrix compare'), and switch the holder of the floating
address last.`,
			`手工重建的最后一步：firstbox 上 NODE 的 settings 已写回正式地址，已执行
build global，新虚机以临时地址与旧虚机并存。命令核对以上各项与两台虚机的身份，
关闭旧虚机，新虚机重启后接管正式地址；若无法在正式地址应答，新虚机会自行还原。
中断后重新执行即可继续。有重建正在进行（upgradectl apply）时拒绝执行。切换前请先
对比 haproxy.cfg 与 rc.local（pitrix compare），持有浮动地址的节点最后切换。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.parse(a, args[0])
			if err != nil {
				return err
			}
			return p.with(cmd.Context(), a, func(b *pitrixBox) (err error) {
				s.a, s.box = a, b
				if err := s.connect(cmd.Context(), &p.ssh); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, s.close()) }()
				if err := s.look(cmd.Context()); err != nil {
					return err
				}
				return x.change(a, s.lines(), func() error { return s.do(cmd.Context()) })
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.temporary, "temporary", "", a.t("management address that the new VM has now", "新虚机目前的管理地址"))
	fl.StringVar(&f.oldHost, "old-host", "", a.t("management address of the physical host of the old VM", "旧虚机所在物理机的管理地址"))
	fl.StringVar(&f.vip, "vip", "", a.t("floating address of the role, if it has one", "该角色的浮动地址（如有）"))
	fl.StringVar(&f.ssh, "ssh", "{address}", a.t("SSH target of nodes and physical hosts; {address} is replaced", "节点与物理机的 SSH 目标；{address} 会被替换"))
	fl.DurationVar(&f.timeout, "timeout", 30*time.Minute, a.t("longest wait for a shutdown, a boot or the programs", "等待关机、启动或程序就绪的最长时间"))
	fl.DurationVar(&f.poll, "poll", 3*time.Second, a.t("time between two looks", "两次查看的间隔"))
	for _, name := range []string{"temporary", "old-host"} {
		_ = cmd.MarkFlagRequired(name) // fails for a flag that is not there
	}
	x.flag(a, cmd)
	return cmd
}

// nodeSwitch is the switch of one node: what was found, and the ways there.
type nodeSwitch struct {
	a    *app
	box  *pitrixBox
	name string
	key  string // of the edit on the new VM
	ssh  string

	timeout, poll time.Duration

	temporary, oldHost, newHost netip.Addr
	final                       netip.Addr
	others                      []netip.Addr // that are announced where they are held: EIP, VIP
	vip                         netip.Addr
	settings                    *pitrix.Settings
	edits                       []pitrix.FileEdit

	known, pinned *hostinv.Dialer // by known_hosts; the new VM, by its scanned key
	conns         []*hostinv.Conn

	oldHV      *pitrix.Hypervisor
	oldDomain  *pitrix.Domain
	old        *pitrix.Node // nil: it is shut off
	oldID      pitrix.Identity
	fresh      *pitrix.Node
	freshConn  *hostinv.Conn
	freshID    pitrix.Identity
	switched   bool // the new VM is at the final address already
	begun      bool // its files were edited, but it was not rebooted
	mgmtDevice string
	peers      []*pitrix.Node
}

func (f *switchFlags) parse(a *app, name string) (*nodeSwitch, error) {
	s := &nodeSwitch{name: name, key: "switch-" + strings.ToLower(name), ssh: f.ssh, timeout: f.timeout, poll: f.poll}
	for flag, x := range map[string]struct {
		text string
		to   *netip.Addr
	}{"temporary": {f.temporary, &s.temporary}, "old-host": {f.oldHost, &s.oldHost}, "vip": {f.vip, &s.vip}} {
		if x.text == "" && flag == "vip" {
			continue
		}
		addr, err := netip.ParseAddr(x.text)
		if err != nil || !addr.Is4() {
			return nil, usagef(a.t("--%s %q: it is an IPv4 address", "--%s %q：应为 IPv4 地址"), flag, x.text)
		}
		*x.to = addr
	}
	switch {
	case !strings.Contains(f.ssh, "{address}"):
		return nil, usagef(a.t("--ssh %q does not hold {address}, which stands for a machine's address", "--ssh %q 缺少代表地址的 {address}"), f.ssh)
	case f.timeout <= 0 || f.poll <= 0:
		return nil, usagef(a.t("--timeout and --poll are longer than 0", "--timeout 与 --poll 必须大于 0"))
	}
	return s, nil
}

// connect makes the two ways to machines: an address goes from one to another.
func (s *nodeSwitch) connect(ctx context.Context, flags *sshFlags) error {
	cfg, err := flags.config(ctx, s.a)
	if err != nil {
		return err
	}
	if s.known, err = hostinv.NewDialer(cfg); err != nil {
		return err
	}
	s.pinned, err = hostinv.NewDialer(cfg)
	return err
}

func (s *nodeSwitch) close() error {
	var errs []error
	for _, c := range s.conns {
		_ = c.Close() // a machine that went off has closed it
	}
	for _, d := range []*hostinv.Dialer{s.known, s.pinned} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *nodeSwitch) dial(ctx context.Context, d *hostinv.Dialer, addr netip.Addr) (*hostinv.Conn, error) {
	c, err := d.Dial(ctx, strings.ReplaceAll(s.ssh, "{address}", addr.String()))
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

// refuseSwitch says that the node is not at the point where it can be switched.
func refuseSwitch(format string, args ...any) error {
	return &exitError{code: exitRefused, err: fmt.Errorf("not switched, nothing was changed: "+format, args...)}
}

// look finds out where the switch stands and refuses what is not right. It
// changes nothing.
func (s *nodeSwitch) look(ctx context.Context) error {
	if err := s.lookSettings(ctx); err != nil {
		return err
	}
	if err := s.lookDomains(ctx); err != nil {
		return err
	}
	if s.switched {
		return nil
	}
	if err := s.lookOld(ctx); err != nil {
		return err
	}
	return s.lookFresh(ctx)
}

// lookSettings holds the firstbox against the command line: no rebuild under
// way, final settings, and a package that was built from them.
func (s *nodeSwitch) lookSettings(ctx context.Context) error {
	m, err := s.box.GetMarker(ctx)
	if err != nil {
		return err
	}
	if m != nil {
		e := &pitrix.MarkedError{Marker: *m}
		if !slices.Contains(m.Nodes, s.name) {
			e.Outside = []string{s.name}
		}
		return e
	}
	s.settings = s.box.fleet[s.name]
	if s.settings == nil {
		return refuseSwitch("there is no node %s in the settings", s.name)
	}
	if bad := pitrix.CheckFleet(s.box.fleet); len(bad) > 0 {
		return pitrix.Problems(bad)
	}
	get := func(key string) string { v, _ := s.settings.Get(key); return v }
	if get("physical_host_network_interface") == "" {
		return refuseSwitch("%s is no VM", s.name)
	}
	if s.final, err = netip.ParseAddr(get("mgmt_network_address")); err != nil {
		return err
	}
	if s.newHost, err = netip.ParseAddr(get("physical_host")); err != nil {
		return err
	}
	s.mgmtDevice = get("mgmt_network_interface")
	if eip := get("eip_network_address"); eip != "" {
		addr, err := netip.ParseAddr(eip)
		if err != nil {
			return err
		}
		s.others = append(s.others, addr)
	}
	if s.vip.IsValid() {
		s.others = append(s.others, s.vip)
	}
	switch {
	case s.final == s.temporary:
		return refuseSwitch("the settings of %s have the temporary address %s; write the final ones first ('pitrix settings render --final')", s.name, s.final)
	case s.newHost == s.oldHost:
		return refuseSwitch("the settings of %s name the old host %s, so there is no VM beside the old one", s.name, s.oldHost)
	}
	for _, name := range slices.Sorted(maps.Keys(s.box.fleet)) {
		if v, _ := s.box.fleet[name].Get("mgmt_network_address"); v == s.temporary.String() {
			return refuseSwitch("the temporary address %s is that of %s", s.temporary, name)
		}
	}
	deb, lines, err := s.box.BuiltHosts(ctx)
	if err != nil {
		return err
	}
	hosts, err := pitrix.ParseHosts(deb, lines)
	if err != nil {
		return err
	}
	if bad := pitrix.CheckHosts(hosts, s.box.fleet, s.name); len(bad) > 0 {
		return refuseSwitch("%s was built from other settings; run 'pitrix build global' first: %w", deb, pitrix.Problems(bad))
	}
	return nil
}

// lookDomains asks both hosts for the VM of that name and finds the new one.
func (s *nodeSwitch) lookDomains(ctx context.Context) error {
	domain := func(addr netip.Addr) (*pitrix.Hypervisor, *pitrix.Domain, error) {
		c, err := s.dial(ctx, s.known, addr)
		if err != nil {
			return nil, nil, fmt.Errorf("physical host %s: %w", addr, err)
		}
		h := &pitrix.Hypervisor{Host: c, Name: addr.String()}
		d, err := h.GetDomain(ctx, s.name)
		if err == nil && d == nil {
			err = refuseSwitch("host %s has no VM %s", addr, s.name)
		}
		return h, d, err
	}
	var err error
	if s.oldHV, s.oldDomain, err = domain(s.oldHost); err != nil {
		return err
	}
	newHV, newDomain, err := domain(s.newHost)
	if err != nil {
		return err
	}
	text, _ := s.settings.Get("mgmt_network_mac_address")
	mac, err := pitrix.ParseMAC(text)
	if err != nil {
		return fmt.Errorf("%s: mgmt_network_mac_address: %w", s.name, err)
	}
	macs := newDomain.Definition.MACs()
	switch {
	case !slices.Contains(macs, mac):
		return refuseSwitch("the VM on %s has not the MAC %s of the settings", s.newHost, mac)
	case slices.Contains(s.oldDomain.Definition.MACs(), mac):
		return refuseSwitch("the VM on the old host %s has the MAC %s of the new one", s.oldHost, mac)
	case newDomain.State != pitrix.DomainRunning:
		return refuseSwitch("the new VM on %s is %s", s.newHost, newDomain.State)
	}
	// Its host key is read by the host that carries it, over its own bridge.
	addr := s.temporary
	key, err := newHV.ScanHostKey(ctx, s.temporary.String())
	if err != nil {
		var again error
		if s.oldDomain.State != pitrix.DomainShutOff {
			return refuseSwitch("the new VM does not answer at %s: %w", s.temporary, err)
		}
		if key, again = newHV.ScanHostKey(ctx, s.final.String()); again != nil {
			return refuseSwitch("the new VM answers neither at %s nor at %s: %w", s.temporary, s.final, errors.Join(err, again))
		}
		addr, s.switched = s.final, true
	}
	for _, at := range []netip.Addr{s.temporary, s.final} {
		if err := s.pinned.Pin(at.String(), []string{key}); err != nil {
			return err
		}
	}
	if err := s.meet(ctx, addr); err != nil {
		return err
	}
	id, err := s.fresh.GetIdentity(ctx)
	if err != nil {
		return err
	}
	if err := id.Same(pitrix.Identity{HostKey: key, MACs: macs, Hostname: "the new " + s.name}); err != nil {
		return err
	}
	s.freshID = pitrix.Identity{HostKey: key, MachineID: id.MachineID, MACs: macs, BootID: id.BootID, Hostname: "the new " + s.name}
	return nil
}

// meet connects to the new VM, and to no other, at an address.
func (s *nodeSwitch) meet(ctx context.Context, addr netip.Addr) error {
	c, err := s.dial(ctx, s.pinned, addr)
	if err != nil {
		return fmt.Errorf("the new %s: %w", s.name, err)
	}
	s.freshConn, s.fresh = c, &pitrix.Node{Host: c, Name: "the new " + s.name}
	return nil
}

// lookOld proves the old VM, while it runs, and that somebody else can carry
// the floating address.
func (s *nodeSwitch) lookOld(ctx context.Context) error {
	switch s.oldDomain.State {
	case pitrix.DomainShutOff:
		return nil
	case pitrix.DomainRunning:
	default:
		return refuseSwitch("the old VM on %s is %s", s.oldHost, s.oldDomain.State)
	}
	c, err := s.dial(ctx, s.known, s.final)
	if err != nil {
		return fmt.Errorf("the old %s: %w", s.name, err)
	}
	old := &pitrix.Node{Host: c, Name: "the old " + s.name}
	id, err := old.GetIdentity(ctx)
	if err != nil {
		return err
	}
	s.oldID = pitrix.Identity{HostKey: c.HostKey(), MachineID: id.MachineID, MACs: s.oldDomain.Definition.MACs(), BootID: id.BootID, Hostname: "the old " + s.name}
	if err := id.Same(s.oldID); err != nil {
		return err
	}
	if id.MachineID == s.freshID.MachineID && id.MachineID != "" {
		return refuseSwitch("both VMs have the machine ID %s", id.MachineID)
	}
	s.old = old
	return s.lookPeers(ctx)
}

// lookPeers sees that another node of the role has keepalived and programs
// running, before the floating address is given up.
func (s *nodeSwitch) lookPeers(ctx context.Context) error {
	if !s.vip.IsValid() {
		if k, err := s.old.GetKeepalived(ctx); err != nil {
			return err
		} else if k.Active {
			return refuseSwitch("keepalived runs on the old %s; name the floating address with --vip", s.name)
		}
		return nil
	}
	role, _ := s.settings.Get("role")
	for _, name := range slices.Sorted(maps.Keys(s.box.fleet)) {
		other := s.box.fleet[name]
		r, _ := other.Get("role")
		zone, _ := other.Get("zone_id")
		own, _ := s.settings.Get("zone_id")
		if name == s.name || r != role || zone != own {
			continue
		}
		text, _ := other.Get("mgmt_network_address")
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		c, err := s.dial(ctx, s.known, addr)
		if err != nil {
			return fmt.Errorf("%s, which has to carry %s meanwhile: %w", name, s.vip, err)
		}
		peer := &pitrix.Node{Host: c, Name: name}
		k, err := peer.GetKeepalived(ctx)
		if err != nil {
			return err
		}
		sup, err := peer.SupervisorStatus(ctx)
		if err != nil {
			return err
		}
		if !k.Active || sup.Verdict() != pitrix.VerdictRunning {
			return refuseSwitch("%s cannot carry %s meanwhile: keepalived runs: %t; %s", name, s.vip, k.Active, sup)
		}
		s.peers = append(s.peers, peer)
	}
	if len(s.peers) == 0 {
		return nil // nobody can take over, and nobody has to
	}
	_, err := pitrix.VIPHolder(ctx, s.vip, append([]*pitrix.Node{s.old}, s.peers...)...)
	return err
}

// lookFresh holds the new VM against what it has to be: installed, well, at its
// temporary address by all of its files, and nobody strange has the final one.
func (s *nodeSwitch) lookFresh(ctx context.Context) error {
	st, err := s.fresh.GetEdit(ctx, s.key)
	if err != nil {
		return err
	}
	switch st.Phase {
	case pitrix.EditBegun, pitrix.EditPending:
		s.begun = true // what there is to edit is seen when it was taken back
		return nil
	case pitrix.EditReverting, pitrix.EditConfirmed:
		return refuseSwitch("the edit %s of %s, at its temporary address, is %s; look at it, and run the command again", s.key, s.fresh.Name, st.Phase)
	}
	if err := s.planEdits(ctx); err != nil {
		return err
	}
	sup, err := s.fresh.SupervisorStatus(ctx)
	if err != nil {
		return err
	}
	// The install line stops them, so one that was cut off there is well too.
	if s.old != nil && sup.Verdict() != pitrix.VerdictRunning {
		return refuseSwitch("%s is not well: %s", s.fresh.Name, sup)
	}
	var macs []pitrix.MAC
	if s.old != nil {
		macs = s.oldID.MACs
	}
	if err := s.answeredBy(ctx, macs); err != nil {
		return refuseSwitch("%w", err)
	}
	return nil
}

// planEdits makes the edits of the new VM's files, which must all be those of
// its temporary address.
func (s *nodeSwitch) planEdits(ctx context.Context) error {
	src, err := s.fresh.Host.ReadFile(ctx, pitrix.NodeSettingsFile)
	if err != nil {
		return fmt.Errorf("%s: %w", s.fresh.Name, err)
	}
	temporary, err := pitrix.Parse(pitrix.NodeSettingsFile, src)
	if err != nil {
		return err
	}
	if v, _ := temporary.Get("mgmt_network_address"); v != s.temporary.String() {
		return refuseSwitch("%s of %s has the address %s, not %s", pitrix.NodeSettingsFile, s.fresh.Name, v, s.temporary)
	}
	s.edits, err = s.fresh.AddressEdits(ctx, temporary, s.settings)
	return err
}

// answeredBy asks from the new VM who has the final address: only a machine
// with one of macs may.
func (s *nodeSwitch) answeredBy(ctx context.Context, macs []pitrix.MAC) error {
	who, err := s.fresh.ProbeAddress(ctx, s.final, s.mgmtDevice)
	if err != nil {
		return err
	}
	for _, m := range who {
		if !slices.Contains(macs, m) {
			return fmt.Errorf("%s is answered by %s, which is not the old %s: two machines would have one address", s.final, m, s.name)
		}
	}
	return nil
}

// lines says what is left to do.
func (s *nodeSwitch) lines() []string {
	id := func(i pitrix.Identity) string {
		var macs []string
		for _, m := range i.MACs {
			macs = append(macs, m.String())
		}
		return "machine-id " + cmp.Or(i.MachineID, "-") + ", MAC " + strings.Join(macs, " ")
	}
	var out []string
	if s.old != nil {
		out = append(out, fmt.Sprintf("# old %s: %s on %s, %s", s.name, s.final, s.oldHost, id(s.oldID)),
			"service keepalived stop", "supervisorctl stop all", "shutdown -h now")
	}
	if s.oldDomain.Autostart {
		out = append(out, fmt.Sprintf("# host %s", s.oldHost), "virsh autostart --disable "+s.name)
	}
	where := s.temporary
	if s.switched {
		where = s.final
	}
	out = append(out, fmt.Sprintf("# new %s: %s on %s, %s", s.name, where, s.newHost, id(s.freshID)))
	if !s.switched {
		out = append(out, strings.Split(pitrix.InstallHosts(), "\n")...)
		for _, name := range pitrix.AddressFiles() {
			out = append(out, fmt.Sprintf("edit %s: %s → %s", name, s.temporary, s.final))
		}
		out = append(out, fmt.Sprintf("# reverted by itself after %d minutes unless it answers at %s", s.minutes(), s.final), "shutdown -r now")
	}
	for _, addr := range append([]netip.Addr{s.final}, s.others...) {
		out = append(out, fmt.Sprintf("arping -U, arping -A: %s", addr))
	}
	return out
}

// minutes is how long the new VM waits for us: a reboot, and somebody who has
// to run the command again.
func (s *nodeSwitch) minutes() int { return int(math.Ceil(s.timeout.Minutes())) + 10 }

func (s *nodeSwitch) do(ctx context.Context) error {
	if s.old != nil {
		if err := s.stopOld(ctx); err != nil {
			return err
		}
	}
	// A host that reboots would bring it back beside its successor.
	if err := s.oldHV.SetAutostart(ctx, s.name, s.oldDomain.UUID, false); err != nil {
		return err
	}
	if !s.switched {
		if err := s.takeAddress(ctx); err != nil {
			return err
		}
	}
	return s.confirm(ctx)
}

// within bounds a wait.
func (s *nodeSwitch) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

// stopOld hands the floating address over and shuts the old VM down.
func (s *nodeSwitch) stopOld(ctx context.Context) error {
	s.a.progress(s.a.t("stopping the old %s", "正在关闭旧 %s"), s.name)
	if err := s.old.StopKeepalived(ctx, s.oldID); err != nil {
		return err
	}
	if len(s.peers) > 0 {
		if err := s.waitHolder(ctx); err != nil {
			return err
		}
	}
	if err := s.old.StopPrograms(ctx, s.oldID); err != nil {
		return err
	}
	// Should it ever come back, whoever knows its successor's MAC must learn
	// its own.
	if err := s.old.AnnounceAtBoot(ctx, s.key, s.final); err != nil {
		return err
	}
	if err := s.old.Shutdown(ctx, s.oldID); err != nil && !answerLost(ctx, err) {
		return err
	}
	wait, cancel := s.within(ctx)
	defer cancel()
	return s.oldHV.WaitState(wait, s.name, pitrix.DomainShutOff, s.poll)
}

// answerLost tells that it is not known whether a machine has done what it was
// told: one that goes down can take the answer with it. Its host, or the wait
// for it, says then what has become of it.
func answerLost(ctx context.Context, err error) bool {
	var status interface{ ExitStatus() int }
	var other *pitrix.IdentityError
	return ctx.Err() == nil && !errors.As(err, &status) && !errors.As(err, &other)
}

// waitHolder waits until one of the peers has the floating address.
func (s *nodeSwitch) waitHolder(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return s.every(wait, func() (bool, error) {
		_, err := pitrix.VIPHolder(wait, s.vip, s.peers...)
		if err != nil {
			return false, fmt.Errorf("nobody took %s over when keepalived was stopped on the old %s; start it there again: %w", s.vip, s.name, err)
		}
		return true, nil
	})
}

// every asks until the answer is yes; when the time is over, the last error is
// the answer. One of an exitError ends it at once.
func (s *nodeSwitch) every(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(s.poll)
	defer tick.Stop()
	for {
		done, err := ask()
		var e *exitError
		if done || errors.As(err, &e) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// takeAddress gives the new VM the address, to be confirmed.
func (s *nodeSwitch) takeAddress(ctx context.Context) error {
	s.a.progress(s.a.t("installing pitrix-hosts on the new %s", "正在新 %s 上安装 pitrix-hosts"), s.name)
	if err := s.fresh.InstallHosts(ctx, s.freshID); err != nil {
		return err
	}
	if err := s.fresh.CheckHostsFile(ctx, s.name, s.final); err != nil {
		return err
	}
	if err := s.answeredBy(ctx, nil); err != nil {
		return err
	}
	if err := s.clearEdit(ctx); err != nil {
		return err
	}
	if err := s.fresh.BeginEdit(ctx, pitrix.NetworkEdit{Key: s.key, Minutes: s.minutes(), Files: s.edits}, s.freshID); err != nil {
		return err
	}
	own := append([]netip.Addr{s.final}, s.others...)
	if s.vip.IsValid() {
		own = own[:len(own)-1] // keepalived announces it
	}
	if err := s.fresh.AnnounceAtBoot(ctx, s.key, own...); err != nil {
		return err
	}
	s.a.progress(s.a.t("rebooting the new %s into %s", "新 %s 重启并启用 %s"), s.name, s.final)
	if err := s.fresh.Reboot(ctx, s.freshID); err != nil && !answerLost(ctx, err) {
		return err
	}
	_ = s.freshConn.Close() // it goes with the reboot
	return s.waitFinal(ctx)
}

// clearEdit takes an edit back that was cut off before its reboot, and removes
// what an earlier one has left.
func (s *nodeSwitch) clearEdit(ctx context.Context) error {
	if s.begun {
		if err := s.fresh.RevertEdit(ctx, s.key); err != nil {
			return err
		}
	}
	if err := s.fresh.RemoveEdit(ctx, s.key); err != nil {
		return err
	}
	if s.begun {
		return s.planEdits(ctx)
	}
	return nil
}

// waitFinal waits for the new VM at the final address.
func (s *nodeSwitch) waitFinal(ctx context.Context) error {
	wait, cancel := s.within(ctx)
	defer cancel()
	return s.every(wait, func() (bool, error) {
		ask, cancel := context.WithTimeout(wait, 20*time.Second)
		defer cancel()
		err := s.meet(ask, s.final)
		if err == nil {
			s.switched = true
			return true, nil
		}
		if s.meet(ask, s.temporary) == nil {
			if id, e := s.fresh.GetIdentity(ask); e == nil && id.BootID != s.freshID.BootID {
				return false, &exitError{code: exitFailed, err: fmt.Errorf("the new %s came back at its temporary address %s: its files were reverted, since nobody had reached it at %s; look at its network and run the command again", s.name, s.temporary, s.final)}
			}
		}
		return false, fmt.Errorf("the new %s does not answer at %s; it goes back to %s by itself after %d minutes: %w", s.name, s.final, s.temporary, s.minutes(), err)
	})
}

// confirm ends the revert, tells the neighbours, and sees that the node is well
// in its new place.
func (s *nodeSwitch) confirm(ctx context.Context) error {
	want := s.freshID
	want.BootID = ""
	id, err := s.fresh.GetIdentity(ctx)
	if err != nil {
		return err
	}
	if err := id.Same(want); err != nil {
		return err
	}
	st, err := s.fresh.GetEdit(ctx, s.key)
	if err != nil {
		return err
	}
	if st.Phase != pitrix.EditNone {
		if err := s.fresh.ConfirmEdit(ctx, s.key); err != nil {
			return err
		}
	}
	if err := s.fresh.CancelAnnounce(ctx, s.key); err != nil {
		return err
	}
	if err := s.fresh.AnnounceHeld(ctx, s.final, s.others...); err != nil {
		return err
	}
	if err := s.fresh.CheckHostsFile(ctx, s.name, s.final); err != nil {
		return err
	}
	if err := s.fresh.CheckAddressFiles(ctx, s.temporary); err != nil {
		return err
	}
	wait, cancel := s.within(ctx)
	defer cancel()
	if _, err := s.fresh.WaitPrograms(wait, s.poll); err != nil {
		return err
	}
	k, err := s.fresh.GetKeepalived(ctx)
	if err == nil && k.Held {
		s.a.progress(s.a.t("keepalived of the new %s is still held down; release it when haproxy.cfg compares equal: systemctl unmask keepalived; service keepalived start", "新 %s 的 keepalived 仍被禁止启动；haproxy.cfg 对比一致后执行：systemctl unmask keepalived; service keepalived start"), s.name)
	}
	if err == nil && st.Phase != pitrix.EditNone {
		err = s.fresh.RemoveEdit(ctx, s.key)
	}
	return err
}
