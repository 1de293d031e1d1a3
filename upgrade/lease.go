package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Two runs must never change one host at the same time, and a process that was
// replaced (its run was resumed on another machine, from a copy of its
// directory) must not go on. So a run holds a lease on every host that it
// changes, from its first step to its end, paused or not; every command that
// changes a host checks it in the same shell call; and no other effect, in the
// cloud either, begins while one of them is known to be lost.
//
// A lease that somebody else holds is never waited for: two runs cannot block
// each other for good.

const (
	// beatEvery is how often a process shows that it lives; who challenges it
	// waits for several.
	beatEvery = 20 * time.Second
	// fenceLimit is how long a host is asked before an effect elsewhere. One that
	// does not answer, such as one that reboots, keeps nothing from happening.
	fenceLimit = 5 * time.Second
)

// leaseholder is what one process holds of a run.
type leaseholder struct {
	run, holder string
	targets     []leaseTarget // leased from the beginning
	note        func(engine.Note) error

	mu     sync.Mutex
	leases map[string]heldLease // by link.machine
	stop   func()
}

// A heldLease is a lease and the way to the machine that has it.
type heldLease struct {
	*hostos.Lease
	link *link
}

// here tells whether the way still leads to the machine: an address can go from
// one to another.
func (h heldLease) here(machine string) bool { return h.link.machine() == machine }

// A leaseTarget is a machine that a run changes.
type leaseTarget struct {
	target string
	// keys are the host keys of the one that is meant; none = whoever answers.
	// One with keys comes and goes in a run.
	keys []string
	// id is the machine ID that the plan was made for, as long as this process has
	// not seen it; "" = not known. Host keys alone do not tell a copy of its disk.
	id string
}

// leaseTargets are the machines that every run of the plan changes, as far as
// they exist where the run stands; h is nil at its beginning. The transition
// host, and machines that a rebuild launches, join them when they are there.
func (p *Plan) leaseTargets(h *engine.History) []leaseTarget {
	targets := []string{p.Config.Host}
	for _, n := range p.Facts.Nginx {
		targets = append(targets, n.Host)
	}
	var machines []leaseTarget
	if p.Procedure == ProcedureRebuild {
		r := newRebuild(p, nil)
		for i := range r.f.Nodes {
			targets = append(targets, r.target(r.f.Nodes[i].OldHost), r.target(r.f.Nodes[i].PhysicalHost))
			machines = append(machines, r.machinesAt(h, i)...)
		}
	}
	slices.Sort(targets)
	var out []leaseTarget
	for _, t := range slices.Compact(targets) {
		target := leaseTarget{target: t}
		if t == p.Config.Host && p.keepsMachineID(h) {
			target.id = p.Facts.Inventory.MachineID
		}
		out = append(out, target)
	}
	return append(out, machines...)
}

// keepsMachineID tells whether production has the machine ID of the plan where
// the run stands: not while its disk is replaced or somebody else upgrades it.
func (p *Plan) keepsMachineID(h *engine.History) bool {
	until := ""
	switch {
	case p.Procedure != ProcedureTransition || p.Facts.Inventory == nil:
		return false
	case p.Config.OS.Production == ProductionReplaceDisk:
		until = "4.5-stop-instance"
	case p.Config.OS.Strategy == StrategyExternal:
		until = "4.5-begin"
	}
	return until == "" || h == nil || h.StepByID(until).Attempt == 0
}

// hold takes the leases of the plan's machines for the run, which stands where h
// says, and shows that this
// process lives until ctx ends or unhold is called. Hosts that do not answer
// are leased when they are first changed. A host that another run holds is an
// error that wraps *hostos.LeaseHeldError, and nothing is held then.
//
// The context it returns ends when a lease is found to be lost.
func (e *Env) hold(ctx context.Context, p *Plan, h *engine.History, run *engine.Run, actor string) (context.Context, error) {
	return e.holdHosts(ctx, &leaseholder{run: run.Header().Run, holder: holderName(actor), targets: p.leaseTargets(h), note: run.Note, leases: map[string]heldLease{}})
}

// holdHosts is hold for whoever changes hosts: h says who and which.
func (e *Env) holdHosts(ctx context.Context, h *leaseholder) (context.Context, error) {
	e.holder = h
	for i, t := range h.targets {
		held := len(h.all())
		if err := e.tryLease(ctx, t); err != nil {
			e.letGo(ctx)
			e.holder = nil
			return ctx, err
		}
		if len(h.all()) > held {
			h.targets[i].id = "" // seen; from now on its lease tells it from others
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	h.stop = func() { cancel(context.Canceled); wg.Wait() }
	wg.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := e.beat(ctx); err != nil {
					cancel(err)
					return
				}
			}
		}
	})
	return ctx, nil
}

// leased does the work of a run while its hosts are held for it. They are given
// back when the run is over: a paused, failed or parked one keeps them.
func (e *Env) leased(ctx context.Context, p *Plan, h *engine.History, run *engine.Run, actor string, do func(context.Context) (*Result, error)) (*Result, error) {
	work, err := e.hold(ctx, p, h, run, actor)
	if err != nil {
		return nil, err
	}
	r, err := do(work)
	over := errors.Is(err, engine.ErrFinished)
	if r != nil {
		over = r.State == string(engine.Succeeded) || r.State == string(engine.RolledBack)
		if lost := context.Cause(work); errors.Is(lost, hostos.ErrFenced) && !over {
			r.Err, r.Reason = errors.Join(lost, r.Err), lost.Error()
		}
	}
	left := e.unhold(context.WithoutCancel(ctx), over)
	if r != nil {
		r.Work = append(r.Work, left...)
	}
	return r, err
}

// unhold ends the heartbeat. With give, the run is over and the hosts are given
// back; what cannot be given back is said, as work for a person.
func (e *Env) unhold(ctx context.Context, give bool) []string {
	if e.holder == nil {
		return nil
	}
	e.holder.stop()
	var left []string
	if give {
		left = e.letGo(ctx)
	}
	e.holder = nil
	return left
}

// letGo gives back what is held.
func (e *Env) letGo(ctx context.Context) []string {
	var left []string
	for machine, h := range e.holder.all() {
		target := h.link.target
		err := errors.New("another machine has its address now")
		if h.here(machine) {
			ctx, cancel := context.WithTimeout(ctx, 4*fenceLimit)
			err = hostos.ReleaseLease(ctx, h.link, h.Lease)
			cancel()
		}
		if err != nil && !errors.Is(err, hostos.ErrFenced) {
			left = append(left, fmt.Sprintf("host %s: %v; when it answers again: upgradectl unlock --host %s", target, err, target))
		}
	}
	slices.Sort(left)
	return left
}

func (h *leaseholder) all() map[string]heldLease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.leases)
}

// forget drops the lease of a machine that is gone, or that was told to go down
// by a command that ended it (held.leaving).
func (e *Env) forget(machine string) {
	e.holder.mu.Lock()
	defer e.holder.mu.Unlock()
	delete(e.holder.leases, machine)
}

// tryLease leases a machine if it answers soon.
func (e *Env) tryLease(ctx context.Context, t leaseTarget) error {
	l, err := e.reach(t.target, t.keys)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, 4*fenceLimit)
	defer cancel()
	if err = l.isMachine(soon, t.id); err == nil {
		_, err = e.lease(soon, l)
	}
	if errors.As(err, new(*hostos.LeaseHeldError)) || errors.As(err, new(*DriftError)) || errors.Is(err, engine.ErrUnwritable) {
		return err
	}
	return ctx.Err() // what else is wrong with the host, the steps find out
}

// isMachine sees that the machine with an ID answers; "" = whoever does. Another
// one is a *DriftError.
func (l *link) isMachine(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	var out strings.Builder
	if err := l.Run(ctx, "cat /etc/machine-id", nil, &out, io.Discard); err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	if now := strings.TrimSpace(out.String()); now != id {
		return &DriftError{Changes: []string{fmt.Sprintf("host %s is another machine: its machine ID was %s and is %s; nothing was done to it", l.target, id, now)}}
	}
	return nil
}

// lease gives this process's lease of a machine, taking it at the first use.
func (e *Env) lease(ctx context.Context, way *link) (*hostos.Lease, error) {
	h := e.holder
	if h == nil {
		return nil, fmt.Errorf("internal error: host %s would be changed without a lease", way.target)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	machine := way.machine()
	if l, ok := h.leases[machine]; ok {
		if l.link != way {
			h.leases[machine] = heldLease{l.Lease, way}
		}
		return l.Lease, nil
	}
	l, err := hostos.TakeLease(ctx, way, h.run, h.holder, time.Now())
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", way.target, err)
	}
	h.leases[machine] = heldLease{l, way}
	if l.From == "" {
		return l, nil
	}
	// The journal says since when no older process can do anything there.
	return l, h.note(engine.Note{Act: "takeover", Object: way.target, Epoch: l.Epoch, Reason: "the run goes on in this process", Text: "held before by " + l.From})
}

// beat shows on every host with a live connection that this process lives.
func (e *Env) beat(ctx context.Context) error {
	for machine, h := range e.holder.all() {
		if !h.here(machine) || !h.link.connected() {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, fenceLimit)
		err := hostos.KeepLease(ctx, h.link, h.Lease)
		cancel()
		if _, still := e.holder.all()[machine]; errors.Is(err, hostos.ErrFenced) && still {
			return fmt.Errorf("host %s: %w", h.link.target, err)
		}
	}
	return nil
}

// checkLeases sees that no host has gone to somebody else, as far as they
// answer. Hosts that did not answer when the run began are leased now. Machines
// that come and go in a run are asked while they are connected: one that is
// switched off would keep every effect waiting.
func (e *Env) checkLeases(ctx context.Context) error {
	leases := e.holder.all()
	for _, t := range e.holder.targets {
		if _, ok := leases[t.target]; !ok && len(t.keys) == 0 {
			if err := e.tryLease(ctx, t); err != nil {
				return err
			}
		}
	}
	leases = e.holder.all()
	maps.DeleteFunc(leases, func(machine string, h heldLease) bool {
		return machine != h.link.target && (!h.here(machine) || !h.link.connected())
	})
	errs := make(chan error)
	for _, h := range leases {
		go func() {
			soon, cancel := context.WithTimeout(ctx, fenceLimit)
			defer cancel()
			err := hostos.CheckLease(soon, h.link, h.Lease)
			if !errors.Is(err, hostos.ErrFenced) {
				err = nil
			} else {
				err = fmt.Errorf("host %s: %w", h.link.target, err)
			}
			errs <- err
		}()
	}
	var lost []error
	for range leases {
		lost = append(lost, <-errs)
	}
	return errors.Join(lost...)
}

// fenced puts checkLeases before every effect of the steps.
func (e *Env) fenced(steps []engine.Step) []engine.Step {
	for i, s := range steps {
		if s.Effect == engine.ReadOnly {
			continue
		}
		if do := s.Do; do != nil {
			steps[i].Do = func(ctx context.Context, a *engine.Act) (any, error) {
				if err := e.checkLeases(ctx); err != nil {
					return nil, err
				}
				return do(ctx, a)
			}
		}
		if undo := s.Undo; undo != nil {
			steps[i].Undo = func(ctx context.Context, a *engine.Act) error {
				if err := e.checkLeases(ctx); err != nil {
					return err
				}
				return undo(ctx, a)
			}
		}
	}
	return steps
}

// held is a host that is changed: each command runs only under the lease.
type held struct {
	*link
	leaves bool
}

// held gives the host for changes. See fence above.
func (l *link) held() held { return held{link: l} }

// leaving gives the host for its last command, after which it is gone: one that
// succeeds ends the lease, so that no copy of the machine's disk keeps it.
func (l *link) leaving() held { return held{l, true} }

// Run runs a command that changes the host.
func (h held) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	lease, err := h.env.lease(ctx, h.link)
	if err != nil {
		return err
	}
	fenced := lease.Fence(cmd)
	if h.leaves {
		fenced = lease.FenceLast(cmd)
	}
	machine := h.machine()
	err = h.link.Run(ctx, fenced, stdin, stdout, stderr)
	if hostos.IsFenced(err) {
		return fmt.Errorf("host %s: %w", h.target, hostos.ErrFenced)
	}
	if h.leaves {
		h.env.forget(machine) // with an unknown result as well: it is taken anew
	}
	return err
}

// heldNginx is the nginx server of a host for changes.
func (e *Env) heldNginx(ctx context.Context, n NginxHost) (*nginx.Server, error) {
	l, err := e.lease(ctx, e.host(n.Host))
	if err != nil {
		return nil, err
	}
	s := e.nginx(n)
	s.Guard = l.Guard()
	return s, nil
}

// holderName is who others are told to ask about a lease: actor@machine, in the
// characters that a lease can hold. An empty actor is the user of the process.
func holderName(actor string) string {
	if actor == "" {
		if u, err := user.Current(); err == nil {
			actor = u.Username
		}
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	clean := func(s string) string {
		s = strings.Map(func(r rune) rune {
			if r < 0x80 && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("._-", r)) {
				return r
			}
			return '-'
		}, s)
		s = strings.Trim(s[:min(len(s), 50)], "-._")
		if s == "" {
			return "unnamed"
		}
		return s
	}
	return clean(actor) + "@" + clean(machine)
}
