package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

// openServer opens a side on which programs can be run.
func (n *nginxFlags) openServer(cmd *cobra.Command, a *app) (*nginxSide, error) {
	if n.root != "" {
		return nil, usagef("%s needs a running nginx: --host, or none for this machine, instead of --root", cmd.Name())
	}
	return n.open(cmd.Context(), a)
}

func newNginxTest(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: a.t("nginx -t on the host", "在主机上执行 nginx -t"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := n.openServer(cmd, a)
			if err != nil {
				return err
			}
			defer s.close()
			type result struct {
				OK bool `json:"ok"`
				// Output is what nginx says, positions included; Status its exit
				// status, -1 when a signal killed it.
				Output []string `json:"output"`
				Status int      `json:"status"`
			}
			res := result{OK: true, Output: []string{}}
			err = s.server.Test(cmd.Context())
			var refused *nginx.TestError
			if err != nil && !errors.As(err, &refused) {
				return unclear(err)
			}
			if refused != nil {
				res = result{Output: splitLines(refused.Output), Status: refused.Status}
			}
			text := func(w io.Writer) { fmt.Fprintln(w, a.t("the configuration is valid", "配置有效")) }
			if refused != nil && !a.json {
				return refused
			}
			if err := a.result(res, text); err != nil || refused == nil {
				return err
			}
			return &exitError{code: exitFailure} // the result says why
		},
	}
}

func newNginxReload(a *app, n *nginxFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "reload",
		Short: a.t("test, reload and wait until new workers serve", "测试、重载并等待新 worker 接管"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := n.openServer(cmd, a)
			if err != nil {
				return err
			}
			defer s.close()
			ctx := cmd.Context()
			type worker struct {
				PID          int    `json:"pid"`
				State        string `json:"state"`
				ShuttingDown bool   `json:"shutting_down"`
			}
			res := struct {
				Executed  bool     `json:"executed"`
				Old       []worker `json:"old"`
				Workers   []worker `json:"workers"`
				LogUnread string   `json:"log_unread,omitempty"`
			}{x.execute, []worker{}, []worker{}, ""}
			list := func(workers []nginx.Worker) []worker {
				out := []worker{}
				for _, w := range workers {
					out = append(out, worker{w.PID, strings.TrimPrefix(w.Title, "nginx: "), w.ShuttingDown})
				}
				return out
			}
			if err := s.server.Test(ctx); err != nil {
				return refusedReload(err)
			}
			if !x.execute {
				workers, err := s.server.Workers(ctx)
				if err != nil {
					return refusedReload(err)
				}
				res.Workers = list(workers)
				a.progress("%s", a.t("the configuration is valid; nothing was reloaded; add --execute to do it", "配置有效；未重载；加 --execute 执行"))
			} else {
				r, err := s.server.Reload(ctx)
				if err != nil {
					return refusedReload(err)
				}
				res.Old, res.Workers, res.LogUnread = list(r.Old), list(r.Workers), r.LogUnread
				if r.LogUnread != "" {
					a.progress(a.t("nginx's error log could not be read: %s", "无法读取 nginx 错误日志：%s"), r.LogUnread)
				}
			}
			return a.result(res, func(w io.Writer) {
				for _, p := range res.Workers {
					fmt.Fprintf(w, "%d %s\n", p.PID, p.State)
				}
			})
		},
	}
	x.flag(a, cmd)
	return cmd
}

// unclear gives an error its status when the command line does not say which
// nginx is meant.
func unclear(err error) error {
	if as[*nginx.AmbiguousError](err) {
		return &exitError{exitUsage, err}
	}
	return err
}

// refusedReload gives the status of a check to what stood against a reload
// before nginx was signalled.
func refusedReload(err error) error {
	if as[*nginx.TestError](err) || errors.Is(err, nginx.ErrNotRunning) || errors.Is(err, nginx.ErrNoNginx) {
		return &exitError{exitRefused, err}
	}
	return unclear(err)
}

func splitLines(s string) []string {
	if s == "" {
		return []string{}
	}
	return strings.Split(s, "\n")
}
