package nginx_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"nginx version: nginx/1.22.1":                     "1.22.1",
		"nginx version: nginx/1.31.5 (Ubuntu)":            "1.31.5",
		"nginx version: nginx/1.25.3 (nginx-plus-r31-p1)": "1.25.3 (Plus)",
		"nginx version: openresty/1.21.4.1":               "1.21.4",
		"Tengine version: Tengine/3.1.0":                  "unknown",
		"":                                                "unknown",
	} {
		v, ok := nginx.ParseVersion(text)
		assert.Equal(t, want, v.String(), text)
		assert.Equal(t, want != "unknown", ok, text)
	}
}

// A parameter is refused for the versions that do not know it, and only there.
func TestForVersion(t *testing.T) {
	plain, plus := nginx.Version{Major: 1, Minor: 29, Patch: 5}, nginx.Version{Major: 1, Minor: 25, Patch: 3, Plus: true}
	for _, row := range []struct {
		parameter string
		version   nginx.Version
		refused   bool
	}{
		{"drain", plain, true},
		{"drain", nginx.Version{Major: 1, Minor: 29, Patch: 6}, false},
		{"drain", plus, false},
		{"drain", nginx.Version{}, false},
		{"resolve", nginx.Version{Major: 1, Minor: 27, Patch: 2}, true},
		{"resolve", plain, false},
		{"service=http", nginx.Version{Major: 1, Minor: 22, Patch: 1}, true},
		{"slow_start=5s", plain, true},
		{"slow_start=5s", plus, false},
		{"max_conns=3", nginx.Version{Major: 1, Minor: 10, Patch: 3}, true},
		{"max_conns=3", nginx.Version{Major: 2}, false},
	} {
		tree := one(t, "upstream u { server 172.31.0.90 "+row.parameter+"; }").ForVersion(row.version)
		_, err := addLike(tree)
		if row.refused {
			assert.ErrorIs(t, err, nginx.ErrNotSupportedByVersion, "%s in %s", row.parameter, row.version)
			assert.ErrorContains(t, err, row.version.String())
		} else {
			assert.NoError(t, err, "%s in %s", row.parameter, row.version)
		}
		// What the change of a tree leads to is for the same version.
		c, err := tree.SetWeight(nginx.Query{Host: addr}, 2)
		require.NoError(t, err)
		next, err := tree.With(c)
		require.NoError(t, err)
		_, err = addLike(next)
		assert.Equal(t, row.refused, err != nil)
	}
}

// TestVersionAsNginx holds the table against the real program: each parameter
// that this version is said not to know is refused by it, the others pass.
func TestVersionAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	// A main file of its own: others may run on this machine.
	v, err := (&nginx.Server{Host: localHost{}, Binary: binary, Conf: t.TempDir() + "/nginx.conf"}).Version(t.Context())
	require.NoError(t, err)
	out, err := exec.Command(binary, "-v").CombinedOutput()
	require.NoError(t, err)
	want, ok := nginx.ParseVersion(string(out))
	require.True(t, ok)
	assert.Equal(t, want, v)
	for _, parameter := range []string{"drain", "resolve", "service=http", "slow_start=5s", "max_conns=3"} {
		block := "resolver 127.0.0.1;\nupstream u {\nzone u 64k;\nserver 172.31.0.90 " + parameter + ";\nserver 10.0.0.1;\n}"
		_, err := addLike(one(t, block).ForVersion(v))
		dir := t.TempDir()
		write(t, dir+"/nginx.conf", mainConf(dir, block))
		out, testErr := exec.Command(binary, "-t", "-c", dir+"/nginx.conf").CombinedOutput()
		assert.Equal(t, testErr != nil, err != nil, "%s: %s", parameter, out)
	}
}
