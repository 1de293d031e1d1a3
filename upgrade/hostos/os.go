package hostos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// OS is what a host says of its operating system: what a strategy, a gate or a
// proof decides by. GetOS reads it.
type OS struct {
	Boot      Boot   `json:"boot"`
	ID        string `json:"id"`         // of os-release: centos, alinux, anolis, debian, …
	VersionID string `json:"version_id"` // of os-release: 7, 8.9, 12
	Arch      string `json:"arch"`       // uname -m
	UID       int    `json:"uid"`        // of who asks; 0: root
	// Manager is dnf, yum (3, where there is no dnf) or apt, whichever the
	// installed packages are of; "": none of them.
	Manager  string     `json:"manager"`
	Packages PackageSet `json:"-"` // everything that is installed

	Kernels       []Kernel `json:"kernels"`        // below /boot
	DefaultKernel string   `json:"default_kernel"` // that the boot loader starts; "": cannot be read
	FailedUnits   []string `json:"failed_units"`   // of systemd, sorted

	Free       map[string]int64 `json:"free"`                 // bytes that are free below /, /boot and /var/cache
	Excludes   []Exclude        `json:"excludes,omitempty"`   // what an update leaves out
	Unfinished []string         `json:"unfinished,omitempty"` // transactions that were begun and not ended, or are under way
	Modules    []string         `json:"modules,omitempty"`    // kernel modules that did not come with the kernel
	ByName     []FstabEntry     `json:"by_name,omitempty"`    // entries of fstab that name a device by its order
	Drivers    []string         `json:"drivers,omitempty"`    // modules that the disks of the running system need, sorted

	grubby, menu string
	noDefault    bool // UPDATEDEFAULT=no: a new kernel is not made the default
}

// An Exclude is a rule that keeps packages from being updated.
type Exclude struct {
	Where   string `json:"where"`   // /etc/yum.conf, a file of a repository, versionlock, hold
	Pattern string `json:"pattern"` // as written there
}

// aptHold is the Where of a package that is held back on Debian.
const aptHold = "apt-mark hold"

// A FstabEntry is a line of /etc/fstab whose device is named by its order.
type FstabEntry struct {
	Device string `json:"device"`
	Mount  string `json:"mount"`
	NoFail bool   `json:"no_fail"` // the host boots without it
}

// osMark begins the lines that part the answer of osScript.
const osMark = "=upgradectl-5f0b71="

// osScript prints everything that OS holds. It changes nothing and asks no
// network. What is missing on a host is left out.
const osScript = `LC_ALL=C
export LC_ALL
PATH="$PATH:/usr/sbin:/sbin"
have() { command -v "$1" >/dev/null 2>&1; }
s() { printf '\n` + osMark + `%s\n' "$1"; }
show() { for f do if [ -f "$f" ] && [ -r "$f" ]; then printf '# upgradectl file %s\n' "$f"; cat "$f"; echo; fi; done; }
s boot
cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease || exit 1
s release
if [ -r /etc/redhat-release ]; then cat /etc/redhat-release; fi
s os-release
if [ -r /etc/os-release ]; then cat /etc/os-release; fi
s arch
uname -m
s uid
id -u
` + rpmQuery + `s manager
if [ -n "$p" ] || [ "$q" -ne 0 ]; then
	if have dnf; then echo dnf; elif have yum; then echo yum; fi
elif have dpkg-query && have apt-get; then echo apt
fi
s packages
if [ -n "$p" ]; then printf '%s\n' "$p"; elif have dpkg-query; then ` + dpkgList + `; fi
s kernels
for f in /boot/vmlinuz-* /boot/init*; do if [ -f "$f" ]; then echo "$(stat -c %s "$f") $f"; fi; done
s grubby
if have grubby; then grubby --default-kernel 2>/dev/null; fi
s grubenv
show /boot/grub2/grubenv /boot/grub/grubenv
s grub
show /etc/default/grub /etc/sysconfig/kernel
s menu
for f in /boot/grub2/grub.cfg /boot/grub/grub.cfg; do
	if [ -r "$f" ]; then grep -E '^[[:space:]]*(menuentry|submenu|linux|linux16|linuxefi)[[:space:]]|^[[:space:]]*}|[{]$' "$f"; break; fi
done
s failed
if have systemctl; then systemctl list-units --all --plain --no-legend --full --type=service 2>/dev/null; fi
s free
for f in / /boot /var/cache; do if [ -d "$f" ]; then stat -f -c '%S %b %a %c %n' "$f"; fi; done
s conf
show /etc/yum.conf /etc/dnf/dnf.conf
s repos
for f in /etc/yum.repos.d/*.repo; do
	if [ -r "$f" ]; then printf '# upgradectl file %s\n' "$f"; grep -E '^(\[|enabled|exclude)' "$f"; fi
done
s locks
show /etc/yum/pluginconf.d/versionlock.list /etc/dnf/plugins/versionlock.list
s holds
if [ -z "$p" ] && have apt-mark; then apt-mark showhold; fi
s unfinished
` + unfinishedScript + `
s modules
if [ -r /proc/modules ]; then grep -E '\([A-Z]*O[A-Z]*\)' /proc/modules; fi
if have dkms; then dkms status 2>/dev/null; fi
s fstab
show /etc/fstab
s drivers
for f in /sys/block/*; do
	if [ -e "$f/device/driver" ]; then readlink -f "$f/device/driver"; readlink -f "$f/device/device/driver"; readlink -f "$f/device/../driver"; fi
done
:
`

// GetOS reads what a host says of its operating system. It changes nothing.
func GetOS(ctx context.Context, h Host) (*OS, error) {
	out, err := output(ctx, h, osScript, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of the operating system: %w", err)
	}
	o, err := parseOS(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of the operating system: %w", err)
	}
	return o, nil
}

// parts splits an answer at the lines that osMark begins.
func parts(text string) map[string]string {
	m := map[string]string{}
	for _, p := range strings.Split("\n"+text, "\n"+osMark)[1:] {
		name, body, _ := strings.Cut(p, "\n")
		m[name] = body
	}
	return m
}

func parseOS(text string) (*OS, error) {
	if len(text) >= maxOutput {
		return nil, fmt.Errorf("the host's answer is longer than %d bytes", maxOutput)
	}
	m := parts(text)
	if _, whole := m["drivers"]; !whole {
		return nil, errors.New("the host's answer has no end")
	}
	o := &OS{Free: map[string]int64{}}
	l := strings.Split(strings.TrimSpace(m["boot"]), "\n")
	if len(l) != 2 || !bootID.MatchString(l[0]) {
		return nil, fmt.Errorf("unexpected boot ID %q", firstBytes(m["boot"], 80))
	}
	o.Boot = Boot{ID: l[0], Kernel: l[1], Release: strings.TrimSpace(m["release"])}
	for line := range strings.SplitSeq(m["os-release"], "\n") {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			o.ID = v
		case "VERSION_ID":
			o.VersionID = v
		case "PRETTY_NAME":
			if o.Boot.Release == "" {
				o.Boot.Release = v
			}
		}
	}
	o.Arch = strings.TrimSpace(m["arch"])
	var err error
	if o.UID, err = strconv.Atoi(strings.TrimSpace(m["uid"])); err != nil {
		return nil, fmt.Errorf("unexpected user ID %q", firstBytes(m["uid"], 40))
	}
	o.Manager = strings.TrimSpace(m["manager"])
	if o.Packages, err = parseInstalled(m["packages"]); err != nil {
		return nil, err
	}
	o.noDefault = updateDefault.MatchString(m["grub"])
	o.Kernels = parseKernels(m["kernels"])
	o.grubby, o.menu = strings.TrimSpace(m["grubby"]), m["menu"]
	o.DefaultKernel = defaultKernel(o.grubby, m["grubenv"], m["grub"], o.menu)
	for line := range strings.SplitSeq(m["failed"], "\n") {
		if f := strings.Fields(line); len(f) >= 4 && f[2] == "failed" {
			o.FailedUnits = append(o.FailedUnits, f[0])
		}
	}
	slices.Sort(o.FailedUnits)
	for line := range strings.SplitSeq(m["free"], "\n") {
		if f := strings.Fields(line); len(f) == 5 {
			block, err1 := strconv.ParseInt(f[0], 10, 64)
			free, err2 := strconv.ParseInt(f[2], 10, 64)
			if err1 == nil && err2 == nil {
				o.Free[f[4]] = block * free
			}
		}
	}
	o.Excludes = slices.Concat(parseExcludes(m["conf"]), parseExcludes(m["repos"]), parseLocks(m["locks"]))
	for f := range strings.FieldsSeq(m["holds"]) {
		o.Excludes = append(o.Excludes, Exclude{aptHold, f})
	}
	o.Unfinished = foundLines(m["unfinished"])
	for line := range strings.SplitSeq(m["modules"], "\n") {
		if f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' || r == ':' }); len(f) > 0 {
			o.Modules = append(o.Modules, f[0])
		}
	}
	slices.Sort(o.Modules)
	o.Modules = slices.Compact(o.Modules)
	o.ByName = parseFstab(m["fstab"])
	for line := range strings.SplitSeq(m["drivers"], "\n") {
		o.Drivers = append(o.Drivers, driverModules(line)...)
	}
	slices.Sort(o.Drivers)
	o.Drivers = slices.Compact(o.Drivers)
	return o, nil
}

// updateDefault is the setting of new-kernel-pkg and kernel-install.
var updateDefault = regexp.MustCompile(`(?m)^\s*UPDATEDEFAULT=["']?no`)

const fileMark = "# upgradectl file "

// parseExcludes reads the exclude and excludepkgs of files of yum and dnf;
// those of a repository that is off do nothing.
func parseExcludes(text string) []Exclude {
	var out, section []Exclude
	file, enabled, going := "", true, false
	end := func() {
		if enabled {
			out = append(out, section...)
		}
		section, enabled, going = nil, true, false
	}
	add := func(v string) {
		for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
			section = append(section, Exclude{file, p})
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if f, ok := strings.CutPrefix(line, fileMark); ok {
			end()
			file = f
			continue
		}
		trimmed := strings.TrimSpace(line)
		k, v, isSetting := strings.Cut(trimmed, "=")
		k = strings.TrimSpace(k)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
			going = going && trimmed != ""
		case trimmed[0] == '[':
			end()
		case going && (line[0] == ' ' || line[0] == '\t'):
			add(trimmed)
		case isSetting && (k == "exclude" || k == "excludepkgs"):
			add(v)
			going = true
		case isSetting && k == "enabled":
			enabled = !slices.Contains([]string{"0", "no", "false"}, strings.ToLower(strings.TrimSpace(v)))
			going = false
		default:
			going = false
		}
	}
	end()
	return out
}

// parseLocks reads the lists of the versionlock plugins.
func parseLocks(text string) []Exclude {
	var out []Exclude
	file := ""
	for line := range strings.SplitSeq(text, "\n") {
		if f, ok := strings.CutPrefix(line, fileMark); ok {
			file = f
		} else if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, Exclude{file, line})
		}
	}
	return out
}

// parseFstab gives the entries whose device is named by its order of discovery,
// which another kernel may change.
func parseFstab(text string) []FstabEntry {
	var out []FstabEntry
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[0][0] == '#' {
			continue
		}
		for _, prefix := range []string{"/dev/sd", "/dev/vd", "/dev/xvd", "/dev/hd", "/dev/nvme"} {
			if strings.HasPrefix(f[0], prefix) {
				out = append(out, FstabEntry{f[0], f[1], slices.Contains(strings.Split(f[3], ","), "nofail")})
			}
		}
	}
	return out
}

// driverModules gives the modules that an initramfs must have for a disk whose
// driver is at path below /sys/bus.
func driverModules(path string) []string {
	switch name := path[strings.LastIndexByte(path, '/')+1:]; name {
	case "virtio_blk", "virtio_scsi":
		return []string{name, "virtio_pci"}
	case "nvme":
		return []string{name}
	}
	return nil
}
