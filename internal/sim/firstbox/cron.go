package firstbox

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const dirMode = fs.ModeDir

// cron runs the lines "* * * * * USER COMMAND" of /etc/cron.d every minute of
// the world, on every machine that is on, and those of @reboot once a boot.
// Other times never come here, and are refused.
func (s *Site) cron() {
	tick := time.NewTicker(time.Duration(float64(time.Minute) / s.opt.Speed))
	defer tick.Stop()
	boots := map[*Machine]string{}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range s.Machines() {
			if !m.Host.Up() {
				continue
			}
			boot := m.Host.BootID()
			for _, command := range m.jobs(boots[m] != boot) {
				s.spawn(func() { _, _, _ = m.Host.Run(s.ctx, command) }) // cron mails what goes wrong to nobody
			}
			boots[m] = boot
		}
	}
}

// jobs are the commands of a minute.
func (m *Machine) jobs(booted bool) []string {
	entries, err := m.Host.ReadDir("/etc/cron.d")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.ContainsAny(e.Name(), ".~") || e.IsDir() { // as Debian's cron
			continue
		}
		data, err := m.Host.ReadFile("/etc/cron.d/" + e.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			name, _, _ := strings.Cut(line, "=")
			if line == "" || line[0] == '#' || isName(name) && strings.Contains(line, "=") {
				continue
			}
			if rest, ok := strings.CutPrefix(line, "@reboot "); ok {
				_, command, _ := strings.Cut(strings.TrimSpace(rest), " ")
				if booted {
					out = append(out, command)
				}
				continue
			}
			rest, ok := strings.CutPrefix(line, "* * * * * ")
			user, command, has := strings.Cut(strings.TrimSpace(rest), " ")
			if !ok || !has || user != "root" {
				m.Host.Refuse("/etc/cron.d/"+e.Name(), line)
				continue
			}
			out = append(out, strings.TrimSpace(command))
		}
	}
	return out
}

// cmdPgrep is pgrep -x NAME.
func (s *Site) cmdPgrep(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 3 || p.Args[1] != "-x" {
		return p.Refusef("only pgrep -x NAME")
	}
	entries, _ := p.Host.ReadDir("/proc")
	found := false
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		comm, err := p.Host.ReadFile("/proc/" + e.Name() + "/comm")
		name := strings.TrimSpace(string(comm))
		if name == "crond" {
			name = "cron" // Debian's name of it
		}
		if err == nil && name == p.Args[2] {
			fmt.Fprintln(p.Stdout, e.Name())
			found = true
		}
	}
	return b2i(!found)
}
