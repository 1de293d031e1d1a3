package pitrix

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// An AddressChange gives an interface of /etc/network/interfaces another
// address. Each pair is what it has and what it gets; a pair of two equal or
// two empty strings is left as it is. An empty second gateway removes the line,
// an empty first one adds it.
type AddressChange struct {
	Address, Netmask, Gateway [2]string
}

// AddressChanges returns what the switch from temporary to final changes, the
// management interface first, then the outer one; an interface whose values are
// the same is left out.
func AddressChanges(temporary, final *Settings) []AddressChange {
	var out []AddressChange
	for _, section := range []string{"mgmt", "eip"} {
		pair := func(key string) [2]string {
			from, _ := temporary.Get(section + "_network_" + key)
			to, _ := final.Get(section + "_network_" + key)
			return [2]string{from, to}
		}
		c := AddressChange{pair("address"), pair("netmask"), pair("gateway")}
		if c.Address[0] == "" || c.Address[0] == c.Address[1] && c.Netmask[0] == c.Netmask[1] && c.Gateway[0] == c.Gateway[1] {
			continue
		}
		out = append(out, c)
	}
	return out
}

// ifLine is one logical line of an interfaces file.
type ifLine struct {
	words  []string
	at     []int // offsets of the words
	line   int   // from 1
	start  int   // of the line
	end    int   // with its line feed
	stanza int   // 0: before the first one
	iface  bool  // it opens an iface stanza
}

// ifLines reads an interfaces file as ifup does: lines of words, a backslash at
// the end continues one, and a # at the beginning is a comment.
func ifLines(src []byte) []ifLine {
	var out []ifLine
	stanza, number := 0, 0
	for start := 0; start < len(src); {
		l := ifLine{line: number + 1, start: start}
		i, word := start, -1
		comment := false
		flush := func() {
			if word >= 0 {
				l.words, l.at = append(l.words, string(src[word:i])), append(l.at, word)
				word = -1
			}
		}
	line:
		for ; i < len(src); i++ {
			switch c := src[i]; {
			case c == '\n':
				flush()
				number++
				i++
				break line
			case c == '\\' && i+1 < len(src) && src[i+1] == '\n' && !comment:
				flush()
				number++
				i++
			case blank(c) || c == '\r':
				flush()
			case c == '#' && len(l.words) == 0 && word < 0:
				comment = true
				word = i
			case word < 0:
				word = i
			}
		}
		if i == len(src) {
			flush()
		}
		l.end, start = i, i
		if comment || len(l.words) == 0 {
			continue
		}
		switch l.words[0] {
		case "iface", "mapping":
			stanza++
			l.iface = l.words[0] == "iface"
		case "auto", "no-auto-down", "no-scripts", "source", "source-directory", "rename", "template":
			stanza++
		default:
			if strings.HasPrefix(l.words[0], "allow-") {
				stanza++
			}
		}
		l.stanza = stanza
		out = append(out, l)
	}
	return out
}

// EditInterfaces returns the interfaces file with the changes. For each there
// has to be exactly one iface stanza with the address; its netmask and gateway
// are changed as well, and the address in every other command of the file.
// Comments and all other bytes stay. An error names the line and says what to
// do; nothing is left half-way: a file that has the address somewhere else
// afterwards is refused.
func EditInterfaces(name string, src []byte, changes ...AddressChange) ([]byte, error) {
	lines := ifLines(src)
	refuse := func(line int, format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("cannot edit %s: %s:%d:1: %s", name, name, max(line, 1), fmt.Sprintf(format, args...))
	}
	b := textedit.New(src)
	addresses := map[string]string{}
	done := map[int]bool{} // offsets of words that are edited
	for _, l := range lines {
		if l.words[0] == "source" || l.words[0] == "source-directory" {
			return refuse(l.line, "it takes in other files, which would have to be edited too; put their lines here")
		}
	}
	for _, c := range changes {
		from, to := c.Address[0], c.Address[1]
		for _, a := range []string{from, to, c.Gateway[1]} {
			if _, err := ipv4(a); err != nil && (a != "" || a == from || a == to) {
				return refuse(0, "%q is not an IPv4 address; correct the settings", a)
			}
		}
		var found []ifLine
		for _, l := range lines {
			if l.words[0] == "address" && len(l.words) == 2 {
				if host, _, _ := strings.Cut(l.words[1], "/"); host == from {
					found = append(found, l)
				}
			}
		}
		switch {
		case len(found) == 0:
			return refuse(0, "no interface has the address %s; look whether it was changed already", from)
		case len(found) > 1:
			return refuse(found[1].line, "a second interface has the address %s; delete one of them", from)
		}
		address := found[0]
		swap(addresses, from, to)
		value := to
		if _, length, ok := strings.Cut(address.words[1], "/"); ok {
			if c.Netmask[0] != c.Netmask[1] {
				ones, err := netmask(c.Netmask[1])
				if err != nil {
					return refuse(address.line, "%v; correct the settings", err)
				}
				length = strconv.Itoa(ones)
			}
			value += "/" + length
		}
		b.Replace(address.at[1], address.at[1]+len(address.words[1]), value)
		done[address.at[1]] = true
		netmasks, gateways := 0, 0
		for _, l := range lines {
			if l.stanza != address.stanza || len(l.words) < 2 {
				continue
			}
			word, at := l.words[1], l.at[1]
			switch l.words[0] {
			case "netmask":
				netmasks++
				if c.Netmask[0] == c.Netmask[1] {
					continue
				}
				if !sameMask(word, c.Netmask[0]) {
					return refuse(l.line, "the netmask is %s, not %s as the settings say; look whether it was changed already", word, c.Netmask[0])
				}
				b.Replace(at, at+len(word), c.Netmask[1])
			case "gateway":
				gateways++
				if c.Gateway[0] == c.Gateway[1] {
					continue
				}
				if word != c.Gateway[0] {
					return refuse(l.line, "the gateway is %s, not %q as the settings say; look whether it was changed already", word, c.Gateway[0])
				}
				done[at] = true
				if c.Gateway[1] == "" {
					b.Delete(l.start, l.end)
				} else {
					b.Replace(at, at+len(word), c.Gateway[1])
				}
			case "network", "broadcast":
				if !sameNetwork(c) {
					return refuse(l.line, "%s is of the old network; delete the line, ifup finds the value itself", l.words[0])
				}
			}
		}
		switch {
		case c.Gateway[0] != "" && c.Gateway[1] != c.Gateway[0] && gateways == 0:
			return refuse(address.line, "the interface has no gateway %s, which the settings name; look whether it was changed already", c.Gateway[0])
		case c.Gateway[0] == "" && c.Gateway[1] != "":
			indent := string(src[address.start:address.at[0]])
			newline := ""
			if address.end == 0 || src[address.end-1] != '\n' {
				newline = "\n"
			}
			b.Insert(address.end, newline+indent+"gateway "+c.Gateway[1]+"\n")
		case c.Netmask[0] != c.Netmask[1] && netmasks == 0 && !strings.Contains(address.words[1], "/"):
			return refuse(address.line, "the interface has no netmask; write one")
		}
	}
	for _, l := range lines {
		for i, word := range l.words {
			if done[l.at[i]] {
				continue
			}
			if text, n := replaceAddresses(word, addresses); len(n) > 0 {
				b.Replace(l.at[i], l.at[i]+len(word), text)
			}
		}
	}
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot edit %s: %w", name, err)
	}
	for _, l := range ifLines(out) {
		for _, word := range l.words {
			for from := range addresses {
				if at, _ := findAddress(word, from); len(at) > 0 && !isTarget(from, addresses) {
					return refuse(l.line, "%s is still in %q; change it by hand", from, word)
				}
			}
		}
	}
	return out, nil
}

// isTarget says whether an address that goes is one that comes elsewhere.
func isTarget(address string, addresses map[string]string) bool {
	for _, to := range addresses {
		if to == address {
			return true
		}
	}
	return false
}

func sameMask(a, b string) bool {
	if a == b {
		return true
	}
	ones, err := netmask(b)
	return err == nil && a == strconv.Itoa(ones)
}

func sameNetwork(c AddressChange) bool {
	var nets []netip.Prefix
	for i := range 2 {
		a, err := ipv4(c.Address[i])
		if err != nil {
			return false
		}
		ones, err := netmask(c.Netmask[i])
		if err != nil {
			return c.Netmask[0] == c.Netmask[1] && c.Address[0] == c.Address[1]
		}
		nets = append(nets, netip.PrefixFrom(a, ones).Masked())
	}
	return nets[0] == nets[1]
}

// EditRCLocalTail returns an rc.local.tail, or another rc.local, with other
// addresses in its commands: after the switch the temporary source address of a
// route belongs to nobody, ip refuses the route at boot, and the node has none
// to the VMs. All addresses change at once, so that two may change places.
// Comments stay. A file without any of the addresses comes back as it is. What
// may be a part of a path is refused, with its line and column.
func EditRCLocalTail(name string, src []byte, addresses map[string]string) ([]byte, error) {
	b := textedit.New(src)
	offset, line := 0, 0
	for text := range strings.Lines(string(src)) {
		line++
		start := offset
		offset += len(text)
		if strings.HasPrefix(strings.TrimLeft(text, " \t"), "#") {
			continue
		}
		for _, from := range slices.Sorted(maps.Keys(addresses)) {
			at, clear := findAddress(text, from)
			for i, col := range at {
				if !clear[i] {
					return nil, fmt.Errorf("cannot edit %s: %s:%d:%d: %s may be a part of a file's name; change the line by hand", name, name, line, col+1, from)
				}
				b.Replace(start+col, start+col+len(from), addresses[from])
			}
		}
	}
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot edit %s: %w", name, err)
	}
	return slices.Clone(out), nil
}
