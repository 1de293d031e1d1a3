package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runPrefix begins the names of what a run has on this machine: its directory
// and its control groups.
const runPrefix = "upgradectl-lab-"

// A run is one call of [Isolated]: a directory, in which the file "owner" has a
// line for each of the processes that matter, their ID and when they began.
// The first is the test's; then comes the one that all others end with.
type run struct{ dir string }

// newRun makes the directory and enters this process.
func newRun() (*run, error) {
	dir, err := os.MkdirTemp("", runPrefix)
	if err != nil {
		return nil, err
	}
	r := &run{dir: dir}
	return r, r.enter(os.Getpid())
}

// enter adds a process to the run.
func (r *run) enter(pid int) error {
	began, err := beginning(pid)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(r.dir, "owner"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid, began)
	return errors.Join(err, f.Close())
}

// name is that of the run's control groups.
func (r *run) name() string { return filepath.Base(r.dir) }

// remove removes what the run has on this machine. Its processes must have
// ended.
func (r *run) remove(patience time.Duration) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], r.name())
	}
	if err := removeCgroups(dirs, patience); err != nil {
		return err // the directory stays, and with it what the next run reads
	}
	return os.RemoveAll(r.dir)
}

// sweep removes the runs of tests that were killed. The directory of a run goes
// last: what has none belongs to nobody that sweep could know.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*"))
	errs := []error{err}
	for _, dir := range dirs {
		r := &run{dir: dir}
		if r.alive() {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(r.dir, "owner")) // none: it had no process yet
		_, rest, _ := strings.Cut(string(text), "\n")
		for line := range strings.Lines(rest) {
			errs = append(errs, killProcess(strings.TrimSuffix(line, "\n")))
		}
		if err := r.remove(time.Second); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove %s of an earlier run: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// alive says whether the run's test lives. One that has not said yet who it is
// may have begun just now.
func (r *run) alive() bool {
	info, err := os.Stat(r.dir)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "owner"))
	if err != nil {
		return time.Since(info.ModTime()) < time.Minute
	}
	owner, _, _ := strings.Cut(string(text), "\n")
	_, alive := living(owner)
	return alive
}

// living finds the process of a line, if it is still the same one.
func living(line string) (pid int, alive bool) {
	id, began, _ := strings.Cut(line, " ")
	pid, err := strconv.Atoi(id)
	if err != nil {
		return 0, false
	}
	now, err := beginning(pid)
	return pid, err == nil && now == began
}

// killProcess kills the process of a line and waits until it is gone.
func killProcess(line string) error {
	end := time.NewTimer(10 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pid, alive := living(line)
		if !alive {
			return nil
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-end.C:
			return fmt.Errorf("process %d of an earlier run does not end", pid)
		case <-tick.C:
		}
	}
}

// beginning is when a process began, in ticks of the machine's clock. A zombie
// has ended.
func beginning(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("process %d: unexpected stat", pid)
	}
	if f[0] == "Z" {
		return "", fs.ErrNotExist
	}
	return f[19], nil
}
