package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

// nginxFlags say whose nginx is meant: that of this machine, of a host
// (--host), or, for reading, a copy of its files (--root).
type nginxFlags struct {
	ssh              sshFlags
	root, host, conf string
	binary           string
}

func (n *nginxFlags) flags(a *app, cmd *cobra.Command) {
	n.ssh.flags(a, cmd)
	f := cmd.PersistentFlags()
	f.StringVar(&n.root, "root", "", a.t("read a copy of the files below this directory, absolute includes too", "读取此目录下的配置副本，绝对路径的 include 亦在其中"))
	f.StringVar(&n.host, "host", "", a.t("SSH target of the host (default: this machine)", "主机的 SSH 目标（默认本机）"))
	f.StringVarP(&n.conf, "conf", "c", "", a.t("main file (default: that of the running nginx)", "主配置文件（默认取运行中的 nginx 所用）"))
	f.StringVar(&n.binary, "binary", "", a.t("the nginx program (default: that of the running nginx)", "nginx 程序（默认取运行中的 nginx）"))
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
		if s.conf == "" {
			s.conf = "/etc/nginx/nginx.conf"
		}
		return s, nil
	case s.conf == "":
	case n.host == "":
		// nginx itself would look a relative name up where it was installed.
		conf, err := filepath.Abs(s.conf)
		if err != nil {
			return nil, err
		}
		s.conf = filepath.ToSlash(conf)
	case s.conf[0] != '/':
		return nil, usagef("-c %s: the main file of another host needs its absolute name", s.conf)
	}
	s.server = &nginx.Server{Host: localHost{}, Binary: n.binary, Conf: s.conf}
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

func newNginx(a *app) *cobra.Command {
	n := &nginxFlags{}
	cmd := &cobra.Command{Use: "nginx", Short: a.t("nginx configuration files, byte for byte", "nginx 配置文件，逐字节保真")}
	n.flags(a, cmd)
	cmd.AddCommand(newNginxReads(a, n)...)
	cmd.AddCommand(newNginxEdits(a, n)...)
	cmd.AddCommand(newNginxTest(a, n), newNginxReload(a, n))
	return cmd
}

// query reads HOST[:PORT].
func query(s string) (nginx.Query, error) {
	q, err := nginx.ParseQuery(s)
	if err != nil {
		return q, &usageError{err}
	}
	return q, nil
}
