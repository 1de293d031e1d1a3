package nginx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// Host is what Server needs of the machine nginx runs on. *hostinv.Conn is one.
// cmd is a POSIX sh command line. An error of a command that ran and failed
// satisfies interface{ ExitStatus() int } through errors.As, with -1 for one
// that a signal killed; any other error means that the result is not known.
// WriteFile makes a new file and fails with fs.ErrExist when it is there.
type Host interface {
	Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error
	ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error)
}

const (
	defaultReloadTimeout = 30 * time.Second
	// nginx -t takes ten seconds of CPU on a configuration of six megabytes,
	// and grows with the square of the number of upstreams.
	defaultTestTimeout = 2 * time.Minute
	// putBackTimeout bounds the way back after a failure, which is gone also
	// when the caller's context has ended.
	putBackTimeout = 5 * time.Minute
	// stuckAfter is how long an old worker that does not take note of a reload
	// keeps Reload waiting when the new ones serve and the error log is clean.
	stuckAfter = 5 * time.Second
	// settle is how long new workers must live to count: one that cannot begin
	// ends at once.
	settle = 100 * time.Millisecond
	// maxOutput is how much of a command's output is kept.
	maxOutput = 1 << 20
)

// A Server is an nginx on a host. Its methods may be called from several
// goroutines; Apply, Put and Reload of the same server must not overlap.
type Server struct {
	Host Host
	// Binary is the nginx program on the host. "" = the file behind the master
	// process that reads Conf, and where none runs the one in PATH or in a
	// usual sbin directory.
	Binary string
	// Conf is the main file, absolute. "" = that of the one nginx that runs, and
	// where none runs the one compiled into Binary. Several that run give an
	// *AmbiguousError. -p, -g and -e are those of the master's command line.
	Conf string
	// ReloadTimeout bounds the wait for new workers after a reload. 0 = 30 s,
	// or in Apply and Put three times as long as nginx -t took if that is more.
	ReloadTimeout time.Duration
	// TestTimeout bounds nginx -t. 0 = 2 minutes.
	TestTimeout time.Duration
	// Guard is a POSIX sh command line that must succeed wherever the host is
	// about to be changed: it runs in the same shell as the renaming of a file,
	// the reload signal or the end of old workers, immediately before it, so
	// that a lease or a lock can be asked, and a lock on a descriptor is held
	// until that command is done. Otherwise nothing of the command is done and
	// the error is a *GuardError. It must not read standard input, nor use
	// names that begin with upg_. It guards the way back as well. "" = none.
	Guard string
}

// A Worker is a worker process of the running nginx.
type Worker struct {
	PID          int
	Start        uint64 // in clock ticks after boot; with PID it names the process for good
	Title        string // "nginx: worker process"
	ShuttingDown bool   // it serves what it has and takes nothing new
}

func (w Worker) is(o Worker) bool { return w.PID == o.PID && w.Start == o.Start }

// Load reads the configuration of the host.
func (s *Server) Load(ctx context.Context) (*Tree, error) {
	if s.Conf != "" {
		return Load(ctx, hostFS{s.Host}, s.Conf)
	}
	p, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	return Load(ctx, hostFS{s.Host}, p.conf)
}

// hostFS is a Host whose files can be told apart.
type hostFS struct{ Host }

// Identity asks the host's shell, in the same way as stat does it for Apply.
func (h hostFS) Identity(ctx context.Context, name string) (string, error) {
	out, _, err := (&Server{Host: h.Host}).run(ctx, `r=$(readlink -f `+shellq.Quote(name)+`) && n=$(stat -c %h "$r") || exit 74
if [ "$n" = 1 ]; then printf '%s\n' "$r"; else stat -c %d:%i "$r"; fi`)
	if _, ok := exitStatus(err); ok {
		return "", nil
	}
	return strings.TrimSpace(out), err
}

// Test runs nginx -t on the host, as root unless the host's user is another: nginx
// cannot open its logs and keys then and says so. A configuration that nginx
// refuses, or that kills it, gives a *TestError; no program ErrNoNginx.
func (s *Server) Test(ctx context.Context) error {
	p, err := s.find(ctx)
	if err != nil {
		return err
	}
	_, err = s.test(ctx, p)
	return err
}

// test returns how long it took.
func (s *Server) test(ctx context.Context, p *instance) (time.Duration, error) {
	limit := s.TestTimeout
	if limit == 0 {
		limit = defaultTestTimeout
	}
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, stderr, err := s.run(bounded, p.command("-t"))
	if status, ok := exitStatus(err); ok {
		if status == 126 || status == 127 {
			return 0, fmt.Errorf("cannot test %s: %w %s on this host: %s", p.conf, ErrNoNginx, p.binary, stderr)
		}
		if status > 128 {
			status = -1 // a shell says so of the program that it waited for; nginx itself ends with 0, 1 or 2
		}
		return 0, &TestError{Conf: p.conf, Status: status, Output: stderr}
	}
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return 0, fmt.Errorf("cannot test %s: nginx -t did not end within %v: %w", p.conf, limit, err)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot test %s: %w", p.conf, err)
	}
	return time.Since(start), nil
}

// Workers lists the worker processes of the running nginx. An nginx that does
// not run gives ErrNotRunning.
func (s *Server) Workers(ctx context.Context) ([]Worker, error) {
	p, _, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	return p.workers(), nil
}

// look finds the running nginx and the command that reloads it.
func (s *Server) look(ctx context.Context) (*live, string, error) {
	p, err := s.find(ctx)
	if err != nil {
		return nil, "", err
	}
	t, err := Load(ctx, hostFS{s.Host}, p.conf)
	if err != nil {
		return nil, "", err
	}
	return s.live(ctx, p, t)
}

// live is an instance where an nginx runs, with its configuration on disk.
type live struct {
	*instance
	tree *Tree
}

func (s *Server) live(ctx context.Context, p *instance, t *Tree) (*live, string, error) {
	signal, err := s.running(ctx, p, t)
	if err != nil {
		return nil, "", err
	}
	return &live{p, t}, signal, nil
}

func (l *live) workers() []Worker {
	return (&processes{others: l.all}).workers(l.master.pid)
}

// A Reloaded tells what a reload did.
type Reloaded struct {
	Old     []Worker // that served before it; see WaitDrained
	Workers []Worker // now; an old one that is not ShuttingDown takes no note of anything
	// LogUnread says why nginx's own words about the reload could not be read;
	// "" = they were, and there is no new [emerg] among them.
	LogUnread string
}

// Reload makes nginx read its configuration again and waits until it has: until
// a worker that was not there before serves, every worker from before is gone or
// shutting down, and the master has written no [emerg] to its error log since.
// An old worker that takes no note of the reload (it is stopped, or waits for a
// disk) is not waited for longer than 5 s when the error log could be read.
//
// An nginx that cannot use the configuration (a port that another program holds
// is enough, and nginx -t does not see that) keeps its old workers and says so
// in its error log only; then the error is a *ReloadError with nginx's words.
// Where the log cannot be read (stderr, syslog, memory, other rights), the
// workers alone prove the reload, and LogUnread says so. Before it signals, it
// does not run Test.
func (s *Server) Reload(ctx context.Context) (*Reloaded, error) {
	l, signal, err := s.look(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot reload nginx: %w", err)
	}
	return s.reload(ctx, l, signal, 0)
}

func (s *Server) reload(ctx context.Context, l *live, signal string, testTook time.Duration) (*Reloaded, error) {
	marks := l.errorLogs(l.tree)
	// What was there before is listed in the same command that signals.
	stdout, stderr, err := s.run(ctx, processesScript+markScript(marks)+s.guard("")+signal)
	if status, ok := exitStatus(err); ok && status == statusGuard && s.Guard != "" {
		return nil, &GuardError{What: "reload nginx", Output: stderr}
	}
	ps, parseErr := parseProcesses(stdout)
	if parseErr == nil {
		parseErr = parseMarks(marks, stdout)
	}
	if status, ok := exitStatus(err); ok {
		e := &ReloadError{Status: status, Output: stderr}
		if parseErr == nil {
			e.Before = ps.workers(l.master.pid)
			e.Now = e.Before
		}
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reload nginx: %w", err)
	}
	if parseErr != nil {
		return nil, parseErr
	}
	before, known := ps.workers(l.master.pid), ps.children(l.master.pid)
	timeout := s.ReloadTimeout
	if timeout == 0 {
		timeout = max(defaultReloadTimeout, 3*testTook)
	}
	out := &Reloaded{Old: before, LogUnread: unread(marks)}
	watch := processesScript + emergScript(marks)
	started := time.Now()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	var fresh []Worker // of the last look
	var since time.Time
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		stdout, stderr, err := s.run(ctx, watch)
		if status, ok := exitStatus(err); ok {
			return nil, fmt.Errorf("cannot see the workers after the reload: exit status %d: %s", status, stderr)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot see the workers after the reload: %w", err)
		}
		if ps, err = parseProcesses(stdout); err != nil {
			return nil, err
		}
		out.Workers = ps.workers(l.master.pid)
		emerg := parseEmerg(stdout, l.master.pid)
		now, stuck := renewed(known, out.Workers)
		if !slices.Equal(now, fresh) {
			fresh, since = now, time.Now()
		}
		refused := func(waited time.Duration) error {
			return &ReloadError{Before: before, Now: out.Workers, Waited: waited, Output: strings.Join(emerg, "\n")}
		}
		switch {
		case len(emerg) > 0 && (final(emerg) || len(fresh) > 0):
			return nil, refused(time.Since(started))
		case len(fresh) == 0 || time.Since(since) < settle:
		case !stuck, out.LogUnread == "" && time.Since(since) >= stuckAfter:
			return out, nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-deadline.C:
			wait.Stop()
			return nil, refused(timeout)
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("the reload was not seen to its end: %w", ctx.Err())
		}
	}
}

// renewed returns the workers that were not there before and serve, and whether
// one from before does as well. before holds every child of the master: right
// after its start a worker is not known by its title yet.
func renewed(before, now []Worker) (fresh []Worker, stuck bool) {
	for _, w := range now {
		switch {
		case w.ShuttingDown:
		case slices.ContainsFunc(before, w.is):
			stuck = true
		default:
			fresh = append(fresh, w)
		}
	}
	return fresh, stuck
}

// final reports whether nginx has given up: a port that is taken it tries five
// times, half a second apart, and says so each time (ngx_open_listening_sockets).
func final(emerg []string) bool {
	return slices.ContainsFunc(emerg, func(m string) bool { return !strings.HasPrefix(m, "bind() to ") })
}

// guard is a line of shell that ends the script when the caller's guard does
// not hold; cleanup runs before that.
func (s *Server) guard(cleanup string) string {
	if s.Guard == "" {
		return ""
	}
	return fmt.Sprintf("{\n%s\n} >&2 </dev/null || { %s exit %d; }\n", s.Guard, cleanup, statusGuard)
}

// A GuardError says that the caller's Guard did not hold, so that what it
// guards was not done.
type GuardError struct {
	What   string // "reload nginx"
	Output string // of the guard
}

func (e *GuardError) Error() string {
	msg := "did not " + e.What + ": the guard refused it"
	if e.Output != "" {
		msg += ": " + e.Output
	}
	return msg
}

// run runs a command on the host and returns the start of its output.
func (s *Server) run(ctx context.Context, cmd string) (stdout, stderr string, err error) {
	var out, errOut limited
	err = s.Host.Run(ctx, cmd, nil, &out, &errOut)
	return out.b.String(), strings.TrimSpace(errOut.b.String()), err
}

// exitStatus tells a command that ran and failed from one whose result is not
// known.
func exitStatus(err error) (int, bool) {
	if err == nil {
		return 0, false
	}
	var e interface{ ExitStatus() int }
	if errors.As(err, &e) {
		return e.ExitStatus(), true
	}
	return 0, false
}

// limited keeps the first maxOutput bytes written to it.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}
