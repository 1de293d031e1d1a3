package upgrade

import (
	"path"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
)

// supervised tells whether supervisord is a process, or started it or one of its
// parents: it starts them again too.
func supervised(inv *hostinv.Inventory, pid int) bool {
	return len(supervisedBy(inv, pid)) > 0
}

// supervisedBy gives supervisord and those below it that lead to a process, from
// the top; nil: supervisord has nothing to do with it.
func supervisedBy(inv *hostinv.Inventory, pid int) (chain []hostinv.Process) {
	for range 64 { // an inventory is a file: it may hold a circle
		i := slices.IndexFunc(inv.Processes, func(p hostinv.Process) bool { return p.PID == pid && pid > 1 })
		if i < 0 {
			return nil
		}
		p := inv.Processes[i]
		chain = append(chain, p)
		if strings.Contains(p.Program, "supervisord") {
			slices.Reverse(chain)
			return chain
		}
		pid = p.PPID
	}
	return nil
}

// supervised adds the programs of supervisord that run, a group at once, with
// the ports of what runs below them.
func (d *drafter) supervised() {
	at := map[string]int{} // program or group → its service
	var named []hostinv.Program
	for _, p := range d.inv.Supervisor {
		if p.State != "RUNNING" && p.State != "STARTING" {
			continue
		}
		program := programOf(p)
		if _, known := at[program]; !known {
			i := len(d.s.Config.Services)
			if !d.add(Service{Name: d.name(strings.TrimSuffix(program, ":*")), Kind: KindSupervisor, Program: program}) {
				continue
			}
			at[program] = i
		}
		p.Name = program
		named = append(named, p)
	}
	for _, l := range d.inv.Listeners {
		chain := supervisedBy(d.inv, l.PID)
		if len(chain) < 2 || l.Proto != "tcp" || loopback(l.Addr) || l.Ephemeral && !d.referred(l.Port) || d.ports[l.Port] {
			continue // supervisord's own port is not a service's
		}
		var owner []string
		for _, p := range named {
			if runs(p, chain[1]) && !slices.Contains(owner, p.Name) {
				owner = append(owner, p.Name)
			}
		}
		if len(owner) == 0 && len(at) == 1 {
			owner = append(owner, named[0].Name)
		}
		if len(owner) != 1 {
			d.todo("port %d is served below supervisord by %s: write it into the ports of the program that it belongs to", "端口 %d 由 supervisord 之下的 %s 提供：请写入所属程序的 ports", l.Port, chain[1].Program)
			continue
		}
		sv := &d.s.Config.Services[at[owner[0]]]
		sv.Ports = append(sv.Ports, d.take([]int{l.Port})...)
	}
	for _, i := range at {
		slices.Sort(d.s.Config.Services[i].Ports)
	}
}

// programOf names what a service of kind supervisor is for a program: itself, or
// its group.
func programOf(p hostinv.Program) string {
	if group, _, has := strings.Cut(p.Name, ":"); has {
		return group + ":*"
	}
	return p.Name
}

// runs tells whether a process is what a program's settings describe: its
// directory where they name one, else the program of its command.
func runs(p hostinv.Program, q hostinv.Process) bool {
	for _, s := range p.Settings {
		if dir, ok := strings.CutPrefix(s, "directory="); ok {
			return path.Clean(dir) == strings.TrimSuffix(q.Cwd, " (deleted)")
		}
	}
	for _, s := range p.Settings {
		if command, ok := strings.CutPrefix(s, "command="); ok {
			words := strings.Fields(command)
			return len(words) > 0 && slices.ContainsFunc(append(strings.Fields(q.Program), path.Base(q.Exe)), func(w string) bool { return w == path.Base(words[0]) })
		}
	}
	return false
}

// runsBelow tells whether a process runs below a program or group of supervisord's.
func runsBelow(inv *hostinv.Inventory, program string, pid int) bool {
	chain := supervisedBy(inv, pid)
	return len(chain) > 1 && slices.ContainsFunc(inv.Supervisor, func(p hostinv.Program) bool {
		return (p.Name == program || programOf(p) == program) && runs(p, chain[1])
	})
}
