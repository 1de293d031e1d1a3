package pitrix_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

func TestParseMAC(t *testing.T) {
	want := pitrix.MAC{0x00, 0x16, 0x3e, 0x1a, 0x07, 0xc1}
	for _, s := range []string{"00:16:3e:1a:07:c1", "00-16-3E-1A-07-C1"} {
		m, err := pitrix.ParseMAC(s)
		assert.NoError(t, err)
		assert.Equal(t, want, m)
		assert.Equal(t, "00:16:3e:1a:07:c1", m.String())
	}
	for _, s := range []string{"", "00:16:3e:1a:07", "00:16:3e:1a:07:c1:02", "0:16:3e:1a:07:c1", "00163e1a07c1", "00:16:3e:1a:07:cg", "00:16-3e:1a:07:c1", " 00:16:3e:1a:07:c1"} {
		_, err := pitrix.ParseMAC(s)
		assert.Error(t, err, "%q", s)
	}
}

func TestMACGen(t *testing.T) {
	mac := func(s string) pitrix.MAC {
		m, err := pitrix.ParseMAC(s)
		require.NoError(t, err)
		return m
	}
	// The first is taken, the second all zero, the third is good.
	random := func() *bytes.Reader {
		return bytes.NewReader([]byte{0x1a, 0x07, 0xc1, 0, 0, 0, 0x96, 0x1c, 0x10, 0x22, 0x4d, 0x77})
	}
	taken := map[pitrix.MAC]string{mac("00:16:3E:1A:07:C1"): "proxy0"}
	m, err := pitrix.MACGen{Rand: random()}.Next(taken)
	require.NoError(t, err)
	assert.Equal(t, "00:16:3e:96:1c:10", m.String())
	assert.Len(t, taken, 1)

	m, err = pitrix.MACGen{Prefix: [3]byte{0x52, 0x54, 0x00}, Rand: bytes.NewReader([]byte{0x12, 0x34, 0x56, 1, 2, 3})}.Next(nil)
	require.NoError(t, err)
	assert.Equal(t, "52:54:00:01:02:03", m.String(), "qemu's own default is nobody's")

	for _, prefix := range [][3]byte{{0x01, 0, 0}, {0xff, 0xff, 0xff}, {0xfe, 0x16, 0x3e}} {
		_, err = pitrix.MACGen{Prefix: prefix}.Next(nil)
		assert.ErrorContains(t, err, "choose another prefix")
	}
	_, err = pitrix.MACGen{Rand: strings.NewReader("ab")}.Next(nil)
	assert.ErrorContains(t, err, "cannot read random octets")
	_, err = pitrix.MACGen{Rand: bytes.NewReader(make([]byte, 4096))}.Next(nil)
	assert.ErrorContains(t, err, "no free MAC address")

	seen := map[pitrix.MAC]string{}
	for range 1000 {
		m, err := pitrix.MACGen{}.Next(seen)
		require.NoError(t, err)
		require.NotContains(t, seen, m)
		require.True(t, strings.HasPrefix(m.String(), "00:16:3e:"))
		seen[m] = ""
	}
}

func TestTakenMACs(t *testing.T) {
	fleet := map[string]*pitrix.Settings{}
	for name, src := range map[string]string{
		"b": "x=\"\"\nmgmt_network_mac_address=\"00:16:3E:00:00:01\"\neip_network_mac_address=\"00:16:3e:00:00:02\"\n",
		"a": "mgmt_network_mac_address=\"00:16:3e:00:00:01\"\nmgmt_network_hwaddr=\"00-16-3e-00-00-03\"\nbm_pxe_network_mac_address=\"\"\nbroken_mac_address=\"x\"\n",
	} {
		s, err := pitrix.Parse("conf/"+name, []byte(src))
		require.NoError(t, err)
		fleet[name] = s
	}
	fleet["nil"] = nil
	assert.Equal(t, map[pitrix.MAC]string{
		{0, 0x16, 0x3e, 0, 0, 1}: "conf/a:1: mgmt_network_mac_address",
		{0, 0x16, 0x3e, 0, 0, 2}: "conf/b:3: eip_network_mac_address",
		{0, 0x16, 0x3e, 0, 0, 3}: "conf/a:2: mgmt_network_hwaddr",
	}, pitrix.TakenMACs(fleet))
}
