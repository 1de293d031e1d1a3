package pitrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Node is a machine of the installation that commands are run on directly.
type Node struct {
	Host Host
	Name string // for errors
	Root string // before the absolute paths of its files; "" = /
}

// An Identity says which machine this is. Names and addresses do not: during
// a rebuild two machines have the same ones, one after the other.
type Identity struct {
	// HostKey is the key that the machine proved to hold, "TYPE BASE64"; ""
	// when it was not reached over a connection that tells.
	HostKey   string       `json:"host_key,omitempty"`
	MachineID string       `json:"machine_id,omitempty"` // machines made from one image may share it
	MACs      []MAC        `json:"macs"`                 // of its interfaces, sorted; not the loopback's
	BootID    string       `json:"boot_id"`              // changes with every boot
	Kernel    string       `json:"kernel"`
	OSVersion string       `json:"os_version"` // VERSION_ID of /etc/os-release
	Hostname  string       `json:"hostname"`
	Addresses []netip.Addr `json:"addresses"` // IPv4, sorted; not the loopback's
}

// identify prints what an Identity holds, one word and its value a line.
const identify = `for i in /sys/class/net/*; do
n=${i##*/}
if [ "$n" != lo ] && [ -r "$i/address" ]; then echo mac $(cat "$i/address"); fi
done
echo kernel $(uname -r)
echo hostname $(hostname)
echo boot $(cat /proc/sys/kernel/random/boot_id)
if [ -s /etc/machine-id ]; then echo machine $(cat /etc/machine-id)
elif [ -s /var/lib/dbus/machine-id ]; then echo machine $(cat /var/lib/dbus/machine-id); fi
if [ -r /etc/os-release ]; then . /etc/os-release; echo os $VERSION_ID; fi
ip -o -4 addr show`

func parseIdentity(out string) (Identity, error) {
	var id Identity
	for line := range strings.SplitSeq(out, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "mac":
			if m, err := ParseMAC(words[1]); err == nil && m != (MAC{}) {
				id.MACs = append(id.MACs, m)
			}
		case "kernel":
			id.Kernel = words[1]
		case "hostname":
			id.Hostname = words[1]
		case "boot":
			id.BootID = words[1]
		case "machine":
			id.MachineID = words[1]
		case "os":
			id.OSVersion = words[1]
		default:
			if a, ok := ipLine(line); ok && !a.addr.Addr().IsLoopback() {
				id.Addresses = append(id.Addresses, a.addr.Addr())
			}
		}
	}
	if id.BootID == "" || len(id.MACs) == 0 {
		return id, errors.New("the answer names no boot or no interface with a MAC address")
	}
	slices.SortFunc(id.MACs, func(a, b MAC) int { return slices.Compare(a[:], b[:]) })
	id.MACs = slices.Compact(id.MACs)
	slices.SortFunc(id.Addresses, netip.Addr.Compare)
	id.Addresses = slices.Compact(id.Addresses)
	return id, nil
}

// ifAddr is one address of ip -o -4 addr show.
type ifAddr struct {
	dev  string
	addr netip.Prefix
}

func ipLine(line string) (ifAddr, bool) {
	w := strings.Fields(line)
	if len(w) < 4 || w[2] != "inet" || !strings.HasSuffix(w[0], ":") {
		return ifAddr{}, false
	}
	text := w[3]
	if !strings.Contains(text, "/") {
		text += "/32"
	}
	p, err := netip.ParsePrefix(text)
	dev, _, _ := strings.Cut(w[1], "@")
	return ifAddr{dev, p}, err == nil
}

// GetIdentity asks the node who it is. The host key is that of the connection,
// where the Host has a method HostKey() string as *hostinv.Conn has.
func (n *Node) GetIdentity(ctx context.Context) (Identity, error) {
	out, err := output(ctx, n.Host, identify)
	if err != nil {
		return Identity{}, fmt.Errorf("cannot identify %s: %w", n.Name, err)
	}
	id, err := parseIdentity(out)
	if err != nil {
		return Identity{}, fmt.Errorf("cannot identify %s: %w", n.Name, err)
	}
	if c, ok := n.Host.(interface{ HostKey() string }); ok {
		id.HostKey = c.HostKey()
	}
	return id, nil
}

// An IdentityError says that a machine is not the one that is meant.
type IdentityError struct {
	Name      string
	Want, Got Identity
	Why       string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%s is not the machine that is meant: %s (it calls itself %q, kernel %s); nothing was done to it", e.Name, e.Why, e.Got.Hostname, e.Got.Kernel)
}

// Same returns nil when i is the machine want, else an *IdentityError. Host
// keys, machine IDs and MACs are compared, each where want has it; every MAC of
// want must be there. A want that has no MAC and no host key proves nothing and
// is an error, for machines made from one image can share the machine ID. A
// host key that is not known to i, because it was reached by way of another
// machine, is not compared.
func (i Identity) Same(want Identity) error {
	fail := func(format string, args ...any) error {
		return &IdentityError{Name: cmpName(want.Hostname), Want: want, Got: i, Why: fmt.Sprintf(format, args...)}
	}
	if len(want.MACs) == 0 && (want.HostKey == "" || i.HostKey == "") {
		return errors.New("internal error: an identity without a MAC address and a host key proves nothing")
	}
	for _, m := range want.MACs {
		if !slices.Contains(i.MACs, m) {
			return fail("it has no interface with the MAC %s, but %s", m, macList(i.MACs))
		}
	}
	switch {
	case want.HostKey != "" && i.HostKey != "" && want.HostKey != i.HostKey:
		return fail("its host key is another one")
	case want.MachineID != "" && want.MachineID != i.MachineID:
		return fail("its machine ID is %q, not %q", i.MachineID, want.MachineID)
	}
	return nil
}

func cmpName(name string) string {
	if name == "" {
		return "the machine"
	}
	return name
}

func macList(macs []MAC) string {
	if len(macs) == 0 {
		return "none"
	}
	var s []string
	for _, m := range macs {
		s = append(s, m.String())
	}
	return strings.Join(s, ", ")
}

// proof is a line of shell that ends with statusOther on a machine that is not
// want. It stands before an effect, in the same command.
func proof(want Identity) (string, error) {
	if len(want.MACs) == 0 {
		return "", errors.New("internal error: an identity without a MAC address proves nothing in a command")
	}
	var b strings.Builder
	b.WriteString(`macs=" $(cat /sys/class/net/*/address 2>/dev/null | tr '\n' ' ') "` + "\n")
	for _, m := range want.MACs {
		fmt.Fprintf(&b, "case \"$macs\" in *' %s '*) ;; *) echo \"the MACs here are$macs\" >&2; exit %d;; esac\n", m, statusOther)
	}
	if want.MachineID != "" {
		fmt.Fprintf(&b, "id=$(cat /etc/machine-id 2>/dev/null || cat /var/lib/dbus/machine-id)\n[ \"$id\" = %s ] || { echo \"the machine ID here is $id\" >&2; exit %d; }\n", shellq.Quote(want.MachineID), statusOther)
	}
	return b.String(), nil
}

// run does cmd on the node if it is want.
func (n *Node) run(ctx context.Context, want Identity, what, cmd string) (string, error) {
	if c, ok := n.Host.(interface{ HostKey() string }); ok && want.HostKey != "" && c.HostKey() != want.HostKey {
		return "", &IdentityError{Name: n.Name, Want: want, Got: Identity{HostKey: c.HostKey()}, Why: "its host key is another one"}
	}
	p, err := proof(want)
	if err != nil {
		return "", err
	}
	out, err := output(ctx, n.Host, p+cmd)
	if status, ok := exitStatus(err); ok && status == statusOther {
		return out, &IdentityError{Name: n.Name, Want: want, Why: err.Error()}
	}
	if err != nil {
		return out, fmt.Errorf("cannot %s %s: %w", what, n.Name, err)
	}
	return out, nil
}

// Shutdown asks the node to halt a second from now, if it is want; else it
// returns an *IdentityError. The look and the request are one command. That it
// has halted is seen on its host: Hypervisor.WaitState.
func (n *Node) Shutdown(ctx context.Context, want Identity) error {
	_, err := n.run(ctx, want, "shut down", `setsid /bin/sh -c 'sleep 1; exec shutdown -h now' >/dev/null 2>&1 </dev/null &`)
	return err
}

// Reboot asks the node to reboot a second from now, if it is want. A want with
// a boot ID makes a repeated call harmless: in another boot nothing is done.
func (n *Node) Reboot(ctx context.Context, want Identity) error {
	boot := ""
	if want.BootID != "" {
		boot = `[ "$(cat /proc/sys/kernel/random/boot_id)" = ` + shellq.Quote(want.BootID) + ` ] || exit 0` + "\n"
	}
	_, err := n.run(ctx, want, "reboot", boot+`setsid /bin/sh -c 'sleep 1; exec shutdown -r now' >/dev/null 2>&1 </dev/null &`)
	return err
}

// Packages returns the versions of the installed packages pitrix-*.
func (n *Node) Packages(ctx context.Context) (map[string]string, error) {
	out, err := output(ctx, n.Host, `dpkg-query -W -f '${Package} ${Version} ${Status}\n' 'pitrix-*'`)
	if err != nil {
		return nil, fmt.Errorf("cannot list the packages of %s: %w", n.Name, err)
	}
	packages := map[string]string{}
	for line := range strings.SplitSeq(out, "\n") {
		if w := strings.Fields(line); len(w) == 5 && w[4] == "installed" {
			packages[w[0]] = w[1]
		}
	}
	return packages, nil
}

// InstallHosts is the command line that brings a new node the hosts file that
// was built last: programs stopped, package lists read, pitrix-hosts installed.
// It is whole, so that it can be the script of a detached job. The reboot that
// makes the node's new address count is Reboot's.
func InstallHosts() string {
	return `supervisorctl stop all </dev/null || exit 1
apt-get update </dev/null || exit 1
DEBIAN_FRONTEND=noninteractive apt-get --yes --allow-unauthenticated install pitrix-hosts </dev/null`
}

// ReachedBy says where ssh NAME of the firstbox ends, which is where
// exec_nodes.sh, update.sh and install_nodes.sh log in: they ping the address of
// the settings, but use the name. The answer has no host key.
func (f *Firstbox) ReachedBy(ctx context.Context, name string) (Identity, error) {
	if err := checkNode(name); err != nil {
		return Identity{}, err
	}
	out, err := output(ctx, f.Host, sshLine(name, identify))
	if err == nil {
		var id Identity
		if id, err = parseIdentity(out); err == nil {
			return id, nil
		}
	}
	return Identity{}, fmt.Errorf("cannot see where ssh %s of the firstbox ends: %w", name, err)
}

// sshLine runs a command in the way that the scripts do.
func sshLine(name, cmd string) string {
	return shellq.Join("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-o", "ConnectionAttempts=1", name, cmd) + " </dev/null"
}

// ProveName returns nil when ssh NAME of the firstbox ends on the machine want,
// an *IdentityError when it ends on another one.
func (f *Firstbox) ProveName(ctx context.Context, name string, want Identity) error {
	got, err := f.ReachedBy(ctx, name)
	if err != nil {
		return err
	}
	err = got.Same(want)
	var e *IdentityError
	if errors.As(err, &e) {
		e.Name = "ssh " + name + " of the firstbox"
	}
	return err
}

// pointed ends the lines of PointName.
const pointed = " # upgradectl"

// PointName makes a name mean an address on the firstbox, whatever the lines
// of pitrix-hosts say: the first line of /etc/hosts counts. It is for the time
// in which the scripts have to reach a new VM that has a temporary address.
func (f *Firstbox) PointName(ctx context.Context, name string, a netip.Addr) error {
	return f.point(ctx, name, a.String()+" "+name+pointed+"\n")
}

// UnpointName takes the line of PointName away. None is fine.
func (f *Firstbox) UnpointName(ctx context.Context, name string) error {
	return f.point(ctx, name, "")
}

func (f *Firstbox) point(ctx context.Context, name, line string) error {
	if err := checkNode(name); err != nil {
		return err
	}
	file := f.at("/etc/hosts")
	src, err := readFile(ctx, f.Host, file)
	if err != nil {
		return err
	}
	next := line
	for l := range strings.SplitAfterSeq(string(src), "\n") {
		if !strings.HasSuffix(strings.TrimRight(l, "\n"), " "+name+pointed) {
			next += l
		}
	}
	return replaceFile(ctx, f.Host, file, src, []byte(next))
}
