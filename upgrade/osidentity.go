package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// What makes production itself, where its system disk is replaced: put aside in 2.3, back in 4.5.

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
