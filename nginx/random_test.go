package nginx_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

// A writer writes random configurations that nginx accepts, in the layouts that
// people and generators use.
type writer struct {
	*rand.Rand
	b      strings.Builder
	eol    string
	hosts  []string // of upstreams
	direct []string // of passes and values
}

func (w *writer) of(list ...string) string { return list[w.IntN(len(list))] }
func (w *writer) host() string             { return w.of(w.hosts...) }

func (w *writer) end() {
	w.b.WriteString(w.of(w.eol, w.eol, w.eol, " ", "", "\t"+w.eol, " # a note"+w.eol, "#note; }"+w.eol, w.eol+w.eol))
}

func (w *writer) line(words ...string) {
	w.b.WriteString(w.of("", "\t", "    ", "  "))
	for i, word := range words {
		if i > 0 {
			w.b.WriteString(w.of(" ", " ", " ", "\t", "  ", w.eol+"\t\t", " # in between;"+w.eol+"  ", w.eol+w.eol+"# a line"+w.eol))
		}
		w.b.WriteString(word)
	}
	w.b.WriteString(w.of("", "", "", " ", w.eol))
	w.b.WriteString(";")
	w.end()
}

func (w *writer) quote(s string) string { return w.of(s, s, s, `"`+s+`"`, `'`+s+`'`) }

func (w *writer) upstream(name string) {
	method := w.of("", "", "", "least_conn", "ip_hash", "hash $uri", "hash $uri consistent", "random two")
	w.b.WriteString("upstream " + w.quote(name) + w.of(" {", "{", w.eol+"{"))
	w.end()
	first := w.IntN(3) > 0
	if method != "" && first {
		w.line(strings.Fields(method)...)
	}
	seen := map[string]bool{}
	left := w.IntN(5)
	for i := 0; i <= left; i++ {
		addr := w.host() + w.of(":8080", ":8080", ":81", "")
		if seen[addr] {
			continue
		}
		seen[addr] = true
		words := []string{"server", w.quote(addr)}
		for range w.IntN(3) {
			words = append(words, w.quote(w.of("weight=2", "max_fails=3", "fail_timeout=10s")))
		}
		if i > 0 && w.IntN(5) == 0 && (method == "" || method == "least_conn") {
			words = append(words, "backup")
		}
		if i > 0 && w.IntN(6) == 0 {
			words = append(words, "down")
		}
		if w.IntN(8) == 0 {
			w.b.WriteString(w.eol + "#server " + addr + ";" + w.eol)
		}
		w.line(words...)
	}
	if method != "" && !first {
		// Behind backup servers nginx takes it, ours must not make it fail.
		w.line(strings.Fields(method)...)
	}
	w.b.WriteString("}")
	w.end()
}

func (w *writer) config() string {
	w.b.WriteString("pid nginx.pid; error_log stderr; events {}" + w.eol + "http {" + w.eol + "access_log off;" + w.eol)
	n := 1 + w.IntN(3)
	for i := range n {
		w.upstream(fmt.Sprintf("up%d", i))
	}
	w.b.WriteString(w.eol + "map $uri $m {" + w.eol)
	w.line("default", w.of(w.of(w.direct...)+":8080", "up0"))
	w.line("/a", w.quote(w.of(w.direct...)))
	w.b.WriteString("}" + w.eol + "server { listen unix:x.sock;" + w.eol)
	w.line("set", "$v", w.quote(w.of(w.direct...)+":81"))
	for i, pass := range []string{"http://up0", "http://" + w.of(w.direct...) + ":8080", "http://" + w.of(w.direct...) + "/x/", "http://$m", "http://$v", fmt.Sprintf("http://UP%d", n-1)} {
		fmt.Fprintf(&w.b, "location /%d/ {", i)
		w.end()
		w.line("proxy_pass", w.quote(pass))
		w.b.WriteString("}")
		w.end()
	}
	fmt.Fprintf(&w.b, "location = /f {")
	w.line("fastcgi_pass", w.of(w.direct...)+":9000")
	w.b.WriteString("}" + w.eol + "}" + w.eol + "}" + w.of("", w.eol))
	return w.b.String()
}

// TestRandomEditsAsNginx shows random configurations to nginx -t before and
// after each edit: what is not refused is accepted, done twice it is done once,
// and it can be taken back byte for byte.
func TestRandomEditsAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	dir := t.TempDir()
	main := filepath.Join(dir, "nginx.conf")
	type verdict struct {
		ok  bool
		out string
	}
	shown := map[string]verdict{} // of one seed: several edits come to the same text
	accepts := func(text []byte) (bool, string) {
		if v, ok := shown[string(text)]; ok {
			return v.ok, v.out
		}
		require.NoError(t, os.WriteFile(main, text, 0o644))
		out, err := exec.Command(binary, "-t", "-q", "-p", dir, "-c", main).CombinedOutput()
		shown[string(text)] = verdict{err == nil, string(out)}
		return err == nil, string(out)
	}
	rounds := 12
	if testenv.RunSlow() {
		rounds = 200
	}
	edits, refusals := 0, map[string]int{}
	for seed := range rounds {
		clear(shown)
		w := &writer{Rand: rand.New(rand.NewPCG(uint64(seed), 3)), eol: "\n"}
		w.hosts = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "[2001:db8::1]", "10.0.0.4"}
		w.direct = w.hosts
		if w.IntN(4) == 0 {
			w.eol = "\r\n"
		}
		text := []byte(w.config())
		tree := load(t, nginx.MapFS{"nginx.conf": text})
		ok, out := accepts(text)
		if !ok && strings.Contains(out, "no servers") {
			continue
		}
		require.True(t, ok, "seed %d: %s\n%s", seed, out, text)
		q := nginx.Query{Host: strings.Trim(w.host(), "[]")}
		if w.IntN(3) == 0 {
			q.Port = 8080
		}
		for name, edit := range map[string]struct {
			do   func(*nginx.Tree) (*nginx.Change, error)
			back func(*nginx.Tree) (*nginx.Change, error)
		}{
			"comment": {func(t *nginx.Tree) (*nginx.Change, error) { return t.Comment(q, "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore("T") }},
			"down":    {func(t *nginx.Tree) (*nginx.Change, error) { return t.SetDown(q, "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore("T", q) }},
			"auto":    {func(t *nginx.Tree) (*nginx.Change, error) { return t.Disable(q, "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore("T") }},
			"add":     {func(t *nginx.Tree) (*nginx.Change, error) { return t.AddServer(q, "10.9.9.9", "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.RemoveAdded("T") }},
			"add2":    {func(t *nginx.Tree) (*nginx.Change, error) { return t.AddServer(q, "10.0.0.3:99", "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.RemoveAdded("T") }},
			"shift":   {func(t *nginx.Tree) (*nginx.Change, error) { return t.Shift(q, "10.9.9.9", "T") }, func(t *nginx.Tree) (*nginx.Change, error) { return t.ShiftBack(q, "10.9.9.9", "T") }},
			"shift2":  {func(t *nginx.Tree) (*nginx.Change, error) { return t.Shift(q, "10.0.0.4", "T") }, nil},
			"replace": {func(t *nginx.Tree) (*nginx.Change, error) { return t.Replace(q, "[2001:db8::9]", "T") }, nil},
			"weight":  {func(t *nginx.Tree) (*nginx.Change, error) { return t.SetWeight(q, 7) }, nil},
			"backup":  {func(t *nginx.Tree) (*nginx.Change, error) { return t.SetBackup(q) }, nil},
		} {
			c, err := edit.do(tree)
			if refused, ok := err.(*nginx.RefusedError); ok {
				for _, r := range refused.Refusals {
					refusals[r.Reason.Error()]++
				}
				continue
			}
			if err != nil {
				if strings.Contains(err.Error(), "to itself") {
					continue
				}
				t.Errorf("seed %d %s %v: %v\n%s", seed, name, q, err, text)
				continue
			}
			if c.Empty() {
				continue
			}
			edits++
			after := c.Files()[0].After
			if ok, out := accepts(after); !ok {
				t.Errorf("seed %d: %s %v is refused: %s\n%s\n%s", seed, name, q, out, c.Diff(), text)
				continue
			}
			next := load(t, nginx.MapFS{"nginx.conf": after})
			if again, err := edit.do(next); err != nil || !again.Empty() {
				t.Errorf("seed %d: %s %v twice: %v\n%s\n%s", seed, name, q, err, c.Diff(), again.Diff())
			}
			if inv := c.Inverse().Files()[0].After; string(inv) != string(text) {
				t.Errorf("seed %d: %s inverse", seed, name)
			}
			for _, r := range next.Refs(q) {
				if (strings.HasPrefix(name, "shift") || name == "auto" || name == "comment" || name == "down") && r.Certain && r.Has("active") && !r.Has("down") {
					t.Errorf("seed %d: %s %v left %v\n%s", seed, name, q, r, c.Diff())
				}
			}
			if edit.back != nil {
				back, err := edit.back(next)
				if err != nil {
					t.Errorf("seed %d: %s %v back: %v\n%s", seed, name, q, err, c.Diff())
				} else if got := back.Files()[0].After; string(got) != string(text) {
					t.Errorf("seed %d: %s %v is not taken back:\n%s\n%s", seed, name, q, c.Diff(), back.Diff())
				}
			}
		}
	}
	t.Logf("%d edits, refused: %v", edits, refusals)
}

// TestOperationsInAnyOrder lets several operations work on one configuration
// and takes them back in another order.
func TestOperationsInAnyOrder(t *testing.T) {
	rounds := 40
	if testenv.RunSlow() {
		rounds = 600
	}
	done, stuck := 0, 0
	for seed := range rounds {
		w := &writer{Rand: rand.New(rand.NewPCG(uint64(seed), 4)), eol: "\n"}
		w.hosts = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "[2001:db8::1]", "10.0.0.4"}
		w.direct = []string{"10.1.0.1"}
		if w.IntN(4) == 0 {
			w.eol = "\r\n"
		}
		text := []byte(w.config())
		now := text
		tree := func() *nginx.Tree { return load(t, nginx.MapFS{"nginx.conf": now}) }
		type op struct {
			name string
			back func(*nginx.Tree) (*nginx.Change, error)
		}
		var ops []op
		var log strings.Builder
		for i := range 4 {
			tag := fmt.Sprintf("t%d", i)
			q := nginx.Query{Host: strings.Trim(w.host(), "[]")}
			var c *nginx.Change
			var err error
			o := op{name: tag, back: func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore(tag) }}
			switch w.IntN(4) {
			case 0:
				c, err = tree().Comment(q, tag)
			case 1:
				c, err = tree().SetDown(q, tag)
			case 2:
				c, err = tree().AddServer(q, fmt.Sprintf("10.9.9.%d", i), tag)
				o.back = func(t *nginx.Tree) (*nginx.Change, error) { return t.RemoveAdded(tag) }
			case 3:
				q.Host = "10.9.9.0" // what an earlier one added
				c, err = tree().SetDown(q, tag)
			}
			if err != nil {
				_, refused := errors.AsType[*nginx.RefusedError](err)
				require.True(t, refused, "seed %d: %v\n%s", seed, err, now)
				continue
			}
			if c.Empty() {
				continue
			}
			now = c.Files()[0].After
			fmt.Fprintf(&log, "== %s\n%s", tag, c.Diff())
			ops = append(ops, o)
			done++
		}
		w.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		for range 2 * len(ops) {
			var left []op
			for _, o := range ops {
				c, err := o.back(tree())
				if err != nil {
					fmt.Fprintf(&log, "== back %s: %v\n", o.name, err)
					left = append(left, o)
					continue
				}
				fmt.Fprintf(&log, "== back %s\n%s", o.name, c.Diff())
				if !c.Empty() {
					now = c.Files()[0].After
				}
			}
			ops = left
		}
		if len(ops) > 0 {
			stuck++
			t.Logf("seed %d stuck:\n%s", seed, log.String())
			continue
		}
		if string(now) != string(text) {
			t.Errorf("seed %d: not the first bytes:\n%s\n%s\n----\n%s", seed, log.String(), text, now)
		}
	}
	t.Logf("%d operations, %d stuck", done, stuck)
}
