package pitrix

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAsideXML(t *testing.T) {
	h := &Hypervisor{Name: "host1"}
	const good = `<domain type='kvm'>
  <name>proxy0</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <metadata><x:name xmlns:x="urn:x">proxy0</x:name></metadata>
  <devices>
    <disk type='file' device='disk'>
      <source file='/pitrix/kernels/proxy0.img'/>
      <backingStore type='file'><source file='/pitrix/kernels/ksnode14045a.img'/></backingStore>
      <target dev='vda'/>
    </disk>
    <disk type='file' device='disk'><source dev="x" file="/pitrix/kernels/proxy0.img.data"/><target dev='vdb'/></disk>
    <interface type='bridge'><mac address='00:16:3e:1a:07:c1'/><source bridge='br0'/></interface>
  </devices>
</domain>
`
	next, err := h.asideXML([]byte(good), "proxy0", "old-proxy0")
	require.NoError(t, err)
	want := strings.Replace(good, "<name>proxy0<", "<name>old-proxy0<", 1)
	want = strings.Replace(want, "'/pitrix/kernels/proxy0.img'", "'/pitrix/kernels/old-proxy0.img'", 1)
	assert.Equal(t, want, string(next), "the name, the image, and no other byte")

	for name, pair := range map[string][2]string{
		"another disk":   {"/pitrix/kernels/proxy0.img'", "/data/proxy0.img'"},
		"another name":   {"<name>proxy0<", "<name>proxy1<"},
		"entity in path": {"'/pitrix/kernels/proxy0.img'", "'/pitrix/kernels/proxy&#48;.img'"},
		"two domains":    {"</domain>", "</domain><domain><name>b</name></domain>"},
	} {
		_, err := h.asideXML([]byte(strings.Replace(good, pair[0], pair[1], 1)), "proxy0", "old-proxy0")
		assert.Error(t, err, name)
	}
}

// Whatever a definition says, the backup's differs from it in name and image
// alone, and there is a way back to every byte.
func FuzzAsideXML(f *testing.F) {
	f.Add([]byte("<domain type='qemu'>\n  <name>proxy0</name>\n  <devices>\n    <disk type='file' device='disk'><source file='/pitrix/kernels/proxy0.img'/><target dev='vda'/></disk>\n    <interface type='bridge'><mac address='00:16:3e:1a:07:c1'/></interface>\n  </devices>\n</domain>\n"))
	f.Add([]byte("<!-- a --><domain><name> proxy0 </name><devices><disk><source\n file=\"/pitrix/kernels/proxy0.img\"/></disk></devices></domain>"))
	f.Add([]byte("<domain><name>proxy0</name><name>proxy0</name><devices><disk><source file='/pitrix/kernels/proxy0.img'></source></disk></devices></domain>"))
	f.Fuzz(func(t *testing.T, src []byte) {
		h := &Hypervisor{}
		next, err := h.asideXML(src, "proxy0", "old-proxy0")
		if err != nil {
			return
		}
		was, err := ParseDomainXML(src)
		require.NoError(t, err)
		is, err := ParseDomainXML(next)
		require.NoError(t, err)
		require.Equal(t, "old-proxy0", is.Name)
		require.Equal(t, was.UUID, is.UUID)
		require.Equal(t, was.MACs(), is.MACs())
		for i, d := range is.Disks {
			if d.File == "/pitrix/kernels/proxy0.img" {
				t.Fatalf("disk %d still is the image of the successor: %s", i, next)
			}
		}
		// What was put in are two words.
		for _, word := range []string{"old-proxy0", "/pitrix/kernels/old-proxy0.img"} {
			require.Contains(t, string(next), word)
		}
	})
}

const vmXML = `<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>24</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='%s'/><target dev='vda' bus='virtio'/></disk>
    <interface type='bridge'><mac address='%s'/><source bridge='br0'/><model type='virtio'/></interface>
  </devices>
</domain>
`
