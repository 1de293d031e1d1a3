package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newNginxCat(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "cat",
		Short: a.t("print every file nginx reads, in its order", "按读取顺序输出全部配置文件"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(cmd.Context())
			if err != nil {
				return err
			}
			type file struct {
				Name string `json:"name"`
				Text string `json:"text"`
			}
			files := []file{}
			for _, f := range t.Files() {
				files = append(files, file{f.Name(), string(f.Bytes())})
			}
			return a.result(files, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintf(w, "# configuration file %s:\n%s", f.Name, f.Text)
					if !strings.HasSuffix(f.Text, "\n") {
						fmt.Fprintln(w)
					}
				}
			})
		},
	}
}

func newNginxRefs(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "refs HOST[:PORT]",
		Short: a.t("where the files refer to a host, commented lines included", "查找引用某主机之处，含被注释的行"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := query(args[0])
			if err != nil {
				return err
			}
			s, err := n.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(cmd.Context())
			if err != nil {
				return err
			}
			refs := t.Refs(q)
			return a.result(nonNil(refs), func(w io.Writer) {
				for _, r := range refs {
					fmt.Fprintf(w, "%s:%d:%d: %s %s in %s", r.File, r.Line, r.Col, r.Kind, r.Addr, dash(r.Context))
					if r.Tag != "" {
						fmt.Fprintf(w, " (tag %s)", r.Tag)
					}
					if !r.Certain {
						fmt.Fprintf(w, " (not certain: %s)", r.Reason)
					}
					fmt.Fprintln(w)
				}
			})
		},
	}
}
