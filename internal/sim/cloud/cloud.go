package cloud

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Machines is what runs behind the instances: whoever joins the parts of the
// simulated world (or a test lab) implements it. Calls are made without the
// cloud's lock held and may block. Create, Start, Stop, Reboot and Delete of
// one instance come one after another; Snapshot and RunCommand may come at any
// time. Methods may ask the Cloud (InstanceIP and the like), but must not wait
// for it to finish an operation on the same instance.
type Machines interface {
	// Snapshot returns an opaque handle of what is on the instance's disks now.
	Snapshot(instanceID string) (diskState string, err error)
	// Create makes a machine that is switched off; Start follows.
	Create(m Machine) error
	Start(instanceID string) error
	Stop(instanceID string) error
	Reboot(instanceID string) error
	Delete(instanceID string) error
	// RunCommand runs a shell script as root on the instance, the way Cloud
	// Assistant does. An error means that the script could not be delivered.
	RunCommand(ctx context.Context, instanceID, script string) (exit int, output []byte, err error)
}

// Machine describes an instance that RunInstances makes.
type Machine struct {
	InstanceID string
	HostName   string
	PrivateIP  string
	From       string // the diskState (see Machines.Snapshot) it starts from
	UserData   []byte // decoded; nil when none was given
}

// Config says what cloud to simulate. The zero value of every field but
// AccessKeyID and AccessKeySecret has a meaning.
type Config struct {
	Region          string // default cn-hangzhou
	AccessKeyID     string
	AccessKeySecret string
	SecurityToken   string // expected with every request when not empty; any other is refused

	// Speed divides every duration the cloud takes: 1 (and 0) means the real
	// ones, 60 sixty times faster. Times that a client names (AutoReleaseTime,
	// the Timeout of a command) are points and spans of the caller's clock and
	// are not divided.
	Speed float64

	// Machines holds the content of the instances. nil: instances have none,
	// and commands end with ErrorCode ClientNotRunning.
	Machines Machines

	// How long things take in the real cloud; divided by Speed.
	SnapshotTakes time.Duration // default 3m
	ImageTakes    time.Duration // default 4m
	StartTakes    time.Duration // default 30s
	StopTakes     time.Duration // default 20s
	RebootLag     time.Duration // how long Status stays Running after RebootInstance; default 4s
	BusyTakes     time.Duration // how long a balancer refuses writes after each write; default 2s

	// Latency passes before every answer, after its effect; divided by Speed.
	Latency time.Duration

	// VisibleAfter is how long what a request made cannot be seen: lists leave it
	// out, and other calls say that it does not exist. Divided by Speed.
	VisibleAfter time.Duration

	// Zones are the zones of the region; default REGION-h and REGION-i.
	Zones []string

	// Throttle is the flow control of the API.
	Throttle Throttle

	// TokenExpires is when SecurityToken ends; zero: never.
	TokenExpires time.Time

	// FreeIPs are the private addresses that RunInstances hands out, in this
	// order; an address returns to the end of the list with its instance.
	FreeIPs []string

	// Health is asked for every member at DescribeHealthStatus, without the
	// cloud's lock held; it returns normal, abnormal or unavailable. nil: a
	// member is normal while its instance is Running. Listeners that are not
	// running or do not check are "unavailable" without a question.
	Health func(HealthQuery) string

	// ZeroWeightAbnormal makes members with weight 0 abnormal on TCP and UDP
	// listeners, as older documentation of the cloud describes.
	ZeroWeightAbnormal bool
}

// Cloud is the simulated Alibaba Cloud of one account and one region. It is
// safe for concurrent use. Close it.
type Cloud struct {
	cfg     Config
	actions map[string]map[string]*action // by version and name; never written after New

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // timers' functions and goroutines under way

	mu          sync.Mutex
	closed      bool
	seq         int64 // last sequence number given to an object
	identity    identity
	former      map[[2]string]bool // ID and token of temporary keys that were replaced
	nonces      map[string]time.Time
	noncesSwept time.Time // when old ones were last forgotten
	windows     map[*action]window
	denied      map[string]bool
	tokens      map[string]*tokenUse
	counts      map[string]int
	refused     []string
	faults      []*Fault
	onChange    []func()
	timers      map[*time.Timer]struct{}
	freeIPs     []string
	publicIPs   int // how many public addresses were ever given
	noStock     map[stockKey]bool
	consoles    map[string]string // what instances printed, where told

	instances   map[string]*instance
	disks       map[string]*disk
	snapshots   map[string]*snapshot
	groups      map[string]*snapshotGroup
	images      map[string]*image
	invocations map[string]*invocation
	balancers   map[string]*balancer

	logs      logState
	paths     pathState
	dns       dnsState
	ess       essState
	account   accountState
	databases map[string]*database // by product and ID
	sg        serverGroups         // of ALB and NLB

	vpcs           map[string]*vpc
	vswitches      map[string]*vswitch
	securityGroups map[string]*securityGroup
	keyPairs       map[string]*keyPair
}

// New returns a cloud without instances and balancers.
func New(cfg Config) *Cloud {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.SnapshotTakes, 3*time.Minute)
	def(&cfg.ImageTakes, 4*time.Minute)
	def(&cfg.StartTakes, 30*time.Second)
	def(&cfg.StopTakes, 20*time.Second)
	def(&cfg.RebootLag, 4*time.Second)
	def(&cfg.BusyTakes, 2*time.Second)
	if cfg.Machines == nil {
		cfg.Machines = noMachines{}
	}
	if cfg.Region == "" {
		cfg.Region = "cn-hangzhou"
	}
	if len(cfg.Zones) == 0 {
		cfg.Zones = []string{cfg.Region + "-h", cfg.Region + "-i"}
	}
	if cfg.Speed <= 0 {
		cfg.Speed = 1
	}
	c := &Cloud{
		cfg:            cfg,
		actions:        indexed(),
		identity:       identity{cfg.AccessKeyID, cfg.AccessKeySecret, cfg.SecurityToken, cfg.TokenExpires},
		former:         map[[2]string]bool{},
		nonces:         map[string]time.Time{},
		windows:        map[*action]window{},
		denied:         map[string]bool{},
		noStock:        map[stockKey]bool{},
		consoles:       map[string]string{},
		account:        accountState{quotas: map[string]int{}},
		tokens:         map[string]*tokenUse{},
		counts:         map[string]int{},
		timers:         map[*time.Timer]struct{}{},
		freeIPs:        append([]string(nil), cfg.FreeIPs...),
		instances:      map[string]*instance{},
		disks:          map[string]*disk{},
		snapshots:      map[string]*snapshot{},
		groups:         map[string]*snapshotGroup{},
		images:         map[string]*image{},
		invocations:    map[string]*invocation{},
		balancers:      map[string]*balancer{},
		vpcs:           map[string]*vpc{},
		vswitches:      map[string]*vswitch{},
		securityGroups: map[string]*securityGroup{},
		keyPairs:       map[string]*keyPair{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close stops all timers, ends running commands and waits for calls into
// Machines that are under way. Requests after it are answered with
// ServiceUnavailable. It may be called more than once.
func (c *Cloud) Close() {
	c.mu.Lock()
	c.closed = true
	for t := range c.timers {
		if t.Stop() {
			delete(c.timers, t)
			c.work.Done()
		}
	}
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
}

// OnChange registers f to be called after every successful write to a
// balancer, and after an instance that was a member of one is gone. f runs on
// the goroutine of the request, without the cloud's lock held.
func (c *Cloud) OnChange(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onChange = append(c.onChange, f)
}

// changed calls the functions registered with OnChange.
func (c *Cloud) changed() {
	c.mu.Lock()
	fs := append([]func(){}, c.onChange...)
	c.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// Counts returns how many calls of each action took effect: those answered
// with success, and those whose good answer a Fault with Applied destroyed.
func (c *Cloud) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Refused returns what clients asked for that no cloud (or not this simulator)
// knows, one line each: unknown products, actions and parameters, missing
// required parameters, malformed values, bad signatures. The first thousand are
// kept.
func (c *Cloud) Refused() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.refused...)
}

// A Resource is something that exists in the account now.
type Resource struct {
	Type         string // instance, disk, snapshot, image, snapshotgroup, vpc, vswitch, securitygroup, keypair
	ID           string
	Name         string
	Tags         map[string]string
	CreatedByAPI bool // made by a request, not by AddInstance
}

// Resources lists what exists now, by type in the order that Resource.Type
// names them, and in order of creation.
func (c *Cloud) Resources() []Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Resource
	for _, i := range sorted(c.instances) {
		all = append(all, Resource{"instance", i.ID, i.Name, maps.Clone(i.Tags), i.created})
	}
	for _, d := range sorted(c.disks) {
		all = append(all, Resource{"disk", d.ID, d.Name, maps.Clone(d.Tags), d.created})
	}
	for _, s := range sorted(c.snapshots) {
		all = append(all, Resource{"snapshot", s.id, s.name, maps.Clone(s.tags), true})
	}
	for _, i := range sorted(c.images) {
		all = append(all, Resource{"image", i.id, i.name, maps.Clone(i.tags), i.created})
	}
	for _, g := range sorted(c.groups) {
		all = append(all, Resource{"snapshotgroup", g.id, g.name, maps.Clone(g.tags), true})
	}
	return append(all, c.netResources()...)
}

// Transport returns a RoundTripper that serves every request in process, on
// the caller's goroutine, whatever host its URL names. Under testing/synctest
// nothing then waits for a socket.
func (c *Cloud) Transport() http.RoundTripper { return transport{c} }

// scaled divides a real duration by the speed.
func (c *Cloud) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.cfg.Speed)
}

// after runs f, without the lock held, when d (not scaled further) has passed,
// unless the cloud is closed before. c.mu is held by the caller.
func (c *Cloud) after(d time.Duration, f func()) *time.Timer {
	if c.closed {
		return nil
	}
	c.work.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer c.work.Done()
		c.mu.Lock()
		delete(c.timers, t)
		closed := c.closed
		c.mu.Unlock()
		if !closed {
			f()
		}
	})
	c.timers[t] = struct{}{}
	return t
}

// stop takes back what after planned. c.mu is held by the caller.
func (c *Cloud) stop(t *time.Timer) {
	if t != nil && t.Stop() {
		delete(c.timers, t)
		c.work.Done()
	}
}

// next returns the next sequence number. c.mu is held by the caller.
func (c *Cloud) next() int64 {
	c.seq++
	return c.seq
}

// newID returns an identifier that has the form of the cloud's own: prefix,
// region part and sixteen more characters. c.mu is held by the caller.
func (c *Cloud) newID(prefix string) string {
	return fmt.Sprintf("%s-bp1%017d", prefix, c.next())
}
