package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newUnlock(a *app) *cobra.Command {
	s := &sshFlags{}
	var (
		host, run, reason, by string
		wait                  time.Duration
		execute               bool
	)
	cmd := &cobra.Command{
		Use:   "unlock --host HOST | --run RUN",
		Short: a.t("free a host that a dead run holds, or a run that another machine has worked on", "释放被已中断的运行占用的主机，或曾在另一台机器上操作的运行"),
		Long: a.t(`A run holds a lease on every host that it changes, until it has ended. Where it
cannot end any more (its directory is lost), unlock frees the host: it watches
the lease for --wait, and breaks it only if its holder gave no sign of life.
The holder shows one every 20 seconds while it works; a run that waits for an
approval shows none, so ask the one who is named first.

A run whose directory was brought here from another machine is refused, for two
copies of one run would do everything twice; with --run it may go on here.`,
			`运行会在其改动的每台主机上持有租约，直到结束。若它已无法结束（例如运行目录丢失），
可用 unlock 释放主机：观察 --wait 时长，只有持有者毫无活动迹象时才会解除。
工作中的持有者每 20 秒留下一次心跳；等待审批的运行没有心跳，请先询问租约上写明的人。

运行目录若来自另一台机器，将被拒绝，因为同一运行的两个副本会把一切做两遍；
使用 --run 可允许其在本机继续。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (host == "") == (run == "") {
				return usagef(a.t("give --host or --run", "请指定 --host 或 --run 之一"))
			}
			if execute && strings.TrimSpace(reason) == "" {
				return usagef(a.t("--execute needs --reason", "--execute 需要 --reason"))
			}
			if wait < time.Second {
				return usagef(a.t("--wait is at least 1s, not %v", "--wait 至少为 1s，不能是 %v"), wait)
			}
			if run != "" {
				return unlockRun(a, run, by, reason, execute)
			}
			ctx := cmd.Context()
			c, err := s.dial(ctx, a, host)
			if err != nil {
				return err
			}
			defer c.Close()
			out := struct {
				Host   string         `json:"host"`
				Lease  *upgrade.Lease `json:"lease"`
				Broken bool           `json:"broken"`
			}{Host: host}
			if out.Lease, err = upgrade.GetLease(ctx, c); err != nil {
				return err
			}
			if out.Lease != nil && execute {
				a.progress(a.t("watching the lease of run %s for %v", "观察运行 %s 的租约 %v"), out.Lease.Run, wait)
				if out.Broken, err = upgrade.UnlockHost(ctx, c, by, reason, wait); upgrade.ErrorStatus(err) == upgrade.ExitLocked {
					return &exitError{exitLocked, fmt.Errorf(a.t("the lease is alive and stays: %w", "租约仍在使用，保持不变：%w"), err)}
				}
				if err != nil {
					return err
				}
			}
			return a.result(out, func(w io.Writer) {
				switch l := out.Lease; {
				case l == nil:
					fmt.Fprintf(w, a.t("host %s: no lease\n", "主机 %s：没有租约\n"), host)
				case out.Broken:
					fmt.Fprintf(w, a.t("host %s: the lease of run %s is broken\n", "主机 %s：运行 %s 的租约已解除\n"), host, l.Run)
				default:
					fmt.Fprintf(w, a.t("host %s: held by run %s of %s since %s, epoch %d\n", "主机 %s：由运行 %s（%s）持有，自 %s 起，纪元 %d\n"), host, l.Run, l.Holder, l.Since, l.Epoch)
					if !execute {
						fmt.Fprintln(w, a.t("nothing was changed; break it with --execute --reason TEXT if that run is dead", "未做任何改动；若该运行已中断，请用 --execute --reason 说明 解除"))
					}
				}
			})
		},
	}
	s.flags(a, cmd)
	f := cmd.Flags()
	f.StringVar(&host, "host", "", a.t("SSH target", "SSH 目标"))
	f.StringVar(&run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	f.StringVar(&reason, "reason", "", a.t("why; kept on the host, or in the journal", "原因，记录在主机上或日志中"))
	f.StringVar(&by, "actor", "", a.t("who acts; default: the user of the process", "操作人；默认为当前用户"))
	f.DurationVar(&wait, "wait", time.Minute, a.t("how long the lease must stand still", "租约须静止的时长"))
	f.BoolVar(&execute, "execute", false, a.t("do it", "执行"))
	return cmd
}

// unlockRun lets a run go on here that another machine has worked on last.
func unlockRun(a *app, name, by, reason string, execute bool) error {
	dir, err := upgrade.FindRun(name)
	if err != nil {
		return &exitError{code: exitRefused, err: err}
	}
	out := struct {
		Run      string `json:"run"`
		Dir      string `json:"dir"`
		LastBy   string `json:"last_by"`
		Unlocked bool   `json:"unlocked"`
	}{Dir: dir, Unlocked: execute}
	if out.Run, out.LastBy, err = upgrade.LastWorkedOn(dir); err != nil {
		return runError(err)
	}
	if execute {
		if err := upgrade.UnlockRun(dir, by, reason, version()); err != nil {
			return runError(err)
		}
	}
	return a.result(out, func(w io.Writer) {
		if execute {
			fmt.Fprintf(w, a.t("run %s may go on here\n", "运行 %s 可在本机继续\n"), out.Run)
			return
		}
		fmt.Fprintf(w, a.t("run %s was last worked on by %s\n", "运行 %s 最后由 %s 操作\n"), out.Run, out.LastBy)
		fmt.Fprintln(w, a.t("nothing was changed; let it go on here with --execute --reason TEXT once nothing works on it there", "未做任何改动；确认那边不再操作后，请用 --execute --reason 说明 允许其在本机继续"))
	})
}
