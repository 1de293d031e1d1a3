package firstbox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// of is the machine that a program runs on.
func (s *Site) of(p *host.Proc) *Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHost[p.Host]
}

// release is the Ubuntu release of a machine, "14.04" or "16.04".
func (m *Machine) release() string {
	data, _ := m.Host.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_ID="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// isNew reports whether a VM was made by launch_vms, and not before the site
// was looked at first.
func (m *Machine) isNew() bool { return strings.Contains(m.label, "#") }

// common are the programs of every machine of a site.
func (s *Site) common() map[string]host.Command {
	return map[string]host.Command{
		"ip": s.cmdIP, "ping": s.cmdPing, "arping": s.cmdArping, "getent": s.cmdGetent,
		"ifup": s.cmdIfup, "ifdown": s.cmdIfdown,
		"ssh": s.cmdSSH, "ssh-keygen": s.cmdSSHKeygen, "ssh-keyscan": s.cmdSSHKeyscan, "curl": s.cmdCurl,
		"shutdown": s.cmdShutdown, "reboot": s.cmdShutdown, "poweroff": s.cmdShutdown, "halt": s.cmdShutdown,
		"dpkg-query": s.cmdDpkgQuery, "service": s.cmdService,
		"pgrep":         s.cmdPgrep,
		"iptables-save": s.cmdIptablesSave, "ip6tables-save": s.cmdIptablesSave, "df": s.cmdDf, "free": s.cmdFree,
	}
}

// nodePrograms are those of VMs besides.
func (s *Site) nodePrograms() map[string]host.Command {
	all := s.common()
	for name, c := range map[string]host.Command{
		"/usr/bin/supervisord": s.cmdSupervisord, "/usr/bin/supervisorctl": s.cmdSupervisorctl,
		"haproxy": s.cmdHAProxy, "keepalived": s.cmdKeepalived, "apt-get": s.cmdAptGet, "nginx": s.cmdNginx,
		"named": s.cmdNamed, "named-checkconf": s.cmdNamedCheckconf, "named-compilezone": s.cmdNamedCompilezone, "rndc": s.cmdRndc, "tar": s.cmdNodeTar,
	} {
		all[name] = c
	}
	return all
}

// cmdKeepalived is keepalived -n, as its unit starts it.
func (s *Site) cmdKeepalived(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	if len(p.Args) == 2 && (p.Args[1] == "-v" || p.Args[1] == "--version") {
		fmt.Fprintln(p.Stderr, "Keepalived v1.2.19 (03/13,2017)")
		return 0
	}
	if len(p.Args) != 2 || p.Args[1] != "-n" {
		return p.Refusef("only keepalived -n")
	}
	data, err := p.Host.ReadFile(keepalivedFile)
	if err != nil {
		return p.Failf(1, "Unable to find configuration file /etc/keepalived/keepalived.conf")
	}
	c, err := parseKeepalived(string(data))
	if err != nil {
		p.Host.Refuse(keepalivedFile, err.Error())
		return p.Failf(1, "%v", err)
	}
	s.mu.Lock()
	v, err := s.startVRRP(m, c)
	s.mu.Unlock()
	if err != nil {
		return p.Failf(1, "%v", err)
	}
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case v.over: // the machine went off before the program knew
	case host.Signalled(ctx, "TERM"), host.Signalled(ctx, "INT"):
		v.finish()
	default:
		v.vanish(!m.alive())
	}
	return 143
}

// services are those that service NAME VERB knows.
var services = []string{"haproxy", "keepalived", "ssh", "cron", "bind9", "nginx", "networking", "supervisor"}

// cmdService is service NAME start|stop|restart|reload|status.
func (s *Site) cmdService(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	if len(p.Args) != 3 {
		return p.Refusef("only service NAME VERB")
	}
	name, verb := p.Args[1], p.Args[2]
	if !slices.Contains(services, name) {
		return p.Failf(1, "%s: unrecognized service", name)
	}
	if !slices.Contains([]string{"haproxy", "keepalived", "bind9", "nginx"}, name) || m.Kind != VM {
		return p.Refusef("service %s", name)
	}
	if _, err := m.Host.Stat("/usr/lib/systemd/system/" + name + ".service"); err != nil {
		return p.Failf(1, "%s: unrecognized service", name)
	}
	if m.masked(name) && (verb == "start" || verb == "restart") {
		return p.Failf(1, "Failed to start %s.service: Unit %s.service is masked.", name, name)
	}
	active := m.Host.UnitActive(name)
	switch verb {
	case "status":
		if active {
			fmt.Fprintf(p.Stdout, "%s is running\n", name)
			return 0
		}
		fmt.Fprintf(p.Stdout, "%s is not running\n", name)
		return 3
	case "stop":
		if active {
			m.Host.StopUnit(name)
			s.mu.Lock()
			if name == "nginx" {
				m.cut("nginx of " + m.label + " ended")
			}
			s.mu.Unlock()
		}
		return 0
	case "start", "restart":
		if active && verb == "start" {
			return 0
		}
		return s.restart(m, name)
	case "reload":
		if name != "haproxy" {
			return p.Refusef("reload of %s", name)
		}
		if err := s.reloadHAProxy(m); err != nil {
			return p.Failf(1, "%v", err)
		}
		return 0
	}
	return p.Refusef("service %s %s", name, verb)
}

// restart stops and starts a service, and knows whether it stayed.
func (s *Site) restart(m *Machine, name string) int {
	if m.Host.UnitActive(name) {
		m.Host.StopUnit(name)
	}
	if err := m.Host.StartUnit(name); err != nil {
		return 1
	}
	runs := map[string]func() bool{
		"haproxy":    func() bool { return m.proxy != nil },
		"keepalived": func() bool { return m.vrrp != nil },
		"bind9":      func() bool { return m.dns != nil },
	}[name]
	if runs != nil && !s.settle(runs) {
		return 1
	}
	return 0
}

// cmdShutdown is shutdown -r|-h|-P now, reboot, poweroff, halt: they return at
// once, and the machine goes down a moment later.
func (s *Site) cmdShutdown(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	again := false
	switch name := p.Args[0][strings.LastIndexByte(p.Args[0], '/')+1:]; {
	case name == "shutdown":
		if len(p.Args) != 3 || !slices.Contains([]string{"-r", "-h", "-P"}, p.Args[1]) || p.Args[2] != "now" && p.Args[2] != "+0" {
			return p.Refusef("only shutdown -r now, -h now and -P now")
		}
		again = p.Args[1] == "-r"
	case len(p.Args) > 1:
		return p.Refusef("options")
	default:
		again = name == "reboot"
	}
	boot := m.Host.BootID()
	s.spawn(func() {
		if !s.wait(time.Second) || m.Host.BootID() != boot || !m.Host.Up() {
			return
		}
		if again {
			_ = m.Host.Reboot() // fails when the site is closed
			return
		}
		_ = m.Host.Stop()
		s.halted(m)
	})
	return 0
}

const dpkgStatus = "/var/lib/dpkg/status"

// installed are the packages of a machine with their versions.
func (m *Machine) installed() map[string]string {
	out := map[string]string{}
	data, _ := m.Host.ReadFile(dpkgStatus)
	name := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			out[name] = v
		}
	}
	return out
}

// record writes the package database.
func (m *Machine) record(list map[string]string) {
	var names []string
	for n := range list {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(statusEntry(n, list[n]))
	}
	_ = m.Host.WriteFile(dpkgStatus, []byte(b.String()), 0o644) // as root on our tree
}

func statusEntry(name, version string) string {
	arch := "all"
	if !strings.HasPrefix(name, "pitrix-") {
		arch = "amd64"
	}
	return fmt.Sprintf("Package: %s\nStatus: install ok installed\nArchitecture: %s\nVersion: %s\n\n", name, arch, version)
}

// cmdDpkgQuery is dpkg-query -W [-f FORMAT] [PATTERN…].
func (s *Site) cmdDpkgQuery(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	format, show := "${Package}\t${Version}\n", false
	var patterns []string
	args := p.Args[1:]
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "-W" || a == "--show":
			show = true
		case strings.HasPrefix(a, "-f=") || strings.HasPrefix(a, "--showformat="):
			_, format, _ = strings.Cut(a, "=")
		case strings.HasPrefix(a, "-f") && len(a) > 2:
			format = a[2:]
		case a == "-f" && len(args) > 0:
			format, args = args[0], args[1:]
		case strings.HasPrefix(a, "-"):
			return p.Refusef("option %s", a)
		default:
			patterns = append(patterns, a)
		}
	}
	if !show {
		return p.Refusef("only dpkg-query -W")
	}
	format = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(format)
	list := m.installed()
	var names []string
	for n := range list {
		names = append(names, n)
	}
	slices.Sort(names)
	status := 0
	matched := map[string]bool{}
	for _, n := range names {
		ok := len(patterns) == 0
		for _, pat := range patterns {
			if globMatch(pat, n) {
				ok, matched[pat] = true, true
			}
		}
		if !ok {
			continue
		}
		arch := "all"
		if !strings.HasPrefix(n, "pitrix-") {
			arch = "amd64"
		}
		line := strings.NewReplacer("${Package}", n, "${binary:Package}", n, "${Version}", list[n], "${Architecture}", arch,
			"${Status}", "install ok installed", "${db:Status-Abbrev}", "ii ", "${db:Status-Status}", "installed").Replace(format)
		if strings.Contains(line, "${") {
			return p.Refusef("format %s", format)
		}
		fmt.Fprint(p.Stdout, line)
	}
	for _, pat := range patterns {
		if !matched[pat] {
			status = p.Failf(1, "no packages found matching %s", pat)
		}
	}
	return status
}

// Packages whose installation takes the machine by surprise: they bring
// services that start at once.
const aptTakes = 12 * time.Second

// cmdAptGet is apt-get as update_nodes and the runbook call it.
func (s *Site) cmdAptGet(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	yes := false
	var words []string
	args := p.Args[1:]
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch a {
		case "--yes", "-y", "--assume-yes":
			yes = true
		case "--force-yes", "--allow-unauthenticated", "--reinstall", "-q", "-qq", "--no-install-recommends":
		case "-o":
			if len(args) == 0 || !strings.HasPrefix(args[0], "Dpkg::Options::=--force-conf") {
				return p.Refusef("option -o")
			}
			args = args[1:]
		default:
			if strings.HasPrefix(a, "-") {
				return p.Refusef("option %s", a)
			}
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		return p.Refusef("no command")
	}
	switch words[0] {
	case "update":
		if p.Host.Sleep(ctx, 2*time.Second) != nil {
			return 143
		}
		if !s.ping(m, s.repoAddr()) {
			fmt.Fprintln(p.Stderr, "W: Failed to fetch the package lists: Unable to connect to "+s.repoAddr().String()+":80")
			return 0
		}
		fmt.Fprintln(p.Stdout, "Reading package lists... Done")
		return 0
	case "clean", "autoclean":
		return 0
	case "install":
	default:
		return p.Refusef("apt-get %s", words[0])
	}
	if !s.ping(m, s.repoAddr()) {
		fmt.Fprintln(p.Stderr, "E: Failed to fetch the package: Unable to connect to "+s.repoAddr().String()+":80")
		return 100
	}
	var debs []deb
	for _, name := range words[1:] {
		d, ok := s.newestDeb(name)
		if !ok {
			fmt.Fprintf(p.Stderr, "E: Unable to locate package %s\n", name)
			return 100
		}
		debs = append(debs, d)
	}
	if !yes {
		fmt.Fprintln(p.Stdout, "Do you want to continue? [Y/n] Abort.")
		return 1
	}
	for _, d := range debs {
		if p.Host.Sleep(ctx, aptTakes) != nil {
			return 143
		}
		if slices.Contains(s.cfg.Faults.Apt100, d.name) {
			fmt.Fprintf(p.Stderr, "dpkg: error processing package %s (--configure):\n subprocess installed post-installation script returned error exit status 1\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n", d.name)
			return 100
		}
		fmt.Fprintf(p.Stdout, "Setting up %s (%s) ...\n", d.name, d.version)
		if err := s.configure(m, d); err != nil {
			fmt.Fprintf(p.Stderr, "dpkg: error processing package %s (--configure):\n %v\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n", d.name, err)
			return 100
		}
	}
	return 0
}

func (s *Site) repoAddr() netip.Addr { return firstboxAddr }

// policy asks /usr/sbin/policy-rc.d whether a package may start a service.
func (m *Machine) policy(name string) bool {
	if _, err := m.Host.Stat("/usr/sbin/policy-rc.d"); err != nil {
		return true
	}
	status, _, err := m.Host.Run(m.site.ctx, "/usr/sbin/policy-rc.d "+name+" start")
	return err == nil && status != 101
}

// configure is what a package's files and its post-installation do.
func (s *Site) configure(m *Machine, d deb) error {
	list := m.installed()
	list[d.name] = d.version
	m.record(list)
	if r, ok := roles[m.role]; ok && slices.Contains(r.packages(s), d.name) && !m.isNew() && s.switching(m.Name) {
		s.hurt("%s was installed on %s, the old node", d.name, m.label)
	}
	if d.name == "pitrix-hosts" {
		s.noteHosts(m, d.data)
		return m.Host.WriteFile("/etc/hosts", append([]byte("127.0.0.1 localhost\n\n"), d.data...), 0o644)
	}
	s.writeProgram(m, d.name)
	if do := postInstallations[d.name]; do != nil {
		if err := do(s, m, d.name); err != nil {
			return err
		}
	}
	s.startNew(m)
	return nil
}

// postInstallations are what packages do besides bringing programs.
var postInstallations = map[string]func(s *Site, m *Machine, pkg string) error{
	"pitrix-ks-proxy": (*Site).configureProxy, "pitrix-ks-proxy-boss": (*Site).configureProxy,
	"pitrix-ks-proxy-boss2": (*Site).configureProxy, "pitrix-ks-proxy-warehouse": (*Site).configureProxy,
	"pitrix-ks-webconsole": (*Site).configureWeb, "pitrix-ks-dnsmaster": (*Site).configureDNS,
}

// switching reports whether a new VM of a node has been made: from then on the
// name is to mean it.
func (s *Site) switching(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.machines, func(m *Machine) bool { return m.Kind == VM && m.Name == name && m.isNew() })
}

func (s *Site) cmdIptablesSave(_ context.Context, p *host.Proc) int {
	if len(p.Args) > 1 {
		return p.Refusef("options")
	}
	var data []byte
	if p.Args[0] == "iptables-save" {
		data, _ = p.Host.ReadFile("/etc/iptables.rules")
	}
	fmt.Fprintf(p.Stdout, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n%sCOMMIT\n", data)
	return 0
}

func (s *Site) cmdDf(_ context.Context, p *host.Proc) int {
	rest := slices.DeleteFunc(slices.Clone(p.Args[1:]), func(a string) bool { return slices.Contains([]string{"-P", "-k", "-Pk", "-kP"}, a) })
	if len(rest) > 1 || len(rest) == 1 && strings.HasPrefix(rest[0], "-") {
		return p.Refusef("only df -P [-k] [DIR]")
	}
	fmt.Fprint(p.Stdout, "Filesystem     1024-blocks      Used Available Capacity Mounted on\n/dev/vda1        515928320 103185664 386466048      22% /\n")
	return 0
}

func (s *Site) cmdFree(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 2 || p.Args[1] != "-m" {
		return p.Refusef("only free -m")
	}
	fmt.Fprint(p.Stdout, "              total        used        free      shared  buff/cache   available\nMem:         257820       60210      150220         120       47390      196000\nSwap:             0           0           0\n")
	return 0
}

func globMatch(pattern, name string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == name
	}
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for i, part := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(name, part)
		}
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}
