package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newPlan(a *app) *cobra.Command {
	var config, output string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: a.t("look at the world and say, step by step, what an upgrade will do; nothing is changed", "查看现状，逐步列出升级将做什么；不作任何更改"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := upgrade.LoadConfig(config)
			if err != nil {
				return err
			}
			e, err := upgrade.NewEnv(cfg, &upgrade.Access{Held: a.held})
			if err != nil {
				return err
			}
			defer e.Close()
			facts, err := upgrade.Discover(cmd.Context(), cfg, e)
			if err != nil {
				return err
			}
			p, err := upgrade.BuildPlan(cfg, facts, time.Now(), version())
			if err != nil {
				return cmp.Or(a.refusal(err), err)
			}
			stored, err := p.JSON()
			if err != nil {
				return err
			}
			if output != "" {
				// It names hosts and addresses: nobody else's business.
				if err := writeOutput(output, stored, 0o600); err != nil {
					return err
				}
				a.progress(a.t("plan written to %s (%s)", "计划已写入 %s（%s）"), output, upgrade.PlanHash(stored)[:12])
			}
			if a.json {
				_, err := a.out.Write(stored)
				return err
			}
			return a.result(nil, func(w io.Writer) { fmt.Fprint(w, p.Text()) })
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "upgrade.yaml", a.t("configuration file", "配置文件"))
	cmd.Flags().StringVarP(&output, "output", "o", "", a.t("write the plan to this file, for apply", "将计划写入该文件，供 apply 使用"))
	return cmd
}

// refusal prints what was found when a plan was refused: everything for
// machines; for people what the error itself does not say.
func (a *app) refusal(err error) error {
	var r *upgrade.RefusedError
	if !errors.As(err, &r) || len(r.Findings) == 0 {
		return nil
	}
	return a.result(struct {
		Host     string            `json:"host"`
		Refused  bool              `json:"refused"`
		Findings []upgrade.Finding `json:"findings"`
	}{r.Host, true, r.Findings}, func(w io.Writer) {
		fmt.Fprint(w, r.Rest())
	})
}
