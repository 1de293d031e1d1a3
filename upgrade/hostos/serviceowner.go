package hostos

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
)

// The kinds of an Unowned.
const (
	UnownedListener = "listener" // a process that listens
	UnownedProcess  = "process"  // a Java process that does not listen
)

// An Unowned is a process that nobody would start again after a reboot: no
// service names it, and no unit, container, supervisord, cron or at job owns it.
type Unowned struct {
	Kind     string `json:"kind"`
	Program  string `json:"program"`
	PID      int    `json:"pid"`
	User     string `json:"user"`
	Dir      string `json:"dir"`
	Ports    []int  `json:"ports,omitempty"` // on which it accepts connections from elsewhere
	Local    []int  `json:"local,omitempty"` // on which from the host itself alone
	Evidence string `json:"evidence"`        // one line that says all of this
	// Comes says what seems to start it, such as a line of cron; then it is no
	// more than a warning.
	Comes  string `json:"comes,omitempty"`
	Remedy string `json:"remedy"`
}

// FindUnowned lists the processes of an inventory that nobody would start
// again. It is pure. A section that could not be read leaves out what it would
// have told: read without root it is blind to most owners of sockets.
func FindUnowned(inv *hostinv.Inventory, services []Service) []Unowned {
	byPID := map[int]*hostinv.Process{}
	for i := range inv.Processes {
		byPID[inv.Processes[i].PID] = &inv.Processes[i]
	}
	java := map[int]hostinv.Java{}
	for _, j := range inv.Java {
		java[j.PID] = j
	}
	found := map[int]*Unowned{}
	get := func(p *hostinv.Process) *Unowned {
		u := found[p.PID]
		if u == nil {
			u = &Unowned{Kind: UnownedProcess, Program: p.Program, PID: p.PID, User: p.User, Dir: strings.TrimSuffix(p.Cwd, " (deleted)")}
			found[p.PID] = u
		}
		return u
	}
	for _, l := range inv.Listeners {
		p := byPID[l.PID]
		if p == nil || l.Ephemeral || owned(inv, byPID, java, services, p) {
			continue
		}
		u := get(p)
		u.Kind = UnownedListener
		ports := &u.Ports
		if l.Addr == "::1" || strings.HasPrefix(l.Addr, "127.") {
			ports = &u.Local
		}
		if !slices.Contains(*ports, l.Port) {
			*ports = append(*ports, l.Port)
		}
	}
	for pid := range java {
		if p := byPID[pid]; p != nil && !owned(inv, byPID, java, services, p) {
			get(p)
		}
	}
	var out []Unowned
	for _, u := range found {
		u.describe(inv, java)
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b Unowned) int {
		return cmp.Or(strings.Compare(a.Dir, b.Dir), strings.Compare(a.Program, b.Program), a.PID-b.PID)
	})
	return out
}

// owned tells whether something will bring a process back: a service of the
// plan, or what started it or one of its parents.
func owned(inv *hostinv.Inventory, byPID map[int]*hostinv.Process, java map[int]hostinv.Java, services []Service, p *hostinv.Process) bool {
	if slices.ContainsFunc(services, func(s Service) bool { return s.is(p, java) }) {
		return true
	}
	for q, n := p, 0; q != nil && n < 64; q, n = byPID[q.PPID], n+1 {
		name := path.Base(q.Exe)
		switch {
		case q.Container != "":
			return true
		case q.Unit != "" && !strings.HasPrefix(q.Unit, "user@") && !lends(q.Unit):
			return true
		case q == p && lends(q.Unit) && slices.Contains([]string{"sshd", "crond", "cron", "atd"}, name):
			return true // the daemon itself
		case strings.Contains(q.Program, "supervisord"):
			return true
		case name == "dockerd" || name == "docker-proxy" || strings.HasPrefix(name, "containerd"):
			return true
		}
	}
	return false
}

// lends tells whether a unit's processes are not its own: what a login, a cron
// job or rc.local leaves behind is in its control group, and is not there after
// the next boot because of it.
func lends(unit string) bool {
	switch strings.TrimSuffix(unit, ".service") {
	case "sshd", "ssh", "crond", "cron", "atd", "rc-local", "rc.local", "aliyun", "aegis":
		return true
	}
	return false
}

// is tells whether a process is of the service, as scanScript does.
func (s Service) is(p *hostinv.Process, java map[int]hostinv.Java) bool {
	if !s.ByHand() || s.Dir != strings.TrimSuffix(p.Cwd, " (deleted)") {
		return false
	}
	j, isJava := java[p.PID]
	if s.Kind == Java {
		return isJava && (s.Match == "" || slices.Contains(j.Args, s.Match))
	}
	// The arguments of others are not in an inventory: Match cannot be asked.
	name, _, _ := strings.Cut(p.Program, " ")
	return name == s.Program || p.Name == s.Program || path.Base(p.Exe) == s.Program
}

// describe fills in what people read.
func (u *Unowned) describe(inv *hostinv.Inventory, java map[int]hostinv.Java) {
	slices.Sort(u.Ports)
	slices.Sort(u.Local)
	what, kind := u.Program, fmt.Sprintf("kind: process, dir: %s, program: %s", u.Dir, strings.Fields(u.Program + " ?")[0])
	words := []string{}
	if u.Dir != "" && u.Dir != "/" {
		words = append(words, u.Dir+"/")
	}
	if j, ok := java[u.PID]; ok {
		what = strings.TrimSpace("java " + cmp.Or(j.Jar, j.MainClass))
		kind = "kind: java, dir: " + u.Dir
		if j.Jar != "" {
			words = append(words, path.Base(j.Jar))
		}
	} else {
		words = append(words, path.Base(strings.Fields(u.Program + " ?")[0]))
	}
	u.Evidence = fmt.Sprintf("%s of %s in %s", what, u.User, cmp.Or(u.Dir, "a directory that cannot be read"))
	if len(u.Ports) > 0 {
		u.Evidence += fmt.Sprintf(" listens on %s", numbers(u.Ports))
		kind += fmt.Sprintf(", ports: [%s]", numbers(u.Ports))
	} else if len(u.Local) > 0 {
		u.Evidence += fmt.Sprintf(" listens on %s for the host itself", numbers(u.Local))
	}
	for _, c := range inv.Cron {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(c.Text+"/", w) }) {
			u.Comes = c.Source + ": " + c.Text
			break
		}
	}
	u.Evidence += ", and no service, unit, container or supervisord starts it again"
	if u.Comes != "" {
		u.Evidence += "; " + u.Comes + " may"
		u.Remedy = "see that it does, or add a service {" + kind + "}"
		return
	}
	u.Remedy = "add a service {" + kind + "}, or stop it if nobody needs it"
}

func numbers(all []int) string {
	var out []string
	for _, n := range all {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}
