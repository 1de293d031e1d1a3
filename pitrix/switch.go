package pitrix

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// AddressFiles lists the files of a node that hold its own address: the
// interfaces, the routes of rc.local.tail, and its own copy of its settings.
func AddressFiles() []string { return []string{interfacesFile, rcLocalTailFile, NodeSettingsFile} }

const (
	interfacesFile  = "/etc/network/interfaces"
	rcLocalTailFile = "/etc/rc.local.tail"
	// NodeSettingsFile is a node's own copy of its settings.
	NodeSettingsFile = "/opt/install/os/setting"
)

// AddressEdits reads the AddressFiles of a node and returns the edits that take
// it from temporary to final, for BeginEdit. Nothing is changed.
func (n *Node) AddressEdits(ctx context.Context, temporary, final *Settings) ([]FileEdit, error) {
	var out []FileEdit
	for _, name := range AddressFiles() {
		old, err := n.Host.ReadFile(ctx, n.Root+name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s of %s: %w", name, n.Name, err)
		}
		var next []byte
		switch name {
		case interfacesFile:
			next, err = EditInterfaces(name, old, AddressChanges(temporary, final)...)
		case rcLocalTailFile:
			next, err = EditRCLocalTail(name, old, AddressMap(temporary, final))
		default:
			var s *Settings
			if s, err = Parse(name, old); err == nil {
				if s, err = DeriveFinal(s, final); err == nil {
					next = s.Bytes()
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot edit the network files of %s: %w", n.Name, err)
		}
		out = append(out, FileEdit{Path: name, Old: old, New: next})
	}
	return out, nil
}

// CheckAddressFiles sees that no AddressFile of the node has an address in it
// that it had for a time.
func (n *Node) CheckAddressFiles(ctx context.Context, temporary netip.Addr) error {
	for _, name := range AddressFiles() {
		src, err := n.Host.ReadFile(ctx, n.Root+name)
		if err != nil {
			return fmt.Errorf("cannot read %s of %s: %w", name, n.Name, err)
		}
		if at, _ := findAddress(string(src), temporary.String()); len(at) > 0 {
			return fmt.Errorf("the temporary address %s is still in %s of %s", temporary, name, n.Name)
		}
	}
	return nil
}

// CheckHostsFile sees that /etc/hosts of the node maps a name to an address, as
// the pitrix-hosts does that was built last.
func (n *Node) CheckHostsFile(ctx context.Context, name string, a netip.Addr) error {
	src, err := n.Host.ReadFile(ctx, n.Root+"/etc/hosts")
	if err != nil {
		return fmt.Errorf("cannot read /etc/hosts of %s: %w", n.Name, err)
	}
	hosts, err := ParseHosts("/etc/hosts", src)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	for _, is := range hosts[name] {
		if is == a {
			return nil
		}
	}
	return fmt.Errorf("/etc/hosts of %s has %v for %s, not %s: an old pitrix-hosts was installed", n.Name, hosts[name], name, a)
}

// InstallHosts runs the line of InstallHosts on the node, if it is want, and
// waits for its end. It can be run again.
func (n *Node) InstallHosts(ctx context.Context, want Identity) error {
	_, err := n.run(ctx, want, "install pitrix-hosts on", "{ "+InstallHosts()+"\n} >&2")
	return err
}

// announceAtBoot tells the neighbours of a machine's addresses as soon as it has
// them: they know its predecessor's MAC, and nobody could reach it to announce
// them for as long as they believe in that. cron's PATH has no sbin.
const announceAtBoot = `PATH=$PATH:/usr/sbin:/sbin
n=0
while [ $n -lt 60 ]; do
	left=
	for a in @ADDRESSES@; do
		d=$(ip -o -4 addr show | grep -F " $a/" | head -n 1 | cut -d ' ' -f 2)
		if [ -n "$d" ]; then arping -U -c 2 -w 3 -I "$d" "$a"; arping -A -c 2 -w 3 -I "$d" "$a"; else left=yes; fi
	done
	if [ -z "$left" ]; then exit 0; fi
	n=$((n + 1))
	sleep 1
done
`

func (n *Node) announceFiles(key string) (cron, script string) {
	return n.Root + "/etc/cron.d/upgradectl-" + key + "-announce", n.Root + "/var/lib/upgradectl/announce-" + key
}

// AnnounceAtBoot has the node announce the addresses whenever it boots, as soon
// as it has them and for a minute at most, until CancelAnnounce. It can be
// called again.
func (n *Node) AnnounceAtBoot(ctx context.Context, key string, addresses ...netip.Addr) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("cannot have %s announce itself: %w", n.Name, err)
	}
	cron, file := n.announceFiles(key)
	var words []string
	for _, a := range addresses {
		words = append(words, a.String())
	}
	text := strings.ReplaceAll(announceAtBoot, "@ADDRESSES@", strings.Join(words, " "))
	_, err := output(ctx, n.Host, fmt.Sprintf(`umask 022
mkdir -p %[4]s && printf '%%s' %[1]s >%[2]s && printf '@reboot root /bin/sh %%s >/dev/null 2>&1\n' %[2]s >%[3]s.part && mv -f %[3]s.part %[3]s && sync`,
		shellq.Quote(text), shellq.Quote(file), shellq.Quote(cron), shellq.Quote(n.Root+"/var/lib/upgradectl")))
	if err != nil {
		return fmt.Errorf("cannot have %s announce itself when it boots: %w", n.Name, err)
	}
	return nil
}

// CancelAnnounce ends AnnounceAtBoot.
func (n *Node) CancelAnnounce(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	cron, file := n.announceFiles(key)
	if _, err := output(ctx, n.Host, "rm -f "+shellq.Join(cron, file)); err != nil {
		return fmt.Errorf("cannot end the announcements of %s: %w", n.Name, err)
	}
	return nil
}

// AnnounceHeld announces an address, which the node must have, and those of
// others that it has: an outer or a floating one.
func (n *Node) AnnounceHeld(ctx context.Context, own netip.Addr, others ...netip.Addr) error {
	if err := n.Announce(ctx, own); err != nil {
		return err
	}
	for _, a := range others {
		if dev, err := n.AddressDevice(ctx, a); err != nil {
			return err
		} else if dev == "" {
			continue
		}
		if err := n.Announce(ctx, a); err != nil {
			return err
		}
	}
	return nil
}
