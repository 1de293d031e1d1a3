package hostinv

import (
	"crypto/sha256"
	"encoding/base64"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// settingLines are the lines of files that are no comments.
func settingLines(list []Line) []Line {
	var out []Line
	for _, l := range list {
		text := strings.Join(strings.Fields(l.Text), " ")
		if text != "" && !strings.HasPrefix(text, "#") && !strings.HasPrefix(text, ";") {
			out = append(out, Line{l.Source, redactLine(text)})
		}
	}
	return out
}

// volatileSysctl changes by itself, is a secret, or repeats another section.
func volatileSysctl(k string) bool {
	switch k {
	case "kernel.ns_last_pid", "kernel.acct", "kernel.hostname", "kernel.domainname", "kernel.osrelease", "kernel.version", "kernel.sched_domain",
		"kernel.tainted", "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_buckets", "kernel.cad_pid", "vm.stat_refresh",
		"kernel.perf_event_max_sample_rate", "kernel.perf_cpu_time_max_percent", "vm.user_reserve_kbytes", "vm.admin_reserve_kbytes", "vm.min_free_kbytes":
		return true
	}
	return strings.Contains(k, "stable_secret") || strings.HasPrefix(k, "kernel.random.") || strings.HasPrefix(k, "kernel.pty.") || strings.HasSuffix(k, "_count")
}

func (inv *Inventory) fillSysctl(f *frame) (Status, string) {
	inv.Sysctl.Runtime, inv.Sysctl.Configured = map[string]string{}, map[string]string{}
	for _, l := range f.fileLines("runtime") {
		k, ok := strings.CutPrefix(l.Source, "/proc/sys/")
		k = strings.ReplaceAll(k, "/", ".")
		if !ok || volatileSysctl(k) {
			continue
		}
		v := strings.Join(strings.Fields(strings.ToValidUTF8(l.Text, "\uFFFD")), " ")
		if old, more := inv.Sysctl.Runtime[k]; more {
			v = old + "\n" + v
		}
		inv.Sysctl.Runtime[k] = v
	}
	// The later file wins; of one name, the directory that comes last here.
	lines := settingLines(f.fileLines("configured"))
	sort.SliceStable(lines, func(i, j int) bool { return sysctlOrder(lines[i].Source) < sysctlOrder(lines[j].Source) })
	for _, l := range lines {
		k, v, ok := strings.Cut(strings.TrimPrefix(l.Text, "-"), "=")
		if k = strings.ReplaceAll(strings.TrimSpace(k), "/", "."); ok && k != "" {
			inv.Sysctl.Configured[k] = strings.TrimSpace(v)
		}
	}
	if len(inv.Sysctl.Runtime) == 0 {
		return unreadable("/proc/sys")
	}
	return StatusOK, ""
}

func sysctlOrder(file string) string {
	if file == "/etc/sysctl.conf" {
		return "\xff" // the last of all
	}
	return path.Base(file)
}

func (inv *Inventory) fillLimits(f *frame) (Status, string) {
	inv.Limits = settingLines(f.fileLines("files"))
	return StatusOK, ""
}

func (inv *Inventory) fillModules(f *frame) (Status, string) {
	for _, line := range f.rows("") {
		name, _, _ := strings.Cut(line, " ")
		inv.Modules = append(inv.Modules, name)
	}
	sort.Strings(inv.Modules)
	return StatusOK, ""
}

func (inv *Inventory) fillSecurity(f *frame) (Status, string) {
	s := &inv.Security
	switch strings.TrimSpace(f.text("enforce")) {
	case "1":
		s.SELinux = "enforcing"
	case "0":
		s.SELinux = "permissive"
	}
	for _, l := range f.fileLines("config") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l.Text), "SELINUX="); ok {
			s.SELinuxConfigured = strings.TrimSpace(v)
		}
	}
	s.AppArmor = strings.TrimSpace(f.text("apparmor")) == "Y"
	for _, line := range f.rows("profiles") {
		s.Profiles = append(s.Profiles, strings.TrimSpace(line))
	}
	sort.Strings(s.Profiles)
	return StatusOK, ""
}

func (inv *Inventory) fillUsers(f *frame) (Status, string) {
	for _, l := range f.fileLines("passwd") {
		w := strings.Split(l.Text, ":")
		if len(w) < 7 {
			continue
		}
		uid, err1 := strconv.Atoi(w[2])
		gid, err2 := strconv.Atoi(w[3])
		if err1 == nil && err2 == nil {
			inv.Users = append(inv.Users, User{w[0], uid, gid, w[5], w[6]})
		}
	}
	for _, l := range f.fileLines("group") {
		w := strings.Split(l.Text, ":")
		if len(w) < 4 {
			continue
		}
		g := Group{Name: w[0]}
		var err error
		if g.GID, err = strconv.Atoi(w[2]); err != nil {
			continue
		}
		for m := range strings.SplitSeq(w[3], ",") {
			if m != "" {
				g.Members = append(g.Members, m)
			}
		}
		sort.Strings(g.Members)
		inv.Groups = append(inv.Groups, g)
	}
	inv.Sudoers = digests(f.rows("sudoers"))
	if len(inv.Users) == 0 {
		return unreadable("/etc/passwd")
	}
	byUID := map[string]string{}
	for _, u := range slices.Backward(inv.Users) {
		byUID[strconv.Itoa(u.UID)] = u.Name
	}
	java := map[int]string{}
	for i := range inv.Processes {
		p := &inv.Processes[i]
		if name := byUID[p.uid]; name != "" {
			p.User = name
			java[p.PID] = name
		}
	}
	for i := range inv.Java {
		if name := java[inv.Java[i].PID]; name != "" {
			inv.Java[i].User = name
		}
	}
	return StatusOK, ""
}

func (inv *Inventory) fillSSH(f *frame) (Status, string) {
	mode := map[string]string{}
	for _, line := range f.rows("modes") {
		w := strings.Fields(line)
		if i := strings.Index(line, " /"); i > 0 && len(w) > 4 {
			name, _, _ := strings.Cut(line[i+1:], " -> ")
			mode[name] = strings.TrimRight(w[0], ".+") + " " + w[2] + " " + w[3]
		}
	}
	for _, file := range digests(f.rows("files")) {
		file.Mode = mode[file.Path]
		inv.SSH.Files = append(inv.SSH.Files, file)
	}
	if m := mode["/root/.ssh"]; m != "" {
		inv.SSH.Files = append(inv.SSH.Files, File{Path: "/root/.ssh", Mode: m})
	}
	inv.SSH.Keys, inv.SSH.HostKeys = keys(f.fileLines("keys")), keys(f.fileLines("host"))
	return StatusOK, ""
}

// keys reads public keys, with or without options before them.
func keys(list []Line) []Key {
	var out []Key
	for _, l := range list {
		w := strings.Fields(l.Text)
		for i := 0; i+1 < len(w); i++ {
			if strings.HasPrefix(w[0], "#") {
				break
			}
			raw, err := base64.StdEncoding.DecodeString(w[i+1])
			if err != nil || len(raw) < 16 || !strings.HasPrefix(string(raw[4:]), w[i]) {
				continue
			}
			sum := sha256.Sum256(raw)
			out = append(out, Key{l.Source, w[i], "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), strings.Join(w[i+2:], " ")})
			break
		}
	}
	return out
}

func (inv *Inventory) fillTime(f *frame) (Status, string) {
	t := &inv.Time
	if _, zone, ok := strings.Cut(f.text("zone"), "zoneinfo/"); ok {
		t.Zone = strings.TrimSpace(zone)
	}
	for _, l := range settingLines(f.fileLines("files")) {
		if l.Source == "/etc/timezone" {
			if t.Zone == "" {
				t.Zone = l.Text
			}
			continue
		}
		switch word, _, _ := strings.Cut(l.Text, " "); {
		case word == "server", word == "pool", word == "peer", strings.HasPrefix(word, "NTP="), strings.HasPrefix(word, "FallbackNTP="):
			t.Servers = append(t.Servers, l)
		}
	}
	for _, line := range f.rows("synced") {
		k, v, _ := strings.Cut(line, ":")
		switch {
		case strings.TrimSpace(line) == "timesyncd":
			t.Synced = "yes"
		case strings.TrimSpace(k) == "Leap status":
			t.Synced = "yes"
			if strings.Contains(v, "Not synchronised") {
				t.Synced = "no"
			}
		}
	}
	for _, p := range inv.Processes {
		for _, d := range []string{"chronyd", "ntpd", "systemd-timesyncd", "openntpd"} {
			if p.Program == d && !slices.Contains(t.Daemons, d) {
				t.Daemons = append(t.Daemons, d)
			}
		}
	}
	sort.Strings(t.Daemons)
	return StatusOK, ""
}
