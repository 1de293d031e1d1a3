package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Section 6.3: the role's own data goes from the old machines to the new ones,
// and what the programs make of it is compared.

// maxRestored bounds what is copied from an old machine.
const maxRestored = 64 << 20

// A reader says what programs make of their files.
type reader string

const (
	readsNginx reader = "nginx"
	readsBind  reader = "bind"
)

// read gives the meaning of the files on a machine, a line each, in no order,
// without secrets.
func (r reader) read(ctx context.Context, l *link) ([]string, error) {
	switch r {
	case readsNginx:
		return readNginx(ctx, l)
	case readsBind:
		return readBind(ctx, l)
	}
	return nil, nil
}

// besides lists the files that the configuration of the old machine names. own:
// what a new machine has under such a name is its packages' and stays; what
// differs in it is compared.
func (r reader) besides(ctx context.Context, old *link) (files []string, own bool, err error) {
	switch r {
	case readsNginx:
		files, err = nginxBesides(ctx, old)
		return files, true, err
	case readsBind:
		files, err = bindBesides(ctx, old)
	}
	return files, false, err
}

// settled tells lines that stay as they are while a machine serves; others are
// compared only until it does.
func (r reader) settled(line string) bool {
	return r != readsBind || !strings.HasPrefix(line, zoneLine)
}

// dataResult is what was carried over to one machine.
type dataResult struct {
	Path  string   `json:"path"`
	Files []string `json:"files,omitempty"` // besides
	Lines string   `json:"lines,omitempty"` // blob: what the old machine's programs make of it
}

func (r *rebuild) restoreData() engine.Step {
	var lines []string
	for _, d := range r.role.restore {
		line := d.path + ", owner " + d.owner
		if d.absent {
			line += ", where the new machine has none"
		}
		for _, cmd := range []string{d.before, d.test, d.after} {
			if cmd != "" {
				line += "; " + cmd
			}
		}
		if d.reader != "" {
			line += "; compared as " + string(d.reader) + " reads it"
		}
		lines = append(lines, line)
	}
	return engine.Step{
		ID: "6.3-restore", Section: "6.3", Effect: engine.SetState, NoUndo: "the new machines go as a whole",
		Title: "copy the role's own data from the old machines, and compare what the programs make of it", Lines: lines,
		Observe: observeByDoing, // copying again gives the same
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if len(r.role.restore) == 0 {
				return engine.Proposal{NotApplicable: "nodes of this role have none"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			out := map[string][]dataResult{}
			for _, n := range r.nodes() {
				res, err := r.carryData(ctx, a, n, func(restored) bool { return true })
				if err != nil {
					return nil, err
				}
				out[n.Name] = res
			}
			return out, nil
		},
	}
}

// refreshData carries over once more what programs have written since.
func (r *rebuild) refreshData(i int) engine.Step {
	n := &r.f.Nodes[i]
	changes := func(d restored) bool { return d.changes }
	var lines []string
	for _, d := range r.role.restore {
		if d.changes {
			lines = append(lines, d.path+" and what it names")
		}
	}
	return engine.Step{
		ID: r.sec(i) + "-data", Section: r.sec(i), Effect: engine.SetState, NoUndo: "the new machine is switched off as a whole",
		Title: "copy what has changed of the role's data from the old " + n.Name + " since 6.3", Lines: lines,
		Observe: observeByDoing,
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if !slices.ContainsFunc(r.role.restore, changes) {
				return engine.Proposal{NotApplicable: "data of this role does not change by itself"}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			return r.carryData(ctx, a, n, changes)
		},
	}
}

// carryData copies the data of a node, as far as it is wanted.
func (r *rebuild) carryData(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, want func(restored) bool) ([]dataResult, error) {
	_, fresh, _, err := r.fresh(a, n, n.Address)
	if err != nil {
		return nil, err
	}
	var out []dataResult
	for k, d := range r.role.restore {
		if !want(d) {
			continue
		}
		old, err := r.oldData(ctx, a, n, d)
		if err != nil {
			return nil, err
		}
		res, err := r.carry(ctx, a, n, d, fmt.Sprintf("%s-%s-%d", a.RunID(), a.StepID(), k), old, fresh)
		if err != nil {
			return nil, fmt.Errorf("new %s: %s: %w", n.Name, d.path, err)
		}
		out = append(out, res)
	}
	return out, nil
}

// oldTree is what is kept of a restored tree of an old machine.
type oldTree struct {
	paths []string // the tree, and the files that it names; none: there is none
	own   bool     // see besides
	data  []byte   // archive of them
	lines []string // what the programs make of it
}

// flushData has the programs of an old machine write what they have in memory.
func flushData(ctx context.Context, l *link, d restored) error {
	if d.flush == "" {
		return nil
	}
	_, err := run(ctx, l.held(), d.flush+" </dev/null >&2 || :")
	return err
}

// readTree reads a tree of an old machine, with all that belongs to it.
func readTree(ctx context.Context, l *link, d restored) (oldTree, error) {
	var t oldTree
	out, err := run(ctx, l, "if [ -e "+shellq.Quote(d.path)+" ]; then echo yes; fi")
	if err != nil {
		return t, err
	}
	if out == "" {
		if !d.absent {
			err = fmt.Errorf("there is no %s", d.path)
		}
		return t, err
	}
	more, own, err := d.reader.besides(ctx, l)
	if err != nil {
		return t, err
	}
	// What lies in the tree travels with it.
	more = slices.DeleteFunc(more, func(p string) bool { return p == d.path || strings.HasPrefix(p, d.path+"/") })
	slices.Sort(more)
	t.paths, t.own = append([]string{d.path}, slices.Compact(more)...), own
	if t.data, err = packTree(ctx, l, d, t.paths); err != nil {
		return t, err
	}
	t.lines, err = d.reader.read(ctx, l)
	return t, err
}

// oldData gives a tree of a node's old machine.
func (r *rebuild) oldData(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, d restored) (oldTree, error) {
	if r.inPlace() {
		return r.recordedTree(a, n, d)
	}
	_, l, err := r.old(n)
	if err != nil {
		return oldTree{}, err
	}
	if err := flushData(ctx, l, d); err != nil {
		return oldTree{}, fmt.Errorf("old %s: %w", n.Name, err)
	}
	t, err := readTree(ctx, l, d)
	return t, wrapNode("old "+n.Name, err)
}

// carry copies one tree and compares. It is copied once under a key: what
// somebody mends on the new machine afterwards stays.
func (r *rebuild) carry(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, d restored, key string, old oldTree, fresh *link) (dataResult, error) {
	res := dataResult{Path: d.path}
	paths, err := d.wanted(ctx, old, fresh)
	if err != nil {
		return res, err
	}
	if len(paths) > 0 {
		if err := unpackTree(ctx, fresh, d, key, paths, old.data); err != nil {
			return res, err
		}
		res.Files = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == d.path })
		for _, p := range res.Files {
			a.Progress("%s: carried over: %s", n.Name, p)
		}
	}
	for _, cmd := range []string{d.test, d.after} {
		if cmd == "" {
			continue
		}
		var said bytes.Buffer
		if err := fresh.held().Run(ctx, "{ "+cmd+"; } </dev/null 2>&1", nil, &said, &said); err != nil {
			return res, fmt.Errorf("%s: %w: %s", cmd, err, lastLines(said.String()))
		}
	}
	if d.reader == "" {
		return res, nil
	}
	if res.Lines, err = putJSON(a, old.lines); err != nil {
		return res, err
	}
	is, err := d.reader.read(ctx, fresh)
	if err != nil {
		return res, err
	}
	if lost := r.lost(d, old.lines, is); lost != "" {
		return res, fmt.Errorf("the new machine lacks what the old one has: %s; bring it there by hand, or list it in rebuild.accept in a new plan, and resume", lost)
	}
	return res, nil
}

// wanted are the files of an old tree that a new machine gets.
func (d restored) wanted(ctx context.Context, old oldTree, fresh *link) ([]string, error) {
	if len(old.paths) == 0 || !d.absent && !old.own {
		return old.paths, nil
	}
	// Which of them does the new machine have? A package may bring a directory
	// with nothing in it.
	out, err := run(ctx, fresh, "for f in "+shellq.Join(old.paths...)+`; do if [ -d "$f" ]; then if [ -n "$(ls -A "$f")" ]; then echo "$f"; fi; elif [ -e "$f" ]; then echo "$f"; fi; done`)
	if err != nil {
		return nil, err
	}
	has := strings.Split(out, "\n")
	return slices.DeleteFunc(slices.Clone(old.paths), func(p string) bool { return slices.Contains(has, p) && (d.absent || p != d.path) }), nil
}

// packTree gives the files as an archive. Links are followed: what they lead to
// is what counts.
func packTree(ctx context.Context, l *link, d restored, paths []string) ([]byte, error) {
	cmd := "tar -C / -chf - "
	if d.skip != "" {
		cmd += shellq.Quote("--exclude="+d.skip) + " "
	}
	var out bytes.Buffer
	var stderr bytes.Buffer
	err := l.Run(ctx, cmd+"-- "+shellq.Join(relative(paths)...), nil, &limited{w: &out, left: maxRestored + 1}, &stderr)
	switch {
	case out.Len() > maxRestored:
		return nil, fmt.Errorf("%s is larger than %d MiB; copy it by hand, and leave it out of the profile", strings.Join(paths, ", "), maxRestored>>20)
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w: %s", strings.Join(paths, ", "), err, lastLines(stderr.String()))
	}
	return out.Bytes(), nil
}

func relative(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, strings.TrimPrefix(path.Clean(p), "/"))
	}
	return out
}

// unpackTree puts paths of an archive of packTree in place, once under a key. Owners do
// not travel by number: the new release may have others.
func unpackTree(ctx context.Context, l *link, d restored, key string, paths []string, data []byte) error {
	before := ""
	if d.before != "" {
		before = d.before + " </dev/null >&2 || exit 1\n"
	}
	var stderr bytes.Buffer
	err := l.held().Run(ctx, fmt.Sprintf(`m=/var/lib/upgradectl/data-%s
if [ "$(cat "$m" 2>/dev/null)" = %s ]; then exit 0; fi
%star -C / --no-same-owner -xf - -- %s || exit 1
chown -R %s %s || exit 1
mkdir -p /var/lib/upgradectl && echo %s >"$m" && sync`, shellq.Quote(key), sum(data), before, shellq.Join(relative(paths)...), shellq.Quote(d.owner), shellq.Join(paths...), sum(data)),
		bytes.NewReader(data), io.Discard, &stderr)
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(stderr.String()))
	}
	return nil
}

// lost names what of the old machine's lines the new one's are without, unless
// the configuration accepts it.
func (r *rebuild) lost(d restored, was, is []string) string {
	have := map[string]bool{}
	for _, line := range is {
		have[line] = true
	}
	var out []string
	for _, line := range was {
		if !have[line] && !r.accepted(string(d.reader), line) {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if n := len(out); n > 10 {
		out = append(out[:10], fmt.Sprintf("and %d more", n-10))
	}
	return strings.Join(out, "; ")
}

// accepted tells a loss that the configuration lists.
func (r *rebuild) accepted(area, key string) bool {
	return slices.ContainsFunc(r.c.Accept, func(s string) bool {
		section, pattern, _ := strings.Cut(s, " ")
		pattern = strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
		return section == area && regexp.MustCompile("(?s)^"+pattern+"$").MatchString(key)
	})
}

// lastLines is the end of what a program said, where it says why.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	text = strings.Join(lines[max(0, len(lines)-4):], "; ")
	return strings.ToValidUTF8(text[max(0, len(text)-600):], "")
}

// dataLeft says what of the data that was carried over the node's new machine
// has lost since: nothing, before it serves.
func (r *rebuild) dataLeft(ctx context.Context, a *engine.Act, i int) (string, error) {
	n := &r.f.Nodes[i]
	if len(r.role.restore) == 0 {
		return "", nil
	}
	var all map[string][]dataResult
	if ok, err := a.Result(r.stepID(i, "6.3-restore"), &all); err != nil || !ok {
		return "", errors.Join(errors.New("internal error: no data recorded"), err)
	}
	results := slices.Clone(all[n.Name])
	var again []dataResult // of the switch: that is newer
	if ok, err := a.Result(r.sec(i)+"-data", &again); err != nil {
		return "", err
	} else if ok {
		for _, res := range again {
			for k := range results {
				if results[k].Path == res.Path {
					results[k] = res
				}
			}
		}
	}
	addr, serves := n.Address, false
	var done Machine
	if ok, err := a.Result(r.sec(i)+"-address", &done); err != nil {
		return "", err
	} else if ok {
		addr, serves = n.Final, true
	}
	_, l, _, err := r.fresh(a, n, addr)
	if err != nil {
		return "", err
	}
	for _, d := range r.role.restore {
		k := slices.IndexFunc(results, func(res dataResult) bool { return res.Path == d.path })
		if d.reader == "" || k < 0 {
			continue
		}
		b, err := a.Blob(results[k].Lines)
		if err != nil {
			return "", err
		}
		var was []string
		if err := json.Unmarshal(b, &was); err != nil {
			return "", fmt.Errorf("cannot read the recorded data: %w", err)
		}
		is, err := d.reader.read(ctx, l)
		if err != nil {
			return "", fmt.Errorf("new %s: %w", n.Name, err)
		}
		if serves {
			was = slices.DeleteFunc(was, func(line string) bool { return !d.reader.settled(line) })
		}
		if lost := r.lost(d, was, is); lost != "" {
			return d.path + ": " + lost, nil
		}
	}
	return "", nil
}
