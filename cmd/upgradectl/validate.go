package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newValidate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "validate [FILE]",
		Short: a.t("check a configuration file; all problems at once, nothing is contacted", "检查配置文件：一次报告全部问题，不访问任何主机或云"),
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := "upgrade.yaml"
			if len(args) > 0 {
				file = args[0]
			}
			c, err := upgrade.LoadConfig(file)
			var ce *upgrade.ConfigError
			if a.json && errors.As(err, &ce) {
				res := struct {
					Problems []upgrade.Problem `json:"problems"`
				}{ce.Problems}
				if err := a.printJSON(res); err != nil {
					return err
				}
				return &exitError{code: exitConfig}
			}
			if err != nil {
				return err
			}
			return a.result(c, func(w io.Writer) {
				if r := c.Rebuild; r != nil {
					fmt.Fprintf(w, a.t("%s: valid; procedure %s on %s, role %s, %d nodes\n", "%s：有效；流程 %s，firstbox %s，角色 %s，节点 %d 个\n"),
						file, c.Procedure, c.Host, r.Role, len(r.Nodes))
					return
				}
				fmt.Fprintf(w, a.t("%s: valid; procedure %s on %s, %d nginx hosts, %d services\n",
					"%s：有效；流程 %s，主机 %s，nginx 主机 %d 台，服务 %d 个\n"),
					file, c.Procedure, c.Host, len(c.Nginx), len(c.Services))
			})
		},
	}
}
