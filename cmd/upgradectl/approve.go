package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newApprove(a *app) *cobra.Command {
	var (
		f                          runFlags
		key, write, signed, reason string
		agent                      bool
		valid                      time.Duration
	)
	cmd := &cobra.Command{
		Use:   "approve RUN [GATE]",
		Short: a.t("approve a gate with an SSH key", "用 SSH 密钥签名批准关口"),
		Long: a.t(`approve signs that a gate may be passed: for this run, this plan, this attempt,
on this state of the journal, until a time. Who may approve is in the plan
(approvals in upgrade.yaml). GATE is a section or a step.

Whoever cannot reach the run directory signs elsewhere:

    upgradectl approve RUN 4.4 --write gate.txt       # whoever runs it
    ssh-keygen -Y sign -f KEY -n gate@upgradectl gate.txt   # the approver: read it first
    upgradectl approve RUN --signed gate.txt          # whoever runs it; takes gate.txt.sig

The run goes on with resume, once enough people have approved.`,
			`approve 用签名表明可以越过某个关口：限于此运行、此计划、此次尝试、
日志的此刻状态，并有截止时间。谁可以批准写在计划中（upgrade.yaml 的 approvals）。
GATE 为章节或步骤。

无法访问运行目录的人可在别处签名：

    upgradectl approve RUN 4.4 --write gate.txt       # 执行人
    ssh-keygen -Y sign -f 密钥 -n gate@upgradectl gate.txt   # 审批人：先阅读内容
    upgradectl approve RUN --signed gate.txt          # 执行人；读取 gate.txt.sig

批准人数足够后，用 resume 继续。`),
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := 0
			for _, given := range []bool{key != "", agent, write != "", signed != ""} {
				if given {
					ways++
				}
			}
			if ways != 1 || (signed == "") != (len(args) == 2) {
				return usagef(a.t("give RUN GATE with one of --key, --agent and --write, or RUN with --signed", "请给出 RUN GATE 与 --key、--agent、--write 之一，或 RUN 与 --signed"))
			}
			return f.with(a, args[:1], func(dir string) error {
				if signed != "" {
					text, err := os.ReadFile(signed)
					if err != nil {
						return err
					}
					sig, err := os.ReadFile(signed + ".sig")
					if err != nil {
						return err
					}
					return a.approved(dir, text, sig, f.by)
				}
				st, err := upgrade.NewStatement(dir, args[1], valid, reason)
				if err != nil {
					return runError(err)
				}
				if write != "" {
					text, err := st.Bytes()
					if err != nil {
						return err
					}
					if err := writeOutput(write, text, 0o644); err != nil {
						return err
					}
					return a.result(st, func(w io.Writer) {
						fmt.Fprintf(w, "%s", text)
						fmt.Fprintf(w, a.t("written to %s; to be signed with: ssh-keygen -Y sign -f KEY -n %s %s\n", "已写入 %s；签名命令：ssh-keygen -Y sign -f 密钥 -n %s %s\n"), write, upgrade.ApprovalNamespace, write)
					})
				}
				var signer upgrade.Key
				if agent {
					var end func() error
					if signer, end, err = upgrade.AgentKey(dir, os.Getenv("SSH_AUTH_SOCK")); err == nil {
						defer end() // nothing was changed in it
					}
				} else {
					signer, err = upgrade.ReadKey(key)
				}
				if err != nil {
					return err
				}
				text, sig, err := st.Sign(signer)
				if err != nil {
					return err
				}
				a.progress("%s", text)
				return a.approved(dir, text, sig, f.by)
			})
		},
	}
	f.add(a, cmd)
	cmd.Flags().StringVar(&key, "key", "", a.t("private key file", "私钥文件"))
	cmd.Flags().BoolVar(&agent, "agent", false, a.t("sign with the first key of the SSH agent that may approve", "使用 SSH 代理中第一个有权批准的密钥"))
	cmd.Flags().StringVar(&write, "write", "", a.t("write what has to be signed to this file", "把待签名内容写入该文件"))
	cmd.Flags().StringVar(&signed, "signed", "", a.t("hand in what ssh-keygen -Y sign signed: this file and FILE.sig", "提交 ssh-keygen -Y sign 已签名的文件及其 .sig"))
	cmd.Flags().DurationVar(&valid, "valid", 0, a.t("how long the approval counts; default: as long as the plan allows", "批准的有效时长；默认为计划允许的上限"))
	cmd.Flags().StringVar(&reason, "reason", "", a.t("a remark that is signed too", "一并签名的备注"))
	return cmd
}

// approved hands a signed statement in and shows what came of it.
func (a *app) approved(dir string, text, sig []byte, actor string) error {
	ap, err := upgrade.Approve(dir, text, sig, actor)
	if err != nil {
		return runError(err)
	}
	return a.result(ap, func(w io.Writer) {
		fmt.Fprintf(w, a.t("%s approved %s until %s (key %s)\n", "%s 已批准 %s，有效至 %s（密钥 %s）\n"), ap.By, ap.Step, ap.Expires.UTC().Format(time.RFC3339), ap.Key)
		if r, err := upgrade.ReadReport(dir); err == nil {
			fmt.Fprint(w, r.Summary())
		}
	})
}
