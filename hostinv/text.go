package hostinv

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Text renders the comparison for a person, one finding a line, worst first.
func (c *Comparison) Text() string {
	if len(c.Findings) == 0 {
		return "no difference\n"
	}
	var b strings.Builder
	for _, f := range c.Findings {
		sev := string(f.Severity)
		if f.Expected {
			sev = "expected"
		}
		fmt.Fprintf(&b, "%-8s %-10s %-7s %s", sev, f.Area, f.Kind, printable(f.Key))
		if f.Field != "" {
			fmt.Fprintf(&b, " %s", f.Field)
		}
		if f.Before != "" || f.After != "" {
			fmt.Fprintf(&b, ": %s → %s", orNone(f.Before), orNone(f.After))
		}
		if f.Reason != "" {
			fmt.Fprintf(&b, " (%s)", printable(f.Reason))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d differences, %d of them losses\n", len(c.Findings), len(c.Losses()))
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return printable(clip(s, 200))
}

// printable keeps what a host says from playing with the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Text renders the inventory for a person.
func (i *Inventory) Text() string {
	var b strings.Builder
	line := func(format string, a ...any) {
		b.WriteString(printable(fmt.Sprintf(format, a...)))
		b.WriteByte('\n')
	}
	line("host      %s", i.Hostname)
	release := i.OS.text()
	line("release   %s", release)
	line("kernel    %s", i.Kernel)
	line("boot      %s, up %s", i.BootID, i.Uptime.Truncate(time.Second))
	if i.Docker != "" {
		line("docker    %s", i.Docker)
	}
	for _, l := range i.Listeners {
		who := "unknown process"
		if l.PID != 0 {
			who = fmt.Sprintf("%s (%d)", l.Process, l.PID)
		}
		addr := l.Addr
		if strings.Contains(addr, ":") {
			addr = "[" + addr + "]"
		}
		line("listener  %s %s:%d %s", l.Proto, addr, l.Port, who)
	}
	for _, j := range i.Java {
		what := j.Jar
		if what == "" {
			what = j.MainClass
		}
		line("java      %s in %s as %s, ports %v, pid %d", what, j.Cwd, j.User, j.Ports, j.PID)
	}
	for _, c := range i.Containers {
		name := c.Name
		if c.Compose.Project != "" {
			name += fmt.Sprintf(" (compose %s/%s in %s)", c.Compose.Project, c.Compose.Service, c.Compose.Dir)
		}
		state := c.State
		if c.Health != "" {
			state += " " + c.Health
		}
		line("container %s %s %s restart=%s %s", name, c.Image, state, c.RestartPolicy, values(c.Ports, Port.text))
	}
	running, failed := 0, []string{}
	for _, u := range i.Units {
		if u.runs() {
			running++
		}
		if u.Active == "failed" {
			failed = append(failed, u.Name)
		}
	}
	line("units     %d, %d running, failed: %s", len(i.Units), running, orNone(strings.Join(failed, " ")))
	var names []string
	for n, s := range i.Sections {
		if !s.Status.Known() {
			names = append(names, n)
		}
	}
	sort.Slice(names, func(a, b int) bool {
		return slices.Index(sectionNames, names[a]) < slices.Index(sectionNames, names[b])
	})
	for _, n := range names {
		line("! %s is %s: %s", n, i.Sections[n].Status, i.Sections[n].Message)
	}
	if i.Noise != "" {
		line("! the login shell prints %q", clip(i.Noise, 100))
	}
	return b.String()
}
