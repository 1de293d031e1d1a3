package host

import (
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

// A unit that was stopped and started again is active, however late the end of
// its first process is noticed.
func TestRestartedUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		h, err := New(Spec{Name: "web-90", Addr: "172.31.0.90", Units: []Unit{{Name: "idle", Enabled: true, Active: true, Start: "sleep 1000000"}}},
			Options{Listen: func() (net.Listener, error) { return n.Listen() }})
		require.NoError(t, err)
		defer h.Close()
		require.NoError(t, h.Start())
		noticed := make(chan struct{})
		late := 0
		h.mu.Lock()
		for _, p := range h.procs {
			if p.unit == "idle.service" && p.ppid == 1 {
				late++
				p.onExit = func() { <-noticed }
			}
		}
		h.mu.Unlock()
		require.Equal(t, 1, late)
		h.StopUnit("idle")
		_, out, err := h.Run(t.Context(), "systemctl start idle")
		require.NoError(t, err, "%s", out)
		close(noticed)
		synctest.Wait()
		assert.True(t, h.UnitActive("idle.service"))
	})
}
