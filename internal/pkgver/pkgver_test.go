package pkgver

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestCompare has pairs in their order by rpm and by dpkg.
func TestCompare(t *testing.T) {
	for manager, pairs := range map[string][][2]string{
		"rpm": {{"1.0-1", "1.0-2"}, {"1.9", "1.10"}, {"1.0~rc1", "1.0"}, {"1.0", "1.0^git1"}, {"1.0^git1", "1.0.1"}, {"1.0a", "1.0.1"}, {"9:1", "10:0"}, {"1-1", "1:0-1"}, {"3.10.0-862.9.1.el7", "3.10.0-1160.6.1.el7"},
			{"1.0", "1.0a"}, {"2.0.a", "2.0.1"}, {"007", "8"}, {"1.13.1-75.git8633870.el7.centos", "1.13.1-208.git7d71120.el7_9"}},
		"dpkg": {{"1.0-1", "1.0-2"}, {"1.0~rc1-1", "1.0-1"}, {"1.0-1", "1.0-1+deb12u1"}, {"1.9", "1.10"}, {"1.0a", "1.0+"}, {"2:1.0", "3:0.1"}, {"1.0", "1.0-0.1"}, {"9.2p1-2+deb12u3", "9.2p1-2+deb12u10"}},
	} {
		for _, p := range pairs {
			assert.Equal(t, -1, Compare(manager, p[0], p[1]), "%s: %v", manager, p)
			assert.Equal(t, 1, Compare(manager, p[1], p[0]), "%s: %v", manager, p)
			assert.Equal(t, 0, Compare(manager, p[0], p[0]))
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("1.0~rc1-1", "2:1.0^git-3")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, m := range []string{"rpm", "dpkg"} {
			require.Equal(t, Compare(m, a, b), -Compare(m, b, a))
			require.Zero(t, Compare(m, a, a))
		}
	})
}

var orders = [][2]string{
	{"3.10.0-862.9.1.el7", "3.10.0-1160.6.1.el7"}, {"1.0", "1.0"}, {"1.0~rc1", "1.0"}, {"1.0^git1", "1.0"}, {"1.0a", "1.0"}, {"1.a", "1.1"},
	{"1.05", "1.5"}, {"2.0.1", "2.0"}, {"1..0", "1.0"}, {"6.1.0-9-amd64", "6.1.0-10-amd64"}, {"", "1"}, {"1.0^", "1.0^a"}, {"~", ""}, {"1_0", "1.0"}, {"fc4", "fc.4"},
}

func TestCompareRPM(t *testing.T) {
	for _, o := range orders {
		assert.Equal(t, -CompareRPM(o[1], o[0]), CompareRPM(o[0], o[1]), "%q %q", o[0], o[1])
	}
	assert.Equal(t, -1, CompareRPM("3.10.0-862.9.1.el7.x86_64", "3.10.0-1160.6.1.el7.x86_64"))
	assert.Equal(t, -1, CompareRPM("6.1.0-9-amd64", "6.1.0-10-amd64"))
}

// rpm itself is the judge.
func TestCompareAsRPM(t *testing.T) {
	testenv.Need(t, "rpm")
	var lua strings.Builder
	list := slices.DeleteFunc(slices.Clone(orders), func(o [2]string) bool { return o[0] == "" || o[1] == "" }) // rpm refuses an empty version
	for _, o := range list {
		fmt.Fprintf(&lua, `print(rpm.vercmp("%s","%s").." ")`, o[0], o[1])
	}
	out, err := exec.CommandContext(t.Context(), "rpm", "--eval", "%{lua:"+lua.String()+"}").Output()
	require.NoError(t, err)
	got := strings.Fields(string(out))
	require.Len(t, got, len(list))
	for i, o := range list {
		assert.Equal(t, got[i], fmt.Sprint(CompareRPM(o[0], o[1])), "%q %q", o[0], o[1])
	}
}
