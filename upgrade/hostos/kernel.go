package hostos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/upgradectl/upgradectl/internal/pkgver"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// NewestKernel gives the release of the newest kernel in the set; "" when there
// is none.
func (s PackageSet) NewestKernel() string {
	best := ""
	for _, p := range s {
		if r := p.KernelRelease(); r != "" && (best == "" || pkgver.CompareRPM(r, best) > 0) {
			best = r
		}
	}
	return best
}

// A Kernel is a kernel below /boot.
type Kernel struct {
	Release   string `json:"release"`   // as uname -r prints it
	Image     int64  `json:"image"`     // bytes of vmlinuz; 0: missing or empty
	Initramfs int64  `json:"initramfs"` // bytes of its initramfs; 0: missing or empty
}

var kernelFile = regexp.MustCompile(`^(\d+) /boot/(vmlinuz-|initramfs-|initrd\.img-|initrd-)(.+)$`)

// parseKernels reads lines of size and name of the files below /boot.
func parseKernels(text string) []Kernel {
	var out []Kernel
	for line := range strings.SplitSeq(text, "\n") {
		m := kernelFile.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := strings.TrimSuffix(m[3], ".img")
		if strings.HasSuffix(r, "kdump") || strings.Contains(r, "rescue") || strings.HasSuffix(r, ".old") || strings.HasSuffix(r, ".dpkg-bak") {
			continue
		}
		i := 0
		for i < len(out) && out[i].Release != r {
			i++
		}
		if i == len(out) {
			out = append(out, Kernel{Release: r})
		}
		n := size(m[1], "", 1)
		if m[2] == "vmlinuz-" {
			out[i].Image = n
		} else {
			out[i].Initramfs = n
		}
	}
	return out
}

var (
	menuEntry  = regexp.MustCompile(`^\s*(menuentry|submenu)\s+(?:'([^']*)'|"([^"]*)"|(\S+))(.*)$`)
	entryID    = regexp.MustCompile(`(?:--id|\$menuentry_id_option)[ =]+(?:'([^']*)'|"([^"]*)"|([^\s{]+))`)
	linuxLine  = regexp.MustCompile(`^\s*linux(?:16|efi)?\s+\S*/vmlinuz-(\S+)`)
	blsVersion = regexp.MustCompile(`^[0-9a-f]{32}-(.+?)(?:\.conf)?$`)
)

// A grubEntry is one thing that grub can boot.
type grubEntry struct {
	path    string // indexes from the top, as "1>0"
	names   string // titles from the top, joined by ">"
	id      string // identifier, with those of the menus above it
	release string
}

// parseGrub lists what a grub.cfg boots, in its order. text may be whole or
// just its lines that begin with menuentry, submenu, linux or "}".
func parseGrub(text string) []grubEntry {
	type level struct {
		index       int
		name, id    string
		menu        bool
		next, depth int
	}
	var out []grubEntry
	stack := []level{{index: -1, menu: true}}
	depth := 0
	for line := range strings.SplitSeq(text, "\n") {
		top := &stack[len(stack)-1]
		if m := menuEntry.FindStringSubmatch(line); m != nil {
			l := level{index: top.next, name: m[2] + m[3] + m[4], menu: m[1] == "submenu", depth: depth}
			if id := entryID.FindStringSubmatch(m[5]); id != nil {
				l.id = id[1] + id[2] + id[3]
			}
			top.next++
			stack = append(stack, l)
			depth++
			continue
		}
		if m := linuxLine.FindStringSubmatch(line); m != nil && len(stack) > 1 && !top.menu {
			var e grubEntry
			for i, l := range stack[1:] {
				sep := ">"
				if i == 0 {
					sep = ""
				}
				e.path += fmt.Sprintf("%s%d", sep, l.index)
				e.names += sep + l.name
				if l.id != "" {
					if e.id != "" {
						e.id += ">"
					}
					e.id += l.id
				}
			}
			e.release = m[1]
			out = append(out, e)
			continue
		}
		if strings.TrimSpace(line) == "}" && len(stack) > 1 && !strings.HasPrefix(line, "\t\t\t") {
			if depth--; stack[len(stack)-1].depth == depth {
				stack = stack[:len(stack)-1]
			}
		} else if strings.HasSuffix(strings.TrimSpace(line), "{") {
			depth++
		}
	}
	return out
}

// defaultKernel says which kernel grub boots next: grubby's word where there is
// one, and otherwise what the environment block, the settings and the menu say.
// "" is unknown.
func defaultKernel(grubby, grubenv, settings, menu string) string {
	if i := strings.LastIndex(grubby, "/vmlinuz-"); i >= 0 {
		return strings.TrimSpace(grubby[i+len("/vmlinuz-"):])
	}
	env := func(text, key string) string {
		for line := range strings.SplitSeq(text, "\n") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
				return strings.Trim(strings.TrimSpace(v), `"'`)
			}
		}
		return ""
	}
	entries := parseGrub(menu)
	want := env(settings, "GRUB_DEFAULT")
	if next := env(grubenv, "next_entry"); next != "" {
		want = next
	} else if want == "saved" || want == "" && len(entries) == 0 {
		want = env(grubenv, "saved_entry")
	}
	if m := blsVersion.FindStringSubmatch(want); m != nil && len(entries) == 0 {
		return m[1] // an entry of /boot/loader/entries is named after its kernel
	}
	if want == "" {
		want = "0"
	}
	for _, e := range entries {
		for _, name := range []string{e.path, e.names, e.id, e.id[strings.LastIndexByte(e.id, '>')+1:], e.names[strings.LastIndexByte(e.names, '>')+1:]} {
			if name != "" && name == want {
				return e.release
			}
		}
	}
	return ""
}

var validRelease = regexp.MustCompile(`^[0-9][A-Za-z0-9._+~-]{0,127}$`)

// SetDefaultKernel makes release, a kernel that is installed with its
// initramfs, the one that the host boots from now on, such as the one before a
// new kernel that does not do. It does not reboot. grubby does it where
// it is there; elsewhere grub-set-default, which needs GRUB_DEFAULT=saved.
// What was made the default is read back: an error means that it is not.
func SetDefaultKernel(ctx context.Context, h Host, release string) error {
	if !validRelease.MatchString(release) {
		return fmt.Errorf("cannot boot kernel %q: that is no kernel's release", firstBytes(release, 80))
	}
	o, err := GetOS(ctx, h)
	if err != nil {
		return fmt.Errorf("cannot boot kernel %s: %w", release, err)
	}
	if c := o.kernelFiles(release); c != "" {
		return fmt.Errorf("cannot boot kernel %s: %s", release, c)
	}
	cmd := ""
	if o.grubby != "" {
		cmd = "grubby --set-default=" + shellq.Quote("/boot/vmlinuz-"+release)
	} else {
		for _, e := range parseGrub(o.menu) {
			if e.release == release && !strings.Contains(e.names, "recovery") {
				// The identifier outlives a change of the menu's order.
				name := e.id
				if name == "" || strings.Count(name, ">") != strings.Count(e.path, ">") {
					name = e.path
				}
				cmd = "s=grub-set-default; command -v $s >/dev/null || s=grub2-set-default; $s " + shellq.Quote(name)
				break
			}
		}
		if cmd == "" {
			return fmt.Errorf("cannot boot kernel %s: there is no grubby, and no entry of grub's menu boots it", release)
		}
	}
	if _, err := output(ctx, h, cmd, nil); err != nil {
		return fmt.Errorf("cannot boot kernel %s: %w", release, err)
	}
	if o, err = GetOS(ctx, h); err != nil {
		return fmt.Errorf("cannot see whether kernel %s is the default: %w", release, err)
	}
	if o.DefaultKernel != release {
		return fmt.Errorf("cannot boot kernel %s: the boot loader still starts %s; is GRUB_DEFAULT=saved in /etc/default/grub?", release, orUnknown(o.DefaultKernel))
	}
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "what cannot be read"
	}
	return s
}

// PreviousKernel gives the newest kernel of the host, whole below /boot, that
// is older than release.
func (o *OS) PreviousKernel(release string) (string, error) {
	best := ""
	for _, k := range o.Kernels {
		if k.Image > 0 && k.Initramfs > 0 && pkgver.CompareRPM(k.Release, release) < 0 && (best == "" || pkgver.CompareRPM(k.Release, best) > 0) {
			best = k.Release
		}
	}
	if best == "" {
		return "", errors.New("no kernel older than " + release + " is left below /boot")
	}
	return best, nil
}

// kernelFiles says what is wrong with the files of a kernel; "" when nothing is.
func (o *OS) kernelFiles(release string) string {
	for _, k := range o.Kernels {
		switch {
		case k.Release != release:
		case k.Image == 0:
			return "/boot/vmlinuz-" + release + " is missing or empty"
		case k.Initramfs == 0:
			return "the initramfs of " + release + " below /boot is missing or empty"
		default:
			return ""
		}
	}
	return "/boot has no vmlinuz-" + release
}
