package ecs

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// machineScript gives the clone a machine ID of its own when it has the
// source's: journals, DHCP leases and licences are told apart by it. Not by
// systemd-machine-id-setup, which takes the old one back from D-Bus.
func (q Quarantine) machineScript(root string) string {
	if q.MachineID == "" {
		return ""
	}
	id, bus := shellq.Quote(root+"/etc/machine-id"), shellq.Quote(root+"/var/lib/dbus/machine-id")
	return "if test \"$(cat " + id + ")\" = " + shellq.Quote(q.MachineID) + "; then\n" +
		"  read -r u < /proc/sys/kernel/random/uuid\n" +
		"  (IFS=-; set -- $u; printf '%s%s%s%s%s\\n' \"$@\") > " + id + "\n" +
		"  test ! -f " + bus + " || test -L " + bus + " || cat " + id + " > " + bus + "\n" +
		"fi\n"
}

// networkScript makes what names an address of the source ask DHCP instead. A
// clone with the source's address answers nobody, and where the network does
// not keep the two apart neither does the source. The shell does all the
// editing, line by line: what a minimal image has is enough.
//
// A rewritten file takes effect with the boot that follows at once. That is one
// boot more, and only one: afterwards no file names the addresses.
func (q Quarantine) networkScript(root string) (string, error) {
	if q.MachineID != "" && !machineID.MatchString(q.MachineID) {
		return "", fmt.Errorf("%q is not a machine ID: 32 hexadecimal digits", q.MachineID)
	}
	if len(q.Addresses) == 0 {
		return "", nil
	}
	var any []string
	for _, a := range q.Addresses {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() {
			any = append(any, strings.ReplaceAll(ip.String(), ".", "[.]"))
			continue
		}
		mac, err := net.ParseMAC(a)
		if err != nil || len(mac) != 6 {
			return "", fmt.Errorf("%q is neither an IPv4 nor a MAC address", a)
		}
		var b strings.Builder
		for _, c := range mac.String() {
			if c >= 'a' {
				fmt.Fprintf(&b, "[%c%c]", c-'a'+'A', c)
			} else {
				b.WriteRune(c)
			}
		}
		any = append(any, b.String())
	}
	at := func(p string) string { return shellq.Quote(root) + p }
	return "again=\n" +
		"for f in " + strings.Join([]string{
		at("/etc/sysconfig/network-scripts/ifcfg-*"), at("/etc/NetworkManager/system-connections/*"), at("/etc/network/interfaces"),
		at("/etc/network/interfaces.d/*"), at("/etc/netplan/*.yaml"), at("/etc/systemd/network/*.network"), at("/etc/udev/rules.d/70-persistent-net.rules"),
	}, " ") + "; do\n" +
		`  test -f "$f" || continue` + "\n" +
		"  grep -q -s -E " + shellq.Quote("(^|[^0-9A-Fa-f.:])("+strings.Join(any, "|")+")([^0-9A-Fa-f.:]|$)") + ` "$f" || continue` + "\n" +
		"  k=" + shellq.Quote(root+"/etc/upgradectl/network") + `"${f%/*}"` + "\n" +
		`  mkdir -p "$k" && cp -p "$f" "$k/" && cp -p "$f" "$k/new" || continue` + "\n" +
		"  section=\n" +
		`  while IFS= read -r l || test -n "$l"; do` + "\n" +
		`    w=${l#"${l%%[! 	]*}"}` + "\n" + // without the blanks it begins with
		`    case $f:$w in` + "\n" +
		// Red Hat's scripts
		`    */ifcfg-*:IPADDR*|*/ifcfg-*:NETMASK*|*/ifcfg-*:PREFIX*|*/ifcfg-*:GATEWAY*|*/ifcfg-*:HWADDR*|*/ifcfg-*:MACADDR*) continue;;` + "\n" +
		`    */ifcfg-*:BOOTPROTO=*) l=BOOTPROTO=dhcp; section=done;;` + "\n" +
		// NetworkManager
		`    */system-connections/*:method=manual) l=method=auto;;` + "\n" +
		`    */system-connections/*:address[0-9]*=*|*/system-connections/*:gateway=*|*/system-connections/*:mac-address=*) continue;;` + "\n" +
		// Debian
		`    */network/interfaces*:iface\ *\ inet\ static*) l="${l%static*}dhcp";;` + "\n" +
		`    */network/interfaces*:address\ *|*/network/interfaces*:netmask\ *|*/network/interfaces*:gateway\ *|*/network/interfaces*:broadcast\ *|*/network/interfaces*:network\ *|*/network/interfaces*:hwaddress\ *) continue;;` + "\n" +
		// systemd-networkd
		`    */systemd/network/*:\[Network\]*) l="$l` + "\n" + `DHCP=yes";;` + "\n" +
		`    */systemd/network/*:\[Match\]*) l="$l` + "\n" + `Name=e*";;` + "\n" +
		`    */systemd/network/*:Address=*|*/systemd/network/*:Gateway=*|*/systemd/network/*:DHCP=*|*/systemd/network/*:MACAddress=*) continue;;` + "\n" +
		// netplan and udev: nothing of them can be kept
		`    */netplan/*|*/rules.d/*) continue;;` + "\n" +
		"    esac\n" +
		`    printf '%s\n' "$l"` + "\n" +
		`  done < "$f" > "$k/new"` + "\n" +
		"  case $f in\n" +
		`  */ifcfg-*) test -n "$section" || echo BOOTPROTO=dhcp >> "$k/new";;` + "\n" +
		`  */netplan/*) printf '%s\n' 'network: {version: 2, ethernets: {upgradectl: {match: {name: "e*"}, dhcp4: true}}}' > "$k/new";;` + "\n" +
		"  esac\n" +
		`  mv -f "$k/new" "$f" && again=1` + "\n" +
		`  ! command -v restorecon > /dev/null || restorecon "$f"` + "\n" +
		"done\n" +
		`test -z "$again" || shutdown -r now` + "\n", nil
}
