package host

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
)

// What a world needs that simulates the machine around a host: its power
// button, its disk, and programs that live outside this package.

// PowerOff cuts the power: nothing is told, nothing finishes. On a host that
// is off it does nothing. Start switches it on again.
func (h *Host) PowerOff() {
	h.power.Lock()
	defer h.power.Unlock()
	h.stop(false)
}

// Remove deletes a file, a link or an empty directory of the tree as root.
func (h *Host) Remove(name string) error {
	i, err := h.tree.stat(cred{}, name, false)
	if err != nil {
		return err
	}
	return h.tree.remove(cred{}, name, i.IsDir())
}

// Mkdir makes a directory of the tree, and its parents, as root.
func (h *Host) Mkdir(name string) { h.tree.mkdirAll(name, 0o755) }

// Append adds to a file of the tree as root; a missing one is made.
func (h *Host) Append(name string, data []byte) error {
	h.tree.mkdirAll(path.Dir(clean(name)), 0o755)
	return h.tree.writeFile(cred{}, name, data, oCreate|oAppend, 0o644)
}

// Refuse notes something that was asked for and is not simulated; see Refused.
func (h *Host) Refuse(what, why string) { h.refuse(what, why) }

// StartUnit starts a systemd unit and waits until it is up.
func (h *Host) StartUnit(name string) error {
	b, ok := h.enter()
	if !ok {
		return fmt.Errorf("cannot start %s on %s: the host is off", name, h.Name())
	}
	defer b.wg.Done()
	return h.startUnit(b, unitName(name))
}

// StopUnit ends the processes of a systemd unit and waits for that.
func (h *Host) StopUnit(name string) { h.stopUnit(unitName(name)) }

// UnitActive reports whether a systemd unit runs.
func (h *Host) UnitActive(name string) bool { return h.activeState(unitName(name)) == "active" }

// PlaceUnit writes the file of a systemd unit, and enables or disables it.
func (h *Host) PlaceUnit(u Unit) { h.placeUnit(u) }

// Sleep waits a duration of the world, or until ctx ends.
func (h *Host) Sleep(ctx context.Context, d time.Duration) error { return h.sleep(ctx, d) }

// Failf prints a message as the program and returns status.
func (p *Proc) Failf(status int, format string, a ...any) int { return p.failf(status, format, a...) }

// Refusef is Failf for what the real program knows and this one does not: the
// refusal is noted, and the status is 64.
func (p *Proc) Refusef(format string, a ...any) int { return p.refusef(format, a...) }

// Path makes an argument an absolute path of the host.
func (p *Proc) Path(name string) string { return p.abs(name) }

// Exec runs another program in the place of this one, as exec(3) does.
func (p *Proc) Exec(ctx context.Context, args []string) int { return p.Host.execute(ctx, p, args) }

// Signalled reports whether the process of ctx ends because it got SIGNAL
// ("TERM"), and not because the power went or the program is done.
func Signalled(ctx context.Context, signal string) bool {
	k, ok := context.Cause(ctx).(killedError)
	return ok && k.signal == signal
}

// hasPath reports whether the name of a Spec's command says where it lies.
func hasPath(name string) bool { return strings.HasPrefix(name, "/") }
