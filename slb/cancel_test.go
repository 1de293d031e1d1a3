package slb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

// TestCancel: every call that can block for long ends in the moment in which its
// context does, with an error that is the context's, and leaves no goroutine.
func TestCancel(t *testing.T) {
	loud := func(context.Context) (slb.Evidence, error) {
		return slb.Evidence{Source: "host", Detail: "1 connection"}, nil
	}
	busy := func(action string) cloud.Fault {
		return cloud.Fault{Action: action, Code: "ServiceIsConfiguring", Status: 400, Times: -1}
	}
	for name, call := range map[string]func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error{
		"a drain that is not silent": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			twoMembers(sim, c)
			_, err := c.Drain(ctx, targetsOf(t, c, slb.Server{InstanceID: "i-91"}), slb.DrainOptions{Proofs: []slb.Proof{loud}, Policy: slb.Force})
			return err
		},
		"a proof that hangs": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			twoMembers(sim, c)
			hangs := func(ctx context.Context) (slb.Evidence, error) {
				<-ctx.Done()
				return slb.Evidence{Silent: true}, errors.New("ssh: connection lost")
			}
			_, err := c.Drain(ctx, targetsOf(t, c, slb.Server{InstanceID: "i-91"}), slb.DrainOptions{Proofs: []slb.Proof{hangs}, Policy: slb.Force})
			return err
		},
		"a ramp that is not healthy": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			sim.PoweredOff("i-90")
			return c.Ramp(ctx, targetsOf(t, c, slb.Server{InstanceID: "i-90"})[:1], slb.RampOptions{})
		},
		"a busy balancer": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			b := *member(t, c, byDefault, "i-50", 0)
			sim.InjectFault(busy("SetBackendServers"))
			return c.SetWeight(ctx, byDefault, b, 1)
		},
		"an addition": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			sim.InjectFault(busy("AddVServerGroupBackendServers"))
			return c.AddBackend(ctx, byGroup, slb.Backend{ServerID: "i-91", Port: 1, Weight: 1})
		},
		"a rule": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			sim.InjectFault(busy("CreateRules"))
			_, err := c.CreateRule(ctx, "lb-1", 80, "http", slb.Rule{Domain: "a.example.com", VServerGroupID: "rsp-1"})
			return err
		},
		"a share": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			logging(sim)
			for range 10 {
				send(sim, 50, "172.31.0.90:8080", "200")
				time.Sleep(time.Minute)
			}
			_, err := c.WaitShare(ctx, slb.ShareQuery{TrafficQuery: slb.TrafficQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}}})
			return err
		},
		"a probe that does not show": func(ctx context.Context, t *testing.T, sim *cloud.Cloud, c *slb.Client) error {
			logging(sim)
			_, err := c.WaitSilence(ctx, slb.SilenceQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}, Probe: func(context.Context, string, slb.Listener) error { return nil }})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
				const patience = 97 * time.Second
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				// Some worlds need time to come about; the patience begins with the call.
				begun := time.Time{}
				watched := context.Context(&lazy{Context: ctx, first: sync.OnceFunc(func() {
					begun = time.Now()
					time.AfterFunc(patience, cancel)
				})})
				err := call(watched, t, sim, c)
				require.ErrorIs(t, err, context.Canceled)
				assert.Equal(t, patience, time.Since(begun), "%v", err)
			})
		})
	}
}

// lazy is a context that tells when it is first looked at, by whoever that is.
type lazy struct {
	context.Context
	first func()
}

func (l *lazy) Done() <-chan struct{} {
	l.first()
	return l.Context.Done()
}
