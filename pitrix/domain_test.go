package pitrix_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

const domainXML = `<?xml version='1.0'?>
<!-- made by the installer -->
<domain type='kvm' id='3'>
  <name>proxy0</name>
  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/pitrix/kernels/proxy0.img'/>
      <backingStore type='file'><format type='qcow2'/><source file='/pitrix/kernels/ksnode16045a.img'/></backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='00:16:3E:1a:07:c1'/><source bridge='br0'/><target dev='vnet0'/>
    </interface>
    <interface type='bridge'><source bridge='br1'/></interface>
  </devices>
</domain>
`

func TestParseDomainXML(t *testing.T) {
	d, err := pitrix.ParseDomainXML([]byte(domainXML))
	require.NoError(t, err)
	assert.Equal(t, &pitrix.DomainXML{
		Name: "proxy0", UUID: "6695eb01-f6a4-8304-79aa-97f2502e193f",
		Interfaces: []pitrix.DomainInterface{{MAC: mac(t, "00:16:3e:1a:07:c1"), Bridge: "br0", Target: "vnet0"}, {Bridge: "br1"}},
		Disks:      []pitrix.DomainDisk{{File: "/pitrix/kernels/proxy0.img", Format: "qcow2", Target: "vda", Backing: "/pitrix/kernels/ksnode16045a.img"}},
	}, d)
	assert.Equal(t, []pitrix.MAC{mac(t, "00:16:3e:1a:07:c1")}, d.MACs())
	for src, text := range map[string]string{
		"":                                  "cannot read",
		"error: failed to get domain":       "cannot read",
		"<domain><name>a</name>":            "cannot read",
		"<network><name>a</name></network>": "cannot read",
		"<domain/>":                         "no name",
		domainXML + domainXML:               "cannot read",
		"<domain><name>a</name></domain><domain><name>b</name></domain>":                                     "one definition at a time",
		"<domain><name>a</name><devices><interface><mac address='00:16:3e'/></interface></devices></domain>": "definition of a: \"00:16:3e\" is not a MAC",
	} {
		_, err := pitrix.ParseDomainXML([]byte(src))
		assert.ErrorContains(t, err, text, "%q", src)
	}
}
