package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	f.StringVarP(&n.conf, "conf", "c", "/etc/nginx/nginx.conf", a.t("main file, as nginx calls it", "主配置文件"))
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

	cmd.AddCommand(newNginxEdits(a, n)...)
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
