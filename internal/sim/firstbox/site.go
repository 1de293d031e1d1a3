package firstbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// Config says what a site is. The zero value is a small site of installer
// 4.3.1 without VG nodes.
type Config struct {
	Version   string   // of the installer; "" = "4.3.1"; below 4.3 the scripts are the .sh ones
	VG        bool     // VG nodes carry the proxies, which have EIPs
	Sub       bool     // a sub zone: the old proxies' api, ws and io front ends point to the global site
	Boss      bool     // pitrix-ks-proxy-boss on the old proxies
	Boss2     bool     // pitrix-ks-proxy-boss2
	Warehouse bool     // pitrix-ks-proxy-warehouse
	Keys      []string // lines of authorized_keys of operators, for root everywhere
	Faults    Faults
}

// Faults make things go wrong. A node is named by its name; a fault meets
// every machine of that name.
type Faults struct {
	Unreachable []string          // nodes that no ping reaches
	SSH255      []string          // nodes whose sshd ends every connection
	Apt100      []string          // packages whose installation fails
	Programs    map[string]string // "node/program" → FATAL, BACKOFF, STARTING: its state in supervisor
	Conflict    []string          // addresses that somebody else's machine has
	StaleNames  bool              // building pitrix-hosts leaves the firstbox's own /etc/hosts as it is
	Deaf        bool              // keepalived programs do not hear each other
	NoBaseImage bool              // the base image of 16.04.5 is missing
	WrongBridge bool              // br0 of the hosts meant for new nodes is connected to nothing
}

// Options are what a site needs of the world around it.
type Options struct {
	Speed   float64 // divides boots, packages and installations; requests, VRRP and ARP are real time. 0 = 1
	Listen  func() (net.Listener, error)
	Connect func(ctx context.Context, addr string) (net.Conn, error) // with what Listen opened
	Pipe    func() (net.Conn, net.Conn)                              // both ends of a buffered connection
	// Nginx makes the nginx of one machine, which reaches its servers through
	// dial; nil = the programs of the web pages listen themselves.
	Nginx func(name string, dial func(ctx context.Context, to string) (net.Conn, error)) WebServer
	Ran   func(addr, command string) // as host.Options.Ran, with the address the host has now; nil = nobody
}

// Site is a firstbox, its physical hosts, and the VMs on them. Its methods are
// safe for concurrent use.
type Site struct {
	cfg    Config
	opt    Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	locals host.LocalPorts
	log    sync.Mutex // one writer of a log file at a time

	firstbox *Machine
	router   *Machine // 192.0.2.254, and everybody outside

	// mu guards what follows and the fields of machines that say so. It is held
	// for moments only; under it no file of a host is read.
	mu         sync.Mutex
	machines   []*Machine // in the order they were made
	byHost     map[*host.Host]*Machine
	images     map[string]*Machine // by the id in the image file
	count      map[string]int      // of images made, by name
	duplicates map[string]bool
	damage     []string
	gaps       []*Gap
	routers    map[vipKey][]*vrrp // running keepalived programs
	builds     int
}

// A Machine is a host of the site: the firstbox, a physical host, a VM with
// its disk, or (with a nil Host) something that only has addresses.
type Machine struct {
	Host *host.Host
	Name string // of the node: two VMs may have the same
	Kind Kind

	site  *Site
	label string // unique in the site
	image string // of a VM: what its image file says
	role  string

	// guarded by Site.mu
	nics    []*nic
	arp     map[netip.Addr]*neighbour
	routes  []route
	bridges map[string]string  // of a physical host: bridge → segment
	domains map[string]*domain // of a physical host
	runsOn  *Machine           // of a VM that is on
	isUp    bool
	vrrp    *vrrp
	proxy   *proxyConfig
	dns     *zones // of a named that runs
	web     WebServer
	super   *supervisor
	flows   map[*Flow]bool
	ports   map[int]bool // of a stranger: what answers
}

// Kind is what a machine is.
type Kind int

// The kinds of machines.
const (
	Firstbox Kind = iota + 1
	Physical
	VM
	Stranger // something that only has addresses
)

var outside = netip.MustParseAddr("203.0.113.200")

// New builds a site whose nodes run. Close it.
func New(cfg Config, opt Options) (*Site, error) {
	if cfg.Version == "" {
		cfg.Version = "4.3.1"
	}
	if opt.Speed <= 0 {
		opt.Speed = 1
	}
	if opt.Pipe == nil {
		opt.Pipe = net.Pipe
	}
	if opt.Connect == nil {
		opt.Connect = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	s := &Site{
		cfg: cfg, opt: opt, byHost: map[*host.Host]*Machine{}, images: map[string]*Machine{}, count: map[string]int{},
		duplicates: map[string]bool{}, routers: map[vipKey][]*vrrp{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.build(); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot build the simulated site: %w", err)
	}
	return s, nil
}

// Close ends everything that the site started.
func (s *Site) Close() {
	s.mu.Lock()
	s.cancel() // under the lock: see spawn
	all := slices.Clone(s.machines)
	for _, list := range s.routers {
		for _, v := range list {
			v.stopTimer()
		}
	}
	s.mu.Unlock()
	var down sync.WaitGroup
	for _, m := range all {
		if m.Host != nil {
			down.Go(m.Host.Close)
		}
	}
	down.Wait()
	s.wg.Wait()
}

// spawn runs f, which ends soon after the site does.
func (s *Site) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.wg.Go(f)
	return true
}

// wait sleeps a duration of the world; false: the site has been closed.
func (s *Site) wait(d time.Duration) bool {
	t := time.NewTimer(time.Duration(float64(d) / s.opt.Speed))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// python reports whether the installer's scripts are the .py ones.
func (s *Site) python() bool {
	var major, minor int
	_, _ = fmt.Sscanf(s.cfg.Version, "%d.%d", &major, &minor)
	return major > 4 || major == 4 && minor >= 3
}

// options are those of every host.
func (s *Site) options() host.Options {
	return host.Options{
		Speed: s.opt.Speed, Network: s, Listen: s.opt.Listen, Boot: s.booted,
		Ran: func(h *host.Host, command string) {
			if s.opt.Ran != nil {
				s.opt.Ran(s.address(h), command)
			}
		},
	}
}

// address is the first address that a host has now.
func (s *Site) address(h *host.Host) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.byHost[h]
	if m != nil && len(m.nics) > 0 && len(m.nics[0].addrs) > 0 {
		return m.nics[0].addrs[0].Addr().String()
	}
	return h.Addr()
}

// enter makes a machine known.
func (s *Site) enter(m *Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.site, m.arp, m.flows = s, map[netip.Addr]*neighbour{}, map[*Flow]bool{}
	s.machines = append(s.machines, m)
	if m.Host != nil {
		s.byHost[m.Host] = m
		m.Host.Forward = func(ctx context.Context, to string) (net.Conn, error) { return s.Dial(ctx, m, to) }
	}
}

// Changed is called by hosts whose services or power changed.
func (s *Site) Changed(h *host.Host) {
	up := h.Up()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.byHost[h]
	if m == nil || m.isUp == up {
		return
	}
	m.isUp = up
	if up {
		if m.Kind == Physical {
			s.wg.Go(func() { s.autostart(m) })
		}
		return
	}
	m.networkDown()
	if m.Kind == Physical && s.ctx.Err() == nil {
		for _, d := range m.domains {
			if vm := d.running; vm != nil {
				d.running, vm.runsOn = nil, nil
				s.wg.Go(vm.Host.PowerOff)
			}
		}
		maps.DeleteFunc(m.domains, func(_ string, d *domain) bool { return !d.persistent })
	}
}

// networkDown is what a machine that goes off takes along. Site.mu is held.
func (m *Machine) networkDown() {
	if m.vrrp != nil {
		m.vrrp.vanish(true)
	}
	for _, n := range m.nics {
		n.addrs = nil
	}
	clear(m.arp)
	m.routes = nil
	m.proxy, m.super, m.dns = nil, nil, nil
	m.cut("the machine " + m.label + " went off")
}

// booted configures the network of a machine whose kernel has just started.
func (s *Site) booted(h *host.Host) {
	s.mu.Lock()
	m := s.byHost[h]
	if m != nil {
		for _, n := range m.nics {
			n.addrs = nil
		}
		m.routes, m.vrrp, m.proxy, m.super, m.dns = nil, nil, nil, nil, nil
	}
	s.mu.Unlock()
	if m == nil {
		return
	}
	for _, line := range m.ifup("") {
		_ = h.Append("/var/log/ifup.log", []byte(line+"\n"))
	}
}

// Machine finds a machine that is on by one of its addresses; nil: none.
func (s *Site) Machine(addr string) *Machine {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		if m.owns(ip) && m.alive() {
			return m
		}
	}
	return nil
}

// Named returns the machines with a name, in the order they were made: the
// old node before the new one.
func (s *Site) Named(name string) []*Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Machine
	for _, m := range s.machines {
		if m.Name == name && m.Host != nil {
			out = append(out, m)
		}
	}
	return out
}

// Machines returns all machines with a host, in the order they were made.
func (s *Site) Machines() []*Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.machines), func(m *Machine) bool { return m.Host == nil })
}

// Damage is what was done to the site that nobody can want, in order.
func (s *Site) Damage() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.damage)
}

func (s *Site) hurt(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurtLocked(format, a...)
}

func (s *Site) hurtLocked(format string, a ...any) {
	s.damage = append(s.damage, fmt.Sprintf(format, a...))
}

// Duplicates are the addresses that two machines were seen to have at once.
func (s *Site) Duplicates() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.duplicates))
}

// Refused is what was asked for and is not simulated.
func (s *Site) Refused() []string {
	var out []string
	for _, m := range s.Machines() {
		lines := m.Host.Refused()
		s.mu.Lock()
		if m.web != nil {
			lines = append(lines, m.web.Refused()...)
		}
		s.mu.Unlock()
		for _, line := range lines {
			out = append(out, m.label+": "+line)
		}
	}
	return out
}

// Label names a machine among those of its name, as "proxy0" and "proxy0#2".
func (m *Machine) Label() string { return m.label }

// Addresses are those that the machine has now.
func (m *Machine) Addresses() []string {
	m.site.mu.Lock()
	defer m.site.mu.Unlock()
	var out []string
	for _, n := range m.nics {
		for _, p := range n.addrs {
			out = append(out, p.Addr().String())
		}
	}
	return out
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}

// newMAC is what gen_mac.py makes: 00:16:3e and three random octets.
func newMAC() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("00:16:3e:%02x:%02x:%02x", b[0], b[1], b[2])
}

func uuid() string {
	id := newID()
	return strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
}
