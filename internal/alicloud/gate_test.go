package alicloud_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// An account counts the calls of one action by the minute and refuses what is
// above its quota, whoever sends it.
type account struct {
	quota int
	tells bool // when a minute ends, as some products do

	mu      sync.Mutex
	minute  time.Time
	sent    int
	passed  []int // per minute
	refused []int
	by      map[int]int // calls let through since the map was cleared, by client
	longest time.Duration
}

func (a *account) answer(client int) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.minute.IsZero() || time.Since(a.minute) >= time.Minute {
		if a.minute.IsZero() {
			a.minute = time.Now()
		} else {
			a.minute = a.minute.Add(time.Minute)
		}
		a.sent = 0
		a.passed, a.refused = append(a.passed, 0), append(a.refused, 0)
	}
	last := len(a.passed) - 1
	if a.sent++; a.sent > a.quota {
		a.refused[last]++
		resp, err := refusal(400, "Throttling.User", "Request was denied due to user flow control.")
		if a.tells {
			left := time.Until(a.minute.Add(time.Minute))
			resp.Header.Set("X-Ratelimit-User-Api", fmt.Sprintf("Limit:%d,Remain:0,TimeLeft:%d", a.quota, left.Milliseconds()))
		}
		return resp, err
	}
	a.passed[last]++
	a.by[client]++
	return answer(200, emptyInstances)
}

// client is the n-th process that works with the account.
func (a *account) client(t *testing.T, n int, more func(*alicloud.Config)) *alicloud.Client {
	t.Helper()
	cfg := alicloud.Config{
		Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret,
		Transport: roundTripper(func(*http.Request) (*http.Response, error) { return a.answer(n) }),
	}
	if more != nil {
		more(&cfg)
	}
	c, err := alicloud.New(cfg)
	require.NoError(t, err)
	return c
}

// Many processes that share nothing but a quota, each asking as fast as it may:
// they find the pace at which the quota is used up and little is refused, every
// call is let through in the end, and each of them gets a share.
func TestGateShares(t *testing.T) {
	for _, tt := range []struct {
		clients, callers, quota int
		tells                   bool
		above                   float64 // refused calls a minute, as a share of the quota
	}{
		{clients: 50, callers: 1, quota: 60, above: 0.6},
		{clients: 50, callers: 1, quota: 60, tells: true, above: 0.6},
		{clients: 10, callers: 5, quota: 60, above: 0.5},
		{clients: 1, callers: 20, quota: 60, above: 0.2},
		{clients: 1, callers: 1, quota: 200, above: 0.2},
		{clients: 5, callers: 2, quota: 600, above: 0.2},
	} {
		t.Run(fmt.Sprintf("%d x %d at %d %v", tt.clients, tt.callers, tt.quota, tt.tells), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const settle, watch = 12, 15 // minutes
				a := &account{quota: tt.quota, tells: tt.tells, by: map[int]int{}}
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				for n := range tt.clients {
					c := a.client(t, n, nil)
					for range tt.callers {
						all.Go(func() {
							for {
								begun := time.Now()
								_, err := c.Instances(ctx, alicloud.InstanceQuery{})
								if ctx.Err() != nil {
									return
								}
								assert.NoError(t, err)
								a.mu.Lock()
								a.longest = max(a.longest, time.Since(begun))
								a.mu.Unlock()
								select {
								case <-ctx.Done():
								case <-time.After(10 * time.Millisecond):
								}
							}
						})
					}
				}
				time.Sleep(settle * time.Minute)
				a.mu.Lock()
				clear(a.by)
				a.longest = 0
				a.mu.Unlock()
				time.Sleep(watch * time.Minute)
				ended := time.Now()
				cancel()
				all.Wait()
				assert.Zero(t, time.Since(ended), "cancelled at once")

				passed, refused, worst := 0, 0, 0
				for m := settle; m < settle+watch; m++ {
					passed += a.passed[m]
					refused += a.refused[m]
					worst = max(worst, a.refused[m])
				}
				least := a.by[0]
				for n := range tt.clients {
					least = min(least, a.by[n])
				}
				used := float64(passed) / float64(watch*tt.quota)
				above := float64(refused) / float64(watch*tt.quota)
				fair := float64(passed) / float64(tt.clients)
				t.Logf("%.0f%% of the quota used, %.0f%% above it, %d calls in the worst minute; the last client has %.0f%% of its share, no call waited longer than %s",
					100*used, 100*above, worst, 100*float64(least)/fair, a.longest.Round(time.Second))
				assert.Greater(t, used, 0.6)
				assert.Less(t, above, tt.above)
				assert.LessOrEqual(t, worst, 2*tt.quota)
				assert.Greater(t, float64(least), fair/6, "a client starves")
				assert.Less(t, a.longest, 12*time.Minute, "a call starves")
			})
		})
	}
}

// What was throttled once is not slow for ever: a client that the others have
// left alone is back at its own pace within minutes.
func TestGateOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{quota: 0, by: map[int]int{}}
		c := a.client(t, 0, nil)
		start := time.Now()
		time.AfterFunc(10*time.Minute, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.quota = 1000
		})
		_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
		require.NoError(t, err)
		assert.Less(t, time.Since(start), 12*time.Minute)
		begun := time.Now()
		for time.Since(begun) < 13*time.Minute {
			_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
			require.NoError(t, err)
			time.Sleep(3 * time.Second)
		}
		begun = time.Now()
		for range 100 {
			_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(begun), "the gate is open")
	})
}

// Flow control is no failure: a call outlives any budget, and what ends it says
// what was held back, for how long, and what to do.
func TestThrottleLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{tells: true, by: map[int]int{}}
		c := a.client(t, 0, nil)
		time.AfterFunc(25*time.Minute, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.quota = 60
		})
		_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
		require.NoError(t, err)

		a.mu.Lock()
		a.quota = 0
		a.mu.Unlock()
		begun := time.Now()
		_, err = c.Instances(t.Context(), alicloud.InstanceQuery{})
		var e *alicloud.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, alicloud.Throttled, e.Class)
		assert.InDelta(t, 31, time.Since(begun).Minutes(), 2, "half an hour, and the turn that was on")
		assert.Regexp(t, `^DescribeInstances: Throttling\.User: .*held back by the cloud's flow control for 3\dm\d+s, refused \d+ times: everything in this account that calls ecs:DescribeInstances in cn-hangzhou shares its quota of calls; work on fewer hosts at once, stop other tools, or ask for more \(Quota Center, API Rate Limits\)$`, err.Error())

		// The caller's deadline comes first.
		a.mu.Lock()
		a.quota = 0
		a.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Minute)
		defer cancel()
		begun = time.Now()
		_, err = c.CreateSnapshot(ctx, alicloud.NewSnapshot{DiskID: "d-1", Token: "tok"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, &e)
		assert.Equal(t, alicloud.Throttled, e.Class, "nothing was carried out")
		assert.Equal(t, 7*time.Minute, time.Since(begun))
		assert.Regexp(t, `context deadline exceeded while waiting to repeat the request.*held back by the cloud's flow control for 7m0s, refused \d+ times: .* ecs:CreateSnapshot `, err.Error())
	})
}

// The budget for other trouble is what it was, with flow control in between.
func TestBudgetBesideThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := client(t, roundTripper(func(*http.Request) (*http.Response, error) {
			if n++; n%2 == 1 {
				return refusal(400, "Throttling.User", "slow down")
			}
			return refusal(400, "OperationBusy", "busy")
		}))
		begun := time.Now()
		_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
		require.ErrorContains(t, err, "OperationBusy: busy")
		require.ErrorContains(t, err, "gave up after")
		assert.Greater(t, time.Since(begun), 2*time.Minute, "waiting for flow control takes nothing from the budget")
		assert.Less(t, time.Since(begun), 30*time.Minute)
	})
}

// Somebody is told once for an action when calls of it are held back, not of
// every call and not of short waits; again when it goes on for long, and when
// it comes back after the gate was open.
func TestHeldIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{quota: 1000, by: map[int]int{}}
		quota := func(n int) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.quota = n
		}
		var told []alicloud.Held
		var at []time.Time
		var mu sync.Mutex
		c := a.client(t, 0, func(cfg *alicloud.Config) {
			cfg.OnHeld = func(h alicloud.Held) {
				mu.Lock()
				defer mu.Unlock()
				told, at = append(told, h), append(at, time.Now())
			}
		})
		look := func() {
			_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
			assert.NoError(t, err)
		}
		look()
		begun := time.Now()
		quota(0)
		time.AfterFunc(5*time.Minute, func() { quota(1000) })
		var all sync.WaitGroup
		for range 8 {
			all.Go(look)
		}
		all.Wait()
		require.Len(t, told, 1)
		assert.Equal(t, "ecs:DescribeInstances", told[0].Action)
		assert.Equal(t, "Throttling.User", told[0].Code)
		assert.Less(t, told[0].Since.Sub(begun), 3*time.Second)
		assert.WithinRange(t, at[0], begun.Add(10*time.Second), begun.Add(15*time.Second))

		for range 20 * 60 { // the gate opens
			time.Sleep(time.Second)
			look()
		}
		require.Len(t, told, 1)
		begun = time.Now()
		quota(0)
		time.AfterFunc(25*time.Minute, func() { quota(1000) })
		look()
		require.Len(t, told, 4, "at once, and after ten and twenty minutes")
		for _, h := range told[1:] {
			assert.WithinRange(t, h.Since, begun, begun.Add(3*time.Second), "since the call began to wait")
		}

		// An outage is another thing.
		told = nil
		down := a.client(t, 1, func(cfg *alicloud.Config) {
			cfg.Transport = roundTripper(func(*http.Request) (*http.Response, error) { return refusal(503, "ServiceUnavailable", "down") })
			cfg.OnHeld = func(h alicloud.Held) { told = append(told, h) }
		})
		_, err := down.Instances(t.Context(), alicloud.InstanceQuery{})
		require.Error(t, err)
		assert.Empty(t, told)
	})
}

// An outage is no flow control, though it slows calls down as well: the budget
// ends the call, and the clock of a limit runs.
func TestBudgetOfOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			n := 0
			c := client(t, roundTripper(func(*http.Request) (*http.Response, error) {
				n++
				return refusal(503, "ServiceUnavailable", "down")
			}))
			begun := time.Now()
			_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
			require.ErrorContains(t, err, "gave up after")
			assert.LessOrEqual(t, time.Since(begun), 2*time.Minute)
			assert.Greater(t, time.Since(begun), time.Minute)
			assert.Greater(t, n, 4)

			ctx, cancel := alicloud.WithLimit(t.Context(), 20*time.Second)
			begun = time.Now()
			_, err = c.Images(ctx, alicloud.ImageQuery{})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 20*time.Second, time.Since(begun))
			cancel()
		}
	})
}

// A limit's clock stands still while flow control is the reason to wait, and
// runs on as ever for anything else.
func TestLimitStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{by: map[int]int{}}
		c := a.client(t, 0, nil)
		time.AfterFunc(20*time.Minute, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.quota = 1000
		})
		outer, cancel := alicloud.WithLimit(t.Context(), 4*time.Minute)
		defer cancel()
		inner, cancel := alicloud.WithLimit(outer, time.Minute)
		defer cancel()
		begun := time.Now()
		_, err := c.Instances(inner, alicloud.InstanceQuery{})
		require.NoError(t, err)
		assert.Greater(t, time.Since(begun), 19*time.Minute)
		<-inner.Done()
		assert.InDelta(t, time.Minute, time.Since(begun)-20*time.Minute, float64(2*time.Minute))
		require.ErrorIs(t, inner.Err(), context.DeadlineExceeded)
		require.NoError(t, outer.Err())
		child, cancel := context.WithTimeout(outer, time.Hour)
		defer cancel()
		<-child.Done()
		assert.ErrorIs(t, child.Err(), context.DeadlineExceeded, "the limit's, not its own")
		_, err = c.Instances(outer, alicloud.InstanceQuery{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(cancel, limit context.CancelFunc){
			"parent": func(cancel, _ context.CancelFunc) { cancel() },
			"itself": func(_, limit context.CancelFunc) { limit() },
		} {
			parent, cancel := context.WithCancel(t.Context())
			ctx, limit := alicloud.WithLimit(parent, time.Hour)
			require.NoError(t, ctx.Err())
			begun := time.Now()
			end(cancel, limit)
			assert.ErrorIs(t, ctx.Err(), context.Canceled, name)
			<-ctx.Done()
			assert.Zero(t, time.Since(begun))
			late, stop := alicloud.WithLimit(ctx, time.Hour)
			assert.ErrorIs(t, late.Err(), context.Canceled)
			stop()
			limit()
			cancel()
		}
	})
}

// A write that flow control refused was not carried out and is sent again, with
// the same token if it has one; one whose answer was lost is not, unless doing
// it twice is doing it once. The two kinds of trouble may come in either order.
func TestWritesUnderFlowControl(t *testing.T) {
	lost := func() (*http.Response, error) { return nil, fmt.Errorf("connection reset by peer") }
	throttled := func() (*http.Response, error) { return refusal(400, "Throttling.User", "slow down") }
	for _, tt := range []struct {
		name                string
		answers             []func() (*http.Response, error)
		calls, createCalls  int
		fails, createdTwice bool
	}{
		{name: "throttled", answers: []func() (*http.Response, error){throttled, throttled, throttled}, calls: 4, createCalls: 4},
		{name: "lost", answers: []func() (*http.Response, error){lost}, calls: 1, createCalls: 2, fails: true},
		{name: "throttled, then lost", answers: []func() (*http.Response, error){throttled, lost}, calls: 2, createCalls: 3, fails: true},
		{name: "lost, then throttled", answers: []func() (*http.Response, error){lost, throttled}, calls: 1, createCalls: 3, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){}}
				for action, body := range map[string]string{
					"SetBackendServers": `{"RequestId":"R","LoadBalancerId":"lb-1"}`, "CreateSnapshot": `{"RequestId":"R","SnapshotId":"s-1"}`,
					"RebootInstance": `{"RequestId":"R"}`, "DeleteInstance": `{"RequestId":"R"}`,
				} {
					f.actions[action] = func(n int, _ url.Values) (*http.Response, error) {
						if n <= len(tt.answers) {
							return tt.answers[n-1]()
						}
						return answer(200, body)
					}
				}
				c := client(t, f)
				for action, send := range map[string]func() error{
					"SetBackendServers": func() error {
						return c.SetDefault(t.Context(), "lb-1", []alicloud.Backend{{ServerID: "i-1", Weight: 0}})
					},
					"RebootInstance": func() error { return c.RebootInstance(t.Context(), "i-1") },
				} {
					err := send()
					assert.Equal(t, tt.fails, err != nil, "%s: %v", action, err)
					assert.Equal(t, tt.calls, f.counts[action], action)
					var e *alicloud.Error
					if tt.fails && assert.ErrorAs(t, err, &e) {
						assert.Equal(t, alicloud.Ambiguous, e.Class, action)
					}
				}
				id, err := c.CreateSnapshot(t.Context(), alicloud.NewSnapshot{DiskID: "d-1", Token: "tok"})
				require.NoError(t, err)
				assert.Equal(t, "s-1", id)
				assert.Equal(t, tt.createCalls, f.counts["CreateSnapshot"])
				for _, q := range f.seen {
					if q.Get("Action") == "CreateSnapshot" {
						assert.Equal(t, "tok", q.Get("ClientToken"))
					}
				}
			})
		})
	}
}
