package hostinv

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// lastingAge is how long a process must have run to be taken for one that stays.
const lastingAge = 5 * time.Minute

// ticks is USER_HZ, which is 100 on every architecture this is for.
const ticks = 100

// proc is a process as its parts arrive.
type proc struct {
	Process
	state, uid string
	owner      string // as ls names it
	start      float64
	hasArgs    bool
	hidden     bool // this user may not see its links
}

// procLine splits /proc/PID/FILE:TEXT as grep writes it.
func procLine(line string) (pid int, file, text string, ok bool) {
	rest, ok := strings.CutPrefix(line, "/proc/")
	if !ok {
		return 0, "", "", false
	}
	n := 0
	for n < len(rest) && n < 10 && '0' <= rest[n] && rest[n] <= '9' {
		pid = 10*pid + int(rest[n]-'0')
		n++
	}
	colon := strings.IndexByte(rest, ':')
	if pid == 0 || colon <= n || rest[n] != '/' {
		return 0, "", "", false
	}
	return pid, rest[n+1 : colon], rest[colon+1:], true
}

// word returns the nth word of a line whose words are separated by spaces,
// counted from 0; "" when there are fewer.
func word(line string, n int) string {
	for {
		line = strings.TrimLeft(line, " ")
		end := strings.IndexByte(line, ' ')
		if n == 0 && end >= 0 {
			return line[:end]
		}
		if n == 0 || end < 0 {
			break
		}
		line, n = line[end:], n-1
	}
	if n == 0 {
		return line
	}
	return ""
}

// fillStatus reads a line of /proc/PID/status.
func (p *proc) fillStatus(line string) {
	k, v, _ := strings.Cut(line, ":")
	v = strings.TrimLeft(v, "\t ")
	switch k {
	case "Name":
		p.Name = v
	case "State":
		p.state, _, _ = strings.Cut(v, " ")
	case "PPid":
		p.PPID, _ = strconv.Atoi(v) // the kernel's own number
	case "Uid":
		p.uid, _, _ = strings.Cut(v, "\t")
	}
}

func (inv *Inventory) fillProcesses(f *frame) (Status, string) {
	procs := map[int]*proc{}
	status, message := StatusOK, ""
	cut := func(what string, rc int, whole bool) bool {
		switch {
		case !whole:
			status, message = StatusTruncated, "the list of "+what+" ended early"
		case rc == 124 || rc == 137:
			status, message = StatusTimeout, "the host took longer than 20 s to list "+what
		default:
			return true
		}
		return false
	}
	rows, rc, whole := f.proved("tables")
	cut("processes", rc, whole)
	for _, line := range rows {
		pid, file, text, ok := procLine(line)
		if !ok {
			continue
		}
		p := procs[pid]
		switch file {
		case "status":
			if p == nil {
				p = &proc{Process: Process{PID: pid}}
				procs[pid] = p
			}
			p.fillStatus(text)
		case "stat":
			// A name with a line feed is cut off: what follows is on the next line.
			// Field 22, of which two stand before the parenthesis.
			if i := strings.LastIndexByte(text, ')'); i >= 0 && p != nil {
				if w := word(text[i+1:], 19); w != "" {
					p.start, _ = strconv.ParseFloat(w, 64) // the kernel's own number
				}
			}
		case "cgroup":
			if p == nil {
				continue
			}
			if id := containerOf(text); id != "" {
				p.Container = id
			} else if base := path.Base(text); strings.HasSuffix(base, ".service") && !strings.Contains(text, "/user@") {
				p.Unit = base
			}
		}
	}
	owners := inv.fillSockets(f, procs, cut)
	hidden := 0
	for _, p := range procs {
		if p.hasArgs && p.hidden {
			hidden++
		}
	}
	inv.Sections[SectionOwners] = Section{Status: StatusOK}
	switch {
	case status == StatusTruncated || status == StatusTimeout:
		return status, message
	case !owners:
		return StatusError, "the processes cannot be listed"
	case procs[1] == nil:
		f.lacks = append(f.lacks, "processes of other users")
	}
	inv.fillTable(procs)
	if hidden > 0 {
		f.lacks = append(f.lacks, "program, directory, environment names and sockets of "+strconv.Itoa(hidden)+" processes")
	}
	if len(f.lacks) > 0 {
		status, message = StatusPartial, "processes of other users can be read by root alone"
		inv.Sections[SectionOwners] = Section{Status: StatusPartial, Message: message, Unreadable: slices.Clone(f.lacks)}
		inv.Sections[SectionAgents] = inv.Sections[SectionOwners]
	}
	return status, message
}

// fillSockets reads what a process alone may show: command line, links,
// environment, sockets; from the whole tables, or process by process.
func (inv *Inventory) fillSockets(f *frame, procs map[int]*proc, cut func(string, int, bool) bool) bool {
	inv.owners = map[string]int{}
	own := func(inode string, pid int) {
		// The process that is oldest: a master before its workers.
		if o, ok := inv.owners[inode]; ok {
			a, b := procs[o], procs[pid]
			if a != nil && b != nil && (a.start < b.start || a.start == b.start && o < pid) {
				return
			}
		}
		inv.owners[inode] = pid
	}
	arg := func(s string) string { return strings.ReplaceAll(s, "\x01", "\n") } // s itself without any
	if _, tables := f.get("cmdline"); tables {
		rows := strings.Split(f.text("cmdline"), "\n")
		before := 0
		var p *proc
		rc, whole := 0, false
		if n := len(rows) - 1; strings.HasPrefix(rows[n], "rc ") {
			// tr made of its line feed what it makes of those in arguments.
			v, err := strconv.Atoi(strings.TrimRight(rows[n][3:], "\x01"))
			rc, whole, rows = v, err == nil, rows[:n]
		}
		cut("command lines", rc, whole)
		for _, line := range rows {
			pid, file, text, ok := procLine(line)
			if !ok || file != "cmdline" {
				continue
			}
			if pid != before {
				before, p = pid, procs[pid]
			}
			if p != nil {
				p.args = append(p.args, arg(text))
				p.hasArgs = p.hasArgs || text != ""
			}
		}
		rows, rc, whole = f.proved("environ")
		cut("environments", rc, whole)
		last := ""
		p = nil
		for _, line := range rows {
			n, name, _ := strings.Cut(line, " ")
			if n != last {
				last, p = n, nil
				if pid, err := strconv.Atoi(n); err == nil {
					p = procs[pid]
				}
			}
			if p != nil {
				p.Environment = append(p.Environment, name)
			}
		}
		rows, rc, whole = f.proved("links")
		cut("programs", rc, whole)
		for _, line := range rows {
			if said, denied := strings.CutSuffix(line, ": Permission denied"); denied && strings.HasPrefix(line, "ls: ") {
				// ls: cannot read symbolic link '/proc/1/cwd', with quotes or without
				if _, name, ok := strings.Cut(said, "/proc/"); ok {
					n, _, _ := strings.Cut(name, "/")
					if pid, err := strconv.Atoi(n); err == nil && procs[pid] != nil {
						procs[pid].hidden = true
					}
				}
				continue
			}
			i := strings.Index(line, " /proc/")
			if i < 0 {
				continue
			}
			name, target, shown := strings.Cut(line[i+1:], " -> ")
			n, kind, _ := strings.Cut(strings.TrimPrefix(name, "/proc/"), "/")
			pid, err := strconv.Atoi(n)
			p := procs[pid]
			if err != nil || p == nil || strings.Contains(kind, "/") {
				continue
			}
			if h := word(line[:i], 2); h != "" {
				p.owner = h
			}
			switch {
			case !shown:
			case kind == "cwd":
				p.Cwd = unescapeLs(target)
			default:
				p.Exe = unescapeLs(target)
			}
		}
		rows, rc, whole = f.proved("sockets")
		cut("sockets", rc, whole)
		pid := 0
		for _, line := range rows {
			if n, ok := strings.CutPrefix(line, "P "); ok {
				pid, _ = strconv.Atoi(n) // sed let digits pass
			} else if pid > 0 {
				own(line, pid)
			}
		}
		return len(procs) > 0
	}
	for _, i := range f.items {
		what, n, _ := strings.Cut(i.label, " ")
		pid, err := strconv.Atoi(n)
		p := procs[pid]
		if err != nil || p == nil {
			continue
		}
		text := string(i.data)
		switch what {
		case "cmdline":
			for _, a := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
				p.args = append(p.args, arg(a))
			}
			p.hasArgs = p.args[0] != ""
		case "environ":
			p.Environment = strings.Fields(text)
		case "exe": // readlink adds one line feed; the rest belongs to the name
			p.Exe = strings.TrimSuffix(text, "\n")
		case "cwd":
			p.Cwd = strings.TrimSuffix(text, "\n")
			p.hidden = p.Cwd == "" && inv.UID != 0 // of root's own, the process ends
		case "fd":
			for inode := range strings.FieldsSeq(text) {
				own(inode, pid)
			}
		}
	}
	return len(procs) > 0
}

// unescapeLs undoes the escapes of ls -b.
func unescapeLs(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		i++
		if n := strings.IndexByte("abfnrtv", s[i]); n >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v"[n])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// fillTable makes the processes and the Java processes.
func (inv *Inventory) fillTable(procs map[int]*proc) {
	now := time.Unix(inv.clock, 0).UTC()
	unreadable := 0
	inv.Processes = make([]Process, 0, len(procs))
	for _, pid := range slices.Sorted(maps.Keys(procs)) {
		p := procs[pid]
		if !p.hasArgs && p.Exe != "" {
			p.args, p.hasArgs = []string{p.Exe}, true // none are shown, but it is no kernel thread
		}
		if p.PPID == 2 || p.PID == 2 || !p.hasArgs || p.state == "Z" || p.state == "X" {
			continue // kernel threads and the dead
		}
		p.Program = program(p.Exe, p.args, p.Name)
		p.User = p.uid
		if p.owner != "" && p.owner != "root" || p.uid == "0" {
			p.User = p.owner
		}
		if p.User == "" {
			p.User = p.uid
		}
		p.Process.uid, p.Process.args = p.uid, p.args
		age := inv.Uptime - time.Duration(p.start/ticks*float64(time.Second))
		if inv.clock != 0 && inv.Uptime > 0 {
			p.Started = now.Add(-age).Truncate(time.Second)
		}
		sort.Strings(p.Environment)
		p.Environment = slices.Compact(p.Environment)
		p.Lasting = age >= lastingAge && (p.PPID <= 1 || p.Unit != "" || p.Container != "")
		inv.Processes = append(inv.Processes, p.Process)
		if base := path.Base(strings.TrimSuffix(p.Exe, " (deleted)")); base != "java" && path.Base(p.args[0]) != "java" {
			continue
		}
		if p.hidden && p.Cwd == "" {
			unreadable++
		}
		j := Java{PID: p.PID, Cwd: p.Cwd, Exe: p.Exe, User: p.User, Container: p.Container, Unit: p.Unit}
		j.Jar, j.MainClass = mainOf(p.args)
		j.Args = redactArgs(p.args)
		inv.Java = append(inv.Java, j)
	}
	inv.Sections[SectionJava] = Section{Status: StatusOK}
	if procs[1] == nil || unreadable > 0 {
		inv.Sections[SectionJava] = Section{Status: StatusPartial, Message: "Java processes of other users can be read by root alone",
			Unreadable: []string{"program and directory of " + strconv.Itoa(unreadable) + " Java processes"}}
	}
	inv.Sections[SectionAgents] = Section{Status: StatusOK}
}

// interpreters run scripts: the script is the program. Never written to.
var interpreters = []string{"python", "perl", "ruby", "php", "node", "bash", "sh", "dash", "zsh", "ksh", "lua"}

// program is what a process is called by: the program's base name, and of a
// script that of the script as well.
func program(exe string, args []string, name string) string {
	base := path.Base(strings.TrimSuffix(exe, " (deleted)"))
	if exe == "" {
		// A program may have rewritten its command line.
		base = name
		if len(args) > 0 && path.IsAbs(args[0]) && !strings.Contains(args[0], " ") {
			base = path.Base(args[0])
		}
	}
	if slices.Contains(interpreters, strings.TrimRight(base, "0123456789.")) {
		for n, a := range args {
			if n == 0 || strings.HasPrefix(a, "-") && a != "-c" {
				continue
			}
			if a == "-c" {
				break // text, which may hold secrets
			}
			return base + " " + path.Base(a)
		}
	}
	return base
}

// containerID finds the ID in a path of /proc/PID/cgroup, of version 1
// (/docker/ID) and 2 (docker-ID.scope).
var containerID = regexp.MustCompile(`docker[-/]([0-9a-f]{64})(\.scope)?(\n|$|/)`)

func containerOf(cgroup string) string {
	if !strings.Contains(cgroup, "docker") {
		return "" // as of most processes
	}
	if m := containerID.FindStringSubmatch(cgroup); m != nil {
		return m[1]
	}
	return ""
}

// withValue are the java options whose value is the next argument. Never
// written to.
var withValue = []string{
	"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
	"--add-reads", "--add-exports", "--add-opens", "--limit-modules", "--patch-module", "--enable-native-access",
}

// mainOf finds what a java command line runs.
func mainOf(args []string) (jar, class string) {
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-jar" || a == "-m" || a == "--module":
			if i+1 >= len(args) {
				return "", ""
			}
			if a == "-jar" {
				return args[i+1], ""
			}
			return "", args[i+1]
		case slices.Contains(withValue, a):
			i++
		case strings.HasPrefix(a, "-"), strings.HasPrefix(a, "@"), a == "":
		default:
			return "", a
		}
	}
	return "", ""
}
