package firstbox

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestSource holds our reading of settings files against bash, also of files
// that the product refuses.
func TestSource(t *testing.T) {
	bash := testenv.Need(t, "bash")
	for _, text := range []string{
		"a=\"x y\"\nb='z'\nc=bare\n",
		"a=1\na=2\n",
		"# note\n\n  a=\"1\" # more\nb=2\n",
		"a=\"one\nb=\"two\"\nc=3\n",
		"a=\"x\"'y'z\n",
		"a=x\r\nb=\"y\"\r\n",
		"a={{ x }}\nb=\"{{ x }}\"\n",
		"a = v\nb=1\n",
		"a=\nb=\"\"\n",
		"a=\"with # inside\"\n",
		"a=\"no end\n",
	} {
		got, odd := source(text)
		for _, key := range []string{"a", "b", "c"} {
			cmd := exec.Command(bash, "-c", ". /dev/stdin 2>/dev/null; printf %s \"$"+key+"\"")
			cmd.Stdin = strings.NewReader(text)
			out, err := cmd.Output()
			require.NoError(t, err)
			if len(odd) == 0 {
				assert.Equal(t, string(out), got[key], "%s of %q", key, text)
			} else if got[key] != string(out) {
				t.Logf("%s of %q: bash has %q, and we refuse %q", key, text, out, odd)
			}
		}
	}
}

func TestMatchPart(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{{"rc?.d", "rc3.d", true}, {"rc?.d", "rc.d", false}, {"*.img", "a.img", true}, {"*.img", "a.xml", false}, {"a*b*c", "aXbYc", true}, {"", "", true}, {"*", "", true}} {
		assert.Equal(t, c.want, matchPart(c.pattern, c.name), "%+v", c)
	}
}

// TestHAProxyFiles: both spellings of a listening address are the same, and
// what is not known is an error, as it is for the program.
func TestHAProxyFiles(t *testing.T) {
	old, errs := parseHAProxy("listen api-front 0.0.0.0:7777\n mode tcp\n balance source\n server a 192.0.2.65:7777 check\n")
	require.Empty(t, errs)
	now, errs := parseHAProxy("listen api-front\n bind 0.0.0.0:7777\n balance source\n server a 192.0.2.65:7777 check\n")
	require.Empty(t, errs)
	assert.Equal(t, old, now)
	for _, text := range []string{"listen x\n bnid *:1\n", "listen x *:1\nlisten y *:1\n", "frontend x\n", "bind *:1\n", "listen x\n server a nowhere:1\n", "listen x *\n"} {
		_, errs := parseHAProxy(text)
		require.NotEmpty(t, errs, text)
		assert.Contains(t, errs[len(errs)-1], "Fatal errors")
	}
}

func TestKeepalivedFiles(t *testing.T) {
	c, err := parseKeepalived(keepalivedText("proxy", 51, 90, ProxyVIP))
	require.NoError(t, err)
	assert.Equal(t, 51, c.id)
	assert.Equal(t, 90, c.priority)
	assert.Equal(t, ProxyVIP+"/24", c.vip.String())
	for _, text := range []string{"", "vrrp_instance a {\n", "vrrp_script x {\n}\n", strings.Replace(keepalivedText("p", 1, 1, ProxyVIP), "nopreempt", "", 1) + "smtp_alert\n"} {
		_, err := parseKeepalived(text)
		assert.Error(t, err, text)
	}
}

func TestInterfacesFile(t *testing.T) {
	list, errs := parseInterfaces("auto lo eth0\niface lo inet loopback\niface eth0 inet static\n  address 192.0.2.1\n  netmask 255.255.255.0\n  gateway 192.0.2.254\n\niface eth1 inet static\n  address 198.51.100.1/25\n")
	require.Empty(t, errs)
	require.Len(t, list, 2)
	assert.Equal(t, "192.0.2.1/24", list[0].address.String())
	assert.True(t, list[0].auto)
	assert.Equal(t, "198.51.100.1/25", list[1].address.String())
	assert.False(t, list[1].auto)
	for _, text := range []string{"iface eth0 inet dhcp\n", "iface eth0 inet static\n address nonsense\n", "iface eth0 inet static\n address 192.0.2.1\n up ip route add x\n", "address 1.2.3.4\n", "iface eth0 inet static\n netmask 255.255.255.0\n"} {
		_, errs := parseInterfaces(text)
		assert.NotEmpty(t, errs, text)
	}
}
