package remote

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const sample = `# of the run
User=early
Host web-90 "web 91"
  HostName 172.31.0.90
  User root   # comment
  Port 2222
  IdentityFile "/keys/a b"
  IdentityFile /keys/%h-%r-%n-%p-%%
  IdentitiesOnly yes
  UserKnownHostsFile /k/one /k/two
  ProxyJump ops@edge:2200,mid
  ConnectTimeout 7
  ServerAliveInterval 5
  ServerAliveCountMax 2
  StrictHostKeyChecking ask
Host db-? !db-9
  HostName %h.internal
  HostKeyAlias db
  ProxyJump none
Host *
  IdentityFile /keys/last
  ProxyJump edge
Host edge
  Port 22
`

func TestConfig(t *testing.T) {
	c, err := parseConfig("cfg", []byte(sample))
	require.NoError(t, err)
	h, err := c.resolve("web-90")
	require.NoError(t, err)
	require.NoError(t, h.expandFiles())
	assert.Equal(t, &hop{alias: "web-90", host: "172.31.0.90", port: 2222, user: "early", idsOnly: true,
		identities: []string{"/keys/a b", "/keys/172.31.0.90-early-web-90-2222-%", "/keys/last"},
		knownHosts: []string{"/k/one", "/k/two"}, jump: []string{"ops@edge:2200", "mid"},
		timeout: 7 * time.Second, alive: 5 * time.Second, aliveCount: 2}, h)

	h, err = c.resolve("me@db-1:23")
	require.NoError(t, err)
	assert.Equal(t, "me@db-1.internal:23", h.who())
	assert.Equal(t, "db", h.hostKeyAlias)
	assert.Nil(t, h.jump)
	h, err = c.resolve("db-9")
	require.NoError(t, err)
	assert.Equal(t, "db-9", h.host)
	assert.Equal(t, []string{"edge"}, h.jump)

	_, err = chainFrom(c.name, c.resolve, "db-9", nil) // "Host *" sends edge through itself
	assert.ErrorContains(t, err, "circle: db-9 → edge → edge")
	hops, err := chainFrom(c.name, c.resolve, "db-1", nil)
	require.NoError(t, err)
	assert.Len(t, hops, 1)
}

func TestConfigProblems(t *testing.T) {
	src := strings.Join([]string{
		"Host a", "Match host a exec \"false\"", "Tunnel yes", "Match final", "StrictHostKeyChecking no",
		"StrictHostKeyChecking accept-new", "Port 0", "Port x", "HostName", "HostName a b", "IdentityFile \"x", "IdentitiesOnly maybe",
		"IdentityFile ~bob/key", "IdentityFile ${HOME}/key", "HostName %p", "ProxyJump a,,b", "ConnectTimeout -1", "UserKnownHostsFile /x/%Z",
	}, "\n")
	_, err := parseConfig("cfg", []byte(src))
	var c *ConfigError
	require.ErrorAs(t, err, &c)
	for i, p := range c.Problems {
		assert.True(t, strings.HasPrefix(p, "cfg:"), p)
		assert.Contains(t, p, []string{"cfg:2:", "cfg:3:", "cfg:4:", "cfg:5:", "cfg:6:", "cfg:7:", "cfg:8:", "cfg:9:", "cfg:10:", "cfg:11:",
			"cfg:12:", "cfg:13:", "cfg:14:", "cfg:15:", "cfg:16:", "cfg:17:", "cfg:18:"}[i])
	}
	assert.Len(t, c.Problems, 17)
	assert.Contains(t, err.Error(), "Match")
}

func TestSplitTarget(t *testing.T) {
	for in, want := range map[string][3]any{
		"h": {"", "h", 0}, "u@h": {"u", "h", 0}, "u@h:22": {"u", "h", 22}, "ssh://u@h:7/": {"u", "h", 7},
		"u@d@h": {"u@d", "h", 0}, "::1": {"", "::1", 0}, "[::1]:22": {"", "::1", 22}, "[::1]": {"", "::1", 0},
	} {
		u, h, p, err := splitTarget(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, [3]any{u, h, p}, in)
	}
	for _, in := range []string{"", "@h", "u@", "h:", "h:x", "h:70000", "[::1", "[::1]x", "-oProxyCommand=x", "a b", "a\nb", "a,b", "*"} {
		_, _, _, err := splitTarget(in)
		assert.Error(t, err, "%q", in)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, tc := range []struct {
		p, s string
		want bool
	}{
		{"*", "", true}, {"a*b", "ab", true}, {"a*b", "axxb", true}, {"a*b", "axxc", false}, {"?", "", false}, {"??", "ab", true},
		{"a*b*c", "a-b-b-c", true}, {strings.Repeat("a*", 30) + "b", strings.Repeat("a", 5000), false},
	} {
		assert.Equal(t, tc.want, matchPattern(tc.p, tc.s), "%s %s", tc.p, tc.s)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(sample, "web-90")
	f.Add("Host a\nProxyJump b\nHost b\nProxyJump a\n", "a")
	f.Fuzz(func(t *testing.T, src, target string) {
		c, err := parseConfig("cfg", []byte(src))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		if hops, err := chainFrom(c.name, c.resolve, target, nil); err == nil {
			require.NotEmpty(t, hops)
			for _, h := range hops {
				require.NotEmpty(t, h.who())
				h.expandFiles()
			}
		}
	})
}

func FuzzKnownHosts(f *testing.F) {
	f.Add("h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZg8ZlYJ0g1XqQmR3Y1b0c0xq0x7o0c0xq0x7o0c0xq c\n@revoked * x y\n|1|a|b c d", "h", 22)
	f.Fuzz(func(t *testing.T, src, host string, port int) {
		k := &knownHosts{}
		k.add("f", []byte(src))
		k.keysFor(host, port)
		for _, s := range k.skipped {
			require.Contains(t, s, "f:")
		}
	})
}
