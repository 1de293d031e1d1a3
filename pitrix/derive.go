package pitrix

import (
	"fmt"
	"slices"
	"strings"
)

// A Change is one edit of Derive: Key gets Value, or, with Drop, is removed.
type Change struct {
	Key, Value string
	Drop       bool
}

// Derive returns settings made of the old file: its comments, its order and
// the keys that nobody here knows are carried over byte for byte. A key that is
// missing is put beside those of its section, the ones that begin alike. To
// drop a key that is not there changes nothing. Old is not changed; its
// Diff, and the result's, starts from the file as it was parsed.
func Derive(old *Settings, changes ...Change) (*Settings, error) {
	s := old.Clone()
	for _, c := range changes {
		_, have := s.Get(c.Key)
		var err error
		switch {
		case c.Drop && have:
			err = s.Delete(c.Key)
		case c.Drop:
		case have:
			err = s.Set(c.Key, c.Value)
		default:
			err = s.Insert(s.beside(c.Key), c.Key, c.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// beside returns the last of the keys that share the most words with key at
// their beginning, or the last key of all.
func (s *Settings) beside(key string) string {
	keys := s.Keys()
	slices.Reverse(keys)
	prefix := key
	for {
		i := strings.LastIndexByte(prefix, '_')
		if i <= 0 {
			break
		}
		prefix = prefix[:i]
		if i := slices.IndexFunc(keys, func(k string) bool { return strings.HasPrefix(k, prefix+"_") }); i >= 0 {
			return keys[i]
		}
	}
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

// A Replacement is what is different about the VM that takes a node's place.
// An empty field is as in the old file.
type Replacement struct {
	OSName, OSVersion         string // "xenial", "16.04.5"
	CPUCores, MemorySize      string // MemorySize in MiB
	Address, Netmask, Gateway string // of the management network, until the switch
	MAC                       MAC
	// The dummy outer address, until the switch, of a node that has one.
	EIPAddress, EIPNetmask, EIPGateway string
	EIPMAC                             MAC
	PhysicalHost                       string // its management address
	Bridge, EIPBridge                  string // on PhysicalHost
	Extra                              []Change
}

// addressKeys are what DeriveTemporary may and DeriveFinal does change of the
// addresses.
func addressKeys() []string {
	return []string{
		"mgmt_network_address", "mgmt_network_netmask", "mgmt_network_gateway",
		"eip_network_address", "eip_network_netmask", "eip_network_gateway",
	}
}

// DeriveTemporary returns the settings of the VM that is built beside the old
// one, made of the old file by Derive. The routing rules follow the addresses
// (src is the own address, via the gateway where it was), and a gateway that
// was the old physical host becomes the new one (R1, R8). Whether the result is
// right is for CheckRebuild to say.
func DeriveTemporary(old *Settings, r Replacement) (*Settings, error) {
	get := func(key string) string { v, _ := old.Get(key); return v }
	if get("eip_network_address") == "" && (r.EIPAddress != "" || r.EIPMAC != (MAC{})) {
		return nil, fmt.Errorf("cannot give %s an outer address: the old node has none; leave the EIP out, or add the section to the settings first", old.Name())
	}
	gateway := r.Gateway
	if gateway == "" && r.PhysicalHost != "" && get("mgmt_network_gateway") == get("physical_host") {
		gateway = r.PhysicalHost
	}
	var changes []Change
	for _, kv := range [][2]string{
		{"os_name", r.OSName}, {"os_version", r.OSVersion}, {"cpu_cores", r.CPUCores}, {"memory_size", r.MemorySize},
		{"mgmt_network_address", r.Address}, {"mgmt_network_netmask", r.Netmask}, {"mgmt_network_gateway", gateway},
		{"mgmt_network_mac_address", macText(r.MAC)},
		{"eip_network_address", r.EIPAddress}, {"eip_network_netmask", r.EIPNetmask}, {"eip_network_gateway", r.EIPGateway},
		{"eip_network_mac_address", macText(r.EIPMAC)},
		{"physical_host", r.PhysicalHost}, {"physical_host_network_interface", r.Bridge}, {"physical_host_eip_network_interface", r.EIPBridge},
	} {
		if kv[1] != "" {
			changes = append(changes, Change{Key: kv[0], Value: kv[1]})
		}
	}
	addresses := map[string]string{}
	swap(addresses, get("mgmt_network_address"), r.Address)
	swap(addresses, get("mgmt_network_gateway"), gateway)
	changes = append(changes, ruleChanges(old, addresses)...)
	return Derive(old, append(changes, r.Extra...)...)
}

func macText(m MAC) string {
	if m == (MAC{}) {
		return ""
	}
	return m.String()
}

// swap notes that from becomes to, if it does.
func swap(addresses map[string]string, from, to string) {
	if from != "" && to != "" && from != to {
		addresses[from] = to
	}
}

// ruleChanges returns the routing rules of s with other addresses.
func ruleChanges(s *Settings, addresses map[string]string) []Change {
	var out []Change
	for _, e := range s.now.entries {
		if !strings.HasSuffix(e.key, "_routing_rule") {
			continue
		}
		if value, _ := replaceAddresses(e.value, addresses); value != e.value {
			out = append(out, Change{Key: e.key, Value: value})
		}
	}
	return out
}

// DeriveFinal returns temporary with the addresses of old, for the switch:
// management address, netmask and gateway and the outer ones, and the routing
// rules with them. MACs, host and release stay as they are in temporary.
// A gateway that was the old physical host is the new one here too. The copy of
// its settings that a node keeps, /opt/install/os/setting, is rewritten in this
// way as well.
func DeriveFinal(temporary, old *Settings) (*Settings, error) {
	now := func(key string) string { v, _ := temporary.Get(key); return v }
	was := func(key string) string { v, _ := old.Get(key); return v }
	var changes []Change
	for _, key := range addressKeys() {
		final, have := old.Get(key)
		if key == "mgmt_network_gateway" && final != "" && final == was("physical_host") {
			final = now("physical_host")
		}
		if _, there := temporary.Get(key); there && !have {
			changes = append(changes, Change{Key: key, Drop: true})
		} else if have {
			changes = append(changes, Change{Key: key, Value: final})
		}
	}
	final := map[string]string{}
	for _, c := range changes {
		final[c.Key] = c.Value
	}
	addresses := map[string]string{}
	swap(addresses, now("mgmt_network_address"), final["mgmt_network_address"])
	swap(addresses, now("mgmt_network_gateway"), final["mgmt_network_gateway"])
	return Derive(temporary, append(changes, ruleChanges(temporary, addresses)...)...)
}

// AddressMap returns which address of temporary becomes which of final, for
// EditRCLocalTail: the own addresses and the gateways that change.
func AddressMap(temporary, final *Settings) map[string]string {
	out := map[string]string{}
	for _, key := range addressKeys() {
		if strings.HasSuffix(key, "_netmask") {
			continue
		}
		from, _ := temporary.Get(key)
		to, _ := final.Get(key)
		swap(out, from, to)
	}
	return out
}
