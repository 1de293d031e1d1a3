package upgrade

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// What production would lose with its system disk.

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
