package upgrade_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Fifty hosts are worked on at once, each by a process of its own, in an account
// that lets sixty calls a minute of each action through. Each run does what
// procedure A asks of the cloud, in its order: discovery, snapshot, image, dry
// run and clone, the clone into the balancer and up, production out, reboot,
// production in and up, the clone out, and the release of everything. All of
// them end well in one attempt a step, every write takes effect once, and the
// account is as it was.
//
// What these runs leave out is what they do on hosts, which no flow control
// knows about: fifty worlds with hosts and traffic would take minutes of CPU.
// TestScenario18Throttled is a whole procedure.
func TestScenario18FiftyHosts(t *testing.T) {
	t.Parallel()
	notUnderRace(t)
	const hosts, balancers, key, secret = 50, 5, "LTAIfifty", "secretOfTheFiftyHosts"
	synctest.Test(t, func(t *testing.T) {
		quota := cloud.Throttle{Calls: 60, Per: time.Minute}
		cfg := cloud.Config{AccessKeyID: key, AccessKeySecret: secret, Throttle: quota}
		for i := range hosts {
			cfg.FreeIPs = append(cfg.FreeIPs, fmt.Sprintf("172.31.2.%d", i+1))
		}
		world := cloud.New(cfg)
		defer world.Close()
		for b := range balancers {
			lb := cloud.LoadBalancer{
				ID: fmt.Sprintf("lb-%d", b), Name: "shop", Address: fmt.Sprintf("172.31.9.%d", b+1),
				Listeners: []cloud.Listener{{Port: 80, Protocol: "http", VServerGroup: fmt.Sprintf("rsp-%d", b), HealthCheck: true}},
				Groups:    []cloud.VServerGroup{{ID: fmt.Sprintf("rsp-%d", b), Name: "shop"}},
			}
			for i := b; i < hosts; i += balancers {
				id := fmt.Sprintf("i-web%d", i)
				world.AddInstance(cloud.Instance{ID: id, PrivateIP: fmt.Sprintf("172.31.1.%d", i+1), Disks: []cloud.Disk{{ID: "d-system-" + id}, {ID: "d-data-" + id}}})
				lb.Groups[0].Backends = append(lb.Groups[0].Backends, cloud.Backend{ServerID: id, Port: 8080, Weight: 100})
			}
			world.AddLoadBalancer(lb)
		}
		before := world.LoadBalancers()

		calls := &flow{next: world.Transport(), refused: map[string]int{}, passed: map[string]int{}}
		begun := time.Now()
		var all sync.WaitGroup
		for i := range hosts {
			id := fmt.Sprintf("i-web%d", i)
			// Clients of its own, as each of fifty processes has.
			ec, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: key, AccessKeySecret: secret}, ecs.WithTransport(calls))
			require.NoError(t, err)
			sc, err := slb.New(slb.Config{Region: "cn-hangzhou", AccessKeyID: key, AccessKeySecret: secret}, slb.WithTransport(calls))
			require.NoError(t, err)
			run, err := engine.Create(filepath.Join(t.TempDir(), "run"), engine.Header{Run: id, Procedure: "fifty", Host: id}, nil)
			require.NoError(t, err)
			all.Go(func() {
				defer func() { assert.NoError(t, run.Close()) }()
				out, err := run.Apply(t.Context(), cloudSteps(ec, sc, id), engine.Options{Actor: "test"})
				assert.NoError(t, err)
				assert.Equal(t, engine.Succeeded, out.State, "%s: %s: %s", id, out.Step, out.Reason)
			})
		}
		all.Wait()

		for _, r := range world.Resources() {
			assert.False(t, r.CreatedByAPI, "%s %s was left behind", r.Type, r.ID)
		}
		for i := range hosts {
			assert.Equal(t, ecs.StatusRunning, world.InstanceStatus(fmt.Sprintf("i-web%d", i)))
		}
		assert.Equal(t, before, world.LoadBalancers())
		counts := world.Counts()
		for action, once := range map[string]int{
			"CreateSnapshotGroup": 1, "CreateImage": 1, "RunInstances": 1, "RebootInstance": 1, "StopInstance": 1,
			"AddVServerGroupBackendServers": 1, "RemoveVServerGroupBackendServers": 1, "SetVServerGroupAttribute": 2 + 1 + 3 + 1,
			"DeleteInstance": 1, "DeleteImage": 1, "DeleteSnapshotGroup": 1,
		} {
			assert.Equal(t, once*hosts, counts[action], "%s took effect", action)
		}
		assert.Empty(t, world.Refused())

		passed, refused := 0, 0
		for action, n := range calls.passed {
			passed += n
			refused += calls.refused[action]
			took := int(time.Since(begun)/quota.Per) + 1
			assert.LessOrEqual(t, n, took*quota.Calls, "%s: more calls were let through than the quota has: the test shows nothing", action)
		}
		assert.Greater(t, refused, hosts, "hardly anything was throttled: the test shows nothing")
		t.Logf("%d hosts took %s; %d calls were let through and %d refused", hosts, time.Since(begun).Round(time.Second), passed, refused)
	})
}

// flow counts what flow control lets through and refuses.
type flow struct {
	next http.RoundTripper

	mu              sync.Mutex
	passed, refused map[string]int
}

// RoundTrip implements http.RoundTripper.
func (f *flow) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := f.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	action := r.URL.Query().Get("Action")
	if bytes.Contains(body, []byte(`"Throttling.User"`)) {
		f.refused[action]++
	} else {
		f.passed[action]++
	}
	return resp, nil
}

// cloudSteps are what procedure A asks of the cloud for one instance.
func cloudSteps(ec *ecs.Client, sc *slb.Client, instance string) []engine.Step {
	type clone struct {
		ID     string
		Source *ecs.Instance
		Disks  []ecs.Disk
	}
	guard := ecs.Guard{TagKey: "run", TagValue: instance}
	tags := map[string]string{guard.TagKey: guard.TagValue}
	before := func(a *engine.Act) (m slb.Membership, err error) {
		_, err = a.Result("1-facts", &m)
		return m, err
	}
	stepNo := 0
	step := func(id string, effect engine.Effect, do func(ctx context.Context, a *engine.Act) (any, error)) engine.Step {
		stepNo++
		return engine.Step{
			ID: fmt.Sprintf("%d-%s", stepNo, id), Section: fmt.Sprint(stepNo), Title: id, Effect: effect, NoUndo: "the last step releases it",
			Observe: func(context.Context, *engine.Act) (engine.Sight, error) {
				return engine.Sight{State: engine.InProgress}, nil
			},
			Do: func(ctx context.Context, a *engine.Act) (any, error) {
				if a.Attempt() != 1 {
					return nil, fmt.Errorf("attempt %d: flow control was taken for a failure", a.Attempt())
				}
				return do(ctx, a)
			},
		}
	}
	// Weight 0 at once, and up from there by steps with health in between.
	down := func(of func(a *engine.Act) (slb.Backend, error)) func(context.Context, *engine.Act) (any, error) {
		return func(ctx context.Context, a *engine.Act) (any, error) {
			m, err := before(a)
			if err != nil {
				return nil, err
			}
			b, err := of(a)
			if err != nil {
				return nil, err
			}
			return nil, sc.SetWeight(ctx, m.Group(), b, 0)
		}
	}
	up := func(of func(a *engine.Act) (slb.Backend, error), from int) func(context.Context, *engine.Act) (any, error) {
		return func(ctx context.Context, a *engine.Act) (any, error) {
			m, err := before(a)
			if err != nil {
				return nil, err
			}
			b, err := of(a)
			if err != nil {
				return nil, err
			}
			to := b.Weight
			b.Weight = from
			return nil, sc.Ramp(ctx, []slb.Target{{Membership: m, Backend: b, Weight: to}}, slb.RampOptions{HealthyFor: 10 * time.Second})
		}
	}
	production := func(a *engine.Act) (slb.Backend, error) {
		m, err := before(a)
		return m.Backend, err
	}
	transition := func(a *engine.Act) (slb.Backend, error) {
		b, err := production(a)
		if err != nil {
			return b, err
		}
		var c clone
		_, err = a.Result("4-clone", &c)
		b.ServerID, b.ServerIP = c.ID, ""
		return b, err
	}
	return []engine.Step{
		step("facts", engine.SetState, func(ctx context.Context, _ *engine.Act) (any, error) {
			ms, err := sc.Discover(ctx, slb.Server{InstanceID: instance})
			if err != nil {
				return nil, err
			}
			if len(ms) != 1 {
				return nil, fmt.Errorf("%d memberships", len(ms))
			}
			return ms[0], nil
		}),
		step("snapshot", engine.TokenCreate, func(ctx context.Context, a *engine.Act) (any, error) {
			set, err := ec.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: instance, Token: a.Key(), Name: "snap-" + instance, RetentionDays: 1, Tags: tags})
			if err != nil {
				return nil, err
			}
			var ids []string
			for _, s := range set.Snapshots {
				ids = append(ids, s.ID)
			}
			set.Snapshots, err = ec.WaitSnapshots(ctx, ids, nil)
			return set, err
		}),
		step("image", engine.TokenCreate, func(ctx context.Context, a *engine.Act) (any, error) {
			var set ecs.SnapshotSet
			if _, err := a.Result("2-snapshot", &set); err != nil {
				return nil, err
			}
			id, err := ec.CreateImage(ctx, ecs.ImageInput{Name: "image-" + instance, Token: a.Key(), Snapshots: set.Snapshots, Tags: tags})
			if err != nil {
				return nil, err
			}
			return ec.WaitImage(ctx, id, nil)
		}),
		step("clone", engine.TokenCreate, func(ctx context.Context, a *engine.Act) (any, error) {
			var image ecs.Image
			if _, err := a.Result("3-image", &image); err != nil {
				return nil, err
			}
			source, disks, err := ec.GetDetails(ctx, instance)
			if err != nil {
				return nil, err
			}
			in := ecs.CloneInput{Source: source, Disks: disks, ImageID: image.ID, Name: "clone-of-" + instance, Tags: tags}
			if err := ec.DryRunClone(ctx, in); err != nil {
				return nil, err
			}
			in.Token = a.Key()
			id, err := ec.CreateClone(ctx, in)
			if err != nil {
				return nil, err
			}
			_, err = ec.WaitInstance(ctx, id, ecs.StatusRunning, nil)
			return clone{id, source, disks}, err
		}),
		step("join", engine.SetState, func(ctx context.Context, a *engine.Act) (any, error) {
			m, err := before(a)
			if err != nil {
				return nil, err
			}
			b, err := transition(a)
			if err != nil {
				return nil, err
			}
			b.Weight = 1
			return nil, sc.AddBackend(ctx, m.Group(), b)
		}),
		step("up", engine.SetState, up(transition, 1)),
		step("out", engine.SetState, down(production)),
		step("reboot", engine.SetState, func(ctx context.Context, a *engine.Act) (any, error) {
			if err := ec.RebootInstance(ctx, instance); err != nil {
				return nil, err
			}
			return ec.WaitInstance(ctx, instance, ecs.StatusRunning, nil)
		}),
		step("in", engine.SetState, up(production, 0)),
		step("down", engine.SetState, down(transition)),
		step("leave", engine.SetState, func(ctx context.Context, a *engine.Act) (any, error) {
			m, err := before(a)
			if err != nil {
				return nil, err
			}
			b, err := transition(a)
			if err != nil {
				return nil, err
			}
			return nil, sc.RemoveBackend(ctx, m.Group(), b)
		}),
		step("release", engine.SetState, func(ctx context.Context, a *engine.Act) (any, error) {
			var set ecs.SnapshotSet
			var image ecs.Image
			var c clone
			for id, v := range map[string]any{"2-snapshot": &set, "3-image": &image, "4-clone": &c} {
				if _, err := a.Result(id, v); err != nil {
					return nil, err
				}
			}
			in := ecs.ReleaseInput{Guard: guard, SourceID: instance, InstanceID: c.ID, Images: []string{image.ID}}
			if set.GroupID != "" {
				in.SnapshotGroups = []string{set.GroupID}
			} else {
				for _, s := range set.Snapshots {
					in.Snapshots = append(in.Snapshots, s.ID)
				}
			}
			return nil, ec.Release(ctx, in, nil)
		}),
	}
}

// Whoever works through an Env is told what flow control holds back, of both
// clients.
func TestHeldOfBothClients(t *testing.T) {
	world := cloud.New(cloud.Config{AccessKeyID: "LTAIheld", AccessKeySecret: "secret"})
	defer world.Close()
	server := httptest.NewServer(world)
	defer server.Close()
	cfg := &upgrade.Config{Cloud: upgrade.CloudConfig{Region: "cn-hangzhou", Endpoint: server.URL}, Pace: upgrade.Pace{Poll: 10 * time.Millisecond}}
	var mu sync.Mutex
	var held []string
	env, err := upgrade.NewEnv(cfg, &upgrade.Access{AccessKeyID: "LTAIheld", AccessKeySecret: "secret", Held: func(h ecs.Held) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, h.Action)
	}})
	require.NoError(t, err)
	defer env.Close()
	for _, action := range []string{"DescribeInstances", "DescribeHealthStatus"} {
		world.InjectFault(cloud.Fault{Action: action, Code: "Throttling.User", Times: 5})
	}
	_, err = env.ECS.GetInstance(t.Context(), "i-none")
	require.ErrorIs(t, err, ecs.ErrNotFound)
	_, err = env.SLB.ListHealth(t.Context(), "lb-none")
	require.Error(t, err)
	assert.Equal(t, []string{"ecs:DescribeInstances", "slb:DescribeHealthStatus"}, held)
}

// The quota is used up by somebody else and stays so: the run fails at that
// step, can be resumed, and says what was held back, for how long and what to
// do. Nothing was made by the calls that were refused.
func TestScenario18QuotaGone(t *testing.T) {
	scenario(t, sim.Config{Rate: -1, Streams: -1}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().InjectFault(cloud.Fault{Action: "CreateImage", Code: "Throttling.User", Message: "Request was denied due to user flow control.", Times: 330})
		r := s.apply(quiet)
		s.failed(r, "3.2-image", "work on fewer hosts at once, stop other tools, or ask for more (Quota Center, API Rate Limits)")
		assert.Regexp(t, `CreateImage: Throttling\.User: .* held back by the cloud's flow control for 3\dm\d+s, refused \d+ times: everything in this account that calls ecs:CreateImage in `, r.Reason)
		assert.Equal(t, upgrade.ExitFailed, r.ExitStatus())
		s.succeeded(s.resume(quiet), 6)
	})
}
