package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cgroups are control groups of one name, one in each hierarchy of this
// machine.
type cgroups struct {
	name string   // below the top of the hierarchy
	dirs []string // of version 1, by controller, and the one of version 2
}

// cgroupTop is where the hierarchies are: a directory each for the
// controllers of version 1, or version 2 itself.
const cgroupTop = "/sys/fs/cgroup"

// hierarchies lists the tops of the mounted hierarchies.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupTop, "cgroup.controllers")); err == nil {
		return []string{cgroupTop}, nil
	}
	procs, err := filepath.Glob(filepath.Join(cgroupTop, "*/cgroup.procs"))
	if err == nil && len(procs) == 0 {
		err = errors.New("there are none in " + cgroupTop)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list control groups: %w", err)
	}
	var tops []string
	for _, p := range procs {
		dir := filepath.Dir(p)
		if info, err := os.Lstat(dir); err == nil && info.IsDir() { // links are other names of one
			tops = append(tops, dir)
		}
	}
	return tops, nil
}

// newCgroups makes a group, or adopts it.
func newCgroups(name string) (*cgroups, error) {
	tops, err := hierarchies()
	if err != nil {
		return nil, err
	}
	g := &cgroups{name: name}
	for _, top := range tops {
		dir := top
		for part := range strings.SplitSeq(name, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			// A new set of processors is empty, and nobody can join it.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				text, err := os.ReadFile(filepath.Join(parent, f))
				if err != nil || filepath.Base(top) != "cpuset" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, f), text, 0o644); err != nil {
					return nil, err
				}
			}
		}
		g.dirs = append(g.dirs, dir)
	}
	return g, nil
}

// procs lists the files that take the processes that join. What systemd keeps
// apart from its own processes joins the group below of that name.
func (g *cgroups) procs(below string) []string {
	var files []string
	for _, dir := range g.dirs {
		if below != "" {
			if _, err := os.Stat(filepath.Join(dir, "payload")); err == nil {
				dir = filepath.Join(dir, "payload", below)
				_ = os.Mkdir(dir, 0o755) // there, or the write tells
			}
		}
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// freeze halts every process of the group, and thaw lets them go on. It takes
// the hierarchy of version 2, which every systemd mounts.
func (g *cgroups) freeze() (thaw func() error, err error) {
	for _, dir := range g.dirs {
		file := filepath.Join(dir, "cgroup.freeze")
		if _, err := os.Stat(file); err != nil {
			continue
		}
		thaw = func() error { return os.WriteFile(file, []byte("0"), 0o644) }
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), cgroupPatience)
		defer cancel()
		err := poll(ctx, "its processes do not halt", func() error {
			text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
			if err == nil && !strings.Contains(string(text), "frozen 1") {
				err = fmt.Errorf("%q", text)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, thaw())
		}
		return thaw, nil
	}
	return nil, errors.New("no hierarchy of control groups of version 2 is mounted")
}

// remove removes the group and those below. Its processes must have ended.
func (g *cgroups) remove() error { return removeCgroups(g.dirs, cgroupPatience) }

// cgroupPatience is how long the kernel may take to halt the processes of a
// group, or to agree that they have ended, on a machine with much else to do.
const cgroupPatience = 20 * time.Second

// removeCgroups removes control groups and those below. Some need not be
// there.
func removeCgroups(dirs []string, patience time.Duration) error {
	var errs []error
	end := time.Now().Add(patience)
	for _, dir := range dirs {
		errs = append(errs, removeCgroup(dir, end))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string, last time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name()), last); err != nil {
				return err
			}
		}
	}
	end := time.NewTimer(time.Until(last))
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-end.C:
			return fmt.Errorf("cannot remove a control group: %w", err)
		case <-tick.C:
		}
	}
}
