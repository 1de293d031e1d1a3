package host

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mountProc puts /proc, and the few devices scripts use, into the tree.
func (h *Host) mountProc() {
	h.tree.mu.Lock()
	defer h.tree.mu.Unlock()
	now := time.Now()
	dev := newDir(0o755)
	uuid, disk := newDir(0o755), newDir(0o755)
	uuid.kids[diskUUID] = &node{mode: fs.ModeSymlink | 0o777, mtime: now, link: "../../vda1"}
	disk.kids["by-uuid"] = uuid
	dev.kids["disk"] = disk
	dev.kids["null"] = &node{
		mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, mtime: now,
		gen: func() []byte { return nil }, put: func([]byte, int) {},
	}
	h.tree.root.kids["dev"] = dev
	fixed := map[string]*node{
		"uptime":  h.genFile(h.uptime),
		"version": h.genFile(func() string { return "Linux version " + h.Kernel() + "\n" }),
		"cmdline": h.genFile(func() string { return "BOOT_IMAGE=/boot/vmlinuz-" + h.Kernel() + " root=UUID=0 ro\n" }),
		"loadavg": h.genFile(func() string { return "0.00 0.01 0.05 1/100 1000\n" }),
		"mounts":  h.genFile(func() string { return "/dev/vda1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n" }),
		"self": dirOf(map[string]*node{"mountinfo": h.genFile(func() string {
			return "20 0 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,data=ordered\n21 20 0:3 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw\n"
		})}),
		"partitions": h.genFile(func() string {
			return fmt.Sprintf("major minor  #blocks  name\n\n 253        0 %10d vda\n 253        1 %10d vda1\n", diskBlocks, diskBlocks-1024)
		}),
		"cpuinfo": h.genFile(func() string {
			return "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8269CY CPU @ 2.50GHz\n\nprocessor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8269CY CPU @ 2.50GHz\n\n"
		}),
		"meminfo": h.genFile(func() string {
			return "MemTotal:        8009300 kB\nMemFree:         5009300 kB\nMemAvailable:    6009300 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n"
		}),
		"modules": h.genFile(func() string {
			return "ip_tables 27126 0 - Live 0x0000000000000000\next4 571716 1 - Live 0x0000000000000000\nvirtio_net 28024 0 - Live 0x0000000000000000\nvirtio_blk 18166 2 - Live 0x0000000000000000\n"
		}),
		"net": dirOf(map[string]*node{
			"tcp":  h.genFile(func() string { return h.netTCP(false, nil) }),
			"tcp6": h.genFile(func() string { return h.netTCP(true, nil) }),
			"udp":  h.genFile(func() string { return udpHeader + "\n" }),
			"udp6": h.genFile(func() string { return udp6Header + "\n" }),
		}),
		"sys": h.genTree(map[string]func() string{
			"kernel/osrelease":                func() string { return h.Kernel() },
			"kernel/ostype":                   func() string { return "Linux" },
			"kernel/hostname":                 func() string { return h.spec.Hostname },
			"kernel/random/boot_id":           h.BootID,
			"kernel/random/uuid":              newUUID,
			"kernel/pid_max":                  func() string { return "32768" },
			"vm/swappiness":                   func() string { return "30" },
			"fs/file-max":                     func() string { return "791752" },
			"fs/nr_open":                      func() string { return strconv.Itoa(nrOpen) },
			"net/core/somaxconn":              func() string { return "128" },
			"net/ipv4/ip_forward":             func() string { return "1" },
			"net/ipv4/ip_local_port_range":    func() string { return "32768\t60999" },
			"net/ipv4/conf/all/rp_filter":     func() string { return "0" },
			"net/ipv4/conf/default/rp_filter": func() string { return "0" },
		}),
	}
	for name, text := range h.spec.Proc {
		fixed[name] = h.genFile(func() string { return text })
	}
	sys := map[string]func() string{
		"devices/system/cpu/online": func() string { return "0-1" },
		"class/dmi/id/sys_vendor":   func() string { return "Alibaba Cloud" },
		"class/dmi/id/product_name": func() string { return "Alibaba Cloud ECS" },
		"class/net/lo/address":      func() string { return "00:00:00:00:00:00" },
		"class/net/lo/mtu":          func() string { return "65536" },
		"class/net/lo/operstate":    func() string { return "unknown" },
	}
	if own := h.tree.root.kids["sys"]; own != nil && own.kids != nil {
		// A description that has a /sys of its own knows its interfaces.
		for name, text := range sys {
			plant(own, name, h.genFile(func() string { return text() + "\n" }))
		}
	} else {
		maps.Copy(sys, map[string]func() string{
			"class/net/eth0/address":   h.mac,
			"class/net/eth0/mtu":       func() string { return "1500" },
			"class/net/eth0/operstate": func() string { return "up" },
		})
		h.tree.root.kids["sys"] = h.genTree(sys)
	}
	h.tree.root.kids["proc"] = &node{
		mode: fs.ModeDir | 0o555, mtime: now,
		look: func(name string) *node {
			if n := fixed[name]; n != nil {
				return n
			}
			pid, err := strconv.Atoi(name)
			if err != nil || strconv.Itoa(pid) != name {
				return nil
			}
			return h.procDir(pid)
		},
		list: func() []string {
			names := slices.Collect(maps.Keys(fixed))
			for _, pid := range h.pids() {
				names = append(names, strconv.Itoa(pid))
			}
			slices.Sort(names)
			return names
		},
	}
}

// plant puts a file into an ordinary directory, unless there is one.
func plant(dir *node, name string, file *node) {
	first, rest, nested := strings.Cut(name, "/")
	there := dir.kids[first]
	switch {
	case !nested && there == nil:
		dir.kids[first] = file
	case nested && there == nil:
		there = &node{mode: fs.ModeDir | 0o755, mtime: file.mtime, kids: map[string]*node{}}
		dir.kids[first] = there
		plant(there, rest, file)
	case nested && there.kids != nil:
		plant(there, rest, file)
	}
}

func (h *Host) genFile(text func() string) *node {
	return &node{mode: 0o444, mtime: time.Now(), gen: func() []byte { return []byte(text()) }}
}

func dirOf(kids map[string]*node) *node {
	return &node{
		mode: fs.ModeDir | 0o555, mtime: time.Now(),
		look: func(name string) *node { return kids[name] },
		list: func() []string { return slices.Sorted(maps.Keys(kids)) },
	}
}

// What the one disk of every host is.
const (
	diskBlocks = 40 << 20 // of 1 KiB
	diskUUID   = "1114fe9e-2309-4580-b183-d778e6d97397"
)

// genTree makes directories of files that are made at every read. Each gets a
// line feed at its end.
func (h *Host) genTree(files map[string]func() string) *node {
	kids := map[string]*node{}
	deeper := map[string]map[string]func() string{}
	for name, text := range files {
		dir, rest, nested := strings.Cut(name, "/")
		if !nested {
			kids[name] = h.genFile(func() string { return text() + "\n" })
			continue
		}
		if deeper[dir] == nil {
			deeper[dir] = map[string]func() string{}
		}
		deeper[dir][rest] = text
	}
	for dir, files := range deeper {
		kids[dir] = h.genTree(files)
	}
	return dirOf(kids)
}

// mac is the hardware address of eth0, made of the private address.
func (h *Host) mac() string {
	a, err := netip.ParseAddr(h.spec.Addr)
	if err != nil || !a.Is4() {
		return "00:16:3e:00:00:01"
	}
	b := a.As4()
	return fmt.Sprintf("00:16:3e:%02x:%02x:%02x", b[1], b[2], b[3])
}

// uptime is in seconds of the world.
func (h *Host) uptime() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	up := time.Since(h.bootTime).Seconds() * h.o.Speed
	return fmt.Sprintf("%.2f %.2f\n", up, up*1.9)
}

// procDir is /proc/PID as it is at the moment of each look.
func (h *Host) procDir(pid int) *node {
	h.mu.Lock()
	p := h.procs[pid]
	if p == nil {
		h.mu.Unlock()
		return nil
	}
	uid, gid := p.cred.uid, p.cred.gid
	exe, nat := p.exe != "", p.nat != nil
	h.mu.Unlock()
	return &node{
		mode: fs.ModeDir | 0o555, uid: uid, gid: gid, mtime: p.start,
		look: func(name string) *node { return h.procFile(p, name) },
		list: func() []string {
			names := []string{"cgroup", "cmdline", "comm", "cwd", "environ"}
			if exe {
				names = append(names, "exe")
			}
			names = append(names, "fd", "limits")
			if nat {
				names = append(names, "net")
			}
			return append(names, "root", "stat", "status")
		},
	}
}

// procFile is one file of /proc/PID; nil when there is none.
func (h *Host) procFile(p *process, name string) *node {
	h.mu.Lock()
	defer h.mu.Unlock()
	uid, gid := p.cred.uid, p.cred.gid
	kernel := len(p.args) == 0 && p.title == ""
	file := func(mode fs.FileMode, text string) *node {
		return &node{mode: mode, uid: uid, gid: gid, mtime: p.start, gen: func() []byte { return []byte(text) }}
	}
	link := func(target string) *node {
		return &node{mode: fs.ModeSymlink | 0o777, uid: uid, gid: gid, mtime: p.start, link: target, private: true}
	}
	comm := p.comm()
	if kernel {
		comm = "kthreadd"
	}
	switch name {
	case "status":
		return file(0o444, procStatus(comm, p.pid, p.ppid, uid, gid, kernel))
	case "cmdline":
		cmdline := strings.Join(p.args, "\x00")
		if cmdline != "" {
			cmdline += "\x00"
		}
		if p.title != "" {
			cmdline = p.title + "\x00"
		}
		return file(0o444, cmdline)
	case "comm":
		return file(0o644, comm+"\n")
	case "limits":
		return file(0o444, procLimits)
	case "environ":
		if kernel {
			return file(0o400, "")
		}
		return file(0o400, p.environ())
	case "cgroup":
		return file(0o444, procCgroup(p.unit))
	case "stat":
		return file(0o444, procStat(comm, p.pid, p.ppid, p.start.Sub(h.bootTime).Seconds()*h.o.Speed))
	case "cwd":
		return link(p.cwd)
	case "root":
		return link("/")
	case "exe":
		if p.exe == "" {
			return nil
		}
		return link(p.exe)
	case "net":
		if nat := p.nat; nat != nil {
			return dirOf(map[string]*node{
				"tcp":  h.genFile(func() string { return h.netTCP(false, nat) }),
				"tcp6": h.genFile(func() string { return h.netTCP(true, nat) }),
			})
		}
		return nil
	case "fd":
		fds := map[string]*node{}
		if !kernel {
			for _, n := range []string{"0", "1", "2"} {
				fds[n] = link("/dev/null")
			}
		}
		for i, s := range p.service {
			fds[strconv.Itoa(3+i)] = link(fmt.Sprintf("socket:[%d]", s.inode))
		}
		if len(p.args) > 0 && p.unit == "sshd.service" && p.ppid == 1 {
			fds["3"], fds["4"] = link(fmt.Sprintf("socket:[%d]", sshdInode)), link(fmt.Sprintf("socket:[%d]", sshdInode+1))
		}
		fd := dirOf(fds)
		fd.mode, fd.uid, fd.gid = fs.ModeDir|0o500, uid, gid
		return fd
	}
	return nil
}

// environ is /proc/PID/environ. Host.mu is held.
func (p *process) environ() string {
	env := p.env
	if env == nil {
		env = map[string]string{"PATH": defaultPath, "LANG": "en_US.UTF-8", "USER": p.user}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		b.WriteString(name + "=" + env[name] + "\x00")
	}
	return b.String()
}

// escapeComm writes a command name as /proc/PID/status does.
func escapeComm(s string) string {
	return strings.NewReplacer("\\", "\\\\", "\n", "\\n").Replace(s)
}

func procStatus(comm string, pid, ppid, uid, gid int, kernel bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Name:\t%s\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n", escapeComm(comm), pid, pid, ppid)
	fmt.Fprintf(&b, "Uid:\t%d\t%d\t%d\t%d\nGid:\t%d\t%d\t%d\t%d\nFDSize:\t64\nGroups:\t%d\n", uid, uid, uid, uid, gid, gid, gid, gid, gid)
	if !kernel {
		b.WriteString("VmPeak:\t  250000 kB\nVmSize:\t  250000 kB\nVmRSS:\t   40000 kB\n")
	}
	b.WriteString("Threads:\t1\n")
	if uid == 0 {
		b.WriteString("CapEff:\t0000001fffffffff\n")
	} else {
		b.WriteString("CapEff:\t0000000000000000\n")
	}
	return b.String()
}

// nrOpen is fs.nr_open: the most open files that root can ask for.
const nrOpen = 1 << 20

// procLimits is /proc/PID/limits of a process that systemd of CentOS 7 started.
const procLimits = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             15066                15066                processes 
Max open files            1024                 4096                 files     
Max locked memory         65536                65536                bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       15066                15066                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    0                    
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
`

// procCgroup is the cgroup v1 view of CentOS 7.
func procCgroup(unit string) string {
	at := "/user.slice"
	switch {
	case strings.HasPrefix(unit, "/"):
		at = unit
	case unit != "":
		at = "/system.slice/" + unit
	}
	var b strings.Builder
	for i, c := range []string{"memory", "cpuacct,cpu", "pids", "name=systemd"} {
		fmt.Fprintf(&b, "%d:%s:%s\n", 4-i, c, at)
	}
	return b.String()
}

func procStat(comm string, pid, ppid int, started float64) string {
	return fmt.Sprintf("%d (%s) S %d %d %d 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0%s\n",
		pid, comm, ppid, pid, pid, int(started*100), strings.Repeat(" 0", 28))
}

const (
	tcpHeader  = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	tcp6Header = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	udpHeader  = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             "
	udp6Header = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"

	sshdInode = firstInode - 100
)

// socketLine is one socket of /proc/net/tcp.
type socketLine struct {
	local, remote netip.AddrPort
	state         int
	uid, inode    int
}

// containerIP is the address of every container in its own network namespace.
const containerIP = "172.17.0.2"

// netTCP is /proc/net/tcp, or tcp6, of the host or, with nat, of the network
// namespace of a container: connections to a published port are translated on
// their way and show only there. As on a real host, Java and docker-proxy
// listen on a dual-stack socket: they and their connections are in tcp6.
func (h *Host) netTCP(v6 bool, nat map[int]int) string {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	var lines []socketLine
	h.mu.Lock()
	h.expireConns()
	if nat != nil && !v6 {
		for _, port := range nat {
			lines = append(lines, socketLine{netip.AddrPortFrom(any4, uint16(port)), netip.AddrPortFrom(any4, 0), 0x0A, 0, 0})
		}
	}
	if nat == nil && h.boot != nil && h.sshdPID() != 0 {
		if v6 {
			lines = append(lines, socketLine{netip.AddrPortFrom(any6, 22), netip.AddrPortFrom(any6, 0), 0x0A, 0, sshdInode + 1})
		} else {
			lines = append(lines, socketLine{netip.AddrPortFrom(any4, 22), netip.AddrPortFrom(any4, 0), 0x0A, 0, sshdInode})
		}
	}
	dual := map[int]int{}
	for port, s := range h.services {
		if nat != nil {
			break
		}
		any := any4
		if s.dual() {
			dual[port] = s.p.cred.uid
			any = any6
		}
		if s.dual() == v6 {
			lines = append(lines, socketLine{netip.AddrPortFrom(any, uint16(port)), netip.AddrPortFrom(any, 0), 0x0A, s.p.cred.uid, s.inode})
		}
	}
	for t := range h.conns {
		c := t.conn
		inside, mine := nat[c.LocalPort]
		if t.nat != (nat != nil) || nat != nil && !mine {
			continue
		}
		if nat != nil {
			c.LocalIP, c.LocalPort = containerIP, inside
		}
		uid, is6 := dual[c.LocalPort]
		if is6 != v6 {
			continue
		}
		local, err1 := netip.ParseAddr(c.LocalIP)
		remote, err2 := netip.ParseAddr(c.RemoteIP)
		if err1 != nil || err2 != nil {
			continue
		}
		if v6 {
			local, remote = netip.AddrFrom16(local.As16()), netip.AddrFrom16(remote.As16())
		}
		if s := h.services[c.LocalPort]; s != nil && nat == nil {
			uid = s.p.cred.uid
		}
		l := socketLine{netip.AddrPortFrom(local, uint16(c.LocalPort)), netip.AddrPortFrom(remote, uint16(c.RemotePort)), 0x01, uid, t.inode}
		if !t.expires.IsZero() {
			l.state, l.uid, l.inode = 0x06, 0, 0
		}
		lines = append(lines, l)
	}
	h.mu.Unlock()
	slices.SortFunc(lines, func(a, b socketLine) int {
		return cmp.Or(-cmp.Compare(a.state, b.state), a.local.Compare(b.local), a.remote.Compare(b.remote))
	})
	header := tcpHeader
	if v6 {
		header = tcp6Header
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%-149s\n", header)
	for i, l := range lines {
		timer, tail := "00:00000000", "1 0000000000000000 100 0 0 10 0"
		switch l.state {
		case 0x01:
			tail = "1 0000000000000000 20 4 30 10 -1"
		case 0x06:
			timer, tail = "03:000009A4", "3 0000000000000000"
		}
		line := fmt.Sprintf("%4d: %s %s %02X 00000000:00000000 %s 00000000 %5d %8d %d %s",
			i, hexAddr(l.local), hexAddr(l.remote), l.state, timer, l.uid, 0, l.inode, tail)
		fmt.Fprintf(&out, "%-149s\n", line)
	}
	return out.String()
}

// hexAddr is an address as the kernel of a little-endian machine prints it:
// each 32 bit word in host order.
func hexAddr(a netip.AddrPort) string {
	var b strings.Builder
	raw := a.Addr().AsSlice()
	for i := 0; i < len(raw); i += 4 {
		fmt.Fprintf(&b, "%08X", binary.LittleEndian.Uint32(raw[i:]))
	}
	return fmt.Sprintf("%s:%04X", b.String(), a.Port())
}

// dual reports whether the service listens on [::]. Host.mu is held.
func (s *service) dual() bool {
	c := s.p.comm()
	return c == "java" || c == "docker-proxy"
}

// sshdPID is the pid of the SSH server, 0 when it does not run. Host.mu is
// held.
func (h *Host) sshdPID() int {
	for pid, p := range h.procs {
		if p.unit == "sshd.service" && p.ppid == 1 && !p.gone {
			return pid
		}
	}
	return 0
}
