package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// runTag marks everything that a run makes in the cloud; its value is the
// run's ID.
const runTag = "upgradectl:run"

// The kinds of a Leftover.
const (
	LeftInstance      = "instance"
	LeftImage         = "image"
	LeftSnapshotGroup = "snapshot-group"
	LeftSnapshot      = "snapshot"
	LeftLease         = "lease"      // of a host
	LeftMark          = "nginx-mark" // a line that a run has changed
	LeftRestart       = "restart"    // restart values on the production host, under a key
)

// A Leftover is something that a run has made and that is still there.
type Leftover struct {
	Kind    string    `json:"kind"`
	ID      string    `json:"id"` // of the cloud; a host; file:line
	Name    string    `json:"name,omitempty"`
	Run     string    `json:"run"`
	Created time.Time `json:"created,omitzero"`
	// Keep says why Remove leaves it: "" when it goes.
	Keep string `json:"keep,omitempty"`
}

// GCOptions say what a collection looks at.
type GCOptions struct {
	Run       string // ID; "" = of every run, to list
	Dir       string // its directory; "" = looked for below StateDir
	Snapshots bool   // snapshots go too
}

// ListLeftovers lists what runs have left behind in the cloud, by the tag that
// everything they make carries, and on the production host and the nginx hosts
// of cfg. What the journal of o.Run names and the tag does not is listed too,
// and never removed: somebody has taken it over. Nothing is changed.
//
// What belongs to a run that can still be resumed or rolled back is that run's
// to clean up and is kept, and so is an instance that a balancer or an nginx
// host of cfg still leads to.
func ListLeftovers(ctx context.Context, cfg *Config, e *Env, o GCOptions) ([]Leftover, error) {
	tags := map[string]string{runTag: o.Run} // an empty value: every value
	instances, err := e.ECS.ListInstances(ctx, ecs.Filter{Tags: tags})
	if err != nil {
		return nil, &AccessError{err}
	}
	images, err := e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: tags})
	if err != nil {
		return nil, &AccessError{err}
	}
	groups, err := e.ECS.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: tags})
	if err != nil {
		return nil, &AccessError{err}
	}
	snaps, err := e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: tags})
	if err != nil {
		return nil, &AccessError{err}
	}
	var out []Leftover
	for _, in := range instances {
		l := Leftover{Kind: LeftInstance, ID: in.ID, Name: in.Name, Run: in.Tags[runTag], Created: in.CreationTime}
		if serves, err := discoverAdopted(ctx, cfg, e, in); err != nil {
			return nil, err
		} else if len(serves) > 0 {
			l.Keep = "traffic may reach it: " + strings.Join(serves, "; ")
		}
		out = append(out, l)
	}
	for _, im := range images {
		out = append(out, Leftover{Kind: LeftImage, ID: im.ID, Name: im.Name, Run: im.Tags[runTag], Created: im.CreationTime})
	}
	snapshots := func(kind, id, name string, tags map[string]string, at time.Time) {
		l := Leftover{Kind: kind, ID: id, Name: name, Run: tags[runTag], Created: at}
		if !o.Snapshots {
			l.Keep = "snapshots are the way back; they go with --snapshots, or when their retention ends"
		}
		out = append(out, l)
	}
	for _, g := range groups {
		snapshots(LeftSnapshotGroup, g.ID, g.Name, g.Tags, g.CreationTime)
	}
	for _, s := range snaps {
		snapshots(LeftSnapshot, s.ID, s.Name, s.Tags, s.CreationTime)
	}
	onHosts, err := listOnHosts(ctx, cfg, e, o.Run)
	if err != nil {
		return nil, err
	}
	out = append(out, onHosts...)
	if err := keepLiving(out, o); err != nil {
		return nil, err
	}
	if o.Run != "" {
		named, err := listByJournal(ctx, e, o, out)
		if err != nil {
			return nil, err
		}
		out = append(out, named...)
	}
	return out, nil
}

// listOnHosts finds leases and marks.
func listOnHosts(ctx context.Context, cfg *Config, e *Env, run string) ([]Leftover, error) {
	var out []Leftover
	targets := []string{cfg.Host}
	for _, n := range cfg.Nginx {
		targets = append(targets, n.Host)
	}
	slices.Sort(targets)
	for _, target := range slices.Compact(targets) {
		l, err := hostos.GetLease(ctx, e.host(target))
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", target, err)
		}
		if l != nil && (run == "" || l.Run == run) {
			since, _ := time.Parse(time.RFC3339, l.Since) // zero when it is not one: for people only
			out = append(out, Leftover{Kind: LeftLease, ID: target, Name: l.Holder, Run: l.Run, Created: since, Keep: "upgradectl unlock --host " + target + " frees the host when the run is dead"})
		}
	}
	keys, err := hostos.ListRestart(ctx, e.host(cfg.Host))
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	for _, key := range keys {
		l := Leftover{Kind: LeftRestart, ID: key, Name: cfg.Host + ":" + hostos.RestartDir}
		switch {
		case run == "":
			l.Keep = "name the run that it is of"
		case !madeBy(run, key, "2.3-restart", "4.4-stop"):
			continue
		default:
			l.Run = run
			// 4.4 may have stopped what only these values can start.
			if _, err := hostos.CheckRestart(ctx, e.host(cfg.Host), hostServices(cfg)); errors.Is(err, hostos.ErrNotRunning) {
				l.Keep = "nothing else is left of how it ran: " + err.Error()
			}
		}
		out = append(out, l)
	}
	for _, n := range cfg.Nginx {
		tree, err := e.nginx(n).Load(ctx)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", n.Host, err)
		}
		for _, r := range tree.Refs(nginx.Query{}) {
			if r.Tag == "" || run != "" && !madeBy(run, r.Tag, "3.9-nginx", "4.2-nginx") {
				continue
			}
			out = append(out, Leftover{Kind: LeftMark, ID: fmt.Sprintf("%s:%s:%d", n.Host, r.File, r.Line), Name: r.Tag, Run: run, Keep: "traffic follows it; upgradectl nginx restore or unshift takes it back"})
		}
	}
	return out, nil
}

// madeBy tells whether a mark that is left somewhere is a key of one of the
// run's steps.
func madeBy(run, tag string, steps ...string) bool {
	for _, step := range steps {
		for attempt := 1; attempt <= 20; attempt++ {
			if engine.Key(run, step, attempt) == tag {
				return true
			}
		}
	}
	return false
}

// keepLiving keeps what runs need that can still go on. A run whose directory
// is not on this machine is not known; who names it in GCOptions.Run answers
// for its being dead.
func keepLiving(all []Leftover, o GCOptions) error {
	why := map[string]string{}
	for i, l := range all {
		reason, known := why[l.Run]
		if !known && l.Run != "" {
			dir := o.Dir
			var err error
			if dir == "" || l.Run != o.Run {
				dir, err = FindRun(l.Run)
			}
			if err == nil {
				h, err := engine.Read(dir)
				switch {
				case err != nil:
					reason = "its run cannot be read: " + err.Error()
				case h.Run != l.Run:
					return fmt.Errorf("%s holds run %s, not %s", dir, h.Run, l.Run)
				case h.State != engine.Succeeded && h.State != engine.RolledBack:
					reason = fmt.Sprintf("its run is %s: upgradectl resume or rollback --run %s cleans up", h.State, dir)
				}
			}
			why[l.Run] = reason
		}
		if reason != "" {
			all[i].Keep = reason
		}
	}
	return nil
}

// listByJournal looks for what the run's journal names and its tag does not.
func listByJournal(ctx context.Context, e *Env, o GCOptions, found []Leftover) ([]Leftover, error) {
	dir, err := o.Dir, error(nil)
	if dir == "" {
		if dir, err = FindRun(o.Run); err != nil {
			return nil, nil // no journal on this machine
		}
	}
	h, err := engine.Read(dir)
	if err != nil {
		return nil, nil // said by keepLiving
	}
	var instances, images, snaps []string
	for _, s := range h.Steps {
		var in instanceResult
		var im imageResult
		var sn snapshotResult
		switch {
		case s.ID == "3.3-clone" && decode(s, &in):
			instances = append(instances, in.InstanceID)
		case s.ID == "3.2-image" && decode(s, &im):
			images = append(images, im.ImageID)
		case (s.ID == "3.1-snapshots" || s.ID == "4.5-snapshots") && decode(s, &sn):
			for _, one := range sn.Snapshots {
				snaps = append(snaps, one.ID)
			}
		}
	}
	var out []Leftover
	add := func(kind, id, name string, at time.Time) {
		if id == "" || slices.ContainsFunc(found, func(l Leftover) bool { return l.ID == id }) {
			return
		}
		out = append(out, Leftover{Kind: kind, ID: id, Name: name, Run: o.Run, Created: at, Keep: "the journal names it, but it does not carry the run's tag any more: somebody has taken it over"})
	}
	if len(instances) > 0 {
		got, err := e.ECS.ListInstances(ctx, ecs.Filter{IDs: instances})
		if err != nil {
			return nil, &AccessError{err}
		}
		for _, in := range got {
			add(LeftInstance, in.ID, in.Name, in.CreationTime)
		}
	}
	if len(images) > 0 {
		got, err := e.ECS.ListImages(ctx, ecs.ImageFilter{IDs: images})
		if err != nil {
			return nil, &AccessError{err}
		}
		for _, im := range got {
			add(LeftImage, im.ID, im.Name, im.CreationTime)
		}
	}
	if len(snaps) > 0 {
		got, err := e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{IDs: snaps})
		if err != nil {
			return nil, &AccessError{err}
		}
		for _, s := range got {
			add(LeftSnapshot, s.ID, s.Name, s.CreationTime)
		}
	}
	return out, nil
}

// RemoveLeftovers removes of a list what it does not say to keep, which must
// all be of the one run o.Run: the instance, then images, snapshot groups,
// snapshots. Everything is looked at once more, and only what carries the run's
// tag goes. did is told what went; done again after a failure, it goes on.
func RemoveLeftovers(ctx context.Context, cfg *Config, e *Env, o GCOptions, list []Leftover, did func(what string)) error {
	if o.Run == "" {
		return &RefusedError{What: "cannot remove what runs have left", Reasons: []string{"name one run"}}
	}
	in := ecs.ReleaseInput{Guard: ecs.Guard{TagKey: runTag, TagValue: o.Run}}
	var instances, restart []string
	for _, l := range list {
		switch {
		case l.Keep != "":
		case l.Run != o.Run:
			return &RefusedError{What: "cannot remove what runs have left", Reasons: []string{fmt.Sprintf("%s %s is of run %s, not %s", l.Kind, l.ID, cmp.Or(l.Run, "(none)"), o.Run)}}
		case l.Kind == LeftInstance:
			instances = append(instances, l.ID)
		case l.Kind == LeftRestart:
			restart = append(restart, l.ID)
		case l.Kind == LeftImage:
			in.Images = append(in.Images, l.ID)
		case l.Kind == LeftSnapshotGroup:
			in.SnapshotGroups = append(in.SnapshotGroups, l.ID)
		case l.Kind == LeftSnapshot:
			in.Snapshots = append(in.Snapshots, l.ID)
		}
	}
	source, err := e.ECS.FindInstance(ctx, ecs.Lookup{ID: cfg.Instance, PrivateIP: pick(cfg.Instance == "", cfg.Address)})
	if err != nil {
		return &AccessError{err}
	}
	in.SourceID = source.ID
	if len(restart) > 0 {
		if err := hostos.RemoveRestart(ctx, e.host(cfg.Host), restart...); err != nil {
			return fmt.Errorf("host %s: %w", cfg.Host, err)
		}
		did("restart values on " + cfg.Host)
	}
	for _, id := range instances {
		one := ecs.ReleaseInput{Guard: in.Guard, SourceID: in.SourceID, InstanceID: id}
		if err := removed(e.ECS.Release(ctx, one, did)); err != nil {
			return err
		}
	}
	return removed(e.ECS.Release(ctx, in, did))
}

func removed(err error) error {
	if guard := new(ecs.GuardError); errors.As(err, &guard) {
		return &RefusedError{What: "cannot remove what the run has left", Reasons: []string{err.Error()}}
	}
	return err
}
