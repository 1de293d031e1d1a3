package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// A labSession reaches a host as the program does, over connections that can
// be cut.
type labSession struct {
	w      *labWorld
	dialer *hostinv.Dialer

	mu    sync.Mutex
	conns []net.Conn
}

func newLabSession(w *labWorld) *labSession {
	s := &labSession{w: w}
	var err error
	s.dialer, err = hostinv.NewDialer(hostinv.SSHConfig{
		ConfigFile: filepath.Join(w.dir, "ssh_config"), KnownHosts: []string{filepath.Join(w.dir, "known_hosts")}, ConnectTimeout: 20 * time.Second,
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				s.mu.Lock()
				s.conns = append(s.conns, c)
				s.mu.Unlock()
			}
			return c, err
		},
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = s.dialer.Close() })
	return s
}

func (s *labSession) dial(t *testing.T, addr string) *hostinv.Conn {
	t.Helper()
	c, err := s.dialer.Dial(t.Context(), addr)
	require.NoError(t, err)
	return c
}

// collect takes an inventory of production.
func (s *labSession) collect(t *testing.T) *hostinv.Inventory {
	t.Helper()
	c := s.dial(t, labProd)
	defer c.Close()
	inv, err := hostinv.Collect(t.Context(), c, hostinv.Options{})
	require.NoError(t, err)
	return inv
}

// cut resets every connection.
func (s *labSession) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an orderly end
		}
		_ = c.Close()
	}
	s.conns = nil
}

// TestLabFaults is what goes wrong on a host in an upgrade of its operating
// system, on one real host after the other fault.
func TestLabFaults(t *testing.T) {
	labParallel(t)
	if !labIsolated(t) {
		return
	}
	w := newLabWorld(t)
	h := w.addProduction()
	w.logf("the host is up")
	s := newLabSession(w)

	t.Run("session killed at random moments of an update", func(t *testing.T) { s.killedSessions(t, h) })
	t.Run("before the update", func(t *testing.T) { s.assessments(t, h) })
	t.Run("the engine runs and starts no container", func(t *testing.T) { s.engineAlone(t, h) })
	t.Run("a host that does not come back", func(t *testing.T) { s.dark(t, h) })
	t.Run("strategies", func(t *testing.T) { s.strategies(t, h) })
	t.Run("strategies of Debian", func(t *testing.T) { s.debian(t) })
}

// killSessions ends every process of every SSH session of root's at once.
const killSessions = "for s in /sys/fs/cgroup/systemd/user.slice/user-0.slice/session-*.scope; do [ ! -e $s ] || kill -9 $(cat $s/cgroup.procs) || :; done"

// killedSessions: the transaction finishes once, and who comes back finds its
// result, wherever the session was killed.
func (s *labSession) killedSessions(t *testing.T, h *lab.Host) {
	const names = "order-agent glibc openssl-libs bash systemd"
	versions := []string{"1.0", "1.1"}
	posts := func() []string {
		return strings.Fields(s.w.must(h, "cut -d' ' -f1 /var/log/order-agent.posts"))
	}
	transactions := func() string {
		return strings.TrimSpace(s.w.must(h, "python3 -c 'import sqlite3; print(*sqlite3.connect(\"/var/lib/dnf/history.sqlite\").execute(\"select count(*), sum(state<>1) from trans\").fetchone())'"))
	}
	length := 3 * time.Second // of a transaction, measured by those before
	var phases []string
	ran := len(posts())
	require.Equal(t, "1 0", transactions())
	const cuts = 20
	for i := range cuts {
		key := fmt.Sprintf("cut-%02d", i)
		script := "yum -y update " + names + "\n"
		if i%2 == 1 {
			script = "yum -y downgrade " + names + "\n"
		}
		began := time.Now()
		session, stop := context.WithCancel(t.Context())
		lost := make(chan error, 1)
		go func() {
			c, err := s.dialer.Dial(session, labProd)
			if err == nil {
				err = hostos.StartJob(session, c, key, script)
			}
			if err == nil {
				_, err = hostos.WaitJob(session, c, key, 100*time.Millisecond, nil)
			}
			lost <- err
		}()
		// Also shortly before it starts and after it has ended.
		after := time.Duration(float64(length) * 1.2 * (float64(i) + rand.Float64()) / cuts)
		wait := time.NewTimer(after)
		select {
		case <-wait.C:
		case <-t.Context().Done():
		}
		if i%4 < 2 {
			s.cut()
		} else {
			// The host's end of it: every process of the session dies at once.
			s.w.must(h, killSessions)
			s.cut()
		}
		stop()
		<-lost

		// Resume: look, start it only where it never started, wait.
		c := s.dial(t, labProd)
		st, err := hostos.GetJob(t.Context(), c, key)
		require.NoError(t, err)
		phases = append(phases, fmt.Sprintf("%.1fs:%s", after.Seconds(), st.Phase))
		require.NotEqual(t, hostos.JobLost, st.Phase)
		if st.Phase == hostos.JobAbsent {
			require.NoError(t, hostos.StartJob(t.Context(), c, key, script))
		}
		st, err = hostos.WaitJob(t.Context(), c, key, 100*time.Millisecond, nil)
		require.NoError(t, err)
		assert.Equal(t, hostos.JobState{Phase: hostos.JobExited}, st)
		length = (length + time.Since(began)) / 2

		got := posts()
		ran++
		require.Len(t, got, ran, "%%post ran once: %v", got)
		assert.Equal(t, versions[(i+1)%2], got[len(got)-1])
		assert.Equal(t, fmt.Sprint(i+2, " 0"), transactions(), "one transaction more, and all have ended")
		assert.NoError(t, hostos.CheckTransactions(t.Context(), c))
		require.NoError(t, c.Close())
	}
	assert.Empty(t, s.w.must(h, "rpm -qa --qf '%{NAME}\\n' | sort | uniq -d; rpm -Va --nofiles"), "no package is there twice")
	t.Logf("cut %d times: %s", cuts, strings.Join(phases, " "))
}

// faultRepo is a .repo file with one of the lab's repositories of faults.
func faultRepo(place string) string {
	return "cat >/etc/yum.repos.d/fault.repo <<'END'\n" + lab.RepoFile(lab.MirrorURL, place) + "END\n"
}

const noFaultRepo = "rm -f /etc/yum.repos.d/fault.repo"

// A labRepoFault is what in a host's settings and repositories stands in the way
// of an update, and the finding that says so.
type labRepoFault struct {
	name         string
	plant, mend  string
	id, evidence string
	hides        bool // with it, others are not seen
}

var labRepoFaults = []labRepoFault{
	{"a kernel held back", "echo 'exclude=kernel*' >>/etc/dnf/dnf.conf", "sed -i '/^exclude/d' /etc/dnf/dnf.conf",
		"exclude", "keeps the kernel back: kernel*", false},
	{"a kernel that cannot be installed, which yum leaves out with exit status 0",
		faultRepo(lab.RepoKernel) + "sed -i '/^\\[updates\\]/,/^$/s/enabled=1/enabled=0/' /etc/yum.repos.d/CentOS-Base.repo",
		noFaultRepo + "; sed -i s/enabled=0/enabled=1/ /etc/yum.repos.d/CentOS-Base.repo", "skipped-kernel", "kernel-3.10.0-1160.99.1.el7.x86_64", true},
	{"a dependency that nobody provides", faultRepo(lab.RepoBroken), noFaultRepo, "skipped-packages", "order-agent-1.2-1.x86_64", false},
	{"a mirror that is gone", "sed -i 's|centos/7/updates|centos/7.5/updates|' /etc/yum.repos.d/CentOS-Base.repo", "sed -i 's|centos/7.5/updates|centos/7/updates|' /etc/yum.repos.d/CentOS-Base.repo",
		"dead-mirror", "updates", true},
}

// fill leaves a host's disk 20 MB; the result gives it its room back.
func (w *labWorld) fill(h *lab.Host) (free func()) {
	w.t.Helper()
	used := strings.Fields(w.must(h, "df -m --output=used / | tail -n 1"))
	require.Len(w.t, used, 1)
	var mb int
	_, err := fmt.Sscan(used[0], &mb)
	require.NoError(w.t, err)
	require.NoError(w.t, h.Resize(mb+20))
	return func() { assert.NoError(w.t, h.Resize(8<<10)) }
}

// assessments: what stands in the way of an update is seen before it begins,
// and the host is as it was.
func (s *labSession) assessments(t *testing.T, h *lab.Host) {
	conf := hostos.StrategyConfig{Strategy: hostos.YumUpdate}
	before := s.w.must(h, "rpm -qa | sort")
	for _, f := range labRepoFaults {
		t.Run(f.name, func(t *testing.T) {
			s.w.must(h, f.plant)
			defer s.w.must(h, f.mend)
			c := s.dial(t, labProd)
			defer c.Close()
			a, err := hostos.Assess(t.Context(), c, conf)
			require.NoError(t, err)
			found := false
			for _, x := range a.Findings {
				if x.ID == f.id {
					found = true
					assert.Contains(t, x.Evidence, f.evidence)
				}
			}
			assert.True(t, found, "%s is not among %v", f.id, a.Findings)
			assert.Equal(t, before, s.w.must(h, "rpm -qa | sort"))
		})
	}
	t.Run("a disk that is full", func(t *testing.T) {
		defer s.w.fill(h)()
		c := s.dial(t, labProd)
		defer c.Close()
		a, err := hostos.Assess(t.Context(), c, conf)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(a.Blocking(), "\n"), "space")
		// Who begins all the same is told by the job's exit status, and the log.
		s.w.must(h, faultRepo(lab.RepoLarge))
		defer s.w.must(h, noFaultRepo)
		require.NoError(t, hostos.StartJob(t.Context(), c, "full-disk", "yum -y update order-agent\n"))
		_, err = hostos.WaitJob(t.Context(), c, "full-disk", 100*time.Millisecond, nil)
		je := new(hostos.JobError)
		require.True(t, errors.As(err, &je), "%v", err)
		assert.Equal(t, hostos.JobExited, je.State.Phase)
		assert.Contains(t, je.Log, "order-agent")
		assert.Equal(t, before, s.w.must(h, "rpm -qa | sort"))
	})
}

// engineAlone: what the runbook writes into daemon.json asks for more open
// files than this host allows. The daemon takes it, says that it is active,
// and starts no container.
func (s *labSession) engineAlone(t *testing.T, h *lab.Host) {
	ctx := t.Context()
	c := s.dial(t, labProd)
	defer c.Close()
	require.NoError(t, hostos.ProbeContainers(ctx, c, "probe-good"))
	s.w.must(h, `mkdir -p /etc/docker
echo '{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1024000, "Soft": 1024000}}}' >/etc/docker/daemon.json
systemctl reset-failed docker; systemctl restart docker`)
	assert.Equal(t, "active\n", s.w.must(h, "systemctl is-active docker"))
	err := hostos.ProbeContainers(ctx, c, "probe-bad")
	ce := new(hostos.ContainerStartError)
	require.True(t, errors.As(err, &ce), "%v", err)
	assert.Equal(t, "nofile", ce.Limit)
	d, err := hostos.GetDocker(ctx, c)
	require.NoError(t, err)
	assert.Less(t, d.Limits["nofile"], int64(1024000), "what the host allows is known, so that a merged daemon.json never asks for more")
	s.w.must(h, "rm /etc/docker/daemon.json; systemctl restart docker")
	require.NoError(t, hostos.ProbeContainers(ctx, c, "probe-mended"))
	assert.NotContains(t, s.w.must(h, "docker ps -a --format '{{.Names}}'"), "probe")
}

// dark: a reboot that nobody comes back from is no success, whatever the
// connection did.
func (s *labSession) dark(t *testing.T, h *lab.Host) {
	c := s.dial(t, labProd)
	before, err := hostos.GetBoot(t.Context(), c)
	require.NoError(t, err)
	h.Darken(true)
	if err := hostos.StartReboot(t.Context(), c, before.ID); err != nil {
		t.Log("the host was faster than its answer: ", err)
	}
	_ = c.Close()
	s.w.until("the host boots and stays dark", h.Dark)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = s.dialer.WaitBoot(ctx, labProd, hostinv.BootWait{From: before.ID, Stable: time.Second, Poll: 200 * time.Millisecond})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	// Somebody at the console mends it; then the same wait ends well.
	h.Darken(false)
	require.NoError(t, h.Cut())
	require.NoError(t, h.Start())
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	rep, err := s.dialer.WaitBoot(ctx, labProd, hostinv.BootWait{From: before.ID, Stable: time.Second, Poll: 200 * time.Millisecond})
	require.NoError(t, err)
	assert.NotEqual(t, before.ID, rep.ID)
}
