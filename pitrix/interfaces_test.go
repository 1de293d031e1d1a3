package pitrix_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/pitrix"
)

// interfacesFile is of a proxy with an outer address.
const interfacesFile = `# This file was made by the installer for 192.0.2.71
auto lo
iface lo inet loopback

# mgmt network
auto eth0
iface eth0 inet static
	address 192.0.2.71
	netmask 255.255.255.0
	dns-nameservers 192.0.2.41 192.0.2.42
	up ip route add 10.80.0.0/16 \
	   src 192.0.2.71 via 192.0.2.21

# eip network
auto eth1
iface eth1 inet static
	address 2.2.2.8/24
	gateway 2.2.2.1
	post-up ip addr add 192.0.2.171/32 dev eth1
`

func finalChanges() []pitrix.AddressChange {
	return []pitrix.AddressChange{
		{Address: [2]string{"192.0.2.71", "192.0.2.61"}, Netmask: [2]string{"255.255.255.0", "255.255.255.0"}},
		{Address: [2]string{"2.2.2.8", "203.0.113.11"}, Netmask: [2]string{"255.255.255.0", "255.255.255.128"}, Gateway: [2]string{"2.2.2.1", "203.0.113.1"}},
	}
}

func TestEditInterfaces(t *testing.T) {
	out, err := pitrix.EditInterfaces("/etc/network/interfaces", []byte(interfacesFile), finalChanges()...)
	require.NoError(t, err)
	want := strings.NewReplacer("\taddress 192.0.2.71", "\taddress 192.0.2.61", "src 192.0.2.71", "src 192.0.2.61",
		"2.2.2.8/24", "203.0.113.11/25", "gateway 2.2.2.1", "gateway 203.0.113.1").Replace(interfacesFile)
	assert.Equal(t, want, string(out))
	// A second time there is nothing to be found.
	_, err = pitrix.EditInterfaces("i", out, finalChanges()...)
	assert.ErrorContains(t, err, "no interface has the address 192.0.2.71; look whether it was changed already")
	out, err = pitrix.EditInterfaces("i", []byte(interfacesFile))
	require.NoError(t, err)
	assert.Equal(t, interfacesFile, string(out))

	// Gateways come and go, and CR LF or a missing last line end stay.
	out, err = pitrix.EditInterfaces("i", []byte("iface eth0 inet static\r\n  address 192.0.2.7\r\n  gateway 192.0.2.1\r\n  netmask 24"),
		pitrix.AddressChange{Address: [2]string{"192.0.2.7", "192.0.2.8"}, Gateway: [2]string{"192.0.2.1", ""}})
	require.NoError(t, err)
	assert.Equal(t, "iface eth0 inet static\r\n  address 192.0.2.8\r\n  netmask 24", string(out))
	out, err = pitrix.EditInterfaces("i", []byte("iface eth0 inet static\n  netmask 255.255.255.0\n  address 192.0.2.7"),
		pitrix.AddressChange{Address: [2]string{"192.0.2.7", "192.0.2.8"}, Netmask: [2]string{"255.255.255.0", "255.255.0.0"}, Gateway: [2]string{"", "192.0.2.1"}})
	require.NoError(t, err)
	assert.Equal(t, "iface eth0 inet static\n  netmask 255.255.0.0\n  address 192.0.2.8\n  gateway 192.0.2.1\n", string(out))

	for _, tt := range []struct{ src, text string }{
		{"", "no interface has the address"},
		{"# address 192.0.2.71\n", "no interface has the address"},
		{"iface a inet static\n address 192.0.2.71\niface b inet static\n address 192.0.2.71/24\n", "i:4:1: a second interface"},
		{"source /etc/network/interfaces.d/*\n", "i:1:1: it takes in other files"},
		{"iface a inet static\n address 192.0.2.71\n netmask 255.255.0.0\n", "i:3:1: the netmask is 255.255.0.0"},
		{"iface a inet static\n address 192.0.2.71\n netmask 255.255.255.0\n gateway 192.0.2.9\n", "i:4:1: the gateway is 192.0.2.9"},
		{"iface a inet static\n address 192.0.2.71\n netmask 255.255.255.0\n", "i:2:1: the interface has no gateway"},
		{"iface a inet static\n address 192.0.2.71/24\n gateway 192.0.2.1\n broadcast 192.0.2.255\n", "i:4:1: broadcast is of the old network"},
		{"iface a inet static\n address 192.0.2.71/24\n gateway 192.0.2.1\n up sh /etc/192.0.2.71\n", "i:4:1: 192.0.2.71 is still in"},
	} {
		out, err := pitrix.EditInterfaces("i", []byte(tt.src), pitrix.AddressChange{
			Address: [2]string{"192.0.2.71", "198.51.100.7"}, Netmask: [2]string{"255.255.255.0", "255.255.255.128"}, Gateway: [2]string{"192.0.2.1", "198.51.100.1"}})
		assert.Nil(t, out)
		assert.ErrorContains(t, err, tt.text, "%q", tt.src)
	}
	_, err = pitrix.EditInterfaces("i", []byte(interfacesFile), pitrix.AddressChange{Address: [2]string{"192.0.2.71", "{{ x }}"}})
	assert.ErrorContains(t, err, "not an IPv4 address")
}

// ifquery of the real ifupdown says of every interface what the settings say.
func TestEditInterfacesAsIfquery(t *testing.T) {
	ifquery := testenv.Need(t, "ifquery")
	query := func(src []byte, iface string) string {
		file := filepath.Join(t.TempDir(), "interfaces")
		require.NoError(t, os.WriteFile(file, src, 0o600))
		cmd := exec.CommandContext(t.Context(), ifquery, "-i", file, iface)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		return string(out)
	}
	final, err := pitrix.EditInterfaces("i", []byte(interfacesFile), finalChanges()...)
	require.NoError(t, err)
	for iface, lines := range map[string][]string{
		"eth0": {"address: 192.0.2.61", "netmask: 255.255.255.0", "broadcast: 192.0.2.255", "src 192.0.2.61 via 192.0.2.21", "dns-nameservers: 192.0.2.41 192.0.2.42"},
		"eth1": {"address: 203.0.113.11", "netmask: 255.255.255.128", "gateway: 203.0.113.1"},
	} {
		for _, l := range lines {
			assert.Contains(t, query(final, iface), l)
		}
		// Apart from the addresses it reads as it did.
		before := strings.NewReplacer("192.0.2.71", "192.0.2.61", "2.2.2.8", "203.0.113.11", "2.2.2.1\n", "203.0.113.1\n", "2.2.2.255", "203.0.113.127").Replace(query([]byte(interfacesFile), iface))
		if iface == "eth1" {
			before = strings.ReplaceAll(before, "netmask: 255.255.255.0", "netmask: 255.255.255.128")
		}
		assert.Equal(t, before, query(final, iface))
	}
}

func TestAddressChanges(t *testing.T) {
	old := near(t)["proxy0"]
	temporary, err := pitrix.DeriveTemporary(old, side(t, 0))
	require.NoError(t, err)
	changes := pitrix.AddressChanges(temporary, old)
	require.Len(t, changes, 2)
	assert.Equal(t, [2]string{"192.0.2.71", "192.0.2.61"}, changes[0].Address)
	assert.Equal(t, [2]string{"2.2.2.8", "2.2.2.2"}, changes[1].Address)
	assert.Empty(t, pitrix.AddressChanges(old, old))
	assert.Empty(t, pitrix.AddressMap(old, old))
}

// The route of the generated rc.local.tail keeps the temporary address as its
// source when only the interfaces file is changed, and the kernel refuses it.
func TestTrapTemporarySource(t *testing.T) {
	tail := "#!/bin/bash\n# mgmt network routing rule, temporary 192.0.2.71\n\n# vm network routing rule\nip route add 10.80.0.0/16 src 192.0.2.71 via 192.0.2.21\n\n" +
		"ip addr add 192.0.2.71/32 dev lo; curl http://192.0.2.71:80/x,192.0.2.171,192.0.2.7\n"
	out, err := pitrix.EditRCLocalTail("rc.local.tail", []byte(tail), map[string]string{"192.0.2.71": "192.0.2.61"})
	require.NoError(t, err)
	assert.Equal(t, "#!/bin/bash\n# mgmt network routing rule, temporary 192.0.2.71\n\n# vm network routing rule\nip route add 10.80.0.0/16 src 192.0.2.61 via 192.0.2.21\n\n"+
		"ip addr add 192.0.2.61/32 dev lo; curl http://192.0.2.61:80/x,192.0.2.171,192.0.2.7\n", string(out))
	again, err := pitrix.EditRCLocalTail("rc.local.tail", out, map[string]string{"192.0.2.71": "192.0.2.61"})
	require.NoError(t, err)
	assert.Equal(t, string(out), string(again))
	// Two change places.
	out, err = pitrix.EditRCLocalTail("t", []byte("a 192.0.2.1 192.0.2.2"), map[string]string{"192.0.2.1": "192.0.2.2", "192.0.2.2": "192.0.2.1"})
	require.NoError(t, err)
	assert.Equal(t, "a 192.0.2.2 192.0.2.1", string(out))
	_, err = pitrix.EditRCLocalTail("t", []byte("x\nsh /etc/192.0.2.1/x\n"), map[string]string{"192.0.2.1": "192.0.2.2"})
	assert.ErrorContains(t, err, "t:2:9: 192.0.2.1 may be a part of a file's name")
}

// The kernel refuses the route whose source is the temporary address, and takes
// the edited one.
func TestTrapTemporarySourceAsKernel(t *testing.T) {
	run := networkRunner(t)
	tail := []byte("ip route add 10.80.0.0/16 src 192.0.2.71 via 192.0.2.21 || exit 2\nip route add 10.80.0.0/16 via 192.0.2.21 && exit 3\nexit 0\n")
	out, err := run(tail)
	assert.ErrorContains(t, err, "exit status 2", out)
	tail, err = pitrix.EditRCLocalTail("rc.local.tail", tail, map[string]string{"192.0.2.71": "192.0.2.61"})
	require.NoError(t, err)
	out, err = run(tail)
	assert.NoError(t, err, out)
}

// networkRunner runs scripts in network namespaces of their own, which have
// 192.0.2.61/24 and nobody else.
func networkRunner(t *testing.T) func(script []byte) (string, error) {
	t.Helper()
	unshare, _ := testenv.Need(t, "unshare"), testenv.Need(t, "ip")
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	run := func(script []byte) (string, error) {
		out, err := exec.CommandContext(t.Context(), unshare, "--net", "sh", "-c", "ip link add d0 type veth peer name d1 && ip addr add 192.0.2.61/24 dev d0 && ip link set d0 up && ip link set d1 up || exit 9\n"+string(script)).CombinedOutput()
		return string(out), err
	}
	if out, err := run(nil); err != nil && (strings.Contains(out, "not permitted") || strings.Contains(out, "Unknown device type")) {
		t.Skip("this machine makes no interfaces: " + out)
	}
	return run
}

// Whoever runs a rule of rc.local.tail again gets "File exists" and status 2 of
// add; replace can be run any number of times, and moves a route that is there.
// So the comparison takes an add for a replace.
func TestTrapRouteAddTwiceAsKernel(t *testing.T) {
	run := networkRunner(t)
	const route = " 10.80.0.0/16 src 192.0.2.61 via 192.0.2.21"
	out, err := run([]byte("ip route add" + route + " || exit 8\nip route add" + route))
	var ee *exec.ExitError
	require.ErrorAs(t, err, &ee)
	assert.Equal(t, 2, ee.ExitCode(), out)
	assert.Contains(t, out, "File exists")
	out, err = run([]byte("ip route add 10.80.0.0/16 via 192.0.2.22 || exit 8\nip route replace" + route + " && ip route replace" + route + " && ip route show 10.80.0.0/16"))
	require.NoError(t, err, out)
	assert.Equal(t, "10.80.0.0/16 via 192.0.2.21 dev d0 src 192.0.2.61", strings.TrimSpace(out), "one route, the new one")
	d := pitrix.CompareRCLocal("rc.local.tail", []byte("ip route add"+route+"\n"), []byte("ip route replace"+route+"\n"), pitrix.RCLocalOptions{})
	assert.Empty(t, d.MustCarryOver())
}

// Editing there and back gives the file again, and no byte outside the
// addresses changes.
func FuzzEditRCLocalTail(f *testing.F) {
	f.Add("ip route add 10.80.0.0/16 src 192.0.2.71 via 192.0.2.21\n# 192.0.2.71\n")
	f.Add("x192.0.2.71 192.0.2.71. 192.0.2.71.5 -192.0.2.71/24\r\n")
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Contains(src, "<<here>>") {
			t.Skip("it has the address that is put in")
		}
		out, err := pitrix.EditRCLocalTail("f", []byte(src), map[string]string{"192.0.2.71": "<<here>>"})
		if err != nil {
			t.Skip("refused: fine; a wrong edit is not")
		}
		require.Equal(t, src, strings.ReplaceAll(string(out), "<<here>>", "192.0.2.71"))
	})
}
