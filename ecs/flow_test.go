package ecs_test

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

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// flow refuses calls for flow control until a time; others go to next.
type flow struct {
	next    http.RoundTripper
	only    string // action; "": all
	until   atomic.Pointer[time.Time]
	refused atomic.Int32
}

func (f *flow) RoundTrip(r *http.Request) (*http.Response, error) {
	if until := f.until.Load(); until == nil || time.Now().After(*until) || f.only != "" && r.URL.Query().Get("Action") != f.only {
		return f.next.RoundTrip(r)
	}
	f.refused.Add(1)
	return &http.Response{
		StatusCode: http.StatusBadRequest, Status: "400 Bad Request", Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(`{"RequestId":"R-1","Code":"Throttling.User","Message":"Request was denied due to user flow control."}`)),
	}, nil
}

// closed lets nothing through for d.
func (f *flow) closed(d time.Duration) {
	until := time.Now().Add(d)
	f.until.Store(&until)
}

// throttled runs f with a client of a simulated cloud whose flow control can be
// closed.
func throttled(t *testing.T, f func(t *testing.T, c *ecs.Client, flow *flow, sim *cloud.Cloud)) {
	world(t, func(t *testing.T, sim *cloud.Cloud, _ *ecs.Client, _ *machines) {
		fl := &flow{next: sim.Transport()}
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(fl))
		require.NoError(t, err)
		f(t, c, fl, sim)
	})
}

// Every wait outlives a time in which the cloud answers no question at all that
// is longer than the wait's own limit: that is about the thing, not about the
// account's quota of questions.
func TestWaitsOutliveFlowControl(t *testing.T) {
	const closed = 25 * time.Minute // the longest limit of these is 15 min
	for name, do := range map[string]func(ctx context.Context, c *ecs.Client) error{
		"start": func(ctx context.Context, c *ecs.Client) error { return c.StartInstance(ctx, "i-web90") },
		"stop and wait": func(ctx context.Context, c *ecs.Client) error {
			if err := c.StopInstance(ctx, "i-other"); err != nil {
				return err
			}
			_, err := c.WaitInstance(ctx, "i-other", ecs.StatusStopped, nil)
			return err
		},
		"running": func(ctx context.Context, c *ecs.Client) error {
			_, err := c.WaitInstance(ctx, "i-web90", ecs.StatusRunning, nil)
			return err
		},
		"release time": func(ctx context.Context, c *ecs.Client) error {
			return c.SetAutoRelease(ctx, "i-web90", time.Now().Add(5*time.Hour))
		},
		"security groups": func(ctx context.Context, c *ecs.Client) error {
			return c.SetSecurityGroups(ctx, "i-web90", []string{"sg-web"})
		},
		"snapshots": func(ctx context.Context, c *ecs.Client) error {
			set, err := c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "t", Name: "snap", RetentionDays: 1})
			if err != nil {
				return err
			}
			_, err = c.WaitSnapshots(ctx, []string{set.Snapshots[0].ID}, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			throttled(t, func(t *testing.T, c *ecs.Client, f *flow, _ *cloud.Cloud) {
				f.closed(closed)
				begun := time.Now()
				require.NoError(t, do(t.Context(), c))
				assert.GreaterOrEqual(t, time.Since(begun), closed)
				assert.Less(t, int(f.refused.Load()), 60, "more than one call in a minute or so was sent in vain")
			})
		})
	}
}

// A deadline of the caller's ends everything in its moment, and the error says
// what was held back, for how long and what to do.
func TestDeadlineUnderFlowControl(t *testing.T) {
	for name, do := range map[string]struct {
		action string
		do     func(ctx context.Context, c *ecs.Client) error
	}{
		"stop": {"DescribeInstances", func(ctx context.Context, c *ecs.Client) error { return c.StopInstance(ctx, "i-web90") }},
		"shared look": {"DescribeInstances", func(ctx context.Context, c *ecs.Client) error {
			_, err := c.WaitInstance(ctx, "i-web90", ecs.StatusStopped, nil)
			return err
		}},
		"reboot": {"RebootInstance", func(ctx context.Context, c *ecs.Client) error { return c.RebootInstance(ctx, "i-web90") }},
	} {
		t.Run(name, func(t *testing.T) {
			throttled(t, func(t *testing.T, c *ecs.Client, f *flow, _ *cloud.Cloud) {
				f.only = do.action
				f.closed(24 * time.Hour)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				begun := time.Now()
				err := do.do(ctx, c)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, 20*time.Minute, time.Since(begun))
				assert.Regexp(t, `Throttling\.User.*held back by the cloud's flow control for (20m0s|19m\d+s), refused \d+ times: everything in this account that calls ecs:`+do.action+` in cn-hangzhou shares its quota`, err.Error())
				assert.Contains(t, err.Error(), "work on fewer hosts at once")
			})
		})
	}
	// Without a deadline half an hour is the end of one call, and of its wait.
	throttled(t, func(t *testing.T, c *ecs.Client, f *flow, sim *cloud.Cloud) {
		f.closed(24 * time.Hour)
		begun := time.Now()
		_, err := c.WaitInstance(t.Context(), "i-web90", ecs.StatusStopped, nil)
		require.ErrorContains(t, err, "work on fewer hosts at once")
		var e *ecs.Error
		require.ErrorAs(t, err, &e)
		assert.False(t, e.Ambiguous)
		assert.InDelta(t, 31, time.Since(begun).Minutes(), 2)
		assert.Empty(t, sim.Counts())
	})
}
