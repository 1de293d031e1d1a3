package ecs_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/poll"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// meter counts requests and keeps the largest heap that it saw.
type meter struct {
	next  http.RoundTripper
	calls atomic.Int64
	heap  atomic.Uint64
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.calls.Add(1)
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	if v := s[0].Value.Uint64(); v > m.heap.Load() {
		m.heap.Store(v)
	}
	return m.next.RoundTrip(r)
}

// waits lets n goroutines wait for n instances that take some time to start, on
// a simulated cloud in virtual time, and returns the calls they made and the
// largest heap, simulator included. alone makes every goroutine look for itself,
// at the same intervals.
func waits(t *testing.T, n int, takes time.Duration, alone bool) (calls int64, heap uint64) {
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret, StartTakes: takes})
		defer sim.Close()
		var ids []string
		for k := range n {
			ids = append(ids, fmt.Sprintf("i-%04d", k))
			sim.AddInstance(cloud.Instance{ID: ids[k], PrivateIP: fmt.Sprintf("10.0.%d.%d", k/250, k%250+1), Status: "Stopped"})
		}
		m := &meter{next: sim.Transport()}
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret}, ecs.WithTransport(m))
		require.NoError(t, err)
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				if err := c.StartInstance(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		m.calls.Store(0)
		m.heap.Store(0)
		for _, id := range ids {
			wg.Go(func() {
				var err error
				if alone {
					err = poll.Poller{Interval: 3 * time.Second}.Until(t.Context(), id, func(ctx context.Context) (string, bool, error) {
						i, err := c.GetInstance(ctx, id)
						if err != nil {
							return "", false, err
						}
						return i.Status, i.Status == ecs.StatusRunning, nil
					})
				} else {
					_, err = c.WaitInstance(t.Context(), id, ecs.StatusRunning, nil)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		calls, heap = m.calls.Load(), m.heap.Load()
	})
	return calls, heap
}

// However many wait, an interval costs one call for a hundred of them.
func TestWaitsShareLooks(t *testing.T) {
	alone, _ := waits(t, 70, time.Minute, true)
	together, _ := waits(t, 70, time.Minute, false)
	t.Logf("70 waits: %d calls one by one, %d together", alone, together)
	if together*50 > alone {
		t.Errorf("%d calls together, %d one by one", together, alone)
	}
}

// BenchmarkWaits compares 1,000 waits that share their looks with 1,000 that do
// not. Figures: API calls of each, how many times fewer, and the largest heap
// in MB (simulator included).
func BenchmarkWaits(b *testing.B) {
	var alone, together int64
	var heap uint64
	for range b.N {
		// Virtual time is to be had in tests only.
		ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "waits", F: func(t *testing.T) {
			together, heap = waits(t, 1000, 3*time.Minute, false)
			alone, _ = waits(t, 1000, 3*time.Minute, true)
		}}})
		if !ok {
			b.Fatal("a wait failed")
		}
	}
	b.ReportMetric(float64(alone), "calls-alone")
	b.ReportMetric(float64(together), "calls-together")
	b.ReportMetric(float64(alone)/float64(together), "times-fewer")
	b.ReportMetric(float64(heap)/1e6, "MB-heap")
	if together*50 > alone || heap > 64<<20 {
		b.Errorf("%d calls instead of %d, %d bytes: the goal is a fiftieth, in 64 MB", together, alone, heap)
	}
}
