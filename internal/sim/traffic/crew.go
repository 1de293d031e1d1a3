package traffic

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A crew is the clients that send requests until they are stopped: their lives,
// and what failed.
type crew struct {
	ctx    context.Context // of requests under way: ends at Close
	cancel context.CancelFunc
	halt   context.CancelFunc // of new requests: ends at Stop
	wg     sync.WaitGroup

	mu       sync.Mutex
	began    time.Time
	stopped  time.Time // zero while they run
	failures []Failure
}

// begin returns the context of new requests.
func (c *crew) begin() context.Context {
	c.began = time.Now()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	var going context.Context
	going, c.halt = context.WithCancel(c.ctx)
	return going
}

// Stop sends no more requests and waits until those under way have ended by
// themselves, or ctx ends: then they are cut, which no longer counts.
func (c *crew) Stop(ctx context.Context) error {
	c.halt()
	done := make(chan struct{})
	go func() { c.wg.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("requests were still under way: %w", ctx.Err())
		c.cancel()
		<-done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped.IsZero() {
		c.stopped = time.Now()
	}
	return err
}

// Close cuts what is under way and waits for it.
func (c *crew) Close() {
	c.cancel()
	c.wg.Wait()
}

// elapsed is how long they have been at it. c.mu is held.
func (c *crew) elapsed() time.Duration {
	if c.stopped.IsZero() {
		return time.Since(c.began)
	}
	return c.stopped.Sub(c.began)
}

// fail keeps one of the first failures. c.mu is held.
func (c *crew) fail(f Failure) {
	if len(c.failures) < maxFailures {
		c.failures = append(c.failures, f)
	}
}
