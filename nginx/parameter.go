package nginx

import (
	"fmt"
	"strconv"
	"strings"
)

// SetWeight gives the server lines that q means this weight, from 1 on: an
// existing weight is changed in its place, else ` weight=N` is put behind the
// address. nginx knows no weight 0 (ErrWeight). No marker is left: only
// Change.Inverse takes it back.
func (t *Tree) SetWeight(q Query, weight int) (*Change, error) {
	if err := checkQuery(q); err != nil {
		return nil, err
	}
	e := t.editor("set the weight of %s to %d", q, weight)
	for _, r := range e.serverLines(q, "it has no weight") {
		if weight < 1 {
			e.refuse(r, ErrWeight, "")
			continue
		}
		e.weight(r, weight)
	}
	if weight < 1 && len(e.refused) == 0 {
		return nil, fmt.Errorf("cannot %s: %w", e.op, ErrWeight)
	}
	return e.change()
}

func (e *editor) weight(r Ref, weight int) {
	// nginx takes the last one.
	for n := r.d.Len() - 1; n > 1; n-- {
		old, ok := strings.CutPrefix(r.d.Arg(n), "weight=")
		if !ok {
			continue
		}
		w := r.d.Word(n)
		switch v, err := strconv.Atoi(old); {
		case err == nil && v == weight:
			e.already = append(e.already, r)
		case string(w.Raw()) != r.d.Arg(n):
			e.refuse(r, ErrEscaped, "")
		default:
			fe := e.file(r.d.f)
			fe.buf.Replace(int(w.s.start)+len("weight="), int(w.s.end), strconv.Itoa(weight))
			words := r.d.values()
			words[n] = "weight=" + strconv.Itoa(weight)
			fe.changed[r.d.i] = words
			e.touched = append(e.touched, r)
		}
		return
	}
	if weight == 1 {
		e.already = append(e.already, r)
		return
	}
	e.insertWord(r, 1, "weight="+strconv.Itoa(weight))
}

// SetBackup makes the server lines that q means backup servers, which nginx
// asks only when no other one answers. It is refused behind hash, ip_hash and
// random in the same upstream (ErrNotSupportedByMethod) and where only backup
// servers would be left (ErrOnlyBackupLeft). No marker is left: only
// Change.Inverse takes it back.
func (t *Tree) SetBackup(q Query) (*Change, error) {
	if err := checkQuery(q); err != nil {
		return nil, err
	}
	e := t.editor("make %s a backup server", q)
	for _, r := range e.serverLines(q, "it cannot be a backup") {
		if r.Has("backup") {
			e.already = append(e.already, r)
			continue
		}
		e.insertWord(r, r.d.Len()-1, "backup")
	}
	return e.change()
}

// serverLines returns the active server lines that q means and warns of the
// other references.
func (e *editor) serverLines(q Query, why string) []Ref {
	var out []Ref
	for _, r := range e.t.Refs(q) {
		switch {
		case r.Kind == KindComment:
		case r.Kind == KindOff:
			e.leave(r, "it is off")
		case !r.Certain:
			e.leave(r, r.Reason)
		case r.Kind == KindServer:
			out = append(out, r)
		case r.Kind == KindPass || r.Kind == KindValue:
			e.leave(r, why)
		}
	}
	return out
}
