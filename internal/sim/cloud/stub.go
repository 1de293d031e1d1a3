package cloud

import (
	"errors"
	"net/http"
)

type numbered interface{ number() int64 }

func sorted[T numbered](m map[string]T) []T { return nil }

type instance struct {
	Instance
	created bool
}
type disk struct {
	Disk
	created bool
}
type snapshot struct {
	id, name string
	tags     map[string]string
}
type image struct {
	id, name string
	tags     map[string]string
}
type invocation struct{}
type balancer struct{}
type tokenUse struct{}
type transport struct{ c *Cloud }

func (instance) number() int64 { return 0 }
func (disk) number() int64     { return 0 }
func (snapshot) number() int64 { return 0 }
func (image) number() int64    { return 0 }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("cloud: no answer")
}

// ServeHTTP answers one request of the RPC APIs ECS (2014-05-26) and SLB
// (2014-05-15), chosen by the Version and Action in the request.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// AddInstance adds an instance that exists before the story begins. It panics
// when the ID or the private address is taken.
func (c *Cloud) AddInstance(i Instance) {}

// AddLoadBalancer adds a balancer. It panics when the ID is taken or a
// listener names a group that does not exist.
func (c *Cloud) AddLoadBalancer(lb LoadBalancer) {}

// LoadBalancers returns a copy of all balancers as their data plane sees them
// now, in the order in which they were added.
func (c *Cloud) LoadBalancers() []LoadBalancer { return nil }

// InstanceIP returns the private address of an instance, "" when there is no
// such instance.
func (c *Cloud) InstanceIP(id string) string { return "" }

// InstanceStatus returns Pending, Starting, Running, Stopping or Stopped, and
// "" when there is no such instance.
func (c *Cloud) InstanceStatus(id string) string { return "" }

// PoweredOff tells the cloud that the guest switched itself off (shutdown -h):
// a Running instance becomes Stopped, without a call into Machines.
func (c *Cloud) PoweredOff(id string) {}
