package upgrade_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Fifty hosts are worked on at once, each by a run of its own, in an account
// whose flow control lets a fraction of their calls through: all of them wait
// and ask again, no step fails or is tried under another key, and each snapshot
// and image is made once. (The runs are the engine's, with the two steps that
// make something of a host; one whole procedure is TestScenario18Throttled.)
func TestScenario18FiftyHosts(t *testing.T) {
	t.Parallel()
	notUnderRace(t)
	const hosts, key, secret = 50, "LTAIfifty", "secretOfTheFiftyHosts"
	synctest.Test(t, func(t *testing.T) {
		world := cloud.New(cloud.Config{AccessKeyID: key, AccessKeySecret: secret, Throttle: cloud.Throttle{Calls: 200, Per: time.Minute}})
		defer world.Close()
		var all sync.WaitGroup
		var throttled atomic.Int32
		counting := transport(func(r *http.Request) (*http.Response, error) {
			resp, err := world.Transport().RoundTrip(r)
			if err == nil && resp.StatusCode == http.StatusBadRequest {
				throttled.Add(1) // nothing else is wrong with these calls
			}
			return resp, err
		})
		for i := range hosts {
			id := fmt.Sprintf("i-web%d", i)
			world.AddInstance(cloud.Instance{ID: id, PrivateIP: fmt.Sprintf("172.31.1.%d", i+1)})
			// A client each, as fifty processes have.
			c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: key, AccessKeySecret: secret}, ecs.WithTransport(counting))
			require.NoError(t, err)
			run, err := engine.Create(filepath.Join(t.TempDir(), "run"), engine.Header{Run: id, Procedure: "fifty", Host: id}, nil)
			require.NoError(t, err)
			all.Go(func() {
				defer func() { assert.NoError(t, run.Close()) }()
				out, err := run.Apply(t.Context(), imageOf(c, id), engine.Options{Actor: "test"})
				assert.NoError(t, err)
				assert.Equal(t, engine.Succeeded, out.State, "%s: %s: %s", id, out.Step, out.Reason)
			})
		}
		all.Wait()
		made := map[string]int{}
		for _, r := range world.Resources() {
			if r.CreatedByAPI {
				made[r.Type]++
			}
		}
		assert.Equal(t, map[string]int{"snapshot": hosts, "image": hosts}, made)
		assert.Positive(t, throttled.Load(), "nothing was throttled: the test shows nothing")
		assert.Empty(t, world.Refused())
		t.Logf("%d calls of %d hosts were throttled", throttled.Load(), hosts)
	})
}

// transport is an http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// imageOf are steps that make an image of an instance.
func imageOf(c *ecs.Client, instance string) []engine.Step {
	once := func(a *engine.Act) error {
		if a.Attempt() != 1 {
			return fmt.Errorf("attempt %d: flow control was taken for a failure", a.Attempt())
		}
		return nil
	}
	do := func(make func(ctx context.Context, a *engine.Act) (any, error)) func(context.Context, *engine.Act) (any, error) {
		return func(ctx context.Context, a *engine.Act) (any, error) {
			if err := once(a); err != nil {
				return nil, err
			}
			return make(ctx, a)
		}
	}
	observe := func(context.Context, *engine.Act) (engine.Sight, error) {
		return engine.Sight{State: engine.InProgress}, nil
	}
	return []engine.Step{
		{
			ID: "1-snapshot", Section: "1", Title: "snapshot", Effect: engine.TokenCreate, NoUndo: "it expires", Observe: observe,
			Do: do(func(ctx context.Context, a *engine.Act) (any, error) {
				begun, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: instance, Token: a.Key(), Name: "snap-" + instance, RetentionDays: 1})
				if err != nil {
					return nil, err
				}
				var ids []string
				for _, s := range begun {
					ids = append(ids, s.ID)
				}
				return c.WaitSnapshots(ctx, ids, nil)
			}),
		},
		{
			ID: "2-image", Section: "2", Title: "image", Effect: engine.TokenCreate, NoUndo: "the test ends with it", Observe: observe,
			Do: do(func(ctx context.Context, a *engine.Act) (any, error) {
				var snapshots []ecs.Snapshot
				if _, err := a.Result("1-snapshot", &snapshots); err != nil {
					return nil, err
				}
				id, err := c.CreateImage(ctx, ecs.ImageInput{Name: "image-" + instance, Token: a.Key(), Snapshots: snapshots})
				if err != nil {
					return nil, err
				}
				return c.WaitImage(ctx, id, nil)
			}),
		},
	}
}
