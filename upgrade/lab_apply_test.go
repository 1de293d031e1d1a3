package upgrade_test

import (
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
)

// refusedPlans plants what stands in the way of an update into production: the
// program says all of it when it plans, and nothing is touched. What hides
// nothing else is planted together; a plan takes seconds.
func (w *labWorld) refusedPlans(h *lab.Host, plan string) {
	w.t.Helper()
	before := w.must(h, "rpm -qa | sort")
	var together []labRepoFault
	refused := func(faults ...labRepoFault) {
		w.t.Helper()
		for _, f := range faults {
			w.logf("planted: %s", f.name)
			w.must(h, f.plant)
		}
		r := w.tool("plan", "-c", filepath.Join(w.dir, "upgrade.yaml"), "-o", plan)
		r.mustStop(4, "cannot plan the upgrade of "+labProd)
		for _, f := range faults {
			assert.Contains(w.t, r.said.String()+r.out.String(), f.evidence) // a warning is a result
			w.must(h, f.mend)
		}
		assert.NoFileExists(w.t, plan)
	}
	for _, f := range labRepoFaults {
		if f.hides {
			refused(f)
		} else {
			together = append(together, f)
		}
	}
	free := w.fill(h)
	refused(append(together, labRepoFault{name: "a disk that is full", plant: ":", mend: ":", evidence: "/ has "})...)
	free()
	assert.Equal(w.t, before, w.must(h, "rpm -qa | sort"))
	assert.Empty(w.t, w.must(h, "ls /var/lib/upgradectl 2>/dev/null || :"))
	for _, made := range []string{"CreateSnapshot", "CreateImage", "RunInstances"} {
		assert.Zero(w.t, w.cloud.Counts()[made], made)
	}
}

// faultsBeforePivot begins the upgrade and lets the transition host have what
// goes wrong in an upgrade: each stops the run, is named, and once it is put
// right as the message says, resume goes on. Traffic stays where it was.
func (w *labWorld) faultsBeforePivot(run, plan string) {
	w.t.Helper()
	ctx := w.t.Context()
	stopped := func(r *toolRun, text string) string {
		w.t.Helper()
		said := r.mustStop(6, text)
		assert.Equal(w.t, w.weights, w.weightsNow(), "production has all its traffic")
		return said
	}

	// yum is killed in the middle of its transaction.
	r := w.tool("apply", "--yes", "--run", run, plan)
	w.until("3.5-docker begins", func() bool { return begun(run, "3.5-docker") })
	clone := w.lab.At(labClone)
	w.must(clone, "touch "+lab.HoldPost)
	w.must(clone, "until grep -q ^1.1 /var/log/order-agent.posts; do sleep 0.05; done; kill -9 $(cat /var/lib/dnf/rpmdb_lock.pid); rm "+lab.HoldPost)
	said := stopped(r, "an earlier package transaction is unfinished (")
	assert.Contains(w.t, said, "has no end, dnf: ")
	assert.Contains(w.t, said, "order-agent.x86_64 is installed twice")
	assert.Contains(w.t, said, "dnf remove --duplicates")
	stopped(w.tool("resume", "--yes", "--run", run), "unfinished-transaction") // nothing begins on top of it
	w.must(clone, "yum -y remove --duplicates")

	// Every SSH session to the host dies while the transaction runs, which does
	// not matter; the reboot after it does not come back.
	r = w.tool("resume", "--yes", "--run", run)
	clone.Darken(true)
	w.must(clone, "until ls -d /sys/fs/cgroup/systemd/system.slice/upgradectl-*.service >/dev/null 2>&1; do sleep 0.02; done; sleep 0.2; "+killSessions)
	said = stopped(r, "did not come back")
	assert.Contains(w.t, said, "console")
	clone.Darken(false)
	require.NoError(w.t, clone.Cut())
	require.NoError(w.t, clone.Start())
	require.NoError(w.t, clone.WaitUp(ctx))
	assert.Equal(w.t, lab.KernelAfter, clone.Kernel())
	assert.Equal(w.t, 1, strings.Count(w.must(clone, "rpm -qa --qf '%{NAME}\\n' | sort | uniq -d"), "\n"), "only the kernel is there twice")

	// The engine is up, and no container starts.
	w.must(clone, "mv /usr/sbin/runc /root/; printf '#!/bin/sh\\necho runc: out of order >&2\\nexit 1\\n' >/usr/sbin/runc; chmod 755 /usr/sbin/runc")
	stopped(w.tool("resume", "--yes", "--run", run), "no container")
	w.must(clone, "mv -f /root/runc /usr/sbin/runc")
}
