package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

// runFlags are shared by the commands that move a run.
type runFlags struct {
	run     string
	until   string
	approve []string
	yes     bool
	by      string

	onFailure string // stop or rollback
}

func (f *runFlags) add(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	cmd.Flags().StringVar(&f.by, "actor", "", a.t("who acts, for the journal; default: the user of the process", "操作人，写入日志；默认为当前用户"))
}

func (f *runFlags) forward(a *app, cmd *cobra.Command) {
	f.add(a, cmd)
	cmd.Flags().StringVar(&f.until, "until", "", a.t("pause after this section, such as 3.11", "执行到该章节后暂停，例如 3.11"))
	cmd.Flags().StringSliceVar(&f.approve, "approve", nil, a.t("approve the gate before this section", "批准该章节前的关口"))
	cmd.Flags().BoolVar(&f.yes, "yes", false, a.t("approve every gate of the run: unattended", "批准全部关口：无人值守"))
	cmd.Flags().StringVar(&f.onFailure, "on-failure", "stop", a.t("stop: leave a failed run where it is, to resume; rollback: take it back at once", "stop：失败后停住以便续跑；rollback：立即回退"))
}

func (f *runFlags) options(a *app) upgrade.RunOptions {
	o := upgrade.RunOptions{Until: f.until, Approve: f.approve, ApproveAll: f.yes, Actor: f.by, Version: version(), Observer: a.observe, Access: &upgrade.Access{Held: a.held}}
	if i := a.interruption; i != nil {
		o.Pause, o.Quit, o.Quitted = i.pause, i.quit, func(error) { os.Exit(exitInterrupted) }
	}
	return o
}

// forwardRun calls apply or resume and, if that fails and --on-failure says so,
// takes the run back.
func (f *runFlags) forwardRun(ctx context.Context, a *app, do func(upgrade.RunOptions) (*upgrade.Result, error)) error {
	if f.onFailure != "stop" && f.onFailure != "rollback" {
		return usagef(a.t("--on-failure is stop or rollback, not %q", "--on-failure 只能是 stop 或 rollback，不能是 %q"), f.onFailure)
	}
	defer a.moves()()
	r, err := do(f.options(a))
	if err != nil || r.State != "failed" || f.onFailure == "stop" {
		return a.finish(r, err)
	}
	a.progress(a.t("failed at %s: %s; rolling back", "在 %s 失败：%s；开始回退"), r.Step, r.Reason)
	back, err := upgrade.Rollback(ctx, r.Dir, f.options(a))
	if err == nil && back.State == "rolled-back" {
		back.Reason = fmt.Sprintf("after %s had failed: %s", r.Step, r.Reason)
		if err := a.finish(back, nil); err != nil {
			return err
		}
		return &exitError{code: exitRolledBack}
	}
	return a.finish(back, err)
}

// observe shows a run's events as lines of progress.
func (a *app) observe(e upgrade.Event) {
	switch e.Kind {
	case "intent", "undo-intent":
		verb := a.t("begin", "开始")
		if e.Kind == "undo-intent" {
			verb = a.t("undo", "撤销")
		}
		a.progress("%s %-6s %-18s %s", e.Time.Format(time.TimeOnly), verb, e.Step, e.Title)
	case "done", "undone", "skipped", "failed", "adopted", "approval", "approved", "undo-failed", "operator":
		a.progress("%s %-6s %-18s %s", e.Time.Format(time.TimeOnly), e.Kind, e.Step, e.Text)
	case "progress":
		for _, l := range strings.Split(strings.TrimRight(e.Text, "\n"), "\n") {
			a.progress("%s        %-18s   %s", e.Time.Format(time.TimeOnly), e.Step, l)
		}
	}
}

// finish prints how a run stands and gives it its exit status.
func (a *app) finish(r *upgrade.Result, err error) error {
	if err != nil {
		return runError(err)
	}
	if err := a.result(r, func(w io.Writer) {
		fmt.Fprintf(w, "run %s: %s\n", r.Run, r.State)
		if r.Step != "" && r.State != "succeeded" {
			fmt.Fprintf(w, "  %s %s\n", a.t("at step", "停在步骤"), r.Step)
		}
		if r.Reason != "" {
			fmt.Fprintf(w, "  %s\n", r.Reason)
		}
		for _, l := range r.Work {
			fmt.Fprintf(w, "  %s %s\n", a.t("left to do:", "尚需处理："), l)
		}
		fmt.Fprintf(w, "  %s %s\n", a.t("journal head", "日志哈希"), r.Head)
		if r.Approvals != "" {
			fmt.Fprintf(w, "  %s\n", r.Approvals)
		}
		a.printWays(w, r.Dir, r.State, r.Step, r.Gate, r.Approvals != "")
	}); err != nil {
		return err
	}
	if status := r.ExitStatus(); status != exitOK {
		return &exitError{code: status}
	}
	return nil
}

// printWays says how to go on with a run on which no process is at work: gate,
// when it waits for an approval, and signed, when that takes signatures.
func (a *app) printWays(w io.Writer, dir, state, step string, gate, signed bool) {
	switch state {
	case "paused":
		approve := ""
		switch {
		case signed:
			fmt.Fprintf(w, "  %s upgradectl approve %s %s --key FILE\n", a.t("approve with:", "批准："), dir, section(step))
		case gate:
			approve = " --approve " + section(step)
		}
		fmt.Fprintf(w, "  %s upgradectl resume --run %s%s\n", a.t("go on with:", "继续："), dir, approve)
	case "failed", "interrupted", "parked":
		fmt.Fprintf(w, "  %s upgradectl resume --run %s  |  upgradectl rollback --run %s\n", a.t("go on with:", "继续："), dir, dir)
	}
}

func section(step string) string {
	s, _, _ := strings.Cut(step, "-")
	return s
}

// runError gives an error of the run functions its exit status.
func runError(err error) error {
	if status := upgrade.ErrorStatus(err); status != upgrade.ExitError {
		return &exitError{code: status, err: err}
	}
	return err
}

func newApply(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "apply PLAN",
		Short: a.t("carry a plan out, up to the next gate", "执行计划，直到下一个关口"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			stored, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			id := upgrade.NewRunID(time.Now())
			dir := f.run
			if dir == "" {
				state, err := upgrade.StateDir()
				if err != nil {
					return err
				}
				dir = filepath.Join(state, id)
			}
			a.progress(a.t("run %s in %s", "运行 %s，目录 %s"), id, dir)
			return f.forwardRun(cmd.Context(), a, func(o upgrade.RunOptions) (*upgrade.Result, error) {
				return upgrade.Apply(cmd.Context(), dir, id, stored, o)
			})
		},
	}
	f.forward(a, cmd)
	return cmd
}

func newResume(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "resume [RUN]",
		Short: a.t("go on with a run after a gate, a failure, or a kill", "在关口、失败或中断之后继续运行"),
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(a, args, func(dir string) error {
				return f.forwardRun(cmd.Context(), a, func(o upgrade.RunOptions) (*upgrade.Result, error) {
					return upgrade.Resume(cmd.Context(), dir, o)
				})
			})
		},
	}
	f.forward(a, cmd)
	return cmd
}

func newRollback(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "rollback [RUN]",
		Short: a.t("take a run back to its beginning; past the pivot, to where the transition host carries the traffic", "回退到起点；越过关键点之后，停在由过渡机承载流量的状态"),
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(a, args, func(dir string) error {
				defer a.moves()()
				return a.finish(upgrade.Rollback(cmd.Context(), dir, f.options(a)))
			})
		},
	}
	f.add(a, cmd)
	return cmd
}

func newStatus(a *app) *cobra.Command {
	return newReading(a, "status [RUN]", a.t("how a run stands", "运行的当前状态"), func(w io.Writer, dir string, r *upgrade.Report) {
		fmt.Fprint(w, r.Summary())
		if !r.Live {
			a.printWays(w, dir, r.State, r.Step, r.Gate, r.Approvals != "")
		}
	})
}

func newReport(a *app) *cobra.Command {
	return newReading(a, "report [RUN]", a.t("what a run did, from its journal alone", "运行的完整报告，仅依据其日志"), func(w io.Writer, _ string, r *upgrade.Report) {
		fmt.Fprint(w, r.Text())
	})
}

func newReading(a *app, use, short string, text func(w io.Writer, dir string, r *upgrade.Report)) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.with(a, args, func(dir string) error {
				r, err := upgrade.ReadReport(dir)
				if err != nil {
					return runError(err)
				}
				return a.result(r, func(w io.Writer) { text(w, dir, r) })
			})
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	return cmd
}

// with finds the run that --run or the argument names.
func (f *runFlags) with(a *app, args []string, do func(dir string) error) error {
	name := f.run
	if len(args) == 1 {
		if name != "" {
			return usagef(a.t("give the run once: as --run or as an argument", "请只用一种方式指定运行：--run 或参数"))
		}
		name = args[0]
	}
	if name == "" {
		return usagef(a.t("which run? give --run DIR or the prefix of its ID", "请用 --run 指定运行目录或编号前缀"))
	}
	dir, err := upgrade.FindRun(name)
	if err != nil {
		return &exitError{code: exitRefused, err: err}
	}
	return do(dir)
}
