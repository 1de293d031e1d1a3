package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

func newNginxEdits(a *app, n *nginxFlags) []*cobra.Command {
	edits := []struct {
		use, en, zh string
		args        int
		edit        func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error)
	}{
		{"disable HOST[:PORT]", "comment out the upstream server lines of a host", "注释掉某主机的 upstream server 行", 1,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.Disable(q, tag)
			}},
		{"restore", "put back what disable commented out", "恢复 disable 注释掉的行", 0,
			func(t *nginx.Tree, _ []string, tag string) (*nginx.Change, error) { return t.Restore(tag) }},
		{"add HOST[:PORT] NEWHOST", "add a server like another to every upstream that has it", "在含有某主机的每个 upstream 中增加同样的 server 行", 2,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.AddServer(q, args[1], tag)
			}},
		{"remove", "take out what add put in", "移除 add 增加的行", 0,
			func(t *nginx.Tree, _ []string, tag string) (*nginx.Change, error) { return t.RemoveAdded(tag) }},
		{"replace HOST[:PORT] NEWHOST", "point proxy_pass of a host to another one; the way back is the same with the hosts swapped", "将直接 proxy_pass 到某主机的改指另一主机；互换主机即可恢复", 2,
			func(t *nginx.Tree, args []string, tag string) (*nginx.Change, error) {
				q, err := query(args[0])
				if err != nil {
					return nil, err
				}
				return t.Replace(q, args[1], tag)
			}},
	}
	var cmds []*cobra.Command
	for _, e := range edits {
		cmds = append(cmds, newNginxEdit(a, n, e.use, a.t(e.en, e.zh), e.args, e.edit))
	}
	return cmds
}

func newNginxEdit(a *app, n *nginxFlags, use, short string, args int, edit func(*nginx.Tree, []string, string) (*nginx.Change, error)) *cobra.Command {
	var execute bool
	var tag string
	cmd := &cobra.Command{
		Use:   use + " --tag TAG",
		Short: short,
		Args:  cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if tag == "" {
				return usagef("--tag TAG names the change, so that it can be found again")
			}
			s, err := n.open(ctx, a)
			if err != nil {
				return err
			}
			defer s.close()
			t, err := s.load(ctx)
			if err != nil {
				return err
			}
			c, err := edit(t, args, tag)
			if err != nil {
				return err
			}
			for _, text := range c.Warnings {
				a.progress("%s", text)
			}
			if execute && !c.Empty() {
				if err := s.apply(ctx, c); err != nil {
					return err
				}
			}
			res := struct {
				Executed bool     `json:"executed"`
				Files    []string `json:"files"`
				Diff     string   `json:"diff"`
			}{execute && !c.Empty(), []string{}, c.Diff()}
			for _, f := range c.Files() {
				res.Files = append(res.Files, f.Name)
			}
			if !a.json {
				switch {
				case c.Empty():
					a.progress("%s", a.t("nothing to do", "无需更改"))
				case res.Executed:
					a.progress("%s", a.t("done", "已执行"))
				default:
					a.progress("%s", a.t("nothing was changed; add --execute to do it", "未作任何更改；加 --execute 执行"))
				}
			}
			// The diff alone stands on standard output: it can be piped to patch.
			return a.result(res, func(w io.Writer) { fmt.Fprint(w, res.Diff) })
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "", a.t("name of the change, written into the marker comment", "本次更改的标记名，写入注释"))
	cmd.Flags().BoolVar(&execute, "execute", false, a.t("write, test and reload; without this flag the diff is shown only", "写入、测试并重载；不带此参数只显示差异"))
	return cmd
}
