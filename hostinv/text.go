package hostinv

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Lang is the language of a text.
type Lang string

// The languages of texts.
const (
	English Lang = "en"
	Chinese Lang = "zh"
)

// pick chooses by language; anything but Chinese is English.
func (l Lang) pick(en, zh string) string {
	if l == Chinese {
		return zh
	}
	return en
}

// word translates the words of findings.
func (l Lang) word(s string) string {
	if l != Chinese {
		return s
	}
	switch s {
	case string(Lost):
		return "丢失"
	case string(Changed):
		return "变化"
	case string(New):
		return "新增"
	case string(Expected):
		return "预期"
	case string(Added):
		return "出现"
	case string(Removed):
		return "消失"
	case string(Unknown):
		return "未知"
	}
	return s
}

// why gives reason and detail.
func (f Finding) why(lang Lang) string {
	s := f.Reason
	if zh, ok := chinese[s]; ok && lang == Chinese {
		s = zh
	}
	if f.Detail != "" {
		s += lang.pick(": ", "：") + f.Detail
	}
	return s
}

// kind is the word for what happened; a change has the word of its severity.
func (f Finding) kind(lang Lang) string { return lang.word(string(f.Kind)) }

// change is "BEFORE → AFTER".
func (f Finding) change(lang Lang, limit int) string {
	if f.Before == "" && f.After == "" {
		return ""
	}
	none := lang.pick("none", "无")
	show := func(s string) string {
		if s == "" {
			return none
		}
		return printable(clip(s, limit))
	}
	b, a := f.Before, f.After
	// Of long lists only what is different.
	if len(b)+len(a) > limit {
		b, a = apart(b, a)
	}
	return show(b) + " → " + show(a)
}

// apart leaves out the words that both texts have.
func apart(b, a string) (string, string) {
	x, y := strings.Fields(b), strings.Fields(a)
	only := func(of, in []string) string {
		var out []string
		for _, w := range of {
			if !slices.Contains(in, w) {
				out = append(out, w)
			}
		}
		return strings.Join(out, " ")
	}
	return only(x, y), only(y, x)
}

func (c *Comparison) summary(lang Lang) string {
	if len(c.Findings) == 0 {
		return lang.pick("no difference", "没有差异")
	}
	return fmt.Sprintf(lang.pick("%d differences: %d lost, %d changed, %d new, %d expected", "共 %d 处差异：丢失 %d，变化 %d，新增 %d，预期 %d"),
		len(c.Findings), c.Count(Lost), c.Count(Changed), c.Count(New), c.Count(Expected))
}

// Text renders the comparison for a person, one finding a line, worst first.
func (c *Comparison) Text(lang Lang) string {
	var b strings.Builder
	for _, f := range c.Findings {
		fmt.Fprintf(&b, "%-8s %-12s %-7s %s", lang.word(string(f.Severity)), f.Area, f.kind(lang), printable(clip(f.Key, 300)))
		if f.Field != "" {
			fmt.Fprintf(&b, " [%s]", printable(f.Field))
		}
		if s := f.change(lang, 200); s != "" {
			fmt.Fprintf(&b, ": %s", s)
		}
		if s := f.why(lang); s != "" {
			fmt.Fprintf(&b, " (%s)", printable(clip(s, 400)))
		}
		b.WriteByte('\n')
	}
	b.WriteString(c.summary(lang) + "\n")
	return b.String()
}

// Markdown renders the comparison as a table for a report or a ticket.
func (c *Comparison) Markdown(lang Lang) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n", c.summary(lang))
	if len(c.Findings) == 0 {
		return b.String()
	}
	b.WriteString(lang.pick("\n| severity | section | what | change | why |\n", "\n| 级别 | 部分 | 对象 | 变化 | 说明 |\n") + "| --- | --- | --- | --- | --- |\n")
	for _, f := range c.Findings {
		what := markdown(clip(f.Key, 300))
		if f.Field != "" {
			what += " " + markdown(f.Field)
		}
		change := f.change(lang, 200)
		if change == "" {
			change = f.kind(lang)
		}
		sev := lang.word(string(f.Severity))
		if f.Severity == Lost {
			sev = "**" + sev + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", sev, f.Area, what, markdown(change), markdown(clip(f.why(lang), 400)))
	}
	return b.String()
}

// markdown keeps what a host says from being markup.
func markdown(s string) string {
	var b strings.Builder
	for _, r := range printable(s) {
		switch r {
		case '\\', '`', '*', '_', '{', '}', '[', ']', '<', '>', '#', '|', '~', '!', '&':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printable keeps what a host says from playing with the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r == 0x7f, r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x2028, r == 0x2029:
			return '?'
		}
		return r
	}, s)
}

// Text renders the inventory for a person: a summary, or the named sections
// with all they hold.
func (i *Inventory) Text(lang Lang, sections ...string) string {
	var b strings.Builder
	line := func(format string, a ...any) {
		b.WriteString(printable(fmt.Sprintf(format, a...)))
		b.WriteByte('\n')
	}
	if len(sections) > 0 {
		for _, name := range sections {
			i.sectionText(lang, name, line)
		}
		return b.String()
	}
	line("%-10s %s", lang.pick("host", "主机"), i.Hostname)
	line("%-10s %s", lang.pick("release", "系统版本"), i.OS.text())
	line("%-10s %s", lang.pick("kernel", "内核"), i.Kernel)
	line("%-10s "+lang.pick("%s, up %s", "%s，已运行 %s"), lang.pick("boot", "启动"), i.BootID, i.Uptime.Truncate(time.Second))
	if i.Docker.Version != "" {
		line("%-10s %s, %s", "docker", i.Docker.Version, i.Docker.StorageDriver)
	}
	for _, n := range i.Interfaces {
		if len(n.Addresses) > 0 && n.Name != "lo" {
			line("%-10s %s %s", lang.pick("address", "地址"), n.Name, strings.Join(n.Addresses, " "))
		}
	}
	for _, l := range i.Listeners {
		who := lang.pick("unknown process", "进程未知")
		if l.PID != 0 {
			who = fmt.Sprintf("%s (%d)", l.Process, l.PID)
		}
		addr := l.Addr
		if strings.Contains(addr, ":") {
			addr = "[" + addr + "]"
		}
		line("%-10s %s %s:%d %s", lang.pick("listener", "监听"), l.Proto, addr, l.Port, who)
	}
	for _, j := range i.Java {
		line("%-10s "+lang.pick("%s in %s as %s, ports %v, pid %d", "%s，目录 %s，用户 %s，端口 %v，pid %d"), "java", j.what(), j.Cwd, j.User, j.Ports, j.PID)
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
		line("%-10s %s %s %s restart=%s %s", lang.pick("container", "容器"), name, c.Image, state, c.RestartPolicy, joined(c.Ports, Port.text))
	}
	running, failed := 0, []string{}
	for _, u := range i.Units {
		if u.Active == "active" && u.Sub == "running" {
			running++
		}
		if u.Active == "failed" {
			failed = append(failed, u.Name)
		}
	}
	none := lang.pick("none", "无")
	if len(failed) == 0 {
		failed = append(failed, none)
	}
	line("%-10s "+lang.pick("%d, %d running, failed: %s", "%d 个，运行 %d 个，失败：%s"), lang.pick("units", "服务"), len(i.Units), running, strings.Join(failed, " "))
	line("%-10s "+lang.pick("%d packages, %d processes, %d users, %d cron lines, %d firewall rules", "软件包 %d，进程 %d，用户 %d，定时任务 %d，防火墙规则 %d"),
		lang.pick("also", "其他"), len(i.Packages), len(i.Processes), len(i.Users), len(i.Cron), len(i.Firewall))
	for _, a := range i.Agents {
		line("%-10s %s (%s): %s", lang.pick("once only", "不可双跑"), a.Name, a.Evidence, a.Why)
	}
	for _, n := range SectionNames() {
		if s := i.Sections[n]; !s.Status.Known() {
			i.notKnown(lang, n, line)
		}
	}
	if i.Noise != "" {
		line("! "+lang.pick("the login shell prints %q", "登录 shell 会输出 %q"), clip(i.Noise, 100))
	}
	return b.String()
}

// notKnown says what of a section is not known, and why.
func (i *Inventory) notKnown(lang Lang, name string, line func(string, ...any)) {
	s, ok := i.Sections[name]
	if !ok {
		s = Section{Status: StatusError, Message: "not collected"}
	}
	line("! "+lang.pick("%s is %s: %s", "%s 状态为 %s：%s"), name, s.Status, s.Message)
	for _, u := range s.Unreadable {
		line("!   "+lang.pick("not readable: %s", "不可读：%s"), u)
	}
}

// sectionText shows a section as its rows.
func (i *Inventory) sectionText(lang Lang, name string, line func(string, ...any)) {
	s := i.Sections[name]
	line("%s: %s", name, s.Status)
	if !s.Status.Known() {
		i.notKnown(lang, name, line)
	}
	for _, r := range i.rows(name) {
		line("  %s", r)
	}
}

// rows are the lines of a section.
func (i *Inventory) rows(name string) (out []string) {
	switch name {
	case SectionUptime:
		return []string{i.Uptime.Truncate(time.Second).String(), fmt.Sprintf("clock skew %s", i.ClockSkew)}
	case SectionListeners, SectionOwners:
		for _, l := range i.Listeners {
			out = append(out, fmt.Sprintf("%s %s %d uid %d %s %d", l.Proto, l.Addr, l.Port, l.UID, l.Process, l.PID))
		}
		return out
	case SectionProcesses:
		for _, p := range i.Processes {
			out = append(out, fmt.Sprintf("%d %s %s exe %s cwd %s unit %s since %s", p.PID, p.User, p.Program, p.Exe, p.Cwd, p.Unit, p.Started.Format(time.RFC3339)))
		}
		return out
	case SectionConnections:
		for _, p := range i.Connections {
			out = append(out, fmt.Sprintf("%s %s local %d peer %s %d: %d", p.Direction, p.Process, p.LocalPort, p.IP, p.Port, p.Count))
		}
		return out
	case SectionAgents:
		for _, a := range i.Agents {
			out = append(out, a.Name+" ("+a.Evidence+"): "+a.Why)
		}
		return out
	}
	for _, a := range areas {
		if a.section != name {
			continue
		}
		for _, r := range a.rows(i) {
			s := r.key
			for _, f := range r.fields {
				if f.value != "" {
					s += strings.TrimRight("  "+f.name, " ") + " " + f.value
				}
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// what is what the process runs.
func (j Java) what() string {
	if j.Jar != "" {
		return j.Jar
	}
	return j.MainClass
}
