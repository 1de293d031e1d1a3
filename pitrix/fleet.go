package pitrix

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A Fleet is the settings of a firstbox, by file name. Any number of goroutines
// may read one that nobody edits.
type Fleet map[string]*Settings

// ParseFleet reads the plain files of a settings directory, by file name; leave
// sub-directories and hidden files out, as the installer's scripts do. The
// error is of type Problems and holds those of all files.
func ParseFleet(files map[string][]byte) (Fleet, error) {
	fleet := make(Fleet, len(files))
	var problems Problems
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s, err := Parse(name, files[name])
		var found Problems
		switch {
		case errors.As(err, &found):
			problems = append(problems, found...)
		case err != nil:
			return nil, err
		default:
			fleet[name] = s
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return fleet, nil
}

// A Site is what the firstbox's variables and the physical hosts say besides
// the settings. A zero field is not known, and what needs it is not checked.
type Site struct {
	Version  Version             // of the installer
	Region   bool                // the variable is_region is 1
	ZoneIDs  []string            // the variable zone_ids
	Zones    map[string]ZoneSite // by zone_id
	NTP      []string            // the values of the variables ntp_*_address*
	Releases []string            // the os_versions that have a base image and repositories
	Bridges  map[string][]string // by a physical host's management address: its bridges
}

// A ZoneSite is what the variables say of one zone.
type ZoneSite struct {
	ManagementNetwork   netip.Prefix // mgmt_network
	VMBaseNetwork       netip.Prefix // vm_base_network
	VGManagementGateway netip.Addr   // vg_mgmt_network_gateway
}

// node is one settings file of a fleet.
type node struct {
	name string // of the file
	s    *Settings
	role string
	zone string
	vm   bool
}

// nodesOf returns the nodes in the order of their file names.
func nodesOf(fleet Fleet) []*node {
	var out []*node
	for _, name := range slices.Sorted(maps.Keys(fleet)) {
		if s := fleet[name]; s != nil {
			n := &node{name: name, s: s}
			n.role, n.zone = n.get("role"), n.get("zone_id")
			n.vm = n.get("physical_host_network_interface") != ""
			out = append(out, n)
		}
	}
	return out
}

func (n *node) get(key string) string {
	value, _ := n.s.Get(key)
	return value
}

// is reports whether role is one of the node's, which may be a list.
func (n *node) is(role string) bool {
	return slices.Contains(strings.FieldsFunc(n.role, func(r rune) bool { return r == ',' || r == ' ' }), role)
}

// vg asks as the installer's scripts do.
func (n *node) vg() bool { return strings.Contains(n.role, "vgateway") }

// place returns where the key stands.
func (n *node) place(key string) string {
	p := n.problem(key)
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, key)
}

func (n *node) problem(key string) Problem {
	p := Problem{File: n.s.Name(), Line: 1, Col: 1, Key: key}
	if e := n.s.now.find(key); e != nil {
		p.Line, p.Col = e.line, e.start-e.lineStart+1
	}
	return p
}

// ipv4 accepts what every tool reads as the same address.
func ipv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", s)
	}
	return a, err
}

// validNode reports whether the scripts can take name for a node: it becomes a
// word of command lines, a host name and a file name.
func validNode(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c == '_' || c != '-' && !nameByte(c) {
			return false
		}
	}
	return true
}
