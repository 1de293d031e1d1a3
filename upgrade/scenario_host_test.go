package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// Faults of hosts. All of these strike production, where the way back is the
// longest: traffic has to stay on the transition host.

const (
	production    = "172.31.0.90"
	simulatedYum  = "/var/lib/yum/transaction-all.simulated"
	kernelOfSpec  = "3.10.0-862.9.1.el7.x86_64"
	otherKernel   = "3.10.0-1160.119.1.el7.x86_64"
	hostKeyOfSSHD = "/etc/ssh/ssh_host_ed25519_key"
)

// when is quiet and does something after an event of a step.
func when(kind, step string, do func()) upgrade.RunOptions {
	o := quiet
	var once sync.Once
	o.Observer = func(e upgrade.Event) {
		if e.Kind == kind && e.Step == step {
			once.Do(do)
		}
	}
	return o
}

// carried asserts that production gets no traffic while a run stands, and that
// no request has failed.
func (s *stage) carried() {
	s.t.Helper()
	f := s.world.Figures()
	for k, w := range f.WeightsAfter {
		if strings.Contains(k, "/i-web90:") {
			assert.Zero(s.t, w, k)
		}
	}
	assert.Zero(s.t, f.Failed)
}

// say runs a command on a host as somebody else would.
func (s *stage) say(addr, command string) string {
	s.t.Helper()
	status, out, err := s.world.Host(addr).Run(s.t.Context(), command)
	require.NoError(s.t, err)
	require.Zero(s.t, status, "%s: %s", command, out)
	return string(out)
}

// A line is the operator's network, which can be cut.
type line struct {
	mu      sync.Mutex
	conns   []net.Conn
	down    bool
	refused int // connections that were tried while it was down
}

func (l *line) dial(next dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.down {
			_ = c.Close()
			l.refused++
			return nil, errors.New("no route to host")
		}
		l.conns = append(l.conns, c)
		return c, nil
	}
}

// cut ends all connections, and lets no other come about for a time. It returns
// how many there were.
func (l *line) cut(d time.Duration) (ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended = len(l.conns)
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns, l.down = nil, true
	time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.down = false
	})
	return ended
}

// updates counts how often production's transaction begins: the packages that
// the transition host got.
func (s *stage) updates(n *int, by func(ctx context.Context, p *host.Proc, yum host.Command) int) {
	s.t.Helper()
	var mu sync.Mutex
	require.NoError(s.t, s.world.Host(production).Intercept("yum", func(ctx context.Context, p *host.Proc, yum host.Command) int {
		if a := strings.Join(p.Args, " "); !strings.HasPrefix(a, "yum -y install ") || strings.Contains(a, "docker") {
			return yum(ctx, p)
		}
		mu.Lock()
		*n++
		mu.Unlock()
		if by != nil {
			return by(ctx, p, yum)
		}
		return yum(ctx, p)
	}))
}

func TestScenario44ConnectionLostInTransaction(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		l := &line{}
		s.access.NetDial = l.dial(s.access.NetDial)
		n := 0
		s.updates(&n, func(ctx context.Context, p *host.Proc, yum host.Command) int {
			<-time.After(time.Second) // who started the job has its answer
			assert.Positive(t, l.cut(0), "the transaction's own connection was there")
			return yum(ctx, p)
		})
		s.succeeded(s.apply(quiet), 6)
		assert.Equal(t, 1, n, "one transaction")
	})
}

// Yum is killed in the middle of its transaction: what to do is said, and no
// second update begins on top of half of the first one.
func TestScenario45TransactionKilled(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		n := 0
		s.updates(&n, func(ctx context.Context, p *host.Proc, yum host.Command) int {
			ctx, kill := context.WithTimeout(ctx, 500*time.Millisecond) // of the second that it takes here
			defer kill()
			yum(ctx, p)
			return 137
		})
		r := s.apply(quiet)
		s.failed(r, "4.5-os", "ended with status 137")
		assert.Contains(t, r.Reason, simulatedYum)
		assert.Contains(t, r.Reason, "yum-complete-transaction")
		r = s.resume(quiet)
		s.failed(r, "4.5-os", "unfinished-transaction")
		assert.Equal(t, 1, n, "no second update by itself")
		s.carried()

		s.updates(&n, nil)
		s.say(production, "rm "+simulatedYum) // as yum-complete-transaction does at its end
		s.succeeded(s.resume(quiet), 6)
		assert.Equal(t, 2, n)
	})
}

// Yum is killed when the kernel's package is in and its files are not made yet,
// and somebody clears the transaction away without finishing it: the packages
// are all there, and the host would not boot.
func TestScenario51KernelWithoutFiles(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		n := 0
		s.updates(&n, func(ctx context.Context, p *host.Proc, yum host.Command) int {
			if n > 1 {
				return yum(ctx, p)
			}
			ctx, kill := context.WithTimeout(ctx, 950*time.Millisecond) // of the second that it takes here
			defer kill()
			yum(ctx, p)
			return 137
		})
		s.failed(s.apply(quiet), "4.5-os", "ended with status 137")
		s.say(production, "rm "+simulatedYum)
		r := s.resume(quiet)
		s.failed(r, "4.5-reboot", "is not rebooted, it might not come back: kernel-files: /boot has no vmlinuz-")
		assert.Contains(t, r.Reason, "boot-default")
		assert.Equal(t, 1, n, "nothing was left to install")
		s.carried()

		meant := s.world.Figures().KernelMeant
		s.say(production, "cd /boot; cp vmlinuz-"+kernelOfSpec+" vmlinuz-"+meant+"; cp initramfs-"+kernelOfSpec+".img initramfs-"+meant+".img")
		s.world.Host(production).BootNext(meant)
		s.succeeded(s.resume(quiet), 6)
	})
}

// While packages are replaced nobody can log in: that is expected.
func TestScenario46NoLoginInTransaction(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		l := &line{}
		s.access.NetDial = l.dial(s.access.NetDial)
		n := 0
		s.updates(&n, func(ctx context.Context, p *host.Proc, yum host.Command) int {
			<-time.After(time.Second) // who started the job has its answer
			l.cut(20 * time.Second)
			return yum(ctx, p)
		})
		s.succeeded(s.apply(quiet), 6)
		assert.Equal(t, 1, n)
		assert.Positive(t, l.refused, "it was tried, and waited for")
	})
}

// Production does not come back: what there is to see is kept, traffic stays
// where it is, a rollback parks the run there, and it goes on when somebody has
// brought the host up.
func TestScenario47HostDoesNotComeBack(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		h := s.world.Host(production)
		s.world.Cloud().SetConsole("i-web90", "Kernel panic - not syncing: VFS\n")
		r := s.apply(when("done", "4.5-os", func() { h.PanicAtBoot(true) }))
		s.failed(r, "4.5-reboot", "did not come back")
		_, kept, ok := strings.Cut(r.Reason, "console output: blobs/")
		require.True(t, ok, r.Reason)
		console, err := os.ReadFile(filepath.Join(s.run, "blobs", kept[:64]))
		require.NoError(t, err)
		assert.Contains(t, string(console), "Kernel panic - not syncing")
		s.carried()
		r = s.rollback()
		require.Equal(t, "parked", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
		assert.Equal(t, upgrade.ExitParked, r.ExitStatus())
		s.carried()

		h.PanicAtBoot(false)
		require.NoError(t, h.Start())
		s.succeeded(s.resume(quiet), 6)
	})
}

// The boot loader's default is moved back before the reboot: there is none. It
// is moved back in the moment of the reboot: traffic stays away.
func TestScenario48OldKernelAfterReboot(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		h := s.world.Host(production)
		meant := s.world.Figures().KernelMeant
		r := s.apply(when("done", "4.5-os", func() { h.BootNext(kernelOfSpec) }))
		s.failed(r, "4.5-reboot", "is not rebooted, it might not come back: boot-default: the boot loader starts "+kernelOfSpec)
		s.carried()

		h.BootNext(meant)
		require.NoError(t, h.Intercept("shutdown", func(ctx context.Context, p *host.Proc, shutdown host.Command) int {
			h.BootNext(kernelOfSpec)
			return shutdown(ctx, p)
		}))
		r = s.resume(quiet)
		s.failed(r, "4.5-reboot", "the host runs kernel "+kernelOfSpec+", not "+meant)
		s.carried()
		s.failed(s.resume(quiet), "4.5-reboot", "the host runs kernel "+kernelOfSpec)

		require.NoError(t, h.Intercept("shutdown", nil))
		h.BootNext(meant)
		require.NoError(t, h.Reboot())
		s.succeeded(s.resume(quiet), 6)
	})
}

// The host takes the command and does nothing: it is asked once more, and then
// a person is.
func TestScenario49RebootDoesNothing(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		h := s.world.Host(production)
		deaf, asked := 3, 0
		require.NoError(t, h.Intercept("shutdown", func(ctx context.Context, p *host.Proc, shutdown host.Command) int {
			if asked++; asked <= deaf {
				return 0
			}
			return shutdown(ctx, p)
		}))
		was := h.BootID()
		r := s.apply(quiet)
		s.failed(r, "4.5-reboot", "still in the old boot")
		assert.Equal(t, 2, asked, "once more, and no oftener")
		assert.Equal(t, was, h.BootID())
		s.carried()
		s.succeeded(s.resume(quiet), 6) // the fourth is heard
		assert.Equal(t, 4, asked)
	})
}

// Another machine answers at production's address: nothing is done to it.
func TestScenario50WrongHostBehindAddress(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.2", Observer: quiet.Observer}).State)
		h, other := s.world.Host(production), s.world.Host("172.31.0.5")
		var own [2][]byte
		for i, suffix := range []string{"", ".pub"} {
			var err error
			own[i], err = h.ReadFile(hostKeyOfSSHD + suffix)
			require.NoError(t, err)
			theirs, err := other.ReadFile(hostKeyOfSSHD + suffix)
			require.NoError(t, err)
			require.NoError(t, h.WriteFile(hostKeyOfSSHD+suffix, theirs, 0o600))
		}
		was := h.Digest(nil)
		r := s.resume(quiet)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Contains(t, r.Reason, "HOST KEY OF "+production+" HAS CHANGED")
		assert.Equal(t, was, h.Digest(nil), "nothing was done to it")
		s.carried()
		for i, suffix := range []string{"", ".pub"} {
			require.NoError(t, h.WriteFile(hostKeyOfSSHD+suffix, own[i], 0o600))
		}
		s.succeeded(s.resume(quiet), 6)
	})
}

// A copy of production's disk shows the same host keys: its machine ID gives it
// away, to whoever begins and to whoever goes on.
func TestScenario50CopyBehindAddress(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		const file = "/etc/machine-id"
		h := s.world.Host(production)
		own, err := h.ReadFile(file)
		require.NoError(t, err)
		refused := func(_ *upgrade.Result, err error) {
			t.Helper()
			require.ErrorContains(t, err, "host "+production+" is another machine: its machine ID was "+strings.TrimSpace(string(own)))
			assert.Equal(t, upgrade.ExitDrift, upgrade.ErrorStatus(err))
		}
		other := []byte(strings.Repeat("c", 32) + "\n")
		require.NoError(t, h.WriteFile(file, other, 0o444))
		was := h.Digest(nil)
		refused(upgrade.Apply(t.Context(), s.run, "t1", s.plan, s.options(quiet)))
		assert.Equal(t, was, h.Digest(nil), "nothing was done to it")
		_, err = s.world.Host(proxyA).Stat(leasePath)
		require.ErrorIs(t, err, fs.ErrNotExist, "and nobody else is held")

		require.NoError(t, h.WriteFile(file, own, 0o444))
		s.run += "2"
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "4.2", Observer: quiet.Observer}).State)
		require.NoError(t, h.WriteFile(file, other, 0o444))
		was = h.Digest(nil)
		refused(upgrade.Resume(t.Context(), s.run, s.options(quiet)))
		assert.Equal(t, was, h.Digest(nil), "nothing was done to it")
		s.carried()
		require.NoError(t, h.WriteFile(file, own, 0o444))
		s.succeeded(s.resume(quiet), 6)
	})
}

// A container is missing after the upgrade: production gets no traffic back.
func TestScenario52ContainersDiffer(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		r := s.apply(when("done", "4.5-services", func() { s.say(production, "docker stop cache") }))
		s.failed(r, "4.5-compare", "cache")
		s.carried()
		s.say(production, "docker start cache")
		s.succeeded(s.resume(quiet), 6)
	})
}

// A Java program starts, its port is open, and it answers 500: it is not healthy.
func TestScenario53ServiceAnswersErrors(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		h := s.world.Host(production)
		r := s.apply(when("done", "4.5-containers", func() { h.FailEvery(8080, 1) }))
		s.failed(r, "4.5-services", "500")
		s.carried()
		h.FailEvery(8080, 0)
		s.succeeded(s.resume(quiet), 6)
	})
}

// What keeps the kernel back, and a strategy that is for other hosts: there is
// no plan, it is said why, and nothing was touched.
func TestScenario54ExcludedKernel(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		refused := s.refusedPlan
		packages := s.say(production, "rpm -qa; ls -l /etc /var/lib")
		s.say(production, "printf '[main]\\nexclude=kernel*\\n' >/etc/yum.conf")
		assert.Contains(t, strings.Join(refused().Reasons, "\n"), "/etc/yum.conf keeps the kernel back: kernel*")
		s.say(production, "rm /etc/yum.conf")

		b, err := os.ReadFile(s.op.Config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(s.op.Config, []byte(strings.Replace(string(b), "strategy: yum-update", "strategy: apt", 1)), 0o600))
		assert.Contains(t, strings.Join(refused().Reasons, "\n"), "strategy apt needs apt-get and packages of dpkg")
		assert.Equal(t, packages, s.say(production, "rpm -qa; ls -l /etc /var/lib"), "nothing was touched")
	})
}

// refusedPlan is why there is no plan.
func (s *stage) refusedPlan() *upgrade.RefusedError {
	s.t.Helper()
	cfg, err := upgrade.LoadConfig(s.op.Config)
	require.NoError(s.t, err)
	e, err := upgrade.NewEnv(cfg, s.access)
	require.NoError(s.t, err)
	defer e.Close()
	facts, err := upgrade.Discover(s.t.Context(), cfg, e)
	require.NoError(s.t, err)
	_, err = upgrade.BuildPlan(cfg, facts, time.Now(), "test")
	var r *upgrade.RefusedError
	require.ErrorAs(s.t, err, &r)
	return r
}

// The mirrors are gone, as those of CentOS 7 are: yum resolves nothing any more.
// There is no plan, and it says what can be done. (dnf and apt themselves with
// such repositories: upgrade/hostos TestDNF, TestLabStrategies.)
func TestScenario54DeadMirror(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		h, asked := s.world.Host(production), 0
		require.NoError(t, h.Intercept("yum", func(ctx context.Context, p *host.Proc, yum host.Command) int {
			if !slices.ContainsFunc(p.Args, func(a string) bool { return a == "update" || a == "install" }) {
				return yum(ctx, p)
			}
			asked++
			fmt.Fprint(p.Stderr, "Could not retrieve mirrorlist http://mirrorlist.centos.org/?release=7&arch=x86_64&repo=os&infra=stock error was\n"+
				"14: curl#6 - \"Could not resolve host: mirrorlist.centos.org; Unknown error\"\n"+
				"Cannot find a valid baseurl for repo: base/7/x86_64\n")
			return 1
		}))
		was := h.Digest(nil)
		reasons := strings.Join(s.refusedPlan().Reasons, "\n")
		assert.Contains(t, reasons, "Cannot find a valid baseurl for repo: base/7/x86_64")
		assert.Contains(t, reasons, "os.vault")
		assert.Positive(t, asked)
		assert.Equal(t, was, h.Digest(nil), "nothing was touched")
		for action := range s.writes() {
			t.Errorf("the cloud was told %s", action)
		}

		// And when they go between the rehearsal and production's turn: before the
		// pivot nothing is begun that cannot be ended.
		require.NoError(t, h.Intercept("yum", nil))
		s.plan = s.makePlan()
		n := 0
		s.updates(&n, nil)
		r := s.apply(when("done", "4.2-nginx", func() {
			require.NoError(t, h.Intercept("yum", func(_ context.Context, p *host.Proc, _ host.Command) int {
				n++
				fmt.Fprint(p.Stderr, "Cannot find a valid baseurl for repo: base/7/x86_64\n")
				return 1
			}))
		}))
		s.failed(r, "4.3-replay", "Cannot find a valid baseurl for repo: base/7/x86_64")
		s.carried()
		s.rolledBack()
	})
}

// The mirror has moved on since the transition host was upgraded: production
// would run what nobody has tried. That is seen while all can be undone.
func TestScenario55OtherTransactionThanRehearsed(t *testing.T) {
	t.Run("before the pivot", func(t *testing.T) {
		scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
			h := s.world.Host(production)
			meant := s.world.Figures().KernelMeant
			r := s.apply(when("done", "4.2-nginx", func() { h.SetUpdate("", otherKernel) }))
			s.failed(r, "4.3-replay", "kernel-"+strings.TrimSuffix(meant, ".x86_64"))
			s.carried()
			require.Equal(t, "rolled-back", s.rollback().State)
		})
	})
	// Past the pivot, which Docker is, there is no transaction either.
	t.Run("after it", func(t *testing.T) {
		scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
			h := s.world.Host(production)
			n := 0
			s.updates(&n, nil)
			r := s.apply(when("done", "4.4-stop", func() { h.SetUpdate("", otherKernel) }))
			s.failed(r, "4.5-os", "the repositories of this host do not have")
			assert.Zero(t, n)
			s.carried()
			require.Equal(t, "parked", s.rollback().State)
		})
	})
}

// Somebody has installed a package on production since the transition host was
// made of it.
func TestScenario55PlantedPackage(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
			h := s.world.Host(production)
			r := s.apply(when("done", "4.2-nginx", func() { require.NoError(t, h.AddPackages("telnet-0.17-66.el7.x86_64")) }))
			s.failed(r, "4.3-replay", "telnet.x86_64: nothing on the transition host, 0.17-66.el7 on "+production)
			s.carried()
			require.Equal(t, "rolled-back", s.rollback().State)
		})
	})
	// When it is a person's choice, it goes on, and says so.
	drift := func(yaml string) string { return strings.Replace(yaml, "\nos:\n", "\nos:\n  allow_drift: true\n", 1) }
	t.Run("taken on", func(t *testing.T) {
		scenario(t, sim.Config{}, drift, func(t *testing.T, s *stage) {
			h := s.world.Host(production)
			s.succeeded(s.apply(when("done", "4.2-nginx", func() { require.NoError(t, h.AddPackages("telnet-0.17-66.el7.x86_64")) })), 6)
		})
	})
}

// There is no room for a script, or for an nginx file: nothing of it runs, and
// the file that serves stays whole.
func TestScenario56DiskFullAtUpload(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		proxy, h := s.world.Host("172.31.0.5"), s.world.Host(production)
		before := s.say("172.31.0.5", "cat /etc/nginx/nginx.conf /etc/nginx/conf.d/*.conf")
		o := when("done", "3.9-hold", func() { proxy.FillDisk(true) })
		r := s.apply(o)
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "3.9-nginx", r.Step)
		assert.Equal(t, before, s.say("172.31.0.5", "cat /etc/nginx/nginx.conf /etc/nginx/conf.d/*.conf"))
		proxy.FillDisk(false)

		n := 0
		s.updates(&n, nil)
		r = s.resume(when("done", "4.5-docker", func() { h.FillDisk(true) }))
		require.Equal(t, "failed", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, "4.5-os", r.Step)
		assert.Zero(t, n, "no part of a script runs")
		s.carried()
		h.FillDisk(false)
		s.succeeded(s.resume(quiet), 6)
		assert.Equal(t, 1, n)
	})
}
