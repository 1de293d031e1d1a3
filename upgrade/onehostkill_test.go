package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

const oneHost = "172.31.0.90"

// mortal is an operator's process that ends after so many commands: the last
// one was carried out, and its result never arrives. All of its connections are
// gone, and so is what it would have cleaned up.
type mortal struct {
	mu    sync.Mutex
	left  int // commands until the end; < 0 = it lives
	dead  bool
	conns []net.Conn
	end   context.CancelFunc
}

var errKilled = errors.New("the process was killed")

func (m *mortal) happened(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left < 0 || m.dead || !strings.HasPrefix(what, "ssh "+oneHost) {
		return
	}
	if m.left--; m.left >= 0 {
		return
	}
	m.dead = true
	for _, c := range m.conns {
		c.Close()
	}
	m.end()
}

// begin starts another process.
func (m *mortal) begin(left int, end context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.dead, m.conns, m.end = left, false, nil, end
}

func (m *mortal) killed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

func (m *mortal) dial(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.dead {
			c.Close()
			return nil, errKilled
		}
		m.conns = append(m.conns, c)
		return c, nil
	}
}

// oneHostStage is a world with one such process after another in it.
type oneHostStage struct {
	*stage
	cfg *upgrade.Config
	m   *mortal
}

func newOneHost(t *testing.T, c sim.Config, prepare func(*sim.World), edit func(string) string) *oneHostStage {
	m := &mortal{left: -1}
	c.Happened = m.happened
	s := newStageIn(t, c, prepare, edit)
	s.access.NetDial = m.dial(s.world.DialOperator)
	cfg, err := upgrade.LoadConfig(s.op.Config)
	require.NoError(t, err)
	return &oneHostStage{s, cfg, m}
}

// process runs do in a process that is killed after left commands, and says
// whether it lived to its end; then do must have succeeded.
func (s *oneHostStage) process(left int, do func(ctx context.Context, e *upgrade.Env) error) (lived bool) {
	s.t.Helper()
	ctx, end := context.WithCancel(s.t.Context())
	defer end()
	s.m.begin(left, end)
	e, err := upgrade.NewEnv(s.cfg, s.access)
	require.NoError(s.t, err)
	err = do(ctx, e)
	lived = !s.m.killed()
	_ = e.Close() // of a dead process, nothing is left to close
	if lived {
		require.NoError(s.t, err, "the process after %d commands", left)
	}
	return lived
}

// job is how host commands are asked for.
var job = upgrade.HostJobOptions{Actor: "test", Poll: 50 * time.Millisecond, Timeout: 10 * time.Minute}

// services is host services stop, or start.
func (s *oneHostStage) services(stop bool) func(context.Context, *upgrade.Env) error {
	return func(ctx context.Context, e *upgrade.Env) error {
		return upgrade.HoldHost(ctx, e, oneHost, "services", job, func(ctx context.Context) error {
			if stop {
				return upgrade.StopHostServices(ctx, s.cfg, e, oneHost, nil)
			}
			return upgrade.StartHostServices(ctx, s.cfg, e, oneHost, oneHost, nil)
		})
	}
}

// TestHostServicesKilled: stop and start of one host's services, killed after
// every single command (in the short form: after some) and called again, reach the same end; nothing is started
// twice, and a process by hand comes back as it was.
func TestHostServicesKilled(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOneHost(t, sim.Config{Rate: -1, Streams: -1}, byHand(t), withoutStart)
		dirs := []string{"/srv/batch", "/srv/order", "/srv/pay", "/srv/worker"}
		was := map[string]string{}
		for _, d := range dirs {
			was[d] = s.processOf(oneHost, d)
			require.NotEmpty(t, was[d])
		}
		running := func() string {
			_, out, err := s.world.Host(oneHost).Run(t.Context(), "docker ps --format '{{.Names}}'; supervisorctl status")
			require.NoError(t, err)
			names, program, _ := strings.Cut(string(out), "worker ")
			return names + "worker " + strings.Fields(program)[0] + "\n"
		}
		up := running()
		require.Contains(t, up, "worker RUNNING")
		kills, stride := 0, 6
		if testenv.RunSlow() {
			stride = 1
		}
		for left, more := 0, true; more; left += stride {
			more = false
			for _, stop := range []bool{true, false} {
				if !s.process(left, s.services(stop)) {
					more = true
					kills++
					s.process(-1, s.services(stop))
				}
				for _, d := range dirs {
					if now := s.processOf(oneHost, d); stop {
						require.Empty(t, now, "%s after %d commands", d, left)
					} else {
						require.Equal(t, was[d], now, "%s after %d commands: one process, as it was", d, left)
					}
				}
				if stop {
					require.Equal(t, "worker STOPPED\n", running())
					require.NotEmpty(t, s.keptFiles(oneHost))
				} else {
					require.Equal(t, up, running())
					require.Empty(t, s.keptFiles(oneHost), "what was kept is gone")
				}
				_, err := s.world.Host(oneHost).Stat("/var/lib/upgradectl/lease")
				require.Error(t, err, "the host is free")
			}
		}
		t.Logf("killed %d times", kills)
		require.Greater(t, kills, 40/stride, "how often a wait asks depends on the moment: 54 to 67 commands were seen")
		assert.Empty(t, s.world.Host(oneHost).Refused())
	})
}

// Between a start that was cut off and the next stop somebody may have deployed:
// the values of before are not brought back.
func TestHostServicesStaleValues(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOneHost(t, sim.Config{Rate: -1, Streams: -1}, byHand(t), withoutStart)
		s.process(-1, s.services(true))
		_, kept, err := s.world.Host(oneHost).Run(t.Context(), "cp -pR "+hostos.RestartDir+" /root/restart")
		require.NoError(t, err, "%s", kept)
		s.process(-1, s.services(false))
		_, _, err = s.world.Host(oneHost).Run(t.Context(), "mv /root/restart "+hostos.RestartDir) // as if the start had died before its last command
		require.NoError(t, err)
		_, _, err = s.world.Host(oneHost).Run(t.Context(), "for p in /proc/[0-9]*; do if [ \"$(readlink $p/cwd)\" = /srv/batch ]; then kill ${p#/proc/}; fi; done; sleep 2; cd /srv/batch; setsid java -jar batch.jar --server.port=8099 --new >/dev/null 2>&1 </dev/null &\nsleep 60")
		require.NoError(t, err)
		now := s.processOf(oneHost, "/srv/batch")
		require.Contains(t, now, "--new")
		s.process(-1, s.services(true))
		s.process(-1, s.services(false))
		assert.Equal(t, now, s.processOf(oneHost, "/srv/batch"))
	})
}

// TestHostJobsKilled: host docker and host upgrade, killed after a command and
// called again, do it once.
func TestHostJobsKilled(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	for _, name := range []string{"docker", "upgrade"} {
		for left := 1; left < 64; left += 20 {
			t.Run(fmt.Sprintf("%s after %d", name, left), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newOneHost(t, sim.Config{Rate: -1, Streams: -1}, nil, nil)
					h := s.world.Host(oneHost)
					did := map[string]int{}
					for _, program := range []string{"yum", "shutdown"} {
						require.NoError(t, h.Intercept(program, func(ctx context.Context, p *host.Proc, next host.Command) int {
							if program == "shutdown" || slices.Contains(p.Args, "-y") {
								did[strings.Join(p.Args[:min(len(p.Args), 3)], " ")]++ // one job at a time
							}
							return next(ctx, p)
						}))
					}
					do := func(ctx context.Context, e *upgrade.Env) error {
						if name == "docker" {
							r, err := upgrade.UpgradeHostDocker(ctx, e, oneHost, s.cfg, job)
							if err == nil {
								assert.Equal(t, 1, r.Result.Attempts)
								assert.Equal(t, r.Before.Running(), r.After.Running())
							}
							return err
						}
						r, err := upgrade.UpgradeHost(ctx, e, oneHost, upgrade.StrategyConfig{}, true, job)
						if err == nil {
							assert.True(t, r.Rebooted)
						}
						return err
					}
					if !s.process(left, do) {
						time.Sleep(time.Minute) // it may be booting
						s.process(-1, do)
					}
					t.Log(did)
					for what, n := range did {
						assert.Equal(t, 1, n, what)
					}
					if name == "upgrade" {
						assert.Len(t, did, 2, "a transaction and a reboot")
						assert.Equal(t, "3.10.0-1160.6.1.el7.x86_64", h.Kernel())
					} else {
						assert.NotEmpty(t, did)
					}
					assert.Empty(t, h.Refused())
				})
			})
		}
	}
}

// A host may be down before its answer to the request to reboot has come, and a
// line may be cut before that request reaches it: the reboot is waited for, and
// asked for again where there is none.
func TestHostRebootAnswerLost(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprintf("request arrives %v", arrives), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l line
				var lost sync.Once
				s := newStageIn(t, sim.Config{Rate: -1, Streams: -1, Happened: func(what string) {
					if strings.HasPrefix(what, "ssh "+oneHost+" ") && strings.Contains(what, "shutdown -r now") {
						lost.Do(func() { l.cut(0) })
					}
				}}, nil, nil)
				s.access.NetDial = l.dial(s.access.NetDial)
				h := s.world.Host(oneHost)
				asked, reboots := 0, 0
				require.NoError(t, h.Intercept("setsid", func(ctx context.Context, p *host.Proc, next host.Command) int {
					if !strings.Contains(strings.Join(p.Args, " "), "shutdown -r now") {
						return next(ctx, p)
					}
					if asked++; asked == 1 && !arrives {
						return 0
					}
					reboots++
					return next(ctx, p)
				}))
				cfg, err := upgrade.LoadConfig(s.op.Config)
				require.NoError(t, err)
				e, err := upgrade.NewEnv(cfg, s.access)
				require.NoError(t, err)
				defer e.Close()
				r, err := upgrade.UpgradeHost(t.Context(), e, oneHost, upgrade.StrategyConfig{}, true, job)
				require.NoError(t, err)
				assert.True(t, r.Rebooted)
				assert.Equal(t, 1, reboots)
				assert.Equal(t, arrives, asked == 1, "asked %d times", asked)
				assert.Equal(t, "3.10.0-1160.6.1.el7.x86_64", h.Kernel())
				assert.Empty(t, h.Refused())
			})
		})
	}
}

// A migration that its own reboot does, as leapp's, on one host: what answers in
// between with the old release is not the end, and a process that is killed
// meanwhile is followed by one that only waits.
func TestHostUpgradeInReboot(t *testing.T) {
	notUnderRace(t)
	t.Parallel()
	c := upgrade.StrategyConfig{Strategy: hostos.Script, Script: "echo prepared\n", Precheck: "grep -q 'release 7' /etc/redhat-release\n", InReboot: true, From: "CentOS Linux release 7", Release: newRelease}
	slow := job
	slow.Poll = 10 * time.Second
	for _, left := range []int{-1, 40, 60} {
		t.Run(fmt.Sprintf("killed after %d", left), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newOneHost(t, sim.Config{Rate: -1, Streams: -1}, nil, nil)
				h := s.world.Host(oneHost)
				reboots := 0
				require.NoError(t, h.Intercept("shutdown", func(ctx context.Context, p *host.Proc, next host.Command) int {
					if reboots++; reboots == 1 {
						time.AfterFunc(5*time.Minute, func() {
							s.say(oneHost, "shutdown -r now") // of its own
							time.AfterFunc(2*time.Second, func() {
								assert.NoError(t, h.AddPackages("anolis-release-8.9-1.an8.x86_64"))
								assert.NoError(t, h.WriteFile("/etc/redhat-release", []byte(newRelease+"\n"), 0o644))
							})
						})
					}
					return next(ctx, p)
				}))
				var r *upgrade.HostUpgrade
				do := func(ctx context.Context, e *upgrade.Env) (err error) {
					r, err = upgrade.UpgradeHost(ctx, e, oneHost, c, true, slow)
					return err
				}
				if !s.process(left, do) {
					time.Sleep(time.Minute) // it may be booting
					s.process(-1, do)
				}
				assert.Equal(t, 2, reboots, "one of ours, one of its own")
				require.NotNil(t, r.After)
				assert.Contains(t, r.After.Boot.Release, newRelease)
				assert.Equal(t, "[anolis-release-8.9-1.an8.x86_64]", fmt.Sprint(r.Upgraded.Installed))
				assert.Empty(t, h.Refused())
			})
		})
	}
}
