package ecs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// Quarantine keeps systemd units of a clone from starting. A copy boots with
// everything enabled that its source has: cron would run jobs twice, consumers
// would take messages, registries would send it traffic.
//
// UserData makes cloud-init give every unit a drop-in whose condition does not
// hold until LiftScript has run, and stop those that were faster. Cloud-init
// does that on each boot, early, and the drop-ins stay on the disk, so that from
// the second boot on no unit is faster. A condition is used and no mask, because
// a mask does not work on units in /etc/systemd/system.
//
// On the first boot a unit can run for some seconds before cloud-init gets to
// it. Where that is too much, give the clone an isolated security group as well
// (CloneInput.SecurityGroups), and SetSecurityGroups when CheckQuarantine says
// that nothing runs. Hosts without systemd or cloud-init are not held back: look
// at Image.CloudInit first.
//
// What the disk says of the source itself is put right as well: files of the
// network's configuration that name its addresses ask DHCP instead, and a
// machine ID that is the source's is replaced by a new one.
type Quarantine struct {
	// Units are names as "crond.service"; without a suffix ".service" is meant.
	// Name sockets and timers as well: they start services.
	Units []string `json:"units,omitempty"`
	// Addresses are the source's IPv4 and MAC addresses. A file that sets one is
	// rewritten, the original kept in /etc/upgradectl/network, and the clone
	// booted once more.
	Addresses []string `json:"addresses,omitempty"`
	// MachineID is the source's; empty: the clone keeps what it has.
	MachineID string `json:"machine_id,omitempty"`
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.\\@-]*\.(service|socket|timer|path|target|mount)$`)

const (
	quarantineLifted = "/etc/upgradectl/quarantine-lifted"
	quarantineFree   = "/etc/upgradectl/released" // with a file for each unit that was let go by itself
	quarantineDropIn = "00-upgradectl-quarantine.conf"
)

// units checks the names and gives each its suffix.
func (q Quarantine) units() ([]string, error) {
	if len(q.Units)+len(q.Addresses)+len(q.MachineID) == 0 {
		return nil, errors.New("a quarantine without units holds nothing back")
	}
	return unitNames(q.Units)
}

func unitNames(names []string) ([]string, error) {
	var out []string
	for _, u := range names {
		full := u
		if !unitName.MatchString(full) {
			full += ".service"
		}
		if len(full) > 255 || !unitName.MatchString(full) || strings.Contains(full, "..") {
			return nil, fmt.Errorf("%q is not the name of a systemd unit", u)
		}
		if !slices.Contains(out, full) {
			out = append(out, full)
		}
	}
	return out, nil
}

// maxUserData is what every version of the cloud's limit allows, before base64.
const maxUserData = 16 << 10

// UserData is the cloud-config for CloneInput.UserData, at most 16 KiB.
func (q Quarantine) UserData() ([]byte, error) {
	script, err := q.holdScript("")
	if err != nil {
		return nil, err
	}
	command, err := json.Marshal([]string{"sh", "-c", script}) // JSON is YAML
	if err != nil {
		return nil, err
	}
	data := []byte("#cloud-config\nbootcmd:\n  - " + string(command) + "\n")
	if len(data) > maxUserData {
		return nil, fmt.Errorf("a quarantine of %d units needs %d bytes of user data: %d are allowed", len(q.Units), len(data), maxUserData)
	}
	return data, nil
}

// holdScript is what runs on each boot. root is where the file system begins;
// only tests have one.
func (q Quarantine) holdScript(root string) (string, error) {
	units, err := q.units()
	if err != nil {
		return "", err
	}
	network, err := q.networkScript(root)
	if err != nil {
		return "", err
	}
	script := "test -e " + shellq.Quote(root+quarantineLifted) + " && exit 0\n"
	if len(units) > 0 {
		script += "held=\n" +
			"for u in " + shellq.Join(units...) + "; do\n" +
			"  test -e " + shellq.Quote(root+quarantineFree) + `/"$u" && continue` + "\n" +
			`  held="$held $u"` + "\n" +
			"  d=" + shellq.Quote(root+"/etc/systemd/system/") + "$u.d\n" +
			`  mkdir -p "$d" && printf '[Unit]\nConditionPathExists=` + quarantineLifted + `\n' > "$d/` + quarantineDropIn + `"` + "\n" +
			"done\n" +
			"systemctl daemon-reload\n" +
			`test -z "$held" || systemctl stop --no-block $held` + "\n"
	}
	return script + q.machineScript(root) + network, nil
}

// LiftScript is a shell script that ends the quarantine for good, to be run as
// root on the clone. It starts nothing; it can be run again.
func (q Quarantine) LiftScript() (string, error) { return q.liftScript("") }

func (q Quarantine) liftScript(root string) (string, error) {
	units, err := q.units()
	if err != nil {
		return "", err
	}
	return "set -e\n" +
		"mkdir -p " + shellq.Quote(root+"/etc/upgradectl") + "\n" +
		": > " + shellq.Quote(root+quarantineLifted) + "\n" +
		freeUnits(root, units, ""), nil
}

// ReleaseScript is a shell script that lets some of the units go, to be run as
// root on the clone: from then on they start when somebody starts them, and at
// boot. It starts nothing itself; it can be run again.
func (q Quarantine) ReleaseScript(units ...string) (string, error) {
	return q.releaseScript("", units)
}

func (q Quarantine) releaseScript(root string, names []string) (string, error) {
	held, err := q.units()
	if err != nil {
		return "", err
	}
	units, err := unitNames(names)
	if err != nil {
		return "", err
	}
	for _, u := range units {
		if !slices.Contains(held, u) {
			return "", fmt.Errorf("cannot release %s: the quarantine does not hold it", u)
		}
	}
	if len(units) == 0 {
		return "", errors.New("cannot release no units")
	}
	free := shellq.Quote(root + quarantineFree)
	return "set -e\nmkdir -p " + free + "\n" + freeUnits(root, units, "  : > "+free+`/"$u"`+"\n"), nil
}

// freeUnits takes the drop-ins of units away.
func freeUnits(root string, units []string, first string) string {
	if len(units) == 0 {
		return ""
	}
	return "for u in " + shellq.Join(units...) + "; do\n" + first +
		"  d=" + shellq.Quote(root+"/etc/systemd/system/") + "$u.d\n" +
		`  rm -f "$d/` + quarantineDropIn + `"; rmdir "$d" 2>/dev/null || :` + "\n" +
		"done\n" +
		"systemctl daemon-reload\n"
}

// CheckScript is a shell script, to be run as root on the clone, whose output
// NotHeld judges.
func (q Quarantine) CheckScript() (string, error) { return q.checkScript("") }

// NotHeld reads what CheckScript printed and gives the units that are not held
// back or that run, each as "crond.service active held".
func (q Quarantine) NotHeld(output []byte) []string {
	units, err := q.units()
	if err != nil {
		return []string{err.Error()}
	}
	seen := map[string]string{}
	for line := range strings.Lines(string(output)) {
		if f := strings.Fields(line); len(f) == 3 {
			seen[f[0]] = f[1] + " " + f[2]
		}
	}
	var bad []string
	for _, u := range units {
		switch s := seen[u]; s {
		case "inactive held", "failed held":
		case "":
			bad = append(bad, u+" unknown")
		default:
			bad = append(bad, u+" "+s)
		}
	}
	return bad
}

// checkScript prints the state of each unit, one a line, as "crond.service
// inactive held".
func (q Quarantine) checkScript(root string) (string, error) {
	units, err := q.units()
	if err != nil {
		return "", err
	}
	return "for u in " + shellq.Join(units...) + "; do\n" +
		"  h=free; test -e " + shellq.Quote(root+"/etc/systemd/system/") + `"$u.d/` + quarantineDropIn + `" && h=held` + "\n" +
		`  echo "$u $(systemctl show -p ActiveState "$u" | cut -d= -f2) $h"` + "\n" +
		"done\n", nil
}

// CheckQuarantine asks the clone, through Cloud Assistant, whether all units of
// q are held back and none of them runs; it waits for the agent and for units
// that are on their way down. The error names those that are not.
func (c *Client) CheckQuarantine(ctx context.Context, instanceID string, q Quarantine) error {
	script, err := q.checkScript("")
	if err != nil {
		return err
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	return c.poller().Until(ctx, "quarantine of instance "+instanceID, func(ctx context.Context) (string, bool, error) {
		r, err := c.RunCommand(ctx, CommandInput{InstanceID: instanceID, Script: script, Timeout: time.Minute})
		var ce *CommandError
		switch {
		case errors.As(err, &ce) && ce.NotRun && !ce.gone():
			return "agent: " + ce.Code, false, nil
		case errors.As(err, &ce):
			return "", false, poll.Stop(err)
		case err != nil:
			return "", false, err
		}
		bad := q.NotHeld(r.Output)
		return strings.Join(bad, ", "), len(bad) == 0, nil
	})
}

// SetSecurityGroups makes groups the security groups of an instance: it joins
// those that are missing, then leaves the others, and reads back that it is so.
// Done again it changes nothing.
func (c *Client) SetSecurityGroups(ctx context.Context, id string, groups []string) error {
	if id == "" || len(groups) == 0 {
		return errors.New("cannot set security groups without instance and groups: an instance is in one at least")
	}
	ctx, cancel := alicloud.WithLimit(ctx, min(c.wait, 5*time.Minute))
	defer cancel()
	sent := map[string]bool{}
	return c.poller().Until(ctx, "security groups of instance "+id, func(ctx context.Context) (string, bool, error) {
		i, err := c.GetInstance(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return "", false, poll.Stop(err)
		}
		if err != nil {
			return "", false, err
		}
		done := true
		change := func(verb, group string, call func(context.Context, string, string) error) error {
			done = false
			if sent[verb+group] {
				return nil // the list lags behind
			}
			err := wrap(call(ctx, id, group))
			sent[verb+group] = err == nil
			return err
		}
		for _, g := range groups {
			if !slices.Contains(i.SecurityGroups, g) {
				if err := change("join ", g, c.api.JoinSecurityGroup); err != nil {
					return "", false, settle(ctx, err)
				}
			}
		}
		if !done {
			return "joining; now " + strings.Join(i.SecurityGroups, ", "), false, nil
		}
		for _, g := range i.SecurityGroups {
			if !slices.Contains(groups, g) {
				if err := change("leave ", g, c.api.LeaveSecurityGroup); err != nil {
					return "", false, settle(ctx, err)
				}
			}
		}
		return strings.Join(i.SecurityGroups, ", "), done, nil
	})
}

// settle ends a wait for good where asking again cannot help.
func settle(ctx context.Context, err error) error {
	if retryable(err) || ctx.Err() != nil {
		return err
	}
	return poll.Stop(err)
}
