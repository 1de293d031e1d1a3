package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/pitrix"
)

// pitrixFlags say which firstbox is meant: this machine, one that is reached
// through SSH, or a copy of its /pitrix.
type pitrixFlags struct {
	ssh          sshFlags
	target, root string
}

func newPitrix(a *app) *cobra.Command {
	p := &pitrixFlags{}
	cmd := &cobra.Command{Use: "pitrix", Short: a.t("management nodes of a QingCloud installation: settings, comparisons, the installer's scripts", "青云管理节点：settings 文件、对比、安装器脚本")}
	p.ssh.flags(a, cmd)
	f := cmd.PersistentFlags()
	f.StringVar(&p.target, "firstbox", "", a.t("SSH target of the firstbox (default: this machine)", "firstbox 的 SSH 目标（默认本机）"))
	f.StringVar(&p.root, "root", "", a.t("where /pitrix is on it (default: /)", "其上 /pitrix 所在的根目录（默认 /）"))
	cmd.AddCommand(newPitrixSettings(a, p), newPitrixMAC(a, p), newPitrixCompare(a))
	cmd.AddCommand(newPitrixRuns(a, p)...)
	return cmd
}

// firstbox connects to the firstbox. The caller closes it.
func (p *pitrixFlags) firstbox(ctx context.Context, a *app) (*pitrix.Firstbox, func() error, error) {
	root := strings.TrimSuffix(p.root, "/")
	if p.target == "" {
		if root != "" {
			abs, err := filepath.Abs(root)
			if err != nil {
				return nil, nil, err
			}
			root = filepath.ToSlash(abs)
		}
		return &pitrix.Firstbox{Host: localHost{}, Root: root}, func() error { return nil }, nil
	}
	if root != "" && root[0] != '/' {
		return nil, nil, usagef("--root %s: another machine needs the absolute name", p.root)
	}
	c, err := p.ssh.dial(ctx, a, p.target)
	if err != nil {
		return nil, nil, err
	}
	return &pitrix.Firstbox{Host: c, Root: root}, c.Close, nil
}

// fleet reads the settings of the firstbox or, with a directory, of a copy of
// them on this machine.
func (p *pitrixFlags) fleet(ctx context.Context, a *app, dir string) (_ pitrix.Fleet, err error) {
	if dir != "" {
		if p.target != "" || p.root != "" {
			return nil, usagef(a.t("a directory of this machine and --firstbox or --root exclude each other", "本机目录不能与 --firstbox 或 --root 同时使用"))
		}
		return readSettingsDir(dir)
	}
	box, done, err := p.firstbox(ctx, a)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return box.ReadFleet(ctx)
}

// maxSettingsFile is more than pitrix.Parse takes.
const maxSettingsFile = 2 << 20

// readSettingsDir reads the plain files of a directory, as the installer's
// scripts do: neither sub-directories nor names with a dot at the beginning.
func readSettingsDir(dir string) (pitrix.Fleet, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link to nothing; the scripts pass it over as well
		} else if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if files[e.Name()], err = readLimited(filepath.Join(dir, e.Name()), maxSettingsFile); err != nil {
			return nil, err
		}
	}
	return pitrix.ParseFleet(files)
}

// readLimited reads a file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes; is it the right file?", name, limit)
	}
	return data, err
}

// pairs reads KEY=VALUE arguments of a flag.
func pairs(flag string, args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok || k == "" {
			return nil, usagef("--%s %s: write it as KEY=VALUE", flag, arg)
		}
		if _, again := out[k]; again {
			return nil, usagef("--%s: %s is given twice", flag, k)
		}
		out[k] = v
	}
	return out, nil
}

// problems prints what is wrong with settings and, if there is anything, ends
// with the status of a wrong configuration. text is for people when nothing is.
func (a *app) problems(ps []pitrix.Problem, text string) error {
	res := struct {
		Problems []pitrix.Problem `json:"problems"`
	}{append([]pitrix.Problem{}, ps...)}
	err := a.result(res, func(w io.Writer) {
		for _, p := range ps {
			fmt.Fprintln(w, p)
		}
		if len(ps) == 0 {
			fmt.Fprintln(w, text)
		}
	})
	if err == nil && len(ps) > 0 {
		return &exitError{code: exitConfig}
	}
	return err
}
