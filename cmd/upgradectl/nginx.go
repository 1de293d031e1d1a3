package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
	"github.com/upgradectl/upgradectl/nginx"
)

// nginxFlags say whose nginx is meant: a copy of its files (--root), that of
// a host (--host), or that of this machine.
type nginxFlags struct {
	ssh              sshFlags
	root, host, conf string
	binary           string
}

func (n *nginxFlags) flags(a *app, cmd *cobra.Command) {
	n.ssh.flags(a, cmd)
	f := cmd.PersistentFlags()
	f.StringVar(&n.root, "root", "", a.t("work on files below this directory: no program is run, nothing reloaded", "只处理此目录下的文件：不运行程序，不重载"))
	f.StringVar(&n.host, "host", "", a.t("SSH target of the host (default: this machine)", "主机的 SSH 目标（默认本机）"))
	f.StringVar(&n.conf, "conf", "/etc/nginx/nginx.conf", a.t("main file, as nginx calls it", "主配置文件"))
	f.StringVar(&n.binary, "binary", "nginx", a.t("the nginx program on the host", "主机上的 nginx 程序"))
}

// nginxSide is one place where nginx files are.
type nginxSide struct {
	server *nginx.Server // nil: files only
	root   string
	conf   string
	close  func() error
}

func (n *nginxFlags) open(ctx context.Context, a *app) (*nginxSide, error) {
	s := &nginxSide{root: n.root, conf: n.conf, close: func() error { return nil }}
	switch {
	case n.root != "" && n.host != "":
		return nil, usagef("--root and --host exclude each other")
	case n.root != "":
		return s, nil
	}
	s.server = &nginx.Server{Host: localHost{}, Binary: n.binary, Conf: n.conf}
	if n.host != "" {
		c, err := n.ssh.dial(ctx, a, n.host)
		if err != nil {
			return nil, err
		}
		s.server.Host, s.close = c, c.Close
	}
	return s, nil
}

func (s *nginxSide) load(ctx context.Context) (*nginx.Tree, error) {
	if s.server != nil {
		return s.server.Load(ctx)
	}
	return nginx.Load(ctx, nginx.DirFS(s.root), s.conf)
}

func (s *nginxSide) apply(ctx context.Context, c *nginx.Change) error {
	if s.server != nil {
		_, err := s.server.Apply(ctx, c)
		return err
	}
	return writeLocal(s.root, c.Files())
}

// writeLocal puts changed files below root in place. A file that is no longer
// as it was read is left alone; when one cannot be written, those written
// before it are put back.
func writeLocal(root string, files []nginx.FileChange) (err error) {
	type target struct {
		path string
		mode os.FileMode
		nginx.FileChange
	}
	targets := make([]target, 0, len(files))
	for _, f := range files {
		path, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(f.Name)))
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		now, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, f.Before) {
			return &exitError{exitDrift, fmt.Errorf("%s was changed while it was looked at; nothing was written, run the command again", path)}
		}
		targets = append(targets, target{path, info.Mode(), f})
	}
	for i, t := range targets {
		if err := atomicfile.Write(t.path, t.After, t.mode.Perm()); err != nil {
			err = fmt.Errorf("cannot write %s: %w", t.path, err)
			for _, done := range slices.Backward(targets[:i]) {
				if e := atomicfile.Write(done.path, done.Before, done.mode.Perm()); e != nil {
					err = errors.Join(err, fmt.Errorf("cannot put %s back: %w", done.path, e))
				}
			}
			return err
		}
	}
	return nil
}

func newNginx(a *app) *cobra.Command {
	n := &nginxFlags{}
	cmd := &cobra.Command{Use: "nginx", Short: a.t("nginx configuration files, byte for byte", "nginx 配置文件，逐字节保真")}
	n.flags(a, cmd)
	cmd.AddCommand(newNginxCat(a, n), newNginxRefs(a, n))

	edits := []struct {
		use, en, zh string
		args        int
		edit        func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error)
	}{
		{"disable HOST[:PORT]", "comment out the upstream server lines of a host", "注释掉某主机的 upstream server 行", 1,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.Disable(q, tag)
			}},
		{"restore", "put back what disable commented out", "恢复 disable 注释掉的行", 0,
			func(t *nginx.Tree, _ []string, tag string) (*nginx.Change, error) { return t.Restore(tag) }},
		{"add HOST[:PORT] NEWHOST", "add a server like another to every upstream that has it", "在含有某主机的每个 upstream 中增加同样的 server 行", 2,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.AddServer(q, args[1], tag)
			}},
		{"remove", "take out what add put in", "移除 add 增加的行", 0,
			func(t *nginx.Tree, _ []string, tag string) (*nginx.Change, error) { return t.RemoveAdded(tag) }},
		{"replace HOST[:PORT] NEWHOST", "point proxy_pass of a host to another one; the way back is the same with the hosts swapped", "将直接 proxy_pass 到某主机的改指另一主机；互换主机即可恢复", 2,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.Replace(q, args[1], tag)
			}},
	}
	for _, e := range edits {
		cmd.AddCommand(newNginxEdit(a, n, e.use, a.t(e.en, e.zh), e.args, e.edit))
	}
	cmd.AddCommand(
		newNginxControl(a, n, "test", a.t("nginx -t on the host", "在主机上执行 nginx -t"), false, (*nginx.Server).Test),
		newNginxControl(a, n, "reload", a.t("reload and wait until new workers serve", "重载并等待新 worker 接管"), true, (*nginx.Server).Reload))
	return cmd
}

// query reads HOST[:PORT].
func query(s string) (nginx.Query, error) {
	if _, err := netip.ParseAddr(s); err == nil || !strings.Contains(s, ":") {
		if s == "" {
			return nginx.Query{}, usagef("HOST is empty")
		}
		return nginx.Query{Host: s}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return nginx.Query{}, usagef("%q is not HOST or HOST:PORT", s)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || p == 0 {
		return nginx.Query{}, usagef("%q has no port between 1 and 65535", s)
	}
	return nginx.Query{Host: host, Port: int(p)}, nil
}

func newNginxCat(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "cat",
		Short: a.t("print every file nginx reads, in its order", "按读取顺序输出全部配置文件"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(cmd.Context())
			if err != nil {
				return err
			}
			type file struct {
				Name string `json:"name"`
				Text string `json:"text"`
			}
			files := []file{}
			for _, f := range t.Files() {
				files = append(files, file{f.Name(), string(f.Bytes())})
			}
			return a.result(files, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintf(w, "# configuration file %s:\n%s", f.Name, f.Text)
					if !strings.HasSuffix(f.Text, "\n") {
						fmt.Fprintln(w)
					}
				}
			})
		},
	}
}

func newNginxRefs(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "refs HOST[:PORT]",
		Short: a.t("where the files refer to a host, commented lines included", "查找引用某主机之处，含被注释的行"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := query(args[0])
			if err != nil {
				return err
			}
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(cmd.Context())
			if err != nil {
				return err
			}
			refs := t.Refs(q)
			return a.result(nonNil(refs), func(w io.Writer) {
				for _, r := range refs {
					fmt.Fprintf(w, "%s:%d:%d: %s %s in %s", r.File, r.Line, r.Col, r.Kind, r.Addr, dash(r.Context))
					if r.Tag != "" {
						fmt.Fprintf(w, " (tag %s)", r.Tag)
					}
					if !r.Certain {
						fmt.Fprintf(w, " (not certain: %s)", r.Reason)
					}
					fmt.Fprintln(w)
				}
			})
		},
	}
}

func newNginxEdit(a *app, n *nginxFlags, use, short string, args int, edit func(*nginx.Tree, []string, string) (*nginx.Change, error)) *cobra.Command {
	var execute bool
	var tag string
	cmd := &cobra.Command{
		Use:   use + " --tag TAG",
		Short: short,
		Args:  cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if tag == "" {
				return usagef("--tag TAG names the change, so that it can be found again")
			}
			s, err := n.open(ctx, a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(ctx)
			if err != nil {
				return err
			}
			c, err := edit(t, args, tag)
			if err != nil {
				return err
			}
			for _, text := range c.Warnings {
				a.progress("%s", text)
			}
			if execute && !c.Empty() {
				if err := s.apply(ctx, c); err != nil {
					return err
				}
			}
			res := struct {
				Executed bool     `json:"executed"`
				Files    []string `json:"files"`
				Diff     string   `json:"diff"`
			}{execute && !c.Empty(), []string{}, c.Diff()}
			for _, f := range c.Files() {
				res.Files = append(res.Files, f.Name)
			}
			if !a.json {
				switch {
				case c.Empty():
					a.progress("%s", a.t("nothing to do", "无需更改"))
				case res.Executed:
					a.progress("%s", a.t("done", "已执行"))
				default:
					a.progress("%s", a.t("nothing was changed; add --execute to do it", "未作任何更改；加 --execute 执行"))
				}
			}
			// The diff alone stands on standard output: it can be piped to patch.
			return a.result(res, func(w io.Writer) { fmt.Fprint(w, res.Diff) })
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "", a.t("name of the change, written into the marker comment", "本次更改的标记名，写入注释"))
	cmd.Flags().BoolVar(&execute, "execute", false, a.t("write, test and reload; without this flag the diff is shown only", "写入、测试并重载；不带此参数只显示差异"))
	return cmd
}

func newNginxControl(a *app, n *nginxFlags, use, short string, changes bool, do func(*nginx.Server, context.Context) error) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.root != "" {
				return usagef("%s needs a running nginx: --host, or none for this machine, instead of --root", use)
			}
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			run := func() error { return do(s.server, cmd.Context()) }
			if changes {
				return x.change(a, []string{"test and reload nginx of " + s.conf}, run)
			}
			if err := run(); err != nil {
				return err
			}
			return a.result(struct {
				OK bool `json:"ok"`
			}{true}, func(w io.Writer) { fmt.Fprintln(w, a.t("the configuration is valid", "配置有效")) })
		},
	}
	if changes {
		x.flag(a, cmd)
	}
	return cmd
}
