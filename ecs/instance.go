package ecs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// States of an instance, as the cloud spells them.
const (
	StatusPending  = "Pending"
	StatusStarting = "Starting"
	StatusRunning  = "Running"
	StatusStopping = "Stopping"
	StatusStopped  = "Stopped"
)

// TokenTag is the key of the tag that every Create call of this package puts on
// what it makes, with the input's Token as its value. It is how a repeated call
// finds what an earlier one made after the cloud has forgotten the token.
const TokenTag = "upgradectl:token"

// An Instance is one ECS instance as DescribeInstances shows it.
type Instance struct {
	ID, Name, HostName string
	Status             string // StatusRunning and the like
	StoppedMode        string // "KeepCharging", "StopCharging" or "Not-applicable"
	Type               string // instance type, as ecs.g7.large
	ImageID            string
	Zone, Region       string
	VPC, VSwitch       string
	SecurityGroups     []string
	PrivateIPs         []string // in the VPC; the primary one first
	PublicIPs          []string // static public addresses and the EIP
	ENIs               []string // IDs of the network interfaces, primary first
	KeyPair            string
	ChargeType         string // "PostPaid" or "PrePaid"
	SpotStrategy       string
	Tags               map[string]string
	AutoReleaseTime    time.Time // UTC, to the minute; zero: none
	CreationTime       time.Time
	DeletionProtection bool
	OSName             string
	Locks              []string // reasons for which the cloud locked it, as "financial"

	InternetChargeType      string
	InternetMaxBandwidthOut int // Mbit/s; 0: no public address of its own
	InternetMaxBandwidthIn  int // Mbit/s
}

// A Lookup says which instance is meant. Set fields must all match.
type Lookup struct {
	ID        string
	Name      string // exact
	PrivateIP string // any private address in a VPC
}

// A Filter selects instances. Set fields must all match; the zero value selects
// every instance of the region.
type Filter struct {
	IDs  []string
	Tags map[string]string
}

// A Guard is the tag an instance must carry before DeleteInstance touches it.
type Guard struct{ TagKey, TagValue string }

// Progress is what a wait saw last. It is handed to the wait's callback, on the
// goroutine of the wait, each time something changed.
type Progress struct {
	Object    string        // "snapshot", "image", "instance" or "command"
	ID        string        // of the object
	Status    string        // the cloud's word for it
	Percent   int           // 0..100; -1 if the cloud gives none
	Remaining time.Duration // the cloud's estimate; 0 if it gives none
}

// GetInstance reads one instance. The error is ErrNotFound if there is none in
// the region.
func (c *Client) GetInstance(ctx context.Context, id string) (*Instance, error) {
	if id == "" {
		return nil, errors.New("cannot read an instance without an ID")
	}
	all, err := c.ListInstances(ctx, Filter{IDs: []string{id}})
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.ID == id {
			return &i, nil
		}
	}
	return nil, fmt.Errorf("%w in %s", notFound("instance", id), c.Region())
}

// FindInstance returns the one instance that matches l. None is ErrNotFound,
// several are an error that lists them.
func (c *Client) FindInstance(ctx context.Context, l Lookup) (*Instance, error) {
	if l == (Lookup{}) {
		return nil, errors.New("cannot find an instance without ID, name or private address")
	}
	q := alicloud.InstanceQuery{Name: l.Name, PrivateIP: l.PrivateIP}
	if l.ID != "" {
		q.IDs = []string{l.ID}
	}
	got, err := c.api.Instances(ctx, q)
	if err != nil {
		return nil, wrap(err)
	}
	var found []Instance
	for _, i := range got {
		// The cloud's name filter knows wildcards; only what was meant counts.
		if (l.ID == "" || i.ID == l.ID) && (l.Name == "" || i.Name == l.Name) && (l.PrivateIP == "" || slices.Contains(i.PrivateIPs, l.PrivateIP)) {
			found = append(found, Instance(i))
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, fmt.Errorf("%w in %s", notFound("instance", l.String()), c.Region())
	}
	var ids []string
	for _, i := range found {
		ids = append(ids, fmt.Sprintf("%s (%s, %s)", i.ID, i.Name, strings.Join(i.PrivateIPs, " ")))
	}
	return nil, fmt.Errorf("%d instances match %s: %s; give the ID of the one that is meant", len(found), l, strings.Join(ids, ", "))
}

// String lists what is looked for.
func (l Lookup) String() string {
	var parts []string
	for _, p := range [][2]string{{"", l.ID}, {"name ", l.Name}, {"address ", l.PrivateIP}} {
		if p[1] != "" {
			parts = append(parts, p[0]+p[1])
		}
	}
	return strings.Join(parts, ", ")
}

// ListInstances lists the instances that match f. IDs that do not exist are
// left out.
func (c *Client) ListInstances(ctx context.Context, f Filter) ([]Instance, error) {
	got, err := c.api.Instances(ctx, alicloud.InstanceQuery{IDs: f.IDs, Tags: f.Tags})
	if err != nil {
		return nil, wrap(err)
	}
	all := make([]Instance, 0, len(got))
	for _, i := range got {
		all = append(all, Instance(i))
	}
	return all, nil
}

// WaitInstance waits until an instance has the given status. It ends at once,
// with a StateError, if the instance is gone (a creation can fail that way long
// after the call), locked by the cloud, or at rest in a state that does not
// lead there. progress may be nil.
func (c *Client) WaitInstance(ctx context.Context, id, status string, progress func(Progress)) (*Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	var last *Instance
	var atRest time.Time // since when it is in a state that leads nowhere by itself
	started := time.Now()
	report := reporter(progress)
	err := c.poller().Until(ctx, "instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound) && last == nil:
			// A list may lag behind a creation.
			if time.Since(started) < c.lag() {
				return "not shown yet", false, nil
			}
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, Want: status})
		case errors.Is(err, ErrNotFound):
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, Want: status, Detail: fmt.Sprintf("it was %q before", last.Status)})
		case err != nil:
			return "", false, err
		}
		last = i
		report(Progress{Object: "instance", ID: id, Status: i.Status, Percent: -1})
		if i.Status == status {
			return i.Status, true, nil
		}
		if len(i.Locks) > 0 {
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, State: i.Status, Want: status, Detail: "locked: " + strings.Join(i.Locks, ", ")})
		}
		if i.Status == StatusRunning || i.Status == StatusStopped {
			// The status lags behind a call that was just accepted, and a guest
			// that shuts itself down is Running until it is off.
			if atRest.IsZero() {
				atRest = time.Now()
			}
			if time.Since(atRest) > max(100*c.poll, time.Minute) {
				return "", false, poll.Stop(&StateError{Object: "instance", ID: id, State: i.Status, Want: status})
			}
		} else {
			atRest = time.Time{}
		}
		return i.Status, false, nil
	})
	if err != nil {
		return nil, err
	}
	return last, nil
}

// StartInstance asks for the start of an instance; WaitInstance sees its end.
// An instance that is running or starting is left alone; one that is on its way
// to another state is waited for first.
func (c *Client) StartInstance(ctx context.Context, id string) error {
	return c.power(ctx, "start", id, c.api.StartInstance, StatusRunning, StatusStarting)
}

// StopInstance asks for an orderly shutdown that keeps the instance's place and
// addresses (KeepCharging, never forced); WaitInstance sees its end. An instance
// that is stopped or stopping is left alone; one that is on its way to another
// state, as one just created, is waited for first.
func (c *Client) StopInstance(ctx context.Context, id string) error {
	return c.power(ctx, "stop", id, c.api.StopInstance, StatusStopped, StatusStopping)
}

// power sends a call that leads to one of the states in goal. The call has no
// token, so the state decides: before it, and again whenever it was refused for
// the state or its result is open.
func (c *Client) power(ctx context.Context, verb, id string, call func(context.Context, string) error, goal ...string) error {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	open := 0
	return c.poller().Until(ctx, verb+" of instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return "", false, poll.Stop(err)
		case err != nil:
			return "", false, err
		case slices.Contains(goal, i.Status):
			return i.Status, true, nil
		case i.Status != StatusRunning && i.Status != StatusStopped:
			return i.Status, false, nil
		}
		err = wrap(call(ctx, id))
		var e *Error
		switch {
		case err == nil:
			return i.Status, true, nil
		case ctx.Err() != nil || !errors.As(err, &e):
			return "", false, err
		case e.class == alicloud.Precondition:
			return i.Status + ", " + e.Code, false, nil
		case e.Ambiguous && open < 2:
			open++
			return i.Status + ", " + e.Code, false, nil
		}
		return "", false, poll.Stop(err)
	})
}

// RebootInstance asks for an orderly reboot. The cloud's status may show nothing
// of it: prove a reboot by the host's boot ID. If the error is Ambiguous the
// reboot may be under way.
func (c *Client) RebootInstance(ctx context.Context, id string) error {
	return wrap(c.api.RebootInstance(ctx, id))
}

// DeleteInstance releases a stopped instance with the disks that go with it, and
// waits until it is gone. It refuses, with a GuardError, an instance that does
// not carry the tag g or that is paid in advance. One that is gone already is no
// error. Whether a balancer still sends traffic to it is the caller's to know.
func (c *Client) DeleteInstance(ctx context.Context, id string, g Guard) error {
	if g.TagKey == "" || g.TagValue == "" {
		return &GuardError{ID: id, Reason: "the call names no tag that marks it as ours"}
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	asked := false
	return c.poller().Until(ctx, "release of instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return "gone", true, nil
		case err != nil:
			return "", false, err
		case i.Tags[g.TagKey] != g.TagValue:
			return "", false, poll.Stop(&GuardError{ID: id, Reason: fmt.Sprintf("tag %s is %q, not %q", g.TagKey, i.Tags[g.TagKey], g.TagValue)})
		case i.ChargeType == "PrePaid":
			return "", false, poll.Stop(&GuardError{ID: id, Reason: "it is paid in advance"})
		case i.Status == StatusRunning:
			return "", false, poll.Stop(&GuardError{ID: id, Reason: "it is running; stop it first"})
		case asked || i.Status != StatusStopped:
			return i.Status, false, nil
		}
		err = wrap(c.api.DeleteInstance(ctx, id))
		switch {
		case errors.Is(err, ErrNotFound):
			return "gone", true, nil
		case classOf(err) == alicloud.Precondition:
			return i.Status + ", not ready to be released", false, nil
		case err != nil:
			return "", false, poll.Stop(err)
		}
		asked = true
		return i.Status, false, nil
	})
}

// SetAutoRelease makes the cloud release an instance by itself at a time (cut to
// the minute), or never if at is zero, and reads back that it is so.
func (c *Client) SetAutoRelease(ctx context.Context, id string, at time.Time) error {
	want := at.UTC().Truncate(time.Minute)
	if at.IsZero() {
		want = time.Time{}
	}
	if err := c.api.SetAutoRelease(ctx, id, want); err != nil {
		return wrap(err)
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.wait, time.Minute))
	defer cancel()
	return c.poller().Until(ctx, "release time of instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		if err != nil {
			return "", false, err
		}
		state := "none"
		if !i.AutoReleaseTime.IsZero() {
			state = i.AutoReleaseTime.Format(time.RFC3339)
		}
		return state, i.AutoReleaseTime.Equal(want), nil
	})
}
