package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// firstInode is where socket inode numbers begin; as on a real machine they
// are far from file inodes.
const firstInode = 20000

// A killedError is the cause of the end of a process's context.
type killedError struct{ signal string }

func (e killedError) Error() string { return "killed by SIG" + e.signal }

var errPowerCut = errors.New("power cut")

// signals are the ones a kill may name here.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "PIPE": 13, "ALRM": 14, "TERM": 15}

// process is a running process. Fields below mu are guarded by Host.mu.
type process struct {
	h      *Host
	boot   *boot
	pid    int
	ctx    context.Context // ends when the process is killed
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it is gone
	start  time.Time
	wake   chan struct{} // a trapped signal arrived
	ext    bool          // no goroutine of this package runs its program: nobody else calls end

	// mu: guarded by Host.mu
	ppid    int
	user    string
	cred    cred
	args    []string
	title   string
	env     map[string]string // as it was started with; never written to; nil = what systemd gives
	exe     string
	cwd     string
	unit    string // systemd unit it belongs to
	service []*service
	nat     map[int]int // of a container's first process: published port → its own port
	single  bool        // a background job of one simple command, which takes its place
	traps   map[string]string
	pending []string
	onTerm  func()
	onExit  func()
	ending  bool
	gone    bool
	status  int
	hold    func() // gives back the session's output
}

// boot is everything that lives from power-on to power-off.
type boot struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	over   bool // guarded by Host.mu: nothing more may start
}

// enter registers something that runs in the current boot; leave must be
// called when it ended. ok is false when the host is off.
func (h *Host) enter() (b *boot, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boot == nil || h.boot.over {
		return nil, false
	}
	h.boot.wg.Add(1)
	return h.boot, true
}

// fork makes a process. Its context ends with that of life.
func (h *Host) fork(b *boot, life context.Context, p *process) *process {
	p.h, p.boot = h, b
	p.done, p.wake, p.start = make(chan struct{}), make(chan struct{}, 1), time.Now()
	p.ctx, p.cancel = context.WithCancelCause(life)
	if p.user == "" {
		p.user = "root"
	}
	if p.cwd == "" {
		p.cwd = "/"
	}
	if p.ppid == 0 {
		p.ppid = 1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastPID++
	p.pid = h.lastPID
	h.procs[p.pid] = p
	return p
}

// child makes a process that dies with its parent's foreground.
func (p *process) child(args []string, cwd string) *process {
	p.h.mu.Lock()
	c := &process{ppid: p.pid, user: p.user, cred: p.cred, args: args, cwd: cwd, unit: p.unit}
	p.h.mu.Unlock()
	return p.h.fork(p.boot, p.ctx, c)
}

// become is exec(2): the process goes on as another program.
func (p *process) become(args []string, exe string, env map[string]string) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.args, p.exe, p.title, p.env = args, exe, "", env
}

// end takes the process off the table. Its listeners close at once, requests
// they serve are cut. It may be called again.
func (p *process) end(status int) {
	h := p.h
	h.mu.Lock()
	if p.gone {
		h.mu.Unlock()
		return
	}
	p.gone, p.status = true, status
	services := p.service
	p.service = nil
	for _, s := range services {
		delete(h.services, s.port)
	}
	delete(h.procs, p.pid)
	for _, c := range h.procs {
		if c.ppid == p.pid {
			c.ppid = 1
		}
	}
	h.exits[p.pid] = status
	onExit, hold := p.onExit, p.hold
	h.mu.Unlock()
	for _, s := range services {
		s.cut()
	}
	p.cancel(context.Canceled)
	close(p.done)
	if hold != nil {
		hold()
	}
	if onExit != nil {
		onExit()
	}
	if len(services) > 0 {
		h.changed()
	}
}

// statusAfter is the exit status of a process whose program returned.
func (p *process) statusAfter(status int) int {
	var k killedError
	if errors.As(context.Cause(p.ctx), &k) {
		return 128 + signals[k.signal]
	}
	if p.ctx.Err() != nil && errors.Is(context.Cause(p.ctx), errPowerCut) {
		return 128 + signals["KILL"]
	}
	return status
}

// signal delivers a signal by its name without SIG.
func (p *process) signal(name string) {
	h := p.h
	h.mu.Lock()
	cmd, trapped := p.traps[name]
	switch {
	case p.gone, p.pid == 1:
		h.mu.Unlock()
	case name == "KILL":
		h.mu.Unlock()
		p.cancel(killedError{name})
		if p.ext {
			p.end(137)
		}
	case trapped:
		if cmd != "" {
			p.pending = append(p.pending, cmd)
			select {
			case p.wake <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()
	case p.onTerm != nil && name == "TERM":
		f := p.onTerm
		h.mu.Unlock()
		h.async.Go(f)
	case p.ending:
		h.mu.Unlock()
	default:
		p.ending = true
		h.mu.Unlock()
		h.async.Go(func() {
			p.drain()
			p.cancel(killedError{name})
			if p.ext {
				p.end(128 + signals[name])
			}
		})
	}
}

// drain closes the listeners and waits for the requests they serve.
func (p *process) drain() {
	h := p.h
	h.mu.Lock()
	services := p.service
	p.service = nil
	for _, s := range services {
		delete(h.services, s.port)
	}
	h.mu.Unlock()
	if len(services) == 0 {
		return
	}
	h.changed()
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(s.shutdown)
	}
	wg.Wait()
}

// takePending returns the trap commands of signals that arrived.
func (p *process) takePending() string {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	cmd := strings.Join(p.pending, "\n")
	p.pending = nil
	select {
	case <-p.wake:
	default:
	}
	return cmd
}

func (h *Host) process(pid int) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.procs[pid]
}

// pids returns the process ids, sorted.
func (h *Host) pids() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.procs))
}

// comm is the short name, at most 15 bytes as in the kernel.
func (p *process) comm() string {
	name := ""
	switch {
	case p.title != "":
		name, _, _ = strings.Cut(p.title, " ")
		name = strings.TrimSuffix(name, ":")
	case len(p.args) > 0:
		name = p.args[0]
	}
	name = strings.Trim(path.Base(name), "[]-")
	if len(name) > 15 {
		name = name[:15]
	}
	return name
}

// Spawn starts a process for a program that lives outside this package. It
// fails when the host is off, the user is unknown or a port is taken.
func (h *Host) Spawn(d Process) (*Process, error) {
	b, ok := h.enter()
	if !ok {
		return nil, fmt.Errorf("cannot start %q on %s: the host is off", d.name(), h.Name())
	}
	defer b.wg.Done()
	return h.spawn(b, d, 0)
}

func (d Process) name() string {
	if d.Title != "" {
		return d.Title
	}
	return strings.Join(d.Args, " ")
}

func (h *Host) spawn(b *boot, d Process, warm time.Duration) (*Process, error) {
	if d.User == "" {
		d.User = "root"
	}
	c, ok := h.credOf(d.User)
	if !ok {
		return nil, fmt.Errorf("cannot start %q on %s: no user %q", d.name(), h.Name(), d.User)
	}
	p := &process{ppid: d.PPID, user: d.User, cred: c, args: d.Args, env: d.Env, title: d.Title, cwd: d.Cwd, ext: true, unit: d.Unit, onTerm: d.OnTerm}
	if len(d.Args) > 0 {
		p.exe, _ = h.lookPath(c, defaultPath, "/", d.Args[0])
	}
	h.fork(b, b.ctx, p)
	for _, port := range d.Ports {
		handler := d.Handler
		if handler == nil {
			handler = h.app(p.comm(), port, warm)
		}
		if err := h.listen(p, port, handler); err != nil {
			p.end(1)
			return nil, err
		}
	}
	h.mu.Lock()
	p.onExit = d.OnExit
	h.mu.Unlock()
	d.p = p
	return &d, nil
}

// PID returns the process id.
func (d *Process) PID() int { return d.p.pid }

// SetTitle rewrites the command line that /proc shows.
func (d *Process) SetTitle(title string) {
	d.p.h.mu.Lock()
	defer d.p.h.mu.Unlock()
	d.p.title = title
}

// Exit ends the process: its listeners close, open requests are cut.
func (d *Process) Exit() { d.p.end(0) }

// Done is closed when the process is gone.
func (d *Process) Done() <-chan struct{} { return d.p.done }
