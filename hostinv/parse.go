package hostinv

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// A frame is one section as it came: items by label, in order; output before
// the first item has the label "".
type frame struct {
	items []frameItem
	rc    int
	hasRC bool // the section's status line arrived
	ended bool // its end arrived
	bytes int
}

type frameItem struct {
	label string
	data  []byte
}

func (f *frame) get(label string) ([]byte, bool) {
	for _, i := range f.items {
		if i.label == label {
			return i.data, true
		}
	}
	return nil, false
}

// text returns an item without the line feeds around it.
func (f *frame) text(label string) string {
	b, _ := f.get(label)
	return strings.Trim(string(b), "\n")
}

// splitFrames cuts the stream at the lines that carry the mark. Only a whole
// line counts, with its line feed: a stream may end anywhere.
func splitFrames(stream []byte, mark string) (frames map[string]*frame, noise []byte, framed bool) {
	frames = map[string]*frame{}
	sep := []byte("\n" + mark + " ")
	var cur *frame
	var name string
	first := true
	add := func(data []byte) {
		switch {
		case cur != nil:
			cur.bytes += len(data)
			if n := len(cur.items); n > 0 {
				cur.items[n-1].data = data
			}
		case first:
			noise = data
		}
		first = false
	}
	rest := stream
	for {
		i := bytes.Index(rest, sep)
		if i < 0 {
			add(rest)
			return frames, noise, framed
		}
		add(rest[:i])
		rest = rest[i+len(sep):]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return frames, noise, framed // a torn mark
		}
		kind, arg, _ := strings.Cut(string(rest[:end]), " ")
		rest = rest[end+1:]
		switch kind {
		case "B":
			framed = true
			if !slices.Contains(sectionNames, arg) || frames[arg] != nil {
				// Not ours; nothing may follow that is believed.
				return frames, noise, framed
			}
			cur, name = &frame{items: []frameItem{{}}}, arg
			frames[arg] = cur
		case "I":
			if cur != nil && !cur.hasRC {
				cur.items = append(cur.items, frameItem{label: arg})
			}
		case "R":
			if cur != nil && !cur.hasRC {
				if n, err := strconv.Atoi(arg); err == nil {
					cur.rc, cur.hasRC = n, true
				}
				// What follows is no payload.
				cur.items = append(cur.items, frameItem{label: "\x00"})
			}
		case "E":
			if cur != nil && arg == name {
				cur.ended = true
			}
			cur = nil
		case "Z": // a stream that ends before it lacks sections, which shows
			return frames, noise, framed
		}
	}
}

// inventory-to-be: what parseStream needs and does not publish.
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

// parseStream reads what the script wrote. Every section is in the result:
// one that did not arrive whole is truncated, never empty. framed is false
// when there is no frame at all, which means that the script did not run.
func parseStream(stream []byte, mark string) (inv *Inventory, framed bool) {
	frames, noise, framed := splitFrames(stream, mark)
	inv = &Inventory{
		Schema: 1, UID: -1, Sections: map[string]Section{},
		Listeners: []Listener{}, Java: []Java{}, Containers: []Container{}, Units: []Unit{},
	}
	inv.Noise = strings.TrimSpace(strings.ToValidUTF8(string(noise[:min(len(noise), maxNoise)]), "\uFFFD"))
	for _, name := range sectionNames {
		f := frames[name]
		s := Section{Status: StatusTruncated, Message: "the host's answer ended before it"}
		if f != nil {
			s = f.section()
		}
		if s.Status == StatusOK || s.Status == StatusPartial || s.Status == StatusTruncated && f != nil {
			if st, msg := inv.fill(name, f); st != StatusOK && s.Status != StatusTruncated {
				s.Status, s.Message = st, msg
			}
		}
		inv.Sections[name] = s
	}
	inv.attribute()
	return inv, framed
}

// section judges a frame by its end and its status.
func (f *frame) section() Section {
	s := Section{Bytes: f.bytes}
	message := clip(strings.ToValidUTF8(strings.TrimSpace(f.text("message")), "\uFFFD"), 300)
	switch {
	case !f.hasRC && f.ended:
		s.Status, s.Message = StatusTruncated, "it is larger than "+strconv.Itoa(maxSection>>20)+" MiB"
	case !f.hasRC || !f.ended:
		s.Status, s.Message = StatusTruncated, "the host's answer ended within it"
	case f.rc == 0:
		s.Status = StatusOK
	case f.rc == 10:
		s.Status = StatusAbsent
	case f.rc == 12:
		s.Status, s.Message = StatusPartial, "some of it may not be read by this user, or is gone"
	case f.rc == 124:
		s.Status, s.Message = StatusTimeout, "the host took longer than 30 s"
	default:
		s.Status, s.Message = StatusError, message
		if message == "" {
			s.Message = "exit status " + strconv.Itoa(f.rc)
		}
		low := strings.ToLower(message)
		switch {
		case strings.Contains(low, "permission denied"):
			s.Status = StatusDenied
		case strings.Contains(low, "not been booted with systemd"):
			s.Status = StatusAbsent
		}
	}
	return s
}

// fill reads one section into the inventory. A status other than ok says
// that what arrived is not what it should be.
func (inv *Inventory) fill(name string, f *frame) (Status, string) {
	bad := func(what string) (Status, string) { return StatusError, what + " cannot be read" }
	switch name {
	case SectionOS:
		for _, line := range strings.Split(f.text("os-release"), "\n") {
			k, v, _ := strings.Cut(line, "=")
			v = strings.Trim(strings.TrimSpace(v), `"'`)
			switch k {
			case "ID":
				inv.OS.ID = v
			case "VERSION_ID":
				inv.OS.Version = v
			case "PRETTY_NAME":
				inv.OS.Pretty = v
			}
		}
		release, _, _ := strings.Cut(f.text("redhat-release"), "\n")
		inv.OS.Release = strings.TrimSpace(release)
		if inv.OS == (OS{}) {
			return bad("the release")
		}
	case SectionKernel:
		inv.Kernel = strings.TrimSpace(f.text(""))
		if inv.Kernel == "" {
			return bad("the kernel release")
		}
	case SectionBoot:
		id, ok := bootID(f.text(""))
		if !ok {
			return bad("the boot ID")
		}
		inv.BootID = id
	case SectionUptime:
		v, _, _ := strings.Cut(strings.TrimSpace(f.text("uptime")), " ")
		sec, err := strconv.ParseFloat(v, 64)
		if err != nil || !(sec >= 0 && sec < 1e9) {
			return bad("the uptime")
		}
		inv.Uptime = time.Duration(sec * float64(time.Second))
		if c, err := strconv.ParseInt(strings.TrimSpace(f.text("clock")), 10, 64); err == nil && c > 0 && c < 1<<33 {
			inv.clock = c
		}
	case SectionHost:
		inv.Hostname = strings.TrimSpace(f.text("hostname"))
		if n, err := strconv.Atoi(strings.TrimSpace(f.text("uid"))); err == nil && n >= 0 {
			inv.UID = n
		}
		if inv.Hostname == "" {
			return bad("the host name")
		}
	case SectionListeners:
		return inv.fillListeners(f)
	case SectionOwners:
		inv.owners = map[string]owner{}
		for _, i := range f.items {
			pid, err := strconv.Atoi(i.label)
			if err != nil || pid <= 0 {
				continue
			}
			comm, links, _ := strings.Cut(string(i.data), "\n")
			for _, inode := range socketLinks(links) {
				// The lowest pid: a master process before its workers.
				if o, ok := inv.owners[inode]; !ok || pid < o.pid {
					inv.owners[inode] = owner{pid, comm}
				}
			}
		}
	case SectionJava:
		return inv.fillJava(f)
	case SectionDocker:
		inv.Docker = strings.TrimSpace(f.text(""))
	case SectionContainers:
		return inv.fillContainers(f)
	case SectionUnits:
		return inv.fillUnits(f)
	}
	return StatusOK, ""
}

// owner is the process that holds a socket.
type owner struct {
	pid  int
	comm string
}

func (inv *Inventory) fillListeners(f *frame) (Status, string) {
	status, msg := StatusOK, ""
	if _, ok := f.get("tcp"); !ok {
		return StatusError, "/proc/net/tcp cannot be read"
	}
	for _, i := range f.items {
		proto := strings.TrimSuffix(i.label, "6")
		if proto != "tcp" && proto != "udp" {
			continue
		}
		lines := strings.Split(string(i.data), "\n")
		if len(i.data) >= maxTable {
			lines = lines[:len(lines)-1] // cut off within a line
		}
		last := uint64(stateListen)
		for n, line := range lines {
			if strings.TrimSpace(line) == "" || n == 0 && strings.Contains(line, "local_address") {
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
			})
		}
		// The kernel lists all TCP listeners first: a table cut off among the
		// connections lacks none.
		if len(i.data) >= maxTable && (proto == "udp" || last == stateListen) {
			status, msg = StatusTruncated, "/proc/net/"+i.label+" is too long"
		}
	}
	return status, msg
}

// parseSocket reads a line of /proc/net/{tcp,tcp6,udp,udp6}.
func parseSocket(line string) (s socket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
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
	raw, err := hex.DecodeString(a)
	port, err2 := strconv.ParseUint(p, 16, 16)
	if err != nil || err2 != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// socketLinks returns the socket inodes in the output of ls -l on an fd
// directory. The name before the arrow is a number there, so that a file
// name cannot pass for a socket on a line of its own kind; a file name with
// a line feed can only speak for its own process.
func socketLinks(ls string) []string {
	var inodes []string
	for _, line := range strings.Split(ls, "\n") {
		head, target, ok := strings.Cut(line, " -> ")
		if !ok || !strings.HasPrefix(line, "l") {
			continue
		}
		inode, ok := strings.CutPrefix(target, "socket:[")
		inode, ok2 := strings.CutSuffix(inode, "]")
		fields := strings.Fields(head)
		if !ok || !ok2 || len(fields) == 0 {
			continue
		}
		if _, err := strconv.Atoi(path.Base(fields[len(fields)-1])); err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// attribute joins listeners, their processes and the Java processes.
func (inv *Inventory) attribute() {
	ports := map[int][]int{}
	for i := range inv.Listeners {
		l := &inv.Listeners[i]
		o, ok := inv.owners[l.inode]
		if !ok || l.inode == "0" {
			continue
		}
		l.PID, l.Process = o.pid, o.comm
		if l.Proto == "tcp" && !slices.Contains(ports[o.pid], l.Port) {
			ports[o.pid] = append(ports[o.pid], l.Port)
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
	sort.Slice(inv.Listeners, func(i, j int) bool {
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
}

// containerID finds the ID in a path of /proc/PID/cgroup, of version 1
// (/docker/ID) and 2 (docker-ID.scope).
var containerID = regexp.MustCompile(`docker[-/]([0-9a-f]{64})(\.scope)?(\n|$|/)`)

func (inv *Inventory) fillJava(f *frame) (Status, string) {
	type proc struct{ items map[string]string }
	procs := map[int]proc{}
	var order []int
	for _, i := range f.items {
		p, what, _ := strings.Cut(i.label, " ")
		pid, err := strconv.Atoi(p)
		if err != nil || pid <= 0 {
			continue
		}
		if _, ok := procs[pid]; !ok {
			procs[pid] = proc{map[string]string{}}
			order = append(order, pid)
		}
		procs[pid].items[what] = string(i.data)
	}
	for _, pid := range order {
		p := procs[pid].items
		if _, whole := p["end"]; !whole {
			continue // cut off: the section is truncated
		}
		// tr turned NUL into a line feed and a line feed into \001.
		args := strings.Split(strings.TrimSuffix(p["cmdline"], "\n"), "\n")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x01", "\n")
		}
		// readlink adds one line feed; the rest belongs to the name.
		exe := strings.TrimSuffix(p["exe"], "\n")
		cwd := strings.TrimSuffix(p["cwd"], "\n")
		base := path.Base(strings.TrimSuffix(exe, " (deleted)"))
		if base != "java" && path.Base(args[0]) != "java" || p["cmdline"] == "" {
			continue
		}
		j := Java{PID: pid, Cwd: cwd, Exe: exe, User: userOf(p["owner"], p["status"])}
		j.Jar, j.MainClass = mainOf(args)
		j.Args = redactArgs(args)
		if m := containerID.FindStringSubmatch(p["cgroup"]); m != nil {
			j.Container = m[1]
		}
		inv.Java = append(inv.Java, j)
	}
	return StatusOK, ""
}

// userOf takes the name from ls -ld, else the number from status.
func userOf(ls, status string) string {
	if f := strings.Fields(ls); len(f) > 3 && strings.HasPrefix(f[0], "d") {
		return f[2]
	}
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(v); len(f) > 0 {
				return f[0]
			}
		}
	}
	return ""
}

// withValue are the java options whose value is the next argument. Never
// written to.
var withValue = []string{
	"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
	"--add-reads", "--add-exports", "--add-opens", "--limit-modules", "--patch-module", "--enable-native-access",
}

// mainOf finds what a java command line runs.
func mainOf(args []string) (jar, class string) {
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-jar" || a == "-m" || a == "--module":
			if i+1 >= len(args) {
				return "", ""
			}
			if a == "-jar" {
				return args[i+1], ""
			}
			return "", args[i+1]
		case slices.Contains(withValue, a):
			i++
		case strings.HasPrefix(a, "-"), strings.HasPrefix(a, "@"), a == "":
		default:
			return "", a
		}
	}
	return "", ""
}

type inspectPort struct{ HostIp, HostPort string }

func (inv *Inventory) fillContainers(f *frame) (Status, string) {
	want := len(strings.Fields(f.text("ids")))
	broken := 0
	for _, line := range strings.Split(f.text("inspect"), "\n") {
		if !strings.HasPrefix(line, "[") {
			continue
		}
		c, ok := parseContainer(line)
		if !ok {
			broken++
			continue
		}
		inv.Containers = append(inv.Containers, c)
	}
	sort.Slice(inv.Containers, func(i, j int) bool { return inv.Containers[i].Name < inv.Containers[j].Name })
	switch {
	case broken > 0:
		return StatusError, strconv.Itoa(broken) + " containers cannot be read from docker inspect"
	case len(inv.Containers) != want && f.rc == 0:
		return StatusPartial, "docker inspect described " + strconv.Itoa(len(inv.Containers)) + " of " + strconv.Itoa(want) + " containers"
	case f.rc == 12:
		return StatusPartial, "a container vanished while it was looked at"
	}
	return StatusOK, ""
}

func parseContainer(line string) (c Container, ok bool) {
	var name, health, policy *string
	var labels []*string
	var bindings, ports map[string][]inspectPort
	fields := []any{&c.ID, &name, &c.Image, &c.ImageID, &c.State, &c.ExitCode, &health, &policy, &labels, &bindings, &ports, &c.PID}
	var raw []json.RawMessage
	if json.Unmarshal([]byte(line), &raw) != nil || len(raw) != len(fields) {
		return c, false
	}
	for i := range fields {
		if json.Unmarshal(raw[i], fields[i]) != nil {
			return c, false
		}
	}
	str := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	c.Name = strings.TrimPrefix(str(name), "/")
	c.Health = str(health)
	c.RestartPolicy = str(policy)
	if c.RestartPolicy == "" {
		c.RestartPolicy = "no"
	}
	if len(labels) == 5 {
		c.Compose = Compose{str(labels[0]), str(labels[1]), str(labels[2]), str(labels[3]), str(labels[4])}
	}
	// What was asked for stays when the container is stopped; what docker
	// chose itself (-P) is known only while it runs.
	c.Ports = []Port{}
	seen := map[Port]bool{}
	for _, m := range []map[string][]inspectPort{bindings, ports} {
		for spec, list := range m {
			p, proto, _ := strings.Cut(spec, "/")
			cport, err := strconv.Atoi(p)
			if err != nil {
				continue
			}
			for _, b := range list {
				host, err := strconv.Atoi(b.HostPort)
				if err != nil || host == 0 {
					continue
				}
				if b.HostIp == "" || b.HostIp == "::" {
					b.HostIp = "0.0.0.0"
				}
				if x := (Port{proto, cport, b.HostIp, host}); !seen[x] {
					seen[x] = true
					c.Ports = append(c.Ports, x)
				}
			}
		}
	}
	sort.Slice(c.Ports, func(i, j int) bool {
		a, b := c.Ports[i], c.Ports[j]
		if a.HostPort != b.HostPort {
			return a.HostPort < b.HostPort
		}
		return a.Proto+a.HostIP+strconv.Itoa(a.ContainerPort) < b.Proto+b.HostIP+strconv.Itoa(b.ContainerPort)
	})
	return c, c.ID != "" && c.Name != ""
}

func (inv *Inventory) fillUnits(f *frame) (Status, string) {
	units := map[string]*Unit{}
	get := func(name string) *Unit {
		if units[name] == nil {
			units[name] = &Unit{Name: name}
		}
		return units[name]
	}
	for _, line := range strings.Split(f.text("active"), "\n") {
		w := strings.Fields(line)
		if len(w) > 0 && (w[0] == "●" || w[0] == "*") { // older systemctl marks failed units
			w = w[1:]
		}
		if len(w) < 4 || !strings.Contains(w[0], ".") {
			continue
		}
		u := get(w[0])
		u.Load, u.Active, u.Sub = w[1], w[2], w[3]
	}
	for _, line := range strings.Split(f.text("files"), "\n") {
		w := strings.Fields(line)
		if len(w) < 2 || !strings.Contains(w[0], ".") {
			continue
		}
		get(w[0]).Enabled = w[1]
	}
	for _, u := range units {
		inv.Units = append(inv.Units, *u)
	}
	sort.Slice(inv.Units, func(i, j int) bool { return inv.Units[i].Name < inv.Units[j].Name })
	if len(inv.Units) == 0 {
		return StatusError, "systemctl listed no unit"
	}
	return StatusOK, ""
}
