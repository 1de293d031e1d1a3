package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The detectors of the host and of what runs on it.

// detectHost sees that the SSH target is the instance, and that what is to be
// upgraded works now.
func detectHost(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	if f.Elsewhere != "" {
		l.add(FindingBlocking, "wrong-host", cfg.Host, "", "%s", f.Elsewhere)
	}
	if f.Unhealthy != "" {
		l.add(FindingBlocking, "service-down", cfg.Host, "", "before anything begins: %s", f.Unhealthy)
	}
	return l
}

// detectServices compares the services of the configuration with what runs.
func detectServices(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	dirs := map[string]string{}
	for _, s := range cfg.Services {
		if s.Kind != KindJava {
			continue
		}
		key := s.Dir + "\x00" + s.Match
		if other := dirs[key]; other != "" {
			l.add(FindingBlocking, "service-twice", s.Name, "", "services %s and %s have the same directory %s; they could not be told apart", other, s.Name, s.Dir)
		}
		dirs[key] = s.Name
	}
	return slices.Concat(l, checkContainers(f.Inventory, cfg.Services), checkByHand(f.Inventory, cfg.Services), checkPorts(f.Inventory, cfg.Services))
}

// checkContainers compares the running containers with the services.
func checkContainers(inv *hostinv.Inventory, services []Service) []Finding {
	var l found
	covered := map[string]bool{}
	for _, s := range services {
		found := false
		for _, c := range inv.Containers {
			if s.Kind == string(hostos.Container) && c.Name == s.Container || s.Kind == string(hostos.Compose) && c.Compose.Dir == s.Dir {
				found = true
				covered[c.Name] = true
			}
		}
		if !found && (s.Kind == string(hostos.Container) || s.Kind == string(hostos.Compose)) {
			l.add(FindingBlocking, "service-missing", s.Name, "", "service %s: no container of it is on the host", s.Name)
		}
	}
	for _, c := range inv.Containers {
		if c.State == "running" && !covered[c.Name] {
			l.add(FindingBlocking, "service-unlisted", c.Name, "", "container %s runs but no service names it; it would not be proved after the upgrade", c.Name)
		}
	}
	return l
}

// checkByHand compares the processes that nobody but a person starts with the
// services: each service has some, and each of them has a service. What a unit,
// a container or supervisord owns comes back by itself.
func checkByHand(inv *hostinv.Inventory, services []Service) []Finding {
	var l found
	var all []hostos.Service
	for _, s := range services {
		h := service(s)
		all = append(all, h)
		if h.ByHand() && len(hostos.FindProcesses(inv, h)) == 0 {
			l.add(FindingBlocking, "service-missing", s.Name, "", "service %s: no %s process%s runs in %s", s.Name, cmp.Or(s.Program, "java"), pick(s.Match != "", " with the argument "+s.Match), s.Dir)
		}
	}
	for _, u := range hostos.FindUnowned(inv, all) {
		severity := FindingBlocking
		if u.Comes != "" {
			severity = FindingWarning
		}
		l.add(severity, "service-unowned", cmp.Or(u.Dir, fmt.Sprint("process ", u.PID)), u.Remedy, "%s", u.Evidence)
	}
	return l
}

// detectRestart passes on which processes of services could not be started again
// from what is known of them.
func detectRestart(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, k := range f.Restart {
		if k.Problem != "" {
			l.add(FindingBlocking, "service-restart", k.Service, "give the service a start command (start)",
				"service %s has no start command, and its process%s could not be started again from what is known of it: %s", k.Service, pick(k.PID != 0, fmt.Sprint(" ", k.PID)), k.Problem)
			continue
		}
		for _, n := range k.Notes {
			l.add(FindingInfo, "service-restart", k.Service, "see that this is right, or give the service a start command", "service %s, process %d: %s", k.Service, k.PID, n)
		}
	}
	return l
}

// detectUnits looks for units that run and are not enabled: somebody started them
// by hand, and a reboot ends them. Those that a socket, timer or path starts come
// back with it; services of the plan are started by it.
func detectUnits(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	need := neededUnits(cfg)
	starts := func(stem string) bool {
		return slices.ContainsFunc(inv.Units, func(u hostinv.Unit) bool {
			return u.Active == "active" && (u.Name == stem+".timer" || u.Name == stem+".socket" || u.Name == stem+".path")
		})
	}
	listens := map[string]bool{}
	for _, p := range inv.Processes {
		if p.Unit != "" && slices.ContainsFunc(inv.Listeners, func(l hostinv.Listener) bool { return l.PID == p.PID && !l.Ephemeral }) {
			listens[p.Unit] = true
		}
	}
	for _, u := range inv.Units {
		stem, ok := strings.CutSuffix(u.Name, ".service")
		if !ok || u.Enabled != "disabled" || u.Active != "active" || u.Sub != "running" || need[u.Name] != "" || starts(stem) || machineUnits.MatchString(u.Name) {
			continue
		}
		// One that others pull in (by D-Bus, by Wants of theirs) shows in the same
		// way; what listens, or is the site's own, is hardly that.
		severity := FindingWarning
		if listens[u.Name] || u.SHA256 != "" {
			severity = FindingBlocking
		}
		l.add(severity, "unit-disabled", u.Name, "systemctl enable "+stem+", or stop it, or make it a service of kind unit", "%s runs and is not enabled: after the reboot it does not", u.Name)
	}
	return l
}

// detectOrder looks for services that use another one and do not say that they
// start after it. Connections name programs, not processes: where several
// services have the same, each is asked. It is a warning: many programs wait for
// what they need, and how this one takes it only its people know.
func detectOrder(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	programs := map[string][]string{} // names of processes by service
	for _, s := range cfg.Services {
		for _, pid := range hostos.FindProcesses(inv, service(s)) {
			for _, p := range inv.Processes {
				if p.PID == pid {
					programs[s.Name] = append(programs[s.Name], p.Name)
				}
			}
		}
		for _, p := range inv.Processes {
			if s.Kind == KindUnit && p.Unit == fullUnit(s.Unit) && p.Container == "" {
				programs[s.Name] = append(programs[s.Name], p.Name)
			}
		}
	}
	for _, c := range inv.Connections {
		if c.Direction != "out" || c.Process == "" || !isLocal(c.IP, cfg.Address) {
			continue
		}
		i := slices.IndexFunc(cfg.Services, func(s Service) bool { return slices.Contains(s.Ports, c.Port) })
		if i < 0 {
			continue
		}
		server := cfg.Services[i].Name
		var users []string
		said := false
		for _, s := range cfg.Services {
			if s.Name == server || !slices.Contains(programs[s.Name], c.Process) {
				continue
			}
			users = append(users, s.Name)
			said = said || comesAfter(cfg.Services, s.Name, server)
		}
		// With several of one program, one that says so may be the one.
		if len(users) == 0 || said {
			continue
		}
		l.add(FindingWarning, "service-order", fmt.Sprintf("%s:%d", list(users), c.Port), "let it start after the other: after: ["+server+"], unless it waits for it by itself",
			"%s (of service %s) is connected to port %d of service %s, and nothing says that it starts after it", c.Process, list(users), c.Port, server)
	}
	return l
}

// comesAfter tells whether a service starts after another one, directly or not.
func comesAfter(all []Service, name, other string) bool {
	seen := map[string]bool{}
	var reaches func(n string) bool
	reaches = func(n string) bool {
		if seen[n] {
			return false
		}
		seen[n] = true
		i := slices.IndexFunc(all, func(s Service) bool { return s.Name == n })
		return i >= 0 && slices.ContainsFunc(all[i].After, func(a string) bool { return a == other || reaches(a) })
	}
	return reaches(name)
}

// checkPorts sees that every port of a service is served now: a port that is
// mute before the upgrade cannot prove anything after it.
func checkPorts(inv *hostinv.Inventory, services []Service) []Finding {
	var l found
	for _, s := range services {
		for _, port := range s.Ports {
			if !listens(inv, port) {
				l.add(FindingBlocking, "service-missing", s.Name, "", "service %s: nothing listens on port %d", s.Name, port)
			}
		}
	}
	return l
}

// evidence makes a check give what it saw alone.
func evidence(check func(*hostinv.Inventory, []Service) []Finding) func(*hostinv.Inventory, []Service) []string {
	return func(inv *hostinv.Inventory, services []Service) (out []string) {
		for _, f := range check(inv, services) {
			out = append(out, f.Evidence)
		}
		return out
	}
}

// listens tells whether a TCP port of the host is served, by a process of the
// host itself or a container.
func listens(inv *hostinv.Inventory, port int) bool {
	return slices.ContainsFunc(inv.Listeners, func(l hostinv.Listener) bool { return l.Port == port && strings.HasPrefix(l.Proto, "tcp") }) ||
		slices.ContainsFunc(inv.Containers, func(c hostinv.Container) bool {
			return slices.ContainsFunc(c.Ports, func(p hostinv.Port) bool { return p.HostPort == port })
		})
}

// detectInventory sees that an inventory after the upgrade could show a loss.
// Past the pivot is too late to learn that 4.5-compare cannot compare: what an
// inventory lacks, it lacks against itself too.
func detectInventory(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, x := range hostinv.Diff(f.Inventory, f.Inventory, hostinv.Expect{}).Losses() {
		sec := f.Inventory.Sections[x.Area]
		l.add(FindingBlocking, "inventory-gap", x.Area, "", "the inventory of %s lacks %s (%s), so that a loss there would not be seen: %s",
			cfg.Host, x.Area, x.Before, cmp.Or(sec.Message, "log in as root, or see why with: upgradectl inventory collect"))
	}
	return l
}

// detectDocker looks whether Docker can be upgraded as the configuration says.
func detectDocker(cfg *Config, f *Facts, _ time.Time) []Finding {
	if cfg.OS.Docker != DockerUpgrade || !f.HasDocker || f.Docker == nil {
		return nil
	}
	var l found
	p, err := hostos.PlanDocker(f.Docker, nil, cfg.DockerOptions(f.DockerProfile))
	if err != nil {
		l.add(FindingBlocking, "docker-refused", "", "", "Docker cannot be upgraded: %v", err)
		return l
	}
	for _, x := range p.Findings {
		if x.Severity == hostos.DockerRefuse {
			l.add(FindingBlocking, "docker-refused", x.Object, x.Remedy, "Docker cannot be upgraded: %s: %s", x.Object, x.Text)
		} else {
			l.add(FindingWarning, "docker-warning", x.Object, x.Remedy, "%s: %s", x.Object, x.Text)
		}
	}
	return l
}
