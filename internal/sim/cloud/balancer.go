package cloud

// A Backend is a member of a server group. In a default group Port is 0: the
// listener's BackendPort counts.
type Backend struct {
	ServerID    string
	Type        string // ecs (default) or eni
	ServerIP    string // empty for type ecs: the instance's address
	Description string
	Port        int
	Weight      int // 0 to 100; as given, never defaulted
}

// A VServerGroup is a group of backends with ports of their own.
type VServerGroup struct {
	ID, Name string
	Backends []Backend
}

// A Listener takes the traffic of one port.
type Listener struct {
	Port         int
	Protocol     string // tcp, udp, http, https
	Scheduler    string // default wrr
	Status       string // running (default), stopped
	Description  string
	BackendPort  int    // port at the members of the default group
	VServerGroup string // ID; "" means the default group
	// MasterSlaveGroup is the ID of a primary/secondary group; TCP and UDP only.
	MasterSlaveGroup       string
	HealthCheck            bool
	HealthCheckURI         string // http and https
	StickySession          bool   // http and https
	ConnectionDrainTimeout int    // seconds, tcp; 0 = off
	Rules                  []Rule // http and https
}

// A Rule sends some of an HTTP listener's requests to a group of its own.
type Rule struct {
	ID, Name, Domain, URL string
	VServerGroup          string
}

// A MasterSlaveGroup holds exactly one primary and one secondary server.
type MasterSlaveGroup struct {
	ID, Name      string
	Master, Slave Backend
}

// A LoadBalancer is one CLB instance with its listeners and groups.
type LoadBalancer struct {
	ID, Name, Address string
	AddressType       string // intranet (default) or internet
	Status            string // active (default), inactive, locked
	VPC, VSwitch      string
	// ServiceManaged marks a balancer that a managed service (a cluster)
	// owns: backend writes are refused.
	ServiceManaged bool
	Tags           map[string]string
	Listeners      []Listener
	Default        []Backend
	Groups         []VServerGroup
	MasterSlaves   []MasterSlaveGroup
}

// HealthQuery asks for the health of one member as one listener sees it.
type HealthQuery struct {
	LoadBalancerID string
	VServerGroupID string // "" for the default group
	ListenerPort   int
	Protocol       string // of the listener
	ServerID       string
	ServerIP       string
	Port           int // of the backend
	Weight         int
}
