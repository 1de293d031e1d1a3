package slb

import (
	"context"
	"fmt"
	"time"
)

// ListEvidence lists the listeners of a balancer with what a statement about
// their traffic can rest on (Evidence and Reason; the counts are empty). Those
// that are ByConnections need a Proof from the hosts.
func (c *Client) ListEvidence(ctx context.Context, loadBalancerID string) ([]ListenerTraffic, error) {
	all, _, err := c.logged(ctx, loadBalancerID, 0)
	return all, err
}

// LogProof is a Proof for Drain by a balancer's access log. It is for listeners
// that have one: with none it is an error, so that nothing is proved by a log
// that does not exist. Its Detail names the listeners it says nothing about.
func (c *Client) LogProof(q SilenceQuery) Proof {
	return func(ctx context.Context) (Evidence, error) {
		source := ByAccessLog + " of " + q.LoadBalancerID
		s, err := c.ProveSilence(ctx, q)
		if err != nil {
			return Evidence{Source: source}, err
		}
		if len(s.Unlogged()) == len(s.Listeners) {
			return Evidence{Source: source}, fmt.Errorf("cannot prove silence on %s by its access log: %s", q.LoadBalancerID, s)
		}
		return Evidence{Silent: s.Silent(), Source: source, Detail: s.String()}, nil
	}
}

// falls is the part of its earlier odds that a host may have after a step down.
const falls = 0.9

// odds are how many requests went to a host for each that went elsewhere. They
// change as its weight does, however much of the traffic it has.
func odds(share float64) float64 { return share / (1 - share) }

// FallingShare is a StepCheck for Drain: after each step it waits until the
// requests that the host gets have fallen by a tenth at least against those that
// the others of a logged listener get, compared with the step before (at first:
// with the baseline); so take steps that lower the weight by more than that. The
// windows it looks at (Window; 0 means 1 min here) begin after the step. AtMost and AtLeast are not
// used. What it returns is for one Drain.
func (c *Client) FallingShare(q ShareQuery) func(ctx context.Context, weight int) error {
	if q.Window <= 0 {
		q.Window = time.Minute
	}
	before := map[int]float64{} // by port
	ips := q.IPs
	return func(ctx context.Context, weight int) error {
		t, err := c.waitShare(ctx, q, time.Now(), func(l ListenerTraffic, share float64) bool {
			was, known := before[l.Port]
			if !known {
				_, b := l.Of(ips)
				was = b.Share
			}
			return share == 0 || share < 1 && (was >= 1 || odds(share) <= falls*odds(was))
		})
		if err != nil {
			return fmt.Errorf("the share does not fall at weight %d: %w", weight, err)
		}
		for _, l := range t.Listeners {
			if now, _ := l.Of(ips); l.Now.Requests > 0 {
				before[l.Port] = now.Share
			}
		}
		return nil
	}
}
