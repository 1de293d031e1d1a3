package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	unitDir = "/usr/lib/systemd/system"
	unitEtc = "/etc/systemd/system"
)

// transient is the state of a unit in the current boot.
type transient struct {
	active  bool
	failed  bool
	dynamic bool // made by systemd-run
	desc    string
	main    *process // of a simple unit: the end of another one says nothing about the unit
}

func unitName(name string) string {
	for _, kind := range []string{".service", ".target", ".timer", ".socket"} {
		if strings.HasSuffix(name, kind) {
			return name
		}
	}
	return name + ".service"
}

// placeUnit writes a unit file.
func (h *Host) placeUnit(u Unit) {
	name := unitName(u.Name)
	kind := "simple"
	if u.Forking {
		kind = "forking"
	}
	if name != "docker.service" || u.Start != "" {
		desc := u.Description
		if desc == "" {
			desc = u.Name
		}
		text := fmt.Sprintf("[Unit]\nDescription=%s\n\n[Service]\nType=%s\nExecStart=%s\n\n[Install]\nWantedBy=multi-user.target\n", desc, kind, u.Start)
		_ = h.WriteFile(unitDir+"/"+name, []byte(text), 0o644) // as root on our tree
	}
	h.enableUnit(name, u.Enabled)
}

func (h *Host) enableUnit(name string, on bool) {
	link := unitEtc + "/multi-user.target.wants/" + name
	_ = h.tree.remove(cred{}, link, false) // may be missing
	if on {
		_ = h.tree.symlink(cred{}, unitDir+"/"+name, link)
	}
}

func (h *Host) unitEnabled(name string) bool {
	_, err := h.tree.stat(cred{}, unitEtc+"/multi-user.target.wants/"+name, false)
	return err == nil
}

// unitFile reads the settings of a unit; ok is false when there is none.
func (h *Host) unitFile(name string) (map[string]string, bool) {
	for _, dir := range []string{unitEtc, unitDir} {
		data, err := h.tree.readFile(cred{}, dir+"/"+name)
		if err != nil {
			continue
		}
		out := map[string]string{}
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				out[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
		return out, true
	}
	return nil, false
}

func (h *Host) enabledUnits() []string {
	entries, err := h.tree.readDir(cred{}, unitEtc+"/multi-user.target.wants")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.SortStableFunc(names, func(a, b string) int { // sshd first: nothing depends on the rest
		return boolInt(b == "sshd.service") - boolInt(a == "sshd.service")
	})
	return names
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *Host) setUnit(name string, f func(*transient)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.transient[name]
	if t == nil {
		t = &transient{}
		h.transient[name] = t
	}
	f(t)
}

func (h *Host) unitState(name string) transient {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.transient[name]; t != nil {
		return *t
	}
	return transient{}
}

// startUnit starts a unit and waits until it is up.
func (h *Host) startUnit(b *boot, name string) error {
	set, ok := h.unitFile(name)
	if !ok {
		return fs.ErrNotExist
	}
	if h.unitState(name).active || !h.conditions(name) {
		return nil
	}
	if h.unitMasked(name) {
		return errors.New("unit " + name + " is masked")
	}
	fail := func(err error) error {
		h.setUnit(name, func(t *transient) { t.active, t.failed = false, true })
		return err
	}
	up := func() {
		h.setUnit(name, func(t *transient) { t.active, t.failed, t.desc = true, false, set["Description"] })
	}
	switch name {
	case "docker.service":
		if err := h.dock.start(b); err != nil {
			return fail(err)
		}
		up()
		return nil
	case "sshd.service", "crond.service":
		args := strings.Fields(set["ExecStart"])
		p := h.fork(b, b.ctx, &process{args: args, exe: args[0], unit: name, ext: true})
		up()
		if name == "crond.service" {
			b.wg.Add(1) // the caller runs inside b
			go func() {
				defer b.wg.Done()
				h.crond(b, p)
			}()
		}
		return nil
	}
	if strings.HasSuffix(name, ".timer") {
		// Its process is systemd's own in life; this one ends with the unit.
		p := &process{unit: name, ext: true}
		h.fork(b, b.ctx, p)
		up()
		b.wg.Add(1)
		go func() {
			defer b.wg.Done()
			h.timer(b, p, name, set["OnUnitActiveSec"])
		}()
		return nil
	}
	args := []string{"/bin/sh", "-c", set["ExecStart"]}
	p := h.fork(b, b.ctx, &process{args: args, unit: name})
	run := func() int {
		q := h.unitProc(p, args)
		status := p.statusAfter(h.execute(p.ctx, q, args))
		p.end(status)
		return status
	}
	if set["Type"] == "forking" {
		if status := run(); status != 0 {
			return fail(fmt.Errorf("exit status %d", status))
		}
		up()
		return nil
	}
	up()
	h.setUnit(name, func(t *transient) { t.main = p })
	b.wg.Add(1) // the caller runs inside b
	go func() {
		defer b.wg.Done()
		status := run()
		h.setUnit(name, func(t *transient) {
			if t.main == p { // who has waited for its end may have started it anew
				t.active, t.failed = false, status != 0 && status != 143
			}
		})
	}()
	return nil
}

// conditions reports whether the conditions in the unit's drop-ins hold: else
// systemd does not start it, and that is no failure.
func (h *Host) conditions(name string) bool {
	dir := unitEtc + "/" + name + ".d"
	entries, err := h.tree.readDir(cred{}, dir)
	if err != nil {
		return true // none
	}
	for _, e := range entries {
		data, err := h.tree.readFile(cred{}, dir+"/"+e.Name())
		if err != nil || !strings.HasSuffix(e.Name(), ".conf") {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			path, ok := strings.CutPrefix(line, "ConditionPathExists=")
			if !ok {
				if line != "" && line != "[Unit]" {
					h.refuse("drop-in of "+name, line)
				}
				continue
			}
			if _, err := h.tree.stat(cred{}, path, true); err != nil {
				return false
			}
		}
	}
	return true
}

// rootProc is what a program of root's gets that has no terminal.
func (h *Host) rootProc(p *process, args []string, out io.Writer) *Proc {
	return &Proc{
		Host: h, Args: args, Env: map[string]string{"PATH": defaultPath, "HOME": "/root", "USER": "root", "LANG": "C"}, Dir: "/",
		Stdin: noInput{}, Stdout: out, Stderr: out, User: "root", PID: p.pid, p: p, umask: 0o022,
	}
}

// unitProc is a process of a system unit: it has no login's variables, unless
// the unit says User=, which none does here (systemd.exec(5), "Environment
// Variables in Spawned Processes").
func (h *Host) unitProc(p *process, args []string) *Proc {
	q := h.rootProc(p, args, io.Discard)
	delete(q.Env, "HOME")
	delete(q.Env, "USER")
	return q
}

// stopUnit ends the processes of a unit and waits for that.
func (h *Host) stopUnit(name string) {
	if name == "docker.service" {
		h.dock.stop()
	}
	h.mu.Lock()
	var procs []*process
	for _, p := range h.procs {
		if p.unit == name {
			procs = append(procs, p)
		}
	}
	h.mu.Unlock()
	for _, p := range procs {
		p.signal("TERM")
	}
	limit := time.NewTimer(drainLimit + 5*time.Second)
	defer limit.Stop()
	for _, p := range procs {
		select {
		case <-p.done:
		case <-limit.C:
			p.signal("KILL")
			limit.Reset(0)
		case <-p.boot.ctx.Done():
			return
		}
	}
	h.setUnit(name, func(t *transient) { t.active, t.failed = false, false })
}

func (h *Host) unitNames() []string {
	names := map[string]bool{}
	for _, dir := range []string{unitDir, unitEtc} {
		entries, err := h.tree.readDir(cred{}, dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".service") || strings.HasSuffix(e.Name(), ".timer") {
				names[e.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
