package pitrix

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// A host's route to a VM, by the real ip in a network of its own: it is there
// now and for the next boot, twice is once, and away again it leaves no trace.
func TestRealLeafRoute(t *testing.T) {
	testenv.Need(t, "ip")
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	name := fmt.Sprintf("leaf%d", os.Getpid())
	sh(t, "ip netns add "+name)
	t.Cleanup(func() { sh(t, "ip netns del "+name) })
	sh(t, fmt.Sprintf("ip -n %[1]s link set lo up && ip -n %[1]s link add br0 type bridge && ip -n %[1]s addr add 192.0.2.112/32 dev br0 && ip -n %[1]s link set br0 up && ip -n %[1]s link add d0 type veth peer name d1", name))
	root := t.TempDir()
	tail := filepath.Join(root, "etc/rc.local.tail")
	require.NoError(t, os.MkdirAll(filepath.Dir(tail), 0o755))
	const before = "#!/bin/bash\n# mgmt network routing rule\nip route add 10.0.0.0/8 via 192.0.2.254\n\nexit 0\n"
	require.NoError(t, os.WriteFile(tail, []byte(before), 0o755))
	h := &Hypervisor{Host: &localHost{prefix: []string{"ip", "netns", "exec", name}}, Name: "lab2br01n12", Root: root}
	a := netip.MustParseAddr("192.0.2.121")
	check := func(want bool, text string) {
		t.Helper()
		have, err := h.HasRoute(t.Context(), a, "br0")
		require.NoError(t, err)
		assert.Equal(t, want, have)
		got, err := os.ReadFile(tail)
		require.NoError(t, err)
		assert.Equal(t, text, string(got))
	}
	check(false, before)
	for range 2 {
		require.NoError(t, h.RouteVM(t.Context(), a, "br0"))
		check(true, strings.Replace(before, "exit 0", "ip route replace 192.0.2.121/32 dev br0\nexit 0", 1))
	}
	for range 2 {
		require.NoError(t, h.UnrouteVM(t.Context(), a, "br0"))
		check(false, before)
	}
	for _, bad := range []struct{ address, bridge, why string }{
		{"192.0.2.112", "br0", "an address of the host itself"},
		{"192.0.2.121", "d0", "no such bridge"},
		{"192.0.2.121", "br9", "no such bridge"},
		{"192.0.2.121", "br0; reboot", "no route to a VM"},
		{"2001:db8::1", "br0", "no route to a VM"},
	} {
		err := h.RouteVM(t.Context(), netip.MustParseAddr(bad.address), bad.bridge)
		assert.ErrorContains(t, err, bad.why)
	}
	check(false, before)

	// The way to the host is not cut, whether the shell is told who calls or sudo
	// has kept that from it.
	for _, how := range []string{`exec "$@"`, `env -u SSH_CONNECTION "$@"; exit $?`} {
		h := &Hypervisor{Host: &localHost{prefix: []string{"ip", "netns", "exec", name, "env", "SSH_CONNECTION=192.0.2.121 40000 192.0.2.112 22", "/bin/sh", "-c", how, "sudo"}}, Name: h.Name, Root: root}
		assert.ErrorContains(t, h.RouteVM(t.Context(), a, "br0"), "this connection comes from there", how)
		require.NoError(t, h.RouteVM(t.Context(), a.Next(), "br0"), how)
		require.NoError(t, h.UnrouteVM(t.Context(), a.Next(), "br0"), how)
	}
	check(false, before)
}
