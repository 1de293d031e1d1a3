package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newEvents(a *app) *cobra.Command {
	var f runFlags
	var follow bool
	var since int
	cmd := &cobra.Command{
		Use:   "events [RUN]",
		Short: a.t("the records of a run's journal, as they come", "运行日志中的记录，可实时跟随"),
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(a, args, func(dir string) error {
				for rec, err := range upgrade.Events(cmd.Context(), dir, since, follow) {
					if err != nil {
						return runError(err)
					}
					if err := a.event(rec); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, a.t("wait for more while a process is at work", "进程执行期间持续等待新记录"))
	cmd.Flags().IntVar(&since, "since", 0, a.t("begin after the record with this number", "从该编号之后的记录开始"))
	return cmd
}

// event prints one record: with --json the record, one line each.
func (a *app) event(rec upgrade.Record) error {
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		return e.Encode(rec)
	}
	var b struct{ Title, Reason, Error, Actor, Act, Mode, Refused string }
	_ = json.Unmarshal(rec.Body, &b) // the line shows what it can
	text := rec.Kind
	for _, s := range []string{rec.Step, b.Mode, b.Act, b.Title, b.Reason, b.Error} {
		if s != "" {
			text += " " + s
		}
	}
	if b.Actor != "" {
		text += " (" + b.Actor + ")"
	}
	if b.Refused != "" {
		text += " " + a.t("refused: ", "已拒绝：") + b.Refused
	}
	_, err := fmt.Fprintf(a.out, "%5d %s %s\n", rec.Seq, rec.Time.Format(time.RFC3339), text)
	return err
}
