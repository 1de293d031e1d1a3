package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// ErrNoNginx means that the host has no nginx program where one was looked for:
// at Server.Binary, behind a running master, in PATH and the sbin directories.
var ErrNoNginx = errors.New("there is no nginx program")

// A Master is an nginx that runs on a host, as the process table shows it.
type Master struct {
	PID int
	// Start is when the process was started, in clock ticks after boot. PID and
	// Start together name a process for good; a PID alone is used again.
	Start uint64
	// Binary is the program file behind it, as /proc/PID/exe or, when only its
	// owner may see that, the command line has it. "" = not to be seen.
	Binary string
	// Conf, Prefix, Globals and ErrorLog are what was given with -c, -p, -g and
	// -e; "" = not given, the program's own default holds.
	Conf, Prefix, Globals, ErrorLog string
}

func (m Master) String() string {
	out := fmt.Sprintf("process %d: %s", m.PID, m.Binary)
	for _, o := range []struct{ name, value string }{{" -p ", m.Prefix}, {" -c ", m.Conf}, {" -g ", m.Globals}} {
		if o.value != "" {
			out += o.name + o.value
		}
	}
	return out
}

// An AmbiguousError says that several nginx run on the host and nothing said
// which one is meant.
type AmbiguousError struct{ Masters []Master }

func (e *AmbiguousError) Error() string {
	list := make([]string, len(e.Masters))
	for i, m := range e.Masters {
		list[i] = m.String()
	}
	return "several nginx run on this host; name the main file of one: " + strings.Join(list, "; ")
}

// ListMasters lists the nginx master processes of a host, in the order of
// their numbers. Those in containers, that is in a process namespace of their
// own, are left out: their files are not the host's. A host that hides other
// users' processes (hidepid) from the user that was logged in with gives an
// error.
func ListMasters(ctx context.Context, h Host) ([]Master, error) {
	p, err := (&Server{Host: h}).processes(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Master, 0, len(p.masters))
	for _, m := range p.masters {
		out = append(out, m.master())
	}
	return out, nil
}

// processesScript prints what the process table says about nginx: its own
// processes are named "nginx: " by ngx_setproctitle, whatever the program file
// is called. It needs nothing but a POSIX shell, readlink and /proc: ps is not
// everywhere, and its formats differ. grep goes through the titles, because a
// shell reads byte by byte; not through all at once, because a command line has
// its limit. The title comes last, because only it may hold blanks.
const processesScript = `upg_bin=$(command -v nginx) || for upg_d in /usr/local/sbin /usr/sbin /sbin /usr/local/nginx/sbin /usr/local/openresty/nginx/sbin; do
	[ -x "$upg_d/nginx" ] && { upg_bin=$upg_d/nginx; break; }
done
printf 'host %s %s %s\n' "$(id -u)" "$(readlink /proc/self/ns/pid 2>/dev/null)" "$upg_bin"
[ -d /proc/1 ] || echo hidden
for upg_i in 1 2 3 4 5 6 7 8 9; do for upg_d in $(grep -c '^nginx: ' /proc/$upg_i*/cmdline /proc/self/cmdline 2>/dev/null); do
	case $upg_d in *:0 | /proc/self/*) continue ;; esac
	upg_d=${upg_d%/cmdline:*} upg_t= upg_s=
	{ read -r upg_t <"$upg_d/cmdline"; } 2>/dev/null
	case $upg_t in "nginx: "*) ;; *) continue ;; esac
	{ read -r upg_s <"$upg_d/stat"; } 2>/dev/null
	printf 'proc %s\nexe %s\nns %s\ntitle %s\n' "$upg_s" "$(readlink "$upg_d/exe" 2>/dev/null)" "$(readlink "$upg_d/ns/pid" 2>/dev/null)" "$upg_t"
done; done
:
`

// process is a process of an nginx.
type process struct {
	pid, ppid int
	start     uint64
	exe, ns   string
	title     string
}

// processes is what processesScript found.
type processes struct {
	root            bool
	binary          string // an nginx in PATH, or ""
	masters, others []process
}

func (s *Server) processes(ctx context.Context) (*processes, error) {
	stdout, stderr, err := s.run(ctx, processesScript)
	if status, ok := exitStatus(err); ok {
		return nil, fmt.Errorf("cannot list the processes of nginx: exit status %d: %s", status, stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes of nginx: %w", err)
	}
	return parseProcesses(stdout)
}

func parseProcesses(text string) (*processes, error) {
	out := &processes{}
	var p process
	host, self := false, ""
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "host":
			fields := strings.SplitN(rest, " ", 3)
			if len(fields) != 3 {
				return nil, fmt.Errorf("internal error: the list of processes starts with %q", line)
			}
			host, self = true, fields[1]
			out.root, out.binary = fields[0] == "0", fields[2]
		case "hidden":
			return nil, errors.New("cannot see the processes of nginx: this host hides other users' processes (hidepid); log in as root")
		case "proc":
			p = parseStat(rest)
		case "exe":
			p.exe = strings.TrimSuffix(rest, " (deleted)")
		case "ns":
			p.ns = rest
		case "title":
			p.title = strings.TrimSpace(strings.ReplaceAll(rest, "\x00", " "))
			switch {
			case p.pid == 0: // it ended while it was looked at
			case p.ns != "" && self != "" && p.ns != self: // in a container
			case strings.HasPrefix(p.title, masterTitle):
				out.masters = append(out.masters, p)
			default:
				out.others = append(out.others, p)
			}
		}
	}
	if !host {
		return nil, fmt.Errorf("internal error: the list of processes is %q", text)
	}
	// A child has its master's title until it gives itself one. So has a new
	// master whose father was told to bring it up (USR2): there the pid file
	// names it.
	own := slices.Clone(out.masters)
	out.masters = slices.DeleteFunc(out.masters, func(c process) bool {
		forked := slices.ContainsFunc(own, func(m process) bool { return m.pid == c.ppid && m.pid != c.pid && m.title == c.title })
		if forked {
			out.others = append(out.others, c)
		}
		return forked
	})
	slices.SortFunc(out.masters, func(a, b process) int { return a.pid - b.pid })
	slices.SortFunc(out.others, func(a, b process) int { return a.pid - b.pid })
	return out, nil
}

const (
	masterTitle = "nginx: master process"
	workerTitle = "nginx: worker process"
)

// parseStat reads the fields of /proc/PID/stat that matter: the name in
// parentheses may hold anything, so they are counted from behind it.
func parseStat(s string) process {
	pid, _, _ := strings.Cut(s, " ")
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return process{}
	}
	var p process
	var err [3]error
	p.pid, err[0] = strconv.Atoi(pid)
	p.ppid, err[1] = strconv.Atoi(fields[1])
	p.start, err[2] = strconv.ParseUint(fields[19], 10, 64)
	if errors.Join(err[:]...) != nil {
		return process{}
	}
	return p
}

// children are the processes that a master has started, whatever they are.
func (p *processes) children(master int) []Worker {
	var out []Worker
	for _, w := range p.others {
		if w.ppid == master && w.pid != master {
			out = append(out, w.worker())
		}
	}
	return out
}

// workers are the worker processes of a master.
func (p *processes) workers(master int) []Worker {
	return slices.DeleteFunc(p.children(master), func(w Worker) bool { return !strings.HasPrefix(w.Title, workerTitle) })
}

func (p process) worker() Worker {
	return Worker{PID: p.pid, Start: p.start, Title: p.title, ShuttingDown: strings.Contains(p.title, "shutting down")}
}

// master reads the command line. ngx_setproctitle joins the words with blanks,
// so that the end of a -g is not marked: it is taken to reach to the next
// option, and nginx demands that it ends in a semicolon.
func (p process) master() Master {
	m := Master{PID: p.pid, Start: p.start, Binary: p.exe}
	words := strings.Fields(strings.TrimPrefix(p.title, masterTitle))
	if len(words) == 0 {
		return m
	}
	if m.Binary == "" && strings.HasPrefix(words[0], "/") {
		m.Binary = words[0]
	}
	for i := 1; i < len(words); i++ {
		if len(words[i]) < 2 || words[i][0] != '-' {
			continue
		}
		option := words[i][1]
		value := words[i][2:] // -cFILE is allowed as well
		if value == "" && i+1 < len(words) && strings.IndexByte("cpge", option) >= 0 {
			i++
			value = words[i]
		}
		switch option {
		case 'c':
			m.Conf = value
		case 'p':
			m.Prefix = value
		case 'e':
			m.ErrorLog = value
		case 'g':
			for i+1 < len(words) && !(strings.HasSuffix(value, ";") && isOption(words[i+1])) {
				i++
				value += " " + words[i]
			}
			m.Globals = value
		}
	}
	return m
}

func isOption(word string) bool {
	return len(word) >= 2 && word[0] == '-' && strings.IndexByte("cpge", word[1]) >= 0
}

// build is what nginx -V says of how the program was built.
type build struct{ prefix, conf, pid, errorLog string }

// parseBuild reads the output of nginx -V. Paths that were not given are those
// of nginx's own auto/options, relative to the prefix.
func parseBuild(text string) build {
	b := build{prefix: "/usr/local/nginx", conf: "conf/nginx.conf", pid: "logs/nginx.pid", errorLog: "logs/error.log"}
	for field := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(field, "=")
		if value = strings.Trim(value, `'"`); !ok || value == "" {
			continue
		}
		switch name {
		case "--prefix":
			b.prefix = value
		case "--conf-path":
			b.conf = value
		case "--pid-path":
			b.pid = value
		case "--error-log-path":
			b.errorLog = value
		}
	}
	return b
}

// An instance is an nginx on a host: which program with which files, and the
// process, if one runs.
type instance struct {
	binary, conf             string
	prefix, globals, initial string // -p, -g and -e; "" = none
	build                    build
	root                     bool
	master                   *process // nil: none found by its command line
	all                      []process
}

// command is an nginx command line that means this nginx.
func (p *instance) command(args ...string) string {
	args = append([]string{p.binary}, args...)
	if p.prefix != "" {
		args = append(args, "-p", p.prefix)
	}
	if p.globals != "" {
		args = append(args, "-g", p.globals)
	}
	return shellq.Join(append(args, "-c", p.conf)...)
}

// base is the directory that relative names in the configuration count from,
// the includes excepted.
func (p *instance) base() string {
	if p.prefix != "" {
		return p.prefix
	}
	return p.build.prefix
}

func (p *instance) absolute(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return join(p.base(), name)
}

// find says which nginx is meant: the one at Binary and Conf; what is not given
// is taken from the master that runs, else from the program.
func (s *Server) find(ctx context.Context) (*instance, error) {
	ps, err := s.processes(ctx)
	if err != nil {
		return nil, err
	}
	builds := map[string]build{}
	ask := func(binary string) (build, error) {
		if b, ok := builds[binary]; ok {
			return b, nil
		}
		_, stderr, err := s.run(ctx, shellq.Join(binary, "-V"))
		if status, ok := exitStatus(err); ok {
			if status == 126 || status == 127 {
				return build{}, fmt.Errorf("%w %s on this host: %s", ErrNoNginx, binary, stderr)
			}
			return build{}, fmt.Errorf("cannot ask %s how it was built: exit status %d: %s", binary, status, stderr)
		}
		if err != nil {
			return build{}, fmt.Errorf("cannot ask %s how it was built: %w", binary, err)
		}
		builds[binary] = parseBuild(stderr)
		return builds[binary], nil
	}
	fallback := ps.binary
	if fallback == "" {
		fallback = "nginx"
	}
	p := &instance{root: ps.root, all: append(slices.Clone(ps.masters), ps.others...)}
	// Which master reads this main file?
	var match []process
	for _, c := range ps.masters {
		m := c.master()
		if s.Conf != "" {
			conf := m.Conf
			if !strings.HasPrefix(conf, "/") {
				b, err := ask(cmpOr(m.Binary, s.Binary, fallback))
				if errors.Is(err, ErrNoNginx) {
					continue // its file is gone: the pid file will tell
				}
				if err != nil {
					return nil, err
				}
				conf = join(cmpOr(m.Prefix, b.prefix), cmpOr(conf, b.conf))
				if c := cmpOr(m.Conf, b.conf); strings.HasPrefix(c, "/") {
					conf = c
				}
			}
			if path.Clean(conf) != path.Clean(s.Conf) {
				continue
			}
		}
		match = append(match, c)
	}
	switch {
	case len(match) == 1:
		p.master = &match[0]
	case len(match) > 1 && s.Conf == "":
		e := &AmbiguousError{}
		for _, c := range match {
			e.Masters = append(e.Masters, c.master())
		}
		return nil, e
	}
	var m Master
	if p.master != nil {
		m = p.master.master()
	}
	p.binary = cmpOr(s.Binary, m.Binary, fallback)
	p.prefix, p.globals, p.initial = m.Prefix, m.Globals, m.ErrorLog
	if p.build, err = ask(p.binary); err != nil {
		return nil, err
	}
	p.conf = cmpOr(s.Conf, m.Conf, p.build.conf)
	if !strings.HasPrefix(p.conf, "/") {
		p.conf = p.absolute(p.conf)
	}
	return p, nil
}

// cmpOr returns the first of its arguments that is not empty.
func cmpOr(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// directives returns the words behind each directive of this name outside of
// all blocks, those of -g included.
func (p *instance) directives(t *Tree, name string) [][]string {
	var out [][]string
	if g, err := Parse("-g", []byte(p.globals)); err == nil {
		for d := range g.Directives() {
			if d.is(name) {
				out = append(out, d.Args())
			}
		}
	}
	t.Walk(func(c *Cursor) bool {
		if len(c.Context) == 0 && c.is(name) {
			out = append(out, c.Args())
		}
		return !c.IsBlock()
	})
	return out
}

// pidFile returns where the master process writes its number.
func (p *instance) pidFile(t *Tree) string {
	name := p.build.pid
	for _, args := range p.directives(t, "pid") {
		if len(args) == 1 {
			name = args[0]
		}
	}
	return p.absolute(name)
}

// running finds the master process: the pid file's word counts, and the
// command line's where the file is missing or stale.
func (s *Server) running(ctx context.Context, p *instance, t *Tree) (signal string, err error) {
	name := p.pidFile(t)
	stdout, _, err := s.run(ctx, "cat "+shellq.Quote(name)+" 2>/dev/null")
	if _, ran := exitStatus(err); err != nil && !ran {
		return "", fmt.Errorf("cannot read the pid file %s: %w", name, err)
	}
	why := "there is no pid file " + name
	if err == nil {
		pid, convErr := strconv.Atoi(strings.TrimSpace(stdout))
		i := slices.IndexFunc(p.all, func(c process) bool { return c.pid == pid })
		switch {
		case convErr != nil || pid <= 0:
			why = fmt.Sprintf("the pid file %s holds no number", name)
		case i < 0:
			why = fmt.Sprintf("the pid file %s names process %d, which is no nginx", name, pid)
		case !strings.HasPrefix(p.all[i].title, masterTitle):
			why = fmt.Sprintf("the pid file %s names process %d, which is no master process (%s)", name, pid, p.all[i].title)
		case p.master != nil && p.master.pid != pid:
			return "", fmt.Errorf("cannot tell which nginx is meant: the pid file %s names process %d, but %s is the one with this main file", name, pid, p.master.master())
		default:
			p.master = &p.all[i]
			return p.command("-s", "reload"), nil
		}
	}
	if p.master == nil {
		return "", fmt.Errorf("%w: %s", ErrNotRunning, why)
	}
	// It runs all the same. nginx -s would go by the pid file.
	return fmt.Sprintf("kill -HUP %d", p.master.pid), nil
}

// copyOut drops what a command prints beyond n bytes, and remembers that it did.
type copyOut struct {
	b    strings.Builder
	n    int
	full bool
}

func (c *copyOut) Write(p []byte) (int, error) {
	room := c.n - c.b.Len()
	if room < len(p) {
		c.full = true
	}
	c.b.Write(p[:max(0, min(room, len(p)))])
	return len(p), nil
}

// runAll runs a command of whose standard output nothing may be missing.
func (s *Server) runAll(ctx context.Context, cmd string, n int) (string, string, error) {
	out, errOut := &copyOut{n: n}, &limited{}
	err := s.Host.Run(ctx, cmd, nil, out, io.Writer(errOut))
	if err == nil && out.full {
		err = fmt.Errorf("the answer is longer than %d bytes", n)
	}
	return out.b.String(), strings.TrimSpace(errOut.b.String()), err
}
