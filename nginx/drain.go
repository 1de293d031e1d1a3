package nginx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A DrainPolicy says what WaitDrained does when its deadline has passed.
type DrainPolicy string

// The policies of WaitDrained at the deadline.
const (
	// DrainError gives up with a *NotDrainedError. Nothing is cut. It is what
	// the zero value means.
	DrainError DrainPolicy = "error"
	// DrainHold waits on until the context ends. Nothing is cut.
	DrainHold DrainPolicy = "hold"
	// DrainForce ends the old workers (SIGTERM, and SIGKILL for those that do not
	// obey within 5 s): their sessions are cut, no others.
	DrainForce DrainPolicy = "force"
)

// DrainOptions say what WaitDrained waits for.
type DrainOptions struct {
	// Old are the workers from before the reload: Applied.Old, Reloaded.Old.
	// nil = the workers that are shutting down when the call begins.
	Old []Worker
	// Address is a server, 172.31.0.90, 172.31.0.90:8080 or [fd00::5]:8080: when
	// it is given, old workers need not be gone, it is enough that for Quiet none
	// had a connection to it. An old worker takes no new client, but can still
	// open a connection for the request it reads.
	Address string
	Quiet   time.Duration // 0 = 10 s
	// Timeout is when Policy comes into force. 0 = never: the context alone ends
	// the wait.
	Timeout time.Duration
	Policy  DrainPolicy // "" = error
	// Interval is the time between two looks. 0 = 1 s.
	Interval time.Duration
	// Progress is called after each look that is not the last, from the goroutine
	// of WaitDrained.
	Progress func(Drained)
}

// Drained is what WaitDrained saw last.
type Drained struct {
	Waited time.Duration
	// Workers are the old ones that are left. None: they are gone.
	Workers []Worker
	// Connections are those of old workers to Address, in every state that can
	// still carry bytes; without an Address they are not looked at.
	Connections []Connection
	// Others is how many connections to Address this host has besides: of new
	// workers and of other programs.
	Others int
	// Unseen says what could not be looked at, and so does not count as drained;
	// "" = everything was seen.
	Unseen string
	// ShutdownTimeout is the worker_shutdown_timeout of the configuration as it
	// is now: after it nginx cuts the old workers' connections by itself. 0 = none
	// is set, and a stream or WebSocket keeps its worker without limit. An old
	// worker goes by the value it was started with.
	ShutdownTimeout time.Duration
	// Forced says that the policy ended workers.
	Forced bool
}

// A Connection is a TCP connection of an old worker.
type Connection struct {
	Local, Remote netip.AddrPort
	PID           int // of the worker
}

func (d Drained) String() string {
	out := fmt.Sprintf("%d old workers left", len(d.Workers))
	if len(d.Workers) == 0 {
		out = "the old workers are gone"
	}
	if len(d.Connections) > 0 {
		out += fmt.Sprintf(", %d connections (%s first)", len(d.Connections), d.Connections[0].Remote)
	}
	if d.Unseen != "" {
		out += "; " + d.Unseen
	}
	return out
}

// A NotDrainedError says that old workers or their connections were left when
// the wait ended.
type NotDrainedError struct {
	Drained
	Policy DrainPolicy
	Err    error // the context's error, or nil when the deadline passed
}

func (e *NotDrainedError) Error() string {
	msg := fmt.Sprintf("not drained after %v: %v", e.Waited.Round(time.Second), e.Drained)
	switch {
	case e.ShutdownTimeout > 0:
		msg += fmt.Sprintf("; worker_shutdown_timeout is %v", e.ShutdownTimeout)
	case len(e.Workers) > 0:
		msg += "; no worker_shutdown_timeout is set, so they may stay as long as their clients do"
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap returns the context's error.
func (e *NotDrainedError) Unwrap() error { return e.Err }

const (
	// obeyTime is how long a worker may take to end after a signal.
	obeyTime     = 5 * time.Second
	defaultQuiet = 10 * time.Second
	// maxConnections bounds the lists of sockets, in bytes.
	maxConnections = 64 << 20
)

// WaitDrained blocks until what the running nginx served before a reload has
// ended: the old workers are gone, or none of them talks to the address. After a
// reload nginx keeps an old worker for as long as a client keeps a stream, a
// WebSocket or a long answer open, and such a worker goes on talking to servers
// that the configuration no longer names. At the deadline the policy decides.
// Cancelling ctx ends the wait with a *NotDrainedError that wraps its error.
//
// Whose a connection is only root and the workers' own user may see: for anybody
// else an address is silent when the old workers are gone, not before, and
// Drained.Unseen says so. The connections are read with ss, or from
// /proc/PID/net/tcp and tcp6 of the worker where ss is missing or the worker has
// a network of its own.
func (s *Server) WaitDrained(ctx context.Context, o DrainOptions) (*Drained, error) {
	addr, port, err := parseDrainAddress(o.Address)
	if err != nil {
		return nil, err
	}
	switch o.Policy {
	case "":
		o.Policy = DrainError
	case DrainError, DrainHold, DrainForce:
	default:
		return nil, fmt.Errorf("cannot wait until nginx is drained: %q is no policy; it is error, hold or force", o.Policy)
	}
	quiet, interval := o.Quiet, o.Interval
	if quiet <= 0 {
		quiet = defaultQuiet
	}
	if interval <= 0 {
		interval = time.Second
	}
	start := time.Now()
	d := &Drained{}
	if o.Old == nil {
		l, _, err := s.look(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot wait until nginx is drained: %w", err)
		}
		d.ShutdownTimeout = l.shutdownTimeout(l.tree)
		for _, w := range l.workers() {
			if w.ShuttingDown {
				o.Old = append(o.Old, w)
			}
		}
	} else if p, err := s.find(ctx); err == nil {
		// Only for the report: the nginx may be gone meanwhile.
		if t, err := Load(ctx, hostFS{s.Host}, p.conf); err == nil {
			d.ShutdownTimeout = p.shutdownTimeout(t)
		}
	}
	var deadline, kill time.Time
	if o.Timeout > 0 {
		deadline = start.Add(o.Timeout)
	}
	silent := time.Time{} // since when no old worker talks to the address
	for {
		err := s.drained(ctx, d, o.Old, addr, port)
		d.Waited = time.Since(start)
		if ctx.Err() != nil {
			return nil, &NotDrainedError{*d, o.Policy, ctx.Err()}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot see whether nginx is drained: %w", err)
		}
		if len(d.Workers) == 0 {
			return d, nil
		}
		now := time.Now()
		if o.Address == "" || d.Unseen != "" || len(d.Connections) > 0 {
			silent = time.Time{}
		} else if silent.IsZero() {
			silent = now
		} else if now.Sub(silent) >= quiet {
			return d, nil
		}
		if !deadline.IsZero() && !now.Before(deadline) {
			switch {
			case o.Policy == DrainError:
				return nil, &NotDrainedError{*d, o.Policy, nil}
			case o.Policy == DrainForce && kill.IsZero():
				if err := s.end(ctx, d.Workers, "TERM"); err != nil {
					return nil, err
				}
				d.Forced, kill = true, now.Add(obeyTime)
			case o.Policy == DrainForce && now.After(kill.Add(obeyTime)):
				return nil, &NotDrainedError{*d, o.Policy, nil}
			case o.Policy == DrainForce && now.After(kill):
				if err := s.end(ctx, d.Workers, "KILL"); err != nil {
					return nil, err
				}
			}
		}
		if o.Progress != nil {
			o.Progress(*d)
		}
		pause := interval
		if left := deadline.Sub(now); !deadline.IsZero() && left > 0 {
			pause = min(pause, left)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			d.Waited = time.Since(start)
			return nil, &NotDrainedError{*d, o.Policy, ctx.Err()}
		}
	}
}

func parseDrainAddress(s string) (addr netip.Addr, port int, err error) {
	if s == "" {
		return addr, 0, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap.Addr().Unmap(), int(ap.Port()), nil
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && addr.Zone() == "" {
		return addr.Unmap(), 0, nil
	}
	return addr, 0, fmt.Errorf("cannot wait until nginx is drained: %q is neither an IP address nor one with a port", s)
}

// shutdownTimeout is the value of worker_shutdown_timeout, or 0.
func (p *instance) shutdownTimeout(t *Tree) time.Duration {
	for _, args := range p.directives(t, "worker_shutdown_timeout") {
		if len(args) == 1 {
			return parseTime(args[0])
		}
	}
	return 0
}

// parseTime reads nginx's notation of a time (ngx_parse_time): numbers with the
// units y M w d h m s ms, blanks between them allowed, a bare number being
// seconds. What it cannot read is 0: nginx has refused it.
func parseTime(s string) time.Duration {
	units := []timeUnit{{"ms", time.Millisecond}, {"y", 365 * day}, {"M", 30 * day}, {"w", 7 * day}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	var total time.Duration
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ") {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		value, err := strconv.ParseInt(s[:n], 10, 32)
		if err != nil {
			return 0
		}
		s = s[n:]
		unit := timeUnit{"", time.Second}
		if i := slices.IndexFunc(units, func(u timeUnit) bool { return strings.HasPrefix(s, u.name) }); i >= 0 {
			unit = units[i]
		} else if s != "" && s[0] != ' ' {
			return 0
		}
		s = s[len(unit.name):]
		total += time.Duration(value) * unit.d
	}
	return total
}

const day = 24 * time.Hour

type timeUnit struct {
	name string
	d    time.Duration
}

// startScript reads when a process was started, from the line of its stat.
const startScript = `upg_start() { set -- ${1##*) }; echo "${20}"; }
`

// drainScript lists the sockets of the old workers that still are the processes
// they were, and the connections that may be theirs. $1 is ss's filter, $2 the
// pattern for /proc/net/tcp, both "" to leave connections alone; each further
// argument is PID:START.
const drainScript = startScript + `upg_drain() {
	upg_filter=$1 upg_grep=$2 upg_net=
	shift 2
	for upg_w; do
		upg_p=${upg_w%:*} upg_s=
		{ read -r upg_s <"/proc/$upg_p/stat"; } 2>/dev/null || continue
		case ${upg_s##*) } in Z*) continue ;; esac
		[ "$(upg_start "$upg_s")" = "${upg_w#*:}" ] || continue
		echo "old $upg_p"
		upg_net=$upg_p
		[ -n "$upg_filter" ] || continue
		if ls "/proc/$upg_p/fd/" >/dev/null 2>&1; then
			ls -l "/proc/$upg_p/fd/" 2>/dev/null | grep -o 'socket:\[[0-9]*\]' | sed "s/^socket:\[/fd $upg_p /;s/\]//"
		else
			echo "nofd $upg_p"
		fi
	done
	[ -n "$upg_net" ] && [ -n "$upg_filter" ] || return 0
	if command -v ss >/dev/null 2>&1 && [ "$(readlink "/proc/$upg_net/ns/net" 2>/dev/null)" = "$(readlink /proc/self/ns/net)" ]; then
		if upg_ss=$(ss -tne "$upg_filter"); then
			printf '%s\n' "$upg_ss" | sed 's/^/ss /'
			return 0
		fi
	fi
	[ -r "/proc/$upg_net/net/tcp" ] || { echo notable; return 0; }
	cat "/proc/$upg_net/net/tcp" "/proc/$upg_net/net/tcp6" 2>/dev/null | grep -E "$upg_grep" | sed 's/^ */tcp /'
	return 0
}
`

// drained looks once.
func (s *Server) drained(ctx context.Context, d *Drained, old []Worker, addr netip.Addr, port int) error {
	d.Workers, d.Connections, d.Others, d.Unseen = nil, nil, 0, ""
	if len(old) == 0 {
		return nil
	}
	filter, pattern := "", ""
	if addr.IsValid() {
		filter = "dst " + addr.String()
		if addr.Is6() {
			filter = "dst [" + addr.String() + "]"
		}
		hexPort := "[0-9A-F]{4}"
		if port != 0 {
			filter += ":" + strconv.Itoa(port)
			hexPort = fmt.Sprintf("%04X", port)
		}
		pattern = "^ *[0-9]+: [0-9A-F]+:[0-9A-F]{4} (" + strings.Join(procAddresses(addr), "|") + "):" + hexPort + " "
	}
	args := []string{"upg_drain", filter, pattern}
	for _, w := range old {
		args = append(args, fmt.Sprintf("%d:%d", w.PID, w.Start))
	}
	stdout, stderr, err := s.runAll(ctx, drainScript+shellq.Join(args...), maxConnections)
	if status, ok := exitStatus(err); ok {
		return fmt.Errorf("exit status %d: %s", status, stderr)
	}
	if err != nil {
		return err
	}
	owner := map[uint64]int{}
	var conns []socket
	for line := range strings.Lines(stdout) {
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		switch kind {
		case "old":
			pid, _ := strconv.Atoi(rest)
			i := slices.IndexFunc(old, func(w Worker) bool { return w.PID == pid })
			if i < 0 {
				return fmt.Errorf("internal error: the list of old workers holds %q", line)
			}
			d.Workers = append(d.Workers, old[i])
		case "fd":
			pid, inode, _ := strings.Cut(rest, " ")
			p, err1 := strconv.Atoi(pid)
			n, err2 := strconv.ParseUint(inode, 10, 64)
			if errors.Join(err1, err2) != nil {
				return fmt.Errorf("internal error: the list of sockets holds %q", line)
			}
			owner[n] = p
		case "nofd":
			d.Unseen = "whose the connections are can only root see"
		case "notable":
			d.Unseen = "the connections cannot be listed: there is neither ss nor a readable /proc/PID/net/tcp"
		case "ss":
			if c, ok := parseSS(rest); ok {
				conns = append(conns, c)
			}
		case "tcp":
			if c, ok := parseProcTCP(rest); ok {
				conns = append(conns, c)
			}
		}
	}
	for _, c := range conns {
		if c.remote.Addr() != addr || port != 0 && int(c.remote.Port()) != port {
			continue
		}
		if pid, ours := owner[c.inode]; ours && c.inode != 0 {
			d.Connections = append(d.Connections, Connection{c.local, c.remote, pid})
		} else {
			d.Others++
		}
	}
	return nil
}

// end signals workers that still are the processes they were.
func (s *Server) end(ctx context.Context, workers []Worker, signal string) error {
	script := startScript + `upg_end() {
	upg_s=
	{ read -r upg_s <"/proc/$1/stat"; } 2>/dev/null || return 0
	[ "$(upg_start "$upg_s")" = "$2" ] && kill -` + signal + ` "$1"
}
` + s.guard("")
	for _, w := range workers {
		script += fmt.Sprintf("upg_end %d %d\n", w.PID, w.Start)
	}
	_, stderr, err := s.run(ctx, script+":")
	if status, ok := exitStatus(err); ok && status == statusGuard && s.Guard != "" {
		return &GuardError{What: "end the old workers of nginx", Output: stderr}
	}
	if err != nil {
		return fmt.Errorf("cannot end the old workers of nginx: %w: %s", err, stderr)
	}
	return nil
}

// socket is a line of a list of connections.
type socket struct {
	local, remote netip.AddrPort
	inode         uint64
}

// parseSS reads a line of ss -tne: state, queues, both ends, and ino:NUMBER
// among what follows. A header line has no address.
func parseSS(line string) (socket, bool) {
	f := strings.Fields(line)
	if len(f) < 5 || f[0] == "TIME-WAIT" {
		return socket{}, false
	}
	local, ok1 := parseSSAddr(f[3])
	remote, ok2 := parseSSAddr(f[4])
	c := socket{local: local, remote: remote}
	for _, field := range f[5:] {
		if n, ok := strings.CutPrefix(field, "ino:"); ok {
			c.inode, _ = strconv.ParseUint(n, 10, 64)
		}
	}
	return c, ok1 && ok2
}

// parseSSAddr reads 10.0.0.1:80, [::1]:80, 10.0.0.1%eth0:80 and ::1:80, which
// old versions print without brackets.
func parseSSAddr(s string) (netip.AddrPort, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, false
	}
	host, _, _ := strings.Cut(strings.Trim(s[:i], "[]"), "%")
	addr, err := netip.ParseAddr(strings.TrimSuffix(host, "]"))
	port, err2 := strconv.ParseUint(s[i+1:], 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), err == nil && err2 == nil
}

// procAddresses are the forms of an address in /proc/net/tcp and tcp6, in which
// every four bytes stand in the order of the machine: little-endian on all
// machines that Alibaba Cloud has.
func procAddresses(a netip.Addr) []string {
	word := func(b []byte) string { return fmt.Sprintf("%02X%02X%02X%02X", b[3], b[2], b[1], b[0]) }
	if a.Is4() {
		b := a.As4()
		return []string{word(b[:]), "0000000000000000FFFF0000" + word(b[:])}
	}
	b := a.As16()
	return []string{word(b[0:]) + word(b[4:]) + word(b[8:]) + word(b[12:])}
}

// parseProcTCP reads a line of /proc/net/tcp or tcp6. Listeners, and what waits
// for stray packets after its end, are none.
func parseProcTCP(line string) (socket, bool) {
	f := strings.Fields(line)
	const listening, timeWait, closed = "0A", "06", "07"
	if len(f) < 10 || f[3] == listening || f[3] == timeWait || f[3] == closed {
		return socket{}, false
	}
	local, ok1 := parseProcAddr(f[1])
	remote, ok2 := parseProcAddr(f[2])
	inode, err := strconv.ParseUint(f[9], 10, 64)
	return socket{local, remote, inode}, ok1 && ok2 && err == nil
}

func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	b := make([]byte, 0, 16)
	for i := 0; i < len(host); i += 8 {
		w, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), true
}
