package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Chapters 8 and 9: the new pair is proved, and the old machines are put aside.

// knownNames are the names under which somebody may know a node's host key.
func (r *rebuild) knownNames() []string {
	var out []string
	for _, n := range r.nodes() {
		out = append(out, n.Name, n.Final, n.Address)
	}
	// The port is where this program reaches them too.
	port := 22
	if g := target.FindStringSubmatch(r.target("192.0.2.1")); g != nil && g[3] != "" {
		port = int(atoi(g[3]))
	}
	return pitrix.KnownHostsNames(out, port)
}

// cleanKnownHosts takes the old machines' keys out of known_hosts, on the
// firstbox and on every node: the one command that goes to all of them.
func (r *rebuild) cleanKnownHosts() engine.Step {
	command := func(ctx context.Context, tag string) (string, pitrix.Scope, error) {
		fb := r.firstbox()
		s, err := fb.GetScripts(ctx)
		if err != nil {
			return "", pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
		}
		fleet, err := fb.ReadFleet(ctx)
		if err != nil {
			return "", pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
		}
		groups, err := fb.ReadGroups(ctx)
		if err != nil {
			return "", pitrix.Scope{}, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
		}
		return s.RemoveKnownHosts(fleet, groups, tag, r.knownNames())
	}
	judge := func(ctx context.Context, a *engine.Act, tag string, log []byte) (any, error) {
		_, scope, err := command(ctx, tag)
		if err != nil {
			return nil, err
		}
		results, err := pitrix.ParseExec(scope, tag, log)
		if err != nil {
			return nil, err
		}
		// A node that does not answer, or has no known_hosts, keeps nothing from
		// being done; it is said.
		var trouble []string
		for _, res := range results {
			if res.Unreachable || res.Status != 0 {
				trouble = append(trouble, res.Node)
				a.Progress("%s: known_hosts not cleaned (status %d, unreachable %t): do it by hand", res.Node, res.Status, res.Unreachable)
			}
		}
		return map[string][]string{"not_cleaned": trouble}, nil
	}
	ownFile := func(ctx context.Context) error {
		fb := r.firstbox()
		_, err := fb.RemoveKnownHosts(ctx, r.knownNames())
		if err != nil {
			return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
		}
		return nil
	}
	return r.scriptStep(script{
		id: "8.1-known-hosts", section: "8.1", title: "take the old host keys out of known_hosts, on the firstbox and on all nodes",
		lines: []string{"ssh-keygen -R on the firstbox", "exec_nodes.sh -f all ssh-keygen -R for " + strings.Join(r.knownNames(), ", ")},
		// The firstbox first: its own ssh is what the script uses.
		ready: func(ctx context.Context, _ *engine.Act) error { return nil },
		command: func(ctx context.Context, a *engine.Act) (string, error) {
			if err := ownFile(ctx); err != nil {
				return "", err
			}
			cmd, _, err := command(ctx, a.Key())
			return cmd, err
		},
		judge: func(ctx context.Context, a *engine.Act, log []byte, _ int) (any, error) {
			return judge(ctx, a, a.Key(), log)
		},
		undo: func(ctx context.Context, a *engine.Act) error {
			// Somebody may have learnt the new machines' keys since.
			if err := ownFile(ctx); err != nil {
				return err
			}
			key := a.Key() + "-undo"
			cmd, _, err := command(ctx, key)
			if err != nil {
				return err
			}
			log, _, err := r.runScript(ctx, a, key, cmd)
			if err != nil {
				return err
			}
			_, err = judge(ctx, a, key, log)
			return err
		},
	})
}

// checkEverything looks at the pair as a person would: programs through the
// installer's own script, floating address, console.
func (r *rebuild) checkEverything() engine.Step {
	return engine.Step{
		ID: "8.2-check", Section: "8.2", Effect: engine.ReadOnly,
		Title: "the new machines serve: programs by exec_nodes.sh, names, floating address, console",
		Lines: []string{"exec_nodes.sh -f " + strings.Join(r.names(), ",") + " supervisorctl status", r.f.asks()},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := r.proveNames(ctx, a); err != nil {
				return nil, err
			}
			scripts, scope, err := r.scope(ctx)
			if err != nil {
				return nil, err
			}
			results, err := r.firstbox().Exec(ctx, scripts, scope, "supervisorctl status")
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			for _, res := range results {
				s, err := pitrix.ParseSupervisor([]byte(res.Output), res.Status)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", res.Node, err)
				}
				if s.Verdict() != pitrix.VerdictRunning {
					return nil, fmt.Errorf("%s: %s", res.Node, s)
				}
			}
			if r.c.VIP == "" {
				return nil, nil
			}
			return nil, r.watchFor(ctx, a, r.cfg.Pace.Observe)
		},
	}
}

func (r *rebuild) clearMarker() engine.Step {
	return engine.Step{
		ID: "8.3-marker", Section: "8.3", Effect: engine.SetState,
		Title:   "take the mark off the firstbox: what it has built has the final addresses",
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if _, err := r.built(ctx); err != nil {
				return nil, err
			}
			return nil, r.unmark(ctx, a)
		},
		Undo: r.mark,
	}
}

// soak watches the new pair for as long as the configuration wants.
func (r *rebuild) soak() engine.Step {
	return engine.Step{
		ID: "9.1-soak", Section: "9.1", Effect: engine.ReadOnly,
		Title: fmt.Sprintf("the new machines serve for %s", short(r.c.Soak)),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			end := time.NewTimer(r.c.Soak)
			defer end.Stop()
			tick := time.NewTicker(max(r.cfg.Pace.Sample, r.c.Soak/1000))
			defer tick.Stop()
			for {
				if r.c.VIP != "" {
					if err := r.waitServes(ctx, a); err != nil {
						return nil, err
					}
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-end.C:
					return nil, nil
				case <-tick.C:
				}
			}
		},
	}
}

// parkImages renames what the old machines leave on their hosts, so that no
// launch can take it for its own, and their stale markers with it.
func (r *rebuild) parkImages() engine.Step {
	var lines []string
	for _, n := range r.f.Nodes {
		lines = append(lines, fmt.Sprintf("%s: /pitrix/kernels/%s.{img,xml,Done} → old-%s.*; the image needs its base %s unchanged", n.OldHost, n.Name, n.Name, orNone(n.Base)))
	}
	return engine.Step{
		ID: "9.1-park", Section: "9.1", Effect: engine.SetState,
		Title: "put the old machines' images and definitions aside, with their markers", Lines: lines,
		Observe: observeByDoing, // what is renamed already is left alone
		Do: func(ctx context.Context, _ *engine.Act) (any, error) {
			out := map[string]pitrix.VMFiles{}
			for i := range r.f.Nodes {
				n := &r.f.Nodes[i]
				if err := r.shutOff(ctx, n); err != nil {
					return nil, err
				}
				files, err := r.hypervisor(n.OldHost).Park(ctx, n.Name)
				if err != nil {
					return nil, wrapHost(n.OldHost, err)
				}
				out[n.Name] = files
			}
			return out, nil
		},
		Undo: func(ctx context.Context, _ *engine.Act) error {
			for i := range r.f.Nodes {
				n := &r.f.Nodes[i]
				if _, err := r.hypervisor(n.OldHost).Unpark(ctx, n.Name); err != nil {
					return wrapHost(n.OldHost, err)
				}
			}
			return nil
		},
	}
}

// shutOff sees that the old machine of a node is off and stays off.
func (r *rebuild) shutOff(ctx context.Context, n *RebuildNodeFacts) error {
	d, err := r.oldDomain(ctx, n)
	switch {
	case err != nil:
		return err
	case d.State != pitrix.DomainShutOff:
		return fmt.Errorf("the old %s on host %s is %s: somebody has started it", n.Name, n.OldHost, d.State)
	case d.Autostart:
		return fmt.Errorf("the old %s would come back when host %s reboots: somebody has switched its autostart on", n.Name, n.OldHost)
	}
	return nil
}

// oldName is the name that the domain of a node's old machine has in the end.
func (r *rebuild) oldName(n *RebuildNodeFacts) string {
	if r.inPlace() {
		return pitrix.AsideName(n.Name)
	}
	return n.Name
}

// backedUp tells whether the files of a node's old machine are backups. In place
// they may have those of the new one beside them.
func (r *rebuild) backedUp(n *RebuildNodeFacts, files pitrix.VMFiles) bool {
	if r.inPlace() && n.OldHost == n.PhysicalHost {
		return files.Image == pitrix.PlaceBoth && files.XML == pitrix.PlaceBoth
	}
	return files.State() == pitrix.Parked
}

func (r *rebuild) undefine() engine.Step {
	var lines []string
	for _, n := range r.f.Nodes {
		lines = append(lines, fmt.Sprintf("%s: virsh undefine %s (%s), shut off; old-%s.img and old-%s.xml stay", n.OldHost, r.oldName(&n), n.UUID, n.Name, n.Name))
	}
	return engine.Step{
		ID: "9.2-undefine", Section: "9.2", Effect: engine.Irreversible,
		Title: "undefine the old machines; their images stay as backups", Lines: lines,
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if r.c.VIP != "" {
				if err := r.waitServes(ctx, a); err != nil {
					return nil, err
				}
			}
			for i := range r.f.Nodes {
				n := &r.f.Nodes[i]
				hv := r.hypervisor(n.OldHost)
				name := r.oldName(n)
				d, err := hv.GetDomain(ctx, name)
				if err != nil {
					return nil, wrapHost(n.OldHost, err)
				}
				if d == nil {
					continue
				}
				if err := r.shutOff(ctx, n); err != nil {
					return nil, err
				}
				files, err := hv.GetFiles(ctx, n.Name)
				if err != nil {
					return nil, wrapHost(n.OldHost, err)
				}
				if !r.backedUp(n, files) {
					return nil, fmt.Errorf("the files of the old %s on host %s are not put aside (%s)", n.Name, n.OldHost, files.State())
				}
				if err := hv.Undefine(ctx, name, n.UUID); err != nil {
					return nil, wrapHost(n.OldHost, err)
				}
			}
			return nil, nil
		},
	}
}

// rebuiltResult is what a run has come to.
type rebuiltResult struct {
	Nodes []RebuiltNode `json:"nodes"`
}

// A RebuiltNode is a node after its rebuild.
type RebuiltNode struct {
	Name          string   `json:"name"`
	Address       string   `json:"address"`
	Host          string   `json:"host"`     // of the new machine
	OldHost       string   `json:"old_host"` // which has the backups
	KernelBefore  string   `json:"kernel_before"`
	KernelAfter   string   `json:"kernel_after"`
	ReleaseBefore string   `json:"release_before"`
	ReleaseAfter  string   `json:"release_after"`
	Backups       []string `json:"backups"`
}

// verifyEnd looks at the world once more: the new machines, and nothing that
// was meant for the meantime only.
func (r *rebuild) verifyEnd() engine.Step {
	return engine.Step{
		ID: "9.3-verify", Section: "9.3", Effect: engine.ReadOnly,
		Title: "the new machines serve at the final addresses, the backups are there, and nothing of the meantime is left",
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			fb := r.firstbox()
			fleet, err := fb.ReadFleet(ctx)
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			var bad []string
			if m, err := fb.GetMarker(ctx); err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			} else if m != nil && m.Run == a.RunID() {
				bad = append(bad, "the firstbox still carries the mark of this run")
			}
			var res rebuiltResult
			for i := range r.f.Nodes {
				n := &r.f.Nodes[i]
				node, left, err := r.verifyNode(ctx, a, n, fleet[n.Name])
				if err != nil {
					return nil, err
				}
				bad = append(bad, left...)
				res.Nodes = append(res.Nodes, node)
			}
			if len(bad) > 0 {
				return nil, errors.New("the run has reached its end, but: " + strings.Join(bad, "; "))
			}
			if r.c.VIP != "" {
				if err := r.waitServes(ctx, a); err != nil {
					return nil, err
				}
			}
			return res, nil
		},
	}
}

func (r *rebuild) verifyNode(ctx context.Context, a *engine.Act, n *RebuildNodeFacts, s *pitrix.Settings) (RebuiltNode, []string, error) {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, n.Name+": "+fmt.Sprintf(format, args...)) }
	node, l, m, err := r.fresh(a, n, n.Final)
	if err != nil {
		return RebuiltNode{}, nil, err
	}
	now, err := r.machine(ctx, node)
	if err != nil {
		return RebuiltNode{}, nil, fmt.Errorf("new %s: %w", n.Name, err)
	}
	if err := r.prove(ctx, node, m); err != nil {
		say("%v", err)
	}
	_, final, err := r.settings(a, n)
	if err != nil {
		return RebuiltNode{}, nil, err
	}
	if s == nil || string(s.Bytes()) != string(final.Bytes()) {
		a.Progress("not by this run: the settings of %s were edited since", n.Name)
	}
	out, err := run(ctx, l, "ls /etc/cron.d 2>/dev/null | grep '^upgradectl-' || :")
	if err != nil {
		return RebuiltNode{}, nil, err
	}
	if left := strings.Fields(out); len(left) > 0 {
		say("a revert of its network is still scheduled: %s", strings.Join(left, ", "))
	}
	temporary, err := netip.ParseAddr(n.Address)
	if err != nil {
		return RebuiltNode{}, nil, err
	}
	if dev, err := node.AddressDevice(ctx, temporary); err != nil {
		return RebuiltNode{}, nil, fmt.Errorf("new %s: %w", n.Name, err)
	} else if dev != "" && n.Address != n.Final {
		say("it still has its temporary address %s", n.Address)
	}
	files, err := r.hypervisor(n.OldHost).GetFiles(ctx, n.Name)
	if err != nil {
		return RebuiltNode{}, nil, wrapHost(n.OldHost, err)
	}
	if !r.backedUp(n, files) {
		say("its backups on %s are not as they were left (%s)", n.OldHost, files.State())
	}
	d, err := r.newDomain(ctx, n)
	if err != nil {
		return RebuiltNode{}, nil, err
	}
	if d == nil || d.State != pitrix.DomainRunning || !d.Autostart {
		say("its domain on %s does not run, or would not start with its host", n.PhysicalHost)
	}
	return RebuiltNode{
		Name: n.Name, Address: n.Final, Host: n.PhysicalHost, OldHost: n.OldHost,
		KernelBefore: n.Old.Boot.Kernel, KernelAfter: now.Boot.Kernel, ReleaseBefore: n.Old.Boot.Release, ReleaseAfter: now.Boot.Release,
		Backups: slices.Clone([]string{"/pitrix/kernels/old-" + n.Name + ".img", "/pitrix/kernels/old-" + n.Name + ".xml"}),
	}, bad, nil
}
