package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

func newNginxControl(a *app, n *nginxFlags, use, short string, changes bool, do func(*nginx.Server, context.Context) error) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.root != "" {
				return usagef("%s needs a running nginx: --host, or none for this machine, instead of --root", use)
			}
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			run := func() error { return do(s.server, cmd.Context()) }
			if changes {
				return x.change(a, []string{"test and reload nginx of " + s.conf}, run)
			}
			if err := run(); err != nil {
				return err
			}
			return a.result(struct {
				OK bool `json:"ok"`
			}{true}, func(w io.Writer) { fmt.Fprintln(w, a.t("the configuration is valid", "配置有效")) })
		},
	}
	if changes {
		x.flag(a, cmd)
	}
	return cmd
}
