package hostos

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A menu as grub2-mkconfig makes it on CentOS 7 and, with a submenu, on Debian;
// the lines are those that osScript sends.
const (
	menuCentOS = `menuentry 'CentOS Linux (3.10.0-1160.6.1.el7.x86_64) 7 (Core)' --class centos --unrestricted $menuentry_id_option 'gnulinux-3.10.0-862-advanced-1' {
	linux16 /boot/vmlinuz-3.10.0-1160.6.1.el7.x86_64 root=UUID=1 ro
}
menuentry 'CentOS Linux (3.10.0-862.9.1.el7.x86_64) 7 (Core)' --class centos --unrestricted $menuentry_id_option 'gnulinux-3.10.0-862-advanced-2' {
	linux16 /boot/vmlinuz-3.10.0-862.9.1.el7.x86_64 root=UUID=1 ro
}
`
	menuDebian = `function recordfail {
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	if [ x$grub_platform = xxen ]; then insmod xzio; fi
	linux	/boot/vmlinuz-6.1.0-56-amd64 root=UUID=1 ro quiet
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-56-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-56-amd64-advanced-1' {
		linux	/boot/vmlinuz-6.1.0-56-amd64 root=UUID=1 ro quiet
	}
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-50-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-50-amd64-advanced-1' {
		linux	/boot/vmlinuz-6.1.0-50-amd64 root=UUID=1 ro quiet
	}
}
`
)

func TestDefaultKernel(t *testing.T) {
	for _, c := range []struct{ name, grubby, env, settings, menu, want string }{
		{"grubby", "/boot/vmlinuz-3.10.0-1160.6.1.el7.x86_64", "", "", "", newKernel},
		{"saved title", "", "saved_entry=CentOS Linux (3.10.0-862.9.1.el7.x86_64) 7 (Core)\n", "GRUB_DEFAULT=saved\n", menuCentOS, oldKernel},
		{"saved index", "", "saved_entry=1\n", "GRUB_DEFAULT=saved\n", menuCentOS, oldKernel},
		{"first", "", "", "GRUB_DEFAULT=0\n", menuCentOS, newKernel},
		{"once only", "", "saved_entry=0\nnext_entry=1\n", "GRUB_DEFAULT=saved\n", menuCentOS, oldKernel},
		{"no saved one", "", "", "GRUB_DEFAULT=saved\n", menuCentOS, newKernel},
		{"BLS", "", "saved_entry=0123456789abcdef0123456789abcdef-4.18.0-553.el8.x86_64\n", "GRUB_DEFAULT=saved\n", "", "4.18.0-553.el8.x86_64"},
		{"Debian", "", "", "GRUB_DEFAULT=0\n", menuDebian, "6.1.0-56-amd64"},
		{"in a submenu", "", "", "GRUB_DEFAULT=\"1>1\"\n", menuDebian, "6.1.0-50-amd64"},
		{"by identifiers", "", "saved_entry=gnulinux-advanced-1>gnulinux-6.1.0-50-amd64-advanced-1\n", "GRUB_DEFAULT=saved\n", menuDebian, "6.1.0-50-amd64"},
		{"an entry that is not there", "", "saved_entry=Windows\n", "GRUB_DEFAULT=saved\n", menuCentOS, ""},
		{"nothing", "", "", "", "", ""},
	} {
		assert.Equal(t, c.want, defaultKernel(c.grubby, c.env, c.settings, c.menu), c.name)
	}
}

// told is a host as osScript would tell of it.
func told(parts map[string]string) string {
	var b strings.Builder
	all := map[string]string{"boot": "11111111-2222-3333-4444-555555555555\n" + oldKernel, "uid": "0", "arch": "x86_64", "drivers": "/sys/bus/virtio/drivers/virtio_blk\n"}
	for k, v := range parts {
		all[k] = v
	}
	for _, k := range []string{"boot", "os-release", "arch", "uid", "manager", "packages", "kernels", "grubby", "grubenv", "grub", "menu", "free", "conf", "repos", "locks", "unfinished", "modules", "fstab", "failed", "drivers"} {
		fmt.Fprintf(&b, "\n%s%s\n%s", osMark, k, all[k])
	}
	return b.String()
}

const twoKernels = "8000000 /boot/vmlinuz-" + newKernel + "\n30000000 /boot/initramfs-" + newKernel + ".img\n8000000 /boot/vmlinuz-" + oldKernel + "\n30000000 /boot/initramfs-" + oldKernel + ".img\n20000000 /boot/initramfs-" + oldKernel + "kdump.img\n"

func TestSetDefaultKernel(t *testing.T) {
	for _, c := range []struct {
		name    string
		parts   map[string]string
		release string
		cmd     string            // that changes the default
		then    map[string]string // what the host says afterwards
		err     string
	}{
		{"grubby", map[string]string{"kernels": twoKernels, "grubby": "/boot/vmlinuz-" + newKernel}, oldKernel,
			"grubby --set-default=/boot/vmlinuz-" + oldKernel, map[string]string{"grubby": "/boot/vmlinuz-" + oldKernel}, ""},
		{"grubby did nothing", map[string]string{"kernels": twoKernels, "grubby": "/boot/vmlinuz-" + newKernel}, oldKernel,
			"grubby --set-default=/boot/vmlinuz-" + oldKernel, nil, "still starts " + newKernel},
		{"Debian", map[string]string{"kernels": strings.NewReplacer(newKernel, "6.1.0-56-amd64", oldKernel, "6.1.0-50-amd64", "initramfs-", "initrd.img-", ".img\n", "\n").Replace(twoKernels), "grub": "GRUB_DEFAULT=saved", "menu": menuDebian}, "6.1.0-50-amd64",
			"s=grub-set-default; command -v $s >/dev/null || s=grub2-set-default; $s 'gnulinux-advanced-1>gnulinux-6.1.0-50-amd64-advanced-1'", map[string]string{"grubenv": "saved_entry=gnulinux-advanced-1>gnulinux-6.1.0-50-amd64-advanced-1"}, ""},
		{"no initramfs", map[string]string{"kernels": "8000000 /boot/vmlinuz-" + oldKernel, "grubby": "/boot/vmlinuz-" + newKernel}, oldKernel, "", nil, "initramfs of " + oldKernel},
		{"not there", map[string]string{"grubby": "/boot/vmlinuz-" + newKernel}, oldKernel, "", nil, "/boot has no vmlinuz-"},
		{"an odd name", nil, "5; reboot", "", nil, "is no kernel's release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts, cmds := c.parts, []string{}
			h := &fake{run: func(cmd string, w io.Writer) error {
				if strings.Contains(cmd, "osrelease") {
					_, err := io.WriteString(w, told(parts))
					return err
				}
				cmds = append(cmds, cmd)
				for k, v := range c.then {
					parts[k] = v
				}
				return nil
			}}
			err := SetDefaultKernel(context.Background(), h, c.release)
			if c.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.err)
			}
			assert.Equal(t, c.cmd, strings.Join(cmds, "\n"))
		})
	}
}
