package host

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A cronJob is a line of a crontab.
type cronJob struct {
	reboot bool
	fields [5]string // minute, hour, day, month, weekday
	user   string
	line   string
}

// crond does what crond.service does until its process ends: what @reboot says
// at once, the other lines at their minutes of the world. Every start of a job
// is a line of /var/log/cron, with the minute of the boot.
func (h *Host) crond(b *boot, p *process) {
	for _, j := range h.crontabs() {
		if j.reboot {
			h.cronRun(b, j, 0)
		}
	}
	h.mu.Lock()
	began := h.bootTime
	h.mu.Unlock()
	for minute := 1; ; minute++ {
		if h.sleep(p.ctx, time.Minute) != nil {
			return
		}
		// The world's clock: a minute of it passes Speed times faster.
		now := began.Truncate(time.Minute).Add(time.Duration(minute) * time.Minute)
		for _, j := range h.crontabs() {
			if !j.reboot && j.due(now) {
				h.cronRun(b, j, minute)
			}
		}
	}
}

// debianCron are the names of files in /etc/cron.d that Debian's cron reads
// (cron(8): those of run-parts); cronie only passes over hidden ones and those
// of editors.
var debianCron = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Jobs are the commands that crond runs again and again, in the order of its
// files; those of @reboot are not among them.
func (h *Host) Jobs() []string {
	var commands []string
	for _, j := range h.crontabs() {
		if !j.reboot {
			commands = append(commands, j.line)
		}
	}
	return commands
}

func (h *Host) crontabs() []cronJob {
	var jobs []cronJob
	read := func(file, user string) {
		data, err := h.tree.readFile(cred{}, file)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || strings.Contains(strings.Fields(line)[0], "=") {
				continue
			}
			j, ok := parseCron(line, user)
			if !ok {
				h.refuse("crontab "+file, line)
				continue
			}
			jobs = append(jobs, j)
		}
	}
	ignored := func(name string) bool { return name[0] == '.' || strings.HasSuffix(name, "~") }
	if os, err := h.tree.readFile(cred{}, "/etc/os-release"); err == nil && bytes.Contains(os, []byte("debian")) {
		ignored = func(name string) bool { return !debianCron.MatchString(name) }
	}
	read("/etc/crontab", "")
	for _, dir := range []string{"/etc/cron.d", "/var/spool/cron"} {
		entries, err := h.tree.readDir(cred{}, dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if !e.IsDir() && !ignored(e.Name()) {
				read(path.Join(dir, e.Name()), map[string]string{"/var/spool/cron": e.Name()}[dir])
			}
		}
	}
	return jobs
}

// parseCron reads a line; the file of a user has no field for one.
func parseCron(line, user string) (j cronJob, ok bool) {
	next := func() string {
		line = strings.TrimLeft(line, " \t")
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			i = len(line)
		}
		word := line[:i]
		line = line[i:]
		return word
	}
	if strings.HasPrefix(line, "@") {
		if next() != "@reboot" {
			return j, false
		}
		j.reboot = true
	} else {
		for i := range j.fields {
			j.fields[i] = next()
			if _, err := cronField(j.fields[i], 0); err != nil {
				return j, false
			}
		}
	}
	if j.user = user; user == "" {
		j.user = next()
	}
	j.line = strings.TrimSpace(line)
	return j, j.user != "" && j.line != ""
}

func (j cronJob) due(now time.Time) bool {
	for i, v := range []int{now.Minute(), now.Hour(), now.Day(), int(now.Month()), int(now.Weekday())} {
		if ok, err := cronField(j.fields[i], v); err != nil || !ok {
			return false
		}
	}
	return true
}

// cronField tells whether v matches a field such as "*", "*/5", "1,15" or "8-18/2".
func cronField(field string, v int) (bool, error) {
	match := false
	for part := range strings.SplitSeq(field, ",") {
		span, step, stepped := strings.Cut(part, "/")
		n := 1
		if stepped {
			var err error
			if n, err = strconv.Atoi(step); err != nil || n < 1 {
				return false, fmt.Errorf("step %q", step)
			}
		}
		from, to := 0, 59
		if span != "*" {
			a, b, ranged := strings.Cut(span, "-")
			var err error
			if from, err = strconv.Atoi(a); err != nil {
				return false, err
			}
			if to = from; ranged {
				if to, err = strconv.Atoi(b); err != nil {
					return false, err
				}
			}
		}
		match = match || v >= from && v <= to && (v-from)%n == 0
	}
	return match, nil
}

// cronRun starts a job and does not wait for it: it goes on when crond ends.
func (h *Host) cronRun(b *boot, j cronJob, minute int) {
	hostname, _ := h.tree.readFile(cred{}, "/etc/hostname")
	i := slices.IndexFunc(h.accounts(), func(a account) bool { return a.name == j.user })
	if i < 0 {
		h.refuse("cron job of "+j.user, "no such user")
		return
	}
	acc := h.accounts()[i]
	args := []string{"/bin/sh", "-c", j.line}
	h.mu.Lock()
	over := b.over
	if !over {
		b.wg.Add(1)
	}
	h.mu.Unlock()
	if over {
		return
	}
	c := h.fork(b, b.ctx, &process{args: args, user: acc.name, cred: acc.cred, cwd: acc.home})
	_ = h.Append("/var/log/cron", fmt.Appendf(nil, "minute %d %s CROND[%d]: (%s) CMD (%s)\n", minute, strings.TrimSpace(string(hostname)), c.pid, j.user, j.line))
	go func() {
		defer b.wg.Done()
		q := h.rootProc(c, args, io.Discard)
		q.User, q.Dir = acc.name, acc.home
		q.Env = map[string]string{"PATH": "/usr/bin:/bin", "HOME": acc.home, "LOGNAME": acc.name, "SHELL": "/bin/sh"}
		c.end(c.statusAfter(h.execute(c.ctx, q, args)))
	}()
}

// timer does what NAME.timer does until its process ends: it starts NAME.service
// every OnUnitActiveSec, a number of minutes ("5min").
func (h *Host) timer(b *boot, p *process, name, every string) {
	n, err := strconv.Atoi(strings.TrimSuffix(every, "min"))
	if err != nil || n < 1 || !strings.HasSuffix(every, "min") {
		h.refuse("timer "+name, "OnUnitActiveSec="+every)
		return
	}
	for h.sleep(p.ctx, time.Duration(n)*time.Minute) == nil {
		h.mu.Lock()
		over := b.over
		if !over {
			b.wg.Add(1)
		}
		h.mu.Unlock()
		if over {
			return
		}
		_ = h.startUnit(b, strings.TrimSuffix(name, ".timer")+".service") // seen as failed
		b.wg.Done()
	}
}
