package firstbox

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const programsDir = "/etc/supervisor/conf.d"

// supervisor is a running supervisord. Its programs are read when it starts,
// and by update.
type supervisor struct {
	programs []*program
}

type program struct {
	name  string
	state string // RUNNING, STOPPED, FATAL, BACKOFF, STARTING
	pid   int
	since time.Time
	ports []int
	proc  *host.Process
}

func (v *supervisor) listens(port int) bool {
	return slices.ContainsFunc(v.programs, func(p *program) bool { return p.state == "RUNNING" && slices.Contains(p.ports, port) })
}

// readPrograms reads the [program:x] sections of conf.d. A line
// "; port N" is how this simulator knows what a program listens on.
func (m *Machine) readPrograms() []*program {
	entries, _ := m.Host.ReadDir(programsDir)
	var out []*program
	for _, e := range entries {
		data, err := m.Host.ReadFile(programsDir + "/" + e.Name())
		if err != nil || !strings.HasSuffix(e.Name(), ".conf") {
			continue
		}
		var cur *program
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if name, ok := strings.CutPrefix(line, "[program:"); ok {
				cur = &program{name: strings.TrimSuffix(name, "]"), state: "STOPPED"}
				out = append(out, cur)
			}
			if port, ok := strings.CutPrefix(line, "; port "); ok && cur != nil {
				if n, err := strconv.Atoi(port); err == nil {
					cur.ports = append(cur.ports, n)
				}
			}
		}
	}
	return out
}

// cmdSupervisord starts the daemon and returns.
func (s *Site) cmdSupervisord(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	if len(p.Args) != 1 && (len(p.Args) != 3 || p.Args[1] != "-c") {
		return p.Refusef("only supervisord [-c FILE]")
	}
	s.mu.Lock()
	running := m.super != nil
	s.mu.Unlock()
	if running {
		return p.Failf(2, "Error: Another program is already listening on a port that one of our HTTP servers is configured to use.")
	}
	d := host.Process{Args: []string{"/usr/bin/python", "/usr/bin/supervisord", "-c", "/etc/supervisor/supervisord.conf"}}
	if _, err := m.Host.Spawn(d); err != nil {
		return p.Failf(1, "%v", err)
	}
	v := &supervisor{programs: m.readPrograms()}
	for _, g := range v.programs {
		s.startProgram(m, g)
	}
	s.mu.Lock()
	m.super = v
	s.mu.Unlock()
	return 0
}

// startProgram starts one program; Site.mu is not held.
func (s *Site) startProgram(m *Machine, g *program) {
	state := "RUNNING"
	if f := s.cfg.Faults.Programs[m.Name+"/"+g.name]; f != "" && m.isNew() {
		state = f
	}
	var proc *host.Process
	if state == "RUNNING" {
		var err error
		d := host.Process{Args: []string{"/usr/bin/python", "/pitrix/bin/" + g.name}, Ports: g.ports, Handler: s.webOf(m)}
		if proc, err = m.Host.Spawn(d); err != nil {
			state = "FATAL"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.state, g.proc, g.since = state, proc, time.Now()
	if proc != nil {
		g.pid = proc.PID()
	}
}

func (s *Site) stopProgram(m *Machine, g *program) {
	s.mu.Lock()
	proc := g.proc
	was := g.state
	g.proc, g.state, g.pid, g.since = nil, "STOPPED", 0, time.Now()
	if was == "RUNNING" && len(g.ports) > 0 {
		m.cut("program " + g.name + " of " + m.label + " was stopped")
	}
	s.mu.Unlock()
	if proc != nil {
		proc.Exit()
	}
}

// cmdSupervisorctl is supervisorctl 3.x: its status is 0 whatever the programs
// do, as that of every supervisor before 4.0.
func (s *Site) cmdSupervisorctl(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	args := p.Args[1:]
	if len(args) > 1 && args[0] == "-c" {
		args = args[2:]
	}
	if len(args) == 0 {
		return p.Refusef("the interactive shell")
	}
	s.mu.Lock()
	v := m.super
	s.mu.Unlock()
	if v == nil {
		fmt.Fprintln(p.Stdout, "unix:///var/run/supervisor.sock no such file")
		return 0
	}
	pick := func() []*program {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(args) == 1 && args[0] == "status" || len(args) > 1 && args[1] == "all" {
			return slices.Clone(v.programs)
		}
		var out []*program
		for _, name := range args[1:] {
			at := slices.IndexFunc(v.programs, func(g *program) bool { return g.name == name })
			if at < 0 {
				fmt.Fprintf(p.Stdout, "%s: ERROR (no such process)\n", name)
				continue
			}
			out = append(out, v.programs[at])
		}
		return out
	}
	switch args[0] {
	case "status":
		for _, g := range pick() {
			s.mu.Lock()
			line := g.line()
			s.mu.Unlock()
			fmt.Fprintln(p.Stdout, line)
		}
	case "stop":
		for _, g := range pick() {
			if state := s.stateOf(g); state != "RUNNING" && state != "STARTING" && state != "BACKOFF" {
				if len(args) > 1 && args[1] == "all" {
					continue
				}
				fmt.Fprintf(p.Stdout, "%s: ERROR (not running)\n", g.name)
				continue
			}
			s.stopProgram(m, g)
			fmt.Fprintf(p.Stdout, "%s: stopped\n", g.name)
		}
	case "start", "restart":
		for _, g := range pick() {
			if s.stateOf(g) == "RUNNING" {
				if args[0] == "start" {
					if len(args) > 1 && args[1] != "all" {
						fmt.Fprintf(p.Stdout, "%s: ERROR (already started)\n", g.name)
					}
					continue
				}
				s.stopProgram(m, g)
				fmt.Fprintf(p.Stdout, "%s: stopped\n", g.name)
			}
			s.startProgram(m, g)
			if s.stateOf(g) == "RUNNING" {
				fmt.Fprintf(p.Stdout, "%s: started\n", g.name)
			} else {
				fmt.Fprintf(p.Stdout, "%s: ERROR (abnormal termination)\n", g.name)
			}
		}
	case "reread", "update":
		s.updatePrograms(m, v)
	default:
		return p.Refusef("supervisorctl %s", args[0])
	}
	return 0
}

func (s *Site) stateOf(g *program) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return g.state
}

// updatePrograms takes programs in that have come, and lets go of those that
// have left.
func (s *Site) updatePrograms(m *Machine, v *supervisor) {
	for _, g := range m.readPrograms() {
		s.mu.Lock()
		known := slices.ContainsFunc(v.programs, func(o *program) bool { return o.name == g.name })
		s.mu.Unlock()
		if known {
			continue
		}
		s.startProgram(m, g)
		s.mu.Lock()
		v.programs = append(v.programs, g)
		slices.SortFunc(v.programs, func(a, b *program) int { return strings.Compare(a.name, b.name) })
		s.mu.Unlock()
	}
}

// line is a program's line of supervisorctl status.
func (g *program) line() string {
	detail := ""
	switch g.state {
	case "RUNNING":
		up := time.Since(g.since)
		detail = fmt.Sprintf("pid %d, uptime %d:%02d:%02d", g.pid, int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60)
	case "STOPPED":
		detail = g.since.Format("Jan 02 03:04 PM")
	case "FATAL", "BACKOFF":
		detail = "Exited too quickly (process log may have details)"
	}
	return strings.TrimRight(fmt.Sprintf("%-32s %-10s %s", g.name, g.state, detail), " ")
}
