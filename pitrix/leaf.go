package pitrix

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// In a spine-leaf network a VM has an address of its own, with the netmask
// 255.255.255.255. Its host has a route to it, ip route replace ADDRESS/32 dev
// BRIDGE: in its table, in /etc/rc.local.tail for its next boot, and as
// ks_vm_routing_rule_ZONE_VM in its settings. The leaf switches lead to the host
// by static routes, which only their owner knows how to write.

// SpineLeaf tells whether a node stands in such a network.
func SpineLeaf(s *Settings) bool {
	mask, _ := s.Get("mgmt_network_netmask")
	return mask == hostMask
}

// LeafRoutes gives the files of the hosts whose routes to a VM are not as the
// fleet says it stands: the host of the VM has one to its address, and the others
// have none. With keepOld they keep theirs, for the old VM serves yet. Only files
// that change are returned.
func LeafRoutes(fleet Fleet, vm string, keepOld bool) (map[string]*Settings, error) {
	s := fleet[vm]
	if s == nil {
		return nil, fmt.Errorf("there is no node %s", vm)
	}
	get := func(s *Settings, key string) string { v, _ := s.Get(key); return v }
	address, bridge := get(s, "mgmt_network_address"), get(s, "physical_host_network_interface")
	a, err := ipv4(address)
	if err != nil || bridge == "" {
		return nil, fmt.Errorf("the settings of %s name no usable mgmt_network_address and physical_host_network_interface", vm)
	}
	key := ""
	for _, name := range slices.Sorted(maps.Keys(fleet)) { // as it is spelt already
		for _, k := range fleet[name].Keys() {
			if key == "" && leafVM(k, fleet) == vm {
				key = k
			}
		}
	}
	if zone := get(s, "zone_id"); key == "" {
		key = leafKey + leafName(zone+"_"+strings.TrimPrefix(vm, zone+"-"))
	}
	out, there := map[string]*Settings{}, false
	for _, name := range slices.Sorted(maps.Keys(fleet)) {
		is, have := fleet[name].Get(key)
		here := get(fleet[name], "mgmt_network_address") == get(s, "physical_host") && name != vm
		there = there || here
		want := routeRule(a, bridge)
		next := fleet[name].Clone()
		switch {
		case here && have && is != want:
			err = next.Set(key, want)
		case here && !have:
			keys := next.Keys()
			err = next.Insert(keys[len(keys)-1], key, want)
		case !here && have && !keepOld:
			err = next.Delete(key)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("settings of %s: %w", name, err)
		}
		out[name] = next
	}
	if !there {
		return nil, fmt.Errorf("the settings of %s name the physical_host %s, which has no file", vm, get(s, "physical_host"))
	}
	return out, nil
}

func routeRule(a netip.Addr, bridge string) string {
	return fmt.Sprintf("ip route replace %s/32 dev %s", a, bridge)
}

// editLeafTail puts the route into an rc.local.tail, or takes it out. Everything
// else stays as it is.
func editLeafTail(src []byte, a netip.Addr, bridge string, on bool) ([]byte, error) {
	rule := routeRule(a, bridge)
	if on {
		return CompareRCLocal(rcLocalTailFile, []byte(rule+"\n"), src, RCLocalOptions{}).CarryOver()
	}
	var out []byte
	for line := range bytes.Lines(src) {
		w := strings.Join(strings.Fields(string(line)), " ")
		if w != rule && w != strings.Replace(rule, "replace", "add", 1) {
			out = append(out, line...)
		}
	}
	return out, nil
}

// callerAddress are lines of shell that set c to what sshd says of the
// connection. sudo does not hand that on: it is looked for upwards, among the
// processes that have begun this one.
const callerAddress = `c=${SSH_CONNECTION-}
p=$PPID
while [ -z "$c" ] && [ "${p:-0}" -gt 1 ]; do
	c=$(tr '\000' '\n' 2>/dev/null <"/proc/$p/environ" | grep '^SSH_CONNECTION=')
	c=${c#SSH_CONNECTION=}
	p=$(grep '^PPid:' "/proc/$p/status" 2>/dev/null | tr -d -c 0-9)
done
`

// RouteVM leads this host to a VM behind its bridge, now and after each boot. An
// address that the host has itself, or that the caller comes from, is refused:
// the route would cut the way to the host. Only when the host answers with the
// route in place is it written into rc.local.tail; before that its next boot
// would take it back. Doing it again changes nothing.
func (h *Hypervisor) RouteVM(ctx context.Context, a netip.Addr, bridge string) error {
	return h.routeVM(ctx, a, bridge, true)
}

// UnrouteVM takes the route away again. None is fine.
func (h *Hypervisor) UnrouteVM(ctx context.Context, a netip.Addr, bridge string) error {
	return h.routeVM(ctx, a, bridge, false)
}

func (h *Hypervisor) routeVM(ctx context.Context, a netip.Addr, bridge string, on bool) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot change the route of %s to %s: %w", h.Name, a, err)
	}
	if !a.Is4() || !isInterface(bridge) {
		return fail(fmt.Errorf("%s by %q is no route to a VM", a, bridge))
	}
	b := shellq.Quote(bridge)
	cmd := fmt.Sprintf("ip route del %[1]s/32 dev %[2]s 2>/dev/null\ncase \"$(ip route show %[1]s/32) \" in *' dev '%[2]s' '*) exit 1;; esac", a, b)
	if on {
		cmd = fmt.Sprintf(`[ -d /sys/class/net/%[2]s/bridge ] || { echo 'there is no such bridge' >&2; exit %[3]d; }
if ip -o -4 addr show | grep -q -F ' %[1]s/'; then echo 'it is an address of the host itself' >&2; exit %[3]d; fi
`+callerAddress+`case "$c " in "%[1]s "*) echo 'this connection comes from there' >&2; exit %[3]d;; esac
ip route replace %[1]s/32 dev %[2]s`, a, b, statusOther)
	}
	if _, err := output(ctx, h.Host, cmd); err != nil {
		return fail(err)
	}
	file := h.Root + rcLocalTailFile
	src, err := readFile(ctx, h.Host, file)
	if err != nil {
		return fail(err)
	}
	next, err := editLeafTail(src, a, bridge, on)
	if err != nil || bytes.Equal(src, next) {
		return err
	}
	return replaceFile(ctx, h.Host, file, src, next)
}

// HasRoute tells whether the host leads to a VM by its bridge now.
func (h *Hypervisor) HasRoute(ctx context.Context, a netip.Addr, bridge string) (bool, error) {
	out, err := output(ctx, h.Host, fmt.Sprintf("ip route show %s/32", a))
	if err != nil {
		return false, fmt.Errorf("cannot read the routes of %s: %w", h.Name, err)
	}
	return strings.Contains(strings.Join(strings.Fields(out), " ")+" ", " dev "+bridge+" "), nil
}

// isInterface tells what can be the name of a network interface.
func isInterface(s string) bool {
	return s != "" && len(s) <= 15 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}
