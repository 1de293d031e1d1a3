package hostos

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Check is one thing that a gate has looked at.
type Check struct {
	ID       string `json:"id"`               // kernel-package, kernel-files, initramfs, boot-default, transaction, fstab
	Object   string `json:"object,omitempty"` // of fstab: the device
	OK       bool   `json:"ok"`
	Evidence string `json:"evidence"`         // what was seen
	Remedy   string `json:"remedy,omitempty"` // what to do; empty when OK
}

// Failed gives the checks that are not OK as one line each.
func Failed(checks []Check) []string {
	var out []string
	for _, c := range checks {
		if !c.OK {
			out = append(out, entry(c.ID, c.Object)+": "+c.Evidence+"; "+c.Remedy)
		}
	}
	return out
}

// CheckPreReboot looks whether a host would come back from a reboot with
// kernel, the one that its upgrade is to bring: installed and whole, with the
// drivers of the host's disks in its initramfs, started by default, no
// transaction open, and nothing mounted by a name that may move. It changes
// nothing. All checks are done, also after one that fails; those in c.Accept
// count as passed. Of c.InReboot, kernel is not looked at: there the next boot
// is that of whatever upgrades, and what the boot loader starts must be whole.
func CheckPreReboot(ctx context.Context, h Host, c StrategyConfig, kernel string) ([]Check, error) {
	if !c.InReboot && !validRelease.MatchString(kernel) {
		return nil, fmt.Errorf("cannot check the boot of kernel %q: that is no kernel's release", firstBytes(kernel, 80))
	}
	o, err := GetOS(ctx, h)
	if err != nil {
		return nil, err
	}
	if c.InReboot {
		kernel = o.DefaultKernel
	}
	if c.InReboot && !bootName.MatchString(kernel) {
		return c.accepted([]Check{{"boot-default", "", false, "what the boot loader starts, which is to upgrade the host, cannot be read", "see grubby --default-kernel, grub2-editenv list and /etc/default/grub"}}), nil
	}
	ramfs, err := getInitramfs(ctx, h, o, kernel)
	if err != nil {
		return nil, err
	}
	checks := o.preReboot(kernel, ramfs)
	if c.InReboot {
		checks = slices.DeleteFunc(checks, func(k Check) bool { return k.ID == "kernel-package" })
	}
	return c.accepted(checks), nil
}

// bootName is the form of what comes after vmlinuz- in the name of a kernel's
// file: its release, or the word of whoever made it, as upgrade.x86_64 of leapp.
var bootName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)

// accepted lets those checks pass that a person has judged harmless.
func (c StrategyConfig) accepted(checks []Check) []Check {
	for i, k := range checks {
		if !k.OK && c.accepts(k.ID, k.Object) {
			checks[i] = Check{ID: k.ID, Object: k.Object, OK: true, Evidence: k.Evidence + " (accepted)"}
		}
	}
	return checks
}

// An initramfs is what lsinitrd (dracut) or lsinitramfs (initramfs-tools) say.
type initramfs struct {
	tool    string   // that was asked; "": there is none
	status  int      // its exit status
	files   []string // kernel modules in it, names without directory
	builtin []string // modules that the kernel itself holds
}

// initramfsScript lists the modules in the initramfs @F@ of kernel @K@. The list
// goes through a file of ours: a pipe would hide the status of the tool, and
// dracut's exists with 0 on half an archive only when it cannot see that.
const initramfsScript = `LC_ALL=C
export LC_ALL
PATH="$PATH:/usr/sbin:/sbin"
f=@F@
t=
for p in lsinitrd lsinitramfs; do if command -v $p >/dev/null 2>&1; then t=$p; break; fi; done
printf '` + osMark + `tool\n%s\n' "$t"
r=0
if [ -n "$t" ] && [ -s "$f" ]; then
	printf '` + osMark + `list\n'
	l=$($t "$f" 2>&1)
	r=$?
	printf '%s\n' "$l" | grep -E '\.ko(\.[a-z]+)?$'
fi
printf '\n` + osMark + `builtin\n'
if [ -r /lib/modules/@K@/modules.builtin ]; then grep -E '/(virtio|nvme)[^/]*$' /lib/modules/@K@/modules.builtin; fi
printf '\n` + osMark + `status\n%s\n' "$r"
`

func getInitramfs(ctx context.Context, h Host, o *OS, kernel string) (initramfs, error) {
	file := "/boot/initramfs-" + kernel + ".img"
	if o.Manager == "apt" {
		file = "/boot/initrd.img-" + kernel
	}
	out, err := output(ctx, h, strings.NewReplacer("@F@", shellq.Quote(file), "@K@", kernel).Replace(initramfsScript), nil)
	if err != nil {
		return initramfs{}, fmt.Errorf("cannot look into the initramfs of %s: %w", kernel, err)
	}
	return parseInitramfs(out)
}

func parseInitramfs(text string) (initramfs, error) {
	m := parts(text)
	var r initramfs
	if _, err := fmt.Sscan(m["status"], &r.status); err != nil {
		return r, fmt.Errorf("cannot look into the initramfs: unexpected answer %q", lastBytes(text, 200))
	}
	r.tool = strings.TrimSpace(m["tool"])
	names := func(text string) (out []string) {
		for line := range strings.SplitSeq(text, "\n") {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			name, _, ok := strings.Cut(path.Base(f[len(f)-1]), ".ko")
			if ok {
				// modprobe takes both for the same.
				out = append(out, strings.ReplaceAll(name, "-", "_"))
			}
		}
		return out
	}
	r.files, r.builtin = names(m["list"]), names(m["builtin"])
	return r, nil
}

// preReboot judges; it is pure.
func (o *OS) preReboot(kernel string, r initramfs) []Check {
	var out []Check
	say := func(id string, ok bool, evidence, remedy string) {
		if ok {
			remedy = ""
		}
		out = append(out, Check{id, "", ok, evidence, remedy})
	}
	packaged := ""
	for _, p := range o.Packages {
		if p.KernelRelease() == kernel {
			packaged = p.String()
		}
	}
	if kernel == o.Boot.Kernel && packaged == "" && !slices.ContainsFunc(o.Kernels, func(k Kernel) bool { return k.Release == kernel }) {
		// Nothing here was started by a boot loader of this host.
		say("kernel-package", true, "kernel "+kernel+" comes from outside of this host", "")
		say("transaction", len(o.Unfinished) == 0, orNothing("unfinished: ", o.Unfinished), (&TransactionError{o.Unfinished}).how())
		return out
	}
	if packaged == "" {
		say("kernel-package", false, "no installed package holds kernel "+kernel, "see in the log of the transaction why it was left out")
	} else {
		say("kernel-package", true, packaged+" is installed", "")
	}

	rebuild := "make room below /boot and run dracut -f --kver " + kernel
	if o.Manager == "apt" {
		rebuild = "make room below /boot and run update-initramfs -c -k " + kernel
	}
	var now, then Kernel
	for _, k := range o.Kernels {
		if k.Release == kernel {
			then = k
		}
		if k.Release == o.Boot.Kernel {
			now = k
		}
	}
	switch bad := o.kernelFiles(kernel); {
	case bad != "":
		say("kernel-files", false, bad, rebuild)
	case then.Initramfs < now.Initramfs/3:
		// A full /boot cuts it off.
		say("kernel-files", false, fmt.Sprintf("the initramfs of %s has %d bytes, that of the running kernel %d: it may be cut off", kernel, then.Initramfs, now.Initramfs), rebuild)
	default:
		say("kernel-files", true, fmt.Sprintf("vmlinuz %d bytes, initramfs %d bytes", then.Image, then.Initramfs), "")
	}

	var missing []string
	for _, d := range o.Drivers {
		if !slices.Contains(r.files, d) && !slices.Contains(r.builtin, d) {
			missing = append(missing, d)
		}
	}
	switch {
	case r.tool == "":
		say("initramfs", true, "not looked into: the host has neither lsinitrd nor lsinitramfs", "")
	case r.status != 0:
		say("initramfs", false, fmt.Sprintf("%s cannot read the initramfs of %s (status %d): it is damaged", r.tool, kernel, r.status), rebuild)
	case len(missing) > 0:
		say("initramfs", false, fmt.Sprintf("the initramfs of %s lacks %s, which the disks of this host need; it would not find its root", kernel, strings.Join(missing, ", ")), "run dracut -f --add-drivers '"+strings.Join(missing, " ")+"' --kver "+kernel+", or add them to /etc/initramfs-tools/modules")
	case len(o.Drivers) == 0:
		say("initramfs", true, "readable; the disks of this host have no driver of virtio or NVMe", "")
	default:
		say("initramfs", true, "has "+strings.Join(o.Drivers, ", "), "")
	}

	switch {
	case o.DefaultKernel == kernel:
		say("boot-default", true, "the boot loader starts "+kernel, "")
	case o.DefaultKernel == "":
		say("boot-default", false, "what the boot loader starts cannot be read", "see grubby --default-kernel, grub2-editenv list and /etc/default/grub")
	default:
		say("boot-default", false, "the boot loader starts "+o.DefaultKernel+", not "+kernel, "run grubby --set-default=/boot/vmlinuz-"+kernel+" (or grub-set-default), and look at UPDATEDEFAULT in /etc/sysconfig/kernel")
	}

	say("transaction", len(o.Unfinished) == 0, orNothing("unfinished: ", o.Unfinished), (&TransactionError{o.Unfinished}).how())
	for _, e := range o.ByName {
		f := e.finding()
		say(f.ID, f.Severity != Block, f.Evidence, f.Remedy)
		out[len(out)-1].Object = f.Object
	}
	return out
}

// orNothing gives a list behind a word, or says that there is none.
func orNothing(word string, list []string) string {
	if len(list) == 0 {
		return "none is open"
	}
	return word + strings.Join(list, ", ")
}
