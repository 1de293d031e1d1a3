package upgrade_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// An impostor answers at the address of a host: what it shows is not the key
// that the cloud's own channel, which asks the machine itself, gives for it.
type impostor struct {
	s    *stage
	addr func() string // of the host; known once it exists
	line line          // the operator's

	inJob bool // it comes while the operator may be asking

	mu       sync.Mutex
	own      []byte // the host's private key; nil: nobody is in between
	boot     string // of the host when the impostor came
	since    time.Time
	now      bool     // there are no connections of before
	commands []string // that reached the impostor
}

// come puts the impostor before the host. Connections that are there last until
// the host boots, unless they are cut now.
func (i *impostor) come(cut bool) {
	h := i.s.world.Host(i.addr())
	own, err := h.ReadFile(hostKeyOfSSHD)
	assert.NoError(i.s.t, err)
	_, key, err := ed25519.GenerateKey(nil)
	assert.NoError(i.s.t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	assert.NoError(i.s.t, err)
	assert.NoError(i.s.t, h.WriteFile(hostKeyOfSSHD, pem.EncodeToMemory(block), 0o600))
	i.mu.Lock()
	i.own, i.boot, i.now, i.since = own, h.BootID(), cut, time.Now()
	i.mu.Unlock()
	if cut {
		i.line.cut(0)
	}
}

func (i *impostor) leave() {
	assert.NoError(i.s.t, i.s.world.Host(i.addr()).WriteFile(hostKeyOfSSHD, i.own, 0o600))
	i.mu.Lock()
	defer i.mu.Unlock()
	i.own = nil
}

// happened notes what an operator has run on the host since.
func (i *impostor) happened(what string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.own == nil || !strings.HasPrefix(what, "ssh "+i.addr()+" ") {
		return
	}
	if i.inJob && time.Now().Equal(i.since) {
		return // a look at the job that had reached the host before the line was cut
	}
	if h := i.s.world.Host(i.addr()); i.now || h.BootID() != i.boot {
		i.commands = append(i.commands, what)
	}
}

// Wherever the procedure first meets a machine, or meets it again after a boot,
// only the keys count that the cloud's own channel or production's own disk gave
// for it. Another one ends the run at once: no command reaches whoever shows it,
// nothing is written in the cloud, and traffic stays where it is.
func TestSwappedHostKey(t *testing.T) {
	t.Parallel()
	for step, c := range map[string]struct {
		after string // the event after which the impostor is there
		cut   bool   // connections of before; else they last until the host boots
		inJob bool   // when the transaction runs
		prod  bool   // it stands before production
		disk  bool   // os.production: replace-system-disk
		quick bool
	}{
		"3.4-addresses":      {after: "intent 3.4-addresses", cut: true, quick: true},
		"3.4-quarantine":     {after: "done 3.4-addresses", cut: true, quick: true},
		"3.6-os":             {after: "intent 3.6-os", inJob: true},
		"3.6-reboot":         {after: "intent 3.6-reboot"},
		"4.5-start-instance": {after: "done 4.5-disk", cut: true, prod: true, disk: true},
		"4.5-reboot":         {after: "intent 4.5-reboot", prod: true, disk: true},
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			if !c.quick {
				slow(t)
			}
			synctest.Test(t, func(t *testing.T) {
				i := &impostor{inJob: c.inJob}
				edit := seldom
				if c.disk {
					edit = replacing
				}
				i.s = newStageIn(t, sim.Config{Rate: 5, Speed: 240, Happened: i.happened}, lived, edit)
				s := i.s
				i.addr = func() string { return production }
				if !c.prod {
					i.addr = sync.OnceValue(s.cloneAddr)
				}
				s.access.NetDial = i.line.dial(s.access.NetDial)
				kind, at, _ := strings.Cut(c.after, " ")
				come := func() { i.come(c.cut) }
				if c.inJob {
					come = func() {
						assert.NoError(t, s.world.Host(i.addr()).Intercept("yum", func(ctx context.Context, p *host.Proc, yum host.Command) int {
							if slices.Contains(p.Args, "update") {
								<-time.After(time.Second) // who started the job has its answer
								i.come(true)
							}
							return yum(ctx, p)
						}))
					}
				}
				r := s.apply(when(kind, at, come))
				if c.cut || c.inJob {
					assert.Less(t, time.Since(i.since), 20*time.Second, "waiting does not make it right")
				}
				s.failed(r, step, "HOST KEY OF "+i.addr()+" HAS CHANGED")
				assert.Empty(t, i.commands, "nothing is said to whoever shows another key")
				writes := s.writes()
				weights := s.world.Figures().WeightsAfter

				// It is not believed the second time either, by another process.
				s.failed(s.resume(quiet), step, "HOST KEY OF "+i.addr()+" HAS CHANGED")
				assert.Empty(t, i.commands)
				assert.Equal(t, writes, s.writes(), "nothing is written in the cloud")
				assert.Equal(t, weights, s.world.Figures().WeightsAfter)
				if c.quick {
					s.rolledBack() // which does not need the host
					assert.Empty(t, i.commands)
					return
				}
				if c.prod {
					s.carried()
				}
				i.leave()
				r = s.resume(quiet)
				require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
				s.end("succeeded")
			})
		})
	}
}

// writes are the calls so far that change something in the cloud.
func (s *stage) writes() map[string]int {
	out := map[string]int{}
	for a, n := range s.world.Cloud().Counts() {
		if !isRead(a) && a != "RunCommand" { // which reads the keys
			out[a] = n
		}
	}
	return out
}

// So does the upgrade of one host, and that of its Docker: whoever answers in its
// place in the middle of the transaction, or after the reboot, is told nothing,
// and waited for neither.
func TestSwappedHostKeyOfOneHost(t *testing.T) {
	t.Parallel()
	for what, program := range map[string]string{"transaction": "yum", "reboot": "shutdown", "docker": "yum"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := &impostor{addr: func() string { return oneHost }, inJob: true}
				i.s = newStageIn(t, sim.Config{Rate: -1, Streams: -1, Happened: i.happened}, nil, nil)
				s := i.s
				s.access.NetDial = i.line.dial(s.access.NetDial)
				require.NoError(t, s.world.Host(oneHost).Intercept(program, func(ctx context.Context, p *host.Proc, next host.Command) int {
					if program == "shutdown" || slices.Contains(p.Args, "-y") && !slices.Contains(p.Args, "--assumeno") {
						<-time.After(time.Second) // who started it has its answer
						i.come(true)
					}
					return next(ctx, p)
				}))
				cfg, err := upgrade.LoadConfig(s.op.Config)
				require.NoError(t, err)
				e, err := upgrade.NewEnv(cfg, s.access)
				require.NoError(t, err)
				defer e.Close()
				if what == "docker" {
					_, err = upgrade.UpgradeHostDocker(t.Context(), e, oneHost, cfg, job)
				} else {
					_, err = upgrade.UpgradeHost(t.Context(), e, oneHost, upgrade.StrategyConfig{Strategy: hostos.YumUpdate}, true, job)
				}
				require.ErrorContains(t, err, "HOST KEY OF "+oneHost+" HAS CHANGED")
				assert.NotContains(t, err.Error(), "host "+oneHost+": host "+oneHost)
				assert.Less(t, time.Since(i.since), 30*time.Second)
				assert.Empty(t, i.commands)
			})
		})
	}
}
