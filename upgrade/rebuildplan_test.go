package upgrade

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// rebuildConfig is a valid configuration of a rebuild.
func rebuildConfig(t *testing.T, role string, nodes ...string) *Config {
	t.Helper()
	src := "version: 1\nprocedure: rebuild\nhost: 192.0.2.2\nrebuild:\n  role: " + role + "\n  os_name: xenial\n  os_version: 16.04.5\n  vip: 192.0.2.60\n  nodes:\n"
	for i, n := range nodes {
		src += "    - {name: " + n + ", address: 192.0.2.16" + string(rune('1'+i)) + ", physical_host: 192.0.2.10" + string(rune('3'+i)) + "}\n"
	}
	c, err := ParseConfig("upgrade.yaml", []byte(src))
	require.NoError(t, err)
	return c
}

func rebuildFacts(c *Config, packages ...string) *Facts {
	f := &RebuildFacts{Installer: "4.3.1", Packages: []string{"pitrix-ks-proxy"}, Console: []string{"console.lab.example"}, Scheme: "http"}
	for i, n := range c.Rebuild.Nodes {
		f.Nodes = append(f.Nodes, RebuildNodeFacts{
			RebuildNode: n, Final: "192.0.2.6" + string(rune('1'+i)), OldHost: "192.0.2.10" + string(rune('1'+i)), Interface: "eth0",
			MAC: "00:16:3e:00:00:0" + string(rune('1'+i)), Packages: packages, Inventory: &hostinv.Inventory{},
			Old: Machine{HostKeys: []string{"ssh-ed25519 AAAA"}, MachineID: "m", MACs: []string{"00:16:3e:00:01:0" + string(rune('1'+i))}},
		})
	}
	return &Facts{Rebuild: f}
}

// Every role, with one, two and three nodes, makes a procedure that the engine
// accepts, with its gates where the configuration wants them.
func TestRebuildPlan(t *testing.T) {
	for _, role := range roleNames() {
		for n := 1; n <= 3; n++ {
			c := rebuildConfig(t, role, []string{"a0", "a1", "a2"}[:n]...)
			p, err := BuildPlan(c, rebuildFacts(c), time.Now(), "test")
			require.NoError(t, err)
			steps := rebuildSteps(p, nil)
			require.NoError(t, engine.Validate(steps), "%s, %d nodes", role, n)
			var gates []string
			for _, s := range steps {
				if s.Gate != "" {
					gates = append(gates, s.Section)
				}
				assert.True(t, strings.HasPrefix(s.ID, s.Section+"-"), s.ID)
				assert.False(t, s.Pivot, "%s: everything before the end can be undone", s.ID)
			}
			assert.Equal(t, c.Gates, gates)
			assert.Equal(t, engine.Irreversible, steps[slices.IndexFunc(steps, func(s engine.Step) bool { return s.ID == "9.2-undefine" })].Effect)

			stored, err := p.JSON()
			require.NoError(t, err)
			again, err := ParsePlan(stored)
			require.NoError(t, err)
			assert.Equal(t, p.Text(), again.Text())
		}
	}
}

// Two nodes never share a section of chapter 7: one is through before the other
// begins, and its gate stands before anything happens to it.
func TestRebuildOneByOne(t *testing.T) {
	c := rebuildConfig(t, "proxy", "proxy0", "proxy1")
	p, err := BuildPlan(c, rebuildFacts(c), time.Now(), "test")
	require.NoError(t, err)
	last := map[string]int{}
	for i, s := range p.Steps {
		if strings.HasPrefix(s.Section, "7.") {
			if before, seen := last[s.Section]; seen {
				assert.Equal(t, before+1, i, s.ID)
			} else {
				assert.NotEmpty(t, s.Gate, s.ID)
			}
			last[s.Section] = i
		}
	}
	assert.Len(t, last, 2)
}

func TestRebuildRefused(t *testing.T) {
	c := rebuildConfig(t, "proxy", "proxy0")
	f := rebuildFacts(c)
	f.Rebuild.problem("it is raining")
	_, err := BuildPlan(c, f, time.Now(), "test")
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []string{"it is raining"}, refused.Reasons)
	assert.Equal(t, ExitRefused, ErrorStatus(err))
}

// The role's own packages come first; of the rest, what an old machine carries.
func TestRebuildPackages(t *testing.T) {
	for _, tt := range []struct {
		role string
		sub  bool
		have []string
		want []string
	}{
		{"proxy", false, []string{"pitrix-hosts", "pitrix-ks-proxy", "pitrix-common"}, []string{"pitrix-ks-proxy"}},
		{"proxy", false, []string{"pitrix-ks-proxy-warehouse", "pitrix-ks-proxy", "pitrix-ks-proxy-boss2", "pitrix-wanctl-proxy"},
			[]string{"pitrix-ks-proxy", "pitrix-ks-proxy-boss2", "pitrix-ks-proxy-warehouse", "pitrix-wanctl-proxy"}},
		{"webservice", false, nil, []string{"global-webservice", "global-website"}},
		{"webservice", true, nil, []string{"pitrix-ks-api", "pitrix-ks-cli", "zone-webservice"}},
		{"dnsmaster", true, []string{"pitrix-ks-dnsmaster"}, []string{"pitrix-ks-dnsmaster"}},
	} {
		c := rebuildConfig(t, tt.role, "a0", "a1")
		c.Rebuild.Sub = tt.sub
		f := rebuildFacts(c, tt.have...)
		r := newRebuild(&Plan{Config: *c, Facts: *f}, nil)
		assert.Equal(t, tt.want, r.packages(f.Rebuild), tt)
	}
}

// What is bound to an address that the new machine does not have yet is no
// loss; what only looks like it is one.
func TestRebuildExpected(t *testing.T) {
	c := rebuildConfig(t, "proxy", "proxy0")
	r := newRebuild(&Plan{Config: *c, Facts: *rebuildFacts(c)}, nil)
	for key, want := range map[string]bool{
		"tcp 192.0.2.60:7777": true, "tcp 192.0.2.61:22": true, "keepalived.service": true, "keepalived": true,
		"tcp 192.0.2.6:7777": false, "tcp 192.0.2.160:7777": false, "tcp *:7777": false, "haproxy.service": false, "mykeepalivedx": false,
	} {
		assert.Equal(t, want, r.expected(hostinv.Finding{Key: key}), key)
	}
}

// What a host has too little of is said, each thing by itself.
func TestRebuildLacks(t *testing.T) {
	whole := pitrix.Capacity{Bridges: []string{"br0", "br1"}, FreeKiB: minFreeKiB, AvailableKiB: 8000 * 1024}
	assert.Empty(t, lacks(whole, "proxy0", 8000, "br0", ""))
	for want, change := range map[string]func(*pitrix.Capacity){
		"there is no bridge br1, only br0":                             func(c *pitrix.Capacity) { c.Bridges = []string{"br0"} },
		"7999 MiB of memory are free, proxy0 needs 8000":               func(c *pitrix.Capacity) { c.AvailableKiB-- },
		"9 GiB are free in /pitrix/kernels, a new machine may need 10": func(c *pitrix.Capacity) { c.FreeKiB-- },
	} {
		c := whole
		change(&c)
		assert.Equal(t, []string{want}, lacks(c, "proxy0", 8000, "br0", "br1"))
	}
}

// Disaster migration would start elsewhere what is shut down here, and scaling
// would install what is built here: the plan says so before anything begins.
func TestTrapDisasterMigration(t *testing.T) {
	c := rebuildConfig(t, "proxy", "proxy0")
	p, err := BuildPlan(c, rebuildFacts(c), time.Now(), "test")
	require.NoError(t, err)
	text := p.Text()
	at := strings.Index(text, "switch disaster migration off; until the end nobody scales")
	require.Positive(t, at)
	assert.Less(t, at, strings.Index(text, "2.1-marker"))
}

func TestStepWord(t *testing.T) {
	assert.Equal(t, "pitrix-ks-proxy", stepWord("pitrix-ks-proxy"))
	assert.Equal(t, "a_b_1.2", stepWord("a+b:1.2"))
	assert.Len(t, stepWord(strings.Repeat("x", 200)), 58)
}

// bind9 does not start when /etc/bind has another owner than its own, and the
// packages of slaves are not touched.
func TestTrapBindOwner(t *testing.T) {
	p, ok := roleProfile("dnsmaster")
	require.True(t, ok)
	i := slices.IndexFunc(p.restore, func(d restored) bool { return d.path == "/etc/bind" })
	require.NotEqual(t, -1, i)
	assert.Equal(t, "bind:bind", p.restore[i].owner)
	assert.NotEmpty(t, p.restore[i].test)
	for _, name := range append(p.packages, p.optional...) {
		assert.False(t, strings.HasPrefix(name, "pitrix-ks-dnsslave"), name)
	}
}

// inPlaceConfig is rebuildConfig of the other strategy.
func inPlaceConfig(t *testing.T, role string, nodes ...string) *Config {
	t.Helper()
	src := "version: 1\nprocedure: rebuild\nhost: 192.0.2.2\nrebuild:\n  strategy: in-place\n  role: " + role + "\n  os_name: xenial\n  os_version: 16.04.5\n  vip: 192.0.2.60\n  nodes:\n"
	for _, n := range nodes {
		src += "    - {name: " + n + "}\n"
	}
	c, err := ParseConfig("upgrade.yaml", []byte(src))
	require.NoError(t, err)
	return c
}

// In place every role makes a procedure that the engine accepts: a gate before
// each old machine is shut down, which is after the others were seen to be well
// and before its successor is launched; it says who is alone meanwhile, and
// leaves no point to pause at. Its IDs are those that other steps look for.
func TestRebuildInPlacePlan(t *testing.T) {
	for _, role := range roleNames() {
		for n := 2; n <= 3; n++ {
			c := inPlaceConfig(t, role, []string{"a0", "a1", "a2"}[:n]...)
			f := rebuildFacts(c)
			for i := range f.Rebuild.Nodes {
				nf := &f.Rebuild.Nodes[i]
				nf.Address, nf.PhysicalHost = nf.Final, nf.OldHost
			}
			p, err := BuildPlan(c, f, time.Now(), "test")
			require.NoError(t, err)
			steps := rebuildSteps(p, nil)
			require.NoError(t, engine.Validate(steps), "%s, %d nodes", role, n)
			var gates []string
			at := map[string]int{}
			for i, s := range steps {
				at[s.ID] = i
				if s.Gate != "" {
					gates = append(gates, s.Section)
				}
				assert.True(t, strings.HasPrefix(s.ID, s.Section+"-"), s.ID)
				assert.False(t, s.Pivot, "%s: everything before the end can be undone", s.ID)
			}
			assert.Equal(t, c.Gates, gates)
			r := newRebuild(p, nil)
			for i := range p.Facts.Rebuild.Nodes {
				order := []string{"1-ready", "2-settings", "2-lists", "2-build", "3-floating", "3-stop", "3-record", "3-poweroff", "3-autostart", "3-aside", "3-forget", "3.1-launch", "3.2-machines", "3.3-hold", "4.1-install", "4.2-machines", "5-hosts", "6.1-haproxy", "6.2-rclocal", "6.3-restore", "6-reboot", "6.4-programs", "6.5-compare", "7-announce", "7-keepalived", "8.1-known-hosts"}
				last := 0
				for _, id := range order {
					k, there := at[r.stepID(i, id)]
					require.True(t, there, "%s: %s", role, r.stepID(i, id))
					assert.Greater(t, k, last, id)
					last = k
				}
				off, back := at[r.powerID(i)], at[r.stepID(i, "7-keepalived")]
				for k := off; k <= back; k++ {
					assert.True(t, steps[k].Joined, "%s: a pause would leave the others alone", steps[k].ID)
				}
				assert.False(t, steps[back+1].Joined)
				for _, id := range []string{r.stepID(i, "1-ready"), r.powerID(i)} {
					lines := strings.Join(steps[at[id]].Lines, "\n")
					assert.Contains(t, lines, "nobody serves", id)
					for _, other := range r.others(i) {
						assert.Contains(t, lines, other+" on ", id)
					}
					assert.NotContains(t, lines, p.Facts.Rebuild.Nodes[i].Name+" on ", id)
				}
			}
			text := p.Text()
			assert.NotContains(t, text, "temporary")
			assert.NotContains(t, text, "beside the old ones")
			stored, err := p.JSON()
			require.NoError(t, err)
			again, err := ParsePlan(stored)
			require.NoError(t, err)
			assert.Equal(t, text, again.Text())
		}
	}
}
