package upgrade

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// os.production: replace-system-disk. Production gets no package transaction of
// its own: its system disk is replaced by an image of the transition host's,
// which has served in its place by then (ReplaceSystemDisk of the API: the
// instance, its addresses, its data disks and its places behind balancers stay,
// the old system disk is released). What makes production itself travels with
// the disks: step 2.3-identity puts it aside on production before the snapshots,
// so that the transition host has it, hence the image, hence the new disk.
//
// What production writes to its system disk after the snapshots of 3.1 is not in
// the image. 4.3-written and 4.5-stop-instance look for it.

// replacing tells whether production gets the transition host's system disk.
func (t *transition) replacing() bool { return t.cfg.OS.Production == ProductionReplaceDisk }

// replayed skips a step of production that the new disk makes needless.
func (t *transition) replayed(s engine.Step) engine.Step {
	if t.replacing() {
		s.Lines, s.Gate, s.Pivot = []string{"comes with the new system disk"}, "", false
		s.Plan = func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{NotApplicable: "it comes with the new system disk"}, nil
		}
	}
	return s
}

// whenReplacing skips a step where the disk is not replaced.
func (t *transition) whenReplacing(s engine.Step) engine.Step {
	if t.replacing() {
		return s
	}
	s.Lines, s.Pivot = nil, false
	s.Plan = func(context.Context, *engine.Act) (engine.Proposal, error) {
		return engine.Proposal{NotApplicable: "production keeps its system disk"}, nil
	}
	return s
}

// pinned makes steps behind the replacement know production by the keys that it
// shows then.
func (t *transition) pinned(steps []engine.Step) []engine.Step {
	if !t.replacing() {
		return steps
	}
	from := slices.IndexFunc(steps, func(s engine.Step) bool { return s.ID == "4.5-start-instance" })
	for i := from + 1; i < len(steps); i++ {
		s := steps[i]
		if s.Plan != nil {
			steps[i].Plan = func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
				if err := t.pinProduction(a); err != nil {
					return engine.Proposal{}, err
				}
				return s.Plan(ctx, a)
			}
		}
		if s.Observe != nil {
			steps[i].Observe = func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
				if err := t.pinProduction(a); err != nil {
					return engine.Sight{}, err
				}
				return s.Observe(ctx, a)
			}
		}
		if s.Do != nil {
			steps[i].Do = func(ctx context.Context, a *engine.Act) (any, error) {
				if err := t.pinProduction(a); err != nil {
					return nil, err
				}
				return s.Do(ctx, a)
			}
		}
		if s.Undo != nil {
			steps[i].Undo = func(ctx context.Context, a *engine.Act) error {
				if err := t.pinProduction(a); err != nil {
					return err
				}
				return s.Undo(ctx, a)
			}
		}
	}
	return steps
}

// pinProduction pins the keys that the cloud's own channel gave for the first
// boot of the new disk, besides those that production has always had: it shows
// them again from 4.5-settle on.
func (t *transition) pinProduction(a *engine.Act) error {
	var started startedResult
	var id identityResult
	ok, err := a.Result("4.5-start-instance", &started)
	if err != nil || !ok {
		return err
	}
	if _, err := a.Result("2.3-identity", &id); err != nil {
		return err
	}
	return t.e.Dialer.Pin(t.cfg.Host, append(slices.Clone(started.HostKeys), id.HostKeys...))
}

// ---- what makes production itself ----

type identityResult struct {
	Key      string   `json:"key"`       // names the directory on the host
	HostKeys []string `json:"host_keys"` // public, as in authorized_keys
	At       int64    `json:"at"`        // when, by the host's clock, in seconds since 1970
}

// identityDir is where a run puts production's identity aside, on its own disk.
func identityDir(key string) string { return "/var/lib/upgradectl/identity-" + key }

// identityScript puts aside what cloud-init and the quarantine change on a copy
// and is in no file of the quarantine's own: SSH host keys, machine ID, host name.
const identityScript = `set -eu
umask 077
d=@DIR@
rm -rf "$d"
mkdir -p "$d"
for f in /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /etc/machine-id /var/lib/dbus/machine-id /etc/hostname; do
	if test -f "$f" && ! test -L "$f"; then
		mkdir -p "$d${f%/*}"
		cp -p "$f" "$d$f"
	fi
done
sync
echo "at $(date +%s)"
cat /etc/ssh/ssh_host_*_key.pub
`

func keepScript(key string) string {
	return strings.ReplaceAll(identityScript, "@DIR@", shellq.Quote(identityDir(key)))
}

func (t *transition) keepIdentity() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "2.3-identity", Section: "2.3", Effect: engine.SetState,
		Title: "put aside on " + t.p.Host + " what makes it itself",
		Lines: []string{"SSH host keys, machine ID and host name into " + identityDir("KEY") + " on its own disk, readable by root only: they come back with the new disk"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			l := t.e.host(t.cfg.Host)
			out, err := t.runHeld(ctx, l, keepScript(a.Key()))
			if err != nil {
				return nil, fmt.Errorf("host %s: cannot put its identity aside: %w", l.target, err)
			}
			res := identityResult{Key: a.Key()}
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				switch {
				case len(f) == 2 && f[0] == "at":
					if res.At, err = strconv.ParseInt(f[1], 10, 64); err != nil {
						return nil, fmt.Errorf("host %s: its clock says %q", l.target, f[1])
					}
				case len(f) >= 2:
					res.HostKeys = append(res.HostKeys, f[0]+" "+f[1])
				}
			}
			if res.At == 0 || len(res.HostKeys) == 0 {
				return nil, fmt.Errorf("host %s: no SSH host key in /etc/ssh, or no clock", l.target)
			}
			return res, nil
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			l := t.e.host(t.cfg.Host)
			if _, err := t.runHeld(ctx, l, "rm -rf "+shellq.Quote(identityDir(a.Key()))); err != nil {
				return fmt.Errorf("host %s: %w", l.target, err)
			}
			return nil
		},
	})
}

// runHeld runs a script that changes a host and gives what it printed.
func (t *transition) runHeld(ctx context.Context, l *link, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	if err := l.alive(ctx); err != nil {
		return "", err
	}
	var out, stderr bytes.Buffer
	if err := l.held().Run(ctx, "/bin/sh -c "+shellq.Quote(script), nil, &out, &stderr); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// ---- what would be lost ----

// writtenScript lists the files on the system disk whose inode changed since a
// time: not the time of their content, which tar and rpm set back.
const writtenScript = `set -eu
find / -maxdepth 0 -newerct @0 >/dev/null
find @DIRS@ -xdev -type f -newerct @@AT@ 2>/dev/null | head -n 50000 || :
echo "== end"
`

// A Written is a directory on production's system disk with files that were
// written in a stretch of time.
type Written struct {
	Dir   string   `json:"dir"`
	Files int      `json:"files"`
	Some  []string `json:"some"` // up to three of them
}

// writtenDay is how far back a plan looks.
const writtenDay = 24 * time.Hour

// listWritten lists what was written to the system disk since a time of the
// host's clock. What every system writes by itself, and logs, are left out; logs
// are counted.
func listWritten(ctx context.Context, h hostinv.Host, inv *hostinv.Inventory, since int64) (dirs []Written, logs int, err error) {
	script := strings.NewReplacer("@DIRS@", shellq.Join(systemMounts(inv)...), "@AT@", strconv.FormatInt(since, 10)).Replace(writtenScript)
	var out, stderr bytes.Buffer
	if err := h.Run(ctx, "/bin/sh -c "+shellq.Quote(script), nil, &limited{w: &out, left: 16 << 20}, &stderr); err != nil {
		return nil, 0, fmt.Errorf("cannot list what was written to the system disk: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	if !strings.HasSuffix(out.String(), "== end\n") {
		return nil, 0, errors.New("cannot list what was written to the system disk: the list has no end")
	}
	dirs, logs = groupWritten(strings.Split(strings.TrimSuffix(out.String(), "== end\n"), "\n"))
	return dirs, logs, nil
}

// systemMounts are the file systems on the disk that / is on.
func systemMounts(inv *hostinv.Inventory) []string {
	disk := func(source string) string {
		if !plainDevice.MatchString(source) {
			return source
		}
		return strings.TrimRight(source, "p0123456789")
	}
	root := ""
	for _, m := range inv.Mounts {
		if m.Target == "/" {
			root = disk(m.Source)
		}
	}
	out := []string{"/"}
	for _, m := range inv.Mounts {
		if root != "" && disk(m.Source) == root && !slices.Contains(out, m.Target) {
			out = append(out, m.Target)
		}
	}
	return out
}

var (
	// systemWrites is what a system writes by itself, and does again.
	systemWrites = regexp.MustCompile(`^/(` + strings.Join([]string{
		`tmp/.*`, `run/.*`, `proc/.*`, `sys/.*`, `dev/.*`, `boot/grub2?/grubenv`, `var/(tmp|run|cache|spool/(anacron|postfix|at|cron/lastrun))/.*`, `swapfile`,
		`var/lib/(upgradectl|rpm|yum|dnf|PackageKit|dpkg|apt|systemd|logrotate|NetworkManager|dhclient|dhcp|chrony|ntp|cloud|rsyslog|plymouth|mlocate|plocate|sss|polkit-1|tuned|lastlog|containerd|misc|aide|selinux)/.*`,
		`var/lib/(logrotate\.status|random-seed)`,
		`var/lib/docker/(containers|image|network|buildkit|runtimes|swarm|tmp|trust|plugins|containerd)/.*`, `var/lib/docker/volumes/(metadata\.db|backingFsBlockDev)`,
		`var/lib/docker/(overlay2|overlay)/[^/]+/(work/.*|link|lower|committed|merged/.*)`, `var/lib/docker/engine-id`,
		`etc/(mtab|adjtime|resolv\.conf|ld\.so\.cache|machine-id|\.pwd\.lock|upgradectl/.*|ssh/ssh_host_.*)`, `(root|home/[^/]+)/\.(bash_history|viminfo|lesshst|ssh/known_hosts)`,
		`usr/local/(aegis|cloudmonitor|share/aliyun-assist|share/assist-daemon)/.*`,
	}, "|") + `)$`)
	logFile     = regexp.MustCompile(`^/var/log/|/logs?/|\.(log|out)([.-][0-9-]+)?(\.(gz|xz|bz2|zst))?$|/[^/]+\.pid$`)
	writtenDeep = regexp.MustCompile(`^(/var/lib/docker/(?:overlay2?|volumes)/[^/]+|/[^/]+(?:/[^/]+){0,2})/[^/]`)
	layerPath   = regexp.MustCompile(`^/var/lib/docker/overlay2?/[^/]+/diff(/.*)$`)
)

// groupWritten sorts files into the directories by which a person knows them.
func groupWritten(files []string) (dirs []Written, logs int) {
	at := map[string]int{}
	for _, f := range files {
		name := f
		if m := layerPath.FindStringSubmatch(f); m != nil {
			name = m[1] // as the container sees it
		}
		switch {
		case f == "" || systemWrites.MatchString(f) || systemWrites.MatchString(name):
			continue
		case logFile.MatchString(name):
			logs++
			continue
		}
		dir := path.Dir(f)
		if m := writtenDeep.FindStringSubmatch(f); m != nil {
			dir = m[1]
		}
		i, ok := at[dir]
		if !ok {
			i, at[dir] = len(dirs), len(dirs)
			dirs = append(dirs, Written{Dir: dir})
		}
		dirs[i].Files++
		if len(dirs[i].Some) < 3 {
			dirs[i].Some = append(dirs[i].Some, f)
		}
	}
	slices.SortFunc(dirs, func(a, b Written) int { return cmp.Compare(a.Dir, b.Dir) })
	return dirs, logs
}

// lost looks for what is on production's system disk and not in the image, and
// that nobody has taken on.
func (t *transition) lost(ctx context.Context, a *engine.Act) error {
	var id identityResult
	if ok, err := a.Result("2.3-identity", &id); err != nil || !ok {
		return errors.Join(errors.New("internal error: no identity recorded"), err)
	}
	l := t.e.host(t.cfg.Host)
	dirs, logs, err := listWritten(ctx, l, t.p.Facts.Inventory, id.At)
	if err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	if logs > 0 {
		a.Progress("%s: %d logs were written since the snapshots; they stay in those of 4.5 alone", t.p.Host, logs)
	}
	var bad []string
	for _, w := range dirs {
		if t.cfg.accepts(w.finding()) == "" {
			bad = append(bad, fmt.Sprintf("%s (%d files, as %s)", w.Dir, w.Files, strings.Join(w.Some, ", ")))
		} else {
			a.Progress("%s: %d files in %s are given up, as accepted", t.p.Host, w.Files, w.Dir)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s would lose what it has written to its system disk since the snapshots of 3.1: %s; nothing is lost yet: roll back, and make a new plan that accepts it (disk-written:DIR), or move it to a data disk", t.p.Host, strings.Join(firstOf(bad, 20), "; "))
	}
	return nil
}

func (w Written) finding() Finding {
	return Finding{ID: "disk-written", Severity: FindingBlocking, Object: w.Dir,
		Evidence: fmt.Sprintf("%d files in %s were written in the last day, as %s: what %s is given between the snapshots and the new disk is lost", w.Files, w.Dir, strings.Join(w.Some, ", "), "the system disk"),
		Remedy:   "move it to a data disk or off the host, or keep the system disk (os.production: replay)"}
}

func (t *transition) checkWritten() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.3-written", Section: "4.3", Effect: engine.ReadOnly,
		Title: t.p.Host + " has written nothing to its system disk that would be lost",
		Lines: []string{"files on the system disk whose inode changed since 2.3, but for logs, what a system writes by itself, and what is accepted (disk-written)"},
		Do:    func(ctx context.Context, a *engine.Act) (any, error) { return nil, t.lost(ctx, a) },
	})
}

// ---- the image ----

type diskImage struct {
	ImageID  string `json:"image_id"`
	Snapshot string `json:"snapshot"`
	Size     int    `json:"size_gib"`
}

// imageClone makes an image of the transition host's system disk, alone: an
// image with data disks cannot become a system disk.
func (t *transition) imageClone() engine.Step {
	const id = "4.3-image"
	undo := func(ctx context.Context, a *engine.Act) error {
		return errors.Join(t.deleteImages(id)(ctx, a), t.deleteSnapshots(ctx, a))
	}
	return t.whenReplacing(engine.Step{
		ID: id, Section: "4.3", Effect: engine.TokenCreate,
		Title: "make an image of the system disk of the transition host, which has served by now",
		Lines: []string{"ecs CreateSnapshot of its system disk, CreateImage of that snapshot alone"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			c, _, err := t.clone(a)
			return engine.Proposal{Params: snapshotParams{ecs.SnapshotInput{
				InstanceID: c.InstanceID, SystemOnly: true, Token: a.Key(), Name: "upgradectl-" + a.RunID() + "-4.3",
				RetentionDays: t.cfg.Snapshots.RetentionDays, Tags: t.tags(a),
			}}}, err
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			snaps, err := t.e.ECS.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			images, err := t.e.ECS.ListImages(ctx, ecs.ImageFilter{Tags: keyTag(a)})
			if err != nil {
				return engine.Sight{}, err
			}
			if len(snaps)+len(images) == 0 {
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress, Detail: fmt.Sprintf("%d snapshots and %d images exist", len(snaps), len(images))}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p snapshotParams
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			_, l, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			if _, err := t.runHeld(ctx, l, "sync"); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			cleanUp := func(ctx context.Context) error { return undo(ctx, a) }
			snaps, err := t.e.ECS.CreateSnapshots(ctx, p.Input)
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) (err error) {
				snaps, err = t.e.ECS.WaitSnapshots(ctx, []string{snaps[0].ID}, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			image, err := t.e.ECS.CreateImage(ctx, ecs.ImageInput{Name: "upgradectl-" + a.Key(), Token: a.Key(), Snapshots: snaps, Tags: t.tags(a)})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			res := diskImage{image, snaps[0].ID, snaps[0].SourceDiskSize}
			err = t.whileMoving(ctx, a, func(ctx context.Context, progress func(ecs.Progress)) error {
				_, err := t.e.ECS.WaitImage(ctx, image, progress)
				return err
			})
			if err != nil {
				return nil, notMade(ctx, err, cleanUp)
			}
			return res, nil
		},
		Undo: undo,
	})
}

// ---- the new disk ----

// haltProduction switches production off. It can still be switched on again.
func (t *transition) haltProduction() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.5-stop-instance", Section: "4.5", Effect: engine.SetState,
		Title: "shut " + t.p.Host + " down, when it has nothing to lose",
		Lines: []string{"once more what would be lost, with its services stopped", "ecs StopInstance StoppedMode=KeepCharging ForceStop=false"},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			return engine.Proposal{Params: instanceResult{t.p.Facts.Instance.ID}}, t.lost(ctx, a)
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			if err := t.ready(ctx, a); err != nil {
				return nil, err
			}
			in, err := t.e.ECS.GetInstance(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			err = t.halt(ctx, a, in)
			t.e.host(t.cfg.Host).drop(nil)
			return nil, err
		},
		Undo: func(ctx context.Context, a *engine.Act) error {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return err
			}
			if err := t.switchOn(ctx, a, p.InstanceID); err != nil {
				return err
			}
			_, err := t.waitBoot(ctx, a, t.e.host(t.cfg.Host), "")
			return err
		},
	})
}

// switchOn starts an instance, whatever it is doing, and waits until it runs.
func (t *transition) switchOn(ctx context.Context, a *engine.Act, id string) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
	defer cancel()
	in, err := t.e.ECS.GetInstance(ctx, id)
	if err != nil {
		return err
	}
	if in.Status == "Stopping" { // we were cut off right after StopInstance
		if in, err = t.e.ECS.WaitInstance(ctx, id, ecs.StatusStopped, t.progress(a)); err != nil {
			return err
		}
	}
	if in.Status == ecs.StatusStopped {
		if err := t.e.ECS.StartInstance(ctx, id); err != nil {
			return err
		}
	}
	_, err = t.e.ECS.WaitInstance(ctx, id, ecs.StatusRunning, t.progress(a))
	return err
}

type diskResult struct {
	DiskID string `json:"disk_id"`
}

// replaceDisk is the pivot: the old system disk is gone afterwards.
func (t *transition) replaceDisk() engine.Step {
	old := systemDisk(t.p.Facts.Disks)
	return t.whenReplacing(engine.Step{
		ID: "4.5-disk", Section: "4.5", Effect: engine.TokenCreate, Pivot: true, NoUndo: prod.noUndo(),
		Title: "replace the system disk of " + t.p.Host + " by the image",
		Lines: []string{
			fmt.Sprintf("ecs ReplaceSystemDisk InstanceId=%s ImageId=(from 4.3) SystemDisk.Size=%d, with its key pair, else with the image's logins", t.p.Facts.Instance.ID, old.Size),
			"afterwards: another system disk, the data disks as before; " + old.ID + " is released, its snapshot of 4.5 stays",
		},
		Plan: func(ctx context.Context, a *engine.Act) (engine.Proposal, error) {
			var im diskImage
			if ok, err := a.Result("4.3-image", &im); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no image recorded"), err)
			}
			if old.ID == "" {
				return engine.Proposal{}, errors.New("internal error: the plan names no system disk")
			}
			// Here a refusal is not past the pivot yet.
			if err := t.ready(ctx, a); err != nil {
				return engine.Proposal{}, err
			}
			if changed, err := t.disksChanged(ctx, old.ID); err != nil || changed != "" {
				return engine.Proposal{}, errors.Join(err, driftOf(changed))
			}
			return engine.Proposal{Params: ecs.ReplaceInput{InstanceID: t.p.Facts.Instance.ID, OldDiskID: old.ID, ImageID: im.ImageID, Size: max(old.Size, im.Size), Token: a.Key()}}, nil
		},
		Observe: func(ctx context.Context, a *engine.Act) (engine.Sight, error) {
			var p ecs.ReplaceInput
			if err := a.Params(&p); err != nil {
				return engine.Sight{}, err
			}
			disks, err := t.e.ECS.ListDisks(ctx, p.InstanceID)
			if err != nil {
				return engine.Sight{}, err
			}
			switch now := systemDisk(disks); {
			case now.ID == p.OldDiskID:
				return engine.Sight{State: engine.Absent}, nil
			case now.ID != "" && now.ImageID != p.ImageID:
				return engine.Sight{State: engine.Foreign, Detail: fmt.Sprintf("system disk %s of image %s", now.ID, now.ImageID)}, nil
			default:
				return engine.Sight{State: engine.InProgress, Detail: "system disk " + now.ID}, nil
			}
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p ecs.ReplaceInput
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			disks, err := t.e.ECS.ListDisks(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			if systemDisk(disks).ID == p.OldDiskID {
				if err := t.ready(ctx, a); err != nil {
					return nil, err
				}
			}
			id, err := t.e.ECS.ReplaceSystemDisk(ctx, p, t.progress(a))
			if err != nil {
				var refused *ecs.Error
				if errors.Is(err, ecs.ErrGuard) || errors.As(err, &refused) && refused.Action == "ReplaceSystemDisk" && refused.Definitive && !errors.Is(err, ecs.ErrCredentials) {
					err = engine.Definitive(err)
				}
				return nil, err
			}
			a.Progress("%s: system disk %s in the place of %s", t.p.Host, id, p.OldDiskID)
			return diskResult{id}, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var r diskResult
			if ok, err := a.Own(&r); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: no disk recorded"), err)
			}
			changed, err := t.disksChanged(ctx, r.DiskID)
			if err == nil && changed != "" {
				err = errors.New(changed + ": see that in the console, and resume")
			}
			return nil, err
		},
	})
}

func driftOf(changed string) error {
	if changed == "" {
		return nil
	}
	return &DriftError{[]string{changed}}
}

// systemDisk is the zero Disk when there is none.
func systemDisk(disks []ecs.Disk) ecs.Disk {
	for _, d := range disks {
		if d.Type == "system" {
			return d
		}
	}
	return ecs.Disk{}
}

// disksChanged compares production's disks with those of the plan; the system
// disk is to be the one named.
func (t *transition) disksChanged(ctx context.Context, system string) (string, error) {
	disks, err := t.e.ECS.ListDisks(ctx, t.p.Facts.Instance.ID)
	if err != nil {
		return "", err
	}
	was, now := systemDisk(t.p.Facts.Disks), systemDisk(disks)
	switch {
	case now.ID != system:
		return fmt.Sprintf("the system disk of %s is %s, not %s", t.p.Host, cmp.Or(now.ID, "none"), system), nil
	case now.Category != was.Category || now.Size < was.Size:
		return fmt.Sprintf("the system disk of %s is %s of %d GiB, and was %s of %d GiB", t.p.Host, now.Category, now.Size, was.Category, was.Size), nil
	}
	data := func(all []ecs.Disk) string {
		var out []string
		for _, d := range all {
			if d.Type != "system" {
				out = append(out, d.ID+" at "+d.Device)
			}
		}
		return sorted(out)
	}
	if a, b := data(t.p.Facts.Disks), data(disks); a != b {
		return fmt.Sprintf("%s has the data disks %s, and had %s", t.p.Host, cmp.Or(b, "(none)"), cmp.Or(a, "(none)")), nil
	}
	return "", nil
}

type startedResult struct {
	HostKeys []string    `json:"host_keys"` // of the first boot, read through Cloud Assistant
	Boot     hostos.Boot `json:"boot"`
}

// startProduction boots the new disk, and proves that it is what answers.
func (t *transition) startProduction() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.5-start-instance", Section: "4.5", Effect: engine.SetState, Pivot: true, NoUndo: prod.noUndo(),
		Title: "start " + t.p.Host + " from its new system disk",
		Lines: []string{"ecs StartInstance; RunCommand (reads the SSH host keys of this boot out of band)", "another boot ID; the addresses as before"},
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{Params: instanceResult{t.p.Facts.Instance.ID}}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var p instanceResult
			if err := a.Params(&p); err != nil {
				return nil, err
			}
			// The lease was on the old disk; the one that came with the image is the
			// transition host's.
			t.e.forgetLease(t.cfg.Host)
			if err := t.switchOn(ctx, a, p.InstanceID); err != nil {
				return nil, err
			}
			in, err := t.e.ECS.GetInstance(ctx, p.InstanceID)
			if err != nil {
				return nil, err
			}
			if was, now := sorted(t.p.Facts.Instance.PrivateIPs), sorted(in.PrivateIPs); was != now {
				return nil, fmt.Errorf("instance %s has the private addresses %s, and had %s", in.ID, now, was)
			}
			wait, cancel := context.WithTimeout(ctx, t.cfg.Pace.Timeout)
			defer cancel()
			var r startedResult
			if r.HostKeys, err = t.e.ECS.HostKeys(wait, p.InstanceID); err != nil {
				err = fmt.Errorf("cannot read the SSH host keys of %s through Cloud Assistant: %w", p.InstanceID, err)
				if ctx.Err() == nil {
					err = fmt.Errorf("%w; %s", err, t.evidence(ctx, a, prod))
				}
				return nil, err
			}
			if err := t.e.Dialer.Pin(t.cfg.Host, r.HostKeys); err != nil {
				return nil, err
			}
			if r.Boot, err = t.waitBoot(ctx, a, t.e.host(t.cfg.Host), t.p.Facts.Boot.ID); err != nil {
				return nil, err
			}
			c, _, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			if r.Boot.ID == c.Boot.ID {
				return nil, fmt.Errorf("%s leads to the transition host", t.cfg.Host)
			}
			return r, nil
		},
	})
}

// forgetLease lets the next change take a host's lease anew.
func (e *Env) forgetLease(target string) {
	e.holder.mu.Lock()
	delete(e.holder.leases, target)
	e.holder.mu.Unlock()
	e.host(target).drop(nil)
}

// settleScript makes production of a copy: its SSH host keys, machine ID and
// host name come back, the network's files are those of before the quarantine,
// and nothing is held back any more. What it takes away last tells that it is
// done. It takes effect with the reboot that follows.
const settleScript = `set -eu
kept=@DIR@
if ! test -d "$kept"; then
	echo done
	exit 0
fi
@LIFT@
for f in "$kept"/etc/ssh/*; do
	cp -p "$f" /etc/ssh/
done
for f in /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub; do
	test -f "$kept$f" || rm -f "$f"
done
for f in /etc/machine-id /var/lib/dbus/machine-id /etc/hostname; do
	if test -f "$kept$f"; then
		cp -p "$kept$f" "$f"
	fi
done
if test -d /etc/upgradectl/network; then
	find /etc/upgradectl/network -type f | while IFS= read -r k; do
		f=${k#/etc/upgradectl/network}
		case $f in
		*/new) ;;
		*) cp -p "$k" "$f" ;;
		esac
	done
fi
if command -v restorecon >/dev/null 2>&1; then
	restorecon -R /etc/ssh /etc/machine-id /etc/hostname /etc/sysconfig/network-scripts >/dev/null 2>&1 || :
fi
rm -rf /etc/upgradectl
sync
rm -rf "$kept"
echo done
`

// ownScript is settleScript for what was put aside under a key, and what was
// held back.
func ownScript(key string, q ecs.Quarantine) (string, error) {
	lift := ""
	if len(q.Units)+len(q.Addresses)+len(q.MachineID) > 0 {
		var err error
		if lift, err = q.LiftScript(); err != nil {
			return "", err
		}
	}
	return strings.NewReplacer("@DIR@", shellq.Quote(identityDir(key)), "@LIFT@", lift).Replace(settleScript), nil
}

// settle makes production itself again. The services that were held back start
// with the reboot that follows.
func (t *transition) settle() engine.Step {
	return t.whenReplacing(engine.Step{
		ID: "4.5-settle", Section: "4.5", Effect: engine.SetState, Pivot: true, NoUndo: prod.noUndo(),
		Title: "make the copy " + t.p.Host + " again",
		Lines: []string{"its SSH host keys, machine ID, host name and network files come back; no unit is held back; the packages are the transition host's"},
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			var id identityResult
			if ok, err := a.Result("2.3-identity", &id); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("internal error: no identity recorded"), err)
			}
			return engine.Proposal{Params: id}, nil
		},
		Observe: observeByDoing,
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var id identityResult
			if err := a.Params(&id); err != nil {
				return nil, err
			}
			l := t.e.host(t.cfg.Host)
			p, err := t.quarantine(a)
			if err != nil {
				return nil, err
			}
			script, err := ownScript(id.Key, p.ecs())
			if err != nil {
				return nil, err
			}
			out, err := t.runHeld(ctx, l, script)
			if err == nil && strings.TrimSpace(out) != "done" {
				err = fmt.Errorf("unexpected answer %q", out)
			}
			if err != nil {
				return nil, fmt.Errorf("host %s: cannot make it itself again: %w", l.target, err)
			}
			return nil, nil
		},
		Verify: func(ctx context.Context, a *engine.Act) (any, error) {
			var id identityResult
			if err := a.Params(&id); err != nil {
				return nil, err
			}
			l := t.e.host(t.cfg.Host)
			var out bytes.Buffer
			if err := l.Run(ctx, "cat /etc/machine-id /etc/hostname /etc/ssh/ssh_host_*_key.pub", nil, &out, io.Discard); err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			for _, want := range append([]string{t.p.Facts.Inventory.MachineID, t.p.Facts.Inventory.Hostname}, id.HostKeys...) {
				if !strings.Contains(out.String(), want) {
					return nil, fmt.Errorf("%s is not itself again: its machine ID, host name or SSH host keys are not those of before (%.40s is missing); put that right and resume", t.p.Host, want)
				}
			}
			now, err := hostos.GetPackages(ctx, l)
			if err != nil {
				return nil, fmt.Errorf("host %s: %w", l.target, err)
			}
			diff, err := t.packageDiff(a, now)
			if err == nil && len(diff) > 0 {
				err = fmt.Errorf("%s has other packages than the transition host: %s", t.p.Host, strings.Join(firstOf(diff, 20), "; "))
			}
			return nil, err
		},
	})
}
