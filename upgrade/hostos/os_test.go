package hostos

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A whole upgrade of one host, as steps and one-shot commands do it.
func TestUpgradeHost(t *testing.T) {
	s := simulate(t, nil)
	c := s.dial()
	conf := StrategyConfig{Strategy: YumUpdate}
	a, err := Assess(soon(t), c, conf)
	require.NoError(t, err)
	assert.Empty(t, a.Blocking())
	assert.Equal(t, newKernel, a.Kernel)
	assert.Len(t, a.Transaction.Incoming(), 2)
	assert.Equal(t, oldKernel, a.OS.DefaultKernel)

	script, err := UpgradeScript(conf, a.OS, nil)
	require.NoError(t, err)
	assert.Equal(t, "yum -y update\n", script)
	require.NoError(t, StartJob(soon(t), c, "k", script))
	_, err = WaitJob(soon(t), c, "k", poll, nil)
	require.NoError(t, err)
	u, err := CheckUpgraded(soon(t), c, conf, a, a.OS.Packages)
	require.NoError(t, err)
	assert.Equal(t, newKernel, u.Kernel)
	assert.Equal(t, a.Transaction.Incoming(), u.Installed)
	assert.Equal(t, a.Transaction.Apply(a.OS.Packages), u.Packages, "what was resolved is what came")

	checks, err := CheckPreReboot(soon(t), c, conf, u.Kernel)
	require.NoError(t, err)
	assert.Empty(t, Failed(checks))

	_, err = VerifyUpgrade(soon(t), c, Expected{Boot: a.OS.Boot, Kernel: u.Kernel})
	assert.ErrorContains(t, err, "was not rebooted")
	assert.ErrorContains(t, err, "runs kernel "+oldKernel+", not "+newKernel)
	require.NoError(t, s.Reboot())
	c.Close()
	c = s.dial()
	o, err := VerifyUpgrade(soon(t), c, Expected{Boot: a.OS.Boot, Kernel: u.Kernel, Release: "7.9"})
	require.NoError(t, err)
	back, err := o.PreviousKernel(newKernel)
	require.NoError(t, err)
	assert.Equal(t, oldKernel, back)
}
