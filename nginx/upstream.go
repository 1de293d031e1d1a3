package nginx

import (
	"bytes"
	"strconv"
	"strings"
)

// servers is an upstream with the servers nginx gives it, from all its includes.
type servers struct {
	block   Directive
	name    string
	proto   string
	members []member
	hash    string // "ip_hash", "hash", "" for all methods that do not map clients to servers
	steady  bool   // the hash is consistent
	dynamic string // what gives it servers at run time, or ""
	strict  string // a method that knows no backup servers, or ""
}

// A member is a server line as nginx understands it.
type member struct {
	d            Directive
	down, backup bool
	weight       int
	// after is the method that stands before the line and knows no backup
	// servers, or "". nginx looks at it when it reads the line: the same line
	// before the method is accepted (ngx_http_upstream_server, uscf->flags).
	after string
}

func newMember(d Directive) member {
	m := member{d: d, weight: 1}
	for i := 2; i < d.Len(); i++ {
		w := d.Word(i)
		arg := w.Raw()
		if bytes.IndexByte(arg, '\\') >= 0 {
			arg = []byte(w.Value())
		}
		switch {
		case string(arg) == "down":
			m.down = true
		case string(arg) == "backup":
			m.backup = true
		case bytes.HasPrefix(arg, []byte("weight=")):
			if n, err := strconv.Atoi(string(arg[len("weight="):])); err == nil && n > 0 {
				m.weight = n
			}
		}
	}
	return m
}

// add takes a directive of the upstream block into account.
func (s *servers) add(d Directive) {
	if d.IsBlock() && !d.IsLua() {
		return
	}
	switch name := d.word0(); {
	case name == "server" && !d.IsBlock() && d.Len() > 1:
		m := newMember(d)
		m.after = s.strict
		s.members = append(s.members, m)
	case name == "ip_hash":
		s.hash, s.steady, s.strict = name, false, name
	case name == "hash":
		s.hash, s.steady, s.strict = name, d.Arg(d.Len()-1) == "consistent", name
	case name == "random":
		s.hash, s.steady, s.strict = "", false, name
	case strings.HasPrefix(name, "balancer_by_lua") || name == "upsync" || name == "state" || name == "dynamic_resolve":
		s.dynamic = name
	}
}

// method names the way the upstream maps clients to servers.
func (s *servers) method() string {
	if s.steady {
		return s.hash + " consistent"
	}
	return s.hash
}

// served says why nginx or its clients would suffer from the upstream as it is,
// or nil.
func (s *servers) served() error {
	active, first := 0, 0 // active: not down; first: not backup
	for _, m := range s.members {
		if !m.backup {
			first++
		}
		if !m.down {
			active++
		}
	}
	switch {
	case len(s.members) == 0:
		return ErrLastServer
	case first == 0:
		return ErrOnlyBackupLeft
	case active == 0:
		return ErrOnlyDownLeft
	}
	return nil
}

// unsupported returns a backup server that the method refuses.
func (s *servers) unsupported() (m member, ok bool) {
	for _, m := range s.members {
		if m.backup && m.after != "" {
			return m, true
		}
	}
	return member{}, false
}

// upstreams returns every upstream block of the tree, in the order nginx reads
// them, with the servers of its includes; once for each place it is read at.
func (t *Tree) upstreams() []*servers {
	var out []*servers
	byBlock := map[Directive]*servers{} // in the reading that is under way
	t.Walk(func(c *Cursor) bool {
		switch {
		case c.In("upstream"):
			if s := byBlock[c.Context[len(c.Context)-1]]; s != nil {
				s.add(c.Directive)
			}
			return true
		case c.IsBlock():
			if c.is("upstream") && c.Len() > 1 {
				s := &servers{block: c.Directive, name: c.Arg(1), proto: c.Protocol()}
				byBlock[c.Directive] = s
				out = append(out, s)
				return true
			}
			return len(c.Context) == 0 // http and stream
		}
		return c.is("include")
	})
	return out
}

// fileServers returns an upstream as far as its own file tells. whole is false
// when it has includes.
func fileServers(block Directive) (s *servers, whole bool) {
	s, whole = &servers{block: block, name: block.Arg(1)}, true
	for d := range block.Children() {
		s.add(d)
		if d.is("include") {
			whole = false
		}
	}
	return s, whole
}
