package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The detectors without whose consent the procedure would not get to its end.

// found collects findings.
type found []Finding

func (l *found) add(severity, id, object, remedy, format string, args ...any) {
	*l = append(*l, Finding{ID: id, Severity: severity, Object: object, Evidence: fmt.Sprintf(format, args...), Remedy: remedy})
}

// detectInstance looks at the production instance and at what its money and its
// snapshots do meanwhile.
func detectInstance(_ *Config, f *Facts, now time.Time) []Finding {
	var l found
	in := f.Instance
	if in.Status != ecs.StatusRunning {
		l.add(FindingBlocking, "instance-status", in.ID, "", "instance %s is %s, not Running", in.ID, in.Status)
	}
	if !in.ExpiredTime.IsZero() && in.ChargeType == "PrePaid" {
		switch left := in.ExpiredTime.Sub(now); {
		case left < 2*24*time.Hour:
			l.add(FindingBlocking, "instance-expiry", in.ID, "renew it first: an instance that is stopped for its bill cannot be upgraded, and one that is released is lost",
				"instance %s is paid until %s only", in.ID, in.ExpiredTime.UTC().Format(time.RFC3339))
		case left < 14*24*time.Hour:
			l.add(FindingWarning, "instance-expiry", in.ID, "renew it before the window, or see that it is renewed by itself", "instance %s is paid until %s", in.ID, in.ExpiredTime.UTC().Format(time.RFC3339))
		}
	}
	if !in.AutoReleaseTime.IsZero() {
		l.add(FindingBlocking, "instance-release", in.ID, "take its release time away", "instance %s is released by itself at %s", in.ID, in.AutoReleaseTime.UTC().Format(time.RFC3339))
	}
	for _, s := range f.Snapshotting {
		l.add(FindingWarning, "snapshot-running", s, "let it finish: a disk takes one snapshot at a time, and 3.1 waits for it", "a snapshot of a disk is being made by somebody else: %s", s)
	}
	return l
}

// detectClone looks at what a copy of the host would lack, and whether the cloud
// would make it.
func detectClone(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, b := range f.Blockers {
		remedy := b.Remedy
		if remedy == "none" {
			remedy = ""
		}
		if b.Blocking {
			l.add(FindingBlocking, "clone-"+b.Code, b.Object, remedy, "a copy of the host cannot be made: %s: %s", b.Object, b.Reason)
		} else {
			l.add(FindingInfo, "clone-"+b.Code, b.Object, remedy, "unlike production: %s", b.Reason)
		}
	}
	if f.NoClone != "" {
		l.add(FindingBlocking, "clone-refused", f.Instance.ID, "", "the cloud would not make the transition host: %s", f.NoClone)
	}
	if s := f.Stock; s != nil && !s.Available {
		l.add(FindingBlocking, "clone-stock", s.Zone, "wait, or adopt a host of your own by transition.instance", "zone %s has no %s left (%s)", s.Zone, s.Type, cmp.Or(s.Category, "not offered there"))
	}
	for i, u := range f.Unasked {
		l.add(FindingWarning, "clone-unasked", fmt.Sprint(i+1), "", "not known: %s", u)
	}
	return l
}

// detectAdopted looks whether a host of the operator's own can be the transition
// host.
func detectAdopted(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	a := f.Adopted
	if a == nil {
		return nil
	}
	stop := func(remedy, format string, args ...any) {
		l.add(FindingBlocking, "adopted-unfit", a.ID, remedy, format, args...)
	}
	switch {
	case a.ID == f.Instance.ID:
		stop("", "transition.instance %s is the production host itself", a.ID)
	case a.Status != ecs.StatusRunning:
		stop("", "transition.instance %s is %s, not Running", a.ID, a.Status)
	case !a.AutoReleaseTime.IsZero():
		stop("take its release time away first", "transition.instance %s is released by itself at %s", a.ID, a.AutoReleaseTime.Format(time.RFC3339))
	case len(f.AdoptedServes) > 0:
		stop("", "transition.instance %s serves already, and upgrading it would be noticed: %s", a.ID, strings.Join(f.AdoptedServes, "; "))
	case cfg.Transition.ReleaseAdopted && a.Tags[releaseTag] != "yes":
		stop("", "transition.release_adopted: instance %s may be released only if it carries the tag %s=yes", a.ID, releaseTag)
	}
	return l
}

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
	return slices.Concat(l, checkContainers(f.Inventory, cfg.Services), checkJava(f.Inventory, cfg.Services), checkPorts(f.Inventory, cfg.Services))
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

// checkJava compares the Java processes of the host itself with the services.
func checkJava(inv *hostinv.Inventory, services []Service) []Finding {
	var l found
	for _, s := range services {
		if s.Kind == string(hostos.Java) && !slices.ContainsFunc(inv.Java, func(j hostinv.Java) bool { return j.Cwd == s.Dir }) {
			l.add(FindingBlocking, "service-missing", s.Name, "", "service %s: no java process runs in %s", s.Name, s.Dir)
		}
	}
	for _, j := range inv.Java {
		if j.Container != "" || supervised(inv, j.PID) {
			continue
		}
		if !slices.ContainsFunc(services, func(s Service) bool {
			return s.Kind == string(hostos.Java) && s.Dir == j.Cwd || s.Kind == string(hostos.Unit)
		}) {
			l.add(FindingBlocking, "service-unlisted", j.Cwd, "", "a java process runs in %s but no service names that directory; it would not be started again", j.Cwd)
		}
	}
	return l
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

// detectNginx looks whether the edits of 3.9 and 4.2 can be made.
func detectNginx(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, n := range f.Nginx {
		if n.Refusal != "" {
			l.add(FindingBlocking, "nginx-edit", n.Host, "", "%s: %s", n.Host, n.Refusal)
		}
		for _, r := range n.Refs {
			at := fmt.Sprintf("%s:%s:%d", n.Host, r.File, r.Line)
			where := fmt.Sprintf("%s: %s:%d", n.Host, r.File, r.Line)
			switch {
			case r.Kind == nginx.KindOff || r.Tag != "":
				l.add(FindingBlocking, "nginx-mark", at, "restore it first", "%s carries a mark of an earlier run (%s)", where, r.Tag)
			case r.Kind == nginx.KindComment || r.Kind == nginx.KindMention:
				// No traffic follows it; section 2.5 shows it.
			case r.Port == 0 || !servesPort(cfg, r.Port):
				l.add(FindingBlocking, "nginx-port", at, "", "%s leads to port %d of the host, which no service names; its health and silence could not be proved", where, r.Port)
			case !r.Certain:
				l.add(FindingBlocking, "nginx-uncertain", at, "move it by hand first", "%s refers to %s in a way that cannot be decided (%s)", where, cfg.Address, r.Reason)
			}
		}
	}
	return l
}

// detectBalancers looks whether the host can be drained behind its balancers.
func detectBalancers(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, m := range f.Memberships {
		for _, x := range m.Findings() {
			severity := FindingWarning
			switch {
			case x.Blocking:
				severity = FindingBlocking
			case x.Kind == slb.KindUDP:
				severity = FindingInfo // it is waited for
			}
			l.add(severity, "balancer-"+x.Kind, x.Where, x.Remedy, "%s: %s", x.Where, x.Detail)
		}
		if m.Managed || m.MasterSlaveGroupID != "" {
			continue
		}
		for _, x := range m.Listeners {
			if port := cmp.Or(m.Backend.Port, x.BackendPort); !servesPort(cfg, port) {
				l.add(FindingBlocking, "balancer-port", fmt.Sprintf("%s:%d", m.LoadBalancerID, x.Port), "", "%s listener %d leads to port %d of the host, which no service names; its health and silence could not be proved", m.LoadBalancerID, x.Port, port)
			}
		}
		if len(m.Listeners) > 0 && m.Backend.Weight > 0 && !slices.ContainsFunc(m.Backends, func(b slb.Backend) bool { return b != m.Backend && b.Weight > 0 }) {
			l.add(FindingWarning, "balancer-alone", groupName(m), "while production is upgraded the transition host is alone: give the group a further member, or mind the hour",
				"in %s nobody but production has a weight", groupName(m))
		}
	}
	return l
}

// detectPaths looks at the ways to the host past its balancers.
func detectPaths(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, p := range f.Paths {
		severity := map[string]string{slb.SeverityBlock: FindingBlocking, slb.SeverityWarn: FindingWarning}[p.Severity]
		remedy := p.Remedy
		switch {
		case severity == "":
			severity = FindingInfo
		case severity == FindingBlocking && movable(f.Forwarding, p):
			severity, remedy = FindingWarning, "move it: 2.7-domains waits for that"
		}
		l.add(severity, "path-"+p.Kind, p.ID, remedy, "%s %s: %s", p.Kind, p.ID, p.Evidence)
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
