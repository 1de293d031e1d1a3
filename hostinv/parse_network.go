package hostinv

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// socket is a line of a kernel's table of sockets.
type socket struct {
	local, remote netip.AddrPort
	state         uint64
	uid           int
	inode         string
}

const (
	stateListen = 0x0A
	stateClose  = 0x07 // of UDP: not connected, so that it listens
)

// stateNames are those of the kernel's TCP states. Never written to.
var stateNames = map[uint64]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
	7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV",
}

// lastingInterface leaves out the ends of containers' networks.
func lastingInterface(name string) bool {
	for _, p := range []string{"veth", "cali", "cni", "flannel", "tap", "vnet", "ifb"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return !dockerBridge.MatchString(name)
}

// dockerBridge is the name Docker gives to a network's bridge.
var dockerBridge = regexp.MustCompile(`\bbr-[0-9a-f]{12}\b`)

func (inv *Inventory) fillInterfaces(f *frame) (Status, string) {
	by := map[string]*Interface{}
	get := func(name string) *Interface {
		if by[name] == nil {
			by[name] = &Interface{Name: name}
		}
		return by[name]
	}
	for _, l := range f.fileLines("sys") {
		i := get(path.Base(path.Dir(l.Source)))
		v := strings.TrimSpace(l.Text)
		switch path.Base(l.Source) {
		case "address":
			if v != "00:00:00:00:00:00" {
				i.MAC = v
			}
		case "mtu":
			i.MTU, _ = strconv.Atoi(v) // the kernel's own number
		case "operstate":
			i.State = v
		}
	}
	for link, target := range links(f.rows("master")) {
		get(path.Base(path.Dir(link))).Master = path.Base(target)
	}
	for _, line := range f.rows("addr") {
		// INDEX: NAME inet[6] ADDRESS/BITS …
		w := strings.Fields(line)
		if len(w) < 4 || w[2] != "inet" && w[2] != "inet6" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(w[1], ":"), "@")
		a := w[3]
		if w[2] == "inet6" && (strings.HasPrefix(a, "fe80:") || slices.Contains(w, "temporary")) {
			continue
		}
		if len(w) > 5 && w[4] == "peer" {
			a += " peer " + w[5]
		}
		get(name).Addresses = append(get(name).Addresses, a)
	}
	for name, i := range by {
		if lastingInterface(name) {
			sort.Strings(i.Addresses)
			inv.Interfaces = append(inv.Interfaces, *i)
		}
	}
	sort.Slice(inv.Interfaces, func(i, j int) bool { return inv.Interfaces[i].Name < inv.Interfaces[j].Name })
	if len(inv.Interfaces) == 0 {
		return unreadable("the list of network interfaces")
	}
	return StatusOK, ""
}

func (inv *Inventory) fillRoutes(f *frame) (Status, string) {
	for _, family := range []int{4, 6} {
		for _, line := range f.rows(strconv.Itoa(family)) {
			var kept []string
			w := strings.Fields(line)
			skip := false
			for n := 0; n < len(w); n++ {
				switch w[n] {
				case "expires", "hoplimit", "pref", "error": // with a value that says nothing, or changes
					n++
				case "linkdown", "dead", "cache":
				case "table":
					skip = skip || n+1 < len(w) && (w[n+1] == "local" || w[n+1] == "255")
					kept = append(kept, w[n])
				case "dev":
					skip = skip || n+1 < len(w) && !lastingInterface(w[n+1])
					kept = append(kept, w[n])
				default:
					kept = append(kept, w[n])
				}
			}
			// A cached route, or one of the interface itself that comes with its address.
			if skip || len(kept) == 0 || kept[0] == "local" || kept[0] == "broadcast" || kept[0] == "multicast" || kept[0] == "anycast" || strings.HasPrefix(kept[0], "fe80:") || strings.HasPrefix(kept[0], "ff00:") {
				continue
			}
			inv.Routes = append(inv.Routes, Route{family, strings.Join(kept, " ")})
		}
	}
	sort.Slice(inv.Routes, func(i, j int) bool {
		a, b := inv.Routes[i], inv.Routes[j]
		return a.Family < b.Family || a.Family == b.Family && a.Text < b.Text
	})
	return StatusOK, ""
}

func (inv *Inventory) fillRules(f *frame) (Status, string) {
	for _, family := range []string{"4", "6"} {
		for _, line := range f.rows(family) {
			inv.Rules = append(inv.Rules, family+" "+strings.Join(strings.Fields(line), " "))
		}
	}
	return StatusOK, ""
}

func (inv *Inventory) fillDNS(f *frame) (Status, string) {
	for _, l := range f.fileLines("files") {
		text, _, _ := strings.Cut(l.Text, "#")
		w := strings.Fields(text)
		if len(w) == 0 || strings.HasPrefix(w[0], ";") {
			continue
		}
		switch {
		case l.Source == "/etc/hosts":
			inv.DNS.Hosts = append(inv.DNS.Hosts, strings.Join(w, " "))
		case l.Source == "/etc/nsswitch.conf":
			if w[0] == "hosts:" {
				inv.DNS.Switch = strings.Join(w[1:], " ")
			}
		case w[0] == "nameserver":
			inv.DNS.Servers = append(inv.DNS.Servers, w[1:]...)
		case w[0] == "search" || w[0] == "domain":
			inv.DNS.Search = append(inv.DNS.Search, w[1:]...)
		case w[0] == "options":
			inv.DNS.Options = append(inv.DNS.Options, w[1:]...)
		}
	}
	return StatusOK, ""
}

// counters are the numbers that grow with the traffic.
var (
	ruleCounters = regexp.MustCompile(`\[\d+:\d+\]|\bcounter packets \d+ bytes \d+`)
	ownChain     = regexp.MustCompile(`\b(DOCKER|KUBE-|cali-|CNI-|FLANNEL|f2b-|LIBVIRT_)`)
)

func (inv *Inventory) fillFirewall(f *frame) (Status, string) {
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		table := ""
		for _, line := range f.rows(tool) {
			line = strings.Join(strings.Fields(ruleCounters.ReplaceAllString(line, "")), " ")
			switch {
			case strings.HasPrefix(line, "*"):
				table = line[1:]
				continue
			case strings.HasPrefix(line, "#"), line == "COMMIT", line == "", ownChain.MatchString(line), dockerBridge.MatchString(line), strings.Contains(line, "docker0"):
				continue
			case strings.HasPrefix(line, ":") && strings.HasSuffix(line, " ACCEPT"):
				continue // the policy of a chain nobody touched
			}
			// The rules Docker writes into POSTROUTING for its containers' addresses.
			if table == "nat" && strings.Contains(line, "-j MASQUERADE") && strings.Contains(line, "-s 172.") {
				continue
			}
			inv.Firewall = append(inv.Firewall, Rule{strings.TrimSuffix(tool, "-save"), table, redactLine(line)})
		}
	}
	var where []string
	skip := 0
	for _, line := range f.rows("nft") {
		line = strings.Join(strings.Fields(ruleCounters.ReplaceAllString(line, "counter")), " ")
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "}":
			if len(where) > 0 {
				where = where[:len(where)-1]
			}
			skip = min(skip, len(where))
		case strings.HasSuffix(line, "{"):
			if skip == 0 || len(where) < skip {
				skip = 0
				// What iptables-nft made is told by iptables-save.
				if ownChain.MatchString(line) || strings.HasPrefix(line, "table ip filter") || strings.HasPrefix(line, "table ip nat") || strings.HasPrefix(line, "table ip6 filter") || strings.HasPrefix(line, "table ip6 nat") {
					skip = len(where) + 1
				}
			}
			where = append(where, strings.TrimSpace(strings.TrimSuffix(line, "{")))
		case skip > 0 && len(where) >= skip, ownChain.MatchString(line), dockerBridge.MatchString(line), strings.Contains(line, "docker0"):
		default:
			inv.Firewall = append(inv.Firewall, Rule{"nft", strings.Join(where, " "), redactLine(line)})
		}
	}
	return StatusOK, ""
}

func (inv *Inventory) fillListeners(f *frame) (Status, string) {
	status, msg := StatusOK, ""
	low, high := 32768, 60999
	if w := strings.Fields(f.text("range")); len(w) == 2 {
		a, err1 := strconv.Atoi(w[0])
		b, err2 := strconv.Atoi(w[1])
		if err1 == nil && err2 == nil {
			low, high = a, b
		}
	}
	_, all := f.get("listening")
	if _, ok := f.get("tcp"); !ok && !all {
		return StatusError, "/proc/net/tcp cannot be read"
	}
	for _, i := range f.items {
		proto := strings.TrimSuffix(i.label, "6")
		if i.label == "listening" {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" {
			continue
		}
		lines := strings.Split(string(i.data), "\n")
		// Of TCP the listeners alone are sent: where they fill the table, all but
		// a line that was cut off before its state.
		full := i.label != "listening" && (len(i.data) >= maxTable || proto == "tcp" && len(i.data) >= maxTable-tableLine)
		if full {
			lines = lines[:len(lines)-1] // cut off within a line
		}
		last := uint64(stateListen)
		for _, line := range lines {
			if strings.TrimSpace(line) == "" || strings.Contains(line, "local_address") {
				continue
			}
			s, ok := parseSocket(line)
			if !ok {
				status, msg = StatusPartial, "a line of /proc/net/"+i.label+" cannot be read"
				continue
			}
			last = s.state
			if proto == "tcp" && s.state != stateListen || proto == "udp" && s.state != stateClose {
				continue
			}
			inv.Listeners = append(inv.Listeners, Listener{
				Proto: proto, Addr: s.local.Addr().Unmap().String(), Port: int(s.local.Port()), UID: s.uid, inode: s.inode,
				Ephemeral: int(s.local.Port()) >= low && int(s.local.Port()) <= high,
			})
		}
		// The kernel lists all TCP listeners first: a table cut off among the
		// connections lacks none.
		if full && (proto == "udp" || last == stateListen) {
			status, msg = StatusTruncated, "/proc/net/"+i.label+" is too long"
		}
	}
	return status, msg
}

// fillConnections reads "LOCAL REMOTE INODE" of established connections.
func (inv *Inventory) fillConnections(f *frame) (Status, string) {
	rows := f.rows("tcp")
	whole := len(rows) > 0 && rows[len(rows)-1] == "end"
	if len(rows) > 0 {
		rows = rows[:len(rows)-1] // the mark, or a line that may be torn
	}
	for _, line := range rows {
		w := strings.Fields(line)
		if len(w) != 3 {
			return unreadable("a line of the connections")
		}
		var s socket
		var ok1, ok2 bool
		s.local, ok1 = parseEndpoint(w[0])
		s.remote, ok2 = parseEndpoint(w[1])
		if s.inode = w[2]; !ok1 || !ok2 {
			return unreadable("a line of the connections")
		}
		inv.peers = append(inv.peers, s)
	}
	if !whole {
		return StatusTruncated, "there are more connections than are sent"
	}
	return StatusOK, ""
}

// parseSocket reads a line of /proc/net/{tcp,tcp6,udp,udp6}.
func parseSocket(line string) (s socket, ok bool) {
	var f [10]string
	n := 0
	for w := range strings.FieldsSeq(line) {
		if f[n] = w; n == len(f)-1 {
			break
		}
		n++
	}
	var ok1, ok2 bool
	s.local, ok1 = parseEndpoint(f[1])
	s.remote, ok2 = parseEndpoint(f[2])
	state, err1 := strconv.ParseUint(f[3], 16, 8)
	uid, err2 := strconv.ParseUint(f[7], 10, 32)
	_, err3 := strconv.ParseUint(f[9], 10, 64)
	s.state, s.uid, s.inode = state, int(uid), f[9]
	return s, ok1 && ok2 && err1 == nil && err2 == nil && err3 == nil
}

// parseEndpoint reads ADDRESS:PORT in hex; the address is one or four 32-bit
// words, each in the byte order of the host, which is little-endian on every
// machine this is for.
func parseEndpoint(s string) (netip.AddrPort, bool) {
	a, p, _ := strings.Cut(s, ":")
	var buf [16]byte
	if len(a) != 8 && len(a) != 32 {
		return netip.AddrPort{}, false
	}
	raw := buf[:len(a)/2]
	_, err := hex.Decode(raw, []byte(a))
	port, err2 := strconv.ParseUint(p, 16, 16)
	if err != nil || err2 != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// attribute joins sockets, their processes and the Java processes.
func (inv *Inventory) attribute() {
	byPID := map[int]*Process{}
	for i := range inv.Processes {
		byPID[inv.Processes[i].PID] = &inv.Processes[i]
	}
	ports := map[int][]int{}
	listening := map[int]bool{}
	for i := range inv.Listeners {
		l := &inv.Listeners[i]
		if l.Proto == "tcp" {
			listening[l.Port] = true
		}
		p := byPID[inv.owners[l.inode]]
		if p == nil || l.inode == "0" {
			continue
		}
		l.PID, l.Process = p.PID, p.Name
		if l.Proto == "tcp" && !slices.Contains(ports[p.PID], l.Port) {
			ports[p.PID] = append(ports[p.PID], l.Port)
		}
	}
	for i := range inv.Java {
		j := &inv.Java[i]
		j.Ports = ports[j.PID]
		sort.Ints(j.Ports)
		if j.Ports == nil {
			j.Ports = []int{}
		}
	}
	sort.SliceStable(inv.Listeners, func(i, j int) bool {
		a, b := inv.Listeners[i], inv.Listeners[j]
		switch {
		case a.Proto != b.Proto:
			return a.Proto < b.Proto
		case a.Port != b.Port:
			return a.Port < b.Port
		case a.Addr != b.Addr:
			return a.Addr < b.Addr
		}
		return a.inode < b.inode
	})
	count := map[Peer]int{}
	for _, s := range inv.peers {
		p := Peer{Direction: "in", LocalPort: int(s.local.Port()), IP: s.remote.Addr().Unmap().String()}
		if !listening[p.LocalPort] {
			p.Direction, p.LocalPort, p.Port = "out", 0, int(s.remote.Port())
		}
		if o := byPID[inv.owners[s.inode]]; o != nil && s.inode != "0" {
			p.Process = o.Name
		}
		count[p]++
	}
	for p, n := range count {
		p.Count = n
		inv.Connections = append(inv.Connections, p)
	}
	slices.SortFunc(inv.Connections, func(a, b Peer) int {
		return cmp.Or(strings.Compare(a.Direction, b.Direction), a.LocalPort-b.LocalPort, strings.Compare(a.IP, b.IP), a.Port-b.Port, strings.Compare(a.Process, b.Process))
	})
}
