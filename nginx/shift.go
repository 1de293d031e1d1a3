package nginx

// Shift moves all traffic for a host to another one: for each reference the
// edit that is right for it.
//
//   - In an upstream the new server is added behind the old one, with the same
//     parameters, and the old line becomes a comment. Where the new server is
//     there already, the old line becomes a comment alone.
//   - In an upstream that maps clients to servers (ip_hash, hash) the new
//     address takes the place of the old one, so that the clients of the other
//     servers stay where they are; Change.Moves has the figures. Where the new
//     server is there already, the old one is marked down.
//   - In a pass that names the address, and in a value of a set, map, geo or
//     split_clients that reaches a pass, the new address takes its place.
//
// to is a host, or host:port when from has a port. ShiftIn is the first half:
// new servers beside the old ones. Shift after ShiftIn, under the same or
// another tag, does the rest. The way back is Change.Inverse, or ShiftBack where
// others have edited the files meanwhile. Refusals are those of Disable,
// AddServer and Replace.
func (t *Tree) Shift(from Query, to, tag string) (*Change, error) {
	in, err := t.ShiftIn(from, to, tag)
	if err != nil {
		return nil, err
	}
	return in.then(t, func(t *Tree) (*Change, error) { return t.shiftOut(from, to, tag) })
}

// then returns c followed by what step makes of the tree after c.
func (c *Change) then(t *Tree, step func(*Tree) (*Change, error)) (*Change, error) {
	next := t
	var err error
	if !c.Empty() {
		if next, err = t.With(c); err != nil {
			return nil, err
		}
	}
	more, err := step(next)
	if err != nil {
		return nil, err
	}
	return Merge(c, more)
}

func shiftArgs(from Query, to, tag string) (host string, port int, err error) {
	if err := checkArgs(from, tag); err != nil {
		return "", 0, err
	}
	host, port, err = splitHostPort(to)
	if err != nil {
		return "", 0, err
	}
	a, _ := normalHost(from.Host)
	b, _ := normalHost(host)
	switch {
	case port != 0 && from.Port == 0:
		return "", 0, badArgument("cannot shift %s to %s: the new port would stand for every old one; name the old port too", from, to)
	case a == b && (port == 0 || port == from.Port):
		return "", 0, badArgument("cannot shift %s to itself", from)
	}
	return host, port, nil
}

// ShiftIn is the first half of Shift: the new server is added beside the old
// one in every upstream that does not map clients to servers, and both serve.
// What Shift replaces stays as it is. RemoveAdded with the same tag takes it
// back.
func (t *Tree) ShiftIn(from Query, to, tag string) (*Change, error) {
	host, port, err := shiftArgs(from, to, tag)
	if err != nil {
		return nil, err
	}
	e := t.editor("shift %s to %s", from, to)
	c := t.collect()
	a := e.adder(c, host, port, tag)
	for _, r := range c.query(from) {
		switch {
		case e.damaged(r, tag):
		case r.Kind != KindServer || r.Has("down"):
		case !r.Certain:
			e.leave(r, r.Reason)
		case r.hashed():
		default:
			switch there := a.there(r); {
			case there == nil:
				a.add(r)
			case there.Has("down") || there.Has("backup") && !r.Has("backup"):
				e.refuse(*there, ErrExists, "as "+there.State[len(there.State)-1])
			default:
				e.already = append(e.already, *there)
			}
		}
	}
	return e.change()
}

// shiftOut is the second half of Shift.
func (t *Tree) shiftOut(from Query, to, tag string) (*Change, error) {
	host, port, err := shiftArgs(from, to, tag)
	if err != nil {
		return nil, err
	}
	e := t.editor("shift %s to %s", from, to)
	c := t.collect()
	for _, r := range c.query(Query{Host: host, Port: port}) {
		if r.Certain && (r.Kind == KindPass || r.Kind == KindValue) {
			e.warn("%s:%d: %s leads to %s already; take the shift back by its inverse, not by its tag", r.File, r.Line, r.Directive, r.Addr)
		}
	}
	p := e.replacer(c, host, port)
	for _, r := range c.query(from) {
		switch {
		case r.Certain && (r.Kind == KindPass || r.Kind == KindValue):
			p.replace(r)
		case r.Certain && r.Kind == KindServer && !r.Has("down") && r.hashed():
			if p.there(r) == nil {
				p.replace(r)
			} else {
				e.down(r, tag)
			}
		default:
			e.takeOut(r, tag, (*editor).comment)
		}
	}
	return e.change()
}

// ShiftBack takes a Shift back in files that may have been edited since: what
// carries the tag is restored or removed, and where to stands in a pass, in a
// value or, unless it was added there, in an upstream that maps clients to servers,
// from takes its place again. Only these addresses and our own bytes change.
func (t *Tree) ShiftBack(from Query, to, tag string) (*Change, error) {
	host, port, err := shiftArgs(from, to, tag)
	if err != nil {
		return nil, err
	}
	on, err := t.Restore(tag)
	if err != nil {
		return nil, err
	}
	back, err := on.then(t, func(t *Tree) (*Change, error) {
		e := t.editor("shift %s back from %s", from, to)
		c := t.collect()
		was := 0
		if port != 0 {
			was = from.Port
		}
		p := e.replacer(c, from.Host, was)
		q := Query{Host: host, Port: port}
		if port == 0 {
			q.Port = from.Port
		}
		for _, r := range c.query(q) {
			switch {
			case !r.Certain:
			case r.Kind == KindPass || r.Kind == KindValue,
				r.Kind == KindServer && r.hashed() && !e.isAdded(r.d, tag) && p.there(r) == nil:
				p.replace(r)
			}
		}
		return e.change()
	})
	if err != nil {
		return nil, err
	}
	return back.then(t, func(t *Tree) (*Change, error) { return t.RemoveAdded(tag) })
}
