package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/upgradectl/upgradectl/internal/lab"
)

func TestLabLayer(t *testing.T) {
	if !lab.Isolated(t) {
		return
	}
	dir := os.Getenv("UPGRADECTL_LAB_DIR")
	at := time.Now()
	m, err := lab.NewMirror(t.Context(), filepath.Join(dir, "mirror"))
	require.NoError(t, err)
	t.Log(time.Since(at))
	at = time.Now()
	layer := filepath.Join(dir, "layer")
	require.NoError(t, m.Layer(t.Context(), layer))
	t.Log(time.Since(at))
	out, _ := exec.Command("sh", "-c", "du -sh "+layer+"; find "+layer+" | head -300; cat "+layer+"/boot/grub2/*").CombinedOutput()
	t.Log(string(out))
}
