package pitrix_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

// In a spine-leaf network the hosts' routes go with a VM: each state of a
// rebuild that LeafRoutes makes keeps every rule, and nothing else changes.
func TestTrapSpineLeafRoutes(t *testing.T) {
	const vm, key = "lab2b-bm0", "ks_vm_routing_rule_lab2b_bm0"
	for _, spelt := range []bool{true, false} { // whether the old host has a route in its settings
		old := pitrix.Fleet(leaf(t))
		if !spelt {
			require.NoError(t, old["lab2br01n11"].Delete(key))
		}
		assert.True(t, pitrix.SpineLeaf(old[vm]))
		assert.False(t, pitrix.SpineLeaf(old["lab2br01n11"]))
		next := maps.Clone(old)
		var err error
		next[vm], err = pitrix.DeriveTemporary(old[vm], pitrix.Replacement{Address: "192.0.2.122", MAC: mac(t, "00:16:3e:77:00:01"), PhysicalHost: "192.0.2.112"})
		require.NoError(t, err)
		hosts, err := pitrix.LeafRoutes(next, vm, true)
		require.NoError(t, err)
		assert.Equal(t, []string{"lab2br01n12"}, slices.Collect(maps.Keys(hosts)), "the old host keeps its route, for the old VM serves")
		maps.Copy(next, hosts)
		v, _ := next["lab2br01n12"].Get(key)
		assert.Equal(t, "ip route replace 192.0.2.122/32 dev br0", v)
		assert.Empty(t, pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{vm: pitrix.PhaseBuild}, nil))
		again, err := pitrix.LeafRoutes(next, vm, true)
		require.NoError(t, err)
		assert.Empty(t, again)

		next[vm], err = pitrix.DeriveFinal(next[vm], old[vm])
		require.NoError(t, err)
		hosts, err = pitrix.LeafRoutes(next, vm, false)
		require.NoError(t, err)
		maps.Copy(next, hosts)
		assert.Empty(t, pitrix.CheckRebuild(old, next, map[string]pitrix.Phase{vm: pitrix.PhaseSwitch}, nil))
		_, have := next["lab2br01n11"].Get(key)
		assert.False(t, have, "left there, the VM could not be reached")
		v, _ = next["lab2br01n12"].Get(key)
		assert.Equal(t, "ip route replace 192.0.2.121/32 dev br0", v)
	}

	lost := pitrix.Fleet(leaf(t))
	delete(lost, "lab2br01n11")
	_, err := pitrix.LeafRoutes(lost, vm, false)
	assert.ErrorContains(t, err, "has no file")
	_, err = pitrix.LeafRoutes(lost, "nobody", false)
	assert.Error(t, err)
}
