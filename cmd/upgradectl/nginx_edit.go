package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

// A nginxEdit is a command that changes nginx files.
type nginxEdit struct {
	use, en, zh string
	min, max    int  // arguments
	marks       bool // it leaves or follows markers: --tag is needed
	like        bool // it has --like
	mode        bool // it has --mode
	edit        func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error)
}

// nginxEditInput is what the command line says.
type nginxEditInput struct {
	args            []string
	queries         []nginx.Query // of the arguments, as far as they are addresses
	tag, like, mode string
}

func nginxEdits() []nginxEdit {
	return []nginxEdit{
		{use: "disable ADDR", en: "take a server out of its upstreams, to be restored byte for byte", zh: "将某服务器移出各 upstream，可逐字节恢复",
			min: 1, max: 1, marks: true, mode: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				switch in.mode {
				case "auto":
					return t.Disable(in.queries[0], in.tag)
				case "comment":
					return t.Comment(in.queries[0], in.tag)
				case "down":
					return t.SetDown(in.queries[0], in.tag)
				}
				return nil, usagef("--mode is comment, down or auto, not %q", in.mode)
			}},
		{use: "restore [ADDR]", en: "put back what disable took out", zh: "恢复 disable 移出的服务器",
			min: 0, max: 1, marks: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.Restore(in.tag, in.queries...)
			}},
		{use: "add NEW --like ADDR", en: "add a server beside another one, with its parameters", zh: "在某服务器旁增加一台参数相同的服务器",
			min: 1, max: 1, marks: true, like: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				if in.like == "" {
					return nil, usagef("--like ADDR names the server that the new one is to be like")
				}
				like, err := query(in.like)
				if err != nil {
					return nil, err
				}
				return t.AddServer(like, in.args[0], in.tag)
			}},
		{use: "remove [ADDR]", en: "take out what add put in", zh: "移除 add 增加的服务器",
			min: 0, max: 1, marks: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.RemoveAdded(in.tag, in.queries...)
			}},
		{use: "replace OLD NEW", en: "put one address in the place of another: servers, passes and values", zh: "替换地址：upstream 服务器、直接反代与变量值",
			min: 2, max: 2,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.Replace(in.queries[0], in.args[1], in.tag)
			}},
		{use: "shift FROM TO", en: "move all traffic of a host to another one, for each reference by the edit that is right for it", zh: "将某主机的全部流量迁往另一主机，逐处采用合适的修改",
			min: 2, max: 2, marks: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.Shift(in.queries[0], in.args[1], in.tag)
			}},
		{use: "unshift FROM TO", en: "take a shift of the same tag back", zh: "撤销同一标记的 shift",
			min: 2, max: 2, marks: true,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.ShiftBack(in.queries[0], in.args[1], in.tag)
			}},
		{use: "weight ADDR N", en: "set the weight of a server", zh: "设置服务器权重",
			min: 2, max: 2,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				n, err := strconv.Atoi(in.args[1])
				if err != nil || n > 1<<20 {
					return nil, usagef("%q is not a weight: a number from 1 to %d", in.args[1], 1<<20)
				}
				return t.SetWeight(in.queries[0], n)
			}},
		{use: "set-backup ADDR", en: "make a server a backup", zh: "将服务器设为 backup",
			min: 1, max: 1,
			edit: func(t *nginx.Tree, in nginxEditInput) (*nginx.Change, error) {
				return t.SetBackup(in.queries[0])
			}},
	}
}

func newNginxEdits(a *app, n *nginxFlags) []*cobra.Command {
	var cmds []*cobra.Command
	for _, e := range nginxEdits() {
		cmds = append(cmds, newNginxEdit(a, n, e))
	}
	return cmds
}

func newNginxEdit(a *app, n *nginxFlags, e nginxEdit) *cobra.Command {
	var execute bool
	var in nginxEditInput
	var o nginx.ApplyOptions
	cmd := &cobra.Command{
		Use:   e.use,
		Short: a.t(e.en, e.zh),
		Args:  cobra.RangeArgs(e.min, e.max),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.tag == "" && e.marks {
				return usagef("--tag TAG names the change, so that it can be found again")
			}
			if in.tag != "" && !nginx.ValidTag(in.tag) {
				return usagef("%q is not a tag: 1 to 64 letters, digits, dots, dashes or underscores", in.tag)
			}
			if execute && n.root != "" {
				return usagef("--root is for reading; to write a copy, name its main file with -c and say --no-test")
			}
			in.args = args
			if len(args) > 0 {
				q, err := query(args[0])
				if err != nil {
					return err
				}
				in.queries = append(in.queries, q)
			}
			return n.edit(cmd.Context(), a, func(t *nginx.Tree) (*nginx.Change, error) { return e.edit(t, in) }, execute, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.tag, "tag", "", a.t("name of the change, written into the marker comments", "本次更改的标记名，写入标记注释"))
	if e.like {
		f.StringVar(&in.like, "like", "", a.t("the server the new one gets its parameters from", "新服务器沿用其参数的服务器"))
	}
	if e.mode {
		f.StringVar(&in.mode, "mode", "auto", a.t("comment, down, or auto: down where clients are mapped to servers by a hash, else comment", "comment、down 或 auto：按哈希分配客户端时用 down，其余用 comment"))
	}
	f.BoolVar(&execute, "execute", false, a.t("write, nginx -t, reload, proof; without this flag only the diff is shown", "写入、nginx -t、重载并验证；不带此参数只显示差异"))
	f.BoolVar(&o.NoReload, "no-reload", false, a.t("stop after nginx -t", "nginx -t 之后停止，不重载"))
	f.BoolVar(&o.NoTest, "no-test", false, a.t("write only: no nginx program is run", "只写入文件，不运行 nginx 程序"))
	f.StringVar(&o.BackupDir, "backup-dir", "", a.t("absolute directory on the host in which the old files are kept", "保留旧文件的目录（主机上的绝对路径）"))
	return cmd
}

// edit computes a change, shows it, and makes it live when told to.
func (n *nginxFlags) edit(ctx context.Context, a *app, edit func(*nginx.Tree) (*nginx.Change, error), execute bool, o nginx.ApplyOptions) error {
	s, err := n.open(ctx, a)
	if err != nil {
		return err
	}
	defer s.close()
	t, err := s.load(ctx)
	if err != nil {
		return err
	}
	if s.server != nil && !o.NoTest {
		// Without a version, nginx -t is what finds an unknown parameter.
		if v, err := s.server.Version(ctx); err == nil {
			t = t.ForVersion(v)
		}
	}
	c, err := edit(t)
	if refused := (*nginx.RefusedError)(nil); errors.As(err, &refused) {
		if err := a.refusals(refused); err != nil {
			return err
		}
		return &exitError{exitRefused, fmt.Errorf(a.t("cannot %s: refused, nothing was changed", "无法 %s：已拒绝，未作任何更改"), refused.Op)}
	}
	if as[*nginx.ArgumentError](err) {
		return &usageError{err}
	}
	if err != nil {
		return err
	}
	moves := map[string]string{} // what the warnings say of them: in the operator's language
	for _, m := range c.Moves {
		moves[m.String()] = fmt.Sprintf(a.t("upstream %s maps clients to servers (%s): of %d clients of the servers that stay %d move to another one",
			"upstream %s 将客户端映射到服务器（%s）：留用服务器的 %d 个客户端中有 %d 个将换到另一台"), m.Upstream, m.Method, m.Clients, m.Moved)
	}
	for _, text := range c.Warnings {
		if m, ok := moves[text]; ok {
			text = m
		}
		a.progress("%s", text)
	}
	type move struct {
		File     string `json:"file"`
		Line     int    `json:"line"`
		Upstream string `json:"upstream"`
		Method   string `json:"method"`
		Clients  int    `json:"clients"`
		Moved    int    `json:"moved"`
	}
	res := struct {
		Executed bool     `json:"executed"`
		Files    []string `json:"files"`
		Moves    []move   `json:"moves"`
		Backups  []string `json:"backups"`
		// LogUnread says why nginx's error log could not be looked at.
		LogUnread string `json:"log_unread,omitempty"`
		Diff      string `json:"diff"`
	}{Files: []string{}, Moves: []move{}, Backups: []string{}, Diff: c.Diff()}
	for _, f := range c.Files() {
		res.Files = append(res.Files, f.Name)
	}
	for _, m := range c.Moves {
		res.Moves = append(res.Moves, move(m))
	}
	if execute && !c.Empty() {
		applied, err := s.server.Apply(ctx, c, o)
		if err != nil {
			return applyError(a, err)
		}
		res.Executed = true
		res.Backups, res.LogUnread = append(res.Backups, applied.Backups...), applied.LogUnread
		if res.LogUnread != "" {
			a.progress(a.t("nginx's error log could not be read: %s", "无法读取 nginx 错误日志：%s"), res.LogUnread)
		}
	}
	if !a.json {
		switch {
		case c.Empty() && len(c.Already) == 0:
			a.progress("%s", a.t("nothing to do: nothing that it is for was found", "无需更改：未找到相应之处"))
		case c.Empty():
			a.progress("%s", a.t("nothing to do: it is done already", "无需更改：已是如此"))
		case res.Executed && (o.NoReload || o.NoTest):
			a.progress("%s", a.t("written; nginx was not reloaded", "已写入；未重载 nginx"))
		case res.Executed:
			a.progress("%s", a.t("done", "已执行"))
		default:
			a.progress("%s", a.unchanged())
		}
	}
	// The diff alone stands on standard output: it can be piped to patch.
	return a.result(res, func(w io.Writer) { fmt.Fprint(w, res.Diff) })
}

// refusals shows what stands against an edit: a line for each place, and for
// machines the same as a list.
func (a *app) refusals(refused *nginx.RefusedError) error {
	type refusal struct {
		File     string `json:"file"`
		Line     int    `json:"line"`
		Col      int    `json:"col"`
		Upstream string `json:"upstream"`
		Addr     string `json:"addr"`
		Reason   string `json:"reason"`
		Detail   string `json:"detail"`
		Effect   string `json:"effect"`
		Offer    string `json:"offer"`
	}
	list := []refusal{}
	texts := refusalTexts()
	for _, r := range refused.Refusals {
		text := texts[r.Reason]
		a.progress("%s", a.refusalLine(r, text))
		list = append(list, refusal{r.File, r.Line, r.Col, r.Upstream, r.Addr, r.Reason.Error(), r.Detail, r.Effect, text.offer})
	}
	if !a.json {
		return nil
	}
	return a.printJSON(struct {
		Executed bool      `json:"executed"`
		Refused  []refusal `json:"refused"`
	}{false, list})
}

// applyError gives the errors of Apply their exit status.
func applyError(a *app, err error) error {
	var failed *nginx.ApplyError
	var before *nginx.TestError
	var several *nginx.AmbiguousError
	switch {
	case errors.As(err, &failed) && failed.PutBack != nil:
		return &exitError{exitRollbackIncomplete, err}
	case errors.As(err, &failed):
		return &exitError{exitRolledBack, err}
	case errors.As(err, &before) && before.BeforeEdit:
		return &exitError{exitRefused, err}
	case errors.As(err, &several):
		return &usageError{err}
	case errors.Is(err, nginx.ErrNoNginx):
		return &exitError{exitRefused, fmt.Errorf(a.t("%w; nothing was changed; --no-test writes the files without it", "%w；未作任何更改；--no-test 可不经 nginx 直接写入"), err)}
	case errors.Is(err, nginx.ErrNotRunning):
		return &exitError{exitRefused, fmt.Errorf(a.t("%w; --no-reload writes and tests the files", "%w；--no-reload 只写入并测试"), err)}
	}
	return err
}
