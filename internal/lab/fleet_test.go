package lab_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// Several hosts boot, reboot and are switched off at a time.
func TestLabFleet(t *testing.T) {
	testenv.Lab(t)
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	since := stopwatch(t)
	hosts := make([]*lab.Host, 4)
	each := func(what string, do func(i int) error) {
		t.Helper()
		var all sync.WaitGroup
		for i := range hosts {
			all.Go(func() { assert.NoError(t, do(i), "host %d", i) })
		}
		all.Wait()
		require.False(t, t.Failed())
		since(what)
	}
	each("4 hosts", func(i int) (err error) {
		hosts[i], err = l.Add(ctx, fmt.Sprintf("i-%d", i), fmt.Sprintf("web-%d", i), fmt.Sprintf("172.31.0.%d", 11+i), "", lab.Setup{Kernel: "3.10.0-862.el7.x86_64"})
		return err
	})
	each("4 reboots", func(i int) error {
		if _, _, err := hosts[i].Run(ctx, "systemctl reboot"); err != nil {
			return err
		}
		return hosts[i].WaitBoot(ctx, 2)
	})
	each("4 power-offs", func(i int) error { return hosts[i].Stop(ctx) })
}
