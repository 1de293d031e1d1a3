package upgrade

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The installer's long scripts: each runs at most once, detached, under the
// step's key, and is judged by what it wrote, not by its exit status alone.

// A script is what a scriptStep needs of one.
type script struct {
	id, section, title string
	lines              []string
	// on gives where it runs; nil = on the firstbox.
	on func(*engine.Act) (*link, error)
	// command gives its command line, before the intent.
	command func(context.Context, *engine.Act) (string, error)
	// ready proves what must hold right before it starts.
	ready func(context.Context, *engine.Act) error
	// watch looks at the world while it runs and after; nil = at nothing.
	watch func(context.Context, *engine.Act) error
	// judge reads what it wrote, and looks at what it did.
	judge func(ctx context.Context, a *engine.Act, log []byte, status int) (any, error)
	// clean takes away what a failed attempt left, so that there can be another.
	clean func(context.Context, *engine.Act) error
	// undo takes back what it did; nil = noUndo.
	undo   func(context.Context, *engine.Act) error
	noUndo string
}

func (r *rebuild) scriptStep(s script) engine.Step {
	on := s.on
	if on == nil {
		on = func(*engine.Act) (*link, error) { return r.e.host(r.cfg.Host), nil }
	}
	step := engine.Step{
		ID: s.id, Section: s.section, Title: s.title, Effect: engine.OneShot, Lines: s.lines, NoUndo: s.noUndo,
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if s.ready != nil {
				if err := s.ready(ctx, a); err != nil {
					return engine.Proposal{}, err
				}
			}
			cmd, err := s.command(ctx, a)
			return engine.Proposal{Params: jobParams{cmd}}, err
		},
		Observe: observeJob(on),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l, err := on(a)
			if err != nil {
				return nil, err
			}
			err = beginJob(ctx, a, l, func() error {
				if s.ready == nil {
					return nil
				}
				return s.ready(ctx, a)
			})
			if err != nil {
				return nil, err
			}
			log, status, seen, err := r.waitScript(ctx, a, l, a.Key(), s.watch)
			if err != nil {
				return nil, err
			}
			res, err := s.judge(ctx, a, log, status)
			if err != nil {
				err = fmt.Errorf("%w (its log: /var/lib/upgradectl/%s/log on %s)", err, a.Key(), l.target)
				var bad *pitrix.ScriptError
				if status == 0 && !errors.As(err, &bad) {
					return nil, err // it did its part; what came of it may still come right
				}
				if s.clean != nil {
					if cerr := s.clean(ctx, a); cerr != nil {
						return nil, errors.Join(err, cerr)
					}
				}
				return nil, engine.Definitive(err)
			}
			// It can settle by itself: what counts is how it stands now.
			if seen != nil {
				a.Progress("while it ran: %v", seen)
			}
			if s.watch != nil {
				if err := r.t.holds(ctx, r.cfg.Pace.Sample, s.title+" disturbed the service", func(ctx context.Context) error { return s.watch(ctx, a) }); err != nil {
					return nil, err
				}
			}
			return res, nil
		},
	}
	if s.undo != nil {
		step.NoUndo = ""
		step.Undo = func(ctx context.Context, a *engine.Act) error {
			l, err := on(a)
			if err != nil {
				return err
			}
			if err := r.endScript(ctx, a, l, a.Key()); err != nil {
				return err
			}
			return s.undo(ctx, a)
		}
	}
	return step
}

// waitScript blocks until the job has ended, and gives all it wrote and its
// status. Meanwhile it watches; what was seen last to be wrong is not an error
// of the script.
func (r *rebuild) waitScript(ctx context.Context, a *engine.Act, l *link, key string, watch func(context.Context, *engine.Act) error) (log []byte, status int, seen, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Pace.JobTimeout)
	defer cancel()
	tick := time.NewTicker(r.cfg.Pace.Poll)
	defer tick.Stop()
	var trouble error
	for {
		st, err := hostos.GetJob(ctx, l, key)
		switch {
		case err != nil:
			trouble = err
		case st.Phase == hostos.JobExited:
			log, err := hostos.ReadJobLog(ctx, l, key)
			if err != nil {
				return nil, 0, seen, fmt.Errorf("host %s: %w", l.target, err)
			}
			return log, st.Status, seen, nil
		case st.Phase == hostos.JobLost:
			return nil, 0, seen, fmt.Errorf("host %s: %w; make sure that nothing of it still runs, remove the job's directory on the host, and resume", l.target, &hostos.JobError{Key: key, State: st})
		}
		if watch != nil && ctx.Err() == nil {
			if err := watch(ctx, a); err != nil && ctx.Err() == nil {
				if seen == nil {
					a.Progress("while it runs: %v", err)
				}
				seen = err
			}
		}
		select {
		case <-ctx.Done():
			return nil, 0, seen, fmt.Errorf("host %s: job %s has not ended: %w (last trouble: %v)", l.target, key, ctx.Err(), trouble)
		case <-tick.C:
		}
	}
}

// endScript sees that a job does not work behind an undo's back.
func (r *rebuild) endScript(ctx context.Context, a *engine.Act, l *link, key string) error {
	st, err := l.job(ctx, key)
	if err != nil {
		return err
	}
	if st.Phase == hostos.JobRunning {
		a.Progress("waiting for the end of job %s", key)
		_, _, _, err = r.waitScript(ctx, a, l, key, nil)
	}
	return err
}

// runScript runs a script to its end as part of an undo, once.
func (r *rebuild) runScript(ctx context.Context, a *engine.Act, key, cmd string) ([]byte, int, error) {
	l := r.e.host(r.cfg.Host)
	if err := l.startJob(ctx, key, cmd); err != nil {
		return nil, 0, err
	}
	log, status, _, err := r.waitScript(ctx, a, l, key, nil)
	return log, status, err
}

// proveNames sees that the names of all nodes lead to their new machines: the
// scripts ping the address of the settings and log in by name.
func (r *rebuild) proveNames(ctx context.Context, a *engine.Act) error {
	for _, n := range r.nodes() {
		m, err := r.recorded(a, n)
		if err != nil {
			return err
		}
		want, err := m.identity()
		if err != nil {
			return err
		}
		if err := r.firstbox().ProveName(ctx, n.Name, want); err != nil {
			return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
		}
	}
	return nil
}

// ---- 2.4 packages ----

func (r *rebuild) generateLists() engine.Step {
	return r.scriptStep(script{
		id: "2.3-lists", section: "2.3", title: "generate the node lists of the firstbox",
		lines: []string{"gen_node_list"},
		command: func(ctx context.Context, _ *engine.Act) (string, error) {
			s, err := r.firstbox().GetScripts(ctx)
			return s.GenNodeList(), err
		},
		judge: func(ctx context.Context, _ *engine.Act, log []byte, status int) (any, error) {
			if err := pitrix.ParseGenNodeList(log, status); err != nil {
				return nil, err
			}
			_, scope, err := r.scope(ctx)
			if err != nil {
				return nil, err
			}
			return scope.Nodes(), nil
		},
		noUndo: "the lists hold names, and the names stay",
	})
}

// builtResult is what the firstbox has built last.
type builtResult struct {
	Deb string `json:"deb"`
}

// built sees that the pitrix-hosts package which the firstbox has built maps
// the names as the settings say: that, and not the settings, is what reaches a
// node with the package.
func (r *rebuild) built(ctx context.Context) (builtResult, error) {
	fb := r.firstbox()
	deb, lines, err := fb.BuiltHosts(ctx)
	if err != nil {
		return builtResult{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	hosts, err := pitrix.ParseHosts(deb, lines)
	if err != nil {
		return builtResult{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	fleet, err := fb.ReadFleet(ctx)
	if err != nil {
		return builtResult{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	if bad := pitrix.CheckHosts(hosts, fleet, r.names()...); len(bad) > 0 {
		return builtResult{}, fmt.Errorf("package %s does not hold the addresses of the settings: %s", deb, problemsText(bad))
	}
	return builtResult{deb}, nil
}

func problemsText(bad []pitrix.Problem) string {
	var out []string
	for _, p := range bad {
		out = append(out, p.String())
	}
	return strings.Join(out, "; ")
}

func (r *rebuild) buildPackages() engine.Step {
	title := "build the packages of the firstbox, with the temporary addresses"
	if r.inPlace() {
		title = "build the packages of the firstbox"
	}
	return r.scriptStep(script{
		id: "2.4-build", section: "2.4", title: title,
		lines: []string{"build_pkgs_allinone"},
		command: func(ctx context.Context, _ *engine.Act) (string, error) {
			s, err := r.firstbox().GetScripts(ctx)
			return s.BuildPackages(), err
		},
		judge: func(ctx context.Context, _ *engine.Act, log []byte, status int) (any, error) {
			if _, err := pitrix.ParseBuild(log, status); err != nil {
				return nil, err
			}
			return r.built(ctx)
		},
		undo: func(context.Context, *engine.Act) error { return nil }, // 2.1 builds once more, when the settings are back
	})
}

// ---- 3 and 4: the new machines ----

func (r *rebuild) launch() engine.Step {
	title, address := "launch the new machines beside the old ones", "address %s until the switch"
	if r.inPlace() {
		title, address = "launch the new machine where the old one was", "address %s"
	}
	var lines []string
	for _, n := range r.nodes() {
		lines = append(lines, fmt.Sprintf("%s: a new machine on %s, "+address+", MAC %s", n.Name, n.PhysicalHost, n.Address, n.MAC))
	}
	return r.scriptStep(script{
		id: "3.1-launch", section: "3.1", title: title,
		lines: append([]string{"launch_vms.sh " + strings.Join(r.names(), ",") + " (never with -f: it would destroy what has the name)"}, lines...),
		ready: r.replaceable,
		command: func(ctx context.Context, _ *engine.Act) (string, error) {
			s, scope, err := r.scope(ctx)
			if err != nil {
				return "", err
			}
			return s.LaunchVMs(scope, pitrix.Launch{Strategy: pitrix.Strategy(r.c.Strategy)})
		},
		judge: func(ctx context.Context, a *engine.Act, log []byte, status int) (any, error) {
			_, scope, err := r.scope(ctx)
			if err != nil {
				return nil, err
			}
			if _, err := pitrix.ParseLaunch(scope, log, status); err != nil {
				return nil, err
			}
			uuids := map[string]string{}
			for _, n := range r.nodes() {
				d, err := r.newDomain(ctx, n)
				if err != nil {
					return nil, err
				}
				if d == nil || d.State != pitrix.DomainRunning {
					return nil, fmt.Errorf("the script says that it launched %s, but no such domain runs on host %s", n.Name, n.PhysicalHost)
				}
				uuids[n.Name] = d.UUID
			}
			return uuids, nil
		},
		clean: r.discard,
		undo:  r.discard,
	})
}

// newDomain gives the domain of a node's new machine, nil when there is none.
// One with another MAC address is somebody else's.
func (r *rebuild) newDomain(ctx context.Context, n *RebuildNodeFacts) (*pitrix.Domain, error) {
	d, err := r.hypervisor(n.PhysicalHost).GetDomain(ctx, n.Name)
	if err != nil || d == nil {
		return nil, wrapHost(n.PhysicalHost, err)
	}
	if d.UUID == n.UUID { // in place the old one can still have the name
		return nil, nil
	}
	for _, m := range d.Definition.MACs() {
		if m.String() == n.MAC {
			return d, nil
		}
	}
	return nil, &engine.ConflictError{Object: "domain " + n.Name + " on host " + n.PhysicalHost, Before: "none", Ours: "MAC " + n.MAC, Now: fmt.Sprintf("MACs %v", d.Definition.MACs())}
}

// discard takes the new machines away again: power, definition, files.
func (r *rebuild) discard(ctx context.Context, a *engine.Act) error {
	for _, n := range r.nodes() {
		if err := r.off(ctx, a, n); err != nil {
			return err
		}
		mac, err := pitrix.ParseMAC(n.MAC)
		if err != nil {
			return err
		}
		// hostsReady has seen, right before the launch, that there was no file.
		if err := r.hypervisor(n.PhysicalHost).Discard(ctx, n.Name, mac, true); err != nil {
			return wrapHost(n.PhysicalHost, err)
		}
		if m, err := r.recorded(a, n); err == nil {
			r.e.forget(strings.Join(m.HostKeys, "\n"))
		}
	}
	// What the launch has taught the firstbox's ssh of the names and of the
	// temporary addresses is void.
	var names []string
	for _, n := range r.nodes() {
		names = append(names, n.Name, n.Address)
	}
	fb := r.firstbox()
	if _, err := fb.RemoveKnownHosts(ctx, names); err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	return nil
}

// off sees that the new machine of a node has no power.
func (r *rebuild) off(ctx context.Context, a *engine.Act, n *RebuildNodeFacts) error {
	hv := r.hypervisor(n.PhysicalHost)
	d, err := r.newDomain(ctx, n)
	if err != nil || d == nil || d.State == pitrix.DomainShutOff {
		return err
	}
	a.Progress("host %s: the new %s is switched off", n.PhysicalHost, n.Name)
	// A host reboot must not bring it back in the middle.
	if err := hv.SetAutostart(ctx, n.Name, d.UUID, false); err != nil {
		return wrapHost(n.PhysicalHost, err)
	}
	soft, cancel := context.WithTimeout(ctx, min(r.cfg.Pace.Timeout, softOff))
	defer cancel()
	if err := hv.Shutdown(soft, n.Name, d.UUID); err == nil && hv.WaitState(soft, n.Name, pitrix.DomainShutOff, r.cfg.Pace.Poll) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := hv.PowerOff(ctx, n.Name, d.UUID); err != nil {
		return wrapHost(n.PhysicalHost, err)
	}
	hard, cancel2 := context.WithTimeout(ctx, r.cfg.Pace.Timeout)
	defer cancel2()
	return wrapHost(n.PhysicalHost, hv.WaitState(hard, n.Name, pitrix.DomainShutOff, r.cfg.Pace.Poll))
}

// softOff is how long a new machine that is given up may take to shut down.
const softOff = time.Minute

// machinesStep writes down how the new machines can be told from every other
// one. Their host keys are read by the physical host that carries them, over
// its own bridge.
func (r *rebuild) machinesStep(id, section, title string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Effect: engine.ReadOnly, Title: title,
		Lines: []string{"ssh-keyscan on the physical host; MAC addresses against settings and domain"},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			out := map[string]Machine{}
			for _, n := range r.nodes() {
				var m Machine
				err := r.t.holds(ctx, r.cfg.Pace.Poll, "the new "+n.Name+" does not answer", func(ctx context.Context) error {
					var err error
					m, err = r.meet(ctx, n)
					return err
				})
				if err != nil {
					return nil, err
				}
				out[n.Name] = m
			}
			return out, nil
		},
	}
}

// meet reads the identity of the machine at a node's temporary address.
func (r *rebuild) meet(ctx context.Context, n *RebuildNodeFacts) (Machine, error) {
	// Asked from next to it: nobody stands between.
	key, err := r.hypervisor(n.PhysicalHost).ScanHostKey(ctx, n.Address)
	if err != nil {
		return Machine{}, wrapHost(n.PhysicalHost, err)
	}
	keys := []string{key}
	l, err := r.reach(n.Address, keys)
	if err != nil {
		return Machine{}, err
	}
	if err := l.alive(ctx); err != nil {
		return Machine{}, err
	}
	m, err := r.machine(ctx, &pitrix.Node{Host: l, Name: n.Name})
	if err != nil {
		return m, err
	}
	m.HostKeys = keys
	want, err := Machine{MACs: []string{n.MAC}}.identity()
	if err != nil {
		return m, err
	}
	got, err := m.identity()
	if err != nil {
		return m, err
	}
	if err := got.Same(want); err != nil {
		return m, fmt.Errorf("the machine at %s is not the new %s: %w", n.Address, n.Name, err)
	}
	if m.MachineID == n.Old.MachineID {
		return m, fmt.Errorf("the machine at %s has the machine-id of the old %s", n.Address, n.Name)
	}
	return m, nil
}

func (r *rebuild) recordMachines() engine.Step {
	return r.machinesStep("3.2-machines", "3.2", "the new machines answer, and are recorded by host key, machine-id and MAC")
}

func (r *rebuild) recordInstalled() engine.Step {
	s := r.machinesStep("4.2-machines", "4.2", "the installed machines run the new system")
	do := s.Do
	s.Do = func(ctx context.Context, a *engine.Act) (any, error) {
		out, err := do(ctx, a)
		if err != nil {
			return nil, err
		}
		for name, m := range out.(map[string]Machine) {
			if !sameRelease(m.OSVersion, r.c.OSVersion) {
				return nil, fmt.Errorf("the new %s runs release %s, not %s", name, m.OSVersion, r.c.OSVersion)
			}
		}
		return out, nil
	}
	return s
}

func (r *rebuild) install() engine.Step {
	return r.scriptStep(script{
		id: "4.1-install", section: "4.1", title: "install the new machines: system, network, disks; they reboot several times",
		lines: []string{"install_nodes.sh " + strings.Join(r.names(), ",")},
		ready: r.proveNames,
		command: func(ctx context.Context, _ *engine.Act) (string, error) {
			s, scope, err := r.scope(ctx)
			if err != nil {
				return "", err
			}
			return s.InstallNodes(scope)
		},
		judge: func(ctx context.Context, _ *engine.Act, log []byte, status int) (any, error) {
			_, scope, err := r.scope(ctx)
			if err != nil {
				return nil, err
			}
			return pitrix.ParseInstall(scope, log, status)
		},
		undo: func(context.Context, *engine.Act) error { return nil }, // the machines go as a whole
	})
}

// ---- 5: packages of the role ----

func (r *rebuild) update(pkg string) engine.Step {
	return r.scriptStep(script{
		id: "5.1-" + stepWord(pkg), section: "5.1", title: "install " + pkg + " on the new machines; the floating address and the console are watched",
		lines: []string{"update.sh -f " + strings.Join(r.names(), ",") + " " + pkg + ", or what /pitrix/upgrade/packages/" + pkg + " lists"},
		ready: func(ctx context.Context, a *engine.Act) error {
			if err := r.checkHeld(ctx, a); err != nil {
				return err
			}
			return r.proveNames(ctx, a)
		},
		command: func(ctx context.Context, _ *engine.Act) (string, error) {
			packages, err := r.packagesOf(ctx, pkg)
			if err != nil {
				return "", err
			}
			if _, err := r.firstbox().PackageFiles(ctx, packages...); err != nil {
				return "", fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			s, scope, err := r.scope(ctx)
			if err != nil {
				return "", err
			}
			return s.Update(scope, packages...)
		},
		watch: func(ctx context.Context, a *engine.Act) error { return r.serves(ctx, a) },
		judge: func(ctx context.Context, a *engine.Act, log []byte, status int) (any, error) {
			_, scope, err := r.scope(ctx)
			if err != nil {
				return nil, err
			}
			packages, err := r.packagesOf(ctx, pkg)
			if err != nil {
				return nil, err
			}
			if _, err := pitrix.ParseUpdate(scope, packages, log, status); err != nil {
				return nil, err
			}
			return nil, r.checkHeld(ctx, a)
		},
		undo: func(context.Context, *engine.Act) error { return nil }, // the machines go as a whole
	})
}

// packagesOf gives the packages that update.sh installs for a name: the script
// takes a group by the name of its file, packages=('a' 'b');, and any other name
// as that of a package.
func (r *rebuild) packagesOf(ctx context.Context, name string) ([]string, error) {
	out, err := run(ctx, r.e.host(r.cfg.Host), "f=/pitrix/upgrade/packages/"+shellq.Quote(name)+`; if [ -f "$f" ]; then cat "$f"; fi`)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(out) == "" {
		return []string{name}, nil
	}
	g := packageGroup.FindStringSubmatch(out)
	if g == nil {
		return nil, fmt.Errorf("firstbox %s: /pitrix/upgrade/packages/%s is not a list of packages: %q", r.cfg.Host, name, clip(out))
	}
	list := strings.Fields(strings.NewReplacer("'", " ", `"`, " ").Replace(g[1]))
	if len(list) == 0 {
		return nil, fmt.Errorf("firstbox %s: /pitrix/upgrade/packages/%s names no package", r.cfg.Host, name)
	}
	return list, nil
}

var packageGroup = regexp.MustCompile(`(?m)^\s*packages=\(([^()]*)\)\s*;?\s*$`)

// stepWord makes a word of a step's ID of the name of a package.
func stepWord(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '_'
	}, s[:min(len(s), 58)])
}
