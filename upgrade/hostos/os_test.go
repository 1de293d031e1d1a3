package hostos

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

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

// The connection is cut at 20 moments of a running update: it goes on, ends
// once, and its result is found again.
func TestConnectionCutInUpdate(t *testing.T) {
	for range 20 {
		s := simulate(t, nil)
		c := s.dial()
		require.NoError(t, StartJob(soon(t), c, "k", "yum -y update\n"))
		time.AfterFunc(time.Duration(rand.IntN(250))*time.Millisecond, func() { c.Close() }) // the update takes 200 ms here
		redial := func(context.Context) (Host, error) { return s.tryDial() }
		st, err := WaitJob(soon(t), c, "k", poll, redial)
		require.NoError(t, err)
		assert.Equal(t, JobState{Phase: JobExited}, st)
		now := s.dial()
		require.NoError(t, StartJob(soon(t), now, "k", "yum -y update\n"), "as resume does")
		log, err := JobLog(soon(t), now, "k")
		require.NoError(t, err)
		assert.Equal(t, 1, strings.Count(log, "Running transaction"))
		assert.Equal(t, 1, strings.Count(log, "Complete!"))
		require.NoError(t, CheckTransactions(soon(t), now))
	}
}

// A journal of yum's is an unfinished transaction, unless somebody has given it
// up.
func TestTransactionJournal(t *testing.T) {
	s := simulate(t, nil)
	c := s.dial()
	require.NoError(t, s.WriteFile("/var/lib/yum/transaction-all.2016-11-23.07:15.21.disabled", []byte("ei bash\n"), 0o644))
	require.NoError(t, CheckTransactions(soon(t), c))
	require.NoError(t, s.WriteFile("/var/lib/yum/transaction-all.2020-12-01.10:00.00", []byte("ei bash\n"), 0o644))
	var open *TransactionError
	require.ErrorAs(t, CheckTransactions(soon(t), c), &open)
	assert.Equal(t, []string{"/var/lib/yum/transaction-all.2020-12-01.10:00.00"}, open.Found)
	o, err := GetOS(soon(t), c)
	require.NoError(t, err)
	assert.Equal(t, open.Found, o.Unfinished)
}
