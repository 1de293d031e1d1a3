package hostos

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What lsinitrd of dracut 033 and lsinitramfs print of an initramfs.
const (
	dracutList = "=upgradectl-5f0b71=tool\nlsinitrd\n=upgradectl-5f0b71=list\n" +
		"-rw-r--r--   1 root     root         9532 Nov 16  2020 usr/lib/modules/" + newKernel + "/kernel/drivers/block/virtio_blk.ko.xz\n" +
		"-rw-r--r--   1 root     root         6532 Nov 16  2020 usr/lib/modules/" + newKernel + "/kernel/drivers/virtio/virtio_pci.ko.xz\n" +
		"\n=upgradectl-5f0b71=builtin\n\n=upgradectl-5f0b71=status\n0\n"
	toolsList = "=upgradectl-5f0b71=tool\nlsinitramfs\n=upgradectl-5f0b71=list\nusr/lib/modules/6.1.0-56-amd64/kernel/drivers/nvme/host/nvme-core.ko\n" +
		"\n=upgradectl-5f0b71=builtin\nkernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n\n=upgradectl-5f0b71=status\n0\n"
)

func TestPreReboot(t *testing.T) {
	good := map[string]string{
		"kernels": twoKernels, "grubby": "/boot/vmlinuz-" + newKernel,
		"packages": "kernel\t(none)\t3.10.0\t1160.6.1.el7\tx86_64\n", "fstab": "UUID=1 / ext4 defaults 1 1\n/dev/vdb1 /data ext4 defaults 0 0\n",
	}
	for _, c := range []struct {
		name  string
		parts map[string]string
		ramfs string
		bad   string // the check that fails; "": none
		says  string
	}{
		{"dracut", nil, dracutList, "", ""},
		{"drivers in the kernel itself", nil, toolsList, "", ""},
		{"no tool", nil, "=upgradectl-5f0b71=tool\n\n=upgradectl-5f0b71=status\n0\n", "", ""},
		{"driver missing", nil, strings.Replace(dracutList, "virtio_blk.ko.xz", "xfs.ko.xz", 1), "initramfs", "lacks virtio_blk"},
		{"damaged", nil, strings.Replace(dracutList, "status\n0", "status\n1", 1), "initramfs", "it is damaged"},
		{"initramfs empty", map[string]string{"kernels": strings.Replace(twoKernels, "30000000 /boot/initramfs-"+newKernel, "0 /boot/initramfs-"+newKernel, 1)}, dracutList, "kernel-files", "missing or empty"},
		{"initramfs cut off", map[string]string{"kernels": strings.Replace(twoKernels, "30000000 /boot/initramfs-"+newKernel, "4096 /boot/initramfs-"+newKernel, 1)}, dracutList, "kernel-files", "cut off"},
		{"skipped with exit 0", map[string]string{"packages": "kernel\t(none)\t3.10.0\t862.9.1.el7\tx86_64\n"}, dracutList, "kernel-package", "no installed package"},
		{"old default", map[string]string{"grubby": "/boot/vmlinuz-" + oldKernel}, dracutList, "boot-default", "starts " + oldKernel},
		{"unknown default", map[string]string{"grubby": ""}, dracutList, "boot-default", "cannot be read"},
		{"open transaction", map[string]string{"unfinished": "/var/lib/yum/transaction-all.2020-12-01.10:00.00"}, dracutList, "transaction", "transaction-all"},
		{"fstab", map[string]string{"fstab": "/dev/nvme1n1p1 /data xfs defaults 0 0\n"}, dracutList, "fstab", "/dev/nvme1n1p1"},
		{"fstab, not needed", map[string]string{"fstab": "/dev/nvme1n1p1 /data xfs defaults,nofail 0 0\n"}, dracutList, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts := map[string]string{}
			for k, v := range good {
				parts[k] = v
			}
			for k, v := range c.parts {
				parts[k] = v
			}
			o, err := parseOS(told(parts))
			require.NoError(t, err)
			assert.Equal(t, []string{"virtio_blk", "virtio_pci"}, o.Drivers)
			r, err := parseInitramfs(c.ramfs)
			require.NoError(t, err)
			bad := Failed(o.preReboot(newKernel, r))
			if c.bad == "" {
				assert.Empty(t, bad)
				return
			}
			require.Len(t, bad, 1)
			assert.True(t, strings.HasPrefix(bad[0], c.bad), bad[0])
			assert.Contains(t, bad[0], c.says)
		})
	}
}

// Where the reboot does the upgrade, as leapp's, what the boot loader starts
// must be whole; which kernel will come nobody knows yet.
func TestPreRebootOfMigration(t *testing.T) {
	conf := StrategyConfig{Strategy: Script, Script: "leapp upgrade", InReboot: true, Release: "AlmaLinux release 8"}
	files := twoKernels + "9000000 /boot/vmlinuz-upgrade.x86_64\n60000000 /boot/initramfs-upgrade.x86_64.img\n"
	check := func(parts map[string]string) string {
		h := &fake{run: func(cmd string, w io.Writer) error {
			text := told(parts)
			if !strings.Contains(cmd, "osrelease") {
				require.Contains(t, cmd, "f=/boot/initramfs-upgrade.x86_64.img\n")
				text = dracutList
			}
			_, err := io.WriteString(w, text)
			return err
		}}
		checks, err := CheckPreReboot(t.Context(), h, conf, "")
		require.NoError(t, err)
		return strings.Join(Failed(checks), "\n")
	}
	assert.Empty(t, check(map[string]string{"kernels": files, "grubby": "/boot/vmlinuz-upgrade.x86_64"}))
	assert.Contains(t, check(map[string]string{"kernels": twoKernels, "grubby": "/boot/vmlinuz-upgrade.x86_64"}), "kernel-files")
	assert.Contains(t, check(map[string]string{"kernels": files}), "boot-default: what the boot loader starts")
	assert.Contains(t, check(map[string]string{"kernels": files, "grubby": "/boot/vmlinuz-upgrade.x86_64", "unfinished": "dnf history: transaction 7 has no end"}), "transaction")
	_, err := CheckPreReboot(t.Context(), &fake{}, StrategyConfig{Strategy: YumUpdate}, "")
	assert.ErrorContains(t, err, "no kernel's release")
}

// A strategy that does not apply to a host says why.
func TestApplies(t *testing.T) {
	centos := OS{Boot: Boot{Kernel: oldKernel, Release: "CentOS Linux release 7.5.1804 (Core)"}, ID: "centos", VersionID: "7", Manager: "yum",
		Packages: PackageSet{{"kernel", "", "3.10.0", "862.9.1.el7", "x86_64"}}}
	debian := OS{Boot: Boot{Release: "Debian GNU/Linux 12 (bookworm)"}, ID: "debian", VersionID: "12", Manager: "apt"}
	with := func(o OS, edit func(o *OS)) OS { edit(&o); return o }
	leapp := StrategyConfig{Strategy: Script, Script: "leapp upgrade", InReboot: true, From: "CentOS Linux release 7", Release: "AlmaLinux release 8"}
	for _, c := range []struct {
		name string
		conf StrategyConfig
		os   OS
		says string // "": it applies
	}{
		{"yum-update", StrategyConfig{Strategy: YumUpdate}, centos, ""},
		{"yum-update on Debian", StrategyConfig{Strategy: YumUpdate}, debian, "strategy yum-update needs yum or dnf"},
		{"security on Debian", StrategyConfig{Strategy: Security}, debian, "strategy security needs yum or dnf"},
		{"kernel", StrategyConfig{Strategy: KernelOnly}, centos, ""},
		{"kernel of a container", StrategyConfig{Strategy: KernelOnly}, debian, "no installed package holds a kernel"},
		{"apt", StrategyConfig{Strategy: Apt}, debian, ""},
		{"apt on CentOS", StrategyConfig{Strategy: Apt}, centos, "strategy apt needs apt-get"},
		{"no script", StrategyConfig{Strategy: Script, Script: " \n"}, centos, "no script to run"},
		{"leapp", leapp, centos, ""},
		{"leapp from another release", leapp, debian, `meant for hosts of "CentOS Linux release 7" (os.from); this host is Debian`},
		{"leapp once more", leapp, with(centos, func(o *OS) { o.Boot.Release = "AlmaLinux release 8.10" }), "is AlmaLinux release 8.10 already"},
		{"external without proof", StrategyConfig{Strategy: External}, centos, "needs to know what must be there afterwards"},
		{"vault", StrategyConfig{Strategy: YumUpdate, Vault: "http://vault/7"}, centos, ""},
		{"vault of a release that lives", StrategyConfig{Strategy: YumUpdate, Vault: "http://vault/7"}, with(centos, func(o *OS) { o.ID, o.VersionID = "rocky", "9.4" }), "a vault mirror is for CentOS 7"},
		{"not root", StrategyConfig{Strategy: YumUpdate}, with(centos, func(o *OS) { o.UID = 1000 }), "needs root"},
		{"unheard of", StrategyConfig{Strategy: "smc"}, centos, `no strategy "smc"`},
	} {
		got := strings.Join(c.conf.Applies(&c.os), "; ")
		if c.says == "" {
			assert.Empty(t, got, c.name)
		} else {
			assert.Contains(t, got, c.says, c.name)
		}
	}
}
