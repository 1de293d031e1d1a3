package pitrix

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIdentity(t *testing.T) {
	m1, m2 := MAC{0, 0x16, 0x3e, 0, 0, 1}, MAC{0, 0x16, 0x3e, 0, 0, 2}
	is := Identity{HostKey: "ssh-ed25519 AAAA", MachineID: "a", MACs: []MAC{m1, m2}, BootID: "b1"}
	for name, tt := range map[string]struct {
		want Identity
		same bool
	}{
		"all":                      {is, true},
		"one MAC":                  {Identity{MACs: []MAC{m2}}, true},
		"host key alone":           {Identity{HostKey: "ssh-ed25519 AAAA"}, true},
		"in another boot":          {Identity{MACs: []MAC{m1}, BootID: "b2"}, true},
		"another host key":         {Identity{HostKey: "ssh-ed25519 BBBB", MACs: []MAC{m1}}, false},
		"another machine ID":       {Identity{MachineID: "b", MACs: []MAC{m1}}, false},
		"a MAC that is not there":  {Identity{MachineID: "a", MACs: []MAC{m1, {0, 0x16, 0x3e, 0, 0, 3}}}, false},
		"machine ID alone, shared": {Identity{MachineID: "a"}, false},
		"nothing":                  {Identity{}, false},
	} {
		assert.Equal(t, tt.same, is.Same(tt.want) == nil, name)
	}
	// Reached by way of another machine, it has no host key to compare.
	assert.NoError(t, Identity{MACs: []MAC{m1}}.Same(Identity{HostKey: "ssh-ed25519 AAAA", MACs: []MAC{m1}}))
}

// The key of the connection decides before a command is sent.
func TestIdentityOfConnection(t *testing.T) {
	needIdentity(t)
	n := &Node{Host: &keyHost{localHost{key: "ssh-ed25519 AAAA"}}, Name: "proxy0"}
	id, err := n.GetIdentity(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "ssh-ed25519 AAAA", id.HostKey)
	_, err = n.run(t.Context(), id, "look at", "true")
	require.NoError(t, err)
	id.HostKey = "ssh-ed25519 BBBB"
	var other *IdentityError
	require.ErrorAs(t, n.Shutdown(t.Context(), id), &other)
}
