package nginx

import "strings"

// servers is an upstream with the servers nginx gives it, from all its includes.
type servers struct {
	block   Directive
	name    string
	proto   string
	members []member
	hash    string // "ip_hash", "hash", "" for all methods that do not map clients to servers
	steady  bool   // the hash is consistent
	dynamic string // what gives it servers at run time, or ""
}

type member struct {
	d            Directive
	down, backup bool
}

func newMember(d Directive) member {
	m := member{d: d}
	for i := 2; i < d.Len(); i++ {
		switch d.Arg(i) {
		case "down":
			m.down = true
		case "backup":
			m.backup = true
		}
	}
	return m
}

// add takes a directive of the upstream block into account.
func (s *servers) add(d Directive) {
	if d.IsBlock() && !d.IsLua() {
		return
	}
	switch name := d.Name(); {
	case name == "server" && !d.IsBlock() && d.Len() > 1:
		s.members = append(s.members, newMember(d))
	case name == "ip_hash":
		s.hash = name
	case name == "hash":
		s.hash, s.steady = name, d.Arg(d.Len()-1) == "consistent"
	case strings.HasPrefix(name, "balancer_by_lua") || name == "upsync" || name == "state" || name == "dynamic_resolve":
		s.dynamic = name
	}
}

// without says why the upstream cannot do without the servers that gone names,
// or nil.
func (s *servers) without(gone func(Directive) bool) error {
	var active, first int // active: not down; first: not backup
	for _, m := range s.members {
		if gone(m.d) {
			continue
		}
		if !m.backup {
			first++
		}
		if !m.down {
			active++
		}
	}
	left := 0
	for _, m := range s.members {
		if !gone(m.d) {
			left++
		}
	}
	switch {
	case left == 0:
		return ErrLastServer
	case first == 0:
		return ErrOnlyBackupLeft
	case active == 0:
		return ErrOnlyDownLeft
	}
	return nil
}

// served says what is wrong with the upstream as it is.
func (s *servers) served() error {
	for d := range s.block.Children() {
		if d.is("include") {
			return nil // only a Tree can tell
		}
	}
	return s.without(func(Directive) bool { return false })
}

// fileServers returns an upstream as far as its own file tells.
func fileServers(block Directive) *servers {
	s := &servers{block: block, name: block.Arg(1)}
	for d := range block.Children() {
		s.add(d)
	}
	return s
}
