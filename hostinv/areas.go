package hostinv

import (
	"cmp"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/pkgver"
)

// areas are the sections that are compared row by row, in the order of
// SectionNames. Listeners are in diff_listeners.go. Never written to.
var areas = []area{
	{section: SectionOS, rows: func(i *Inventory) []row {
		return []row{{key: "release", fields: []field{{"", i.OS.text()}}}}
	}},
	{section: SectionKernel, rows: func(i *Inventory) []row {
		rows := []row{{key: "kernel", fields: []field{{"release", i.Kernel}}}}
		for _, a := range i.KernelArgs {
			rows = append(rows, row{key: "argument " + a, lesser: true})
		}
		return rows
	}},
	{section: SectionBoot, rows: func(i *Inventory) []row {
		return []row{{key: "boot ID", fields: []field{{"", i.BootID}}}}
	}, judge: because(Altered, Changed, reasonReboot)},
	{section: SectionHost, rows: func(i *Inventory) []row {
		return []row{{key: "hostname", fields: []field{{"", i.Hostname}}}, {key: "machine ID", fields: []field{{"", i.MachineID}}}}
	}},
	{section: SectionKernels, rows: kernelRows},
	{section: SectionPackages, rows: packageRows, judge: judgePackage},
	{section: SectionHardware, rows: func(i *Inventory) []row {
		h := i.Hardware
		return []row{
			{key: "processors", fields: []field{{"", strconv.Itoa(h.CPUs)}}}, {key: "model", fields: []field{{"", h.Model}}},
			{key: "memory", fields: []field{{"", size(h.Memory)}}, what: h.Memory}, {key: "swap", fields: []field{{"", size(h.Swap)}}, what: h.Swap},
			{key: "product", fields: []field{{"", h.Product}}},
		}
	}, judge: judgeHardware},
	{section: SectionDisks, rows: func(i *Inventory) (rows []row) {
		for _, d := range i.Disks {
			rows = append(rows, row{key: d.Name, alias: cmp.Or(d.Serial, d.UUID), fields: []field{{"size", size(d.Bytes)}, {"serial", d.Serial}, {"uuid", d.UUID}}})
		}
		return rows
	}},
	{section: SectionFilesystems, rows: func(i *Inventory) (rows []row) {
		for _, f := range i.Filesystems {
			rows = append(rows, row{key: f.Target, fields: []field{{"type", f.Type}, {"size", size(f.Bytes)}}, what: f.Bytes})
		}
		return rows
	}, judge: func(_ *differ, f *Finding, b, a []row) bool {
		if f.Field == "size" && a[0].what.(int64) < b[0].what.(int64) {
			f.Severity, f.Reason = Lost, reasonSmaller
		}
		return true
	}},
	{section: SectionMounts, rows: func(i *Inventory) []row { return mountRows(i.Mounts) }, judge: judgeMount},
	{section: SectionFstab, rows: func(i *Inventory) []row { return mountRows(i.Fstab) }, judge: judgeMount},
	{section: SectionInterfaces, rows: interfaceRows, judge: judgeInterface},
	{section: SectionRoutes, rows: func(i *Inventory) (rows []row) {
		for _, r := range i.Routes {
			rows = append(rows, row{key: strconv.Itoa(r.Family) + " " + r.Text})
		}
		return rows
	}},
	{section: SectionRules, rows: func(i *Inventory) []row { return keyed("", i.Rules, false) }},
	{section: SectionDNS, rows: func(i *Inventory) []row {
		rows := []row{{key: "servers", fields: []field{{"", strings.Join(i.DNS.Servers, " ")}}}, {key: "search", fields: []field{{"", strings.Join(i.DNS.Search, " ")}}},
			{key: "options", fields: []field{{"", strings.Join(i.DNS.Options, " ")}}}, {key: "order", fields: []field{{"", i.DNS.Switch}}}}
		return append(rows, keyed("hosts ", i.DNS.Hosts, false)...)
	}, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Key == "servers" && f.After == "" {
			f.Severity, f.Reason = Lost, reasonGone
		}
		return true
	}},
	{section: SectionFirewall, rows: func(i *Inventory) (rows []row) {
		for _, r := range i.Firewall {
			rows = append(rows, row{key: r.Tool + " " + r.Table + ": " + r.Text})
		}
		return rows
	}},
	{section: SectionConnections, rows: func(i *Inventory) (rows []row) {
		for _, p := range i.Connections {
			if p.Direction == "out" {
				rows = append(rows, row{key: p.Process + " to " + p.IP + ":" + strconv.Itoa(p.Port)})
			}
		}
		return rows
	}, once: true},
	{section: SectionProcesses, rows: processRows, once: true, judge: func(_ *differ, f *Finding, b, _ []row) bool {
		if f.Kind == Removed && b[0].what.(Process).Unit != "" {
			f.Severity = Changed // the unit tells whether that is a loss
		}
		return true
	}},
	{section: SectionJava, rows: javaRows, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Kind == Altered && f.Field == "user" {
			f.Severity, f.Reason = Lost, reasonUser
		}
		return true
	}},
	{section: SectionAgents, rows: func(i *Inventory) (rows []row) {
		for _, a := range i.Agents {
			rows = append(rows, row{key: a.Name, lesser: true})
		}
		return rows
	}},
	{section: SectionDocker, rows: dockerRows, judge: judgeDocker},
	{section: SectionContainers, rows: containerRows, judge: judgeContainer},
	{section: SectionUnits, rows: func(i *Inventory) []row { return unitRows(i, ".service") }, judge: judgeUnit},
	{section: SectionTimers, rows: func(i *Inventory) []row { return unitRows(i, ".timer") }, judge: judgeUnit},
	{section: SectionSupervisor, rows: func(i *Inventory) (rows []row) {
		for _, p := range i.Supervisor {
			rows = append(rows, row{key: p.Name, fields: []field{{"state", p.State}, {"settings", strings.Join(p.Settings, "; ")}}})
		}
		return rows
	}, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Field == "state" && f.Before == "RUNNING" {
			f.Severity, f.Reason = Lost, reasonStopped
		}
		return true
	}},
	{section: SectionCron, rows: func(i *Inventory) []row { return lineRows("", i.Cron) }},
	{section: SectionSysctl, rows: sysctlRows, judge: func(d *differ, f *Finding, _, _ []row) bool {
		if _, meant := d.before.Sysctl.Configured[f.Key]; meant && f.Kind != Added {
			f.Severity, f.Reason = Lost, reasonSetting
		}
		return true
	}},
	{section: SectionLimits, rows: func(i *Inventory) []row { return lineRows("", i.Limits) }},
	{section: SectionModules, rows: func(i *Inventory) []row { return keyed("", i.Modules, true) }},
	{section: SectionSecurity, rows: func(i *Inventory) []row {
		rows := []row{{key: "SELinux", fields: []field{{"now", cmp.Or(i.Security.SELinux, "off")}, {"configured", i.Security.SELinuxConfigured}}},
			{key: "AppArmor", fields: []field{{"enabled", strconv.FormatBool(i.Security.AppArmor)}}}}
		return append(rows, keyed("profile ", i.Security.Profiles, true)...)
	}, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Before == "enforcing" || f.Key == "AppArmor" && f.After == "false" {
			f.Severity, f.Reason = Lost, reasonProtection
		}
		return true
	}},
	{section: SectionUsers, rows: userRows},
	{section: SectionSSH, rows: sshRows, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if strings.HasPrefix(f.Key, "host key ") && f.Kind != Added {
			f.Severity, f.Reason = Lost, reasonHostKey
		}
		return true
	}},
	{section: SectionTime, rows: func(i *Inventory) []row {
		rows := []row{{key: "zone", fields: []field{{"", i.Time.Zone}}}, {key: "daemons", fields: []field{{"", strings.Join(i.Time.Daemons, " ")}}},
			{key: "synchronised", fields: []field{{"", i.Time.Synced}}}}
		return append(rows, lineRows("", i.Time.Servers)...)
	}, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Key == "zone" || f.Key == "daemons" && f.After == "" {
			f.Severity, f.Reason = Lost, reasonTime
		}
		return true
	}},
	{section: SectionNginx, rows: func(i *Inventory) []row {
		rows := []row{{key: "nginx", fields: []field{{"version", i.Nginx.Version}, {"configuration", i.Nginx.Conf}}}}
		return append(rows, keyed("running with ", i.Nginx.Running, false)...)
	}, judge: func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Field == "version" && f.After == "" {
			f.Severity, f.Reason = Lost, reasonGone
		}
		return true
	}},
}

// because sets severity and reason of one kind of finding.
func because(k Kind, s Severity, r string) func(*differ, *Finding, []row, []row) bool {
	return func(_ *differ, f *Finding, _, _ []row) bool {
		if f.Kind == k {
			f.Severity, f.Reason = s, r
		}
		return true
	}
}

func keyed(prefix string, list []string, lesser bool) (rows []row) {
	for _, s := range list {
		rows = append(rows, row{key: prefix + s, lesser: lesser})
	}
	return rows
}

func lineRows(prefix string, list []Line) (rows []row) {
	for _, l := range list {
		rows = append(rows, row{key: prefix + l.Source + ": " + l.Text})
	}
	return rows
}

// size writes bytes so that a person can compare them, and exactly.
func size(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

func (o OS) text() string { return cmp.Or(o.Release, o.Pretty) }

func kernelRows(i *Inventory) []row {
	rows := []row{{key: "default", fields: []field{{"", i.Kernels.Default}}}, {key: "reboot required", fields: []field{{"", strconv.FormatBool(i.Kernels.RebootRequired)}}}}
	return append(rows, keyed("installed ", i.Kernels.Installed, true)...)
}

// kernelPackage knows what an update of the kernel installs beside the old.
func kernelPackage(name string) bool {
	for _, p := range []string{"kernel", "linux-image-", "linux-modules-", "linux-headers-", "perf", "bpftool", "python-perf"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func packageRows(i *Inventory) (rows []row) {
	for _, p := range i.Packages {
		rows = append(rows, row{key: strings.TrimSpace(p.Name + " " + p.Arch), fields: []field{{"version", p.EVR}, {"status", p.Status}}, what: p})
	}
	return rows
}

func judgePackage(d *differ, f *Finding, b, a []row) bool {
	switch {
	case f.Kind == Removed && d.expect.ReleaseChanged:
		f.Severity = Changed // an update may take one away that another replaces
	case f.Kind == Altered && f.Field == "status":
		f.Severity, f.Reason = Lost, reasonBroken
	case f.Kind == Altered && len(b) == 1 && len(a) == 1:
		x, y := b[0].what.(Package), a[0].what.(Package)
		if pkgver.Compare(y.Manager, y.EVR, x.EVR) < 0 {
			f.Severity, f.Reason = Lost, reasonOlder
		}
	}
	return true
}

func judgeHardware(_ *differ, f *Finding, b, a []row) bool {
	if x, ok := b[0].what.(int64); ok && f.Key == "memory" {
		// What the kernel keeps for itself differs a little from boot to boot.
		y := a[0].what.(int64)
		if max(x, y)-min(x, y) <= max(x, y)/32 {
			return false
		}
	}
	x, _ := strconv.Atoi(f.Before)
	y, _ := strconv.Atoi(f.After)
	n, _ := b[0].what.(int64)
	m, _ := a[0].what.(int64)
	if f.Key == "processors" && y < x || m < n {
		f.Severity, f.Reason = Lost, reasonSmaller
	}
	return true
}

func mountRows(list []Mount) (rows []row) {
	for _, m := range list {
		key := m.Target
		if key == "none" || key == "swap" {
			key = m.Type + " " + m.Source // swap has no target
		}
		rows = append(rows, row{key: key, fields: []field{{"device", cmp.Or(m.UUID, m.Source)}, {"type", m.Type}, {"options", strings.Join(m.Options, ",")}}})
	}
	return rows
}

func judgeMount(_ *differ, f *Finding, _, _ []row) bool {
	ro := func(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
	if f.Field == "options" && ro(f.After) && !ro(f.Before) {
		f.Severity, f.Reason = Lost, reasonReadOnly
	}
	return true
}

func interfaceRows(i *Inventory) (rows []row) {
	for _, n := range i.Interfaces {
		rows = append(rows, row{key: n.Name, alias: n.MAC, lesser: len(n.Addresses) == 0, fields: []field{
			{"addresses", strings.Join(n.Addresses, " ")}, {"mac", n.MAC}, {"mtu", strconv.Itoa(n.MTU)}, {"state", n.State}, {"master", n.Master},
		}})
	}
	return rows
}

func judgeInterface(_ *differ, f *Finding, _, _ []row) bool {
	switch f.Field {
	case "addresses":
		now := strings.Fields(f.After)
		for _, a := range strings.Fields(f.Before) {
			if !slices.Contains(now, a) {
				f.Severity, f.Reason = Lost, reasonAddress
			}
		}
	case "state":
		if f.Before == "up" {
			f.Severity, f.Reason = Lost, reasonDown
		}
	}
	return true
}

// processRows gives daemons that have run for a while, one row for all
// processes of one program and user: how many workers there are says nothing.
func processRows(i *Inventory) (rows []row) {
	oldest := map[string]Process{}
	for _, p := range i.Processes {
		if p.Container != "" {
			continue // the container tells
		}
		key := p.User + " " + p.Program
		o, ok := oldest[key]
		if !ok || p.Lasting && !o.Lasting || p.Lasting == o.Lasting && (p.Started.Before(o.Started) || p.Started.Equal(o.Started) && p.PID < o.PID) {
			oldest[key] = p
		}
	}
	for key, p := range oldest {
		r := row{key: key, brief: !p.Lasting, what: p}
		r.fields = []field{{"exe", strings.TrimSuffix(p.Exe, " (deleted)")}, {"cwd", p.Cwd}, {"unit", p.Unit}, {"environment", strings.Join(p.Environment, " ")}}
		rows = append(rows, r)
	}
	return rows
}

func (j Java) key() string {
	k := j.Cwd + " " + path.Base(j.what())
	if j.Container != "" {
		k = "in a container: " + k
	}
	return k
}

func javaRows(i *Inventory) (rows []row) {
	chosen := map[int]bool{} // by the kernel
	for _, l := range i.Listeners {
		chosen[l.Port] = chosen[l.Port] || l.Ephemeral
	}
	for _, j := range i.Java {
		var ports []string
		for _, p := range j.Ports {
			if !chosen[p] {
				ports = append(ports, strconv.Itoa(p))
			}
		}
		rows = append(rows, row{key: j.key(), fields: []field{{"user", j.User}, {"args", strings.Join(j.Args, " ")}, {"exe", j.Exe}, {"ports", strings.Join(ports, " ")}}})
	}
	return rows
}

func dockerRows(i *Inventory) []row {
	d := i.Docker
	return []row{{key: "docker", fields: []field{{"version", d.Version}, {"storage driver", d.StorageDriver}, {"log driver", d.LogDriver},
		{"cgroup driver", d.CgroupDriver}, {"root", d.RootDir}, {"live restore", strconv.FormatBool(d.LiveRestore)}, {"daemon.json", d.DaemonJSON}}}}
}

func judgeDocker(_ *differ, f *Finding, _, _ []row) bool {
	switch {
	case f.Field == "version" && f.After == "":
		f.Severity, f.Reason = Lost, reasonGone
	case f.Before != "" && (f.Field == "storage driver" || f.Field == "root"):
		f.Severity, f.Reason = Lost, reasonStorage
	}
	return true
}

// key names a container by what survives: compose v1 and v2 name the same
// service differently.
func (c Container) key() string {
	if c.Compose.Project != "" {
		return c.Compose.Project + "/" + c.Compose.Service
	}
	return c.Name
}

func (p Port) text() string {
	return p.HostIP + ":" + strconv.Itoa(p.HostPort) + "->" + strconv.Itoa(p.ContainerPort) + "/" + p.Proto
}

func (v Volume) text() string {
	s := v.Type + " " + v.Source + " on " + v.Target
	if v.ReadOnly {
		s += " read only"
	}
	return s
}

func containerRows(i *Inventory) (rows []row) {
	for _, c := range i.Containers {
		c.Ports, c.Volumes = slices.Clone(c.Ports), slices.Clone(c.Volumes)
		slices.SortFunc(c.Ports, func(a, b Port) int { return cmp.Compare(a.text(), b.text()) })
		slices.SortFunc(c.Volumes, func(a, b Volume) int { return cmp.Compare(a.text(), b.text()) })
		rows = append(rows, row{key: c.key(), lesser: c.State != "running", what: c, fields: []field{
			{"state", c.State}, {"health", c.Health}, {"restart policy", c.RestartPolicy}, {"image", c.Image}, {"image id", c.ImageID},
			{"digests", strings.Join(c.Digests, " ")}, {"name", c.Name}, {"ports", joined(c.Ports, Port.text)}, {"volumes", joined(c.Volumes, Volume.text)},
			{"networks", strings.Join(c.Networks, " ")}, {"environment", strings.Join(c.Environment, " ")}, {"compose file", c.Compose.Dir + " " + c.Compose.File},
		}})
	}
	return rows
}

func joined[T any](list []T, of func(T) string) string {
	var v []string
	for _, x := range list {
		v = append(v, of(x))
	}
	return strings.Join(v, ", ")
}

func running(rows []row) (n int) {
	for _, r := range rows {
		if c, ok := r.what.(Container); ok && c.State == "running" {
			n++
		}
	}
	return n
}

func judgeContainer(_ *differ, f *Finding, b, a []row) bool {
	switch {
	case f.Kind == Removed:
		f.Severity = Changed
		if running(b) > running(a) {
			f.Severity = Lost
		}
	case f.Kind != Altered:
	case f.Field == "state" && running(b) > running(a):
		f.Severity, f.Reason = Lost, reasonStopped
	case f.Field == "health" && strings.Contains(f.After, "unhealthy"):
		f.Severity, f.Reason = Lost, reasonUnhealthy
	case f.Field == "health" && f.Before == "healthy" && f.After == "":
		f.Severity, f.Reason = Lost, reasonGone
	case f.Field == "restart policy" && f.Before != "no", f.Field == "image", f.Field == "ports" && f.Before != "", f.Field == "volumes" && f.Before != "":
		f.Severity = Lost
	}
	return true
}

func (u Unit) runs() bool { return u.Active == "active" && (u.Sub == "running" || u.Sub == "waiting") }

// class is the state as far as it matters: helpers of the boot that have done
// their work, and ones that had none to do, are both idle.
func (u Unit) class() string {
	switch {
	case u.Active == "failed":
		return "failed"
	case u.runs():
		return "running"
	}
	return "idle"
}

// transient units belong to sessions and single runs.
func (u Unit) transient() bool {
	return strings.HasPrefix(u.Name, "user@") || strings.HasPrefix(u.Name, "run-") || strings.HasPrefix(u.Name, "upgradectl-") ||
		strings.HasPrefix(u.Name, "session-") || strings.HasPrefix(u.Name, "user-runtime-dir@") || u.Enabled == "transient" ||
		u.Load == "not-found" && u.Active != "active"
}

func unitRows(i *Inventory, suffix string) (rows []row) {
	for _, u := range i.Units {
		timer := strings.HasSuffix(u.Name, ".timer")
		if timer != (suffix == ".timer") {
			continue
		}
		state := u.class()
		if timer && state == "running" {
			state = "idle" // whether it waits or elapsed changes by itself; failed does not
			if u.Active == "active" {
				state = "active"
			}
		}
		rows = append(rows, row{key: u.Name, brief: u.transient() && u.Active != "failed", what: u, fields: []field{{"state", state}, {"enabled", u.Enabled}, {"file", u.SHA256}}})
	}
	return rows
}

func judgeUnit(_ *differ, f *Finding, b, a []row) bool {
	unit := func(rows []row) Unit { return rows[0].what.(Unit) }
	switch {
	case f.Kind == Added:
		if unit(a).Active == "failed" {
			f.Severity, f.Reason = Lost, reasonFailed
		}
	case f.Kind == Removed:
		u := unit(b)
		f.Severity = Changed
		if u.runs() || u.Enabled == "enabled" {
			f.Severity = Lost
		}
	case f.Field == "state" && (unit(a).transient() || unit(b).transient()) && f.After != "failed" && f.Before != "failed":
		return false
	case f.Field == "state" && f.After == "failed":
		f.Severity, f.Reason = Lost, reasonFailed
	case f.Field == "state" && (f.Before == "running" || f.Before == "active"):
		f.Severity, f.Reason = Lost, reasonStopped
	case f.Field == "enabled" && f.Before == "enabled":
		f.Severity, f.Reason = Lost, reasonDisabled
	}
	return true
}

func sysctlRows(i *Inventory) (rows []row) {
	for k, v := range i.Sysctl.Runtime {
		rows = append(rows, row{key: k, lesser: true, fields: []field{{"", v}}})
	}
	for k, v := range i.Sysctl.Configured {
		rows = append(rows, row{key: "configured " + k, fields: []field{{"", v}}})
	}
	return rows
}

func userRows(i *Inventory) (rows []row) {
	for _, u := range i.Users {
		rows = append(rows, row{key: "user " + u.Name, fields: []field{{"uid", strconv.Itoa(u.UID)}, {"gid", strconv.Itoa(u.GID)}, {"home", u.Home}, {"shell", u.Shell}}})
	}
	for _, g := range i.Groups {
		members := slices.Clone(g.Members)
		sort.Strings(members)
		rows = append(rows, row{key: "group " + g.Name, fields: []field{{"gid", strconv.Itoa(g.GID)}, {"members", strings.Join(members, " ")}}})
	}
	for _, f := range i.Sudoers {
		rows = append(rows, row{key: f.Path, fields: []field{{"sha256", f.SHA256}}})
	}
	return rows
}

func sshRows(i *Inventory) (rows []row) {
	for _, f := range i.SSH.Files {
		rows = append(rows, row{key: f.Path, fields: []field{{"sha256", f.SHA256}, {"mode", f.Mode}}})
	}
	for _, k := range i.SSH.Keys {
		rows = append(rows, row{key: strings.TrimSpace("key in " + k.Path + ": " + k.Type + " " + k.Fingerprint + " " + k.Comment)})
	}
	for _, k := range i.SSH.HostKeys {
		rows = append(rows, row{key: "host key " + k.Type, fields: []field{{"fingerprint", k.Fingerprint}}})
	}
	return rows
}
