package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newHostServices(h *oneHost) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "services",
		Short: h.t("list, stop and start the services that upgrade.yaml names", "列出、停止、启动 upgrade.yaml 中的服务"),
	}
	var address, config string
	add := func(use, short string, run func(ctx context.Context, s *hostServices) error, change bool) {
		c := &cobra.Command{
			Use: use + " HOST", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				cfg, err := loadConfig(config)
				if err != nil {
					return err
				}
				if len(cfg.Services) == 0 {
					return &exitError{exitConfig, fmt.Errorf(h.t("%s names no services", "%s 中没有服务"), config)}
				}
				s := &hostServices{oneHost: h, cfg: cfg, target: args[0], ip: address}
				if s.ip == "" && args[0] == cfg.Host {
					s.ip = cfg.Address
				}
				if s.ip == "" {
					s.ip = "127.0.0.1" // as the host itself sees it
				}
				if net.ParseIP(s.ip) == nil {
					return usagef(h.t("--address is an IP address, not %q", "--address 须为 IP 地址，不能是 %q"), s.ip)
				}
				return h.with(cmd.Context(), func(e *upgrade.Env) error {
					s.env = e
					return run(cmd.Context(), s)
				})
			},
		}
		c.Flags().StringVarP(&config, "config", "c", "upgrade.yaml", h.t("configuration file", "配置文件"))
		c.Flags().StringVar(&address, "address", "", h.t("where the services are asked, as the host sees it (default: address of the configuration when HOST is its host, else 127.0.0.1)", "从主机上访问服务所用的地址（HOST 与配置的 host 相同时默认取其 address，否则 127.0.0.1）"))
		if change {
			h.jobFlags(c)
		}
		cmd.AddCommand(c)
	}
	add("list", h.t("which services run, and whether they are healthy", "服务是否运行、是否健康"), func(ctx context.Context, s *hostServices) error {
		return s.list(ctx)
	}, false)
	add("stop", h.t("stop them as 4.4 does; what starting them again needs is kept on the host", "按 4.4 停止；再次启动所需的内容保存在主机上"), func(ctx context.Context, s *hostServices) error {
		return s.change(ctx, "stop")
	}, true)
	add("start", h.t("start them as 3.7 and 3.8 do, and wait until each is healthy", "按 3.7、3.8 启动，并等待各服务健康"), func(ctx context.Context, s *hostServices) error {
		return s.change(ctx, "start")
	}, true)
	return cmd
}

type hostServices struct {
	*oneHost
	cfg        *upgrade.Config
	env        *upgrade.Env
	target, ip string
}

// servicesResult is what the three commands say.
type servicesResult struct {
	Host     string                `json:"host"`
	Executed bool                  `json:"executed"`
	Changes  []string              `json:"changes"` // what is done, or was
	Services []upgrade.HostService `json:"services"`
}

func (s *hostServices) list(ctx context.Context) error {
	all, err := upgrade.ListHostServices(ctx, s.cfg, s.env, s.target, s.ip)
	if err != nil {
		return err
	}
	res := servicesResult{Host: s.target, Changes: []string{}, Services: all}
	if err := s.result(res, func(w io.Writer) { s.print(w, all) }); err != nil {
		return err
	}
	for _, x := range all {
		if !x.Running || x.Problem != "" {
			return &exitError{code: exitRefused}
		}
	}
	return nil
}

func (s *hostServices) print(w io.Writer, all []upgrade.HostService) {
	var rows [][]string
	for _, x := range all {
		state := s.t("stopped", "未运行")
		if x.Running {
			state = s.t("running", "运行中")
		}
		health := s.t("healthy", "健康")
		if x.Problem != "" {
			health = x.Problem
		}
		ports := strings.Trim(strings.ReplaceAll(fmt.Sprint(x.Service.Ports), " ", ","), "[]")
		rows = append(rows, []string{x.Service.Name, x.Service.Kind, dash(ports), state, health})
	}
	table(w, []string{s.t("SERVICE", "服务"), s.t("KIND", "类型"), s.t("PORTS", "端口"), s.t("STATE", "状态"), s.t("HEALTH", "健康")}, rows)
}

func (s *hostServices) change(ctx context.Context, verb string) error {
	all, err := upgrade.ListHostServices(ctx, s.cfg, s.env, s.target, s.ip)
	if err != nil {
		return err
	}
	res := servicesResult{Host: s.target, Changes: []string{}, Services: all}
	for _, x := range all {
		if x.Running == (verb == "stop") || verb == "start" && x.Problem != "" {
			res.Changes = append(res.Changes, fmt.Sprintf("%s %s (%s)", verb, x.Service.Name, x.Service.Kind))
		}
	}
	// A start that was cut off may have left nothing to start, and what was kept
	// for it.
	if s.execute && (len(res.Changes) > 0 || verb == "start") {
		err = upgrade.HoldHost(ctx, s.env, s.target, "services", s.job, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, s.job.Timeout)
			defer cancel()
			if verb == "stop" {
				return upgrade.StopHostServices(ctx, s.cfg, s.env, s.target, s.job.Progress)
			}
			return upgrade.StartHostServices(ctx, s.cfg, s.env, s.target, s.ip, s.job.Progress)
		})
		if err != nil {
			return s.stopped(ctx, s.refused(err), true) // what is stopped or started already stays so
		}
		res.Executed = true
		if res.Services, err = upgrade.ListHostServices(ctx, s.cfg, s.env, s.target, s.ip); err != nil {
			return err
		}
	}
	return s.result(res, func(w io.Writer) {
		for _, c := range res.Changes {
			fmt.Fprintln(w, c)
		}
		switch {
		case len(res.Changes) == 0:
			fmt.Fprintln(w, s.t("nothing to do", "无需更改"))
		case res.Executed:
			s.print(w, res.Services)
		default:
			fmt.Fprintln(w, s.unchanged())
		}
	})
}
