package pitrix

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// A MAC is an Ethernet address.
type MAC [6]byte

// String returns the address as the installer writes it: lower case, with
// colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// ParseMAC reads six octets of two hexadecimal digits each with colons, or with
// dashes, between them, in either case.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	parts := strings.Split(s, ":")
	if len(parts) == 1 {
		parts = strings.Split(s, "-")
	}
	bad := fmt.Errorf("%q is not a MAC address; write six octets as in 00:16:3e:1a:07:c1", s)
	if len(parts) != len(m) {
		return MAC{}, bad
	}
	for i, part := range parts {
		octet, err := hex.DecodeString(part)
		if err != nil || len(octet) != 1 {
			return MAC{}, bad
		}
		m[i] = octet[0]
	}
	return m, nil
}

// unusable says why no interface of a node can have the address, or nothing.
func (m MAC) unusable() string {
	switch {
	case m[0]&1 != 0:
		return "it is a multicast address"
	case m[0] == 0xfe:
		return "fe: is the host's side of a VM's interface"
	case m[3]|m[4]|m[5] == 0:
		return "its last three octets are zero"
	case m == qemuDefault():
		return "qemu gives it to every VM that has none"
	}
	return ""
}

func qemuDefault() MAC { return MAC{0x52, 0x54, 0x00, 0x12, 0x34, 0x56} }

// macAttempts bounds the search. With half of a prefix taken, which no
// installation comes near, it still fails once in 2^256 times.
const macAttempts = 256

// MACGen makes MAC addresses for new VMs. The zero value makes them as the
// installer does: 00:16:3e and three random octets.
type MACGen struct {
	// Prefix is the first three octets; zero stands for 00:16:3e.
	Prefix [3]byte
	// Rand is where the random octets come from, three for each attempt; nil
	// stands for crypto/rand. Whoever has to get the same address again after
	// an interruption must write it down: a source is not repeatable when the
	// taken addresses have changed.
	Rand io.Reader
}

// Next returns an address that is not in taken, a map from address to where it
// is used. It does not add the new one. Besides TakenMACs of the settings,
// taken should have, by AddMACs, those of the settings' backups and of virsh
// dumpxml of all domains of all hosts: VMs that are switched off keep theirs.
func (g MACGen) Next(taken map[MAC]string) (MAC, error) {
	prefix, random := g.Prefix, g.Rand
	if prefix == ([3]byte{}) {
		prefix = [3]byte{0x00, 0x16, 0x3e}
	}
	if random == nil {
		random = rand.Reader
	}
	m := MAC{prefix[0], prefix[1], prefix[2], 0, 0, 1}
	if reason := m.unusable(); reason != "" {
		return MAC{}, fmt.Errorf("cannot make a MAC address with the prefix %s: %s; choose another prefix", m.String()[:8], reason)
	}
	for range macAttempts {
		if _, err := io.ReadFull(random, m[3:]); err != nil {
			return MAC{}, fmt.Errorf("cannot read random octets for a MAC address: %w", err)
		}
		if _, used := taken[m]; !used && m.unusable() == "" {
			return m, nil
		}
	}
	return MAC{}, fmt.Errorf("no free MAC address with the prefix %s in %d attempts, %d are taken; choose another prefix, or check the random source", m.String()[:8], macAttempts, len(taken))
}

// TakenMACs returns the addresses that the files name, each with the first
// place that names it, as "file:line: key". Values that are none are left out;
// CheckFleet reports them.
func TakenMACs(fleet Fleet) map[MAC]string {
	out := map[MAC]string{}
	for _, n := range nodesOf(fleet) {
		for _, e := range n.s.now.entries {
			if !macKey(e.key) || e.value == "" {
				continue
			}
			m, err := ParseMAC(e.value)
			if _, have := out[m]; err == nil && !have {
				out[m] = n.place(e.key)
			}
		}
	}
	return out
}

var macInText = regexp.MustCompile(`[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2})+`)

// AddMACs adds every address that text holds to taken, with place as where it
// is used; those that taken has keep their place. The text may be anything: a
// settings file of a backup, even a broken one, ip neigh or bridge fdb of a
// host, virsh dumpxml. Rather one too many is taken than one too few.
func AddMACs(taken map[MAC]string, place string, text []byte) {
	for _, word := range macInText.FindAllString(string(text), -1) {
		m, err := ParseMAC(word)
		if _, have := taken[m]; err == nil && !have {
			taken[m] = place
		}
	}
}

// macKey reports whether a key holds a MAC address; the other two endings are
// those of older installers.
func macKey(key string) bool {
	return strings.HasSuffix(key, "_mac_address") || strings.HasSuffix(key, "_mac_addr") || strings.HasSuffix(key, "_hwaddr")
}
