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
	InstanceID string   `json:"instance_id"` // i-…
	ENIs       []string `json:"enis"`        // network interfaces, eni-…
	IPs        []string `json:"ips"`         // private addresses
}

// A Group is one server group: the default group of a CLB, one of its VServer
// groups, or a server group of ALB or NLB. Groups can be compared with ==.
type Group struct {
	// LoadBalancerID is lb-…, alb-… or nlb-…. For ALB and NLB, whose groups can
	// be behind several balancers, it is one of them, and "" if there is none.
	LoadBalancerID string `json:"load_balancer_id"`
	// VServerGroupID is rsp-… of a CLB ("" is the default group), or sgp-… of
	// ALB and NLB, where it must be given.
	VServerGroupID string  `json:"vserver_group_id"`
	Product        Product `json:"product,omitempty"`
}

// A Backend is one member of a group.
type Backend struct {
	ServerID    string `json:"server_id"`           // i-…, eni-…, or an address for type ip
	Type        string `json:"type"`                // "ecs", "eni", "eci" or "ip"; "" is ecs
	ServerIP    string `json:"server_ip,omitempty"` // address of an eni, eci or ip member
	Description string `json:"description,omitempty"`
	Port        int    `json:"port"`   // 0 in a default group: there the listener has the port
	Weight      int    `json:"weight"` // 0..100; 0 gets no new connections with a weighted scheduler
}

// A Listener is what forwards to a group.
type Listener struct {
	LoadBalancerID string `json:"load_balancer_id"`
	ID             string `json:"id,omitempty"` // lsn-… of ALB and NLB; a CLB listener is named by its port
	Port           int    `json:"port"`
	Protocol       string `json:"protocol"`     // "tcp", "udp", "http", "https", "tcpssl" or "quic"
	Scheduler      string `json:"scheduler"`    // "wrr", "wlc", "rr", "sch", "tch", "qch" or "uch"; weight 0 drains with the first two only
	Status         string `json:"status"`       // "running", "stopped", "starting", "configuring"
	BackendPort    int    `json:"backend_port"` // port of the members of a default group; 0 otherwise
	HealthCheck    bool   `json:"health_check"`
	Sticky         bool   `json:"sticky"`                   // sessions stick to a member, also to one of weight 0
	StickySeconds  int    `json:"sticky_seconds,omitempty"` // for how long at least; 0 = not known
	// DrainSeconds is for how long connections of a removed member may go on
	// (ConnectionDrain); 0 = they are cut.
	DrainSeconds int    `json:"drain_seconds,omitempty"`
	Rule         string `json:"rule,omitempty"` // ID of the forwarding rule through which the group is reached; "" is the listener itself
	// Domain and URL are the rule's; several conditions of an ALB rule are joined
	// with commas.
	Domain string `json:"domain,omitempty"`
	URL    string `json:"url,omitempty"`
}

// A Membership is one place where a Server gets traffic from a balancer.
type Membership struct {
	Product            Product `json:"product,omitempty"` // zero = CLB
	LoadBalancerID     string  `json:"load_balancer_id"`
	LoadBalancerName   string  `json:"load_balancer_name"`
	Address            string  `json:"address"`              // of the balancer: an IP, or the DNS name of ALB and NLB
	LoadBalancerStatus string  `json:"load_balancer_status"` // "active", "inactive", "locked" … in small letters
	VServerGroupID     string  `json:"vserver_group_id"`     // "" is the default group of a CLB
	VServerGroupName   string  `json:"vserver_group_name,omitempty"`
	// MasterSlaveGroupID is set for a primary/secondary group. The cloud has no
	// call that changes one: weights and members of it cannot be set.
	MasterSlaveGroupID string `json:"master_slave_group_id,omitempty"`
	// Managed: the balancer or group belongs to another service (as ACK) that
	// would overwrite changes.
	Managed bool `json:"managed"`
	// Protected: somebody protected the balancer against changes
	// (ConsoleProtection); ProtectedWhy is the reason they gave.
	Protected    bool       `json:"protected"`
	ProtectedWhy string     `json:"protected_why,omitempty"`
	Backend      Backend    `json:"backend"`   // the server itself
	Listeners    []Listener `json:"listeners"` // everything that forwards to the group
	Backends     []Backend  `json:"backends"`  // all members of the group, Backend among them
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
	Membership Membership `json:"membership"`
	Backend    Backend    `json:"backend"` // as it was read; its Weight is what is there now
	Weight     int        `json:"weight"`  // recorded weight: where a ramp ends and a drain begins
}

// Health is what the balancer thinks of one member behind one listener.
type Health struct {
	ListenerPort int    `json:"listener_port"`
	Port         int    `json:"port"` // of the member
	Protocol     string `json:"protocol"`
	ServerID     string `json:"server_id"`
	ServerIP     string `json:"server_ip"`
	Status       string `json:"status"` // "normal", "abnormal" or "unavailable" (not checked, or not yet)
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
