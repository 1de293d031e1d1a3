package slb

import "strconv"

// A Server is the machine whose memberships are looked for. A member matches if
// it names any of these.
type Server struct {
	InstanceID string   // i-…
	ENIs       []string // network interfaces, eni-…
	IPs        []string // private addresses
}

// A Group is the default server group of a balancer, or one of its VServer
// groups.
type Group struct {
	LoadBalancerID string
	VServerGroupID string // "" is the default group
}

// A Backend is one member of a group.
type Backend struct {
	ServerID    string // i-…, eni-…, or an address for type ip
	Type        string // "ecs", "eni", "eci" or "ip"; "" is ecs
	ServerIP    string // address of an eni or eci member
	Description string
	Port        int // 0 in a default group: there the listener has the port
	Weight      int // 0..100; 0 gets no new connections with a weighted scheduler
}

// A Listener is what forwards to a group.
type Listener struct {
	Port        int
	Protocol    string // "tcp", "udp", "http", "https" or "tcps"
	Scheduler   string // "wrr", "wlc", "rr", "sch", "tch" or "qch"; weight 0 drains with the first two only
	Status      string // "running", "stopped", "starting", "configuring"
	BackendPort int    // port of the members of a default group; 0 otherwise
	HealthCheck bool
	Sticky      bool   // sessions stick to a member, also to one of weight 0
	Rule        string // ID of the forwarding rule through which the group is reached; "" is the listener itself
}

// A Membership is one place where a Server gets traffic from a balancer.
type Membership struct {
	LoadBalancerID, LoadBalancerName string
	Address                          string // of the balancer
	VServerGroupID                   string // "" is the default group
	VServerGroupName                 string
	// MasterSlaveGroupID is set for a primary/secondary group. The cloud has no
	// call that changes one: weights and members of it cannot be set.
	MasterSlaveGroupID string
	// Managed: the balancer or group belongs to another service (as ACK) that
	// would overwrite changes.
	Managed   bool
	Backend   Backend    // the server itself
	Listeners []Listener // everything that forwards to the group
	Backends  []Backend  // all members of the group, Backend among them
}

// Group returns the group of the membership, to be handed to SetWeight and the
// like. For a primary/secondary group, which has no such calls, it is the zero
// Group, which they refuse.
func (m Membership) Group() Group {
	if m.MasterSlaveGroupID != "" {
		return Group{}
	}
	return Group{LoadBalancerID: m.LoadBalancerID, VServerGroupID: m.VServerGroupID}
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
	if g.VServerGroupID == "" {
		return "the default group of " + g.LoadBalancerID
	}
	return "group " + g.VServerGroupID + " of " + g.LoadBalancerID
}

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
