package upgrade

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
)

// A Project is one service of the host and everything that leads to it.
type Project struct {
	Name       string        `json:"name"`
	Kind       string        `json:"kind"`
	Dir        string        `json:"dir,omitempty"`
	Jar        string        `json:"jar,omitempty"` // or the main class
	Containers []string      `json:"containers"`
	Unit       string        `json:"unit,omitempty"`
	Start      string        `json:"start,omitempty"`
	Health     string        `json:"health,omitempty"`
	Ports      []ProjectPort `json:"ports"`
}

// A ProjectPort is a port of a project and what leads to it.
type ProjectPort struct {
	Port      int      `json:"port"`
	Balancers []string `json:"balancers"` // group, listener and rule
	Nginx     []string `json:"nginx"`     // host, upstream or pass, place
	Domains   []string `json:"domains"`   // by server_name
	Peers     []string `json:"peers"`     // established connections from elsewhere
}

// Leads tells whether anything leads to the port.
func (p ProjectPort) Leads() bool { return len(p.Balancers)+len(p.Nginx)+len(p.Peers) > 0 }

// Projects is the table of what runs on the host and what leads there.
type Projects struct {
	Projects []Project `json:"projects"`
	// Unreferenced are ports that others could reach and to which nothing leads,
	// as "tcp/9100 (node_exporter)".
	Unreferenced []string `json:"unreferenced_ports"`
	// Dead are places that lead to a port of the host where nothing listens.
	Dead []string `json:"dead_backends"`
}

// A lead is a place that leads to a port of the host.
type lead struct {
	balancer bool
	text     string
	port     int
}

// leads lists every place of the facts that leads to the host.
func leads(f *Facts) (out []lead) {
	for _, m := range f.Memberships {
		if len(m.Listeners) == 0 {
			out = append(out, lead{true, groupLabel(m) + " (no listener)", m.Backend.Port})
		}
		for _, l := range m.Listeners {
			text := fmt.Sprintf("%s, %s", groupLabel(m), l)
			if m.Backend.Weight == 0 {
				text += ", weight 0"
			}
			out = append(out, lead{true, text, cmp.Or(m.Backend.Port, l.BackendPort)})
		}
	}
	for _, n := range f.Nginx {
		for _, r := range n.Refs {
			if r.Kind == nginx.KindComment || r.Kind == nginx.KindMention || r.Kind == nginx.KindOff {
				continue
			}
			what := r.Directive
			if r.Upstream != "" {
				what = "upstream " + r.Upstream
			}
			text := fmt.Sprintf("%s %s (%s:%d)", n.Host, what, path.Base(r.File), r.Line)
			for _, s := range []string{"down", "backup"} {
				if r.Has(s) {
					text += " " + s
				}
			}
			out = append(out, lead{false, text, r.Port})
		}
	}
	return out
}

// groupLabel names a group with its balancer, for the table.
func groupLabel(m slb.Membership) string {
	s := m.LoadBalancerID
	if m.LoadBalancerName != "" {
		s += " (" + m.LoadBalancerName + ")"
	}
	switch g := cmp.Or(m.VServerGroupID, m.MasterSlaveGroupID); {
	case g == "":
		s += " default group"
	case m.VServerGroupName != "":
		s += " " + g + " (" + m.VServerGroupName + ")"
	default:
		s += " " + g
	}
	return strings.TrimSpace(s)
}

// leadTo lists what leads to a port.
func leadTo(f *Facts, port int) (out []string) {
	for _, l := range leads(f) {
		if l.port == port {
			out = append(out, l.text)
		}
	}
	return out
}

// ListProjects makes the table. It is pure.
func ListProjects(s *Surroundings) *Projects {
	f, cfg, inv := s.Facts, s.Config, s.Facts.Inventory
	t := &Projects{Projects: []Project{}, Unreferenced: []string{}, Dead: []string{}}
	all := leads(f)
	peers := map[int][]string{}
	for _, d := range f.Direct {
		if ip, port, ok := strings.Cut(d, " uses port "); ok {
			if n, err := strconv.Atoi(port); err == nil {
				peers[n] = append(peers[n], ip)
			}
		}
	}
	for _, sv := range cfg.Services {
		p := Project{Name: sv.Name, Kind: sv.Kind, Dir: sv.Dir, Unit: sv.Unit, Start: sv.Start, Health: sv.Health, Containers: []string{}, Ports: []ProjectPort{}}
		for _, c := range inv.Containers {
			if sv.Kind == KindContainer && c.Name == sv.Container || sv.Kind == KindCompose && c.Compose.Dir == sv.Dir {
				p.Containers = append(p.Containers, c.Name)
			}
		}
		for _, j := range inv.Java {
			if j.Container == "" && (sv.Kind == KindJava && j.Cwd == sv.Dir && (sv.Match == "" || sv.Match == j.Jar || sv.Match == j.MainClass) || sv.Kind == KindUnit && strings.TrimSuffix(j.Unit, ".service") == strings.TrimSuffix(sv.Unit, ".service") || sv.Kind == KindSupervisor && runsBelow(inv, sv.Program, j.PID)) {
				p.Dir, p.Jar = cmp.Or(p.Dir, j.Cwd), cmp.Or(p.Jar, j.Jar, j.MainClass)
			}
		}
		for _, port := range sv.Ports {
			pp := ProjectPort{Port: port, Balancers: []string{}, Nginx: []string{}, Domains: []string{}, Peers: append([]string{}, peers[port]...)}
			for _, l := range all {
				switch {
				case l.port != port:
				case l.balancer:
					pp.Balancers = append(pp.Balancers, l.text)
				default:
					pp.Nginx = append(pp.Nginx, l.text)
				}
			}
			for _, d := range s.Domains {
				if d.Port == port && !slices.Contains(pp.Domains, d.Name) {
					pp.Domains = append(pp.Domains, d.Name)
				}
			}
			if !pp.Leads() {
				t.Unreferenced = append(t.Unreferenced, fmt.Sprintf("tcp/%d (%s)", port, sv.Name))
			}
			p.Ports = append(p.Ports, pp)
		}
		t.Projects = append(t.Projects, p)
	}
	for _, u := range listUnlisted(inv, cfg) {
		port, _, _ := strings.Cut(strings.TrimPrefix(u, "tcp/"), " ")
		if n, err := strconv.Atoi(port); err == nil && len(leadTo(f, n)) == 0 && !usedFromOutside(inv, n, cfg.Address) {
			t.Unreferenced = append(t.Unreferenced, u)
		}
	}
	for _, l := range all {
		switch {
		case l.port == 0:
			t.Dead = append(t.Dead, l.text+": leads to no certain port")
		case !listens(inv, l.port):
			t.Dead = append(t.Dead, fmt.Sprintf("%s: leads to port %d, where nothing listens", l.text, l.port))
		}
	}
	return t
}

func usedFromOutside(inv *hostinv.Inventory, port int, own string) bool {
	return slices.ContainsFunc(inv.Connections, func(c hostinv.Peer) bool {
		return c.Direction == "in" && c.LocalPort == port && !isLocal(c.IP, own) && !containerNet(inv, c.IP)
	})
}
