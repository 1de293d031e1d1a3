package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newPause(a *app) *cobra.Command {
	var f runFlags
	var reason string
	var wait bool
	cmd := &cobra.Command{
		Use:   "pause [RUN]",
		Short: a.t("ask a run at work to stop before its next step", "请求正在执行的运行在下一步之前暂停"),
		Long: a.t(`pause leaves a request in the run's directory. The process at work takes it
before its next step that is a safe point, writes who asked for it and why into
the journal, and ends with exit status 5; resume goes on.`,
			`pause 在运行目录中留下请求。正在执行的进程会在下一个安全点之前读取它，
把请求人和原因写入日志，然后以状态 5 结束；之后可用 resume 继续。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usagef(a.t("why? give --reason: it is for those who read the journal", "请用 --reason 说明原因：它会写入日志"))
			}
			return f.with(a, args, func(dir string) error {
				if err := upgrade.Pause(dir, f.by, reason); err != nil {
					return runError(err)
				}
				return f.asked(cmd.Context(), a, dir, wait)
			})
		},
	}
	f.add(a, cmd)
	cmd.Flags().StringVar(&reason, "reason", "", a.t("why, for the journal", "原因，写入日志"))
	cmd.Flags().BoolVar(&wait, "wait", false, a.t("wait until the run stands", "等待运行停下"))
	return cmd
}

// asked shows how the run stands after a request.
func (f *runFlags) asked(ctx context.Context, a *app, dir string, wait bool) error {
	if wait {
		if err := upgrade.WaitTaken(ctx, dir, true); err != nil {
			return runError(err)
		}
	}
	r, err := upgrade.ReadReport(dir)
	if err != nil {
		return runError(err)
	}
	return a.result(r, func(w io.Writer) { fmt.Fprint(w, r.Summary()) })
}

func newAbort(a *app) *cobra.Command {
	var f runFlags
	var reason string
	var wait bool
	ways := map[string]*bool{"stop": new(bool), "rollback": new(bool), "park": new(bool)}
	cmd := &cobra.Command{
		Use:   "abort [RUN]",
		Short: a.t("stop a run: says what is legal now, and does it with --stop, --rollback or --park", "中止运行：说明当前可行的方式，并以 --stop、--rollback 或 --park 执行"),
		Long: a.t(`Without a flag abort says which of stop, rollback and park is legal now, and
changes nothing. --stop makes the process at work detach at once: what runs on
a host goes on there. --rollback undoes everything while the pivot is not
reached, --park everything after it. Both need no process at work.`,
			`不带参数时，abort 只说明 stop、rollback、park 中哪些当前可行，不作任何更改。
--stop 让正在执行的进程立即脱离：主机上的任务会继续。越过关键点之前可用
--rollback 撤销全部，之后可用 --park 撤销其后的步骤；两者不要求有进程在执行。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var way string
			for _, name := range []string{"stop", "rollback", "park"} {
				if *ways[name] {
					if way != "" {
						return usagef(a.t("--%s and --%s: choose one", "--%s 与 --%s 只能选一个"), way, name)
					}
					way = name
				}
			}
			if way != "" && strings.TrimSpace(reason) == "" {
				return usagef(a.t("why? give --reason: it is for those who read the journal", "请用 --reason 说明原因：它会写入日志"))
			}
			return f.with(a, args, func(dir string) error {
				if way == "" {
					return f.ways(a, dir)
				}
				defer a.moves()()
				r, live, err := upgrade.Abort(cmd.Context(), dir, way, reason, f.options(a))
				if err != nil || !live {
					return a.finish(r, err)
				}
				return f.asked(cmd.Context(), a, dir, wait)
			})
		},
	}
	f.add(a, cmd)
	cmd.Flags().BoolVar(ways["stop"], "stop", false, a.t("detach at once, to be resumed", "立即脱离，以后续跑"))
	cmd.Flags().BoolVar(ways["rollback"], "rollback", false, a.t("undo everything; before the pivot", "撤销全部；越过关键点之前"))
	cmd.Flags().BoolVar(ways["park"], "park", false, a.t("undo what came after the pivot", "撤销关键点之后的步骤"))
	cmd.Flags().StringVar(&reason, "reason", "", a.t("why, for the journal", "原因，写入日志"))
	cmd.Flags().BoolVar(&wait, "wait", false, a.t("wait until the run stands", "等待运行停下"))
	return cmd
}

// ways says what is legal now.
func (f *runFlags) ways(a *app, dir string) error {
	r, err := upgrade.ReadReport(dir)
	if err != nil {
		return runError(err)
	}
	return a.result(r.Ways, func(w io.Writer) {
		fmt.Fprint(w, r.Summary())
		for _, way := range r.Ways {
			legal := a.t("no ", "否")
			if way.Legal {
				legal = a.t("yes", "可")
			}
			fmt.Fprintf(w, "  %-9s %s  %s\n", way.Name, legal, way.Why)
		}
		fmt.Fprintln(w, a.t("nothing was changed; choose one with --stop, --rollback or --park and --reason", "未作任何更改；请用 --stop、--rollback 或 --park 并加 --reason"))
	})
}
