package hostos

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// The kinds of an Unowned.
const (
	UnownedListener = "listener" // a process that listens
	UnownedProcess  = "process"  // a Java process that does not listen
)

// An Unowned is a process that nobody would start again after a reboot: no
// service names it, and no unit, container, supervisord, cron or at job owns it.
type Unowned struct {
	Kind     string   `json:"kind"`
	Program  string   `json:"program"`
	PID      int      `json:"pid"`
	User     string   `json:"user"`
	Dir      string   `json:"dir"`
	Args     []string `json:"args,omitempty"`  // of Java, with secrets replaced
	Ports    []int    `json:"ports,omitempty"` // on which it accepts connections from elsewhere
	Local    []int    `json:"local,omitempty"` // on which from the host itself alone
	Evidence string   `json:"evidence"`        // one line that says all of this
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
		if byPID[j.PID] == nil {
			byPID[j.PID] = javaProcess(j)
		}
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
		if p := byPID[pid]; !owned(inv, byPID, java, services, p) {
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

// javaProcess is what is known of a Java process without the section of processes.
func javaProcess(j hostinv.Java) *hostinv.Process {
	return &hostinv.Process{PID: j.PID, Name: "java", Program: "java", Exe: j.Exe, Cwd: j.Cwd, User: j.User, Unit: j.Unit, Container: j.Container}
}

// FindProcesses gives the IDs of the processes of an inventory that a service
// started by hand has, sorted. It is pure. Match is not asked where the inventory
// does not have the arguments: of programs other than Java.
func FindProcesses(inv *hostinv.Inventory, s Service) []int {
	java := map[int]hostinv.Java{}
	var out []int
	add := func(p *hostinv.Process) {
		if p.Container == "" && s.is(p, java) && !slices.Contains(out, p.PID) {
			out = append(out, p.PID)
		}
	}
	for _, j := range inv.Java {
		java[j.PID] = j
		add(javaProcess(j))
	}
	for i := range inv.Processes {
		add(&inv.Processes[i])
	}
	slices.Sort(out)
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
	program := path.Base(strings.Fields(u.Program + " ?")[0])
	what, kind := u.Program, fmt.Sprintf("kind: process, dir: %s, program: %s", u.Dir, program)
	words := []string{}
	if u.Dir != "" && u.Dir != "/" {
		words = append(words, u.Dir+"/")
	}
	start := ""
	if j, ok := java[u.PID]; ok {
		what = strings.TrimSpace("java " + cmp.Or(j.Jar, j.MainClass))
		kind = "kind: java, dir: " + u.Dir
		if j.Jar != "" {
			words = append(words, path.Base(j.Jar))
		}
		u.Args = j.Args
		start = startLine(j.Args)
	} else {
		words = append(words, program)
	}
	if u.User != "" && u.User != "root" {
		kind += ", user: " + u.User
	}
	u.Evidence = fmt.Sprintf("process %d: %s of %s in %s", u.PID, what, u.User, cmp.Or(u.Dir, "a directory that cannot be read"))
	if len(u.Ports) > 0 {
		u.Evidence += fmt.Sprintf(" listens on %s", numbers(u.Ports))
		kind += fmt.Sprintf(", ports: [%s]", numbers(u.Ports))
	} else if len(u.Local) > 0 {
		u.Evidence += fmt.Sprintf(" listens on %s for the host itself", numbers(u.Local))
	}
	if len(u.Args) > 0 {
		u.Evidence += fmt.Sprintf(" (%s)", strings.Join(u.Args, " "))
	}
	if start != "" {
		kind += ", start: " + strconv.Quote(start)
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

// startLine is the command line that starts a process with args; "" when they
// are not all known. Without one a service is started from kept values.
func startLine(args []string) string {
	if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "[hidden]") || !shellq.Valid(a) }) {
		return ""
	}
	return shellq.Join(args...)
}

func numbers(all []int) string {
	var out []string
	for _, n := range all {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}
