package host

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// supervisorConf is where supervisord and supervisorctl look when they are not
// told. A host whose description has it has the two programs.
const supervisorConf = "/etc/supervisord.conf"

// The states of a program, by the names that supervisorctl prints.
const (
	stateStopped  = "STOPPED"
	stateStarting = "STARTING"
	stateRunning  = "RUNNING"
	stateBackoff  = "BACKOFF"
	stateStopping = "STOPPING"
	stateExited   = "EXITED"
	stateFatal    = "FATAL"
)

// supervisor is a running supervisord. Its programs are those that its files
// named when it started.
type supervisor struct {
	h      *Host
	daemon *process
	url    string // of its socket

	mu       sync.Mutex
	programs []*program
	over     bool          // it ends: nothing is started any more
	changed  chan struct{} // closed when a state changes
}

// program is one process that supervisord keeps running.
type program struct {
	settings programSettings

	// guarded by supervisor.mu
	state       string
	why         string // of BACKOFF and FATAL
	began, over time.Time
	proc        *process // the one that runs, or else the last one
	stop        bool     // somebody asked for its end
}

// spec is the name by which supervisorctl knows it.
func (g *program) spec() string {
	if g.settings.group == g.settings.name {
		return g.settings.name
	}
	return g.settings.group + ":" + g.settings.name
}

// active tells whether supervisorctl takes it for started.
func (g *program) active() bool {
	return g.state == stateRunning || g.state == stateStarting || g.state == stateBackoff
}

// set changes a state. v.mu is held.
func (v *supervisor) set(g *program, state, why string) {
	g.state, g.why = state, why
	if state == stateStopped || state == stateExited {
		g.over = time.Now()
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// wait blocks until f, which is called with v.mu held, is true, or ctx ends.
func (v *supervisor) wait(ctx context.Context, f func() bool) {
	for {
		v.mu.Lock()
		done, changed := f(), v.changed
		v.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// start begins a spell of a program, unless it is in one. v.mu is held.
func (v *supervisor) start(g *program) bool {
	if v.over || g.active() || g.state == stateStopping {
		return false
	}
	g.stop = false
	v.set(g, stateStarting, "")
	b := v.daemon.boot
	b.wg.Add(1) // the caller runs inside b
	go func() {
		defer b.wg.Done()
		v.spell(g)
	}()
	return true
}

// spell runs a program from a start until it is STOPPED, EXITED or FATAL: one
// that ends before it has run for startsecs is tried again startretries times,
// each a second later than the one before.
func (v *supervisor) spell(g *program) {
	b, s := v.daemon.boot, g.settings
	for failed := 0; ; {
		up, status, why := v.once(g)
		v.mu.Lock()
		switch {
		case b.ctx.Err() != nil:
			v.mu.Unlock()
			return
		case g.stop || v.over:
			v.set(g, stateStopped, "")
		case up:
			failed = 0
			v.set(g, stateExited, "")
			if s.restart == "true" || s.restart == "unexpected" && !slices.Contains(s.exits, status) {
				v.set(g, stateStarting, "")
				v.mu.Unlock()
				continue
			}
		case failed >= s.retries:
			v.set(g, stateFatal, why)
		default:
			failed++
			v.set(g, stateBackoff, why)
			v.mu.Unlock()
			if v.pause(g, time.Duration(failed)*time.Second) {
				continue
			}
			v.mu.Lock()
			v.set(g, stateStopped, "")
		}
		v.mu.Unlock()
		return
	}
}

// pause waits before the next try; false: the program is to stop.
func (v *supervisor) pause(g *program, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(v.daemon.boot.ctx, v.h.scale(d))
	defer cancel()
	v.wait(ctx, func() bool { return g.stop || v.over })
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.stop || v.over || v.daemon.boot.ctx.Err() != nil {
		return false
	}
	v.set(g, stateStarting, "")
	return true
}

// once runs the process of a program to its end. up tells whether it counted as
// running, why says why it did not.
func (v *supervisor) once(g *program) (up bool, status int, why string) {
	h, b, s := v.h, v.daemon.boot, g.settings
	v.mu.Lock()
	if g.stop || v.over {
		v.mu.Unlock()
		return false, 0, ""
	}
	g.began = time.Now()
	if _, err := h.lookPath(s.cred, defaultPath, "/", s.args[0]); err != nil {
		v.mu.Unlock()
		return false, 0, fmt.Sprintf("can't find command '%s'", s.args[0])
	}
	c := h.fork(b, b.ctx, &process{ppid: v.daemon.pid, user: s.user, cred: s.cred, args: s.args, cwd: s.dir, unit: v.daemon.unit})
	g.proc = c
	v.mu.Unlock()
	env := map[string]string{"PATH": defaultPath, "LANG": "C", "SUPERVISOR_ENABLED": "1", "SUPERVISOR_PROCESS_NAME": s.name, "SUPERVISOR_GROUP_NAME": s.group}
	maps.Copy(env, s.env)
	q := &Proc{
		Host: h, Args: s.args, Env: env, Dir: s.dir, Stdin: noInput{}, Stdout: io.Discard, Stderr: io.Discard, User: s.user, PID: c.pid, p: c, umask: 0o022,
	}
	b.wg.Add(1) // the caller runs inside b
	go func() {
		defer b.wg.Done()
		status := 127
		if _, err := h.tree.stat(s.cred, s.dir, true); err == nil {
			status = h.execute(c.ctx, q, s.args)
		}
		c.end(c.statusAfter(status))
	}()
	if s.startsecs > 0 {
		soon := time.NewTimer(h.scale(s.startsecs))
		select {
		case <-soon.C:
			up = true
		case <-c.done:
		}
		soon.Stop()
	} else {
		up = true
	}
	if up {
		v.mu.Lock()
		if !g.stop {
			v.set(g, stateRunning, "")
		}
		v.mu.Unlock()
		<-c.done
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return up, c.status, "Exited too quickly (process log may have details)"
}

// halt asks a program to end; one that ignores it is killed when its requests
// had the time that they get on this host. v.mu is held.
func (v *supervisor) halt(g *program) bool {
	if !g.active() {
		return false
	}
	g.stop = true
	p := g.proc
	v.set(g, stateStopping, "")
	if p == nil {
		return true
	}
	b := v.daemon.boot
	b.wg.Add(1) // the caller runs inside b
	go func() {
		defer b.wg.Done()
		p.signal("TERM")
		limit := time.NewTimer(drainLimit)
		defer limit.Stop()
		select {
		case <-p.done:
		case <-limit.C:
			p.signal("KILL")
		}
	}()
	return true
}

// end is what SIGTERM makes of the daemon: it stops its programs and goes.
func (v *supervisor) end() {
	b, ok := v.h.enter()
	if !ok {
		return // the power goes
	}
	defer b.wg.Done()
	v.mu.Lock()
	v.over = true
	for _, g := range v.programs {
		v.halt(g)
	}
	v.mu.Unlock()
	v.wait(b.ctx, func() bool {
		return !slices.ContainsFunc(v.programs, func(g *program) bool { return g.active() || g.state == stateStopping })
	})
	v.daemon.end(0)
}

// cmdSupervisord starts the daemon, which belongs to the unit that the command
// was started for.
func cmdSupervisord(_ context.Context, p *Proc) int {
	f, ok := p.flags("-c=")
	if !ok {
		return statusUnknownFlag
	}
	if conf, given := f.val["-c"]; given && conf != supervisorConf || len(f.rest) > 0 {
		return p.refusef("supervisord other than -c %s", supervisorConf)
	}
	h := p.Host
	h.mu.Lock()
	running := h.super != nil
	h.mu.Unlock()
	if running {
		fmt.Fprintln(p.Stderr, "Error: Another program is already listening on a port that one of our HTTP servers is configured to use.  Shut this program down first before starting supervisord.\nFor help, use /usr/bin/supervisord -h")
		return 2
	}
	url, all, err := h.readSupervisorConf()
	if err != nil {
		fmt.Fprintf(p.Stderr, "Error: %v\nFor help, use /usr/bin/supervisord -h\n", err)
		return 2
	}
	v := &supervisor{h: h, url: url, changed: make(chan struct{})}
	v.mu.Lock() // what waits for it finds the programs there
	defer v.mu.Unlock()
	d, err := p.Spawn(Process{
		Args:   []string{"/usr/bin/python", "/usr/bin/supervisord", "-c", supervisorConf},
		OnTerm: v.end,
		OnExit: func() {
			v.mu.Lock()
			v.over = true
			v.mu.Unlock()
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.super == v {
				h.super = nil
			}
		},
	})
	if err != nil {
		return p.failf(2, "%v", err)
	}
	v.daemon = d.p
	for _, s := range all {
		g := &program{settings: s, state: stateStopped}
		v.programs = append(v.programs, g)
		if s.autostart {
			v.start(g)
		}
	}
	h.mu.Lock()
	h.super = v
	h.mu.Unlock()
	return 0
}

// supervisorctl's own statuses: those of init scripts. Before 4.0 it ended with 0
// whatever happened (supervisor's changelog, 4.0.0).
const (
	ctlGeneric    = 1
	ctlBadArgs    = 2
	ctlStopped    = 3 // of status: some program does not run
	ctlUnknown    = 4 // of status: no such program, or no daemon
	ctlNotRunning = 7
)

// cmdSupervisorctl is supervisorctl status, start, stop and restart, of the
// version that the package database names, or else of 4.2.
func cmdSupervisorctl(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "-c=")
	if !ok {
		return statusUnknownFlag
	}
	if conf, given := f.val["-c"]; given && conf != supervisorConf {
		return p.refusef("another configuration than %s", supervisorConf)
	}
	if len(f.rest) == 0 {
		return p.refusef("the interactive shell")
	}
	if p.p.cred.uid != 0 {
		return p.refusef("another user than root")
	}
	verb, names := f.rest[0], f.rest[1:]
	todo := map[string]func(context.Context, *supervisor, []string) int{"status": p.programStatus, "start": p.programStart, "stop": p.programStop}
	todo["restart"] = func(ctx context.Context, v *supervisor, names []string) int {
		p.programStop(ctx, v, names) // its status is forgotten
		return p.programStart(ctx, v, names)
	}
	do := todo[verb]
	if do == nil || verb != "status" && len(names) == 0 {
		return p.refusef("supervisorctl %s", strings.Join(f.rest, " "))
	}
	h := p.Host
	h.mu.Lock()
	v := h.super
	h.mu.Unlock()
	var status int
	if v == nil {
		url, _, err := h.readSupervisorConf()
		if err != nil {
			fmt.Fprintf(p.Stderr, "Error: %v\nFor help, use /usr/bin/supervisorctl -h\n", err)
			return 2
		}
		fmt.Fprintln(p.Stdout, url+" no such file")
		if status = ctlNotRunning; verb == "status" {
			status = ctlUnknown
		}
	} else {
		status = do(ctx, v, names)
	}
	if r := h.pk.find("supervisor"); len(r) > 0 && strings.HasPrefix(r[0].version, "3.") {
		return 0
	}
	return status
}

// pick finds the programs of NAME, GROUP:NAME, GROUP:* and GROUP:. group tells
// that a whole group was asked for. v.mu is held.
func (v *supervisor) pick(name string) (out []*program, group bool) {
	g, n, has := strings.Cut(name, ":")
	if !has {
		n = g
	}
	group = has && (n == "" || n == "*")
	for _, x := range v.programs {
		if x.settings.group == g && (group || x.settings.name == n) {
			out = append(out, x)
		}
	}
	return out, group
}

func noSuch(name string, group bool) string {
	if group {
		g, _, _ := strings.Cut(name, ":")
		return g + ": ERROR (no such group)"
	}
	return name + ": ERROR (no such process)"
}

func (p *Proc) programStatus(_ context.Context, v *supervisor, names []string) (status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := v.programs
	if len(names) > 0 && !slices.Contains(names, "all") {
		list = nil
		for _, n := range names {
			some, group := v.pick(n)
			if len(some) == 0 {
				fmt.Fprintln(p.Stdout, noSuch(n, group))
				status = ctlUnknown
			}
			list = append(list, some...)
		}
	}
	width := 30
	for _, g := range list {
		width = max(width, len(g.spec()))
	}
	for _, g := range list {
		detail := ""
		switch g.state {
		case stateRunning:
			up := time.Duration(float64(time.Since(g.began)) * v.h.o.Speed)
			detail = fmt.Sprintf("pid %d, uptime %s", g.proc.pid, pythonDelta(up))
		case stateBackoff, stateFatal:
			detail = g.why
		case stateStopped, stateExited:
			if detail = "Not started"; !g.began.IsZero() {
				detail = g.over.Format("Jan 02 03:04 PM")
			}
		}
		fmt.Fprintf(p.Stdout, "%-*s%-10s%s\n", width+3, g.spec(), g.state, detail)
		if g.state == stateStopped || g.state == stateExited || g.state == stateFatal {
			status = ctlStopped
		}
	}
	return status
}

// pythonDelta is a duration as Python prints it, without fractions.
func pythonDelta(d time.Duration) string {
	s := int(d / time.Second)
	days, s := s/86400, s%86400
	out := fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	switch days {
	case 0:
		return out
	case 1:
		return "1 day, " + out
	}
	return fmt.Sprintf("%d days, %s", days, out)
}

// choose finds the programs of a command's names. Of a group, and of all, those
// that need nothing are left out without a word; of a name that is none, missing
// is told. v.mu is held.
func (v *supervisor) choose(names []string, needs func(*program) bool, missing func(name string, group bool)) (list []*program) {
	if slices.Contains(names, "all") {
		return slices.DeleteFunc(slices.Clone(v.programs), func(g *program) bool { return !needs(g) })
	}
	for _, n := range names {
		some, group := v.pick(n)
		if len(some) == 0 {
			missing(n, group)
		}
		if group {
			some = slices.DeleteFunc(some, func(g *program) bool { return !needs(g) })
		}
		list = append(list, some...)
	}
	return list
}

func (p *Proc) programStart(ctx context.Context, v *supervisor, names []string) (status int) {
	v.mu.Lock()
	list := v.choose(names, func(g *program) bool { return !g.active() }, func(n string, group bool) {
		fmt.Fprintln(p.Stdout, noSuch(n, group))
		if status = ctlGeneric; group {
			status = ctlBadArgs
		}
	})
	type result struct {
		g    *program
		text string // "" = it is on its way
		code int
	}
	var all []result
	for _, g := range list {
		r := result{g: g}
		_, err := v.h.lookPath(g.settings.cred, defaultPath, "/", g.settings.args[0])
		switch {
		case err != nil:
			r.text, r.code = "ERROR (no such file)", ctlGeneric
		case !v.start(g):
			r.text = "ERROR (already started)"
		}
		all = append(all, r)
	}
	v.mu.Unlock()
	for _, r := range all {
		if r.text == "" {
			v.wait(ctx, func() bool { return r.g.state != stateStarting })
			v.mu.Lock()
			state := r.g.state
			v.mu.Unlock()
			switch state {
			case stateRunning, stateExited:
				r.text = "started"
			case stateBackoff, stateFatal:
				r.text, r.code = "ERROR (spawn error)", ctlNotRunning
			case stateStarting: // this command was killed
				return 143
			default:
				r.text, r.code = "ERROR (abnormal termination)", ctlNotRunning
			}
		}
		fmt.Fprintf(p.Stdout, "%s: %s\n", r.g.spec(), r.text)
		if r.code != 0 {
			status = r.code
		}
	}
	return status
}

func (p *Proc) programStop(ctx context.Context, v *supervisor, names []string) (status int) {
	v.mu.Lock()
	list := v.choose(names, (*program).active, func(n string, group bool) {
		fmt.Fprintln(p.Stdout, noSuch(n, group))
		status = ctlGeneric
	})
	asked := map[*program]bool{}
	for _, g := range list {
		asked[g] = v.halt(g)
	}
	v.mu.Unlock()
	for _, g := range list {
		text := "ERROR (not running)"
		if asked[g] {
			v.wait(ctx, func() bool { return g.state != stateStopping })
			text = "stopped"
		}
		if ctx.Err() != nil {
			return 143
		}
		fmt.Fprintf(p.Stdout, "%s: %s\n", g.spec(), text)
	}
	return status
}
