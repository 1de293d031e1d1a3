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
	"path"
	"slices"
	"strconv"
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
	// putBackTimeout bounds the way back after a failure, which is gone also
	// when the caller's context has ended. nginx -t alone takes up to ten
	// seconds on a configuration of several megabytes.
	putBackTimeout = 2 * time.Minute
	// maxOutput is how much of a command's output is kept.
	maxOutput = 1 << 20
)

// A Server is an nginx on a host. Its methods may be called from several
// goroutines; Apply, Put and Reload of the same server must not overlap.
type Server struct {
	Host   Host
	Binary string // "" = nginx
	Conf   string // the main file, absolute; "" = /etc/nginx/nginx.conf
	// ReloadTimeout bounds the wait for new workers after a reload. 0 = 30 s.
	ReloadTimeout time.Duration
}

// A Worker is a worker process of the running nginx.
type Worker struct {
	PID          int
	Title        string // "nginx: worker process"
	ShuttingDown bool   // it serves what it has and takes nothing new
}

// Applied tells what Apply did.
type Applied struct {
	Files   []FileChange // the files that are now at After
	Workers []Worker     // after the reload
}

// Load reads the configuration of the host.
func (s *Server) Load(ctx context.Context) (*Tree, error) { return Load(ctx, s.Host, s.conf()) }

func (s *Server) conf() string {
	if s.Conf == "" {
		return "/etc/nginx/nginx.conf"
	}
	return s.Conf
}

func (s *Server) nginx(args ...string) string {
	binary := s.Binary
	if binary == "" {
		binary = "nginx"
	}
	return shellq.Join(append(append([]string{binary}, args...), "-c", s.conf())...)
}

// Test runs nginx -t on the host. A configuration that nginx refuses, or that
// kills it, gives a *TestError.
func (s *Server) Test(ctx context.Context) error {
	_, stderr, err := s.run(ctx, s.nginx("-t"))
	if status, ok := exitStatus(err); ok {
		return &TestError{Conf: s.conf(), Status: status, Output: stderr}
	}
	if err != nil {
		return fmt.Errorf("cannot test %s: %w", s.conf(), err)
	}
	return nil
}

// Workers lists the worker processes of the running nginx, found through the
// pid file that the configuration names. An nginx that does not run gives
// ErrNotRunning.
func (s *Server) Workers(ctx context.Context) ([]Worker, error) {
	pidFile, err := s.pidFile(ctx)
	if err != nil {
		return nil, err
	}
	return s.workers(ctx, pidFile)
}

// Reload makes nginx read its configuration again and waits until it has: until
// a worker that was not there before serves, and every worker of before is gone
// or shutting down. An nginx that cannot use the configuration (a port that
// another program holds is enough, and nginx -t does not see that) keeps its old
// workers and says so in its error log only; then the error is a *ReloadError.
// Before it signals, it does not run Test.
func (s *Server) Reload(ctx context.Context) error {
	_, err := s.reload(ctx)
	return err
}

func (s *Server) reload(ctx context.Context) ([]Worker, error) {
	pidFile, err := s.pidFile(ctx)
	if err != nil {
		return nil, err
	}
	before, err := s.workers(ctx, pidFile)
	if err != nil {
		return nil, fmt.Errorf("cannot reload nginx: %w", err)
	}
	_, stderr, err := s.run(ctx, s.nginx("-s", "reload"))
	if status, ok := exitStatus(err); ok {
		return nil, &ReloadError{Status: status, Output: stderr, Before: before, Now: before}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reload nginx: %w", err)
	}
	timeout := s.ReloadTimeout
	if timeout == 0 {
		timeout = defaultReloadTimeout
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		now, err := s.workers(ctx, pidFile)
		if err != nil {
			return nil, fmt.Errorf("cannot see the workers after the reload: %w", err)
		}
		if renewed(before, now) {
			return now, nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-deadline.C:
			wait.Stop()
			return nil, &ReloadError{Before: before, Now: now, Waited: timeout}
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("the reload was not seen to its end: %w", ctx.Err())
		}
	}
}

// renewed reports whether the workers of before have given way to others.
func renewed(before, now []Worker) bool {
	fresh := false
	for _, w := range now {
		if w.ShuttingDown {
			continue
		}
		if slices.ContainsFunc(before, func(b Worker) bool { return b.PID == w.PID }) {
			return false
		}
		fresh = true
	}
	return fresh
}

// pidFile returns where the master process writes its number.
func (s *Server) pidFile(ctx context.Context) (string, error) {
	t, err := s.Load(ctx)
	if err != nil {
		return "", err
	}
	name := "/run/nginx.pid"
	t.Walk(func(c *Cursor) bool {
		if len(c.Context) == 0 && c.is("pid") && c.Len() == 2 {
			name = c.Arg(1)
		}
		return !c.IsBlock()
	})
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	// A relative name counts from the prefix nginx was built with.
	binary := s.Binary
	if binary == "" {
		binary = "nginx"
	}
	_, stderr, err := s.run(ctx, shellq.Join(binary, "-V"))
	if err != nil {
		return "", fmt.Errorf("cannot ask nginx where its pid file %s is: %w", name, err)
	}
	for field := range strings.FieldsSeq(stderr) {
		if prefix, ok := strings.CutPrefix(field, "--prefix="); ok {
			return join(strings.Trim(prefix, `'"`), name), nil
		}
	}
	return join("/usr/local/nginx", name), nil
}

// The exit statuses of workersScript.
const (
	statusNoPidFile = 71
	statusBadPid    = 72
	statusNoMaster  = 73
)

// workersScript prints the command line of the master process and of each of
// its children. It needs nothing but a POSIX shell, cat and /proc: ps is not
// everywhere, and its formats differ.
const workersScript = `m=$(cat "$f" 2>/dev/null) || exit 71
case $m in ''|*[!0-9]*) exit 72;; esac
[ -d "/proc/$m" ] || exit 73
printf 'master %s ' "$m"
cat "/proc/$m/cmdline" 2>/dev/null
for d in /proc/[0-9]*; do
	p=
	while read -r k v; do
		case $k in PPid:) p=$v; break;; esac
	done 2>/dev/null <"$d/status"
	[ "$p" = "$m" ] || continue
	printf '\nchild %s ' "${d#/proc/}"
	cat "$d/cmdline" 2>/dev/null
done
echo`

func (s *Server) workers(ctx context.Context, pidFile string) ([]Worker, error) {
	stdout, stderr, err := s.run(ctx, "f="+shellq.Quote(pidFile)+"\n"+workersScript)
	if status, ok := exitStatus(err); ok {
		switch status {
		case statusNoPidFile:
			return nil, fmt.Errorf("%w: there is no pid file %s", ErrNotRunning, pidFile)
		case statusBadPid:
			return nil, fmt.Errorf("%w: the pid file %s holds no number", ErrNotRunning, pidFile)
		case statusNoMaster:
			return nil, fmt.Errorf("%w: the pid file %s names a process that is gone", ErrNotRunning, pidFile)
		}
		return nil, fmt.Errorf("cannot list the workers of nginx: exit status %d: %s", status, stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the workers of nginx: %w", err)
	}
	var out []Worker
	for line := range strings.Lines(stdout) {
		kind, rest, _ := strings.Cut(line, " ")
		number, title, _ := strings.Cut(rest, " ")
		title = strings.TrimSpace(strings.ReplaceAll(title, "\x00", " "))
		switch kind {
		case "master":
			if !strings.HasPrefix(title, "nginx: master process") {
				return nil, fmt.Errorf("%w: the pid file %s names another program (%s)", ErrNotRunning, pidFile, title)
			}
		case "child":
			pid, err := strconv.Atoi(number)
			if err != nil {
				return nil, fmt.Errorf("internal error: the list of workers holds %q", line)
			}
			if strings.HasPrefix(title, "nginx: worker process") {
				out = append(out, Worker{PID: pid, Title: title, ShuttingDown: strings.Contains(title, "shutting down")})
			}
		}
	}
	return out, nil
}

// Apply makes a change live: it tests the configuration as it is, so that what
// was broken before is not blamed on the change; puts each file in place if it
// still has the bytes the change was made from; tests again; reloads and waits
// for new workers. Whatever fails, all files are put back and tested, and nginx
// is reloaded once more if it had been, also when ctx has ended meanwhile; the
// error is an *ApplyError then. Files that have their new bytes already are left,
// so that an Apply that was cut off can be repeated. An empty change does
// nothing.
//
// A file is replaced by renaming: links to it are followed, owner, mode and
// SELinux label are kept, other hard links stay with the old content.
func (s *Server) Apply(ctx context.Context, c *Change) (*Applied, error) {
	if c.Empty() {
		return &Applied{}, nil
	}
	if err := s.Test(ctx); err != nil {
		if te, ok := errors.AsType[*TestError](err); ok {
			te.BeforeEdit = true
		}
		return nil, err
	}
	return s.put(ctx, c.Files())
}

// Put sets every file to its After bytes by the same guarded way as Apply, but
// without testing before: it is for taking back a change whose files are at hand
// from a journal (with Before and After turned around). A file that is at After
// already is left; one that is at neither gives a *DriftError before anything is
// written. nginx is tested and reloaded also when there was nothing to write,
// since an earlier Put may have been cut off in between.
func (s *Server) Put(ctx context.Context, files []FileChange) error {
	_, err := s.put(ctx, files)
	return err
}

// onDisk is a file change with what the host says about the file.
type onDisk struct {
	FileChange
	real string // the file behind all links
	hash string // of its bytes now
}

func (s *Server) put(ctx context.Context, files []FileChange) (*Applied, error) {
	if len(files) == 0 {
		return &Applied{}, nil
	}
	todo, err := s.look(ctx, files)
	if err != nil {
		return nil, err
	}
	var written []FileChange // also those of which only the attempt is known
	for _, f := range todo {
		if err = s.swap(ctx, f); err == nil {
			written = append(written, f.FileChange)
			continue
		}
		if _, untouched := errors.AsType[*DriftError](err); !untouched {
			written = append(written, f.FileChange)
		}
		break
	}
	var workers []Worker
	reloaded := false
	if err == nil {
		err = s.Test(ctx)
	}
	if err == nil {
		reloaded = true
		workers, err = s.reload(ctx)
	}
	if err == nil {
		return &Applied{Files: slices.Clone(files), Workers: workers}, nil
	}
	if len(written) == 0 {
		return nil, err
	}
	return nil, &ApplyError{Err: err, PutBack: s.putBack(ctx, written, reloaded)}
}

// look finds the real file behind each name and says which are to be written.
func (s *Server) look(ctx context.Context, files []FileChange) ([]onDisk, error) {
	var names []string
	for _, f := range files {
		if strings.ContainsAny(f.Name, "\n\x00") {
			return nil, fmt.Errorf("cannot write %q: its name has a line end or a NUL", f.Name)
		}
		names = append(names, shellq.Quote(f.Name))
	}
	script := "for f in " + strings.Join(names, " ") + `; do
	r=$(readlink -f "$f") && h=$(sha256sum <"$r") || { echo "$f" >&2; exit 74; }
	printf '%s\n%s\n' "$r" "${h%% *}"
done`
	stdout, stderr, err := s.run(ctx, script)
	if status, ok := exitStatus(err); ok {
		return nil, fmt.Errorf("cannot read the files to change: exit status %d: %s", status, stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the files to change: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if len(lines) != 2*len(files) {
		return nil, fmt.Errorf("internal error: %d lines about %d files", len(lines), len(files))
	}
	var todo []onDisk
	var drift []error
	for i, f := range files {
		d := onDisk{FileChange: f, real: lines[2*i], hash: lines[2*i+1]}
		switch d.hash {
		case sum(f.After):
			continue
		case sum(f.Before):
		default:
			drift = append(drift, &DriftError{Name: f.Name, Want: sum(f.Before), Have: d.hash})
			continue
		}
		// One file under two names, through a link, is written once.
		if j := slices.IndexFunc(todo, func(o onDisk) bool { return o.real == d.real }); j >= 0 {
			if !bytes.Equal(todo[j].After, f.After) {
				return nil, fmt.Errorf("cannot write %s: it is the same file as %s, with another change", f.Name, todo[j].Name)
			}
			continue
		}
		todo = append(todo, d)
	}
	return todo, errors.Join(drift...)
}

const (
	statusChanged = 75
	statusRights  = 76
	statusRename  = 77
)

// swapScript puts the file t in the place of f if f still has the wanted hash.
// The label is copied only where SELinux is on: elsewhere chcon fails.
const swapScript = `h=$(sha256sum <"$f") || exit 75
if [ "${h%% *}" != "$want" ]; then rm -f "$t"; exit 75; fi
chown --reference="$f" "$t" && chmod --reference="$f" "$t" || { rm -f "$t"; exit 76; }
if [ -e /sys/fs/selinux/enforce ] && command -v chcon >/dev/null 2>&1; then
	chcon --reference="$f" "$t" || { rm -f "$t"; exit 76; }
fi
sync "$t" && mv -f -T "$t" "$f" || { rm -f "$t"; exit 77; }
sync "$d" || :`

// swap puts After in the place of Before.
func (s *Server) swap(ctx context.Context, f onDisk) error {
	dir, base := path.Split(f.real)
	// The leading dot keeps the file out of every include pattern. The name
	// says what is in it, so that what a cut-off attempt left is found again.
	temp := dir + "." + base + ".upgradectl-" + sum(f.After)[:12]
	err := s.Host.WriteFile(ctx, temp, f.After, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, _, err = s.run(ctx, "rm -f "+shellq.Quote(temp)); err == nil {
			err = s.Host.WriteFile(ctx, temp, f.After, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write beside %s: %w", f.Name, err)
	}
	script := "f=" + shellq.Quote(f.real) + " t=" + shellq.Quote(temp) + " d=" + shellq.Quote(dir) + " want=" + f.hash + "\n" + swapScript
	_, stderr, err := s.run(ctx, script)
	status, ok := exitStatus(err)
	switch {
	case !ok && err != nil:
		return fmt.Errorf("cannot put %s in place: %w", f.Name, err)
	case !ok:
		return nil
	case status == statusChanged:
		return &DriftError{Name: f.Name, Want: f.hash}
	case status == statusRights:
		return fmt.Errorf("cannot put %s in place: its owner, mode or label cannot be kept: %s", f.Name, stderr)
	case status == statusRename:
		return fmt.Errorf("cannot put %s in place: %s", f.Name, stderr)
	}
	return fmt.Errorf("cannot put %s in place: exit status %d: %s", f.Name, status, stderr)
}

// putBack gives files their bytes from before, tests, and reloads if the failed
// change had been reloaded. It runs on when the caller's context has ended.
func (s *Server) putBack(ctx context.Context, files []FileChange, reload bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	back := make([]FileChange, len(files))
	for i, f := range files {
		back[i] = FileChange{Name: f.Name, Before: f.After, After: f.Before}
	}
	todo, err := s.look(ctx, back)
	var failed []error
	if err != nil {
		failed = append(failed, err)
	}
	for _, f := range todo {
		if err := s.swap(ctx, f); err != nil {
			failed = append(failed, err)
		}
	}
	if err := s.Test(ctx); err != nil {
		return errors.Join(append(failed, err)...)
	}
	if reload {
		if err := s.Reload(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
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
