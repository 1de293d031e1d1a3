package upgrade

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/upgradectl/upgradectl/hostinv"
)

// What a configuration is drafted from the facts alone. All of it is pure.

// draftServices fills Config.Services: Compose projects, containers, programs of
// supervisord, units and processes started by hand, as far as upgrade.yaml knows such a kind.
func draftServices(s *Surroundings) {
	d := &drafter{s: s, inv: s.Facts.Inventory, names: map[string]bool{}, ports: map[int]bool{}, units: map[string]int{}}
	d.containers()
	d.supervised()
	d.java()
	d.otherUnits()
	d.byHand()
}

type drafter struct {
	s     *Surroundings
	inv   *hostinv.Inventory
	names map[string]bool
	ports map[int]bool
	units map[string]int // index of their service
}

func (d *drafter) todo(en, zh string, args ...any) {
	d.s.Todo = append(d.s.Todo, Note{fmt.Sprintf(en, args...), fmt.Sprintf(zh, args...)})
}

var notName = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// name makes a name that upgrade.yaml takes and that no other service has.
func (d *drafter) name(from string) string {
	n := strings.Trim(notName.ReplaceAllString(from, "-"), "-._")
	if n == "" {
		n = "service"
	}
	for i, base := 2, n; d.names[n]; i++ {
		n = fmt.Sprintf("%s-%d", base, i)
	}
	d.names[n] = true
	return n
}

// take gives the ports that no other service has yet.
func (d *drafter) take(ports []int) (out []int) {
	slices.Sort(ports)
	for _, p := range ports {
		if p > 0 && p < 65536 && !d.ports[p] {
			d.ports[p] = true
			out = append(out, p)
		}
	}
	return out
}

// add adds a service, unless it has a name that upgrade.yaml cannot hold.
func (d *drafter) add(s Service) bool {
	for _, x := range []struct {
		value string
		good  bool
	}{
		{s.Dir, s.Dir == "" || path.IsAbs(s.Dir) && plainText(s.Dir)},
		{s.User, s.User == "" || goodUser.MatchString(s.User)},
		{s.Container, s.Container == "" || goodContainer.MatchString(s.Container)},
		{s.Unit, s.Unit == "" || goodUnitName.MatchString(s.Unit)},
		{s.Program, s.Kind != KindSupervisor || supervisorProgram.MatchString(s.Program)},
	} {
		if !x.good {
			d.todo("%s %q has a name that this file cannot hold: it is left out", "%s %q 的名称无法写入本文件，已略去", s.Kind, x.value)
			d.release(s.Ports)
			delete(d.names, s.Name)
			return false
		}
	}
	d.s.Config.Services = append(d.s.Config.Services, s)
	return true
}

// release gives ports back that a service took and then was not written.
func (d *drafter) release(ports []int) {
	for _, p := range ports {
		delete(d.ports, p)
	}
}

// What upgrade.yaml takes; see the services of configDecoder.
var (
	goodUser      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	goodContainer = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	goodUnitName  = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*$`)
)

// plainText tells whether upgrade.yaml can hold a text.
func plainText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// reachable keeps the ports that other hosts can reach and that the kernel did
// not choose, unless somebody refers to them.
func (d *drafter) reachable(ports []int) (out []int) {
	for _, p := range ports {
		for _, l := range d.inv.Listeners {
			if l.Proto == "tcp" && l.Port == p && !loopback(l.Addr) && (!l.Ephemeral || d.referred(p)) {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

func loopback(ip string) bool { return addr(ip).IsLoopback() }

// referred tells whether a balancer or an nginx leads to a port.
func (d *drafter) referred(port int) bool { return len(leadTo(d.s.Facts, port)) > 0 }

func (d *drafter) containers() {
	var dirs []string
	byDir := map[string][]hostinv.Container{}
	for _, c := range d.inv.Containers {
		if c.State != "running" {
			continue
		}
		if path.IsAbs(c.Compose.Dir) {
			if byDir[c.Compose.Dir] == nil {
				dirs = append(dirs, c.Compose.Dir)
			}
			byDir[c.Compose.Dir] = append(byDir[c.Compose.Dir], c)
		}
	}
	published := func(cs ...hostinv.Container) (ports []int) {
		for _, c := range cs {
			for _, p := range c.Ports {
				if p.Proto == "tcp" && !loopback(p.HostIP) && !slices.Contains(ports, p.HostPort) {
					ports = append(ports, p.HostPort)
				}
			}
			// A container in the host's network publishes nothing: it listens itself.
			for _, l := range d.inv.Listeners {
				if i := d.process(l.PID); i != nil && i.Container == c.ID && c.ID != "" && l.Proto == "tcp" && !loopback(l.Addr) && !l.Ephemeral && !slices.Contains(ports, l.Port) {
					ports = append(ports, l.Port)
				}
			}
		}
		return ports
	}
	for _, dir := range dirs {
		d.add(Service{Name: d.name(path.Base(dir)), Kind: KindCompose, Dir: dir, Ports: d.take(published(byDir[dir]...))})
	}
	for _, c := range d.inv.Containers {
		if c.State == "running" && !path.IsAbs(c.Compose.Dir) {
			d.add(Service{Name: d.name(c.Name), Kind: KindContainer, Container: c.Name, Ports: d.take(published(c))})
		}
	}
}

func (d *drafter) process(pid int) *hostinv.Process {
	if pid == 0 {
		return nil
	}
	i := slices.IndexFunc(d.inv.Processes, func(p hostinv.Process) bool { return p.PID == pid })
	if i < 0 {
		return nil
	}
	return &d.inv.Processes[i]
}

// sessions are units in which processes live that somebody started by hand.
var sessions = regexp.MustCompile(`^(ssh|sshd|crond?|atd|user@.*|session-.*|console-getty|getty@.*|serial-getty@.*|aliyun|aegis|assist_daemon|cloud-init.*|cloud-final|rc-local|systemd-.*)(\.service)?$`)

func (d *drafter) java() {
	for _, j := range d.inv.Java {
		if j.Container != "" || supervised(d.inv, j.PID) {
			continue
		}
		ports := d.reachable(j.Ports)
		if j.Unit != "" && !sessions.MatchString(j.Unit) {
			d.unit(j.Unit, ports)
			continue
		}
		if !path.IsAbs(j.Cwd) || strings.HasSuffix(j.Cwd, " (deleted)") {
			d.todo("process %d is java in %q, which cannot be started there again: restart it from a directory that exists",
				"进程 %d 是 Java，工作目录为 %q，无法在原处再次启动：请先从存在的目录重新启动它", j.PID, j.Cwd)
			continue
		}
		sv := Service{Name: d.name(projectName(j)), Kind: KindJava, Dir: j.Cwd, Ports: d.take(ports)}
		if j.User != "root" {
			sv.User = j.User
		}
		if slices.ContainsFunc(d.inv.Java, func(o hostinv.Java) bool { return o.PID != j.PID && o.Container == "" && o.Cwd == j.Cwd }) {
			if sv.Match = j.Jar; sv.Match == "" {
				sv.Match = j.MainClass
			}
			if !plainText(sv.Match) || slices.ContainsFunc(d.s.Config.Services, func(o Service) bool { return o.Kind == KindJava && o.Dir == sv.Dir && o.Match == sv.Match }) {
				d.todo("process %d is java in %s, and so are others: nothing in its arguments tells them apart; write one service for each, with match",
					"进程 %d 是目录 %s 中的 Java，该目录还有其他 Java 进程，无法用参数区分；请为每个进程各写一个服务，并用 match 区分", j.PID, j.Cwd)
				d.release(sv.Ports)
				continue
			}
		} else {
			var others []string
			if sv.Start, others = startCommand(j, d.s.Scripts); len(others) > 0 {
				d.todo("service %s: is it started by one of %s? Write it into start; without start it is started from values kept on the host (arguments, environment)",
					"服务 %s：是否由 %s 之一启动？请写入 start；不写则用保存在主机上的参数与环境变量启动", sv.Name, list(others))
			}
		}
		d.add(sv)
	}
}

// projectName is what people call a Java project: its directory, or the jar where
// that says nothing.
func projectName(j hostinv.Java) string {
	switch base := path.Base(j.Cwd); base {
	case "/", "root", "home", "srv", "opt", "app", "bin", "lib", "target", "data", "tmp":
		if j.Jar != "" {
			return strings.TrimSuffix(path.Base(j.Jar), ".jar")
		}
		if j.MainClass != "" {
			return j.MainClass[strings.LastIndexByte(j.MainClass, '.')+1:]
		}
		return base
	default:
		return base
	}
}

// startNames are names of start scripts, the likeliest first. Never written to.
var startNames = []string{"start.sh", "bin/start.sh", "startup.sh", "bin/startup.sh", "run.sh", "bin/run.sh", "service.sh", "boot.sh"}

// startCommand is the script beside a Java project that starts it. "" is none:
// then it is started from the values kept on the host, or by what a person
// writes; others are scripts that may be it.
func startCommand(j hostinv.Java, scripts []Script) (cmd string, others []string) {
	for _, s := range scripts {
		if s.Dir == j.Cwd {
			others = append(others, s.Name)
		}
	}
	for _, n := range startNames {
		if slices.Contains(others, n) {
			return "./" + n, nil
		}
	}
	return "", others
}

// unit adds a unit as a service, once, with all ports of its processes.
func (d *drafter) unit(name string, ports []int) {
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	if i, ok := d.units[name]; ok {
		sv := &d.s.Config.Services[i]
		sv.Ports = append(sv.Ports, d.take(ports)...)
		return
	}
	at := len(d.s.Config.Services)
	if d.add(Service{Name: d.name(strings.TrimSuffix(name, ".service")), Kind: KindUnit, Unit: strings.TrimSuffix(name, ".service"), Ports: d.take(ports)}) {
		d.units[name] = at
	}
}

// otherUnits adds the units that have ports others can reach, and those whose
// files somebody wrote on this host.
func (d *drafter) otherUnits() {
	for _, l := range d.inv.Listeners {
		p := d.process(l.PID)
		if p == nil || p.Container != "" || p.Unit == "" || supervised(d.inv, p.PID) || l.Proto != "tcp" || l.Ephemeral || loopback(l.Addr) || sessions.MatchString(p.Unit) || systemUnit(p.Unit) || slices.Contains(systemListeners, l.Process) {
			continue
		}
		d.unit(p.Unit, []int{l.Port})
	}
	for _, u := range d.inv.Units {
		if u.SHA256 != "" && u.Active == "active" && u.Sub == "running" && strings.HasSuffix(u.Name, ".service") && !sessions.MatchString(u.Name) && !systemUnit(u.Name) {
			d.unit(u.Name, nil)
		}
	}
}

// systemUnit tells whether a unit is part of the system and nobody's service.
func systemUnit(name string) bool {
	switch strings.TrimSuffix(name, ".service") {
	case "docker", "containerd", "supervisord", "supervisor", "sshd", "ssh", "crond", "cron", "chronyd", "chrony", "ntpd", "rsyslog", "auditd", "dbus", "NetworkManager", "network", "polkit", "tuned", "postfix", "exim4", "snmpd", "rpcbind", "firewalld", "irqbalance", "lvm2-monitor", "nscd", "sssd",
		"zabbix-agent", "zabbix-agent2", "salt-minion", "ilogtaild", "cloudmonitor", "aliyun-util", "AssistDaemon", "node_exporter", "unattended-upgrades", "multipathd":
		return true
	}
	return false
}

// byHand adds processes that listen for others and that nothing else of the
// draft starts again.
func (d *drafter) byHand() {
	var pids []int
	ports := map[int][]int{}
	for _, l := range d.inv.Listeners {
		p := d.process(l.PID)
		if p == nil || p.Container != "" || supervised(d.inv, p.PID) || l.Proto != "tcp" || l.Ephemeral || loopback(l.Addr) || d.ports[l.Port] || slices.Contains(systemListeners, l.Process) || l.Port == 22 || p.Unit != "" && !sessions.MatchString(p.Unit) || p.Program == "docker-proxy" || p.Name == "java" {
			continue
		}
		if ports[l.PID] == nil {
			pids = append(pids, l.PID)
		}
		ports[l.PID] = append(ports[l.PID], l.Port)
	}
	for _, pid := range pids {
		p := d.process(pid)
		program := path.Base(p.Exe)
		alone := !slices.ContainsFunc(d.s.Config.Services, func(o Service) bool { return o.Kind == KindProcess && o.Dir == p.Cwd && o.Program == program })
		if p.Exe == "" || !path.IsAbs(p.Cwd) || strings.HasSuffix(p.Cwd, " (deleted)") || strings.HasSuffix(p.Exe, " (deleted)") || !plainText(program) || !alone {
			d.todo("process %d, %s (in %s, as %s, port %d) was started by hand: nothing here starts it again; make it a unit, or write a service of kind process",
				"进程 %d，%s（目录 %s，用户 %s，端口 %d）由人工启动：升级后不会自动恢复；请改为 systemd 单元，或写成 kind: process 的服务", pid, orWord(p.Program, p.Name), orWord(p.Cwd, "?"), p.User, ports[pid][0])
			continue
		}
		sv := Service{Name: d.name(program), Kind: KindProcess, Dir: p.Cwd, Program: program, Ports: d.take(ports[pid])}
		if p.User != "root" {
			sv.User = p.User
		}
		d.add(sv)
	}
}

// draftRest fills in everything else that a plan needs: defaults as ParseConfig
// gives them, what is held back on the copy, and what a person has to decide.
func draftRest(s *Surroundings) {
	cfg, f := s.Config, s.Facts
	cfg.Version, cfg.Procedure = 1, ProcedureTransition
	if len(f.Memberships) == 0 {
		s.Todo = append(s.Todo, Note{"no load balancer of the region has the host; is it behind one of another account?", "本地域没有负载均衡挂载该主机；是否在其他账号的负载均衡之后？"})
	}
	if len(cfg.Nginx) == 0 {
		s.Todo = append(s.Todo, Note{"no nginx that leads to the host was found; name those that do: --nginx HOST, or the list nginx", "没有找到指向该主机的 nginx；如有，请用 --nginx 主机 或 nginx 列表写明"})
	}
	if !f.HasDocker {
		cfg.OS.Docker = DockerKeep
	}
}
