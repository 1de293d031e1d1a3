package upgrade

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// The four nginx steps on one file that holds every kind of reference, each
// under a key of its own: both serve, then the transition host alone, and back
// again to the first bytes, also where a colleague has edited the file.
func TestNginxStages(t *testing.T) {
	const before = `events {}
http {
	upstream order { server 172.31.0.90:8080 weight=2; server 172.31.0.88:8080; }
	upstream pay { server 172.31.0.90:8083; }
	upstream session {
		ip_hash;
		server 172.31.0.90:8090;
		server 172.31.0.88:8090;
	}
	map $host $old { default 172.31.0.90; }
	server {
		location / { proxy_pass http://172.31.0.90:8080; }
		location /a/ { proxy_pass http://172.31.0.90:8083/a/; }
		location /old { proxy_pass http://$old:8080; }
	}
}
`
	load := func(text string) *nginx.Tree {
		tree, err := nginx.Load(t.Context(), nginx.MapFS{"f": []byte(text)}, "f")
		require.NoError(t, err)
		return tree
	}
	then := func(tree *nginx.Tree, c *nginx.Change, err error) *nginx.Tree {
		t.Helper()
		require.NoError(t, err)
		next, err := tree.With(c)
		require.NoError(t, err)
		return next
	}
	active := func(tree *nginx.Tree, host string) (n int) {
		for _, r := range tree.Refs(nginx.Query{Host: host}) {
			if r.Certain && r.Has("active") {
				n++
			}
		}
		return n
	}
	const prod, clone = "172.31.0.90", "172.31.0.101"
	tr := &transition{cfg: &Config{Address: prod}}
	tree := load(before)
	c, err := addServers(tree, prod, clone, "k-39")
	both := then(tree, c, err)
	assert.Equal(t, 6, active(both, prod))
	assert.Equal(t, 2, active(both, clone))

	c, err = drainServers(both, prod, clone, "k-42")
	gone := then(both, c, err)
	assert.Zero(t, active(gone, prod), "production gets nothing any more")
	assert.Equal(t, 6, active(gone, clone))
	require.Len(t, c.Moves, 1)
	assert.Zero(t, c.Moves[0].Moved, "no other server's client moves")

	for _, note := range []string{"", "# a colleague was here\n"} {
		edited := load(string(gone.Main().Bytes()) + note)
		c, err = tr.undrain(edited, "k-42", clone)
		on := then(edited, c, err)
		assert.Equal(t, string(both.Main().Bytes())+note, string(on.Main().Bytes()))
		c, err = tr.unadd(on, "k-39", clone)
		assert.Equal(t, before+note, string(then(on, c, err).Main().Bytes()))
	}

	n := NginxFacts{}
	n.preview(tree, prod)
	assert.Empty(t, n.Refusal)
	assert.Contains(t, n.Add, "server transition-host:8083; #upgradectl:add(plan,nl)")
	assert.Contains(t, n.Drain, "proxy_pass http://transition-host:8080;")
	assert.Contains(t, n.Drain, "upstream session maps clients to servers (ip_hash)")
	assert.NotContains(t, n.Add+n.Drain, standIn)
}
