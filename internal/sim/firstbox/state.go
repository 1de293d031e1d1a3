package firstbox

import (
	"fmt"
	"slices"
	"strings"
)

// State is what counts of a node: of the machine that has the node's address,
// or when none has it, of the last one made with its name.
type State struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Machine  string   `json:"machine"` // label of the machine that answers as this node
	Address  string   `json:"address"` // that the node keeps
	Up       bool     `json:"up"`      // somebody has that address
	Host     string   `json:"host"`    // physical host it runs on
	OS       string   `json:"os"`
	Kernel   string   `json:"kernel"`
	ID       string   `json:"machine_id"`
	HAProxy  bool     `json:"haproxy"` // on a proxy: it runs
	Fronts   []string `json:"fronts,omitempty"`
	Routes   []string `json:"routes,omitempty"`
	Programs []string `json:"programs,omitempty"` // "name STATE"
	Serves   []string `json:"serves,omitempty"`   // ports that are listened on, and records of zones
}

// Firstbox is the machine with the installer.
func (s *Site) Firstbox() *Machine { return s.firstbox }

// States describes the nodes as they are, by name.
func (s *Site) States() map[string]State {
	out := map[string]State{}
	for _, n := range members {
		st := State{Name: n.name, Role: n.role, Address: n.addr}
		m := s.Machine(n.addr)
		if m == nil {
			all := s.Named(n.name)
			if len(all) == 0 {
				continue
			}
			m = all[len(all)-1]
		} else {
			st.Up = true
		}
		st.Machine, st.OS, st.Kernel = m.label, m.release(), m.Host.Kernel()
		id, _ := m.Host.ReadFile("/etc/machine-id")
		st.ID = strings.TrimSpace(string(id))
		s.mu.Lock()
		if m.runsOn != nil {
			st.Host = m.runsOn.Name
		}
		if m.proxy != nil {
			st.HAProxy = true
			for _, p := range portsOf(m.proxy) {
				f := m.proxy.fronts[p]
				line := f.name
				for _, b := range f.servers {
					line += " " + b.addr.String()
				}
				st.Fronts = append(st.Fronts, line)
			}
		}
		for _, r := range m.routes {
			st.Routes = append(st.Routes, r.text)
		}
		if m.super != nil {
			for _, g := range m.super.programs {
				st.Programs = append(st.Programs, g.name+" "+g.state)
			}
		}
		if m.dns != nil {
			for _, z := range m.dns.list {
				for _, r := range z.records {
					st.Serves = append(st.Serves, z.origin+": "+r.String())
				}
			}
		}
		s.mu.Unlock()
		for _, port := range m.Host.Listening() {
			st.Serves = append(st.Serves, fmt.Sprintf("port %d", port))
		}
		slices.Sort(st.Routes)
		slices.Sort(st.Programs)
		out[n.name] = st
	}
	return out
}

// Left is what lies about: backups that were to be kept, and what was not to be
// left behind.
type Left struct {
	Kept   []string // "host: file" of backups of old VMs, and whether they are whole
	Behind []string
}

// Left looks through the hosts.
func (s *Site) Left() Left {
	var l Left
	for _, m := range s.Machines() {
		if m.Kind == Physical {
			s.leftOn(m, &l)
		}
		s.mu.Lock()
		off := m.Kind == VM && m.runsOn == nil
		s.mu.Unlock()
		if off {
			continue // discarded, with all that was on it, or a backup
		}
		for _, e := range m.Host.Jobs() {
			l.Behind = append(l.Behind, m.label+": a job every minute: "+e)
		}
		if _, err := m.Host.Stat("/var/lib/upgradectl/lease"); err == nil {
			l.Behind = append(l.Behind, m.label+": a lease of a run")
		}
		for _, dir := range []string{"/etc", "/etc/haproxy", "/etc/network", "/opt/install/os", "/pitrix/conf/settings"} {
			entries, _ := m.Host.ReadDir(dir) // not every machine has it
			for _, e := range entries {
				if strings.Contains(e.Name(), "upgradectl") {
					l.Behind = append(l.Behind, m.label+": "+dir+"/"+e.Name())
				}
			}
		}
	}
	all, names := s.fleet()
	for _, n := range names {
		if want, ok := finalAddress[n]; ok && all[n]["mgmt_network_address"] != want.String() {
			l.Behind = append(l.Behind, "firstbox: the settings of "+n+" have the address "+all[n]["mgmt_network_address"])
		}
	}
	hosts, _ := s.firstbox.Host.ReadFile("/etc/hosts")
	for line := range strings.Lines(string(hosts)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		for _, name := range f[1:] {
			if want, ok := finalAddress[name]; ok && f[0] != want.String() {
				l.Behind = append(l.Behind, "firstbox: /etc/hosts has "+strings.TrimSpace(line))
			}
		}
	}
	slices.Sort(l.Kept)
	slices.Sort(l.Behind)
	return l
}

// leftOn looks at the images and domains of a physical host.
func (s *Site) leftOn(m *Machine, l *Left) {
	entries, _ := m.Host.ReadDir(kernels)
	files := map[string]bool{}
	for _, e := range entries {
		files[e.Name()] = true
	}
	for name := range files {
		data, _ := m.Host.ReadFile(kernels + "/" + name)
		if id, _ := parseImage(data); id != "" && strings.HasPrefix(name, "old-") {
			whole := "without its xml"
			if files[strings.TrimSuffix(name, ".img")+".xml"] {
				whole = "with its xml"
			}
			l.Kept = append(l.Kept, m.Name+": "+name+" "+whole)
		}
		if vm, ok := strings.CutSuffix(name, ".Done"); ok && !strings.HasPrefix(vm, "old-") && !files[vm+".img"] {
			l.Behind = append(l.Behind, m.Name+": "+name+" without an image")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range m.domains {
		switch {
		case d.running == nil && d.autostart:
			l.Behind = append(l.Behind, m.Name+": "+d.name+" is shut off and starts with its host")
		case d.running == nil:
			l.Behind = append(l.Behind, m.Name+": "+d.name+" is defined and shut off")
		case !d.persistent:
			l.Behind = append(l.Behind, m.Name+": "+d.name+" runs and is gone when it stops")
		}
	}
}
