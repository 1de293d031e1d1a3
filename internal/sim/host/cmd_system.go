package host

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

func cmdTrue(context.Context, *Proc) int  { return 0 }
func cmdFalse(context.Context, *Proc) int { return 1 }

func cmdSleep(ctx context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 1 {
		return p.refusef("needs one number")
	}
	s, err := strconv.ParseFloat(f.rest[0], 64)
	if err != nil || s < 0 {
		return p.refusef("interval %s", f.rest[0])
	}
	if p.Host.sleep(ctx, time.Duration(s*float64(time.Second))) != nil {
		return 143
	}
	return 0
}

func cmdDate(_ context.Context, p *Proc) int {
	if len(p.Args) != 2 || !strings.HasPrefix(p.Args[1], "+") {
		return p.refusef("only +FORMAT")
	}
	now := time.Now().UTC()
	line := strings.NewReplacer("%s", strconv.FormatInt(now.Unix(), 10), "%Y", now.Format("2006"), "%m", now.Format("01"), "%d", now.Format("02"),
		"%H", now.Format("15"), "%M", now.Format("04"), "%S", now.Format("05"), "%F", now.Format("2006-01-02"), "%T", now.Format("15:04:05")).Replace(p.Args[1][1:])
	if strings.Contains(line, "%") {
		return p.refusef("format %s", p.Args[1])
	}
	fmt.Fprintln(p.Stdout, line)
	return 0
}

func cmdID(_ context.Context, p *Proc) int {
	f, ok := p.flags("-u", "-n")
	if !ok {
		return statusUnknownFlag
	}
	switch {
	case !f.is["-u"] || len(f.rest) > 0:
		return p.refusef("only -u and -un")
	case f.is["-n"]:
		fmt.Fprintln(p.Stdout, p.p.user)
	default:
		fmt.Fprintln(p.Stdout, p.p.cred.uid)
	}
	return 0
}

func cmdHostname(_ context.Context, p *Proc) int {
	if len(p.Args) > 1 {
		return p.refusef("arguments")
	}
	name, _ := p.Host.ReadFile("/etc/hostname")
	fmt.Fprintln(p.Stdout, strings.TrimSpace(string(name)))
	return 0
}

func cmdUname(_ context.Context, p *Proc) int {
	f, ok := p.flags("-r", "-n", "-m", "-s")
	if !ok {
		return statusUnknownFlag
	}
	var out []string
	for _, w := range []struct{ flag, text string }{
		{"-s", "Linux"}, {"-n", p.Host.spec.Hostname}, {"-r", p.Host.Kernel()}, {"-m", "x86_64"},
	} {
		if f.is[w.flag] || len(f.is) == 0 && w.flag == "-s" {
			out = append(out, w.text)
		}
	}
	fmt.Fprintln(p.Stdout, strings.Join(out, " "))
	return 0
}

func cmdEnv(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "-i")
	if !ok {
		return statusUnknownFlag
	}
	env := maps.Clone(p.Env)
	if f.is["-i"] {
		env = map[string]string{}
	}
	rest := f.rest
	for len(rest) > 0 {
		name, value, has := strings.Cut(rest[0], "=")
		if !has {
			break
		}
		env[name] = value
		rest = rest[1:]
	}
	if len(rest) > 0 {
		p.Env = env
		return p.Host.execute(ctx, p, rest)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(p.Stdout, "%s=%s\n", name, env[name])
	}
	return 0
}

// cmdSh is sh -c TEXT, sh -s, sh FILE and sh, with -e and -u.
func cmdSh(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "-c", "-s", "-e", "-u")
	if !ok {
		return statusUnknownFlag
	}
	var opts []string
	for _, o := range []string{"-e", "-u"} {
		if f.is[o] {
			opts = append(opts, o)
		}
	}
	name, src, params := "sh", "", f.rest
	switch {
	case f.is["-c"]:
		if len(f.rest) == 0 {
			return p.failf(2, "-c: option requires an argument")
		}
		src, params = f.rest[0], f.rest[1:]
		if len(params) > 0 {
			name, params = params[0], params[1:]
		}
	case f.is["-s"] || len(f.rest) == 0:
		in, done := p.input(ctx)
		data, err := io.ReadAll(in)
		done()
		if err != nil {
			return p.failf(2, "cannot read standard input: %v", err)
		}
		src, p.Stdin = string(data), noInput{}
	default:
		name, params = f.rest[0], f.rest[1:]
		data, err := p.tree().readFile(p.p.cred, p.abs(name))
		if err != nil {
			return p.failf(127, "%s: %s", name, errText(err))
		}
		src = string(data)
	}
	return p.Host.runShell(ctx, p, src, name, params, opts)
}

func cmdKill(_ context.Context, p *Proc) int { return p.kill(p.Args[1:]) }

// kill is kill [-0|-SIGNAL] PID…
func (p *Proc) kill(args []string) int {
	name := "TERM"
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--" {
		name = strings.TrimPrefix(strings.TrimPrefix(args[0], "-"), "SIG")
		args = args[1:]
		for known, n := range signals {
			if name == strconv.Itoa(n) {
				name = known
			}
		}
		if _, ok := signals[name]; !ok && name != "0" {
			p.Host.refuse("kill -"+name, "unknown signal")
			fmt.Fprintf(p.Stderr, "sh: kill: %s: not simulated\n", name)
			return statusUnknownFlag
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(p.Stderr, "sh: kill: usage: kill [-signal] pid")
		return 2
	}
	status := 0
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil || pid <= 0 {
			p.Host.refuse("kill "+a, "only process ids")
			fmt.Fprintf(p.Stderr, "sh: kill: %s: not simulated\n", a)
			return statusUnknownFlag
		}
		target := p.Host.process(pid)
		switch {
		case target == nil:
			fmt.Fprintf(p.Stderr, "sh: kill: (%d) - No such process\n", pid)
			status = 1
		case p.p.cred.uid != 0 && p.p.cred.uid != target.cred.uid:
			fmt.Fprintf(p.Stderr, "sh: kill: (%d) - Operation not permitted\n", pid)
			status = 1
		case name != "0":
			target.signal(name)
		}
	}
	return status
}

// cmdSetsid runs a command in a session of its own. As jobs outlive their
// shell here anyway, only the process remains to be done.
// cmdNohup is setsid with output to nohup.out only on a terminal, which never
// is one here.
func cmdNohup(ctx context.Context, p *Proc) int { return p.wrap(ctx) }

func (p *Proc) wrap(ctx context.Context) int {
	f, ok := p.flags("+")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) == 0 {
		return p.failf(125, "missing operand")
	}
	return p.Host.execute(ctx, p, f.rest)
}

func cmdSu(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-s=", "-c=")
	if !ok {
		return statusUnknownFlag
	}
	cmd, has := f.val["-c"]
	shell := f.val["-s"]
	if !has || len(f.rest) != 1 || shell != "" && shell != "/bin/sh" && shell != "/bin/bash" {
		return p.refusef("only su [-s /bin/sh] USER -c COMMAND")
	}
	return p.as(ctx, f.rest[0], []string{"/bin/sh", "-c", cmd})
}

func cmdRunuser(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "-u=")
	if !ok {
		return statusUnknownFlag
	}
	user, has := f.val["-u"]
	if !has || len(f.rest) == 0 {
		return p.refusef("only runuser -u USER -- COMMAND")
	}
	return p.as(ctx, user, f.rest)
}

// as runs a command as another user, in a process of its own.
func (p *Proc) as(ctx context.Context, user string, args []string) int {
	a, ok := p.Host.account(user)
	switch {
	case !ok:
		return p.failf(1, "user %s does not exist", user)
	case p.p.cred.uid != 0:
		return p.failf(1, "Permission denied")
	}
	c := &process{ppid: p.PID, user: user, cred: a.cred, args: args, cwd: p.Dir, unit: p.p.unit}
	p.Host.fork(p.p.boot, ctx, c)
	q := *p
	q.p, q.PID, q.User, q.Env = c, c.pid, user, maps.Clone(p.Env)
	q.Env["USER"], q.Env["LOGNAME"], q.Env["HOME"] = user, user, a.home
	status := c.statusAfter(p.Host.execute(c.ctx, &q, args))
	c.end(status)
	return status
}

// cmdShutdown is shutdown -r now and shutdown -h now: it returns at once, the
// host goes down a moment later.
func cmdShutdown(_ context.Context, p *Proc) int {
	f, ok := p.flags("-r", "-h")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 1 || f.rest[0] != "now" || len(f.is) != 1 {
		return p.refusef("only shutdown -r now and shutdown -h now")
	}
	if p.p.cred.uid != 0 {
		return p.failf(1, "Need to be root")
	}
	h := p.Host
	h.mu.Lock()
	b, closed := h.boot, h.closed
	h.mu.Unlock()
	if b == nil || closed {
		return 1
	}
	again := f.is["-r"]
	h.async.Go(func() {
		t := time.NewTimer(h.scale(time.Second))
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.ctx.Done():
			return // somebody was faster
		}
		h.power.Lock()
		defer h.power.Unlock()
		h.mu.Lock()
		same, closed := h.boot == b, h.closed
		h.mu.Unlock()
		if !same || closed {
			return
		}
		h.stop(true)
		if again {
			_ = h.start() // fails only when the host was closed meanwhile
		}
	})
	return 0
}

// javaPorts finds the port options of a Java command line.
func javaPorts(args []string) []int {
	var ports []int
	for _, a := range args {
		for _, prefix := range []string{"--server.port=", "-Dserver.port="} {
			if v, ok := strings.CutPrefix(a, prefix); ok {
				if n, ok := number(v); ok && n > 0 && n < 65536 {
					ports = append(ports, n)
				}
			}
		}
	}
	return ports
}

// javaWarmup is from start to answering; for the first part nothing listens.
const (
	javaWarmup = 8 * time.Second
	javaListen = 5 * time.Second
)

// cmdJava is a Java service: it runs in the foreground, listens after a while
// on its server.port, and goes on until it is killed.
func cmdJava(ctx context.Context, p *Proc) int {
	jar := ""
	for i, a := range p.Args[1:] {
		if a == "-jar" && i+2 < len(p.Args) {
			jar = p.Args[i+2]
		}
	}
	if jar == "" {
		return p.refusef("java without -jar")
	}
	if _, err := p.tree().stat(p.p.cred, p.abs(jar), true); err != nil {
		fmt.Fprintf(p.Stderr, "Error: Unable to access jarfile %s\n", jar)
		return 1
	}
	h := p.Host
	h.mu.Lock()
	p.p.cwd = p.Dir
	h.mu.Unlock()
	name := strings.TrimSuffix(path.Base(jar), ".jar")
	fmt.Fprintf(p.Stdout, "Starting %s on %s with PID %d\n", name, h.spec.Hostname, p.PID)
	if h.sleep(ctx, javaListen) != nil {
		return 143
	}
	for _, port := range javaPorts(p.Args) {
		if err := h.listen(p.p, port, h.app(name, port, h.scale(javaWarmup-javaListen))); err != nil {
			fmt.Fprintf(p.Stderr, "Web server failed to start. Port %d was already in use.\n", port)
			return 1
		}
	}
	if h.sleep(ctx, javaWarmup-javaListen) == nil {
		fmt.Fprintf(p.Stdout, "Started %s in %.1f seconds\n", name, javaWarmup.Seconds())
	}
	<-ctx.Done()
	return 143
}

// dockerRepo is the file that cmdCurl knows.
const dockerRepo = "[docker-ce-stable]\nname=Docker CE Stable - $basearch\nbaseurl=https://mirrors.aliyun.com/docker-ce/linux/centos/$releasever/$basearch/stable\nenabled=1\ngpgcheck=1\n"

func cmdCurl(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-f", "-s", "-S", "-L", "-o=")
	if !ok {
		return statusUnknownFlag
	}
	out, has := f.val["-o"]
	if !has || len(f.rest) != 1 {
		return p.refusef("only curl -fsSL -o FILE URL")
	}
	url := strings.TrimPrefix(strings.TrimPrefix(f.rest[0], "https://"), "http://")
	if url != "mirrors.aliyun.com/docker-ce/linux/centos/docker-ce.repo" {
		p.Host.refuse(strings.Join(p.Args, " "), "no such place in the simulated network")
		return p.failf(6, "(6) Could not resolve host: %s", f.rest[0])
	}
	if p.Host.sleep(ctx, time.Second) != nil {
		return 143
	}
	if err := p.tree().writeFile(p.p.cred, p.abs(out), []byte(dockerRepo), oCreate|oTrunc, 0o666&^p.umask); err != nil {
		return p.failf(23, "(23) Failed writing body: %s", errText(err))
	}
	return 0
}
