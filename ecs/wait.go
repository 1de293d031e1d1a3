package ecs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// poller is how this package waits. The calls themselves are repeated below it,
// so that an error here is one that lasted; three of them are borne because a
// wait of two hours should outlive a short outage.
func (c *Client) poller() poll.Poller {
	return poll.Poller{Interval: c.poll, Retryable: retryable}
}

func retryable(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Ambiguous || e.again)
}

// share sets up the looks that waits share: one call for 100 objects, however
// many goroutines wait for them.
func (c *Client) share() {
	c.instances = poll.Group[Instance]{Interval: c.poll, Retryable: retryable, Look: func(ctx context.Context, ids []string) (map[string]Instance, error) {
		return byID(ids, func(i Instance) string { return i.ID })(c.ListInstances(ctx, Filter{IDs: ids}))
	}}
	c.snapshots = poll.Group[Snapshot]{Interval: c.poll, Retryable: retryable, Look: func(ctx context.Context, ids []string) (map[string]Snapshot, error) {
		return byID(ids, func(s Snapshot) string { return s.ID })(c.ListSnapshots(ctx, SnapshotFilter{IDs: ids}))
	}}
	c.images = poll.Group[Image]{Interval: c.poll, Retryable: retryable, Look: func(ctx context.Context, ids []string) (map[string]Image, error) {
		return byID(ids, func(i Image) string { return i.ID })(c.ListImages(ctx, ImageFilter{IDs: ids}))
	}}
}

// asked adds to the error of a wait that ended early that flow control kept it
// from looking, if that is so.
func (c *Client) asked(action string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if s := c.api.HeldBack("ecs", action); s != "" {
			return fmt.Errorf("%w; %s: %s", err, action, s)
		}
	}
	return err
}

// byID makes a map of a list.
func byID[T any](ids []string, id func(T) string) func([]T, error) (map[string]T, error) {
	return func(list []T, err error) (map[string]T, error) {
		if err != nil {
			return nil, err
		}
		m := make(map[string]T, len(ids))
		for _, v := range list {
			m[id(v)] = v
		}
		return m, nil
	}
}

// reporter calls f when there is news.
func reporter(f func(Progress)) func(Progress) {
	last := map[string]Progress{}
	return func(p Progress) {
		if f != nil && last[p.ID] != p {
			last[p.ID] = p
			f(p)
		}
	}
}

// classOf returns the class of an error of the API, "" if it is none.
func classOf(err error) alicloud.Class {
	var ae *alicloud.Error
	if errors.As(err, &ae) {
		return ae.Class
	}
	var e *Error
	if errors.As(err, &e) {
		return e.class
	}
	return ""
}

// lag is how long a thing that was just made may be missing in lists.
func (c *Client) lag() time.Duration { return 10 * c.poll }
