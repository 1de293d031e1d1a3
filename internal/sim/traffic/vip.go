package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// VIPLoad is what clients ask for through a virtual address. Its connections
// are the model's own, without bytes: what counts is whether they come about
// and last.
type VIPLoad struct {
	Targets []VIPTarget
	Rate    float64 // short requests a second over all targets; ≤ 0 = none
	Streams int     // connections open at a time per target with Stream
	// StreamMax is the longest stream; 0 = 5s.
	StreamMax time.Duration
	Timeout   time.Duration // of a connection attempt, with the retries of TCP; 0 = 8s

	// Open connects once with a target, by its place in Targets, as one SYN
	// does; syscall.ETIMEDOUT, EHOSTUNREACH and ENETUNREACH are no answer, any
	// other error is final.
	Open func(target int) (VIPConn, error)
	// Gap says which window without a holder a time overlaps, if any.
	Gap func(begin, end time.Time) (n int, ok bool)
}

// VIPTarget is a port of the address; Name and Port are read, the rest counts.
type VIPTarget struct {
	Name      string `json:"name"`
	Port      int    `json:"port"`
	Stream    bool   `json:"stream"`
	Requests  int64  `json:"requests"`
	Failed    int64  `json:"failed"`     // outside a window
	GapFailed int64  `json:"gap_failed"` // while nobody held the address
}

// VIPConn is a connection that was made.
type VIPConn struct {
	Server string
	Cut    <-chan struct{} // closed when it is cut
	Why    func() string   // what cut it
	Close  func()          // in good order
}

// VIPClients send requests until they are stopped, and count.
type VIPClients struct {
	crew
	load VIPLoad

	// guarded by crew.mu
	targets []VIPTarget
	servers map[string]int64
	byGap   map[int]int64
	slowest time.Duration
}

// VIPSummary is what was counted.
type VIPSummary struct {
	Requests  int64
	Failed    int64
	GapFailed int64
	ByGap     map[int]int64 // failed requests, by window
	Targets   []VIPTarget
	Servers   map[string]int64 // answered requests, by machine
	Failures  []Failure        // the first hundred outside a window
	Slowest   time.Duration    // longest connection attempt that came about
	Since     time.Time
	Elapsed   time.Duration
}

// StartVIPClients starts clients for every target of l. Close them.
func StartVIPClients(l VIPLoad) *VIPClients {
	l.StreamMax = orDuration(l.StreamMax, 5*time.Second)
	l.Timeout = orDuration(l.Timeout, 8*time.Second)
	c := &VIPClients{load: l, targets: slices.Clone(l.Targets), servers: map[string]int64{}, byGap: map[int]int64{}}
	going := c.begin()
	short := 0
	for _, t := range l.Targets {
		if !t.Stream {
			short++
		}
	}
	for i, t := range l.Targets {
		switch {
		case t.Stream:
			for range l.Streams {
				c.wg.Go(func() { c.streams(going, i) })
			}
		case l.Rate > 0:
			c.wg.Go(func() { c.shorts(going, i, time.Duration(float64(time.Second)*float64(short)/l.Rate)) })
		}
	}
	return c
}

func (c *VIPClients) shorts(ctx context.Context, target int, every time.Duration) {
	tick := ticker(ctx, every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.wg.Go(func() { c.request(target, 5*time.Millisecond+rand.N(30*time.Millisecond)) })
	}
}

func (c *VIPClients) streams(ctx context.Context, target int) {
	for ctx.Err() == nil {
		if c.request(target, c.load.StreamMax/5+rand.N(c.load.StreamMax*4/5)) != nil {
			c.pause(100 * time.Millisecond)
		}
	}
}

// pause waits; false: the clients were closed.
func (c *VIPClients) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// request makes a connection, with the retries of TCP after 1, 2 and 4 s, and
// holds it for a time.
func (c *VIPClients) request(target int, lasts time.Duration) error {
	began := time.Now()
	var conn VIPConn
	var err error
	for wait := time.Second; ; wait *= 2 {
		conn, err = c.load.Open(target)
		if err == nil || !unanswered(err) || time.Since(began)+wait > c.load.Timeout {
			break
		}
		if !c.pause(wait) {
			return err
		}
	}
	took := time.Since(began)
	if err == nil {
		t := time.NewTimer(lasts)
		select {
		case <-t.C:
			conn.Close()
		case <-conn.Cut:
			err = fmt.Errorf("cut after %v of %v: %s", time.Since(began).Round(time.Millisecond), lasts.Round(time.Millisecond), conn.Why())
		case <-c.ctx.Done():
			conn.Close()
			t.Stop()
			return nil
		}
		t.Stop()
	}
	c.count(target, began, took, conn.Server, err)
	return err
}

func unanswered(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

func (c *VIPClients) count(target int, began time.Time, took time.Duration, server string, err error) {
	now := time.Now()
	n, inGap := 0, false
	if err != nil {
		n, inGap = c.load.Gap(began, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.targets[target]
	t.Requests++
	switch {
	case err == nil:
		c.servers[server]++
		c.slowest = max(c.slowest, took)
	case inGap:
		t.GapFailed++
		c.byGap[n]++
	default:
		t.Failed++
		kind := kindNew
		if t.Stream {
			kind = kindStream
		}
		c.fail(Failure{At: now, Target: t.Name, Kind: kind, Reason: err.Error()})
	}
}

// Summary is what was counted up to now.
func (c *VIPClients) Summary() VIPSummary {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := VIPSummary{
		Targets: slices.Clone(c.targets), Failures: slices.Clone(c.failures), Servers: map[string]int64{}, ByGap: map[int]int64{},
		Slowest: c.slowest, Since: c.began, Elapsed: c.elapsed(),
	}
	for _, t := range c.targets {
		s.Requests += t.Requests
		s.Failed += t.Failed
		s.GapFailed += t.GapFailed
	}
	for k, v := range c.servers {
		s.Servers[k] = v
	}
	for k, v := range c.byGap {
		s.ByGap[k] = v
	}
	return s
}
