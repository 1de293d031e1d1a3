package slb

import (
	"cmp"
	"strconv"
)

// A Product is a family of load balancers. The zero value means CLB.
type Product string

// The products. CLB writes take effect with the answer; those of ALB and NLB
// are jobs, which this package waits for.
const (
	CLB Product = "clb" // classic: default groups, VServer groups, primary/secondary groups
	ALB Product = "alb" // HTTP, HTTPS, QUIC
	NLB Product = "nlb" // TCP, UDP, TCPSSL
)

// A Server is the machine whose memberships are looked for. A member matches if
// it names any of these.
type Server struct {
	InstanceID string   // i-…
	ENIs       []string // network interfaces, eni-…
	IPs        []string // private addresses
}

// A Group is one server group: the default group of a CLB, one of its VServer
// groups, or a server group of ALB or NLB. Groups can be compared with ==.
type Group struct {
	// LoadBalancerID is lb-…, alb-… or nlb-…. For ALB and NLB, whose groups can
	// be behind several balancers, it is one of them, and "" if there is none.
	LoadBalancerID string
	// VServerGroupID is rsp-… of a CLB ("" is the default group), or sgp-… of
	// ALB and NLB, where it must be given.
	VServerGroupID string
	Product        Product `json:",omitempty"`
}

// A Backend is one member of a group.
type Backend struct {
	ServerID    string // i-…, eni-…, or an address for type ip
	Type        string // "ecs", "eni", "eci" or "ip"; "" is ecs
	ServerIP    string // address of an eni, eci or ip member
	Description string
	Port        int // 0 in a default group: there the listener has the port
	Weight      int // 0..100; 0 gets no new connections with a weighted scheduler
}

// A Listener is what forwards to a group.
type Listener struct {
	LoadBalancerID string
	ID             string // lsn-… of ALB and NLB; a CLB listener is named by its port
	Port           int
	Protocol       string // "tcp", "udp", "http", "https", "tcpssl" or "quic"
	Scheduler      string // "wrr", "wlc", "rr", "sch", "tch", "qch" or "uch"; weight 0 drains with the first two only
	Status         string // "running", "stopped", "starting", "configuring"
	BackendPort    int    // port of the members of a default group; 0 otherwise
	HealthCheck    bool
	Sticky         bool // sessions stick to a member, also to one of weight 0
	StickySeconds  int  // for how long at least; 0 = not known
	// DrainSeconds is for how long connections of a removed member may go on
	// (ConnectionDrain); 0 = they are cut.
	DrainSeconds int
	Rule         string // ID of the forwarding rule through which the group is reached; "" is the listener itself
	Domain, URL  string // of the rule; several conditions of an ALB rule are joined with commas
}

// A Membership is one place where a Server gets traffic from a balancer.
type Membership struct {
	Product                          Product `json:",omitempty"` // zero = CLB
	LoadBalancerID, LoadBalancerName string
	Address                          string // of the balancer: an IP, or the DNS name of ALB and NLB
	LoadBalancerStatus               string // "active", "inactive", "locked" … in small letters
	VServerGroupID                   string // "" is the default group of a CLB
	VServerGroupName                 string
	// MasterSlaveGroupID is set for a primary/secondary group. The cloud has no
	// call that changes one: weights and members of it cannot be set.
	MasterSlaveGroupID string
	// Managed: the balancer or group belongs to another service (as ACK) that
	// would overwrite changes.
	Managed bool
	// Protected: somebody protected the balancer against changes
	// (ConsoleProtection); ProtectedWhy is the reason they gave.
	Protected    bool
	ProtectedWhy string
	Backend      Backend    // the server itself
	Listeners    []Listener // everything that forwards to the group
	Backends     []Backend  // all members of the group, Backend among them
}

// Group returns the group of the membership, to be handed to SetWeight and the
// like. For a primary/secondary group, which has no such calls, it is the zero
// Group, which they refuse.
func (m Membership) Group() Group {
	if m.MasterSlaveGroupID != "" {
		return Group{}
	}
	return Group{LoadBalancerID: m.LoadBalancerID, VServerGroupID: m.VServerGroupID, Product: m.Product}
}

// A Target is one member on its way to a weight. Membership says where: the
// member may be another than its Backend (a clone in the place of its source).
type Target struct {
	Membership Membership
	Backend    Backend // as it was read; its Weight is what is there now
	Weight     int     // recorded weight: where a ramp ends and a drain begins
}

// Health is what the balancer thinks of one member behind one listener.
type Health struct {
	ListenerPort int
	Port         int // of the member
	Protocol     string
	ServerID     string
	ServerIP     string
	Status       string // "normal", "abnormal" or "unavailable" (not checked, or not yet)
}

// String is the group's ID, and the balancer's for a default group.
func (g Group) String() string {
	switch {
	case g.product() != CLB && g.LoadBalancerID == "":
		return string(g.product()) + " group " + g.VServerGroupID
	case g.VServerGroupID == "":
		return "the default group of " + g.LoadBalancerID
	}
	return "group " + g.VServerGroupID + " of " + g.LoadBalancerID
}

func (g Group) product() Product { return cmp.Or(g.Product, CLB) }

// String is the member's ID and port.
func (b Backend) String() string {
	s := b.ServerID
	if b.ServerIP != "" && b.ServerIP != b.ServerID {
		s += " (" + b.ServerIP + ")"
	}
	if b.Port != 0 {
		s += ":" + strconv.Itoa(b.Port)
	}
	return s
}
