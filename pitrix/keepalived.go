package pitrix

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/poll"
)

// Keepalived is what a node's keepalived is allowed to do and does.
type Keepalived struct {
	Held   bool `json:"held"`   // masked: nothing can start it, also after a reboot or an installation
	Active bool `json:"active"` // a process runs
}

// GetKeepalived looks at the node's keepalived.
func (n *Node) GetKeepalived(ctx context.Context) (Keepalived, error) {
	out, err := output(ctx, n.Host, `if [ "$(readlink `+n.Root+`/etc/systemd/system/keepalived.service 2>/dev/null)" = /dev/null ]; then echo held; fi
if pgrep -x keepalived >/dev/null; then echo active; fi`)
	if err != nil {
		return Keepalived{}, fmt.Errorf("cannot look at keepalived on %s: %w", n.Name, err)
	}
	return Keepalived{Held: strings.Contains(out, "held"), Active: strings.Contains(out, "active")}, nil
}

// HoldKeepalived keeps keepalived from running on a new node, if it is want,
// until ReleaseKeepalived: the unit is masked, which outlives reboots and the
// installation of the package and works before there is one, and a keepalived
// that runs is stopped. It needs systemd, as every release has that nodes are
// rebuilt with.
func (n *Node) HoldKeepalived(ctx context.Context, want Identity) error {
	_, err := n.run(ctx, want, "hold keepalived down on", `command -v systemctl >/dev/null || { echo "there is no systemctl; keepalived would come back with a reboot" >&2; exit 74; }
systemctl mask keepalived.service >&2 || exit 74
`+stopKeepalived)
	if err != nil {
		return err
	}
	k, err := n.GetKeepalived(ctx)
	if err == nil && (!k.Held || k.Active) {
		err = fmt.Errorf("keepalived on %s was to be held down, but: held %t, active %t", n.Name, k.Held, k.Active)
	}
	return err
}

// stopKeepalived stops it the way it gives its addresses up at once, and waits
// for the end of its processes.
const stopKeepalived = `if pgrep -x keepalived >/dev/null; then
	service keepalived stop </dev/null >&2
	n=0
	while pgrep -x keepalived >/dev/null; do
		n=$((n + 1))
		if [ $n -gt 50 ]; then echo "keepalived runs on after it was told to stop" >&2; exit 74; fi
		sleep 0.1
	done
fi`

// StopKeepalived ends keepalived on a node, if it is want, so that it hands its
// addresses over at once; a node that is switched off without it leaves them
// unserved for three times the advertisement interval. It comes back with the
// next boot. One that does not run is left alone.
func (n *Node) StopKeepalived(ctx context.Context, want Identity) error {
	_, err := n.run(ctx, want, "stop keepalived on", stopKeepalived)
	return err
}

// ReleaseKeepalived lets keepalived run again on a node, if it is want, and
// starts it. It waits up to ten seconds for its process.
func (n *Node) ReleaseKeepalived(ctx context.Context, want Identity) error {
	_, err := n.run(ctx, want, "release keepalived on", `systemctl unmask keepalived.service >&2 || exit 74
pgrep -x keepalived >/dev/null || service keepalived start </dev/null >&2`)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return poll.Poller{Interval: 200 * time.Millisecond}.Until(wait, "keepalived on "+n.Name, func(ctx context.Context) (string, bool, error) {
		k, err := n.GetKeepalived(ctx)
		return fmt.Sprintf("held %t, active %t", k.Held, k.Active), !k.Held && k.Active, err
	})
}
