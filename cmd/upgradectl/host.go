package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

// oneHost is what the commands of `host` have in common.
type oneHost struct {
	*app
	execution
	ssh sshFlags
	job upgrade.HostJobOptions
}

func newHost(a *app) *cobra.Command {
	h := &oneHost{app: a}
	cmd := &cobra.Command{
		Use:   "host",
		Short: a.t("check, upgrade, stop and start one host over SSH, with what the steps of a run do", "通过 SSH 检查、升级、停启一台主机，所做与运行中的步骤相同"),
		Long: a.t(`Does on one host what the steps of a run do there, without a plan and without a cloud.
HOST is an alias of ssh_config, or [USER@]NAME[:PORT]. Traffic is not looked at: take the
host out of it first.

Commands that change something show what they would do unless given --execute. With it
the work runs detached on the host, under a key: a lost connection, Ctrl-C or the end of
this program does not end it, and the same command finds it again, or its result. Once a
result was shown, the same command begins anew; with --key of your own it never does.

Exit status: 0 done, or nothing speaks against it; 4 refused, nothing was touched;
6 stopped on the way, the same command goes on; 9 somebody else changes the host.`,
			`在一台主机上执行运行中各步骤所做的操作，不需要计划，也不需要云。HOST 是 ssh_config 中的别名，
或 [USER@]NAME[:PORT]。不检查流量：请先将主机从流量中移出。

会作更改的命令不带 --execute 时只显示将要做什么；带上后在主机上以一个键名脱离会话运行：
连接断开、Ctrl-C 或本程序结束都不会中断它，再次执行相同命令即可找回它或其结果。
结果显示过一次后，相同命令会重新开始；自行指定 --key 则不会重复执行。

退出状态：0 完成，或没有阻碍；4 被拒绝，未作任何更改；6 中途停下，再次执行相同命令可继续；
9 他人正在更改该主机。`),
	}
	h.ssh.flags(a, cmd)
	cmd.AddCommand(newHostCheck(h), newHostUpgrade(h), newHostKernel(h), newHostDocker(h), newHostServices(h))
	return cmd
}

// jobFlags are of commands that run something detached.
func (h *oneHost) jobFlags(cmd *cobra.Command) {
	h.execution.flag(h.app, cmd)
	f := cmd.Flags()
	f.StringVar(&h.job.Key, "key", "", h.t("name of the work on the host, a-z 0-9 -; what is done under it is not done again (default: derived from the arguments)", "该项工作在主机上的键名（a-z 0-9 -），同一键名不会重复执行（默认由参数得出）"))
	f.StringVar(&h.job.Actor, "actor", "", h.t("who acts; default: the user of the process", "操作人；默认为当前用户"))
	f.DurationVar(&h.job.Timeout, "timeout", 2*time.Hour, h.t("longest wait; the work goes on", "最长等待时间；工作本身继续"))
	f.DurationVar(&h.job.Poll, "poll", 3*time.Second, h.t("time between two questions", "两次查询的间隔"))
}

// loadConfig gives a configuration; an empty one without a file.
func loadConfig(file string) (*upgrade.Config, error) {
	if file == "" {
		return &upgrade.Config{}, nil
	}
	return upgrade.LoadConfig(file)
}

// with connects with nothing yet, but makes the way to target and calls do.
func (h *oneHost) with(ctx context.Context, do func(e *upgrade.Env) error) (err error) {
	if h.job.Poll < 0 || h.job.Timeout < 0 {
		return usagef(h.t("--poll and --timeout are more than 0", "--poll 与 --timeout 须大于 0"))
	}
	cfg, err := h.ssh.config(ctx, h.app)
	if err != nil {
		return err
	}
	e, err := upgrade.NewHostEnv(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	h.job.Progress = func(s string) { h.progress("%s", s) }
	return do(e)
}

// refused turns a refusal into its exit status; the findings were printed.
func (h *oneHost) refused(err error) error {
	var r *upgrade.RefusedError
	if errors.As(err, &r) {
		return &exitError{exitRefused, fmt.Errorf(h.t("refused, nothing was touched: %w", "已拒绝，未作任何更改：%w"), err)}
	}
	return err
}

// stopped is the exit status of work that can be gone on with.
func (h *oneHost) stopped(ctx context.Context, err error, resumable bool) error {
	switch {
	case err == nil || ctx.Err() != nil || upgrade.ErrorStatus(err) != upgrade.ExitError:
		return err
	case resumable || errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitFailed, fmt.Errorf(h.t("%w (the same command goes on from here)", "%w（再次执行相同命令可继续）"), err)}
	}
	return err
}

// A hostJob is how the work of a command stands, for people and for machines.
type hostJob struct {
	v          any
	text       func(w io.Writer)
	key, phase string
	known      bool // there is something to show, whatever went wrong
	proved     bool // the job has ended well; what is left of the work is not the job's
}

// finish shows how a job stands, writes down on the host that its result was
// shown, and gives err its exit status.
func (h *oneHost) finish(ctx context.Context, e *upgrade.Env, target string, j hostJob, err error) error {
	if err == nil || j.known {
		err = errors.Join(err, h.result(j.v, j.text))
	}
	ended := h.execute && (j.phase == "exited" || j.phase == "lost")
	if ended && (err == nil || !j.proved) && ctx.Err() == nil {
		err = errors.Join(err, upgrade.ReportHostJob(ctx, e, target, j.key))
	}
	return h.stopped(ctx, h.refused(err), j.proved)
}

// strategyFlags say how a host's system is upgraded.
type strategyFlags struct {
	c                          upgrade.StrategyConfig
	strategy, script, precheck string
}

func (s *strategyFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	names := strings.Join(upgrade.HostStrategies(), ", ")
	f.StringVar(&s.strategy, "strategy", "", fmt.Sprintf(a.t("one of %s (default: everything, with the host's package manager)", "%s 之一（默认用主机自己的包管理器全量更新）"), names))
	f.StringVar(&s.script, "script", "", a.t("of strategy script: a file on this machine, run on the host as root", "策略 script 所用：本机文件，在主机上以 root 运行"))
	f.BoolVar(&s.c.InReboot, "in-reboot", false, a.t("of strategy script: the script prepares and the reboot upgrades, as leapp's does; --release says when it is over", "策略 script 所用：脚本只作准备，由重启完成升级（如 leapp）；以 --release 判断何时完成"))
	f.StringVar(&s.c.From, "from", "", a.t("text that the release must contain beforehand", "升级前发行版名称必须包含的文字"))
	f.StringVar(&s.c.Vault, "vault", "", a.t("URL of a CentOS 7 tree that still exists", "仍存在的 CentOS 7 软件树 URL"))
	f.StringSliceVar(&s.c.Accept, "accept", nil, a.t("IDs of findings that you have judged harmless", "已判断为无害的检查项 ID"))
	f.StringSliceVar(&s.c.ExcludeOK, "exclude-ok", nil, a.t("excludes, locks and holds that are meant", "有意设置的 exclude、锁定与保留"))
	f.StringSliceVar(&s.c.UnitsOK, "unit-ok", nil, a.t("units that may have failed afterwards", "升级后允许失败的单元"))
	f.StringVar(&s.c.Kernel, "kernel", "", a.t("kernel that must run afterwards", "升级后必须运行的内核"))
	f.StringVar(&s.c.Release, "release", "", a.t("text that the release must contain afterwards", "升级后发行版名称必须包含的文字"))
}

func (s *strategyFlags) config(a *app) (upgrade.StrategyConfig, error) {
	c := s.c
	if s.strategy != "" {
		names := upgrade.HostStrategies()
		if !slices.Contains(names, s.strategy) {
			return c, usagef(a.t("--strategy is one of %s, not %q", "--strategy 须为 %s 之一，不能是 %q"), strings.Join(names, ", "), s.strategy)
		}
	}
	to(&c.Strategy, s.strategy)
	for _, x := range []struct {
		flag string
		used bool
	}{{"--script", s.script != ""}, {"--precheck", s.precheck != ""}, {"--in-reboot", c.InReboot}} {
		if x.used && s.strategy != "script" {
			return c, usagef(a.t("%s is of --strategy script", "%s 用于 --strategy script"), x.flag)
		}
	}
	if c.InReboot && c.Release == "" {
		return c, usagef(a.t("--in-reboot needs --release: nothing else tells that the upgrade is over", "--in-reboot 需要 --release：否则无从得知升级何时完成"))
	}
	for _, x := range []struct {
		file string
		to   *string
	}{{s.script, &c.Script}, {s.precheck, &c.Precheck}} {
		if x.file == "" {
			continue
		}
		b, err := os.ReadFile(x.file)
		if err != nil {
			return c, err
		}
		*x.to = string(b)
	}
	return c, nil
}

// to sets a value whose type is of a package that commands do not import.
func to[T ~string](p *T, s string) { *p = T(s) }

func newHostCheck(h *oneHost) *cobra.Command {
	var s strategyFlags
	var config string
	cmd := &cobra.Command{
		Use:   "check HOST",
		Short: h.t("say what a host is, and everything that speaks against upgrading it; nothing is changed", "说明主机现状以及升级的所有阻碍；不作任何更改"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(config)
			if err != nil {
				return err
			}
			c, err := s.config(h.app)
			if err != nil {
				return err
			}
			return h.with(cmd.Context(), func(e *upgrade.Env) error {
				r, err := upgrade.CheckHost(cmd.Context(), e, args[0], cfg, c)
				if err != nil {
					return err
				}
				if err := h.result(r, func(w io.Writer) { h.printCheck(w, r) }); err != nil {
					return err
				}
				if len(r.Blocking) > 0 {
					return &exitError{code: exitRefused}
				}
				return nil
			})
		},
	}
	s.flags(h.app, cmd)
	cmd.Flags().StringVarP(&config, "config", "c", "", h.t("upgrade.yaml, for its services and its way to replace Docker", "upgrade.yaml，取其中的服务与 Docker 替换方式"))
	return cmd
}

func newHostUpgrade(h *oneHost) *cobra.Command {
	var s strategyFlags
	var reboot bool
	cmd := &cobra.Command{
		Use:   "upgrade HOST",
		Short: h.t("upgrade the host's operating system, detached, and prove the result", "脱离会话升级主机操作系统，并核实结果"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.config(h.app)
			if err != nil {
				return err
			}
			if c.InReboot && !reboot {
				return usagef(h.t("--in-reboot needs --reboot, which is what upgrades the host", "--in-reboot 需要 --reboot：升级由重启完成"))
			}
			ctx := cmd.Context()
			return h.with(ctx, func(e *upgrade.Env) error {
				do := upgrade.PlanHostUpgrade
				if h.execute {
					do = upgrade.UpgradeHost
				}
				r, err := do(ctx, e, args[0], c, reboot, h.job)
				if r == nil {
					return err
				}
				return h.finish(ctx, e, args[0], hostJob{
					r, func(w io.Writer) { h.printUpgrade(w, r, reboot) }, r.Key, r.Phase, r.Assessment != nil, r.Upgraded != nil,
				}, err)
			})
		},
	}
	s.flags(h.app, cmd)
	h.jobFlags(cmd)
	cmd.Flags().StringVar(&s.precheck, "precheck", "", h.t("of strategy script: a file on this machine, run on the host as root before anything else; it changes nothing, and a status other than 0 refuses the upgrade", "策略 script 所用：本机文件，先于一切在主机上以 root 运行，不作更改；退出状态非 0 即拒绝升级"))
	cmd.Flags().BoolVar(&reboot, "reboot", false, h.t("reboot afterwards if the gate before it passes, and prove the new boot", "通过重启前检查后重启，并核实新的启动"))
	return cmd
}

func newHostDocker(h *oneHost) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "docker HOST",
		Short: h.t("replace the host's Docker by docker-ce, detached, and bring its containers back", "脱离会话将主机的 Docker 替换为 docker-ce，并恢复其容器"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(config)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return h.with(ctx, func(e *upgrade.Env) error {
				do := upgrade.PlanHostDocker
				if h.execute {
					do = upgrade.UpgradeHostDocker
				}
				r, err := do(ctx, e, args[0], cfg, h.job)
				if r == nil {
					return err
				}
				return h.finish(ctx, e, args[0], hostJob{
					r, func(w io.Writer) { h.printDocker(w, r) }, r.Key, r.Phase, r.Plan != nil, r.Result != nil,
				}, err)
			})
		},
	}
	h.jobFlags(cmd)
	cmd.Flags().StringVarP(&config, "config", "c", "", h.t("upgrade.yaml, for its key docker and the directories of its compose projects", "upgrade.yaml，取其中的 docker 键与 compose 工程目录"))
	return cmd
}
