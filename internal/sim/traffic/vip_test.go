package traffic

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// vipStandIn is an address that can be without a holder.
type vipStandIn struct {
	mu   sync.Mutex
	err  error
	open map[chan struct{}]bool
}

func (v *vipStandIn) dial(int) (VIPConn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return VIPConn{}, v.err
	}
	c := make(chan struct{})
	v.open[c] = true
	return VIPConn{Server: "a", Cut: c, Why: func() string { return "gone" }, Close: func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.open, c)
	}}, nil
}

func (v *vipStandIn) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
	if err != nil {
		for c := range v.open {
			close(c)
			delete(v.open, c)
		}
	}
}

// TestVIPGapsCountApart: only failures that overlap a window count there; a
// connection that gets no answer in a short one is only slow; and a refused
// one is a failure whenever it happens outside.
func TestVIPGapsCountApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vipStandIn{open: map[chan struct{}]bool{}}
		var mu sync.Mutex
		var lost, back time.Time
		now := func(at *time.Time) {
			mu.Lock()
			defer mu.Unlock()
			*at = time.Now()
		}
		c := StartVIPClients(VIPLoad{
			Targets: []VIPTarget{{Name: "short", Port: 1}, {Name: "long", Port: 2, Stream: true}},
			Rate:    50, Streams: 2, Open: v.dial,
			Gap: func(begin, end time.Time) (int, bool) {
				mu.Lock()
				defer mu.Unlock()
				return 0, !lost.IsZero() && !end.Before(lost) && (back.IsZero() || !begin.After(back))
			},
		})
		defer c.Close()
		time.Sleep(10 * time.Second)
		s := c.Summary()
		assert.Greater(t, s.Requests, int64(400))
		assert.Zero(t, s.Failed+s.GapFailed)
		now(&lost)
		v.set(syscall.ETIMEDOUT)
		time.Sleep(600 * time.Millisecond)
		now(&back)
		v.set(nil)
		time.Sleep(5 * time.Second)
		s = c.Summary()
		assert.Zero(t, s.Failed, "%v", s.Failures)
		assert.Positive(t, s.GapFailed, "streams were cut")
		assert.Equal(t, s.GapFailed, s.ByGap[0])
		assert.GreaterOrEqual(t, s.Slowest, time.Second, "TCP asks again after a second")
		v.set(errors.New("refused"))
		time.Sleep(time.Second)
		v.set(nil)
		assert.NoError(t, c.Stop(t.Context()))
		s = c.Summary()
		assert.Positive(t, s.Failed)
		assert.NotEmpty(t, s.Failures)
		assert.Equal(t, s.Requests, s.Targets[0].Requests+s.Targets[1].Requests)
	})
}
