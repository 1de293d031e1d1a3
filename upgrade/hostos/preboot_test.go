package hostos

import (
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
