package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
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
		q := h.rootProc(p, args, io.Discard)
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
	b.wg.Add(1) // the caller runs inside b
	go func() {
		defer b.wg.Done()
		status := run()
		h.setUnit(name, func(t *transient) { t.active, t.failed = false, status != 0 && status != 143 })
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

func cmdSystemctl(_ context.Context, p *Proc) int {
	f, ok := p.flags("--all", "--plain", "--no-legend", "--full", "--type=", "--no-block", "-p=")
	if !ok {
		return statusUnknownFlag
	}
	if t, has := f.val["--type"]; has && t != "service" && t != "service,timer" || len(f.rest) == 0 {
		return p.refusef("only services")
	}
	h, verb := p.Host, f.rest[0]
	listing := verb == "list-units" || verb == "list-unit-files"
	if verb == "show" && f.val["-p"] == "ActiveState" && len(f.is) == 0 && len(f.val) == 1 && len(f.rest) == 2 {
		fmt.Fprintln(p.Stdout, "ActiveState="+h.activeState(unitName(f.rest[1])))
		return 0
	}
	if verb == "show" && f.val["-p"] == "TriggeredBy" && len(f.is) == 0 && len(f.val) == 1 && len(f.rest) == 2 {
		fmt.Fprintln(p.Stdout, "TriggeredBy=") // there are no sockets, timers or paths here
		return 0
	}
	if verb == "is-system-running" && len(f.is)+len(f.val) == 0 && len(f.rest) == 1 {
		h.mu.Lock()
		booting := h.booting
		h.mu.Unlock()
		if booting {
			fmt.Fprintln(p.Stdout, "starting")
			return 1
		}
		fmt.Fprintln(p.Stdout, "running")
		return 0
	}
	if verb == "stop" && f.is["--no-block"] && len(f.is)+len(f.val) == 1 && p.p.cred.uid == 0 {
		status := 0
		for _, name := range f.rest[1:] {
			if _, known := h.unitFile(unitName(name)); !known {
				fmt.Fprintf(p.Stderr, "Failed to stop %s: Unit %s not loaded.\n", name, name)
				status = 5
				continue
			}
			b := p.p.boot
			b.wg.Add(1) // p runs inside b
			go func() {
				defer b.wg.Done()
				h.stopUnit(unitName(name))
			}()
		}
		return status
	}
	if listing != (f.is["--no-legend"] && f.is["--full"]) || !listing && len(f.is)+len(f.val) > 0 {
		return p.refusef("these flags with %s", verb)
	}
	if listing && len(f.rest) > 1 || !listing && verb != "daemon-reload" && len(f.rest) != 2 {
		return p.refusef("%d operands of %s", len(f.rest)-1, verb)
	}
	switch verb {
	case "list-units":
		return p.listUnits(f)
	case "list-unit-files":
		for _, name := range h.unitNames() {
			state := "disabled"
			if h.unitEnabled(name) {
				state = "enabled"
			}
			fmt.Fprintf(p.Stdout, "%-40s %s\n", name, state)
		}
		return 0
	case "is-active":
		state := h.activeState(unitName(f.rest[1]))
		fmt.Fprintln(p.Stdout, state)
		return 3 * boolInt(state != "active")
	case "is-enabled":
		name := unitName(f.rest[1])
		if _, ok := h.unitFile(name); !ok {
			fmt.Fprintf(p.Stderr, "Failed to get unit file state for %s: No such file or directory\n", name)
			return 1
		}
		if h.unitMasked(name) {
			fmt.Fprintln(p.Stdout, "masked")
			return 1
		}
		if !h.unitEnabled(name) {
			fmt.Fprintln(p.Stdout, "disabled")
			return 1
		}
		fmt.Fprintln(p.Stdout, "enabled")
		return 0
	case "start", "stop", "enable", "disable", "restart", "daemon-reload", "reset-failed", "mask", "unmask":
		if p.p.cred.uid != 0 {
			fmt.Fprintf(p.Stderr, "Failed to %s: Interactive authentication required.\n", verb)
			return 1
		}
	default:
		return p.refusef("verb %s", verb)
	}
	if verb == "daemon-reload" || verb == "reset-failed" { // starts are not counted here
		return 0
	}
	name := unitName(f.rest[1])
	if verb == "mask" || verb == "unmask" {
		return p.maskUnit(name, verb == "mask")
	}
	_, known := h.unitFile(name)
	if t := h.unitState(name); !known && !(t.dynamic && verb == "stop") {
		fmt.Fprintf(p.Stderr, "Failed to %s %s: Unit %s not found.\n", verb, name, name)
		if verb == "enable" || verb == "disable" {
			return 1
		}
		return 5
	}
	switch verb {
	case "enable", "disable":
		h.enableUnit(name, verb == "enable")
		return 0
	case "stop":
		h.stopUnit(name)
		return 0
	case "restart":
		h.stopUnit(name)
	}
	if h.unitMasked(name) {
		fmt.Fprintf(p.Stderr, "Failed to %s %s: Unit %s is masked.\n", verb, name, name)
		return 1
	}
	if err := h.startUnit(p.p.boot, name); err != nil {
		fmt.Fprintf(p.Stderr, "Job for %s failed because the control process exited with error code. See \"systemctl status %s\" and \"journalctl -xe\" for details.\n", name, name)
		return 1
	}
	return 0
}

func (h *Host) activeState(name string) string {
	switch t := h.unitState(name); {
	case t.active:
		return "active"
	case t.failed:
		return "failed"
	}
	return "inactive"
}

func (p *Proc) listUnits(f flags) int {
	if !f.is["--all"] || !f.is["--plain"] {
		return p.refusef("list-units without --all --plain")
	}
	h := p.Host
	names := h.unitNames()
	h.mu.Lock()
	for name, t := range h.transient {
		if t.dynamic && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	h.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".timer") && f.val["--type"] == "service" {
			continue
		}
		t := h.unitState(name)
		active, sub := "inactive", "dead"
		switch {
		case t.active && strings.HasSuffix(name, ".timer"):
			active, sub = "active", "waiting"
		case t.active:
			active, sub = "active", "running"
		case t.failed:
			active, sub = "failed", "failed"
		}
		desc := t.desc
		if set, ok := h.unitFile(name); ok {
			desc = set["Description"]
		}
		fmt.Fprintf(p.Stdout, "%-40s loaded %-8s %-7s %s\n", name, active, sub, desc)
	}
	if _, typed := f.val["--type"]; !typed {
		fmt.Fprintf(p.Stdout, "%-40s loaded %-8s %-7s %s\n", "multi-user.target", "active", "active", "Multi-User System")
	}
	return 0
}

// cmdSystemdRun is systemd-run --unit=NAME --collect [--quiet] /bin/sh FILE.
func cmdSystemdRun(_ context.Context, p *Proc) int {
	f, ok := p.flags("+", "--unit=", "--collect", "--quiet")
	if !ok {
		return statusUnknownFlag
	}
	if f.val["--unit"] == "" || !f.is["--collect"] || len(f.rest) < 2 || f.rest[0] != "/bin/sh" {
		return p.refusef("only systemd-run --unit=NAME --collect [--quiet] /bin/sh FILE")
	}
	h, name := p.Host, unitName(f.val["--unit"])
	if p.p.cred.uid != 0 {
		return p.failf(1, "Failed to start transient service unit: Access denied")
	}
	_, exists := h.unitFile(name)
	h.mu.Lock()
	if exists || h.transient[name] != nil {
		h.mu.Unlock()
		fmt.Fprintf(p.Stderr, "Failed to start transient service unit: Unit %s already exists.\n", name)
		return 1
	}
	h.transient[name] = &transient{active: true, dynamic: true, desc: strings.Join(f.rest, " ")}
	h.mu.Unlock()
	b, ok := h.enter()
	if !ok {
		return 1
	}
	c := h.fork(b, b.ctx, &process{args: f.rest, unit: name})
	go func() {
		defer b.wg.Done()
		status := c.statusAfter(h.execute(c.ctx, h.rootProc(c, f.rest, io.Discard), f.rest))
		c.end(status)
		h.mu.Lock()
		delete(h.transient, name) // --collect
		h.mu.Unlock()
	}()
	if !f.is["--quiet"] {
		fmt.Fprintf(p.Stderr, "Running as unit: %s\n", name)
	}
	return 0
}

// validJSON checks /etc/docker/daemon.json as the daemon does.
func (h *Host) validJSON(name string) error {
	data, err := h.tree.readFile(cred{}, name)
	if err != nil {
		return nil // the file is optional
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("unable to configure the Docker daemon with file %s: %w", path.Base(name), err)
	}
	return nil
}
