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

// An Instance is one ECS instance as DescribeInstances shows it. The JSON form
// is what `upgradectl ecs instance list --json` prints.
type Instance struct {
	ID                 string            `json:"id"`
	Name               string            `json:"name"`
	HostName           string            `json:"host_name"`
	Status             string            `json:"status"`                 // StatusRunning and the like
	StoppedMode        string            `json:"stopped_mode,omitempty"` // "KeepCharging", "StopCharging" or "Not-applicable"
	Type               string            `json:"type"`                   // instance type, as ecs.g7.large
	ImageID            string            `json:"image_id"`
	Zone               string            `json:"zone"`
	Region             string            `json:"region"`
	VPC                string            `json:"vpc"`
	VSwitch            string            `json:"vswitch"`
	SecurityGroups     []string          `json:"security_groups"`
	PrivateIPs         []string          `json:"private_ips"`          // in the VPC; the primary one first
	PublicIPs          []string          `json:"public_ips,omitempty"` // static public addresses and the EIP
	ENIs               []string          `json:"enis,omitempty"`       // IDs of the network interfaces, primary first
	KeyPair            string            `json:"key_pair,omitempty"`
	ChargeType         string            `json:"charge_type"` // "PostPaid" or "PrePaid"
	SpotStrategy       string            `json:"spot_strategy,omitempty"`
	Tags               map[string]string `json:"tags,omitempty"`
	AutoReleaseTime    time.Time         `json:"auto_release_time,omitzero"` // UTC, to the minute; zero: none
	CreationTime       time.Time         `json:"creation_time,omitzero"`
	DeletionProtection bool              `json:"deletion_protection"`
	OSName             string            `json:"os_name,omitempty"`
	Locks              []string          `json:"locks,omitempty"` // reasons for which the cloud locked it, as "financial"

	InternetChargeType      string `json:"internet_charge_type,omitempty"`
	InternetMaxBandwidthOut int    `json:"internet_max_bandwidth_out"` // Mbit/s; 0: no public address of its own
	InternetMaxBandwidthIn  int    `json:"internet_max_bandwidth_in"`  // Mbit/s

	VCPU                int       `json:"vcpu,omitempty"`
	MemoryMiB           int       `json:"memory_mib,omitempty"`
	CPUCores            int       `json:"cpu_cores,omitempty"` // physical ones
	CPUThreadsPerCore   int       `json:"cpu_threads_per_core,omitempty"`
	CPUNuma             string    `json:"cpu_numa,omitempty"`
	CPUTopology         string    `json:"cpu_topology,omitempty"`
	OSType              string    `json:"os_type,omitempty"`     // "linux" or "windows"
	ExpiredTime         time.Time `json:"expired_time,omitzero"` // of a PrePaid instance
	EIP                 string    `json:"eip,omitempty"`         // also among PublicIPs
	EIPAllocationID     string    `json:"eip_allocation_id,omitempty"`
	SecondaryENIs       []string  `json:"secondary_enis,omitempty"`
	SecondaryIPs        []string  `json:"secondary_ips,omitempty"` // private ones besides the first of each interface
	IPv6                []string  `json:"ipv6,omitempty"`
	CreditSpecification string    `json:"credit_specification,omitempty"` // of burstable types: "Standard" or "Unlimited"
	DeploymentSetID     string    `json:"deployment_set_id,omitempty"`
	DedicatedHostID     string    `json:"dedicated_host_id,omitempty"`
	HPCClusterID        string    `json:"hpc_cluster_id,omitempty"`
	ResourceGroupID     string    `json:"resource_group_id,omitempty"`
	MetadataEndpoint    string    `json:"metadata_endpoint,omitempty"` // "enabled" or "disabled"
	MetadataTokens      string    `json:"metadata_tokens,omitempty"`   // "optional" or "required" (IMDSv2 only)
	MetadataHopLimit    int       `json:"metadata_hop_limit,omitempty"`

	// Read by GetDetails only; DescribeInstances has neither.
	RAMRole       string `json:"ram_role,omitempty"`
	UserDataBytes int    `json:"user_data_bytes,omitempty"` // its contents are never kept
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
	Object    string        // "snapshot", "image", "instance", "disk" or "command"
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

// GetDetails reads an instance with everything that decides how it can be
// copied: its disks, the system disk first, its RAM role and how much user data
// it has.
func (c *Client) GetDetails(ctx context.Context, id string) (*Instance, []Disk, error) {
	i, err := c.GetInstance(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	disks, err := c.ListDisks(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if i.RAMRole, err = c.api.RAMRole(ctx, id); err != nil {
		return nil, nil, wrap(err)
	}
	data, err := c.api.UserData(ctx, id)
	if err != nil {
		return nil, nil, wrap(err)
	}
	i.UserDataBytes = len(data)
	return i, disks, nil
}

// WaitInstance waits until an instance has the given status. It ends at once,
// with a StateError, if the instance is gone (a creation can fail that way long
// after the call), locked by the cloud, or at rest in a state that does not
// lead there. Many waits of one Client share their looks. progress may be nil.
func (c *Client) WaitInstance(ctx context.Context, id, status string, progress func(Progress)) (*Instance, error) {
	if id == "" {
		return nil, errors.New("cannot wait for an instance without an ID")
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	var last *Instance
	var atRest time.Time // since when it is in a state that leads nowhere by itself
	started := time.Now()
	report := reporter(progress)
	err := c.instances.Until(ctx, "instance "+id, []string{id}, func(seen map[string]Instance) (string, bool, error) {
		i, ok := seen[id]
		switch {
		case !ok && last == nil:
			// A list may lag behind a creation.
			if time.Since(started) < c.lag() {
				return "not shown yet", false, nil
			}
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, Want: status, never: c.Region()})
		case !ok:
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, Want: status, Detail: fmt.Sprintf("it was %q before", last.Status)})
		}
		last = &i
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
		return nil, c.asked("DescribeInstances", err)
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
	return c.power(ctx, "stop", id, func(ctx context.Context, id string) error { return c.api.StopInstance(ctx, id, false) }, StatusStopped, StatusStopping)
}

// ForceStopInstance cuts an instance's power, as for a guest that hangs: what it
// has not written is lost. Its place and addresses are kept. Otherwise it is as
// StopInstance, except that it does not leave alone an instance that is
// stopping: that may be what hangs.
func (c *Client) ForceStopInstance(ctx context.Context, id string) error {
	return c.power(ctx, "forced stop", id, func(ctx context.Context, id string) error { return c.api.StopInstance(ctx, id, true) }, StatusStopped)
}

// power sends a call that leads to one of the states in goal. The call has no
// token, so the state decides: before it, and again whenever it was refused for
// the state or its result is open.
func (c *Client) power(ctx context.Context, verb, id string, call func(context.Context, string) error, goal ...string) error {
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
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

// RebootAndWait reboots an instance and waits until bootID, which asks the host
// for /proc/sys/kernel/random/boot_id, gives another one than before; it returns
// that. While the host is away bootID fails, which is borne until ctx ends or 15
// minutes have passed. The call is sent once, whatever comes back.
func (c *Client) RebootAndWait(ctx context.Context, id string, bootID func(context.Context) (string, error)) (string, error) {
	before, err := c.readBootID(ctx, id, bootID)
	if err != nil {
		return "", fmt.Errorf("cannot reboot instance %s: a reboot could not be proved: %w", id, err)
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	err = c.poller().Until(ctx, "reboot of instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return "", false, poll.Stop(err)
		case err != nil:
			return "", false, err
		case i.Status == StatusStopped || i.Status == StatusStopping:
			return "", false, poll.Stop(&StateError{Object: "instance", ID: id, State: i.Status, Want: StatusRunning, Detail: "it cannot be rebooted"})
		case i.Status != StatusRunning:
			return i.Status, false, nil
		}
		err = c.RebootInstance(ctx, id)
		var e *Error
		switch {
		case err == nil, errors.As(err, &e) && e.Ambiguous:
			return "asked for", true, nil
		case errors.As(err, &e) && e.class == alicloud.Precondition:
			return i.Status + ", " + e.Code, false, nil // an earlier one is not over
		}
		return "", false, settle(ctx, err)
	})
	if err != nil {
		return "", err
	}
	after := ""
	err = c.poller().Until(ctx, "reboot of instance "+id, func(ctx context.Context) (string, bool, error) {
		now, err := bootID(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", false, err // the end of the wait says nothing about the host
		case err != nil:
			return "no answer", false, nil
		case now == before:
			return "still up since before the reboot", false, nil
		case now == "":
			return "no boot ID", false, nil
		}
		after = now
		return "rebooted", true, nil
	})
	return after, err
}

// readBootID reads the boot ID of a host that should be up. An earlier reboot may
// be barely over, so two minutes are given.
func (c *Client) readBootID(ctx context.Context, id string, bootID func(context.Context) (string, error)) (before string, err error) {
	ctx, cancel := alicloud.WithLimit(ctx, min(c.wait, 2*time.Minute))
	defer cancel()
	err = c.poller().Until(ctx, "boot ID of instance "+id, func(ctx context.Context) (string, bool, error) {
		got, err := bootID(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", false, err
		case err != nil:
			return err.Error(), false, nil
		}
		before = got
		return "empty", got != "", nil
	})
	return before, err
}

// DeleteInstance releases a stopped instance with the disks that go with it, and
// waits until it is gone. It refuses, with a GuardError, an instance that does
// not carry the tag g or that is paid in advance. One that is gone already is no
// error. Whether a balancer still sends traffic to it is the caller's to know.
func (c *Client) DeleteInstance(ctx context.Context, id string, g Guard) error {
	if g.TagKey == "" || g.TagValue == "" {
		return &GuardError{ID: id, Reason: "the call names no tag that marks it as ours"}
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
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
	ctx, cancel := alicloud.WithLimit(ctx, min(c.wait, time.Minute))
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
