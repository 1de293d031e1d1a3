package archtest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLeavesCompileNoSDK: a tool that edits nginx or reads a pitrix server must
// not compile a cloud's SDK, which takes minutes. The go command itself says
// what a program that imports one package would be made of.
func TestLeavesCompileNoSDK(t *testing.T) {
	const sdk = "github.com/aliyun/"
	deps := func(pkg string) []string {
		t.Helper()
		cmd := exec.Command("go", "list", "-deps", module+"/"+pkg)
		cmd.Dir = filepath.Join("..", "..")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		return strings.Fields(string(out))
	}
	for _, pkg := range []string{"nginx", "pitrix"} {
		all := deps(pkg)
		assert.Contains(t, all, module+"/"+pkg)
		for _, d := range all {
			own := strings.TrimPrefix(d, module+"/")
			assert.False(t, strings.HasPrefix(d, sdk), "%s compiles %s", pkg, d)
			assert.NotContains(t, []string{"internal/alicloud", "ecs", "slb"}, own, "%s compiles it", pkg)
			// Nothing of anybody else's at all: standard library and ours.
			first, _, _ := strings.Cut(d, "/")
			assert.True(t, own != d || !strings.Contains(first, ".") || strings.HasPrefix(d, "vendor/"), "%s compiles %s", pkg, d)
		}
	}
	// The other way round: the question can be answered with yes.
	assert.Contains(t, strings.Join(deps("slb"), "\n"), sdk)
}
