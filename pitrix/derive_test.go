package pitrix_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

func mac(t testing.TB, s string) pitrix.MAC {
	t.Helper()
	m, err := pitrix.ParseMAC(s)
	require.NoError(t, err)
	return m
}

func get(s *pitrix.Settings, key string) string { v, _ := s.Get(key); return v }

func TestDelete(t *testing.T) {
	s := parse(t, "## A\na=\"1\" # one\n  b=\"2\"\n\nc=\"3\"")
	assert.ErrorIs(t, s.Delete("x"), pitrix.ErrNoKey)
	require.NoError(t, s.Delete("b"))
	assert.Equal(t, "## A\na=\"1\" # one\n\nc=\"3\"", string(s.Bytes()))
	require.NoError(t, s.Delete("c"))
	require.NoError(t, s.Insert("a", "c", "4")) // one that was deleted, elsewhere
	require.NoError(t, s.Set("a", "5"))
	assert.Equal(t, "## A\na=\"5\" # one\nc=\"4\"\n\n", string(s.Bytes()))
	assert.Equal(t, `--- proxy0
+++ proxy0
@@ -1,5 +1,4 @@
 ## A
-a="1" # one
-  b="2"
+a="5" # one
+c="4"
 
-c="3"
\ No newline at end of file
`, s.Diff())
	require.NoError(t, s.Delete("a"))
	require.NoError(t, s.Delete("c"))
	assert.Empty(t, s.Keys())
}

// Whatever is deleted and put back, the other lines keep their bytes and the
// diff says what happened: applied to the old lines it gives the new ones.
func FuzzDelete(f *testing.F) {
	f.Add([]byte(template), uint(3), uint(9))
	f.Add([]byte("a=1\nb=2"), uint(0), uint(1))
	f.Add([]byte("\n\na=1"), uint(0), uint(0))
	f.Fuzz(func(t *testing.T, src []byte, first, second uint) {
		s, err := pitrix.Parse("f", src)
		if err != nil || len(s.Keys()) == 0 {
			t.Skip("refused or empty: nothing to delete")
		}
		keys := s.Keys()
		a, b := keys[first%uint(len(keys))], keys[second%uint(len(keys))]
		c := s.Clone()
		require.NoError(t, c.Delete(a))
		head, tail := common(src, c.Bytes())
		require.Equal(t, len(c.Bytes()), head+tail, "a deletion changed other bytes")
		require.Len(t, c.Keys(), len(keys)-1)
		if a != b {
			require.NoError(t, c.Insert(b, a, "x"))
			require.NoError(t, c.Delete(b))
		}
		for _, k := range keys {
			want, ok := s.Get(k)
			got, have := c.Get(k)
			switch k {
			case a:
				require.Equal(t, a != b, have)
			case b:
				require.False(t, have)
			default:
				require.Equal(t, ok, have)
				require.Equal(t, want, got)
			}
		}
		patch(t, string(s.Bytes()), string(c.Bytes()), c.Diff())
	})
}

// patch applies the diff to old and compares the outcome with want. Files with
// secrets are left to TestDiff.
func patch(t testing.TB, old, want, diff string) {
	if strings.Contains(diff, "[hidden]") {
		return
	}
	lines := func(s string) []string { return strings.SplitAfter(s, "\n") }
	var out, rest = "", lines(old)
	body := strings.ReplaceAll(diff, "\n\\ No newline at end of file\n", "\n")
	pos := 0
	for i, l := range lines(body) {
		switch {
		case i < 2 || l == "":
		case strings.HasPrefix(l, "@@"):
			from := 0
			for _, c := range l[len("@@ -"):] {
				if c < '0' || c > '9' {
					break
				}
				from = from*10 + int(c-'0')
			}
			if strings.HasPrefix(l, "@@ -0") || strings.Contains(l, ",0 +") {
				from++
			}
			for ; pos < from-1; pos++ {
				out += rest[pos]
			}
		case l[0] == '+':
			out += l[1:]
		case l[0] == '-':
			require.Equal(t, strings.TrimSuffix(rest[pos], "\n"), strings.TrimSuffix(l[1:], "\n"))
			pos++
		default:
			out += rest[pos]
			pos++
		}
	}
	for ; pos < len(rest); pos++ {
		out += rest[pos]
	}
	require.Equal(t, strings.TrimRight(want, "\n"), strings.TrimRight(out, "\n"), "%s", diff)
}

func TestDerive(t *testing.T) {
	old := parse(t, "# by hand\nrole=\"proxy\"\n\n## Mgmt\nmgmt_network_address=\"192.0.2.61\"\nmgmt_network_gateway=\"\"\n\n## Own\nown_thing='x' # keep\n")
	s, err := pitrix.Derive(old,
		pitrix.Change{Key: "mgmt_network_mac_address", Value: "00:16:3e:00:00:01"},
		pitrix.Change{Key: "role", Value: "webservice"},
		pitrix.Change{Key: "mgmt_network_gateway", Drop: true},
		pitrix.Change{Key: "eip_network_address", Drop: true},
		pitrix.Change{Key: "memory_size", Value: "8000"})
	require.NoError(t, err)
	assert.Equal(t, "# by hand\nrole=\"webservice\"\n\n## Mgmt\nmgmt_network_address=\"192.0.2.61\"\nmgmt_network_mac_address=\"00:16:3e:00:00:01\"\n\n## Own\nown_thing='x' # keep\nmemory_size=\"8000\"\n", string(s.Bytes()))
	assert.Contains(t, string(old.Bytes()), "role=\"proxy\"")
	_, err = pitrix.Derive(old, pitrix.Change{Key: "role", Value: "{{ x }}"})
	assert.ErrorIs(t, err, pitrix.ErrBadValue)
	_, err = pitrix.Derive(parse(t, "# nothing\n"), pitrix.Change{Key: "role", Value: "x"})
	assert.ErrorIs(t, err, pitrix.ErrNoKey)
}

// side is the replacement of both proxies of the fleet near, side by side, with
// the hosts crossed over.
func side(t testing.TB, i int) pitrix.Replacement {
	return pitrix.Replacement{
		OSName: "xenial", OSVersion: "16.04.5",
		Address: []string{"192.0.2.71", "192.0.2.72"}[i], MAC: mac(t, "00:16:3e:77:00:0"+string(rune('1'+i))),
		EIPAddress: []string{"2.2.2.8", "2.2.2.9"}[i], EIPMAC: mac(t, "00:16:3e:77:01:0"+string(rune('1'+i))),
		PhysicalHost: []string{"192.0.2.21", "192.0.2.22"}[i],
	}
}

// The whole way of a pair: build on temporary addresses, one after the other to
// the final ones. The rules hold in every state between, and in the end only
// the host, the MACs and the release are new.
func TestDerivePair(t *testing.T) {
	old := pitrix.Fleet(near(t))
	for _, name := range []string{"proxy0", "proxy1"} {
		change(t, old[name], "os_name", "trusty", "os_version", "14.04.5", "own_key", "kept")
	}
	require.Empty(t, pitrix.CheckFleet(old))
	next, phases := pitrix.Fleet{}, map[string]pitrix.Phase{}
	for name, s := range old {
		next[name] = s
	}
	taken := pitrix.TakenMACs(old)
	for i, name := range []string{"proxy0", "proxy1"} {
		s, err := pitrix.DeriveTemporary(old[name], side(t, i))
		require.NoError(t, err)
		next[name], phases[name] = s, pitrix.PhaseBuild
		assert.Equal(t, vmRule(side(t, i).Address, "192.0.2.21"), get(s, "vm_network_routing_rule"))
		assert.Equal(t, "kept", get(s, "own_key"))
	}
	require.Empty(t, pitrix.CheckRebuild(old, next, phases, taken))
	for _, name := range []string{"proxy0", "proxy1"} {
		temporary := next[name]
		s, err := pitrix.DeriveFinal(temporary, old[name])
		require.NoError(t, err)
		next[name], phases[name] = s, pitrix.PhaseSwitch
		require.Empty(t, pitrix.CheckRebuild(old, next, phases, nil))
		var changed []string
		for _, k := range s.Keys() {
			if get(s, k) != get(old[name], k) {
				changed = append(changed, k)
			}
		}
		assert.ElementsMatch(t, []string{"os_name", "os_version", "mgmt_network_mac_address", "eip_network_mac_address", "physical_host"}, changed)
		assert.Equal(t, old[name].Keys(), s.Keys())
		assert.Equal(t, map[string]string{
			get(temporary, "mgmt_network_address"): get(old[name], "mgmt_network_address"),
			get(temporary, "eip_network_address"):  get(old[name], "eip_network_address"),
		}, pitrix.AddressMap(temporary, s))
	}
}

// What is derived bash reads as we do, key by key.
func TestDerivedAsBash(t *testing.T) {
	path := realBash(t)
	for i, name := range []string{"proxy0", "proxy1"} {
		old := near(t)[name]
		temporary, err := pitrix.DeriveTemporary(old, side(t, i))
		require.NoError(t, err)
		sameAsBash(t, path, temporary)
		final, err := pitrix.DeriveFinal(temporary, old)
		require.NoError(t, err)
		sameAsBash(t, path, final)
		require.NoError(t, final.Delete("role"))
		sameAsBash(t, path, final)
	}
}

// A gateway that is the physical host moves with the VM (R1, R8).
func TestDeriveGateway(t *testing.T) {
	old := pitrix.Fleet(near(t))
	s, err := pitrix.DeriveTemporary(old["dnsmaster1"], pitrix.Replacement{Address: "192.0.2.49", MAC: mac(t, "00:16:3e:77:00:09"), PhysicalHost: "192.0.2.21"})
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.21", get(s, "mgmt_network_gateway"))
	s, err = pitrix.DeriveFinal(s, old["dnsmaster1"])
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.21", get(s, "mgmt_network_gateway"))
	next := pitrix.Fleet{}
	for name, o := range old {
		next[name] = o
	}
	next["dnsmaster1"] = s
	assert.Empty(t, pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{"dnsmaster1": pitrix.PhaseSwitch}, nil))

	spine := leaf(t)["lab2b-bm0"]
	s, err = pitrix.DeriveTemporary(spine, pitrix.Replacement{Address: "192.0.2.122", PhysicalHost: "192.0.2.112"})
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.112", get(s, "mgmt_network_gateway"))

	_, err = pitrix.DeriveTemporary(flat(t)["proxy0"], pitrix.Replacement{EIPAddress: "2.2.2.2"})
	assert.ErrorContains(t, err, "the old node has none")
}

// The copy of its settings on a node keeps the temporary addresses after the
// switch, and later scripts source it.
func TestTrapNodeSettingsCopy(t *testing.T) {
	old := near(t)["proxy0"]
	temporary, err := pitrix.DeriveTemporary(old, side(t, 0))
	require.NoError(t, err)
	// The node's copy has lines that the firstbox's file has not.
	copied := parse(t, string(temporary.Bytes())+"install_done=\"1\"\n")
	final, err := pitrix.DeriveFinal(copied, old)
	require.NoError(t, err)
	for _, address := range []string{"192.0.2.71", "2.2.2.8"} {
		assert.Contains(t, string(copied.Bytes()), address)
		assert.NotContains(t, string(final.Bytes()), address)
	}
	assert.Equal(t, "1", get(final, "install_done"))
	assert.Equal(t, vmRule("192.0.2.61", "192.0.2.21"), get(final, "vm_network_routing_rule"))
}

func TestCheckRebuild(t *testing.T) {
	build := map[string]pitrix.Phase{"proxy0": pitrix.PhaseBuild, "proxy1": pitrix.PhaseBuild}
	for _, tt := range []struct {
		name   string
		change func(f pitrix.Fleet)
		phases map[string]pitrix.Phase
		want   []string // "file key rule: part"
	}{
		{"right", func(pitrix.Fleet) {}, build, nil},
		{"same host", func(f pitrix.Fleet) { swapHosts(t, f) }, build, []string{
			"proxy0 physical_host R5: forced launch there would destroy", "proxy1 physical_host R5: forced launch there would destroy"}},
		{"old address", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "mgmt_network_address", "192.0.2.61", "vm_network_routing_rule", vmRule("192.0.2.61", "192.0.2.21"))
		}, build, []string{"proxy0 mgmt_network_address R7: still the old node's"}},
		{"the other's old address", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "mgmt_network_address", "192.0.2.62", "vm_network_routing_rule", vmRule("192.0.2.62", "192.0.2.21"))
		}, build, []string{"proxy0 mgmt_network_address R7: is in use, proxy1:"}},
		{"the firstbox's address", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "mgmt_network_address", "192.0.2.2", "vm_network_routing_rule", vmRule("192.0.2.2", "192.0.2.21"))
		}, build, []string{"proxy0 mgmt_network_address R7: is in use, dnsmaster1:17: firstbox_address"}},
		{"a name server's address", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "mgmt_network_address", "192.0.2.41", "vm_network_routing_rule", vmRule("192.0.2.41", "192.0.2.21"))
		}, build, []string{"proxy0 mgmt_network_address R7: mgmt_network_dns_servers"}},
		{"the old outer address", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "eip_network_address", "2.2.2.2")
		}, build, []string{"proxy0 eip_network_address R4: still the old node's"}},
		{"the old MAC", func(f pitrix.Fleet) {
			change(t, f["proxy0"], "mgmt_network_mac_address", strings.ToUpper(get(near(t)["proxy0"], "mgmt_network_mac_address")))
		}, build, []string{"proxy0 mgmt_network_mac_address R10: is taken, proxy0:"}},
		{"another role", func(f pitrix.Fleet) { change(t, f["proxy0"], "role", "proxy,seed") }, build,
			[]string{"proxy0 role R10: stays what it is"}},
		{"another node changed", func(f pitrix.Fleet) { change(t, f["dnsmaster1"], "memory_size", "9000") }, build,
			[]string{"dnsmaster1 memory_size rebuild: only the rebuilt nodes may"}},
		{"a node came", func(f pitrix.Fleet) { host(t, f, "lab1ar01n09", "TBD", "192.0.2.109") }, build,
			[]string{"lab1ar01n09  rebuild: the file is new"}},
		{"a node went", func(f pitrix.Fleet) { delete(f, "dnsmaster1") }, build, []string{"dnsmaster1  rebuild: the file is gone"}},
		{"a rebuilt node went", func(f pitrix.Fleet) { delete(f, "proxy1") }, build, []string{"proxy1  rebuild: no file before or none after"}},
		{"nobody's", func(pitrix.Fleet) {}, map[string]pitrix.Phase{"proxy0": "build", "proxy1": "build", "proxy9": "build"}, []string{"proxy9  rebuild: no file of this name"}},
		{"not yet switched", func(pitrix.Fleet) {}, map[string]pitrix.Phase{"proxy0": pitrix.PhaseSwitch, "proxy1": pitrix.PhaseBuild}, []string{
			"proxy0 mgmt_network_address R7: in the end", "proxy0 eip_network_address R4: in the end"}},
		{"a phase", func(pitrix.Fleet) {}, map[string]pitrix.Phase{"proxy0": "x", "proxy1": "build"}, []string{"proxy0  rebuild: internal error"}},
	} {
		old := pitrix.Fleet(near(t))
		next := pitrix.Fleet{}
		for name, s := range old {
			next[name] = s.Clone()
		}
		for i, name := range []string{"proxy0", "proxy1"} {
			var err error
			next[name], err = pitrix.DeriveTemporary(old[name], side(t, i))
			require.NoError(t, err)
		}
		tt.change(next)
		problems := pitrix.CheckRebuild(old, next, tt.phases, nil)
		if !assert.Len(t, problems, len(tt.want), "%s: %v", tt.name, problems) {
			continue
		}
		for i, p := range problems {
			where, text, _ := strings.Cut(tt.want[i], ": ")
			assert.Equal(t, where, p.File+" "+p.Key+" "+p.Rule, tt.name)
			assert.Contains(t, p.Text, text, tt.name)
		}
	}
}

func swapHosts(t testing.TB, f pitrix.Fleet) {
	a, b := get(f["proxy0"], "physical_host"), get(f["proxy1"], "physical_host")
	change(t, f["proxy0"], "physical_host", b)
	change(t, f["proxy1"], "physical_host", a)
}

// launch_vms -f on the host of the running VM of the same name removes it.
func TestTrapSameHost(t *testing.T) {
	old := pitrix.Fleet(near(t))
	next := pitrix.Fleet{}
	for name, s := range old {
		next[name] = s
	}
	r := side(t, 0)
	r.PhysicalHost = "" // as the old file has it
	var err error
	next["proxy0"], err = pitrix.DeriveTemporary(old["proxy0"], r)
	require.NoError(t, err)
	problems := pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{"proxy0": pitrix.PhaseBuild}, nil)
	require.Len(t, problems, 1)
	assert.Equal(t, "R5", problems[0].Rule)
	// In place the old VM is gone before.
	next["proxy0"], err = pitrix.Derive(old["proxy0"], pitrix.Change{Key: "memory_size", Value: "9000"})
	require.NoError(t, err)
	assert.Empty(t, pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{"proxy0": pitrix.PhaseInPlace}, nil))
}

// A VM that is switched off still has its address, in virsh dumpxml and in
// yesterday's settings.
func TestTrapMACOfOldVM(t *testing.T) {
	xml := `<domain type='kvm'><name>old-proxy0</name><devices>
  <interface type='bridge'><mac address='52:54:00:AA:BB:01'/><source bridge='br0'/></interface>
  <interface type='bridge'><mac address='52:54:00:aa:bb:02'/><source bridge='br1'/></interface></devices></domain>`
	taken := map[pitrix.MAC]string{}
	pitrix.AddMACs(taken, "dumpxml of 192.0.2.101", []byte(xml))
	pitrix.AddMACs(taken, "settings.20261121/proxy0", []byte("broken = \"00-16-3e-00-00-07\r\n"))
	pitrix.AddMACs(taken, "ip neigh", []byte("192.0.2.7 dev br0 lladdr 00:16:3e:00:00:07 STALE\n192.0.2.8 dev br0 lladdr 00:16:3e:00:00:08\n"))
	assert.Equal(t, map[pitrix.MAC]string{
		mac(t, "52:54:00:aa:bb:01"): "dumpxml of 192.0.2.101", mac(t, "52:54:00:aa:bb:02"): "dumpxml of 192.0.2.101",
		mac(t, "00:16:3e:00:00:07"): "settings.20261121/proxy0", mac(t, "00:16:3e:00:00:08"): "ip neigh",
	}, taken)
	m, err := pitrix.MACGen{Rand: strings.NewReader("\x00\x00\x07\x00\x00\x08\x00\x00\x09")}.Next(taken)
	require.NoError(t, err)
	assert.Equal(t, "00:16:3e:00:00:09", m.String())

	// What was made by hand and not by Next is found by the check.
	old := pitrix.Fleet(near(t))
	next := pitrix.Fleet{}
	for name, s := range old {
		next[name] = s
	}
	r := side(t, 0)
	r.MAC = mac(t, "52:54:00:aa:bb:01")
	next["proxy0"], err = pitrix.DeriveTemporary(old["proxy0"], r)
	require.NoError(t, err)
	change(t, next["proxy0"], "physical_host", "192.0.2.22") // proxy1 stays where it is
	problems := pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{"proxy0": pitrix.PhaseBuild}, taken)
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.Key+" "+p.Text)
	}
	assert.Contains(t, strings.Join(texts, "\n"), "mgmt_network_mac_address 52:54:00:aa:bb:01 is taken, dumpxml of 192.0.2.101")
}

// In a spine-leaf network a VM has a route on its host, which moves with it:
// while both VMs are there, both hosts have one.
func TestRebuildSpineLeaf(t *testing.T) {
	const key = "ks_vm_routing_rule_lab2b_bm0"
	old := pitrix.Fleet(leaf(t))
	next := pitrix.Fleet{}
	for name, s := range old {
		next[name] = s.Clone()
	}
	var err error
	next["lab2b-bm0"], err = pitrix.DeriveTemporary(old["lab2b-bm0"], pitrix.Replacement{Address: "192.0.2.122", MAC: mac(t, "00:16:3e:77:00:01"), PhysicalHost: "192.0.2.112"})
	require.NoError(t, err)
	change(t, next["lab2br01n12"], key, "ip route replace 192.0.2.122/32 dev br0")
	phases := map[string]pitrix.Phase{"lab2b-bm0": pitrix.PhaseBuild}
	assert.Empty(t, pitrix.CheckRebuild(old, next, phases, nil))
	change(t, next["lab2br01n12"], "memory_size", "9000")
	assert.Len(t, pitrix.CheckRebuild(old, next, phases, nil), 1)
	change(t, next["lab2br01n12"], "memory_size", "8000")

	// After the switch the old host's route leads nowhere.
	next["lab2b-bm0"], err = pitrix.DeriveFinal(next["lab2b-bm0"], old["lab2b-bm0"])
	require.NoError(t, err)
	phases["lab2b-bm0"] = pitrix.PhaseSwitch
	var at []string
	for _, p := range pitrix.CheckRebuild(old, next, phases, nil) {
		at = append(at, p.File+" "+p.Rule)
	}
	assert.Equal(t, []string{"lab2br01n11 R8", "lab2br01n12 R8"}, at)
	require.NoError(t, next["lab2br01n11"].Delete(key))
	change(t, next["lab2br01n12"], key, "ip route replace 192.0.2.121/32 dev br0")
	assert.Empty(t, pitrix.CheckRebuild(old, next, phases, nil))
}
