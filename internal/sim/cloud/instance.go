package cloud

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The states of an instance, as the API spells them.
const (
	pending  = "Pending"
	starting = "Starting"
	running  = "Running"
	stopping = "Stopping"
	stopped  = "Stopped"
)

// maxUserData is how much user data an instance takes, before base64.
const maxUserData = 32 << 10

// An Instance is one ECS instance, as AddInstance takes it.
type Instance struct {
	ID, Name, HostName string
	Description        string
	Status             string // Running (default) or Stopped
	Type               string // default ecs.g6.large
	ImageID            string // default: an image that nobody can see any more
	Zone, VPC, VSwitch string // default REGION-h, vpc-sim, vsw-sim
	PrivateIP          string
	PublicIP           string
	ENI, MAC           string // default: made up
	SecurityGroups     []string
	KeyPair            string
	RAMRole            string
	UserData           string // base64, as the API has it
	ChargeType         string // PostPaid (default) or PrePaid
	Tags               map[string]string
	DeletionProtection bool
	// InternetMaxBandwidthOut is in Mbit/s.
	InternetMaxBandwidthOut int
	// Disks default to one system disk of 40 GiB.
	Disks []Disk
	// Details are parameters of RunInstances that are only shown again, by
	// their names: HttpTokens, DeploymentSetId, CpuOptions.Core and the like.
	Details map[string]string
	// IPv6 and SecondaryIPs are further addresses of the primary interface.
	IPv6, SecondaryIPs []string
	// ENIs are further interfaces.
	ENIs []ENI
	// Locks are the reasons why the instance is locked: security, financial, …
	Locks []string
}

// An ENI is a network interface that an instance has besides its first.
type ENI struct {
	ID, MAC, PrivateIP string
	SecondaryIPs       []string
}

// instance is an Instance (without its Disks: Cloud.disks has them) and what
// goes on with it.
type instance struct {
	Instance
	seq     int64
	created bool // by RunInstances

	createdAt, startedAt time.Time
	stoppedMode          string // KeepCharging, StopCharging, Not-applicable
	rebooting            bool   // from RebootInstance until it is Running again
	autoRelease          time.Time
	autoTimer            *time.Timer

	ops     chan struct{} // holds one value while a call into Machines is made
	machine bool          // Machines knows it; guarded by ops
	made    chan struct{} // closed when CreateInstance has made the machine; nil for others
	ctx     context.Context
	cancel  context.CancelFunc // ends with the instance
}

func (i *instance) number() int64 { return i.seq }

// idle reports whether the instance is at rest in the given state.
func (i *instance) idle(status string) bool { return i.Status == status && !i.rebooting }

// noMachines stands in for Config.Machines.
type noMachines struct{}

func (noMachines) Snapshot(string) (string, error) { return "", nil }
func (noMachines) Create(Machine) error            { return nil }
func (noMachines) Start(string) error              { return nil }
func (noMachines) Stop(string) error               { return nil }
func (noMachines) Reboot(string) error             { return nil }
func (noMachines) Delete(string) error             { return nil }
func (noMachines) Restore(string, string) error    { return nil }
func (noMachines) RunCommand(context.Context, string, string) (int, []byte, error) {
	return 0, nil, errNoMachine
}

// AddInstance adds an instance that exists before the story begins. It panics
// when the ID or the private address is missing or taken.
func (c *Cloud) AddInstance(in Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.ID == "" || c.instances[in.ID] != nil {
		panic(fmt.Sprintf("cloud: instance ID %q is empty or taken", in.ID))
	}
	if _, err := netip.ParseAddr(in.PrivateIP); err != nil || c.byIP(in.PrivateIP) != nil {
		panic(fmt.Sprintf("cloud: private address %q of %s is invalid or taken", in.PrivateIP, in.ID))
	}
	if len(in.Disks) == 0 {
		in.Disks = []Disk{{}}
	}
	if len(in.SecurityGroups) == 0 {
		in.SecurityGroups = []string{"sg-sim"}
	}
	in.Zone = cmp.Or(in.Zone, c.cfg.Region+"-h")
	in.VSwitch = cmp.Or(in.VSwitch, "vsw-sim")
	in.ImageID = cmp.Or(in.ImageID, "m-bp1sourceimagegone0")
	in.Status = cmp.Or(in.Status, running)
	if in.Status != running && in.Status != stopped {
		panic(fmt.Sprintf("cloud: status %q of %s is neither Running nor Stopped", in.Status, in.ID))
	}
	in.VPC = cmp.Or(in.VPC, "vpc-sim")
	c.plugIn(in)
	i := c.insert(in)
	i.machine = true
	for n, d := range in.Disks {
		d.Type = cmp.Or(d.Type, map[bool]string{true: "system", false: "data"}[n == 0])
		d.Device = cmp.Or(d.Device, deviceName(n))
		d.Category = cmp.Or(d.Category, "cloud_essd")
		d.Size = cmp.Or(d.Size, 40)
		c.insertDisk(i, d)
	}
}

// insert makes the bookkeeping of an instance. c.mu is held.
func (c *Cloud) insert(in Instance) *instance {
	now := time.Now()
	i := &instance{Instance: in, seq: c.next(), createdAt: now, stoppedMode: "Not-applicable", ops: make(chan struct{}, 1)}
	i.Disks = nil
	i.Tags = maps.Clone(in.Tags)
	i.SecurityGroups = slices.Clone(in.SecurityGroups)
	i.Details = maps.Clone(in.Details)
	i.ctx, i.cancel = context.WithCancel(c.ctx)
	if in.Status == running {
		i.startedAt = now
	}
	if in.Status == stopped {
		i.stoppedMode = "KeepCharging"
	}
	i.Name = cmp.Or(i.Name, i.ID)
	i.HostName = cmp.Or(i.HostName, i.Name)
	i.Type = cmp.Or(i.Type, "ecs.g6.large")
	i.VPC = cmp.Or(i.VPC, "vpc-sim")
	i.ChargeType = cmp.Or(i.ChargeType, "PostPaid")
	i.ENI = cmp.Or(i.ENI, fmt.Sprintf("eni-bp1%017d", i.seq))
	i.MAC = cmp.Or(i.MAC, fmt.Sprintf("00:16:3e:%02x:%02x:%02x", i.seq>>16&0xff, i.seq>>8&0xff, i.seq&0xff))
	c.instances[i.ID] = i
	c.freeIPs = slices.DeleteFunc(c.freeIPs, func(ip string) bool { return ip == i.PrivateIP })
	return i
}

// byIP returns the instance that has a private address. c.mu is held.
func (c *Cloud) byIP(ip string) *instance {
	for _, i := range c.instances {
		if i.PrivateIP == ip {
			return i
		}
	}
	return nil
}

// InstanceIP returns the private address of an instance, "" when there is no
// such instance.
func (c *Cloud) InstanceIP(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.instances[id]; i != nil {
		return i.PrivateIP
	}
	return ""
}

// InstanceStatus returns Pending, Starting, Running, Stopping or Stopped, and
// "" when there is no such instance.
func (c *Cloud) InstanceStatus(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.instances[id]; i != nil {
		return i.Status
	}
	return ""
}

// PoweredOff tells the cloud that the guest switched itself off (shutdown -h):
// a Running instance becomes Stopped, without a call into Machines.
func (c *Cloud) PoweredOff(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.instances[id]; i != nil && i.idle(running) {
		i.Status, i.stoppedMode = stopped, "KeepCharging"
	}
}

// instance returns the instance a request names. c.mu is held.
func (c *Cloud) instance(id string) (*instance, *apiError) {
	if i := c.instances[id]; i != nil && !c.unseen(i) {
		return i, nil
	}
	return nil, fail(404, "InvalidInstanceId.NotFound", "The specified InstanceId %q does not exist.", id)
}

// hidden reports whether what a request made at a moment cannot be seen yet.
func (c *Cloud) hidden(createdAt time.Time) bool {
	return c.cfg.VisibleAfter > 0 && time.Since(createdAt) < c.scaled(c.cfg.VisibleAfter)
}

func (c *Cloud) unseen(i *instance) bool { return i.created && c.hidden(i.createdAt) }

// locked refuses operations on an instance that is locked for security.
func (i *instance) locked() *apiError {
	if slices.Contains(i.Locks, "security") {
		return fail(403, "InstanceLockedForSecurity", "The instance %s is locked due to security.", i.ID)
	}
	return nil
}

// machines runs f, one call into Machines, after the calls for i before it.
func (c *Cloud) machines(i *instance, f func(Machines) error) error {
	select {
	case i.ops <- struct{}{}:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	defer func() { <-i.ops }()
	return f(c.cfg.Machines)
}

// then plans f for an instance: it runs after d, without the lock, unless the
// instance is gone by then. c.mu is held by the caller.
func (c *Cloud) then(i *instance, d time.Duration, f func()) {
	c.after(d, func() {
		if i.ctx.Err() == nil {
			f()
		}
	})
}

// set changes an instance under the lock, unless it is gone.
func (c *Cloud) set(i *instance, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i.ctx.Err() == nil {
		f()
	}
}

func incorrectStatus(i *instance) *apiError {
	if i.Status == pending {
		return fail(403, "IncorrectInstanceStatus.Initializing", "The specified instance status does not support this operation: %s is Pending.", i.ID)
	}
	return fail(403, "IncorrectInstanceStatus", "The current status of the resource does not support this operation: %s is %s.", i.ID, i.Status)
}

func dryRun(q *call) *apiError {
	if q.is("DryRun") {
		return fail(400, "DryRunOperation", "Request validation has been passed with DryRun flag set.")
	}
	return nil
}

func (c *Cloud) startInstance(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.startable(q.str("InstanceId"))
	if err == nil {
		err = dryRun(q)
	}
	if err != nil {
		return nil, err
	}
	c.begin(q, i)
	return obj{}, nil
}

// startable returns an instance that can be started. c.mu is held.
func (c *Cloud) startable(id string) (*instance, *apiError) {
	i, err := c.instance(id)
	if err != nil {
		return nil, err
	}
	if !i.idle(stopped) {
		return nil, incorrectStatus(i)
	}
	if err := i.locked(); err != nil {
		return nil, err
	}
	for _, d := range c.disksOf(i) {
		if d.state != "" {
			return nil, fail(403, "IncorrectDiskStatus", "The current disk status does not support this operation: %s is %s.", d.ID, d.state)
		}
	}
	if i.stoppedMode == "StopCharging" { // it gave its capacity back
		return i, c.inStock(i.Type, i.Zone)
	}
	return i, nil
}

// begin starts an instance. c.mu is held.
func (c *Cloud) begin(q *call, i *instance) {
	i.Status = starting
	c.powerOn(i, c.scaled(c.cfg.StartTakes), q.takeFate())
}

// powerOn brings a Starting instance to Running after d: the guest begins to
// boot only then, so Running does not mean that anything answers. c.mu is
// held.
func (c *Cloud) powerOn(i *instance, d time.Duration, fate FaultKind) {
	if fate == FaultStuck {
		return
	}
	c.then(i, d, func() {
		if fate == FaultFails {
			c.set(i, func() { i.Status, i.stoppedMode = stopped, "KeepCharging" })
			return
		}
		if i.made != nil {
			select {
			case <-i.made:
			case <-i.ctx.Done():
				return
			}
		}
		err := c.machines(i, func(m Machines) error { return m.Start(i.ID) })
		c.set(i, func() {
			if err != nil {
				i.Status, i.stoppedMode = stopped, "KeepCharging"
				return
			}
			i.Status, i.startedAt, i.stoppedMode = running, time.Now(), "Not-applicable"
		})
	})
}

func (c *Cloud) stopInstance(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, mode, err := c.stoppable(q, q.str("InstanceId"))
	if err == nil {
		err = dryRun(q)
	}
	if err != nil {
		return nil, err
	}
	c.end(q, i, mode)
	return obj{}, nil
}

// stoppable returns an instance that can be stopped, and how. c.mu is held.
func (c *Cloud) stoppable(q *call, id string) (*instance, string, *apiError) {
	i, err := c.instance(id)
	if err != nil {
		return nil, "", err
	}
	mode := cmp.Or(q.str("StoppedMode"), "KeepCharging")
	if mode != "KeepCharging" && mode != "StopCharging" {
		return nil, "", refuse(400, "InvalidParameter", "The specified StoppedMode %q is not valid.", mode)
	}
	if mode == "StopCharging" && i.ChargeType != "PostPaid" {
		return nil, "", fail(403, "InvalidInstanceId.NotSupport", "The instance %s does not support StopCharging.", i.ID)
	}
	if !i.idle(running) {
		return nil, "", incorrectStatus(i)
	}
	return i, mode, i.locked()
}

// end stops an instance. c.mu is held.
func (c *Cloud) end(q *call, i *instance, mode string) {
	i.Status = stopping
	fate := q.takeFate()
	if fate == FaultStuck {
		return
	}
	c.then(i, 0, func() {
		var err error
		if fate != FaultFails {
			err = c.machines(i, func(m Machines) error { return m.Stop(i.ID) })
		}
		c.set(i, func() {
			if err != nil {
				i.Status = running
				return
			}
			c.then(i, c.scaled(c.cfg.StopTakes), func() {
				c.set(i, func() {
					if fate == FaultFails {
						i.Status = running
						return
					}
					i.Status, i.stoppedMode = stopped, mode
					if mode == "StopCharging" {
						i.PublicIP = "" // the economical mode gives the address back
					}
				})
			})
		})
	})
}

func (c *Cloud) rebootInstance(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if !i.idle(running) {
		return nil, incorrectStatus(i)
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	// The guest goes down at once; Status says Running for a while longer.
	i.rebooting = true
	fate := q.takeFate()
	c.then(i, 0, func() {
		err := c.machines(i, func(m Machines) error { return m.Reboot(i.ID) })
		if err != nil {
			c.set(i, func() { i.rebooting = false })
			return
		}
		c.set(i, func() {
			c.then(i, c.scaled(c.cfg.RebootLag), func() {
				c.set(i, func() {
					i.Status = starting
					if fate == FaultStuck {
						return
					}
					c.then(i, c.scaled(c.cfg.StartTakes), func() {
						c.set(i, func() { i.Status, i.rebooting, i.startedAt = running, false, time.Now() })
					})
				})
			})
		})
	})
	return obj{}, nil
}

func (c *Cloud) deleteInstance(q *call) (obj, *apiError) {
	return c.deleteAll(q, q.str("InstanceId"))
}

// deleteAll releases instances, all or none.
func (c *Cloud) deleteAll(q *call, ids ...string) (obj, *apiError) {
	member, err := func() (member bool, _ *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		var all []*instance
		for _, id := range ids {
			i, err := c.deletableInstance(q, id)
			if err != nil {
				return false, err
			}
			all = append(all, i)
		}
		if err := dryRun(q); err != nil {
			return false, err
		}
		for _, i := range all {
			member = c.release(i) || member
		}
		return member, nil
	}()
	if err != nil {
		return nil, err
	}
	if member {
		c.changed()
	}
	return obj{}, nil
}

// deletableInstance returns an instance that can be released. c.mu is held.
func (c *Cloud) deletableInstance(q *call, id string) (*instance, *apiError) {
	i, err := c.instance(id)
	if err != nil {
		return nil, err
	}
	force := q.is("Force") || q.is("ForceStop")
	if err := i.locked(); err != nil {
		return nil, err
	}
	switch {
	case i.ChargeType != "PostPaid" && !q.is("TerminateSubscription"):
		return nil, fail(403, "ChargeTypeViolation", "The operation is not permitted due to charge type of the instance.")
	case i.DeletionProtection:
		return nil, fail(403, "InvalidOperation.DeletionProtection", "The operation is not allowed due to deletion protection.")
	case i.Status == pending, i.Status == starting, i.Status == stopping, i.Status == running && !force:
		return nil, incorrectStatus(i)
	}
	for _, b := range c.balancers {
		if b.has(i) && time.Now().Before(b.busyUntil) {
			return nil, fail(403, "DependencyViolation.SLBConfiguring", "The instance is being configured by the load balancer %s.", b.ID)
		}
	}
	return i, nil
}

// release ends an instance at once, as DeleteInstance and its AutoReleaseTime
// do, and reports whether a balancer lost a member by it. c.mu is held.
func (c *Cloud) release(i *instance) (member bool) {
	i.cancel()
	c.stop(i.autoTimer)
	delete(c.instances, i.ID)
	if slices.Contains(c.cfg.FreeIPs, i.PrivateIP) {
		c.freeIPs = append(c.freeIPs, i.PrivateIP)
	}
	for _, d := range sorted(c.disks) {
		if d.instance != i.ID {
			continue
		}
		if d.KeepAfterInstance {
			d.instance, d.Device = "", ""
		} else {
			delete(c.disks, d.ID)
		}
	}
	for _, b := range c.balancers {
		member = b.forget(i) || member
	}
	member = c.forgetServerGroups(i) || member
	c.after(0, func() {
		_ = c.machines(i, func(m Machines) error {
			if !i.machine {
				return nil
			}
			i.machine = false
			return m.Delete(i.ID) // its error has nobody to go to: for the API the instance is gone
		})
	})
	return member
}

func (c *Cloud) modifyInstanceAutoReleaseTime(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	at, err := releaseTime(q.str("AutoReleaseTime"))
	if err != nil {
		return nil, err
	}
	if i.ChargeType != "PostPaid" {
		return nil, fail(403, "ChargeTypeViolation", "The operation is not permitted due to charge type of the instance.")
	}
	c.setAutoRelease(i, at)
	return obj{}, nil
}

// releaseTime reads an AutoReleaseTime: minutes count, seconds are cut off; it
// lies between 30 minutes and three years ahead. No time clears it.
func releaseTime(v string) (time.Time, *apiError) {
	if v == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(stampSeconds, v)
	if err != nil {
		return time.Time{}, refuse(400, "InvalidAutoReleaseTime.Malformed", "The specified AutoReleaseTime %q is not yyyy-MM-ddTHH:mm:ssZ.", v)
	}
	now := time.Now()
	at = at.Truncate(time.Minute)
	if at.Before(now.Add(30*time.Minute).Truncate(time.Minute)) || at.After(now.AddDate(3, 0, 0)) {
		return time.Time{}, fail(400, "InvalidAutoReleaseTime.Malformed", "The specified AutoReleaseTime %q is not between 30 minutes and 3 years ahead.", v)
	}
	return at, nil
}

// setAutoRelease plans the release of an instance. DeletionProtection does not
// hold it up. c.mu is held.
func (c *Cloud) setAutoRelease(i *instance, at time.Time) {
	c.stop(i.autoTimer)
	i.autoRelease, i.autoTimer = at, nil
	if at.IsZero() {
		return
	}
	i.autoTimer = c.after(time.Until(at), func() {
		c.mu.Lock()
		if c.instances[i.ID] != i || !i.autoRelease.Equal(at) {
			c.mu.Unlock()
			return
		}
		member := c.release(i)
		c.mu.Unlock()
		if member {
			c.changed()
		}
	})
}

func (c *Cloud) modifyInstanceAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	groups := q.list("SecurityGroupIds")
	if err := c.knownGroups(groups); err != nil {
		return nil, err
	}
	if q.has("UserData") {
		if i.Status != stopped {
			return nil, incorrectStatus(i)
		}
		if _, err := userData(q.str("UserData")); err != nil {
			return nil, err
		}
		i.UserData = q.str("UserData")
	}
	i.Name = cmp.Or(q.str("InstanceName"), i.Name)
	i.Description = cmp.Or(q.str("Description"), i.Description)
	i.HostName = cmp.Or(q.str("HostName"), i.HostName)
	if v := q.str("CreditSpecification"); v != "" {
		i.Details = maps.Clone(i.Details)
		if i.Details == nil {
			i.Details = map[string]string{}
		}
		i.Details["CreditSpecification"] = v
	}
	if q.has("DeletionProtection") {
		i.DeletionProtection = q.is("DeletionProtection")
	}
	if len(groups) > 0 {
		i.SecurityGroups = groups
	}
	return obj{}, nil
}

func (c *Cloud) describeInstances(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	ids, byID := q.ids("InstanceIds")
	private, byPrivate := q.ids("PrivateIpAddresses")
	public, byPublic := q.ids("PublicIpAddresses")
	if byPrivate && q.str("InstanceNetworkType") != "vpc" {
		return nil, refuse(400, "InvalidParameter", "PrivateIpAddresses is a filter of InstanceNetworkType=vpc.")
	}
	for _, a := range q.list("AdditionalAttributes") {
		if !oneOf(a, "META_OPTIONS,DDH_CLUSTER,NETWORK_PRIMARY_ENI_IP,CPU_OPTIONS_TOPOLOGY_TYPE") {
			return nil, refuse(400, "InvalidParameter", "The AdditionalAttributes value %q is not simulated.", a)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*instance
	for _, i := range sorted(c.instances) {
		if c.unseen(i) || byID && !slices.Contains(ids, i.ID) ||
			byPrivate && !slices.Contains(private, i.PrivateIP) ||
			byPublic && !slices.Contains(public, i.PublicIP) ||
			!oneOf("vpc", q.str("InstanceNetworkType")) ||
			!like(i.Name, q.str("InstanceName")) ||
			!oneOf(i.Status, q.str("Status")) ||
			!oneOf(i.ImageID, q.str("ImageId")) ||
			!oneOf(i.VPC, q.str("VpcId")) ||
			!oneOf(i.VSwitch, q.str("VSwitchId")) ||
			!oneOf(i.Zone, q.str("ZoneId")) ||
			!oneOf(i.Type, q.str("InstanceType")) ||
			!oneOf(i.ChargeType, q.str("InstanceChargeType")) ||
			!oneOf(i.KeyPair, q.str("KeyPairName")) ||
			q.has("SecurityGroupId") && !slices.Contains(i.SecurityGroups, q.str("SecurityGroupId")) ||
			!tagged(i.Tags, filter) {
			continue
		}
		found = append(found, i)
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, c.instanceView(i))
	}
	reply["Instances"] = obj{"Instance": list}
	return reply, nil
}

// instanceView is an instance as DescribeInstances shows it. c.mu is held.
func (c *Cloud) instanceView(i *instance) obj {
	cpu, memory := size(i.Type)
	hop := 1
	if n := i.Details["HttpPutResponseHopLimit"]; n != "" {
		_, _ = fmt.Sscan(n, &hop)
	}
	groupNo := 0
	if n := i.Details["DeploymentSetGroupNo"]; n != "" {
		_, _ = fmt.Sscan(n, &groupNo)
	}
	var core, threads int
	_, _ = fmt.Sscan(i.Details["CpuOptions.Core"], &core)
	_, _ = fmt.Sscan(i.Details["CpuOptions.ThreadsPerCore"], &threads)
	return obj{
		"InstanceId": i.ID, "InstanceName": i.Name, "HostName": i.HostName, "Description": i.Description,
		"Status": i.Status, "StoppedMode": i.stoppedMode,
		"RegionId": c.cfg.Region, "ZoneId": i.Zone, "InstanceNetworkType": "vpc",
		"InstanceType": i.Type, "InstanceTypeFamily": i.Type[:max(strings.LastIndexByte(i.Type, '.'), 0)],
		"Cpu": cpu, "CPU": cpu, "Memory": memory, "IoOptimized": true,
		"ImageId": i.ImageID, "OSName": c.osName(i), "OSNameEn": c.osName(i), "OSType": "linux",
		"CreationTime":       stamp(i.createdAt, stampMinutes),
		"StartTime":          stamp(i.startedAt, stampMinutes),
		"AutoReleaseTime":    stamp(i.autoRelease, stampMinutes),
		"ExpiredTime":        map[bool]string{true: "2099-12-31T15:59Z", false: stamp(i.createdAt.AddDate(1, 0, 0), stampMinutes)}[i.ChargeType == "PostPaid"],
		"InstanceChargeType": i.ChargeType, "InternetChargeType": cmp.Or(i.Details["InternetChargeType"], "PayByTraffic"),
		"InternetMaxBandwidthIn": 200, "InternetMaxBandwidthOut": i.InternetMaxBandwidthOut,
		"SpotStrategy": cmp.Or(i.Details["SpotStrategy"], "NoSpot"), "KeyPairName": i.KeyPair,
		"DeletionProtection": i.DeletionProtection, "DeviceAvailable": true, "Recyclable": false,
		"DeploymentSetId": i.Details["DeploymentSetId"], "DeploymentSetGroupNo": groupNo,
		"ResourceGroupId": i.Details["ResourceGroupId"], "HpcClusterId": i.Details["HpcClusterId"],
		"CreditSpecification": i.Details["CreditSpecification"],
		"SerialNumber":        fmt.Sprintf("51d1353b-22bf-4567-a176-%012x", i.seq),
		"VlanId":              "", "ClusterId": "", "GPUAmount": 0, "GPUSpec": "",
		"SecurityGroupIds": obj{"SecurityGroupId": orEmpty(i.SecurityGroups)},
		"VpcAttributes": obj{"VpcId": i.VPC, "VSwitchId": i.VSwitch, "NatIpAddress": "",
			"PrivateIpAddress": obj{"IpAddress": []string{i.PrivateIP}}},
		"PublicIpAddress":   obj{"IpAddress": ifAny(i.PublicIP)},
		"InnerIpAddress":    obj{"IpAddress": []string{}},
		"RdmaIpAddress":     obj{"IpAddress": []string{}},
		"EipAddress":        obj{"AllocationId": "", "IpAddress": "", "InternetChargeType": "", "IsSupportUnassociate": false},
		"NetworkInterfaces": obj{"NetworkInterface": i.interfaces()},
		"MetadataOptions": obj{"HttpEndpoint": cmp.Or(i.Details["HttpEndpoint"], "enabled"),
			"HttpTokens": cmp.Or(i.Details["HttpTokens"], "optional"), "HttpPutResponseHopLimit": hop},
		"CpuOptions":                 obj{"CoreCount": cmp.Or(core, (cpu+1)/2), "ThreadsPerCore": cmp.Or(threads, 2), "Numa": i.Details["CpuOptions.Numa"], "TopologyType": i.Details["CpuOptions.TopologyType"]},
		"DedicatedHostAttribute":     obj{"DedicatedHostId": i.Details["DedicatedHostId"], "DedicatedHostName": ""},
		"DedicatedInstanceAttribute": obj{"Affinity": i.Details["Affinity"], "Tenancy": cmp.Or(i.Details["Tenancy"], "default")},
		"EcsCapacityReservationAttr": obj{"CapacityReservationId": "", "CapacityReservationPreference": ""},
		"HibernationOptions":         obj{"Configured": false},
		"OperationLocks":             obj{"LockReason": lockReasons(i.Locks)},
		"Tags":                       tagList(i.Tags),
	}
}

// interfaces are the network interfaces of an instance, the first one first.
func (i *instance) interfaces() []obj {
	all := append([]ENI{{i.ENI, i.MAC, i.PrivateIP, i.SecondaryIPs}}, i.ENIs...)
	list := []obj{}
	for n, e := range all {
		sets, six := []obj{{"PrivateIpAddress": e.PrivateIP, "Primary": true}}, []obj{}
		for _, ip := range e.SecondaryIPs {
			sets = append(sets, obj{"PrivateIpAddress": ip, "Primary": false})
		}
		if n == 0 {
			for _, ip := range i.IPv6 {
				six = append(six, obj{"Ipv6Address": ip})
			}
		}
		list = append(list, obj{
			"NetworkInterfaceId": e.ID, "MacAddress": e.MAC, "PrimaryIpAddress": e.PrivateIP,
			"Type":          map[bool]string{true: "Primary", false: "Secondary"}[n == 0],
			"PrivateIpSets": obj{"PrivateIpSet": sets}, "Ipv6Sets": obj{"Ipv6Set": six},
		})
	}
	return list
}

// eipView is the elastic address of an instance's first interface. c.mu is
// held.
func (c *Cloud) eipView(i *instance) obj {
	for _, e := range sorted(c.paths.eips) {
		if e.InstanceID == i.ID || e.InstanceID == i.ENI {
			return obj{"AllocationId": e.ID, "IpAddress": e.Address, "Bandwidth": e.Bandwidth, "InternetChargeType": "PayByTraffic", "IsSupportUnassociate": true}
		}
	}
	return obj{"AllocationId": "", "IpAddress": "", "InternetChargeType": "", "IsSupportUnassociate": false}
}

func lockReasons(locks []string) []obj {
	list := []obj{}
	for _, l := range locks {
		list = append(list, obj{"LockReason": l})
	}
	return list
}

// osName is what runs on an instance as far as the cloud knows. c.mu is held.
func (c *Cloud) osName(i *instance) string {
	if img := c.images[i.ImageID]; img != nil {
		return img.os
	}
	return centos
}

func orEmpty(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

func ifAny(s string) []string {
	if s == "" {
		return []string{}
	}
	return []string{s}
}

func (c *Cloud) describeInstanceAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	v := c.instanceView(i)
	reply := obj{"IoOptimized": "optimized", "EnableJumboFrame": false} // not a bool here
	for _, k := range strings.Fields(`InstanceId InstanceName HostName Description Status StoppedMode RegionId ZoneId
		ClusterId VlanId SerialNumber ImageId InstanceType InstanceNetworkType InstanceChargeType InternetChargeType
		InternetMaxBandwidthIn InternetMaxBandwidthOut Cpu Memory CreationTime ExpiredTime CreditSpecification
		SecurityGroupIds PublicIpAddress InnerIpAddress VpcAttributes EipAddress DedicatedHostAttribute OperationLocks`) {
		reply[k] = v[k]
	}
	reply["CreationTime"] = stamp(i.createdAt, stampSeconds)
	eip := c.eipView(i)
	delete(eip, "IsSupportUnassociate")
	reply["EipAddress"] = eip
	return reply, nil
}

func (c *Cloud) describeInstanceStatus(q *call) (obj, *apiError) {
	ids := q.list("InstanceId")
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*instance
	for _, i := range sorted(c.instances) {
		if !c.unseen(i) && (len(ids) == 0 || slices.Contains(ids, i.ID)) && oneOf(i.Zone, q.str("ZoneId")) {
			found = append(found, i)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, obj{"InstanceId": i.ID, "Status": i.Status})
	}
	delete(reply, "NextToken")
	reply["InstanceStatuses"] = obj{"InstanceStatus": list}
	return reply, nil
}

func (c *Cloud) describeUserData(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	return obj{"InstanceId": i.ID, "RegionId": c.cfg.Region, "UserData": i.UserData}, nil
}

func (c *Cloud) describeInstanceRAMRole(q *call) (obj, *apiError) {
	ids, byID := q.ids("InstanceIds")
	if !byID && !q.has("RamRoleName") {
		return nil, refuse(400, "MissingParameter", "InstanceIds or RamRoleName must be given.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*instance
	for _, i := range sorted(c.instances) {
		if (!byID || slices.Contains(ids, i.ID)) && oneOf(i.RAMRole, q.str("RamRoleName")) {
			found = append(found, i)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, obj{"InstanceId": i.ID, "RamRoleName": i.RAMRole})
	}
	return obj{"RegionId": c.cfg.Region, "TotalCount": reply["TotalCount"], "InstanceRamRoleSets": obj{"InstanceRamRoleSet": list}}, nil
}

func (c *Cloud) describeRegions(q *call) (obj, *apiError) {
	return obj{"Regions": obj{"Region": []obj{{
		"RegionId": c.cfg.Region, "LocalName": c.cfg.Region, "Status": "available",
		"RegionEndpoint": "ecs." + c.cfg.Region + ".aliyuncs.com",
	}}}}, nil
}

func (c *Cloud) runInstances(q *call) (obj, *apiError) {
	ids, err := c.launch(q, q.num("Amount", 1), true)
	if err != nil {
		return nil, err
	}
	return obj{"InstanceIdSets": obj{"InstanceIdSet": ids}}, nil
}

// createInstance makes one instance that is Stopped when it is there.
func (c *Cloud) createInstance(q *call) (obj, *apiError) {
	ids, err := c.launch(q, 1, false)
	if err != nil {
		return nil, err
	}
	return obj{"InstanceId": ids[0]}, nil
}

// launch makes instances, and starts them if asked.
func (c *Cloud) launch(q *call, amount int, start bool) ([]string, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if amount < 1 || amount > 100 {
		return nil, refuse(400, "InvalidParameter", "The specified Amount %d is not between 1 and 100.", amount)
	}
	proto, boot, err := c.wanted(q)
	if err != nil {
		return nil, err
	}
	boot.start = start
	if amount > 1 && proto.PrivateIP != "" {
		return nil, refuse(400, "InvalidParameter", "PrivateIpAddress cannot be given to more than one instance.")
	}
	if free := c.free(c.vswitches[proto.VSwitch], amount); proto.PrivateIP == "" && len(free) < amount {
		return nil, fail(403, "QuotaExceeded.PrivateIpAddress", "The vSwitch %s has %d free private addresses left.", proto.VSwitch, len(free))
	}
	if err := c.inStock(proto.Type, proto.Zone); err != nil {
		return nil, err
	}
	if err := c.withinQuotas(proto, amount); err != nil {
		return nil, err
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	boot.fate = q.takeFate()
	ids := []string{}
	for range amount {
		in := proto
		in.ID = c.newID("i")
		in.Name = cmp.Or(in.Name, in.ID)
		if in.PrivateIP == "" {
			in.PrivateIP = c.free(c.vswitches[in.VSwitch], 1)[0]
		}
		if in.InternetMaxBandwidthOut > 0 {
			in.PublicIP = c.publicIP()
		}
		i := c.insert(in)
		i.created = true
		for _, d := range in.Disks {
			d.Tags = maps.Clone(in.Tags)
			c.insertDisk(i, d).created = true
		}
		c.setAutoRelease(i, boot.autoRelease)
		c.boot(i, boot)
		ids = append(ids, i.ID)
	}
	return ids, nil
}

// publicIP gives out an address of a range that is for documentation. c.mu is
// held.
func (c *Cloud) publicIP() string {
	c.publicIPs++
	return fmt.Sprintf("203.0.113.%d", (c.publicIPs-1)%254+1)
}

// bootOrder is what RunInstances needs besides an Instance.
type bootOrder struct {
	from        string // diskState
	userData    []byte
	autoRelease time.Time
	start       bool
	fate        FaultKind
}

// boot takes a new instance from Pending through Starting to Running. One that
// is not to be started is Stopped at once, and its machine is made behind that.
// If no machine can be made, the instance vanishes, as it does in the cloud.
// c.mu is held.
func (c *Cloud) boot(i *instance, order bootOrder) {
	half := c.scaled(c.cfg.StartTakes) / 2
	wait := half
	if !order.start {
		i.made = make(chan struct{})
		i.Status, i.stoppedMode, wait = stopped, "KeepCharging", 0
	}
	if order.fate == FaultStuck {
		i.Status = pending
		return
	}
	if order.fate == FaultFails {
		i.Status = pending
		c.then(i, half, func() { c.set(i, func() { c.release(i) }) })
		return
	}
	c.then(i, wait, func() {
		err := c.machines(i, func(m Machines) error {
			if i.ctx.Err() != nil {
				return nil
			}
			err := m.Create(Machine{InstanceID: i.ID, HostName: i.HostName, PrivateIP: i.PrivateIP, From: order.from, UserData: order.userData})
			i.machine = err == nil
			return err
		})
		c.set(i, func() {
			switch {
			case err != nil:
				c.release(i)
			case order.start:
				i.Status = starting
				c.powerOn(i, half, "")
			default:
				close(i.made)
			}
		})
	})
}

// wanted reads the parameters of RunInstances. c.mu is held.
func (c *Cloud) wanted(q *call) (Instance, bootOrder, *apiError) {
	no := func(err *apiError) (Instance, bootOrder, *apiError) { return Instance{}, bootOrder{}, err }
	for _, name := range []string{"ImageId", "InstanceType", "VSwitchId"} {
		if !q.has(name) {
			return no(refuse(400, "MissingParameter", "The input parameter %q that is mandatory for processing this request is not supplied.", name))
		}
	}
	img, err := c.image(q.str("ImageId"))
	switch {
	case err != nil:
		return no(err)
	case img.status() != "Available":
		return no(fail(400, "IncorrectImageStatus", "The image %s is %s.", img.id, img.status()))
	case !knownType(q.str("InstanceType")):
		return no(fail(400, "InvalidInstanceType.ValueNotSupported", "The specified InstanceType %q does not exist.", q.str("InstanceType")))
	}
	sw, err := c.vswitch(q.str("VSwitchId"))
	if err != nil {
		return no(err)
	}
	if z := q.str("ZoneId"); z != "" && z != sw.zone {
		return no(refuse(400, "InvalidParameter.Mismatch", "The vSwitch %s is in zone %s, not in %s.", sw.id, sw.zone, z))
	}
	groups := q.list("SecurityGroupIds")
	switch one := q.str("SecurityGroupId"); {
	case one != "" && len(groups) > 0:
		return no(refuse(400, "InvalidParameter.Conflict", "SecurityGroupId and SecurityGroupIds.N cannot be given together."))
	case one != "":
		groups = []string{one}
	case len(groups) == 0:
		return no(refuse(400, "MissingParameter", "SecurityGroupId or SecurityGroupIds.N must be given."))
	}
	if err := c.knownGroups(groups); err != nil {
		return no(err)
	}
	if k := q.str("KeyPairName"); k != "" && c.keyPairs[k] == nil {
		return no(fail(404, "InvalidKeyPairName.NotFound", "The specified KeyPairName %q does not exist.", k))
	}
	if q.has("Password") && (q.is("PasswordInherit") || q.has("KeyPairName")) {
		return no(refuse(400, "InvalidParameter.Conflict", "Only one of Password, PasswordInherit and KeyPairName sets the login."))
	}
	if err := noSpot(q); err != nil {
		return no(err)
	}
	charge := cmp.Or(q.str("InstanceChargeType"), "PostPaid")
	if charge != "PostPaid" && charge != "PrePaid" {
		return no(refuse(400, "InvalidInstanceChargeType.NotFound", "The InstanceChargeType %q does not exist.", charge))
	}
	ip := q.str("PrivateIpAddress")
	if ip != "" {
		if a, err := netip.ParseAddr(ip); err != nil || !a.Is4() {
			return no(refuse(400, "InvalidPrivateIpAddress.Malformed", "Specified private IP address %q is malformed.", ip))
		}
		if c.byIP(ip) != nil {
			return no(fail(400, "InvalidPrivateIpAddress.Duplicated", "Specified private IP address %s is already used.", ip))
		}
	}
	at, err := releaseTime(q.str("AutoReleaseTime"))
	if err != nil {
		return no(err)
	}
	data, err := userData(q.str("UserData"))
	if err != nil {
		return no(err)
	}
	tags, err := q.tags()
	if err != nil {
		return no(err)
	}
	disks, err := c.wantedDisks(q, img)
	if err != nil {
		return no(err)
	}
	in := Instance{
		Name: q.str("InstanceName"), HostName: q.str("HostName"), Description: q.str("Description"), Status: pending,
		Type: q.str("InstanceType"), ImageID: img.id, Zone: sw.zone, VPC: sw.vpc, VSwitch: sw.id, PrivateIP: ip,
		SecurityGroups: groups, KeyPair: q.str("KeyPairName"), RAMRole: q.str("RamRoleName"), UserData: q.str("UserData"),
		ChargeType: charge, Tags: tags, DeletionProtection: q.is("DeletionProtection"),
		InternetMaxBandwidthOut: q.num("InternetMaxBandwidthOut", 0), Disks: disks, Details: q.params,
	}
	return in, bootOrder{from: img.content, userData: data, autoRelease: at}, nil
}

func (c *Cloud) knownGroups(ids []string) *apiError {
	for _, g := range ids {
		if c.securityGroups[g] == nil {
			return fail(404, "InvalidSecurityGroupId.NotFound", "The specified SecurityGroupId %q does not exist.", g)
		}
	}
	return nil
}

func userData(v string) ([]byte, *apiError) {
	if v == "" {
		return nil, nil
	}
	data, err := base64.StdEncoding.DecodeString(v)
	if err != nil {
		return nil, refuse(400, "InvalidUserData.Base64FormatInvalid", "The specified UserData is not base64.")
	}
	if len(data) > maxUserData {
		return nil, fail(400, "InvalidUserData.SizeExceeded", "The specified UserData is longer than %d bytes.", maxUserData)
	}
	return data, nil
}
