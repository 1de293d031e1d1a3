package slb

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// SetWeight sets the weight of one member, given as it was read, if it still has
// that weight, and reads back that it has the new one. A member that has the new
// weight already is left alone. If it is gone or has a third weight somebody
// else is at work: the error is a ConflictError and nothing was written. The
// member's type, port, address and description are kept.
func (c *Client) SetWeight(ctx context.Context, g Group, asRead Backend, weight int) error {
	if err := checkWeight(weight); err != nil {
		return fmt.Errorf("cannot set the weight of %s in %s: %w", asRead, g, err)
	}
	return c.change(ctx, g, fmt.Sprintf("weight of %s in %s", asRead, g), func(now *Backend) (step, string, error) {
		switch {
		case now == nil:
			return 0, "", &ConflictError{Group: g, Was: asRead, Want: weight}
		case now.Weight == weight:
			return done, "", nil
		case now.Weight != asRead.Weight:
			return 0, "", &ConflictError{Group: g, Was: asRead, Want: weight, Now: now}
		}
		return write, fmt.Sprintf("%d", now.Weight), nil
	}, asRead, func(ctx context.Context, now *Backend) error {
		// What the member has besides its weight is given back as it is now.
		b := alicloud.Backend(*now)
		b.Weight = weight
		if g.VServerGroupID == "" {
			return c.api.SetDefault(ctx, g.LoadBalancerID, b)
		}
		return c.api.SetGroup(ctx, g.VServerGroupID, b)
	})
}

// AddBackend makes b a member of a group with exactly its weight, also if that
// is 0, and reads back that it is one. A member that is there with this weight is
// no error; with another weight it is a ConflictError. The server must be
// running.
func (c *Client) AddBackend(ctx context.Context, g Group, b Backend) error {
	err := checkWeight(b.Weight)
	switch {
	case err != nil:
	case b.ServerID == "":
		err = errors.New("it has no server ID")
	case g.VServerGroupID != "" && (b.Port < 1 || b.Port > 65535):
		err = fmt.Errorf("port %d is not within 1 to 65535", b.Port)
	case g.VServerGroupID == "" && b.Port != 0:
		err = fmt.Errorf("a default group has no ports of its own, and %d was given", b.Port)
	}
	if err != nil {
		return fmt.Errorf("cannot add %s to %s: %w", b, g, err)
	}
	if b.Type == "" {
		b.Type = "ecs"
	}
	return c.change(ctx, g, fmt.Sprintf("addition of %s to %s", b, g), func(now *Backend) (step, string, error) {
		switch {
		case now == nil:
			return write, "not a member", nil
		case now.Weight == b.Weight:
			return done, "", nil
		}
		return 0, "", &ConflictError{Group: g, Was: b, Want: b.Weight, Now: now}
	}, b, func(ctx context.Context, _ *Backend) error {
		if g.VServerGroupID == "" {
			return c.api.AddDefault(ctx, g.LoadBalancerID, alicloud.Backend(b))
		}
		return c.api.AddGroup(ctx, g.VServerGroupID, alicloud.Backend(b))
	})
}

// RemoveBackend takes b out of a group, whatever its weight, and reads back that
// it is gone. One that is not a member is no error.
//
// Removal cuts what weight 0 lets finish: drain first.
func (c *Client) RemoveBackend(ctx context.Context, g Group, b Backend) error {
	return c.change(ctx, g, fmt.Sprintf("removal of %s from %s", b, g), func(now *Backend) (step, string, error) {
		if now == nil {
			return done, "", nil
		}
		return write, "a member", nil
	}, b, func(ctx context.Context, now *Backend) error {
		if g.VServerGroupID == "" {
			return c.api.RemoveDefault(ctx, g.LoadBalancerID, alicloud.Backend(*now))
		}
		return c.api.RemoveGroup(ctx, g.VServerGroupID, alicloud.Backend(*now))
	})
}

func checkWeight(w int) error {
	if w < 0 || w > 100 {
		return fmt.Errorf("weight %d is not within 0 to 100", w)
	}
	return nil
}

// A step is what a look at a member leads to.
type step int

const (
	done step = iota + 1
	write
)

// change brings a group from what it is to what is wanted: look, write if need
// be, look again until it shows. The writes have no token, so whenever it is
// open whether one took effect, it is the next look that decides, never a blind
// repetition. decide gets the member as it is now, or nil.
func (c *Client) change(ctx context.Context, g Group, what string, decide func(now *Backend) (step, string, error), b Backend, send func(context.Context, *Backend) error) error {
	if err := g.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	var accepted bool
	var open error // of a write whose result is not known
	tries := 0
	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	err := p.Until(ctx, what, func(ctx context.Context) (string, bool, error) {
		members, err := c.ListBackends(ctx, g)
		if err != nil {
			return "", false, err
		}
		now, err := find(members, b)
		if err != nil {
			return "", false, poll.Stop(err)
		}
		next, state, err := decide(now)
		switch {
		case err != nil:
			return "", false, poll.Stop(err)
		case next == done:
			return state, true, nil
		case accepted:
			// Written, and not shown yet.
			return state, false, nil
		case tries >= 3:
			return "", false, poll.Stop(fmt.Errorf("cannot make the %s: %w", what, open))
		}
		tries++
		err = wrap(send(ctx, now))
		var e *Error
		switch {
		case err == nil:
			accepted = true
		case ctx.Err() != nil:
			return "", false, err
		case errors.As(err, &e) && e.Ambiguous:
			open = err
			return state + ", and the last write is open", false, nil
		default:
			return "", false, poll.Stop(fmt.Errorf("cannot make the %s: %w", what, err))
		}
		// Look at once: mostly it shows already.
		members, err = c.ListBackends(ctx, g)
		if err != nil {
			return "", false, err
		}
		if now, err = find(members, b); err != nil {
			return "", false, poll.Stop(err)
		}
		next, state, err = decide(now)
		if err != nil {
			return "", false, poll.Stop(err)
		}
		return state, next == done, nil
	})
	return err
}

func retryable(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Ambiguous || e.again)
}

// find returns the member that b is: same server and port, and same address for
// an interface that has several.
func find(members []Backend, b Backend) (*Backend, error) {
	var found *Backend
	for i := range members {
		m := &members[i]
		if m.ServerID != b.ServerID || m.Port != b.Port {
			continue
		}
		if b.ServerIP != "" && m.ServerIP != "" && m.ServerIP != b.ServerIP {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s is a member twice; say which one by its address", b)
		}
		found = m
	}
	if found == nil {
		return nil, nil
	}
	out := *found
	return &out, nil
}
