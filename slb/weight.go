package slb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// How many members one call may name.
const (
	clbMembers = 20
	albMembers = 40
	nlbMembers = 200
)

// A Change is a weight to set.
type Change struct {
	Group   Group   `json:"group"`
	Backend Backend `json:"backend"` // as it was read, with the weight it had
	Weight  int     `json:"weight"`  // 0..100
}

// SetWeight sets the weight of one member, given as it was read, if it still has
// that weight, and reads back that it has the new one. A member that has the new
// weight already is left alone. If it is gone or has a third weight somebody
// else is at work: the error is a ConflictError and nothing was written. The
// member's type, port, address and description are kept.
func (c *Client) SetWeight(ctx context.Context, g Group, asRead Backend, weight int) error {
	return c.SetWeights(ctx, []Change{{Group: g, Backend: asRead, Weight: weight}})
}

// SetWeights is SetWeight for many members: group by group in the order in which
// the groups first appear, with as few calls as the API allows. Within a group
// nothing is written if one of its members gives a ConflictError. An error ends
// it: the groups behind it were not touched.
func (c *Client) SetWeights(ctx context.Context, changes []Change) error {
	for _, ch := range changes {
		if err := checkWeight(ch.Weight); err != nil {
			return fmt.Errorf("cannot set the weight of %s in %s: %w", ch.Backend, ch.Group, err)
		}
	}
	var order []Group
	for _, ch := range changes {
		if !slices.Contains(order, ch.Group) {
			order = append(order, ch.Group)
		}
	}
	for _, g := range order {
		var items []item
		for _, ch := range changes {
			if ch.Group != g {
				continue
			}
			items = append(items, item{ch.Backend, func(now *Backend) (step, string, error) {
				switch {
				case now == nil:
					return 0, "", &ConflictError{Group: g, Was: ch.Backend, Want: ch.Weight}
				case now.Weight == ch.Weight:
					return done, "", nil
				case now.Weight != ch.Backend.Weight:
					return 0, "", &ConflictError{Group: g, Was: ch.Backend, Want: ch.Weight, Now: now}
				}
				return write, fmt.Sprintf("%d", now.Weight), nil
			}, func(now *Backend) alicloud.Backend {
				// What the member has besides its weight is given back as it is now.
				b := alicloud.Backend(*now)
				b.Weight = ch.Weight
				return b
			}})
		}
		if err := c.change(ctx, g, naming("weight of ", items, " in "+g.String()), items, c.sendSet); err != nil {
			return err
		}
	}
	return nil
}

// naming is a short description of what happens to one or many members.
func naming(before string, items []item, after string) string {
	who := items[0].b.String()
	if len(items) > 1 {
		who += fmt.Sprintf(" and %d others", len(items)-1)
	}
	return before + who + after
}

// AddBackend makes b a member of a group with exactly its weight, also if that
// is 0, and reads back that it is one. A member that is there with this weight is
// no error; with another weight it is a ConflictError. The server must be
// running.
func (c *Client) AddBackend(ctx context.Context, g Group, b Backend) error {
	return c.AddBackends(ctx, g, []Backend{b})
}

// AddBackends is AddBackend for many members of one group.
func (c *Client) AddBackends(ctx context.Context, g Group, members []Backend) error {
	var items []item
	for _, b := range members {
		err := checkWeight(b.Weight)
		hasPorts := g.product() != CLB || g.VServerGroupID != ""
		switch {
		case err != nil:
		case b.ServerID == "":
			err = errors.New("it has no server ID")
		case hasPorts && (b.Port < 1 || b.Port > 65535):
			err = fmt.Errorf("port %d is not within 1 to 65535", b.Port)
		case !hasPorts && b.Port != 0:
			err = fmt.Errorf("a default group has no ports of its own, and %d was given", b.Port)
		}
		if err != nil {
			return fmt.Errorf("cannot add %s to %s: %w", b, g, err)
		}
		if b.Type == "" {
			b.Type = "ecs"
		}
		items = append(items, item{b, func(now *Backend) (step, string, error) {
			switch {
			case now == nil:
				return write, "not a member", nil
			case now.Weight == b.Weight:
				return done, "", nil
			}
			return 0, "", &ConflictError{Group: g, Was: b, Want: b.Weight, Now: now}
		}, func(*Backend) alicloud.Backend { return alicloud.Backend(b) }})
	}
	if len(items) == 0 {
		return nil
	}
	return c.change(ctx, g, naming("addition of ", items, " to "+g.String()), items, c.sendAdd)
}

// RemoveBackend takes b out of a group, whatever its weight, and reads back that
// it is gone. One that is not a member is no error.
//
// Removal cuts what weight 0 lets finish: drain first.
func (c *Client) RemoveBackend(ctx context.Context, g Group, b Backend) error {
	return c.RemoveBackends(ctx, g, []Backend{b})
}

// RemoveBackends is RemoveBackend for many members of one group.
func (c *Client) RemoveBackends(ctx context.Context, g Group, members []Backend) error {
	var items []item
	for _, b := range members {
		items = append(items, item{b, func(now *Backend) (step, string, error) {
			if now == nil {
				return done, "", nil
			}
			return write, "a member", nil
		}, func(now *Backend) alicloud.Backend { return alicloud.Backend(*now) }})
	}
	if len(items) == 0 {
		return nil
	}
	return c.change(ctx, g, naming("removal of ", items, " from "+g.String()), items, c.sendRemove)
}

// The senders carry out one call; job is the ID of what goes on afterwards.

func (c *Client) sendSet(ctx context.Context, g Group, members []alicloud.Backend) (job string, err error) {
	switch {
	case g.product() != CLB:
		return c.api.SetMembers(ctx, string(g.product()), g.VServerGroupID, token(), members)
	case g.VServerGroupID == "":
		return "", c.api.SetDefault(ctx, g.LoadBalancerID, members)
	}
	return "", c.api.SetGroup(ctx, g.VServerGroupID, members)
}

func (c *Client) sendAdd(ctx context.Context, g Group, members []alicloud.Backend) (job string, err error) {
	switch {
	case g.product() != CLB:
		return c.api.AddMembers(ctx, string(g.product()), g.VServerGroupID, token(), members)
	case g.VServerGroupID == "":
		return "", c.api.AddDefault(ctx, g.LoadBalancerID, members)
	}
	return "", c.api.AddGroup(ctx, g.VServerGroupID, members)
}

func (c *Client) sendRemove(ctx context.Context, g Group, members []alicloud.Backend) (job string, err error) {
	switch {
	case g.product() != CLB:
		return c.api.RemoveMembers(ctx, string(g.product()), g.VServerGroupID, token(), members)
	case g.VServerGroupID == "":
		return "", c.api.RemoveDefault(ctx, g.LoadBalancerID, members)
	}
	return "", c.api.RemoveGroup(ctx, g.VServerGroupID, members)
}

// token is new for each logical write; the repetitions of one call share it. A
// run that was interrupted needs no token of before: it looks first.
func token() string { return rand.Text() }

func checkWeight(w int) error {
	if w < 0 || w > 100 {
		return fmt.Errorf("weight %d is not within 0 to 100", w)
	}
	return nil
}

type checkKey struct{}

// WithCheck returns a context under which writes to members, when they had to
// wait for the cloud's flow control or a busy balancer, call check immediately
// before they are sent: what the caller saw before, as the health of other
// members, may be minutes old by then. An error of check ends the write, nothing
// is written, and the error wraps it.
func WithCheck(ctx context.Context, check func(context.Context) error) context.Context {
	return context.WithValue(ctx, checkKey{}, check)
}

// errMoved: what a write was decided on is not so any more.
var errMoved = errors.New("the members have changed")

// A step is what a look at a member leads to.
type step int

const (
	done step = iota + 1
	write
)

// An item is what is wanted of one member: decide gets it as it is now, or nil,
// and wire makes the element of the write.
type item struct {
	b      Backend
	decide func(now *Backend) (step, string, error)
	wire   func(now *Backend) alicloud.Backend
}

// maxOpen is how often a write may end without an answer before that is an
// error.
const maxOpen = 3

// change brings the members of a group from what they are to what is wanted:
// look, write what need be, look again until it shows. CLB's writes have no
// token, so whenever it is open whether one took effect, it is the next look
// that decides, never a blind repetition.
func (c *Client) change(ctx context.Context, g Group, what string, items []item, send func(context.Context, Group, []alicloud.Backend) (string, error)) error {
	if err := g.check(); err != nil {
		return err
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	accepted := make([]bool, len(items))
	var open error // of the last write whose result is not known
	opened := 0

	// look says what is left to write; waiting: something is on its way.
	look := func(ctx context.Context) (todo []int, now []*Backend, state string, waiting bool, _ error) {
		members, unsettled, err := c.members(ctx, g)
		if err != nil {
			return nil, nil, "", false, err
		}
		now = make([]*Backend, len(items))
		for n, it := range items {
			if now[n], err = find(members, it.b); err != nil {
				return nil, nil, "", false, poll.Stop(err)
			}
			if now[n] != nil && unsettled[*now[n]] != "" {
				state, waiting = strings.ToLower(unsettled[*now[n]]), true
				continue
			}
			next, s, err := it.decide(now[n])
			switch {
			case err != nil:
				return nil, nil, "", false, poll.Stop(err)
			case next == done:
			case accepted[n]:
				state, waiting = s, true // written, and not shown yet
			default:
				todo, state = append(todo, n), s
			}
		}
		return todo, now, state, waiting, nil
	}

	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	return p.Until(ctx, what, func(ctx context.Context) (string, bool, error) {
		todo, now, state, waiting, err := look(ctx)
		if err != nil || waiting || len(todo) == 0 {
			return state, err == nil && !waiting, err
		}
		if opened >= maxOpen {
			return "", false, poll.Stop(fmt.Errorf("cannot make the %s: %w", what, open))
		}
		for chunk := range slices.Chunk(todo, g.limit()) {
			var members []alicloud.Backend
			for _, n := range chunk {
				members = append(members, items[n].wire(now[n]))
			}
			// A write that had to wait is decided upon anew.
			var moved, no error
			checked := alicloud.WithCheck(ctx, func(context.Context) error {
				if check, ok := ctx.Value(checkKey{}).(func(context.Context) error); ok {
					if no = check(context.WithValue(ctx, checkKey{}, nil)); no != nil {
						return no
					}
				}
				again, was, _, _, err := look(ctx)
				if moved = err; err != nil {
					return errMoved
				}
				for _, n := range chunk {
					if !slices.Contains(again, n) || was[n] != now[n] && (was[n] == nil || now[n] == nil || *was[n] != *now[n]) {
						return errMoved
					}
				}
				return nil
			})
			job, err := send(checked, g, members)
			if err == nil && job != "" {
				err = c.waitJob(ctx, g, job)
			}
			err = wrap(err)
			var e *Error
			switch {
			case no != nil:
				return "", false, poll.Stop(fmt.Errorf("cannot make the %s: %w", what, no))
			case errors.Is(err, errMoved):
				return state + ", and the members have changed", false, moved
			case err == nil:
				for _, n := range chunk {
					accepted[n] = true
				}
			case ctx.Err() != nil:
				return "", false, err
			case errors.As(err, &e) && e.Ambiguous:
				open = err
				opened++
				return state + ", and the last write is open", false, nil
			case errors.As(err, &e) && strings.HasPrefix(e.Code, "IncorrectStatus"):
				return state + ", and the group is busy with another change", false, nil
			default:
				// Somebody may have done it at the same moment.
				if todo, _, _, waiting, lookErr := look(ctx); lookErr == nil && !waiting && len(todo) == 0 {
					return "", true, nil
				}
				return "", false, poll.Stop(fmt.Errorf("cannot make the %s: %w", what, err))
			}
		}
		// Look at once: mostly it shows already.
		todo, _, state, waiting, err = look(ctx)
		return state, err == nil && !waiting && len(todo) == 0, err
	})
}

// limit is how many members one write to the group may name.
func (g Group) limit() int {
	switch g.product() {
	case ALB:
		return albMembers
	case NLB:
		return nlbMembers
	}
	return clbMembers
}

// waitJob blocks until a job of ALB or NLB has ended. One that failed is an
// error at once, with the cloud's code.
func (c *Client) waitJob(ctx context.Context, g Group, job string) error {
	p := poll.Poller{Interval: c.poll, Retryable: func(err error) bool { return retryable(wrap(err)) }}
	return p.Until(ctx, fmt.Sprintf("job %s of %s", job, g), func(ctx context.Context) (string, bool, error) {
		j, err := c.api.GetJob(ctx, string(g.product()), job)
		switch {
		case err != nil:
			return "", false, err
		case j.Status == "Failed":
			return "", false, poll.Stop(&JobError{Group: g, Job: job, Code: j.Code, Message: j.Message})
		}
		return strings.ToLower(j.Status), j.Status == "Succeeded", nil
	})
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
