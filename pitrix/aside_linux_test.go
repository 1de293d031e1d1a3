package pitrix

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// setAside puts a VM of a real libvirt aside, has its successor made under the
// same name on the same host, and takes it back, cut short everywhere.
func setAside(t *testing.T, h *Hypervisor, dir string, successor func()) {
	ctx := t.Context()
	require.NoError(t, h.Define(ctx, "proxy2"))
	d, err := h.GetDomain(ctx, "proxy2")
	require.NoError(t, err)
	id := d.UUID
	require.NoError(t, h.Start(ctx, "proxy2", id))
	var running *RunningError
	require.ErrorAs(t, h.SetAside(ctx, "proxy2", id), &running)
	require.NoError(t, h.PowerOff(ctx, "proxy2", id))
	assert.ErrorContains(t, h.SetAside(ctx, "proxy2", "11111111-2222-3333-4444-555555555555"), "another domain")

	for range 2 {
		require.NoError(t, h.SetAside(ctx, "proxy2", id))
		away, err := h.GetDomain(ctx, "old-proxy2")
		require.NoError(t, err)
		require.NotNil(t, away)
		assert.Equal(t, []any{id, DomainShutOff, true}, []any{away.UUID, away.State, away.Persistent})
		assert.Equal(t, dir+"/old-proxy2.img", away.Definition.Disks[0].File)
		v, err := h.GetFiles(ctx, "proxy2")
		require.NoError(t, err)
		assert.Equal(t, Parked, v.State())
	}
	was, err := os.ReadFile(dir + "/old-proxy2.domain")
	require.NoError(t, err)
	assert.Contains(t, string(was), "<name>proxy2</name>")

	// The backup is one that starts.
	require.NoError(t, h.Start(ctx, "old-proxy2", id))
	require.ErrorAs(t, h.TakeBack(ctx, "proxy2", id), &running)
	require.NoError(t, h.PowerOff(ctx, "old-proxy2", id))

	// libvirt takes the successor, which nobody takes for the old one.
	successor()
	require.NoError(t, h.Define(ctx, "proxy2"))
	n, err := h.GetDomain(ctx, "proxy2")
	require.NoError(t, err)
	assert.NotEqual(t, id, n.UUID)
	assert.ErrorContains(t, h.TakeBack(ctx, "proxy2", id), "another domain")
	require.NoError(t, h.Discard(ctx, "proxy2", MAC{0, 0x16, 0x3e, 0x1a, 7, 0xf2}, true))
	assert.FileExists(t, dir+"/old-proxy2.img")

	// Cut short anywhere, both ways go on.
	for _, cut := range []string{
		":",
		"virsh -c qemu:///system undefine old-proxy2",
		"virsh -c qemu:///system undefine old-proxy2; cd " + dir + "; mv old-proxy2.img proxy2.img",
		"cd " + dir + "; virsh -c qemu:///system undefine old-proxy2; virsh -c qemu:///system define old-proxy2.domain",
		"cd " + dir + "; virsh -c qemu:///system undefine old-proxy2; virsh -c qemu:///system define old-proxy2.domain; : >old-proxy2.define; mv old-proxy2.xml proxy2.xml; mv old-proxy2.img proxy2.img",
	} {
		sh(t, cut)
		require.NoError(t, h.SetAside(ctx, "proxy2", id), cut)
		sh(t, cut)
		for range 2 {
			require.NoError(t, h.TakeBack(ctx, "proxy2", id), cut)
			d, err := h.GetDomain(ctx, "proxy2")
			require.NoError(t, err)
			require.NotNil(t, d, cut)
			assert.Equal(t, id, d.UUID)
			assert.Equal(t, dir+"/proxy2.img", d.Definition.Disks[0].File)
		}
		require.NoError(t, h.SetAside(ctx, "proxy2", id), cut)
	}
	require.NoError(t, h.TakeBack(ctx, "proxy2", id))
	assert.NoFileExists(t, dir+"/old-proxy2.domain")
	require.NoError(t, h.Start(ctx, "proxy2", id), "set aside and taken back, it starts")
	require.NoError(t, h.PowerOff(ctx, "proxy2", id))
	require.NoError(t, h.Undefine(ctx, "proxy2", id))
	require.True(t, errors.Is(h.SetAside(ctx, "proxy2", id), ErrNoDomain))
}
