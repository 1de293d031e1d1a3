package host

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

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
	if verb == "daemon-reload" {
		return 0
	}
	name := unitName(f.rest[1])
	if verb == "reset-failed" { // starts are not counted here
		if !h.resetFailed(name) {
			fmt.Fprintf(p.Stderr, "Failed to reset failed state of unit %s: Unit %s is not loaded.\n", name, name)
			return 1
		}
		return 0
	}
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

// resetFailed makes a failed unit an inactive one. A unit that has no file is
// gone then: nothing keeps it.
func (h *Host) resetFailed(name string) bool {
	_, known := h.unitFile(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.transient[name]
	switch {
	case t == nil:
		return known
	case t.dynamic && t.failed:
		delete(h.transient, name)
	default:
		t.failed = false
	}
	return true
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

// oldSystemd says whether this is systemd 219 of CentOS 7, which has no
// --collect: 236 was the first.
func (h *Host) oldSystemd() bool {
	release, err := h.ReadFile("/etc/redhat-release")
	return err == nil && bytes.Contains(release, []byte("release 7."))
}

// cmdSystemdRun is systemd-run --unit=NAME [--collect] [--quiet] /bin/sh FILE.
// A unit that fails keeps its name, unless it is to be collected.
func cmdSystemdRun(_ context.Context, p *Proc) int {
	old := p.Host.oldSystemd()
	if len(p.Args) == 2 && p.Args[1] == "--help" {
		fmt.Fprintln(p.Stdout, "systemd-run [OPTIONS...] {COMMAND} [ARGS...]\n     --unit=UNIT")
		if !old {
			fmt.Fprintln(p.Stdout, "  -G --collect")
		}
		return 0
	}
	f, ok := p.flags("+", "--unit=", "--collect", "--quiet")
	if !ok {
		return statusUnknownFlag
	}
	if f.val["--unit"] == "" || len(f.rest) < 2 || f.rest[0] != "/bin/sh" {
		return p.refusef("only systemd-run --unit=NAME [--collect] [--quiet] /bin/sh FILE")
	}
	if old && f.is["--collect"] {
		return p.failf(1, "unrecognized option '--collect'")
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
		status := c.statusAfter(h.execute(c.ctx, h.unitProc(c, f.rest), f.rest))
		c.end(status)
		h.mu.Lock()
		if status == 0 || status == 143 || f.is["--collect"] {
			delete(h.transient, name)
		} else {
			h.transient[name].active, h.transient[name].failed = false, true
		}
		h.mu.Unlock()
	}()
	if !f.is["--quiet"] {
		fmt.Fprintf(p.Stderr, "Running as unit: %s\n", name)
	}
	return 0
}
