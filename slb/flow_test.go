package slb_test

import (
	"context"
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
