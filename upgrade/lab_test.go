package upgrade_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
	"github.com/upgradectl/upgradectl/upgrade"
)

// TestLabTransition is the whole procedure on real hosts: systemd, OpenSSH,
// nginx with Debian's packaged files, Docker, Compose, Java, supervisor, cron,
// rpm and yum with their repositories, real TCP, and the program itself as a
// process of its own that is killed and resumed. The cloud is simulated; its
// instances are these hosts.
func TestLabTransition(t *testing.T) {
	labParallel(t)
	if !labIsolated(t) {
		return
	}
	w := newLabWorld(t)
	w.addProxies()
	w.addOther()
	prod := w.addProduction()
	w.startBalancer()
	w.startClients()
	w.files, w.weights = w.nginxFiles(), w.weightsNow()
	w.write("upgrade.yaml", w.config())
	w.logf("the hosts serve")

	session := newLabSession(w)
	before := session.collect(t)

	run := filepath.Join(w.dir, "run")
	plan := filepath.Join(w.dir, "plan.json")
	w.refusedPlans(prod, plan)
	w.tool("plan", "-c", filepath.Join(w.dir, "upgrade.yaml"), "-o", plan).mustEnd()
	w.faultsBeforePivot(run, plan)

	// Killed before the transition host joins the balancer, between the two
	// nginx hosts, and in production's reboot.
	began := func(step string) func() bool { return func() bool { return begun(run, step) } }
	w.tool("resume", "--yes", "--run", run).killWhen("3.10-slb is to begin", began("3.10-slb"))
	w.tool("resume", "--yes", "--run", run).killWhen("nginx has lost production on one host", func() bool {
		if !begun(run, "4.2-nginx") {
			return false
		}
		exit, _, err := w.lab.At(labProxyA).Run(t.Context(), "grep -q '#upgradectl:off' /etc/nginx/sites-available/shop")
		return err == nil && exit == 0
	})
	// Somebody on an nginx host calls production past nginx, in short requests:
	// there is no silence until that ends.
	caller := w.callFrom(labProxyB, "http://"+labProd+":8083/health")
	third := w.tool("resume", "--yes", "--run", run)
	third.waitSaid(labProd + " still gets traffic: " + labProxyB)
	caller()
	// Somebody has given production a package that the transition host does not
	// have. That ends the run before the pivot.
	w.must(prod, "yum -y install nmap-ncat")
	said := third.mustStop(6, labProd+" would not become what was tried on the transition host: ")
	assert.Contains(t, said, "nmap-ncat")
	assert.Equal(t, "862.9.1.el7\n", w.must(prod, "rpm -q --qf '%{RELEASE}\\n' kernel"), "nothing was upgraded")
	w.must(prod, "yum -y remove nmap-ncat")
	w.tool("resume", "--yes", "--run", run).killWhen("production boots again", func() bool { return prod.Boots() == 2 })

	// To the NEVRA.
	installed := func(addr string) string { return w.must(w.lab.At(addr), "rpm -qa | sort") }
	assert.Equal(t, installed(labClone), installed(labProd))
	assert.Contains(t, installed(labProd), "docker-ce-19.03.14-3.el7.x86_64\n")

	// What is lost on production keeps traffic away from it, and is named.
	for _, loss := range []struct{ what, plant, mend, named string }{
		{"a cron line", "mv /etc/cron.d/report /root/", "mv /root/report /etc/cron.d/", "hostname >>/var/log/report"},
		{"a container", "docker rename cache away; docker stop away", "docker rename away cache; docker start cache", "cache"},
		{"a port", "mkdir -p /run/systemd/system/agent.service.d; printf '[Service]\nExecStart=\nExecStart=" + lab.AppBinary + " agent 8087\n' >/run/systemd/system/agent.service.d/port.conf; systemctl daemon-reload; systemctl restart agent",
			"rm -r /run/systemd/system/agent.service.d; systemctl daemon-reload; systemctl restart agent", "8086"},
		{"a Java process", "kill $(pgrep -x java); while pgrep -x java >/dev/null; do sleep 0.1; done", "su -s /bin/sh app -c 'cd /srv/order && setsid ./start.sh >/dev/null 2>&1 </dev/null &'", "order.jar"},
	} {
		w.must(prod, loss.plant)
		said = w.tool("resume", "--yes", "--run", run).mustStop(6, labProd+" is not as before: ")
		assert.Contains(t, said, loss.named)
		assert.Equal(t, 0, w.weightsNow()["i-web90"], "no traffic comes back: %s", loss.what)
		w.must(prod, loss.mend)
		for _, port := range []string{"8080", "8084", "8086"} {
			w.until("production listens on "+port, func() bool { return w.listens(labProd + ":" + port) })
		}
	}
	w.tool("resume", "--yes", "--run", run).mustEnd()

	var rep upgrade.Report
	require.NoError(t, json.Unmarshal(w.tool("report", "--json", "--run", run).mustEnd(), &rep))
	assert.Equal(t, "succeeded", rep.State)
	assert.Equal(t, lab.KernelBefore, rep.KernelBefore)
	assert.Equal(t, lab.KernelAfter, rep.KernelAfter)

	diff := hostinv.Diff(before, session.collect(t), hostinv.Expect{KernelChanged: true, ReleaseChanged: true, DockerChanged: true})
	assert.Empty(t, diff.Losses())
	// Nothing else has changed: a reboot, a kernel, a release, packages, and what
	// of the engine and of the lab is another with every boot.
	meant := []string{"boot", "docker", "kernel", "kernels", "os", "packages"}
	for _, f := range diff.Findings {
		if !slices.Contains(meant, f.Area) && f.Key != "docker0" && !strings.HasPrefix(f.Key, "/run/host/") {
			t.Errorf("changed, and was not to: %s %s %s %s: %s → %s", f.Area, f.Key, f.Kind, f.Field, f.Before, f.After)
		}
	}
	w.judge()
}

// judge stops the traffic and looks at what is left.
func (w *labWorld) judge() {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(t, w.clients.Stop(ctx))
	s := w.clients.Summary()
	by := s.ByAddr()
	t.Logf("%d requests, %d failed, p50 %v, p99 %v, in %v; by backend: %v; fewest healthy: %v; set-up and run %v",
		s.Requests, s.Failed, s.P50, s.P99, s.Elapsed.Round(time.Millisecond), by, w.balancer.MinHealthy(), time.Since(w.began).Round(time.Millisecond))
	assert.Zero(t, s.Failed, "%v", s.Failures)
	assert.Greater(t, s.Requests, int64(500))
	for _, port := range []string{"8080", "8083", "8084", "8085"} {
		assert.Positive(t, by[labClone+":"+port], "the transition host served %s", port)
	}
	for g, n := range w.balancer.MinHealthy() {
		assert.Positive(t, n, g)
	}

	assert.Equal(t, w.files, w.nginxFiles())
	assert.Equal(t, w.weights, w.weightsNow())

	h := w.lab.At(labProd)
	assert.Equal(t, 2, h.Boots(), "one reboot, though the tool was killed in it")
	assert.Equal(t, lab.KernelAfter, h.Kernel())
	assert.Equal(t, 1, w.lab.At(labOther).Boots())
	// What answers on production now was started in the new boot.
	i := slices.IndexFunc(s.Backends, func(b traffic.Backend) bool {
		return b.Addr == labProd+":8080" && b.BootID == h.BootID() && b.Kernel == lab.KernelAfter
	})
	assert.GreaterOrEqual(t, i, 0, "%v", s.Backends)

	assert.Nil(t, w.lab.At(labClone), "the transition host is gone")
	counts := w.cloud.Counts()
	assert.Equal(t, 1, counts["RunInstances"])
	assert.Equal(t, 1, counts["CreateImage"])
	assert.Equal(t, 2, counts["CreateSnapshot"])
	for _, r := range w.cloud.Resources() {
		assert.True(t, !r.CreatedByAPI || r.Type == "snapshot", "left behind: %+v", r)
	}
	assert.Empty(t, w.cloud.Refused())
}
