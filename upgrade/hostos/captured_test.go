package hostos

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// captured reads an output that a program has written; testdata/captured/ORIGIN.md
// says which, where and when.
func captured(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/captured/" + name)
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

// The initramfs of a real dracut and of real initramfs-tools, with the drivers
// of the host's disks, without them, and cut off.
func TestCapturedInitramfs(t *testing.T) {
	const kernel = "6.1.0-56-cloud-amd64"
	o := &OS{
		Boot:     Boot{Kernel: "6.1.0-55-cloud-amd64"},
		Packages: PackageSet{{Name: "linux-image-" + kernel, Version: "6.1.192-2", Arch: "amd64"}},
		Kernels:  []Kernel{{kernel, 14186432, 14258938}, {"6.1.0-55-cloud-amd64", 14186432, 14257701}}, DefaultKernel: kernel,
		Drivers: []string{"virtio_blk", "virtio_pci"},
	}
	module := regexp.MustCompile(`(?m)^.*\.ko(\.[a-z]+)?$`) // what initramfsScript sends
	for _, c := range []struct {
		file, tool string
		status     int
		says       string // "": nothing speaks against the reboot
	}{
		{"lsinitrd-with-virtio.txt", "lsinitrd", 0, ""},
		{"lsinitrd-without-virtio.txt", "lsinitrd", 0, "lacks virtio_blk, virtio_pci"},
		{"lsinitrd-cut-off.txt", "lsinitrd", 4, "it is damaged"},
		{"lsinitramfs.txt", "lsinitramfs", 0, ""},
	} {
		list := strings.Join(module.FindAllString(captured(t, c.file), -1), "\n")
		r, err := parseInitramfs(fmt.Sprintf("%[1]stool\n%[2]s\n%[1]slist\n%[3]s\n\n%[1]sbuiltin\n\n%[1]sstatus\n%[4]d\n", osMark, c.tool, list, c.status))
		require.NoError(t, err)
		bad := strings.Join(Failed(o.preReboot(kernel, r)), "\n")
		if c.says == "" {
			assert.Empty(t, bad, c.file)
			assert.Greater(t, len(r.files), 100, c.file)
		} else {
			assert.Contains(t, bad, c.says, c.file)
		}
	}
}

// The menu of a real grub-mkconfig, with what grub-set-default and grub-reboot
// leave in the environment block.
func TestCapturedGrub(t *testing.T) {
	const older, newer = "6.1.0-55-cloud-amd64", "6.1.0-56-cloud-amd64"
	menu, settings := captured(t, "grub.cfg"), captured(t, "default-grub")
	sent := strings.Join(regexp.MustCompile(`(?m)^\s*(menuentry|submenu|linux|linux16|linuxefi)\s.*$|^\s*}.*$|^.*[{]$`).FindAllString(menu, -1), "\n") // as osScript
	for name, text := range map[string]string{"whole": menu, "as sent": sent} {
		var got []string
		for _, e := range parseGrub(text) {
			got = append(got, e.path+" "+e.release)
		}
		assert.Equal(t, []string{"0 " + newer, "1>0 " + newer, "1>1 " + newer, "1>2 " + older, "1>3 " + older}, got, name)
		assert.Equal(t, older, defaultKernel("", captured(t, "grubenv-saved"), settings, text), name)
		assert.Equal(t, older, defaultKernel("", captured(t, "grubenv-next"), settings, text), name)
		assert.Equal(t, newer, defaultKernel("", "", settings, text), "%s: nothing saved", name)
		assert.Equal(t, newer, defaultKernel("", captured(t, "grubenv-saved"), strings.Replace(settings, "=saved", "=0", 1), text), name)
	}
}
