package hostinv

import (
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

func (inv *Inventory) fillOS(f *frame) (Status, string) {
	for _, line := range f.rows("os-release") {
		k, v, _ := strings.Cut(line, "=")
		v = strings.Trim(strings.TrimSpace(v), `"'`)
		switch k {
		case "ID":
			inv.OS.ID = v
		case "VERSION_ID":
			inv.OS.Version = v
		case "PRETTY_NAME":
			inv.OS.Pretty = v
		}
	}
	release, _, _ := strings.Cut(f.text("redhat-release"), "\n")
	inv.OS.Release = strings.TrimSpace(release)
	if point := strings.TrimSpace(f.text("debian_version")); inv.OS.Release == "" && inv.OS.ID == "debian" && point != "" {
		inv.OS.Release = "Debian " + point
	}
	if inv.OS == (OS{}) {
		return unreadable("the release")
	}
	return StatusOK, ""
}

func (inv *Inventory) fillKernel(f *frame) (Status, string) {
	inv.Kernel = strings.TrimSpace(f.text("release"))
	for _, a := range redactArgs(append([]string{"kernel"}, strings.Fields(f.text("cmdline"))...))[1:] {
		if !strings.HasPrefix(a, "BOOT_IMAGE=") && !strings.HasPrefix(a, "initrd=") {
			inv.KernelArgs = append(inv.KernelArgs, a)
		}
	}
	if inv.Kernel == "" {
		return unreadable("the kernel release")
	}
	return StatusOK, ""
}

func (inv *Inventory) fillBoot(f *frame) (Status, string) {
	id, ok := bootID(f.text(""))
	if !ok {
		return unreadable("the boot ID")
	}
	inv.BootID = id
	return StatusOK, ""
}

func (inv *Inventory) fillUptime(f *frame) (Status, string) {
	v, _, _ := strings.Cut(strings.TrimSpace(f.text("uptime")), " ")
	sec, err := strconv.ParseFloat(v, 64)
	if err != nil || !(sec >= 0 && sec < 1e9) {
		return unreadable("the uptime")
	}
	inv.Uptime = time.Duration(sec * float64(time.Second))
	if c, err := strconv.ParseInt(strings.TrimSpace(f.text("clock")), 10, 64); err == nil && c > 0 && c < 1<<33 {
		inv.clock = c
	}
	return StatusOK, ""
}

func (inv *Inventory) fillHost(f *frame) (Status, string) {
	inv.Hostname = strings.TrimSpace(f.text("hostname"))
	inv.MachineID = strings.TrimSpace(f.text("machine-id"))
	if n, err := strconv.Atoi(strings.TrimSpace(f.text("uid"))); err == nil && n >= 0 {
		inv.UID = n
	}
	if inv.Hostname == "" {
		return unreadable("the host name")
	}
	return StatusOK, ""
}

func (inv *Inventory) fillKernels(f *frame) (Status, string) {
	k := &inv.Kernels
	for _, name := range f.rows("images") {
		for _, prefix := range []string{"vmlinuz-", "vmlinux-"} {
			if r, ok := strings.CutPrefix(strings.TrimSpace(name), prefix); ok && !strings.Contains(r, "rescue") {
				k.Installed = append(k.Installed, r)
			}
		}
	}
	sort.Strings(k.Installed)
	k.Installed = slices.Compact(k.Installed)
	base := path.Base(strings.TrimSpace(f.text("default")))
	if r, ok := strings.CutPrefix(base, "vmlinuz-"); ok {
		k.Default = r
	} else {
		for _, l := range f.fileLines("settings") {
			name, v, _ := strings.Cut(l.Text, "=")
			if name = strings.TrimSpace(name); (name == "saved_entry" || name == "GRUB_DEFAULT") && v != "" {
				k.Default = name + "=" + strings.Trim(strings.TrimSpace(v), `"'`)
				if name == "saved_entry" {
					break
				}
			}
		}
	}
	k.RebootRequired = strings.Contains(f.text("reboot"), "required")
	return StatusOK, ""
}

func (inv *Inventory) fillPackages(f *frame) (Status, string) {
	bad := 0
	for _, manager := range []string{"rpm", "dpkg", "apk"} {
		for _, line := range f.rows(manager) {
			p := Package{Manager: manager}
			c := strings.Split(line, "\t")
			switch {
			case manager == "apk":
				if p.Name, p.EVR = splitAPK(strings.TrimSpace(line)); p.EVR == "" {
					bad++
					continue
				}
			case len(c) != 4:
				bad++
				continue
			case manager == "rpm":
				p.Name, p.EVR, p.Arch = c[0], c[2], c[3]
				if c[1] != "(none)" && c[1] != "0" && c[1] != "" {
					p.EVR = c[1] + ":" + c[2]
				}
				if p.Arch == "(none)" {
					p.Arch = ""
				}
			default:
				p.Name, p.EVR, p.Arch = c[1], c[2], c[3]
				// rc is a removed package whose settings are left.
				if st := strings.TrimSpace(c[0]); st == "rc" || st == "un" {
					continue
				} else if st != "ii" && st != "hi" {
					p.Status = st
				}
			}
			inv.Packages = append(inv.Packages, p)
		}
	}
	sort.Slice(inv.Packages, func(i, j int) bool {
		a, b := inv.Packages[i], inv.Packages[j]
		return a.Name < b.Name || a.Name == b.Name && a.EVR+a.Arch < b.EVR+b.Arch
	})
	if bad > 0 || len(inv.Packages) == 0 {
		return StatusError, strconv.Itoa(bad) + " lines of the list of packages cannot be read, " + strconv.Itoa(len(inv.Packages)) + " can"
	}
	return StatusOK, ""
}

// splitAPK splits name-version-rN.
func splitAPK(s string) (name, version string) {
	f := strings.Split(s, "-")
	if len(f) < 3 {
		return s, ""
	}
	n := len(f) - 2
	return strings.Join(f[:n], "-"), strings.Join(f[n:], "-")
}

func (inv *Inventory) fillHardware(f *frame) (Status, string) {
	h := &inv.Hardware
	for part := range strings.SplitSeq(strings.TrimSpace(f.text("cpus")), ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		switch {
		case err1 != nil:
		case !ranged:
			h.CPUs++
		case err2 == nil && b >= a && b < 1<<16:
			h.CPUs += b - a + 1
		}
	}
	for _, line := range f.rows("cpuinfo") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			h.Model = strings.Join(strings.Fields(v), " ")
			break
		}
	}
	for _, line := range f.rows("meminfo") {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		n, err := strconv.ParseInt(w[1], 10, 50)
		switch {
		case err != nil:
		case w[0] == "MemTotal:":
			h.Memory = n << 10
		case w[0] == "SwapTotal:":
			h.Swap = n << 10
		}
	}
	h.Product = strings.Join(strings.Fields(f.text("product")), " ")
	if h.CPUs == 0 || h.Memory == 0 {
		return unreadable("the number of processors or the size of the memory")
	}
	return StatusOK, ""
}

func (inv *Inventory) fillDisks(f *frame) (Status, string) {
	serial := map[string]string{}
	for _, l := range f.fileLines("serial") {
		serial[path.Base(path.Dir(l.Source))] = strings.TrimSpace(l.Text)
	}
	for uuid, dev := range links(f.rows("uuid")) {
		inv.uuids[path.Base(dev)] = path.Base(uuid)
	}
	for _, line := range f.rows("partitions") {
		w := strings.Fields(line)
		if len(w) != 4 {
			continue
		}
		blocks, err := strconv.ParseInt(w[2], 10, 52)
		name := w[3]
		if err != nil || strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") || strings.HasPrefix(name, "sr") {
			continue
		}
		inv.Disks = append(inv.Disks, Disk{Name: name, Bytes: blocks << 10, Serial: serial[name], UUID: inv.uuids[name]})
	}
	sort.Slice(inv.Disks, func(i, j int) bool { return inv.Disks[i].Name < inv.Disks[j].Name })
	return StatusOK, ""
}

// links reads symbolic links in the output of ls -l.
func links(rows []string) map[string]string {
	out := map[string]string{}
	for _, line := range rows {
		head, target, ok := strings.Cut(line, " -> ")
		if w := strings.Fields(head); ok && strings.HasPrefix(line, "l") && len(w) > 0 {
			out[w[len(w)-1]] = target
		}
	}
	return out
}

func (inv *Inventory) fillFilesystems(f *frame) (Status, string) {
	for _, line := range f.rows("") {
		w := strings.SplitN(line, " ", 5)
		if len(w) != 5 {
			return unreadable("the answer of stat -f")
		}
		var n [4]int64
		for i := range n {
			v, err := strconv.ParseInt(w[i], 10, 62)
			if err != nil || v < 0 {
				return unreadable("the answer of stat -f")
			}
			n[i] = v
		}
		inv.Filesystems = append(inv.Filesystems, Filesystem{Target: w[4], Bytes: mul(n[0], n[1]), Available: mul(n[0], n[2]), Inodes: n[3]})
	}
	sort.Slice(inv.Filesystems, func(i, j int) bool { return inv.Filesystems[i].Target < inv.Filesystems[j].Target })
	inv.Filesystems = slices.CompactFunc(inv.Filesystems, func(a, b Filesystem) bool { return a.Target == b.Target })
	return StatusOK, ""
}

// mul is a product that does not wrap around.
func mul(a, b int64) int64 {
	if a != 0 && b > (1<<62)/a {
		return 1 << 62
	}
	return a * b
}

// unescape undoes \ooo of /proc/self/mountinfo and fstab.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// options splits mount options, without secrets, in an order of their own.
func options(s string) []string {
	out := redactArgs(append([]string{"mount"}, strings.Split(s, ",")...))[1:]
	sort.Strings(out)
	return slices.Compact(out)
}

func (inv *Inventory) fillMounts(f *frame) (Status, string) {
	rows := f.rows("")
	if len(rows) == 0 {
		return unreadable("/proc/self/mountinfo")
	}
	types := map[string]string{}
	for _, line := range rows {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			return unreadable("a line of /proc/self/mountinfo")
		}
		m := Mount{Target: unescape(l[4]), Type: r[0], Source: redactArgs([]string{"mount", unescape(r[1])})[1], Options: options(l[5])}
		types[m.Target] = m.Type
		if !lastingMount(m) {
			continue
		}
		if root := unescape(l[3]); root != "/" { // of a bind mount
			m.Source += "[" + root + "]"
		}
		m.UUID = inv.uuids[path.Base(m.Source)]
		inv.Mounts = append(inv.Mounts, m)
	}
	for i := range inv.Filesystems {
		inv.Filesystems[i].Type = types[inv.Filesystems[i].Target]
	}
	sort.SliceStable(inv.Mounts, func(i, j int) bool { return inv.Mounts[i].Target < inv.Mounts[j].Target })
	return StatusOK, ""
}

// lastingMount leaves out what the kernel, containers and sessions mount.
func lastingMount(m Mount) bool {
	switch m.Type {
	case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "debugfs", "tracefs", "securityfs", "pstore", "bpf",
		"configfs", "hugetlbfs", "binfmt_misc", "autofs", "fusectl", "efivarfs", "selinuxfs", "rpc_pipefs", "nsfs", "overlay", "ramfs", "rootfs":
		return m.Target == "/"
	}
	for _, dir := range []string{"/proc/", "/sys/", "/dev/", "/run/user/", "/run/docker/", "/var/run/docker/", "/run/netns", "/var/run/netns",
		"/run/credentials/", "/var/lib/docker/", "/var/lib/containerd/", "/run/containerd/", "/var/lib/kubelet/", "/run/k3s/"} {
		if strings.HasPrefix(m.Target, dir) {
			return false
		}
	}
	return true
}

func (inv *Inventory) fillFstab(f *frame) (Status, string) {
	for _, l := range f.fileLines("fstab") {
		w := strings.Fields(l.Text)
		if len(w) < 3 || strings.HasPrefix(w[0], "#") {
			continue
		}
		m := Mount{Source: redactArgs([]string{"mount", unescape(w[0])})[1], Target: unescape(w[1]), Type: w[2]}
		if len(w) > 3 {
			m.Options = options(w[3])
		}
		inv.Fstab = append(inv.Fstab, m)
	}
	sort.SliceStable(inv.Fstab, func(i, j int) bool { return inv.Fstab[i].Target < inv.Fstab[j].Target })
	return StatusOK, ""
}
