package ecs

import (
	"errors"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// poller is how this package waits. The calls themselves are repeated below it,
// so that an error here is one that lasted; three of them are borne because a
// wait of two hours should outlive a short outage.
func (c *Client) poller() poll.Poller {
	return poll.Poller{Interval: c.poll, Retryable: func(err error) bool {
		var e *Error
		return errors.As(err, &e) && (e.Ambiguous || e.again)
	}}
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
