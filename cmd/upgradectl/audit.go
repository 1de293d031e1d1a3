package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newAudit(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: a.t("check and export the journal of a run", "校验和导出运行日志"),
	}
	cmd.AddCommand(newAuditVerify(a), newAuditExport(a))
	return cmd
}

func newAuditVerify(a *app) *cobra.Command {
	var f runFlags
	var heads []string
	cmd := &cobra.Command{
		Use:   "verify [RUN]",
		Short: a.t("find every changed, removed, moved or added record", "找出所有被修改、删除、移动或添加的记录"),
		Long: a.t(`verify checks every line of the journal against its sum and the line before it,
the plan and all larger values against the hashes that the journal names, and
every signature on an approval. That the end was cut off shows only against a
hash that was kept elsewhere: a run prints it when it stops, and reports and
approvals carry it. Give it as --head. Findings end with exit status 12.`,
			`verify 校验日志每一行的校验和以及与前一行的链接、计划和大块数据的哈希，
以及每个审批签名。日志末尾被截断只能与保存在别处的哈希比对才能发现：
运行停下时会打印该哈希，报告和审批中也有。用 --head 给出。发现问题时返回 12。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.with(a, args, func(dir string) error {
				r, err := upgrade.Audit(dir, heads...)
				if err != nil {
					return runError(err)
				}
				if err := a.result(r, func(w io.Writer) {
					fmt.Fprintf(w, a.t("run %s: %d records, %d blobs, %d approvals\n", "运行 %s：记录 %d，数据块 %d，审批 %d\n"), r.Run, r.Records, r.Blobs, r.Approvals)
					fmt.Fprintf(w, "  journal head %s\n", r.Head)
					for _, h := range heads {
						if n, ok := r.Heads[h]; ok {
							fmt.Fprintf(w, a.t("  head %.12s… is record %d, %d came after it\n", "  %.12s… 为第 %d 条记录，其后还有 %d 条\n"), h, n, r.Records-n)
						}
					}
					if r.Torn > 0 || r.Repaired > 0 {
						fmt.Fprintf(w, a.t("  %d torn lines were cut after crashes, %d bytes of one are still there\n", "  崩溃后截去残行 %d 次，尚有残余 %d 字节\n"), r.Repaired, r.Torn)
					}
					for _, x := range r.Findings {
						fmt.Fprintf(w, "  %s\n", x)
					}
					if len(r.Findings) == 0 {
						fmt.Fprintln(w, a.t("  it is as it was written", "  与写入时一致"))
					}
				}); err != nil {
					return err
				}
				if len(r.Findings) > 0 {
					return &exitError{code: exitDamaged}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	cmd.Flags().StringSliceVar(&heads, "head", nil, a.t("a journal head that was kept elsewhere", "保存在别处的日志哈希"))
	return cmd
}

func newAuditExport(a *app) *cobra.Command {
	var f runFlags
	var format string
	cmd := &cobra.Command{
		Use:   "export [RUN]",
		Short: a.t("every record as time, user, source, event, object and result", "以时间、用户、来源、事件、对象、结果的形式导出每条记录"),
		Long: a.t(`export writes one event a line, oldest first, as JSON or as CSV. Of a damaged
journal it writes what stands before the damage and ends with exit status 12.
Keep the export as long as your rules say; six months is a common minimum.`,
			`export 每行输出一个事件，按时间先后，格式为 JSON 或 CSV。
日志损坏时输出损坏之前的部分，并以状态 12 结束。
请按贵单位的规定保存导出结果；通常不少于六个月。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "jsonl" && format != "csv" {
				return usagef(a.t("--format is jsonl or csv, not %q", "--format 只能是 jsonl 或 csv，不能是 %q"), format)
			}
			return f.with(a, args, func(dir string) error { return runError(a.export(dir, format)) })
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", a.t("run directory, or the unique prefix of a run's ID", "运行目录，或运行编号的唯一前缀"))
	cmd.Flags().StringVar(&format, "format", "jsonl", a.t("jsonl or csv", "jsonl 或 csv"))
	return cmd
}

func (a *app) export(dir, format string) error {
	w := &errWriter{w: a.out}
	enc, table := json.NewEncoder(w), csv.NewWriter(w)
	enc.SetEscapeHTML(false)
	if format == "csv" {
		_ = table.Write([]string{"seq", "time", "run", "user", "source", "event", "object", "result", "detail", "prev", "sum"}) // kept by w
	}
	for e, err := range upgrade.ExportAudit(dir) {
		if err != nil {
			table.Flush()
			return err
		}
		if format == "jsonl" {
			if err := enc.Encode(e); err != nil {
				return err
			}
			continue
		}
		_ = table.Write([]string{strconv.Itoa(e.Seq), e.Time.Format(time.RFC3339Nano), e.Run, e.User, e.Source, e.Event, e.Object, e.Result, e.Detail, e.Prev, e.Sum}) // kept by w
	}
	table.Flush()
	return w.err
}
