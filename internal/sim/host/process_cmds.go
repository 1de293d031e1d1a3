package host

import (
	"context"
	"strconv"
	"strings"
)

// The programs that start a process as it was: xargs, env -i, chroot, setsid.

// cmdXargs is xargs -0 -x -n N -s N COMMAND ARGS…: all words on standard input,
// in one command, or none.
func cmdXargs(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "-0", "-x", "-n=", "-s=")
	if !ok {
		return statusUnknownFlag
	}
	n, ok1 := number(f.val["-n"])
	size, ok2 := number(f.val["-s"])
	if !f.is["-0"] || !f.is["-x"] || !ok1 || !ok2 || len(f.rest) == 0 {
		return p.refusef("only xargs -0 -x -n N -s N COMMAND")
	}
	var data []byte
	if status := p.inputs(ctx, nil, func(_ string, d []byte) { data = append(data, d...) }); status != 0 {
		return status
	}
	words := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	if len(data) == 0 {
		words = nil
	}
	if len(words) > n || len(data) > size {
		return p.failf(1, "argument list too long")
	}
	args := append(f.rest, words...)
	c := p.p.child(args, p.Dir)
	q := *p
	q.p, q.PID, q.Stdin = c, c.pid, noInput{}
	status := c.statusAfter(p.Host.execute(c.ctx, &q, args))
	c.end(status)
	if status != 0 {
		return 123
	}
	return 0
}

// cmdSetsid runs a program in a session of its own. `setsid setsid COMMAND`
// leaves a daemon behind: the first makes a group leader of the second, and a
// group leader forks and does not wait.
func cmdSetsid(ctx context.Context, p *Proc) int {
	if len(p.Args) < 3 || p.Args[1] != "setsid" {
		return p.wrap(ctx)
	}
	args := p.Args[2:]
	h, b := p.Host, p.p.boot
	h.mu.Lock()
	c := &process{user: p.p.user, cred: p.p.cred, args: args, cwd: p.Dir, unit: p.p.unit}
	h.mu.Unlock()
	h.fork(b, b.ctx, c)
	q := *p
	q.p, q.PID, q.Stdin = c, c.pid, noInput{}
	b.wg.Add(1) // p runs inside b
	go func() {
		defer b.wg.Done()
		c.end(c.statusAfter(h.execute(c.ctx, &q, args)))
	}()
	return 0
}

// cmdChroot is chroot --userspec=+UID:+GID --groups=GID,… / COMMAND: another
// user, in the same place but for the working directory.
func cmdChroot(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+", "--userspec=", "--groups=")
	if !ok {
		return statusUnknownFlag
	}
	u, g, _ := strings.Cut(f.val["--userspec"], ":")
	uid, err1 := strconv.Atoi(strings.TrimPrefix(u, "+"))
	gid, err2 := strconv.Atoi(strings.TrimPrefix(g, "+"))
	switch {
	case err1 != nil || err2 != nil || f.val["--groups"] == "" || len(f.rest) < 2 || f.rest[0] != "/":
		return p.refusef("only chroot --userspec=+UID:+GID --groups=GID / COMMAND")
	case p.p.cred.uid != 0:
		return p.failf(125, "cannot change root directory to '/': Operation not permitted")
	}
	h := p.Host
	name := h.userName(uid)
	h.mu.Lock()
	p.p.cred, p.p.user, p.p.cwd = cred{uid, gid}, name, "/"
	h.mu.Unlock()
	p.User, p.Dir = name, "/"
	return h.execute(ctx, p, f.rest[1:])
}
