package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// copyTree is cp -r.
func (p *Proc) copyTree(from, to string, keep bool) error {
	i, err := p.tree().stat(p.p.cred, from, false)
	if err != nil {
		return err
	}
	switch {
	case i.IsDir():
		if err := p.tree().mkdir(p.p.cred, to, i.mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		entries, err := p.tree().readDir(p.p.cred, from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := p.copyTree(path.Join(from, e.Name()), path.Join(to, e.Name()), keep); err != nil {
				return err
			}
		}
	case i.mode&fs.ModeSymlink != 0:
		return p.tree().symlink(p.p.cred, i.link, to)
	default:
		data, err := p.tree().readFile(p.p.cred, from)
		if err != nil {
			return err
		}
		if err := p.tree().writeFile(p.p.cred, to, data, oCreate|oTrunc, i.mode.Perm()); err != nil {
			return err
		}
	}
	if !keep {
		return nil
	}
	_ = p.tree().chown(p.p.cred, to, i.uid, i.gid) // only root may; cp says nothing either
	return p.tree().chmod(p.p.cred, to, i.mode)
}

// cmdFind is find DIR… [-maxdepth N] [-type f|d] [-name PATTERN] [-xdev]
// [-newerct @SECONDS]. A file's inode changes when its content does here: nothing
// sets the time of the content back.
func cmdFind(_ context.Context, p *Proc) int {
	var dirs []string
	depth, kind, pattern, xdev, since := -1, "", "", false, time.Time{}
	args := p.Args[1:]
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if !strings.HasPrefix(a, "-") {
			dirs = append(dirs, a)
			continue
		}
		if a == "-xdev" {
			xdev = true
			continue
		}
		if len(args) == 0 {
			return p.refusef("%s without a value", a)
		}
		v := args[0]
		args = args[1:]
		switch a {
		case "-newerct":
			n, err := strconv.ParseInt(strings.TrimPrefix(v, "@"), 10, 64)
			if err != nil || !strings.HasPrefix(v, "@") {
				return p.refusef("-newerct %s", v)
			}
			since = time.Unix(n, 0)
		case "-maxdepth":
			n, ok := number(v)
			if !ok {
				return p.refusef("-maxdepth %s", v)
			}
			depth = n
		case "-type":
			if v != "f" && v != "d" {
				return p.refusef("-type %s", v)
			}
			kind = v
		case "-name":
			if _, err := path.Match(v, ""); err != nil {
				return p.refusef("-name %s", v)
			}
			pattern = v
		default:
			return p.refusef("%s", a)
		}
	}
	status := 0
	var walk func(name string, level int)
	walk = func(name string, level int) {
		i, err := p.tree().stat(p.p.cred, p.abs(name), false)
		if err != nil {
			status = p.failf(1, "'%s': %s", name, errText(err))
			return
		}
		ok, _ := path.Match(pattern, path.Base(name)) // checked above
		if (pattern == "" || ok) && i.mtime.After(since) && (kind == "" || kind == "d" == i.IsDir() && (i.IsDir() || i.mode.IsRegular())) {
			fmt.Fprintln(p.Stdout, name)
		}
		if !i.IsDir() || level == depth || xdev && level > 0 && slices.Contains([]string{"/proc", "/sys", "/dev"}, p.abs(name)) {
			return
		}
		entries, err := p.tree().readDir(p.p.cred, p.abs(name))
		if err != nil {
			status = p.failf(1, "'%s': %s", name, errText(err))
			return
		}
		for _, e := range entries {
			walk(strings.TrimSuffix(name, "/")+"/"+e.Name(), level+1)
		}
	}
	if len(dirs) == 0 {
		return p.refusef("no directory")
	}
	for _, d := range dirs {
		walk(d, 0)
	}
	return status
}

func cmdBasename(_ context.Context, p *Proc) int {
	if len(p.Args) != 2 {
		return p.refusef("only basename NAME")
	}
	fmt.Fprintln(p.Stdout, path.Base(p.Args[1]))
	return 0
}

func cmdDirname(_ context.Context, p *Proc) int {
	if len(p.Args) != 2 {
		return p.refusef("only dirname NAME")
	}
	fmt.Fprintln(p.Stdout, path.Dir(p.Args[1]))
	return 0
}

// unitMasked reports whether a unit is linked to /dev/null: it never starts.
func (h *Host) unitMasked(name string) bool {
	i, err := h.tree.stat(cred{}, unitEtc+"/"+name, false)
	return err == nil && i.link == "/dev/null"
}

// maskUnit is systemctl mask, also of a unit that is not there yet, and unmask.
func (p *Proc) maskUnit(name string, on bool) int {
	h, file := p.Host, unitEtc+"/"+name
	switch {
	case on == h.unitMasked(name):
		return 0
	case !on:
		_ = h.tree.remove(cred{}, file, false)
		fmt.Fprintf(p.Stderr, "Removed %s.\n", file)
		return 0
	}
	if err := h.tree.symlink(cred{}, "/dev/null", file); err != nil {
		fmt.Fprintf(p.Stderr, "Failed to mask unit: %s\n", errText(err))
		return 1
	}
	fmt.Fprintf(p.Stderr, "Created symlink %s → /dev/null.\n", file)
	return 0
}
