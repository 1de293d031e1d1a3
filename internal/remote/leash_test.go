package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLeashKnown holds that the simulated hosts know the scripts as they are:
// they do by themselves what the real scripts do.
func TestLeashKnown(t *testing.T) {
	src, err := os.ReadFile("../sim/host/leash.go")
	require.NoError(t, err)
	for _, x := range [][2]string{{"leashKill", leash}, {"leashDetach", free}} {
		name, script := x[0], x[1]
		sum := sha256.Sum256([]byte(script))
		m := regexp.MustCompile(name + `\s+= "(.*)"`).FindSubmatch(src)
		require.NotNil(t, m, name)
		assert.Equal(t, hex.EncodeToString(sum[:]), string(m[1]), "%s: the script has changed; change what the simulated host does and the sum", name)
		assert.False(t, strings.ContainsAny(script, "'!\n"), "sh, csh and fish must pass it on alike")
	}
}
