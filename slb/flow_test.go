package slb_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

// flow refuses the calls of some actions for flow control until a time; others
// go to next.
type flow struct {
	next    http.RoundTripper
	refuses func(action string) bool
	until   time.Time
	refused atomic.Int32
}

func (f *flow) RoundTrip(r *http.Request) (*http.Response, error) {
	if !time.Now().Before(f.until) || !f.refuses(r.URL.Query().Get("Action")) {
		return f.next.RoundTrip(r)
	}
	f.refused.Add(1)
	return &http.Response{
		StatusCode: http.StatusBadRequest, Status: "400 Bad Request", Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(`{"RequestId":"R-1","Code":"Throttling.Api","Message":"Request was denied due to api flow control."}`)),
	}, nil
}

// A change outlives flow control that is closed for longer than a balancer may
// be busy, whether it is the looks that do not pass or the write, and is made
// once. A deadline of the caller's ends it in its moment, and the error says
// what to do.
func TestChangeOutlivesFlowControl(t *testing.T) {
	const closed = 12 * time.Minute
	reads := func(a string) bool { return strings.HasPrefix(a, "Describe") }
	writes := func(a string) bool { return !reads(a) }
	for name, refuses := range map[string]func(string) bool{"looks": reads, "the write": writes, "both": func(string) bool { return true }} {
		for what, do := range map[string]struct {
			action string
			do     func(ctx context.Context, c *slb.Client) error
		}{
			"weight": {"SetVServerGroupAttribute", func(ctx context.Context, c *slb.Client) error {
				return c.SetWeight(ctx, byGroup, slb.Backend{ServerID: "i-90", Port: 8082, Weight: 70, Type: "ecs"}, 0)
			}},
			"addition": {"AddBackendServers", func(ctx context.Context, c *slb.Client) error {
				return c.AddBackend(ctx, byDefault, slb.Backend{ServerID: "i-91", Weight: 1})
			}},
			"removal": {"RemoveBackendServers", func(ctx context.Context, c *slb.Client) error {
				return c.RemoveBackend(ctx, byDefault, slb.Backend{ServerID: "i-50", Weight: 60})
			}},
		} {
			t.Run(what+", "+name, func(t *testing.T) {
				world(t, func(t *testing.T, sim *cloud.Cloud, _ *slb.Client) {
					f := &flow{next: sim.Transport(), refuses: refuses, until: time.Now().Add(closed)}
					c, err := slb.New(slb.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, slb.WithTransport(f))
					require.NoError(t, err)
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
					defer cancel()
					begun := time.Now()
					err = do.do(ctx, c)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Equal(t, 3*time.Minute, time.Since(begun))
					assert.Regexp(t, `Throttling\.Api.*held back by the cloud's flow control for (3m0s|2m\d+s), refused \d+ times: everything in this account that calls slb:\w+ in cn-hangzhou`, err.Error())
					assert.Zero(t, sim.Counts()[do.action])

					require.NoError(t, do.do(t.Context(), c))
					assert.GreaterOrEqual(t, time.Since(begun), closed)
					assert.Equal(t, 1, sim.Counts()[do.action], "took effect once")
					assert.Less(t, int(f.refused.Load()), 60)
				})
			})
		}
	}
}

// What a write was decided on is looked at again when the write had to wait:
// somebody else's weight is not overwritten, what is done already is not done
// again, and a check of the caller's has the last word.
func TestWaitingWriteLooksAgain(t *testing.T) {
	member := slb.Backend{ServerID: "i-90", Port: 8082, Weight: 70, Type: "ecs"}
	refuses := func(a string) bool { return a == "SetVServerGroupAttribute" }
	start := func(t *testing.T, sim *cloud.Cloud) (held, other *slb.Client) {
		f := &flow{next: sim.Transport(), refuses: refuses, until: time.Now().Add(12 * time.Minute)}
		cfg := slb.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}
		held, err := slb.New(cfg, slb.WithTransport(f))
		require.NoError(t, err)
		other, err = slb.New(cfg, slb.WithTransport(sim.Transport()))
		require.NoError(t, err)
		return held, other
	}
	weightNow := func(t *testing.T, c *slb.Client) int {
		all, err := c.ListBackends(t.Context(), byGroup)
		require.NoError(t, err)
		for _, b := range all {
			if b.ServerID == member.ServerID && b.Port == member.Port {
				return b.Weight
			}
		}
		t.Fatal("gone")
		return 0
	}
	for _, tt := range []struct {
		name   string
		theirs int // weight that somebody else sets meanwhile
		writes int
		end    int
	}{{"somebody else's", 33, 1, 33}, {"done already", 0, 1, 0}, {"as it was", 70, 1, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			world(t, func(t *testing.T, sim *cloud.Cloud, _ *slb.Client) {
				held, other := start(t, sim)
				done := make(chan error, 1)
				time.AfterFunc(5*time.Minute, func() { done <- other.SetWeight(t.Context(), byGroup, member, tt.theirs) })
				err := held.SetWeight(t.Context(), byGroup, member, 0)
				require.NoError(t, <-done)
				if tt.theirs == 33 {
					require.ErrorIs(t, err, slb.ErrConflict)
				} else {
					require.NoError(t, err)
				}
				assert.Equal(t, tt.end, weightNow(t, other))
				assert.Equal(t, tt.writes, sim.Counts()["SetVServerGroupAttribute"])
			})
		})
	}
	t.Run("check", func(t *testing.T) {
		world(t, func(t *testing.T, sim *cloud.Cloud, _ *slb.Client) {
			held, other := start(t, sim)
			last := errors.New("the other member is down by now")
			calls := 0
			ctx := slb.WithCheck(t.Context(), func(ctx context.Context) error {
				if calls++; calls < 5 {
					return nil
				}
				_, err := other.ListHealth(ctx, byGroup.LoadBalancerID)
				require.NoError(t, err)
				return last
			})
			err := held.SetWeight(ctx, byGroup, member, 0)
			require.ErrorIs(t, err, last)
			assert.Equal(t, 5, calls)
			assert.Equal(t, 70, weightNow(t, other))
			assert.Zero(t, sim.Counts()["SetVServerGroupAttribute"])

			// What does not wait is not checked twice.
			require.NoError(t, other.SetWeight(ctx, byGroup, member, 0))
			assert.Equal(t, 5, calls)
		})
	})
}
