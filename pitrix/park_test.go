package pitrix

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An earlier backup goes away as a whole, and nothing else does: neither the VM
// nor the backup of one whose name begins like it.
func TestMoveBackup(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "pitrix/kernels")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	stay := []string{"proxy1.img", "proxy1.xml", "proxy1.Done", "old-proxy10.img", "base.img"}
	go_ := []string{"old-proxy1.img", "old-proxy1.xml", "old-proxy1.Done", "old-proxy1.base", "old-proxy1.domain"}
	for _, f := range append(append([]string{}, stay...), go_...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600))
	}
	h := &Hypervisor{Host: &localHost{}, Name: "h", Root: root}
	out, err := output(t.Context(), h.Host, h.MoveBackup("proxy1"))
	require.NoError(t, err)
	to := filepath.Join(dir, out[:len(out)-1])
	assert.Regexp(t, `/old-proxy1-\d{8}-\d{6}$`, to)
	for _, f := range go_ {
		assert.NoFileExists(t, filepath.Join(dir, f))
		got, err := os.ReadFile(filepath.Join(to, f))
		require.NoError(t, err)
		assert.Equal(t, f, string(got))
	}
	for _, f := range stay {
		assert.FileExists(t, filepath.Join(dir, f))
	}
}
