package hostinv

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
)

func (inv *Inventory) fillDocker(f *frame) (Status, string) {
	for _, file := range digests(f.rows("daemon")) {
		inv.Docker.DaemonJSON = file.SHA256
	}
	d := &inv.Docker
	var raw []json.RawMessage
	fields := []any{&d.Version, &d.StorageDriver, &d.LogDriver, &d.CgroupDriver, &d.RootDir, &d.LiveRestore}
	if json.Unmarshal([]byte(f.text("info")), &raw) != nil || len(raw) != len(fields) {
		return unreadable("the answer of docker info")
	}
	for i := range fields {
		if json.Unmarshal(raw[i], fields[i]) != nil {
			return unreadable("the answer of docker info")
		}
	}
	return StatusOK, ""
}

// digests reads the output of sha256sum.
func digests(rows []string) []File {
	var out []File
	for _, line := range rows {
		escaped := strings.HasPrefix(line, `\`)
		sum, name, ok := strings.Cut(strings.TrimPrefix(line, `\`), "  ")
		if !ok || len(sum) != 64 {
			continue
		}
		if escaped {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(name)
		}
		out = append(out, File{Path: name, SHA256: sum})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

type inspectPort struct{ HostIp, HostPort string }

func (inv *Inventory) fillContainers(f *frame) (Status, string) {
	want := len(strings.Fields(f.text("ids")))
	digest := map[string][]string{}
	for _, line := range f.rows("images") {
		var image []string // ID, repository, digest
		if json.Unmarshal([]byte(line), &image) == nil && len(image) == 3 && strings.HasPrefix(image[2], "sha256:") {
			digest[image[0]] = append(digest[image[0]], image[1]+"@"+image[2])
		}
	}
	broken := 0
	for _, line := range strings.Split(f.text("inspect"), "\n") {
		if !strings.HasPrefix(line, "[") {
			continue
		}
		c, ok := parseContainer(line)
		if !ok {
			broken++
			continue
		}
		c.Digests = slices.Compact(slices.Sorted(slices.Values(digest[c.ImageID])))
		inv.Containers = append(inv.Containers, c)
	}
	sort.Slice(inv.Containers, func(i, j int) bool { return inv.Containers[i].Name < inv.Containers[j].Name })
	switch {
	case broken > 0:
		return StatusError, strconv.Itoa(broken) + " containers cannot be read from docker inspect"
	case len(inv.Containers) != want && f.rc == 0:
		return StatusPartial, "docker inspect described " + strconv.Itoa(len(inv.Containers)) + " of " + strconv.Itoa(want) + " containers"
	case f.rc == 12:
		return StatusPartial, "a container vanished while it was looked at"
	}
	return StatusOK, ""
}

func parseContainer(line string) (c Container, ok bool) {
	var name, health, policy *string
	var labels []*string
	var bindings, ports map[string][]inspectPort
	var mounts [][]any
	var networks, environment []*string
	fields := []any{&c.ID, &name, &c.Image, &c.ImageID, &c.State, &c.ExitCode, &health, &policy, &labels, &bindings, &ports, &c.PID, &mounts, &networks, &environment}
	var raw []json.RawMessage
	if json.Unmarshal([]byte(line), &raw) != nil || len(raw) != len(fields) {
		return c, false
	}
	for i := range fields {
		if json.Unmarshal(raw[i], fields[i]) != nil {
			return c, false
		}
	}
	str := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	c.Name = strings.TrimPrefix(str(name), "/")
	c.Health = str(health)
	c.RestartPolicy = str(policy)
	if c.RestartPolicy == "" {
		c.RestartPolicy = "no"
	}
	if len(labels) == 5 {
		c.Compose = Compose{str(labels[0]), str(labels[1]), str(labels[2]), str(labels[3]), str(labels[4])}
	}
	for _, m := range mounts {
		if len(m) != 5 { // the null that ends the list
			continue
		}
		var v Volume
		v.Type, _ = m[0].(string)
		v.Source, _ = m[1].(string)
		if n, _ := m[2].(string); n != "" {
			v.Source = n
			if len(n) == 64 && strings.Trim(n, "0123456789abcdef") == "" {
				v.Source = "" // a volume without a name
			}
		}
		v.Target, _ = m[3].(string)
		rw, ok := m[4].(bool)
		v.ReadOnly = ok && !rw
		c.Volumes = append(c.Volumes, v)
	}
	sort.Slice(c.Volumes, func(i, j int) bool { return c.Volumes[i].Target < c.Volumes[j].Target })
	c.Networks, c.Environment = names(networks), names(environment)
	// What was asked for stays when the container is stopped; what docker
	// chose itself (-P) is known only while it runs.
	c.Ports = []Port{}
	seen := map[Port]bool{}
	for _, m := range []map[string][]inspectPort{bindings, ports} {
		for spec, list := range m {
			p, proto, _ := strings.Cut(spec, "/")
			cport, err := strconv.Atoi(p)
			if err != nil {
				continue
			}
			for _, b := range list {
				host, err := strconv.Atoi(b.HostPort)
				if err != nil || host == 0 {
					continue
				}
				if b.HostIp == "" || b.HostIp == "::" {
					b.HostIp = "0.0.0.0"
				}
				if x := (Port{proto, cport, b.HostIp, host}); !seen[x] {
					seen[x] = true
					c.Ports = append(c.Ports, x)
				}
			}
		}
	}
	sort.Slice(c.Ports, func(i, j int) bool {
		a, b := c.Ports[i], c.Ports[j]
		if a.HostPort != b.HostPort {
			return a.HostPort < b.HostPort
		}
		return a.Proto+a.HostIP+strconv.Itoa(a.ContainerPort) < b.Proto+b.HostIP+strconv.Itoa(b.ContainerPort)
	})
	return c, c.ID != "" && c.Name != ""
}

// names are strings that are there, sorted.
func names(list []*string) []string {
	var out []string
	for _, s := range list {
		if s != nil {
			out = append(out, *s)
		}
	}
	sort.Strings(out)
	return slices.Compact(out)
}

func (inv *Inventory) fillUnits(f *frame) (Status, string) {
	units := map[string]*Unit{}
	get := func(name string) *Unit {
		if units[name] == nil {
			units[name] = &Unit{Name: name}
		}
		return units[name]
	}
	for _, line := range strings.Split(f.text("active"), "\n") {
		w := strings.Fields(line)
		if len(w) > 0 && (w[0] == "●" || w[0] == "*") { // older systemctl marks failed units
			w = w[1:]
		}
		if len(w) < 4 || !strings.Contains(w[0], ".") {
			continue
		}
		u := get(w[0])
		u.Load, u.Active, u.Sub = w[1], w[2], w[3]
	}
	for _, line := range strings.Split(f.text("files"), "\n") {
		w := strings.Fields(line)
		if len(w) < 2 || !strings.Contains(w[0], ".") {
			continue
		}
		get(w[0]).Enabled = w[1]
	}
	for _, file := range digests(f.rows("own")) {
		name := path.Base(file.Path)
		if strings.HasSuffix(name, ".conf") {
			name = strings.TrimSuffix(path.Base(path.Dir(file.Path)), ".d")
		}
		if u := units[name]; u != nil {
			u.SHA256 += file.SHA256
		}
	}
	for _, u := range units {
		u.SHA256 = digestOf(u.SHA256)
		inv.Units = append(inv.Units, *u)
	}
	sort.Slice(inv.Units, func(i, j int) bool { return inv.Units[i].Name < inv.Units[j].Name })
	if len(inv.Units) == 0 {
		return StatusError, "systemctl listed no unit"
	}
	return StatusOK, ""
}

// digestOf is one digest of several, and that of one itself.
func digestOf(s string) string {
	if len(s) <= 64 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// programStates are those of supervisord. Never written to.
var programStates = []string{"STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"}

func (inv *Inventory) fillSupervisor(f *frame) (Status, string) {
	by := map[string]*Program{}
	var cur *Program
	for _, l := range f.fileLines("config") {
		text, _, _ := strings.Cut(strings.TrimSpace(l.Text), " ;")
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "[") {
			cur = nil
			for _, kind := range []string{"program:", "eventlistener:", "fcgi-program:"} {
				if name, ok := strings.CutPrefix(strings.TrimSuffix(text[1:], "]"), kind); ok {
					cur = &Program{Name: strings.TrimSpace(name), Source: l.Source}
					by[cur.Name] = cur
				}
			}
			continue
		}
		k, v, ok := strings.Cut(text, "=")
		if k = strings.TrimSpace(k); cur == nil || !ok || strings.HasPrefix(text, ";") || strings.HasPrefix(text, "#") {
			continue
		}
		switch k {
		case "command", "directory", "user", "autostart", "autorestart", "numprocs", "process_name", "startsecs", "stopsignal", "priority":
			cur.Settings = append(cur.Settings, k+"="+redactLine(strings.TrimSpace(v)))
		}
	}
	answered := len(f.rows("status")) == 0 && len(by) == 0
	for _, line := range f.rows("status") {
		w := strings.Fields(line)
		if len(w) < 2 || !slices.Contains(programStates, w[1]) {
			continue
		}
		answered = true
		_, name, grouped := strings.Cut(w[0], ":")
		if !grouped {
			name = w[0]
		}
		// One program may have several processes: GROUP:NAME_00, GROUP:NAME_01.
		p := by[w[0]]
		if p == nil {
			p = &Program{Name: w[0]}
			for _, known := range []string{name, strings.TrimRight(name, "_0123456789"), strings.TrimSuffix(w[0], ":"+name)} {
				if c := by[known]; c != nil {
					p.Source, p.Settings = c.Source, c.Settings
					if c.State == "" && c.Name == w[0] {
						p = c
					} else {
						c.State = "-" // its processes are listed
					}
					break
				}
			}
			by[w[0]] = p
		}
		p.State = w[1]
	}
	for _, p := range by {
		if p.State != "-" {
			sort.Strings(p.Settings)
			inv.Supervisor = append(inv.Supervisor, *p)
		}
	}
	sort.Slice(inv.Supervisor, func(i, j int) bool { return inv.Supervisor[i].Name < inv.Supervisor[j].Name })
	supervised := inv.Sections[SectionProcesses].Status != StatusOK ||
		slices.ContainsFunc(inv.Processes, func(p Process) bool { return strings.Contains(p.Program, "supervisord") })
	if !answered && !supervised {
		for i := range inv.Supervisor {
			inv.Supervisor[i].State = "no supervisord"
		}
	} else if !answered {
		f.lacks = append(f.lacks, "supervisorctl status: "+clip(strings.ToValidUTF8(f.text("status"), "\uFFFD"), 120))
	}
	return StatusOK, ""
}

func (inv *Inventory) fillCron(f *frame) (Status, string) {
	for _, l := range f.fileLines("tabs") {
		if text := strings.Join(strings.Fields(l.Text), " "); text != "" && !strings.HasPrefix(text, "#") {
			inv.Cron = append(inv.Cron, Line{l.Source, redactLine(text)})
		}
	}
	for _, kind := range []string{"scripts", "at"} {
		for _, name := range f.rows(kind) {
			inv.Cron = append(inv.Cron, Line{path.Dir(name), path.Base(name)})
		}
	}
	sort.SliceStable(inv.Cron, func(i, j int) bool { return inv.Cron[i].Source < inv.Cron[j].Source })
	return StatusOK, ""
}

// nginx -V writes its version and, on one line, what it was built with.
func (inv *Inventory) fillNginx(f *frame) (Status, string) {
	for _, line := range f.rows("") {
		if v, ok := strings.CutPrefix(line, "nginx version: "); ok {
			inv.Nginx.Version = strings.TrimSpace(v)
		}
		for a := range strings.FieldsSeq(line) {
			if v, ok := strings.CutPrefix(a, "--conf-path="); ok {
				inv.Nginx.Conf = v
			}
		}
	}
	for _, p := range inv.Processes {
		title := strings.Join(p.args, " ")
		if p.Name != "nginx" || !strings.Contains(title, "master process") {
			continue
		}
		conf := inv.Nginx.Conf
		w := strings.Fields(title)
		if i := slices.Index(w, "-c"); i >= 0 && i+1 < len(w) {
			conf = w[i+1]
		}
		inv.Nginx.Running = append(inv.Nginx.Running, conf)
	}
	sort.Strings(inv.Nginx.Running)
	if inv.Nginx.Version == "" {
		return unreadable("the version of nginx")
	}
	return StatusOK, ""
}
