package pitrix

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// AddressDevice returns the interface of the node that has the address, "" when
// none has.
func (n *Node) AddressDevice(ctx context.Context, a netip.Addr) (string, error) {
	out, err := output(ctx, n.Host, "ip -o -4 addr show")
	if err != nil {
		return "", fmt.Errorf("cannot read the addresses of %s: %w", n.Name, err)
	}
	for line := range strings.SplitSeq(out, "\n") {
		if i, ok := ipLine(line); ok && i.addr.Addr() == a {
			return i.dev, nil
		}
	}
	return "", nil
}

// VIPHolders returns the names of those nodes that have the address. All of
// them are asked; one that cannot be is an error, for it may hold it.
func VIPHolders(ctx context.Context, vip netip.Addr, nodes ...*Node) ([]string, error) {
	holders := []string{}
	for _, n := range nodes {
		dev, err := n.AddressDevice(ctx, vip)
		if err != nil {
			return nil, err
		}
		if dev != "" {
			holders = append(holders, n.Name)
		}
	}
	return holders, nil
}

// A VIPError says that an address is held by none or by several.
type VIPError struct {
	VIP     netip.Addr
	Holders []string
}

func (e *VIPError) Error() string {
	if len(e.Holders) == 0 {
		return fmt.Sprintf("no node holds %s: the console is not reachable; look at keepalived on both", e.VIP)
	}
	return fmt.Sprintf("%s is held by %s at once: they do not hear each other's VRRP; stop keepalived on all but one", e.VIP, strings.Join(e.Holders, " and "))
}

// VIPHolder returns the one node that has the address; a *VIPError when that
// is none or several.
func VIPHolder(ctx context.Context, vip netip.Addr, nodes ...*Node) (string, error) {
	holders, err := VIPHolders(ctx, vip, nodes...)
	if err != nil {
		return "", err
	}
	if len(holders) != 1 {
		return "", &VIPError{vip, holders}
	}
	return holders[0], nil
}

// arpReply is a line of iputils' arping for one answer.
var arpReply = regexp.MustCompile(`(?m)reply from \S+ \[([0-9A-Fa-f:]{17})\]`)

// ProbeAddress asks the link of an interface whether an address is used, and
// returns the MACs that answer; none: it is not. The question is that of
// duplicate address detection (RFC 5227: the sender's address is 0.0.0.0), so
// that nobody's ARP table changes by it. It is asked three times and ends with
// the first answer. The node itself does not answer its own question: ask
// before it has the address, or from another one.
//
// It needs iputils' arping; the other program of that name has other options
// and is refused.
func (n *Node) ProbeAddress(ctx context.Context, a netip.Addr, dev string) ([]MAC, error) {
	return n.arping(ctx, a, dev, "-D")
}

// AnsweringMACs asks, with the node's own address on that link, who has an
// address, three times by broadcast, and returns every MAC that answers: two
// when two machines hold it at once. It takes four seconds at most.
func (n *Node) AnsweringMACs(ctx context.Context, a netip.Addr, dev string) ([]MAC, error) {
	return n.arping(ctx, a, dev, "-b")
}

func (n *Node) arping(ctx context.Context, a netip.Addr, dev, how string) ([]MAC, error) {
	fail := func(err error) ([]MAC, error) {
		return nil, fmt.Errorf("cannot probe %s from %s: %w", a, n.Name, err)
	}
	if !a.Is4() {
		return fail(fmt.Errorf("%s is not an IPv4 address", a))
	}
	out, status, err := both(ctx, n.Host, "LC_ALL=C arping "+how+" -c 3 -w 4 -I "+shellq.Quote(dev)+" "+a.String()+" </dev/null")
	if err != nil {
		return fail(err)
	}
	text := string(out)
	// iputils reports what it sent, whatever came back; its status is 1 for
	// an address in use with -D, and for one that nobody answers for without.
	if !strings.Contains(text, "Sent ") || status > 1 {
		return fail(fmt.Errorf("arping of iputils is needed; status %d: %s", status, firstBytes(strings.TrimSpace(text), 200)))
	}
	var macs []MAC
	for _, m := range arpReply.FindAllStringSubmatch(text, -1) {
		if mac, err := ParseMAC(m[1]); err == nil && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	slices.SortFunc(macs, func(a, b MAC) int { return slices.Compare(a[:], b[:]) })
	if how == "-D" && status == 1 && len(macs) == 0 {
		return fail(fmt.Errorf("arping says that the address is used, but not by whom: %s", firstBytes(strings.TrimSpace(text), 200)))
	}
	return macs, nil
}

// Announce tells the link of an interface that the node has an address now:
// gratuitous ARP, as requests and as answers, twice each, for equipment listens
// to one or the other. Without it a busy neighbour goes on sending to the old
// MAC for half a minute. An address that the node does not have is refused.
func (n *Node) Announce(ctx context.Context, a netip.Addr) error {
	dev, err := n.AddressDevice(ctx, a)
	if err != nil {
		return err
	}
	if dev == "" {
		return fmt.Errorf("cannot announce %s: %s does not have it, and would draw its traffic away", a, n.Name)
	}
	// The look is repeated in the command: a VIP can leave between the two.
	// iputils ends -U with 1 when nobody answers, which nobody has to.
	cmd := fmt.Sprintf(`d=%[1]s
ip -o -4 addr show dev "$d" | grep -q -F ' %[2]s/' || { echo "the address has left $d" >&2; exit 74; }
for how in -U -A; do
	out=$(LC_ALL=C arping $how -c 2 -w 3 -I "$d" %[2]s </dev/null 2>&1)
	case "$out" in *"Sent "*) ;; *) echo "$out" >&2; exit 74;; esac
done`, shellq.Quote(dev), a)
	if _, err := output(ctx, n.Host, cmd); err != nil {
		return fmt.Errorf("cannot announce %s from %s: %w", a, n.Name, err)
	}
	return nil
}
